//! What the machine says of itself: processor, memory, load, disks, file systems and network, from /proc as proc(5) describes it.
//!
//! Counters are given as they are, since the machine's start. Only the processor's shares are of the time since the poll before.

use std::{collections::BTreeSet, io};

use super::{
    reading::{Found, Measured, Reading},
    tree::{Tree, text},
};

/// /proc/diskstats counts in sectors of this size, whatever the disk has.
const SECTOR_BYTES: u64 = 512;

/// What the processor had done up to the poll before, in ticks: user, nice, system, idle, iowait, irq, softirq, steal.
pub(super) type Ticks = [u64; 8];

fn read(tree: &Tree, path: &str, sensor: &str, found: &mut Found, make: impl FnOnce(&str, &mut Found) -> Option<()>) {
    if tree.filter.passes_over(sensor) {
        return;
    }
    match text(tree.at(path)) {
        Ok(text) => {
            if make(&text, found).is_none() {
                found.fail(sensor, path, &io::Error::new(io::ErrorKind::InvalidData, "not as expected"));
            }
        }
        Err(error) => found.fail(sensor, path, &error),
    }
}

pub(super) fn cpu(tree: &Tree, before: &mut Option<Ticks>, found: &mut Found) {
    read(tree, "proc/stat", "cpu", found, |text, found| {
        let ticks = ticks_in(text)?;
        if let Some(before) = before.replace(ticks) {
            let values = shares(before, ticks);
            found.readings.extend(values.map(|values| Reading { sensor: "cpu".into(), values }));
        }
        Some(())
    });
}

fn ticks_in(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut ticks = Ticks::default();
    let mut numbers = line.split_ascii_whitespace();
    // Guests are counted in user and nice, too.
    for (at, tick) in ticks.iter_mut().enumerate() {
        *tick = match numbers.next() {
            Some(number) => number.parse().ok()?,
            // Older kernels had fewer.
            None if at >= 4 => 0,
            None => return None,
        };
    }
    Some(ticks)
}

/// In per cent; `None` if no time has passed.
#[expect(clippy::cast_precision_loss, reason = "ticks between two polls are few")]
fn shares(before: Ticks, now: Ticks) -> Option<Vec<Measured>> {
    // iowait may go backwards.
    let passed: Vec<u64> = now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
    let all: u64 = passed.iter().fold(0, |sum, ticks| sum.saturating_add(*ticks));
    if all == 0 {
        return None;
    }
    let share = |of: &[usize]| {
        let share = of.iter().map(|at| passed[*at] as f64).sum::<f64>() * 100.0 / all as f64;
        (share * 100.0).round() / 100.0
    };
    let shares = [
        ("usage", &[0, 1, 2, 5, 6, 7][..]),
        ("user", &[0, 1]),
        ("system", &[2, 5, 6]),
        ("iowait", &[4]),
        ("steal", &[7]),
    ];
    shares.into_iter().map(|(name, of)| Measured::gauge(name, share(of), "%")).collect()
}

pub(super) fn memory(tree: &Tree, found: &mut Found) {
    read(tree, "proc/meminfo", "memory", found, |text, found| {
        let bytes = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
        };
        let total = bytes("MemTotal")?;
        // Before Linux 3.14 there was no estimate.
        let available = bytes("MemAvailable").or_else(|| bytes("MemFree"))?;
        let mut values = vec![Measured::count("total", total, "B"), Measured::count("available", available, "B")];
        values.extend(percent("used", total.saturating_sub(available), total));
        if let (Some(total), Some(free)) = (bytes("SwapTotal"), bytes("SwapFree")) {
            values.push(Measured::count("swap_total", total, "B"));
            values.push(Measured::count("swap_used", total.saturating_sub(free), "B"));
        }
        found.readings.push(Reading { sensor: "memory".into(), values });
        Some(())
    });
}

pub(super) fn load(tree: &Tree, found: &mut Found) {
    read(tree, "proc/loadavg", "load", found, |text, found| {
        let mut numbers = text.split_ascii_whitespace().map(|number| number.parse::<f64>().ok());
        let mut values = Vec::new();
        for name in ["load1", "load5", "load15"] {
            values.push(Measured::gauge(name, numbers.next()??, "")?);
        }
        let uptime = self::text(tree.at("proc/uptime")).ok();
        let uptime = uptime.as_deref().and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
        values.extend(uptime.and_then(|seconds| Measured::gauge("uptime", seconds, "s")));
        found.readings.push(Reading { sensor: "load".into(), values });
        Some(())
    });
}

