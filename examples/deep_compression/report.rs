//! The table and the JSON.

use crate::recipe::Bounds;
use serde::Serialize;
use std::{fmt, path::PathBuf};

/// A stage of one seed.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) params: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
    pub(crate) test_error: f64,
    pub(crate) file: PathBuf,
}

pub(crate) type Run = Vec<Row>;

/// A stage over all seeds: the largest sizes, the mean error, the summed time.
#[derive(Serialize)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) params: usize,
    pub(crate) params_total: usize,
    pub(crate) bytes: usize,
    /// Bytes of the baseline over bytes of this.
    pub(crate) ratio: f64,
    pub(crate) test_error_percent: f64,
    pub(crate) test_error_percent_by_seed: Vec<f64>,
    pub(crate) test_n: usize,
    pub(crate) seconds: f64,
}

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) dataset: &'static str,
    pub(crate) seeds: usize,
    pub(crate) stages: Vec<Stage>,
}

impl Report {
    pub(crate) fn new(dataset: &'static str, test_n: usize, runs: &[Run]) -> Self {
        let largest = |i: usize, of: fn(&Row) -> usize| runs.iter().map(|run| of(&run[i])).max().unwrap_or(0);
        let stages = runs[0].iter().enumerate().map(|(i, row)| {
            let errors: Vec<f64> = runs.iter().map(|run| run[i].test_error).collect();
            let bytes = largest(i, |row| row.bytes);
            Stage {
                name: row.name,
                params: largest(i, |row| row.params),
                params_total: largest(0, |row| row.params),
                bytes,
                ratio: largest(0, |row| row.bytes) as f64 / bytes as f64,
                test_error_percent: errors.iter().sum::<f64>() / errors.len() as f64,
                test_error_percent_by_seed: errors,
                test_n,
                seconds: runs.iter().map(|run| run[i].seconds).sum(),
            }
        });
        Self { dataset, seeds: runs.len(), stages: stages.collect() }
    }
}

impl Report {
    /// 12 times fewer parameters when pruned, 40 times fewer bytes when quantized, a fifth of the parameters when slimmed,
    /// each at an error within the bounds.
    pub(crate) fn check(&self, bounds: &Bounds) -> Result<(), String> {
        let [baseline, pruned, quantized, slimmed] = &self.stages[..] else {
            return Err("four stages expected".into());
        };
        let cost = |stage: &Stage| stage.test_error_percent - baseline.test_error_percent;
        let checks = [
            ("baseline", baseline.test_error_percent <= bounds.baseline),
            ("pruned: size", 12 * pruned.params <= baseline.params),
            ("pruned: error", cost(pruned) <= bounds.sparse),
            ("quantized: size", 40 * quantized.bytes <= baseline.bytes),
            ("quantized: error", cost(quantized) <= bounds.sparse),
            ("slimmed: size", 5 * slimmed.params <= baseline.params),
            ("slimmed: error", cost(slimmed) <= bounds.slim),
        ];
        match checks.iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(format!("out of bounds: {what}")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| stage | parameters | fewer | bytes on disk | ratio | test error before | after | time |")?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|")?;
        let before = self.stages[0].test_error_percent;
        for stage in &self.stages {
            let fewer = 100.0 * (1.0 - stage.params as f64 / stage.params_total as f64);
            writeln!(
                f,
                "| {} | {} of {} | {fewer:.1} % | {} | {:.1}x | {before:.2} % | {:.2} % | {:.1} s |",
                stage.name,
                stage.params,
                stage.params_total,
                stage.bytes,
                stage.ratio,
                stage.test_error_percent,
                stage.seconds
            )?;
        }
        let (seeds, rows) = (self.seeds, self.stages[0].test_n);
        writeln!(
            f,
            "\n{}: {seeds} seed(s), {rows} test rows; largest size, mean error; before: the baseline's",
            self.dataset
        )
    }
}
