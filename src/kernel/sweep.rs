//! Rounding the columns of a matrix one after another, each correcting those that follow: the inner loops of GPTQ and
//! SparseGPT.
//!
//! A strip is a few rows side by side, one number of each for a column, so that a vector runs over rows and no sum is
//! taken across it.

use super::{
    affine::{self, AffineGroups},
    bits::WORD,
    grid::{Even, EvenGroups, Few, Level, Levels, Listed, Numbers, Scaled},
    isa::Kernel,
    rows::{Code, Codes, Groups, Layout},
};
use crate::element::{Element, Real};
use std::ops::Range;

/// Rows of a strip.
pub(crate) const LANES: usize = 8;

/// A number of each row of a strip.
pub(crate) type Lanes = [f64; LANES];

/// Columns corrected at a time.
const COLUMNS: usize = 4;

/// What takes the place of a weight.
pub(crate) trait Rounding: Copy + Send + Sync {
    /// For `w`, the corrected weight of a row and a column of the tensor.
    fn level(&self, row: usize, col: usize, w: f64) -> f64;
}

/// 0 where an element is pruned; where it is kept the nearest level, or without levels the weight as its type stores
/// it.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a, T: Element> {
    /// The bits of all elements of the tensor.
    pub(crate) words: &'a [u64],
    pub(crate) cols: usize,
    pub(crate) levels: Option<ToLevels<'a, T::Real>>,
}

impl<T: Element> Rounding for Kept<'_, T> {
    #[inline(always)]
    fn level(&self, row: usize, col: usize, w: f64) -> f64 {
        let index = row * self.cols + col;
        match (self.words[index / WORD] >> (index % WORD) & 1, &self.levels) {
            (0, _) => 0.0,
            (_, Some(levels)) => levels.level(row, col, w),
            (_, None) => limited::<T>(w).to_f64(),
        }
    }
}

/// The nearest level of the element's group.
#[derive(Clone, Copy)]
pub(crate) struct ToLevels<'a, R> {
    pub(crate) nearest: Nearest<'a, R>,
    pub(crate) layout: Layout,
}

impl<R: Real> Rounding for ToLevels<'_, R> {
    #[inline(always)]
    fn level(&self, row: usize, col: usize, w: f64) -> f64 {
        self.nearest.level(group(&self.layout, row, col), limited::<R>(w)).to_f64()
    }
}

/// The levels of all groups of a tensor, to round to.
#[derive(Clone, Copy)]
pub(crate) enum Nearest<'a, R> {
    Affine {
        groups: AffineGroups<'a, R>,
        scales: Numbers<'a>,
    },
    Even(EvenGroups<'a>),
    /// Any levels of codes of so many bits, one after another.
    Any(Levels<'a>, u32),
}

impl<R: Real> Nearest<'_, R> {
    /// The value of the code of `x` in a group.
    #[inline(always)]
    fn level(&self, group: usize, x: R) -> R {
        match self {
            Self::Affine { groups, scales } => {
                let code = Codes::<R>::of(groups, group).code(x);
                let zero = affine::zero(groups.zeros, group, groups.bits);
                let mut level = [R::zero()];
                affine::levels(*scales, group, zero, &[code], &mut level);
                level[0]
            }
            Self::Even(groups) => {
                let even = Codes::<R>::of(groups, group);
                even.level(Code::<R>::code(&even, x) as u8)
            }
            Self::Any(levels, bits) => {
                let mut nearest = (f64::INFINITY, R::zero());
                for code in 0..1u32 << bits {
                    let level = value::<R>(levels, *bits, group, code as u16);
                    // Halves, so that no difference overflows.
                    let distance = (level.to_f64() / 2.0 - x.to_f64() / 2.0).abs();
                    if distance < nearest.0 {
                        nearest = (distance, level);
                    }
                }
                nearest.1
            }
        }
    }
}

