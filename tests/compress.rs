//! Models made smaller: what is written decodes to what the report says, and nothing is left of what fails.

#![cfg(feature = "onnx")]

use lapidary::{
    ErrorKind,
    compress::{self, Form, Progress, Recipe, Report},
    format::{
        file::{self, Bytes, ElementType, TensorFile},
        onnx::{self, Onnx, proto::*},
    },
    half::f16,
};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Mutex,
};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lapidary-compress-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn model(&self, model: &ModelProto) -> PathBuf {
        let path = self.0.join("in.onnx");
        onnx::layout(model).unwrap().create(&path).unwrap().finish().unwrap();
        path
    }

    fn out(&self) -> PathBuf {
        self.0.join("out.onnx")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const RESCNN: &[u8] = include_bytes!("fixtures/digits_rescnn.onnx");

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 7 * seed) * 2_654_435_761) % 10_007) as f32 / 5003.0 - 1.0).collect()
}

fn f32s(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    onnx::tensor(name, ElementType::F32, shape, raw.into()).unwrap()
}

fn node(operator: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: input.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn model(opset: i64, node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
        graph: Some(GraphProto { node, initializer, ..Default::default() }),
        ..Default::default()
    }
}

fn integer(node: &NodeProto, name: &str) -> Option<usize> {
    node.attribute.iter().find(|a| a.name.as_deref() == Some(name)).and_then(|a| a.i).map(|i| i as usize)
}

/// The integers of a tensor of 2, 4 or 8 bits, signed ones by their sign.
fn integers(file: &dyn TensorFile, name: &str) -> (Vec<usize>, Vec<f64>) {
    let index = file.find(name).unwrap_or_else(|| panic!("no {name}"));
    let info = &file.tensors()[index];
    let bits = info.element.bits().unwrap();
    let signed = matches!(info.element, ElementType::I2 | ElementType::I4 | ElementType::I8);
    let bytes = file.data(index).unwrap();
    let decode = |i: usize| {
        let code = i64::from(bytes[i * bits / 8] >> (i * bits % 8)) & ((1 << bits) - 1);
        (if signed && code >= 1 << (bits - 1) { code - (1 << bits) } else { code }) as f64
    };
    (info.shape.clone(), (0..info.volume().unwrap()).map(decode).collect())
}

/// What `DequantizeLinear` gives for the node that makes `output`, by its definition.
fn dequantized(path: &Path, output: &str) -> Vec<f64> {
    let read = Onnx::open(path).unwrap();
    let graph = read.model().graph.clone().unwrap();
    let node = graph.node.iter().find(|node| node.output[0] == output).unwrap();
    assert_eq!(node.op_type.as_deref(), Some("DequantizeLinear"));
    let file: Box<dyn TensorFile> = Box::new(read);
    let (shape, codes) = integers(&*file, &node.input[0]);
    let scales = file.to_f32(file.find(&node.input[1]).unwrap()).unwrap();
    let zeros = node.input.get(2).map(|name| integers(&*file, name).1);
    let (axis, block) = (integer(node, "axis").unwrap(), integer(node, "block_size"));
    let level = |mut i: usize| {
        let mut place = vec![0; shape.len()];
        for (at, &size) in shape.iter().enumerate().rev() {
            (place[at], i) = (i % size, i / size);
        }
        match block {
            None => place[axis],
            Some(block) => shape.iter().enumerate().fold(0, |level, (at, &size)| {
                let (size, place) =
                    if at == axis { (size.div_ceil(block), place[at] / block) } else { (size, place[at]) };
                level * size + place
            }),
        }
    };
    let decode = |(i, code): (usize, &f64)| {
        let level = level(i);
        (code - zeros.as_ref().map_or(0.0, |zeros| zeros[level])) * f64::from(scales[level])
    };
    codes.iter().enumerate().map(decode).collect()
}

