//! Evenly spaced levels of which one is 0: from values to codes and back, for one group of elements.

use super::{
    grid::Numbers,
    rows::{Code, Codes, Word},
};
use crate::element::{Element, Real};

/// `q = round(x / scale) + zero`, half to even, limited to `least ..= top`; `x' = (q - zero) * scale`.
///
/// One division in the arithmetic of the values, as ONNX defines it; the product is rounded once.
#[derive(Clone, Copy)]
pub(crate) struct Affine<R> {
    scale: R,
    zero: u16,
    low: R,
    high: R,
}

impl<R: Real> Affine<R> {
    #[inline(always)]
    pub(super) fn new(scale: R, zero: u16, least: u16, top: u16) -> Self {
        Self { scale, zero, low: steps(least, zero), high: steps(top, zero) }
    }

    /// Where `x` lies, in steps from 0, and the ends of the levels.
    #[inline(always)]
    pub(super) fn place(&self, x: R) -> (R, R, R) {
        (x / self.scale, self.low, self.high)
    }

    /// Steps from 0 to the level nearest to `x`.
    #[inline(always)]
    pub(super) fn nearest(&self, x: R) -> i32 {
        let (place, low, high) = self.place(x);
        let place = if place > low { place } else { low };
        let place = if place < high { place } else { high };
        place.nearest()
    }

    /// The level so many steps from 0.
    #[inline(always)]
    pub(super) fn level(&self, steps: i32, largest: R) -> R {
        multiple(R::from_integer(steps), self.scale, largest)
    }
}

/// Steps from the code of 0 to a code; exact.
#[inline(always)]
fn steps<R: Real>(code: u16, zero: u16) -> R {
    R::from_integer(i32::from(code) - i32::from(zero))
}

impl<T: Element> Code<T> for Affine<T::Real> {
    #[inline(always)]
    fn code(&self, x: T) -> u16 {
        (self.nearest(x.to_real()) + i32::from(self.zero)) as u16
    }
}

/// The value of a code: at most `largest`, the largest number of its type, which a level of a range up to it can lie beyond.
#[inline(always)]
fn level<R: Real>(scale: R, zero: u16, code: u16, largest: R) -> R {
    multiple(steps(code, zero), scale, largest)
}

/// `steps * scale`, from `-largest` to `largest`.
#[inline(always)]
fn multiple<R: Real>(steps: R, scale: R, largest: R) -> R {
    let level = steps * scale;
    let level = if level < largest { level } else { largest };
    if level > -largest { level } else { -largest }
}

/// The values of the codes of one group. Scales that fit an `f32` are multiplied in the arithmetic of the values, others in `f64`.
#[inline(always)]
pub(crate) fn levels<T: Element, C: Copy + Into<u16>>(
    scales: Numbers<'_>,
    group: usize,
    zero: u16,
    codes: &[C],
    out: &mut [T],
) {
    match scales.single(group) {
        Some(scale) => {
            let (scale, largest) = (T::Real::from_single(scale), T::Real::from_f64(T::LARGEST));
            for (x, &code) in out.iter_mut().zip(codes) {
                *x = T::from_real(level(scale, zero, code.into(), largest));
            }
        }
        None => {
            let scale = scales.get(group);
            for (x, &code) in out.iter_mut().zip(codes) {
                *x = T::from_f64(level(scale, zero, code.into(), T::LARGEST));
            }
        }
    }
}

