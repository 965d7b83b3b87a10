//! The affine quantizer: evenly spaced levels, one of which is 0.

use super::{
    certificate::{Certificate, Certify, HALF, Reach, Steps, certify},
    range::Range,
    spec::{Spec, encode_checked, granularity, levels_config},
};
use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::{
        affine::AffineGroups,
        ranges::{self, Fit, Fitted},
        rows,
    },
    tensor::{Granularity, Grid, QTensor, TensorRef, Values, qtensor::range, view::filled},
    traits::Quantizer,
};

/// Quantizes to `b` bits with an integer zero point, the form that ONNX, PyTorch and TFLite store and compute with.
///
/// The range is widened to hold 0, which is a level and so stays exact:
///
/// ```text
/// min = min(min, 0);  max = max(max, 0)
/// scale = (max - min) / (2^b - 1)                              in f64, narrowed once; at least the smallest normal number
/// zero_point = round(-min / scale)                             half to even, from 0 to 2^b - 1
/// q  = round(x / scale) + zero_point                           half to even, from 0 to 2^b - 1
/// x' = (q - zero_point) * scale
/// ```
///
/// and no `x'` is beyond the largest number of its type. `|x - x'| <= scale / 2 + 1 ulp(max |x|)`, with the scale as it is stored
/// (2 ulp in `f64`, and with 16 bits). Codes and zero points are unsigned; the signed ones of `int8` and `int4` are these less `2^(b-1)`
/// ([`QTensor::signed_codes`]). 8 bits of a whole tensor are ONNX's `DynamicQuantizeLinear`.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | – | 1 to 8, 16 | bits of a code |
/// | granularity | the tensor | [`per_channel`](Affine::per_channel), [`per_group`](Affine::per_group), [`per_block`](Affine::per_block) | what shares a scale |
///
/// A scale is kept in `f32` (`f64` for `f64` tensors) and a zero point in as many bytes as a code.
///
/// ```
/// use lapidary::{Grid, QuantizerExt, Values, quant::Affine};
/// let weights = vec![-1.0f32, 0.0, 0.4, 2.0];
/// let q = Affine::new(4)?.quantize(&weights)?;
/// assert_eq!(q.grid(), &Grid::Affine { scale: Values::F32(vec![0.2]).into(), zero_point: Some(vec![5]) });
/// assert_eq!(q.codes(), [0, 5, 7, 15]);
/// assert_eq!(q.dequantize::<f32>(), [-1.0, 0.0, 0.4, 2.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affine {
    spec: Spec,
}

impl Affine {
    /// A quantizer to `bits` bits, one scale for the whole tensor.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `bits` is not 1 to 8, or 16.
    pub fn new(bits: u8) -> Result<Self> {
        Ok(Self { spec: Spec::new(bits, matches!(bits, 1..=8 | 16), "1 to 8, or 16")? })
    }

    granularity!();

    /// The scales and zero points of known ranges, one for each group, to quantize by levels that stay: what
    /// [`QTensor::set_grid`] takes. Values beyond a range get the nearer end.
    ///
    /// ```
    /// use lapidary::{Quantizer, quant::{Affine, Range}};
    /// let affine = Affine::new(4)?;
    /// let mut q = Quantizer::<f32>::layout(&affine, &[3])?;
    /// q.set_grid(affine.grid::<f32>(&[Range::new(-1.0, 2.0)?])?)?;
    /// affine.encode((&[0.4f32, -1.1, 9.0]).into(), &mut q)?;
    /// assert_eq!(q.codes(), [7, 0, 15]);
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) without ranges; [`Argument`](crate::ErrorKind::Argument) when an end or a
    /// scale is no finite number of `T`'s arithmetic.
    pub fn grid<T: Element>(&self, ranges: &[Range]) -> Result<Grid> {
        let (scale, zeros) = scales_of::<T::Real>(ranges, self.with_zero())?;
        Ok(Grid::Affine { scale: scale.into(), zero_point: Some(zeros) })
    }

    pub(super) fn with_zero(&self) -> impl Fit {
        WithZero { top: self.spec.top() }
    }

    fn encode_finite<T: Element>(&self, values: &[T], q: &mut QTensor) {
        encode_affine(values, q, 0);
    }

    pub(super) fn check<T: Element>(&self, shape: &[usize], q: &QTensor) -> Result<()> {
        let fits =
            matches!(q.grid(), Grid::Affine { scale, zero_point: Some(_) } if scale.as_slice::<T::Real>().is_some());
        self.spec.check::<T>(shape, q, fits, "scales and zero points")
    }
}

