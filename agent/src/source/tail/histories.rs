//! Random histories of a log file, in a real folder, against what was written: whatever is rotated, truncated, compressed and
//! killed in between, every line is stored once, and in order where there is an order.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    Config, Settings,
    tailer::{Item, Tailer},
    tell::Teller,
    tracked::Record,
};
use crate::{
    config::Problems,
    source::{Config as _, SourceStats},
};

/// So many rotated files are kept.
const KEPT: usize = 4;

#[derive(Debug, Clone)]
enum Event {
    /// The program writes lines; the last one without its end, which the next write brings.
    Write {
        lines: u8,
        half: bool,
    },
    /// To the file that was renamed last, as a program does that was not told yet.
    WriteLate(u8),
    /// The agent looks; does it look for files, too? What it found is stored.
    Look {
        scan: bool,
    },
    /// The agent is killed while it stores what it found, after so many records.
    KillAfter(u8),
    /// logrotate: `create`.
    Rename,
    /// logrotate: `copytruncate`, with a moment in between.
    Copy,
    Truncate,
    /// logrotate: `compress`, with a moment in between.
    Compress,
    Compressed,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1u8..5, any::<bool>()).prop_map(|(lines, half)| Event::Write { lines, half }),
        1 => (1u8..3).prop_map(Event::WriteLate),
        5 => any::<bool>().prop_map(|scan| Event::Look { scan }),
        3 => (0u8..6).prop_map(Event::KillAfter),
        3 => Just(Event::Rename),
        2 => Just(Event::Copy),
        2 => Just(Event::Truncate),
        2 => Just(Event::Compress),
        2 => Just(Event::Compressed),
    ]
}

struct World {
    dir: tempfile::TempDir,
    settings: Settings,
    stats: Arc<SourceStats>,
    tailer: Tailer,
    /// What the log has: lines and marks.
    stored: Vec<usize>,
    marks: BTreeMap<String, Vec<u8>>,
    now: Instant,
    /// The number of the next line.
    next: usize,
    half: bool,
    /// Whether a line of the file as it is now is stored, without which its name is all that there is.
    known: bool,
    copied: bool,
    compressing: Option<PathBuf>,
    /// Whether the order of the files is the order of their lines.
    ordered: bool,
    patterns_match_rotated: bool,
}

impl World {
    fn new(patterns_match_rotated: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let pattern = dir.path().join(if patterns_match_rotated { "app.log*" } else { "app.log" });
        let config = Config { paths: Some(vec![pattern.display().to_string()]), max_open: 2, ..Config::default() };
        let settings = config.validate("s", &mut Problems::default()).expect("right");
        let (stats, now) = (Arc::default(), Instant::now());
        let tailer = tailer(&settings, &stats, &BTreeMap::new(), now);
        Self {
            dir,
            settings,
            stats,
            tailer,
            stored: Vec::new(),
            marks: BTreeMap::new(),
            now,
            next: 0,
            half: false,
            known: false,
            copied: false,
            compressing: None,
            ordered: !patterns_match_rotated,
            patterns_match_rotated,
        }
    }

    fn path(&self, number: usize, packed: bool) -> PathBuf {
        let name = match number {
            0 => "app.log".to_owned(),
            number => format!("app.log.{number}"),
        };
        self.dir.path().join(if packed { name + ".gz" } else { name })
    }

