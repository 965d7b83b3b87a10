//! Models that multiply by integers: activations become codes too.

mod dynamic;
#[cfg(feature = "rten")]
mod fold;
#[cfg(feature = "rten")]
mod plan;
#[cfg(feature = "rten")]
mod qdq;
#[cfg(feature = "rten")]
mod ranges;

use super::rewrite::{self, Rewritten};
use crate::{
    compress::{activations::Activations, recipe::Recipe},
    error::Result,
    format::onnx::proto::ModelProto,
};

/// Makes the weights of a model pending, and its activations codes where the recipe says so.
pub(super) fn rewrite(model: ModelProto, recipe: &Recipe) -> Result<Rewritten> {
    match &recipe.activations {
        None => rewrite::rewrite(model, recipe),
        Some(Activations::Dynamic) => dynamic::rewrite(model, recipe),
        #[cfg(feature = "rten")]
        Some(Activations::Static(inputs, method)) => qdq::rewrite(model, recipe, inputs, *method),
    }
}
