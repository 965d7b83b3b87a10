//! A quantized tensor: packed codes, and the levels they stand for.

use super::{
    values::Values,
    view::{Dims, TensorMut, TensorRef, checked_volume, filled},
};
use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::{
        grid::{Levels, Numbers},
        pack::{pack, packed_len, unpack},
        rows::{self, Groups, Layout},
        scan,
    },
};

/// Which elements of a tensor share one set of levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Granularity {
    /// All of them.
    Tensor,
    /// Those with the same index along `axis`: a row of a dense layer's weights, an output channel.
    Channel {
        /// The axis, from 0.
        axis: usize,
    },
    /// `size` neighbours along the last axis. The last group of a row may be shorter and has its own levels.
    Group {
        /// Elements of a group, at least 1.
        size: usize,
    },
}

/// What the codes of each group stand for. Arrays have one entry a group, groups in logical order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grid {
    /// Evenly spaced: `x' = min + q * (max - min) / (2^bits - 1)`, computed in `f64`.
    MinMax {
        /// The smallest value of each group: that of code 0.
        min: Values,
        /// The largest value of each group: that of code `2^bits - 1`.
        max: Values,
    },
    /// Evenly spaced, and 0 is one of them: `x' = (q - zero_point) * scale`.
    Affine {
        /// The distance of two levels of each group, above 0.
        scale: Values,
        /// The code of 0 in each group; `None`: the middle code `2^(bits - 1)` in all of them.
        zero_point: Option<Vec<u8>>,
    },
    /// Any levels: `x' = levels[group * 2^bits + q]`.
    Codebook {
        /// `2^bits` numbers a group.
        levels: Values,
    },
}

impl Grid {
    /// Bytes the levels take.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        match self {
            Self::MinMax { min, max } => min.byte_size() + max.byte_size(),
            Self::Affine { scale, zero_point } => scale.byte_size() + zero_point.as_ref().map_or(0, Vec::len),
            Self::Codebook { levels } => levels.byte_size(),
        }
    }

    /// Minima and maxima, when the grid is min-max in `R`.
    pub(crate) fn min_max_mut<R: Real>(&mut self) -> Option<(&mut [R], &mut [R])> {
        match self {
            Self::MinMax { min, max } => Some((min.as_mut_slice()?, max.as_mut_slice()?)),
            _ => None,
        }
    }

    /// Scales and zero points, when the grid is affine in `R`.
    pub(crate) fn affine_mut<R: Real>(&mut self) -> Option<(&mut [R], Option<&mut [u8]>)> {
        match self {
            Self::Affine { scale, zero_point } => Some((scale.as_mut_slice()?, zero_point.as_deref_mut())),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn form(&self) -> String {
        match self {
            Self::MinMax { min, .. } => format!("ranges in {:?}", min.dtype()),
            Self::Affine { scale, zero_point: Some(_) } => format!("scales in {:?} and zero points", scale.dtype()),
            Self::Affine { scale, zero_point: None } => format!("scales in {:?}", scale.dtype()),
            Self::Codebook { .. } => "a codebook".into(),
        }
    }
}

/// How far a quantized tensor is from the original.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantError {
    /// The largest `|x - x'|`.
    pub max_abs: f64,
    /// The mean of `(x - x')²`.
    pub mse: f64,
    /// Signal to quantization noise, `10 log10(Σ x² / Σ (x - x')²)`, in decibels; infinite where
    /// there is no error.
    pub sqnr_db: f64,
}

