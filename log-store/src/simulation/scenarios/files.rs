//! Segments that are torn, damaged, missing or not the stream's own.

use std::time::Duration;

use super::*;
use crate::{
    inspect::FindingKind,
    segment::{BLOCK_HEADER_BYTES, file_name},
};

#[test]
fn a_torn_tail_is_cut_kept_and_told_once() {
    let mut sim = open(1);
    for _ in 0..3 {
        sim.append(4, 200).expect("room");
    }
    let before = numbers(&sim);
    let last = blocks(&sim).pop().expect("three blocks");
    sim.close();
    // Half a block of an unfinished commit.
    sim.disk.damage(&last.path, |bytes| {
        let half: Vec<u8> = bytes[last.offset as usize..][..last.bytes as usize / 2].to_vec();
        bytes.extend(half);
    });
    let length = sim.segments()[0].1;
    let found = verified(&sim);
    assert!(found.is_sound() && found.records == 12, "{found:?}");
    let [Finding { kind: FindingKind::TornTail, offset, .. }] = found.findings.as_slice() else { panic!("{found:?}") };
    assert_eq!(*offset, last.offset + last.bytes);
    sim.take_events();

    sim.open().expect("it opens");
    let events = sim.take_events();
    let kept = last.path.with_extension("torn");
    let torn = Event::TailTorn {
        stream: "telemetry".into(),
        segment: last.path.clone(),
        offset: last.offset + last.bytes,
        bytes: last.bytes / 2,
        kept: Some(kept.clone()),
    };
    assert_eq!(events, [torn]);
    assert_eq!(numbers(&sim), before);
    let files = sim.disk.files();
    assert!(files.contains(&(kept.clone(), last.bytes / 2)) && files.contains(&(last.path, length - last.bytes / 2)));
    sim.append(1, 10).expect("it goes on");
    sim.check();
    power_cut_and_open(&mut sim, CatalogueFound::Lost);
    sim.check();
    assert_eq!(told_of_segments(&sim), [], "told once");
    assert_eq!(verified(&sim).leftovers, [kept]);
}

#[test]
fn a_damaged_block_costs_itself_alone() {
    // In each class of bytes of a block: magic, kind, length, number, checksums; first, middle and last of the payload.
    let header: [usize; 8] = [0, 3, 4, 8, 16, 26, 57, 63];
    for at in header.into_iter().map(Some).chain([None]) {
        for reopen in [false, true] {
            let (mut sim, blocks) = ten_blocks(2);
            // The third has records 11 to 15: 11 and 12 are delivered.
            let hurt = &blocks[2];
            let offsets = match at {
                Some(at) => vec![at],
                None => vec![BLOCK_HEADER_BYTES, hurt.bytes as usize / 2, hurt.bytes as usize - 1],
            };
            for in_block in offsets {
                if reopen {
                    sim.close();
                }
                sim.disk.damage(&hurt.path, |bytes| bytes[hurt.offset as usize + in_block] ^= 0x10);
                if reopen {
                    sim.kv = Default::default();
                    sim.open().expect("it opens");
                }
                sim.take_events();
                let expected: Vec<u64> = (1..=50).filter(|number| !(11..=15).contains(number)).collect();
                assert_eq!(numbers(&sim), expected, "byte {in_block}");
                assert_eq!(numbers(&sim), expected, "byte {in_block}");
                let told = damaged(&sim.take_events());
                assert_eq!(told, [(hurt.path.clone(), hurt.offset, Some(hurt.numbers()))], "byte {in_block}");
                let stats = sim.stream().stats();
                assert_eq!((stats.dropped.damage, stats.lost.damage), (5, 3), "byte {in_block}");
                let found = verified(&sim);
                let [one] = losses(&found)[..] else { panic!("{found:?}") };
                assert_eq!((&one.file, one.offset, &one.records), (&hurt.path, hurt.offset, &Some(hurt.numbers())));
                assert_eq!((one.kind, found.records), (FindingKind::Damage, 45));
                // Undo.
                sim.disk.damage(&hurt.path, |bytes| bytes[hurt.offset as usize + in_block] ^= 0x10);
                assert!(verified(&sim).is_sound());
                if at.is_none() {
                    (sim, _) = ten_blocks(2);
                }
            }
        }
    }
}

#[test]
fn two_damaged_blocks_side_by_side_are_two() {
    let (sim, blocks) = ten_blocks(3);
    let place = blocks.windows(2).position(|pair| pair[0].path == pair[1].path).expect("two of one segment");
    for hurt in &blocks[place..place + 2] {
        sim.disk.damage(&hurt.path, |bytes| bytes[(hurt.offset + hurt.bytes) as usize - 1] ^= 1);
    }
    assert_eq!(numbers(&sim).len(), 40);
    let expected: Vec<_> =
        blocks[place..place + 2].iter().map(|b| (b.path.clone(), b.offset, Some(b.numbers()))).collect();
    assert_eq!(damaged(&sim.take_events()), expected);
    let found = verified(&sim);
    let losses: Vec<_> = losses(&found).iter().map(|f| (f.file.clone(), f.offset, f.records.clone())).collect();
    assert_eq!(losses, expected);
}

