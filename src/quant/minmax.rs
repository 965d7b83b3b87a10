//! The min-max quantizer: evenly spaced levels between the smallest and the largest value.

use super::{
    certificate::{Certificate, Certify, HALF, Steps, certify},
    spec::{Spec, encode_checked, granularity, levels_config},
};
use crate::{
    element::Element,
    error::Result,
    kernel::{
        grid::EvenGroups,
        ranges::{self, Ends},
        rows,
    },
    tensor::{
        Granularity, Grid, QTensor, TensorRef, Values,
        qtensor::{check_finite, range},
    },
    traits::Quantizer,
};

/// Quantizes to `b` bits between the minimum and the maximum of the tensor, of each channel or of each group.
///
/// ```text
/// q  = round((x - min) / (max - min) * (2^b - 1))      half to even
/// x' = min + q * (max - min) / (2^b - 1)
/// ```
///
/// in `f64`, narrowed once. So `|x - x'| <= scale / 2 + 1 ulp(max |x|)` with `scale = (max - min) / (2^b - 1)`,
/// whatever the range; in `f64`, where there is no wider arithmetic, 2 ulp. The smallest and the
/// largest value are exact, and so is a tensor of one value. Codes are unsigned: those of 8 bits go
/// up to 255 and do not fit an `i8`.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | – | 1 to 8 | bits of a code |
/// | granularity | the tensor | [`per_channel`](MinMax::per_channel), [`per_group`](MinMax::per_group), [`per_block`](MinMax::per_block) | what shares a range |
///
/// Minimum and maximum are kept in `f32` (`f64` for `f64` tensors): a range costs 8 bytes.
///
/// ```
/// use lapidary::{QuantizerExt, TensorRef, quant::MinMax};
/// let weights: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
/// let weights = TensorRef::new(&weights, &[4, 16])?;
/// let q = MinMax::new(4)?.per_group(8)?.quantize(&weights)?;
/// assert_eq!(q.byte_size(), 64 / 2 + 8 * 8);
/// let error = q.error(&weights)?;
/// assert!(error.max_abs <= 2.0 / 15.0 / 2.0 + 1e-7 && error.sqnr_db > 20.0);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinMax {
    spec: Spec,
}

impl MinMax {
    /// A quantizer to `bits` bits, one range for the whole tensor.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `bits` is not in 1..=8.
    pub fn new(bits: u8) -> Result<Self> {
        Ok(Self { spec: Spec::new(bits, matches!(bits, 1..=8), "1 to 8")? })
    }

    granularity!();

    fn encode_finite<T: Element>(&self, values: &[T], q: &mut QTensor) {
        let (layout, grid, packed) = q.parts_mut();
        if let Grid::MinMax { min, max } = grid {
            let groups = EvenGroups { min: min.numbers(), max: max.numbers(), bits: layout.bits };
            rows::encode(layout, values, groups, packed);
        }
    }

    fn check<T: Element>(&self, shape: &[usize], q: &QTensor) -> Result<()> {
        let fits = matches!(q.grid(), Grid::MinMax { min, .. } if min.as_slice::<T::Real>().is_some());
        self.spec.check::<T>(shape, q, fits, "ranges")
    }
}

levels_config! {
    MinMax(bits: u8 = |it| it.bits()) => Self::new(bits),
}

impl<T: Element> Quantizer<T> for MinMax {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        QTensor::laid_out(shape, self.bits(), self.granularity(), |groups| {
            let zeros = Values::filled::<T::Real>(groups, 0.0)?;
            Ok(Grid::MinMax { min: zeros.clone(), max: zeros })
        })
    }

    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.check::<T>(values.shape(), q)?;
        let values = values.as_slice();
        let (layout, grid, _) = q.parts_mut();
        let Some((min, max)) = grid.min_max_mut::<T::Real>() else { return Ok(()) };
        if self.granularity() == Granularity::Tensor {
            (min[0], max[0]) = range("tensor", values)?;
        } else {
            check_finite("tensor", values)?;
            ranges::ranges(layout, values, Ends { min, max });
        }
        Ok(())
    }

    encode_checked!();
}

