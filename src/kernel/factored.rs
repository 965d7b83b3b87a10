//! The squares of a gradient matrix kept as the means of its rows and columns, and updates by them.

use super::{
    grad::GradRef,
    isa::{Isa, Kernel},
    parallel::{GRAIN, Work, execute},
    random::Rounding,
};
use crate::element::{Element, Real};

/// A gradient matrix of `cols` columns. Its first element is the one at `offset` of the mask's words, where there
/// is a mask; a pruned element counts as 0.
#[derive(Clone, Copy)]
pub(crate) struct Gradients<'a, R> {
    pub(crate) values: GradRef<'a, R>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) keep: Option<&'a [u64]>,
    pub(crate) offset: usize,
}

impl<R: Real> Gradients<'_, R> {
    #[inline(always)]
    fn at(&self, index: usize) -> R {
        if self.kept(index) { self.values.at(index) } else { R::zero() }
    }

    #[inline(always)]
    fn kept(&self, index: usize) -> bool {
        let bit = self.offset + index;
        self.keep.is_none_or(|words| words[bit / 64] >> (bit % 64) & 1 == 1)
    }

    #[inline(always)]
    fn square(&self, index: usize) -> f64 {
        let g = self.at(index).to_f64();
        g * g
    }

    fn split_rows(self, mid: usize) -> (Self, Self) {
        let (left, right) = self.values.split_at(mid * self.cols);
        let offset = self.offset + mid * self.cols;
        (Self { values: left, rows: mid, ..self }, Self { values: right, rows: self.rows - mid, offset, ..self })
    }
}

/// Moves each of `mean` towards the mean of its row's squares, by `rest`.
pub(crate) fn average_rows<R: Real>(grads: Gradients<'_, R>, mean: &mut [R], rest: f64) {
    execute(Rows { grads, mean, rest });
}

#[inline(always)]
fn moved<R: Real>(mean: R, fresh: f64, rest: f64) -> R {
    let mean = mean.to_f64();
    R::from_f64(mean + rest * (fresh - mean))
}

struct Rows<'a, R> {
    grads: Gradients<'a, R>,
    mean: &'a mut [R],
    rest: f64,
}

impl<R: Real> Work for Rows<'_, R> {
    type Output = ();

    fn len(&self) -> usize {
        self.mean.len()
    }

    fn chunk(&self) -> usize {
        (GRAIN / self.grads.cols).max(1)
    }

    fn elements(&self) -> usize {
        self.grads.rows * self.grads.cols
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (grads, grads_right) = self.grads.split_rows(mid);
        let (mean, mean_right) = self.mean.split_at_mut(mid);
        (Self { grads, mean, rest: self.rest }, Self { grads: grads_right, mean: mean_right, rest: self.rest })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<R: Real> Kernel for Rows<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let cols = self.grads.cols;
        for (row, mean) in self.mean.iter_mut().enumerate() {
            let squares = (row * cols..(row + 1) * cols).map(|i| self.grads.square(i));
            *mean = moved(*mean, squares.fold(0.0, |a, b| a + b) / cols as f64, self.rest);
        }
    }
}

/// Moves each of `mean` towards the mean of its column's squares, by `rest`.
pub(crate) fn average_columns<R: Real>(grads: Gradients<'_, R>, mean: &mut [R], rest: f64) {
    execute(Columns { grads, first: 0, mean, rest });
}

struct Columns<'a, R> {
    grads: Gradients<'a, R>,
    first: usize,
    mean: &'a mut [R],
    rest: f64,
}

/// Columns whose sums stand side by side.
const STRIPE: usize = 64;

impl<R: Real> Work for Columns<'_, R> {
    type Output = ();

    fn len(&self) -> usize {
        self.mean.len()
    }

    fn chunk(&self) -> usize {
        (GRAIN / self.grads.rows.max(1)).next_multiple_of(STRIPE).max(STRIPE)
    }

    fn elements(&self) -> usize {
        self.mean.len() * self.grads.rows
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { grads, first, rest, .. } = self;
        let (mean, mean_right) = self.mean.split_at_mut(mid);
        (Self { grads, first, mean, rest }, Self { grads, first: first + mid, mean: mean_right, rest })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<R: Real> Kernel for Columns<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let rows = self.grads.rows;
        for (stripe, mean) in self.mean.chunks_mut(STRIPE).enumerate() {
            let first = self.first + stripe * STRIPE;
            let mut sums = [0.0; STRIPE];
            for row in 0..rows {
                for (sum, i) in sums[..mean.len()].iter_mut().zip(row * self.grads.cols + first..) {
                    *sum += self.grads.square(i);
                }
            }
            for (mean, sum) in mean.iter_mut().zip(sums) {
                *mean = moved(*mean, sum / rows as f64, self.rest);
            }
        }
    }
}

