//! The properties of a version 5 PUBLISH, as tags. Pure.
//!
//! Read from the bytes in place, and only once they are there as a whole. Nothing in them can be a reason to refuse the
//! message, which would come back for ever.
//! (MQTT 5, sections 2.2.2 and 3.3.2.3: an identifier, then a value whose form the identifier tells.)

use std::borrow::Cow;

use forebay_log_store::Tag;

use crate::source::mqtt_tags::{CONTENT_TYPE, RESPONSE_TOPIC, correlation, tag, user_property};

/// Appends the tags that `properties` bring; false if they are not what the specification says: then those before the
/// mistake are there.
pub(super) fn tags(mut properties: &[u8], tags: &mut Vec<Tag>) -> bool {
    while let Some((identifier, rest)) = properties.split_first() {
        let Some(rest) = property(*identifier, rest, tags) else { return false };
        properties = rest;
    }
    true
}

fn property<'b>(identifier: u8, bytes: &'b [u8], tags: &mut Vec<Tag>) -> Option<&'b [u8]> {
    match identifier {
        // Payload format indicator: whether it is text is for those to see who read it.
        0x01 => bytes.get(1..),
        // Message expiry interval, which the broker has dealt with.
        0x02 => bytes.get(4..),
        0x03 => {
            let (text, rest) = string(bytes)?;
            tags.push(tag(CONTENT_TYPE, text));
            Some(rest)
        }
        0x08 => {
            let (text, rest) = string(bytes)?;
            tags.push(tag(RESPONSE_TOPIC, text));
            Some(rest)
        }
        0x09 => {
            let (data, rest) = binary(bytes)?;
            tags.push(correlation(data));
            Some(rest)
        }
        // Subscription identifier: we give none.
        0x0b => {
            let length = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)?;
            bytes.get(length + 1..)
        }
        // Topic alias, see `reader`.
        0x23 => bytes.get(2..),
        0x26 => {
            let (name, rest) = string(bytes)?;
            let (value, rest) = string(rest)?;
            tags.push(user_property(&name, value));
            Some(rest)
        }
        _ => None,
    }
}

/// A string of the broker's. One that is not UTF-8 is kept with its broken bytes replaced.
fn string(bytes: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let (text, rest) = binary(bytes)?;
    Some((String::from_utf8_lossy(text), rest))
}

fn binary(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [high, low, rest @ ..] = bytes else { return None };
    rest.split_at_checked(usize::from(*high) << 8 | usize::from(*low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> (bool, Vec<(String, String)>) {
        let mut found = Vec::new();
        let sound = tags(bytes, &mut found);
        (sound, found.into_iter().map(|tag| (tag.name, tag.value)).collect())
    }

    #[test]
    fn every_property_of_a_publish_is_known() {
        let properties = [
            &b"\x01\x01"[..],
            b"\x02\0\0\0\x09",
            b"\x26\0\x04unit\0\x01C",
            b"\x03\0\x08text/csv",
            b"\x08\0\x03r/1",
            b"\x09\0\x02id",
            b"\x0b\x81\x01",
            b"\x09\0\x02\xff\xfe",
            b"\x26\0\x04unit\0\x01F",
        ];
        let expected = [
            ("unit", "C"),
            ("content-type", "text/csv"),
            ("response-topic", "r/1"),
            ("correlation-data", "id"),
            ("correlation-data", "//4="),
            ("unit", "F"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(read(&properties.concat()), (true, expected));
    }

    #[test]
    fn what_comes_before_a_mistake_is_kept() {
        for mistake in [&b"\x99"[..], b"\x03\0\x09short", b"\x26\0\x01a", b"\x02\0", b"\x0b\x80\x80\x80\x80"] {
            let (sound, found) = read(&[b"\x26\0\x01a\0\x01b", mistake].concat());
            assert_eq!((sound, found), (false, vec![("a".to_owned(), "b".to_owned())]), "{mistake:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (_, found) = read(&bytes);
            prop_assert!(found.iter().map(|(name, _)| name.len()).sum::<usize>() <= 100 * 16);
        }
    }
}
