//! Floating-point formats of 8 bits and less: from values to codes.

use super::{
    grid::Numbers,
    rows::{self, Code, Codes, Layout},
};
use crate::element::{Element, Real};

/// A format whose codes are a sign, an exponent and a mantissa, with numbers below the lowest power of two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// Bits of the mantissa.
    pub(crate) mantissa: u32,
    /// The power of two below which numbers are as far apart as above it: `2^(1 - bias)`.
    pub(crate) lowest: f32,
    /// The largest number.
    pub(crate) largest: f32,
}

const EXPONENT: u32 = 0xff << 23;

impl Format {
    /// The code of the magnitude of the nearest number, half to even mantissa; of the largest one for what is beyond it.
    ///
    /// Between two powers of two, numbers are `power / 2^mantissa` apart. That is the unit in the last place of `1.5 * 2^23` such steps;
    /// so adding these rounds to a whole step, half to even, and the lowest bits count the steps.
    #[inline(always)]
    fn magnitude(&self, y: f32) -> u32 {
        let y = f32::from_bits(y.to_bits() & !(1 << 31));
        let y = if y < self.largest { y } else { self.largest };
        let (power, lowest) = (y.to_bits() & EXPONENT, self.lowest.to_bits());
        let power = if power > lowest { power } else { lowest };
        let shift = (power + ((23 - self.mantissa) << 23)) | (1 << 22);
        let steps = (y + f32::from_bits(shift)).to_bits() - shift;
        // `2^mantissa` steps for each power; those of the lowest one are counted from 0.
        steps + ((power - lowest) >> (23 - self.mantissa))
    }
}

/// `y = x / scale` in the arithmetic of the values, then the number of the format that is nearest to `y`. The sign of 0 is kept.
#[derive(Clone, Copy)]
struct Rounded<R> {
    format: Format,
    scale: R,
    /// The highest bit of a code.
    sign: u32,
}

impl<T: Element> Code<T> for Rounded<T::Real> {
    #[inline(always)]
    fn code(&self, x: T) -> u16 {
        // Rounded to odd, `f64` keeps what decides the rounding to come.
        let y = (x.to_real() / self.scale).to_odd_single();
        (self.format.magnitude(y) | (y.to_bits() >> 31) << self.sign) as u16
    }
}

/// The groups of a tensor.
#[derive(Clone, Copy)]
struct RoundedGroups<'a> {
    format: Format,
    scales: Numbers<'a>,
    sign: u32,
}

impl<T: Element> Codes<T> for RoundedGroups<'_> {
    type Code = Rounded<T::Real>;

    #[inline(always)]
    fn of(&self, group: usize) -> Self::Code {
        Rounded { format: self.format, scale: T::Real::from_f64(self.scales.get(group)), sign: self.sign }
    }
}

/// The codes of the numbers of a format, times the scale of a group, that are nearest to `values`.
pub(crate) fn encode<T: Element>(layout: Layout, values: &[T], format: Format, scales: Numbers<'_>, bytes: &mut [u8]) {
    rows::encode(layout, values, RoundedGroups { format, scales, sign: layout.bits - 1 }, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_the_even_mantissa() {
        // 0, 0.5, 1, 1.5, 2, 3, 4, 6
        let e2m1 = Format { mantissa: 1, lowest: 1.0, largest: 6.0 };
        let x = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0, 7.0, f32::INFINITY, f32::from_bits(1), -1.75];
        assert_eq!(x.map(|x| e2m1.magnitude(x)), [0, 2, 2, 4, 4, 6, 6, 7, 7, 7, 0, 4]);
        let above = x[..7].iter().map(|x| e2m1.magnitude(x.next_up())).collect::<Vec<_>>();
        let below = x[..7].iter().map(|x| e2m1.magnitude(x.next_down())).collect::<Vec<_>>();
        assert_eq!((above, below), ((1..8).collect(), (0..7).collect()));
    }

    #[test]
    fn a_tie_is_one_of_the_wide_number() {
        let format = Format { mantissa: 1, lowest: 1.0, largest: 6.0 };
        let code = Rounded { format, scale: 1.0f64, sign: 3 };
        // Rounded to an f32 first, all of these are 1.25.
        assert_eq!([1.25 - 1e-12, 1.25, 1.25 + 1e-12, -1.25 - 1e-12].map(|x: f64| code.code(x)), [2, 2, 3, 11]);
        assert_eq!([f64::MAX, -f64::MAX, -5e-324].map(|x| code.code(x)), [7, 15, 8]);
    }
}
