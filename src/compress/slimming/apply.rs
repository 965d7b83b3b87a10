//! A slim topology written into the model: tensors, biases, sizes, and the shapes that the file says.

use super::{
    graph::{Numbers, Read, integer},
    lower::{Direction, Lowering, Patch, Place},
};
use crate::{
    compress::onnx::{
        floats,
        nodes::{attribute, inner, names, unique},
    },
    error::{Error, Result},
    format::{
        file::ElementType,
        onnx::{self, proto::*},
    },
    slim::{Slim, Tensor},
};
use std::collections::{BTreeMap, BTreeSet};

/// `AttributeProto.AttributeType`.
const INT: i32 = 2;
const INTS: i32 = 7;

/// Where the weights of a layer of the slim model are.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    /// The initializer of each tensor, where it changed; the others are as they were.
    pub(super) tensors: BTreeMap<String, String>,
    /// The initializer of each bias that folding made, by the tensor's name in the slim model.
    pub(super) biases: BTreeMap<String, String>,
}

struct Apply<'a> {
    read: &'a Read<'a>,
    lowering: &'a Lowering,
    slim: &'a Slim<f32>,
    nodes: Vec<NodeProto>,
    before: BTreeMap<usize, Vec<NodeProto>>,
    after: BTreeMap<usize, Vec<NodeProto>>,
    /// Initializers in place of those of their name, and new ones.
    tensors: BTreeMap<String, TensorProto>,
    taken: BTreeSet<String>,
    named: Named,
}

/// The slim model, and where its weights are.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) where the model has sizes of 2⁶³ and more.
pub(super) fn apply(
    model: &ModelProto,
    read: &Read<'_>,
    lowering: &Lowering,
    slim: &Slim<f32>,
) -> Result<(ModelProto, Named)> {
    let mut taken = BTreeSet::new();
    names(read.graph, &mut taken);
    let nodes = read.graph.node.clone();
    let (before, after, tensors) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut work = Apply { read, lowering, slim, nodes, before, after, tensors, taken, named: Named::default() };
    for patch in &lowering.patches {
        work.patch(patch)?;
    }
    let Apply { nodes, mut before, mut after, mut tensors, named, .. } = work;
    let mut model = model.clone();
    if let Some(graph) = &mut model.graph {
        graph.node.clear();
        for (index, mut node) in nodes.into_iter().enumerate() {
            graph.node.extend(before.remove(&index).unwrap_or_default());
            // A `Constant` that changed has another value; the attribute is the same.
            if let Some(tensor) = node
                .output
                .first()
                .filter(|_| node.op_type.as_deref() == Some("Constant"))
                .and_then(|n| tensors.remove(n))
            {
                node.attribute
                    .iter_mut()
                    .for_each(|attribute| attribute.t = Some(TensorProto { name: None, ..tensor.clone() }));
            }
            graph.node.push(node);
            graph.node.extend(after.remove(&index).unwrap_or_default());
        }
        for tensor in &mut graph.initializer {
            if let Some(new) = tensor.name.as_ref().and_then(|name| tensors.remove(name)) {
                *tensor = new;
            }
        }
        graph.initializer.extend(tensors.into_values());
        shapes(graph, lowering, slim);
        sweep(graph);
    }
    Ok((model, named))
}

