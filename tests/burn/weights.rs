//! Masks, fake quantization, and weights out of a module and back into it.

use super::*;
use lapidary::{
    ErrorKind, PrunerExt, QTensor, Quantizer, QuantizerExt, TensorMut, TensorRef,
    backend::burn::{FakeQuantizer, Masks, Weights, fake_quantize, load, load_slim},
    prune::{Magnitude, Scores, Select},
    quant::{Affine, FakeQuantize, Symmetric},
    slim::{self, Activation, Dense, Importance, Input, Keep, Plan, Topology},
};
use std::collections::BTreeMap;

fn is_matrix(_: &str, shape: &[usize]) -> bool {
    shape.len() == 2
}

fn masks<T: Number>(device: &Device) {
    let mut net = net::<T>(device);
    let ids = burn_core::module::list_param_ids(&net);
    let select = Select::sparsity(0.6).unwrap().per_row().by(Magnitude);
    let masks = Masks::new(&net, &select, is_matrix).unwrap();
    assert_eq!(masks.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["first.weight", "rest.0.weight"]);
    masks.apply(&mut net).unwrap();
    let found = weights::<T>(&net);
    for (i, mut start) in starts::<T>().into_iter().enumerate() {
        if i != 1 {
            let tensor = TensorMut::new(&mut start, SHAPES[i].1).unwrap();
            let mask = select.mask(TensorRef::from(&tensor)).unwrap();
            assert_eq!(masks.get(SHAPES[i].0), Some(&mask));
            mask.apply(tensor).unwrap();
        }
        assert_eq!(bits(&found[i]), bits(&start));
    }
    assert_eq!(burn_core::module::list_param_ids(&net), ids);
    assert_eq!(net.first.weight.val().is_require_grad(), device.is_autodiff());
}

#[test]
fn masks_are_those_of_slices() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        masks::<f32>(&device);
        masks::<f64>(&device);
        masks::<f16>(&device);
        masks::<bf16>(&device);
    }
}

#[test]
fn masks_that_do_not_fit_change_nothing() {
    let mut net = net::<f32>(&Device::flex());
    let before = weights::<f32>(&net);
    let mut wrong = Masks::new(&net, &Magnitude::sparsity(0.5).unwrap(), is_matrix).unwrap();
    wrong.insert("rest.1.weight", lapidary::Mask::keep_all(&[3]).unwrap());
    let error = wrong.apply(&mut net).unwrap_err();
    assert_eq!(error.to_string(), "parameter is \"rest.1.weight\", must be one of the module's");
    let mut wrong = Masks::new(&net, &Magnitude::sparsity(0.5).unwrap(), is_matrix).unwrap();
    wrong.insert("rest.0.weight", lapidary::Mask::keep_all(&[3]).unwrap());
    assert_eq!(wrong.apply(&mut net).unwrap_err().tensor(), Some("rest.0.weight"));
    assert_eq!(weights::<f32>(&net), before);

    let mut spoilt = numbers::<f32>(55, 2);
    spoilt[7] = f32::NAN;
    net.rest[0].weight = Param::from_tensor(tensor(&spoilt, [11, 5], &Device::flex()));
    let mut masks = Masks::default();
    let error = masks.refine(&net, &Magnitude::sparsity(0.5).unwrap(), is_matrix).unwrap_err();
    assert_eq!((error.tensor(), error.index()), (Some("rest.0.weight"), Some(7)));
    assert_eq!(masks.iter().count(), 0);
}

#[test]
fn one_budget_over_all_tensors_of_a_module() {
    let net = net::<f32>(&Device::flex());
    let weights = Weights::new(&net).unwrap();
    let views = weights.views::<f32>();
    assert_eq!((views.len(), weights.copies()), (3, 0));
    let scores: Vec<_> = views.values().map(|view| Scores::magnitude(view.as_slice())).collect();
    let mut kept: Vec<_> = views.values().map(|view| lapidary::Mask::keep_all(view.shape()).unwrap()).collect();
    Select::sparsity(0.9).unwrap().refine(&scores, &mut kept).unwrap();
    let mut masks = Masks::default();
    for (name, mask) in views.keys().zip(kept) {
        masks.insert(name, mask);
    }
    assert_eq!(masks.iter().map(|(_, mask)| mask.kept()).sum::<usize>(), 47); // of 473
}