    fn write(&mut self, file: usize, lines: usize, half: bool) {
        let mut text = String::new();
        for _ in 0..lines {
            if !std::mem::take(&mut self.half) {
                text += &self.line();
            }
            text += "\n";
            self.next += 1;
        }
        if half {
            text += &self.line();
            self.half = true;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(file, false)).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// Long enough that one is enough to know a file again.
    fn line(&self) -> String {
        format!("{:06} {}", self.next, "x".repeat(1100))
    }

    /// Looks, and stores up to so many records of what was found.
    fn look(&mut self, scan: bool, mut records: usize) {
        self.now += Duration::from_secs(1);
        if scan {
            self.tailer.scan(self.now);
        }
        for round in 0.. {
            assert!(round < 1000, "the agent never comes to an end");
            let step = self.tailer.step(self.now);
            for item in step.items {
                match item {
                    Item::Mark(name, value) => self.set_mark(&name, value),
                    Item::Oversize { bytes, .. } => panic!("no line has {bytes} bytes"),
                    Item::Chunk(chunk) => {
                        for Record { payload: data, next, .. } in chunk.records() {
                            if records == 0 {
                                return;
                            }
                            records -= 1;
                            let text = std::str::from_utf8(data).expect("text");
                            assert_eq!(text.len(), 1107, "{text}");
                            self.stored.push(text[..6].parse().expect("a number"));
                            self.set_mark(&chunk.mark_name, chunk.mark_at(Some(next)));
                        }
                        self.set_mark(&chunk.mark_name, chunk.mark_at(None));
                    }
                }
            }
            if step.rescan {
                self.tailer.scan(self.now);
            } else if !step.more {
                self.known = true;
                return;
            }
        }
    }

    fn set_mark(&mut self, name: &str, value: Vec<u8>) {
        if value.is_empty() {
            self.marks.remove(name);
        } else {
            self.marks.insert(name.to_owned(), value);
        }
    }

    /// Of a file of which no line was read, its name is all that is known.
    fn is_seen(&self) -> bool {
        self.has_line() && (self.known || self.patterns_match_rotated)
    }

    fn has_line(&self) -> bool {
        fs::read(self.path(0, false)).is_ok_and(|bytes| bytes.contains(&b'\n'))
    }

    fn shift(&mut self) {
        for number in (1..KEPT).rev() {
            for packed in [false, true] {
                // Most of them are not there.
                let _ = fs::rename(self.path(number, packed), self.path(number + 1, packed));
            }
        }
    }

    fn happen(&mut self, event: &Event) {
        if self.copied && !matches!(event, Event::Look { .. } | Event::KillAfter(_) | Event::Truncate) {
            // What is written now is lost by copytruncate itself.
            return;
        }
        // The last one would be deleted.
        let has_room =
            !self.path(KEPT, false).exists() && !self.path(KEPT, true).exists() && self.compressing.is_none();
        match event {
            Event::Write { lines, half } => {
                self.known &= self.path(0, false).exists();
                self.write(0, usize::from(*lines), *half);
            }
            Event::WriteLate(lines) if self.path(1, false).exists() && !self.half && self.compressing.is_none() => {
                self.ordered = false;
                self.write(1, usize::from(*lines), false);
            }
            Event::Look { scan } => {
                // Whoever was not told of the file's lines does not know it.
                let known = self.known;
                self.look(*scan, usize::MAX);
                self.known = known || (*scan && self.has_line());
            }
            Event::KillAfter(records) => {
                let known = self.known;
                self.look(true, usize::from(*records));
                self.known = known;
                self.tailer = tailer(&self.settings, &self.stats, &self.marks, self.now);
            }
            Event::Rename if has_room && !self.half && self.is_seen() => {
                self.shift();
                fs::rename(self.path(0, false), self.path(1, false)).expect("it is there");
                File::create(self.path(0, false)).expect("a file");
                self.known = false;
            }
            Event::Copy if has_room && !self.half && self.is_seen() => {
                self.shift();
                fs::copy(self.path(0, false), self.path(1, false)).expect("it is there");
                self.copied = true;
            }
            Event::Truncate if self.copied => {
                File::create(self.path(0, false)).expect("a file");
                (self.copied, self.known) = (false, false);
            }
            Event::Compress if self.compressing.is_none() => {
                let Some(number) = (1..=KEPT).rev().find(|number| self.path(*number, false).exists()) else { return };
                let packed = gzip(&self.path(number, false));
                fs::write(self.path(number, true), &packed[..packed.len() / 2]).expect("written");
                self.compressing = Some(self.path(number, false));
            }
            Event::Compressed => {
                let Some(path) = self.compressing.take() else { return };
                let mut packed = path.clone().into_os_string();
                packed.push(".gz");
                let mut file = OpenOptions::new().write(true).open(packed).expect("it is there");
                file.write_all(&gzip(&path)).expect("written");
                fs::remove_file(path).expect("it is there");
            }
            _ => {}
        }
    }

    /// Everything that is under way comes to its end.
    fn end(&mut self) {
        self.happen(&Event::Truncate);
        self.happen(&Event::Compressed);
        if self.half {
            self.write(0, 1, false);
        }
        for _ in 0..4 {
            self.look(true, usize::MAX);
        }
    }
}

fn tailer(settings: &Settings, stats: &Arc<SourceStats>, marks: &BTreeMap<String, Vec<u8>>, now: Instant) -> Tailer {
    let marks = marks.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Tailer::new(settings.clone(), 1 << 20, Teller::new("logs".into(), Arc::clone(stats)), marks, now)
}

fn gzip(path: &PathBuf) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&fs::read(path).expect("it is there")).expect("memory");
    packer.finish().expect("memory")
}

fn judge(events: &[Event], patterns_match_rotated: bool) {
    let mut world = World::new(patterns_match_rotated);
    world.look(true, usize::MAX);
    for event in events {
        world.happen(event);
    }
    world.end();
    let mut stored = world.stored.clone();
    if !world.ordered {
        stored.sort_unstable();
    }
    let refusals = world.stats.refusals();
    assert_eq!(stored, (0..world.next).collect::<Vec<_>>(), "{refusals:?} {events:#?}");
    assert!(refusals.is_empty(), "{refusals:?} {events:#?}");
}

/// The third one is only begun when the second has had its first turn, and so in another scan than that.
#[test]
fn files_found_at_once_are_read_one_after_the_other_however_long_they_are() {
    let mut world = World::new(true);
    for (number, lines) in [(2, 3000), (1, 3000), (0, 10)] {
        world.write(number, lines, false);
    }
    world.look(true, usize::MAX);
    assert_eq!(world.stored.len(), 6010);
    assert!(
        world.stored.is_sorted(),
        "the first wrong one behind {:?}",
        world.stored.windows(2).find(|pair| pair[0] > pair[1])
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_stored_once(events in proptest::collection::vec(event(), 1..40), patterns_match_rotated: bool) {
        judge(&events, patterns_match_rotated);
    }
}
