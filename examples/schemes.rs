//! Every scheme on one layer of a trained network: its size, its error, its speed.
//!
//! ```text
//! cargo run --release --features linalg --example schemes
//! cargo run --release --features linalg --example schemes -- --svg docs/quantization_schemes.svg
//! ```
//!
//! The layer is the second of `examples/data/digits_mlp.f32.gz`, its first 256 inputs: whole blocks for every scheme.
//! Inputs are what the first layer makes of the digits: of three rows in four for the schemes that look at them, of the
//! fourth for "other rows". Errors but those of GPTQ are the same on every machine; times are those of this one, on one
//! thread: of 40 copies of the layer below one another, or (HQQ, GPTQ, AWQ) of the layer itself, once.

use clap::Parser;
use flate2::read::GzDecoder;
use lapidary::{
    Calibration, QTensor, Quantizer, QuantizerExt, TensorMut, TensorRef,
    quant::{
        Affine, Awq, Certify, FloatFormat, Gptq, Hqq, KMeans, MinMax, Minifloat, Symmetric, Table, layout::GgmlType,
        multiply_inputs,
    },
};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{
    error::Error,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const OUTPUTS: usize = 100;
const INPUTS: usize = 256;
/// How often the layer is repeated where time is taken: 1,024,000 weights.
const COPIES: usize = 40;

#[derive(Parser)]
#[command(about = "Measures every quantizer on a layer of a trained network")]
struct Args {
    /// Writes the chart of error against size there
    #[arg(long)]
    svg: Option<PathBuf>,
}

struct Layer {
    weight: Vec<f32>,
    seen: Calibration,
    unseen: Calibration,
}

fn unpacked(bytes: &[u8]) -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut out)?;
    Ok(out)
}

impl Layer {
    fn read() -> Outcome<Self> {
        let network = unpacked(include_bytes!("data/digits_mlp.f32.gz"))?;
        let mut numbers = network.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let mut next = |count: usize| numbers.by_ref().take(count).collect::<Vec<f32>>();
        let (first, bias, second) = (next(300 * 64), next(300), next(OUTPUTS * 300));
        let weight = second.chunks_exact(300).flat_map(|row| row[..INPUTS].to_vec()).collect();
        let (mut seen, mut unseen) = (Calibration::new(INPUTS)?, Calibration::new(INPUTS)?);
        let digits = unpacked(include_bytes!("data/digits_1797x65_u8.bin.gz"))?;
        for (i, digit) in digits.chunks_exact(65).enumerate() {
            let sum = |w: &[f32]| w.iter().zip(digit).map(|(w, &pixel)| w * f32::from(pixel) / 16.0).sum::<f32>();
            let units = first.chunks_exact(64).zip(&bias).map(|(w, b)| (sum(w) + b).max(0.0));
            let calibration = if i % 4 == 3 { &mut unseen } else { &mut seen };
            calibration.add(&units.take(INPUTS).collect::<Vec<_>>())?;
        }
        Ok(Self { weight, seen, unseen })
    }

    fn tensor(&self) -> lapidary::Result<TensorRef<'_, f32>> {
        TensorRef::new(&self.weight, &[OUTPUTS, INPUTS])
    }
}

enum Method {
    /// Rounds to nearest, and says how far off that can be.
    Certified(Box<dyn Certify<f32>>),
    Plain(Box<dyn Quantizer<f32>>),
    Gguf(GgmlType),
    Hqq(Hqq),
    Gptq(Gptq),
    Awq(Awq<Affine>),
}

struct Entry {
    family: &'static str,
    name: String,
    shared: &'static str,
    method: Method,
}

impl Entry {
    fn new(family: &'static str, name: impl Into<String>, shared: &'static str, method: Method) -> Self {
        Self { family, name: name.into(), shared, method }
    }
}

fn certified(quantizer: impl Certify<f32> + 'static) -> Method {
    Method::Certified(Box::new(quantizer))
}

/// A scheme with levels for the whole tensor, each row, or groups of 32.
macro_rules! shared {
    ($scheme:expr, "tensor") => {
        $scheme
    };
    ($scheme:expr, "row") => {
        $scheme.per_channel(0)
    };
    ($scheme:expr, "32") => {
        $scheme.per_group(32)?
    };
}

