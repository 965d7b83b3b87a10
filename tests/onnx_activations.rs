//! Activations as codes: products are those of integers, and what a network knows it still knows.

#![cfg(feature = "rten")]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod trained;

use lapidary::{
    ErrorKind,
    compress::{self, Activations, Feed, Form, Inputs, RangeMethod, Recipe, Report, Verification},
    format::{
        file::ElementType,
        onnx::{self, Onnx, proto::*},
    },
};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

const RESCNN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/digits_rescnn.onnx");

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lapidary-activations-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, model: &ModelProto) -> PathBuf {
        let path = self.0.join(name);
        onnx::layout(model).unwrap().create(&path).unwrap().finish().unwrap();
        path
    }

    fn out(&self) -> PathBuf {
        self.0.join("small.onnx")
    }

    fn compressed(&self, input: impl AsRef<Path>, recipe: &Recipe) -> Report {
        compress::onnx(input, self.out(), recipe, &|_| ControlFlow::Continue(())).unwrap()
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

fn with(mut node: NodeProto, name: &str, value: i64) -> NodeProto {
    let attribute = AttributeProto { name: Some(name.into()), i: Some(value), r#type: Some(2), ..Default::default() };
    node.attribute.push(attribute);
    node
}

fn with_float(mut node: NodeProto, name: &str, value: f32) -> NodeProto {
    let attribute = AttributeProto { name: Some(name.into()), f: Some(value), r#type: Some(1), ..Default::default() };
    node.attribute.push(attribute);
    node
}

/// A node over windows, with all attributes: the runtime has no defaults.
fn window(node: NodeProto, attributes: &[(&str, &[i64])]) -> NodeProto {
    let attribute = |&(name, ints): &(&str, &[i64])| AttributeProto {
        name: Some(name.into()),
        ints: ints.into(),
        r#type: Some(7),
        ..Default::default()
    };
    NodeProto { attribute: attributes.iter().map(attribute).collect(), ..node }
}

fn convolution(input: &[&str], output: &str) -> NodeProto {
    window(node("Conv", input, output), &[("strides", &[1, 1]), ("dilations", &[1, 1]), ("pads", &[0; 4])])
}

fn value(name: &str, sizes: &[usize]) -> ValueInfoProto {
    let dim = |&size: &usize| Dimension { value: Some(Size::DimValue(size as i64)), denotation: None };
    let shape = Some(TensorShapeProto { dim: sizes.iter().map(dim).collect() });
    let tensor = TensorType { elem_type: onnx::data_type(ElementType::F32), shape };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..Default::default() }
}

fn f32s(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    onnx::tensor(name, ElementType::F32, shape, raw.into()).unwrap()
}

fn model(
    opset: i64,
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    input: ValueInfoProto,
    output: Vec<ValueInfoProto>,
) -> ModelProto {
    let name = Some("g".into());
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
        graph: Some(GraphProto { node, initializer, name, input: vec![input], output, ..Default::default() }),
        ..Default::default()
    }
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 7 * seed) * 2_654_435_761) % 10_007) as f32 / 5003.0 - 1.0).collect()
}

/// Numbers from -100/256 to 155/256, both included: their codes are `256 x + 100`, without rounding.
fn steps(count: usize) -> Vec<f32> {
    let mut x: Vec<f32> = (0..count).map(|i| (i * 37 % 256) as f32 - 100.0).collect();
    (x[0], x[1]) = (-100.0, 155.0);
    x.iter().map(|x| x / 256.0).collect()
}

fn recipe(activations: Activations) -> Recipe {
    Recipe::new().with_bits(8).unwrap().with_min_elements(0).with_activations(activations)
}

fn operators(path: &Path) -> Vec<String> {
    let read = Onnx::open(path).unwrap();
    read.model().graph.as_ref().unwrap().node.iter().map(|node| node.op_type.clone().unwrap()).collect()
}

fn count(operators: &[String], operator: &str) -> usize {
    operators.iter().filter(|own| *own == operator).count()
}

