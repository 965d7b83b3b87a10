//! Elements that go together: slices of an axis, blocks of a matrix.

use super::{inner, whole::Tensor};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::scan::scale_to_one,
    tensor::{
        Mask,
        view::{checked_volume, filled, volume},
    },
};
use std::ops::Range;

/// Which elements are a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub(super) enum Units {
    /// Those of one index of an axis.
    Slices { axis: usize },
    /// Those of a block of the last two axes.
    Blocks { rows: usize, cols: usize },
}

/// A unit's score by its elements'.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reduce {
    /// The sum where there is none.
    pub(super) norm: Option<f64>,
    pub(super) mean: bool,
}

impl Reduce {
    pub(super) const SUM: Self = Self { norm: None, mean: false };
}

/// Units of a tensor as elements of a smaller one.
pub(super) struct Reduced {
    pub(super) scores: Vec<f64>,
    /// Which of them keep anything.
    pub(super) mask: Mask,
    pub(super) costs: Vec<u64>,
}

/// What is known of a unit.
#[derive(Clone, Copy, Default)]
struct Unit {
    elements: usize,
    kept: usize,
    largest: f64,
    sum: f64,
}

impl Units {
    /// The shape of the tensor of units.
    fn shape(self, shape: &[usize]) -> Result<Vec<usize>> {
        match self {
            Self::Slices { axis } => match shape.get(axis) {
                Some(&length) => Ok(vec![length]),
                None => Err(Error::argument("axis", format!("{axis} of shape {shape:?}"), "one of the tensor's")),
            },
            Self::Blocks { rows, cols } => {
                let mut units = shape.to_vec();
                for (length, size) in units.iter_mut().rev().zip([cols, rows]) {
                    *length = length.div_ceil(size);
                }
                Ok(units)
            }
        }
    }

    /// Runs of neighbours in a tensor, and the unit of each.
    fn runs(self, shape: &[usize]) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let len = volume(shape).unwrap_or(0);
        let last = shape.last().copied().unwrap_or(1);
        let height = shape.iter().rev().nth(1).copied().unwrap_or(1);
        // Runs follow one another in a row: the length of the row, and of a run.
        let (row, run) = match self {
            Self::Slices { axis } => {
                let inner = inner(shape, axis);
                (inner, inner)
            }
            Self::Blocks { cols, .. } => (last, cols.min(last)),
        };
        let per_row = if len == 0 { 0 } else { row.div_ceil(run) };
        let length = if let Self::Slices { axis } = self { shape.get(axis).copied().unwrap_or(1) } else { height };
        let rows = if len == 0 { 0 } else { len / row };
        (0..rows).flat_map(move |i| {
            let first = match self {
                Self::Slices { .. } => i % length,
                Self::Blocks { rows, .. } => {
                    let (matrix, row) = (i / height, i % height);
                    (matrix * height.div_ceil(rows) + row / rows) * per_row
                }
            };
            (0..per_row).map(move |j| (first + j, i * row + j * run..i * row + row.min((j + 1) * run)))
        })
    }

    /// The units of a tensor: their scores, which of them keep anything, and what that costs.
    pub(super) fn reduce<T: Element>(
        self,
        tensor: Tensor<'_, T>,
        cost: u64,
        mask: &Mask,
        by: Reduce,
    ) -> Result<Reduced> {
        let Tensor { values, order } = tensor;
        let shape = self.shape(mask.shape())?;
        let mut units = filled(checked_volume(&shape)?, Unit::default())?;
        let kept = |range: Range<usize>| range.filter(|&i| mask.get(i) == Some(true)).map(|i| order.number(values[i]));
        for (unit, range) in self.runs(mask.shape()) {
            let unit = &mut units[unit];
            unit.elements += range.len();
            for score in kept(range) {
                unit.kept += 1;
                unit.largest = unit.largest.max(score.abs());
            }
        }
        for (unit, range) in self.runs(mask.shape()) {
            let unit = &mut units[unit];
            kept(range).for_each(|score| unit.sum += by.term(score, unit.largest));
        }
        let scores: Vec<f64> = units.iter().map(|unit| by.score(unit)).collect();
        let mask = Mask::from_fn(&shape, |unit| units[unit].kept > 0)?;
        if let Some(unit) = mask.indices().find(|&unit| scores[unit].is_nan()) {
            // Infinities of both signs.
            return Err(Error::non_finite("score of units", unit, f64::NAN));
        }
        let cost = |unit: &Unit| cost.checked_mul(unit.kept as u64);
        let costs = units.iter().map(cost).collect::<Option<_>>();
        let costs = costs.ok_or_else(|| Error::argument("cost", "more than 2^64 for a unit", "less"))?;
        Ok(Reduced { scores, mask, costs })
    }

    /// Drops the elements of the units that are not kept.
    pub(super) fn drop_from(self, mask: &mut Mask, kept: &Mask) {
        let shape = mask.shape().to_vec();
        for (unit, range) in self.runs(&shape) {
            if kept.get(unit) == Some(false) {
                range.for_each(|i| mask.prune(i));
            }
        }
    }
}

impl Reduce {
    /// A power of two that brings sums of scores, and of squares, to where they neither overflow nor vanish.
    fn scale(largest: f64) -> f64 {
        if largest.is_finite() { scale_to_one(largest) } else { 1.0 }
    }

