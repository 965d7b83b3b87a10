//! What is warmed up does not allocate, serially or inside a rayon pool.

use lapidary::{
    Mask, Optimizer, OptimizerExt, Quantizer, QuantizerExt, Step, TensorMut, TensorRef,
    optim::{Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Lamb, Lion, NAdam, RAdam, RmsProp, ScheduleFree, Sgd},
    quant::MinMax,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Counts the allocations of all threads.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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
    ];
    for optimizer in &optimizers {
        let mut state = optimizer.init(&param).unwrap();
        check(&format!("{optimizer:?} of {n}"), || {
            optimizer.step(Step::new(&mut param, &gradient, &mut state).check_finite()).unwrap();
            optimizer.step(Step::new(&mut param, &gradient, &mut state).mask(&mask)).unwrap();
        });
    }
    let shape = [n / 10, 2, 5];
    for bits in [1, 4, 8] {
        let minmax = MinMax::new(bits).unwrap();
        for quantizer in [minmax, minmax.per_channel(0), minmax.per_channel(2), minmax.per_group(3).unwrap()] {
            let mut q = quantizer.quantize(TensorRef::new(&gradient, &shape).unwrap()).unwrap();
            check(&format!("{quantizer:?} of {n}"), || {
                quantizer.quantize_into(TensorRef::new(&gradient, &shape).unwrap(), &mut q).unwrap();
                quantizer.encode(TensorRef::new(&gradient, &shape).unwrap(), &mut q).unwrap();
                q.dequantize_into(TensorMut::new(&mut param, &shape).unwrap()).unwrap();
                q.error(TensorRef::new(&gradient, &shape).unwrap()).unwrap();
            });
        }
    }
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

/// One test: the count is the process's.
#[test]
fn nothing_is_allocated() {
    all(1000);
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| all(300_000));
    }
}
