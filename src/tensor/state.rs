//! What an optimizer remembers of one parameter: a step count and named slots.

use super::{
    values::Values,
    view::{Dims, checked_volume},
};
use crate::{
    element::Real,
    error::{Error, Result},
};
use std::borrow::Cow;

/// What state an optimizer keeps for a parameter of some shape: the names, shapes and initial
/// values of its slots.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    slots: Vec<SlotSchema>,
}

#[derive(Debug, Clone, PartialEq)]
struct SlotSchema {
    name: Cow<'static, str>,
    dims: Dims,
    initial: f64,
}

impl Schema {
    /// No slots: an optimizer without memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names, shapes and initial values of the slots, in order.
    pub fn slots(&self) -> impl Iterator<Item = (&str, &[usize], f64)> {
        self.slots.iter().map(|slot| (&*slot.name, &slot.dims[..], slot.initial))
    }

    /// Adds a slot of the given shape that starts filled with `initial`.
    #[must_use]
    pub fn slot(mut self, name: impl Into<Cow<'static, str>>, shape: &[usize], initial: f64) -> Self {
        self.slots.push(SlotSchema { name: name.into(), dims: shape.into(), initial });
        self
    }
}

/// One named array of optimizer state.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    name: Cow<'static, str>,
    dims: Dims,
    initial: f64,
    values: Values,
}

impl Slot {
    /// The slot's name, PyTorch's where there is one (`exp_avg`, `momentum_buffer`).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.dims
    }

    /// The value the slot started with; under a mask, that of pruned elements.
    #[must_use]
    pub fn initial(&self) -> f64 {
        self.initial
    }

    /// The numbers, in logical order.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }
}

/// An optimizer's memory of one parameter: how many steps it took, and its slots.
///
/// Made by [`OptimizerExt::init`](crate::OptimizerExt::init), owned by the caller, changed by
/// [`Optimizer::step`](crate::Optimizer::step).
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    steps: u64,
    dims: Dims,
    slots: Vec<Slot>,
}

impl State {
    /// Fresh state for a parameter of `shape`, held in `R`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold a slot.
    pub fn new<R: Real>(shape: &[usize], schema: Schema) -> Result<Self> {
        let slots = schema
            .slots
            .into_iter()
            .map(|SlotSchema { name, dims, initial }| {
                let values = Values::filled::<R>(checked_volume(&dims)?, initial)?;
                Ok(Slot { name, dims, initial, values })
            })
            .collect::<Result<_>>()?;
        Ok(Self { steps: 0, dims: shape.into(), slots })
    }

    /// Steps taken so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The shape of the parameter this belongs to.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.dims
    }

    /// All slots, in the optimizer's order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot of a name.
    #[must_use]
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// Bytes the slots take.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.slots.iter().map(|slot| slot.values.byte_size()).sum()
    }

    /// The step that comes next, counted from 1, and the slots, which must be these, in this order.
    /// Does not allocate unless it fails.
    pub(crate) fn open<R: Real, const N: usize>(
        &mut self,
        shape: &[usize],
        names: [&str; N],
    ) -> Result<(&mut u64, [OpenSlot<'_, R>; N])> {
        if self.dims[..] != *shape {
            return Err(Error::shape("optimizer state", shape, &self.dims));
        }
        let found = self.slots.len();
        let mut open = names.map(|_| OpenSlot { values: &mut [][..], initial: R::zero() });
        if found != N || self.slots.iter().zip(names).any(|(slot, name)| slot.name != name) {
            let found: Vec<_> = self.slots.iter().map(Slot::name).collect();
            return Err(Error::state(format!("slots are {found:?}, expected {names:?}")));
        }
        for (slot, open) in self.slots.iter_mut().zip(&mut open) {
            let dtype = slot.values.dtype();
            open.initial = R::from_f64(slot.initial);
            open.values = slot.values.as_mut_slice::<R>().ok_or_else(|| {
                Error::state(format!("slot {:?} holds {dtype:?}, expected {:?}", slot.name, R::DTYPE))
            })?;
        }
        Ok((&mut self.steps, open))
    }

    /// The state of the elements that stay when a parameter is cut: for each axis, the indices kept.
    /// Slots of another shape than the parameter's stay whole.
    pub(crate) fn map_slots(&self, dims: &[usize], mut cut: impl FnMut(&Values) -> Values) -> Self {
        let slots = self.slots.iter().map(|slot| {
            if slot.dims != self.dims {
                return slot.clone();
            }
            Slot { dims: dims.into(), values: cut(&slot.values), ..slot.clone() }
        });
        Self { steps: self.steps, dims: dims.into(), slots: slots.collect() }
    }
}

/// A slot's numbers, ready to be changed.
pub(crate) struct OpenSlot<'a, R> {
    pub(crate) values: &'a mut [R],
    pub(crate) initial: R,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_another_optimizer_is_refused() {
        let schema = Schema::new().slot("exp_avg", &[3], 0.0).slot("sum", &[3], 0.1);
        let mut state = State::new::<f32>(&[3], schema).unwrap();
        assert_eq!(state.slot("sum").unwrap().values().get(2), Some(f64::from(0.1f32)));
        assert_eq!(state.byte_size(), 24);
        assert!(state.open::<f32, 2>(&[3], ["exp_avg", "sum"]).is_ok());
        let error = state.open::<f32, 2>(&[3], ["exp_avg", "exp_avg_sq"]).err().unwrap();
        assert!(error.to_string().contains("exp_avg_sq"), "{error}");
        assert!(state.open::<f32, 2>(&[4], ["exp_avg", "sum"]).is_err());
        assert!(state.open::<f64, 2>(&[3], ["exp_avg", "sum"]).is_err());
        assert!(state.open::<f32, 1>(&[3], ["exp_avg"]).is_err());
    }
}
