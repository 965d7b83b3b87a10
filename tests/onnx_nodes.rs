//! The node tests of ONNX's training operators (Adagrad, Adam, Momentum) and of those that quantize.
//!
//! Reads `tests/fixtures/oracles/onnx_node`, or `onnx_node` in the folder named by `LAPIDARY_ORACLES`.

use lapidary::{
    Granularity, Grid, Optimizer, OptimizerExt, QTensor, Quantizer, QuantizerExt, Scales, Step, TensorRef, Values,
    half::f16,
    optim::{Adagrad, Adam, Convention, Sgd},
    quant::{Affine, FloatFormat, Minifloat},
};
use prost::Message;
use std::{collections::HashMap, fs, path::PathBuf};

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

impl Tensor {
    fn floats(&self) -> Vec<f32> {
        let raw = self.raw_data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        if self.raw_data.is_empty() { self.float_data.clone() } else { raw.collect() }
    }

    fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|&d| d as usize).collect()
    }

    fn halves(&self) -> Vec<f16> {
        self.raw_data.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect()
    }

    /// The format, when the elements are small floating-point numbers.
    fn format(&self) -> Option<FloatFormat> {
        match self.data_type {
            17 => Some(FloatFormat::E4m3),
            19 => Some(FloatFormat::E5m2),
            23 => Some(FloatFormat::E2m1),
            _ => None,
        }
    }

    /// The bits of a code and whether codes are signed; `None` for a type that is not kept.
    fn code_type(&self) -> Option<(u8, bool)> {
        match self.data_type {
            2 => Some((8, false)),
            3 => Some((8, true)),
            4 => Some((16, false)),
            5 => Some((16, true)),
            21 => Some((4, false)),
            22 => Some((4, true)),
            25 => Some((2, false)),
            26 => Some((2, true)),
            _ => self.format().map(|format| (format.bits(), false)),
        }
    }

    /// Codes as we keep them: signed ones with the middle added. Those of less than 8 bits are packed bytes, low bits first.
    fn codes(&self) -> Vec<u16> {
        let (bits, signed) = self.code_type().unwrap();
        let words: Vec<u16> = match (self.raw_data.is_empty(), bits) {
            (true, _) => self.int32_data.iter().map(|&x| x as u16).collect(),
            (false, 16) => self.raw_data.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect(),
            (false, _) => self.raw_data.iter().map(|&x| x.into()).collect(),
        };
        let (count, per_word) = (self.shape().iter().product(), (8 / usize::from(bits)).max(1));
        let mask = ((1u32 << bits) - 1) as u16;
        let code = |i: usize| words[i / per_word] >> (i % per_word * usize::from(bits)) & mask;
        let middle = if signed { 1 << (bits - 1) } else { 0u16 };
        (0..count).map(|i| code(i).wrapping_add(middle) & mask).collect()
    }

    /// A number of 32 or 16 bits.
    fn number(&self) -> f32 {
        if self.data_type == 10 { self.halves()[0].to_f32() } else { self.floats()[0] }
    }

    fn integer(&self) -> i64 {
        let raw = || i64::from_le_bytes(self.raw_data[..8].try_into().unwrap());
        self.int64_data.first().copied().unwrap_or_else(raw)
    }
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

fn folder() -> PathBuf {
    let fixtures = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oracles"));
    std::env::var_os("LAPIDARY_ORACLES").map_or_else(fixtures, PathBuf::from).join("onnx_node")
}

fn tensors(dir: &std::path::Path, kind: &str) -> Vec<Tensor> {
    let files = (0..).map(|i| dir.join(format!("test_data_set_0/{kind}_{i}.pb"))).take_while(|path| path.exists());
    files.map(|path| Tensor::decode(&fs::read(path).unwrap()[..]).unwrap()).collect()
}

