//! The packed model file: pruned and quantized tensors, positions and all, in as few bytes as they need.
//!
//! ```text
//! "LPDY" version=1, or 2 where something is coded
//! count of tensors
//! each: name, rank, sizes,
//!       density    0: every element is stored; 1: only those kept, in order
//!                  1 is followed by: count kept, Rice parameter, count of bytes, bytes of gaps
//!                  2 (version 2): as 1, but followed by: count kept, count of bytes, coded positions
//!       encoding   0 f32, 1 f64, 2 f16, 3 bf16: little-endian numbers
//!                  4: quantized, followed by bits, granularity (0 | 1, axis | 2, group size | 3, axis, size),
//!                     grid (0 min-max: minima, then maxima | 1 codebook: levels | 2 symmetric: scales |
//!                     3 affine: scales, then the zero points, a byte each, or two of 16-bit codes |
//!                     4 scaled: 2^bits levels, then scales), packed codes;
//!                  5 (version 2): as 4, but the codes are coded, behind a count of bytes
//!                     each list of a grid: type (0 f32, 1 f64; scales also 2 f16, 3 E8M0), numbers
//! last      CRC-32 of all before it, 4 bytes, little-endian
//! ```
//!
//! Counts and sizes are LEB128; names are UTF-8 behind their length, each another one. Kept elements are stored as a tensor of one
//! axis. So that few bytes do not ask for much memory or time, sparse tensors of a file have no more elements together than 2²⁸ or
//! than 256 for each byte before the CRC-32; and of coded bits (one for each element of coded positions, as many for each coded code as
//! it has) there are no more than 2²⁰ and 256 for each byte before the CRC-32.
//!
//! Coded positions and codes (feature `entropy`) are words of a range coder, 32 bits, little-endian. A bit is 1 with the probability
//! `(2 ones + 1) / (2 (ones + zeros) + 2)` of those before it in its context, in 1/65,536, rounded down but at least 1; counts are
//! halved when one reaches 2²⁰. Contexts are
//!
//! ```text
//! positions   an element kept or not, in logical order, as rows of the first axis (one row, where there is one axis or none):
//!               min(15, floor(2 log2((5 r + 10) / (5 k + 2))))   k of the r rows above keep this column
//!               min(7, floor(log2((5 c + 20) / (5 n + 2))))      n of the c columns before are kept in this row
//!             both logarithms of the ratio cut to 16 bits after the point, and 0 below 1
//! codes       bit by bit, the highest first: the bits above it
//! ```

#[cfg(feature = "entropy")]
mod entropy;
mod gaps;
mod read;
mod write;

pub use read::decode;
pub use write::encode;
#[cfg(feature = "entropy")]
pub use write::encode_smallest;

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{Mask, QTensor, view::checked_volume},
};
use half::{bf16, f16};
use std::{io::Write, path::Path};

const MAGIC: &[u8] = b"LPDY\x01";
/// The version of files with coded positions or codes.
const CODED: u8 = 2;

/// Numbers as they are stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Stored {
    /// As 32-bit numbers.
    F32(Vec<f32>),
    /// As 64-bit numbers.
    F64(Vec<f64>),
    /// As 16-bit numbers.
    F16(Vec<f16>),
    /// As the upper halves of 32-bit numbers.
    Bf16(Vec<bf16>),
    /// As codes.
    Quantized(QTensor),
}

impl Stored {
    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Quantized(q) => q.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers as `T`, rounded once where it is narrower; beyond its range they become infinite.
    #[must_use]
    pub fn to_vec<T: Element>(&self) -> Vec<T> {
        fn convert<S: Element, T: Element>(values: &[S]) -> Vec<T> {
            values.iter().map(|x| T::from_f64(x.to_f64())).collect()
        }
        match self {
            Self::F32(values) => convert(values),
            Self::F64(values) => convert(values),
            Self::F16(values) => convert(values),
            Self::Bf16(values) => convert(values),
            Self::Quantized(q) => q.dequantize(),
        }
    }
}

