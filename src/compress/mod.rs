//! Model files made smaller: from a file to a smaller one, with a report of what that cost.
//!
//! ```no_run
//! # #[cfg(feature = "onnx")] {
//! use lapidary::compress::{self, Progress, Recipe};
//! let go_on = |_: Progress<'_>| std::ops::ControlFlow::Continue(());
//! let report = compress::onnx("model.onnx", "small.onnx", &Recipe::new().with_bits(4)?.with_group(32)?, &go_on)?;
//! println!("{report}");
//! # }
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! [`Recipe`] says what is done: codes of 2, 4 or 8 bits; weights that become zero ([`Pruning`]); or a [`Budget`] of bytes or error, for which the
//! bits of each weight are chosen.
//!
//! Tensors are read, quantized and written one after the other on each thread, large ones in parts, so that files larger than memory
//! pass through; a part is at least one index of the first axis, and where groups lie along that axis at least one group (of a few bits and
//! odd widths up to eight). Only a [criterion](Pruning::by) other than the magnitude has a tensor in memory as a whole; slimming, and
//! levels of activations that are found now, have the model. The output has the same bytes on any number of threads. It takes its name
//! when it is whole.

mod activations;
mod budget;
mod copy;
#[cfg(any(feature = "onnx", feature = "safetensors"))]
mod encode;
#[cfg(feature = "gguf")]
mod gguf;
mod look;
#[cfg(feature = "onnx")]
mod onnx;
mod prepare;
mod pruning;
mod recipe;
mod report;
mod run;
#[cfg(feature = "rten")]
mod runtime;
#[cfg(feature = "safetensors")]
mod safetensors;
#[cfg(feature = "rten")]
mod slimming;
mod source;
#[cfg(any(feature = "safetensors", feature = "gguf"))]
mod tensors;
#[cfg(feature = "rten")]
mod verify;

pub use activations::Activations;
#[cfg(feature = "rten")]
pub use activations::RangeMethod;
pub use budget::Budget;
#[cfg(feature = "gguf")]
pub use gguf::quantize as gguf;
pub use look::Histogram;
#[cfg(feature = "onnx")]
pub use onnx::quantize as onnx;
pub use pruning::Pruning;
pub use recipe::{Form, Recipe};
pub use report::{ActivationReport, Levels, Report, TensorReport};
pub use run::{Progress, Stage};
#[cfg(feature = "rten")]
pub use runtime::{Feed, Inputs, Runtime};
#[cfg(feature = "safetensors")]
pub use safetensors::quantize as safetensors;
#[cfg(feature = "rten")]
pub use slimming::{FrozenNode, Ranking, RepairedLayer, SlimmedReport, Slimming};
#[cfg(feature = "rten")]
pub use verify::{Changed, OutputReport, Verification, verify};
