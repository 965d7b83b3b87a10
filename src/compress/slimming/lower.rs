//! The topology of a graph: its nodes as those of [`slim`](crate::slim), with a batch of one, and what has to change when they are slim.

use super::{
    graph::{Numbers, Read, called, input, operator},
    report::FrozenNode,
    shapes::Shapes,
};
use crate::{
    compress::onnx::nodes::names,
    error::{Error, Result},
    format::onnx::proto::NodeProto,
    slim::{Activation, Builder, Input, Node, Opaque, Parameter, Reshape, Topology, Value},
    tensor::{TensorRef, view::checked_volume},
};
use std::collections::{BTreeMap, BTreeSet};

/// Why a node is not understood.
pub(super) type Lowered<T = ()> = std::result::Result<T, String>;

/// Where a bias goes that folding makes.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In place of an input, or as a new last one.
    Input { node: usize, input: usize },
    /// In a sum of its own.
    Sum { node: usize },
}

/// A direction of a recurrent layer: its node here, and its tensors.
#[derive(Debug, Clone)]
pub(super) struct Direction {
    pub(super) node: String,
    pub(super) input: String,
    pub(super) hidden: String,
    pub(super) biases: Option<[String; 2]>,
}

/// What of a node of the file follows the slim topology.
#[derive(Debug, Clone)]
pub(super) enum Patch {
    Tensor {
        node: usize,
        input: usize,
        tensor: String,
    },
    Bias {
        from: String,
        place: Place,
    },
    Number {
        node: usize,
        from: String,
        number: &'static str,
        attribute: &'static str,
    },
    /// `Shape` gives the shape that there was.
    Shape {
        node: usize,
        of: String,
    },
    /// Sizes of the output that an input asks for.
    Sizes {
        node: usize,
        input: usize,
    },
    Split {
        node: usize,
        axis: usize,
    },
    /// Of a slice along the channels: their axis, and its node here.
    Slice {
        node: usize,
        axis: usize,
        from: String,
    },
    Recurrent {
        node: usize,
        directions: Vec<Direction>,
    },
}

/// A layer that reads channels by weights.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "linalg"), allow(dead_code, reason = "fits of this feature read them"))]
pub(super) struct Site {
    /// Its node here.
    pub(super) from: String,
    /// Values of the file.
    pub(super) input: String,
    pub(super) output: String,
    /// Tensors here.
    pub(super) weight: String,
    pub(super) bias: Option<String>,
    pub(super) window: Option<Window>,
    /// Weights of shape (inputs, outputs).
    pub(super) inputs_first: bool,
}

/// How a convolution moves.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Window {
    pub(super) strides: Vec<usize>,
    pub(super) begins: Vec<usize>,
    pub(super) ends: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) groups: usize,
    pub(super) kernel: Vec<usize>,
}

/// A tensor here: which constant it is, where it is one of the file.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    pub(super) numbers: Numbers,
    pub(super) root: Option<String>,
}

/// The version of the operators that has `Where`.
pub(super) const WHERE: i64 = 9;

/// The work on a graph.
pub(super) struct Lower<'a> {
    pub(super) read: &'a Read<'a>,
    pub(super) shapes: &'a Shapes,
    pub(super) builder: Builder,
    values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Weight>,
    /// The tensor here of a constant, seen in a shape.
    keys: BTreeMap<(String, Vec<usize>), String>,
    pub(super) patches: Vec<Patch>,
    frozen: Vec<FrozenNode>,
    pub(super) sites: Vec<Site>,
    /// Values that depend on no input but by its sizes, and those of them that are floating-point numbers.
    statics: BTreeSet<String>,
    floats: BTreeSet<String>,
    /// Nodes that are parts of others.
    pub(super) merged: BTreeSet<usize>,
    /// Values of the shape of another.
    pub(super) aliases: BTreeMap<String, String>,
    count: usize,
    /// Names of values, and of parts.
    taken: BTreeSet<String>,
    /// The value that each part is one of.
    parts: BTreeMap<String, String>,
    /// A weight that is none.
    failure: Option<Error>,
}

