//! Large tensors quantized some rows at a time.

use super::{look::Cost, source::Source};
use crate::{
    error::{Error, Result},
    quant::{Affine, Certify, MinMax, Range, Symmetric},
    tensor::{Granularity, Grid, QTensor, TensorMut, TensorRef, Values, view::checked_volume},
    traits::Quantizer,
};

/// How the codes of a tensor are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scheme {
    pub(super) bits: u8,
    /// No zero points.
    pub(super) symmetric: bool,
    /// Along the axes as they are read: of the transposed matrix, where it is.
    pub(super) granularity: Granularity,
}

impl Scheme {
    /// A tensor of this shape, as yet without values.
    #[cfg(feature = "safetensors")]
    pub(super) fn layout(self, shape: &[usize]) -> Result<QTensor> {
        self.quantizer()?.layout(shape)
    }

    fn quantizer(self) -> Result<Box<dyn Certify<f32>>> {
        macro_rules! shared {
            ($quantizer:expr) => {
                match self.granularity {
                    Granularity::Tensor => Box::new($quantizer),
                    Granularity::Channel { axis } => Box::new($quantizer.per_channel(axis)),
                    Granularity::Group { size } => Box::new($quantizer.per_group(size)?),
                    Granularity::Block { axis, size } => Box::new($quantizer.per_block(axis, size)?),
                }
            };
        }
        Ok(match self.symmetric {
            true => shared!(Symmetric::new(self.bits)?),
            false => shared!(Affine::new(self.bits)?),
        })
    }

    fn grid(self, ranges: &[Range]) -> Result<Grid> {
        match self.symmetric {
            true => Symmetric::new(self.bits)?.grid::<f32>(ranges),
            false => Affine::new(self.bits)?.grid::<f32>(ranges),
        }
    }

    /// Whether the levels of all parts are the same.
    #[cfg(feature = "onnx")]
    pub(super) fn shares_levels(self) -> bool {
        self.spread(1).0
    }

    /// Whether all rows of the first axis share levels, and what the number of rows of a part is a multiple of.
    fn spread(self, width: usize) -> (bool, usize) {
        // Elements beside one another of a first index, and as many zero points, in whole bytes.
        let whole = 8 >> (width * usize::from(self.bits)).trailing_zeros().min(3);
        match self.granularity {
            Granularity::Tensor => (true, 8),
            Granularity::Channel { axis } => (axis > 0, 8),
            // Parts begin on whole bytes of codes and zero points.
            Granularity::Block { axis: 0, size } => (false, size.saturating_mul(whole)),
            _ => (false, 8),
        }
    }
}

/// Quantizes a tensor part by part: `sink` gets each, and the first of its rows. Levels that all parts share are in each. The parts
/// are the same whatever the number of threads; they have about `chunk` elements.
pub(super) fn encode(
    source: &Source,
    scheme: Scheme,
    chunk: usize,
    sink: &mut dyn FnMut(usize, &QTensor) -> Result<()>,
) -> Result<Cost> {
    let shape = source.shape();
    let rows = shape.first().copied().unwrap_or(1);
    let width = checked_volume(shape.get(1..).unwrap_or_default())?.max(1);
    let (shared, multiple) = scheme.spread(width);
    // What is decoded is in memory, too.
    let chunk = if source.look.is_any() { chunk / 2 } else { chunk };
    let step = (chunk / width).max(1).next_multiple_of(multiple).min(rows.max(1));
    let parts = || (0..rows).step_by(step).map(move |first| first..rows.min(first + step));
    let part_shape = |rows: usize| [&[rows][..], shape.get(1..).unwrap_or_default()].concat();
    let (mut values, mut decoded, mut cost) = (Vec::new(), Vec::new(), Cost::new(source.look));
    let grid = match shared && step < rows {
        true => Some(shared_grid(source, scheme, parts(), part_shape, &mut values)?),
        false => None,
    };
    let quantizer = scheme.quantizer()?;
    let mut room: Option<QTensor> = None;
    for part in parts() {
        let first = part.start;
        // A tensor without axes is one number.
        let own = if shape.is_empty() { Vec::new() } else { part_shape(part.len()) };
        cost.read(source, part, &mut values)?;
        // All but the last part have the same shape.
        let mut q = match room.take() {
            Some(q) if q.shape() == own => q,
            _ => quantizer.layout(&own)?,
        };
        let tensor = TensorRef::new(&values, &own)?;
        match &grid {
            Some(grid) => {
                q.set_grid(grid.clone())?;
                quantizer.encode(TensorRef::from(&tensor), &mut q)
            }
            None => quantizer.quantize_into(TensorRef::from(&tensor), &mut q),
        }
        .map_err(|error| source.placed(error, first, &values))?;
        let error = q.error(&tensor)?;
        let noise = error.mse * values.len() as f64;
        // Of what is kept exactly there is no ratio.
        cost.signal += match noise {
            0.0 => values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>(),
            _ => noise * 10f64.powf(error.sqnr_db / 10.0),
        };
        cost.noise += noise;
        cost.max_abs = cost.max_abs.max(error.max_abs);
        cost.bound = cost.bound.max(quantizer.certificate(&q)?.max_abs());
        if source.look.is_any() {
            decoded.resize(values.len(), 0f32);
            q.dequantize_into(TensorMut::new(&mut decoded, &own)?)?;
            cost.became(&decoded);
        }
        sink(first, &q)?;
        room = Some(q);
    }
    Ok(cost)
}

/// The levels of groups that reach over all parts, from the ranges of each.
fn shared_grid(
    source: &Source,
    scheme: Scheme,
    parts: impl Iterator<Item = std::ops::Range<usize>>,
    part_shape: impl Fn(usize) -> Vec<usize>,
    values: &mut Vec<f32>,
) -> Result<Grid> {
    let ranges = match scheme.granularity {
        Granularity::Channel { axis } => MinMax::new(8)?.per_channel(axis),
        _ => MinMax::new(8)?,
    };
    let mut ends: Vec<(f32, f32)> = Vec::new();
    for part in parts {
        let (own, first) = (part_shape(part.len()), part.start);
        source.rows(part, values)?;
        let mut q = Quantizer::<f32>::layout(&ranges, &own)?;
        ranges.fit(TensorRef::new(values, &own)?, &mut q).map_err(|error| source.placed(error, first, values))?;
        let Grid::MinMax { min: Values::F32(min), max: Values::F32(max) } = q.grid() else {
            return Err(Error::argument("levels", q.grid().form(), "minima and maxima"));
        };
        ends.resize(min.len(), (f32::INFINITY, f32::NEG_INFINITY));
        for (end, (&min, &max)) in ends.iter_mut().zip(min.iter().zip(max)) {
            *end = (end.0.min(min), end.1.max(max));
        }
    }
    let ranges = ends.into_iter().map(|(min, max)| Range::new(min.into(), max.into())).collect::<Result<Vec<_>>>()?;
    scheme.grid(&ranges)
}
