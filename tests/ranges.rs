//! Observers: what they keep does not depend on how a stream is cut, and the ranges they give are good ones.

use half::{bf16, f16};
use lapidary::{
    Element, ErrorKind, Grid, Quantizer, QuantizerExt, Values, half,
    quant::{Affine, Histogram, MinMaxObserver, Range, Symmetric},
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Normal, StudentT};

/// Every finite `f32`, and often 0 of either sign and the ends.
fn any_finite() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => (prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL).boxed(),
        1 => prop::sample::select(vec![0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, 1.0]).boxed(),
    ]
}

fn histogram<T: Element>(values: &[T]) -> Histogram {
    let mut histogram = Histogram::new();
    histogram.observe(values).unwrap();
    histogram
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cut_of_a_stream_does_not_matter(
        values in prop::collection::vec(any_finite(), 1..300),
        cuts in prop::collection::vec(0usize..300, 0..5),
        seed in any::<u64>(),
    ) {
        let (want, mut ends) = (histogram(&values), MinMaxObserver::new());
        ends.observe(&values).unwrap();
        let mut shuffled = values.clone();
        let mut rng = StdRng::seed_from_u64(seed);
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, rng.random_range(0..=i));
        }
        // Batches of one stream, and a histogram each, merged from the last to the first.
        let (mut stream, mut merged) = (Histogram::new(), Histogram::new());
        let (mut ends_stream, mut ends_merged) = (MinMaxObserver::new(), MinMaxObserver::new());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).chain([0, values.len()]).collect();
        cuts.sort_unstable();
        for ends in cuts.windows(2) {
            stream.observe(&shuffled[ends[0]..ends[1]]).unwrap();
            ends_stream.observe(&shuffled[ends[0]..ends[1]]).unwrap();
        }
        for ends in cuts.windows(2).rev() {
            merged.merge(&histogram(&shuffled[ends[0]..ends[1]]));
            let mut one = MinMaxObserver::new();
            one.observe(&shuffled[ends[0]..ends[1]]).unwrap();
            ends_merged.merge(&one);
        }
        prop_assert_eq!(&stream, &want);
        prop_assert_eq!(&merged, &want);
        prop_assert_eq!(ends_stream, ends);
        prop_assert_eq!(ends_merged, ends);
        let bits = |range: Range| (range.min().to_bits(), range.max().to_bits());
        prop_assert_eq!(bits(ends_stream.range().unwrap()), bits(ends.range().unwrap()));
        prop_assert_eq!(bits(merged.range().unwrap()), bits(ends.range().unwrap()));
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        prop_assert_eq!(ends.range().unwrap(), Range::new(low.into(), high.into()).unwrap());
    }

    #[test]
    fn a_percentile_is_the_sorted_value_within_a_bucket(
        mut values in prop::collection::vec(any_finite(), 1..400),
        percent in 0.1f64..100.0,
    ) {
        let range = histogram(&values).percentile(percent).unwrap();
        values.sort_by(f32::total_cmp);
        let tail = (1.0 - percent / 100.0) / 2.0 * values.len() as f64;
        let beyond = tail.ceil().max(1.0) as usize;
        let near = |got: f64, want: f32| {
            (got - f64::from(want)).abs() <= f64::from(want.abs()) / 128.0 + 2f64.powi(-133)
        };
        // Of few values and a small share, the ends may have changed places.
        let (low, high) = (values[beyond - 1], values[values.len() - beyond]);
        let (low, high) = (low.min(high), high.max(low));
        prop_assert!(near(range.min(), low) && near(range.max(), high), "{range:?} {low:e} {high:e}");
        prop_assert!(range.min() >= values[0].into() && range.max() <= (*values.last().unwrap()).into());
    }

    #[test]
    fn every_criterion_gives_a_range_of_what_was_seen(
        values in prop::collection::vec(any_finite(), 1..60), bits in 2u8..=8,
    ) {
        let histogram = histogram(&values);
        let seen = histogram.range().unwrap();
        let symmetric = Symmetric::new(bits).unwrap();
        let ranges = [
            histogram.percentile(90.0).unwrap(),
            histogram.mse_symmetric(symmetric).unwrap(),
            histogram.mse_affine(Affine::new(bits).unwrap()).unwrap(),
            histogram.entropy(bits).unwrap(),
        ];
        for (i, range) in ranges.into_iter().enumerate() {
            // An affine range holds 0.
            let zero = if i == 2 { 0.0 } else { seen.min() };
            let (low, high) = (seen.min().min(zero), seen.max().max(zero));
            prop_assert!(range.min() >= low && range.max() <= high, "{i}: {range:?} {seen:?}");
            prop_assert!(range.min() <= range.max(), "{i}: {range:?}");
        }
    }
}