impl Apply<'_> {
    fn unique(&mut self, name: &str) -> String {
        unique(&mut self.taken, name, "slim")
    }

    fn initializer(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        self.tensors.insert(name.into(), floats::tensor(name, shape, values)?);
        Ok(())
    }

    fn integers(&mut self, base: &str, values: &[i64]) -> Result<String> {
        let name = self.unique(base);
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = onnx::tensor(&name, ElementType::I64, &[values.len()], raw.into())?;
        self.tensors.insert(name.clone(), tensor);
        Ok(name)
    }

    fn cut(&self, tensor: &str) -> Result<&Tensor<f32>> {
        let cut = self.slim.tensors.get(tensor);
        cut.ok_or_else(|| Error::argument("tensor", "missing", "one of the slim model").in_tensor(tensor))
    }

    /// The shape of a node's output before and after.
    fn shapes(&self, node: &str) -> Option<(&[usize], &[usize])> {
        self.lowering.topology.shape(node).zip(self.slim.topology.shape(node))
    }

    fn set_input(&mut self, node: usize, index: usize, name: String) {
        let inputs = &mut self.nodes[node].input;
        inputs.resize(inputs.len().max(index + 1), String::new());
        inputs[index] = name;
    }

    fn patch(&mut self, patch: &Patch) -> Result<()> {
        match patch {
            Patch::Tensor { node, input, tensor } => self.tensor(*node, *input, tensor),
            Patch::Bias { from, place } => self.bias(from, place),
            Patch::Number { node, from, number, attribute } => {
                let (was, is) = (self.lowering.topology.number(from, number), self.slim.topology.number(from, number));
                if let Some(is) = is.filter(|_| was != is) {
                    set_integer(&mut self.nodes[*node], attribute, is as i64);
                }
                Ok(())
            }
            Patch::Shape { node, of } => self.shape(*node, of),
            Patch::Sizes { node, input } => self.sizes(*node, *input),
            Patch::Split { node, axis } => self.split(*node, *axis),
            Patch::Slice { node, axis, from } => self.slice(*node, *axis, from),
            Patch::Recurrent { node, directions } => self.recurrent(*node, directions),
        }
    }

    fn tensor(&mut self, node: usize, input: usize, tensor: &str) -> Result<()> {
        let Some(weight) = self.lowering.tensors.get(tensor) else { return Ok(()) };
        let cut = self.cut(tensor)?;
        let same = cut.values().iter().map(|x| x.to_bits()).eq(weight.numbers.values.iter().map(|x| x.to_bits()));
        let Some(root) = weight.root.clone().filter(|_| !same || cut.shape() != weight.numbers.shape) else {
            return Ok(());
        };
        let given = self.read.graph.node[node].input[input].clone();
        let name = match self.named.tensors.get(tensor) {
            Some(name) => name.clone(),
            None => {
                let is = |patch: &&Patch| matches!(patch, Patch::Tensor { tensor: other, .. } if other == tensor);
                let uses = self.lowering.patches.iter().filter(is).count();
                let owned =
                    self.read.is_constant(&root) && self.read.uses(&root) == uses && !self.tensors.contains_key(&root);
                let name = if owned { root.clone() } else { self.unique(&root) };
                let cut = self.cut(tensor)?;
                let dims = self.dims(&given, weight.numbers.shape.len(), cut.shape());
                let values = cut.values().to_vec();
                self.initializer(&name, &dims, &values)?;
                self.named.tensors.insert(tensor.into(), name.clone());
                name
            }
        };
        if name != root {
            self.set_input(node, input, name);
        }
        Ok(())
    }

    /// The shape of a tensor in the file: that of the slim model, with axes of length 1 where the file has them.
    fn dims(&self, name: &str, rank: usize, cut: &[usize]) -> Vec<usize> {
        let Some(Numbers { shape, .. }) = self.read.numbers(name).filter(|numbers| numbers.shape.len() != rank) else {
            return cut.to_vec();
        };
        if shape.len() < rank {
            return cut[rank - shape.len()..].to_vec();
        }
        // A list here has one long axis there.
        let long = shape.iter().position(|&n| n != 1).unwrap_or(shape.len().saturating_sub(1));
        let count: usize = cut.iter().product();
        (0..shape.len()).map(|axis| if axis == long { count } else { 1 }).collect()
    }

    fn bias(&mut self, from: &str, place: &Place) -> Result<()> {
        let made = format!("{from}.bias");
        if !self.slim.report.made.contains(&made) {
            return Ok(());
        }
        let (shape, values) = (self.cut(&made)?.shape().to_vec(), self.cut(&made)?.values().to_vec());
        let name = self.unique(&made);
        self.initializer(&name, &shape, &values)?;
        self.named.biases.insert(made, name.clone());
        match *place {
            Place::Input { node, input } => self.set_input(node, input, name),
            Place::Sum { node } => {
                let Some(output) = self.nodes[node].output.first().cloned() else { return Ok(()) };
                let product = self.unique(&output);
                self.nodes[node].output[0] = product.clone();
                self.after.entry(node).or_default().push(new_node("Add", &[&product, &name], &output));
            }
        }
        Ok(())
    }

    fn shape(&mut self, node: usize, of: &str) -> Result<()> {
        let Some((before, after)) = self.shapes(of) else { return Ok(()) };
        let (before, changed) = (before.to_vec(), before.iter().zip(after).map(|(a, b)| a != b).collect::<Vec<bool>>());
        let rank = before.len() as i64;
        let at = |name: &str, default: i64| {
            let at = integer(&self.nodes[node], name, default);
            (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize
        };
        let (start, end) = (at("start", 0), at("end", rank));
        let part = start..end.max(start);
        if changed[part.clone()].contains(&true) {
            let Some(output) = self.nodes[node].output.first().cloned() else { return Ok(()) };
            let own = self.unique(&output);
            self.nodes[node].output[0] = own.clone();
            let numbers: Vec<i64> = before[part.clone()].iter().map(|&n| n as i64).collect();
            let chosen = self.choice(&output, &changed[part], &numbers, &own, &output)?;
            self.after.entry(node).or_default().push(chosen);
        }
        Ok(())
    }

    /// `to`: these numbers where `changed`, else those of the value `from`.
    fn choice(&mut self, base: &str, changed: &[bool], numbers: &[i64], from: &str, to: &str) -> Result<NodeProto> {
        let mask = self.unique(base);
        let raw: Vec<u8> = changed.iter().map(|&changed| u8::from(changed)).collect();
        self.tensors.insert(mask.clone(), onnx::tensor(&mask, ElementType::Bool, &[changed.len()], raw.into())?);
        let numbers = self.integers(base, numbers)?;
        Ok(new_node("Where", &[&mask, &numbers, from], to))
    }

    /// A list of sizes of the output.
    fn sizes(&mut self, node: usize, input: usize) -> Result<()> {
        let (given, output) = (self.nodes[node].input[input].clone(), self.nodes[node].output[0].clone());
        let Some((before, after)) = self.shapes(&output) else { return Ok(()) };
        let from = self.read.graph.node[node].input[0].clone();
        let own: Vec<usize> = after.to_vec();
        let mut changed: Vec<bool> = before.iter().zip(after).map(|(a, b)| a != b).collect();
        let list = self.read.integers(&given);
        // A 0 is the length of the input's axis, which may have changed though the output's did not.
        if let (Some(list), Some((was, is))) = (&list, self.shapes(&from)) {
            for (axis, changed) in changed.iter_mut().enumerate() {
                *changed |= list.get(axis) == Some(&0) && was.get(axis) != is.get(axis);
            }
        }
        if !changed.contains(&true) {
            return Ok(());
        }
        let numbers: Vec<i64> = own.iter().map(|&n| n as i64).collect();
        let name = match list {
            Some(list) if list.len() == numbers.len() => {
                let entry = |(axis, &was): (usize, &i64)| if changed[axis] && was >= 0 { numbers[axis] } else { was };
                let list: Vec<i64> = list.iter().enumerate().map(entry).collect();
                self.integers(&given, &list)?
            }
            _ => {
                let name = self.unique(&given);
                let chosen = self.choice(&given, &changed, &numbers, &given, &name)?;
                self.before.entry(node).or_default().push(chosen);
                name
            }
        };
        self.set_input(node, input, name);
        Ok(())
    }

    fn split(&mut self, node: usize, axis: usize) -> Result<()> {
        let outputs = self.nodes[node].output.clone();
        let pairs: Vec<_> =
            outputs.iter().filter_map(|name| self.shapes(name)).map(|(a, b)| (a[axis], b[axis])).collect();
        if pairs.len() != outputs.len() || pairs.iter().all(|(before, after)| before == after) {
            return Ok(());
        }
        let lengths: Vec<i64> = pairs.iter().map(|(_, after)| *after as i64).collect();
        self.nodes[node].attribute.retain(|a| !matches!(a.name.as_deref(), Some("split" | "num_outputs")));
        if self.read.opset >= 13 {
            let name = self.integers(&outputs[0], &lengths)?;
            self.set_input(node, 1, name);
        } else {
            set_integers(&mut self.nodes[node], "split", lengths);
        }
        Ok(())
    }

    fn slice(&mut self, node: usize, axis: usize, from: &str) -> Result<()> {
        let number = |name: &str| self.slim.topology.number(from, name);
        let was = ["start", "end"].map(|name| self.lowering.topology.number(from, name));
        let (Some(start), Some(end)) = (number("start"), number("end")) else { return Ok(()) };
        if was == [Some(start), Some(end)] {
            return Ok(());
        }
        let value = self.nodes[node].clone();
        let rank = self.lowering.topology.shape(from).map_or(0, <[usize]>::len);
        let given = |at: usize, name: &str| match value.input.get(at).filter(|name| !name.is_empty()) {
            Some(input) => self.read.integers(input),
            None => attribute(&value, name).map(|a| a.ints.clone()),
        };
        let axes = given(3, "axes");
        let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
        let place = axes.iter().position(|&at| super::graph::axis(at, rank) == Some(axis));
        let place = place.ok_or_else(|| Error::argument("axis of a slice", axis, "one of its axes").in_tensor(from))?;
        for (at, name, new) in [(1, "starts", start), (2, "ends", end)] {
            let inputs = value.input.len() > at;
            let mut list = match given(at, name) {
                Some(list) => list,
                None if axes.len() == 1 => vec![0],
                None => return Err(Error::argument("bounds of a slice", "computed, of several axes", "constants")),
            };
            if let Some(entry) = list.get_mut(place) {
                *entry = new as i64;
            }
            if inputs {
                let name = self.integers(&value.output[0], &list)?;
                self.set_input(node, at, name);
            } else {
                set_integers(&mut self.nodes[node], name, list);
            }
        }
        // All of them are of one type.
        let steps = given(4, "steps").map_or(axes.len(), |list| list.len());
        for (at, list) in [(3, axes), (4, vec![1; steps])] {
            if value.input.get(at).is_some_and(|name| !name.is_empty()) {
                let name = self.integers(&value.output[0], &list)?;
                self.set_input(node, at, name);
            }
        }
        Ok(())
    }

    fn recurrent(&mut self, node: usize, directions: &[Direction]) -> Result<()> {
        let cut = |name: &String| self.slim.tensors.get(name).map(|t| (t.shape().to_vec(), t.values().to_vec()));
        let mut joined: [Vec<f32>; 3] = Default::default();
        let (mut rows, mut inputs, mut units) = (0, 0, 0);
        let mut changed = false;
        let mut biased = false;
        for direction in directions {
            let (Some((w, wv)), Some((r, rv))) = (cut(&direction.input), cut(&direction.hidden)) else { return Ok(()) };
            (rows, inputs, units) = (w[0], w[1], r[1]);
            for (tensor, shape) in [(&direction.input, &w), (&direction.hidden, &r)] {
                changed |= self.lowering.tensors.get(tensor).is_none_or(|weight| weight.numbers.shape != *shape);
            }
            joined[0].extend(wv);
            joined[1].extend(rv);
            let made = format!("{}.bias", direction.node);
            let own = direction.biases.as_ref();
            let first = cut(&made).or_else(|| own.and_then(|names| cut(&names[0])));
            changed |= self.slim.report.made.contains(&made);
            biased |= first.is_some();
            joined[2].extend(first.map_or_else(|| vec![0.0; rows], |(_, values)| values));
            let second = own.and_then(|names| cut(&names[1]));
            joined[2].extend(second.map_or_else(|| vec![0.0; rows], |(_, values)| values));
        }
        if !changed {
            return Ok(());
        }
        let count = directions.len();
        let shapes = [vec![count, rows, inputs], vec![count, rows, units], vec![count, 2 * rows]];
        for ((at, values), shape) in (1..).zip(joined).zip(shapes) {
            let given = self.nodes[node].input.get(at).cloned().unwrap_or_default();
            if at == 3 && !biased {
                continue;
            }
            let base = if given.is_empty() { self.nodes[node].output.concat() } else { given };
            let root = self.read.root(&base).to_string();
            let owned = self.read.is_constant(&root) && self.read.uses(&root) == 1 && !self.tensors.contains_key(&root);
            let name = if owned { root } else { self.unique(&base) };
            self.initializer(&name, &shape, &values)?;
            if !owned {
                self.set_input(node, at, name);
            }
        }
        // They are 0, which is what is left out.
        for at in 5..self.nodes[node].input.len().min(7) {
            self.nodes[node].input[at].clear();
        }
        while self.nodes[node].input.last().is_some_and(String::is_empty) {
            self.nodes[node].input.pop();
        }
        set_integer(&mut self.nodes[node], "hidden_size", units as i64);
        Ok(())
    }
}

