//! What an optimizer remembers of a parameter, in burn's records.

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{Block8, Mask, Schema, SlotValues, State, Values},
    traits::Optimizer,
};
use burn_core::tensor::{Bool, DType, Device, Shape, Tensor, TensorData};
use burn_optim::{RecordState, StateSink, StateSource};
use std::sync::Arc;

/// What an [`Adapter`](super::Adapter) remembers of one parameter: the [`State`] of its optimizer, in host memory or on a device.
///
/// burn's records keep it as tensors `slot_0`, `slot_1`, … in the order of the optimizer's [`Schema`], and the numbers `steps`,
/// `owner` (the CRC-32 of the names of optimizer, slots and scalars), `slots`, `scalars`, `scalar_0`, …
#[derive(Debug, Clone)]
pub struct Memory<const D: usize> {
    form: Form<D>,
}

#[derive(Debug, Clone)]
enum Form<const D: usize> {
    Host(State),
    Device(OnDevice<D>),
    /// From a record, whose optimizer is not known yet.
    Record(Record),
    /// A record without what this crate writes.
    Foreign,
}

/// State in tensors of burn.
#[derive(Debug, Clone)]
pub(super) struct OnDevice<const D: usize> {
    pub(super) owner: u32,
    pub(super) steps: u64,
    pub(super) slots: Vec<Tensor<D>>,
    /// A mask, and where it prunes.
    pub(super) pruned: Option<(Arc<Mask>, Tensor<D, Bool>)>,
}

#[derive(Debug, Clone)]
struct Record {
    owner: u32,
    steps: u64,
    /// Codes and exponents where a slot is in 8 bits, else one.
    slots: Vec<(TensorData, Option<TensorData>)>,
    scalars: Vec<f64>,
}

/// Tells an optimizer's state from another's.
pub(super) fn owner(schema: &Schema) -> u32 {
    let names = schema.slots().map(|slot| slot.0).chain(schema.scalars().map(|scalar| scalar.0));
    owner_of(schema.algorithm(), names)
}

fn owner_of<'a>(algorithm: &str, names: impl Iterator<Item = &'a str>) -> u32 {
    let mut text = algorithm.to_string();
    names.for_each(|name| text.extend(["\n", name]));
    crc32fast::hash(text.as_bytes())
}

fn owner_of_state(state: &State) -> u32 {
    let names = state.slots().iter().map(|slot| slot.name()).chain(state.scalars().map(|scalar| scalar.0));
    owner_of(state.algorithm(), names)
}

fn foreign() -> Error {
    Error::state("the record is not of an optimizer of this crate, or was written when the device gave no answer")
}

fn another() -> Error {
    Error::state("the record is of an optimizer with another name, or other slots")
}

impl<const D: usize> Memory<D> {
    pub(super) fn host(state: State) -> Self {
        Self { form: Form::Host(state) }
    }

    pub(super) fn device(state: OnDevice<D>) -> Self {
        Self { form: Form::Device(state) }
    }

    /// State to step with in host memory; fresh where there is none. An error leaves `memory` as it was.
    pub(super) fn take<T: Element>(
        memory: &mut Option<Self>,
        optimizer: &impl Optimizer<T>,
        shape: &[usize],
    ) -> Result<State> {
        let fresh = || {
            optimizer.supports(shape)?;
            State::new::<T::Real>(shape, optimizer.schema(shape))
        };
        let state = match memory.take().map(|memory| memory.form) {
            None => fresh(),
            Some(Form::Host(state)) => return Ok(state),
            Some(other) => {
                let restored = fresh().and_then(|state| other.restore(state));
                *memory = Some(Self { form: other });
                restored
            }
        }?;
        *memory = None;
        Ok(state)
    }

