//! Mini-batch training: the crate's AdamW, under masks and through quantized weights where asked.

use crate::net::{Backward, Distill, Goal, Layer, Net, gather, softmax};
use indicatif::ProgressBar;
use lapidary::{
    LearningRate, Mask, Optimizer, OptimizerExt, QTensor, Quantizer, QuantizerExt, Result, State, Step, optim::AdamW,
    quant::MinMax,
};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand::{rngs::StdRng, seq::SliceRandom};
use std::f64::consts::PI;

/// Rows to learn from, and a teacher's logits for them.
#[derive(Clone, Copy)]
pub(crate) struct Lesson<'a> {
    pub(crate) x: ArrayView2<'a, f32>,
    pub(crate) y: &'a [u8],
    pub(crate) teacher: Option<&'a Array2<f32>>,
}

pub(crate) const DISTILL: Distill = Distill { temperature: 4.0, share: 0.9 };

/// Hyper-parameters of a phase of training.
#[derive(Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    /// Rate of the first epochs, and at how many of them its descent along half a cosine begins.
    pub(crate) rate: f64,
    pub(crate) constant: usize,
    /// Decoupled, on weights.
    pub(crate) weight_decay: f64,
    /// L1 penalty on weights.
    pub(crate) l1: f32,
}

impl Phase {
    const FINAL_RATE: f64 = 1e-6;

    fn rate_at(&self, epoch: f64) -> f64 {
        let (constant, epochs) = (self.constant as f64, self.epochs as f64);
        let part = ((epoch - constant) / (epochs - constant)).clamp(0.0, 1.0);
        if part == 0.0 || part.is_nan() {
            return self.rate;
        }
        Self::FINAL_RATE + (self.rate - Self::FINAL_RATE) * 0.5 * (1.0 + (PI * part).cos())
    }
}

/// How survivors are quantized: a range for each group of them, biases to 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    pub(crate) weights: MinMax,
    pub(crate) biases: MinMax,
}

impl Codec {
    pub(crate) fn new(bits: u8, group: usize) -> Result<Self> {
        Ok(Self { weights: MinMax::new(bits)?.per_group(group)?, biases: MinMax::new(8)? })
    }

    /// The codes of a layer's surviving weights and of its biases.
    pub(crate) fn encode(&self, layer: &Layer, mask: &Mask) -> Result<(QTensor, QTensor)> {
        Ok((self.weights.quantize(&mask.gather(&layer.weight)?)?, self.biases.quantize(&layer.bias)?))
    }
}

/// Quantized weights to compute with while the latent ones learn (straight-through estimator).
pub(crate) struct Shadow {
    codec: Codec,
    pub(crate) net: Net,
    codes: Vec<(QTensor, QTensor)>,
}

impl Shadow {
    pub(crate) fn new(codec: Codec, net: &Net, masks: &[Mask]) -> Result<Self> {
        let codes =
            net.layers.iter().zip(masks).map(|(layer, mask)| codec.encode(layer, mask)).collect::<Result<_>>()?;
        Ok(Self { codec, net: net.clone(), codes })
    }

    fn refresh(&mut self, latent: &Net, masks: &[Mask]) -> Result<()> {
        let Self { codec, net, codes } = self;
        for (((shadow, layer), mask), (weights, biases)) in
            net.layers.iter_mut().zip(&latent.layers).zip(masks).zip(codes)
        {
            let mut kept = mask.gather(&layer.weight)?;
            codec.weights.quantize_into((&kept).into(), weights)?;
            codec.biases.quantize_into((&layer.bias).into(), biases)?;
            weights.dequantize_into(&mut kept)?;
            mask.scatter(&kept, &mut shadow.weight)?;
            biases.dequantize_into(&mut shadow.bias)?;
        }
        Ok(())
    }
}

/// Half a batch: each has its own buffers, so that two threads (or one) compute the same bits.
struct Half {
    x: Array2<f32>,
    labels: Vec<u8>,
    teacher: Array2<f32>,
    backward: Backward,
}

impl Half {
    fn new(net: &Net, rows: usize) -> Self {
        let widths = net.widths();
        Self {
            x: Array2::zeros((rows, widths[0])),
            labels: vec![0; rows],
            teacher: Array2::zeros((rows, widths[widths.len() - 1])),
            backward: Backward::new(net, rows),
        }
    }

    fn run(&mut self, net: &Net, lesson: &Lesson<'_>, soft: Option<&Array2<f32>>, rows: &[usize], scale: f32) {
        gather(lesson.x, rows, &mut self.x);
        self.labels.iter_mut().zip(rows).for_each(|(label, &row)| *label = lesson.y[row]);
        let teacher = soft.map(|soft| {
            gather(soft.view(), rows, &mut self.teacher);
            (self.teacher.view(), DISTILL)
        });
        self.backward.run(net, self.x.view(), &Goal { labels: &self.labels, teacher }, scale);
    }
}

/// The two tensors' optimizers and states of each layer.
struct Steps {
    weights: AdamW,
    biases: AdamW,
    states: Vec<(State, State)>,
}

impl Steps {
    fn new(net: &Net, phase: &Phase) -> Result<Self> {
        let weights = AdamW::new(phase.rate)?.with_weight_decay(phase.weight_decay)?;
        let biases = AdamW::new(phase.rate)?.with_weight_decay(0.0)?;
        let states = net.layers.iter().map(|layer| Ok((weights.init(&layer.weight)?, biases.init(&layer.bias)?)));
        Ok(Self { weights, biases, states: states.collect::<Result<_>>()? })
    }

