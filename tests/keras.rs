//! Keras' files are read as h5py wrote them, and broken ones are refused.
#![cfg(feature = "keras")]

use flate2::read::GzDecoder;
use lapidary::format::{
    file::{self, ElementType, TensorFile},
    keras::Keras,
};
use std::{fs, io::Read};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/keras/{name}.gz", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn open(name: &str) -> Box<dyn TensorFile> {
    Box::new(Keras::from_bytes(fixture(name).into()).unwrap())
}

fn names(file: &dyn TensorFile) -> Vec<String> {
    file.tensors().iter().map(|info| format!("{} {} {:?}", info.name, info.element, info.shape)).collect()
}

/// What the script that made the files has floating-point tensors of.
fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32 * 0.25 - 3.0).collect()
}

#[test]
fn keras_2_files_have_their_weights_and_attributes() {
    let file = open("keras2.h5");
    let expected = [
        "model_weights/dense/dense/bias:0 f32 [5]",
        "model_weights/dense/dense/kernel:0 f32 [4, 5]",
        "model_weights/dense_1/dense_1/bias:0 f32 [3]",
        "model_weights/dense_1/dense_1/kernel:0 f32 [4, 3]",
    ];
    assert_eq!(names(&*file), expected);
    (0..4).for_each(|i| {
        let values = file.to_f32(i).unwrap();
        assert_eq!(values, ramp(values.len()));
    });
    let metadata = file.metadata();
    assert_eq!((&*metadata["backend"], &*metadata["keras_version"]), ("tensorflow", "2.15.0"));
    assert_eq!(metadata["model_config"], "{\"class_name\": \"Sequential\"}");
    assert_eq!(file.format(), "hdf5");
    assert!(file.data(4).is_err());
}

#[test]
fn keras_3_files_are_read_stored_and_deflated() {
    for name in ["stored.keras", "deflated.keras"] {
        let file = open(name);
        let expected = [
            "layers/dense/vars/0 f32 [3, 4]",
            "layers/dense/vars/1 f32 [4]",
            "layers/dense_1/vars/0 f16 [3, 4]",
            "layers/dense_1/vars/1 f16 [4]",
        ];
        assert_eq!(names(&*file), expected);
        (0..4).for_each(|i| {
            let values = file.to_f32(i).unwrap();
            assert_eq!(values, ramp(values.len()));
        });
        assert_eq!(file.metadata()["config.json"], "{\"class_name\": \"Sequential\"}");
        assert_eq!(file.format(), "keras");
    }
}

#[test]
fn every_type_and_layout_is_read() {
    let file = open("types.h5");
    let mut seen = 0;
    for (i, info) in file.tensors().iter().enumerate() {
        let (bytes, len) = (file.data(i).unwrap(), info.volume().unwrap());
        let integers = |size: usize| (0..len as u64).flat_map(|n| n.to_le_bytes()[..size].to_vec()).collect::<Vec<_>>();
        match info.element {
            ElementType::Bool => assert_eq!(*bytes, [1, 0, 1]),
            _ if info.name.ends_with("scalar") => assert_eq!(file.to_f32(i).unwrap(), [2.5]),
            element if element.is_float() => assert_eq!(file.to_f32(i).unwrap(), ramp(len), "{}", info.name),
            element => assert_eq!(*bytes, *integers(element.bits().unwrap() / 8), "{}", info.name),
        }
        seen += 1;
    }
    assert_eq!(seen, 22, "{:?}", names(&*file));
    let type_of = |name| file.tensors()[file.find(name).unwrap()].element;
    assert_eq!(type_of("contiguous/>f2"), ElementType::F16);
    assert_eq!(type_of("contiguous/<u8"), ElementType::U64);
    assert!(file.metadata().contains_key("left out: text"));
}

/// Whatever it gives, all of it is there.
fn look(bytes: Vec<u8>) -> bool {
    let Ok(file) = Keras::from_bytes(bytes.into()) else { return false };
    for (i, info) in file.tensors().iter().enumerate() {
        if let Ok(bytes) = file.data(i) {
            assert_eq!(bytes.len(), info.byte_len().unwrap());
        }
    }
    true
}

#[test]
fn broken_files_are_refused_or_whole() {
    std::panic::set_hook(Box::new(|info| {
        // A panic of the HDF5 reader is an error; one of this test is one.
        if !info.location().is_some_and(|place| place.file().contains("hdf5")) {
            eprintln!("{info}");
        }
    }));
    let mut refused = 0;
    for (name, step) in [("keras2.h5", 11), ("types.h5", 13), ("stored.keras", 5), ("deflated.keras", 1)] {
        let file = fixture(name);
        assert!(look(file.clone()));
        for at in (0..file.len()).step_by(step) {
            let mut bytes = file.clone();
            bytes[at] = [0xff, 0, 0x80, file[at].wrapping_add(1), file[at] ^ 2][at % 5];
            refused += usize::from(!look(bytes));
        }
        (0..file.len()).step_by(step * 17).for_each(|len| refused += usize::from(!look(file[..len].to_vec())));
    }
    assert!(refused > 500, "{refused}");
    let _ = std::panic::take_hook();
}

#[test]
fn opens_by_magic_or_extension() {
    let folder = std::env::temp_dir().join(format!("lapidary-keras-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (name, of) in [("model", "keras2.h5"), ("model.weights.h5", "types.h5"), ("model.keras", "stored.keras")] {
        let path = folder.join(name);
        fs::write(&path, fixture(of)).unwrap();
        assert!(!file::open(path).unwrap().tensors().is_empty());
    }
    let path = folder.join("broken.h5");
    fs::write(&path, b"no HDF5").unwrap();
    assert_eq!(file::open(path).err().unwrap().kind(), lapidary::ErrorKind::Format);
    fs::remove_dir_all(folder).unwrap();
}
