//! Files of nothing but tensors: some become codes, or lose weights; the others are copied.

use super::{
    budget::{BUDGET, choose},
    copy,
    look::Cost,
    prepare::Prepared,
    pruning::{Weight, Weights},
    recipe::Recipe,
    report::{Report, TensorReport},
    run::{Stage, Watch, Watched, each},
    source::Source,
};
use crate::{
    error::Result,
    format::file::{Layout, TensorFile, TensorInfo, at},
};
use std::{collections::BTreeSet, path::Path};

/// Is told of so many elements that are done.
pub(super) type Step<'a> = &'a dyn Fn(usize) -> Result<()>;

/// Takes bytes of one of the tensors that hold another: its number among them, and the place in it.
pub(super) type Put<'a> = &'a dyn Fn(usize, u64, &[u8]) -> Result<()>;

/// Makes what holds a tensor.
type Write<'a> = Box<dyn Fn(&Source, Put<'_>, Step<'_>) -> Result<Cost> + Send + Sync + 'a>;

/// How a tensor will be kept.
pub(super) struct Kept<'a> {
    /// What holds it.
    pub(super) tensors: Vec<TensorInfo>,
    /// As [`TensorReport::outcome`].
    pub(super) outcome: Result<String, String>,
    pub(super) bits: Option<u8>,
    /// Its entry in the metadata of the file, which only a safetensors file has.
    #[cfg_attr(not(feature = "safetensors"), expect(dead_code, reason = "read for safetensors files"))]
    pub(super) metadata: Option<(String, String)>,
    /// `None`: it is copied.
    pub(super) write: Option<Write<'a>>,
}

impl Kept<'_> {
    fn byte_len(&self) -> Result<u64> {
        self.tensors.iter().map(|own| own.byte_len().map(|bytes| bytes as u64)).sum()
    }

    /// A tensor that stays numbers; of those that are pruned, all are written anew.
    fn plain(info: &TensorInfo, outcome: Result<String, String>) -> Self {
        let write = |source: &Source, put: Put<'_>, step: Step<'_>| {
            let mut end = 0;
            copy::dense(
                source,
                &mut |bytes| {
                    put(0, end, bytes)?;
                    end += bytes.len() as u64;
                    Ok(())
                },
                step,
            )
        };
        let write = if outcome.is_ok() { Some(Box::new(write) as Write<'_>) } else { None };
        Self { tensors: vec![info.clone()], outcome, bits: None, metadata: None, write }
    }
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

#[cfg(not(feature = "safetensors"))]
fn parts(_: &dyn TensorFile) -> BTreeSet<usize> {
    BTreeSet::new()
}

/// The axis of a weight that sums go over, as the framework of the file has it.
fn input_axis(format: &str, rank: usize) -> usize {
    match (format, rank) {
        ("keras", _) => rank.saturating_sub(2),
        ("tflite", _) => rank.saturating_sub(1),
        _ => 1,
    }
}

/// What becomes of a file.
pub(super) struct Plan<'a> {
    file: &'a dyn TensorFile,
    recipe: &'a Recipe,
    /// A line of the report for each floating-point tensor of two axes or more, and what may become of it.
    lines: Vec<Line<'a>>,
}

struct Line<'a> {
    /// Its number in the file.
    input: usize,
    report: TensorReport,
    /// In the order of preference; none where it stays.
    ways: Vec<Kept<'a>>,
}

