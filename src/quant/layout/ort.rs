//! ONNX Runtime's own quantizer to `MatMulNBits`.

use super::matmul_nbits::{MatMulNBits, ZeroPoints, check_form, pack_rows, whole_blocks};
use crate::{
    config::config,
    error::{Error, Result},
    quant::certificate::{Certificate, certify_blocks},
    tensor::{Scales, TensorRef, Values, qtensor::check_finite, view::filled},
};

/// Quantizes blocks of a matrix as ONNX Runtime's `DefaultWeightOnlyQuantConfig` does, with the same bytes.
///
/// In `f32`, each operation rounded on its own; `round` takes halves away from zero:
///
/// ```text
/// min = min(min, 0);  max = max(max, 0)
/// scale = (max - min) / (2^b - 1);  zero_point = round(-min / scale)      from 0 to 2^b - 1
/// symmetric: scale = -(max or min, the larger in magnitude) / 2^(b-1);  zero_point = 2^(b-1), not stored
/// q  = round(x * (1 / scale) + zero_point)                                 from 0 to 2^b - 1; 0 in place of 1 / 0
/// x' = (q - zero_point) * scale
/// ```
///
/// A symmetric scale is negative where the largest number is positive, so that it has the code 0. The codes that fill
/// up the last block of a row are 0. A block whose numbers are so small (subnormal) that its scale rounds to 0 decodes
/// to 0. So, with the scale as it is stored,
///
/// ```text
/// |x - x'| <= |scale| * (1/2 + 2^(b-20)) + 2^(b-150)           symmetric, and q the highest code: 1 in place of 1/2
/// ```
///
/// since the unrounded zero point is at most half a step from the rounded one, and so `x` from the levels' ends.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | – | 2, 4, 8 | bits of a code |
/// | `block_size` | – | 16, 32, 64, … | neighbours along `K` that share a scale |
/// | `symmetric` | off | | no zero points |
///
/// ```
/// use lapidary::{TensorRef, quant::layout::OrtRoundToNearest};
/// let weights: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
/// let quantizer = OrtRoundToNearest::new(4, 32)?.symmetric();
/// let b = quantizer.quantize(TensorRef::new(&weights, &[2, 32])?)?;
/// assert_eq!((b.packed().len(), b.scales().len()), (32, 2));
/// let bound = quantizer.certificate(&b)?.max_abs();
/// assert!(weights.iter().zip(b.dequantize()?).all(|(x, y)| f64::from((x - y).abs()) <= bound) && bound < 0.126);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrtRoundToNearest {
    bits: u8,
    block_size: usize,
    symmetric: bool,
}

config! {
    OrtRoundToNearest(bits: u8, block_size: usize) => Self::new(bits, block_size),
    symmetric: bool => |it, _| it.symmetric(),
}

impl OrtRoundToNearest {
    /// A quantizer with zero points.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a number is not in its range.
    pub fn new(bits: u8, block_size: usize) -> Result<Self> {
        check_form(bits, block_size)?;
        Ok(Self { bits, block_size, symmetric: false })
    }

    /// Without zero points.
    #[must_use]
    pub fn symmetric(self) -> Self {
        Self { symmetric: true, ..self }
    }

