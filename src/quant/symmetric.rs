//! The symmetric quantizer: evenly spaced levels, 0 in the middle.

use super::{
    affine::{certify_affine, encode_affine, fit_scales, scale, scales_of},
    certificate::{Certificate, Certify, HALF, Reach},
    range::Range,
    spec::{Spec, encode_checked, granularity, levels_config},
};
use crate::{
    element::{Element, Real},
    error::Result,
    kernel::ranges::Fit,
    tensor::{Grid, QTensor, TensorRef, Values},
    traits::Quantizer,
};

/// Quantizes to `b` bits without a zero point, as weights are mostly kept.
///
/// ```text
/// scale = max |x| / (2^(b-1) - 1)                              in f64, narrowed once; at least the smallest normal number
/// q  = round(x / scale)                                        half to even, from -(2^(b-1) - 1) to 2^(b-1) - 1
/// x' = q * scale
/// ```
///
/// so that the levels are symmetric and the lowest code is not used; `|x - x'| <= scale / 2 + 1 ulp(max |x|)`, with the scale as it is stored
/// (2 ulp in `f64`, and with 16 bits). In [full range](Symmetric::full_range) the lowest code is a level too:
///
/// ```text
/// scale = max |x| / 2^(b-1);  q from -2^(b-1) to 2^(b-1) - 1
/// ```
///
/// whose levels are closer, but the largest positive number may be a whole step off: `|x - x'| <= scale`.
///
/// Codes are kept with `2^(b-1)` added; [`QTensor::signed_codes`] gives them as above.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | – | 2 to 8, 16 | bits of a code |
/// | `full_range` | off | | the lowest code is used |
/// | granularity | the tensor | [`per_channel`](Symmetric::per_channel), [`per_group`](Symmetric::per_group), [`per_block`](Symmetric::per_block) | what shares a scale |
///
/// ```
/// use lapidary::{QuantizerExt, quant::Symmetric};
/// let weights = vec![-1.27f32, 0.0, 0.6, 1.0];
/// let q = Symmetric::new(8)?.quantize(&weights)?;
/// assert_eq!(q.signed_codes(), [-127, 0, 60, 100]);
/// assert_eq!(q.byte_size(), 4 + 4);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symmetric {
    spec: Spec,
    full_range: bool,
}

impl Symmetric {
    /// A quantizer to `bits` bits, one scale for the whole tensor.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `bits` is not 2 to 8, or 16.
    pub fn new(bits: u8) -> Result<Self> {
        Ok(Self { spec: Spec::new(bits, matches!(bits, 2..=8 | 16), "2 to 8, or 16")?, full_range: false })
    }

    /// Uses the lowest code too.
    #[must_use]
    pub fn full_range(self) -> Self {
        Self { full_range: true, ..self }
    }

    granularity!();

    /// The scales of known ranges, one for each group, to quantize by levels that stay: what [`QTensor::set_grid`]
    /// takes. A range counts by its larger magnitude. Values beyond it get the nearer end.
    ///
    /// ```
    /// use lapidary::{Quantizer, quant::{Range, Symmetric}};
    /// let symmetric = Symmetric::new(8)?;
    /// let mut q = Quantizer::<f32>::layout(&symmetric, &[3])?;
    /// q.set_grid(symmetric.grid::<f32>(&[Range::new(-0.5, 1.27)?])?)?;
    /// symmetric.encode((&[0.3f32, -1.0, 9.0]).into(), &mut q)?;
    /// assert_eq!(q.signed_codes(), [30, -100, 127]);
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) without ranges; [`Argument`](crate::ErrorKind::Argument) when an end or a
    /// scale is no finite number of `T`'s arithmetic.
    pub fn grid<T: Element>(&self, ranges: &[Range]) -> Result<Grid> {
        let (scale, _) = scales_of::<T::Real>(ranges, self.by_magnitude())?;
        Ok(Grid::Affine { scale: scale.into(), zero_point: None })
    }

    pub(super) fn by_magnitude(&self) -> impl Fit {
        let middle = 1u16 << (self.bits() - 1);
        Magnitude { steps: f64::from(middle - self.least()) }
    }

    fn encode_finite<T: Element>(&self, values: &[T], q: &mut QTensor) {
        encode_affine(values, q, self.least());
    }

    pub(super) fn check<T: Element>(&self, shape: &[usize], q: &QTensor) -> Result<()> {
        let fits =
            matches!(q.grid(), Grid::Affine { scale, zero_point: None } if scale.as_slice::<T::Real>().is_some());
        self.spec.check::<T>(shape, q, fits, "scales")
    }

    /// The lowest code that is used.
    pub(super) fn least(&self) -> u16 {
        u16::from(!self.full_range)
    }
}

