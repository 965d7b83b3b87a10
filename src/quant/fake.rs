//! Rounding to levels in training, with a gradient that goes straight through.

use super::{affine::Affine, symmetric::Symmetric};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::fake::{self, Scaled, Through, Zeros},
    tensor::{Grid, QTensor, TensorMut, TensorRef, qtensor::check_finite},
};

/// Rounds values to the levels of a quantized tensor, so that a model learns with what quantization does to it.
///
/// ```text
/// y  = (clamp(round(x / scale) + zero_point) - zero_point) * scale
/// dx = dy where round(x / scale) + zero_point is a code, else 0
/// ```
///
/// half to even; codes are those that the quantizer uses. The rounding has no useful derivative: its gradient is taken
/// for 1 (the straight-through estimator of [Bengio et al. 2013](https://arxiv.org/abs/1308.3432)), that of the clamp
/// is 0 outside. As PyTorch's `fake_quantize_per_tensor_affine`, which multiplies by `1 / scale` where this divides.
///
/// `y` is bit for bit what the quantizer's [`encode`](crate::Quantizer::encode) into that tensor and
/// [`dequantize`](QTensor::dequantize) give, so a model trained with it does not change when it is converted. The
/// tensor gives its levels only; its codes are neither read nor written. To learn the scale too: [`Lsq`](super::Lsq).
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | quantizer | – | [`Affine`] or [`Symmetric`], any granularity | bits, the codes in use, what shares a scale |
///
/// ```
/// use lapidary::{Quantizer, QuantizerExt, quant::{FakeQuantize, Symmetric}};
/// let weights = vec![-1.4f32, 0.0, 0.4, 0.74, 1.1];
/// let symmetric = Symmetric::new(3)?;
/// let q = symmetric.quantize(&[0.75f32; 5])?; // the scale is 0.25, the levels go from -0.75 to 0.75
/// let fake = FakeQuantize::from(symmetric);
/// let (mut rounded, mut gradient) = ([0.0; 5], [0.0; 5]);
/// fake.forward(&weights, &q, &mut rounded)?;
/// assert_eq!(rounded, [-0.75, 0.0, 0.5, 0.75, 0.75]);
/// fake.backward(&weights, &q, &[1.0; 5], &mut gradient)?;
/// assert_eq!(gradient, [0.0, 1.0, 1.0, 1.0, 0.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct FakeQuantize {
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Scheme {
    Affine(Affine),
    Symmetric(Symmetric),
}

impl From<Affine> for FakeQuantize {
    fn from(affine: Affine) -> Self {
        Self { scheme: Scheme::Affine(affine) }
    }
}

impl From<Symmetric> for FakeQuantize {
    fn from(symmetric: Symmetric) -> Self {
        Self { scheme: Scheme::Symmetric(symmetric) }
    }
}

impl FakeQuantize {
    /// Writes the level nearest to each of `values` to `out`. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; [`Argument`](crate::ErrorKind::Argument) when
    /// `levels` was laid out by another quantizer or for another element type;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite value. `out` is then as it was.
    pub fn forward<'a, 'b, T: Element>(
        &self,
        values: impl Into<TensorRef<'a, T>>,
        levels: &QTensor,
        out: impl Into<TensorMut<'b, T>>,
    ) -> Result<()> {
        let (values, mut out) = (values.into(), out.into());
        let scaled = self.check(&values, levels)?;
        check_shape("tensor to write to", values.shape(), out.shape())?;
        fake::forward(levels.layout(), scaled, values.as_slice(), out.as_mut_slice());
        Ok(())
    }

