//! TFLite models are read as the reference reads them, and broken ones are refused.
#![cfg(feature = "tflite")]

use lapidary::format::{
    file::{self, ElementType, TensorFile},
    tflite::TfLite,
};

const SMALL: &[u8] = include_bytes!("fixtures/tflite/small.tflite");

fn small() -> TfLite {
    TfLite::from_bytes(SMALL.into()).unwrap()
}

fn index(model: &TfLite, name: &str) -> usize {
    (model as &dyn TensorFile).find(name).unwrap()
}

#[test]
fn tensors_have_their_names_types_and_bytes() {
    let model = small();
    let found: Vec<_> = model.tensors().iter().map(|info| (&*info.name, info.element, &*info.shape)).collect();
    use ElementType::{Bool, F16, F32, F64, I4, I8, I32, I64, U8};
    let expected: [(&str, ElementType, &[usize]); 11] = [
        ("f32", F32, &[2, 3]),
        ("f16", F16, &[3]),
        ("f64", F64, &[2]),
        ("i64", I64, &[1]),
        ("i32", I32, &[]),
        ("bool", Bool, &[2]),
        ("tensor", I8, &[4]),
        ("channel", I8, &[2, 2]),
        ("i4", I4, &[2, 3]),
        ("u8", U8, &[2]),
        ("f32#1.0", F32, &[1]),
    ];
    assert_eq!(found, expected);
    let values = |name| (&model as &dyn TensorFile).to_f32(index(&model, name)).unwrap();
    assert_eq!(values("f32"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(values("f16"), [1.0, -2.0, 0.5]);
    assert_eq!(values("f64"), [0.25, -8.0]);
    assert_eq!(values("f32#1.0"), [5.0]);
    assert_eq!(*model.data(index(&model, "i64")).unwrap(), (-7i64).to_le_bytes());
    assert_eq!(*model.data(index(&model, "bool")).unwrap(), [1, 0]);
    let metadata = model.metadata();
    assert_eq!((&*metadata["description"], &*metadata["version"]), ("a small model", "3"));
    assert_eq!(metadata["left out: texts"], "texts");
    assert!(model.data(11).is_err() && model.quantized(11).is_err());
}

#[test]
fn quantized_tensors_dequantize_as_the_format_says() {
    let model = small();
    let values = |name| model.quantized(index(&model, name)).unwrap().dequantize::<f32>();
    assert_eq!(values("tensor"), [-63.5, 0.0, 0.5, 64.0]);
    assert_eq!(values("channel"), [-1.0, 1.0, 1.5, -2.0]);
    assert_eq!(values("i4"), [0.5, -4.0, 3.5, 0.0, 6.0, 2.0]);
    assert_eq!(values("u8"), [-16.0, 15.875]);
    let channel = model.quantization(index(&model, "channel")).unwrap();
    assert_eq!((&*channel.scales, &*channel.zero_points, channel.axis), (&[0.5, 0.25][..], &[0, 0][..], 1));
    assert!(model.quantization(0).is_none());
    assert_eq!(model.quantized(0).unwrap_err().tensor(), Some("f32"));
}

/// Whatever it gives, all of it is there.
fn look(bytes: Vec<u8>) -> bool {
    let Ok(model) = TfLite::from_bytes(bytes.into()) else { return false };
    for (i, info) in model.tensors().iter().enumerate() {
        assert_eq!(model.data(i).unwrap().len(), info.byte_len().unwrap());
        let _ = model.quantized(i);
    }
    true
}

#[test]
fn broken_files_are_refused_or_whole() {
    assert!(look(SMALL.to_vec()));
    assert!((0..64).all(|len| !look(SMALL[..len].to_vec())));
    let mut refused = 0;
    for at in 0..SMALL.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, SMALL[at] ^ 4] {
            let mut bytes = SMALL.to_vec();
            bytes[at] = value;
            refused += usize::from(!look(bytes));
        }
        look(SMALL[..at].to_vec());
    }
    // Most bytes are elements, names or padding.
    assert!(refused > 500, "{refused}");
}

#[test]
fn opens_by_identifier_or_extension() {
    let folder = std::env::temp_dir().join(format!("lapidary-tflite-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        file::open(path)
    };
    assert_eq!(write("model.bin", SMALL).unwrap().format(), "tflite");
    assert!(write("model.tflite", b"nothing").err().unwrap().to_string().contains("not a TFLite model"));
    // TensorFlow's own files are refused, and the error says the way round.
    let table = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();
    let files: [(&str, &[u8]); 4] = [
        ("model.ckpt.index", &table),
        ("model.ckpt.data-00000-of-00001", b"0123"),
        ("checkpoint", b"model_checkpoint_path: \"model.ckpt\""),
        ("saved_model.pb", b"\x08\x01"),
    ];
    for (name, bytes) in files {
        let error = write(name, bytes).err().unwrap().to_string();
        assert!(error.contains("TensorFlow") && error.contains("tf2onnx"), "{error}");
    }
    assert!(file::open(&folder).err().unwrap().to_string().contains("tf2onnx"));
    std::fs::remove_dir_all(folder).unwrap();
}
