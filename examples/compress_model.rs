//! Makes a model file smaller.
//!
//! ```text
//! cargo run --release --features onnx --example compress_model -- model.onnx small.onnx --bits 4 --group 32
//! ```
//!
//! With the feature `verify`, `--verify` runs both models on random inputs and prints what differs.
//!
//! Exit code 0; 1 with a message when it fails, and then there is no output; 2 for wrong arguments.

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lapidary::compress::{self, Form, Recipe};
use std::{error::Error, ops::ControlFlow, path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(about = "Makes a model file smaller")]
struct Args {
    /// The model
    input: PathBuf,
    /// The smaller model
    output: PathBuf,
    /// Bits of a weight: 2, 4 or 8
    #[arg(long, default_value_t = 8)]
    bits: u8,
    /// Weights that share a scale; without, those of an output channel
    #[arg(long)]
    group: Option<usize>,
    /// No zero points
    #[arg(long)]
    symmetric: bool,
    /// How an ONNX model has them
    #[arg(long, value_enum, default_value_t = Scheme::Auto)]
    scheme: Scheme,
    /// Tensors with this in their names stay; may be given again
    #[arg(long)]
    keep: Vec<String>,
    /// Only tensors with this in their names, or of this operator; may be given again
    #[arg(long)]
    only: Vec<String>,
    /// Runs both models on random inputs and prints what differs
    #[cfg(feature = "verify")]
    #[arg(long)]
    verify: bool,
    /// Fails when an output differs by more, relative to its norm; without an output then
    #[cfg(feature = "verify")]
    #[arg(long, requires = "verify")]
    max_error: Option<f64>,
    /// Sizes that the model leaves open, for inputs to verify by
    #[cfg(feature = "verify")]
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
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut recipe = Recipe::new(args.bits)?.keep(&args.keep).only(&args.only).with_form(match args.scheme {
        Scheme::Auto => Form::Auto,
        Scheme::Dequantize => Form::Dequantize,
        Scheme::MatmulNbits => Form::MatMulNBits,
    });
    if let Some(size) = args.group {
        recipe = recipe.with_group(size)?;
    }
    if args.symmetric {
        recipe = recipe.symmetric();
    }
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}")?);
    let report = compress::onnx(&args.input, &args.output, &recipe, &|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(progress.tensor.to_string());
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    println!("{}", report?);
    #[cfg(feature = "verify")]
    if args.verify {
        return verify(args).inspect_err(|_| remove(&args.output));
    }
    Ok(())
}

#[cfg(feature = "verify")]
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
#[cfg(feature = "verify")]
fn remove(model: &std::path::Path) {
    let mut data = model.as_os_str().to_os_string();
    data.push(".data");
    for path in [model, data.as_ref()] {
        let _ = std::fs::remove_file(path);
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