/// A model that gives these numbers, whatever it is given.
fn expected(input: ValueInfoProto, outputs: &[(&str, &[usize], Vec<f32>)]) -> ModelProto {
    let names: Vec<String> = outputs.iter().map(|(name, ..)| format!("{name}_wanted")).collect();
    let nodes = outputs.iter().zip(&names).map(|((name, ..), wanted)| node("Identity", &[wanted], name)).collect();
    let tensors = outputs.iter().zip(&names).map(|((_, shape, values), name)| f32s(name, shape, values)).collect();
    model(13, nodes, tensors, input, outputs.iter().map(|(name, shape, _)| value(name, shape)).collect())
}

/// Codes of a column by their definition: scale, zero point, codes.
fn column(values: &[f32], symmetric: bool) -> (f32, i64, Vec<i64>) {
    let ends = values.iter().fold((0f64, 0f64), |(low, high), &x| (low.min(x.into()), high.max(x.into())));
    let scale = if symmetric { ends.1.max(-ends.0) / 127.0 } else { (ends.1 - ends.0) / 255.0 } as f32;
    let zero = if symmetric { 0.0 } else { (-ends.0 / f64::from(scale)).round_ties_even() };
    let code = |&x: &f32| (f64::from(x) / f64::from(scale)).round_ties_even() as i64 + zero as i64;
    let (least, most) = if symmetric { (-127, 127) } else { (0, 255) };
    (scale, zero as i64, values.iter().map(|x| code(x).clamp(least, most)).collect())
}

const K: usize = 48;
const N: usize = 21;

/// `x w` by integers, `w` of `[K, N]` by columns: `sums * (scale of x * scale of the column)`.
fn product(x: &[f32], columns: &[Vec<f32>], symmetric: bool) -> Vec<f32> {
    let columns: Vec<_> = columns.iter().map(|values| column(values, symmetric)).collect();
    let row = |row: &[f32]| {
        let codes: Vec<i64> = row.iter().map(|x| (x * 256.0) as i64 + 100).collect();
        let one = |(scale, zero, w): &(f32, i64, Vec<i64>)| {
            let sum: i64 = codes.iter().zip(w).map(|(x, w)| (x - 100) * (w - zero)).sum();
            sum as f32 * (1.0 / 256.0 * scale)
        };
        columns.iter().map(one).collect::<Vec<_>>()
    };
    x.chunks(K).flat_map(row).collect()
}

#[test]
fn dynamic_products_are_those_of_integers() {
    let folder = Folder::new("integers");
    let (w, v, bias) = (numbers(K * N, 1), numbers(K * N, 2), numbers(N, 3));
    let x = steps(3 * K);
    let nodes = vec![
        node("MatMul", &["x", "w"], "y"),
        with(node("Gemm", &["x", "v", "bias"], "z"), "transB", 1),
        node("Identity", &["w"], "u"),
        node("Gemm", &["x", "u"], "a"),
        node("Softmax", &["y"], "p"),
    ];
    let tensors = vec![f32s("w", &[K, N], &w), f32s("v", &[N, K], &v), f32s("bias", &[N], &bias)];
    let outputs = ["y", "z", "a"].map(|name| value(name, &[3, N])).to_vec();
    let whole = model(11, nodes, tensors, value("x", &[3, K]), outputs);
    let input = folder.write("in.onnx", &whole);
    let columns: Vec<Vec<f32>> = (0..N).map(|n| (0..K).map(|k| w[k * N + n]).collect()).collect();
    let rows: Vec<Vec<f32>> = v.chunks(K).map(<[f32]>::to_vec).collect();
    for symmetric in [false, true] {
        let recipe = recipe(Activations::Dynamic);
        let report = folder.compressed(&input, &if symmetric { recipe.symmetric() } else { recipe });
        assert!(report.tensors.iter().all(|tensor| tensor.outcome.as_ref().unwrap().contains("MatMulInteger")));
        let own = operators(&folder.out());
        assert_eq!((count(&own, "MatMulInteger"), count(&own, "DynamicQuantizeLinear")), (3, 1));
        assert_eq!((count(&own, "DequantizeLinear"), count(&own, "Identity")), (0, 0));
        assert_eq!(report.activations.len(), 1);
        assert_eq!((report.activations[0].name.as_str(), report.activations[0].levels), ("x", None));
        assert_eq!(report.activations[0].operators, ["MatMul", "Gemm"]);
        // The operators stay, as they are enough.
        assert_eq!(Onnx::open(folder.out()).unwrap().model().opset_import[0].version, Some(11));
        let y = product(&x, &columns, symmetric);
        let z = product(&x, &rows, symmetric).iter().zip(bias.iter().cycle()).map(|(y, b)| y + b).collect();
        let wanted = [("y", &[3, N][..], y.clone()), ("z", &[3, N], z), ("a", &[3, N], y)];
        let wanted = folder.write("wanted.onnx", &expected(value("x", &[3, K]), &wanted));
        let feed = Feed::f32(&[3, K], x.clone()).unwrap();
        let verification = compress::verify(&wanted, folder.out(), &Inputs::given([vec![("x".into(), feed)]])).unwrap();
        assert!(verification.outputs.iter().all(|output| output.max_abs == 0.0), "{symmetric} {verification}");
        // And they are near those of the original.
        let feed = Feed::f32(&[3, K], x.clone()).unwrap();
        let near = compress::verify(&input, folder.out(), &Inputs::given([vec![("x".into(), feed)]])).unwrap();
        assert!(near.max_relative() > 1e-5 && near.max_relative() < 0.02, "{near}");
    }
}

