//! Gradients held within bounds.

use super::{
    hyper::{non_negative, positive},
    scalar::narrow,
};
use crate::{
    element::{AnySlice, Element, Real},
    error::{Error, Result},
    kernel::{map::map, scan},
    tensor::{TensorMut, TensorRef, qtensor::range},
};

/// How the size of gradients is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Norm {
    /// The root of the sum of squares.
    #[default]
    L2,
    /// The largest magnitude.
    Max,
}

impl Norm {
    /// That of two tensors together, from those of each.
    pub(super) fn of_both(self, a: f64, b: f64) -> f64 {
        match self {
            Self::L2 => libm::hypot(a, b),
            Self::Max => a.max(b),
        }
    }

    /// That of one gradient, or an error that names the first NaN or infinity.
    pub(super) fn of_any<R: Real>(self, values: AnySlice<'_, R>) -> Result<f64> {
        match values {
            AnySlice::Real(values) => size(values, self),
            AnySlice::F16(values) => size(values, self),
            AnySlice::Bf16(values) => size(values, self),
        }
    }
}

/// Limits each element to `-limit ..= limit`, as PyTorch's `clip_grad_value_`. Does not allocate.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) when the limit is not in 0 ..= 3.4e38;
/// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinity. The gradient is then as it was.
///
/// ```
/// let mut gradient = vec![3.0f32, -0.5, -9.0];
/// lapidary::optim::clip_value(&mut gradient, 1.0)?;
/// assert_eq!(gradient, [1.0, -0.5, -1.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn clip_value<'a, T: Element>(gradient: impl Into<TensorMut<'a, T>>, limit: f64) -> Result<()> {
    let mut gradient = gradient.into();
    let limit: T::Real = narrow(non_negative("limit", limit)?);
    range("gradient", gradient.as_slice())?;
    map(gradient.as_mut_slice(), move |g| {
        if g > limit {
            limit
        } else if g < -limit {
            -limit
        } else {
            g
        }
    });
    Ok(())
}