/// Whether the model's weights are as the report says, within `f32` rounding.
fn check(path: &Path, report: &Report, original: &dyn TensorFile) {
    for tensor in report.tensors.iter().filter(|tensor| tensor.outcome.is_ok()) {
        let want = original.to_f32(original.find(&tensor.name).unwrap()).unwrap();
        let got = dequantized(path, &tensor.name);
        let error = want.iter().zip(&got).map(|(&x, y)| (f64::from(x) - y).abs()).fold(0.0, f64::max);
        let (said, bound) = (tensor.max_abs.unwrap(), tensor.bound.unwrap());
        // Decoded numbers are rounded to `f32`, which these are not.
        let largest = want.iter().fold(0.0, |largest: f64, &x| largest.max(f64::from(x.abs())));
        assert!((error - said).abs() <= 1e-7 * largest, "{}: {error} where {said} was said", tensor.name);
        assert!(said <= bound, "{}: {said} above {bound}", tensor.name);
    }
}

#[test]
fn every_scheme_decodes_to_what_the_report_says() {
    let folder = Folder::new("schemes");
    let input = folder.0.join("in.onnx");
    fs::write(&input, RESCNN).unwrap();
    let original = file::open(&input).unwrap();
    for (bits, group, symmetric, opset) in [
        (8, None, false, 13),
        (8, None, true, 13),
        (8, Some(32), false, 21),
        (4, Some(16), false, 21),
        (4, None, true, 21),
        (2, Some(32), true, 25),
    ] {
        let mut recipe = Recipe::new().with_bits(bits).unwrap().with_min_elements(0).with_form(Form::Dequantize);
        recipe = if symmetric { recipe.symmetric() } else { recipe };
        recipe = if let Some(size) = group { recipe.with_group(size).unwrap() } else { recipe };
        let report = compress::onnx(&input, folder.out(), &recipe, &go_on).unwrap();
        assert!(report.tensors.len() == 7 && report.tensors.iter().all(|tensor| tensor.outcome.is_ok()));
        check(&folder.out(), &report, &*original);
        let written = Onnx::open(folder.out()).unwrap();
        assert_eq!(written.model().opset_import[0].version, Some(opset));
        assert_eq!(fs::metadata(folder.out()).unwrap().len(), report.bytes_after);
        assert_eq!(report.bytes_before, RESCNN.len() as u64);
        // What is not quantized is as it was.
        let bias = written.tensors().iter().position(|tensor| tensor.name == "fc.bias").unwrap();
        assert_eq!(written.data(bias).unwrap(), original.data(original.find("fc.bias").unwrap()).unwrap());
    }
}

#[cfg(feature = "rayon")]
#[test]
fn the_file_is_the_same_on_any_number_of_threads() {
    let folder = Folder::new("threads");
    let nodes = (0..9).map(|i| node("MatMul", &["x", &format!("w{i}")], &format!("y{i}"))).collect();
    let weights = (0..9).map(|i| f32s(&format!("w{i}"), &[96, 80 + i], &numbers(96 * (80 + i), i))).collect();
    let input = folder.model(&model(17, nodes, weights));
    for recipe in [Recipe::new().with_bits(8).unwrap(), Recipe::new().with_bits(4).unwrap().with_group(32).unwrap()] {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| compress::onnx(&input, folder.out(), &recipe, &go_on)).unwrap();
            fs::read(folder.out()).unwrap()
        };
        let one = run(1);
        assert!(run(2) == one && run(7) == one);
    }
}

