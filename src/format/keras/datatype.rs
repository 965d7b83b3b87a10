//! HDF5's types of numbers as this crate's.

use crate::format::file::ElementType;
use hdf5_reader::{ByteOrder, Datatype};

/// Offset, bits, then place and bits of the exponent, place and bits of the mantissa, and the exponent's bias, as a file describes a
/// floating-point number.
const FLOATS: [([u8; 12], ElementType); 4] = [
    ([0, 0, 16, 0, 10, 5, 0, 10, 15, 0, 0, 0], ElementType::F16),
    ([0, 0, 16, 0, 7, 8, 0, 7, 127, 0, 0, 0], ElementType::Bf16),
    ([0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0], ElementType::F32),
    ([0, 0, 64, 0, 52, 11, 0, 52, 255, 3, 0, 0], ElementType::F64),
];
/// What comes before them: class, flags, size.
const HEAD: usize = 8;

/// The type of elements and whether they are big-endian, of a type and how the file writes it.
pub(super) fn element(datatype: &Datatype, raw: &[u8]) -> Option<(ElementType, bool)> {
    let (element, order) = match datatype {
        Datatype::FloatingPoint { byte_order, .. } => {
            let parts = raw.get(HEAD..)?.first_chunk()?;
            (FLOATS.iter().find(|(known, _)| known == parts)?.1, byte_order)
        }
        Datatype::FixedPoint { size, signed, byte_order } => {
            // All of the bits, from the lowest on.
            if raw.get(HEAD..HEAD + 4)? != [0, 0, size.checked_mul(8)?, 0] {
                return None;
            }
            let element = match (size, signed) {
                (1, true) => ElementType::I8,
                (2, true) => ElementType::I16,
                (4, true) => ElementType::I32,
                (8, true) => ElementType::I64,
                (1, false) => ElementType::U8,
                (2, false) => ElementType::U16,
                (4, false) => ElementType::U32,
                (8, false) => ElementType::U64,
                _ => return None,
            };
            (element, byte_order)
        }
        // As h5py has NumPy's truth values.
        Datatype::Enum { base, members } => match **base {
            Datatype::FixedPoint { size: 1, .. }
                if members.iter().map(|member| &*member.name).eq(["FALSE", "TRUE"]) =>
            {
                return Some((ElementType::Bool, false));
            }
            _ => return None,
        },
        _ => return None,
    };
    Some((element, matches!(order, ByteOrder::BigEndian)))
}
