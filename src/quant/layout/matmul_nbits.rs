//! The weights of ONNX Runtime's operator `com.microsoft::MatMulNBits`.

use super::groups_of_runs;
use crate::{
    error::{Error, Result},
    kernel::pack::{pack, packed_len, unpack},
    tensor::{
        Granularity, Grid, QTensor, Scales, Values,
        qtensor::check_finite,
        view::{checked_volume, filled},
    },
};
use half::f16;
use std::ops::Range;

/// The zero points of a [`MatMulNBits`], one a block.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ZeroPoints {
    /// None are stored: that of each block is `2^(bits - 1)`.
    Middle,
    /// Integers of `bits` bits; those of a row are a stream of bits, the first lowest, each row from a byte on.
    Packed(Vec<u8>),
    /// Any numbers, in steps of the block.
    Float(Vec<f32>),
}

/// A matrix `[N, K]` (outputs, inputs) in blocks along `K`, as `MatMulNBits` takes it: `Y = A · x'ᵀ` with
/// `x' = (q - zero_point) * scale`.
///
/// | input | shape | what |
/// |---|---|---|
/// | `B` | `[N, blocks, block_size * bits / 8]` | codes, the first in the lowest bits; a row's last block is filled up |
/// | `scales` | `[N, blocks]` | `f32` or `f16` |
/// | `zero_points` | `[N, ceil(blocks * bits / 8)]` | [packed](ZeroPoints::Packed); [none](ZeroPoints::Middle) |
/// | | `[N, blocks]` | or in [`f32`](ZeroPoints::Float) |
///
/// with `blocks = ceil(K / block_size)`.
///
/// | name | range | purpose |
/// |---|---|---|
/// | `bits` | 2, 4, 8 | bits of a code |
/// | `block_size` | 16, 32, 64, … | neighbours along `K` that share a scale |
///
/// ```
/// use lapidary::{QuantizerExt, TensorRef, quant::{Affine, layout::MatMulNBits}};
/// let weights: Vec<f32> = (0..80).map(|i| (i as f32 * 0.3).sin()).collect();
/// let q = Affine::new(4)?.per_group(32)?.quantize(TensorRef::new(&weights, &[2, 40])?)?;
/// let b = MatMulNBits::from_qtensor(&q, 32)?;
/// assert_eq!((b.packed().len(), b.scales().len()), (2 * 2 * 16, 2 * 2));
/// assert_eq!(b.to_qtensor()?, q);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// Follows ONNX Runtime's `docs/ContribOperators.md`.
#[derive(Debug, Clone, PartialEq)]
pub struct MatMulNBits {
    shape: [usize; 2],
    bits: u8,
    block_size: usize,
    packed: Vec<u8>,
    scales: Scales,
    zero_points: ZeroPoints,
}

impl MatMulNBits {
    /// The inputs of an operator, checked.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a number is not in its range, the scales are of another type than
    /// `f32` or `f16`, or 8 bits have zero points in `f32`; [`Shape`](crate::ErrorKind::Shape) when an array has
    /// another length than the shape `[N, K]` implies; [`NonFinite`](crate::ErrorKind::NonFinite) for a scale or zero
    /// point that is NaN or infinite; [`Empty`](crate::ErrorKind::Empty) without an element.
    pub fn new(
        shape: [usize; 2],
        bits: u8,
        block_size: usize,
        packed: Vec<u8>,
        scales: Scales,
        zero_points: ZeroPoints,
    ) -> Result<Self> {
        check_form(bits, block_size)?;
        let [n, k] = shape;
        if checked_volume(&shape)? == 0 {
            return Err(Error::empty("matrix"));
        }
        let blocks = k.div_ceil(block_size);
        let row = packed_len(block_size, bits.into());
        let length = |what, found: usize, row: Option<usize>| match row.and_then(|row| n.checked_mul(row)) {
            Some(needed) if needed == found => Ok(()),
            needed => Err(Error::shape(what, &[needed.unwrap_or(usize::MAX)], &[found])),
        };
        length("packed codes", packed.len(), blocks.checked_mul(row))?;
        length("scales", scales.len(), Some(blocks))?;
        match &scales {
            Scales::Full(Values::F32(scales)) => check_finite("scales", scales)?,
            Scales::F16(scales) => check_finite("scales", scales)?,
            scales => return Err(Error::argument("scales", format!("in {}", scales.form()), "in F32 or F16")),
        }
        match &zero_points {
            ZeroPoints::Middle => {}
            ZeroPoints::Packed(zeros) => {
                length("zero points", zeros.len(), Some(packed_len(blocks, bits.into())))?;
            }
            ZeroPoints::Float(zeros) => {
                length("zero points", zeros.len(), Some(blocks))?;
                check_finite("zero points", zeros)?;
                if bits == 8 {
                    return Err(Error::argument("zero points", "in F32 for 8 bits", "integers"));
                }
            }
        }
        Ok(Self { shape, bits, block_size, packed, scales, zero_points })
    }