#[test]
fn a_static_convolution_is_one_of_integers() {
    let folder = Folder::new("convolution");
    let (channels, filters) = (3, 5);
    let x = steps(channels * 6 * 6);
    // Scales of 1/64: the sums of the products are exact in `f32`.
    let mut w = numbers(filters * channels * 9, 4);
    w.chunks_mut(channels * 9).for_each(|row| row[2] = -127.0 / 64.0);
    let bias = numbers(filters, 5);
    let nodes = vec![convolution(&["x", "w", "bias"], "c"), node("Relu", &["c"], "y")];
    let tensors = vec![f32s("w", &[filters, channels, 3, 3], &w), f32s("bias", &[filters], &bias)];
    let (shape, result) = ([1, channels, 6, 6], [1, filters, 4, 4]);
    let input = folder.write("in.onnx", &model(13, nodes, tensors, value("x", &shape), vec![value("y", &result)]));
    let inputs = || Inputs::given([vec![("x".into(), Feed::f32(&shape, x.clone()).unwrap())]]);
    let report = folder.compressed(&input, &recipe(Activations::Static(inputs(), RangeMethod::MinMax)));
    let own = operators(&folder.out());
    // Between the convolution and what cuts it off there is nothing.
    let pair = ["QuantizeLinear", "DequantizeLinear"];
    let place = own.iter().position(|operator| operator == "Conv").unwrap();
    assert_eq!(own[place + 1..], [&["Relu"][..], &pair].concat());
    assert_eq!((count(&own, pair[0]), count(&own, pair[1])), (2, 4));
    let [y, given] = &report.activations[..] else { panic!("{report}") };
    assert_eq!((y.name.as_str(), given.name.as_str(), given.method.as_str()), ("y", "x", "min-max"));
    let levels = given.levels.unwrap();
    assert_eq!((levels.scale, levels.zero_point), (1.0 / 256.0, 100));
    assert_eq!((levels.min, levels.max), (-100.0 / 256.0, 155.0 / 256.0));

    let convolve = |x: &dyn Fn(usize) -> f64, w: &dyn Fn(usize) -> f64, bias: &dyn Fn(usize) -> f64| {
        let mut out = Vec::new();
        for (f, row, col) in (0..filters).flat_map(|f| (0..16).map(move |i| (f, i / 4, i % 4))) {
            let terms = (0..channels * 9).map(|i| {
                let (c, r, k) = (i / 9, i / 3 % 3, i % 3);
                x(c * 36 + (row + r) * 6 + col + k) * w(f * channels * 9 + i)
            });
            out.push((terms.sum::<f64>() + bias(f)).max(0.0));
        }
        out
    };
    let float = convolve(&|i| x[i].into(), &|i| w[i].into(), &|f| bias[f].into());
    let most = float.iter().copied().fold(0.0, f64::max);
    let levels = y.levels.unwrap();
    assert!(levels.min == 0.0 && (levels.max - most).abs() < 1e-6 && levels.zero_point == 0, "{levels:?} {most}");
    assert_eq!(levels.scale, (levels.max / 255.0) as f32);
    let exact = convolve(
        &|i| (f64::from(x[i]) * 256.0).round(),
        &|i| (f64::from(w[i]) * 64.0).round_ties_even().clamp(-127.0, 127.0),
        &|f| (f64::from(bias[f]) * 16384.0).round_ties_even(),
    );
    // The runtime multiplies by the inverse of the scale.
    let code = |sum: &f64| ((sum / 16384.0) as f32 * (1.0 / levels.scale)).round_ties_even().clamp(0.0, 255.0);
    let wanted = exact.iter().map(|sum| code(sum) * levels.scale).collect();
    let wanted = folder.write("wanted.onnx", &expected(value("x", &shape), &[("y", &result, wanted)]));
    let verification = compress::verify(&wanted, folder.out(), &inputs()).unwrap();
    assert_eq!(verification.outputs[0].max_abs, 0.0, "{verification}");
    assert_eq!(verification.expanded_compressed, ["w"]);
}

