//! How fast this machine computes, told by a program that was measured where the aims come from, too: kinesalite, which is JavaScript
//! in one thread, and hardly ever in the kernel.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    http,
    port::free_port,
    process::{Process, eventually},
};

/// As it was measured there: so many requests at once, each of so many records of 1 KiB.
const CALLERS: u64 = 8;
const RECORDS: u64 = 500;

const MEASURED_FOR: Duration = Duration::from_secs(6);

/// Records per second that it takes, all in memory.
pub(crate) fn records_per_second() -> f64 {
    let port = free_port();
    // Where tests/counterparts/install puts it.
    let mut command =
        Command::new(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.counterparts/bin/kinesalite")));
    command.stdout(Stdio::null()).args(["--port", &port.to_string(), "--createStreamMs", "0", "--deleteStreamMs", "0"]);
    let _kinesalite = Process::start(command);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("kinesalite listens", || TcpStream::connect(address).is_ok());
    ask(address, "CreateStream", br#"{"StreamName":"s","ShardCount":4}"#);
    eventually("there is a stream", || {
        ask(address, "DescribeStreamSummary", br#"{"StreamName":"s"}"#).contains(r#""ACTIVE""#)
    });
    let mut random = fastrand::Rng::with_seed(1);
    let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1024).collect();
    let data = BASE64_STANDARD.encode(data);
    let entry = |number| format!(r#"{{"Data":"{data}","PartitionKey":"key-{number}"}}"#);
    let entries: Vec<_> = (0..RECORDS).map(entry).collect();
    let body = format!(r#"{{"StreamName":"s","Records":[{}]}}"#, entries.join(","));
    let (begun, taken) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while begun.elapsed() < MEASURED_FOR {
                    let answer = ask(address, "PutRecords", body.as_bytes());
                    assert!(answer.contains(r#""FailedRecordCount":0"#), "{answer:.200}");
                    taken.fetch_add(RECORDS, Relaxed);
                }
            });
        }
    });
    taken.into_inner() as f64 / begun.elapsed().as_secs_f64()
}

fn ask(address: SocketAddr, operation: &str, body: &[u8]) -> String {
    let target = format!("Kinesis_20131202.{operation}");
    // It looks at the form of a signature only.
    let authorization =
        "AWS4-HMAC-SHA256 Credential=a/20200101/us-east-1/kinesis/aws4_request, SignedHeaders=a, Signature=b";
    let headers = [
        ("X-Amz-Target", &*target),
        ("Content-Type", "application/x-amz-json-1.1"),
        ("Authorization", authorization),
        ("X-Amz-Date", "20200101T000000Z"),
    ];
    let answer = http::post(address, "/", &headers, body).expect("kinesalite answers");
    assert_eq!(answer.status, 200, "{operation}: {}", answer.body);
    answer.body
}
