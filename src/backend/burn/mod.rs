//! Tensors, optimizers and modules of [burn](https://burn.dev) 0.22. Needs the feature `burn`, and Rust 1.95, as burn does.

mod adapter;
mod fake;
mod host;
mod masks;
mod memory;
mod names;
mod ops;
mod watch;
mod weights;

use crate::error::Error;

pub use adapter::{Adapter, AnyOptimizer, Route};
pub use fake::{FakeQuantizer, FakeWeights, fake_quantize};
pub use host::Number;
pub use masks::{AnyPruner, Masks};
pub use memory::Memory;
pub use names::names;
pub use watch::{Copies, Watch};
pub use weights::{Weights, load, load_slim};

fn unknown(name: &str) -> Error {
    Error::argument("parameter", format!("{name:?}"), "one of the module's")
}
