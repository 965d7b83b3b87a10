//! candle's variables and tensors: the same bits as slices give, and nothing moves where something is refused.
#![cfg(feature = "candle")]

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use candle_nn::{Module, Optimizer as _, VarBuilder, VarMap, linear};
use lapidary::{
    ErrorKind, Mask, Optimizer, OptimizerExt, PrunerExt, QuantizerExt, Step, TensorRef,
    backend::candle::{Scalar, VarParams, edit, fake_quantize, lsq, view},
    half::{bf16, f16},
    optim::{Adafactor, Adam, AdamW, Compact, Ema, Norm, Params, Scaler, ScheduleFree, Sgd, StepOptions, Update},
    prune::Magnitude,
    quant::{Affine, FakeQuantize, Lsq, MinMax, Symmetric},
};
use proptest::prelude::*;

const CPU: Device = Device::Cpu;

fn numbers<T: Scalar>(count: usize, seed: usize) -> Vec<T> {
    let number = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f64 / 5003.0 - 1.0;
    (0..count).map(|i| <T as lapidary::Element>::from_f64(number(i))).collect()
}

fn grads<'a>(grads: impl IntoIterator<Item = (&'a Var, Tensor)>) -> GradStore {
    let mut store = GradStore::default();
    grads.into_iter().for_each(|(var, grad)| _ = store.insert(var, grad));
    store
}

fn values<T: Scalar>(tensor: &Tensor) -> Vec<T> {
    view::<T>(tensor).unwrap().as_slice().to_vec()
}

fn bits<T: Scalar>(values: &[T]) -> Vec<u64> {
    values.iter().map(|&x| lapidary::Element::to_f64(x).to_bits()).collect()
}

/// Three steps by the adapter are three steps by slices, also with masks and by gradients in another order.
fn same_steps<T: Scalar>(make: impl Fn() -> Box<dyn Optimizer<T>>) {
    let shapes = [&[5, 300][..], &[300], &[2, 3, 4], &[]];
    let counts = shapes.map(|shape| shape.iter().product::<usize>());
    let mask = Mask::from_fn(shapes[0], |i| i % 3 != 0).unwrap();
    let mut plain = Params::<T>::new().stochastic_rounding(9);
    let mut vars = VarParams::<T>::default().stochastic_rounding(9);
    let (group, var_group) = (plain.group(make()), vars.group(make()));
    let mut slices: Vec<Vec<T>> = counts.iter().enumerate().map(|(i, &n)| numbers(n, i)).collect();
    let of_candle: Vec<Var> =
        slices.iter().zip(shapes).map(|(x, shape)| Var::from_vec(x.clone(), shape, &CPU).unwrap()).collect();
    for (i, (shape, var)) in shapes.iter().zip(&of_candle).enumerate() {
        plain.add(&format!("p{i}"), shape, group).unwrap();
        vars.add(&format!("p{i}"), var, var_group).unwrap();
    }
    plain.set_mask("p0", Some(mask.clone())).unwrap();
    vars.params_mut().set_mask("p0", Some(mask.clone())).unwrap();
    for step in 0..3 {
        let gradients: Vec<Vec<T>> = counts.iter().enumerate().map(|(i, &n)| numbers(n, 10 * step + i)).collect();
        let options = || StepOptions::new().clip_norm(0.5, Norm::L2).unwrap();
        let store = grads(of_candle.iter().zip(&gradients).zip(shapes).map(|((var, gradient), shape)| {
            let gradient = Tensor::from_slice(gradient, shape, &CPU).unwrap();
            // The same tensor, laid out with the first axis fastest.
            let turned = gradient.t().and_then(|t| t.contiguous()).and_then(|t| t.t());
            (var, if step == 1 { turned.unwrap_or(gradient) } else { gradient })
        }));
        if step == 1 {
            assert!(!store.get(&of_candle[0]).unwrap().is_contiguous());
        }
        let mut updates: Vec<_> = slices
            .iter_mut()
            .zip(&gradients)
            .zip(shapes)
            .map(|((param, gradient), shape)| Update::shaped(param, gradient, shape).unwrap())
            .collect();
        let want = plain.step_with(&mut updates, options()).unwrap();
        drop(updates);
        let got = vars.step_with(&store, options()).unwrap();
        assert_eq!(got.norm.map(f64::to_bits), want.norm.map(f64::to_bits));
        for (var, slice) in of_candle.iter().zip(&slices) {
            assert_eq!(bits(&values::<T>(var)), bits(slice), "step {step}");
        }
    }
    assert!(vars.params().states().eq(plain.states()));
    let first = values::<T>(&of_candle[0]);
    assert!((0..1500).step_by(3).all(|i| lapidary::Element::to_f64(first[i]) == 0.0));
    assert_ne!(bits(&first), bits(&numbers::<T>(1500, 0)));
    for (i, slice) in slices.iter().enumerate() {
        let (name, mut out) = (format!("p{i}"), vec![T::default(); slice.len()]);
        let shaped = TensorRef::new(slice, shapes[i]).unwrap();
        plain.evaluate(&name, shaped, lapidary::TensorMut::new(&mut out, shapes[i]).unwrap()).unwrap();
        assert_eq!(bits(&values::<T>(&vars.evaluate(&name).unwrap())), bits(&out));
    }
}

