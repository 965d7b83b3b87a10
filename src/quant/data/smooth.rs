//! SmoothQuant: what is hard to quantize in a layer's inputs moves to its weights.

use crate::{
    config::config,
    element::{Element, Real},
    error::{Error, Result},
    linalg::Calibration,
    tensor::{TensorRef, qtensor::check_finite, view::filled},
};

/// SmoothQuant (Xiao et al. 2023, arXiv:2211.10438): a scale for each input of a dense layer, so that neither inputs
/// nor weights have outliers.
///
/// ```text
/// s[j] = max |x[j]|^alpha / max |W[:, j]|^(1 - alpha)     in f64, narrowed once, a normal number;
///                                                         1 for an input or a column that is always 0
/// x[j] = x[j] / s[j];  W[:, j] = W[:, j] * s[j]
/// ```
///
/// The product is the same but for roundings. [`divide_outputs`](crate::quant::divide_outputs) takes the division to
/// the layer or norm before, [`multiply_inputs`](crate::quant::multiply_inputs) does the other. Layers that share their
/// inputs have to share scales: give their weights stacked, one below the other. A calibration
/// [without `H`](Calibration::without_hessian) is enough.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `alpha` | 0.5 | 0 to 1 | how much of the difficulty moves to the weights |
///
/// ```
/// use lapidary::{Calibration, TensorRef, quant::SmoothQuant};
/// let mut calibration = Calibration::without_hessian(2)?;
/// calibration.add(&[100.0f32, -1.0])?; // an outlier
/// let weights = [0.25f32, 1.0, -0.1, 0.5];
/// let scales = SmoothQuant::default().scales(TensorRef::new(&weights, &[2, 2])?, &calibration)?;
/// assert_eq!(scales, [20.0, 1.0]); // inputs up to 5 and 1, weights up to 5 and 1
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmoothQuant {
    alpha: f64,
}

impl Default for SmoothQuant {
    /// Half of it moves.
    fn default() -> Self {
        Self { alpha: 0.5 }
    }
}

config! {
    SmoothQuant() => Self::default(),
    alpha: f64 => Self::with_alpha,
}

impl SmoothQuant {
    /// How much of the difficulty moves to the weights: at 1, all inputs are as large as one another.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless it is from 0 to 1.
    pub fn with_alpha(self, alpha: f64) -> Result<Self> {
        match (0.0..=1.0).contains(&alpha) {
            true => Ok(Self { alpha }),
            false => Err(Error::argument("alpha", alpha, "from 0 to 1")),
        }
    }

    /// The scale of each input of weights `[outputs, inputs]`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the weights have two axes; [`Shape`](crate::ErrorKind::Shape)
    /// when the calibration is of other inputs, [`Empty`](crate::ErrorKind::Empty) when it has no sample;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity.
    pub fn scales<'a, T: Element>(
        &self,
        weight: impl Into<TensorRef<'a, T>>,
        calibration: &Calibration,
    ) -> Result<Vec<T::Real>> {
        let weight = weight.into();
        let [_, inputs] = *weight.shape() else {
            return Err(Error::argument("weights", format!("of shape {:?}", weight.shape()), "of two axes"));
        };
        calibration.check(inputs)?;
        check_finite("weights", weight.as_slice())?;
        let mut largest = filled(inputs, 0f64)?;
        for row in weight.as_slice().chunks_exact(inputs) {
            largest.iter_mut().zip(row).for_each(|(largest, w)| *largest = largest.max(w.to_f64().abs()));
        }
        let scale = |(&w, &x): (&f64, &f64)| match x > 0.0 && w > 0.0 {
            true => normal(libm::pow(x, self.alpha) / libm::pow(w, 1.0 - self.alpha)),
            false => T::Real::from_f64(1.0),
        };
        Ok(largest.iter().zip(calibration.max_abs()).map(scale).collect())
    }
}

/// Narrowed to a normal number above 0.
pub(super) fn normal<R: Real>(scale: f64) -> R {
    R::from_f64(scale).max(R::min_positive_value()).min(R::max_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_takes_the_difficulty_from_one_side_to_the_other() {
        let mut calibration = Calibration::without_hessian(3).unwrap();
        calibration.add(&[8.0f64, 0.0, -2.0]).unwrap();
        let w = [0.5, 1.0, 4.0];
        let weight = TensorRef::new(&w, &[1, 3]).unwrap();
        let scales = |alpha| SmoothQuant::default().with_alpha(alpha).unwrap().scales(&weight, &calibration).unwrap();
        assert_eq!(scales(1.0), [8.0, 1.0, 2.0]);
        assert_eq!(scales(0.0), [2.0, 1.0, 0.25]);
        assert_eq!(
            SmoothQuant::default().scales(&[1f64; 3], &calibration).unwrap_err().kind(),
            crate::ErrorKind::Argument
        );
        assert!(
            SmoothQuant::default().with_alpha(1.1).is_err() && SmoothQuant::default().with_alpha(f64::NAN).is_err()
        );
    }

    #[test]
    fn scales_are_normal_numbers_whatever_the_sizes() {
        let mut calibration = Calibration::without_hessian(2).unwrap();
        calibration.add(&[3e38f32, 1e-45]).unwrap();
        let w = [1e-45f32, 3e38];
        for alpha in [0.0, 0.5, 1.0] {
            let smooth = SmoothQuant::default().with_alpha(alpha).unwrap();
            let scales = smooth.scales(TensorRef::new(&w, &[1, 2]).unwrap(), &calibration).unwrap();
            assert!(scales.iter().all(|s| s.is_normal() && *s > 0.0), "{scales:?}");
        }
    }
}
