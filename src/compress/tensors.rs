//! Files of nothing but tensors: some become codes, the others are copied.

use super::{
    recipe::Recipe,
    report::{Report, TensorReport},
    run::{Watch, Watched, each},
    source::{Cost, Source},
};
use crate::{
    error::Result,
    format::file::{Layout, TensorFile, TensorInfo, Writer, at},
};
use std::{collections::BTreeSet, path::Path};

/// Is told of so many elements that are done.
pub(super) type Step<'a> = &'a dyn Fn(usize) -> Result<()>;

/// Writes the codes of a tensor to the places from a number on.
type Write<'a> = Box<dyn Fn(&Source, usize, &Writer, Step<'_>) -> Result<Cost> + Send + Sync + 'a>;

/// How a tensor will be kept.
pub(super) struct Kept<'a> {
    /// What holds it.
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) outcome: String,
    pub(super) write: Write<'a>,
}

/// The tensors of a file that hold quantized ones.
#[cfg(feature = "safetensors")]
fn parts(file: &dyn TensorFile) -> BTreeSet<usize> {
    if file.format() != "safetensors" {
        return BTreeSet::new();
    }
    let quantized = crate::format::safetensors::Quantized::of(file);
    quantized.names().flat_map(|(name, _)| quantized.parts(name)).collect()
}

/// A tensor of the input, and where it goes.
struct Job<'a> {
    input: usize,
    /// The number of its first place.
    first: usize,
    bytes: u64,
    /// What makes its codes, and the line of the report; `None`: it is copied.
    codes: Option<(Write<'a>, usize)>,
}

/// What becomes of a file.
pub(super) struct Plan<'a> {
    /// The tensors of the output.
    pub(super) tensors: Vec<TensorInfo>,
    jobs: Vec<Job<'a>>,
    report: Report,
}

impl<'a> Plan<'a> {
    /// Of each floating-point tensor of two axes or more that the recipe wants, `keep` says how it is kept, or why it stays.
    pub(super) fn new(
        file: &dyn TensorFile,
        recipe: &Recipe,
        mut keep: impl FnMut(&TensorInfo) -> Result<Kept<'a>, String>,
    ) -> Result<Self> {
        recipe.check_activations(false)?;
        let (mut tensors, mut jobs, mut report) = (Vec::new(), Vec::new(), Report::default());
        #[cfg(feature = "safetensors")]
        let parts = parts(file);
        #[cfg(not(feature = "safetensors"))]
        let parts = BTreeSet::<usize>::new();
        for (input, info) in file.tensors().iter().enumerate() {
            let (first, bytes) = (tensors.len(), info.byte_len()? as u64);
            let mut job = Job { input, first, bytes, codes: None };
            if info.element.is_float() && info.shape.len() >= 2 {
                let kept = match recipe.kept(&info.name, &[], info.volume()?) {
                    Some(reason) => Err(reason),
                    None if parts.contains(&input) => Err("a part of a quantized tensor".into()),
                    None => keep(info),
                };
                let (outcome, added) = match kept {
                    Ok(Kept { tensors: own, outcome, write }) => {
                        let added =
                            own.iter().map(|own| own.byte_len().map(|bytes| bytes as u64)).sum::<Result<u64>>()?;
                        tensors.extend(own);
                        job.codes = Some((write, report.tensors.len()));
                        (Ok(outcome), added)
                    }
                    Err(reason) => (Err(reason), bytes),
                };
                report.tensors.push(TensorReport {
                    name: info.name.clone(),
                    shape: info.shape.clone(),
                    operators: Vec::new(),
                    outcome,
                    bytes_before: bytes,
                    bytes_after: added,
                    sqnr_db: None,
                    max_abs: None,
                    bound: None,
                });
            }
            if job.codes.is_none() {
                tensors.push(info.clone());
            }
            jobs.push(job);
        }
        Ok(Self { tensors, jobs, report })
    }

    /// Writes the output.
    pub(super) fn run(self, file: &dyn TensorFile, layout: Layout, output: &Path, watch: Watch<'_>) -> Result<Report> {
        let Self { jobs, mut report, .. } = self;
        report.bytes_before = file.byte_len();
        report.bytes_after = layout.byte_len();
        let writer = layout.create(output)?;
        let watched = Watched::new(watch, jobs.iter().map(|job| job.bytes).sum());
        let costs = each(&jobs, |job| {
            let info = at(file.tensors(), job.input)?;
            let write = || match &job.codes {
                None => {
                    writer.write(job.first, 0, &file.data(job.input)?)?;
                    watched.add(&info.name, job.bytes).map(|()| None)
                }
                Some((write, _)) => {
                    let bytes = file.data(job.input)?;
                    let source = Source { bytes, element: info.element, shape: info.shape.clone(), transposed: false };
                    let size = info.element.bytes(1).unwrap_or(0);
                    let step = |elements: usize| watched.add(&info.name, (elements * size) as u64);
                    write(&source, job.first, &writer, &step).map(Some)
                }
            };
            write().map_err(|error| error.in_tensor(&info.name))
        })?;
        writer.finish()?;
        for (job, cost) in jobs.iter().zip(costs) {
            if let (Some((_, line)), Some(cost)) = (&job.codes, cost)
                && let Some(tensor) = report.tensors.get_mut(*line)
            {
                tensor.measured(cost);
            }
        }
        Ok(report)
    }
}
