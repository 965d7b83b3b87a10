//! Quantized tensors from blocks, and blocks from quantized tensors.

use super::{
    Encoded, GgmlType,
    blocks::half,
    q4_k, q6_k,
    simple::{pack, unpack},
};
use crate::{
    error::{Error, Result},
    quant::layout::groups_of_runs,
    tensor::{Granularity, Grid, QTensor, QuantError, Scales, TensorRef, Values, view::filled},
};
use half::f16;

/// The blocks that a quantized tensor became.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Converted {
    /// The blocks, in logical order.
    pub bytes: Vec<u8>,
    /// Whether they decode to the same `f32` values. Else it was quantized again.
    pub exact: bool,
    /// How far the blocks are from the values of the tensor in `f32`.
    pub error: QuantError,
    /// As [`Encoded::vanished`]; 0 where it is exact.
    pub vanished: usize,
}

/// Steps and values of code 0 of parts, as they are read.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) codes: Vec<u8>,
    /// The step of each part, of any sign.
    pub(super) steps: Vec<f64>,
    /// The value of code 0 of each part, for a type that keeps one.
    pub(super) lowest: Vec<f64>,
}

impl GgmlType {
    /// The same levels as a quantized tensor.
    ///
    /// Exact: it decodes to the same bits in `f32`, the sign of a zero aside. `Q4_0`, `Q5_0`, `Q8_0` and `Q6K` have an
    /// [affine](Grid::Affine) grid, with scales in `f16` (`Q6K`: in `f32`, groups of 16). A negative scale turns into a
    /// positive one with the codes counted from the other end, which only a zero point can say: those are then kept,
    /// `2^(b-1)` or `2^(b-1) - 1`. A scale of 0 becomes the smallest normal number with all codes that of 0. `Q4_1`,
    /// `Q5_1` and `Q4K` are [min-max](Grid::MinMax), in `f32` where both ends are such numbers, else in `f64`.
    ///
    /// # Errors
    /// As [`encode`](GgmlType::encode) for the shape; [`Shape`](crate::ErrorKind::Shape) when `bytes` are not its
    /// blocks; [`NonFinite`](crate::ErrorKind::NonFinite) for a scale or minimum that is NaN or infinite, with the
    /// number of the block.
    pub fn to_qtensor(self, shape: &[usize], bytes: &[u8]) -> Result<QTensor> {
        let mut parts = self.read(shape, bytes)?;
        let (size, bits) = self.parts();
        let grid = if parts.lowest.is_empty() { parts.affine(self, size, bits) } else { parts.min_max(size, bits) };
        QTensor::from_codes(shape, bits, Granularity::Group { size }, grid, &parts.codes)
    }

    /// The blocks of a quantized tensor.
    ///
    /// The same levels where the type has them: `Q4_0`, `Q5_0`, `Q8_0` those of an [affine](Grid::Affine) grid and
    /// `Q4_1`, `Q5_1` also of a [min-max](Grid::MinMax) one, whose groups are whole blocks along the last axis and
    /// whose scales (and minima) are numbers of `f16`. Else the values are [encoded](GgmlType::encode), and
    /// [`Converted::error`] says what that cost.
    ///
    /// # Errors
    /// As [`encode`](GgmlType::encode); [`NonFinite`](crate::ErrorKind::NonFinite) also for a value beyond the largest
    /// `f32`.
    pub fn from_qtensor(self, q: &QTensor) -> Result<Converted> {
        let blocks = self.blocks(q.shape())?;
        let values: Vec<f32> = q.dequantize();
        if let Some(bytes) = self.same_levels(q, blocks)? {
            let error = self.to_qtensor(q.shape(), &bytes)?.error(TensorRef::new(&values, q.shape())?)?;
            if error.max_abs == 0.0 {
                return Ok(Converted { bytes, exact: true, error, vanished: 0 });
            }
        }
        let Encoded { bytes, vanished, .. } = self.encode(TensorRef::new(&values, q.shape())?)?;
        let error = self.to_qtensor(q.shape(), &bytes)?.error(TensorRef::new(&values, q.shape())?)?;
        Ok(Converted { bytes, exact: error.max_abs == 0.0, error, vanished })
    }

    /// The parts of the blocks of a shape, as they are.
    pub(super) fn read(self, shape: &[usize], bytes: &[u8]) -> Result<Parts> {
        let blocks = self.blocks(shape)?;
        self.check_bytes(bytes, blocks)?;
        let mut parts = Parts::default();
        for (i, block) in bytes.chunks_exact(self.block_bytes()).enumerate() {
            let places: &[usize] = match self {
                Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
                Self::Q4_1 | Self::Q5_1 | Self::Q4K => &[0, 2],
                Self::Q6K => &[208],
            };
            if let Some(scale) = places.iter().map(|&at| half(block, at)).find(|scale| !scale.is_finite()) {
                return Err(Error::non_finite("scales of blocks", i, scale.into()));
            }
            parts.read(self, block);
        }
        Ok(parts)
    }

