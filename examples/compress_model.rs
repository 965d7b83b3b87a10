//! Makes a model file smaller.
//!
//! ```text
//! cargo run --release --all-features --example compress_model -- model.onnx small.onnx --bits 4 --group 32
//! cargo run --release --all-features --example compress_model -- model.pt small.safetensors --bits 8 --report report.json
//! cargo run --release --all-features --example compress_model -- model.safetensors small.gguf --bits 4
//! ```
//!
//! The format of the output is told by its extension: an ONNX model stays one; the tensors of any file become safetensors or GGUF.
//! With the feature `rten`, `--verify` runs both models on random inputs and prints what differs.
//!
//! Exit code 0; 1 with a message when it fails, and then there is no output; 2 for wrong arguments.

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lapidary::{
    compress::{self, Form, Progress, Recipe, TensorReport},
    format::safetensors::Convention,
};
use serde_json::json;
use std::{error::Error, fs, ops::ControlFlow, path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(about = "Makes a model file smaller")]
struct Args {
    /// The model
    input: PathBuf,
    /// The smaller model
    output: PathBuf,
    /// Bits of a weight: 2, 4 or 8; without, weights are not quantized
    #[arg(long)]
    bits: Option<u8>,
    /// Weights that share a scale; without, those of an output channel
    #[arg(long)]
    group: Option<usize>,
    /// No zero points
    #[arg(long)]
    symmetric: bool,
    /// How an ONNX model has them, or a safetensors file: lapidary, pack-quantized, int-quantized or per-channel-int8
    #[arg(long, value_enum, default_value_t = Scheme::Auto)]
    scheme: Scheme,
    /// Tensors with this in their names stay; may be given again
    #[arg(long)]
    keep: Vec<String>,
    /// Only tensors with this in their names, or of this operator; may be given again
    #[arg(long)]
    only: Vec<String>,
    /// Smaller tensors stay
    #[arg(long, default_value_t = 1024)]
    min_elements: usize,
    /// Writes what was done there, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// Runs both models on random inputs and prints what differs
    #[cfg(feature = "rten")]
    #[arg(long)]
    verify: bool,
    /// Fails when an output differs by more, relative to its norm; without an output then
    #[cfg(feature = "rten")]
    #[arg(long, requires = "verify")]
    max_error: Option<f64>,
    /// Sizes that the model leaves open, for inputs to verify by
    #[cfg(feature = "rten")]
    #[arg(long, default_value_t = 4)]
    batch: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scheme {
    /// As the model can have it
    Auto,
    /// `DequantizeLinear`
    Dequantize,
    /// `MatMulNBits`
    MatmulNbits,
    /// Any bits and groups, by this crate
    Lapidary,
    /// Of compressed-tensors
    PackQuantized,
    /// Of compressed-tensors
    IntQuantized,
    /// 8 bits and a scale a row
    PerChannelInt8,
}

impl Scheme {
    fn form(self) -> Result<Form, Box<dyn Error>> {
        match self {
            Self::Auto => Ok(Form::Auto),
            Self::Dequantize => Ok(Form::Dequantize),
            Self::MatmulNbits => Ok(Form::MatMulNBits),
            _ => Err("an ONNX model has schemes auto, dequantize and matmul-nbits".into()),
        }
    }

    fn convention(self) -> Result<Convention, Box<dyn Error>> {
        match self {
            Self::Auto | Self::Lapidary => Ok(Convention::Lapidary),
            Self::PackQuantized => Ok(Convention::PackQuantized),
            Self::IntQuantized => Ok(Convention::IntQuantized),
            Self::PerChannelInt8 => Ok(Convention::PerChannelInt8),
            _ => Err("a safetensors file has no scheme of ONNX".into()),
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut recipe = Recipe::new().keep(&args.keep).only(&args.only).with_min_elements(args.min_elements);
    if let Some(bits) = args.bits {
        recipe = recipe.with_bits(bits)?;
    }
    if let Some(size) = args.group {
        recipe = recipe.with_group(size)?;
    }
    if args.symmetric {
        recipe = recipe.symmetric();
    }
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}")?);
    let watch = |progress: Progress<'_>| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(progress.tensor.to_string());
        ControlFlow::Continue(())
    };
    let extension = args.output.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let report = match &*extension {
        "onnx" => compress::onnx(&args.input, &args.output, &recipe.with_form(args.scheme.form()?), &watch),
        "safetensors" => compress::safetensors(&args.input, &args.output, &recipe, args.scheme.convention()?, &watch),
        "gguf" => compress::gguf(&args.input, &args.output, &recipe, &watch),
        other => return Err(format!("no output of extension {other:?}: onnx, safetensors or gguf").into()),
    };
    bar.finish_and_clear();
    let report = report?;
    println!("{report}");
    if let Some(path) = &args.report {
        let tensor = |tensor: &TensorReport| {
            json!({
                "name": tensor.name,
                "shape": tensor.shape,
                "operators": tensor.operators,
                "now": tensor.outcome.as_ref().ok(),
                "unchanged_because": tensor.outcome.as_ref().err(),
                "bytes_before": tensor.bytes_before,
                "bytes_after": tensor.bytes_after,
                "sqnr_db": tensor.sqnr_db,
                "max_abs_error": tensor.max_abs,
                "bound": tensor.bound,
            })
        };
        let all = json!({
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
            "notes": report.notes,
            "tensors": report.tensors.iter().map(tensor).collect::<Vec<_>>(),
        });
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    #[cfg(feature = "rten")]
    if args.verify {
        return verify(args).inspect_err(|_| remove(&args.output));
    }
    Ok(())
}

#[cfg(feature = "rten")]
fn verify(args: &Args) -> Result<(), Box<dyn Error>> {
    let inputs = compress::Inputs::random(0).with_batch(args.batch).with_samples(4);
    let verification = compress::verify(&args.input, &args.output, &inputs)?;
    println!("\n{verification}");
    let found = verification.max_relative();
    match args.max_error {
        // NaN is above nothing.
        Some(allowed) if found > allowed || allowed.is_nan() => {
            Err(format!("an output differs by {found:.2e}, more than {allowed:.2e}").into())
        }
        _ => Ok(()),
    }
}

/// Removes a model and the file of its weights.
#[cfg(feature = "rten")]
fn remove(model: &std::path::Path) {
    let mut data = model.as_os_str().to_os_string();
    data.push(".data");
    for path in [model, data.as_ref()] {
        let _ = fs::remove_file(path);
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