/// The divisors of a matrix's updates: `sqrt(max(row * col / scale, floor))`.
#[derive(Clone, Copy)]
pub(crate) struct Divisors<'a, R> {
    pub(crate) rows: &'a [R],
    pub(crate) cols: &'a [R],
    pub(crate) scale: R,
    pub(crate) floor: R,
}

impl<R: Real> Divisors<'_, R> {
    #[inline(always)]
    fn update(&self, row: usize, col: usize, grad: R) -> R {
        let estimate = self.rows[row] * self.cols[col] / self.scale;
        let estimate = if estimate < self.floor { self.floor } else { estimate };
        grad / estimate.sqrt()
    }

    fn split_rows(self, mid: usize) -> (Self, Self) {
        let (rows, rows_right) = self.rows.split_at(mid);
        (Self { rows, ..self }, Self { rows: rows_right, ..self })
    }
}

/// The sum of squares of all updates.
pub(crate) fn update_squares<R: Real>(grads: Gradients<'_, R>, divisors: Divisors<'_, R>) -> f64 {
    execute(Squares { grads, divisors })
}

struct Squares<'a, R> {
    grads: Gradients<'a, R>,
    divisors: Divisors<'a, R>,
}

impl<R: Real> Work for Squares<'_, R> {
    type Output = f64;

    fn len(&self) -> usize {
        self.divisors.rows.len()
    }

    fn chunk(&self) -> usize {
        (GRAIN / self.grads.cols).max(1)
    }

    fn elements(&self) -> usize {
        self.grads.rows * self.grads.cols
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (grads, grads_right) = self.grads.split_rows(mid);
        let (divisors, divisors_right) = self.divisors.split_rows(mid);
        (Self { grads, divisors }, Self { grads: grads_right, divisors: divisors_right })
    }

    fn run(self, isa: Isa) -> f64 {
        isa.run(self)
    }

    fn combine(left: f64, right: f64) -> f64 {
        left + right
    }
}

impl<R: Real> Kernel for Squares<'_, R> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let cols = self.grads.cols;
        let mut sum = 0.0;
        for row in 0..self.divisors.rows.len() {
            for col in 0..cols {
                let update = self.divisors.update(row, col, self.grads.at(row * cols + col)).to_f64();
                sum += update * update;
            }
        }
        sum
    }
}

/// `p = shrink * p - rate * update` for each element; a pruned one becomes 0.
pub(crate) fn apply<T: Element>(
    param: &mut [T],
    grads: Gradients<'_, T::Real>,
    divisors: Divisors<'_, T::Real>,
    shrink: T::Real,
    rate: T::Real,
    rounding: Rounding,
) {
    execute(Apply { param, grads, divisors, shrink, rate, rounding });
}

struct Apply<'a, T: Element> {
    param: &'a mut [T],
    grads: Gradients<'a, T::Real>,
    divisors: Divisors<'a, T::Real>,
    shrink: T::Real,
    rate: T::Real,
    rounding: Rounding,
}

impl<T: Element> Work for Apply<'_, T> {
    type Output = ();

    fn len(&self) -> usize {
        self.divisors.rows.len()
    }

    fn chunk(&self) -> usize {
        (GRAIN / self.grads.cols).max(1)
    }

    fn elements(&self) -> usize {
        self.param.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { shrink, rate, rounding, .. } = self;
        let (param, param_right) = self.param.split_at_mut(mid * self.grads.cols);
        let (grads, grads_right) = self.grads.split_rows(mid);
        let (divisors, divisors_right) = self.divisors.split_rows(mid);
        (
            Self { param, grads, divisors, shrink, rate, rounding },
            Self { param: param_right, grads: grads_right, divisors: divisors_right, shrink, rate, rounding },
        )
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<T: Element> Kernel for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let cols = self.grads.cols;
        for (row, param) in self.param.chunks_exact_mut(cols).enumerate() {
            for (col, p) in param.iter_mut().enumerate() {
                let i = row * cols + col;
                let update = self.divisors.update(row, col, self.grads.at(i));
                let new = self.shrink * p.to_real() - self.rate * update;
                let new = self.rounding.round(new, self.grads.offset + i);
                *p = if self.grads.kept(i) { new } else { T::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::AnySlice;

    #[test]
    fn means_of_rows_and_columns_by_hand() {
        let values = [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0];
        let values = GradRef::new(AnySlice::Real(&values), 1.0, f64::INFINITY);
        let grads = Gradients { values, rows: 2, cols: 3, keep: Some(&[0b101_1111]), offset: 1 };
        let (mut rows, mut cols) = ([0.0, 1.0], [0.0; 3]);
        average_rows(grads, &mut rows, 0.5);
        average_columns(grads, &mut cols, 1.0);
        // Element 4 (bit 5) is pruned.
        assert_eq!(rows, [14.0 / 6.0, 0.5 + (16.0 + 36.0) / 6.0]);
        assert_eq!(cols, [17.0 / 2.0, 2.0, 45.0 / 2.0]);
    }
}
