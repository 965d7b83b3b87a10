//! From which share of zeros on which form of a matrix is faster than a dense one, and how small each is.
//!
//! ```text
//! cargo run --release --example crossovers
//! cargo run --release --example crossovers -- --size 4096 --svg docs/crossovers.svg
//! ```
//!
//! A square matrix of normally distributed weights is pruned by magnitude, anew for each share: single weights, blocks, two of each
//! four, or as much of its rows and columns, which leaves a smaller dense one. Dense is the faster of this crate's product and
//! `ndarray`'s. Times are of one thread on this machine; bytes and shares are the same everywhere.

use clap::Parser;
use lapidary::{
    PrunerExt, TensorMut, TensorRef,
    prune::{Magnitude, Select},
    quant::Symmetric,
    sparse::{Form, Sparse, Workspace},
};
use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};
use plotters::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, StandardNormal};
use std::{
    error::Error,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const SHARES: [f64; 12] = [0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99];

#[derive(Parser)]
#[command(about = "Measures from which share of zeros on each form of a matrix wins over a dense one")]
struct Args {
    /// Rows and columns of the matrix, a multiple of 16
    #[arg(long, default_value_t = 2048)]
    size: usize,
    /// Vectors that are multiplied at a time, one chart for each number
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    batches: Vec<usize>,
    /// Writes the charts there
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// What is pruned, and how the rest is kept.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Elements or blocks that are pruned by themselves.
    Sparse(Form),
    /// Rows and columns, each by the root of the share that is kept.
    Slim,
}

const WAYS: [(&str, Way); 7] = [
    ("compressed rows", Way::Sparse(Form::Csr)),
    ("bitmask", Way::Sparse(Form::Bitmask)),
    ("16 × 1 blocks", Way::Sparse(Form::Blocks { height: 16, width: 1 })),
    ("4 × 4 blocks", Way::Sparse(Form::Blocks { height: 4, width: 4 })),
    ("1 × 16 blocks", Way::Sparse(Form::Blocks { height: 1, width: 16 })),
    ("two of four", Way::Sparse(Form::TwoOfFour)),
    ("slimmed", Way::Slim),
];

/// One way at one share of zeros.
struct Point {
    way: usize,
    share: f64,
    /// Of the dense matrix's bytes.
    bytes: f64,
    /// As `bytes`, of 4-bit codes with a scale a row.
    coded: f64,
    /// Dense time over this one's, for each batch.
    speed: Vec<f64>,
}

/// The least seconds of at least five runs, after one that does not count.
fn seconds(mut run: impl FnMut() -> lapidary::Result<()>) -> Outcome<f64> {
    run()?;
    let (start, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < 5 || (runs < 50 && start.elapsed() < Duration::from_millis(100)) {
        let before = Instant::now();
        run()?;
        best = best.min(before.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

struct Bench {
    x: Vec<f32>,
    y: Vec<f32>,
    workspace: Workspace,
}

impl Bench {
    fn sparse(&mut self, matrix: &Sparse, batch: usize) -> Outcome<f64> {
        let [rows, cols] = matrix.shape();
        let Self { x, y, workspace } = self;
        seconds(|| {
            let x = TensorRef::new(&x[..batch * cols], &[batch, cols])?;
            matrix.multiply_into(x, TensorMut::new(&mut y[..batch * rows], &[batch, rows])?, workspace)
        })
    }

    /// The faster of two products.
    fn dense(&mut self, weights: &[f32], [rows, cols]: [usize; 2], batch: usize) -> Outcome<f64> {
        let ours = Sparse::new(TensorRef::new(weights, &[rows, cols])?, Form::Dense)?;
        let ours = self.sparse(&ours, batch)?;
        let w = ArrayView2::from_shape((rows, cols), weights)?;
        let x = ArrayView2::from_shape((batch, cols), &self.x[..batch * cols])?;
        let mut y = ArrayViewMut2::from_shape((batch, rows), &mut self.y[..batch * rows])?;
        let theirs = seconds(|| {
            general_mat_mul(1.0, &x, &w.t(), 0.0, &mut y);
            Ok(())
        })?;
        Ok(ours.min(theirs))
    }
}

fn measure(args: &Args) -> Outcome<Vec<Point>> {
    let (size, most) = (args.size, args.batches.iter().copied().max().unwrap_or(1));
    let mut random = SmallRng::seed_from_u64(1);
    let mut normal = |count: usize| -> Vec<f32> { StandardNormal.sample_iter(&mut random).take(count).collect() };
    let (weights, x) = (normal(size * size), normal(most * size));
    let matrix = TensorRef::new(&weights, &[size, size])?;
    let mut bench = Bench { x, y: vec![0.0; most * size], workspace: Workspace::default() };
    let dense =
        args.batches.iter().map(|&batch| bench.dense(&weights, [size, size], batch)).collect::<Outcome<Vec<_>>>()?;
    let (bytes, codes) = ((size * size * 4) as f64, Symmetric::new(4)?);
    let mut points = Vec::new();
    for (way, (_, what)) in WAYS.into_iter().enumerate() {
        for share in SHARES {
            let mut point = Point { way, share, bytes: 0.0, coded: 0.0, speed: Vec::new() };
            let select = match what {
                Way::Sparse(Form::TwoOfFour) if share != 0.5 => continue,
                Way::Sparse(Form::TwoOfFour) => Select::n_of_m(2, 4)?,
                Way::Sparse(Form::Blocks { height, width }) => Select::sparsity(share)?.in_blocks(height, width)?,
                _ => Select::sparsity(share)?,
            };
            let mut times = Vec::new();
            match what {
                Way::Sparse(form) => {
                    let sparse = Sparse::from_dense(&matrix, &select.by(Magnitude).mask(&matrix)?, form)?;
                    point.bytes = sparse.byte_size() as f64 / bytes;
                    point.coded = sparse.quantize_rows(&codes)?.byte_size() as f64 / bytes;
                    for &batch in &args.batches {
                        times.push(bench.sparse(&sparse, batch)?);
                    }
                }
                Way::Slim => {
                    let side = ((1.0 - share).sqrt() * size as f64).round() as usize;
                    let smaller = &weights[..side * side];
                    point.bytes = (side * side * 4) as f64 / bytes;
                    point.coded = (side * side.div_ceil(2) + 4 * side) as f64 / bytes;
                    for &batch in &args.batches {
                        times.push(bench.dense(smaller, [side, side], batch)?);
                    }
                }
            }
            point.speed = dense.iter().zip(times).map(|(dense, time)| dense / time).collect();
            points.push(point);
        }
    }
    Ok(points)
}

/// The share of zeros from which on `gain` is above 1, by a straight line between two measured ones.
fn crossover(points: &[&Point], gain: impl Fn(&Point) -> f64) -> Option<f64> {
    let above = points.iter().rposition(|point| gain(point) < 1.0).map_or(0, |last| last + 1);
    let (point, before) = (points.get(above)?, above.checked_sub(1).map(|before| points[before]));
    Some(before.map_or(point.share, |before| {
        let (low, high) = (gain(before).ln(), gain(point).ln());
        before.share + (point.share - before.share) * -low / (high - low)
    }))
}

fn main() -> Outcome<()> {
    let args = Args::parse();
    if args.size == 0 || !args.size.is_multiple_of(16) || args.batches.is_empty() || args.batches.contains(&0) {
        return Err("the size is a multiple of 16, and batches are at least 1".into());
    }
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let points = one.install(|| measure(&args))?;
    let plural = |batch: usize| if batch == 1 { "1 vector".to_string() } else { format!("{batch} vectors") };

    println!("Times as fast as the dense product, {0} × {0}, one thread:\n", args.size);
    print!("| way | vectors |");
    SHARES.iter().for_each(|share| print!(" {:.0} % |", 100.0 * share));
    println!(" wins from |\n|---|--:|{}", "--:|".repeat(SHARES.len() + 1));
    let of_way = |way: usize| points.iter().filter(|point| point.way == way).collect::<Vec<_>>();
    for (way, (name, what)) in WAYS.iter().enumerate() {
        let own = of_way(way);
        for (b, batch) in args.batches.iter().enumerate() {
            print!("| {name} | {batch} |");
            for share in SHARES {
                match own.iter().find(|point| point.share == share) {
                    Some(point) => print!(" {:.2} |", point.speed[b]),
                    None => print!(" – |"),
                }
            }
            match crossover(&own, |point| point.speed[b]) {
                _ if *what == Way::Sparse(Form::TwoOfFour) => println!(" – |"),
                Some(share) => println!(" {:.0} % |", 100.0 * share),
                None => println!(" never |"),
            }
        }
    }
    println!(
        "\nTimes smaller than dense `f32`: as `f32` / as 4-bit codes with a scale a row:\n\n| way | 50 % | 90 % | 95 % | 99 % |"
    );
    println!("|---|--:|--:|--:|--:|");
    for (way, (name, _)) in WAYS.iter().enumerate() {
        print!("| {name} |");
        for share in [0.5, 0.9, 0.95, 0.99] {
            match of_way(way).iter().find(|point| point.share == share) {
                Some(point) => print!(" {:.1} / {:.1} |", 1.0 / point.bytes, 1.0 / point.coded),
                None => print!(" – |"),
            }
        }
        println!();
    }
    match &args.svg {
        Some(path) => draw(&points, &args.batches.iter().map(|&batch| plural(batch)).collect::<Vec<_>>(), path),
        None => Ok(()),
    }
}

/// A panel of speed for each batch, and one of bytes.
fn draw(points: &[Point], batches: &[String], path: &Path) -> Outcome<()> {
    let panels = batches.len() + 1;
    let rows = panels.div_ceil(2);
    let area = SVGBackend::new(path, (920, 400 * rows as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    // Halvings of what is kept: few are left where most is gained.
    let place = |share: f64| -(1.0 - share).log2();
    for (i, panel) in area.split_evenly((rows, 2)).into_iter().take(panels).enumerate() {
        let title = batches.get(i).map_or("bytes".into(), |batch| format!("speed, {batch}"));
        let axis = if i < batches.len() {
            "times as fast as dense (log scale)"
        } else {
            "times smaller than dense f32 (log scale)"
        };
        let mut chart = ChartBuilder::on(&panel)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..7.0, (0.1..130.0).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(8)
            .x_desc("share of zeros (each step halves the rest)")
            .y_desc(axis)
            .x_label_formatter(&|halvings: &f64| format!("{:.1} %", 100.0 - 100.0 / halvings.exp2()).replace(".0", ""))
            .y_label_formatter(&|gain| format!("{gain}"))
            .draw()?;
        chart.draw_series(LineSeries::new([(0.0, 1.0), (7.0, 1.0)], BLACK.mix(0.6)))?;
        for (way, (name, what)) in WAYS.iter().enumerate() {
            let color = Palette99::pick(way).mix(1.0);
            let gain = |point: &Point| point.speed.get(i).copied().unwrap_or(1.0 / point.bytes);
            let line: Vec<_> =
                points.iter().filter(|point| point.way == way).map(|point| (place(point.share), gain(point))).collect();
            if *what != Way::Sparse(Form::TwoOfFour) {
                chart.draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)))?;
            }
            let drawn = chart.draw_series(line.iter().map(|&at| Circle::new(at, 3, color.filled())))?;
            if i == 0 {
                drawn.label(*name).legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], color.filled()));
            }
        }
        if i == 0 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()?;
        }
    }
    area.present()?;
    Ok(())
}