/// A tensor whose elements are codes of 1 to 8 bits, packed.
///
/// The codes of a row (the last axis) are a stream of bits, the first code in the lowest bits (4 bits:
/// low nibble first); each row starts on a byte. It knows its own levels, so it decodes without the
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
    /// [`Argument`](crate::ErrorKind::Argument) for bits outside 1..=8, an axis the shape does not
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

    /// A quantized tensor from codes, one a byte, in logical order.
    ///
    /// # Errors
    /// As [`new`](QTensor::new), and as [`set_codes`](QTensor::set_codes).
    pub fn from_codes(shape: &[usize], bits: u8, granularity: Granularity, grid: Grid, codes: &[u8]) -> Result<Self> {
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
    pub fn from_signed_codes(
        shape: &[usize],
        bits: u8,
        granularity: Granularity,
        grid: Grid,
        codes: &[i8],
    ) -> Result<Self> {
        let middle = 1u8.checked_shl(u32::from(bits).wrapping_sub(1)).unwrap_or(0);
        let unsigned: Vec<u8> = codes.iter().map(|code| code.cast_unsigned().wrapping_add(middle)).collect();
        Self::from_codes(shape, bits, granularity, grid, &unsigned)
    }

    /// Replaces all codes. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many as elements,
    /// [`Argument`](crate::ErrorKind::Argument) when one has more bits than the tensor's. The codes are then as they were.
    pub fn set_codes(&mut self, codes: &[u8]) -> Result<()> {
        if codes.len() != self.len() {
            return Err(Error::shape("codes", &[self.len()], &[codes.len()]));
        }
        if let Some(code) = codes.iter().find(|&&code| u32::from(code) >> self.bits != 0) {
            return Err(Error::argument("code", code, "less than 2^bits"));
        }
        let layout = self.layout();
        let rows = self.packed.chunks_exact_mut(layout.row_bytes());
        rows.zip(codes.chunks_exact(layout.cols)).for_each(|(bytes, codes)| pack(codes, layout.bits, bytes));
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

    /// Bits of a code, 1 to 8.
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

    /// The codes, one a byte, in logical order. Codes are unsigned: 8-bit ones do not fit an `i8`.
    #[must_use]
    pub fn codes(&self) -> Vec<u8> {
        let layout = self.layout();
        let mut codes = vec![0; self.len()];
        for (row, bytes) in codes.chunks_exact_mut(layout.cols).zip(self.packed.chunks_exact(layout.row_bytes())) {
            unpack(bytes, layout.bits, row);
        }
        codes
    }

    /// The codes less `2^(bits - 1)`, one a byte, in logical order: as ONNX and PyTorch keep `int8` and `int4`.
    #[must_use]
    pub fn signed_codes(&self) -> Vec<i8> {
        let middle = 1u8 << (self.bits - 1);
        self.codes().into_iter().map(|code| code.wrapping_sub(middle).cast_signed()).collect()
    }

    /// Bytes of the packed codes and the levels.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.packed.len() + self.grid.byte_size()
    }

    /// Bits an element takes, levels included.
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        self.byte_size() as f64 * 8.0 / self.len() as f64
    }

    /// The decoded values, in logical order. A level beyond the range of a narrower `T` becomes infinite, but for one of an
    /// [affine](Grid::Affine) grid, which becomes the largest number.
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
        // Squares of `f64` can overflow and vanish: take them of numbers about 1.
        let scale = scan::scale_to_one(scan::largest_magnitude(range("tensor", values)?));
        let distance = rows::compare(self.layout(), self.levels(), &self.packed, values, scale);
        let signal = scan::sum_of_squares(values, scale);
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

    /// `values` has as many elements as this tensor.
    pub(crate) fn decode<T: Element>(&self, values: &mut [T]) {
        rows::decode(self.layout(), self.levels(), &self.packed, values);
    }

    fn levels(&self) -> Levels<'_> {
        match &self.grid {
            Grid::MinMax { min, max } => Levels::Even { min: min.numbers(), max: max.numbers() },
            Grid::Affine { scale, zero_point } => {
                Levels::Affine { scales: scale.numbers(), zeros: zero_point.as_deref() }
            }
            Grid::Codebook { levels } => Levels::Table(levels.numbers()),
        }
    }

    /// The layout, the levels and the packed codes, to be written by a quantizer.
    pub(crate) fn parts_mut(&mut self) -> (Layout, &mut Grid, &mut [u8]) {
        (self.layout(), &mut self.grid, &mut self.packed)
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
        if !(1..=8).contains(&bits) {
            return Err(Error::argument("bits", bits, "1 to 8"));
        }
        let len = checked_volume(shape)?;
        if len == 0 {
            return Err(Error::empty("tensor to quantize"));
        }
        let cols = shape.last().copied().unwrap_or(1);
        let rows = len / cols;
        let groups = match granularity {
            Granularity::Tensor => 1,
            Granularity::Channel { axis } => match shape.get(axis) {
                Some(&channels) => channels,
                None => {
                    let found = format!("{axis} of a tensor of {} axes", shape.len());
                    return Err(Error::argument("axis", found, "less than the number of axes"));
                }
            },
            Granularity::Group { size: 0 } => return Err(Error::argument("group size", 0, "at least 1")),
            Granularity::Group { size } => rows * cols.div_ceil(size),
        };
        Ok(Sizes { groups, bytes: rows * packed_len(cols, bits.into()) })
    }
}

