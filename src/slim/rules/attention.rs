//! Attention between heads, of as many or fewer heads for keys and values.

use super::{At, Constants, Cost, Cut, Node, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link},
};

/// Scaled dot-product attention of queries, keys and values, each of shape (steps, heads × width): for each head
/// `softmax(q kᵀ / sqrt(width)) v`, masked or not, with or without rotation. It gives (steps, heads × width of values). What
/// makes queries, keys and values, and what reads the result, are dense layers of their own.
///
/// Whole heads go. With fewer heads of keys and values than of queries (grouped-query attention), one of those goes with all
/// queries it serves. A head whose values are constant gives that constant: a softmax sums to 1. So a head that goes is folded exactly.
#[derive(Debug, Clone)]
pub struct Attention {
    heads: usize,
    key_heads: usize,
}

impl Attention {
    /// Of so many heads.
    #[must_use]
    pub fn new(heads: usize) -> Self {
        Self { heads, key_heads: heads }
    }

    /// With fewer heads of keys and values: a divisor.
    #[must_use]
    pub fn with_key_heads(self, key_heads: usize) -> Self {
        Self { key_heads, ..self }
    }

    /// Of the output's channel, that of the values it is a mean of. `width` is that of a head's values.
    fn source(&self, width: usize, channel: usize) -> usize {
        let served = self.heads / self.key_heads;
        channel / width / served * width + channel % width
    }
}

impl Rule for Attention {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let [q, k, v] = link.inputs() else {
            return Err(Error::argument("number of inputs", link.inputs().len(), "3: queries, keys, values"));
        };
        if self.key_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.key_heads) {
            let found = format!("{} for {}", self.key_heads, self.heads);
            return Err(Error::argument("heads of keys", found, "a divisor of the heads of queries"));
        }
        let pair = |layout: &Layout| match layout.shape[..] {
            [steps, width] => Ok((steps, width)),
            _ => Err(Error::argument("input", format!("of shape {:?}", layout.shape), "of shape (steps, channels)")),
        };
        let ((steps, q_width), (keys, k_width), (values, v_width)) = (pair(q)?, pair(k)?, pair(v)?);
        let width = v_width / self.key_heads;
        let divided = v_width % self.key_heads == 0 && width > 0 && k_width % self.key_heads == 0;
        if !divided || q_width % self.heads != 0 || q_width / self.heads != k_width / self.key_heads || keys != values {
            let found = [&q.shape[..], &k.shape, &v.shape].concat();
            return Err(Error::argument("inputs", format!("{found:?}"), "of the heads' widths, keys like values"));
        }
        let output = [steps, self.heads * width];
        let (Some(qs), Some(ks), Some(vs)) = (q.along(1), k.along(1), v.along(1)) else {
            link.inputs().iter().for_each(|input| link.freeze(input.atoms(), "beside unknown channels in"));
            return Ok(Layout { shape: output.to_vec(), channels: None });
        };
        let heads = qs.chunks(q_width / self.key_heads).zip(ks.chunks(k_width / self.key_heads)).zip(vs.chunks(width));
        for ((q, k), v) in heads {
            link.merge(&[q, k, v].concat());
        }
        let atoms = (0..output[1]).map(|channel| vs[self.source(width, channel)]).collect();
        Ok(Layout::new(output.to_vec(), 1, atoms))
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let output = at.output();
        if output.axis().is_none() {
            return Constants::unknown(output);
        }
        let values = inputs[2].per_channel(at.input(2));
        let width = output.shape[1] / self.heads;
        let constant = |channel: usize| values.get(self.source(width, channel)).copied().flatten();
        Constants::new(output, (0..output.shape[1]).map(constant).collect())
    }

    fn numbers(&self) -> Vec<(&'static str, f64)> {
        vec![("heads", self.heads as f64), ("key_heads", self.key_heads as f64)]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        if cut.at.output().axis().is_none() {
            return cut.same();
        }
        let part = |heads: usize, (kept, all): (usize, usize)| heads * kept / all.max(1);
        Self { heads: part(self.heads, cut.counts(0)), key_heads: part(self.key_heads, cut.counts(2)) }.into()
    }

    fn costs(&self, at: At<'_>) -> Vec<Cost> {
        let factor = at.input(0).shape[0].saturating_mul(at.input(1).shape[0]);
        let query = at.graph.nodes[at.node].inputs[0];
        [query, at.node].into_iter().map(|value| Cost::Channels { factor, value }).collect()
    }
}
