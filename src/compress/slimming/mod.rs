//! Slimming of ONNX models: channels and residual blocks leave, a smaller dense model stays.

mod activations;
mod apply;
mod blocks;
mod graph;
mod linear;
mod lower;
mod moves;
mod operators;
mod ranking;
mod recurrent;
#[cfg(feature = "linalg")]
mod refit;
#[cfg(feature = "linalg")]
mod repair;
mod report;
mod run;
mod runner;
mod shapes;

pub use report::{FrozenNode, RepairedLayer, SlimmedReport};
pub(super) use run::slim;

use super::runtime::Inputs;
use crate::{
    config::config,
    error::{Error, Result},
    slim::Keep,
};

/// By what channels of a group are ranked; the last ones leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Ranking {
    /// Norms of weights: [`Importance::of`](crate::slim::Importance::of).
    Magnitude,
    /// What its going, for its mean, changes in the outputs of the layers that read it: `‖w‖² var(x)`, over each such layer's outputs.
    /// Channels that no product or convolution reads are ranked by [`Magnitude`](Self::Magnitude).
    #[default]
    Variance,
    /// The same where the channels that stay make up for it as well as they can: `‖w‖² / (C⁻¹)ᵢᵢ`, `C` the covariance of the channels, one
    /// channel after another, each time by what is left (Optimal Brain Surgeon on channels, as ZipLM, arXiv:2302.04089, and
    /// SlimGPT, arXiv:2412.18110). For groups of up to 1,024; larger ones are ranked by [`Variance`](Self::Variance).
    #[cfg(feature = "linalg")]
    Reconstruction,
}

/// How much a model keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Target {
    Ratio(f64),
    Params(f64),
}

/// What leaves an ONNX model: a step of a [`Recipe`](super::Recipe).
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `target` | – | 0 to 1 | the share that leaves: of each group ([`ratio`](Self::ratio)), or of all weights ([`params`](Self::params)) |
/// | `inputs` | – | | calibration inputs: the model runs on them |
/// | `multiple` | 1 | 1 and more | as many channels of each group as a multiple of this, or all |
/// | `ranking` | [`Ranking::Variance`] | | which channels leave |
/// | `blocks_dropped` | 0 | any | residual blocks that leave first, those that change least |
/// | `repair` | off | | layers are fitted again by least squares |
///
/// Channels that belong together are found along the graph ([`Topology`](crate::slim::Topology)); they leave all weights that have them. A
/// channel that leaves is taken for its mean over the calibration inputs, which goes into the biases of the layers that
/// read it; a constant one leaves without a trace, but at the borders of padded convolutions, which see zeros there. Channels stay of
/// inputs and outputs, of what operators read that are not known here, and of those that layer normalization averages over. The report
/// names each.
///
/// ```no_run
/// use lapidary::compress::{self, Inputs, Progress, Recipe, Slimming};
/// let slimming = Slimming::ratio(0.3, Inputs::random(0).with_batch(16))?.with_multiple(8)?;
/// let go_on = |_: Progress<'_>| std::ops::ControlFlow::Continue(());
/// let report = compress::onnx("model.onnx", "slim.onnx", &Recipe::new().with_slimming(slimming), &go_on)?;
/// println!("{report}");
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Slimming {
    target: Target,
    inputs: Inputs,
    multiple: usize,
    ranking: Ranking,
    blocks: usize,
    #[cfg_attr(not(feature = "linalg"), allow(dead_code, reason = "always off"))]
    repair: Option<f64>,
}

impl Slimming {
    fn new(target: Target, inputs: Inputs) -> Self {
        Self { target, inputs, multiple: 1, ranking: Ranking::default(), blocks: 0, repair: None }
    }

    /// This share of the channels of each group leaves; of 0.3, three of ten.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) outside 0 to 1.
    pub fn ratio(share: f64, inputs: Inputs) -> Result<Self> {
        check(share)?;
        Ok(Self::new(Target::Ratio(share), inputs))
    }

    /// The least important channels of the whole model leave until this share of the numbers in the layers that are
    /// understood has.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) outside 0 to 1.
    pub fn params(share: f64, inputs: Inputs) -> Result<Self> {
        check(share)?;
        Ok(Self::new(Target::Params(share), inputs))
    }

    /// Keeps a multiple of this of each group's channels, or all.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for 0.
    pub fn with_multiple(self, multiple: usize) -> Result<Self> {
        if multiple == 0 {
            return Err(Error::argument("multiple", multiple, "at least 1"));
        }
        Ok(Self { multiple, ..self })
    }

    /// Chooses channels by this.
    pub fn with_ranking(self, ranking: Ranking) -> Self {
        Self { ranking, ..self }
    }

    /// So many residual blocks `x + f(x)` become `x`, one after another, each time that of the least
    /// [influence](crate::slim::block_influence) on the calibration inputs. Fewer where there are not as many.
    pub fn with_blocks_dropped(self, count: usize) -> Self {
        Self { blocks: count, ..self }
    }

    /// Fits each layer again, in order: its weights and bias become those by which its outputs, on what the slim model gives it, are
    /// nearest to what the original had, by ridge regression around what they are. `damping` is relative to the mean square of an input.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a damping that is not positive and finite.
    #[cfg(feature = "linalg")]
    pub fn with_repair(self, damping: f64) -> Result<Self> {
        if !(damping.is_finite() && damping > 0.0) {
            return Err(Error::argument("damping", damping, "positive and finite"));
        }
        Ok(Self { repair: Some(damping), ..self })
    }

    /// As slimming of a topology of so many numbers wants it.
    fn keep(&self, params: usize) -> Result<Keep> {
        let keep = match self.target {
            Target::Ratio(share) => Keep::ratio(1.0 - share)?,
            Target::Params(share) => Keep::params(((1.0 - share) * params as f64).round_ties_even() as usize),
        };
        keep.with_approximation().with_multiple(self.multiple)
    }
}

config! {
    Slimming(target: Target, inputs: Inputs) => match target {
        Target::Ratio(share) => Self::ratio(share, inputs),
        Target::Params(share) => Self::params(share, inputs),
    },
    multiple: usize => Self::with_multiple,
    ranking: Ranking => Self::with_ranking,
    blocks_dropped: usize = |it| it.blocks => Self::with_blocks_dropped,
    #[cfg(feature = "linalg")]
    repair: Option<f64> => |it, damping| match damping {
        Some(damping) => it.with_repair(damping),
        None => Ok(it),
    },
    #[cfg(not(feature = "linalg"))]
    repair: Option<crate::config::Absent> = |_| None::<crate::config::Absent> => |_, _| {
        Err(Error::argument("repair", "asked for", "none, without the feature `linalg`"))
    },
}

fn check(share: f64) -> Result<()> {
    if (0.0..=1.0).contains(&share) { Ok(()) } else { Err(Error::argument("share", share, "from 0 to 1")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused() {
        let inputs = || Inputs::random(0);
        assert!(Slimming::ratio(1.5, inputs()).is_err() && Slimming::params(f64::NAN, inputs()).is_err());
        let slimming = Slimming::ratio(0.5, inputs()).unwrap();
        assert!(slimming.clone().with_multiple(0).is_err());
        #[cfg(feature = "linalg")]
        assert!(slimming.clone().with_repair(0.0).is_err() && slimming.with_repair(1e-3).is_ok());
    }
}
