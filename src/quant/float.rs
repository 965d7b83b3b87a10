//! The small floating-point formats as quantizers: 8, 6 and 4 bits, with any scale or one of the MX formats.

use super::{
    affine::fit_scales,
    certificate::{Certificate, Certify, certify_listed},
    spec::{Spec, encode_checked, granularity, levels_config},
    symmetric::Magnitude,
};
use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::{
        minifloat::{self, Format},
        ranges::{self, Ranges},
        scan,
    },
    tensor::{Granularity, Grid, QTensor, Scales, TensorRef, Values, qtensor::range, view::filled},
    traits::Quantizer,
};

/// A floating-point format of 4 to 8 bits: a sign, an exponent, a mantissa, in this order from the highest bit.
///
/// ```text
/// e = 0:  (-1)^s * m / 2^M * 2^(1 - bias)           E bits of exponent e, M bits of mantissa m
/// e > 0:  (-1)^s * (1 + m / 2^M) * 2^(e - bias)     bias = 2^(E-1) - 1
/// ```
///
/// | format | largest | smallest above 0 | codes that are no finite number |
/// |---|---|---|---|
/// | `E5m2` | 57344 | 2^-16 | infinity `0x7c`, NaN `0x7d` to `0x7f`, and with the sign |
/// | `E4m3` | 448 | 2^-9 | NaN `0x7f`, `0xff`; there is no infinity |
/// | `E3m2` | 28 | 2^-4 | – |
/// | `E2m3` | 7.5 | 2^-3 | – |
/// | `E2m1` | 6 | 2^-1 | – |
///
/// As in the Open Compute Project's "8-bit Floating Point Specification" (OFP8) and "Microscaling Formats (MX) Specification" v1.0.
/// `E4m3` is what ONNX and PyTorch call `float8e4m3fn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum FloatFormat {
    /// FP8 of 5 bits of exponent and 2 of mantissa.
    E5m2,
    /// FP8 of 4 bits of exponent and 3 of mantissa, without infinity.
    E4m3,
    /// FP6 of 3 bits of exponent and 2 of mantissa.
    E3m2,
    /// FP6 of 2 bits of exponent and 3 of mantissa.
    E2m3,
    /// FP4 of 2 bits of exponent and 1 of mantissa.
    E2m1,
}

impl FloatFormat {
    /// Bits of the exponent and of the mantissa.
    fn fields(self) -> (u32, u32) {
        match self {
            Self::E5m2 => (5, 2),
            Self::E4m3 => (4, 3),
            Self::E3m2 => (3, 2),
            Self::E2m3 => (2, 3),
            Self::E2m1 => (2, 1),
        }
    }

    /// Bits of a code: 8, 6 or 4.
    #[must_use]
    pub fn bits(self) -> u8 {
        let (exponent, mantissa) = self.fields();
        (1 + exponent + mantissa) as u8
    }

    /// The code of the largest number.
    fn top(self) -> u8 {
        match self {
            Self::E5m2 => 0x7b,
            Self::E4m3 => 0x7e,
            Self::E3m2 | Self::E2m3 => 0x1f,
            Self::E2m1 => 0x07,
        }
    }

    /// The largest number.
    #[must_use]
    pub fn largest(self) -> f32 {
        self.level(self.top())
    }

    /// The exponent of the largest number, as a power of two.
    fn largest_exponent(self) -> i32 {
        let (exponent, mantissa) = self.fields();
        i32::from(self.top() >> mantissa) - ((1 << (exponent - 1)) - 1)
    }

    /// The number of a code. Codes that are no finite number have the largest one of their sign.
    fn level(self, code: u8) -> f32 {
        let (exponent, mantissa) = self.fields();
        let sign = code >> (self.bits() - 1) & 1;
        let magnitude = (code & ((1 << (self.bits() - 1)) - 1)).min(self.top());
        let (e, m) = (i32::from(magnitude >> mantissa), magnitude & ((1 << mantissa) - 1));
        let bias = (1 << (exponent - 1)) - 1;
        let whole = f32::from(if e == 0 { m } else { m + (1 << mantissa) });
        let level = whole * libm::exp2f((e.max(1) - bias - mantissa.cast_signed()) as f32);
        if sign == 1 { -level } else { level }
    }

