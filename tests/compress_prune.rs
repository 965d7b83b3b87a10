//! Weights of model files pruned: as many zeros as asked for, where `prune` has them, and they stay zero as codes.

#![cfg(all(feature = "onnx", feature = "safetensors", feature = "gguf", feature = "rayon"))]

use lapidary::{
    ErrorKind, Mask, PrunerExt, TensorRef,
    compress::{self, Budget, Form, Progress, Pruning, Recipe, Report},
    format::{
        file::{self, ElementType, TensorFile, TensorInfo},
        onnx::{self, Onnx, proto::*},
        safetensors::{self, Convention, Quantized},
    },
    half::f16,
    prune::{Magnitude, Random, Scores, Select},
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lapidary-prune-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
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

type Tensor<'a> = (&'a str, &'a [usize], &'a [f32]);

fn write(path: &Path, tensors: &[Tensor<'_>]) {
    let info = |&(name, shape, _): &Tensor<'_>| TensorInfo {
        name: name.into(),
        element: ElementType::F32,
        shape: shape.into(),
    };
    let infos: Vec<_> = tensors.iter().map(info).collect();
    let writer = safetensors::layout(&infos, &BTreeMap::new()).unwrap().create(path).unwrap();
    for (i, (_, _, values)) in tensors.iter().enumerate() {
        writer.write(i, 0, &values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap();
}

fn read(path: &Path, name: &str) -> Vec<f32> {
    let file = file::open(path).unwrap();
    file.to_f32(file.find(name).unwrap()).unwrap()
}

fn decoded(path: &Path, name: &str) -> Vec<f32> {
    Quantized::of(&*file::open(path).unwrap()).read(name).unwrap().dequantize()
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 7 * seed) * 2_654_435_761) % 10_007) as f32 / 5003.0 - 1.0).collect()
}

fn zeros(values: &[f32]) -> usize {
    values.iter().filter(|x| **x == 0.0).count()
}

/// The numbers, with zeros for what a mask of any shape drops.
fn masked(mask: &Mask, values: &[f32]) -> Vec<f32> {
    values.iter().enumerate().map(|(i, &x)| if mask.get(i) == Some(true) { x } else { 0.0 }).collect()
}

fn recipe(pruning: Pruning) -> Recipe {
    Recipe::new().with_pruning(pruning).with_min_elements(1)
}

fn to_safetensors(input: &Path, output: &Path, recipe: &Recipe) -> lapidary::Result<Report> {
    compress::safetensors(input, output, recipe, Convention::Lapidary, &go_on)
}

/// Any numbers whose differences are finite, with zeros and ties among them.
fn any_number() -> impl Strategy<Value = f32> {
    use prop::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    prop_oneof![
        4 => (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO).prop_map(|x| x.clamp(-1e38, 1e38)),
        4 => -1.0f32..1.0,
        1 => prop::sample::select(vec![0.0f32, -0.0, 0.5, -0.5, 1e-45]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_share_goes_and_is_where_the_pruner_has_it(
        rows in 1usize..9, columns in 1usize..70, seed in prop::collection::vec(any_number(), 1..600),
        share in prop_oneof![Just(0.0), Just(1.0), 0.0f64..1.0], bits in prop::sample::select(vec![0u8, 2, 4, 8]),
    ) {
        let folder = Folder::new();
        let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
        let values: Vec<f32> = seed.into_iter().cycle().take(rows * columns).collect();
        let shape = [rows, columns];
        write(&input, &[("w", &shape, &values)]);
        let pruner = Select::sparsity(share).unwrap().by(Magnitude);
        let want = masked(&pruner.mask(&values).unwrap(), &values);
        let mut recipe = recipe(Pruning::sparsity(share).unwrap());
        if bits > 0 {
            recipe = recipe.with_bits(bits).unwrap();
        }
        let report = to_safetensors(&input, &output, &recipe).unwrap();
        let asked = (share * values.len() as f64).round_ties_even() as usize;
        prop_assert_eq!(zeros(&want), asked.max(zeros(&values)));
        let got = if bits > 0 { decoded(&output, "w") } else { read(&output, "w") };
        if bits == 0 {
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&got), bits(&want));
        }
        want.iter().zip(&got).for_each(|(x, y)| assert!(*x != 0.0 || *y == 0.0, "{x} became {y}"));
        let line = &report.tensors[0];
        prop_assert_eq!(line.zeros, Some((zeros(&values) as u64, zeros(&got) as u64)));
        // What the report says is what was done to the numbers of the file.
        let error = values.iter().zip(&got).map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs()).fold(0.0, f64::max);
        let largest = values.iter().fold(0f64, |most, x| most.max(f64::from(x.abs())));
        prop_assert!((line.max_abs.unwrap() - error).abs() <= 1e-6 * largest);
        prop_assert!(line.max_abs.unwrap() <= line.bound.unwrap());
    }

    #[test]
    fn a_share_of_all_goes_from_where_it_is_least(
        lengths in prop::collection::vec(1usize..60, 1..5), seed in prop::collection::vec(any_number(), 1..300), share in 0.0f64..=1.0,
    ) {
        let folder = Folder::new();
        let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
        let mut numbers = seed.into_iter().cycle();
        let tensors: Vec<(String, Vec<f32>)> =
            lengths.iter().enumerate().map(|(i, &len)| (format!("w{i}"), numbers.by_ref().take(len).collect())).collect();
        let shapes: Vec<_> = tensors.iter().map(|(_, values)| [1, values.len()]).collect();
        let all: Vec<_> = tensors.iter().zip(&shapes).map(|((n, v), shape)| (&**n, &shape[..], &v[..])).collect();
        write(&input, &all);
        to_safetensors(&input, &output, &recipe(Pruning::sparsity(share).unwrap().globally())).unwrap();
        let mut masks: Vec<_> = shapes.iter().map(|shape| Mask::keep_all(shape).unwrap()).collect();
        let scores: Vec<_> = tensors.iter().map(|(_, values)| Scores::magnitude(values)).collect();
        Select::sparsity(share).unwrap().refine(&scores, &mut masks).unwrap();
        for ((name, values), mask) in tensors.iter().zip(&masks) {
            prop_assert_eq!(read(&output, name), masked(mask, values));
        }
    }
}

