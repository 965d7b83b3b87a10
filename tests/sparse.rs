//! Sparse matrices: what goes in comes out, products are their formula, wrong parts are refused.

use lapidary::{
    ErrorKind, Granularity, Grid, Mask, QTensor, TensorMut, TensorRef, Values,
    half::{bf16, f16},
    quant::Symmetric,
    sparse::{Aim, Chooser, Form, Kept, Parts, Sparse, Workspace},
};
use proptest::prelude::*;

const FORMS: [Form; 10] = [
    Form::Csr,
    Form::Bitmask,
    Form::Dense,
    Form::Blocks { height: 4, width: 4 },
    Form::Blocks { height: 16, width: 1 },
    Form::Blocks { height: 8, width: 1 },
    Form::Blocks { height: 1, width: 16 },
    Form::Blocks { height: 3, width: 5 },
    Form::Blocks { height: 2, width: 2 },
    Form::TwoOfFour,
];

/// The stored elements of each row, by the documents of the parts alone: column and place in `kept`.
fn stored(sparse: &Sparse) -> Vec<Vec<(usize, usize)>> {
    let [rows, cols] = sparse.shape();
    let mut all = vec![Vec::new(); rows];
    match sparse.parts() {
        Parts::Dense => (0..rows).for_each(|i| all[i] = (0..cols).map(|j| (j, i * cols + j)).collect()),
        Parts::Csr { offsets, columns } => {
            for (row, all) in all.iter_mut().enumerate() {
                *all = (offsets[row] as usize..offsets[row + 1] as usize).map(|k| (columns[k] as usize, k)).collect();
            }
        }
        Parts::Blocks { height, width, offsets, columns } => {
            for (row, all) in all.iter_mut().enumerate() {
                let blocks = offsets[row / height] as usize..offsets[row / height + 1] as usize;
                for (block, &across) in blocks.clone().zip(&columns[blocks]) {
                    for j in 0..width {
                        let column = across as usize * width + j;
                        if column < cols {
                            all.push((column, (block * height + row % height) * width + j));
                        }
                    }
                }
            }
        }
        Parts::Bitmask(mask) => mask.indices().enumerate().for_each(|(k, i)| all[i / cols].push((i % cols, k))),
        Parts::TwoOfFour { indices } => {
            let slots = cols / 4 * 2 + (cols % 4).min(2);
            for (row, all) in all.iter_mut().enumerate() {
                for k in 0..slots {
                    let index = indices[row * slots.div_ceil(4) + k / 4] >> (2 * (k % 4)) & 3;
                    all.push((k / 2 * 4 + usize::from(index), row * slots + k));
                }
            }
        }
        other => panic!("{other:?}"),
    }
    all
}

/// The formula, element by element.
fn formula(sparse: &Sparse, x: &[f32]) -> Vec<f32> {
    let kept = sparse.kept().to_vec::<f32>();
    let row = |(i, row): (usize, Vec<(usize, usize)>)| {
        let mut p = [0f32; 8];
        for (k, (column, place)) in row.into_iter().enumerate() {
            p[k % 8] += kept[place] * x[column];
        }
        let y = ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
        sparse.row_scales().map_or(y, |scale| y * scale[i])
    };
    stored(sparse).into_iter().enumerate().map(row).collect()
}

fn multiply(sparse: &Sparse, x: &[f32], batch: usize) -> Vec<f32> {
    let [rows, cols] = sparse.shape();
    let mut y = vec![f32::NAN; batch * rows];
    let x = TensorRef::new(x, &[batch, cols]).unwrap();
    sparse.multiply_into(x, TensorMut::new(&mut y, &[batch, rows]).unwrap(), &mut Workspace::default()).unwrap();
    y
}

/// Bits, but for those of a NaN.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

fn random(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    }
}

/// A matrix with about so many of a hundred elements not 0; at most two of four neighbours if `pairs`.
fn matrix(rows: usize, cols: usize, percent: u32, pairs: bool, seed: u64) -> Vec<f32> {
    let mut next = random(seed);
    let mut w: Vec<f32> = (0..rows * cols)
        .map(|_| {
            if next() % 100 < percent {
                (next() as f32 / 2f32.powi(31) - 1.0) * 2f32.powi((next() % 40) as i32 - 20)
            } else {
                0.0
            }
        })
        .collect();
    if pairs && cols > 0 {
        for row in w.chunks_mut(cols) {
            for four in row.chunks_mut(4) {
                let most = four.len().min(2);
                let over: Vec<_> = (0..four.len()).filter(|&j| four[j] != 0.0).skip(most).collect();
                over.into_iter().for_each(|j| four[j] = 0.0);
            }
        }
    }
    w
}

