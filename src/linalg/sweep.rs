//! The sweep of GPTQ and SparseGPT over all rows of a matrix: columns are replaced turn by turn, and what that does to
//! a layer's outputs is made up for by the columns that follow.

use crate::{
    element::{Element, Real},
    error::Result,
    kernel::{
        affine::AffineGroups,
        grid::EvenGroups,
        isa::Isa,
        parallel::{Work, execute},
        sweep::{Correct, Factor, LANES, Lanes, Nearest, Rounding, Sweep, limited},
    },
    tensor::{Grid, QTensor, view::filled},
};
use std::ops::Range;

/// Columns corrected before what they owe is passed on to more.
pub(crate) const BLOCK: usize = 128;

/// What takes the place of weights.
pub(crate) trait Turns {
    type Rounding<'a>: Rounding
    where
        Self: 'a;

    /// Columns of a turn; the last may have fewer.
    fn width(&self) -> usize;

    /// Looks at the columns of a turn, corrected by all before them.
    fn begin(&mut self, turn: Turn<'_>) -> Result<Self::Rounding<'_>>;
}

/// The columns of a turn.
pub(crate) struct Turn<'a> {
    /// Their places in the order.
    pub(crate) range: Range<usize>,
    pub(crate) rows: usize,
    columns: &'a [Lanes],
    cols: usize,
}

impl Turn<'_> {
    /// The weights of each row.
    pub(crate) fn each_row(&self) -> impl Iterator<Item = impl Iterator<Item = f64>> + '_ {
        (0..self.rows).map(move |row| {
            let columns = &self.columns[row / LANES * self.cols..][self.range.clone()];
            columns.iter().map(move |column| column[row % LANES])
        })
    }
}

/// Replaces `weights`, rows of as many columns as `order` has, by what `turns` makes of them, into `values`.
pub(crate) fn sweep<T: Element, V: Element>(
    order: &[usize],
    factor: Factor<'_>,
    weights: &[T],
    values: &mut [V],
    turns: &mut impl Turns,
) -> Result<()> {
    let cols = order.len();
    let rows = weights.len() / cols.max(1);
    // Strip by strip, and in it column by column, in order.
    let lanes = rows.div_ceil(LANES).saturating_mul(cols);
    let mut columns = filled(lanes, [0.0; LANES])?;
    let mut errors = filled(lanes, [0.0; LANES])?;
    for (row, weights) in weights.chunks_exact(cols.max(1)).enumerate() {
        let strip = &mut columns[row / LANES * cols..][..cols];
        strip.iter_mut().zip(order).for_each(|(column, &j)| column[row % LANES] = weights[j].to_f64());
    }
    let width = turns.width().clamp(1, cols.max(1));
    let length = width * (BLOCK / width).max(1);
    for first in (0..cols).step_by(length) {
        let block = first..cols.min(first + length);
        // What the blocks before owe; then turn by turn what those before it in the block do.
        let (columns, errors) = (&mut columns, &mut errors);
        let step = Step { range: block.clone(), factor, rows };
        execute(Pass {
            columns: &mut *columns,
            errors: &mut *errors,
            cols,
            first: 0,
            step: &step,
            what: Owed { from: 0 },
        });
        for start in block.clone().step_by(width) {
            let range = start..block.end.min(start + width);
            let step = Step { range: range.clone(), factor, rows };
            let what = Owed { from: block.start };
            execute(Pass { columns: &mut *columns, errors: &mut *errors, cols, first: 0, step: &step, what });
            let rounding = turns.begin(Turn { range, rows, columns: &*columns, cols })?;
            let what = Rounded { rounding, order };
            execute(Pass { columns: &mut *columns, errors: &mut *errors, cols, first: 0, step: &step, what });
        }
    }
    for (row, values) in values.chunks_exact_mut(cols.max(1)).enumerate() {
        let strip = &columns[row / LANES * cols..][..cols];
        strip.iter().zip(order).for_each(|(column, &j)| values[j] = limited(column[row % LANES]));
    }
    Ok(())
}

/// Some columns of all strips.
struct Step<'a> {
    range: Range<usize>,
    factor: Factor<'a>,
    /// Of the tensor.
    rows: usize,
}

