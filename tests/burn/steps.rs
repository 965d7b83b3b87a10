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
    assert_eq!(
        (copies.steps, copies.by_operations, copies.parameters, copies.gradients, copies.from_device),
        (18, 0, 0, 0, 0)
    );
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

/// `4 ε Σ_{s ≤ t} max(max_{r ≤ s} |p_r|, rate)`, of docs/NUMERICS.md, and half a unit in the last place of 16 bits a step.
struct Tolerance {
    largest: f64,
    sum: f64,
}

fn by_operations<T: Number, O: AnyOptimizer + lapidary::Optimizer<T>>(optimizer: O, epsilon: f64) {
    let device = Device::flex().autodiff();
    let mut net = net::<T>(&device);
    let mut slices = Slices::new(optimizer.clone());
    let (mut burns, watch) = Adapter::new(optimizer).with_route(Route::Operations).check_finite().for_module(&net);
    let masks = [None, None, Some(Mask::from_fn(&[11, 5], |i| i % 3 == 0).unwrap())];
    let mut tolerances: Vec<Vec<Tolerance>> =
        (0..3).map(|i| slices.weights[i].iter().map(|_: &T| Tolerance { largest: 0.0, sum: 0.0 }).collect()).collect();
    for t in 0..20 {
        let rate = 0.01;
        if t == 10 {
            let mut named = Masks::default();
            named.insert(SHAPES[2].0, masks[2].clone().unwrap());
            watch.set_masks(&named).unwrap();
        }
        for (tolerances, weights) in tolerances.iter_mut().zip(&slices.weights) {
            for (tolerance, p) in tolerances.iter_mut().zip(weights) {
                tolerance.largest = tolerance.largest.max(Element::to_f64(*p).abs());
                tolerance.sum += tolerance.largest.max(rate);
            }
        }
        let (gradients, plain) = gradients::<T>(&net, t);
        net = burns.step(rate, net, gradients);
        watch.check().unwrap();
        let none = [None, None, None];
        slices.step(rate, &plain, if t < 10 { &none } else { &masks });
        let found = weights::<T>(&net);
        for i in 0..3 {
            for (j, (a, b)) in found[i].iter().zip(&slices.weights[i]).enumerate() {
                // Of 16 bits two roundings count, not the digits of `f32` before them.
                let allowed = if epsilon > 1e-4 { 2.0 } else { 4.0 } * epsilon * tolerances[i][j].sum;
                let off = (Element::to_f64(*a) - Element::to_f64(*b)).abs();
                assert!(off <= allowed, "{}[{j}] at step {t}: {a} and {b}, allowed {allowed:e}", SHAPES[i].0);
                let pruned = t >= 10 && i == 2 && j % 3 != 0;
                assert_eq!(pruned, Element::to_f64(*a) == 0.0, "{}[{j}] at step {t}", SHAPES[i].0);
            }
        }
    }
    let copies = watch.copies();
    assert_eq!((copies.steps, copies.by_operations, copies.from_device), (60, 60, 0));
}

macro_rules! operations_in_every_type {
    ($($name:ident: $optimizer:expr;)*) => {$(
        #[test]
        fn $name() {
            by_operations::<f32, _>($optimizer, f64::from(f32::EPSILON));
            by_operations::<f64, _>($optimizer, f64::EPSILON);
            // Rounded once a step, here and there: they part by one unit now and then.
            by_operations::<f16, _>($optimizer, 0.5f64.powi(11));
            by_operations::<bf16, _>($optimizer, 0.5f64.powi(8));
        }
    )*};
}

operations_in_every_type! {
    operations_of_sgd: Sgd::new(0.1).unwrap().with_weight_decay(0.01).unwrap();
    operations_of_momentum: Sgd::new(0.1).unwrap().with_momentum(0.9).unwrap().with_dampening(0.1).unwrap();
    operations_of_nesterov: Sgd::new(0.1).unwrap().with_nesterov(0.9).unwrap().with_maximize();
    operations_of_adam: Adam::new(0.1).unwrap().with_weight_decay(0.1).unwrap();
    operations_of_amsgrad: Adam::new(0.1).unwrap().with_amsgrad().with_betas(0.4, 0.9).unwrap();
    operations_of_adamw: AdamW::new(0.1).unwrap().with_weight_decay(0.2).unwrap().with_maximize();
}

