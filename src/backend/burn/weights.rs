//! A module's parameters as this crate's tensors, and back.

use super::{
    host::{self, FlexTensor, Number, Role, by_type},
    names::{Path, follow_path},
    unknown,
};
use crate::{
    error::{Error, Result},
    tensor::TensorRef,
};
use burn_core::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
};

/// The float parameters of a module by name, to be quantized, slimmed or written.
///
/// Those in host memory (`flex`) are shared with the module, not copied: a step of an optimizer copies a parameter first while this
/// lives. A parameter is as burn stores it: of a reparameterized one the base, and what is attached by names of its own. burn's
/// `Linear` keeps its weight as `[inputs, outputs]`: [`Dense::with_inputs_first`](crate::slim::Dense::with_inputs_first).
///
/// ```
/// use burn_core::{self as burn, module::{Module, Param}, tensor::{Device, Tensor}};
/// use lapidary::{QuantizerExt, TensorRef, backend::burn::{Weights, load}, quant::Symmetric};
/// use std::collections::BTreeMap;
///
/// #[derive(Module, Debug)]
/// struct Model { weight: Param<Tensor<2>> }
/// let weight = Tensor::from_floats([[0.75, -0.3], [0.1, 0.4]], &Device::flex());
/// let mut model = Model { weight: Param::from_tensor(weight) };
///
/// let q = Symmetric::new(3)?.quantize(Weights::new(&model)?.get::<f32>("weight")?)?;
/// let rounded: Vec<f32> = q.dequantize();
/// load(&mut model, &BTreeMap::from([("weight", TensorRef::new(&rounded, q.shape())?)]))?;
/// assert_eq!(model.weight.val().into_data().as_slice::<f32>().unwrap(), [0.75, -0.25, 0.0, 0.5]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: BTreeMap<String, FlexTensor>,
    copies: usize,
}

impl Weights {
    /// Those of a module in host memory.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for one of another device, or that is quantized by burn.
    pub fn new<M: Module>(module: &M) -> Result<Self> {
        Self::of(module, false)
    }

    /// Those of a module on any device, copied to host memory.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for one that is quantized by burn; [`Runtime`](crate::ErrorKind::Runtime) when
    /// reading from the device fails.
    pub fn from_device<M: Module>(module: &M) -> Result<Self> {
        Self::of(module, true)
    }

    fn of<M: Module>(module: &M, fetch: bool) -> Result<Self> {
        let found = Self { tensors: BTreeMap::new(), copies: 0 };
        let mut visitor = Read { path: Path::default(), fetch, found, result: Ok(()) };
        module.visit(&mut visitor);
        visitor.result.map(|()| visitor.found)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A parameter.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown name, or another type than the parameter's.
    pub fn get<T: Number>(&self, name: &str) -> Result<TensorRef<'_, T>> {
        host::read(self.find(name)?, "parameter").map_err(|error| error.in_tensor(name))
    }

    /// All parameters of a type, by name: what [`slim`](crate::slim) takes, and safetensors files are written from.
    #[must_use]
    pub fn views<T: Number>(&self) -> BTreeMap<String, TensorRef<'_, T>> {
        let view = |(name, tensor)| Some((String::clone(name), host::read(tensor, "parameter").ok()?));
        self.tensors.iter().filter_map(view).collect()
    }

    /// How many parameters had to be copied: from another device, or into logical order.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.copies
    }

    fn find(&self, name: &str) -> Result<&FlexTensor> {
        self.tensors.get(name).ok_or_else(|| unknown(name))
    }
}

struct Read {
    path: Path,
    fetch: bool,
    found: Weights,
    result: Result<()>,
}