#[test]
fn levels_are_shared_where_numbers_only_move() {
    let folder = Folder::new("plan");
    let nodes = vec![
        convolution(&["x", "w1"], "c1"),
        window(node("MaxPool", &["c1"], "m"), &[("kernel_shape", &[2, 2]), ("strides", &[1, 1]), ("pads", &[0; 4])]),
        convolution(&["m", "w2"], "c2"),
        node("Relu", &["c2"], "r"),
        convolution(&["m", "w2"], "c3"),
        node("Add", &["r", "c3"], "s"),
        node("Relu", &["s"], "t"),
        node("GlobalAveragePool", &["t"], "g"),
        with(node("Flatten", &["g"], "f"), "axis", 1),
        with(node("Gemm", &["f", "w3", "b3"], "y"), "transB", 1),
    ];
    let tensors = vec![
        f32s("w1", &[8, 2, 3, 3], &numbers(144, 1)),
        f32s("w2", &[8, 8, 2, 2], &numbers(256, 2)),
        f32s("w3", &[4, 8], &numbers(32, 3)),
        f32s("b3", &[4], &numbers(4, 4)),
    ];
    let input =
        folder.write("in.onnx", &model(13, nodes, tensors, value("x", &[1, 2, 9, 9]), vec![value("y", &[1, 4])]));
    let inputs = Inputs::random(1).with_samples(4);
    let report = folder.compressed(&input, &recipe(Activations::Static(inputs.clone(), RangeMethod::Mse)));
    let names: Vec<_> = report.activations.iter().map(|of| (of.name.as_str(), of.method.as_str())).collect();
    let own = "least squared error";
    let expected =
        [("c1", own), ("m", "as c1"), ("r", own), ("c3", own), ("t", own), ("g", own), ("f", "as g"), ("x", own)];
    assert_eq!(names, expected);
    assert_eq!(report.activations[0].levels, report.activations[1].levels);
    let operators = operators(&folder.out());
    assert_eq!((count(&operators, "QuantizeLinear"), count(&operators, "DequantizeLinear")), (8, 12));
    // What nothing multiplies by again stays exact: the output.
    assert_eq!(operators.last().unwrap(), "Gemm");
    let verification = compress::verify(&input, folder.out(), &inputs).unwrap();
    assert!(verification.max_relative() > 1e-4 && verification.max_relative() < 0.05, "{verification}");
    assert_eq!(verification.expanded_compressed.len(), 3);
}

fn answers(path: &Path, original: &Path, shape: &[usize], x: &[f32], y: &[u8]) -> (Verification, usize) {
    let feed = Feed::f32(shape, x.to_vec()).unwrap();
    let verification = compress::verify(original, path, &Inputs::given([vec![("x".into(), feed)]])).unwrap();
    let report = &verification.outputs[0];
    assert_eq!(report.rows, y.len());
    let lost = report.changed.iter().filter(|changed| usize::from(y[changed.row]) == changed.original).count();
    (verification, lost)
}

