//! The model's tables to tensors, places and scales.

use super::{IDENTIFIER, quantization::Quantization, table::Table};
use crate::{
    error::{Error, Result},
    format::file::{ElementType, TensorInfo},
};
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

/// The fields of the schema's tables that are read.
mod field {
    pub(super) mod model {
        pub(in crate::format::tflite) const VERSION: usize = 0;
        pub(in crate::format::tflite) const SUBGRAPHS: usize = 2;
        pub(in crate::format::tflite) const DESCRIPTION: usize = 3;
        pub(in crate::format::tflite) const BUFFERS: usize = 4;
    }
    pub(super) mod tensor {
        pub(in crate::format::tflite) const SHAPE: usize = 0;
        pub(in crate::format::tflite) const TYPE: usize = 1;
        pub(in crate::format::tflite) const BUFFER: usize = 2;
        pub(in crate::format::tflite) const NAME: usize = 3;
        pub(in crate::format::tflite) const QUANTIZATION: usize = 4;
        pub(in crate::format::tflite) const SPARSITY: usize = 6;
    }
    pub(super) const SUBGRAPH_TENSORS: usize = 0;
    pub(super) const BUFFER_DATA: usize = 0;
    pub(super) const BUFFER_OFFSET: usize = 1;
    pub(super) const BUFFER_SIZE: usize = 2;
    pub(super) const SCALES: usize = 2;
    pub(super) const ZERO_POINTS: usize = 3;
    pub(super) const AXIS: usize = 6;
}

/// What a file has.
#[derive(Default)]
pub(super) struct Model {
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) places: Vec<Range<usize>>,
    pub(super) quantizations: Vec<Option<Quantization>>,
    pub(super) metadata: BTreeMap<String, String>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Model> {
    if bytes.get(4..8) != Some(IDENTIFIER) {
        return Err(Error::format(4, "not a TFLite model"));
    }
    let root = Table::root(bytes)?;
    let mut model = Model::default();
    model.metadata.insert("version".into(), root.number::<u32>(field::model::VERSION)?.to_string());
    model.metadata.insert("description".into(), root.text(field::model::DESCRIPTION)?.into());
    let buffers = root.tables(field::model::BUFFERS)?.map(|buffer| place(bytes, buffer?));
    let buffers = buffers.collect::<Result<Vec<_>>>()?;
    // Many offsets may point to one table: what is copied out of the file is counted.
    let (mut names, mut budget) = (HashSet::new(), bytes.len().saturating_mul(2));
    for (graph, subgraph) in root.tables(field::model::SUBGRAPHS)?.enumerate() {
        for (index, tensor) in subgraph?.tables(field::SUBGRAPH_TENSORS)?.enumerate() {
            let tensor = tensor?;
            let buffer = tensor.number::<u32>(field::tensor::BUFFER)? as usize;
            let beyond = || Error::format(tensor.at(), format!("buffer {buffer} of {}", buffers.len()));
            let place = buffers.get(buffer).ok_or_else(beyond)?;
            if place.is_empty() {
                continue;
            }
            let mut name = tensor.text(field::tensor::NAME)?.to_owned();
            if name.is_empty() || names.contains(&name) {
                name = format!("{name}#{graph}.{index}");
            }
            let scales = tensor.table(field::tensor::QUANTIZATION)?;
            let mut copied = name.len() + tensor.vector(field::tensor::SHAPE, 4)?.len();
            if let Some(table) = &scales {
                copied += table.vector(field::SCALES, 4)?.len() + table.vector(field::ZERO_POINTS, 8)?.len();
            }
            let left = budget.checked_sub(copied);
            budget = left.ok_or_else(|| Error::format(tensor.at(), "tensors that share more than a file has"))?;
            if !names.insert(name.clone()) {
                return Err(Error::format(tensor.at(), "a second tensor of this name").in_tensor(&name));
            }
            model.add(name.clone(), &tensor, place, scales).map_err(|error| error.in_tensor(&name))?;
        }
    }
    Ok(model)
}

/// Where a buffer's bytes are: in the FlatBuffer, or behind it where that is above 2 GiB.
fn place(bytes: &[u8], buffer: Table<'_>) -> Result<Range<usize>> {
    let offset: u64 = buffer.number(field::BUFFER_OFFSET)?;
    // The schema's 0 and 1 mean that the bytes are within.
    if offset < 2 {
        return buffer.vector(field::BUFFER_DATA, 1);
    }
    let size: u64 = buffer.number(field::BUFFER_SIZE)?;
    let end = offset.checked_add(size).filter(|end| *end <= bytes.len() as u64);
    let end = end.ok_or_else(|| Error::format(buffer.at(), format!("a buffer of {size} bytes from {offset} on")))?;
    Ok(offset as usize..end as usize)
}

impl Model {
    fn add(&mut self, name: String, tensor: &Table<'_>, place: &Range<usize>, scales: Option<Table<'_>>) -> Result<()> {
        let kind: i8 = tensor.number(field::tensor::TYPE)?;
        let sparse = tensor.table(field::tensor::SPARSITY)?.is_some();
        let element = match element(kind) {
            Some(Ok(element)) if !sparse => element,
            Some(Ok(_)) => return self.leave_out(&name, "sparse"),
            Some(Err(reason)) => return self.leave_out(&name, reason),
            None => return Err(Error::format(tensor.at(), format!("type {kind}"))),
        };
        let sizes = tensor.numbers::<i32>(field::tensor::SHAPE)?;
        let shape = sizes.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>();
        let shape = shape.ok_or_else(|| Error::format(tensor.at(), format!("a shape of {sizes:?}")))?;
        let info = TensorInfo { name, element, shape };
        let len = info.byte_len()?;
        if len != place.len() {
            return Err(Error::format(place.start, format!("{} bytes, {len} of elements needed", place.len())));
        }
        let quantization = scales.map(quantization).transpose()?.flatten();
        self.tensors.push(info);
        self.places.push(place.clone());
        self.quantizations.push(quantization);
        Ok(())
    }

    fn leave_out(&mut self, name: &str, reason: &str) -> Result<()> {
        self.metadata.insert(format!("left out: {name}"), reason.into());
        Ok(())
    }
}

fn quantization(table: Table<'_>) -> Result<Option<Quantization>> {
    let (scales, zero_points) = (table.numbers::<f32>(field::SCALES)?, table.numbers::<i64>(field::ZERO_POINTS)?);
    if scales.is_empty() {
        return Ok(None);
    }
    let axis: i32 = table.number(field::AXIS)?;
    let axis = usize::try_from(axis).map_err(|_| Error::format(table.at(), format!("axis {axis}")))?;
    Ok(Some(Quantization { scales, zero_points, axis }))
}

/// The element type of the schema's number; why not, for one that is no number.
fn element(kind: i8) -> Option<Result<ElementType, &'static str>> {
    Some(Ok(match kind {
        0 => ElementType::F32,
        1 => ElementType::F16,
        2 => ElementType::I32,
        3 => ElementType::U8,
        4 => ElementType::I64,
        5 => return Some(Err("texts")),
        6 => ElementType::Bool,
        7 => ElementType::I16,
        8 => ElementType::C64,
        9 => ElementType::I8,
        10 => ElementType::F64,
        11 => ElementType::C128,
        12 => ElementType::U64,
        13 => return Some(Err("a resource")),
        14 => return Some(Err("a variant")),
        15 => ElementType::U32,
        16 => ElementType::U16,
        17 => ElementType::I4,
        18 => ElementType::Bf16,
        19 => ElementType::I2,
        _ => return None,
    }))
}
