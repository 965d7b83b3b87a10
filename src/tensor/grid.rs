//! What the codes of a quantized tensor stand for.

use super::{qtensor::check_finite, scales::Scales, values::Values};
use crate::{
    element::Real,
    error::{Error, Result},
    kernel::grid::{Few, Levels, Numbers},
};

/// What the codes of each group stand for. Arrays have one entry a group, groups in logical order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grid {
    /// Evenly spaced: `x' = min + q * (max - min) / (2^bits - 1)`, computed in `f64`.
    MinMax {
        /// The smallest value of each group: that of code 0.
        min: Values,
        /// The largest value of each group: that of code `2^bits - 1`.
        max: Values,
    },
    /// Evenly spaced, and 0 is one of them: `x' = (q - zero_point) * scale`.
    Affine {
        /// The distance of two levels of each group, above 0.
        scale: Scales,
        /// The code of 0 in each group; `None`: the middle code `2^(bits - 1)` in all of them.
        zero_point: Option<Vec<u16>>,
    },
    /// Any levels: `x' = levels[group * 2^bits + q]`.
    Codebook {
        /// `2^bits` numbers a group.
        levels: Values,
    },
    /// Any levels, the same in all groups but for their scale: `x' = levels[q] * scale`, computed in `f64`.
    Scaled {
        /// `2^bits` numbers.
        levels: Values,
        /// What the levels of each group are multiplied by, above 0.
        scale: Scales,
    },
}

impl Grid {
    /// Bytes the levels take; a zero point takes as many as a code of `bits` bits.
    pub(super) fn byte_size(&self, bits: u8) -> usize {
        match self {
            Self::MinMax { min, max } => min.byte_size() + max.byte_size(),
            Self::Affine { scale, zero_point } => {
                scale.byte_size() + zero_point.as_ref().map_or(0, Vec::len) * usize::from(bits.div_ceil(8))
            }
            Self::Codebook { levels } => levels.byte_size(),
            Self::Scaled { levels, scale } => levels.byte_size() + scale.byte_size(),
        }
    }

    /// Minima and maxima, when the grid is min-max in `R`.
    pub(crate) fn min_max_mut<R: Real>(&mut self) -> Option<(&mut [R], &mut [R])> {
        match self {
            Self::MinMax { min, max } => Some((min.as_mut_slice()?, max.as_mut_slice()?)),
            _ => None,
        }
    }

    /// Scales, and zero points if there are any, when the grid has scales in `R`.
    pub(crate) fn scales_mut<R: Real>(&mut self) -> Option<(&mut [R], Option<&mut [u16]>)> {
        match self {
            Self::Affine { scale, zero_point } => Some((scale.as_mut_slice()?, zero_point.as_deref_mut())),
            Self::Scaled { scale, .. } => Some((scale.as_mut_slice()?, None)),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn form(&self) -> String {
        match self {
            Self::MinMax { min, .. } => format!("ranges in {:?}", min.dtype()),
            Self::Affine { scale, zero_point: Some(_) } => format!("scales in {} and zero points", scale.form()),
            Self::Affine { scale, zero_point: None } => format!("scales in {}", scale.form()),
            Self::Codebook { .. } => "a codebook".into(),
            Self::Scaled { scale, .. } => format!("scales in {} of listed levels", scale.form()),
        }
    }

    /// The levels to decode by.
    pub(crate) fn levels(&self) -> Levels<'_> {
        match self {
            Grid::MinMax { min, max } => Levels::Few(Few::Even { min: min.numbers(), max: max.numbers() }),
            Grid::Affine { scale, zero_point } => {
                Levels::Affine { scales: scale.numbers(), zeros: zero_point.as_deref() }
            }
            Grid::Codebook { levels } => Levels::Few(Few::Table(levels.numbers())),
            Grid::Scaled { levels, scale } => {
                Levels::Few(Few::Scaled { table: levels.numbers(), scales: scale.numbers() })
            }
        }
    }
}

/// Checks that a grid has the levels of so many groups, all finite and in order.
pub(super) fn check_grid(grid: &Grid, groups: usize, bits: u8) -> Result<()> {
    let check = |what, levels: &Values, len: usize| {
        if levels.len() == len {
            finite(what, levels.numbers())
        } else {
            Err(Error::shape(what, &[len], &[levels.len()]))
        }
    };
    if bits > 8 && !matches!(grid, Grid::Affine { .. }) {
        return Err(Error::argument("bits", bits, "1 to 8 for levels that are not affine"));
    }
    match grid {
        Grid::MinMax { min, max } => {
            check("minima", min, groups)?;
            check("maxima", max, groups)?;
            if min.dtype() != max.dtype() {
                return Err(Error::argument("maxima", format!("{:?}", max.dtype()), "of the minima's type"));
            }
            match (0..groups).find(|&i| min.get(i) > max.get(i)) {
                Some(i) => {
                    Err(Error::argument("minimum", format!("above the maximum in group {i}"), "at most the maximum"))
                }
                None => Ok(()),
            }
        }
        Grid::Affine { scale, zero_point } => {
            check_scales(scale, groups)?;
            let Some(zeros) = zero_point else { return Ok(()) };
            if zeros.len() != groups {
                return Err(Error::shape("zero points", &[groups], &[zeros.len()]));
            }
            match zeros.iter().find(|&&zero| u32::from(zero) >> bits != 0) {
                Some(zero) => Err(Error::argument("zero point", zero, "less than 2^bits")),
                None => Ok(()),
            }
        }
        Grid::Codebook { levels } => check("codebook", levels, groups.saturating_mul(1 << bits)),
        Grid::Scaled { levels, scale } => {
            check("levels", levels, 1 << bits)?;
            check_scales(scale, groups)
        }
    }
}

fn check_scales(scale: &Scales, groups: usize) -> Result<()> {
    if scale.len() != groups {
        return Err(Error::shape("scales", &[groups], &[scale.len()]));
    }
    finite("scales", scale.numbers())?;
    match (0..groups).find(|&i| scale.get(i) <= Some(0.0)) {
        Some(i) => Err(Error::argument("scale", format!("{:?} in group {i}", scale.get(i)), "above 0")),
        None => Ok(()),
    }
}

fn finite(what: &'static str, numbers: Numbers<'_>) -> Result<()> {
    match numbers {
        Numbers::F32(numbers) => check_finite(what, numbers),
        Numbers::F64(numbers) => check_finite(what, numbers),
        Numbers::F16(numbers) => check_finite(what, numbers),
        Numbers::E8m0(bytes) => match bytes.iter().position(|&byte| byte == u8::MAX) {
            Some(i) => Err(Error::non_finite(what, i, f64::NAN)),
            None => Ok(()),
        },
    }
}
