//! A network of candle, trained, pruned, quantized, saved and read back: candle's layers, this crate's optimizers, masks,
//! rounding and files.
//!
//! ```text
//! cargo run --release --example candle_mnist --features candle                 # embedded 8x8 digits
//! cargo run --release --example candle_mnist --features candle -- --data DIR   # MNIST-format idx files
//! ```
//!
//! Fails when the network read back has another test accuracy than the one that was saved.

#[path = "deep_compression/data.rs"]
#[allow(dead_code, reason = "the other example also validates and cuts pixels")]
mod data;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Linear, Module, VarBuilder, VarMap, linear, loss::cross_entropy};
use clap::Parser;
use data::{Data, Split};
use lapidary::{
    Mask, QTensor, Quantizer, QuantizerExt,
    backend::candle::{VarParams, edit, fake_quantize, view},
    format::packed::{self, Packed, Stored},
    optim::{AdamW, Norm, Schedule, StepOptions},
    prune::{Scores, SparsitySchedule},
    quant::{FakeQuantize, Symmetric},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{path::PathBuf, sync::Arc, time::Instant};

#[derive(Parser)]
#[command(about = "Trains, prunes and quantizes an MLP of candle on handwritten digits")]
struct Args {
    /// Folder of four MNIST-format idx files, gzipped or not; the embedded digits if absent
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder for the files
    #[arg(long, default_value = "target/candle_mnist")]
    out: PathBuf,
    /// Share of the weights that leaves
    #[arg(long, default_value_t = 0.9)]
    sparsity: f64,
    /// Bits of a weight that stays, 2 to 8
    #[arg(long, default_value_t = 4)]
    bits: u8,
}

const CPU: Device = Device::Cpu;
const BATCH: usize = 50;
const LAYERS: [&str; 3] = ["fc1", "fc2", "fc3"];

/// Its variables are in a `VarMap`; what is rounded on the way through is theirs.
struct Mlp {
    map: VarMap,
    layers: [Linear; 3],
}

/// The levels of the weights, as they were fitted last.
struct Levels {
    scheme: Symmetric,
    weights: [Arc<QTensor>; 3],
}

impl Mlp {
    fn new(inputs: usize) -> Result<Self> {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
        let layers = [
            linear(inputs, 300, vb.pp(LAYERS[0]))?,
            linear(300, 100, vb.pp(LAYERS[1]))?,
            linear(100, 10, vb.pp(LAYERS[2]))?,
        ];
        Ok(Self { map, layers })
    }

    /// candle's own generator has no seed on the CPU; the same run is to give the same figures.
    fn seed(&self, seed: u64) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        for (name, layer) in LAYERS.iter().zip(&self.layers) {
            let bound = (6.0 / layer.weight().dim(1)? as f32).sqrt();
            edit::<f32, _>(&self.var(&format!("{name}.weight"))?, |mut w| {
                w.as_mut_slice().iter_mut().for_each(|w| *w = rng.random_range(-bound..bound));
                Ok(())
            })?;
            edit::<f32, _>(&self.var(&format!("{name}.bias"))?, |mut b| {
                b.as_mut_slice().fill(0.0);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn var(&self, name: &str) -> Result<Var> {
        let map = self.map.data().lock().map_err(|_| candle_core::Error::msg("the map of variables is lost"))?;
        map.get(name).cloned().ok_or_else(|| candle_core::Error::msg(format!("no variable {name}")))
    }

    fn forward(&self, x: &Tensor, levels: Option<&Levels>) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let weight = match levels {
                Some(levels) => {
                    fake_quantize(layer.weight(), FakeQuantize::from(levels.scheme), levels.weights[i].clone())?
                }
                None => layer.weight().clone(),
            };
            x = Linear::new(weight, layer.bias().cloned()).forward(&x)?;
            x = if i < 2 { x.relu()? } else { x };
        }
        Ok(x)
    }

    /// Percent of the images that it knows.
    fn accuracy(&self, split: &Split, levels: Option<&Levels>) -> Result<f64> {
        let (x, y) = batch(split, &(0..split.y.len()).collect::<Vec<_>>())?;
        let right = self.forward(&x, levels)?.argmax(1)?.eq(&y)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        Ok(100.0 * f64::from(right) / split.y.len() as f64)
    }
}

fn batch(split: &Split, rows: &[usize]) -> Result<(Tensor, Tensor)> {
    let width = split.x.ncols();
    let x: Vec<f32> = rows.iter().flat_map(|&row| split.x.row(row).to_vec()).collect();
    let y: Vec<u32> = rows.iter().map(|&row| u32::from(split.y[row])).collect();
    Ok((Tensor::from_vec(x, (rows.len(), width), &CPU)?, Tensor::from_vec(y, rows.len(), &CPU)?))
}

/// A stage of training: what is done before each step, and the levels it is to be computed with.
fn train(
    mlp: &Mlp,
    vars: &mut VarParams,
    split: &Split,
    epochs: usize,
    rate: f64,
    mut levels: Option<&mut Levels>,
    mut before: impl FnMut(u64, &mut VarParams) -> Result<()>,
) -> Result<()> {
    let mut order: Vec<usize> = (0..split.y.len()).collect();
    let mut rng = StdRng::seed_from_u64(7);
    let total = (epochs * order.len().div_ceil(BATCH)) as u64;
    let schedule = Schedule::cosine(rate, total, 0.0)?;
    let mut step = 0;
    for _ in 0..epochs {
        order.shuffle(&mut rng);
        for rows in order.chunks(BATCH) {
            before(step, vars)?;
            candle_nn::Optimizer::set_learning_rate(vars, schedule.rate(step));
            if let Some(levels) = levels.as_deref_mut() {
                levels.fit(mlp)?;
            }
            let (x, y) = batch(split, rows)?;
            let loss = cross_entropy(&mlp.forward(&x, levels.as_deref())?, &y)?;
            vars.step_with(&loss.backward()?, StepOptions::new().clip_norm(5.0, Norm::L2)?)?;
            step += 1;
        }
    }
    Ok(())
}

impl Levels {
    fn new(mlp: &Mlp, bits: u8) -> Result<Self> {
        let scheme = Symmetric::new(bits)?;
        let levels =
            |layer: &Linear| Ok::<_, candle_core::Error>(scheme.quantize(&view::<f32>(layer.weight())?)?.into());
        let [a, b, c] = &mlp.layers;
        Ok(Self { scheme, weights: [levels(a)?, levels(b)?, levels(c)?] })
    }

    /// Lets the levels follow the weights. Graphs of earlier steps are gone, so nothing is copied.
    fn fit(&mut self, mlp: &Mlp) -> Result<()> {
        for (levels, layer) in self.weights.iter_mut().zip(&mlp.layers) {
            self.scheme.fit((&view::<f32>(layer.weight())?).into(), Arc::make_mut(levels))?;
        }
        Ok(())
    }
}

/// Weights that stay, as codes; biases as they are. One scale a tensor: it is the same without the zeros.
fn pack(mlp: &Mlp, masks: &[Mask; 3], scheme: Symmetric) -> Result<Vec<Packed>> {
    let mut tensors = Vec::new();
    for ((name, layer), mask) in LAYERS.iter().zip(&mlp.layers).zip(masks) {
        let kept = mask.gather(&view::<f32>(layer.weight())?)?;
        tensors.push(Packed::sparse(
            format!("{name}.weight"),
            mask.clone(),
            Stored::Quantized(scheme.quantize(&kept)?),
        )?);
        let name = format!("{name}.bias");
        let bias = mlp.var(&name)?;
        tensors.push(Packed::dense(name, bias.dims(), Stored::F32(view::<f32>(&bias)?.as_slice().to_vec()))?);
    }
    Ok(tensors)
}

fn unpack(tensors: &[Packed], inputs: usize) -> Result<Mlp> {
    let mlp = Mlp::new(inputs)?;
    for tensor in tensors {
        mlp.var(tensor.name())?.set(&Tensor::from_vec(tensor.to_dense::<f32>()?, tensor.shape(), &CPU)?)?;
    }
    Ok(mlp)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let data = match &args.data {
        Some(dir) => Data::mnist(dir)?,
        None => Data::digits()?,
    };
    let epochs = if args.data.is_some() { [4, 4, 2] } else { [30, 60, 20] };
    std::fs::create_dir_all(&args.out)?;
    let inputs = data.train.x.ncols();
    let mlp = Mlp::new(inputs)?;
    mlp.seed(1)?;
    let mut vars = VarParams::default().check_finite();
    let decayed = vars.group(AdamW::new(1e-3)?.with_weight_decay(0.05)?);
    let plain = vars.group(AdamW::new(1e-3)?.with_weight_decay(0.0)?);
    vars.add_all(&mlp.map, |_, shape| if shape.len() < 2 { plain } else { decayed })?;
    println!("{}: {} training rows, {} to test", data.name, data.train.y.len(), data.test.y.len());
    println!("| stage | weights | bytes | test accuracy | time |\n|---|--:|--:|--:|--:|");
    let row = |stage: &str, weights: usize, bytes: u64, accuracy: f64, clock: Instant| {
        println!("| {stage} | {weights} | {bytes} | {accuracy:.2} % | {:.1} s |", clock.elapsed().as_secs_f64());
    };

    let clock = Instant::now();
    train(&mlp, &mut vars, &data.train, epochs[0], 2e-3, None, |_, _| Ok(()))?;
    let dense = args.out.join("dense.safetensors");
    mlp.map.save(&dense)?;
    let all = mlp.layers.iter().map(|layer| layer.weight().elem_count()).sum();
    row("dense", all, std::fs::metadata(&dense)?.len(), mlp.accuracy(&data.test, None)?, clock);

    let clock = Instant::now();
    let all_kept = |layer: &Linear| Mask::keep_all(layer.weight().dims());
    let [a, b, c] = &mlp.layers;
    let mut masks = [all_kept(a)?, all_kept(b)?, all_kept(c)?];
    let steps = (epochs[1] * data.train.y.len().div_ceil(BATCH)) as u64;
    let sparsity = SparsitySchedule::cubic(args.sparsity, 0..=steps / 2, 10)?;
    train(&mlp, &mut vars, &data.train, epochs[1], 1e-3, None, |step, vars| {
        let Some(select) = sparsity.at(step) else { return Ok(()) };
        let weights = mlp.layers.iter().map(|layer| view::<f32>(layer.weight()));
        let weights = weights.collect::<lapidary::Result<Vec<_>>>()?;
        // The least of all layers together.
        let scores: Vec<_> = weights.iter().map(|w| Scores::magnitude(w.as_slice())).collect();
        select.refine(&scores, &mut masks)?;
        for (name, mask) in LAYERS.iter().zip(&masks) {
            vars.params_mut().set_mask(&format!("{name}.weight"), Some(mask.clone()))?;
        }
        Ok(())
    })?;
    let kept = masks.iter().map(Mask::kept).sum();
    let pruned = args.out.join("pruned.safetensors");
    mlp.map.save(&pruned)?;
    row("pruned", kept, std::fs::metadata(&pruned)?.len(), mlp.accuracy(&data.test, None)?, clock);

    let clock = Instant::now();
    let mut levels = Levels::new(&mlp, args.bits)?;
    train(&mlp, &mut vars, &data.train, epochs[2], 5e-4, Some(&mut levels), |_, _| Ok(()))?;
    levels.fit(&mlp)?;
    let quantized = args.out.join("quantized.lpdy");
    packed::save(&quantized, &pack(&mlp, &masks, levels.scheme)?)?;
    let here = mlp.accuracy(&data.test, Some(&levels))?;
    row("quantized", kept, std::fs::metadata(&quantized)?.len(), here, clock);

    let clock = Instant::now();
    let tensors = packed::load(&quantized)?;
    let again = unpack(&tensors, inputs)?.accuracy(&data.test, None)?;
    row(
        "read back",
        tensors.iter().filter_map(Packed::mask).map(Mask::kept).sum(),
        std::fs::metadata(&quantized)?.len(),
        again,
        clock,
    );
    if again != here {
        return Err(format!("{here} % before it was saved, {again} % when it was read back").into());
    }
    Ok(())
}
