//! Codes that others published, bit for bit: the int8 form of `fracast` 0.1.0, symmetric, one scale an output channel.

use flate2::read::GzDecoder;
use lapidary::{
    Grid, QuantizerExt, TensorRef, Values,
    quant::{Certify, Symmetric},
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

/// How much larger the certified bounds are than the errors, on real weights; `docs/benchmarks.md` has the figures.
#[test]
fn certified_bounds_beside_errors() {
    println!("| bits | elements: median of bound / error | largest: median | products: median |");
    for bits in [8, 4, 2] {
        let (mut elements, mut largest, mut products) = (Vec::new(), Vec::new(), Vec::new());
        for (name, (shape, bytes)) in &tensors("fracast0.f32") {
            let &[rows, cols] = &shape[..] else { continue };
            let values = floats(bytes);
            let weights = TensorRef::new(&values, shape).unwrap();
            let symmetric = Symmetric::new(bits).unwrap().per_channel(0);
            let q = symmetric.quantize(TensorRef::from(&weights)).unwrap();
            let certificate = Certify::<f32>::certificate(&symmetric, &q).unwrap();
            let back: Vec<f32> = q.dequantize();
            for (i, (x, y)) in values.iter().zip(&back).enumerate().filter(|(_, (x, y))| x != y) {
                elements.push(certificate.groups()[i / cols] / f64::from((x - y).abs()));
            }
            let error = q.error(TensorRef::from(&weights)).unwrap().max_abs;
            assert!(error <= certificate.max_abs(), "{name}");
            largest.push(certificate.max_abs() / error);
            for seed in 0..16 {
                // Not more random than needed: signs and sizes by a multiplicative sequence.
                let x: Vec<f32> =
                    (0..cols).map(|i| ((i * 37 + seed * 101) * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
                let norm = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let (bound, error) =
                    (certificate.product(norm), q.product_error(TensorRef::from(&weights), &x).unwrap());
                assert!(error <= bound, "{name}");
                products.push(bound / error);
            }
            assert!(rows > 0);
        }
        assert!(elements.len() > 10_000);
        let [elements, largest, products] = [elements, largest, products].map(median);
        println!("| {bits} | {elements:.2} | {largest:.3} | {products:.1} |");
        assert!(elements < 3.0 && largest < 1.1 && products < 100.0);
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
