//! What an optimizer remembers of one parameter: a step count and named slots.

use super::{
    slot::{Precision, Slot, SlotValues},
    view::{Dims, TensorMut, TensorRef, checked_volume, filled},
};
use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::{block8::BlockMap, slot::SlotMut},
};
use std::borrow::Cow;

/// What state an optimizer keeps for a parameter of some shape: the names, shapes and initial
/// values of its slots, and its scalars.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    algorithm: Cow<'static, str>,
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
    precision: Precision,
    /// What 8-bit codes it would have; `None` when it is always kept in full precision.
    map: Option<BlockMap>,
    weights: bool,
}

impl Schema {
    /// No slots: an optimizer without memory. The name says whose state it is, so that a checkpoint of another optimizer is
    /// told apart.
    #[must_use]
    pub fn new(algorithm: impl Into<Cow<'static, str>>) -> Self {
        Self { algorithm: algorithm.into(), slots: Vec::new(), scalars: Scalars::default(), scratch: 0 }
    }

    /// The optimizer's name.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// Names, shapes and initial values of the slots, in order.
    pub fn slots(&self) -> impl Iterator<Item = (&str, &[usize], f64)> {
        self.slots.iter().map(|slot| (&*slot.name, &slot.dims[..], slot.initial))
    }

    /// Names and initial values of the scalars, in order.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, f64)> {
        self.scalars.names.iter().map(|name| &**name).zip(self.scalars.values.iter().copied())
    }

    /// Adds a slot of the given shape that starts filled with `initial` and is always kept in full precision.
    #[must_use]
    pub fn slot(self, name: impl Into<Cow<'static, str>>, shape: &[usize], initial: f64) -> Self {
        self.with(name, shape, initial, None)
    }

    /// Adds a slot of the parameter's shape for what stands in for the parameter itself: slow weights, an average. It starts
    /// filled with 0 and is always kept in full precision. What slimming adds to the parameter, it adds
    /// here too.
    #[must_use]
    pub fn weights(self, name: impl Into<Cow<'static, str>>, shape: &[usize]) -> Self {
        let mut schema = self.with(name, shape, 0.0, None);
        schema.slots.iter_mut().rev().take(1).for_each(|slot| slot.weights = true);
        schema
    }

    /// Adds a slot of the parameter's shape, of numbers of both signs, which may be kept in [fewer bits](Precision): only an
    /// element-wise rule reads it. Each is as exact as its own size asks ([`BlockMap::Relative`]): a step divides it.
    #[must_use]
    pub fn moment(self, name: impl Into<Cow<'static, str>>, shape: &[usize], initial: f64) -> Self {
        self.with(name, shape, initial, Some(BlockMap::Relative))
    }

    /// As [`moment`](Schema::moment), of numbers that are steps as they are: all are as exact as the largest of their
    /// neighbours asks ([`BlockMap::Shifted`]).
    #[must_use]
    pub fn velocity(self, name: impl Into<Cow<'static, str>>, shape: &[usize], initial: f64) -> Self {
        self.with(name, shape, initial, Some(BlockMap::Shifted))
    }

    /// As [`moment`](Schema::moment), of numbers that are never negative.
    #[must_use]
    pub fn squares(self, name: impl Into<Cow<'static, str>>, shape: &[usize], initial: f64) -> Self {
        self.with(name, shape, initial, Some(BlockMap::NonNegative))
    }

    fn with(
        mut self,
        name: impl Into<Cow<'static, str>>,
        shape: &[usize],
        initial: f64,
        map: Option<BlockMap>,
    ) -> Self {
        let precision = Precision::Full;
        let (name, dims) = (name.into(), shape.into());
        self.slots.push(SlotSchema { name, dims, initial, precision, map, weights: false });
        self
    }

    /// Keeps the slots that may be so in a precision.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        for slot in self.slots.iter_mut().filter(|slot| slot.map.is_some()) {
            slot.precision = precision;
        }
        self
    }

    /// Whether a slot may be kept in fewer bits.
    #[must_use]
    pub fn compressible(&self) -> bool {
        self.slots.iter().any(|slot| slot.map.is_some())
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

/// An optimizer's memory of one parameter: how many steps it took, and its slots.
///
/// Made by [`OptimizerExt::init`](crate::OptimizerExt::init), owned by the caller, changed by
/// [`Optimizer::step`](crate::Optimizer::step).
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    algorithm: Cow<'static, str>,
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
            .map(|SlotSchema { name, dims, initial, precision, map, weights }| {
                let map = map.unwrap_or(BlockMap::Relative);
                let values = SlotValues::filled::<R>(checked_volume(&dims)?, initial, precision, map)?;
                Ok(Slot { name, dims, initial, weights, values })
            })
            .collect::<Result<_>>()?;
        let scratch = Scratch(filled(schema.scratch, 0.0)?);
        Ok(Self { algorithm: schema.algorithm, steps: 0, dims: shape.into(), slots, scalars: schema.scalars, scratch })
    }

    /// The name of the optimizer it was made for.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.algorithm
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

    /// What a slot holds instead of the parameter, in `out`; before the first step the parameter itself.
    pub(crate) fn evaluate_slot<T: Element>(
        &self,
        name: &str,
        param: TensorRef<'_, T>,
        mut out: TensorMut<'_, T>,
    ) -> Result<()> {
        if *param.shape() != self.dims[..] || out.shape() != param.shape() {
            return Err(Error::shape("parameter to evaluate", &self.dims, param.shape()));
        }
        let slot = self.slot(name).and_then(|slot| slot.values().as_slice::<T::Real>());
        let slot = slot.filter(|slot| slot.len() == param.len());
        let slot = slot.ok_or_else(|| Error::state(format!("has no slot {name:?} of this type")))?;
        if self.steps == 0 {
            out.as_mut_slice().copy_from_slice(param.as_slice());
        } else {
            out.as_mut_slice().iter_mut().zip(slot).for_each(|(x, &average)| *x = T::from_real(average));
        }
        Ok(())
    }

    /// Sets the number of steps taken: of a run that is resumed.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Replaces the numbers of a slot.
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) when there is no such slot, or it has another form or length. Nothing is changed then.
    pub fn set_slot(&mut self, name: &str, values: impl Into<SlotValues>) -> Result<()> {
        let values = values.into();
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.name == name) else {
            return Err(Error::state(format!("there is no slot {name:?}")));
        };
        let describe = |values: &SlotValues| (values.form(), values.len());
        let (expected, found) = (describe(&slot.values), describe(&values));
        if found != expected {
            return Err(Error::state(format!("slot {name:?} holds (form, length) {expected:?}, given {found:?}")));
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

    /// All that changes from step to step, to be put back: the count of steps, the numbers of the slots, the scalars.
    #[cfg(feature = "safetensors")]
    pub(crate) fn parts_mut(&mut self) -> (&mut u64, impl Iterator<Item = &mut SlotValues>, &mut [f64]) {
        (&mut self.steps, self.slots.iter_mut().map(|slot| &mut slot.values), &mut self.scalars.values)
    }

    /// The scalars, by name.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, f64)> {
        self.scalars.names.iter().map(|name| &**name).zip(self.scalars.values.iter().copied())
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

    /// The count of steps, the slots and the scalars, which must be these, in this order, and then full slots of the parameter's
    /// shape for those of `follow` that are named. An `elementwise` rule needs all of that shape. Does not allocate unless it fails.
    pub(crate) fn open<R: Real, const N: usize, const M: usize>(
        &mut self,
        shape: &[usize],
        names: [&str; N],
        elementwise: bool,
        scalars: [&str; M],
        follow: [Option<&str>; 2],
    ) -> Result<OpenState<'_, R, N, M>> {
        if self.dims[..] != *shape {
            return Err(Error::shape("optimizer state", shape, &self.dims));
        }
        let followers = follow.iter().flatten().count();
        let (own, others) = self.slots.split_at(self.slots.len().min(N));
        let named = own.len() == N
            && own.iter().zip(&names).all(|(slot, name)| same(&slot.name, name))
            && others.len() == followers
            && others.iter().zip(follow.iter().flatten()).all(|(slot, name)| same(&slot.name, name));
        if !named {
            let found: Vec<_> = self.slots.iter().map(Slot::name).collect();
            let expected: Vec<_> = names.into_iter().chain(follow.into_iter().flatten()).collect();
            return Err(Error::state(format!("slots are {found:?}, expected {expected:?}")));
        }
        let mut slots = self.slots.iter_mut();
        let mut open = names.map(|_| OpenSlot { values: SlotMut::default(), initial: R::zero() });
        for (open, slot) in open.iter_mut().zip(&mut slots) {
            if elementwise && slot.dims[..] != *shape {
                let reason = format!("slot {:?} has shape {:?}, expected {shape:?}", slot.name, slot.dims);
                return Err(Error::state(reason));
            }
            let form = slot.values.form();
            open.initial = R::from_f64(slot.initial);
            open.values = slot
                .values
                .as_slot()
                .ok_or_else(|| Error::state(format!("slot {:?} holds {form}, expected {:?}", slot.name, R::DTYPE)))?;
        }
        let mut followers = [None, None];
        for (place, name) in followers.iter_mut().zip(follow) {
            let Some(slot) = name.and_then(|_| slots.next()) else { continue };
            let form = slot.values.form();
            let values = slot.values.as_slot::<R>().and_then(SlotMut::into_real);
            *place = Some(values.filter(|_| slot.dims[..] == *shape).ok_or_else(|| {
                let (expected, dims) = (R::DTYPE, &slot.dims);
                Error::state(format!(
                    "slot {:?} holds {form} of {dims:?}, expected {expected:?} of {shape:?}",
                    slot.name
                ))
            })?);
        }
        let Scalars { names: found, values } = &mut self.scalars;
        match <&mut [f64; M]>::try_from(&mut values[..]) {
            Ok(values) if found.iter().eq(&scalars) => Ok(OpenState {
                steps: &mut self.steps,
                slots: open,
                scalars: values,
                scratch: &mut self.scratch.0,
                followers,
            }),
            _ => Err(Error::state(format!("scalars are {found:?}, expected {scalars:?}"))),
        }
    }

    /// The state of a parameter cut to a shape: `cut` gives the shape and the numbers of a slot.
    pub(crate) fn map_slots(
        &self,
        dims: &[usize],
        mut cut: impl FnMut(&Slot) -> Result<(Vec<usize>, SlotValues)>,
    ) -> Result<Self> {
        let slots = self.slots.iter().map(|slot| {
            let (dims, values) = cut(slot)?;
            Ok(Slot { dims: dims.as_slice().into(), values, ..slot.clone() })
        });
        Ok(Self { dims: dims.into(), slots: slots.collect::<Result<_>>()?, ..self.clone() })
    }
}