#[test]
fn matrices_are_multiplied_by_their_codes() {
    let folder = Folder::new("nbits");
    let (k, n) = (80, 33);
    let values = numbers(k * n, 1);
    let nodes = vec![
        node("Identity", &["w"], "v"),
        node("MatMul", &["x", "w"], "y"),
        node("MatMul", &["x", "v"], "z"),
        node("MatMul", &["x", "u"], "a"),
        node("Gather", &["u", "i"], "b"),
    ];
    let input = folder.model(&model(17, nodes, vec![f32s("w", &[k, n], &values), f32s("u", &[k, n], &values)]));
    let recipe = Recipe::new().with_bits(4).unwrap().with_group(32).unwrap();
    let report = compress::onnx(&input, folder.out(), &recipe, &go_on).unwrap();
    let written = Onnx::open(folder.out()).unwrap();
    let graph = written.model().graph.clone().unwrap();
    let operators: Vec<_> = graph.node.iter().map(|node| node.op_type.clone().unwrap()).collect();
    assert_eq!(operators, ["DequantizeLinear", "MatMulNBits", "MatMulNBits", "MatMul", "Gather"]);
    let multiply = &graph.node[2];
    assert_eq!((multiply.domain.as_deref(), multiply.output[0].as_str()), (Some("com.microsoft"), "z"));
    let read = ["K", "N", "bits", "block_size"].map(|name| integer(multiply, name).unwrap());
    assert_eq!(read, [k, n, 4, 32]);
    // By the operator's definition: rows of W transposed, blocks of 32, low nibble first.
    let file: Box<dyn TensorFile> = Box::new(written);
    let bytes = |at: usize| file.data(file.find(&multiply.input[at]).unwrap()).unwrap();
    let (codes, zeros) = (bytes(1), bytes(3));
    let scales = file.to_f32(file.find(&multiply.input[2]).unwrap()).unwrap();
    let nibble = |bytes: &Bytes, i: usize| f64::from(bytes[i / 2] >> (i % 2 * 4) & 15);
    let blocks = k.div_ceil(32);
    let mut error = 0f64;
    for row in 0..n {
        for (i, at) in (0..k).enumerate() {
            let zero = nibble(&zeros, row * blocks.div_ceil(2) * 2 + at / 32);
            let value = (nibble(&codes, row * blocks * 32 + i) - zero) * f64::from(scales[row * blocks + at / 32]);
            error = error.max((value - f64::from(values[at * n + row])).abs());
        }
    }
    let said = report.tensors[0].max_abs.unwrap();
    assert!((error - said).abs() < 1e-6 && said <= report.tensors[0].bound.unwrap(), "{error} {said}");
    // The other is looked up too, so it stays a tensor; which needs newer operators.
    assert!(report.tensors[1].outcome.as_ref().unwrap().contains("DequantizeLinear"));
    assert_eq!(report.notes.len(), 1);
}

#[test]
fn weights_are_found_where_they_are_and_left_where_asked() {
    let folder = Folder::new("where");
    let w = |name: &str| f32s(name, &[64, 32], &numbers(2048, 3));
    let constant = NodeProto {
        attribute: vec![AttributeProto { name: Some("value".into()), t: Some(w("")), ..Default::default() }],
        ..node("Constant", &[], "c")
    };
    let body = GraphProto {
        node: vec![constant.clone(), node("MatMul", &["x", "c"], "p"), node("MatMul", &["x", "outer"], "q")],
        initializer: vec![w("inner")],
        ..Default::default()
    };
    let branch = AttributeProto { name: Some("then_branch".into()), g: Some(Box::new(body)), ..Default::default() };
    let nodes = vec![
        NodeProto { name: Some("if".into()), attribute: vec![branch], ..node("If", &["cond"], "r") },
        node("Gemm", &["x", "kept.w"], "s"),
        node("Gemm", &["x", "input.w"], "t"),
        node("Relu", &["none.w"], "u"),
    ];
    let mut whole = model(17, nodes, vec![w("outer"), w("kept.w"), w("input.w"), w("none.w")]);
    let graph = whole.graph.as_mut().unwrap();
    graph.input = vec![ValueInfoProto { name: Some("input.w".into()), ..Default::default() }];
    let input = folder.model(&whole);
    let recipe = Recipe::new().with_bits(8).unwrap().keep(["kept"]);
    let report = compress::onnx(&input, folder.out(), &recipe, &go_on).unwrap();
    let outcomes: Vec<_> = report.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.outcome.is_ok())).collect();
    assert_eq!(outcomes, [("if/then_branch/c", true), ("outer", true), ("kept.w", false), ("input.w", false)]);
    let written = Onnx::open(folder.out()).unwrap();
    let graph = written.model().graph.as_ref().unwrap();
    let branching = graph.node.iter().find(|node| node.op_type.as_deref() == Some("If")).unwrap();
    let body = branching.attribute[0].g.as_ref().unwrap();
    assert_eq!(body.node[0].op_type.as_deref(), Some("DequantizeLinear"));
    assert_eq!((body.node[0].output[0].as_str(), body.initializer.len()), ("c", 4));
    for (recipe, count) in [
        (Recipe::new().with_bits(8).unwrap().only(["Gemm"]), 1),
        (Recipe::new().with_bits(8).unwrap().with_min_elements(2049), 0),
    ] {
        let report = compress::onnx(&input, folder.out(), &recipe.keep(["kept"]), &go_on).unwrap();
        // Of `Gemm`, one is kept and one an input.
        assert_eq!(report.tensors.iter().filter(|tensor| tensor.outcome.is_ok()).count(), count - count.min(1));
    }
}

