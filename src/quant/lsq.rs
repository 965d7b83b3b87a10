//! Learned step size quantization: levels whose scale is trained.

use super::{
    affine::encode_affine,
    fake::check_shape,
    spec::{Spec, granularity, levels_config},
};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::{
        fake::{self, Scaled, Through, Zeros},
        rows::Layout,
        sums::{MeanMagnitude, ScaleGradient, sums},
    },
    tensor::{
        Grid, QTensor, TensorMut, TensorRef, Values,
        qtensor::{check_finite, layout},
        view::filled,
    },
};
use num_traits::Float;

/// Rounds to levels whose scale is a parameter like any other, trained by any optimizer.
///
/// With `p` the highest and `-n` the lowest level in steps, and `N` elements that share a scale, of `b` bits:
///
/// ```text
/// n = 2^(b-1),  p = 2^(b-1) - 1             unsigned: n = 0, p = 2^b - 1
/// y  = clamp(round(x / scale), -n, p) * scale                     half to even
/// dx = dy where -n < x / scale < p, else 0
/// d  = round(x / scale) - x / scale    where -n < x / scale < p
///      -n                              where x / scale <= -n
///      p                               where x / scale >= p
/// dscale = sum(dy * d) / sqrt(N * p)                              in f64, narrowed once
/// scale  = 2 * mean |x| / sqrt(p)                                 to begin with; at least the smallest normal number
/// ```
///
/// by Esser et al., [Learned Step Size Quantization](https://arxiv.org/abs/1902.08153), ICLR 2020. Sums are taken in a
/// fixed order: the same bits on any number of threads. `y` is bit for bit what [`quantize`](Lsq::quantize) and
/// [`QTensor::dequantize`] give.
///
/// Scales are a plain `Vec` of `f32` (`f64` for `f64` tensors). Weight decay is not for them. A step that is too large
/// can take one to 0 or below, where there are no levels: calls refuse a scale below the smallest normal number by
/// name, so limit scales after a step (`scale.max(1e-6)`, say, or some share of the first one).
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | – | 2 to 8 | bits of a code |
/// | `unsigned` | off | [`unsigned`](Lsq::unsigned) | no negative levels: activations after a ReLU |
/// | granularity | the tensor | [`per_channel`](Lsq::per_channel), [`per_group`](Lsq::per_group), [`per_block`](Lsq::per_block) | what shares a scale |
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Adam, quant::Lsq};
/// let weights = vec![-1.0f32, -0.4, 0.1, 0.9];
/// let lsq = Lsq::new(2)?; // the levels -2, -1, 0 and 1 times the scale
/// let mut scales = lsq.initial_scales(&weights)?;
/// let adam = Adam::new(1e-2)?;
/// let mut state = adam.init(&scales)?;
/// let (mut rounded, mut upstream) = ([0.0; 4], [0.0; 4]);
/// let (mut gradient, mut scale_gradient) = ([0.0; 4], [0.0]);
/// for _ in 0..300 {
///     lsq.forward(&weights, &scales, &mut rounded)?;
///     // The loss here: how far rounded weights are from the weights.
///     for ((up, y), x) in upstream.iter_mut().zip(rounded).zip(&weights) {
///         *up = 2.0 * (y - x);
///     }
///     lsq.backward(&weights, &scales, &upstream, &mut gradient, &mut scale_gradient)?;
///     adam.step(Step::new(&mut scales, &scale_gradient, &mut state))?;
///     scales[0] = scales[0].max(1e-6);
/// }
/// let q = lsq.quantize(&weights, &scales)?;
/// assert_eq!(q.signed_codes(), [-2, -1, 0, 1]);
/// lsq.forward(&weights, &scales, &mut rounded)?;
/// assert_eq!(q.dequantize::<f32>(), rounded);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lsq {
    spec: Spec,
    unsigned: bool,
}

impl Lsq {
    /// Levels of `bits` bits of both signs, one scale for the whole tensor.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `bits` is not in 2..=8.
    pub fn new(bits: u8) -> Result<Self> {
        Ok(Self { spec: Spec::new(bits, matches!(bits, 2..=8), "2 to 8")?, unsigned: false })
    }

    /// Levels from 0 on.
    #[must_use]
    pub fn unsigned(self) -> Self {
        Self { unsigned: true, ..self }
    }

    granularity!();

