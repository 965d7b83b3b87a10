//! A model whose weights are to be codes: new nodes, new tensors whose elements are to come, and the work that makes them.

use super::{
    nodes::{self, constant, inner_below, is_identity, is_onnx, names},
    opset,
    ways::{How, Of, Versions, Way},
    weights::{Axes, Use, aliases, uses},
};
use crate::{
    compress::{
        budget::BUDGET,
        encode::Scheme,
        recipe::Recipe,
        report::{Report, TensorReport},
        source::Source,
    },
    error::Result,
    format::{
        file::ElementType,
        onnx::{self, element_type, proto::*},
    },
    quant::layout::OnnxType,
    tensor::view::checked_volume,
};
use std::collections::{BTreeMap, BTreeSet};

const MICROSOFT: &str = "com.microsoft";
/// A weight to be changed.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) source: Source,
    /// That sums go over.
    pub(super) axis: usize,
    pub(super) target: Target,
    /// Its place in the report.
    pub(super) report: usize,
    /// Its place among the weights that may change.
    pub(super) number: usize,
    /// Whether all nodes that read it are to multiply by its codes.
    pub(super) integer: bool,
}

/// What it becomes, and where its parts go: numbers of pending tensors.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Codes { scheme: Scheme, form: Codes },
    Dense { place: usize },
    Sparse { values: usize, indices: usize },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Codes {
    Dequantize { dtype: OnnxType, codes: usize, scales: usize, zeros: Option<usize> },
    MatMulNBits { block: usize, codes: usize, scales: usize, zeros: Option<usize> },
}

impl Target {
    /// The number of its codes.
    pub(super) fn codes(self) -> Option<usize> {
        match self {
            Self::Codes { form: Codes::Dequantize { codes, .. } | Codes::MatMulNBits { codes, .. }, .. } => Some(codes),
            Self::Dense { .. } | Self::Sparse { .. } => None,
        }
    }
}

/// A weight that may change, and what may become of it.
pub(super) struct Surveyed {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) axis: usize,
    /// The bytes and the schemes of its ways.
    pub(super) ways: Vec<(How, u64, Option<Scheme>)>,
}

/// What is known of what each weight will be.
#[derive(Clone, Copy)]
pub(super) enum Picks<'a> {
    /// Nothing: the first of its ways.
    First,
    /// To be asked: all weights stay.
    Survey,
    /// By their numbers.
    Chosen(&'a [How]),
}

pub(super) struct Rewritten {
    pub(super) model: ModelProto,
    pub(super) items: Vec<Item>,
    pub(super) surveyed: Vec<Surveyed>,
    pub(super) report: Report,
}

