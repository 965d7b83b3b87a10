//! Weights of any model file as blocks in a GGUF file.

use super::{
    look::Cost,
    recipe::Recipe,
    report::Report,
    run::{Watch, check_paths},
    source::{CHUNK, Source},
    tensors::{Kept, Plan, Put, Step},
};
use crate::{
    error::Result,
    format::{
        file::{self, ElementType, TensorInfo},
        gguf::{self, Gguf, Value},
    },
    quant::layout::GgmlType,
    tensor::{TensorRef, view::checked_volume},
};
use std::path::Path;

/// Quantizes the floating-point tensors of two axes or more of a model file of any format into blocks of a GGUF file:
///
/// | bits | blocks |
/// |---|---|
/// | 8 | `Q8_0` |
/// | 4 | `Q4_K` where rows (the last axis) are multiples of 256, else `Q4_1` |
/// | 4, symmetric or pruned | `Q4_0` |
///
/// The group of the recipe does not matter: blocks have sizes of their own. Other tensors are copied, as are those whose rows are not whole
/// blocks; the report says so. The metadata of a GGUF file is kept, with `general.quantization_version` and `general.file_type` set; of
/// other formats there is none, and programs that load models want at least `general.architecture` and their names of tensors. `watch`
/// is called again and again, and can stop the work.
///
/// # Errors
/// As [`file::open`] and [`gguf::layout`]; [`Argument`](crate::ErrorKind::Argument) for 2 bits, and where both paths are the same file;
/// [`NonFinite`](crate::ErrorKind::NonFinite) for a weight that is NaN or infinite, with its name; [`Io`](crate::ErrorKind::Io) when the output
/// cannot be written; [`Cancelled`](crate::ErrorKind::Cancelled) when `watch` says so. [`Budget`](crate::ErrorKind::Budget)
/// where nothing keeps within the recipe's budget, with the least there is. There is no output then, and the input is as it was.
pub fn quantize(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    recipe: &Recipe,
    watch: Watch<'_>,
) -> Result<Report> {
    let (input, output) = (input.as_ref(), output.as_ref());
    if let Some(bits) = recipe.bits.filter(|&bits| bits < 4 && recipe.budget.is_none()) {
        return Err(crate::Error::argument("bits", bits, "4 or 8 in GGUF files"));
    }
    let read = file::open(input)?;
    check_paths(input, &*read, &[output])?;
    let metadata = if read.format() == "gguf" { Gguf::open(input)?.values().to_vec() } else { Vec::new() };
    let keep = |info: &TensorInfo, bits: u8| {
        let last = info.shape.last().copied().unwrap_or(0);
        let kind = match (bits, exact_zero(recipe)) {
            (8, _) => GgmlType::Q8_0,
            (4, true) => GgmlType::Q4_0,
            (4, false) if last.is_multiple_of(GgmlType::Q4K.block_len()) => GgmlType::Q4K,
            (4, false) => GgmlType::Q4_1,
            _ => return Err("no blocks of so few bits".into()),
        };
        match last.is_multiple_of(kind.block_len()) {
            true => Ok(kept(info, kind, bits, recipe)),
            false => Err(format!("rows of {last}, not whole blocks of {}", kind.block_len())),
        }
    };
    Plan::new(&*read, recipe, keep)?.run(output, watch, |tensors, kept| {
        let mut metadata = metadata.clone();
        if !recipe.bit_choices().is_empty() {
            let count = |bits: u8| kept.iter().filter(|kept| kept.bits == Some(bits)).count();
            // By its number in llama.cpp: that of most of its tensors.
            let eight = count(8) > count(4) || (count(4) == 0 && recipe.bits == Some(8));
            let number = match (eight, exact_zero(recipe)) {
                (true, _) => 7,
                (false, true) => 2,
                (false, false) => 15,
            };
            metadata.retain(|(key, _)| !matches!(&**key, "general.quantization_version" | "general.file_type"));
            metadata.push(("general.quantization_version".into(), Value::U32(2)));
            metadata.push(("general.file_type".into(), Value::U32(number)));
        }
        gguf::layout(tensors, &metadata)
    })
}

/// Whether all types are to have a level that is 0.
fn exact_zero(recipe: &Recipe) -> bool {
    recipe.symmetric || recipe.pruning.is_some()
}

fn kept(info: &TensorInfo, kind: GgmlType, bits: u8, recipe: &Recipe) -> Kept<'static> {
    let element = ElementType::Block(kind.into());
    let pruned = if recipe.pruning.is_some() { ", pruned" } else { "" };
    Kept {
        tensors: vec![TensorInfo { element, ..info.clone() }],
        outcome: Ok(format!("{element}{pruned}")),
        bits: Some(bits),
        metadata: None,
        write: Some(Box::new(move |source, put, step| write(source, kind, put, step))),
    }
}

/// Rows are worked on some at a time.
fn write(source: &Source, kind: GgmlType, put: Put<'_>, step: Step<'_>) -> Result<Cost> {
    let last = source.shape.last().copied().unwrap_or(1).max(1);
    let rows = checked_volume(&source.shape)? / last;
    let chunk = if source.look.is_any() { CHUNK / 2 } else { CHUNK };
    let together = (chunk / last).max(1);
    let flat = Source { shape: vec![rows, last], ..source.clone() };
    let (mut values, mut decoded, mut cost, mut end) = (Vec::new(), Vec::new(), Cost::new(source.look), 0);
    for row in (0..rows).step_by(together) {
        let part = row..rows.min(row + together);
        let shape = [part.len(), last];
        cost.read(&flat, part, &mut values)?;
        let encoded = kind.encode(TensorRef::new(&values, &shape)?);
        let encoded = encoded.map_err(|error| flat.placed(error, row, &values))?;
        decoded.resize(values.len(), 0.0);
        kind.decode(&encoded.bytes, &mut decoded)?;
        cost.add(&values, &decoded);
        // Not of every type can a bound be told from its blocks.
        let bound = kind.certificate(&shape, &encoded.bytes).map_or(f64::NAN, |certificate| certificate.max_abs());
        cost.bound = if bound.is_nan() || cost.bound.is_nan() { f64::NAN } else { cost.bound.max(bound) };
        put(0, end, &encoded.bytes)?;
        end += encoded.bytes.len() as u64;
        step(values.len())?;
    }
    Ok(cost)
}
