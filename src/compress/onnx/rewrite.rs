//! A model whose weights are to be codes: new nodes, new tensors whose elements are to come, and the work that makes them.

use super::{
    nodes::{self, constant, inner_mut, is_identity, names},
    opset,
    weights::{Axes, Use, aliases, uses},
};
use crate::{
    compress::{
        activations::Activations,
        encode::Scheme,
        recipe::{Form, Recipe},
        report::{Report, TensorReport},
        source::Source,
    },
    error::Result,
    format::{
        file::ElementType,
        onnx::{self, element_type, proto::*},
    },
    quant::layout::OnnxType,
    tensor::{Granularity, view::checked_volume},
};
use std::collections::{BTreeMap, BTreeSet};

const MICROSOFT: &str = "com.microsoft";
/// The most weights of a block of `MatMulNBits`.
const MAX_BLOCK: usize = 1 << 16;

/// A weight to be quantized.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) scheme: Scheme,
    pub(super) target: Target,
    /// Its place in the report.
    pub(super) report: usize,
    /// Whether all nodes that read it are to multiply by its codes.
    pub(super) integer: bool,
}

/// Where its parts go: numbers of pending tensors.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Dequantize { dtype: OnnxType, codes: usize, scales: usize, zeros: Option<usize> },
    MatMulNBits { block: usize, codes: usize, scales: usize, zeros: Option<usize> },
}

impl Target {
    pub(super) fn codes(self) -> usize {
        let (Self::Dequantize { codes, .. } | Self::MatMulNBits { codes, .. }) = self;
        codes
    }
}

pub(super) struct Rewritten {
    pub(super) model: ModelProto,
    pub(super) items: Vec<Item>,
    pub(super) report: Report,
}

/// How a weight will be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Way {
    bits: u8,
    /// `None`: a scale for each output channel.
    group: Option<usize>,
    multiplied: bool,
    /// By codes of activations.
    integer: bool,
}

impl Way {
    /// The version of the operators it needs.
    fn opset(self) -> i64 {
        match self {
            Self { multiplied: true, .. } => 1,
            Self { integer: true, .. } => 11,
            Self { bits: 2, .. } => 25,
            Self { bits: 8, group: None, .. } => 13,
            _ => 21,
        }
    }
}

/// What the whole of the work has to know.
struct Work<'a> {
    recipe: &'a Recipe,
    /// Of the format before version 4: all initializers are inputs, and none may be replaced.
    old: bool,
    /// The version of the operators there is.
    from: i64,
    /// Why a higher version cannot be, by version.
    blocked: BTreeMap<i64, Option<String>>,
    names: BTreeSet<String>,
    /// What the model's own training sets.
    trained: BTreeSet<String>,
    /// The version that is needed.
    opset: i64,
    microsoft: bool,
    pending: usize,
    items: Vec<Item>,
    report: Report,
}

/// Makes the weights of a model, whose tensors have raw elements, pending.
pub(super) fn rewrite(mut model: ModelProto, recipe: &Recipe) -> Result<Rewritten> {
    let from = opset::version(&model);
    let blocked = [11, 13, 21, 25].map(|to| (to, opset::blocker(&model, from, to))).into();
    let mut all = BTreeSet::new();
    if let Some(graph) = &model.graph {
        names(graph, &mut all);
    }
    let mut work = Work {
        recipe,
        old: model.ir_version.unwrap_or(0) < 4,
        from,
        blocked,
        names: all,
        trained: model
            .training_info
            .iter()
            .flat_map(|info| info.initialization_binding.iter().chain(&info.update_binding))
            .flat_map(|entry| entry.key.iter().chain(&entry.value).cloned())
            .collect(),
        opset: from,
        microsoft: false,
        pending: 0,
        items: Vec::new(),
        report: Report::default(),
    };
    if let Some(graph) = &mut model.graph {
        work.graph(graph, "")?;
    }
    let Work { old, opset: needed, microsoft, items, mut report, .. } = work;
    if old && !items.is_empty() {
        // Where initializers need not be inputs.
        model.ir_version = Some(4);
    }
    if needed > from {
        opset::import(&mut model, "", needed);
        report
            .notes
            .push(format!("Version {needed} of ONNX's operators is imported, for what is written; it was {from}."));
    }
    if microsoft {
        opset::import(&mut model, MICROSOFT, 1);
    }
    Ok(Rewritten { model, items, report })
}

