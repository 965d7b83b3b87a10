//! Pruning by a layer's inputs: on a trained network, and on odd masks and quantizers.
//!
//! The table: `cargo test --features linalg --test sparse_gpt -- --nocapture`.

#![cfg(feature = "linalg")]

mod trained;

use lapidary::{
    Calibration, Element, ErrorKind, Grid, Mask, PrunerExt, QuantizerExt, TensorRef,
    half::bf16,
    prune::{Corrected, Magnitude, Select, SparseGpt, Wanda},
    quant::{Affine, FloatFormat, Gptq, KMeans, MinMax, Minifloat, Symmetric, Table},
};
use proptest::prelude::*;
use trained::{Layer, accuracy, calibrations, digits, network};

fn calibration(x: &[f32], inputs: usize) -> Calibration {
    let mut calibration = Calibration::new(inputs).unwrap();
    calibration.add(TensorRef::new(x, &[x.len() / inputs, inputs]).unwrap()).unwrap();
    calibration
}

/// The layer's weights as a method leaves them.
fn pruned(method: &str, select: Select, layer: &Layer, seen: &Calibration) -> Vec<f32> {
    let applied = |mask: Mask| {
        let mut weight = layer.weight.clone();
        mask.apply(lapidary::TensorMut::new(&mut weight, &layer.shape()).unwrap()).unwrap();
        weight
    };
    match method {
        "magnitude" => applied(select.by(Magnitude).mask(layer.tensor()).unwrap()),
        "magnitude, a row" => applied(select.per_row().by(Magnitude).mask(layer.tensor()).unwrap()),
        "Wanda" => applied(select.by(Wanda::new(seen).unwrap()).mask(layer.tensor()).unwrap()),
        "Wanda, a row" => applied(select.per_row().by(Wanda::new(seen).unwrap()).mask(layer.tensor()).unwrap()),
        _ => {
            let mut mask = Mask::keep_all(&layer.shape()).unwrap();
            let corrected = SparseGpt::new(select).unwrap().refine(layer.tensor(), &mut mask, seen).unwrap();
            assert!(corrected.error <= corrected.masked);
            assert!(corrected.values.iter().enumerate().all(|(i, &w)| w == 0.0 || mask.get(i) == Some(true)));
            let values = TensorRef::new(&corrected.values, &layer.shape()).unwrap();
            let measured = seen.output_error(layer.tensor(), values).unwrap();
            assert!((measured - corrected.error).abs() <= 1e-9 * measured, "{measured} {}", corrected.error);
            corrected.values
        }
    }
}

#[test]
fn a_trained_network_loses_less() {
    let layers = network();
    let (train, test) = digits();
    let (seen, unseen) = (calibrations(&layers, &train.x), calibrations(&layers, &test.x));
    assert_eq!(accuracy(&layers, &test), 431);
    println!("| kept | method | output error, layer 1 | 2 | 3 | on other rows, 1 | 2 | 3 | right of 449 |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    let selections = [
        ("50 %", Select::sparsity(0.5).unwrap()),
        ("2:4", Select::n_of_m(2, 4).unwrap()),
        ("4:8", Select::n_of_m(4, 8).unwrap()),
        ("30 %", Select::sparsity(0.7).unwrap()),
    ];
    for (kept, select) in selections {
        let mut errors = std::collections::HashMap::new();
        for method in ["magnitude", "magnitude, a row", "Wanda", "Wanda, a row", "SparseGPT"] {
            let mut network = layers.clone();
            for ((layer, new), seen) in layers.iter().zip(&mut network).zip(&seen) {
                new.weight = pruned(method, select, layer, seen);
                let nonzero = new.weight.iter().filter(|w| **w != 0.0).count();
                let share = if kept == "30 %" { 0.3 } else { 0.5 };
                assert!(nonzero as f64 <= share * layer.weight.len() as f64 + 2.0, "{method}: {nonzero}");
            }
            let error =
                |by: &[Calibration], i: usize| by[i].output_error(layers[i].tensor(), network[i].tensor()).unwrap();
            let all: Vec<f64> = (0..3).map(|i| error(&seen, i)).chain((0..3).map(|i| error(&unseen, i))).collect();
            let right = accuracy(&network, &test);
            print!("| {kept} | {method} |");
            all.iter().for_each(|error| print!(" {error:.4} |"));
            println!(" {right} |");
            errors.insert(method, (all, right));
        }
        for i in 0..6 {
            let error = |method: &str| errors[method].0[i];
            for (magnitude, wanda) in [("magnitude", "Wanda"), ("magnitude, a row", "Wanda, a row")] {
                assert!(error("SparseGPT") < 0.4 * error(magnitude), "{kept} {i}");
                assert!(error("SparseGPT") < error(wanda) && error(wanda) < error(magnitude), "{kept} {i}");
            }
        }
        assert!(errors["SparseGPT"].1 + 1 >= errors["magnitude"].1);
    }
}

