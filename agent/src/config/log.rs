//! `[log]`: how the data directory is written. The defaults suit an SD card; who wants it to last longest, and can wait for
//! acknowledgements, takes the preset `flash-saver`.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use forebay_log_store::{MinFree, StoreConfig};
use serde::Deserialize;

use super::{Problems, duration, min_free, size};

/// More would only delay acknowledgements; a device gives up after some seconds.
const COMMIT_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);
/// From the smallest that the log makes (it took a smaller one for that before it was refused), to what a 32-bit machine maps and
/// a recovery reads in a bearable time.
const SEGMENT_SIZE: RangeInclusive<u64> = 64 << 10..=1 << 30;
const SEGMENT_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// This much memory is taken per stream when the disk is slower than the sources.
const QUEUE_SIZE: RangeInclusive<u64> = 64 << 10..=1 << 30;
/// Below this, the catalogue alone might fill it.
const MAX_BYTES: RangeInclusive<u64> = 8 << 20..=u64::MAX;
/// What may be delivered again after a power cut; and every checkpoint wears the flash.
const CHECKPOINT_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);

/// Each commit costs the flash a page or more, however small it is: one a second instead of up to a thousand. Devices wait that long
/// for their acknowledgement, which is well below what any gives up after. Measured in docs/flash.md.
const FLASH_SAVER_COMMIT_DELAY: Duration = Duration::from_secs(1);
/// Each is a write of the catalogue and, at most every ten seconds, of the log.
const FLASH_SAVER_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// Settings that belong together. What is set beside it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Write as seldom as devices bear.
    FlashSaver,
}

impl Preset {
    fn apply(self, store: &mut StoreConfig) {
        match self {
            Self::FlashSaver => {
                store.commit_delay = FLASH_SAVER_COMMIT_DELAY;
                store.checkpoint_interval = FLASH_SAVER_CHECKPOINT_INTERVAL;
            }
        }
    }
}

/// How the data directory is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// What the settings are that are left out.
    pub preset: Option<Preset>,
    /// How long a commit waits for company, so that fewer syncs do.
    #[serde(with = "duration::option")]
    pub commit_delay: Option<Duration>,
    /// A segment file is closed at this size; freeing space goes by whole segments.
    #[serde(with = "size::option")]
    pub segment_size: Option<u64>,
    /// A segment file is closed at this age.
    #[serde(with = "duration::option")]
    pub segment_age: Option<Duration>,
    /// Bytes of records that may wait for the disk, per stream.
    #[serde(with = "size::option")]
    pub queue_size: Option<u64>,
    /// How often deliveries' checkpoints reach the disk.
    #[serde(with = "duration::option")]
    pub checkpoint_interval: Option<Duration>,
    /// The most that the data directory may take, whatever the quotas of its streams add up to.
    #[serde(with = "size::option")]
    pub max_bytes: Option<u64>,
    /// What is left of the disk for others.
    #[serde(with = "min_free")]
    pub min_free: Option<MinFree>,
}

