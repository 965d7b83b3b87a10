//! What a rule sees of the model while it is asked.

use super::Rule;
use crate::slim::{
    analysis::{Analysis, Verdict},
    topology::{Atom, Graph, Layout, Role},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// A node in its model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) node: usize,
}

impl<'a> At<'a> {
    pub(crate) fn name(self) -> &'a str {
        &self.graph.nodes[self.node].name
    }

    pub(crate) fn input(self, k: usize) -> &'a Layout {
        &self.graph.nodes[self.graph.nodes[self.node].inputs[k]].layout
    }

    pub(crate) fn output(self) -> &'a Layout {
        &self.graph.nodes[self.node].layout
    }

    /// The shape of a tensor, which linking has seen.
    pub(crate) fn shape(self, tensor: &str) -> &'a [usize] {
        self.graph.find_tensor(tensor).map_or(&[], |index| &self.graph.tensors[index].shape)
    }

    /// Whether an axis of a tensor makes channels, for this node or another.
    pub(crate) fn produces(self, tensor: &str, axis: usize) -> bool {
        let axes = self.graph.find_tensor(tensor).map(|index| &self.graph.tensors[index].axes);
        axes.is_ok_and(|axes| axes.get(axis).is_some_and(|axis| axis.roles.contains(&Role::Produces)))
    }

    pub(crate) fn values(self, weights: &dyn Source, tensor: &str) -> Vec<f64> {
        self.graph.find_tensor(tensor).map_or_else(|_| Vec::new(), |index| weights.values(index))
    }

    /// As [`values`](At::values), or `len` zeros without a tensor.
    pub(crate) fn values_or_zeros(self, weights: &dyn Source, tensor: Option<&str>, len: usize) -> Vec<f64> {
        tensor.map_or_else(|| vec![0.0; len], |tensor| self.values(weights, tensor))
    }

    pub(crate) fn costs(self) -> Vec<Cost> {
        self.rule().costs(self)
    }

    pub(crate) fn rule(self) -> &'a dyn Rule {
        self.graph.nodes[self.node].rule.rule()
    }

    /// The multiplications by a tensor, each element at so many positions.
    pub(crate) fn cost(self, positions: usize, tensor: &str) -> Option<Cost> {
        self.graph.find_tensor(tensor).ok().map(|tensor| Cost::Tensor { positions, tensor })
    }
}

/// The numbers of the model's tensors, by index.
pub(crate) trait Source {
    /// All of a tensor.
    fn values(&self, tensor: usize) -> Vec<f64>;
    /// Appends some elements of a tensor.
    fn read(&self, tensor: usize, range: Range<usize>, values: &mut Vec<f64>);
    /// Whether some elements of a tensor are all 0.
    fn is_zero(&self, tensor: usize, range: Range<usize>) -> bool;
}

/// A number of multiplications.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cost {
    /// Each element of the tensor at each position.
    Tensor { positions: usize, tensor: usize },
    /// So many for each channel of a value.
    Channels { factor: usize, value: usize },
}

/// How a node reads a channel of its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reads {
    /// By weights that are 0, or only to make channels that go with it.
    Nothing,
    /// Any constant can be folded.
    Constant,
    /// Only 0 can be left out exactly, and why.
    Zero(String),
    /// Nothing can be left out exactly, and why.
    Never(String),
}

/// What is known of a value, whatever the model's inputs are: a number for each index along `axes`, the same at all other
/// axes' indices. The axis of the channels is among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Constants {
    pub(crate) axes: Vec<usize>,
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<Option<f64>>,
}

impl Constants {
    /// Of a value's channels, a number each.
    pub(crate) fn new(layout: &Layout, values: Vec<Option<f64>>) -> Self {
        match layout.axis() {
            Some(axis) if values.len() == layout.shape[axis] => {
                Self { axes: vec![axis], dims: vec![values.len()], values }
            }
            _ => Self::unknown(layout),
        }
    }

    /// Nothing is known.
    pub(crate) fn unknown(layout: &Layout) -> Self {
        Self::all(layout, None)
    }

    /// The same of each channel.
    pub(crate) fn all(layout: &Layout, value: Option<f64>) -> Self {
        match layout.axis() {
            Some(axis) => {
                Self { axes: vec![axis], dims: vec![layout.shape[axis]], values: vec![value; layout.shape[axis]] }
            }
            None => Self { axes: Vec::new(), dims: Vec::new(), values: vec![None] },
        }
    }

