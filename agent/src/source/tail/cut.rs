//! Cuts what was read of a file into records: lines, or groups of lines that begin with one that matches. Pure.
//!
//! A record's data is a stretch of the file as it stands there, without the end of its last line (`\n` or `\r\n`).

use std::ops::Range;

use memchr::{memchr, memchr_iter};
use regex::bytes::Regex;

/// What makes a record.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// A line that is longer is no record; a group of lines ends before it becomes longer.
    pub(super) max_record: usize,
    /// Whether a line of nothing is a record.
    pub(super) keep_empty: bool,
    /// Whether lines are put together.
    pub(super) group: Option<Group>,
}

/// How lines are put together.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// Matches the first line of a record.
    pub(super) start: Regex,
    /// A record ends after so many.
    pub(super) max_lines: usize,
}

/// What may still come behind the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Anything.
    More,
    /// No further line of the last group.
    NoLine,
    /// Nothing: an unfinished line is a record too.
    Nothing,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where its data are.
    pub(super) data: Range<usize>,
    /// Where the next one begins.
    pub(super) next: usize,
}

/// What was made of the bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) pieces: Vec<Piece>,
    /// So many bytes are done with.
    pub(super) done: usize,
    /// What follows is a line that has no end yet, and is longer than a record may be.
    pub(super) endless: bool,
}

/// Cuts `bytes`, which begin at the beginning of a record.
pub(super) fn cut(bytes: &[u8], rules: &Rules, behind: Behind) -> Cut {
    let mut cut = Cut::default();
    let mut pending = None;
    let mut start = 0;
    for end in memchr_iter(b'\n', bytes) {
        line(
            bytes,
            Piece { data: start..without_return(bytes, start, end), next: end + 1 },
            rules,
            &mut pending,
            &mut cut,
        );
        start = end + 1;
    }
    let rest = bytes.len() - start;
    // A line may end in `\r\n`, of which the first may be there already.
    cut.endless = rest > rules.max_record + 1 && behind != Behind::Nothing;
    if behind == Behind::Nothing && rest > 0 {
        line(bytes, Piece { data: start..bytes.len(), next: bytes.len() }, rules, &mut pending, &mut cut);
    }
    if behind != Behind::More || cut.endless {
        flush(&mut pending, &mut cut);
    }
    cut
}

/// Where the first line ends, behind its `\n`.
pub(super) fn end_of_line(bytes: &[u8]) -> Option<usize> {
    memchr(b'\n', bytes).map(|at| at + 1)
}

fn line(bytes: &[u8], line: Piece, rules: &Rules, pending: &mut Option<(Piece, usize)>, cut: &mut Cut) {
    let Some(group) = &rules.group else {
        cut.done = line.next;
        if rules.keep_empty || !line.data.is_empty() {
            cut.pieces.push(line);
        }
        return;
    };
    let fits = |(so_far, lines): &(Piece, usize)| {
        *lines < group.max_lines && line.data.end - so_far.data.start <= rules.max_record
    };
    if pending.as_ref().is_some_and(|pending| group.start.is_match(&bytes[line.data.clone()]) || !fits(pending)) {
        flush(pending, cut);
    }
    match pending {
        Some((so_far, lines)) => {
            (so_far.data.end, so_far.next) = (line.data.end, line.next);
            *lines += 1;
        }
        None if line.data.is_empty() && !rules.keep_empty => cut.done = line.next,
        None => *pending = Some((line, 1)),
    }
}

fn flush(pending: &mut Option<(Piece, usize)>, cut: &mut Cut) {
    if let Some((piece, _)) = pending.take() {
        cut.done = piece.next;
        cut.pieces.push(piece);
    }
}

fn without_return(bytes: &[u8], start: usize, end: usize) -> usize {
    if end > start && bytes[end - 1] == b'\r' { end - 1 } else { end }
}

