//! By a weight's size and that of its input.

use super::check_scores;
use crate::{
    element::Element,
    error::{Error, Result},
    linalg::Calibration,
    tensor::TensorRef,
    traits::Criterion,
};

/// Wanda (Sun et al. 2024, arXiv:2306.11695): `|w[i][j]| * ‖x[j]‖`, with the L2 norm of an input over the samples of a
/// [`Calibration`], for weights of shape `[.., inputs]`. The paper compares within each output, which
/// [`Select::per_row`](super::Select::per_row) does, or takes 2 of 4.
///
/// ```
/// use lapidary::{Calibration, PrunerExt, TensorRef, prune::{Select, Wanda}};
/// let mut calibration = Calibration::without_hessian(2)?;
/// calibration.add(TensorRef::new(&[0.1f32, 3.0, 0.2, -4.0], &[2, 2])?)?;
/// let weights = [1.0f32, 0.5, -2.0, 0.01];
/// let wanda = Wanda::new(&calibration)?;
/// let mask = Select::sparsity(0.5)?.per_row().by(wanda).mask(TensorRef::new(&weights, &[2, 2])?)?;
/// assert_eq!(mask.indices().collect::<Vec<_>>(), [1, 2]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Wanda {
    norms: Vec<f64>,
}

impl Wanda {
    /// By the inputs that a calibration has seen.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) when it has no sample.
    pub fn new(calibration: &Calibration) -> Result<Self> {
        calibration.check(calibration.inputs())?;
        Ok(Self { norms: calibration.norms() })
    }
}

impl<T: Element> Criterion<T> for Wanda {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        check_scores(values.len(), scores)?;
        let inputs = self.norms.len();
        match values.shape().last() {
            Some(&last) if last == inputs => {}
            last => return Err(Error::shape("inputs", &[inputs], &[last.copied().unwrap_or(1)])),
        }
        for (scores, row) in scores.chunks_exact_mut(inputs).zip(values.as_slice().chunks_exact(inputs)) {
            for ((score, w), norm) in scores.iter_mut().zip(row).zip(&self.norms) {
                *score = w.to_f64().abs() * norm;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn is_the_size_times_the_norm_of_the_input() {
        let x: Vec<f32> = (0..12).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
        let w: Vec<f32> = (0..6).map(|i| (i * 5 % 7) as f32 - 3.0).collect();
        for mut calibration in [Calibration::new(3).unwrap(), Calibration::without_hessian(3).unwrap()] {
            assert_eq!(Wanda::new(&calibration).unwrap_err().kind(), ErrorKind::Empty);
            for batch in x.chunks(6) {
                calibration.add(TensorRef::new(batch, &[2, 3]).unwrap()).unwrap();
            }
            let mut scores = [0.0; 6];
            let wanda = Wanda::new(&calibration).unwrap();
            wanda.score(TensorRef::new(&w, &[2, 3]).unwrap(), &mut scores).unwrap();
            for (i, score) in scores.iter().enumerate() {
                let norm = x.iter().skip(i % 3).step_by(3).map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                assert_eq!(*score, f64::from(w[i]).abs() * norm);
            }
            let error = wanda.score(TensorRef::new(&w, &[3, 2]).unwrap(), &mut scores).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Shape);
        }
    }
}
