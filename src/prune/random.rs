//! By chance.

use super::check_scores;
use crate::{
    config::config, element::Element, error::Result, kernel::random::Stream, tensor::TensorRef, traits::Criterion,
};

/// Elements matter by chance: what any other criterion has to beat, and the start of sparse training.
///
/// The number of element `i` is even in 0..1 and depends on the seed and `i` alone: the upper 53 bits of
/// `fmix64(fmix64(seed ^ fmix64(1)) + i)`, where `fmix64` is the finalizer of MurmurHash3. The generator is frozen.
/// Tensors that are pruned together want seeds of their own.
///
/// ```
/// use lapidary::{PrunerExt, prune::{Random, Select}};
/// let pruner = Select::sparsity(0.75)?.by(Random::new(1));
/// assert_eq!(pruner.mask(&[1.0f32; 100])?.kept(), 25);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }
}

config! {
    Random(seed: u64) => Self::new(seed),
}

impl<T: Element> Criterion<T> for Random {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        check_scores(values.len(), scores)?;
        let stream = Stream::new(self.seed, 0);
        scores.iter_mut().zip(0..).for_each(|(score, i)| *score = stream.number(i));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_frozen_and_even() {
        let values = vec![0f32; 100_000];
        let mut scores = vec![0.0; values.len()];
        Random::new(42).score((&values).into(), &mut scores).unwrap();
        let bits = |score: f64| (score * (1u64 << 53) as f64) as u64;
        assert_eq!([0, 1, 99_999].map(|i| bits(scores[i])), [1572233721007371, 5896806559681151, 5805881852788232]);
        let mut tenths = [0; 10];
        scores.iter().for_each(|score| tenths[(score * 10.0) as usize] += 1);
        assert!(tenths.iter().all(|count| (9_700..10_300).contains(count)), "{tenths:?}");
        // Neighbours do not follow one another.
        let rises = scores.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((49_300..50_700).contains(&rises), "{rises}");
        let mut other = vec![0.0; values.len()];
        Random::new(43).score((&values).into(), &mut other).unwrap();
        assert!(scores.iter().zip(&other).all(|(a, b)| a != b));
    }
}
