//! The state of PyTorch's optimizers, to go on with a run that PyTorch began.
//!
//! With the feature `pytorch`, a file that `torch.save(optimizer.state_dict(), "optimizer.pt")` wrote:
//!
//! ```no_run
//! # #[cfg(feature = "pytorch")] {
//! use lapidary::{format::torch::StateDict, optim::{AdamW, Params}};
//! let mut params = Params::<f32>::new();
//! let group = params.group(AdamW::new(1e-3)?);
//! params.add("fc.weight", &[300, 784], group)?;
//! params.add("fc.bias", &[300], group)?;
//! StateDict::open("optimizer.pt")?.restore_params(&mut params)?;
//! # }
//! # Ok::<(), lapidary::Error>(())
//! ```
//!
//! With the feature `safetensors` alone, a safetensors file of the keys `state.{i}.{slot}`, and, if they are to be known,
//! `param_groups.{g}.lr` and `param_groups.{g}.params`. In Python:
//!
//! ```python
//! d = optimizer.state_dict()
//! flat = {f"state.{i}.{k}": torch.as_tensor(v) for i, s in d["state"].items() for k, v in s.items() if v is not None}
//! for g, group in enumerate(d["param_groups"]):
//!     flat[f"param_groups.{g}.lr"] = torch.tensor(group["lr"], dtype=torch.float64)
//!     flat[f"param_groups.{g}.params"] = torch.tensor(group["params"])
//! safetensors.torch.save_file(flat, "optimizer.safetensors")
//! ```
//!
//! Hyper-parameters other than the learning rate are not read: build the optimizer with PyTorch's. Slots have PyTorch's names here, so
//! that state is taken over as it is, but for this:
//!
//! | here | what is done |
//! |---|---|
//! | state in [fewer bits](crate::Precision) | each number is rounded to nearest |
//! | `Sgd`, `Muon`, `Lion` | PyTorch's SGD and Muon keep no `step`: the count becomes 1, which is all that matters to the rule, that it is not the first. [`State::set_steps`] sets another |
//! | `Sgd` by Keras, with momentum | a velocity: `momentum_buffer` times minus the learning rate in the file |
//! | `RmsProp` by Keras, with momentum | `momentum_buffer` times the learning rate in the file |
//! | `Adafactor` | axes of one, which PyTorch keeps in `row_var` and `col_var`, are left out |
//!
//! The other conventions differ in the step, not in the state. An [`Ema`](crate::optim::Ema) or
//! [`Lookahead`](crate::optim::Lookahead) has a slot that PyTorch's file lacks, and is refused: restore within, then wrap anew.

mod array;
#[cfg(feature = "pytorch")]
mod pickle;

use super::{
    file::{ElementType, TensorFile},
    safetensors::{SafeTensors, Stored},
};
use crate::{
    element::Element,
    error::{Error, Result},
    optim::Params,
    tensor::State,
};
use array::{Array, Kind, count};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The state of an optimizer of PyTorch's, by the index of each parameter.
#[derive(Debug)]
pub struct StateDict {
    states: BTreeMap<u64, BTreeMap<String, Array>>,
    groups: Vec<Group>,
}

#[derive(Debug, Default)]
struct Group {
    learning_rate: Option<f64>,
    params: Vec<u64>,
}

/// What is to be written to a state, all checked.
struct Planned<'a> {
    steps: u64,
    /// Numbers, and what each is to be multiplied by.
    slots: Vec<(&'a Array, f64)>,
    scalars: Vec<f64>,
}

impl StateDict {
    /// Reads a safetensors file of the keys that the [module](self) names.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read, and as [`decode_safetensors`](StateDict::decode_safetensors).
    pub fn open_safetensors(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::decode_safetensors(fs::read(path).map_err(|error| Error::io(path, error))?)
    }