    fn kernel(self) -> Format {
        let (_, mantissa) = self.fields();
        Format { mantissa, lowest: self.level(1 << mantissa), largest: self.largest() }
    }

    /// The number of each code, in the order of codes; the codes that are no finite number have the largest one of their sign.
    #[must_use]
    pub fn levels(self) -> Vec<f32> {
        (0..=u8::MAX >> (8 - self.bits())).map(|code| self.level(code)).collect()
    }
}

/// Quantizes to the numbers of a small floating-point format times a scale, the codes being the format's own bits.
///
/// ```text
/// scale = max |x| / largest                                    new: in f64, narrowed once; at least the smallest normal number
/// scale = 2^(floor(log2(max |x|)) - floor(log2(largest)))      mx: in E8M0, 2^-127 to 2^127; 2^-127 where all are 0
/// q  = round(x / scale)                                        to the format, half to even mantissa; beyond the largest: it
/// x' = q * scale                                               in f64, narrowed once, at most the largest number of the type
/// ```
///
/// The division is one in the arithmetic of the values, so no number of the format is nearer to `x` than `x'` by more than
/// 1 ulp(max |x|) (2 ulp in `f64`). The sign of a 0 is kept. Codes of NaN and infinity are never made; where they are read, they stand for
/// the largest number.
///
/// [`Minifloat::new`] fits a scale as PyTorch and ONNX keep one. [`Minifloat::mx`] is the formats MXFP8, MXFP6 and MXFP4 of the Open
/// Compute Project's "Microscaling Formats (MX) Specification" v1.0: groups of 32, the scale a power of two in a byte, and numbers above
/// `largest * scale` saturate. A tensor that was laid out and not fitted has the scale 1: to
/// [`encode`](Quantizer::encode) into it is a plain cast, saturating.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `format` | – | [`FloatFormat`] | bits of a code and their meaning |
/// | granularity | `new`: the tensor; `mx`: groups of 32 | [`per_channel`](Minifloat::per_channel), [`per_group`](Minifloat::per_group), [`per_block`](Minifloat::per_block) | what shares a scale |
///
/// The scale of `new` is kept in `f32` (`f64` for `f64` tensors), that of `mx` in a byte.
///
/// ```
/// use lapidary::{QuantizerExt, quant::{FloatFormat, Minifloat}};
/// let weights: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
/// let mxfp4 = Minifloat::mx(FloatFormat::E2m1);
/// let q = mxfp4.quantize(&weights)?;
/// assert_eq!(q.byte_size() - 16 * 4, 64 / 2 + 64 / 32); // the 16 levels aside
/// assert!(q.error(&weights)?.sqnr_db > 13.0); // numbers from 0.75 to 1 saturate
/// let q = Minifloat::new(FloatFormat::E4m3).quantize(&[896.0f32, -0.0, 2.0])?;
/// assert_eq!(q.packed(), [0x7e, 0x80, 0x38]); // 448, -0 and 1, times 2
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minifloat {
    format: FloatFormat,
    /// Scales are powers of two in a byte.
    powers: bool,
    spec: Spec,
}

impl Minifloat {
    /// A quantizer to `format`, one scale for the whole tensor.
    #[must_use]
    pub fn new(format: FloatFormat) -> Self {
        let spec = Spec { bits: format.bits(), granularity: Granularity::Tensor };
        Self { format, powers: false, spec }
    }

    /// A quantizer to an MX format: each 32 neighbours along the last axis share a power of two.
    #[must_use]
    pub fn mx(format: FloatFormat) -> Self {
        let spec = Spec { bits: format.bits(), granularity: Granularity::Group { size: 32 } };
        Self { format, powers: true, spec }
    }

    /// The format of the codes.
    #[must_use]
    pub fn format(&self) -> FloatFormat {
        self.format
    }

    granularity!();

