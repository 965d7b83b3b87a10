//! Weights of ONNX models as codes, the rest as it was.

mod activations;
mod decide;
#[cfg(feature = "rten")]
pub(super) mod floats;
pub(super) mod nodes;
mod opset;
mod rewrite;
mod ways;
mod weights;

#[cfg(feature = "rten")]
use super::slimming::slim;
use super::{
    copy,
    encode::encode,
    look::Cost,
    recipe::Recipe,
    report::Report,
    run::{Stage, Watch, Watched, both, check_paths, each},
    source::{CHUNK, Source},
};
use crate::{
    error::{Error, Result},
    format::{
        file::{Layout, TensorFile, Writer},
        onnx::{self, Onnx, proto::ModelProto},
    },
    quant::layout::{MatMulNBits, OnnxLinear, ZeroPoints},
    tensor::{Grid, QTensor, Scales, Values},
};
use decide::Length;
use rewrite::{Codes, Item, Target};
use std::path::{Path, PathBuf};

/// Quantizes the weights of an ONNX model, or prunes them, or both: matrices of `MatMul` and `Gemm`, kernels of convolutions, the
/// matrices of `LSTM`, `GRU` and `RNN`, and tables of `Gather`, in the main graph and those within it, initializers and constants. All
/// else stays as it was. `watch` is called again and again, and can stop the work.
///
/// Pruned weights that are not quantized keep their elements, with zeros among them, or become
/// [sparse initializers](super::Pruning::sparse_initializers).
///
/// A model with weights in other files, or of 2 GB and more, gets its weights in a file of its own, `output` with `.data` after it.
///
/// # Errors
/// As [`Onnx::open`]; [`NonFinite`](crate::ErrorKind::NonFinite) for a weight that is NaN or infinite, with its name;
/// [`Io`](crate::ErrorKind::Io) when the output cannot be written; [`Cancelled`](crate::ErrorKind::Cancelled) when `watch` says so;
/// [`Argument`](crate::ErrorKind::Argument) where both paths are the same file, and for [`Activations`](crate::compress::Activations) with
/// other weights than of 8 bits and a scale for each output channel. [`Budget`](crate::ErrorKind::Budget)
/// where nothing keeps within the recipe's budget, with the least there is. With activations whose levels are found now also what
/// running the model can say, and `NonFinite`, with its name, for one that is NaN or infinite on one of the inputs.
/// With slimming also [`Format`](crate::ErrorKind::Format) and [`Shape`](crate::ErrorKind::Shape), for a graph that is none.
/// There is no output then, and the input is as it was.
pub fn quantize(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    recipe: &Recipe,
    watch: Watch<'_>,
) -> Result<Report> {
    run(input.as_ref(), output.as_ref(), recipe, watch, CHUNK)
}

fn run(input: &Path, output: &Path, recipe: &Recipe, watch: Watch<'_>, chunk: usize) -> Result<Report> {
    recipe.check_graph(true)?;
    let read = Onnx::open(input)?;
    check_paths(input, &read, &[output, &beside(output)])?;
    let external = read.is_external();
    let model = read.inlined()?;
    #[cfg(feature = "rten")]
    let (model, slimmed) = match &recipe.slimming {
        Some(slimming) => slim(model, slimming, watch).map(|(model, report)| (model, Some(report)))?,
        None => (model, None),
    };
    let mut model = model;
    let (recipe, note) = activations::prepare(&mut model, recipe)?;
    let decided = decide::decide(model, &recipe, external, watch, |model| Files::new(model, external, output))?;
    let decide::Decided { prepared, items, mut report, files, left } = decided;
    report.notes.extend(note);
    #[cfg(feature = "rten")]
    {
        report.slimmed = slimmed;
    }
    if read.unknown_bytes() > 0 {
        let note = "The input has {} bytes of fields that are not known here, or written in an unusual way; they are not in the output.";
        report.notes.push(note.replace("{}", &read.unknown_bytes().to_string()));
    }
    report.bytes_before = read.byte_len();
    report.bytes_after = files.byte_len();
    let Files { first, second } = files;
    let (writer, own) = match second {
        None => (first.create(output)?, None),
        Some((own, data)) => (first.create(data)?, Some(own.create(output)?)),
    };
    let watched = Watched::new(watch, Stage::Write, items.iter().map(|item| item.source.bytes.len() as u64).sum());
    let costs = each(&items, |item| {
        let source = prepared.looked_at(item.number, item.axis, item.source.clone());
        let written = source.and_then(|source| item.write(&source, &writer, chunk, &watched));
        written.map_err(|error| error.in_tensor(&item.name))
    })?;
    report.measured(items.iter().map(|item| item.report).zip(costs), left);
    // A map of many pages takes a while to give back, and so do pages to reach the disk.
    let end = || match own {
        None => writer.finish(),
        Some(own) => writer.finish_both(own),
    };
    both(end, || drop((items, prepared, read))).0?;
    Ok(report)
}

/// The files of a model: its own, or that of its weights and then its own, with the path of the former.
struct Files {
    first: Layout,
    second: Option<(Layout, PathBuf)>,
}

impl Files {
    fn new(model: &ModelProto, external: bool, output: &Path) -> Result<Self> {
        let inline = if external { None } else { onnx::layout(model).ok() };
        if let Some(first) = inline {
            return Ok(Self { first, second: None });
        }
        let path = beside(output);
        let name = path.file_name().unwrap_or_default();
        let name = name.to_str().ok_or_else(|| Error::argument("name of the output", name.display(), "UTF-8"))?;
        let (own, data) = onnx::layout_external(model, name)?;
        Ok(Self { first: data, second: Some((own, path)) })
    }
}

