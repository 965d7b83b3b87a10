//! The contracts of `docs/NUMERICS.md`, over the whole range of numbers.

use half::{bf16, f16};
use lapidary::{
    Element, ErrorKind, Grid, Mask, Optimizer, OptimizerExt, PrunerExt, QTensor, QuantizerExt, Step, TensorRef, half,
    optim::{Adadelta, Adagrad, Adam, AdamW, Adamax, Lion, NAdam, RAdam, RmsProp, ScheduleFree, Sgd},
    prune::{Magnitude, Pruning, Select},
    quant::{Affine, Certify, FloatFormat, KMeans, MinMax, Minifloat, Symmetric, Table},
};
use proptest::prelude::*;

/// Every finite f32 as likely as any other bit pattern: subnormals, 3.4e38, both zeros.
fn any_f32() -> impl Strategy<Value = f32> {
    use prop::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

/// Tensors whose numbers are all of one size, or of all sizes.
fn tensors() -> impl Strategy<Value = Vec<f32>> {
    let wild = prop::collection::vec(any_f32(), 1..80);
    let even = (-126i32..127, prop::collection::vec(-1.0f32..1.0, 1..80))
        .prop_map(|(scale, x)| x.into_iter().map(|x| x * 2f32.powi(scale)).collect());
    let constant = (any_f32(), 1usize..20).prop_map(|(x, n)| vec![x; n]);
    let huge = prop::collection::vec(prop::sample::select(vec![f32::MAX, f32::MIN, 1.0, 0.0]), 1..20);
    prop_oneof![wild, even, constant, huge]
}

/// The distance from `|x|` to the next larger number of the type, in f64.
fn ulp<T: Element>(x: f64) -> f64 {
    let (digits, smallest) = match T::DTYPE.size() {
        8 => (52, f64::from_bits(1)),
        4 => (23, f64::from(f32::from_bits(1))),
        _ if T::from_f64(70_000.0).finite() => (7, bf16::from_bits(1).to_f64()),
        _ => (10, f16::from_bits(1).to_f64()),
    };
    // The power of two below |x|, by its exponent bits.
    let power = f64::from_bits(x.abs().to_bits() & (0x7ff << 52));
    (power * 0.5f64.powi(digits)).max(smallest)
}

/// `|x - x'| <= scale / 2 + ulps * ulp(max |x|)`, with each group's own scale and maximum.
fn contract<T: Element>(x: &[T], q: &QTensor, group: usize, ulps: f64) -> Result<(), TestCaseError> {
    let Grid::MinMax { min, max } = q.grid() else { panic!() };
    let back: Vec<T> = q.dequantize();
    for (i, (x, y)) in x.iter().zip(&back).enumerate() {
        let (low, high) = (min.get(i / group).unwrap(), max.get(i / group).unwrap());
        let top = f64::from((1u32 << q.bits()) - 1);
        let half_step = (high / 2.0 - low / 2.0) / top;
        let bound = half_step + ulps * ulp::<T>(low.abs().max(high.abs()));
        let error = (x.to_f64() / 2.0 - y.to_f64() / 2.0).abs() * 2.0;
        prop_assert!(error <= bound, "{} bits: {x} became {y}, off by {error:e}, allowed {bound:e}", q.bits());
        prop_assert!(low != high || x == y, "a constant group came back as {y}");
        prop_assert!(x.to_f64() != low && x.to_f64() != high || x == y, "an end came back as {y}");
    }
    Ok(())
}

/// `|x - x'| <= steps * scale + ulps * ulp(max |x|)`, with each group's own scale as it is stored, and its maximum.
fn affine_contract<T: Element>(x: &[T], q: &QTensor, group: usize, steps: f64, ulps: f64) -> Result<(), TestCaseError> {
    let Grid::Affine { scale, .. } = q.grid() else { panic!() };
    let back: Vec<T> = q.dequantize();
    for (g, (x, back)) in x.chunks(group).zip(back.chunks(group)).enumerate() {
        let largest = x.iter().map(|x| x.to_f64().abs()).fold(0.0, f64::max);
        let bound = steps * scale.get(g).unwrap() + ulps * ulp::<T>(largest);
        for (x, y) in x.iter().zip(back) {
            let error = (x.to_f64() / 2.0 - y.to_f64() / 2.0).abs() * 2.0;
            prop_assert!(error <= bound, "{} bits: {x} became {y}, off by {error:e}, allowed {bound:e}", q.bits());
        }
    }
    Ok(())
}

/// By all schemes with an exact 0, for the whole and by groups.
fn affine_contracts<T: Element>(x: &[T], bits: u8, group: usize, ulps: f64) -> Result<(), TestCaseError> {
    // A quotient of 16 bits and its rounding fill the digits of an `f32`.
    let ulps = if bits == 16 { ulps.max(2.0) } else { ulps };
    let affine = Affine::new(bits).unwrap();
    for (affine, group) in [(affine, x.len()), (affine.per_group(group).unwrap(), group)] {
        match affine.quantize(x) {
            Ok(q) => affine_contract(x, &q, group, 0.5, ulps)?,
            // One step may be beyond the largest number.
            Err(error) => prop_assert!(bits == 1 && error.kind() == ErrorKind::Argument, "{error}"),
        }
    }
    if bits > 1 {
        let symmetric = Symmetric::new(bits).unwrap();
        for (symmetric, group) in [(symmetric, x.len()), (symmetric.per_group(group).unwrap(), group)] {
            affine_contract(x, &symmetric.quantize(x).unwrap(), group, 0.5, ulps)?;
            affine_contract(x, &symmetric.full_range().quantize(x).unwrap(), group, 1.0, ulps)?;
        }
    }
    Ok(())
}

/// The measured error of each element and of a product, beside what the stored parameters alone promise.
fn certified<T: Element>(quantizer: &dyn Certify<T>, x: &[T], group: usize, v: &[T]) -> Result<(), TestCaseError> {
    let rows = x.len() / v.len();
    let x = &x[..rows * v.len()];
    let tensor = TensorRef::new(x, [&[rows, v.len()][..], &[x.len()]][usize::from(rows == 1)]).unwrap();
    // One step of 1 bit may be beyond the largest number.
    let Ok(q) = quantizer.quantize(TensorRef::from(&tensor)) else { return Ok(()) };
    let certificate = quantizer.certificate(&q).unwrap();
    let norm = v.iter().map(|x| x.to_f64().powi(2)).sum::<f64>().sqrt();
    let (bound, error) = (certificate.product(norm), q.product_error(TensorRef::from(&tensor), v).unwrap());
    prop_assert!(error <= bound, "{quantizer:?}: product off by {error:e}, allowed {bound:e}");
    let back: Vec<T> = q.dequantize();
    for (i, (x, y)) in x.iter().zip(&back).enumerate() {
        let bound = certificate.groups()[i / v.len() * v.len().div_ceil(group) + i % v.len() / group];
        let error = (x.to_f64() / 2.0 - y.to_f64() / 2.0).abs() * 2.0;
        prop_assert!(error <= bound, "{quantizer:?}: {x} became {y}, off by {error:e}, allowed {bound:e}");
    }
    Ok(())
}

fn certified_schemes<T: Element>(x: &[T], bits: u8, group: usize, width: usize) -> Result<(), TestCaseError> {
    let v: Vec<T> = (0..width.min(x.len())).map(|i| T::from_f64(f64::from(i as u32 % 7) - 2.5)).collect();
    let (few, affine, symmetric) = (MinMax::new(bits.min(8)), Affine::new(bits), Symmetric::new(bits.max(2)));
    let symmetric = symmetric.unwrap().per_group(group).unwrap();
    certified(&few.unwrap().per_group(group).unwrap(), x, group, &v)?;
    certified(&affine.unwrap().per_group(group).unwrap(), x, group, &v)?;
    certified(&symmetric, x, group, &v)?;
    certified(&symmetric.full_range(), x, group, &v)?;
    certified(&Table::nf4().per_group(group).unwrap(), x, group, &v)?;
    certified(&Table::new(&[-0.25, 0.0, 0.5, 1.5]).unwrap().per_group(group).unwrap(), x, group, &v)?;
    for format in [FloatFormat::E4m3, FloatFormat::E5m2, FloatFormat::E2m1, FloatFormat::E2m3, FloatFormat::E3m2] {
        certified(&Minifloat::new(format).per_group(group).unwrap(), x, group, &v)?;
        certified(&Minifloat::mx(format).per_group(group).unwrap(), x, group, &v)?;
    }
    Ok(())
}

/// Bits of codes: 1 to 8, and 16.
fn widths() -> impl Strategy<Value = u8> {
    prop_oneof![1u8..=8, Just(16)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn min_max_keeps_its_contract(x in tensors(), bits in 1u8..=8, group in 1usize..40) {
        let minmax = MinMax::new(bits).unwrap();
        contract(&x, &minmax.quantize(&x).unwrap(), x.len(), 1.0)?;
        contract(&x, &minmax.per_group(group).unwrap().quantize(&x).unwrap(), group, 1.0)?;
    }

    #[test]
    fn affine_and_symmetric_keep_theirs(x in tensors(), bits in widths(), group in 1usize..40) {
        affine_contracts(&x, bits, group, 1.0)?;
    }

    #[test]
    fn errors_are_within_their_certificates(x in tensors(), bits in widths(), group in 1usize..20, width in 1usize..40) {
        certified_schemes(&x, bits, group, width)?;
        let half = |x: &f32| f16::from_f32(*x);
        let halves: Vec<f16> = x.iter().map(half).filter(|x| x.is_finite()).collect();
        if !halves.is_empty() {
            certified_schemes(&halves, bits, group, width)?;
        }
        certified_schemes(&x.iter().map(|&x| f64::from(x) * 1e200).collect::<Vec<f64>>(), bits, group, width)?;
    }

    #[test]
    fn in_f64_too(x in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 1..60), bits in widths()) {
        affine_contracts(&x, bits, 7, 2.0)?;
        contract(&x, &MinMax::new(bits.min(8)).unwrap().quantize(&x).unwrap(), x.len(), 2.0)?;
    }

    #[test]
    fn in_16_bits_too(x in prop::collection::vec(any::<u16>(), 1..60), bits in 1u8..=8) {
        let minmax = MinMax::new(bits).unwrap();
        let halves: Vec<f16> = x.iter().map(|&b| f16::from_bits(b)).filter(|x| x.is_finite()).collect();
        let brains: Vec<bf16> = x.iter().map(|&b| bf16::from_bits(b)).filter(|x| x.is_finite()).collect();
        if !halves.is_empty() {
            contract(&halves, &minmax.quantize(&halves).unwrap(), halves.len(), 1.0)?;
            affine_contracts(&halves, bits, 5, 1.0)?;
        }
        if !brains.is_empty() {
            contract(&brains, &minmax.quantize(&brains).unwrap(), brains.len(), 1.0)?;
            affine_contracts(&brains, bits, 5, 1.0)?;
        }
    }

    #[test]
    fn quantizing_again_changes_nothing(x in tensors(), bits in 1u8..=8) {
        let minmax = MinMax::new(bits).unwrap();
        let once = minmax.quantize(&x).unwrap();
        let back: Vec<f32> = once.dequantize();
        prop_assert_eq!(minmax.quantize(&back).unwrap().dequantize::<f32>(), back);
    }

    #[test]
    fn codes_never_wrap_and_order_is_kept(x in tensors(), bits in 1u8..=8) {
        let q = MinMax::new(bits).unwrap().quantize(&x).unwrap();
        let codes = q.codes();
        for i in 0..x.len() {
            prop_assert!(u32::from(codes[i]) < 1 << bits);
            for j in 0..i {
                prop_assert!(x[i] > x[j] || codes[i] <= codes[j]);
            }
        }
    }

    #[test]
    fn error_figures_are_those_of_a_plain_loop(x in prop::collection::vec(-10.0f32..10.0, 1..3000), bits in 1u8..=8) {
        let q = MinMax::new(bits).unwrap().per_group(100).unwrap().quantize(&x).unwrap();
        let back: Vec<f32> = q.dequantize();
        let errors = || x.iter().zip(&back).map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs());
        let error = q.error(&x).unwrap();
        prop_assert_eq!(error.max_abs, errors().fold(0.0, f64::max));
        let mse = errors().map(|e| e * e).sum::<f64>() / x.len() as f64;
        approx::assert_relative_eq!(error.mse, mse, max_relative = 1e-12);
        let signal: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
        if mse > 0.0 && signal > 0.0 {
            approx::assert_relative_eq!(error.sqnr_db, 10.0 * (signal / mse).log10(), epsilon = 1e-9);
        }
    }

    #[test]
    fn thresholds_are_strict(x in tensors(), eps in prop_oneof![any_f32().prop_map(f32::abs), Just(0.0)]) {
        let mask = Magnitude::threshold(eps.into()).unwrap().mask(&x).unwrap();
        for (i, x) in x.iter().enumerate() {
            prop_assert_eq!(mask.get(i), Some(x.abs() > eps));
        }
    }

    #[test]
    fn pruned_weights_stay_pruned(
        x in prop::collection::vec(-1.0f32..1.0, 1..200),
        grads in prop::collection::vec(prop_oneof![Just(f32::NAN), Just(f32::INFINITY), -1.0f32..1.0], 200),
        sparsity in 0.0..=1.0f64,
    ) {
        let optimizers: Vec<(Box<dyn Optimizer<f32>>, f64)> = vec![
            (Box::new(Sgd::new(0.1).unwrap().with_momentum(0.9).unwrap()), 0.0),
            (Box::new(Adagrad::new(0.1).unwrap().with_initial_accumulator(0.5).unwrap()), 0.5),
            (Box::new(Adam::new(0.1).unwrap().with_amsgrad().with_weight_decay(0.1).unwrap()), 0.0),
            (Box::new(AdamW::new(0.1).unwrap()), 0.0),
            (Box::new(Adadelta::new(1.0).unwrap()), 0.0),
            (Box::new(Adamax::new(0.1).unwrap()), 0.0),
            (Box::new(Lion::new(0.1).unwrap()), 0.0),
            (Box::new(NAdam::new(0.1).unwrap()), 0.0),
            (Box::new(RAdam::new(0.1).unwrap()), 0.0),
            (Box::new(RmsProp::new(0.1).unwrap().with_centered().with_momentum(0.5).unwrap()), 0.0),
            (Box::new(ScheduleFree::new(0.1).unwrap()), 0.0),
        ];
        let mask = Magnitude::sparsity(sparsity).unwrap().mask(&x).unwrap();
        for (optimizer, initial) in optimizers {
            let mut param = x.clone();
            let mut free = x.clone();
            let mut state = optimizer.init(&param).unwrap();
            let mut free_state = optimizer.init(&param).unwrap();
            for _ in 0..3 {
                optimizer.step(Step::new(&mut param, &grads[..x.len()], &mut state).mask(&mask)).unwrap();
                optimizer.step(Step::new(&mut free, &grads[..x.len()], &mut free_state)).unwrap();
            }
            for i in 0..x.len() {
                if mask.get(i) == Some(true) {
                    prop_assert_eq!(param[i].to_bits(), free[i].to_bits());
                } else {
                    prop_assert_eq!(param[i].to_bits(), 0);
                    prop_assert!(state.slots().iter().all(|slot| slot.values().get(i) == Some(initial)));
                }
            }
        }
    }

    #[test]
    fn an_error_moves_nothing(x in prop::collection::vec(-1.0f32..1.0, 1..100), at in any::<prop::sample::Index>(), infinite in any::<bool>()) {
        let adam = Adam::new(0.1).unwrap();
        let (mut param, mut grad) = (x.clone(), x.clone());
        let mut state = adam.init(&param).unwrap();
        adam.step(Step::new(&mut param, &grad, &mut state)).unwrap();
        let (before, state_before) = (param.clone(), state.clone());
        let at = at.index(x.len());
        grad[at] = if infinite { f32::NEG_INFINITY } else { f32::NAN };
        let error = adam.step(Step::new(&mut param, &grad, &mut state).check_finite()).unwrap_err();
        prop_assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(at)));
        let short = vec![0f32; x.len() + 1];
        let mask = Mask::keep_all(&[x.len() + 1]).unwrap();
        prop_assert!(adam.step(Step::new(&mut param, &short, &mut state)).is_err());
        prop_assert!(adam.step(Step::new(&mut param, &x, &mut state).mask(&mask)).is_err());
        prop_assert!(Sgd::new(0.1).unwrap().step(Step::new(&mut param, &x, &mut state)).is_err());
        prop_assert!(adam.step(Step::new(&mut param, TensorRef::new(&x, &[x.len(), 1]).unwrap(), &mut state)).is_err());
        prop_assert_eq!(param, before);
        prop_assert_eq!(state, state_before);
    }
}