pub(super) fn disk(tree: &Tree, found: &mut Found) {
    read(tree, "proc/diskstats", "disk", found, |text, found| {
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let name = fields.nth(2)?;
            let counts: Vec<u64> = fields.map(|number| number.parse().unwrap_or(0)).collect();
            // What has never been used is nothing to tell of: loop devices and RAM disks by the dozen.
            let [reads, _, sectors_read, _, writes, _, sectors_written, _, _, busy_ms, ..] = counts[..] else {
                return None;
            };
            if reads == 0 && writes == 0 {
                continue;
            }
            let values = vec![
                Measured::count("reads", reads, ""),
                Measured::count("read", sectors_read.saturating_mul(SECTOR_BYTES), "B"),
                Measured::count("writes", writes, ""),
                Measured::count("written", sectors_written.saturating_mul(SECTOR_BYTES), "B"),
                Measured::count("busy", busy_ms, "ms"),
            ];
            found.readings.push(Reading { sensor: format!("disk:{name}"), values });
        }
        Some(())
    });
}

pub(super) fn network(tree: &Tree, found: &mut Found) {
    read(tree, "proc/net/dev", "network", found, |text, found| {
        for line in text.lines().skip(2) {
            let (name, counts) = line.split_once(':')?;
            let name = name.trim();
            if name == "lo" {
                continue;
            }
            let counts: Vec<u64> = counts.split_ascii_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
            let columns = [
                ("rx_bytes", 0, "B"),
                ("rx_packets", 1, ""),
                ("rx_errors", 2, ""),
                ("rx_dropped", 3, ""),
                ("tx_bytes", 8, "B"),
                ("tx_packets", 9, ""),
                ("tx_errors", 10, ""),
                ("tx_dropped", 11, ""),
            ];
            let value = |(name, at, unit): (&str, usize, _)| Some(Measured::count(name, *counts.get(at)?, unit));
            let values = columns.into_iter().map(value).collect::<Option<_>>()?;
            found.readings.push(Reading { sensor: format!("network:{name}"), values });
        }
        Some(())
    });
}

/// File systems on devices, and the one that `/` is on. Those on the network are left out: asking may take for ever.
pub(super) fn filesystem(tree: &Tree, found: &mut Found) {
    read(tree, "proc/mounts", "filesystem", found, |text, found| {
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (device, place) = (fields.next()?, unescaped(fields.next()?));
            // A device is mounted at several places where there are containers.
            if !(device.starts_with("/dev/") || place == "/") || !seen.insert(device) {
                continue;
            }
            let sensor = format!("filesystem:{place}");
            if tree.filter.passes_over(&sensor) {
                continue;
            }
            match rustix::fs::statvfs(tree.at(place.trim_start_matches('/'))) {
                Ok(stat) => {
                    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
                    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
                    let mut values = vec![
                        Measured::count("total", bytes(stat.f_blocks), "B"),
                        Measured::count("available", bytes(stat.f_bavail), "B"),
                    ];
                    // As df says it: of what users may have.
                    values.extend(percent("used", used, used.saturating_add(stat.f_bavail)));
                    values.extend(percent("inodes_used", stat.f_files.saturating_sub(stat.f_ffree), stat.f_files));
                    found.readings.push(Reading { sensor, values });
                }
                Err(error) => found.fail(&sensor, "statvfs", &error.into()),
            }
        }
        Some(())
    });
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
fn percent(name: &str, part: u64, whole: u64) -> Option<Measured> {
    (whole > 0)
        .then(|| (part as f64 / whole as f64 * 10_000.0).round() / 100.0)
        .and_then(|number| Measured::gauge(name, number, "%"))
}

