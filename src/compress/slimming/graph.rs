//! A graph as slimming reads it: its constants, who reads what, and whether it is one at all.

use crate::{
    compress::onnx::{
        floats,
        nodes::{attribute, constant, inner, is_identity, is_onnx, names},
    },
    error::{Error, Result},
    format::{
        file::ElementType,
        onnx::{self, proto::*},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// A constant of floating-point numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// The main graph of a model.
pub(super) struct Read<'a> {
    pub(super) graph: &'a GraphProto,
    /// The version of ONNX's operators.
    pub(super) opset: i64,
    constants: BTreeMap<&'a str, &'a TensorProto>,
    /// The constant that a name is but another name of.
    roots: BTreeMap<&'a str, &'a str>,
    /// The nodes that read each value, each as often as it does, also from graphs within them.
    pub(super) readers: BTreeMap<&'a str, Vec<usize>>,
    outputs: BTreeSet<&'a str>,
    /// What graphs within a node read of this one.
    implicit: BTreeMap<usize, Vec<&'a str>>,
}

impl<'a> Read<'a> {
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where the graph is none: a value made twice, one read that nothing before makes (as in a
    /// cycle), an output that nothing makes.
    pub(super) fn new(model: &'a ModelProto) -> Result<Self> {
        let bad = |what: &str, name: &str| Err(Error::format(0, what).in_tensor(name));
        let Some(graph) = &model.graph else { return Err(Error::format(0, "a model without a graph")) };
        let old = model.ir_version.unwrap_or(0) < 4;
        let own = |set: &&OperatorSetIdProto| matches!(set.domain.as_deref(), None | Some("" | "ai.onnx"));
        let opset = model.opset_import.iter().find(own).and_then(|set| set.version).unwrap_or(1);
        let inputs: BTreeSet<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
        let mut known = inputs.clone();
        if inputs.len() != graph.input.len() {
            return Err(Error::format(0, "an input twice, or without a name"));
        }
        let mut read = Self {
            graph,
            opset,
            constants: BTreeMap::new(),
            roots: BTreeMap::new(),
            readers: BTreeMap::new(),
            outputs: graph.output.iter().filter_map(|output| output.name.as_deref()).collect(),
            implicit: BTreeMap::new(),
        };
        let mut initializers = BTreeSet::new();
        let sparse = graph.sparse_initializer.iter().filter_map(|tensor| tensor.values.as_ref());
        for (tensor, dense) in graph.initializer.iter().map(|t| (t, true)).chain(sparse.map(|t| (t, false))) {
            let name = tensor.name.as_deref().unwrap_or_default();
            if name.is_empty() || !initializers.insert(name) {
                return bad("an initializer twice, or without a name", name);
            }
            known.insert(name);
            // What callers may replace is no constant.
            if dense && (old || !inputs.contains(name)) {
                read.constants.insert(name, tensor);
            }
        }
        let values = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
        let all: BTreeSet<&str> = known.iter().copied().chain(values).collect();
        for (index, node) in graph.node.iter().enumerate() {
            for name in node.input.iter().map(String::as_str).filter(|name| !name.is_empty()) {
                if !known.contains(name) {
                    let later = if all.contains(name) { "read before it is made" } else { "read, but never made" };
                    return bad(later, name);
                }
                read.readers.entry(name).or_default().push(index);
            }
            let mut within = BTreeSet::new();
            inner(node).for_each(|graph| names(graph, &mut within));
            for name in within {
                if let Some(name) = known.get(name.as_str()).copied() {
                    read.readers.entry(name).or_default().push(index);
                    read.implicit.entry(index).or_default().push(name);
                }
            }
            for name in node.output.iter().map(String::as_str).filter(|name| !name.is_empty()) {
                if !known.insert(name) {
                    return bad("made twice", name);
                }
            }
            match (constant(node), &node.output[..]) {
                (Some(tensor), [output]) => {
                    read.constants.insert(output, tensor);
                }
                (None, [output]) if is_identity(node) && node.input.len() == 1 => {
                    let from = node.input[0].as_str();
                    if let Some(tensor) = read.constants.get(from).copied() {
                        read.constants.insert(output, tensor);
                        let root = read.roots.get(from).copied().unwrap_or(from);
                        read.roots.insert(output, root);
                    }
                }
                _ => {}
            }
        }
        match read.outputs.iter().find(|name| !known.contains(**name)) {
            Some(name) => bad("an output that nothing makes", name),
            None => Ok(read),
        }
    }

    pub(super) fn is_output(&self, name: &str) -> bool {
        self.outputs.contains(name)
    }

    pub(super) fn is_input(&self, name: &str) -> bool {
        self.graph.input.iter().any(|input| input.name.as_deref() == Some(name))
    }

    pub(super) fn is_constant(&self, name: &str) -> bool {
        self.constants.contains_key(name)
    }

    /// What graphs within a node read.
    pub(super) fn implicit(&self, node: usize) -> &[&'a str] {
        self.implicit.get(&node).map_or(&[], Vec::as_slice)
    }

    /// The name of the constant itself.
    pub(super) fn root<'b>(&'b self, name: &'b str) -> &'b str {
        self.roots.get(name).copied().unwrap_or(name)
    }

    /// How often a constant is read, by any of its names.
    pub(super) fn uses(&self, root: &str) -> usize {
        let names = self.roots.iter().filter(|(_, other)| **other == root).map(|(name, _)| *name).chain([root]);
        let of = |name: &str| {
            let readers = self.readers.get(name).map_or(&[][..], Vec::as_slice);
            let real = readers.iter().filter(|&&node| !self.renames(node)).count();
            real + usize::from(self.outputs.contains(name))
        };
        names.map(of).sum()
    }

    /// Whether a node but gives a constant another name.
    fn renames(&self, node: usize) -> bool {
        let output = self.graph.node[node].output.first();
        output.is_some_and(|output| self.roots.contains_key(output.as_str()))
    }

    /// The one node that reads a value, where only one does, once, and it is no output.
    pub(super) fn only_reader(&self, name: &str) -> Option<usize> {
        match self.readers.get(name)?[..] {
            [reader] if !self.outputs.contains(name) => Some(reader),
            _ => None,
        }
    }

    /// The shape of a constant.
    pub(super) fn dims(&self, name: &str) -> Option<Vec<usize>> {
        self.constants.get(name)?.dims.iter().map(|&size| usize::try_from(size).ok()).collect()
    }

    /// A constant of `f32`.
    pub(super) fn numbers(&self, name: &str) -> Option<Numbers> {
        let tensor = self.constants.get(name)?;
        let (shape, values) = floats::numbers(name, tensor).ok()??;
        Some(Numbers { shape, values })
    }

    /// A constant list of integers.
    pub(super) fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.constants.get(name)?;
        let info = onnx::tensor_info(name.into(), tensor).ok()??;
        let bytes = onnx::tensor_bytes(tensor, &info).ok()?;
        match info.element {
            ElementType::I64 => Some(bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)).collect()),
            ElementType::I32 => Some(bytes.as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b).into()).collect()),
            _ => None,
        }
    }
}

