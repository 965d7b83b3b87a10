//! Scales and zero points of a tensor.

use crate::{
    error::{Error, Result},
    format::file::{ElementType, TensorInfo},
    tensor::{Granularity, Grid, QTensor, Scales, Values},
};

/// How the integers of a tensor stand for real numbers: `real = (integer - zero_point) * scale`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Quantization {
    /// One scale, or one for each index along the axis.
    pub scales: Vec<f32>,
    /// As many zero points, or none, or one for all.
    pub zero_points: Vec<i64>,
    /// The axis of several scales.
    pub axis: usize,
}

impl Quantization {
    /// The tensor of these bytes. Signed integers become codes by half their range more, and so do zero points.
    pub(super) fn apply(&self, info: &TensorInfo, bytes: &[u8]) -> Result<QTensor> {
        let (bits, signed) = match info.element {
            ElementType::I8 => (8u8, true),
            ElementType::U8 => (8, false),
            ElementType::I4 => (4, true),
            ElementType::I2 => (2, true),
            other => return Err(Error::argument("element type", other, "i8, u8, i4 or i2")),
        };
        let half = if signed { 1i64 << (bits - 1) } else { 0 };
        let code = |zero: &i64| {
            let code = zero.checked_add(half).and_then(|code| u16::try_from(code).ok());
            code.ok_or_else(|| Error::argument("zero point", zero, "an integer of the tensor's type"))
        };
        let mut zeros = self.zero_points.iter().map(code).collect::<Result<Vec<_>>>()?;
        match zeros[..] {
            [] => zeros = vec![half as u16; self.scales.len()],
            [zero] => zeros = vec![zero; self.scales.len()],
            _ => {}
        }
        let granularity = match self.scales.len() {
            1 => Granularity::Tensor,
            _ => Granularity::Channel { axis: self.axis },
        };
        let grid = Grid::Affine { scale: Scales::Full(Values::F32(self.scales.clone())), zero_point: Some(zeros) };
        // The first number lowest in its byte; a row of the file may begin within one.
        let (len, in_byte) = (info.volume()?, usize::from(8 / bits));
        let number = |i: usize| {
            let byte = bytes.get(i / in_byte).copied().unwrap_or(0);
            let number = u16::from(byte >> (i % in_byte * usize::from(bits))) & ((1 << bits) - 1);
            // Two's complement and half the range more: the highest bit is the other one.
            number ^ half as u16
        };
        QTensor::from_codes(&info.shape, bits, granularity, grid, &(0..len).map(number).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_4_and_8_bits_become_codes() {
        let info = |element, shape: &[usize]| TensorInfo { name: "w".into(), element, shape: shape.into() };
        let channels = Quantization { scales: vec![0.5, 2.0], zero_points: vec![0, -1], axis: 0 };
        // [[1, -8, 7], [-1, 2, 0]]
        let q = channels.apply(&info(ElementType::I4, &[2, 3]), &[0x81, 0xf7, 0x02]).unwrap();
        assert_eq!(q.dequantize::<f32>(), [0.5, -4.0, 3.5, 0.0, 6.0, 2.0]);
        let one = Quantization { scales: vec![0.25], zero_points: vec![], axis: 0 };
        let q = one.apply(&info(ElementType::I8, &[3]), &[0x80, 0x7f, 0xff]).unwrap();
        assert_eq!(q.dequantize::<f32>(), [-32.0, 31.75, -0.25]);
        let one = Quantization { scales: vec![0.25], zero_points: vec![128], axis: 0 };
        let q = one.apply(&info(ElementType::U8, &[2]), &[0, 255]).unwrap();
        assert_eq!(q.dequantize::<f32>(), [-32.0, 31.75]);
        let wrong = |zero, scales: &[f32], element| {
            Quantization { scales: scales.into(), zero_points: vec![zero], axis: 3 }
                .apply(&info(element, &[2]), &[0; 2])
        };
        assert!(wrong(i64::MAX, &[1.0], ElementType::I8).is_err());
        assert!(wrong(-129, &[1.0], ElementType::I8).is_err());
        assert!(wrong(0, &[-1.0], ElementType::I8).is_err());
        assert!(wrong(0, &[1.0, 1.0], ElementType::I8).is_err());
        assert!(wrong(0, &[1.0], ElementType::I32).is_err());
    }
}
