//! Activations whose levels are found whenever the model runs.
//!
//! ```text
//! a_codes, a_scale, a_zero_point = DynamicQuantizeLinear(a)         once for all that read it
//! sums  = MatMulInteger(a_codes, codes, a_zero_point, zero_point)
//! y     = Cast(sums) * (a_scale * scale)                            a scale a column
//! y     = y + bias                                                  of a Gemm
//! ```

use crate::{
    compress::{
        onnx::{
            nodes::{inner_below, is_identity, is_onnx, names, unique},
            rewrite::{Item, Rewritten, Target, integer, node},
        },
        report::ActivationReport,
    },
    error::Result,
    format::onnx::{pending_number, proto::*},
    tensor::Granularity,
};
use std::collections::{BTreeMap, BTreeSet};

/// `TensorProto.DataType.FLOAT`.
const FLOAT: usize = 1;

/// Makes `MatMulInteger` of products by weights that are planned so.
pub(super) fn apply(rewritten: &mut Rewritten) -> Result<()> {
    let Some(graph) = &mut rewritten.model.graph else { return Ok(()) };
    let mut all = BTreeSet::new();
    names(graph, &mut all);
    let planned = rewritten.items.iter().enumerate().filter(|(_, item)| item.integer);
    let codes = planned.filter_map(|(i, item)| Some((item.target.codes()?, i))).collect();
    let mut work = Work { codes, items: &mut rewritten.items, names: all, activations: Vec::new() };
    work.graph(graph, "");
    rewritten.report.activations = work.activations;
    Ok(())
}

/// What the whole of the work has to know.
struct Work<'a> {
    /// Weights that are multiplied by codes, by the number of their own.
    codes: BTreeMap<usize, usize>,
    items: &'a mut [Item],
    names: BTreeSet<String>,
    activations: Vec<ActivationReport>,
}

/// The codes of an activation.
struct Codes {
    /// The codes, their scale and their zero point.
    values: [String; 3],
    /// Its place in the report.
    report: usize,
}

impl Work<'_> {
    fn graph(&mut self, graph: &mut GraphProto, path: &str) {
        for node in &mut graph.node {
            for (path, inner) in inner_below(node, path) {
                self.graph(inner, &path);
            }
        }
        let mut pending: BTreeMap<String, &mut TensorProto> = BTreeMap::new();
        for tensor in &mut graph.initializer {
            if pending_number(tensor).is_some_and(|number| self.codes.contains_key(&number)) {
                pending.insert(tensor.name.clone().unwrap_or_default(), tensor);
            }
        }
        // The codes, the scale and the zero points of matrices, by all names that these have.
        let mut matrices: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut activations: BTreeMap<String, Codes> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(graph.node.len());
        for node in std::mem::take(&mut graph.node) {
            let (input, output) = (node.input.first(), node.output.first());
            let (Some(input), Some(output)) = (input, output) else {
                nodes.push(node);
                continue;
            };
            if node.op_type.as_deref() == Some("DequantizeLinear")
                && is_onnx(&node)
                && let Some(tensor) = pending.get_mut(input)
            {
                self.upright(tensor);
                matrices.insert(output.clone(), node.input.clone());
            } else if is_identity(&node)
                && let Some(matrix) = matrices.get(input)
            {
                matrices.insert(output.clone(), matrix.clone());
            } else if let Some(matrix) = node.input.get(1).and_then(|name| matrices.get(name)) {
                let (input, operator) = (input.clone(), node.op_type.clone().unwrap_or_default());
                let codes = match activations.get(&input) {
                    Some(codes) => codes,
                    None => {
                        let codes = self.quantize(&input, path, &mut nodes);
                        activations.entry(input).or_insert(codes)
                    }
                };
                if let Some(report) = self.activations.get_mut(codes.report)
                    && !report.operators.contains(&operator)
                {
                    report.operators.push(operator);
                }
                let values = codes.values.clone();
                self.multiply(node, values, matrix, &mut nodes);
            } else {
                nodes.push(node);
            }
        }
        graph.node = nodes;
    }

    /// Makes a matrix that is multiplied transposed one that is not.
    fn upright(&mut self, tensor: &mut TensorProto) {
        let index = pending_number(tensor).and_then(|number| self.codes.get(&number));
        let Some(item) = index.and_then(|&index| self.items.get_mut(index)) else { return };
        if let Target::Codes { scheme, .. } = &mut item.target
            && scheme.granularity == (Granularity::Channel { axis: 0 })
        {
            scheme.granularity = Granularity::Channel { axis: 1 };
            item.source.transposed = true;
            tensor.dims.reverse();
        }
    }

    fn quantize(&mut self, input: &str, path: &str, nodes: &mut Vec<NodeProto>) -> Codes {
        let values = ["codes", "scale", "zero_point"].map(|ending| unique(&mut self.names, input, ending));
        let called = unique(&mut self.names, input, "quantize");
        let mut quantize = node(called, "DynamicQuantizeLinear", "", vec![input.into()], String::new(), Vec::new());
        quantize.output = values.to_vec();
        nodes.push(quantize);
        self.activations.push(ActivationReport {
            name: format!("{path}{input}"),
            operators: Vec::new(),
            levels: None,
            method: "whenever it runs".into(),
        });
        Codes { values, report: self.activations.len() - 1 }
    }

    /// A product by codes in place of `MatMul` or `Gemm`.
    fn multiply(&mut self, old: NodeProto, codes: [String; 3], matrix: &[String], nodes: &mut Vec<NodeProto>) {
        let output = old.output.first().cloned().unwrap_or_default();
        let summand = old.input.get(2).filter(|name| !name.is_empty() && old.op_type.as_deref() == Some("Gemm"));
        let names = ["sums", "floats", "scale", "product"].map(|ending| unique(&mut self.names, &output, ending));
        let mut add = |operator: &str, input: Vec<String>, output: String, attributes: Vec<AttributeProto>| {
            let called = unique(&mut self.names, &output, &operator.to_lowercase());
            nodes.push(node(called, operator, "", input, output.clone(), attributes));
            output
        };
        let [sums, floats, scale, product] = names;
        let [a, a_scale, a_zero] = codes;
        let [b, b_scale, b_zero @ ..] = matrix else { return };
        let input = [&[a, b.clone(), a_zero][..], b_zero].concat();
        let sums = add("MatMulInteger", input, sums, Vec::new());
        let floats = add("Cast", vec![sums], floats, vec![integer("to", FLOAT)]);
        let scale = add("Mul", vec![a_scale, b_scale.clone()], scale, Vec::new());
        match summand {
            None => drop(add("Mul", vec![floats, scale], output, Vec::new())),
            Some(summand) => {
                let product = add("Mul", vec![floats, scale], product, Vec::new());
                add("Add", vec![product, summand.clone()], output, Vec::new());
            }
        }
    }
}
