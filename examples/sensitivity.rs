//! How sensitive the layers of a network are to pruning, and how many weights to take from each: LeNet-300-100 on the
//! digits beside it, not trained further.
//!
//! ```text
//! cargo run --release --example sensitivity -- [CHART.svg]
//! ```
//!
//! The scan and the choice read the rows that the network was trained on; the others count only in the last table. The
//! chart is written to `target/sensitivity.svg` if it is not told where.

use flate2::read::GzDecoder;
use indicatif::ProgressBar;
use lapidary::{
    Mask, PrunerExt,
    prune::{Magnitude, Scores, Select, Sensitivity},
};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use plotters::prelude::*;
use std::{
    error::Error,
    io::Read,
    path::{Path, PathBuf},
};

const DIGITS: &[u8] = include_bytes!("data/digits_1797x65_u8.bin.gz");
const NETWORK: &[u8] = include_bytes!("data/digits_mlp.f32.gz");
const SIZES: [usize; 4] = [64, 300, 100, 10];
const NAMES: [&str; 3] = ["fc1.weight", "fc2.weight", "fc3.weight"];

#[derive(Clone)]
struct Layer {
    weight: Array2<f32>,
    bias: Array1<f32>,
}

/// Rows of pixels and their labels.
struct Split {
    x: Array2<f32>,
    y: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (layers, train, test) = load()?;
    let ladder = [0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98];
    let mut sensitivity = Sensitivity::new(&ladder)?;
    let bar = ProgressBar::new((ladder.len() * layers.len()) as u64);
    for (i, name) in NAMES.iter().enumerate() {
        sensitivity.measure(name, &layers[i].weight, Magnitude::sparsity, |mask| {
            let mut pruned = layers.clone();
            mask.apply(&mut pruned[i].weight)?;
            bar.inc(1);
            Ok(loss(&pruned, &train))
        })?;
    }
    bar.finish_and_clear();
    println!("cross entropy by sparsity, of each tensor alone\n{sensitivity}\n");
    let chart = PathBuf::from(std::env::args().nth(1).unwrap_or("target/sensitivity.svg".into()));
    if let Some(folder) = chart.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw(&sensitivity, &chart)?;
    println!("chart: {}\n", chart.display());

    let all: usize = layers.iter().map(|layer| layer.weight.len()).sum();
    let mut plans = Vec::new();
    for share in [0.3, 0.2, 0.15, 0.1] {
        let plan = sensitivity.allocate((share * all as f64) as usize)?;
        let keep = plan.kept();
        let mut masks = [global(&layers, keep)?, uniform(&layers, keep as f64 / all as f64)?, Vec::new()];
        for (name, layer) in NAMES.iter().zip(&layers) {
            let sparsity = plan.sparsity(name).ok_or("not measured")?;
            masks[2].push(Magnitude::sparsity(sparsity)?.mask(&layer.weight)?);
        }
        println!("{plan}\n");
        let mut right = [0; 3];
        for (right, masks) in right.iter_mut().zip(&masks) {
            let mut pruned = layers.clone();
            for (layer, mask) in pruned.iter_mut().zip(masks) {
                mask.apply(&mut layer.weight)?;
            }
            *right = count_right(&pruned, &test);
        }
        plans.push((keep, right));
    }
    println!("{} of {} test rows right before", count_right(&layers, &test), test.y.len());
    println!("{:>8} {:>8} {:>8} {:>8}", "kept", "global", "uniform", "planned");
    for (keep, [global, uniform, planned]) in plans {
        println!("{keep:>8} {global:>8} {uniform:>8} {planned:>8}");
    }
    Ok(())
}

/// The largest weights wherever they are.
fn global(layers: &[Layer], keep: usize) -> Result<Vec<Mask>, Box<dyn Error>> {
    let weights: Vec<Vec<f32>> = layers.iter().map(|layer| layer.weight.iter().copied().collect()).collect();
    let mut masks = Vec::new();
    for layer in layers {
        masks.push(Mask::keep_all(layer.weight.shape())?);
    }
    let scores: Vec<_> = weights.iter().map(|weights| Scores::magnitude(weights)).collect();
    Select::budget(keep as u64).refine(&scores, &mut masks)?;
    Ok(masks)
}

/// The same share of each.
fn uniform(layers: &[Layer], share: f64) -> Result<Vec<Mask>, Box<dyn Error>> {
    let pruner = Magnitude::sparsity(1.0 - share)?;
    Ok(layers.iter().map(|layer| pruner.mask(&layer.weight)).collect::<lapidary::Result<_>>()?)
}

/// The logits, a row each.
fn forward(layers: &[Layer], x: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut x = x.to_owned();
    for (i, layer) in layers.iter().enumerate() {
        x = x.dot(&layer.weight.t()) + &layer.bias;
        if i + 1 < layers.len() {
            x.mapv_inplace(|x| x.max(0.0));
        }
    }
    x
}

/// The mean cross entropy.
fn loss(layers: &[Layer], split: &Split) -> f64 {
    let logits = forward(layers, split.x.view());
    let losses = logits.axis_iter(Axis(0)).zip(&split.y).map(|(row, &y)| {
        let largest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = row.iter().map(|&x| f64::from(x - largest).exp()).sum();
        sum.ln() - f64::from(row[usize::from(y)] - largest)
    });
    losses.sum::<f64>() / split.y.len() as f64
}

fn count_right(layers: &[Layer], split: &Split) -> usize {
    let logits = forward(layers, split.x.view());
    let rows = logits.axis_iter(Axis(0)).zip(&split.y);
    rows.filter(|(row, y)| row.iter().all(|&x| x <= row[usize::from(**y)])).count()
}

/// The error over that of the whole model.
fn draw(sensitivity: &Sensitivity, path: &Path) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(path, (760, 460)).into_drawing_area();
    area.fill(&WHITE)?;
    let curves = sensitivity.curves();
    let highest = curves.iter().flat_map(|curve| &curve.points).map(|point| point.error).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("Sensitivity of LeNet-300-100 on digits", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..100.0, 0.0..highest * 1.05)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("sparsity, %").y_desc("cross entropy").draw()?;
    for (i, curve) in curves.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let points = || curve.points.iter().map(|point| (100.0 * point.sparsity, point.error));
        chart
            .draw_series(LineSeries::new(points(), color.stroke_width(2)))?
            .label(format!("{} ({})", curve.name, curve.elements))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}

/// The network, the rows it was trained on and the others.
fn load() -> Result<(Vec<Layer>, Split, Split), Box<dyn Error>> {
    let bytes = gunzip(NETWORK)?;
    let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut numbers = numbers.collect::<Vec<_>>().into_iter();
    let mut layers = Vec::new();
    for size in SIZES.windows(2) {
        let weight = Array2::from_shape_vec((size[1], size[0]), numbers.by_ref().take(size[0] * size[1]).collect())?;
        layers.push(Layer { weight, bias: numbers.by_ref().take(size[1]).collect() });
    }
    let rows = gunzip(DIGITS)?;
    let split = |test: bool| {
        let rows = || rows.chunks_exact(65).enumerate().filter(|(i, _)| (i % 4 == 3) == test).map(|(_, row)| row);
        let x: Vec<f32> = rows().flat_map(|row| &row[..64]).map(|&pixel| f32::from(pixel) / 16.0).collect();
        let y: Vec<u8> = rows().map(|row| row[64]).collect();
        Ok::<_, Box<dyn Error>>(Split { x: Array2::from_shape_vec((y.len(), 64), x)?, y })
    };
    Ok((layers, split(false)?, split(true)?))
}

fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut out)?;
    Ok(out)
}
