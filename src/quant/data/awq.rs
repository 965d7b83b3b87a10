//! AWQ: inputs that are large in the mean get finer levels.

use super::smooth::normal;
use crate::{
    config::config,
    element::{Element, Real},
    error::{Error, Result},
    linalg::{Calibration, Outputs},
    tensor::{QTensor, TensorRef, view::filled},
    traits::{Quantizer, QuantizerExt},
};

/// Activation-aware scaling (Lin et al. 2024, arXiv:2306.00978): the weights of inputs that are large in the mean are
/// multiplied before they are quantized, and the inputs divided, so that these weights lose less. How much is searched
/// for:
///
/// ```text
/// for alpha in 0, 1 / steps, 2 / steps, .. 1:
///     s[j] = mean |x[j]|^alpha                            1 for an input that was always 0
///     s = s / sqrt(max s * min s)                         over the others; in f64, narrowed once
///     Q = quantize(W diag(s))
/// ```
///
/// and the `alpha` of the least `‖(W - Q diag(s)⁻¹) X‖²`, measured over the samples of a [`Calibration`], stays; of
/// equal ones the smallest. 0 is rounding to nearest, so the error is never larger. Weights `W` are of shape
/// `[outputs, inputs]`; the quantizer is any whose levels follow the range of a row, a group or a tensor.
///
/// What is quantized are the scaled weights: the layer's inputs have to be divided by the scales, at run time or once
/// and for all in the layer before ([`divide_outputs`](crate::quant::divide_outputs)).
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `quantizer` | – | any | levels, bits, and what shares a scale |
/// | `steps` | 20 | at least 1 | of the search |
///
/// ```
/// use lapidary::{Calibration, TensorRef, quant::{Affine, Awq}};
/// let inputs: Vec<f32> = (0..64 * 8).map(|i| (i as f32 * 0.7).sin() * if i % 8 == 3 { 9.0 } else { 1.0 }).collect();
/// let mut calibration = Calibration::new(8)?;
/// calibration.add(TensorRef::new(&inputs, &[64, 8])?)?;
/// let weights: Vec<f32> = (0..32).map(|i| (i as f32 * 1.3).cos()).collect();
/// let awq = Awq::new(Affine::new(3)?.per_channel(0));
/// let scaled = awq.quantize(TensorRef::new(&weights, &[4, 8])?, &calibration)?;
/// assert!(scaled.alpha > 0.0 && scaled.error < scaled.nearest);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Awq<Q> {
    quantizer: Q,
    steps: u32,
}

/// Weights that [`Awq`] scaled and quantized, and what it cost.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Scaled<R> {
    /// The weights times the scales, laid out by the quantizer.
    pub tensor: QTensor,
    /// What to divide each input by.
    pub scales: Vec<R>,
    /// The power of the mean magnitudes that was found.
    pub alpha: f64,
    /// `‖(W - Q diag(s)⁻¹) X‖² / ‖W X‖²` over the samples of the calibration, measured.
    pub error: f64,
    /// The same without scales.
    pub nearest: f64,
}

impl<Q> Awq<Q> {
    /// Searches for the scales with which a quantizer does best.
    #[must_use]
    pub fn new(quantizer: Q) -> Self {
        Self { quantizer, steps: 20 }
    }

    /// How many steps from 0 to 1 the search takes.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for none.
    pub fn with_steps(self, steps: u32) -> Result<Self> {
        if steps == 0 { Err(Error::argument("steps", steps, "at least 1")) } else { Ok(Self { steps, ..self }) }
    }

    /// Quantizes the weights, of shape `[outputs, inputs]`, of a layer whose inputs the calibration has seen.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the weights have two axes, and when the calibration has no `H`;
    /// [`Shape`](crate::ErrorKind::Shape) when it is of other inputs; [`Empty`](crate::ErrorKind::Empty) when it has no
    /// sample; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity; what the quantizer refuses.
    pub fn quantize<'a, T: Element>(
        &self,
        weight: impl Into<TensorRef<'a, T>>,
        calibration: &Calibration,
    ) -> Result<Scaled<T::Real>>
    where
        Q: Quantizer<T>,
    {
        let weight = weight.into();
        let outputs = Outputs::new(&weight, calibration)?;
        let one = T::Real::from_f64(1.0);
        let mut best = self.measure(&outputs, &weight, filled(calibration.inputs(), one)?, 0.0)?;
        let nearest = best.error;
        let mean = calibration.mean_abs();
        for step in 1..=self.steps {
            let alpha = f64::from(step) / f64::from(self.steps);
            let scales = scales(&mean, alpha);
            let scaled = weight.as_slice().chunks_exact(scales.len()).flat_map(|row| row.iter().zip(&scales));
            // Weights near the largest number: there is no such candidate.
            if scaled.clone().any(|(w, s)| !times(*w, *s).finite()) {
                continue;
            }
            let candidate = self.measure(&outputs, &weight, scales, alpha)?;
            if candidate.error < best.error {
                best = candidate;
            }
        }
        Ok(Scaled { nearest, ..best })
    }

    fn measure<T: Element>(
        &self,
        outputs: &Outputs<'_>,
        weight: &TensorRef<'_, T>,
        scales: Vec<T::Real>,
        alpha: f64,
    ) -> Result<Scaled<T::Real>>
    where
        Q: Quantizer<T>,
    {
        let inputs = scales.len();
        let mut values = filled(weight.len(), T::default())?;
        for (i, (value, &w)) in values.iter_mut().zip(weight.as_slice()).enumerate() {
            *value = times(w, scales[i % inputs]);
        }
        let tensor = self.quantizer.quantize(TensorRef::new(&values, weight.shape())?)?;
        let values: Vec<T::Real> = tensor.dequantize();
        let error = outputs.errors(|i| values[i].to_f64() / scales[i % inputs].to_f64())?.iter().sum();
        Ok(Scaled { tensor, scales, alpha, error, nearest: error })
    }
}

