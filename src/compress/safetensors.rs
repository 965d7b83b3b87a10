//! Weights of any model file as codes in a safetensors file.

use super::{
    encode::{Scheme, encode},
    recipe::Recipe,
    report::Report,
    run::{Watch, check_paths},
    source::{CHUNK, Source},
    tensors::{Kept, Plan, Put, Step},
};
use crate::{
    error::Result,
    format::{
        file::{self, TensorInfo},
        safetensors::{self, Convention, Form, Parts},
    },
    tensor::Granularity,
};
use std::{collections::BTreeMap, path::Path};

/// Quantizes the floating-point tensors of two axes or more of a model file of any format into a safetensors file, by a convention of
/// [`format::safetensors`](crate::format::safetensors): a scale for each index of the first axis, or for each group along the last. The
/// other tensors are copied. A tensor that the convention does not have stays, and the report says why. `watch` is called again and again,
/// and can stop the work.
///
/// ```no_run
/// use lapidary::{compress::{self, Recipe}, format::safetensors::Convention};
/// let recipe = Recipe::new().with_bits(4)?.with_group(128)?.symmetric().keep(["lm_head"]);
/// let go_on = |_: compress::Progress<'_>| std::ops::ControlFlow::Continue(());
/// let report = compress::safetensors("model.safetensors.index.json", "small.safetensors", &recipe, Convention::PackQuantized, &go_on)?;
/// println!("{report}");
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// As [`file::open`] and [`safetensors::layout`]; [`NonFinite`](crate::ErrorKind::NonFinite) for a weight that is NaN or infinite, with its
/// name; [`Io`](crate::ErrorKind::Io) when the output cannot be written; [`Cancelled`](crate::ErrorKind::Cancelled) when `watch` says so;
/// [`Argument`](crate::ErrorKind::Argument) where both paths are the same file. [`Budget`](crate::ErrorKind::Budget)
/// where nothing keeps within the recipe's budget, with the least there is. There is no output then, and the input is as it was.
pub fn quantize(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    recipe: &Recipe,
    convention: Convention,
    watch: Watch<'_>,
) -> Result<Report> {
    let (input, output) = (input.as_ref(), output.as_ref());
    let read = file::open(input)?;
    check_paths(input, &*read, &[output])?;
    let metadata = if read.format() == "safetensors" { read.metadata() } else { BTreeMap::new() };
    let keep = |info: &TensorInfo, bits: u8| kept(info, bits, recipe, convention).map_err(|error| error.to_string());
    Plan::new(&*read, recipe, keep)?.run(output, watch, |tensors, kept| {
        let mut metadata = metadata.clone();
        metadata.extend(kept.iter().filter_map(|kept| kept.metadata.clone()));
        safetensors::layout(tensors, &metadata)
    })
}

/// The tensors that hold a quantized one, and its entry in the metadata.
fn kept(info: &TensorInfo, bits: u8, recipe: &Recipe, convention: Convention) -> Result<Kept<'static>> {
    let last = info.shape.last().copied().unwrap_or(1);
    let (granularity, shared) = match recipe.group {
        None => (Granularity::Channel { axis: 0 }, "a scale a row".to_string()),
        Some(size) => (Granularity::Group { size: size.min(last) }, format!("groups of {size}")),
    };
    let scheme = Scheme { bits, symmetric: recipe.symmetric, granularity };
    // The form does not depend on the number of rows.
    let parts = Parts::new(convention, &info.name, &info.shape, Form::of(&scheme.layout(&info.shape)?))?;
    let zeros = if recipe.symmetric { ", no zero points" } else { "" };
    let pruned = if recipe.pruning.is_some() { ", pruned" } else { "" };
    let (tensors, metadata) = (parts.tensors().to_vec(), parts.metadata());
    let outcome = Ok(format!("{bits} bits, {shared}{zeros}{pruned}"));
    let write = move |source: &Source, put: Put<'_>, step: Step<'_>| {
        encode(source, scheme, CHUNK, &mut |row, q| {
            let mut written = parts.encode(q, row)?.into_iter();
            written.try_for_each(|part| put(part.index, part.offset, &part.bytes))?;
            step(q.len())
        })
    };
    Ok(Kept { tensors, outcome, bits: Some(bits), metadata, write: Some(Box::new(write)) })
}
