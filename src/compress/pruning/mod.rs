//! Weights that become zero: how many, and which.

mod blocks;
mod threshold;
mod zeros;

pub(super) use zeros::Zeros;

use super::{
    run::{Watched, each},
    source::Source,
};
use crate::{
    config::config,
    error::{Error, Result},
    kernel::{scan::first_non_finite, select::Order},
    tensor::{Mask, TensorRef, view::filled},
    traits::Criterion,
};
use std::sync::Arc;
use threshold::{Threshold, thresholds};

/// Which weights of a model become zero, and how they are kept then.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `amount` | – | [`sparsity(share)`](Self::sparsity), [`n_of_m(n, m)`](Self::n_of_m) | how many go |
/// | [`by`](Self::by) | the magnitude | any [`Criterion`] that needs no data | what goes first: the lowest scores |
/// | [`globally`](Self::globally) | each tensor by itself | | the share is one of all tensors together |
/// | [`sparse_initializers`](Self::sparse_initializers) | dense | | only what is left is listed in an ONNX model, where that is smaller |
///
/// `round(share * n)` of `n` weights go, half to even, those that are zero already among them. Of equal scores the lower index stays;
/// across tensors the earlier one. Scores are those of weights as `f32`. Magnitudes are compared in passes over the file, with 1 MiB of
/// memory a thread; `n` of `m` takes a bit for each weight of the tensors that are worked on; another criterion has the numbers of one
/// tensor a thread in memory, and their scores: 12 bytes a weight.
///
/// ```
/// use lapidary::compress::{Pruning, Recipe};
/// use lapidary::prune::Random;
/// let half = Recipe::new().with_pruning(Pruning::sparsity(0.5)?.globally()).with_bits(8)?;
/// let two_of_four = Recipe::new().with_pruning(Pruning::n_of_m(2, 4)?);
/// let baseline = Recipe::new().with_pruning(Pruning::sparsity(0.9)?.by(Random::new(1)).sparse_initializers());
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Pruning {
    amount: Amount,
    /// `None`: the magnitude.
    criterion: Option<Arc<dyn Criterion<f32>>>,
    global: bool,
    pub(super) sparse: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
enum Amount {
    Sparsity(f64),
    NOfM { keep: usize, of: usize },
}

impl PartialEq for Pruning {
    /// A criterion is the same as itself alone.
    fn eq(&self, other: &Self) -> bool {
        let criteria = match (&self.criterion, &other.criterion) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        criteria && (self.amount, self.global, self.sparse) == (other.amount, other.global, other.sparse)
    }
}

impl Pruning {
    fn new(amount: Amount) -> Self {
        Self { amount, criterion: None, global: false, sparse: false }
    }

    /// A share of the weights becomes zero.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0..=1.
    pub fn sparsity(share: f64) -> Result<Self> {
        match (0.0..=1.0).contains(&share) {
            true => Ok(Self::new(Amount::Sparsity(share))),
            false => Err(Error::argument("sparsity", share, "from 0 to 1")),
        }
    }

    /// `keep` of each `of` neighbours along the axis that sums go over stay: the inputs of a layer. A last shorter block keeps
    /// `ceil(keep * length / of)`.
    ///
    /// Where an ONNX model is written, the operator tells the axis. Of files of tensors it is the last of a matrix and the second of a
    /// convolution's kernel (three axes and more), as PyTorch has them; the last but one where the file is Keras', and the last where it
    /// is TensorFlow Lite's.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless `keep` is from 1 to `of`.
    pub fn n_of_m(keep: usize, of: usize) -> Result<Self> {
        match (1..=of).contains(&keep) {
            true => Ok(Self::new(Amount::NOfM { keep, of })),
            false => Err(Error::argument("n of m", format!("{keep} of {of}"), "at least 1, and no more than all")),
        }
    }

    /// The lowest scores of this criterion go. Scores must not be NaN.
    pub fn by(self, criterion: impl Criterion<f32> + 'static) -> Self {
        let criterion: Arc<dyn Criterion<f32>> = Arc::new(criterion);
        Self { criterion: Some(criterion).filter(|criterion| !criterion.is_magnitude()), ..self }
    }

    /// The share is one of all weights of the model together; does not matter to `n` of `m`.
    pub fn globally(self) -> Self {
        Self { global: true, ..self }
    }

    /// In an ONNX model, a tensor that is smaller so becomes a sparse initializer: the weights that are not zero, and their indices of 8
    /// bytes each. Of `f32` that is smaller from two thirds of zeros on. Exact, but no faster: ONNX Runtime makes it dense when it loads
    /// the model. ONNX's checker takes it, but not its strict type inference (`full_check`), as operators are declared for dense weights
    /// alone. Models with weights in other files have none, as the checker does not read sparse ones there.
    pub fn sparse_initializers(self) -> Self {
        Self { sparse: true, ..self }
    }

    /// How often the weights are read to select from them.
    pub(super) fn passes(&self) -> u64 {
        match (self.amount, &self.criterion) {
            (Amount::NOfM { .. }, _) => 0,
            (_, None) => threshold::MAGNITUDE_PASSES,
            (_, Some(_)) => threshold::SCORE_PASSES,
        }
    }

    /// What is to go of each of the weights.
    pub(super) fn select(&self, weights: &Weights<'_>, watched: &Watched<'_>) -> Result<Vec<Selected>> {
        let all: Vec<usize> = (0..weights.list.len()).collect();
        let Amount::Sparsity(share) = self.amount else { return Ok(vec![Selected::Blocks; all.len()]) };
        let select = |group: &[usize]| thresholds(self, share, group, weights, watched);
        let found = match self.global {
            true => select(&all)?,
            false => each(&all, |&one| select(&[one]))?.concat(),
        };
        Ok(found.into_iter().map(Selected::Below).collect())
    }

    /// The zeros of a weight.
    pub(super) fn zeros(&self, source: &Source, axis: usize, selected: &Selected) -> Result<Zeros> {
        Ok(match (selected, self.amount, &self.criterion) {
            (Selected::Below(threshold), _, None) => Zeros::below(*threshold),
            (Selected::Below(threshold), _, Some(criterion)) => {
                let scores = scores(&**criterion, source)?;
                let keep = |i: usize| scores.get(i).is_some_and(|&score| threshold.keeps(i, key(score)));
                Zeros::Mask(Arc::new(Mask::from_fn(&source.shape, keep)?))
            }
            (Selected::Blocks, Amount::NOfM { keep, of }, criterion) => {
                Zeros::Mask(Arc::new(blocks::mask(source, axis, keep, of, criterion.as_deref())?))
            }
            (Selected::Blocks, Amount::Sparsity(_), _) => Zeros::below(Threshold::NOTHING),
        })
    }
}

config! {
    Pruning(amount: Amount) => match amount {
        Amount::Sparsity(share) => Self::sparsity(share),
        Amount::NOfM { keep, of } => Self::n_of_m(keep, of),
    },
    globally: bool = |it| it.global => |it, _| it.globally(),
    sparse_initializers: bool = |it| it.sparse => |it, _| it.sparse_initializers(),
    ; check: |it| match &it.criterion {
        None => Ok(()),
        Some(criterion) => Err(Error::argument("criterion", format!("{criterion:?}"), "magnitude, to be written")),
    }
}

/// What is known of the zeros of a weight before it is worked on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Selected {
    /// What scores lower.
    Below(Threshold),
    /// What blocks do not keep.
    Blocks,
}

