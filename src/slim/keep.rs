//! How much is to stay.

use super::latency::LatencyTable;
#[cfg(feature = "serde")]
use crate::config::names::Names;
use crate::{
    config::config,
    error::{Error, Result},
};
use std::collections::BTreeMap;

/// What a [`Plan`](super::Plan) keeps: a rule, and what it is bound by.
///
/// | option | default | range | purpose |
/// |---|---|---|---|
/// | `target` | – | [`above`](Self::above), [`ratio`](Self::ratio), [`widths`](Self::widths), [`params`](Self::params), [`macs`](Self::macs), [`latency`](Self::latency) | the rule |
/// | `multiple` | 1 | at least 1 | as many channels of each group as a multiple of this, or all |
/// | `minimum` | 1 | at least 1 | as many channels of each group at least, or all |
/// | `approximation` | off | | channels go also where what they leave cannot be folded exactly |
/// | `replacements` | none | finite | by its name, what the channels of a node's output are taken for when they go |
#[derive(Debug, Clone)]
#[must_use]
pub struct Keep {
    pub(super) target: Target,
    pub(super) multiple: usize,
    pub(super) minimum: usize,
    pub(super) approximate: bool,
    pub(super) replacements: BTreeMap<String, Vec<f64>>,
}

#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(super) enum Target {
    Above(#[cfg_attr(feature = "serde", serde(with = "crate::config::open"))] f64),
    Ratio(f64),
    Widths(
        #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::config::names::read"))] BTreeMap<String, usize>,
    ),
    Params(usize),
    Macs(usize),
    Latency(#[cfg_attr(feature = "serde", serde(with = "crate::config::open"))] f64, LatencyTable),
}

impl Keep {
    fn new(target: Target) -> Self {
        Self { target, multiple: 1, minimum: 1, approximate: false, replacements: BTreeMap::new() }
    }

    /// Channels of importance above a threshold, strictly, the same for all groups; and what is held, whatever its importance.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for NaN.
    pub fn above(threshold: f64) -> Result<Self> {
        if threshold.is_nan() {
            return Err(Error::argument("threshold", threshold, "a number"));
        }
        Ok(Self::new(Target::Above(threshold)))
    }

    /// This share of each group, rounded half to even. Channels that are held count, in place of the least important others.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) outside 0 to 1.
    pub fn ratio(ratio: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(Error::argument("ratio", ratio, "from 0 to 1"));
        }
        Ok(Self::new(Target::Ratio(ratio)))
    }

    /// So many channels of the named groups, and all of the others. Channels that are held count, in place of the least important
    /// others; more of them than asked for all stay.
    pub fn widths<N: Into<String>>(widths: impl IntoIterator<Item = (N, usize)>) -> Self {
        Self::new(Target::Widths(widths.into_iter().map(|(name, width)| (name.into(), width)).collect()))
    }

    /// The most important channels of all groups that at most so many numbers are left in all tensors: the least important
    /// ones go until they are, then those come back that still fit, the most important first.
    pub fn params(budget: usize) -> Self {
        Self::new(Target::Params(budget))
    }

    /// As [`params`](Keep::params), for the multiplications of one pass.
    pub fn macs(budget: usize) -> Self {
        Self::new(Target::Macs(budget))
    }

    /// As [`params`](Keep::params), for the time that a table gives.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a budget that is NaN.
    pub fn latency(budget: f64, table: LatencyTable) -> Result<Self> {
        if budget.is_nan() {
            return Err(Error::argument("budget", budget, "a number"));
        }
        Ok(Self::new(Target::Latency(budget, table)))
    }

    /// Rounds each group up to a multiple.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for 0.
    pub fn with_multiple(self, multiple: usize) -> Result<Self> {
        Ok(Self { multiple: positive("multiple", multiple)?, ..self })
    }

    /// Keeps so many of each group at least.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for 0.
    pub fn with_minimum(self, minimum: usize) -> Result<Self> {
        Ok(Self { minimum: positive("minimum", minimum)?, ..self })
    }

    /// Lets channels go also where that is not exact: a constant into a padded convolution is then folded as it acts away from
    /// the border, a channel of a layer norm taken for its bias, what is no constant for 0.
    /// [`Plan::measure`](super::Plan::measure) tells the difference.
    pub fn with_approximation(self) -> Self {
        Self { approximate: true, ..self }
    }

    /// Says what the channels of a node's output are taken for when they go, unless they are constants anyway: the mean of each
    /// over some data, say. Else they are what remains when their weights become 0.
    pub fn with_replacement(mut self, node: impl Into<String>, constants: Vec<f64>) -> Self {
        self.replacements.insert(node.into(), constants);
        self
    }

    /// How many of a group of `size` stay where `count` were asked for.
    pub(super) fn bounded(&self, count: usize, size: usize) -> usize {
        count.max(self.minimum).max(1).checked_next_multiple_of(self.multiple).unwrap_or(size).min(size)
    }
}

config! {
    Keep(target: Target) => match target {
        Target::Above(threshold) => Self::above(threshold),
        Target::Ratio(ratio) => Self::ratio(ratio),
        Target::Latency(budget, table) => Self::latency(budget, table),
        counted => Ok(Self::new(counted)),
    },
    multiple: usize => Self::with_multiple,
    minimum: usize => Self::with_minimum,
    approximation: bool = |it| it.approximate => |it, _| it.with_approximation(),
    replacements: Names<Vec<f64>> = |it| Names(it.replacements.clone()) => |it, Names(replacements)| {
        for (node, values) in &replacements {
            crate::tensor::qtensor::check_finite("replacement", values).map_err(|error| error.in_tensor(node))?;
        }
        Ok(Self { replacements, ..it })
    },
}

fn positive(name: &'static str, n: usize) -> Result<usize> {
    if n == 0 { Err(Error::argument(name, 0, "at least 1")) } else { Ok(n) }
}
