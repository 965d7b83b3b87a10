//! The four stages. Every choice in them is made on the validation rows.

use crate::{
    data::{Data, Split},
    net::{Layer, Net},
    recipe::{Recipe, Width},
    train::{Codec, Lesson, Phase, SAMPLE, Shadow, column_statistics, train_dense, train_pruning, train_quantized},
};
use indicatif::ProgressBar;
use lapidary::{
    Error, Mask, Pruner, QuantizerExt, Result, TensorRef,
    format::packed::{Packed, Stored},
    prune::Magnitude,
    quant::MinMax,
    slim::{Activation, Dense, Importance, Input, Keep, Plan, Topology},
};
use ndarray::{Array1, Array2, ArrayView2, s};
use rand::{SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;

/// What every stage works with.
pub(crate) struct Workshop<'a> {
    pub(crate) data: &'a Data,
    pub(crate) recipe: &'a Recipe,
    pub(crate) seed: u64,
    /// Logits of the baseline for the training rows, once there is one.
    pub(crate) teacher: Option<Array2<f32>>,
}

/// A pruned network and its validation error.
pub(crate) struct Pruned {
    net: Net,
    masks: Vec<Mask>,
    error: f64,
}

impl Pruned {
    /// Weights that the masks keep, and all biases.
    fn params(&self) -> usize {
        let biases = self.net.layers.iter().map(|layer| layer.bias.len());
        self.masks.iter().map(Mask::kept).chain(biases).sum()
    }
}

/// A network that came out of a stage, as it is stored.
pub(crate) struct Outcome {
    pub(crate) tensors: Vec<Packed>,
    pub(crate) params: usize,
    pub(crate) note: String,
}