/// A graph's topology, with its tensors.
pub(super) struct Lowering {
    pub(super) topology: Topology,
    pub(super) tensors: BTreeMap<String, Weight>,
    pub(super) patches: Vec<Patch>,
    pub(super) frozen: Vec<FrozenNode>,
    pub(super) sites: Vec<Site>,
    pub(super) aliases: BTreeMap<String, String>,
    /// The value that each part of a node is one of.
    pub(super) parts: BTreeMap<String, String>,
}

impl Lowering {
    /// The tensors as slimming takes them.
    ///
    /// # Errors
    /// None: shapes were checked.
    pub(super) fn weights(&self) -> Result<BTreeMap<&str, TensorRef<'_, f32>>> {
        let view = |numbers| -> Result<_> {
            let Numbers { shape, values }: &Numbers = numbers;
            TensorRef::new(&values[..], shape)
        };
        self.tensors.iter().map(|(name, weight)| Ok((name.as_str(), view(&weight.numbers)?))).collect()
    }
}

/// Reads a graph. A node that is not understood freezes what it reads and gives.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for a topology that cannot be built, [`NonFinite`](crate::ErrorKind::NonFinite) for weights
/// that are NaN.
pub(super) fn lower(read: &Read<'_>, shapes: &Shapes) -> Result<Lowering> {
    let mut taken = BTreeSet::new();
    names(read.graph, &mut taken);
    let mut work = Lower {
        read,
        shapes,
        builder: Topology::builder(std::iter::empty::<(String, Vec<usize>)>())?,
        values: BTreeMap::new(),
        tensors: BTreeMap::new(),
        keys: BTreeMap::new(),
        patches: Vec::new(),
        frozen: Vec::new(),
        sites: Vec::new(),
        statics: BTreeSet::new(),
        floats: BTreeSet::new(),
        merged: BTreeSet::new(),
        aliases: BTreeMap::new(),
        count: 0,
        taken,
        parts: BTreeMap::new(),
        failure: None,
    };
    for name in read.graph.input.iter().filter_map(|input| input.name.as_deref()) {
        if let Some(shape) = shapes.shape(name).filter(|_| !read.is_constant(name)) {
            let axis = work.axis_of_readers(name, shape.len());
            let value = work.builder.add(name, Input::new(&shape, axis), [])?;
            work.values.insert(name.into(), value);
        }
    }
    for (index, node) in read.graph.node.iter().enumerate() {
        if work.is_static(index, node) {
            work.keep_static(node);
        } else if operator(node) == "Shape" && read.opset >= WHERE {
            work.statics.extend(node.output.first().cloned());
            if let Some(of) = input(node, 0).filter(|name| work.values.contains_key(*name)) {
                work.patches.push(Patch::Shape { node: index, of: of.into() });
            }
        } else if !work.merged.contains(&index)
            && let Err(reason) = work.node(index, node)
        {
            work.opaque(index, node, reason)?;
        }
    }
    if let Some(failure) = work.failure {
        return Err(failure);
    }
    for name in read.graph.output.iter().filter_map(|output| output.name.as_deref()) {
        if let Some(&value) = work.values.get(name) {
            work.builder.output(value)?;
        }
    }
    let Lower { builder, tensors, patches, frozen, sites, aliases, parts, .. } = work;
    Ok(Lowering { topology: builder.build()?, tensors, patches, frozen, sites, aliases, parts })
}

