//! Which tensors of a graph are weights, and of what.

use super::nodes::{attribute, inner, is_identity, is_onnx};
use crate::format::onnx::proto::{GraphProto, NodeProto};
use std::collections::BTreeMap;

/// An input of a node that a weight is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Use {
    pub(super) operator: String,
    pub(super) axes: Option<Axes>,
    /// Whether the node is in a graph within that of the weight.
    pub(super) inner: bool,
    /// Why the node cannot multiply integers instead.
    pub(super) floats: Option<&'static str>,
}

/// The axes of a weight, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axes {
    /// Of the outputs: what shares levels when channels do.
    pub(super) output: usize,
    /// That sums go over: what blocks lie along.
    pub(super) input: usize,
    /// A matrix that is multiplied from the right, and no more: `[K, N]`, or transposed.
    pub(super) matrix: bool,
}

impl Axes {
    /// Whether sums and outputs lie along the same axes.
    pub(super) fn along(self, other: Self) -> bool {
        (self.output, self.input) == (other.output, other.input)
    }
}

/// The axes of the weight that is an input of a node; `None` where no operator's weight is.
pub(super) fn axes(node: &NodeProto, input: usize, rank: usize) -> Option<Axes> {
    if !is_onnx(node) {
        return None;
    }
    let axes = |output, input| Some(Axes { output, input, matrix: false });
    match (node.op_type.as_deref()?, input) {
        ("Conv", 1) if rank > 2 => axes(0, 1),
        ("ConvTranspose", 1) if rank > 2 => axes(1, 0),
        ("MatMul", 1) if rank >= 2 => Some(Axes { output: rank - 1, input: rank - 2, matrix: rank == 2 }),
        ("MatMul", 0) if rank >= 2 => axes(rank - 2, rank - 1),
        ("Gemm", 1) if rank == 2 => {
            let (output, input) = match attribute(node, "transB").and_then(|attribute| attribute.i).unwrap_or(0) {
                0 => (1, 0),
                _ => (0, 1),
            };
            Some(Axes { output, input, matrix: altered(node).is_none() })
        }
        ("Gather", 0) if rank >= 2 => axes(0, rank - 1),
        ("LSTM" | "GRU" | "RNN", 1 | 2) if rank == 3 => axes(1, 2),
        _ => None,
    }
}

/// Why a node does not become `MatMulInteger` with the weight that is an input of it.
fn floats(node: &NodeProto, input: usize, rank: usize) -> Option<&'static str> {
    match (node.op_type.as_deref()?, input) {
        _ if !is_onnx(node) => Some("of another set of operators"),
        ("MatMul", 1) if rank == 2 => None,
        ("Gemm", 1) if rank == 2 => altered(node),
        ("MatMul" | "Gemm", _) => Some("not a matrix on the right side"),
        _ => Some("not only of MatMul and Gemm"),
    }
}

/// What of a `Gemm` is more than a product and a sum.
pub(super) fn altered(gemm: &NodeProto) -> Option<&'static str> {
    let other =
        |name: &str| attribute(gemm, name).and_then(|attribute| attribute.f).is_some_and(|factor| factor != 1.0);
    let summand = gemm.input.get(2).is_some_and(|name| !name.is_empty());
    match () {
        () if attribute(gemm, "transA").and_then(|attribute| attribute.i).unwrap_or(0) != 0 => {
            Some("a Gemm with transA")
        }
        () if other("alpha") => Some("a Gemm with alpha"),
        () if summand && other("beta") => Some("a Gemm with beta"),
        () => None,
    }
}

/// The values of a graph that are but other names of values whose ranks are known, and of which: exporters share weights by `Identity`.
pub(super) fn aliases(graph: &GraphProto, ranks: &BTreeMap<String, usize>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for node in &graph.node {
        if let ([from], [to]) = (&node.input[..], &node.output[..])
            && is_identity(node)
            && (ranks.contains_key(from) || all.contains_key(from))
        {
            let root = all.get(from).unwrap_or(from).clone();
            all.insert(to.clone(), root);
        }
    }
    all
}

/// How a graph and those within it use the values of known ranks, by any of their names.
pub(super) fn uses(
    graph: &GraphProto,
    ranks: &BTreeMap<String, usize>,
    aliases: &BTreeMap<String, String>,
) -> BTreeMap<String, Vec<Use>> {
    let mut all: BTreeMap<String, Vec<Use>> = BTreeMap::new();
    for name in graph.output.iter().filter_map(|value| value.name.as_ref()) {
        let root = aliases.get(name).unwrap_or(name);
        if ranks.contains_key(root) {
            all.entry(root.clone()).or_default().push(Use {
                operator: "output".into(),
                axes: None,
                inner: false,
                floats: Some("an output too"),
            });
        }
    }
    gather(graph, ranks, aliases, false, &mut all);
    all
}

fn gather(
    graph: &GraphProto,
    ranks: &BTreeMap<String, usize>,
    aliases: &BTreeMap<String, String>,
    below: bool,
    all: &mut BTreeMap<String, Vec<Use>>,
) {
    for node in &graph.node {
        // The other name of a weight is no use of it.
        let another = !below && is_identity(node) && node.output.iter().all(|name| aliases.contains_key(name));
        for (input, name) in node.input.iter().enumerate().filter(|_| !another) {
            let root = aliases.get(name).unwrap_or(name);
            let Some(&rank) = ranks.get(root) else { continue };
            let operator = node.op_type.clone().unwrap_or_default();
            let axes = axes(node, input, rank);
            let floats = floats(node, input, rank).or(below.then_some("within another graph"));
            all.entry(root.clone()).or_default().push(Use { operator, axes, inner: below, floats });
        }
        inner(node).for_each(|graph| gather(graph, ranks, aliases, true, all));
    }
}
