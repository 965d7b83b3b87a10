//! A plan carried out: cut tensors, folded constants, and the topology of what is left.

use super::{
    analysis::Analysis,
    plan::{Plan, gather},
    report::{Difference, SlimReport},
    rules::{Cut, Edits, Fold},
    tensor::{Bound, Tensor, views},
    topology::Topology,
};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{TensorRef, qtensor::check_finite},
};
use std::{borrow::Borrow, collections::BTreeMap};

/// A slim model.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct Slim<T> {
    /// All tensors by name, also those that did not change, and biases that folding made.
    pub tensors: BTreeMap<String, Tensor<T>>,
    /// The same nodes over these tensors. [`Topology::number`] gives what changed of one: groups, heads, `eps`.
    pub topology: Topology,
    /// What was done.
    pub report: SlimReport,
    /// What folding added to the elements of each tensor that it changed.
    pub(super) shifts: BTreeMap<String, Vec<f64>>,
}

impl<T: Element> Slim<T> {
    /// The tensors as views: to be used, or slimmed again.
    #[must_use]
    pub fn weights(&self) -> BTreeMap<String, TensorRef<'_, T>> {
        views(&self.tensors)
    }
}

impl Plan {
    /// Carries the plan out.
    ///
    /// A channel that is constant is that constant when it goes; any other is what [`Keep::with_replacement`](super::Keep::with_replacement)
    /// says, else what is left of it when the weights that [produce](super::Role::Produces) it are 0: its bias, say, as
    /// batch normalization and activation make it. The constant is folded where it is read: the weights times it go to the bias, in
    /// `f64`, rounded once. A bias that is not there is made, named `NODE.bias`; where batch normalization follows, its mean moves
    /// instead.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a weight is missing, or with these weights a channel that goes cannot be folded
    /// exactly, and approximation was not asked for; [`Shape`](crate::ErrorKind::Shape) when a weight has another
    /// shape; [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite weight, or when a folded number overflows.
    pub fn apply<T: Element, K: Borrow<str> + Ord>(&self, weights: &BTreeMap<K, TensorRef<'_, T>>) -> Result<Slim<T>> {
        let graph = &*self.topology.0;
        let bound = Bound::new(graph, weights)?;
        let analysis = Analysis::new(graph, &bound, &self.replacements);
        for (plan, (kept, held)) in self.groups.iter().zip(self.kept.0.iter().zip(&analysis.held)) {
            let mut held = kept.iter().zip(held).filter(|(kept, _)| !**kept && !self.approximate);
            if let Some(reason) = held.find_map(|(_, reason)| reason.as_ref()) {
                let error = Error::argument("weights", reason, "those that the plan was made for");
                return Err(error.in_tensor(&plan.name));
            }
        }
        let mut edits = Edits::default();
        for (node, entry) in graph.nodes.iter().enumerate() {
            let (at, analysis) = (graph.at(node), &analysis);
            entry.rule.rule().fold(&mut Fold { at, weights: &bound, kept: &self.kept, analysis, edits: &mut edits });
        }
        let (mut tensors, mut shifts) = (BTreeMap::new(), BTreeMap::new());
        for (index, (shape, given)) in graph.tensors.iter().zip(&bound.0).enumerate() {
            let axes = self.axes(&shape.name, &shape.shape)?;
            let mut cut = gather(given.as_slice(), &shape.shape, &axes);
            if let Some(values) = edits.tensors.get(&index) {
                let folded: Tensor<T> = narrow(&shape.name, gather(values, &shape.shape, &axes))?;
                let added = folded.values.iter().zip(&cut.values).map(|(new, old)| new.to_f64() - old.to_f64());
                shifts.insert(shape.name.clone(), added.collect());
                cut = folded;
            }
            tensors.insert(shape.name.clone(), cut);
        }
        let mut made = Vec::new();
        for (name, values, atoms) in edits.biases.values() {
            let kept = self.kept.indices(graph, atoms);
            tensors.insert(name.clone(), narrow(name, gather(values, &[values.len()], &[kept]))?);
            made.push(name.clone());
        }
        let names = graph.tensors.iter().map(|tensor| &tensor.name).chain(&made);
        let shapes: Vec<_> = names.filter_map(|name| Some((name.clone(), tensors.get(name)?.shape.clone()))).collect();
        let topology = graph.replay(shapes, &[], |node| {
            graph.nodes[node].rule.rule().slim(Cut { at: graph.at(node), kept: &self.kept, edits: &edits })
        })?;
        let report = SlimReport::new::<T>(self, &topology, &analysis.verdicts, made);
        Ok(Slim { tensors, topology, report, shifts })
    }

    /// Runs a model before and after, and notes in the slim one's report how far its outputs are off. `run` computes outputs of
    /// a topology with its tensors, over data of the caller's; `before` is what the slim model is compared with: the
    /// [`masked`](Plan::masked) tensors, to see what approximation costs, or the original ones, to see what slimming does.
    ///
    /// # Errors
    /// Those of `run`; [`Shape`](crate::ErrorKind::Shape) when the outputs are not as many, [`Empty`](crate::ErrorKind::Empty)
    /// when there is none, [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite one.
    pub fn measure<T: Element, K: Borrow<str> + Ord>(
        &self,
        before: &BTreeMap<K, TensorRef<'_, T>>,
        slim: &mut Slim<T>,
        mut run: impl FnMut(&Topology, &BTreeMap<String, TensorRef<'_, T>>) -> Result<Vec<f64>>,
    ) -> Result<Difference> {
        let named = before.iter().map(|(name, tensor)| (name.borrow().to_owned(), TensorRef::from(tensor)));
        let expected = run(&self.topology, &named.collect())?;
        let found = run(&slim.topology, &slim.weights())?;
        let difference = Difference::new(&expected, &found)?;
        slim.report.difference = Some(difference);
        Ok(difference)
    }
}

/// Rounds once.
fn narrow<T: Element>(name: &str, tensor: Tensor<f64>) -> Result<Tensor<T>> {
    let values: Vec<T> = tensor.values.iter().map(|x| T::from_f64(*x)).collect();
    check_finite("folded tensor", &values).map_err(|error| error.in_tensor(name))?;
    Ok(Tensor { shape: tensor.shape, values })
}
