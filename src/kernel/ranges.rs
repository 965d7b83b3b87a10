//! The range of each group of a tensor, and what a scheme makes of it.

use super::{
    isa::{Isa, Kernel},
    parallel::{GRAIN, Work, execute},
    rows::{Groups, Layout},
    scan,
};
use crate::element::{Element, Real};
use num_traits::Float;

/// Takes the smallest and the largest value of each group.
pub(crate) trait Ranges<R>: Send + Sized {
    /// Groups.
    fn len(&self) -> usize;
    fn split_at(self, mid: usize) -> (Self, Self);
    /// Those of the groups from `first` on.
    fn put(&mut self, first: usize, min: &[R], max: &[R]);
}

/// Keeps them as they are.
pub(crate) struct Ends<'a, R> {
    pub(crate) min: &'a mut [R],
    pub(crate) max: &'a mut [R],
}

impl<R: Real> Ranges<R> for Ends<'_, R> {
    fn len(&self) -> usize {
        self.min.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (min, min_right) = self.min.split_at_mut(mid);
        let (max, max_right) = self.max.split_at_mut(mid);
        (Self { min, max }, Self { min: min_right, max: max_right })
    }

    #[inline(always)]
    fn put(&mut self, first: usize, min: &[R], max: &[R]) {
        self.min[first..first + min.len()].copy_from_slice(min);
        self.max[first..first + max.len()].copy_from_slice(max);
    }
}

/// What a scheme makes of a group's range.
pub(crate) trait Fit: Copy + Send {
    fn scale<R: Real>(&self, min: R, max: R) -> R;
    /// The code of 0.
    fn zero<R: Real>(&self, min: R, scale: R) -> u16;
}

/// Keeps the scale, and the code of 0 where it differs from group to group, that `fit` makes of them.
pub(crate) struct Fitted<'a, R, F> {
    pub(crate) scales: &'a mut [R],
    pub(crate) zeros: Option<&'a mut [u16]>,
    pub(crate) fit: F,
}

impl<R: Real, F: Fit> Ranges<R> for Fitted<'_, R, F> {
    fn len(&self) -> usize {
        self.scales.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { scales, zeros, fit } = self;
        let (scales, scales_right) = scales.split_at_mut(mid);
        let (zeros, zeros_right) = zeros.map(|zeros| zeros.split_at_mut(mid)).unzip();
        (Self { scales, zeros, fit }, Self { scales: scales_right, zeros: zeros_right, fit })
    }

    #[inline(always)]
    fn put(&mut self, first: usize, min: &[R], max: &[R]) {
        let groups = first..first + min.len();
        for ((scale, &min), &max) in self.scales[groups.clone()].iter_mut().zip(min).zip(max) {
            *scale = self.fit.scale(min, max);
        }
        if let Some(zeros) = &mut self.zeros {
            for ((zero, &scale), &min) in zeros[groups.clone()].iter_mut().zip(&self.scales[groups]).zip(min) {
                *zero = self.fit.zero(min, scale);
            }
        }
    }
}

/// Finds the range of each group; `values` are finite.
pub(crate) fn ranges<T: Element>(layout: Layout, values: &[T], to: impl Ranges<T::Real>) {
    execute(Scan { layout, values, first: 0, total: to.len(), to });
}

struct Scan<'a, T, S> {
    layout: Layout,
    values: &'a [T],
    first: usize,
    total: usize,
    to: S,
}

impl<T: Element, S: Ranges<T::Real>> Work for Scan<'_, T, S> {
    type Output = ();

    fn len(&self) -> usize {
        self.to.len()
    }

    fn chunk(&self) -> usize {
        let size = self.values.len() / self.total.max(1);
        // Columns are read across rows: at least a few cache lines of them.
        let least = if let Groups::Columns { .. } = self.layout.groups { BATCH } else { 1 };
        (GRAIN / size.max(1)).max(least)
    }

    fn elements(&self) -> usize {
        self.values.len() / self.total.max(1) * self.to.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { layout, values, first, total, to } = self;
        let (to, right) = to.split_at(mid);
        (Self { layout, values, first, total, to }, Self { layout, values, first: first + mid, total, to: right })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

/// Groups whose ranges are found at a time.
const BATCH: usize = 64;

impl<T: Element, S: Ranges<T::Real>> Kernel for Scan<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { layout, values, first, total, mut to } = self;
        let groups = first..first + to.len();
        let cols = layout.cols;
        let mut start = groups.start;
        while start < groups.end {
            let most = match layout.groups {
                Groups::Columns { .. } => layout.columns_from(start, BATCH),
                _ => BATCH,
            };
            let some = start..groups.end.min(start + most);
            let (mut min, mut max) = ([T::Real::infinity(); BATCH], [T::Real::neg_infinity(); BATCH]);
            match layout.groups {
                Groups::Whole => (min[0], max[0]) = scan::range_of_run(values),
                Groups::Blocks { size } => {
                    let per_row = cols.div_ceil(size);
                    for ((group, min), max) in some.clone().zip(&mut min).zip(&mut max) {
                        let (row, col) = (group / per_row, group % per_row * size);
                        let end = cols.min(col.saturating_add(size));
                        (*min, *max) = scan::range_of_run(&values[row * cols + col..row * cols + end]);
                    }
                }
                Groups::Rows { repeat, .. } => {
                    let run = repeat * cols;
                    for ((group, min), max) in some.clone().zip(&mut min).zip(&mut max) {
                        for run in values.chunks_exact(run).skip(group).step_by(total) {
                            let (low, high) = scan::range_of_run(run);
                            (*min, *max) = (scan::smaller(*min, low), scan::larger(*max, high));
                        }
                    }
                }
                Groups::Columns { .. } => {
                    let (first, rows, stride) = layout.column(start);
                    for row in 0..rows {
                        let row = &values[first + row * stride..][..some.len()];
                        for ((x, min), max) in row.iter().zip(&mut min).zip(&mut max) {
                            let x = x.to_real();
                            (*min, *max) = (scan::smaller(*min, x), scan::larger(*max, x));
                        }
                    }
                }
            }
            to.put(start - first, &min[..some.len()], &max[..some.len()]);
            start = some.end;
        }
    }
}