    /// From what is known at each index along these axes.
    pub(crate) fn tabulate(layout: &Layout, axes: Vec<usize>, f: impl Fn(&[usize]) -> Option<f64>) -> Self {
        let dims: Vec<usize> = axes.iter().map(|&axis| layout.shape[axis]).collect();
        let mut place = vec![0; axes.len()];
        let count = dims.iter().product();
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(f(&place));
            for (index, &n) in place.iter_mut().zip(&dims).rev() {
                *index += 1;
                if *index < n {
                    break;
                }
                *index = 0;
            }
        }
        Self { axes, dims, values }
    }

    /// What is known at the place with these indices along the axes.
    pub(crate) fn get(&self, index: impl Fn(usize) -> usize) -> Option<f64> {
        let at =
            self.axes.iter().zip(&self.dims).fold(0, |at, (&axis, &n)| at * n + if n == 1 { 0 } else { index(axis) });
        self.values.get(at).copied().flatten()
    }

    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { values: self.values.iter().map(|value| value.map(&f)).collect(), ..self.clone() }
    }

    /// As `sure` says where it knows, of the channels that pass a test; else as these.
    pub(crate) fn or(self, sure: &Self, layout: &Layout, test: impl Fn(usize) -> bool) -> Self {
        let Some(channels) = layout.axis() else { return self };
        let axes: BTreeSet<usize> = self.axes.iter().chain(&sure.axes).copied().collect();
        let axes: Vec<usize> = axes.into_iter().collect();
        Self::tabulate(layout, axes.clone(), |place| {
            let index = |axis: usize| axes.iter().position(|&a| a == axis).map_or(0, |at| place[at]);
            sure.get(index).filter(|_| test(index(channels))).or_else(|| self.get(index))
        })
    }

    /// Of each channel, where it is the same at all its other indices.
    pub(crate) fn per_channel(&self, layout: &Layout) -> Vec<Option<f64>> {
        let Some(axis) = layout.axis() else { return Vec::new() };
        let count = layout.shape[axis];
        let Some(at) = self.axes.iter().position(|&a| a == axis) else { return vec![None; count] };
        let inner: usize = self.dims[at + 1..].iter().product();
        let mut channels: Vec<Option<Option<f64>>> = vec![None; count];
        for block in self.values.chunks(inner * count) {
            for (channel, values) in channels.iter_mut().zip(block.chunks(inner)) {
                let first = channel.unwrap_or(values[0]);
                *channel = Some(first.filter(|_| values.iter().all(|value| *value == first)));
            }
        }
        channels.into_iter().map(Option::flatten).collect()
    }
}

/// Which channels of each group stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept(pub(crate) Vec<Vec<bool>>);

impl Kept {
    pub(crate) fn has(&self, graph: &Graph, atom: Atom) -> bool {
        let place = graph.places[atom];
        self.0[place.group][place.at]
    }

    /// The indices of a list of channels that stay.
    pub(crate) fn indices(&self, graph: &Graph, atoms: &[Atom]) -> Vec<usize> {
        atoms.iter().enumerate().filter(|&(_, &atom)| self.has(graph, atom)).map(|(i, _)| i).collect()
    }
}

/// What a fold changes in the tensors.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// New numbers of whole tensors.
    pub(crate) tensors: BTreeMap<usize, Vec<f64>>,
    /// New biases: of each node that got one its name, its numbers and its channels.
    pub(crate) biases: BTreeMap<usize, (String, Vec<f64>, Vec<Atom>)>,
    /// What a value of the slim model lacks of that of the masked one, for the node that reads it to put right.
    pub(crate) offsets: BTreeMap<usize, Vec<f64>>,
}

/// The folding of one node.
pub(crate) struct Fold<'a> {
    pub(crate) at: At<'a>,
    pub(crate) weights: &'a dyn Source,
    pub(crate) kept: &'a Kept,
    pub(crate) analysis: &'a Analysis,
    pub(crate) edits: &'a mut Edits,
}

