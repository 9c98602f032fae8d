//! The cursors of a delivery: one for what is live and one for gaps, each kept while reading goes on where it stands.

use std::{sync::Arc, time::Duration};

use forebay_log_store::{Cursor, Error, Record, SequenceNumber, Start, Stream};

use super::window::Piece;

/// What is live, and a gap.
const KEPT: usize = 2;

/// Those that are not being read with.
#[derive(Default)]
pub(super) struct Cursors(Vec<Place>);

/// A cursor and the number of the next record that it gives.
struct Place {
    next: SequenceNumber,
    cursor: Cursor,
}

/// A read, to be done where blocking is allowed.
pub(super) struct Reading {
    place: Place,
    piece: Piece,
}

/// Records, and how old each is at the least.
type Aged = Vec<(Arc<Record>, Duration)>;

impl Cursors {
    pub(super) fn begin(&mut self, piece: Piece, stream: &Stream) -> Reading {
        let known = self.0.iter().position(|place| place.next == piece.from);
        let place = known.map(|at| self.0.remove(at));
        // None if a read panicked, or if it has to go on elsewhere.
        let fresh = || Place { next: piece.from, cursor: stream.cursor(Start::At(piece.from)) };
        Reading { place: place.unwrap_or_else(fresh), piece }
    }

    /// Takes back what was read with.
    pub(super) fn end(&mut self, reading: Reading) {
        self.0.insert(0, reading.place);
        self.0.truncate(KEPT);
    }
}

impl Reading {
    pub(super) fn read(mut self) -> (Self, Result<Aged, Error>) {
        let read = self.place.cursor.read(self.piece.limit);
        let ages = self.place.cursor.ages();
        if let Ok(records) = &read
            && let Some(newest) = records.last()
        {
            self.place.next = newest.sequence_number.next();
        }
        (self, read.map(|records| records.into_iter().zip(ages).collect()))
    }
}