    /// State to step with by tensors of burn; fresh where there is none. An error leaves `memory` as it was.
    pub(super) fn take_device(
        memory: &mut Option<Self>,
        schema: &Schema,
        (shape, dtype): (&Shape, DType),
        fresh: impl Fn() -> Tensor<D>,
    ) -> Result<OnDevice<D>> {
        let owner = owner(schema);
        let fits = |state: &OnDevice<D>| {
            if state.owner != owner || state.slots.len() != schema.slots().count() {
                return Err(another());
            }
            match state.slots.iter().find(|slot| slot.shape() != *shape || slot.dtype() != dtype) {
                Some(slot) if slot.dtype() == dtype => {
                    Err(Error::shape("slot", shape.as_slice(), slot.shape().as_slice()))
                }
                Some(slot) => Err(Error::state(format!("a slot holds {:?}, not {dtype:?}", slot.dtype()))),
                None => Ok(()),
            }
        };
        let (form, state) = match memory.take().map(|memory| memory.form) {
            None => {
                let slots = schema.slots().map(|_| fresh()).collect();
                return Ok(OnDevice { owner, steps: 0, slots, pruned: None });
            }
            Some(Form::Device(state)) => match fits(&state) {
                Ok(()) => return Ok(state),
                Err(error) => (Form::Device(state), Err(error)),
            },
            Some(other) => {
                let state = other.upload(&fresh()).and_then(|state| fits(&state).map(|()| state));
                (other, state)
            }
        };
        if state.is_err() {
            *memory = Some(Self { form });
        }
        state
    }
}

impl<const D: usize> Form<D> {
    /// Puts what is remembered into fresh state.
    fn restore(&self, mut state: State) -> Result<State> {
        let record = self.record()?;
        let fits = record.owner == owner_of_state(&state)
            && record.slots.len() == state.slots().len()
            && record.scalars.len() == state.scalars().count();
        if !fits {
            return Err(another());
        }
        let mut both = state.slots().iter().zip(record.slots.iter().map(|slot| slot.0.shape().as_slice()));
        if let Some((slot, found)) = both.find(|(slot, found)| slot.shape() != *found) {
            return Err(Error::shape("slot", slot.shape(), found));
        }
        let names: Vec<_> = state.slots().iter().map(|slot| slot.name().to_string()).collect();
        for (name, (values, exponents)) in names.iter().zip(&record.slots) {
            let map = match state.slot(name).map(|slot| slot.values()) {
                Some(SlotValues::Eight(block)) => Some(block.map()),
                _ => None,
            };
            let values = match (exponents, map) {
                (Some(exponents), Some(map)) => {
                    let (codes, exponents) = (slice::<u8>(values)?.to_vec(), slice::<u8>(exponents)?.to_vec());
                    let block = Block8::from_parts(codes, exponents, map);
                    SlotValues::Eight(block.ok_or_else(|| Error::state(format!("slot {name:?} holds no numbers")))?)
                }
                (None, _) => match values.dtype() {
                    DType::F32 => Values::F32(slice::<f32>(values)?.to_vec()).into(),
                    DType::F64 => Values::F64(slice::<f64>(values)?.to_vec()).into(),
                    DType::BF16 => SlotValues::Bf16(slice::<half::bf16>(values)?.to_vec()),
                    other => return Err(Error::state(format!("slot {name:?} holds {other:?}"))),
                },
                (Some(_), None) => return Err(Error::state(format!("slot {name:?} is in 8 bits"))),
            };
            state.set_slot(name, values)?;
        }
        let names: Vec<_> = state.scalars().map(|(name, _)| name.to_string()).collect();
        for (name, value) in names.iter().zip(&record.scalars) {
            state.set_scalar(name, *value)?;
        }
        state.set_steps(record.steps);
        Ok(state)
    }

    /// As tensors on the device of `like`, of its type and shape.
    fn upload(&self, like: &Tensor<D>) -> Result<OnDevice<D>> {
        let record = self.record()?;
        let slots = record.slots.into_iter().map(|(values, exponents)| {
            if exponents.is_some() || values.dtype() != like.dtype() || *values.shape() != like.shape() {
                return Err(Error::state("burn's operations keep slots of the parameter's shape in full precision"));
            }
            Ok(Tensor::from_data(values, (&like.device(), like.dtype())))
        });
        let slots = slots.collect::<Result<_>>()?;
        Ok(OnDevice { owner: record.owner, steps: record.steps, slots, pruned: None })
    }

