//! Which activations become codes, and what reads them.

use crate::compress::onnx::{
    nodes::{constant, inner, is_identity, is_onnx},
    weights::{altered, axes},
};
use crate::format::onnx::proto::{GraphProto, NodeProto};
use std::collections::{BTreeMap, BTreeSet};

/// An activation that becomes codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) name: String,
    /// The one whose levels it has, by its place in the plan, which is before.
    pub(super) shares: Option<usize>,
    /// Whether all that read it read what the codes stand for. Else those that compute with integers do.
    pub(super) everywhere: bool,
    /// The operators that make it from codes or compute with its codes.
    pub(super) operators: Vec<String>,
}

/// What becomes of a graph's activations.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) values: Vec<Value>,
    /// Nodes that multiply by integers, and the name of their weight's codes as numbers.
    pub(super) weighted: BTreeMap<usize, String>,
    /// Other nodes that compute with codes.
    pub(super) joined: BTreeSet<usize>,
}

/// Moves numbers, and makes none that were not there: its output has the levels of its input.
fn carries(node: &NodeProto) -> bool {
    const OPERATORS: [&str; 6] = ["MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"];
    is(node, &OPERATORS) && node.output.len() == 1
}

/// Computes by integers where all its inputs are.
fn joins(node: &NodeProto) -> bool {
    is(node, &["Add", "Concat", "AveragePool", "GlobalAveragePool"])
}

fn is(node: &NodeProto, operators: &[&str]) -> bool {
    is_onnx(node) && node.op_type.as_deref().is_some_and(|operator| operators.contains(&operator))
}

/// What the graph says of its values.
struct Graph<'a> {
    nodes: &'a [NodeProto],
    outputs: BTreeSet<&'a str>,
    /// The nodes that read a value; `None`: of graphs within.
    readers: BTreeMap<&'a str, Vec<Option<usize>>>,
    constants: BTreeSet<&'a str>,
}

impl<'a> Graph<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let mut readers: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            node.input.iter().for_each(|name| readers.entry(name).or_default().push(Some(i)));
            inner(node).for_each(|graph| within(graph, &mut readers));
        }
        let made = graph.node.iter().filter(|node| constant(node).is_some()).filter_map(|node| node.output.first());
        let constants = graph.initializer.iter().filter_map(|tensor| tensor.name.as_ref()).chain(made);
        Self {
            nodes: &graph.node,
            outputs: graph.output.iter().filter_map(|value| value.name.as_deref()).collect(),
            readers,
            constants: constants.map(String::as_str).collect(),
        }
    }

    /// What comes of a node, past a `Relu` or a `Clip` that nothing else is read by: cutting off is what codes do by themselves.
    fn result(&self, node: &'a NodeProto) -> Option<&'a str> {
        let output = node.output.first()?.as_str();
        if !self.outputs.contains(output)
            && let Some([Some(reader)]) = self.readers.get(output).map(Vec::as_slice)
            && let Some(next) = self.nodes.get(*reader)
            && is(next, &["Relu", "Clip"])
            && next.input.first().is_some_and(|name| name == output)
        {
            return next.output.first().map(String::as_str);
        }
        Some(output)
    }
}

fn within<'a>(graph: &'a GraphProto, readers: &mut BTreeMap<&'a str, Vec<Option<usize>>>) {
    let names = graph.output.iter().filter_map(|value| value.name.as_ref());
    names
        .chain(graph.node.iter().flat_map(|node| &node.input))
        .for_each(|name| readers.entry(name).or_default().push(None));
    graph.node.iter().flat_map(inner).for_each(|graph| within(graph, readers));
}

/// Which values lead to a product of integers: as they are or carried, and by way of what computes with codes too.
#[derive(Default)]
struct Wanted<'a> {
    carried: BTreeSet<&'a str>,
    joined: BTreeSet<&'a str>,
}

impl<'a> Wanted<'a> {
    fn new(graph: &Graph<'a>, weighted: &BTreeMap<usize, String>) -> Self {
        let mut wanted = Self::default();
        for (i, node) in graph.nodes.iter().enumerate().rev() {
            let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { continue };
            let (input, output) = (input.as_str(), output.as_str());
            if weighted.contains_key(&i) {
                wanted.carried.insert(input);
                wanted.joined.insert(input);
            } else if carries(node) || is(node, &["Relu", "Clip"]) {
                if carries(node) && wanted.carried.contains(output) {
                    wanted.carried.insert(input);
                }
                if wanted.joined.contains(output) {
                    wanted.joined.insert(input);
                }
            } else if joins(node) && wanted.joined.contains(output) {
                wanted.joined.extend(node.input.iter().map(String::as_str));
            }
        }
        wanted
    }
}

