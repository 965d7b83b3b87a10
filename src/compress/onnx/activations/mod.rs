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

use super::rewrite::Rewritten;
use crate::{
    compress::{activations::Activations, recipe::Recipe},
    error::Result,
    format::onnx::proto::ModelProto,
};
use std::borrow::Cow;

/// The recipe by which weights become codes that activations can be multiplied by, a model that has such weights, and what to say of it.
#[cfg_attr(not(feature = "rten"), expect(unused_variables, reason = "static activations alone need it"))]
pub(super) fn prepare<'a>(model: &mut ModelProto, recipe: &'a Recipe) -> Result<(Cow<'a, Recipe>, Option<String>)> {
    match &recipe.activations {
        None | Some(Activations::Dynamic) => Ok((Cow::Borrowed(recipe), None)),
        #[cfg(feature = "rten")]
        Some(Activations::Static(..)) => {
            let folded = fold::normalizations(model, recipe)?;
            let said = format!("{folded} batch normalizations are part of the convolutions before them.");
            let recipe = recipe.clone().symmetric().with_form(crate::compress::Form::Dequantize);
            Ok((Cow::Owned(recipe), Some(said).filter(|_| folded > 0)))
        }
    }
}

/// Makes activations codes where the recipe says so, in a model whose weights are. `floats` is the model as it was before.
#[cfg_attr(not(feature = "rten"), expect(unused_variables, reason = "static activations alone need it"))]
pub(super) fn apply(rewritten: &mut Rewritten, recipe: &Recipe, floats: Option<ModelProto>) -> Result<()> {
    match &recipe.activations {
        None => Ok(()),
        Some(Activations::Dynamic) => dynamic::apply(rewritten),
        #[cfg(feature = "rten")]
        Some(Activations::Static(inputs, method)) => {
            floats.map_or(Ok(()), |floats| qdq::apply(rewritten, recipe, floats, inputs, *method))
        }
    }
}
