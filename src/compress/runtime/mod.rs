//! ONNX models run, for verification and calibration: in Rust, or by ONNX Runtime.

mod batch;
mod decode;
mod expand;
mod inputs;
#[cfg(feature = "ort")]
mod ort;
mod session;
mod sparse;

pub(super) use batch::{resized, sizes};
pub(super) use inputs::{Data, Spec, check};
pub use inputs::{Feed, Inputs};
pub(super) use session::Output;

use super::onnx::nodes::{attribute, inner, inner_mut, is_onnx, names};
use crate::{
    error::{Error, Result},
    format::{
        file::TensorFile,
        onnx::{
            self, Onnx,
            proto::{AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto},
        },
    },
};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Runtime {
    /// The crate `rten`, of Rust alone. What it does not have is made of what it has.
    #[default]
    Rten,
    /// ONNX Runtime, 1.17 or newer, with the model as it is. Its library is loaded once, from where the environment variable
    /// `ORT_DYLIB_PATH` says, and not looked for anywhere else: to load a library is to run it.
    #[cfg(feature = "ort")]
    Ort,
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rten => "rten",
            #[cfg(feature = "ort")]
            Self::Ort => "ONNX Runtime",
        })
    }
}

/// A model that is loaded.
pub(super) enum Session {
    Rten(Box<session::Session>),
    #[cfg(feature = "ort")]
    Ort(ort::Loaded),
}

impl Session {
    pub(super) fn run(&self, feeds: &[(String, Feed)], outputs: &[String]) -> Result<Vec<Output>> {
        match self {
            Self::Rten(session) => session.run(feeds, outputs),
            #[cfg(feature = "ort")]
            Self::Ort(session) => session.run(feeds, outputs),
        }
    }
}

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
        Self::new(read.inlined()?, read.byte_len(), limit)
    }

    /// `bytes`: how long it is. Its elements are in it.
    pub(super) fn new(mut model: ModelProto, mut bytes: u64, limit: u64) -> Result<Self> {
        if bytes > limit {
            return Err(Error::argument("bytes of the model in memory", bytes, "within the limit"));
        }
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        if let Some(graph) = &mut model.graph {
            bytes = bytes.saturating_add(sparse::densify(graph, limit - bytes)?);
            // An input with a value of its own need not be given.
            let own: BTreeSet<_> = graph.initializer.iter().filter_map(|tensor| tensor.name.clone()).collect();
            graph.input.retain(|input| !input.name.as_ref().is_some_and(|name| own.contains(name)));
            inputs = graph.input.iter().map(Spec::new).collect();
            outputs = graph.output.iter().filter_map(|output| output.name.clone()).collect();
        }
        Ok(Self { model, bytes, inputs, outputs })
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

    /// Makes it one that the runtime has all operators for, and loads it. Returns the names of what was made of what.
    pub(super) fn load(mut self, what: &'static str, inputs: &Inputs) -> Result<(Session, Vec<String>)> {
        #[cfg(feature = "ort")]
        if inputs.runtime == Runtime::Ort {
            return Ok((Session::Ort(ort::Loaded::load(what, &self.model.encode_to_vec())?), Vec::new()));
        }
        if let Some(graph) = &self.model.graph {
            check_depth(graph)?;
        }
        let expanded = expand::expand(&mut self.model, self.bytes, inputs.limit)?;
        if let Some(graph) = &mut self.model.graph {
            let mut values = BTreeSet::new();
            names(graph, &mut values);
            distinguish(graph, &values);
            complete(graph);
        }
        let encoded = self.model.encode_to_vec();
        drop(self.model);
        Ok((Session::Rten(Box::new(session::Session::load(what, encoded)?)), expanded))
    }
}

/// `AttributeProto.AttributeType.INTS`.
const INTS: i32 = 7;

