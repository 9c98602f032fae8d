//! An endpoint that takes every PutRecords request and does next to nothing for it, so that it is not what is measured.
//!
//! It trusts its only client: no limit, no signature, no JSON is checked, and records are counted by their braces (neither
//! base64 nor the topics of this traffic contain any), in CBOR by the length of their list. It names no shards but in CBOR,
//! where it says of each record to which of them it belongs. The tests' upstream is the one that checks.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use forebay_log_store::HashKey;

/// With nothing delivered for so long, something is wrong.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long it is measured by itself.
const ALONE: Duration = Duration::from_secs(1);

/// As many as the gateway's stream has.
const SHARDS: u32 = 4;

const SEQUENCE_NUMBER: &str = "49600000000000000000000000000000000000000000000000000000";
const SHARD_IDS: [&str; SHARDS as usize] =
    ["shardId-000000000000", "shardId-000000000001", "shardId-000000000002", "shardId-000000000003"];

const CBOR: &str = "application/x-amz-cbor-1.1";

/// Listens until the program ends.
pub(crate) struct Upstream {
    port: u16,
    taken: Arc<Taken>,
}

#[derive(Default)]
struct Taken {
    closed: AtomicBool,
    records: Mutex<u64>,
    more: Condvar,
}

/// A delivery that is waited for.
pub(crate) struct Delivery<'a> {
    taken: &'a Taken,
    before: u64,
    begun: Instant,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let taken = Arc::<Taken>::default();
        let shared = Arc::clone(&taken);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.expect("a listening socket accepts");
                if shared.closed.load(Relaxed) {
                    continue;
                }
                let taken = Arc::clone(&shared);
                thread::spawn(move || {
                    // The agent is killed at the end of its run.
                    let _ = serve(connection, &taken);
                });
            }
        });
        Self { port, taken }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whether it talks to whoever comes.
    pub(crate) fn set_open(&self, open: bool) {
        self.taken.closed.store(!open, Relaxed);
    }

    /// How many records of so many bytes it takes in a second from somebody who does nothing else, so many at once.
    pub(crate) fn alone(&self, bytes: usize, records: usize) -> f64 {
        let data = "A".repeat(bytes.div_ceil(3) * 4);
        let entry = format!(r#"{{"Data":"{data}","PartitionKey":"plant/0/sensor-000/value"}}"#);
        let body = format!(r#"{{"Records":[{}],"StreamName":"s"}}"#, vec![entry; records].join(","));
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let mut reader = BufReader::new(connection.try_clone().expect("a socket"));
        let (begun, mut taken) = (Instant::now(), 0);
        let mut answer = Vec::new();
        while begun.elapsed() < ALONE {
            connection.write_all(request.as_bytes()).expect("it takes requests");
            let head = head(&mut reader).expect("it answers").expect("it does not hang up");
            answer.resize(head.length, 0);
            reader.read_exact(&mut answer).expect("a whole answer");
            taken += records;
        }
        taken as f64 / begun.elapsed().as_secs_f64()
    }

    /// From now on it counts.
    pub(crate) fn begin(&self) -> Delivery<'_> {
        let before = *self.taken.records.lock().expect("no panic while counting");
        Delivery { taken: &self.taken, before, begun: Instant::now() }
    }
}

impl Delivery<'_> {
    /// Waits until so many records came; returns how long that took from the beginning.
    pub(crate) fn wait_for(self, count: u64) -> Duration {
        let mut records = self.taken.records.lock().expect("no panic while counting");
        while *records - self.before < count {
            let (now, waited) = self.taken.more.wait_timeout(records, SILENCE_MAX).expect("no panic while counting");
            assert!(
                !waited.timed_out(),
                "nothing delivered for {SILENCE_MAX:?}, {} of {count} before",
                *now - self.before
            );
            records = now;
        }
        self.begun.elapsed()
    }
}

fn serve(connection: TcpStream, taken: &Taken) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 * 1024, connection.try_clone()?);
    let mut writer = connection;
    let (mut body, mut answer) = (Vec::new(), Vec::new());
    let entries = Entries::new();
    while let Some(Head { length, lists_shards, cbor }) = head(&mut reader)? {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        if lists_shards {
            let (shards, head) = (shards(), "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1");
            writer.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{shards}", shards.len()).as_bytes())?;
            continue;
        }
        let records = if cbor {
            let shards = shards_of(&body);
            entries.respond_in_cbor(&shards, &mut answer);
            shards.len()
        } else {
            // One brace is the request's own.
            let records = body.iter().filter(|byte| **byte == b'{').count() - 1;
            entries.respond(records, &mut answer);
            records
        };
        *taken.records.lock().expect("no panic while counting") += records as u64;
        taken.more.notify_all();
        writer.write_all(&answer)?;
    }
    Ok(())
}

