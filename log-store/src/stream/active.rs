//! The segment being written, and the control blocks that ride in it.

use std::{io, path::Path};

use super::{Segment, StreamCore, lock};
use crate::{
    clock::Stamp,
    disk::DiskFile,
    gaps::Gaps,
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
    /// Length of the file: more than `len` while a recycled file is not used up.
    pub(super) file_len: u64,
    /// Bytes of blocks since the last index entry.
    pub(super) since_index: u64,
    /// Which change of the boots its control blocks tell of; 0 if that is not known.
    pub(super) boots_told: u64,
    /// Whether a control block in it tells what would be lost with the segments before; not if the power left it bare.
    pub(super) has_control: bool,
}

/// What a new segment begins with.
struct Head<'a> {
    definition: &'a StreamDefinition,
    first: SequenceNumber,
    created: Stamp,
}

impl Active {
    /// Creates the segment that begins at `first`, durably, and with it what the stream is from now on. What may lie under
    /// its name was never used, and is replaced.
    ///
    /// Where there is a spare file, that becomes the segment: writing where blocks were written before costs the device
    /// no journal (docs/decisions/0007-segment-files.md).
    ///
    /// When it fails for want of room, it leaves no file behind: the segment before goes on then, and an empty successor
    /// that a power cut brought back would hide what it got in the meantime.
    pub(super) fn create(
        core: &StreamCore,
        definition: &StreamDefinition,
        first: SequenceNumber,
        created: Stamp,
        has_spare: bool,
    ) -> io::Result<Self> {
        let (disk, path) = (&core.around.disk, core.path_of(first));
        let head = || Head { definition, first, created };
        if has_spare {
            match Self::recycle(core, &path, head()) {
                Ok(active) => return Ok(active),
                // Whatever it was, a new file may do. If not, that fails too.
                Err(_) => _ = disk.remove(&core.spare_path()),
            }
        }
        match Self::write_new(core, &path, head()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // At no moment is there none: it may be the only one that knows the numbering.
                let fresh = path.with_extension(NEW_EXTENSION);
                clear(core, &fresh)?;
                let active = Self::write_new(core, &fresh, head())?;
                disk.rename(&fresh, &path).and_then(|()| disk.sync_dir(&core.dir)).map_err(io::Error::other)?;
                Ok(active)
            }
            written => written,
        }
    }

    /// A file that could not be made was not made here, so it is not cleared either.
    fn write_new(core: &StreamCore, path: &Path, head: Head<'_>) -> io::Result<Self> {
        let file = core.around.disk.create(path)?;
        let written = Self::write_head(core, file, 0, head).and_then(|active| {
            core.around.disk.sync_dir(&core.dir)?;
            Ok(active)
        });
        if written.is_err() {
            clear(core, path)?;
        }
        written
    }

    /// Makes the spare file the segment. Its name changes when its head is durable, so that no name ever stands for
    /// another segment's head.
    fn recycle(core: &StreamCore, path: &Path, head: Head<'_>) -> io::Result<Self> {
        let (disk, spare) = (&core.around.disk, core.spare_path());
        let file = disk.open(&spare)?;
        let recycled_bytes = u32::try_from(file.len()?).map_err(io::Error::other)?;
        let active = Self::write_head(core, file, recycled_bytes, head)?;
        disk.rename(&spare, path)?;
        disk.sync_dir(&core.dir)?;
        Ok(active)
    }

    fn write_head(
        core: &StreamCore,
        file: Box<dyn DiskFile>,
        recycled_bytes: u32,
        Head { definition, first, created }: Head<'_>,
    ) -> io::Result<Self> {
        let salt = salt(core.id, first);
        let definition = definition.clone();
        let header = SegmentHeader { version: FORMAT_VERSION, first, recycled_bytes, created, definition };
        let mut bytes = header.encode();
        // The checkpoints ride at the head of every segment, so that the newest one always has them.
        let header = BlockHeader::new(BlockKind::Control, first, 0, created);
        let boots_told = write_control(core, &mut bytes, header, salt, 0);
        file.write_at(0, &bytes)?;
        file.sync()?;
        let len = bytes.len() as u64;
        core.count_framing(len);
        let file_len = len.max(recycled_bytes.into());
        Ok(Self { file, first, salt, created, len, file_len, since_index: 0, boots_told, has_control: true })
    }

    /// How many bytes the file has beyond its durable part.
    pub(super) fn unused(&self) -> u64 {
        self.file_len - self.len
    }

    /// How much the file grows if `bytes` are written to it.
    pub(super) fn growth(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.unused())
    }

    /// Cuts off what is not used: nothing of it is ever taken for a block, so this may fail.
    pub(super) fn cut_unused(&mut self) {
        if self.unused() > 0 && self.file.truncate(self.len).is_ok() {
            self.file_len = self.len;
        }
    }

    /// As readers see it, without a record.
    pub(super) fn empty_segment(&self) -> Segment {
        Segment { first: self.first, end: self.first, bytes: self.len, newest: self.created }
    }
}

/// Removes a file, if it is there. A failure is no want of room, whatever the disk calls it.
fn clear(core: &StreamCore, path: &Path) -> io::Result<()> {
    match core.around.disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io::Error::other(error)),
        _ => core.around.disk.sync_dir(&core.dir).map_err(io::Error::other),
    }
}

/// Appends a control block: what would be lost with the catalogue. The boots stand in it unless this change of them was
/// told before; says which one is told then. The unwritten numbers stand in the first one that is written to a segment, at
/// its head or since an opening, when nothing was told yet: later ones have blocks of their own behind it.
pub(super) fn write_control(
    core: &StreamCore,
    out: &mut Vec<u8>,
    header: BlockHeader,
    salt: u32,
    boots_told: u64,
) -> u64 {
    let (changes, mut boots) = core.around.time.boots();
    if changes == boots_told {
        boots.clear();
    }
    let checkpoints = lock(&core.checkpoints).done.clone();
    let reserved = core.reserved();
    let marks = lock(&core.marks).written().clone();
    let control = {
        let counters = lock(&core.counters);
        let unwritten = if boots_told == 0 { counters.unwritten.persisted() } else { Gaps::default() };
        Control {
            checkpoints,
            totals: counters.totals,
            gaps: counters.gaps.persisted(),
            reserved,
            boots,
            marks,
            unwritten,
        }
    };
    let at = start_block(out);
    *out = postcard::to_extend(&control, std::mem::take(out)).expect("a Vec takes any number of bytes");
    finish_block(out, at, header, salt);
    changes
}
