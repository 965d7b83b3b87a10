//! What each kind of node means for channels: one file a kind.

mod activation;
mod attention;
mod join;
mod linear;
mod matrix;
mod norm;
mod pool;
mod recurrent;
mod reshape;
mod scaled_norm;
mod sites;
mod slice;
mod source;

pub use activation::{Activation, PRelu};
pub use attention::Attention;
pub use join::{Binary, Concat};
use linear::Linear;
pub use linear::{Conv, Dense};
pub use norm::{BatchNorm, GroupNorm};
pub use pool::Pool;
pub use recurrent::{Cell, Recurrent};
pub use reshape::Reshape;
pub use scaled_norm::{LayerNorm, RmsNorm};
pub(crate) use sites::{At, Constants, Cost, Cut, Edits, Fold, Kept, Reads, Source};
pub use slice::{Slice, Transpose};
pub use source::{Embedding, Input, Opaque, Parameter};

use super::topology::{Layout, Link};
use crate::error::Result;
use std::{fmt::Debug, sync::Arc};

/// A node of a [`Topology`](super::Topology): made `from` one of this module's kinds.
#[derive(Debug, Clone)]
pub struct Node(Arc<dyn Rule>);

impl Node {
    pub(crate) fn rule(&self) -> &dyn Rule {
        &*self.0
    }
}

macro_rules! nodes {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Node {
            fn from(rule: $kind) -> Self {
                Self(Arc::new(rule))
            }
        }
    )*};
}

nodes!(Activation, Attention, BatchNorm, Binary, Concat, Embedding, GroupNorm, Input, LayerNorm, Linear, Opaque);
nodes!(PRelu, Parameter, Pool, Recurrent, Reshape, RmsNorm, Slice, Transpose);

impl From<Dense> for Node {
    fn from(dense: Dense) -> Self {
        dense.linear().into()
    }
}

impl From<Conv> for Node {
    fn from(conv: Conv) -> Self {
        conv.linear().into()
    }
}

/// What slimming asks of a kind of node.
pub(crate) trait Rule: Debug + Send + Sync {
    /// The output's shape and channels, tied to those of the inputs and of the tensors.
    fn link(&self, link: &mut Link<'_>) -> Result<Layout>;

    /// The tensors that it uses.
    fn tensors(&self) -> Vec<&str> {
        Vec::new()
    }

    /// What each channel of the output is where it does not depend on the model's inputs, from what is known of the inputs'
    /// channels. `masked` asks instead what a channel is whose weights have become 0, or the best guess where it is no constant:
    /// [`reads`](Rule::reads) says that.
    fn constants(&self, at: At<'_>, weights: &dyn Source, inputs: &[Constants], masked: bool) -> Constants;

    /// How the node reads each channel of an input, where it takes more than one of them together. Empty where channels
    /// just pass on.
    fn reads(&self, _at: At<'_>, _weights: &dyn Source, _input: usize) -> Vec<Reads> {
        Vec::new()
    }

    /// As [`reads`](Rule::reads), of its own output, fed back.
    fn feeds_back(&self, _at: At<'_>, _weights: &dyn Source) -> Vec<Reads> {
        Vec::new()
    }

    /// Puts what the inputs' dropped channels were into the tensors.
    fn fold(&self, _fold: &mut Fold<'_>) {}

    /// The tensor that can take a constant offset of the input, so that the node before needs no bias.
    fn absorbs(&self) -> Option<&str> {
        None
    }

    /// Numbers of the node that slimming may change, by name.
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// The node of the slim model.
    fn slim(&self, cut: Cut<'_>) -> Node;

    /// What it multiplies.
    fn costs(&self, _at: At<'_>) -> Vec<Cost> {
        Vec::new()
    }
}