struct Head {
    length: usize,
    lists_shards: bool,
    cbor: bool,
}

/// Reads a request's head; nothing at the connection's end.
fn head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let (mut length, mut lists_shards, mut cbor) = (None, false, false);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok(),
            Some((_, value)) if value.trim() == "Kinesis_20131202.ListShards" => lists_shards = true,
            Some((_, value)) if value.trim() == CBOR => cbor = true,
            None if line.trim_end().is_empty() => {
                let length = length.expect("the SDK says how long its body is");
                return Ok(Some(Head { length, lists_shards, cbor }));
            }
            _ => {}
        }
    }
}

/// What it says of its shards, each of which has as many hash keys as any other.
fn shards() -> String {
    let width = u128::MAX / u128::from(SHARDS) + 1;
    let shard = |(number, id): (usize, &&str)| {
        let begin = width * number as u128;
        let range = format!(r#"{{"StartingHashKey":"{begin}","EndingHashKey":"{}"}}"#, begin + (width - 1));
        format!(r#"{{"ShardId":"{id}","HashKeyRange":{range},"SequenceNumberRange":{{"StartingSequenceNumber":"1"}}}}"#)
    };
    format!(r#"{{"Shards":[{}]}}"#, SHARD_IDS.iter().enumerate().map(shard).collect::<Vec<_>>().join(","))
}

/// The number of the shard for each record of a request in CBOR.
fn shards_of(body: &[u8]) -> Vec<usize> {
    let mut body = minicbor::Decoder::new(body);
    let (mut shards, mut fields) = (Vec::new(), body.map().expect("CBOR").expect("as long as it says"));
    while fields > 0 {
        fields -= 1;
        if body.str().expect("a name") != "Records" {
            body.skip().expect("a value");
            continue;
        }
        for _ in 0..body.array().expect("a list").expect("as long as it says") {
            let mut key = None;
            for _ in 0..body.map().expect("a record").expect("as long as it says") {
                match body.str().expect("a name") {
                    "PartitionKey" => key = Some(body.str().expect("a text")),
                    _ => body.skip().expect("a value"),
                }
            }
            let HashKey(key) = HashKey::of(key.expect("every record has one"));
            shards.push((key >> (u128::BITS - SHARDS.ilog2())) as usize);
        }
    }
    shards
}

/// What is said of a record, in either encoding.
struct Entries {
    json: Vec<u8>,
    cbor: [Vec<u8>; SHARDS as usize],
}

impl Entries {
    fn new() -> Self {
        let json = format!(r#"{{"SequenceNumber":"{SEQUENCE_NUMBER}","ShardId":"{}"}},"#, SHARD_IDS[0]);
        let cbor = SHARD_IDS.map(|shard| {
            let mut cbor = minicbor::Encoder::new(Vec::new());
            let written = cbor.map(2).and_then(|cbor| cbor.str("SequenceNumber")?.str(SEQUENCE_NUMBER));
            written.and_then(|cbor| cbor.str("ShardId")?.str(shard)).expect("memory takes every value");
            cbor.into_writer()
        });
        Self { json: json.into_bytes(), cbor }
    }

    fn respond(&self, records: usize, answer: &mut Vec<u8>) {
        const HEAD: &[u8] = br#"{"FailedRecordCount":0,"Records":["#;
        // No comma behind the last one.
        let entries = records * self.json.len() - 1;
        begin("application/x-amz-json-1.1", HEAD.len() + entries + 2, answer);
        answer.extend_from_slice(HEAD);
        (0..records).for_each(|_| answer.extend_from_slice(&self.json));
        answer.pop();
        answer.extend_from_slice(b"]}");
    }

    fn respond_in_cbor(&self, shards: &[usize], answer: &mut Vec<u8>) {
        let mut head = minicbor::Encoder::new(Vec::new());
        let written = head.map(2).and_then(|head| head.str("FailedRecordCount")?.u32(0)?.str("Records"));
        written.and_then(|head| head.array(shards.len() as u64)).expect("memory takes every value");
        let head = head.into_writer();
        let entries: usize = shards.iter().map(|&shard| self.cbor[shard].len()).sum();
        begin(CBOR, head.len() + entries, answer);
        answer.extend_from_slice(&head);
        shards.iter().for_each(|&shard| answer.extend_from_slice(&self.cbor[shard]));
    }
}

fn begin(content_type: &str, length: usize, answer: &mut Vec<u8>) {
    answer.clear();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
    answer.extend_from_slice(head.as_bytes());
}
