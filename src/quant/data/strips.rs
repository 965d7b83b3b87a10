//! The sweep of GPTQ over all rows of a matrix, a few at a time.

use super::scheme::{Scheme, copy_levels};
use crate::{
    element::Real,
    error::Result,
    kernel::{
        isa::Isa,
        parallel::{Work, execute},
        sweep::{Correct, Factor, LANES, Lanes, Sweep, limited},
    },
    tensor::{QTensor, TensorRef, view::filled},
    traits::Quantizer,
};
use std::borrow::Cow;

/// Columns rounded before what they owe is passed on to more, where no group says otherwise.
const BLOCK: usize = 128;

/// What all strips have in common.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) scheme: Scheme,
    /// The columns in the order they are rounded.
    pub(super) order: &'a [usize],
    pub(super) factor: Factor<'a>,
    pub(super) levels: Levels<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Levels<'a> {
    /// Known in advance.
    Fixed(&'a QTensor),
    /// Fitted to a group of so many columns when its turn comes. The order is then that of the columns.
    Fitted { size: usize },
}

/// Rounds `weights` to levels, into `values`; gives the levels that were fitted, a tensor for each strip.
pub(super) fn sweep<R: Real>(plan: Plan<'_>, weights: &[R], values: &mut [R]) -> Result<Vec<QTensor>> {
    execute(Strips { plan, first: 0, weights, values })
}

struct Strips<'a, R> {
    plan: Plan<'a>,
    /// The first row.
    first: usize,
    weights: &'a [R],
    values: &'a mut [R],
}

impl<R> Strips<'_, R> {
    fn cols(&self) -> usize {
        self.plan.order.len()
    }
}

impl<R: Real> Work for Strips<'_, R> {
    type Output = Result<Vec<QTensor>>;

    /// Rows.
    fn len(&self) -> usize {
        self.weights.len() / self.cols().max(1)
    }

    fn chunk(&self) -> usize {
        LANES
    }

    fn elements(&self) -> usize {
        self.weights.len().saturating_mul(self.cols()) / 16
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let at = mid * self.cols();
        let Self { plan, first, weights, values } = self;
        let (weights, weights_right) = weights.split_at(at);
        let (values, values_right) = values.split_at_mut(at);
        let right = Self { plan, first: first + mid, weights: weights_right, values: values_right };
        (Self { plan, first, weights, values }, right)
    }

    fn run(self, isa: Isa) -> Self::Output {
        let cols = self.cols();
        let Self { plan: Plan { scheme, order, factor, levels }, first, weights, values } = self;
        let rows = weights.len() / cols.max(1);
        let mut columns = filled(cols, [0.0; LANES])?;
        let mut errors = filled(cols, [0.0; LANES])?;
        for (lane, row) in weights.chunks_exact(cols).enumerate() {
            columns.iter_mut().zip(order).for_each(|(column, &j)| column[lane] = row[j].to_f64());
        }
        // The levels, the row of their tensor that the strip begins with, and the columns to a turn.
        let (mut levels, first, width) = match levels {
            Levels::Fixed(q) => (Cow::Borrowed(q), first, BLOCK),
            Levels::Fitted { size } => (Cow::Owned(Quantizer::<R>::layout(&scheme, &[rows, cols])?), 0, size),
        };
        for (turn, start) in (0..cols).step_by(width).enumerate() {
            let range = start..cols.min(start.saturating_add(width));
            let columns = &mut columns[range.clone()];
            let (done, errors) = errors.split_at_mut(start);
            isa.run(Correct { columns: &mut *columns, first: start, errors: done, factor });
            if let Cow::Owned(own) = &mut levels {
                let groups = (0..rows).map(|row| (row, row * cols.div_ceil(width) + turn));
                copy_levels::<R>(fit_rows::<R>(scheme, columns, rows)?.grid(), own.parts_mut().1, groups);
            }
            let Some(nearest) = scheme.nearest::<R>(&levels) else { break };
            let (layout, errors) = (levels.layout(), &mut errors[..range.len()]);
            isa.run(Sweep { columns, errors, range, factor, order, nearest, layout, rows: first..first + rows });
        }
        for (lane, row) in values.chunks_exact_mut(cols).enumerate() {
            columns.iter().zip(order).for_each(|(column, &j)| row[j] = limited(column[lane]));
        }
        Ok(match levels {
            Cow::Borrowed(_) => Vec::new(),
            Cow::Owned(fitted) => vec![fitted],
        })
    }

    fn combine(left: Self::Output, right: Self::Output) -> Self::Output {
        let (mut left, mut right) = (left?, right?);
        left.append(&mut right);
        Ok(left)
    }
}

/// Levels for each row of a few columns of a strip, as they are now. What compensation has driven beyond the largest number counts as it.
fn fit_rows<R: Real>(scheme: Scheme, columns: &[Lanes], rows: usize) -> Result<QTensor> {
    let (scheme, shape) = (scheme.per_row(), [rows, columns.len()]);
    let mut values = filled(rows * columns.len(), R::zero())?;
    for (lane, row) in values.chunks_exact_mut(columns.len()).enumerate() {
        row.iter_mut().zip(columns).for_each(|(value, column)| *value = limited(column[lane]));
    }
    let mut q = Quantizer::<R>::layout(&scheme, &shape)?;
    if scheme.fit(TensorRef::new(&values, &shape)?, &mut q).is_err() {
        // One step from the one largest number to the other is none itself; from half of it to half of the other it is.
        let half = R::LARGEST / 2.0;
        values.iter_mut().for_each(|x| *x = R::from_f64(x.to_f64().clamp(-half, half)));
        scheme.fit(TensorRef::new(&values, &shape)?, &mut q)?;
    }
    Ok(q)
}
