//! A quantized tensor: packed codes, and the levels they stand for.

use super::{
    granularity::Granularity,
    grid::{Grid, check_grid},
    view::{Dims, TensorMut, TensorRef, checked_volume, filled},
};
use crate::{
    element::{DType, Element},
    error::{Error, Result},
    kernel::{
        grid::Levels,
        pack::{OCTET, packed_len},
        rows::{self, Groups, Layout, Word},
        scan,
    },
};

/// How far a quantized tensor is from the original.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QuantError {
    /// The largest `|x - x'|`.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub max_abs: f64,
    /// The mean of `(x - x')²`.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub mse: f64,
    /// Signal to quantization noise, `10 log10(Σ x² / Σ (x - x')²)`, in decibels; infinite where
    /// there is no error.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub sqnr_db: f64,
}

/// A tensor whose elements are codes of 1 to 8 bits, packed, or of 16.
///
/// The codes of a row (the last axis) are a stream of bits, the first code in the lowest bits (4 bits:
/// low nibble first; 16 bits: low byte first); each row starts on a byte. It knows its own levels, so it decodes without the
/// [`Quantizer`](crate::Quantizer) that made it; [`QTensor::new`] is how another crate's scheme makes one.
///
/// ```
/// use lapidary::{QuantizerExt, quant::MinMax};
/// let weights = vec![-1.0f32, -0.4, 0.3, 1.0];
/// let q = MinMax::new(2)?.quantize(&weights)?;
/// assert_eq!(q.codes(), [0, 1, 2, 3]);
/// assert_eq!(q.packed(), [0b11_10_01_00]);
/// assert_eq!(q.dequantize::<f32>()[0], -1.0);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct QTensor {
    dims: Dims,
    bits: u8,
    granularity: Granularity,
    grid: Grid,
    packed: Vec<u8>,
}

impl QTensor {
    /// A quantized tensor from its parts. Bits of `packed` beyond the last code of a row are ignored.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for bits that are not 1 to 8, or 16 of an [affine](Grid::Affine) grid; an axis the shape does not
    /// have, a group size of 0, minima and maxima of different types, a minimum above its maximum, a scale not above 0, a zero point
    /// of more bits;
    /// [`Shape`](crate::ErrorKind::Shape) when `packed` or the grid has another length than these imply;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinite level; [`Empty`](crate::ErrorKind::Empty)
    /// for a shape without elements.
    pub fn new(shape: &[usize], bits: u8, granularity: Granularity, grid: Grid, packed: Vec<u8>) -> Result<Self> {
        let sizes = Self::sizes(shape, bits, granularity)?;
        check_grid(&grid, sizes.groups, bits)?;
        if packed.len() != sizes.bytes {
            return Err(Error::shape("packed codes", &[sizes.bytes], &[packed.len()]));
        }
        Ok(Self { dims: shape.into(), bits, granularity, grid, packed })
    }

    /// A quantized tensor from codes, bytes or 16-bit ones, in logical order.
    ///
    /// # Errors
    /// As [`new`](QTensor::new), and as [`set_codes`](QTensor::set_codes).
    pub fn from_codes<C: Copy + Into<u16>>(
        shape: &[usize],
        bits: u8,
        granularity: Granularity,
        grid: Grid,
        codes: &[C],
    ) -> Result<Self> {
        let packed = filled(Self::sizes(shape, bits, granularity)?.bytes, 0)?;
        let mut q = Self::new(shape, bits, granularity, grid, packed)?;
        q.set_codes(codes)?;
        Ok(q)
    }

    /// A quantized tensor from signed codes, as ONNX and PyTorch keep those of `int8` and `int4`: each is the unsigned one less
    /// `2^(bits - 1)`, and so are the zero points of such a tensor.
    ///
    /// # Errors
    /// As [`from_codes`](QTensor::from_codes).
    pub fn from_signed_codes<C: Copy + Into<i16>>(
        shape: &[usize],
        bits: u8,
        granularity: Granularity,
        grid: Grid,
        codes: &[C],
    ) -> Result<Self> {
        let middle = 1u16.checked_shl(u32::from(bits).wrapping_sub(1)).unwrap_or(0);
        let unsigned = |&code: &C| -> u16 { code.into().cast_unsigned().wrapping_add(middle) };
        Self::from_codes(shape, bits, granularity, grid, &codes.iter().map(unsigned).collect::<Vec<_>>())
    }

