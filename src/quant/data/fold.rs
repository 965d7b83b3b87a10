//! Moving factors from a layer's weights to what comes before it.

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{TensorMut, TensorRef},
};

/// Divides the outputs of a layer: each index along the first axis of `tensor` by its scale. `tensor` is the weight of
/// a layer (`[outputs, ..]`), its bias, or the gain or shift of a norm; all of a layer's have to be divided.
///
/// That makes up for inputs multiplied in the layer that follows ([`multiply_inputs`]) where what lies between does not
/// care for a positive factor: nothing, ReLU, leaky ReLU, max-pooling; not GELU, SiLU, tanh.
///
/// Quotients are in `f64`, narrowed once.
///
/// # Errors
/// [`Shape`](crate::ErrorKind::Shape) unless there is a scale for each index;
/// [`Argument`](crate::ErrorKind::Argument) for a scale that is not finite and above 0;
/// [`NonFinite`](crate::ErrorKind::NonFinite) where a result would not be finite. Nothing has changed then.
pub fn divide_outputs<'a, T: Element>(tensor: impl Into<TensorMut<'a, T>>, scales: &[T::Real]) -> Result<()> {
    let mut tensor = tensor.into();
    check(&TensorRef::from(&tensor), tensor.shape().first(), scales)?;
    let run = (tensor.len() / scales.len()).max(1);
    change(tensor.as_mut_slice(), |i, x| x / scales[i / run].to_f64())
}

/// Multiplies the inputs of a layer: each index along the last axis of `weight`, of shape `[outputs, inputs]`, by its
/// scale.
///
/// With the outputs before it [divided](divide_outputs) by the same, the layer computes what it did, but for roundings:
///
/// ```
/// use lapidary::{TensorMut, quant::{divide_outputs, multiply_inputs}};
/// let (mut bias, mut weight) = ([3.0f32, -5.0], [0.5f32, 0.25]); // y = 0.5 * 3 - 0.25 * 5
/// divide_outputs(&mut bias, &[2.0, 10.0])?;
/// multiply_inputs(TensorMut::new(&mut weight, &[1, 2])?, &[2.0, 10.0])?;
/// assert_eq!((bias, weight), ([1.5, -0.5], [1.0, 2.5]));
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// As [`divide_outputs`].
pub fn multiply_inputs<'a, T: Element>(weight: impl Into<TensorMut<'a, T>>, scales: &[T::Real]) -> Result<()> {
    let mut weight = weight.into();
    check(&TensorRef::from(&weight), weight.shape().last(), scales)?;
    change(weight.as_mut_slice(), |i, x| x * scales[i % scales.len()].to_f64())
}

fn check<T: Element>(tensor: &TensorRef<'_, T>, axis: Option<&usize>, scales: &[T::Real]) -> Result<()> {
    if axis != Some(&scales.len()) {
        return Err(Error::shape("scales", &[axis.copied().unwrap_or(0)], &[scales.len()]));
    }
    if tensor.is_empty() {
        return Err(Error::empty("tensor to scale"));
    }
    match scales.iter().position(|scale| !(scale.to_f64() > 0.0 && scale.finite())) {
        Some(i) => Err(Error::argument("scale", format!("{} at index {i}", scales[i]), "finite and above 0")),
        None => Ok(()),
    }
}

/// Changes all elements, or none where one would be NaN or infinite.
fn change<T: Element>(values: &mut [T], to: impl Fn(usize, f64) -> f64) -> Result<()> {
    let scaled = |i: usize, x: T| T::from_f64(to(i, x.to_f64()));
    if let Some(i) = values.iter().enumerate().position(|(i, &x)| !scaled(i, x).finite()) {
        return Err(Error::non_finite("scaled tensor", i, scaled(i, values[i]).to_f64()));
    }
    values.iter_mut().enumerate().for_each(|(i, x)| *x = scaled(i, *x));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn each_index_has_its_scale() {
        let mut weight = [8.0f64, 6.0, 4.0, 2.0, 1.0, 0.0];
        divide_outputs(TensorMut::new(&mut weight, &[2, 3]).unwrap(), &[2.0, 4.0]).unwrap();
        assert_eq!(weight, [4.0, 3.0, 2.0, 0.5, 0.25, 0.0]);
        multiply_inputs(TensorMut::new(&mut weight, &[2, 3]).unwrap(), &[1.0, 2.0, 4.0]).unwrap();
        assert_eq!(weight, [4.0, 6.0, 8.0, 0.5, 0.5, 0.0]);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut w = [1.0f32, 3e38];
        for scales in [&[1.0f32][..], &[1.0, 0.0], &[1.0, -1.0], &[1.0, f32::NAN], &[f32::INFINITY, 1.0], &[1.0, 2.0]] {
            assert!(multiply_inputs(&mut w, scales).is_err(), "{scales:?}");
        }
        let error = divide_outputs(&mut w, &[1.0, 0.5]).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        assert!(divide_outputs(&mut [0f32; 0], &[]).is_err());
        assert_eq!(w, [1.0, 3e38]);
    }
}