/// Values inside and outside of the levels, and what goes through, against the slices.
fn fake<T: Number, Q: Quantizer<T> + Into<FakeQuantize> + Copy>(quantizer: Q) {
    let shape = [6, 8];
    let x: Vec<T> = numbers(48, 3);
    let upstream: Vec<T> = numbers(48, 4);
    let narrow: Vec<T> = x.iter().map(|x| <T as Element>::from_f64(0.6 * x.to_f64())).collect();
    let levels = quantizer.quantize(TensorRef::new(&narrow, &shape).unwrap()).unwrap();
    let (mut rounded, mut through) = (x.clone(), x.clone());
    let fake: FakeQuantize = quantizer.into();
    let view = |x| TensorRef::<T>::new(x, &shape).unwrap();
    fake.forward(view(&x), &levels, TensorMut::new(&mut rounded, &shape).unwrap()).unwrap();
    let gradient = TensorMut::new(&mut through, &shape).unwrap();
    fake.backward(view(&x), &levels, view(&upstream), gradient).unwrap();
    assert!(through.iter().any(|x| x.to_f64() == 0.0) && through.iter().any(|x| x.to_f64() != 0.0));

    let device = Device::flex().autodiff();
    let leaf = tensor(&x, shape, &device).require_grad();
    let y = fake_quantize(leaf.clone(), &fake, &levels).unwrap();
    let grads = (y.clone() * tensor(&upstream, shape, &device)).sum().backward();
    assert_eq!(bits(&values::<T, 2>(&y)), bits(&rounded));
    assert_eq!(bits(&values::<T, 2>(&leaf.grad(&grads).unwrap())), bits(&through));
    // Without autodiff, and of a tensor that lies in another order.
    let y = fake_quantize(leaf.inner(), &fake, &levels).unwrap();
    assert_eq!(bits(&values::<T, 2>(&y)), bits(&rounded));
    let turned: Vec<T> = (0..48).map(|i| x[i % 6 * 8 + i / 6]).collect();
    let y = fake_quantize(tensor(&turned, [8, 6], &device).transpose(), &fake, &levels).unwrap();
    assert_eq!(bits(&values::<T, 2>(&y)), bits(&rounded));
}

#[test]
fn fake_quantization_is_that_of_slices() {
    let (affine, symmetric) = (Affine::new(4).unwrap(), Symmetric::new(3).unwrap().per_group(4).unwrap());
    fake::<f32, _>(affine);
    fake::<f32, _>(symmetric);
    fake::<f64, _>(affine);
    fake::<f64, _>(symmetric);
    fake::<f16, _>(symmetric);
    fake::<bf16, _>(affine);
}

#[test]
fn modules_learn_with_rounded_weights() {
    let device = Device::flex().autodiff();
    let symmetric = Symmetric::new(4).unwrap();
    let quantizer = FakeQuantizer::symmetric(symmetric, |name, shape| shape.len() == 2 && name != "first.weight");
    let watch = quantizer.watch();
    let net = net::<f32>(&device).apply_reparameterization(quantizer);
    let [first, _, last] = starts::<f32>();
    assert_eq!(values::<f32, 2>(&net.first.weight.val()), first);
    let q = symmetric.quantize(TensorRef::new(&last, &[11, 5]).unwrap()).unwrap();
    assert_eq!(bits(&values::<f32, 2>(&net.rest[0].weight.val())), bits(&q.dequantize::<f32>()));
    assert_eq!(bits(&values::<f32, 2>(&net.rest[0].weight.base())), bits(&last));
    let grads = net.rest[0].weight.val().sum().backward();
    let gradient = net.rest[0].weight.base().grad(&grads).unwrap();
    assert_eq!(values::<f32, 2>(&gradient), [1.0; 55]);
    watch.check().unwrap();

    // What it was trained with is what is stored.
    let merged = net.clone().valid().materialize();
    let stored = Weights::new(&merged).unwrap();
    let again = symmetric.quantize(stored.get::<f32>("rest.0.weight").unwrap()).unwrap();
    assert_eq!(again.dequantize::<f32>(), q.dequantize::<f32>());
    // `Weights` of the module in training are the bases, by the same names.
    let bases = Weights::new(&net).unwrap();
    assert_eq!(bases.get::<f32>("rest.0.weight").unwrap().as_slice(), last);

    let mut spoilt = last;
    spoilt[3] = f32::INFINITY;
    let quantizer = FakeQuantizer::affine(Affine::new(4).unwrap(), is_matrix);
    let watch = quantizer.watch();
    let layer = Layer { weight: Param::from_tensor(tensor(&spoilt, [11, 5], &device)), bias: None };
    let layer = layer.apply_reparameterization(quantizer);
    assert_eq!(bits(&values::<f32, 2>(&layer.weight.val())), bits(&spoilt));
    let error = watch.take_error().unwrap();
    assert_eq!((error.kind(), error.tensor(), error.index()), (ErrorKind::NonFinite, Some("weight"), Some(3)));
}

