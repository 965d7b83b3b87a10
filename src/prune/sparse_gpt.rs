//! SparseGPT: pruning that makes up for its own errors.

use super::select::{Scores, Select};
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    kernel::sweep::{Factor, Kept, ToLevels, limited},
    linalg::{BLOCK, Calibration, Outputs, Turn, Turns, inverse_factor, nearest, sweep},
    tensor::{Grid, Mask, QTensor, TensorMut, TensorRef, view::filled},
    traits::{Quantizer, QuantizerExt},
};
use std::slice;

/// SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774): weights of a dense layer are pruned some inputs at a time,
/// and what that does to the outputs is made up for by the weights of the inputs that follow.
///
/// With `H` of a [`Calibration`], for weights `W` of shape `[outputs, inputs]`:
///
/// ```text
/// H[j][j] = 1                                             for an input that was always 0
/// H = H + damping * mean(diag H) * I                      the mean over the others
/// H⁻¹ = Uᵀ U                                              Cholesky, U upper triangular
/// for each block of inputs in order:                      128 for a share, m for n of m
///     what survives of W[:, block]: by |W[i][j]| / U[j][j], 0 for an input that was always 0
///     for each input j of it:
///         Q[i][j] = 0, or where it is kept W[i][j], or the nearest level of a quantizer
///         e = (W[:, j] - Q[:, j]) / U[j][j]
///         W[:, k] = W[:, k] - e * U[j][k]                 for all k after j
/// ```
///
/// A share is one of each block, over all outputs together unless [rows are on their own](Select::per_row); rounding
/// its count in each, the whole can be off by half an element a block. An output (a row of `W`) whose error, measured
/// over the samples, is then larger than that of the same mask alone keeps its weights: no output is worse for being
/// corrected.
///
/// All but the factor is in `f64`, and the same on any instruction set; the factor rests on a matrix library: the same
/// bits on any number of threads, not on any instruction set. Time is that of `inputs³ / 2 + outputs * inputs² / 2`
/// multiplications.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `select` | – | [`Select::sparsity`] or [`Select::n_of_m`] | what survives of a block |
/// | `damping` | 0.01 | `>= 0` | added to the diagonal; ten times more, and again, where there is no factor |
///
/// Needs the feature `linalg`.
///
/// ```
/// use lapidary::{Calibration, Mask, TensorRef, prune::{Select, SparseGpt}};
/// let inputs: Vec<f32> = (0..64 * 8).map(|i| (i as f32 * 0.7).sin() + (i / 8) as f32 * 0.02).collect();
/// let mut calibration = Calibration::new(8)?;
/// calibration.add(TensorRef::new(&inputs, &[64, 8])?)?;
/// let weights: Vec<f32> = (0..32).map(|i| (i as f32 * 1.3).cos()).collect();
/// let weights = TensorRef::new(&weights, &[4, 8])?;
/// let mut mask = Mask::keep_all(&[4, 8])?;
/// let pruned = SparseGpt::new(Select::n_of_m(2, 4)?)?.refine(&weights, &mut mask, &calibration)?;
/// assert_eq!(mask.kept(), 16);
/// assert!(pruned.error < pruned.masked);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseGpt {
    select: Select,
    damping: f64,
}

config! {
    SparseGpt(select: Select) => Self::new(select),
    damping: f64 => Self::with_damping,
}

/// Weights that [`SparseGpt`] pruned and corrected, and what it cost.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Corrected<T> {
    /// The weights, 0 where they are pruned; as they are stored, where a quantizer was given.
    pub values: Vec<T>,
    /// The codes, where a quantizer was given; those of pruned weights say nothing.
    pub tensor: Option<QTensor>,
    /// `‖(W - W') X‖² / ‖W X‖²` over the samples of the calibration, measured; `W` as the mask had left it before.
    pub error: f64,
    /// The same where the mask alone is applied, and rounded to nearest where a quantizer was given.
    pub masked: f64,
    /// The damping that it took.
    pub damping: f64,
}

impl SparseGpt {
    /// Selects in each block of inputs.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless it is a share, or `n` of `m`, of elements without a floor:
    /// nothing else is known of a block alone.
    pub fn new(select: Select) -> Result<Self> {
        match select.columns(BLOCK) {
            Some(_) => Ok(Self { select, damping: 0.01 }),
            None => Err(Error::argument("selection", format!("{select:?}"), "a share, or n of m, of single elements")),
        }
    }

    /// What is added to the diagonal of `H`, relative to its mean.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is negative or not finite.
    pub fn with_damping(self, damping: f64) -> Result<Self> {
        match damping >= 0.0 && damping.is_finite() {
            true => Ok(Self { damping, ..self }),
            false => Err(Error::argument("damping", damping, "at least 0")),
        }
    }