#[test]
fn digits_stay_known_by_integers() {
    let folder = Folder::new("digits");
    let (training, test) = trained::digits();
    let samples = training
        .x
        .chunks(64 * 100)
        .map(|x| vec![("x".to_string(), Feed::f32(&[x.len() / 64, 1, 8, 8], x.to_vec()).unwrap())]);
    let samples: Vec<_> = samples.collect();
    for method in
        [RangeMethod::MinMax, RangeMethod::Percentile(99.99), RangeMethod::Mse, RangeMethod::MovingAverage(0.1)]
    {
        let activations = Activations::Static(Inputs::given(samples.clone()), method);
        let report = folder.compressed(RESCNN, &recipe(activations));
        let (verification, lost) = answers(&folder.out(), RESCNN.as_ref(), &[449, 1, 8, 8], &test.x, &test.y);
        let operators = operators(&folder.out());
        assert_eq!(count(&operators, "BatchNormalization"), 0);
        assert!(report.notes.iter().any(|note| note.contains("batch normalizations")), "{report}");
        println!("{method}: {lost} lost, {verification}");
        assert!(lost <= 2, "{method}: {lost} lost, {verification}");
        assert!(verification.max_relative() > 1e-3 && verification.max_relative() < 0.1, "{method} {verification}");
    }
}

/// LeNet-300-100 as a model.
fn mlp() -> ModelProto {
    let (mut nodes, mut tensors, mut last) = (Vec::new(), Vec::new(), "x".to_string());
    for (i, layer) in trained::network().iter().enumerate() {
        let [w, b, y, r] = ["w", "b", "y", "r"].map(|name| format!("{name}{i}"));
        nodes.push(with(node("Gemm", &[&last, &w, &b], &y), "transB", 1));
        tensors.extend([f32s(&w, &layer.shape(), &layer.weight), f32s(&b, &[layer.outputs()], &layer.bias)]);
        if i < 2 {
            nodes.push(node("Relu", &[&y], &r));
        }
        last = r;
    }
    model(11, nodes, tensors, value("x", &[449, 64]), vec![value("y2", &[449, 10])])
}

#[test]
fn a_perceptron_is_found_when_it_runs() {
    let folder = Folder::new("perceptron");
    let input = folder.write("in.onnx", &mlp());
    let (_, test) = trained::digits();
    for recipe in [recipe(Activations::Dynamic), recipe(Activations::Dynamic).symmetric()] {
        let report = folder.compressed(&input, &recipe);
        let names: Vec<_> = report.activations.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["x", "r0", "r1"]);
        let (verification, lost) = answers(&folder.out(), &input, &[449, 64], &test.x, &test.y);
        println!("{lost} lost, {verification}");
        assert!(lost <= 2 && verification.max_relative() > 1e-3, "{lost} lost, {verification}");
        assert!(report.bytes_after * 3 < report.bytes_before);
    }
}

