//! Pruning masks of a module.

use super::{
    host::{self, Number, Owned, Role, by_type},
    names::{Path, follow_path},
    ops::pruned_by,
    unknown,
};
use crate::{
    error::{Error, Result},
    tensor::{Mask, TensorMut},
    traits::Pruner,
};
use burn_core::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::Tensor,
};
use half::{bf16, f16};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A pruner of tensors of every element type: each of this crate's is one.
pub trait AnyPruner: Pruner<f32> + Pruner<f64> + Pruner<f16> + Pruner<bf16> {}

impl<P: Pruner<f32> + Pruner<f64> + Pruner<f16> + Pruner<bf16>> AnyPruner for P {}

/// A mask for each parameter of a module that is pruned, by name.
///
/// An [`Adapter`](super::Adapter) keeps what they prune at 0 ([`Watch::set_masks`](super::Watch::set_masks)), and its state too; after
/// a step of burn's own optimizers [`apply`](Masks::apply) does, but not to their state.
///
/// Over many tensors at once: [`Weights`](super::Weights) gives them to [`Select::refine`](crate::prune::Select::refine), and
/// [`insert`](Masks::insert) takes the masks.
///
/// ```
/// use burn_core::{self as burn, module::{Module, Param}, tensor::{Device, Tensor}};
/// use lapidary::{backend::burn::Masks, prune::Magnitude};
///
/// #[derive(Module, Debug)]
/// struct Model { weight: Param<Tensor<2>> }
/// let weight = Tensor::from_floats([[0.5, -0.01], [0.02, -1.0]], &Device::flex());
/// let mut model = Model { weight: Param::from_tensor(weight) };
///
/// let masks = Masks::new(&model, &Magnitude::sparsity(0.5)?, |_, shape| shape.len() == 2)?;
/// masks.apply(&mut model)?;
/// assert_eq!(model.weight.val().into_data().as_slice::<f32>().unwrap(), [0.5, 0.0, 0.0, -1.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Masks {
    masks: BTreeMap<String, Arc<Mask>>,
}

impl Masks {
    /// What survives of each parameter that `choose` names, by name and shape. Parameters in host memory (`flex`) only.
    ///
    /// # Errors
    /// Those of the pruner; [`Argument`](crate::ErrorKind::Argument) for a tensor of another device, or that is quantized by burn.
    pub fn new<M: Module>(
        module: &M,
        pruner: &impl AnyPruner,
        choose: impl FnMut(&str, &[usize]) -> bool,
    ) -> Result<Self> {
        let mut masks = Self::default();
        masks.refine(module, pruner, choose)?;
        Ok(masks)
    }

    /// Prunes further: of what the masks keep, what does not survive is dropped. A parameter without a mask gets one.
    ///
    /// # Errors
    /// As [`new`](Masks::new). The masks are then as they were.
    pub fn refine<M: Module>(
        &mut self,
        module: &M,
        pruner: &impl AnyPruner,
        choose: impl FnMut(&str, &[usize]) -> bool,
    ) -> Result<()> {
        let mut visitor = Refine { path: Path::default(), masks: self.masks.clone(), pruner, choose, result: Ok(()) };
        module.visit(&mut visitor);
        visitor.result?;
        self.masks = visitor.masks;
        Ok(())
    }

    /// Gives a parameter a mask.
    pub fn insert(&mut self, name: impl Into<String>, mask: Mask) {
        self.masks.insert(name.into(), Arc::new(mask));
    }

    /// The mask of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Mask> {
        self.masks.get(name).map(|mask| &**mask)
    }

    /// All names and masks, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Mask)> {
        self.masks.iter().map(|(name, mask)| (name.as_str(), &**mask))
    }

    pub(super) fn shared(&self) -> &BTreeMap<String, Arc<Mask>> {
        &self.masks
    }

    /// Sets the pruned elements of a module's parameters to 0, on any device, by selecting: also a NaN becomes 0. Parameters keep
    /// their names, their gradients and their state in optimizers; each pruned one is copied once.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a name that the module has not, or a tensor quantized by burn;
    /// [`Shape`](crate::ErrorKind::Shape) for a mask of another shape. The module is then as it was.
    pub fn apply<M: Module>(&self, module: &mut M) -> Result<()> {
        let left = self.masks.keys().map(String::as_str).collect();
        let mut mapper = Apply { path: Path::default(), masks: &self.masks, left, result: Ok(()) };
        let pruned = module.clone().map(&mut mapper);
        mapper.result?;
        if let Some(name) = mapper.left.first() {
            return Err(unknown(name));
        }
        *module = pruned;
        Ok(())
    }
}

struct Refine<'a, P, C> {
    path: Path,
    masks: BTreeMap<String, Arc<Mask>>,
    pruner: &'a P,
    choose: C,
    result: Result<()>,
}

impl<P: AnyPruner, C: FnMut(&str, &[usize]) -> bool> Refine<'_, P, C> {
    fn one<const D: usize>(&mut self, name: &str, tensor: &Tensor<D>) -> Result<()> {
        let (flex, _) = host::in_order(host::view(tensor)?);
        let mut mask = match self.masks.get(name) {
            Some(mask) => Mask::clone(mask),
            None => Mask::keep_all(flex.layout().shape().as_slice())?,
        };
        by_type!(flex.dtype(), T => self.pruner.refine(host::read::<T>(&flex, "parameter")?, &mut mask))?;
        self.masks.insert(name.into(), Arc::new(mask));
        Ok(())
    }
}

impl<P: AnyPruner, C: FnMut(&str, &[usize]) -> bool> ModuleVisitor for Refine<'_, P, C> {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if self.result.is_ok() && (self.choose)(&name, param.lazy_shape().as_slice()) {
            self.result = self.one(&name, &param.base()).map_err(|error| error.in_tensor(&name));
        }
    }
}

struct Apply<'a> {
    path: Path,
    masks: &'a BTreeMap<String, Arc<Mask>>,
    left: BTreeSet<&'a str>,
    result: Result<()>,
}

impl ModuleMapper for Apply<'_> {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        self.left.remove(name.as_str());
        let Some(mask) = self.masks.get(&name).filter(|_| self.result.is_ok()) else { return param };
        let id = param.id;
        param.map(|tensor| {
            let (role, inner) = (Role::of(&tensor), tensor.clone().inner());
            match prune(inner, mask) {
                Ok(pruned) => role.put_on(pruned, id),
                Err(error) => {
                    self.result = Err(error.in_tensor(&name));
                    tensor
                }
            }
        })
    }
}

fn prune<const D: usize>(tensor: Tensor<D>, mask: &Mask) -> Result<Tensor<D>> {
    mask.check(tensor.shape().as_slice())?;
    match host::into_flex(tensor) {
        Ok(flex) => {
            let mut owned = Owned::new(flex);
            by_type!(owned.dtype(), T => apply::<T>(&mut owned, mask))?;
            Ok(host::from_flex(owned.finish().0))
        }
        Err(tensor) if tensor.dtype().is_float() => {
            let pruned = pruned_by(mask, &tensor);
            Ok(tensor.mask_fill(pruned, 0.0))
        }
        Err(tensor) => Err(host::unknown_type(tensor.dtype())),
    }
}

fn apply<T: Number>(owned: &mut Owned, mask: &Mask) -> Result<(), Error> {
    owned.change::<T>(|shape, values| mask.apply(TensorMut::new(values, shape)?))
}
