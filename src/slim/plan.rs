//! Which channels stay: to be looked at, and then applied.

use super::{
    analysis::{Analysis, Verdict},
    apply::Slim,
    budget::{Candidate, widths},
    importance::Importance,
    keep::{Keep, Target},
    rules::Kept,
    size::Sizes,
    tensor::{Bound, Tensor},
    topology::{Axis, Graph, Role, Topology},
};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{Mask, SlotValues, State, TensorRef, qtensor::check_finite},
};
use std::{borrow::Borrow, collections::BTreeMap};

/// What stays of one group.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GroupPlan {
    /// The group's name.
    pub name: String,
    /// How many channels it has.
    pub size: usize,
    /// Those that stay, ascending; never none.
    pub kept: Vec<usize>,
    /// How many the rule asked for, before multiples and minima, and before the rule that one stays.
    pub requested: usize,
    /// Channels that could not go exactly, and why.
    pub held: Vec<(usize, String)>,
    /// Why none of the group may go, where that is so.
    pub frozen: Option<String>,
}

/// Which channels of each group stay. Of equal scores the lower index stays; at least one always does.
///
/// ```
/// use lapidary::{TensorRef, slim::{Activation, Dense, Importance, Input, Keep, Plan, Topology}};
/// use std::collections::BTreeMap;
/// // Unit 1 of the hidden layer has no incoming weights: it is the constant relu(0.5).
/// let (w1, b1, w2) = ([1.0f32, 2.0, 0.0, 0.0, -1.0, 1.0], [0.0f32, 0.5, 0.25], [1.0f32, 4.0, 2.0]);
/// let weights = BTreeMap::from([
///     ("w1", TensorRef::new(&w1, &[3, 2])?), ("b1", TensorRef::from(&b1)), ("w2", TensorRef::new(&w2, &[1, 3])?),
/// ]);
/// let mut model = Topology::builder(weights.iter().map(|(name, w)| (*name, w.shape())))?;
/// let x = model.add("x", Input::new(&[2], 0), [])?;
/// let x = model.add("hidden", Dense::new("w1").with_bias("b1"), [x])?;
/// let x = model.add("relu", Activation::Relu, [x])?;
/// let x = model.add("y", Dense::new("w2"), [x])?;
/// model.output(x)?;
/// let topology = model.build()?;
///
/// let importance = Importance::of(&topology, &weights)?;
/// let plan = Plan::new(&topology, &weights, &importance, &Keep::above(0.0)?)?;
/// assert_eq!(plan.kept("hidden"), Some(&[0, 2][..]));
/// let slim = plan.apply(&weights)?;
/// assert_eq!(slim.tensors["w2"].values(), [1.0, 2.0]);
/// assert_eq!(slim.tensors["y.bias"].values(), [2.0]); // 4 * relu(0.5): a bias was made
/// assert!(slim.report.is_exact());
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Plan {
    pub(super) topology: Topology,
    pub(super) groups: Vec<GroupPlan>,
    pub(super) kept: Kept,
    pub(super) replacements: BTreeMap<usize, Vec<f64>>,
    pub(super) approximate: bool,
}

