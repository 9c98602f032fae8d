//! Marks: named values that are committed together with records, such as how far a source has read.

use std::{collections::BTreeMap, ops::Bound};

use serde::{Deserialize, Serialize, Serializer};
use serde_bytes::ByteBuf;

use crate::error::Error;

/// Longest name of a mark in bytes.
pub const MARK_NAME_BYTES_MAX: usize = 256;
/// Longest value of a mark in bytes.
pub const MARK_VALUE_BYTES_MAX: usize = 4096;
/// So many marks a stream has at the most.
pub const MARKS_MAX: usize = 10_000;
/// So many bytes a stream's marks take at the most, names and values together, or less where its segments are
/// small: the head of each has them all.
pub const MARKS_BYTES_MAX: usize = 1 << 20;

/// Values by name. As a change, an empty value removes its mark. Persisted: pairs of name and value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, ByteBuf>")]
pub(crate) struct Marks {
    values: BTreeMap<String, ByteBuf>,
    /// Of names and values.
    bytes: usize,
}

impl From<BTreeMap<String, ByteBuf>> for Marks {
    fn from(values: BTreeMap<String, ByteBuf>) -> Self {
        let bytes = values.iter().map(|(name, value)| name.len() + value.len()).sum();
        Self { values, bytes }
    }
}

impl Serialize for Marks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values.serialize(serializer)
    }
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes of names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// In the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(|value| value.as_slice())
    }

    /// Those whose names begin with `prefix`.
    pub(crate) fn starting_with(&self, prefix: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let from = self.values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Notes a change; an empty value stays, to be applied to others.
    pub(crate) fn change(&mut self, name: &str, value: &[u8]) {
        self.bytes += value.len();
        match self.values.insert(name.to_owned(), ByteBuf::from(value)) {
            Some(before) => self.bytes -= before.len(),
            None => self.bytes += name.len(),
        }
    }

    /// Notes later changes beside those noted.
    pub(crate) fn change_all(&mut self, changes: &Self) {
        for (name, value) in changes.iter() {
            self.change(name, value);
        }
    }

    /// Does what the changes say.
    pub(crate) fn apply(&mut self, changes: &Self) {
        for (name, value) in changes.iter() {
            if !value.is_empty() {
                self.change(name, value);
            } else if let Some(before) = self.values.remove(name) {
                self.bytes -= name.len() + before.len();
            }
        }
    }

    /// How many there would be, and how many bytes, with these changes.
    pub(crate) fn size_with(&self, changes: &Self) -> (usize, usize) {
        changes.iter().fold((self.len(), self.bytes), |(count, bytes), (name, value)| {
            let (count, bytes) = match self.get(name) {
                Some(before) => (count - 1, bytes - name.len() - before.len()),
                None => (count, bytes),
            };
            if value.is_empty() { (count, bytes) } else { (count + 1, bytes + name.len() + value.len()) }
        })
    }
}

/// Whether a mark may be called this and have this value.
pub(crate) fn check(name: &str, value: &[u8]) -> Result<(), Error> {
    if name.is_empty() || name.len() > MARK_NAME_BYTES_MAX {
        return Err(Error::BadMarkName { bytes: name.len() });
    }
    if value.len() > MARK_VALUE_BYTES_MAX {
        return Err(Error::MarkTooLarge { bytes: value.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(pairs: &[(&str, &str)]) -> Marks {
        let mut marks = Marks::default();
        for (name, value) in pairs {
            marks.change(name, value.as_bytes());
        }
        marks
    }

    #[test]
    fn changes_set_replace_and_remove() {
        let mut all = marks(&[("a", "1"), ("b", "22"), ("c", "333")]);
        let changes = marks(&[("a", "4444"), ("b", ""), ("d", "5"), ("e", "")]);
        let expected = marks(&[("a", "4444"), ("c", "333"), ("d", "5")]);
        assert_eq!(all.size_with(&changes), (expected.len(), expected.bytes()));
        all.apply(&changes);
        assert_eq!((&all, all.bytes()), (&expected, 11));
        assert_eq!(postcard::from_bytes::<Marks>(&postcard::to_allocvec(&all).expect("encodes")), Ok(all));
    }

    #[test]
    fn of_changes_the_later_one_counts() {
        let mut first = marks(&[("a", "1"), ("b", "")]);
        first.change_all(&marks(&[("a", ""), ("b", "2")]));
        assert_eq!(first, marks(&[("a", ""), ("b", "2")]));
        assert_eq!(first.bytes(), 3);
    }

    #[test]
    fn a_prefix_selects_names() {
        let all = marks(&[("tail/a", "1"), ("tail/b", "2"), ("tailor", "3"), ("x", "4")]);
        let names = |prefix| all.starting_with(prefix).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("tail/"), ["tail/a", "tail/b"]);
        assert_eq!((names("").len(), names("tail/c").len(), names("z").len()), (4, 0, 0));
    }

    #[test]
    fn names_and_values_are_bounded() {
        assert!(check("a", b"").is_ok());
        assert!(check(&"a".repeat(256), &[0; 4096]).is_ok());
        assert!(matches!(check("", b"1"), Err(Error::BadMarkName { bytes: 0 })));
        assert!(matches!(check(&"a".repeat(257), b"1"), Err(Error::BadMarkName { bytes: 257 })));
        assert!(matches!(check("a", &[0; 4097]), Err(Error::MarkTooLarge { bytes: 4097 })));
    }
}
