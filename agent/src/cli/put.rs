//! `forebay put`: puts records into a stream, and returns when they are durable.

use std::{
    fmt, fs,
    io::{self, BufRead as _, BufReader, Read as _},
    path::PathBuf,
    sync::mpsc,
};

use anyhow::Context as _;
use forebay_log_store::{NewRecord, RECORD_BYTES_MAX, Stream, WhenFull};

use super::{
    ConfigFile, block_on,
    client::{ApiAddress, Client},
    output::Output,
    reach::{ClosedLog, Reach},
    stream_name,
};
use crate::api::wire::{PUT_RECORDS_MAX, Put, PutDone, PutRecord};

/// Bytes of one put, well within the API's limit in base64.
const PUT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the stream
    #[arg(value_parser = stream_name)]
    stream: String,
    /// Partition key
    #[arg(long, short)]
    key: String,
    /// One record of this text
    #[arg(long, short, value_name = "TEXT", conflicts_with = "file")]
    data: Option<String>,
    /// One record of this file's bytes; without --data and --file, each line of standard input is a record
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    api: ApiAddress,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let sink = match self.api.api {
            Some(_) => Sink::Agent(Box::new(self.api.client(&self.config)?)),
            None => match Reach::of(&self.config)? {
                Reach::Agent(client) => Sink::Agent(client),
                Reach::Log(log) => Sink::Log { stream: log.to_put(&self.stream)?, _log: log },
            },
        };
        let stored = block_on(self.put_all(&sink))?;
        let mut output = Output::new();
        output.line(&stored.to_string())?;
        output.flush()
    }

    async fn put_all(&self, sink: &Sink) -> anyhow::Result<Stored> {
        let mut stored = Stored::default();
        match (&self.data, &self.file) {
            (Some(text), _) => self.put(sink, &[text.clone().into_bytes()], &mut stored).await?,
            (None, Some(file)) => {
                let mut data = Vec::new();
                fs::File::open(file)
                    .and_then(|file| file.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut data))
                    .with_context(|| format!("read {}", file.display()))?;
                self.put(sink, &[data], &mut stored).await?;
            }
            (None, None) => {
                let mut lines = Lines::new(io::stdin().lock());
                loop {
                    let some = lines.next_some().context("read standard input")?;
                    if some.is_empty() {
                        break;
                    }
                    self.put(sink, &some, &mut stored).await?;
                }
            }
        }
        Ok(stored)
    }

    async fn put(&self, sink: &Sink, some: &[Vec<u8>], stored: &mut Stored) -> anyhow::Result<()> {
        let outcome = match sink {
            Sink::Agent(client) => self.put_to_agent(client, some).await,
            Sink::Log { stream, .. } => self.put_to_log(stream, some),
        };
        let before = stored.records;
        stored.last = outcome.with_context(|| match before {
            0 => format!("put into stream `{}`", self.stream),
            before => format!("put into stream `{}`, after {before} that are stored", self.stream),
        })?;
        stored.records += some.len();
        Ok(())
    }

    /// Gives the sequence number of the last.
    async fn put_to_agent(&self, client: &Client, some: &[Vec<u8>]) -> anyhow::Result<u64> {
        let records = some.iter().map(|data| PutRecord::new(&self.key, data)).collect();
        let path = format!("/streams/{}/records", self.stream);
        let done: PutDone = client.post(&path, &Put { records }).await?;
        Ok(done.records.last().context("the agent stored nothing")?.sequence_number)
    }

    /// Gives the sequence number of the last.
    fn put_to_log(&self, stream: &Stream, some: &[Vec<u8>]) -> anyhow::Result<u64> {
        let mut batch = stream.batch();
        for data in some {
            batch.push(&NewRecord::new(&self.key, data))?;
        }
        let (told, outcome) = mpsc::channel();
        stream.append(batch, WhenFull::Refuse, Box::new(move |outcome| drop(told.send(outcome))));
        let appended = outcome.recv().context("the log ended")?.map_err(|refused| refused.error)?;
        // One key is one shard, and so one run.
        let run = appended.runs.last().context("the log stored nothing")?;
        Ok(run.first.plus(u64::from(run.records)).previous().0)
    }
}

/// Where records go.
enum Sink {
    Agent(Box<Client>),
    Log {
        stream: Stream,
        /// Open as long as its stream is written.
        _log: Box<ClosedLog>,
    },
}

/// What was put.
#[derive(Debug, Default, PartialEq)]
struct Stored {
    records: usize,
    last: u64,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.records, self.last) {
            (0, _) => f.write_str("stored nothing"),
            (1, last) => write!(f, "stored 1 record, sequence number {last}"),
            (records, last) => write!(f, "stored {records} records, the last with sequence number {last}"),
        }
    }
}

/// Lines of an input, as many at a time as there are, so that neither a file nor what somebody types waits.
struct Lines<R>(BufReader<R>);

impl<R: io::Read> Lines<R> {
    fn new(input: R) -> Self {
        Self(BufReader::with_capacity(PUT_BYTES_MAX, input))
    }

    /// At least one line, without its end; none at the end of the input.
    fn next_some(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut some = Vec::new();
        let mut bytes = 0;
        loop {
            let mut line = Vec::new();
            // A longer line is put, and refused with the figures.
            let most = RECORD_BYTES_MAX as u64 + 2;
            if self.0.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
                return Ok(some);
            }
            if line.pop_if(|last| *last == b'\n').is_some() {
                line.pop_if(|last| *last == b'\r');
            }
            bytes += line.len();
            some.push(line);
            if some.len() == PUT_RECORDS_MAX || bytes >= PUT_BYTES_MAX || !self.0.buffer().contains(&b'\n') {
                return Ok(some);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut lines = Lines::new(input);
        std::iter::from_fn(|| Some(lines.next_some().expect("a slice can be read")))
            .take_while(|s| !s.is_empty())
            .collect()
    }

    #[test]
    fn lines_that_are_there_go_together() {
        assert_eq!(lines(b""), Vec::<Vec<Vec<u8>>>::new());
        assert_eq!(lines(b"a\nb\r\n\nc\n"), [[&b"a"[..], b"b", b"", b"c"]]);
        // The last may lack its end; it may still be being typed when the others go.
        assert_eq!(lines(b"a\nb"), [[b"a"], [b"b"]]);
    }

    #[test]
    fn no_put_is_larger_than_the_agent_takes() {
        let input = b"x\n".repeat(PUT_RECORDS_MAX + 1);
        assert_eq!(lines(&input).iter().map(Vec::len).collect::<Vec<_>>(), [PUT_RECORDS_MAX, 1]);
        let input = [vec![b'x'; PUT_BYTES_MAX], b"\ny\n".to_vec()].concat();
        assert_eq!(lines(&input).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn what_was_stored_is_a_sentence() {
        assert_eq!(Stored { records: 0, last: 0 }.to_string(), "stored nothing");
        assert_eq!(Stored { records: 1, last: 7 }.to_string(), "stored 1 record, sequence number 7");
        assert_eq!(Stored { records: 3, last: 9 }.to_string(), "stored 3 records, the last with sequence number 9");
    }
}
