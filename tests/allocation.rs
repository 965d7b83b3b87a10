//! What is warmed up does not allocate, serially or inside a rayon pool; what plans takes little.

use lapidary::{
    Mask, Optimizer, OptimizerExt, Quantizer, QuantizerExt, Step, TensorMut, TensorRef,
    half::bf16,
    optim::{
        Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Compact, Ema, Lamb, Lion, Lookahead, NAdam, Norm, Params,
        RAdam, RmsProp, Scaler, ScheduleFree, Sgd, StepOptions, Update, accumulate,
    },
    quant::{
        Affine, Budget, Candidate, Choice, FakeQuantize, FloatFormat, Histogram, Inputs, KMeans, Linear, Lsq, MinMax,
        MinMaxObserver, Minifloat, MovingAverageObserver, Symmetric, Table, Workspace, allocate,
    },
    sparse::{self, Form, Sparse},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Counts the allocations of all threads, and the most bytes that are allocated at once.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        MOST.fetch_max(BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Fails when `work` allocates each time it is called. Not just the second time: a worker of rayon sets up what it needs
/// for stealing when it first steals, which may be late.
fn check(what: &str, mut work: impl FnMut()) {
    work();
    let mut count = || {
        let before = COUNT.load(Ordering::Relaxed);
        work();
        COUNT.load(Ordering::Relaxed) - before
    };
    let fewest = (0..5).map(|_| count()).min();
    assert_eq!(fewest, Some(0), "{what}");
}

fn all(n: usize) {
    let gradient: Vec<f32> = (0..n).map(|i| (i as f32).sin()).collect();
    let mut param = gradient.clone();
    let mask = Mask::from_fn(&[n], |i| i % 2 == 0).unwrap();
    let optimizers: Vec<Box<dyn Optimizer<f32>>> = vec![
        Box::new(Sgd::new(0.1).unwrap()),
        Box::new(Sgd::new(0.1).unwrap().with_momentum(0.9).unwrap()),
        Box::new(Adagrad::new(0.1).unwrap()),
        Box::new(Adam::new(0.1).unwrap().with_amsgrad()),
        Box::new(AdamW::new(0.1).unwrap()),
        Box::new(Adadelta::new(1.0).unwrap()),
        Box::new(Adafactor::new(0.1).unwrap()),
        Box::new(Adamax::new(1e-2).unwrap()),
        Box::new(Lamb::new(0.1).unwrap()),
        Box::new(Lion::new(1e-2).unwrap()),
        Box::new(NAdam::new(1e-2).unwrap()),
        Box::new(RAdam::new(1e-2).unwrap()),
        Box::new(RmsProp::new(1e-2).unwrap().with_centered().with_momentum(0.9).unwrap()),
        Box::new(ScheduleFree::new(1e-2).unwrap()),
        Box::new(Compact::eight_bit(Adam::new(0.1).unwrap())),
        Box::new(Ema::new(Lookahead::new(Compact::bf16(Lion::new(0.1).unwrap()), 2, 0.5).unwrap(), 0.9).unwrap()),
        Box::new(Ema::new(Lamb::new(0.1).unwrap(), 0.9).unwrap()),
    ];
    let (mut copy, half) = (vec![bf16::ZERO; n], vec![bf16::ONE; n]);
    for optimizer in &optimizers {
        let mut state = optimizer.init(&param).unwrap();
        check(&format!("{optimizer:?} of {n}"), || {
            optimizer.step(Step::new(&mut param, &gradient, &mut state).check_finite()).unwrap();
            optimizer.step(Step::new(&mut param, &gradient, &mut state).mask(&mask)).unwrap();
            let step = Step::mixed(&mut param, &half, &mut state).scale_gradient(0.5).clip_value(0.1);
            optimizer.step(step.copy_to_bf16(&mut copy)).unwrap();
        });
    }
    let mut params = Params::new();
    let group = params.group(Adam::new(0.1).unwrap());
    let (names, shape): (Vec<_>, _) = ((0..20).map(|i| i.to_string()).collect(), [n / 20]);
    params.add_all(names.iter().map(|name| (name.as_str(), &shape[..])), |_, _| group).unwrap();
    let mut scaler = Scaler::new(1.0).unwrap();
    let mut updates: Vec<_> =
        param.chunks_exact_mut(n / 20).zip(gradient.chunks_exact(n / 20)).map(|(p, g)| Update::new(p, g)).collect();
    check(&format!("parameters of {n}"), || {
        let options = StepOptions::new().scaler(&mut scaler).clip_norm(1.0, Norm::L2).unwrap();
        params.step_with(&mut updates, options).unwrap();
    });
    drop(updates);
    check(&format!("sum of {n}"), || accumulate(&mut param, &half).unwrap());
    let shape = [n / 10, 2, 5];
    for bits in [1, 4, 8] {
        let minmax = MinMax::new(bits).unwrap();
        let affine = Affine::new(bits).unwrap();
        let symmetric = Symmetric::new(bits.max(2)).unwrap();
        let table = Table::new(&(0..1u16 << bits).map(f32::from).collect::<Vec<_>>()).unwrap();
        let quantizers: [&dyn Quantizer<f32>; 13] = [
            &minmax,
            &minmax.per_channel(0),
            &minmax.per_channel(2),
            &minmax.per_group(3).unwrap(),
            &affine,
            &affine.per_channel(2),
            &affine.per_group(3).unwrap(),
            &symmetric.per_channel(1),
            &table,
            &table.clone().per_channel(2),
            &Table::nf4(),
            &Minifloat::new(FloatFormat::E4m3).per_channel(1),
            &Minifloat::mx(FloatFormat::E2m1),
        ];
        for quantizer in quantizers {
            let mut q = quantizer.quantize(TensorRef::new(&gradient, &shape).unwrap()).unwrap();
            check(&format!("{quantizer:?} of {n}"), || {
                quantizer.quantize_into(TensorRef::new(&gradient, &shape).unwrap(), &mut q).unwrap();
                quantizer.encode(TensorRef::new(&gradient, &shape).unwrap(), &mut q).unwrap();
                q.dequantize_into(TensorMut::new(&mut param, &shape).unwrap()).unwrap();
                q.error(TensorRef::new(&gradient, &shape).unwrap()).unwrap();
            });
        }
        // To fit k-means sorts a copy: only it may allocate.
        let kmeans = KMeans::new(bits).unwrap().per_channel(1);
        let mut q = kmeans.quantize(TensorRef::new(&gradient, &shape).unwrap()).unwrap();
        check(&format!("codes of {kmeans:?} of {n}"), || {
            kmeans.encode(TensorRef::new(&gradient, &shape).unwrap(), &mut q).unwrap();
            q.dequantize_into(TensorMut::new(&mut param, &shape).unwrap()).unwrap();
        });
    }
    let (symmetric, lsq) = (Symmetric::new(4).unwrap(), Lsq::new(4).unwrap());
    let granularities = [
        (symmetric, lsq),
        (symmetric.per_channel(0), lsq.per_channel(0)),
        (symmetric.per_channel(2), lsq.per_channel(2)),
        (symmetric.per_group(3).unwrap(), lsq.per_group(3).unwrap()),
    ];
    for (symmetric, lsq) in granularities {
        let x = TensorRef::new(&gradient, &shape).unwrap();
        let (fake, q) = (FakeQuantize::from(symmetric), symmetric.quantize(&x).unwrap());
        let scales = lsq.initial_scales(&x).unwrap();
        let mut scale_gradient = scales.clone();
        check(&format!("{lsq:?} of {n}"), || {
            let mut out = TensorMut::new(&mut param, &shape).unwrap();
            fake.forward(&x, &q, &mut out).unwrap();
            fake.backward(&x, &q, &x, &mut out).unwrap();
            lsq.forward(&x, &scales, &mut out).unwrap();
            lsq.backward(&x, &scales, &x, &mut out, &mut scale_gradient).unwrap();
        });
    }
    let weights = TensorRef::new(&gradient[..n / 100 * 100], &[n / 100, 100]).unwrap();
    let q = symmetric.per_group(20).unwrap().quantize(&weights).unwrap();
    let listed = Table::nf4().per_group(20).unwrap().quantize(&weights).unwrap();
    let (x, mut y) = ([0.5f32; 300], vec![0f32; n / 100 * 3]);
    for (q, inputs) in [(&q, Inputs::Int8), (&q, Inputs::F32), (&listed, Inputs::Int8)] {
        let layer = Linear::new(q).unwrap().with_inputs(inputs).with_bias(&gradient[..n / 100]).unwrap();
        let mut workspace = Workspace::default();
        check(&format!("layer of {n}, {inputs:?}"), || {
            let x = TensorRef::new(&x, &[3, 100]).unwrap();
            layer.forward(x, TensorMut::new(&mut y, &[3, n / 100]).unwrap(), &mut workspace).unwrap();
        });
    }
    let kept = Mask::from_fn(&[n / 100, 100], |i| i % 4 < 2 && i % 7 < 4).unwrap();
    let weights = TensorRef::new(&gradient[..n / 100 * 100], &[n / 100, 100]).unwrap();
    for form in [Form::Csr, Form::Bitmask, Form::TwoOfFour, Form::Blocks { height: 4, width: 4 }, Form::Dense] {
        let sparse = Sparse::from_dense(&weights, &kept, form).unwrap();
        let codes = sparse.quantize_rows(&symmetric.per_group(32).unwrap()).unwrap();
        for sparse in [sparse, codes] {
            let mut workspace = sparse::Workspace::default();
            check(&format!("{form:?} of {n}"), || {
                sparse.multiply_into(&x[..100], &mut y[..n / 100], &mut workspace).unwrap();
                let x = TensorRef::new(&x, &[3, 100]).unwrap();
                sparse.multiply_into(x, TensorMut::new(&mut y, &[3, n / 100]).unwrap(), &mut workspace).unwrap();
            });
        }
    }
    let (mut ends, mut moving, mut histogram) = (MinMaxObserver::new(), MovingAverageObserver::new(), Histogram::new());
    let other = histogram.clone();
    check(&format!("observers of {n}"), || {
        ends.observe(&gradient).unwrap();
        moving.observe(&gradient).unwrap();
        histogram.observe(&gradient).unwrap();
        histogram.merge(&other);
    });
    check(&format!("mask of {n}"), || mask.apply(&mut param).unwrap());
    #[cfg(feature = "ndarray")]
    {
        let mut param = ndarray::Array3::<f32>::ones((n / 10, 2, 5));
        let gradient = param.clone();
        let adam = Adam::new(0.1).unwrap();
        let mut state = adam.init(&param).unwrap();
        check(&format!("array of {n}"), || adam.step(Step::new(&mut param, &gradient, &mut state)).unwrap());
    }
}

/// A model of thousands of tensors is planned in memory of about the size of its choices.
fn plans_are_small() {
    let choice = |tensor: usize, i: usize| Choice {
        label: String::new(),
        bytes: (tensor + 1) * (i + 1),
        error: (tensor % 7 + 1) as f64 * 0.25f64.powi(i as i32),
    };
    let tensors: Vec<Candidate> = (0..2000)
        .map(|tensor| Candidate::new(tensor.to_string(), (0..10).map(|i| choice(tensor, i)).collect()).unwrap())
        .collect();
    let before = BYTES.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let plan = allocate(&tensors, Budget::Bytes(usize::MAX)).unwrap();
    assert!(plan.is_optimal() && plan.choices().iter().all(|&choice| choice == 9));
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most < 16 << 20, "{most} bytes for 20,000 choices");
}

/// One test: the counts are the process's.
#[test]
fn nothing_is_allocated() {
    plans_are_small();
    all(1000);
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| all(300_000));
    }
}
