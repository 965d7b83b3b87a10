//! What was done to a model, and what it cost.

use super::source::Cost;
use std::fmt;

/// What was done to a tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TensorReport {
    /// Its name in the model.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// The operators that read it.
    pub operators: Vec<String>,
    /// How it is kept now: `"uint4, blocks of 32"`; or why it is as it was.
    pub outcome: Result<String, String>,
    /// Bytes of its elements before.
    pub bytes_before: u64,
    /// Bytes of its codes, scales and zero points now.
    pub bytes_after: u64,
    /// Signal to quantization noise in decibels, of what was quantized; infinite without error.
    pub sqnr_db: Option<f64>,
    /// The largest error of an element.
    pub max_abs: Option<f64>,
    /// What no element's error is larger than, by what is stored alone.
    pub bound: Option<f64>,
}

impl TensorReport {
    /// Puts down what quantizing cost.
    pub(super) fn measured(&mut self, cost: Cost) {
        self.sqnr_db = Some(if cost.noise == 0.0 { f64::INFINITY } else { 10.0 * (cost.signal / cost.noise).log10() });
        self.max_abs = Some(cost.max_abs);
        self.bound = Some(cost.bound).filter(|bound| !bound.is_nan());
    }
}

/// What was done to a model.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Its weights, in the order of the file.
    pub tensors: Vec<TensorReport>,
    /// What slimming did, where it was asked for.
    #[cfg(feature = "rten")]
    pub slimmed: Option<super::slimming::SlimmedReport>,
    /// What else changed: a version of the operators, say.
    pub notes: Vec<String>,
    /// Length of the input in bytes, with the files its weights are in.
    pub bytes_before: u64,
    /// Length of the output in bytes.
    pub bytes_after: u64,
}

impl fmt::Display for Report {
    /// A line for each tensor, and the sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| tensor | shape | operators | now | bytes | was | SQNR, dB | largest error | certified |")?;
        writeln!(f, "|---|---|---|---|--:|--:|--:|--:|--:|")?;
        for tensor in &self.tensors {
            let or = |x: Option<f64>, digits: usize| x.map_or("–".into(), |x| format!("{x:.digits$}"));
            let short = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.2e}"));
            writeln!(
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
        }
        #[cfg(feature = "rten")]
        if let Some(slimmed) = &self.slimmed {
            write!(f, "\n{slimmed}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))?;
        let ratio = self.bytes_before as f64 / self.bytes_after.max(1) as f64;
        write!(f, "\n{} bytes, {} before: {ratio:.2} times smaller", self.bytes_after, self.bytes_before)
    }
}
