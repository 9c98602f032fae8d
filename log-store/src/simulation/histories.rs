//! Random histories: any order of appends, checkpoints, time, ticks, clean stops, power cuts, failing disks and full disks.
//!
//! `FOREBAY_HISTORIES` sets how many (default 2,000). A failing history is shrunk and printed; a find that tells something
//! becomes a named scenario.

use std::{num::NonZeroU32, time::Duration};

use proptest::{prelude::*, test_runner::Config};

use super::{CatalogueFound, Simulation, YEAR_MS};
use crate::{
    config::{MinFree, OnFull},
    disk::sim::Fault,
    error::Error,
    hash_key::HashKey,
    segment::Codec,
    sequence::SequenceNumber,
    shard::{ShardChange, ShardMap},
};

#[derive(Debug, Clone)]
enum Op {
    Append {
        count: usize,
        bytes: usize,
    },
    /// A batch with a mark and no record; an empty value removes it.
    Mark {
        name: u8,
        bytes: usize,
    },
    /// A share of what there is, in percent.
    Checkpoint {
        percent: u64,
    },
    Advance {
        seconds: u64,
    },
    /// The wall clock is set, forward or back, by years.
    SetWall {
        years: u64,
    },
    Tick,
    Check,
    Reopen,
    /// The power goes after this many more operations of the disk.
    PowerCutSoon {
        operations: u64,
    },
    PowerCut {
        catalogue: CatalogueFound,
        /// For so many seconds the machine is off; then the wall clock is this many years old.
        reboot: Option<(u64, u64)>,
    },
    /// NTP answers.
    Synchronise,
    /// A clock that was right once is set by so much, and something vouches for it.
    Lie {
        hours: i64,
    },
    /// Something vouches for a clock that shows a time before forebay was made.
    Nonsense {
        years: u64,
    },
    /// One operation of the disk fails soon.
    FailSoon {
        operations: u64,
    },
    /// There is this much room beyond what is taken.
    Capacity {
        room: Option<u64>,
    },
    /// Somebody else has taken this much of the disk.
    Others {
        bytes: u64,
    },
    CatalogueFails,
    /// Whether the catalogue finds room from the next opening on.
    CatalogueRoom {
        is_there: bool,
    },
    /// Some shard is split at a key, merged with its neighbour, or all are recounted, while a batch waits.
    ChangeShards {
        kind: u8,
        key: u128,
    },
}

/// The limits of a history.
#[derive(Debug, Clone, Copy)]
struct Limits {
    on_full: OnFull,
    max_bytes: Option<u64>,
    min_free: MinFree,
    keep_delivered: bool,
}

fn limits() -> impl Strategy<Value = Limits> {
    let on_full = prop_oneof![Just(OnFull::Reject), Just(OnFull::DropOldest), Just(OnFull::DropDeliveredFirst)];
    let max_bytes = prop::option::weighted(0.3, Just(500_000));
    let min_free = prop_oneof![Just(MinFree::NONE), Just(MinFree { bytes: 20_000, percent: 5 })];
    (on_full, max_bytes, min_free, prop::bool::weighted(0.8)).prop_map(
        |(on_full, max_bytes, min_free, keep_delivered)| Limits { on_full, max_bytes, min_free, keep_delivered },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (1usize..20, prop_oneof![Just(10usize), Just(500), 0usize..20_000]).prop_map(|(count, bytes)| Op::Append { count, bytes }),
        2 => (0u8..4, prop_oneof![0usize..40, Just(2000usize)]).prop_map(|(name, bytes)| Op::Mark { name, bytes }),
        3 => (0u64..=100).prop_map(|percent| Op::Checkpoint { percent }),
        3 => (1u64..700).prop_map(|seconds| Op::Advance { seconds }),
        1 => (0u64..100).prop_map(|years| Op::SetWall { years }),
        4 => Just(Op::Tick),
        3 => Just(Op::Check),
        1 => Just(Op::Reopen),
        2 => (1u64..30).prop_map(|operations| Op::PowerCutSoon { operations }),
        3 => (catalogue(), prop::option::of((0u64..2000, 0u64..100))).prop_map(|(catalogue, reboot)| Op::PowerCut { catalogue, reboot }),
        3 => Just(Op::Synchronise),
        1 => prop_oneof![-23i64..0, 1..50 * 8766i64].prop_map(|hours| Op::Lie { hours }),
        1 => (0u64..50).prop_map(|years| Op::Nonsense { years }),
        1 => (1u64..10).prop_map(|operations| Op::FailSoon { operations }),
        1 => prop::option::of(0u64..100_000).prop_map(|room| Op::Capacity { room }),
        1 => (0u64..100_000).prop_map(|bytes| Op::Others { bytes }),
        1 => Just(Op::CatalogueFails),
        1 => any::<bool>().prop_map(|is_there| Op::CatalogueRoom { is_there }),
        1 => (0u8..3, any::<u128>()).prop_map(|(kind, key)| Op::ChangeShards { kind, key }),
    ]
}

