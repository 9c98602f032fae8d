//! What is in a file, plain or compressed, from any offset on.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

/// How a file keeps its content. In marks: the order is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Form {
    Plain,
    Gzip,
    Zstd,
}

impl Form {
    pub(super) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// An open file.
pub(super) struct Content {
    pub(super) file: File,
    unpacker: Option<Unpacker>,
    form: Form,
}

/// Unpacks a file; only forward, so that it keeps what may be asked for again.
struct Unpacker {
    stream: Box<dyn Read + Send>,
    /// What was unpacked last, from `from` on.
    recent: Vec<u8>,
    from: u64,
}

impl Content {
    pub(super) fn new(file: File, form: Form) -> Self {
        Self { file, unpacker: None, form }
    }

    /// Reads up to `len` bytes from `offset` on to the end of `into`. Whether the content ends there: of a plain file for now, of a
    /// compressed one for good. One that is still being written ends nowhere.
    pub(super) fn read(&mut self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<bool> {
        let begin = into.len();
        if self.form == Form::Plain {
            into.resize(begin + len, 0);
            let mut filled = 0;
            let outcome = loop {
                match self.file.read_at(&mut into[begin + filled..], offset + filled as u64) {
                    Ok(0) => break Ok(filled < len),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                }
            };
            into.truncate(begin + filled);
            return outcome;
        }
        let outcome = self.unpack(offset, len, into);
        if outcome.is_err() {
            self.unpacker = None;
        }
        match outcome {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            outcome => outcome,
        }
    }

    fn unpack(&mut self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<bool> {
        if self.unpacker.as_ref().is_none_or(|unpacker| unpacker.from > offset) {
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            let file = BufReader::new(file);
            let stream: Box<dyn Read + Send> = match self.form {
                Form::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
                Form::Plain | Form::Gzip => Box::new(MultiGzDecoder::new(file)),
            };
            self.unpacker = Some(Unpacker { stream, recent: Vec::new(), from: 0 });
        }
        let Some(Unpacker { stream, recent, from }) = &mut self.unpacker else { return Ok(false) };
        // Nobody asks for what is before the last question, but by beginning anew.
        let known = recent.len().min((offset - *from) as usize);
        recent.drain(..known);
        *from += known as u64;
        let skip = offset - *from;
        let skipped = io::copy(&mut stream.by_ref().take(skip), &mut io::sink())?;
        *from += skipped;
        if skipped < skip {
            return Ok(true);
        }
        let outcome = stream.by_ref().take(len.saturating_sub(recent.len()) as u64).read_to_end(recent);
        into.extend_from_slice(&recent[..recent.len().min(len)]);
        outcome.map(|_| recent.len() < len)
    }

    /// The bytes there, as far as there are any.
    pub(super) fn part(&mut self, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read(range.start, (range.end - range.start) as usize, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn packed_content_is_read_from_any_offset_and_has_no_end_while_it_is_written() {
        let text: Vec<u8> = (0..20_000).flat_map(|number: u32| format!("line {number}\n").into_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("memory");
        let packed = [
            (Form::Gzip, gzip.finish().expect("memory")),
            (Form::Zstd, zstd::encode_all(&text[..], 1).expect("memory")),
            (Form::Plain, text.clone()),
        ];
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("packed");
        for (form, bytes) in packed {
            std::fs::write(&path, &bytes).expect("written");
            let mut content = Content::new(File::open(&path).expect("there"), form);
            for from in [1000, 5, 100_000, 100_010] {
                assert_eq!(content.part(from..from + 500).expect("readable"), text[from as usize..from as usize + 500]);
            }
            let mut all = Vec::new();
            assert!(content.read(0, text.len() + 1, &mut all).expect("readable"));
            assert_eq!(all, text);
            assert!(content.read(text.len() as u64 + 10, 5, &mut all).expect("readable"));
            if form != Form::Plain {
                std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
                let mut content = Content::new(File::open(&path).expect("there"), form);
                let mut half = Vec::new();
                assert!(!content.read(0, text.len() + 1, &mut half).expect("readable"));
                assert!(text.starts_with(&half));
            }
        }
    }
}
