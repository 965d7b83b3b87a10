//! The levels that GPTQ rounds to, turn by turn.

use super::scheme::{Scheme, copy_levels};
use crate::{
    element::Real,
    error::Result,
    kernel::sweep::{ToLevels, limited},
    linalg::{BLOCK, Turn, Turns},
    tensor::{QTensor, TensorRef, view::filled},
    traits::Quantizer,
};
use std::marker::PhantomData;

/// The levels of a tensor.
pub(super) struct Levels<'a, R> {
    pub(super) scheme: Scheme,
    pub(super) tensor: &'a mut QTensor,
    /// So many columns are a group, whose levels are fitted when its turn comes. The order is then that of the columns.
    pub(super) fitted: Option<usize>,
    pub(super) of: PhantomData<R>,
}

impl<R: Real> Turns for Levels<'_, R> {
    type Rounding<'a>
        = ToLevels<'a, R>
    where
        Self: 'a;

    fn width(&self) -> usize {
        self.fitted.unwrap_or(BLOCK)
    }

    fn begin(&mut self, turn: Turn<'_>) -> Result<ToLevels<'_, R>> {
        if let Some(size) = self.fitted {
            let shape = [turn.rows, turn.range.len()];
            let mut values = filled(shape[0] * shape[1], R::zero())?;
            values.iter_mut().zip(turn.each_row().flatten()).for_each(|(value, w)| *value = limited(w));
            let scheme = self.scheme.per_row();
            let mut fitted = Quantizer::<R>::layout(&scheme, &shape)?;
            fit_limited(&scheme, &mut values, &mut fitted)?;
            let cols = self.tensor.shape().last().copied().unwrap_or(1);
            let (groups, group) = (cols.div_ceil(size), turn.range.start / size);
            let places = (0..turn.rows).map(|row| (row, row * groups + group));
            copy_levels::<R>(fitted.grid(), self.tensor.parts_mut().1, places);
        }
        Ok(ToLevels { nearest: self.scheme.nearest(self.tensor), layout: self.tensor.layout() })
    }
}

/// Fits levels to rows; one whose step would be infinite counts as limited to half the largest number. One step from the one largest number
/// to the other is none itself; from half of it to half of the other it is.
fn fit_limited<R: Real>(scheme: &Scheme, values: &mut [R], q: &mut QTensor) -> Result<()> {
    let shape = [q.shape()[0], q.shape()[1]];
    if scheme.fit(TensorRef::new(values, &shape)?, q).is_ok() {
        return Ok(());
    }
    let half = R::LARGEST / 2.0;
    let mut alone = Quantizer::<R>::layout(scheme, &[1, shape[1]])?;
    for row in values.chunks_exact_mut(shape[1]) {
        if scheme.fit(TensorRef::new(row, &[1, shape[1]])?, &mut alone).is_err() {
            row.iter_mut().for_each(|x| *x = R::from_f64(x.to_f64().clamp(-half, half)));
        }
    }
    scheme.fit(TensorRef::new(values, &shape)?, q)
}
