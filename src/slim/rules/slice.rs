//! A part of a value, or its axes in another order.

use super::{At, Constants, Cut, Node, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link},
};
use std::ops::Range;

/// The indices in a range of an axis. A split is one slice for each part.
#[derive(Debug, Clone)]
pub struct Slice {
    axis: usize,
    range: Range<usize>,
}

impl Slice {
    /// Of an axis.
    #[must_use]
    pub fn new(axis: usize, range: Range<usize>) -> Self {
        Self { axis, range }
    }
}

impl Rule for Slice {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let mut layout = link.input()?.clone();
        let fits = layout.shape.get(self.axis).is_some_and(|&n| self.range.end <= n) && !self.range.is_empty();
        if !fits {
            let found = format!("{:?} of axis {}", self.range, self.axis);
            return Err(Error::argument("slice", found, "a part of the input"));
        }
        layout.shape[self.axis] = self.range.len();
        if let Some(channels) = layout.channels.as_mut().filter(|channels| channels.axis == self.axis) {
            channels.atoms = channels.atoms[self.range.clone()].to_vec();
        }
        Ok(layout)
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let axes = inputs[0].axes.clone();
        Constants::tabulate(at.output(), axes.clone(), |place| {
            let index = |axis: usize| axes.iter().position(|&a| a == axis).map_or(0, |at| place[at]);
            inputs[0].get(|axis| index(axis) + if axis == self.axis { self.range.start } else { 0 })
        })
    }

    fn numbers(&self) -> Vec<(&'static str, f64)> {
        vec![("start", self.range.start as f64), ("end", self.range.end as f64)]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        if cut.at.input(0).axis() != Some(self.axis) {
            return cut.same();
        }
        Self { axis: self.axis, range: cut.before(0, self.range.start)..cut.before(0, self.range.end) }.into()
    }
}

/// The axes in another order: axis `i` of the output is axis `order[i]` of the input.
#[derive(Debug, Clone)]
pub struct Transpose {
    order: Vec<usize>,
}

impl Transpose {
    /// In this order.
    #[must_use]
    pub fn new(order: &[usize]) -> Self {
        Self { order: order.to_vec() }
    }

    fn to(&self, axis: usize) -> usize {
        self.order.iter().position(|&a| a == axis).unwrap_or_default()
    }
}

impl Rule for Transpose {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let mut layout = link.input()?.clone();
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..layout.shape.len()) {
            let found = format!("{:?}", self.order);
            return Err(Error::argument("order of axes", found, "each axis of the input once"));
        }
        layout.shape = self.order.iter().map(|&axis| layout.shape[axis]).collect();
        if let Some(channels) = &mut layout.channels {
            channels.axis = self.to(channels.axis);
        }
        Ok(layout)
    }

    fn constants(&self, _: At<'_>, _: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let axes = inputs[0].axes.iter().map(|&axis| self.to(axis)).collect();
        Constants { axes, ..inputs[0].clone() }
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}
