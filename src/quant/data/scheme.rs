//! The schemes whose levels a sweep can round to.

use crate::{
    element::{Element, Real},
    error::Result,
    kernel::sweep::Nearest,
    linalg::nearest,
    quant::{Affine, MinMax, Symmetric},
    tensor::{Granularity, Grid, QTensor, TensorRef},
    traits::Quantizer,
};

/// A scheme of evenly spaced levels, with its bits and what shares a scale: what [`Gptq`](crate::quant::Gptq) rounds
/// to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Scheme {
    /// With an integer zero point.
    Affine(Affine),
    /// Without a zero point.
    Symmetric(Symmetric),
    /// Between minimum and maximum.
    MinMax(MinMax),
}

macro_rules! each {
    ($scheme:expr, $q:ident => $what:expr) => {
        match $scheme {
            Scheme::Affine($q) => $what,
            Scheme::Symmetric($q) => $what,
            Scheme::MinMax($q) => $what,
        }
    };
}

macro_rules! from {
    ($($name:ident),*) => {$(
        impl From<$name> for Scheme {
            fn from(scheme: $name) -> Self {
                Self::$name(scheme)
            }
        }
    )*};
}
from!(Affine, Symmetric, MinMax);

impl Scheme {
    /// Bits of a code.
    #[must_use]
    pub fn bits(&self) -> u8 {
        each!(self, q => q.bits())
    }

    /// What shares levels.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        each!(self, q => q.granularity())
    }

    /// The same with levels for each row.
    pub(super) fn per_row(self) -> Self {
        each!(self, q => q.per_channel(0).into())
    }

    /// The levels of `q`, to round to.
    pub(super) fn nearest<'a, R: Real>(&self, q: &'a QTensor) -> Nearest<'a, R> {
        nearest(q, if let Self::Symmetric(symmetric) = self { symmetric.least() } else { 0 })
    }
}

impl<T: Element> Quantizer<T> for Scheme {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        each!(self, q => Quantizer::<T>::layout(q, shape))
    }

    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        each!(self, scheme => scheme.fit(values, q))
    }

    fn encode(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        each!(self, scheme => scheme.encode(values, q))
    }

    fn quantize_into(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        each!(self, scheme => scheme.quantize_into(values, q))
    }
}

/// Copies the levels of groups, `(from, to)` each, between grids of one form and type.
pub(super) fn copy_levels<R: Real>(from: &Grid, to: &mut Grid, groups: impl Iterator<Item = (usize, usize)> + Clone) {
    fn copy<N: Copy>(from: &[N], to: &mut [N], groups: impl Iterator<Item = (usize, usize)>) {
        groups.for_each(|(a, b)| to[b] = from[a]);
    }
    let numbers = |from: Option<&[R]>, to: Option<&mut [R]>| {
        if let (Some(from), Some(to)) = (from, to) {
            copy(from, to, groups.clone());
        }
    };
    match (from, to) {
        (Grid::MinMax { min, max }, Grid::MinMax { min: to_min, max: to_max }) => {
            numbers(min.as_slice(), to_min.as_mut_slice());
            numbers(max.as_slice(), to_max.as_mut_slice());
        }
        (Grid::Affine { scale, zero_point }, Grid::Affine { scale: to_scale, zero_point: to_zero }) => {
            numbers(scale.as_slice(), to_scale.as_mut_slice());
            if let (Some(from), Some(to)) = (zero_point, to_zero) {
                copy(from, to, groups.clone());
            }
        }
        _ => {}
    }
}