    fn check<T: Element>(&self, shape: &[usize], q: &QTensor) -> Result<()> {
        let fits = match (q.grid(), self.powers) {
            (Grid::Scaled { levels, scale: Scales::E8m0(_) }, true) => self.lists(levels),
            (Grid::Scaled { levels, scale }, false) => scale.as_slice::<T::Real>().is_some() && self.lists(levels),
            _ => false,
        };
        self.spec.check::<T>(shape, q, fits, if self.powers { "scales in E8M0" } else { "scales of its levels" })
    }

    /// Whether these are the format's levels.
    fn lists(&self, levels: &Values) -> bool {
        let own = |(code, level): (usize, &f32)| level.to_bits() == self.format.level(code as u8).to_bits();
        levels.as_slice::<f32>().is_some_and(|levels| levels.iter().enumerate().all(own))
    }

    /// Sets the codes of finite values.
    fn encode_finite<T: Element>(&self, values: &[T], q: &mut QTensor) {
        let (layout, grid, packed) = q.parts_mut();
        if let Grid::Scaled { scale, .. } = grid {
            minifloat::encode(layout, values, self.format.kernel(), scale.numbers(), packed);
        }
    }

    /// Sets the powers of two. Nothing moves unless all values are finite, and so is the scale of them all together.
    fn fit_powers<T: Element>(&self, values: &[T], q: &mut QTensor) -> Result<()> {
        let (min, max) = range("tensor", values)?;
        let largest = self.format.largest_exponent();
        if power(scan::largest_magnitude((min, max)), largest) > 254 {
            let found = format!("{:?} to {:?}", min.to_f64(), max.to_f64());
            return Err(Error::argument("range", found, "one whose scale is at most 2^127"));
        }
        let (layout, grid, _) = q.parts_mut();
        if let Grid::Scaled { scale: Scales::E8m0(bytes), .. } = grid {
            ranges::ranges(layout, values, Powers { bytes, largest });
        }
        Ok(())
    }
}

levels_config! {
    Minifloat(format: FloatFormat) => Self::new(format),
    mx: bool = |it| it.powers => |it, _| Self::mx(it.format),
}

impl<T: Element> Quantizer<T> for Minifloat {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        QTensor::laid_out(shape, self.bits(), self.granularity(), |groups| {
            let scale = match self.powers {
                true => Scales::E8m0(filled(groups, ONE)?),
                false => Values::filled::<T::Real>(groups, 1.0)?.into(),
            };
            Ok(Grid::Scaled { levels: Values::F32(self.format.levels()), scale })
        })
    }

    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.check::<T>(values.shape(), q)?;
        match self.powers {
            true => self.fit_powers(values.as_slice(), q),
            false => fit_scales(values.as_slice(), q, Magnitude { steps: self.format.largest().into() }),
        }
    }

    encode_checked!();
}

impl<T: Element> Certify<T> for Minifloat {
    fn certificate(&self, q: &QTensor) -> Result<Certificate> {
        self.check::<T>(q.shape(), q)?;
        // Below the next power of two, where that is what scales are chosen by.
        let largest = self.format.largest();
        let beyond = if self.powers { libm::exp2f((self.format.largest_exponent() + 1) as f32) } else { largest };
        Ok(certify_listed::<T>(q, &self.format.levels(), beyond))
    }
}

/// 1 as a power of two in a byte.
const ONE: u8 = 127;

/// The power of two, with [`ONE`] added and at least 0, that brings a magnitude to the exponent `largest`.
#[inline(always)]
fn power(magnitude: f64, largest: i32) -> i32 {
    // The bits of an exponent; those of 0 and of subnormal numbers are lower than any that counts.
    let exponent = (magnitude.to_bits() >> 52) as i32 - 1023;
    (exponent - largest + i32::from(ONE)).max(0)
}

/// Keeps a power of two for each group.
struct Powers<'a> {
    bytes: &'a mut [u8],
    largest: i32,
}