impl Work<'_> {
    fn graph(&mut self, graph: &mut GraphProto, path: &str) -> Result<()> {
        for node in &mut graph.node {
            let called = node.name.clone().or_else(|| node.output.first().cloned()).unwrap_or_default();
            for inner in inner_mut(node) {
                self.graph(inner, &format!("{path}{called}/"))?;
            }
        }
        let inputs = graph.input.iter().filter_map(|input| input.name.clone());
        let inputs: BTreeSet<_> = if self.old { BTreeSet::new() } else { inputs.collect() };
        let rank = |tensor: &TensorProto| tensor.dims.len();
        let initializers = graph.initializer.iter().filter_map(|tensor| Some((tensor.name.clone()?, rank(tensor))));
        let constants =
            graph.node.iter().filter_map(|node| Some((node.output.first()?.clone(), rank(constant(node)?))));
        let ranks: BTreeMap<_, _> = initializers.chain(constants).collect();
        let aliases = aliases(graph, &ranks);
        let uses = uses(graph, &ranks, &aliases);
        let used = |name: &str| uses.get(name).map_or(&[][..], Vec::as_slice);

        let (mut nodes, mut tensors, mut multiplied) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut now = Now { nodes: &mut nodes, tensors: &mut tensors, multiplied: &mut multiplied };
        for tensor in std::mem::take(&mut graph.initializer) {
            let name = tensor.name.clone().unwrap_or_default();
            match self.weight(&name, path, &tensor, used(&name), inputs.contains(&name), &mut now)? {
                true => graph.input.retain(|input| input.name.as_ref() != Some(&name)),
                false => now.tensors.push(tensor),
            }
        }
        for node in std::mem::take(&mut graph.node) {
            let name = node.output.first().cloned().unwrap_or_default();
            let replaced = match constant(&node) {
                Some(tensor) => self.weight(&name, path, tensor, used(&name), false, &mut now)?,
                None => false,
            };
            if !replaced {
                now.nodes.push(node);
            }
        }
        let root = |name: &String| aliases.get(name).unwrap_or(name).clone();
        nodes.retain(|node| !is_identity(node) || !node.input.iter().any(|name| multiplied.contains_key(&root(name))));
        for node in &mut nodes {
            if node.op_type.as_deref() == Some("MatMul")
                && let Some(new) = node.input.get(1).and_then(|name| multiplied.get(&root(name)))
            {
                new.replace(node);
            }
        }
        (graph.node, graph.initializer) = (nodes, tensors);
        Ok(())
    }

    /// Replaces a weight by pending tensors and what reads them; `false` where it stays.
    fn weight(
        &mut self,
        name: &str,
        path: &str,
        tensor: &TensorProto,
        uses: &[Use],
        is_input: bool,
        now: &mut Now<'_>,
    ) -> Result<bool> {
        let Some(element) = element_type(tensor.data_type.unwrap_or(0)).filter(|element| element.is_float()) else {
            return Ok(false);
        };
        // Few numbers are no weights, and not worth a line.
        let Some(axes) = uses.iter().find_map(|of| of.axes) else { return Ok(false) };
        let Some(info) = onnx::tensor_info(format!("{path}{name}"), tensor)? else { return Ok(false) };
        let (elements, bytes) = (info.volume()?, info.byte_len()? as u64);
        let mut operators: Vec<&str> = uses.iter().map(|of| of.operator.as_str()).collect();
        operators.sort_unstable();
        operators.dedup();
        let mut report = TensorReport {
            name: info.name.clone(),
            shape: info.shape.clone(),
            operators: operators.iter().map(|operator| (*operator).into()).collect(),
            outcome: Err(String::new()),
            bytes_before: bytes,
            bytes_after: bytes,
            sqnr_db: None,
            max_abs: None,
            bound: None,
        };
        let kept = match is_input {
            true => Some("an input that callers may replace".into()),
            false => self.recipe.kept(&info.name, &operators, elements),
        };
        let way = match kept {
            Some(reason) => Err(reason),
            None if self.trained.contains(name) => Err("bound to the model's own training".into()),
            None => self.ways(element, &info.shape, uses, axes).and_then(|ways| {
                let smaller = ways.into_iter().find(|way| self.bytes(*way, &info.shape, axes) < bytes);
                smaller.ok_or_else(|| "not smaller as codes".into())
            }),
        };
        let way = match way {
            Ok(way) => way,
            Err(reason) => {
                report.outcome = Err(reason);
                self.report.tensors.push(report);
                return Ok(false);
            }
        };
        let bytes = onnx::tensor_bytes(tensor, &info)?;
        let source = Source { bytes, element, shape: info.shape.clone(), transposed: way.multiplied };
        let (scheme, target) = match way.multiplied {
            true => self.matrix(name, &source, way, now)?,
            false => self.dequantized(name, &source, way, axes, now)?,
        };
        self.opset = self.opset.max(way.opset());
        self.microsoft |= way.multiplied;
        let shared = match way.group {
            None => "a scale a channel".into(),
            Some(size) => format!("groups of {size}"),
        };
        let form = match way {
            Way { multiplied: true, .. } => "MatMulNBits".into(),
            Way { integer: true, .. } => "MatMulInteger".into(),
            _ => format!("DequantizeLinear{}", self.floats(element, uses, axes)),
        };
        let zeros = if self.recipe.symmetric { ", no zero points" } else { "" };
        report.outcome = Ok(format!("{} bits, {shared}{zeros}, {form}", way.bits));
        report.bytes_after = now.added(target)?;
        let (report_index, integer) = (self.report.tensors.len(), way.integer);
        self.items.push(Item { name: info.name, source, scheme, target, report: report_index, integer });
        self.report.tensors.push(report);
        Ok(true)
    }

    /// The bytes of codes, scales and zero points.
    fn bytes(&self, way: Way, shape: &[usize], axes: Axes) -> u64 {
        let (bits, volume) =
            (u128::from(way.bits), |shape: &[usize]| shape.iter().map(|&n| n as u128).product::<u128>());
        let (codes, levels) = match (way.group, way.multiplied) {
            (None, _) => (volume(shape), shape[axes.output] as u128),
            (Some(size), multiplied) => {
                let blocks = shape[axes.input].div_ceil(size) as u128;
                let others = volume(shape) / (shape[axes.input] as u128).max(1);
                (if multiplied { others * blocks * size as u128 } else { volume(shape) }, others * blocks)
            }
        };
        let zeros = if self.recipe.symmetric { 0 } else { (levels * bits).div_ceil(8) };
        u64::try_from((codes * bits).div_ceil(8) + 4 * levels + zeros).unwrap_or(u64::MAX)
    }

    /// How a weight can be kept, the best first, or why it stays.
    fn ways(&self, element: ElementType, shape: &[usize], uses: &[Use], axes: Axes) -> Result<Vec<Way>, String> {
        let Recipe { bits: Some(bits), group, form, .. } = *self.recipe else {
            return Err("not to be quantized".into());
        };
        // No more than there is.
        let length = shape[axes.input].max(1);
        let block = group.unwrap_or(32).min(length.next_power_of_two().max(16));
        let group = group.map(|size| size.min(length));
        let matrix = |of: &Use| of.operator == "MatMul" && !of.inner && of.axes.is_some_and(|axes| axes.matrix);
        let multiplied = match form {
            Form::Dequantize => Err("written as integers and their scales"),
            Form::Auto if bits == 8 => Err("8 bits are written as integers and their scales"),
            _ if !axes.matrix || !uses.iter().all(matrix) => Err("not only the right side of MatMul, a matrix"),
            _ if element != ElementType::F32 => Err("not of 32 bits"),
            _ if !block.is_power_of_two() || block > MAX_BLOCK => Err("in groups of no power of two up to 65,536"),
            _ => Ok(Way { bits, group: Some(block), multiplied: true, integer: false }),
        };
        let mut ways = match (form, multiplied) {
            (Form::MatMulNBits, Err(reason)) => return Err(reason.into()),
            (Form::MatMulNBits, Ok(way)) => return Ok(vec![way]),
            (_, multiplied) => Vec::from_iter(multiplied),
        };
        let plain = Way { bits, group, multiplied: false, integer: false };
        let channels = Way { group: None, ..plain };
        let integer = Way { integer: true, ..channels };
        let fallback = Way { bits: 8, ..channels };
        let dynamic = self.recipe.activations == Some(Activations::Dynamic);
        let rest = match form {
            _ if dynamic && self.floats(element, uses, axes).is_empty() => &[integer, plain][..],
            Form::Auto => &[plain, channels, fallback],
            _ => &[plain, channels],
        };
        let mut reason = String::new();
        for &way in rest {
            match self.blocked.get(&way.opset()).and_then(Option::as_ref) {
                Some(blocker) if way.opset() > self.from => {
                    reason = format!("needs version {} of ONNX's operators, but {blocker}", way.opset());
                }
                _ => ways.push(way),
            }
        }
        if ways.is_empty() { Err(reason) } else { Ok(ways) }
    }

    /// Why what multiplies by a weight stays as it is, where activations are to be codes.
    fn floats(&self, element: ElementType, uses: &[Use], axes: Axes) -> String {
        let reason = match self.recipe.activations {
            Some(Activations::Dynamic) if element != ElementType::F32 => Some("not of 32 bits"),
            Some(Activations::Dynamic) if uses.iter().any(|of| of.axes.is_none_or(|own| !own.along(axes))) => {
                Some("read in several ways")
            }
            Some(Activations::Dynamic) => uses.iter().find_map(|of| of.floats),
            _ => None,
        };
        reason.map_or(String::new(), |reason| format!(", times floating-point numbers: {reason}"))
    }

    /// A name that nothing has yet.
    fn unique(&mut self, name: &str, ending: &str) -> String {
        nodes::unique(&mut self.names, name, ending)
    }

    /// A pending tensor: its name and its number.
    fn add(
        &mut self,
        name: &str,
        ending: &str,
        element: ElementType,
        shape: &[usize],
        now: &mut Now<'_>,
    ) -> Result<(String, usize)> {
        let (name, number) = (self.unique(name, ending), self.pending);
        now.tensors.push(onnx::pending(&name, element, shape, number)?);
        self.pending += 1;
        Ok((name, number))
    }

    fn dequantized(
        &mut self,
        name: &str,
        source: &Source,
        way: Way,
        axes: Axes,
        now: &mut Now<'_>,
    ) -> Result<(Scheme, Target)> {
        let (symmetric, shape) = (self.recipe.symmetric, &source.shape);
        let (granularity, axis, levels) = match way.group {
            None => (Granularity::Channel { axis: axes.output }, axes.output, vec![shape[axes.output]]),
            Some(size) => {
                let mut levels = shape.clone();
                levels[axes.input] = shape[axes.input].div_ceil(size);
                (Granularity::Block { axis: axes.input, size }, axes.input, levels)
            }
        };
        let (dtype, element) = match (way.bits, symmetric) {
            (2, true) => (OnnxType::Int2, ElementType::I2),
            (2, false) => (OnnxType::Uint2, ElementType::U2),
            (4, true) => (OnnxType::Int4, ElementType::I4),
            (4, false) => (OnnxType::Uint4, ElementType::U4),
            (_, true) => (OnnxType::Int8, ElementType::I8),
            (_, false) => (OnnxType::Uint8, ElementType::U8),
        };
        let (codes_name, codes) = self.add(name, "quantized", element, shape, now)?;
        let (scale_name, scales) = self.add(name, "scale", ElementType::F32, &levels, now)?;
        let mut input = vec![codes_name, scale_name];
        let mut zeros = None;
        if !symmetric {
            let (zero_name, number) = self.add(name, "zero_point", element, &levels, now)?;
            input.push(zero_name);
            zeros = Some(number);
        }
        let mut attributes = vec![integer("axis", axis)];
        attributes.extend(way.group.map(|size| integer("block_size", size)));
        let wide = source.element == ElementType::F32;
        let output = if wide { name.to_string() } else { self.unique(name, "f32") };
        let node = self.unique(name, "dequantize");
        now.nodes.push(self::node(node, "DequantizeLinear", "", input, output.clone(), attributes));
        if !wide {
            let cast = self.unique(name, "cast");
            let to = onnx::data_type(source.element).unwrap_or(1);
            now.nodes.push(self::node(cast, "Cast", "", vec![output], name.into(), vec![integer("to", to as usize)]));
        }
        let target = Target::Dequantize { dtype, codes, scales, zeros };
        Ok((Scheme { bits: way.bits, symmetric, granularity }, target))
    }

    fn matrix(&mut self, name: &str, source: &Source, way: Way, now: &mut Now<'_>) -> Result<(Scheme, Target)> {
        let (block, symmetric) = (way.group.unwrap_or(32), self.recipe.symmetric);
        let (k, n, bits) = (source.shape[0], source.shape[1], usize::from(way.bits));
        let blocks = k.div_ceil(block);
        let packed = [n, blocks, block * bits / 8];
        let (codes_name, codes) = self.add(name, "quantized", ElementType::U8, &packed, now)?;
        let (scale_name, scales) = self.add(name, "scale", ElementType::F32, &[checked_volume(&[n, blocks])?], now)?;
        let mut input = vec![codes_name, scale_name];
        let mut zeros = None;
        if !symmetric {
            let shape = [checked_volume(&[n, (blocks * bits).div_ceil(8)])?];
            let (zero_name, number) = self.add(name, "zero_point", ElementType::U8, &shape, now)?;
            input.push(zero_name);
            zeros = Some(number);
        }
        let attributes = [("K", k), ("N", n), ("bits", bits), ("block_size", block)].map(|(key, n)| integer(key, n));
        now.multiplied.insert(name.to_string(), Multiplied { input, attributes: attributes.into() });
        let granularity = Granularity::Group { size: block };
        Ok((Scheme { bits: way.bits, symmetric, granularity }, Target::MatMulNBits { block, codes, scales, zeros }))
    }
}

