//! Formats that are read from files: ONNX models, which are written again, and what `torch.save` wrote. The first byte says which.
#![no_main]

use lapidary::format::{
    file::TensorFile,
    onnx::{self, Onnx},
    pytorch::PyTorch,
};
use libfuzzer_sys::fuzz_target;
use std::fs;

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let folder = std::env::temp_dir().join(format!("lapidary-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    let path = folder.join("model");
    fs::write(&path, data).expect("room for a file");
    if which % 2 == 0 {
        if let Ok(model) = Onnx::open(&path) {
            (0..model.tensors().len()).for_each(|index| drop(model.data(index)));
            // What is read is written, and reads the same.
            if let Ok(layout) = onnx::layout(model.model()) {
                let again = folder.join("again");
                layout.create(&again).expect("a layout that fits").finish().expect("all of it");
                assert_eq!(Onnx::open(&again).expect("a model").model(), model.model());
            }
        }
    } else if let Ok(file) = PyTorch::open(&path) {
        (0..file.tensors().len()).for_each(|index| drop(file.data(index)));
    }
});
