//! Integers and their levels as numbers, by the definitions of the operators.

use crate::{
    error::{Error, Result},
    tensor::view::{checked_volume, filled},
};

/// Integers of 2, 4 or 8 bits, the first in the lowest bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integers<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) bits: usize,
    /// In two's complement.
    pub(super) signed: bool,
}

impl Integers<'_> {
    /// The integer `i`; 0 beyond the last.
    #[inline]
    fn at(self, i: usize) -> i32 {
        let per_byte = 8 / self.bits;
        let byte = u32::from(self.bytes.get(i / per_byte).copied().unwrap_or(0));
        let code = (byte >> (i % per_byte * self.bits)) & ((1 << self.bits) - 1);
        let sign = 1i32 << (self.bits - 1);
        if self.signed { (code as i32 ^ sign) - sign } else { code as i32 }
    }

    fn check(self, what: &'static str, count: usize) -> Result<()> {
        let needed = count.checked_mul(self.bits).map_or(usize::MAX, |bits| bits.div_ceil(8));
        same(what, needed, self.bytes.len())
    }
}

fn same(what: &'static str, needed: usize, found: usize) -> Result<()> {
    if needed == found { Ok(()) } else { Err(Error::shape(what, &[needed], &[found])) }
}

/// What `DequantizeLinear` has besides the integers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels<'a> {
    pub(super) scales: &'a [f32],
    pub(super) zeros: Option<Integers<'a>>,
    /// Of as many axes as the tensor has, when there are blocks.
    pub(super) shape: &'a [usize],
    pub(super) axis: i64,
    /// 0: none.
    pub(super) block: usize,
}

/// `DequantizeLinear`: `y = (x - zero_point) * scale`, with the level of the whole tensor, of an index along `axis`, or of a block along
/// it.
///
/// # Errors
/// [`Shape`](crate::ErrorKind::Shape) where the levels are not as many as the definition needs, [`Argument`](crate::ErrorKind::Argument)
/// for an axis that the tensor does not have.
pub(super) fn dequantize(x: Integers<'_>, shape: &[usize], levels: Levels<'_>) -> Result<Vec<f32>> {
    let Levels { scales, zeros, axis, block, .. } = levels;
    let count = checked_volume(shape)?;
    x.check("integers", count)?;
    let whole = block == 0 && scales.len() == 1 && levels.shape.len() <= 1;
    let from_end = if axis < 0 { axis.saturating_add_unsigned(shape.len() as u64) } else { axis };
    let axis = match usize::try_from(from_end) {
        Ok(axis) if axis < shape.len() => axis,
        _ if whole => 0,
        _ => return Err(Error::argument("axis", axis, "one of the tensor")),
    };
    let size = shape.get(axis).copied().unwrap_or(1);
    let inner = checked_volume(shape.get(axis + 1..).unwrap_or_default())?;
    if block > 0 {
        let mut needed = shape.to_vec();
        if let Some(size) = needed.get_mut(axis) {
            *size = size.div_ceil(block);
        }
        if levels.shape != needed {
            return Err(Error::shape("scales", &needed, levels.shape));
        }
    } else if !whole {
        same("scales", size, scales.len())?;
    }
    if let Some(zeros) = zeros {
        zeros.check("zero points", scales.len())?;
    }
    let blocks = if block > 0 { size.div_ceil(block) } else { 0 };
    let mut out = filled(count, 0f32)?;
    // `i` counts the elements, which are (outer, along the axis, inner).
    for (i, y) in out.iter_mut().enumerate() {
        let (rest, within) = (i / inner, i % inner);
        let along = rest % size;
        let level = match block {
            _ if whole => 0,
            0 => along,
            _ => (rest / size * blocks + along / block) * inner + within,
        };
        let zero = zeros.map_or(0, |zeros| zeros.at(level));
        *y = (x.at(i) - zero) as f32 * scales.get(level).copied().unwrap_or(0.0);
    }
    Ok(out)
}

/// The matrix of `MatMulNBits`.
#[derive(Debug, Clone, Copy)]
pub(super) struct NBits<'a> {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) bits: usize,
    pub(super) block: usize,
    /// `[n, blocks, block * bits / 8]`.
    pub(super) packed: &'a [u8],
    /// `[n, blocks]`.
    pub(super) scales: &'a [f32],
    pub(super) zeros: Zeros<'a>,
}

