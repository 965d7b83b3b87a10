//! A topology in the making: nodes are added one after another.

use super::{Graph, Topology, block::Block, group::collect, layout::Layout, link::Link, tensor::Shape, union::Union};
use crate::{
    error::{Error, Result},
    slim::rules::Node,
    tensor::view::checked_volume,
};
use std::{collections::BTreeMap, sync::Arc};

/// The output of a node, to be read by later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(super) usize);

/// A node that was added.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) rule: Node,
    pub(crate) inputs: Vec<usize>,
    pub(crate) layout: Layout,
    /// Whether its output is one of the model's.
    pub(crate) output: bool,
}

/// Describes a model: [`add`](Builder::add) its nodes in order, say what its [`output`](Builder::output)s are, and
/// [`build`](Builder::build). Made by [`Topology::builder`].
#[derive(Debug, Clone, Default)]
pub struct Builder {
    pub(super) tensors: Vec<Shape>,
    names: BTreeMap<String, usize>,
    pub(super) nodes: Vec<Entry>,
    node_names: BTreeMap<String, usize>,
    pub(super) union: Union,
    pub(super) blocks: Vec<Block>,
}

impl Builder {
    pub(super) fn new<N: Into<String>, S: AsRef<[usize]>>(shapes: impl IntoIterator<Item = (N, S)>) -> Result<Self> {
        let mut builder = Self::default();
        for (name, shape) in shapes {
            builder.declare(&name.into(), shape.as_ref())?;
        }
        Ok(builder)
    }

    /// Adds a node that reads earlier values, and gives its output. Its name is that of its channels in reports.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a name that is taken, a tensor that was not declared, or a node that does
    /// not take such inputs; [`Shape`](crate::ErrorKind::Shape) when tensors or values do not fit one another. The
    /// error names the tensor or the node; nothing is added then.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        node: impl Into<Node>,
        inputs: impl AsRef<[Value]>,
    ) -> Result<Value> {
        let (name, node) = (name.into(), node.into());
        let (inputs, layout) = self.link(&name, &node, inputs.as_ref()).map_err(|error| error.in_tensor(&name))?;
        self.node_names.insert(name.clone(), self.nodes.len());
        self.nodes.push(Entry { name, rule: node, inputs, layout, output: false });
        Ok(Value(self.nodes.len() - 1))
    }

    fn link(&mut self, name: &str, node: &Node, inputs: &[Value]) -> Result<(Vec<usize>, Layout)> {
        if self.node_names.contains_key(name) {
            return Err(Error::argument("node name", "taken", "unique"));
        }
        let inputs: Vec<usize> = inputs.iter().map(|value| value.0).collect();
        let layouts = inputs.iter().map(|&value| self.nodes.get(value).map(|entry| entry.layout.clone()));
        let layouts: Option<Vec<Layout>> = layouts.collect();
        let layouts = layouts.ok_or_else(|| Error::argument("input", "another model's value", "an earlier one"))?;
        self.union.mark();
        let mut link = Link { builder: self, node: name, inputs: &layouts, before: Vec::new() };
        let linked = node.rule().link(&mut link).and_then(|layout| match checked_volume(&layout.shape)? {
            0 => Err(Error::empty("output of the node")),
            _ => Ok(layout),
        });
        let before = link.before;
        if linked.is_ok() {
            self.union.commit();
        } else {
            self.union.undo();
            for (tensor, axis, entry) in before.into_iter().rev() {
                self.tensors[tensor].axes[axis] = entry;
            }
        }
        Ok((inputs, linked?))
    }

    /// Says that a value is an output of the model: all of its channels stay. Values that no node reads are outputs too.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a value of another model.
    pub fn output(&mut self, value: Value) -> Result<()> {
        let entry = self.nodes.get_mut(value.0);
        entry.ok_or_else(|| Error::argument("output", "another model's value", "one of this"))?.output = true;
        Ok(())
    }

    /// Names a part of the model that can be dropped whole: all nodes between `from` and `to`, and those that only they read. A model
    /// without it takes `from` for `to`. A residual block goes from what its branch and its sum read to the sum, or to
    /// the activation after it.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a name that is taken, when `to` does not depend on `from`, or when
    /// a value inside is read outside; [`Shape`](crate::ErrorKind::Shape) when the two have different shapes.
    pub fn block(&mut self, name: impl Into<String>, from: Value, to: Value) -> Result<()> {
        let name = name.into();
        let block = Block::new(&name, self, from.0, to.0).map_err(|error| error.in_tensor(&name))?;
        self.blocks.push(block);
        Ok(())
    }

    /// The finished topology.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) without nodes; [`Argument`](crate::ErrorKind::Argument) when a node outside
    /// reads a value inside a [block](Builder::block).
    pub fn build(mut self) -> Result<Topology> {
        if self.nodes.is_empty() {
            return Err(Error::empty("topology"));
        }
        for block in &self.blocks {
            block.check(&self).map_err(|error| error.in_tensor(&block.name))?;
        }
        let mut readers = vec![Vec::new(); self.nodes.len()];
        for (reader, entry) in self.nodes.iter().enumerate() {
            entry.inputs.iter().for_each(|&value| readers[value].push(reader));
        }
        for (entry, readers) in self.nodes.iter().zip(&readers) {
            if entry.output || readers.is_empty() {
                self.union.freeze(entry.layout.atoms(), &format!("output of the model: `{}`", entry.name));
            }
        }
        let (groups, places) = collect(&mut self.union, &self.nodes, &self.tensors);
        let Self { tensors, names, nodes, node_names, blocks, .. } = self;
        Ok(Topology(Arc::new(Graph { tensors, names, nodes, node_names, readers, groups, places, blocks })))
    }

    /// One more tensor, of positive lengths.
    ///
    /// # Errors
    /// As [`Topology::builder`].
    pub(crate) fn declare(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        if checked_volume(shape).map_err(|error| error.in_tensor(name))? == 0 {
            return Err(Error::empty("tensor").in_tensor(name));
        }
        if self.names.insert(name.to_owned(), self.tensors.len()).is_some() {
            return Err(Error::argument("tensor name", "given twice", "unique").in_tensor(name));
        }
        self.tensors.push(Shape::new(name.to_owned(), shape));
        Ok(())
    }

    /// The shape of a value, and the axis of its channels.
    #[cfg(feature = "rten")]
    pub(crate) fn layout(&self, value: Value) -> (&[usize], Option<usize>) {
        self.nodes.get(value.0).map_or((&[], None), |entry| (&entry.layout.shape[..], entry.layout.axis()))
    }

    /// Whether no channel of a value may go.
    #[cfg(feature = "rten")]
    pub(crate) fn is_frozen(&mut self, value: Value) -> bool {
        let atoms = self.nodes.get(value.0).map_or(&[][..], |entry| entry.layout.atoms());
        atoms.iter().all(|&atom| {
            let root = self.union.root(atom);
            self.union.frozen(root).is_some()
        })
    }

    pub(super) fn find(&self, tensor: &str) -> Option<usize> {
        self.names.get(tensor).copied()
    }
}