pub(super) fn catalogue() -> impl Strategy<Value = CatalogueFound> {
    prop_oneof![
        Just(CatalogueFound::Newest),
        (0usize..1000).prop_map(CatalogueFound::Stale),
        Just(CatalogueFound::Lost),
    ]
}

/// How many histories to run.
pub(super) fn histories() -> u32 {
    match std::env::var("FOREBAY_HISTORIES") {
        Ok(count) => count.parse().expect("FOREBAY_HISTORIES is a number"),
        Err(_) => 2000,
    }
}

fn run(seed: u64, limits: Limits, compression: Codec, ops: &[Op]) {
    let mut sim = Simulation::new(seed);
    sim.with_marks = true;
    sim.stream_config.compression = compression;
    sim.stream_config.on_full = limits.on_full;
    sim.stream_config.keep_delivered = limits.keep_delivered;
    sim.store_config.max_bytes = limits.max_bytes;
    sim.store_config.min_free = limits.min_free;
    sim.stream_config.quota = 600_000;
    sim.open().expect("an empty disk");
    for op in ops {
        step(&mut sim, op);
    }
    // Whatever happened, after a power cut the log opens, holds what it must, and takes records again.
    sim.disk.set_capacity(None);
    sim.power_cut(CatalogueFound::Newest);
    sim.open().expect("the log opens");
    sim.check();
    sim.save_checkpoint(sim.newest());
    sim.append(1, 10).expect("a fresh record is taken");
    sim.check();
}

/// The disk may be full while the log opens.
fn start(sim: &mut Simulation) {
    if sim.open().is_err() {
        sim.disk.set_capacity(None);
        sim.power_cut(CatalogueFound::Newest);
        sim.open().expect("the log opens once there is room");
    }
    sim.check();
}