    /// The scales to begin with: `2 * mean |x| / sqrt(p)` of each group, at least the smallest normal number.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) for a tensor without elements; [`Argument`](crate::ErrorKind::Argument) for
    /// one that has not the axis of the channels, or whose scale is infinite;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite value.
    pub fn initial_scales<'a, T: Element>(&self, values: impl Into<TensorRef<'a, T>>) -> Result<Vec<T::Real>> {
        let values = values.into();
        let (layout, groups) = self.layout(values.shape())?;
        let values = values.as_slice();
        check_finite("tensor", values)?;
        let least = T::Real::min_positive_value();
        let mut scales = filled(groups, least)?;
        sums(layout, values, values, MeanMagnitude { factor: 2.0 / self.reach().sqrt() }, &mut scales);
        match scales.iter().position(|scale| !scale.finite()) {
            None => {
                scales.iter_mut().for_each(|scale| *scale = scale.max(least));
                Ok(scales)
            }
            Some(group) => Err(Error::argument("scale", format!("infinite in group {group}"), "finite")),
        }
    }

    /// Writes the level nearest to each of `values` to `out`. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ, or there is not a scale for each group;
    /// [`Argument`](crate::ErrorKind::Argument) for a scale below the smallest normal number, or an axis that is not
    /// there; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite value or scale;
    /// [`Empty`](crate::ErrorKind::Empty) for a tensor without elements. `out` is then as it was.
    pub fn forward<'a, 'b, T: Element>(
        &self,
        values: impl Into<TensorRef<'a, T>>,
        scales: &[T::Real],
        out: impl Into<TensorMut<'b, T>>,
    ) -> Result<()> {
        let (values, mut out) = (values.into(), out.into());
        let (layout, levels) = self.check(&values, scales)?;
        check_shape("tensor to write to", values.shape(), out.shape())?;
        fake::forward(layout, levels, values.as_slice(), out.as_mut_slice());
        Ok(())
    }

    /// Writes the gradients of the values and of the scales, `upstream` being that of the rounded values. Does not
    /// allocate.
    ///
    /// # Errors
    /// As [`forward`](Lsq::forward). Both gradients are then as they were.
    pub fn backward<'a, 'b, 'c, T: Element>(
        &self,
        values: impl Into<TensorRef<'a, T>>,
        scales: &[T::Real],
        upstream: impl Into<TensorRef<'b, T>>,
        gradient: impl Into<TensorMut<'c, T>>,
        scale_gradient: &mut [T::Real],
    ) -> Result<()> {
        let (values, upstream, mut gradient) = (values.into(), upstream.into(), gradient.into());
        let (layout, levels) = self.check(&values, scales)?;
        check_shape("upstream gradient", values.shape(), upstream.shape())?;
        check_shape("gradient", values.shape(), gradient.shape())?;
        check_shape("gradient of the scales", &[scales.len()], &[scale_gradient.len()])?;
        let (values, upstream) = (values.as_slice(), upstream.as_slice());
        fake::backward(layout, levels, Through::Between, values, upstream, gradient.as_mut_slice());
        sums(layout, values, upstream, ScaleGradient { levels, reach: self.reach() }, scale_gradient);
        Ok(())
    }

    /// The values as codes by these scales.
    ///
    /// # Errors
    /// As [`forward`](Lsq::forward).
    pub fn quantize<'a, T: Element>(&self, values: impl Into<TensorRef<'a, T>>, scales: &[T::Real]) -> Result<QTensor> {
        let values = values.into();
        self.check(&values, scales)?;
        let mut q = QTensor::laid_out(values.shape(), self.bits(), self.granularity(), |groups| {
            let mut scale = Values::filled::<T::Real>(groups, 1.0)?;
            scale.as_mut_slice().unwrap_or_default().copy_from_slice(scales);
            let zero_point = if self.unsigned { Some(filled(groups, 0)?) } else { None };
            Ok(Grid::Affine { scale: scale.into(), zero_point })
        })?;
        encode_affine(values.as_slice(), &mut q, 0);
        Ok(q)
    }

    /// Steps from 0 to the highest level.
    fn reach(&self) -> f64 {
        if self.unsigned { self.spec.top() } else { (self.spec.top() - 1.0) / 2.0 }
    }

    fn layout(&self, shape: &[usize]) -> Result<(Layout, usize)> {
        let groups = QTensor::sizes(shape, self.bits(), self.granularity())?.groups;
        Ok((layout(shape, self.bits(), self.granularity()), groups))
    }

    fn check<'s, T: Element>(
        &self,
        values: &TensorRef<'_, T>,
        scales: &'s [T::Real],
    ) -> Result<(Layout, Scaled<'s, T::Real>)> {
        let (layout, groups) = self.layout(values.shape())?;
        check_shape("scales", &[groups], &[scales.len()])?;
        check_finite("scales", scales)?;
        if let Some(i) = scales.iter().position(|&scale| scale < T::Real::min_positive_value()) {
            let found = format!("{:?} in group {i}", scales[i]);
            return Err(Error::argument("scale", found, "a normal number above 0"));
        }
        check_finite("tensor", values.as_slice())?;
        let zeros = Zeros::All(if self.unsigned { 0 } else { 1 << (self.bits() - 1) });
        Ok((layout, Scaled { scales, zeros, bits: self.bits().into(), least: 0 }))
    }
}

