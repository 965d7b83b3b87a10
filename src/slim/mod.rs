//! Slimming: channels and layers that do not matter leave, a smaller dense model stays.
//!
//! Four steps, each to be inspected: a [`Topology`] says which channels of which tensors belong together, an
//! [`Importance`] how much each matters, a [`Plan`] which stay, and applying it cuts the tensors, their
//! gradients' and their optimizer's state ([`Plan::cut`], [`Plan::cut_state`]). A [`Chain`] of dense layers
//! knows its own topology and folds the constants of dead units ([`Chain::slim`]).

mod apply;
mod chain;
mod importance;
mod plan;
mod report;
mod topology;

pub use chain::{Activation, Chain, Dense, INPUTS};
pub use importance::Importance;
pub use plan::{GroupPlan, Keep, Plan};
pub use report::{GroupReport, LayerReport, SlimReport};
pub use topology::{Group, Member, Role, Topology};
