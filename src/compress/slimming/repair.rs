//! Layers of the slim model fitted to what they gave in the original: one least-squares problem each.

use super::{
    activations::rows,
    lower::{Site, Window},
    report::RepairedLayer,
};
use crate::{
    compress::runtime::Output,
    error::{Error, Result},
    linalg::{Calibration, inverse_factor},
    tensor::{TensorRef, view::filled},
};

/// Samples of a layer, and products of pairs of its inputs, at most.
const ROWS: usize = 1 << 17;
const PRODUCTS: usize = 1 << 35;

/// What a fit has seen: `H = Σ x xᵀ`, `Σ x rᵀ` for the residuals `r` of its outputs.
pub(super) struct Fit {
    inputs: usize,
    outputs: usize,
    /// Whether a 1 is the last input.
    biased: bool,
    moments: Calibration,
    cross: Vec<f64>,
    residual: f64,
    total: f64,
}

/// A change of weights `[inputs, outputs]`, the bias last.
pub(super) struct Change {
    pub(super) weights: Vec<f64>,
    pub(super) bias: Option<Vec<f64>>,
    pub(super) before: f64,
    pub(super) after: f64,
}

impl Change {
    pub(super) fn report(&self, output: &str) -> RepairedLayer {
        RepairedLayer { output: output.into(), before: self.before, after: self.after }
    }
}

impl Fit {
    pub(super) fn new(inputs: usize, outputs: usize, biased: bool) -> Result<Self> {
        let width = inputs + usize::from(biased);
        let cross = filled(width.saturating_mul(outputs), 0.0)?;
        Ok(Self { inputs, outputs, biased, moments: Calibration::new(width)?, cross, residual: 0.0, total: 0.0 })
    }

    /// How many positions are skipped where there are so many.
    pub(super) fn step(&self, positions: usize) -> usize {
        let most = ROWS.min((PRODUCTS / (self.inputs * self.inputs).max(1)).max(2 * self.inputs)).max(1);
        positions.div_ceil(most).max(1)
    }

    /// Adds every `step`-th position of a sample: what the layer reads now, what it gives now, and what of the original's outputs is left.
    pub(super) fn add(
        &mut self,
        site: &Site,
        x: &Output,
        now: &Output,
        was: &Output,
        kept: &[usize],
        step: usize,
    ) -> Result<()> {
        let axis = if site.window.is_some() { 1 } else { now.shape.len().saturating_sub(1) };
        let (width, now) = rows(now, axis);
        let (all, was) = rows(was, axis);
        let fits = width == self.outputs
            && kept.len() == width
            && kept.iter().all(|&at| at < all)
            && now.len() / width.max(1) == was.len() / all.max(1);
        if !fits {
            return Err(Error::shape("outputs of the slim model", &[kept.len()], &[width]));
        }
        let patches = Patches::new(site, x)?;
        if patches.inputs != self.inputs || patches.count != now.len() / width.max(1) {
            return Err(Error::shape("inputs of the slim model", &[self.inputs], &[patches.inputs]));
        }
        let (mut batch, mut residual) = (Vec::new(), vec![0.0; width]);
        for position in (0..patches.count).step_by(step) {
            let start = batch.len();
            patches.read(position, &mut batch);
            if self.biased {
                batch.push(1.0);
            }
            let (now, was) = (&now[position * width..], &was[position * all..]);
            for ((residual, now), &kept) in residual.iter_mut().zip(now).zip(kept) {
                *residual = was[kept] - now;
                self.residual += *residual * *residual;
                self.total += was[kept] * was[kept];
            }
            for (line, &x) in self.cross.chunks_exact_mut(width).zip(&batch[start..]) {
                if x != 0.0 {
                    line.iter_mut().zip(&residual).for_each(|(sum, r)| *sum += x * r);
                }
            }
        }
        let inputs = self.inputs + usize::from(self.biased);
        self.moments.add(TensorRef::new(&batch, &[batch.len() / inputs, inputs])?)
    }

