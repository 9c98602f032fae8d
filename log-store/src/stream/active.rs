//! The segment being written, and the control blocks that ride in it.

use std::{io, path::Path};

use super::{Segment, StreamCore, lock};
use crate::{
    clock::Stamp,
    disk::DiskFile,
    segment::{
        BlockHeader, BlockKind, Control, FORMAT_VERSION, SegmentHeader, StreamDefinition, finish_block, salt,
        start_block,
    },
    sequence::SequenceNumber,
};

/// Extension of a segment that is to replace an empty one. What a power cut leaves of it is replaced the next time.
const NEW_EXTENSION: &str = "new";

/// The last segment of a stream: the only one that is written.
pub(super) struct Active {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) first: SequenceNumber,
    pub(super) salt: u32,
    pub(super) created: Stamp,
    /// Length of the durable part: where the next block goes.
    pub(super) len: u64,
    /// Bytes of blocks since the last index entry.
    pub(super) since_index: u64,
    /// Which change of the boots its control blocks tell of; 0 if that is not known.
    pub(super) boots_told: u64,
}

impl Active {
    /// Creates the segment that begins at `first`, durably, and with it what the stream is from now on. What may lie under its name was never used, and is replaced.
    ///
    /// When it fails for want of room, it leaves no file behind: the segment before goes on then, and an empty successor
    /// that a power cut brought back would hide what it got in the meantime.
    pub(super) fn create(
        core: &StreamCore,
        definition: &StreamDefinition,
        first: SequenceNumber,
        created: Stamp,
    ) -> io::Result<Self> {
        let (disk, path) = (&core.around.disk, core.path_of(first));
        let clear = |path: &Path| match disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io::Error::other(error)),
            _ => disk.sync_dir(&core.dir).map_err(io::Error::other),
        };
        let active = Self::write_new(core, definition, &path, first, created);
        match active {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // At no moment is there none: it may be the only one that knows the numbering.
                let fresh = path.with_extension(NEW_EXTENSION);
                clear(&fresh)?;
                let active = Self::write_new(core, definition, &fresh, first, created);
                if active.is_err() {
                    clear(&fresh)?;
                }
                let active = active?;
                disk.rename(&fresh, &path).and_then(|()| disk.sync_dir(&core.dir)).map_err(io::Error::other)?;
                Ok(active)
            }
            Err(error) => {
                clear(&path)?;
                Err(error)
            }
            active => active,
        }
    }

    fn write_new(
        core: &StreamCore,
        definition: &StreamDefinition,
        path: &Path,
        first: SequenceNumber,
        created: Stamp,
    ) -> io::Result<Self> {
        let disk = &core.around.disk;
        let file = disk.create(path)?;
        let salt = salt(core.id, first);
        let mut bytes =
            SegmentHeader { version: FORMAT_VERSION, first, created, definition: definition.clone() }.encode();
        // The checkpoints ride at the head of every segment, so that the newest one always has them.
        let boots_told = write_control(core, &mut bytes, first, created, salt, 0);
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.sync_dir(&core.dir)?;
        lock(&core.counters).stats.written_bytes += bytes.len() as u64;
        Ok(Self { file, first, salt, created, len: bytes.len() as u64, since_index: 0, boots_told })
    }

    /// As readers see it, without a record.
    pub(super) fn empty_segment(&self) -> Segment {
        Segment { first: self.first, end: self.first, bytes: self.len, newest: self.created }
    }
}

/// Appends a control block: what would be lost with the catalogue. The boots stand in it unless this change of them was
/// told before; says which one is told then.
pub(super) fn write_control(
    core: &StreamCore,
    out: &mut Vec<u8>,
    next: SequenceNumber,
    stamp: Stamp,
    salt: u32,
    boots_told: u64,
) -> u64 {
    let (changes, mut boots) = core.around.time.boots();
    if changes == boots_told {
        boots.clear();
    }
    let checkpoints = lock(&core.checkpoints).done.clone();
    let control = {
        let counters = lock(&core.counters);
        Control { checkpoints, totals: counters.totals, gaps: counters.gaps.persisted(), boots }
    };
    let at = start_block(out);
    *out = postcard::to_extend(&control, std::mem::take(out)).expect("a Vec takes any number of bytes");
    finish_block(out, at, BlockHeader::new(BlockKind::Control, next, 0, stamp), salt);
    changes
}
