//! Finds what became of a file: the same one under another name, or its content in another file (copied, compressed, or both).

use std::{
    cmp::Reverse,
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt, fs::DirEntryExt},
    path::{Path, PathBuf},
};

use memchr::memmem;

use super::{
    content::{Content, Form},
    mark::Identity,
    seen::Seen,
};

/// A file that holds what was read of another one.
#[derive(Debug)]
pub(super) struct Heir {
    pub(super) identity: Identity,
    pub(super) path: PathBuf,
    pub(super) form: Form,
}

/// Whether rotating a file called `name` may have made one of this name: `app.log.1`, `app.log-20260102.gz`, `app-1.log`, or the same.
pub(super) fn is_rotated_name(name: &OsStr, candidate: &OsStr) -> bool {
    let (name, candidate) = (unrotated(name.as_bytes()), candidate.as_bytes());
    let ends_part = |rest: &[u8]| rest.is_empty() || rest.starts_with(b".") || rest.starts_with(b"-");
    let begins = |stem: &[u8]| candidate.strip_prefix(stem).filter(|rest| ends_part(rest));
    if begins(name).is_some() {
        return true;
    }
    // What counts the files may stand before the extension.
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0) else { return false };
    let (stem, extension) = name.split_at(dot);
    begins(stem)
        .is_some_and(|rest| memmem::find_iter(rest, extension).any(|at| ends_part(&rest[at + extension.len()..])))
}

/// What the names of all files begin with that may come of each other: what stands before the first dot or dash.
pub(super) fn stem(path: &Path) -> Vec<u8> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    // A name may begin with a dot.
    let end = name.iter().skip(1).position(|byte| matches!(byte, b'.' | b'-')).map_or(name.len(), |at| at + 1);
    name[..end].to_vec()
}

/// The name before it was rotated, if that has only put something behind it: `app.log` for `app.log.1.gz`.
fn unrotated(name: &[u8]) -> &[u8] {
    split(name).0
}

/// The name before it was rotated, and the digits that were put behind it.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let packed = [b".gz".as_slice(), b".zst"].into_iter().find_map(|extension| name.strip_suffix(extension));
    let name = packed.unwrap_or(name);
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, digits) = name.split_at(name.len() - digits);
    match before.split_last() {
        Some((b'.' | b'-', before)) if !digits.is_empty() && !before.is_empty() => (before, digits),
        _ => (name, &[]),
    }
}

/// Where a file stands among those that came of the same one, the oldest first, by its name alone.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// `app.log-20260102`, `app.log.2026-01-02`, `app.log.00017`: dates grow, and so does what is filled up with zeros.
    Upwards(Vec<u8>),
    /// `app.log.1`: so many were rotated since.
    Counted(Reverse<u32>),
    /// `app.log`.
    Current,
}

/// The name before it was rotated, and where the file stands among those that have it.
pub(super) fn turn(path: &Path) -> (Vec<u8>, Turn) {
    let (name, digits) = split(path.file_name().unwrap_or_default().as_bytes());
    if digits.is_empty() {
        return (name.to_vec(), Turn::Current);
    }
    // The rest of a date, behind its year.
    let is_of_dates = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'_' | b'T');
    let start = name.iter().rposition(|byte| !is_of_dates(byte)).map_or(0, |at| at + 1);
    let date = name[start..].strip_prefix(b"-").unwrap_or(&name[start..]);
    if date.len() >= 4 && date[..4].iter().all(u8::is_ascii_digit) {
        let before = name[..name.len() - date.len()].strip_suffix(b".").unwrap_or(&name[..start]);
        return (before.to_vec(), Turn::Upwards([date, b"-", digits].concat()));
    }
    match std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
        // From six digits on it is a date: nobody keeps as many files.
        Some(count) if digits.len() < 6 && (digits.len() == 1 || digits[0] != b'0') => {
            (name.to_vec(), Turn::Counted(Reverse(count)))
        }
        _ => (name.to_vec(), Turn::Upwards(digits.to_vec())),
    }
}

/// The file with this inode in one of these folders.
pub(super) fn by_identity(folders: &[PathBuf], identity: Identity) -> Option<PathBuf> {
    let found = |folder: &PathBuf| {
        let entries = fs::read_dir(folder).ok()?;
        let mut same = entries.flatten().filter(|entry| entry.ino() == identity.inode).map(|entry| entry.path());
        same.find(|path| fs::metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == identity))
    };
    folders.iter().find_map(found)
}

