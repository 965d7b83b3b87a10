//! Models that are quantized and pruned: whatever can be read becomes a model that can be read, or an error.
#![no_main]

use lapidary::{
    compress::{self, Budget, Pruning, Recipe},
    format::{file::TensorFile, onnx::Onnx},
};
use libfuzzer_sys::fuzz_target;
use std::{fs, ops::ControlFlow};

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let folder = std::env::temp_dir().join(format!("lapidary-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    let (input, output) = (folder.join("in.onnx"), folder.join("out.onnx"));
    fs::write(&input, data).expect("room for a file");
    let mut recipe = Recipe::new().with_bits([2, 4, 8][usize::from(how % 3)]).expect("bits").with_min_elements(1);
    if how & 64 != 0 {
        recipe = recipe.with_group(32).expect("a group");
    }
    if how & 128 != 0 {
        recipe = recipe.symmetric();
    }
    if how & 32 != 0 {
        let pruning = if how & 8 != 0 { Pruning::n_of_m(2, 4) } else { Pruning::sparsity(0.9) };
        recipe = recipe.with_pruning(pruning.expect("a share").sparse_initializers());
    }
    if how & 16 != 0 {
        recipe = recipe.with_budget(Budget::Error(0.5)).expect("a budget");
    }
    if compress::onnx(&input, &output, &recipe, &|_| ControlFlow::Continue(())).is_ok() {
        let model = Onnx::open(&output).expect("what was written");
        (0..model.tensors().len()).for_each(|index| drop(model.data(index)));
    }
});
