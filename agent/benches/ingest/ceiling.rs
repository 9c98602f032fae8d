//! The least that a listener can do: it finds the packets' ends and their ids, and acknowledges at once, storing nothing.
//!
//! A process of its own (this same program), so that it costs what the gateway cannot avoid either, and can be measured
//! likewise. It speaks just enough MQTT for our own traffic.

#![expect(clippy::big_endian_bytes, reason = "so MQTT writes its numbers")]

use std::{
    convert::Infallible,
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use crate::{
    port::free_port,
    process::{Process, eventually},
};

const PORT: &str = "FOREBAY_BENCH_CEILING_PORT";
/// As much as the gateway reads at once.
const READ_BYTES: usize = 64 * 1024;

pub(crate) struct Listener {
    process: Process,
    pub(crate) port: u16,
}

impl Listener {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

pub(crate) fn start() -> Listener {
    let port = free_port();
    let program = env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.env(PORT, port.to_string());
    let process = Process::start(command);
    eventually("the trivial listener listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Listener { process, port }
}

/// Whether this process is to be the listener.
pub(crate) fn is_asked_for() -> bool {
    env::var_os(PORT).is_some()
}

/// Runs until it is killed.
pub(crate) fn listen() -> Infallible {
    let port: u16 = env::var(PORT).ok().and_then(|port| port.parse().ok()).expect("the port is a number");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    loop {
        let (connection, _) = listener.accept().expect("a listening socket accepts");
        thread::spawn(move || {
            connection.set_nodelay(true).expect("a socket option");
            // It ends when the client leaves, in whatever way.
            let _ = serve(connection);
        });
    }
}

fn serve(mut connection: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    let mut out = Vec::new();
    loop {
        let read = connection.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut at = 0;
        while let Some((header, packet)) = packet(&buffer[at..filled]) {
            let end = header + packet;
            answer(buffer[at], &buffer[at + header..at + end], &mut out);
            at += end;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        connection.write_all(&out)?;
        out.clear();
    }
}

/// The lengths of the first packet's fixed header and of what follows it, if all of it is here.
fn packet(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 127) << (7 * place);
        if byte & 128 == 0 {
            let header = place + 2;
            return (bytes.len() >= header + length).then_some((header, length));
        }
    }
    None
}

fn answer(first: u8, packet: &[u8], out: &mut Vec<u8>) {
    match first >> 4 {
        1 => out.extend([0x20, 2, 0, 0]),
        3 => {
            let topic_bytes = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
            out.extend([0x40, 2, packet[2 + topic_bytes], packet[3 + topic_bytes]]);
        }
        _ => {}
    }
}