#[test]
fn steps_are_those_of_slices_bit_for_bit() {
    fn all<T: Scalar>() {
        same_steps::<T>(|| Box::new(AdamW::new(0.01).unwrap().with_weight_decay(0.1).unwrap()));
        same_steps::<T>(|| Box::new(Adafactor::new(0.01).unwrap()));
        same_steps::<T>(|| Box::new(ScheduleFree::new(0.01).unwrap()));
        same_steps::<T>(|| Box::new(Ema::new(Adam::new(0.01).unwrap(), 0.9).unwrap()));
        same_steps::<T>(|| Box::new(Compact::eight_bit(Adam::new(0.01).unwrap())));
    }
    all::<f32>();
    all::<f64>();
    all::<f16>();
    all::<bf16>();
}

#[test]
fn large_and_many_variables_step_in_parallel_with_the_same_bits() {
    let run = || {
        let mut vars = VarParams::<f32>::default();
        let group = vars.group(Adam::new(0.01).unwrap());
        let len = |i: usize| if i == 7 { 200_000 } else { 64 };
        let var = |i| Var::from_vec(numbers::<f32>(len(i), i), len(i), &CPU).unwrap();
        let all: Vec<Var> = (0..2000).map(var).collect();
        all.iter().enumerate().for_each(|(i, var)| vars.add(&format!("p{i}"), var, group).unwrap());
        let store = grads(
            all.iter()
                .map(|var| (var, Tensor::from_vec(numbers::<f32>(var.elem_count(), 3), var.shape(), &CPU).unwrap())),
        );
        vars.step(&store).unwrap();
        vars.step(&store).unwrap();
        all.iter().flat_map(|var| bits(&values::<f32>(var))).collect::<Vec<_>>()
    };
    let want = run();
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 7] {
        assert_eq!(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run), want);
    }
    assert_eq!(run(), want);
}

fn two() -> (VarParams<f32>, [Var; 2]) {
    let all = [Var::new(&[1f32, 2.0], &CPU).unwrap(), Var::new(&[3f32, 4.0, 5.0], &CPU).unwrap()];
    let mut vars = VarParams::default().check_finite();
    let group = vars.group(Adam::new(0.1).unwrap());
    vars.add("a", &all[0], group).unwrap();
    vars.add("b", &all[1], group).unwrap();
    (vars, all)
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::new(values, &CPU).unwrap()
}