    fn record(&self) -> Result<Record> {
        match self {
            Self::Host(state) => Ok(Record {
                owner: owner_of_state(state),
                steps: state.steps(),
                slots: state.slots().iter().map(|slot| data(slot.values(), slot.shape())).collect(),
                scalars: state.scalars().map(|scalar| scalar.1).collect(),
            }),
            Self::Device(OnDevice { owner, steps, slots, .. }) => {
                let read = |slot: &Tensor<D>| match slot.try_to_data() {
                    Ok(data) => Ok((data, None)),
                    Err(error) => Err(Error::runtime("tensor", error)),
                };
                let slots = slots.iter().map(read).collect::<Result<_>>()?;
                Ok(Record { owner: *owner, steps: *steps, slots, scalars: Vec::new() })
            }
            Self::Record(record) => Ok(record.clone()),
            Self::Foreign => Err(foreign()),
        }
    }
}

fn slice<E: burn_core::tensor::Element>(data: &TensorData) -> Result<&[E]> {
    data.as_slice().map_err(|error| Error::state(error.to_string()))
}

fn data(values: &SlotValues, shape: &[usize]) -> (TensorData, Option<TensorData>) {
    let bytes = |values: &[u8], shape: Vec<usize>| TensorData::new(values.to_vec(), shape);
    match values {
        SlotValues::Full(Values::F32(values)) => (TensorData::new(values.clone(), shape.to_vec()), None),
        SlotValues::Full(Values::F64(values)) => (TensorData::new(values.clone(), shape.to_vec()), None),
        SlotValues::Bf16(values) => (TensorData::new(values.clone(), shape.to_vec()), None),
        SlotValues::Eight(block) => {
            let (codes, exponents) = (block.codes(), block.exponents());
            (bytes(codes, shape.to_vec()), Some(bytes(exponents, vec![exponents.len()])))
        }
    }
}

impl<const D: usize> RecordState for Memory<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        // Without an answer from the device, or from a foreign record, nothing is written: `state_unflatten` then says so.
        let Ok(Record { owner, steps, slots, scalars }) = self.form.record() else { return };
        out.push_scalar(prefix, "owner", u64::from(owner).into());
        out.push_scalar(prefix, "steps", steps.into());
        out.push_scalar(prefix, "slots", (slots.len() as u64).into());
        out.push_scalar(prefix, "scalars", (scalars.len() as u64).into());
        for (i, (values, exponents)) in slots.into_iter().enumerate() {
            out.push_tensor(prefix, &format!("slot_{i}"), values);
            if let Some(exponents) = exponents {
                out.push_tensor(prefix, &format!("slot_{i}_exponents"), exponents);
            }
        }
        for (i, scalar) in scalars.into_iter().enumerate() {
            out.push_scalar(prefix, &format!("scalar_{i}"), scalar.into());
        }
    }

    /// Always `Some`: burn forgets what is `None` and starts afresh, where here the next step is an error.
    fn state_unflatten(prefix: &str, src: &mut StateSource, _: &Device) -> Option<Self> {
        let form = read(prefix, src).map_or(Form::Foreign, Form::Record);
        Some(Self { form })
    }
}

fn read(prefix: &str, src: &mut StateSource) -> Option<Record> {
    let mut count = |leaf: &str| u64::try_from(src.take_scalar(prefix, leaf)?).ok();
    // One more has to be a number, too.
    let (owner, steps) = (count("owner")?.try_into().ok()?, count("steps").filter(|&steps| steps < u64::MAX)?);
    let (slots, scalars) = (count("slots")?, count("scalars")?);
    let slots = (0..slots).map(|i| {
        let values = src.take_tensor(prefix, &format!("slot_{i}"))?;
        Some((values, src.take_tensor(prefix, &format!("slot_{i}_exponents"))))
    });
    let slots = slots.collect::<Option<_>>()?;
    let scalars = (0..scalars).map(|i| f64::try_from(src.take_scalar(prefix, &format!("scalar_{i}"))?).ok());
    Some(Record { owner, steps, slots, scalars: scalars.collect::<Option<_>>()? })
}

impl<const D: usize> Memory<D> {
    /// Where its parameter is.
    pub(super) fn moved(self, device: &Device) -> Self {
        let Form::Device(OnDevice { owner, steps, slots, pruned }) = self.form else { return self };
        let slots = slots.into_iter().map(|slot| slot.to_device(device)).collect();
        let pruned = pruned.map(|(mask, tensor)| (mask, tensor.to_device(device)));
        Self { form: Form::Device(OnDevice { owner, steps, slots, pruned }) }
    }
}
