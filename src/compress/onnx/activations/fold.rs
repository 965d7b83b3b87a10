//! Batch normalizations made part of the convolutions before them.
//!
//! ```text
//! f = scale / sqrt(variance + epsilon)                   for each channel, in f64
//! w = w * f                                              narrowed once
//! b = (b - mean) * f + bias
//! ```
//!
//! A normalization after a convolution of integers would keep it from being one.

use crate::{
    compress::{
        onnx::{
            floats,
            nodes::{attribute, inner, is_onnx, names, unique},
        },
        recipe::Recipe,
    },
    error::Result,
    format::onnx::proto::*,
};
use std::collections::{BTreeMap, BTreeSet};

/// The tensors of a graph that stay as they are, by their names.
struct Constants<'a> {
    tensors: BTreeMap<&'a str, &'a TensorProto>,
    /// How often a value is read, outputs and graphs within included.
    reads: BTreeMap<&'a str, usize>,
}

impl<'a> Constants<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let inputs: BTreeSet<_> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
        let named = graph.initializer.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, tensor)));
        let tensors = named.filter(|(name, _)| !inputs.contains(name)).collect();
        let mut reads = BTreeMap::new();
        count(graph, &mut reads);
        Self { tensors, reads }
    }

    fn floats(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        floats::numbers(name, tensor)
    }

    /// One number for each channel.
    fn channels(&self, name: &str, count: usize) -> Result<Option<Vec<f32>>> {
        Ok(self.floats(name)?.filter(|(shape, _)| *shape == [count]).map(|(_, values)| values))
    }

    fn once(&self, name: &str) -> bool {
        self.reads.get(name) == Some(&1)
    }
}

fn count<'a>(graph: &'a GraphProto, reads: &mut BTreeMap<&'a str, usize>) {
    let outputs = graph.output.iter().filter_map(|value| value.name.as_deref());
    let inputs = graph.node.iter().flat_map(|node| &node.input).map(String::as_str);
    outputs.chain(inputs).for_each(|name| *reads.entry(name).or_default() += 1);
    graph.node.iter().flat_map(inner).for_each(|graph| count(graph, reads));
}

/// A convolution with what is after it.
struct Folded {
    convolution: usize,
    normalization: usize,
    weight: TensorProto,
    bias: TensorProto,
}

/// Folds all normalizations of the main graph that directly follow a convolution and nothing else reads from it, unless the recipe keeps
/// one of their tensors. Returns how many.
pub(super) fn normalizations(model: &mut ModelProto, recipe: &Recipe) -> Result<usize> {
    // What training sets has to stay what it is.
    if !model.training_info.is_empty() {
        return Ok(0);
    }
    let Some(graph) = &mut model.graph else { return Ok(0) };
    let mut all = BTreeSet::new();
    names(graph, &mut all);
    let constants = Constants::new(graph);
    let makers: BTreeMap<_, _> =
        graph.node.iter().enumerate().filter_map(|(i, node)| Some((node.output.first()?, i))).collect();
    let mut folded = Vec::new();
    for (i, node) in graph.node.iter().enumerate() {
        if let Some(input) = node.input.first()
            && let Some(&convolution) = makers.get(input)
            && constants.once(input)
            && !stays(&graph.node[convolution], node, &constants, recipe)
            && let Some((weight, bias)) = fold(&graph.node[convolution], node, &constants, &mut all)?
        {
            folded.push(Folded { convolution, normalization: i, weight, bias });
        }
    }
    let (mut gone, mut idle) = (BTreeSet::new(), BTreeSet::new());
    for Folded { convolution, normalization, weight, bias } in &folded {
        let output = graph.node[*normalization].output.clone();
        idle.extend(graph.node[*normalization].input.iter().skip(1).cloned());
        let node = &mut graph.node[*convolution];
        node.output = output;
        idle.extend(node.input.get(2).cloned());
        node.input.truncate(2);
        node.input.extend(bias.name.clone());
        graph.initializer.retain(|tensor| tensor.name != weight.name);
        gone.insert(*normalization);
    }
    let mut at = 0..;
    graph.node.retain(|_| at.next().is_none_or(|i: usize| !gone.contains(&i)));
    graph.initializer.extend(folded.iter().flat_map(|folded| [folded.weight.clone(), folded.bias.clone()]));
    sweep(graph, &idle);
    if !folded.is_empty() {
        model.ir_version = Some(model.ir_version.unwrap_or(0).max(4));
    }
    Ok(folded.len())
}