impl<'a> Plan<'a> {
    /// Of each floating-point tensor of two axes or more that the recipe wants, `keep` says how it is kept in so many bits, or why it
    /// cannot be.
    pub(super) fn new(
        file: &'a dyn TensorFile,
        recipe: &'a Recipe,
        keep: impl Fn(&TensorInfo, u8) -> Result<Kept<'a>, String>,
    ) -> Result<Self> {
        recipe.check_graph(false)?;
        let (parts, mut lines) = (parts(file), Vec::new());
        for (input, info) in file.tensors().iter().enumerate() {
            if !info.element.is_float() || info.shape.len() < 2 {
                continue;
            }
            let bytes = info.byte_len()? as u64;
            let mut report = TensorReport::new(info.name.clone(), info.shape.clone(), Vec::new(), bytes);
            let mut ways = Vec::new();
            let stays = match recipe.kept(&info.name, &[], info.volume()?) {
                None if parts.contains(&input) => Some("a part of a quantized tensor".into()),
                other => other,
            };
            if let Some(reason) = stays {
                report.outcome = Err(reason);
            } else {
                let mut refused = None;
                for bits in recipe.bit_choices() {
                    match keep(info, bits) {
                        Ok(kept) => ways.push(kept),
                        Err(reason) => refused = refused.or(Some(reason)),
                    }
                }
                match (&recipe.pruning, recipe.budget, refused) {
                    (Some(_), _, Some(reason)) if ways.is_empty() => {
                        ways.push(Kept::plain(info, Ok(format!("pruned; not quantized: {reason}"))));
                    }
                    (Some(_), budget, _) if budget.is_some() || ways.is_empty() => {
                        ways.push(Kept::plain(info, Ok("pruned".into())));
                    }
                    (None, Some(_), refused) => {
                        let reason = if ways.is_empty() { refused } else { None };
                        ways.push(Kept::plain(info, Err(reason.unwrap_or_else(|| BUDGET.into()))));
                    }
                    (None, None, Some(reason)) if ways.is_empty() => report.outcome = Err(reason),
                    _ => {}
                }
            }
            lines.push(Line { input, report, ways });
        }
        Ok(Self { file, recipe, lines })
    }

