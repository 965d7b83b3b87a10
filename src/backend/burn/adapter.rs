//! An optimizer of this crate as one of burn's.

use super::{
    host::{self, FlexTensor, Number, Owned, by_type},
    memory::Memory,
    names::names,
    ops::{self, Operations},
    watch::{Copies, Watch},
};
use crate::{
    error::{Error, Result},
    tensor::{Mask, TensorMut},
    traits::{Optimizer, Step},
};
use burn_core::{
    module::{Module, ParamGroup},
    tensor::{DType, Device, Tensor},
};
use burn_optim::{ModuleOptimizer, grad_clipping::GradientClippingConfig};
use half::{bf16, f16};
use std::{any::Any, sync::Arc};

/// An optimizer for parameters of every element type: each of this crate's is one.
pub trait AnyOptimizer: Optimizer<f32> + Optimizer<f64> + Optimizer<f16> + Optimizer<bf16> + Clone + 'static {}

impl<O> AnyOptimizer for O where O: Optimizer<f32> + Optimizer<f64> + Optimizer<f16> + Optimizer<bf16> + Clone + 'static {}

/// Where a step is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Route {
    /// In host memory by this crate's kernels where the tensors are there (`flex`), else by burn's operations. Never copies to the
    /// host.
    #[default]
    Auto,
    /// By burn's operations, also in host memory.
    Operations,
    /// In host memory by this crate's kernels; tensors of another device are copied there and back.
    Host,
}

/// An optimizer of this crate, for [`ModuleOptimizer`]: steps, schedules, groups and records are burn's, the arithmetic is this crate's.
///
/// The learning rate is the one given to each of burn's steps; that of the optimizer itself is not used. burn's gradient
/// accumulation comes before, and its clipping by [`with_grad_clipping`](Adapter::with_grad_clipping): `ModuleOptimizer`'s own method of
/// this name knows the first group alone, and here each parameter is one. [`for_module`](Adapter::for_module) knows the parameters' names, which errors and masks need.
///
/// ```
/// use burn_core::{self as burn, module::{Module, Param}, tensor::{Device, Tensor}};
/// use burn_optim::GradientsParams;
/// use lapidary::{backend::burn::Adapter, optim::AdamW};
///
/// #[derive(Module, Debug)]
/// struct Model { weight: Param<Tensor<2>> }
///
/// let device = Device::flex().autodiff();
/// let mut model = Model { weight: Param::from_tensor(Tensor::ones([2, 2], &device)) };
/// let (mut optimizer, watch) = Adapter::new(AdamW::new(1e-3)?).for_module(&model);
/// for _ in 0..3 {
///     let loss = model.weight.val().powi_scalar(2).sum();
///     let gradients = GradientsParams::from_grads(loss.backward(), &model);
///     model = optimizer.step(0.1, model, gradients);
///     watch.check()?;
/// }
/// assert_eq!((watch.copies().steps, watch.copies().parameters), (3, 0)); // in place
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Adapter<O> {
    optimizer: O,
    route: Route,
    check_finite: bool,
    clipping: Option<GradientClippingConfig>,
    name: Option<Arc<str>>,
    watch: Watch,
}

impl<O: AnyOptimizer> Adapter<O> {
    /// With a [`Watch`] of its own.
    pub fn new(optimizer: O) -> Self {
        let (route, watch) = (Route::default(), Watch::new());
        Self { optimizer, route, check_finite: false, clipping: None, name: None, watch }
    }

    /// Chooses where steps are computed.
    #[must_use]
    pub fn with_route(self, route: Route) -> Self {
        Self { route, ..self }
    }

    /// Has burn clip each parameter's gradient, by value or by that gradient's norm, before its step.
    #[must_use]
    pub fn with_grad_clipping(self, clipping: GradientClippingConfig) -> Self {
        Self { clipping: Some(clipping), ..self }
    }

    /// Refuses a gradient that holds a NaN or an infinity: one more read of it. By burn's operations that waits for the device, and
    /// the error is [`Argument`](crate::ErrorKind::Argument), without the place that [`NonFinite`](crate::ErrorKind::NonFinite) has.
    #[must_use]
    pub fn check_finite(self) -> Self {
        Self { check_finite: true, ..self }
    }

    /// The handle on errors, copies and masks. Clones of this adapter share it: one for each module, since parameters go by name.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// burn's optimizer for the parameters of a module, each known by its name, and the handle on it.
    pub fn for_module<M: Module>(self, module: &M) -> (ModuleOptimizer, Watch) {
        self.for_module_by(module, |_, _| None)
    }