/// Whether the recipe leaves the weight as it is, or keeps another tensor of the two nodes.
fn stays(convolution: &NodeProto, normalization: &NodeProto, constants: &Constants<'_>, recipe: &Recipe) -> bool {
    let all = convolution.input.iter().chain(&normalization.input);
    let weight = convolution.input.get(1).and_then(|name| Some((name, constants.tensors.get(name.as_str())?)));
    let count = |tensor: &TensorProto| tensor.dims.iter().map(|&size| size.max(0) as usize).product();
    all.into_iter().any(|name| recipe.keeps(name))
        || weight.is_some_and(|(name, tensor)| recipe.kept(name, &["Conv"], count(tensor)).is_some())
}

/// Drops those of these initializers that nothing reads any more and that are no inputs.
pub(super) fn sweep(graph: &mut GraphProto, names: &BTreeSet<String>) {
    let mut reads = BTreeMap::new();
    count(graph, &mut reads);
    let inputs = graph.input.iter().filter_map(|input| input.name.as_deref());
    let read: BTreeSet<&str> = reads.into_keys().chain(inputs).collect();
    let idle: BTreeSet<String> = names.iter().filter(|name| !read.contains(name.as_str())).cloned().collect();
    graph.initializer.retain(|tensor| !tensor.name.as_ref().is_some_and(|name| idle.contains(name)));
}

