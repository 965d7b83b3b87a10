//! What the command takes.

use super::Failure;
use clap::{ArgGroup, Parser, ValueEnum};
use lapidary::ErrorKind;
#[cfg(all(feature = "rten", feature = "linalg"))]
use lapidary::compress::Ranking;
#[cfg(feature = "rten")]
use lapidary::compress::{Inputs, RangeMethod, Slimming};
use lapidary::{
    compress::{Activations, Budget, Form, Pruning, Recipe},
    format::safetensors::Convention,
};
use std::{path::PathBuf, str::FromStr};

#[derive(Parser)]
#[command(about = "Makes a model file smaller")]
#[command(group(ArgGroup::new("budget").args(["budget_mb", "max_error"])))]
#[command(group(ArgGroup::new("zeros").args(["sparsity", "n_of_m"])))]
pub(crate) struct Args {
    /// The model
    pub(crate) input: PathBuf,
    /// The smaller model
    pub(crate) output: PathBuf,

    /// Bits of a weight: 2, 4 or 8; without, weights are not quantized; within a budget, the fewest
    #[arg(long, help_heading = "Quantization")]
    bits: Option<u8>,
    /// Weights that share a scale; without, those of an output channel
    #[arg(long, help_heading = "Quantization")]
    group: Option<usize>,
    /// No zero points
    #[arg(long, help_heading = "Quantization")]
    symmetric: bool,
    /// How an ONNX model has them, or a safetensors file: lapidary, pack-quantized, int-quantized or per-channel-int8
    #[arg(long, value_enum, default_value_t = Scheme::Auto, help_heading = "Quantization")]
    scheme: Scheme,
    /// The output has at most so many million bytes: the bits of each weight are chosen
    #[arg(long, help_heading = "Quantization")]
    budget_mb: Option<f64>,
    /// The weights differ by at most this share of their size (2-norms): the bits of each weight are chosen
    #[arg(long, help_heading = "Quantization")]
    max_error: Option<f64>,

    /// The share of weights that become zero, from 0 to 1
    #[arg(long, help_heading = "Pruning")]
    sparsity: Option<f64>,
    /// So many of each so many neighbours stay, as 2:4
    #[arg(long, help_heading = "Pruning")]
    n_of_m: Option<NofM>,
    /// The share is one of all weights together, not of each tensor
    #[arg(long, requires = "sparsity", help_heading = "Pruning")]
    globally: bool,
    /// An ONNX model lists only what is not zero, where that is smaller
    #[arg(long, requires = "zeros", help_heading = "Pruning")]
    sparse_initializers: bool,

    /// An ONNX model loses this share of the channels of each group, from 0 to 1
    #[cfg(feature = "rten")]
    #[arg(long, help_heading = "Slimming of ONNX models")]
    slim: Option<f64>,
    /// As many channels stay as a multiple of this
    #[cfg(feature = "rten")]
    #[arg(long, requires = "slim", default_value_t = 1, help_heading = "Slimming of ONNX models")]
    multiple: usize,
    /// So many residual blocks leave first
    #[cfg(feature = "rten")]
    #[arg(long, requires = "slim", default_value_t = 0, help_heading = "Slimming of ONNX models")]
    drop_blocks: usize,
    /// Layers are fitted again by least squares, damped by this share of the mean square
    #[cfg(all(feature = "rten", feature = "linalg"))]
    #[arg(long, requires = "slim", num_args = 0..=1, default_missing_value = "1e-4", help_heading = "Slimming of ONNX models")]
    repair: Option<f64>,

    /// An ONNX model multiplies by integers: levels of activations are found when it runs, or now, on the inputs
    #[arg(long, value_enum, requires = "bits", help_heading = "Activations of ONNX models")]
    activations: Option<Levels>,

    /// Tensors with this in their names stay; one name or more, or given again
    #[arg(long, num_args = 1.., help_heading = "Which weights")]
    keep: Vec<String>,
    /// Only tensors with this in their names, or of this operator; one or more, or given again
    #[arg(long, num_args = 1.., help_heading = "Which weights")]
    only: Vec<String>,
    /// Smaller tensors stay
    #[arg(long, default_value_t = 1024, help_heading = "Which weights")]
    min_elements: usize,

    /// Writes what was done there: a page to look at where it ends in .html, else JSON
    #[arg(long, help_heading = "Report")]
    pub(crate) report: Option<PathBuf>,
    /// No progress, and no table at the end
    #[arg(long, help_heading = "Report")]
    pub(crate) quiet: bool,
    /// Runs both models on the inputs and prints what differs
    #[cfg(feature = "rten")]
    #[arg(long, help_heading = "Verification of ONNX models")]
    pub(crate) verify: bool,
    /// Fails when an output differs by more, relative to its norm; without an output then
    #[cfg(feature = "rten")]
    #[arg(long, requires = "verify", help_heading = "Verification of ONNX models")]
    pub(crate) max_difference: Option<f64>,
    /// What the model runs on, to slim, to find levels and to verify: a file of tensors called as its inputs, such as .npz; random without
    #[cfg(feature = "rten")]
    #[arg(long, help_heading = "Inputs of ONNX models")]
    inputs: Option<PathBuf>,
    /// Random inputs: sizes that the model leaves open
    #[cfg(feature = "rten")]
    #[arg(long, default_value_t = 4, help_heading = "Inputs of ONNX models")]
    batch: usize,
}

/// When the levels of activations are found.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Levels {
    /// When the model runs
    Dynamic,
    /// Now, on the inputs
    #[cfg(feature = "rten")]
    Static,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
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

/// `2:4`.
#[derive(Debug, Clone, Copy)]
struct NofM(usize, usize);

