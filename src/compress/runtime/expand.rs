//! Codes in a model as the numbers they stand for, for runtimes that do not have the operators.

use super::decode::{Integers, Levels, NBits, Zeros, dequantize};
use crate::{
    compress::onnx::{
        floats,
        nodes::{attribute, constant, inner, inner_mut, is_onnx, unique},
    },
    error::{Error, Result},
    format::{
        file::ElementType,
        onnx::{self, Bytes, proto::*},
    },
    tensor::view::checked_volume,
};
use std::collections::{BTreeMap, BTreeSet};

/// The constants that a graph sees: its own and those of the graphs around it.
struct Scope<'a> {
    /// `None`: a value that is not constant.
    own: BTreeMap<String, Option<TensorProto>>,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    fn new(graph: &GraphProto, outer: Option<&'a Scope<'a>>) -> Self {
        let name = |value: &ValueInfoProto| Some((value.name.clone()?, None));
        let mut own: BTreeMap<_, _> = graph.input.iter().filter_map(name).collect();
        for node in &graph.node {
            let value = constant(node);
            own.extend(node.output.iter().map(|name| (name.clone(), value.cloned())));
        }
        own.extend(graph.initializer.iter().filter_map(|tensor| Some((tensor.name.clone()?, Some(tensor.clone())))));
        Self { own, outer }
    }

    fn get(&self, name: &str) -> Option<&TensorProto> {
        match self.own.get(name) {
            Some(value) => value.as_ref(),
            None => self.outer?.get(name),
        }
    }
}

/// A constant of the model, with its bytes.
struct Constant {
    element: ElementType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Constant {
    fn new(name: &str, tensor: &TensorProto) -> Result<Self> {
        let Some(info) = onnx::tensor_info(name.into(), tensor)? else {
            return Err(Error::argument("element type", ElementType::Text, "of numbers").in_tensor(name));
        };
        let bytes = onnx::tensor_bytes(tensor, &info)?;
        Ok(Self { element: info.element, shape: info.shape, bytes })
    }

    fn integers(&self) -> Option<Integers<'_>> {
        let (bits, signed) = match self.element {
            ElementType::I2 => (2, true),
            ElementType::U2 => (2, false),
            ElementType::I4 => (4, true),
            ElementType::U4 => (4, false),
            ElementType::I8 => (8, true),
            ElementType::U8 => (8, false),
            _ => return None,
        };
        Some(Integers { bytes: &self.bytes, bits, signed })
    }

    fn floats(&self) -> Result<Option<Vec<f32>>> {
        if self.element != ElementType::F32 {
            return Ok(None);
        }
        let mut values = vec![0.0; checked_volume(&self.shape)?];
        self.element.to_f32(&self.bytes, &mut values)?;
        Ok(Some(values))
    }
}

/// Work on a model.
struct Expander {
    /// Bytes of the model, with what was expanded.
    bytes: u64,
    limit: u64,
    /// Inputs of nodes that are no more.
    consumed: BTreeSet<String>,
    expanded: Vec<String>,
}

/// Makes numbers of a model's codes: `DequantizeLinear` of constants is a constant, `MatMulNBits` is `MatMul`, and so is `MatMulInteger` by
/// a constant, whose integers `f32` has: the runtime has not all types of it, and on some processors cuts off its sums. What is not known
/// stays. Returns the names of what was expanded. `bytes` is the length of the model.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) where the model becomes longer than `limit` bytes; [`Shape`](crate::ErrorKind::Shape) or
/// `Argument` for a node that its operator's definition does not allow.
pub(super) fn expand(model: &mut ModelProto, bytes: u64, limit: u64) -> Result<Vec<String>> {
    let mut work = Expander { bytes: 0, limit, consumed: BTreeSet::new(), expanded: Vec::new() };
    work.add(bytes)?;
    if let Some(graph) = &mut model.graph {
        work.graph(graph, None)?;
        sweep(graph, &work.consumed);
    }
    Ok(work.expanded)
}

impl Expander {
    /// So many bytes more.
    fn add(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limit {
            let found = format!("at least {} of {} allowed", self.bytes, self.limit);
            return Err(Error::argument("bytes of the model in memory", found, "within the limit"));
        }
        Ok(())
    }

