//! What is to stay free on a disk, `"256MiB"` or `"5%"`: for `#[serde(with = "crate::config::min_free")]`.

use forebay_log_store::MinFree;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::Value;

use super::size;

/// More would leave the log no disk to speak of.
const PERCENT_MAX: u8 = 90;

/// Reads it, if it is there.
///
/// # Errors
/// Neither a size nor a whole percentage.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MinFree>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let percent = value.as_str().and_then(|text| text.trim().strip_suffix('%')).map(|number| number.trim().parse());
    match percent {
        None => match size::deserialize::<_, u64>(value.clone()) {
            Ok(0) => Ok(Some(MinFree::NONE)),
            Ok(bytes) => Ok(Some(MinFree { bytes, percent: 100 })),
            Err(_) => {
                Err(D::Error::custom(format!("must be a size such as \"256MiB\" or \"5%\" of the disk, not {value}")))
            }
        },
        Some(Ok(0)) => Ok(Some(MinFree::NONE)),
        Some(Ok(percent)) if percent <= PERCENT_MAX => Ok(Some(MinFree { bytes: u64::MAX, percent })),
        Some(_) => Err(D::Error::custom(format!("must be a whole percentage of 0% to {PERCENT_MAX}%, not {value}"))),
    }
}

/// As it is written in a configuration.
#[must_use]
pub fn show(min_free: MinFree) -> String {
    match min_free {
        MinFree { bytes: 0, .. } | MinFree { percent: 0, .. } => "nothing".to_owned(),
        MinFree { bytes: u64::MAX, percent } => format!("{percent}%"),
        MinFree { bytes, percent: 100.. } => size::show(bytes),
        MinFree { bytes, percent } => format!("{percent}% (at most {})", size::show(bytes)),
    }
}