    /// Writes to `gradient` what goes through of the gradient `upstream` of the rounded values. A NaN or infinity goes
    /// through as it is. Does not allocate.
    ///
    /// # Errors
    /// As [`forward`](FakeQuantize::forward).
    pub fn backward<'a, 'b, 'c, T: Element>(
        &self,
        values: impl Into<TensorRef<'a, T>>,
        levels: &QTensor,
        upstream: impl Into<TensorRef<'b, T>>,
        gradient: impl Into<TensorMut<'c, T>>,
    ) -> Result<()> {
        let (values, upstream, mut gradient) = (values.into(), upstream.into(), gradient.into());
        let scaled = self.check(&values, levels)?;
        check_shape("upstream gradient", values.shape(), upstream.shape())?;
        check_shape("gradient", values.shape(), gradient.shape())?;
        let (values, upstream) = (values.as_slice(), upstream.as_slice());
        fake::backward(levels.layout(), scaled, Through::Rounded, values, upstream, gradient.as_mut_slice());
        Ok(())
    }

    fn check<'q, T: Element>(&self, values: &TensorRef<'_, T>, q: &'q QTensor) -> Result<Scaled<'q, T::Real>> {
        let least = match &self.scheme {
            Scheme::Affine(affine) => affine.check::<T>(values.shape(), q).map(|()| 0),
            Scheme::Symmetric(symmetric) => symmetric.check::<T>(values.shape(), q).map(|()| symmetric.least()),
        }?;
        check_finite("tensor", values.as_slice())?;
        let (scales, zeros) = match q.grid() {
            Grid::Affine { scale, zero_point } => (scale.as_slice(), zero_point.as_deref()),
            _ => (None, None),
        };
        let zeros = zeros.map_or(Zeros::All(1 << (q.bits() - 1)), Zeros::Each);
        Ok(Scaled { scales: scales.unwrap_or_default(), zeros, bits: q.bits().into(), least })
    }
}

pub(super) fn check_shape(what: &'static str, needed: &[usize], found: &[usize]) -> Result<()> {
    if needed == found { Ok(()) } else { Err(Error::shape(what, needed, found)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, QuantizerExt, quant::MinMax};

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_moves() {
        let x = [1.0f32, -2.0, 0.5];
        let affine = Affine::new(4).unwrap();
        let (fake, q) = (FakeQuantize::from(affine), affine.quantize(&x).unwrap());
        let mut out = [9.0f32; 3];
        let kind = |result: Result<()>| result.unwrap_err().kind();
        let nan = fake.forward(&[0.0, f32::NAN, 1.0], &q, &mut out).unwrap_err();
        assert_eq!((nan.kind(), nan.index()), (ErrorKind::NonFinite, Some(1)));
        assert_eq!(kind(fake.forward(&x[..2], &q, &mut out[..2])), ErrorKind::Shape);
        assert_eq!(kind(fake.forward(&x, &q, &mut out[..2])), ErrorKind::Shape);
        assert_eq!(kind(fake.backward(&x, &q, &[1.0; 2], &mut out)), ErrorKind::Shape);
        assert_eq!(kind(fake.backward(&x, &q, &[1.0; 3], &mut out[..1])), ErrorKind::Shape);
        let symmetric = FakeQuantize::from(Symmetric::new(4).unwrap());
        assert_eq!(kind(symmetric.forward(&x, &q, &mut out)), ErrorKind::Argument);
        let others = MinMax::new(4).unwrap().quantize(&x).unwrap();
        assert_eq!(kind(fake.forward(&x, &others, &mut out)), ErrorKind::Argument);
        let mut wide = [9.0f64; 3];
        assert_eq!(kind(fake.forward(&[1.0f64; 3], &q, &mut wide)), ErrorKind::Argument);
        assert_eq!((out, wide), ([9.0; 3], [9.0; 3]));
    }

    #[test]
    fn what_is_upstream_goes_through_or_not_at_all() {
        let affine = Affine::new(2).unwrap();
        let q = affine.quantize(&[0.0f32, 1.0, 2.0, 3.0]).unwrap();
        let mut gradient = [9.0f32; 4];
        let upstream = [f32::NAN, f32::INFINITY, f32::NAN, -0.5];
        FakeQuantize::from(affine).backward(&[-1.0f32, 1.0, 4.0, 2.2], &q, &upstream, &mut gradient).unwrap();
        assert_eq!(gradient, [0.0, f32::INFINITY, 0.0, -0.5]);
    }
}
