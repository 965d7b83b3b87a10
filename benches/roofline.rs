//! Optimizer steps beside plain loops over the same streams of memory, in turn, in one run.
//!
//! `cargo bench --bench roofline`: for each optimizer and thread count, GB/s of the step, GB/s of a loop that reads the gradient
//! and rewrites as many arrays in place with hardly any arithmetic, and their ratio. Best of the rounds.

mod plain;

use lapidary::{
    Isa, Optimizer, OptimizerExt, Step,
    optim::{Adagrad, Adam, AdamW, Compact, Sgd},
};
use plain::Streams;
use std::{hint::black_box, time::Instant};

/// Reads one array and rewrites the others in place.
fn plain<const N: usize>(read: &[f32], arrays: [&mut [f32]; N], threads: usize) {
    plain::run(Streams { read, arrays, mask: &[], copy: &mut [] }, threads);
}

fn seconds(mut work: impl FnMut()) -> f64 {
    let clock = Instant::now();
    work();
    clock.elapsed().as_secs_f64()
}

fn main() {
    // Under `cargo test` just that it runs.
    let (n, rounds) = if std::env::args().any(|arg| arg == "--bench") { (25_000_000, 15) } else { (100_000, 2) };
    let optimizers: [(&str, Box<dyn Optimizer<f32>>); 7] = [
        ("sgd", Box::new(Sgd::new(1e-3).unwrap())),
        ("momentum", Box::new(Sgd::new(1e-3).unwrap().with_momentum(0.9).unwrap())),
        ("adagrad", Box::new(Adagrad::new(1e-2).unwrap())),
        ("adam", Box::new(Adam::new(1e-3).unwrap())),
        ("adamw", Box::new(AdamW::new(1e-3).unwrap())),
        ("adam, bf16 state", Box::new(Compact::bf16(Adam::new(1e-3).unwrap()))),
        ("adam, 8-bit state", Box::new(Compact::eight_bit(Adam::new(1e-3).unwrap()))),
    ];
    let grad: Vec<f32> = (0..n).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect();
    let [mut a, mut b, mut c] = std::array::from_fn(|_| vec![0.25f32; n]);
    println!("{n} parameters in f32, {} instructions, best of {rounds} rounds", Isa::current().name());
    println!("| optimizer | threads | bytes a parameter | step GB/s | plain loop GB/s | ratio | step ns a parameter |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (name, optimizer) in &optimizers {
            let mut param = vec![0.5f32; n];
            let mut state = optimizer.init(&param).unwrap();
            let bytes = (12 * n + 2 * state.byte_size()) as f64 / n as f64;
            // The loop moves as many bytes, or a few more where state is in fewer bits; rates are compared.
            let rewritten = ((bytes / 4.0 - 1.0) / 2.0).ceil() as usize;
            let mut best = [f64::MAX; 2];
            for _ in 0..rounds {
                let step = || pool.install(|| optimizer.step(Step::new(&mut param, &grad, &mut state)).unwrap());
                let yardstick = || {
                    pool.install(|| match rewritten {
                        1 => plain(&grad, [&mut a], threads),
                        2 => plain(&grad, [&mut a, &mut b], threads),
                        _ => plain(&grad, [&mut a, &mut b, &mut c], threads),
                    });
                };
                best = [best[0].min(seconds(step)), best[1].min(seconds(yardstick))];
            }
            black_box((&param, &a, &b, &c));
            let step = bytes * n as f64 / best[0] / 1e9;
            let yardstick = (4 * (1 + 2 * rewritten) * n) as f64 / best[1] / 1e9;
            println!(
                "| {name} | {threads} | {bytes:.1} | {step:.1} | {yardstick:.1} | {:.2} | {:.3} |",
                step / yardstick,
                best[0] / n as f64 * 1e9
            );
        }
    }
}
