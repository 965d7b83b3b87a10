//! Kept weights as they once were.

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{
        Mask, TensorMut, TensorRef,
        view::{Dims, filled},
    },
};

/// The values of a tensor early in training, to which what survives pruning is put back: lottery tickets (Frankle &
/// Carbin 2019, arXiv:1803.03635), and with values of some steps later than the first, rewinding (Frankle et al. 2020,
/// arXiv:1912.05671).
///
/// The optimizer's state is not of that time: begin anew with [`OptimizerExt::init`](crate::OptimizerExt::init).
///
/// ```
/// use lapidary::{Mask, Pruner, prune::{Magnitude, Rewind, SparsitySchedule}};
/// let mut weights = vec![0.4f32, -0.3, 0.2, -0.1];
/// let (early, mut mask) = (Rewind::new(&weights)?, Mask::keep_all(&[4])?);
/// let schedule = SparsitySchedule::iterative(0.75, 0, 1, 2)?;
/// for round in 0..2 {
///     weights.iter_mut().zip(1..).for_each(|(w, i)| *w *= (i * i) as f32); // training
///     if let Some(select) = schedule.at(round) {
///         select.by(Magnitude).refine((&weights).into(), &mut mask)?;
///     }
///     early.restore(&mask, &mut weights)?;
/// }
/// assert_eq!(weights, [0.0, 0.0, 0.2, 0.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Rewind<T> {
    dims: Dims,
    values: Vec<T>,
}

impl<T: Element> Rewind<T> {
    /// Remembers values.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold them again.
    pub fn new<'a>(values: impl Into<TensorRef<'a, T>>) -> Result<Self> {
        let values = values.into();
        let mut own = filled(values.len(), T::default())?;
        own.copy_from_slice(values.as_slice());
        Ok(Self { dims: values.shape().into(), values: own })
    }

    /// Sets the weights that a mask keeps to the values remembered, the others to 0. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; nothing has changed then.
    pub fn restore<'a>(&self, mask: &Mask, weights: impl Into<TensorMut<'a, T>>) -> Result<()> {
        let mut weights = weights.into();
        mask.check(&self.dims)?;
        if *weights.shape() != *self.dims {
            return Err(Error::shape("weights", &self.dims, weights.shape()));
        }
        weights.as_mut_slice().copy_from_slice(&self.values);
        mask.apply(weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn shapes_must_agree() {
        let early = Rewind::new(&[1f32, f32::NAN, 3.0]).unwrap();
        let (mask, mut weights) = (Mask::from_fn(&[3], |i| i != 1).unwrap(), [7f32; 3]);
        let error = early.restore(&Mask::keep_all(&[2]).unwrap(), &mut weights).unwrap_err();
        assert_eq!((error.kind(), weights), (ErrorKind::Shape, [7.0; 3]));
        let column = TensorMut::new(&mut weights, &[3, 1]).unwrap();
        assert_eq!(early.restore(&mask, column).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(early.restore(&mask, &mut [7f32; 2]).unwrap_err().kind(), ErrorKind::Shape);
        early.restore(&mask, &mut weights).unwrap();
        assert_eq!(weights, [1.0, 0.0, 3.0]);
    }
}
