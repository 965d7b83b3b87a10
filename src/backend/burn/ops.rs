//! The optimizers that burn's own tensor operations can do, on any device.
//!
//! The formulas are those of [`crate::optim`], in the same order of execution; a device may fuse or approximate, so the numbers are
//! the same within the tolerance of docs/NUMERICS.md.

use super::memory::OnDevice;
use crate::{
    error::{Error, Result},
    optim::{Adam, AdamW, Convention, Sgd},
    tensor::Mask,
};
use burn_core::tensor::{Bool, DType, FloatDType, Tensor, TensorData};
use std::{any::Any, sync::Arc};

/// What an optimizer does, in scalars.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operations {
    Sgd(Sgd),
    Adam {
        learning_rate: f64,
        betas: (f64, f64),
        eps: f64,
        weight_decay: f64,
        /// The parameter is multiplied by this first.
        shrink: f64,
        amsgrad: bool,
        maximize: bool,
    },
}

/// Those of an optimizer, its rate set.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for one that has none.
pub(super) fn of(optimizer: &dyn Any, name: &str) -> Result<Operations> {
    use crate::traits::LearningRate;
    let found = if let Some(sgd) = optimizer.downcast_ref::<Sgd>() {
        (sgd.convention() == Convention::PyTorch).then_some(Operations::Sgd(*sgd))
    } else if let Some(adam) = optimizer.downcast_ref::<Adam>() {
        (adam.convention() == Convention::PyTorch).then(|| Operations::Adam {
            learning_rate: adam.learning_rate(),
            betas: adam.betas(),
            eps: adam.eps(),
            weight_decay: adam.weight_decay(),
            shrink: 1.0,
            amsgrad: adam.amsgrad(),
            maximize: adam.maximize(),
        })
    } else if let Some(adam) = optimizer.downcast_ref::<AdamW>() {
        (adam.convention() == Convention::PyTorch).then(|| Operations::Adam {
            learning_rate: adam.learning_rate(),
            betas: adam.betas(),
            eps: adam.eps(),
            weight_decay: 0.0,
            shrink: 1.0 - adam.learning_rate() * adam.weight_decay(),
            amsgrad: adam.amsgrad(),
            maximize: adam.maximize(),
        })
    } else {
        None
    };
    let allowed = "Sgd, Adam or AdamW by PyTorch's convention where tensors are not in host memory, or `Route::Host`, which copies";
    found.ok_or_else(|| Error::argument("optimizer", name, allowed))
}

/// The type that arithmetic on a parameter is done in, and its state kept in.
pub(super) fn real(dtype: DType) -> FloatDType {
    if dtype == DType::F64 { FloatDType::F64 } else { FloatDType::F32 }
}

impl Operations {
    /// Moves a parameter. `state` fits.
    pub(super) fn step<const D: usize>(
        self,
        param: Tensor<D>,
        grad: Tensor<D>,
        state: &mut OnDevice<D>,
        mask: Option<&Arc<Mask>>,
    ) -> Tensor<D> {
        let (dtype, wide): (FloatDType, _) = (param.dtype().into(), real(param.dtype()));
        let (param, grad) = (param.cast(wide), grad.cast(wide));
        state.steps += 1;
        let slots = std::mem::take(&mut state.slots);
        let (param, slots) = match self {
            Self::Sgd(sgd) => step_sgd(&sgd, state.steps, param, grad, slots),
            adam @ Self::Adam { .. } => adam.step_adam(state.steps, param, grad, slots),
        };
        let param = param.cast(dtype);
        let Some(mask) = mask else {
            state.pruned = None;
            state.slots = slots;
            return param;
        };
        let pruned = match state.pruned.take() {
            Some((known, pruned)) if Arc::ptr_eq(&known, mask) => pruned,
            _ => pruned_by(mask, &param),
        };
        state.slots = slots.into_iter().map(|slot| slot.mask_fill(pruned.clone(), 0.0)).collect();
        let param = param.mask_fill(pruned.clone(), 0.0);
        state.pruned = Some((mask.clone(), pruned));
        param
    }

    fn step_adam<const D: usize>(
        self,
        count: u64,
        param: Tensor<D>,
        grad: Tensor<D>,
        slots: Vec<Tensor<D>>,
    ) -> (Tensor<D>, Vec<Tensor<D>>) {
        let Self::Adam { learning_rate, betas, eps, weight_decay, shrink, amsgrad, maximize } = self else {
            return (param, slots);
        };
        let mut slots = slots.into_iter();
        let (Some(mean), Some(square), largest) = (slots.next(), slots.next(), slots.next()) else {
            return (param, Vec::new());
        };
        let grad = gradient(grad, &param, maximize, weight_decay);
        let apart = grad.clone().sub(mean.clone());
        let mean = match 1.0 - betas.0 {
            rest if rest < 0.5 => mean.add(apart.mul_scalar(rest)),
            _ => grad.clone().sub(apart.mul_scalar(betas.0)),
        };
        let square = square.mul_scalar(betas.1).add(grad.clone().mul_scalar(1.0 - betas.1).mul(grad));
        let power = |beta: f64| libm::pow(beta, count as f64);
        let (rate, root) = (learning_rate / (1.0 - power(betas.0)), 1.0 / (1.0 - power(betas.1)).sqrt());
        let largest = largest.filter(|_| amsgrad).map(|largest| largest.max_pair(square.clone()));
        let divisor = largest.as_ref().unwrap_or(&square).clone().sqrt().mul_scalar(root).add_scalar(eps);
        let param = if shrink == 1.0 { param } else { param.mul_scalar(shrink) };
        let param = param.sub(mean.clone().mul_scalar(rate).div(divisor));
        (param, [Some(mean), Some(square), largest].into_iter().flatten().collect())
    }
}

fn gradient<const D: usize>(grad: Tensor<D>, param: &Tensor<D>, maximize: bool, decay: f64) -> Tensor<D> {
    let grad = if maximize { grad.neg() } else { grad };
    if decay == 0.0 { grad } else { grad.add(param.clone().mul_scalar(decay)) }
}

fn step_sgd<const D: usize>(
    sgd: &Sgd,
    count: u64,
    param: Tensor<D>,
    grad: Tensor<D>,
    slots: Vec<Tensor<D>>,
) -> (Tensor<D>, Vec<Tensor<D>>) {
    use crate::traits::LearningRate;
    let grad = gradient(grad, &param, sgd.maximize(), sgd.weight_decay());
    let Some(last) = slots.into_iter().next() else {
        return (param.sub(grad.mul_scalar(sgd.learning_rate())), Vec::new());
    };
    let direction = match count {
        1 => grad.clone(),
        _ => last.mul_scalar(sgd.momentum()).add(grad.clone().mul_scalar(1.0 - sgd.dampening())),
    };
    let update =
        if sgd.nesterov() { grad.add(direction.clone().mul_scalar(sgd.momentum())) } else { direction.clone() };
    (param.sub(update.mul_scalar(sgd.learning_rate())), vec![direction])
}

/// Where a mask prunes, on the device of `like`.
pub(super) fn pruned_by<const D: usize>(mask: &Mask, like: &Tensor<D>) -> Tensor<D, Bool> {
    let mut pruned = vec![true; mask.len()];
    for index in mask.indices() {
        pruned[index] = false;
    }
    Tensor::from_data(TensorData::new(pruned, mask.shape().to_vec()), &like.device().inner())
}
