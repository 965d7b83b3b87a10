//! One scale for each group of a quantized tensor, in the type its format keeps.

use super::values::Values;
use crate::{element::Real, kernel::grid::Numbers};
use half::f16;

/// The scales of a quantized tensor's groups.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Scales {
    /// In the arithmetic of the tensor, as this crate's quantizers fit them.
    Full(Values),
    /// 16-bit numbers, as GGUF's blocks have them.
    F16(Vec<f16>),
    /// Powers of two in a byte each, `2^(byte - 127)`, as the MX formats have them (E8M0; 255 is no number).
    E8m0(Vec<u8>),
}

impl From<Values> for Scales {
    fn from(values: Values) -> Self {
        Self::Full(values)
    }
}

impl Scales {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Full(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::E8m0(bytes) => bytes.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The scale at an index, widened; `None` past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<f64> {
        (index < self.len()).then(|| self.numbers().get(index))
    }

    /// As a slice, when they are kept in `R`.
    #[must_use]
    pub fn as_slice<R: Real>(&self) -> Option<&[R]> {
        match self {
            Self::Full(values) => values.as_slice(),
            _ => None,
        }
    }

    /// As a slice to change, when they are kept in `R`.
    pub(crate) fn as_mut_slice<R: Real>(&mut self) -> Option<&mut [R]> {
        match self {
            Self::Full(values) => values.as_mut_slice(),
            _ => None,
        }
    }

    /// Bytes they take.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        match self {
            Self::Full(values) => values.byte_size(),
            Self::F16(values) => 2 * values.len(),
            Self::E8m0(bytes) => bytes.len(),
        }
    }

    /// What they are kept as, for messages.
    pub(crate) fn form(&self) -> String {
        match self {
            Self::Full(values) => format!("{:?}", values.dtype()),
            Self::F16(_) => "F16".into(),
            Self::E8m0(_) => "E8M0".into(),
        }
    }

    pub(crate) fn numbers(&self) -> Numbers<'_> {
        match self {
            Self::Full(values) => values.numbers(),
            Self::F16(values) => Numbers::F16(values),
            Self::E8m0(bytes) => Numbers::E8m0(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_gives_its_numbers() {
        let scales = Scales::E8m0(vec![0, 1, 127, 254]);
        let powers: Vec<_> = (0..5).map(|i| scales.get(i)).collect();
        assert_eq!(
            powers,
            [-127, -126, 0, 127].map(|e| Some(2f64.powi(e))).into_iter().chain([None]).collect::<Vec<_>>()
        );
        let scales = Scales::F16(vec![f16::from_f32(0.1); 3]);
        assert_eq!((scales.get(2), scales.byte_size(), scales.as_slice::<f32>()), (Some(0.0999755859375), 6, None));
        assert_eq!(Scales::from(Values::F32(vec![2.0])).as_slice::<f32>(), Some(&[2.0f32][..]));
    }
}