/// The values of codes of which each is in a group of its own, the first in `first`.
#[inline(always)]
pub(crate) fn columns<T: Element, C: Copy + Into<u16>>(
    scales: Numbers<'_>,
    zeros: Option<&[u16]>,
    bits: u32,
    first: usize,
    codes: &[C],
    out: &mut [T],
) {
    let groups = first..first + out.len();
    // The usual form is a loop over slices; any other goes one by one.
    if let Numbers::F32(scales) = scales {
        let (scales, largest) = (&scales[groups.clone()], T::Real::from_f64(T::LARGEST));
        match zeros {
            Some(zeros) => {
                for (((x, &code), &scale), &zero) in out.iter_mut().zip(codes).zip(scales).zip(&zeros[groups]) {
                    *x = T::from_real(level(T::Real::from_single(scale), zero, code.into(), largest));
                }
            }
            None => {
                let zero = zero(None, 0, bits);
                for ((x, &code), &scale) in out.iter_mut().zip(codes).zip(scales) {
                    *x = T::from_real(level(T::Real::from_single(scale), zero, code.into(), largest));
                }
            }
        }
        return;
    }
    for ((x, code), group) in out.iter_mut().zip(codes).zip(groups) {
        levels(scales, group, zero(zeros, group, bits), std::slice::from_ref(code), std::slice::from_mut(x));
    }
}

/// The zero of a group, where all have the middle one unless they are listed.
#[inline(always)]
pub(crate) fn zero(zeros: Option<&[u16]>, group: usize, bits: u32) -> u16 {
    zeros.map_or(1 << (bits - 1), |zeros| zeros[group])
}

/// The groups of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct AffineGroups<'a, R> {
    pub(crate) scales: &'a [R],
    pub(crate) zeros: Option<&'a [u16]>,
    pub(crate) bits: u32,
    /// The lowest code that is used.
    pub(crate) least: u16,
}

impl<R: Real> AffineGroups<'_, R> {
    #[inline(always)]
    fn code(&self, scale: R, zero: u16) -> Affine<R> {
        Affine::new(scale, zero, self.least, ((1u32 << self.bits) - 1) as u16)
    }
}

impl<T: Element> Codes<T> for AffineGroups<'_, T::Real> {
    type Code = Affine<T::Real>;

    #[inline(always)]
    fn of(&self, group: usize) -> Affine<T::Real> {
        self.code(self.scales[group], zero(self.zeros, group, self.bits))
    }

    #[inline(always)]
    fn columns<W: Word>(&self, first: usize, values: &[T], codes: &mut [W]) {
        let groups = first..first + codes.len();
        let scales = &self.scales[groups.clone()];
        match self.zeros {
            Some(zeros) => {
                for (((code, &x), &scale), &zero) in codes.iter_mut().zip(values).zip(scales).zip(&zeros[groups]) {
                    *code = W::of(self.code(scale, zero).code(x));
                }
            }
            None => {
                let zero = zero(None, 0, self.bits);
                for ((code, &x), &scale) in codes.iter_mut().zip(values).zip(scales) {
                    *code = W::of(self.code(scale, zero).code(x));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_limited_and_halves_go_to_even() {
        let affine = Affine::new(0.5f32, 3, 0, 15);
        let codes: Vec<u16> = [-9.0f32, -1.5, -0.25, 0.0, 0.25, 0.75, 6.0, 1e38].map(|x| affine.code(x)).into();
        assert_eq!(codes, [0, 0, 3, 3, 3, 5, 15, 15]);
        assert_eq!(level(0.5f32, 3, 0, f32::MAX), -1.5);
        let restricted = Affine::new(1.0f64, 128, 1, 255);
        assert_eq!([-1e300, -127.0, 127.4, 1e300].map(|x| restricted.code(x)), [1, 1, 255, 255]);
    }

    #[test]
    fn tiny_scales_saturate() {
        let affine = Affine::new(f32::MIN_POSITIVE, 128, 0, 255);
        assert_eq!([f32::MIN, 0.0, f32::MAX].map(|x| affine.code(x)), [0, 128, 255]);
        let mut out = [half::f16::ONE; 3];
        levels(Numbers::F32(&[3e4]), 0, 2, &[0u8, 3, 255], &mut out);
        assert_eq!(out.map(f32::from), [-6e4, 3e4, 65504.0]);
        let mut out = [0f32; 2];
        levels(Numbers::F64(&[3e38]), 0, 2, &[0u16, 3], &mut out);
        assert_eq!(out, [f32::MIN, 3e38]);
    }
}
