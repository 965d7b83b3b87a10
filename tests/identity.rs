//! The same bits on every instruction set and any number of threads.

use half::{bf16, f16};
use lapidary::{
    Element, Isa, Mask, Optimizer, OptimizerExt, PrunerExt, Quantizer, QuantizerExt, Step, TensorMut, TensorRef, half,
    optim::{
        Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Compact, Convention, Ema, Lamb, Lion, Lookahead, NAdam,
        Norm, RAdam, RmsProp, ScheduleFree, Sgd, Stop, clip_norm, clip_value, minimize,
    },
    prune::Magnitude,
    quant::{
        Activation, Affine, FakeQuantize, FloatFormat, Inputs, KMeans, Linear, Lsq, MinMax, Minifloat, Symmetric,
        Table, Workspace,
    },
};
use std::sync::{Mutex, MutexGuard};

/// Lengths around a word, a chunk and the point from which tensors are split over threads.
const LENGTHS: [usize; 8] = [0, 1, 63, 65, 4097, 32_768, 65_537, 200_003];

/// The instruction set is the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `work` in every way there is; all must give the same.
fn everywhere<R: PartialEq + Send>(what: &str, work: impl Fn() -> R + Sync) {
    let mut want = None;
    for isa in Isa::available() {
        isa.force();
        for (threads, got) in on_threads(&work) {
            let want = want.get_or_insert_with(&work);
            assert!(got == *want, "{what}: {} with {threads} threads", isa.name());
        }
    }
}

#[cfg(feature = "rayon")]
fn on_threads<R: Send>(work: &(impl Fn() -> R + Sync)) -> Vec<(usize, R)> {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    [1, 2, 7].into_iter().map(|threads| (threads, pool(threads).install(work))).collect()
}

#[cfg(not(feature = "rayon"))]
fn on_threads<R>(work: &impl Fn() -> R) -> Vec<(usize, R)> {
    vec![(1, work())]
}

/// Numbers of many sizes, both signs, some equal, some 0.
fn numbers<T: Element>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..n)
        .map(|i| if i % 17 == 3 { T::default() } else { T::from_f64((next() - 0.5) * 10f64.powi(i as i32 % 5 - 2)) })
        .collect()
}

fn bits<T: Element>(values: &[T]) -> Vec<u64> {
    values.iter().map(|x| x.to_f64().to_bits()).collect()
}

fn steps<T: Element>() {
    let optimizers: Vec<Box<dyn Optimizer<T>>> = vec![
        Box::new(Sgd::new(0.1).unwrap()),
        Box::new(Sgd::new(0.1).unwrap().with_weight_decay(0.01).unwrap().with_nesterov(0.9).unwrap()),
        Box::new(Adagrad::new(0.1).unwrap().with_learning_rate_decay(0.1).unwrap().with_maximize()),
        Box::new(Adam::new(1e-2).unwrap().with_weight_decay(0.1).unwrap()),
        Box::new(Adam::new(1e-2).unwrap().with_betas(0.3, 0.7).unwrap().with_amsgrad()),
        Box::new(AdamW::new(1e-2).unwrap()),
        Box::new(Adam::new(1e-2).unwrap().with_convention(Convention::Optax).with_eps_root(1e-3).unwrap()),
        Box::new(Sgd::new(0.1).unwrap().with_convention(Convention::Keras).unwrap().with_nesterov(0.9).unwrap()),
        Box::new(Adadelta::new(1.0).unwrap()),
        Box::new(Adafactor::new(0.1).unwrap()),
        Box::new(Adamax::new(1e-2).unwrap()),
        Box::new(Lamb::new(0.1).unwrap().with_weight_decay(0.1).unwrap()),
        Box::new(Lion::new(1e-2).unwrap()),
        Box::new(NAdam::new(1e-2).unwrap()),
        Box::new(RAdam::new(1e-2).unwrap().with_betas(0.9, 0.99).unwrap()),
        Box::new(RmsProp::new(1e-2).unwrap().with_centered().with_momentum(0.9).unwrap()),
        Box::new(ScheduleFree::new(1e-2).unwrap()),
    ];
    for optimizer in &optimizers {
        for n in LENGTHS {
            let mask = Mask::from_fn(&[n], |i| i % 3 != 1 || i / 64 % 5 == 0).unwrap();
            for mask in [None, Some(&mask)] {
                everywhere(&format!("{optimizer:?} {:?} {n}", T::DTYPE), || {
                    let mut param = numbers::<T>(n, 1);
                    let mut state = optimizer.init(&param).unwrap();
                    for seed in 2..4 {
                        let grad = numbers::<T>(n, seed);
                        let step = Step::new(&mut param, &grad, &mut state).check_finite();
                        optimizer.step(if let Some(mask) = mask { step.mask(mask) } else { step }).unwrap();
                    }
                    let slots = state.slots().iter();
                    let slots: Vec<_> = slots
                        .map(|s| (0..n).map(|i| s.values().get(i).unwrap().to_bits()).collect::<Vec<_>>())
                        .collect();
                    (bits(&param), slots)
                });
            }
        }
    }
}