#[test]
fn nothing_moves_where_one_gradient_is_refused() {
    let (mut vars, all) = two();
    let before = format!("{:?}", vars.params());
    let good = || tensor(&[1.0, 1.0]);
    let mut refused = |second: Tensor| vars.step(&grads([(&all[0], good()), (&all[1], second)])).unwrap_err();
    let nan = refused(tensor(&[0.0, f32::NAN, 0.0]));
    assert_eq!((nan.kind(), nan.tensor(), nan.index()), (ErrorKind::NonFinite, Some("b"), Some(1)));
    let shape = refused(tensor(&[0.0; 4]));
    assert_eq!((shape.kind(), shape.tensor()), (ErrorKind::Shape, Some("b")));
    let shape = refused(tensor(&[0.0; 3]).reshape((3, 1)).unwrap());
    assert_eq!((shape.kind(), shape.tensor()), (ErrorKind::Shape, Some("b")));
    let wide = refused(tensor(&[0.0; 3]).to_dtype(DType::F64).unwrap());
    assert_eq!(wide.to_string(), "\"b\": element type is f64, must be f32");
    assert_eq!((values::<f32>(&all[0]), values::<f32>(&all[1])), (vec![1.0, 2.0], vec![3.0, 4.0, 5.0]));
    assert_eq!(format!("{:?}", vars.params()), before);
    // A parameter that has no variable.
    let group = vars.group(Sgd::new(0.1).unwrap());
    vars.params_mut().add("c", &[1], group).unwrap();
    let error = vars.step(&grads([(&all[0], good())])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert_eq!(values::<f32>(&all[0]), [1.0, 2.0]);
}

#[test]
fn a_variable_without_a_gradient_waits() {
    let (mut vars, all) = two();
    vars.step(&grads([(&all[0], tensor(&[1.0, 1.0]))])).unwrap();
    let steps = |vars: &VarParams| ["a", "b"].map(|name| vars.params().state(name).unwrap().steps());
    assert_eq!((steps(&vars), values::<f32>(&all[1])), ([1, 0], vec![3.0, 4.0, 5.0]));
    vars.params_mut().freeze("a", true).unwrap();
    let moved = values::<f32>(&all[0]);
    vars.step(&grads([(&all[0], tensor(&[1.0, 1.0])), (&all[1], tensor(&[1.0; 3]))])).unwrap();
    assert_eq!((steps(&vars), values::<f32>(&all[0])), ([1, 1], moved));
    assert_ne!(values::<f32>(&all[1]), [3.0, 4.0, 5.0]);
}

#[test]
fn gradients_that_share_storage_do_not_lock_out() {
    let (mut vars, all) = two();
    // Its own storage, and another variable's; both read before anything moves.
    let own = all[0].as_tensor().clone();
    let others = Tensor::cat(&[&all[1].narrow(0, 0, 1).unwrap(); 3], 0).unwrap();
    let view_of_a = all[0].narrow(0, 0, 1).unwrap().broadcast_as(3).unwrap();
    vars.step(&grads([(&all[0], own), (&all[1], view_of_a)])).unwrap();
    let (mut apart, same) = two();
    apart.step(&grads([(&same[0], tensor(&[1.0, 2.0])), (&same[1], tensor(&[1.0; 3]))])).unwrap();
    assert_eq!(values::<f32>(&all[0]), values::<f32>(&same[0]));
    assert_eq!(values::<f32>(&all[1]), values::<f32>(&same[1]));
    // One tensor as the gradient of two.
    let three = Var::new(&[0f32; 3], &CPU).unwrap();
    let group = vars.group(Sgd::new(1.0).unwrap());
    vars.add("c", &three, group).unwrap();
    vars.step(&grads([(&all[1], others.clone()), (&three, others)])).unwrap();
    assert_eq!(values::<f32>(&three), [-3.0; 3]);
}

#[test]
fn a_variable_is_taken_once_and_as_it_is() {
    let (mut vars, all) = two();
    let group = vars.group(Sgd::new(0.1).unwrap());
    let mut refused = |name: &str, var: &Var| {
        let error = vars.add(name, var, group).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        error
    };
    assert_eq!(refused("twin", &all[0]).tensor(), Some("twin"));
    assert_eq!(refused("twin", &Var::from_tensor(&all[0]).unwrap()).tensor(), Some("twin"));
    assert!(refused("wide", &Var::zeros(2, DType::F64, &CPU).unwrap()).to_string().contains("must be f32"));
    assert!(refused("whole", &Var::zeros(2, DType::U8, &CPU).unwrap()).to_string().contains("u8"));
    refused("a", &Var::zeros(2, DType::F32, &CPU).unwrap());
    assert_eq!(vars.params().names().count(), 2);
    assert!(vars.evaluate("twin").is_err());
    vars.step(&grads([(&all[0], tensor(&[1.0, 1.0]))])).unwrap();
}

#[test]
fn a_scaler_skips_and_finds_its_way_back() {
    let (mut vars, all) = two();
    let mut scaler = Scaler::new(1024.0).unwrap();
    let store = grads([(&all[0], tensor(&[f32::INFINITY, 0.0]))]);
    let outcome = vars.step_with(&store, StepOptions::new().scaler(&mut scaler)).unwrap();
    assert!(outcome.skipped);
    assert_eq!((scaler.scale(), values::<f32>(&all[0])), (512.0, vec![1.0, 2.0]));
}

fn network(map: &VarMap, dtype: DType) -> candle_nn::Sequential {
    let vb = VarBuilder::from_varmap(map, dtype, &CPU);
    let layers = (linear(6, 16, vb.pp("fc1")).unwrap(), linear(16, 3, vb.pp("fc2")).unwrap());
    candle_nn::seq().add(layers.0).add(candle_nn::Activation::Relu).add(layers.1)
}

/// Weights that do not depend on a generator.
fn fill(map: &VarMap) {
    let all = map.data().lock().unwrap();
    let mut names: Vec<_> = all.iter().collect();
    names.sort_by_key(|(name, _)| name.to_string());
    for (i, (_, var)) in names.into_iter().enumerate() {
        var.set(&Tensor::from_vec(numbers::<f32>(var.elem_count(), i), var.shape(), &CPU).unwrap()).unwrap();
    }
}

fn loss(network: &candle_nn::Sequential, batch: usize) -> Tensor {
    let x = Tensor::from_vec(numbers::<f32>(8 * 6, batch), (8, 6), &CPU).unwrap();
    let y = Tensor::from_vec((0..8u32).map(|i| (i + batch as u32) % 3).collect::<Vec<_>>(), 8, &CPU).unwrap();
    candle_nn::loss::cross_entropy(&network.forward(&x).unwrap(), &y).unwrap()
}

fn of_map(map: &VarMap) -> Vec<(String, Vec<f32>)> {
    let all = map.data().lock().unwrap();
    let mut all: Vec<_> = all.iter().map(|(name, var)| (name.clone(), values::<f32>(var))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn a_loop_of_candle_nn_changes_one_line() {
    let (map, theirs) = (VarMap::new(), VarMap::new());
    let (network_here, network_there) = (network(&map, DType::F32), network(&theirs, DType::F32));
    fill(&map);
    fill(&theirs);
    fn train<O: candle_nn::Optimizer>(mut optimizer: O, network: &candle_nn::Sequential) -> f32 {
        for step in 0..60 {
            optimizer.backward_step(&loss(network, step % 4)).unwrap();
            optimizer.set_learning_rate(optimizer.learning_rate() * 0.99);
        }
        loss(network, 0).to_scalar().unwrap()
    }
    let before: f32 = loss(&network_here, 0).to_scalar().unwrap();
    let config = candle_nn::ParamsAdamW { lr: 0.02, ..Default::default() };
    let there = train(candle_nn::AdamW::new(theirs.all_vars(), config).unwrap(), &network_there);
    let adamw = AdamW::new(0.02).unwrap();
    let here = train(VarParams::<f32>::new(map.all_vars(), Box::new(adamw)).unwrap(), &network_here);
    assert!((here - there).abs() < 1e-3 && here < before - 0.1, "{here} of {before} here, {there} by candle-nn");
    for ((name, a), (_, b)) in of_map(&map).iter().zip(of_map(&theirs)) {
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 2e-3), "{name}: {a:?} {b:?}");
    }
}

#[test]
fn variables_without_elements_move_with_the_others() {
    let (some, none) = (Var::new(&[1f32, 2.0], &CPU).unwrap(), Var::zeros((3, 0), DType::F32, &CPU).unwrap());
    let mut vars = VarParams::<f32>::default();
    let group = vars.group(Sgd::new(0.5).unwrap());
    vars.add("some", &some, group).unwrap();
    vars.add("none", &none, group).unwrap();
    let loss = (some.sum_all().unwrap() + none.sum_all().unwrap()).unwrap();
    vars.step(&loss.backward().unwrap()).unwrap();
    assert_eq!(values::<f32>(&some), [0.5, 1.5]);
    assert_eq!(edit::<f32, _>(&none, |tensor| Ok(tensor.shape().to_vec())).unwrap(), [3, 0]);
    assert!(edit::<f64, _>(&none, |_| Ok(())).is_err());
    *vars.params_mut() = Params::new();
    assert_eq!(vars.step(&loss.backward().unwrap()).unwrap_err().kind(), ErrorKind::Shape);
}

#[test]
fn the_trait_reports_a_refused_rate_by_the_next_step() {
    let var = Var::new(&[1f32], &CPU).unwrap();
    let whole = Var::zeros(2, DType::U8, &CPU).unwrap();
    let sgd = Box::new(Sgd::new(0.5).unwrap());
    let mut optimizer = VarParams::<f32>::new(vec![whole, var.clone()], sgd).unwrap();
    optimizer.set_learning_rate(-1.0);
    assert_eq!(optimizer.learning_rate(), 0.5);
    let error = optimizer.backward_step(&var.sum_all().unwrap()).unwrap_err();
    assert!(error.to_string().contains("learning_rate is -1"), "{error}");
    assert_eq!(values::<f32>(&var), [1.0]);
    optimizer.set_learning_rate(-1.0);
    optimizer.set_learning_rate(0.25);
    optimizer.backward_step(&var.sum_all().unwrap()).unwrap();
    assert_eq!(values::<f32>(&var), [0.75]);
    let wide = Var::zeros(2, DType::F64, &CPU).unwrap();
    assert!(VarParams::<f32>::new(vec![wide], Box::new(Sgd::new(0.5).unwrap())).is_err());
    assert!(<VarParams as candle_nn::Optimizer>::empty(Box::new(Sgd::new(0.5).unwrap())).is_ok());
    assert!(candle_nn::Optimizer::learning_rate(&VarParams::<f32>::default()).is_nan());
}

#[cfg(feature = "safetensors")]
#[test]
fn a_run_goes_on_from_its_checkpoint_to_the_bit() {
    use lapidary::format::checkpoint::{Checkpoint, Loaded};
    let dir = std::env::temp_dir().join(format!("lapidary-candle-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (weights, state) = (dir.join("weights.safetensors"), dir.join("state.safetensors"));
    let start = || {
        let map = VarMap::new();
        let network = network(&map, DType::F32);
        let optimizer = Ema::new(Compact::eight_bit(AdamW::new(0.02).unwrap()), 0.9).unwrap();
        let vars = VarParams::<f32>::of(&map, optimizer).unwrap();
        (map, network, vars)
    };
    let (map, network, mut vars) = start();
    fill(&map);
    let mask = Mask::from_fn(&[16, 6], |i| i % 2 == 0).unwrap();
    vars.params_mut().set_mask("fc1.weight", Some(mask)).unwrap();
    let run = |vars: &mut VarParams, network: &candle_nn::Sequential, steps: std::ops::Range<usize>| {
        steps.for_each(|step| vars.step(&loss(network, step).backward().unwrap()).unwrap());
    };
    assert!(vars.params().names().is_sorted());
    run(&mut vars, &network, 0..3);
    map.save(&weights).unwrap();
    Checkpoint::new().with_params(vars.params()).unwrap().save(&state).unwrap();
    run(&mut vars, &network, 3..6);

    let (mut again, network, mut resumed) = start();
    again.load(&weights).unwrap();
    Loaded::open(&state).unwrap().restore_params(resumed.params_mut()).unwrap();
    assert_ne!(of_map(&again), of_map(&map));
    run(&mut resumed, &network, 3..6);
    assert_eq!(of_map(&again), of_map(&map));
    let bytes = |vars: &VarParams| Checkpoint::new().with_params(vars.params()).unwrap().encode().unwrap();
    assert_eq!(bytes(&resumed), bytes(&vars));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn tensors_are_quantized_and_pruned_as_slices_are() {
    fn check<T: Scalar>() {
        let numbers: Vec<T> = numbers(48, 3);
        let tensor = Tensor::from_slice(&numbers, (6, 8), &CPU).unwrap();
        let minmax = MinMax::new(4).unwrap().per_group(4).unwrap();
        let want = minmax.quantize(TensorRef::new(&numbers, &[6, 8]).unwrap()).unwrap();
        let borrowed = view::<T>(&tensor).unwrap();
        assert!(borrowed.is_borrowed());
        assert_eq!(minmax.quantize(&borrowed).unwrap(), want);
        let turned = tensor.t().unwrap().contiguous().unwrap();
        let copied = turned.t().unwrap();
        let copied = view::<T>(&copied).unwrap();
        assert!(!copied.is_borrowed());
        assert_eq!((minmax.quantize(&copied).unwrap(), copied.shape()), (want.clone(), &[6, 8][..]));
        let back = want.to_candle::<T>().unwrap();
        assert_eq!((back.dims(), bits(&values::<T>(&back))), (&[6, 8][..], bits(&want.dequantize::<T>())));

        let var = Var::from_tensor(&tensor).unwrap();
        let mask = Magnitude::sparsity(0.5).unwrap().mask(&borrowed).unwrap();
        edit::<T, _>(&var, |w| mask.apply(w)).unwrap();
        let mut pruned = numbers.clone();
        mask.apply(lapidary::TensorMut::new(&mut pruned, &[6, 8]).unwrap()).unwrap();
        assert_eq!(bits(&values::<T>(&var)), bits(&pruned));
        edit::<T, _>(&var, |w| want.dequantize_into(w)).unwrap();
        assert_eq!(bits(&values::<T>(&var)), bits(&want.dequantize::<T>()));
        let sgd = Sgd::new(0.5).unwrap();
        let mut state = sgd.init(&view::<T>(&var).unwrap()).unwrap();
        let gradient = view::<T>(&tensor).unwrap();
        edit::<T, _>(&var, |w| sgd.step(Step::new(w, &gradient, &mut state))).unwrap();
        let mut slice = want.dequantize::<T>();
        let mut flat = sgd.init(&slice).unwrap();
        sgd.step(Step::new(&mut slice, &numbers, &mut flat)).unwrap();
        assert_eq!(bits(&values::<T>(&var)), bits(&slice));
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

#[test]
fn an_edit_gives_what_it_is_given_and_refuses_by_name() {
    let var = Var::new(&[1f32, 2.0], &CPU).unwrap();
    assert_eq!(edit::<f32, _>(&var, |w| Ok(w.as_slice()[1])).unwrap(), 2.0);
    let mask = Mask::keep_all(&[3]).unwrap();
    assert_eq!(edit::<f32, _>(&var, |w| mask.apply(w)).unwrap_err().kind(), ErrorKind::Shape);
    let error = edit::<f64, _>(&var, |_| Ok(())).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Argument, "element type is f32, must be f64".into()));
    let candle: candle_core::Error = error.into();
    assert_eq!(candle.to_string(), "element type is f32, must be f64");
    let back: lapidary::Error = Tensor::zeros(2, DType::F32, &CPU).unwrap().reshape(3).unwrap_err().into();
    assert_eq!(back.kind(), ErrorKind::Runtime);
}

/// Values, levels and gradients of an operation against those of slices, by values in either layout.
fn same_rounding<T: Scalar>(scheme: FakeQuantize, levels: &lapidary::QTensor, numbers: &[T], upstream: &[T]) {
    let shape = levels.shape();
    let (mut rounded, mut through) = (numbers.to_vec(), numbers.to_vec());
    let (slice, up) = (TensorRef::new(numbers, shape).unwrap(), TensorRef::new(upstream, shape).unwrap());
    scheme.forward(&slice, levels, lapidary::TensorMut::new(&mut rounded, shape).unwrap()).unwrap();
    scheme.backward(&slice, levels, &up, lapidary::TensorMut::new(&mut through, shape).unwrap()).unwrap();
    let var = Var::from_slice(numbers, shape, &CPU).unwrap();
    let turned = Var::from_tensor(&var.t().unwrap().contiguous().unwrap()).unwrap();
    let up = Tensor::from_slice(upstream, shape, &CPU).unwrap();
    for (var, value, back) in [(&var, var.as_tensor().clone(), false), (&turned, turned.t().unwrap(), true)] {
        let y = fake_quantize(&value, scheme, levels.clone()).unwrap();
        assert_eq!(bits(&values::<T>(&y)), bits(&rounded));
        let grads = y.mul(&up).unwrap().sum_all().unwrap().backward().unwrap();
        let grad = grads.get(var).unwrap();
        let grad = if back { grad.t().unwrap() } else { grad.clone() };
        // candle adds it to a zero, which makes +0 of -0.
        let signed = |x: &[T]| x.iter().map(|&x| (lapidary::Element::to_f64(x) + 0.0).to_bits()).collect::<Vec<_>>();
        assert_eq!(signed(&values::<T>(&grad)), signed(&through));
    }
}

#[test]
fn fake_quantization_is_that_of_slices() {
    fn check<T: Scalar>() {
        let (numbers, upstream) = (numbers::<T>(48, 1), numbers::<T>(48, 2));
        let narrow: Vec<T> =
            numbers.iter().map(|&x| <T as lapidary::Element>::from_f64(0.6 * lapidary::Element::to_f64(x))).collect();
        let narrow = TensorRef::new(&narrow, &[6, 8]).unwrap();
        let symmetric = Symmetric::new(4).unwrap().per_channel(0);
        same_rounding(symmetric.into(), &symmetric.quantize(&narrow).unwrap(), &numbers, &upstream);
        let affine = Affine::new(3).unwrap();
        same_rounding(affine.into(), &affine.quantize(&narrow).unwrap(), &numbers, &upstream);
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
    let affine = Affine::new(3).unwrap();
    let levels = affine.quantize(&[1f32, 2.0]).unwrap();
    let refused = |x: &Tensor| fake_quantize(x, affine.into(), levels.clone()).unwrap_err().to_string();
    assert!(refused(&tensor(&[0.0, f32::NAN])).contains("index 1"));
    assert!(refused(&tensor(&[0.0; 3])).contains("shape"));
    assert!(refused(&Tensor::zeros(2, DType::U8, &CPU).unwrap()).contains("u8"));
    assert!(refused(&Tensor::zeros(2, DType::F64, &CPU).unwrap()).contains("quantized tensor"));
}

#[test]
fn learned_scales_are_those_of_slices() {
    fn check<T: Scalar<Real: Scalar>>() {
        let (numbers, upstream) = (numbers::<T>(48, 1), numbers::<T>(48, 2));
        let scheme = Lsq::new(3).unwrap().per_channel(0);
        let shape = [6, 8];
        let slice = TensorRef::new(&numbers, &shape).unwrap();
        let scales = scheme.initial_scales(&slice).unwrap();
        let (mut rounded, mut through) = (numbers.clone(), numbers.clone());
        let mut scale_gradient = scales.clone();
        scheme.forward(&slice, &scales, lapidary::TensorMut::new(&mut rounded, &shape).unwrap()).unwrap();
        let up = TensorRef::new(&upstream, &shape).unwrap();
        let out = lapidary::TensorMut::new(&mut through, &shape).unwrap();
        scheme.backward(&slice, &scales, up, out, &mut scale_gradient).unwrap();
        let var = Var::from_slice(&numbers, &shape, &CPU).unwrap();
        let learned = Var::from_slice(&scales, 6, &CPU).unwrap();
        let y = lsq(&var, &learned, scheme).unwrap();
        assert_eq!(bits(&values::<T>(&y)), bits(&rounded));
        let up = Tensor::from_slice(&upstream, &shape, &CPU).unwrap();
        let grads = y.mul(&up).unwrap().sum_all().unwrap().backward().unwrap();
        let signed = |x: Vec<f64>| x.into_iter().map(|x| (x + 0.0).to_bits()).collect::<Vec<_>>();
        let wide = |x: &[T]| signed(x.iter().map(|&x| lapidary::Element::to_f64(x)).collect());
        assert_eq!(wide(&values::<T>(grads.get(&var).unwrap())), wide(&through));
        let found = values::<T::Real>(grads.get(&learned).unwrap());
        assert_eq!(bits(&found), bits(&scale_gradient));
        assert!(lsq(&var, &learned.reshape((6, 1)).unwrap(), scheme).is_err());
        assert!(lsq(&var, &learned.neg().unwrap(), scheme).is_err());
    }
    check::<f32>();
    check::<f64>();
    check::<f16>();
    check::<bf16>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Any shapes, any of them without a gradient, transposed or broadcast: the adapter is `Params` over slices.
    #[test]
    fn any_set_of_variables_steps_as_slices_do(
        all in prop::collection::vec((1usize..40, 1usize..40, 0usize..4), 1..8), seed in 0usize..100,
    ) {
        let mut plain = Params::<f32>::new();
        let mut vars = VarParams::<f32>::default();
        let (group, var_group) = (plain.group(Adam::new(0.01).unwrap()), vars.group(Adam::new(0.01).unwrap()));
        let mut slices = Vec::new();
        let (mut of_candle, mut store) = (Vec::new(), GradStore::default());
        for (i, &(rows, cols, kind)) in all.iter().enumerate() {
            let var = Var::from_vec(numbers::<f32>(rows * cols, i), (rows, cols), &CPU).unwrap();
            plain.add(&i.to_string(), &[rows, cols], group).unwrap();
            vars.add(&i.to_string(), &var, var_group).unwrap();
            let grad = match kind {
                0 => None,
                1 => Some(Tensor::from_vec(numbers::<f32>(rows * cols, seed), (rows, cols), &CPU).unwrap()),
                2 => Some(Tensor::from_vec(numbers::<f32>(rows * cols, seed), (cols, rows), &CPU).unwrap().t().unwrap()),
                _ => Some(Tensor::from_vec(numbers::<f32>(cols, seed), cols, &CPU).unwrap().broadcast_as((rows, cols)).unwrap()),
            };
            let logical = grad.as_ref().map(|g| g.contiguous().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
            grad.into_iter().for_each(|grad| _ = store.insert(&var, grad));
            slices.push((values::<f32>(&var), logical, [rows, cols]));
            of_candle.push(var);
        }
        let mut updates: Vec<_> = slices.iter_mut().map(|(param, grad, shape)| match grad {
            Some(grad) => Update::shaped(param, grad, shape).unwrap(),
            None => Update::skipped(lapidary::TensorMut::new(param, shape).unwrap()),
        }).collect();
        plain.step(&mut updates).unwrap();
        drop(updates);
        vars.step(&store).unwrap();
        for (var, (slice, _, _)) in of_candle.iter().zip(&slices) {
            prop_assert_eq!(&values::<f32>(var), slice);
        }
        prop_assert!(vars.params().states().eq(plain.states()));
    }
}