/// The file in one of these folders with a name made from `name` that holds what was read.
///
/// `is_known` says which files are none, because they are followed already.
pub(super) fn by_content(
    folders: &[PathBuf],
    name: &OsStr,
    seen: Seen,
    is_known: impl Fn(Identity) -> bool,
) -> Option<Heir> {
    // Anything begins with nothing.
    if seen.offset == 0 {
        return None;
    }
    // What is renamed or compressed while we look is found under its new name.
    for _ in 0..3 {
        let mut moved = false;
        // A copy that is just being compressed is there twice, and is not yet whole the second time.
        for packed in [false, true] {
            for folder in folders {
                let Ok(entries) = fs::read_dir(folder) else { continue };
                let names = entries.flatten().filter(|entry| is_rotated_name(name, &entry.file_name()));
                for path in names.map(|entry| entry.path()).filter(|path| (Form::of(path) != Form::Plain) == packed) {
                    match heir(&path, seen, &is_known) {
                        Ok(Some(heir)) => return Some(heir),
                        Ok(None) => {}
                        Err(error) => moved |= error.kind() == ErrorKind::NotFound,
                    }
                }
            }
        }
        if !moved {
            break;
        }
    }
    None
}

fn heir(path: &Path, seen: Seen, is_known: &impl Fn(Identity) -> bool) -> io::Result<Option<Heir>> {
    let metadata = fs::metadata(path)?;
    let (identity, form) = (Identity::of(&metadata), Form::of(path));
    if !metadata.is_file() || is_known(identity) {
        return Ok(None);
    }
    let holds = holds(&mut Content::new(File::open(path)?, form), seen)?;
    Ok(holds.then(|| Heir { identity, path: path.to_owned(), form }))
}

/// Whether the content begins with what was read.
pub(super) fn holds(content: &mut Content, seen: Seen) -> io::Result<bool> {
    let head = content.part(Seen::head_of(seen.offset))?;
    Ok(seen.has_head(&head) && seen.has_tail(&content.part(Seen::tail_of(seen.offset))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whoever_may_come_of_another_has_its_stem(name in "[ab.-]{1,8}", more in "[a1.-]{0,6}", gz: bool) {
            let candidate = format!("{name}{more}{}", if gz { ".gz" } else { "" });
            if is_rotated_name(OsStr::new(&name), OsStr::new(&candidate)) && Path::new(&name).file_name().is_some() {
                proptest::prop_assert_eq!(stem(Path::new(&name)), stem(Path::new(&candidate)));
            }
        }
    }

    #[test]
    fn names_tell_who_was_rotated_first() {
        let in_order = |names: &[&str]| names.is_sorted_by_key(|name| turn(Path::new(name)));
        assert!(in_order(&["app.log.10", "app.log.2.gz", "app.log.1", "app.log"]));
        assert!(in_order(&["app.log-20251231.gz", "app.log-20260102", "app.log-2026010312", "app.log"]));
        assert!(in_order(&["app.log.2025-12-31", "app.log.2026-01-01", "app.log.2026-01-02.gz", "app.log"]));
        assert!(in_order(&["app.log-2026-01-31", "app.log-2026-02-01", "app.log"]));
        assert!(in_order(&["app.log.2", "app.log.1", "app.log.0", "app.log"]), "logrotate's `start 0`");
        assert!(in_order(&["chunk-00001", "chunk-00002", "chunk-00010"]));
        assert!(in_order(&["a.log.1", "a.log", "b.log.1", "b.log"]));
    }

    #[test]
    fn rotated_names_are_made_of_the_name() {
        let made = |name: &str, candidate: &str| is_rotated_name(OsStr::new(name), OsStr::new(candidate));
        for candidate in
            ["app.log", "app.log.1", "app.log.2.gz", "app.log-20260102", "app-20260102.log.gz", "app.1.log"]
        {
            assert!(made("app.log", candidate), "{candidate}");
        }
        for candidate in ["app2.log", "app.lo", "app", "other.log.1", "app.logs", "app.l.g"] {
            assert!(!made("app.log", candidate), "{candidate}");
        }
        assert!(
            made("app.log.1", "app.log.2.gz") && made("app.log-20260102.gz", "app.log-20260102") && made("1", "1.1")
        );
        assert!(made("messages", "messages.1") && made(".log", ".log.1") && !made(".log", "x"));
    }
}
