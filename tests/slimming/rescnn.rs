//! A residual network of convolutions on handwritten digits: forward and backward, in plain loops.

use lapidary::{
    Optimizer, OptimizerExt, State, Step, TensorMut, TensorRef,
    optim::AdamW,
    slim::{Activation, BatchNorm, Binary, Conv, Dense, Input, Pool, Reshape, Tensor, Topology},
};
use std::collections::BTreeMap;

pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A convolution of 3×3, padded by 1, and its batch normalization.
const UNITS: [(&str, &str, usize); 6] = [
    ("conv0", "bn0", 1),
    ("b1.conv1", "b1.bn1", 1),
    ("b1.conv2", "b1.bn2", 1),
    ("down", "bnd", 2),
    ("b2.conv1", "b2.bn1", 1),
    ("b2.conv2", "b2.bn2", 1),
];

const EPS: f32 = 1e-5;

/// The numbers that training changes: batch normalization is an affine map by its statistics.
pub(crate) fn is_trained(name: &str) -> bool {
    !name.contains("running")
}

pub(crate) fn trained_params(tensors: &Tensors) -> usize {
    tensors.iter().filter(|(name, _)| is_trained(name)).map(|(_, (_, values))| values.len()).sum()
}

/// The tensors of a safetensors file of `f32`.
pub(crate) fn read(bytes: &[u8]) -> Tensors {
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let entry = |(name, entry): (String, serde_json::Value)| {
        let numbers = |key: &str| -> Vec<usize> {
            entry[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let range = numbers("data_offsets");
        let floats = data[range[0]..range[1]].as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
        (name.clone(), (numbers("shape"), floats.collect()))
    };
    header.into_iter().filter(|(name, _)| name != "__metadata__").map(entry).collect()
}

pub(crate) fn views(tensors: &Tensors) -> BTreeMap<&str, TensorRef<'_, f32>> {
    tensors.iter().map(|(name, (shape, values))| (name.as_str(), TensorRef::new(values, shape).unwrap())).collect()
}

pub(crate) fn owned(tensors: &BTreeMap<String, Tensor<f32>>) -> Tensors {
    tensors.iter().map(|(name, t)| (name.clone(), (t.shape().to_vec(), t.values().to_vec()))).collect()
}

pub(crate) fn topology(tensors: &Tensors) -> Topology {
    let mut m = Topology::builder(tensors.iter().map(|(name, (shape, _))| (name, shape))).unwrap();
    let unit = |m: &mut lapidary::slim::Builder, i: usize, x| {
        let (conv, bn, stride) = UNITS[i];
        let node = Conv::new(format!("{conv}.weight")).with_padding(&[1]).with_stride(&[stride]);
        let y = m.add(conv, node, [x]).unwrap();
        let [w, b, mean, var] =
            ["weight", "bias", "running_mean", "running_var"].map(|tensor| format!("{bn}.{tensor}"));
        m.add(bn, BatchNorm::new(mean, var, f64::from(EPS)).with_affine(w, b), [y]).unwrap()
    };
    let mut relus = 0;
    let mut relu = |m: &mut lapidary::slim::Builder, x| {
        relus += 1;
        m.add(format!("relu{relus}"), Activation::Relu, [x]).unwrap()
    };
    let mut x = m.add("x", Input::new(&[1, 8, 8], 0), []).unwrap();
    for first in [0, 3] {
        x = unit(&mut m, first, x);
        x = relu(&mut m, x);
        let y = unit(&mut m, first + 1, x);
        let y = relu(&mut m, y);
        let y = unit(&mut m, first + 2, y);
        let sum = m.add(format!("sum{first}"), Binary::Add, [x, y]).unwrap();
        x = relu(&mut m, sum);
    }
    x = m.add("mean", Pool::global(), [x]).unwrap();
    x = m.add("flat", Reshape::flat(), [x]).unwrap();
    x = m.add("fc", Dense::new("fc.weight").with_bias("fc.bias"), [x]).unwrap();
    m.output(x).unwrap();
    m.build().unwrap()
}

/// What a unit remembers for the way back.
#[derive(Default, Clone)]
struct Tape {
    /// The input with zeros around, of this many channels and this length.
    padded: Vec<f32>,
    inputs: usize,
    length: usize,
    /// Before batch normalization.
    sums: Vec<f32>,
}

pub(crate) struct Net<'a>(pub(crate) &'a BTreeMap<&'a str, TensorRef<'a, f32>>);

