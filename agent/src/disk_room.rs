//! Whether the disk can hold what the configuration allows: told before it matters.
//!
//! What counts is the size of the disk, not what is free of it: somebody else who fills the disk does not make a
//! configuration wrong. `forebay check` refuses one that is; a gateway that runs with it all the same is only warned, because
//! it has to come up again after every power cut, and [`forebay_log_store::StoreConfig::min_free`] guards its disk.

use std::{collections::BTreeMap, path::Path};

use forebay_log_store::StoreConfig;

use crate::config::{Problem, size};

/// How many streams a message names; those with the largest quotas.
const NAMED_MAX: usize = 8;

/// What is wrong with the limits, given each stream's quota, for the disk that they are on; nothing if all is well or the disk does not tell its size.
#[must_use]
pub fn problem(store: &StoreConfig, quotas: &BTreeMap<&str, u64>) -> Option<Problem> {
    let dir = std::path::absolute(&store.dir).unwrap_or_else(|_| store.dir.clone());
    // Before the first start, the directory's disk is that of the nearest parent.
    let disk = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    let size = disk.f_blocks.saturating_mul(disk.f_frsize);
    problem_on(store, quotas, size, &dir)
}

fn problem_on(store: &StoreConfig, by_stream: &BTreeMap<&str, u64>, disk: u64, dir: &Path) -> Option<Problem> {
    let quotas = by_stream.values().fold(0_u64, |sum, quota| sum.saturating_add(*quota));
    let taken = quotas.min(store.max_bytes.unwrap_or(u64::MAX));
    let kept_free = store.min_free.of(disk);
    if taken.saturating_add(kept_free) <= disk || disk == 0 {
        return None;
    }
    let (path, what) = if taken < quotas {
        ("log.max-bytes", format!("it allows {}", size::show(taken)))
    } else {
        ("streams", format!("the quotas add up to {} ({})", size::show(quotas), largest(by_stream)))
    };
    let kept_free = match kept_free {
        0 => String::new(),
        bytes => format!(" and log.min-free keeps {}", size::show(bytes)),
    };
    let (dir, disk) = (dir.display(), size::show(disk));
    Some(Problem { path: path.into(), message: format!("{what}{kept_free}, but the disk of {dir} has only {disk}") })
}

/// Each stream's quota, the largest first.
fn largest(quotas: &BTreeMap<&str, u64>) -> String {
    let mut quotas: Vec<_> = quotas.iter().map(|(name, quota)| (name, *quota)).collect();
    quotas.sort_by_key(|(_, quota)| std::cmp::Reverse(*quota));
    let rest = quotas.len().saturating_sub(NAMED_MAX);
    let named = quotas.into_iter().take(NAMED_MAX).map(|(name, quota)| format!("{name} {}", size::show(quota)));
    let mut named: Vec<_> = named.collect();
    if rest > 0 {
        named.push(format!("and {rest} smaller"));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const GIB: u64 = 1 << 30;

    fn told(log: &str, disk: u64) -> Option<String> {
        let text = format!(
            "data-dir = '/var/lib/forebay'\n[log]\n{log}\n[streams.telemetry]\nquota = '10GiB'\n[streams.positions]\n\
             quota = '2GiB'"
        );
        let config = Config::parse(&text).expect("a configuration");
        problem_on(&config.store, &config.quotas(), disk, Path::new("/var/lib/forebay"))
            .map(|problem| problem.to_string())
    }

    #[test]
    fn quotas_beyond_the_disk_are_told_with_their_sum() {
        assert_eq!(told("", 13 * GIB), None);
        assert_eq!(
            told("", 12 * GIB).as_deref(),
            Some(
                "streams: the quotas add up to 12.0 GiB (telemetry 10.0 GiB, positions 2.0 GiB) and log.min-free keeps \
                 256.0 MiB, but the disk of /var/lib/forebay has only 12.0 GiB"
            )
        );
        assert_eq!(told("min-free = 0", 12 * GIB), None);
        // Some file systems do not tell.
        assert_eq!(told("", 0), None);
    }

    #[test]
    fn max_bytes_stands_for_the_quotas_if_it_is_less() {
        assert_eq!(told("max-bytes = '7GiB'\nmin-free = '10%'", 8 * GIB), None);
        assert_eq!(
            told("max-bytes = '7GiB'\nmin-free = '20%'", 8 * GIB).as_deref(),
            Some(
                "log.max-bytes: it allows 7.0 GiB and log.min-free keeps 1.6 GiB, but the disk of \
                 /var/lib/forebay has only 8.0 GiB"
            )
        );
        let quotas = told("max-bytes = '20GiB'", 8 * GIB).expect("still too much");
        assert!(quotas.starts_with("streams: the quotas add up to 12.0 GiB"), "{quotas}");
    }

    #[test]
    fn many_streams_are_told_by_the_largest() {
        let streams: String = (0..12).map(|i| format!("[streams.s{i}]\nquota = '{}GiB'\n", i + 1)).collect();
        let config = Config::parse(&format!("data-dir = 'data'\n{streams}")).expect("a configuration");
        let told = largest(&config.quotas());
        assert!(
            told.starts_with("s11 12.0 GiB, s10 11.0 GiB") && told.ends_with("s4 5.0 GiB, and 4 smaller"),
            "{told}"
        );
    }
}
