//! What all quantizers to codes of a width have in common.

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{Granularity, QTensor},
};

/// Bits of a code, and what shares levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) bits: u8,
    pub(super) granularity: Granularity,
}

impl Spec {
    /// One set of levels for the whole tensor; an error unless the bits are `valid`, which `needed` says.
    pub(super) fn new(bits: u8, valid: bool, needed: &'static str) -> Result<Self> {
        match valid {
            true => Ok(Self { bits, granularity: Granularity::Tensor }),
            false => Err(Error::argument("bits", bits, needed)),
        }
    }

    /// A granularity of groups of `size` elements.
    pub(super) fn grouped(self, size: usize, granularity: Granularity) -> Result<Self> {
        match size {
            0 => Err(Error::argument("group size", size, "at least 1")),
            _ => Ok(Self { granularity, ..self }),
        }
    }

    /// The code of the highest level.
    pub(super) fn top(self) -> f64 {
        f64::from((1u32 << self.bits) - 1)
    }

    /// An error unless `q` was laid out like this for `shape`, and its grid `fits` one of such a `form`.
    pub(super) fn check<T: Element>(self, shape: &[usize], q: &QTensor, fits: bool, form: &str) -> Result<()> {
        q.check_shape(shape)?;
        if fits && q.bits() == self.bits && q.granularity() == self.granularity {
            return Ok(());
        }
        let found = format!("of {} bits, {:?}, {}", q.bits(), q.granularity(), q.grid().form());
        let needed = format!("of {} bits, {:?}, {form} in {:?}", self.bits, self.granularity, T::Real::DTYPE);
        let found = format!("{found} where {needed} is needed");
        Err(Error::argument("quantized tensor", found, "laid out by this quantizer"))
    }
}

/// The methods that choose what shares levels, for a quantizer with the field `spec`.
macro_rules! granularity {
    () => {
        /// Levels for each index along `axis`, counted from 0.
        #[must_use]
        pub fn per_channel(mut self, axis: usize) -> Self {
            self.spec.granularity = crate::tensor::Granularity::Channel { axis };
            self
        }

        /// Levels for each `size` neighbours along the last axis.
        ///
        /// # Errors
        /// [`Argument`](crate::ErrorKind::Argument) when `size` is 0.
        pub fn per_group(mut self, size: usize) -> crate::Result<Self> {
            self.spec = self.spec.grouped(size, crate::tensor::Granularity::Group { size })?;
            Ok(self)
        }

        /// Levels for each `size` neighbours along `axis`, counted from 0.
        ///
        /// # Errors
        /// [`Argument`](crate::ErrorKind::Argument) when `size` is 0.
        pub fn per_block(mut self, axis: usize, size: usize) -> crate::Result<Self> {
            self.spec = self.spec.grouped(size, crate::tensor::Granularity::Block { axis, size })?;
            Ok(self)
        }

        /// Bits of a code.
        #[must_use]
        pub fn bits(&self) -> u8 {
            self.spec.bits
        }

        /// What shares levels.
        #[must_use]
        pub fn granularity(&self) -> crate::tensor::Granularity {
            self.spec.granularity
        }
    };
}
pub(super) use granularity;

/// A configuration of a quantizer with a granularity, written as `axis` and `group_size`.
macro_rules! levels_config {
    ($type:ident $needs:tt => $new:expr, $($more:tt)*) => {
        crate::config::config! {
            $type $needs => $new,
            $($more)*
            axis: Option<usize> = |it| it.granularity().axis() => |it, axis| match axis {
                Some(axis) => it.per_channel(axis),
                None => it,
            },
            group_size: Option<usize> = |it| it.granularity().group_size() => |it, size| {
                match (it.granularity().axis(), size) {
                    (_, None) => Ok(it),
                    (Some(axis), Some(size)) => it.per_block(axis, size),
                    (None, Some(size)) => it.per_group(size),
                }
            },
        }
    };
}
pub(super) use levels_config;

/// The two methods of a [`Quantizer`](crate::Quantizer) that write codes, by the quantizer's own `encode_finite`: `fit` has looked
/// for a NaN or an infinity, else `encode` does.
macro_rules! encode_checked {
    () => {
        fn encode(&self, values: crate::TensorRef<'_, T>, q: &mut crate::QTensor) -> crate::Result<()> {
            self.check::<T>(values.shape(), q)?;
            crate::tensor::qtensor::check_finite("tensor", values.as_slice())?;
            self.encode_finite(values.as_slice(), q);
            Ok(())
        }

        fn quantize_into(&self, values: crate::TensorRef<'_, T>, q: &mut crate::QTensor) -> crate::Result<()> {
            self.fit(crate::TensorRef::from(&values), q)?;
            self.encode_finite(values.as_slice(), q);
            Ok(())
        }
    };
}
pub(super) use encode_checked;