fn there_and_back<T: Number>()
where
    Symmetric: Quantizer<T>,
{
    let mut net = net::<T>(&Device::flex().autodiff());
    let ids = burn_core::module::list_param_ids(&net);
    let quantizer = Symmetric::new(8).unwrap().per_group(5).unwrap();
    let quantized: BTreeMap<String, QTensor> = {
        let weights = Weights::new(&net).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["first.bias", "first.weight", "rest.0.weight"]);
        weights.views::<T>().into_iter().map(|(name, view)| (name, quantizer.quantize(view).unwrap())).collect()
    };
    let decoded: BTreeMap<_, Vec<T>> = quantized.iter().map(|(name, q)| (name, q.dequantize())).collect();
    let tensors: BTreeMap<_, _> =
        quantized.iter().map(|(name, q)| (name.as_str(), TensorRef::new(&decoded[name], q.shape()).unwrap())).collect();
    load(&mut net, &tensors).unwrap();
    for ((name, shape), (start, found)) in SHAPES.iter().zip(starts::<T>().iter().zip(weights::<T>(&net))) {
        let q = quantizer.quantize(TensorRef::new(start, shape).unwrap()).unwrap();
        assert_eq!(bits(&found), bits(&q.dequantize::<T>()), "{name}");
    }
    assert_eq!(burn_core::module::list_param_ids(&net), ids);
    assert!(net.first.weight.val().is_require_grad());
}

#[test]
fn weights_go_out_and_come_back() {
    there_and_back::<f32>();
    there_and_back::<f64>();
    there_and_back::<f16>();
    there_and_back::<bf16>();
}

