//! Optimizers, masks, fake quantization and weights of `burn`'s modules, against the slices of this crate.
#![cfg(feature = "burn")]

mod records;
mod steps;
mod weights;

use burn_core::{
    self as burn,
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use burn_optim::GradientsParams;
use lapidary::{
    Element,
    backend::burn::Number,
    half::{bf16, f16},
};

/// Two layers, one without a bias.
#[derive(Module, Debug)]
struct Net {
    first: Layer,
    rest: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

/// Numbers of both signs that look random.
fn numbers<T: Number>(len: usize, seed: u32) -> Vec<T> {
    let number = |i: usize| {
        let bits = (i as u32).wrapping_add(seed.wrapping_mul(7919)).wrapping_mul(2_654_435_761);
        f64::from(bits >> 8) / f64::from(1 << 23) - 1.0
    };
    (0..len).map(|i| <T as Element>::from_f64(number(i))).collect()
}

fn tensor<T: Number, const D: usize>(values: &[T], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, <T as burn_core::tensor::Element>::dtype()))
}

fn values<T: Number, const D: usize>(tensor: &Tensor<D>) -> Vec<T> {
    tensor.clone().inner().into_data().as_slice::<T>().unwrap().to_vec()
}

fn bits<T: Element>(values: &[T]) -> Vec<u64> {
    values.iter().map(|x| x.to_f64().to_bits()).collect()
}

/// Names, shapes and elements, as the module has them.
const SHAPES: [(&str, &[usize]); 3] = [("first.weight", &[37, 11]), ("first.bias", &[11]), ("rest.0.weight", &[11, 5])];

fn starts<T: Number>() -> [Vec<T>; 3] {
    let volume = |i: usize| SHAPES[i].1.iter().product();
    [0, 1, 2].map(|i| numbers(volume(i), i as u32))
}

fn net<T: Number>(device: &Device) -> Net {
    let [w, b, v] = starts::<T>();
    let first = Layer {
        weight: Param::from_tensor(tensor(&w, [37, 11], device)),
        bias: Some(Param::from_tensor(tensor(&b, [11], device))),
    };
    Net { first, rest: vec![Layer { weight: Param::from_tensor(tensor(&v, [11, 5], device)), bias: None }] }
}

/// What the parameters of [`net`] are now.
fn weights<T: Number>(net: &Net) -> [Vec<T>; 3] {
    [
        values(&net.first.weight.val()),
        values(&net.first.bias.as_ref().unwrap().val()),
        values(&net.rest[0].weight.val()),
    ]
}

/// Gradients of step `t`, as burn has them and as slices.
fn gradients<T: Number>(net: &Net, t: u32) -> (GradientsParams, [Vec<T>; 3]) {
    let [w, b, v] = [0, 1, 2].map(|i| numbers::<T>(starts::<T>()[i].len(), 100 + 3 * t + i as u32));
    let device = Device::flex();
    let mut all = GradientsParams::new();
    all.register(net.first.weight.id, tensor(&w, [37, 11], &device));
    all.register(net.first.bias.as_ref().unwrap().id, tensor(&b, [11], &device));
    all.register(net.rest[0].weight.id, tensor(&v, [11, 5], &device));
    (all, [w, b, v])
}

#[test]
fn names_are_those_of_burns_records_in_the_order_of_fields() {
    let device = Device::flex();
    let named: Vec<_> = SHAPES.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
    for _ in 0..3 {
        assert_eq!(lapidary::backend::burn::names(&net::<f32>(&device)), named);
        assert_eq!(lapidary::backend::burn::names(&net::<f32>(&device.clone().autodiff())), named);
    }
}

/// Where a tensor's elements are.
fn place(tensor: &Tensor<2>) -> usize {
    let inner = tensor.clone().inner();
    let flex = inner.try_into_primitive::<burn_core::backend::Flex>().unwrap();
    assert!(flex.dtype().is_float());
    flex.bytes().as_ptr().addr()
}
