//! Positions and codes by a range coder, an adaptive bit at a time: fewest bytes.
//!
//! ```text
//! a bit is 1 with the probability (2 ones + 1) / (2 (ones + zeros) + 2), of the bits coded before in its context
//! positions   a bit for each element, row after row (the first axis; one row where there is one axis); its context is
//!               floor(2 log2((5 r + 10) / (5 k + 2)))   k of the r rows above keep this column, at most 15
//!               floor(log2((5 c + 20) / (5 n + 2)))     n of the c columns before are kept in this row, at most 7
//! codes       bit by bit, the highest first; its context is the bits above it
//! ```
//!
//! Pruning by magnitude leaves some inputs and outputs fewer weights than others, and its codes are far from even: contexts learn both
//! from what was coded, so that no table is stored (Rissanen & Langdon 1981). All is integer arithmetic. The range coder (Martin
//! 1979) is that of the crate `constriction`, with words of 32 bits, little-endian, and probabilities in 1/65,536.

use crate::{
    error::{Error, Result},
    tensor::{Mask, QTensor, view::filled},
};
use constriction::stream::{
    Decode, Encode,
    model::{DecoderModel, EncoderModel, EntropyModel},
    queue::{DefaultRangeDecoder, DefaultRangeEncoder},
};
use std::{borrow::Borrow, num::NonZeroU32};

const PRECISION: usize = 16;
const WHOLE: u32 = 1 << PRECISION;

/// Bits that are coded so far in a file, all tensors together: so few bytes could else ask for hours of work.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Coded(usize);

impl Coded {
    /// Counts further bits; false, and nothing is counted, where a file of so many bytes may not have them.
    pub(super) fn add(&mut self, bits: usize, file: usize) -> bool {
        let all = self.0.saturating_add(bits);
        let allowed = all <= file.saturating_mul(256).saturating_add(1 << 20);
        if allowed {
            self.0 = all;
        }
        allowed
    }
}

/// How often bits of one context were 0 and 1.
#[derive(Clone, Copy, Default)]
struct Counts([u32; 2]);

impl Counts {
    fn model(self) -> Bit {
        let [zeros, ones] = self.0.map(u64::from);
        let one = ((2 * ones + 1) << PRECISION) / (2 * (zeros + ones) + 2);
        Bit { one: (one as u32).clamp(1, WHOLE - 1) }
    }

    fn add(&mut self, bit: bool) {
        let count = &mut self.0[usize::from(bit)];
        *count += 1;
        if *count == 1 << 20 {
            self.0 = self.0.map(|count| count / 2);
        }
    }
}

/// A bit that is 1 with the probability `one / 65,536`.
#[derive(Clone, Copy)]
struct Bit {
    one: u32,
}

impl Bit {
    /// Where the share of a bit begins, and how wide it is.
    fn share(self, bit: bool) -> (u32, NonZeroU32) {
        let (start, width) = if bit { (0, self.one) } else { (self.one, WHOLE - self.one) };
        // Both are above 0: `one` is from 1 to 65,535.
        (start, NonZeroU32::new(width).unwrap_or(NonZeroU32::MIN))
    }
}

impl EntropyModel<PRECISION> for Bit {
    type Symbol = bool;
    type Probability = u32;
}

impl EncoderModel<PRECISION> for Bit {
    fn left_cumulative_and_probability(&self, bit: impl Borrow<bool>) -> Option<(u32, NonZeroU32)> {
        Some(self.share(*bit.borrow()))
    }
}

impl DecoderModel<PRECISION> for Bit {
    fn quantile_function(&self, quantile: u32) -> (bool, u32, NonZeroU32) {
        let bit = quantile < self.one;
        let (start, width) = self.share(bit);
        (bit, start, width)
    }
}

/// A coder of bits: one that writes gives back what it is given, one that reads what was written.
trait Coder {
    fn code(&mut self, bit: bool, counts: &mut Counts) -> Result<bool>;
}

#[derive(Default)]
struct Writer(DefaultRangeEncoder);

impl Writer {
    fn bytes(self) -> Vec<u8> {
        let words: Vec<u32> = self.0.into();
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }
}

impl Coder for Writer {
    fn code(&mut self, bit: bool, counts: &mut Counts) -> Result<bool> {
        let written = self.0.encode_symbol(bit, counts.model());
        written.map_err(|error| Error::format(0, format!("not encoded: {error:?}")))?;
        counts.add(bit);
        Ok(bit)
    }
}

