//! A network of burn, made small: trained, pruned, fine-tuned under masks, then through quantization, stored and loaded again.
//!
//! `cargo run --release --example burn_digits --features burn` takes seconds and prints a table. It fails when the network that was
//! loaded does not predict what the one before it did.

use burn_core::{
    self as burn,
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData, activation},
};
use burn_optim::{GradientsParams, ModuleOptimizer};
use flate2::read::GzDecoder;
use lapidary::{
    Mask, QuantizerExt, TensorRef,
    backend::burn::{Adapter, FakeQuantizer, Masks, Watch, Weights, load},
    format::packed::{self, Packed, Stored},
    optim::{AdamW, Schedule},
    prune::{Scores, Select},
    quant::Symmetric,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{collections::BTreeMap, error::Error, io::Read};

const DIGITS: &[u8] = include_bytes!("data/digits_1797x65_u8.bin.gz");
const EPOCHS: usize = 25;
const BATCH: usize = 32;
const SPARSITY: f64 = 0.9;
const BITS: u8 = 5;

#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Layer {
    /// He et al. 2015 (arXiv:1502.01852), uniform.
    fn new(inputs: usize, outputs: usize, rng: &mut StdRng, device: &Device) -> Self {
        let bound = (6.0 / inputs as f32).sqrt();
        let weight: Vec<f32> = (0..inputs * outputs).map(|_| rng.random_range(-bound..bound)).collect();
        let weight = Tensor::from_data(TensorData::new(weight, [inputs, outputs]), device);
        Self { weight: Param::from_tensor(weight), bias: Param::from_tensor(Tensor::zeros([outputs], device)) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val()) + self.bias.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Layer>,
}

impl Net {
    fn new(sizes: &[usize], device: &Device) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        Self { layers: sizes.windows(2).map(|size| Layer::new(size[0], size[1], &mut rng, device)).collect() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        let relu = |i: usize, x: Tensor<2>| if i < last { activation::relu(x) } else { x };
        self.layers.iter().enumerate().fold(x, |x, (i, layer)| relu(i, layer.forward(x)))
    }
}

/// Images, a row each with pixels from 0 to 1, and their labels.
struct Rows {
    x: Vec<f32>,
    y: Vec<i64>,
}

impl Rows {
    /// The embedded digits: rows with `i % 4 == 3` test, the others train.
    fn digits() -> Result<[Self; 2], Box<dyn Error>> {
        let mut bytes = Vec::new();
        GzDecoder::new(DIGITS).read_to_end(&mut bytes)?;
        let rows = |test: bool| {
            let rows = bytes.chunks_exact(65).enumerate().filter(|(i, _)| (i % 4 == 3) == test);
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for (_, row) in rows {
                x.extend(row[..64].iter().map(|&pixel| f32::from(pixel) / 16.0));
                y.push(row[64].into());
            }
            Self { x, y }
        };
        Ok([rows(false), rows(true)])
    }

    fn batch(&self, rows: &[usize], device: &Device) -> (Tensor<2>, Tensor<2, Int>) {
        let x: Vec<f32> = rows.iter().flat_map(|&i| &self.x[64 * i..64 * (i + 1)]).copied().collect();
        let y: Vec<i64> = rows.iter().map(|&i| self.y[i]).collect();
        let plain = device.clone().inner();
        let x = Tensor::from_data(TensorData::new(x, [rows.len(), 64]), &plain);
        (x, Tensor::from_data(TensorData::new(y, [rows.len(), 1]), &plain))
    }

    /// The digit that a network takes each row for.
    fn predict(&self, net: &Net, device: &Device) -> Result<Vec<i64>, Box<dyn Error>> {
        let all: Vec<usize> = (0..self.y.len()).collect();
        let (x, _) = self.batch(&all, device);
        Ok(net.valid().forward(x).argmax(1).try_into_vec_as::<i64>()?)
    }

    fn accuracy(&self, predicted: &[i64]) -> f64 {
        let right = predicted.iter().zip(&self.y).filter(|(a, b)| a == b).count();
        100.0 * right as f64 / self.y.len() as f64
    }
}

/// Some epochs of burn's training loop, the rate falling to 0.
fn train(
    mut net: Net,
    (optimizer, watch): (&mut ModuleOptimizer, &Watch),
    rows: &Rows,
    device: &Device,
    rate: f64,
    epochs: usize,
) -> lapidary::Result<Net> {
    let mut order: Vec<usize> = (0..rows.y.len()).collect();
    let mut rng = StdRng::seed_from_u64(2);
    let schedule = Schedule::cosine(rate, (epochs * order.len().div_ceil(BATCH)) as u64, 0.0)?;
    let mut step = 0;
    for _ in 0..epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            let (x, y) = rows.batch(batch, device);
            let loss = activation::log_softmax(net.forward(x), 1).gather(1, y).mean().neg();
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            net = optimizer.step(schedule.rate(step), net, gradients);
            watch.check()?;
            step += 1;
        }
    }
    Ok(net)
}

