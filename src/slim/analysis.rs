//! What each channel is where it does not depend on the model's inputs, and what forbids that it goes.

use super::{
    rules::{Constants, Reads, Source},
    topology::{Atom, Graph, Layout},
};
use std::collections::BTreeMap;

/// What going means for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It is a constant wherever it is read.
    Constant,
    /// Where it is none, it is read by weights that are 0.
    Unread,
    /// The model computes something else without it.
    Matters,
}

/// Of a model with its weights.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// Of each value's channels, what they are when they go.
    pub(crate) gone: Vec<Constants>,
    /// Of each group's channels.
    pub(super) verdicts: Vec<Vec<Verdict>>,
    /// Of each group's channels, why they cannot go exactly, where that is so.
    pub(super) held: Vec<Vec<Option<String>>>,
}

impl Analysis {
    /// `replacements` says what a node's channels are taken for when they go, unless they are constants.
    pub(super) fn new(graph: &Graph, weights: &dyn Source, replacements: &BTreeMap<usize, Vec<f64>>) -> Self {
        let readings = readings(graph, weights);
        let verdicts = graph.groups.iter().map(|group| vec![Verdict::Constant; group.size]).collect();
        let held = graph.groups.iter().map(|group| vec![None; group.size]).collect();
        let mut analysis = Self { gone: Vec::new(), verdicts, held };
        // What matters somewhere is masked when it goes, and what is made of it is no constant then: so until no more is found.
        let known = loop {
            let mut known: Vec<Constants> = Vec::new();
            for (node, entry) in graph.nodes.iter().enumerate() {
                let all = constants(graph, weights, node, &known, false);
                let nothing = Constants { values: vec![None; all.values.len()], ..all.clone() };
                known.push(
                    nothing.or(&all, &entry.layout, |channel| analysis.is_constant(graph, &entry.layout, channel)),
                );
            }
            let before = analysis.verdicts.clone();
            readings.iter().for_each(|reading| analysis.judge(graph, reading, &known[reading.value]));
            if analysis.verdicts == before {
                break known;
            }
        };
        for (node, entry) in graph.nodes.iter().enumerate() {
            let mut guess = constants(graph, weights, node, &analysis.gone, true);
            if let Some(values) = replacements.get(&node) {
                guess = Constants::new(&entry.layout, values.iter().copied().map(Some).collect());
            }
            // A channel that is constant everywhere stays that constant; any other is as all that makes it was masked.
            let gone =
                guess.or(&known[node], &entry.layout, |channel| analysis.is_constant(graph, &entry.layout, channel));
            analysis.gone.push(gone);
        }
        readings.iter().for_each(|reading| analysis.hold(graph, reading));
        analysis
    }

    /// What going means for a channel.
    pub(crate) fn verdict(&self, graph: &Graph, atom: Atom) -> Verdict {
        let place = graph.places[atom];
        self.verdicts[place.group][place.at]
    }

    fn is_constant(&self, graph: &Graph, layout: &Layout, channel: usize) -> bool {
        self.verdict(graph, layout.atoms()[channel]) == Verdict::Constant
    }

    fn judge(&mut self, graph: &Graph, reading: &Reading<'_>, known: &Constants) {
        let known = known.per_channel(reading.layout);
        for ((read, &atom), known) in reading.reads.iter().zip(reading.layout.atoms()).zip(known) {
            let constant = match read {
                Reads::Nothing | Reads::Constant => known.is_some(),
                Reads::Zero(_) => known == Some(0.0),
                Reads::Never(_) => false,
            };
            let verdict = match (constant, read) {
                (true, _) => Verdict::Constant,
                (false, Reads::Nothing) => Verdict::Unread,
                (false, _) => Verdict::Matters,
            };
            let place = graph.places[atom];
            let worst = &mut self.verdicts[place.group][place.at];
            *worst = verdict.max(*worst);
        }
    }

    fn hold(&mut self, graph: &Graph, reading: &Reading<'_>) {
        let gone = self.gone[reading.value].per_channel(reading.layout);
        for ((read, &atom), gone) in reading.reads.iter().zip(reading.layout.atoms()).zip(gone) {
            let reason = match (read, gone) {
                (Reads::Nothing, _) | (Reads::Constant, Some(_)) | (Reads::Zero(_), Some(0.0)) => continue,
                (Reads::Zero(reason), Some(_)) | (Reads::Never(reason), _) => reason.clone(),
                (_, None) => format!("not a constant where `{}` reads it", reading.reader),
            };
            let place = graph.places[atom];
            self.held[place.group][place.at].get_or_insert(reason);
        }
    }
}

fn constants(graph: &Graph, weights: &dyn Source, node: usize, before: &[Constants], masked: bool) -> Constants {
    let entry = &graph.nodes[node];
    let inputs: Vec<Constants> = entry.inputs.iter().map(|&input| before[input].clone()).collect();
    let mut constants = entry.rule.rule().constants(graph.at(node), weights, &inputs, masked);
    // What overflows is no number to fold.
    constants.values.iter_mut().for_each(|value| *value = value.filter(|c| c.is_finite()));
    constants
}

/// How a node reads a value's channels.
struct Reading<'a> {
    reader: &'a str,
    value: usize,
    layout: &'a Layout,
    reads: Vec<Reads>,
}

/// All of them, in order.
fn readings<'a>(graph: &'a Graph, weights: &dyn Source) -> Vec<Reading<'a>> {
    let mut all = Vec::new();
    for (node, entry) in graph.nodes.iter().enumerate() {
        let (at, rule) = (graph.at(node), entry.rule.rule());
        let reading =
            |value: usize, reads| Reading { reader: &entry.name, value, layout: &graph.nodes[value].layout, reads };
        all.extend(entry.inputs.iter().enumerate().map(|(k, &value)| reading(value, rule.reads(at, weights, k))));
        all.push(reading(node, rule.feeds_back(at, weights)));
    }
    all
}