#[test]
fn weights_that_do_not_fit_change_nothing() {
    let mut net = net::<f32>(&Device::flex());
    let before = weights::<f32>(&net);
    let (w, wide) = (vec![0f32; 55], vec![0f64; 55]);
    let mut refused = |name: &str, shape: &[usize]| {
        let fits = TensorRef::new(&before[1], &[11]).unwrap();
        let tensors = BTreeMap::from([("first.bias", fits), (name, TensorRef::new(&w, shape).unwrap())]);
        let error = load(&mut net, &tensors).unwrap_err();
        assert_eq!(weights::<f32>(&net), before);
        error.kind()
    };
    assert_eq!(refused("rest.0.weight", &[5, 11]), ErrorKind::Shape);
    assert_eq!(refused("rest.0.bias", &[55]), ErrorKind::Argument);
    let tensors = BTreeMap::from([("rest.0.weight", TensorRef::new(&wide, &[11, 5]).unwrap())]);
    assert_eq!(load(&mut net, &tensors).unwrap_err().kind(), ErrorKind::Argument);
    let tensors = BTreeMap::from([("rest.0.weight", TensorRef::new(&w, &[55]).unwrap())]);
    assert_eq!(load_slim(&mut net, &tensors).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(weights::<f32>(&net), before);
    let stored = Weights::new(&net).unwrap();
    assert_eq!(stored.get::<f64>("rest.0.weight").unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(stored.get::<f32>("rest").unwrap_err().kind(), ErrorKind::Argument);
    assert!(stored.views::<f64>().is_empty());
}

fn forward(net: &Net, x: Tensor<2>) -> Tensor<2> {
    let bias = net.first.bias.as_ref().unwrap().val().unsqueeze();
    let hidden = burn_core::tensor::activation::relu(x.matmul(net.first.weight.val()) + bias);
    hidden.matmul(net.rest[0].weight.val())
}

#[test]
fn modules_are_slimmed() {
    let mut net = net::<f32>(&Device::flex());
    let slim = {
        let weights = Weights::new(&net).unwrap();
        let views = weights.views::<f32>();
        let shapes = views.iter().map(|(name, view)| (name.as_str(), view.shape()));
        let mut model = Topology::builder(shapes).unwrap();
        let x = model.add("x", Input::new(&[37], 0), []).unwrap();
        let first = Dense::new("first.weight").with_bias("first.bias").with_inputs_first();
        let x = model.add("first", first, [x]).unwrap();
        let x = model.add("relu", Activation::Relu, [x]).unwrap();
        let x = model.add("rest", Dense::new("rest.0.weight").with_inputs_first(), [x]).unwrap();
        model.output(x).unwrap();
        let topology = model.build().unwrap();
        let importance = Importance::of(&topology, &views).unwrap();
        let plan = Plan::new(&topology, &views, &importance, &Keep::ratio(0.5).unwrap()).unwrap();
        let masked = plan.masked(&views).unwrap();
        (plan.apply(&views).unwrap(), masked)
    };
    let x: Tensor<2> = tensor(&numbers::<f32>(4 * 37, 9), [4, 37], &Device::flex());
    let mut masked = net.clone();
    load(&mut masked, &slim::views(&slim.1)).unwrap();
    // What the channels that went had as constants is a bias, for which this module has no place.
    let mut cut = slim.0.weights();
    let folded = cut.remove("rest.bias").unwrap();
    let folded: Tensor<2> = tensor(folded.as_slice(), [1, 5], &Device::flex());
    load_slim(&mut net, &cut).unwrap();
    assert_eq!(net.first.weight.val().dims(), [37, 6]);
    let (small, large) = (forward(&net, x.clone()) + folded, forward(&masked, x));
    let pairs = values::<f32, 2>(&small).into_iter().zip(values::<f32, 2>(&large));
    pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} and {b}"));
}

#[cfg(feature = "safetensors")]
#[test]
fn weights_go_through_a_safetensors_file() {
    use lapidary::format::{
        file::{self, ElementType, TensorInfo},
        safetensors,
    };
    let mut net = net::<f32>(&Device::flex());
    let path = std::env::temp_dir().join(format!("lapidary-burn-{}.safetensors", std::process::id()));
    {
        let weights = Weights::new(&net).unwrap();
        let views = weights.views::<f32>();
        let info = |(name, view): (&String, &TensorRef<'_, f32>)| TensorInfo {
            name: name.clone(),
            element: ElementType::F32,
            shape: view.shape().to_vec(),
        };
        let infos: Vec<_> = views.iter().map(info).collect();
        let file = safetensors::layout(&infos, &BTreeMap::new()).unwrap().create(&path).unwrap();
        for (i, view) in views.values().enumerate() {
            let halved = view.as_slice().iter().flat_map(|x| (x / 2.0).to_le_bytes());
            file.write(i, 0, &halved.collect::<Vec<_>>()).unwrap();
        }
        file.finish().unwrap();
    }
    let read = file::open(&path).unwrap();
    let values: Vec<_> = (0..3).map(|i| (&read.tensors()[i], read.to_f32(i).unwrap())).collect();
    let tensors: BTreeMap<_, _> = values
        .iter()
        .map(|(info, values)| (info.name.as_str(), TensorRef::new(values, &info.shape).unwrap()))
        .collect();
    load(&mut net, &tensors).unwrap();
    let halves = starts::<f32>().map(|start| start.iter().map(|x| x / 2.0).collect::<Vec<_>>());
    assert_eq!(weights::<f32>(&net), halves);
    drop(read);
    std::fs::remove_file(path).unwrap();
}
