//! What a node of a graph is and has.

use crate::format::onnx::{
    self,
    proto::{AttributeProto, GraphProto, NodeProto, TensorProto},
};
use std::collections::BTreeSet;

/// The attribute of a node by its name.
pub(in crate::compress) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

/// Whether a node is of ONNX's own operators.
pub(in crate::compress) fn is_onnx(node: &NodeProto) -> bool {
    matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"))
}

/// The tensor of a `Constant` node.
pub(in crate::compress) fn constant(node: &NodeProto) -> Option<&TensorProto> {
    let named = node.op_type.as_deref() == Some("Constant") && is_onnx(node);
    attribute(node, "value").filter(|_| named)?.t.as_ref()
}

pub(in crate::compress) fn is_identity(node: &NodeProto) -> bool {
    node.op_type.as_deref() == Some("Identity") && is_onnx(node)
}

/// The graphs within a node.
pub(in crate::compress) fn inner(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// The graphs within a node, to be changed.
#[cfg(feature = "rten")]
pub(in crate::compress) fn inner_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|attribute| attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs))
}

/// The graphs within a node, to be changed, and what comes before the names of their tensors, as where a model is read.
pub(in crate::compress) fn inner_below<'a>(
    node: &'a mut NodeProto,
    path: &str,
) -> impl Iterator<Item = (String, &'a mut GraphProto)> {
    let node_path = format!("{path}{}", onnx::called(node));
    node.attribute.iter_mut().flat_map(move |attribute| {
        let way = format!("{node_path}/{}", attribute.name.as_deref().unwrap_or_default());
        let one = attribute.g.as_deref_mut().map(|graph| (format!("{way}/"), graph));
        let all = attribute.graphs.iter_mut().enumerate();
        one.into_iter().chain(all.map(move |(i, graph)| (format!("{way}{i}/"), graph)))
    })
}

/// All names of values in a graph and those within it.
pub(in crate::compress) fn names(graph: &GraphProto, all: &mut BTreeSet<String>) {
    all.extend(graph.initializer.iter().filter_map(|tensor| tensor.name.clone()));
    let sparse = graph.sparse_initializer.iter().filter_map(|tensor| tensor.values.as_ref()?.name.clone());
    all.extend(sparse);
    all.extend(graph.input.iter().chain(&graph.output).filter_map(|value| value.name.clone()));
    for node in &graph.node {
        all.extend(node.input.iter().chain(&node.output).cloned());
        inner(node).for_each(|graph| names(graph, all));
    }
}

/// A name that nothing has yet.
pub(in crate::compress) fn unique(names: &mut BTreeSet<String>, name: &str, ending: &str) -> String {
    let mut unique = format!("{name}_{ending}");
    while !names.insert(unique.clone()) {
        unique.push('_');
    }
    unique
}
