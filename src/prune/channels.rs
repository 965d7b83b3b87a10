//! By numbers that channels have.

use super::{check_scores, inner};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::TensorRef,
    traits::Criterion,
};

/// Elements matter as their channel does, by a number for each index of an axis: any that the caller has, those that
/// [`Activations`](super::Activations) measures, or the scale of a batch normalization behind the layer.
///
/// With [`Select::along`](super::Select::along) the same axis, channels go whole, the lowest numbers first.
///
/// ```
/// use lapidary::{PrunerExt, TensorRef, prune::{Channels, Select}};
/// let weights = [1.0f32; 6]; // 3 filters of 2 weights
/// let channels = Channels::batch_norm(0, &[0.9f32, -0.01, 0.3]);
/// let mask = Select::count(1).along(0).by(channels).mask(TensorRef::new(&weights, &[3, 2])?)?;
/// assert_eq!(mask.indices().collect::<Vec<_>>(), [0, 1, 4, 5]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Channels {
    axis: usize,
    scores: Vec<f64>,
}

impl Channels {
    /// Scores of the channels along an axis.
    #[must_use]
    pub fn new(axis: usize, scores: impl Into<Vec<f64>>) -> Self {
        Self { axis, scores: scores.into() }
    }

    /// The magnitudes of a batch normalization's scales, as network slimming has it (Liu et al. 2017,
    /// arXiv:1708.06519).
    #[must_use]
    pub fn batch_norm<T: Element>(axis: usize, scales: &[T]) -> Self {
        Self::new(axis, scales.iter().map(|scale| scale.to_f64().abs()).collect::<Vec<_>>())
    }
}

impl<T: Element> Criterion<T> for Channels {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        check_scores(values.len(), scores)?;
        let (shape, axis) = (values.shape(), self.axis);
        let Some(&channels) = shape.get(axis) else {
            return Err(Error::argument("axis", format!("{axis} of shape {shape:?}"), "one of the tensor's"));
        };
        if channels != self.scores.len() {
            return Err(Error::shape("scores of channels", &[channels], &[self.scores.len()]));
        }
        let inner = inner(shape, axis);
        for (run, score) in scores.chunks_exact_mut(inner.max(1)).zip(self.scores.iter().cycle()) {
            run.fill(*score);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn each_element_has_its_channels_number() {
        let values = [0f32; 24];
        for (axis, inner, length) in [(0, 12, 2), (1, 4, 3), (2, 1, 4)] {
            let channels = Channels::new(axis, (0..length).map(f64::from).collect::<Vec<_>>());
            let mut scores = [f64::NAN; 24];
            channels.score(TensorRef::new(&values, &[2, 3, 4]).unwrap(), &mut scores).unwrap();
            for (i, score) in scores.iter().enumerate() {
                assert_eq!(*score, (i / inner % length as usize) as f64);
            }
            let error = channels.score(TensorRef::new(&values, &[24]).unwrap(), &mut scores).unwrap_err();
            assert_eq!(error.kind(), if axis == 0 { ErrorKind::Shape } else { ErrorKind::Argument });
        }
        let empty = TensorRef::<f32>::new(&[], &[0, 3]).unwrap();
        Channels::new(1, [1.0, 2.0, 3.0]).score(empty, &mut []).unwrap();
    }
}
