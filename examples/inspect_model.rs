//! Lists the tensors of a model file: their types, shapes, zeros, ranges and outliers.
//!
//! ```text
//! cargo run --release --all-features --example inspect_model -- model.onnx
//! cargo run --release --all-features --example inspect_model -- model.safetensors --filter attention --json
//! ```
//!
//! Of tensors whose numbers can be read (floating-point ones, and blocks of GGUF): how many are zero, the range and the standard deviation
//! of the finite ones, and outliers, those further than six deviations from the mean. With `--json` all of it for a script; what is infinite
//! is `null`.
//!
//! Exit code 0; 1 with a message beginning `error: ` when the file cannot be read; 2 for wrong arguments.

use clap::Parser;
use lapidary::format::file::{self, ElementType, TensorFile, TensorInfo};
use serde_json::{Value, json};
use std::{collections::BTreeMap, error::Error, path::PathBuf, process::ExitCode};

/// Numbers that are looked at a time.
const CHUNK: usize = 1 << 16;

#[derive(Parser)]
#[command(about = "Lists the tensors of a model file")]
struct Args {
    /// A file of any format that is built in
    file: PathBuf,
    /// Only tensors with this in their names
    #[arg(long, default_value = "")]
    filter: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is said of floating-point numbers.
#[derive(Default)]
struct Numbers {
    zeros: usize,
    strange: usize,
    least: f32,
    most: f32,
    mean: f64,
    deviation: f64,
    /// Beyond six deviations from the mean.
    outliers: usize,
}

/// Hands all numbers to `each`, some at a time.
fn walk(file: &dyn TensorFile, index: usize, info: &TensorInfo, mut each: impl FnMut(&[f32])) -> lapidary::Result<()> {
    let (bytes, volume) = (file.data(index)?, info.volume()?);
    let mut room = vec![0f32; CHUNK.min(volume)];
    // A chunk is a multiple of all blocks.
    for (first, bytes) in (0..volume).step_by(CHUNK).zip(bytes.chunks(info.element.bytes(CHUNK).unwrap_or(1))) {
        let room = &mut room[..CHUNK.min(volume - first)];
        info.element.to_f32(bytes, room)?;
        each(room);
    }
    Ok(())
}

/// Whether the numbers of a tensor can be looked at: floating-point ones, and blocks that are decoded.
fn is_readable(element: ElementType) -> bool {
    element.is_float() || matches!(element, ElementType::Block(block) if block.ggml().is_some())
}

fn numbers(file: &dyn TensorFile, index: usize, info: &TensorInfo) -> lapidary::Result<Numbers> {
    let mut n = Numbers { least: f32::INFINITY, most: f32::NEG_INFINITY, ..Numbers::default() };
    let (mut count, mut sum) = (0usize, 0f64);
    walk(file, index, info, |values| {
        for &x in values {
            n.zeros += usize::from(x == 0.0);
            n.strange += usize::from(!x.is_finite());
            if x.is_finite() {
                (n.least, n.most) = (n.least.min(x), n.most.max(x));
                count += 1;
                sum += f64::from(x);
            }
        }
    })?;
    n.mean = sum / count.max(1) as f64;
    let mut squares = 0f64;
    let finite = |x: &&f32| x.is_finite();
    walk(file, index, info, |values| {
        squares += values.iter().filter(finite).map(|&x| (f64::from(x) - n.mean).powi(2)).sum::<f64>();
    })?;
    n.deviation = (squares / count.max(1) as f64).sqrt();
    let far = |x: &&f32| x.is_finite() && (f64::from(**x) - n.mean).abs() > 6.0 * n.deviation;
    let mut outliers = 0;
    walk(file, index, info, |values| outliers += values.iter().filter(far).count())?;
    Ok(Numbers { outliers, ..n })
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let file = file::open(&args.file)?;
    let mut listed: Vec<Value> = Vec::new();
    let mut of_type: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    if !args.json {
        println!("{}: {}, {} tensors", args.file.display(), file.format(), file.tensors().len());
        file.metadata()
            .iter()
            .for_each(|(key, value)| println!("  {key}: {}", value.chars().take(100).collect::<String>()));
        println!("\n{:<48} {:>8} {:>18} {:>12}  zeros, range, deviation, outliers", "name", "type", "shape", "bytes");
    }
    for (index, info) in file.tensors().iter().enumerate() {
        let (volume, bytes) = (info.volume()?, info.byte_len()?);
        let total = of_type.entry(info.element.to_string()).or_default();
        *total = (total.0 + 1, total.1 + volume, total.2 + bytes);
        if !info.name.contains(&args.filter) {
            continue;
        }
        let numbers = if is_readable(info.element) && volume > 0 { Some(numbers(&*file, index, info)?) } else { None };
        if args.json {
            let mut entry = json!({
                "name": info.name, "type": info.element.to_string(), "shape": info.shape, "bytes": bytes,
            });
            if let (Some(n), Some(entry)) = (&numbers, entry.as_object_mut()) {
                entry.insert("zeros".into(), json!(n.zeros));
                entry.insert("sparsity".into(), json!(n.zeros as f64 / volume as f64));
                entry.insert("not_finite".into(), json!(n.strange));
                entry.insert("min".into(), json!(n.least));
                entry.insert("max".into(), json!(n.most));
                entry.insert("mean".into(), json!(n.mean));
                entry.insert("deviation".into(), json!(n.deviation));
                entry.insert("outliers".into(), json!(n.outliers));
            }
            listed.push(entry);
        } else {
            let said = numbers.map_or(String::new(), |n| {
                let share = 100.0 * n.zeros as f64 / volume as f64;
                let strange = if n.strange > 0 { format!(", {} NaN or infinite", n.strange) } else { String::new() };
                format!("{share:.1} %, {:.3} to {:.3}, {:.3}, {}{strange}", n.least, n.most, n.deviation, n.outliers)
            });
            let shape = format!("{:?}", info.shape);
            println!("{:<48} {:>8} {shape:>18} {bytes:>12}  {said}", info.name, info.element.to_string());
        }
    }
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(
                &json!({"format": file.format(), "metadata": file.metadata(), "tensors": listed})
            )?
        );
    } else {
        println!();
        for (element, (tensors, volume, bytes)) in of_type {
            println!("{element}: {tensors} tensors, {volume} elements, {bytes} bytes");
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