/// A weight that may become something else.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    pub(super) name: String,
    /// Of the file.
    pub(super) bytes: u64,
    /// That sums go over.
    pub(super) axis: usize,
}

/// The weights of a model, and how to read them.
pub(super) struct Weights<'a> {
    pub(super) list: &'a [Weight],
    pub(super) source: &'a (dyn Fn(usize) -> Result<Source> + Sync),
}

impl Weights<'_> {
    /// Adds the name of one to an error about it.
    fn named<R>(&self, index: usize, result: Result<R>) -> Result<R> {
        let name = self.list.get(index).map_or("", |weight| &weight.name);
        result.map_err(|error| error.in_tensor(name))
    }
}

/// An integer that orders as scores do.
fn key(score: f64) -> u64 {
    Order::Number.bits(score)
}

/// The scores of a tensor, which is in memory as a whole.
fn scores(criterion: &dyn Criterion<f32>, source: &Source) -> Result<Vec<f64>> {
    let values = source.all()?;
    if let Some(index) = first_non_finite(&values) {
        return Err(Error::non_finite("tensor", index, values.get(index).copied().unwrap_or(f32::NAN).into()));
    }
    let mut scores = filled(values.len(), 0.0)?;
    criterion.score(TensorRef::new(&values, &source.shape)?, &mut scores)?;
    match scores.iter().position(|score| score.is_nan()) {
        Some(index) => Err(Error::non_finite("score", index, f64::NAN)),
        None => Ok(scores),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::{Magnitude, Random};

    #[test]
    fn what_is_no_share_is_refused() {
        assert!(Pruning::sparsity(1.1).is_err() && Pruning::sparsity(f64::NAN).is_err());
        assert!(Pruning::n_of_m(0, 4).is_err() && Pruning::n_of_m(5, 4).is_err() && Pruning::n_of_m(0, 0).is_err());
    }

    #[test]
    fn recipes_of_pruning_compare() {
        let half = Pruning::sparsity(0.5).unwrap();
        assert_eq!(half.clone().by(Magnitude), half);
        let random = half.clone().by(Random::new(1));
        assert!(random == random.clone() && random != half && half.clone().globally() != half);
    }
}
