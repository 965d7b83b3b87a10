//! Slimming in its steps: read, see, rank, plan, write, check, repair, measure.

use super::{
    Slimming,
    activations::gather,
    apply::apply,
    blocks,
    graph::Read,
    lower::{Lowering, lower},
    ranking::importance,
    report::SlimmedReport,
    runner,
    shapes::Shapes,
};
use crate::{
    compress::{
        onnx::nodes::constant,
        run::{Progress, Stage, Watch},
        runtime::{Feed, Inputs, Model, Spec},
        verify::Comparison,
    },
    error::{Error, Result},
    format::onnx::{self, proto::*},
    slim::{GroupReport, Plan, Slim},
};
use prost::Message;
use std::{collections::BTreeMap, ops::ControlFlow};

type Sample = Vec<(String, Feed)>;

/// Tells where the work is.
///
/// # Errors
/// [`Cancelled`](crate::ErrorKind::Cancelled) when it is to stop.
pub(super) fn step(watch: Watch<'_>, what: &str) -> Result<()> {
    match watch(Progress { stage: Stage::Slim, tensor: what, done: 0, total: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::cancelled()),
    }
}

/// The slim model, whose tensors have raw elements as the given one's, and what was done.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) for a graph that is none; [`Argument`](crate::ErrorKind::Argument) for a model with its own
/// training, and inputs that do not fit; [`Runtime`](crate::ErrorKind::Runtime) where the runtime cannot run it;
/// [`NonFinite`](crate::ErrorKind::NonFinite) for weights or values that are not finite;
/// [`Cancelled`](crate::ErrorKind::Cancelled) when `watch` says so.
pub(in crate::compress) fn slim(
    original: ModelProto,
    slimming: &Slimming,
    watch: Watch<'_>,
) -> Result<(ModelProto, SlimmedReport)> {
    if !original.training_info.is_empty() {
        return Err(Error::argument("model", "with training of its own", "one to be run only"));
    }
    let by = &slimming.inputs;
    let mut report = SlimmedReport { params_before: params(&original), ..SlimmedReport::default() };
    Read::new(&original)?;
    let specs = Model::new(original.clone(), original.encoded_len() as u64, by.limit)?.inputs;
    let samples = slimming.inputs.samples(&specs)?;
    let first = samples.first().map_or(&[][..], Vec::as_slice);
    let see = |model: &ModelProto| Shapes::new("the original model", model, &Read::new(model)?, &specs, first, by);

    let mut current = original.clone();
    let mut shapes = see(&current)?;
    for _ in 0..slimming.blocks {
        step(watch, "blocks")?;
        let Some(block) = blocks::drop_least(&mut current, &shapes, &samples, by)? else { break };
        report.blocks.push(block);
        shapes = see(&current)?;
    }
    let read = Read::new(&current)?;
    let lowering = lower(&read, &shapes)?;
    drop(shapes);

    step(watch, "calibration")?;
    let (plan, slim) = plan(&current, &lowering, slimming, &samples)?;
    let (mut model, named) = apply(&current, &read, &lowering, &slim)?;
    check(&model, &slim, &specs, first, by)?;
    #[cfg(feature = "linalg")]
    if let Some(damping) = slimming.repair {
        let work =
            super::refit::Refit { read: &read, lowering: &lowering, plan: &plan, named: &named, samples: &samples };
        report.repaired = work.run(&original, &mut model, damping, by, watch)?;
    }
    #[cfg(not(feature = "linalg"))]
    let _ = (&plan, &named, &mut model);

    raise(&mut model);
    step(watch, "comparison")?;
    report.outputs = measure(&original, &model, &samples, by)?;
    report.params_after = params(&model);
    (report.macs_before, report.macs_after) = (slim.report.macs_before, slim.report.macs_after);
    // Parts have names of their own here.
    let plain = |name: &str| lowering.parts.get(name).map_or(name, String::as_str).to_string();
    let weighs = |group: &&GroupReport| {
        lowering.topology.group(&group.name).is_some_and(|group| !group.members.is_empty()) && group.before > 1
    };
    let renamed = |group: &GroupReport| {
        let frozen = group.frozen.as_ref().filter(|_| group.after == group.before).cloned();
        GroupReport { name: plain(&group.name), frozen, ..group.clone() }
    };
    report.groups = slim.report.groups.iter().filter(weighs).map(renamed).collect();
    report.biases = slim.report.made.iter().map(|name| plain(name.strip_suffix(".bias").unwrap_or(name))).collect();
    report.frozen = lowering.frozen;
    Ok((model, report))
}