    /// Elements that share a step, and the bits of a code.
    pub(super) fn parts(self) -> (usize, u8) {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => (32, 4),
            Self::Q5_0 | Self::Q5_1 => (32, 5),
            Self::Q8_0 => (32, 8),
            Self::Q6K => (16, 6),
        }
    }

    /// Blocks of the same levels, where the type has them.
    fn same_levels(self, q: &QTensor, blocks: usize) -> Result<Option<Vec<u8>>> {
        let ranged = matches!(self, Self::Q4_1 | Self::Q5_1);
        let (size, bits) = self.parts();
        let Some(groups) = groups_of_runs(q, size).filter(|_| !matches!(self, Self::Q4K | Self::Q6K)) else {
            return Ok(None);
        };
        let mut bytes = filled(blocks * self.block_bytes(), 0)?;
        let codes = q.codes();
        let of_blocks = bytes.chunks_exact_mut(self.block_bytes()).zip(codes.as_chunks::<32>().0).zip(groups);
        for ((block, codes), group) in of_blocks {
            let written = match (q.grid(), ranged) {
                (Grid::Affine { scale, zero_point }, false) => {
                    let zero = zero_point.as_ref().map_or(1 << (q.bits() - 1), |zeros| zeros[group]);
                    centred(codes, scale.numbers().get(group), zero, bits, block)
                }
                (Grid::Affine { scale, zero_point }, true) => {
                    let zero = zero_point.as_ref().map_or(1 << (q.bits() - 1), |zeros| zeros[group]);
                    let scale = scale.numbers().get(group);
                    from_lowest(codes, scale, -f64::from(zero) * scale, bits, block)
                }
                (Grid::MinMax { min, max }, true) if q.bits() <= bits => {
                    let (min, max) = (min.numbers().get(group), max.numbers().get(group));
                    let top = ((1u32 << q.bits()) - 1) as u16;
                    let step = (max - min) / f64::from(top);
                    // From the upper end down where only that is a number of 16 bits.
                    match from_lowest(codes, step, min, bits, block) {
                        None => from_lowest(&codes.map(|code| top - code), -step, max, bits, block),
                        written => written,
                    }
                }
                _ => None,
            };
            if written.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }
}

impl Parts {
    /// The parts of one block, whose scales are finite.
    fn read(&mut self, of: GgmlType, block: &[u8]) {
        match of {
            GgmlType::Q4_0 => self.codes.extend(unpack::<4>(&block[2..])),
            GgmlType::Q5_0 => self.codes.extend(unpack::<5>(&block[2..])),
            GgmlType::Q4_1 => self.codes.extend(unpack::<4>(&block[4..])),
            GgmlType::Q5_1 => self.codes.extend(unpack::<5>(&block[4..])),
            GgmlType::Q8_0 => self.codes.extend(block[2..].iter().map(|byte| byte ^ 0x80)),
            GgmlType::Q4K => {
                if let Ok(block) = block.try_into() {
                    for (step, offset) in q4_k::steps(block) {
                        self.steps.push(step.into());
                        self.lowest.push((-offset).into());
                    }
                }
                for nibbles in block[16..].as_chunks::<32>().0 {
                    self.codes.extend(nibbles.map(|byte| byte & 15));
                    self.codes.extend(nibbles.map(|byte| byte >> 4));
                }
                return;
            }
            GgmlType::Q6K => {
                if let Ok(block) = block.try_into() {
                    self.steps.extend(q6_k::steps(block).map(f64::from));
                    self.codes.extend(q6_k::unpack(block));
                }
                return;
            }
        }
        self.steps.push(half(block, 0).into());
        if matches!(of, GgmlType::Q4_1 | GgmlType::Q5_1) {
            self.lowest.push(half(block, 2).into());
        }
    }

    /// Levels about 0. Turns the codes where a step is negative.
    fn affine(&mut self, of: GgmlType, size: usize, bits: u8) -> Grid {
        let (middle, top) = (1u8 << (bits - 1), ((1u32 << bits) - 1) as u8);
        let turned = self.steps.iter().any(|&step| step < 0.0);
        let mut zeros = Vec::new();
        for (codes, &step) in self.codes.chunks_exact_mut(size).zip(&self.steps) {
            if step < 0.0 {
                codes.iter_mut().for_each(|code| *code = top - *code);
            } else if step == 0.0 {
                codes.fill(middle);
            }
            zeros.push(u16::from(if step < 0.0 { top - middle } else { middle }));
        }
        let scale = match of {
            GgmlType::Q6K => {
                let above = |&step: &f64| if step == 0.0 { f32::MIN_POSITIVE } else { step.abs() as f32 };
                Values::F32(self.steps.iter().map(above).collect()).into()
            }
            _ => {
                let above = |&step: &f64| if step == 0.0 { f16::MIN_POSITIVE } else { f16::from_f64(step.abs()) };
                Scales::F16(self.steps.iter().map(above).collect())
            }
        };
        Grid::Affine { scale, zero_point: turned.then_some(zeros) }
    }