impl Length for Files {
    fn byte_len(&self) -> u64 {
        self.first.byte_len() + self.second.as_ref().map_or(0, |(own, _)| own.byte_len())
    }
}

/// Where the weights of a model go that do not fit into it.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".data");
    output.with_file_name(name)
}

impl Item {
    /// Writes the parts of what the tensor becomes to their places.
    fn write(&self, source: &Source, writer: &Writer, chunk: usize, watched: &Watched<'_>) -> Result<Cost> {
        let size = source.element.bytes(1).unwrap_or(0);
        let mut ends = [0u64; 3];
        let mut put = |which: usize, number: usize, bytes: &[u8]| -> Result<()> {
            writer.write(number, ends[which], bytes)?;
            ends[which] += bytes.len() as u64;
            Ok(())
        };
        let step = |elements: usize| watched.add(&self.name, (elements * size) as u64);
        let (scheme, form) = match self.target {
            Target::Codes { scheme, form } => (scheme, form),
            Target::Dense { place } => return copy::dense(source, &mut |bytes| put(0, place, bytes), &step),
            Target::Sparse { values, indices } => {
                let mut both = |kept: &[u8], places: &[u8]| {
                    put(0, values, kept)?;
                    put(1, indices, places)
                };
                return copy::sparse(source, &mut both, &step);
            }
        };
        let mut first = true;
        encode(source, scheme, chunk, &mut |_, q: &QTensor| {
            let levels = first || !scheme.shares_levels();
            first = false;
            match form {
                Codes::Dequantize { dtype, codes, scales, zeros } => {
                    let linear = OnnxLinear::from_qtensor(q, dtype)?;
                    put(0, codes, linear.data())?;
                    if levels {
                        put(1, scales, &scale_bytes(q.grid())?)?;
                        if let (Some(number), Some(bytes)) = (zeros, linear.zero_points()) {
                            put(2, number, bytes)?;
                        }
                    }
                }
                Codes::MatMulNBits { block, codes, scales, zeros } => {
                    let matrix = MatMulNBits::from_qtensor(q, block)?;
                    put(0, codes, matrix.packed())?;
                    put(1, scales, &bytes_of(matrix.scales())?)?;
                    if let (Some(number), ZeroPoints::Packed(bytes)) = (zeros, matrix.zero_points()) {
                        put(2, number, bytes)?;
                    }
                }
            }
            step(q.len())
        })
    }
}

fn scale_bytes(grid: &Grid) -> Result<Vec<u8>> {
    match grid {
        Grid::Affine { scale, .. } => bytes_of(scale),
        other => Err(Error::argument("levels", other.form(), "scales and zero points")),
    }
}

fn bytes_of(scales: &Scales) -> Result<Vec<u8>> {
    match scales {
        Scales::Full(Values::F32(values)) => {
            let mut bytes = vec![0; 4 * values.len()];
            bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(bytes, scale)| *bytes = scale.to_le_bytes());
            Ok(bytes)
        }
        other => Err(Error::argument("scales", other.form(), "of 32 bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Pruning;
    use crate::format::{
        file::ElementType,
        onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto},
    };
    use std::{fs, ops::ControlFlow};

    #[test]
    fn parts_make_up_the_whole() {
        let dir = std::env::temp_dir().join(format!("lapidary-parts-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (mut nodes, mut initializer) = (Vec::new(), Vec::new());
        let shapes: [(&str, &[usize]); 6] = [
            ("MatMul", &[150, 33]),
            ("Gemm", &[77, 65]),
            ("Conv", &[70, 19, 3, 3]),
            ("ConvTranspose", &[70, 19, 3, 3]),
            ("Gather", &[333, 31]),
            ("GRU", &[2, 48, 17]),
        ];
        for (i, (operator, shape)) in shapes.into_iter().enumerate() {
            let count: usize = shape.iter().product();
            let raw = (0..count).flat_map(|at| ((at * 31 + i) as f32 * 0.37).sin().to_le_bytes()).collect::<Vec<u8>>();
            initializer.push(onnx::tensor(operator, ElementType::F32, shape, raw.into()).unwrap());
            let input = if operator == "Gather" { vec![operator.into()] } else { vec!["x".into(), operator.into()] };
            nodes.push(NodeProto { op_type: Some(operator.into()), input, ..Default::default() });
        }
        let model = ModelProto {
            ir_version: Some(10),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(25) }],
            graph: Some(GraphProto { node: nodes, initializer, ..Default::default() }),
            ..Default::default()
        };
        let (input, output) = (dir.join("in.onnx"), dir.join("out.onnx"));
        onnx::layout(&model).unwrap().create(&input).unwrap().finish().unwrap();
        for bits in [2, 4, 8] {
            for recipe in
                [Recipe::new().with_bits(bits).unwrap(), Recipe::new().with_bits(bits).unwrap().with_group(16).unwrap()]
            {
                let share = recipe.clone().with_pruning(Pruning::sparsity(0.3).unwrap().globally());
                let blocks = recipe.clone().with_pruning(Pruning::n_of_m(2, 4).unwrap());
                for recipe in [recipe.clone(), recipe.symmetric(), share, blocks] {
                    let written = |chunk: usize| {
                        let report = run(&input, &output, &recipe, &|_| ControlFlow::Continue(()), chunk).unwrap();
                        assert!(
                            report.tensors.len() == 6 && report.tensors.iter().all(|tensor| tensor.outcome.is_ok())
                        );
                        fs::read(&output).unwrap()
                    };
                    let whole = written(CHUNK);
                    assert!(written(300) == whole && written(1) == whole, "{recipe:?}");
                }
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
