//! Makes neural-network weights better and smaller.
//!
//! * [`optim`] **optimizes** them in training: [`Sgd`](optim::Sgd), [`AdamW`](optim::AdamW), [`Lion`](optim::Lion) and the rest of
//!   the family, by PyTorch's conventions exactly, or another library's ([`Convention`](optim::Convention));
//! * [`quant`] **quantizes** them to 1–8 bits, into a packed [`QTensor`]: [`MinMax`](quant::MinMax), [`Affine`](quant::Affine),
//!   [`Symmetric`](quant::Symmetric) and more, with their error certified, and computes with the codes ([`Linear`](quant::Linear));
//! * [`prune`] **prunes** them: by magnitude, gradients or inputs, one by one or in blocks, rows and channels, into a [`Mask`]
//!   that an optimizer keeps;
//! * [`slim`] **slims** models: channels, heads and blocks that do not matter leave, a smaller dense model stays;
//! * [`sparse`] **stores** what pruning left, and multiplies with it, [`Sparse`](sparse::Sparse): compressed rows, blocks, bits or
//!   two of four, of numbers or codes;
//! * [`format`](mod@format) reads and writes model files (ONNX, safetensors, GGUF, NumPy; PyTorch's are read), what is left of a model, and
//!   what training needs to go on; `compress` makes a model file smaller in one call.
//!
//! Tensors are borrowed: slices, `Vec`s, with the feature `ndarray` arrays and views of any
//! dimension and memory order, and with `nalgebra` its matrices and vectors. Elements are `f32`, `f64`, [`f16`](struct@half::f16) or [`bf16`](half::bf16). The caller
//! owns parameters, gradients, state and buffers; a step, `quantize_into`, `dequantize_into` and
//! `Mask::apply` do not allocate (a view that is not in logical order is copied).
//!
//! # Optimize
//!
//! ```
//! use lapidary::{Optimizer, OptimizerExt, Step, optim::AdamW};
//!
//! let mut weights = vec![0.5f32, -0.3, 0.8];
//! let adamw = AdamW::new(1e-3)?;
//! let mut state = adamw.init(&weights)?;
//! for _ in 0..100 {
//!     let gradient: Vec<f32> = weights.iter().map(|w| 2.0 * w).collect();
//!     adamw.step(Step::new(&mut weights, &gradient, &mut state))?;
//! }
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! # Quantize
//!
//! ```
//! use lapidary::{QuantizerExt, quant::MinMax};
//!
//! let weights: Vec<f32> = (0..1024).map(|i| (i as f32 * 0.1).sin()).collect();
//! let q = MinMax::new(4)?.per_group(64)?.quantize(&weights)?;
//! assert_eq!(q.bits_per_weight(), 5.0); // 4 and two f32 for each 64
//! assert!(q.error(&weights)?.sqnr_db > 20.0);
//! let back: Vec<f32> = q.dequantize();
//! # assert_eq!(back.len(), 1024);
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! # Prune, and keep it pruned
//!
//! ```
//! use lapidary::{Optimizer, OptimizerExt, PrunerExt, Step, optim::Sgd, prune::Magnitude};
//!
//! let mut weights = vec![0.5f32, -0.01, 0.02, -1.0];
//! let mask = Magnitude::sparsity(0.5)?.mask(&weights)?;
//! mask.apply(&mut weights)?;
//! let sgd = Sgd::new(0.1)?.with_momentum(0.9)?;
//! let mut state = sgd.init(&weights)?;
//! sgd.step(Step::new(&mut weights, &[1.0; 4], &mut state).mask(&mask))?;
//! assert_eq!(weights, [0.4, 0.0, 0.0, -1.1]);
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! # The same bits everywhere
//!
//! Serial or parallel, on one thread or many, by any instruction set: results are the same bits
//! (the payload of a NaN aside). Kernels are chosen at run time; see [`Isa`]. With the feature `rayon`,
//! tensors of more than 65,536 elements are split over the pool the caller is in (else rayon's global one).
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `ndarray` | yes | `ndarray` arrays and views as tensors |
//! | `nalgebra` | no | `nalgebra` matrices, vectors and views as tensors |
//! | `serde` | no | configurations, plans and reports as JSON, TOML and the like, by `serde`; see `docs/SERDE.md` |
//! | `rayon` | yes | kernels use the caller's rayon pool |
//! | `linalg` | no | matrix products and factors by `faer`: the optimizer `Muon`, the quantizer `Gptq`, the pruner `SparseGpt` |
//! | `files` | no | model files as named tensors, mapped into memory, `format::file`; each format brings it along |
//! | `onnx` | no | ONNX models, `format::onnx`, and to make them smaller, `compress` |
//! | `rten` | no | ONNX models run, by `rten`: before and after (`compress::verify`), to slim them, and to find levels of their activations |
//! | `ort` | no | the same by ONNX Runtime, whose library is loaded when it is asked for |
//! | `safetensors` | no | safetensors model files, `format::safetensors`; checkpoints of training, `format::checkpoint`, and PyTorch's optimizer state in that container, `format::torch` |
//! | `gguf` | no | GGUF files, `format::gguf` |
//! | `numpy` | no | NumPy's `.npy` and `.npz`, `format::numpy` |
//! | `keras` | no | the weights of Keras' `.h5` and `.keras`, and of any HDF5 file, `format::keras` |
//! | `tflite` | no | the weights of TensorFlow Lite's models, `format::tflite` |
//! | `pytorch` | no | what `torch.save` writes, by `pytorch-reader`: weights, `format::pytorch`, and optimizer state, `format::torch` |
//! | `candle` | no | variables and tensors of candle: stepped, quantized, pruned, rounded in its graph, `backend::candle` |
//! | `burn` | no | optimizers, masks, fake quantization and weights for modules of burn 0.22, `backend::burn`; needs Rust 1.95 |
//! | `sprs` | no | sparse matrices from and to those of `sprs` |
//! | `entropy` | no | the smallest packed files, `format::packed::encode_smallest`, by the range coder of `constriction`; and to read them |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