macro_rules! even {
    ($entries:ident, $scheme:ident, $($bits:literal $shared:tt),*) => {$(
        let scheme = shared!($scheme::new($bits)?, $shared);
        $entries.push(Entry::new(
            stringify!($scheme), format!("{}, {} bits", stringify!($scheme), $bits), $shared, certified(scheme),
        ));
    )*};
}

fn entries() -> Outcome<Vec<Entry>> {
    let mut all = Vec::new();
    even!(all, Affine, 16 "tensor", 8 "tensor", 8 "row", 4 "tensor", 4 "row", 4 "32", 3 "row", 3 "32", 2 "row", 2 "32");
    even!(all, Symmetric, 8 "tensor", 8 "row", 4 "tensor", 4 "row", 4 "32", 3 "row", 3 "32", 2 "row", 2 "32");
    even!(all, MinMax, 8 "row", 4 "row", 4 "32", 3 "32", 2 "32");
    for bits in [4, 3, 2] {
        let kmeans = Method::Plain(Box::new(KMeans::new(bits)?));
        all.push(Entry::new("KMeans", format!("KMeans, {bits} bits"), "tensor", kmeans));
    }
    all.push(Entry::new("NF4", "NF4", "64", certified(Table::nf4())));
    all.push(Entry::new("NF4", "NF4", "32", certified(Table::nf4().per_group(32)?)));
    for (name, format) in [("E4M3", FloatFormat::E4m3), ("E5M2", FloatFormat::E5m2)] {
        let entry = |shared, float| Entry::new("FP8", format!("FP8 {name}"), shared, certified(float));
        all.push(entry("tensor", Minifloat::new(format)));
        all.push(entry("row", Minifloat::new(format).per_channel(0)));
    }
    for (name, format) in [
        ("MXFP8 E4M3", FloatFormat::E4m3),
        ("MXFP6 E2M3", FloatFormat::E2m3),
        ("MXFP6 E3M2", FloatFormat::E3m2),
        ("MXFP4 E2M1", FloatFormat::E2m1),
    ] {
        all.push(Entry::new("MX", name, "32", certified(Minifloat::mx(format))));
    }
    for (name, block) in [
        ("Q8_0", GgmlType::Q8_0),
        ("Q6_K", GgmlType::Q6K),
        ("Q5_1", GgmlType::Q5_1),
        ("Q4_K", GgmlType::Q4K),
        ("Q4_1", GgmlType::Q4_1),
        ("Q4_0", GgmlType::Q4_0),
    ] {
        let shared = if block.block_len() == 256 { "256" } else { "32" };
        all.push(Entry::new("GGUF", format!("GGUF {name}"), shared, Method::Gguf(block)));
    }
    for bits in [4, 3, 2] {
        let hqq = Method::Hqq(Hqq::new(bits)?.per_group(32)?);
        all.push(Entry::new("HQQ", format!("HQQ, {bits} bits"), "32", hqq));
    }
    for bits in [4, 3, 2] {
        for (shared, affine) in [("row", Affine::new(bits)?.per_channel(0)), ("32", Affine::new(bits)?.per_group(32)?)]
        {
            let gptq = Gptq::new(affine);
            let entry = |name: &str, method| Entry::new("GPTQ", format!("{name}, {bits} bits"), shared, method);
            all.push(entry("GPTQ", Method::Gptq(gptq)));
            all.push(entry("GPTQ act-order", Method::Gptq(gptq.with_act_order())));
            all.push(Entry { family: "AWQ", ..entry("AWQ", Method::Awq(Awq::new(affine))) });
        }
    }
    Ok(all)
}

struct Measured {
    bits: f64,
    sqnr_db: f64,
    max_abs: f64,
    bound: Option<f64>,
    seen: f64,
    unseen: f64,
    quantize_ns: f64,
    decode_ns: Option<f64>,
}

/// The median of the nanoseconds an element took: of at least five runs, after one that does not count.
fn nanoseconds(elements: usize, mut run: impl FnMut() -> lapidary::Result<()>) -> Outcome<f64> {
    run()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || (times.len() < 31 && start.elapsed() < Duration::from_millis(200)) {
        let before = Instant::now();
        run()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e9 / elements as f64)
}

fn once<T>(elements: usize, run: impl FnOnce() -> lapidary::Result<T>) -> Outcome<(T, f64)> {
    let before = Instant::now();
    let made = run()?;
    Ok((made, before.elapsed().as_secs_f64() * 1e9 / elements as f64))
}

