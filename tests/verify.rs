//! Models run before and after: the numbers are those of their definitions.

#![cfg(feature = "rten")]

use flate2::read::GzDecoder;
use lapidary::{
    ErrorKind, Result,
    compress::{self, Feed, Form, Inputs, Recipe, Verification},
    format::{
        file::ElementType,
        onnx::{self, Onnx, proto::*},
    },
};
use std::{
    fs,
    io::Read,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

const RESCNN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/digits_rescnn.onnx");
const DIGITS: &[u8] = include_bytes!("../examples/data/digits_1797x65_u8.bin.gz");

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lapidary-verify-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, model: &ModelProto) -> PathBuf {
        let path = self.0.join(name);
        onnx::layout(model).unwrap().create(&path).unwrap().finish().unwrap();
        path
    }

    fn compressed(&self, input: &Path, recipe: &Recipe) -> PathBuf {
        let output = self.0.join("small.onnx");
        let report = compress::onnx(input, &output, recipe, &|_| ControlFlow::Continue(())).unwrap();
        assert!(report.tensors.iter().any(|tensor| tensor.outcome.is_ok()), "{report}");
        output
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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

fn value(name: &str, element: ElementType, sizes: &[Size]) -> ValueInfoProto {
    let dim = sizes.iter().map(|size| Dimension { value: Some(size.clone()), denotation: None }).collect();
    let shape = Some(TensorShapeProto { dim });
    let tensor = TensorType { elem_type: onnx::data_type(element), shape };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..Default::default() }
}

fn fixed(size: i64) -> Size {
    Size::DimValue(size)
}

fn open(name: &str) -> Size {
    Size::DimParam(name.into())
}

fn f32s(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    onnx::tensor(name, ElementType::F32, shape, raw.into()).unwrap()
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 7 * seed) * 2_654_435_761) % 10_007) as f32 / 5003.0 - 1.0).collect()
}

const K: usize = 80;
const N: usize = 33;

/// `y = x W`, with `x` of `[batch, K]`.
fn product(weight: &[f32]) -> ModelProto {
    let graph = GraphProto {
        node: vec![node("MatMul", &["x", "w"], "y")],
        name: Some("g".into()),
        initializer: vec![f32s("w", &[K, N], weight)],
        input: vec![value("x", ElementType::F32, &[open("batch"), fixed(K as i64)])],
        output: vec![value("y", ElementType::F32, &[open("batch"), fixed(N as i64)])],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(21) }];
    ModelProto { ir_version: Some(10), opset_import, graph: Some(graph), ..Default::default() }
}