    /// `Δ = (H + λ mean(diag H) I)⁻¹ Σ x rᵀ`.
    pub(super) fn solve(&self, damping: f64) -> Result<Change> {
        let (n, m) = (self.inputs + usize::from(self.biased), self.outputs);
        let moment = self.moments.moment()?;
        let order: Vec<usize> = (0..n).collect();
        let factor = inverse_factor(moment, &order, damping)?;
        let live = moment.diagonal().filter(|&h| h > 0.0);
        let (sum, count) = live.fold((0.0, 0usize), |(sum, count), h| (sum + h, count + 1));
        let mean = if count > 0 { sum / count as f64 } else { 1.0 };
        // U[i][j] is at j * n + i: first U, then its transpose.
        let u = |i: usize, j: usize| factor.values[j * n + i];
        let mut half = filled(n * m, 0.0)?;
        for (i, line) in half.chunks_exact_mut(m).enumerate() {
            for (j, cross) in self.cross.chunks_exact(m).enumerate().skip(i) {
                let u = u(i, j);
                line.iter_mut().zip(cross).for_each(|(sum, x)| *sum += u * x);
            }
        }
        let mut change = filled(n * m, 0.0)?;
        for (i, line) in change.chunks_exact_mut(m).enumerate() {
            for (j, half) in half.chunks_exact(m).enumerate().take(i + 1) {
                let u = u(j, i) / mean;
                line.iter_mut().zip(half).for_each(|(sum, x)| *sum += u * x);
            }
        }
        let gain: f64 = change.iter().zip(&self.cross).map(|(d, x)| d * x).sum();
        let size: f64 = change.iter().map(|d| d * d).sum();
        let after = (self.residual - gain - factor.damping * mean * size).max(0.0);
        let relative = |square: f64| if square == 0.0 { 0.0 } else { (square / self.total).sqrt() };
        let bias = self.biased.then(|| change.split_off(self.inputs * m));
        Ok(Change { weights: change, bias, before: relative(self.residual), after: relative(after) })
    }
}

/// What a layer sums over, at each of its positions.
struct Patches<'a> {
    x: &'a Output,
    window: Option<&'a Window>,
    kernel: Vec<usize>,
    /// Of the output, after batch and channels.
    spatial: Vec<usize>,
    inputs: usize,
    count: usize,
}

impl<'a> Patches<'a> {
    fn new(site: &'a Site, x: &'a Output) -> Result<Self> {
        let Some(window) = &site.window else {
            let inputs = x.shape.last().copied().unwrap_or(1).max(1);
            let count = x.values.len() / inputs;
            return Ok(Self { x, window: None, kernel: Vec::new(), spatial: Vec::new(), inputs, count });
        };
        let rank = window.strides.len();
        if x.shape.len() != rank + 2 {
            return Err(Error::shape("input of a convolution", &[rank + 2], &[x.shape.len()]));
        }
        let kernel = window.kernel.clone();
        let length = |i: usize| {
            let reach = kernel[i].checked_sub(1)?.checked_mul(window.dilations[i])?.checked_add(1)?;
            let all = x.shape[i + 2].checked_add(window.begins[i])?.checked_add(window.ends[i])?;
            Some(all.checked_sub(reach)?.checked_div(window.strides[i])? + 1)
        };
        let spatial: Option<Vec<usize>> = (0..rank).map(length).collect();
        let spatial = spatial.ok_or_else(|| Error::argument("window", format!("{window:?}"), "one that fits"))?;
        let inputs = x.shape[1] * kernel.iter().product::<usize>();
        let count = x.shape[0] * spatial.iter().product::<usize>();
        Ok(Self { x, window: Some(window), kernel, spatial, inputs, count })
    }

