//! GPTQ: rounding that makes up for its own errors.

use super::{
    scheme::{Scheme, copy_levels},
    strips::Levels,
};
use crate::{
    config::config,
    element::{Element, Real},
    error::{Error, Result},
    kernel::sweep::Factor,
    linalg::{Calibration, Outputs, inverse_factor, sweep},
    tensor::{Granularity, QTensor, TensorRef, view::filled},
    traits::{Quantizer, QuantizerExt},
};
use std::marker::PhantomData;

/// GPTQ (Frantar et al. 2023, arXiv:2210.17323): weights of a dense layer are rounded one input after another, and what
/// an input's rounding does to the outputs is made up for by the weights of the inputs that follow.
///
/// With `H` of a [`Calibration`], for weights `W` of shape `[outputs, inputs]`:
///
/// ```text
/// H[j][j] = 1                                             for an input that was always 0
/// H = H + damping * mean(diag H) * I                      the mean over the others
/// H⁻¹ = Uᵀ U                                              Cholesky, U upper triangular
/// for each input j in order:
///     Q[:, j] = level of the code of W[:, j]              by the scheme
///     e = (W[:, j] - Q[:, j]) / U[j][j]
///     W[:, k] = W[:, k] - e * U[j][k]                     for all k after j
/// ```
///
/// Levels are fitted to the original weights; those of [groups](crate::quant::Affine::per_group) to what the weights
/// have become when the group's turn comes (at most the largest number, or half of it where a step would else be infinite), unless the
/// order is another than that of the inputs. An output (a row of
/// `W`) whose error, measured over the samples, is then larger than that of rounding to nearest is rounded to nearest:
/// no output is worse. Weights of an input that was always 0 are rounded to nearest.
///
/// All but the factor is in `f64`, and the same on any instruction set; the factor rests on a matrix library: the same
/// bits on any number of threads, not on any instruction set. Time is that of `inputs³ / 2 + outputs * inputs² / 2`
/// multiplications.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `scheme` | – | [`Affine`], [`Symmetric`], [`MinMax`] | levels, bits, and what shares a scale |
/// | `damping` | 0.01 | `>= 0` | added to the diagonal; ten times more, and again, where there is no factor |
/// | `act_order` | off | | inputs with the largest `H[j][j]` first |
///
/// Needs the feature `linalg`.
///
/// ```
/// use lapidary::{Calibration, TensorRef, quant::{Affine, Gptq}};
/// let inputs: Vec<f32> = (0..64 * 8).map(|i| (i as f32 * 0.7).sin() + (i / 8) as f32 * 0.02).collect();
/// let mut calibration = Calibration::new(8)?;
/// calibration.add(TensorRef::new(&inputs, &[64, 8])?)?;
/// let weights: Vec<f32> = (0..32).map(|i| (i as f32 * 1.3).cos()).collect();
/// let gptq = Gptq::new(Affine::new(3)?.per_channel(0));
/// let swept = gptq.quantize(TensorRef::new(&weights, &[4, 8])?, &calibration)?;
/// assert!(swept.error < swept.nearest);
/// assert_eq!(swept.tensor.bits(), 3);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// [`Affine`]: crate::quant::Affine
/// [`Symmetric`]: crate::quant::Symmetric
/// [`MinMax`]: crate::quant::MinMax
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gptq {
    scheme: Scheme,
    damping: f64,
    act_order: bool,
}

config! {
    Gptq(scheme: Scheme) => Self::new(scheme),
    damping: f64 => Self::with_damping,
    act_order: bool => |it, _| it.with_act_order(),
}

/// Weights that [`Gptq`] quantized, and what it cost.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Swept {
    /// The weights, laid out by the scheme.
    pub tensor: QTensor,
    /// `‖(W - Q) X‖² / ‖W X‖²` over the samples of the calibration, measured.
    pub error: f64,
    /// The same where the scheme rounds to nearest.
    pub nearest: f64,
    /// The damping that it took.
    pub damping: f64,
}

