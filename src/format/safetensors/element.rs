//! The names that safetensors has for element types.

use crate::{
    error::{Error, Result},
    format::file::ElementType,
};
use safetensors::Dtype;

/// Each type of the format, and what it is here.
const TYPES: &[(Dtype, ElementType)] = &[
    (Dtype::BOOL, ElementType::Bool),
    (Dtype::F4, ElementType::F4E2M1),
    (Dtype::F6_E2M3, ElementType::F6E2M3),
    (Dtype::F6_E3M2, ElementType::F6E3M2),
    (Dtype::U8, ElementType::U8),
    (Dtype::I8, ElementType::I8),
    (Dtype::F8_E5M2, ElementType::F8E5M2),
    (Dtype::F8_E4M3, ElementType::F8E4M3),
    (Dtype::F8_E8M0, ElementType::F8E8M0),
    (Dtype::F8_E4M3FNUZ, ElementType::F8E4M3Fnuz),
    (Dtype::F8_E5M2FNUZ, ElementType::F8E5M2Fnuz),
    (Dtype::I16, ElementType::I16),
    (Dtype::U16, ElementType::U16),
    (Dtype::F16, ElementType::F16),
    (Dtype::BF16, ElementType::Bf16),
    (Dtype::I32, ElementType::I32),
    (Dtype::U32, ElementType::U32),
    (Dtype::F32, ElementType::F32),
    (Dtype::C64, ElementType::C64),
    (Dtype::F64, ElementType::F64),
    (Dtype::I64, ElementType::I64),
    (Dtype::U64, ElementType::U64),
];

/// What a type of the format is here.
pub(super) fn element(dtype: Dtype) -> Option<ElementType> {
    TYPES.iter().find(|(known, _)| *known == dtype).map(|(_, element)| *element)
}

/// The format's type of these elements.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for those it has none for, saying what to store instead.
pub(super) fn dtype(element: ElementType) -> Result<Dtype> {
    let known = TYPES.iter().find(|(_, known)| *known == element);
    let allowed = match element {
        ElementType::I4 | ElementType::U4 | ElementType::I2 | ElementType::U2 => {
            "one that safetensors has: store packed codes as u8, as `Convention::Lapidary` does, or as i32, as \
             `Convention::PackQuantized` does"
        }
        ElementType::C128 => "one that safetensors has: store real and imaginary parts as f64, in a last axis of 2",
        ElementType::Text => "one that safetensors has: store texts in the metadata",
        _ => "one that safetensors has",
    };
    known.map(|(dtype, _)| *dtype).ok_or_else(|| Error::argument("element type", element, allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_as_wide_as_the_format_has_them_and_in_its_order() {
        for (dtype, element) in TYPES {
            assert_eq!(element.bits(), Some(dtype.bitsize()), "{element}");
        }
        assert!(TYPES.is_sorted_by_key(|(dtype, _)| *dtype));
        for (element, word) in [(ElementType::I4, "packed"), (ElementType::C128, "real"), (ElementType::Text, "texts")]
        {
            assert!(dtype(element).unwrap_err().to_string().contains(word), "{element}");
        }
    }
}
