//! ONNX models slimmed: what leaves without a trace, what it costs else, and what is refused.

#![cfg(feature = "rten")]

use flate2::read::GzDecoder;
use lapidary::{
    ErrorKind, Result,
    compress::{self, Feed, Inputs, Recipe, Report, SlimmedReport, Slimming},
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
        let path = std::env::temp_dir().join(format!("lapidary-slim-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, model: &ModelProto) -> PathBuf {
        let path = self.0.join("in.onnx");
        onnx::layout(model).unwrap().create(&path).unwrap().finish().unwrap();
        path
    }

    fn out(&self) -> PathBuf {
        self.0.join("out.onnx")
    }

    fn slim(&self, input: &Path, slimming: Slimming) -> Result<(SlimmedReport, Report)> {
        let recipe = Recipe::new().with_slimming(slimming);
        let report = compress::onnx(input, self.out(), &recipe, &|_| ControlFlow::Continue(()))?;
        Ok((report.slimmed.clone().unwrap(), report))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The pixels of the digits, and what they are: those to calibrate with, or the others.
fn digits(test: bool) -> (Vec<f32>, Vec<usize>) {
    let mut bytes = Vec::new();
    GzDecoder::new(DIGITS).read_to_end(&mut bytes).unwrap();
    let rows = bytes.chunks(65).enumerate().filter(|(i, _)| (i % 4 == 3) == test).map(|(_, row)| row);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for row in rows {
        pixels.extend(row[..64].iter().map(|&x| f32::from(x) / 16.0));
        labels.push(usize::from(row[64]));
    }
    (pixels, labels)
}

fn images(pixels: &[f32]) -> Inputs {
    let samples = pixels
        .chunks(337 * 64)
        .map(|some| vec![("x".to_string(), Feed::f32(&[some.len() / 64, 1, 8, 8], some.to_vec()).unwrap())]);
    Inputs::given(samples)
}

/// How many of the digits that were not calibrated with are right.
fn right(slim: &Path) -> usize {
    let (pixels, labels) = digits(true);
    let verification = compress::verify(RESCNN, slim, &images(&pixels)).unwrap();
    let changed = &verification.outputs[0].changed;
    assert_eq!(verification.outputs[0].rows, 449);
    // The original's answers are those of a model that is as itself, but where they changed.
    let original = answers();
    let place = |changed: &compress::Changed| changed.sample * 337 + changed.row;
    let mut answers = original;
    for change in changed {
        assert_eq!(answers[place(change)], change.original);
        answers[place(change)] = change.compressed;
    }
    answers.iter().zip(labels).filter(|(answer, label)| **answer == *label).count()
}

/// The original's answers, by a model that gives 0 for all: what changed says what was.
fn answers() -> Vec<usize> {
    let mut model = Onnx::open(RESCNN).unwrap().inlined().unwrap();
    let graph = model.graph.as_mut().unwrap();
    let bias = graph.initializer.iter_mut().find(|tensor| tensor.name.as_deref() == Some("fc.bias")).unwrap();
    *bias = f32s("fc.bias", &[10], &[1e9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let folder = Folder::new("answers");
    let path = folder.write(&model);
    let verification = compress::verify(RESCNN, path, &images(&digits(true).0)).unwrap();
    let mut answers = vec![0; 449];
    for change in &verification.outputs[0].changed {
        answers[change.sample * 337 + change.row] = change.original;
    }
    answers
}

fn node(operator: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: input.iter().map(|name| (*name).into()).collect(),
        output: output.split(' ').map(Into::into).collect(),
        attribute,
        ..Default::default()
    }
}

fn integers(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: Some(name.into()), ints: ints.into(), r#type: Some(7), ..Default::default() }
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(i), r#type: Some(2), ..Default::default() }
}

fn value(name: &str, sizes: &[i64]) -> ValueInfoProto {
    let size = |&size: &i64| if size > 0 { Size::DimValue(size) } else { Size::DimParam("batch".into()) };
    let dim = sizes.iter().map(|n| Dimension { value: Some(size(n)), denotation: None }).collect();
    let tensor = TensorType { elem_type: Some(1), shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind), ..Default::default() }
}

fn f32s(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    onnx::tensor(name, ElementType::F32, shape, raw.into()).unwrap()
}

fn i64s(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    onnx::tensor(name, ElementType::I64, &[values.len()], raw.into()).unwrap()
}

fn model(opset: i64, graph: GraphProto) -> ModelProto {
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(opset) }];
    ModelProto { ir_version: Some(8), opset_import, graph: Some(graph), ..Default::default() }
}

/// Numbers between -1 and 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn list(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() % 2001) as f32 / 1000.0 - 1.0).collect()
    }
}

