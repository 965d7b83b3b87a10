//! `Q4_K`: 256 elements in 8 parts of 32, each with a 6-bit scale and a 6-bit minimum.

use super::blocks::{Block, Fate, half, some_half};
use crate::element::Real;

/// `d` and `dmin` (2 bytes each), 8 scales and 8 minima of 6 bits (12 bytes), 4-bit codes: of each two parts, those of
/// the first are the low nibbles of 32 bytes, those of the second the high ones.
///
/// Encoding, in `f64`. Each part has two wishes for its step and the offset of code 0, which is at most 0:
///
/// ```text
/// plain:  offset = min(0, min x);  step = (max(x) - offset) / 15
/// fitted: of the codes for 13.5, 13.75 .. 16.5 steps in the range, the line of least squares; the best of these
/// ```
///
/// and for each of the two `d = max step / 63`, `dmin = max -offset / 63`, at least the smallest `f16` above 0, are
/// tried: a part takes the scale and minimum, rounded from either wish or one higher, whose codes have the least
/// squared error; the block the `d` and `dmin` with the least sum.
pub(super) struct Q4K;

/// What one part would have without rounding: `x = step * q - offset`.
#[derive(Clone, Copy, Default)]
struct Wish {
    step: f64,
    offset: f64,
}

/// Scales, minima and codes of a block, and their squared error.
struct Trial {
    d: half::f16,
    dmin: half::f16,
    scales: [u8; 8],
    minima: [u8; 8],
    squares: f64,
}

impl Block<256, 144> for Q4K {
    #[inline(always)]
    fn decode(bytes: &[u8; 144], values: &mut [f32; 256]) {
        let steps = steps(bytes);
        let pairs = values.as_chunks_mut::<64>().0.iter_mut().zip(bytes[16..].as_chunks::<32>().0);
        for ((values, nibbles), steps) in pairs.zip(steps.as_chunks::<2>().0) {
            let (low, high) = values.split_at_mut(32);
            for ((byte, low), high) in nibbles.iter().zip(low).zip(high) {
                *low = steps[0].0 * f32::from(byte & 15) - steps[0].1;
                *high = steps[1].0 * f32::from(byte >> 4) - steps[1].1;
            }
        }
    }

    #[inline(always)]
    fn encode(values: &[f32; 256], bytes: &mut [u8; 144]) -> Fate {
        let parts = values.as_chunks::<32>().0;
        let (mut plain, mut fitted) = ([Wish::default(); 8], [Wish::default(); 8]);
        for ((part, plain), fitted) in parts.iter().zip(&mut plain).zip(&mut fitted) {
            *plain = range(part);
            *fitted = fit(part, *plain);
        }
        let first = trial(parts, &plain, [&plain, &fitted]);
        if !first.d.is_finite() || !first.dmin.is_finite() {
            let (step, offset) = largest(&plain);
            return Fate::Overflow(if first.d.is_finite() { offset } else { step } / 63.0);
        }
        let second = trial(parts, &fitted, [&plain, &fitted]);
        let finite = second.d.is_finite() && second.dmin.is_finite();
        let best = if finite && second.squares < first.squares { second } else { first };
        best.write(parts, bytes);
        let none = best.scales == [0; 8] && best.minima == [0; 8];
        if none && values.iter().any(|&x| x != 0.0) { Fate::Vanished } else { Fate::Kept }
    }
}

/// Step and offset of each part.
#[inline(always)]
pub(super) fn steps(bytes: &[u8; 144]) -> [(f32, f32); 8] {
    let (d, dmin, packed) = (half(bytes, 0), half(bytes, 2), &bytes[4..16]);
    let mut steps = [(0.0, 0.0); 8];
    for (j, step) in steps.iter_mut().enumerate() {
        let (scale, minimum) = match j {
            0..4 => (packed[j] & 63, packed[j + 4] & 63),
            _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
        };
        *step = (d * f32::from(scale), dmin * f32::from(minimum));
    }
    steps
}

