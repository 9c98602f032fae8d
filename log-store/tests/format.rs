//! Reads data directories by `docs/format.md` alone: nothing of the crate is used for it, so the page is true.

#![allow(clippy::disallowed_methods, reason = "it reads files as a stranger would")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
};

use forebay_log_store::{Codec, NewRecord, Store, StoreConfig, StreamConfig, SystemClock, Tag, WhenFull};

/// Bytes, read from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    /// LEB128, as postcard has all unsigned integers but bytes.
    fn varint(&mut self) -> u128 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.bytes(1)[0];
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        unreachable!()
    }

    fn number(&mut self) -> u64 {
        u64::try_from(self.varint()).expect("64 bits")
    }

    fn data(&mut self) -> &'a [u8] {
        let len = self.number() as usize;
        self.bytes(len)
    }

    fn text(&mut self) -> &'a str {
        std::str::from_utf8(self.data()).expect("UTF-8")
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.bytes(1)[0] == 1).then(|| read(self))
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.number()).map(|_| read(self)).collect()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// CRC-32 as in Ethernet and zip, going on from an earlier one.
fn crc(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A mark's name and value.
fn mark(input: &mut Input<'_>) -> (String, Vec<u8>) {
    (input.text().to_owned(), input.data().to_vec())
}

/// A stream as its files have it, in the words of `expected.txt`.
#[derive(Default)]
struct Found {
    shards: String,
    checkpoints: BTreeMap<String, u64>,
    marks: BTreeMap<String, Vec<u8>>,
    records: String,
    codecs: Vec<u8>,
    next: u64,
}

impl Found {
    fn of(dir: &Path) -> (u16, Self) {
        let mut files: Vec<PathBuf> =
            fs::read_dir(dir).expect("listed").map(|entry| entry.expect("listed").path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        files.sort();
        let mut found = Self { next: 1, ..Self::default() };
        let mut newest = 0;
        for path in files {
            let bytes = fs::read(&path).expect("read");
            assert_eq!(path.file_stem().expect("a name").to_str(), Some(&*format!("{:020}", u64_at(&bytes, 16))));
            newest = found.segment(&bytes);
        }
        (newest, found)
    }

    /// Returns the version.
    fn segment(&mut self, bytes: &[u8]) -> u16 {
        assert_eq!(&bytes[..4], b"FBSG");
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        assert!((1..=3).contains(&version) && bytes[6..8] == [0, 0]);
        // A recycled file of a closed log was cut to what it holds.
        assert!(version > 1 || bytes[48..52] == [0; 4]);
        let behind_header = 56 + u32_at(bytes, 8) as usize;
        assert_eq!(crc(crc(0, &bytes[..52]), &bytes[56..behind_header]), u32_at(bytes, 52));
        let (first, id) = (u64_at(bytes, 16), u64_at(bytes, 40));
        assert_eq!(first, self.next, "a segment begins where the one before ends");

        let mut definition = Input(&bytes[56..behind_header]);
        assert_eq!(definition.number(), id);
        definition.text();
        if version > 1 {
            definition.number();
        }
        let shards = definition.list(|shard| {
            let (index, first, last) = (shard.number(), shard.varint(), shard.varint());
            shard.list(Input::number);
            let is_open = if version == 1 {
                shard.bytes(1)[0] == 1
            } else {
                shard.number();
                shard.option(Input::number).is_none()
            };
            format!("shard shardId-{index:012} {first} {last} {is_open}\n")
        });
        self.shards = shards.concat();
        definition.number();
        if version > 1 {
            definition.text();
        }
        assert_eq!(definition.0.len(), 0);

        let salt = crc(crc(0, &id.to_le_bytes()), &first.to_le_bytes());
        let mut rest = &bytes[behind_header..];
        let mut is_first = true;
        while !rest.is_empty() {
            let (header, behind) = rest.split_at(64);
            assert_eq!(&header[..4], b"FBLK");
            let (stored, behind) = behind.split_at(u32_at(header, 8) as usize);
            let (padding, behind) = behind.split_at(u16::from_le_bytes([header[6], header[7]]).into());
            assert!(version > 1 || padding.is_empty());
            assert_eq!(crc(salt, stored), u32_at(header, 56));
            assert_eq!(crc(salt, &header[..60]), u32_at(header, 60));
            assert!(!is_first || header[4] == 2, "the first block is a control block");
            let payload = match header[5] {
                0 => stored.to_vec(),
                1 => lz4_flex::block::decompress(stored, u32_at(header, 12) as usize).expect("lz4"),
                2 => zstd::bulk::decompress(stored, u32_at(header, 12) as usize).expect("zstd"),
                codec => panic!("codec {codec}"),
            };
            assert_eq!(payload.len(), u32_at(header, 12) as usize);
            assert_eq!(u64_at(header, 16), self.next);
            assert!(version > 2 || header[4] & 0x40 == 0);
            match header[4] & 0x7f {
                1 => self.records(header, &payload),
                0x41 => {
                    let mut payload = Input(&payload);
                    self.set_marks(Input(payload.data()).list(mark));
                    self.records(header, payload.0);
                }
                2 => self.control(header, &payload, version),
                3 | 4 if version > 1 => self.next += u64::from(u32_at(header, 24)),
                kind => panic!("kind {kind}"),
            }
            rest = behind;
            is_first = false;
        }
        version
    }

    fn set_marks(&mut self, marks: Vec<(String, Vec<u8>)>) {
        self.marks.extend(marks);
        self.marks.retain(|_, value| !value.is_empty());
    }

    fn control(&mut self, header: &[u8], payload: &[u8], version: u16) {
        assert_eq!((header[5], u32_at(header, 24)), (0, 0));
        let mut payload = Input(payload);
        self.checkpoints = payload.list(|entry| (entry.text().to_owned(), entry.number())).into_iter().collect();
        for _ in 0..7 {
            payload.number();
        }
        if payload.0.is_empty() {
            return;
        }
        payload.list(|gap| (gap.number(), gap.number()));
        payload.number();
        payload.list(|boot| {
            for _ in 0..3 {
                boot.number();
            }
            boot.option(|began| [(); 4].map(|()| began.number()));
        });
        if version > 2 {
            let marks = payload.list(mark);
            // What was set before, here as there.
            assert_eq!(marks.iter().cloned().collect::<BTreeMap<_, _>>(), self.marks);
            let unwritten = payload.list(|range| (range.number(), range.number()));
            assert!(unwritten.iter().all(|(first, last)| first <= last && *last < self.next));
            assert!(unwritten.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "apart from each other: {unwritten:?}");
        }
        assert_eq!(payload.0.len(), 0);
    }

    fn records(&mut self, header: &[u8], payload: &[u8]) {
        self.codecs.push(header[5]);
        let (arrival, mut shards) = (u64_at(header, 32), 0);
        let mut payload = Input(payload);
        let behind = self.next + u64::from(u32_at(header, 24));
        while !payload.0.is_empty() {
            let (shard, records, bytes) = (payload.number(), payload.number(), payload.number());
            shards |= 1u64 << (shard % 64);
            let mut run = Input(payload.bytes(bytes as usize));
            for _ in 0..records {
                self.record(shard, arrival, &mut run);
            }
            assert_eq!(run.0.len(), 0);
        }
        assert_eq!((self.next, shards), (behind, u64_at(header, 48)));
    }

    fn record(&mut self, shard: u64, arrival: u64, run: &mut Input<'_>) {
        let variant = run.varint();
        let key = run.text();
        let (mut hash_key, mut tags) = (None, Vec::new());
        if variant == 1 {
            hash_key = run.option(Input::varint);
            tags = run.list(|tag| format!("{}={}", tag.text(), tag.text()));
        } else {
            assert_eq!(variant, 0);
        }
        let data = run.data();
        let hash_key = hash_key.map_or("-".to_owned(), |key| key.to_string());
        let start: String = data.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(
            self.records,
            "{} shardId-{shard:012} {arrival} {key} {hash_key} [{}] {} bytes {start} crc {:08x}",
            self.next,
            tags.join(", "),
            data.len(),
            crc(0, data)
        );
        self.next += 1;
    }

    fn described(&self, name: &str) -> String {
        let checkpoints: String =
            self.checkpoints.iter().map(|(name, done)| format!("checkpoint {name} {done}\n")).collect();
        let marks: String = self
            .marks
            .iter()
            .map(|(name, value)| format!("mark {name} {}\n", String::from_utf8_lossy(value)))
            .collect();
        format!("stream {name}\n{}{checkpoints}{marks}{}", self.shards, self.records)
    }
}

#[test]
fn golden_directories_are_what_the_page_says() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut versions = 0;
    for entry in fs::read_dir(golden).expect("listed") {
        let dir = entry.expect("listed").path();
        let expected = fs::read_to_string(dir.join("expected.txt")).expect("read");
        let mut found = String::new();
        for name in expected.lines().filter_map(|line| line.strip_prefix("stream ")) {
            let (version, stream) = Found::of(&dir.join("data/streams").join(name));
            assert_eq!(dir.file_name().and_then(|name| name.to_str()), Some(&*format!("format-v{version}")));
            found.push_str(&stream.described(name));
        }
        assert_eq!(found, expected, "{}", dir.display());
        versions += 1;
    }
    assert!(versions > 0);
}

#[test]
fn what_is_written_today_is_what_the_page_says() {
    for (compression, byte) in [(Codec::None, 0), (Codec::Lz4, 1), (Codec::Zstd, 2)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store =
            Store::open(StoreConfig::new(dir.path()), SystemClock::new(), |event| panic!("{event}")).expect("opens");
        let stream = store.stream(StreamConfig { compression, ..StreamConfig::new("telemetry") }).expect("opens");
        let tags = [Tag { name: "reason".into(), value: "a test".into() }];
        for number in 1..=20 {
            let data = vec![number; 500];
            let mut batch = stream.batch();
            batch.push(&NewRecord::new("key", &data)).expect("sound");
            batch.push(&NewRecord { tags: &tags, ..NewRecord::new("tagged", &data) }).expect("sound");
            let (tell, told) = mpsc::channel();
            stream.append(batch, WhenFull::Wait, Box::new(move |outcome| tell.send(outcome).expect("awaited")));
            told.recv().expect("answered").expect("taken");
        }
        store.close();
        let (_, found) = Found::of(&dir.path().join("streams/telemetry"));
        assert!(found.codecs.iter().all(|codec| *codec == byte), "{:?}", found.codecs);
        let lines: Vec<_> = found.records.lines().collect();
        assert_eq!(lines.len(), 40);
        for (line, i) in lines.iter().zip(0u8..) {
            let number = i / 2 + 1;
            let (key, tags) = if i % 2 == 0 { ("key", "[]") } else { ("tagged", "[reason=a test]") };
            let data = format!("{number:02x}").repeat(12);
            assert!(line.starts_with(&format!("{} shardId-000000000000 ", i + 1)), "{line}");
            assert!(line.contains(&format!(" {key} - {tags} 500 bytes {data} ")), "{line}");
        }
    }
}