/// The same positions, and codes by chance of each kind of levels.
fn with_codes(sparse: &Sparse, seed: u64) -> Vec<Sparse> {
    let (shape, stored) = (sparse.shape(), sparse.stored());
    if stored == 0 {
        return Vec::new();
    }
    let mut next = random(seed);
    let mut numbers = {
        let mut next = random(!seed);
        move |count: usize| (0..count).map(|_| (next() % 1000 + 1) as f32 / 500.0).collect::<Vec<_>>()
    };
    let groups = |size: usize| stored.div_ceil(size);
    let cases = [
        (2, Granularity::Tensor, Grid::Affine { scale: Values::F32(numbers(1)).into(), zero_point: None }),
        (
            4,
            Granularity::Group { size: 32 },
            Grid::Affine { scale: Values::F32(numbers(groups(32))).into(), zero_point: Some(vec![7; groups(32)]) },
        ),
        (
            3,
            Granularity::Group { size: 7 },
            Grid::MinMax { min: Values::F32(vec![-1.0; groups(7)]), max: Values::F32(numbers(groups(7))) },
        ),
        (8, Granularity::Tensor, Grid::Codebook { levels: Values::F32(numbers(256)) }),
        (
            4,
            Granularity::Group { size: 64 },
            Grid::Scaled { levels: Values::F32(numbers(16)), scale: Values::F32(numbers(groups(64))).into() },
        ),
        (
            16,
            Granularity::Channel { axis: 0 },
            Grid::Affine { scale: Values::F32(numbers(stored)).into(), zero_point: Some(vec![30_000; stored]) },
        ),
    ];
    let with = |(bits, granularity, grid): (u8, Granularity, Grid)| {
        let codes: Vec<u16> = (0..stored).map(|_| (next() & ((1 << bits) - 1)) as u16).collect();
        let q = QTensor::from_codes(&[stored], bits, granularity, grid, &codes).unwrap();
        Sparse::from_parts(shape, sparse.parts(), q).unwrap()
    };
    cases.into_iter().map(with).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_goes_in_comes_out(rows in 0usize..40, cols in 0usize..90, percent in prop::sample::select(vec![0u32, 1, 10, 50, 100]), seed in any::<u64>()) {
        let w = matrix(rows, cols, percent, true, seed);
        let dense = TensorRef::new(&w, &[rows, cols]).unwrap();
        for form in FORMS {
            let sparse = Sparse::new(&dense, form).unwrap();
            prop_assert_eq!((sparse.form(), sparse.shape()), (form, [rows, cols]));
            prop_assert_eq!(bits(&sparse.to_dense::<f32>().unwrap()), bits(&w), "{:?}", form);
            let again = Sparse::from_parts([rows, cols], sparse.parts(), sparse.kept().clone()).unwrap();
            prop_assert_eq!(&again, &sparse);
            for other in FORMS {
                let other = sparse.to_form(other).unwrap();
                prop_assert_eq!(&other, &Sparse::new(&dense, other.form()).unwrap());
            }
        }
    }

    #[test]
    fn what_a_mask_keeps_comes_out_bit_by_bit(rows in 1usize..20, cols in 1usize..70, every in 2u32..9, seed in any::<u64>(), raw in prop::collection::vec(any::<u32>(), 1400)) {
        // Any bits: zeros of both signs, NaN with payloads, infinities, subnormals.
        let w: Vec<f32> = raw[..rows * cols].iter().map(|&bits| f32::from_bits(match bits % 7 { 0 => 0, 1 => 1 << 31, 2 => bits | 0x7f80_0000, _ => bits })).collect();
        let mut next = random(seed);
        let mask = Mask::from_fn(&[rows, cols], |i| i % cols % 4 < 2 && next().is_multiple_of(every)).unwrap();
        let mut want = w.clone();
        mask.apply(TensorMut::new(&mut want, &[rows, cols]).unwrap()).unwrap();
        let exact = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for form in FORMS {
            let sparse = Sparse::from_dense(TensorRef::new(&w, &[rows, cols]).unwrap(), &mask, form).unwrap();
            prop_assert_eq!(exact(&sparse.to_dense::<f32>().unwrap()), exact(&want), "{:?}", form);
            if matches!(form, Form::Csr | Form::Bitmask) {
                prop_assert_eq!(sparse.mask().unwrap(), mask.clone());
                prop_assert_eq!(sparse.stored(), mask.kept());
            }
        }
    }

    #[test]
    fn products_are_the_formula(rows in 1usize..40, cols in 1usize..200, percent in prop::sample::select(vec![0u32, 3, 10, 50, 100]), batch in 1usize..20, seed in any::<u64>()) {
        let w = matrix(rows, cols, percent, true, seed);
        let x = matrix(batch, cols, 90, false, !seed);
        for form in FORMS {
            let plain = Sparse::new(TensorRef::new(&w, &[rows, cols]).unwrap(), form).unwrap();
            let mut cases = vec![plain.clone()];
            cases.extend(with_codes(&plain, seed));
            cases.push(plain.quantize_rows(&Symmetric::new(4).unwrap()).unwrap());
            for sparse in cases {
                let y = multiply(&sparse, &x, batch);
                for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(rows)) {
                    prop_assert_eq!(bits(y), bits(&formula(&sparse, x)), "{:?} {:?}", form, sparse.kept());
                }
            }
        }
    }
}