levels_config! {
    Affine(bits: u8 = |it| it.bits()) => Self::new(bits),
}

impl<T: Element> Quantizer<T> for Affine {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        QTensor::laid_out(shape, self.bits(), self.granularity(), |groups| {
            let scale = Values::filled::<T::Real>(groups, 1.0)?.into();
            Ok(Grid::Affine { scale, zero_point: Some(filled(groups, 0)?) })
        })
    }

    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.check::<T>(values.shape(), q)?;
        fit_scales(values.as_slice(), q, self.with_zero())
    }

    encode_checked!();
}

impl<T: Element> Certify<T> for Affine {
    fn certificate(&self, q: &QTensor) -> Result<Certificate> {
        self.check::<T>(q.shape(), q)?;
        Ok(certify_affine::<T>(q, HALF))
    }
}

/// The certificate of evenly spaced levels with an exact 0.
pub(super) fn certify_affine<T: Element>(q: &QTensor, reach: Reach<impl Fn(u16) -> f64>) -> Certificate {
    let middle = 1u16 << (q.bits() - 1);
    let top = (1u32 << q.bits()) - 1;
    certify::<T>(
        q,
        |group| {
            let Grid::Affine { scale, zero_point } = q.grid() else { return Steps { step: 0.0, largest: 0.0 } };
            let step = scale.numbers().get(group);
            let zero = u32::from(zero_point.as_ref().map_or(middle, |zeros| zeros[group]));
            // Half a step beyond the levels, or the whole one that a level is missing.
            Steps { step, largest: (f64::from(zero.max(top - zero)) + 1.0) * step }
        },
        reach,
    )
}

/// The range widened to hold 0, and where 0 then lies.
#[derive(Clone, Copy)]
struct WithZero {
    top: f64,
}

impl Fit for WithZero {
    #[inline(always)]
    fn scale<R: Real>(&self, min: R, max: R) -> R {
        let (min, max) = (min.to_f64().min(0.0), max.to_f64().max(0.0));
        scale(max / 2.0 - min / 2.0, self.top / 2.0)
    }

    #[inline(always)]
    fn zero<R: Real>(&self, min: R, scale: R) -> u16 {
        let place = (-min.to_f64() / scale.to_f64()).max(0.0).min(self.top);
        place.nearest() as u16
    }
}

/// `reach / steps`, narrowed, and never so small that a division by it loses digits.
#[inline(always)]
pub(super) fn scale<R: Real>(reach: f64, steps: f64) -> R {
    let scale = R::from_f64(reach / steps);
    if scale < R::min_positive_value() { R::min_positive_value() } else { scale }
}

/// Sets the scales, and the zero points if there are any, that `fit` makes of each group's range. Nothing moves unless all values
/// are finite, and the scale of them all together is.
pub(super) fn fit_scales<T: Element>(values: &[T], q: &mut QTensor, fit: impl Fit) -> Result<()> {
    let (min, max) = range("tensor", values)?;
    let scale = scale_of(min, max, fit)?;
    let granularity = q.granularity();
    let (layout, grid, _) = q.parts_mut();
    let Some((scales, zeros)) = grid.scales_mut::<T::Real>() else { return Ok(()) };
    if granularity == Granularity::Tensor {
        scales[0] = scale;
        if let Some(zeros) = zeros {
            zeros[0] = fit.zero(min, scale);
        }
    } else {
        ranges::ranges(layout, values, Fitted { scales, zeros, fit });
    }
    Ok(())
}

/// The scale that `fit` makes of a range; an error when it is infinite.
fn scale_of<R: Real>(min: R, max: R, fit: impl Fit) -> Result<R> {
    let scale = fit.scale(min, max);
    if scale.finite() {
        return Ok(scale);
    }
    let found = format!("{:?} to {:?}", min.to_f64(), max.to_f64());
    Err(Error::argument("range", found, "one whose scale is finite"))
}