#[test]
fn narrow_weights_stay_of_their_type() {
    let folder = Folder::new("half");
    let values = numbers(2048, 5);
    let raw: Vec<u8> = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
    let half = onnx::tensor("w", ElementType::F16, &[64, 32], raw.into()).unwrap();
    let input = folder.model(&model(17, vec![node("MatMul", &["x", "w"], "y")], vec![half]));
    let report = compress::onnx(&input, folder.out(), &Recipe::new().with_bits(8).unwrap(), &go_on).unwrap();
    let graph = Onnx::open(folder.out()).unwrap().model().graph.clone().unwrap();
    let operators: Vec<_> = graph.node.iter().map(|node| node.op_type.clone().unwrap()).collect();
    assert_eq!(operators, ["DequantizeLinear", "Cast", "MatMul"]);
    assert_eq!((integer(&graph.node[1], "to"), graph.node[1].output[0].as_str()), (Some(10), "w"));
    let got = dequantized(&folder.out(), &graph.node[0].output[0]);
    let error = values.iter().zip(got).map(|(&x, y)| (f64::from(f16::from_f32(x)) - y).abs()).fold(0.0, f64::max);
    assert!((error - report.tensors[0].max_abs.unwrap()).abs() < 1e-6);
}

#[test]
fn what_a_model_cannot_have_is_said() {
    let folder = Folder::new("opset");
    let axes = AttributeProto { name: Some("axes".into()), ints: vec![1], ..Default::default() };
    let mean = NodeProto { name: Some("mean".into()), attribute: vec![axes], ..node("ReduceMean", &["x"], "m") };
    let weight = f32s("w", &[8, 8, 6, 6], &numbers(2304, 2));
    let whole = model(13, vec![mean, node("Conv", &["x", "w"], "y")], vec![weight]);
    let input = folder.model(&whole);
    let four = Recipe::new().with_bits(4).unwrap().with_group(16).unwrap();
    let report = compress::onnx(&input, folder.out(), &four, &go_on).unwrap();
    assert!(report.tensors[0].outcome.as_ref().unwrap().starts_with("8 bits"));
    assert!(report.notes.is_empty());
    let report = compress::onnx(&input, folder.out(), &four.clone().with_form(Form::Dequantize), &go_on).unwrap();
    assert!(report.tensors[0].outcome.as_ref().unwrap_err().contains("ReduceMean \"mean\""));
    assert_eq!(fs::read(folder.out()).unwrap(), fs::read(&input).unwrap());
    let report = compress::onnx(&input, folder.out(), &four.clone().with_form(Form::MatMulNBits), &go_on).unwrap();
    assert!(report.tensors[0].outcome.is_err());

    // ONNX's checker wants the operators of functions to be those of the model.
    let set = OperatorSetIdProto { domain: None, version: Some(13) };
    let function = FunctionProto {
        name: Some("twice".into()),
        domain: Some("own".into()),
        opset_import: vec![set],
        node: vec![node("Add", &["a", "a"], "b")],
        ..Default::default()
    };
    let weight = f32s("w", &[8, 8, 6, 6], &numbers(2304, 2));
    let mut whole = model(13, vec![node("Conv", &["x", "w"], "y")], vec![weight]);
    whole.functions = vec![function];
    let report = compress::onnx(folder.model(&whole), folder.out(), &four, &go_on).unwrap();
    assert!(report.tensors[0].outcome.as_ref().unwrap().starts_with("8 bits"));
    whole.functions[0].opset_import[0].version = Some(21);
    let report = compress::onnx(folder.model(&whole), folder.out(), &four, &go_on).unwrap();
    assert!(report.tensors[0].outcome.as_ref().unwrap().starts_with("4 bits"));
}