/// What is done with the columns of a strip, which are some of the rows.
trait Act: Copy + Send + Sync {
    /// Columns whose errors are read for each.
    fn reads(&self, range: &Range<usize>) -> usize;
    fn run(self, isa: Isa, step: &Step<'_>, rows: Range<usize>, columns: &mut [Lanes], errors: &mut [Lanes]);
}

/// Columns are corrected by the errors of those from one on.
#[derive(Clone, Copy)]
struct Owed {
    from: usize,
}

impl Act for Owed {
    fn reads(&self, range: &Range<usize>) -> usize {
        range.start - self.from
    }

    fn run(self, isa: Isa, step: &Step<'_>, _: Range<usize>, columns: &mut [Lanes], errors: &mut [Lanes]) {
        let Step { range, factor, .. } = step;
        let columns = &mut columns[range.clone()];
        let errors = &errors[self.from..range.start];
        isa.run(Correct { columns, first: range.start, errors, from: self.from, factor: *factor });
    }
}

/// Columns are rounded.
#[derive(Clone, Copy)]
struct Rounded<'a, O> {
    rounding: O,
    order: &'a [usize],
}

impl<O: Rounding> Act for Rounded<'_, O> {
    fn reads(&self, range: &Range<usize>) -> usize {
        range.len() / 2
    }

    fn run(self, isa: Isa, step: &Step<'_>, rows: Range<usize>, columns: &mut [Lanes], errors: &mut [Lanes]) {
        let (range, factor) = (step.range.clone(), step.factor);
        let (columns, errors) = (&mut columns[range.clone()], &mut errors[range.clone()]);
        let Self { rounding, order } = self;
        isa.run(Sweep { columns, errors, range, factor, order, rounding, rows });
    }
}

/// Some strips.
struct Pass<'a, A> {
    columns: &'a mut [Lanes],
    errors: &'a mut [Lanes],
    cols: usize,
    /// The first strip.
    first: usize,
    step: &'a Step<'a>,
    what: A,
}

impl<A: Act> Work for Pass<'_, A> {
    type Output = ();

    fn len(&self) -> usize {
        self.columns.len() / self.cols.max(1)
    }

    fn chunk(&self) -> usize {
        1
    }

    fn elements(&self) -> usize {
        let Step { range, .. } = self.step;
        // A multiplication is some part of what an element takes elsewhere.
        self.len() * range.len() * LANES * (1 + self.what.reads(range)) / 16
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { columns, errors, cols, first, step, what } = self;
        let (columns, columns_right) = columns.split_at_mut(mid * cols);
        let (errors, errors_right) = errors.split_at_mut(mid * cols);
        let right = Self { columns: columns_right, errors: errors_right, cols, first: first + mid, step, what };
        (Self { columns, errors, cols, first, step, what }, right)
    }

    fn run(self, isa: Isa) {
        let Self { columns, errors, cols, first, step, what } = self;
        let strips = columns.chunks_exact_mut(cols.max(1)).zip(errors.chunks_exact_mut(cols.max(1)));
        for (strip, (columns, errors)) in (first..).zip(strips) {
            what.run(isa, step, strip * LANES..step.rows.min((strip + 1) * LANES), columns, errors);
        }
    }

    fn combine((): (), (): ()) {}
}

/// The levels of `q`, whatever quantizer they are of, to round to; `least` is the lowest code that is used where 0 has
/// the middle one.
pub(crate) fn nearest<R: Real>(q: &QTensor, least: u16) -> Nearest<'_, R> {
    let bits = u32::from(q.bits());
    match q.grid() {
        Grid::MinMax { min, max } if bits <= 8 => {
            Nearest::Even(EvenGroups { min: min.numbers(), max: max.numbers(), bits })
        }
        Grid::Affine { scale, zero_point } => match scale.as_slice() {
            Some(scales) => {
                let groups = AffineGroups { scales, zeros: zero_point.as_deref(), bits, least };
                Nearest::Affine { groups, scales: scale.numbers() }
            }
            None => Nearest::Any(q.grid().levels(), bits),
        },
        grid => Nearest::Any(grid.levels(), bits),
    }
}
