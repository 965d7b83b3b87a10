//! What the layouts of other tools promise, for any finite numbers: bounds of errors, exact round trips, refusals, the
//! same bits.

use lapidary::{
    ErrorKind, Granularity, Grid, Isa, QTensor, QuantizerExt, Scales, TensorRef, Values,
    half::f16,
    quant::{
        Affine, Certificate, MinMax, Symmetric,
        layout::{GgmlType, MatMulNBits, OrtRoundToNearest, ZeroPoints},
    },
};
use proptest::prelude::*;

/// Numbers of a size, of one sign or both, some 0, some far larger.
fn numbers(len: usize, exponents: std::ops::Range<i32>) -> impl Strategy<Value = Vec<f32>> {
    let one = (-1.0..1.0f64, 0u8..20);
    (prop::collection::vec(one, len), exponents, -1.0..1.0f64, any::<bool>()).prop_map(|(all, size, shift, flat)| {
        let size = 10f64.powi(size);
        all.into_iter()
            .map(|(x, kind)| match kind {
                0 => 0.0,
                1 => (x * size) as f32,
                _ if flat => (shift * size) as f32,
                _ => ((x * 0.1 + shift.trunc() + if shift > 0.5 { shift } else { 0.0 }) * size) as f32,
            })
            .collect()
    })
}

/// The error of each element.
fn errors(kind: GgmlType, x: &[f32]) -> Vec<f64> {
    let bytes = kind.encode(x).unwrap().bytes;
    let mut back = vec![0.0; x.len()];
    kind.decode(&bytes, &mut back).unwrap();
    x.iter().zip(back).map(|(&x, y)| (f64::from(x) - f64::from(y)).abs()).collect()
}