    /// Replaces all codes. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many as elements,
    /// [`Argument`](crate::ErrorKind::Argument) when one has more bits than the tensor's. The codes are then as they were.
    pub fn set_codes<C: Copy + Into<u16>>(&mut self, codes: &[C]) -> Result<()> {
        if codes.len() != self.len() {
            return Err(Error::shape("codes", &[self.len()], &[codes.len()]));
        }
        if let Some(code) = codes.iter().map(|&code| code.into()).find(|&code| u32::from(code) >> self.bits != 0) {
            return Err(Error::argument("code", code, "less than 2^bits"));
        }
        let layout = self.layout();
        let rows = self.packed.chunks_exact_mut(layout.row_bytes());
        for (bytes, codes) in rows.zip(codes.chunks_exact(layout.cols)) {
            match layout.bits {
                16 => pack_row::<u16, _>(codes, 16, bytes),
                bits => pack_row::<u8, _>(codes, bits, bytes),
            }
        }
        Ok(())
    }

    /// Replaces the levels.
    ///
    /// # Errors
    /// As [`new`](QTensor::new) for a grid that does not fit. The levels are then as they were.
    pub fn set_grid(&mut self, grid: Grid) -> Result<()> {
        check_grid(&grid, Self::sizes(&self.dims, self.bits, self.granularity)?.groups, self.bits)?;
        self.grid = grid;
        Ok(())
    }

    /// A tensor with all codes 0 and a grid of so many groups, to be filled.
    pub(crate) fn laid_out(
        shape: &[usize],
        bits: u8,
        granularity: Granularity,
        grid: impl FnOnce(usize) -> Result<Grid>,
    ) -> Result<Self> {
        let sizes = Self::sizes(shape, bits, granularity)?;
        let grid = grid(sizes.groups)?;
        Ok(Self { dims: shape.into(), bits, granularity, grid, packed: filled(sizes.bytes, 0)? })
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.dims
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Never: an empty tensor cannot be quantized.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bits of a code, 1 to 8 or 16.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Which elements share levels.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// What the codes stand for.
    #[must_use]
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The packed codes, row after row.
    #[must_use]
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The codes, in logical order. Codes are unsigned: 8-bit ones do not fit an `i8`.
    #[must_use]
    pub fn codes(&self) -> Vec<u16> {
        let layout = self.layout();
        let mut codes = vec![0; self.len()];
        for (row, bytes) in codes.chunks_exact_mut(layout.cols).zip(self.packed.chunks_exact(layout.row_bytes())) {
            match layout.bits {
                16 => unpack_row::<u16>(bytes, 16, row),
                bits => unpack_row::<u8>(bytes, bits, row),
            }
        }
        codes
    }

    /// The codes less `2^(bits - 1)`, in logical order: as ONNX and PyTorch keep `int8`, `int4` and `int16`.
    #[must_use]
    pub fn signed_codes(&self) -> Vec<i16> {
        let middle = 1u16 << (self.bits - 1);
        self.codes().into_iter().map(|code| code.wrapping_sub(middle).cast_signed()).collect()
    }

    /// Bytes of the packed codes and the levels.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.packed.len() + self.grid.byte_size(self.bits)
    }