    /// As [`open_safetensors`](StateDict::open_safetensors), from bytes.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) for bytes that are no such file, keys of other forms, numbers of other types, and
    /// groups that do not list each parameter once.
    pub fn decode_safetensors(bytes: Vec<u8>) -> Result<Self> {
        let file = SafeTensors::decode(bytes)?;
        let mut arrays = BTreeMap::new();
        for tensor in file.tensors() {
            let Some(Stored { bytes, offset, .. }) = file.tensor(&tensor.name) else { continue };
            let kind = match tensor.element {
                ElementType::F64 => Kind::F64,
                ElementType::F32 => Kind::F32,
                ElementType::F16 => Kind::F16,
                ElementType::Bf16 => Kind::Bf16,
                ElementType::I64 => Kind::I64,
                ElementType::I32 => Kind::I32,
                other => {
                    let reason = format!("{other} is no type of optimizer state");
                    return Err(Error::format(offset, reason).in_tensor(&tensor.name));
                }
            };
            arrays.insert(tensor.name.clone(), Array::new(tensor.shape.clone(), kind, bytes));
        }
        Self::from_arrays(arrays)
    }

    fn from_arrays(arrays: BTreeMap<String, Array>) -> Result<Self> {
        let mut states = BTreeMap::<_, BTreeMap<_, _>>::new();
        let mut groups = BTreeMap::<usize, (Option<f64>, Option<Vec<u64>>)>::new();
        for (key, array) in arrays {
            let wrong = |reason: &str| Error::format(0, reason).in_tensor(&key);
            match key.splitn(3, '.').collect::<Vec<_>>()[..] {
                ["state", index, slot] => {
                    let index = index.parse().map_err(|_| wrong("not the index of a parameter"))?;
                    states.entry(index).or_default().insert(slot.to_string(), array);
                }
                ["param_groups", group, what] => {
                    let group =
                        groups.entry(group.parse().map_err(|_| wrong("not the index of a group"))?).or_default();
                    match what {
                        "lr" => group.0 = Some(array.number().ok_or_else(|| wrong("not one number"))?),
                        "params" => group.1 = Some(array.numbers().map(count).collect::<Result<_>>()?),
                        _ => {}
                    }
                }
                _ => return Err(wrong("not a key of an optimizer's state")),
            }
        }
        let mut listed = BTreeSet::new();
        let mut read = Vec::new();
        for (at, (group, (learning_rate, params))) in groups.into_iter().enumerate() {
            let params = params.filter(|params| group == at && params.iter().all(|&param| listed.insert(param)));
            let params =
                params.ok_or_else(|| Error::format(0, format!("group {at} does not list parameters of its own")))?;
            read.push(Group { learning_rate, params });
        }
        match states.keys().find(|index| !read.is_empty() && !listed.contains(index)) {
            Some(index) => Err(Error::format(0, format!("parameter {index} is in no group"))),
            None if states.is_empty() && read.is_empty() => Err(Error::format(0, "no state of an optimizer")),
            None => Ok(Self { states, groups: read }),
        }
    }

    /// The learning rate of a group, where the file tells it.
    #[must_use]
    pub fn learning_rate(&self, group: usize) -> Option<f64> {
        self.groups.get(group)?.learning_rate
    }

