//! What becomes of a model's activations.

#[cfg(feature = "rten")]
use super::runtime::Inputs;
#[cfg(feature = "rten")]
use crate::{error::Error, quant::MovingAverageObserver};

/// How an ONNX model whose weights have 8 bits multiplies by integers: what it multiplies them by, its activations, become codes too.
///
/// A code is `round(x / scale) + zero_point`, from 0 to 255, with one scale for a whole activation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Activations {
    /// Levels are found whenever the model runs, by `DynamicQuantizeLinear`, for `MatMul` and `Gemm` with a matrix of weights, which become
    /// `MatMulInteger`. Needs version 11 of ONNX's operators. Weights are `uint8` with a zero point a column, or `int8` without where the
    /// recipe is [`symmetric`](super::Recipe::symmetric): some processors multiply those faster, and older ones (x86-64 without VNNI)
    /// cut off their sums.
    Dynamic,
    /// Levels stay as they are found now, on these inputs, by this method. Pairs of `QuantizeLinear` and `DequantizeLinear` stand around
    /// `Conv`, `MatMul` and `Gemm`, and what lies between them, for a runtime to make integer operators of. Weights are `int8` without zero
    /// points, biases `int32`. Needs version 13 of ONNX's operators.
    #[cfg(feature = "rten")]
    Static(Inputs, RangeMethod),
}

/// How the range of an activation follows from the values it had.
#[cfg(feature = "rten")]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum RangeMethod {
    /// From the smallest to the largest: [`MinMaxObserver`](crate::quant::MinMaxObserver).
    #[default]
    MinMax,
    /// Of so many percent of the values, those in the middle: [`Histogram::percentile`](crate::quant::Histogram::percentile).
    Percentile(#[cfg_attr(feature = "serde", serde(deserialize_with = "percent"))] f64),
    /// Of the least mean squared error: [`Histogram::mse_affine`](crate::quant::Histogram::mse_affine).
    Mse,
    /// From the moving average of the smallest to that of the largest value of a sample, which counts for so much:
    /// [`MovingAverageObserver`](crate::quant::MovingAverageObserver).
    MovingAverage(#[cfg_attr(feature = "serde", serde(deserialize_with = "constant"))] f64),
}

#[cfg(all(feature = "rten", feature = "serde"))]
fn percent<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    crate::config::checked(from, |percent| RangeMethod::Percentile(percent).check().map(|()| percent))
}

#[cfg(all(feature = "rten", feature = "serde"))]
fn constant<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    crate::config::checked(from, |constant| RangeMethod::MovingAverage(constant).check().map(|()| constant))
}

#[cfg(feature = "rten")]
impl RangeMethod {
    /// An error where its number is none that it can have.
    pub(super) fn check(self) -> crate::Result<()> {
        match self {
            Self::Percentile(percent) if !(percent > 0.0 && percent <= 100.0) => {
                Err(Error::argument("percentile", percent, "above 0 and at most 100"))
            }
            Self::MovingAverage(constant) => MovingAverageObserver::new().with_averaging_constant(constant).map(|_| ()),
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "rten")]
impl std::fmt::Display for RangeMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MinMax => write!(f, "min-max"),
            Self::Percentile(percent) => write!(f, "percentile {percent}"),
            Self::Mse => write!(f, "least squared error"),
            Self::MovingAverage(constant) => write!(f, "moving average {constant}"),
        }
    }
}