#[test]
fn other_types_count_as_their_f32() {
    let x: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.37).sin() * 2f32.powi(i % 30 - 20)).collect();
    fn check<T: Element>(x: &[f32]) {
        let narrow: Vec<T> = x.iter().map(|&x| T::from_f64(x.into())).collect();
        let wide: Vec<f32> = narrow.iter().map(|x| x.to_f64() as f32).collect();
        assert_eq!(histogram(&narrow), histogram(&wide));
    }
    check::<f16>(&x);
    check::<bf16>(&x);
    check::<f64>(&x);
    let error = Histogram::new().observe(&[1.0f64, 1e39]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
}

#[test]
fn a_grid_of_the_range_of_a_tensor_is_the_one_that_fits_it() {
    let mut rng = StdRng::seed_from_u64(1);
    for bits in 2..=8 {
        for size in [1e-38f32, 1e-3, 1.0, 1e30, 1e38] {
            let x: Vec<f32> = (0..100).map(|_| size * (rng.random::<f32>() * 3.0 - 1.0)).collect();
            let range = histogram(&x).range().unwrap();
            for (quantizer, grid) in [
                (&Affine::new(bits).unwrap() as &dyn Quantizer<f32>, Affine::new(bits).unwrap().grid::<f32>(&[range])),
                (&Symmetric::new(bits).unwrap(), Symmetric::new(bits).unwrap().grid::<f32>(&[range])),
                (
                    &Symmetric::new(bits).unwrap().full_range(),
                    Symmetric::new(bits).unwrap().full_range().grid::<f32>(&[range]),
                ),
            ] {
                let fitted = quantizer.quantize(&x).unwrap();
                assert_eq!(fitted.grid(), &grid.unwrap());
            }
        }
    }
    let affine = Affine::new(1).unwrap();
    let kind = |result: lapidary::Result<Grid>| result.unwrap_err().kind();
    assert_eq!(kind(affine.grid::<f32>(&[])), ErrorKind::Empty);
    let wide = Range::new(-3e38, 3e38).unwrap();
    assert_eq!(kind(affine.grid::<f32>(&[wide])), ErrorKind::Argument);
    assert_eq!(kind(affine.grid::<f32>(&[Range::new(-1e300, 1.0).unwrap()])), ErrorKind::Argument);
    // One range a channel.
    let ranges = [Range::new(-1.0, 1.0).unwrap(), Range::new(0.0, 51.0).unwrap()];
    let grid = Affine::new(8).unwrap().grid::<f64>(&ranges).unwrap();
    let scale = Values::F64(vec![2.0 / 255.0, 0.2]);
    assert_eq!(grid, Grid::Affine { scale: scale.into(), zero_point: Some(vec![128, 0]) });
}

/// Samples that calibration is for: activations before and after a ReLU, with and without outliers.
fn samples() -> Vec<(&'static str, Vec<f32>)> {
    let mut rng = StdRng::seed_from_u64(7);
    let student = StudentT::<f32>::new(3.0).unwrap();
    let normal = Normal::<f32>::new(0.0, 1.0).unwrap();
    let n = 20_000;
    let heavy: Vec<f32> = (0..n).map(|_| student.sample(&mut rng)).collect();
    let bell: Vec<f32> = (0..n).map(|_| normal.sample(&mut rng)).collect();
    let shifted = bell.iter().map(|x| 0.3 + x.abs() * x.abs()).collect();
    let rectified = heavy.iter().map(|x| x.max(0.0)).collect();
    let mut outlier = bell.clone();
    outlier[77] = 60.0;
    let mixed = bell.iter().map(|x| if *x > 2.5 { x * x } else { *x }).collect();
    vec![
        ("mixed", mixed),
        ("heavy", heavy),
        ("bell", bell),
        ("shifted", shifted),
        ("rectified", rectified),
        ("outlier", outlier),
    ]
}

/// Where no tail is worth cutting, what a histogram does not tell of the data may cost a little.
fn slack(name: &str) -> f64 {
    if name == "bell" { 1.005 } else { 1.0 }
}

/// The mean squared error of quantizing `x` by the levels of a range.
fn mse(quantizer: &impl Quantizer<f32>, grid: Grid, x: &[f32]) -> f64 {
    let mut q = quantizer.layout(&[x.len()]).unwrap();
    q.set_grid(grid).unwrap();
    quantizer.encode(x.into(), &mut q).unwrap();
    q.error(x).unwrap().mse
}