#[test]
fn what_cannot_be_integers_is_said() {
    let folder = Folder::new("reasons");
    let weight = |name: &str| f32s(name, &[32, 32], &numbers(1024, 1));
    let nodes = vec![
        with(node("Gemm", &["x", "a"], "1"), "transA", 1),
        with_float(node("Gemm", &["x", "b"], "2"), "alpha", 0.5),
        with_float(node("Gemm", &["x", "c", "x"], "3"), "beta", 2.0),
        node("MatMul", &["d", "x"], "4"),
        node("MatMul", &["x", "e"], "5"),
        node("Gather", &["e", "i"], "6"),
        node("MatMul", &["x", "f"], "7"),
        with_float(node("Gemm", &["x", "g"], "8"), "beta", 2.0),
    ];
    let tensors = ["a", "b", "c", "d", "e", "f", "g"].map(weight).to_vec();
    let whole =
        |opset| model(opset, nodes.clone(), tensors.clone(), value("x", &[32, 32]), vec![value("7", &[32, 32])]);
    let report = folder.compressed(folder.write("in.onnx", &whole(13)), &recipe(Activations::Dynamic));
    let outcome = |name: &str| report.tensors.iter().find(|of| of.name == name).unwrap().outcome.clone().unwrap();
    for (name, reason) in [
        ("a", "transA"),
        ("b", "alpha"),
        ("c", "beta"),
        ("d", "right side"),
        ("e", "several ways"),
        ("f", "MatMulInteger"),
        ("g", "MatMulInteger"),
    ] {
        assert!(outcome(name).contains(reason), "{name}: {}", outcome(name));
    }
    // Which a version of the operators forbids, and another does not.
    let clip = with_float(node("Clip", &["x"], "9"), "max", 6.0);
    let old = |opset| {
        let mut model = whole(opset);
        model.graph.as_mut().unwrap().node = vec![clip.clone(), node("MatMul", &["9", "f"], "7")];
        model.graph.as_mut().unwrap().initializer = vec![weight("f")];
        folder.write("old.onnx", &model)
    };
    let report = folder.compressed(old(10), &recipe(Activations::Dynamic));
    let reason = report.tensors[0].outcome.clone().unwrap_err();
    assert!(reason.contains("needs version") && reason.contains("Clip"), "{reason}");
    assert!(report.activations.is_empty());
    let soft = |opset| {
        let mut model = whole(opset);
        model.graph.as_mut().unwrap().node = vec![node("Softmax", &["x"], "9"), node("MatMul", &["9", "f"], "7")];
        model.graph.as_mut().unwrap().initializer = vec![weight("f")];
        folder.write("soft.onnx", &model)
    };
    let report = folder.compressed(soft(9), &recipe(Activations::Dynamic));
    assert!(report.notes[0].contains("Version 11") && report.activations.len() == 1, "{report}");
    let fixed = recipe(Activations::Static(Inputs::random(0), RangeMethod::MinMax));
    let report = folder.compressed(soft(11), &fixed);
    assert!(report.tensors[0].outcome.clone().unwrap_err().contains("Softmax"));
    assert!(report.activations.is_empty() && report.notes[0].contains("No activation"), "{report}");
    let report = folder.compressed(soft(13), &fixed);
    assert_eq!(report.activations.len(), 1);
}

/// Scales lie along one axis, sums have 32 bits, and what is kept is kept.
#[test]
fn what_does_not_fit_stays_a_product_of_numbers() {
    let folder = Folder::new("fits");
    let sample =
        |size: usize| Inputs::given([vec![("x".into(), Feed::f32(&[2, size], numbers(2 * size, 1)).unwrap())]]);
    let of = |inputs| recipe(Activations::Static(inputs, RangeMethod::MinMax));
    let linear = |name: &str, size: usize, out: usize| f32s(name, &[size, out], &numbers(size * out, 3));

    // Multiplied by its columns and by its rows.
    let nodes = vec![node("MatMul", &["x", "w"], "h"), with(node("Gemm", &["h", "w"], "y"), "transB", 1)];
    let both = model(17, nodes, vec![linear("w", 16, 24)], value("x", &[2, 16]), vec![value("y", &[2, 16])]);
    let report = folder.compressed(folder.write("both.onnx", &both), &of(sample(16)));
    let names: Vec<_> = report.activations.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, ["x"]);

    // 255 * 127 * 66,312 is more than 2^31 - 1, and 255 * 255 * 33,026.
    for (size, activations, integer) in [
        (66_311, Activations::Static(sample(66_311), RangeMethod::MinMax), true),
        (66_312, Activations::Static(sample(66_312), RangeMethod::MinMax), false),
        (33_025, Activations::Dynamic, true),
        (33_026, Activations::Dynamic, false),
    ] {
        let nodes = vec![node("MatMul", &["x", "w"], "y")];
        let long = model(17, nodes, vec![linear("w", size, 2)], value("x", &[2, size]), vec![value("y", &[2, 2])]);
        let report = folder.compressed(folder.write("long.onnx", &long), &recipe(activations));
        assert_eq!(!report.activations.is_empty(), integer, "{size}: {report}");
    }

    // A kept kernel is not folded into.
    let mut norm: Vec<_> = ["scale", "shift", "mean"].iter().map(|name| f32s(name, &[8], &numbers(8, 5))).collect();
    norm.push(f32s("variance", &[8], &[1.5; 8]));
    norm.push(f32s("conv.w", &[8, 4, 3, 3], &numbers(288, 6)));
    let nodes = vec![
        convolution(&["x", "conv.w"], "h"),
        node("BatchNormalization", &["h", "scale", "shift", "mean", "variance"], "y"),
    ];
    let image = model(17, nodes, norm, value("x", &[1, 4, 6, 6]), vec![value("y", &[1, 8, 4, 4])]);
    let image = folder.write("image.onnx", &image);
    let inputs = Inputs::random(0);
    for (recipe, nodes) in [(of(inputs.clone()).keep(["conv.w"]), 2), (of(inputs).keep(["other"]), 1)] {
        folder.compressed(&image, &recipe);
        let written = operators(&folder.out());
        assert_eq!(count(&written, "Conv") + count(&written, "BatchNormalization"), nodes, "{written:?}");
    }
}