/// A named tensor of a packed file.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    name: String,
    shape: Vec<usize>,
    mask: Option<Mask>,
    stored: Stored,
}

impl Packed {
    /// A tensor of which every element is stored.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many numbers as the shape says, or the quantized
    /// tensor has another shape.
    pub fn dense(name: impl Into<String>, shape: &[usize], stored: Stored) -> Result<Self> {
        let packed = Self { name: name.into(), shape: shape.into(), mask: None, stored };
        packed.check()?;
        Ok(packed)
    }

    /// A tensor of which only the elements that a mask keeps are stored, in logical order
    /// ([`Mask::gather`]); quantized ones have one axis. The rest is 0.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many numbers as the mask keeps.
    pub fn sparse(name: impl Into<String>, mask: Mask, kept: Stored) -> Result<Self> {
        let packed = Self { name: name.into(), shape: mask.shape().into(), mask: Some(mask), stored: kept };
        packed.check()?;
        Ok(packed)
    }

    fn check(&self) -> Result<()> {
        let flat = self.mask.as_ref().map(|mask| [mask.kept()]);
        let expected = flat.as_ref().map_or(&self.shape[..], |flat| flat);
        let fits = match &self.stored {
            Stored::Quantized(q) => q.shape() == expected,
            numbers => checked_volume(expected)? == numbers.len(),
        };
        let found = match &self.stored {
            Stored::Quantized(q) => q.shape().to_vec(),
            numbers => vec![numbers.len()],
        };
        if fits { Ok(()) } else { Err(Error::shape("stored tensor", expected, &found).in_tensor(&self.name)) }
    }

    /// The tensor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Which elements are stored, if not all.
    #[must_use]
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// The numbers stored.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// All elements in logical order, pruned ones 0.
    ///
    /// # Errors
    /// None in a tensor that [`dense`](Packed::dense), [`sparse`](Packed::sparse) or [`decode`] made.
    pub fn to_dense<T: Element>(&self) -> Result<Vec<T>> {
        let kept = self.stored.to_vec();
        let Some(mask) = &self.mask else { return Ok(kept) };
        let mut values = vec![T::default(); mask.len()];
        mask.scatter(&kept, crate::TensorMut::new(&mut values, &self.shape)?)?;
        Ok(values)
    }
}
/// Elements that sparse tensors may have together in a file of so many bytes: a few bytes can claim a tensor of any size
/// whose elements are all pruned, and memory must not follow them.
fn max_sparse(bytes: usize) -> usize {
    bytes.saturating_mul(256).max(1 << 28)
}

/// Writes a packed file: first beside it, synced, then renamed, so that there is never half a file.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when that fails, and as [`encode`]; the file is then as it was.
pub fn save(path: impl AsRef<Path>, tensors: &[Packed]) -> Result<()> {
    let bytes = encode(tensors)?;
    super::write_atomically(path.as_ref(), |file| file.write_all(&bytes))
}

/// As [`save`], by [`encode_smallest`].
///
/// # Errors
/// As [`save`].
#[cfg(feature = "entropy")]
pub fn save_smallest(path: impl AsRef<Path>, tensors: &[Packed]) -> Result<()> {
    let bytes = encode_smallest(tensors)?;
    super::write_atomically(path.as_ref(), |file| file.write_all(&bytes))
}

/// Reads a packed file.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when it cannot be read, and as [`decode`].
pub fn load(path: impl AsRef<Path>) -> Result<Vec<Packed>> {
    let path = path.as_ref();
    decode(&std::fs::read(path).map_err(|error| Error::io(path, error))?)
}

#[cfg(test)]
mod tests {
    use super::{
        read::parse,
        write::{put_bytes, put_count},
        *,
    };
    use crate::{
        ErrorKind, Granularity, Grid, QuantizerExt, Scales, TensorRef, Values,
        quant::{Affine, MinMax, Symmetric},
    };
    use proptest::prelude::*;

