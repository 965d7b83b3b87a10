//! Optimizer steps: `step/{optimizer}/{n}`.

use crate::{LENGTHS, measure, numbers};
use criterion::Criterion;
use lapidary::{
    Optimizer, OptimizerExt, Step,
    optim::{Adagrad, Adam, AdamW, Sgd},
};

pub(crate) fn all(c: &mut Criterion) {
    let optimizers: [(&str, Box<dyn Optimizer<f32>>); 5] = [
        ("sgd", Box::new(Sgd::new(1e-3).unwrap())),
        ("momentum", Box::new(Sgd::new(1e-3).unwrap().with_momentum(0.9).unwrap())),
        ("adagrad", Box::new(Adagrad::new(1e-2).unwrap())),
        ("adam", Box::new(Adam::new(1e-3).unwrap())),
        ("adamw", Box::new(AdamW::new(1e-3).unwrap())),
    ];
    for (name, optimizer) in optimizers {
        for n in LENGTHS {
            let (mut param, grad) = (numbers(n), numbers(n));
            let mut state = optimizer.init(&param).unwrap();
            // The gradient is read; the parameter and each slot are read and written.
            let bytes = 4 * n * (1 + 2 * (1 + state.slots().len()));
            let step = || optimizer.step(Step::new(&mut param, &grad, &mut state)).unwrap();
            measure(c, &format!("step/{name}"), n, bytes, step);
        }
    }
}
