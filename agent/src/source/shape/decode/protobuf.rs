//! Protobuf messages as JSON, by a descriptor file rather than by generated code.
//!
//! The JSON is protobuf's own mapping (<https://protobuf.dev/programming-guides/json/>): lowerCamelCase names, 64-bit
//! integers as texts, bytes as base64, fields without a value left out. Most bytes are some message or another, so only what
//! breaks the encoding itself is undecodable.

use std::{fs, path::Path};

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

#[derive(Debug, Clone)]
pub(in super::super) struct Protobuf(MessageDescriptor);

impl Protobuf {
    /// Reads a file of descriptors; the error is a sentence fragment.
    pub(super) fn read(file: &Path) -> Result<DescriptorPool, String> {
        let shown = file.display();
        let bytes = fs::read(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let pool = DescriptorPool::decode(&*bytes);
        pool.map_err(|error| {
            format!("{shown} is not what `protoc --descriptor_set_out=FILE --include_imports` writes: {error}")
        })
    }

    /// For one message of the pool; the error is a sentence fragment.
    pub(super) fn new(pool: &DescriptorPool, message: &str) -> Result<Self, String> {
        let known = || {
            let known: Vec<_> = pool.all_messages().map(|message| format!("`{}`", message.full_name())).collect();
            format!("there is no message `{message}`; there are {}", known.join(", "))
        };
        pool.get_message_by_name(message).map(Self).ok_or_else(known)
    }

    /// The error is a sentence fragment.
    pub(super) fn decode(&self, payload: &[u8]) -> Result<String, String> {
        let name = self.0.full_name();
        let message = DynamicMessage::decode(self.0.clone(), payload)
            .map_err(|error| format!("not a message `{name}`: {error}"))?;
        let mut out = Vec::with_capacity(payload.len() * 2);
        let mut writer = serde_json::Serializer::new(&mut out);
        let written = message.serialize_with_options(&mut writer, &SerializeOptions::new());
        written.map_err(|error| format!("`{name}` cannot be written as JSON: {error}"))?;
        String::from_utf8(out).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
pub(in super::super) mod tests {
    use prost_reflect::{
        prost::Message as _,
        prost_types::{
            DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
            field_descriptor_proto::{Label, Type},
        },
    };

    use super::*;

    /// What protoc makes of
    /// `package plant; message Reading { string device_id = 1; double temp = 2; int64 count = 3; bytes raw = 4; Reading inner = 5; }`.
    pub(in super::super::super) fn descriptors() -> Vec<u8> {
        let field = |name: &str, number, kind: Type| FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            label: Some(Label::Optional.into()),
            r#type: Some(kind.into()),
            type_name: (kind == Type::Message).then(|| ".plant.Reading".into()),
            ..Default::default()
        };
        let reading = DescriptorProto {
            name: Some("Reading".into()),
            field: vec![
                field("device_id", 1, Type::String),
                field("temp", 2, Type::Double),
                field("count", 3, Type::Int64),
                field("raw", 4, Type::Bytes),
                field("inner", 5, Type::Message),
            ],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("plant.proto".into()),
            package: Some("plant".into()),
            message_type: vec![reading],
            syntax: Some("proto3".into()),
            ..Default::default()
        };
        FileDescriptorSet { file: vec![file] }.encode_to_vec()
    }

    pub(in super::super) fn reading() -> Protobuf {
        let pool = DescriptorPool::decode(&*descriptors()).expect("descriptors");
        Protobuf::new(&pool, "plant.Reading").expect("known")
    }

    #[test]
    fn a_message_becomes_its_json() {
        let payload = [
            &b"\x0a\x03d-1\x11"[..],
            &21.5_f64.to_bits().to_le_bytes(),
            b"\x18\x07\x22\x02\xff\x00\x2a\x02\x18\x08\x38\x01",
        ]
        .concat();
        let told = r#"{"deviceId":"d-1","temp":21.5,"count":"7","raw":"/wA=","inner":{"count":"8"}}"#;
        assert_eq!(reading().decode(&payload).as_deref(), Ok(told));
        assert_eq!(reading().decode(b"").as_deref(), Ok("{}"));
    }

    #[test]
    fn a_broken_message_is_refused() {
        let deep = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| {
            let mut message = vec![0x2a];
            prost_reflect::prost::encoding::encode_varint(inner.len() as u64, &mut message);
            [message, inner].concat()
        });
        for payload in [&b"\x0a\x03d-"[..], b"\x0a", b"\x11\x00", b"\x0a\x01\xff", b"\x07", &deep] {
            assert!(reading().decode(payload).is_err(), "{payload:02x?}");
        }
    }

    #[test]
    fn a_mistaken_file_or_name_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("plant.pb");
        fs::write(&file, descriptors()).expect("written");
        let pool = Protobuf::read(&file).expect("descriptors");
        assert!(Protobuf::new(&pool, "Reading").expect_err("half a name").contains("`plant.Reading`"));
        fs::write(&file, b"syntax = \"proto3\";").expect("written");
        assert!(Protobuf::read(&file).expect_err("source").contains("--descriptor_set_out"));
        assert!(Protobuf::read(&dir.path().join("none")).expect_err("nothing").contains("cannot be read"));
    }
}