    /// The weights of a quantized matrix `[N, K]`, whose groups are one block along `K` or several.
    ///
    /// Exact for [affine](Grid::Affine) levels. [Min-max](Grid::MinMax) ones, of 2 or 4 bits, get zero points in `f32`:
    ///
    /// ```text
    /// scale = (max - min) / (2^b - 1);  zero_point = -min / scale        in f64, each narrowed to f32
    /// max = min = c: q = 0, zero_point = -1, scale = c
    /// ```
    ///
    /// which is exact for constant blocks, and else within 2 ulp of the larger of `|min|` and `|max|`: measured, and
    /// reached, not proven. The codes that fill up the last block are its zero point; zero points that fill up a byte
    /// are `2^(bits-1)`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a number is not in its range, there are not two axes, a block lies
    /// in several groups, levels are of another form, scales of another type than `f32` or `f16`, or a min-max step is
    /// not 0 but below the smallest normal number.
    pub fn from_qtensor(q: &QTensor, block_size: usize) -> Result<Self> {
        check_form(q.bits(), block_size)?;
        let &[n, k] = q.shape() else {
            return Err(Error::argument("shape", format!("{:?}", q.shape()), "one of two axes, N and K"));
        };
        let Some(groups) = groups_of_runs(q, block_size) else {
            let found = format!("{:?} for blocks of {block_size}", q.granularity());
            return Err(Error::argument("granularity", found, "groups of whole blocks along the last axis"));
        };
        let blocks = k.div_ceil(block_size);
        let mut constant = Vec::new();
        let middle = 1u8 << (q.bits() - 1);
        let mut fill = filled(groups.len(), middle)?;
        let (scales, zero_points) = match q.grid() {
            Grid::Affine { scale, zero_point } => {
                let scales = match scale {
                    Scales::Full(Values::F32(scale)) => Values::F32(groups.iter().map(|&g| scale[g]).collect()).into(),
                    Scales::F16(scale) => Scales::F16(groups.iter().map(|&g| scale[g]).collect()),
                    scale => return Err(Error::argument("scales", format!("in {}", scale.form()), "in F32 or F16")),
                };
                let zeros = match zero_point {
                    Some(zeros) => {
                        fill = groups.iter().map(|&g| zeros[g] as u8).collect();
                        ZeroPoints::Packed(pack_rows(&fill, blocks, q.bits())?)
                    }
                    None => ZeroPoints::Middle,
                };
                (scales, zeros)
            }
            Grid::MinMax { min, max } if q.bits() < 8 => {
                let ends = |g: usize| (min.numbers().get(g), max.numbers().get(g));
                let (mut scales, mut zeros) = (Vec::new(), Vec::new());
                for (i, &group) in groups.iter().enumerate() {
                    let (min, max) = ends(group);
                    let (scale, zero) = float_zero(min, max, q.bits()).map_err(|reach| {
                        let found = format!("{reach:e} in group {group}");
                        Error::argument("step", found, "0, or a normal number in f32")
                    })?;
                    scales.push(scale);
                    zeros.push(zero);
                    fill[i] = zero.clamp(0.0, f32::from(middle) * 2.0 - 1.0) as u8;
                    if min == max {
                        constant.push(i);
                    }
                }
                (Scales::from(Values::F32(scales)), ZeroPoints::Float(zeros))
            }
            grid => {
                let found = format!("{} of {} bits", grid.form(), q.bits());
                return Err(Error::argument("levels", found, "scales, or ranges of 2 or 4 bits"));
            }
        };
        // A row of codes is that of the blocks as far as it goes.
        let bits = q.bits().into();
        let row = packed_len(blocks * block_size, bits);
        let mut packed = filled(packed_len(whole_blocks(n, blocks, block_size)?, bits), 0)?;
        let rows = packed.chunks_exact_mut(row).zip(q.packed().chunks_exact(packed_len(k, bits)));
        for ((row, codes), fill) in rows.zip(fill.chunks_exact(blocks)) {
            row[..codes.len()].copy_from_slice(codes);
            set_codes(row, k..blocks * block_size, fill[blocks - 1], bits);
        }
        for i in constant {
            let (row, start) = (&mut packed[i / blocks * row..][..row], i % blocks * block_size);
            set_codes(row, start..k.min(start + block_size), 0, bits);
        }
        Self::new([n, k], q.bits(), block_size, packed, scales, zero_points)
    }