/// A step that must be refused: nothing moves, and the error says where.
fn refused(
    adapter: Adapter<impl AnyOptimizer>,
    kind: ErrorKind,
    spoil: impl FnOnce(&Net, &mut GradientsParams),
) -> String {
    let device = Device::flex().autodiff();
    let mut net = net::<f32>(&device);
    let (mut burns, watch) = adapter.for_module(&net);
    let (mut all, _) = gradients::<f32>(&net, 0);
    spoil(&net, &mut all);
    let before = weights::<f32>(&net);
    net = burns.step(0.1, net, all);
    let after = weights::<f32>(&net);
    // Bits stand for numbers: a NaN stays what it was.
    assert_eq!(bits(&before[1]), bits(&after[1]));
    assert_eq!(bits(&before[2]), bits(&after[2]), "no parameter moves after the first error");
    let error = watch.take_error().unwrap();
    assert!(watch.take_error().is_none());
    assert_eq!(error.kind(), kind, "{error}");
    // Once the error is taken, steps go on.
    let (fine, _) = gradients::<f32>(&net, 1);
    let steps = watch.copies().steps;
    _ = burns.step(0.1, net, fine);
    if kind == ErrorKind::NonFinite {
        assert_eq!(watch.copies().steps, steps + 3);
        watch.check().unwrap();
    }
    error.to_string()
}

#[test]
fn a_refused_step_leaves_parameters_and_names_the_tensor() {
    let bad = |net: &Net, all: &mut GradientsParams| {
        let mut values = numbers::<f32>(11, 1);
        values[3] = f32::NAN;
        all.register(net.first.bias.as_ref().unwrap().id, tensor(&values, [11], &Device::flex()));
    };
    let adamw = AdamW::new(0.1).unwrap();
    let error = refused(Adapter::new(adamw).check_finite(), ErrorKind::NonFinite, bad);
    assert_eq!(error, "\"first.bias\": gradient holds NaN at index 3");
    let error = refused(Adapter::new(adamw).check_finite().with_route(Route::Operations), ErrorKind::Argument, bad);
    assert!(error.starts_with("\"first.bias\": gradient"), "{error}");

    let short = |net: &Net, all: &mut GradientsParams| {
        all.register(net.first.bias.as_ref().unwrap().id, tensor(&numbers::<f32>(7, 1), [7], &Device::flex()));
    };
    let error = refused(Adapter::new(adamw), ErrorKind::Shape, short);
    assert_eq!(error, "\"first.bias\": gradient has shape [7], expected [11]");
    refused(Adapter::new(adamw).with_route(Route::Operations), ErrorKind::Shape, short);

    let wide = |net: &Net, all: &mut GradientsParams| {
        all.register(net.first.bias.as_ref().unwrap().id, tensor(&numbers::<f64>(11, 1), [11], &Device::flex()));
    };
    refused(Adapter::new(adamw), ErrorKind::Argument, wide);
    refused(Adapter::new(adamw).with_route(Route::Operations), ErrorKind::Argument, wide);

    let lion = Adapter::new(Lion::new(0.1).unwrap()).with_route(Route::Operations);
    let error = refused(lion, ErrorKind::Argument, |_, _| ());
    assert!(error.starts_with("\"first.weight\": optimizer is Lion, must be Sgd, Adam or AdamW"), "{error}");
}

#[test]
fn a_learning_rate_out_of_range_is_an_error() {
    let mut net = net::<f32>(&Device::flex().autodiff());
    let (mut burns, watch) = Adapter::new(Sgd::new(0.1).unwrap()).for_module(&net);
    let before = weights::<f32>(&net);
    let (all, _) = gradients::<f32>(&net, 0);
    net = burns.step(-1.0, net, all);
    assert_eq!(watch.take_error().unwrap().kind(), ErrorKind::Argument);
    assert_eq!(weights::<f32>(&net), before);
}

#[test]
fn what_shares_a_parameter_or_turns_a_gradient_costs_a_copy() {
    let device = Device::flex().autodiff();
    let mut net = net::<f32>(&device);
    let shared = net.clone();
    let before = weights::<f32>(&net);
    let (mut burns, watch) = Adapter::new(Sgd::new(0.1).unwrap()).for_module(&net);
    let (mut all, plain) = gradients::<f32>(&net, 0);
    let turned: Vec<f32> = (0..11 * 37).map(|i| plain[0][(i % 37) * 11 + i / 37]).collect();
    all.register(net.first.weight.id, tensor(&turned, [11, 37], &Device::flex()).transpose());
    net = burns.step(0.1, net, all);
    watch.check().unwrap();
    let copies = watch.copies();
    assert_eq!((copies.steps, copies.parameters, copies.gradients), (3, 3, 1));
    assert_eq!(weights::<f32>(&shared), before);
    let mut slices = Slices::<f32, _>::new(Sgd::new(0.1).unwrap());
    slices.step(0.1, &plain, &[None, None, None]);
    assert_eq!(weights::<f32>(&net), slices.weights);
}