/// Gives convolutions and pools the strides, dilations and padding that they have without saying so: the runtime wants to be told.
fn complete(graph: &mut GraphProto) {
    let axes = |tensor: &TensorProto| Some((tensor.name.clone()?, tensor.dims.len().checked_sub(2)?));
    let spatial: BTreeMap<String, usize> = graph.initializer.iter().filter_map(axes).collect();
    for node in &mut graph.node {
        inner_mut(node).for_each(complete);
        let given: &[(&str, usize, i64)] = match node.op_type.as_deref().filter(|_| is_onnx(node)) {
            Some("Conv" | "ConvTranspose" | "MaxPool") => &[("strides", 1, 1), ("dilations", 1, 1), ("pads", 2, 0)],
            Some("AveragePool") => &[("strides", 1, 1), ("pads", 2, 0)],
            _ => continue,
        };
        let kernel = attribute(node, "kernel_shape").map(|kernel| kernel.ints.len());
        let Some(axes) = kernel.or_else(|| spatial.get(node.input.get(1)?).copied()) else { continue };
        let padding = attribute(node, "auto_pad").and_then(|mode| mode.s.as_deref()).unwrap_or(b"NOTSET").to_vec();
        let computed = padding.starts_with(b"SAME");
        if !computed {
            node.attribute.retain(|attribute| attribute.name.as_deref() != Some("auto_pad"));
        }
        for &(name, times, value) in given {
            if attribute(node, name).is_none() && !(name == "pads" && computed) {
                let (name, r#type) = (Some(name.into()), Some(INTS));
                let ints = vec![value; axes.saturating_mul(times)];
                node.attribute.push(AttributeProto { name, r#type, ints, ..Default::default() });
            }
        }
    }
}

/// The longest chain of nodes that the runtime's stack has room for.
const MAX_DEPTH: usize = 20_000;

/// An error where a chain of nodes is longer than the runtime can follow, or closed.
fn check_depth(graph: &GraphProto) -> Result<()> {
    let made = graph.node.iter().enumerate().flat_map(|(i, node)| node.output.iter().map(move |name| (name, i)));
    let makers: BTreeMap<&String, usize> = made.filter(|(name, _)| !name.is_empty()).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.node.len()];
    let mut waits_for = vec![0usize; graph.node.len()];
    for (i, node) in graph.node.iter().enumerate() {
        for &maker in node.input.iter().filter_map(|name| makers.get(name)) {
            readers[maker].push(i);
            waits_for[i] += 1;
        }
        inner(node).try_for_each(check_depth)?;
    }
    // One layer after the other: nodes whose inputs are there.
    let mut layer: Vec<usize> = (0..waits_for.len()).filter(|&i| waits_for[i] == 0).collect();
    let (mut depth, mut left) = (0, graph.node.len());
    while let Some(&first) = layer.first() {
        depth += 1;
        left -= layer.len();
        if depth > MAX_DEPTH {
            let called = onnx::called(&graph.node[first]);
            return Err(Error::argument("chain of nodes", depth, "of at most 20,000").in_tensor(called));
        }
        let mut next = Vec::new();
        for &reader in layer.iter().flat_map(|&i| &readers[i]) {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                next.push(reader);
            }
        }
        layer = next;
    }
    if left > 0 { Err(Error::format(0, format!("{left} nodes wait for one another"))) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, format::onnx::proto::NodeProto};

    #[test]
    fn chains_end() {
        let node = |from: usize, to: usize| NodeProto {
            op_type: Some("Relu".into()),
            input: vec![format!("v{from}")],
            output: vec![format!("v{to}")],
            ..Default::default()
        };
        let chain =
            |count: usize| GraphProto { node: (0..count).map(|i| node(i, i + 1)).collect(), ..Default::default() };
        let mut backwards = chain(MAX_DEPTH + 1);
        check_depth(&chain(MAX_DEPTH)).unwrap();
        backwards.node.reverse();
        assert_eq!(check_depth(&backwards).unwrap_err().kind(), ErrorKind::Argument);
        let mut cycle = chain(3);
        cycle.node.push(node(3, 0));
        assert_eq!(check_depth(&cycle).unwrap_err().kind(), ErrorKind::Format);
    }
}
