//! Steps by burn's `ModuleOptimizer`.

use super::*;
use lapidary::{
    ErrorKind, Mask, OptimizerExt, State, Step, TensorMut, TensorRef,
    backend::burn::{Adapter, AnyOptimizer, Masks, Route},
    optim::{Adafactor, Adagrad, Adam, AdamW, Compact, Ema, Lion, Lookahead, RmsProp, ScheduleFree, Sgd},
};

/// The same steps on slices.
struct Slices<T: Number, O> {
    optimizer: O,
    weights: [Vec<T>; 3],
    states: Vec<State>,
}

impl<T: Number, O: AnyOptimizer + lapidary::Optimizer<T>> Slices<T, O> {
    fn new(optimizer: O) -> Self {
        let weights = starts::<T>();
        let state = |i: usize| optimizer.init(TensorRef::<T>::new(&weights[i], SHAPES[i].1).unwrap()).unwrap();
        let states = (0..3).map(state).collect();
        Self { optimizer, weights, states }
    }

    fn step(&mut self, rate: f64, gradients: &[Vec<T>; 3], masks: &[Option<Mask>; 3]) {
        self.optimizer.set_learning_rate(rate).unwrap();
        for i in 0..3 {
            let param = TensorMut::new(&mut self.weights[i], SHAPES[i].1).unwrap();
            let gradient = TensorRef::new(&gradients[i], SHAPES[i].1).unwrap();
            let step = Step::new(param, gradient, &mut self.states[i]);
            let step = if let Some(mask) = &masks[i] { step.mask(mask) } else { step };
            self.optimizer.step(step).unwrap();
        }
    }
}

fn in_memory<T: Number, O: AnyOptimizer + lapidary::Optimizer<T>>(optimizer: O) {
    let device = Device::flex().autodiff();
    let mut net = net::<T>(&device);
    let ids = burn_core::module::list_param_ids(&net);
    let mut slices = Slices::new(optimizer.clone());
    let (mut burns, watch) = Adapter::new(optimizer).for_module(&net);
    let masks = [None, None, Some(Mask::from_fn(&[11, 5], |i| i % 3 == 0).unwrap())];
    for t in 0..6 {
        let rate = 0.01 / f64::from(1 + t);
        if t == 3 {
            let mut named = Masks::default();
            named.insert(SHAPES[2].0, masks[2].clone().unwrap());
            watch.set_masks(&named).unwrap();
        }
        let before = place(&net.first.weight.val());
        let (gradients, plain) = gradients::<T>(&net, t);
        net = burns.step(rate, net, gradients);
        watch.check().unwrap();
        let none = [None, None, None];
        slices.step(rate, &plain, if t < 3 { &none } else { &masks });
        let found = weights::<T>(&net);
        for i in 0..3 {
            assert_eq!(bits(&found[i]), bits(&slices.weights[i]), "{} at step {t}", SHAPES[i].0);
        }
        assert_eq!(place(&net.first.weight.val()), before, "the parameter was moved");
    }
    assert_eq!(values::<T, 2>(&net.rest[0].weight.val())[1].to_f64(), 0.0);
    assert!(net.first.weight.val().is_require_grad());
    assert_eq!(burn_core::module::list_param_ids(&net), ids);
    let copies = watch.copies();
    assert_eq!((copies.steps, copies.by_operations, copies.parameters, copies.gradients, copies.from_device), (18, 0, 0, 0, 0));
}

macro_rules! in_every_type {
    ($($name:ident: $optimizer:expr;)*) => {$(
        #[test]
        fn $name() {
            in_memory::<f32, _>($optimizer);
            in_memory::<f64, _>($optimizer);
            in_memory::<f16, _>($optimizer);
            in_memory::<bf16, _>($optimizer);
        }
    )*};
}

in_every_type! {
    sgd: Sgd::new(0.1).unwrap().with_nesterov(0.9).unwrap().with_weight_decay(0.01).unwrap();
    adam: Adam::new(0.1).unwrap().with_amsgrad().with_weight_decay(0.1).unwrap();
    adamw: AdamW::new(0.1).unwrap();
    adagrad: Adagrad::new(0.1).unwrap();
    rmsprop: RmsProp::new(0.1).unwrap().with_momentum(0.5).unwrap();
    lion: Lion::new(0.1).unwrap();
    adafactor: Adafactor::new(0.1).unwrap();
    schedule_free: ScheduleFree::new(0.1).unwrap();
    eight_bits_and_an_average: Ema::new(Compact::eight_bit(AdamW::new(0.1).unwrap()), 0.9).unwrap();
    lookahead: Lookahead::new(Sgd::new(0.1).unwrap(), 2, 0.5).unwrap();
}