#[test]
fn in_old_models_all_weights_are_inputs() {
    let folder = Folder::new("old");
    let input = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
    let mut whole = model(8, vec![node("MatMul", &["x", "w"], "y")], vec![f32s("w", &[64, 32], &numbers(2048, 8))]);
    whole.ir_version = Some(3);
    whole.graph.as_mut().unwrap().input = vec![input("x"), input("w")];
    let path = folder.model(&whole);
    let report = compress::onnx(&path, folder.out(), &Recipe::new().with_bits(8).unwrap(), &go_on).unwrap();
    assert!(report.tensors[0].outcome.is_ok());
    let written = Onnx::open(folder.out()).unwrap();
    let inputs: Vec<_> = written.model().graph.as_ref().unwrap().input.iter().map(|input| input.name.clone()).collect();
    assert_eq!((inputs, written.model().ir_version), (vec![Some("x".into())], Some(7)));
    assert_eq!(written.model().opset_import[0].version, Some(13));
}

#[test]
fn weights_in_other_files_stay_in_one() {
    let folder = Folder::new("external");
    let weight = f32s("w", &[300, 200], &numbers(60_000, 4));
    let whole = model(17, vec![node("MatMul", &["x", "w"], "y")], vec![weight]);
    let (own, data) = onnx::layout_external(&whole, "in.bin").unwrap();
    data.create(folder.0.join("in.bin")).unwrap().finish().unwrap();
    let input = folder.0.join("in.onnx");
    own.create(&input).unwrap().finish().unwrap();
    let original = file::open(&input).unwrap();
    let report = compress::onnx(&input, folder.out(), &Recipe::new().with_bits(8).unwrap(), &go_on).unwrap();
    check(&folder.out(), &report, &*original);
    let bytes = |name: &str| fs::metadata(folder.0.join(name)).unwrap().len();
    assert_eq!(report.bytes_before, bytes("in.onnx") + bytes("in.bin"));
    assert_eq!(report.bytes_after, bytes("out.onnx") + bytes("out.onnx.data"));
    assert!(bytes("out.onnx") < 2000);
}