    /// Bits an element takes, levels included.
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        self.byte_size() as f64 * 8.0 / self.len() as f64
    }

    /// The decoded values, in logical order. A level beyond the range of a narrower `T` becomes infinite, but for one of an
    /// [affine](Grid::Affine) or [scaled](Grid::Scaled) grid, which becomes the largest number.
    #[must_use]
    pub fn dequantize<T: Element>(&self) -> Vec<T> {
        let mut values = vec![T::default(); self.len()];
        self.decode(&mut values);
        values
    }

    /// Decodes into `values`, of the same shape. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ.
    pub fn dequantize_into<'a, T: Element>(&self, values: impl Into<TensorMut<'a, T>>) -> Result<()> {
        let mut values = values.into();
        self.check_shape(values.shape())?;
        self.decode(values.as_mut_slice());
        Ok(())
    }

    /// How far the values decoded as `T` are from the originals. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ, [`NonFinite`](crate::ErrorKind::NonFinite) when an
    /// original is NaN or infinite.
    pub fn error<'a, T: Element>(&self, original: impl Into<TensorRef<'a, T>>) -> Result<QuantError> {
        let original = original.into();
        self.check_shape(original.shape())?;
        let values = original.as_slice();
        let mut scale = 1.0;
        let mut signal = scan::sum_of_squares(values, scale);
        // Squares of `f64` can overflow and vanish: take them of numbers about 1. Those of the others are finite where the numbers are.
        if T::DTYPE == DType::F64 || !signal.is_finite() {
            scale = scan::scale_to_one(scan::largest_magnitude(range("tensor", values)?));
            signal = scan::sum_of_squares(values, scale);
        }
        let distance = rows::compare(self.layout(), self.grid.levels(), &self.packed, values, scale);
        Ok(QuantError {
            max_abs: distance.max,
            mse: distance.squares / values.len() as f64 / scale / scale,
            sqnr_db: if distance.squares == 0.0 {
                f64::INFINITY
            } else {
                10.0 * libm::log10(signal / distance.squares)
            },
        })
    }

    /// `‖(W - W') x‖₂` in `f64`, where `W` is the original, a matrix of a row for each index along the first axis (a tensor of one
    /// axis is one row), and `W'` this tensor decoded as `T`.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ, or `x` has not as many elements as a row;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) when an original or an element of `x` is NaN or infinite.
    pub fn product_error<'a, T: Element>(&self, original: impl Into<TensorRef<'a, T>>, x: &[T]) -> Result<f64> {
        let original = original.into();
        self.check_shape(original.shape())?;
        let width = if self.shape().len() < 2 { self.len() } else { self.len() / self.shape()[0] };
        if x.len() != width {
            return Err(Error::shape("vector", &[width], &[x.len()]));
        }
        check_finite("tensor", original.as_slice())?;
        check_finite("vector", x)?;
        let decoded: Vec<T> = self.dequantize();
        let rows = original.as_slice().chunks_exact(width).zip(decoded.chunks_exact(width));
        let output = |(w, decoded): (&[T], &[T])| -> f64 {
            w.iter().zip(decoded).zip(x).map(|((w, d), x)| (w.to_f64() - d.to_f64()) * x.to_f64()).sum()
        };
        Ok(scan::norm(&rows.map(output).collect::<Vec<_>>()).unwrap_or(f64::INFINITY))
    }

    /// How many groups share levels.
    pub(crate) fn groups(&self) -> usize {
        match &self.grid {
            Grid::MinMax { min, .. } => min.len(),
            Grid::Affine { scale, .. } | Grid::Scaled { scale, .. } => scale.len(),
            Grid::Codebook { levels } => levels.len() >> self.bits,
        }
    }

    /// `values` has as many elements as this tensor.
    pub(crate) fn decode<T: Element>(&self, values: &mut [T]) {
        rows::decode(self.layout(), self.grid.levels(), &self.packed, values);
    }

    /// The layout, the levels and the packed codes, to be written by a quantizer.
    pub(crate) fn parts_mut(&mut self) -> (Layout, &mut Grid, &mut [u8]) {
        (self.layout(), &mut self.grid, &mut self.packed)
    }

    /// The layout, the levels and the packed codes, to be read by a kernel.
    pub(crate) fn parts(&self) -> (Layout, Levels<'_>, &[u8]) {
        (self.layout(), self.grid.levels(), &self.packed)
    }

    pub(crate) fn check_shape(&self, shape: &[usize]) -> Result<()> {
        if shape == self.shape() { Ok(()) } else { Err(Error::shape("tensor", &self.dims, shape)) }
    }

    pub(crate) fn layout(&self) -> Layout {
        layout(&self.dims, self.bits, self.granularity)
    }
}

/// How a tensor of these parts lies; [`QTensor::sizes`] has checked them.
pub(crate) fn layout(shape: &[usize], bits: u8, granularity: Granularity) -> Layout {
    Layout { cols: shape.last().copied().unwrap_or(1), bits: bits.into(), groups: groups(shape, granularity) }
}

/// The sizes a shape, a width and a granularity imply.
pub(crate) struct Sizes {
    pub(crate) groups: usize,
    pub(crate) bytes: usize,
}