    /// Chooses among the ways, and writes the output as `layout` makes it of its tensors and how weights are kept.
    pub(super) fn run(
        self,
        output: &Path,
        watch: Watch<'_>,
        layout: impl Fn(&[TensorInfo], &[&Kept<'a>]) -> Result<Layout>,
    ) -> Result<Report> {
        let Self { file, recipe, mut lines } = self;
        let source = |input: usize| {
            let info = at(file.tensors(), input)?;
            Ok(Source::new(file.data(input)?, info.element, info.shape.clone()))
        };
        let open: Vec<usize> =
            (0..lines.len()).filter(|&line| lines.get(line).is_some_and(|of| !of.ways.is_empty())).collect();
        let of = |index: usize| open.get(index).and_then(|&line| lines.get(line));
        let list: Vec<Weight> = open
            .iter()
            .filter_map(|&line| lines.get(line))
            .map(|line| Weight {
                name: line.report.name.clone(),
                bytes: line.report.bytes_before,
                axis: input_axis(file.format(), line.report.shape.len()),
            })
            .collect();
        let read = |index: usize| of(index).map_or_else(|| Ok(Source::empty()), |line| source(line.input));
        let weights = Weights { list: &list, source: &read };
        let prepared = Prepared::new(recipe, &weights, watch)?;

        let build = |picks: &[usize]| {
            let mut tensors = Vec::new();
            let mut kept = Vec::new();
            let mut chosen = picks.iter();
            let mut of_input = lines.iter().peekable();
            for (input, info) in file.tensors().iter().enumerate() {
                let line = of_input.next_if(|line| line.input == input);
                let way = line.filter(|line| !line.ways.is_empty());
                let way = way.and_then(|line| line.ways.get(chosen.next().copied().unwrap_or(0)));
                match way {
                    Some(way) => {
                        tensors.extend(way.tensors.iter().cloned());
                        kept.push(way);
                    }
                    None => tensors.push(info.clone()),
                }
            }
            layout(&tensors, &kept)
        };
        let mut left = 0.0;
        let (layout, picks) = match recipe.budget {
            None => (build(&vec![0; list.len()])?, vec![0; list.len()]),
            Some(budget) => {
                let ways = (0..list.len()).filter_map(of).map(|line| line.ways.iter().map(Kept::byte_len).collect());
                let ways = ways.collect::<Result<Vec<Vec<u64>>>>()?;
                let offers = prepared.offers(&weights, &ways, watch, |index, source, way| {
                    let kept = of(index).and_then(|line| line.ways.get(way));
                    match kept.and_then(|kept| kept.write.as_ref()) {
                        Some(write) => write(source, &|_, _, _| Ok(()), &|_| Ok(())),
                        None => copy::dense(source, &mut |_| Ok(()), &|_| Ok(())),
                    }
                })?;
                let others =
                    lines.iter().filter(|line| line.ways.is_empty()).map(|line| line.report.bytes_before).sum();
                let found = choose(&offers, others, budget, &mut |picks| {
                    let layout = build(picks)?;
                    let len = layout.byte_len();
                    Ok(((layout, picks.to_vec()), len))
                })?;
                for (index, (&way, offer)) in found.1.iter().zip(&offers).enumerate() {
                    if of(index).and_then(|line| line.ways.get(way)).is_some_and(|way| way.write.is_none()) {
                        left += offer.signal;
                    }
                }
                found
            }
        };

        let mut report = Report { bytes_before: file.byte_len(), bytes_after: layout.byte_len(), ..Report::default() };
        let mut jobs = Vec::new();
        let (mut first, mut of_input, mut number) = (0, (0..lines.len()).peekable(), 0);
        for (input, info) in file.tensors().iter().enumerate() {
            let mut job = Job { input, first, bytes: info.byte_len()? as u64, coded: None };
            first += 1;
            if let Some(place) = of_input.next_if(|&line| lines.get(line).is_some_and(|line| line.input == input))
                && let Some(line) = lines.get(place).filter(|line| !line.ways.is_empty())
            {
                let way = picks.get(number).copied().unwrap_or(0);
                if let Some(kept) = line.ways.get(way) {
                    first = job.first + kept.tensors.len();
                    job.coded = kept.write.is_some().then_some(Coded { line: place, way, number });
                }
                number += 1;
            }
            jobs.push(job);
        }
        let writer = layout.create(output)?;
        let watched = Watched::new(watch, Stage::Write, jobs.iter().map(|job| job.bytes).sum());
        let costs = each(&jobs, |job| {
            let info = at(file.tensors(), job.input)?;
            let write = || {
                let coded = job.coded.as_ref();
                let found = coded.and_then(|coded| {
                    let write = lines.get(coded.line)?.ways.get(coded.way)?.write.as_ref()?;
                    Some((write, coded.number))
                });
                let Some((write, number)) = found else {
                    writer.write(job.first, 0, &file.data(job.input)?)?;
                    return watched.add(&info.name, job.bytes).map(|()| None);
                };
                let axis = list.get(number).map_or(0, |weight| weight.axis);
                let source = prepared.looked_at(number, axis, source(job.input)?)?;
                let size = info.element.bytes(1).unwrap_or(0);
                let step = |elements: usize| watched.add(&info.name, (elements * size) as u64);
                write(&source, &|which, at, bytes| writer.write(job.first + which, at, bytes), &step).map(Some)
            };
            write().map_err(|error| error.in_tensor(&info.name))
        })?;
        writer.finish()?;
        let mut picks = picks.into_iter();
        for line in &mut lines {
            let way = if line.ways.is_empty() { None } else { line.ways.get(picks.next().unwrap_or(0)) };
            if let Some(kept) = way {
                (line.report.outcome, line.report.bits) = (kept.outcome.clone(), kept.bits);
                line.report.bytes_after = kept.byte_len()?;
            }
        }
        report.tensors = lines.into_iter().map(|line| line.report).collect();
        let lines = jobs.into_iter().map(|job| job.coded.map(|coded| coded.line));
        report.measured(lines.zip(costs).filter_map(|(line, cost)| Some((line?, cost?))), left);
        Ok(report)
    }
}

/// A tensor of the input, and where it goes.
struct Job {
    input: usize,
    /// The number of its first place.
    first: usize,
    bytes: u64,
    /// What makes it; `None`: it is copied.
    coded: Option<Coded>,
}

struct Coded {
    line: usize,
    way: usize,
    /// Among the weights that may change.
    number: usize,
}
