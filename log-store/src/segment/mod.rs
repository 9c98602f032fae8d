//! Segments: the files that hold the records. A header that says whose they are, then blocks.
//!
//! The byte layout is specified in `docs/format.md`. Everything on disk is little-endian.

mod block;
mod codec;
mod definition;
mod header;
mod names;
mod payload;
mod reader;

#[cfg(test)]
pub(crate) use block::rewrite_header;
#[cfg(any(test, fuzzing))]
pub(crate) use block::seal;
pub(crate) use block::{
    BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Control, PADDING_BYTES_MAX, decode_runs, finish_block, pack,
    pack_block, padding, padding_max, start_block, write_absent,
};
pub use codec::Codec;
#[cfg(any(test, fuzzing))]
pub(crate) use codec::Unpacker;
pub(crate) use codec::{Packer, Prospects, Try};
pub(crate) use definition::StreamDefinition;
pub(crate) use header::{FORMAT_VERSION, SPARE_FILE_NAME, SegmentHeader, file_name, parse_file_name, salt};
pub(crate) use names::{Holds, Step, mend_names};
pub(crate) use payload::{COPIED_BYTES_MAX, Part, Payload};
pub(crate) use reader::{Found, SegmentReader};
