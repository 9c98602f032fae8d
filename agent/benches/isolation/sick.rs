//! Endpoints that take nothing, each in its own way.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use crate::port::free_port;

/// Where a delivery goes.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) name: String,
    pub(crate) endpoint: String,
}

impl Destination {
    pub(crate) fn new(name: &str, endpoint: &str) -> Self {
        Self { name: name.to_owned(), endpoint: endpoint.to_owned() }
    }
}

/// What an endpoint says to every request; nothing: it is silent.
type Answer = Option<(u16, &'static str)>;

const ANSWERS: [(&str, Answer); 7] = [
    ("silent", None),
    ("unauthorised", Some((400, r#"{"__type":"UnrecognizedClientException"}"#))),
    ("throttled", Some((400, r#"{"__type":"ProvisionedThroughputExceededException"}"#))),
    ("failing", Some((500, r#"{"__type":"InternalFailure"}"#))),
    ("misconfigured", Some((400, r#"{"__type":"ResourceNotFoundException"}"#))),
    ("invalid", Some((400, r#"{"__type":"ValidationException"}"#))),
    ("clock", Some((400, r#"{"__type":"RequestExpired"}"#))),
];

/// One of each, which live until the program ends, and one at which nobody listens.
pub(crate) fn destinations() -> Vec<Destination> {
    let nobody = Destination::new("refused", &format!("http://127.0.0.1:{}", free_port()));
    ANSWERS.iter().map(|(name, answer)| Destination::new(name, &start(*answer))).chain([nobody]).collect()
}

fn start(answer: Answer) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("some port is free");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("a listening socket accepts");
            thread::spawn(move || {
                // The agent is killed at the end of its turn.
                let _ = serve(connection, answer);
            });
        }
    });
    format!("http://127.0.0.1:{port}")
}

fn serve(connection: TcpStream, answer: Answer) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    while let Some(length) = content_length(&mut reader)? {
        io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
        let Some((status, body)) = answer else { continue };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} No\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}");
        write!(writer, "{head}\r\n\r\n{body}")?;
    }
    Ok(())
}

/// Reads a request's head; nothing at the connection's end.
fn content_length(reader: &mut impl BufRead) -> io::Result<Option<u64>> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().expect("a number");
            }
            None if line.trim_end().is_empty() => return Ok(Some(length)),
            _ => {}
        }
    }
}
