//! How a weight of an ONNX model can be kept.

use super::weights::{Axes, Use};
use crate::{
    compress::{
        activations::Activations,
        encode::Scheme,
        recipe::{Form, Recipe},
    },
    format::file::ElementType,
    tensor::Granularity,
};
use std::collections::BTreeMap;

/// The most weights of a block of `MatMulNBits`.
const MAX_BLOCK: usize = 1 << 16;
/// Bytes of an index of a sparse initializer.
const INDEX: u64 = 8;

/// What a weight becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum How {
    Codes(Way),
    /// Numbers, with zeros for what is pruned.
    Dense,
    /// So many numbers that are not zero, and their indices.
    Sparse {
        count: usize,
    },
    /// It stays.
    Stay,
}

/// How a weight will be kept as codes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Way {
    pub(super) bits: u8,
    /// `None`: a scale for each output channel.
    pub(super) group: Option<usize>,
    pub(super) multiplied: bool,
    /// By codes of activations.
    pub(super) integer: bool,
}

impl Way {
    /// The version of the operators it needs.
    pub(super) fn opset(self) -> i64 {
        match self {
            Self { multiplied: true, .. } => 1,
            Self { integer: true, .. } => 11,
            Self { bits: 2, .. } => 25,
            Self { bits: 8, group: None, .. } => 13,
            _ => 21,
        }
    }

    /// How the codes are chosen, along the axes as the weight is read.
    pub(super) fn scheme(self, symmetric: bool, axes: Axes) -> Scheme {
        let granularity = match (self.group, self.multiplied) {
            (None, _) => Granularity::Channel { axis: axes.output },
            (Some(size), true) => Granularity::Group { size },
            (Some(size), false) => Granularity::Block { axis: axes.input, size },
        };
        Scheme { bits: self.bits, symmetric, granularity }
    }

    /// The bytes of codes, scales and zero points.
    fn bytes(self, symmetric: bool, shape: &[usize], axes: Axes) -> u64 {
        let (bits, volume) =
            (u128::from(self.bits), |shape: &[usize]| shape.iter().map(|&n| n as u128).product::<u128>());
        let (codes, levels) = match (self.group, self.multiplied) {
            (None, _) => (volume(shape), shape[axes.output] as u128),
            (Some(size), multiplied) => {
                let blocks = shape[axes.input].div_ceil(size) as u128;
                let others = volume(shape) / (shape[axes.input] as u128).max(1);
                (if multiplied { others * blocks * size as u128 } else { volume(shape) }, others * blocks)
            }
        };
        let zeros = match (symmetric, self.group) {
            (true, _) => 0,
            // Those of each row in whole bytes.
            (false, Some(size)) if self.multiplied => {
                shape[axes.output] as u128 * (shape[axes.input].div_ceil(size) as u128 * bits).div_ceil(8)
            }
            (false, _) => (levels * bits).div_ceil(8),
        };
        u64::try_from((codes * bits).div_ceil(8) + 4 * levels + zeros).unwrap_or(u64::MAX)
    }
}

/// A weight to be changed.
pub(super) struct Of<'a> {
    pub(super) element: ElementType,
    pub(super) shape: &'a [usize],
    pub(super) uses: &'a [Use],
    pub(super) axes: Axes,
    /// Of its elements.
    pub(super) bytes: u64,
}

/// Which versions of the operators there can be.
pub(super) struct Versions {
    /// There is.
    pub(super) from: i64,
    /// Why a higher version cannot be, by version.
    pub(super) blocked: BTreeMap<i64, Option<String>>,
}

