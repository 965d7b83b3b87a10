//! How large a model is that keeps so many channels of each group.

use super::{latency::LatencyTable, rules::Cost, topology::Graph};
use crate::error::{Error, Result};

/// A length: of channels of groups, each so often; or fixed.
#[derive(Debug, Clone, PartialEq)]
enum Length {
    Fixed(usize),
    Channels(Vec<(usize, usize)>),
}

impl Length {
    fn of(graph: &Graph, atoms: &[usize]) -> Self {
        let mut counts = vec![0usize; graph.groups.len()];
        atoms.iter().for_each(|&atom| counts[graph.places[atom].group] += 1);
        let used = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Self::Channels(used.map(|(group, count)| (group, count / graph.groups[group].size.max(1))).collect())
    }

    fn at(&self, widths: &[usize]) -> usize {
        match self {
            Self::Fixed(n) => *n,
            Self::Channels(groups) => groups.iter().map(|&(group, count)| widths[group] * count).sum(),
        }
    }
}

/// Sizes as functions of the groups' widths.
#[derive(Debug)]
pub(super) struct Sizes {
    /// The axes of each tensor.
    tensors: Vec<Vec<Length>>,
    /// The channels of each value.
    values: Vec<Length>,
    costs: Vec<Cost>,
    /// Of each node that a table times: its name, what it reads and what it gives.
    timed: Vec<(String, Option<usize>, usize)>,
}

impl Sizes {
    pub(super) fn new(graph: &Graph) -> Self {
        let axis = |axis: &super::topology::Axis, &n: &usize| {
            axis.atoms.as_ref().map_or(Length::Fixed(n), |atoms| Length::of(graph, atoms))
        };
        let tensors = graph.tensors.iter();
        let tensors = tensors.map(|tensor| tensor.axes.iter().zip(&tensor.shape).map(|(a, n)| axis(a, n)).collect());
        let values = graph.nodes.iter().map(|node| match node.layout.axis() {
            Some(_) => Length::of(graph, node.layout.atoms()),
            None => Length::Fixed(node.layout.width()),
        });
        let timed = graph.nodes.iter().enumerate();
        let timed = timed.map(|(value, node)| (node.name.clone(), node.inputs.first().copied(), value));
        Self {
            tensors: tensors.collect(),
            values: values.collect(),
            costs: (0..graph.nodes.len()).flat_map(|node| graph.at(node).costs()).collect(),
            timed: timed.collect(),
        }
    }

    fn tensor(&self, index: usize, widths: &[usize]) -> usize {
        self.tensors[index].iter().map(|axis| axis.at(widths)).product()
    }

    /// Numbers in all tensors.
    pub(super) fn params(&self, widths: &[usize]) -> usize {
        (0..self.tensors.len()).map(|index| self.tensor(index, widths)).fold(0, usize::saturating_add)
    }

    /// Multiplications of one pass.
    pub(super) fn macs(&self, widths: &[usize]) -> usize {
        let cost = |cost: &Cost| match *cost {
            Cost::Tensor { positions, tensor } => positions.saturating_mul(self.tensor(tensor, widths)),
            Cost::Channels { factor, value } => factor.saturating_mul(self.values[value].at(widths)),
        };
        self.costs.iter().map(cost).fold(0, usize::saturating_add)
    }

    /// The time of all nodes of a table.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when an entry is missing, or is of no node.
    pub(super) fn latency(&self, table: &LatencyTable, widths: &[usize]) -> Result<f64> {
        let time = |name: &str| {
            let known = self.timed.iter().find(|(node, ..)| node == name);
            let (_, input, output) =
                known.ok_or_else(|| Error::argument("node of the latency table", name, "one of the model's"))?;
            let inputs = input.map_or(0, |input| self.values[input].at(widths));
            let outputs = self.values[*output].at(widths);
            let time = table.time(name, inputs, outputs);
            time.ok_or_else(|| {
                let found = format!("without an entry for {inputs} to {outputs} channels");
                Error::argument("latency table", found, "one that has one at least as wide").in_tensor(name)
            })
        };
        table.nodes().map(time).sum()
    }
}