struct Reader(DefaultRangeDecoder);

impl Reader {
    fn new(bytes: &[u8]) -> Result<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Error::format(bytes.len(), "coded bytes that are not whole words"));
        }
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        DefaultRangeDecoder::from_compressed(words).map(Self).map_err(|_| Error::format(0, "coded bytes end early"))
    }
}

/// An error unless what was decoded is coded as these very bytes: a reader itself cannot tell some that follow.
fn check_bytes(bytes: &[u8], coded: Writer) -> Result<()> {
    if coded.bytes() == bytes {
        Ok(())
    } else {
        Err(Error::format(bytes.len(), "other bytes than what they say is coded as"))
    }
}

impl Coder for Reader {
    fn code(&mut self, _: bool, counts: &mut Counts) -> Result<bool> {
        let bit = self.0.decode_symbol(counts.model());
        let bit = bit.map_err(|_| Error::format(0, "coded bytes that nothing is coded as"))?;
        counts.add(bit);
        Ok(bit)
    }
}

/// `floor(log2(a / b))`, or twice as fine, from 0 to `most`.
fn log_ratio(a: u64, b: u64, fine: bool, most: usize) -> usize {
    let ratio = (a << 16) / b;
    if ratio < WHOLE.into() {
        return 0;
    }
    let log = ratio.ilog2() as usize - 16;
    if !fine {
        return log.min(most);
    }
    // 46,341 / 32,768 is the root of 2.
    let half = ratio >> (ratio.ilog2() - 15) >= 46_341;
    (2 * log + usize::from(half)).min(most)
}

const COLUMNS: usize = 16;
const ROWS: usize = 8;

/// All positions of a mask, in turn. A reader finds them and keeps them in it.
fn positions(mask: &mut Mask, coder: &mut impl Coder) -> Result<()> {
    let len = mask.len();
    let rows = if mask.shape().len() < 2 { 1 } else { mask.shape()[0] };
    let cols = if len == 0 { return Ok(()) } else { len / rows };
    let mut contexts = [[Counts::default(); ROWS]; COLUMNS];
    let mut above = filled(cols, 0u32)?;
    for row in 0..rows {
        let mut before = 0u64;
        for (column, above) in above.iter_mut().enumerate() {
            let index = row * cols + column;
            let of_column = log_ratio(5 * row as u64 + 10, 5 * u64::from(*above) + 2, true, COLUMNS - 1);
            let of_row = log_ratio(5 * column as u64 + 20, 5 * before + 2, false, ROWS - 1);
            let bit = coder.code(mask.get(index) == Some(true), &mut contexts[of_column][of_row])?;
            if bit {
                mask.keep(index);
            }
            *above += u32::from(bit);
            before += u64::from(bit);
        }
    }
    Ok(())
}

/// The positions of a mask: a bit for each element.
pub(super) fn encode_mask(mask: &Mask) -> Result<Vec<u8>> {
    let mut writer = Writer::default();
    positions(&mut mask.clone(), &mut writer)?;
    Ok(writer.bytes())
}

/// The mask of so many kept elements.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) when the bytes are not those of such a mask. The offset counts from the first of `bytes`.
pub(super) fn decode_mask(shape: &[usize], kept: usize, bytes: &[u8]) -> Result<Mask> {
    let mut mask = Mask::from_fn(shape, |_| false)?;
    positions(&mut mask, &mut Reader::new(bytes)?)?;
    if mask.kept() != kept {
        return Err(Error::format(bytes.len(), format!("{} elements kept instead of {kept}", mask.kept())));
    }
    let mut writer = Writer::default();
    positions(&mut mask, &mut writer)?;
    check_bytes(bytes, writer)?;
    Ok(mask)
}

/// All codes of a tensor, in turn.
fn codes(bits: u8, coder: &mut impl Coder, codes: &mut [u16]) -> Result<()> {
    let mut contexts = vec![Counts::default(); 1 << bits];
    for code in codes {
        let mut above = 1usize;
        for shift in (0..bits).rev() {
            let bit = coder.code(*code >> shift & 1 == 1, &mut contexts[above])?;
            above = above << 1 | usize::from(bit);
        }
        *code = (above - (1 << bits)) as u16;
    }
    Ok(())
}

