//! How much each channel of each group matters.

use super::{
    norms::{Norm, norms},
    tensor::Bound,
    topology::{Role, Topology},
};
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    kernel::{parallel, scan::scale_to_one},
    tensor::{TensorRef, qtensor::check_finite},
    traits::Criterion,
};
use std::{borrow::Borrow, collections::BTreeMap};

/// A score for each channel of each group of a topology.
///
/// [`Importance::of`] takes them from the weights, a [`Scoring`] from any criterion of elements, [`Importance::new`] any others.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    scores: Vec<Vec<f64>>,
}

/// How the scores of a channel's elements become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Aggregate {
    /// The root of the sum of their squares.
    #[default]
    L2,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The largest.
    Max,
}

/// What the scores of each group are divided by, so that those of one group compare with another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Normalize {
    /// Their mean: 1 is a channel of average importance.
    #[default]
    Mean,
    /// The largest.
    Max,
    /// Nothing.
    None,
}

/// Scores by a criterion of elements, such as any [`Criterion`] of pruning, of each tensor its own.
///
/// | option | default | purpose |
/// |---|---|---|
/// | `aggregate` | [`L2`](Aggregate::L2) | how the scores of all elements of a channel become one |
/// | `normalize` | [`Mean`](Normalize::Mean) | what the scores of a group are divided by |
/// | `roles` | [`Produces`](Role::Produces), [`Consumes`](Role::Consumes) | which tensors of a group count |
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Scoring {
    aggregate: Aggregate,
    normalize: Normalize,
    roles: Vec<Role>,
}

config! {
    Scoring() => Self::new(),
    aggregate: Aggregate => Self::with_aggregate,
    normalize: Normalize => Self::with_normalize,
    roles: Vec<Role> => |it, roles| it.with_roles(&roles),
}

impl Default for Scoring {
    fn default() -> Self {
        let roles = vec![Role::Produces, Role::Consumes];
        Self { aggregate: Aggregate::default(), normalize: Normalize::default(), roles }
    }
}

impl Scoring {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// By another aggregate.
    pub fn with_aggregate(self, aggregate: Aggregate) -> Self {
        Self { aggregate, ..self }
    }

    /// By another norm of groups.
    pub fn with_normalize(self, normalize: Normalize) -> Self {
        Self { normalize, ..self }
    }

    /// Over other tensors: `&[Role::Shifts]` goes by the weights and biases of norms.
    pub fn with_roles(self, roles: &[Role]) -> Self {
        Self { roles: roles.to_vec(), ..self }
    }

    /// By the scores that a criterion of pruning gives to elements: for each tensor, by its name, the one that holds its gradient or
    /// has seen its inputs; `|_| Ok(Magnitude)` for one that fits all.
    ///
    /// # Errors
    /// As [`elements`](Scoring::elements); those of `criterion` and of what it gives.
    pub fn criterion<T: Element, K: Borrow<str> + Ord, C: Criterion<T>>(
        &self,
        topology: &Topology,
        weights: &BTreeMap<K, TensorRef<'_, T>>,
        mut criterion: impl FnMut(&str) -> Result<C>,
    ) -> Result<Importance> {
        self.elements(topology, weights, |name, tensor| {
            let mut scores = vec![0.0; tensor.len()];
            criterion(name)?.score(tensor, &mut scores)?;
            Ok(scores)
        })
    }