impl Workshop<'_> {
    fn lesson(&self) -> Lesson<'_> {
        Lesson { x: self.data.train.x.view(), y: &self.data.train.y, teacher: self.teacher.as_ref() }
    }

    /// Random numbers of their own for each part of the work.
    fn rng(&self, part: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed << 8 | part)
    }

    /// Wrong validation answers, in percent.
    pub(crate) fn validation_error(&self, net: &Net) -> f64 {
        percent(net.errors(self.data.valid.x.view(), &self.data.valid.y), self.data.valid.y.len())
    }

    /// The network every branch starts from.
    pub(crate) fn pretrain(&self, bar: &ProgressBar) -> Result<Net> {
        let Recipe { batch, pretrain: epochs, weight_decay, .. } = *self.recipe;
        let mut rng = self.rng(0);
        let mut net = Net::new(&[self.data.train.x.ncols(), 300, 100, 10], &mut rng);
        let phase = Phase { epochs, batch, rate: 1e-3, constant: epochs, weight_decay, l1: 0.0 };
        train_dense(&mut net, self.lesson(), phase, &mut rng, bar)?;
        Ok(net)
    }

    /// The dense network, trained on for as many epochs as the compressed ones. It is their teacher.
    pub(crate) fn baseline(&mut self, start: &Net, bar: &ProgressBar) -> Result<(f64, Outcome)> {
        let Recipe { batch, weight_decay, .. } = *self.recipe;
        let mut net = start.clone();
        let epochs = self.recipe.branch_epochs();
        let phase = Phase { epochs, batch, rate: 1e-3, constant: 0, weight_decay, l1: 0.0 };
        train_dense(&mut net, self.lesson(), phase, &mut self.rng(1), bar)?;
        self.teacher = Some(net.logits(self.data.train.x.view()));
        let error = self.validation_error(&net);
        let note = format!("validation error {error:.2} %");
        Ok((error, Outcome { tensors: dense_tensors(&net)?, params: net.params(), note }))
    }

    /// Iterative magnitude pruning with retraining, rung by rung: the network of each.
    pub(crate) fn prune(&self, start: &Net, bar: &ProgressBar) -> Result<Vec<Pruned>> {
        let mut net = start.clone();
        let mut masks =
            net.layers.iter().map(|layer| Mask::keep_all(layer.weight.shape())).collect::<Result<Vec<_>>>()?;
        // A weight matters by its size times the spread of what it multiplies: pixels differ widely.
        let spread = column_statistics(self.data.train.x.view()).0.mapv(|s| s as f32);
        let mut rng = self.rng(2);
        let mut rungs = Vec::new();
        for rung in self.recipe.rungs {
            let from: Vec<usize> = masks.iter().map(Mask::kept).collect();
            let to = masks.iter().zip(rung.density).map(|(mask, density)| (density * mask.len() as f64) as usize);
            let to: Vec<usize> = to.collect();
            let phase = Phase {
                epochs: rung.tighten + rung.settle,
                batch: self.recipe.batch,
                rate: 2e-3,
                constant: rung.tighten,
                weight_decay: 0.0,
                l1: self.recipe.l1,
            };
            let tighten = |epoch: usize, net: &Net, masks: &mut Vec<Mask>| {
                if epoch >= rung.tighten {
                    return Ok(());
                }
                // The cubic schedule of Zhu & Gupta 2017 (arXiv:1710.01878).
                let left = (1.0 - (epoch + 1) as f64 / rung.tighten as f64).powi(3);
                for (i, (layer, mask)) in net.layers.iter().zip(masks).enumerate() {
                    let scores = if i == 0 { &layer.weight * &spread } else { layer.weight.clone() };
                    let keep = to[i] + ((from[i] - to[i]) as f64 * left) as usize;
                    Magnitude::count(mask.kept().saturating_sub(keep)).refine((&scores).into(), mask)?;
                }
                Ok(())
            };
            train_pruning(&mut net, &mut masks, self.lesson(), phase, &mut rng, bar, tighten)?;
            let error = self.validation_error(&net);
            rungs.push(Pruned { net: net.clone(), masks: masks.clone(), error });
        }
        Ok(rungs)
    }

    /// Of the rungs, the sparsest that bears it.
    pub(crate) fn pruned(&self, rungs: &[Pruned], limit: f64) -> Result<Outcome> {
        let candidates = rungs.iter().rev().map(|rung| Ok((rung, rung.params(), rung.error)));
        let (chosen, note) = smallest_within(limit, candidates)?;
        let mut tensors = Vec::new();
        for (i, (layer, mask)) in chosen.net.layers.iter().zip(&chosen.masks).enumerate() {
            let kept = Stored::F32(mask.gather(&layer.weight)?);
            tensors.push(Packed::sparse(format!("fc{}.weight", i + 1), mask.clone(), kept)?);
            tensors.push(bias_tensor(i, layer, Stored::F32(layer.bias.to_vec()))?);
        }
        Ok(Outcome { tensors, params: chosen.params(), note })
    }

    /// Few-bit codes for the survivors, fine-tuned through the quantization: of the sparsest rung that bears it.
    pub(crate) fn quantize(&self, rungs: &[Pruned], limit: f64, bar: &ProgressBar) -> Result<Outcome> {
        let Recipe { batch, bits, group, quantize_epochs: epochs, .. } = *self.recipe;
        let codec = Codec::new(bits, group)?;
        let phase = Phase { epochs, batch, rate: 5e-4, constant: 0, weight_decay: 0.0, l1: 0.0 };
        let quantize = |index: usize| {
            let Pruned { net, masks, .. } = &rungs[index];
            let (mut net, mut shadow) = (net.clone(), Shadow::new(codec, net, masks)?);
            train_quantized(&mut net, masks, &mut shadow, self.lesson(), phase, &mut self.rng(3), bar)?;
            Ok(((net, index), rungs[index].params(), self.validation_error(&shadow.net)))
        };
        let ((net, index), note) = smallest_within(limit, (0..rungs.len()).rev().map(quantize))?;
        let rung = &rungs[index];
        let mut tensors = Vec::new();
        let mut sqnr = Vec::new();
        for (i, (layer, mask)) in net.layers.iter().zip(&rung.masks).enumerate() {
            let (weights, biases) = codec.encode(layer, mask)?;
            sqnr.push(format!("{:.1}", weights.error(&mask.gather(&layer.weight)?)?.sqnr_db));
            tensors.push(Packed::sparse(format!("fc{}.weight", i + 1), mask.clone(), Stored::Quantized(weights))?);
            tensors.push(bias_tensor(i, layer, Stored::Quantized(biases))?);
        }
        let note = format!("{note}; {bits} bits, groups of {group}, SQNR {} dB", sqnr.join(", "));
        Ok(Outcome { tensors, params: rung.params(), note })
    }

    /// A smaller dense network: the smallest that bears it.
    pub(crate) fn slim(&self, start: &Net, limit: f64, bar: &ProgressBar) -> Result<Outcome> {
        let all = self.data.train.x.ncols();
        let slim = |width| {
            let (net, pixels) = self.slim_to(start, width, bar)?;
            let valid = Split::pixels(self.data.valid.x.view(), &pixels);
            let error = percent(net.errors(valid.view(), &self.data.valid.y), self.data.valid.y.len());
            let params = net.params();
            Ok(((net, pixels), params, error))
        };
        let ((net, pixels), note) = smallest_within(limit, self.recipe.widths.iter().rev().map(slim))?;
        let mut tensors = dense_tensors(&net)?;
        if pixels.len() < all {
            // Which pixels the network reads is a part of it.
            let mask = Mask::from_fn(&[all], |i| pixels.binary_search(&i).is_ok())?;
            let ones = MinMax::new(1)?.quantize(&vec![1f32; pixels.len()])?;
            tensors.push(Packed::sparse("pixels", mask, Stored::Quantized(ones))?);
        }
        let widths: Vec<_> = net.widths().iter().map(usize::to_string).collect();
        let note = format!("{note}; {}", widths.join("-"));
        Ok(Outcome { tensors, params: net.params(), note })
    }

    /// Cuts in rounds, an epoch of training between them, then trains what is left.
    fn slim_to(&self, start: &Net, width: &Width, bar: &ProgressBar) -> Result<(Net, Vec<usize>)> {
        let Recipe { batch, slim_rounds: rounds, .. } = *self.recipe;
        let mut net = start.clone();
        let mut x = self.data.train.x.clone();
        let mut pixels: Vec<usize> = (0..x.ncols()).collect();
        let mut rng = self.rng(4);
        for round in 1..=rounds {
            // Hidden layers shrink by equal ratios; pixels go at once.
            let part = round as f64 / rounds as f64;
            let hidden = |from: f64, to: usize| (from * (to as f64 / from).powf(part)).round() as usize;
            let inputs = width.inputs.map_or(pixels.len(), |inputs| inputs.min(pixels.len()));
            let widths = [inputs, hidden(300.0, width.hidden[0]), hidden(100.0, width.hidden[1])];
            let (slim, kept) = cut(&net, x.view(), widths)?;
            net = slim;
            x = Split::pixels(x.view(), &kept);
            pixels = kept.iter().map(|&i| pixels[i]).collect();
            let (epochs, constant) =
                if round < rounds { (1, 1) } else { (self.recipe.branch_epochs() + 1 - rounds, 0) };
            let phase = Phase { epochs, batch, rate: 2e-3, constant, weight_decay: 0.1, l1: 0.0 };
            train_dense(&mut net, Lesson { x: x.view(), ..self.lesson() }, phase, &mut rng, bar)?;
        }
        Ok((net, pixels))
    }
}

