//! Blocks of 32 with one scale: `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`.

use super::blocks::{Block, Fate, half};
use half::f16;

/// `Q4_0`, `Q5_0`: `d` (2 bytes), a fifth bit of each code (4 bytes, where there is one), two codes a byte.
///
/// ```text
/// d = (the first x of the largest magnitude) / -2^(b-1)
/// q = trunc(x * (1 / d) + 2^(b-1) + 1/2)                at most 2^b - 1
/// ```
///
/// `d` and its reciprocal are in `f32`; product and sum are exact but for one rounding to `f32`, as a fused operation
/// has it; `d` is stored in `f16`.
pub(super) struct Centred<const BITS: u32>;

/// `Q4_1`, `Q5_1`: `d` and `m` (2 bytes each), then as [`Centred`].
///
/// ```text
/// d = (max - min) / (2^b - 1);  m = min
/// q = trunc((x - min) * (1 / d) + 1/2)                  at most 2^b - 1
/// ```
///
/// All in `f32`, each operation rounded on its own; `d` and `m` are stored in `f16`.
pub(super) struct Ranged<const BITS: u32>;

/// `Q8_0`: `d` (2 bytes), a signed byte a code.
///
/// ```text
/// d = max |x| / 127
/// q = round(x * (1 / d))                                halves away from zero
/// ```
pub(super) struct Q8;

impl<const BITS: u32, const BYTES: usize> Block<32, BYTES> for Centred<BITS> {
    #[inline(always)]
    fn decode(bytes: &[u8; BYTES], values: &mut [f32; 32]) {
        let d = half(bytes, 0);
        let codes = unpack::<BITS>(&bytes[2..]);
        for (x, code) in values.iter_mut().zip(codes) {
            *x = d * (f32::from(code) - middle(BITS));
        }
    }

    #[inline(always)]
    fn encode(values: &[f32; 32], bytes: &mut [u8; BYTES]) -> Fate {
        let mut largest = 0f32;
        for &x in values {
            largest = if x.abs() > largest.abs() { x } else { largest };
        }
        let d = largest / -middle(BITS);
        let (factor, offset) = (f64::from(reciprocal(d)), f64::from(middle(BITS)) + 0.5);
        let mut codes = [0; 32];
        for (code, &x) in codes.iter_mut().zip(values) {
            *code = limit::<BITS>((f64::from(x) * factor + offset) as f32);
        }
        let stored = f16::from_f32(d);
        bytes[..2].copy_from_slice(&stored.to_le_bytes());
        pack::<BITS>(&codes, &mut bytes[2..]);
        fate(d, stored, largest != 0.0)
    }
}

impl<const BITS: u32, const BYTES: usize> Block<32, BYTES> for Ranged<BITS> {
    #[inline(always)]
    fn decode(bytes: &[u8; BYTES], values: &mut [f32; 32]) {
        let (d, m) = (half(bytes, 0), half(bytes, 2));
        let codes = unpack::<BITS>(&bytes[4..]);
        for (x, code) in values.iter_mut().zip(codes) {
            *x = d * f32::from(code) + m;
        }
    }

    #[inline(always)]
    fn encode(values: &[f32; 32], bytes: &mut [u8; BYTES]) -> Fate {
        let (mut min, mut max) = (values[0], values[0]);
        for &x in values {
            min = if x < min { x } else { min };
            max = if x > max { x } else { max };
        }
        let d = (max - min) / ((1 << BITS) - 1) as f32;
        let factor = reciprocal(d);
        let mut codes = [0; 32];
        for (code, &x) in codes.iter_mut().zip(values) {
            *code = limit::<BITS>((x - min) * factor + 0.5);
        }
        let (stored, m) = (f16::from_f32(d), f16::from_f32(min));
        bytes[..2].copy_from_slice(&stored.to_le_bytes());
        bytes[2..4].copy_from_slice(&m.to_le_bytes());
        pack::<BITS>(&codes, &mut bytes[4..]);
        match fate(d, stored, max > min) {
            Fate::Kept | Fate::Vanished if m.is_infinite() => Fate::Overflow(min.into()),
            fate => fate,
        }
    }
}

impl Block<32, 34> for Q8 {
    #[inline(always)]
    fn decode(bytes: &[u8; 34], values: &mut [f32; 32]) {
        let d = half(bytes, 0);
        for (x, &byte) in values.iter_mut().zip(&bytes[2..]) {
            *x = f32::from(byte.cast_signed()) * d;
        }
    }