/// The weights that are not the largest, of all layers together.
fn masks(net: &Net) -> lapidary::Result<Masks> {
    let weights = Weights::new(net)?;
    let matrices: BTreeMap<_, _> =
        weights.views::<f32>().into_iter().filter(|(_, view)| view.shape().len() == 2).collect();
    let scores: Vec<_> = matrices.values().map(|view| Scores::magnitude(view.as_slice())).collect();
    let mut kept = matrices.values().map(|view| Mask::keep_all(view.shape())).collect::<Result<Vec<_>, _>>()?;
    Select::sparsity(SPARSITY)?.with_min_kept(1).refine(&scores, &mut kept)?;
    let mut masks = Masks::default();
    matrices.keys().zip(kept).for_each(|(name, mask)| masks.insert(name, mask));
    Ok(masks)
}

/// Kept weights as codes, biases in 16 bits.
fn pack(net: &Net, masks: &Masks, quantizer: &Symmetric) -> lapidary::Result<Vec<Packed>> {
    let weights = Weights::new(net)?;
    let pack = |(name, view): (String, TensorRef<'_, f32>)| match masks.get(&name) {
        Some(mask) => {
            let codes = quantizer.quantize(&mask.gather(view)?)?;
            Packed::sparse(name, mask.clone(), Stored::Quantized(codes))
        }
        None => Packed::dense(name, view.shape(), Stored::F32(view.as_slice().to_vec())),
    };
    weights.views::<f32>().into_iter().map(pack).collect()
}

fn unpack(net: &mut Net, tensors: &[Packed]) -> lapidary::Result<()> {
    let values = tensors.iter().map(Packed::to_dense::<f32>).collect::<Result<Vec<_>, _>>()?;
    let pairs = tensors.iter().zip(&values);
    let views = pairs.map(|(tensor, values)| Ok((tensor.name(), TensorRef::new(values, tensor.shape())?)));
    load(net, &views.collect::<lapidary::Result<_>>()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let [training, test] = Rows::digits()?;
    let sizes = [64, 128, 64, 10];
    let net = Net::new(&sizes, &device);
    let parameters = net.num_params();
    println!("| stage | weights that are not 0 | bytes | test accuracy |\n|---|--:|--:|--:|");
    let row = |stage: &str, weights: usize, bytes: usize, predicted: &[i64]| {
        println!("| {stage} | {weights} | {bytes} | {:.2} % |", test.accuracy(predicted));
    };

    let adamw = AdamW::new(1e-3)?.with_weight_decay(0.05)?;
    let (mut optimizer, watch) = Adapter::new(adamw).check_finite().for_module(&net);
    let mut net = train(net, (&mut optimizer, &watch), &training, &device, 3e-3, EPOCHS)?;
    row("trained", parameters, 4 * parameters, &test.predict(&net, &device)?);

    let masks = masks(&net)?;
    let kept = masks.iter().map(|(_, mask)| mask.kept()).sum::<usize>() + sizes[1..].iter().sum::<usize>();
    masks.apply(&mut net)?;
    row("pruned", kept, 4 * kept, &test.predict(&net, &device)?);

    watch.set_masks(&masks)?;
    let net = train(net, (&mut optimizer, &watch), &training, &device, 3e-3, EPOCHS)?;
    row("fine-tuned", kept, 4 * kept, &test.predict(&net, &device)?);

    // Through the quantization, whose codes leave a 0 what it is.
    let quantizer = Symmetric::new(BITS)?;
    let fake = FakeQuantizer::symmetric(quantizer, |_, shape| shape.len() == 2);
    let fitting = fake.watch();
    let net = net.apply_reparameterization(fake);
    let net = train(net, (&mut optimizer, &watch), &training, &device, 1e-3, EPOCHS / 2)?;
    let mut net = net.materialize();
    fitting.check()?;
    let tensors = pack(&net, &masks, &quantizer)?;
    let before = test.predict(&net, &device)?;
    unpack(&mut net, &tensors)?;
    let quantized = test.predict(&net, &device)?;
    let path = std::env::temp_dir().join(format!("burn-digits-{}.lpdy", std::process::id()));
    packed::save(&path, &tensors)?;
    let (bytes, read) = (std::fs::metadata(&path)?.len(), packed::load(&path));
    std::fs::remove_file(&path)?;
    row("quantized", kept, bytes as usize, &quantized);

    let mut loaded = Net::new(&sizes, &device);
    unpack(&mut loaded, &read?)?;
    let predicted = test.predict(&loaded, &device)?;
    row("loaded", kept, bytes as usize, &predicted);
    let copies = watch.copies();
    println!(
        "\n{} steps of a parameter, {} of them with a copy of it, {} with one of its gradient",
        copies.steps, copies.parameters, copies.gradients
    );
    if predicted != quantized || quantized != before {
        return Err("the network that was loaded predicts something else".into());
    }
    Ok(())
}
