//! What was done to a model, and what it cost.

use super::look::{Cost, Histogram};
use std::fmt;

/// What was done to a tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorReport {
    /// Its name in the model.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// The operators that read it.
    pub operators: Vec<String>,
    /// How it is kept now: `"uint4, blocks of 32"`; or why it is as it was.
    pub outcome: Result<String, String>,
    /// Bits of its codes, where it is quantized.
    pub bits: Option<u8>,
    /// Bytes of its elements before.
    pub bytes_before: u64,
    /// Bytes of what holds it now: codes, scales and zero points; or elements, and their indices where it is sparse.
    pub bytes_after: u64,
    /// Zeros before and after, where the recipe prunes or wants histograms.
    pub zeros: Option<(u64, u64)>,
    /// How its numbers were and are spread, where the recipe wants it.
    pub histogram: Option<Histogram>,
    /// Signal to noise in decibels, of all that was done to it, pruned and quantized; infinite without error.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::config::open"))]
    pub sqnr_db: Option<f64>,
    /// The largest error of an element.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::config::open"))]
    pub max_abs: Option<f64>,
    /// What no element's error is larger than, by what is stored alone.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::config::open"))]
    pub bound: Option<f64>,
}

impl TensorReport {
    /// A tensor of the file, as it is.
    pub(super) fn new(name: String, shape: Vec<usize>, operators: Vec<String>, bytes: u64) -> Self {
        Self {
            name,
            shape,
            operators,
            outcome: Err(String::new()),
            bits: None,
            bytes_before: bytes,
            bytes_after: bytes,
            zeros: None,
            histogram: None,
            sqnr_db: None,
            max_abs: None,
            bound: None,
        }
    }

    /// Puts down what it cost.
    pub(super) fn measured(&mut self, cost: Cost) {
        self.sqnr_db = Some(if cost.noise == 0.0 { f64::INFINITY } else { 10.0 * (cost.signal / cost.noise).log10() });
        self.max_abs = Some(cost.max_abs);
        self.bound = Some(cost.bound).filter(|bound| !bound.is_nan());
        (self.zeros, self.histogram) = (cost.zeros, cost.histogram);
    }
}

/// An activation that became codes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ActivationReport {
    /// Its name in the model that was read.
    pub name: String,
    /// The operators that take part in that: those that read the codes, and the one that makes them.
    pub operators: Vec<String>,
    /// Its levels; `None` where they are found whenever the model runs.
    pub levels: Option<Levels>,
    /// How they were found: `"min-max"`, or the activation it shares them with.
    pub method: String,
}

/// Even levels of codes from 0 to 255: `x' = (code - zero_point) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Levels {
    /// From one level to the next.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: u8,
    /// The lower end of the range that was found, before it is made to hold 0.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub min: f64,
    /// Its upper end.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub max: f64,
}

/// What was done to a model.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Report {
    /// Its weights, in the order of the file.
    pub tensors: Vec<TensorReport>,
    /// Its activations that became codes.
    pub activations: Vec<ActivationReport>,
    /// What slimming did, where it was asked for.
    #[cfg(feature = "rten")]
    pub slimmed: Option<super::slimming::SlimmedReport>,
    /// What else changed: a version of the operators, say.
    pub notes: Vec<String>,
    /// Length of the input in bytes, with the files its weights are in.
    pub bytes_before: u64,
    /// Length of the output in bytes.
    pub bytes_after: u64,
    /// The error of all weights that were changed together, `‖w - w'‖ / ‖w‖`, with those that a budget left as they were.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::config::open"))]
    pub relative_error: Option<f64>,
}

impl Report {
    /// Puts down the costs of tensors by their places in the list, and the squares of those that a budget left as they were.
    pub(super) fn measured(&mut self, costs: impl IntoIterator<Item = (usize, Cost)>, left: f64) {
        let (mut signal, mut noise, mut any) = (left, 0.0, false);
        for (place, cost) in costs {
            (signal, noise, any) = (signal + cost.signal, noise + cost.noise, true);
            if let Some(tensor) = self.tensors.get_mut(place) {
                tensor.measured(cost);
            }
        }
        let relative = if noise == 0.0 { 0.0 } else { (noise / signal).sqrt() };
        self.relative_error = (any || left > 0.0).then_some(relative);
    }
}

impl fmt::Display for Report {
    /// A line for each tensor, and the sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Columns that nobody asked for are left out.
        let zeros = self.tensors.iter().any(|tensor| tensor.zeros.is_some());
        writeln!(
            f,
            "| tensor | shape | operators | now | bytes | was | SQNR, dB | largest error | certified |{}",
            if zeros { " zeros | were |" } else { "" }
        )?;
        writeln!(f, "|---|---|---|---|--:|--:|--:|--:|--:|{}", if zeros { "--:|--:|" } else { "" })?;
        for tensor in &self.tensors {
            let or = |x: Option<f64>, digits: usize| x.map_or("–".into(), |x| format!("{x:.digits$}"));
            let short = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.2e}"));
            write!(
                f,
                "| {} | {:?} | {} | {} | {} | {} | {} | {} | {} |",
                tensor.name,
                tensor.shape,
                tensor.operators.join(", "),
                tensor.outcome.as_ref().map_or_else(|reason| format!("as it was: {reason}"), String::clone),
                tensor.bytes_after,
                tensor.bytes_before,
                or(tensor.sqnr_db, 1),
                short(tensor.max_abs),
                short(tensor.bound),
            )?;
            match tensor.zeros {
                Some((before, after)) => writeln!(f, " {after} | {before} |")?,
                None if zeros => writeln!(f, " – | – |")?,
                None => writeln!(f)?,
            }
        }
        if !self.activations.is_empty() {
            writeln!(f, "\n| activation | operators | from | to | scale | zero point | method |")?;
            writeln!(f, "|---|---|--:|--:|--:|--:|---|")?;
        }
        for ActivationReport { name, operators, levels, method } in &self.activations {
            write!(f, "| {name} | {} ", operators.join(", "))?;
            match levels {
                Some(Levels { scale, zero_point, min, max }) => {
                    write!(f, "| {min:.4} | {max:.4} | {scale:.3e} | {zero_point} ")?;
                }
                None => write!(f, "| – | – | – | – ")?,
            }
            writeln!(f, "| {method} |")?;
        }
        #[cfg(feature = "rten")]
        if let Some(slimmed) = &self.slimmed {
            write!(f, "\n{slimmed}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))?;
        if let Some(error) = self.relative_error {
            writeln!(f, "\nrelative error of the weights {error:.3e}")?;
        }
        let ratio = self.bytes_before as f64 / self.bytes_after.max(1) as f64;
        write!(f, "\n{} bytes, {} before: {ratio:.2} times smaller", self.bytes_after, self.bytes_before)
    }
}