    /// The same levels as a quantized tensor of the shape `[N, K]`, a group a block.
    ///
    /// Exact with integer zero points (the sign of a zero aside): where a scale is negative, codes and zero point are
    /// counted from the other end; where it is 0, all codes are that of 0. With zero points in `f32` the levels are
    /// [min-max](Grid::MinMax) ones in `f64`, which are rounded once, not three times: as far apart as
    /// [above](MatMulNBits::from_qtensor).
    ///
    /// # Errors
    /// As [`QTensor::new`].
    pub fn to_qtensor(&self) -> Result<QTensor> {
        let [n, k] = self.shape;
        let blocks = k.div_ceil(self.block_size);
        let top = ((1u32 << self.bits) - 1) as u8;
        let mut codes = self.codes()?;
        let signs: Vec<f64> = (0..n * blocks).map(|i| self.scale(i)).collect();
        let turned = |scale: f64| scale < 0.0;
        let grid = if let ZeroPoints::Float(zeros) = &self.zero_points {
            let ends = signs.iter().zip(zeros).map(|(&scale, &zero)| {
                let ends = (-f64::from(zero) * scale, (f64::from(top) - f64::from(zero)) * scale);
                if turned(scale) { (ends.1, ends.0) } else { ends }
            });
            let (min, max) = ends.unzip();
            Grid::MinMax { min: Values::F64(min), max: Values::F64(max) }
        } else {
            let mut zeros = self.integer_zeros()?;
            for ((zero, &scale), i) in zeros.iter_mut().zip(&signs).zip(0..) {
                if turned(scale) {
                    *zero = top - *zero;
                }
                if scale == 0.0 {
                    self.block(&mut codes, i).fill(*zero);
                }
            }
            let middle = matches!(self.zero_points, ZeroPoints::Middle) && !signs.iter().any(|&scale| turned(scale));
            let zero_point = (!middle).then(|| zeros.into_iter().map(u16::from).collect());
            Grid::Affine { scale: magnitudes(&self.scales), zero_point }
        };
        for (i, _) in signs.iter().enumerate().filter(|&(_, &scale)| turned(scale)) {
            self.block(&mut codes, i).iter_mut().for_each(|code| *code = top - *code);
        }
        QTensor::from_codes(&[n, k], self.bits, Granularity::Group { size: self.block_size }, grid, &codes)
    }