    /// By a score for each element of each tensor, at least 0, in logical order.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a tensor is missing, or for a score below 0;
    /// [`Shape`](crate::ErrorKind::Shape) when a tensor has another shape, or its scores are not as many;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite weight or score; those of `score`.
    pub fn elements<T: Element, K: Borrow<str> + Ord>(
        &self,
        topology: &Topology,
        weights: &BTreeMap<K, TensorRef<'_, T>>,
        mut score: impl FnMut(&str, TensorRef<'_, T>) -> Result<Vec<f64>>,
    ) -> Result<Importance> {
        let graph = &*topology.0;
        let bound = Bound::new(graph, weights)?;
        let mut sums: Vec<Vec<Sum>> = graph.groups.iter().map(|group| vec![Sum::default(); group.size]).collect();
        for (shape, tensor) in graph.tensors.iter().zip(&bound.0) {
            let counts = |axis: &super::topology::Axis| axis.roles.iter().any(|role| self.roles.contains(role));
            if !shape.axes.iter().any(|axis| axis.atoms.is_some() && counts(axis)) {
                continue;
            }
            let scores = score(&shape.name, TensorRef::from(*tensor)).map_err(|error| error.in_tensor(&shape.name))?;
            check_scores(&scores, tensor.len()).map_err(|error| error.in_tensor(&shape.name))?;
            for (axis, entry) in shape.axes.iter().enumerate().filter(|(_, axis)| counts(axis)) {
                let Some(atoms) = &entry.atoms else { continue };
                let inner: usize = shape.shape[axis + 1..].iter().product();
                for (run, scores) in scores.chunks(inner).enumerate() {
                    let place = graph.places[atoms[run % atoms.len()]];
                    scores.iter().for_each(|score| sums[place.group][place.at].add(*score));
                }
            }
        }
        let scores = sums.iter().map(|group| group.iter().map(|sum| sum.aggregate(self.aggregate)).collect());
        Importance::normalized(topology, scores.collect(), self.normalize)
    }

    /// How much each block of the topology matters: the aggregate over all elements of all tensors that only it uses.
    /// Not normalized.
    ///
    /// # Errors
    /// As [`elements`](Scoring::elements).
    pub fn blocks<T: Element, K: Borrow<str> + Ord>(
        &self,
        topology: &Topology,
        weights: &BTreeMap<K, TensorRef<'_, T>>,
        mut score: impl FnMut(&str, TensorRef<'_, T>) -> Result<Vec<f64>>,
    ) -> Result<Vec<(String, f64)>> {
        let graph = &*topology.0;
        let bound = Bound::new(graph, weights)?;
        let mut blocks = Vec::new();
        let all = graph.used(&[]);
        for (index, block) in graph.blocks.iter().enumerate() {
            let (mut sum, others) = (Sum::default(), graph.used(&[index]));
            let own = graph.tensors.iter().zip(&bound.0);
            for (shape, tensor) in own.filter(|(shape, _)| all.contains(&shape.name) && !others.contains(&shape.name)) {
                let scores =
                    score(&shape.name, TensorRef::from(*tensor)).map_err(|error| error.in_tensor(&shape.name))?;
                check_scores(&scores, tensor.len()).map_err(|error| error.in_tensor(&shape.name))?;
                scores.iter().for_each(|score| sum.add(*score));
            }
            blocks.push((block.name.clone(), sum.aggregate(self.aggregate)));
        }
        Ok(blocks)
    }
}

fn check_scores(scores: &[f64], len: usize) -> Result<()> {
    if scores.len() != len {
        return Err(Error::shape("scores", &[len], &[scores.len()]));
    }
    check_finite("score", scores)?;
    match scores.iter().find(|&&score| score < 0.0) {
        Some(score) => Err(Error::argument("score", score, "at least 0")),
        None => Ok(()),
    }
}

/// What is known of some scores.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: usize,
    sum: f64,
    norm: Norm,
}

impl Sum {
    fn add(&mut self, score: f64) {
        self.count += 1;
        self.sum += score;
        self.norm = self.norm.with(score);
    }

    fn aggregate(&self, aggregate: Aggregate) -> f64 {
        let value = match aggregate {
            Aggregate::L2 => self.norm.value(),
            Aggregate::Sum => self.sum,
            Aggregate::Mean if self.count == 0 => 0.0,
            Aggregate::Mean => self.sum / self.count as f64,
            Aggregate::Max => self.norm.largest,
        };
        value.min(f64::MAX)
    }
}

impl Importance {
    /// From scores at least 0, a list a group, in the order of [`Topology::groups`], divided by their group's mean: 1 is a
    /// channel of average importance, whatever the layer.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the lists are not as long as the groups,
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite score,
    /// [`Argument`](crate::ErrorKind::Argument) for one below 0.
    pub fn new(topology: &Topology, scores: Vec<Vec<f64>>) -> Result<Self> {
        Self::normalized(topology, scores, Normalize::Mean)
    }