/// Signal to noise in decibels, and the largest error.
fn distance(original: &[f32], replaced: &[f32]) -> (f64, f64) {
    let pairs = || original.iter().zip(replaced).map(|(&x, &y)| (f64::from(x), f64::from(x) - f64::from(y)));
    let (signal, noise) = pairs().fold((0.0, 0.0), |(signal, noise), (x, e)| (signal + x * x, noise + e * e));
    (10.0 * f64::log10(signal / noise), pairs().fold(0.0, |largest: f64, (_, e)| largest.max(e.abs())))
}

impl Layer {
    fn measure(&self, method: &Method) -> Outcome<Measured> {
        let (weight, shape) = (self.tensor()?, [OUTPUTS, INPUTS]);
        let tiled = self.weight.repeat(COPIES);
        let large = TensorRef::new(&tiled, &[COPIES * OUTPUTS, INPUTS])?;
        let mut values = vec![0.0; tiled.len()];
        let mut plain = |quantizer: &dyn Quantizer<f32>| -> Outcome<(QTensor, f64, Option<f64>)> {
            let mut q = quantizer.layout(large.shape())?;
            let quantize_ns = nanoseconds(tiled.len(), || quantizer.quantize_into(TensorRef::from(&large), &mut q))?;
            let decode_ns =
                nanoseconds(tiled.len(), || q.dequantize_into(TensorMut::new(&mut values, large.shape())?))?;
            Ok((quantizer.quantize(&weight)?, quantize_ns, Some(decode_ns)))
        };
        let mut bound = None;
        let (q, quantize_ns, decode_ns) = match method {
            Method::Certified(quantizer) => {
                let made = plain(&**quantizer)?;
                bound = Some(quantizer.certificate(&made.0)?.max_abs());
                made
            }
            Method::Plain(quantizer) => plain(&**quantizer)?,
            Method::Gguf(block) => {
                let encoded = block.encode(&large)?;
                let quantize_ns = nanoseconds(tiled.len(), || block.encode(&large).map(drop))?;
                let decode_ns = nanoseconds(tiled.len(), || block.decode(&encoded.bytes, &mut values))?;
                (block.to_qtensor(&shape, &block.encode(&weight)?.bytes)?, quantize_ns, Some(decode_ns))
            }
            Method::Hqq(hqq) => {
                let (q, ns) = once(weight.len(), || hqq.quantize(&weight))?;
                (q, ns, None)
            }
            Method::Gptq(gptq) => {
                let (swept, ns) = once(weight.len(), || gptq.quantize(&weight, &self.seen))?;
                (swept.tensor, ns, None)
            }
            Method::Awq(awq) => {
                let (scaled, quantize_ns) = once(weight.len(), || awq.quantize(&weight, &self.seen))?;
                let mut decoded: Vec<f32> = scaled.tensor.dequantize();
                let inverse: Vec<f32> = scaled.scales.iter().map(|scale| 1.0 / scale).collect();
                multiply_inputs(TensorMut::new(&mut decoded, &shape)?, &inverse)?;
                let (sqnr_db, max_abs) = distance(&self.weight, &decoded);
                let decoded = TensorRef::new(&decoded, &shape)?;
                return Ok(Measured {
                    bits: scaled.tensor.bits_per_weight(),
                    sqnr_db,
                    max_abs,
                    bound: None,
                    seen: self.seen.output_error(&weight, &decoded)?,
                    unseen: self.unseen.output_error(&weight, &decoded)?,
                    quantize_ns,
                    decode_ns: None,
                });
            }
        };
        let (error, decoded) = (q.error(&weight)?, q.dequantize::<f32>());
        assert!(bound.is_none_or(|bound| error.max_abs <= bound), "{} above {bound:?}", error.max_abs);
        let decoded = TensorRef::new(&decoded, &shape)?;
        Ok(Measured {
            bits: match method {
                Method::Gguf(block) => block.block_bytes() as f64 * 8.0 / block.block_len() as f64,
                _ => q.bits_per_weight(),
            },
            sqnr_db: error.sqnr_db,
            max_abs: error.max_abs,
            bound,
            seen: self.seen.output_error(&weight, &decoded)?,
            unseen: self.unseen.output_error(&weight, &decoded)?,
            quantize_ns,
            decode_ns,
        })
    }
}