/// The optimizer of a node and the names of its slots, in the operator's order.
fn optimizer(node: &Node, rate: f64) -> (Box<dyn Optimizer<f32>>, Vec<&'static str>) {
    let numbers: HashMap<&str, f64> = node.attribute.iter().map(|a| (a.name.as_str(), a.f.into())).collect();
    let number = |name: &str, default: f64| numbers.get(name).copied().unwrap_or(default);
    let decay = number("norm_coefficient", 0.0);
    match node.op_type.as_str() {
        "Adagrad" => {
            let adagrad = Adagrad::new(rate).unwrap().with_convention(Convention::Onnx);
            let adagrad = adagrad.with_eps(number("epsilon", 1e-6)).unwrap().with_weight_decay(decay).unwrap();
            (Box::new(adagrad.with_learning_rate_decay(number("decay_factor", 0.0)).unwrap()), vec!["sum"])
        }
        "Adam" => {
            let adam = Adam::new(rate).unwrap().with_convention(Convention::Onnx);
            let adam = adam.with_betas(number("alpha", 0.9), number("beta", 0.999)).unwrap();
            let adam = adam.with_eps(number("epsilon", 1e-6)).unwrap().with_weight_decay(decay).unwrap();
            let adam = adam.with_decay_after(number("norm_coefficient_post", 0.0)).unwrap();
            (Box::new(adam), vec!["exp_avg", "exp_avg_sq"])
        }
        "Momentum" => {
            let sgd = Sgd::new(rate).unwrap().with_convention(Convention::Onnx).unwrap();
            let sgd = sgd.with_dampening(1.0 - number("beta", 1.0)).unwrap().with_weight_decay(decay).unwrap();
            let nesterov = node.attribute.iter().any(|a| a.name == "mode" && a.s == b"nesterov");
            let momentum = number("alpha", 0.0);
            let sgd = if nesterov { sgd.with_nesterov(momentum) } else { sgd.with_momentum(momentum) };
            (Box::new(sgd.unwrap()), vec!["momentum_buffer"])
        }
        other => panic!("unknown operator {other}"),
    }
}

#[test]
fn training_operators() {
    let names =
        ["adagrad", "adagrad_multiple", "adam", "adam_multiple", "momentum", "momentum_multiple", "nesterov_momentum"];
    let mut compared = 0;
    for name in names {
        let dir = folder().join(format!("test_{name}"));
        let model = Model::decode(&fs::read(dir.join("model.onnx")).unwrap()[..]).unwrap();
        let (inputs, outputs) = (tensors(&dir, "input"), tensors(&dir, "output"));
        let (optimizer, slots) = optimizer(&model.graph.unwrap().node[0], inputs[0].floats()[0].into());
        // R, T, then all parameters, all gradients, and all of each kind of state; outputs alike without R, T, gradients.
        let count = (inputs.len() - 2) / (2 + slots.len());
        let input = |kind: usize, i: usize| inputs[2 + kind * count + i].floats();
        let output = |kind: usize, i: usize| outputs[kind * count + i].floats();
        for i in 0..count {
            let mut param = input(0, i);
            let mut state = optimizer.init(&param).unwrap();
            state.set_steps(inputs[1].integer() as u64);
            for (k, slot) in slots.iter().enumerate() {
                state.set_slot(slot, Values::F32(input(2 + k, i))).unwrap();
            }
            optimizer.step(Step::new(&mut param, &input(1, i), &mut state)).unwrap();
            let close = |a: &[f32], b: &[f32]| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + b.abs()))
            };
            assert!(close(&param, &output(0, i)), "{name}: {param:?} for {:?}", output(0, i));
            for (k, slot) in slots.iter().enumerate() {
                let got = state.slot(slot).unwrap().values().as_slice::<f32>().unwrap();
                assert!(close(got, &output(1 + k, i)), "{name} {slot}: {got:?} for {:?}", output(1 + k, i));
            }
        }
        compared += 1;
    }
    println!("oracle onnx_node training: {compared} compared, {compared} within tolerance");
}