impl Plan {
    /// A plan for a topology with its weights, from importances.
    ///
    /// Channels that are not to be folded exactly stay, unless [`Keep::with_approximation`] lets them go.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when a weight or the importances do not fit the topology;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite weight or replacement;
    /// [`Argument`](crate::ErrorKind::Argument) for a missing weight, an unknown group or node, a width above the group's or of a
    /// frozen group, a budget that cannot be kept.
    pub fn new<T: Element, K: Borrow<str> + Ord>(
        topology: &Topology,
        weights: &BTreeMap<K, TensorRef<'_, T>>,
        importance: &Importance,
        keep: &Keep,
    ) -> Result<Self> {
        let graph = &*topology.0;
        let bound = Bound::new(graph, weights)?;
        importance.check(topology)?;
        let replacements = replacements(graph, keep)?;
        let analysis = Analysis::new(graph, &bound, &replacements);
        let held = |group: usize, channel: usize| !keep.approximate && analysis.held[group][channel].is_some();
        let candidate = |group: usize| {
            let Candidate { scores, free, floor } = Candidate {
                scores: &importance.scores()[group],
                free: (0..graph.groups[group].size).map(|channel| !held(group, channel)).collect(),
                floor: keep.bounded(0, graph.groups[group].size),
            };
            // All above a threshold stay, beside what is held.
            let above = |score: &f64| matches!(keep.target, Target::Above(threshold) if *score > threshold);
            let stays = scores.iter().zip(&free).filter(|(score, free)| !**free || above(score)).count();
            match graph.groups[group].frozen {
                Some(_) => Candidate { scores, free: vec![false; free.len()], floor: free.len() },
                None => Candidate { floor: floor.max(stays), scores, free },
            }
        };
        let candidates: Vec<_> = (0..graph.groups.len()).map(candidate).collect();
        let requested = requested(graph, keep, &candidates)?;
        let mut groups = Vec::new();
        for ((group, candidate), requested) in graph.groups.iter().zip(&candidates).zip(requested) {
            let count = keep.bounded(requested.max(candidate.floor), group.size);
            let held = &analysis.held[groups.len()];
            let may = group.frozen.is_none() && !keep.approximate;
            let held = held.iter().enumerate().filter(|_| may);
            groups.push(GroupPlan {
                name: group.name.clone(),
                size: group.size,
                kept: best(candidate, count),
                requested,
                held: held.filter_map(|(channel, reason)| Some((channel, reason.clone()?))).collect(),
                frozen: group.frozen.clone(),
            });
        }
        let flags = |plan: &GroupPlan| {
            let mut flags = vec![false; plan.size];
            plan.kept.iter().for_each(|&channel| flags[channel] = true);
            flags
        };
        let kept = Kept(groups.iter().map(flags).collect());
        Ok(Self { topology: topology.clone(), groups, kept, replacements, approximate: keep.approximate })
    }

    /// What stays of each group, in the topology's order.
    #[must_use]
    pub fn groups(&self) -> &[GroupPlan] {
        &self.groups
    }

    /// The channels of a group that stay.
    #[must_use]
    pub fn kept(&self, group: &str) -> Option<&[usize]> {
        self.groups.iter().find(|plan| plan.name == group).map(|plan| &plan.kept[..])
    }

    /// The indices of an axis of a tensor that stay; all where none can go.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown tensor or an axis that it has not.
    pub fn indices(&self, tensor: &str, axis: usize) -> Result<Vec<usize>> {
        let graph = &*self.topology.0;
        let shape = &graph.tensors[graph.find_tensor(tensor)?];
        let Some(entry) = shape.axes.get(axis) else {
            return Err(Error::argument("axis", axis, "one of the tensor's").in_tensor(tensor));
        };
        Ok(self.axis(entry, shape.shape[axis]))
    }