#[test]
fn few_bits_for_what_is_left_are_made_up_for_too() {
    let layers = network();
    let (train, _) = digits();
    println!("| bits | layer | pruned, then nearest | pruned, then GPTQ and the mask | at once |");
    println!("|--:|--:|--:|--:|--:|");
    for bits in [3, 4] {
        for (i, (layer, seen)) in layers.iter().zip(calibrations(&layers, &train.x)).enumerate() {
            let shape = layer.shape();
            let quantizer = Symmetric::new(bits).unwrap().per_channel(0);
            let sparse = SparseGpt::new(Select::sparsity(0.5).unwrap()).unwrap();
            fn tensor<'a>(values: &'a [f32], layer: &Layer) -> TensorRef<'a, f32> {
                TensorRef::new(values, &layer.shape()).unwrap()
            }
            let error = |values: &[f32]| seen.output_error(layer.tensor(), tensor(values, layer)).unwrap();
            let mut mask = Mask::keep_all(&shape).unwrap();
            let first = sparse.refine(layer.tensor(), &mut mask, &seen).unwrap();
            let applied = |mut values: Vec<f32>| {
                mask.apply(lapidary::TensorMut::new(&mut values, &shape).unwrap()).unwrap();
                values
            };
            let rounded = applied(quantizer.quantize(tensor(&first.values, layer)).unwrap().dequantize());
            let swept = Gptq::new(quantizer).quantize(tensor(&first.values, layer), &seen).unwrap();
            let swept = applied(swept.tensor.dequantize());
            let mut mask = Mask::keep_all(&shape).unwrap();
            let both = sparse.refine_quantized(layer.tensor(), &mut mask, &seen, &quantizer).unwrap();
            println!("| {bits} | {} | {:.4} | {:.4} | {:.4} |", i + 1, error(&rounded), error(&swept), both.error);
            assert!((error(&both.values) - both.error).abs() < 1e-9 * both.error);
            assert!(both.error < 0.8 * error(&rounded) && both.error < 2.0 * error(&swept));
            // What the codes say is what was measured.
            let mut codes: Vec<f32> = both.tensor.unwrap().dequantize();
            mask.apply(lapidary::TensorMut::new(&mut codes, &shape).unwrap()).unwrap();
            assert_eq!(codes, both.values);
        }
    }
}

/// Numbers of both signs.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.4
    };
    (0..n).map(|_| next()).collect()
}