/// The network with so many inputs and hidden units, and the inputs kept: units go by the spread of their activation
/// times the norm of their outgoing weights, and leave their mean in the next bias.
fn cut(net: &Net, x: ArrayView2<'_, f32>, widths: [usize; 3]) -> Result<(Net, Vec<usize>)> {
    let mut weights = BTreeMap::new();
    for (i, layer) in net.layers.iter().enumerate() {
        weights.insert(format!("fc{}.weight", i + 1), TensorRef::from(&layer.weight));
        weights.insert(format!("fc{}.bias", i + 1), TensorRef::from(&layer.bias));
    }
    let mut model = Topology::builder(weights.iter().map(|(name, tensor)| (name, tensor.shape())))?;
    // The slim network is fed just the pixels that it reads.
    let mut value = model.add("pixels", Input::new(&[x.ncols()], 0).freed(), [])?;
    for i in 1..=net.layers.len() {
        let dense = Dense::new(format!("fc{i}.weight")).with_bias(format!("fc{i}.bias"));
        value = model.add(format!("fc{i}"), dense, [value])?;
        if i < net.layers.len() {
            value = model.add(format!("relu{i}"), Activation::Relu, [value])?;
        }
    }
    model.output(value)?;
    let topology = model.build()?;

    let sample = x.slice(s![..x.nrows().min(SAMPLE), ..]);
    let activations = net.activations(sample);
    let groups = std::iter::once(sample).chain(activations.iter().map(|outputs| outputs.view()));
    let statistics: Vec<_> = groups.map(column_statistics).collect();
    let scores = statistics.iter().enumerate().map(|(i, (spread, _))| match net.layers.get(i) {
        Some(next) => {
            let outgoing = |column: ndarray::ArrayView1<'_, f32>| f64::from(column.dot(&column)).sqrt();
            next.weight.columns().into_iter().zip(spread).map(|(column, spread)| spread * outgoing(column)).collect()
        }
        None => spread.to_vec(),
    });
    let importance = Importance::new(&topology, scores.collect())?;
    let mut keep = Keep::widths(["pixels", "fc1", "fc2"].into_iter().zip(widths));
    for (node, (_, mean)) in ["pixels", "relu1", "relu2"].into_iter().zip(statistics) {
        keep = keep.with_replacement(node, mean.to_vec());
    }
    let plan = Plan::new(&topology, &weights, &importance, &keep)?;
    let slim = plan.apply(&weights)?;
    let tensor = |name: String| slim.tensors.get(&name).ok_or_else(|| Error::empty("layer of the slim network"));
    let layer = |i: usize| {
        let weight = tensor(format!("fc{i}.weight"))?;
        let (shape, values) = (weight.shape(), weight.values().to_vec());
        Ok(Layer {
            weight: Array2::from_shape_vec((shape[0], shape[1]), values).unwrap_or_default(),
            bias: Array1::from(tensor(format!("fc{i}.bias"))?.values().to_vec()),
        })
    };
    let layers = (1..=net.layers.len()).map(layer).collect::<Result<_>>()?;
    Ok((Net { layers }, plan.kept("pixels").unwrap_or_default().to_vec()))
}

