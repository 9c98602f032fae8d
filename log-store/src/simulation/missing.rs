//! Segments that are missing at an end of the log: what the catalogue knows of them is told as lost, once, and no number is
//! given again.

use super::{
    CatalogueFound, Simulation,
    damage::told,
    read_all,
    scenarios::{BlockPlace, numbers, ten_blocks},
};
use crate::disk::Disk as _;

fn remove(sim: &Simulation, segments: impl IntoIterator<Item = usize>) {
    let files = sim.segments();
    for at in segments {
        sim.disk.remove(&files[at].0).expect("there");
    }
    sim.disk.sync_dir(&sim.stream_dir()).expect("works");
}

/// Opens it, and again after a kill and after a clean stop: the same records are lost, and told the first time only.
fn judge(sim: &mut Simulation, catalogue: CatalogueFound, lost: std::ops::RangeInclusive<u64>) {
    sim.acknowledged.retain(|number, _| !lost.contains(&number.0));
    sim.take_events();
    sim.power_cut(catalogue);
    for opening in 0..3 {
        sim.open().expect("it opens");
        let there: Vec<u64> = (1..=50).filter(|number| !lost.contains(number)).collect();
        assert_eq!(numbers(sim).into_iter().filter(|number| *number <= 50).collect::<Vec<_>>(), there);
        let expected: Vec<u64> = if opening == 0 { lost.clone().collect() } else { Vec::new() };
        assert_eq!(told(sim), expected, "opening {opening}");
        let stats = sim.stream().stats();
        assert_eq!(stats.dropped.damage, lost.clone().count() as u64);
        // The consumer was done with the first twelve.
        assert_eq!(stats.lost.damage, lost.clone().filter(|number| *number > 12).count() as u64);
        let appended = sim.append(1, 10).expect("room");
        assert!(appended.runs[0].first.0 > 50, "a number is given again");
        sim.tick();
        if opening == 1 {
            sim.close();
        }
        sim.power_cut(CatalogueFound::Newest);
    }
}

#[test]
fn what_is_missing_at_the_end_after_a_clean_stop_is_told_and_its_numbers_are_not_given_again() {
    let flip = |sim: &Simulation, block: &BlockPlace| {
        sim.disk.damage(&block.path, |bytes| bytes[block.offset as usize + 1000] ^= 1);
    };
    type Hit<'a> = (&'a str, u64, &'a dyn Fn(&Simulation, &[BlockPlace]));
    let hits: [Hit<'_>; 6] = [
        ("the newest file is gone", 46, &|sim, _| remove(sim, [3])),
        ("the two newest are gone", 31, &|sim, _| remove(sim, [2, 3])),
        ("all are gone", 1, &|sim, _| remove(sim, 0..4)),
        ("the newest is zeroed", 46, &|sim, blocks| sim.disk.damage(&blocks[9].path, |bytes| bytes.fill(0))),
        ("the newest is empty", 46, &|sim, blocks| sim.disk.damage(&blocks[9].path, Vec::clear)),
        ("a bit is flipped in the newest block", 46, &|sim, blocks| flip(sim, &blocks[9])),
    ];
    for (what, from, hit) in hits {
        println!("{what}");
        let (mut sim, _) = ten_blocks(120);
        // Stopped twice: the second time no control block has to be written.
        sim.close();
        sim.open().expect("it opens");
        let blocks = super::scenarios::blocks(&sim);
        sim.close();
        // The newest block is the last thing in the log.
        let last = blocks.last().expect("ten");
        sim.disk.damage(&last.path, |bytes| bytes.truncate((last.offset + last.bytes) as usize));
        hit(&sim, &blocks);
        judge(&mut sim, CatalogueFound::Newest, from..=50);
    }
}

#[test]
fn what_is_missing_at_the_end_after_a_kill_is_told_as_far_as_the_catalogue_knows() {
    let (mut sim, _) = ten_blocks(121);
    // Sealed segments prove what was there, and of the newest block its index entry proves the first record.
    remove(&sim, [2, 3]);
    sim.acknowledged.retain(|number, _| number.0 < 31);
    sim.take_events();
    sim.power_cut(CatalogueFound::Newest);
    sim.open().expect("it opens");
    assert_eq!(told(&sim), (31..=46).collect::<Vec<_>>());
    assert_eq!(numbers(&sim), (1..=30).collect::<Vec<_>>());
    assert_eq!(sim.append(1, 10).expect("room").runs[0].first.0, 47);
    sim.check();
}

#[test]
fn missing_oldest_segments_of_which_the_catalogue_knows_are_told_once() {
    for (gone, last) in [(0..1, 15), (0..2, 30), (0..3, 45)] {
        for stopped in [false, true] {
            let (mut sim, _) = ten_blocks(122);
            if stopped {
                sim.close();
            }
            remove(&sim, gone.clone());
            judge(&mut sim, CatalogueFound::Newest, 1..=last);
        }
    }
}

#[test]
fn what_was_dropped_by_right_is_no_damage_whatever_the_catalogue_remembers() {
    for stale in 0..20 {
        let mut sim = Simulation::new(123 + stale as u64);
        sim.stream_config.quota = 600_000;
        sim.open().expect("an empty disk");
        for _ in 0..60 {
            sim.append(5, 4000).expect("what is delivered makes room");
            sim.save_checkpoint(sim.newest());
        }
        let dropped = sim.stream().stats().dropped;
        assert!(dropped.quota > 0);
        sim.take_events();
        sim.power_cut(CatalogueFound::Stale(stale));
        sim.open().expect("it opens");
        read_all(sim.stream(), 7);
        assert_eq!(told(&sim), [0; 0]);
        assert_eq!(sim.stream().stats().dropped, dropped, "counts of what was dropped survive a kill");
    }
}
