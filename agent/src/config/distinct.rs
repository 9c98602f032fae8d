//! Lists whose elements differ: for `#[serde(deserialize_with = "crate::config::distinct::deserialize")]`.
//!
//! What stands there twice is told at its place while the list is read, and so together with elements that are something else.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, de};

/// Reads a list.
///
/// # Errors
/// An element cannot be read, or was there already.
pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialEq + fmt::Display,
{
    deserializer.deserialize_seq(ListVisitor(PhantomData))
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + PartialEq + fmt::Display> de::Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = list.next_element_seed(Another(&found))? {
            found.push(element);
        }
        Ok(found)
    }
}

/// An element beside these. It is compared while it is read, or a mistake would not have its place.
struct Another<'a, T>(&'a [T]);

impl<'de, T: Deserialize<'de> + PartialEq + fmt::Display> de::DeserializeSeed<'de> for Another<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let element = T::deserialize(deserializer)?;
        if self.0.contains(&element) {
            return Err(de::Error::custom(format!("`{element}` is there already")));
        }
        Ok(element)
    }
}
