//! Activations whose levels stay: pairs of `QuantizeLinear` and `DequantizeLinear`, of which runtimes make integer operators.

use super::{
    fold,
    plan::{Plan, Weight},
    ranges::ranges,
};
use crate::{
    compress::{
        activations::RangeMethod,
        encode::{Scheme, encode},
        onnx::{
            floats,
            nodes::{is_onnx, names, unique},
            rewrite::{Item, Rewritten, Target, integer, node},
        },
        recipe::Recipe,
        report::{ActivationReport, Levels},
        runtime::Inputs,
        source::CHUNK,
    },
    error::{Error, Result},
    format::{
        file::ElementType,
        onnx::{self, proto::*},
    },
    quant::{Affine, Range},
    tensor::{Granularity, Grid},
};
use std::collections::{BTreeMap, BTreeSet};

/// Puts pairs around what multiplies by pending weights. `floats` is the model before.
pub(super) fn apply(
    rewritten: &mut Rewritten,
    recipe: &Recipe,
    floats: ModelProto,
    inputs: &Inputs,
    method: RangeMethod,
) -> Result<()> {
    let notes = &mut rewritten.report.notes;
    let Some(graph) = &mut rewritten.model.graph else { return Ok(()) };
    let items = weights(graph, &rewritten.items);
    let weight = |item: &Item| {
        let Target::Codes { scheme: Scheme { granularity: Granularity::Channel { axis }, .. }, .. } = item.target
        else {
            return None;
        };
        let (shape, count) = (&item.source.shape, item.source.shape.get(axis).copied()?.max(1));
        Some(Weight { rank: shape.len(), axis, length: shape.iter().product::<usize>() / count })
    };
    let planned = items.iter().filter_map(|(name, item)| Some((name.clone(), weight(item)?))).collect();
    let plan = Plan::new(graph, &planned);
    if plan.values.is_empty() {
        notes.push("No activation became codes: nothing multiplies by a quantized weight.".into());
        return Ok(());
    }
    let own: Vec<String> =
        plan.values.iter().filter(|value| value.shares.is_none()).map(|value| value.name.clone()).collect();
    let mut found = ranges(floats, &own, inputs, method)?.into_iter();
    let mut activations: Vec<Activation> = Vec::with_capacity(plan.values.len());
    let mut all = BTreeSet::new();
    names(graph, &mut all);
    for value in &plan.values {
        let shared = value.shares.and_then(|place| Some((activations.get(place)?.clone(), plan.values.get(place)?)));
        activations.push(match shared {
            Some((activation, root)) => {
                // The first of those that share them.
                let method = if root.shares.is_some() { activation.method } else { format!("as {}", root.name) };
                Activation { method, ..activation }
            }
            None => {
                let range = found.next().ok_or_else(|| Error::empty("list of ranges").in_tensor(&value.name))?;
                let levels = levels(range).map_err(|error| error.in_tensor(&value.name))?;
                let [scale, zero] = ["scale", "zero_point"].map(|ending| unique(&mut all, &value.name, ending));
                graph.initializer.push(onnx::tensor(
                    &scale,
                    ElementType::F32,
                    &[],
                    levels.scale.to_le_bytes().to_vec().into(),
                )?);
                graph.initializer.push(onnx::tensor(&zero, ElementType::U8, &[], vec![levels.zero_point].into())?);
                Activation { levels, scale, zero, method: method.to_string() }
            }
        });
    }
    for (value, activation) in plan.values.iter().zip(&activations) {
        rewritten.report.activations.push(ActivationReport {
            name: value.name.clone(),
            operators: value.operators.clone(),
            levels: Some(activation.levels),
            method: activation.method.clone(),
        });
    }
    let mut work = Work { graph, plan: &plan, activations: &activations, names: all };
    let Biases { nodes: biases, replaced, stay } = work.biases(&items, recipe)?;
    let zeros = work.zeros(&items)?;
    work.pairs(biases);
    for (report, bytes) in zeros {
        if let Some(tensor) = rewritten.report.tensors.get_mut(report) {
            tensor.bytes_after += bytes;
        }
    }
    fold::sweep(graph, &replaced);
    for name in stay {
        notes.push(format!(
            "Bias {name:?} stays: not of one number a channel, or too large for the scale it would have."
        ));
    }
    Ok(())
}

/// The quantized weights of the main graph, by the names of the numbers that their codes stand for. Of weights of 16 bits a `Cast` is read.
fn weights<'a>(graph: &GraphProto, items: &'a [Item]) -> BTreeMap<String, &'a Item> {
    let items: BTreeMap<usize, &Item> = items.iter().filter_map(|item| Some((item.target.codes()?, item))).collect();
    let number = |tensor: &TensorProto| Some((tensor.name.clone()?, onnx::pending_number(tensor)?));
    let pending: BTreeMap<String, usize> = graph.initializer.iter().filter_map(number).collect();
    let weight = |node: &NodeProto| {
        let item = *items.get(pending.get(node.input.first()?)?)?;
        Some((node.output.first()?.clone(), item)).filter(|_| item.source.element == ElementType::F32)
    };
    let dequantize = |node: &&NodeProto| node.op_type.as_deref() == Some("DequantizeLinear") && is_onnx(node);
    graph.node.iter().filter(dequantize).filter_map(weight).collect()
}

