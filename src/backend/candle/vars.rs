//! Variables of candle, stepped together.

use super::{
    Scalar, strided,
    tensor::{check_var, cpu, elements, view},
};
use crate::{
    error::{Error, Result},
    optim::{GroupId, Outcome, Params, StepOptions, Update},
    tensor::{TensorMut, TensorRef, view::filled},
    traits::Optimizer,
};
use candle_core::{Device, StorageRef, Tensor, Var, backprop::GradStore};
use candle_nn::VarMap;
use std::{collections::HashSet, ops::Range};

/// Variables by name, in groups, stepped where they lie by this crate's optimizers: a [`Params`] with the variables it moves.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap, linear, loss::mse};
/// use lapidary::{backend::candle::VarParams, optim::{AdamW, Norm, StepOptions}};
///
/// let map = VarMap::new();
/// let layer = linear(3, 1, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu).pp("fc"))?;
/// let mut vars = VarParams::<f32>::default();
/// let decayed = vars.group(AdamW::new(1e-2)?.with_weight_decay(0.1)?);
/// let plain = vars.group(AdamW::new(1e-2)?.with_weight_decay(0.0)?);
/// vars.add_all(&map, |_, shape| if shape.len() < 2 { plain } else { decayed })?;
/// assert!(vars.params().names().eq(["fc.bias", "fc.weight"])); // sorted
///
/// let (x, y) = (Tensor::ones((8, 3), DType::F32, &Device::Cpu)?, Tensor::zeros((8, 1), DType::F32, &Device::Cpu)?);
/// for _ in 0..3 {
///     let loss = mse(&layer.forward(&x)?, &y)?;
///     vars.step_with(&loss.backward()?, StepOptions::new().clip_norm(1.0, Norm::L2)?)?;
/// }
/// vars.params_mut().set_learning_rate(decayed, 1e-3)?;
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Masks, frozen parameters, learning rates, states and [checkpoints](crate::format) are those of [`params`](VarParams::params).
///
/// A step checks everything before it writes anything. Gradients are read where they lie; those that are not in logical order
/// (transposed, broadcast), or share a variable's storage, are copied first, into a buffer that is kept for the next step.
/// A variable without a gradient does not move, and its count of steps stays, as in PyTorch. Each variable's lock is held while
/// that one moves: tasks of the same rayon pool must not read the variables meanwhile, and no [`View`](super::View) of one may be alive.
#[derive(Debug)]
pub struct VarParams<T: Scalar = f32> {
    params: Params<T>,
    /// In the order of `params`.
    vars: Vec<Var>,
    /// Where the variables' storages are.
    storages: HashSet<usize>,
    copies: Vec<T>,
    /// A learning rate that candle's trait could not refuse.
    pub(super) refused: Option<Error>,
}

impl<T: Scalar> Default for VarParams<T> {
    /// No groups, no variables.
    fn default() -> Self {
        Self { params: Params::new(), vars: Vec::new(), storages: HashSet::new(), copies: Vec::new(), refused: None }
    }
}

impl<T: Scalar> VarParams<T> {
    /// All variables of a map in one group.
    ///
    /// # Errors
    /// As [`add_all`](VarParams::add_all).
    pub fn of(map: &VarMap, optimizer: impl Optimizer<T> + 'static) -> Result<Self> {
        let mut vars = Self::default();
        let group = vars.group(optimizer);
        vars.add_all(map, |_, _| group)?;
        Ok(vars)
    }

    /// As [`Params::check_finite`].
    #[must_use]
    pub fn check_finite(self) -> Self {
        Self { params: self.params.check_finite(), ..self }
    }

    /// As [`Params::stochastic_rounding`].
    #[must_use]
    pub fn stochastic_rounding(self, seed: u64) -> Self {
        Self { params: self.params.stochastic_rounding(seed), ..self }
    }

    /// Adds a group of variables that share an optimizer and its hyper-parameters.
    pub fn group(&mut self, optimizer: impl Optimizer<T> + 'static) -> GroupId {
        self.params.group(optimizer)
    }

    /// Adds a variable, with fresh state; also during training. The variable is shared, not copied.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is here already, by this name or another; when it is of another element
    /// type than `T`, on another device than the CPU, or not contiguous; and as [`Params::add`].
    pub fn add(&mut self, name: &str, var: &Var, group: GroupId) -> Result<()> {
        check_var::<T>(var).map_err(|error| error.in_tensor(name))?;
        let storage = place(&var.storage_and_layout().0);
        if self.storages.contains(&storage) {
            let shared = Error::argument("variable", "here already", "added once, by one name");
            return Err(shared.in_tensor(name));
        }
        self.params.add(name, var.dims(), group)?;
        self.storages.insert(storage);
        self.vars.push(var.clone());
        Ok(())
    }