    /// As [`for_module`](Adapter::for_module), where `choose` may give a parameter, by name and shape, another optimizer of the same
    /// type: one without weight decay for biases.
    pub fn for_module_by<M: Module>(
        self,
        module: &M,
        mut choose: impl FnMut(&str, &[usize]) -> Option<O>,
    ) -> (ModuleOptimizer, Watch) {
        let (names, watch) = (names(module), self.watch());
        watch.add(&names);
        let clipping = || self.clipping.as_ref().map(GradientClippingConfig::init);
        let mut all = ModuleOptimizer::from(self.clone());
        if let Some(clipping) = clipping() {
            all = all.with_grad_clipping(clipping);
        }
        for (name, shape) in names {
            let mut own = Self { name: Some(name.as_str().into()), ..self.clone() };
            if let Some(optimizer) = choose(&name, &shape) {
                own.optimizer = optimizer;
            }
            all = all.with_group(ParamGroup::from_path(name), own, clipping());
        }
        (all, watch)
    }

    fn run<const D: usize>(
        &self,
        rate: f64,
        param: Tensor<D>,
        grad: Tensor<D>,
        memory: &mut Option<Memory<D>>,
    ) -> (Tensor<D>, Result<()>) {
        let mut optimizer = self.optimizer.clone();
        let mask = optimizer.set_learning_rate(rate).and_then(|()| self.watch.mask(self.name.as_deref()));
        let mask = match mask {
            Ok(mask) => mask,
            Err(error) => return (param, Err(error)),
        };
        let step = InMemory { optimizer: &optimizer, mask: mask.as_deref(), check_finite: self.check_finite };
        let device = param.device();
        let on_host = host::is_host(&device);
        match self.route {
            Route::Auto | Route::Host if on_host => self.on_host(&step, param, grad, memory),
            Route::Host => self.fetched(&step, &device, param, grad, memory),
            Route::Auto | Route::Operations => self.by_operations(&optimizer, param, grad, memory, mask.as_ref()),
        }
    }

    fn on_host<const D: usize>(
        &self,
        step: &InMemory<'_, O>,
        param: Tensor<D>,
        grad: Tensor<D>,
        memory: &mut Option<Memory<D>>,
    ) -> (Tensor<D>, Result<()>) {
        let (grad, param) = match (host::into_flex(grad), host::into_flex(param)) {
            (Ok(grad), Ok(param)) => (grad, param),
            (Err(grad), Ok(param)) => return (host::from_flex(param), Err(host::refused(&grad))),
            (_, Err(param)) => {
                let error = host::refused(&param);
                return (*param, Err(error));
            }
        };
        let (param, result) = step.run(param, grad, memory);
        let result = result.map(|copied| {
            self.watch.count(|copies| *copies = copied.added_to(*copies));
        });
        (host::from_flex(param), result)
    }

    fn fetched<const D: usize>(
        &self,
        step: &InMemory<'_, O>,
        device: &Device,
        param: Tensor<D>,
        grad: Tensor<D>,
        memory: &mut Option<Memory<D>>,
    ) -> (Tensor<D>, Result<()>) {
        let data = param.try_to_data().and_then(|param| Ok((param, grad.try_into_data()?)));
        let (data, grad) = match data {
            Ok(data) => data,
            Err(error) => return (param, Err(Error::runtime("reading from the device", error))),
        };
        let dtype = param.dtype();
        let (moved, result) = step.run(FlexTensor::from_data(data), FlexTensor::from_data(grad), memory);
        if let Err(error) = result {
            return (param, Err(error));
        }
        self.watch.count(|copies| {
            copies.steps += 1;
            copies.from_device += 2;
        });
        (Tensor::from_data(moved.into_data(), (device, dtype)), Ok(()))
    }

    fn by_operations<const D: usize>(
        &self,
        optimizer: &O,
        param: Tensor<D>,
        grad: Tensor<D>,
        memory: &mut Option<Memory<D>>,
        mask: Option<&Arc<Mask>>,
    ) -> (Tensor<D>, Result<()>) {
        let ready = self.ready(optimizer, &param, &grad, mask).and_then(|(operations, schema)| {
            let (shape, device, dtype) = (param.shape(), param.device(), DType::from(ops::real(param.dtype())));
            let fresh = || Tensor::zeros(shape.clone(), (&device, dtype));
            let state = Memory::take_device(memory, &schema, (&shape, dtype), fresh)?;
            Ok((operations, state))
        });
        match ready {
            Ok((operations, mut state)) => {
                let param = operations.step(param, grad, &mut state, mask);
                *memory = Some(Memory::device(state));
                self.watch.count(|copies| {
                    copies.steps += 1;
                    copies.by_operations += 1;
                });
                (param, Ok(()))
            }
            Err(error) => (param, Err(error)),
        }
    }

