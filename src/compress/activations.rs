//! What becomes of a model's activations.

#[cfg(feature = "rten")]
use super::runtime::Inputs;
use crate::error::{Error, Result};

use super::recipe::Recipe;

/// How an ONNX model whose weights have 8 bits multiplies by integers: what it multiplies them by, its activations, become codes too.
///
/// A code is `round(x / scale) + zero_point`, from 0 to 255, with one scale for a whole activation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
pub enum RangeMethod {
    /// From the smallest to the largest: [`MinMaxObserver`](crate::quant::MinMaxObserver).
    #[default]
    MinMax,
    /// Of so many percent of the values, those in the middle: [`Histogram::percentile`](crate::quant::Histogram::percentile).
    Percentile(f64),
    /// Of the least mean squared error: [`Histogram::mse_affine`](crate::quant::Histogram::mse_affine).
    Mse,
    /// From the moving average of the smallest to that of the largest value of a sample, which counts for so much:
    /// [`MovingAverageObserver`](crate::quant::MovingAverageObserver).
    MovingAverage(f64),
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

impl Recipe {
    /// An error where activations, or slimming, are asked for that this file cannot have: `graph` says whether it is one that runs.
    pub(super) fn check_graph(&self, graph: bool) -> Result<()> {
        let refused = |found: &str, needed| Err(Error::argument("quantization of activations", found, needed));
        #[cfg(feature = "rten")]
        if self.slimming.is_some() && !graph {
            return Err(Error::argument("slimming", "asked for", "none, for a file of tensors alone"));
        }
        match self {
            Self { activations: None, .. } => Ok(()),
            _ if !graph => refused("asked for", "none, for a file of tensors alone"),
            Self { bits, .. } if *bits != Some(8) => refused("with weights of other bits", "with weights of 8 bits"),
            Self { group: Some(_), .. } => refused("with groups of weights", "with a scale for each output channel"),
            Self { budget: Some(_), .. } => refused("within a budget", "without one"),
            #[cfg(feature = "rten")]
            Self { pruning: Some(_), activations: Some(Activations::Static(..)), .. } => {
                refused("with pruning, and found now", "for a model that is pruned already: zeros stay zero")
            }
            Self { form: super::Form::MatMulNBits, .. } => refused("with MatMulNBits", "in another form"),
            _ => Ok(()),
        }
    }
}