impl Net<'_> {
    fn values(&self, node: &str, tensor: &str) -> &[f32] {
        self.0[&*format!("{node}.{tensor}")].as_slice()
    }

    fn unit(&self, i: usize, x: &[f32], tape: &mut Tape) -> Vec<f32> {
        let (conv, bn, stride) = UNITS[i];
        let w = &self.0[&*format!("{conv}.weight")];
        let (outputs, inputs) = (w.shape()[0], w.shape()[1]);
        let n = (x.len() / inputs).isqrt();
        let (wide, m) = (n + 2, n / stride);
        tape.padded.clear();
        tape.padded.resize(inputs * wide * wide, 0.0);
        for (row, x) in x.chunks(n).enumerate() {
            let start = row / n * wide * wide + (row % n + 1) * wide + 1;
            tape.padded[start..start + n].copy_from_slice(x);
        }
        (tape.inputs, tape.length) = (inputs, n);
        tape.sums.clear();
        tape.sums.resize(outputs * m * m, 0.0);
        for (k, &w) in w.as_slice().iter().enumerate() {
            let (o, i, tap) = (k / 9 / inputs, k / 9 % inputs, k % 9);
            for y in 0..m {
                let from = i * wide * wide + (y * stride + tap / 3) * wide + tap % 3;
                let to = &mut tape.sums[(o * m + y) * m..][..m];
                if stride == 1 {
                    to.iter_mut().zip(&tape.padded[from..]).for_each(|(y, x)| *y += w * x);
                } else {
                    to.iter_mut().zip(tape.padded[from..].iter().step_by(stride)).for_each(|(y, x)| *y += w * x);
                }
            }
        }
        let [weight, bias, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(|t| self.values(bn, t));
        let affine = |(k, x): (usize, &f32)| {
            let c = k / (m * m);
            (x - mean[c]) / (var[c] + EPS).sqrt() * weight[c] + bias[c]
        };
        tape.sums.iter().enumerate().map(affine).collect()
    }

    /// Adds gradients of a unit; gives that of its input.
    fn unit_back(&self, i: usize, tape: &Tape, dy: &[f32], grads: &mut Tensors) -> Vec<f32> {
        let (conv, bn, stride) = UNITS[i];
        let w = &self.0[&*format!("{conv}.weight")];
        let (inputs, n) = (tape.inputs, tape.length);
        let (wide, m) = (n + 2, n / stride);
        let [weight, mean, var] = ["weight", "running_mean", "running_var"].map(|t| self.values(bn, t));
        let mut ds = vec![0.0; dy.len()];
        for (c, (dy, sums)) in dy.chunks(m * m).zip(tape.sums.chunks(m * m)).enumerate() {
            let spread = (var[c] + EPS).sqrt();
            grads.get_mut(&format!("{bn}.bias")).unwrap().1[c] += dy.iter().sum::<f32>();
            let scaled = dy.iter().zip(sums).map(|(d, x)| d * (x - mean[c]) / spread);
            grads.get_mut(&format!("{bn}.weight")).unwrap().1[c] += scaled.sum::<f32>();
            ds[c * m * m..].iter_mut().zip(dy).for_each(|(s, d)| *s = d * weight[c] / spread);
        }
        let mut dx = vec![0.0; tape.padded.len()];
        let dw = &mut grads.get_mut(&format!("{conv}.weight")).unwrap().1;
        for (k, (&w, dw)) in w.as_slice().iter().zip(dw).enumerate() {
            let (o, i, tap) = (k / 9 / inputs, k / 9 % inputs, k % 9);
            for y in 0..m {
                let from = i * wide * wide + (y * stride + tap / 3) * wide + tap % 3;
                let d = &ds[(o * m + y) * m..][..m];
                if stride == 1 {
                    *dw += d.iter().zip(&tape.padded[from..]).map(|(d, x)| d * x).sum::<f32>();
                    dx[from..].iter_mut().zip(d).for_each(|(x, d)| *x += w * d);
                    continue;
                }
                *dw += d.iter().zip(tape.padded[from..].iter().step_by(stride)).map(|(d, x)| d * x).sum::<f32>();
                dx[from..].iter_mut().step_by(stride).zip(d).for_each(|(x, d)| *x += w * d);
            }
        }
        let rows = (0..inputs * n).flat_map(|row| {
            let start = row / n * wide * wide + (row % n + 1) * wide + 1;
            dx[start..start + n].to_vec()
        });
        rows.collect()
    }

    /// Logits of an image; with a label and gradients, adds those of `scale` times the loss too.
    pub(crate) fn run(&self, x: &[f32], goal: Option<(usize, f32, &mut Tensors)>) -> Vec<f32> {
        let mut tapes = vec![Tape::default(); 6];
        let relu = |x: Vec<f32>| x.into_iter().map(|x| x.max(0.0)).collect::<Vec<f32>>();
        let (mut value, mut kept) = (x.to_vec(), Vec::new());
        for first in [0, 3] {
            let start = relu(self.unit(first, &value, &mut tapes[first]));
            let middle = relu(self.unit(first + 1, &start, &mut tapes[first + 1]));
            let branch = self.unit(first + 2, &middle, &mut tapes[first + 2]);
            value = relu(start.iter().zip(&branch).map(|(a, b)| a + b).collect());
            kept.push((start, middle, value.clone()));
        }
        let means: Vec<f32> = value.chunks(16).map(|c| c.iter().sum::<f32>() / 16.0).collect();
        let (w, bias) = (self.values("fc", "weight"), self.values("fc", "bias"));
        let rows = w.chunks(means.len()).zip(bias);
        let logits: Vec<f32> =
            rows.map(|(row, b)| row.iter().zip(&means).map(|(w, x)| w * x).sum::<f32>() + b).collect();
        let Some((label, scale, grads)) = goal else { return logits };
        let largest = logits.iter().fold(f32::MIN, |a, &b| a.max(b));
        let all: f32 = logits.iter().map(|z| (z - largest).exp()).sum();
        let mut dmeans = vec![0.0; means.len()];
        for (o, z) in logits.iter().enumerate() {
            let d = scale * ((z - largest).exp() / all - f32::from(u8::from(o == label)));
            grads.get_mut("fc.bias").unwrap().1[o] += d;
            let row = o * means.len()..(o + 1) * means.len();
            let dw = &mut grads.get_mut("fc.weight").unwrap().1[row.clone()];
            dw.iter_mut().zip(&means).for_each(|(g, x)| *g += d * x);
            dmeans.iter_mut().zip(&w[row]).for_each(|(g, w)| *g += d * w);
        }
        let mut d: Vec<f32> = dmeans.iter().flat_map(|d| [d / 16.0; 16]).collect();
        let pass = |d: Vec<f32>, y: &[f32]| -> Vec<f32> {
            d.into_iter().zip(y).map(|(d, &y)| if y > 0.0 { d } else { 0.0 }).collect()
        };
        for first in [3, 0] {
            let (start, middle, end) = &kept[first / 3];
            let sum = pass(d, end);
            let branch = pass(self.unit_back(first + 2, &tapes[first + 2], &sum, grads), middle);
            let branch = self.unit_back(first + 1, &tapes[first + 1], &branch, grads);
            let both = sum.iter().zip(&branch).map(|(a, b)| a + b).collect();
            d = self.unit_back(first, &tapes[first], &pass(both, start), grads);
        }
        logits
    }

    /// Right answers.
    pub(crate) fn right(&self, rows: &[(Vec<f32>, usize)]) -> usize {
        let best = |z: &[f32]| (0..z.len()).rev().max_by(|&i, &j| z[i].total_cmp(&z[j]));
        rows.iter().filter(|(x, label)| best(&self.run(x, None)) == Some(*label)).count()
    }
}

