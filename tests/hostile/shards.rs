//! Conditions that only aggregates meet: shards change, and the list of them is late, wrong or not to be had.

use std::time::Duration;

use fastrand::Rng;

use super::endpoint::{Scripted, upstream};
use super::trial::{Passes, Sent, Tells, Trial};
use crate::support::upstream::{PutRecords, Shard, Shards};
use crate::support::{Reply, Upstream};

/// So often shards are split or merged in a condition. Each costs a question for the new ones, a second apart.
const CHANGES: u32 = 4;

#[track_caller]
fn tried(tells: Tells, passes: Passes, upstream: Upstream, begin: impl FnOnce(&Upstream)) {
    Trial::new(Sent::Aggregated, tells, passes).run(&mut Scripted { upstream, begin: Some(begin) });
}

/// Splits a shard, or makes one of two.
fn change(shards: &Shards, random: &mut Rng) {
    let open = shards.open().len();
    if open < 3 || random.bool() {
        shards.split(random.usize(..open));
    } else {
        shards.merge(random.usize(..open - 1));
    }
}

/// Answers as `rule` does, and changes the shards every now and then.
fn changing(upstream: &Upstream, seed: u64, mut rule: impl FnMut(&PutRecords, &mut Rng) -> Reply + Send + 'static) {
    let (shards, mut random, mut changes) = (upstream.shards(), Rng::with_seed(seed), 0);
    upstream.otherwise(move |request| {
        if changes < CHANGES && random.u8(..4) == 0 {
            changes += 1;
            change(&shards, &mut random);
        }
        rule(request, &mut random)
    });
}

#[test]
fn shards_split_and_merged_while_records_flow() {
    tried(Tells::Astray, Passes::ALL, upstream(), |upstream| changing(upstream, 11, |_, _| Reply::Accept));
}

#[test]
fn shards_merged_to_one_and_split_again() {
    let begin = |upstream: &Upstream| {
        let shards = upstream.shards();
        let mut number = 0;
        upstream.otherwise(move |_| {
            number += 1;
            match number {
                2 => (0..3).for_each(|_| shards.merge(0)),
                8 => shards.split(0),
                _ => {}
            }
            Reply::Accept
        });
    };
    tried(Tells::Astray, Passes::ALL, upstream(), begin);
}

/// Aggregates are refused and taken at random, answers get lost, and the shards change under all of it.
#[test]
fn shards_that_change_while_everything_else_fails_too() {
    let begin = |upstream: &Upstream| {
        changing(upstream, 12, |request, random| {
            let some = |random: &mut Rng| (0..request.records.len()).filter(|_| random.bool()).collect();
            match random.u8(..8) {
                0 => Reply::Throttle(some(random)),
                1 => Reply::Fail(some(random)),
                2 => Reply::AcceptThenReset,
                3 => Reply::server_error(),
                _ => Reply::Accept,
            }
        });
        let mut random = Rng::with_seed(13);
        upstream.listing(move |_| if random.bool() { Reply::server_error() } else { Reply::Accept });
    };
    tried(Tells::Astray, Passes::ALL, upstream(), begin);
}

/// What ListShards says when it says nothing of use.
#[track_caller]
fn unlisted(reply: impl Fn(&[Shard]) -> Reply + Clone + Send + 'static) {
    // From the start: there is never a map.
    let unlisted = upstream();
    unlisted.listing({
        let reply = reply.clone();
        move |shards| reply(shards)
    });
    tried(Tells::Nothing, Passes::ALL, unlisted, |upstream| upstream.shards().split(0));
    // Later: the map that there is turns out to be an old one.
    let begin = |upstream: &Upstream| {
        upstream.listing(move |shards| reply(shards));
        (0..4).rev().for_each(|shard| upstream.shards().split(shard));
    };
    tried(Tells::Astray, Passes::ALL, upstream(), begin);
}

#[test]
fn shards_that_may_not_be_listed() {
    unlisted(|_| Reply::Error { status: 400, code: "AccessDeniedException" });
}

#[test]
fn a_list_of_shards_that_fails() {
    unlisted(|_| Reply::server_error());
}

#[test]
fn a_list_of_shards_that_is_throttled() {
    unlisted(|_| Reply::Error { status: 400, code: "LimitExceededException" });
}

#[test]
fn a_list_of_shards_that_does_not_come() {
    unlisted(|_| Reply::Hang);
}

#[test]
fn a_page_instead_of_a_list_of_shards() {
    unlisted(|_| Reply::Html { status: 200 });
}

#[test]
fn a_list_of_shards_with_a_gap() {
    unlisted(|shards| {
        let open = shards.iter().filter(|shard| shard.is_open);
        Reply::Listed(open.skip(1).cloned().collect())
    });
}

#[test]
fn a_list_of_shards_that_overlap() {
    unlisted(|shards| {
        let whole = Shard::new(99, 0, u128::MAX, [None, None]);
        Reply::Listed(shards.iter().cloned().chain([whole]).collect())
    });
}

/// A list that covers everything, and has nothing to do with the shards that take records.
fn elsewhere(place: &str) -> Reply {
    let shards = Shards::new(3).all().into_iter();
    Reply::Listed(shards.map(|shard| Shard { id: format!("{}-{place}", shard.id).into(), ..shard }).collect())
}

#[test]
fn a_list_of_the_shards_of_somebody_else() {
    unlisted(|_| elsewhere("elsewhere"));
}

/// None of the lists was ever found wrong before.
#[test]
fn a_list_of_other_shards_each_time() {
    let begin = |upstream: &Upstream| {
        let mut questions = 0;
        upstream.listing(move |_| {
            questions += 1;
            elsewhere(&questions.to_string())
        });
        (0..4).rev().for_each(|shard| upstream.shards().split(shard));
    };
    tried(Tells::Astray, Passes::ALL, upstream(), begin);
}

/// The list still has the shards that were split, for a while.
#[test]
fn a_list_of_shards_that_is_late() {
    let begin = |upstream: &Upstream| {
        let (before, mut questions) = (upstream.shards().all(), 0);
        upstream.listing(move |_| {
            questions += 1;
            // Two pages each.
            if questions <= 4 { Reply::Listed(before.clone()) } else { Reply::Accept }
        });
        (0..4).rev().for_each(|shard| upstream.shards().split(shard));
    };
    tried(Tells::Astray, Passes::ALL, upstream(), begin);
}

#[test]
fn a_list_of_shards_that_comes_slowly() {
    let begin = |upstream: &Upstream| {
        upstream.listing(|_| Reply::After(Duration::from_millis(300), Box::new(Reply::Accept)));
        changing(upstream, 14, |_, _| Reply::Accept);
    };
    tried(Tells::Astray, Passes::ALL, upstream(), begin);
}
