//! Compressed blocks: what damage to them costs, and what is not decompressed.

use super::{
    Simulation,
    scenarios::{BlockPlace, blocks, damaged, losses, numbers, verified},
};
use crate::{
    cursor::{ReadLimit, Start},
    disk::Disk as _,
    inspect::FindingKind,
    record::NewRecord,
    segment::{BLOCK_HEADER_BYTES, Codec, SegmentHeader, rewrite_header, salt},
    sequence::SequenceNumber,
    store::{Stream, WhenFull},
};

/// Ten blocks of five records each, in a stream of this codec.
fn ten_blocks(compression: Codec) -> (Simulation, Vec<BlockPlace>) {
    let mut sim = Simulation::new(1);
    sim.stream_config.compression = compression;
    sim.open().expect("an empty disk");
    for _ in 0..10 {
        sim.append(5, 4000).expect("room");
    }
    let blocks = blocks(&sim);
    assert!(blocks.len() == 10 && blocks.iter().all(|block| block.bytes < 15_000), "they are compressed");
    (sim, blocks)
}

/// Changes the header of a block as a writer would that lies: all checksums are right.
fn lie(sim: &Simulation, block: &BlockPlace, raw_bytes: impl Fn(u32) -> u32) {
    let file = sim.disk.open_read(&block.path).expect("there");
    let head = SegmentHeader::read(file.as_ref(), &block.path).expect("sound");
    let salt = salt(head.definition.id, head.first);
    sim.disk.damage(&block.path, |bytes| {
        rewrite_header(&mut bytes[block.offset as usize..], salt, |header| {
            header.raw_bytes = raw_bytes(header.raw_bytes);
        });
    });
}

/// The block costs itself alone, and running readers, a new start and `verify` agree on that.
fn costs_itself_alone(sim: &mut Simulation, hurt: &BlockPlace) {
    let expected: Vec<u64> = (1..=50).filter(|number| !hurt.numbers().contains(&SequenceNumber(*number))).collect();
    for reopen in [false, true] {
        if reopen {
            sim.close();
            sim.open().expect("it opens");
        }
        assert_eq!(numbers(sim), expected);
        let told = damaged(&sim.take_events());
        let once = (hurt.path.clone(), hurt.offset, Some(hurt.numbers()));
        assert_eq!(told, if reopen { vec![] } else { vec![once] });
        let found = verified(sim);
        let [one] = losses(&found)[..] else { panic!("{found:?}") };
        assert_eq!((one.kind, one.offset, &one.records), (FindingKind::Damage, hurt.offset, &Some(hurt.numbers())));
        assert_eq!(found.records, 45);
    }
    let next = sim.append(1, 10).expect("room").runs[0].first;
    assert_eq!(next, SequenceNumber(51), "no number is given twice");
}

/// The try behind noise is of a sample: that must tell both.
#[test]
fn behind_noise_only_what_gets_smaller_is_compressed() {
    for compression in [Codec::Lz4, Codec::Zstd] {
        let mut sim = Simulation::new(1);
        sim.stream_config.compression = compression;
        sim.open().expect("an empty disk");
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(40_000).collect();
        let append = |data: &[u8]| {
            let mut batch = sim.stream().batch();
            batch.push(&NewRecord::new("key", data)).expect("sound");
            sim.stream().append(batch, WhenFull::Refuse, Box::new(|outcome| assert!(outcome.is_ok())));
            sim.commit_queued();
        };
        // Tried; left alone; a sample; left alone twice; a sample, and the whole; and from then on each.
        for data in [&noise[..], &noise, &noise, &noise, &noise, &[b'.'; 40_000], &[b'.'; 40_000]] {
            append(data);
        }
        let small: Vec<_> = blocks(&sim).iter().map(|block| block.bytes < 40_000).collect();
        assert_eq!(small, [false, false, false, false, false, true, true]);
    }
}

#[test]
fn a_damaged_block_costs_itself_alone_however_it_is_compressed() {
    for compression in [Codec::Lz4, Codec::Zstd] {
        for hurt in [0, 4] {
            let (mut sim, blocks) = ten_blocks(compression);
            let hurt = &blocks[hurt];
            let middle = hurt.offset as usize + BLOCK_HEADER_BYTES + hurt.bytes as usize / 2;
            sim.disk.damage(&hurt.path, |bytes| bytes[middle] ^= 0x10);
            costs_itself_alone(&mut sim, hurt);
        }
    }
}

#[test]
fn a_block_that_lies_about_its_length_is_damage_and_no_torn_tail() {
    let lies: [fn(u32) -> u32; 4] = [|raw| raw - 1, |raw| raw + 1, |_| 0, |_| 64 << 20];
    for compression in [Codec::Lz4, Codec::Zstd] {
        for raw_bytes in lies {
            // The last one is whole by its checksums: an opening does not cut it off.
            for hurt in [4, 9] {
                let (mut sim, blocks) = ten_blocks(compression);
                lie(&sim, &blocks[hurt], raw_bytes);
                costs_itself_alone(&mut sim, &blocks[hurt]);
            }
        }
    }
}

/// One block for each record, and the shard it went to.
fn append_alone(sim: &Simulation, stream: &Stream, key: &str) -> crate::shard::ShardIndex {
    let mut batch = stream.batch();
    let shard = batch.push(&NewRecord::new(key, &[b'.'; 2000])).expect("a sound record");
    stream.append(batch, WhenFull::Refuse, Box::new(|outcome| assert!(outcome.is_ok())));
    sim.commit_queued();
    shard
}

#[test]
fn a_reader_of_one_shard_does_not_decompress_what_others_have_alone() {
    let mut sim = Simulation::new(1);
    sim.stream_config.compression = Codec::Zstd;
    sim.open().expect("an empty disk");
    let stream = sim.stream().clone();
    let shards: Vec<_> = (0..20).map(|i| append_alone(&sim, &stream, &format!("key-{i}"))).collect();
    let wanted = shards[0];
    assert!(shards.iter().any(|shard| *shard != wanted));
    // Whoever decompressed these would tell of it.
    for (block, shard) in blocks(&sim).iter().zip(&shards) {
        if *shard != wanted {
            lie(&sim, block, |raw| raw + 1);
        }
    }
    let limit = ReadLimit { records: 100, payload_bytes: 1 << 20 };
    let read = stream.shard_cursor(wanted, Start::Oldest).read(limit).expect("readable");
    assert_eq!(read.len(), shards.iter().filter(|shard| **shard == wanted).count());
    assert!(read.iter().all(|record| record.shard == wanted && record.data[..] == [b'.'; 2000]));
    assert_eq!(sim.take_events(), []);
    let all = stream.cursor(Start::Oldest).read(limit).expect("readable");
    assert_eq!(all.len(), read.len(), "the others are damaged indeed");
    assert!(!sim.take_events().is_empty());
}