    /// As [`new`](Importance::new), divided by something else.
    ///
    /// # Errors
    /// As [`new`](Importance::new).
    pub fn normalized(topology: &Topology, mut scores: Vec<Vec<f64>>, by: Normalize) -> Result<Self> {
        Self::check_sizes(topology, &scores)?;
        for (scores, group) in scores.iter_mut().zip(topology.groups()) {
            check_scores(scores, group.size).map_err(|error| error.in_tensor(&group.name))?;
            let largest = scores.iter().copied().fold(0.0, f64::max);
            if largest > 0.0 && by != Normalize::None {
                // By the largest first: a sum of huge scores would overflow.
                scores.iter_mut().for_each(|score| *score /= largest);
                let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                let divisor = if by == Normalize::Max { 1.0 } else { mean };
                scores.iter_mut().for_each(|score| *score /= divisor);
            }
        }
        Ok(Self { scores })
    }

    /// From the weights: for each channel the L2 norm of what produces it, times that of what consumes it, over the group's mean.
    ///
    /// The product does not change when a layer is scaled up and the next one down. It is 0 for a channel that
    /// has no incoming weight (a bias does not count) or no outgoing one. A group that
    /// lacks producers or consumers, as a model's inputs and outputs do, goes by what it has.
    ///
    /// # Errors
    /// As [`Scoring::elements`].
    pub fn of<T: Element, K: Borrow<str> + Ord>(
        topology: &Topology,
        weights: &BTreeMap<K, TensorRef<'_, T>>,
    ) -> Result<Self> {
        let graph = &*topology.0;
        let bound = Bound::new(graph, weights)?;
        let norms = |role: Role| Self::normalized(topology, norms(graph, &bound, role), Normalize::Max);
        let halves = (|| norms(Role::Produces), || norms(Role::Consumes));
        let (incoming, outgoing) = match parallel::pays(topology.params()) {
            true => parallel::join(halves.0, halves.1),
            false => parallel::in_turn(halves.0, halves.1),
        };
        let (incoming, outgoing) = (incoming?, outgoing?);
        let product = topology.groups().iter().zip(incoming.scores.into_iter().zip(outgoing.scores));
        let product = product.map(|(group, (incoming, outgoing))| {
            let has = |role: Role| group.members.iter().any(|member| member.roles.contains(&role));
            let norm = |role: Role, norm: f64| if has(role) { norm } else { 1.0 };
            let pairs = incoming.into_iter().zip(outgoing);
            pairs.map(|(a, b)| norm(Role::Produces, a) * norm(Role::Consumes, b)).collect()
        });
        Self::new(topology, product.collect())
    }

    /// The scores of each group, in the topology's order.
    #[must_use]
    pub fn scores(&self) -> &[Vec<f64>] {
        &self.scores
    }

    pub(super) fn check(&self, topology: &Topology) -> Result<()> {
        Self::check_sizes(topology, &self.scores)
    }

