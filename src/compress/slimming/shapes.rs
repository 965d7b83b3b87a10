//! What values look like: seen by running the model.

use super::{
    graph::{Read, operator},
    runner,
};
use crate::{
    compress::runtime::{Feed, Inputs, Output, Spec, resized, sizes},
    error::Result,
    format::onnx::proto::ModelProto,
};
use std::collections::{BTreeMap, BTreeSet};

/// Operators whose outputs are no tensors, or need not be.
const NO_TENSORS: [&str; 9] = [
    "Constant",
    "If",
    "Loop",
    "Scan",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceInsert",
    "SplitToSequence",
    "Optional",
];
/// Larger values are shapes, but not numbers, to slimming.
const LARGE: usize = 1 << 24;

/// The shape of each value with a batch of one, and what changes with the sizes that the model leaves open.
#[derive(Default)]
pub(super) struct Shapes {
    values: BTreeMap<String, Output>,
    /// The shape with other open sizes, where the model could be run with those.
    others: BTreeMap<String, Output>,
    /// Whether some size is open, and the model ran with only one set of them.
    pub(super) unsure: bool,
}

impl Shapes {
    /// Runs the model on the first of the samples with a batch of one; then with all open sizes changed.
    ///
    /// # Errors
    /// [`Runtime`](crate::ErrorKind::Runtime) where the model cannot be run as the sample is.
    pub(super) fn new(
        what: &'static str,
        model: &ModelProto,
        read: &Read<'_>,
        specs: &[Spec],
        sample: &[(String, Feed)],
        by: &Inputs,
    ) -> Result<Self> {
        let tensors = read.graph.node.iter().filter(|node| !NO_TENSORS.contains(&operator(node)));
        let names: BTreeSet<String> =
            tensors.flat_map(|node| &node.output).filter(|n| !n.is_empty()).cloned().collect();
        let names: Vec<String> = names.into_iter().filter(|name| !read.is_constant(name)).collect();
        let session = runner::load(what, model, &names, by)?;
        let open = sizes(specs, sample);
        let run = |choose: &dyn Fn(usize, bool) -> usize| -> Result<BTreeMap<String, Output>> {
            let new = open.iter().map(|(key, &(size, batch))| (key.clone(), choose(size, batch))).collect();
            let sample = resized(specs, sample, &new);
            let all: BTreeMap<String, Output> = names.iter().cloned().zip(session.run(&sample, &names)?).collect();
            let inputs = sample
                .iter()
                .map(|(name, feed)| (name.clone(), Output { shape: feed.shape.clone(), values: Vec::new() }));
            Ok(all.into_iter().chain(inputs).collect())
        };
        let other = |size: usize| if size > 1 { size - 1 } else { size + 1 };
        let (values, others) = match run(&|size, batch| if batch { 1 } else { size }) {
            Err(_) => (run(&|size, _| size)?, None),
            Ok(values) => {
                let all = run(&|size, batch| if batch { 2 } else { other(size) });
                (values, all.or_else(|_| run(&|size, batch| if batch { 2 } else { size })).ok())
            }
        };
        let unsure = !open.is_empty() && others.is_none();
        Ok(Self { values, others: others.unwrap_or_default(), unsure })
    }

    /// The shape of a value; a number is a list of one.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let shape = &self.values.get(name)?.shape;
        if shape.contains(&0) {
            return None;
        }
        Some(if shape.is_empty() { vec![1] } else { shape.clone() })
    }

    /// The shape as it is.
    pub(super) fn exact(&self, name: &str) -> Option<&[usize]> {
        self.values.get(name).map(|value| &value.shape[..])
    }

    /// Whether the length of an axis is not always the same.
    pub(super) fn varies(&self, name: &str, axis: usize) -> bool {
        let length = |from: &BTreeMap<String, Output>| from.get(name).map(|value| value.shape.get(axis).copied());
        length(&self.others).is_some_and(|other| Some(other) != length(&self.values))
    }

    /// The numbers of a value that does not depend on the inputs, where they do not depend on their sizes either.
    pub(super) fn numbers(&self, name: &str) -> Option<&Output> {
        let value = self.values.get(name).filter(|value| value.values.len() <= LARGE && !self.unsure)?;
        let same = self.others.get(name).is_none_or(|other| other.shape == value.shape && other.values == value.values);
        same.then_some(value)
    }
}
