//! All tensors with elements in a model, in the order in which they are encoded.

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use crate::error::Result;

/// The name of a node, or of a graph's attribute, below `path`.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}/{name}") }
}

/// Bytes of a node's name that are part of a way: it is before the name of every tensor within.
const PART: usize = 256;

/// What a node is called: by its name, its first output, or its operator.
pub(crate) fn called(node: &NodeProto) -> &str {
    let names = [node.name.as_ref(), node.output.first(), node.op_type.as_ref()];
    let name = names.into_iter().flatten().find(|name| !name.is_empty()).map_or("", String::as_str);
    let end = (0..=PART.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

macro_rules! walk {
    ($tensors:ident, $graph:ident, $node:ident, $attribute:ident, $sparse:ident, $iter:ident, $as_ref:ident $(, $mut:tt)?) => {
        /// Calls `visit` with each tensor and its name: that of an initializer, or that of the value a `Constant` makes; in graphs
        /// and functions below the main graph, with the way to it before.
        pub(super) fn $tensors<'a>(
            model: &'a $($mut)? ModelProto,
            visit: &mut dyn FnMut(&str, &'a $($mut)? TensorProto) -> Result<()>,
        ) -> Result<()> {
            if let Some(graph) = &$($mut)? model.graph {
                $graph("", graph, visit)?;
            }
            for (i, training) in model.training_info.$iter().enumerate() {
                if let Some(graph) = &$($mut)? training.initialization {
                    $graph(&format!("training{i}/initialization"), graph, visit)?;
                }
                if let Some(graph) = &$($mut)? training.algorithm {
                    $graph(&format!("training{i}/algorithm"), graph, visit)?;
                }
            }
            for function in model.functions.$iter() {
                let [domain, name] = [&function.domain, &function.name].map(|part| part.as_deref().unwrap_or_default());
                let path = format!("{domain}::{name}");
                function.node.$iter().try_for_each(|node| $node(&path, node, visit))?;
                for attribute in function.attribute_proto.$iter() {
                    let path = below(&path, attribute.name.as_deref().unwrap_or_default());
                    $attribute(&path, &path, attribute, visit)?;
                }
            }
            Ok(())
        }

        fn $graph<'a>(
            path: &str,
            graph: &'a $($mut)? GraphProto,
            visit: &mut dyn FnMut(&str, &'a $($mut)? TensorProto) -> Result<()>,
        ) -> Result<()> {
            graph.node.$iter().try_for_each(|node| $node(path, node, visit))?;
            for tensor in graph.initializer.$iter() {
                let name = below(path, tensor.name.as_deref().unwrap_or_default());
                visit(&name, tensor)?;
            }
            for tensor in graph.sparse_initializer.$iter() {
                let name = tensor.values.as_ref().and_then(|values| values.name.as_deref()).unwrap_or_default();
                $sparse(&below(path, name), tensor, visit)?;
            }
            Ok(())
        }

        fn $node<'a>(
            path: &str,
            node: &'a $($mut)? NodeProto,
            visit: &mut dyn FnMut(&str, &'a $($mut)? TensorProto) -> Result<()>,
        ) -> Result<()> {
            let called = called(node).to_string();
            let output = node.output.first().cloned().unwrap_or_default();
            for attribute in node.attribute.$iter() {
                let name = attribute.name.as_deref().unwrap_or_default();
                let way = below(path, &format!("{called}/{name}"));
                // A constant is called as the value it makes.
                let own = if name == "value" && !output.is_empty() { below(path, &output) } else { way.clone() };
                $attribute(&way, &own, attribute, visit)?;
            }
            Ok(())
        }

        fn $attribute<'a>(
            path: &str,
            name: &str,
            attribute: &'a $($mut)? AttributeProto,
            visit: &mut dyn FnMut(&str, &'a $($mut)? TensorProto) -> Result<()>,
        ) -> Result<()> {
            if let Some(tensor) = &$($mut)? attribute.t {
                visit(name, tensor)?;
            }
            if let Some(graph) = attribute.g.$as_ref() {
                $graph(path, graph, visit)?;
            }
            for (i, tensor) in attribute.tensors.$iter().enumerate() {
                visit(&format!("{path}{i}"), tensor)?;
            }
            for (i, graph) in attribute.graphs.$iter().enumerate() {
                $graph(&format!("{path}{i}"), graph, visit)?;
            }
            if let Some(tensor) = &$($mut)? attribute.sparse_tensor {
                $sparse(name, tensor, visit)?;
            }
            for (i, tensor) in attribute.sparse_tensors.$iter().enumerate() {
                $sparse(&format!("{path}{i}"), tensor, visit)?;
            }
            Ok(())
        }

        fn $sparse<'a>(
            name: &str,
            tensor: &'a $($mut)? SparseTensorProto,
            visit: &mut dyn FnMut(&str, &'a $($mut)? TensorProto) -> Result<()>,
        ) -> Result<()> {
            if let Some(values) = &$($mut)? tensor.values {
                visit(name, values)?;
            }
            if let Some(indices) = &$($mut)? tensor.indices {
                visit(&below(name, "indices"), indices)?;
            }
            Ok(())
        }
    };
}

walk!(tensors, graph, node, attribute, sparse, iter, as_deref);
walk!(tensors_mut, graph_mut, node_mut, attribute_mut, sparse_mut, iter_mut, as_deref_mut, mut);
