//! What a quantized tensor consists of, without its numbers.

use crate::{
    error::{Error, Result},
    format::file::ElementType,
    tensor::{Granularity, Grid, QTensor, Scales, Values},
};
use half::{bf16, f16};

/// Bits, granularity, the kind of levels and the types of their numbers: what is to be known of a quantized tensor to say how it is
/// stored, before it is there. That of a few rows is that of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    pub(super) bits: u8,
    pub(super) granularity: Granularity,
    pub(super) grid: GridForm,
}

/// A [`Grid`] without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum GridForm {
    MinMax { ends: ElementType },
    Affine { scale: ElementType, zero_points: bool },
    Codebook { levels: ElementType },
    Scaled { levels: ElementType, scale: ElementType },
}

impl Form {
    /// The form of a quantized tensor, of one that a quantizer [laid out](crate::Quantizer::layout), or of some of its rows.
    #[must_use]
    pub fn of(q: &QTensor) -> Self {
        let grid = match q.grid() {
            Grid::MinMax { min, .. } => GridForm::MinMax { ends: of_values(min) },
            Grid::Affine { scale, zero_point } => {
                GridForm::Affine { scale: of_scales(scale), zero_points: zero_point.is_some() }
            }
            Grid::Codebook { levels } => GridForm::Codebook { levels: of_values(levels) },
            Grid::Scaled { levels, scale } => GridForm::Scaled { levels: of_values(levels), scale: of_scales(scale) },
        };
        Self { bits: q.bits(), granularity: q.granularity(), grid }
    }

    /// Keeps scales in another type, such as the model's own 16 bits. A scale that is no number of it is refused when it is written.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a type that is not `f64`, `f32`, `f16` or `bf16`, and levels without scales.
    pub fn with_scales(mut self, element: ElementType) -> Result<Self> {
        if !element.is_float() {
            return Err(Error::argument("type of scales", element, "f64, f32, f16 or bf16"));
        }
        match &mut self.grid {
            GridForm::Affine { scale, .. } | GridForm::Scaled { scale, .. } => *scale = element,
            other => return Err(Error::argument("levels", format!("{other:?}"), "with scales")),
        }
        Ok(self)
    }

    /// An error unless `q` has this form, the type of scales aside.
    pub(super) fn check(self, q: &QTensor) -> Result<()> {
        let mut found = Self::of(q);
        if let (
            GridForm::Affine { scale, .. } | GridForm::Scaled { scale, .. },
            GridForm::Affine { scale: needed, .. } | GridForm::Scaled { scale: needed, .. },
        ) = (&mut found.grid, self.grid)
        {
            *scale = needed;
        }
        if found == self {
            return Ok(());
        }
        let found = format!("{found:?} where {self:?} is needed");
        Err(Error::argument("quantized tensor", found, "of the form that was laid out"))
    }
}

fn of_values(values: &Values) -> ElementType {
    match values {
        Values::F32(_) => ElementType::F32,
        Values::F64(_) => ElementType::F64,
    }
}

fn of_scales(scales: &Scales) -> ElementType {
    match scales {
        Scales::Full(values) => of_values(values),
        Scales::F16(_) => ElementType::F16,
        Scales::E8m0(_) => ElementType::F8E8M0,
    }
}

/// Scales as bytes of a type, each exactly.
pub(super) fn scale_bytes(scales: &Scales, element: ElementType) -> Result<Vec<u8>> {
    match scales {
        Scales::E8m0(bytes) if element == ElementType::F8E8M0 => Ok(bytes.clone()),
        _ => exactly((0..scales.len()).filter_map(|index| scales.get(index)), element),
    }
}

/// Levels as bytes of their own type.
pub(super) fn value_bytes(values: &Values) -> Result<Vec<u8>> {
    exactly((0..values.len()).filter_map(|index| values.get(index)), of_values(values))
}

fn exactly(numbers: impl Iterator<Item = f64>, element: ElementType) -> Result<Vec<u8>> {
    fn all<const N: usize>(
        numbers: impl Iterator<Item = f64>,
        narrow: impl Fn(f64) -> (f64, [u8; N]),
    ) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(numbers.size_hint().1.unwrap_or(0).saturating_mul(N));
        for number in numbers {
            let (stored, number_bytes) = narrow(number);
            if stored != number {
                return Err(Error::argument("scale", number, "a number of the type it is to be stored in"));
            }
            bytes.extend(number_bytes);
        }
        Ok(bytes)
    }
    match element {
        ElementType::F64 => all(numbers, |x| (x, x.to_le_bytes())),
        ElementType::F32 => all(numbers, |x| (f64::from(x as f32), (x as f32).to_le_bytes())),
        ElementType::F16 => all(numbers, |x| (f16::from_f64(x).to_f64(), f16::from_f64(x).to_le_bytes())),
        ElementType::Bf16 => all(numbers, |x| (bf16::from_f64(x).to_f64(), bf16::from_f64(x).to_le_bytes())),
        other => Err(Error::argument("type of scales", other, "f64, f32, f16 or bf16")),
    }
}

/// Scales from their bytes; `bf16` widened.
pub(super) fn scales(bytes: &[u8], element: ElementType) -> Result<Scales> {
    fn each<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
    }
    Ok(match element {
        ElementType::F64 => Values::F64(each(bytes, f64::from_le_bytes)).into(),
        ElementType::F32 => Values::F32(each(bytes, f32::from_le_bytes)).into(),
        ElementType::Bf16 => Values::F32(each(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())).into(),
        ElementType::F16 => Scales::F16(each(bytes, f16::from_le_bytes)),
        ElementType::F8E8M0 => Scales::E8m0(bytes.to_vec()),
        other => return Err(Error::format(0, format!("scales of type {other}"))),
    })
}

/// Levels from their bytes.
pub(super) fn values(bytes: &[u8], element: ElementType) -> Result<Values> {
    match (element, scales(bytes, element)?) {
        (ElementType::F32 | ElementType::F64, Scales::Full(values)) => Ok(values),
        _ => Err(Error::format(0, format!("levels of type {element}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind, QuantizerExt,
        quant::{MinMax, Symmetric},
    };

    #[test]
    fn scales_in_another_type_are_exact_or_refused() {
        let exact: Scales = Values::F32(vec![0.5, 1.5]).into();
        for element in [ElementType::F64, ElementType::F16, ElementType::Bf16] {
            let back = scales(&scale_bytes(&exact, element).unwrap(), element).unwrap();
            assert_eq!((back.get(0), back.get(1)), (Some(0.5), Some(1.5)));
        }
        let third: Scales = Values::F32(vec![1.0 / 3.0]).into();
        assert_eq!(scale_bytes(&third, ElementType::Bf16).unwrap_err().kind(), ErrorKind::Argument);
        assert!(scale_bytes(&third, ElementType::F8E8M0).is_err() && scale_bytes(&third, ElementType::F32).is_ok());
        let q = Symmetric::new(4).unwrap().quantize(&[1.0f32, 2.0]).unwrap();
        let form = Form::of(&q).with_scales(ElementType::Bf16).unwrap();
        form.check(&q).unwrap();
        assert!(form.with_scales(ElementType::I8).is_err());
        let ranges = MinMax::new(4).unwrap().quantize(&[1.0f32, 2.0]).unwrap();
        assert!(form.check(&ranges).is_err() && Form::of(&ranges).with_scales(ElementType::F16).is_err());
    }
}
