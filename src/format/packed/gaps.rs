//! The positions of a mask's kept elements as a stream of bits: Rice codes of the gaps between them.
//!
//! A gap `g` (pruned elements before a kept one) is `g >> k` one bits, a zero bit, and the low `k` bits of `g`; for the
//! near-geometric gaps of magnitude pruning that is within a few percent of their entropy (Rice 1979).
//! The first bit of the stream is the lowest of the first byte.

use crate::{
    error::{Error, Result},
    tensor::Mask,
};

/// The largest Rice parameter that is tried and accepted.
const MAX_RICE: u32 = 31;

/// The gaps of a mask in the Rice code that is shortest for them: the parameter and the bytes.
pub(super) fn encode(mask: &Mask) -> (u32, Vec<u8>) {
    let gaps = || {
        let mut next = 0;
        mask.indices().map(move |index| {
            let gap = index - next;
            next = index + 1;
            gap as u64
        })
    };
    let bits = |k: u32| gaps().map(|gap| (gap >> k) + 1 + u64::from(k)).sum::<u64>();
    let rice = (0..=MAX_RICE).min_by_key(|&k| bits(k)).unwrap_or(0);
    let mut writer = BitWriter::default();
    for gap in gaps() {
        (0..gap >> rice).for_each(|_| writer.push(true));
        writer.push(false);
        (0..rice).for_each(|bit| writer.push(gap >> bit & 1 == 1));
    }
    (rice, writer.bytes)
}

/// The mask of `kept` elements whose gaps are in `bytes`.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) when the bytes are too few or too many, or a position is past the end. The
/// offset counts from the first of `bytes`.
pub(super) fn decode(shape: &[usize], kept: usize, rice: u32, bytes: &[u8]) -> Result<Mask> {
    if rice > MAX_RICE {
        return Err(Error::format(0, format!("Rice parameter {rice} above {MAX_RICE}")));
    }
    let mut mask = Mask::from_fn(shape, |_| false)?;
    let mut reader = BitReader { bytes, at: 0 };
    let mut next = 0usize;
    for _ in 0..kept {
        let mut gap = 0u64;
        while reader.pop()? {
            gap += 1 << rice;
            if gap >= mask.len() as u64 {
                return Err(Error::format(reader.at / 8, "a position past the tensor's end"));
            }
        }
        for bit in 0..rice {
            gap |= u64::from(reader.pop()?) << bit;
        }
        let index = usize::try_from(gap).ok().and_then(|gap| next.checked_add(gap)).filter(|&i| i < mask.len());
        let index = index.ok_or_else(|| Error::format(reader.at / 8, "a position past the tensor's end"))?;
        mask.keep(index);
        next = index + 1;
    }
    if reader.at.div_ceil(8) != bytes.len() {
        return Err(Error::format(reader.at.div_ceil(8), "bytes after the last position"));
    }
    Ok(mask)
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: usize,
}

impl BitWriter {
    fn push(&mut self, bit: bool) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.used % 8);
        }
        self.used += 1;
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn pop(&mut self) -> Result<bool> {
        let byte = self.bytes.get(self.at / 8);
        let byte = byte.ok_or_else(|| Error::format(self.at / 8, "positions end early"))?;
        let bit = byte >> (self.at % 8) & 1 == 1;
        self.at += 1;
        Ok(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_come_back(n in 0usize..3000, every in 1usize..500, seed in any::<u64>()) {
            let mask = Mask::from_fn(&[n], |i| (i as u64).wrapping_mul(seed | 1).rotate_left(17).is_multiple_of(every as u64)).unwrap();
            let (rice, bytes) = encode(&mask);
            prop_assert_eq!(decode(&[n], mask.kept(), rice, &bytes).unwrap(), mask.clone());
            prop_assert!(mask.kept() == 0 || decode(&[n], mask.kept(), rice, &bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn any_bytes_give_a_mask_or_an_error(kept in 0usize..100, rice in 0u32..40, bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            if let Ok(mask) = decode(&[1000], kept, rice, &bytes) {
                prop_assert_eq!(mask.kept(), kept);
            }
        }
    }

    #[test]
    fn is_close_to_the_entropy() {
        // Every element kept with probability 1/20, by a linear congruential generator.
        let mut state = 1u64;
        let mask = Mask::from_fn(&[400_000], |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33).is_multiple_of(20)
        });
        let mask = mask.unwrap();
        let p = mask.density();
        let entropy = -(p * p.log2() + (1.0 - p) * (1.0 - p).log2()) * 400_000.0 / 8.0;
        let ratio = encode(&mask).1.len() as f64 / entropy;
        assert!((1.0..1.04).contains(&ratio), "{ratio}");
    }
}
