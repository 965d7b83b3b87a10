//! A plan carried out on a chain of dense layers: cut tensors, folded constants.

use super::{
    chain::{Chain, Dense, INPUTS},
    plan::{GroupPlan, Plan},
    report::{GroupReport, SlimReport},
};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{TensorRef, qtensor::check_finite},
};

impl<T: Element> Chain<T> {
    /// Carries out a plan of this chain's [`topology`](Chain::topology): a smaller chain, and what was done.
    ///
    /// A unit without incoming weights is a constant, `activation(bias)`; any other unit that goes is taken for what
    /// [`Plan::replace`] says, else 0. The constant times the weights onward is added to the next layer's bias, which
    /// is made where there is none. Layers are taken in order, so that a unit whose inputs are all gone is
    /// constant too. Sums are in `f64`, rounded once. Outputs of the last layer cannot go; inputs can,
    /// where they were unfrozen, and the caller feeds the kept ones.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the plan is another chain's or drops outputs of the last layer;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) when a folded bias overflows.
    pub fn slim(&self, plan: &Plan) -> Result<(Self, SlimReport)> {
        let layers = self.layers();
        let mut groups = plan.groups().iter();
        let inputs = groups.next().filter(|plan| plan.group.name == INPUTS);
        let mut incoming = inputs.ok_or_else(|| foreign(INPUTS))?;
        if incoming.group.size != layers[0].inputs() {
            return Err(foreign(INPUTS));
        }
        let mut constants = Constants::none(incoming);
        let (mut slim, mut reports) = (Vec::new(), Vec::new());
        for layer in layers {
            let outgoing = groups.next().ok_or_else(|| foreign(layer.name()))?;
            if outgoing.group.name != layer.name() || outgoing.group.size != layer.outputs() {
                return Err(foreign(layer.name()));
            }
            reports.push(constants.report(incoming, layer));
            let folded = fold(layer, incoming, &constants)?;
            constants = Constants::of(&folded, outgoing);
            let weight = rows(folded.weight_tensor(), &outgoing.kept);
            let bias = folded.bias().map(|bias| outgoing.kept.iter().map(|&i| bias[i]).collect());
            slim.push(layer.with(folded.inputs(), outgoing.kept.len(), weight, bias));
            incoming = outgoing;
        }
        if let Some(more) = groups.next() {
            return Err(foreign(&more.group.name));
        }
        if incoming.kept.len() != incoming.group.size {
            return Err(Error::argument("plan", "one that drops outputs of the model", "one that keeps them"));
        }
        reports.push(GroupReport { constant: 0, unread: 0, ..group_report(incoming) });
        let slim = Self::from_layers(slim);
        let report = SlimReport::new(self, &slim, Vec::new(), reports);
        Ok((slim, report))
    }
}

fn foreign(name: &str) -> Error {
    Error::argument("plan", "of another topology", "made from this chain's").in_tensor(name)
}

/// What each channel of a group is, where it does not depend on the input.
struct Constants(Vec<Option<f64>>);

impl Constants {
    /// Inputs are what they are.
    fn none(plan: &GroupPlan) -> Self {
        Self(vec![None; plan.group.size])
    }

    /// Of the outputs of a layer: those without incoming weights.
    fn of<T: Element>(layer: &Dense<T>, plan: &GroupPlan) -> Self {
        let constant = |i: usize| {
            let row = &layer.weight()[i * layer.inputs()..(i + 1) * layer.inputs()];
            let bias = layer.bias().map_or(0.0, |bias| bias[i].to_f64());
            row.iter().all(|w| *w == T::default()).then(|| layer.activation().at(bias))
        };
        Self((0..plan.group.size).map(constant).collect())
    }

    /// What a channel that goes is taken for.
    fn value(&self, plan: &GroupPlan, i: usize) -> f64 {
        let replacement = || plan.replacement.as_ref().map_or(0.0, |constants| constants[i]);
        self.0[i].unwrap_or_else(replacement)
    }

