//! The weights in files of `torch.save`. The files are by `tests/fixtures/weights.py`.

#![cfg(feature = "pytorch")]

use lapidary::{
    ErrorKind,
    format::{
        file::{self, ElementType, TensorFile},
        pytorch::PyTorch,
    },
    half::f16,
};
use proptest::prelude::*;
use std::fs;

const ZIP: &[u8] = include_bytes!("fixtures/weights.pt");
const LEGACY: &[u8] = include_bytes!("fixtures/weights_legacy.pth");

fn written(name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("lapidary-torch-{}-{name}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn weights_have_their_names_types_and_logical_order() {
    let path = written("w.pt", ZIP);
    let file = file::open(&path).unwrap();
    assert_eq!(file.format(), "pytorch");
    let names: Vec<&str> = file.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["0.bias", "0.weight", "2.bias", "2.weight", "t", "tied"]);
    let weight = file.find("0.weight").unwrap();
    assert_eq!((file.tensors()[weight].element, &file.tensors()[weight].shape[..]), (ElementType::F16, &[2, 3][..]));
    let values = file.to_f32(weight).unwrap();
    assert_eq!(values[1], f16::from_f32(0.3098).to_f32());
    assert_eq!(file.to_f32(file.find("tied").unwrap()).unwrap(), values);
    // Saved as a transposed view.
    let t: Vec<i64> =
        file.data(file.find("t").unwrap()).unwrap().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    assert_eq!(t, [0, 3, 1, 4, 2, 5]);
    assert!(file.to_f32(file.find("t").unwrap()).is_err());
    fs::remove_file(path).unwrap();
}

#[test]
fn older_files_and_parts_are_read() {
    let path = written("w.pth", LEGACY);
    let whole: Vec<String> = PyTorch::open(&path).unwrap().tensors().iter().map(|t| t.name.clone()).collect();
    assert_eq!(whole, ["model.a", "model.n.b"]);
    let part = PyTorch::open_key(&path, "model").unwrap();
    assert_eq!(part.tensors()[0].name, "a");
    assert_eq!(&part.data(1).unwrap()[..], [1, 0]);
    assert_eq!(PyTorch::open_key(&path, "absent").unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(PyTorch::open(path.with_extension("gone")).unwrap_err().kind(), ErrorKind::Io);
    fs::remove_file(path).unwrap();
}

proptest! {
    #[test]
    fn a_changed_file_is_read_or_refused(at in 0..10_000usize, byte: u8, cut in 0..3000usize) {
        for (name, bytes) in [("c.pt", ZIP), ("c.pth", LEGACY)] {
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            for cut in [0, cut] {
                bytes.truncate(bytes.len().saturating_sub(cut));
                if let Ok(file) = PyTorch::open(written(name, &bytes)) {
                    for index in 0..file.tensors().len() {
                        let _ = file.data(index);
                    }
                }
            }
        }
    }
}
