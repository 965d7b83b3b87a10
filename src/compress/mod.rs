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
//! Tensors are read, quantized and written one after the other on each thread, large ones in parts, so that files larger than memory
//! pass through; a part is at least one index of the first axis, and where groups lie along that axis at least one group (of a few bits and
//! odd widths up to eight). The output has the same bytes on any number of threads. It takes its name when it is whole.

#[cfg(any(feature = "onnx", feature = "safetensors"))]
mod encode;
#[cfg(feature = "gguf")]
mod gguf;
#[cfg(feature = "onnx")]
mod onnx;
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

#[cfg(feature = "gguf")]
pub use gguf::quantize as gguf;
#[cfg(feature = "onnx")]
pub use onnx::quantize as onnx;
pub use recipe::{Form, Recipe};
pub use report::{Report, TensorReport};
pub use run::Progress;
#[cfg(feature = "rten")]
pub use runtime::{Feed, Inputs};
#[cfg(feature = "safetensors")]
pub use safetensors::quantize as safetensors;
#[cfg(feature = "rten")]
pub use slimming::{FrozenNode, Ranking, RepairedLayer, SlimmedReport, Slimming};
#[cfg(feature = "rten")]
pub use verify::{Changed, OutputReport, Verification, verify};