/// What the whole of the work has to know.
struct Work<'a> {
    recipe: &'a Recipe,
    picks: Picks<'a>,
    surveyed: Vec<Surveyed>,
    /// Weights that may change, so far.
    number: usize,
    /// Of the format before version 4: all initializers are inputs, and none may be replaced.
    old: bool,
    versions: Versions,
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
pub(super) fn rewrite(mut model: ModelProto, recipe: &Recipe, picks: Picks<'_>) -> Result<Rewritten> {
    let from = opset::version(&model);
    let blocked = [11, 13, 21, 25].map(|to| (to, opset::blocker(&model, from, to))).into();
    let mut all = BTreeSet::new();
    if let Some(graph) = &model.graph {
        names(graph, &mut all);
    }
    let mut work = Work {
        recipe,
        picks,
        surveyed: Vec::new(),
        number: 0,
        old: model.ir_version.unwrap_or(0) < 4,
        versions: Versions { from, blocked },
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
    let Work { old, opset: needed, microsoft, items, surveyed, mut report, .. } = work;
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
    Ok(Rewritten { model, items, surveyed, report })
}

impl Work<'_> {
    fn graph(&mut self, graph: &mut GraphProto, path: &str) -> Result<()> {
        for node in &mut graph.node {
            for (path, inner) in inner_below(node, path) {
                self.graph(inner, &path)?;
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
        let mut sparse = std::mem::take(&mut graph.sparse_initializer);
        let mut now =
            Now { nodes: &mut nodes, tensors: &mut tensors, sparse: &mut sparse, multiplied: &mut multiplied };
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
        graph.node = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            let product = matches!(node.op_type.as_deref(), Some("MatMul" | "Gemm")) && is_onnx(&node);
            let new = node.input.get(1).filter(|_| product).and_then(|name| multiplied.get(&root(name)));
            let sum = new.and_then(|new| new.replace(&mut node, |name| self.unique(name, "product")));
            graph.node.push(node);
            graph.node.extend(sum);
        }
        (graph.initializer, graph.sparse_initializer) = (tensors, sparse);
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
        let listed = operators.iter().map(|operator| (*operator).into()).collect();
        let mut report = TensorReport::new(info.name.clone(), info.shape.clone(), listed, bytes);
        let stays = match is_input {
            true => Some("an input that callers may replace".into()),
            false => self.recipe.kept(&info.name, &operators, elements),
        };
        let stays = stays.or_else(|| self.trained.contains(name).then(|| "bound to the model's own training".into()));
        let of = Of { element, shape: &info.shape, uses, axes, bytes };
        let (hows, refused) = match &stays {
            Some(_) => (Vec::new(), None),
            None => of.hows(self.recipe, &self.versions),
        };
        let Some(&first) = hows.first() else {
            report.outcome = Err(stays.or(refused).unwrap_or_default());
            self.report.tensors.push(report);
            return Ok(false);
        };
        let (number, refused) = (self.number, refused.filter(|_| !hows.iter().any(|how| matches!(how, How::Codes(_)))));
        self.number += 1;
        let how = match self.picks {
            Picks::First => first,
            Picks::Chosen(picks) => picks.get(number).copied().unwrap_or(first),
            Picks::Survey => {
                let source = Source::new(onnx::tensor_bytes(tensor, &info)?, element, info.shape.clone());
                let symmetric = self.recipe.symmetric;
                let scheme = |how: &How| match how {
                    How::Codes(way) => Some(way.scheme(symmetric, axes)),
                    _ => None,
                };
                let ways = hows.iter().map(|how| (*how, of.bytes(*how, symmetric), scheme(how))).collect();
                self.surveyed.push(Surveyed { name: info.name, source, axis: axes.input, ways });
                return Ok(false);
            }
        };
        let (outcome, target) = match how {
            How::Stay => {
                report.outcome = Err(refused.unwrap_or_else(|| BUDGET.into()));
                self.report.tensors.push(report);
                return Ok(false);
            }
            How::Codes(way) => {
                report.bits = Some(way.bits);
                self.opset = self.opset.max(way.opset());
                self.microsoft |= way.multiplied;
                let form = match way.multiplied {
                    true => self.matrix(name, &info.shape, way, axes, now)?,
                    false => self.dequantized(name, element, &info.shape, way, axes, now)?,
                };
                let scheme = way.scheme(self.recipe.symmetric, axes);
                (of.said(way, self.recipe), Target::Codes { scheme, form })
            }
            How::Dense => {
                let place = self.pending;
                now.tensors.push(onnx::pending(name, element, &info.shape, place)?);
                self.pending += 1;
                let reason = refused.map_or(String::new(), |reason| format!("; not quantized: {reason}"));
                (format!("pruned{reason}"), Target::Dense { place })
            }
            How::Sparse { count } => {
                let (values, indices) = (self.pending, self.pending + 1);
                let unnamed = TensorProto { name: None, ..onnx::pending("", ElementType::I64, &[count], indices)? };
                now.sparse.push(SparseTensorProto {
                    values: Some(onnx::pending(name, element, &[count], values)?),
                    indices: Some(unnamed),
                    dims: tensor.dims.clone(),
                });
                self.pending += 2;
                ("pruned, a sparse initializer".into(), Target::Sparse { values, indices })
            }
        };
        report.outcome = Ok(outcome);
        report.bytes_after = of.bytes(how, self.recipe.symmetric);
        // Sums of `MatMulNBits` go over rows.
        let multiplied = matches!(how, How::Codes(Way { multiplied: true, .. }));
        let transposed = multiplied && axes.input == 0;
        let bytes = onnx::tensor_bytes(tensor, &info)?;
        let source = Source { transposed, ..Source::new(bytes, element, info.shape.clone()) };
        let (axis, integer) = (axes.input, matches!(how, How::Codes(Way { integer: true, .. })));
        let report_index = self.report.tensors.len();
        self.items.push(Item { name: info.name, source, axis, target, report: report_index, number, integer });
        self.report.tensors.push(report);
        Ok(true)
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
        stored: ElementType,
        shape: &[usize],
        way: Way,
        axes: Axes,
        now: &mut Now<'_>,
    ) -> Result<Codes> {
        let symmetric = self.recipe.symmetric;
        let (axis, levels) = match way.group {
            None => (axes.output, vec![shape[axes.output]]),
            Some(size) => {
                let mut levels = shape.to_vec();
                levels[axes.input] = shape[axes.input].div_ceil(size);
                (axes.input, levels)
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
        let wide = stored == ElementType::F32;
        let output = if wide { name.to_string() } else { self.unique(name, "f32") };
        let node = self.unique(name, "dequantize");
        now.nodes.push(self::node(node, "DequantizeLinear", "", input, output.clone(), attributes));
        if !wide {
            let cast = self.unique(name, "cast");
            let to = onnx::data_type(stored).unwrap_or(1);
            now.nodes.push(self::node(cast, "Cast", "", vec![output], name.into(), vec![integer("to", to as usize)]));
        }
        Ok(Codes::Dequantize { dtype, codes, scales, zeros })
    }

    fn matrix(&mut self, name: &str, shape: &[usize], way: Way, axes: Axes, now: &mut Now<'_>) -> Result<Codes> {
        let (block, symmetric) = (way.group.unwrap_or(32), self.recipe.symmetric);
        let (k, n, bits) = (shape[axes.input], shape[axes.output], usize::from(way.bits));
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
        Ok(Codes::MatMulNBits { block, codes, scales, zeros })
    }
}

/// What a graph will be.
struct Now<'a> {
    nodes: &'a mut Vec<NodeProto>,
    tensors: &'a mut Vec<TensorProto>,
    sparse: &'a mut Vec<SparseTensorProto>,
    /// What multiplies in place of `MatMul`, by the matrix.
    multiplied: &'a mut BTreeMap<String, Multiplied>,
}

/// The matrix of a node `MatMulNBits`.
struct Multiplied {
    input: Vec<String>,
    attributes: Vec<AttributeProto>,
}

impl Multiplied {
    /// Makes it of a node `MatMul` or `Gemm`; what `Gemm` adds is added by a node after it. `unique` gives their product a name.
    fn replace(&self, node: &mut NodeProto, unique: impl FnOnce(&str) -> String) -> Option<NodeProto> {
        let summand = node.input.get(2).filter(|name| !name.is_empty()).cloned();
        node.input.truncate(1);
        node.input.extend(self.input.iter().cloned());
        node.attribute = self.attributes.clone();
        (node.op_type, node.domain) = (Some("MatMulNBits".into()), Some(MICROSOFT.into()));
        let (summand, sum) = (summand?, node.output.first_mut()?);
        let product = unique(sum);
        let sum = std::mem::replace(sum, product.clone());
        Some(self::node(format!("{product}_sum"), "Add", "", vec![product, summand], sum, Vec::new()))
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
