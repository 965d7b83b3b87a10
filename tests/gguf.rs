//! GGUF files: those of the package `gguf`, ours, and broken ones.
#![cfg(feature = "gguf")]

use lapidary::{
    ErrorKind,
    format::{
        file::{self, BlockType, Bytes, ElementType, TensorFile, TensorInfo},
        gguf::{self, Array, Gguf, Value},
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/model_files");

fn fixture() -> Bytes {
    fs::read(Path::new(FIXTURES).join("model.gguf")).unwrap().into()
}

fn hex(text: &serde_json::Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn temporary(extension: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("lapidary-gguf-{}-{count}.{extension}", std::process::id()))
}

/// The bytes of a file of these tensors.
fn written(tensors: &[TensorInfo], metadata: &[(String, Value)], data: &[Bytes]) -> Vec<u8> {
    let path = temporary("gguf");
    let file = gguf::layout(tensors, metadata).unwrap().create(&path).unwrap();
    for (index, data) in data.iter().enumerate().rev() {
        file.write(index, 0, data).unwrap();
    }
    file.finish().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

fn data(file: &Gguf) -> Vec<Bytes> {
    (0..file.tensors().len()).map(|index| file.data(index).unwrap()).collect()
}

#[test]
fn tensors_of_the_package_are_read_to_the_bit() {
    let expected: serde_json::Value =
        serde_json::from_slice(&fs::read(Path::new(FIXTURES).join("expected.json")).unwrap()).unwrap();
    let expected = expected["gguf"].as_object().unwrap();
    // By its first bytes, whatever its name.
    let path = temporary("bin");
    fs::write(&path, fixture()).unwrap();
    let file = file::open(&path).unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!((file.format(), file.tensors().len()), ("gguf", expected.len()));
    let mut decoded = 0;
    for (name, expected) in expected {
        let index = file.find(name).unwrap();
        let info = &file.tensors()[index];
        assert_eq!(info.element.to_string(), *name);
        let shape: Vec<_> =
            expected["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        assert_eq!(info.shape, shape, "{name}");
        assert_eq!(file.data(index).unwrap(), hex(&expected["bytes"]), "{name}");
        let readable = match info.element {
            ElementType::Block(block) => block.ggml().is_some(),
            element => element.is_float(),
        };
        if readable {
            let bytes: Vec<_> = file.to_f32(index).unwrap().iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(bytes, hex(&expected["values"]), "{name}");
            decoded += 1;
        } else {
            let error = file.to_f32(index).unwrap_err();
            assert_eq!((error.kind(), error.tensor()), (ErrorKind::Argument, Some(&**name)));
        }
    }
    assert_eq!(decoded, 4 + 7);
    assert_eq!(file.data(expected.len()).unwrap_err().kind(), ErrorKind::Argument);
}

#[test]
fn metadata_of_the_package_is_read_with_its_types() {
    let file = Gguf::from_bytes(fixture()).unwrap();
    assert_eq!(file.version(), 3);
    let nested = Array::Array(vec![Array::I32(vec![1, 2]), Array::I32(vec![3])]);
    for (key, value) in [
        ("general.architecture", Value::String("llama".into())),
        ("general.alignment", Value::U32(64)),
        ("test.u8", Value::U8(200)),
        ("test.i8", Value::I8(-100)),
        ("test.u16", Value::U16(60_000)),
        ("test.i16", Value::I16(-30_000)),
        ("test.u32", Value::U32(4_000_000_000)),
        ("test.i32", Value::I32(-2_000_000_000)),
        ("test.u64", Value::U64((1 << 63) + 1)),
        ("test.i64", Value::I64(-(1 << 62))),
        ("test.f32", Value::F32(0.1)),
        ("test.f64", Value::F64(0.1)),
        ("test.bool", Value::Bool(true)),
        ("test.text", Value::String("grüße".into())),
        ("test.texts", Value::Array(Array::String(vec!["a".into(), String::new(), "ß".into()]))),
        ("test.ints", Value::Array(Array::I32((0..20).collect()))),
        ("test.floats", Value::Array(Array::F32(vec![0.5, -1.5]))),
        ("test.bools", Value::Array(Array::Bool(vec![true, false, true]))),
        ("test.nested", Value::Array(nested)),
    ] {
        assert_eq!(file.value(key), Some(&value), "{key}");
    }
    assert_eq!((file.values().len(), file.value("none")), (19, None));
    assert_eq!(file.metadata()["test.texts"], r#"["a", "", "ß"]"#);
}

#[test]
fn a_file_of_the_package_is_written_again_byte_for_byte() {
    let file = Gguf::from_bytes(fixture()).unwrap();
    assert_eq!(written(file.tensors(), file.values(), &data(&file)), fixture());
}

#[test]
fn version_2_is_read_others_and_big_endian_are_named() {
    let with = |version: [u8; 4]| {
        let mut bytes = fixture().to_vec();
        bytes[4..8].copy_from_slice(&version);
        Gguf::from_bytes(bytes.into())
    };
    assert_eq!(with([2, 0, 0, 0]).unwrap().version(), 2);
    assert!(with([1, 0, 0, 0]).unwrap_err().to_string().contains("version 1"));
    assert!(with([0, 0, 0, 3]).unwrap_err().to_string().contains("big-endian"));
}

#[test]
fn a_file_without_tensors_and_metadata_is_one() {
    let bytes = written(&[], &[], &[]);
    assert_eq!(bytes.len(), 32);
    let file = Gguf::from_bytes(bytes.into()).unwrap();
    assert!(file.tensors().is_empty() && file.values().is_empty());
}

fn element() -> impl Strategy<Value = ElementType> {
    let plain = [
        ElementType::F32,
        ElementType::F16,
        ElementType::Bf16,
        ElementType::F64,
        ElementType::I8,
        ElementType::I16,
        ElementType::I32,
        ElementType::I64,
    ];
    prop_oneof![select(plain.to_vec()), select(BlockType::ALL).prop_map(ElementType::Block)]
}

fn tensor() -> impl Strategy<Value = (ElementType, Vec<usize>, u8)> {
    (element(), vec(0usize..4, 0..4), 1usize..3, any::<u8>()).prop_map(|(element, mut shape, row, fill)| {
        if let ElementType::Block(block) = element {
            shape.push(row * block.block_len());
        }
        (element, shape, fill)
    })
}

fn array() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..5).prop_map(Array::U8),
        vec(any::<i8>(), 0..5).prop_map(Array::I8),
        vec(any::<u16>(), 0..5).prop_map(Array::U16),
        vec(any::<i16>(), 0..5).prop_map(Array::I16),
        vec(any::<u32>(), 0..5).prop_map(Array::U32),
        vec(any::<i32>(), 0..5).prop_map(Array::I32),
        vec(any::<f32>(), 0..5).prop_map(Array::F32),
        vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        vec(".*", 0..5).prop_map(Array::String),
        vec(any::<u64>(), 0..5).prop_map(Array::U64),
        vec(any::<i64>(), 0..5).prop_map(Array::I64),
        vec(any::<f64>(), 0..5).prop_map(Array::F64),
    ];
    leaf.prop_recursive(7, 20, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".*".prop_map(Value::String),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
        array().prop_map(Value::Array),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read_and_written_again_the_same(
        tensors in vec(tensor(), 0..6),
        values in vec(value(), 0..8),
        alignment in prop_oneof![Just(None), (0u32..10).prop_map(|bits| Some(1 << bits))],
    ) {
        let mut metadata: Vec<_> = values.into_iter().enumerate().map(|(i, value)| (format!("k.{i}"), value)).collect();
        metadata.extend(alignment.map(|alignment| ("general.alignment".into(), Value::U32(alignment))));
        let mut infos = Vec::new();
        let mut bytes = Vec::new();
        for (i, (element, shape, fill)) in tensors.into_iter().enumerate() {
            let info = TensorInfo { name: format!("blk.{i}.weight"), element, shape };
            bytes.push(Bytes::from(vec![fill; info.byte_len().unwrap()]));
            infos.push(info);
        }
        let first = written(&infos, &metadata, &bytes);
        prop_assert_eq!(first.len() % alignment.unwrap_or(32) as usize, 0);
        let file = Gguf::from_bytes(first.clone().into()).unwrap();
        prop_assert_eq!(file.tensors(), &infos[..]);
        prop_assert_eq!(file.values(), &metadata[..]);
        prop_assert_eq!(&data(&file), &bytes);
        prop_assert_eq!(written(file.tensors(), file.values(), &data(&file)), first);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    #[test]
    fn a_broken_file_is_an_error_or_another_file(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        wide in proptest::option::of((any::<prop::sample::Index>(), select(vec![u64::MAX, 1 << 63, 1 << 60, 1 << 32, 0]))),
        end in proptest::option::of(any::<prop::sample::Index>()),
        // Most of the file is elements: where what is said of them is.
        within in select(vec![24usize, 400, 1800, usize::MAX]),
    ) {
        let mut bytes = fixture().to_vec();
        let within = within.min(bytes.len());
        for (at, byte) in changes {
            bytes[at.index(within)] = byte;
        }
        if let Some((at, number)) = wide {
            let at = at.index(within.min(bytes.len() - 8));
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(file) = Gguf::from_bytes(bytes.into()) {
            file.metadata();
            for (index, info) in file.tensors().iter().enumerate() {
                prop_assert_eq!(file.data(index).unwrap().len(), info.byte_len().unwrap());
                let _ = (&file as &dyn TensorFile).to_f32(index);
            }
        }
    }
}