/// In /proc/mounts a space is `\040`, and so on.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => {
                unescaped.push(char::from(code));
                unescaped.push_str(&part[3..]);
            }
            None => {
                unescaped.push('\\');
                unescaped.push_str(part);
            }
        }
    }
    unescaped
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::{super::tree::Filter, *};

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("one")).expect("made");
            fs::write(path, text).expect("written");
        }
        let tree = Tree { root: dir.path().to_owned(), filter: Filter::default() };
        (dir, tree)
    }

    fn shown(found: &Found) -> Vec<String> {
        let value = |value: &Measured| format!("{}={}{}", value.name, value.amount.as_f64(), value.unit);
        let line = |reading: &Reading| {
            format!("{} {}", reading.sensor, reading.values.iter().map(value).collect::<Vec<_>>().join(" "))
        };
        found.readings.iter().map(line).collect()
    }

    #[test]
    fn shares_are_of_the_time_between_two_polls() {
        let (dir, tree) = tree(&[("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1\n")]);
        let (mut found, mut before) = (Found::default(), None);
        cpu(&tree, &mut before, &mut found);
        assert!(found.readings.is_empty());
        fs::write(dir.path().join("proc/stat"), "cpu  125 0 125 840 10 0 0 0 0 0\n").expect("written");
        cpu(&tree, &mut before, &mut found);
        assert_eq!(shown(&found), ["cpu usage=50% user=25% system=25% iowait=10% steal=0%"]);
        cpu(&tree, &mut before, &mut found);
        assert_eq!((found.readings.len(), found.unreadable.len()), (1, 0));
        fs::write(dir.path().join("proc/stat"), "cpu  what\n").expect("written");
        cpu(&tree, &mut before, &mut found);
        assert_eq!(found.unreadable.len(), 1);
    }

    #[test]
    fn counters_are_as_the_kernel_has_them() {
        let (_dir, tree) = tree(&[
            (
                "proc/meminfo",
                "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n",
            ),
            ("proc/loadavg", "0.50 0.25 0.10 1/100 4242\n"),
            ("proc/uptime", "3600.25 1.0\n"),
            (
                "proc/diskstats",
                "   7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 179 0 mmcblk0 10 0 16 5 20 0 32 9 0 77 14 0 0 0 0\n",
            ),
            (
                "proc/net/dev",
                "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:1000 10 1 2 0 0 0 0 500 5 3 4 0 0 0 0\n",
            ),
            (
                "proc/mounts",
                "overlay / overlay rw 0 0\n/dev/sda1 /a\\040b ext4 rw 0 0\n/dev/sda1 /again ext4 rw 0 0\nproc /proc proc rw 0 0\n",
            ),
        ]);
        let mut found = Found::default();
        memory(&tree, &mut found);
        load(&tree, &mut found);
        disk(&tree, &mut found);
        network(&tree, &mut found);
        assert_eq!(
            shown(&found),
            [
                "memory total=1024000B available=256000B used=75% swap_total=10240B swap_used=6144B",
                "load load1=0.5 load5=0.25 load15=0.1 uptime=3600.25s",
                "disk:mmcblk0 reads=10 read=8192B writes=20 written=16384B busy=77ms",
                "network:eth0 rx_bytes=1000B rx_packets=10 rx_errors=1 rx_dropped=2 tx_bytes=500B tx_packets=5 tx_errors=3 tx_dropped=4",
            ]
        );
        let mut found = Found::default();
        filesystem(&tree, &mut found);
        assert!(found.readings.len() == 1 && found.readings[0].sensor == "filesystem:/", "{found:?}");
        assert!(found.unreadable.len() == 1 && found.unreadable[0].sensor == "filesystem:/a b", "{found:?}");
    }

    #[test]
    fn what_is_not_there_is_unreadable() {
        let (_dir, tree) = tree(&[]);
        let mut found = Found::default();
        for read in [memory, load, disk, network, filesystem] {
            read(&tree, &mut found);
        }
        assert_eq!((found.readings.len(), found.unreadable.len()), (0, 5));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "([a-z0-9:\\\\ \n.-]|\u{e4}){0,200}") {
            let (_dir, tree) = tree(&[
                ("proc/stat", &text), ("proc/meminfo", &text), ("proc/loadavg", &text),
                ("proc/diskstats", &text), ("proc/net/dev", &text), ("proc/mounts", &text),
            ]);
            let (mut found, mut before) = (Found::default(), Some(Ticks::default()));
            cpu(&tree, &mut before, &mut found);
            for read in [memory, load, disk, network, filesystem] {
                read(&tree, &mut found);
            }
            unescaped(&text);
        }
    }
}