    fn ready<const D: usize>(
        &self,
        optimizer: &O,
        param: &Tensor<D>,
        grad: &Tensor<D>,
        mask: Option<&Arc<Mask>>,
    ) -> Result<(Operations, crate::Schema)> {
        let shape = param.shape();
        let schema = Optimizer::<f32>::schema(optimizer, shape.as_slice());
        let operations = ops::of(optimizer as &dyn Any, schema.algorithm())?;
        host::check_type(param.dtype())?;
        if grad.dtype() != param.dtype() {
            return Err(Error::argument("gradient's type", format!("{:?}", grad.dtype()), "that of the parameter"));
        }
        if grad.shape() != shape {
            return Err(Error::shape("gradient", shape.as_slice(), grad.shape().as_slice()));
        }
        mask.map_or(Ok(()), |mask| mask.check(shape.as_slice()))?;
        if self.check_finite {
            let all = grad.clone().is_finite().all().try_into_scalar::<bool>();
            if !all.map_err(|error| Error::runtime("reading from the device", error))? {
                return Err(Error::argument("gradient", "not finite somewhere", "finite"));
            }
        }
        Ok((operations, schema))
    }
}

impl<O: AnyOptimizer> burn_optim::Optimizer for Adapter<O> {
    type State<const D: usize> = Memory<D>;

    /// A step that is refused gives parameter and state back as they were, and keeps the error in the [`Watch`].
    fn step<const D: usize>(
        &self,
        learning_rate: f64,
        param: Tensor<D>,
        grad: Tensor<D>,
        mut state: Option<Memory<D>>,
    ) -> (Tensor<D>, Option<Memory<D>>) {
        if self.watch.has_error() {
            return (param, state);
        }
        let (param, result) = self.run(learning_rate, param, grad, &mut state);
        if let Err(error) = result {
            self.watch.keep(match &self.name {
                Some(name) => error.in_tensor(name),
                None => error,
            });
        }
        (param, state)
    }

    fn to_device<const D: usize>(state: Memory<D>, device: &Device) -> Memory<D> {
        state.moved(device)
    }
}

/// A step by this crate's kernels.
struct InMemory<'a, O> {
    optimizer: &'a O,
    mask: Option<&'a Mask>,
    check_finite: bool,
}

/// Whether parameter and gradient were copied.
struct Copied {
    param: bool,
    grad: bool,
}

impl Copied {
    fn added_to(&self, mut copies: Copies) -> Copies {
        copies.steps += 1;
        copies.parameters += u64::from(self.param);
        copies.gradients += u64::from(self.grad);
        copies
    }
}

impl<O: AnyOptimizer> InMemory<'_, O> {
    fn run<const D: usize>(
        &self,
        param: FlexTensor,
        grad: FlexTensor,
        memory: &mut Option<Memory<D>>,
    ) -> (FlexTensor, Result<Copied>) {
        let (grad, copied) = host::in_order(grad);
        let mut owned = Owned::new(param);
        let result = by_type!(owned.dtype(), T => self.step::<T, D>(&mut owned, &grad, memory));
        let (param, moved) = owned.finish();
        (param, result.map(|()| Copied { param: moved, grad: copied }))
    }

    fn step<T: Number, const D: usize>(
        &self,
        param: &mut Owned,
        grad: &FlexTensor,
        memory: &mut Option<Memory<D>>,
    ) -> Result<()>
    where
        O: Optimizer<T>,
    {
        let grad = host::read::<T>(grad, "gradient")?;
        param.change::<T>(|shape, values| {
            let mut state = Memory::take::<T>(memory, self.optimizer, shape)?;
            let mut step = Step::new(TensorMut::new(values, shape)?, grad, &mut state);
            if let Some(mask) = self.mask {
                step = step.mask(mask);
            }
            if self.check_finite {
                step = step.check_finite();
            }
            let result = self.optimizer.step(step);
            // A refused step left the state as it was; one that was fresh is not worth keeping, but no harm either.
            *memory = Some(Memory::host(state));
            result
        })
    }
}
