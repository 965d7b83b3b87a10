//! A backend whose tensors this crate does not see in host memory: steps by operations, copies that are asked for, errors else.
//!
//! `cargo test --manifest-path benches/peers/burn/Cargo.toml`

#![allow(deprecated, reason = "the only other backend that needs no device")]

use burn_core::{
    self as burn,
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use burn_optim::GradientsParams;
use lapidary::{
    ErrorKind, Mask,
    backend::burn::{Adapter, AnyOptimizer, Copies, Masks, Route, Weights, load},
    optim::{AdamW, Lion},
    prune::Magnitude,
};
use std::collections::BTreeMap;

#[derive(Module, Debug)]
struct Model {
    weight: Param<Tensor<2>>,
}

fn numbers(seed: usize) -> Vec<f32> {
    (0..12).map(|i| ((i * 7 + seed * 5) % 13) as f32 / 6.0 - 1.0).collect()
}

fn tensor(seed: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers(seed), [3, 4]), device)
}

fn model(device: &Device) -> Model {
    Model { weight: Param::from_tensor(tensor(0, device)) }
}

fn values(model: &Model) -> Vec<f32> {
    model.weight.val().inner().into_data().as_slice::<f32>().unwrap().to_vec()
}

/// Five steps, the last two under a mask.
fn run(device: &Device, optimizer: impl AnyOptimizer, route: Route) -> Result<(Vec<f32>, Copies), lapidary::Error> {
    let mut model = model(&device.clone().autodiff());
    let (mut burns, watch) = Adapter::new(optimizer).with_route(route).for_module(&model);
    let mut masks = Masks::default();
    masks.insert("weight", Mask::from_fn(&[3, 4], |i| i % 2 == 0)?);
    for t in 1..=5 {
        if t == 4 {
            masks.apply(&mut model)?;
            watch.set_masks(&masks)?;
        }
        let mut gradients = GradientsParams::new();
        gradients.register(model.weight.id, tensor(t, device));
        model = burns.step(0.01, model, gradients);
        watch.check()?;
    }
    Ok((values(&model), watch.copies()))
}

#[test]
fn steps_by_operations_or_by_copies_that_were_asked_for() {
    let (there, here) = (Device::ndarray(), Device::flex());
    let adamw = AdamW::new(0.1).unwrap();
    let (slices, copies) = run(&here, adamw, Route::Auto).unwrap();
    assert_eq!((copies.steps, copies.by_operations, copies.from_device), (5, 0, 0));
    let (found, copies) = run(&there, adamw, Route::Auto).unwrap();
    assert_eq!((copies.steps, copies.by_operations, copies.from_device), (5, 5, 0));
    found.iter().zip(&slices).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} and {b}"));
    assert!(found.iter().skip(1).step_by(2).all(|x| *x == 0.0));
    let (found, copies) = run(&there, adamw, Route::Host).unwrap();
    assert_eq!(found, slices);
    assert_eq!((copies.steps, copies.by_operations, copies.from_device), (5, 0, 10));
}

#[test]
fn an_optimizer_without_operations_asks_for_the_copy() {
    let lion = Lion::new(0.1).unwrap();
    let error = run(&Device::ndarray(), lion, Route::Auto).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Argument, Some("weight")));
    assert!(error.to_string().contains("Route::Host"), "{error}");
    let (found, _) = run(&Device::ndarray(), lion, Route::Host).unwrap();
    assert_eq!(found, run(&Device::flex(), lion, Route::Auto).unwrap().0);
}

#[test]
fn weights_are_read_when_asked_for() {
    let mut model = model(&Device::ndarray());
    assert_eq!(Weights::new(&model).unwrap_err().kind(), ErrorKind::Argument);
    let magnitude = Magnitude::sparsity(0.5).unwrap();
    assert_eq!(Masks::new(&model, &magnitude, |_, _| true).unwrap_err().tensor(), Some("weight"));
    let weights = Weights::from_device(&model).unwrap();
    assert_eq!(weights.copies(), 1);
    assert_eq!(weights.get::<f32>("weight").unwrap().as_slice(), numbers(0));
    let negated: Vec<f32> = numbers(0).iter().map(|x| -x).collect();
    let view = lapidary::TensorRef::new(&negated, &[3, 4]).unwrap();
    load(&mut model, &BTreeMap::from([("weight", view)])).unwrap();
    assert_eq!(values(&model), negated);
    assert_eq!(model.weight.val().device(), Device::ndarray());
}
