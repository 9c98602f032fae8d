//! What was spent of daily budgets, kept over a restart: the file `link-budgets` in the data directory.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::budget::Spent;
use crate::small_file;

const FILE: &str = "link-budgets";

/// Persisted: fields are only added, and a change of meaning is another version.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    links: BTreeMap<String, Spent>,
}

const VERSION: u32 = 1;

/// By the links' names. What cannot be read is told, and counts as nothing spent.
pub(super) fn read(data_dir: &Path) -> BTreeMap<String, Spent> {
    let file = data_dir.join(FILE);
    match fs::read(&file) {
        Ok(bytes) => decode(&bytes).unwrap_or_else(|error| {
            let error = format!("{error:#}");
            warn!(file = %file.display(), error, "does not tell what is spent of daily budgets; beginning a new day");
            BTreeMap::new()
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            warn!(file = %file.display(), %error, "cannot read what is spent of daily budgets; beginning a new day");
            BTreeMap::new()
        }
    }
}

/// Durably; after a power cut it is this, or what was there before.
pub(super) fn write(data_dir: &Path, links: &BTreeMap<String, Spent>) -> anyhow::Result<()> {
    let content = Content { version: VERSION, links: links.clone() };
    let bytes = serde_json::to_vec(&content).context("encode")?;
    small_file::replace(data_dir, FILE, &bytes).with_context(|| format!("write {}", data_dir.join(FILE).display()))
}

fn decode(bytes: &[u8]) -> anyhow::Result<BTreeMap<String, Spent>> {
    let content: Content = serde_json::from_slice(bytes)?;
    anyhow::ensure!(content.version == VERSION, "version {} is of a newer forebay", content.version);
    Ok(content.links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()), BTreeMap::new());
        let spent = BTreeMap::from([
            ("lte".to_owned(), Spent { day: Some(20_786), bytes: 31_000_000 }),
            ("sat".to_owned(), Spent { day: None, bytes: 0 }),
        ]);
        write(dir.path(), &spent).expect("written");
        assert_eq!(read(dir.path()), spent);
        fs::write(dir.path().join(FILE), b"{\"version\":1,\"links\":{\"lte\":{\"day\":20786,\"bytes\":")
            .expect("written");
        assert_eq!(read(dir.path()), BTreeMap::new(), "cut off");
    }

    #[test]
    fn what_version_1_has_written_is_read_for_ever() {
        let golden = br#"{"version":1,"links":{"lte":{"day":20786,"bytes":31000000},"sat":{"day":null,"bytes":7}}}"#;
        let spent = decode(golden).expect("sound");
        assert_eq!(spent["lte"], Spent { day: Some(20_786), bytes: 31_000_000 });
        assert_eq!(spent["sat"], Spent { day: None, bytes: 7 });
        assert!(decode(br#"{"version":2,"links":{}}"#).is_err());
    }
}
