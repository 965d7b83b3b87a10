//! Several values made into one: element by element, or one after another.

use super::{At, Constants, Cut, Node, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link},
};
use std::collections::BTreeSet;

/// An operation on the elements of two or more values, which are broadcast as in NumPy. Their channels become one, index by index.
///
/// A value that is the same for all channels (a length of 1) may be joined with any; one whose channels nobody knows freezes the
/// others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// The sum: a residual connection.
    Add,
    /// The first less the others.
    Sub,
    /// The product: a gate.
    Mul,
    /// The first divided by the others.
    Div,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Binary {
    fn of(self, a: Option<f64>, b: Option<f64>) -> Option<f64> {
        match (self, a, b) {
            // 0 times whatever it is.
            (Self::Mul, Some(0.0), _) | (Self::Mul, _, Some(0.0)) => Some(0.0),
            (Self::Add, Some(a), Some(b)) => Some(a + b),
            (Self::Sub, Some(a), Some(b)) => Some(a - b),
            (Self::Mul, Some(a), Some(b)) => Some(a * b),
            (Self::Div, Some(a), Some(b)) => Some(a / b),
            (Self::Max, Some(a), Some(b)) => Some(a.max(b)),
            (Self::Min, Some(a), Some(b)) => Some(a.min(b)),
            _ => None,
        }
        .filter(|c| c.is_finite())
    }
}

/// The shape that all can be broadcast to.
fn broadcast(inputs: &[Layout]) -> Result<Vec<usize>> {
    let rank = inputs.iter().map(|input| input.shape.len()).max().unwrap_or(0);
    let mut shape = vec![1; rank];
    for input in inputs {
        for (axis, &n) in input.shape.iter().enumerate() {
            let length = &mut shape[axis + rank - input.shape.len()];
            if *length == 1 {
                *length = n;
            } else if n != 1 && n != *length {
                return Err(Error::shape("operand", &inputs[0].shape, &input.shape));
            }
        }
    }
    Ok(shape)
}

impl Rule for Binary {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let inputs = link.inputs();
        if inputs.len() < 2 {
            return Err(Error::argument("number of inputs", inputs.len(), "at least 2"));
        }
        let shape = broadcast(inputs)?;
        let shifted = |input: &Layout| input.axis().map(|axis| axis + shape.len() - input.shape.len());
        // A single channel that is broadcast says nothing of the others.
        let full = |input: &&Layout| shifted(input).is_some_and(|axis| input.atoms().len() == shape[axis]);
        let Some(first) = inputs.iter().find(full) else {
            inputs.iter().for_each(|input| link.freeze(input.atoms(), "broadcast by"));
            return Ok(Layout { shape, channels: None });
        };
        let axis = shifted(first).unwrap_or_default();
        let mut known = true;
        for input in inputs {
            let own = (axis + input.shape.len()).checked_sub(shape.len());
            let length = own.map_or(1, |own| input.shape[own]);
            match shifted(input) {
                Some(other) if other != axis => known = false,
                Some(_) if length == shape[axis] => link.unite(first.atoms(), input.atoms()),
                Some(_) => link.freeze(input.atoms(), "broadcast by"),
                None => known &= length == 1,
            }
        }
        if !known {
            inputs.iter().for_each(|input| link.freeze(input.atoms(), "joined with unknown channels by"));
        }
        Ok(Layout::new(shape, axis, first.atoms().to_vec()))
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let output = at.output();
        let shift = |k: usize| output.shape.len() - at.input(k).shape.len();
        let tracked = |k: &usize| at.input(*k).axis().is_some();
        let axes =
            (0..inputs.len()).filter(tracked).flat_map(|k| inputs[k].axes.iter().map(move |axis| axis + shift(k)));
        let axes: Vec<usize> = axes.collect::<BTreeSet<_>>().into_iter().collect();
        if output.axis().is_none_or(|axis| !axes.contains(&axis)) {
            return Constants::unknown(output);
        }
        Constants::tabulate(output, axes.clone(), |place| {
            let known = |k: usize| {
                let index = |axis: usize| axes.iter().position(|&a| a == axis + shift(k)).map_or(0, |at| place[at]);
                inputs[k].get(index).filter(|_| tracked(&k))
            };
            (1..inputs.len()).fold(known(0), |value, k| self.of(value, known(k)))
        })
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

/// Values one after another along an axis. Along that of the channels, theirs follow one another; along any other, they are one.
#[derive(Debug, Clone)]
pub struct Concat {
    axis: usize,
}

impl Concat {
    /// Along an axis.
    #[must_use]
    pub fn new(axis: usize) -> Self {
        Self { axis }
    }
}

impl Rule for Concat {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let inputs = link.inputs();
        let mut shape = inputs.first().map(|input| input.shape.clone()).unwrap_or_default();
        if self.axis >= shape.len() {
            return Err(Error::argument("axis", self.axis, "one of the inputs'"));
        }
        shape[self.axis] = 0;
        for input in inputs {
            let alike = input.shape.len() == shape.len()
                && (0..shape.len()).all(|axis| axis == self.axis || input.shape[axis] == shape[axis]);
            if !alike {
                return Err(Error::shape("input", &inputs[0].shape, &input.shape));
            }
            shape[self.axis] = shape[self.axis].saturating_add(input.shape[self.axis]);
        }
        let Some(first) = inputs.iter().find(|input| input.channels.is_some()) else {
            return Ok(Layout { shape, channels: None });
        };
        let axis = first.axis().unwrap_or_default();
        let mut atoms = Vec::new();
        for input in inputs {
            match input.along(axis) {
                Some(own) if axis == self.axis => atoms.extend_from_slice(own),
                Some(own) => link.unite(first.atoms(), own),
                None => {
                    link.freeze(input.atoms(), "put beside other channels by");
                    if axis == self.axis {
                        atoms.extend(link.fresh_frozen(input.shape[axis], "unknown channels into")?);
                    } else {
                        link.freeze(first.atoms(), "put beside unknown channels by");
                    }
                }
            }
        }
        if axis != self.axis {
            atoms = first.atoms().to_vec();
        }
        Ok(Layout::new(shape, axis, atoms))
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let output = at.output();
        let Some(axis) = output.axis() else { return Constants::unknown(output) };
        let given = |k: usize| match at.input(k) {
            input if input.axis() == Some(axis) => inputs[k].per_channel(input),
            input => vec![None; input.shape[axis]],
        };
        if axis == self.axis {
            return Constants::new(output, (0..inputs.len()).flat_map(given).collect());
        }
        let equal = |a: Vec<Option<f64>>, b: Vec<Option<f64>>| {
            a.into_iter().zip(b).map(|(a, b)| a.filter(|a| Some(*a) == b)).collect()
        };
        Constants::new(output, (0..inputs.len()).map(given).reduce(equal).unwrap_or_default())
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}
