//! Which channels stay: to be looked at, and then applied.

use super::{
    importance::Importance,
    topology::{Group, Topology},
};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{Mask, State, TensorRef, qtensor::check_finite},
};

/// How many channels of a group stay.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Keep {
    /// Those of importance above a threshold, strictly; 1 is the mean of the group.
    Above(f64),
    /// This share of each group, 0 to 1, rounded half to even.
    Ratio(f64),
    /// So many of each group that is not frozen, in the topology's order.
    Widths(Vec<usize>),
}

/// What stays of one group.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GroupPlan {
    /// The group it is about.
    pub group: Group,
    /// The indices that stay, ascending; never empty.
    pub kept: Vec<usize>,
    /// How many were asked for, before rounding to a multiple and before the rule that one stays.
    pub requested: usize,
    /// What each channel is replaced by when it goes, where that was said.
    pub replacement: Option<Vec<f64>>,
}

/// Which channels of each group stay. Of equal scores the lower index stays; at least one always does.
///
/// ```
/// use lapidary::slim::{Importance, Keep, Member, Plan, Role, Topology};
/// let members = vec![Member::new("w1", 0, Role::Produces), Member::new("w2", 1, Role::Consumes)];
/// let topology = Topology::new().group("hidden", 4, members)?;
/// let importance = Importance::new(&topology, vec![vec![0.1, 4.0, 0.2, 2.0]])?;
/// let plan = Plan::new(&topology, &importance, Keep::Ratio(0.5))?;
/// assert_eq!(plan.groups()[0].kept, [1, 3]);
/// let w1 = [0.0f32, 1.0, 2.0, 3.0];
/// assert_eq!(plan.cut("w1", &w1)?, [1.0, 3.0]); // and any tensor with the same channels, a gradient say
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Plan {
    groups: Vec<GroupPlan>,
}

impl Plan {
    /// A plan from importances of the same topology.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a NaN threshold, a ratio outside 0..=1 or a width above the
    /// group's; [`Shape`](crate::ErrorKind::Shape) when importances or widths are not as many as groups.
    pub fn new(topology: &Topology, importance: &Importance, keep: Keep) -> Result<Self> {
        check_sizes(topology.groups().iter().map(|group| group.size), importance)?;
        let free = topology.groups().iter().filter(|group| group.frozen.is_none());
        let mut widths = match &keep {
            Keep::Above(threshold) if threshold.is_nan() => {
                return Err(Error::argument("threshold", threshold, "a number"));
            }
            Keep::Ratio(ratio) if !(0.0..=1.0).contains(ratio) => {
                return Err(Error::argument("ratio", ratio, "from 0 to 1"));
            }
            Keep::Widths(widths) if widths.len() != free.clone().count() => {
                return Err(Error::shape("list of widths", &[free.count()], &[widths.len()]));
            }
            Keep::Widths(widths) => widths.as_slice(),
            _ => &[],
        }
        .iter();
        let mut groups = Vec::new();
        for (group, scores) in topology.groups().iter().zip(importance.scores()) {
            let requested = match &keep {
                _ if group.frozen.is_some() => group.size,
                Keep::Above(threshold) => scores.iter().filter(|&score| score > threshold).count(),
                Keep::Ratio(ratio) => (ratio * group.size as f64).round_ties_even() as usize,
                Keep::Widths(_) => widths.next().copied().unwrap_or(group.size),
            };
            if requested > group.size {
                let found = format!("{requested} of {}", group.size);
                return Err(Error::argument("width", found, "at most the group's size").in_tensor(&group.name));
            }
            let kept = best(scores, requested.max(1));
            groups.push(GroupPlan { group: group.clone(), kept, requested, replacement: None });
        }
        Ok(Self { groups })
    }

    /// Widens each group to a multiple of `multiple`, or to its full size where that is less.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `multiple` is 0; [`Shape`](crate::ErrorKind::Shape) as in [`Plan::new`].
    pub fn round_to(mut self, multiple: usize, importance: &Importance) -> Result<Self> {
        if multiple == 0 {
            return Err(Error::argument("multiple", 0, "at least 1"));
        }
        check_sizes(self.groups.iter().map(|plan| plan.group.size), importance)?;
        for (plan, scores) in self.groups.iter_mut().zip(importance.scores()) {
            plan.kept = best(scores, plan.kept.len().next_multiple_of(multiple).min(plan.group.size));
        }
        Ok(self)
    }

    /// Says what the channels of a group are replaced by when they go: constants, such as the mean
    /// of each over calibration data. Without it, a channel that is not constant is replaced by 0.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown group; [`Shape`](crate::ErrorKind::Shape) when there is
    /// not one constant a channel; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite one.
    pub fn replace(mut self, group: &str, constants: Vec<f64>) -> Result<Self> {
        let known = self.groups.iter_mut().find(|plan| plan.group.name == group);
        let plan = known.ok_or_else(|| Error::argument("group", format!("{group:?}"), "one of the plan's"))?;
        if constants.len() != plan.group.size {
            return Err(Error::shape("replacement", &[plan.group.size], &[constants.len()]).in_tensor(group));
        }
        check_finite("replacement", &constants).map_err(|error| error.in_tensor(group))?;
        plan.replacement = Some(constants);
        Ok(self)
    }