#[test]
fn numbers_of_16_bits_are_widened() {
    let w = matrix(33, 70, 20, true, 3);
    let x = matrix(9, 70, 100, false, 4);
    let (half, upper): (Vec<f16>, Vec<bf16>) = w.iter().map(|&w| (f16::from_f32(w), bf16::from_f32(w))).unzip();
    for form in FORMS {
        let a = Sparse::new(TensorRef::new(&half, &[33, 70]).unwrap(), form).unwrap();
        let b = Sparse::new(TensorRef::new(&upper, &[33, 70]).unwrap(), form).unwrap();
        assert!(matches!((a.kept(), b.kept()), (Kept::F16(_), Kept::Bf16(_))));
        // Subnormal halves that round to 0 are not stored.
        assert_eq!(a.to_dense::<f16>().unwrap(), half);
        assert_eq!(b.to_dense::<bf16>().unwrap(), upper);
        for sparse in [a, b] {
            let y = multiply(&sparse, &x, 9);
            for (x, y) in x.chunks_exact(70).zip(y.chunks_exact(33)) {
                assert_eq!(bits(y), bits(&formula(&sparse, x)));
            }
        }
    }
}

#[test]
fn wide_and_long_rows() {
    // Columns in 32 bits; rows of more elements than are decoded at a time; rows without any.
    for (rows, cols, percent) in [(3, 70_000, 5), (2, 5000, 100), (5, 3001, 60), (70_000, 1, 50)] {
        let mut w = matrix(rows, cols, percent, true, 5);
        w[..cols].fill(0.0);
        let x = matrix(4, cols, 100, false, 6);
        for form in FORMS {
            let sparse = Sparse::new(TensorRef::new(&w, &[rows, cols]).unwrap(), form).unwrap();
            assert_eq!(bits(&sparse.to_dense::<f32>().unwrap()), bits(&w));
            for sparse in with_codes(&sparse, 1).into_iter().chain([sparse]) {
                for batch in [1, 4] {
                    let y = multiply(&sparse, &x[..batch * cols], batch);
                    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(rows)) {
                        assert_eq!(bits(y), bits(&formula(&sparse, x)), "{rows} x {cols} {form:?} {batch}");
                    }
                }
            }
        }
    }
}

/// The instruction set is the process's; the other tests do not mind.
#[cfg(feature = "rayon")]
#[test]
fn the_same_bits_everywhere() {
    use lapidary::Isa;
    let pools = [1, 2, 7].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for (rows, cols, percent) in [(1, 1, 100), (300, 1000, 40), (777, 333, 95)] {
        let w = matrix(rows, cols, percent, true, 7);
        let x = matrix(21, cols, 100, false, 8);
        for form in FORMS {
            let plain = Sparse::new(TensorRef::new(&w, &[rows, cols]).unwrap(), form).unwrap();
            let quantized = plain.quantize_rows(&Symmetric::new(4).unwrap()).unwrap();
            for sparse in [plain, quantized] {
                for batch in [1, 2, 21] {
                    let mut want = None;
                    for isa in Isa::available() {
                        isa.force();
                        for pool in &pools {
                            let y = pool.install(|| multiply(&sparse, &x[..batch * cols], batch));
                            let want = want.get_or_insert_with(|| bits(&y));
                            assert_eq!(bits(&y), *want, "{form:?} {} {batch}", isa.name());
                        }
                    }
                    let alone = formula(&sparse, &x[..cols]);
                    assert_eq!(bits(&alone), want.unwrap()[..rows]);
                }
            }
        }
    }
}

