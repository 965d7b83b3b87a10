//! Norms whose statistics are those of all channels together.

use super::{
    At, Constants, Cut, Fold, Node, Reads, Rule, Source,
    norm::{Scale, along, check_eps},
};
use crate::{
    error::Result,
    slim::topology::{Layout, Link},
};

/// Layer normalization over the last axis: `(x - mean) / sqrt(variance + eps) * weight + bias`.
///
/// Mean and variance are of all channels, so none can go exactly: it forbids all of its axis to go, or is approximated, where
/// a channel that goes is taken for its bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    scale: Scale,
    eps: f64,
}

/// Root-mean-square normalization over the last axis: `x / sqrt(mean(x²) + eps) * weight`.
///
/// Channels that are 0 go exactly: where `m` of `n` stay, `weight` becomes `weight * sqrt(n / m)` and `eps` becomes `eps * n / m`.
/// Any other constant forbids it.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: String,
    eps: f64,
}

impl LayerNorm {
    /// Without weights.
    #[must_use]
    pub fn new(eps: f64) -> Self {
        Self { scale: Scale::default(), eps }
    }

    /// With a weight and a bias.
    #[must_use]
    pub fn with_affine(self, weight: impl Into<String>, bias: impl Into<String>) -> Self {
        Self { scale: Scale { weight: Some(weight.into()), bias: Some(bias.into()) }, ..self }
    }
}

impl RmsNorm {
    /// By the name of its weight.
    #[must_use]
    pub fn new(weight: impl Into<String>, eps: f64) -> Self {
        Self { weight: weight.into(), eps }
    }
}

/// The last axis.
fn last(layout: &Layout) -> usize {
    layout.shape.len().saturating_sub(1)
}

impl Rule for LayerNorm {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        check_eps(self.eps)?;
        let axis = last(link.input()?);
        along(link, axis, self.scale.names())
    }

    fn tensors(&self) -> Vec<&str> {
        self.scale.names().collect()
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, _: &[Constants], masked: bool) -> Constants {
        let output = at.output();
        let Some(count) = output.along(last(output)).map(<[_]>::len) else { return Constants::unknown(output) };
        let (weight, bias) = self.scale.values(at, weights, count);
        let constant = |i: usize| (masked || weight[i] == 0.0).then_some(bias[i]);
        Constants::new(output, (0..count).map(constant).collect())
    }

    fn reads(&self, at: At<'_>, _: &dyn Source, _: usize) -> Vec<Reads> {
        let reason = format!("one of the channels that the layer norm `{}` averages over", at.name());
        vec![Reads::Never(reason); at.input(0).atoms().len()]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

impl Rule for RmsNorm {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        check_eps(self.eps)?;
        let axis = last(link.input()?);
        along(link, axis, std::iter::once(self.weight.as_str()))
    }

    fn tensors(&self) -> Vec<&str> {
        vec![&self.weight]
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, inputs: &[Constants], masked: bool) -> Constants {
        let output = at.output();
        if output.along(last(output)).is_none() {
            return Constants::unknown(output);
        }
        let given = inputs[0].per_channel(at.input(0));
        let weight = at.values(weights, &self.weight);
        let zero = |(c, w): (&Option<f64>, &f64)| (masked || *c == Some(0.0) || *w == 0.0).then_some(0.0);
        Constants::new(output, given.iter().zip(&weight).map(zero).collect())
    }

    fn reads(&self, at: At<'_>, _: &dyn Source, _: usize) -> Vec<Reads> {
        let reason = format!("a constant other than 0 into the norm `{}`", at.name());
        vec![Reads::Zero(reason); at.input(0).atoms().len()]
    }

    fn fold(&self, fold: &mut Fold<'_>) {
        let (kept, all) = fold.counts(0);
        if kept < all && kept > 0 {
            fold.scale(&self.weight, (all as f64 / kept as f64).sqrt());
        }
    }

    fn numbers(&self) -> Vec<(&'static str, f64)> {
        vec![("eps", self.eps)]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        let (kept, all) = cut.counts(0);
        let eps = if kept > 0 { self.eps * (all as f64 / kept as f64) } else { self.eps };
        Self { eps, ..self.clone() }.into()
    }
}