impl Gptq {
    /// Rounds to the levels of a scheme.
    #[must_use]
    pub fn new(scheme: impl Into<Scheme>) -> Self {
        Self { scheme: scheme.into(), damping: 0.01, act_order: false }
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

    /// Inputs with the largest `H[j][j]` first, of equal ones the earlier; all levels are then fitted in advance.
    #[must_use]
    pub fn with_act_order(self) -> Self {
        Self { act_order: true, ..self }
    }

    /// Quantizes the weights, of shape `[outputs, inputs]`, of a layer whose inputs the calibration has seen.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the weights have two axes, when the calibration has no `H`, and
    /// when `H` has no factor with up to 10⁵ times the damping (at least 1e-6 from the second try on);
    /// [`Shape`](crate::ErrorKind::Shape) when it is of other inputs; [`Empty`](crate::ErrorKind::Empty) when it has no
    /// sample; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity.
    pub fn quantize<'a, T: Element>(
        &self,
        weight: impl Into<TensorRef<'a, T>>,
        calibration: &Calibration,
    ) -> Result<Swept> {
        let weight = weight.into();
        let outputs = Outputs::new(&weight, calibration)?;
        let nearest = self.scheme.quantize(&weight)?;
        let rounded: Vec<T::Real> = nearest.dequantize();
        let nearest_errors = outputs.errors(|i| rounded[i].to_f64())?;

        let order = self.order(calibration)?;
        let factor = inverse_factor(calibration.moment()?, &order, self.damping)?;
        let damping = factor.damping;
        let factor = Factor { values: &factor.values, size: order.len() };
        let (fitted, groups) = match self.scheme.granularity() {
            Granularity::Group { size } | Granularity::Block { axis: 1, size } if !self.act_order => {
                (Some(size), calibration.inputs().div_ceil(size))
            }
            _ => (None, 0),
        };
        let real: Vec<T::Real> = weight.as_slice().iter().map(|w| w.to_real()).collect();
        let mut values = filled(real.len(), T::Real::from_f64(0.0))?;
        let mut tensor = nearest.clone();
        let mut levels = Levels { scheme: self.scheme, tensor: &mut tensor, fitted, of: PhantomData::<T::Real> };
        sweep(&order, factor, &real, &mut values, &mut levels)?;
        self.encode(&values, &mut tensor)?;

        // As they are stored.
        tensor.decode(&mut values);
        let mut errors = outputs.errors(|i| values[i].to_f64())?;
        let inputs = calibration.inputs();
        let mut kept = false;
        for (row, (error, &nearest_error)) in errors.iter_mut().zip(&nearest_errors).enumerate() {
            if *error <= nearest_error {
                continue;
            }
            (*error, kept) = (nearest_error, true);
            let elements = row * inputs..(row + 1) * inputs;
            values[elements.clone()].copy_from_slice(&rounded[elements]);
            let own = (row * groups..(row + 1) * groups).map(|group| (group, group));
            copy_levels::<T::Real>(nearest.grid(), tensor.parts_mut().1, own);
        }
        if kept {
            self.encode(&values, &mut tensor)?;
        }
        Ok(Swept { tensor, error: errors.iter().sum(), nearest: nearest_errors.iter().sum(), damping })
    }

    fn order(&self, calibration: &Calibration) -> Result<Vec<usize>> {
        let mut order: Vec<usize> = (0..calibration.inputs()).collect();
        if self.act_order {
            let diagonal: Vec<f64> = calibration.moment()?.diagonal().collect();
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        }
        Ok(order)
    }

