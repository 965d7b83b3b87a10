//! Norms whose statistics are those of a channel or of a group of channels.

use super::{At, Constants, Cut, Fold, Node, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link, Role},
};

/// Batch normalization in inference form over the first axis: `(x - mean) / sqrt(variance + eps) * weight + bias`.
///
/// A channel whose weight is 0 is the constant `bias`; a constant channel becomes another. Exact.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    mean: String,
    variance: String,
    scale: Scale,
    eps: f64,
}

/// Normalization of groups of channels by their own mean and variance, over the first axis:
/// `(x - mean) / sqrt(variance + eps) * weight + bias`. One channel a group is an instance norm.
///
/// The channels of a group share its statistics: they go together, which is exact.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    groups: usize,
    scale: Scale,
    eps: f64,
}

/// What a norm multiplies with and adds.
#[derive(Debug, Clone, Default)]
pub(super) struct Scale {
    pub(super) weight: Option<String>,
    pub(super) bias: Option<String>,
}

impl Scale {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.weight.as_deref().into_iter().chain(self.bias.as_deref())
    }

    /// Weight and bias of each channel.
    pub(super) fn values(&self, at: At<'_>, weights: &dyn Source, len: usize) -> (Vec<f64>, Vec<f64>) {
        let weight = self.weight.as_ref().map_or_else(|| vec![1.0; len], |weight| at.values(weights, weight));
        (weight, at.values_or_zeros(weights, self.bias.as_deref(), len))
    }
}

impl BatchNorm {
    /// By the names of its running mean and variance.
    #[must_use]
    pub fn new(mean: impl Into<String>, variance: impl Into<String>, eps: f64) -> Self {
        Self { mean: mean.into(), variance: variance.into(), scale: Scale::default(), eps }
    }

    /// With a weight and a bias.
    #[must_use]
    pub fn with_affine(self, weight: impl Into<String>, bias: impl Into<String>) -> Self {
        Self { scale: Scale { weight: Some(weight.into()), bias: Some(bias.into()) }, ..self }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        [self.mean.as_str(), &self.variance].into_iter().chain(self.scale.names())
    }
}

impl GroupNorm {
    /// Of so many groups.
    #[must_use]
    pub fn new(groups: usize, eps: f64) -> Self {
        Self { groups, scale: Scale::default(), eps }
    }

    /// With a weight and a bias.
    #[must_use]
    pub fn with_affine(self, weight: impl Into<String>, bias: impl Into<String>) -> Self {
        Self { scale: Scale { weight: Some(weight.into()), bias: Some(bias.into()) }, ..self }
    }
}

/// An error unless `eps` can keep a divisor from 0.
pub(super) fn check_eps(eps: f64) -> Result<()> {
    if eps.is_finite() && eps >= 0.0 {
        return Ok(());
    }
    Err(Error::argument("eps", eps, "finite and at least 0"))
}

/// The layout of a norm along an axis; its tensors have an element a channel there.
pub(super) fn along<'a>(link: &mut Link<'_>, axis: usize, tensors: impl Iterator<Item = &'a str>) -> Result<Layout> {
    let input = link.input()?;
    let Some(&len) = input.shape.get(axis) else {
        return Err(Error::argument("input", "a number", "of at least one axis"));
    };
    let atoms = input.along(axis);
    if atoms.is_none() {
        link.freeze(input.atoms(), "on another axis than that of");
    }
    for tensor in tensors {
        link.vector(tensor, len)?;
        if let Some(atoms) = atoms {
            link.axis(tensor, 0, atoms, Role::Shifts)?;
        }
    }
    Ok(input.clone())
}

impl Rule for BatchNorm {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        check_eps(self.eps)?;
        along(link, 0, self.names())
    }

    fn tensors(&self) -> Vec<&str> {
        self.names().collect()
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let Some(count) = at.output().along(0).map(<[_]>::len) else { return Constants::unknown(at.output()) };
        let given = inputs[0].per_channel(at.input(0));
        let (mean, variance) = (at.values(weights, &self.mean), at.values(weights, &self.variance));
        let (weight, bias) = self.scale.values(at, weights, count);
        let constant = |i: usize| {
            // A channel without spread and with eps 0 is nothing.
            let spread = Some((variance[i] + self.eps).sqrt()).filter(|spread| *spread > 0.0)?;
            if weight[i] == 0.0 {
                return Some(bias[i]);
            }
            Some((given[i]? - mean[i]) / spread * weight[i] + bias[i])
        };
        Constants::new(at.output(), (0..count).map(constant).collect())
    }

    fn fold(&self, fold: &mut Fold<'_>) {
        if let Some(offset) = fold.offset(0) {
            let lower: Vec<f64> = offset.iter().map(|x| -x).collect();
            fold.add(&self.mean, &lower);
        }
    }

    fn absorbs(&self) -> Option<&str> {
        Some(&self.mean)
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

impl Rule for GroupNorm {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        check_eps(self.eps)?;
        let layout = along(link, 0, self.scale.names())?;
        if self.groups == 0 || layout.shape[0] % self.groups != 0 {
            return Err(Error::argument("number of groups", self.groups, "a divisor of the number of channels"));
        }
        if let Some(atoms) = layout.along(0) {
            atoms.chunks(layout.shape[0] / self.groups).for_each(|group| link.merge(group));
        }
        Ok(layout)
    }

    fn tensors(&self) -> Vec<&str> {
        self.scale.names().collect()
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let Some(count) = at.output().along(0).map(<[_]>::len) else { return Constants::unknown(at.output()) };
        let given = inputs[0].per_channel(at.input(0));
        let (weight, bias) = self.scale.values(at, weights, count);
        let size = count / self.groups;
        let statistics = |group: &[Option<f64>]| {
            let known: Vec<f64> = group.iter().copied().collect::<Option<_>>()?;
            let mean = known.iter().sum::<f64>() / size as f64;
            let variance = known.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / size as f64;
            Some((mean, (variance + self.eps).sqrt()))
        };
        let groups: Vec<_> = given.chunks(size).map(statistics).collect();
        let constant = |i: usize| match (given[i], groups[i / size]) {
            _ if weight[i] == 0.0 => Some(bias[i]),
            // A group without spread and with eps 0 is nothing.
            (Some(c), Some((mean, spread))) if spread > 0.0 => Some((c - mean) / spread * weight[i] + bias[i]),
            _ => None,
        };
        Constants::new(at.output(), (0..count).map(constant).collect())
    }

    fn numbers(&self) -> Vec<(&'static str, f64)> {
        vec![("groups", self.groups as f64)]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        let groups = match cut.counts(0) {
            (kept, all) if cut.at.output().axis() == Some(0) && all > 0 => self.groups * kept / all,
            _ => self.groups,
        };
        Self { groups, ..self.clone() }.into()
    }
}