/// An epoch of training: AdamW over batches of 32, with the state of each tensor.
pub(crate) fn epoch(
    tensors: &mut Tensors,
    states: &mut BTreeMap<String, State>,
    rows: &[(Vec<f32>, usize)],
    order: &[usize],
    rate: f64,
) {
    let adam = AdamW::new(rate).unwrap().with_weight_decay(1e-3).unwrap();
    for batch in order.chunks(32) {
        let zeros = |(shape, values): &(Vec<usize>, Vec<f32>)| (shape.clone(), vec![0.0; values.len()]);
        let mut grads: Tensors = tensors.iter().map(|(name, tensor)| (name.clone(), zeros(tensor))).collect();
        for &row in batch {
            let (x, label) = &rows[row];
            Net(&views(tensors)).run(x, Some((*label, 1.0 / batch.len() as f32, &mut grads)));
        }
        for (name, (shape, values)) in tensors.iter_mut().filter(|(name, _)| is_trained(name)) {
            let param = TensorMut::new(values, shape).unwrap();
            let grad = TensorRef::new(&grads[name].1, shape).unwrap();
            let state = states.entry(name.clone()).or_insert_with(|| adam.init(&param).unwrap());
            adam.step(Step::new(param, grad, state)).unwrap();
        }
    }
}