/// The scale and the zero point that `fit` makes of each range.
pub(super) fn scales_of<R: Real>(ranges: &[Range], fit: impl Fit) -> Result<(Values, Vec<u16>)> {
    if ranges.is_empty() {
        return Err(Error::empty("list of ranges"));
    }
    let (mut scale, mut zeros) = (Values::filled::<R>(ranges.len(), 1.0)?, filled(ranges.len(), 0)?);
    let scales = scale.as_mut_slice::<R>().unwrap_or_default();
    for ((scale, zero), range) in scales.iter_mut().zip(&mut zeros).zip(ranges) {
        let (min, max) = (R::from_f64(range.min()), R::from_f64(range.max()));
        *scale = scale_of(min, max, fit)?;
        *zero = fit.zero(min, *scale);
    }
    Ok((scale, zeros))
}

/// Sets the codes of finite values; none is below `least`.
pub(super) fn encode_affine<T: Element>(values: &[T], q: &mut QTensor, least: u16) {
    let (layout, grid, packed) = q.parts_mut();
    let bits = layout.bits;
    if let Some((scales, zeros)) = grid.scales_mut::<T::Real>() {
        rows::encode(layout, values, AffineGroups { scales, zeros: zeros.as_deref(), bits, least }, packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, QuantizerExt};

    #[test]
    fn zero_is_exact_whatever_the_range() {
        for x in [[3.0f32, 5.0, 9.0], [-9.0, -5.0, -0.1], [-1e-3, 7.0, 0.0], [0.0; 3], [3e38, -3e38, 1.0]] {
            for bits in 2..=8 {
                let affine = Affine::new(bits).unwrap();
                let mut q = affine.quantize(&x).unwrap();
                affine.encode((&[0.0f32; 3]).into(), &mut q).unwrap();
                assert_eq!(q.dequantize::<f32>(), [0.0; 3], "{x:?} {bits}");
            }
        }
    }

    #[test]
    fn each_granularity_has_the_scales_a_plain_loop_finds() {
        let shape = [3, 4, 5];
        let x: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 61) * 0.1 - 1.0).collect();
        let tensor = TensorRef::new(&x, &shape).unwrap();
        type GroupOf = fn(usize) -> usize;
        let affine = Affine::new(8).unwrap();
        let cases: [(Affine, GroupOf); 5] = [
            (affine, |_| 0),
            (affine.per_channel(0), |i| i / 20),
            (affine.per_channel(1), |i| i / 5 % 4),
            (affine.per_channel(2), |i| i % 5),
            (affine.per_group(2).unwrap(), |i| i / 5 * 3 + i % 5 / 2),
        ];
        for (quantizer, group) in cases {
            let q = quantizer.quantize(&tensor).unwrap();
            let Grid::Affine { scale, zero_point: Some(zeros) } = q.grid() else { panic!() };
            for i in 0..60 {
                let members = (0..60).filter(|&j| group(j) == group(i)).map(|j| x[j]);
                let (low, high) = members.fold((0f64, 0f64), |(l, h), x| (l.min(x), h.max(x)));
                let want = (high - low) / 255.0;
                assert!((scale.get(group(i)).unwrap() - want).abs() < 1e-15, "{quantizer:?} {i}");
                assert_eq!(zeros[group(i)], (-low / want).round_ties_even() as u16);
            }
            assert!(q.error(&tensor).unwrap().max_abs <= 6.1 / 255.0 / 2.0);
        }
    }

    #[test]
    fn what_cannot_be_quantized_is_refused_and_nothing_moves() {
        let affine = Affine::new(1).unwrap();
        let mut q = affine.quantize(&[1.0f32, 2.0]).unwrap();
        let before = q.clone();
        // One step from -3e38 to 3e38 is no f32.
        let error = affine.quantize_into((&[-3e38f32, 3e38]).into(), &mut q).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        let error = affine.quantize_into((&[1.0f32, f32::NAN]).into(), &mut q).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        assert!(affine.encode((&[f32::INFINITY, 0.0]).into(), &mut q).is_err());
        assert!(affine.quantize_into((&[1.0f64; 2]).into(), &mut q).is_err());
        assert!(Affine::new(2).unwrap().quantize_into((&[1.0f32; 2]).into(), &mut q).is_err());
        assert_eq!(q, before);
        let min_max = crate::quant::MinMax::new(1).unwrap().quantize(&[1.0f32, 2.0]).unwrap();
        assert!(affine.encode((&[1.0f32; 2]).into(), &mut min_max.clone()).is_err());
        assert_eq!(affine.quantize(&[0f32; 0]).unwrap_err().kind(), ErrorKind::Empty);
        assert!(Affine::new(0).is_err() && Affine::new(9).is_err() && affine.per_group(0).is_err());
    }
}