fn node(operator: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: input.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(value), r#type: Some(2), ..Default::default() }
}

fn value(name: &str, shape: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension { value: Some(Size::DimValue(size)), ..Default::default() };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TensorType { elem_type: Some(1), shape: Some(shape) };
    let r#type = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

const SHAPES: [(&str, &[usize]); 3] = [("product", &[90, 40]), ("linear", &[24, 40]), ("kernel", &[8, 10, 3, 3])];

/// A matrix product and a linear layer one after the other, and a convolution beside them.
fn model() -> ModelProto {
    let mut gemm = node("Gemm", &["h", "linear"], "y");
    gemm.attribute.push(int("transB", 1));
    let mut conv = node("Conv", &["p", "kernel"], "q");
    let ints = |name: &str, ints: &[i64]| AttributeProto {
        name: Some(name.into()),
        ints: ints.into(),
        r#type: Some(7),
        ..Default::default()
    };
    conv.attribute.extend([ints("strides", &[1, 1]), ints("dilations", &[1, 1]), ints("pads", &[0; 4])]);
    let nodes = vec![node("MatMul", &["x", "product"], "h"), gemm, conv];
    let tensor = |(i, (name, shape)): (usize, &(&str, &[usize]))| {
        let raw: Vec<u8> = numbers(shape.iter().product(), i).iter().flat_map(|x| x.to_le_bytes()).collect();
        onnx::tensor(name, ElementType::F32, shape, raw.into()).unwrap()
    };
    let graph = GraphProto {
        name: Some("g".into()),
        node: nodes,
        initializer: SHAPES.iter().enumerate().map(tensor).collect(),
        input: vec![value("x", &[5, 90]), value("p", &[2, 10, 6, 6])],
        output: vec![value("y", &[5, 24]), value("q", &[2, 8, 4, 4])],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(21) }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn model_in(folder: &Folder) -> PathBuf {
    let path = folder.path("in.onnx");
    onnx::layout(&model()).unwrap().create(&path).unwrap().finish().unwrap();
    path
}

/// The codes of 8 bits that are not the zero point of their channel, by index.
fn codes_at_zero(path: &Path, name: &str) -> Vec<bool> {
    let model = Onnx::open(path).unwrap();
    let graph = model.model().graph.clone().unwrap();
    let node = graph.node.iter().find(|node| node.output[0] == name).unwrap();
    let axis =
        node.attribute.iter().find(|of| of.name.as_deref() == Some("axis")).and_then(|of| of.i).unwrap() as usize;
    let file: Box<dyn TensorFile> = Box::new(model);
    let [codes, points] = [0, 2].map(|input| file.find(&node.input[input]).unwrap());
    let shape = file.tensors()[codes].shape.clone();
    let inner: usize = shape[axis + 1..].iter().product();
    let (codes, points) = (file.data(codes).unwrap(), file.data(points).unwrap());
    codes.iter().enumerate().map(|(i, code)| *code == points[i / inner % shape[axis]]).collect()
}

#[test]
fn two_of_four_lie_along_the_inputs() {
    let folder = Folder::new();
    let (input, output) = (model_in(&folder), folder.path("out.onnx"));
    let recipe = recipe(Pruning::n_of_m(2, 4).unwrap());
    let report = compress::onnx(&input, &output, &recipe, &go_on).unwrap();
    assert!(report.tensors.iter().all(|tensor| tensor.outcome.as_deref() == Ok("pruned")), "{report}");
    // The axis of the inputs of each.
    for ((name, shape), axis) in SHAPES.iter().zip([0, 1, 1]) {
        let (before, after) = (read(&input, name), read(&output, name));
        let (len, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        for outer in 0..after.len() / (len * inner) {
            for (i, start) in (0..inner).flat_map(|i| (0..len).step_by(4).map(move |start| (i, start))) {
                let places = (start..len.min(start + 4)).map(|k| (outer * len + k) * inner + i);
                let (size, kept) = (places.clone().count(), places.clone().filter(|&at| after[at] != 0.0));
                assert_eq!(kept.clone().count(), size.div_ceil(2), "{name}");
                let least = kept.map(|at| before[at].abs()).fold(f32::INFINITY, f32::min);
                assert!(places.clone().all(|at| after[at] != 0.0 || before[at].abs() <= least));
                assert!(places.clone().all(|at| after[at] == 0.0 || after[at] == before[at]));
            }
        }
    }
    compress::onnx(&input, &output, &recipe.with_bits(8).unwrap(), &go_on).unwrap();
    let pruned = Select::n_of_m(2, 4).unwrap().by(Magnitude);
    let values = read(&input, "linear");
    let mask = pruned.mask(TensorRef::new(&values, &[24, 40]).unwrap()).unwrap();
    let zero = codes_at_zero(&output, "linear");
    assert!((0..values.len()).all(|i| mask.get(i) == Some(true) || zero[i]));
}

#[test]
fn zeros_stay_zero_in_any_form() {
    let folder = Folder::new();
    let (input, output) = (model_in(&folder), folder.path("out.onnx"));
    for (bits, form) in [(8, Form::Dequantize), (4, Form::Dequantize), (4, Form::Auto), (2, Form::MatMulNBits)] {
        for symmetric in [false, true] {
            let recipe = recipe(Pruning::sparsity(0.6).unwrap()).with_bits(bits).unwrap().with_form(form);
            let recipe = if symmetric { recipe.symmetric() } else { recipe };
            let report = compress::onnx(&input, &output, &recipe, &go_on).unwrap();
            for tensor in &report.tensors {
                let (before, after) = tensor.zeros.unwrap();
                let all: usize = tensor.shape.iter().product();
                let asked = (0.6 * all as f64).round_ties_even() as u64;
                assert!(before <= 1 && after >= asked, "{} of {all}: {report}", tensor.name);
                // Fewer bits have more numbers that round to zero, but not all.
                assert!((after as usize) < all);
            }
        }
    }
    let recipe = recipe(Pruning::sparsity(0.5).unwrap()).with_bits(8).unwrap();
    compress::onnx(&input, &output, &recipe, &go_on).unwrap();
    for (name, _) in SHAPES {
        let values = read(&input, name);
        let mask = Magnitude::sparsity(0.5).unwrap().mask(&values).unwrap();
        let zero = codes_at_zero(&output, name);
        assert!((0..values.len()).all(|i| mask.get(i) == Some(true) || zero[i]), "{name}");
    }
}

#[test]
fn any_criterion_selects() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let (a, b) = (numbers(12 * 50, 1), numbers(7 * 31, 2));
    write(&input, &[("a", &[12, 50], &a), ("b", &[7, 31], &b)]);
    let random = |pruning: Pruning| recipe(pruning.by(Random::new(5)));
    to_safetensors(&input, &output, &random(Pruning::sparsity(0.7).unwrap())).unwrap();
    for (name, values) in [("a", &a), ("b", &b)] {
        let mask = Select::sparsity(0.7).unwrap().by(Random::new(5)).mask(values).unwrap();
        assert_eq!(read(&output, name), masked(&mask, values));
    }
    to_safetensors(&input, &output, &random(Pruning::n_of_m(1, 4).unwrap())).unwrap();
    let tensor = TensorRef::new(&a, &[12, 50]).unwrap();
    let mask = Select::n_of_m(1, 4).unwrap().by(Random::new(5)).mask(tensor).unwrap();
    assert_eq!(read(&output, "a"), masked(&mask, &a));
    let report = to_safetensors(&input, &output, &random(Pruning::sparsity(0.7).unwrap().globally())).unwrap();
    let left: u64 = report.tensors.iter().map(|tensor| tensor.zeros.unwrap().1).sum();
    assert!(left.abs_diff((0.7 * (a.len() + b.len()) as f64).round_ties_even() as u64) <= 1, "{left}");
}

#[test]
fn sparse_initializers_hold_what_is_left() {
    let folder = Folder::new();
    let (input, dense, sparse) = (model_in(&folder), folder.path("dense.onnx"), folder.path("sparse.onnx"));
    let pruning = Pruning::sparsity(0.95).unwrap();
    compress::onnx(&input, &dense, &recipe(pruning.clone()), &go_on).unwrap();
    let report = compress::onnx(&input, &sparse, &recipe(pruning.sparse_initializers()), &go_on).unwrap();
    assert_eq!((report.bytes_after, report.bytes_before), {
        let length = |path: &Path| fs::metadata(path).unwrap().len();
        (length(&sparse), length(&input))
    });
    assert!(report.bytes_after * 3 < report.bytes_before, "{report}");
    let model = Onnx::open(&sparse).unwrap();
    let graph = model.model().graph.clone().unwrap();
    assert!(graph.initializer.is_empty() && graph.sparse_initializer.len() == 3);
    for (tensor, (name, shape)) in graph.sparse_initializer.iter().zip(SHAPES) {
        let (values, indices) = (tensor.values.clone().unwrap(), tensor.indices.clone().unwrap());
        assert_eq!((values.name.as_deref(), tensor.dims.len()), (Some(name), shape.len()));
        let mut all = vec![0f32; shape.iter().product()];
        let (values, indices) = (values.raw_data.unwrap(), indices.raw_data.unwrap());
        for (value, index) in values.as_chunks().0.iter().zip(indices.as_chunks().0) {
            all[i64::from_le_bytes(*index) as usize] = f32::from_le_bytes(*value);
        }
        assert_eq!(all, read(&dense, name));
        let line = report.tensors.iter().find(|line| line.name == name).unwrap();
        assert_eq!(line.bytes_after, (values.len() + indices.len()) as u64);
    }
    // Indices would be longer than the zeros they stand for.
    let few = Pruning::sparsity(0.6).unwrap().sparse_initializers();
    compress::onnx(&input, &sparse, &recipe(few), &go_on).unwrap();
    assert!(Onnx::open(&sparse).unwrap().model().graph.as_ref().unwrap().sparse_initializer.is_empty());
}

#[cfg(feature = "rten")]
#[test]
fn sparse_models_compute_what_dense_ones_do() {
    let folder = Folder::new();
    let (input, dense, sparse) = (model_in(&folder), folder.path("dense.onnx"), folder.path("sparse.onnx"));
    let pruning = Pruning::sparsity(0.9).unwrap();
    compress::onnx(&input, &dense, &recipe(pruning.clone()), &go_on).unwrap();
    compress::onnx(&input, &sparse, &recipe(pruning.sparse_initializers()), &go_on).unwrap();
    let verified = compress::verify(&dense, &sparse, &compress::Inputs::random(1)).unwrap();
    assert!(verified.outputs.len() == 2 && verified.max_relative() == 0.0, "{verified}");
    assert!(compress::verify(&input, &sparse, &compress::Inputs::random(1)).unwrap().max_relative() > 0.1);
}

#[test]
fn blocks_of_gguf_have_the_zeros() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.gguf"));
    let values = numbers(6 * 512, 3);
    write(&input, &[("w", &[6, 512], &values)]);
    let mask = Magnitude::sparsity(0.5).unwrap().mask(&values).unwrap();
    for bits in [4, 8] {
        let recipe = recipe(Pruning::sparsity(0.5).unwrap()).with_bits(bits).unwrap();
        let report = compress::gguf(&input, &output, &recipe, &go_on).unwrap();
        let got = read(&output, "w");
        assert!((0..values.len()).all(|i| mask.get(i) == Some(true) || got[i] == 0.0), "{report}");
        assert!(zeros(&got) < 2300);
    }
    compress::gguf(&input, &output, &recipe(Pruning::sparsity(0.5).unwrap()), &go_on).unwrap();
    assert_eq!(zeros(&read(&output, "w")), 1536);
}

#[test]
fn numbers_of_16_bits_stay_to_the_bit() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let values: Vec<f16> = numbers(40 * 60, 4).into_iter().map(f16::from_f32).collect();
    let info = TensorInfo { name: "w".into(), element: ElementType::F16, shape: vec![40, 60] };
    let writer = safetensors::layout(&[info], &BTreeMap::new()).unwrap().create(&input).unwrap();
    writer.write(0, 0, &values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    to_safetensors(&input, &output, &recipe(Pruning::sparsity(0.25).unwrap())).unwrap();
    let (before, after) = (file::open(&input).unwrap(), file::open(&output).unwrap());
    let mask = Magnitude::sparsity(0.25).unwrap().mask(&values).unwrap();
    let (before, after) = (before.data(0).unwrap(), after.data(0).unwrap());
    for (i, (x, y)) in before.chunks(2).zip(after.chunks(2)).enumerate() {
        assert_eq!(y, if mask.get(i) == Some(true) { x } else { &[0, 0] });
    }
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let folder = Folder::new();
    let input = model_in(&folder);
    let pruning = |share| Pruning::sparsity(share).unwrap();
    for recipe in [
        recipe(pruning(0.5).globally()).with_bits(4).unwrap(),
        recipe(pruning(0.9).sparse_initializers()),
        recipe(Pruning::n_of_m(2, 4).unwrap()).with_bits(8).unwrap(),
        recipe(pruning(0.4).by(Random::new(2)).globally()).with_histograms(),
    ] {
        let written = |threads: usize| {
            let output = folder.path("out.onnx");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let report = pool.install(|| compress::onnx(&input, &output, &recipe, &go_on)).unwrap();
            (fs::read(output).unwrap(), report)
        };
        let one = written(1);
        assert!(written(2) == one && written(7) == one);
    }
}

#[test]
fn histograms_have_every_number() {
    let folder = Folder::new();
    let (input, output) = (model_in(&folder), folder.path("out.onnx"));
    let recipe = recipe(Pruning::sparsity(0.5).unwrap()).with_bits(8).unwrap().with_histograms();
    let report = compress::onnx(&input, &output, &recipe, &go_on).unwrap();
    for tensor in &report.tensors {
        let of = tensor.histogram.as_ref().unwrap();
        let all = tensor.shape.iter().product::<usize>() as u64;
        assert_eq!((of.before.iter().sum::<u64>(), of.after.iter().sum::<u64>()), (all, all));
        let values = read(&input, &tensor.name);
        assert_eq!(of.low, f64::from(values.iter().copied().fold(f32::INFINITY, f32::min)));
        assert_eq!(of.high, f64::from(values.iter().copied().fold(f32::NEG_INFINITY, f32::max)));
        // Half of all numbers are in one bin now, that of zero.
        let most = |bins: &[u64]| bins.iter().copied().max().unwrap();
        assert!(most(&of.after) >= all / 2 && most(&of.before) < all / 8, "{of:?}");
    }
}

#[test]
fn a_nan_is_named_and_nothing_is_left() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let mut values = numbers(64 * 40, 1);
    for bad in [f32::NAN, f32::INFINITY] {
        values[777] = bad;
        write(&input, &[("good", &[64, 40], &numbers(64 * 40, 2)), ("bad", &[64, 40], &values)]);
        let share = || Pruning::sparsity(0.5).unwrap();
        for pruning in [share(), share().globally(), share().by(Random::new(1)), Pruning::n_of_m(2, 4).unwrap()] {
            let plain = recipe(pruning);
            let coded = plain.clone().with_bits(4).unwrap();
            let budget = plain.clone().with_budget(Budget::Error(0.9)).unwrap();
            for recipe in [plain, coded, budget] {
                let error = to_safetensors(&input, &output, &recipe).unwrap_err();
                let place = (error.kind(), error.tensor(), error.index());
                assert_eq!(place, (ErrorKind::NonFinite, Some("bad"), Some(777)), "{recipe:?}");
                assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
            }
        }
    }
}