impl Read {
    fn one<const D: usize>(&mut self, name: &str, tensor: &Tensor<D>) -> Result<()> {
        let (flex, copied) = match host::view(tensor) {
            Ok(flex) => host::in_order(flex),
            Err(_) if self.fetch && tensor.dtype().is_float() => {
                let data = tensor.try_to_data().map_err(|error| Error::runtime("reading from the device", error))?;
                (FlexTensor::from_data(data), true)
            }
            Err(error) => return Err(error),
        };
        by_type!(flex.dtype(), T => host::read::<T>(&flex, "parameter").map(|_| ()))?;
        self.found.copies += usize::from(copied);
        self.found.tensors.insert(name.into(), flex);
        Ok(())
    }
}

impl ModuleVisitor for Read {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_ok() {
            let name = self.path.name();
            self.result = self.one(&name, &param.base()).map_err(|error| error.in_tensor(&name));
        }
    }
}

/// Puts tensors in the place of the parameters of their names, on the parameters' devices. Parameters that are not named stay;
/// those that are keep their identity and that they need gradients.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for a name that the module has not, or another type than the parameter's;
/// [`Shape`](crate::ErrorKind::Shape) for another shape. The module is then as it was.
pub fn load<M: Module, T: Number, K: Borrow<str> + Ord>(
    module: &mut M,
    tensors: &BTreeMap<K, TensorRef<'_, T>>,
) -> Result<()> {
    put(module, tensors, true)
}

/// As [`load`], for tensors of other shapes, but as many axes: of a slimmed model. What else a module keeps of its sizes, burn's
/// `Conv2d` its channels, is the caller's to change; so are an optimizer's state, which fits no more, and a bias that slimming made
/// where the module has none.
///
/// # Errors
/// As [`load`]; [`Shape`](crate::ErrorKind::Shape) for another number of axes.
pub fn load_slim<M: Module, T: Number, K: Borrow<str> + Ord>(
    module: &mut M,
    tensors: &BTreeMap<K, TensorRef<'_, T>>,
) -> Result<()> {
    put(module, tensors, false)
}

fn put<M: Module, T: Number, K: Borrow<str> + Ord>(
    module: &mut M,
    tensors: &BTreeMap<K, TensorRef<'_, T>>,
    same_shape: bool,
) -> Result<()> {
    let left = tensors.keys().map(Borrow::borrow).collect();
    let mut mapper = Write { path: Path::default(), tensors, same_shape, left, result: Ok(()) };
    let loaded = module.clone().map(&mut mapper);
    mapper.result?;
    if let Some(name) = mapper.left.first() {
        return Err(unknown(name));
    }
    *module = loaded;
    Ok(())
}

struct Write<'a, T: Number, K> {
    path: Path,
    tensors: &'a BTreeMap<K, TensorRef<'a, T>>,
    same_shape: bool,
    left: BTreeSet<&'a str>,
    result: Result<()>,
}

impl<T: Number, K: Borrow<str> + Ord> Write<'_, T, K> {
    fn check<const D: usize>(&self, old: &Tensor<D>, new: &TensorRef<'_, T>) -> Result<()> {
        let (shape, dtype) = (old.shape(), <T as burn_core::tensor::Element>::dtype());
        if old.dtype() != dtype {
            return Err(Error::argument("tensor's type", format!("{:?}", T::DTYPE), "that of the parameter"));
        }
        if new.shape().len() != D || self.same_shape && new.shape() != shape.as_slice() {
            return Err(Error::shape("tensor", shape.as_slice(), new.shape()));
        }
        Ok(())
    }
}

impl<T: Number, K: Borrow<str> + Ord> ModuleMapper for Write<'_, T, K> {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        self.left.remove(name.as_str());
        let Some(new) = self.tensors.get(name.as_str()).filter(|_| self.result.is_ok()) else { return param };
        let id = param.id;
        param.map(|old| {
            if let Err(error) = self.check(&old, new) {
                self.result = Err(error.in_tensor(&name));
                return old;
            }
            let data = TensorData::new(new.as_slice().to_vec(), new.shape().to_vec());
            let (device, dtype) = (old.device().inner(), old.dtype());
            Role::of(&old).put_on(Tensor::from_data(data, (&device, dtype)), id)
        })
    }
}
