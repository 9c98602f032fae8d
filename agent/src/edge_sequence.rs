//! Edge sequence numbers: where those of envelopes begin, so that no source ever gives a number twice.
//!
//! They are counted in memory, and nothing is written per record: each start of the agent begins at a number that no start
//! before can have reached. The file `starts` in the data directory counts them.

use std::{fs, io, path::Path};

use anyhow::Context as _;

use crate::small_file;

const FILE: &str = "starts";

/// At 10,000 records per second one start lasts three years, and some 9,000 starts stay below the 2^53 up to which every
/// reader of JSON keeps whole numbers exactly.
const PER_START: u64 = 1_000_000_000_000;

/// Counts this start, durably.
///
/// # Errors
/// The file cannot be written, or holds something else.
pub fn base(data_dir: &Path) -> anyhow::Result<u64> {
    let file = data_dir.join(FILE);
    let starts = match fs::read_to_string(&file) {
        Ok(text) => {
            let starts: Option<u64> = text.trim().parse().ok();
            starts.with_context(|| format!("{} does not hold a number", file.display()))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let next = starts.checked_add(1).and_then(|starts| Some((starts, starts.checked_mul(PER_START)?)));
    let (starts, base) = next.context("there are no numbers left")?;
    small_file::replace(data_dir, FILE, format!("{starts}\n").as_bytes())
        .with_context(|| format!("write {}", file.display()))?;
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_start_begins_where_another_did() {
        let dir = tempfile::tempdir().expect("a directory");
        let bases = [(); 3].map(|()| base(dir.path()).expect("counted"));
        assert_eq!(bases, [PER_START, 2 * PER_START, 3 * PER_START]);
        for wrong in ["many", "", "18446744073709551615"] {
            fs::write(dir.path().join("starts"), wrong).expect("written");
            assert!(base(dir.path()).is_err(), "{wrong}");
        }
        assert!(base(&dir.path().join("none")).is_err());
    }
}