/// What a node is called in a report.
pub(super) fn called(node: &NodeProto) -> String {
    let all = [node.name.as_ref(), node.output.first(), node.op_type.as_ref()];
    all.into_iter().flatten().find(|name| !name.is_empty()).cloned().unwrap_or_default()
}

/// The operator of a node of ONNX's own set; empty for others.
pub(super) fn operator(node: &NodeProto) -> &str {
    if is_onnx(node) { node.op_type.as_deref().unwrap_or_default() } else { "" }
}

pub(super) fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).and_then(|attribute| attribute.i).unwrap_or(default)
}

pub(super) fn number(node: &NodeProto, name: &str, default: f32) -> f64 {
    attribute(node, name).and_then(|attribute| attribute.f).unwrap_or(default).into()
}

pub(super) fn text<'a>(node: &'a NodeProto, name: &str) -> &'a str {
    let bytes = attribute(node, name).and_then(|attribute| attribute.s.as_ref());
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// A list of sizes; `None` where one is below 0.
pub(super) fn sizes(node: &NodeProto, name: &str) -> Option<Vec<usize>> {
    let list = attribute(node, name).map_or(&[][..], |attribute| &attribute.ints);
    list.iter().map(|&size| usize::try_from(size).ok()).collect()
}

/// An input of a node; `None` where it is left out.
pub(super) fn input(node: &NodeProto, index: usize) -> Option<&str> {
    node.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
}

/// An axis counted from 0.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}