    /// The codes of values that are levels.
    fn encode<R: Real>(&self, values: &[R], tensor: &mut QTensor) -> Result<()> {
        let shape = tensor.shape().to_vec();
        Quantizer::<R>::encode(&self.scheme, TensorRef::new(values, &shape)?, tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind, Grid,
        quant::{Affine, MinMax, Symmetric},
    };

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.4
        };
        (0..n).map(|_| next()).collect()
    }

    fn calibration(samples: usize, inputs: usize) -> Calibration {
        let mut calibration = Calibration::new(inputs).unwrap();
        calibration.add(TensorRef::new(&numbers(samples * inputs, 3), &[samples, inputs]).unwrap()).unwrap();
        calibration
    }

    /// The algorithm as the paper has it, error by error, with the inverse by elimination.
    fn plain(w: &[f32], cols: usize, calibration: &Calibration, scale: &[f32], middle: f64) -> Vec<f32> {
        let mut h = calibration.hessian().unwrap();
        let mean = (0..cols).map(|i| h[i * cols + i]).sum::<f64>() / cols as f64;
        (0..cols).for_each(|i| h[i * cols + i] += 0.01 * mean);
        let mut out = w.to_vec();
        for (row, out) in out.chunks_exact_mut(cols).enumerate() {
            let mut work: Vec<f64> = out.iter().map(|&w| w.into()).collect();
            for j in 0..cols {
                // The inverse of what is left of H: its first row says who makes up for the error.
                let inverse = inverse(&h, cols, j);
                let level = (work[j] / f64::from(scale[row])).round_ties_even().clamp(-middle, middle - 1.0);
                out[j] = level as f32 * scale[row];
                let error = (work[j] - f64::from(out[j])) / inverse[0];
                (j + 1..cols).for_each(|k| work[k] -= error * inverse[k - j]);
            }
        }
        out
    }

    /// The first row of the inverse of `h` from row and column `from` on, by conjugate directions of elimination.
    fn inverse(h: &[f64], cols: usize, from: usize) -> Vec<f64> {
        let n = cols - from;
        let mut a: Vec<Vec<f64>> = (0..n).map(|i| h[(from + i) * cols + from..][..n].to_vec()).collect();
        let mut b = vec![0.0; n];
        b[0] = 1.0;
        for i in 0..n {
            for k in i + 1..n {
                let factor = a[k][i] / a[i][i];
                let (upper, lower) = a.split_at_mut(k);
                lower[0].iter_mut().zip(&upper[i]).for_each(|(x, y)| *x -= factor * y);
                b[k] -= factor * b[i];
            }
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| a[i][k] * b[k]).sum();
            b[i] = (b[i] - known) / a[i][i];
        }
        b
    }

    #[test]
    fn is_the_algorithm_of_the_paper() {
        let (rows, cols) = (11, 23);
        let (w, calibration) = (numbers(rows * cols, 5), calibration(60, cols));
        let weight = TensorRef::new(&w, &[rows, cols]).unwrap();
        let scheme = Symmetric::new(4).unwrap().full_range().per_channel(0);
        let swept = Gptq::new(scheme).quantize(&weight, &calibration).unwrap();
        let Grid::Affine { scale, .. } = swept.tensor.grid() else { panic!() };
        let want = plain(&w, cols, &calibration, scale.as_slice().unwrap(), 8.0);
        let got: Vec<f32> = swept.tensor.dequantize();
        // Rows that were rounded to nearest instead are told by their error alone.
        let nearest: Vec<f32> = scheme.quantize(&weight).unwrap().dequantize();
        let rows = |v: &[f32]| v.chunks_exact(cols).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let (got, want, nearest) = (rows(&got), rows(&want), rows(&nearest));
        let same = got.iter().zip(&want).filter(|(got, want)| got == want).count();
        assert!(same >= 8, "{same}");
        for (i, got) in got.iter().enumerate() {
            assert!(*got == want[i] || *got == nearest[i], "{i}");
        }
    }

    #[test]
    fn says_what_it_cannot_do() {
        let gptq = Gptq::new(Affine::new(4).unwrap());
        assert!(gptq.with_damping(-0.1).is_err() && gptq.with_damping(f64::NAN).is_err());
        let (w, c) = (numbers(12, 1), calibration(9, 4));
        let weight = TensorRef::new(&w, &[3, 4]).unwrap();
        assert_eq!(gptq.quantize(&w, &c).unwrap_err().kind(), ErrorKind::Argument);
        assert_eq!(gptq.quantize(&weight, &calibration(9, 5)).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(gptq.quantize(&weight, &Calibration::new(4).unwrap()).unwrap_err().kind(), ErrorKind::Empty);
        let mut nan = w.clone();
        nan[7] = f32::NAN;
        let error = gptq.quantize(TensorRef::new(&nan, &[3, 4]).unwrap(), &c).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(7)));
    }

    #[test]
    fn every_granularity_and_type_keeps_what_it_measured() {
        let (rows, cols) = (10, 19);
        let (w, c) = (numbers(rows * cols, 8), calibration(40, cols));
        let schemes: Vec<Scheme> = vec![
            Affine::new(3).unwrap().into(),
            Affine::new(3).unwrap().per_channel(0).into(),
            Affine::new(3).unwrap().per_channel(1).into(),
            Affine::new(2).unwrap().per_group(5).unwrap().into(),
            Symmetric::new(3).unwrap().per_group(100).unwrap().into(),
            MinMax::new(2).unwrap().per_group(7).unwrap().into(),
            MinMax::new(1).unwrap().per_channel(0).into(),
        ];
        for scheme in schemes {
            for gptq in [Gptq::new(scheme), Gptq::new(scheme).with_act_order()] {
                let weight = TensorRef::new(&w, &[rows, cols]).unwrap();
                let swept = gptq.quantize(&weight, &c).unwrap();
                let values: Vec<f32> = swept.tensor.dequantize();
                let measured = c.output_error(&weight, TensorRef::new(&values, &[rows, cols]).unwrap()).unwrap();
                assert!((measured - swept.error).abs() <= 1e-12 * measured, "{gptq:?}");
                assert!(swept.error < 0.9 * swept.nearest, "{gptq:?}: {} {}", swept.error, swept.nearest);
                assert_eq!((swept.tensor.bits(), swept.tensor.granularity()), (scheme.bits(), scheme.granularity()));
                let half: Vec<half::bf16> = w.iter().map(|&w| half::bf16::from_f32(w)).collect();
                let wide: Vec<f32> = half.iter().map(|w| w.to_f32()).collect();
                let half = gptq.quantize(TensorRef::new(&half, &[rows, cols]).unwrap(), &c).unwrap();
                assert_eq!(half, gptq.quantize(TensorRef::new(&wide, &[rows, cols]).unwrap(), &c).unwrap());
            }
        }
    }
}
