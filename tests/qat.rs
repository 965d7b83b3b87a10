//! Quantization in training: what it computes, and that a model trained with it is better at few bits than one rounded
//! afterwards.

use flate2::read::GzDecoder;
use half::{bf16, f16};
use lapidary::{
    Element, Granularity, Grid, Optimizer, OptimizerExt, QTensor, Quantizer, QuantizerExt, Step, TensorMut, TensorRef,
    half,
    num_traits::Float,
    optim::Adam,
    quant::{Affine, FakeQuantize, Histogram, Lsq, Range, Symmetric},
};
use proptest::prelude::*;
use std::io::Read;

/// Numbers of many sizes, both signs, some 0, some at halves of steps of 1/4.
fn numbers<T: Element>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..n)
        .map(|i| match i % 7 {
            0 => T::default(),
            1 => T::from_f64(((next() - 0.5) * 40.0).round() / 8.0),
            _ => T::from_f64((next() - 0.5) * 10f64.powi(i as i32 % 5 - 2)),
        })
        .collect()
}

fn bits<T: Element>(values: &[T]) -> Vec<u64> {
    values.iter().map(|x| x.to_f64().to_bits()).collect()
}

const SHAPE: [usize; 3] = [3, 4, 15];

/// The group of an element of a tensor of [`SHAPE`].
fn group(granularity: Granularity, i: usize) -> usize {
    let index = [i / 60, i / 15 % 4, i % 15];
    match granularity {
        Granularity::Channel { axis } => index[axis],
        Granularity::Group { size } => i / 15 * 15usize.div_ceil(size) + i % 15 / size,
        _ => 0,
    }
}

fn affines(bits: u8) -> Vec<Affine> {
    let affine = Affine::new(bits).unwrap();
    let channels = (0..3).map(|axis| affine.per_channel(axis));
    [affine, affine.per_group(4).unwrap(), affine.per_group(100).unwrap()].into_iter().chain(channels).collect()
}

fn symmetrics(bits: u8) -> Vec<Symmetric> {
    let symmetric = Symmetric::new(bits).unwrap();
    let channels = (0..3).map(|axis| symmetric.per_channel(axis));
    let all = [symmetric, symmetric.per_group(4).unwrap(), symmetric.per_group(100).unwrap()];
    all.into_iter().chain(channels).flat_map(|symmetric| [symmetric, symmetric.full_range()]).collect()
}

fn lsqs(bits: u8) -> Vec<Lsq> {
    let lsq = Lsq::new(bits).unwrap();
    let channels = (0..3).map(|axis| lsq.per_channel(axis));
    let all = [lsq, lsq.per_group(4).unwrap(), lsq.per_group(100).unwrap()];
    all.into_iter().chain(channels).flat_map(|lsq| [lsq, lsq.unsigned()]).collect()
}

/// Output and gradient beside codes and plain loops: levels of half the range, so that a good part is clipped.
fn fake_is_a_round_trip<T: Element>(quantizer: &dyn Quantizer<T>, fake: FakeQuantize, least: i32) {
    let x = numbers::<T>(180, 1);
    let tensor = TensorRef::new(&x, &SHAPE).unwrap();
    let halves: Vec<T> = x.iter().map(|x| T::from_f64(x.to_f64() * 0.5)).collect();
    let mut q = quantizer.quantize(TensorRef::new(&halves, &SHAPE).unwrap()).unwrap();
    let levels = q.clone();
    let mut y = vec![T::default(); 180];
    fake.forward(&tensor, &levels, TensorMut::new(&mut y, &SHAPE).unwrap()).unwrap();
    quantizer.encode((&tensor).into(), &mut q).unwrap();
    assert_eq!(bits(&y), bits(&q.dequantize::<T>()), "{quantizer:?} {:?}", T::DTYPE);
    let upstream = numbers::<T>(180, 2);
    let mut dx = vec![T::default(); 180];
    let (up, out) = (TensorRef::new(&upstream, &SHAPE).unwrap(), TensorMut::new(&mut dx, &SHAPE).unwrap());
    fake.backward(&tensor, &levels, up, out).unwrap();
    let Grid::Affine { scale, zero_point } = levels.grid() else { panic!() };
    for i in 0..180 {
        let group = group(levels.granularity(), i);
        let zero = zero_point.as_ref().map_or(1 << (levels.bits() - 1), |zeros| i32::from(zeros[group]));
        let scale = T::Real::from_f64(scale.get(group).unwrap());
        // The division in the arithmetic of the values; a quotient of many steps is exact enough in f64.
        let code = Element::to_f64(x[i].to_real() / scale).round_ties_even() + f64::from(zero);
        let inside = code >= f64::from(least) && code <= f64::from((1i32 << levels.bits()) - 1);
        let want = if inside { upstream[i] } else { T::default() };
        assert_eq!(dx[i].to_f64().to_bits(), want.to_f64().to_bits(), "{quantizer:?} {i}");
    }
    let through = dx.iter().zip(&upstream).filter(|(dx, up)| dx == up).count();
    assert!(through > 40 && through < 180, "{quantizer:?} {through}");
}