/// A graph in the making, of which some channels are 0, and go.
struct Net {
    numbers: Numbers,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    count: usize,
}

impl Net {
    fn name(&mut self) -> String {
        self.count += 1;
        format!("v{}", self.count)
    }

    fn add(&mut self, operator: &str, input: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.name();
        self.nodes.push(node(operator, input, &output, attribute));
        output
    }

    /// A tensor, with 0 at every other index of the first axis where not all are `live`.
    fn rows(&mut self, shape: &[usize], live: usize) -> String {
        let name = format!("w{}", self.tensors.len());
        let mut values = self.numbers.list(shape.iter().product());
        let inner: usize = shape[1..].iter().product();
        values
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = if live < shape[0] && i / inner % 2 == 1 { 0.0 } else { *x });
        self.tensors.push(f32s(&name, shape, &values));
        name
    }

    fn list(&mut self, values: &[i64]) -> String {
        let name = format!("w{}", self.tensors.len());
        self.tensors.push(i64s(&name, values));
        name
    }

    /// Convolves to `outs` channels, of which every other one is 0 where not all are `live`.
    fn conv(&mut self, x: &str, ins: usize, outs: usize, live: usize, bias: bool) -> String {
        let w = self.rows(&[outs, ins, 3, 3], live);
        let b = bias.then(|| self.rows(&[outs], live));
        let input: Vec<&str> = [x, &w].into_iter().chain(b.as_deref()).collect();
        let ones = ["strides", "dilations"].map(|name| integers(name, &[1, 1]));
        let attributes = ones.into_iter().chain([integers("pads", &[1, 1, 1, 1])]).collect();
        self.add("Conv", &input, attributes)
    }

    fn dense(&mut self, x: &str, ins: usize, outs: usize, live: usize) -> String {
        let (w, b) = (self.rows(&[outs, ins], live), self.rows(&[outs], live));
        self.add("Gemm", &[x, &w, &b], vec![integer("transB", 1)])
    }
}

