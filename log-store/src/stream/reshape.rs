//! What a stream is may change while it is written: its shards, its retention, its note. A change begins a segment, whose
//! header says what the stream is from then on: that is durable with one sync, with or without the catalogue.

use std::{io, sync::Arc, time::Duration};

use super::{CommitError, Shortage, StreamWriter};
use crate::{
    config::StreamConfig,
    error::Error,
    event::DropReason,
    segment::{BlockKind, Found, SegmentHeader, SegmentReader, StreamDefinition, salt},
    sequence::SequenceNumber,
    shard::{ShardChange, ShardError},
};

impl StreamWriter {
    /// Changes the shards. What was committed stays in the closed ones; every later record is routed anew.
    pub(crate) fn change_shards(&mut self, change: ShardChange) -> Result<(), Error> {
        let definition = self.core.definition();
        let shards = definition.shards.changed(change, self.next).map_err(|error| self.shards_error(error))?;
        if shards != *definition.shards {
            self.redefine(StreamDefinition { shards: Arc::new(shards), ..(*definition).clone() })?;
            self.core.wake_readers();
        }
        Ok(())
    }

    /// Takes over a configuration. A longer retention holds for what is not past the shorter one yet: nothing that was out
    /// of reach comes back.
    pub(crate) fn configure(&mut self, config: StreamConfig) -> Result<(), Error> {
        let definition = self.core.definition();
        let retention_ms = u64::try_from(config.retention.as_millis()).unwrap_or(u64::MAX);
        // Version 1 does not say what the retention was of late.
        let is_old = definition.revision == 0;
        if !is_old && retention_ms > definition.retention_ms {
            self.drop_past(Duration::from_millis(definition.retention_ms))?;
        }
        if is_old || retention_ms != definition.retention_ms || config.note != definition.note {
            let note = config.note.clone();
            self.redefine(StreamDefinition { retention_ms, note, ..(*definition).clone() })?;
        }
        self.core.set_config(config);
        Ok(())
    }

    fn redefine(&mut self, definition: StreamDefinition) -> Result<(), Error> {
        let stream = self.core.name().to_owned();
        if let Some(reason) = self.poisoned.clone() {
            return Err(Error::Poisoned { stream, reason });
        }
        // What failed may be on the disk all the same: two definitions must never have one revision.
        let revision = definition.revision.max(self.revision_tried) + 1;
        self.revision_tried = revision;
        let definition = StreamDefinition { revision, ..definition };
        self.roll_as(&definition).map_err(|error| match error {
            CommitError::Full(reason)
            | CommitError::NeverFits(reason)
            | CommitError::DiskFull(Shortage { limit: reason, .. }) => Error::Full { stream, reason },
            CommitError::Poisoned(reason) => Error::Poisoned { stream, reason },
        })?;
        self.core.around.catalogue.put_stream(&definition);
        self.core.set_definition(definition);
        Ok(())
    }

    /// Drops what is past `retention` and held by nobody, to the block; the file goes with its last record.
    fn drop_past(&mut self, retention: Duration) -> Result<(), Error> {
        let oldest = self.core.view(|view| view.oldest());
        let past = self.past(retention).map_err(|source| {
            let path = self.core.dir.clone();
            Error::Io { action: "read segments of", path, source }
        })?;
        if past > oldest {
            self.core.change_view(|view| view.horizon = past);
            self.core.dropped(oldest..=past.previous(), DropReason::Retention, None);
            self.core.around.catalogue.flush();
        }
        Ok(())
    }

    /// The number behind everything that is past `retention` and held by nobody.
    fn past(&self, retention: Duration) -> io::Result<SequenceNumber> {
        let segments = self.core.view(|view| view.segments.clone());
        let mut past = SequenceNumber::ZERO;
        for segment in segments {
            if self.core.is_past(retention, segment.newest, segment.end) {
                past = segment.end;
                continue;
            }
            let path = self.core.path_of(segment.first);
            let file = self.core.around.disk.open_read(&path)?;
            let start = SegmentHeader::read(file.as_ref(), &path).map_or(0, |header| header.encoded_len());
            let mut reader = SegmentReader::new(file, salt(self.core.id, segment.first), start);
            loop {
                match reader.next(segment.bytes)? {
                    Found::Block { header, .. } if header.kind != BlockKind::Control => {
                        if header.first >= segment.end || !self.core.is_past(retention, header.arrival, header.end()) {
                            break;
                        }
                        past = header.end();
                    }
                    Found::Block { .. } | Found::Damaged { .. } => {}
                    Found::End => break,
                }
            }
            break;
        }
        Ok(past)
    }

    fn shards_error(&self, error: ShardError) -> Error {
        Error::Shards { stream: self.core.name().to_owned(), error: error.into() }
    }
}
