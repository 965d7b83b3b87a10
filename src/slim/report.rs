//! What a slimming did, in numbers and as a table.

use super::chain::Chain;
use crate::element::Element;
use std::fmt;

/// What a slimming did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct SlimReport {
    /// One entry a layer, in order, where layers were dropped or could have been.
    pub layers: Vec<LayerReport>,
    /// One entry a group of channels, in the chain's order, where channels were.
    pub groups: Vec<GroupReport>,
    /// Numbers in all layers before.
    pub params_before: usize,
    /// Numbers in all layers after.
    pub params_after: usize,
    /// Multiplications of a pass before.
    pub macs_before: usize,
    /// Multiplications of a pass after.
    pub macs_after: usize,
}

/// What a slimming did to one layer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerReport {
    /// The layer's name.
    pub name: String,
    /// Its [importance](Chain::layer_importance).
    pub importance: f64,
    /// Whether it went.
    pub dropped: bool,
}

/// What a slimming did to one group of channels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupReport {
    /// The group's name.
    pub name: String,
    /// Channels before.
    pub before: usize,
    /// Channels the plan's rule asked for.
    pub requested: usize,
    /// Channels after: at least one stays, and a multiple may have been asked for.
    pub after: usize,
    /// Of those that went, how many were constant: folding them is exact.
    pub constant: usize,
    /// Of those that went, how many were read by nobody: their weights onward were 0. Exact too.
    pub unread: usize,
    /// Why none could go, where that is so.
    pub frozen: Option<String>,
}

impl GroupReport {
    /// Channels that went though they carried something: the model now computes something else.
    #[must_use]
    pub fn approximated(&self) -> usize {
        self.before - self.after - self.constant - self.unread
    }
}

impl SlimReport {
    pub(super) fn new<T: Element>(
        before: &Chain<T>,
        after: &Chain<T>,
        layers: Vec<LayerReport>,
        groups: Vec<GroupReport>,
    ) -> Self {
        Self {
            layers,
            groups,
            params_before: before.params(),
            params_after: after.params(),
            macs_before: before.macs(),
            macs_after: after.macs(),
        }
    }

    /// Whether the slim model computes what the original did, but for rounding.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let layers = self.layers.iter().all(|layer| !layer.dropped || layer.importance == 0.0);
        layers && self.groups.iter().all(|group| group.approximated() == 0)
    }
}

impl fmt::Display for SlimReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for LayerReport { name, importance, dropped } in &self.layers {
            let fate = if *dropped { "dropped" } else { "kept" };
            writeln!(f, "layer {name:<16} importance {importance:<12.4} {fate}")?;
        }
        if !self.groups.is_empty() {
            let [before, requested, after, constant, unread, approximated] =
                ["before", "requested", "after", "constant", "unread", "approximated"];
            writeln!(
                f,
                "{:<16} {before:>7} {requested:>9} {after:>7} {constant:>9} {unread:>7} {approximated:>13}",
                "group"
            )?;
        }
        for group in &self.groups {
            let GroupReport { name, before, requested, after, constant, unread, frozen } = group;
            write!(
                f,
                "{name:<16} {before:>7} {requested:>9} {after:>7} {constant:>9} {unread:>7} {:>13}",
                group.approximated()
            )?;
            match frozen {
                Some(reason) => writeln!(f, "  frozen: {reason}")?,
                None => writeln!(f)?,
            }
        }
        let percent = 100.0 * (1.0 - self.params_after as f64 / self.params_before as f64);
        writeln!(f, "parameters {} -> {} (-{percent:.1} %)", self.params_before, self.params_after)?;
        write!(f, "multiplications {} -> {}", self.macs_before, self.macs_after)
    }
}
