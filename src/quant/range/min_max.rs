//! The smallest and the largest value of all batches.

use super::{Range, nothing_seen, of_batch};
use crate::{element::Element, error::Result, tensor::TensorRef};

/// Keeps the smallest and the largest value seen, exactly. The order of batches does not matter, nor how they are
/// spread over observers that are merged.
///
/// ```
/// use lapidary::quant::{Affine, MinMaxObserver};
/// let mut observer = MinMaxObserver::new();
/// observer.observe(&[0.5f32, -0.25])?;
/// observer.observe(&[2.0f32])?;
/// let range = observer.range()?;
/// assert_eq!((range.min(), range.max()), (-0.25, 2.0));
/// let grid = Affine::new(8)?.grid::<f32>(&[range])?;
/// # let _ = grid;
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MinMaxObserver {
    seen: Option<Range>,
}

impl MinMaxObserver {
    /// An observer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a batch of any shape; an empty one is nothing. Does not allocate.
    ///
    /// # Errors
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinity. The observer is then as it was.
    pub fn observe<'a, T: Element>(&mut self, batch: impl Into<TensorRef<'a, T>>) -> Result<()> {
        if let Some(range) = of_batch(&batch.into())? {
            self.add(range);
        }
        Ok(())
    }

    /// Takes in all that another one has seen.
    pub fn merge(&mut self, other: &Self) {
        if let Some(range) = other.seen {
            self.add(range);
        }
    }

    fn add(&mut self, range: Range) {
        self.seen = Some(self.seen.map_or(range, |seen| seen.join(range)));
    }

    /// From the smallest to the largest value seen.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) when there was none.
    pub fn range(&self) -> Result<Range> {
        self.seen.ok_or_else(nothing_seen)
    }
}
