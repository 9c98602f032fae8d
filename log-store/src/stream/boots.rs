//! What the segments tell of the machine's boots: for when the catalogue does not, and for looking from outside.

use std::path::Path;

use super::{is_stream_name, stream_dir};
use crate::{
    clock::Boot,
    disk::Disk,
    segment::{BlockKind, Control, Found, SegmentHeader, SegmentReader, file_name, parse_file_name, salt},
};

/// The boots stand at the head of every segment, but those of an older format have none, and the newest may be torn.
const SEGMENTS_TRIED: usize = 2;

/// The boots of which the streams of a data directory tell at the heads of their newest segments, which is little to read.
/// What came later, the opening of a stream finds. What cannot be read tells of none.
pub(crate) fn in_log(disk: &dyn Disk, data_dir: &Path) -> Vec<Boot> {
    let names = disk.list(&data_dir.join("streams")).unwrap_or_default();
    let streams = names.iter().filter(|name| is_stream_name(name));
    streams.flat_map(|name| newest(disk, &stream_dir(data_dir, name), 1)).collect()
}

/// The boots of which a stream tells.
pub(crate) fn in_stream(disk: &dyn Disk, dir: &Path) -> Vec<Boot> {
    newest(disk, dir, usize::MAX)
}

fn newest(disk: &dyn Disk, dir: &Path, blocks_max: usize) -> Vec<Boot> {
    let names = disk.list(dir).unwrap_or_default();
    let mut firsts: Vec<_> = names.iter().filter_map(|name| parse_file_name(name)).collect();
    firsts.sort_unstable();
    let paths = firsts.iter().rev().map(|first| dir.join(file_name(*first)));
    let mut told = paths.filter_map(|path| in_segment(disk, &path, blocks_max)).take(SEGMENTS_TRIED);
    told.find(|boots| !boots.is_empty()).unwrap_or_default()
}

/// `None` if it is no sound segment.
fn in_segment(disk: &dyn Disk, path: &Path, blocks_max: usize) -> Option<Vec<Boot>> {
    let file = disk.open_read(path).ok()?;
    let len = file.len().ok()?;
    let header = SegmentHeader::read(file.as_ref(), path).ok()?;
    let mut reader = SegmentReader::new(file, salt(header.definition.id, header.first), header.encoded_len());
    let mut newest = Vec::new();
    for _ in 0..blocks_max {
        match reader.next(len).ok()? {
            Found::End => break,
            Found::Block { offset, header } if header.kind == BlockKind::Control => {
                let told = reader.payload(offset, &header).ok().and_then(|payload| Control::decode(payload.ok()?).ok());
                newest = told.map(|control| control.boots).filter(|boots| !boots.is_empty()).unwrap_or(newest);
            }
            Found::Block { .. } | Found::Damaged { .. } => {}
        }
    }
    Some(newest)
}
