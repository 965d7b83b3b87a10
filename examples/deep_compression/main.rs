//! Deep compression of LeNet-300-100 on handwritten digits, in the way of Han et al. 2015 (arXiv:1506.02626) and 2016
//! (arXiv:1510.00149) and Liu et al. 2017 (arXiv:1708.06519): prune, quantize, slim, and what each stage cost and won.
//!
//! ```text
//! cargo run --release --example deep_compression                        # embedded 8x8 digits
//! cargo run --release --example deep_compression -- --data DIR          # MNIST-format idx files
//! ```
//!
//! All networks start from the same pretrained one and are trained for the same number of epochs, by schedules that are
//! fixed: none is stopped early. The compressed ones learn from the labels and from the baseline's answers. Which rung of a
//! ladder wins is decided on validation rows, taken from the training part; the test rows are read once, at the end, by the
//! networks read back from the files.

mod chart;
mod data;
mod net;
mod recipe;
mod report;
mod stages;
mod train;

use clap::Parser;
use data::{Data, Split};
use indicatif::{ProgressBar, ProgressStyle};
use lapidary::format::packed;
use recipe::Recipe;
use report::{Report, Row, Run};
use stages::{Outcome, Workshop, percent, restore};
use std::{error::Error, path::PathBuf, time::Instant};

#[derive(Parser)]
#[command(about = "Prunes, quantizes and slims LeNet-300-100 on handwritten digits")]
struct Args {
    /// Folder of four MNIST-format idx files, gzipped or not; the embedded digits if absent
    #[arg(long)]
    data: Option<PathBuf>,
    /// Seeds to run; sizes are the largest over them, errors the mean
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Folder for the packed model files and the chart
    #[arg(long, default_value = "target/deep_compression")]
    out: PathBuf,
    /// Writes the results as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fails unless every stage is as small and as good as is expected of this data
    #[arg(long)]
    check: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let (data, recipe) = match &args.data {
        Some(dir) => (Data::mnist(dir)?, Recipe::MNIST),
        None => (Data::digits()?, Recipe::DIGITS),
    };
    std::fs::create_dir_all(&args.out)?;
    println!(
        "{}: {} training rows, {} to validate, {} to test; {} + {} epochs a network",
        data.name,
        data.train.y.len(),
        data.valid.y.len(),
        data.test.y.len(),
        recipe.pretrain,
        recipe.branch_epochs()
    );
    let runs = (0..args.seeds).map(|seed| run(&args, &data, &recipe, seed)).collect::<Result<Vec<_>, _>>()?;
    let report = Report::new(data.name, data.test.y.len(), &runs);
    print!("{report}");
    let chart = args.out.join(format!("{}.svg", data.name));
    chart::draw(&report, &chart)?;
    println!("chart: {}", chart.display());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if args.check {
        report.check(&recipe.bounds)?;
        println!("every stage is within its bounds");
    }
    Ok(())
}

/// All stages for one seed.
fn run(args: &Args, data: &Data, recipe: &Recipe, seed: u64) -> Result<Run, Box<dyn Error>> {
    let mut shop = Workshop { data, recipe, seed, teacher: None };
    let mut rows = Vec::new();
    let epochs = recipe.branch_epochs();
    let prune_epochs = epochs - recipe.quantize_epochs;

    let clock = Instant::now();
    let bar = progress(seed, "baseline", recipe.pretrain + epochs)?;
    let start = shop.pretrain(&bar)?;
    let (error, outcome) = shop.baseline(&start, &bar)?;
    let limit = error + recipe.allowance;
    finish(&bar, &outcome.note);
    rows.push(store(args, data, seed, "baseline", outcome, clock)?);

    let clock = Instant::now();
    let bar = progress(seed, "pruned", prune_epochs)?;

    let rungs = shop.prune(&start, &bar)?;
    let outcome = shop.pruned(&rungs, limit)?;
    finish(&bar, &outcome.note);
    rows.push(store(args, data, seed, "pruned", outcome, clock)?);

    let clock = Instant::now();
    let bar = progress(seed, "quantized", recipe.rungs.len() * recipe.quantize_epochs)?;
    let outcome = shop.quantize(&rungs, limit, &bar)?;
    finish(&bar, &outcome.note);
    rows.push(store(args, data, seed, "quantized", outcome, clock)?);

    let clock = Instant::now();
    let bar = progress(seed, "slimmed", recipe.widths.len() * epochs)?;
    let outcome = shop.slim(&start, limit, &bar)?;
    finish(&bar, &outcome.note);
    rows.push(store(args, data, seed, "slimmed", outcome, clock)?);

    // The only place where test rows are read.
    let test = |row: Row| {
        let (net, pixels) = restore(&packed::load(&row.file)?)?;
        let x = pixels.map(|pixels| Split::pixels(data.test.x.view(), &pixels));
        let x = x.as_ref().map_or(data.test.x.view(), |x| x.view());
        Ok(Row { test_error: percent(net.errors(x, &data.test.y), data.test.y.len()), ..row })
    };
    rows.into_iter().map(test).collect()
}

/// Writes a stage's network; its size is that of the file.
fn store(
    args: &Args,
    data: &Data,
    seed: u64,
    name: &'static str,
    outcome: Outcome,
    clock: Instant,
) -> Result<Row, Box<dyn Error>> {
    let file = args.out.join(format!("{}-{seed}-{name}.lpdy", data.name));
    packed::save(&file, &outcome.tensors)?;
    let bytes = std::fs::metadata(&file)?.len() as usize;
    let seconds = clock.elapsed().as_secs_f64();
    Ok(Row { name, params: outcome.params, bytes, seconds, test_error: f64::NAN, file })
}

/// Leaves a line that says what was chosen.
fn finish(bar: &ProgressBar, note: &str) {
    bar.finish_and_clear();
    println!("seed {}: {note}", bar.prefix());
}

fn progress(seed: u64, stage: &'static str, epochs: usize) -> Result<ProgressBar, Box<dyn Error>> {
    let style = ProgressStyle::with_template("seed {prefix:<12} {bar:24} {pos:>3}/{len} epochs {elapsed:>4}")?;
    Ok(ProgressBar::new(epochs as u64).with_style(style).with_prefix(format!("{seed} {stage}")))
}
