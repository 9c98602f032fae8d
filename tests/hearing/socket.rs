//! Sockets: `logger` sends syslog, socat and plain sockets the rest.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{SOON, agent, certificate, configuration, records_of, refused, stored, texts, until_refused, until_stored};
use crate::support::forebay::Home;
use crate::support::{Forebay, counterpart, eventually, free_port};

#[track_caller]
fn logger(arguments: &[&str]) {
    let output = Command::new(counterpart::program("logger")).args(arguments).output().expect("logger can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn send(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the source listens");
    stream.write_all(bytes).expect("the source reads");
    stream.shutdown(Shutdown::Write).expect("connected");
}

#[test]
fn logger_over_tcp_counted_and_not() {
    let port = free_port();
    let agent = agent(&format!("type = \"socket\"\nlisten = \"tcp://127.0.0.1:{port}\"\nframing = \"syslog\""));
    let to = ["--server", "127.0.0.1", "--port", &port.to_string(), "--tcp"].map(str::to_owned);
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    logger(&[&to[..], &["--octet-count", "--tag", "truck", "counted, with\tblanks"]].concat());
    logger(&[&to[..], &["--tag", "truck", "ended by a line feed"]].concat());
    logger(&[&to[..], &["--rfc3164", "--octet-count", "--tag", "truck", "of the old kind"]].concat());
    until_stored(&agent, 3);
    let records = stored(&agent);
    assert!(records.iter().all(|(key, _)| key == "127.0.0.1"), "{records:?}");
    let texts = texts(&agent);
    assert!(texts.iter().all(|text| text.starts_with('<')), "{texts:?}");
    for end in ["counted, with\tblanks", "ended by a line feed", "of the old kind"] {
        assert!(texts.iter().any(|text| text.ends_with(end)), "{end} in {texts:?}");
    }
    assert_eq!(agent.status()["sources"]["ear"]["refused"], serde_json::json!({}));
}

#[test]
fn logger_over_udp_and_unix_sockets() {
    let port = free_port();
    let udp = agent(&format!("type = \"socket\"\nlisten = \"udp://127.0.0.1:{port}\"\npartition-key = \"{{host}}:x\""));
    logger(&["--server", "127.0.0.1", "--port", &port.to_string(), "--udp", "over the air"]);
    until_stored(&udp, 1);
    let (key, text) = stored(&udp).remove(0);
    assert!(key == "127.0.0.1:x" && text.ends_with(b"over the air"), "{key} {}", String::from_utf8_lossy(&text));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.send_to(&[], ("127.0.0.1", port)).expect("sent");
    until_refused(&udp, "empty", 1);

    for (scheme, more) in [("unix-datagram", ""), ("unix", "framing = \"syslog\"")] {
        let mut agent = agent(&format!("type = \"socket\"\nlisten = \"{scheme}://in.sock\"\nmode = \"0600\"\n{more}"));
        let path = agent.home().path().join("in.sock");
        assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o600);
        let path = path.to_str().expect("UTF-8").to_owned();
        logger(&["--socket", &path, "--socket-errors=on", "on the gateway itself"]);
        until_stored(&agent, 1);
        let (key, text) = stored(&agent).remove(0);
        assert!(key == "localhost" && text.ends_with(b"on the gateway itself"), "{key}");
        // A kill leaves the socket's file, which is then replaced; a stop does not.
        agent.kill9();
        assert!(fs::exists(&path).expect("readable"));
        agent.start_again();
        logger(&["--socket", &path, "--socket-errors=on", "again"]);
        until_stored(&agent, 1);
        assert!(agent.terminate().success());
        assert!(!fs::exists(&path).expect("readable"));
    }
}

