//! The integer tensors of ONNX.

use crate::{
    error::{Error, Result},
    kernel::pack::{pack, packed_len, unpack},
    tensor::{
        Granularity, Grid, QTensor, Scales,
        view::{checked_volume, filled},
    },
};

/// ONNX's integer types that quantized tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnnxType {
    /// -2 to 1.
    Int2,
    /// 0 to 3.
    Uint2,
    /// -8 to 7.
    Int4,
    /// 0 to 15.
    Uint4,
    /// -128 to 127.
    Int8,
    /// 0 to 255.
    Uint8,
    /// -32,768 to 32,767, low byte first.
    Int16,
    /// 0 to 65,535, low byte first.
    Uint16,
}

impl OnnxType {
    /// Bits of an element.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Int2 | Self::Uint2 => 2,
            Self::Int4 | Self::Uint4 => 4,
            Self::Int8 | Self::Uint8 => 8,
            Self::Int16 | Self::Uint16 => 16,
        }
    }

    /// Whether it has negative numbers, in two's complement.
    #[must_use]
    pub const fn signed(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8 | Self::Int16)
    }

    /// The integer of code 0 is less than the code by as much, for codes of `bits` bits.
    fn shift(self, bits: u8) -> u16 {
        if self.signed() { 1 << (bits - 1) } else { 0 }
    }

    /// One stream of bits, the first integer lowest; bits beyond the last are 0.
    fn pack(self, codes: &[u16], bits: u8) -> Result<Vec<u8>> {
        let (shift, width) = (self.shift(bits), u32::from(self.bits()));
        let mask = ((1u32 << width) - 1) as u16;
        let words = codes.iter().map(|code| code.wrapping_sub(shift) & mask);
        if width == 16 {
            return Ok(words.flat_map(u16::to_le_bytes).collect());
        }
        let mut bytes = filled(packed_len(codes.len(), width), 0)?;
        pack(&words.map(|word| word as u8).collect::<Vec<_>>(), width, &mut bytes);
        Ok(bytes)
    }

    /// The codes of `len` integers. `bytes` has as many as they take.
    fn unpack(self, bytes: &[u8], len: usize) -> Result<Vec<u16>> {
        let (shift, width) = (self.shift(self.bits()), u32::from(self.bits()));
        let mask = ((1u32 << width) - 1) as u16;
        if width == 16 {
            let words = bytes.as_chunks::<2>().0.iter();
            return Ok(words.map(|&word| u16::from_le_bytes(word).wrapping_add(shift)).collect());
        }
        let mut codes = filled(len, 0u8)?;
        unpack(bytes, width, &mut codes);
        Ok(codes.into_iter().map(|code| u16::from(code).wrapping_add(shift) & mask).collect())
    }

    fn check(self, what: &'static str, bytes: &[u8], len: usize) -> Result<()> {
        let needed = packed_len(len, self.bits().into());
        if bytes.len() == needed { Ok(()) } else { Err(Error::shape(what, &[needed], &[bytes.len()])) }
    }
}

/// The integers of a quantized tensor and its zero points, as `raw_data` of ONNX tensors has them.
///
/// Both are one dense stream over the whole tensor: the first element in the lowest bits of the first byte, signed ones
/// in two's complement, 16 bits low byte first. Nothing is added at the end of a row, where a [`QTensor`] starts each
/// row on a byte. ONNX decodes `x' = (q - zero_point) * scale`, with a zero point of 0 where there are none. Scales and
/// their order are those of the [`QTensor`]'s grid.
///
/// ```
/// use lapidary::{Grid, QuantizerExt, quant::{Symmetric, layout::{OnnxLinear, OnnxType}}};
/// let q = Symmetric::new(4)?.quantize(&[-7.0f32, 0.0, 3.0])?;
/// let onnx = OnnxLinear::from_qtensor(&q, OnnxType::Int4)?;
/// assert_eq!((onnx.data(), onnx.zero_points()), (&[0x09, 0x03][..], None));
/// let Grid::Affine { scale, .. } = q.grid() else { unreachable!() };
/// assert_eq!(onnx.to_qtensor(q.shape(), q.granularity(), scale.clone())?, q);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// Follows <https://onnx.ai/onnx/technical/int4.html> and `DequantizeLinear` of operator set 25.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxLinear {
    dtype: OnnxType,
    data: Vec<u8>,
    zero_points: Option<Vec<u8>>,
}