    /// What going meant for the channels that `reader` reads.
    fn report<T: Element>(&self, plan: &GroupPlan, reader: &Dense<T>) -> GroupReport {
        let unread = |&i: &usize| {
            self.0[i].is_none() && reader.weight().iter().skip(i).step_by(reader.inputs()).all(|w| *w == T::default())
        };
        GroupReport {
            constant: dropped(plan).filter(|&i| self.0[i].is_some()).count(),
            unread: dropped(plan).filter(unread).count(),
            ..group_report(plan)
        }
    }
}

fn group_report(plan: &GroupPlan) -> GroupReport {
    GroupReport {
        name: plan.group.name.clone(),
        before: plan.group.size,
        requested: plan.requested,
        after: plan.kept.len(),
        constant: 0,
        unread: 0,
        frozen: plan.group.frozen.clone(),
    }
}

/// The channels that go, ascending.
fn dropped(plan: &GroupPlan) -> impl Iterator<Item = usize> + '_ {
    let mut kept = plan.kept.iter().peekable();
    (0..plan.group.size).filter(move |i| kept.next_if(|&&k| k == *i).is_none())
}

/// The layer without the inputs that go; what they are taken for is in its bias.
fn fold<T: Element>(layer: &Dense<T>, plan: &GroupPlan, constants: &Constants) -> Result<Dense<T>> {
    let inputs = layer.inputs();
    let values: Vec<(usize, f64)> =
        dropped(plan).map(|i| (i, constants.value(plan, i))).filter(|(_, value)| *value != 0.0).collect();
    let rows = || layer.weight().chunks_exact(inputs);
    let weight = rows().flat_map(|row| plan.kept.iter().map(|&i| row[i])).collect();
    let shift = |row: &[T]| values.iter().map(|&(i, value)| row[i].to_f64() * value).sum::<f64>();
    let bias = match layer.bias() {
        Some(bias) => Some(rows().zip(bias).map(|(row, b)| T::from_f64(b.to_f64() + shift(row))).collect::<Vec<_>>()),
        None if values.is_empty() => None,
        None => Some(rows().map(|row| T::from_f64(shift(row))).collect()),
    };
    if let Some(bias) = &bias {
        check_finite("folded bias", bias).map_err(|error| error.in_tensor(layer.name()))?;
    }
    Ok(layer.with(plan.kept.len(), layer.outputs(), weight, bias))
}