#[test]
fn parameters_may_have_optimizers_of_their_own() {
    let device = Device::flex().autodiff();
    let mut net = net::<f32>(&device);
    let decayed = AdamW::new(0.1).unwrap().with_weight_decay(0.5).unwrap();
    let plain = decayed.with_weight_decay(0.0).unwrap();
    let choose = |name: &str, shape: &[usize]| {
        assert!(SHAPES.contains(&(name, shape)));
        (shape.len() < 2).then_some(plain)
    };
    let (mut burns, watch) = Adapter::new(decayed).for_module_by(&net, choose);
    let (all, gradients) = gradients::<f32>(&net, 0);
    net = burns.step(0.1, net, all);
    watch.check().unwrap();
    let found = weights::<f32>(&net);
    for (optimizer, i) in [(decayed, 0), (plain, 1), (decayed, 2)] {
        let mut slices = Slices::<f32, _>::new(optimizer);
        slices.step(0.1, &gradients, &[None, None, None]);
        assert_eq!(found[i], slices.weights[i], "{}", SHAPES[i].0);
    }
}

#[test]
fn masks_need_names_that_are_there() {
    let net = net::<f32>(&Device::flex().autodiff());
    let adapter = Adapter::new(Sgd::new(0.1).unwrap());
    let mut burns = burn_optim::ModuleOptimizer::from(adapter.clone());
    let mut masks = Masks::default();
    masks.insert("first.bias", Mask::from_fn(&[11], |i| i == 0).unwrap());
    assert_eq!(adapter.watch().set_masks(&masks).unwrap_err().kind(), ErrorKind::Argument);
    let (_, watch) = adapter.for_module(&net);
    watch.set_masks(&masks).unwrap();
    let mut wrong = masks.clone();
    wrong.insert("first.weight", Mask::keep_all(&[11]).unwrap());
    assert_eq!(watch.set_masks(&wrong).unwrap_err().kind(), ErrorKind::Shape);
    // The optimizer without names shares the watch, and would not know which mask is whose.
    let before = weights::<f32>(&net);
    let (all, _) = gradients::<f32>(&net, 0);
    let net = burns.step(0.1, net, all);
    assert_eq!(watch.take_error().unwrap().kind(), ErrorKind::Argument);
    assert_eq!(weights::<f32>(&net), before);
}

#[test]
fn gradients_are_clipped_by_burn_for_every_parameter() {
    let device = Device::flex().autodiff();
    let net = net::<f32>(&device);
    let before = weights::<f32>(&net);
    let clipping = burn_optim::grad_clipping::GradientClippingConfig::Value(1e-3);
    let (mut burns, watch) = Adapter::new(Sgd::new(1.0).unwrap()).with_grad_clipping(clipping).for_module(&net);
    let (gradients, plain) = gradients::<f32>(&net, 0);
    assert!(plain.iter().flatten().any(|g| g.abs() > 0.1));
    let net = burns.step(1.0, net, gradients);
    watch.check().unwrap();
    for (a, b) in before.iter().flatten().zip(weights::<f32>(&net).iter().flatten()) {
        assert!((a - b).abs() < 1.1e-3, "{a} became {b}");
    }
}

#[test]
fn state_of_another_shape_or_type_is_refused_on_a_device() {
    use burn_optim::Optimizer;
    let device = Device::flex();
    let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, &device);
    for route in [Route::Operations, Route::Host] {
        let adapter = Adapter::new(Adam::new(0.1).unwrap()).with_route(route);
        let (_, state) = adapter.step(0.1, ones([2, 3]), ones([2, 3]), None);
        let (param, state) = adapter.step(0.1, ones([2, 1]), ones([2, 1]), state);
        assert_eq!(adapter.watch().take_error().unwrap().kind(), ErrorKind::Shape);
        assert_eq!(param.into_data().as_slice::<f32>().unwrap(), [1.0; 2]);
        let wide = || ones([2, 3]).cast(burn_core::tensor::DType::F64);
        let (_, state) = adapter.step(0.1, wide(), wide(), state);
        assert!(adapter.watch().take_error().is_some());
        let (param, _) = adapter.step(0.1, ones([2, 3]), ones([2, 3]), state);
        adapter.watch().check().unwrap();
        assert!(param.into_data().as_slice::<f32>().unwrap()[0] < 1.0);
    }
}