/// A residual network of images that ends in dense layers; every other channel is 0.
fn random_net(seed: u64) -> ModelProto {
    let mut net = Net { numbers: Numbers(seed.wrapping_mul(77) + 1), nodes: vec![], tensors: vec![], count: 0 };
    let width = 4 + 2 * net.numbers.below(3);
    let half = width / 2;
    let x = net.conv("x", 3, width, half, true);
    let mut x = net.add("Relu", &[&x], vec![]);
    for _ in 0..1 + net.numbers.below(2) {
        let inner = 8 + 4 * net.numbers.below(2);
        let y = net.conv(&x, width, inner, inner / 2, seed.is_multiple_of(2));
        let y = match net.numbers.below(5) {
            0 => net.add("Relu", &[&y], vec![]),
            1 => net.add("LeakyRelu", &[&y], vec![]),
            2 => net.add("Tanh", &[&y], vec![]),
            3 => {
                let s = net.add("HardSigmoid", &[&y], vec![]);
                net.add("Mul", &[&y, &s], vec![])
            }
            _ => {
                let names = [(); 4].map(|()| net.rows(&[inner], inner / 2));
                // A variance is not below 0, and a scale of 0 makes a constant of what goes.
                let squares = net.numbers.list(inner).iter().map(|x| x * x + 0.5).collect::<Vec<_>>();
                let last = net.tensors.len() - 1;
                net.tensors[last] = f32s(&names[3], &[inner], &squares);
                net.add("BatchNormalization", &[&y, &names[0], &names[1], &names[2], &names[3]], vec![])
            }
        };
        let y = match net.numbers.below(4) {
            0 => {
                // Into two parts and together again, the other way round.
                let lengths = net.list(&[(inner / 2) as i64, (inner - inner / 2) as i64]);
                let (a, b) = (net.name(), net.name());
                net.nodes.push(node("Split", &[&y, &lengths], &format!("{a} {b}"), vec![integer("axis", 1)]));
                net.add("Concat", &[&b, &a], vec![integer("axis", 1)])
            }
            1 => {
                let (start, end, axis) = (net.list(&[0]), net.list(&[i64::MAX]), net.list(&[1]));
                net.add("Slice", &[&y, &start, &end, &axis], vec![])
            }
            2 => {
                // A reshape to the shape that it has, which is computed.
                let shape = net.add("Shape", &[&y], vec![]);
                net.add("Reshape", &[&y, &shape], vec![])
            }
            _ => y,
        };
        let y = net.conv(&y, inner, width, half, true);
        let sum = net.add("Add", &[&y, &x], vec![]);
        x = net.add("Relu", &[&sum], vec![]);
    }
    let side = if net.numbers.below(2) == 0 {
        let pads = vec![integers("kernel_shape", &[2, 2]), integers("strides", &[2, 2])];
        x = net.add("MaxPool", &[&x], pads);
        3
    } else {
        6
    };
    let (flat, ins) = match net.numbers.below(3) {
        0 => (net.add("Flatten", &[&x], vec![integer("axis", 1)]), width * side * side),
        1 => {
            let shape = net.list(&[-1, (width * side * side) as i64]);
            (net.add("Reshape", &[&x, &shape], vec![]), width * side * side)
        }
        _ => {
            let pooled = net.add("GlobalAveragePool", &[&x], vec![]);
            let shape = net.list(&[0, width as i64]);
            (net.add("Reshape", &[&pooled, &shape], vec![]), width)
        }
    };
    let hidden = 8;
    let h = net.dense(&flat, ins, hidden, hidden / 2);
    let h = net.add("Relu", &[&h], vec![]);
    let y = net.dense(&h, hidden, 5, 5);
    net.nodes.push(node("Identity", &[&y], "y", vec![]));
    model(
        13,
        GraphProto {
            node: net.nodes,
            name: Some("g".into()),
            initializer: net.tensors,
            input: vec![value("x", &[0, 3, 6, 6])],
            output: vec![value("y", &[0, 5])],
            ..Default::default()
        },
    )
}

#[test]
fn channels_that_are_zero_leave_without_a_trace() {
    let folder = Folder::new("zero");
    for seed in 0..24 {
        let net = random_net(seed);
        let input = folder.write(&net);
        let inputs = Inputs::random(seed).with_batch(3);
        let slimming = Slimming::ratio(0.5, inputs).unwrap();
        let (slimmed, report) = folder.slim(&input, slimming).unwrap_or_else(|error| panic!("{seed}: {error}"));
        // Inputs of another seed and batch.
        let other = Inputs::random(100 + seed).with_batch(2);
        let verification = compress::verify(&input, folder.out(), &other).unwrap();
        assert!(verification.max_relative() < 1e-5, "{seed}: {verification}\n{slimmed}");
        assert!(slimmed.outputs[0].relative < 1e-5, "{seed}: {slimmed}");
        // All went that was asked for, but for what is frozen.
        let least = if slimmed.frozen.is_empty() { 0.45 } else { 0.9 };
        assert!(slimmed.share() < least, "{seed}: {}\n{slimmed}", slimmed.share());
        assert!(report.bytes_after < report.bytes_before && slimmed.macs_after < slimmed.macs_before);
        assert!(report.to_string().contains("parameters"));
    }
}

