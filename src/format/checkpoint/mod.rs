//! Checkpoints of training: all that a run needs, beside its weights, to go on as if it had not stopped, to the bit.
//!
//! ```
//! use lapidary::{format::checkpoint::{Checkpoint, Loaded}, optim::{AdamW, Params, Scaler, Update}};
//! let build = || -> lapidary::Result<_> {
//!     let mut params = Params::new();
//!     let group = params.group(AdamW::new(1e-3)?);
//!     params.add("fc.weight", &[2, 3], group)?;
//!     Ok((params, group))
//! };
//! let (mut params, group) = build()?;
//! let mut scaler = Scaler::new(1024.0)?;
//! let mut w = vec![1.0f32; 6];
//! params.step(&mut [Update::shaped(&mut w, &[0.1; 6], &[2, 3])?])?;
//! params.set_learning_rate(group, 5e-4)?;
//! scaler.update(true);
//!
//! let path = std::env::temp_dir().join(format!("lapidary-example-{}.safetensors", std::process::id()));
//! Checkpoint::new().with_params(&params)?.with_resume("scaler", &scaler)?.with_number("step", 1.0)?.save(&path)?;
//!
//! let (mut again, group) = build()?;
//! let mut scaler = Scaler::new(1024.0)?;
//! let loaded = Loaded::open(&path)?;
//! loaded.restore_params(&mut again)?; // all or nothing
//! loaded.resume("scaler", &mut scaler)?;
//! assert_eq!(again.state("fc.weight")?, params.state("fc.weight")?);
//! assert_eq!((again.learning_rate(group)?, scaler.scale(), loaded.number("step")?), (5e-4, 512.0, 1.0));
//! # std::fs::remove_file(path).unwrap();
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! A checkpoint holds what changes from step to step. Hyper-parameters are the program's: build the same optimizers, then restore.
//! A [`Schedule`](crate::optim::Schedule) is a function of the step: save that as a number. Other optimizers, shapes or precisions are
//! refused, with the parameter's name, before anything is written.
//!
//! # The file
//!
//! It is a [safetensors](https://huggingface.co/docs/safetensors) file, which many programs read. For each parameter `NAME`:
//!
//! | tensor | type | shape | what |
//! |---|---|---|---|
//! | `NAME.SLOT` | F32, F64 or BF16 | the slot's | a [slot](crate::Slot), `fc.weight.exp_avg` |
//! | `NAME.SLOT.codes` | U8 | the slot's | a slot in [8 bits](crate::Block8) |
//! | `NAME.SLOT.exponents` | U8 | one for each 256 codes | |
//! | `NAME.mask` | U8 | the parameter's | 1 where the mask keeps an element, else 0 |
//!
//! Its `__metadata__`:
//!
//! | key | what |
//! |---|---|
//! | `format` | `lapidary-checkpoint` |
//! | `version` | `1` |
//! | `notes` | everything that is no tensor, as JSON |
//! | `checksum` | CRC-32 of all bytes after the header, then those of `notes`, as 8 hexadecimal digits |
//!
//! The notes, where a number is a text that is read as the same 64 bits (`"0.001"`, `"inf"`):
//!
//! ```json
//! {
//!   "learning_rates": ["0.0005"],
//!   "states": {"fc.weight": {
//!     "algorithm": "AdamW", "steps": 1, "shape": [2, 3],
//!     "slots": [["exp_avg", "f32"], ["exp_avg_sq", "non-negative 8-bit blocks"]],
//!     "scalars": [["mu_product", "0.98"]],
//!     "param": {"group": 0, "frozen": false, "masked": true}
//!   }},
//!   "objects": {"scaler": {"good_steps": "0.0", "scale": "512.0"}},
//!   "numbers": {"step": "1.0"}
//! }
//! ```
//!
//! The form of a slot is `f32`, `f64`, `bf16`, `signed 8-bit blocks`, `shifted 8-bit blocks` or `non-negative 8-bit blocks`. `learning_rates` is `null` without a
//! [`Params`](crate::optim::Params), and `param` that of a state outside one. The same training state has the same bytes. In Python:
//!
//! ```python
//! with safetensors.safe_open("run.safetensors", "np") as file:
//!     notes = json.loads(file.metadata()["notes"])
//!     first_moment = file.get_tensor("fc.weight.exp_avg")
//! ```

mod notes;
mod read;
mod write;

pub use read::Loaded;
pub use write::Checkpoint;

const FORMAT: &str = "lapidary-checkpoint";
const VERSION: &str = "1";

/// The checksum of tensors and notes.
fn checksum(mut tensors: crc32fast::Hasher, notes: &str) -> String {
    tensors.update(notes.as_bytes());
    format!("{:08x}", tensors.finalize())
}