    fn step(&mut self, net: &mut Net, grads: &[Layer], masks: &[Mask], rate: f64) -> Result<()> {
        self.weights.set_learning_rate(rate)?;
        self.biases.set_learning_rate(rate)?;
        for (i, ((layer, grad), (weight, bias))) in net.layers.iter_mut().zip(grads).zip(&mut self.states).enumerate() {
            let step = Step::new(&mut layer.weight, &grad.weight, weight);
            self.weights.step(match masks.get(i) {
                Some(mask) => step.mask(mask),
                None => step,
            })?;
            self.biases.step(Step::new(&mut layer.bias, &grad.bias, bias))?;
        }
        Ok(())
    }
}

/// Trains a dense network for a phase.
pub(crate) fn train_dense(
    net: &mut Net,
    lesson: Lesson<'_>,
    phase: Phase,
    rng: &mut StdRng,
    bar: &ProgressBar,
) -> Result<()> {
    let mut trainer = Trainer::new(net, lesson, phase)?;
    for epoch in 0..phase.epochs {
        trainer.epoch(epoch, net, &[], None, rng)?;
        bar.inc(1);
    }
    Ok(())
}

/// Trains under masks that `tighten` may narrow before each epoch.
pub(crate) fn train_pruning(
    net: &mut Net,
    masks: &mut Vec<Mask>,
    lesson: Lesson<'_>,
    phase: Phase,
    rng: &mut StdRng,
    bar: &ProgressBar,
    tighten: impl Fn(usize, &Net, &mut Vec<Mask>) -> Result<()>,
) -> Result<()> {
    let mut trainer = Trainer::new(net, lesson, phase)?;
    for epoch in 0..phase.epochs {
        tighten(epoch, net, masks)?;
        for (layer, mask) in net.layers.iter_mut().zip(&*masks) {
            mask.apply(&mut layer.weight)?;
        }
        trainer.epoch(epoch, net, masks, None, rng)?;
        bar.inc(1);
    }
    Ok(())
}

/// Trains with the gradients taken at the quantized weights (the straight-through estimator).
pub(crate) fn train_quantized(
    net: &mut Net,
    masks: &[Mask],
    shadow: &mut Shadow,
    lesson: Lesson<'_>,
    phase: Phase,
    rng: &mut StdRng,
    bar: &ProgressBar,
) -> Result<()> {
    let mut trainer = Trainer::new(net, lesson, phase)?;
    for epoch in 0..phase.epochs {
        trainer.epoch(epoch, net, masks, Some(&mut *shadow), rng)?;
        bar.inc(1);
    }
    shadow.refresh(net, masks)
}

struct Trainer<'a> {
    lesson: Lesson<'a>,
    phase: Phase,
    /// The teacher's softened probabilities.
    soft: Option<Array2<f32>>,
    steps: Steps,
    halves: [Half; 2],
    order: Vec<usize>,
}

impl<'a> Trainer<'a> {
    fn new(net: &Net, lesson: Lesson<'a>, phase: Phase) -> Result<Self> {
        let batch = phase.batch.min(lesson.y.len());
        Ok(Self {
            lesson,
            phase,
            soft: lesson.teacher.map(|logits| softmax(logits.clone(), DISTILL.temperature)),
            steps: Steps::new(net, &phase)?,
            halves: [Half::new(net, batch.div_ceil(2)), Half::new(net, batch / 2)],
            order: (0..lesson.y.len()).collect(),
        })
    }

    fn epoch(
        &mut self,
        epoch: usize,
        net: &mut Net,
        masks: &[Mask],
        mut shadow: Option<&mut Shadow>,
        rng: &mut StdRng,
    ) -> Result<()> {
        let Self { lesson, phase, soft, steps, halves: [a, b], order } = self;
        let batch = a.labels.len() + b.labels.len();
        let batches = order.len() / batch;
        order.shuffle(rng);
        for (i, rows) in order.chunks_exact(batch).enumerate() {
            if let Some(shadow) = shadow.as_deref_mut() {
                shadow.refresh(net, masks)?;
            }
            let at = shadow.as_ref().map_or(&*net, |shadow| &shadow.net);
            let (rows_a, rows_b) = rows.split_at(a.labels.len());
            let (soft, scale) = (soft.as_ref(), 1.0 / batch as f32);
            rayon::join(|| a.run(at, lesson, soft, rows_a, scale), || b.run(at, lesson, soft, rows_b, scale));
            for ((a, b), layer) in a.backward.grads.iter_mut().zip(&b.backward.grads).zip(&net.layers) {
                a.weight += &b.weight;
                a.bias += &b.bias;
                if phase.l1 > 0.0 {
                    let penalty = |w: f32| if w == 0.0 { 0.0 } else { phase.l1.copysign(w) };
                    a.weight.zip_mut_with(&layer.weight, |g, &w| *g += penalty(w));
                }
            }
            let rate = phase.rate_at(epoch as f64 + i as f64 / batches as f64);
            steps.step(net, &a.backward.grads, masks, rate)?;
        }
        Ok(())
    }
}

/// Rows that statistics are taken over.
pub(crate) const SAMPLE: usize = 5000;

/// Standard deviation and mean of each column, over the first rows.
pub(crate) fn column_statistics(x: ArrayView2<'_, f32>) -> (Array1<f64>, Array1<f64>) {
    let x = x.slice(s![..x.nrows().min(SAMPLE), ..]).mapv(f64::from);
    (x.std_axis(Axis(0), 0.0), x.mean_axis(Axis(0)).unwrap_or_default())
}