fn rows<T: Element>(matrix: TensorRef<'_, T>, kept: &[usize]) -> Vec<T> {
    let cols = matrix.shape()[1];
    kept.iter().flat_map(|&i| matrix.as_slice()[i * cols..(i + 1) * cols].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slim::{Activation, Importance, Keep};
    use proptest::prelude::*;

    fn forward(chain: &Chain<f64>, x: &[f64]) -> Vec<f64> {
        chain.forward(x).unwrap()
    }

    prop_compose! {
        /// A chain of random widths whose weights are mostly 0, so that units die.
        fn chains()(widths in prop::collection::vec(1usize..6, 3..6))(
            weights in prop::collection::vec(prop::collection::vec(prop_oneof![3 => Just(0.0), 1 => -2.0..2.0f64], 25), widths.len() - 1),
            biases in prop::collection::vec(prop::collection::vec(-1.0..1.0f64, 5), widths.len() - 1),
            with_bias in prop::collection::vec(any::<bool>(), widths.len() - 1),
            activations in prop::collection::vec(prop::sample::select(vec![Activation::Relu, Activation::Tanh, Activation::Sigmoid, Activation::Identity]), widths.len() - 1),
            x in prop::collection::vec(-1.0..1.0f64, widths[0]),
            widths in Just(widths),
        ) -> (Chain<f64>, Vec<f64>) {
            let layers = (0..widths.len() - 1).map(|i| {
                let (inputs, outputs) = (widths[i], widths[i + 1]);
                let weight = TensorRef::new(&weights[i][..inputs * outputs], &[outputs, inputs]).unwrap();
                let bias = with_bias[i].then(|| &biases[i][..outputs]);
                Dense::new(format!("fc{i}"), weight, bias, activations[i]).unwrap()
            });
            (Chain::new(layers.collect()).unwrap(), x)
        }
    }

    proptest! {
        #[test]
        fn dropping_what_does_not_matter_changes_nothing((chain, x) in chains()) {
            let topology = chain.topology().unwrap();
            let plan = Plan::new(&topology, &chain.importance().unwrap(), Keep::Above(0.0)).unwrap();
            let (slim, report) = chain.slim(&plan).unwrap();
            prop_assert!(report.is_exact(), "{report}");
            prop_assert!(slim.params() <= chain.params() + chain.layers().iter().map(Dense::outputs).sum::<usize>());
            for (a, b) in forward(&chain, &x).into_iter().zip(forward(&slim, &x)) {
                prop_assert!((a - b).abs() <= 1e-12 * (1.0 + a.abs()), "{a} {b}\n{report}");
            }
        }

        #[test]
        fn replaced_channels_act_as_their_constants((chain, x) in chains(), constant in -1.0..1.0f64, keep in 0.0..1.0f64) {
            // Input channels that go must act as if they had been fed the constant.
            let topology = chain.topology().unwrap().unfreeze(INPUTS).unwrap();
            let scores = topology.groups().iter().map(|g| (0..g.size).map(|i| (i * 7 % 5 + 1) as f64).collect()).collect();
            let importance = Importance::new(&topology, scores).unwrap();
            let mut widths: Vec<_> = topology.groups()[..topology.groups().len() - 1].iter().map(|g| g.size).collect();
            widths[0] = (keep * widths[0] as f64) as usize;
            let plan = Plan::new(&topology, &importance, Keep::Widths(widths)).unwrap();
            let plan = plan.replace(INPUTS, vec![constant; x.len()]).unwrap();
            let (slim, report) = chain.slim(&plan).unwrap();
            let kept = plan.kept(INPUTS).unwrap();
            let fed: Vec<f64> = (0..x.len()).map(|i| if kept.contains(&i) { x[i] } else { constant }).collect();
            let x: Vec<f64> = kept.iter().map(|&i| x[i]).collect();
            for (a, b) in forward(&chain, &fed).into_iter().zip(forward(&slim, &x)) {
                prop_assert!((a - b).abs() <= 1e-12 * (1.0 + a.abs()), "{a} {b}\n{report}");
            }
        }
    }

    #[test]
    fn plans_that_do_not_fit_are_refused_and_overflow_is_named() {
        let dense = |name, weight: f32, bias: f32| {
            Dense::new(name, TensorRef::new(&[weight], &[1, 1]).unwrap(), Some(&[bias]), Activation::Identity).unwrap()
        };
        let chain = Chain::new(vec![dense("a", 1.0, 0.0), dense("b", f32::MAX, f32::MAX)]).unwrap();
        let other = Chain::new(vec![dense("b", 1.0, 0.0)]).unwrap();
        let plan = |chain: &Chain<f32>| {
            Plan::new(&chain.topology().unwrap(), &chain.importance().unwrap(), Keep::Ratio(1.0)).unwrap()
        };
        assert!(chain.slim(&plan(&other)).is_err() && other.slim(&plan(&chain)).is_err());
        let first = Chain::new(vec![dense("a", 1.0, 0.0)]).unwrap();
        assert!(first.slim(&plan(&chain)).is_err());
        let topology = chain.topology().unwrap().unfreeze("b").unwrap();
        let importance = Importance::new(&topology, vec![vec![1.0], vec![1.0], vec![1.0]]).unwrap();
        let all = Plan::new(&topology, &importance, Keep::Ratio(1.0)).unwrap();
        assert!(chain.slim(&all).is_ok());
        let wide = Dense::new("w", TensorRef::new(&[1f32, 1.0], &[2, 1]).unwrap(), None, Activation::Identity).unwrap();
        let head =
            Dense::new("h", TensorRef::new(&[f32::MAX, 1.0], &[1, 2]).unwrap(), None, Activation::Identity).unwrap();
        let chain = Chain::new(vec![wide, head]).unwrap();
        let topology = chain.topology().unwrap();
        let importance = Importance::new(&topology, vec![vec![1.0], vec![0.0, 1.0], vec![1.0]]).unwrap();
        let plan =
            Plan::new(&topology, &importance, Keep::Widths(vec![1])).unwrap().replace("w", vec![2.0, 2.0]).unwrap();
        let error = chain.slim(&plan).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (crate::ErrorKind::NonFinite, Some("h")));
    }
}
