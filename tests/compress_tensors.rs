//! Tensors of model files as codes: what is written decodes to what the report says, all else is copied.

#![cfg(all(feature = "safetensors", feature = "gguf"))]

use lapidary::{
    ErrorKind,
    compress::{self, Progress, Recipe},
    format::{
        file::{self, ElementType, TensorFile},
        gguf::{Gguf, Value},
        safetensors::{Convention, Quantized},
    },
};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lapidary-tensors-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn input(&self) -> PathBuf {
        let path = self.0.join("in.safetensors");
        fs::write(&path, include_bytes!("fixtures/digits_rescnn.safetensors")).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Compares all tensors that the report says were quantized, by `decode`, and all others byte for byte.
fn check(report: &compress::Report, input: &Path, output: &Path, decode: impl Fn(&dyn TensorFile, &str) -> Vec<f32>) {
    let (before, after) = (file::open(input).unwrap(), file::open(output).unwrap());
    assert_eq!((report.bytes_before, report.bytes_after), (before.byte_len(), after.byte_len()));
    for (index, info) in before.tensors().iter().enumerate() {
        let line = report.tensors.iter().find(|line| line.name == info.name && line.outcome.is_ok());
        let Some(line) = line else {
            let copy = after.find(&info.name).unwrap();
            assert_eq!(after.data(copy).unwrap(), before.data(index).unwrap(), "{}", info.name);
            continue;
        };
        let (want, got) = (before.to_f32(index).unwrap(), decode(&*after, &info.name));
        let error = want.iter().zip(&got).map(|(x, y)| f64::from((x - y).abs())).fold(0.0, f64::max);
        let largest = want.iter().fold(0f64, |largest, x| largest.max(f64::from(x.abs())));
        assert!((error - line.max_abs.unwrap()).abs() <= 1e-7 * largest, "{}: {error} {:?}", info.name, line.max_abs);
        assert!(line.bound.is_none_or(|bound| error <= bound));
        assert!(line.sqnr_db.unwrap() > 8.0);
    }
}

#[test]
fn safetensors_keep_what_the_report_says() {
    let folder = Folder::new("safetensors");
    let (input, output) = (folder.input(), folder.0.join("out.safetensors"));
    let recipe = |bits: u8| Recipe::new().with_bits(bits).unwrap().with_min_elements(300);
    for (recipe, convention, count) in [
        (recipe(2).with_group(16).unwrap(), Convention::Lapidary, 6),
        (recipe(4), Convention::Lapidary, 6),
        (recipe(8).symmetric(), Convention::PerChannelInt8, 6),
        // Only the last layer is a matrix.
        (recipe(4).with_group(32).unwrap().symmetric(), Convention::PackQuantized, 1),
        (recipe(8), Convention::IntQuantized, 1),
    ] {
        let report = compress::safetensors(&input, &output, &recipe, convention, &go_on).unwrap();
        let done = report.tensors.iter().filter(|tensor| tensor.outcome.is_ok()).count();
        assert_eq!(done, count, "{convention:?} {report}");
        check(&report, &input, &output, |file, name| Quantized::of(file).read(name).unwrap().dequantize());
        // Once more, what holds codes and scales stays.
        let twice = folder.0.join("twice.safetensors");
        let again = recipe.with_min_elements(1);
        compress::safetensors(&output, &twice, &again, Convention::Lapidary, &go_on).unwrap();
        let (once, twice) = (file::open(&output).unwrap(), file::open(&twice).unwrap());
        let (once, twice) = (Quantized::of(&*once), Quantized::of(&*twice));
        once.names().for_each(|(name, _)| assert_eq!(twice.read(name).unwrap(), once.read(name).unwrap()));
    }
}

#[test]
fn blocks_keep_what_the_report_says() {
    let folder = Folder::new("gguf");
    let (input, output) = (folder.input(), folder.0.join("out.gguf"));
    for (recipe, element) in [
        (Recipe::new().with_bits(8).unwrap(), "Q8_0"),
        (Recipe::new().with_bits(4).unwrap(), "Q4_1"),
        (Recipe::new().with_bits(4).unwrap().symmetric(), "Q4_0"),
    ] {
        let recipe = recipe.with_min_elements(300);
        let report = compress::gguf(&input, &output, &recipe, &go_on).unwrap();
        // Kernels of 3 x 3 are no whole blocks.
        let done: Vec<_> = report.tensors.iter().filter(|tensor| tensor.outcome.is_ok()).collect();
        assert_eq!(done.len(), 1);
        assert!(done[0].outcome.as_ref().unwrap().to_uppercase().contains(element), "{report}");
        check(&report, &input, &output, |file, name| file.to_f32(file.find(name).unwrap()).unwrap());
        let written = Gguf::open(&output).unwrap();
        assert_eq!(written.value("general.quantization_version"), Some(&Value::U32(2)));
        assert!(written.tensors().iter().any(|tensor| matches!(tensor.element, ElementType::Block(_))));
    }
    let error = compress::gguf(&input, &output, &Recipe::new().with_bits(2).unwrap(), &go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
}

#[test]
fn nothing_is_left_of_what_is_stopped() {
    let folder = Folder::new("stopped");
    let (input, output) = (folder.input(), folder.0.join("out.safetensors"));
    let recipe = Recipe::new().with_bits(8).unwrap();
    let stop = |_: Progress<'_>| ControlFlow::Break(());
    let error = compress::safetensors(&input, &output, &recipe, Convention::Lapidary, &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let error = compress::safetensors(&input, &input, &recipe, Convention::Lapidary, &go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}
