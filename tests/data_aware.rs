//! Quantizers that look at a layer's inputs, or search: on a trained network, and on inputs of odd kinds.
//!
//! The table: `cargo test --features linalg --test data_aware -- --nocapture`.

#![cfg(feature = "linalg")]

mod trained;

use lapidary::{
    Calibration, Element, Granularity, Grid, Isa, QTensor, Quantizer, QuantizerExt, TensorMut, TensorRef,
    half::bf16,
    quant::{
        Affine, Awq, Gptq, Hqq, MinMax, Scheme, SmoothQuant, Symmetric, correct_bias, divide_outputs, multiply_inputs,
    },
};
use proptest::prelude::*;
use trained::{Digits, Layer, accuracy, calibrations, digits, inputs, network, plain, right};

impl Layer {
    fn with_weight(&self, weight: Vec<f32>) -> Self {
        Self { weight, ..self.clone() }
    }
}

#[derive(Clone, Copy)]
enum Shared {
    Row,
    Group,
}

type Method<'a> = (&'a str, Box<dyn Fn(&Layer, &Calibration) -> Layer + 'a>);

fn methods<'a>(bits: u8, shared: Shared) -> Vec<Method<'a>> {
    let (affine, even, hqq) = match shared {
        Shared::Row => (
            Affine::new(bits).unwrap().per_channel(0),
            MinMax::new(bits).unwrap().per_channel(0),
            Hqq::new(bits).unwrap().per_channel(0),
        ),
        Shared::Group => (
            Affine::new(bits).unwrap().per_group(32).unwrap(),
            MinMax::new(bits).unwrap().per_group(32).unwrap(),
            Hqq::new(bits).unwrap().per_group(32).unwrap(),
        ),
    };
    fn by(quantizer: &impl Quantizer<f32>, layer: &Layer) -> Layer {
        layer.with_weight(quantizer.quantize(layer.tensor()).unwrap().dequantize())
    }
    let swept = |gptq: Gptq| {
        move |layer: &Layer, calibration: &Calibration| {
            let swept = gptq.quantize(layer.tensor(), calibration).unwrap();
            assert!(swept.error <= swept.nearest);
            layer.with_weight(swept.tensor.dequantize())
        }
    };
    let corrected = |layer: &Layer, mut other: Layer, calibration: &Calibration| {
        let replaced = other.weight.clone();
        let replaced = TensorRef::new(&replaced, &layer.shape()).unwrap();
        correct_bias(&mut other.bias, layer.tensor(), replaced, calibration).unwrap();
        other
    };
    let gptq = Gptq::new(affine);
    vec![
        ("nearest", Box::new(move |layer, _| by(&affine, layer))),
        ("GPTQ", Box::new(swept(gptq))),
        ("GPTQ, act-order", Box::new(swept(gptq.with_act_order()))),
        (
            "AWQ",
            Box::new(move |layer, calibration| {
                let scaled = Awq::new(affine).quantize(layer.tensor(), calibration).unwrap();
                assert!(scaled.error <= scaled.nearest);
                let mut weight: Vec<f32> = scaled.tensor.dequantize();
                let inverse: Vec<f32> = scaled.scales.iter().map(|s| 1.0 / s).collect();
                multiply_inputs(TensorMut::new(&mut weight, &layer.shape()).unwrap(), &inverse).unwrap();
                layer.with_weight(weight)
            }),
        ),
        ("nearest, min-max", Box::new(move |layer, _| by(&even, layer))),
        ("HQQ", Box::new(move |layer, _| by(&hqq, layer))),
        ("GPTQ, min-max", Box::new(swept(Gptq::new(even)))),
        ("nearest, bias corrected", Box::new(move |layer, c| corrected(layer, by(&affine, layer), c))),
        ("GPTQ, bias corrected", Box::new(move |layer, c| corrected(layer, swept(gptq)(layer, c), c))),
    ]
}

/// `‖y - y'‖² / ‖W x‖²` of outputs with their biases, over rows the calibration has not seen.
fn distance(layer: &Layer, other: &Layer, x: &[f32]) -> f64 {
    let squares = |y: &mut dyn Iterator<Item = f32>| y.map(|y| f64::from(y).powi(2)).sum::<f64>();
    let (y, z) = (layer.run(x), other.run(x));
    let linear = Layer { weight: layer.weight.clone(), bias: vec![0.0; layer.outputs()] }.run(x);
    squares(&mut y.iter().zip(&z).map(|(y, z)| y - z)) / squares(&mut linear.into_iter())
}

