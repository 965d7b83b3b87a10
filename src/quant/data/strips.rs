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
            scheme.fit(TensorRef::new(&values, &shape)?, &mut fitted)?;
            let cols = self.tensor.shape().last().copied().unwrap_or(1);
            let (groups, group) = (cols.div_ceil(size), turn.range.start / size);
            let places = (0..turn.rows).map(|row| (row, row * groups + group));
            copy_levels::<R>(fitted.grid(), self.tensor.parts_mut().1, places);
        }
        Ok(ToLevels { nearest: self.scheme.nearest(self.tensor), layout: self.tensor.layout() })
    }
}
