//! Codes that others published, bit for bit: the int8 form of `fracast` 0.1.0, symmetric, one scale an output channel.

use flate2::read::GzDecoder;
use lapidary::{
    Grid, QuantizerExt, TensorRef, Values,
    quant::{
        Certificate, Certify, Symmetric,
        layout::{GgmlType, OrtRoundToNearest},
    },
};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, io::Read};

#[derive(Deserialize)]
struct Entry {
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The tensors of a safetensors file: shapes and bytes by name.
fn tensors(name: &str) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let path = format!("{}/tests/fixtures/fracast/{name}.safetensors.gz", env!("CARGO_MANIFEST_DIR"));
    let mut file = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut file).unwrap();
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, entry)| {
        let Entry { shape, data_offsets: [from, to] } = serde_json::from_value(entry).unwrap();
        (name, (shape, data[from..to].to_vec()))
    });
    tensors.collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Bounds over errors, of all matrices.
#[derive(Default)]
struct Ratios {
    elements: Vec<f64>,
    largest: Vec<f64>,
    products: Vec<f64>,
}

impl Ratios {
    /// Those of a matrix that became `back`, certified in groups of `size` along its rows.
    fn add(&mut self, weights: &[f32], back: &[f32], cols: usize, size: usize, certificate: &Certificate) {
        let errors: Vec<f64> = weights.iter().zip(back).map(|(x, y)| f64::from(*x) - f64::from(*y)).collect();
        for (i, error) in errors.iter().enumerate().filter(|(_, error)| **error != 0.0) {
            let group = i / cols * cols.div_ceil(size) + i % cols / size;
            self.elements.push(certificate.groups()[group] / error.abs());
        }
        let error = errors.iter().fold(0.0, |largest, error| error.abs().max(largest));
        assert!(error <= certificate.max_abs());
        self.largest.push(certificate.max_abs() / error);
        for seed in 0..16 {
            // Not more random than needed: signs and sizes by a multiplicative sequence.
            let x: Vec<f64> =
                (0..cols).map(|i| f64::from(((i * 37 + seed * 101) * 7919 % 1009) as f32 / 504.5 - 1.0)).collect();
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let output = |row: &[f64]| row.iter().zip(&x).map(|(e, x)| e * x).sum::<f64>();
            let error = norm(&errors.chunks_exact(cols).map(output).collect::<Vec<_>>());
            let bound = certificate.product(norm(&x));
            assert!(error <= bound);
            self.products.push(bound / error);
        }
    }

    /// Prints the medians, and holds them to a limit each.
    fn report(self, what: &str, limits: [f64; 3]) {
        assert!(self.elements.len() > 10_000);
        let medians = [self.elements, self.largest, self.products].map(median);
        println!("| {what} | {:.2} | {:.3} | {:.1} |", medians[0], medians[1], medians[2]);
        assert!(medians.iter().zip(limits).all(|(median, limit)| *median < limit), "{what}");
    }
}

/// How much larger the certified bounds are than the errors, on real weights; `docs/benchmarks.md` has the figures.
#[test]
fn certified_bounds_beside_errors() {
    let matrices: Vec<([usize; 2], Vec<f32>)> = tensors("fracast0.f32")
        .into_values()
        .filter_map(|(shape, bytes)| Some((shape.try_into().ok()?, floats(&bytes))))
        .collect();
    println!("| rounding | elements: median of bound / error | largest: median | products: median |");
    for bits in [8, 4, 2] {
        let mut ratios = Ratios::default();
        for (shape, values) in &matrices {
            let symmetric = Symmetric::new(bits).unwrap().per_channel(0);
            let q = symmetric.quantize(TensorRef::new(values, shape).unwrap()).unwrap();
            let certificate = Certify::<f32>::certificate(&symmetric, &q).unwrap();
            ratios.add(values, &q.dequantize::<f32>(), shape[1], shape[1], &certificate);
        }
        ratios.report(&format!("{bits} bits, symmetric"), [3.0, 1.1, 100.0]);
    }
    for bits in [8, 4, 2] {
        for symmetric in [false, true] {
            let mut ratios = Ratios::default();
            for (shape, values) in &matrices {
                let quantizer = OrtRoundToNearest::new(bits, 32).unwrap();
                let quantizer = if symmetric { quantizer.symmetric() } else { quantizer };
                let b = quantizer.quantize(TensorRef::new(values, shape).unwrap()).unwrap();
                ratios.add(values, &b.dequantize().unwrap(), shape[1], 32, &quantizer.certificate(&b).unwrap());
            }
            let form = if symmetric { "symmetric" } else { "zero points" };
            ratios.report(&format!("ONNX Runtime, {bits} bits, {form}"), [4.5, 2.1, 30.0]);
        }
    }
    for kind in GgmlType::ALL.into_iter().filter(|&kind| kind != GgmlType::Q4K) {
        let mut ratios = Ratios::default();
        for (shape, values) in &matrices {
            // Blocks of the rows that are whole blocks; of the others, their elements in order.
            let len = kind.block_len();
            let (values, shape) = match shape[1].is_multiple_of(len) {
                true => (&values[..], *shape),
                false => (&values[..values.len() / len * len], [values.len() / len, len]),
            };
            if values.is_empty() {
                continue;
            }
            let encoded = kind.encode(TensorRef::new(values, &shape).unwrap()).unwrap();
            let mut back = vec![0.0; values.len()];
            kind.decode(&encoded.bytes, &mut back).unwrap();
            let certificate = kind.certificate(&shape, &encoded.bytes).unwrap();
            ratios.add(values, &back, shape[1], if kind == GgmlType::Q6K { 16 } else { 32 }, &certificate);
        }
        // Beyond the ends of Q6K may lie more than what does.
        let limits = if kind == GgmlType::Q6K { [12.0, 5.0, 60.0] } else { [3.0, 1.3, 30.0] };
        ratios.report(&format!("GGUF, {kind:?}"), limits);
    }
}

#[test]
fn fracasts_codes_and_scales() {
    let (originals, published) = (tensors("fracast0.f32"), tensors("fracast0.w8"));
    let mut compared = 0;
    for (name, (shape, codes)) in &published {
        let Some(name) = name.strip_suffix(".qweight") else { continue };
        let (original, bytes) = &originals[name];
        assert_eq!(original, shape, "{name}");
        let scales = floats(&published[&format!("{name}.scale")].1);
        let symmetric = Symmetric::new(8).unwrap();
        let symmetric = if scales.len() == 1 { symmetric } else { symmetric.per_channel(0) };
        let q = symmetric.quantize(TensorRef::new(&floats(bytes), shape).unwrap()).unwrap();
        assert!(q.signed_codes().iter().zip(codes).all(|(&a, &b)| a == i16::from(b.cast_signed())), "{name}");
        assert_eq!(q.grid(), &Grid::Affine { scale: Values::F32(scales).into(), zero_point: None }, "{name}");
        compared += codes.len();
    }
    println!("{compared} codes");
    assert_eq!(compared, 79_872);
}
