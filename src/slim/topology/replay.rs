//! The same model again, with nodes changed or left out.

use super::{Builder, Graph, Topology, builder::Value};
use crate::{
    error::{Error, Result},
    slim::rules::Node,
};
use std::collections::BTreeSet;

impl Graph {
    /// A model of these tensors and of this one's nodes but those of `without` (blocks, by index), each as `change` gives it.
    pub(crate) fn replay(
        &self,
        shapes: impl IntoIterator<Item = (String, Vec<usize>)>,
        without: &[usize],
        change: impl Fn(usize) -> Node,
    ) -> Result<Topology> {
        let (mut builder, gone) = (Builder::new(shapes)?, self.gone(without));
        let mut values: Vec<Option<Value>> = Vec::with_capacity(self.nodes.len());
        for (node, entry) in self.nodes.iter().enumerate() {
            if gone[node] {
                // Of nested blocks the widest says where the value comes from.
                let dropped = without.iter().map(|&block| &self.blocks[block]);
                let start = dropped.filter(|block| block.to == node).map(|block| block.from).min();
                values.push(start.and_then(|from| values[from]));
                continue;
            }
            let inputs: Option<Vec<Value>> = entry.inputs.iter().map(|&input| values[input]).collect();
            let inputs = inputs.ok_or_else(|| Error::argument("block", "read inside by others", "read by none"))?;
            values.push(Some(builder.add(&entry.name, change(node), inputs)?));
        }
        for (entry, value) in self.nodes.iter().zip(&values) {
            if let (true, Some(value)) = (entry.output, value) {
                builder.output(*value)?;
            }
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let both = values[block.from].zip(values[block.to]);
            let whole = both.filter(|(from, to)| from != to && !without.contains(&index));
            if let Some((from, to)) = whole {
                builder.block(&block.name, from, to)?;
            }
        }
        builder.build()
    }

    /// Which nodes go with these blocks: theirs, and those that only they read.
    fn gone(&self, without: &[usize]) -> Vec<bool> {
        let (mut gone, mut taken) = (vec![false; self.nodes.len()], vec![false; self.nodes.len()]);
        for block in without.iter().map(|&block| &self.blocks[block]) {
            block.nodes.iter().for_each(|&node| gone[node] = true);
            taken[block.from] = true;
        }
        for node in (0..self.nodes.len()).rev() {
            let (readers, stays) = (&self.readers[node], self.nodes[node].output || taken[node]);
            gone[node] |= !stays && !readers.is_empty() && readers.iter().all(|&reader| gone[reader]);
        }
        gone
    }

    /// The tensors that the nodes outside `without` use.
    pub(crate) fn used(&self, without: &[usize]) -> BTreeSet<String> {
        let gone = self.gone(without);
        let stay = (0..self.nodes.len()).filter(|&node| !gone[node]);
        stay.flat_map(|node| self.nodes[node].rule.rule().tensors()).map(str::to_owned).collect()
    }
}

impl Topology {
    /// The model without some of its [blocks](Builder::block), and without the tensors that only they used: what each gave
    /// is taken from what it was given.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown block.
    pub fn without(&self, blocks: &[&str]) -> Result<Self> {
        let find = |name: &&str| {
            let known = self.0.blocks.iter().position(|block| block.name == **name);
            known.ok_or_else(|| Error::argument("block", format!("{name:?}"), "one of the topology's"))
        };
        let without = blocks.iter().map(find).collect::<Result<Vec<_>>>()?;
        let (before, after) = (self.0.used(&[]), self.0.used(&without));
        let shapes =
            self.0.tensors.iter().filter(|tensor| after.contains(&tensor.name) || !before.contains(&tensor.name));
        let shapes: Vec<_> = shapes.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        self.0.replay(shapes, &without, |node| self.0.nodes[node].rule.clone())
    }
}
