//! A model and its smaller one run on the same inputs, and what differs.

mod decode;
mod expand;
mod inputs;
mod report;
mod runtime;

pub use inputs::{Feed, Inputs};
pub use report::{Changed, OutputReport, Verification};

use crate::{
    compress::onnx::weights::{inner_mut, names},
    error::{Error, Result},
    format::{
        file::TensorFile,
        onnx::{
            Onnx,
            proto::{GraphProto, ModelProto},
        },
    },
};
use inputs::Spec;
use prost::Message;
use report::Comparison;
use runtime::Session;
use std::{collections::BTreeSet, path::Path};

/// Runs an ONNX model and a smaller one made of it on the same inputs, by the runtime `rten`, and compares each output.
///
/// What the runtime does not have is made of what it has, first: `DequantizeLinear` of constants of 2, 4 or 8 bits becomes the tensor of
/// `f32` that it stands for, and `MatMulNBits` becomes `MatMul` with one. The rest is as it is in the files. So this says what the weights
/// cost, not how another runtime rounds. The runtime has no types of 16 bits, and takes 64-bit integers as those of 32.
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
/// As [`Onnx::open`]; [`Argument`](crate::ErrorKind::Argument) for a model beyond the limit, for inputs that are missing, unknown or of
/// another type, and for models with other outputs; [`Shape`](crate::ErrorKind::Shape) for inputs and outputs of other shapes;
/// [`Runtime`](crate::ErrorKind::Runtime), with the runtime's words, when it cannot load or run a model, or panics.
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
    inputs::check(&second.inputs, samples.first().map_or(&[][..], Vec::as_slice))?;

    let outputs = first.outputs.clone();
    let (session, expanded_original) = first.load("the original model", inputs.limit)?;
    let want = samples.iter().map(|sample| session.run(sample, &outputs)).collect::<Result<Vec<_>>>()?;
    drop(session);
    let (session, expanded_compressed) = second.load("the compressed model", inputs.limit)?;
    let mut comparisons: Vec<_> = outputs.iter().map(|name| Comparison::new(name)).collect();
    for (i, (sample, want)) in samples.iter().zip(want).enumerate() {
        let got = session.run(sample, &outputs)?;
        for ((comparison, want), got) in comparisons.iter_mut().zip(want).zip(got) {
            comparison.add(i, &want, &got)?;
        }
    }
    let outputs = comparisons.into_iter().map(Comparison::finish).collect();
    Ok(Verification { outputs, samples: samples.len(), expanded_original, expanded_compressed })
}

/// A model that is not loaded yet.
struct Model {
    model: ModelProto,
    bytes: u64,
    inputs: Vec<Spec>,
    outputs: Vec<String>,
}

impl Model {
    fn open(path: &Path, limit: u64) -> Result<Self> {
        let read = Onnx::open(path)?;
        let bytes = read.byte_len();
        if bytes > limit {
            return Err(Error::argument("bytes of the model in memory", bytes, "within the limit"));
        }
        let mut model = read.inlined()?;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        if let Some(graph) = &mut model.graph {
            // An input with a value of its own need not be given.
            let own: BTreeSet<_> = graph.initializer.iter().filter_map(|tensor| tensor.name.clone()).collect();
            graph.input.retain(|input| !input.name.as_ref().is_some_and(|name| own.contains(name)));
            inputs = graph.input.iter().map(Spec::new).collect();
            outputs = graph.output.iter().filter_map(|output| output.name.clone()).collect();
        }
        Ok(Self { model, bytes, inputs, outputs })
    }

    /// Makes it one that the runtime has all operators for, and loads it.
    fn load(mut self, what: &'static str, limit: u64) -> Result<(Session, Vec<String>)> {
        let expanded = expand::expand(&mut self.model, self.bytes, limit)?;
        if let Some(graph) = &mut self.model.graph {
            let mut values = BTreeSet::new();
            names(graph, &mut values);
            distinguish(graph, &values);
        }
        let encoded = self.model.encode_to_vec();
        drop(self.model);
        Ok((Session::load(what, encoded)?, expanded))
    }
}

/// Gives nodes that are called as a value another name: the runtime has one list of both.
fn distinguish(graph: &mut GraphProto, values: &BTreeSet<String>) {
    for node in &mut graph.node {
        if let Some(name) = &mut node.name {
            while values.contains(name) {
                name.push_str("_node");
            }
        }
        inner_mut(node).for_each(|graph| distinguish(graph, values));
    }
}
