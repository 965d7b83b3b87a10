//! How far a layer's outputs move when its weights are replaced.

use super::{Calibration, calibration::Moment};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::scan::{largest_magnitude, scale_to_one},
    tensor::{TensorRef, qtensor::range, view::filled},
};

/// The weights of a layer, and the outputs they have for the samples of a calibration.
pub(crate) struct Outputs<'a> {
    moment: Moment<'a>,
    /// Widened, times `scale`.
    weight: Vec<f64>,
    /// A power of two, against overflow.
    scale: f64,
    /// `‖W X‖²`, likewise times `scale²`.
    total: f64,
}

impl<'a> Outputs<'a> {
    /// An error unless the weights are finite and have two axes, outputs and inputs, and there are samples of as many
    /// inputs.
    pub(crate) fn new<T: Element>(weight: &TensorRef<'_, T>, calibration: &'a Calibration) -> Result<Self> {
        let [outputs, inputs] = *weight.shape() else {
            return Err(Error::argument("weights", format!("of shape {:?}", weight.shape()), "of two axes"));
        };
        if outputs == 0 || inputs == 0 {
            return Err(Error::empty("weights"));
        }
        calibration.check(inputs)?;
        let moment = calibration.moment()?;
        let values = weight.as_slice();
        let weights = scale_to_one(largest_magnitude(range("weights", values)?));
        let inputs = scale_to_one(moment.diagonal().fold(0.0, f64::max).sqrt());
        // Both are brought near 1 where either could overflow; else both factors are 1.
        let scale = (weights * inputs).clamp(f64::MIN_POSITIVE, 0.25 / f64::MIN_POSITIVE);
        let mut wide = filled(values.len(), 0.0)?;
        wide.iter_mut().zip(values).for_each(|(wide, w)| *wide = w.to_f64() * scale);
        let total = moment.squares(&wide)?.iter().sum();
        Ok(Self { moment, weight: wide, scale, total })
    }

    /// `‖(w - w') X‖²` of each row, relative to `‖W X‖²`: they sum up to the error of all. `value` gives the weight at
    /// an index.
    pub(crate) fn errors(&self, value: impl Fn(usize) -> f64) -> Result<Vec<f64>> {
        let mut difference = filled(self.weight.len(), 0.0)?;
        for (i, (difference, w)) in difference.iter_mut().zip(&self.weight).enumerate() {
            *difference = w - value(i) * self.scale;
        }
        let mut errors = self.moment.squares(&difference)?;
        errors.iter_mut().for_each(|error| *error = self.relative(*error));
        Ok(errors)
    }

    /// 0 where there is no error, whatever the outputs are.
    fn relative(&self, error: f64) -> f64 {
        // A form of a positive matrix can come out below 0 by a rounding.
        let error = error.max(0.0);
        if error == 0.0 { 0.0 } else { error / self.total }
    }
}

impl Calibration {
    /// How far the outputs move when `replaced` takes the place of `weight`, both of shape `[outputs, inputs]`:
    /// `‖(W - W') X‖² / ‖W X‖²` over the samples that were added, from `H`. 0 where nothing moves, infinite where all
    /// outputs were 0 and some no longer are.
    ///
    /// ```
    /// use lapidary::{Calibration, TensorRef};
    /// let mut calibration = Calibration::new(2)?;
    /// calibration.add(&[3.0f32, 4.0])?;
    /// let (weight, replaced) = ([1.0f32, 2.0], [1.0f32, 1.0]);
    /// let (weight, replaced) = (TensorRef::new(&weight, &[1, 2])?, TensorRef::new(&replaced, &[1, 2])?);
    /// assert_eq!(calibration.output_error(weight, replaced)?, (4.0 / 11.0) * (4.0 / 11.0));
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the weights have two axes, and when there is no `H`;
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ, or are not of as many inputs;
    /// [`Empty`](crate::ErrorKind::Empty) where no sample was added;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity.
    pub fn output_error<'a, 'b, T: Element>(
        &self,
        weight: impl Into<TensorRef<'a, T>>,
        replaced: impl Into<TensorRef<'b, T>>,
    ) -> Result<f64> {
        let (weight, replaced) = (weight.into(), replaced.into());
        let outputs = Outputs::new(&weight, self)?;
        if weight.shape() != replaced.shape() {
            return Err(Error::shape("replaced weights", weight.shape(), replaced.shape()));
        }
        range("replaced weights", replaced.as_slice())?;
        Ok(outputs.errors(|i| replaced.as_slice()[i].to_f64())?.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn is_the_error_of_the_products_at_any_size() {
        let x: Vec<f64> = (0..30).map(|i| f64::from(i * 17 % 23) - 9.0).collect();
        let w: Vec<f64> = (0..15).map(|i| f64::from(i * 11 % 19) - 8.0).collect();
        let replaced: Vec<f64> = w.iter().map(|w| w.round() + 0.25).collect();
        let product = |w: &dyn Fn(usize) -> f64| -> f64 {
            (0..3)
                .flat_map(|row| x.chunks(5).map(move |x| (row, x)))
                .map(|(row, x)| (0..5).map(|j| w(row * 5 + j) * x[j]).sum::<f64>().powi(2))
                .sum()
        };
        let want = product(&|i| w[i] - replaced[i]) / product(&|i| w[i]);
        for (w_scale, x_scale) in [(1.0, 1.0), (1e300, 1e-150), (1e-300, 1e150), (1e200, 1e120), (1e-200, 1e-140)] {
            let times = |v: &[f64], scale: f64| v.iter().map(|v| v * scale).collect::<Vec<_>>();
            let (w, replaced, x) = (times(&w, w_scale), times(&replaced, w_scale), times(&x, x_scale));
            let mut calibration = Calibration::new(5).unwrap();
            calibration.add(TensorRef::new(&x, &[6, 5]).unwrap()).unwrap();
            let weight = TensorRef::new(&w, &[3, 5]).unwrap();
            let got = calibration.output_error(&weight, TensorRef::new(&replaced, &[3, 5]).unwrap()).unwrap();
            assert!((got - want).abs() < 1e-9 * want, "{w_scale:e} {x_scale:e}: {got} {want}");
            assert_eq!(calibration.output_error(&weight, &weight).unwrap(), 0.0);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut c = Calibration::new(2).unwrap();
        let w = TensorRef::new(&[1.0f32, 2.0], &[1, 2]).unwrap();
        assert_eq!(c.output_error(&w, &w).unwrap_err().kind(), ErrorKind::Empty);
        c.add(&[1.0f32, 0.0]).unwrap();
        assert_eq!(c.output_error(&[1.0f32, 2.0], &w).unwrap_err().kind(), ErrorKind::Argument);
        assert_eq!(
            c.output_error(&w, TensorRef::new(&[1.0, f32::NAN], &[1, 2]).unwrap()).unwrap_err().index(),
            Some(1)
        );
        assert_eq!(
            c.output_error(&w, TensorRef::new(&[1.0f32; 4], &[2, 2]).unwrap()).unwrap_err().kind(),
            ErrorKind::Shape
        );
        let mut light = Calibration::without_hessian(2).unwrap();
        light.add(&[1.0f32, 0.0]).unwrap();
        assert_eq!(light.output_error(&w, &w).unwrap_err().kind(), ErrorKind::Argument);
    }
}