impl OnnxLinear {
    /// Bytes of another tool, of integers of a type. Their number is checked when they meet a shape.
    #[must_use]
    pub fn new(dtype: OnnxType, data: Vec<u8>, zero_points: Option<Vec<u8>>) -> Self {
        Self { dtype, data, zero_points }
    }

    /// The codes of `q` as integers of a type of at least as many bits. Exact. A tensor without zero points gets some
    /// where the type is unsigned.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when its levels are not [affine](Grid::Affine) or a code has more bits.
    pub fn from_qtensor(q: &QTensor, dtype: OnnxType) -> Result<Self> {
        let Grid::Affine { scale, zero_point } = q.grid() else {
            return Err(Error::argument("levels", q.grid().form(), "scales and zero points"));
        };
        if q.bits() > dtype.bits() {
            return Err(Error::argument("bits", q.bits(), "at most those of the ONNX type"));
        }
        let zero_points = match zero_point {
            Some(zeros) => Some(dtype.pack(zeros, q.bits())?),
            None if dtype.signed() => None,
            None => Some(dtype.pack(&filled(scale.len(), 1u16 << (q.bits() - 1))?, q.bits())?),
        };
        Ok(Self { dtype, data: dtype.pack(&q.codes(), q.bits())?, zero_points })
    }

    /// A tensor of these integers, with as many bits as the type. Exact.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many bytes as shape and granularity need; as
    /// [`QTensor::new`] else.
    pub fn to_qtensor(&self, shape: &[usize], granularity: Granularity, scale: Scales) -> Result<QTensor> {
        let bits = self.dtype.bits();
        let groups = QTensor::sizes(shape, bits, granularity)?.groups;
        let len = checked_volume(shape)?;
        self.dtype.check("data", &self.data, len)?;
        let zero_point = match &self.zero_points {
            Some(zeros) => {
                self.dtype.check("zero points", zeros, groups)?;
                Some(self.dtype.unpack(zeros, groups)?)
            }
            None if self.dtype.signed() => None,
            None => Some(filled(groups, 0)?),
        };
        let codes = self.dtype.unpack(&self.data, len)?;
        QTensor::from_codes(shape, bits, granularity, Grid::Affine { scale, zero_point }, &codes)
    }

    /// The type of the integers.
    #[must_use]
    pub fn dtype(&self) -> OnnxType {
        self.dtype
    }

    /// The integers.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The zero points, if there are any.
    #[must_use]
    pub fn zero_points(&self) -> Option<&[u8]> {
        self.zero_points.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, tensor::Values};
    use proptest::prelude::*;

    fn scales(groups: usize) -> Scales {
        Values::F32((0..groups).map(|i| 0.5 + i as f32).collect()).into()
    }