#[test]
fn the_best_symmetric_range_is_as_good_as_a_search_over_the_data() {
    for (name, x) in samples() {
        let slack = slack(name);
        let histogram = histogram(&x);
        let seen = histogram.range().unwrap();
        let largest = seen.max().max(-seen.min());
        for bits in [2, 3, 4, 6, 8] {
            let symmetric = Symmetric::new(bits).unwrap();
            let error = |range| mse(&symmetric, symmetric.grid::<f32>(&[range]).unwrap(), &x);
            let best = histogram.mse_symmetric(symmetric).unwrap();
            let (got, plain) = (error(best), error(seen));
            let searched = (1..=400).map(|i| {
                let end = largest * f64::from(i) / 400.0;
                error(Range::new(-end, end).unwrap())
            });
            let least = searched.fold(f64::INFINITY, f64::min);
            println!("{name} symmetric {bits}: {got:.3e}, searched {least:.3e}, min-max {plain:.3e}");
            assert!(got <= slack * plain && got <= 1.02 * least, "{name} {bits}: {got:e} {least:e} {plain:e}");
        }
    }
}

#[test]
fn the_best_affine_range_is_as_good_as_a_search_over_the_data() {
    for (name, x) in samples() {
        let (x, slack) = (&x[..4000], slack(name));
        let histogram = histogram(x);
        let seen = histogram.range().unwrap();
        for bits in [2, 4, 8] {
            let affine = Affine::new(bits).unwrap();
            let error = |range| mse(&affine, affine.grid::<f32>(&[range]).unwrap(), x);
            let best = histogram.mse_affine(affine).unwrap();
            let (got, plain) = (error(best), error(seen));
            let steps = 50;
            let ends = (0..=steps).flat_map(|i| (1..=steps).map(move |j| (i, j)));
            let searched = ends.map(|(i, j)| {
                let (min, max) = (seen.min().min(0.0), seen.max().max(0.0));
                error(Range::new(min * f64::from(i) / f64::from(steps), max * f64::from(j) / f64::from(steps)).unwrap())
            });
            let least = searched.fold(f64::INFINITY, f64::min);
            println!("{name} affine {bits}: {got:.3e}, searched {least:.3e}, min-max {plain:.3e}");
            assert!(got <= slack * plain && got <= 1.02 * least, "{name} {bits}: {got:e} {least:e} {plain:e}");
        }
    }
}

/// The procedure of the slides on the data itself: 2048 bins of magnitudes, thresholds from 128 bins on.
fn entropy_of_the_data(x: &[f32], levels: usize) -> f64 {
    let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let width = f64::from(largest) / 2048.0;
    let mut bins = vec![0.0; 2048];
    x.iter().for_each(|x| bins[((f64::from(x.abs()) / width) as usize).min(2047)] += 1.0);
    let mut best = (0, f64::INFINITY);
    for i in levels..=2048 {
        let mut p = bins[..i].to_vec();
        p[i - 1] += bins[i..].iter().sum::<f64>();
        let mut q = vec![0.0; i];
        for level in 0..levels {
            let own: Vec<usize> = (0..i).filter(|j| j * levels / i == level && bins[*j] > 0.0).collect();
            let sum: f64 = own.iter().map(|&j| bins[j]).sum();
            own.iter().for_each(|&j| q[j] = sum / own.len() as f64);
        }
        let (p_sum, q_sum): (f64, f64) = (p.iter().sum(), q.iter().sum());
        let terms = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
        let divergence: f64 = terms.map(|(p, q)| p / p_sum * (p / p_sum / (q / q_sum)).ln()).sum();
        if divergence < best.1 {
            best = (i, divergence);
        }
    }
    (best.0 as f64 + 0.5) * width
}

#[test]
fn the_entropy_range_of_a_heavy_tail_is_where_the_procedure_puts_it() {
    let mut rng = StdRng::seed_from_u64(3);
    for (freedom, n) in [(3.0, 100_000), (4.0, 400_000)] {
        let student = StudentT::<f32>::new(freedom).unwrap();
        let x: Vec<f32> = (0..n).map(|_| student.sample(&mut rng)).collect();
        let histogram = histogram(&x);
        let range = histogram.entropy(8).unwrap();
        let threshold = range.max().max(-range.min());
        let want = entropy_of_the_data(&x, 128);
        let mut magnitudes: Vec<f32> = x.iter().map(|x| x.abs()).collect();
        magnitudes.sort_by(f32::total_cmp);
        let (share, largest) = (magnitudes[n * 99 / 100], magnitudes[n - 1]);
        println!(
            "student {freedom} of {n}: {threshold:.3}, of the data {want:.3}, 99 % {share:.3}, largest {largest:.3}"
        );
        assert!(threshold > share.into() && threshold < largest.into());
        assert!((threshold / want).ln().abs() < 0.2, "{threshold} {want}");
    }
}
