//! Whether bytes are well-formed CBOR, and where an item ends: RFC 8949, Appendix C. Nothing is kept, so that no item can ask for
//! more memory than it has bytes.

/// Items within items. Deeper ones are nobody's measurements.
const DEPTH_MAX: u32 = 64;

/// What is wrong, as a sentence fragment.
pub(super) type Malformed = &'static str;

/// The length of the first item.
pub(super) fn item_length(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut walk = Walk { rest: bytes };
    walk.item(DEPTH_MAX, false)?;
    Ok(bytes.len() - walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
}

/// What was walked over.
#[derive(PartialEq, Eq)]
enum Item {
    Definite(u8),
    Indefinite,
    Break,
}

impl Walk<'_> {
    fn item(&mut self, depth: u32, may_break: bool) -> Result<Item, Malformed> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        let initial = self.take(1)?[0];
        let (major, info) = (initial >> 5, initial & 0x1f);
        let value = match info {
            0..24 => u64::from(info),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            31 => return self.indefinite(major, depth, may_break),
            _ => return Err("it has a reserved initial byte"),
        };
        match major {
            2 | 3 => {
                let length = usize::try_from(value).map_err(|_| ENDS)?;
                let text = self.take(length)?;
                if major == 3 && std::str::from_utf8(text).is_err() {
                    return Err("a text is not UTF-8");
                }
            }
            4 => self.items(value, depth)?,
            5 => {
                let items = value.checked_mul(2).ok_or(ENDS)?;
                self.items(items, depth)?;
            }
            6 => self.items(1, depth)?,
            7 if info == 24 && value < 32 => return Err("it has a reserved simple value"),
            _ => {}
        }
        Ok(Item::Definite(major))
    }

    fn items(&mut self, items: u64, depth: u32) -> Result<(), Malformed> {
        // Each takes a byte at least: what is not there is found out by looking for it.
        (0..items).try_for_each(|_| self.item(depth, false).map(drop))
    }

    fn indefinite(&mut self, major: u8, depth: u32, may_break: bool) -> Result<Item, Malformed> {
        match major {
            2 | 3 => loop {
                match self.item(depth, true)? {
                    Item::Break => break,
                    Item::Definite(chunk) if chunk == major => {}
                    _ => return Err("a string has a chunk of another kind"),
                }
            },
            4 => while self.item(depth, true)? != Item::Break {},
            5 => {
                while self.item(depth, true)? != Item::Break {
                    self.item(depth, false)?;
                }
            }
            7 if may_break => return Ok(Item::Break),
            7 => return Err("it has a break where none can be"),
            _ => return Err("it has a reserved initial byte"),
        }
        Ok(Item::Indefinite)
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(ENDS)?;
        self.rest = rest;
        Ok(taken)
    }
}

const ENDS: Malformed = "it ends in the middle of an item";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn length(hex: &str) -> Result<usize, Malformed> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        item_length(&bytes)
    }

    /// Of RFC 8949, Appendix A.
    #[test]
    fn the_examples_of_the_specification_are_well_formed() {
        for hex in [
            "00",
            "1864",
            "1b000000e8d4a51000",
            "c249010000000000000000",
            "20",
            "f90000",
            "fb3ff199999999999a",
            "f4",
            "f7",
            "f0",
            "f8ff",
            "c11a514b67b0",
            "d74401020304",
            "40",
            "60",
            "6449455446",
            "62c3bc",
            "80",
            "83010203",
            "8301820203820405",
            "a0",
            "a201020304",
            "826161a161626163",
            "5f42010243030405ff",
            "7f657374726561646d696e67ff",
            "9fff",
            "9f018202039f0405ffff",
            "bf61610161629f0203ffff",
        ] {
            assert_eq!(length(hex), Ok(hex.len() / 2), "{hex}");
            assert_eq!(length(&format!("{hex}00")), Ok(hex.len() / 2), "{hex} and more");
            assert!(length(&hex[..hex.len() - 2]).is_err(), "{hex} cut");
        }
    }

    /// Of RFC 8949, Appendix F.
    #[test]
    fn what_is_not_well_formed_is_refused() {
        for hex in [
            "1c",
            "3d",
            "5e",
            "7f00ff",
            "fc",
            "f800",
            "f818",
            "ff",
            "81ff",
            "a1ff",
            "a1ff00",
            "9f81ff",
            "bf00ff",
            "5f4100",
            "5f6100ff",
            "1f",
            "3f",
            "df",
            "9b8000000000000000",
            "bbffffffffffffffff",
            "62c328",
            "61ff",
        ] {
            assert!(length(hex).is_err(), "{hex}");
        }
        assert!(length(&"81".repeat(1000)).is_err(), "nested too deeply");
    }

    proptest! {
        #[test]
        fn no_bytes_trouble_it(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(length) = item_length(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert_eq!(item_length(&bytes[..length]), Ok(length));
            }
        }
    }
}