#[test]
fn a_trained_network_loses_less() {
    let (layers, (train, test)) = (network(), digits());
    assert_eq!(accuracy(&layers, &test), 431);
    let seen = calibrations(&layers, &train.x);
    let unseen = inputs(&layers, &test.x, plain);
    println!(
        "| bits | levels for | method | output error, layer 1 | 2 | 3 | on other rows, 1 | 2 | 3 | right of 449 |"
    );
    println!("|--:|---|---|--:|--:|--:|--:|--:|--:|--:|");
    for bits in [4, 3, 2] {
        for (shared, name) in [(Shared::Row, "a row"), (Shared::Group, "32")] {
            let mut errors = std::collections::HashMap::new();
            for (method, quantize) in methods(bits, shared) {
                let quantized: Vec<Layer> = layers.iter().zip(&seen).map(|(l, c)| quantize(l, c)).collect();
                let on_seen: Vec<f64> =
                    (0..3).map(|i| seen[i].output_error(layers[i].tensor(), quantized[i].tensor()).unwrap()).collect();
                let on_unseen: Vec<f64> = (0..3).map(|i| distance(&layers[i], &quantized[i], &unseen[i])).collect();
                let right = accuracy(&quantized, &test);
                print!("| {bits} | {name} | {method} |");
                on_seen.iter().chain(&on_unseen).for_each(|error| print!(" {error:.5} |"));
                println!(" {right} |");
                errors.insert(method, (on_seen, on_unseen, right));
            }
            for i in 0..3 {
                let seen = |method: &str| errors[method].0[i];
                let unseen = |method: &str| errors[method].1[i];
                assert!(seen("GPTQ") < 0.6 * seen("nearest"));
                assert!(seen("GPTQ, act-order") < 0.6 * seen("nearest"));
                assert!(seen("GPTQ, min-max") < 0.6 * seen("nearest, min-max"));
                assert!(seen("AWQ") <= seen("nearest"));
                // What was learned holds for rows that were not seen.
                assert!(unseen("GPTQ") < 0.8 * unseen("nearest"));
                assert!(unseen("nearest, bias corrected") < unseen("nearest"));
            }
            if bits == 4 {
                errors.iter().for_each(|(method, (.., right))| assert!(*right >= 425, "{method}: {right}"));
            }
        }
    }
}

/// Inputs and weights to 8 bits, each tensor with one scale, the ranges of the inputs from `train`; then the logits'
/// error and how many are right.
fn eight_bits(layers: &[Layer], (train, test): &(Digits, Digits)) -> (f64, usize) {
    let ranges: Vec<QTensor> =
        inputs(layers, &train.x, plain).iter().map(|x| Affine::new(8).unwrap().quantize(x).unwrap()).collect();
    let rounded: Vec<Layer> = layers
        .iter()
        .map(|layer| {
            let q = Symmetric::new(8).unwrap().quantize(layer.tensor()).unwrap();
            layer.with_weight(q.dequantize())
        })
        .collect();
    let between = |i: usize, x: Vec<f32>| {
        let Grid::Affine { scale, zero_point } = ranges[i].grid().clone() else { panic!() };
        let grid = Grid::Affine { scale, zero_point };
        let mut q = QTensor::from_codes(&[x.len()], 8, Granularity::Tensor, grid, &vec![0u8; x.len()]).unwrap();
        Affine::new(8).unwrap().encode((&x).into(), &mut q).unwrap();
        q.dequantize()
    };
    let want = inputs(layers, &test.x, plain).pop().unwrap();
    let got = inputs(&rounded, &test.x, between).pop().unwrap();
    let error: f32 = want.iter().zip(&got).map(|(a, b)| (a - b).powi(2)).sum();
    let total: f32 = want.iter().map(|a| a.powi(2)).sum();
    ((error / total).into(), right(&got, &test.y))
}