#[inline(always)]
fn range(part: &[f32; 32]) -> Wish {
    let (mut min, mut max) = (0f32, f32::MIN);
    for &x in part {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    Wish { step: (f64::from(max) - f64::from(min)) / 15.0, offset: -f64::from(min) }
}

#[inline(always)]
fn fit(part: &[f32; 32], plain: Wish) -> Wish {
    let mut best = (plain, f64::INFINITY);
    if plain.step == 0.0 {
        return plain;
    }
    for i in 0..13 {
        let tops = 13.5 + 0.25 * f64::from(i);
        let factor = tops / (plain.step * 15.0);
        let (mut q, mut qq, mut x, mut xq, mut xx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &value in part {
            let value = f64::from(value);
            let code = code(value + plain.offset, factor);
            q += code;
            qq += code * code;
            x += value;
            xq += value * code;
            xx += value * value;
        }
        let spread = 32.0 * qq - q * q;
        if spread <= 0.0 {
            continue;
        }
        let mut wish = Wish { step: (32.0 * xq - x * q) / spread, offset: 0.0 };
        wish.offset = (wish.step * q - x) / 32.0;
        if wish.offset < 0.0 {
            wish = Wish { step: xq / qq, offset: 0.0 };
        }
        let Wish { step, offset } = wish;
        let squares =
            xx - 2.0 * (step * xq - offset * x) + step * step * qq - 2.0 * step * offset * q + 32.0 * offset * offset;
        if step > 0.0 && squares < best.1 {
            best = (wish, squares);
        }
    }
    best.0
}

/// The nearest code, half to even.
#[inline(always)]
fn code(above: f64, factor: f64) -> f64 {
    let place = above * factor;
    let place = if place > 0.0 { place } else { 0.0 };
    f64::from((if place < 15.0 { place } else { 15.0 }).nearest())
}

/// `1 / step`, or 0.
#[inline(always)]
fn factor(step: f64) -> f64 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

#[inline(always)]
fn largest(wishes: &[Wish; 8]) -> (f64, f64) {
    let (mut step, mut offset) = (0.0, 0.0);
    for wish in wishes {
        step = if wish.step > step { wish.step } else { step };
        offset = if wish.offset > offset { wish.offset } else { offset };
    }
    (step, offset)
}

/// An integer from 0 to 63.
#[inline(always)]
fn six_bits(wish: f64, unit: f64, more: i32) -> u8 {
    let place = wish * factor(unit);
    let place = if place < 63.0 { place } else { 63.0 };
    (place.nearest() + more).min(63) as u8
}

#[inline(always)]
fn trial(parts: &[[f32; 32]], of: &[Wish; 8], wishes: [&[Wish; 8]; 2]) -> Trial {
    let (step, offset) = largest(of);
    let (d, dmin) = (some_half(step / 63.0), some_half(offset / 63.0));
    let mut trial = Trial { d, dmin, scales: [0; 8], minima: [0; 8], squares: 0.0 };
    let (d, dmin) = (d.to_f64(), dmin.to_f64());
    for (j, part) in parts.iter().enumerate() {
        let mut least = f64::INFINITY;
        for wish in [wishes[0][j], wishes[1][j]] {
            let minimum = six_bits(wish.offset, dmin, 0);
            for more in 0..2 {
                let scale = six_bits(wish.step, d, more);
                let (step, offset) = (d * f64::from(scale), dmin * f64::from(minimum));
                let factor = factor(step);
                let mut squares = 0.0;
                for &x in part {
                    let x = f64::from(x);
                    let error = x - (step * code(x + offset, factor) - offset);
                    squares += error * error;
                }
                if squares < least {
                    (least, trial.scales[j], trial.minima[j]) = (squares, scale, minimum);
                }
            }
        }
        trial.squares += least;
    }
    trial
}

impl Trial {
    #[inline(always)]
    fn write(&self, parts: &[[f32; 32]], bytes: &mut [u8; 144]) {
        bytes[..2].copy_from_slice(&self.d.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.dmin.to_le_bytes());
        let (scales, minima) = (&self.scales, &self.minima);
        for j in 0..4 {
            bytes[4 + j] = scales[j] | scales[j + 4] >> 4 << 6;
            bytes[8 + j] = minima[j] | minima[j + 4] >> 4 << 6;
            bytes[12 + j] = scales[j + 4] & 15 | (minima[j + 4] & 15) << 4;
        }
        let mut codes = [0; 256];
        for (j, (part, codes)) in parts.iter().zip(codes.as_chunks_mut::<32>().0).enumerate() {
            let (step, offset) = (self.d.to_f64() * f64::from(scales[j]), self.dmin.to_f64() * f64::from(minima[j]));
            for (place, &x) in codes.iter_mut().zip(part) {
                *place = code(f64::from(x) + offset, factor(step)) as u8;
            }
        }
        for (codes, nibbles) in codes.as_chunks::<64>().0.iter().zip(bytes[16..].as_chunks_mut::<32>().0) {
            let (low, high) = codes.split_at(32);
            for ((byte, low), high) in nibbles.iter_mut().zip(low).zip(high) {
                *byte = low | high << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bit_numbers_are_where_they_are_read() {
        let trial = Trial {
            d: half::f16::ONE,
            dmin: half::f16::from_f32(0.5),
            scales: [1, 2, 3, 63, 5, 22, 47, 62],
            minima: [60, 50, 40, 30, 20, 10, 63, 0],
            squares: 0.0,
        };
        let mut bytes = [0; 144];
        trial.write(&[[0.0; 32]; 8], &mut bytes);
        for (j, (step, offset)) in steps(&bytes).into_iter().enumerate() {
            assert_eq!((step, offset), (trial.scales[j].into(), 0.5 * f32::from(trial.minima[j])), "{j}");
        }
    }

    #[test]
    fn levels_that_are_there_come_back() {
        let x: [f32; 256] = std::array::from_fn(|i| ((i * 7 % 16) as f32 - 5.0) * if i < 128 { 63.0 } else { 21.0 });
        let (mut bytes, mut back) = ([0; 144], [0.0; 256]);
        assert_eq!(Q4K::encode(&x, &mut bytes), Fate::Kept);
        Q4K::decode(&bytes, &mut back);
        assert_eq!(back, x);
    }
}