#[test]
fn lines_keep_their_order_and_half_ones_are_counted() {
    let port = free_port();
    let agent = agent(&format!("type = \"socket\"\nlisten = \"tcp://127.0.0.1:{port}\"\nmax-frame = \"64KiB\""));
    let lines: Vec<String> = (0..20_000).map(|number| format!("line {number}")).collect();
    send(port, lines.join("\r\n").as_bytes());
    until_stored(&agent, 20_000);
    assert_eq!(texts(&agent), lines);

    // Garbage, and 10 MB without a line end: one record of the former, none of the latter, and the connection goes on.
    let mut garbage = vec![b'x'; 10_000_000];
    garbage.extend_from_slice(b"\n\xff\x00\xfe\n");
    send(port, &garbage);
    until_stored(&agent, 20_001);
    assert_eq!(refused(&agent, "oversize"), 1);
    assert!(agent.log().contains("longer than max-frame; from host \"127.0.0.1\", port "), "{}", agent.log());
    // A connection that is reset in the middle of a line.
    let vanishing = TcpStream::connect(("127.0.0.1", port)).expect("the source listens");
    (&vanishing).write_all(b"whole\nhalf of a li").expect("written");
    until_stored(&agent, 20_002);
    rustix::net::sockopt::set_socket_linger(&vanishing, Some(Duration::ZERO)).expect("an option");
    drop(vanishing);
    until_refused(&agent, "half-frame", 1);
    eventually(SOON, "the connection is gone", || agent.status()["sources"]["ear"]["connections"] == 0);
    assert!(agent.resident_bytes_peak() < 100 << 20, "{} bytes", agent.resident_bytes_peak());
}

#[test]
fn connections_are_limited_in_number_and_idleness() {
    let port = free_port();
    let agent = agent(&format!(
        "type = \"socket\"\nlisten = \"tcp://127.0.0.1:{port}\"\nmax-connections = 3\nidle-timeout = \"2s\""
    ));
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("the source listens");
    let mut kept: Vec<_> = (0..3).map(|_| connect()).collect();
    eventually(SOON, "three are connected", || agent.status()["sources"]["ear"]["connections"] == 3);
    let mut turned_away = connect();
    assert_eq!(turned_away.read(&mut [0]).unwrap_or(0), 0);
    until_refused(&agent, "too-many-connections", 1);
    kept[0].write_all(b"still here\n").expect("written");
    until_stored(&agent, 1);
    for stream in &mut kept {
        stream.set_read_timeout(Some(SOON)).expect("an option");
        assert_eq!(stream.read(&mut [0]).expect("closed in good order"), 0);
    }
    until_refused(&agent, "idle", 3);
    send(port, b"and again");
    until_stored(&agent, 2);
}

#[test]
fn a_listener_that_cannot_be_had_is_asked_for_again() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (port, free) = (taken.local_addr().expect("bound").port(), free_port());
    let other =
        format!("[sources.other]\ntype = \"socket\"\nstream = \"telemetry\"\nlisten = \"tcp://127.0.0.1:{free}\"");
    let agent = agent(&format!("type = \"socket\"\nlisten = \"tcp://127.0.0.1:{port}\"\n{other}"));
    until_refused(&agent, "cannot-listen", 1);
    assert!(agent.log().contains(&format!("listen on 127.0.0.1:{port}: Address already in use")), "{}", agent.log());
    send(free, b"others are not troubled");
    eventually(SOON, "the other source stores", || agent.status()["sources"]["other"]["records"] == 1);
    drop(taken);
    eventually(SOON, "the source listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    send(port, b"recovered");
    until_stored(&agent, 1);
}

#[test]
fn a_socket_that_may_not_be_made_is_told_and_made_once_it_may() {
    let home = Home::new(&configuration("type = \"socket\"\nlisten = \"unix://closed/in.sock\""));
    let closed = home.path().join("closed");
    fs::create_dir(&closed).expect("it is ours");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).expect("it is ours");
    // Root may write anywhere unless its capabilities are taken away.
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let home = if rustix::process::geteuid().is_root() { home.through(&powerless) } else { home };
    let agent = Forebay::start_in(home, &[]);
    until_refused(&agent, "cannot-listen", 1);
    assert!(agent.log().contains("Permission denied"), "{}", agent.log());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let path = closed.join("in.sock");
    eventually(SOON, "the source listens", || UnixStream::connect(&path).is_ok());
    UnixStream::connect(&path).and_then(|mut stream| stream.write_all(b"at last\n")).expect("it listens");
    until_stored(&agent, 1);
    assert_eq!(texts(&agent), ["at last"]);
}