impl QTensor {
    pub(crate) fn sizes(shape: &[usize], bits: u8, granularity: Granularity) -> Result<Sizes> {
        if !matches!(bits, 1..=8 | 16) {
            return Err(Error::argument("bits", bits, "1 to 8, or 16"));
        }
        let len = checked_volume(shape)?;
        if len == 0 {
            return Err(Error::empty("tensor to quantize"));
        }
        let cols = shape.last().copied().unwrap_or(1);
        let rows = len / cols;
        let groups = match granularity {
            Granularity::Tensor => 1,
            Granularity::Channel { axis } => length(shape, axis)?,
            Granularity::Group { size: 0 } | Granularity::Block { size: 0, .. } => {
                return Err(Error::argument("group size", 0, "at least 1"));
            }
            Granularity::Group { size } => rows * cols.div_ceil(size),
            Granularity::Block { axis, size } => {
                let length = length(shape, axis)?;
                len / length * length.div_ceil(size)
            }
        };
        // Codes of 16 bits are two bytes; of others there are no more bytes than codes.
        let row = if bits == 16 { cols.checked_mul(2) } else { Some(packed_len(cols, bits.into())) };
        match row.and_then(|row| row.checked_mul(rows)) {
            Some(bytes) => Ok(Sizes { groups, bytes }),
            None => Err(Error::argument("shape", format!("{shape:?}"), "one whose codes memory holds")),
        }
    }
}

/// Packs the codes of a row, each of which fits.
fn pack_row<W: Word, C: Copy + Into<u16>>(codes: &[C], bits: u32, bytes: &mut [u8]) {
    let mut some = [W::default(); 8 * OCTET];
    let chunk = packed_len(some.len(), bits);
    for (codes, bytes) in codes.chunks(some.len()).zip(bytes.chunks_mut(chunk)) {
        some.iter_mut().zip(codes).for_each(|(word, &code)| *word = W::of(code.into()));
        W::pack(&some[..codes.len()], bits, bytes);
    }
}

fn unpack_row<W: Word>(bytes: &[u8], bits: u32, codes: &mut [u16]) {
    let mut some = [W::default(); 8 * OCTET];
    let chunk = packed_len(some.len(), bits);
    for (codes, bytes) in codes.chunks_mut(some.len()).zip(bytes.chunks(chunk)) {
        W::unpack(bytes, bits, &mut some[..codes.len()]);
        codes.iter_mut().zip(some).for_each(|(code, word)| *code = word.into());
    }
}

fn length(shape: &[usize], axis: usize) -> Result<usize> {
    shape.get(axis).copied().ok_or_else(|| {
        let found = format!("{axis} of a tensor of {} axes", shape.len());
        Error::argument("axis", found, "less than the number of axes")
    })
}

/// How the groups of a granularity lie in rows.
fn groups(shape: &[usize], granularity: Granularity) -> Groups {
    match granularity {
        Granularity::Tensor => Groups::Whole,
        // All rows are one block.
        Granularity::Channel { axis } if axis + 1 == shape.len() => {
            let length = shape[..axis].iter().product();
            Groups::Columns { repeat: 1, length, size: length }
        }
        Granularity::Channel { axis } => {
            let repeat = shape[axis + 1..shape.len() - 1].iter().product();
            Groups::Rows { repeat, count: shape[axis] }
        }
        Granularity::Group { size } => Groups::Blocks { size },
        Granularity::Block { axis, size } if axis + 1 == shape.len() => Groups::Blocks { size },
        Granularity::Block { axis, size } => {
            let repeat = shape[axis + 1..shape.len() - 1].iter().product();
            Groups::Columns { repeat, length: shape[axis], size: size.min(shape[axis]) }
        }
    }
}

/// The smallest and largest value, or an error that names the first that is NaN or infinite.
pub(crate) fn range<T: Element>(what: &'static str, values: &[T]) -> Result<(T::Real, T::Real)> {
    scan::range(values).map_err(|index| Error::non_finite(what, index, values[index].to_f64()))
}

/// An error that names the first element that is NaN or infinite.
pub(crate) fn check_finite<T: Element>(what: &'static str, values: &[T]) -> Result<()> {
    match scan::first_non_finite(values) {
        None => Ok(()),
        Some(index) => Err(Error::non_finite(what, index, values[index].to_f64())),
    }
}

