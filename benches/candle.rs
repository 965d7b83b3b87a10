//! Steps of candle's variables: through `VarParams`, over slices, and by candle-nn's own AdamW, in turn, in one run.
//!
//! `cargo bench --bench candle --features candle`: AdamW of f32 parameters with contiguous gradients, on one thread. Best of the rounds.

use candle_core::{Device, Tensor, Var, backprop::GradStore};
use candle_nn::{Optimizer as _, ParamsAdamW};
use lapidary::{
    backend::candle::VarParams,
    optim::{AdamW, Params, Update},
};
use std::{hint::black_box, time::Instant};

fn seconds(work: impl FnOnce()) -> f64 {
    let clock = Instant::now();
    work();
    clock.elapsed().as_secs_f64()
}

/// Variables of `len` elements with a gradient each.
fn variables(count: usize, len: usize) -> (Vec<Var>, GradStore) {
    let mut grads = GradStore::default();
    let vars = (0..count).map(|_| {
        let var = Var::from_vec(vec![0.5f32; len], len, &Device::Cpu).unwrap();
        let grad = (0..len).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect::<Vec<_>>();
        grads.insert(&var, Tensor::from_vec(grad, len, &Device::Cpu).unwrap());
        var
    });
    (vars.collect(), grads)
}

fn compare(count: usize, len: usize, rounds: usize) {
    let n = (count * len) as f64;
    let mut params = Params::new();
    let group = params.group(AdamW::new(1e-3).unwrap());
    let mut slices: Vec<Vec<f32>> = (0..count).map(|_| vec![0.5f32; len]).collect();
    let gradients: Vec<Vec<f32>> =
        (0..count).map(|_| (0..len).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect::<Vec<_>>()).collect();
    (0..count).for_each(|i| params.add(&i.to_string(), &[len], group).unwrap());

    let config = ParamsAdamW { lr: 1e-3, ..ParamsAdamW::default() };
    let (their_vars, their_grads) = variables(count, len);
    let mut theirs = candle_nn::AdamW::new(their_vars.clone(), config).unwrap();
    let (vars, grads) = variables(count, len);
    let mut adapter = VarParams::<f32>::new(vars.clone(), Box::new(AdamW::new(1e-3).unwrap())).unwrap();

    let mut best = [f64::MAX; 3];
    for round in 0..rounds {
        let mut by_slices = || {
            let mut updates: Vec<_> = slices.iter_mut().zip(&gradients).map(|(p, g)| Update::new(p, g)).collect();
            params.step(&mut updates).unwrap();
        };
        let mut by_adapter = || adapter.step(&grads).unwrap();
        let mut by_candle = || theirs.step(&their_grads).unwrap();
        // Each of ours comes after each other one; candle-nn's, which takes longest, less often.
        let order: &[usize] = match round % 4 {
            0 => &[0, 1, 2],
            1 => &[1, 0],
            2 => &[1, 0, 2],
            _ => &[0, 1],
        };
        for &which in order {
            let time = match which {
                0 => seconds(&mut by_slices),
                1 => seconds(&mut by_adapter),
                _ => seconds(&mut by_candle),
            };
            best[which] = best[which].min(time);
        }
    }
    for (var, slice) in vars.iter().zip(&slices) {
        assert_eq!(&var.to_vec1::<f32>().unwrap(), slice, "the adapter is the slice path");
    }
    black_box(&their_vars);
    let [slices, adapter, candle] = best.map(|seconds| seconds / n * 1e9);
    let tensors = format!("{count} × {len}");
    println!(
        "| {tensors} | {slices:.3} | {adapter:.3} | {:.2} | {candle:.1} | {:.1} |",
        adapter / slices,
        candle / adapter
    );
}

fn main() {
    // candle's pool and ours: one thread each.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let measured = std::env::args().any(|arg| arg == "--bench");
    println!("| variables | slices ns a parameter | `VarParams` | ratio | candle-nn's AdamW | times ours |");
    println!("|---|--:|--:|--:|--:|--:|");
    pool.install(|| match measured {
        true => [(1, 25_000_000), (25, 1_000_000), (1000, 1000)].map(|(count, len)| compare(count, len, 60)),
        // Under `cargo test` just that it runs.
        false => [(1, 10_000), (2, 1000), (10, 100)].map(|(count, len)| compare(count, len, 2)),
    });
}
