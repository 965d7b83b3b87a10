//! Recurrent cells, whose weights hold the gates of a unit one below the other.

use super::{At, Constants, Cost, Cut, Fold, Node, Reads, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link, Role},
};

/// A kind of recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cell {
    /// Four gates.
    Lstm,
    /// Three gates.
    Gru,
    /// One, tanh or ReLU.
    Rnn,
}

impl Cell {
    /// How many rows of the weights a unit has.
    #[must_use]
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
            Self::Rnn => 1,
        }
    }
}

/// One direction of a recurrent layer over (steps, inputs), which gives its state at each of them: weights of shape
/// (gates × units, inputs) and (gates × units, units), biases of gates × units, the gates in any order. It starts from the state 0.
///
/// A unit goes with its rows of all gates, its biases and its column of the recurrent weights: its state is then always 0. A
/// constant input that goes is folded into the first bias, exactly. Two directions are two nodes and a [`Concat`](super::Concat).
#[derive(Debug, Clone)]
pub struct Recurrent {
    cell: Cell,
    input: String,
    hidden: String,
    biases: Option<[String; 2]>,
}

impl Recurrent {
    /// By the names of its weights for inputs and for the state.
    #[must_use]
    pub fn new(cell: Cell, input: impl Into<String>, hidden: impl Into<String>) -> Self {
        Self { cell, input: input.into(), hidden: hidden.into(), biases: None }
    }

    /// With biases, of inputs and of the state.
    #[must_use]
    pub fn with_biases(self, input: impl Into<String>, hidden: impl Into<String>) -> Self {
        Self { biases: Some([input.into(), hidden.into()]), ..self }
    }

    fn bias_names(&self) -> impl Iterator<Item = &String> {
        self.biases.iter().flatten().filter(|name| !name.is_empty())
    }
}

impl Rule for Recurrent {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let input = link.input()?;
        let [steps, inputs] = input.shape[..] else {
            let found = format!("of shape {:?}", input.shape);
            return Err(Error::argument("input", found, "of shape (steps, inputs)"));
        };
        let shape = link.shape(&self.hidden)?;
        let units = shape.get(1).copied().unwrap_or(0);
        let rows = units.saturating_mul(self.cell.gates());
        for (name, expected) in [(&self.hidden, [rows, units]), (&self.input, [rows, inputs])] {
            let shape = link.shape(name)?;
            if shape != expected {
                return Err(Error::shape("weights", &expected, &shape).in_tensor(name));
            }
        }
        let atoms = link.fresh(units)?;
        let rows = atoms.repeat(self.cell.gates());
        link.axis(&self.input, 0, &rows, Role::Produces)?;
        link.axis(&self.hidden, 0, &rows, Role::Produces)?;
        link.axis(&self.hidden, 1, &atoms, Role::Consumes)?;
        for bias in self.bias_names() {
            link.vector(bias, rows.len())?;
            link.axis(bias, 0, &rows, Role::Produces)?;
        }
        match input.along(1) {
            Some(atoms) => link.axis(&self.input, 1, atoms, Role::Consumes)?,
            None => link.freeze(input.atoms(), "on the axis of steps of"),
        }
        Ok(Layout::new(vec![steps, units], 1, atoms))
    }

    fn tensors(&self) -> Vec<&str> {
        let biases = self.bias_names().map(String::as_str);
        [self.input.as_str(), &self.hidden].into_iter().chain(biases).collect()
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, _: &[Constants], masked: bool) -> Constants {
        let units = at.output().atoms().len();
        let mut zero = vec![true; units];
        if !masked {
            for tensor in self.tensors() {
                let values = at.values(weights, tensor);
                let width = values.len() / (units * self.cell.gates());
                for (row, values) in values.chunks(width.max(1)).enumerate() {
                    zero[row % units] &= values.iter().all(|w| *w == 0.0);
                }
            }
        }
        Constants::new(at.output(), zero.into_iter().map(|zero| zero.then_some(0.0)).collect())
    }

    fn reads(&self, at: At<'_>, weights: &dyn Source, _: usize) -> Vec<Reads> {
        columns(at, weights, &self.input, at.input(0).along(1).map_or(0, <[_]>::len))
    }

    fn feeds_back(&self, at: At<'_>, weights: &dyn Source) -> Vec<Reads> {
        columns(at, weights, &self.hidden, at.output().atoms().len())
    }

    fn fold(&self, fold: &mut Fold<'_>) {
        let dropped = fold.dropped(0, &self.input, 1);
        if dropped.is_empty() || fold.at.input(0).axis() != Some(1) {
            return;
        }
        let values = fold.at.values(fold.weights, &self.input);
        let width = fold.at.shape(&self.input)[1];
        let shift = |row: &[f64]| dropped.iter().map(|&(i, c)| row[i] * c).sum();
        let shifts = values.chunks(width).map(shift).collect();
        let rows = fold.at.output().atoms().repeat(self.cell.gates());
        fold.shift(self.bias_names().next().map(String::as_str), shifts, &rows);
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        let mut slim = self.clone();
        if let Some(made) = cut.bias() {
            // Of the inputs; the state has none where there was none.
            let state = self.biases.as_ref().map_or_else(String::new, |[_, state]| state.clone());
            slim.biases = Some([made.to_owned(), state]);
        }
        slim.into()
    }

    fn costs(&self, at: At<'_>) -> Vec<Cost> {
        let steps = at.output().shape[0];
        [&self.input, &self.hidden].into_iter().filter_map(|tensor| at.cost(steps, tensor)).collect()
    }
}

/// How the columns of weights read so many channels.
fn columns(at: At<'_>, weights: &dyn Source, tensor: &str, channels: usize) -> Vec<Reads> {
    let values = at.values(weights, tensor);
    let width = at.shape(tensor).get(1).copied().unwrap_or(1);
    let read = |i: usize| {
        let silent = values.iter().skip(i).step_by(width).all(|w| *w == 0.0);
        if silent { Reads::Nothing } else { Reads::Constant }
    };
    (0..channels).map(read).collect()
}