/// What a slim model says after half of the hidden channels, which are 0, were to leave.
fn same(net: Net, output: (&str, &[i64]), opset: i64, ir_version: i64) -> (SlimmedReport, GraphProto) {
    let folder = Folder::new("same");
    let mut whole = model(
        opset,
        GraphProto {
            node: net.nodes,
            initializer: net.tensors,
            name: Some("g".into()),
            input: vec![value("x", &[8, 16])],
            output: vec![value(output.0, output.1)],
            ..Default::default()
        },
    );
    whole.ir_version = Some(ir_version);
    let graph = whole.graph.as_mut().unwrap();
    if ir_version < 4 {
        let inputs = graph.initializer.iter().map(|tensor| value(tensor.name.as_deref().unwrap(), &tensor.dims));
        graph.input.extend(inputs.collect::<Vec<_>>());
    }
    let input = folder.write(&whole);
    let (slimmed, _) = folder.slim(&input, Slimming::ratio(0.5, Inputs::random(1)).unwrap()).unwrap();
    let verification = compress::verify(&input, folder.out(), &Inputs::random(2)).unwrap();
    assert!(verification.max_relative() < 1e-5, "{verification}\n{slimmed}");
    let written = Onnx::open(folder.out()).unwrap();
    let graph = written.model().graph.clone().unwrap();
    let is_input = |name: &Option<String>| graph.input.iter().any(|input| input.name == *name);
    assert!(written.model().ir_version >= Some(4) || graph.initializer.iter().all(|tensor| is_input(&tensor.name)));
    (slimmed, graph)
}

#[test]
fn sums_and_slices_mean_what_they_meant() {
    let net = || Net { numbers: Numbers(9), nodes: vec![], tensors: vec![], count: 0 };
    // As many rows as outputs: what is added is a number for each row.
    for shape in [&[8usize, 1][..], &[8], &[1, 8]] {
        let mut net = net();
        let h = net.dense("x", 16, 16, 8);
        let h = net.add("Relu", &[&h], vec![]);
        let w = net.rows(&[8, 16], 8);
        let c = net.rows(shape, shape[0]);
        let y = net.add("Gemm", &[&h, &w, &c], vec![integer("transB", 1)]);
        let (slimmed, _) = same(net, (&y, &[8, 8]), 13, 8);
        assert_eq!(slimmed.frozen.iter().any(|of| of.node == y), shape == [8, 1], "{slimmed}");
    }
    // Values that are called as parts of others, and the format in which all tensors are inputs.
    for ir_version in [3, 8] {
        let mut net = net();
        let h = net.dense("x", 16, 32, 16);
        for node in &mut net.nodes {
            node.output[0] = "y".into();
        }
        net.nodes.push(node("Relu", &["y"], "y#2", vec![]));
        let w = net.rows(&[4, 32], 4);
        let b = net.rows(&[4], 4);
        net.nodes.push(node("Gemm", &["y#2", &w, &b], "z", vec![integer("transB", 1)]));
        let (slimmed, _) = same(net, ("z", &[8, 4]), 8, ir_version);
        assert!(h != "y" && slimmed.groups.iter().any(|group| group.name == "y" && group.after == 16), "{slimmed}");
        assert!(slimmed.groups.iter().all(|group| !group.name.contains('#')), "{slimmed}");
    }
    // Bounds of 32 bits: all inputs stay of one type.
    let mut narrow = net();
    let h = narrow.dense("x", 16, 32, 16);
    for (name, number) in [("starts", 8i32), ("ends", 24), ("axes", 1)] {
        let bytes: Vec<u8> = number.to_le_bytes().into();
        narrow.tensors.push(onnx::tensor(name, ElementType::I32, &[1], bytes.into()).unwrap());
    }
    let s = narrow.add("Slice", &[&h, "starts", "ends", "axes"], vec![]);
    let y = narrow.dense(&s, 16, 4, 4);
    let (_, graph) = same(narrow, (&y, &[8, 4]), 13, 8);
    let slice = graph.node.iter().find(|node| node.op_type.as_deref() == Some("Slice")).unwrap();
    let kind = |name: &String| graph.initializer.iter().find(|of| of.name.as_ref() == Some(name)).unwrap().data_type;
    let kinds: Vec<_> = slice.input[1..].iter().map(kind).collect();
    assert!(kinds.windows(2).all(|pair| pair[0] == pair[1]), "{kinds:?}");
    // Axes that are computed.
    let mut net = net();
    let h = net.dense("x", 16, 32, 16);
    let (starts, ends) = (net.list(&[8]), net.list(&[16]));
    let narrow: Vec<u8> = 1i32.to_le_bytes().into();
    net.tensors.push(onnx::tensor("one", ElementType::I32, &[1], narrow.into()).unwrap());
    let axes = net.add("Cast", &["one"], vec![integer("to", 7)]);
    let s = net.add("Slice", &[&h, &starts, &ends, &axes], vec![]);
    let y = net.dense(&s, 8, 4, 4);
    same(net, (&y, &[8, 4]), 13, 8);
}