levels_config! {
    Lsq(bits: u8 = |it| it.bits()) => Self::new(bits),
    unsigned: bool => |it, _| it.unsigned(),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_scale_that_gives_no_levels_is_refused_and_nothing_moves() {
        let lsq = Lsq::new(3).unwrap().per_channel(0);
        let x = [1.0f32, 2.0];
        let (mut out, mut scale_gradient) = ([9.0f32; 2], [9.0f32; 2]);
        for bad in [0.0, -0.1, f32::MIN_POSITIVE / 2.0] {
            let error = lsq.forward(&x, &[0.5, bad], &mut out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Argument);
            assert!(error.to_string().contains("in group 1"), "{error}");
            assert!(lsq.backward(&x, &[bad, 0.5], &[1.0; 2], &mut out, &mut scale_gradient).is_err());
            assert!(lsq.quantize(&x, &[bad, 0.5]).is_err());
        }
        let kind = |result: Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(lsq.forward(&x, &[0.5, f32::NAN], &mut out)), ErrorKind::NonFinite);
        assert_eq!(kind(lsq.forward(&[f32::NAN, 0.0], &[0.5; 2], &mut out)), ErrorKind::NonFinite);
        assert_eq!(kind(lsq.forward(&x, &[0.5], &mut out)), ErrorKind::Shape);
        assert_eq!(kind(lsq.forward(&x, &[0.5; 2], &mut out[..1])), ErrorKind::Shape);
        let few = &mut scale_gradient[..1];
        assert_eq!(kind(lsq.backward(&x, &[0.5; 2], &[1.0; 2], &mut out, few)), ErrorKind::Shape);
        assert_eq!(kind(lsq.forward(&[0f32; 0], &[], &mut [])), ErrorKind::Empty);
        assert_eq!(lsq.per_channel(1).initial_scales(&x).unwrap_err().kind(), ErrorKind::Argument);
        assert_eq!(Lsq::new(2).unwrap().initial_scales(&[f32::MAX; 4]).unwrap_err().kind(), ErrorKind::Argument);
        assert!(Lsq::new(1).is_err() && Lsq::new(9).is_err());
        assert_eq!((out, scale_gradient), ([9.0; 2], [9.0; 2]));
    }

    #[test]
    fn by_hand() {
        let lsq = Lsq::new(3).unwrap();
        let x = [-3.0f64, -2.0, -0.6, 0.2, 1.4, 1.5, 8.0];
        let (mut y, mut dx, mut ds) = ([0.0; 7], [0.0; 7], [0.0]);
        lsq.forward(&x, &[0.5], &mut y).unwrap();
        assert_eq!(y, [-2.0, -2.0, -0.5, 0.0, 1.5, 1.5, 1.5]);
        let dy = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
        lsq.backward(&x, &[0.5], &dy, &mut dx, &mut ds).unwrap();
        assert_eq!(dx, [0.0, 0.0, 100.0, 1e3, 1e4, 0.0, 0.0]);
        let want = -4.0 - 40.0 + 100.0 * 0.2 - 1e3 * 0.4 + 1e4 * 0.2 + 3e5 + 3e6;
        assert!((ds[0] - want / 21f64.sqrt()).abs() < 1e-9 * want, "{ds:?}");
        assert_eq!(lsq.initial_scales(&[1.0f32, -2.0]).unwrap(), [(3.0 / 3f64.sqrt()) as f32]);
        assert_eq!(lsq.initial_scales(&[0.0f32; 2]).unwrap(), [f32::MIN_POSITIVE]);
        let unsigned = lsq.unsigned();
        unsigned.forward(&x, &[0.5], &mut y).unwrap();
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 1.5, 1.5, 3.5]);
        assert_eq!(unsigned.quantize(&x, &[0.5]).unwrap().codes(), [0, 0, 0, 0, 3, 3, 7]);
    }
}