/// The algorithm as the paper has it: the inverse by elimination, one column after another, errors passed on at once.
fn plain(w: &[f32], cols: usize, seen: &Calibration, keep: usize, of: usize) -> Vec<f64> {
    let rows = w.len() / cols;
    let mut h = seen.hessian().unwrap();
    let mean = (0..cols).map(|i| h[i * cols + i]).sum::<f64>() / cols as f64;
    (0..cols).for_each(|i| h[i * cols + i] += 0.01 * mean);
    // The inverse of what is left of H, from column j on.
    let inverse = |from: usize| -> Vec<Vec<f64>> {
        let n = cols - from;
        let mut a: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let unit = (0..n).map(|j| f64::from(i == j));
                h[(from + i) * cols + from..][..n].iter().copied().chain(unit).collect()
            })
            .collect();
        for i in 0..n {
            let pivot = a[i][i];
            a[i].iter_mut().for_each(|x| *x /= pivot);
            for k in (0..n).filter(|&k| k != i) {
                let (row, factor) = (a[i].clone(), a[k][i]);
                a[k].iter_mut().zip(row).for_each(|(x, y)| *x -= factor * y);
            }
        }
        a.into_iter().map(|row| row[n..].to_vec()).collect()
    };
    let mut w: Vec<f64> = w.iter().map(|&w| w.into()).collect();
    let mut pruned = vec![false; w.len()];
    let diagonals: Vec<Vec<f64>> = (0..cols).map(|j| inverse(j).swap_remove(0)).collect();
    for j in 0..cols {
        if j % of == 0 {
            for row in 0..rows {
                let score = |k: usize| w[row * cols + k].powi(2) / diagonals[k][0];
                let mut order: Vec<usize> = (j..cols.min(j + of)).collect();
                let go = order.len() - (keep * order.len()).div_ceil(of);
                order.sort_by(|&a, &b| score(a).total_cmp(&score(b)));
                order[..go].iter().for_each(|&k| pruned[row * cols + k] = true);
            }
        }
        for row in 0..rows {
            let at = row * cols + j;
            if pruned[at] {
                let error = w[at] / diagonals[j][0];
                w[at] = 0.0;
                (j + 1..cols).for_each(|k| w[row * cols + k] -= error * diagonals[j][k - j]);
            }
        }
    }
    w
}

#[test]
fn is_the_algorithm_of_the_paper() {
    let (rows, cols) = (21, 27);
    let (w, seen) = (numbers(rows * cols, 5), calibration(&numbers(90 * cols, 3), cols));
    let weight = TensorRef::new(&w, &[rows, cols]).unwrap();
    for (keep, of) in [(2, 4), (1, 4), (4, 8), (3, 7)] {
        let mut mask = Mask::keep_all(&[rows, cols]).unwrap();
        let select = Select::n_of_m(keep, of).unwrap();
        let got = SparseGpt::new(select).unwrap().refine(&weight, &mut mask, &seen).unwrap();
        let want = plain(&w, cols, &seen, keep, of);
        let mut corrected = 0;
        for row in 0..rows {
            let elements = row * cols..(row + 1) * cols;
            let near = |i: usize| (f64::from(got.values[i]) - want[i]).abs() < 1e-5;
            assert!(elements.clone().all(|i| mask.get(i) == Some(want[i] != 0.0)), "{keep}:{of}, row {row}");
            // A row that was better off with the mask alone has its weights as they were.
            let left = elements.clone().all(|i| got.values[i] == if want[i] != 0.0 { w[i] } else { 0.0 });
            corrected += usize::from(elements.clone().all(near));
            assert!(elements.clone().all(near) || left, "{keep}:{of}, row {row}");
        }
        assert!(corrected >= 18, "{keep}:{of}: {corrected}");
        assert!(got.error < got.masked);
    }
}

#[test]
fn a_second_prune_works_on_what_the_first_left_and_dead_inputs_go_first() {
    let (rows, cols) = (24, 150);
    let mut w = numbers(rows * cols, 5);
    let mut x = numbers(400 * cols, 3);
    for x in x.chunks_exact_mut(cols) {
        (0..cols).step_by(5).for_each(|j| x[j] = 0.0);
    }
    let seen = calibration(&x, cols);
    let shape = [rows, cols];
    let before = Mask::from_fn(&shape, |i| i % 7 != 3).unwrap();
    // What was pruned before may be anything.
    (0..w.len()).filter(|i| i % 7 == 3).for_each(|i| w[i] = f32::NAN);
    let weight = || TensorRef::new(&w, &shape).unwrap();
    let mut mask = before.clone();
    let sparse = SparseGpt::new(Select::sparsity(0.1).unwrap()).unwrap();
    let first = sparse.refine(weight(), &mut mask, &seen).unwrap();
    let left = before.kept() as f64 * 0.9;
    assert!((mask.kept() as f64 - left).abs() <= 1.0, "{} of {left}", mask.kept());
    assert!(mask.indices().all(|i| before.get(i) == Some(true)));
    // A tenth of all goes, a fifth has no effect: nothing that has goes.
    assert!((0..w.len()).all(|i| mask.get(i) == before.get(i) || i % cols % 5 == 0));
    assert!(first.error < 1e-12, "{}", first.error);
    let then = mask.clone();
    let second = SparseGpt::new(Select::sparsity(0.5).unwrap()).unwrap();
    let again = second.refine(TensorRef::new(&first.values, &shape).unwrap(), &mut mask, &seen).unwrap();
    assert!((mask.kept() as f64 - then.kept() as f64 / 2.0).abs() <= 1.0);
    assert!(mask.indices().all(|i| then.get(i) == Some(true)));
    assert!(again.error < again.masked);
    assert!(again.values.iter().enumerate().all(|(i, &w)| w.is_finite() && (w == 0.0 || mask.get(i) == Some(true))));
    // Each row by itself: the same share of each.
    let mut mask = Mask::keep_all(&shape).unwrap();
    let rows_alone = SparseGpt::new(Select::sparsity(0.5).unwrap().per_row()).unwrap();
    rows_alone.refine(TensorRef::new(&again.values, &shape).unwrap(), &mut mask, &seen).unwrap();
    for row in 0..rows {
        assert_eq!((0..cols).filter(|col| mask.get(row * cols + col) == Some(true)).count(), 64 + 11);
    }
}