#[test]
fn bytes_are_counted() {
    let mut w = vec![0f32; 64 * 64];
    (0..64).for_each(|i| w[i * 64 + i] = 1.0);
    let size = |form| Sparse::new(TensorRef::new(&w, &[64, 64]).unwrap(), form).unwrap().byte_size();
    assert_eq!(size(Form::Dense), 4 * 4096);
    assert_eq!(size(Form::Csr), 64 * (4 + 2) + 65 * 4);
    assert_eq!(size(Form::Bitmask), 64 * 4 + 65 * 4 + 4096 / 8);
    assert_eq!(size(Form::Blocks { height: 4, width: 4 }), 16 * (16 * 4 + 2) + 17 * 4);
    assert_eq!(size(Form::TwoOfFour), 2048 * 4 + 2048 / 4);
    let sparse = Sparse::new(TensorRef::new(&w, &[64, 64]).unwrap(), Form::Bitmask).unwrap();
    let q = sparse.quantize_rows(&Symmetric::new(4).unwrap()).unwrap();
    assert_eq!(q.byte_size(), 32 + 4 + 64 * 4 + 65 * 4 + 512);
    assert_eq!(q.to_dense::<f32>().unwrap(), w);
}

/// 95 % zeros, 4-bit codes with a scale a row.
#[test]
fn a_bitmask_of_codes_is_25_times_smaller() {
    let mut next = random(9);
    let mask = Mask::from_fn(&[4096, 4096], |_| next().is_multiple_of(20)).unwrap();
    let kept: Vec<f32> = (0..mask.kept()).map(|_| next() as f32 / 2f32.powi(31) - 1.0).collect();
    let plain = Sparse::from_mask(&mask, kept, Form::Bitmask).unwrap();
    let sizes = [
        plain.quantize(&Symmetric::new(4).unwrap()),
        plain.quantize_rows(&Symmetric::new(4).unwrap()),
        plain.quantize(&Symmetric::new(4).unwrap().per_group(32).unwrap()),
    ];
    let ratios = sizes.map(|sparse| (4 << 24) as f64 / sparse.unwrap().byte_size() as f64);
    println!("bitmask and 4-bit codes at 95 % zeros, a scale, one a row, one a 32: {ratios:.2?} times smaller");
    assert!(ratios.iter().all(|&ratio| ratio >= 25.0), "{ratios:?}");
}

#[test]
fn zeros_leave_unless_a_mask_keeps_them() {
    let w = [0.0f32, -0.0, 1.0, 0.0];
    let dense = TensorRef::new(&w, &[1, 4]).unwrap();
    let sparse = Sparse::new(&dense, Form::Csr).unwrap();
    assert_eq!((sparse.stored(), bits(&sparse.to_dense::<f32>().unwrap())), (1, bits(&[0.0, 0.0, 1.0, 0.0])));
    let mask = Mask::from_fn(&[1, 4], |i| i > 0).unwrap();
    let sparse = Sparse::from_dense(&dense, &mask, Form::Csr).unwrap();
    assert_eq!((sparse.stored(), bits(&sparse.to_dense::<f32>().unwrap())), (3, bits(&w)));
    let nan = Sparse::new(TensorRef::new(&[f32::NAN, 0.0, f32::INFINITY, 0.0], &[2, 2]).unwrap(), Form::Csr).unwrap();
    assert_eq!(nan.stored(), 2);
    let y = multiply(&nan, &[1.0, 1.0], 1);
    assert!(y[0].is_nan() && y[1] == f32::INFINITY);
}

