//! Which requests bring which registers, and the record that is made of what they bring. Pure.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::register::{Register, Table, Value};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) table: Table,
    pub(super) address: u16,
    /// Words, or bits.
    pub(super) len: u16,
    /// Which registers it brings.
    registers: Vec<usize>,
}

/// What one unit is asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit {
    pub(super) id: u8,
    pub(super) registers: Vec<Register>,
    pub(super) blocks: Vec<Block>,
}

/// What a unit said.
#[derive(Debug, PartialEq)]
pub(super) struct Reading<'a> {
    unit: &'a Unit,
    values: Vec<Result<Value, String>>,
}

impl Unit {
    /// Plans the requests: neighbours are read together, as far as `request_max` goes, also if up to `gap` words (or bits)
    /// that nobody asked for lie between them.
    pub(super) fn new(id: u8, registers: Vec<Register>, gap: u16, request_max: u16) -> Self {
        let mut order: Vec<usize> = (0..registers.len()).collect();
        order.sort_by_key(|&at| (registers[at].table, registers[at].address, registers[at].len()));
        let mut blocks: Vec<Block> = Vec::new();
        for at in order {
            let register = &registers[at];
            let end = u32::from(register.address) + u32::from(register.len());
            let most = u32::from(register.table.request_max().min(request_max).max(register.len()));
            if let Some(block) = blocks.last_mut()
                && block.table == register.table
                && u32::from(register.address) <= u32::from(block.address) + u32::from(block.len) + u32::from(gap)
                && end - u32::from(block.address) <= most
            {
                let len = end - u32::from(block.address);
                block.len = block.len.max(u16::try_from(len).unwrap_or(u16::MAX));
                block.registers.push(at);
            } else {
                let (table, address, len) = (register.table, register.address, register.len());
                blocks.push(Block { table, address, len, registers: vec![at] });
            }
        }
        Self { id, registers, blocks }
    }

    /// Nothing is known yet: what is not read is told as `"not read"`.
    pub(super) fn reading(&self) -> Reading<'_> {
        Reading { unit: self, values: vec![Err("not read".to_owned()); self.registers.len()] }
    }
}

impl Reading<'_> {
    /// A block came: words, or bits as 0 and 1.
    pub(super) fn came(&mut self, block: &Block, words: &[u16]) {
        for &at in &block.registers {
            let register = &self.unit.registers[at];
            let words = words.get(usize::from(register.address - block.address)..).unwrap_or_default();
            self.values[at] = register.decode(words).ok_or_else(|| "not a number".to_owned());
        }
    }

    /// A block did not come.
    pub(super) fn failed(&mut self, block: &Block, why: &str) {
        for &at in &block.registers {
            self.values[at] = Err(why.to_owned());
        }
    }

    /// Whether anything came at all.
    pub(super) fn has_values(&self) -> bool {
        self.values.iter().any(Result::is_ok)
    }
}

/// `{"unit":1,"voltage":230.1,"current":null,"errors":{"current":"Illegal data address"}}`
impl Serialize for Reading<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Errors<'a>(&'a Reading<'a>);

        impl Serialize for Errors<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.named().filter_map(|(name, value)| Some((name, value.as_ref().err()?))))
            }
        }

        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("unit", &self.unit.id)?;
        for (name, value) in self.named() {
            match value {
                Ok(Value::Bool(value)) => map.serialize_entry(name, value)?,
                Ok(Value::Unsigned(value)) => map.serialize_entry(name, value)?,
                Ok(Value::Signed(value)) => map.serialize_entry(name, value)?,
                Ok(Value::Float(value)) => map.serialize_entry(name, value)?,
                Err(_) => map.serialize_entry(name, &())?,
            }
        }
        if self.values.iter().any(Result::is_err) {
            map.serialize_entry("errors", &Errors(self))?;
        }
        map.end()
    }
}

