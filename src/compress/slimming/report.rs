//! What slimming did to a model, and what it is predicted to cost.

use crate::{compress::verify::OutputReport, slim::GroupReport};
use std::fmt;

/// A node whose channels all stay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FrozenNode {
    /// Its name, or that of its first output.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// A layer that was fitted again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RepairedLayer {
    /// The value it gives.
    pub output: String,
    /// `‖y - y'‖ / ‖y‖` over the calibration inputs, `y` the original's outputs that are left, before the fit.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub before: f64,
    /// The same after it.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub after: f64,
}

/// What slimming did to a model.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlimmedReport {
    /// Groups of channels: how many there were and are, and why none may go, where that is so.
    pub groups: Vec<GroupReport>,
    /// Biases that were made, by the values that have them.
    pub biases: Vec<String>,
    /// Residual blocks that left, by the value that each gave, the least influence first, with it.
    pub blocks: Vec<(String, f64)>,
    /// Nodes that are not understood, or whose channels belong together for another reason.
    pub frozen: Vec<FrozenNode>,
    /// Layers that were fitted again, in order.
    pub repaired: Vec<RepairedLayer>,
    /// Floating-point numbers in the main graph's initializers and constants before.
    pub params_before: usize,
    /// The same after.
    pub params_after: usize,
    /// Multiplications of a pass of one sample by the layers that are understood, before.
    pub macs_before: usize,
    /// The same after.
    pub macs_after: usize,
    /// How each output differs from the original's on the calibration inputs: what to expect on inputs like these.
    pub outputs: Vec<OutputReport>,
}

impl SlimmedReport {
    /// The share of parameters that are left.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.params_after as f64 / self.params_before.max(1) as f64
    }
}

impl fmt::Display for SlimmedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| channels of | were | are | why none can go |")?;
        writeln!(f, "|---|--:|--:|---|")?;
        for GroupReport { name, before, after, frozen, .. } in &self.groups {
            writeln!(f, "| {name} | {before} | {after} | {} |", frozen.as_deref().unwrap_or(""))?;
        }
        for FrozenNode { node, operator, reason } in &self.frozen {
            writeln!(f, "- `{node}` ({operator}) keeps its channels: {reason}")?;
        }
        for (block, influence) in &self.blocks {
            writeln!(f, "- the block up to `{block}` left; it turned its input by 1 - cos = {influence:.2e}")?;
        }
        for RepairedLayer { output, before, after } in &self.repaired {
            writeln!(f, "- `{output}` was off by {before:.2e}, and by {after:.2e} after it was fitted")?;
        }
        if !self.biases.is_empty() {
            writeln!(f, "- new biases: {}", self.biases.join(", "))?;
        }
        for output in &self.outputs {
            let (same, rows) = (output.rows.saturating_sub(output.changed.len()), output.rows);
            writeln!(f, "- `{}` differs by {:.2e}; same largest: {same} of {rows}", output.name, output.relative)?;
        }
        let Self { params_before, params_after, macs_before, macs_after, .. } = self;
        writeln!(f, "- parameters {params_before} -> {params_after}, multiplications {macs_before} -> {macs_after}")
    }
}