    fn add_floats(&mut self, shape: &[usize]) -> Result<()> {
        self.add((checked_volume(shape)? as u64).saturating_mul(4))
    }

    fn graph(&mut self, graph: &mut GraphProto, outer: Option<&Scope<'_>>) -> Result<()> {
        let scope = Scope::new(graph, outer);
        let outputs: BTreeSet<_> = graph.output.iter().filter_map(|value| value.name.clone()).collect();
        let mut names: BTreeSet<String> = scope.own.keys().cloned().collect();
        // One matrix may be multiplied by several nodes.
        let mut matrices: BTreeMap<(Vec<String>, [usize; 4]), String> = BTreeMap::new();
        let (mut nodes, mut tensors) = (Vec::with_capacity(graph.node.len()), Vec::new());
        // The values that have one zero point, as they are made so.
        let dynamic = |node: &&NodeProto| node.op_type.as_deref() == Some("DynamicQuantizeLinear") && is_onnx(node);
        let whole: BTreeSet<String> =
            graph.node.iter().filter(dynamic).filter_map(|node| node.output.get(2).cloned()).collect();
        for mut node in std::mem::take(&mut graph.node) {
            for inner in inner_mut(&mut node) {
                self.graph(inner, Some(&scope))?;
            }
            let output = node.output.first().cloned().unwrap_or_default();
            if node.op_type.as_deref() == Some("DequantizeLinear") && is_onnx(&node) && !outputs.contains(&output) {
                if let Some(tensor) =
                    self.dequantized(&node, &output, &scope).map_err(|error| error.in_tensor(&output))?
                {
                    self.done(&node.input, &output);
                    tensors.push(tensor);
                    continue;
                }
            } else if node.op_type.as_deref() == Some("MatMulNBits")
                && node.domain.as_deref() == Some("com.microsoft")
                && let Some(sizes) = sizes(&node)
            {
                let constants = node.input.get(1..).unwrap_or_default().to_vec();
                let key = (constants, sizes);
                let name = match matrices.get(&key) {
                    Some(name) => Some(name.clone()),
                    None => {
                        let codes = key.0.first().map_or("", String::as_str);
                        let matrix = self.matrix(&key.0, sizes, &scope).map_err(|error| error.in_tensor(codes))?;
                        matrix
                            .map(|raw| {
                                let name = unique(&mut names, codes, "expanded");
                                let [k, n, ..] = sizes;
                                tensors.push(onnx::tensor(&name, ElementType::F32, &[k, n], raw)?);
                                self.done(&key.0, codes);
                                Ok::<_, Error>(name)
                            })
                            .transpose()?
                    }
                };
                if let Some(name) = name {
                    node.input.truncate(1);
                    node.input.push(name.clone());
                    node.attribute.clear();
                    (node.op_type, node.domain) = (Some("MatMul".into()), None);
                    matrices.insert(key, name);
                }
            } else if node.op_type.as_deref() == Some("MatMulInteger") && is_onnx(&node) {
                let product = self.product(&node, &whole, &scope).map_err(|error| error.in_tensor(&output))?;
                if let Some((matrix, raw)) = product {
                    let mut unique = |ending: &str| unique(&mut names, &output, ending);
                    let name = unique("matrix");
                    nodes.extend(floats(&node, &name, &mut unique));
                    tensors.push(onnx::tensor(&name, ElementType::F32, &matrix, raw)?);
                    let constants = [node.input.get(1), node.input.get(3)].into_iter().flatten().cloned();
                    self.done(&constants.collect::<Vec<_>>(), &output);
                    continue;
                }
            }
            nodes.push(node);
        }
        graph.node = nodes;
        graph.initializer.append(&mut tensors);
        Ok(())
    }

    fn done(&mut self, inputs: &[String], name: &str) {
        self.consumed.extend(inputs.iter().cloned());
        self.expanded.push(name.into());
    }

