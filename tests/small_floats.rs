//! The small floating-point formats against `ml_dtypes`: `tests/fixtures/small_floats.py` wrote the values.

use lapidary::{
    Element, Grid, QTensor, Quantizer, QuantizerExt, Scales, Values,
    half::bf16,
    quant::{FloatFormat, Minifloat},
};
use serde::Deserialize;
use std::{collections::BTreeMap, fs};

#[derive(Deserialize)]
struct Fixture {
    formats: BTreeMap<String, Oracle>,
}

#[derive(Deserialize)]
struct Oracle {
    /// The number of each code, where it is one.
    levels: Vec<Option<f32>>,
    /// The bits of an `f32`, and its code.
    casts: Vec<(u32, u16)>,
}

fn oracles() -> Vec<(FloatFormat, Oracle)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/small_floats.json");
    let mut fixture: Fixture = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let formats = [FloatFormat::E5m2, FloatFormat::E4m3, FloatFormat::E3m2, FloatFormat::E2m3, FloatFormat::E2m1];
    let oracles = formats.map(|format| (format, fixture.formats.remove(&format!("{format:?}")).unwrap()));
    assert!(fixture.formats.is_empty());
    oracles.into()
}

/// A plain cast: the scale is 1 where none was fitted.
fn cast<T: Element>(format: FloatFormat, x: &[T]) -> QTensor {
    let float = Minifloat::new(format);
    let mut q = Quantizer::<T>::layout(&float, &[x.len()]).unwrap();
    float.encode(x.into(), &mut q).unwrap();
    q
}

#[test]
fn every_code_has_its_number_and_comes_back() {
    for (format, Oracle { levels: want, .. }) in oracles() {
        let levels = format.levels();
        assert_eq!(levels.len(), want.len());
        let mut q = cast(format, &levels);
        let codes = q.codes();
        for (code, (level, want)) in levels.iter().zip(want).enumerate() {
            match want {
                Some(want) => {
                    assert_eq!(level.to_bits(), want.to_bits(), "{format:?} {code:#x}");
                    assert_eq!(usize::from(codes[code]), code, "{format:?}");
                }
                None => assert_eq!(level.abs(), format.largest(), "{format:?} {code:#x}"),
            }
        }
        let all: Vec<u16> = (0..levels.len() as u16).collect();
        q.set_codes(&all).unwrap();
        assert!(q.dequantize::<f32>().iter().zip(&levels).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn casts_are_ml_dtypes() {
    let mut compared = 0;
    for (format, Oracle { casts, .. }) in oracles() {
        let x: Vec<f32> = casts.iter().map(|&(bits, _)| f32::from_bits(bits)).collect();
        let want: Vec<u16> = casts.iter().map(|&(_, code)| code).collect();
        let wide: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        for got in [cast(format, &x).codes(), cast(format, &wide).codes()] {
            for ((x, got), want) in x.iter().zip(got).zip(&want) {
                assert_eq!(got, *want, "{format:?} {x:e}");
            }
        }
        compared += x.len();
    }
    println!("oracle ml_dtypes casts: {compared} compared, {compared} the same");
    assert!(compared > 4000, "{compared}");
}

/// `x / scale` is cast, in each type of scale.
#[test]
fn scales_divide_first() {
    for (format, Oracle { casts, .. }) in oracles() {
        let small = |x: f32| x == 0.0 || (1e-20..1e20).contains(&x.abs());
        let casts: Vec<_> = casts.into_iter().filter(|&(bits, _)| small(f32::from_bits(bits))).collect();
        let x: Vec<f32> = casts.iter().map(|&(bits, _)| f32::from_bits(bits) * 2f32.powi(-20)).collect();
        let powers = Minifloat::mx(format);
        let full = Minifloat::new(format);
        for (float, groups) in [(powers, casts.len().div_ceil(32)), (full, 1)] {
            let mut q = Quantizer::<f32>::layout(&float, &[x.len()]).unwrap();
            let Grid::Scaled { levels, scale } = q.grid().clone() else { panic!() };
            let scale = match scale {
                Scales::E8m0(_) => Scales::E8m0(vec![107; groups]),
                _ => Values::F32(vec![2f32.powi(-20); groups]).into(),
            };
            q.set_grid(Grid::Scaled { levels, scale }).unwrap();
            float.encode((&x).into(), &mut q).unwrap();
            assert!(q.codes().iter().zip(&casts).all(|(got, (_, want))| got == want), "{float:?}");
        }
    }
}

#[test]
fn packed_codes_are_the_formats_bytes() {
    let x = [1.0, -6.0, 0.5, 0.0].map(bf16::from_f32);
    // The first of two in the low nibble.
    assert_eq!(cast(FloatFormat::E2m1, &x).packed(), [0xf2, 0x01]);
    assert_eq!(cast(FloatFormat::E4m3, &x).packed(), [0x38, 0xcc, 0x30, 0x00]);
    assert_eq!(cast(FloatFormat::E5m2, &x).packed(), [0x3c, 0xc6, 0x38, 0x00]);
    // Six bits each, the first lowest: 0x0c, 0x36, 0x08, 0x00.
    assert_eq!(cast(FloatFormat::E3m2, &x).packed(), [0x8c, 0x8d, 0x00]);
    let q = Minifloat::mx(FloatFormat::E2m1).quantize(&x).unwrap();
    assert_eq!((q.packed(), q.byte_size()), (&[0xf2, 0x01][..], 2 + 1 + 16 * 4));
}
