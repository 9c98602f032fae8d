//! Registers with names and types, and what the words that a device sends mean. Pure.
//!
//! "MODBUS Application Protocol Specification" V1.1b3, 4.2 to 4.4: a word has its high byte first. It says nothing of
//! values of more than one word, so that devices differ in which word comes first.

use serde::Deserialize;

/// Which of a device's four tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Table {
    /// Words that can be written: function 3, often called 4xxxx.
    Holding,
    /// Words that cannot: function 4, 3xxxx.
    Input,
    /// Bits that can be written: function 1, 0xxxx.
    Coil,
    /// Bits that cannot: function 2, 1xxxx.
    Discrete,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Type {
    /// A coil or a discrete input, or a word that is not 0.
    Bool,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

/// Which comes first: the high one, or the low one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// The high one.
    Big,
    /// The low one.
    Little,
}

/// A value of a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Register {
    pub(super) name: String,
    pub(super) table: Table,
    /// As it goes over the line, from 0.
    pub(super) address: u16,
    pub(super) kind: Type,
    pub(super) word_order: Order,
    pub(super) byte_order: Order,
    pub(super) scale: f64,
    pub(super) offset: f64,
}

/// A value as it goes into the record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl Table {
    /// As the configuration calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Holding => "holding",
            Self::Input => "input",
            Self::Coil => "coil",
            Self::Discrete => "discrete",
        }
    }

    /// Whether it holds bits.
    pub(super) fn has_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// The most that one request may ask of it (V1.1b3, 6.1 to 6.4).
    pub(super) fn request_max(self) -> u16 {
        if self.has_bits() { 2000 } else { 125 }
    }
}

impl Register {
    /// Words, or bits, that it has.
    pub(super) fn len(&self) -> u16 {
        match self.kind {
            Type::Bool | Type::U16 | Type::I16 => 1,
            Type::U32 | Type::I32 | Type::F32 => 2,
            Type::U64 | Type::I64 | Type::F64 => 4,
        }
    }

    /// What its words mean; `None` if they are too few, or a number that JSON does not have.
    pub(super) fn decode(&self, words: &[u16]) -> Option<Value> {
        let words = words.get(..usize::from(self.len()))?;
        let word = |word: &u16| match self.byte_order {
            Order::Big => *word,
            Order::Little => word.swap_bytes(),
        };
        let join = |bits: u64, part: &u16| bits << 16 | u64::from(word(part));
        let bits = match self.word_order {
            Order::Big => words.iter().fold(0, join),
            Order::Little => words.iter().rev().fold(0, join),
        };
        let value = match self.kind {
            Type::Bool => return Some(Value::Bool(bits != 0)),
            Type::U16 | Type::U32 | Type::U64 => Value::Unsigned(bits),
            Type::I16 => Value::Signed(i64::from(bits as u16 as i16)),
            Type::I32 => Value::Signed(i64::from(bits as u32 as i32)),
            Type::I64 => Value::Signed(bits as i64),
            Type::F32 => Value::Float(shortest(f32::from_bits(bits as u32))?),
            Type::F64 => Value::Float(f64::from_bits(bits)),
        };
        self.scaled(value)
    }

    fn scaled(&self, value: Value) -> Option<Value> {
        let number = match value {
            Value::Float(number) => number,
            // Integers stay exact unless they are to be scaled.
            _ if self.scale == 1.0 && self.offset == 0.0 => return Some(value),
            Value::Unsigned(number) => number as f64,
            Value::Signed(number) => number as f64,
            Value::Bool(_) => return Some(value),
        };
        let number = if self.scale == 1.0 && self.offset == 0.0 {
            number
        } else {
            let product = number * self.scale;
            rounded(product + self.offset, product.abs().max(self.offset.abs()))
        };
        number.is_finite().then_some(Value::Float(number))
    }
}

/// 230.1 and not 230.10000610351562: the shortest decimal that stands for the same f32.
fn shortest(number: f32) -> Option<f64> {
    number.to_string().parse().ok()
}