#[test]
fn codes_go_where_they_can_stay_in_order() {
    let w = matrix(8, 32, 20, true, 1);
    let plain = Sparse::new(TensorRef::new(&w, &[8, 32]).unwrap(), Form::Csr).unwrap();
    let q = plain.quantize_rows(&Symmetric::new(4).unwrap()).unwrap();
    let bitmask = q.to_form(Form::Bitmask).unwrap();
    assert_eq!((bitmask.kept(), bitmask.row_scales()), (q.kept(), q.row_scales()));
    assert_eq!(bitmask.to_form(Form::Csr).unwrap(), q);
    let error = q.to_form(Form::Blocks { height: 4, width: 4 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
    assert_eq!(q.quantize(&Symmetric::new(4).unwrap()).unwrap_err().kind(), ErrorKind::Argument);
    let empty = Sparse::new(TensorRef::new(&[0f32; 6], &[2, 3]).unwrap(), Form::Csr).unwrap();
    let empty = empty.quantize_rows(&Symmetric::new(4).unwrap()).unwrap();
    assert_eq!(multiply(&empty, &[1.0; 3], 1), [0.0; 2]);
}

#[test]
fn wrong_parts_are_refused() {
    use ErrorKind::{Argument, Shape};
    let kind = |shape, parts, kept: Vec<f32>| Sparse::from_parts(shape, parts, kept).unwrap_err().kind();
    let csr = |offsets: &[u32], columns: &[u32]| Parts::Csr { offsets: offsets.into(), columns: columns.into() };
    assert!(Sparse::from_parts([2, 3], csr(&[0, 1, 3], &[2, 0, 1]), vec![1.0; 3]).is_ok());
    assert_eq!(kind([2, 3], csr(&[0, 1], &[2]), vec![1.0]), Shape);
    assert_eq!(kind([2, 3], csr(&[], &[]), vec![]), Shape);
    assert_eq!(kind([2, 3], csr(&[1, 1, 3], &[2, 0, 1]), vec![1.0; 3]), Argument);
    assert_eq!(kind([2, 3], csr(&[0, 4, 3], &[2, 0, 1]), vec![1.0; 3]), Argument);
    assert_eq!(kind([2, 3], csr(&[0, 1, u32::MAX], &[2, 0, 1]), vec![1.0; 3]), Shape);
    assert_eq!(kind([2, 3], csr(&[0, 1, 3], &[2, 0, 3]), vec![1.0; 3]), Argument);
    assert_eq!(kind([2, 3], csr(&[0, 1, 3], &[2, 1, 1]), vec![1.0; 3]), Argument);
    assert_eq!(kind([2, 3], csr(&[0, 1, 3], &[2, 1, 0]), vec![1.0; 3]), Argument);
    assert_eq!(kind([2, 3], csr(&[0, 1, 3], &[2, 0, 1]), vec![1.0; 2]), Shape);
    assert_eq!(kind([usize::MAX, 3], csr(&[0], &[]), vec![]), Argument);
    assert_eq!(kind([usize::MAX, 0], csr(&[0], &[]), vec![]), Shape);
    let blocks = |height, width, offsets: &[u32], columns: &[u32]| Parts::Blocks {
        height,
        width,
        offsets: offsets.into(),
        columns: columns.into(),
    };
    assert!(Sparse::from_parts([3, 5], blocks(2, 2, &[0, 1, 2], &[2, 0]), vec![1.0; 8]).is_ok());
    assert_eq!(kind([3, 5], blocks(0, 2, &[0, 1, 2], &[2, 0]), vec![1.0; 8]), Argument);
    assert_eq!(kind([3, 5], blocks(2, 33, &[0, 1, 2], &[0, 0]), vec![1.0; 132]), Argument);
    assert_eq!(kind([3, 5], blocks(2, 2, &[0, 1, 2], &[3, 0]), vec![1.0; 8]), Argument);
    assert_eq!(kind([3, 5], blocks(2, 2, &[0, 1, 1, 2], &[2, 0]), vec![1.0; 8]), Shape);
    assert_eq!(kind([3, 5], blocks(2, 2, &[0, 1, 2], &[2, 0]), vec![1.0; 7]), Shape);
    let pairs = |indices: &[u8]| Parts::TwoOfFour { indices: indices.into() };
    assert!(Sparse::from_parts([1, 5], pairs(&[0b00_11_01]), vec![1.0; 3]).is_ok());
    assert_eq!(kind([1, 5], pairs(&[0b00_01_01]), vec![1.0; 3]), Argument);
    assert_eq!(kind([1, 5], pairs(&[0b01_11_01]), vec![1.0; 3]), Argument);
    assert_eq!(kind([1, 5], pairs(&[0b0100_1101]), vec![1.0; 3]), Argument);
    assert_eq!(kind([1, 5], pairs(&[0b00_11_01, 0]), vec![1.0; 3]), Shape);
    assert_eq!(kind([usize::MAX / 2, 2], pairs(&[]), vec![]), Shape);
    assert_eq!(kind([1, 5], pairs(&[0b00_11_01]), vec![1.0; 4]), Shape);
    let mask = || Mask::keep_all(&[2, 2]).unwrap();
    assert_eq!(kind([4, 1], Parts::Bitmask(mask()), vec![1.0; 4]), Shape);
    assert_eq!(kind([2, 2], Parts::Bitmask(mask()), vec![1.0; 3]), Shape);
    assert_eq!(kind([2, 2], Parts::Dense, vec![1.0; 3]), Shape);
    // Codes of another shape.
    let grid = Grid::Affine { scale: Values::F32(vec![1.0]).into(), zero_point: None };
    let q = QTensor::from_codes(&[2, 2], 4, Granularity::Tensor, grid, &[0u8; 4]).unwrap();
    assert_eq!(Sparse::from_parts([2, 2], Parts::Dense, q).unwrap_err().kind(), Shape);
}

#[test]
fn wrong_arguments_are_refused() {
    let w = matrix(4, 8, 30, true, 2);
    let sparse = Sparse::new(TensorRef::new(&w, &[4, 8]).unwrap(), Form::Csr).unwrap();
    let mut y = [7f32; 4];
    let run = |x: &[f32], y: &mut [f32]| sparse.multiply_into(x, y, &mut Workspace::default());
    assert_eq!(run(&[0.0; 7], &mut y).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(run(&[0.0; 8], &mut y[..3]).unwrap_err().kind(), ErrorKind::Shape);
    let error = run(&[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0], &mut y).unwrap_err();
    assert_eq!((error.kind(), error.index(), y), (ErrorKind::NonFinite, Some(2), [7.0; 4]));
    assert!(Sparse::new(&w, Form::Csr).is_err(), "one axis");
    let ones = [1f32; 8];
    let error = Sparse::new(TensorRef::new(&ones, &[1, 8]).unwrap(), Form::TwoOfFour).unwrap_err();
    assert!(error.to_string().contains("row 0 from column 0"), "{error}");
    for (height, width) in [(0, 1), (1, 0), (33, 1), (1, 33)] {
        let form = Form::Blocks { height, width };
        assert!(Sparse::new(TensorRef::new(&ones, &[1, 8]).unwrap(), form).is_err());
    }
    assert!(sparse.clone().with_row_scales(vec![1.0; 3]).is_err());
    assert!(sparse.with_row_scales(vec![1.0, f32::NAN, 1.0, 1.0]).is_err());
    // Rows or inputs that are not there.
    for shape in [[0, 5], [5, 0], [0, 0]] {
        for form in FORMS {
            let none = Sparse::new(TensorRef::new(&[0f32; 0], &shape).unwrap(), form).unwrap();
            assert_eq!(multiply(&none, &vec![1.0; 3 * shape[1]], 3), vec![0.0; 3 * shape[0]]);
        }
    }
}

#[test]
fn what_lies_beyond_the_edge_is_not_read() {
    // Blocks at the edge hold NaN where the matrix has ended.
    for (height, width) in [(4, 4), (3, 5), (2, 2), (1, 16), (16, 1), (8, 1), (32, 32)] {
        let mut kept = vec![f32::NAN; height * width];
        kept[0] = 2.0;
        let parts = Parts::Blocks { height, width, offsets: vec![0, 1], columns: vec![0] };
        let sparse = Sparse::from_parts([1, 1], parts, kept).unwrap();
        assert_eq!(sparse.to_dense::<f32>().unwrap(), [2.0]);
        for batch in [1, 5] {
            assert_eq!(multiply(&sparse, &vec![3.0; batch], batch), vec![6.0; batch]);
        }
    }
}

/// Zeros are what the form has there; nothing of what was there counts for levels or scales.
#[test]
fn what_lies_beyond_the_edge_does_not_count() {
    let parts = || Parts::Blocks { height: 2, width: 2, offsets: vec![0, 1, 2], columns: vec![0, 1] };
    let inside = [1.0f32, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0];
    let clean = Sparse::from_parts([3, 3], parts(), inside.to_vec()).unwrap();
    let symmetric = Symmetric::new(8).unwrap();
    for beyond in [1e30f32, f32::INFINITY, f32::NAN] {
        let mut kept = inside;
        kept[5..].fill(beyond);
        let sparse = Sparse::from_parts([3, 3], parts(), kept.to_vec()).unwrap();
        assert_eq!(sparse, clean);
        assert_eq!(sparse.quantize(&symmetric).unwrap(), clean.quantize(&symmetric).unwrap());
        assert_eq!(sparse.quantize_rows(&symmetric).unwrap(), clean.quantize_rows(&symmetric).unwrap());
        let half = kept.map(bf16::from_f32);
        let clean = Sparse::from_parts([3, 3], parts(), inside.map(bf16::from_f32).to_vec()).unwrap();
        assert_eq!(Sparse::from_parts([3, 3], parts(), half.to_vec()).unwrap(), clean);
    }
    // Codes that are quantized again.
    let grid = || Grid::Affine { scale: Values::F32(vec![1.0]).into(), zero_point: Some(vec![0]) };
    let codes = |codes: &[u8]| QTensor::from_codes(&[8], 8, Granularity::Tensor, grid(), codes).unwrap();
    let sparse = Sparse::from_parts([3, 3], parts(), codes(&[1, 2, 3, 4, 5, 255, 255, 255])).unwrap();
    let clean = Sparse::from_parts([3, 3], parts(), codes(&[1, 2, 3, 4, 5, 0, 0, 0])).unwrap();
    assert_eq!(sparse.quantize(&symmetric).unwrap(), clean.quantize(&symmetric).unwrap());
}

/// Shapes that few parts can have and no memory holds.
#[test]
fn huge_shapes_are_an_error_where_they_do_not_fit() {
    let csr = |offsets: &[u32], columns: &[u32]| Parts::Csr { offsets: offsets.into(), columns: columns.into() };
    let wide = Sparse::from_parts([1, 1 << 61], csr(&[0, 1], &[5]), vec![1.0]).unwrap();
    assert_eq!(wide.to_dense::<f32>().unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(wide.to_dense::<f16>().unwrap_err().kind(), ErrorKind::Argument);
    for form in FORMS {
        assert!(form == Form::Csr || wide.to_form(form).is_err(), "{form:?}");
    }
    // No vector of so many inputs, and none is needed.
    let none = TensorRef::new(&[0f32; 0], &[0, 1 << 61]).unwrap();
    let y = TensorMut::new(&mut [], &[0, 1]).unwrap();
    wide.multiply_into(none, y, &mut Workspace::default()).unwrap();
    for form in FORMS {
        for shape in [[usize::MAX, 0], [0, usize::MAX]] {
            let Ok(sparse) = Sparse::new(TensorRef::new(&[0f32; 0], &shape).unwrap(), form) else { continue };
            assert_eq!(sparse.to_dense::<f32>().unwrap(), [0f32; 0]);
            assert_eq!(Sparse::from_parts(shape, sparse.parts(), vec![0f32; 0]).unwrap(), sparse);
            let rows = sparse.quantize_rows(&Symmetric::new(4).unwrap());
            assert_eq!(rows.is_ok(), shape[0] == 0);
        }
        let tall = Sparse::new(TensorRef::new(&[0f32; 0], &[usize::MAX, 0]).unwrap(), form);
        assert_eq!(tall.is_ok(), matches!(form, Form::Dense | Form::TwoOfFour), "{form:?}");
        let long = Sparse::new(TensorRef::new(&[0f32; 0], &[0, usize::MAX]).unwrap(), form);
        assert!(long.is_ok(), "{form:?}");
    }
}

/// 2²² blocks of one element and 1,023 zeros: too many to be stored, and refused before there is room for them.
#[test]
fn blocks_of_too_many_zeros_are_refused() {
    let mask = Mask::from_fn(&[1, 1 << 27], |i| i % 32 == 7).unwrap();
    let form = Form::Blocks { height: 32, width: 32 };
    let error = Sparse::from_mask(&mask, vec![1f32; 1 << 22], form).unwrap_err();
    assert_eq!(error.to_string(), "stored elements is 4294967296, must be less than 2^32 - 1");
}

#[test]
fn the_best_form_is_chosen_and_the_reason_told() {
    let mut next = random(3);
    let mut matrix = |percent: u32| {
        let w: Vec<f32> = (0..256 * 256).map(|_| if next() % 100 < percent { 1.0 } else { 0.0 }).collect();
        Sparse::new(TensorRef::new(&w, &[256, 256]).unwrap(), Form::Csr).unwrap()
    };
    let (few, some, most) = (matrix(1), matrix(20), matrix(90));
    let chosen = |aim, sparse: &Sparse| Chooser::new(aim).choose(sparse).unwrap().sparse.form();
    assert_eq!(chosen(Aim::Smallest, &few), Form::Csr, "a bit for each element is more than 16 for one in a hundred");
    assert_eq!(chosen(Aim::Smallest, &some), Form::Bitmask);
    assert_eq!(chosen(Aim::Smallest, &most), Form::Bitmask);
    assert_eq!(chosen(Aim::Fastest, &few), Form::Csr);
    assert_eq!(chosen(Aim::Fastest, &most), Form::Dense);
    // Codes are so small that bits are cheaper than columns for fewer of them.
    let symmetric = Symmetric::new(4).unwrap();
    let choice = Chooser::new(Aim::Smallest).with_quantizer(&symmetric).choose(&some).unwrap();
    assert!(matches!(choice.sparse.kept(), Kept::Quantized(_)) && choice.sparse.form() == Form::Bitmask);
    assert_eq!(choice.candidates[0].bytes, choice.sparse.byte_size());
    assert!(choice.candidates.windows(2).all(|pair| pair[0].bytes <= pair[1].bytes));
    assert_eq!((choice.refused.len(), choice.refused[0].0), (1, Form::TwoOfFour));
    assert!(choice.to_string().starts_with("Bitmask is the smallest for 1 vector,"), "{choice}");
    assert!(choice.slimmed.is_none());
    // Where rows and columns are zero, a smaller dense matrix is told of.
    let w: Vec<f32> =
        (0..64 * 96).map(|i| if i / 96 % 2 == 0 && i % 96 % 3 == 0 { 1.0 + i as f32 } else { 0.0 }).collect();
    let choice = Chooser::new(Aim::Smallest)
        .choose(&Sparse::new(TensorRef::new(&w, &[64, 96]).unwrap(), Form::Csr).unwrap())
        .unwrap();
    let slimmed = choice.slimmed.unwrap();
    assert_eq!((slimmed.shape, slimmed.bytes), ([32, 32], 32 * 32 * 4));
    assert!(slimmed.seconds > 0.0 && choice.to_string().contains("slimmed to 32 x 32: 4096 bytes"), "{choice}");
    // In blocks.
    let w: Vec<f32> =
        (0..256 * 256).map(|i| if (i / 256 / 16 * 256 + i % 256) % 10 == 0 { 1.0 } else { 0.0 }).collect();
    let blocks = Sparse::new(TensorRef::new(&w, &[256, 256]).unwrap(), Form::Csr).unwrap();
    let tall = Form::Blocks { height: 16, width: 1 };
    assert_eq!((chosen(Aim::Fastest, &blocks), chosen(Aim::Smallest, &blocks)), (tall, tall));
    let measured = Chooser::new(Aim::Fastest).with_batch(9).unwrap().with_measurement().choose(&blocks).unwrap();
    assert!(measured.candidates.iter().all(|candidate| candidate.seconds > 0.0));
    assert!(measured.candidates.is_sorted_by(|a, b| a.seconds <= b.seconds));
    assert_eq!(measured.sparse.to_dense::<f32>().unwrap(), w);
    assert!(Chooser::new(Aim::Fastest).with_batch(0).is_err());
    let error = Chooser::new(Aim::Fastest).with_batch(usize::MAX).unwrap().with_measurement().choose(&blocks);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Argument);
}

/// A network for the digits, the smallest nine tenths of its weights pruned and the others in 4 bits.
#[cfg(feature = "entropy")]
#[test]
fn coded_files_are_smaller() {
    use flate2::read::GzDecoder;
    use lapidary::format::packed::{self, Packed, Stored};
    use std::io::Read;

    let mut bytes = Vec::new();
    let data = &include_bytes!("../examples/data/digits_mlp.f32.gz")[..];
    GzDecoder::new(data).read_to_end(&mut bytes).unwrap();
    let all: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mut rest = &all[..];
    let mut layers = Vec::new();
    for shape in [[300, 64], [100, 300], [10, 100]] {
        let (weights, after) = rest.split_at(shape[0] * shape[1]);
        layers.push((shape, weights));
        rest = &after[shape[0]..];
    }
    assert!(rest.is_empty());
    let mut sizes: Vec<f32> = layers.iter().flat_map(|(_, weights)| weights.iter().map(|w| w.abs())).collect();
    sizes.sort_by(f32::total_cmp);
    let least = sizes[sizes.len() / 10 * 9];
    let tensors: Vec<Packed> = (0..)
        .zip(&layers)
        .map(|(i, (shape, weights))| {
            let mask = Mask::from_fn(shape, |i| weights[i].abs() >= least).unwrap();
            let sparse = Sparse::from_dense(TensorRef::new(weights, shape).unwrap(), &mask, Form::Csr).unwrap();
            let Kept::Quantized(q) = sparse.quantize(&Symmetric::new(4).unwrap()).unwrap().kept().clone() else {
                panic!()
            };
            Packed::sparse(format!("{i}.weight"), mask, Stored::Quantized(q)).unwrap()
        })
        .collect();
    let (plain, coded) = (packed::encode(&tensors).unwrap(), packed::encode_smallest(&tensors).unwrap());
    assert_eq!(packed::decode(&coded).unwrap(), tensors);
    println!("digits, a tenth kept in 4 bits: {} bytes by Rice codes, {} by the range coder", plain.len(), coded.len());
    assert!(coded.len() * 5 < plain.len() * 4, "{} and {}", coded.len(), plain.len());
}
