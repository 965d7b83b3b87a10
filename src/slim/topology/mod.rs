//! Which channels of which tensors belong together, found along the graph of a model.

mod block;
mod builder;
mod group;
mod layout;
mod link;
mod replay;
mod tensor;
mod union;

pub use builder::{Builder, Value};
pub use group::{Group, Member, Role};
pub(crate) use {
    block::Block,
    builder::Entry,
    group::Place,
    layout::Layout,
    link::Link,
    tensor::{Axis, Shape},
    union::{Atom, Union},
};

use super::{rules::At, size::Sizes};
use crate::error::{Error, Result};
use std::{collections::BTreeMap, sync::Arc};

/// A model: its nodes, its tensors' shapes, and the groups of channels that follow from them.
///
/// A channel is an index along an axis of a value or of a tensor. Nodes say which are the same: a dense layer's inputs are
/// the columns of its weights, both operands of a sum have their channels in common, a concatenation puts them one after
/// another. What must stay or go together is found by joining these along the graph, index by index. Inputs and
/// outputs of the model, and what [unknown operators](super::Opaque) touch, are frozen.
///
/// ```
/// use lapidary::slim::{Activation, Conv, Dense, Input, Pool, Reshape, Topology};
/// let shapes: [(&str, &[usize]); 4] =
///     [("c1.weight", &[6, 1, 5, 5]), ("c1.bias", &[6]), ("f1.weight", &[10, 864]), ("f1.bias", &[10])];
/// let mut model = Topology::builder(shapes)?;
/// let x = model.add("x", Input::new(&[1, 28, 28], 0), [])?;
/// let x = model.add("c1", Conv::new("c1.weight").with_bias("c1.bias"), [x])?;
/// let x = model.add("relu", Activation::Relu, [x])?;
/// let x = model.add("pool", Pool::max(&[2, 2]), [x])?;
/// let x = model.add("flat", Reshape::flat(), [x])?;
/// let x = model.add("f1", Dense::new("f1.weight").with_bias("f1.bias"), [x])?;
/// model.output(x)?;
/// let topology = model.build()?;
/// let c1 = topology.group("c1").unwrap();
/// assert_eq!(c1.size, 6);
/// // A channel has 144 columns of the dense layer: 12 x 12 pixels.
/// assert_eq!(c1.members.iter().map(|m| (m.tensor.as_str(), m.axis, m.indices)).collect::<Vec<_>>(),
///     [("c1.weight", 0, 1), ("c1.bias", 0, 1), ("f1.weight", 1, 144)]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Topology(pub(super) Arc<Graph>);

/// All that a topology holds.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) tensors: Vec<Shape>,
    names: BTreeMap<String, usize>,
    /// In order; the index of a node is that of its output.
    pub(crate) nodes: Vec<Entry>,
    node_names: BTreeMap<String, usize>,
    /// The nodes that read each value.
    pub(crate) readers: Vec<Vec<usize>>,
    pub(crate) groups: Vec<Group>,
    /// Of each channel.
    pub(crate) places: Vec<Place>,
    pub(crate) blocks: Vec<Block>,
}

impl Topology {
    /// Starts a model from the names and shapes of its tensors.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a name given twice; [`Empty`](crate::ErrorKind::Empty) for a tensor
    /// without elements.
    pub fn builder<N: Into<String>, S: AsRef<[usize]>>(shapes: impl IntoIterator<Item = (N, S)>) -> Result<Builder> {
        Builder::new(shapes)
    }

    /// All groups, in the order of the model.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.0.groups
    }

    /// The group of a name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.0.groups.iter().find(|group| group.name == name)
    }

    /// Names and shapes of all tensors, in the order they were declared.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.0.tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.shape[..]))
    }

    /// Names of the blocks that can be dropped.
    pub fn blocks(&self) -> impl Iterator<Item = &str> {
        self.0.blocks.iter().map(|block| block.name.as_str())
    }

    /// Numbers in all tensors.
    #[must_use]
    pub fn params(&self) -> usize {
        let volume = |tensor: &Shape| tensor.shape.iter().product::<usize>();
        self.0.tensors.iter().map(volume).fold(0, usize::saturating_add)
    }

    /// Multiplications by weights, and of attention, in one pass of one sample.
    #[must_use]
    pub fn macs(&self) -> usize {
        let full: Vec<usize> = self.groups().iter().map(|group| group.size).collect();
        Sizes::new(&self.0).macs(&full)
    }

    /// The shape of the output of a node, for one sample.
    #[must_use]
    pub fn shape(&self, node: &str) -> Option<&[usize]> {
        self.0.node_names.get(node).map(|&node| &self.0.nodes[node].layout.shape[..])
    }

    /// The axis of the channels of a node's output, and for each index along it its group and its place there.
    #[cfg(feature = "rten")]
    pub(crate) fn channels(&self, node: &str) -> Option<(usize, Vec<Place>)> {
        let layout = &self.0.nodes[*self.0.node_names.get(node)?].layout;
        Some((layout.axis()?, layout.atoms().iter().map(|&atom| self.0.places[atom]).collect()))
    }

    /// A number of a node that slimming may change: `"groups"` of a convolution or a group norm, `"heads"` and `"key_heads"` of
    /// attention, `"eps"` of an RMS norm, `"start"` and `"end"` of a slice.
    #[must_use]
    pub fn number(&self, node: &str, name: &str) -> Option<f64> {
        let numbers = self.0.nodes[*self.0.node_names.get(node)?].rule.rule().numbers();
        numbers.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number)
    }
}

impl Graph {
    pub(crate) fn at(&self, node: usize) -> At<'_> {
        At { graph: self, node }
    }

    pub(crate) fn find_tensor(&self, name: &str) -> Result<usize> {
        let known = self.names.get(name).copied();
        known.ok_or_else(|| Error::argument("tensor", format!("{name:?}"), "one of the topology's"))
    }

    /// How many nodes use a tensor.
    pub(crate) fn users(&self, tensor: &str) -> usize {
        self.nodes.iter().filter(|node| node.rule.rule().tensors().contains(&tensor)).count()
    }

    pub(crate) fn find_node(&self, name: &str) -> Result<usize> {
        let known = self.node_names.get(name).copied();
        known.ok_or_else(|| Error::argument("node", format!("{name:?}"), "one of the topology's"))
    }

    pub(crate) fn find_group(&self, name: &str) -> Result<usize> {
        let known = self.groups.iter().position(|group| group.name == name);
        known.ok_or_else(|| Error::argument("group", format!("{name:?}"), "one of the topology's"))
    }
}
