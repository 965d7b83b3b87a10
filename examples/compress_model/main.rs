//! Makes a model file smaller.
//!
//! ```text
//! cargo run --release --all-features --example compress_model -- model.onnx small.onnx --bits 4 --group 32
//! cargo run --release --all-features --example compress_model -- model.onnx small.onnx --budget-mb 5 --report report.html
//! cargo run --release --all-features --example compress_model -- model.onnx small.onnx --sparsity 0.9 --sparse-initializers
//! cargo run --release --all-features --example compress_model -- model.onnx small.onnx --slim 0.3 --repair --bits 8 --activations static --inputs data.npz
//! cargo run --release --all-features --example compress_model -- model.pt small.safetensors --n-of-m 2:4 --bits 8 --report report.json
//! cargo run --release --all-features --example compress_model -- model.safetensors small.gguf --bits 4 --keep lm_head norm
//! ```
//!
//! The format of the output is told by its extension: an ONNX model stays one; the tensors of any file become safetensors or GGUF.
//! With the feature `rten`, `--verify` runs both ONNX models and prints what differs, `--slim` and `--activations static` run the first: on
//! `--inputs`, or on random ones. A table of all weights is printed at the
//! end; `--report` writes it as a page with charts (`.html`, one file, nothing else is loaded) or as JSON.
//!
//! | exit code | |
//! |--:|---|
//! | 0 | done |
//! | 1 | an error: a file that cannot be read or written, a weight that is NaN |
//! | 2 | wrong arguments |
//! | 3 | `--verify`: the models differ by more than `--max-difference` |
//! | 4 | `--budget-mb`, `--max-error`: nothing keeps within it; the message says the least |
//!
//! With 1 to 4 there is no output, nor a part of one, and a message on standard error begins with `error: `.

mod args;
mod html;
mod json;
mod svg;

use args::{Args, Target, Task};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lapidary::{
    ErrorKind,
    compress::{self, Progress, Report},
};
use std::{
    fmt::Display,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What ends the command early: a message, and the exit code.
struct Failure(u8, String);

impl Failure {
    fn error(message: impl Display) -> Self {
        Self(1, message.to_string())
    }
}

impl From<lapidary::Error> for Failure {
    fn from(error: lapidary::Error) -> Self {
        Self(if error.kind() == ErrorKind::Budget { 4 } else { 1 }, error.to_string())
    }
}

/// What is said of the work.
struct Said<'a> {
    input: &'a Path,
    output: &'a Path,
    report: &'a Report,
    outputs: Vec<Difference>,
}

/// How an output of the smaller model differs.
struct Difference {
    name: String,
    max_abs: f64,
    relative: f64,
    cosine: f64,
    /// The share of rows whose largest element is where it was.
    agreement: f64,
}

fn compress(args: &Args, task: &Task) -> Result<Report, Failure> {
    let bar = if args.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let style = ProgressStyle::with_template("{prefix:<8} {bar:40} {percent:>3} % {wide_msg}");
    bar.set_style(style.map_err(Failure::error)?);
    let watch = |progress: Progress<'_>| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_prefix(progress.stage.to_string());
        bar.set_message(progress.tensor.to_string());
        ControlFlow::Continue(())
    };
    let (input, output, recipe) = (&args.input, &args.output, &task.recipe);
    let report = match task.target {
        Target::Onnx => compress::onnx(input, output, recipe, &watch),
        Target::Safetensors(convention) => compress::safetensors(input, output, recipe, convention, &watch),
        Target::Gguf => compress::gguf(input, output, recipe, &watch),
    };
    bar.finish_and_clear();
    Ok(report?)
}

/// Runs both models, where that is asked for.
#[cfg(feature = "rten")]
fn verify(args: &Args) -> Result<Vec<Difference>, Failure> {
    if !args.verify {
        return Ok(Vec::new());
    }
    let verification = compress::verify(&args.input, &args.output, &args.inputs()?)?;
    if !args.quiet {
        println!("{verification}\n");
    }
    let found = verification.max_relative();
    if let Some(allowed) = args.max_difference
        // NaN is within nothing.
        && (found > allowed || found.is_nan() || allowed.is_nan())
    {
        return Err(Failure(3, format!("an output differs by {found:.2e}, more than {allowed:.2e}")));
    }
    let difference = |output: &compress::OutputReport| Difference {
        name: output.name.clone(),
        max_abs: output.max_abs,
        relative: output.relative,
        cosine: output.cosine,
        agreement: output.argmax_agreement(),
    };
    Ok(verification.outputs.iter().map(difference).collect())
}

#[cfg(not(feature = "rten"))]
fn verify(_: &Args) -> Result<Vec<Difference>, Failure> {
    Ok(Vec::new())
}

/// Verifies, and writes the report.
fn finish(args: &Args, report: &Report) -> Result<(), Failure> {
    let said = Said { input: &args.input, output: &args.output, report, outputs: verify(args)? };
    let Some(path) = &args.report else { return Ok(()) };
    let is_page = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html"));
    let text = if is_page { html::page(&said) } else { json::text(&said).map_err(Failure::error)? };
    // Whole or not at all.
    let mut beside = path.clone().into_os_string();
    beside.push(".tmp");
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        Failure::error(format!("{}: {error}", path.display()))
    })
}

fn run(args: &Args) -> Result<(), Failure> {
    let task = args.task()?;
    let report = compress(args, &task)?;
    finish(args, &report).inspect_err(|_| remove(&args.output))?;
    if !args.quiet {
        println!("{report}");
    }
    Ok(())
}

/// Removes a model and the files of its weights.
fn remove(model: &Path) {
    let others = lapidary::format::file::open(model).map_or(Vec::new(), |read| read.files());
    for path in others.iter().map(PathBuf::as_path).chain([model]) {
        let _ = fs::remove_file(path);
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, message)) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}