impl FromStr for NofM {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(n, m)| Some(Self(n.parse().ok()?, m.parse().ok()?)));
        parts.ok_or_else(|| "two numbers, as 2:4".into())
    }
}

/// What the output is, by its extension.
pub(crate) enum Target {
    Onnx,
    Safetensors(Convention),
    Gguf,
}

/// What is to be done.
pub(crate) struct Task {
    pub(crate) recipe: Recipe,
    pub(crate) target: Target,
}

impl Args {
    /// The work, or what is wrong with the arguments.
    pub(crate) fn task(&self) -> Result<Task, Failure> {
        let (target, form) = self.target().map_err(|message| Failure(2, message))?;
        self.check_report().map_err(|message| Failure(2, message))?;
        let recipe = self.recipe().map_err(|error| match error.kind() {
            ErrorKind::Argument => Failure(2, error.to_string()),
            _ => Failure::from(error),
        })?;
        Ok(Task { recipe: recipe.with_form(form), target })
    }

    /// An error where the report would be written over another file of this run.
    fn check_report(&self) -> Result<(), String> {
        let Some(report) = &self.report else { return Ok(()) };
        let whole = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let mut data = self.output.clone().into_os_string();
        data.push(".data");
        let others = [self.input.clone(), self.output.clone(), data.into()];
        #[cfg(feature = "rten")]
        let others = [&others[..], self.inputs.as_slice()].concat();
        match others.iter().any(|other| whole(other) == whole(report)) {
            true => Err("the report is to be another file than the models and their inputs".into()),
            false => Ok(()),
        }
    }

    fn recipe(&self) -> lapidary::Result<Recipe> {
        let mut recipe = Recipe::new().keep(&self.keep).only(&self.only).with_min_elements(self.min_elements);
        if let Some(bits) = self.bits {
            recipe = recipe.with_bits(bits)?;
        }
        if let Some(size) = self.group {
            recipe = recipe.with_group(size)?;
        }
        if self.symmetric {
            recipe = recipe.symmetric();
        }
        let pruning = match (self.sparsity, self.n_of_m) {
            (Some(share), _) => Some(Pruning::sparsity(share)?),
            (None, Some(NofM(n, m))) => Some(Pruning::n_of_m(n, m)?),
            (None, None) => None,
        };
        if let Some(mut pruning) = pruning {
            if self.globally {
                pruning = pruning.globally();
            }
            if self.sparse_initializers {
                pruning = pruning.sparse_initializers();
            }
            recipe = recipe.with_pruning(pruning);
        }
        if let Some(megabytes) = self.budget_mb {
            if !(megabytes >= 0.0 && megabytes.is_finite()) {
                return Err(lapidary::Error::argument("budget", megabytes, "finite and at least 0"));
            }
            recipe = recipe.with_budget(Budget::File((megabytes * 1e6) as u64))?;
        }
        if let Some(error) = self.max_error {
            recipe = recipe.with_budget(Budget::Error(error))?;
        }
        #[cfg(feature = "rten")]
        if let Some(share) = self.slim {
            let slimming = Slimming::ratio(share, self.inputs()?)?.with_multiple(self.multiple)?;
            let slimming = slimming.with_blocks_dropped(self.drop_blocks);
            #[cfg(feature = "linalg")]
            let slimming = match self.repair {
                Some(damping) => slimming.with_ranking(Ranking::Reconstruction).with_repair(damping)?,
                None => slimming,
            };
            recipe = recipe.with_slimming(slimming);
        }
        recipe = match self.activations {
            None => recipe,
            Some(Levels::Dynamic) => recipe.with_activations(Activations::Dynamic),
            #[cfg(feature = "rten")]
            Some(Levels::Static) => {
                recipe.with_activations(Activations::Static(self.inputs()?, RangeMethod::default()))
            }
        };
        if self.report.is_some() {
            recipe = recipe.with_histograms();
        }
        Ok(recipe)
    }

    /// What the model runs on.
    #[cfg(feature = "rten")]
    pub(crate) fn inputs(&self) -> lapidary::Result<Inputs> {
        match &self.inputs {
            Some(path) => Inputs::open(path),
            None => Ok(Inputs::random(0).with_batch(self.batch).with_samples(4)),
        }
    }

    fn target(&self) -> Result<(Target, Form), String> {
        let extension = self.output.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match (&*extension, self.scheme) {
            ("onnx", Scheme::Auto) => Ok((Target::Onnx, Form::Auto)),
            ("onnx", Scheme::Dequantize) => Ok((Target::Onnx, Form::Dequantize)),
            ("onnx", Scheme::MatmulNbits) => Ok((Target::Onnx, Form::MatMulNBits)),
            ("onnx", _) => Err("an ONNX model has schemes auto, dequantize and matmul-nbits".into()),
            ("safetensors", scheme) => {
                let convention = match scheme {
                    Scheme::Auto | Scheme::Lapidary => Convention::Lapidary,
                    Scheme::PackQuantized => Convention::PackQuantized,
                    Scheme::IntQuantized => Convention::IntQuantized,
                    Scheme::PerChannelInt8 => Convention::PerChannelInt8,
                    Scheme::Dequantize | Scheme::MatmulNbits => {
                        return Err("a safetensors file has no scheme of ONNX".into());
                    }
                };
                Ok((Target::Safetensors(convention), Form::Auto))
            }
            ("gguf", Scheme::Auto) => Ok((Target::Gguf, Form::Auto)),
            ("gguf", _) => Err("a GGUF file has types of its own: scheme auto".into()),
            (other, _) => Err(format!("no output of extension {other:?}: onnx, safetensors or gguf")),
        }
    }
}