    /// What stays of a tensor of the model's elements, in logical order: a parameter, or its gradient.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown tensor; [`Shape`](crate::ErrorKind::Shape) when it has
    /// another shape.
    pub fn cut<'a, T: Element>(&self, tensor: &str, values: impl Into<TensorRef<'a, T>>) -> Result<Tensor<T>> {
        let values = values.into();
        let axes = self.axes(tensor, values.shape())?;
        Ok(gather(values.as_slice(), values.shape(), &axes))
    }

    /// What stays of the optimizer state of a tensor: the same indices in every slot of its shape, and in a slot that has all of
    /// its axes but one (Adafactor's) those of the others. To slots that stand in for the tensor itself (slow weights, averages) is added
    /// what folding added to it in the slim model: else they would pull it back.
    ///
    /// # Errors
    /// As [`cut`](Plan::cut); [`State`](crate::ErrorKind::State) for a slot of another shape;
    /// [`Shape`](crate::ErrorKind::Shape) when the slim model is another plan's.
    pub fn cut_state<T: Element>(&self, tensor: &str, state: &State, slim: &Slim<T>) -> Result<State> {
        let axes = self.axes(tensor, state.shape())?;
        let shape: Vec<usize> = axes.iter().map(Vec::len).collect();
        let found = slim.tensors.get(tensor).map_or(&[][..], |tensor| tensor.shape());
        if found != shape {
            return Err(Error::shape("tensor of the slim model", &shape, found).in_tensor(tensor));
        }
        state.map_slots(&shape, |slot| {
            let (name, dims, values) = (slot.name(), slot.shape(), slot.values());
            let own = if dims == state.shape() {
                axes.clone()
            } else {
                let missing = missing_axis(name, dims, state.shape());
                let missing = missing.ok_or_else(|| {
                    Error::state(format!("slot {name:?} of shape {dims:?} cannot be cut")).in_tensor(tensor)
                })?;
                let others = axes.iter().enumerate().filter(|(axis, _)| *axis != missing);
                others.map(|(_, kept)| kept.clone()).collect()
            };
            let indices: Vec<usize> = (0..dims.iter().product()).collect();
            let kept = gather(&indices, dims, &own);
            let mut cut: SlotValues = values.gather(kept.values.iter().copied());
            if let Some(shifts) = slim.shifts.get(tensor).filter(|_| slot.stands_for_weights()) {
                let moved = shifts.iter().enumerate().map(|(i, shift)| cut.get(i).unwrap_or_default() + shift);
                let moved: Vec<f64> = moved.collect();
                cut.refill(moved.into_iter());
            }
            Ok((kept.shape, cut))
        })
    }

    /// What stays of a tensor's mask.
    ///
    /// # Errors
    /// As [`cut`](Plan::cut).
    pub fn cut_mask(&self, tensor: &str, mask: &Mask) -> Result<Mask> {
        let axes = self.axes(tensor, mask.shape())?;
        let indices: Vec<usize> = (0..mask.len()).collect();
        let kept = gather(&indices, mask.shape(), &axes);
        Mask::from_fn(&kept.shape, |i| mask.get(kept.values[i]) == Some(true))
    }

    /// The model before slimming that a slim one is to equal: the same tensors, with 0 in the weights that
    /// [produce](Role::Produces) channels that go, unless those were constants.
    ///
    /// # Errors
    /// As [`apply`](Plan::apply), for weights.
    pub fn masked<T: Element, K: Borrow<str> + Ord>(
        &self,
        weights: &BTreeMap<K, TensorRef<'_, T>>,
    ) -> Result<BTreeMap<String, Tensor<T>>> {
        let graph = &*self.topology.0;
        let bound = Bound::new(graph, weights)?;
        let analysis = Analysis::new(graph, &bound, &self.replacements);
        let mut tensors = BTreeMap::new();
        for (shape, given) in graph.tensors.iter().zip(&bound.0) {
            let mut values = given.as_slice().to_vec();
            for (axis, entry) in shape.axes.iter().enumerate().filter(|(_, axis)| axis.roles.contains(&Role::Produces))
            {
                let atoms = entry.atoms.as_deref().unwrap_or_default();
                let inner: usize = shape.shape[axis + 1..].iter().product();
                let goes =
                    |atom: usize| !self.kept.has(graph, atom) && analysis.verdict(graph, atom) != Verdict::Constant;
                let gone: Vec<bool> = atoms.iter().map(|&atom| goes(atom)).collect();
                for (i, value) in values.iter_mut().enumerate() {
                    if gone[i / inner % shape.shape[axis]] {
                        *value = T::default();
                    }
                }
            }
            tensors.insert(shape.name.clone(), Tensor::new(shape.shape.clone(), values));
        }
        Ok(tensors)
    }

    fn axis(&self, axis: &Axis, len: usize) -> Vec<usize> {
        match &axis.atoms {
            Some(atoms) => self.kept.indices(&self.topology.0, atoms),
            None => (0..len).collect(),
        }
    }

    /// The indices kept along each axis of a tensor.
    pub(super) fn axes(&self, tensor: &str, shape: &[usize]) -> Result<Vec<Vec<usize>>> {
        let graph = &*self.topology.0;
        let known = &graph.tensors[graph.find_tensor(tensor)?];
        if known.shape != shape {
            return Err(Error::shape("tensor to cut", &known.shape, shape).in_tensor(tensor));
        }
        Ok(known.axes.iter().zip(shape).map(|(axis, &n)| self.axis(axis, n)).collect())
    }
}