/// Three digits that count.
fn short(x: f64) -> String {
    let places = (2 - x.abs().log10().floor() as i32).clamp(0, 12) as usize;
    if x == 0.0 { "0".into() } else { format!("{x:.places$}") }
}

fn main() -> Outcome<()> {
    let args = Args::parse();
    let layer = Layer::read()?;
    let entries = entries()?;
    println!(
        "| scheme | levels for | bits a weight | SQNR, dB | largest error | certified | output error | on other rows \
         | quantize, ns | decode, ns |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let mut points = Vec::new();
    for entry in &entries {
        let m = one.install(|| layer.measure(&entry.method).map_err(|error| error.to_string()))?;
        let or = |x: Option<f64>| x.map_or("–".into(), short);
        println!(
            "| {} | {} | {:.2} | {:.1} | {} | {} | {} | {} | {} | {} |",
            entry.name,
            entry.shared,
            m.bits,
            m.sqnr_db,
            short(m.max_abs),
            or(m.bound),
            format_args!("{:.2e}", m.seen),
            format_args!("{:.2e}", m.unseen),
            short(m.quantize_ns),
            or(m.decode_ns)
        );
        points.push((entry, m));
    }
    match args.svg {
        Some(path) => draw(&points, &path),
        None => Ok(()),
    }
}

/// What the chart shows: scheme, what shares levels, and whether the label stands left of the point.
const CHART: &[(&str, &str, bool)] = &[
    ("Affine, 2 bits", "row", false),
    ("Affine, 3 bits", "row", false),
    ("Affine, 4 bits", "row", true),
    ("Affine, 4 bits", "32", false),
    ("Affine, 8 bits", "tensor", true),
    ("Affine, 8 bits", "row", true),
    ("KMeans, 2 bits", "tensor", false),
    ("KMeans, 3 bits", "tensor", true),
    ("NF4", "64", false),
    ("FP8 E4M3", "tensor", false),
    ("FP8 E5M2", "tensor", false),
    ("MXFP4 E2M1", "32", false),
    ("MXFP6 E2M3", "32", false),
    ("GGUF Q8_0", "32", false),
    ("GGUF Q6_K", "256", false),
    ("GGUF Q5_1", "32", false),
    ("GGUF Q4_K", "256", false),
    ("HQQ, 2 bits", "32", false),
    ("HQQ, 3 bits", "32", false),
    ("HQQ, 4 bits", "32", false),
    ("AWQ, 4 bits", "row", true),
    ("GPTQ, 2 bits", "row", false),
    ("GPTQ, 3 bits", "row", false),
    ("GPTQ, 4 bits", "row", false),
    ("GPTQ, 4 bits", "32", false),
];

fn draw(points: &[(&Entry, Measured)], path: &Path) -> Outcome<()> {
    let area = SVGBackend::new(path, (860, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("A layer of a trained network: error of its outputs against size", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(1.5..9.5, (1e-6..0.1).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("bits a weight, levels included")
        .y_desc("error of the outputs, on rows no scheme has seen (log scale)")
        .x_label_formatter(&|bits| format!("{bits:.0}"))
        .y_label_formatter(&|error| format!("{error:.0e}"))
        .draw()?;
    let mut families: Vec<&str> = points.iter().map(|(entry, _)| entry.family).collect();
    families.dedup();
    for (entry, m) in points {
        let shown = |&&(name, shared, _): &&(&str, &str, bool)| name == entry.name && shared == entry.shared;
        let Some(&(.., left)) = CHART.iter().find(shown) else { continue };
        let color = Palette99::pick(families.iter().position(|family| *family == entry.family).unwrap_or(0));
        let label = match entry.shared {
            "row" | "tensor" | "32" if m.bound.is_some() || entry.family == "GPTQ" || entry.family == "AWQ" => {
                format!("{}, {}", entry.name, entry.shared)
            }
            _ => entry.name.clone(),
        };
        let (side, x) = if left { (HPos::Right, -7) } else { (HPos::Left, 7) };
        let style = ("sans-serif", 12).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center));
        chart.draw_series(std::iter::once(
            EmptyElement::at((m.bits, m.unseen))
                + Circle::new((0, 0), 4, color.filled())
                + Text::new(label, (x, 0), style),
        ))?;
    }
    area.present()?;
    Ok(())
}
