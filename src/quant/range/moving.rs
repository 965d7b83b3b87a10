//! Moving averages of the smallest and the largest value of a batch.

use super::{Range, nothing_seen, of_batch};
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    tensor::TensorRef,
};

/// Keeps moving averages of the ends of batches, so that single outliers count for little.
///
/// ```text
/// min = min of the batch, max = max of the batch          for the first
/// min += c * (min of the batch - min)                     for each after it
/// max += c * (max of the batch - max)
/// ```
///
/// in `f64`; PyTorch's `MovingAverageMinMaxObserver`, in `f32` there. By its nature it depends on the order of batches,
/// so there is no merging.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `averaging_constant` | 0.01 | above 0, up to 1 | `c`, the weight of a batch |
///
/// ```
/// use lapidary::quant::MovingAverageObserver;
/// let mut observer = MovingAverageObserver::new().with_averaging_constant(0.25)?;
/// observer.observe(&[-1.0f32, 1.0])?;
/// observer.observe(&[0.0f32, 5.0])?;
/// let range = observer.range()?;
/// assert_eq!((range.min(), range.max()), (-0.75, 2.0));
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MovingAverageObserver {
    constant: f64,
    seen: Option<Range>,
}

impl Default for MovingAverageObserver {
    fn default() -> Self {
        Self { constant: 0.01, seen: None }
    }
}

impl MovingAverageObserver {
    /// An observer that has seen nothing, with `c` = 0.01.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another weight of a batch.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not above 0 and at most 1.
    pub fn with_averaging_constant(self, c: f64) -> Result<Self> {
        match c > 0.0 && c <= 1.0 {
            true => Ok(Self { constant: c, ..self }),
            false => Err(Error::argument("averaging constant", c, "above 0 and at most 1")),
        }
    }

    /// Takes in a batch of any shape; an empty one is nothing. Does not allocate.
    ///
    /// # Errors
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinity. The observer is then as it was.
    pub fn observe<'a, T: Element>(&mut self, batch: impl Into<TensorRef<'a, T>>) -> Result<()> {
        let Some(batch) = of_batch(&batch.into())? else { return Ok(()) };
        self.seen = Some(self.seen.map_or(batch, |seen| {
            let min = toward(seen.min, batch.min, self.constant);
            // Rounding alone could take the upper end below the lower one.
            Range { min, max: toward(seen.max, batch.max, self.constant).max(min) }
        }));
        Ok(())
    }

    /// From the average of the smallest to that of the largest values.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) when there was none.
    pub fn range(&self) -> Result<Range> {
        self.seen.ok_or_else(nothing_seen)
    }
}

config! {
    MovingAverageObserver() => Self::new(),
    averaging_constant: f64 = |it| it.constant => Self::with_averaging_constant,
}

/// A share `c` of the way from `from` to `to`.
fn toward(from: f64, to: f64, c: f64) -> f64 {
    let way = to - from;
    // Where the way overflows, the signs differ: this sum does not.
    if way.is_finite() { from + c * way } else { (1.0 - c) * from + c * to }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn follows_the_formula_and_refuses_without_moving() {
        let mut observer = MovingAverageObserver::new();
        assert_eq!(observer.range().unwrap_err().kind(), ErrorKind::Empty);
        let (mut min, mut max) = (0.0, 0.0);
        for step in 0..50 {
            let batch: Vec<f64> = (0..10).map(|i| f64::from(i * 7 % 11 - step % 5)).collect();
            let low = batch.iter().copied().fold(f64::INFINITY, f64::min);
            let high = batch.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (min, max) = if step == 0 { (low, high) } else { (min + 0.01 * (low - min), max + 0.01 * (high - max)) };
            observer.observe(&batch).unwrap();
            observer.observe(&[0f32; 0]).unwrap();
            assert_eq!(observer.range().unwrap(), Range { min, max });
        }
        let before = observer;
        assert_eq!(observer.observe(&[1.0, f32::NAN]).unwrap_err().index(), Some(1));
        assert_eq!(observer, before);
        for c in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(MovingAverageObserver::new().with_averaging_constant(c).is_err(), "{c}");
        }
    }

    #[test]
    fn huge_ways_do_not_overflow() {
        let mut observer = MovingAverageObserver::new().with_averaging_constant(0.5).unwrap();
        observer.observe(&[f64::MIN, f64::MIN]).unwrap();
        observer.observe(&[f64::MAX, f64::MAX]).unwrap();
        assert_eq!(observer.range().unwrap(), Range { min: 0.0, max: 0.0 });
    }
}