/// The codes of a tensor; `None` where the packed ones are as short, or have bits that no code has.
pub(super) fn encode_codes(q: &QTensor) -> Result<Option<Vec<u8>>> {
    let mut all = q.codes();
    let same = QTensor::from_codes(q.shape(), q.bits(), q.granularity(), q.grid().clone(), &all)?;
    if q.bits() > 8 || same.packed() != q.packed() {
        return Ok(None);
    }
    let mut writer = Writer::default();
    codes(q.bits(), &mut writer, &mut all)?;
    let bytes = writer.bytes();
    Ok((bytes.len() < q.packed().len()).then_some(bytes))
}

/// So many codes.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) when the bytes are not those of so many codes.
pub(super) fn decode_codes(len: usize, bits: u8, bytes: &[u8]) -> Result<Vec<u16>> {
    if bits > 8 {
        return Err(Error::format(0, "coded codes of more than 8 bits"));
    }
    let mut all = filled(len, 0)?;
    codes(bits, &mut Reader::new(bytes)?, &mut all)?;
    let mut writer = Writer::default();
    codes(bits, &mut writer, &mut all)?;
    check_bytes(bytes, writer)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Granularity, Grid, Values};
    use proptest::prelude::*;

    fn quantized(codes: &[u16], bits: u8) -> QTensor {
        let grid = Grid::Codebook { levels: Values::F32(vec![0.0; 1 << bits]) };
        QTensor::from_codes(&[codes.len()], bits, Granularity::Tensor, grid, codes).unwrap()
    }

    proptest! {
        #[test]
        fn positions_come_back(shape in prop::collection::vec(1usize..30, 0..4), every in 1u64..60, seed in any::<u64>()) {
            let keep = |i: usize| (i as u64).wrapping_mul(seed | 1).rotate_left(17).is_multiple_of(every);
            let mask = Mask::from_fn(&shape, keep).unwrap();
            let bytes = encode_mask(&mask).unwrap();
            prop_assert_eq!(decode_mask(&shape, mask.kept(), &bytes).unwrap(), mask.clone());
            prop_assert!(decode_mask(&shape, mask.kept() + 1, &bytes).is_err());
            prop_assert!(decode_mask(&shape, mask.kept(), &[&bytes[..], &[1, 2, 3, 4]].concat()).is_err());
        }

        #[test]
        fn codes_come_back(bits in 1u8..=8, raw in prop::collection::vec(any::<u16>(), 1..400), and in any::<u16>()) {
            let codes: Vec<u16> = raw.iter().map(|code| code & and & ((1 << bits) - 1)).collect();
            if let Some(bytes) = encode_codes(&quantized(&codes, bits)).unwrap() {
                prop_assert_eq!(decode_codes(codes.len(), bits, &bytes).unwrap(), codes);
            }
        }

        #[test]
        fn any_bytes_give_something_or_an_error(kept in 0usize..100, bits in 0u8..20, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(mask) = decode_mask(&[20, 50], kept, &bytes) {
                prop_assert_eq!(mask.kept(), kept);
            }
            if let Ok(codes) = decode_codes(77, bits, &bytes) {
                prop_assert!(codes.len() == 77 && codes.iter().all(|code| code >> bits == 0));
            }
        }
    }

    #[test]
    fn is_close_to_the_entropy_and_finds_structure() {
        let mut state = 1u64;
        let mut one_of = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33).is_multiple_of(n)
        };
        let even = Mask::from_fn(&[400, 1000], |_| one_of(20)).unwrap();
        let entropy = |p: f64| -(p * p.log2() + (1.0 - p) * (1.0 - p).log2()) / 8.0;
        let ratio = encode_mask(&even).unwrap().len() as f64 / (entropy(even.density()) * 4e5);
        assert!((0.999..1.01).contains(&ratio), "{ratio}");
        // Half of the columns have nothing.
        let halves = Mask::from_fn(&[400, 1000], |i| i % 2 == 0 && one_of(10)).unwrap();
        let ratio = encode_mask(&halves).unwrap().len() as f64 / (entropy(2.0 * halves.density()) * 2e5);
        assert!(ratio < 1.05, "{ratio}");
    }

    #[test]
    fn bits_are_counted_together() {
        let mut coded = Coded::default();
        assert!(coded.add(1 << 19, 0) && coded.add(1 << 19, 0) && !coded.add(1, 0));
        assert!(coded.add(256, 1) && !coded.add(1, 1) && !coded.add(usize::MAX, 1) && coded.add(0, 1));
        assert!(coded.add(usize::MAX, usize::MAX));
    }
}