/// Why k-means has no certificate.
#[test]
fn the_same_means_and_codes_are_those_of_near_and_of_far_numbers() {
    let near = [[0f32; 100], [10.0; 100]].concat();
    // 99 numbers a little below the mean, and one as far above it as all of them together.
    let far = [&[0f32; 100][..], &[9.5; 99], &[59.5]].concat();
    let kmeans = KMeans::new(1).unwrap();
    let q = kmeans.quantize(&near).unwrap();
    assert_eq!(q, kmeans.quantize(&far).unwrap());
    assert_eq!((q.error(&near).unwrap().max_abs, q.error(&far).unwrap().max_abs), (0.0, 49.5));
}

#[test]
fn empty_tensors() {
    let empty: [f32; 0] = [];
    let adam = Adam::new(0.1).unwrap();
    let mut state = adam.init(&empty).unwrap();
    adam.step(Step::new(&mut [0f32; 0], &empty, &mut state).check_finite()).unwrap();
    assert_eq!(MinMax::new(8).unwrap().quantize(&empty).unwrap_err().kind(), ErrorKind::Empty);
    assert!(Magnitude::sparsity(0.5).unwrap().mask(&empty).unwrap().is_empty());
}

#[test]
fn eight_bit_codes_do_not_fit_an_i8() {
    let x: Vec<f32> = (0..256).map(|i| i as f32).collect();
    let codes = MinMax::new(8).unwrap().quantize(&x).unwrap().codes();
    assert!(codes.iter().enumerate().all(|(i, &code)| usize::from(code) == i));
}