    /// Adds all variables of a map, sorted by name, each to the group that `choose` names by name and shape.
    ///
    /// # Errors
    /// As [`add`](VarParams::add), for the first that is refused; those before it are added.
    pub fn add_all(&mut self, map: &VarMap, mut choose: impl FnMut(&str, &[usize]) -> GroupId) -> Result<()> {
        let lost = |_| Error::runtime("candle", "a panic while the map of variables was in use");
        let mut vars: Vec<_> =
            map.data().lock().map_err(lost)?.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        vars.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        vars.iter().try_for_each(|(name, var)| self.add(name, var, choose(name, var.dims())))
    }

    /// The parameters' states, masks and groups, to look at and to save.
    #[must_use]
    pub fn params(&self) -> &Params<T> {
        &self.params
    }

    /// The same, to change: masks, frozen parameters, learning rates, what a checkpoint restores. Parameters added here have no
    /// variable; a step is refused then.
    #[must_use]
    pub fn params_mut(&mut self) -> &mut Params<T> {
        &mut self.params
    }

    /// Moves all variables by their gradients, or none.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a gradient of another element type or device than its variable; as
    /// [`Params::step`]. The variables, and all state, are then as they were.
    pub fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.step_with(grads, StepOptions::new()).map(|_| ())
    }

    /// As [`step`](VarParams::step), with what is to be done to all gradients as they are read.
    ///
    /// # Errors
    /// As [`step`](VarParams::step) and [`Params::step_with`].
    pub fn step_with(&mut self, grads: &GradStore, options: StepOptions<'_>) -> Result<Outcome> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        let (known, here) = (self.params.names().count(), self.vars.len());
        if known != here {
            return Err(Error::shape("variables", &[known], &[here]));
        }
        self.copies.clear();
        let mut found = Vec::with_capacity(self.vars.len());
        for (name, var) in self.params.names().zip(&self.vars) {
            let grad = grads.get(var).map(|grad| Grad::new(grad, &self.storages, &mut self.copies));
            found.push(grad.transpose().map_err(|error| error.in_tensor(name))?);
        }
        let mut updates = Vec::with_capacity(found.len());
        for (var, grad) in self.vars.iter().zip(&found) {
            let grad = grad.as_ref().map(|grad| grad.tensor(&self.copies)).transpose()?;
            updates.push(Update::locked(var, grad));
        }
        self.params.step_with(&mut updates, options)
    }

    /// The tensor to evaluate the model with: the variable's value, unless its optimizer averages.
    ///
    /// # Errors
    /// As [`Params::evaluate`].
    pub fn evaluate(&self, name: &str) -> Result<Tensor> {
        let known = self.params.names().zip(&self.vars).find(|(known, _)| *known == name);
        let (_, var) = known.ok_or_else(|| Error::argument("parameter", format!("{name:?}"), "one that was added"))?;
        let values = view::<T>(var)?;
        let mut out = filled(var.elem_count(), T::default())?;
        self.params.evaluate(name, &values, TensorMut::new(&mut out, var.dims())?)?;
        Ok(Tensor::from_vec(out, var.shape(), &Device::Cpu)?)
    }
}

/// A gradient, lent or among the copies.
struct Grad<'a> {
    lent: Option<StorageRef<'a>>,
    range: Range<usize>,
    shape: &'a [usize],
}

impl<'a> Grad<'a> {
    /// A copy also where the storage is a variable's: no lock of those may be held for reading when they move.
    fn new<T: Scalar>(grad: &'a Tensor, storages: &HashSet<usize>, copies: &mut Vec<T>) -> Result<Self> {
        let ((storage, layout), shape) = (grad.storage_and_layout(), grad.dims());
        let values = elements::<T>(cpu(&storage)?)?;
        match layout.contiguous_offsets().filter(|_| !storages.contains(&place(&storage))) {
            Some((start, end)) => Ok(Self { lent: Some(storage), range: start..end, shape }),
            None => {
                let start = copies.len();
                strided::append(values, layout, copies)?;
                Ok(Self { lent: None, range: start..copies.len(), shape })
            }
        }
    }

    fn tensor<'b, T: Scalar>(&'b self, copies: &'b [T]) -> Result<TensorRef<'b, T>> {
        let values = match &self.lent {
            Some(storage) => elements(cpu(storage)?)?,
            None => copies,
        };
        TensorRef::new(values.get(self.range.clone()).unwrap_or_default(), self.shape)
    }
}

/// Which storage this is: no two that are alive have the same.
fn place(storage: &StorageRef<'_>) -> usize {
    std::ptr::from_ref(&**storage).addr()
}