#[test]
fn fake_quantization_is_what_codes_give_for_all_granularities_and_types() {
    fn check<T: Element>() {
        for bits in [2, 3, 4, 8] {
            for affine in affines(bits) {
                fake_is_a_round_trip::<T>(&affine, affine.into(), 0);
            }
            for (i, symmetric) in symmetrics(bits).into_iter().enumerate() {
                fake_is_a_round_trip::<T>(&symmetric, symmetric.into(), if i % 2 == 0 { 1 } else { 0 });
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_round_trip_holds_for_every_number_and_scale(
        x in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 1..40),
        ends in (-3e38f64..3e38, -3e38f64..3e38), shrink in 0i32..250, width in 2u8..=8,
    ) {
        let size = 2f64.powi(-shrink);
        let range = Range::new(ends.0.min(ends.1) * size, ends.0.max(ends.1) * size).unwrap();
        let affine = Affine::new(width).unwrap();
        let symmetric = Symmetric::new(width).unwrap();
        let shape = [x.len()];
        let quantizers: [(&dyn Quantizer<f32>, FakeQuantize, Grid); 2] = [
            (&affine, affine.into(), affine.grid::<f32>(&[range]).unwrap()),
            (&symmetric, symmetric.into(), symmetric.grid::<f32>(&[range]).unwrap()),
        ];
        for (quantizer, fake, grid) in quantizers {
            let mut q = quantizer.layout(&shape).unwrap();
            q.set_grid(grid).unwrap();
            let mut y = vec![0.0; x.len()];
            fake.forward(&x, &q, &mut y).unwrap();
            quantizer.encode((&x).into(), &mut q).unwrap();
            prop_assert_eq!(bits(&y), bits(&q.dequantize::<f32>()));
        }
    }

    #[test]
    fn learned_scales_too(
        x in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 1..40),
        scale in prop::num::f32::POSITIVE | prop::num::f32::NORMAL, width in 2u8..=8,
    ) {
        let scale = scale.abs();
        for lsq in [Lsq::new(width).unwrap(), Lsq::new(width).unwrap().unsigned()] {
            let (mut y, mut dx, mut ds) = (vec![0.0; x.len()], vec![0.0; x.len()], [f32::NAN]);
            lsq.forward(&x, &[scale], &mut y).unwrap();
            let q = lsq.quantize(&x, &[scale]).unwrap();
            prop_assert_eq!(bits(&y), bits(&q.dequantize::<f32>()));
            lsq.backward(&x, &[scale], &vec![1.0; x.len()], &mut dx, &mut ds).unwrap();
            // No slope is more than the number of steps to an end.
            let bound = x.len() as f32 * 2f32.powi(width.into());
            prop_assert!(ds[0].abs() <= bound && dx.iter().all(|&dx| dx == 0.0 || dx == 1.0));
        }
    }
}

/// Values, gradients and scales beside the paper's formulas, in plain loops.
fn lsq_is_the_paper<T: Element>(lsq: Lsq, signed: bool) {
    let x = numbers::<T>(180, 5);
    let upstream = numbers::<T>(180, 6);
    let tensor = TensorRef::new(&x, &SHAPE).unwrap();
    let scales = lsq.initial_scales(&tensor).unwrap();
    let top = f64::from(1u32 << lsq.bits());
    let (n, p) = if signed { (top / 2.0, top / 2.0 - 1.0) } else { (0.0, top - 1.0) };
    let (mut y, mut dx) = (vec![T::default(); 180], vec![T::default(); 180]);
    let mut scale_gradient = vec![<T::Real as Default>::default(); scales.len()];
    lsq.forward(&tensor, &scales, TensorMut::new(&mut y, &SHAPE).unwrap()).unwrap();
    let (up, out) = (TensorRef::new(&upstream, &SHAPE).unwrap(), TensorMut::new(&mut dx, &SHAPE).unwrap());
    lsq.backward(&tensor, &scales, up, out, &mut scale_gradient).unwrap();
    let q = lsq.quantize(&tensor, &scales).unwrap();
    assert_eq!(bits(&y), bits(&q.dequantize::<T>()), "{lsq:?}");
    let (mut sums, mut magnitudes, mut counts) =
        (vec![0.0; scales.len()], vec![0.0; scales.len()], vec![0.0; scales.len()]);
    for i in 0..180 {
        let group = group(lsq.granularity(), i);
        let place = Element::to_f64(x[i].to_real() / scales[group]);
        let inside = place > -n && place < p;
        let slope = if inside {
            place.round_ties_even() - place
        } else if place <= -n {
            -n
        } else {
            p
        };
        sums[group] += slope * upstream[i].to_f64();
        magnitudes[group] += x[i].to_f64().abs();
        counts[group] += 1.0;
        let want = if inside { upstream[i] } else { T::default() };
        assert_eq!(dx[i].to_f64().to_bits(), want.to_f64().to_bits(), "{lsq:?} {i}");
        let level = T::from_real(T::Real::from_f64(place.round_ties_even().clamp(-n, p)) * scales[group]);
        assert_eq!(y[i], level, "{lsq:?} {i}");
    }
    let eps = Element::to_f64(<T::Real as Float>::epsilon());
    for group in 0..scales.len() {
        let want = sums[group] / f64::sqrt(counts[group] * p);
        let got = Element::to_f64(scale_gradient[group]);
        assert!((got - want).abs() <= 2.0 * eps * want.abs() + 1e-13, "{lsq:?} {group}: {got} {want}");
        let want = 2.0 * magnitudes[group] / counts[group] / p.sqrt();
        assert!((Element::to_f64(scales[group]) - want).abs() <= 2.0 * eps * want + 1e-37, "{lsq:?} {group}");
    }
}

#[test]
fn learned_steps_are_those_of_the_paper_for_all_granularities_and_types() {
    for bits in [2, 3, 8] {
        for (i, lsq) in lsqs(bits).into_iter().enumerate() {
            lsq_is_the_paper::<f32>(lsq, i % 2 == 0);
            lsq_is_the_paper::<f64>(lsq, i % 2 == 0);
            lsq_is_the_paper::<f16>(lsq, i % 2 == 0);
            lsq_is_the_paper::<bf16>(lsq, i % 2 == 0);
        }
    }
}

/// Softmax regression on the embedded digits; the weights, a row a class, go through `round` first.
struct Digits {
    x: Vec<f32>,
    y: Vec<usize>,
}

const INPUTS: usize = 64;
const CLASSES: usize = 10;
const SHAPE_OF_WEIGHTS: [usize; 2] = [CLASSES, INPUTS];

fn digits() -> Digits {
    let mut rows = Vec::new();
    GzDecoder::new(&include_bytes!("../examples/data/digits_1797x65_u8.bin.gz")[..]).read_to_end(&mut rows).unwrap();
    let x = rows.chunks_exact(65).flat_map(|row| row[..64].iter().map(|&p| f32::from(p) / 16.0)).collect();
    Digits { x, y: rows.chunks_exact(65).map(|row| row[64].into()).collect() }
}

impl Digits {
    /// The mean loss of these weights and its gradient.
    fn loss(&self, weights: &[f32], gradient: &mut [f32]) -> f64 {
        gradient.fill(0.0);
        let (mut total, share) = (0.0, 1.0 / self.y.len() as f32);
        for (x, &label) in self.x.chunks_exact(INPUTS).zip(&self.y) {
            let mut logits: Vec<f32> =
                weights.chunks_exact(INPUTS).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect();
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            logits.iter_mut().for_each(|l| *l = (*l - largest).exp());
            let sum: f32 = logits.iter().sum();
            total -= f64::from((logits[label] / sum).ln());
            for (class, (row, l)) in gradient.chunks_exact_mut(INPUTS).zip(&logits).enumerate() {
                let slope = share * (l / sum - if class == label { 1.0 } else { 0.0 });
                row.iter_mut().zip(x).for_each(|(g, x)| *g += slope * x);
            }
        }
        total / self.y.len() as f64
    }
}

#[test]
fn learned_scales_beat_rounding_afterwards() {
    let digits = digits();
    let n = INPUTS * CLASSES;
    let mut gradient = vec![0.0; n];
    let train = |mut weights: Vec<f32>, rate: f64, steps: usize| {
        let (adam, mut gradient) = (Adam::new(rate).unwrap(), vec![0.0; n]);
        let mut state = adam.init(&weights).unwrap();
        for _ in 0..steps {
            digits.loss(&weights, &mut gradient);
            adam.step(Step::new(&mut weights, &gradient, &mut state)).unwrap();
        }
        weights
    };
    // Both ways take as many steps: the last ones with rounding in them, or without and rounded afterwards.
    let start = train(vec![0.0; n], 2e-2, 400);
    let weights = train(start.clone(), 2e-3, 150);
    let plain = digits.loss(&weights, &mut gradient);
    for width in [2, 3, 4] {
        // Afterwards, by the range and by the best range, a scale a class.
        let symmetric = Symmetric::new(width).unwrap().per_channel(0);
        let tensor = TensorRef::new(&weights, &SHAPE_OF_WEIGHTS).unwrap();
        let mut q = symmetric.quantize(&tensor).unwrap();
        let nearest = digits.loss(&q.dequantize::<f32>(), &mut gradient);
        let ranges: Vec<Range> = weights
            .chunks_exact(INPUTS)
            .map(|row| {
                let mut histogram = Histogram::new();
                histogram.observe(row).unwrap();
                histogram.mse_symmetric(Symmetric::new(width).unwrap()).unwrap()
            })
            .collect();
        q.set_grid(symmetric.grid::<f32>(&ranges).unwrap()).unwrap();
        symmetric.encode((&tensor).into(), &mut q).unwrap();
        let best_range = digits.loss(&q.dequantize::<f32>(), &mut gradient);

        // In training.
        let lsq = Lsq::new(width).unwrap().per_channel(0);
        let mut weights = start.clone();
        let mut scales = lsq.initial_scales(TensorRef::new(&weights, &SHAPE_OF_WEIGHTS).unwrap()).unwrap();
        let adam = Adam::new(2e-3).unwrap();
        let mut state = adam.init(&weights).unwrap();
        let mut scale_state = adam.init(&scales).unwrap();
        let (mut rounded, mut upstream) = (vec![0.0; n], vec![0.0; n]);
        let mut scale_gradient = vec![0.0; CLASSES];
        let first = scales.clone();
        for _ in 0..150 {
            let tensor = TensorRef::new(&weights, &SHAPE_OF_WEIGHTS).unwrap();
            lsq.forward(&tensor, &scales, TensorMut::new(&mut rounded, &SHAPE_OF_WEIGHTS).unwrap()).unwrap();
            digits.loss(&rounded, &mut upstream);
            let up = TensorRef::new(&upstream, &SHAPE_OF_WEIGHTS).unwrap();
            let out = TensorMut::new(&mut gradient, &SHAPE_OF_WEIGHTS).unwrap();
            lsq.backward(&tensor, &scales, up, out, &mut scale_gradient).unwrap();
            adam.step(Step::new(&mut weights, &gradient, &mut state)).unwrap();
            adam.step(Step::new(&mut scales, &scale_gradient, &mut scale_state)).unwrap();
            scales.iter_mut().for_each(|scale| *scale = scale.max(1e-6));
        }
        let tensor = TensorRef::new(&weights, &SHAPE_OF_WEIGHTS).unwrap();
        lsq.forward(&tensor, &scales, TensorMut::new(&mut rounded, &SHAPE_OF_WEIGHTS).unwrap()).unwrap();
        let trained = digits.loss(&rounded, &mut upstream);
        // The model that is kept is the model that was trained.
        let q: QTensor = lsq.quantize(&tensor, &scales).unwrap();
        let converted = q.dequantize::<f32>();
        assert_eq!(bits(&converted), bits(&rounded));
        assert_eq!(digits.loss(&converted, &mut upstream), trained);
        assert_ne!(first, scales);
        println!(
            "{width} bits: loss {plain:.4} in f32, {nearest:.4} rounded, {best_range:.4} by the best range, \
             {trained:.4} trained"
        );
        assert!(trained < nearest && trained < best_range, "{width}: {trained} {nearest} {best_range}");
    }
}