    fn term(self, score: f64, largest: f64) -> f64 {
        match self.norm {
            None => score * Self::scale(largest),
            Some(1.0) => score.abs() * Self::scale(largest),
            Some(2.0) => (score * Self::scale(largest)).powi(2),
            Some(p) if p < 1.0 => libm::pow(score.abs(), p),
            Some(_) if largest == 0.0 => 0.0,
            // Infinite powers of what is below 1 are 0.
            Some(p) => libm::pow(score.abs() / largest, p),
        }
    }

    fn score(self, unit: &Unit) -> f64 {
        let &Unit { elements, largest, sum, .. } = unit;
        let sum = if self.mean { sum / elements.max(1) as f64 } else { sum };
        match self.norm {
            Some(_) if largest.is_infinite() => largest,
            None | Some(1.0) => sum / Self::scale(largest),
            Some(2.0) => sum.sqrt() / Self::scale(largest),
            // Its root orders as it does, but can be beyond any number.
            Some(p) if p < 1.0 => sum,
            Some(p) => libm::pow(sum, 1.0 / p) * largest,
        }
    }

    /// What a score is compared with where a unit's norm is to be above a threshold.
    pub(super) fn threshold(self, threshold: f64) -> f64 {
        match self.norm {
            Some(p) if p < 1.0 && threshold > 0.0 => libm::pow(threshold, p),
            _ => threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        prune::{Scores, Select},
    };
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_element_is_in_the_unit_of_its_place(
            shape in prop::collection::vec(0usize..6, 1..5),
            (rows, cols) in (1usize..4, 1usize..8),
            axis in 0usize..4,
        ) {
            let axis = axis % shape.len();
            let len: usize = shape.iter().product();
            let place = |mut i: usize| {
                let mut place = vec![0; shape.len()];
                for (at, &length) in place.iter_mut().zip(&shape).rev() {
                    *at = i % length;
                    i /= length;
                }
                place
            };
            for units in [Units::Slices { axis }, Units::Blocks { rows, cols }] {
                let smaller = units.shape(&shape).unwrap();
                let mut next = vec![false; len];
                for (unit, range) in units.runs(&shape) {
                    for i in range {
                        prop_assert!(!std::mem::replace(&mut next[i], true));
                        let mut place = place(i);
                        if units == (Units::Slices { axis }) {
                            place = vec![place[axis]];
                        } else {
                            place.iter_mut().rev().zip([cols, rows]).for_each(|(at, size)| *at /= size);
                        }
                        let want = place.iter().zip(&smaller).fold(0, |unit, (at, length)| unit * length + at);
                        prop_assert_eq!(unit, want);
                    }
                }
                prop_assert!(next.iter().all(|&there| there));
            }
        }
    }

    fn score(by: Reduce, values: &[f64]) -> f64 {
        let mask = Mask::keep_all(&[1, values.len()]).unwrap();
        let tensor = Tensor { values, order: crate::kernel::select::Order::Number };
        Units::Slices { axis: 0 }.reduce(tensor, 1, &mask, by).unwrap().scores[0]
    }

    #[test]
    fn norms_at_any_size() {
        for size in [1e-320, 1e-300, 1e-120, 1.0, 1e120, 1e300] {
            let values = [3.0 * size, -4.0 * size, 0.0];
            let near = |by: Reduce, want: f64| {
                let got = score(by, &values) / size;
                assert!((got / want - 1.0).abs() < if size < 1e-310 { 1e-3 } else { 1e-12 }, "{by:?} {size:e}: {got}");
            };
            let norm = |p| Reduce { norm: Some(p), mean: false };
            near(Reduce::SUM, -1.0);
            near(norm(1.0), 7.0);
            near(norm(2.0), 5.0);
            near(norm(3.0), 91f64.cbrt());
            near(norm(f64::INFINITY), 4.0);
            // Below 1, without the root.
            let root = (score(norm(0.5), &values) / (3f64.sqrt() + 2.0)).powi(2) / size;
            assert!((root - 1.0).abs() < 1e-3, "{size:e}: {root}");
            near(Reduce { norm: Some(2.0), mean: true }, (25f64 / 3.0).sqrt());
            near(Reduce { norm: None, mean: true }, -1.0 / 3.0);
        }
        assert_eq!(score(Reduce { norm: Some(2.0), mean: false }, &[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(score(Reduce { norm: Some(3.5), mean: false }, &[0.0, -0.0]), 0.0);
    }

    #[test]
    fn says_what_it_cannot_do() {
        let mut masks = [Mask::keep_all(&[2, 2]).unwrap()];
        let refine = |select: Select, scores: &[f64], masks: &mut [Mask]| select.refine(&[Scores::new(scores)], masks);
        let by = |axis| Select::count(1).along(axis);
        assert_eq!(refine(by(2), &[1.0; 4], &mut masks).unwrap_err().kind(), ErrorKind::Argument);
        let infinite = [f64::INFINITY, f64::NEG_INFINITY, 1.0, 2.0];
        let error = refine(by(0), &infinite, &mut masks).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(0)));
        assert_eq!(masks[0].kept(), 4);
        refine(by(1), &infinite, &mut masks).unwrap();
        assert_eq!(masks[0].indices().collect::<Vec<_>>(), [0, 2]);
        assert!(Select::count(1).in_blocks(0, 1).is_err() && Select::count(1).in_blocks(1, 0).is_err());
        assert!(Select::count(1).with_norm(0.0).is_err() && Select::count(1).with_norm(f64::NAN).is_err());
    }
}
