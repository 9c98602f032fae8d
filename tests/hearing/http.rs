//! Posts: curl sends them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{SOON, agent, certificate, configuration, refused, stored, texts, until_refused, until_stored};
use crate::support::forebay::Home;
use crate::support::{Forebay, counterpart, eventually, free_port, http};

/// The status code and the body that curl got.
#[track_caller]
fn curl(agent: &Forebay, arguments: &[&str]) -> (u16, Value) {
    let (code, body) = curl_text(agent, arguments);
    (code, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[track_caller]
fn curl_text(agent: &Forebay, arguments: &[&str]) -> (u16, String) {
    let Output { stdout, stderr, .. } = Command::new(counterpart::program("curl"))
        .args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .current_dir(agent.home().path())
        .output()
        .expect("curl can be started");
    let text = String::from_utf8(stdout).expect("UTF-8");
    let (body, code) = text.rsplit_once('\n').expect("a status code");
    assert_ne!(code, "000", "{}", String::from_utf8_lossy(&stderr));
    (code.parse().expect("a status code"), body.to_owned())
}

fn pack(program: &str, arguments: &[&str], from: &std::path::Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).arg(from).output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn every_kind_of_body_becomes_records() {
    let port = free_port();
    let agent = agent(&format!(
        "type = \"http\"\nlisten = \"127.0.0.1:{port}\"\npath = \"/in\"\nsplit = [\"array\", \"lines\"]\npartition-key = \"{{host}}{{path}}\""
    ));
    let url = format!("http://127.0.0.1:{port}/in");
    let post = |content_type: &str, more: &[&str]| {
        curl(&agent, &[&["-H", &format!("Content-Type: {content_type}"), &*url][..], more].concat())
    };
    let place = |first: u64, last: u64| json!([{"shard": "shardId-000000000000", "first_sequence_number": first, "last_sequence_number": last}]);
    assert_eq!(post("application/json", &["-d", "{\"a\": 1}"]), (200, json!({"records": 1, "stored": place(1, 1)})));
    assert_eq!(post("application/json", &["-d", "[1, [2]]"]), (200, json!({"records": 2, "stored": place(2, 3)})));
    fs::write(agent.home().path().join("lines"), "{\"b\":1}\n\n{\"b\":2}\n{\"b\":3}").expect("written");
    assert_eq!(post("application/x-ndjson", &["--data-binary", "@lines"]).1["records"], 3);
    fs::write(agent.home().path().join("cbor"), b"\xa1\x61c\x01").expect("written");
    assert_eq!(post("application/cbor", &["--data-binary", "@cbor"]).0, 200);
    assert_eq!(post("text/plain", &["--data-binary", "@lines"]).1["records"], 3);
    assert_eq!(post("image/jpeg", &["--data-binary", "@lines"]).1["records"], 1);
    let dir = agent.home().path();
    fs::write(dir.join("lines.gz"), pack("gzip", &["-c"], &dir.join("lines"))).expect("written");
    fs::write(dir.join("lines.zst"), pack("zstd", &["-c"], &dir.join("lines"))).expect("written");
    for (file, encoding) in [("@lines.gz", "gzip"), ("@lines.zst", "zstd")] {
        let packed = ["--data-binary", file, "-H", &format!("Content-Encoding: {encoding}")];
        assert_eq!(post("application/x-ndjson", &packed).1["records"], 3, "{encoding}");
    }
    let records = stored(&agent);
    assert_eq!(records.len(), 17);
    assert!(records.iter().all(|(key, _)| key == "127.0.0.1/in"), "{records:?}");
    let wanted = ["{\"a\": 1}", "1", "[2]", "{\"b\":1}", "{\"b\":2}", "{\"b\":3}"];
    assert_eq!(texts(&agent)[..6], wanted);
    assert_eq!(records[6].1, b"\xa1\x61c\x01");
    assert_eq!(records[10].1, fs::read(dir.join("lines")).expect("readable"));
    assert_eq!(agent.status()["sources"]["ear"]["records"], 17);
}

#[test]
fn what_is_wrong_is_told_and_nothing_of_it_stored() {
    let port = free_port();
    let agent =
        agent(&format!("type = \"http\"\nlisten = \"127.0.0.1:{port}\"\nmax-body = \"1MiB\"\nmax-record = \"1KiB\""));
    let dir = agent.home().path().to_owned();
    let url = format!("http://127.0.0.1:{port}/");
    let post = |content_type: &str, more: &[&str]| {
        curl(&agent, &[&["-H", &format!("Content-Type: {content_type}"), &*url][..], more].concat())
    };
    fs::write(dir.join("broken"), "{\"a\":1}\n{\"a\" 2}\n{\"a\":3}\n").expect("written");
    let (code, body) = post("application/x-ndjson", &["--data-binary", "@broken"]);
    assert_eq!((code, &body["line"], &body["error"]), (400, &json!(2), &json!("expected `:` at column 6")));
    assert_eq!(post("application/json", &["-d", "{"]).0, 400);
    assert_eq!(post("application/cbor", &["-d", "\u{1f}"]).1["record"], 1);
    assert_eq!(post("application/json", &["-d", "{}", "-H", "Content-Encoding: br"]).0, 415);
    assert_eq!(post("application/json", &["-d", "{}", "-H", "Content-Encoding: gzip"]).0, 400);
    assert_eq!(post("text/plain", &["-d", ""]).0, 400);
    assert_eq!(curl(&agent, &["-X", "PUT", "-d", "x", &url]).0, 405);
    assert_eq!(curl(&agent, &["-d", "x", &format!("{url}elsewhere")]).0, 404);
    assert_eq!(curl(&agent, &["-d", "x", "-H", "Origin: http://evil.example", &url]).0, 403);
    assert_eq!(curl(&agent, &["-d", "x", "-H", "Host: evil.example", &url]).0, 403);
    // One record too large, a body too large (known from its length, and not), and one that becomes too large.
    fs::write(dir.join("large"), [b'x'; 1025]).expect("written");
    assert_eq!(post("image/jpeg", &["--data-binary", "@large"]).0, 413);
    fs::write(dir.join("huge"), vec![b'x'; 10_000_000]).expect("written");
    assert_eq!(post("image/jpeg", &["--data-binary", "@huge"]).0, 413);
    assert_eq!(post("image/jpeg", &["--data-binary", "@huge", "-H", "Expect:"]).0, 413);
    assert_eq!(post("image/jpeg", &["--data-binary", "@huge", "-H", "Transfer-Encoding: chunked"]).0, 413);
    fs::write(dir.join("bomb.gz"), pack("gzip", &["-c"], &dir.join("huge"))).expect("written");
    assert_eq!(post("image/jpeg", &["--data-binary", "@bomb.gz", "-H", "Content-Encoding: gzip"]).0, 413);
    assert_eq!(texts(&agent), [""; 0]);
    assert_eq!((refused(&agent, "oversize"), refused(&agent, "unauthorized")), (5, 2));
    assert_eq!(refused(&agent, "not-found"), 1);
    assert_eq!(post("text/plain", &["-d", "still here"]).0, 200);
    assert!(agent.resident_bytes_peak() < 100 << 20, "{} bytes", agent.resident_bytes_peak());
}

#[test]
fn a_record_that_the_source_cannot_take_refuses_the_whole_body() {
    let port = free_port();
    let agent = agent(&format!(
        "type = \"http\"\nlisten = \"127.0.0.1:{port}\"\nmax-record = \"100B\"\nsplit = [\"array\", \"lines\"]\n\
         decode = {{ format = \"csv\", header = [\"a\", \"b\"] }}\non-undecodable = \"drop\"\nfilter = {{ not = {{ field = \"a\", equals = \"left out\" }} }}\n\
         deduplicate = {{ window = \"1h\" }}"
    ));
    let url = format!("http://127.0.0.1:{port}/");
    let post = |content_type: &str, body: &str| {
        curl(&agent, &["-H", &format!("Content-Type: {content_type}"), "--data-binary", body, &url])
    };
    let refusal = |code: u16, error: &str, place: (&str, u64)| (code, json!({ "error": error, place.0: place.1 }));
    let wrong = "it is not csv: 3 fields under a header of 2";
    assert_eq!(post("text/plain", "1,2\n3,4\n5,6,7\n8,9\n"), refusal(400, wrong, ("line", 3)));
    assert!(agent.log().contains(&format!("was answered 400 Bad Request: line 3: {wrong}")), "{}", agent.log());
    let long = format!("1,{}", "x".repeat(100));
    let larger = "116 bytes are more than max-record, which is 100";
    assert_eq!(post("text/plain", &format!("1,2\n{long}\n")), refusal(413, larger, ("line", 2)));
    let in_one = "record 2 in it: it is not csv: 1 fields under a header of 2";
    assert_eq!(post("application/octet-stream", "1,2\n3\n"), (400, json!({ "error": in_one })));
    assert_eq!(texts(&agent), [""; 0]);
    assert_eq!((refused(&agent, "undecodable"), refused(&agent, "oversize")), (2, 1));

    // The same again, mended: nothing of it counts as a duplicate. What is left out on purpose is a success.
    assert_eq!(post("text/plain", "1,2\n3,4\nleft out,7\n8,9\n1,2\n").0, 200);
    assert_eq!(texts(&agent), [r#"{"a":"1","b":"2"}"#, r#"{"a":"3","b":"4"}"#, r#"{"a":"8","b":"9"}"#]);
    assert_eq!(post("text/plain", "1,2"), (200, json!({ "records": 0, "stored": [] })));
    assert_eq!((refused(&agent, "filtered"), refused(&agent, "duplicate")), (1, 2));
}

#[test]
fn sources_share_a_listener_and_each_asks_for_its_own_credentials() {
    let port = free_port();
    let listen =
        format!("type = \"http\"\nlisten = \"127.0.0.1:{port}\"\ncert-file = \"own.pem\"\nkey-file = \"own.key\"");
    let home = Home::new(&configuration(&format!(
        "{listen}\npath = \"/telemetry\"\ntoken-file = \"tokens\"\n\
         [streams.events]\n[sources.other]\nstream = \"events\"\n{listen}\npath = \"/events\"\npassword-file = \"users\"\n\
         partition-key = \"{{user}}\""
    )));
    fs::write(home.path().join("tokens"), "# of the app\nabc\ndef\n").expect("written");
    fs::write(home.path().join("users"), "anna:se:cret\n").expect("written");
    certificate(home.path(), "own");
    let agent = Forebay::start_in(home, &[]);
    let url = |path: &str| format!("https://127.0.0.1:{port}{path}");
    let to = |path: &str, more: &[&str]| {
        curl(&agent, &[&["--cacert", "own.pem", "-d", "x", &url(path)][..], more].concat()).0
    };
    assert_eq!(to("/telemetry", &["-H", "Authorization: Bearer def"]), 200);
    assert_eq!(to("/events", &["--user", "anna:se:cret"]), 200);
    for (path, wrong) in [
        ("/telemetry", &[][..]),
        ("/telemetry", &["-H", "Authorization: Bearer abcd"]),
        ("/telemetry", &["--user", "anna:se:cret"]),
        ("/events", &["-H", "Authorization: Bearer abc"]),
        ("/events", &["--user", "anna:secret"]),
    ] {
        assert_eq!(to(path, wrong), 401, "{path} {wrong:?}");
    }
    let (_, head) = curl_text(&agent, &["--cacert", "own.pem", "-i", "-d", "x", &url("/events")]);
    assert!(head.to_ascii_lowercase().contains("www-authenticate: basic"), "{head}");
    let status = agent.status();
    assert_eq!((&status["sources"]["ear"]["records"], &status["sources"]["other"]["records"]), (&json!(1), &json!(1)));
    assert_eq!(refused(&agent, "unauthorized"), 3);
    assert!(!agent.log().contains("se:cret") && !agent.log().contains("abc"), "{}", agent.log());
    // Neither a stranger nor somebody without TLS troubles the others.
    let mut stranger = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stranger.write_all(b"POST / HTTP/1.1\r\n\r\n").expect("written");
    eventually(SOON, "it is told", || agent.log().contains("no TLS with 127.0.0.1"));
    assert_eq!(to("/telemetry", &["-H", "Authorization: Bearer abc"]), 200);
}

#[test]
fn sources_that_do_not_share_are_refused() {
    let home = Home::new(&configuration(
        "type = \"http\"\nlisten = \"127.0.0.1:8088\"\npath = \"/a\"\n\
         [sources.b]\ntype = \"http\"\nstream = \"telemetry\"\nlisten = \"127.0.0.1:8088\"\npath = \"/a\"\n\
         [sources.c]\ntype = \"http\"\nstream = \"telemetry\"\nlisten = \"127.0.0.1:8088\"\nmax-connections = 7\n\
         [sources.in]\ntype = \"stdin\"\nstream = \"telemetry\"\n[sources.in2]\ntype = \"stdin\"\nstream = \"telemetry\"\n",
    ));
    let check = home.forebay(&["check", "--config", "forebay.toml"]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    for wanted in [
        "is already what `sources.b.listen` listens on; sources that share a listener say the same of it",
        "http://127.0.0.1:8088/a is already what `sources.b.path` has for itself",
        "sources.in2.type: standard input is already what `sources.in.type` has for itself",
    ] {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
}

#[test]
fn a_client_is_told_when_to_come_again() {
    let port = free_port();
    let limit = "rate-limit = { records-per-second = 1, bytes-per-second = \"1MB\" }";
    let limited =
        agent(&format!("type = \"http\"\nlisten = \"127.0.0.1:{port}\"\ncommit-timeout = \"200ms\"\n{limit}"));
    let url = format!("http://127.0.0.1:{port}/");
    let codes: Vec<_> = (0..4).map(|_| curl_text(&limited, &["-i", "-d", "x", &url])).collect();
    let refusal = codes.iter().find(|(code, _)| *code == 429).unwrap_or_else(|| panic!("{codes:?}"));
    assert!(refusal.1.contains("retry-after: 1"), "{}", refusal.1);
    assert!(refused(&limited, "rate-limited") > 0);

    // A stream that is full, and stays so.
    let home = Home::new(
        &configuration(&format!("type = \"http\"\nlisten = \"127.0.0.1:{port}\"\n"))
            .replace("rate-limit = \"off\"", "rate-limit = \"off\"\nquota = \"16MiB\"\ncompression = \"none\""),
    );
    drop(limited);
    let full = Forebay::start_in(home, &[]);
    fs::write(full.home().path().join("megabyte"), vec![b'x'; 1 << 20]).expect("written");
    let answers = (0..32).map(|_| curl_text(&full, &["-i", "--data-binary", "@megabyte", "-H", "Expect:", &url]));
    let refusal = answers.into_iter().find(|(code, _)| *code == 503).expect("16 MiB are full");
    assert!(refusal.1.contains("retry-after: 5"), "{}", refusal.1);
    assert!(refused(&full, "not-stored") > 0);
}

#[test]
fn slow_clients_and_too_many_are_ended_and_others_served() {
    let port = free_port();
    let agent = agent(&format!(
        "type = \"http\"\nlisten = \"127.0.0.1:{port}\"\nmax-connections = 4\nrequest-timeout = \"2s\""
    ));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let url = format!("http://{address}/");
    let begun = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(bytes).expect("written");
        stream.set_read_timeout(Some(SOON)).expect("an option");
        stream
    };
    let mut slow = [
        begun(b""),
        begun(b"POST / HTTP/1.1\r\nHost: local"),
        begun(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome"),
    ];
    assert_eq!(curl(&agent, &["-d", "among slow ones", &url]).0, 200);
    let fourth = begun(b"");
    let mut fifth = begun(b"");
    assert_eq!(fifth.read(&mut [0]).unwrap_or(0), 0);
    until_refused(&agent, "too-many-connections", 1);
    for stream in &mut slow {
        // Closed, after an answer or without.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    drop(fourth);
    until_refused(&agent, "timeout", 2);
    eventually(SOON, "they are gone", || agent.status()["sources"]["ear"]["connections"] == 0);
    for garbage in [&b"\x16\x03\x01\x02\x00garbage\r\n\r\n"[..], b"GET\r\n\r\n", &[b'x'; 100_000]] {
        let mut stream = TcpStream::connect(address).expect("it listens");
        // It may be closed before all was written.
        let _ = stream.write_all(garbage);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    until_refused(&agent, "malformed", 3);
    assert_eq!(curl(&agent, &["-d", "after garbage", &url]).0, 200);
    assert_eq!(texts(&agent), ["among slow ones", "after garbage"]);
}

/// What was answered with 200 is there, whenever the agent was killed.
#[test]
fn a_kill_loses_nothing_that_was_answered() {
    const ROUNDS: usize = 20;
    let port = free_port();
    let mut agent = agent(&format!("type = \"http\"\nlisten = \"127.0.0.1:{port}\"\npath = \"/in\""));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answered: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let enough = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (answered, enough) = (Arc::clone(&answered), Arc::clone(&enough));
            thread::spawn(move || {
                for number in 0.. {
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                    let lines: Vec<_> = (0..5).map(|line| format!("{{\"id\":\"{client}-{number}-{line}\"}}")).collect();
                    let headers = [("Content-Type", "application/x-ndjson")];
                    match http::post(address, "/in", &headers, lines.join("\n").as_bytes()) {
                        Ok(answer) if answer.status == 200 => {
                            answered.lock().expect("unpoisoned").extend(lines);
                        }
                        // It is being killed or started; a number is never used again.
                        _ => thread::yield_now(),
                    }
                }
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let before = answered.lock().expect("unpoisoned").len();
        let more = 50 + fastrand::usize(..300);
        eventually(SOON, "requests are answered", || answered.lock().expect("unpoisoned").len() >= before + more);
        agent.kill9();
        agent.start_again();
        println!("round {round}: {} answered", answered.lock().expect("unpoisoned").len());
    }
    enough.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no client panics"));
    let stored: BTreeSet<String> = texts(&agent).into_iter().collect();
    let answered = answered.lock().expect("unpoisoned");
    let lost: Vec<_> = answered.difference(&stored).collect();
    assert!(lost.is_empty(), "{} of {} answered are lost: {lost:?}", lost.len(), answered.len());
    println!("{} answered, {} stored", answered.len(), stored.len());
}

#[test]
fn a_stop_answers_what_is_under_way() {
    let port = free_port();
    let mut agent = agent(&format!("type = \"http\"\nlisten = \"127.0.0.1:{port}\""));
    // Idle, in the middle of a head, and in the middle of a body.
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut open = Vec::new();
    for begun in ["", "POST /", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome"] {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(begun.as_bytes()).expect("written");
        open.push(stream);
    }
    assert_eq!(curl(&agent, &["-d", "x", &format!("http://{address}/")]).0, 200);
    until_stored(&agent, 1);
    let began = std::time::Instant::now();
    assert!(agent.terminate().success(), "{}", agent.log());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