/// The value of a code.
#[inline(always)]
fn value<R: Real>(levels: &Levels<'_>, bits: u32, group: usize, code: u16) -> R {
    match *levels {
        Levels::Affine { scales, zeros } => {
            let mut level = [R::zero()];
            affine::levels(scales, group, affine::zero(zeros, group, bits), &[code], &mut level);
            level[0]
        }
        Levels::Few(Few::Even { min, max }) => Even::new(min.get(group), max.get(group), bits).level(code as u8),
        Levels::Few(Few::Table(all)) => Listed { all, first: group << bits }.level(code as u8),
        Levels::Few(Few::Scaled { table, scales }) => Scaled { table, scale: scales.get(group) }.level(code as u8),
    }
}

/// The group of an element of a matrix.
#[inline(always)]
fn group(layout: &Layout, row: usize, col: usize) -> usize {
    match layout.groups {
        Groups::Whole => 0,
        Groups::Rows { repeat, count } => row / repeat % count,
        Groups::Columns { .. } => layout.first_column(row) + col,
        Groups::Blocks { size } => row * layout.cols.div_ceil(size) + col / size,
    }
}

/// How the error of a column passes on: `U` with `H⁻¹ = Uᵀ U`, as the rows of its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    /// `U[i][j]` is at `j * size + i`; those with `i > j` are not read.
    pub(crate) values: &'a [f64],
    pub(crate) size: usize,
}

impl<'a> Factor<'a> {
    /// `U[i][column]` for all `i` up to and with `column`.
    #[inline(always)]
    fn column(&self, column: usize) -> &'a [f64] {
        &self.values[column * self.size..][..=column]
    }
}

/// `w[j] = w[j] - Σ_i errors[i] * U[i][j]`, `i` in its order, for columns `j` from `first` on; the `errors` are those
/// of the columns from `from` on.
pub(crate) struct Correct<'a> {
    pub(crate) columns: &'a mut [Lanes],
    pub(crate) first: usize,
    pub(crate) errors: &'a [Lanes],
    pub(crate) from: usize,
    pub(crate) factor: Factor<'a>,
}