/// Products with a bias apart, the error function as exporters write it, a recurrent layer in both directions, a computed shape.
fn sequence_net() -> ModelProto {
    let mut net = Net { numbers: Numbers(5), nodes: vec![], tensors: vec![], count: 0 };
    // Weights of shape (inputs, outputs).
    let columns = |net: &mut Net, shape: [usize; 2], all: bool| {
        let name = format!("w{}", net.tensors.len());
        let mut values = net.numbers.list(shape[0] * shape[1]);
        values.iter_mut().enumerate().for_each(|(i, x)| *x = if !all && i % shape[1] % 2 == 1 { 0.0 } else { *x });
        net.tensors.push(f32s(&name, &shape, &values));
        name
    };
    let scalar = |net: &mut Net, x: f32| {
        let name = format!("w{}", net.tensors.len());
        net.tensors.push(f32s(&name, &[], &[x]));
        name
    };
    let (w, b) = (columns(&mut net, [6, 8], false), net.rows(&[8], 4));
    let x = net.add("MatMul", &["x", &w], vec![]);
    let x = net.add("Add", &[&b, &x], vec![]);
    let (root, one, half) = (scalar(&mut net, 2f32.sqrt()), scalar(&mut net, 1.0), scalar(&mut net, 0.5));
    let y = net.add("Div", &[&x, &root], vec![]);
    let y = net.add("Erf", &[&y], vec![]);
    let y = net.add("Add", &[&y, &one], vec![]);
    let y = net.add("Mul", &[&x, &y], vec![]);
    let y = net.add("Mul", &[&y, &half], vec![]);
    let y = net.add("Transpose", &[&y], vec![integers("perm", &[1, 0, 2])]);
    // Gates of 4 units, of which two are 0, in each direction.
    let gates = |net: &mut Net, inner: usize| {
        let name = format!("w{}", net.tensors.len());
        let mut values = net.numbers.list(2 * 16 * inner);
        values.iter_mut().enumerate().for_each(|(i, x)| *x = if i / inner % 2 == 1 { 0.0 } else { *x });
        net.tensors.push(f32s(&name, &[2, 16, inner], &values));
        name
    };
    let (w, r) = (gates(&mut net, 8), gates(&mut net, 4));
    let b = {
        let name = format!("w{}", net.tensors.len());
        let mut values = net.numbers.list(64);
        values.iter_mut().enumerate().for_each(|(i, x)| *x = if i % 2 == 1 { 0.0 } else { *x });
        net.tensors.push(f32s(&name, &[2, 32], &values));
        name
    };
    let direction = AttributeProto {
        name: Some("direction".into()),
        s: Some(b"bidirectional".to_vec().into()),
        r#type: Some(3),
        ..Default::default()
    };
    let all = net.name();
    net.nodes.push(node("LSTM", &[&y, &w, &r, &b], &all, vec![direction, integer("hidden_size", 4)]));
    let y = net.add("Transpose", &[&all], vec![integers("perm", &[0, 2, 1, 3])]);
    // (steps, batch, 2, 4) to (steps, batch, 8), by the shape that it has.
    let shape = net.add("Shape", &[&y], vec![]);
    let (two, three) = (net.list(&[2]), net.list(&[3]));
    let first = net.list(&[0, 1]);
    let sides = net.add("Gather", &[&shape, &two], vec![]);
    let units = net.add("Gather", &[&shape, &three], vec![]);
    let width = net.add("Mul", &[&sides, &units], vec![]);
    let outer = net.add("Gather", &[&shape, &first], vec![]);
    let shape = net.add("Concat", &[&outer, &width], vec![integer("axis", 0)]);
    let y = net.add("Reshape", &[&y, &shape], vec![]);
    let w = columns(&mut net, [8, 5], true);
    net.nodes.push(node("MatMul", &[&y, &w], "y", vec![]));
    model(
        13,
        GraphProto {
            node: net.nodes,
            name: Some("g".into()),
            initializer: net.tensors,
            input: vec![value("x", &[0, 4, 6])],
            output: vec![value("y", &[4, 0, 5])],
            ..Default::default()
        },
    )
}