    /// What `DequantizeLinear` gives, where that is constant.
    fn dequantized(&mut self, node: &NodeProto, output: &str, scope: &Scope<'_>) -> Result<Option<TensorProto>> {
        let constant = |i: usize| match node.input.get(i).filter(|name| !name.is_empty()) {
            Some(name) => Ok::<_, Error>(Some(scope.get(name).map(|tensor| Constant::new(name, tensor)).transpose()?)),
            None => Ok(None),
        };
        let (Some(Some(codes)), Some(Some(scale))) = (constant(0)?, constant(1)?) else { return Ok(None) };
        let zeros = match constant(2)? {
            Some(None) => return Ok(None),
            Some(Some(zeros)) if zeros.element != codes.element => {
                return Err(Error::argument("type of zero points", zeros.element, "that of the integers"));
            }
            Some(zeros) => zeros,
            None => None,
        };
        let integer = |name: &str| attribute(node, name).and_then(|attribute| attribute.i);
        // 1 is `f32`, 0 is the scale's type.
        let as_f32 = matches!(integer("output_dtype"), None | Some(0 | 1));
        let (Some(x), Some(scales), true) = (codes.integers(), scale.floats()?, as_f32) else { return Ok(None) };
        let block = integer("block_size").unwrap_or(0);
        let block = usize::try_from(block).map_err(|_| Error::argument("block_size", block, "at least 0"))?;
        self.add_floats(&codes.shape)?;
        let levels = Levels {
            scales: &scales,
            zeros: zeros.as_ref().and_then(Constant::integers),
            shape: &scale.shape,
            axis: integer("axis").unwrap_or(1),
            block,
        };
        let raw = floats::bytes(&dequantize(x, &codes.shape, levels)?);
        onnx::tensor(output, ElementType::F32, &codes.shape, raw).map(Some)
    }

    /// The matrix of `MatMulInteger` less its zero points, where it is constant and the other side has one zero point.
    fn product(
        &mut self,
        node: &NodeProto,
        whole: &BTreeSet<String>,
        scope: &Scope<'_>,
    ) -> Result<Option<(Vec<usize>, Bytes)>> {
        let named = |i: usize| node.input.get(i).filter(|name| !name.is_empty());
        let constant = |name: &String| scope.get(name).map(|tensor| Constant::new(name, tensor)).transpose();
        let Some(matrix) = named(1).map(constant).transpose()?.flatten() else { return Ok(None) };
        if let Some(zero) = named(2)
            && !whole.contains(zero)
            && constant(zero)?.is_none_or(|zero| zero.shape.iter().product::<usize>() != 1)
        {
            return Ok(None);
        }
        let zeros = match named(3) {
            None => None,
            Some(name) => match constant(name)? {
                Some(zeros) if zeros.element == matrix.element && zeros.shape.len() <= 1 => Some(zeros),
                _ => return Ok(None),
            },
        };
        let (Some(x), true) = (matrix.integers(), matrix.shape.len() >= 2) else { return Ok(None) };
        self.add_floats(&matrix.shape)?;
        let scales = vec![1.0; zeros.as_ref().map_or(1, |zeros| zeros.shape.iter().product())];
        let shape = zeros.as_ref().map_or(&[][..], |zeros| &zeros.shape);
        let zeros = zeros.as_ref().and_then(Constant::integers);
        let values = dequantize(x, &matrix.shape, Levels { scales: &scales, zeros, shape, axis: -1, block: 0 })?;
        Ok(Some((matrix.shape, floats::bytes(&values))))
    }