fn smoothed(layers: &[Layer; 3], x: &[f32]) -> [Layer; 3] {
    let mut layers = layers.clone();
    for i in 0..2 {
        let calibration = &calibrations(&layers, x)[i + 1];
        let scales = SmoothQuant::default().scales(layers[i + 1].tensor(), calibration).unwrap();
        let (shape, next) = (layers[i].shape(), layers[i + 1].shape());
        divide_outputs(TensorMut::new(&mut layers[i].weight, &shape).unwrap(), &scales).unwrap();
        divide_outputs(&mut layers[i].bias, &scales).unwrap();
        multiply_inputs(TensorMut::new(&mut layers[i + 1].weight, &next).unwrap(), &scales).unwrap();
    }
    layers
}

#[test]
fn smoothing_changes_nothing_but_what_eight_bits_cost() {
    let (layers, data) = (network(), digits());
    // The same function, with hidden units that are far larger than the others.
    let mut outliers = layers.clone();
    for i in 0..2 {
        let factor = |unit: usize| if unit % 37 == 5 { 0.01f32 } else { 1.0 };
        let scales: Vec<f32> = (0..layers[i].outputs()).map(factor).collect();
        let (shape, next) = (layers[i].shape(), layers[i + 1].shape());
        divide_outputs(TensorMut::new(&mut outliers[i].weight, &shape).unwrap(), &scales).unwrap();
        divide_outputs(&mut outliers[i].bias, &scales).unwrap();
        multiply_inputs(TensorMut::new(&mut outliers[i + 1].weight, &next).unwrap(), &scales).unwrap();
    }
    println!("| network | error of the logits, 8-bit weights and inputs | right of 449 | smoothed: error | right |");
    println!("|---|--:|--:|--:|--:|");
    for (name, layers) in [("as trained", layers), ("with outliers", outliers)] {
        let smooth = smoothed(&layers, &data.0.x);
        let want = inputs(&layers, &data.1.x, plain).pop().unwrap();
        let got = inputs(&smooth, &data.1.x, plain).pop().unwrap();
        let largest = want.iter().fold(0f32, |a, x| a.max(x.abs()));
        let moved = want.iter().zip(&got).fold(0f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(moved < 3e-6 * largest, "{moved} of {largest}");
        let (before, after) = (eight_bits(&layers, &data), eight_bits(&smooth, &data));
        println!("| {name} | {:.6} | {} | {:.6} | {} |", before.0, before.1, after.0, after.1);
        assert!(after.1 >= 429);
        if name == "with outliers" {
            assert!(after.0 < 0.1 * before.0, "{before:?} {after:?}");
        }
    }
}

/// Numbers of many sizes and both signs.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.4
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn the_same_bits_on_any_number_of_threads_and_what_needs_no_factor_on_any_instruction_set() {
    let (outputs, inputs, samples) = (70, 131, 300);
    let (w, x) = (numbers(outputs * inputs, 1), numbers(samples * inputs, 2));
    let weight = || TensorRef::new(&w, &[outputs, inputs]).unwrap();
    let affine = Affine::new(3).unwrap().per_group(32).unwrap();
    let work = || {
        let mut calibration = Calibration::new(inputs).unwrap();
        calibration.add(TensorRef::new(&x, &[samples, inputs]).unwrap()).unwrap();
        let awq = Awq::new(affine).with_steps(3).unwrap().quantize(weight(), &calibration).unwrap();
        let hqq = Hqq::new(2).unwrap().per_group(9).unwrap().quantize(weight()).unwrap();
        (calibration, awq, hqq)
    };
    let swept = |calibration: &Calibration| {
        let gptq = Gptq::new(affine);
        (gptq.quantize(weight(), calibration).unwrap(), gptq.with_act_order().quantize(weight(), calibration).unwrap())
    };
    let want = work();
    for isa in Isa::available() {
        isa.force();
        assert_eq!(work(), want, "{}", isa.name());
        let on_this = swept(&want.0);
        for threads in [1, 2, 7] {
            let got = on_threads(threads, || (work(), swept(&want.0)));
            assert_eq!(got.0, want, "{} {threads}", isa.name());
            assert_eq!(got.1, on_this, "{} {threads}", isa.name());
        }
    }
}

#[cfg(feature = "rayon")]
fn on_threads<R: Send>(threads: usize, work: impl Fn() -> R + Sync + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[cfg(not(feature = "rayon"))]
fn on_threads<R>(_: usize, work: impl Fn() -> R) -> R {
    work()
}

fn scheme(kind: usize, bits: u8, shared: usize, size: usize) -> Scheme {
    macro_rules! shared {
        ($q:expr) => {
            match shared {
                0 => $q.into(),
                1 => $q.per_channel(0).into(),
                2 => $q.per_channel(1).into(),
                _ => $q.per_group(size).unwrap().into(),
            }
        };
    }
    match kind {
        0 => shared!(Affine::new(bits).unwrap()),
        1 => shared!(Symmetric::new(bits).unwrap()),
        2 => shared!(Symmetric::new(bits).unwrap().full_range()),
        _ => shared!(MinMax::new(bits).unwrap()),
    }
}

/// Any finite weight, a constant, or usual ones.
fn weights(n: usize) -> impl Strategy<Value = Vec<f32>> {
    let any = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
    prop_oneof![
        prop::collection::vec(any, n),
        prop::collection::vec(-1.0f32..1.0, n),
        prop::collection::vec(Just(0.3f32), n),
        prop::collection::vec(Just(0f32), n),
    ]
}

/// What a calibration may have seen: usual inputs, some always 0, others always the same, or of any size.
fn seen(inputs: usize) -> impl Strategy<Value = Vec<f32>> {
    let any = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
    (1usize..30, 0u8..4).prop_flat_map(move |(samples, kind)| {
        let x = prop::collection::vec(-1.0f32..3.0, samples * inputs);
        match kind {
            0 => x.boxed(),
            1 => x
                .prop_map(move |x| (0..x.len()).map(|i| if i % inputs % 3 == 1 { 0.0 } else { x[i] }).collect())
                .boxed(),
            2 => x.prop_map(move |x| (0..x.len()).map(|i| x[i % inputs]).collect()).boxed(),
            _ => prop::collection::vec(any, samples * inputs).boxed(),
        }
    })
}

fn case() -> impl Strategy<Value = (usize, usize, Vec<f32>, Vec<f32>)> {
    (1usize..20, 1usize..24)
        .prop_flat_map(|(outputs, inputs)| (Just(outputs), Just(inputs), weights(outputs * inputs), seen(inputs)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn inputs_that_have_nothing_to_do_with_one_another_are_rounded_to_nearest(
        (outputs, inputs, w, _) in case(),
        (kind, bits, shared, size) in (0usize..4, 2u8..=8, 0usize..4, 1usize..30),
        act_order in any::<bool>(),
    ) {
        let scheme = scheme(kind, bits, shared, size);
        let weight = TensorRef::new(&w, &[outputs, inputs]).unwrap();
        let identity: Vec<f32> = (0..inputs * inputs).map(|i| f32::from(i % (inputs + 1) == 0)).collect();
        let mut calibration = Calibration::new(inputs).unwrap();
        calibration.add(TensorRef::new(&identity, &[inputs, inputs]).unwrap()).unwrap();
        let gptq = if act_order { Gptq::new(scheme).with_act_order() } else { Gptq::new(scheme) };
        let swept = gptq.quantize(&weight, &calibration).unwrap();
        prop_assert_eq!(swept.tensor, scheme.quantize(&weight).unwrap());
        prop_assert_eq!(swept.error, swept.nearest);
    }

    #[test]
    fn whatever_was_seen_the_result_is_a_tensor_and_no_worse(
        (outputs, inputs, w, x) in case(),
        (kind, bits, shared, size) in (0usize..4, 2u8..=8, 0usize..4, 1usize..30),
        damping in prop_oneof![Just(0.0), Just(0.01), Just(1.0)],
    ) {
        let scheme = scheme(kind, bits, shared, size);
        let weight = TensorRef::new(&w, &[outputs, inputs]).unwrap();
        let mut calibration = Calibration::new(inputs).unwrap();
        calibration.add(TensorRef::new(&x, &[x.len() / inputs, inputs]).unwrap()).unwrap();
        let awq = Awq::new(scheme).with_steps(4).unwrap().quantize(&weight, &calibration).unwrap();
        prop_assert!(awq.error <= awq.nearest);
        prop_assert!(awq.scales.iter().all(|s| s.is_normal() && *s > 0.0));
        let gptq = Gptq::new(scheme).with_damping(damping).unwrap();
        for gptq in [gptq, gptq.with_act_order()] {
            let swept = gptq.quantize(&weight, &calibration).unwrap();
            prop_assert!(swept.error <= swept.nearest, "{} {}", swept.error, swept.nearest);
            prop_assert_eq!(swept.nearest, awq.nearest);
            let codes = swept.tensor.codes();
            prop_assert!(codes.iter().all(|&code| u32::from(code) >> bits == 0));
            prop_assert!(kind != 1 || codes.iter().all(|&code| code > 0));
            let values: Vec<f32> = swept.tensor.dequantize();
            prop_assert!(values.iter().all(|x| x.is_finite()));
            let replaced = TensorRef::new(&values, &[outputs, inputs]).unwrap();
            let measured = calibration.output_error(&weight, replaced).unwrap();
            prop_assert!((measured - swept.error).abs() <= 1e-9 * measured || measured == swept.error);
            // It is what the parts say.
            let (shape, grid) = ([outputs, inputs], swept.tensor.grid().clone());
            let same = QTensor::from_codes(&shape, bits, scheme.granularity(), grid, &codes).unwrap();
            prop_assert_eq!(&same, &swept.tensor);
        }
    }
}

/// Compensation multiplies an error by how much larger the input that made it is.
#[test]
fn groups_that_compensation_drives_to_the_largest_numbers_have_levels() {
    let (samples, noise) = (64, numbers(64 * 4, 11));
    let mut inputs = noise;
    for row in inputs.chunks_exact_mut(4) {
        let first = row[0];
        (row[2], row[3]) = (1e-3 * first + 1e-4 * row[2], 1e-4 * row[3]);
    }
    let mut calibration = Calibration::new(4).unwrap();
    calibration.add(TensorRef::new(&inputs, &[samples, 4]).unwrap()).unwrap();
    // Of opposite signs, so that the range of the second groups together is twice the largest number.
    let weights = [0.4e37f32, 1e37, 0.1e37, 0.3e37, -0.4e37, -1e37, -0.2e37, -0.1e37];
    let weights = TensorRef::new(&weights, &[2, 4]).unwrap();
    let schemes: [Scheme; 4] = [
        Affine::new(1).unwrap().per_group(2).unwrap().into(),
        Affine::new(2).unwrap().per_group(2).unwrap().into(),
        Symmetric::new(2).unwrap().per_group(2).unwrap().into(),
        MinMax::new(1).unwrap().per_group(2).unwrap().into(),
    ];
    for scheme in schemes {
        let gptq = Gptq::new(scheme).with_damping(0.0).unwrap();
        let swept = gptq.quantize(TensorRef::from(&weights), &calibration).unwrap();
        assert!(swept.error.is_finite() && swept.error <= swept.nearest, "{scheme:?} {swept:?}");
        assert!(swept.tensor.dequantize::<f32>().iter().all(|x| x.is_finite()), "{scheme:?} {swept:?}");
    }
}

#[test]
fn other_element_types() {
    fn check<T: Element>() {
        let w: Vec<T> = numbers(60, 4).into_iter().map(|w| T::from_f64(w.into())).collect();
        let x: Vec<T> = numbers(200, 5).into_iter().map(|x| T::from_f64(x.into())).collect();
        let weight = TensorRef::new(&w, &[6, 10]).unwrap();
        let mut calibration = Calibration::new(10).unwrap();
        calibration.add(TensorRef::new(&x, &[20, 10]).unwrap()).unwrap();
        let quantizer = Symmetric::new(3).unwrap().per_group(5).unwrap();
        let swept = Gptq::new(quantizer).quantize(&weight, &calibration).unwrap();
        let scaled = Awq::new(quantizer).quantize(&weight, &calibration).unwrap();
        assert!(swept.error < swept.nearest && scaled.error <= scaled.nearest);
        assert_eq!(Hqq::new(3).unwrap().quantize(&weight).unwrap().shape(), [6, 10]);
        let scales = SmoothQuant::default().scales(&weight, &calibration).unwrap();
        assert_eq!(scales.len(), 10);
    }
    check::<f32>();
    check::<f64>();
    check::<bf16>();
}
