//! Layouts of other tools, against what those tools write and read.
//!
//! Reads `tests/fixtures/oracles/quant_layouts.json.gz`, or `quant.json` in the folder named by the environment
//! variable `LAPIDARY_ORACLES`; and `tests/fixtures/gguf_blocks.json.gz`.

use flate2::read::GzDecoder;
use lapidary::{
    TensorRef,
    quant::layout::{GgmlType, OrtRoundToNearest, ZeroPoints},
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{fs, io::Read, path::PathBuf};

#[derive(Deserialize)]
struct File {
    cases: Vec<serde_json::Value>,
}

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}.json.gz", env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// The cases of a kind.
fn cases<C: DeserializeOwned>(kind: &str) -> Vec<C> {
    let text = match std::env::var_os("LAPIDARY_ORACLES") {
        Some(dir) => fs::read_to_string(PathBuf::from(dir).join("quant.json")).unwrap(),
        None => fixture("oracles/quant_layouts"),
    };
    let all = serde_json::from_str::<File>(&text).unwrap().cases;
    all.into_iter().filter(|case| case["kind"] == kind).map(|case| serde_json::from_value(case).unwrap()).collect()
}

/// Prints the line of a kind; fails when it has no case or one is off.
fn report(kind: &str, outcomes: &[Option<String>]) {
    let wrong: Vec<&String> = outcomes.iter().flatten().collect();
    println!("oracle {kind}: {} compared, {} within tolerance", outcomes.len(), outcomes.len() - wrong.len());
    assert!(!outcomes.is_empty(), "no case of {kind}");
    assert!(wrong.is_empty(), "{kind}: {}", wrong[0]);
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn singles(hex: &str) -> Vec<f32> {
    bytes(hex).as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn narrow(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|&x| x as f32).collect()
}

fn ggml_type(name: &str) -> GgmlType {
    GgmlType::ALL.into_iter().find(|kind| format!("{kind:?}") == name.replace("_K", "K")).unwrap()
}

#[derive(Deserialize)]
struct MatMul {
    bits: u8,
    block_size: usize,
    symmetric: bool,
    #[serde(rename = "K")]
    k: usize,
    #[serde(rename = "N")]
    n: usize,
    #[serde(rename = "w_row_major_KxN")]
    w_row_major: Vec<f64>,
    packed_hex: String,
    scales: Vec<f64>,
    zero_points_hex: String,
}

impl MatMul {
    fn compare(&self) -> Option<String> {
        let (n, k) = (self.n, self.k);
        let w: Vec<f32> = (0..n * k).map(|i| self.w_row_major[i % k * n + i / k] as f32).collect();
        let quantizer = OrtRoundToNearest::new(self.bits, self.block_size).unwrap();
        let quantizer = if self.symmetric { quantizer.symmetric() } else { quantizer };
        let b = quantizer.quantize(TensorRef::new(&w, &[n, k]).unwrap()).unwrap();
        // The runtime's quantizer leaves the zero points of symmetric codes as they were given: all 0.
        let zeros = match b.zero_points() {
            ZeroPoints::Packed(zeros) => *zeros == bytes(&self.zero_points_hex),
            zeros => *zeros == ZeroPoints::Middle && self.symmetric,
        };
        let scales: Vec<f64> = (0..b.scales().len()).map(|i| b.scales().get(i).unwrap()).collect();
        // Our tensor of the same bytes has the same values, by the operator's arithmetic.
        let values = b.to_qtensor().unwrap().dequantize::<f32>() == b.dequantize().unwrap();
        let same = b.packed() == bytes(&self.packed_hex) && scales == self.scales && zeros && values;
        (!same).then(|| format!("{} bits, blocks of {}, symmetric {}", self.bits, self.block_size, self.symmetric))
    }
}

#[derive(Deserialize)]
struct Blocks {
    r#type: String,
    shape: Vec<usize>,
    x: Vec<f64>,
    bytes_hex: String,
    dequantized: Vec<f64>,
}

impl Blocks {
    fn compare(&self) -> Option<String> {
        let (kind, x, want) = (ggml_type(&self.r#type), narrow(&self.x), bytes(&self.bytes_hex));
        let encoded = kind.encode(TensorRef::new(&x, &self.shape).unwrap()).unwrap();
        let mut back = vec![0.0; x.len()];
        kind.decode(&want, &mut back).unwrap();
        let q = kind.to_qtensor(&self.shape, &want).unwrap();
        let again = kind.from_qtensor(&q).unwrap();
        let same = encoded.bytes == want && back == narrow(&self.dequantized) && q.dequantize::<f32>() == back;
        // Levels of scale 0 are kept with another scale; all else comes back byte for byte.
        let same = same && again.exact && (again.bytes == want || encoded.vanished > 0);
        (!same).then(|| format!("{} of {} vanished blocks", self.r#type, encoded.vanished))
    }
}

#[test]
fn onnx_runtime() {
    report("ort_matmul_nbits", &cases("ort_matmul_nbits").iter().map(MatMul::compare).collect::<Vec<_>>());
}

#[test]
fn gguf() {
    report("gguf", &cases("gguf").iter().map(Blocks::compare).collect::<Vec<_>>());
}

#[derive(Deserialize)]
struct Package {
    decoded: Vec<Decoded>,
    encoded: Vec<Encoded>,
}

#[derive(Deserialize)]
struct Decoded {
    r#type: String,
    bytes: String,
    values: String,
}

#[derive(Deserialize)]
struct Encoded {
    r#type: String,
    x: String,
    bytes: String,
}

#[test]
fn blocks_of_any_bits_decode_as_the_package_gguf_does() {
    let package: Package = serde_json::from_str(&fixture("gguf_blocks")).unwrap();
    let decoded = package.decoded.iter().map(|case| {
        let (kind, bytes, want) = (ggml_type(&case.r#type), bytes(&case.bytes), singles(&case.values));
        let mut got = vec![0f32; want.len()];
        kind.decode(&bytes, &mut got).unwrap();
        let same =
            |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
        // The second block has an infinite scale: no quantized tensor. Without it they are the same values.
        let (len, size) = (kind.block_len(), kind.block_bytes());
        let shape = [want.len() / len, len];
        let error = kind.to_qtensor(&shape, &bytes).unwrap_err();
        let finite = [&bytes[..size], &bytes[2 * size..]].concat();
        let q = kind.to_qtensor(&[shape[0] - 1, len], &finite).unwrap();
        let tensor = q.dequantize::<f32>() == [&want[..len], &want[2 * len..]].concat();
        let fine = same(&got, &want) && error.index() == Some(1) && tensor;
        (!fine).then(|| format!("{kind:?}: values {}, {error}, tensor {tensor}", same(&got, &want)))
    });
    report("gguf decoded", &decoded.collect::<Vec<_>>());
    let encoded = package.encoded.iter().map(|case| {
        let (kind, x, want) = (ggml_type(&case.r#type), singles(&case.x), bytes(&case.bytes));
        let got = kind.encode(TensorRef::new(&x, &[40, 64]).unwrap()).unwrap().bytes;
        let differ = |i: &usize| {
            got[i * kind.block_bytes()..][..kind.block_bytes()] != want[i * kind.block_bytes()..][..kind.block_bytes()]
        };
        (got != want).then(|| format!("{kind:?}: blocks {:?}", (0..80).filter(differ).collect::<Vec<_>>()))
    });
    report("gguf encoded", &encoded.collect::<Vec<_>>());
}
