//! Tensors and variables of [candle](https://docs.rs/candle-core): stepped, quantized, pruned and rounded in its graph.
//!
//! | what | by |
//! |---|---|
//! | all variables of a model stepped by this crate's optimizers, with groups, masks, averages, 8-bit state, checkpoints | [`VarParams`] |
//! | the same behind `candle_nn::Optimizer` | [`VarParams`] too |
//! | a tensor as quantizers, criteria and files read it | [`view`] |
//! | a variable changed where it lies: masked, decoded into, stepped by itself | [`edit`] |
//! | decoded values as a tensor | [`QTensor::to_candle`](crate::QTensor::to_candle) |
//! | training with quantization | [`fake_quantize`], [`lsq`] |
//!
//! All of it is on the CPU: tensors on another device are refused by name, and none is copied from there silently. Variables and
//! contiguous tensors are not copied. `f32`, `f64`, `f16` and `bf16` are; a model of two of them has a [`VarParams`] for each. Results are
//! those of slices, bit for bit, on any number of threads.
//!
//! # Step
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Module, VarBuilder, VarMap, linear, loss::cross_entropy};
//! use lapidary::{backend::candle::VarParams, optim::{AdamW, Compact}};
//!
//! let map = VarMap::new();
//! let layer = linear(4, 3, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu).pp("fc"))?;
//! let mut vars = VarParams::<f32>::of(&map, Compact::eight_bit(AdamW::new(1e-2)?))?; // state in 8 bits
//! let (x, y) = (Tensor::ones((2, 4), DType::F32, &Device::Cpu)?, Tensor::new(&[0u32, 2], &Device::Cpu)?);
//! for _ in 0..10 {
//!     let loss = cross_entropy(&layer.forward(&x)?, &y)?;
//!     vars.step(&loss.backward()?)?; // all variables, or none and an error
//! }
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! With the feature `safetensors`, [`format::checkpoint`](crate::format) saves what the optimizers remember, by the names of the map,
//! beside `VarMap::save`, which saves the weights: `Checkpoint::new().with_params(vars.params())?.save(path)?`, and
//! `Loaded::open(path)?.restore_params(vars.params_mut())?` for variables of the same names.
//!
//! # Quantize and prune
//!
//! ```
//! use candle_core::{Device, Var};
//! use lapidary::{PrunerExt, QuantizerExt, backend::candle::{VarParams, edit, view}, optim::Sgd, prune::Magnitude, quant::MinMax};
//!
//! let w = Var::new(&[[0.5f32, -0.01], [0.02, -1.0]], &Device::Cpu)?;
//! let mask = Magnitude::sparsity(0.5)?.mask(&view::<f32>(&w)?)?;
//! edit::<f32, _>(&w, |w| mask.apply(w))?;
//! let mut vars = VarParams::<f32>::default();
//! let group = vars.group(Sgd::new(0.1)?);
//! vars.add("w", &w, group)?;
//! vars.params_mut().set_mask("w", Some(mask))?; // stays pruned
//! vars.step(&w.sqr()?.sum_all()?.backward()?)?;
//! assert_eq!(w.to_vec2::<f32>()?, [[0.4, 0.0], [0.0, -0.8]]);
//!
//! let q = MinMax::new(8)?.quantize(&view::<f32>(&w)?)?; // codes of 8 bits
//! assert!(q.to_candle::<f32>()?.sub(&w)?.abs()?.max_all()?.to_scalar::<f32>()? < 0.003);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Train with quantization
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Linear, Module, VarBuilder, VarMap, linear, loss::mse};
//! use lapidary::{Quantizer, QuantizerExt, backend::candle::{VarParams, fake_quantize, view}, optim::Adam, quant::Symmetric};
//! use std::sync::Arc;
//!
//! let map = VarMap::new();
//! let layer = linear(4, 1, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
//! let mut vars = VarParams::<f32>::of(&map, Adam::new(1e-2)?)?;
//! let scheme = Symmetric::new(4)?;
//! let mut levels = Arc::new(scheme.quantize(&view::<f32>(layer.weight())?)?);
//! let (x, y) = (Tensor::ones((2, 4), DType::F32, &Device::Cpu)?, Tensor::ones((2, 1), DType::F32, &Device::Cpu)?);
//! for _ in 0..10 {
//!     scheme.fit((&view::<f32>(layer.weight())?).into(), Arc::make_mut(&mut levels))?; // the levels follow the weights
//!     let rounded = fake_quantize(layer.weight(), scheme.into(), levels.clone())?;
//!     let loss = mse(&Linear::new(rounded, layer.bias().cloned()).forward(&x)?, &y)?;
//!     vars.step(&loss.backward()?)?;
//! }
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Errors, versions, devices
//!
//! Functions that candle calls give its error, the others this crate's; `?` turns each into the other, words and all. Which versions of
//! candle fit, and what a new one means, is in `docs/BACKENDS.md`.

mod nn;
mod qat;
mod scalar;
mod strided;
mod tensor;
mod vars;

pub use qat::{fake_quantize, lsq};
pub use scalar::Scalar;
pub use tensor::{View, edit, view};
pub use vars::VarParams;

use crate::error::Error;

/// As [`Runtime`](crate::ErrorKind::Runtime), with candle's words.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::runtime("candle", error)
    }
}

/// As `Wrapped`, with the same words.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        Self::Wrapped(Box::new(error))
    }
}
