//! ONNX files: what is read is written again, weights wherever they are, and nothing wrong gets through.

#![cfg(feature = "onnx")]

use lapidary::{
    ErrorKind,
    format::{
        file::{self, Bytes, ElementType, TensorFile},
        onnx::{self, Onnx, proto::*},
    },
};
use proptest::prelude::*;
use prost::Message;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lapidary-onnx-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const RESCNN: &[u8] = include_bytes!("fixtures/digits_rescnn.onnx");

fn floats(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

fn model(initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto { initializer, ..Default::default() };
    ModelProto { ir_version: Some(10), graph: Some(graph), ..Default::default() }
}

#[test]
fn a_model_is_written_as_it_was_read() {
    let folder = Folder::new("rescnn");
    let path = folder.file("in.onnx", RESCNN);
    let read = Onnx::open(&path).unwrap();
    assert_eq!(read.unknown_bytes(), 0);
    let out = folder.0.join("out.onnx");
    onnx::layout(read.model()).unwrap().create(&out).unwrap().finish().unwrap();
    assert_eq!(fs::read(&out).unwrap(), RESCNN);

    let any = file::open(&path).unwrap();
    assert_eq!((any.format(), any.metadata().get("opset ai.onnx").map(String::as_str)), ("onnx", Some("13")));
    let index = any.find("conv0.weight").unwrap();
    let info = &any.tensors()[index];
    assert_eq!(any.data(index).unwrap().len(), info.byte_len().unwrap());
    assert_eq!(any.to_f32(index).unwrap().len(), info.volume().unwrap());
    assert!(any.data(any.tensors().len()).is_err());
}

#[test]
fn weights_are_found_wherever_they_are() {
    let tensor = |name: &str| onnx::tensor(name, ElementType::F32, &[2], floats(&[1.0, 2.0])).unwrap();
    let attribute = |name: &str| AttributeProto { name: Some(name.into()), ..Default::default() };
    let constant = |output: &str| NodeProto {
        op_type: Some("Constant".into()),
        output: vec![output.into()],
        attribute: vec![AttributeProto { t: Some(tensor("")), ..attribute("value") }],
        ..Default::default()
    };
    let inner = GraphProto { node: vec![constant("c")], initializer: vec![tensor("w")], ..Default::default() };
    let branch = NodeProto {
        name: Some("if".into()),
        attribute: vec![AttributeProto { g: Some(Box::new(inner)), ..attribute("then_branch") }],
        ..Default::default()
    };
    let typed = TensorProto {
        name: Some("typed".into()),
        dims: vec![3],
        data_type: Some(10),
        int32_data: vec![0x3c00, 0x4000, 0xc000],
        ..Default::default()
    };
    let text = TensorProto { name: Some("text".into()), dims: vec![1], data_type: Some(8), ..Default::default() };
    let sparse = SparseTensorProto { values: Some(tensor("sparse")), indices: None, dims: vec![9] };
    let mut whole = model(vec![tensor("w"), typed, text, tensor("w")]);
    let graph = whole.graph.as_mut().unwrap();
    graph.node = vec![constant("c"), branch];
    graph.sparse_initializer = vec![sparse];
    whole.functions = vec![FunctionProto {
        domain: Some("d".into()),
        name: Some("f".into()),
        node: vec![constant("c")],
        ..Default::default()
    }];
    let folder = Folder::new("everywhere");
    let read = Onnx::open(folder.file("m.onnx", &whole.encode_to_vec())).unwrap();
    let names: Vec<&str> = read.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let want = ["c", "if/then_branch/c", "if/then_branch/w", "w", "typed", "w#2", "sparse", "d::f/c"];
    assert_eq!(names, want);
    let any: Box<dyn TensorFile> = Box::new(read);
    assert_eq!(any.to_f32(any.find("typed").unwrap()).unwrap(), [1.0, 2.0, -2.0]);
    assert_eq!(any.to_f32(any.find("d::f/c").unwrap()).unwrap(), [1.0, 2.0]);
}

#[test]
fn weights_move_out_of_the_model_and_back() {
    let folder = Folder::new("external");
    let big: Vec<f32> = (0..5000).map(|i| i as f32).collect();
    let small = onnx::tensor("small", ElementType::F32, &[2], floats(&[1.0, 2.0])).unwrap();
    let kept = onnx::tensor("kept", ElementType::F32, &[50, 100], floats(&big)).unwrap();
    let later = onnx::pending("later", ElementType::I4, &[3], 0).unwrap();
    let (own, data) = onnx::layout_external(&model(vec![small, kept.clone(), later]), "m.data").unwrap();
    let path = folder.0.join("m.onnx");
    let data = data.create(folder.0.join("m.data")).unwrap();
    data.write(0, 0, &[0x21, 0x03]).unwrap();
    data.finish().unwrap();
    own.create(&path).unwrap().finish().unwrap();

    let read = file::open(&path).unwrap();
    assert_eq!(read.to_f32(1).unwrap(), big);
    assert_eq!(&read.data(2).unwrap()[..], [0x21, 0x03]);
    let inlined = Onnx::open(&path).unwrap().inlined().unwrap();
    assert_eq!(inlined.graph.as_ref().unwrap().initializer[1], kept);
    assert!(onnx::layout_external(&inlined, "../m.data").is_err());
    assert!(onnx::layout_external(&inlined, "").is_err());

    fs::write(folder.0.join("m.data"), [0; 100]).unwrap();
    let error = Onnx::open(&path).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Format, Some("kept")));
    fs::remove_file(folder.0.join("m.data")).unwrap();
    assert_eq!(Onnx::open(&path).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn data_outside_of_the_folder_is_refused() {
    let folder = Folder::new("outside");
    let secret = folder.file("secret", &[0; 8]);
    fs::create_dir_all(folder.0.join("models")).unwrap();
    let open = |location: &str, more: &[StringStringEntryProto]| {
        let tensor = TensorProto {
            name: Some("w".into()),
            dims: vec![2],
            data_type: Some(1),
            data_location: Some(1),
            external_data: [&[entry("location", location)], more].concat(),
            ..Default::default()
        };
        let path = folder.0.join("models/m.onnx");
        fs::write(&path, model(vec![tensor]).encode_to_vec()).unwrap();
        Onnx::open(path).map(|_| ()).map_err(|error| error.kind())
    };
    #[cfg(unix)]
    std::os::unix::fs::symlink(&secret, folder.0.join("models/link")).unwrap();
    #[cfg(unix)]
    assert_eq!(open("link", &[]), Err(ErrorKind::Format));
    #[cfg(unix)]
    std::os::unix::fs::symlink(&folder.0, folder.0.join("models/up")).unwrap();
    #[cfg(unix)]
    assert_eq!(open("up/secret", &[]), Err(ErrorKind::Format));
    for location in ["../secret", secret.to_str().unwrap(), "", ".", "a/../../secret"] {
        assert_eq!(open(location, &[]), Err(ErrorKind::Format), "{location}");
    }
    assert_eq!(open("absent", &[]), Err(ErrorKind::Io));
    fs::write(folder.0.join("models/there"), [0; 8]).unwrap();
    assert_eq!(open("there", &[]), Ok(()));
    for (key, value) in [("offset", "-1"), ("offset", "9"), ("length", "9"), ("offset", "18446744073709551615")] {
        assert_eq!(open("there", &[entry(key, value)]), Err(ErrorKind::Format), "{key} {value}");
    }
}

#[test]
fn wrong_bytes_are_errors() {
    let folder = Folder::new("wrong");
    let open = |bytes: &[u8]| Onnx::open(folder.file("m.onnx", bytes)).map(|_| ()).map_err(|error| error.kind());
    assert_eq!(open(b""), Err(ErrorKind::Format));
    assert_eq!(open(b"not a model"), Err(ErrorKind::Format));
    let bad = |tensor: TensorProto| open(&model(vec![tensor]).encode_to_vec());
    let named = TensorProto { name: Some("w".into()), ..Default::default() };
    assert!(bad(TensorProto { data_type: Some(1), dims: vec![-1], ..named.clone() }).is_err());
    assert!(bad(TensorProto { data_type: Some(1), dims: vec![i64::MAX, 3], ..named.clone() }).is_err());
    assert!(bad(TensorProto { data_type: Some(99), ..named.clone() }).is_err());
    // Few bytes for many elements are found when they are read.
    let short = TensorProto { data_type: Some(1), dims: vec![1 << 40], raw_data: Some(floats(&[1.0])), ..named };
    let path = folder.file("m.onnx", &model(vec![short]).encode_to_vec());
    let read = file::open(&path).unwrap();
    assert_eq!(read.data(0).unwrap_err().tensor(), Some("w"));
    assert_eq!(read.to_f32(0).unwrap_err().tensor(), Some("w"));
    // Graphs within graphs without end.
    let mut graph = GraphProto::default();
    for _ in 0..60 {
        let attribute = AttributeProto { g: Some(Box::new(graph)), ..Default::default() };
        graph = GraphProto {
            node: vec![NodeProto { attribute: vec![attribute], ..Default::default() }],
            ..Default::default()
        };
    }
    let deep = ModelProto { graph: Some(graph), ..Default::default() };
    assert_eq!(open(&deep.encode_to_vec()), Err(ErrorKind::Format));
}

/// A name before the names of all tensors within a graph makes no large numbers of bytes, and many of one name no long work.
#[test]
fn names_take_no_more_than_the_file() {
    let folder = Folder::new("names");
    let many: Vec<_> = (0..20_000).map(|_| onnx::tensor("", ElementType::U8, &[0], Bytes::new()).unwrap()).collect();
    let (path, mut inner) = (folder.0.join("m.onnx"), GraphProto { initializer: many, ..Default::default() });
    fs::write(&path, ModelProto { graph: Some(inner.clone()), ..Default::default() }.encode_to_vec()).unwrap();
    assert_eq!(Onnx::open(&path).unwrap().tensors().last().unwrap().name, "#20000");
    for _ in 0..10 {
        let name = Some("n".repeat(1000));
        let body = AttributeProto { name: Some("body".into()), g: Some(Box::new(inner)), ..Default::default() };
        let node = NodeProto { op_type: Some("Loop".into()), name, attribute: vec![body], ..Default::default() };
        inner = GraphProto { node: vec![node], ..Default::default() };
    }
    fs::write(&path, ModelProto { graph: Some(inner), ..Default::default() }.encode_to_vec()).unwrap();
    let error = Onnx::open(&path).unwrap_err();
    assert!(error.kind() == ErrorKind::Format && error.to_string().contains("names"), "{error}");
}

fn opens(path: &Path) {
    if let Ok(read) = file::open(path) {
        for index in 0..read.tensors().len() {
            let _ = read.data(index);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_changed_file_is_read_or_refused(at in 0..4000usize, byte: u8, cut in 0..4000usize, insert: bool) {
        // Structure lies at the end, behind the weights, and at the front.
        let folder = Folder::new("changed");
        for from_end in [false, true] {
            let mut bytes = RESCNN.to_vec();
            let at = if from_end { bytes.len() - 1 - at } else { at };
            if insert { bytes.insert(at, byte) } else { bytes[at] = byte }
            opens(&folder.file("m.onnx", &bytes));
            bytes.truncate(RESCNN.len() - cut);
            opens(&folder.file("m.onnx", &bytes));
        }
    }
}