/// An activation's levels, and what holds them.
#[derive(Clone)]
struct Activation {
    levels: Levels,
    scale: String,
    zero: String,
    method: String,
}

fn levels(range: Range) -> Result<Levels> {
    let (min, max) = (range.min(), range.max());
    if min == 0.0 && max == 0.0 {
        // Of what was always 0 any scale is right; this one has room.
        return Ok(Levels { scale: 1.0, zero_point: 0, min, max });
    }
    match Affine::new(8)?.grid::<f32>(&[range])? {
        Grid::Affine { scale, zero_point: Some(zeros) } => {
            let (scale, zero) = (scale.get(0).unwrap_or(1.0) as f32, zeros.first().copied().unwrap_or(0));
            Ok(Levels { scale, zero_point: zero.min(255) as u8, min, max })
        }
        other => Err(Error::argument("levels", other.form(), "scales and zero points")),
    }
}

/// What became of biases.
struct Biases {
    /// What makes numbers of the codes.
    nodes: Vec<NodeProto>,
    /// Those that are codes, by their names.
    replaced: BTreeSet<String>,
    stay: BTreeSet<String>,
}

struct Work<'a> {
    graph: &'a mut GraphProto,
    plan: &'a Plan,
    activations: &'a [Activation],
    names: BTreeSet<String>,
}