#[test]
fn tcp_is_held_back_and_udp_is_dropped_and_counted() {
    let (tcp, udp) = (free_port(), free_port());
    let limit = "rate-limit = { records-per-second = 100, bytes-per-second = \"1MB\" }";
    let agent = agent(&format!(
        "type = \"socket\"\nlisten = \"udp://127.0.0.1:{udp}\"\nreceive-buffer = \"16KiB\"\n{limit}\n\
         [sources.tcp]\ntype = \"socket\"\nstream = \"telemetry\"\nlisten = \"tcp://127.0.0.1:{tcp}\"\n{limit}"
    ));
    // A flood of datagrams: what is not stored was counted.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sent: u64 = 20_000;
    for number in 0..sent {
        socket.send_to(format!("datagram {number} {}", "x".repeat(200)).as_bytes(), ("127.0.0.1", udp)).expect("sent");
    }
    until_refused(&agent, "dropped-full", 1);
    let more = |agent: &Forebay| records_of(agent) + refused(agent, "dropped-full");
    // A hundred a second, of a batch or two and the kernel's buffer.
    eventually(Duration::from_secs(60), "each is stored or counted", || more(&agent) == sent);

    // A sender over TCP cannot go on.
    let mut stream = TcpStream::connect(("127.0.0.1", tcp)).expect("the source listens");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("an option");
    let line = [&[b'x'; 999][..], b"\n"].concat();
    let began = Instant::now();
    let mut written = 0_u64;
    let held_back = loop {
        match stream.write(&line) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
        }
        if began.elapsed() > SOON {
            break false;
        }
    };
    assert!(held_back && written < 64 << 20, "{written} bytes were taken");
    assert_eq!(agent.status()["sources"]["tcp"]["refused"], serde_json::json!({}));
}

#[test]
fn datagrams_of_a_unix_socket_wait_and_large_ones_are_counted() {
    let agent = agent("type = \"socket\"\nlisten = \"unix-datagram://in.sock\"\nmax-frame = \"1KiB\"");
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.connect(agent.home().path().join("in.sock")).expect("the source listens");
    for number in 0..5000 {
        socket.send(format!("{number}").as_bytes()).expect("it waits rather than fails");
    }
    socket.send(&[b'x'; 1025]).expect("sent");
    socket.send(b"").expect("sent");
    socket.send(b"last").expect("sent");
    until_stored(&agent, 5001);
    assert_eq!(refused(&agent, "oversize"), 1);
    let wanted = (0..5000).map(|number| number.to_string()).chain(["last".to_owned()]);
    assert_eq!(texts(&agent), wanted.collect::<Vec<_>>());
}

#[test]
fn tls_with_client_certificates() {
    let port = free_port();
    let home = Home::new(&configuration(&format!(
        "type = \"socket\"\nlisten = \"tcp://127.0.0.1:{port}\"\ncert-file = \"own.pem\"\nkey-file = \"own.key\"\n\
         client-ca-file = \"device.pem\""
    )));
    certificate(home.path(), "own");
    certificate(home.path(), "device");
    let agent = Forebay::start_in(home, &[]);
    let dir = agent.home().path().to_owned();
    let socat = |with: &str, text: &str| {
        let to = format!("OPENSSL:127.0.0.1:{port},cafile=own.pem,{with}");
        let mut socat = Command::new(counterpart::program("socat"))
            .args(["-", &to])
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("socat can be started");
        // It may have been turned away by then.
        let _ = socat.stdin.take().expect("a pipe").write_all(text.as_bytes());
        socat.wait().expect("it ends");
    };
    socat("cert=device.pem,key=device.key", "who I am is known\n");
    until_stored(&agent, 1);
    socat("verify=1", "who am I\n");
    until_refused(&agent, "tls-handshake", 1);
    send(port, b"GET / HTTP/1.0\r\n\r\n");
    until_refused(&agent, "tls-handshake", 2);
    assert_eq!(texts(&agent), ["who I am is known"]);
}

#[test]
fn a_stop_in_the_middle_of_a_stream_is_quick() {
    let mut agent = agent("type = \"socket\"\nlisten = \"unix://in.sock\"");
    let mut stream = UnixStream::connect(agent.home().path().join("in.sock")).expect("the source listens");
    stream.write_all(b"one\ntwo\nthr").expect("written");
    until_stored(&agent, 2);
    let began = Instant::now();
    assert!(agent.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    agent.start_again();
    assert_eq!(texts(&agent), ["one", "two"]);
}