impl Fold<'_> {
    /// The channels of an input that go and are not 0, and what they are, as a tensor with them on an axis reads them. A tensor that
    /// also makes channels there (tied weights) is masked with those that were no constants, and adds nothing for them.
    pub(crate) fn dropped(&self, k: usize, tensor: &str, axis: usize) -> Vec<(usize, f64)> {
        let value = self.at.graph.nodes[self.at.node].inputs[k];
        let (layout, tied) = (self.at.input(k), self.at.produces(tensor, axis));
        let constants = self.analysis.gone[value].per_channel(layout);
        let gone = layout.atoms().iter().zip(constants).enumerate();
        let gone = gone.filter(|(_, (atom, _))| !self.kept.has(self.at.graph, **atom));
        let gone =
            gone.filter(|(_, (atom, _))| !tied || self.analysis.verdict(self.at.graph, **atom) == Verdict::Constant);
        gone.filter_map(|(i, (_, constant))| Some((i, constant.filter(|c| *c != 0.0)?))).collect()
    }

    /// How many of how many channels of an input stay.
    pub(crate) fn counts(&self, k: usize) -> (usize, usize) {
        let atoms = self.at.input(k).atoms();
        (self.kept.indices(self.at.graph, atoms).len(), atoms.len())
    }

    fn edit(&mut self, tensor: &str, change: impl Fn(usize, f64) -> f64) {
        let Ok(index) = self.at.graph.find_tensor(tensor) else { return };
        let weights = self.weights;
        let values = self.edits.tensors.entry(index).or_insert_with(|| weights.values(index));
        values.iter_mut().enumerate().for_each(|(i, value)| *value = change(i, *value));
    }

    /// Adds to a tensor.
    pub(crate) fn add(&mut self, tensor: &str, shifts: &[f64]) {
        self.edit(tensor, |i, value| value + shifts.get(i).copied().unwrap_or(0.0));
    }

    /// Multiplies a tensor; once, whoever else uses it.
    pub(crate) fn scale(&mut self, tensor: &str, factor: f64) {
        let index = self.at.graph.find_tensor(tensor);
        if index.is_ok_and(|index| !self.edits.tensors.contains_key(&index)) {
            self.edit(tensor, |_, value| value * factor);
        }
    }

    /// Adds to each channel of the output: to the bias, or for a node after that [takes](super::Rule::absorbs) it, or
    /// to a new bias, `NODE.bias`, for these channels.
    pub(crate) fn shift(&mut self, bias: Option<&str>, shifts: Vec<f64>, atoms: &[Atom]) {
        let graph = self.at.graph;
        if shifts.iter().all(|shift| *shift == 0.0) {
            return;
        }
        let alone = |tensor: &str| graph.users(tensor) == 1;
        if let Some(bias) = bias.filter(|bias| alone(bias)) {
            return self.add(bias, &shifts);
        }
        // A bias that other nodes use too stays theirs.
        let own = self.at.values_or_zeros(self.weights, bias, shifts.len());
        let shifts: Vec<f64> = own.iter().zip(shifts).map(|(bias, shift)| bias + shift).collect();
        if bias.is_none()
            && let [reader] = graph.readers[self.at.node][..]
            && graph.at(reader).rule().absorbs().is_some_and(alone)
            // Its tensor is for the first axis.
            && self.at.output().along(0) == Some(atoms)
            && !graph.nodes[self.at.node].output
        {
            self.edits.offsets.insert(self.at.node, shifts);
            return;
        }
        let name = format!("{}.bias", self.at.name());
        let free = |name: &String| graph.find_tensor(name).is_err();
        let numbered = (2..).map(|i| format!("{name}.{i}"));
        let name = std::iter::once(name.clone()).chain(numbered).find(free).unwrap_or_default();
        self.edits.biases.insert(self.at.node, (name, shifts, atoms.to_vec()));
    }

    /// What the input lacks, one number a channel.
    pub(crate) fn offset(&self, k: usize) -> Option<Vec<f64>> {
        self.edits.offsets.get(&self.at.graph.nodes[self.at.node].inputs[k]).cloned()
    }
}

/// A node of the slim model in the making.
#[derive(Clone, Copy)]
pub(crate) struct Cut<'a> {
    pub(crate) at: At<'a>,
    pub(crate) kept: &'a Kept,
    pub(crate) edits: &'a Edits,
}

impl<'a> Cut<'a> {
    /// How many of the channels at `range` of a value stay.
    fn count(self, layout: &Layout, range: Range<usize>) -> usize {
        let atoms = layout.atoms().get(range).unwrap_or_default();
        self.kept.indices(self.at.graph, atoms).len()
    }

    /// How many of how many channels of an input stay.
    pub(crate) fn counts(self, k: usize) -> (usize, usize) {
        let atoms = self.at.input(k).atoms().len();
        (self.count(self.at.input(k), 0..atoms), atoms)
    }

    /// How many of the first channels of an input stay.
    pub(crate) fn before(self, k: usize, index: usize) -> usize {
        self.count(self.at.input(k), 0..index)
    }

    /// The output's shape.
    pub(crate) fn output_shape(self) -> Vec<usize> {
        let layout = self.at.output();
        let mut shape = layout.shape.clone();
        if let Some(axis) = layout.axis() {
            shape[axis] = self.count(layout, 0..shape[axis]);
        }
        shape
    }

    /// The name of a bias that folding made.
    pub(crate) fn bias(self) -> Option<&'a str> {
        self.edits.biases.get(&self.at.node).map(|(name, ..)| name.as_str())
    }

    /// The node as it is.
    pub(crate) fn same(self) -> super::Node {
        self.at.graph.nodes[self.at.node].rule.clone()
    }
}