#[test]
fn bad_inputs_leave_nothing() {
    let folder = Folder::new("hostile");
    let run = |recipe: &Recipe| {
        let error = compress::onnx(RESCNN, folder.out(), recipe, &|_| ControlFlow::Continue(())).unwrap_err();
        assert!(!folder.out().exists() && fs::read_dir(&folder.0).unwrap().next().is_none());
        error
    };
    let given = |value: f32, method| {
        let mut x = vec![0.5; 64];
        x[7] = value;
        let feed = Feed::f32(&[1, 1, 8, 8], x).unwrap();
        recipe(Activations::Static(Inputs::given([vec![("x".into(), feed)]]), method))
    };
    for method in [RangeMethod::MinMax, RangeMethod::Mse, RangeMethod::MovingAverage(0.5)] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = run(&given(value, method));
            assert!(error.kind() == ErrorKind::NonFinite && error.tensor().is_some(), "{error}");
        }
    }
    for method in [RangeMethod::Percentile(0.0), RangeMethod::Percentile(f64::NAN), RangeMethod::MovingAverage(2.0)] {
        assert_eq!(run(&given(0.5, method)).kind(), ErrorKind::Argument);
    }
    let fixed = |inputs| recipe(Activations::Static(inputs, RangeMethod::MinMax));
    assert_eq!(run(&fixed(Inputs::given([]))).kind(), ErrorKind::Empty);
    assert_eq!(run(&fixed(Inputs::random(0).with_limit(1000))).kind(), ErrorKind::Argument);
    let other = Feed::f32(&[1, 64], vec![0.0; 64]).unwrap();
    assert_eq!(run(&fixed(Inputs::given([vec![("x".into(), other)]]))).kind(), ErrorKind::Shape);
    let dynamic = || Recipe::new().with_activations(Activations::Dynamic);
    for recipe in [
        dynamic(),
        dynamic().with_bits(4).unwrap(),
        dynamic().with_bits(8).unwrap().with_group(32).unwrap(),
        dynamic().with_bits(8).unwrap().with_form(Form::MatMulNBits),
    ] {
        assert_eq!(run(&recipe).kind(), ErrorKind::Argument);
    }
    #[cfg(feature = "safetensors")]
    {
        let recipe = dynamic().with_bits(8).unwrap();
        let go_on = |_: compress::Progress<'_>| ControlFlow::Continue(());
        let convention = lapidary::format::safetensors::Convention::Lapidary;
        let error = compress::safetensors(RESCNN, folder.out(), &recipe, convention, &go_on).unwrap_err();
        assert!(error.kind() == ErrorKind::Argument && !folder.out().exists(), "{error}");
    }
}

