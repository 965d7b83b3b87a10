//! What a tensor is here: borrowed elements with a shape, and what is kept beside them.

pub(crate) mod any;
pub(crate) mod granularity;
pub(crate) mod grid;
pub(crate) mod mask;
pub(crate) mod qtensor;
pub(crate) mod scales;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod values;
pub(crate) mod view;

pub use crate::kernel::block8::BlockMap;
pub use granularity::Granularity;
pub use grid::Grid;
pub use mask::Mask;
pub use qtensor::{QTensor, QuantError};
pub use scales::Scales;
pub use slot::{Block8, Precision, Slot, SlotValues};
pub use state::{Schema, State};
pub use values::Values;
pub use view::{TensorMut, TensorRef};
