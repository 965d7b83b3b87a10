//! Quantizing by more than a tensor's own range: by what a layer's inputs were like, or by a search.

mod awq;
mod bias;
mod fold;
#[cfg(feature = "linalg")]
mod gptq;
mod hqq;
#[cfg(feature = "linalg")]
mod scheme;
mod smooth;
#[cfg(feature = "linalg")]
mod strips;

pub use awq::{Awq, Scaled};
pub use bias::correct_bias;
pub use fold::{divide_outputs, multiply_inputs};
#[cfg(feature = "linalg")]
pub use gptq::{Gptq, Swept};
pub use hqq::Hqq;
#[cfg(feature = "linalg")]
pub use scheme::Scheme;
pub use smooth::SmoothQuant;
