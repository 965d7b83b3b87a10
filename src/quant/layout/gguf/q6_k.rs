//! `Q6_K`: 256 elements in 16 parts of 16, each with a signed 8-bit scale.

use super::blocks::{Block, Fate, half, some_half};
use crate::element::Real;

/// Low nibbles (128 bytes), high pairs of bits (64 bytes), 16 signed scales, `d` (2 bytes). Of each 128 elements, with
/// `l` below 64 and `k` below 32: nibbles `l` are the low ones of elements `l`, the high ones of `l + 64`; pairs `k`
/// are those of `k`, `k + 32`, `k + 64`, `k + 96`.
///
/// Encoding, in `f64`. With `A` the largest `|x|` of the block, at `x`, and `A'` that of a part, two scales are tried,
/// at least the smallest `f16` above 0:
///
/// ```text
/// d = A / (31 * 127);   d = x / (-32 * -128)
/// s = round(±A' / (n d)), n = 31, 31.5, 32, 33, 34              from -128 to 127, the one of the least squared error
/// ```
///
/// and that with the least sum of squared errors is kept. The plain choice is the first `d` with `n = 31` and `+`.
pub(super) struct Q6K;

/// Levels between 0 and the largest number of a part, to choose from.
const TOPS: [f64; 5] = [31.0, 31.5, 32.0, 33.0, 34.0];

impl Block<256, 210> for Q6K {
    #[inline(always)]
    fn decode(bytes: &[u8; 210], values: &mut [f32; 256]) {
        let (codes, steps) = (unpack(bytes), steps(bytes));
        let parts = values.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
        for ((values, codes), step) in parts.zip(steps) {
            for (x, &code) in values.iter_mut().zip(codes) {
                *x = step * (f32::from(code) - 32.0);
            }
        }
    }

    #[inline(always)]
    fn encode(values: &[f32; 256], bytes: &mut [u8; 210]) -> Fate {
        let parts = values.as_chunks::<16>().0;
        let mut largest = 0f32;
        for &x in values {
            largest = if x.abs() > largest.abs() { x } else { largest };
        }
        let largest = f64::from(largest);
        let d = some_half(largest.abs() / (31.0 * 127.0));
        if !d.is_finite() {
            return Fate::Overflow(largest.abs() / (31.0 * 127.0));
        }
        let wide = some_half(largest / (32.0 * 128.0));
        let ((scales, squares), (wide_scales, wide_squares)) =
            (choose(parts, d.to_f64()), choose(parts, wide.to_f64()));
        let (d, scales) = if wide_squares < squares { (wide, wide_scales) } else { (d, scales) };
        write(parts, d, &scales, bytes);
        if scales == [0; 16] && largest != 0.0 { Fate::Vanished } else { Fate::Kept }
    }
}

/// The step of each part.
#[inline(always)]
pub(super) fn steps(bytes: &[u8; 210]) -> [f32; 16] {
    let d = half(bytes, 208);
    let mut steps = [0.0; 16];
    for (step, &scale) in steps.iter_mut().zip(&bytes[192..208]) {
        *step = d * f32::from(scale.cast_signed());
    }
    steps
}

/// The codes, in logical order.
#[inline(always)]
pub(super) fn unpack(bytes: &[u8; 210]) -> [u8; 256] {
    let mut codes = [0; 256];
    let (nibbles, pairs) = (bytes[..128].as_chunks::<64>().0, bytes[128..192].as_chunks::<32>().0);
    for ((codes, nibbles), pairs) in codes.as_chunks_mut::<128>().0.iter_mut().zip(nibbles).zip(pairs) {
        for (l, &byte) in nibbles.iter().enumerate() {
            (codes[l], codes[l + 64]) = (byte & 15, byte >> 4);
        }
        for (quarter, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, &byte) in codes.iter_mut().zip(pairs) {
                *code |= (byte >> (2 * quarter) & 3) << 4;
            }
        }
    }
    codes
}

