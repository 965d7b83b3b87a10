//! A dense network with ReLU, softmax and cross-entropy: forward and backward.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip, linalg::general_mat_mul, s};
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};
use std::f32::consts::SQRT_2;

#[derive(Clone)]
pub(crate) struct Layer {
    /// (outputs, inputs)
    pub(crate) weight: Array2<f32>,
    pub(crate) bias: Array1<f32>,
}

#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) layers: Vec<Layer>,
}

/// What the outputs are to become: the labels, and a teacher's softened probabilities where there is one.
pub(crate) struct Goal<'a> {
    pub(crate) labels: &'a [u8],
    pub(crate) teacher: Option<(ArrayView2<'a, f32>, Distill)>,
}

/// Knowledge distillation (Hinton, Vinyals & Dean 2015): a share of the loss is the teacher's, at a temperature.
#[derive(Clone, Copy)]
pub(crate) struct Distill {
    pub(crate) temperature: f32,
    pub(crate) share: f32,
}

impl Net {
    /// He's normal initialisation.
    pub(crate) fn new(widths: &[usize], rng: &mut StdRng) -> Self {
        let layer = |pair: &[usize]| {
            let spread = SQRT_2 / (pair[0] as f32).sqrt();
            let normal = Normal::new(0.0, spread).unwrap_or_else(|_| unreachable!("a finite spread"));
            Layer {
                weight: Array2::from_shape_simple_fn((pair[1], pair[0]), || normal.sample(rng)),
                bias: Array1::zeros(pair[1]),
            }
        };
        Self { layers: widths.windows(2).map(layer).collect() }
    }

    pub(crate) fn widths(&self) -> Vec<usize> {
        let outputs = self.layers.iter().map(|layer| layer.bias.len());
        std::iter::once(self.layers[0].weight.ncols()).chain(outputs).collect()
    }

    pub(crate) fn params(&self) -> usize {
        self.layers.iter().map(|layer| layer.weight.len() + layer.bias.len()).sum()
    }

    /// The outputs of every layer, after its activation; the last has none.
    pub(crate) fn activations(&self, x: ArrayView2<'_, f32>) -> Vec<Array2<f32>> {
        let mut all: Vec<Array2<f32>> = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let input = all.last().map_or(x, |input| input.view());
            let mut output = input.dot(&layer.weight.t()) + &layer.bias;
            if i + 1 < self.layers.len() {
                output.mapv_inplace(|z| z.max(0.0));
            }
            all.push(output);
        }
        all
    }

    pub(crate) fn logits(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        self.activations(x).pop().unwrap_or_default()
    }

    /// Wrong answers.
    pub(crate) fn errors(&self, x: ArrayView2<'_, f32>, labels: &[u8]) -> usize {
        let best = |row: ArrayView1<'_, f32>| (0..row.len()).rev().max_by(|&i, &j| row[i].total_cmp(&row[j]));
        let logits = self.logits(x);
        logits.rows().into_iter().zip(labels).filter(|(row, label)| best(*row) != Some(usize::from(**label))).count()
    }
}

/// Probabilities of logits at a temperature, a row each.
pub(crate) fn softmax(mut logits: Array2<f32>, temperature: f32) -> Array2<f32> {
    for mut row in logits.rows_mut() {
        let largest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|z| ((z - largest) / temperature).exp());
        let sum = row.sum();
        row.mapv_inplace(|p| p / sum);
    }
    logits
}

/// Buffers for the gradients of a batch's rows.
pub(crate) struct Backward {
    /// Outputs of each layer, then the loss's gradient by them.
    outputs: Vec<Array2<f32>>,
    deltas: Vec<Array2<f32>>,
    pub(crate) grads: Vec<Layer>,
}

impl Backward {
    pub(crate) fn new(net: &Net, rows: usize) -> Self {
        let buffers = || net.layers.iter().map(|layer| Array2::zeros((rows, layer.bias.len()))).collect();
        let zeros = |layer: &Layer| Layer {
            weight: Array2::zeros(layer.weight.raw_dim()),
            bias: Array1::zeros(layer.bias.len()),
        };
        Self { outputs: buffers(), deltas: buffers(), grads: net.layers.iter().map(zeros).collect() }
    }

    /// Gradients of `scale` times the loss summed over the rows of `x`, in `grads`.
    pub(crate) fn run(&mut self, net: &Net, x: ArrayView2<'_, f32>, goal: &Goal<'_>, scale: f32) {
        let last = net.layers.len() - 1;
        for (i, layer) in net.layers.iter().enumerate() {
            let (before, after) = self.outputs.split_at_mut(i);
            let input = before.last().map_or(x, |input| input.view());
            let output = &mut after[0];
            output.rows_mut().into_iter().for_each(|mut row| row.assign(&layer.bias));
            general_mat_mul(1.0, &input, &layer.weight.t(), 1.0, output);
            if i < last {
                output.mapv_inplace(|z| z.max(0.0));
            }
        }
        loss_gradient(&self.outputs[last], goal, scale, &mut self.deltas[last]);
        for i in (0..=last).rev() {
            let input = if i == 0 { x } else { self.outputs[i - 1].view() };
            let (below, delta) = self.deltas.split_at_mut(i);
            let delta = &delta[0];
            general_mat_mul(1.0, &delta.t(), &input, 0.0, &mut self.grads[i].weight);
            self.grads[i].bias.assign(&delta.sum_axis(Axis(0)));
            if let Some(below) = below.last_mut() {
                general_mat_mul(1.0, delta, &net.layers[i].weight, 0.0, below);
                Zip::from(below).and(&self.outputs[i - 1]).for_each(|d, &y| *d = if y > 0.0 { *d } else { 0.0 });
            }
        }
    }
}

/// `share * T * (softmax(z / T) - teacher) + (1 - share) * (softmax(z) - label)`, times `scale`.
fn loss_gradient(logits: &Array2<f32>, goal: &Goal<'_>, scale: f32, delta: &mut Array2<f32>) {
    let mut hard = softmax(logits.clone(), 1.0);
    for (mut row, &label) in hard.rows_mut().into_iter().zip(goal.labels) {
        row[usize::from(label)] -= 1.0;
    }
    match goal.teacher {
        None => delta.assign(&(hard * scale)),
        Some((teacher, Distill { temperature, share })) => {
            let soft = softmax(logits.clone(), temperature) - teacher;
            delta.assign(&(hard * ((1.0 - share) * scale) + soft * (share * temperature * scale)));
        }
    }
}

/// The rows of `from` at `rows`, in `to`.
pub(crate) fn gather(from: ArrayView2<'_, f32>, rows: &[usize], to: &mut Array2<f32>) {
    for (mut to, &row) in to.rows_mut().into_iter().zip(rows) {
        to.assign(&from.slice(s![row, ..]));
    }
}