fn step(sim: &mut Simulation, op: &Op) {
    match *op {
        Op::Append { count, bytes } => match sim.append(count, bytes).map_err(|refused| refused.error) {
            Ok(_) | Err(Error::Full { .. }) => {}
            // The power went or a call failed: in doubt until it was looked at after a new start.
            Err(_) => {
                sim.power_cut(CatalogueFound::Newest);
                start(sim);
            }
        },
        Op::Mark { name, bytes } => {
            let value = vec![b'a' + name; bytes];
            match sim.set_mark(&format!("alone {name}"), &value).map_err(|refused| refused.error) {
                Ok(()) | Err(Error::Full { .. }) => {}
                Err(_) => {
                    sim.power_cut(CatalogueFound::Newest);
                    start(sim);
                }
            }
        }
        Op::Checkpoint { percent } => sim.save_checkpoint(SequenceNumber(sim.newest().0 * percent / 100)),
        Op::Advance { seconds } => sim.clock.advance(Duration::from_secs(seconds)),
        Op::SetWall { years } => sim.clock.set_wall(crate::clock::Timestamp(years * YEAR_MS)),
        Op::Synchronise => sim.clock.synchronise(),
        Op::Lie { hours } => sim.lie(hours),
        Op::Nonsense { years } => sim.claim(crate::clock::Timestamp(years * YEAR_MS)),
        Op::Tick => sim.tick(),
        // What the disk does not give cannot be read either.
        Op::Check if sim.disk.is_off() => {}
        Op::Check => sim.check_running(),
        Op::Reopen => {
            sim.close();
            if sim.disk.is_off() {
                sim.power_cut(CatalogueFound::Newest);
            }
            sim.disk.set_fault(None);
            start(sim);
        }
        Op::PowerCutSoon { operations } => {
            sim.disk.set_fault(Some(Fault::PowerCut { at: sim.disk.operations() + operations }));
        }
        Op::PowerCut { catalogue, reboot } => {
            sim.power_cut(catalogue);
            if let Some((off, years)) = reboot {
                sim.clock.reboot(Duration::from_secs(off), crate::clock::Timestamp(years * YEAR_MS));
            }
            start(sim);
        }
        Op::FailSoon { operations } => {
            sim.disk.set_fault(Some(Fault::Fails { at: sim.disk.operations() + operations }))
        }
        Op::Others { bytes } => sim.disk.set_others(bytes),
        Op::Capacity { room } => sim.disk.set_capacity(room.map(|room| sim.disk.used() + room)),
        Op::CatalogueFails => sim.fail_catalogue(),
        Op::CatalogueRoom { is_there } => sim.has_room_for_catalogue = is_there,
        Op::ChangeShards { kind, key } => {
            let choose = |shards: &ShardMap| {
                let open = shards.open();
                let at = open.iter().rposition(|shard| shard.first.0 <= key).expect("covered");
                match kind {
                    0 => ShardChange::Split { shard: open[at].index, at: HashKey(key) },
                    1 => ShardChange::Merge { shards: [open[at].index, open[(at + 1) % open.len()].index] },
                    _ => ShardChange::Count(NonZeroU32::MIN.saturating_add((key % 5) as u32)),
                }
            };
            // A failed change shows in the append behind it, or in the next look at the log.
            let appended = sim.append_across(3, 10, |sim| _ = sim.change_shards(choose));
            if !matches!(appended.map_err(|refused| refused.error), Ok(_) | Err(Error::Full { .. })) {
                // The disk may be too full for a new segment.
                sim.disk.set_capacity(None);
                sim.power_cut(CatalogueFound::Newest);
                sim.open().expect("the log opens");
                sim.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: histories(), failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_history_keeps_what_was_acknowledged(
        seed: u64,
        limits in limits(),
        compression in prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd)],
        ops in prop::collection::vec(op(), 1..60),
    ) {
        run(seed, limits, compression, &ops);
    }
}

/// Found by a random history: its reader waited for records that had been dropped.
#[test]
fn a_closed_shard_ends_though_only_a_file_that_could_not_be_removed_is_left_of_it() {
    let limits =
        Limits { on_full: OnFull::DropOldest, max_bytes: None, min_free: MinFree::NONE, keep_delivered: false };
    let ops = [
        Op::Checkpoint { percent: 0 },
        Op::Append { count: 4, bytes: 14_242 },
        Op::Append { count: 8, bytes: 500 },
        Op::Capacity { room: Some(849) },
        Op::ChangeShards { kind: 0, key: 1 },
        Op::FailSoon { operations: 7 },
        Op::CatalogueFails,
        Op::Append { count: 6, bytes: 10_147 },
    ];
    run(9_753_371_542_000_136_390, limits, Codec::None, &ops);
}

/// Found by a random history: the log and the catalogue had numbered the boots differently, and one of them was forgotten.
#[test]
fn a_boot_that_two_records_number_differently_keeps_its_time() {
    let limits = Limits { on_full: OnFull::Reject, max_bytes: None, min_free: MinFree::NONE, keep_delivered: false };
    let cut = |catalogue, reboot| Op::PowerCut { catalogue, reboot };
    let ops = [
        cut(CatalogueFound::Newest, Some((0, 0))),
        cut(CatalogueFound::Newest, Some((0, 0))),
        Op::Synchronise,
        Op::Append { count: 1, bytes: 10 },
        cut(CatalogueFound::Lost, None),
        cut(CatalogueFound::Stale(20), Some((0, 0))),
        cut(CatalogueFound::Stale(0), Some((0, 0))),
    ];
    run(0, limits, Codec::None, &ops);
    let ops = [
        Op::Append { count: 1, bytes: 10 },
        Op::Append { count: 1, bytes: 10 },
        cut(CatalogueFound::Newest, Some((0, 0))),
        Op::Append { count: 1, bytes: 10 },
        cut(CatalogueFound::Newest, Some((0, 0))),
        Op::Synchronise,
        cut(CatalogueFound::Lost, None),
        Op::Append { count: 1, bytes: 10 },
        cut(CatalogueFound::Stale(4), Some((0, 0))),
        cut(CatalogueFound::Stale(104), Some((0, 0))),
    ];
    run(0, limits, Codec::None, &ops);
}

/// Found by a random history: what expired for the quota was not seen to be room under the limit of the directory.
#[test]
fn what_has_expired_is_room_for_a_record_that_fits_neither_the_quota_nor_the_directory() {
    let mut sim = Simulation::new(0);
    sim.stream_config.on_full = OnFull::Reject;
    (sim.store_config.max_bytes, sim.stream_config.quota) = (Some(500_000), 600_000);
    sim.open().expect("an empty disk");
    while sim.append(1, 10_000).is_ok() {}
    sim.save_checkpoint(sim.newest());
    sim.clock.advance(2 * sim.stream_config.retention);
    sim.append(1, 10_000).expect("everything else is past its retention");
    sim.check();
}

/// Found by a random history: of two changes that failed, any may be what the next opening finds.
#[test]
fn two_changes_of_shards_that_failed_leave_one_of_them_or_none() {
    let limits = Limits { on_full: OnFull::Reject, max_bytes: None, min_free: MinFree::NONE, keep_delivered: false };
    let append = || Op::Append { count: 1, bytes: 10 };
    let ops = [
        Op::Others { bytes: 92 },
        append(),
        Op::Advance { seconds: 601 },
        append(),
        Op::Checkpoint { percent: 50 },
        Op::Tick,
        Op::Capacity { room: Some(175) },
        Op::Synchronise,
        Op::FailSoon { operations: 4 },
        Op::ChangeShards { kind: 0, key: 1 },
        append(),
        append(),
        Op::Synchronise,
        Op::ChangeShards { kind: 0, key: 2 },
        append(),
        append(),
    ];
    run(0, limits, Codec::None, &ops);
}

/// Found by a random history: the catalogue was lost, and the file of the dropped segment had come back.
#[test]
fn a_record_of_a_shard_that_is_gone_does_not_come_back() {
    let limits = Limits { on_full: OnFull::DropOldest, max_bytes: None, min_free: MinFree::NONE, keep_delivered: true };
    let append = || Op::Append { count: 1, bytes: 10 };
    let ops = [
        append(),
        Op::Advance { seconds: 601 },
        append(),
        Op::ChangeShards { kind: 0, key: 1 },
        Op::ChangeShards { kind: 0, key: 2 },
        append(),
        Op::Capacity { room: Some(51_489) },
        append(),
        Op::PowerCut { catalogue: CatalogueFound::Newest, reboot: None },
        append(),
        Op::FailSoon { operations: 7 },
        Op::Append { count: 8, bytes: 14_968 },
        Op::ChangeShards { kind: 0, key: 3 },
        Op::PowerCut { catalogue: CatalogueFound::Lost, reboot: None },
        Op::Append { count: 1, bytes: 7_768 },
    ];
    run(1_424_210_494_819_270_851, limits, Codec::Lz4, &ops);
}

/// Found by a random history: the newest segment had only its head left, and those before it were dropped.
#[test]
fn marks_outlive_the_segments_that_a_bare_one_relies_on() {
    let limits =
        Limits { on_full: OnFull::DropOldest, max_bytes: None, min_free: MinFree::NONE, keep_delivered: false };
    let append = |count, bytes| Op::Append { count, bytes };
    let ops = [
        Op::Capacity { room: Some(4055) },
        Op::Mark { name: 0, bytes: 2000 },
        Op::PowerCut { catalogue: CatalogueFound::Newest, reboot: None },
        Op::FailSoon { operations: 5 },
        append(1, 10),
        append(10, 11_645),
        Op::Others { bytes: 1938 },
        append(1, 10),
    ];
    run(662_238_027_140_571_929, limits, Codec::Lz4, &ops);
    let limits = Limits { min_free: MinFree { bytes: 20_000, percent: 5 }, ..limits };
    let ops = [
        append(1, 10),
        Op::Others { bytes: 54_247 },
        Op::PowerCut { catalogue: CatalogueFound::Newest, reboot: None },
        Op::Capacity { room: Some(54_435) },
        Op::PowerCutSoon { operations: 2 },
        append(1, 10),
        append(1, 10),
        append(1, 500),
        Op::Mark { name: 0, bytes: 2000 },
    ];
    run(17_579_024_058_360_199_633, limits, Codec::None, &ops);
}