    fn sample() -> Vec<Packed> {
        let x: Vec<f32> = (0..60).map(|i| (i as f32).sin()).collect();
        let tensor = TensorRef::new(&x, &[5, 12]).unwrap();
        let mask = Mask::from_fn(&[5, 12], |i| i % 7 == 3).unwrap();
        let kept = mask.gather(&tensor).unwrap();
        let quantized = |name, quantizer: &dyn crate::Quantizer<f32>| {
            Packed::dense(name, &[5, 12], Stored::Quantized(quantizer.quantize(&tensor).unwrap())).unwrap()
        };
        let scaled = |name, scale| {
            let grid = Grid::Scaled { levels: Values::F32(vec![-1.0, 0.0, 0.5, 1.0]), scale };
            let q = QTensor::new(&[5], 2, Granularity::Group { size: 3 }, grid, vec![0b10_01_11, 0]).unwrap();
            Packed::dense(name, &[5], Stored::Quantized(q)).unwrap()
        };
        let columns = Mask::from_fn(&[30, 20], |i| i % 20 < 2 && i % 9 > 0).unwrap();
        let uneven: Vec<u8> = (0..columns.kept()).map(|i| if i % 11 == 0 { 2 } else { 1 }).collect();
        let levels = Grid::Codebook { levels: Values::F64(vec![-1.0, 0.0, 1.0, 2.0]) };
        let uneven = QTensor::from_codes(&[uneven.len()], 2, Granularity::Tensor, levels.clone(), &uneven).unwrap();
        let codebook = levels;
        vec![
            Packed::dense("a", &[5, 12], Stored::F32(x.clone())).unwrap(),
            Packed::dense("é", &[2], Stored::F16(vec![f16::ONE, f16::MIN])).unwrap(),
            Packed::dense("", &[], Stored::Bf16(vec![bf16::PI])).unwrap(),
            Packed::dense("none", &[3, 0], Stored::F64(vec![])).unwrap(),
            quantized("affine", &Affine::new(4).unwrap().per_channel(1)),
            quantized("symmetric", &Symmetric::new(8).unwrap()),
            quantized("q", &MinMax::new(3).unwrap().per_group(5).unwrap()),
            quantized("c", &MinMax::new(8).unwrap().per_channel(1)),
            quantized("wide", &Affine::new(16).unwrap().per_block(0, 2).unwrap()),
            scaled("f16", Scales::F16(vec![f16::ONE, f16::PI])),
            scaled("e8m0", Scales::E8m0(vec![0, 254])),
            Packed::dense(
                "b",
                &[3],
                Stored::Quantized(QTensor::new(&[3], 2, Granularity::Tensor, codebook, vec![0b10_01_11]).unwrap()),
            )
            .unwrap(),
            Packed::sparse("s", mask.clone(), Stored::Quantized(MinMax::new(4).unwrap().quantize(&kept).unwrap()))
                .unwrap(),
            Packed::sparse("f", mask, Stored::F32(kept)).unwrap(),
            Packed::sparse("0", Mask::from_fn(&[9], |_| false).unwrap(), Stored::F32(vec![])).unwrap(),
            // Large and one-sided enough for coding to pay.
            Packed::sparse("columns", columns, Stored::Quantized(uneven)).unwrap(),
        ]
    }

    /// The sample in each way to write it.
    fn files() -> Vec<Vec<u8>> {
        let plain = encode(&sample()).unwrap();
        #[cfg(feature = "entropy")]
        return vec![plain, encode_smallest(&sample()).unwrap()];
        #[cfg(not(feature = "entropy"))]
        vec![plain]
    }

    /// What is large enough for coding to pay is in the sample.
    #[cfg(feature = "entropy")]
    #[test]
    fn coded_parts_are_of_another_version() {
        let (plain, coded) = (files().remove(0), files().remove(1));
        assert_eq!((plain[4], coded[4], coded.len() < plain.len()), (1, CODED, true));
        let mut mixed = coded[..coded.len() - 4].to_vec();
        mixed[4] = 1;
        assert_eq!(parse(&mixed).unwrap_err().kind(), ErrorKind::Format);
        assert_eq!(encode_smallest(&[]).unwrap(), encode(&[]).unwrap());
    }

