//! A model and its smaller one run on the same inputs, and what differs.

mod report;

pub(super) use report::Comparison;
pub use report::{Changed, OutputReport, Verification};

use super::runtime::{Inputs, Model, check};
use crate::error::{Error, Result};
use std::path::Path;

/// Runs an ONNX model and a smaller one made of it on the same inputs, and compares each output.
///
/// The runtime is `rten`, unless [`Inputs::with_runtime`] says otherwise. What `rten` does not have is made of what it has, first:
/// `DequantizeLinear` of constants of 2, 4 or 8 bits becomes the tensor of `f32` that it stands for, `MatMulNBits` becomes `MatMul` with
/// one, and `MatMulInteger` by a constant a `MatMul` of integers in `f32`. The rest is as it is in the files: activations become codes
/// and numbers again where the model says so. So this says what the codes cost, not how another runtime rounds. `rten` has no types of
/// 16 bits, and takes 64-bit integers as those of 32.
///
/// One model after the other is in memory as a whole, decoded, two to three times; [`Inputs::with_limit`] says how large it may be.
/// The inputs are the same on each run; the runtime's sums are in an order of its own, which may depend on the processor.
///
/// ```no_run
/// use lapidary::compress::{self, Inputs};
/// let verification = compress::verify("model.onnx", "small.onnx", &Inputs::random(0).with_batch(4).with_size("sequence", 16))?;
/// println!("{verification}");
/// assert!(verification.max_relative() < 0.01);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// As [`Onnx::open`](crate::format::onnx::Onnx::open); [`Argument`](crate::ErrorKind::Argument) for a model beyond the limit, for inputs
/// that are missing, unknown or of another type, and for models with other outputs; [`Shape`](crate::ErrorKind::Shape) for inputs and
/// outputs of other shapes; [`Runtime`](crate::ErrorKind::Runtime), with the runtime's words, when it cannot load or run a model, or
/// panics, or its library is not found.
pub fn verify(original: impl AsRef<Path>, compressed: impl AsRef<Path>, inputs: &Inputs) -> Result<Verification> {
    let first = Model::open(original.as_ref(), inputs.limit)?;
    let second = Model::open(compressed.as_ref(), inputs.limit)?;
    if first.outputs.is_empty() {
        return Err(Error::empty("list of the model's outputs"));
    }
    if let Some(missing) = first.outputs.iter().find(|name| !second.outputs.contains(name)) {
        return Err(Error::argument("output", "missing in the compressed model", "in both").in_tensor(missing));
    }
    let samples = inputs.samples(&first.inputs)?;
    check(&second.inputs, samples.first().map_or(&[][..], Vec::as_slice))?;

    let outputs = first.outputs.clone();
    let (session, expanded_original) = first.load("the original model", inputs)?;
    let want = samples.iter().map(|sample| session.run(sample, &outputs)).collect::<Result<Vec<_>>>()?;
    drop(session);
    let (session, expanded_compressed) = second.load("the compressed model", inputs)?;
    let mut comparisons: Vec<_> = outputs.iter().map(|name| Comparison::new(name)).collect();
    for (i, (sample, want)) in samples.iter().zip(want).enumerate() {
        let got = session.run(sample, &outputs)?;
        for ((comparison, want), got) in comparisons.iter_mut().zip(want).zip(got) {
            comparison.add(i, &want, &got)?;
        }
    }
    let outputs = comparisons.into_iter().map(Comparison::finish).collect();
    let (runtime, samples) = (inputs.runtime, samples.len());
    Ok(Verification { outputs, samples, runtime, expanded_original, expanded_compressed })
}