impl Lower<'_> {
    fn is_static(&self, index: usize, node: &NodeProto) -> bool {
        let fixed = |name: &str| self.read.is_constant(name) || self.statics.contains(name);
        let random = operator(node).starts_with("Random") || matches!(operator(node), "Bernoulli" | "Multinomial");
        let known = node.input.iter().filter(|name| !name.is_empty()).all(|name| fixed(name));
        known && !random && self.read.implicit(index).iter().all(|name| fixed(name))
    }

    fn keep_static(&mut self, node: &NodeProto) {
        let moved =
            matches!(operator(node), "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Identity" | "Flatten");
        let floats = input(node, 0).is_some_and(|name| self.constant(name).is_some());
        let outputs = node.output.iter().filter(|name| !name.is_empty() && !self.read.is_constant(name));
        for name in outputs {
            self.statics.insert(name.clone());
            if moved && floats {
                self.floats.insert(name.clone());
            }
        }
    }

    /// Where a value's channels are taken to be, by who reads it.
    fn axis_of_readers(&self, name: &str, rank: usize) -> usize {
        let readers = self.read.readers.get(name).map_or(&[][..], Vec::as_slice);
        let first = |&node: &usize| {
            let operator = operator(&self.read.graph.node[node]);
            operator.contains("Conv") || operator.contains("Pool") || operator.ends_with("Normalization") && rank > 3
        };
        if rank > 2 && readers.iter().any(first) { 1 } else { rank.saturating_sub(1) }
    }

    /// The name of a part of a node.
    pub(super) fn part(&mut self, of: &str) -> String {
        loop {
            self.count += 1;
            let name = format!("{of}#{}", self.count);
            if self.taken.insert(name.clone()) {
                self.parts.insert(name.clone(), of.into());
                return name;
            }
        }
    }

    pub(super) fn add(&mut self, name: &str, node: impl Into<Node>, inputs: &[Value]) -> Lowered<Value> {
        self.builder.add(name, node, inputs).map_err(|error| error.to_string())
    }

    pub(super) fn add_part(&mut self, of: &str, node: impl Into<Node>, inputs: &[Value]) -> Lowered<Value> {
        let name = self.part(of);
        self.add(&name, node, inputs)
    }

    pub(super) fn shape(&self, name: &str) -> Lowered<Vec<usize>> {
        self.shapes.shape(name).ok_or_else(|| format!("the shape of `{name}` is not known, or has no elements"))
    }

    /// The shape of a value here and the axis of its channels.
    pub(super) fn layout(&self, value: Value) -> (Vec<usize>, Option<usize>) {
        let (shape, axis) = self.builder.layout(value);
        (shape.to_vec(), axis)
    }

    /// A value that a node reads: of the inputs, or of no input, whose channels stay.
    pub(super) fn value(&mut self, name: &str) -> Lowered<Value> {
        if let Some(&value) = self.values.get(name) {
            return Ok(value);
        }
        let shape = match self.read.dims(name) {
            Some(shape) if shape.is_empty() => vec![1],
            Some(shape) => shape,
            None => self.shape(name)?,
        };
        let axis = self.axis_of_readers(name, shape.len());
        let source = self.part(name);
        self.add(&source, Opaque::new(&shape, axis), &[])
    }

    /// The only input that is a value, by its name.
    pub(super) fn data(&mut self, node: &NodeProto) -> Lowered<Value> {
        let name = input(node, 0).ok_or("without an input")?.to_string();
        self.value(&name)
    }

    /// A constant of floating-point numbers, also one that was moved before it is used.
    pub(super) fn constant(&self, name: &str) -> Option<Numbers> {
        if self.read.is_constant(name) {
            return self.read.numbers(name);
        }
        if !self.floats.contains(name) {
            return None;
        }
        let value = self.shapes.numbers(name)?;
        Some(Numbers { shape: value.shape.clone(), values: value.values.iter().map(|&x| x as f32).collect() })
    }

    /// Integers that do not depend on the inputs.
    pub(super) fn integers(&self, name: &str) -> Option<Vec<i64>> {
        if self.read.is_constant(name) {
            return self.read.integers(name);
        }
        let value = self.shapes.numbers(name).filter(|_| self.statics.contains(name))?;
        Some(value.values.iter().map(|&x| x as i64).collect())
    }

    /// Declares a constant that is an input of a node as a tensor of this shape here.
    pub(super) fn tensor(&mut self, node: usize, index: usize, shape: &[usize]) -> Lowered<String> {
        let name = input(&self.read.graph.node[node], index).ok_or("without its weights")?.to_string();
        let numbers = self.constant(&name).ok_or_else(|| format!("`{name}` is no constant of 32-bit numbers"))?;
        if checked_volume(shape).ok() != Some(numbers.values.len()) {
            return Err(format!("`{name}` has shape {:?}, not {shape:?}", numbers.shape));
        }
        if !self.read.is_constant(&name) && numbers.shape != shape {
            return Err(format!("`{name}` is moved, and of shape {:?}, not {shape:?}", numbers.shape));
        }
        let root = self.read.root(&name).to_string();
        // A table may have infinities, as masks are; then it stays.
        if let Some(at) = numbers.values.iter().position(|x| x.is_nan()) {
            let error = Error::non_finite("weights", at, numbers.values[at].into()).in_tensor(&root);
            self.failure.get_or_insert(error);
        }
        let key = (root.clone(), shape.to_vec());
        let tensor = match self.keys.get(&key) {
            Some(tensor) => tensor.clone(),
            None => {
                let tensor = format!("{root}@{}", self.keys.len());
                self.declare(&tensor, Numbers { shape: shape.to_vec(), values: numbers.values }, Some(root))?;
                self.keys.insert(key, tensor.clone());
                tensor
            }
        };
        self.patches.push(Patch::Tensor { node, input: index, tensor: tensor.clone() });
        Ok(tensor)
    }

    pub(super) fn declare(&mut self, tensor: &str, numbers: Numbers, root: Option<String>) -> Lowered {
        if numbers.values.iter().any(|x| !x.is_finite()) {
            return Err(format!("`{tensor}` holds a NaN or an infinity"));
        }
        self.builder.declare(tensor, &numbers.shape).map_err(|error| error.to_string())?;
        self.tensors.insert(tensor.into(), Weight { numbers, root });
        Ok(())
    }

    /// A constant operand as a value: its channels are on the axis of `with`'s, when both are broadcast to `rank` axes.
    pub(super) fn operand(&mut self, node: usize, index: usize, with: Value, rank: usize) -> Lowered<Value> {
        let (shape, axis) = self.layout(with);
        let axis = axis.and_then(|axis| (axis + rank).checked_sub(shape.len())).ok_or("beside unknown channels")?;
        let output = self.read.graph.node[node].output.first().cloned().unwrap_or_default();
        let name = input(&self.read.graph.node[node], index).ok_or("without an operand")?.to_string();
        let numbers = self.constant(&name).ok_or_else(|| format!("`{name}` is no constant of 32-bit numbers"))?;
        // A mask of infinities is no weight.
        if numbers.values.iter().any(|x| !x.is_finite()) {
            return Err(format!("`{name}` holds a NaN or an infinity"));
        }
        let missing = rank.checked_sub(numbers.shape.len()).ok_or("of more axes than its output")?;
        let full = [vec![1; missing], numbers.shape].concat();
        let tensor = self.tensor(node, index, &full)?;
        self.add_part(&output, Parameter::new(tensor, axis), &[])
    }

    /// Without the axis of the batch, whose length is 1; the channels are on the first axis.
    pub(super) fn unbatched(&mut self, of: &str, x: Value) -> Lowered<Value> {
        let (shape, axis) = self.layout(x);
        let Some((1, rest)) = shape.split_first().filter(|(_, rest)| !rest.is_empty()) else {
            return Err("its batch cannot be one".into());
        };
        if axis != Some(1) {
            // Their channels stay; those of the axis that counts here too.
            return self.add_part(of, Opaque::new(rest, 0), &[x]);
        }
        self.add_part(of, Reshape::new(rest).along(0), &[x])
    }

    /// As `output`, with a batch of one.
    pub(super) fn batched(&mut self, output: &str, x: Value) -> Lowered<Value> {
        let (shape, axis) = self.layout(x);
        let axis = axis.ok_or("of unknown channels")?;
        let full = [vec![1], shape].concat();
        self.add(output, Reshape::new(&full).along(axis + 1), &[x])
    }

    /// The value is an output of a node of the file.
    pub(super) fn set(&mut self, name: &str, value: Value) -> Lowered {
        let (shape, axis) = self.layout(value);
        let expected = self.shape(name)?;
        if shape != expected {
            return Err(format!("`{name}` would be of shape {shape:?}, not {expected:?}"));
        }
        if let Some(axis) = axis
            && (self.shapes.varies(name, axis) || self.shapes.unsure && axis == 0)
            && !self.builder.is_frozen(value)
        {
            let reason = format!("the channels of `{name}` are on an axis whose length the inputs give");
            self.add_part(name, Opaque::new(&[1], 0), &[value])?;
            let node = name.to_string();
            self.frozen.push(FrozenNode { node, operator: "a value".into(), reason });
        }
        self.values.insert(name.into(), value);
        Ok(())
    }

    /// A node with one output, which is as its first input but for the numbers.
    pub(super) fn simple(&mut self, node: &NodeProto, inputs: &[Value], rule: impl Into<Node>) -> Lowered {
        let output = output(node)?.to_string();
        let value = self.add(&output, rule, inputs)?;
        self.set(&output, value)
    }

    /// A chain of functions.
    pub(super) fn chain(&mut self, node: &NodeProto, mut x: Value, functions: &[Activation]) -> Lowered {
        let output = output(node)?.to_string();
        let Some((last, others)) = functions.split_last() else { return Err("no function".into()) };
        for function in others {
            x = self.add_part(&output, *function, &[x])?;
        }
        let expected = self.shape(&output)?;
        let fits = self.layout(x).0 == expected;
        let x = if fits { self.add(&output, *last, &[x])? } else { self.add_part(&output, *last, &[x])? };
        let x = if fits { x } else { self.add(&output, Reshape::new(&expected), &[x])? };
        self.set(&output, x)
    }

    /// A node of which nothing is known.
    fn opaque(&mut self, index: usize, node: &NodeProto, reason: String) -> Result<()> {
        let names: Vec<&str> =
            node.input.iter().map(String::as_str).chain(self.read.implicit(index).iter().copied()).collect();
        let inputs: Vec<Value> = names.iter().filter_map(|name| self.values.get(*name).copied()).collect();
        let free = inputs.iter().any(|&value| !self.builder.is_frozen(value));
        if free || matches!(operator(node), "Conv" | "ConvTranspose" | "Gemm" | "LSTM" | "GRU" | "RNN") {
            let operator = node.op_type.clone().unwrap_or_default();
            self.frozen.push(FrozenNode { node: called(node), operator, reason });
        }
        // Its inputs stay, whatever it gives.
        if free {
            let name = self.part(&called(node));
            self.builder.add(name, Opaque::new(&[1], 0), &inputs)?;
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let Some(shape) = self.shapes.shape(name) else { continue };
            let axis = self.axis_of_readers(name, shape.len());
            // A part may have its name already.
            let value = match self.builder.add(name.clone(), Opaque::new(&shape, axis), &inputs) {
                Ok(value) => value,
                Err(_) => {
                    let part = self.part(name);
                    self.builder.add(part, Opaque::new(&shape, axis), &inputs)?
                }
            };
            self.values.insert(name.clone(), value);
        }
        Ok(())
    }
}

/// The name of the first output.
pub(super) fn output(node: &NodeProto) -> Lowered<&str> {
    node.output.first().map(String::as_str).filter(|name| !name.is_empty()).ok_or_else(|| "without an output".into())
}