levels_config! {
    Symmetric(bits: u8 = |it| it.bits()) => Self::new(bits),
    full_range: bool => |it, _| it.full_range(),
}

impl<T: Element> Quantizer<T> for Symmetric {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        QTensor::laid_out(shape, self.bits(), self.granularity(), |groups| {
            Ok(Grid::Affine { scale: Values::filled::<T::Real>(groups, 1.0)?.into(), zero_point: None })
        })
    }

    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.check::<T>(values.shape(), q)?;
        fit_scales(values.as_slice(), q, self.by_magnitude())
    }

    encode_checked!();
}

impl<T: Element> Certify<T> for Symmetric {
    fn certificate(&self, q: &QTensor) -> Result<Certificate> {
        self.check::<T>(q.shape(), q)?;
        if !self.full_range {
            return Ok(certify_affine::<T>(q, HALF));
        }
        let top = self.spec.top();
        Ok(certify_affine::<T>(q, Reach::Of(|code| if f64::from(code) == top { 1.0 } else { 0.5 })))
    }
}

/// The larger end of the range; 0 lies in the middle.
#[derive(Clone, Copy)]
pub(super) struct Magnitude {
    pub(super) steps: f64,
}

impl Fit for Magnitude {
    #[inline(always)]
    fn scale<R: Real>(&self, min: R, max: R) -> R {
        scale(min.to_f64().abs().max(max.to_f64().abs()), self.steps)
    }

    #[inline(always)]
    fn zero<R: Real>(&self, _: R, _: R) -> u16 {
        // No zero points are kept.
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, QuantizerExt};

    #[test]
    fn restricted_and_full_range_by_hand() {
        let x = [-2.0f32, -1.0, 0.25, 2.0];
        let restricted = Symmetric::new(3).unwrap();
        let q = restricted.quantize(&x).unwrap();
        assert_eq!((q.signed_codes(), q.codes()), (vec![-3, -2, 0, 3], vec![1, 2, 4, 7]));
        let q = restricted.full_range().quantize(&x).unwrap();
        assert_eq!((q.signed_codes(), q.dequantize::<f32>()), (vec![-4, -2, 0, 3], vec![-2.0, -1.0, 0.0, 1.5]));
    }

    #[test]
    fn fixed_levels_saturate_at_the_lowest_used() {
        let symmetric = Symmetric::new(8).unwrap();
        let mut q = symmetric.quantize(&[1.27f64, -0.3]).unwrap();
        symmetric.encode((&[-1e9f64, 1e9]).into(), &mut q).unwrap();
        assert_eq!(q.signed_codes(), [-127, 127]);
        let full = symmetric.full_range();
        full.encode((&[-1e9f64, 1e9]).into(), &mut q).unwrap();
        assert_eq!(q.signed_codes(), [-128, 127]);
    }

    #[test]
    fn what_cannot_be_quantized_is_refused_and_nothing_moves() {
        let symmetric = Symmetric::new(4).unwrap().per_channel(0);
        let mut q = symmetric.quantize(&[1.0f32, 2.0]).unwrap();
        let before = q.clone();
        let error = symmetric.quantize_into((&[f32::NEG_INFINITY, 3.0]).into(), &mut q).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(0)));
        let mut affine = crate::quant::Affine::new(4).unwrap().per_channel(0).quantize(&[1.0f32, 2.0]).unwrap();
        assert!(symmetric.encode((&[1.0f32; 2]).into(), &mut affine).is_err());
        assert!(Symmetric::new(1).is_err() && Symmetric::new(9).is_err());
        assert_eq!(q, before);
    }
}