/// A node on small floating-point numbers: a quantized tensor of its scales, in 16 bits where those of the node are.
fn float(node: &Node, format: FloatFormat, shape: &[usize], inputs: &[Tensor]) -> (Minifloat, QTensor) {
    let attribute = |name: &str, default| node.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.i);
    assert_eq!((attribute("saturate", 1), attribute("block_size", 0)), (1, 0));
    assert!(inputs.get(2).is_none_or(|zeros| zeros.format() == Some(format) && zeros.codes().iter().all(|&z| z == 0)));
    let scale = match inputs[1].data_type {
        10 => Scales::F16(inputs[1].halves()),
        _ => Values::F32(inputs[1].floats()).into(),
    };
    let float = Minifloat::new(format);
    let float = if scale.len() == 1 { float } else { float.per_channel(attribute("axis", 1) as usize) };
    let mut q = Quantizer::<f32>::layout(&float, shape).unwrap();
    let Grid::Scaled { levels, .. } = q.grid().clone() else { panic!() };
    q.set_grid(Grid::Scaled { levels, scale }).unwrap();
    (float, q)
}

/// A node on a tensor of `shape`: the quantizer it is, and its scales and zero points.
fn affine(node: &Node, inputs: &[Tensor], codes: &Tensor) -> Option<(Affine, Grid)> {
    let attribute = |name: &str, default| node.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.i);
    let (bits, signed) = codes.code_type()?;
    let affine = Affine::new(bits).unwrap();
    let scales = inputs[1].floats();
    let axis = attribute("axis", 1) as usize;
    let affine = match attribute("block_size", 0) {
        0 if scales.len() == 1 => affine,
        0 => affine.per_channel(axis),
        size => affine.per_block(axis, size as usize).unwrap(),
    };
    let none = || vec![if signed { 1 << (bits - 1) } else { 0 }; scales.len()];
    let zeros = inputs.get(2).map_or_else(none, Tensor::codes);
    Some((affine, Grid::Affine { scale: Values::F32(scales).into(), zero_point: Some(zeros) }))
}

/// Whether the node does what its files say; `None` when it is not kept.
fn quantizes(node: &Node, inputs: &[Tensor], outputs: &[Tensor]) -> Option<bool> {
    let shape = inputs[0].shape();
    Some(match (node.op_type.as_str(), inputs[0].format(), outputs[0].format()) {
        ("QuantizeLinear", None, Some(format)) => {
            let (float, mut q) = float(node, format, &shape, inputs);
            // The standard adds the zero point, a positive 0: of -0 that makes 0.
            let x: Vec<f32> = inputs[0].floats().iter().map(|x| x + 0.0).collect();
            float.encode(TensorRef::new(&x, &shape).unwrap(), &mut q).unwrap();
            q.codes() == outputs[0].codes()
        }
        ("DequantizeLinear", Some(format), None) => {
            let (_, mut q) = float(node, format, &shape, inputs);
            q.set_codes(&inputs[0].codes()).unwrap();
            match outputs[0].data_type {
                10 => q.dequantize::<f16>() == outputs[0].halves(),
                _ => q.dequantize::<f32>() == outputs[0].floats(),
            }
        }
        ("QuantizeLinear", ..) => {
            let (affine, grid) = affine(node, inputs, &outputs[0])?;
            let x = inputs[0].floats();
            let mut q = Quantizer::<f32>::layout(&affine, &shape).unwrap();
            q.set_grid(grid).unwrap();
            affine.encode(TensorRef::new(&x, &shape).unwrap(), &mut q).unwrap();
            q.codes() == outputs[0].codes()
        }
        ("DequantizeLinear", ..) => {
            let (affine, grid) = affine(node, inputs, &inputs[0])?;
            let codes = inputs[0].codes();
            let q = QTensor::from_codes(&shape, affine.bits(), affine.granularity(), grid, &codes).unwrap();
            q.dequantize::<f32>() == outputs[0].floats()
        }
        ("DynamicQuantizeLinear", ..) => {
            let x = inputs[0].floats();
            let q = Affine::new(8).unwrap().quantize(TensorRef::new(&x, &shape).unwrap()).unwrap();
            let grid =
                Grid::Affine { scale: Values::F32(outputs[1].floats()).into(), zero_point: Some(outputs[2].codes()) };
            assert_eq!(q.granularity(), Granularity::Tensor);
            q.codes() == outputs[0].codes() && *q.grid() == grid
        }
        (other, ..) => panic!("unknown operator {other}"),
    })
}