/// How the groups of a granularity lie in rows.
fn groups(shape: &[usize], granularity: Granularity) -> Groups {
    match granularity {
        Granularity::Tensor => Groups::Whole,
        Granularity::Channel { axis } if axis + 1 == shape.len() => Groups::Columns,
        Granularity::Channel { axis } => {
            let repeat = shape[axis + 1..shape.len() - 1].iter().product();
            Groups::Rows { repeat, count: shape[axis] }
        }
        Granularity::Group { size } => Groups::Blocks { size },
    }
}

/// Checks that a grid has the levels of so many groups, all finite and in order.
fn check_grid(grid: &Grid, groups: usize, bits: u8) -> Result<()> {
    let check = |what, levels: &Values, len: usize| {
        if levels.len() == len { finite(what, levels) } else { Err(Error::shape(what, &[len], &[levels.len()])) }
    };
    match grid {
        Grid::MinMax { min, max } => {
            check("minima", min, groups)?;
            check("maxima", max, groups)?;
            if min.dtype() != max.dtype() {
                return Err(Error::argument("maxima", format!("{:?}", max.dtype()), "of the minima's type"));
            }
            match (0..groups).find(|&i| min.get(i) > max.get(i)) {
                Some(i) => {
                    Err(Error::argument("minimum", format!("above the maximum in group {i}"), "at most the maximum"))
                }
                None => Ok(()),
            }
        }
        Grid::Affine { scale, zero_point } => {
            check("scales", scale, groups)?;
            if let Some(i) = (0..groups).find(|&i| scale.get(i) <= Some(0.0)) {
                return Err(Error::argument("scale", format!("{:?} in group {i}", scale.get(i)), "above 0"));
            }
            let Some(zeros) = zero_point else { return Ok(()) };
            if zeros.len() != groups {
                return Err(Error::shape("zero points", &[groups], &[zeros.len()]));
            }
            match zeros.iter().find(|&&zero| u32::from(zero) >> bits != 0) {
                Some(zero) => Err(Error::argument("zero point", zero, "less than 2^bits")),
                None => Ok(()),
            }
        }
        Grid::Codebook { levels } => check("codebook", levels, groups.saturating_mul(1 << bits)),
    }
}

fn finite(what: &'static str, levels: &Values) -> Result<()> {
    match levels.numbers() {
        Numbers::F32(numbers) => check_finite(what, numbers),
        Numbers::F64(numbers) => check_finite(what, numbers),
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let table = |len| Grid::Codebook { levels: Values::F64(vec![0.5; len]) };
        assert!(new(&[3, 5], 4, Channel { axis: 0 }, table(48), 9).is_ok());
        assert_eq!(new(&[3, 5], 4, Channel { axis: 0 }, table(47), 9).unwrap_err(), Shape);
    }

    #[test]
    fn a_codebook_decodes_by_look_up() {
        let levels = Values::F32(vec![-1.0, 0.0, 0.25, 8.0]);
        let grid = Grid::Codebook { levels };
        let mut q = QTensor::from_codes(&[5], 2, Granularity::Tensor, grid, &[0, 1, 2, 3, 2]).unwrap();
        assert_eq!(q.packed(), [0b11_10_01_00, 0b10]);
        assert!(q.set_codes(&[0, 1, 2, 3, 4]).is_err() && q.set_codes(&[0; 4]).is_err());
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
}