impl Work<'_> {
    fn pair(&mut self, from: &str, to: String, activation: &Activation) -> [NodeProto; 2] {
        let Activation { scale, zero, .. } = activation;
        let levels = || [scale.clone(), zero.clone()];
        let codes = unique(&mut self.names, &to, "codes");
        let input = [&[from.to_string()][..], &levels()].concat();
        let back = [&[codes.clone()][..], &levels()].concat();
        // Without names of their own: those of the values are long enough.
        let unnamed = |operator, input, output| NodeProto {
            name: None,
            ..node(String::new(), operator, "", input, output, Vec::new())
        };
        [unnamed("QuantizeLinear", input, codes), unnamed("DequantizeLinear", back, to)]
    }

    /// Gives weights their zero points, which are 0: ONNX Runtime makes no integer operator of a `Gemm` whose weight has none. Returns
    /// their lengths by the places of the weights in the report.
    fn zeros(&mut self, items: &BTreeMap<String, &Item>) -> Result<Vec<(usize, u64)>> {
        let weights: BTreeSet<&String> = self.plan.weighted.values().collect();
        let mut lengths = Vec::new();
        for node in &mut self.graph.node {
            let Some((weight, item)) = node.output.first().and_then(|name| items.get_key_value(name)) else { continue };
            let Target::Codes { scheme, .. } = item.target else { continue };
            let ([_, _], Granularity::Channel { axis }) = (&node.input[..], scheme.granularity) else { continue };
            if let Some(&count) = item.source.shape.get(axis).filter(|_| weights.contains(weight)) {
                let name = unique(&mut self.names, weight, "zero_point");
                self.graph.initializer.push(onnx::tensor(&name, ElementType::I8, &[count], vec![0; count].into())?);
                node.input.push(name);
                lengths.push((item.report, count as u64));
            }
        }
        Ok(lengths)
    }

    /// Puts a pair after each value of the plan, all after the nodes of the biases.
    fn pairs(&mut self, biases: Vec<NodeProto>) {
        let mut after: BTreeMap<String, Vec<NodeProto>> = BTreeMap::new();
        let (mut renamed, mut read): (BTreeMap<String, String>, BTreeMap<String, String>) = Default::default();
        for (value, activation) in self.plan.values.iter().zip(self.activations) {
            let name = &value.name;
            let pair = if value.everywhere {
                let float = unique(&mut self.names, name, "float");
                renamed.insert(name.clone(), float.clone());
                self.pair(&float, name.clone(), activation)
            } else {
                let now = unique(&mut self.names, name, "dequantized");
                read.insert(name.clone(), now.clone());
                self.pair(name, now, activation)
            };
            after.insert(name.clone(), pair.into());
        }
        let mut nodes = biases;
        // Those of the graph's inputs, which no node makes, come first.
        let made: BTreeSet<&String> = self.graph.node.iter().flat_map(|node| &node.output).collect();
        for value in self.plan.values.iter().filter(|value| !made.contains(&value.name)) {
            nodes.extend(after.remove(&value.name).unwrap_or_default());
        }
        for (i, mut node) in std::mem::take(&mut self.graph.node).into_iter().enumerate() {
            let count = match () {
                () if self.plan.weighted.contains_key(&i) => 1,
                () if self.plan.joined.contains(&i) => node.input.len(),
                () => 0,
            };
            for input in node.input.iter_mut().take(count) {
                if let Some(now) = read.get(input) {
                    input.clone_from(now);
                }
            }
            let mut pairs = Vec::new();
            for output in &mut node.output {
                pairs.extend(after.remove(output).unwrap_or_default());
                if let Some(float) = renamed.get(output) {
                    output.clone_from(float);
                }
            }
            nodes.push(node);
            nodes.extend(pairs);
        }
        self.graph.node = nodes;
    }

    /// Makes integers of the biases: `round(bias / (scale of the input * scale of the channel's weights))`.
    fn biases(&mut self, items: &BTreeMap<String, &Item>, recipe: &Recipe) -> Result<Biases> {
        let places: BTreeMap<&str, usize> =
            self.plan.values.iter().enumerate().map(|(i, value)| (value.name.as_str(), i)).collect();
        let mut scales: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
        let (mut nodes, mut replaced, mut stay) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (&i, weight) in &self.plan.weighted {
            let Some([input, _, bias]) = self.graph.node.get(i).map(|node| &node.input[..]) else { continue };
            let activation = places.get(input.as_str()).and_then(|&place| self.activations.get(place));
            let (Some(activation), Some(&item), false) =
                (activation, items.get(weight), bias.is_empty() || recipe.keeps(bias))
            else {
                continue;
            };
            let own = match scales.get(weight.as_str()) {
                Some(own) => own,
                None => scales.entry(weight).or_insert(item_scales(item).map_err(|error| error.in_tensor(weight))?),
            };
            let values = self.channels(bias, own.len())?;
            let codes = values.as_ref().and_then(|values| quantized(values, activation.levels.scale, own));
            let Some((scale, codes)) = codes else {
                stay.insert(bias.clone());
                continue;
            };
            let bias = bias.clone();
            let [codes_name, scale_name, called, now] =
                ["codes", "scale", "dequantize", "dequantized"].map(|ending| unique(&mut self.names, &bias, ending));
            self.graph.initializer.push(onnx::tensor(&codes_name, ElementType::I32, &[own.len()], codes.into())?);
            self.graph.initializer.push(onnx::tensor(&scale_name, ElementType::F32, &[own.len()], scale.into())?);
            let input = vec![codes_name, scale_name];
            nodes.push(node(called, "DequantizeLinear", "", input, now.clone(), vec![integer("axis", 0)]));
            if let Some(place) = self.graph.node.get_mut(i).and_then(|node| node.input.get_mut(2)) {
                replaced.insert(std::mem::replace(place, now));
            }
        }
        Ok(Biases { nodes, replaced, stay })
    }

    /// An initializer of one number for each channel.
    fn channels(&self, name: &str, count: usize) -> Result<Option<Vec<f32>>> {
        let inputs = self.graph.input.iter().any(|input| input.name.as_deref() == Some(name));
        let mut tensors =
            self.graph.initializer.iter().filter(|tensor| tensor.name.as_deref() == Some(name) && !inputs);
        let Some(tensor) = tensors.next() else { return Ok(None) };
        let numbers = floats::numbers(name, tensor)?.filter(|(shape, _)| *shape == [count]);
        let Some((_, values)) = numbers else { return Ok(None) };
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(Error::non_finite("bias", index, values[index].into()).in_tensor(name)),
            None => Ok(Some(values)),
        }
    }
}

/// Scales and codes of a bias as bytes; `None` where a scale is subnormal or a code has more than 32 bits.
fn quantized(bias: &[f32], input: f32, weights: &[f32]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut scales, mut codes) = (Vec::with_capacity(4 * bias.len()), Vec::with_capacity(4 * bias.len()));
    for (&bias, &weight) in bias.iter().zip(weights) {
        let scale = input * weight;
        let code = (f64::from(bias) / f64::from(scale)).round_ties_even();
        if !scale.is_normal() || code.abs() > f64::from(i32::MAX) {
            return None;
        }
        scales.extend(scale.to_le_bytes());
        codes.extend((code as i32).to_le_bytes());
    }
    Some((scales, codes))
}

/// The scales that a weight will have, one for each channel.
fn item_scales(item: &Item) -> Result<Vec<f32>> {
    let mut scales = Vec::new();
    let Target::Codes { scheme, .. } = item.target else { return Ok(scales) };
    encode(&item.source, scheme, CHUNK, &mut |_, q| {
        if let Grid::Affine { scale, .. } = q.grid()
            && (scales.is_empty() || !scheme.shares_levels())
        {
            scales.extend((0..scale.len()).filter_map(|i| scale.get(i)).map(|scale| scale as f32));
        }
        Ok(())
    })?;
    Ok(scales)
}