#[cfg(feature = "rayon")]
#[test]
fn the_file_is_the_same_on_any_number_of_threads() {
    let folder = Folder::new("threads");
    let fixed = Activations::Static(Inputs::random(5).with_batch(8).with_samples(3), RangeMethod::Mse);
    for recipe in [recipe(fixed), recipe(Activations::Dynamic)] {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| folder.compressed(RESCNN, &recipe));
            fs::read(folder.out()).unwrap()
        };
        let one = run(1);
        assert!(run(2) == one && run(7) == one);
    }
    let read = Onnx::open(folder.out()).unwrap();
    assert!(!lapidary::format::file::TensorFile::tensors(&read).is_empty());
}

/// Needs the library of ONNX Runtime; without it, what is tested is that this is said.
#[cfg(feature = "ort")]
#[test]
fn another_runtime_agrees() {
    use lapidary::compress::Runtime;
    let folder = Folder::new("runtime");
    let (_, test) = trained::digits();
    let feed = |x: &[f32], shape: &[usize]| vec![("x".to_string(), Feed::f32(shape, x.to_vec()).unwrap())];
    let image = || Inputs::given([feed(&test.x, &[449, 1, 8, 8])]).with_runtime(Runtime::Ort);
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        let error = compress::verify(RESCNN, RESCNN, &image()).unwrap_err();
        assert!(error.kind() == ErrorKind::Runtime && error.to_string().contains("ORT_DYLIB_PATH"), "{error}");
        eprintln!("skipped: ORT_DYLIB_PATH does not say where the library of ONNX Runtime is");
        return;
    }
    // As it is, nothing made of anything else: 4 bits, a multiplication by codes, and integers.
    let input = folder.write("in.onnx", &mlp());
    let four = Recipe::new().with_bits(4).unwrap().with_group(32).unwrap();
    let flat = Inputs::given([feed(&test.x, &[449, 64])]).with_runtime(Runtime::Ort);
    for recipe in [four.clone().with_form(Form::Dequantize), recipe(Activations::Dynamic)] {
        let report = folder.compressed(&input, &recipe);
        let verification = compress::verify(&input, folder.out(), &flat).unwrap();
        assert_eq!(verification.runtime, Runtime::Ort);
        assert!(verification.expanded_compressed.is_empty());
        assert!(verification.max_relative() > 1e-3 && verification.max_relative() < 0.3, "{report} {verification}");
    }
    let (matrix, shape) = (f32s("w", &[64, 96], &numbers(64 * 96, 1)), [449, 96]);
    let product = model(
        13,
        vec![node("MatMul", &["x", "w"], "y")],
        vec![matrix],
        value("x", &[449, 64]),
        vec![value("y", &shape)],
    );
    let input = folder.write("product.onnx", &product);
    let report = folder.compressed(&input, &four.with_form(Form::MatMulNBits));
    assert!(report.tensors[0].outcome.as_ref().unwrap().contains("MatMulNBits"));
    let by = |runtime| compress::verify(&input, folder.out(), &flat.clone().with_runtime(runtime)).unwrap();
    let (ours, theirs) = (by(Runtime::Rten), by(Runtime::Ort));
    assert!(theirs.expanded_compressed.is_empty() && ours.expanded_compressed.len() == 1);
    let (a, b) = (ours.max_relative(), theirs.max_relative());
    assert!(a > 0.01 && (a - b).abs() < 0.01 * a, "{ours} {theirs}");
    // Ranges are found by either; the levels agree.
    let levels = |runtime| {
        let (training, _) = trained::digits();
        let inputs = Inputs::given([feed(&training.x, &[1348, 1, 8, 8])]).with_runtime(runtime);
        folder.compressed(RESCNN, &recipe(Activations::Static(inputs, RangeMethod::MinMax))).activations
    };
    let (ours, theirs) = (levels(Runtime::Rten), levels(Runtime::Ort));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let (a, b) = (ours.levels.unwrap(), theirs.levels.unwrap());
        assert!((a.max - b.max).abs() <= 1e-4 * a.max.abs().max(a.min.abs()), "{ours:?} {theirs:?}");
    }
    let (verification, integers) = (compress::verify(RESCNN, folder.out(), &image()).unwrap(), folder.out());
    assert!(verification.max_relative() < 0.1 && verification.outputs[0].changed.len() <= 5, "{verification}");
    let wrong = compress::verify(&input, integers, &image()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Argument);
}
