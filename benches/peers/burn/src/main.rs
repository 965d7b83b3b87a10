//! A step of AdamW over a module of burn on `flex`: by this crate's kernels through burn's optimizer, by burn's own optimizers, by this
//! crate's rule in burn's operations, and on plain slices. All take turns; the best of the rounds counts. burn's optimizers own the
//! gradient and free it, which at this size takes as long as a good part of the step: so do the slices in a row of their own.
//!
//! `cargo run --release --manifest-path benches/peers/burn/Cargo.toml` prints a table; an argument is the number of parameters.

use burn_core::{
    self as burn,
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use burn_optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer};
use lapidary::{
    Isa, Optimizer, OptimizerExt, Step,
    backend::burn::{Adapter, Route},
    optim::AdamW,
};
use std::time::Instant;

const ROUNDS: usize = 15;
const RATE: f64 = 1e-3;

#[derive(Module, Debug)]
struct Model {
    weight: Param<Tensor<1>>,
}

struct Runner {
    optimizer: ModuleOptimizer,
    model: Option<Model>,
}

impl Runner {
    fn new(optimizer: ModuleOptimizer, model: Model) -> Self {
        Self { optimizer, model: Some(model) }
    }

    /// A step by a gradient that nothing else holds, as a backward pass leaves it.
    fn step(&mut self, gradient: &[f32]) -> f64 {
        let model = self.model.take().expect("there is a model between steps");
        let mut gradients = GradientsParams::new();
        let data = TensorData::new(gradient.to_vec(), [gradient.len()]);
        gradients.register(model.weight.id, Tensor::<1>::from_data(data, &Device::flex()));
        let clock = Instant::now();
        self.model = Some(self.optimizer.step(RATE, model, gradients));
        clock.elapsed().as_secs_f64()
    }
}

fn main() {
    let len = std::env::args().nth(1).map_or(25_000_000, |len| len.parse().expect("a number of parameters"));
    let start: Vec<f32> = (0..len).map(|i| (i % 1009) as f32 / 504.5 - 1.0).collect();
    let gradient: Vec<f32> = (0..len).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect();
    let device = Device::flex().autodiff();
    let model = || {
        let weight = Tensor::from_data(TensorData::new(start.clone(), [len]), &device);
        Model { weight: Param::from_tensor(weight) }
    };
    let adamw = AdamW::new(RATE).expect("a rate in range");
    println!("{len} parameters in f32, {} instructions, best of {ROUNDS} rounds\n", Isa::current().name());
    println!("| step | threads | ns a parameter | times the slices |\n|---|--:|--:|--:|");
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        let (ours, watch) = Adapter::new(adamw).for_module(&model());
        let (by_operations, _) = Adapter::new(adamw).with_route(Route::Operations).for_module(&model());
        let mut runners = [
            ("AdamW through burn's optimizer, in place", Runner::new(ours, model())),
            ("AdamW in burn's operations", Runner::new(by_operations, model())),
            ("burn's AdamW", Runner::new(AdamWConfig::new().with_weight_decay(0.01).init(), model())),
            ("burn's Adam", Runner::new(AdamConfig::new().init(), model())),
        ];
        let mut best = [f64::MAX; 6];
        let mut plain = start.clone();
        let mut state = adamw.init(&plain).expect("memory for the state");
        for round in 0..=ROUNDS {
            let own = gradient.clone();
            let clock = Instant::now();
            pool.install(|| adamw.step(Step::new(&mut plain, &own, &mut state))).expect("a step");
            let mut seconds = vec![clock.elapsed().as_secs_f64()];
            drop(own);
            seconds.push(clock.elapsed().as_secs_f64());
            seconds.extend(runners.iter_mut().map(|(_, runner)| pool.install(|| runner.step(&gradient))));
            // The first makes the state.
            if round > 0 {
                best.iter_mut().zip(seconds).for_each(|(best, seconds)| *best = best.min(seconds));
            }
        }
        let names = ["AdamW on slices", "the same, and the gradient is freed"].into_iter().chain(runners.iter().map(|runner| runner.0));
        for (name, seconds) in names.zip(best) {
            println!("| {name} | {threads} | {:.3} | {:.2} |", seconds * 1e9 / len as f64, seconds / best[0]);
        }
        let moved = runners[0].1.model.as_ref().expect("there is a model").weight.val().inner().into_data();
        assert_eq!(moved.as_slice::<f32>().expect("f32"), plain, "the bits of slices");
        let copies = watch.copies();
        assert_eq!((copies.parameters, copies.gradients), (0, 0), "{copies:?}");
    }
}