    /// The elements of the matrix of `MatMulNBits`, where it is constant.
    fn matrix(&mut self, inputs: &[String], sizes: [usize; 4], scope: &Scope<'_>) -> Result<Option<Bytes>> {
        let constant = |i: usize| {
            let name = inputs.get(i)?;
            Some(Constant::new(name, scope.get(name)?))
        };
        let (Some(codes), Some(scale)) = (constant(0).transpose()?, constant(1).transpose()?) else { return Ok(None) };
        let (ElementType::U8, Some(scales)) = (codes.element, scale.floats()?) else { return Ok(None) };
        let zeros = match inputs.get(2).filter(|name| !name.is_empty()) {
            Some(_) => match constant(2).transpose()? {
                Some(zeros) => Some(zeros),
                None => return Ok(None),
            },
            None => None,
        };
        let full = zeros.as_ref().map(Constant::floats).transpose()?.flatten();
        let zeros = match (&zeros, &full) {
            (None, _) => Zeros::Middle,
            (_, Some(values)) => Zeros::Full(values),
            (Some(zeros), None) if zeros.element == ElementType::U8 => Zeros::Packed(&zeros.bytes),
            _ => return Ok(None),
        };
        let [k, n, bits, block] = sizes;
        self.add_floats(&[k, n])?;
        let matrix = NBits { k, n, bits, block, packed: &codes.bytes, scales: &scales, zeros };
        Ok(Some(floats::bytes(&matrix.matrix()?)))
    }
}

/// The nodes that make of floating-point numbers what `MatMulInteger` makes of integers, but for sums beyond 2^24, which are rounded.
fn floats(node: &NodeProto, matrix: &str, unique: &mut dyn FnMut(&str) -> String) -> Vec<NodeProto> {
    let new = |operator: &str, input: Vec<String>, output: &str| NodeProto {
        op_type: Some(operator.into()),
        input,
        output: vec![output.into()],
        ..Default::default()
    };
    let cast = |from: &String, output: &str, to: i64| {
        let to = AttributeProto { name: Some("to".into()), i: Some(to), r#type: Some(2), ..Default::default() };
        NodeProto { attribute: vec![to], ..new("Cast", vec![from.clone()], output) }
    };
    let (float, int32) = (1, 6);
    let mut left = unique("left");
    let mut nodes: Vec<_> = node.input.first().map(|input| cast(input, &left, float)).into_iter().collect();
    if let Some(zero) = node.input.get(2).filter(|name| !name.is_empty()) {
        let (zero_float, difference) = (unique("zero"), unique("difference"));
        nodes.push(cast(zero, &zero_float, float));
        nodes.push(new("Sub", vec![left, zero_float], &difference));
        left = difference;
    }
    let sums = unique("sums");
    nodes.push(new("MatMul", vec![left, matrix.into()], &sums));
    nodes.extend(node.output.first().map(|output| cast(&sums, output, int32)));
    nodes
}

/// `K`, `N`, `bits` and `block_size` of a node `MatMulNBits` that is a product and nothing else.
fn sizes(node: &NodeProto) -> Option<[usize; 4]> {
    // Input 4 is an order of the rows, 5 a bias.
    let more = node.input.get(4..).unwrap_or_default().iter().any(|name| !name.is_empty());
    let known = |attribute: &AttributeProto| {
        matches!(attribute.name.as_deref(), Some("K" | "N" | "bits" | "block_size" | "accuracy_level"))
    };
    if more || !node.attribute.iter().all(known) {
        return None;
    }
    let integer = |name| usize::try_from(attribute(node, name)?.i?).ok();
    let bits = if attribute(node, "bits").is_some() { integer("bits")? } else { 4 };
    Some([integer("K")?, integer("N")?, bits, integer("block_size")?])
}

/// Drops constants that were read by what was expanded, and by nothing that is left.
fn sweep(graph: &mut GraphProto, consumed: &BTreeSet<String>) {
    graph.node.iter_mut().flat_map(inner_mut).for_each(|graph| sweep(graph, consumed));
    let mut used = BTreeSet::new();
    read(graph, &mut used);
    let idle = |name: &str| consumed.contains(name) && !used.contains(name);
    let names = |node: &NodeProto| node.output.first().is_some_and(|name| idle(name));
    graph.node.retain(|node| !(constant(node).is_some() && names(node)));
    graph.initializer.retain(|tensor| !tensor.name.as_deref().is_some_and(idle));
}

/// The values that are read in a graph and those within it.
fn read(graph: &GraphProto, used: &mut BTreeSet<String>) {
    used.extend(graph.output.iter().filter_map(|value| value.name.clone()));
    for node in &graph.node {
        used.extend(node.input.iter().cloned());
        inner(node).for_each(|graph| read(graph, used));
    }
}