#[test]
fn nothing_is_left_of_what_fails() {
    let folder = Folder::new("fails");
    let mut values = numbers(2048, 6);
    let nodes = || (0..4).map(|i| node("MatMul", &["x", &format!("w{i}")], &format!("y{i}"))).collect::<Vec<_>>();
    let weights = |values: &[f32]| (0..4).map(|i| f32s(&format!("w{i}"), &[64, 32], values)).collect();
    let recipe = Recipe::new().with_bits(8).unwrap();
    let input = folder.model(&model(17, nodes(), weights(&values)));
    fs::write(folder.out(), "before").unwrap();
    let seen = Mutex::new(Vec::new());
    let stop = |progress: Progress<'_>| {
        let mut seen = seen.lock().unwrap();
        seen.push((progress.done, progress.total));
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = compress::onnx(&input, folder.out(), &recipe, &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let total = 4 * 2048 * 4;
    assert!(seen.lock().unwrap().iter().all(|&(done, of)| of == total && done <= total && done % 8192 == 0));
    values[77] = f32::NAN;
    let broken = folder.model(&model(17, nodes(), weights(&values)));
    let error = compress::onnx(&broken, folder.out(), &recipe, &go_on).unwrap_err();
    assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(77)));
    assert!(error.tensor().unwrap().starts_with('w'));
    // As matrices that are multiplied, they are read by columns.
    let error = compress::onnx(&broken, folder.out(), &Recipe::new().with_bits(4).unwrap(), &go_on).unwrap_err();
    assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(77)));
    assert_eq!(fs::read(folder.out()).unwrap(), b"before");
    let error = compress::onnx(&broken, &broken, &recipe, &go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
    assert!(compress::onnx(&broken, folder.0.join("no/out.onnx"), &recipe, &go_on).is_err());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
}

#[test]
fn nothing_becomes_larger() {
    let folder = Folder::new("larger");
    let weights = vec![
        f32s("depthwise", &[512, 1, 3, 3], &numbers(4608, 1)),
        f32s("flat", &[4, 512], &numbers(2048, 2)),
        f32s("tiny", &[1024, 1, 1, 1], &numbers(1024, 3)),
        f32s("even", &[64, 64], &[0.0; 4096]),
        f32s("none", &[0, 64], &[]),
    ];
    let nodes = vec![
        node("Conv", &["x", "depthwise"], "a"),
        node("MatMul", &["x", "flat"], "b"),
        node("Conv", &["x", "tiny"], "c"),
        node("MatMul", &["x", "even"], "d"),
        node("MatMul", &["x", "none"], "e"),
    ];
    let input = folder.model(&model(21, nodes, weights));
    for group in [32, 1 << 17, usize::MAX] {
        let recipe = Recipe::new().with_bits(4).unwrap().with_group(group).unwrap().with_min_elements(0);
        let report = compress::onnx(&input, folder.out(), &recipe, &go_on).unwrap();
        assert!(report.tensors.iter().all(|tensor| tensor.bytes_after <= tensor.bytes_before), "{report}");
        let outcome = |name: &str| report.tensors.iter().find(|tensor| tensor.name == name).unwrap().outcome.clone();
        assert!(outcome("depthwise").unwrap().contains("a scale a channel"));
        assert!(outcome("flat").is_ok() && outcome("tiny").is_err() && outcome("none").is_err());
        let even = report.tensors.iter().find(|tensor| tensor.name == "even").unwrap();
        assert_eq!(even.sqnr_db, Some(f64::INFINITY));
    }
}

#[test]
fn the_files_of_the_input_are_no_output() {
    let folder = Folder::new("files");
    let weight = f32s("w", &[300, 200], &numbers(60_000, 4));
    let whole = model(17, vec![node("MatMul", &["x", "w"], "y")], vec![weight]);
    let (own, data) = onnx::layout_external(&whole, "out.onnx.data").unwrap();
    data.create(folder.0.join("out.onnx.data")).unwrap().finish().unwrap();
    let input = folder.0.join("in.onnx");
    own.create(&input).unwrap().finish().unwrap();
    let before = fs::read(folder.0.join("out.onnx.data")).unwrap();
    let error = compress::onnx(&input, folder.out(), &Recipe::new().with_bits(8).unwrap(), &go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
    assert_eq!(fs::read(folder.0.join("out.onnx.data")).unwrap(), before);
}

#[test]
fn absurd_recipes_are_refused() {
    assert!(
        Recipe::new().with_bits(3).is_err()
            && Recipe::new().with_bits(0).is_err()
            && Recipe::new().with_bits(16).is_err()
    );
    assert!(Recipe::new().with_bits(4).unwrap().with_group(15).is_err());
}