impl Reading<'_> {
    fn named(&self) -> impl Iterator<Item = (&str, &Result<Value, String>)> {
        self.unit.registers.iter().map(|register| &*register.name).zip(&self.values)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::register::{Order, Type},
        *,
    };

    fn register(name: &str, table: Table, address: u16, kind: Type) -> Register {
        let (word_order, byte_order) = (Order::Big, Order::Big);
        Register { name: name.into(), table, address, kind, word_order, byte_order, scale: 1.0, offset: 0.0 }
    }

    fn requests(unit: &Unit) -> Vec<(Table, u16, u16)> {
        unit.blocks.iter().map(|block| (block.table, block.address, block.len)).collect()
    }

    #[test]
    fn neighbours_are_read_together() {
        let registers = vec![
            register("c", Table::Holding, 4, Type::U16),
            register("a", Table::Holding, 0, Type::F32),
            register("b", Table::Holding, 2, Type::U16),
            register("on", Table::Coil, 0, Type::Bool),
            register("other", Table::Input, 0, Type::U16),
        ];
        let unit = Unit::new(1, registers.clone(), 0, 125);
        let rest = [(Table::Input, 0, 1), (Table::Coil, 0, 1)];
        assert_eq!(requests(&unit), [&[(Table::Holding, 0, 3), (Table::Holding, 4, 1)][..], &rest].concat());
        let unit = Unit::new(1, registers.clone(), 1, 125);
        assert_eq!(requests(&unit), [&[(Table::Holding, 0, 5)][..], &rest].concat());
        let unit = Unit::new(1, registers, 1, 2);
        assert_eq!(
            requests(&unit),
            [&[(Table::Holding, 0, 2), (Table::Holding, 2, 1), (Table::Holding, 4, 1)][..], &rest].concat()
        );
    }

    #[test]
    fn a_record_says_what_came_and_what_did_not() {
        let registers = vec![
            register("voltage", Table::Holding, 0, Type::F32),
            register("count", Table::Holding, 10, Type::U64),
            register("on", Table::Coil, 3, Type::Bool),
            register("level", Table::Input, 0, Type::I16),
        ];
        let unit = Unit::new(7, registers, 0, 125);
        let mut reading = unit.reading();
        assert!(!reading.has_values());
        reading.came(&unit.blocks[0], &[0x4366, 0x199a]);
        reading.failed(&unit.blocks[1], "Illegal data address");
        reading.came(&unit.blocks[3], &[1]);
        assert!(reading.has_values());
        let text = serde_json::to_string(&reading).expect("JSON");
        let wanted = r#"{"unit":7,"voltage":230.1,"count":null,"on":true,"level":null,"#;
        assert_eq!(text, format!(r#"{wanted}"errors":{{"count":"Illegal data address","level":"not read"}}}}"#));
        reading.came(&unit.blocks[1], &[0xffff; 4]);
        reading.came(&unit.blocks[2], &[0xffff]);
        let text = serde_json::to_string(&reading).expect("JSON");
        assert_eq!(text, r#"{"unit":7,"voltage":230.1,"count":18446744073709551615,"on":true,"level":-1}"#);
    }

    proptest! {
        #[test]
        fn every_register_is_in_a_request_that_a_device_answers(
            places in proptest::collection::vec((any::<u16>(), any::<bool>(), 0..4u8), 1..40),
            spread in 1..=u16::MAX,
            gap in 0..20u16,
            request_max in 1..=125u16,
        ) {
            let registers: Vec<_> = places.into_iter().map(|(address, bits, kind)| {
                let kind = if bits { Type::Bool } else { [Type::U16, Type::U32, Type::F64, Type::I16][usize::from(kind)] };
                let table = if bits { Table::Discrete } else { Table::Input };
                register("a", table, (address % spread).min(u16::MAX - 4), kind)
            }).collect();
            let unit = Unit::new(1, registers.clone(), gap, request_max);
            let mut seen = vec![0; registers.len()];
            for block in &unit.blocks {
                prop_assert!(block.len >= 1 && block.len <= request_max.max(4), "{:?}", block);
                for &at in &block.registers {
                    seen[at] += 1;
                    let register = &registers[at];
                    prop_assert_eq!(register.table, block.table);
                    prop_assert!(register.address >= block.address);
                    let end = u32::from(register.address) + u32::from(register.len());
                    prop_assert!(end <= u32::from(block.address) + u32::from(block.len));
                }
            }
            prop_assert_eq!(seen, vec![1; registers.len()]);
        }
    }
}