    #[test]
    fn rows_are_not_padded_and_the_first_is_lowest() {
        let q = |bits, zeros, codes: &[u8]| {
            let grid = Grid::Affine { scale: scales(2), zero_point: zeros };
            QTensor::from_codes(&[2, 3], bits, Granularity::Channel { axis: 0 }, grid, codes).unwrap()
        };
        let four = q(4, Some(vec![5, 12]), &[1, 2, 3, 4, 5, 15]);
        let bytes = |dtype| OnnxLinear::from_qtensor(&four, dtype).unwrap();
        assert_eq!(four.packed(), [0x21, 0x03, 0x54, 0x0f]);
        assert_eq!(bytes(OnnxType::Uint4), OnnxLinear::new(OnnxType::Uint4, vec![0x21, 0x43, 0xf5], Some(vec![0xc5])));
        // Less 8: -7 -6 -5 -4 -3 7, and -3 4.
        assert_eq!(bytes(OnnxType::Int4), OnnxLinear::new(OnnxType::Int4, vec![0xa9, 0xcb, 0x7d], Some(vec![0x4d])));
        assert_eq!(bytes(OnnxType::Int8).data(), [0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 7]);
        assert_eq!(bytes(OnnxType::Int16).data()[..4], [0xf9, 0xff, 0xfa, 0xff]);
        let two = q(2, None, &[0, 1, 2, 3, 1, 2]);
        assert_eq!(OnnxLinear::from_qtensor(&two, OnnxType::Int2).unwrap().data(), [0b01_00_11_10, 0b00_11]);
        let unsigned = OnnxLinear::from_qtensor(&two, OnnxType::Uint2).unwrap();
        assert_eq!((unsigned.data(), unsigned.zero_points()), (&[0b11_10_01_00, 0b10_01][..], Some(&[0b10_10][..])));
        assert!(OnnxLinear::from_qtensor(&four, OnnxType::Uint2).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let kind = |data: usize, zeros: Option<usize>, shape: &[usize], groups| {
            let linear = OnnxLinear::new(OnnxType::Uint4, vec![0; data], zeros.map(|len| vec![0; len]));
            linear.to_qtensor(shape, Granularity::Group { size: 2 }, scales(groups)).map_err(|error| error.kind())
        };
        assert!(kind(3, Some(2), &[1, 5], 3).is_ok());
        assert_eq!(
            kind(3, None, &[1, 5], 3).unwrap().grid(),
            &Grid::Affine { scale: scales(3), zero_point: Some(vec![0; 3]) }
        );
        assert_eq!(kind(2, Some(2), &[1, 5], 3).unwrap_err(), ErrorKind::Shape);
        assert_eq!(kind(3, Some(1), &[1, 5], 3).unwrap_err(), ErrorKind::Shape);
        assert_eq!(kind(3, Some(2), &[1, 5], 2).unwrap_err(), ErrorKind::Shape);
        assert_eq!(kind(3, Some(2), &[0, 5], 3).unwrap_err(), ErrorKind::Empty);
        assert_eq!(kind(3, Some(2), &[usize::MAX, 5], 3).unwrap_err(), ErrorKind::Argument);
        let grid = Grid::Codebook { levels: Values::F32(vec![0.0; 4]) };
        let q = QTensor::from_codes(&[1], 2, Granularity::Tensor, grid, &[0u8]).unwrap();
        assert_eq!(OnnxLinear::from_qtensor(&q, OnnxType::Uint4).unwrap_err().kind(), ErrorKind::Argument);
    }

    proptest! {
        #[test]
        fn comes_back(
            dtype in prop::sample::select(vec![OnnxType::Int2, OnnxType::Uint2, OnnxType::Int4, OnnxType::Uint4,
                OnnxType::Int8, OnnxType::Uint8, OnnxType::Int16, OnnxType::Uint16]),
            rows in 1usize..4, cols in 1usize..20, size in 1usize..9, zeros in any::<bool>(), seed in any::<u64>(),
        ) {
            let mask = ((1u32 << dtype.bits()) - 1) as u16;
            let mix = |i: usize| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(i as u64 + 1);
            let code = |i: usize| (mix(i) >> 40) as u16 & mask;
            let groups = rows * cols.div_ceil(size);
            let zero_point = zeros.then(|| (0..groups).map(|i| code(i + 1000)).collect());
            let codes: Vec<u16> = (0..rows * cols).map(code).collect();
            let grid = Grid::Affine { scale: scales(groups), zero_point };
            let (shape, granularity) = ([rows, cols], Granularity::Group { size });
            let q = QTensor::from_codes(&shape, dtype.bits(), granularity, grid, &codes).unwrap();
            let linear = OnnxLinear::from_qtensor(&q, dtype).unwrap();
            let back = linear.to_qtensor(&shape, granularity, scales(groups)).unwrap();
            prop_assert_eq!(back.dequantize::<f64>(), q.dequantize::<f64>());
            prop_assert_eq!(back.codes(), codes);
        }
    }
}
