//! Slimming: channels and blocks that do not matter leave, a smaller dense model stays.
//!
//! Four steps, each to be inspected: a [`Topology`] describes the model and says which channels of which tensors belong together,
//! an [`Importance`] how much each matters, a [`Plan`] which stay, and [`Plan::apply`] makes the slim model: it cuts
//! the tensors and folds what the channels that went were. Gradients, masks and optimizer state are cut by the same indices
//! ([`Plan::cut`], [`Plan::cut_mask`], [`Plan::cut_state`]). Blocks go whole by [`Topology::without`].

mod analysis;
mod apply;
mod budget;
mod importance;
mod keep;
mod latency;
mod norms;
mod plan;
mod report;
mod rules;
mod size;
mod tensor;
mod topology;

pub use apply::Slim;
pub use importance::{Aggregate, Importance, Normalize, Scoring, block_influence};
pub use keep::Keep;
pub use latency::LatencyTable;
pub use plan::{GroupPlan, Plan};
pub use report::{Difference, GroupReport, SlimReport};
pub use rules::{
    Activation, Attention, BatchNorm, Binary, Cell, Concat, Conv, Dense, Embedding, GroupNorm, Input, LayerNorm, Node,
    Opaque, PRelu, Parameter, Pool, Recurrent, Reshape, RmsNorm, Slice, Transpose,
};
pub use tensor::{Tensor, views};
pub use topology::{Builder, Group, Member, Role, Topology, Value};
