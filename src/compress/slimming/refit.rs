//! The repair of a slim model: its layers fitted one after another, each on what those before it give now.

use super::{
    apply::Named,
    graph::Read,
    lower::{Lowering, Site},
    repair::{Fit, changed},
    report::RepairedLayer,
    run::step,
    runner,
};
use crate::{
    compress::{
        onnx::floats,
        run::Watch,
        runtime::{Feed, Inputs},
    },
    error::{Error, Result},
    format::onnx::proto::*,
    slim::Plan,
};

/// All that the fits need to know.
pub(super) struct Refit<'a> {
    pub(super) read: &'a Read<'a>,
    pub(super) lowering: &'a Lowering,
    pub(super) plan: &'a Plan,
    pub(super) named: &'a Named,
    pub(super) samples: &'a [Vec<(String, Feed)>],
}

impl Refit<'_> {
    /// Fits the layers of `model` to what they gave in `original`.
    ///
    /// # Errors
    /// Those of running the models; [`NonFinite`](crate::ErrorKind::NonFinite) where their values are not finite;
    /// [`Cancelled`](crate::ErrorKind::Cancelled) when `watch` says so.
    pub(super) fn run(
        &self,
        original: &ModelProto,
        model: &mut ModelProto,
        damping: f64,
        by: &Inputs,
        watch: Watch<'_>,
    ) -> Result<Vec<RepairedLayer>> {
        let outputs: Vec<String> = self.lowering.sites.iter().map(|site| site.output.clone()).collect();
        let before = runner::load("the original model", original, &outputs, by)?;
        let mut repaired = Vec::new();
        for site in &self.lowering.sites {
            step(watch, &site.output)?;
            // What reads the model's inputs gives what it gave.
            if self.read.is_input(&site.input) {
                continue;
            }
            let kept = self.kept(&site.output);
            let (Some(weight), Some(kept)) = (self.owned(&site.weight), kept) else { continue };
            let bias = self.bias(site);
            let Some((shape, weights)) = find(model, &weight) else { continue };
            let outputs = if site.inputs_first { shape[1] } else { shape[0] };
            let mut fit = Fit::new(weights.len() / outputs.max(1), outputs, bias.is_some())?;
            let names = [site.input.clone(), site.output.clone()];
            let now = runner::load("the slim model", model, &names, by)?;
            let mut skip = None;
            for sample in self.samples {
                let (values, was) = (now.run(sample, &names)?, before.run(sample, &names[1..])?);
                let ([x, y], [was]) = (&values[..], &was[..]) else { continue };
                let positions = y.values.len() / outputs.max(1) * self.samples.len();
                let skip = *skip.get_or_insert_with(|| fit.step(positions));
                fit.add(site, x, y, was, &kept, skip).map_err(|error| error.in_tensor(&site.output))?;
            }
            let change = fit.solve(damping).map_err(|error| error.in_tensor(&site.output))?;
            if change.before == 0.0 {
                continue;
            }
            let mut new = vec![(weight, shape.clone(), changed(site, &shape, &weights, &change.weights))];
            if let (Some(bias), Some(shift)) = (bias, &change.bias) {
                let Some((shape, values)) = find(model, &bias) else { continue };
                let values = values.iter().zip(shift).map(|(&b, shift)| (f64::from(b) + shift) as f32).collect();
                new.push((bias, shape, values));
            }
            // What overflows is not taken.
            if new.iter().all(|(.., values)| values.iter().all(|x| x.is_finite())) {
                for (name, shape, values) in new {
                    replace(model, &name, &shape, &values)?;
                }
                repaired.push(change.report(&site.output));
            }
        }
        Ok(repaired)
    }

    /// The channels of a value that are left; `None` where it is not known.
    fn kept(&self, value: &str) -> Option<Vec<usize>> {
        let (_, places) = self.lowering.topology.channels(value)?;
        let groups = self.plan.groups();
        let indices = places.iter().enumerate().filter(|(_, place)| {
            groups.get(place.group).is_some_and(|group| group.kept.binary_search(&place.at).is_ok())
        });
        Some(indices.map(|(index, _)| index).collect())
    }

    /// The name in the slim model of a tensor that one layer alone has.
    fn owned(&self, tensor: &str) -> Option<String> {
        let used = |site: &&Site| site.weight == tensor || site.bias.as_deref() == Some(tensor);
        if self.lowering.sites.iter().filter(used).count() != 1 {
            return None;
        }
        let root = self.lowering.tensors.get(tensor)?.root.clone()?;
        match self.named.tensors.get(tensor) {
            Some(name) => Some(name.clone()),
            None => (self.read.is_constant(&root) && self.read.uses(&root) == 1).then_some(root),
        }
    }

    fn bias(&self, site: &Site) -> Option<String> {
        let made = self.named.biases.get(&format!("{}.bias", site.from));
        made.cloned().or_else(|| self.owned(site.bias.as_ref()?))
    }
}

/// The tensor of a constant of this name.
fn tensor<'a>(model: &'a mut ModelProto, name: &str) -> Option<&'a mut TensorProto> {
    let graph = model.graph.as_mut()?;
    let named = |tensor: &&mut TensorProto| tensor.name.as_deref() == Some(name);
    if let Some(tensor) = graph.initializer.iter_mut().find(named) {
        return Some(tensor);
    }
    let makes = |node: &&mut NodeProto| node.output.first().is_some_and(|output| output == name);
    let node = graph.node.iter_mut().find(makes)?;
    node.attribute.iter_mut().find_map(|attribute| attribute.t.as_mut())
}

fn find(model: &mut ModelProto, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let tensor = tensor(model, name)?;
    floats::numbers(name, tensor).ok()?
}

fn replace(model: &mut ModelProto, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
    let new = floats::tensor(name, shape, values)?;
    let missing = || Error::argument("tensor", "missing", "one of the slim model").in_tensor(name);
    let old = tensor(model, name).ok_or_else(missing)?;
    *old = TensorProto { name: old.name.clone(), ..new };
    Ok(())
}