#[test]
fn sequences_are_slimmed_too() {
    let folder = Folder::new("sequence");
    let input = folder.write(&sequence_net());
    let slimming = Slimming::ratio(0.5, Inputs::random(1).with_batch(2)).unwrap();
    let (slimmed, _) = folder.slim(&input, slimming).unwrap();
    let verification = compress::verify(&input, folder.out(), &Inputs::random(2).with_batch(5)).unwrap();
    assert!(verification.max_relative() < 1e-5, "{verification}\n{slimmed}");
    assert!(slimmed.frozen.is_empty() && slimmed.share() < 0.45, "{}\n{slimmed}", slimmed.share());
    let read = Onnx::open(folder.out()).unwrap();
    let graph = read.model().graph.as_ref().unwrap();
    let dims = |name: &str| {
        let tensor = graph.initializer.iter().find(|tensor| tensor.name.as_deref() == Some(name));
        tensor.map(|tensor| tensor.dims.clone()).unwrap_or_default()
    };
    let lstm = graph.node.iter().find(|node| node.op_type.as_deref() == Some("LSTM")).unwrap();
    let sizes: Vec<_> = lstm.input[1..4].iter().map(|name| dims(name)).collect();
    assert_eq!(sizes, [vec![2, 8, 4], vec![2, 8, 2], vec![2, 16]]);
}

/// Two layers twice, by the same weights; then one whose weights callers may replace, and one that is as wide.
fn shared_net() -> ModelProto {
    let mut net = Net { numbers: Numbers(9), nodes: vec![], tensors: vec![], count: 0 };
    let wide = net.rows(&[8, 6], 4);
    let narrow = net.rows(&[6, 8], 6);
    let again = net.add("Identity", &[&wide], vec![]);
    let mut x = "x".to_string();
    for name in [&wide, &again] {
        let y = net.add("Gemm", &[&x, name], vec![integer("transB", 1)]);
        let y = net.add("Relu", &[&y], vec![]);
        x = net.add("Gemm", &[&y, &narrow], vec![integer("transB", 1)]);
    }
    let given = net.rows(&[8, 6], 4);
    let y = net.add("Gemm", &[&x, &given], vec![integer("transB", 1)]);
    let w = net.rows(&[5, 8], 5);
    net.nodes.push(node("Gemm", &[&y, &w], "y", vec![integer("transB", 1)]));
    let input = vec![value("x", &[0, 6]), value(&given, &[8, 6])];
    model(
        13,
        GraphProto {
            node: net.nodes,
            name: Some("g".into()),
            initializer: net.tensors,
            input,
            output: vec![value("y", &[0, 5])],
            ..Default::default()
        },
    )
}