#[forbid(unsafe_code)]
pub mod backend;
#[cfg(any(feature = "onnx", feature = "safetensors", feature = "gguf"))]
#[forbid(unsafe_code)]
pub mod compress;
#[forbid(unsafe_code)]
mod config;
#[forbid(unsafe_code)]
mod element;
#[forbid(unsafe_code)]
mod error;
#[forbid(unsafe_code)]
pub mod format;
#[allow(unsafe_code, reason = "run-time choice of the instruction set")]
mod kernel;
#[forbid(unsafe_code)]
mod linalg;
#[cfg(feature = "files")]
mod map;
#[forbid(unsafe_code)]
pub mod optim;
#[forbid(unsafe_code)]
pub mod prune;
#[forbid(unsafe_code)]
pub mod quant;
#[forbid(unsafe_code)]
pub mod slim;
#[forbid(unsafe_code)]
pub mod sparse;
#[forbid(unsafe_code)]
mod tensor;
#[forbid(unsafe_code)]
mod traits;

#[cfg(feature = "candle")]
pub use candle_core;
#[cfg(feature = "candle")]
pub use candle_nn;
pub use element::{DType, Element, Real};
pub use error::{Error, ErrorKind, Result};
pub use half;
pub use kernel::{grad::GradRef, isa::Isa, random::Rounding, rule::Rule};
pub use linalg::Calibration;
#[cfg(feature = "nalgebra")]
pub use nalgebra;
#[cfg(feature = "ndarray")]
pub use ndarray;
pub use num_traits;
#[cfg(feature = "sprs")]
pub use sprs;
pub use tensor::{
    Block8, BlockMap, Granularity, Grid, Mask, Precision, QTensor, QuantError, Scales, Schema, Slot, SlotValues, State,
    TensorMut, TensorRef, Values,
};
pub use traits::{
    Criterion, LearningRate, OpenStep, Optimizer, OptimizerExt, Pruner, PrunerExt, Quantizer, QuantizerExt, Resume,
    Step,
};

#[cfg(all(doctest, feature = "ndarray"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/EXTENDING.md")]
struct Extending;

#[cfg(doctest)]
#[doc = include_str!("../docs/BACKENDS.md")]
struct Backends;

#[cfg(doctest)]
#[doc = include_str!("../docs/QUANTIZATION.md")]
struct Quantization;

#[cfg(doctest)]
#[doc = include_str!("../docs/SPARSITY.md")]
struct Sparsity;

#[cfg(doctest)]
#[doc = include_str!("../docs/MODELS.md")]
struct Models;

#[cfg(doctest)]
#[doc = include_str!("../docs/SERDE.md")]
struct Serde;
