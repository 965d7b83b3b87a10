//! What a slimming did, in numbers and as a table.

use super::{analysis::Verdict, plan::Plan, topology::Topology};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::qtensor::check_finite,
};
use std::fmt;

/// What a slimming did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlimReport {
    /// One entry a group of channels, in the topology's order.
    pub groups: Vec<GroupReport>,
    /// Biases that folding made.
    pub made: Vec<String>,
    /// Numbers in all tensors before.
    pub params_before: usize,
    /// Numbers in all tensors after.
    pub params_after: usize,
    /// Multiplications of a pass before.
    pub macs_before: usize,
    /// Multiplications of a pass after.
    pub macs_after: usize,
    /// Bytes of all tensors before.
    pub bytes_before: usize,
    /// Bytes of all tensors after.
    pub bytes_after: usize,
    /// How far the outputs are off, where that was [measured](Plan::measure).
    pub difference: Option<Difference>,
}

/// What a slimming did to one group of channels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GroupReport {
    /// The group's name.
    pub name: String,
    /// Channels before.
    pub before: usize,
    /// Channels the plan's rule asked for.
    pub requested: usize,
    /// Channels after: at least one stays, some cannot go, and a multiple may have been asked for.
    pub after: usize,
    /// Of those that went, how many were constant: folding them changes nothing.
    pub constant: usize,
    /// Of those that went, how many were read by nobody: their weights onward were 0. That changes nothing either.
    pub unread: usize,
    /// How many could not have gone exactly, and so stayed.
    pub held: usize,
    /// Why none could go, or why the first that was held was.
    pub frozen: Option<String>,
}

/// How far outputs are off.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Difference {
    /// The largest difference of one output.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub largest: f64,
    /// The L2 norm of the difference over that of what was expected; 0 where both are 0.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub relative: f64,
}

impl Difference {
    pub(super) fn new(expected: &[f64], found: &[f64]) -> Result<Self> {
        if expected.len() != found.len() {
            return Err(Error::shape("outputs", &[expected.len()], &[found.len()]));
        }
        if expected.is_empty() {
            return Err(Error::empty("list of outputs"));
        }
        check_finite("outputs before", expected)?;
        check_finite("outputs after", found)?;
        let largest = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // By the largest, so that no square overflows.
        let scale = expected.iter().map(|x| x.abs()).fold(largest, f64::max);
        let square = |x: f64| if scale > 0.0 { (x / scale) * (x / scale) } else { 0.0 };
        let off: f64 = expected.iter().zip(found).map(|(a, b)| square(a - b)).sum();
        let all: f64 = expected.iter().map(|a| square(*a)).sum();
        let relative = if off == 0.0 { 0.0 } else { (off / all).sqrt() };
        Ok(Self { largest, relative })
    }
}

impl GroupReport {
    /// Channels that went though they carried something: the model now computes something else.
    #[must_use]
    pub fn approximated(&self) -> usize {
        [self.after, self.constant, self.unread].into_iter().fold(self.before, usize::saturating_sub)
    }
}

impl SlimReport {
    pub(super) fn new<T: Element>(plan: &Plan, after: &Topology, verdicts: &[Vec<Verdict>], made: Vec<String>) -> Self {
        let groups = plan.groups.iter().zip(plan.kept.0.iter().zip(verdicts)).map(|(group, (kept, verdicts))| {
            let gone = |what: Verdict| kept.iter().zip(verdicts).filter(|(kept, v)| !**kept && **v == what).count();
            GroupReport {
                name: group.name.clone(),
                before: group.size,
                requested: group.requested,
                after: group.kept.len(),
                constant: gone(Verdict::Constant),
                unread: gone(Verdict::Unread),
                held: group.held.len(),
                frozen: group.frozen.clone().or(group.held.first().map(|(_, reason)| reason.clone())),
            }
        });
        let (params_before, params_after) = (plan.topology.params(), after.params());
        let bytes = |params: usize| params.saturating_mul(T::DTYPE.size());
        Self {
            groups: groups.collect(),
            made,
            params_before,
            params_after,
            macs_before: plan.topology.macs(),
            macs_after: after.macs(),
            bytes_before: bytes(params_before),
            bytes_after: bytes(params_after),
            difference: None,
        }
    }

    /// Whether the slim model computes what the original did, but for rounding.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.groups.iter().all(|group| group.approximated() == 0)
    }
}

impl fmt::Display for SlimReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.groups.iter().map(|group| group.name.len()).max().unwrap_or(0).max(5);
        let [before, requested, after, constant, unread, approximated] =
            ["before", "requested", "after", "constant", "unread", "approximated"];
        writeln!(
            f,
            "{:<widest$} {before:>7} {requested:>9} {after:>7} {constant:>9} {unread:>7} {approximated:>13}",
            "group"
        )?;
        for group in &self.groups {
            let GroupReport { name, before, requested, after, constant, unread, held, frozen } = group;
            write!(
                f,
                "{name:<widest$} {before:>7} {requested:>9} {after:>7} {constant:>9} {unread:>7} {:>13}",
                group.approximated()
            )?;
            match frozen {
                Some(reason) if *held > 0 => writeln!(f, "  {held} held: {reason}")?,
                Some(reason) => writeln!(f, "  frozen: {reason}")?,
                None => writeln!(f)?,
            }
        }
        if !self.made.is_empty() {
            writeln!(f, "new biases: {}", self.made.join(", "))?;
        }
        if let Some(Difference { largest, relative }) = self.difference {
            writeln!(f, "outputs differ by at most {largest:.3e}, {relative:.3e} of their norm")?;
        }
        let percent = 100.0 * (1.0 - self.params_after as f64 / self.params_before.max(1) as f64);
        writeln!(f, "parameters {} -> {} (-{percent:.1} %)", self.params_before, self.params_after)?;
        writeln!(f, "bytes {} -> {}", self.bytes_before, self.bytes_after)?;
        write!(f, "multiplications {} -> {}", self.macs_before, self.macs_after)
    }
}