config! {
    Awq<Q>(quantizer: Q) => Self::new(quantizer),
    steps: u32 => Self::with_steps,
}

fn times<T: Element>(w: T, scale: T::Real) -> T {
    T::from_f64(w.to_f64() * scale.to_f64())
}

/// `mean^alpha`, about 1.
fn scales<R: Real>(mean: &[f64], alpha: f64) -> Vec<R> {
    let live = mean.iter().copied().filter(|&x| x > 0.0);
    let (least, most) = live.fold((f64::INFINITY, 0.0), |(least, most), x| (x.min(least), x.max(most)));
    let middle = (libm::pow(least, alpha) * libm::pow(most, alpha)).sqrt();
    let scale = |&x: &f64| if x > 0.0 { normal(libm::pow(x, alpha) / middle) } else { R::from_f64(1.0) };
    mean.iter().map(scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Affine, Symmetric};

    #[test]
    fn scales_are_powers_about_one() {
        assert_eq!(scales::<f64>(&[4.0, 1.0, 0.0, 16.0], 0.5), [1.0, 0.5, 1.0, 2.0]);
        assert_eq!(scales::<f32>(&[0.0, 0.0], 1.0), [1.0, 1.0]);
        assert_eq!(scales::<f32>(&[7.0], 1.0), [1.0]);
    }

    #[test]
    fn the_best_of_the_search_is_what_measuring_gives() {
        let (outputs, inputs) = (6, 10);
        let x: Vec<f32> = (0..30 * inputs).map(|i| ((i * 37 % 101) as f32 - 50.0) * [0.1, 2.0, 0.5][i % 3]).collect();
        let w: Vec<f32> = (0..outputs * inputs).map(|i| ((i * 53 % 97) as f32 - 48.0) / 60.0).collect();
        let mut calibration = Calibration::new(inputs).unwrap();
        calibration.add(TensorRef::new(&x, &[30, inputs]).unwrap()).unwrap();
        let weight = TensorRef::new(&w, &[outputs, inputs]).unwrap();
        let quantizer = Symmetric::new(3).unwrap().per_group(4).unwrap();
        let found = Awq::new(quantizer).with_steps(7).unwrap().quantize(&weight, &calibration).unwrap();
        let mut least = f64::INFINITY;
        for step in 0..=7 {
            let s = scales::<f32>(&calibration.mean_abs(), f64::from(step) / 7.0);
            let scaled: Vec<f32> = w.iter().enumerate().map(|(i, w)| w * s[i % inputs]).collect();
            let q = quantizer.quantize(TensorRef::new(&scaled, &[outputs, inputs]).unwrap()).unwrap();
            let mut back: Vec<f32> = q.dequantize();
            back.iter_mut().enumerate().for_each(|(i, w)| *w /= s[i % inputs]);
            let error = calibration.output_error(&weight, TensorRef::new(&back, &[outputs, inputs]).unwrap()).unwrap();
            least = least.min(error);
            if step == 0 {
                assert!((error - found.nearest).abs() < 1e-6 * error);
            }
        }
        assert!((found.error - least).abs() < 1e-5 * least, "{} {least}", found.error);
        assert!(found.alpha > 0.0 && found.error < found.nearest);
        assert!(Awq::new(quantizer).with_steps(0).is_err());
    }

    #[test]
    fn weights_at_the_end_of_the_range_keep_what_can_be_had() {
        let mut calibration = Calibration::new(2).unwrap();
        calibration.add(&[1.0f32, 100.0]).unwrap();
        let w = [3.4e38f32, -3.4e38];
        let scaled =
            Awq::new(Affine::new(4).unwrap()).quantize(TensorRef::new(&w, &[1, 2]).unwrap(), &calibration).unwrap();
        assert_eq!((scaled.alpha, scaled.scales), (0.0, vec![1.0, 1.0]));
    }
}
