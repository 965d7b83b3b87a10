//! Values rounded to evenly spaced levels without codes, and what of a gradient goes through that rounding.

use super::{
    affine::Affine,
    rows::{Cut, Groups, Layout, Operation, over},
};
use crate::element::{Element, Real};
use std::ops::Range;

/// The levels of all groups.
#[derive(Clone, Copy)]
pub(crate) struct Scaled<'a, R> {
    pub(crate) scales: &'a [R],
    pub(crate) zeros: Zeros<'a>,
    pub(crate) bits: u32,
    /// The lowest code that is used.
    pub(crate) least: u16,
}

/// The code of 0.
#[derive(Clone, Copy)]
pub(crate) enum Zeros<'a> {
    Each(&'a [u16]),
    All(u16),
}

impl<R: Real> Scaled<'_, R> {
    #[inline(always)]
    pub(super) fn of(&self, group: usize) -> Affine<R> {
        match self.zeros {
            Zeros::Each(zeros) => self.with(self.scales[group], zeros[group]),
            Zeros::All(zero) => self.with(self.scales[group], zero),
        }
    }

    #[inline(always)]
    fn with(&self, scale: R, zero: u16) -> Affine<R> {
        Affine::new(scale, zero, self.least, ((1u32 << self.bits) - 1) as u16)
    }
}

/// Writes the level nearest to each of `values`: the bits that encoding and decoding give.
pub(crate) fn forward<T: Element>(layout: Layout, levels: Scaled<'_, T::Real>, values: &[T], out: &mut [T]) {
    over(layout, (values, values, out), (), Fake { levels, make: Nearest });
}

/// Where a gradient goes through; it is 0 elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Through {
    /// Where the nearest whole number of steps is that of a level.
    Rounded,
    /// Strictly between the lowest and the highest level.
    Between,
}

/// Writes what goes through of `upstream`.
pub(crate) fn backward<T: Element>(
    layout: Layout,
    levels: Scaled<'_, T::Real>,
    through: Through,
    values: &[T],
    upstream: &[T],
    out: &mut [T],
) {
    match through {
        Through::Rounded => over(layout, (values, upstream, out), (), Fake { levels, make: Rounded }),
        Through::Between => over(layout, (values, upstream, out), (), Fake { levels, make: Between }),
    }
}

/// What is written for one element.
trait Make<T: Element>: Copy + Send + Sync {
    fn make(self, levels: Affine<T::Real>, x: T, upstream: T) -> T;
}

#[derive(Clone, Copy)]
struct Nearest;

impl<T: Element> Make<T> for Nearest {
    #[inline(always)]
    fn make(self, levels: Affine<T::Real>, x: T, _: T) -> T {
        T::from_real(levels.level(levels.nearest(x.to_real()), T::Real::from_f64(T::LARGEST)))
    }
}

#[derive(Clone, Copy)]
struct Rounded;

impl<T: Element> Make<T> for Rounded {
    #[inline(always)]
    fn make(self, levels: Affine<T::Real>, x: T, upstream: T) -> T {
        let (place, low, high) = levels.place(x.to_real());
        // Half a step beyond an end rounds to it where its number is even, and so it is for both signs.
        let reach = T::Real::from_f64(0.5);
        let above = place > low - reach || (place == low - reach && even(low));
        let below = place < high + reach || (place == high + reach && even(high));
        if above && below { upstream } else { T::default() }
    }
}

/// Whether a whole number of steps is even.
#[inline(always)]
fn even<R: Real>(steps: R) -> bool {
    steps.nearest() & 1 == 0
}

#[derive(Clone, Copy)]
struct Between;

impl<T: Element> Make<T> for Between {
    #[inline(always)]
    fn make(self, levels: Affine<T::Real>, x: T, upstream: T) -> T {
        let (place, low, high) = levels.place(x.to_real());
        if place > low && place < high { upstream } else { T::default() }
    }
}