    /// Appends the inputs at a position, channel after channel, each with its taps in order.
    fn read(&self, position: usize, row: &mut Vec<f64>) {
        let Some(window) = self.window else {
            row.extend_from_slice(&self.x.values[position * self.inputs..(position + 1) * self.inputs]);
            return;
        };
        let rank = self.kernel.len();
        let mut rest = position;
        let mut place = vec![0; rank];
        for i in (0..rank).rev() {
            (place[i], rest) = (rest % self.spatial[i], rest / self.spatial[i]);
        }
        let lengths = &self.x.shape[2..];
        let size: usize = lengths.iter().product();
        let taps: usize = self.kernel.iter().product();
        for channel in 0..self.x.shape[1] {
            let base = (rest * self.x.shape[1] + channel) * size;
            for tap in 0..taps {
                let (mut tap, mut flat, mut stride, mut inside) = (tap, 0, 1, true);
                for i in (0..rank).rev() {
                    let at = place[i] * window.strides[i] + tap % self.kernel[i] * window.dilations[i];
                    tap /= self.kernel[i];
                    match at.checked_sub(window.begins[i]).filter(|&at| at < lengths[i]) {
                        Some(at) => flat += at * stride,
                        None => inside = false,
                    }
                    stride *= lengths[i];
                }
                row.push(if inside { self.x.values[base + flat] } else { 0.0 });
            }
        }
    }
}

/// Adds a change to weights as they lie in the file.
pub(super) fn changed(site: &Site, shape: &[usize], values: &[f32], change: &[f64]) -> Vec<f32> {
    let outputs = if site.inputs_first { shape[1] } else { shape[0] };
    let inner: usize = shape[1..].iter().product();
    let at = |i: usize| if site.inputs_first { i } else { i % inner * outputs + i / inner };
    values.iter().enumerate().map(|(i, &w)| (f64::from(w) + change[at(i)]) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(window: Option<Window>, inputs_first: bool) -> Site {
        let name = String::new;
        Site { from: name(), input: name(), output: name(), weight: name(), bias: None, window, inputs_first }
    }

    #[test]
    fn patches_are_what_a_convolution_reads() {
        let window = Window {
            strides: vec![2, 1],
            begins: vec![1, 0],
            ends: vec![0, 1],
            dilations: vec![1, 2],
            groups: 1,
            kernel: vec![2, 2],
        };
        let site = site(Some(window), false);
        let x = Output { shape: vec![1, 1, 3, 3], values: (1..10).map(f64::from).collect() };
        let patches = Patches::new(&site, &x).unwrap();
        assert_eq!((patches.count, patches.inputs, patches.spatial.clone()), (4, 4, vec![2, 2]));
        let read = |position| {
            let mut row = Vec::new();
            patches.read(position, &mut row);
            row
        };
        assert_eq!(read(0), [0.0, 0.0, 1.0, 3.0]);
        assert_eq!(read(3), [5.0, 0.0, 8.0, 0.0]);
    }

    #[test]
    fn a_fit_finds_the_layer_that_there_was() {
        let site = site(None, true);
        let x: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 11) - 5.0).collect();
        let y: Vec<f64> = x.chunks(2).flat_map(|x| [2.0 * x[0] - x[1] + 3.0, x[1] + 1.0]).collect();
        let output = |shape: &[usize], values: &[f64]| Output { shape: shape.into(), values: values.into() };
        let mut fit = Fit::new(2, 1, true).unwrap();
        let now = output(&[20, 1], &[0.0; 20]);
        fit.add(&site, &output(&[20, 2], &x), &now, &output(&[20, 2], &y), &[0], 1).unwrap();
        let change = fit.solve(1e-12).unwrap();
        let bias = change.bias.unwrap();
        assert!((change.weights[0] - 2.0).abs() < 1e-6 && (change.weights[1] + 1.0).abs() < 1e-6);
        assert!((bias[0] - 3.0).abs() < 1e-6 && change.after < 1e-4 && (change.before - 1.0).abs() < 1e-12);
        assert_eq!(changed(&site, &[2, 1], &[1.0, 1.0], &[0.5, -1.0]), [1.5, 0.0]);
        // An output that is not what was said is refused.
        assert!(fit.add(&site, &output(&[20, 2], &x), &now, &output(&[20, 2], &y), &[0, 1], 1).is_err());
    }
}
