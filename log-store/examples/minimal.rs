//! Appends a line of text to a log in the directory given as the only argument, and prints all lines that are there.

use std::{error::Error, sync::mpsc};

use forebay_log_store::{NewRecord, ReadLimit, Start, Store, StoreConfig, StreamConfig, SystemClock, WhenFull};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: minimal <data directory>")?;
    let store = Store::open(StoreConfig::new(dir), SystemClock::new(), |event| eprintln!("{event}"))?;
    let stream = store.stream(StreamConfig::new("lines"))?;

    let mut batch = stream.batch();
    batch.push(&NewRecord::new("me", b"one more line"))?;
    let (tell, told) = mpsc::channel();
    stream.append(batch, WhenFull::Wait, Box::new(move |outcome| tell.send(outcome).expect("awaited below")));
    told.recv()??;

    let mut cursor = stream.cursor(Start::Oldest);
    for record in cursor.read(ReadLimit { records: 1000, payload_bytes: 1 << 20 })? {
        println!("{} {}", record.sequence_number, String::from_utf8_lossy(&record.data));
    }
    Ok(())
}