fn new_node(operator: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: Some(format!("{output}_{operator}")),
        op_type: Some(operator.into()),
        input: input.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn set(node: &mut NodeProto, new: AttributeProto) {
    node.attribute.retain(|attribute| attribute.name != new.name);
    node.attribute.push(new);
}

fn set_integer(node: &mut NodeProto, name: &str, value: i64) {
    set(node, AttributeProto { name: Some(name.into()), i: Some(value), r#type: Some(INT), ..Default::default() });
}

fn set_integers(node: &mut NodeProto, name: &str, ints: Vec<i64>) {
    set(node, AttributeProto { name: Some(name.into()), ints, r#type: Some(INTS), ..Default::default() });
}

/// Puts right what the file says of the values' shapes.
fn shapes(graph: &mut GraphProto, lowering: &Lowering, slim: &Slim<f32>) {
    let known = |name: &str| {
        let name = lowering.aliases.get(name).map_or(name, String::as_str);
        lowering.topology.shape(name).zip(slim.topology.shape(name))
    };
    let initializers: BTreeMap<String, Vec<i64>> =
        graph.initializer.iter().filter_map(|tensor| Some((tensor.name.clone()?, tensor.dims.clone()))).collect();
    for value in graph.value_info.iter_mut().chain(&mut graph.input) {
        let name = value.name.clone().unwrap_or_default();
        let Some(TypeValue::Tensor(tensor)) = value.r#type.as_mut().and_then(|kind| kind.value.as_mut()) else {
            continue;
        };
        let Some(shape) = &mut tensor.shape else { continue };
        if let Some(dims) = initializers.get(&name).filter(|dims| dims.len() == shape.dim.len()) {
            for (dim, &size) in shape.dim.iter_mut().zip(dims) {
                dim.value = Some(Size::DimValue(size));
            }
        } else if let Some((before, after)) = known(&name).filter(|(before, _)| before.len() == shape.dim.len()) {
            for (dim, (before, after)) in shape.dim.iter_mut().zip(before.iter().zip(after)) {
                if before != after {
                    dim.value = Some(Size::DimValue(*after as i64));
                }
            }
        }
    }
}

/// Takes away what no output needs: nodes, initializers, what is said of their values.
pub(super) fn sweep(graph: &mut GraphProto) {
    let mut needed: BTreeSet<String> = graph.output.iter().filter_map(|output| output.name.clone()).collect();
    let mut kept = Vec::new();
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|name| needed.contains(name)) {
            needed.extend(node.input.iter().cloned());
            inner(&node).for_each(|graph| names(graph, &mut needed));
            kept.push(node);
        }
    }
    kept.reverse();
    let made: BTreeSet<String> = kept.iter().flat_map(|node| &node.output).cloned().collect();
    graph.node = kept;
    let inputs: BTreeSet<String> = graph.input.iter().filter_map(|input| input.name.clone()).collect();
    let old: BTreeSet<String> = graph.initializer.iter().filter_map(|tensor| tensor.name.clone()).collect();
    let used = |name: &Option<String>| name.as_ref().is_some_and(|name| needed.contains(name));
    graph.initializer.retain(|tensor| used(&tensor.name));
    graph.sparse_initializer.retain(|tensor| tensor.values.as_ref().is_some_and(|values| used(&values.name)));
    // An input stays, but for one that only named an initializer that is gone.
    graph.input.retain(|input| used(&input.name) || !input.name.as_ref().is_some_and(|name| old.contains(name)));
    graph.value_info.retain(|value| {
        value.name.as_ref().is_some_and(|name| made.contains(name) || inputs.contains(name)) && used(&value.name)
    });
    graph.quantization_annotation.retain(|annotation| {
        annotation.tensor_name.as_ref().is_some_and(|name| made.contains(name) || needed.contains(name))
    });
}