/// Whether two names are equal, which is soon seen where both are the same constant.
fn same(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// A state whose slots and scalars are those expected, ready to be changed.
pub(crate) struct OpenState<'a, R, const N: usize, const M: usize> {
    pub(crate) steps: &'a mut u64,
    pub(crate) slots: [OpenSlot<'a, R>; N],
    pub(crate) scalars: &'a mut [f64; M],
    pub(crate) scratch: &'a mut [f32],
    pub(crate) followers: [Option<&'a mut [R]>; 2],
}

/// A slot's numbers, ready to be changed.
pub(crate) struct OpenSlot<'a, R> {
    pub(crate) values: SlotMut<'a, R>,
    pub(crate) initial: R,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Values;

    #[test]
    fn numbers_can_be_put_back() {
        let schema = Schema::new("test").slot("sum", &[2], 0.0).scalar("product", 1.0);
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
        let schema = Schema::new("test").slot("exp_avg", &[3], 0.0).slot("sum", &[3], 0.1);
        let mut state = State::new::<f32>(&[3], schema).unwrap();
        assert_eq!(state.slot("sum").unwrap().values().get(2), Some(f64::from(0.1f32)));
        assert_eq!(state.byte_size(), 24);
        const NONE: [Option<&str>; 2] = [None, None];
        assert!(state.open::<f32, 2, 0>(&[3], ["exp_avg", "sum"], false, [], NONE).is_ok());
        assert!(state.open::<f32, 1, 0>(&[3], ["exp_avg"], false, [], [None, Some("sum")]).is_ok());
        assert!(state.open::<f32, 1, 0>(&[3], ["exp_avg"], false, [], [None, Some("ema")]).is_err());
        let error = state.open::<f32, 2, 0>(&[3], ["exp_avg", "exp_avg_sq"], false, [], NONE).err().unwrap();
        assert!(error.to_string().contains("exp_avg_sq"), "{error}");
        assert!(state.open::<f32, 2, 0>(&[4], ["exp_avg", "sum"], false, [], NONE).is_err());
        assert!(state.open::<f64, 2, 0>(&[3], ["exp_avg", "sum"], false, [], NONE).is_err());
        assert!(state.open::<f32, 2, 1>(&[3], ["exp_avg", "sum"], false, ["mu_product"], NONE).is_err());
        assert!(state.open::<f32, 1, 0>(&[3], ["exp_avg"], false, [], NONE).is_err());
    }

    #[test]
    fn fewer_bits_take_fewer_bytes_and_start_the_same() {
        let schema = Schema::new("test").moment("m", &[1000], 0.0).squares("v", &[1000], 0.1).slot("z", &[1000], 0.1);
        let state = |precision| State::new::<f32>(&[1000], schema.clone().with_precision(precision)).unwrap();
        assert_eq!(state(Precision::Full).byte_size(), 12_000);
        assert_eq!(state(Precision::Bf16).byte_size(), 8_000);
        assert_eq!(state(Precision::Eight).byte_size(), 2 * (1000 + 4) + 4000);
        for precision in [Precision::Bf16, Precision::Eight] {
            let state = state(precision);
            let start = state.slot("v").unwrap().values().get(999).unwrap();
            assert!((start - 0.1).abs() < 0.1 / 16.0, "{start}");
            assert_eq!(state.slot("m").unwrap().values().get(7), Some(0.0));
        }
    }
}