    /// What stays of each group, in the topology's order.
    #[must_use]
    pub fn groups(&self) -> &[GroupPlan] {
        &self.groups
    }

    /// The indices of a group that stay.
    #[must_use]
    pub fn kept(&self, group: &str) -> Option<&[usize]> {
        self.groups.iter().find(|plan| plan.group.name == group).map(|plan| &plan.kept[..])
    }

    /// What stays of a tensor's elements, in logical order: a parameter, or its gradient.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a tensor that is in no group;
    /// [`Shape`](crate::ErrorKind::Shape) when it lacks the axis of a group, or that has another size.
    pub fn cut<'a, T: Element>(&self, tensor: &str, values: impl Into<TensorRef<'a, T>>) -> Result<Vec<T>> {
        let values = values.into();
        Ok(gather(values.as_slice(), values.shape(), &self.axes(tensor, values.shape())?))
    }

    /// What stays of the optimizer state of a tensor: the same indices in every slot of the parameter's shape.
    ///
    /// # Errors
    /// As [`cut`](Plan::cut).
    pub fn cut_state(&self, tensor: &str, state: &State) -> Result<State> {
        let shape = state.shape();
        let axes = self.axes(tensor, shape)?;
        let indices: Vec<usize> = (0..shape.iter().product()).collect();
        let kept = gather(&indices, shape, &axes);
        Ok(state.map_slots(&cut_dims(shape, &axes), |values| values.gather(kept.iter().copied())))
    }

    /// What stays of a tensor's mask.
    ///
    /// # Errors
    /// As [`cut`](Plan::cut).
    pub fn cut_mask(&self, tensor: &str, mask: &Mask) -> Result<Mask> {
        let axes = self.axes(tensor, mask.shape())?;
        let indices: Vec<usize> = (0..mask.len()).collect();
        let kept = gather(&indices, mask.shape(), &axes);
        Mask::from_fn(&cut_dims(mask.shape(), &axes), |i| mask.get(kept[i]) == Some(true))
    }

    /// The indices kept along each axis of a tensor; `None` for an axis that no group has.
    fn axes(&self, tensor: &str, shape: &[usize]) -> Result<Vec<Option<&[usize]>>> {
        let members = self.groups.iter().flat_map(|plan| &plan.group.members).filter(|m| m.tensor == tensor);
        match members.map(|member| member.axis).max() {
            None => return Err(Error::argument("tensor", format!("{tensor:?}"), "in a group of the plan")),
            Some(axis) if axis >= shape.len() => {
                let found = format!("of shape {shape:?}");
                return Err(
                    Error::argument("tensor", found, "of more axes, as its group's members say").in_tensor(tensor)
                );
            }
            Some(_) => {}
        }
        let axis = |(axis, &n): (usize, &usize)| {
            let has = |plan: &&GroupPlan| plan.group.members.iter().any(|member| member.is_axis(tensor, axis));
            let Some(plan) = self.groups.iter().find(has) else { return Ok(None) };
            if plan.group.size != n {
                let expected: Vec<_> =
                    (0..shape.len()).map(|i| if i == axis { plan.group.size } else { shape[i] }).collect();
                return Err(Error::shape("tensor to cut", &expected, shape).in_tensor(tensor));
            }
            Ok(Some(&plan.kept[..]))
        };
        shape.iter().enumerate().map(axis).collect()
    }
}

/// An error unless there is a score for each channel of groups of these sizes.
fn check_sizes(sizes: impl Iterator<Item = usize>, importance: &Importance) -> Result<()> {
    let sizes: Vec<_> = sizes.collect();
    let lengths: Vec<_> = importance.scores().iter().map(Vec::len).collect();
    if sizes == lengths { Ok(()) } else { Err(Error::shape("importance", &sizes, &lengths)) }
}