    /// The matrix `[N, K]` by the operator's arithmetic: `(q - zero_point) * scale` in `f32`, at most the largest
    /// number.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold it.
    pub fn dequantize(&self) -> Result<Vec<f32>> {
        let mut values = filled(self.shape[0] * self.shape[1], 0f32)?;
        let codes = self.codes()?;
        let integers = match &self.zero_points {
            ZeroPoints::Float(_) => Vec::new(),
            _ => self.integer_zeros()?,
        };
        let k = self.shape[1];
        let blocks = k.div_ceil(self.block_size);
        for (row, (values, codes)) in values.chunks_exact_mut(k).zip(codes.chunks_exact(k)).enumerate() {
            let of_row = values.chunks_mut(self.block_size).zip(codes.chunks(self.block_size)).zip(row * blocks..);
            for ((values, codes), i) in of_row {
                let scale = self.scale(i) as f32;
                let zero = match &self.zero_points {
                    ZeroPoints::Float(zeros) => zeros[i],
                    _ => integers[i].into(),
                };
                for (x, &code) in values.iter_mut().zip(codes) {
                    *x = ((f32::from(code) - zero) * scale).clamp(f32::MIN, f32::MAX);
                }
            }
        }
        Ok(values)
    }

    /// `[N, K]`: outputs and inputs.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bits of a code.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Neighbours along `K` that share a scale.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The input `B`.
    #[must_use]
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The input `scales`.
    #[must_use]
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The input `zero_points`.
    #[must_use]
    pub fn zero_points(&self) -> &ZeroPoints {
        &self.zero_points
    }

    /// Whether integer zero points are stored.
    pub(super) fn zeros_are_packed(&self) -> bool {
        matches!(self.zero_points, ZeroPoints::Packed(_))
    }

    pub(super) fn scale(&self, block: usize) -> f64 {
        self.scales.numbers().get(block)
    }

    /// The codes of `[N, K]`, without those that fill up.
    pub(super) fn codes(&self) -> Result<Vec<u8>> {
        let k = self.shape[1];
        unpack_rows(&self.packed, k.div_ceil(self.block_size) * self.block_size, k, self.bits)
    }

    /// The zero points of all blocks; those of [`ZeroPoints::Float`] are not here.
    fn integer_zeros(&self) -> Result<Vec<u8>> {
        let blocks = self.shape[1].div_ceil(self.block_size);
        match &self.zero_points {
            ZeroPoints::Packed(zeros) => unpack_rows(zeros, blocks, blocks, self.bits),
            _ => filled(self.shape[0] * blocks, 1u8 << (self.bits - 1)),
        }
    }

    /// The codes of a block.
    fn block<'a>(&self, codes: &'a mut [u8], block: usize) -> &'a mut [u8] {
        let k = self.shape[1];
        let blocks = k.div_ceil(self.block_size);
        let (row, first) = (block / blocks, block % blocks * self.block_size);
        &mut codes[row * k + first..row * k + (first + self.block_size).min(k)]
    }
}

pub(super) fn check_form(bits: u8, block_size: usize) -> Result<()> {
    if !matches!(bits, 2 | 4 | 8) {
        return Err(Error::argument("bits", bits, "2, 4 or 8"));
    }
    // A last block is filled up: larger ones would cost memory that no tensor asks for.
    match block_size.is_power_of_two() && (16..=1 << 16).contains(&block_size) {
        true => Ok(()),
        false => Err(Error::argument("block size", block_size, "a power of two from 16 to 65,536")),
    }
}

/// Codes of `n` rows of whole blocks.
pub(super) fn whole_blocks(n: usize, blocks: usize, block_size: usize) -> Result<usize> {
    let codes =
        blocks.checked_mul(block_size).and_then(|row| row.checked_mul(n)).filter(|&all| all <= isize::MAX as usize);
    codes.ok_or_else(|| Error::argument("block size", block_size, "one whose blocks memory holds"))
}

/// Sets some codes of a packed row.
fn set_codes(row: &mut [u8], codes: Range<usize>, code: u8, bits: u32) {
    let mask = ((1u32 << bits) - 1) as u8;
    for i in codes {
        let (byte, shift) = (i * bits as usize / 8, i * bits as usize % 8);
        row[byte] = row[byte] & !(mask << shift) | code << shift;
    }
}

/// Rows of so many codes, each packed from a byte on; the last byte of a row is filled up with the middle code.
pub(super) fn pack_rows(codes: &[u8], row: usize, bits: u8) -> Result<Vec<u8>> {
    let bits = u32::from(bits);
    let (row_bytes, whole) = (packed_len(row, bits), row.next_multiple_of(8 / bits as usize));
    let mut bytes = filled(codes.len() / row * row_bytes, 0)?;
    let mut room = filled(whole, 1u8 << (bits - 1))?;
    for (codes, bytes) in codes.chunks_exact(row).zip(bytes.chunks_exact_mut(row_bytes)) {
        room[..row].copy_from_slice(codes);
        pack(&room, bits, bytes);
    }
    Ok(bytes)
}