#[test]
fn optimizer_steps() {
    let _alone = alone();
    steps::<f32>();
    steps::<f64>();
    steps::<f16>();
    steps::<bf16>();
}

/// All that goes into one pass: a gradient of another type, scaled and limited, rounding by chance, state in fewer bits, averages
/// and a copy.
#[test]
fn composed_steps() {
    let _alone = alone();
    let adam = Adam::new(1e-2).unwrap();
    let ema = |inner| Ema::new(inner, 0.9).unwrap();
    let optimizers: Vec<Box<dyn Optimizer<f32>>> = vec![
        Box::new(ema(Compact::eight_bit(adam))),
        Box::new(ema(Compact::bf16(adam))),
        Box::new(Ema::new(Lookahead::new(adam.with_amsgrad(), 2, 0.5).unwrap(), 0.5).unwrap()),
        Box::new(Compact::eight_bit(Lion::new(1e-2).unwrap())),
        Box::new(Lookahead::new(Lamb::new(1e-2).unwrap(), 1, 0.5).unwrap()),
    ];
    for optimizer in &optimizers {
        for n in LENGTHS {
            let mask = Mask::from_fn(&[n], |i| i % 3 != 1 || i / 64 % 5 == 0).unwrap();
            for mask in [None, Some(&mask)] {
                everywhere(&format!("{optimizer:?} {n}"), || {
                    let (mut param, mut copy) = (numbers::<f32>(n, 1), vec![bf16::ZERO; n]);
                    let mut state = optimizer.init(&param).unwrap();
                    for seed in 2..5 {
                        let grad = numbers::<f16>(n, seed);
                        let step = Step::mixed(&mut param, &grad, &mut state).scale_gradient(0.3).clip_value(0.2);
                        let step = step.copy_to_bf16(&mut copy);
                        optimizer.step(if let Some(mask) = mask { step.mask(mask) } else { step }).unwrap();
                    }
                    (bits(&param), bits(&copy), state)
                });
            }
        }
    }
    half_by_chance::<bf16>();
    half_by_chance::<f16>();
}

fn half_by_chance<T: Element<Real = f32>>() {
    let adamw = Ema::new(Compact::eight_bit(AdamW::new(1e-4).unwrap()), 0.9).unwrap();
    for n in LENGTHS {
        everywhere(&format!("{:?} by chance {n}", T::DTYPE), || {
            let mut param = numbers::<T>(n, 1);
            let mut state = Optimizer::<T>::schema(&adamw, &[n]);
            state = state.with_precision(lapidary::Precision::Bf16);
            let mut state = lapidary::State::new::<f32>(&[n], state).unwrap();
            for seed in 2..4 {
                let grad = numbers::<f32>(n, seed);
                adamw.step(Step::mixed(&mut param, &grad, &mut state).stochastic_rounding(9)).unwrap();
            }
            (bits(&param), state)
        });
    }
}

/// Adafactor's rows and columns, several matrices, masked.
#[test]
fn factored_steps() {
    let _alone = alone();
    let adafactor = Adafactor::new(0.1).unwrap();
    for shape in [[1, 3, 70_001], [1, 70_001, 3], [5, 130, 257]] {
        let n = shape.iter().product();
        let mask = Mask::from_fn(&shape, |i| i % 5 != 2).unwrap();
        for mask in [None, Some(&mask)] {
            everywhere(&format!("adafactor {shape:?}"), || {
                let mut param = numbers::<f32>(n, 1);
                let grad = numbers::<f32>(n, 2);
                let grad = TensorRef::new(&grad, &shape).unwrap();
                let mut state = adafactor.init(&grad).unwrap();
                let step = Step::new(TensorMut::new(&mut param, &shape).unwrap(), grad, &mut state);
                adafactor.step(if let Some(mask) = mask { step.mask(mask) } else { step }).unwrap();
                (bits(&param), format!("{state:?}"))
            });
        }
    }
}