impl<R: Real> Ranges<R> for Powers<'_> {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (bytes, right) = self.bytes.split_at_mut(mid);
        (Self { bytes, largest: self.largest }, Self { bytes: right, largest: self.largest })
    }

    #[inline(always)]
    fn put(&mut self, first: usize, min: &[R], max: &[R]) {
        for ((byte, &min), &max) in self.bytes[first..first + min.len()].iter_mut().zip(min).zip(max) {
            *byte = power(min.to_f64().abs().max(max.to_f64().abs()), self.largest) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, QuantizerExt};
    use FloatFormat::{E2m1, E2m3, E3m2, E4m3, E5m2};

    #[test]
    fn the_numbers_of_each_format() {
        assert_eq!(E2m1.levels()[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert!(E2m1.levels()[8..].iter().zip(E2m1.levels()).all(|(a, b)| a.to_bits() == (-b).to_bits()));
        assert_eq!([E5m2, E4m3, E3m2, E2m3, E2m1].map(FloatFormat::largest), [57344.0, 448.0, 28.0, 7.5, 6.0]);
        assert_eq!([E5m2, E4m3, E3m2, E2m3, E2m1].map(FloatFormat::largest_exponent), [15, 8, 4, 2, 2]);
        let smallest = [E5m2, E4m3, E3m2, E2m3, E2m1].map(|format| format.level(1).log2());
        assert_eq!(smallest, [-16.0, -9.0, -4.0, -3.0, -1.0]);
        assert_eq!(E4m3.levels()[0x7d..0x82], [416.0, 448.0, 448.0, -0.0, -2f32.powi(-9)]);
        assert_eq!((E5m2.levels().len(), E3m2.levels().len(), E5m2.levels()[0xff]), (256, 64, -57344.0));
    }

    #[test]
    fn mx_scales_by_hand() {
        // 7 is above 6, the largest, and has the same power of two: it saturates. 3e38 is 1.76 * 2^127.
        let x = [7.0f32, -0.4, 3e38, 1.0, f32::from_bits(1), 0.0, 0.0, -0.0];
        let mut q = Minifloat::mx(E2m1).per_group(2).unwrap().quantize(&x).unwrap();
        let Grid::Scaled { scale: Scales::E8m0(bytes), .. } = q.grid() else { panic!() };
        assert_eq!(bytes[..], [127, 127 + 125, 0, 0]);
        assert_eq!(q.codes(), [7, 9, 7, 0, 0, 0, 0, 8]);
        assert_eq!(q.dequantize::<f32>()[..2], [6.0, -0.5]);
        let whole = Minifloat::mx(E5m2).per_channel(0);
        assert_eq!(whole.quantize(&x).unwrap().codes()[2], 0x7b);
        // What is beyond 2^(127 + 2) has no scale.
        let mx = Minifloat::mx(E2m1).per_group(2).unwrap();
        let before = q.clone();
        assert!(mx.quantize_into((&[1f32; 8]).into(), &mut q).is_ok());
        mx.quantize_into((&[7.0f64, -0.4, 3e38, 1.0, 1e-45, 0.0, 0.0, -0.0]).into(), &mut q).unwrap();
        assert_eq!(q, before);
        let error = mx.quantize_into((&[2f64.powi(130); 8]).into(), &mut q).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(mx.quantize_into((&[f64::NAN; 8]).into(), &mut q).is_err());
        assert_eq!(q, before);
    }

    #[test]
    fn another_quantizers_tensor_is_refused() {
        let x = [1.0f32, 2.0];
        let mut q = Minifloat::new(E4m3).quantize(&x).unwrap();
        for other in [Minifloat::new(E5m2), Minifloat::mx(E4m3), Minifloat::new(E4m3).per_channel(0)] {
            assert!(other.encode((&x).into(), &mut q).is_err());
        }
        assert!(Minifloat::new(E4m3).encode((&[1.0f64, 2.0]).into(), &mut q).is_err());
        assert!(crate::quant::Affine::new(8).unwrap().encode((&x).into(), &mut q).is_err());
        assert!(Minifloat::new(E2m1).per_group(0).is_err());
    }
}