/// Of candidates with their parameters and validation errors, the smallest first: the first within the limit, or where
/// none is the one of least error. Candidates after the chosen one are not made. Says what was tried.
fn smallest_within<C>(limit: f64, candidates: impl Iterator<Item = Result<(C, usize, f64)>>) -> Result<(C, String)> {
    let mut best: Option<(C, f64)> = None;
    let mut tried = Vec::new();
    let mut within = false;
    for candidate in candidates {
        let (candidate, params, error) = candidate?;
        tried.push(format!("{params}: {error:.2}"));
        if best.as_ref().is_none_or(|(_, least)| error < *least) {
            best = Some((candidate, error));
        }
        within = error <= limit;
        if within {
            break;
        }
    }
    let (chosen, _) = best.ok_or_else(|| Error::empty("list of candidates"))?;
    let outcome = if within { "limit" } else { "none within the limit of" };
    Ok((chosen, format!("parameters: validation error {} ({outcome} {limit:.2})", tried.join(", "))))
}

fn bias_tensor(i: usize, layer: &Layer, stored: Stored) -> Result<Packed> {
    Packed::dense(format!("fc{}.bias", i + 1), &[layer.bias.len()], stored)
}

fn dense_tensors(net: &Net) -> Result<Vec<Packed>> {
    let mut tensors = Vec::new();
    for (i, layer) in net.layers.iter().enumerate() {
        let weight = Stored::F32(layer.weight.iter().copied().collect());
        tensors.push(Packed::dense(format!("fc{}.weight", i + 1), layer.weight.shape(), weight)?);
        tensors.push(bias_tensor(i, layer, Stored::F32(layer.bias.to_vec()))?);
    }
    Ok(tensors)
}

/// The network of a packed file, and the input pixels it reads, where not all.
pub(crate) fn restore(tensors: &[Packed]) -> Result<(Net, Option<Vec<usize>>)> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut pixels = None;
    for tensor in tensors {
        let values = tensor.to_dense::<f32>()?;
        match (tensor.shape(), layers.last_mut()) {
            (&[outputs, inputs], _) => {
                let weight = Array2::from_shape_vec((outputs, inputs), values).unwrap_or_default();
                layers.push(Layer { weight, bias: Array1::zeros(outputs) });
            }
            (_, Some(layer)) if tensor.name().ends_with(".bias") => layer.bias = Array1::from(values),
            _ => pixels = tensor.mask().map(|mask| mask.indices().collect()),
        }
    }
    Ok((Net { layers }, pixels))
}

pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}
