//! A tensor of a state dict, its numbers widened.

use crate::{
    error::{Error, Result},
    tensor::Values,
};
use half::{bf16, f16};

/// Numbers and their shape.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    values: Values,
}

/// The types of numbers that state dicts hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    F32,
    F64,
    F16,
    Bf16,
    I32,
    I64,
}

impl Array {
    /// From little-endian bytes, as many as shape and kind say.
    pub(super) fn new(shape: Vec<usize>, kind: Kind, bytes: &[u8]) -> Self {
        fn each<T, V, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T, to: impl Fn(T) -> V) -> Vec<V> {
            bytes.as_chunks::<N>().0.iter().map(|bytes| to(from(*bytes))).collect()
        }
        let values = match kind {
            Kind::F32 => Values::F32(each(bytes, f32::from_le_bytes, |x| x)),
            Kind::F64 => Values::F64(each(bytes, f64::from_le_bytes, |x| x)),
            Kind::F16 => Values::F32(each(bytes, f16::from_le_bytes, f16::to_f32)),
            Kind::Bf16 => Values::F32(each(bytes, bf16::from_le_bytes, bf16::to_f32)),
            Kind::I32 => Values::F64(each(bytes, i32::from_le_bytes, f64::from)),
            Kind::I64 => Values::F64(each(bytes, i64::from_le_bytes, |x| x as f64)),
        };
        Self { shape, values }
    }

    /// Plain numbers of Python.
    #[cfg(feature = "pytorch")]
    pub(super) fn plain(shape: Vec<usize>, values: Vec<f64>) -> Self {
        Self { shape, values: Values::F64(values) }
    }

    /// All numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        (0..self.values.len()).filter_map(|index| self.values.get(index))
    }

    /// The number, where there is only one.
    pub(super) fn number(&self) -> Option<f64> {
        self.values.get(0).filter(|_| self.values.len() == 1)
    }

    /// Whether it has a shape, axes of one aside: PyTorch's Adafactor keeps them.
    pub(super) fn has_shape(&self, shape: &[usize]) -> bool {
        let long = |shape: &[usize]| shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
        long(&self.shape) == long(shape)
    }
}

/// A count of steps, or an index.
pub(super) fn count(value: f64) -> Result<u64> {
    match value as u64 {
        count if count as f64 == value && count <= 1 << 53 => Ok(count),
        _ => Err(Error::format(0, format!("{value:?} is no count"))),
    }
}
