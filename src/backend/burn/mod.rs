//! Optimizers, masks, fake quantization and weights for modules of [burn](https://burn.dev) 0.22. Needs the feature `burn`, and Rust
//! 1.95, as burn does.
//!
//! | what | how |
//! |---|---|
//! | [`Adapter`] | an optimizer of this crate in burn's training loop, its state in burn's records |
//! | [`Watch`] | the errors that burn's optimizers cannot return, the copies that were made, the masks that hold |
//! | [`Masks`] | what survives of a module's parameters, and keeping it so while burn trains |
//! | [`fake_quantize`], [`FakeQuantizer`] | rounding to levels with a straight-through gradient, of a tensor, of a module's weights |
//! | [`Weights`], [`load`], [`load_slim`] | a module's parameters by name, to be quantized, slimmed or written, and back |
//! | [`names`] | the names that all of these go by |
//!
//! # Where steps are computed
//!
//! | tensors of | by default | copies |
//! |---|---|---|
//! | `flex` | this crate's kernels, in the parameter's own memory | none, unless its elements are shared ([`Copies`]) |
//! | another backend, on a GPU or not | burn's operations, for [`Sgd`](crate::optim::Sgd), [`Adam`](crate::optim::Adam) and [`AdamW`](crate::optim::AdamW) by PyTorch's convention | none |
//! | the same, any other optimizer | an error that says so | with [`Route::Host`] two reads from the device and one write a step |
//!
//! The kernels give the bits that slices give. burn's operations give the same numbers within the tolerance of docs/NUMERICS.md. With
//! both, parameters of 16 bits are computed in `f32`, whose state is `f32`, and rounded once.
//!
//! # Errors
//!
//! burn's optimizers cannot fail. A step that is refused gives parameter and state back as they were and leaves its error with the
//! [`Watch`]; no parameter moves from then on, until [`Watch::check`] or [`Watch::take_error`]. So an error leaves those as they were
//! that burn comes to later in that step, and those before it moved: burn steps one parameter at a time.
//!
//! # Training, pruned
//!
//! ```
//! use burn_core::{self as burn, module::{Module, Param}, tensor::{Device, Tensor}};
//! use burn_optim::GradientsParams;
//! use lapidary::{backend::burn::{Adapter, Masks}, optim::Sgd, prune::Magnitude};
//!
//! #[derive(Module, Debug)]
//! struct Model { weight: Param<Tensor<2>> }
//!
//! let device = Device::flex().autodiff();
//! let weight = Tensor::from_floats([[0.5, -0.01], [0.02, -1.0]], &device);
//! let mut model = Model { weight: Param::from_tensor(weight) };
//! let (mut optimizer, watch) = Adapter::new(Sgd::new(0.1)?.with_momentum(0.9)?).for_module(&model);
//! let masks = Masks::new(&model, &Magnitude::sparsity(0.5)?, |_, shape| shape.len() == 2)?;
//! masks.apply(&mut model)?;
//! watch.set_masks(&masks)?;
//! let gradients = GradientsParams::from_grads(model.weight.val().sum().backward(), &model);
//! model = optimizer.step(0.1, model, gradients);
//! watch.check()?;
//! let found = model.weight.val().into_data();
//! assert_eq!(found.as_slice::<f32>().unwrap(), [0.4, 0.0, 0.0, -1.1]);
//!
//! // Stopped and gone on, to the bit: burn's records.
//! let (module, state) = (model.clone().into_record().into_bytes().unwrap(), optimizer.into_bytes().unwrap());
//! let model = model.load_record(burn_core::store::ModuleRecord::from_bytes(module).unwrap());
//! let (optimizer, watch) = Adapter::new(Sgd::new(0.1)?.with_momentum(0.9)?).for_module(&model);
//! let optimizer = optimizer.from_bytes(state).unwrap();
//! watch.set_masks(&masks)?;
//! # _ = optimizer;
//! # Ok::<(), lapidary::Error>(())
//! ```

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