/// The weight and the bias of both nodes as one; `None` where they cannot be one.
fn fold(
    convolution: &NodeProto,
    normalization: &NodeProto,
    constants: &Constants<'_>,
    names: &mut BTreeSet<String>,
) -> Result<Option<(TensorProto, TensorProto)>> {
    let is = |node: &NodeProto, operator| is_onnx(node) && node.op_type.as_deref() == Some(operator);
    let training = |name| attribute(normalization, name).and_then(|attribute| attribute.i).unwrap_or(0) != 0;
    // `spatial` was 1, the only way there is now.
    let plain = attribute(normalization, "spatial").and_then(|attribute| attribute.i).unwrap_or(1) == 1;
    let ([_, weight, ..], [_, parameters @ ..]) = (&convolution.input[..], &normalization.input[..]) else {
        return Ok(None);
    };
    let [scale, shift, mean, variance] = parameters else { return Ok(None) };
    if !is(convolution, "Conv")
        || !is(normalization, "BatchNormalization")
        || training("training_mode")
        || !plain
        || normalization.output.iter().filter(|name| !name.is_empty()).count() != 1
        || !constants.once(weight)
    {
        return Ok(None);
    }
    let Some((shape, mut weights)) = constants.floats(weight)? else { return Ok(None) };
    let Some(&count) = shape.first().filter(|&&count| count > 0) else { return Ok(None) };
    let all = [scale, shift, mean, variance].map(|name| constants.channels(name, count));
    let [Some(scale), Some(shift), Some(mean), Some(variance)] = all.map(Result::ok).map(Option::flatten) else {
        return Ok(None);
    };
    let old = convolution.input.get(2).filter(|name| !name.is_empty());
    let bias = match old {
        None => vec![0.0; count],
        Some(name) => match constants.channels(name, count)? {
            Some(bias) => bias,
            None => return Ok(None),
        },
    };
    let epsilon = f64::from(attribute(normalization, "epsilon").and_then(|attribute| attribute.f).unwrap_or(1e-5));
    let factors: Vec<f64> = scale
        .iter()
        .zip(&variance)
        .map(|(&scale, &variance)| f64::from(scale) / (f64::from(variance) + epsilon).sqrt())
        .collect();
    let width = weights.len() / count;
    for (row, factor) in weights.chunks_mut(width.max(1)).zip(&factors) {
        row.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
    }
    let sum = |(((&bias, &mean), &shift), factor): (((&f32, &f32), &f32), &f64)| {
        ((f64::from(bias) - f64::from(mean)) * factor + f64::from(shift)) as f32
    };
    let biases: Vec<f32> = bias.iter().zip(&mean).zip(&shift).zip(&factors).map(sum).collect();
    if !weights.iter().chain(&biases).all(|x| x.is_finite()) {
        return Ok(None);
    }
    let name = unique(names, old.unwrap_or(weight), if old.is_some() { "folded" } else { "bias" });
    let weight = floats::tensor(weight, &shape, &weights)?;
    Ok(Some((weight, floats::tensor(&name, &[count], &biases)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{file::ElementType, onnx};

    fn node(operator: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: Some(operator.into()),
            input: input.iter().map(|name| (*name).into()).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    fn model(bias: bool, after: Vec<NodeProto>) -> ModelProto {
        let floats = |name: &str, shape: &[usize], values: &[f32]| {
            let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
            onnx::tensor(name, ElementType::F32, shape, raw.into()).unwrap()
        };
        let epsilon = AttributeProto { name: Some("epsilon".into()), f: Some(1.0), ..Default::default() };
        let normalize = node("BatchNormalization", &["c", "scale", "shift", "mean", "variance"], "y");
        let mut nodes = vec![node("Conv", if bias { &["x", "w", "b"] } else { &["x", "w"] }, "c")];
        nodes.push(NodeProto { attribute: vec![epsilon], ..normalize });
        nodes.extend(after);
        let mut tensors = vec![
            floats("w", &[2, 1, 1, 2], &[1.0, -0.5, 3.0, 0.25]),
            floats("scale", &[2], &[6.0, -1.0]),
            floats("shift", &[2], &[5.0, 0.5]),
            floats("mean", &[2], &[2.0, 3.0]),
            floats("variance", &[2], &[8.0, 3.0]),
        ];
        tensors.extend(bias.then(|| floats("b", &[2], &[4.0, 1.0])));
        let graph = GraphProto { node: nodes, initializer: tensors, ..Default::default() };
        ModelProto { graph: Some(graph), ..Default::default() }
    }

    /// The weight and the bias after it, if it was folded.
    fn folded(mut model: ModelProto) -> Option<(Vec<f32>, Vec<f32>)> {
        let before = model.clone();
        let count = normalizations(&mut model, &Recipe::new().with_bits(8).unwrap().with_min_elements(0)).unwrap();
        if count == 0 {
            assert_eq!(model, before);
            return None;
        }
        let graph = model.graph.unwrap();
        assert_eq!(graph.node[0].output, ["y"]);
        assert_eq!(graph.initializer.len(), 2);
        let constants = Constants::new(&graph);
        let [_, weight, bias] = &graph.node[0].input[..] else { panic!() };
        Some((constants.floats(weight).unwrap()?.1, constants.channels(bias, 2).unwrap()?))
    }

    #[test]
    fn a_normalization_is_by_its_definition() {
        // Factors 6 / sqrt(9) and -1 / sqrt(4).
        let weight = vec![2.0, -1.0, -1.5, -0.125];
        assert_eq!(folded(model(true, Vec::new())), Some((weight.clone(), vec![9.0, 1.5])));
        assert_eq!(folded(model(false, Vec::new())), Some((weight, vec![1.0, 2.0])));
    }

    #[test]
    fn what_is_read_elsewhere_stays() {
        assert_eq!(folded(model(true, vec![node("Relu", &["c"], "r")])), None);
        assert_eq!(folded(model(true, vec![node("Relu", &["w"], "r")])), None);
        let mut changed = model(true, Vec::new());
        changed.graph.as_mut().unwrap().output = vec![ValueInfoProto { name: Some("c".into()), ..Default::default() }];
        assert_eq!(folded(changed), None);
        let mut changed = model(true, Vec::new());
        let training = AttributeProto { name: Some("training_mode".into()), i: Some(1), ..Default::default() };
        changed.graph.as_mut().unwrap().node[1].attribute.push(training);
        assert_eq!(folded(changed), None);
        // A variance that has no root.
        let mut changed = model(true, Vec::new());
        let negative = [-2f32, 3.0].map(f32::to_le_bytes).concat();
        changed.graph.as_mut().unwrap().initializer[4].raw_data = Some(negative.into());
        assert_eq!(folded(changed), None);
    }
}
