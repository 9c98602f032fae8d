//! Stores the lines of standard input in the log in the directory given as the only argument, and then delivers what was
//! not delivered yet, by printing it. Ended at any moment and started again, it prints every line, and in order.

use std::{
    error::Error,
    io::{self, BufRead, Write},
    sync::mpsc,
};

use forebay_log_store::{NewRecord, ReadLimit, Start, Store, StoreConfig, StreamConfig, SystemClock, WhenFull};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: forward <data directory>")?;
    forward(&dir, io::stdin().lock(), io::stdout().lock())
}

/// All of it, with any input and output.
pub fn forward(dir: &str, input: impl BufRead, mut output: impl Write) -> Result<(), Box<dyn Error>> {
    let store = Store::open(StoreConfig::new(dir), SystemClock::new(), |event| eprintln!("{event}"))?;
    // Naming the consumer holds what it has not finished, also past the retention.
    let stream = store.stream(StreamConfig { consumers: vec!["printer".into()], ..StreamConfig::new("lines") })?;

    for line in input.lines() {
        let mut batch = stream.batch();
        batch.push(&NewRecord::new("stdin", line?.as_bytes()))?;
        let (tell, told) = mpsc::channel();
        stream.append(batch, WhenFull::Wait, Box::new(move |outcome| tell.send(outcome).expect("awaited below")));
        told.recv()??;
    }

    let mut cursor = stream.cursor(Start::After(stream.checkpoint("printer")));
    loop {
        let records = cursor.read(ReadLimit { records: 1000, payload_bytes: 1 << 20 })?;
        let Some(last) = records.last() else { return Ok(()) };
        for record in &records {
            writeln!(output, "{} {}", record.sequence_number, String::from_utf8_lossy(&record.data))?;
        }
        stream.save_checkpoint("printer", last.sequence_number);
    }
}