impl Of<'_> {
    /// The bytes that a way takes.
    pub(super) fn bytes(&self, how: How, symmetric: bool) -> u64 {
        match how {
            How::Codes(way) => way.bytes(symmetric, self.shape, self.axes),
            How::Sparse { count } => sparse_bytes(self.element, count),
            How::Dense | How::Stay => self.bytes,
        }
    }

    /// All that can become of it by the recipe, the first where nothing else matters; and why it cannot be codes.
    pub(super) fn hows(&self, recipe: &Recipe, versions: &Versions) -> (Vec<How>, Option<String>) {
        let (mut hows, mut refused) = (Vec::new(), None);
        for bits in recipe.bit_choices() {
            let smaller = |ways: Vec<Way>| {
                let smaller = |way: &Way| way.bytes(recipe.symmetric, self.shape, self.axes) < self.bytes;
                ways.into_iter().find(smaller).ok_or_else(|| "not smaller as codes".into())
            };
            match self.ways(bits, recipe, versions).and_then(smaller) {
                Ok(way) if !hows.contains(&How::Codes(way)) => hows.push(How::Codes(way)),
                Ok(_) => {}
                Err(reason) => refused = refused.or(Some(reason)),
            }
        }
        match (&recipe.pruning, recipe.budget) {
            (Some(_), budget) if budget.is_some() || hows.is_empty() => hows.push(How::Dense),
            (None, Some(_)) => hows.push(How::Stay),
            _ => {}
        }
        (hows, refused)
    }

    /// A way as the report calls it.
    pub(super) fn said(&self, way: Way, recipe: &Recipe) -> String {
        let shared = match way.group {
            None => "a scale a channel".into(),
            Some(size) => format!("groups of {size}"),
        };
        let form = match way {
            Way { multiplied: true, .. } => "MatMulNBits".into(),
            Way { integer: true, .. } => "MatMulInteger".into(),
            _ => match self.floats(recipe) {
                Some(reason) => format!("DequantizeLinear, times floating-point numbers: {reason}"),
                None => "DequantizeLinear".into(),
            },
        };
        let zeros = if recipe.symmetric { ", no zero points" } else { "" };
        let pruned = if recipe.pruning.is_some() { ", pruned" } else { "" };
        format!("{} bits, {shared}{zeros}, {form}{pruned}", way.bits)
    }

    /// Why what multiplies by it stays as it is, where activations are to be codes when the model runs.
    fn floats(&self, recipe: &Recipe) -> Option<&'static str> {
        let longest = i32::MAX as usize / (255 * if recipe.symmetric { 127 } else { 255 });
        match recipe.activations {
            Some(Activations::Dynamic) if self.element != ElementType::F32 => Some("not of 32 bits"),
            Some(Activations::Dynamic)
                if self.uses.iter().any(|of| of.axes.is_none_or(|own| !own.along(self.axes))) =>
            {
                Some("read in several ways")
            }
            Some(Activations::Dynamic) if self.shape[self.axes.input] > longest => Some("sums of more than 32 bits"),
            Some(Activations::Dynamic) => self.uses.iter().find_map(|of| of.floats),
            _ => None,
        }
    }

    /// How it can be kept as codes, the best first, or why it cannot.
    fn ways(&self, bits: u8, recipe: &Recipe, versions: &Versions) -> Result<Vec<Way>, String> {
        let Recipe { group, form, .. } = *recipe;
        let Self { element, shape, uses, axes, .. } = *self;
        // No more than there is.
        let length = shape[axes.input].max(1);
        let block = group.unwrap_or(32).min(length.next_power_of_two().max(16));
        let group = group.map(|size| size.min(length));
        let matrix = |of: &Use| !of.inner && of.axes.is_some_and(|own| own.matrix && own.along(axes));
        let multiplied = match form {
            Form::Dequantize => Err("written as integers and their scales"),
            Form::Auto if bits == 8 => Err("8 bits are written as integers and their scales"),
            _ if !axes.matrix || !uses.iter().all(matrix) => Err("not only the right side of products, a matrix"),
            _ if element != ElementType::F32 => Err("not of 32 bits"),
            _ if versions.from < 7 => Err("sums of operators below version 7 do not broadcast"),
            _ if !block.is_power_of_two() || block > MAX_BLOCK => Err("in groups of no power of two up to 65,536"),
            _ => Ok(Way { bits, group: Some(block), multiplied: true, integer: false }),
        };
        let mut ways = match (form, multiplied) {
            (Form::MatMulNBits, Err(reason)) => return Err(reason.into()),
            (Form::MatMulNBits, Ok(way)) => return Ok(vec![way]),
            (_, multiplied) => Vec::from_iter(multiplied),
        };
        let plain = Way { bits, group, multiplied: false, integer: false };
        let channels = Way { group: None, ..plain };
        let integer = Way { integer: true, ..channels };
        let fallback = Way { bits: 8, ..channels };
        let dynamic = recipe.activations == Some(Activations::Dynamic);
        let rest = match form {
            _ if dynamic && self.floats(recipe).is_none() => &[integer, plain][..],
            Form::Auto => &[plain, channels, fallback],
            _ => &[plain, channels],
        };
        let mut reason = String::new();
        for &way in rest {
            match versions.blocked.get(&way.opset()).and_then(Option::as_ref) {
                Some(blocker) if way.opset() > versions.from => {
                    reason = format!("needs version {} of ONNX's operators, but {blocker}", way.opset());
                }
                _ => ways.push(way),
            }
        }
        if ways.is_empty() { Err(reason) } else { Ok(ways) }
    }
}

/// The bytes of a sparse initializer.
pub(super) fn sparse_bytes(element: ElementType, count: usize) -> u64 {
    (element.bytes(1).unwrap_or(0) as u64).saturating_add(INDEX).saturating_mul(count as u64)
}
