//! Sums over each group of a tensor, in `f64`: the gradient of a scale, the mean magnitude.

use super::{
    fake::Scaled,
    isa::{Isa, Kernel},
    parallel::{GRAIN, Work, execute},
    rows::{Groups, Layout},
};
use crate::element::Element;

/// Elements of a whole tensor that are summed as one piece: fixed, since it decides the order of the sums.
const CHUNK: usize = 4096;
/// Independent accumulators in a run; they are added in order.
const LANES: usize = 16;
/// Columns summed at a time.
const BATCH: usize = 64;

/// What is summed, and what is made of the sum of `count` elements.
pub(crate) trait Term<T: Element>: Copy + Send + Sync {
    /// What the terms of one group share.
    type Group: Copy;
    fn group(&self, group: usize) -> Self::Group;
    fn term(group: Self::Group, x: T, upstream: T) -> f64;
    fn end(&self, sum: f64, count: usize) -> T::Real;
}

/// The mean of `|x|` times a factor.
#[derive(Clone, Copy)]
pub(crate) struct MeanMagnitude {
    pub(crate) factor: f64,
}

impl<T: Element> Term<T> for MeanMagnitude {
    type Group = ();

    #[inline(always)]
    fn group(&self, _: usize) {}

    #[inline(always)]
    fn term((): (), x: T, _: T) -> f64 {
        x.to_f64().abs()
    }

    #[inline(always)]
    fn end(&self, sum: f64, count: usize) -> T::Real {
        T::Real::from_f64(sum / count as f64 * self.factor)
    }
}

/// The gradient of a scale, by learned step size quantization: the sum of `upstream * d`, times `1 / sqrt(count *
/// reach)`, where `d = round(x / scale) - x / scale` between the ends of the levels, and the number of steps to the
/// nearer end elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct ScaleGradient<'a, R> {
    pub(crate) levels: Scaled<'a, R>,
    /// Steps from 0 to the highest level.
    pub(crate) reach: f64,
}

impl<T: Element> Term<T> for ScaleGradient<'_, T::Real> {
    type Group = super::affine::Affine<T::Real>;

    #[inline(always)]
    fn group(&self, group: usize) -> Self::Group {
        self.levels.of(group)
    }

    #[inline(always)]
    fn term(levels: Self::Group, x: T, upstream: T) -> f64 {
        let x = x.to_real();
        let (place, low, high) = levels.place(x);
        let steps = f64::from(levels.nearest(x));
        // At an end, `steps` is that end.
        let slope = if place > low && place < high { steps - place.to_f64() } else { steps };
        upstream.to_f64() * slope
    }

    #[inline(always)]
    fn end(&self, sum: f64, count: usize) -> T::Real {
        T::Real::from_f64(sum / (count as f64 * self.reach).sqrt())
    }
}

/// Writes what `term` makes of each group. Sums are of fixed pieces in a fixed order.
pub(crate) fn sums<T: Element>(layout: Layout, values: &[T], upstream: &[T], term: impl Term<T>, out: &mut [T::Real]) {
    match layout.groups {
        Groups::Whole => {
            let sum = execute(Piece { values, upstream, term });
            out.iter_mut().for_each(|out| *out = term.end(sum, values.len()));
        }
        _ => execute(Each { layout, values, upstream, first: 0, total: out.len(), term, out }),
    }
}

/// A piece of one group.
struct Piece<'a, T, S> {
    values: &'a [T],
    upstream: &'a [T],
    term: S,
}

impl<T: Element, S: Term<T>> Work for Piece<'_, T, S> {
    type Output = f64;

    fn len(&self) -> usize {
        self.values.len()
    }

    fn chunk(&self) -> usize {
        CHUNK
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { values, upstream, term } = self;
        let ((values, values_right), (upstream, upstream_right)) = (values.split_at(mid), upstream.split_at(mid));
        (Self { values, upstream, term }, Self { values: values_right, upstream: upstream_right, term })
    }

    fn run(self, isa: Isa) -> f64 {
        isa.run(self)
    }

    fn combine(left: f64, right: f64) -> f64 {
        left + right
    }
}

impl<T: Element, S: Term<T>> Kernel for Piece<'_, T, S> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        run::<T, S>(self.term.group(0), self.values, self.upstream)
    }
}

/// The sum over a run of one group.
#[inline(always)]
fn run<T: Element, S: Term<T>>(group: S::Group, values: &[T], upstream: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    let ((blocks, tail), (ups, ups_tail)) = (values.as_chunks::<LANES>(), upstream.as_chunks::<LANES>());
    for (block, ups) in blocks.iter().zip(ups) {
        for ((lane, &x), &up) in lanes.iter_mut().zip(block).zip(ups) {
            *lane += S::term(group, x, up);
        }
    }
    for ((lane, &x), &up) in lanes.iter_mut().zip(tail).zip(ups_tail) {
        *lane += S::term(group, x, up);
    }
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane;
    }
    sum
}