impl Kernel for Correct<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { columns, first, errors, from, factor } = self;
        for (block, columns) in columns.chunks_mut(COLUMNS).enumerate() {
            let first = first + block * COLUMNS;
            if let [a, b, c, d] = columns {
                let [fa, fb, fc, fd] = [0, 1, 2, 3].map(|j| &factor.column(first + j)[from..]);
                for ((((error, fa), fb), fc), fd) in errors.iter().zip(fa).zip(fb).zip(fc).zip(fd) {
                    subtract(a, error, *fa);
                    subtract(b, error, *fb);
                    subtract(c, error, *fc);
                    subtract(d, error, *fd);
                }
            } else {
                for (j, column) in columns.iter_mut().enumerate() {
                    for (error, &factor) in errors.iter().zip(&factor.column(first + j)[from..]) {
                        subtract(column, error, factor);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn subtract(column: &mut Lanes, error: &Lanes, factor: f64) {
    for (w, e) in column.iter_mut().zip(error) {
        *w -= e * factor;
    }
}

/// Rounds columns in turn, each corrected by the errors of those before it in the same range:
///
/// ```text
/// w[j] = w[j] - Σ_{range.start <= i < j} errors[i] * U[i][j]
/// level = what takes the place of w[j]
/// errors[j] = (w[j] - level) / U[j][j];  w[j] = level
/// ```
pub(crate) struct Sweep<'a, O> {
    pub(crate) columns: &'a mut [Lanes],
    pub(crate) errors: &'a mut [Lanes],
    pub(crate) range: Range<usize>,
    pub(crate) factor: Factor<'a>,
    /// The column of the tensor that each of all is.
    pub(crate) order: &'a [usize],
    pub(crate) rounding: O,
    /// The rows of the tensor that the strip has, some of [`LANES`]; the others repeat the last.
    pub(crate) rows: Range<usize>,
}

impl<O: Rounding> Kernel for Sweep<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { columns, errors, range, factor, order, rounding, rows } = self;
        let last = rows.end.saturating_sub(1);
        for (at, j) in range.clone().enumerate() {
            let factors = factor.column(j);
            let column = &mut columns[at];
            for (error, &factor) in errors[..at].iter().zip(&factors[range.start..j]) {
                subtract(column, error, factor);
            }
            let diagonal = factors[j];
            for (lane, (w, error)) in column.iter_mut().zip(&mut errors[at]).enumerate() {
                let level = rounding.level(last.min(rows.start + lane), order[j], *w);
                *error = (*w - level) / diagonal;
                *w = level;
            }
        }
    }
}

/// Narrowed, and no further out than the largest number, also where it is NaN.
#[inline(always)]
pub(crate) fn limited<T: Element>(x: f64) -> T {
    let x = if x < T::LARGEST { x } else { T::LARGEST };
    let x = if x > -T::LARGEST { x } else { -T::LARGEST };
    T::from_f64(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 11;

    fn factor() -> Vec<f64> {
        (0..SIZE * SIZE).map(|i| if i % (SIZE + 1) == 0 { 2.0 } else { ((i * 37 % 17) as f64 - 8.0) / 16.0 }).collect()
    }

    /// The same, column by column, each error passed on at once.
    fn plain(mut w: Vec<f32>, u: &[f64], scale: f32) -> Vec<f32> {
        let mut work: Vec<f64> = w.iter().map(|&w| w.into()).collect();
        for i in 0..SIZE {
            w[i] = (work[i] as f32 / scale).round_ties_even().clamp(-4.0, 3.0) * scale;
            let error = (work[i] - f64::from(w[i])) / u[i * SIZE + i];
            (i + 1..SIZE).for_each(|j| work[j] -= error * u[j * SIZE + i]);
        }
        w
    }

    #[test]
    fn pieces_of_any_length_give_what_a_plain_loop_gives() {
        let values = factor();
        let factor = Factor { values: &values, size: SIZE };
        let rows: Vec<Vec<f32>> =
            (0..5).map(|r| (0..SIZE).map(|c| ((r * 13 + c * 29) % 31) as f32 / 4.0 - 3.7).collect()).collect();
        let scales = [0.5f32, 0.75, 1.0, 1.25, 1.5];
        let groups = AffineGroups { scales: &scales, zeros: None, bits: 3, least: 0 };
        let layout = Layout { cols: SIZE, bits: 3, groups: Groups::Rows { repeat: 1, count: 5 } };
        let order: Vec<usize> = (0..SIZE).collect();
        for length in 1..=SIZE {
            let mut columns = vec![[0.0; LANES]; SIZE];
            for (c, column) in columns.iter_mut().enumerate() {
                rows.iter().zip(column).for_each(|(row, x)| *x = row[c].into());
            }
            let mut errors = vec![[0.0; LANES]; SIZE];
            for start in (0..SIZE).step_by(length) {
                let range = start..SIZE.min(start + length);
                let (done, ahead) = errors.split_at_mut(start);
                let columns = &mut columns[range.clone()];
                // In two pieces, as a block of several turns has them.
                let from = start / 2;
                Correct { columns: &mut *columns, first: start, errors: &done[..from], from: 0, factor }.run();
                Correct { columns: &mut *columns, first: start, errors: &done[from..], from, factor }.run();
                let rounding = ToLevels { nearest: Nearest::Affine { groups, scales: Numbers::F32(&scales) }, layout };
                let errors = &mut ahead[..range.len()];
                Sweep { columns, errors, range, factor, order: &order, rounding, rows: 0..5 }.run();
            }
            for (r, row) in rows.iter().enumerate() {
                let got: Vec<f32> = columns.iter().map(|column| column[r] as f32).collect();
                assert_eq!(got, plain(row.clone(), &values, scales[r]), "{length} {r}");
            }
        }
    }

    #[test]
    fn what_overflows_is_limited() {
        assert_eq!([1e300, -1e300, 0.5, f64::INFINITY].map(limited::<f32>), [f32::MAX, f32::MIN, 0.5, f32::MAX]);
        assert!(limited::<f32>(f64::NAN).abs() <= f32::MAX);
    }
}