/// A planned weight.
pub(super) struct Weight {
    pub(super) rank: usize,
    /// The axis of its scales.
    pub(super) axis: usize,
    /// Products in a sum.
    pub(super) length: usize,
}

/// The most products of `uint8` and `int8` that no sum of 32 bits is too small for.
const MAX_LENGTH: usize = i32::MAX as usize / (255 * 127);

impl Plan {
    /// `weights`: the numbers that codes of planned weights stand for.
    pub(super) fn new(graph: &GraphProto, weights: &BTreeMap<String, Weight>) -> Self {
        let graph = Graph::new(graph);
        let mut plan = Self::default();
        let mut names: BTreeMap<&str, &str> = weights.keys().map(|name| (name.as_str(), name.as_str())).collect();
        for (i, node) in graph.nodes.iter().enumerate() {
            if is_identity(node)
                && let (Some(from), Some(to)) = (node.input.first(), node.output.first())
                && let Some(&root) = names.get(from.as_str())
            {
                names.insert(to, root);
            }
            // A scale lies along one axis, and a sum of integers has 32 bits.
            let fits = |name: &str| {
                let own = weights.get(name).filter(|own| own.length <= MAX_LENGTH);
                own.is_some_and(|own| axes(node, 1, own.rank).is_some_and(|axes| axes.output == own.axis))
            };
            if let [input, weight, ..] = &node.input[..]
                && let Some(&root) = names.get(weight.as_str())
                && !graph.constants.contains(input.as_str())
                && !names.contains_key(input.as_str())
                && fits(root)
                && (is(node, &["Conv"])
                    || is(node, &["MatMul"]) && weights.get(root).is_some_and(|own| own.rank == 2)
                    || is(node, &["Gemm"]) && altered(node).is_none())
            {
                plan.weighted.insert(i, root.into());
            }
        }
        let wanted = Wanted::new(&graph, &plan.weighted);
        let needed: BTreeSet<&str> =
            plan.weighted.keys().filter_map(|&i| graph.nodes.get(i)?.input.first().map(String::as_str)).collect();
        // Values by their places in the plan, those that are codes wherever they are read.
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            let (Some(output), Some(result)) = (node.output.first(), graph.result(node)) else { continue };
            let inner = !graph.outputs.contains(result);
            let input = node.input.first().map_or("", String::as_str);
            let integers = |name: &String| places.contains_key(name.as_str()) || needed.contains(name.as_str());
            let shares = match () {
                () if plan.weighted.contains_key(&i) => {
                    if !(is(node, &["Conv"]) || inner && wanted.carried.contains(result)) {
                        continue;
                    }
                    None
                }
                () if carries(node) && wanted.joined.contains(output.as_str()) && places.contains_key(input) => {
                    places.get(input).copied()
                }
                () if joins(node) && inner && wanted.joined.contains(result) && node.input.iter().all(integers) => {
                    plan.joined.insert(i);
                    None
                }
                () => continue,
            };
            // A carried value is that of the node itself.
            let name = if shares.is_some() { output.as_str() } else { result };
            places.insert(name, plan.values.len());
            plan.values.push(Value { name: name.into(), shares, everywhere: true, operators: operator(node) });
        }
        for (i, node) in graph.nodes.iter().enumerate() {
            let count = match () {
                () if plan.weighted.contains_key(&i) => 1,
                () if plan.joined.contains(&i) => node.input.len(),
                () => 0,
            };
            for name in node.input.iter().take(count) {
                let place = *places.entry(name).or_insert_with(|| {
                    let value = Value { name: name.clone(), shares: None, everywhere: false, operators: Vec::new() };
                    plan.values.push(value);
                    plan.values.len() - 1
                });
                for operator in operator(node) {
                    let operators = &mut plan.values[place].operators;
                    if !operators.contains(&operator) {
                        operators.push(operator);
                    }
                }
            }
        }
        plan
    }
}

fn operator(node: &NodeProto) -> Vec<String> {
    node.op_type.iter().cloned().collect()
}
