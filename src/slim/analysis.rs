//! What each channel is where it does not depend on the model's inputs, and what forbids that it goes.

use super::{
    rules::{Constants, Reads, Source},
    topology::{Graph, Layout},
};
use std::collections::BTreeMap;

/// What going means for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It is a constant wherever it is read.
    Constant,
    /// Where it is none, it is read by weights that are 0.
    Unread,
    /// The model computes something else without it.
    Matters,
}

/// Of a model with its weights.
#[derive(Debug)]
pub(super) struct Analysis {
    /// Of each value's channels, what they are when they go.
    pub(super) gone: Vec<Constants>,
    /// Of each group's channels.
    pub(super) verdicts: Vec<Vec<Verdict>>,
    /// Of each group's channels, why they cannot go exactly, where that is so.
    pub(super) held: Vec<Vec<Option<String>>>,
}

impl Analysis {
    /// `replacements` says what a node's channels are taken for when they go, unless they are constants.
    pub(super) fn new(graph: &Graph, weights: &dyn Source, replacements: &BTreeMap<usize, Vec<f64>>) -> Self {
        let (mut known, mut gone): (Vec<Constants>, Vec<Constants>) = (Vec::new(), Vec::new());
        for (node, entry) in graph.nodes.iter().enumerate() {
            let (at, rule) = (graph.at(node), entry.rule.rule());
            let inputs = |all: &[Constants]| entry.inputs.iter().map(|&input| all[input].clone()).collect::<Vec<_>>();
            let sure = rule.constants(at, weights, &inputs(&known), false);
            let mut guess = rule.constants(at, weights, &inputs(&gone), true);
            if let Some(values) = replacements.get(&node) {
                guess = Constants::new(&entry.layout, values.iter().copied().map(Some).collect());
            }
            if sure.axes == guess.axes {
                guess.values.iter_mut().zip(&sure.values).for_each(|(guess, sure)| *guess = sure.or(*guess));
            }
            known.push(sure);
            gone.push(guess);
        }
        let verdicts = graph.groups.iter().map(|group| vec![Verdict::Constant; group.size]).collect();
        let held = graph.groups.iter().map(|group| vec![None; group.size]).collect();
        let mut analysis = Self { gone, verdicts, held };
        for (node, entry) in graph.nodes.iter().enumerate() {
            let (at, rule) = (graph.at(node), entry.rule.rule());
            for (k, &value) in entry.inputs.iter().enumerate() {
                let reads = rule.reads(at, weights, k);
                analysis.judge(graph, &graph.nodes[value].layout, &known[value], value, &reads, &entry.name);
            }
            let reads = rule.feeds_back(at, weights);
            analysis.judge(graph, &entry.layout, &known[node], node, &reads, &entry.name);
        }
        analysis
    }

    fn judge(
        &mut self,
        graph: &Graph,
        layout: &Layout,
        known: &Constants,
        value: usize,
        reads: &[Reads],
        reader: &str,
    ) {
        if reads.is_empty() {
            return;
        }
        let known = known.per_channel(layout);
        let gone = self.gone[value].per_channel(layout);
        for ((read, &atom), (known, gone)) in reads.iter().zip(layout.atoms()).zip(known.into_iter().zip(gone)) {
            let place = graph.places[atom];
            let matters = |exact: bool| if exact { Verdict::Constant } else { Verdict::Matters };
            let varies = || format!("not a constant where `{reader}` reads it");
            let (verdict, reason) = match read {
                Reads::Nothing if known.is_some() => (Verdict::Constant, None),
                Reads::Nothing => (Verdict::Unread, None),
                Reads::Constant => (matters(known.is_some()), gone.is_none().then(varies)),
                Reads::Zero(reason) => {
                    let why = match gone {
                        None => Some(varies()),
                        Some(0.0) => None,
                        Some(_) => Some(reason.clone()),
                    };
                    (matters(known == Some(0.0)), why)
                }
                Reads::Never(reason) => (Verdict::Matters, Some(reason.clone())),
            };
            let worst = &mut self.verdicts[place.group][place.at];
            *worst = verdict.max(*worst);
            let held = &mut self.held[place.group][place.at];
            *held = held.take().or(reason);
        }
    }
}
