//! Model files made smaller: from a file to a smaller one, with a report of what that cost.
//!
//! ```no_run
//! use lapidary::compress::{self, Recipe};
//! let report = compress::onnx("model.onnx", "small.onnx", &Recipe::new(4)?.with_group(32)?, &|_| std::ops::ControlFlow::Continue(()))?;
//! println!("{report}");
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! Tensors are read, quantized and written one after the other on each thread, large ones in parts, so that files larger than memory
//! pass through. The output has the same bytes on any number of threads. It takes its name when it is whole.

mod encode;
mod onnx;
mod recipe;
mod report;
mod run;
#[cfg(feature = "verify")]
mod verify;

pub use onnx::quantize as onnx;
pub use recipe::{Form, Recipe};
pub use report::{Report, TensorReport};
pub use run::Progress;
#[cfg(feature = "verify")]
pub use verify::{Changed, Feed, Inputs, OutputReport, Verification, verify};