/// The indices of the `count` highest scores, ascending; of equal scores the lower index.
fn best(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]).then(i.cmp(&j)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The shape of what the axes keep.
fn cut_dims(shape: &[usize], axes: &[Option<&[usize]>]) -> Vec<usize> {
    shape.iter().zip(axes).map(|(&n, axis)| axis.map_or(n, <[usize]>::len)).collect()
}

/// The elements at the kept indices of each axis.
fn gather<T: Copy>(values: &[T], shape: &[usize], axes: &[Option<&[usize]>]) -> Vec<T> {
    if values.is_empty() {
        return Vec::new();
    }
    let Some((&first, rest)) = shape.split_first() else { return values.to_vec() };
    let stride: usize = rest.iter().product();
    let slice = |i: usize| gather(&values[i * stride..(i + 1) * stride], rest, &axes[1..]);
    match axes[0] {
        Some(kept) => kept.iter().flat_map(|&i| slice(i)).collect(),
        None if axes.iter().all(Option::is_none) => values.to_vec(),
        None => (0..first).flat_map(slice).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Optimizer, OptimizerExt, Step, optim::Adam, slim::Member, slim::Role};

    fn topology(size: usize) -> Topology {
        let members = vec![Member::new("w", 1, Role::Produces)];
        Topology::new().group("hidden", size, members).unwrap()
    }

    fn widths(keep: Keep, scores: Vec<f64>) -> (usize, usize) {
        let topology = topology(scores.len());
        let importance = Importance::new(&topology, vec![scores]).unwrap();
        let plan = Plan::new(&topology, &importance, keep).unwrap();
        (plan.groups()[0].requested, plan.groups()[0].kept.len())
    }

    #[test]
    fn counts_are_what_was_asked_whatever_the_ties() {
        assert_eq!(widths(Keep::Ratio(0.1), vec![1.0; 10]), (1, 1));
        assert_eq!(widths(Keep::Ratio(1.0 - 0.9), vec![1.0; 10]), (1, 1)); // 0.0999…
        assert_eq!(widths(Keep::Ratio(0.0), vec![1.0; 10]), (0, 1));
        assert_eq!(widths(Keep::Above(2.0), vec![1.0, 1.0]), (0, 1));
        assert_eq!(widths(Keep::Above(1.0), vec![1.0, 3.0]), (1, 1));
        assert_eq!(widths(Keep::Widths(vec![3]), vec![1.0; 7]), (3, 3));
        let topology = topology(4);
        let importance = Importance::new(&topology, vec![vec![1.0; 4]]).unwrap();
        let plan = Plan::new(&topology, &importance, Keep::Ratio(0.5)).unwrap();
        assert_eq!(plan.kept("hidden"), Some(&[0, 1][..]));
        let plan = plan.round_to(3, &importance).unwrap();
        assert_eq!((plan.groups()[0].requested, plan.kept("hidden").unwrap().len()), (2, 3));
        assert_eq!(plan.round_to(8, &importance).unwrap().kept("hidden").unwrap().len(), 4);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let topology = topology(4);
        let importance = Importance::new(&topology, vec![vec![1.0; 4]]).unwrap();
        let plan = |keep| Plan::new(&topology, &importance, keep);
        assert!(plan(Keep::Ratio(1.1)).is_err() && plan(Keep::Ratio(f64::NAN)).is_err());
        assert!(plan(Keep::Above(f64::NAN)).is_err() && plan(Keep::Widths(vec![5])).is_err());
        assert!(plan(Keep::Widths(vec![1, 1])).is_err());
        let plan = plan(Keep::Ratio(0.5)).unwrap();
        assert!(plan.cut("w", TensorRef::new(&[0f32; 6], &[2, 3]).unwrap()).is_err());
        assert!(plan.cut("w", &[0f32; 8]).is_err() && plan.cut("typo", &[0f32; 8]).is_err());
        let empty = TensorRef::<f32>::new(&[], &[0, 4, usize::MAX, 2]).unwrap();
        assert!(plan.cut("w", empty).unwrap().is_empty());
        let other = Importance::new(&Topology::new(), vec![]).unwrap();
        assert!(plan.clone().round_to(2, &other).is_err());
        assert!(plan.clone().replace("hidden", vec![0.0; 3]).is_err() && plan.replace("other", vec![]).is_err());
    }

    #[test]
    fn state_is_cut_by_the_same_indices() {
        let topology = topology(3);
        let importance = Importance::new(&topology, vec![vec![2.0, 0.0, 1.0]]).unwrap();
        let plan = Plan::new(&topology, &importance, Keep::Above(0.0)).unwrap();
        let (mut w, g) = ([0f32; 6], [1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let adam = Adam::new(0.1).unwrap().with_betas(0.0, 0.0).unwrap();
        let g = TensorRef::new(&g, &[2, 3]).unwrap();
        let mut state = adam.init(&g).unwrap();
        adam.step(Step::new(crate::TensorMut::new(&mut w, &[2, 3]).unwrap(), &g, &mut state)).unwrap();
        let cut = plan.cut_state("w", &state).unwrap();
        assert_eq!((cut.shape(), cut.steps()), (&[2, 2][..], 1));
        assert_eq!(cut.slots()[0].values().as_slice::<f32>(), Some(&[1.0, 3.0, 4.0, 6.0][..]));
        assert_eq!(plan.cut("w", &g).unwrap(), [1.0, 3.0, 4.0, 6.0]);
        let mask = plan.cut_mask("w", &Mask::from_fn(&[2, 3], |i| i >= 2).unwrap()).unwrap();
        assert_eq!((mask.shape(), mask.indices().collect::<Vec<_>>()), (&[2, 2][..], vec![1, 2, 3]));
        let mut slim = [0f32; 4];
        let slim = crate::TensorMut::new(&mut slim, &[2, 2]).unwrap();
        adam.step(Step::new(slim, TensorRef::new(&[1f32; 4], &[2, 2]).unwrap(), &mut { cut })).unwrap();
    }
}
