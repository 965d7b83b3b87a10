//! Models run to see their values.

use crate::{
    compress::runtime::{Inputs, Model, Session},
    error::Result,
    format::onnx::proto::ModelProto,
};
use prost::Message;

/// The model loaded, with more of its values to be asked for.
///
/// # Errors
/// As [`Model::load`].
pub(super) fn load(what: &'static str, model: &ModelProto, outputs: &[String], by: &Inputs) -> Result<Session> {
    let bytes = model.encoded_len() as u64;
    Ok(Model::new(model.clone(), bytes, by.limit)?.with_outputs(outputs).load(what, by)?.0)
}