#[test]
fn quantizing_operators() {
    let (mut compared, mut refused) = (0, Vec::new());
    let mut dirs: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs {
        let name = dir.file_name().unwrap().to_str().unwrap().trim_start_matches("test_").to_owned();
        if !name.contains("quantizelinear") {
            continue;
        }
        let model = Model::decode(&fs::read(dir.join("model.onnx")).unwrap()[..]).unwrap();
        let (inputs, outputs) = (tensors(&dir, "input"), tensors(&dir, "output"));
        match quantizes(&model.graph.unwrap().node[0], &inputs, &outputs) {
            Some(same) => assert!(same, "{name}"),
            None => refused.push(name),
        }
        compared += 1;
    }
    let compared = compared - refused.len();
    println!("oracle onnx_node quantizing: {compared} compared, {compared} within tolerance; not kept: {refused:?}");
    assert_eq!(refused, [""; 0], "every type is kept");
    assert_eq!(compared, 30);
}

/// The levels of `codes`, of one scale and zero point.
fn levels(codes: &Tensor, scale: f32, zero: &Tensor) -> Vec<f32> {
    let grid = Grid::Affine { scale: Values::F32(vec![scale]).into(), zero_point: Some(zero.codes()) };
    let (bits, _) = codes.code_type().unwrap();
    QTensor::from_codes(&codes.shape(), bits, Granularity::Tensor, grid, &codes.codes()).unwrap().dequantize()
}

/// `a b` of two stacks of matrices, in `f64`.
fn product(a: &[f32], b: &[f32], [n, k, m]: [usize; 3]) -> Vec<f64> {
    let matrix = |(a, b): (&[f32], &[f32])| {
        let entry = |i: usize| (0..k).map(|l| f64::from(a[i / m * k + l]) * f64::from(b[l * m + i % m])).sum();
        (0..n * m).map(entry).collect::<Vec<f64>>()
    };
    a.chunks_exact(n * k).zip(b.chunks_exact(k * m)).flat_map(matrix).collect()
}

#[test]
fn multiplying_operators() {
    let mut compared = 0;
    let mut dirs: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs.iter().filter(|dir| dir.to_str().unwrap().contains("mat")) {
        let model = Model::decode(&fs::read(dir.join("model.onnx")).unwrap()[..]).unwrap();
        let (inputs, outputs) = (tensors(dir, "input"), tensors(dir, "output"));
        let dims = |b: usize| match (&inputs[0].shape()[..], &inputs[b].shape()[..]) {
            ([a @ .., n, k], [b @ .., l, m]) if (a, k) == (b, l) => [*n, *k, *m],
            other => panic!("{other:?}"),
        };
        match model.graph.unwrap().node[0].op_type.as_str() {
            "MatMulInteger" => {
                let (a, b) = (levels(&inputs[0], 1.0, &inputs[2]), levels(&inputs[1], 1.0, &inputs[3]));
                let want: Vec<f64> = outputs[0].int32_data.iter().map(|&y| y.into()).collect();
                let raw = outputs[0].raw_data.as_chunks::<4>().0.iter().map(|y| i32::from_le_bytes(*y).into());
                assert_eq!(product(&a, &b, dims(1)), if want.is_empty() { raw.collect() } else { want }, "{dir:?}");
            }
            "QLinearMatMul" => {
                let a = levels(&inputs[0], inputs[1].number(), &inputs[2]);
                let b = levels(&inputs[3], inputs[4].number(), &inputs[5]);
                let y: Vec<f32> = product(&a, &b, dims(3)).iter().map(|&y| y as f32).collect();
                let (scale, zeros) = (Values::F32(vec![inputs[6].number()]).into(), inputs[7].codes());
                let affine = Affine::new(8).unwrap();
                let mut q = Quantizer::<f32>::layout(&affine, &outputs[0].shape()).unwrap();
                q.set_grid(Grid::Affine { scale, zero_point: Some(zeros) }).unwrap();
                affine.encode(TensorRef::new(&y, &outputs[0].shape()).unwrap(), &mut q).unwrap();
                assert_eq!(q.codes(), outputs[0].codes(), "{dir:?}");
            }
            other => panic!("unknown operator {other}"),
        }
        compared += 1;
    }
    println!("oracle onnx_node multiplying: {compared} compared, {compared} within tolerance");
    assert_eq!(compared, 9);
}