/// Some groups of a tensor of many.
struct Each<'a, T: Element, S> {
    layout: Layout,
    values: &'a [T],
    upstream: &'a [T],
    first: usize,
    total: usize,
    term: S,
    out: &'a mut [T::Real],
}

impl<T: Element, S: Term<T>> Work for Each<'_, T, S> {
    type Output = ();

    fn len(&self) -> usize {
        self.out.len()
    }

    fn chunk(&self) -> usize {
        let size = self.values.len() / self.total.max(1);
        // Columns are read across rows: at least a few cache lines of them.
        let least = if let Groups::Columns { .. } = self.layout.groups { BATCH } else { 1 };
        (GRAIN / size.max(1)).max(least)
    }

    fn elements(&self) -> usize {
        self.values.len() / self.total.max(1) * self.out.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { layout, values, upstream, first, total, term, out } = self;
        let (out, right) = out.split_at_mut(mid);
        (
            Self { layout, values, upstream, first, total, term, out },
            Self { layout, values, upstream, first: first + mid, total, term, out: right },
        )
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<T: Element, S: Term<T>> Kernel for Each<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { layout, values, upstream, first, total, term, out } = self;
        let cols = layout.cols;
        match layout.groups {
            Groups::Whole => {}
            Groups::Blocks { size } => {
                let per_row = cols.div_ceil(size);
                for (i, out) in out.iter_mut().enumerate() {
                    let group = first + i;
                    let (row, col) = (group / per_row, group % per_row * size);
                    let own = row * cols + col..row * cols + cols.min(col.saturating_add(size));
                    let sum = run::<T, S>(term.group(group), &values[own.clone()], &upstream[own.clone()]);
                    *out = term.end(sum, own.len());
                }
            }
            Groups::Rows { repeat, .. } => {
                let size = repeat * cols;
                for (i, out) in out.iter_mut().enumerate() {
                    let (group, mut sum) = (first + i, 0.0);
                    let runs = values.chunks_exact(size).zip(upstream.chunks_exact(size));
                    for (values, upstream) in runs.skip(group).step_by(total) {
                        sum += run::<T, S>(term.group(group), values, upstream);
                    }
                    *out = term.end(sum, values.len() / total);
                }
            }
            Groups::Columns { .. } => {
                let (mut start, mut rest) = (first, out);
                while !rest.is_empty() {
                    let (out, others) = rest.split_at_mut(layout.columns_from(start, BATCH).min(rest.len()));
                    let (first, rows, stride) = layout.column(start);
                    let (mut groups, mut sums) = ([term.group(start); BATCH], [0.0; BATCH]);
                    for (i, group) in groups[..out.len()].iter_mut().enumerate() {
                        *group = term.group(start + i);
                    }
                    for row in 0..rows {
                        let own = first + row * stride..first + row * stride + out.len();
                        let elements = values[own.clone()].iter().zip(&upstream[own]);
                        for ((sum, &group), (&x, &up)) in sums.iter_mut().zip(&groups).zip(elements) {
                            *sum += S::term(group, x, up);
                        }
                    }
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = term.end(sum, rows);
                    }
                    (start, rest) = (start + out.len(), others);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_granularity_has_the_means_a_plain_loop_finds() {
        let x: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 61) - 30.0).collect();
        // A tensor of 3 by 4 by 5.
        type GroupOf = fn(usize) -> usize;
        let cases: [(Groups, usize, GroupOf); 7] = [
            (Groups::Whole, 1, |_| 0),
            (Groups::Rows { repeat: 4, count: 3 }, 3, |i| i / 20),
            (Groups::Rows { repeat: 1, count: 4 }, 4, |i| i / 5 % 4),
            (Groups::Columns { repeat: 1, length: 12, size: 12 }, 5, |i| i % 5),
            (Groups::Columns { repeat: 4, length: 3, size: 2 }, 40, |i| i / 40 * 20 + i % 20),
            (Groups::Columns { repeat: 1, length: 4, size: 3 }, 30, |i| (i / 20 * 2 + i / 5 % 4 / 3) * 5 + i % 5),
            (Groups::Blocks { size: 2 }, 36, |i| i / 5 * 3 + i % 5 / 2),
        ];
        for (groups, count, group) in cases {
            let mut means = vec![0.0; count];
            sums(Layout { cols: 5, bits: 8, groups }, &x, &x, MeanMagnitude { factor: 2.0 }, &mut means);
            for (g, mean) in means.iter().enumerate() {
                let own: Vec<f64> = (0..60).filter(|&i| group(i) == g).map(|i| x[i].abs()).collect();
                let want = 2.0 * own.iter().sum::<f64>() / own.len() as f64;
                assert!((mean - want).abs() < 1e-12, "{groups:?} {g}");
            }
        }
    }
}
