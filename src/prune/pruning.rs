//! A criterion and a selection, joined.

use super::select::{Scores, Select};
use crate::{
    config::config,
    element::Element,
    error::Result,
    tensor::{Mask, TensorRef, view::filled},
    traits::{Criterion, Pruner},
};
use std::slice;

/// A pruner that [selects](Select) by the scores of a [criterion](Criterion): what [`Select::by`] makes.
///
/// ```
/// use lapidary::{Pruner, PrunerExt, prune::{Random, Select}};
/// let weights = vec![1.0f32; 100];
/// let pruner = Select::sparsity(0.1)?.by(Random::new(7));
/// let mut mask = pruner.mask(&weights)?;
/// pruner.refine((&weights).into(), &mut mask)?; // a tenth of the rest
/// assert_eq!(mask.kept(), 81);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pruning<C> {
    criterion: C,
    select: Select,
}

impl<C> Pruning<C> {
    pub(super) fn new(criterion: C, select: Select) -> Self {
        Self { criterion, select }
    }

    /// What matters.
    #[must_use]
    pub fn criterion(&self) -> &C {
        &self.criterion
    }

    /// What survives.
    #[must_use]
    pub fn select(&self) -> Select {
        self.select
    }
}

config! {
    Pruning<C>(criterion: C, select: Select) => Self::new(criterion, select),
}

impl<T: Element, C: Criterion<T>> Pruner<T> for Pruning<C> {
    fn refine(&self, values: TensorRef<'_, T>, mask: &mut Mask) -> Result<()> {
        mask.check(values.shape())?;
        let masks = slice::from_mut(mask);
        if self.criterion.is_magnitude() {
            return self.select.refine(&[Scores::magnitude(values.as_slice())], masks);
        }
        let mut scores = filled(values.len(), 0.0)?;
        self.criterion.score(values, &mut scores)?;
        self.select.refine(&[Scores::new(&scores)], masks)
    }
}