/// Codes and levels by affine quantization along K, computed here: numbers as they are decoded, by blocks of 32.
fn by_hand(weight: &[f32], bits: u32) -> Vec<f64> {
    let mut decoded = vec![0.0; K * N];
    let top = f64::from((1u32 << bits) - 1);
    for column in 0..N {
        for start in (0..K).step_by(32) {
            let rows = start..K.min(start + 32);
            let values = rows.clone().map(|k| f64::from(weight[k * N + column]));
            let (low, high) = values.fold((0.0f64, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
            let scale = f64::from(((high - low) / top) as f32);
            let zero = (-low / scale).round_ties_even().clamp(0.0, top);
            for k in rows {
                let code = (f64::from(weight[k * N + column]) / scale).round_ties_even() + zero;
                decoded[k * N + column] = (code.clamp(0.0, top) - zero) * scale;
            }
        }
    }
    decoded
}

/// Inputs in a file, of one sample or of several, also where a name ends with a number by itself.
#[cfg(feature = "safetensors")]
#[test]
fn inputs_come_from_files() {
    use lapidary::format::{file::TensorInfo, safetensors};
    let folder = Folder::new("stored");
    let (weight, x) = (numbers(K * N, 1), numbers(4 * K, 2));
    let mut model = product(&weight);
    let path = folder.0.join("inputs.safetensors");
    let store = |names: &[&str]| {
        let info = |name: &&str| TensorInfo { name: (*name).into(), element: ElementType::F32, shape: vec![2, K] };
        let infos: Vec<_> = names.iter().map(info).collect();
        let file = safetensors::layout(&infos, &Default::default()).unwrap().create(&path).unwrap();
        for (i, x) in x.chunks(2 * K).take(names.len()).enumerate() {
            let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
            file.write(i, 0, &bytes).unwrap();
        }
        file.finish().unwrap();
    };
    for (input, names, samples) in [("x", &["x"][..], 1), ("x", &["x.0", "x.1"], 2), ("input.1", &["input.1"], 1)] {
        let graph = model.graph.as_mut().unwrap();
        (graph.input[0].name, graph.node[0].input[0]) = (Some(input.into()), input.into());
        let whole = folder.write("in.onnx", &model);
        store(names);
        let verification = compress::verify(&whole, &whole, &Inputs::open(&path).unwrap()).unwrap();
        assert_eq!((verification.samples, verification.max_relative()), (samples, 0.0));
        assert_eq!(verification.outputs[0].shape, [2, N]);
    }
    store(&["z"]);
    let whole = folder.write("in.onnx", &model);
    assert_eq!(
        compress::verify(&whole, &whole, &Inputs::open(&path).unwrap()).unwrap_err().kind(),
        ErrorKind::Argument
    );
    assert_eq!(Inputs::open(folder.0.join("absent.npz")).unwrap_err().kind(), ErrorKind::Io);
}

/// A layer of either order of its weight, with sums of all shapes, is the same whichever operator has its codes.
#[test]
fn layers_multiply_by_their_codes() {
    let folder = Folder::new("layers");
    let (weight, sums) = (numbers(K * N, 3), numbers(2 * N, 4));
    for (transposed, sum) in [(true, Some(vec![N])), (false, Some(vec![1, N])), (true, Some(vec![2, 1])), (false, None)]
    {
        let mut model = product(&weight);
        let graph = model.graph.as_mut().unwrap();
        let flag = AttributeProto { name: Some("transB".into()), i: Some(1), r#type: Some(2), ..Default::default() };
        graph.node[0] = node("Gemm", &["x", "w", "c"][..if sum.is_some() { 3 } else { 2 }], "y");
        if transposed {
            graph.node[0].attribute = vec![flag];
            graph.initializer = vec![f32s("w", &[N, K], &weight)];
        }
        if let Some(shape) = &sum {
            graph.initializer.push(f32s("c", shape, &sums[..shape.iter().product()]));
        }
        let input = folder.write("in.onnx", &model);
        let four = Recipe::new().with_bits(4).unwrap().with_group(32).unwrap();
        let decoded = folder.0.join("decoded.onnx");
        fs::rename(folder.compressed(&input, &four.clone().with_form(Form::Dequantize)), &decoded).unwrap();
        let multiplied = folder.compressed(&input, &four);
        let written = Onnx::open(&multiplied).unwrap();
        assert_eq!(written.model().graph.as_ref().unwrap().node[0].op_type.as_deref(), Some("MatMulNBits"));
        let inputs = Inputs::random(1).with_batch(2);
        let same = compress::verify(&decoded, &multiplied, &inputs).unwrap().max_relative();
        let off = compress::verify(&input, &multiplied, &inputs).unwrap().max_relative();
        assert!(same < 1e-6 && off > 1e-3 && off < 0.3, "{transposed} {sum:?}: {same} {off}");
    }
}

#[test]
fn numbers_are_those_computed_by_hand() {
    let folder = Folder::new("hand");
    let weight = numbers(K * N, 1);
    let input = folder.write("in.onnx", &product(&weight));
    let samples: Vec<Vec<f32>> = (0..3).map(|i| numbers(2 * K, 10 + i)).collect();
    let feeds = || samples.iter().map(|x| vec![("x".into(), Feed::f32(&[2, K], x.clone()).unwrap())]);
    let four = Recipe::new().with_bits(4).unwrap().with_group(32).unwrap();
    for (recipe, bits, expanded) in [
        (four.clone(), 4, "w_quantized"),
        (four.with_form(Form::Dequantize), 4, "w"),
        (Recipe::new().with_bits(2).unwrap().with_group(32).unwrap().with_form(Form::Dequantize), 2, "w"),
        (Recipe::new().with_bits(8).unwrap().with_group(32).unwrap(), 8, "w"),
    ] {
        let output = folder.compressed(&input, &recipe);
        let verification = compress::verify(&input, &output, &Inputs::given(feeds())).unwrap();
        assert_eq!(verification.expanded_compressed, [expanded]);
        assert!(verification.expanded_original.is_empty() && verification.samples == 3);
        let decoded = by_hand(&weight, bits);
        let (mut largest, mut sums, mut changed) = (0f64, [0.0; 4], 0);
        for row in samples.iter().flat_map(|sample| sample.chunks(K)) {
            let multiply = |w: &dyn Fn(usize) -> f64| {
                let y = (0..N).map(|n| (0..K).map(|k| f64::from(row[k]) * w(k * N + n)).sum::<f64>());
                y.collect::<Vec<f64>>()
            };
            let (x, y) = (multiply(&|i| f64::from(weight[i])), multiply(&|i| decoded[i]));
            let largest_at = |y: &[f64]| (0..N).max_by(|&a, &b| y[a].total_cmp(&y[b])).unwrap();
            changed += usize::from(largest_at(&x) != largest_at(&y));
            for (x, y) in x.iter().zip(&y) {
                largest = largest.max((x - y).abs());
                for (sum, term) in sums.iter_mut().zip([x * x, y * y, (x - y) * (x - y), x * y]) {
                    *sum += term;
                }
            }
        }
        let report = &verification.outputs[0];
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-5, "{bits} bits: {got} for {want}");
        close(report.max_abs, largest);
        close(report.relative, (sums[2] / sums[0]).sqrt());
        close(report.cosine, sums[3] / (sums[0] * sums[1]).sqrt());
        assert_eq!((report.name.as_str(), report.shape.as_slice(), report.rows), ("y", &[2, N][..], 6));
        assert_eq!(report.changed.len(), changed);
        // It is no small difference that agrees.
        assert!(report.relative > [0.0, 0.0, 0.1, 0.0, 0.01, 0.0, 0.0, 0.0, 1e-4][bits as usize]);
    }
}

#[test]
fn a_model_is_as_itself() {
    let inputs = Inputs::random(3).with_batch(5).with_samples(2);
    let verification = compress::verify(RESCNN, RESCNN, &inputs).unwrap();
    let report = &verification.outputs[0];
    assert_eq!((report.max_abs, report.relative, report.cosine, report.rows), (0.0, 0.0, 1.0, 10));
    assert!(report.changed.is_empty() && verification.max_relative() == 0.0);
    assert!(verification.to_string().contains("10 of 10"));
}

#[test]
fn nodes_may_be_called_as_values() {
    let folder = Folder::new("names");
    let mut model = product(&numbers(K * N, 1));
    model.graph.as_mut().unwrap().node[0].name = Some("y".into());
    let path = folder.write("in.onnx", &model);
    assert_eq!(compress::verify(&path, &path, &Inputs::random(0)).unwrap().max_relative(), 0.0);
}

#[test]
fn fewer_bits_differ_more() {
    let folder = Folder::new("recipes");
    for (recipe, above, below) in [
        (Recipe::new().with_bits(8).unwrap(), 1e-5, 0.05),
        (Recipe::new().with_bits(4).unwrap().with_group(16).unwrap(), 0.06, 0.5),
        (Recipe::new().with_bits(4).unwrap().symmetric(), 0.06, 0.6),
        (Recipe::new().with_bits(2).unwrap().with_group(16).unwrap(), 0.2, 2.0),
    ] {
        let output = folder.compressed(RESCNN.as_ref(), &recipe.with_min_elements(0));
        let inputs = Inputs::random(3).with_batch(8);
        let verification = compress::verify(RESCNN, &output, &inputs).unwrap();
        let relative = verification.max_relative();
        assert!(relative > above && relative < below, "{verification}");
        assert_eq!(verification.expanded_compressed.len(), 7);
        assert_eq!(compress::verify(RESCNN, &output, &inputs).unwrap(), verification);
    }
}

/// The digits that the network was not trained on, as images from 0 to 1, and their labels.
fn digits() -> (Vec<f32>, Vec<usize>) {
    let mut bytes = Vec::new();
    GzDecoder::new(DIGITS).read_to_end(&mut bytes).unwrap();
    let rows = || bytes.chunks(65).skip(3).step_by(4);
    let pixels = rows().flat_map(|row| row[..64].iter().map(|&pixel| f32::from(pixel) / 16.0)).collect();
    (pixels, rows().map(|row| usize::from(row[64])).collect())
}

#[test]
fn digits_stay_known() {
    let folder = Folder::new("digits");
    let (pixels, labels) = digits();
    assert_eq!(labels.len(), 449);
    let run = |recipe: Recipe| -> Verification {
        let output = folder.compressed(RESCNN.as_ref(), &recipe);
        let feed = Feed::f32(&[449, 1, 8, 8], pixels.clone()).unwrap();
        compress::verify(RESCNN, output, &Inputs::given([vec![("x".into(), feed)]])).unwrap()
    };
    let lost = |verification: &Verification| {
        let report = &verification.outputs[0];
        assert_eq!(report.rows, 449);
        report.changed.iter().filter(|changed| labels[changed.row] == changed.original).count()
    };
    assert_eq!(lost(&run(Recipe::new().with_bits(8).unwrap())), 0);
    let four = lost(&run(Recipe::new().with_bits(4).unwrap().with_group(32).unwrap()));
    assert!(four <= 4, "{four} lost");
}

#[test]
fn wrong_inputs_are_named() {
    let folder = Folder::new("inputs");
    let model = folder.write("in.onnx", &product(&numbers(K * N, 1)));
    let x = || ("x".to_string(), Feed::f32(&[1, K], vec![0.0; K]).unwrap());
    let run = |sample: Vec<(String, Feed)>| compress::verify(&model, &model, &Inputs::given([sample])).unwrap_err();
    let named = |name: &str, feed: Result<Feed>| vec![(name.to_string(), feed.unwrap())];
    let unknown = run(named("z", Feed::f32(&[1, K], vec![0.0; K])));
    assert!(unknown.kind() == ErrorKind::Argument && unknown.to_string().contains("\"z\""), "{unknown}");
    let missing = run(vec![]);
    assert_eq!((missing.kind(), missing.tensor()), (ErrorKind::Argument, Some("x")));
    assert_eq!(run(vec![x(), x()]).to_string(), "\"x\": input is given twice, must be given once");
    let kind = run(named("x", Feed::i64(&[1, K], vec![0; K])));
    assert!(kind.kind() == ErrorKind::Argument && kind.to_string().contains("i64 where the model has f32"), "{kind}");
    let shape = run(named("x", Feed::f32(&[1, 3], vec![0.0; 3])));
    assert_eq!((shape.kind(), shape.tensor()), (ErrorKind::Shape, Some("x")));
    assert_eq!(run(named("x", Feed::f32(&[K], vec![0.0; K]))).kind(), ErrorKind::Shape);
    assert_eq!(Feed::f32(&[2, 2], vec![0.0; 3]).unwrap_err().kind(), ErrorKind::Shape);
    let none = compress::verify(&model, &model, &Inputs::given([])).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Empty);
}

#[test]
fn what_cannot_run_is_named() {
    let folder = Folder::new("models");
    let plain = product(&numbers(K * N, 1));
    let good = folder.write("good.onnx", &plain);
    let inputs = Inputs::random(0);
    let changed = |name: &str, change: &dyn Fn(&mut GraphProto)| {
        let mut model = plain.clone();
        change(model.graph.as_mut().unwrap());
        folder.write(name, &model)
    };
    let error = |bad: &Path| compress::verify(&good, bad, &inputs).unwrap_err();
    let operator = changed("operator.onnx", &|graph| graph.node[0].op_type = Some("NoSuchOperator".into()));
    let refused = error(&operator);
    assert_eq!(refused.kind(), ErrorKind::Runtime);
    let words = refused.to_string();
    assert!(words.starts_with("the compressed model: ") && words.contains("NoSuchOperator"), "{words}");
    let misfit = changed("shape.onnx", &|graph| graph.initializer[0] = f32s("w", &[N, K], &numbers(K * N, 1)));
    assert_eq!(error(&misfit).kind(), ErrorKind::Runtime);
    let renamed = changed("output.onnx", &|graph| {
        graph.output[0].name = Some("z".into());
        graph.node[0].output[0] = "z".into();
    });
    assert_eq!((error(&renamed).kind(), error(&renamed).tensor()), (ErrorKind::Argument, Some("y")));
    let narrow = changed("narrow.onnx", &|graph| graph.initializer[0] = f32s("w", &[K, 1], &numbers(K, 1)));
    assert_eq!((error(&narrow).kind(), error(&narrow).tensor()), (ErrorKind::Shape, Some("y")));
    let undone = changed("input.onnx", &|graph| graph.input[0].name = Some("z".into()));
    assert_eq!(error(&undone).kind(), ErrorKind::Argument);
    assert_eq!(error(&folder.0.join("none.onnx")).kind(), ErrorKind::Io);
    // A dequantization that its definition does not allow.
    let levels = changed("levels.onnx", &|graph| {
        let codes = onnx::tensor("c", ElementType::U8, &[K, N], vec![1; K * N].into()).unwrap();
        graph.initializer = vec![codes, f32s("s", &[3], &[1.0; 3])];
        graph.node.insert(0, node("DequantizeLinear", &["c", "s"], "w"));
    });
    assert_eq!((error(&levels).kind(), error(&levels).tensor()), (ErrorKind::Shape, Some("w")));
}

#[test]
fn a_limit_holds_for_what_is_decoded() {
    let folder = Folder::new("limit");
    let input = folder.write("in.onnx", &product(&numbers(K * N, 1)));
    let output = folder.compressed(&input, &Recipe::new().with_bits(4).unwrap().with_group(32).unwrap());
    let length = fs::metadata(&input).unwrap().len();
    let small = fs::metadata(&output).unwrap().len();
    let run = |original: &Path, limit| compress::verify(original, &output, &Inputs::random(0).with_limit(limit));
    assert_eq!(run(&input, length - 1).unwrap_err().kind(), ErrorKind::Argument);
    let decoded = small + 4 * (K * N) as u64;
    assert!(run(&output, decoded).is_ok());
    let error = run(&output, decoded - 1).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Argument && error.to_string().contains("bytes of the model in memory"),
        "{error}"
    );
}
