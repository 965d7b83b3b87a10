//! Quantized tensors as tensors of safetensors files.

mod form;
mod parts;
mod read;

pub use form::Form;
pub use parts::{Part, Parts};
pub use read::Quantized;

use crate::{
    error::{Error, Result},
    tensor::Granularity,
};
use form::GridForm;

/// How a quantized tensor is kept as tensors of a file; the [module](super) has the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Convention {
    /// This crate's own: any [`QTensor`](crate::QTensor), and exactly it.
    Lapidary,
    /// `pack-quantized` of compressed-tensors: matrices in 4 or 8 bits.
    PackQuantized,
    /// `int-quantized` of compressed-tensors: matrices in `i8`.
    IntQuantized,
    /// Symmetric `i8` with a scale for each index along the first axis, as `fracast` has it.
    PerChannelInt8,
}

/// What a tensor of a file holds of a quantized one, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Packed codes as a [`QTensor`](crate::QTensor) has them.
    Codes,
    /// Packed codes, each row filled up to 32-bit words.
    Words,
    /// Codes less 128.
    Signed,
    Scales,
    /// As many bytes a zero point as a code has.
    Zeros,
    /// Less 128.
    SignedZeros,
    /// Packed along the first axis, in 32-bit words.
    WordZeros,
    Minima,
    Maxima,
    Levels,
    Shape,
}

impl Convention {
    /// What follows a tensor's name in the name of the one of this role.
    fn ending(self, role: Role) -> &'static str {
        let underscore = matches!(self, Self::PackQuantized | Self::IntQuantized);
        match role {
            Role::Codes => ".codes",
            Role::Words => "_packed",
            Role::Signed if underscore => "",
            Role::Signed => ".qweight",
            Role::Scales if underscore => "_scale",
            Role::Scales if self == Self::PerChannelInt8 => ".scale",
            Role::Scales => ".scales",
            Role::Zeros => ".zero_points",
            Role::SignedZeros | Role::WordZeros => "_zero_point",
            Role::Minima => ".minima",
            Role::Maxima => ".maxima",
            Role::Levels => ".levels",
            Role::Shape => "_shape",
        }
    }

    /// All roles that it may have.
    fn roles(self) -> &'static [Role] {
        match self {
            Self::Lapidary => &[Role::Codes, Role::Scales, Role::Zeros, Role::Minima, Role::Maxima, Role::Levels],
            Self::PackQuantized => &[Role::Words, Role::Scales, Role::WordZeros, Role::Shape],
            Self::IntQuantized => &[Role::Signed, Role::Scales, Role::SignedZeros],
            Self::PerChannelInt8 => &[Role::Signed, Role::Scales],
        }
    }

    /// An error for what it cannot hold.
    fn check(self, shape: &[usize], form: Form) -> Result<()> {
        if self == Self::Lapidary {
            return Ok(());
        }
        let GridForm::Affine { scale, zero_points } = form.grid else {
            return Err(Error::argument("levels", format!("{:?}", form.grid), "scales, with or without zero points"));
        };
        if !scale.is_float() {
            return Err(Error::argument("type of scales", scale, "f64, f32, f16 or bf16"));
        }
        if !(form.bits == 8 || form.bits == 4 && self == Self::PackQuantized) {
            return Err(Error::argument("bits", form.bits, "4 or 8 for `pack-quantized`, 8 for `i8`"));
        }
        let [rows @ .., cols] = shape else {
            return Err(Error::argument("shape", format!("{shape:?}"), "of one axis at least"));
        };
        if self == Self::PerChannelInt8 {
            if zero_points {
                return Err(Error::argument("levels", "scales and zero points", "scales alone"));
            }
        } else if rows.len() != 1 {
            return Err(Error::argument("shape", format!("{shape:?}"), "that of a matrix"));
        }
        if self == Self::PackQuantized && *cols <= 4 {
            // The words of a row do not tell 4 bits from 8.
            return Err(Error::argument("columns", cols, "more than 4 for `pack-quantized`"));
        }
        match (self, form.granularity) {
            (Self::PerChannelInt8, Granularity::Channel { axis: 0 }) if !rows.is_empty() => Ok(()),
            (Self::PerChannelInt8 | Self::IntQuantized, Granularity::Tensor) => Ok(()),
            (Self::PackQuantized | Self::IntQuantized, Granularity::Channel { axis: 0 }) => Ok(()),
            (Self::PackQuantized | Self::IntQuantized, Granularity::Group { size }) if divides(size, *cols) => Ok(()),
            (_, granularity) => {
                let allowed = match self {
                    Self::PackQuantized => "along the first axis, or groups of one size",
                    Self::IntQuantized => "the tensor, along the first axis, or groups of one size",
                    _ => "the tensor, or along the first of several axes",
                };
                Err(Error::argument("granularity", format!("{granularity:?} of {shape:?}"), allowed))
            }
        }
    }
}

/// Whether groups of `size` are all of one size.
fn divides(size: usize, cols: usize) -> bool {
    size >= cols || cols.is_multiple_of(size)
}