#[test]
fn shared_weights_stay_shared_and_those_of_callers_whole() {
    let folder = Folder::new("shared");
    let input = folder.write(&shared_net());
    let slimming = Slimming::ratio(0.5, Inputs::random(1).with_batch(4)).unwrap();
    let (slimmed, _) = folder.slim(&input, slimming).unwrap();
    let verification = compress::verify(&input, folder.out(), &Inputs::random(2).with_batch(3)).unwrap();
    assert!(verification.max_relative() < 1e-5, "{verification}\n{slimmed}");
    let read = Onnx::open(folder.out()).unwrap();
    let graph = read.model().graph.as_ref().unwrap();
    let dims: Vec<_> = graph.initializer.iter().map(|t| (t.name.clone().unwrap(), t.dims.clone())).collect();
    let of = |name: &str, dims: [i64; 2]| (name.to_string(), dims.to_vec());
    assert_eq!(dims, [of("w0", [4, 6]), of("w1", [6, 4]), of("w2", [8, 6]), of("w3", [5, 8])]);
    assert_eq!(graph.input.len(), 2);
    let [frozen] = &slimmed.frozen[..] else { panic!("{slimmed}") };
    assert!(frozen.operator == "Gemm" && frozen.reason.contains("w2"), "{frozen:?}");
}

#[test]
fn a_slim_model_is_quantized_and_its_widths_are_multiples() {
    let (pixels, _) = digits(false);
    let folder = Folder::new("quantized");
    let slimming = Slimming::ratio(0.5, images(&pixels)).unwrap().with_multiple(8).unwrap();
    let recipe = Recipe::new().with_slimming(slimming).with_bits(8).unwrap();
    let report = compress::onnx(RESCNN, folder.out(), &recipe, &|_| ControlFlow::Continue(())).unwrap();
    let slimmed = report.slimmed.as_ref().unwrap();
    let widths: Vec<_> = slimmed.groups.iter().map(|group| (group.before, group.after)).collect();
    assert_eq!(widths, [(16, 8), (16, 8), (32, 16), (32, 16), (10, 10)]);
    assert!(report.tensors.iter().any(|tensor| tensor.outcome.is_ok()), "{report}");
    // The codes cost little beside what slimming did.
    let verification = compress::verify(RESCNN, folder.out(), &images(&pixels)).unwrap();
    assert!((verification.max_relative() - slimmed.outputs[0].relative).abs() < 0.02, "{verification}\n{slimmed}");
}

fn halved(slimming: Slimming) -> (SlimmedReport, usize) {
    let folder = Folder::new(&format!("digits-{:?}", std::thread::current().id()));
    let (slimmed, _) = folder.slim(Path::new(RESCNN), slimming).unwrap();
    let right = right(&folder.out());
    println!(
        "share {:.3}, right {right}, predicted {:.4}\n{slimmed}",
        slimmed.share(),
        slimmed.outputs[0].argmax_agreement()
    );
    (slimmed, right)
}

#[test]
fn half_a_network_is_as_good_as_predicted() {
    assert_eq!(answers().iter().zip(digits(true).1).filter(|(a, b)| **a == *b).count(), 443);
    let (pixels, _) = digits(false);
    let (slimmed, right) = halved(Slimming::ratio(0.3, images(&pixels)).unwrap());
    assert!(slimmed.share() <= 0.5, "{slimmed}");
    assert!(slimmed.frozen.is_empty(), "{slimmed}");
    let predicted = slimmed.outputs[0].argmax_agreement();
    assert!((right as f64 / 449.0 - predicted).abs() < 0.02, "{right} of 449, {predicted} predicted");
}

#[cfg(feature = "linalg")]
#[test]
fn half_a_network_is_repaired() {
    use lapidary::compress::Ranking;
    let (pixels, _) = digits(false);
    for ranking in [Ranking::Magnitude, Ranking::Variance, Ranking::Reconstruction] {
        let slimming = Slimming::ratio(0.3, images(&pixels)).unwrap().with_ranking(ranking);
        let (plain, before) = halved(slimming.clone());
        let (slimmed, right) = halved(slimming.with_repair(1e-4).unwrap());
        println!("{ranking:?}: {before} -> {right}");
        assert!(slimmed.share() <= 0.5 && slimmed.outputs[0].relative < plain.outputs[0].relative);
        assert!(right >= 443 - 9, "{right} of 449");
        assert!(slimmed.repaired.iter().all(|layer| layer.after <= layer.before));
        let predicted = slimmed.outputs[0].argmax_agreement();
        assert!((right as f64 / 449.0 - predicted).abs() < 0.02, "{right} of 449, {predicted} predicted");
    }
}

