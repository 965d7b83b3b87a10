//! Tensors, optimizers and modules of [burn](https://burn.dev) 0.22. Needs the feature `burn`, and Rust 1.95, as burn does.

mod adapter;
mod host;
mod masks;
mod memory;
mod names;
mod ops;
mod watch;

use crate::error::Error;

pub use adapter::{Adapter, AnyOptimizer, Route};
pub use masks::{AnyPruner, Masks};
pub use memory::Memory;
pub use names::names;
pub use watch::{Copies, Watch};

fn unknown(name: &str) -> Error {
    Error::argument("parameter", format!("{name:?}"), "one of the module's")
}