    #[inline(always)]
    fn encode(values: &[f32; 32], bytes: &mut [u8; 34]) -> Fate {
        let mut largest = 0f32;
        for &x in values {
            largest = if x.abs() > largest { x.abs() } else { largest };
        }
        let d = largest / 127.0;
        let factor = reciprocal(d);
        let stored = f16::from_f32(d);
        bytes[..2].copy_from_slice(&stored.to_le_bytes());
        for (byte, &x) in bytes[2..].iter_mut().zip(values) {
            *byte = ((x * factor).round() as i8).cast_unsigned();
        }
        fate(d, stored, largest != 0.0)
    }
}

/// `2^(bits - 1)`
#[inline(always)]
fn middle(bits: u32) -> f32 {
    (1u32 << (bits - 1)) as f32
}

/// 0 where there is none in `f32`: such a scale is 0 in `f16`, whatever the codes.
#[inline(always)]
fn reciprocal(d: f32) -> f32 {
    let reciprocal = 1.0 / d;
    if reciprocal.is_finite() { reciprocal } else { 0.0 }
}

#[inline(always)]
fn limit<const BITS: u32>(place: f32) -> u8 {
    (place as u8).min(((1u32 << BITS) - 1) as u8)
}

/// What became of the scale of a block that needs one or not.
#[inline(always)]
fn fate(d: f32, stored: f16, needed: bool) -> Fate {
    match stored {
        stored if stored.is_infinite() => Fate::Overflow(d.into()),
        stored if stored == f16::ZERO && needed => Fate::Vanished,
        _ => Fate::Kept,
    }
}

/// The fifth bits, if there are any, then 16 bytes: the codes of the first half in the low nibbles, of the second in
/// the high ones.
#[inline(always)]
pub(super) fn pack<const BITS: u32>(codes: &[u8; 32], bytes: &mut [u8]) {
    let (fifth, nibbles) = bytes.split_at_mut(if BITS == 5 { 4 } else { 0 });
    let (low, high) = codes.split_at(16);
    for ((byte, low), high) in nibbles.iter_mut().zip(low).zip(high) {
        *byte = low & 15 | high << 4;
    }
    if BITS == 5 {
        let mut bits = 0u32;
        for (i, code) in codes.iter().enumerate() {
            bits |= u32::from(code >> 4) << i;
        }
        fifth.copy_from_slice(&bits.to_le_bytes());
    }
}

#[inline(always)]
pub(super) fn unpack<const BITS: u32>(bytes: &[u8]) -> [u8; 32] {
    let (fifth, nibbles) = bytes.split_at(if BITS == 5 { 4 } else { 0 });
    let mut codes = [0; 32];
    let (low, high) = codes.split_at_mut(16);
    for ((byte, low), high) in nibbles.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    if BITS == 5 {
        let bits = u32::from_le_bytes([fifth[0], fifth[1], fifth[2], fifth[3]]);
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= ((bits >> i & 1) as u8) << 4;
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_by_hand() {
        // The first of the largest magnitude has code 0; its opposite is one step short.
        let mut x = [0f32; 32];
        (x[0], x[1], x[17]) = (8.0, -8.0, 1.0);
        let mut bytes = [0u8; 18];
        assert_eq!(Centred::<4>::encode(&x, &mut bytes), Fate::Kept);
        assert_eq!((half(&bytes, 0), &bytes[2..5]), (-1.0, &[0x80, 0x7f, 0x88][..]));
        let mut back = [9f32; 32];
        Centred::<4>::decode(&bytes, &mut back);
        assert_eq!((back[0], back[1], back[17], back[2]), (8.0, -7.0, 1.0, 0.0));
        // Fifth bits are apart: 16 is the code of 0, so all are set but the first.
        let mut bytes = [0u8; 22];
        Centred::<5>::encode(&x, &mut bytes);
        assert_eq!((half(&bytes, 0), &bytes[2..8]), (-0.5, &[0xfe, 0xff, 0xfd, 0xff, 0x00, 0xef][..]));
        let mut bytes = [0u8; 20];
        assert_eq!(Ranged::<4>::encode(&[1e5; 32], &mut bytes), Fate::Overflow(1e5));
        assert_eq!(Ranged::<4>::encode(&[2.5; 32], &mut bytes), Fate::Kept);
        assert_eq!((half(&bytes, 0), half(&bytes, 2), bytes[4]), (0.0, 2.5, 0));
    }

    #[test]
    fn codes_come_back_from_nibbles_and_fifth_bits() {
        let codes: [u8; 32] = std::array::from_fn(|i| (i * 13 % 32) as u8);
        let mut bytes = [0; 20];
        pack::<5>(&codes, &mut bytes);
        assert_eq!(unpack::<5>(&bytes), codes);
        let codes = codes.map(|code| code & 15);
        pack::<4>(&codes, &mut bytes[..16]);
        assert_eq!(unpack::<4>(&bytes[..16]), codes);
    }
}