#[test]
fn hyper_parameters_are_narrowed_once() {
    // 1 - 0.999 in f32 is 1e-5 off; formed in f64 it is not.
    let adam = Adam::new(0.1).unwrap();
    let mut param = [0f32];
    let mut state = adam.init(&param).unwrap();
    adam.step(Step::new(&mut param, &[1.0], &mut state)).unwrap();
    assert_eq!(state.slot("exp_avg_sq").unwrap().values().get(0), Some(f64::from((1.0 - 0.999f64) as f32)));
}

#[test]
fn low_precision_is_rounded_once_and_its_state_is_f32() {
    let sgd = Sgd::new(1.0).unwrap().with_momentum(0.5).unwrap();
    let mut param = [bf16::from_f32(1.0)];
    let mut state = sgd.init(&param).unwrap();
    // Below 1 the numbers of bf16 are 2^-8 apart. 2^-10 is less than half of that: the weight stays, the state remembers.
    sgd.step(Step::new(&mut param, &[bf16::from_f32(2f32.powi(-10))], &mut state)).unwrap();
    assert_eq!(param[0], bf16::ONE);
    assert_eq!(state.slot("momentum_buffer").unwrap().values().get(0), Some(2f64.powi(-10)));
    // 2^-11 of that and 2^-8 - 2^-11 anew are 2^-8: it moves.
    sgd.step(Step::new(&mut param, &[bf16::from_f32(2f32.powi(-8) - 2f32.powi(-11))], &mut state)).unwrap();
    assert_eq!(param[0].to_f32(), 1.0 - 2f32.powi(-8));
}

#[test]
fn types_cross_threads() {
    fn assert<T: Send + Sync>() {}
    assert::<(Adam, AdamW, Adagrad, Sgd, MinMax, Affine, Symmetric, Magnitude, Pruning<Magnitude>, Select)>();
    assert::<(Mask, QTensor, lapidary::State, lapidary::Error, lapidary::Isa)>();
    assert::<(lapidary::slim::Topology, lapidary::slim::Plan, lapidary::slim::Slim<f32>)>();
    assert::<(Box<dyn Optimizer<f32>>, Box<dyn lapidary::Quantizer<f32>>, Box<dyn lapidary::Pruner<f32>>)>();
}