    #[cfg(not(feature = "entropy"))]
    #[test]
    fn coded_parts_take_a_feature() {
        let error = decode(b"LPDY\x02").unwrap_err();
        assert!(error.to_string().contains("feature"), "{error}");
    }

    #[test]
    fn what_is_written_is_read() {
        let tensors = sample();
        for bytes in files() {
            assert_eq!(decode(&bytes).unwrap(), tensors);
        }
        assert_eq!(decode(&encode(&[]).unwrap()).unwrap(), []);
        let dense = tensors[13].to_dense::<f32>().unwrap();
        assert!(dense.iter().enumerate().all(|(i, &x)| x == if i % 7 == 3 { (i as f32).sin() } else { 0.0 }));
    }

    #[test]
    fn a_file_cut_short_or_longer_is_refused() {
        for bytes in files() {
            for end in 0..bytes.len() {
                assert!(decode(&bytes[..end]).is_err(), "{end}");
            }
            let error = decode(&[&bytes[..], &[0]].concat()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format);
            let error = parse(&[&bytes[..bytes.len() - 4], &[0]].concat()).unwrap_err();
            assert_eq!((error.kind(), error.index()), (ErrorKind::Format, Some(bytes.len() - 4)));
        }
    }

    #[test]
    fn any_damaged_byte_is_noticed() {
        for bytes in files() {
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert_eq!(decode(&damaged).unwrap_err().kind(), ErrorKind::Format, "{at}");
            }
        }
    }

    #[test]
    fn no_two_tensors_have_one_name() {
        let named = |name: &str| Packed::dense(name, &[1], Stored::F32(vec![1.0])).unwrap();
        assert_eq!(encode(&[named("a"), named("b"), named("a")]).unwrap_err().kind(), ErrorKind::Argument);
        let bytes = encode(&[named("a"), named("b")]).unwrap();
        let mut twice = bytes[..bytes.len() - 4].to_vec();
        let at = twice.iter().position(|&byte| byte == b'b').unwrap();
        twice[at] = b'a';
        let error = parse(&twice).unwrap_err();
        assert_eq!((error.kind(), error.index(), error.tensor()), (ErrorKind::Format, Some(at + 1), Some("a")));
    }

    /// Of codes that are all alike, a tensor: a few bytes for many.
    #[cfg(feature = "entropy")]
    fn alike(name: &str, len: usize, bits: u8) -> Packed {
        let grid = Grid::Codebook { levels: Values::F32(vec![0.0; 1 << bits]) };
        let q = QTensor::from_codes(&[len], bits, Granularity::Tensor, grid, &vec![0u8; len]).unwrap();
        Packed::dense(name, &[len], Stored::Quantized(q)).unwrap()
    }

    #[cfg(feature = "entropy")]
    #[test]
    fn few_bytes_do_not_ask_for_much_work() {
        // A hostile writer's: tensors of 65,536 coded codes, and of as many coded positions.
        let tensor = alike("w", 1 << 16, 1);
        let Stored::Quantized(q) = tensor.stored() else { unreachable!() };
        let codes = entropy::encode_codes(q).unwrap().unwrap();
        let none = Mask::from_fn(&[1 << 16], |_| false).unwrap();
        let positions = entropy::encode_mask(&none).unwrap();
        let file = |tensors: usize| {
            let mut out = MAGIC.to_vec();
            out[4] = CODED;
            put_count(&mut out, tensors);
            for i in 0..tensors {
                put_bytes(&mut out, format!("{i}").as_bytes());
                put_count(&mut out, 1);
                put_count(&mut out, 1 << 16);
                if i % 2 == 0 {
                    // Of one bit, one grid for all: a codebook.
                    out.extend([0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                    put_bytes(&mut out, &codes);
                } else {
                    out.push(2);
                    put_count(&mut out, 0);
                    put_bytes(&mut out, &positions);
                    out.push(0);
                }
            }
            out
        };
        assert_eq!(parse(&file(16)).unwrap().len(), 16);
        let error = parse(&file(200)).unwrap_err();
        assert!(error.to_string().contains("too many coded bits"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Format);

        // What is written is read, whatever of it could be coded: the first 2^20 bits are, then what is worth it.
        let tensors: Vec<Packed> = (0..100).map(|i| alike(&format!("{i}"), 1 << 16, 1)).collect();
        let coded = encode_smallest(&tensors).unwrap();
        assert_eq!(decode(&coded).unwrap(), tensors);
        assert!(coded.len() < encode(&tensors).unwrap().len() - 16 * 8000);
        let none = |i: usize| {
            let mask = Mask::from_fn(&[1 << 18], |at| at % 1024 == i).unwrap();
            Packed::sparse(format!("{i}"), mask, Stored::Bf16(vec![bf16::ONE; 256])).unwrap()
        };
        let tensors: Vec<Packed> = (0..12).map(none).collect();
        let coded = encode_smallest(&tensors).unwrap();
        assert_eq!(decode(&coded).unwrap(), tensors);
    }

    #[test]
    fn absurd_sizes_are_refused_before_anything_is_allocated() {
        let header = |shape: &[usize]| {
            let mut out = MAGIC.to_vec();
            put_count(&mut out, 1);
            put_bytes(&mut out, b"w");
            put_count(&mut out, shape.len());
            shape.iter().for_each(|&n| put_count(&mut out, n));
            out
        };
        // Codes of 16 bits are more bytes than elements.
        assert!(parse(&[header(&[1 << 63]), vec![0, 4, 16, 0, 2, 0, 0, 0, 0x80, 0x3f]].concat()).is_err());
        for shape in [&[usize::MAX, usize::MAX][..], &[1 << 40], &[1 << 28, 2]] {
            assert!(parse(&[header(shape), vec![1, 0, 0, 0, 0]].concat()).is_err());
        }
        let bit = Mask::from_fn(&[1 << 28], |i| i == 7).unwrap();
        let tensor = |name| Packed::sparse(name, bit.clone(), Stored::F32(vec![1.0])).unwrap();
        assert_eq!(decode(&encode(&[tensor("a")]).unwrap()).unwrap(), [tensor("a")]);
        assert_eq!(encode(&[tensor("a"), tensor("b")]).unwrap_err().kind(), ErrorKind::Argument);
        let mut many = MAGIC.to_vec();
        put_count(&mut many, usize::MAX);
        assert!(parse(&many).is_err());
        let mut rank = MAGIC.to_vec();
        rank.extend([1, 0]);
        put_count(&mut rank, usize::MAX);
        assert!(parse(&rank).is_err());
        let long_count = [MAGIC, &[0xff; 10]].concat();
        assert!(parse(&long_count).is_err());
        assert!(Packed::dense("x", &[2], Stored::F32(vec![1.0])).is_err());
        assert!(Packed::sparse("x", Mask::keep_all(&[2]).unwrap(), Stored::F32(vec![1.0])).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damaged_bytes_are_an_error_or_a_model(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            // Past the checksum, as a hostile writer would be.
            for mut bytes in files() {
                bytes.truncate(bytes.len() - 4);
                let at = at.index(bytes.len() - MAGIC.len()) + MAGIC.len();
                bytes[at] = byte;
                if let Ok(tensors) = parse(&bytes) {
                    for tensor in tensors {
                        tensor.to_dense::<f32>().unwrap();
                    }
                }
                let end = cut.index(bytes.len());
                prop_assert!(end < MAGIC.len() || parse(&bytes[..end]).is_err() || end == bytes.len());
            }
        }
    }
}