fn quantizers<T: Element>() {
    for shape in [&[1][..], &[7, 3], &[65_537], &[3, 5, 4001], &[40_000, 3], &[2, 70_001]] {
        let n = shape.iter().product();
        let values = numbers::<T>(n, 5);
        let values = TensorRef::new(&values, shape).unwrap();
        for b in 1..=8 {
            let minmax = MinMax::new(b).unwrap();
            let granularities = (0..shape.len()).map(|axis| minmax.per_channel(axis));
            let groups = [3, 32].map(|size| minmax.per_group(size).unwrap());
            let mut quantizers: Vec<Box<dyn Quantizer<T>>> = Vec::new();
            for minmax in granularities.chain([minmax]).chain(groups) {
                quantizers.push(Box::new(minmax));
            }
            if b % 4 == 0 {
                let (affine, symmetric) = (Affine::new(b).unwrap(), Symmetric::new(b).unwrap());
                for axis in 0..shape.len() {
                    quantizers.push(Box::new(affine.per_channel(axis)));
                    quantizers.push(Box::new(symmetric.per_channel(axis).full_range()));
                }
                quantizers.push(Box::new(affine));
                quantizers.push(Box::new(symmetric.per_group(32).unwrap()));
                quantizers.push(Box::new(affine.per_block(0, 3).unwrap()));
                let wide = Affine::new(16).unwrap();
                quantizers.push(Box::new(wide.per_group(9).unwrap()));
                quantizers.push(Box::new(wide.per_channel(shape.len() - 1)));
                let kmeans = KMeans::new(b / 2).unwrap();
                quantizers.push(Box::new(kmeans));
                quantizers.push(Box::new(kmeans.per_channel(shape.len() - 1).with_zero()));
                let levels: Vec<f32> = (0..1u16 << b).map(|i| f32::from(i * i) - 1e3).collect();
                let table = Table::new(&levels).unwrap();
                quantizers.push(Box::new(table.clone().per_group(32).unwrap()));
                quantizers.push(Box::new(table.per_channel(shape.len() - 1)));
                for format in [FloatFormat::E4m3, FloatFormat::E5m2, FloatFormat::E3m2, FloatFormat::E2m1] {
                    quantizers.push(Box::new(Minifloat::new(format).per_channel(0)));
                    quantizers.push(Box::new(Minifloat::mx(format)));
                }
            }
            for quantizer in quantizers {
                everywhere(&format!("{quantizer:?} {:?} {shape:?}", T::DTYPE), || {
                    let q = quantizer.quantize(&values).unwrap();
                    let error = q.error(&values).unwrap();
                    let back: Vec<T> = q.dequantize();
                    (q, error.max_abs.to_bits(), error.mse.to_bits(), error.sqnr_db.to_bits(), bits(&back))
                });
            }
        }
    }
}

#[test]
fn quantized_tensors() {
    let _alone = alone();
    quantizers::<f32>();
    quantizers::<f64>();
    quantizers::<f16>();
    quantizers::<bf16>();
}