/// Shrinks gradients so that the norm of all of them together is at most `max_norm`, as PyTorch's `clip_grad_norm_`: times
/// `max_norm / (norm + 1e-6)` where that is less than 1. Returns the norm they had. Pass one gradient for its own norm.
/// Norms are in `f64`, the same bits on any number of threads. Does not allocate.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) when `max_norm` is not in 0 ..= 3.4e38;
/// [`NonFinite`](crate::ErrorKind::NonFinite), naming the gradient by its place (`#0`), for a NaN or infinity. No gradient is changed then.
///
/// ```
/// use lapidary::optim::{Norm, clip_norm};
/// let (mut a, mut b) = (vec![3.0f32, 0.0], vec![0.0f32, 4.0]);
/// let norm = clip_norm(&mut [(&mut a).into(), (&mut b).into()], 1.0, Norm::L2)?;
/// assert_eq!(norm, 5.0);
/// assert!((a[0] - 0.6).abs() < 1e-6 && (b[1] - 0.8).abs() < 1e-6);
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn clip_norm<T: Element>(gradients: &mut [TensorMut<'_, T>], max_norm: f64, norm: Norm) -> Result<f64> {
    non_negative("max_norm", max_norm)?;
    let mut total: f64 = 0.0;
    for (i, gradient) in gradients.iter().enumerate() {
        let own = size(gradient.as_slice(), norm).map_err(|error| error.in_tensor(&format!("#{i}")))?;
        total = norm.of_both(total, own);
    }
    let factor = max_norm / (total + 1e-6);
    if factor < 1.0 {
        let factor: T::Real = narrow(factor);
        gradients.iter_mut().for_each(|gradient| map(gradient.as_mut_slice(), move |g| g * factor));
    }
    Ok(total)
}

/// Adaptive clipping (Brock et al. 2021, arXiv:2102.06171): shrinks the gradient of each unit, an index of the first axis, to
/// at most `ratio` times the norm of the unit's weights, which is taken for at least `eps` (paper: 0.01 and 1e-3). A tensor of
/// one axis or none is one unit. Returns how many units were clipped. Does not allocate.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) when `ratio` is not in 0 ..= 3.4e38 or `eps` not above 0;
/// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or
/// infinity in either. The gradient is then as it was.
///
/// ```
/// use lapidary::{TensorMut, TensorRef, optim::clip_adaptive};
/// let (weights, mut gradient) = ([3.0f32, 4.0, 1.0, 0.0], [0.3f32, 0.4, 3.0, 4.0]);
/// let weights = TensorRef::new(&weights, &[2, 2])?;
/// assert_eq!(clip_adaptive(&weights, TensorMut::new(&mut gradient, &[2, 2])?, 0.5, 1e-3)?, 1);
/// assert_eq!(gradient[..2], [0.3, 0.4]);
/// assert!((gradient[2] - 0.3).abs() < 1e-6 && (gradient[3] - 0.4).abs() < 1e-6);
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn clip_adaptive<'a, T: Element>(
    weights: impl Into<TensorRef<'a, T>>,
    gradient: impl Into<TensorMut<'a, T>>,
    ratio: f64,
    eps: f64,
) -> Result<usize> {
    let (weights, mut gradient) = (weights.into(), gradient.into());
    non_negative("ratio", ratio)?;
    positive("eps", eps)?;
    if weights.shape() != gradient.shape() {
        return Err(Error::shape("gradient", weights.shape(), gradient.shape()));
    }
    range("weights", weights.as_slice())?;
    range("gradient", gradient.as_slice())?;
    if weights.is_empty() {
        return Ok(0);
    }
    let units = if weights.shape().len() < 2 { 1 } else { weights.shape()[0] };
    let unit = weights.len() / units;
    let mut clipped = 0;
    for (w, g) in weights.as_slice().chunks_exact(unit).zip(gradient.as_mut_slice().chunks_exact_mut(unit)) {
        let (limit, norm) = (ratio * size(w, Norm::L2)?.max(eps), size(g, Norm::L2)?);
        if norm > limit {
            let factor: T::Real = narrow(limit / norm);
            map(g, move |g| g * factor);
            clipped += 1;
        }
    }
    Ok(clipped)
}

/// The norm of one gradient, or an error that names the first NaN or infinity.
fn size<T: Element>(values: &[T], norm: Norm) -> Result<f64> {
    let bad = |i: usize| Error::non_finite("gradient", i, values[i].to_f64());
    match norm {
        Norm::L2 => scan::norm(values).map_err(bad),
        Norm::Max => Ok(scan::largest_magnitude(scan::range(values).map_err(bad)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn small_gradients_stay_as_they_are() {
        let mut g = [0.3f64, -0.4];
        assert_eq!(clip_norm(&mut [(&mut g).into()], 0.6, Norm::L2).unwrap(), 0.5);
        assert_eq!(clip_norm(&mut [(&mut g).into()], 0.5, Norm::Max).unwrap(), 0.4);
        clip_value(&mut g, 0.4).unwrap();
        assert_eq!(clip_adaptive(&[1.0, 0.0], &mut g, 0.5, 1e-3).unwrap(), 0);
        assert_eq!(g, [0.3, -0.4]);
        assert_eq!(clip_norm::<f32>(&mut [], 1.0, Norm::L2).unwrap(), 0.0);
    }

    #[test]
    fn what_is_not_finite_is_named_and_nothing_moves() {
        let (mut a, mut b) = ([9f32; 2], [1.0, f32::INFINITY]);
        let error = clip_norm(&mut [(&mut a).into(), (&mut b).into()], 1.0, Norm::L2).unwrap_err();
        assert_eq!((error.kind(), error.tensor(), error.index()), (ErrorKind::NonFinite, Some("#1"), Some(1)));
        assert!(clip_value(&mut b, 1.0).is_err() && clip_adaptive(&a, &mut b, 0.1, 1e-3).is_err());
        assert!(clip_value(&mut a, -1.0).is_err() && clip_adaptive(&[1f32; 3], &mut a, 0.1, 1e-3).is_err());
        assert_eq!((a, b), ([9.0; 2], [1.0, f32::INFINITY]));
    }
}