    /// Takes over the state of the parameter of an index.
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) when the file has no such parameter, the state of another optimizer, or slots of another
    /// shape; [`Format`](crate::ErrorKind::Format) for a `step` that is no count. Nothing has changed then.
    pub fn restore_state(&self, index: u64, state: &mut State) -> Result<()> {
        if let Some(planned) = self.planned(index, state)? {
            planned.write(state);
        }
        Ok(())
    }

    /// Takes over the state of all parameters, and the learning rates that the file tells. The first parameter of the first group here,
    /// in the order they were added, is PyTorch's first parameter of its first group, and so on; a file that tells no groups has
    /// the parameters in that order. One that had no gradient yet, and so has no state in the file, must be fresh.
    ///
    /// # Errors
    /// As [`restore_state`](StateDict::restore_state), with the parameter's name; [`State`](crate::ErrorKind::State) when there are more
    /// or fewer groups or parameters; [`Argument`](crate::ErrorKind::Argument) for a learning rate that an optimizer refuses. Nothing
    /// has changed then.
    pub fn restore_params<T: Element>(&self, params: &mut Params<T>) -> Result<()> {
        let rates: Vec<_> = params.learning_rates().collect();
        let indices = self.indices(params, rates.len())?;
        let planned: Vec<_> = params
            .params()
            .iter()
            .zip(indices)
            .map(|(param, index)| self.planned(index, &param.state).map_err(|error| error.in_tensor(&param.name)))
            .collect::<Result<_>>()?;
        let told = self.groups.iter().map(|group| group.learning_rate).chain(std::iter::repeat(None));
        let rates: Vec<_> = rates.into_iter().zip(told).map(|(here, told)| told.unwrap_or(here)).collect();
        params.set_learning_rates(&rates)?;
        for (param, planned) in params.params_mut().iter_mut().zip(planned) {
            if let Some(planned) = planned {
                planned.write(&mut param.state);
            }
        }
        Ok(())
    }

    /// PyTorch's index of each parameter, in the order they were added.
    fn indices<T: Element>(&self, params: &Params<T>, groups: usize) -> Result<Vec<u64>> {
        let mut members = vec![Vec::new(); groups];
        for (place, param) in params.params().iter().enumerate() {
            if let Some(members) = members.get_mut(param.group) {
                members.push(place);
            }
        }
        let here: Vec<_> = members.iter().map(Vec::len).collect();
        let total = params.params().len() as u64;
        let there: Vec<_> = self.groups.iter().map(|group| group.params.len()).collect();
        let outside = self.groups.is_empty() && self.states.keys().any(|&index| index >= total);
        if outside || !self.groups.is_empty() && here != there {
            return Err(Error::state(format!(
                "the file has groups of {there:?} parameters, here are groups of {here:?}"
            )));
        }
        let order: Vec<_> = match &self.groups[..] {
            [] => (0..total).collect(),
            groups => groups.iter().flat_map(|group| group.params.iter().copied()).collect(),
        };
        let mut indices: Vec<_> = members.into_iter().flatten().zip(order).collect();
        indices.sort_unstable();
        Ok(indices.into_iter().map(|(_, index)| index).collect())
    }

    /// What is to be written to a state; `None` when it is fresh, and so is the file's.
    fn planned(&self, index: u64, state: &State) -> Result<Option<Planned<'_>>> {
        let group = self.groups.iter().find(|group| group.params.contains(&index));
        let Some(saved) = self.states.get(&index).filter(|saved| !saved.is_empty()) else {
            let fresh = state.steps() == 0 || state.slots().is_empty() && state.scalars().next().is_none();
            return match group.filter(|_| fresh) {
                Some(_) => Ok(None),
                None => Err(Error::state(format!("the file has no state of parameter {index}"))),
            };
        };
        let find = |name: &str| saved.get(name).ok_or_else(|| Error::state(format!("the file has no {name:?}")));
        let steps = match find("step") {
            Ok(step) => count(step.number().unwrap_or(f64::NAN))?,
            Err(_) if matches!(state.algorithm(), "Sgd" | "Sgd (Keras)" | "Muon" | "Lion") => 1,
            Err(error) => return Err(error),
        };
        let mut slots = Vec::new();
        for slot in state.slots() {
            let array = find(slot.name())?;
            if !array.has_shape(slot.shape()) {
                let reason =
                    format!("slot {:?}: the file has {:?}, here is {:?}", slot.name(), array.shape, slot.shape());
                return Err(Error::state(reason));
            }
            let rate = || {
                let rate = group.and_then(|group| group.learning_rate);
                rate.ok_or_else(|| Error::state("the file does not tell the learning rate, a part of Keras's momentum"))
            };
            let factor = match (state.algorithm(), slot.name()) {
                ("Sgd (Keras)", "momentum_buffer") => -rate()?,
                ("RmsProp (Keras)", "momentum_buffer") => rate()?,
                _ => 1.0,
            };
            slots.push((array, factor));
        }
        let scalar = |name| find(name)?.number().ok_or_else(|| Error::state(format!("{name:?} is not one number")));
        let scalars = state.scalars().map(|(name, _)| scalar(name)).collect::<Result<_>>()?;
        let known = |name: &str| name == "step" || state.slot(name).is_some() || state.scalar(name).is_some();
        match saved.keys().find(|name| !known(name)) {
            Some(name) => Err(Error::state(format!("the file has {name:?}, {} here has not", state.algorithm()))),
            None => Ok(Some(Planned { steps, slots, scalars })),
        }
    }
}

impl Planned<'_> {
    fn write(self, state: &mut State) {
        let (steps, slots, scalars) = state.parts_mut();
        *steps = self.steps;
        scalars.iter_mut().zip(self.scalars).for_each(|(scalar, value)| *scalar = value);
        for (values, (array, factor)) in slots.zip(self.slots) {
            values.refill(array.numbers().map(|x| x * factor));
        }
    }
}
