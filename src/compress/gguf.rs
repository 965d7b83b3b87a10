//! Weights of any model file as blocks in a GGUF file.

use super::{
    recipe::Recipe,
    report::Report,
    run::{Watch, check_paths},
    source::{CHUNK, Cost, Source},
    tensors::{Kept, Plan, Step},
};
use crate::{
    error::Result,
    format::{
        file::{self, ElementType, TensorInfo, Writer},
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
/// | 4, symmetric | `Q4_0` |
///
/// The group of the recipe does not matter: blocks have sizes of their own. Other tensors are copied, as are those whose rows are not whole
/// blocks; the report says so. The metadata of a GGUF file is kept, with `general.quantization_version` and `general.file_type` set; of
/// other formats there is none, and programs that load models want at least `general.architecture` and their names of tensors. `watch`
/// is called again and again, and can stop the work.
///
/// # Errors
/// As [`file::open`] and [`gguf::layout`]; [`Argument`](crate::ErrorKind::Argument) for 2 bits, and where both paths are the same file;
/// [`NonFinite`](crate::ErrorKind::NonFinite) for a weight that is NaN or infinite, with its name; [`Io`](crate::ErrorKind::Io) when the output
/// cannot be written; [`Cancelled`](crate::ErrorKind::Cancelled) when `watch` says so. There is no output then, and the input is as it was.
pub fn quantize(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    recipe: &Recipe,
    watch: Watch<'_>,
) -> Result<Report> {
    let (input, output) = (input.as_ref(), output.as_ref());
    // By its number in llama.cpp: that of most of its tensors.
    let types = match (recipe.bits, recipe.symmetric) {
        (None, _) => None,
        (Some(8), _) => Some((GgmlType::Q8_0, GgmlType::Q8_0, 7)),
        (Some(4), true) => Some((GgmlType::Q4_0, GgmlType::Q4_0, 2)),
        (Some(4), false) => Some((GgmlType::Q4K, GgmlType::Q4_1, 15)),
        (Some(bits), _) => return Err(crate::Error::argument("bits", bits, "4 or 8 in GGUF files")),
    };
    let read = file::open(input)?;
    check_paths(input, &*read, &[output])?;
    let mut metadata = if read.format() == "gguf" { Gguf::open(input)?.values().to_vec() } else { Vec::new() };
    if let Some((_, _, number)) = types {
        metadata.retain(|(key, _)| !matches!(&**key, "general.quantization_version" | "general.file_type"));
        metadata.push(("general.quantization_version".into(), Value::U32(2)));
        metadata.push(("general.file_type".into(), Value::U32(number)));
    }
    let plan = Plan::new(&*read, recipe, |info| {
        let (wide, narrow, _) = types.ok_or("not to be quantized")?;
        let last = info.shape.last().copied().unwrap_or(0);
        let kind = if last.is_multiple_of(wide.block_len()) { wide } else { narrow };
        match last.is_multiple_of(kind.block_len()) {
            true => Ok(kept(info, kind)),
            false => Err(format!("rows of {last}, not whole blocks of {}", kind.block_len())),
        }
    })?;
    let layout = gguf::layout(&plan.tensors, &metadata)?;
    plan.run(&*read, layout, output, watch)
}

fn kept(info: &TensorInfo, kind: GgmlType) -> Kept<'static> {
    let element = ElementType::Block(kind.into());
    Kept {
        tensors: vec![TensorInfo { element, ..info.clone() }],
        outcome: element.to_string(),
        write: Box::new(move |source, first, writer, step| write(source, kind, first, writer, step)),
    }
}

/// Rows are worked on some at a time.
fn write(source: &Source, kind: GgmlType, first: usize, writer: &Writer, step: Step<'_>) -> Result<Cost> {
    let last = source.shape.last().copied().unwrap_or(1).max(1);
    let rows = checked_volume(&source.shape)? / last;
    let together = (CHUNK / last).max(1);
    let flat = Source { shape: vec![rows, last], ..source.clone() };
    let (mut values, mut decoded, mut cost, mut end) = (Vec::new(), Vec::new(), Cost::default(), 0);
    for row in (0..rows).step_by(together) {
        let part = row..rows.min(row + together);
        let shape = [part.len(), last];
        flat.rows(part, &mut values)?;
        let encoded = kind.encode(TensorRef::new(&values, &shape)?);
        let encoded = encoded.map_err(|error| flat.placed(error, row, &values))?;
        decoded.resize(values.len(), 0.0);
        kind.decode(&encoded.bytes, &mut decoded)?;
        cost.add(&values, &decoded);
        // Not of every type can a bound be told from its blocks.
        let bound = kind.certificate(&shape, &encoded.bytes).map_or(f64::NAN, |certificate| certificate.max_abs());
        cost.bound = if bound.is_nan() || cost.bound.is_nan() { f64::NAN } else { cost.bound.max(bound) };
        writer.write(first, end, &encoded.bytes)?;
        end += encoded.bytes.len() as u64;
        step(values.len())?;
    }
    Ok(cost)
}
