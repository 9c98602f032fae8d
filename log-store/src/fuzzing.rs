//! What a fuzzer calls: one function for each decoder of what lies on the disk. Any bytes may come, and none may make a
//! decoder panic, take memory for lengths that cannot be, or go on for ever.
//!
//! Checksums are made right first, since no fuzzer guesses them and a decoder must not rely on them alone. `fuzz/` has
//! the programs for long runs; the tests run each function briefly on the corpus and on what becomes of it.

use std::{io, path::Path};

use crate::{
    catalogue::SealedSegment,
    cursor::for_each_record,
    disk::DiskFile,
    gaps::Gaps,
    marks::Marks,
    record::Encoded,
    segment::{
        BlockHeader, BlockKind, Codec, Control, Found, Payload, SegmentHeader, SegmentReader, StreamDefinition,
        Unpacker, decode_runs, seal,
    },
    sequence::SequenceNumber,
    stats::DropTotals,
};

/// Decodes any bytes without trouble.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its program and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("segment_header", segment_header),
    ("segment", segment),
    ("block", block),
    ("records", records),
    ("marks", marks),
    ("control", control),
    ("codec", codec),
    ("catalogue", catalogue),
];

/// A file in memory.
struct InMemory(Vec<u8>);

impl DiskFile for InMemory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The header of a segment.
pub fn segment_header(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if let Some(len) = bytes.get(8..12) {
        let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        if let Some(definition) = len.checked_add(56).and_then(|end| bytes.get(56..end)) {
            let crc = crc32fast::hash(&[&bytes[..52], definition].concat());
            bytes[52..56].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let read = |bytes| SegmentHeader::read(&InMemory(bytes), Path::new("fuzzed"));
    if let Ok(header) = read(bytes) {
        assert_eq!(read(header.encode()).expect("it was just encoded"), header);
    }
}

/// Blocks of a segment as they come, damaged ones too.
pub fn segment(bytes: &[u8]) {
    walk(bytes.to_vec(), 0);
}

/// A block whose checksums are right, whatever it says otherwise, and what may come behind it.
pub fn block(bytes: &[u8]) {
    let salt = 7;
    let mut bytes = bytes.to_vec();
    seal(&mut bytes, salt);
    walk(bytes, salt);
}

fn walk(bytes: Vec<u8>, salt: u32) {
    let len = bytes.len() as u64;
    let mut reader = SegmentReader::new(Box::new(InMemory(bytes)), salt, 0);
    let mut at = 0;
    loop {
        match reader.next(len).expect("memory is readable") {
            Found::End => break,
            Found::Damaged { bytes, .. } => assert!(bytes.start == at && bytes.end > at),
            Found::Block { offset, header } => {
                assert_eq!(offset, at);
                if let Ok(payload) = reader.payload(offset, &header).expect("memory is readable") {
                    payload_of(&header, payload);
                }
            }
        }
        assert!(reader.offset() > at, "it goes on");
        at = reader.offset();
    }
    // Behind the end when the last block's padding is missing.
    assert!(at >= len);
}

/// Whatever boots are told of, times are reckoned with them.
fn timeline(boots: Vec<crate::clock::Boot>) {
    use crate::clock::{Now, Stamp, Timeline, Timestamp};
    let mut timeline = Timeline::new(7, boots);
    for (boot, ms) in [(7, 0), (7, u64::MAX), (1, 1 << 40)] {
        let stamp = Stamp { boot, since_boot_ms: ms, wall_ms: ms };
        let now = Now { wall: Timestamp(ms), since_boot: std::time::Duration::from_millis(ms) };
        timeline.saw(stamp);
        timeline.learn(now, true);
        let _ = (timeline.arrival(stamp), timeline.age_at_least(stamp, now), timeline.wall(now));
        timeline.merge(timeline.boots().to_vec());
    }
}

fn payload_of(header: &BlockHeader, payload: &[u8]) {
    match header.kind {
        BlockKind::Records => _ = for_each_record(payload, header, header.first, None, |_, _, record| read(&record)),
        BlockKind::Control => control(payload),
        BlockKind::Gap | BlockKind::Unwritten => {}
    }
}

/// The payload of a records block; the first byte says how many records the header promises.
pub fn records(bytes: &[u8]) {
    let Some((&count, payload)) = bytes.split_first() else { return };
    let header =
        BlockHeader::new(BlockKind::Records, SequenceNumber(1), u32::from(count), crate::clock::Stamp::default());
    let mut seen = 0;
    let all = for_each_record(payload, &header, header.first, None, |number, _, record| {
        seen += 1;
        assert_eq!(number, SequenceNumber(seen));
        read(&record);
    });
    if all.is_ok() {
        assert_eq!(seen, u64::from(count));
    }
    assert!(decode_runs(payload).count() <= payload.len());
}

fn marks_alone(marks: &Marks) -> Payload<'static> {
    let mut payload = Payload::default();
    payload.push_marks(marks);
    payload
}

/// The payload of a records block that begins with marks; the first byte says how many records the header promises.
pub fn marks(bytes: &[u8]) {
    let Some((&count, payload)) = bytes.split_first() else { return };
    let stamp = crate::clock::Stamp::default();
    let mut header = BlockHeader::new(BlockKind::Records, SequenceNumber(1), u32::from(count), stamp);
    header.marked = true;
    if let Ok(marks) = header.marks(payload) {
        let mut again = Vec::new();
        marks_alone(&marks).write(&mut again);
        assert_eq!(header.marks(&again), Ok(marks));
        assert_eq!(header.runs(&again), Ok(&[][..]));
    }
    payload_of(&header, payload);
}

fn read(record: &Encoded<'_>) {
    let mut again = Vec::new();
    record.write(&mut again);
    let (same, rest) = Encoded::take(&again).expect("it was just encoded");
    assert_eq!((same.payload_bytes(), same.hash_key(), rest.len()), (record.payload_bytes(), record.hash_key(), 0));
}

/// The payload of a control block.
pub fn control(bytes: &[u8]) {
    if let Ok(control) = Control::decode(bytes) {
        let again = postcard::to_allocvec(&control).expect("it encodes");
        assert_eq!(Control::decode(&again).expect("it was just encoded"), control);
    }
}

/// A stored payload: a byte for the codec, four for the length that the header promises, and what is stored.
pub fn codec(bytes: &[u8]) {
    let Some((head, stored)) = bytes.split_at_checked(5) else { return };
    let raw_bytes = u32::from_le_bytes(head[1..].try_into().expect("four bytes")) % (1 << 20);
    if let Some(codec) = Codec::from_byte(head[0] % 3)
        && let Ok(payload) = Unpacker::default().unpack(codec, stored, raw_bytes)
    {
        assert_eq!(payload.len(), raw_bytes as usize);
    }
}

/// A value of the catalogue, as each kind of entry.
pub fn catalogue(bytes: &[u8]) {
    for version in [1, 2] {
        if let Ok(definition) = StreamDefinition::decode(version, bytes) {
            let again = StreamDefinition::decode(version, &definition.encode(version));
            assert_eq!(again.expect("it was just encoded"), definition);
        }
    }
    let _ = postcard::from_bytes::<u16>(bytes);
    let _ = postcard::from_bytes::<SealedSegment>(bytes);
    let _ = postcard::from_bytes::<(SequenceNumber, u64)>(bytes);
    let _ = postcard::from_bytes::<SequenceNumber>(bytes);
    let _ = postcard::from_bytes::<DropTotals>(bytes);
    if let Ok(boots) = postcard::from_bytes::<Vec<crate::clock::Boot>>(bytes) {
        timeline(boots);
    }
    if let Ok(gaps) = postcard::from_bytes::<Gaps>(bytes) {
        let mut again = Gaps::default();
        again.add_all(&gaps);
        assert_eq!(again, gaps);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fuzz_dir() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("fuzz")
    }

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(fuzz_dir().join("corpus").join(target)).expect("a corpus");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
        files.sort();
        files.iter().map(|path| fs::read(path).expect("read")).collect()
    }

    /// A few of the changes that fuzzers make too.
    fn mutate(random: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[random.usize(..corpus.len())].clone();
        for _ in 0..random.usize(1..5) {
            let at = random.usize(..=bytes.len());
            match random.u8(..7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.u8(..)),
                2 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                3 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
                4 if at < bytes.len() => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
                5 if at < bytes.len() => _ = bytes.remove(at),
                _ => {
                    let other = &corpus[random.usize(..corpus.len())];
                    let from = random.usize(..=other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }

    /// `FOREBAY_FUZZ_RUNS` says how often for each decoder.
    #[test]
    fn no_bytes_trouble_a_decoder() {
        let runs = std::env::var("FOREBAY_FUZZ_RUNS").map_or(3000, |runs| runs.parse().expect("a number"));
        for (name, target) in TARGETS {
            let corpus = corpus(name);
            corpus.iter().for_each(|bytes| target(bytes));
            target(b"");
            for seed in 0..runs {
                let mut random = fastrand::Rng::with_seed(seed);
                let bytes = mutate(&mut random, &corpus);
                let outcome = std::panic::catch_unwind(|| target(&bytes));
                assert!(outcome.is_ok(), "{name}, seed {seed}: {bytes:02x?}");
            }
        }
    }

    #[test]
    fn every_decoder_has_a_program_and_a_corpus_that_it_reads() {
        let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).expect("read");
        for (name, _) in TARGETS {
            let program = fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).expect("a program");
            assert!(program.contains(&format!("fuzzing::{name}(bytes)")), "{program}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(corpus(name).len() > 1, "{name}");
        }
        // The others are the agent's.
        let programs = fs::read_dir(fuzz_dir().join("fuzz_targets")).expect("listed");
        let programs = programs.map(|entry| fs::read_to_string(entry.expect("listed").path()).expect("read"));
        let ours = programs.filter(|program| program.contains("forebay_log_store::")).count();
        assert_eq!(ours, TARGETS.len());
        // What is in the corpora gets past the first checks: a mutation of rubbish would test nothing.
        let sound = |name: &str, is_sound: fn(&[u8]) -> bool| {
            assert!(corpus(name).iter().any(|bytes| is_sound(bytes)), "{name} has nothing sound");
        };
        sound("segment_header", |b| SegmentHeader::read(&InMemory(b.to_vec()), Path::new("corpus")).is_ok());
        sound("control", |bytes| Control::decode(bytes).is_ok_and(|control| !control.checkpoints.is_empty()));
        sound("catalogue", |bytes| StreamDefinition::decode(2, bytes).is_ok());
        sound("catalogue", |bytes| StreamDefinition::decode(1, bytes).is_ok());
        sound("codec", |bytes| bytes[0] == 2 && Unpacker::default().unpack(Codec::Zstd, &bytes[5..], 4096).is_ok());
        sound("codec", |bytes| bytes[0] == 1 && Unpacker::default().unpack(Codec::Lz4, &bytes[5..], 4096).is_ok());
        sound("marks", |bytes| {
            let stamp = crate::clock::Stamp::default();
            let mut header = BlockHeader::new(BlockKind::Records, SequenceNumber(1), 0, stamp);
            header.marked = true;
            header.marks(&bytes[1..]).is_ok_and(|marks| marks.len() == 2)
        });
        sound("records", |bytes| decode_runs(&bytes[1..]).all(|run| run.is_some()));
    }

    /// Writes the corpora anew where `FOREBAY_MAKE_CORPUS` says: pieces of what the log writes.
    #[test]
    fn corpora_are_pieces_of_what_the_log_writes() {
        let dir = std::env::var("FOREBAY_MAKE_CORPUS").map(std::path::PathBuf::from);
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.unwrap_or_else(|_| temporary.path().to_owned());
        make_corpora(&dir);
        for (name, target) in TARGETS {
            for entry in fs::read_dir(dir.join(name)).expect("made") {
                target(&fs::read(entry.expect("listed").path()).expect("read"));
            }
        }
    }

    fn make_corpora(dir: &Path) {
        use crate::{
            hash_key::HashKey,
            marks::Marks,
            record::{NewRecord, Tag},
            segment::{FORMAT_VERSION, Packer},
            shard::ShardMap,
        };
        let save = |target: &str, name: &str, bytes: &[u8]| {
            fs::create_dir_all(dir.join(target)).expect("made");
            fs::write(dir.join(target).join(name), bytes).expect("written");
        };
        let shards = ShardMap::uniform(std::num::NonZeroU32::new(3).expect("not zero"));
        let definition = StreamDefinition {
            id: 7,
            name: "telemetry".into(),
            revision: 2,
            shards: std::sync::Arc::new(shards),
            retention_ms: 86_400_000,
            note: "a note".into(),
        };
        let stamp = crate::clock::Stamp { boot: 1, since_boot_ms: 5000, wall_ms: 1_800_000_000_000 };
        for version in 1..=FORMAT_VERSION {
            save("catalogue", &format!("definition-v{version}"), &definition.encode(version));
            let first = SequenceNumber(1);
            let header =
                SegmentHeader { version, first, recycled_bytes: 0, created: stamp, definition: definition.clone() };
            save("segment_header", &format!("v{version}"), &header.encode());
        }
        let mut gaps = Gaps::default();
        gaps.add(SequenceNumber(5)..=SequenceNumber(9));
        gaps.add(SequenceNumber(300)..=SequenceNumber(70_000));
        let totals = DropTotals { oldest: SequenceNumber(4), ..DropTotals::default() };
        let sealed = SealedSegment { last: SequenceNumber(99), bytes: 8 << 20, newest: stamp };
        save("catalogue", "gaps", &postcard::to_allocvec(&gaps).expect("encodes"));
        save("catalogue", "totals", &postcard::to_allocvec(&totals).expect("encodes"));
        save("catalogue", "sealed", &postcard::to_allocvec(&sealed).expect("encodes"));
        let checkpoints = [("cloud".to_owned(), SequenceNumber(300)), ("archive".to_owned(), SequenceNumber(2))];
        let mut timeline = crate::clock::Timeline::new(7, Vec::new());
        timeline.saw(crate::clock::Stamp { boot: 7, ..stamp });
        let boots = timeline.boots().to_vec();
        save("catalogue", "boots", &postcard::to_allocvec(&boots).expect("encodes"));
        let reserved = SequenceNumber(1 << 20);
        let mut marks = Marks::default();
        marks.change("tail//var/log/plant.log", b"{\"offset\":4096}");
        marks.change("tail//var/log/old.log", b"");
        let v2 = Control { checkpoints: checkpoints.into(), totals, gaps, reserved, boots, ..Control::default() };
        let mut unwritten = Gaps::default();
        unwritten.add(SequenceNumber(200)..=SequenceNumber(1 << 20));
        let control =
            postcard::to_allocvec(&Control { marks: marks.clone(), unwritten, ..v2.clone() }).expect("encodes");
        let v2 = postcard::to_allocvec(&v2).expect("encodes");
        save("control", "v2", &v2[..v2.len() - 2]);
        save("control", "v3", &control);
        save("control", "empty", &postcard::to_allocvec(&Control::default()).expect("encodes"));

        let tags = [Tag { name: "reason".into(), value: "refused".into() }];
        let mut encoded = Vec::new();
        let plain = NewRecord::new("plant/1/temperature", b"{\"t\": 21.5, \"unit\": \"C\"}");
        Encoded::of(&plain).write(&mut encoded);
        Encoded::of(&NewRecord { tags: &tags, explicit_hash_key: Some(HashKey(1 << 127)), ..plain })
            .write(&mut encoded);
        let (mut runs, mut payload) = (Payload::default(), Vec::new());
        for shard in [0, 2] {
            runs.push_run(crate::shard::ShardIndex(shard), 2, std::iter::once(encoded.as_slice().into()));
        }
        runs.write(&mut payload);
        save("records", "two-runs", &[&[4], &*payload].concat());
        save("records", "one-too-few", &[&[5], &*payload].concat());

        let mut marked = Vec::new();
        marks_alone(&marks).write(&mut marked);
        save("marks", "alone", &[&[0], &*marked].concat());
        save("marks", "with-records", &[&[4], &*marked, &*payload].concat());

        let mut blocks = Vec::new();
        let kinds = [(BlockKind::Control, control, 0), (BlockKind::Records, payload, 4), (BlockKind::Gap, vec![], 9)];
        for (kind, payload, records) in kinds {
            let at = crate::segment::start_block(&mut blocks);
            blocks.extend(payload);
            let header = BlockHeader::new(kind, SequenceNumber(1), records, stamp);
            crate::segment::finish_block(&mut blocks, at, header, 0);
            save("block", &format!("{kind:?}").to_lowercase(), &blocks[at..]);
        }
        let at = crate::segment::start_block(&mut blocks);
        blocks.extend(marked);
        let mut header = BlockHeader::new(BlockKind::Records, SequenceNumber(14), 0, stamp);
        header.marked = true;
        crate::segment::finish_block(&mut blocks, at, header, 0);
        save("block", "marked", &blocks[at..]);
        save("segment", "sound", &blocks);
        let mut damaged = blocks.clone();
        damaged[70] ^= 1;
        damaged.extend_from_slice(b"FBLKFBLK");
        save("segment", "damaged", &damaged);

        let text = b"{\"t\": 21.5, \"unit\": \"C\"}".repeat(200);
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let plain = &text[..4096];
            let mut packer = Packer::default();
            let stored = packer.pack(codec, plain).unwrap_or(plain);
            let bytes = [&[codec as u8], &4096u32.to_le_bytes()[..], stored].concat();
            save("codec", codec.name(), &bytes);
        }
    }
}