/// Its zero points.
#[derive(Debug, Clone, Copy)]
pub(super) enum Zeros<'a> {
    /// The middle: `2^(bits - 1)`.
    Middle,
    /// `[n, blocks * bits / 8]`, each row filled up to a byte.
    Packed(&'a [u8]),
    /// `[n, blocks]`.
    Full(&'a [f32]),
}

impl NBits<'_> {
    /// The matrix `[k, n]` that is multiplied from the right: `w[k, n] = (code[n, k] - zero_point[n, k / block]) * scale[n, k / block]`.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) where there are not as many codes and levels as the definition needs,
    /// [`Argument`](crate::ErrorKind::Argument) for other bits than 2, 4 and 8, or blocks that are not of whole bytes.
    pub(super) fn matrix(&self) -> Result<Vec<f32>> {
        let Self { k, n, bits, block, packed, scales, zeros } = *self;
        if !matches!(bits, 2 | 4 | 8) {
            return Err(Error::argument("bits", bits, "2, 4 or 8"));
        }
        if block < 16 || !block.is_power_of_two() {
            return Err(Error::argument("block_size", block, "a power of two, at least 16"));
        }
        let blocks = k.div_ceil(block);
        let levels = checked_volume(&[n, blocks])?;
        // A block has at least 4 bytes: as many as this are there, or the length is not that.
        let row = checked_volume(&[blocks, block / (8 / bits)])?;
        same("codes", checked_volume(&[n, row])?, packed.len())?;
        same("scales", levels, scales.len())?;
        let zero_row = (blocks * bits).div_ceil(8);
        match zeros {
            Zeros::Middle => {}
            Zeros::Packed(bytes) => same("zero points", checked_volume(&[n, zero_row])?, bytes.len())?,
            Zeros::Full(values) => same("zero points", levels, values.len())?,
        }
        let codes = Integers { bytes: packed, bits, signed: false };
        let per_byte = 8 / bits;
        let mut out = filled(checked_volume(&[k, n])?, 0f32)?;
        if n == 0 {
            return Ok(out);
        }
        for (at, line) in out.chunks_exact_mut(n).enumerate() {
            for (column, w) in line.iter_mut().enumerate() {
                let level = column * blocks + at / block;
                let code = codes.at(column * row * per_byte + at);
                let difference = match zeros {
                    Zeros::Middle => (code - (1 << (bits - 1))) as f32,
                    Zeros::Packed(bytes) => {
                        let zeros = Integers { bytes, bits, signed: false };
                        (code - zeros.at(column * zero_row * per_byte + at / block)) as f32
                    }
                    Zeros::Full(values) => code as f32 - values.get(level).copied().unwrap_or(0.0),
                };
                *w = difference * scales.get(level).copied().unwrap_or(0.0);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn integers(bytes: &[u8], bits: usize, signed: bool) -> Integers<'_> {
        Integers { bytes, bits, signed }
    }

    fn levels<'a>(scales: &'a [f32], shape: &'a [usize], axis: i64, block: usize) -> Levels<'a> {
        Levels { scales, zeros: None, shape, axis, block }
    }

    #[test]
    fn integers_are_read_by_bits_and_sign() {
        let all = |bytes: &[u8], bits, signed| {
            let x = integers(bytes, bits, signed);
            (0..8 / bits).map(|i| x.at(i)).collect::<Vec<_>>()
        };
        assert_eq!(all(&[0b11_10_01_00], 2, false), [0, 1, 2, 3]);
        assert_eq!(all(&[0b11_10_01_00], 2, true), [0, 1, -2, -1]);
        assert_eq!(all(&[0x87], 4, false), [7, 8]);
        assert_eq!(all(&[0x87], 4, true), [7, -8]);
        assert_eq!((all(&[0xff], 8, false), all(&[0x80], 8, true)), (vec![255], vec![-128]));
    }

    #[test]
    fn levels_are_of_the_whole_the_axis_and_blocks() {
        let x = integers(&[1, 2, 3, 4, 5, 6], 8, false);
        let shape = [2, 3];
        let scalar = dequantize(x, &shape, levels(&[0.5], &[], 1, 0)).unwrap();
        assert_eq!(scalar, [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
        let rows = dequantize(x, &shape, levels(&[1.0, 10.0], &[2], 0, 0)).unwrap();
        assert_eq!(rows, [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]);
        let columns = dequantize(x, &shape, levels(&[1.0, 10.0, 100.0], &[3], -1, 0)).unwrap();
        assert_eq!(columns, [1.0, 20.0, 300.0, 4.0, 50.0, 600.0]);
        // Blocks of two along the last axis, the last one short; and along the first.
        let zeros = Some(integers(&[1, 0, 0, 6], 8, false));
        let blocks = Levels { zeros, ..levels(&[1.0, 2.0, 3.0, 4.0], &[2, 2], 1, 2) };
        assert_eq!(dequantize(x, &shape, blocks).unwrap(), [0.0, 1.0, 6.0, 12.0, 15.0, 0.0]);
        let along = levels(&[1.0, 2.0, 3.0], &[1, 3], 0, 2);
        assert_eq!(dequantize(x, &shape, along).unwrap(), [1.0, 4.0, 9.0, 4.0, 10.0, 18.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x = integers(&[0; 6], 8, false);
        let kind = |levels| dequantize(x, &[2, 3], levels).map_err(|error| error.kind()).unwrap_err();
        assert_eq!(kind(levels(&[1.0, 2.0], &[2], 1, 0)), ErrorKind::Shape);
        assert_eq!(kind(levels(&[1.0, 2.0], &[2], 2, 0)), ErrorKind::Argument);
        assert_eq!(kind(levels(&[1.0, 2.0], &[2], -3, 0)), ErrorKind::Argument);
        assert_eq!(kind(levels(&[1.0, 2.0], &[2, 1], 1, 2)), ErrorKind::Shape);
        let short = Levels { zeros: Some(integers(&[0], 8, false)), ..levels(&[1.0, 2.0], &[2], 0, 0) };
        assert_eq!(kind(short), ErrorKind::Shape);
        assert!(dequantize(x, &[7], levels(&[1.0], &[], 0, 0)).is_err());
        let matrix =
            NBits { k: 20, n: 1, bits: 4, block: 16, packed: &[0; 16], scales: &[1.0; 2], zeros: Zeros::Middle };
        assert_eq!(matrix.matrix().unwrap(), [-8.0; 20]);
        assert!(NBits { packed: &[0; 15], ..matrix }.matrix().is_err());
        assert!(NBits { scales: &[1.0], ..matrix }.matrix().is_err());
        assert!(NBits { zeros: Zeros::Packed(&[0; 2]), ..matrix }.matrix().is_err());
        assert!(NBits { zeros: Zeros::Full(&[0.0]), ..matrix }.matrix().is_err());
        assert!(NBits { bits: 3, ..matrix }.matrix().is_err());
        assert!(NBits { block: 0, ..matrix }.matrix().is_err());
        assert!(NBits { k: usize::MAX, n: usize::MAX, ..matrix }.matrix().is_err());
    }

    #[test]
    fn a_matrix_of_codes_is_transposed() {
        // Two columns of 20, in blocks of 16: 2 bytes of 8 codes each.
        let mut packed = vec![0u8; 2 * 2 * 4];
        packed[0] = 0b11; // column 0, k = 0
        packed[4] = 0b10_00; // column 0, k = 17
        packed[15] = 0; // padding
        packed[8] = 0b01_00_00; // column 1, k = 2
        let zeros = [0b01_00, 0b00_10];
        let scales = [1.0, 10.0, 100.0, 1000.0];
        let matrix =
            NBits { k: 20, n: 2, bits: 2, block: 16, packed: &packed, scales: &scales, zeros: Zeros::Packed(&zeros) };
        let w = matrix.matrix().unwrap();
        let at = |k: usize, n: usize| w[k * 2 + n];
        assert_eq!((at(0, 0), at(1, 0), at(17, 0), at(16, 0)), (3.0, 0.0, 10.0, -10.0));
        assert_eq!((at(2, 1), at(3, 1), at(19, 1)), (-100.0, -200.0, 0.0));
        let full = NBits { zeros: Zeros::Full(&[0.5, 0.0, 0.0, 1.0]), ..matrix }.matrix().unwrap();
        assert_eq!((full[0], full[39]), (2.5, -1000.0));
    }
}