    /// Prunes the weights, of shape `[outputs, inputs]`, of a layer whose inputs the calibration has seen: of those
    /// that `mask` keeps, drops from it what does not survive. Gives the weights corrected.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the weights have two axes, when the calibration has no `H`, and
    /// when `H` has no factor with up to 10⁵ times the damping (at least 1e-6 from the second try on);
    /// [`Shape`](crate::ErrorKind::Shape) when mask or calibration are of another shape;
    /// [`Empty`](crate::ErrorKind::Empty) when the calibration has no sample;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity that is kept. The mask is then as it was.
    pub fn refine<'a, T: Element>(
        &self,
        weight: impl Into<TensorRef<'a, T>>,
        mask: &mut Mask,
        calibration: &Calibration,
    ) -> Result<Corrected<T>> {
        self.run(weight.into(), mask, calibration, None)
    }

    /// The same, with the kept weights rounded to the levels of a quantizer as their turn comes, so that those that
    /// follow make up for both errors. Levels are fitted to the weights that `mask` keeps before.
    ///
    /// # Errors
    /// As [`refine`](SparseGpt::refine), and those of the quantizer.
    pub fn refine_quantized<'a, T: Element>(
        &self,
        weight: impl Into<TensorRef<'a, T>>,
        mask: &mut Mask,
        calibration: &Calibration,
        quantizer: &dyn Quantizer<T>,
    ) -> Result<Corrected<T>> {
        self.run(weight.into(), mask, calibration, Some(quantizer))
    }

    fn run<T: Element>(
        &self,
        weight: TensorRef<'_, T>,
        mask: &mut Mask,
        calibration: &Calibration,
        quantizer: Option<&dyn Quantizer<T>>,
    ) -> Result<Corrected<T>> {
        let shape = weight.shape().to_vec();
        let mut start = weight.as_slice().to_vec();
        mask.apply(TensorMut::new(&mut start, &shape)?)?;
        let weight = TensorRef::new(&start, &shape)?;
        let outputs = Outputs::new(&weight, calibration)?;
        let mut tensor = quantizer.map(|quantizer| quantizer.quantize(&weight)).transpose()?;

        let inputs = calibration.inputs();
        let order: Vec<usize> = (0..inputs).collect();
        let moment = calibration.moment()?;
        let factor = inverse_factor(moment, &order, self.damping)?;
        let damping = factor.damping;
        // 1 / U[j][j], 0 for an input that was always 0.
        let weights = moment.diagonal().zip(factor.values.iter().step_by(inputs + 1));
        let importance = weights.map(|(h, u)| if h > 0.0 { 1.0 / u } else { 0.0 }).collect();
        let levels = match (quantizer, &tensor) {
            (Some(quantizer), Some(q)) => {
                Some(ToLevels { nearest: nearest::<T::Real>(q, lowest_code(quantizer, q)?), layout: q.layout() })
            }
            _ => None,
        };
        let mut kept = mask.clone();
        let mut values = filled(start.len(), T::default())?;
        let mut choice = Choice::<T> { select: self.select, mask: &mut kept, importance, levels };
        sweep(&order, Factor { values: &factor.values, size: inputs }, &start, &mut values, &mut choice)?;

        // As they are stored.
        let mut masked = start.clone();
        if let (Some(quantizer), Some(q)) = (quantizer, &mut tensor) {
            q.decode(&mut masked);
            quantizer.encode(TensorRef::new(&values, &shape)?, q)?;
            q.decode(&mut values);
        }
        kept.apply(TensorMut::new(&mut masked, &shape)?)?;
        kept.apply(TensorMut::new(&mut values, &shape)?)?;
        let mut errors = outputs.errors(|i| values[i].to_f64())?;
        let masked_errors = outputs.errors(|i| masked[i].to_f64())?;
        let rows = values.chunks_exact_mut(inputs).zip(masked.chunks_exact(inputs));
        let mut worse = false;
        for ((error, &masked_error), (values, masked)) in errors.iter_mut().zip(&masked_errors).zip(rows) {
            if *error > masked_error {
                (*error, worse) = (masked_error, true);
                values.copy_from_slice(masked);
            }
        }
        if let (true, Some(quantizer), Some(q)) = (worse, quantizer, &mut tensor) {
            quantizer.encode(TensorRef::new(&values, &shape)?, q)?;
        }
        *mask = kept;
        Ok(Corrected { values, tensor, error: errors.iter().sum(), masked: masked_errors.iter().sum(), damping })
    }
}

/// The lowest code that a quantizer uses where that of 0 is the middle one: not all leave the lowest of all unused.
fn lowest_code<T: Element>(quantizer: &dyn Quantizer<T>, q: &QTensor) -> Result<u16> {
    let Grid::Affine { zero_point: None, .. } = q.grid() else { return Ok(0) };
    let mut lowest = q.clone();
    let values = filled(q.len(), T::from_f64(-T::LARGEST))?;
    quantizer.encode(TensorRef::new(&values, q.shape())?, &mut lowest)?;
    Ok(lowest.codes().into_iter().min().unwrap_or(0))
}

/// What survives, block by block.
struct Choice<'a, T: Element> {
    select: Select,
    mask: &'a mut Mask,
    importance: Vec<f64>,
    levels: Option<ToLevels<'a, T::Real>>,
}

impl<T: Element> Turns for Choice<'_, T> {
    type Rounding<'a>
        = Kept<'a, T>
    where
        Self: 'a;

    fn width(&self) -> usize {
        self.select.columns(BLOCK).unwrap_or(BLOCK)
    }

    fn begin(&mut self, turn: Turn<'_>) -> Result<Kept<'_, T>> {
        let (rows, range, cols) = (turn.rows, turn.range.clone(), self.importance.len());
        let width = range.len();
        let mut scores = filled(rows * width, 0.0)?;
        for (scores, weights) in scores.chunks_exact_mut(width).zip(turn.each_row()) {
            for ((score, w), importance) in scores.iter_mut().zip(weights).zip(&self.importance[range.clone()]) {
                *score = limited::<f64>(w).abs() * importance;
            }
        }
        let place = |i: usize| i / width * cols + range.start + i % width;
        let mut kept = Mask::from_fn(&[rows, width], |i| self.mask.get(place(i)) == Some(true))?;
        self.select.refine(&[Scores::new(&scores)], slice::from_mut(&mut kept))?;
        for i in (0..kept.len()).filter(|&i| kept.get(i) == Some(false)) {
            self.mask.prune(place(i));
        }
        Ok(Kept { words: self.mask.words(), cols, levels: self.levels })
    }
}
