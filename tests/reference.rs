//! Against plain loops, over shapes that cross every boundary: tiles of 1,024 columns, chunks, words of masks, threads.

use lapidary::{Granularity, Grid, PrunerExt, QuantizerExt, TensorRef, prune::Magnitude, quant::MinMax};

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|i| if i % 13 == 5 { 0.0 } else { next() * [0.01, 1.0, 100.0][i % 3] }).collect()
}

/// The group of each element, by the definition of the granularity.
fn groups(shape: &[usize], granularity: Granularity) -> Vec<usize> {
    let cols = shape.last().copied().unwrap_or(1);
    let group = |i: usize| match granularity {
        Granularity::Channel { axis } => i / shape[axis + 1..].iter().product::<usize>() % shape[axis],
        Granularity::Group { size } => i / cols * cols.div_ceil(size) + i % cols / size,
        Granularity::Block { axis, size } => {
            let inner = shape[axis + 1..].iter().product::<usize>();
            let (outer, along) = (i / inner / shape[axis], i / inner % shape[axis]);
            (outer * shape[axis].div_ceil(size) + along / size) * inner + i % inner
        }
        _ => 0,
    };
    (0..shape.iter().product()).map(group).collect()
}

/// Codes, ranges, packed bytes, decoded values and the largest error, each from its formula.
fn check(shape: &[usize], x: &[f32], quantizer: MinMax) {
    let what = format!("{shape:?} {quantizer:?}");
    let groups = groups(shape, quantizer.granularity());
    let count = groups.iter().max().unwrap() + 1;
    let (mut low, mut high) = (vec![f64::INFINITY; count], vec![f64::NEG_INFINITY; count]);
    for (x, &g) in x.iter().zip(&groups) {
        low[g] = low[g].min(f64::from(*x));
        high[g] = high[g].max(f64::from(*x));
    }
    let bits = usize::from(quantizer.bits());
    let top = f64::from((1u32 << bits) - 1);
    let code = |(x, &g): (&f32, &usize)| {
        let range = high[g] - low[g];
        if range == 0.0 { 0 } else { ((f64::from(*x) - low[g]) / range * top).round_ties_even() as u16 }
    };
    let codes: Vec<u16> = x.iter().zip(&groups).map(code).collect();
    let value = |(&q, &g): (&u16, &usize)| match f64::from(q) {
        q if q == top => high[g] as f32,
        q => (low[g] + q * (high[g] - low[g]) / top) as f32,
    };
    let values: Vec<f32> = codes.iter().zip(&groups).map(value).collect();

    let tensor = TensorRef::new(x, shape).unwrap();
    let q = quantizer.quantize(&tensor).unwrap();
    let cols = shape.last().copied().unwrap_or(1);
    let row_bytes = (cols * bits).div_ceil(8);
    let unpacked = |i: usize| {
        let at = |k: usize| (i % cols * bits + k, i / cols * row_bytes);
        (0..bits).fold(0, |code, k| code | (q.packed()[at(k).1 + at(k).0 / 8] >> (at(k).0 % 8) & 1) << k)
    };
    assert!((0..x.len()).all(|i| u16::from(unpacked(i)) == codes[i]), "{what}: packed codes");
    assert_eq!(q.packed().len(), x.len() / cols * row_bytes, "{what}");
    assert!(q.codes() == codes, "{what}: codes");
    assert!(q.dequantize::<f32>() == values, "{what}: values");
    let Grid::MinMax { min, max } = q.grid() else { panic!("{what}") };
    assert_eq!((min.len(), max.len()), (count, count), "{what}");
    assert!((0..count).all(|g| (min.get(g), max.get(g)) == (Some(low[g]), Some(high[g]))), "{what}: ranges");
    let largest = x.iter().zip(&values).map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs()).fold(0.0, f64::max);
    assert_eq!(q.error(&tensor).unwrap().max_abs, largest, "{what}");
}

#[test]
fn min_max_of_any_shape() {
    let shapes: [&[usize]; 19] = [
        &[],
        &[1],
        &[7],
        &[1024],
        &[1025],
        &[2047, 1],
        &[1, 2049],
        &[3, 1023],
        &[5, 1029],
        &[2, 3, 1031],
        &[33, 1, 1025],
        &[4, 3, 2, 5],
        &[16, 8, 3, 3],
        &[40_000, 1],
        &[40_001, 3],
        &[2, 70_001],
        &[9, 4097],
        &[1, 1, 1],
        &[70_000],
    ];
    for shape in shapes {
        let x = numbers(shape.iter().product(), 7);
        for bits in 1..=8 {
            let minmax = MinMax::new(bits).unwrap();
            check(shape, &x, minmax);
            (0..shape.len()).for_each(|axis| check(shape, &x, minmax.per_channel(axis)));
            for size in [1, 3, 8, 100, 1000, 1024, 1500, usize::MAX] {
                check(shape, &x, minmax.per_group(size).unwrap());
            }
            for (axis, size) in (0..shape.len()).flat_map(|axis| [1, 2, 7, usize::MAX].map(|size| (axis, size))) {
                check(shape, &x, minmax.per_block(axis, size).unwrap());
            }
        }
    }
}

#[test]
fn magnitudes_of_any_length() {
    for n in [1usize, 63, 64, 65, 127, 128, 129, 32_767, 32_768, 32_769, 100_001] {
        let x: Vec<f32> = numbers(n, 3).iter().map(|x| (x * 8.0).round() / 8.0).collect();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| x[i].abs().total_cmp(&x[j].abs()).then(j.cmp(&i)));
        for k in [0, 1, n / 3, n / 2, n - 1, n] {
            let mut want = vec![true; n];
            order[..k].iter().for_each(|&i| want[i] = false);
            let mask = Magnitude::count(k).mask(&x).unwrap();
            assert!((0..n).all(|i| mask.get(i) == Some(want[i])), "{k} of {n}");
            let mut applied = x.clone();
            mask.apply(&mut applied).unwrap();
            assert!((0..n).all(|i| applied[i] == if want[i] { x[i] } else { 0.0 }), "{k} of {n}");
        }
    }
}