/// New initializers are no inputs: before version 4 of the format all had to be.
fn raise(model: &mut ModelProto) {
    if model.ir_version.unwrap_or(0) >= 4 {
        return;
    }
    model.ir_version = Some(4);
    if let Some(GraphProto { input, initializer, .. }) = &mut model.graph {
        input.retain(|input| !initializer.iter().any(|tensor| tensor.name == input.name));
    }
}

/// Which channels leave, and the tensors without them.
fn plan(model: &ModelProto, lowering: &Lowering, slimming: &Slimming, samples: &[Sample]) -> Result<(Plan, Slim<f32>)> {
    let groups = lowering.topology.groups();
    let mut values = BTreeMap::new();
    for site in &lowering.sites {
        if let Some((axis, places)) = lowering.topology.channels(&site.input)
            && places.iter().any(|place| groups[place.group].frozen.is_none())
        {
            values.insert(site.input.clone(), axis);
        }
    }
    let most = match slimming.ranking {
        #[cfg(feature = "linalg")]
        super::Ranking::Reconstruction => super::ranking::MOST,
        _ => 0,
    };
    let names: Vec<String> = values.keys().cloned().collect();
    let session = runner::load("the model", model, &names, &slimming.inputs)?;
    let stats = gather(&session, samples, &values, most)?;
    drop(session);

    let weights = lowering.weights()?;
    let scores = importance(lowering, &stats, slimming.ranking)?;
    let mut keep = slimming.keep(lowering.topology.params())?;
    for (name, stats) in stats {
        let width = lowering.topology.channels(&name).map_or(0, |(_, places)| places.len());
        if stats.mean.len() == width {
            keep = keep.with_replacement(name, stats.mean);
        }
    }
    let plan = Plan::new(&lowering.topology, &weights, &scores, &keep)?;
    let slim = plan.apply(&weights)?;
    Ok((plan, slim))
}

/// An error where the model that was written is no graph, does not run, or a value of it is not of the shape that it should have.
fn check(model: &ModelProto, slim: &Slim<f32>, specs: &[Spec], sample: &[(String, Feed)], by: &Inputs) -> Result<()> {
    let read = Read::new(model)?;
    let shapes = Shapes::new("the slim model", model, &read, specs, sample, by)?;
    for name in read.graph.node.iter().flat_map(|node| &node.output) {
        if let (Some(expected), Some(found)) = (slim.topology.shape(name), shapes.shape(name))
            && expected != found
        {
            return Err(Error::shape("value of the slim model", expected, &found).in_tensor(name));
        }
    }
    Ok(())
}

/// How the outputs differ.
fn measure(
    original: &ModelProto,
    slim: &ModelProto,
    samples: &[Sample],
    by: &Inputs,
) -> Result<Vec<crate::compress::verify::OutputReport>> {
    let outputs = original.graph.iter().flat_map(|graph| &graph.output).filter_map(|output| output.name.clone());
    let outputs: Vec<String> = outputs.collect();
    let session = runner::load("the original model", original, &[], by)?;
    let want = samples.iter().map(|sample| session.run(sample, &outputs)).collect::<Result<Vec<_>>>()?;
    let session = runner::load("the slim model", slim, &[], by)?;
    let mut comparisons: Vec<_> = outputs.iter().map(|name| Comparison::new(name)).collect();
    for (i, (sample, want)) in samples.iter().zip(want).enumerate() {
        for ((comparison, want), got) in comparisons.iter_mut().zip(want).zip(session.run(sample, &outputs)?) {
            comparison.add(i, &want, &got)?;
        }
    }
    Ok(comparisons.into_iter().map(Comparison::finish).collect())
}

/// Floating-point numbers in the initializers and constants of the main graph.
fn params(model: &ModelProto) -> usize {
    use crate::format::file::ElementType::{Bf16, F16, F32, F64};
    let volume = |tensor: &TensorProto| {
        let info = onnx::tensor_info(String::new(), tensor).ok().flatten();
        let info = info.filter(|info| matches!(info.element, F32 | F64 | F16 | Bf16));
        info.and_then(|info| info.volume().ok()).unwrap_or(0)
    };
    let of = |graph: &GraphProto| -> usize {
        let constants = graph.node.iter().filter_map(constant);
        graph.initializer.iter().chain(constants).map(volume).sum()
    };
    model.graph.as_ref().map_or(0, of)
}