#[test]
fn says_what_it_cannot_do_and_changes_nothing_then() {
    let half = Select::sparsity(0.5).unwrap();
    for select in [
        Select::count(3),
        Select::above(0.5).unwrap(),
        Select::budget(3),
        half.along(0),
        half.in_blocks(2, 2).unwrap(),
        half.with_min_kept(1),
    ] {
        assert_eq!(SparseGpt::new(select).unwrap_err().kind(), ErrorKind::Argument);
    }
    let sparse = SparseGpt::new(half).unwrap();
    assert!(sparse.with_damping(-0.1).is_err() && sparse.with_damping(f64::NAN).is_err());
    let (w, seen) = (numbers(12, 1), calibration(&numbers(36, 3), 4));
    let weight = || TensorRef::new(&w, &[3, 4]).unwrap();
    let mut mask = Mask::keep_all(&[3, 4]).unwrap();
    let before = mask.clone();
    let refused = |weight: TensorRef<'_, f32>, mask: &mut Mask, seen: &Calibration| {
        let kept = mask.clone();
        let error = sparse.refine(weight, mask, seen).unwrap_err();
        assert_eq!(*mask, kept);
        error
    };
    assert_eq!(refused(weight(), &mut Mask::keep_all(&[12]).unwrap(), &seen).kind(), ErrorKind::Shape);
    assert_eq!(refused((&w).into(), &mut Mask::keep_all(&[12]).unwrap(), &seen).kind(), ErrorKind::Argument);
    assert_eq!(refused(weight(), &mut mask, &calibration(&numbers(10, 3), 5)).kind(), ErrorKind::Shape);
    assert_eq!(refused(weight(), &mut mask, &Calibration::new(4).unwrap()).kind(), ErrorKind::Empty);
    let mut light = Calibration::without_hessian(4).unwrap();
    light.add(&[1.0f32; 4]).unwrap();
    assert_eq!(refused(weight(), &mut mask, &light).kind(), ErrorKind::Argument);
    let mut nan = w.clone();
    nan[7] = f32::NAN;
    let error = refused(TensorRef::new(&nan, &[3, 4]).unwrap(), &mut mask, &seen);
    assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(7)));
    assert_eq!(mask, before);
}

