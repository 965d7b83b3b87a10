//! Weights of ONNX models as codes, the rest as it was.

pub(super) mod nodes;
mod opset;
mod rewrite;
mod weights;

#[cfg(feature = "rten")]
use super::slimming::slim;
use super::{
    encode::encode,
    recipe::Recipe,
    report::Report,
    run::{Watch, Watched, check_paths, each},
    source::{CHUNK, Cost},
};
use crate::{
    error::{Error, Result},
    format::{
        file::{TensorFile, Writer},
        onnx::{self, Onnx},
    },
    quant::layout::{MatMulNBits, OnnxLinear, ZeroPoints},
    tensor::{Grid, QTensor, Scales, Values},
};
use rewrite::{Item, Target};
use std::path::{Path, PathBuf};

/// Quantizes the weights of an ONNX model: matrices of `MatMul` and `Gemm`, kernels of convolutions, the matrices of `LSTM`, `GRU` and `RNN`,
/// and tables of `Gather`, in the main graph and those within it, initializers and constants. All else stays as it was. `watch` is called
/// again and again, and can stop the work.
///
/// A model with weights in other files, or of 2 GB and more, gets its weights in a file of its own, `output` with `.data` after it.
///
/// # Errors
/// As [`Onnx::open`]; [`NonFinite`](crate::ErrorKind::NonFinite) for a weight that is NaN or infinite, with its name;
/// [`Io`](crate::ErrorKind::Io) when the output cannot be written; [`Cancelled`](crate::ErrorKind::Cancelled) when `watch` says so;
/// [`Argument`](crate::ErrorKind::Argument) where both paths are the same file. There is no output then, and the input is as it was.
pub fn quantize(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    recipe: &Recipe,
    watch: Watch<'_>,
) -> Result<Report> {
    run(input.as_ref(), output.as_ref(), recipe, watch, CHUNK)
}

fn run(input: &Path, output: &Path, recipe: &Recipe, watch: Watch<'_>, chunk: usize) -> Result<Report> {
    check_paths(input, output)?;
    let read = Onnx::open(input)?;
    for path in read.files() {
        check_paths(&path, output)?;
        check_paths(&path, &beside(output))?;
    }
    let external = read.is_external();
    let model = read.inlined()?;
    #[cfg(feature = "rten")]
    let (model, slimmed) = match &recipe.slimming {
        Some(slimming) => slim(model, slimming, watch).map(|(model, report)| (model, Some(report)))?,
        None => (model, None),
    };
    let rewrite::Rewritten { model, items, mut report } = rewrite::rewrite(model, recipe)?;
    #[cfg(feature = "rten")]
    {
        report.slimmed = slimmed;
    }
    if read.unknown_bytes() > 0 {
        let note = "The input has {} bytes of fields that are not known here, or written in an unusual way; they are not in the output.";
        report.notes.push(note.replace("{}", &read.unknown_bytes().to_string()));
    }
    report.bytes_before = read.byte_len();
    let inline = if external { None } else { onnx::layout(&model).ok() };
    let (first, second) = match inline {
        Some(layout) => (layout, None),
        None => {
            let path = beside(output);
            let name = path.file_name().unwrap_or_default();
            let name = name.to_str().ok_or_else(|| Error::argument("name of the output", name.display(), "UTF-8"))?;
            let (own, data) = onnx::layout_external(&model, name)?;
            (data, Some((own, path)))
        }
    };
    report.bytes_after = first.byte_len() + second.as_ref().map_or(0, |(own, _)| own.byte_len());
    let (writer, own) = match second {
        None => (first.create(output)?, None),
        // Both are there before the first gets its name.
        Some((own, data)) => (first.create(data)?, Some(own.create(output)?)),
    };
    let watched = Watched::new(watch, items.iter().map(|item| item.source.bytes.len() as u64).sum());
    let costs = each(&items, |item| item.write(&writer, chunk, &watched).map_err(|error| error.in_tensor(&item.name)))?;
    writer.finish()?;
    own.map_or(Ok(()), Writer::finish)?;
    for (item, cost) in items.iter().zip(costs) {
        if let Some(tensor) = report.tensors.get_mut(item.report) {
            tensor.measured(cost);
        }
    }
    Ok(report)
}

/// Where the weights of a model go that do not fit into it.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".data");
    output.with_file_name(name)
}

impl Item {
    /// Quantizes the tensor and writes its parts to their places.
    fn write(&self, writer: &Writer, chunk: usize, watched: &Watched<'_>) -> Result<Cost> {
        let size = self.source.element.bytes(1).unwrap_or(0);
        let mut ends = [0u64; 3];
        let mut first = true;
        let mut put = |which: usize, number: usize, bytes: &[u8]| -> Result<()> {
            writer.write(number, ends[which], bytes)?;
            ends[which] += bytes.len() as u64;
            Ok(())
        };
        encode(&self.source, self.scheme, chunk, &mut |_, q: &QTensor| {
            let levels = first || !self.scheme.shares_levels();
            first = false;
            match self.target {
                Target::Dequantize { dtype, codes, scales, zeros } => {
                    let linear = OnnxLinear::from_qtensor(q, dtype)?;
                    put(0, codes, linear.data())?;
                    if levels {
                        put(1, scales, &scale_bytes(q.grid())?)?;
                        if let (Some(number), Some(bytes)) = (zeros, linear.zero_points()) {
                            put(2, number, bytes)?;
                        }
                    }
                }
                Target::MatMulNBits { block, codes, scales, zeros } => {
                    let matrix = MatMulNBits::from_qtensor(q, block)?;
                    put(0, codes, matrix.packed())?;
                    put(1, scales, &bytes_of(matrix.scales())?)?;
                    if let (Some(number), ZeroPoints::Packed(bytes)) = (zeros, matrix.zero_points()) {
                        put(2, number, bytes)?;
                    }
                }
            }
            watched.add(&self.name, (q.len() * size) as u64)
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
        Scales::Full(Values::F32(values)) => Ok(values.iter().flat_map(|scale| scale.to_le_bytes()).collect()),
        other => Err(Error::argument("scales", other.form(), "of 32 bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
                for recipe in [recipe.clone(), recipe.symmetric()] {
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