#[derive(Clone, Copy)]
struct Fake<'a, R, M> {
    levels: Scaled<'a, R>,
    make: M,
}

/// Values, what is upstream, and where to write.
type Triple<'a, T> = (&'a [T], &'a [T], &'a mut [T]);

impl<'a, T: Element, M: Make<T>> Operation<Triple<'a, T>, ()> for Fake<'_, T::Real, M> {
    type Output = ();

    #[inline(always)]
    fn run(self, layout: Layout, tiles: Range<usize>, (mut x, mut upstream, mut out): Triple<'a, T>, (): ()) {
        for tile in tiles {
            let ((row, col), width) = (layout.place(tile), layout.width(tile));
            let (xs, x_rest) = x.split_at(width);
            let (ups, upstream_rest) = upstream.split_at(width);
            let (outs, out_rest) = out.split_at_mut(width);
            if let Groups::Columns { .. } = layout.groups {
                let groups = layout.first_column(row) + col..layout.first_column(row) + col + width;
                let elements = outs.iter_mut().zip(xs).zip(ups).zip(&self.levels.scales[groups.clone()]);
                match self.levels.zeros {
                    Zeros::All(zero) => {
                        for (((y, &x), &up), &scale) in elements {
                            *y = self.make.make(self.levels.with(scale, zero), x, up);
                        }
                    }
                    Zeros::Each(zeros) => {
                        for ((((y, &x), &up), &scale), &zero) in elements.zip(&zeros[groups]) {
                            *y = self.make.make(self.levels.with(scale, zero), x, up);
                        }
                    }
                }
            } else {
                for (run, group) in layout.runs(row, col..col + width) {
                    let levels = self.levels.of(group);
                    for ((y, &x), &up) in outs[run.clone()].iter_mut().zip(&xs[run.clone()]).zip(&ups[run]) {
                        *y = self.make.make(levels, x, up);
                    }
                }
            }
            (x, upstream, out) = (x_rest, upstream_rest, out_rest);
        }
    }

    fn combine((): (), (): ()) {}
}

impl Cut for () {
    fn cut(self, _: usize) -> ((), ()) {
        ((), ())
    }
    fn count(&self) -> usize {
        0
    }
}

impl<A: Cut, B: Cut, C: Cut> Cut for (A, B, C) {
    fn cut(self, mid: usize) -> (Self, Self) {
        let ((a, a_right), (b, b_right), (c, c_right)) = (self.0.cut(mid), self.1.cut(mid), self.2.cut(mid));
        ((a, b, c), (a_right, b_right, c_right))
    }
    fn count(&self) -> usize {
        self.0.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 bits by steps of 1: the levels -2, -1, 0, 1.
    fn run(through: Option<Through>, x: &[f32]) -> Vec<f32> {
        let layout = Layout { cols: x.len(), bits: 2, groups: Groups::Whole };
        let levels = Scaled { scales: &[1.0f32], zeros: Zeros::All(2), bits: 2, least: 0 };
        let mut out = vec![f32::NAN; x.len()];
        match through {
            None => forward(layout, levels, x, &mut out),
            Some(through) => backward(layout, levels, through, x, &vec![7.0; x.len()], &mut out),
        }
        out
    }

    #[test]
    fn halves_beyond_an_end_go_where_rounding_puts_them() {
        let x = [-3.0, -2.51, -2.5, -2.0, -0.5, 0.0, 1.0, 1.49, 1.5, 3e38];
        assert_eq!(run(None, &x), [-2.0, -2.0, -2.0, -2.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        // -2.5 rounds to -2, which is a level; 1.5 to 2, which is none.
        let rounded = [0.0, 0.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 0.0, 0.0];
        assert_eq!(run(Some(Through::Rounded), &x), rounded);
        let between = [0.0, 0.0, 0.0, 0.0, 7.0, 7.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(run(Some(Through::Between), &x), between);
    }
}