impl Config {
    /// The store's settings.
    pub fn resolve(&self, data_dir: &Path, path: &str, problems: &mut Problems) -> StoreConfig {
        let mut store = StoreConfig::new(data_dir);
        if let Some(preset) = self.preset {
            preset.apply(&mut store);
        }
        let mut set_duration =
            |key: &str, given: Option<Duration>, within: &RangeInclusive<Duration>, to: &mut Duration| {
                let Some(given) = given else { return };
                if !within.contains(&given) {
                    let [from, upto, given] = [*within.start(), *within.end(), given].map(duration::show);
                    problems.add(format!("{path}.{key}"), format!("must be {from} to {upto}, not {given}"));
                }
                *to = given;
            };
        set_duration("commit-delay", self.commit_delay, &COMMIT_DELAY, &mut store.commit_delay);
        set_duration("segment-age", self.segment_age, &SEGMENT_AGE, &mut store.segment_age);
        set_duration(
            "checkpoint-interval",
            self.checkpoint_interval,
            &CHECKPOINT_INTERVAL,
            &mut store.checkpoint_interval,
        );
        let mut size = |key: &str, given: Option<u64>, within: &RangeInclusive<u64>| {
            let given = given?;
            if !within.contains(&given) {
                let [from, upto, given] = size::show_beside([*within.start(), *within.end(), given]);
                let range =
                    if *within.end() == u64::MAX { format!("{from} or more") } else { format!("{from} to {upto}") };
                problems.add(format!("{path}.{key}"), format!("must be {range}, not {given}"));
            }
            Some(given)
        };
        if let Some(bytes) = size("segment-size", self.segment_size, &SEGMENT_SIZE) {
            store.segment_bytes = bytes;
        }
        if let Some(bytes) = size("queue-size", self.queue_size, &QUEUE_SIZE) {
            store.queue_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        store.max_bytes = size("max-bytes", self.max_bytes, &MAX_BYTES);
        store.min_free = self.min_free.unwrap_or(store.min_free);
        store
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_told_with_the_bounds() {
        let config: Config = toml::from_str(
            "commit-delay = '1m'\nsegment-size = 1\nqueue-size = '2GiB'\nsegment-age = '1ms'\nmax-bytes = 5",
        )
        .expect("TOML");
        let mut problems = Problems::default();
        let _ = config.resolve(Path::new("data"), "log", &mut problems);
        let found: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "log.commit-delay: must be 0s to 10s, not 1m",
                "log.segment-age: must be 1s to 24h, not 1ms",
                "log.segment-size: must be 64.0 KiB to 1.0 GiB, not 1 B",
                "log.queue-size: must be 64.0 KiB to 1.0 GiB, not 2.0 GiB",
                "log.max-bytes: must be 8.0 MiB or more, not 5 B",
            ]
        );
    }

    #[test]
    fn a_preset_sets_what_is_left_out() {
        let config: Config = toml::from_str("preset = 'flash-saver'\ncheckpoint-interval = '2s'").expect("TOML");
        let mut problems = Problems::default();
        let store = config.resolve(Path::new("data"), "log", &mut problems);
        assert_eq!(problems.list(), []);
        assert_eq!(store.commit_delay, Duration::from_secs(1));
        assert_eq!(store.checkpoint_interval, Duration::from_secs(2));
        assert_eq!(store.segment_bytes, StoreConfig::new("data").segment_bytes);
    }

    #[test]
    fn an_empty_table_gives_the_defaults_of_the_log() {
        let mut problems = Problems::default();
        let store = Config::default().resolve(Path::new("data"), "log", &mut problems);
        assert_eq!(format!("{store:?}"), format!("{:?}", StoreConfig::new("data")));
        assert_eq!(problems.list(), []);
    }

    #[test]
    fn what_stays_free_is_a_size_or_a_percentage() {
        let read = |text: &str| {
            let mut problems = Problems::default();
            let table = format!("min-free = {text}").parse().expect("TOML");
            let config: Config =
                super::super::reader::read(table, "log", &[], &mut problems).expect("the rest is sound");
            (config.min_free, problems.into_list().pop().map(|problem| problem.to_string()))
        };
        assert_eq!(read("'64MiB'"), (Some(MinFree { bytes: 64 << 20, percent: 100 }), None));
        assert_eq!(read("1000"), (Some(MinFree { bytes: 1000, percent: 100 }), None));
        assert_eq!(read("'10%'"), (Some(MinFree { bytes: u64::MAX, percent: 10 }), None));
        assert_eq!(read("0"), (Some(MinFree::NONE), None));
        assert_eq!(read("'0%'"), (Some(MinFree::NONE), None));
        for wrong in ["'a lot'", "true", "-1"] {
            let told = format!(
                "log.min-free: must be a size such as \"256MiB\" or \"5%\" of the disk, not {}",
                wrong.replace('\'', "\"")
            );
            assert_eq!(read(wrong), (None, Some(told)));
        }
        for wrong in ["'91%'", "'2.5%'", "'%'"] {
            let told =
                format!("log.min-free: must be a whole percentage of 0% to 90%, not {}", wrong.replace('\'', "\""));
            assert_eq!(read(wrong), (None, Some(told)));
        }
    }
}