fn rounded_in_training<T: Element>() {
    for shape in [&[1][..], &[7, 3], &[65_537], &[3, 5, 4001], &[40_000, 3], &[2, 70_001]] {
        let n = shape.iter().product();
        let (values, upstream) = (numbers::<T>(n, 5), numbers::<T>(n, 6));
        let (values, upstream) = (TensorRef::new(&values, shape).unwrap(), TensorRef::new(&upstream, shape).unwrap());
        let affine = Affine::new(4).unwrap();
        let affines = (0..shape.len()).map(|axis| affine.per_channel(axis));
        let lsq = Lsq::new(3).unwrap();
        let lsqs = (0..shape.len()).map(|axis| lsq.per_channel(axis)).chain([lsq.unsigned()]);
        let groups = (affine.per_group(32).unwrap(), lsq.per_group(32).unwrap());
        for (affine, lsq) in affines.chain([affine]).zip(lsqs).chain([groups]) {
            everywhere(&format!("{affine:?} {lsq:?} {:?} {shape:?}", T::DTYPE), || {
                let (mut out, mut all) = (vec![T::default(); n], Vec::new());
                let mut to = |work: &mut dyn FnMut(TensorMut<'_, T>)| {
                    work(TensorMut::new(&mut out, shape).unwrap());
                    all.push(bits(&out));
                };
                let (fake, q) = (FakeQuantize::from(affine), affine.quantize(&values).unwrap());
                to(&mut |out| fake.forward(&values, &q, out).unwrap());
                to(&mut |out| fake.backward(&values, &q, &upstream, out).unwrap());
                let scales = lsq.initial_scales(&values).unwrap();
                let mut gradient = scales.clone();
                to(&mut |out| lsq.forward(&values, &scales, out).unwrap());
                to(&mut |out| lsq.backward(&values, &scales, &upstream, out, &mut gradient).unwrap());
                (all, bits(&scales), bits(&gradient))
            });
        }
    }
}

#[test]
fn rounding_in_training() {
    let _alone = alone();
    rounded_in_training::<f32>();
    rounded_in_training::<f64>();
    rounded_in_training::<f16>();
    rounded_in_training::<bf16>();
}

#[test]
fn packed_layers() {
    let _alone = alone();
    for [rows, cols] in [[1, 1], [17, 33], [64, 4096], [300, 1000], [33, 33_000]] {
        let (weights, x) = (numbers::<f32>(rows * cols, 3), numbers::<f32>(cols * 21, 4));
        let weights = TensorRef::new(&weights, &[rows, cols]).unwrap();
        for bits in [2, 4, 8] {
            let (affine, symmetric) = (Affine::new(bits).unwrap(), Symmetric::new(bits).unwrap());
            for q in [
                affine.per_group(32).unwrap().quantize(&weights).unwrap(),
                symmetric.per_group(20).unwrap().quantize(&weights).unwrap(),
                symmetric.per_channel(0).quantize(&weights).unwrap(),
                MinMax::new(bits - 1).unwrap().per_group(32).unwrap().quantize(&weights).unwrap(),
                Table::nf4().per_channel(0).quantize(&weights).unwrap(),
            ] {
                for inputs in [Inputs::Int8, Inputs::F32] {
                    let layer = Linear::new(&q).unwrap().with_inputs(inputs).with_activation(Activation::Gelu);
                    for batch in [1, 21] {
                        everywhere(&format!("{rows} x {cols}, {bits} bits, {inputs:?}, {batch} vectors"), || {
                            let mut y = vec![0f32; batch * rows];
                            let x = TensorRef::new(&x[..batch * cols], &[batch, cols]).unwrap();
                            let out = TensorMut::new(&mut y, &[batch, rows]).unwrap();
                            layer.forward(x, out, &mut Workspace::default()).unwrap();
                            self::bits(&y)
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn masks() {
    let _alone = alone();
    for n in LENGTHS {
        let values = numbers::<f32>(n, 9);
        everywhere(&format!("masks of {n}"), || {
            let threshold = Magnitude::threshold(0.01).unwrap().mask(&values).unwrap();
            let magnitude = Magnitude::sparsity(0.7).unwrap().mask(&values).unwrap();
            let mut masks = [Mask::keep_all(&[n]).unwrap(), threshold.clone()];
            Magnitude::sparsity(0.4).unwrap().refine_global(&[(&values).into(), (&values).into()], &mut masks).unwrap();
            let mut applied = values.clone();
            magnitude.apply(&mut applied).unwrap();
            (threshold, magnitude, masks, bits(&applied))
        });
    }
}

#[test]
fn norms() {
    let _alone = alone();
    let start = numbers::<f32>(200_003, 11);
    everywhere("clip", || {
        let mut clipped = start.clone();
        let norm = clip_norm(&mut [(&mut clipped).into()], 1.0, Norm::L2).unwrap();
        clip_value(&mut clipped, 1e-3).unwrap();
        (norm.to_bits(), bits(&clipped))
    });
    everywhere("norm", || {
        let end = minimize(&Sgd::new(0.1).unwrap(), &mut start.clone(), Stop::after(2), |theta, gradient| {
            gradient.copy_from_slice(theta);
            0.0
        });
        end.unwrap().gradient_norm.to_bits()
    });
}