    fn check_sizes(topology: &Topology, scores: &[Vec<f64>]) -> Result<()> {
        let sizes: Vec<_> = topology.groups().iter().map(|group| group.size).collect();
        let lengths: Vec<_> = scores.iter().map(Vec::len).collect();
        if sizes == lengths { Ok(()) } else { Err(Error::shape("scores", &sizes, &lengths)) }
    }
}

/// How much a block changes what it is given (ShortGPT's Block Influence, arXiv:2403.03853): the mean over samples of
/// `1 - cos(input, output)`. The last axis of both is one sample's; a sample of zeros counts as turned by 0 where both are, else by 1.
///
/// # Errors
/// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; [`Empty`](crate::ErrorKind::Empty) without elements;
/// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinity.
///
/// ```
/// use lapidary::{TensorRef, slim::block_influence};
/// let (input, output) = ([1.0f32, 0.0, 0.0, 2.0], [3.0f32, 0.0, 1.0, 0.0]);
/// let influence = block_influence(TensorRef::new(&input, &[2, 2])?, TensorRef::new(&output, &[2, 2])?)?;
/// assert_eq!(influence, 0.5); // one unchanged, one turned by a right angle
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn block_influence<'a, 'b, T: Element>(
    input: impl Into<TensorRef<'a, T>>,
    output: impl Into<TensorRef<'b, T>>,
) -> Result<f64> {
    let (input, output) = (input.into(), output.into());
    if input.shape() != output.shape() {
        return Err(Error::shape("output of the block", input.shape(), output.shape()));
    }
    if input.is_empty() {
        return Err(Error::empty("input of the block"));
    }
    check_finite("input of the block", input.as_slice())?;
    check_finite("output of the block", output.as_slice())?;
    let width = input.shape().last().copied().unwrap_or(1);
    let wide = |row: &[T]| {
        let row: Vec<f64> = row.iter().map(|x| x.to_f64()).collect();
        let scale = scale_to_one(row.iter().fold(0.0, |largest: f64, x| largest.max(x.abs())));
        row.into_iter().map(|x| x * scale).collect::<Vec<f64>>()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let influence = |(a, b): (&[T], &[T])| {
        let (a, b) = (wide(a), wide(b));
        let norms = dot(&a, &a).sqrt() * dot(&b, &b).sqrt();
        if norms > 0.0 { 1.0 - (dot(&a, &b) / norms).clamp(-1.0, 1.0) } else { f64::from(u8::from(a != b)) }
    };
    let rows = input.as_slice().chunks(width).zip(output.as_slice().chunks(width));
    Ok(rows.map(influence).sum::<f64>() / (input.len() / width) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        prune::{Magnitude, Snip},
        slim::{Dense, Input},
    };

    fn topology() -> Topology {
        let shapes: [(&str, &[usize]); 3] = [("w1", &[2, 2]), ("b1", &[2]), ("w2", &[2, 2])];
        let mut model = Topology::builder(shapes).unwrap();
        let x = model.add("x", Input::new(&[2], 0), []).unwrap();
        let x = model.add("h", Dense::new("w1").with_bias("b1"), [x]).unwrap();
        model.add("y", Dense::new("w2"), [x]).unwrap();
        model.build().unwrap()
    }

    fn scores(importance: Result<Importance>) -> Vec<f64> {
        importance.unwrap().scores()[1].clone()
    }

    #[test]
    fn a_channel_matters_by_what_comes_in_and_what_goes_out() {
        let (w1, w2) = ([3f64, 4.0, 0.0, 1.0], [1f64, 0.0, 0.0, 15.0]); // norms 5, 1; of columns 1, 15
        for size in [1e-300, 1.0, 1e300] {
            let (w1, w2) = (w1.map(|x| x * size), w2.map(|x| x * size));
            let weights = BTreeMap::from([
                ("w1", TensorRef::new(&w1, &[2, 2]).unwrap()),
                ("b1", TensorRef::from(&[9.0, 9.0])),
                ("w2", TensorRef::new(&w2, &[2, 2]).unwrap()),
            ]);
            let scores = scores(Importance::of(&topology(), &weights));
            assert!((scores[0] - 0.5).abs() < 1e-12 && (scores[1] - 1.5).abs() < 1e-12, "{scores:?}");
        }
    }

    #[test]
    fn criteria_are_aggregated_and_normalized_as_asked() {
        let (w1, w2) = ([3f32, -4.0, 0.0, 1.0], [1f32, 0.0, 0.0, 15.0]);
        let weights = BTreeMap::from([
            ("w1", TensorRef::new(&w1, &[2, 2]).unwrap()),
            ("b1", TensorRef::from(&[2f32, 0.5])),
            ("w2", TensorRef::new(&w2, &[2, 2]).unwrap()),
        ]);
        let by = |scoring: Scoring| {
            scores(scoring.with_normalize(Normalize::None).criterion(&topology(), &weights, |_| Ok(Magnitude)))
        };
        // The channels' elements: 3 4 1 0 and 0 1 0 15.
        assert_eq!(by(Scoring::new().with_aggregate(Aggregate::Sum)), [8.0, 16.0]);
        assert_eq!(by(Scoring::new().with_aggregate(Aggregate::Mean)), [2.0, 4.0]);
        assert_eq!(by(Scoring::new().with_aggregate(Aggregate::Max)), [4.0, 15.0]);
        let l2 = by(Scoring::new());
        assert!((l2[0] - 26f64.sqrt()).abs() < 1e-12 && (l2[1] - 226f64.sqrt()).abs() < 1e-12, "{l2:?}");
        assert_eq!(by(Scoring::new().with_roles(&[Role::Shifts])), [2.0, 0.5]);
        let normalized =
            |by| scores(Importance::normalized(&topology(), vec![vec![1.0; 2], vec![1.0, 3.0], vec![0.0; 2]], by));
        assert_eq!((normalized(Normalize::Mean), normalized(Normalize::Max)), (vec![0.5, 1.5], vec![1.0 / 3.0, 1.0]));
        let wrong =
            |scores: Vec<f64>| Scoring::new().elements(&topology(), &weights, |_, _| Ok(scores.clone())).unwrap_err();
        assert_eq!(wrong(vec![1.0; 3]).kind(), crate::ErrorKind::Shape);
        assert_eq!(
            (wrong(vec![-1.0; 4]).kind(), wrong(vec![-1.0; 4]).tensor()),
            (crate::ErrorKind::Argument, Some("w1"))
        );
    }

    /// Gradients of other shapes, and inputs of other widths.
    #[test]
    fn each_tensor_has_its_own_criterion() {
        let (w1, w2, b1) = ([3f64, -4.0, 0.0, 1.0], [1f64, 0.0, 0.0, 15.0], [2f64, 0.5]);
        let weights = BTreeMap::from([
            ("w1", TensorRef::new(&w1, &[2, 2]).unwrap()),
            ("b1", TensorRef::from(&b1)),
            ("w2", TensorRef::new(&w2, &[2, 2]).unwrap()),
        ]);
        let grads = [("w1", [1.0, 1.0, 2.0, 3.0]), ("w2", [5.0, 1.0, 1.0, 0.1])];
        let snip = |name: &str| {
            let grad = grads.iter().find(|(known, _)| *known == name).map(|(_, grad)| grad);
            let grad = grad.ok_or_else(|| Error::argument("gradient", "missing", "one a tensor"))?;
            Ok(Snip::new(TensorRef::new(grad, &[2, 2])?))
        };
        let scoring = Scoring::new().with_aggregate(Aggregate::Sum).with_normalize(Normalize::None);
        let importance = scoring.criterion(&topology(), &weights, snip);
        assert_eq!(scores(importance), [3.0 + 4.0 + 5.0, 3.0 + 1.5]);
        // Of the biases too there would have to be one.
        let scoring = scoring.with_roles(&[Role::Produces, Role::Consumes, Role::Shifts]);
        let error = scoring.criterion(&topology(), &weights, snip).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (crate::ErrorKind::Argument, Some("b1")));
        let whole = |name: &str| -> Result<Box<dyn Criterion<f64> + '_>> {
            if name == "b1" { Ok(Box::new(Magnitude)) } else { Ok(Box::new(snip(name)?)) }
        };
        assert_eq!(scores(scoring.criterion(&topology(), &weights, whole)), [14.0, 5.0]);
    }

    #[test]
    fn scores_that_do_not_fit_are_refused() {
        let new = |hidden: Vec<f64>| Importance::new(&topology(), vec![vec![1.0; 2], hidden, vec![1.0; 2]]);
        assert!(new(vec![1.0, -1.0]).is_err() && new(vec![1.0, f64::NAN]).is_err() && new(vec![1.0]).is_err());
        assert_eq!(scores(new(vec![f64::MAX; 2])), [1.0, 1.0]);
        assert_eq!(scores(new(vec![0.0, 0.0])), [0.0, 0.0]);
        assert!(block_influence(&[0f32; 0], &[]).is_err() && block_influence(&[f32::NAN], &[1.0]).is_err());
        assert_eq!(block_influence(&[1e-300f64, 0.0], &[0.0, 1e300]).unwrap(), 1.0);
        assert_eq!(block_influence(&[0f64], &[0.0]).unwrap(), 0.0);
    }
}
