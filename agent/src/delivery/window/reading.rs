//! When to read and what: the part of the window that looks at its room.

use std::{sync::Arc, time::Duration};

use forebay_log_store::{ReadLimit, Record, SequenceNumber};

use super::{super::config::CatchUp, READ_BYTES, READ_RECORDS, RECORDS_MIN, SPAN_WINDOWS, Window, stretches::Stretch};
use crate::destination::Place;

/// What is to be read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// From this number on, or the next one that there is.
    pub(crate) from: SequenceNumber,
    /// What is read behind this number is not wanted.
    pub(crate) end: Option<SequenceNumber>,
    pub(crate) limit: ReadLimit,
}

/// What a read gave.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The records for this delivery, in order, and how old each is at the least.
    pub(crate) records: Vec<(Arc<Record>, Duration)>,
    /// The newest record read, whoever it is for; nothing at the end of the log.
    pub(crate) reached: Option<SequenceNumber>,
}

/// What a stretch may take of the window.
#[derive(Debug, Clone, Copy)]
struct Room {
    records: usize,
    bytes: u64,
    /// How many of its kind it holds.
    held: usize,
    /// How many of its kind may lie behind an unfinished one.
    span: usize,
}

impl Window {
    /// What a read gave. `place` says where each record goes, or why it never can.
    pub(crate) fn on_read(&mut self, found: Found, place: impl Fn(&Record) -> Result<Place, String>, now: Duration) {
        let id = self.reading.take().expect("it was asked for");
        self.read_failures = 0;
        let end = self.stretches[id].end;
        if end.is_none() {
            self.at_end = found.reached.is_none() && !self.committed_while_reading;
        }
        for (record, age) in found.records {
            let number = record.sequence_number;
            if end.is_some_and(|end| number >= end) {
                break;
            }
            if self.finished_before.has(number) {
                self.stretches[id].ledger.gone(number);
            } else if let Some(expires) = self.expires(id, number, age, now) {
                self.add(id, record, expires, &place, now);
            }
        }
        // A gap in which there is nothing any more was dropped.
        if let Some(reached) = found.reached.or(end) {
            self.stretches[id].pass(reached);
        }
    }

    /// Whether there is nothing to be read, for the moment.
    pub(super) fn is_all_read(&self) -> bool {
        self.at_end && self.stretches.gaps().iter().all(Stretch::is_read)
    }

    /// Whether there is more in the log, but it is read only after something has been finished.
    pub(super) fn reads_later(&self, now: Duration) -> bool {
        self.reading.is_none() && !self.is_all_read() && self.read_due(now).is_none()
    }

    /// Whether there is room for another record that comes in now.
    pub(super) fn has_room(&self) -> bool {
        let Room { records, bytes, held, span } = self.room(self.stretches.live().id);
        records > 0 && (bytes > 0 || held < RECORDS_MIN) && (span > 0 || self.wants_evidence)
    }

    /// How many records may lie between the oldest unfinished one and the newest one read.
    pub(super) fn span_max(&self) -> usize {
        self.config.window_records.saturating_mul(SPAN_WINDOWS)
    }

    fn room(&self, id: u32) -> Room {
        let (window_records, window_bytes) = (self.config.window_records, self.config.window_bytes);
        let live = self.stretches.live();
        let sum = |gaps: bool, of: fn(&Stretch) -> u64| -> u64 {
            if gaps { self.stretches.gaps().iter().map(of).sum() } else { of(live) }
        };
        let spans = |gaps| usize::try_from(sum(gaps, |stretch| stretch.ledger.span() as u64)).unwrap_or(usize::MAX);
        let free_records = window_records.saturating_sub(self.entries.len());
        let free_bytes = window_bytes.saturating_sub(self.entries.cost());
        let span_max = self.span_max();
        if !self.shares_window() {
            let span = span_max.saturating_sub(spans(false) + spans(true));
            return Room { records: free_records, bytes: free_bytes, held: self.entries.len(), span };
        }
        let is_gap = id != live.id;
        let held = usize::try_from(sum(is_gap, |stretch| stretch.records as u64)).unwrap_or(usize::MAX);
        let share = (window_records / 2).max(RECORDS_MIN);
        Room {
            records: free_records.min(share.saturating_sub(held)),
            bytes: free_bytes.min((window_bytes / 2).saturating_sub(sum(is_gap, |stretch| stretch.bytes))),
            held,
            span: span_max.saturating_sub(spans(is_gap)),
        }
    }

    /// What is to be read now, and of which stretch.
    pub(super) fn read_due(&self, now: Duration) -> Option<(u32, Piece)> {
        if self.stopping || self.reading.is_some() || now < self.read_not_before {
            return None;
        }
        let unread = |gap: &&Stretch| !gap.is_read();
        let live = (!self.at_end).then(|| self.stretches.live().id);
        let gaps = self.stretches.gaps();
        let turns = if self.config.catch_up == CatchUp::OldestFirst {
            [gaps.iter().find(unread).map(|gap| gap.id).or(live), None]
        } else {
            let gap = gaps.iter().rev().find(unread).map(|gap| gap.id);
            if self.read_live { [gap, live] } else { [live, gap] }
        };
        turns.into_iter().flatten().find_map(|id| Some((id, self.piece(id)?)))
    }

    /// What there is room for of a stretch.
    pub(super) fn piece(&self, id: u32) -> Option<Piece> {
        let Room { records, bytes, held, span } = self.room(id);
        if records == 0 || (bytes == 0 && held >= RECORDS_MIN) || (span == 0 && !self.wants_evidence) {
            return None;
        }
        let (window_records, window_bytes) = if self.shares_window() {
            (self.config.window_records / 2, self.config.window_bytes / 2)
        } else {
            (self.config.window_records, self.config.window_bytes)
        };
        let (records, bytes) = (records.min(span.max(1)), bytes.max(1));
        // Not in crumbs: each read costs a visit to the disk's thread.
        let worth_it = records >= READ_RECORDS.min(window_records / 8) && bytes >= READ_BYTES.min(window_bytes / 8);
        let stretch = &self.stretches[id];
        (worth_it || held < RECORDS_MIN || self.wants_evidence).then(|| Piece {
            from: stretch.next_read(),
            end: stretch.end,
            limit: ReadLimit {
                records: if worth_it { records.min(READ_RECORDS) } else { 1 },
                payload_bytes: usize::try_from(bytes.min(READ_BYTES)).unwrap_or(usize::MAX),
            },
        })
    }
}