/// For fuzzing: the first bytes choose how the file that follows is cut, and in which steps it is read. Its records do not
/// depend on these.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    static START: std::sync::LazyLock<Regex> = std::sync::LazyLock::new(|| Regex::new("^[0-9]").expect("a pattern"));
    let Some((&[how, step], file)) = bytes.split_first_chunk::<2>() else { return };
    let group = (how & 1 != 0).then(|| Group { start: START.clone(), max_lines: 3 });
    let rules = Rules { max_record: file.len(), keep_empty: how & 2 != 0, group };
    let records = |bytes: &[u8], behind| {
        let cut = cut(bytes, &rules, behind);
        let records: Vec<_> = cut.pieces.iter().map(|piece| bytes[piece.data.clone()].to_vec()).collect();
        (records, cut.done)
    };
    let (whole, done) = records(file, Behind::Nothing);
    assert_eq!(done, file.len());
    let (mut pieces, mut at, mut there) = (Vec::new(), 0, 0);
    while there < file.len() {
        there = (there + usize::from(step) + 1).min(file.len());
        let (records, done) = records(&file[at..there], Behind::More);
        pieces.extend(records);
        at += done;
    }
    pieces.extend(records(&file[at..], Behind::Nothing).0);
    assert_eq!(pieces, whole);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(start: Option<&str>) -> Rules {
        let group = start.map(|start| Group { start: Regex::new(start).expect("a pattern"), max_lines: 3 });
        Rules { max_record: 20, keep_empty: false, group }
    }

    fn records(bytes: &[u8], rules: &Rules, behind: Behind) -> (Vec<String>, usize) {
        let cut = cut(bytes, rules, behind);
        let text = |piece: &Piece| String::from_utf8_lossy(&bytes[piece.data.clone()]).into_owned();
        (cut.pieces.iter().map(text).collect(), cut.done)
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn lines_are_records_without_their_ends() {
        let bytes = b"one\ntwo\r\n\n\r\nthr\xffee\nfou";
        assert_eq!(records(bytes, &rules(None), Behind::More), (strings(&["one", "two", "thr\u{fffd}ee"]), 19));
        assert_eq!(records(bytes, &rules(None), Behind::NoLine).1, 19);
        assert_eq!(
            records(bytes, &rules(None), Behind::Nothing),
            (strings(&["one", "two", "thr\u{fffd}ee", "fou"]), 22)
        );
        let keep = Rules { keep_empty: true, ..rules(None) };
        assert_eq!(records(b"a\n\nb\n", &keep, Behind::More), (strings(&["a", "", "b"]), 5));
    }

    #[test]
    fn a_group_lasts_until_the_next_one_begins() {
        let rules = rules(Some("^[0-9]"));
        let bytes = b"lost\n1 a\n at b\n2 c\r\n\n3";
        assert_eq!(records(bytes, &rules, Behind::More), (strings(&["lost", "1 a\n at b"]), 15));
        assert_eq!(records(bytes, &rules, Behind::NoLine), (strings(&["lost", "1 a\n at b", "2 c\r\n"]), 21));
        assert_eq!(records(bytes, &rules, Behind::Nothing).0[3], "3");
        // No longer than it may be, in lines and in bytes.
        assert_eq!(records(b"1\n a\n b\n c\n2\n", &rules, Behind::More).0, ["1\n a\n b", " c"]);
        assert_eq!(records(b"1 34567890\n 345678901\n2\n", &rules, Behind::More).0, ["1 34567890", " 345678901"]);
    }

    #[test]
    fn a_line_without_end_is_noticed_and_what_stands_before_it_goes() {
        let bytes = [b"1 a\n b\n".as_slice(), &[b'x'; 22]].concat();
        for start in [None, Some("^[0-9]")] {
            let cut = cut(&bytes, &rules(start), Behind::More);
            assert!(cut.endless && cut.done == 7, "{cut:?}");
        }
        assert!(!cut(&bytes[..bytes.len() - 1], &rules(None), Behind::More).endless);
    }

    proptest! {
        /// In whatever pieces a file is read, its records are the same.
        #[test]
        fn records_do_not_depend_on_how_much_is_there(
            bytes in "[a1\n\r]{0,80}", steps in proptest::collection::vec(1usize..30, 1..20), grouped: bool, keep_empty: bool,
        ) {
            let rules = Rules { max_record: 200, keep_empty, ..rules(grouped.then_some("^1")) };
            let bytes = bytes.as_bytes();
            let (whole, done) = records(bytes, &rules, Behind::Nothing);
            prop_assert_eq!(done, bytes.len());
            let (mut pieces, mut at, mut there) = (Vec::new(), 0, 0);
            for step in steps {
                there = (there + step).min(bytes.len());
                let (records, done) = records(&bytes[at..there], &rules, Behind::More);
                pieces.extend(records);
                at += done;
            }
            pieces.extend(records(&bytes[at..], &rules, Behind::Nothing).0);
            prop_assert_eq!(pieces, whole);
        }
    }
}