#[test]
fn any_quantizer_and_type_will_do() {
    let (rows, cols) = (19, 40);
    let (w, seen) = (numbers(rows * cols, 8), calibration(&numbers(120 * cols, 9), cols));
    let shape = [rows, cols];
    let narrow: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
    let wide: Vec<f64> = w.iter().map(|&w| w.into()).collect();
    fn run<T: Element>(
        w: &[T],
        shape: [usize; 2],
        seen: &Calibration,
        quantizer: &dyn lapidary::Quantizer<T>,
    ) -> Corrected<T> {
        let weight = || TensorRef::new(w, &shape).unwrap();
        let mut mask = Mask::keep_all(&shape).unwrap();
        let sparse = SparseGpt::new(Select::n_of_m(2, 4).unwrap()).unwrap();
        let got = sparse.refine_quantized(weight(), &mut mask, seen, quantizer).unwrap();
        assert_eq!(mask.kept(), w.len() / 2);
        let measured = seen.output_error(weight(), TensorRef::new(&got.values, &shape).unwrap()).unwrap();
        assert!((measured - got.error).abs() <= 1e-9 * measured, "{quantizer:?}");
        assert!(got.error < 0.9 * got.masked, "{quantizer:?}: {} {}", got.error, got.masked);
        let codes: Vec<T> = got.tensor.as_ref().unwrap().dequantize();
        for (i, (value, code)) in got.values.iter().zip(codes).enumerate() {
            let want = if mask.get(i) == Some(true) { code } else { T::default() };
            assert_eq!(*value, want, "{quantizer:?} at {i}");
        }
        got
    }
    macro_rules! all {
        ($($quantizer:expr),* $(,)?) => {$(
            let quantizer = $quantizer;
            run(&w, shape, &seen, &quantizer);
            run(&narrow, shape, &seen, &quantizer);
            run(&wide, shape, &seen, &quantizer);
        )*};
    }
    all!(
        Affine::new(4).unwrap().per_channel(0),
        Affine::new(3).unwrap().per_group(16).unwrap(),
        Symmetric::new(4).unwrap().per_channel(0),
        Symmetric::new(3).unwrap().full_range().per_group(10).unwrap(),
        MinMax::new(3).unwrap().per_group(8).unwrap(),
        KMeans::new(3).unwrap(),
        Table::nf4().per_group(20).unwrap(),
        Minifloat::mx(FloatFormat::E2m1),
    );
    // Without a quantizer, what a type stores is what is measured.
    let mut mask = Mask::keep_all(&shape).unwrap();
    let sparse = SparseGpt::new(Select::sparsity(0.6).unwrap()).unwrap();
    let got = sparse.refine(TensorRef::new(&narrow, &shape).unwrap(), &mut mask, &seen).unwrap();
    assert!(got.tensor.is_none() && got.error < got.masked);
    // Restricted codes stay restricted.
    let got = run(&w, shape, &seen, &Symmetric::new(3).unwrap().per_channel(0));
    let tensor = got.tensor.unwrap();
    assert!(matches!(tensor.grid(), Grid::Affine { zero_point: None, .. }));
    assert!(tensor.codes().iter().all(|&code| code >= 1));
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let (rows, cols) = (130, 300);
    let (w, seen) = (numbers(rows * cols, 1), calibration(&numbers(500 * cols, 2), cols));
    let work = |select: Select| {
        let mut mask = Mask::keep_all(&[rows, cols]).unwrap();
        let sparse = SparseGpt::new(select).unwrap();
        let weight = TensorRef::new(&w, &[rows, cols]).unwrap();
        (sparse.refine_quantized(weight, &mut mask, &seen, &Affine::new(4).unwrap().per_channel(0)).unwrap(), mask)
    };
    for select in [Select::sparsity(0.5).unwrap(), Select::n_of_m(2, 4).unwrap()] {
        let want = work(select);
        #[cfg(feature = "rayon")]
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| work(select)), want, "{threads} threads");
        }
        assert_eq!(work(select), want);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn numbers_of_any_size_are_corrected_or_left(
        w in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 60),
        x in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 24..120),
        keep in prop::collection::vec(any::<bool>(), 60),
        share in 0.0..=1.0f64,
    ) {
        let seen = calibration(&x[..x.len() / 12 * 12], 12);
        let weight = TensorRef::new(&w, &[5, 12]).unwrap();
        let before = Mask::from_fn(&[5, 12], |i| keep[i]).unwrap();
        for select in [Select::sparsity(share).unwrap(), Select::n_of_m(1, 3).unwrap()] {
            let mut mask = before.clone();
            // Finite numbers, whatever their size, are refused by none and have errors that compare: NaN would not.
            let got = SparseGpt::new(select).unwrap().refine(&weight, &mut mask, &seen).unwrap();
            prop_assert!(got.error <= got.masked, "{} {}", got.error, got.masked);
            for (i, value) in got.values.iter().enumerate() {
                prop_assert!(value.is_finite() && (*value == 0.0 || mask.get(i) == Some(true)));
                prop_assert!(mask.get(i) != Some(true) || before.get(i) == Some(true));
            }
        }
    }
}
