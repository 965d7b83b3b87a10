//! Tensors of burn's CPU backend, `flex`, as slices.

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::TensorRef,
};
use burn_core::{
    backend::{
        BackendTensor, BackendTypes, DispatchAutodiffContext, DispatchDevice, DispatchTensor, DispatchTensorKind, Flex,
    },
    module::ParamId,
    tensor::{DType, Device, GradientCheckpointingStrategy, Tensor, TensorData},
};
use half::{bf16, f16};

/// Elements in host memory, of one tensor or shared by several.
pub(super) type FlexTensor = <Flex as BackendTypes>::FloatTensorPrimitive;

/// An element that burn and this crate both know: each of this crate's, `f32`, `f64`, `f16` and `bf16`.
pub trait Number: Element + burn_core::tensor::Element {
    /// The elements, when they are of this type and lie in logical order.
    #[doc(hidden)]
    fn of(tensor: &FlexTensor) -> Option<&[Self]>;
}

macro_rules! number {
    ($($t:ty)*) => {$(
        impl Number for $t {
            fn of(tensor: &FlexTensor) -> Option<&[Self]> {
                tensor.as_slice::<$t>()
            }
        }
    )*};
}
number!(f32 f64 f16 bf16);

/// Runs a block with `$T` the element type that a `DType` names; an error for others.
macro_rules! by_type {
    ($dtype:expr, $T:ident => $block:expr) => {
        match $dtype {
            burn_core::tensor::DType::F32 => {
                type $T = f32;
                $block
            }
            burn_core::tensor::DType::F64 => {
                type $T = f64;
                $block
            }
            burn_core::tensor::DType::F16 => {
                type $T = half::f16;
                $block
            }
            burn_core::tensor::DType::BF16 => {
                type $T = half::bf16;
                $block
            }
            other => Err($crate::backend::burn::host::unknown_type(other)),
        }
    };
}
pub(super) use by_type;

pub(super) fn unknown_type(dtype: DType) -> Error {
    Error::argument("tensor's type", format!("{dtype:?}"), "F32, F64, F16 or BF16")
}

pub(super) fn check_type(dtype: DType) -> Result<()> {
    let known = matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    if known { Ok(()) } else { Err(unknown_type(dtype)) }
}

pub(super) fn not_on_host(device: &Device) -> Error {
    Error::argument("device", format!("{device:?}"), "flex: this reads host memory")
}

/// Whether a device's tensors are in host memory that this crate reads: those of `flex`.
pub(super) fn is_host(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The elements of a tensor of `flex` that has no part in autodiff; another comes back.
pub(super) fn into_flex<const D: usize>(tensor: Tensor<D>) -> Result<FlexTensor, Box<Tensor<D>>> {
    match tensor.into_dispatch() {
        DispatchTensor {
            kind: DispatchTensorKind::Flex(BackendTensor::Float(flex)),
            autodiff: DispatchAutodiffContext::Disabled,
        } => Ok(flex),
        other => Err(Box::new(Tensor::from_dispatch(other))),
    }
}

/// The same elements, without autodiff; those of another backend are an error.
pub(super) fn view<const D: usize>(tensor: &Tensor<D>) -> Result<FlexTensor> {
    into_flex(tensor.clone().inner()).map_err(|tensor| refused(&tensor))
}

/// Why a tensor is none of [`into_flex`]'s.
pub(super) fn refused<const D: usize>(tensor: &Tensor<D>) -> Error {
    match tensor.dtype() {
        dtype @ DType::QFloat(_) => unknown_type(dtype),
        _ if tensor.is_autodiff() => Error::argument("tensor", "a part of autodiff's graph", "one without: `inner`"),
        _ => not_on_host(&tensor.device()),
    }
}

pub(super) fn from_flex<const D: usize>(flex: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(flex)
}

/// In logical order, and whether that took a copy.
pub(super) fn in_order(tensor: FlexTensor) -> (FlexTensor, bool) {
    if tensor.layout().contiguous_offsets().is_some() { (tensor, false) } else { (tensor.to_contiguous(), true) }
}

/// The elements as a tensor of this crate. Those of a type or an order other than expected are an error.
pub(super) fn read<'a, T: Number>(tensor: &'a FlexTensor, what: &'static str) -> Result<TensorRef<'a, T>> {
    let slice = T::of(tensor).ok_or_else(|| {
        let expected = "of the type asked for, and in logical order";
        Error::argument(what, format!("{:?}", tensor.dtype()), expected)
    })?;
    TensorRef::new(slice, tensor.layout().shape().as_slice())
}

/// The elements to change, in logical order, and whether they had to be copied: another tensor shares them, or they lay in another
/// order.
pub(super) struct Owned {
    data: TensorData,
    /// Where the elements were.
    before: usize,
}

impl Owned {
    pub(super) fn new(tensor: FlexTensor) -> Self {
        let before = tensor.bytes().as_ptr().addr();
        Self { data: tensor.into_data(), before }
    }

    pub(super) fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Calls `change` with shape and elements.
    pub(super) fn change<T: Number>(&mut self, change: impl FnOnce(&[usize], &mut [T]) -> Result<()>) -> Result<()> {
        let shape = self.data.shape().clone();
        let slice = self.data.as_mut_slice::<T>().map_err(|error| Error::runtime("tensor", error))?;
        change(shape.as_slice(), slice)
    }

    /// The tensor, and whether its elements were copied.
    pub(super) fn finish(self) -> (FlexTensor, bool) {
        let copied = self.data.num_elements() > 0 && self.data.as_bytes().as_ptr().addr() != self.before;
        (FlexTensor::from_data(self.data), copied)
    }
}

/// What a parameter is beside its elements, to be put on what replaces it; nothing of one without autodiff.
pub(super) struct Role(Option<Autodiff>);

struct Autodiff {
    requires_gradient: bool,
    distributed: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
}

impl Role {
    pub(super) fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self(tensor.is_autodiff().then(|| Autodiff {
            requires_gradient: tensor.is_require_grad(),
            distributed: tensor.is_distributed(),
            checkpointing: tensor.gradient_checkpointing_strategy(),
        }))
    }

    pub(super) fn put_on<const D: usize>(self, tensor: Tensor<D>, id: ParamId) -> Tensor<D> {
        let Some(Autodiff { requires_gradient, distributed, checkpointing }) = self.0 else { return tensor };
        let mut tensor = tensor.autodiff();
        if let Some(strategy) = checkpointing {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        if requires_gradient {
            tensor = tensor.require_grad();
        }
        if distributed { tensor.set_distributed(id) } else { tensor }
    }
}
