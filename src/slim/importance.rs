//! How much each channel of each group matters.

use super::topology::{Role, Topology};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::scan::scale_to_one,
    tensor::{TensorRef, qtensor::check_finite},
};

/// A score for each channel of each group of a topology. Each group's are divided by their mean, so
/// that 1 is a channel of average importance, whatever the layer.
///
/// [`Importance::of`] takes them from the weights; [`Importance::new`] takes any others.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    scores: Vec<Vec<f64>>,
}

impl Importance {
    /// From scores at least 0, a list a group, in the order of [`Topology::groups`].
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the lists are not as long as the groups,
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite score,
    /// [`Argument`](crate::ErrorKind::Argument) for one below 0.
    pub fn new(topology: &Topology, mut scores: Vec<Vec<f64>>) -> Result<Self> {
        let sizes: Vec<_> = topology.groups().iter().map(|group| group.size).collect();
        let lengths: Vec<_> = scores.iter().map(Vec::len).collect();
        if sizes != lengths {
            return Err(Error::shape("scores", &sizes, &lengths));
        }
        for (scores, group) in scores.iter_mut().zip(topology.groups()) {
            check_finite("score", scores).map_err(|error| error.in_tensor(&group.name))?;
            if let Some(score) = scores.iter().find(|&&score| score < 0.0) {
                return Err(Error::argument("score", score, "at least 0").in_tensor(&group.name));
            }
            let largest = scores.iter().copied().fold(0.0, f64::max);
            if largest > 0.0 {
                // By the largest first: a sum of huge scores would overflow.
                scores.iter_mut().for_each(|score| *score /= largest);
                let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                scores.iter_mut().for_each(|score| *score /= mean);
            }
        }
        Ok(Self { scores })
    }

    /// From the weights: for each channel the L2 norm of what produces it, times that of what consumes it.
    ///
    /// The product does not change when a layer is scaled up and the next one down. It is 0 for a channel that
    /// is constant (no incoming weight; a bias does not count) or unread (no outgoing one). A group that
    /// lacks producers or consumers, as a model's inputs and outputs do, goes by what it has.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a member's tensor is not in `tensors`;
    /// [`Shape`](crate::ErrorKind::Shape) when its axis has not the group's size;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite weight.
    pub fn of<T: Element>(topology: &Topology, tensors: &[(&str, TensorRef<'_, T>)]) -> Result<Self> {
        let mut scores = Vec::new();
        for group in topology.groups() {
            let norms = |role| {
                let members = group.members.iter().filter(|member| member.role == role);
                let axes = members.map(|member| {
                    let tensor = tensors.iter().find(|(name, _)| *name == member.tensor).map(|(_, tensor)| tensor);
                    let tensor =
                        tensor.ok_or_else(|| Error::argument("tensor", &member.tensor, "among those given"))?;
                    check_axis(tensor, member.axis, group.size).map_err(|error| error.in_tensor(&member.tensor))?;
                    Ok((tensor, member.axis))
                });
                Ok::<_, Error>(relative_norms(&axes.collect::<Result<Vec<_>>>()?, group.size))
            };
            let (incoming, outgoing) = (norms(Role::Produces)?, norms(Role::Consumes)?);
            scores.push(incoming.iter().zip(outgoing).map(|(a, b)| a * b).collect());
        }
        Self::new(topology, scores)
    }

    /// The scores of each group, in the topology's order.
    #[must_use]
    pub fn scores(&self) -> &[Vec<f64>] {
        &self.scores
    }
}

fn check_axis<T: Element>(tensor: &TensorRef<'_, T>, axis: usize, size: usize) -> Result<()> {
    if tensor.shape().get(axis) != Some(&size) {
        return Err(Error::shape("channel axis", &[size], tensor.shape()));
    }
    check_finite("weights", tensor.as_slice())
}

/// The L2 norm over all tensors of what lies at each index of their axis, up to a common factor; 1 without tensors.
fn relative_norms<T: Element>(axes: &[(&TensorRef<'_, T>, usize)], size: usize) -> Vec<f64> {
    if axes.is_empty() {
        return vec![1.0; size];
    }
    // Squares of extreme numbers would overflow or vanish.
    let elements = axes.iter().flat_map(|(tensor, _)| tensor.as_slice());
    let scale = scale_to_one(elements.fold(0.0, |largest, x| x.to_f64().abs().max(largest)));
    let mut sums = vec![0.0; size];
    for (tensor, axis) in axes.iter().filter(|(tensor, _)| !tensor.is_empty()) {
        let inner = tensor.shape()[axis + 1..].iter().product::<usize>();
        for (run, elements) in tensor.as_slice().chunks(inner).enumerate() {
            sums[run % size] += elements.iter().map(|x| (x.to_f64() * scale).powi(2)).sum::<f64>();
        }
    }
    sums.into_iter().map(f64::sqrt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slim::Member;

    fn topology() -> Topology {
        let members = vec![
            Member::new("w1", 0, Role::Produces),
            Member::new("b1", 0, Role::Shifts),
            Member::new("w2", 1, Role::Consumes),
        ];
        Topology::new().group("hidden", 2, members).unwrap()
    }

    #[test]
    fn a_channel_matters_by_what_comes_in_and_what_goes_out() {
        let w1 = [3f32, 4.0, 0.0, 1.0]; // norms 5, 1
        let w2 = [1f32, 0.0, 0.0, 15.0]; // columns: norms 1, 15
        let tensors = [("w1", TensorRef::new(&w1, &[2, 2]).unwrap()), ("w2", TensorRef::new(&w2, &[2, 2]).unwrap())];
        assert_eq!(Importance::of(&topology(), &tensors).unwrap().scores(), [[0.5, 1.5]]);
        assert!(Importance::of(&topology(), &tensors[..1]).is_err());
        for size in [1e-300, 1e300] {
            let (w1, w2) = (w1.map(|x| f64::from(x) * size), w2.map(|x| f64::from(x) * size));
            let tensors =
                [("w1", TensorRef::new(&w1, &[2, 2]).unwrap()), ("w2", TensorRef::new(&w2, &[2, 2]).unwrap())];
            let scores = Importance::of(&topology(), &tensors).unwrap().scores()[0].clone();
            assert!((scores[0] - 0.5).abs() < 1e-12 && (scores[1] - 1.5).abs() < 1e-12, "{scores:?}");
        }
    }

    #[test]
    fn scores_that_do_not_fit_are_refused() {
        assert!(Importance::new(&topology(), vec![vec![1.0, -1.0]]).is_err());
        assert!(Importance::new(&topology(), vec![vec![1.0, f64::NAN]]).is_err());
        assert!(Importance::new(&topology(), vec![vec![1.0]]).is_err());
        assert_eq!(Importance::new(&topology(), vec![vec![f64::MAX, f64::MAX]]).unwrap().scores(), [[1.0, 1.0]]);
        assert_eq!(Importance::new(&topology(), vec![vec![0.0, 0.0]]).unwrap().scores(), [[0.0, 0.0]]);
    }
}