#[test]
fn a_missing_middle_segment_costs_its_records() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        let (mut sim, _) = ten_blocks(4);
        sim.close();
        let segments = sim.segments();
        let (gone, behind) = (&segments[1].0, &segments[2].0);
        let lost = first_of(gone)..=first_of(behind).previous();
        sim.disk.remove(gone).expect("there");
        sim.disk.sync_dir(&sim.stream_dir()).expect("there");
        power_cut_and_open(&mut sim, catalogue);
        sim.take_events();
        let expected: Vec<u64> = (1..=50).filter(|number| !lost.contains(&SequenceNumber(*number))).collect();
        assert_eq!(numbers(&sim), expected);
        let told = damaged(&sim.take_events());
        assert!(matches!(told.as_slice(), [(_, _, Some(records))] if *records == lost), "{told:?}");
        let undelivered = lost.end().0 - lost.start().0.max(13) + 1;
        assert_eq!(sim.stream().stats().lost.damage, undelivered);
        let found = verified(&sim);
        let [one] = losses(&found)[..] else { panic!("{found:?}") };
        assert_eq!((one.kind, one.records.clone()), (FindingKind::Gap, Some(lost.clone())));
        forget(&mut sim, &lost);
        sim.append(1, 10).expect("it goes on");
        sim.check();
    }
}

#[test]
fn a_truncated_middle_segment_costs_its_end() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        // In the middle of a block, and between two.
        for into_block in [0, 100] {
            let (mut sim, blocks) = ten_blocks(5);
            sim.close();
            let hurt = blocks.windows(2).filter(|pair| pair[0].path != pair[1].path).nth(1).expect("a third segment");
            let hurt = &hurt[0];
            sim.disk.damage(&hurt.path, |bytes| bytes.truncate((hurt.offset + into_block) as usize));
            power_cut_and_open(&mut sim, catalogue);
            sim.take_events();
            let lost = hurt.numbers();
            assert_eq!(numbers(&sim).len(), 45);
            let told = damaged(&sim.take_events());
            assert_eq!(told, [(hurt.path.clone(), hurt.offset, Some(lost.clone()))]);
            assert_eq!(sim.stream().stats().lost.damage, if lost.start().0 > 12 { 5 } else { lost.end().0 - 12 });
            let found = verified(&sim);
            let [one] = losses(&found)[..] else { panic!("{found:?}") };
            assert_eq!((&one.file, one.offset, one.records.clone()), (&hurt.path, hurt.offset, Some(lost.clone())));
            forget(&mut sim, &lost);
            sim.check();
        }
    }
}

#[test]
fn a_damaged_segment_header_costs_no_record() {
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        for segment in [0, 1] {
            for at in [0, 4, 8, 20, 44, 53, 60] {
                let (mut sim, _) = ten_blocks(6);
                sim.close();
                let path = sim.segments()[segment].0.clone();
                sim.disk.damage(&path, |bytes| bytes[at] ^= 0x01);
                // A version of 0 is as damaged as any other wrong byte.
                power_cut_and_open(&mut sim, catalogue);
                sim.check();
                let found = verified(&sim);
                let [one] = losses(&found)[..] else { panic!("byte {at}: {found:?}") };
                assert_eq!((&one.file, one.offset, &one.records), (&path, 0, &None), "byte {at}");
                assert_eq!(found.records, 50);
            }
        }
    }
}

#[test]
fn a_damaged_segment_header_is_told_once_by_whoever_reads_there() {
    for (segment, at) in [(0, 20), (1, 20), (1, 4), (3, 44)] {
        let (mut sim, _) = ten_blocks(6);
        sim.close();
        let path = sim.segments()[segment].0.clone();
        sim.disk.damage(&path, |bytes| bytes[at] ^= 0x01);
        power_cut_and_open(&mut sim, CatalogueFound::Newest);
        sim.take_events();
        for _ in 0..2 {
            assert_eq!(numbers(&sim), (1..=50).collect::<Vec<_>>());
        }
        assert_eq!(damaged(&sim.take_events()), [(path, 0, None)]);
        assert_eq!(sim.stream().stats().dropped.damage, 0);
    }
}

#[test]
fn a_segment_of_another_place_or_stream_is_set_aside() {
    let foreign = |sim: &Simulation, number: u64| sim.stream_dir().join(file_name(SequenceNumber(number)));
    for catalogue in [CatalogueFound::Newest, CatalogueFound::Lost] {
        for number in [7, 1000] {
            let mut other = Simulation::new(70);
            other.clock.advance(Duration::from_secs(77));
            other.open().expect("an empty disk");
            other.append(3, 100).expect("room");
            let from_other = bytes_of(&other, &other.segments()[0].0);
            let (mut sim, _) = ten_blocks(7);
            let own = bytes_of(&sim, &sim.segments()[1].0);
            for bytes in [own, from_other] {
                sim.close();
                let path = foreign(&sim, number);
                let file = sim.disk.create(&path).expect("a free name");
                file.write_at(0, &bytes).expect("room");
                file.sync().expect("works");
                sim.disk.sync_dir(&sim.stream_dir()).expect("works");
                let found = verified(&sim);
                if number == 7 {
                    assert!(losses(&found).iter().any(|finding| finding.file == path), "{found:?}");
                }
                power_cut_and_open(&mut sim, catalogue);
                sim.check();
                let told = damaged(&sim.take_events());
                let kept = path.with_extension("broken");
                assert!(told.contains(&(kept.clone(), 0, None)), "{told:?}");
                assert_eq!(numbers(&sim).len(), sim.acknowledged.len());
                assert!(sim.disk.files().iter().any(|(path, _)| *path == kept));
                assert!(verified(&sim).is_sound());
                assert_eq!(verified(&sim).leftovers, std::slice::from_ref(&kept));
                sim.append(1, 10).expect("it goes on");
                sim.check();
                sim.disk.remove(&kept).expect("there");
            }
        }
    }
}