    /// Quantizes weights of the shape `[N, K]` (outputs, inputs). ONNX's `MatMul` has them transposed.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when there are not two axes, or a block's scale is beyond the largest
    /// number; [`Empty`](crate::ErrorKind::Empty) without an element; [`NonFinite`](crate::ErrorKind::NonFinite) for a
    /// NaN or infinity.
    pub fn quantize<'a>(&self, weights: impl Into<TensorRef<'a, f32>>) -> Result<MatMulNBits> {
        let weights = weights.into();
        let &[n, k] = weights.shape() else {
            return Err(Error::argument("shape", format!("{:?}", weights.shape()), "one of two axes, N and K"));
        };
        if weights.is_empty() {
            return Err(Error::empty("tensor to quantize"));
        }
        check_finite("tensor", weights.as_slice())?;
        let blocks = k.div_ceil(self.block_size);
        let mut scales = Vec::with_capacity(n * blocks);
        let mut zeros = Vec::with_capacity(n * blocks);
        let mut codes = filled(whole_blocks(n, blocks, self.block_size)?, 0u8)?;
        let rows = codes.chunks_exact_mut(blocks * self.block_size).zip(weights.as_slice().chunks_exact(k));
        for (row, (codes, values)) in rows.enumerate() {
            for (i, (codes, values)) in
                codes.chunks_exact_mut(self.block_size).zip(values.chunks(self.block_size)).enumerate()
            {
                let (scale, zero) = self.fit(values);
                if !scale.is_finite() {
                    let found = format!("infinite in block {i} of row {row}");
                    return Err(Error::argument("scale", found, "finite"));
                }
                self.encode(values, scale, zero, codes);
                scales.push(scale);
                zeros.push(zero);
            }
        }
        let zero_points = match self.symmetric {
            true => ZeroPoints::Middle,
            false => ZeroPoints::Packed(pack_rows(&zeros, blocks, self.bits)?),
        };
        let packed = pack_rows(&codes, blocks * self.block_size, self.bits)?;
        let scales = Scales::from(Values::F32(scales));
        MatMulNBits::new([n, k], self.bits, self.block_size, packed, scales, zero_points)
    }

    /// How far the weights that `b` was [quantized](OrtRoundToNearest::quantize) from, by this quantizer, can be from what it
    /// [decodes](MatMulNBits::dequantize) to; a group is a block. Only `b` is read: it says nothing about codes that something else chose.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `b` has other bits, blocks, scales or zero points than this quantizer makes.
    pub fn certificate(&self, b: &MatMulNBits) -> Result<Certificate> {
        let zeros = if self.symmetric { *b.zero_points() == ZeroPoints::Middle } else { b.zeros_are_packed() };
        let singles = matches!(b.scales(), Scales::Full(Values::F32(_)));
        if (b.bits(), b.block_size(), zeros, singles) != (self.bits, self.block_size, true, true) {
            let found =
                format!("of {} bits in blocks of {}, scales in {}", b.bits(), b.block_size(), b.scales().form());
            return Err(Error::argument("matrix", found, "laid out by this quantizer"));
        }
        let ([_, k], codes) = (b.shape(), b.codes()?);
        let blocks = k.div_ceil(self.block_size);
        let top = (1u32 << self.bits) - 1;
        // The products with the reciprocal, the sums and the scale itself: 16 roundings of a number up to 2^b are more than there are.
        let rounding = f64::from(top + 1) * 2f64.powi(-20);
        // A subnormal scale is off by half the distance of such numbers, and the range by that of each step.
        let subnormal = f64::from(top) * 2f64.powi(-150);
        Ok(certify_blocks(&b.shape(), self.block_size, |block, bounds| {
            let scale = b.scale(block).abs();
            let codes = &codes[block / blocks * k + block % blocks * self.block_size..];
            for (bound, &code) in bounds.iter_mut().zip(codes) {
                // The level opposite to the largest number is missing.
                let reach = if self.symmetric && u32::from(code) == top { 1.0 } else { 0.5 };
                *bound = scale * (reach + rounding) + subnormal;
            }
        }))
    }

    fn top(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    fn fit(&self, values: &[f32]) -> (f32, u8) {
        let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| {
            (if x < min { x } else { min }, if x > max { x } else { max })
        });
        let middle = 1u8 << (self.bits - 1);
        if self.symmetric {
            let largest = if max.abs() > min.abs() { max } else { min };
            return (-largest / f32::from(middle), middle);
        }
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = (max - min) / self.top();
        let zero = if scale == 0.0 { min } else { 0.0 - min / scale };
        (scale, zero.clamp(0.0, self.top()).round() as u8)
    }

    fn encode(&self, values: &[f32], scale: f32, zero: u8, codes: &mut [u8]) {
        let reciprocal = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for (code, &x) in codes.iter_mut().zip(values) {
            // The reciprocal of a subnormal scale can be infinite; the reference has no answer there.
            let place = if reciprocal.is_finite() { x * reciprocal } else { x / scale };
            *code = (place + f32::from(zero)).round().clamp(0.0, self.top()) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn blocks(weights: &[f32], quantizer: OrtRoundToNearest) -> Result<MatMulNBits> {
        quantizer.quantize(TensorRef::new(weights, &[1, weights.len()]).unwrap())
    }

    #[test]
    fn halves_go_away_from_zero_and_the_largest_has_code_0() {
        let symmetric = OrtRoundToNearest::new(4, 16).unwrap().symmetric();
        // The scale is -1, so 0.5 and -0.5 lie between two codes.
        let b = blocks(&[8.0, 0.5, -0.5, -7.0], symmetric).unwrap();
        assert_eq!((b.scales(), b.zero_points()), (&Values::F32(vec![-1.0]).into(), &ZeroPoints::Middle));
        assert_eq!(b.packed(), [8 << 4, 15 << 4 | 9, 0, 0, 0, 0, 0, 0]);
        let zeroed = blocks(&[-1.0, 2.0, 0.1], OrtRoundToNearest::new(2, 16).unwrap()).unwrap();
        assert_eq!(
            (zeroed.packed(), zeroed.zero_points()),
            (&[0b01_11_00, 0, 0, 0][..], &ZeroPoints::Packed(vec![0b10_10_10_01]))
        );
    }

    #[test]
    fn what_cannot_be_quantized_is_refused() {
        let quantizer = OrtRoundToNearest::new(8, 16).unwrap();
        assert_eq!(blocks(&[3e38, -3e38], quantizer).unwrap_err().kind(), ErrorKind::Argument);
        assert!(blocks(&[3e38, -3e38], quantizer.symmetric()).is_ok());
        let error = blocks(&[1.0, f32::NAN], quantizer).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        assert_eq!(blocks(&[], quantizer).unwrap_err().kind(), ErrorKind::Empty);
        assert_eq!(quantizer.quantize(&[1.0f32]).unwrap_err().kind(), ErrorKind::Argument);
        for (bits, size) in [(3, 16), (1, 32), (16, 32), (4, 0), (4, 8), (4, 48), (8, 1 << 17), (8, 1 << 63)] {
            assert!(OrtRoundToNearest::new(bits, size).is_err(), "{bits} {size}");
        }
    }

    #[test]
    fn subnormal_blocks_stay_near() {
        for symmetric in [false, true] {
            let x: Vec<f32> = (0..32).map(|i| (i as f32 - 9.0) * 1e-40).collect();
            let quantizer = OrtRoundToNearest { symmetric, ..OrtRoundToNearest::new(4, 32).unwrap() };
            let b = blocks(&x, quantizer).unwrap();
            let scale = b.scales().get(0).unwrap().abs();
            for (x, y) in x.iter().zip(b.dequantize().unwrap()) {
                assert!(f64::from(x - y).abs() <= 1.01 * scale, "{x:e} {y:e}");
            }
        }
    }
}
