//! The contracts of quantizers to levels that are not even, over the whole range of numbers.

use lapidary::{
    DType, Element, ErrorKind, Granularity, Grid, QTensor, Quantizer, QuantizerExt, TensorRef,
    half::{bf16, f16},
    quant::{FloatFormat, KMeans, MinMax, Minifloat, Table},
};
use proptest::prelude::*;

/// Every finite f32 as likely as any other bit pattern: subnormals, 3.4e38, both zeros.
fn any_f32() -> impl Strategy<Value = f32> {
    use prop::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

/// Tensors whose numbers are all of one size, or of all sizes, or nearly the same.
fn tensors() -> impl Strategy<Value = Vec<f32>> {
    let wild = prop::collection::vec(any_f32(), 1..80);
    let even = (-126i32..127, prop::collection::vec(-1.0f32..1.0, 1..80))
        .prop_map(|(scale, x)| x.into_iter().map(|x| x * 2f32.powi(scale)).collect());
    let constant = (any_f32(), 1usize..20).prop_map(|(x, n)| vec![x; n]);
    let huge = prop::collection::vec(prop::sample::select(vec![f32::MAX, f32::MIN, 1.0, 0.0]), 1..20);
    let neighbours = (1u32..0x7f7f_0000, prop::collection::vec(0u32..40, 1..80))
        .prop_map(|(first, steps)| steps.into_iter().map(|step| f32::from_bits(first + step)).collect());
    let outlier = (any_f32(), prop::collection::vec(-1e-3f32..1e-3, 1..60)).prop_map(|(x, mut rest)| {
        rest.push(x);
        rest
    });
    prop_oneof![wild, even, constant, huge, neighbours, outlier]
}

/// The distance from `|x|` to the next larger number of the type, in f64.
fn ulp<T: Element>(x: f64) -> f64 {
    let (digits, smallest) = match T::DTYPE {
        DType::F64 => (52, f64::from_bits(1)),
        DType::F32 => (23, f64::from(f32::from_bits(1))),
        DType::Bf16 => (7, bf16::from_bits(1).to_f64()),
        _ => (10, f16::from_bits(1).to_f64()),
    };
    let power = f64::from_bits(x.abs().to_bits() & (0x7ff << 52));
    (power * 0.5f64.powi(digits)).max(smallest)
}

/// The group of each element of a tensor.
fn group(granularity: Granularity, shape: [usize; 3], i: usize) -> usize {
    let [_, b, c] = shape;
    let at = [i / (b * c), i / c % b, i % c];
    match granularity {
        Granularity::Tensor => 0,
        Granularity::Channel { axis } => at[axis],
        Granularity::Group { size } => (at[0] * b + at[1]) * c.div_ceil(size) + at[2] / size,
        Granularity::Block { axis, size } => {
            let (mut at, mut shape) = (at, shape);
            at[axis] /= size;
            shape[axis] = shape[axis].div_ceil(size);
            (at[0] * shape[1] + at[1]) * shape[2] + at[2]
        }
        _ => unreachable!(),
    }
}

/// No level of its group is nearer to a value than the one it got, by more than `ulps` of the group's largest value.
fn nearest<T: Element>(x: &[T], shape: [usize; 3], q: &QTensor, ulps: f64) -> Result<(), TestCaseError> {
    let back: Vec<T> = q.dequantize();
    let count = 1 << q.bits();
    let groups: Vec<usize> = (0..x.len()).map(|i| group(q.granularity(), shape, i)).collect();
    for (i, (x_i, y)) in x.iter().zip(&back).enumerate() {
        let level = |code: usize| match q.grid() {
            Grid::Scaled { levels, scale } => levels.get(code).unwrap() * scale.get(groups[i]).unwrap(),
            Grid::Codebook { levels } => levels.get(groups[i] * count + code).unwrap(),
            _ => panic!(),
        };
        let distance = |y: f64| (x_i.to_f64() / 2.0 - y / 2.0).abs() * 2.0;
        let least = (0..count).map(|code| distance(level(code))).fold(f64::INFINITY, f64::min);
        let members = x.iter().zip(&groups).filter(|(_, g)| **g == groups[i]);
        let largest = members.map(|(x, _)| x.to_f64().abs()).fold(0.0, f64::max);
        let bound = least + ulps * ulp::<T>(largest);
        prop_assert!(distance(y.to_f64()) <= bound, "{:?}: {x_i} became {y}, beyond {bound:e}", q.granularity());
    }
    Ok(())
}

/// All granularities of a quantizer.
macro_rules! granularities {
    ($quantizer:expr, $size:expr) => {{
        let q = $quantizer;
        let mut all = vec![q.clone().per_group($size).unwrap(), q.clone().per_block(0, $size).unwrap()];
        all.extend([q.clone().per_block(1, $size).unwrap()]);
        all.extend((0..3).map(|axis| q.clone().per_channel(axis)));
        all.push(q);
        all
    }};
}

fn contracts<T: Element>(x: &[T], shape: [usize; 3], size: usize, ulps: f64) -> Result<(), TestCaseError> {
    let tensor = || TensorRef::new(x, &shape).unwrap();
    let formats = [FloatFormat::E5m2, FloatFormat::E4m3, FloatFormat::E3m2, FloatFormat::E2m3, FloatFormat::E2m1];
    for format in formats {
        for float in granularities!(Minifloat::new(format), size) {
            nearest(x, shape, &float.quantize(tensor()).unwrap(), ulps)?;
        }
        for float in granularities!(Minifloat::mx(format), size) {
            match float.quantize(tensor()) {
                Ok(q) => nearest(x, shape, &q, ulps)?,
                Err(error) => prop_assert!(T::DTYPE == DType::F64 && error.kind() == ErrorKind::Argument, "{error}"),
            }
        }
    }
    let ramp: Vec<f32> = (0..100).map(|i| (i * i) as f32 - 1e3).collect();
    for table in [Table::nf4(), Table::new(&[-1.0, 0.0, 1.0]).unwrap(), Table::new(&ramp).unwrap()] {
        for table in granularities!(table, size) {
            nearest(x, shape, &table.quantize(tensor()).unwrap(), ulps)?;
        }
    }
    for kmeans in granularities!(KMeans::new(size as u8 % 4 + 1).unwrap(), size) {
        nearest(x, shape, &kmeans.quantize(tensor()).unwrap(), ulps)?;
        nearest(x, shape, &kmeans.with_zero().quantize(tensor()).unwrap(), ulps)?;
    }
    Ok(())
}

/// A shape for so many elements, which need not all be used.
fn shape(len: usize, cols: usize) -> [usize; 3] {
    let cols = cols.min(len);
    let rows = len / cols;
    if rows.is_multiple_of(2) { [2, rows / 2, cols] } else { [1, rows, cols] }
}

/// The sum of squares of what quantization loses, of numbers about 1.
fn loss<T: Element>(x: &[T], q: &QTensor) -> f64 {
    let largest = x.iter().map(|x| x.to_f64().abs()).fold(f64::MIN_POSITIVE, f64::max);
    let back: Vec<T> = q.dequantize();
    let lost = |x: T, y: T| ((x.to_f64() / 2.0 - y.to_f64() / 2.0) / (largest / 2.0)).powi(2);
    x.iter().zip(&back).map(|(&x, &y)| lost(x, y)).sum()
}

fn no_worse_than_even_steps<T: Element>(x: &[T], bits: u8, group: usize) -> Result<(), TestCaseError> {
    let (kmeans, minmax) = (KMeans::new(bits).unwrap(), MinMax::new(bits).unwrap());
    let grouped = (kmeans.per_group(group).unwrap(), minmax.per_group(group).unwrap());
    for (kmeans, minmax) in [(kmeans, minmax), grouped] {
        let (a, b) = (loss(x, &kmeans.quantize(x).unwrap()), loss(x, &minmax.quantize(x).unwrap()));
        prop_assert!(a <= b * (1.0 + 1e-12), "{bits} bits: {a:e} for {b:e}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_level_is_a_nearest_one(x in tensors(), cols in 1usize..20, size in 1usize..40) {
        let shape = shape(x.len(), cols);
        contracts(&x[..shape.iter().product()], shape, size, 1.0)?;
    }

    #[test]
    fn in_f64_too(x in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 1..40), size in 1usize..10) {
        let shape = shape(x.len(), 5);
        contracts(&x[..shape.iter().product()], shape, size, 2.0)?;
    }

    #[test]
    fn in_16_bits_too(x in prop::collection::vec(any::<u16>(), 1..40), size in 1usize..10) {
        let halves: Vec<f16> = x.iter().map(|&b| f16::from_bits(b)).filter(|x| x.is_finite()).collect();
        let brains: Vec<bf16> = x.iter().map(|&b| bf16::from_bits(b)).filter(|x| x.is_finite()).collect();
        if !halves.is_empty() {
            let shape = shape(halves.len(), 5);
            contracts(&halves[..shape.iter().product()], shape, size, 1.0)?;
        }
        if !brains.is_empty() {
            let shape = shape(brains.len(), 5);
            contracts(&brains[..shape.iter().product()], shape, size, 1.0)?;
        }
    }

    #[test]
    fn k_means_is_never_worse_than_even_steps(x in tensors(), bits in 1u8..=8, group in 1usize..40) {
        no_worse_than_even_steps(&x, bits, group)?;
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x).powi(3)).collect();
        no_worse_than_even_steps(&wide, bits, group)?;
    }

    #[test]
    fn k_means_of_few_numbers_is_exact(few in prop::collection::vec(any_f32(), 1..17), at in prop::collection::vec(any::<prop::sample::Index>(), 1..200)) {
        let x: Vec<f32> = at.iter().map(|at| few[at.index(few.len())]).collect();
        prop_assert_eq!(KMeans::new(4).unwrap().quantize(&x).unwrap().dequantize::<f32>(), x);
    }

    #[test]
    fn numbers_of_a_format_come_back(codes in prop::collection::vec(any::<u8>(), 1..100), power in -100i32..100) {
        for format in [FloatFormat::E5m2, FloatFormat::E4m3, FloatFormat::E3m2, FloatFormat::E2m3, FloatFormat::E2m1] {
            let levels = format.levels();
            let mut x: Vec<f32> = codes.iter().map(|&c| levels[usize::from(c) % levels.len()] * 2f32.powi(power)).collect();
            x.push(format.largest() * 2f32.powi(power));
            // Not in groups: in one whose largest number has the highest mantissa of E4m3, an MX scale saturates.
            for float in [Minifloat::new(format), Minifloat::mx(format).per_channel(0)] {
                let q = float.quantize(TensorRef::new(&x, &[1, x.len()]).unwrap()).unwrap();
                let back: Vec<f32> = q.dequantize();
                prop_assert!(x.iter().zip(&back).all(|(x, y)| x.to_bits() == y.to_bits()), "{:?}", float);
            }
        }
    }
}

/// Sums of squares that `f32` cannot hold, more different numbers than are exact, and ones that lie together.
#[test]
fn large_tensors_are_never_worse_than_even_steps() {
    let n = 150_000;
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let even: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let bell: Vec<f32> = (0..n).map(|_| next() + next() + next()).collect();
    let mut outliers = bell.clone();
    outliers[17] = 3e38;
    outliers[18] = -1e10;
    let sizes: Vec<f32> = (0..n).map(|_| next() * (next() * 160.0).exp2()).collect();
    for x in [even, bell, outliers, sizes] {
        for bits in [1, 4, 8] {
            let (kmeans, minmax) = (KMeans::new(bits).unwrap(), MinMax::new(bits).unwrap());
            let (a, b) = (loss(&x, &kmeans.quantize(&x).unwrap()), loss(&x, &minmax.quantize(&x).unwrap()));
            assert!(a <= b * (1.0 + 1e-12), "{bits} bits: {a:e} for {b:e}");
        }
    }
}

#[test]
fn types_cross_threads() {
    fn assert<T: Send + Sync>() {}
    assert::<(KMeans, Table, Minifloat, FloatFormat)>();
    assert::<Box<dyn Quantizer<f32>>>();
}