fn ends(x: &[f32]) -> (f64, f64) {
    let all = x.iter().map(|&x| f64::from(x));
    all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

fn magnitude(x: &[f32]) -> f64 {
    let (low, high) = ends(x);
    low.abs().max(high.abs())
}

fn nearest_f16(x: f64) -> f64 {
    let near = f16::from_f64(x);
    if near == f16::ZERO && x > 0.0 { 2f64.powi(-24) } else { near.into() }
}

/// `Q4_K` by the plain choice of scales, written down independently: the error of each element.
fn plain_q4_k(x: &[f32]) -> Vec<f64> {
    let wishes: Vec<(f64, f64)> = x
        .chunks(32)
        .map(|part| {
            let (low, high) = ends(part);
            let low = low.min(0.0);
            ((high - low) / 15.0, -low)
        })
        .collect();
    let d = nearest_f16(wishes.iter().map(|w| w.0).fold(0.0, f64::max) / 63.0);
    let dmin = nearest_f16(wishes.iter().map(|w| w.1).fold(0.0, f64::max) / 63.0);
    let whole = |x: f64, unit: f64| if unit == 0.0 { 0.0 } else { (x / unit).round_ties_even().min(63.0) };
    let part = |(part, wish): (&[f32], &(f64, f64))| -> Vec<f64> {
        let (step, offset) = (d * whole(wish.0, d), dmin * whole(wish.1, dmin));
        let level = |x: f64| match step {
            0.0 => -offset,
            _ => ((x + offset) / step).round_ties_even().clamp(0.0, 15.0) * step - offset,
        };
        part.iter().map(|&x| (f64::from(x) - level(x.into())).abs()).collect()
    };
    x.chunks(32).zip(&wishes).flat_map(part).collect()
}

/// The same of `Q6_K`.
fn plain_q6_k(x: &[f32]) -> Vec<f64> {
    let d = nearest_f16(magnitude(x) / (31.0 * 127.0));
    let part = |part: &[f32]| -> Vec<f64> {
        let step = if d == 0.0 { 0.0 } else { d * (magnitude(part) / 31.0 / d).round_ties_even().min(127.0) };
        let level = |x: f64| if step == 0.0 { 0.0 } else { (x / step).round_ties_even().clamp(-32.0, 31.0) * step };
        part.iter().map(|&x| (f64::from(x) - level(x.into())).abs()).collect()
    };
    x.chunks(16).flat_map(part).collect()
}

/// Numbers of one size or of all, up to `largest`; and halves of steps of any size, where rounding is at its worst.
fn finite(len: usize, largest: f32) -> impl Strategy<Value = Vec<f32>> {
    let shrunk = largest / f32::MAX;
    let bits = prop::collection::vec(any::<u32>(), len).prop_map(move |x| {
        let finite = x.into_iter().map(f32::from_bits).map(|x| if x.is_finite() { x } else { 1.0 });
        finite.map(|x| x * shrunk).collect()
    });
    let halves = (prop::collection::vec(-300i32..=300, len), -149..=largest.log2() as i32 - 8, 1..64u8, -2i32..=2);
    let halves = halves.prop_map(|(steps, size, odd, off)| {
        let step = f64::from(odd) / 64.0 * 2f64.powi(size);
        let near = |x: f32| match f32::from_bits(x.to_bits().saturating_add_signed(off)) {
            // Beyond the zero of its sign.
            y if y.is_nan() => x,
            y => y,
        };
        steps.into_iter().map(|n| near((f64::from(n) / 2.0 * step) as f32)).collect()
    });
    let sizes = -46..largest.log10() as i32 + 1;
    prop_oneof![numbers(len, sizes), bits, halves]
}

/// What is measured beside what a certificate of rows of `cols`, in groups of `size`, promises: of each element, and of the product
/// with `v`.
fn within(certificate: &Certificate, x: &[f32], back: &[f32], size: usize, v: &[f32]) -> Result<(), TestCaseError> {
    let cols = v.len();
    let errors: Vec<f64> = x.iter().zip(back).map(|(x, y)| f64::from(*x) - f64::from(*y)).collect();
    prop_assert_eq!(certificate.groups().len(), x.len() / cols * cols.div_ceil(size));
    for (i, error) in errors.iter().enumerate() {
        let bound = certificate.groups()[i / cols * cols.div_ceil(size) + i % cols / size];
        prop_assert!(error.abs() <= bound, "{:e} became {:e}, off by {:e} of {:e}", x[i], back[i], error, bound);
    }
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let length = norm(&v.iter().map(|&v| v.into()).collect::<Vec<_>>());
    let outputs: Vec<f64> =
        errors.chunks(cols).map(|row| row.iter().zip(v).map(|(e, v)| e * f64::from(*v)).sum()).collect();
    for (output, bound) in outputs.iter().zip(certificate.outputs()) {
        prop_assert!(output.abs() <= bound * length * (1.0 + 1e-12), "output off by {:e} of {:e}", output, bound);
    }
    prop_assert!(norm(&outputs) <= certificate.product(length) * (1.0 + 1e-12));
    Ok(())
}

fn squares(errors: impl IntoIterator<Item = f64>) -> f64 {
    errors.into_iter().map(|error| error * error).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn simple_blocks_are_within_their_bounds(x in numbers(32, -42..5)) {
        let (a, (low, high)) = (magnitude(&x), ends(&x));
        let r = high - low;
        let half = 2f64.powi(-11);
        let bounds = [
            (GgmlType::Q4_0, a / 8.0 + a * half + 2f64.powi(-22)),
            (GgmlType::Q5_0, a / 16.0 + a * half + 2f64.powi(-21)),
            (GgmlType::Q4_1, r / 30.0 + (r + a) * half + 2f64.powi(-21)),
            (GgmlType::Q5_1, r / 62.0 + (r + a) * half + 2f64.powi(-20)),
            (GgmlType::Q8_0, a / 254.0 + a * half + 2f64.powi(-18)),
        ];
        for (kind, bound) in bounds {
            for error in errors(kind, &x) {
                prop_assert!(error <= bound * (1.0 + 1e-5), "{:?}: {:e} of {:e}", kind, error, bound);
            }
        }
    }

    #[test]
    fn searched_blocks_are_never_worse_than_the_plain_choice(x in numbers(256, -42..7)) {
        let half = 2f64.powi(-11);
        let room = |x: &[f32]| 256.0 * (magnitude(x) * 2f64.powi(-22)).powi(2);
        // Q4_K
        let (found, plain) = (errors(GgmlType::Q4K, &x), plain_q4_k(&x));
        prop_assert!(squares(found) <= squares(plain.clone()) * (1.0 + 1e-6) + room(&x));
        let parts: Vec<(f64, f64)> = x.chunks(32).map(ends).map(|(low, high)| (low.min(0.0), high)).collect();
        let r = parts.iter().map(|(low, high)| high - low).fold(0.0, f64::max);
        let m = parts.iter().map(|(low, _)| -low).fold(0.0, f64::max);
        let rest = (r + m) * (1.0 / 126.0 + half) + r / 3780.0 + 2f64.powi(-14);
        for (i, error) in plain.into_iter().enumerate() {
            let (low, high) = parts[i / 32];
            prop_assert!(error <= (high - low) / 30.0 + rest, "{}: {:e}", i, error);
        }
        // Q6_K
        let (found, plain) = (errors(GgmlType::Q6K, &x), plain_q6_k(&x));
        prop_assert!(squares(found) <= squares(plain.clone()) * (1.0 + 1e-6) + room(&x));
        let rest = magnitude(&x) * (1.0 / 254.0 + half + half / 4.0) + 2f64.powi(-13);
        for (error, part) in plain.chunks(16).zip(x.chunks(16)) {
            for error in error {
                prop_assert!(*error <= magnitude(part) / 62.0 + rest, "{:e}", error);
            }
        }
    }

    #[test]
    fn every_finite_number_is_encoded_or_refused_by_name(x in prop::collection::vec(any::<u32>(), 256)) {
        let x: Vec<f32> = x.into_iter().map(f32::from_bits).map(|x| if x.is_finite() { x } else { f32::MAX }).collect();
        for kind in GgmlType::ALL {
            // Numbers up to 3e38 are beyond any 16-bit scale.
            prop_assert_eq!(kind.encode(&x).unwrap_err().kind(), ErrorKind::Argument);
            let small: Vec<f32> = x.iter().map(|x| x * 1e-36).collect();
            let encoded = kind.encode(&small).unwrap();
            let q = kind.to_qtensor(&[256], &encoded.bytes).unwrap();
            let mut back = vec![0.0; 256];
            kind.decode(&encoded.bytes, &mut back).unwrap();
            prop_assert_eq!(q.dequantize::<f32>(), back);
        }
    }

    #[test]
    fn blocks_of_any_bits_decode_alike_as_a_tensor(bytes in prop::collection::vec(any::<u8>(), 210 * 4)) {
        for kind in GgmlType::ALL {
            let blocks = bytes.len() / kind.block_bytes();
            let (bytes, shape) = (&bytes[..blocks * kind.block_bytes()], [blocks, kind.block_len()]);
            let mut back = vec![0.0; blocks * kind.block_len()];
            kind.decode(bytes, &mut back).unwrap();
            match kind.to_qtensor(&shape, bytes) {
                Ok(q) => {
                    prop_assert_eq!(q.dequantize::<f32>(), back);
                    if !matches!(kind, GgmlType::Q4K | GgmlType::Q6K) {
                        let again = kind.from_qtensor(&q).unwrap();
                        prop_assert!(again.exact, "{:?} {:?}", kind, again.error);
                    }
                }
                Err(error) => {
                    prop_assert_eq!(error.kind(), ErrorKind::NonFinite);
                    prop_assert!(back.iter().any(|x| !x.is_finite()));
                }
            }
        }
    }

    #[test]
    fn tensors_become_matmul_nbits_and_come_back(
        x in numbers(3 * 75, -30..30), bits in prop::sample::select(vec![2u8, 4, 8]),
        size in prop::sample::select(vec![16usize, 32, 64, 128]), form in 0..3,
    ) {
        let x = TensorRef::new(&x, &[3, 75]).unwrap();
        let q = match form {
            0 => Affine::new(bits).unwrap().per_group(size).unwrap().quantize(x),
            1 => Symmetric::new(bits).unwrap().per_group(size).unwrap().quantize(x),
            _ => Symmetric::new(bits).unwrap().full_range().per_channel(0).quantize(x),
        }.unwrap();
        let b = MatMulNBits::from_qtensor(&q, size).unwrap();
        prop_assert_eq!(b.dequantize().unwrap(), q.dequantize::<f32>());
        let back = b.to_qtensor().unwrap();
        prop_assert_eq!(back.dequantize::<f32>(), q.dequantize::<f32>());
        if form < 2 {
            prop_assert_eq!(back, q);
        }
    }

    #[test]
    fn ranges_as_float_zero_points_are_within_two_ulp(
        x in numbers(64, -30..38), bits in prop::sample::select(vec![2u8, 4]),
    ) {
        let x = TensorRef::new(&x, &[1, 64]).unwrap();
        let q = MinMax::new(bits).unwrap().per_group(32).unwrap().quantize(x).unwrap();
        let b = MatMulNBits::from_qtensor(&q, 32).unwrap();
        let ours = q.dequantize::<f32>();
        let back = b.to_qtensor().unwrap().dequantize::<f32>();
        for (i, theirs) in b.dequantize().unwrap().into_iter().enumerate() {
            let block = &ours[i / 32 * 32..i / 32 * 32 + 32];
            let largest = magnitude(block) as f32;
            let ulp = f64::from(largest.next_up()) - f64::from(largest);
            let off = |x: f32| (f64::from(x) - f64::from(ours[i])).abs() / ulp;
            prop_assert!(off(theirs) <= 2.0 && off(back[i]) <= 2.0, "{} and {} ulp", off(theirs), off(back[i]));
            if block.iter().all(|&x| x == block[0]) {
                prop_assert_eq!(theirs, ours[i]);
            }
        }
    }

    #[test]
    fn blocks_are_within_their_certificates(
        x in finite(512, 2e8), small in finite(512, 65_000.0), v in prop::collection::vec(-1.0f32..1.0, 256),
    ) {
        for kind in GgmlType::ALL.into_iter().filter(|&kind| kind != GgmlType::Q4K) {
            for x in [&x, &small] {
                // Numbers up to 65,000 always have a scale but for the minimum of their range.
                let Ok(encoded) = kind.encode(TensorRef::new(x, &[2, 256]).unwrap()) else {
                    prop_assert!(magnitude(x) > 60_000.0, "{:?}", kind);
                    continue;
                };
                let certificate = kind.certificate(&[2, 256], &encoded.bytes).unwrap();
                let mut back = vec![0.0; 512];
                kind.decode(&encoded.bytes, &mut back).unwrap();
                within(&certificate, x, &back, if kind == GgmlType::Q6K { 16 } else { 32 }, &v)?;
            }
        }
    }

    #[test]
    fn the_runtimes_codes_are_within_their_certificates(
        x in finite(2 * 50, f32::MAX), bits in prop::sample::select(vec![2u8, 4, 8]), symmetric in any::<bool>(),
        v in prop::collection::vec(-1.0f32..1.0, 50),
    ) {
        let quantizer = OrtRoundToNearest::new(bits, 32).unwrap();
        let quantizer = if symmetric { quantizer.symmetric() } else { quantizer };
        // The difference of two numbers can be beyond the largest.
        let Ok(b) = quantizer.quantize(TensorRef::new(&x, &[2, 50]).unwrap()) else {
            prop_assert!(!symmetric && magnitude(&x) > 1e38);
            return Ok(());
        };
        let values = b.dequantize().unwrap();
        prop_assert_eq!(&b.to_qtensor().unwrap().dequantize::<f32>(), &values);
        let certificate = quantizer.certificate(&b).unwrap();
        within(&certificate, &x, &values, 32, &v)?;
        // A whole step at the most, and half of one but for the missing level.
        for (i, bound) in certificate.groups().iter().enumerate() {
            let scale = b.scales().get(i).unwrap().abs();
            let steps = if symmetric { 1.0 } else { 0.5 };
            prop_assert!(*bound <= (steps + 3e-4) * scale + 1e-42, "{:e} of {:e}", bound, scale);
        }
    }
}

#[test]
fn what_has_no_certificate_is_refused() {
    let x: Vec<f32> = (0..256).map(|i| (i as f32).sin()).collect();
    let x = TensorRef::new(&x, &[4, 64]).unwrap();
    let ort = OrtRoundToNearest::new(4, 32).unwrap();
    let b = ort.quantize(TensorRef::from(&x)).unwrap();
    let others = [ort.symmetric(), OrtRoundToNearest::new(8, 32).unwrap(), OrtRoundToNearest::new(4, 64).unwrap()];
    for other in others {
        assert_eq!(other.certificate(&b).unwrap_err().kind(), ErrorKind::Argument);
    }
    let halves = Scales::F16(vec![f16::ONE; 8]);
    let halves = MatMulNBits::new([4, 64], 4, 32, b.packed().to_vec(), halves, b.zero_points().clone()).unwrap();
    assert_eq!(ort.certificate(&halves).unwrap_err().kind(), ErrorKind::Argument);
    let bytes = GgmlType::Q4K.encode(&[1f32; 256]).unwrap().bytes;
    assert_eq!(GgmlType::Q4K.certificate(&[256], &bytes).unwrap_err().kind(), ErrorKind::Argument);
    let mut bytes = GgmlType::Q8_0.encode(x).unwrap().bytes;
    assert_eq!(GgmlType::Q8_0.certificate(&[8, 64], &bytes).unwrap_err().kind(), ErrorKind::Shape);
    bytes[34..36].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let error = GgmlType::Q8_0.certificate(&[4, 64], &bytes).unwrap_err();
    assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
}

#[test]
fn what_does_not_fit_blocks_is_refused() {
    use ErrorKind::{Argument, Empty, NonFinite, Shape};
    for kind in GgmlType::ALL {
        let (len, size) = (kind.block_len(), kind.block_bytes());
        let error = |x: &[f32], shape: &[usize]| kind.encode(TensorRef::new(x, shape).unwrap()).unwrap_err();
        let zeros = vec![0f32; 3 * len];
        assert_eq!(error(&zeros[..len - 1], &[len - 1]).kind(), Argument);
        assert!(error(&zeros[..len], &[len / 2, 2]).to_string().contains(&format!("a multiple of {len}")));
        assert_eq!(error(&zeros[..1], &[]).kind(), Argument);
        assert_eq!(error(&[], &[0, len]).kind(), Empty);
        let mut bad = zeros.clone();
        bad[len + 3] = f32::NAN;
        let found = error(&bad, &[3, len]);
        assert_eq!((found.kind(), found.index()), (NonFinite, Some(len + 3)));
        bad[len + 3] = 3e38;
        let found = error(&bad, &[3, len]);
        assert!(found.kind() == Argument && found.to_string().contains("block 1"), "{found}");
        bad[len + 3] = f32::MIN;
        assert!(error(&bad, &[3, len]).to_string().contains("block 1"));
        let mut out = vec![7f32; 2 * len];
        for bytes in [0, 1, size, 2 * size - 1, 2 * size + 1, 3 * size] {
            assert_eq!(kind.decode(&vec![0; bytes], &mut out).unwrap_err().kind(), Shape);
            assert_eq!(kind.to_qtensor(&[2, len], &vec![0; bytes]).unwrap_err().kind(), Shape);
        }
        assert_eq!(kind.decode(&vec![0; size], &mut out[1..]).unwrap_err().kind(), Shape);
        assert_eq!(out, vec![7f32; 2 * len]);
        assert_eq!(kind.to_qtensor(&[usize::MAX, len], &[]).unwrap_err().kind(), Argument);
        assert!(kind.decode(&[], &mut []).is_ok());
    }
}

#[test]
fn what_vanishes_in_16_bits_is_counted() {
    for kind in GgmlType::ALL {
        let len = kind.block_len();
        let mut x = vec![0f32; 4 * len];
        x[..len].copy_from_slice(&(0..len).map(|i| (i as f32).sin()).collect::<Vec<_>>());
        assert_eq!(kind.encode(&x).unwrap().vanished, 0);
        x[2 * len] = 1e-9;
        x[3 * len] = -1e-42;
        let encoded = kind.encode(&x).unwrap();
        assert_eq!((encoded.vanished, encoded.first_vanished), (2, Some(2)), "{kind:?}");
        let back = kind.to_qtensor(&[4 * len], &encoded.bytes).unwrap().dequantize::<f32>();
        assert_eq!(back[len..], vec![0f32; 3 * len], "{kind:?}");
    }
}

#[test]
fn conversions_say_whether_they_are_exact() {
    let x: Vec<f32> = (0..512).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = TensorRef::new(&x, &[2, 256]).unwrap();
    // Scales in f32 are not those of a block.
    let q = Symmetric::new(4).unwrap().per_group(64).unwrap().quantize(TensorRef::from(&x)).unwrap();
    let measured = GgmlType::Q4_0.from_qtensor(&q).unwrap();
    assert!(!measured.exact && measured.error.max_abs > 0.0 && measured.error.max_abs < 0.2, "{:?}", measured.error);
    let Grid::Affine { scale, .. } = q.grid() else { panic!() };
    let halves = Scales::F16((0..scale.len()).map(|i| f16::from_f64(scale.get(i).unwrap())).collect());
    let grid = Grid::Affine { scale: halves, zero_point: None };
    let q = QTensor::from_codes(&[2, 256], 4, Granularity::Group { size: 64 }, grid, &q.codes()).unwrap();
    for kind in [GgmlType::Q4_0, GgmlType::Q5_0, GgmlType::Q8_0, GgmlType::Q4_1, GgmlType::Q5_1] {
        let exact = kind.from_qtensor(&q).unwrap();
        assert!(exact.exact && exact.error.max_abs == 0.0, "{kind:?}");
        assert_eq!(kind.to_qtensor(&[2, 256], &exact.bytes).unwrap().dequantize::<f32>(), q.dequantize::<f32>());
    }
    for kind in [GgmlType::Q4K, GgmlType::Q6K] {
        let measured = kind.from_qtensor(&q).unwrap();
        assert!(measured.error.max_abs < 0.06, "{kind:?} {:?}", measured.error);
    }
    // Groups that blocks do not fit.
    let q = Symmetric::new(4).unwrap().per_group(48).unwrap().quantize(TensorRef::from(&x)).unwrap();
    assert!(!GgmlType::Q4_0.from_qtensor(&q).unwrap().exact);
    let q = MinMax::new(4).unwrap().per_block(0, 2).unwrap().quantize(x).unwrap();
    assert!(!GgmlType::Q4_1.from_qtensor(&q).unwrap().exact);
    assert!(GgmlType::Q4_1.from_qtensor(&MinMax::new(4).unwrap().quantize(&[1f32; 31]).unwrap()).is_err());
}

#[test]
fn parts_of_a_matmul_nbits_that_do_not_fit_are_refused() {
    use ErrorKind::{Argument, Empty, NonFinite, Shape};
    let scales = |len, scale| Scales::from(Values::F32(vec![scale; len]));
    let new = |shape, bits, size, bytes, scales, zeros| {
        MatMulNBits::new(shape, bits, size, vec![0; bytes], scales, zeros).map_err(|error| error.kind())
    };
    assert!(new([2, 40], 4, 32, 64, scales(4, 1.0), ZeroPoints::Packed(vec![0; 2])).is_ok());
    assert!(new([2, 40], 2, 16, 24, scales(6, -1.0), ZeroPoints::Float(vec![0.5; 6])).is_ok());
    assert_eq!(new([2, 40], 4, 32, 63, scales(4, 1.0), ZeroPoints::Middle), Err(Shape));
    assert_eq!(new([2, 40], 4, 32, 64, scales(3, 1.0), ZeroPoints::Middle), Err(Shape));
    assert_eq!(new([2, 40], 4, 32, 64, scales(4, 1.0), ZeroPoints::Packed(vec![0; 4])), Err(Shape));
    assert_eq!(new([2, 40], 4, 32, 64, scales(4, 1.0), ZeroPoints::Float(vec![0.0; 2])), Err(Shape));
    assert_eq!(new([2, 40], 4, 32, 64, scales(4, f32::NAN), ZeroPoints::Middle), Err(NonFinite));
    assert_eq!(new([2, 40], 4, 32, 64, scales(4, 1.0), ZeroPoints::Float(vec![f32::INFINITY; 4])), Err(NonFinite));
    assert_eq!(new([2, 40], 8, 32, 128, scales(4, 1.0), ZeroPoints::Float(vec![0.0; 4])), Err(Argument));
    assert_eq!(new([2, 40], 4, 32, 64, Values::F64(vec![1.0; 4]).into(), ZeroPoints::Middle), Err(Argument));
    assert_eq!(new([0, 40], 4, 32, 0, scales(0, 1.0), ZeroPoints::Middle), Err(Empty));
    assert_eq!(new([usize::MAX, usize::MAX], 4, 32, 0, scales(0, 1.0), ZeroPoints::Middle), Err(Argument));
    assert_eq!(new([usize::MAX, 1], 8, 1 << 63, 0, scales(0, 1.0), ZeroPoints::Middle), Err(Argument));
    for (bits, size) in [(3, 32), (4, 8), (4, 24), (16, 32)] {
        assert_eq!(new([2, 40], bits, size, 64, scales(4, 1.0), ZeroPoints::Middle), Err(Argument));
    }
    let x: Vec<f32> = (0..80).map(|i| i as f32).collect();
    let x = TensorRef::new(&x, &[2, 40]).unwrap();
    let kind = |q: &QTensor, size| MatMulNBits::from_qtensor(q, size).map_err(|error| error.kind());
    let q = Affine::new(4).unwrap().per_group(32).unwrap().quantize(TensorRef::from(&x)).unwrap();
    assert!(kind(&q, 16).is_ok());
    assert_eq!(kind(&q, 64), Err(Argument));
    let whole = Affine::new(8).unwrap().quantize(TensorRef::from(&x)).unwrap();
    assert_eq!(kind(&whole, 1 << 63), Err(Argument));
    assert!(kind(&whole, 64).is_ok());
    assert_eq!(kind(&MinMax::new(8).unwrap().quantize(TensorRef::from(&x)).unwrap(), 32), Err(Argument));
    assert_eq!(kind(&Affine::new(4).unwrap().quantize(&[1f32; 32]).unwrap(), 32), Err(Argument));
    assert_eq!(
        kind(&MinMax::new(4).unwrap().quantize(TensorRef::new(&[0f32, 1e-44], &[1, 2]).unwrap()).unwrap(), 16),
        Err(Argument)
    );
}

#[test]
fn the_last_block_is_filled_up_with_its_zero() {
    let x: Vec<f32> = (0..20).map(|i| i as f32 - 5.0).collect();
    let q = Affine::new(4).unwrap().per_group(16).unwrap().quantize(TensorRef::new(&x, &[1, 20]).unwrap()).unwrap();
    let Grid::Affine { zero_point: Some(zeros), .. } = q.grid() else { panic!() };
    let b = MatMulNBits::from_qtensor(&q, 16).unwrap();
    let zero = zeros[1] as u8;
    assert_eq!(b.packed()[10..], [zero << 4 | zero; 6]);
    assert_eq!(*b.zero_points(), ZeroPoints::Packed(vec![zeros[0] as u8 | zero << 4]));
}

#[test]
fn the_same_bits_on_any_instruction_set_and_thread_count() {
    let x: Vec<f32> =
        (0..256 * 1024).map(|i| ((i * 7919 % 10007) as f32 * 0.01).sin() * ((i % 4000) as f32 * 4e-3).exp2()).collect();
    let work = || -> Vec<(Vec<u8>, Vec<u32>)> {
        GgmlType::ALL
            .iter()
            .map(|kind| {
                let bytes = kind.encode(&x).unwrap().bytes;
                let mut back = vec![0f32; x.len()];
                kind.decode(&bytes, &mut back).unwrap();
                (bytes, back.into_iter().map(f32::to_bits).collect())
            })
            .collect()
    };
    let best = Isa::current();
    let want = work();
    for isa in Isa::available() {
        isa.force();
        #[cfg(feature = "rayon")]
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(work) == want, "{} {threads}", isa.name());
        }
        assert!(work() == want, "{}", isa.name());
    }
    best.force();
}