/// The first `kept` codes of rows of `row`.
fn unpack_rows(bytes: &[u8], row: usize, kept: usize, bits: u8) -> Result<Vec<u8>> {
    let row_bytes = packed_len(row, bits.into());
    let mut codes = filled(bytes.len() / row_bytes * kept, 0)?;
    for (codes, bytes) in codes.chunks_exact_mut(kept).zip(bytes.chunks_exact(row_bytes)) {
        unpack(&bytes[..packed_len(kept, bits.into())], bits.into(), codes);
    }
    Ok(codes)
}

/// The scale and the zero point in `f32` of a range; the step where it is too small.
fn float_zero(min: f64, max: f64, bits: u8) -> Result<(f32, f32), f64> {
    if min == max {
        return Ok((min as f32, -1.0));
    }
    let step = (max - min) / f64::from((1u32 << bits) - 1);
    let scale = step as f32;
    if scale < f32::MIN_POSITIVE || !scale.is_finite() {
        return Err(step);
    }
    Ok((scale, (-min / f64::from(scale)) as f32))
}

/// Without signs; the smallest normal number in place of 0.
fn magnitudes(scales: &Scales) -> Scales {
    match scales {
        Scales::F16(scales) => {
            let above = |scale: &f16| {
                if *scale == f16::ZERO { f16::MIN_POSITIVE } else { f16::from_bits(scale.to_bits() & 0x7fff) }
            };
            Scales::F16(scales.iter().map(above).collect())
        }
        scales => {
            let above = |i| match scales.numbers().get(i).abs() as f32 {
                0.0 => f32::MIN_POSITIVE,
                scale => scale,
            };
            Values::F32((0..scales.len()).map(above).collect()).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{QuantizerExt, TensorRef, quant::MinMax};

    #[test]
    fn a_constant_range_has_the_zero_point_below_its_code() {
        let x: Vec<f32> = [vec![2.5; 16], vec![-1.0, 2.0]].concat();
        let q = MinMax::new(2).unwrap().per_group(16).unwrap();
        let b = MatMulNBits::from_qtensor(&q.quantize(TensorRef::new(&x, &[1, 18]).unwrap()).unwrap(), 16).unwrap();
        assert_eq!(b.scales(), &Values::F32(vec![2.5, 1.0]).into());
        assert_eq!(b.zero_points(), &ZeroPoints::Float(vec![-1.0, 1.0]));
        assert_eq!(b.packed(), [0, 0, 0, 0, 0b01_01_11_00, 0b01_01_01_01, 0b01_01_01_01, 0b01_01_01_01]);
        assert_eq!(b.dequantize().unwrap(), x);
        assert_eq!(b.to_qtensor().unwrap().dequantize::<f32>(), x);
    }

    #[test]
    fn negative_scales_are_counted_from_the_other_end() {
        let scales = Scales::F16(vec![f16::from_f32(-0.5), f16::from_f32(2.0), f16::ZERO]);
        let packed = [vec![0x80; 8], vec![0x80; 8], vec![0x80; 8]].concat();
        let b = MatMulNBits::new([1, 48], 4, 16, packed, scales, ZeroPoints::Middle).unwrap();
        let q = b.to_qtensor().unwrap();
        let scale = Scales::F16(vec![f16::from_f32(0.5), f16::from_f32(2.0), f16::MIN_POSITIVE]);
        assert_eq!(q.grid(), &Grid::Affine { scale, zero_point: Some(vec![7, 8, 8]) });
        assert_eq!((q.codes()[0], q.codes()[1], q.codes()[16], q.codes()[32]), (15, 7, 0, 8));
        assert_eq!(q.dequantize::<f32>(), b.dequantize().unwrap());
        assert_eq!(q.dequantize::<f32>()[0], 4.0);
    }
}