#[test]
fn a_block_that_changes_least_leaves() {
    let (pixels, _) = digits(false);
    let folder = Folder::new("blocks");
    let slimming = Slimming::ratio(0.0, images(&pixels)).unwrap().with_blocks_dropped(1);
    let (slimmed, _) = folder.slim(Path::new(RESCNN), slimming).unwrap();
    println!("{slimmed}\n{}", right(&folder.out()));
    assert_eq!(slimmed.blocks.len(), 1);
    let read = Onnx::open(folder.out()).unwrap();
    let convs = read.model().graph.as_ref().unwrap().node.iter().filter(|n| n.op_type.as_deref() == Some("Conv"));
    assert_eq!(convs.count(), 4);
    // Two tensors of a convolution and its norm, of two layers each.
    let width = if slimmed.blocks[0].0.contains("b1") { 16 } else { 32 };
    assert_eq!(slimmed.params_before - slimmed.params_after, 2 * (width * width * 9 + 4 * width));
}

#[test]
fn what_is_no_graph_is_refused() {
    let folder = Folder::new("hostile");
    let good = || random_net(3);
    let slim = |model: &ModelProto| {
        let input = folder.write(model);
        let error = folder.slim(&input, Slimming::ratio(0.5, Inputs::random(0)).unwrap()).unwrap_err();
        assert!(!folder.out().exists());
        error
    };
    let changed = |change: &dyn Fn(&mut GraphProto)| {
        let mut model = good();
        change(model.graph.as_mut().unwrap());
        slim(&model)
    };
    let cycle = changed(&|graph| {
        let last = graph.node.len() - 2;
        let name = graph.node[last].output[0].clone();
        graph.node[0].input[0] = name;
    });
    assert_eq!((cycle.kind(), cycle.tensor().is_some()), (ErrorKind::Format, true));
    let missing = changed(&|graph| graph.node[1].input[0] = "nothing".into());
    assert_eq!((missing.kind(), missing.tensor()), (ErrorKind::Format, Some("nothing")));
    let twice = changed(&|graph| graph.node[1].output[0] = graph.node[0].output[0].clone());
    assert_eq!(twice.kind(), ErrorKind::Format);
    let tensors = changed(&|graph| {
        let first = graph.initializer[0].clone();
        graph.initializer.push(first);
    });
    assert_eq!((tensors.kind(), tensors.tensor()), (ErrorKind::Format, Some("w0")));
    let output = changed(&|graph| graph.output[0].name = Some("z".into()));
    assert_eq!((output.kind(), output.tensor()), (ErrorKind::Format, Some("z")));
    // Shapes that are absurd, or do not fit.
    let absurd = changed(&|graph| graph.input[0] = value("x", &[0, 3, i64::MAX, 6]));
    assert!(matches!(absurd.kind(), ErrorKind::Argument | ErrorKind::Shape), "{absurd}");
    let fit = changed(&|graph| graph.input[0] = value("x", &[0, 4, 6, 6]));
    assert_eq!(fit.kind(), ErrorKind::Runtime, "{fit}");
    let nan = changed(&|graph| {
        let dims: Vec<usize> = graph.initializer[0].dims.iter().map(|&n| n as usize).collect();
        graph.initializer[0] = f32s("w0", &dims, &vec![f32::NAN; dims.iter().product()]);
    });
    assert_eq!((nan.kind(), nan.tensor()), (ErrorKind::NonFinite, Some("w0")), "{nan}");
    let mut trained = good();
    trained.training_info.push(TrainingInfoProto::default());
    assert_eq!(slim(&trained).kind(), ErrorKind::Argument);
    let stopped = {
        let input = folder.write(&good());
        let recipe = Recipe::new().with_slimming(Slimming::ratio(0.5, Inputs::random(0)).unwrap());
        compress::onnx(input, folder.out(), &recipe, &|_| ControlFlow::Break(())).unwrap_err()
    };
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    assert!(!folder.out().exists());
}
