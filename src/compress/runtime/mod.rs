//! ONNX models run in Rust, for verification and calibration.

mod batch;
mod decode;
mod expand;
mod inputs;
mod session;

pub(super) use batch::{resized, sizes};
pub use inputs::{Feed, Inputs};
pub(super) use inputs::{Spec, check};
pub(super) use session::{Output, Session};

use super::onnx::nodes::{inner_mut, names};
use crate::{
    error::{Error, Result},
    format::{
        file::TensorFile,
        onnx::{
            Onnx,
            proto::{GraphProto, ModelProto, ValueInfoProto},
        },
    },
};
use prost::Message;
use std::{collections::BTreeSet, path::Path};

/// A model that is not loaded yet.
pub(super) struct Model {
    model: ModelProto,
    bytes: u64,
    pub(super) inputs: Vec<Spec>,
    pub(super) outputs: Vec<String>,
}

impl Model {
    pub(super) fn open(path: &Path, limit: u64) -> Result<Self> {
        let read = Onnx::open(path)?;
        let bytes = read.byte_len();
        if bytes > limit {
            return Err(Error::argument("bytes of the model in memory", bytes, "within the limit"));
        }
        Ok(Self::new(read.inlined()?, bytes))
    }

    /// Of a model with all its elements, of so many bytes.
    pub(super) fn new(mut model: ModelProto, bytes: u64) -> Self {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        if let Some(graph) = &mut model.graph {
            // An input with a value of its own need not be given.
            let own: BTreeSet<_> = graph.initializer.iter().filter_map(|tensor| tensor.name.clone()).collect();
            graph.input.retain(|input| !input.name.as_ref().is_some_and(|name| own.contains(name)));
            inputs = graph.input.iter().map(Spec::new).collect();
            outputs = graph.output.iter().filter_map(|output| output.name.clone()).collect();
        }
        Self { model, bytes, inputs, outputs }
    }

    /// With more of its values as outputs, so that they can be asked for.
    pub(super) fn with_outputs<'a>(mut self, names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut known: BTreeSet<String> = self.outputs.iter().cloned().collect();
        let new = names.into_iter().filter(|name| known.insert((*name).clone()));
        let output = |name: &String| ValueInfoProto { name: Some(name.clone()), ..Default::default() };
        let new: Vec<_> = new.map(output).collect();
        if let Some(graph) = &mut self.model.graph {
            graph.output.extend(new);
        }
        self
    }

    /// Makes it one that the runtime has all operators for, and loads it.
    pub(super) fn load(mut self, what: &'static str, limit: u64) -> Result<(Session, Vec<String>)> {
        let expanded = expand::expand(&mut self.model, self.bytes, limit)?;
        if let Some(graph) = &mut self.model.graph {
            let mut values = BTreeSet::new();
            names(graph, &mut values);
            distinguish(graph, &values);
        }
        let encoded = self.model.encode_to_vec();
        drop(self.model);
        Ok((Session::load(what, encoded)?, expanded))
    }
}

/// Gives nodes that are called as a value another name: the runtime has one list of both.
fn distinguish(graph: &mut GraphProto, values: &BTreeSet<String>) {
    for node in &mut graph.node {
        if let Some(name) = &mut node.name {
            while values.contains(name) {
                name.push_str("_node");
            }
        }
        inner_mut(node).for_each(|graph| distinguish(graph, values));
    }
}