/// What a graph will be.
struct Now<'a> {
    nodes: &'a mut Vec<NodeProto>,
    tensors: &'a mut Vec<TensorProto>,
    /// What multiplies in place of `MatMul`, by the matrix.
    multiplied: &'a mut BTreeMap<String, Multiplied>,
}

impl Now<'_> {
    /// The bytes of the pending tensors of a weight, which are the last.
    fn added(&self, target: Target) -> Result<u64> {
        let (Target::Dequantize { zeros, .. } | Target::MatMulNBits { zeros, .. }) = target;
        let count = if zeros.is_some() { 3 } else { 2 };
        let mut bytes = 0;
        for tensor in self.tensors.iter().rev().take(count) {
            if let Some(info) = onnx::tensor_info(String::new(), tensor)? {
                bytes += info.byte_len()? as u64;
            }
        }
        Ok(bytes)
    }
}

/// The matrix of a node `MatMulNBits`.
struct Multiplied {
    input: Vec<String>,
    attributes: Vec<AttributeProto>,
}

impl Multiplied {
    /// Makes it of a node `MatMul`.
    fn replace(&self, node: &mut NodeProto) {
        node.input.truncate(1);
        node.input.extend(self.input.iter().cloned());
        node.attribute = self.attributes.clone();
        (node.op_type, node.domain) = (Some("MatMulNBits".into()), Some(MICROSOFT.into()));
    }
}

/// `AttributeProto.AttributeType.INT`.
const INT: i32 = 2;

pub(super) fn integer(name: &str, value: usize) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(value as i64), r#type: Some(INT), ..Default::default() }
}

pub(super) fn node(
    name: String,
    operator: &str,
    domain: &str,
    input: Vec<String>,
    output: String,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        name: Some(name),
        op_type: Some(operator.into()),
        domain: Some(domain.into()).filter(|domain: &String| !domain.is_empty()),
        input,
        output: vec![output],
        attribute,
        ..Default::default()
    }
}