/// An error unless `x` has the shape `[inputs]` or `[.., inputs]`, `y` the same with outputs for inputs, and all inputs are finite.
pub(crate) fn check_product(
    [outputs, inputs]: [usize; 2],
    x: &TensorRef<'_, f32>,
    y: &TensorMut<'_, f32>,
) -> Result<()> {
    let many = match x.shape() {
        [many @ .., last] if *last == inputs => many,
        other => return Err(Error::shape("inputs", &[inputs], other)),
    };
    if !matches!(y.shape(), [outer @ .., last] if *last == outputs && outer == many) {
        return Err(Error::shape("outputs", &[many, &[outputs]].concat(), y.shape()));
    }
    check_finite("inputs", x.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Scales, Values};
    use half::f16;

    fn min_max(min: f32, max: f32) -> Grid {
        Grid::MinMax { min: Values::F32(vec![min]), max: Values::F32(vec![max]) }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let new = |shape: &[usize], bits, granularity, grid, bytes| {
            QTensor::new(shape, bits, granularity, grid, vec![0; bytes]).map_err(|error| error.kind())
        };
        use crate::ErrorKind::{Argument, Empty, NonFinite, Shape};
        use Granularity::{Channel, Group, Tensor};
        assert!(new(&[3, 5], 4, Tensor, min_max(0.0, 1.0), 9).is_ok());
        assert!(new(&[], 4, Tensor, min_max(0.0, 1.0), 1).is_ok());
        assert_eq!(new(&[3, 5], 4, Tensor, min_max(0.0, 1.0), 8).unwrap_err(), Shape);
        assert_eq!(new(&[3, 5], 9, Tensor, min_max(0.0, 1.0), 15).unwrap_err(), Argument);
        assert_eq!(new(&[3, 5], 0, Tensor, min_max(0.0, 1.0), 0).unwrap_err(), Argument);
        assert_eq!(new(&[3, 5], 4, Channel { axis: 2 }, min_max(0.0, 1.0), 9).unwrap_err(), Argument);
        assert_eq!(new(&[3, 5], 4, Group { size: 0 }, min_max(0.0, 1.0), 9).unwrap_err(), Argument);
        assert_eq!(new(&[3, 5], 4, Group { size: 2 }, min_max(0.0, 1.0), 9).unwrap_err(), Shape);
        assert_eq!(new(&[3, 5], 4, Tensor, min_max(1.0, 0.0), 9).unwrap_err(), Argument);
        assert_eq!(new(&[3, 5], 4, Tensor, min_max(f32::NAN, 0.0), 9).unwrap_err(), NonFinite);
        assert_eq!(new(&[3, 0], 4, Tensor, min_max(0.0, 1.0), 0).unwrap_err(), Empty);
        assert_eq!(new(&[usize::MAX, 3], 4, Tensor, min_max(0.0, 1.0), 0).unwrap_err(), Argument);
        let affine = || Grid::Affine { scale: Values::F32(vec![1.0]).into(), zero_point: None };
        assert_eq!(new(&[1 << 63], 16, Tensor, affine(), 0).unwrap_err(), Argument);
        assert_eq!(new(&[1 << 63, 1], 16, Tensor, affine(), 0).unwrap_err(), Argument);
        let table = |len| Grid::Codebook { levels: Values::F64(vec![0.5; len]) };
        assert!(new(&[3, 5], 4, Channel { axis: 0 }, table(48), 9).is_ok());
        assert_eq!(new(&[3, 5], 4, Channel { axis: 0 }, table(47), 9).unwrap_err(), Shape);
    }

    #[test]
    fn a_codebook_decodes_by_look_up() {
        let levels = Values::F32(vec![-1.0, 0.0, 0.25, 8.0]);
        let grid = Grid::Codebook { levels };
        let mut q = QTensor::from_codes(&[5], 2, Granularity::Tensor, grid, &[0u8, 1, 2, 3, 2]).unwrap();
        assert_eq!(q.packed(), [0b11_10_01_00, 0b10]);
        assert!(q.set_codes(&[0u16, 1, 2, 3, 4]).is_err() && q.set_codes(&[0u8; 4]).is_err());
        assert!(q.set_grid(Grid::Codebook { levels: Values::F32(vec![0.0; 3]) }).is_err());
        assert_eq!(q.dequantize::<f64>(), [-1.0, 0.0, 0.25, 8.0, 0.25]);
        assert_eq!((q.byte_size(), q.bits_per_weight()), (18, 28.8));
        let error = q.error(&[-1.0f32, 0.0, 0.25, 8.0, 1.25]).unwrap();
        assert_eq!((error.max_abs, error.mse), (1.0, 0.2));
        assert!(q.error(&[f32::NAN; 5]).is_err());
    }

    #[test]
    fn the_noise_of_extreme_numbers_is_measured() {
        let decibels = |size: f64| {
            let x: Vec<f64> = [0.1, 0.5, 0.7, 0.9].map(|x| x * size).into();
            let levels = Values::F64(vec![0.0, size]);
            let q = QTensor::new(&[4], 1, Granularity::Tensor, Grid::Codebook { levels }, vec![0b1110]).unwrap();
            q.error(&x).unwrap().sqnr_db
        };
        for size in [1e-300, 1e-200, 1e200, 1e308] {
            assert!((decibels(size) - decibels(1.0)).abs() < 1e-9, "{size:e}: {}", decibels(size));
        }
    }

    #[test]
    fn listed_levels_have_a_scale_a_group() {
        let levels = Values::F32(vec![-1.0, 0.0, 0.5, 1.0]);
        let group = Granularity::Group { size: 2 };
        let scales: [(Scales, [f64; 2]); 3] = [
            (Values::F64(vec![0.3, 7.0]).into(), [0.3, 7.0]),
            (Scales::F16(vec![f16::from_f32(0.5), f16::MAX]), [0.5, 65504.0]),
            (Scales::E8m0(vec![127, 254]), [1.0, 2f64.powi(127)]),
        ];
        for (scale, [a, b]) in scales {
            let grid = Grid::Scaled { levels: levels.clone(), scale };
            let q = QTensor::from_codes(&[4], 2, group, grid, &[0u8, 2, 3, 1]).unwrap();
            assert_eq!(q.dequantize::<f64>(), [-a, a * 0.5, b, 0.0]);
            assert_eq!(q.dequantize::<f16>()[2], f16::from_f64(b.min(65504.0)), "limited");
        }
        let new =
            |scale| QTensor::from_codes(&[4], 2, group, Grid::Scaled { levels: levels.clone(), scale }, &[0u8; 4]);
        assert!(new(Scales::E8m0(vec![127, 255])).is_err() && new(Scales::E8m0(vec![127])).is_err());
        assert!(new(Values::F32(vec![1.0, 0.0]).into()).is_err());
    }

    #[test]
    fn codes_of_16_bits() {
        let grid = Grid::Affine { scale: Values::F32(vec![0.5]).into(), zero_point: Some(vec![300]) };
        let codes = [0u16, 65535, 300, 301];
        let q = QTensor::from_codes(&[2, 2], 16, Granularity::Tensor, grid.clone(), &codes).unwrap();
        assert_eq!((q.packed(), q.byte_size()), (&[0, 0, 0xff, 0xff, 0x2c, 1, 0x2d, 1][..], 8 + 4 + 2));
        assert_eq!(q.codes(), codes);
        assert_eq!(q.signed_codes(), [-32768, 32767, -32468, -32467]);
        assert_eq!(q.dequantize::<f32>(), [-150.0, 32617.5, 0.0, 0.5]);
        let symmetric = Grid::Affine { scale: Values::F32(vec![0.5]).into(), zero_point: None };
        let signed = QTensor::from_signed_codes(&[4], 16, Granularity::Tensor, symmetric, &q.signed_codes()).unwrap();
        assert_eq!((signed.codes(), signed.dequantize::<f32>()[0]), (codes.into(), -16384.0));
        let table = Grid::Codebook { levels: Values::F32(vec![0.0; 1 << 16]) };
        assert!(QTensor::from_codes(&[4], 16, Granularity::Tensor, table, &codes).is_err());
        assert!(QTensor::from_codes(&[4], 12, Granularity::Tensor, grid, &codes).is_err());
    }
}