impl<T: Element> Certify<T> for MinMax {
    fn certificate(&self, q: &QTensor) -> Result<Certificate> {
        self.check::<T>(q.shape(), q)?;
        let ends = |group| match q.grid() {
            Grid::MinMax { min, max } => min.get(group).zip(max.get(group)),
            _ => None,
        };
        let steps = |group| {
            let (min, max) = ends(group).unwrap_or_default();
            Steps { step: (max / 2.0 - min / 2.0) / (self.spec.top() / 2.0), largest: min.abs().max(max.abs()) }
        };
        Ok(certify::<T>(q, steps, HALF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, QuantizerExt};

    #[test]
    fn each_granularity_has_the_ranges_a_plain_loop_finds() {
        let shape = [3, 4, 5];
        let x: Vec<f32> = (0..60).map(|i| ((i * 37 % 61) as f32 - 30.0) * 0.1).collect();
        let tensor = TensorRef::new(&x, &shape).unwrap();
        let index = |i: usize| [i / 20, i / 5 % 4, i % 5];
        let minmax = MinMax::new(8).unwrap();
        type GroupOf = Box<dyn Fn([usize; 3]) -> usize>;
        let cases: Vec<(MinMax, GroupOf)> = vec![
            (minmax, Box::new(|_| 0)),
            (minmax.per_channel(0), Box::new(|i| i[0])),
            (minmax.per_channel(1), Box::new(|i| i[1])),
            (minmax.per_channel(2), Box::new(|i| i[2])),
            (minmax.per_group(2).unwrap(), Box::new(|i| (i[0] * 4 + i[1]) * 3 + i[2] / 2)),
            (minmax.per_group(100).unwrap(), Box::new(|i| i[0] * 4 + i[1])),
        ];
        for (quantizer, group) in cases {
            let q = quantizer.quantize(&tensor).unwrap();
            let Grid::MinMax { min, max } = q.grid() else { panic!() };
            for i in 0..60 {
                let g = group(index(i));
                let members = (0..60).filter(|&j| group(index(j)) == g).map(|j| x[j]);
                let (low, high) = members.fold((f32::MAX, f32::MIN), |(l, h), x| (l.min(x), h.max(x)));
                assert_eq!((min.get(g), max.get(g)), (Some(low.into()), Some(high.into())), "{quantizer:?} {i}");
            }
            let bound = 6.0 / 255.0 / 2.0 + 1e-6;
            assert!(q.error(&tensor).unwrap().max_abs <= bound, "{quantizer:?}");
        }
    }

    #[test]
    fn what_cannot_be_quantized_is_refused_and_nothing_moves() {
        let minmax = MinMax::new(4).unwrap().per_group(2).unwrap();
        let mut q = minmax.quantize(&[1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let before = q.clone();
        let error = minmax.quantize_into((&[9.0f32, 8.0, f32::NAN, 1.0]).into(), &mut q).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(2)));
        assert!(minmax.encode((&[9.0f32, f32::INFINITY, 0.0, 1.0]).into(), &mut q).is_err());
        assert!(minmax.quantize_into((&[1.0f32; 5]).into(), &mut q).is_err());
        assert!(minmax.quantize_into((&[1.0f64; 4]).into(), &mut q).is_err());
        assert!(MinMax::new(4).unwrap().quantize_into((&[1.0f32; 4]).into(), &mut q).is_err());
        assert_eq!(q, before);
        assert_eq!(minmax.quantize(&[0f32; 0]).unwrap_err().kind(), ErrorKind::Empty);
        assert!(minmax.per_channel(1).quantize(&[1.0f32]).is_err());
        assert!(MinMax::new(0).is_err() && MinMax::new(9).is_err() && minmax.per_group(0).is_err());
    }

    #[test]
    fn fixed_levels_saturate() {
        let minmax = MinMax::new(2).unwrap();
        let mut q = minmax.quantize(&[0.0f32, 1.0, 2.0, 3.0]).unwrap();
        minmax.encode((&[-5.0f32, 1.2, 99.0, 2.0]).into(), &mut q).unwrap();
        assert_eq!(q.codes(), [0, 1, 3, 2]);
    }
}