/// The best scale of each part for a `d`, and the sum of their squared errors.
#[inline(always)]
fn choose(parts: &[[f32; 16]], d: f64) -> ([i8; 16], f64) {
    let (mut scales, mut sum) = ([0; 16], 0.0);
    for (part, kept) in parts.iter().zip(&mut scales) {
        let mut largest = 0f32;
        for &x in part {
            largest = if x.abs() > largest { x.abs() } else { largest };
        }
        let mut least = f64::INFINITY;
        for tops in TOPS {
            for sign in [1.0, -1.0] {
                let place = if d == 0.0 { 0.0 } else { sign * f64::from(largest) / (tops * d) };
                let place = if place > -128.0 { place } else { -128.0 };
                let scale = (if place < 127.0 { place } else { 127.0 }).nearest();
                let step = d * f64::from(scale);
                let factor = factor(step);
                let mut squares = 0.0;
                for &x in part {
                    let error = f64::from(x) - step * level(x, factor);
                    squares += error * error;
                }
                if squares < least {
                    (least, *kept) = (squares, scale as i8);
                }
            }
        }
        sum += least;
    }
    (scales, sum)
}

/// The nearest code less 32, half to even.
#[inline(always)]
fn level(x: f32, factor: f64) -> f64 {
    let place = f64::from(x) * factor;
    let place = if place > -32.0 { place } else { -32.0 };
    f64::from((if place < 31.0 { place } else { 31.0 }).nearest())
}

/// `1 / step`, or 0.
#[inline(always)]
fn factor(step: f64) -> f64 {
    if step == 0.0 { 0.0 } else { 1.0 / step }
}

#[inline(always)]
fn write(parts: &[[f32; 16]], d: half::f16, scales: &[i8; 16], bytes: &mut [u8; 210]) {
    let mut codes = [0u8; 256];
    for ((part, codes), &scale) in parts.iter().zip(codes.as_chunks_mut::<16>().0).zip(scales) {
        let factor = factor(d.to_f64() * f64::from(scale));
        for (code, &x) in codes.iter_mut().zip(part) {
            *code = (level(x, factor) + 32.0) as u8;
        }
    }
    let (nibbles, rest) = bytes.split_at_mut(128);
    let (pairs, rest) = rest.split_at_mut(64);
    let halves = nibbles.as_chunks_mut::<64>().0.iter_mut().zip(pairs.as_chunks_mut::<32>().0);
    for ((nibbles, pairs), codes) in halves.zip(codes.as_chunks::<128>().0) {
        for (l, byte) in nibbles.iter_mut().enumerate() {
            *byte = codes[l] & 15 | (codes[l + 64] & 15) << 4;
        }
        for (k, byte) in pairs.iter_mut().enumerate() {
            *byte = codes[k] >> 4 | codes[k + 32] >> 4 << 2 | codes[k + 64] >> 4 << 4 | codes[k + 96] >> 4 << 6;
        }
    }
    for (byte, scale) in rest.iter_mut().zip(scales) {
        *byte = scale.cast_unsigned();
    }
    rest[16..].copy_from_slice(&d.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_are_there_come_back_and_lie_where_they_are_read() {
        let x: [f32; 256] = std::array::from_fn(|i| ((i * 11 % 63) as f32 - 31.0) * if i < 128 { 127.0 } else { 40.0 });
        let (mut bytes, mut back) = ([0; 210], [0.0; 256]);
        let mut full = x;
        // Each part reaches its end.
        full.as_chunks_mut::<16>().0.iter_mut().enumerate().for_each(|(j, part)| {
            part[j] = 31.0 * if j < 8 { 127.0 } else { 40.0 };
        });
        assert_eq!(Q6K::encode(&full, &mut bytes), Fate::Kept);
        Q6K::decode(&bytes, &mut back);
        assert_eq!(back, full);
        let codes = unpack(&bytes);
        let sign = |j: usize| if steps(&bytes)[j] < 0.0 { -1.0 } else { 1.0 };
        assert!((0..256).all(|i| (f32::from(codes[i]) - 32.0) * sign(i / 16) * back[i].signum() >= 0.0));
        assert_eq!(bytes[0] & 15 | (bytes[128] & 3) << 4, codes[0]);
        assert_eq!(bytes[127] >> 4 | bytes[191] >> 6 << 4, codes[255]);
    }
}