    /// Levels between two ends. Turns the codes where a step is negative.
    fn min_max(&mut self, size: usize, bits: u8) -> Grid {
        let top = ((1u32 << bits) - 1) as u8;
        let mut ends = (Vec::new(), Vec::new());
        // The ends are exact in f64: few bits times few bits, and exponents not far apart.
        for ((codes, &step), &lowest) in self.codes.chunks_exact_mut(size).zip(&self.steps).zip(&self.lowest) {
            let other = lowest + f64::from(top) * step;
            if step < 0.0 {
                codes.iter_mut().for_each(|code| *code = top - *code);
            }
            ends.0.push(lowest.min(other));
            ends.1.push(lowest.max(other));
        }
        let single = |ends: &[f64]| ends.iter().all(|&x| f64::from(x as f32) == x);
        let narrow = |ends: &[f64]| Values::F32(ends.iter().map(|&x| x as f32).collect());
        match single(&ends.0) && single(&ends.1) {
            true => Grid::MinMax { min: narrow(&ends.0), max: narrow(&ends.1) },
            false => Grid::MinMax { min: Values::F64(ends.0), max: Values::F64(ends.1) },
        }
    }
}

/// Such a number of 16 bits, if there is one.
fn exact(x: f64) -> Option<f16> {
    let near = f16::from_f64(x);
    (f64::from(near) == x).then_some(near)
}

/// A block of `Q4_0`, `Q5_0` or `Q8_0`, if it has these levels: with the scale negative where the codes need one more
/// above 0 than below.
fn centred(codes: &[u16; 32], scale: f64, zero: u16, bits: u8, block: &mut [u8]) -> Option<()> {
    let (scale, middle) = (exact(scale)?, 1i32 << (bits - 1));
    let steps = codes.map(|code| i32::from(code) - i32::from(zero));
    let fits = |sign: i32| steps.iter().all(|step| (-middle..middle).contains(&(sign * step)));
    let sign = [1, -1].into_iter().find(|&sign| fits(sign))?;
    let scale = if sign < 0 { -scale } else { scale };
    block[..2].copy_from_slice(&scale.to_le_bytes());
    let codes = steps.map(|step| (sign * step + middle) as u8);
    match bits {
        4 => pack::<4>(&codes, &mut block[2..]),
        5 => pack::<5>(&codes, &mut block[2..]),
        _ => block[2..].iter_mut().zip(codes).for_each(|(byte, code)| *byte = code ^ 0x80),
    }
    Some(())
}

/// A block of `Q4_1` or `Q5_1`, if it has these levels.
fn from_lowest(codes: &[u16; 32], step: f64, lowest: f64, bits: u8, block: &mut [u8]) -> Option<()> {
    let (step, lowest) = (exact(step)?, exact(lowest)?);
    if codes.iter().any(|&code| code >> bits != 0) {
        return None;
    }
    block[..2].copy_from_slice(&step.to_le_bytes());
    block[2..4].copy_from_slice(&lowest.to_le_bytes());
    let codes = codes.map(|code| code as u8);
    match bits {
        4 => pack::<4>(&codes, &mut block[4..]),
        _ => pack::<5>(&codes, &mut block[4..]),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_and_zero_scales_are_turned() {
        let block = |d: f32| -> Vec<u8> {
            let mut block = f16::from_f32(d).to_le_bytes().to_vec();
            block.extend((0..16).map(|i| i | (15 - i) << 4));
            block
        };
        let bytes = [block(0.5), block(-0.25), block(0.0)].concat();
        let q = GgmlType::Q4_0.to_qtensor(&[96], &bytes).unwrap();
        let scale = Scales::F16(vec![f16::from_f32(0.5), f16::from_f32(0.25), f16::MIN_POSITIVE]);
        assert_eq!(q.grid(), &Grid::Affine { scale, zero_point: Some(vec![8, 7, 8]) });
        assert_eq!((q.codes()[0], q.codes()[32], q.codes()[64]), (0, 15, 8));
        assert_eq!((q.dequantize::<f32>()[0], q.dequantize::<f32>()[32], q.dequantize::<f32>()[64]), (-4.0, 2.0, 0.0));
        let back = GgmlType::Q4_0.from_qtensor(&q).unwrap();
        assert!(back.exact && back.bytes[..36] == bytes[..36]);
    }

    #[test]
    fn ranges_are_kept_in_the_narrowest_type_that_is_exact() {
        let block = |d: f32, m: f32| -> Vec<u8> {
            let numbers = [f16::from_f32(d).to_le_bytes(), f16::from_f32(m).to_le_bytes()].concat();
            [numbers, vec![0xf0; 16]].concat()
        };
        let grid = |d, m| GgmlType::Q4_1.to_qtensor(&[32], &block(d, m)).unwrap().grid().clone();
        let wide = Grid::MinMax { min: Values::F32(vec![-1.0]), max: Values::F32(vec![6.5]) };
        assert_eq!(grid(0.5, -1.0), wide);
        assert_eq!(grid(-0.5, 6.5), wide);
        let tiny = 2f64.powi(-24);
        let far = Grid::MinMax { min: Values::F64(vec![1024.0]), max: Values::F64(vec![1024.0 + 15.0 * tiny]) };
        assert_eq!(grid(tiny as f32, 1024.0), far);
    }
}