/// 230.1 and not 230.10000000000002: what a scale of 0.1 adds is noise. The largest number that was reckoned with has 15
/// digits that mean something.
fn rounded(number: f64, largest: f64) -> f64 {
    let decimals = 14.0 - largest.log10().floor();
    if !(0.0..=300.0).contains(&decimals) {
        return number;
    }
    format!("{number:.*}", decimals as usize).parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn register(kind: Type) -> Register {
        Register {
            name: "a".into(),
            table: Table::Holding,
            address: 0,
            kind,
            word_order: Order::Big,
            byte_order: Order::Big,
            scale: 1.0,
            offset: 0.0,
        }
    }

    #[test]
    fn words_become_numbers() {
        for (kind, words, value) in [
            (Type::U16, &[0xffff][..], Value::Unsigned(65535)),
            (Type::I16, &[0xffff], Value::Signed(-1)),
            (Type::U32, &[0x0001, 0x0002], Value::Unsigned(65538)),
            (Type::I32, &[0xffff, 0xfffe], Value::Signed(-2)),
            (Type::U64, &[0xffff; 4], Value::Unsigned(u64::MAX)),
            (Type::I64, &[0x8000, 0, 0, 0], Value::Signed(i64::MIN)),
            // 230.1 as f32 is 0x4366199a.
            (Type::F32, &[0x4366, 0x199a], Value::Float(230.1)),
            (Type::F64, &[0x3ff8, 0, 0, 0], Value::Float(1.5)),
            (Type::Bool, &[0], Value::Bool(false)),
            (Type::Bool, &[1], Value::Bool(true)),
        ] {
            assert_eq!(register(kind).decode(words), Some(value), "{kind:?}");
        }
        assert_eq!(register(Type::F32).decode(&[0x7fc0, 0]), None, "not a number");
        assert_eq!(register(Type::F64).decode(&[0x7ff0, 0, 0, 0]), None, "infinite");
        assert_eq!(register(Type::U32).decode(&[1]), None, "half of it");
    }

    #[test]
    fn orders_of_words_and_bytes() {
        let value =
            |word_order, byte_order, words| Register { word_order, byte_order, ..register(Type::U32) }.decode(words);
        let expected = Some(Value::Unsigned(0x0a0b_0c0d));
        assert_eq!(value(Order::Big, Order::Big, &[0x0a0b, 0x0c0d]), expected);
        assert_eq!(value(Order::Little, Order::Big, &[0x0c0d, 0x0a0b]), expected);
        assert_eq!(value(Order::Big, Order::Little, &[0x0b0a, 0x0d0c]), expected);
        assert_eq!(value(Order::Little, Order::Little, &[0x0d0c, 0x0b0a]), expected);
    }

    #[test]
    fn values_are_scaled_without_noise() {
        let tenths = Register { scale: 0.1, ..register(Type::U16) };
        assert_eq!(tenths.decode(&[2301]), Some(Value::Float(230.1)));
        let kelvin = Register { scale: 0.01, offset: -273.15, ..register(Type::U16) };
        assert_eq!(kelvin.decode(&[29315]), Some(Value::Float(20.0)));
        assert_eq!(Register { scale: 2.0, ..register(Type::Bool) }.decode(&[1]), Some(Value::Bool(true)));
        assert_eq!(Register { scale: f64::MAX, ..register(Type::U16) }.decode(&[2]), None, "infinite");
    }

    proptest! {
        #[test]
        fn any_words_are_decoded_or_refused(words in proptest::collection::vec(any::<u16>(), 0..5), scale in any::<f64>()) {
            for kind in [Type::Bool, Type::U16, Type::I16, Type::U32, Type::I32, Type::U64, Type::I64, Type::F32, Type::F64] {
                let value = Register { scale, ..register(kind) }.decode(&words);
                if let Some(Value::Float(number)) = value {
                    prop_assert!(number.is_finite());
                }
            }
        }
    }
}
