//! Fake quantization in burn's autodiff.

use super::{
    host::{self, FlexTensor, Number, by_type},
    watch::Watch,
};
use crate::{
    error::Result,
    quant::{Affine, FakeQuantize, Symmetric},
    tensor::{QTensor, TensorMut, TensorRef},
    traits::QuantizerExt,
};
use burn_core::{
    self as burn,
    module::{Module, Param, Reparameterization, Reparameterizer},
    tensor::{Bool, Tensor, TensorData},
};

/// Rounds a tensor to the levels of a quantized one; the gradient goes straight through, and is 0 where a value is outside of them.
/// Host memory (`flex`) only.
///
/// ```text
/// y = q(x) + (x - x.detach()) where x is inside, q(x) elsewhere
/// ```
///
/// `x - x.detach()` is exactly 0, so `y` and its gradient are bit for bit those of [`FakeQuantize`]. The levels are in the tensor's
/// element type.
///
/// ```
/// use burn_core::tensor::{Device, Tensor};
/// use lapidary::{QuantizerExt, backend::burn::fake_quantize, quant::Symmetric};
/// let symmetric = Symmetric::new(3)?;
/// let levels = symmetric.quantize(&[0.75f32; 5])?; // -0.75, -0.5 … 0.75
/// let x = Tensor::<1>::from_floats([-1.4, 0.0, 0.4, 0.74, 1.1], &Device::flex().autodiff()).require_grad();
/// let y = fake_quantize(x.clone(), &symmetric.into(), &levels)?;
/// let gradient = x.grad(&y.clone().sum().backward()).unwrap();
/// assert_eq!(y.into_data().as_slice::<f32>().unwrap(), [-0.75, 0.0, 0.5, 0.75, 0.75]);
/// assert_eq!(gradient.into_data().as_slice::<f32>().unwrap(), [0.0, 1.0, 1.0, 1.0, 0.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// As [`FakeQuantize::forward`]; [`Argument`](crate::ErrorKind::Argument) for a tensor that is not in host memory.
pub fn fake_quantize<const D: usize>(tensor: Tensor<D>, fake: &FakeQuantize, levels: &QTensor) -> Result<Tensor<D>> {
    let (flex, _) = host::in_order(host::view(&tensor)?);
    let (rounded, outside) = by_type!(flex.dtype(), T => round::<T>(&flex, fake, levels))?;
    let rounded = host::from_flex::<D>(FlexTensor::from_data(rounded));
    if !tensor.is_autodiff() {
        return Ok(rounded);
    }
    let outside = Tensor::<D, Bool>::from_data(outside, &tensor.device().inner());
    let nothing = tensor.clone().sub(tensor.detach()).mask_fill(outside, 0.0);
    Ok(nothing.add(rounded))
}

/// The levels, and which values lie outside.
fn round<T: Number>(flex: &FlexTensor, fake: &FakeQuantize, levels: &QTensor) -> Result<(TensorData, TensorData)> {
    let values = host::read::<T>(flex, "tensor")?;
    let shape = values.shape();
    let (mut rounded, mut through) = (vec![T::default(); values.len()], vec![T::default(); values.len()]);
    fake.forward(&values, levels, TensorMut::new(&mut rounded, shape)?)?;
    let ones = vec![crate::Element::from_f64(1.0); values.len()];
    let ones = TensorRef::new(&ones, shape)?;
    fake.backward(&values, levels, ones, TensorMut::new(&mut through, shape)?)?;
    let outside: Vec<bool> = through.iter().map(|x| *x == T::default()).collect();
    Ok((TensorData::new(rounded, shape.to_vec()), TensorData::new(outside, shape.to_vec())))
}

#[derive(Debug, Clone, Copy)]
enum Scheme {
    Affine(Affine),
    Symmetric(Symmetric),
}

/// Lets a module compute with weights rounded to what a quantizer makes of them, while it learns the weights themselves: for
/// burn's [`apply_reparameterization`](Module::apply_reparameterization).
///
/// Levels are fitted to the weights anew each time they are read. What the module learned with is what the quantizer makes of the
/// weights themselves, which [`Weights`](super::Weights) reads. burn's [`materialize`](Module::materialize) puts the rounded ones in
/// their place, whose range can be another.
///
/// ```
/// use burn_core::{self as burn, module::{Module, Param}, tensor::{Device, Tensor}};
/// use lapidary::{backend::burn::FakeQuantizer, quant::Symmetric};
/// #[derive(Module, Debug)]
/// struct Model { weight: Param<Tensor<2>> }
///
/// let weight = Tensor::from_floats([[0.75, -0.3], [0.1, 0.4]], &Device::flex().autodiff());
/// let model = Model { weight: Param::from_tensor(weight) };
/// let quantizer = FakeQuantizer::symmetric(Symmetric::new(3)?, |_, shape| shape.len() == 2);
/// let watch = quantizer.watch();
/// let model = model.apply_reparameterization(quantizer);
/// let rounded = model.weight.val().into_data();
/// watch.check()?;
/// assert_eq!(rounded.as_slice::<f32>().unwrap(), [0.75, -0.25, 0.0, 0.5]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug)]
pub struct FakeQuantizer<C> {
    scheme: Scheme,
    choose: C,
    watch: Watch,
}

impl<C: FnMut(&str, &[usize]) -> bool> FakeQuantizer<C> {
    /// By a scale and a zero point, the parameters that `choose` names, by name and shape.
    pub fn affine(quantizer: Affine, choose: C) -> Self {
        Self { scheme: Scheme::Affine(quantizer), choose, watch: Watch::new() }
    }

    /// As [`affine`](FakeQuantizer::affine), by a scale.
    pub fn symmetric(quantizer: Symmetric, choose: C) -> Self {
        Self { scheme: Scheme::Symmetric(quantizer), choose, watch: Watch::new() }
    }

    /// The handle on errors: burn's forward pass cannot fail, so weights that a quantizer refuses (a NaN, another device) are used
    /// as they are, and the error is kept.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

impl<C: FnMut(&str, &[usize]) -> bool> Reparameterizer for FakeQuantizer<C> {
    type Reparam = FakeWeights;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<FakeWeights>) {
        let chosen = (self.choose)(path, param.lazy_shape().as_slice());
        let fake = chosen.then(|| FakeWeights { scheme: self.scheme, watch: self.watch.clone(), name: path.into() });
        (param, fake)
    }
}

/// What [`FakeQuantizer`] attaches to a parameter.
#[derive(Module, Debug)]
pub struct FakeWeights {
    #[module(skip)]
    scheme: Scheme,
    #[module(skip)]
    watch: Watch,
    #[module(skip)]
    name: String,
}

impl Reparameterization for FakeWeights {
    const NAME: &'static str = "fake_quantize";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        match self.rounded(&base) {
            Ok(rounded) => rounded,
            Err(error) => {
                self.watch.keep(error.in_tensor(&self.name));
                base
            }
        }
    }
}

impl FakeWeights {
    fn rounded<const D: usize>(&self, base: &Tensor<D>) -> Result<Tensor<D>> {
        let (flex, _) = host::in_order(host::view(base)?);
        let (fake, levels) = by_type!(flex.dtype(), T => {
            let values = host::read::<T>(&flex, "weights")?;
            Ok(match self.scheme {
                Scheme::Affine(affine) => (affine.into(), affine.quantize(values)?),
                Scheme::Symmetric(symmetric) => (symmetric.into(), symmetric.quantize(values)?),
            })
        })?;
        drop(flex);
        fake_quantize(base.clone(), &fake, &levels)
    }
}