/// The values that nodes' channels are taken for, by node.
fn replacements(graph: &Graph, keep: &Keep) -> Result<BTreeMap<usize, Vec<f64>>> {
    let find = |(name, values): (&String, &Vec<f64>)| {
        let node = graph.find_node(name)?;
        let channels = graph.nodes[node].layout.atoms().len();
        if values.len() != channels {
            return Err(Error::shape("replacement", &[channels], &[values.len()]).in_tensor(name));
        }
        check_finite("replacement", values).map_err(|error| error.in_tensor(name))?;
        Ok((node, values.clone()))
    };
    keep.replacements.iter().map(find).collect()
}

/// How many channels of each group a rule asks for.
fn requested(graph: &Graph, keep: &Keep, candidates: &[Candidate<'_>]) -> Result<Vec<usize>> {
    let each = |count: &dyn Fn(&Candidate<'_>) -> usize| {
        let count = candidates.iter().zip(&graph.groups).map(|(candidate, group)| match group.frozen {
            Some(_) => group.size,
            None => count(candidate),
        });
        Ok(count.collect())
    };
    let full = |widths: &[usize]| -> Vec<usize> {
        widths.iter().zip(&graph.groups).map(|(&width, group)| keep.bounded(width, group.size)).collect()
    };
    match &keep.target {
        Target::Above(threshold) => each(&|group| group.scores.iter().filter(|score| *score > threshold).count()),
        Target::Ratio(ratio) => each(&|group| (ratio * group.scores.len() as f64).round_ties_even() as usize),
        Target::Widths(widths) => {
            let mut requested: Vec<usize> = graph.groups.iter().map(|group| group.size).collect();
            for (name, &width) in widths {
                let index = graph.find_group(name)?;
                let group = &graph.groups[index];
                if width > group.size || group.frozen.is_some() && width != group.size {
                    let found = format!("{width} of {}", group.size);
                    let error = Error::argument("width", found, "at most the group's size, and all of a frozen group");
                    return Err(error.in_tensor(name));
                }
                requested[index] = width;
            }
            Ok(requested)
        }
        Target::Params(budget) => {
            let sizes = Sizes::new(graph);
            widths(candidates, *budget, |widths| Ok(sizes.params(&full(widths))))
        }
        Target::Macs(budget) => {
            let sizes = Sizes::new(graph);
            widths(candidates, *budget, |widths| Ok(sizes.macs(&full(widths))))
        }
        Target::Latency(budget, table) => {
            let sizes = Sizes::new(graph);
            widths(candidates, *budget, |widths| sizes.latency(table, &full(widths)))
        }
    }
}

/// Those that cannot go, and of the others the highest scores, so many in all, ascending; of equal scores the lower index.
fn best(group: &Candidate<'_>, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..group.scores.len()).collect();
    order.sort_by(|&i, &j| {
        group.free[i].cmp(&group.free[j]).then(group.scores[j].total_cmp(&group.scores[i])).then(i.cmp(&j))
    });
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The axis of a shape that a slot lacks.
fn missing_axis(slot: &str, dims: &[usize], shape: &[usize]) -> Option<usize> {
    let lacks = |axis: &usize| {
        let others = shape.iter().enumerate().filter(|(i, _)| i != axis).map(|(_, n)| n);
        others.eq(dims)
    };
    let mut fits = (0..shape.len()).filter(lacks);
    let (first, second) = (fits.next(), fits.next());
    match (second, shape.len().checked_sub(2)) {
        (None, _) => first,
        // Axes of equal length are told apart by name: rows have no last axis, columns no last but one.
        (_, Some(rows)) if slot.starts_with("col") => Some(rows).filter(lacks),
        (_, Some(rows)) if slot.starts_with("row") => Some(rows + 1).filter(lacks),
        _ => None,
    }
}

/// The elements at the kept indices of each axis.
pub(super) fn gather<T: Copy>(values: &[T], shape: &[usize], axes: &[Vec<usize>]) -> Tensor<T> {
    let kept: Vec<usize> = axes.iter().map(Vec::len).collect();
    // What is after the last cut axis stays whole, in runs.
    let cut = kept.iter().zip(shape).rposition(|(kept, n)| kept != n).map_or(0, |axis| axis + 1);
    let mut gathered = Vec::with_capacity(kept.iter().product());
    gather_into(values, &shape[..cut], &axes[..cut], &mut gathered);
    Tensor { shape: kept, values: gathered }
}

fn gather_into<T: Copy>(values: &[T], shape: &[usize], axes: &[Vec<usize>], gathered: &mut Vec<T>) {
    let ([n, shape @ ..], [kept, axes @ ..]) = (shape, axes) else { return gathered.extend_from_slice(values) };
    let inner = values.len() / n;
    if inner == 1 {
        gathered.extend(kept.iter().map(|&i| values[i]));
    } else {
        kept.iter().for_each(|&i| gather_into(&values[i * inner..(i + 1) * inner], shape, axes, gathered));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Optimizer, OptimizerExt, Step, TensorMut,
        optim::{Adafactor, Adam},
        slim::{Dense, Input},
    };
    use proptest::prelude::*;

    /// Three hidden units, of which the second goes, between two layers.
    fn plan(shape: [usize; 2]) -> (Plan, Slim<f32>) {
        let (w, v) = (vec![1f32; shape[0] * shape[1]], vec![1f32; 2 * shape[0]]);
        let weights = BTreeMap::from([
            ("w", TensorRef::new(&w, &shape).unwrap()),
            ("v", TensorRef::new(&v, &[2, shape[0]]).unwrap()),
        ]);
        let mut model = Topology::builder(weights.iter().map(|(name, w)| (*name, w.shape()))).unwrap();
        let x = model.add("x", Input::new(&shape[1..], 0), []).unwrap();
        let x = model.add("w", Dense::new("w"), [x]).unwrap();
        model.add("v", Dense::new("v"), [x]).unwrap();
        let topology = model.build().unwrap();
        let scores = topology.groups().iter().map(|group| (0..group.size).map(|i| f64::from(i != 1)).collect());
        let importance = Importance::new(&topology, scores.collect()).unwrap();
        let plan = Plan::new(&topology, &weights, &importance, &Keep::above(0.0).unwrap()).unwrap();
        let slim = plan.apply(&weights).unwrap();
        (plan, slim)
    }

    #[test]
    fn state_and_masks_are_cut_by_the_same_indices() {
        let (plan, slim) = plan([3, 2]);
        assert_eq!((plan.indices("w", 0).unwrap(), plan.indices("v", 0).unwrap()), (vec![0, 2], vec![0, 1]));
        let (mut w, g) = ([0f32; 6], [1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let adam = Adam::new(0.1).unwrap().with_betas(0.0, 0.0).unwrap();
        let g = TensorRef::new(&g, &[3, 2]).unwrap();
        let mut state = adam.init(&g).unwrap();
        adam.step(Step::new(TensorMut::new(&mut w, &[3, 2]).unwrap(), &g, &mut state)).unwrap();
        let cut = plan.cut_state("w", &state, &slim).unwrap();
        assert_eq!((cut.shape(), cut.steps()), (&[2, 2][..], 1));
        assert_eq!(cut.slots()[0].values().as_slice::<f32>(), Some(&[1.0, 2.0, 5.0, 6.0][..]));
        assert_eq!(plan.cut("w", &g).unwrap().values(), [1.0, 2.0, 5.0, 6.0]);
        let mask = plan.cut_mask("w", &Mask::from_fn(&[3, 2], |i| i >= 5).unwrap()).unwrap();
        assert_eq!((mask.shape(), mask.indices().collect::<Vec<_>>()), (&[2, 2][..], vec![3]));
        let mut slim = [0f32; 4];
        let slim = TensorMut::new(&mut slim, &[2, 2]).unwrap();
        adam.step(Step::new(slim, TensorRef::new(&[1f32; 4], &[2, 2]).unwrap(), &mut { cut })).unwrap();
    }

    #[test]
    fn factored_state_is_cut_along_the_axes_it_has() {
        for shape in [[3, 2], [3, 3]] {
            let (plan, slim) = plan(shape);
            let optimizer = Adafactor::new(0.1).unwrap();
            let mut w = vec![1f32; shape[0] * shape[1]];
            let g: Vec<f32> = (0..w.len()).map(|i| (i + 1) as f32).collect();
            let g = TensorRef::new(&g, &shape).unwrap();
            let mut state = optimizer.init(&g).unwrap();
            optimizer.step(Step::new(TensorMut::new(&mut w, &shape).unwrap(), &g, &mut state)).unwrap();
            let cut = plan.cut_state("w", &state, &slim).unwrap();
            let slot =
                |state: &State, name: &str| state.slot(name).unwrap().values().as_slice::<f32>().unwrap().to_vec();
            let rows = slot(&state, "row_var");
            assert_eq!(slot(&cut, "row_var"), [rows[0], rows[2]]);
            assert_eq!(slot(&cut, "col_var"), slot(&state, "col_var"));
            let small = [2, shape[1]];
            let mut w = vec![1f32; 2 * shape[1]];
            let grad = w.clone();
            let param = TensorMut::new(&mut w, &small).unwrap();
            optimizer.step(Step::new(param, TensorRef::new(&grad, &small).unwrap(), &mut { cut })).unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (plan, slim) = plan([3, 2]);
        assert!(plan.cut("w", &[0f32; 6]).is_err() && plan.cut("none", &[0f32; 6]).is_err());
        assert!(plan.indices("w", 2).is_err() && plan.indices("none", 0).is_err());
        assert!(plan.cut_mask("v", &Mask::keep_all(&[3, 2]).unwrap()).is_err());
        let odd = State::new::<f32>(&[3, 2], crate::Schema::new("odd").slot("s", &[6], 0.0)).unwrap();
        assert_eq!(plan.cut_state("w", &odd, &slim).unwrap_err().kind(), crate::ErrorKind::State);
        let state = State::new::<f32>(&[3, 2], crate::Schema::new("none")).unwrap();
        let (_, other) = self::plan([4, 2]);
        assert_eq!(plan.cut_state("w", &state, &other).unwrap_err().kind(), crate::ErrorKind::Shape);
    }

    proptest! {
        #[test]
        fn gathering_is_indexing(shape in prop::collection::vec(1usize..4, 1..4), seed in any::<u64>()) {
            let values: Vec<usize> = (0..shape.iter().product()).collect();
            let axes: Vec<Vec<usize>> = shape.iter().enumerate().map(|(axis, &n)| {
                let kept: Vec<usize> = (0..n).filter(|i| seed >> (4 * axis + i) & 1 == 0).collect();
                if kept.is_empty() { vec![n - 1] } else { kept }
            }).collect();
            let cut = gather(&values, &shape, &axes);
            let index = |flat: usize| {
                let mut rest = flat;
                let mut at: Vec<usize> = axes.iter().rev().map(|kept| {
                    let i = kept[rest % kept.len()];
                    rest /= kept.len();
                    i
                }).collect();
                at.reverse();
                at.iter().zip(&shape).fold(0, |flat, (i, n)| flat * n + i)
            };
            prop_assert_eq!(cut.shape.iter().product::<usize>(), cut.values.len());
            for (flat, value) in cut.values.iter().enumerate() {
                prop_assert_eq!(*value, index(flat));
            }
        }
    }
}
