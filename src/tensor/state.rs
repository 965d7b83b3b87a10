//! What an optimizer remembers of one parameter: a step count and named slots.

use super::{
    values::Values,
    view::{Dims, checked_volume, filled},
};
use crate::{
    element::Real,
    error::{Error, Result},
};
use std::borrow::Cow;

/// What state an optimizer keeps for a parameter of some shape: the names, shapes and initial
/// values of its slots, and its scalars.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    slots: Vec<SlotSchema>,
    scalars: Scalars,
    scratch: usize,
}

/// Named numbers that belong to a parameter as a whole.
#[derive(Debug, Clone, PartialEq, Default)]
struct Scalars {
    names: Vec<Cow<'static, str>>,
    values: Vec<f64>,
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

    /// Asks for so many `f32` to work in. They hold nothing from step to step.
    #[must_use]
    pub fn scratch(mut self, len: usize) -> Self {
        self.scratch = len;
        self
    }

    /// Adds a number that belongs to the parameter as a whole and starts as `initial`.
    #[must_use]
    pub fn scalar(mut self, name: impl Into<Cow<'static, str>>, initial: f64) -> Self {
        self.scalars.names.push(name.into());
        self.scalars.values.push(initial);
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
    scalars: Scalars,
    scratch: Scratch,
}

/// Numbers without meaning between steps: all are equal.
#[derive(Debug, Clone)]
struct Scratch(Vec<f32>);

impl PartialEq for Scratch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
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
        let scratch = Scratch(filled(schema.scratch, 0.0)?);
        Ok(Self { steps: 0, dims: shape.into(), slots, scalars: schema.scalars, scratch })
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

    /// Sets the number of steps taken: of a run that is resumed.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Replaces the numbers of a slot.
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) when there is no such slot, or it has another type or length. Nothing is changed then.
    pub fn set_slot(&mut self, name: &str, values: Values) -> Result<()> {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.name == name) else {
            return Err(Error::state(format!("there is no slot {name:?}")));
        };
        let expected = (slot.values.dtype(), slot.values.len());
        let found = (values.dtype(), values.len());
        if found != expected {
            return Err(Error::state(format!("slot {name:?} holds (type, length) {expected:?}, given {found:?}")));
        }
        slot.values = values;
        Ok(())
    }

    /// Replaces a scalar.
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) when there is no such scalar.
    pub fn set_scalar(&mut self, name: &str, value: f64) -> Result<()> {
        match self.scalars.names.iter().position(|other| other == name) {
            Some(at) => self.scalars.values[at] = value,
            None => return Err(Error::state(format!("there is no scalar {name:?}"))),
        }
        Ok(())
    }

    /// The scalar of a name.
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<f64> {
        let at = self.scalars.names.iter().position(|other| other == name)?;
        self.scalars.values.get(at).copied()
    }

    /// Bytes the slots take.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.slots.iter().map(|slot| slot.values.byte_size()).sum()
    }

    /// The count of steps, the slots and the scalars, which must be these, in this order. Does not allocate unless it fails.
    pub(crate) fn open<R: Real, const N: usize, const M: usize>(
        &mut self,
        shape: &[usize],
        names: [&str; N],
        scalars: [&str; M],
    ) -> Result<OpenState<'_, R, N, M>> {
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
        let Scalars { names: found, values } = &mut self.scalars;
        match <&mut [f64; M]>::try_from(&mut values[..]) {
            Ok(values) if found.iter().eq(&scalars) => {
                Ok(OpenState { steps: &mut self.steps, slots: open, scalars: values, scratch: &mut self.scratch.0 })
            }
            _ => Err(Error::state(format!("scalars are {found:?}, expected {scalars:?}"))),
        }
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
        Self { dims: dims.into(), slots: slots.collect(), ..self.clone() }
    }
}

/// A state whose slots and scalars are those expected, ready to be changed.
pub(crate) struct OpenState<'a, R, const N: usize, const M: usize> {
    pub(crate) steps: &'a mut u64,
    pub(crate) slots: [OpenSlot<'a, R>; N],
    pub(crate) scalars: &'a mut [f64; M],
    pub(crate) scratch: &'a mut [f32],
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
    fn numbers_can_be_put_back() {
        let schema = Schema::new().slot("sum", &[2], 0.0).scalar("product", 1.0);
        let mut state = State::new::<f32>(&[2], schema).unwrap();
        state.set_steps(7);
        state.set_slot("sum", Values::F32(vec![1.0, 2.0])).unwrap();
        state.set_scalar("product", 0.5).unwrap();
        let before = state.clone();
        assert_eq!((state.steps(), state.scalar("product")), (7, Some(0.5)));
        assert!(state.set_slot("sum", Values::F32(vec![1.0])).is_err());
        assert!(state.set_slot("sum", Values::F64(vec![1.0, 2.0])).is_err());
        assert!(state.set_slot("mean", Values::F32(vec![])).is_err() && state.set_scalar("sum", 0.0).is_err());
        assert_eq!(state, before);
    }

    #[test]
    fn state_of_another_optimizer_is_refused() {
        let schema = Schema::new().slot("exp_avg", &[3], 0.0).slot("sum", &[3], 0.1);
        let mut state = State::new::<f32>(&[3], schema).unwrap();
        assert_eq!(state.slot("sum").unwrap().values().get(2), Some(f64::from(0.1f32)));
        assert_eq!(state.byte_size(), 24);
        assert!(state.open::<f32, 2, 0>(&[3], ["exp_avg", "sum"], []).is_ok());
        let error = state.open::<f32, 2, 0>(&[3], ["exp_avg", "exp_avg_sq"], []).err().unwrap();
        assert!(error.to_string().contains("exp_avg_sq"), "{error}");
        assert!(state.open::<f32, 2, 0>(&[4], ["exp_avg", "sum"], []).is_err());
        assert!(state.open::<f64, 2, 0>(&[3], ["exp_avg", "sum"], []).is_err());
        assert!(state.open::<f32, 2, 1>(&[3], ["exp_avg", "sum"], ["mu_product"]).is_err());
        assert!(state.open::<f32, 1, 0>(&[3], ["exp_avg"], []).is_err());
    }
}
