//! Parts of a model that can be dropped whole.

use super::builder::Builder;
use crate::error::{Error, Result};

/// The nodes between two values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) name: String,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Ascending; the last is the one that gives `to`.
    pub(crate) nodes: Vec<usize>,
}

impl Block {
    pub(super) fn new(name: &str, model: &Builder, from: usize, to: usize) -> Result<Self> {
        let known = |value: usize| model.nodes.get(value);
        let (Some(first), Some(last)) = (known(from), known(to)) else {
            return Err(Error::argument("block", "between another model's values", "between two of this"));
        };
        if model.blocks.iter().any(|block| block.name == name) {
            return Err(Error::argument("block name", "taken", "unique"));
        }
        if first.layout.shape != last.layout.shape || first.layout.axis() != last.layout.axis() {
            return Err(Error::shape("end of the block", &first.layout.shape, &last.layout.shape));
        }
        // What depends on `from`, and of that what `to` depends on, without the way around `from`.
        let mut after = vec![false; model.nodes.len()];
        after[from] = true;
        for (node, entry) in model.nodes.iter().enumerate().skip(from + 1) {
            after[node] = entry.inputs.iter().any(|&input| after[input]);
        }
        let mut before = vec![false; model.nodes.len()];
        before[to] = true;
        for node in (from + 1..=to).rev() {
            if before[node] {
                model.nodes[node].inputs.iter().for_each(|&input| before[input] = true);
            }
        }
        let depends = to > from && after[to];
        if !depends {
            return Err(Error::argument("block", "without a way from its start to its end", "one that has it"));
        }
        let nodes = (from + 1..=to).filter(|&node| before[node] && after[node]).collect();
        Ok(Self { name: name.to_owned(), from, to, nodes })
    }

    /// An error when a value inside is read outside.
    pub(super) fn check(&self, model: &Builder) -> Result<()> {
        let inside = |node: &usize| self.nodes.binary_search(node).is_ok();
        for (node, entry) in model.nodes.iter().enumerate().filter(|(node, _)| !inside(node)) {
            if let Some(&input) = entry.inputs.iter().find(|&&input| inside(&input) && input != self.to) {
                let found = format!("with `{}` read by `{}`", model.nodes[input].name, model.nodes[node].name);
                return Err(Error::argument("block", found, "without readers outside"));
            }
        }
        match self.nodes.iter().find(|&&node| node != self.to && model.nodes[node].output) {
            Some(&node) => {
                let found = format!("with the output `{}`", model.nodes[node].name);
                Err(Error::argument("block", found, "without outputs of the model"))
            }
            None => Ok(()),
        }
    }
}
