//! Reading a checkpoint: everything is checked, then everything is put back.

use super::{
    FORMAT, VERSION, checksum,
    notes::{Notes, Number, StateNote},
};
use crate::{
    element::Element,
    error::{Error, Result},
    format::{
        file::{ElementType, TensorFile},
        safetensors::{SafeTensors, Stored},
    },
    optim::Params,
    tensor::{Block8, Mask, Slot, SlotValues, State, Values, view::volume},
    traits::Resume,
};
use half::bf16;
use std::{collections::BTreeSet, fs, path::Path};

/// More steps than any run takes, and as many as a `f64` counts.
const MAX_STEPS: u64 = 1 << 53;

/// A checkpoint that was read and is whole. Hold it until everything is restored.
#[derive(Debug)]
pub struct Loaded {
    file: SafeTensors,
    notes: Notes,
}

impl Loaded {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be read, and as [`decode`](Loaded::decode).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::decode(fs::read(path).map_err(|error| Error::io(path, error))?)
    }

    /// A checkpoint from its bytes.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) when they are not those of a checkpoint of this version, were damaged (their CRC-32
    /// is another), or tensors are there that the notes do not name, or the other way round.
    pub fn decode(bytes: Vec<u8>) -> Result<Self> {
        let file = SafeTensors::decode(bytes)?;
        for (key, expected) in [("format", FORMAT), ("version", VERSION)] {
            match file.note(key) {
                Some(found) if found == expected => {}
                found => return Err(malformed(format!("{key} is {found:?}, expected {expected:?}"))),
            }
        }
        let text = file.note("notes").ok_or_else(|| malformed("no notes"))?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(file.all_bytes());
        if file.note("checksum") != Some(&checksum(hasher, text)) {
            return Err(malformed("damaged: the checksum is another"));
        }
        let notes = serde_json::from_str(text).map_err(|error| malformed(format!("notes: {error}")))?;
        let loaded = Self { file, notes };
        loaded.check()?;
        Ok(loaded)
    }

    /// The notes name the file's tensors, all of them.
    fn check(&self) -> Result<()> {
        let mut expected = BTreeSet::new();
        for (name, note) in &self.notes.states {
            let wrong = |reason: &str| Err(malformed(reason).in_tensor(name));
            if note.steps > MAX_STEPS || volume(&note.shape).is_none() {
                return wrong("a shape or a count of steps that is too large");
            }
            for (slot, form) in &note.slots {
                for (ending, dtype) in
                    layout(form).ok_or_else(|| malformed("a slot of unknown form").in_tensor(name))?
                {
                    let key = format!("{name}.{slot}{ending}");
                    if self.tensor(&key)?.info.element != *dtype || !expected.insert(key) {
                        return wrong("a slot of another type, or twice");
                    }
                }
            }
            let Some(param) = &note.param else { continue };
            if param.group >= self.notes.learning_rates.as_ref().map_or(0, Vec::len) {
                return wrong("a group that has no learning rate");
            }
            if param.masked {
                let key = mask_key(name);
                let mask = self.tensor(&key)?;
                if mask.info.element != ElementType::U8 || mask.info.shape != note.shape || !expected.insert(key) {
                    return wrong("a mask of another type or shape");
                }
                if let Some(at) = mask.bytes.iter().position(|&byte| byte > 1) {
                    return Err(Error::format(mask.offset + at, "a mask of more than 0 and 1").in_tensor(name));
                }
            }
        }
        match self.file.tensors().iter().find(|tensor| !expected.contains(&tensor.name)) {
            Some(tensor) => Err(malformed("a tensor that the notes do not name").in_tensor(&tensor.name)),
            None => Ok(()),
        }
    }

    fn tensor(&self, key: &str) -> Result<Stored<'_>> {
        self.file.tensor(key).ok_or_else(|| malformed(format!("no tensor {key:?}")).in_tensor(key))
    }

    /// The names of all states, those of the [`Params`] among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.notes.states.keys().map(String::as_str)
    }

    /// Puts back everything of a [`Params`], which has the same parameters, whatever their order, in the same groups, and the same
    /// optimizers.
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) with the parameter's name when something is another: a parameter that is missing on
    /// either side, its group, its shape, its optimizer, a slot's name, shape or precision;
    /// [`Format`](crate::ErrorKind::Format) for codes that stand for no number; [`Argument`](crate::ErrorKind::Argument) for a
    /// learning rate that an optimizer refuses. Nothing has changed then.
    pub fn restore_params<T: Element>(&self, params: &mut Params<T>) -> Result<()> {
        let rates = self.notes.learning_rates.as_ref();
        let rates = rates.ok_or_else(|| Error::state("the checkpoint holds no `Params`"))?;
        let rates: Vec<_> = rates.iter().map(|rate| rate.0).collect();
        let groups = params.learning_rates().count();
        if groups != rates.len() {
            return Err(Error::state(format!("the checkpoint has {} groups, here are {groups}", rates.len())));
        }
        let saved = self.notes.states.iter().filter(|(_, note)| note.param.is_some()).map(|(name, _)| &**name);
        let here: BTreeSet<_> = params.names().collect();
        if let Some(name) = saved.into_iter().find(|name| !here.contains(name)) {
            return Err(Error::state("the checkpoint has this parameter, here it is not").in_tensor(name));
        }
        let restored: Vec<_> = params
            .params()
            .iter()
            .map(|param| {
                let checked = self.checked(&param.name, &param.state)?;
                let note = self.notes.states.get(&param.name).and_then(|note| note.param.as_ref());
                let note = note.filter(|note| note.group == param.group);
                let note = note.ok_or_else(|| {
                    Error::state("in the checkpoint it is in another group, or in none").in_tensor(&param.name)
                })?;
                let mask = if note.masked { Some(self.mask(&param.name)?) } else { None };
                Ok((checked, mask, note.frozen))
            })
            .collect::<Result<_>>()?;
        params.set_learning_rates(&rates)?;
        for (param, (checked, mask, frozen)) in params.params_mut().iter_mut().zip(restored) {
            checked.write(&mut param.state);
            (param.mask, param.frozen) = (mask, frozen);
        }
        Ok(())
    }

    /// Puts back a state by its name, also one of a [`Params`].
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) when there is none, or it is another optimizer's or of another shape or precision;
    /// [`Format`](crate::ErrorKind::Format) for codes that stand for no number. Nothing has changed then.
    pub fn restore_state(&self, name: &str, state: &mut State) -> Result<()> {
        self.checked(name, state)?.write(state);
        Ok(())
    }

    /// Puts back what can be resumed, by its name.
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) when there is none, or it has other numbers, and as [`Resume::resume`]. Nothing has changed
    /// then.
    pub fn resume(&self, name: &str, object: &mut impl Resume) -> Result<()> {
        let numbers = self.notes.objects.get(name).ok_or_else(|| missing(name))?;
        let here: BTreeSet<_> = object.numbers().into_iter().map(|(name, _)| name).collect();
        if !numbers.keys().eq(here.iter()) {
            let reason = format!("the checkpoint has the numbers {:?}, here are {here:?}", numbers.keys());
            return Err(Error::state(reason).in_tensor(name));
        }
        let number = |key: &str| numbers.get(key).map(|number| number.0).ok_or_else(|| missing(key));
        object.resume(&number).map_err(|error| error.in_tensor(name))
    }

    /// A number of the program's own.
    ///
    /// # Errors
    /// [`State`](crate::ErrorKind::State) when there is none of this name.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.notes.numbers.get(name).map(|number| number.0).ok_or_else(|| missing(name))
    }

    /// What is to be written to a state, whatever could be wrong with it checked.
    fn checked(&self, name: &str, state: &State) -> Result<Checked<'_>> {
        let note = self.notes.states.get(name).ok_or_else(|| missing(name))?;
        let checked = same("optimizer", &note.algorithm[..], state.algorithm())
            .and_then(|()| same("shape", &note.shape[..], state.shape()))
            .and_then(|()| {
                let slots = state.slots().iter().map(|slot| (slot.name(), slot.values().form()));
                same(
                    "slots",
                    note.slots.iter().map(|(name, form)| (&**name, &**form)).collect(),
                    slots.collect::<Vec<_>>(),
                )
            })
            .and_then(|()| same("scalars", names(&note.scalars), state.scalars().map(|(name, _)| name).collect()))
            .and_then(|()| state.slots().iter().map(|slot| self.numbers(name, slot)).collect());
        Ok(Checked { note, slots: checked.map_err(|error: Error| error.in_tensor(name))? })
    }

    /// The numbers of a slot whose form is right.
    fn numbers(&self, name: &str, slot: &Slot) -> Result<Numbers<'_>> {
        let key = format!("{name}.{}", slot.name());
        let SlotValues::Eight(values) = slot.values() else {
            let stored = self.tensor(&key)?;
            same("shape of a slot", &stored.info.shape[..], slot.shape())?;
            return Ok(Numbers::Plain(stored.bytes));
        };
        let (codes, exponents) = (self.tensor(&format!("{key}.codes"))?, self.tensor(&format!("{key}.exponents"))?);
        same("shape of a slot", &codes.info.shape[..], slot.shape())?;
        let block = Block8::from_parts(codes.bytes.to_vec(), exponents.bytes.to_vec(), values.map());
        let block = block.filter(|_| exponents.info.shape.len() == 1);
        block.map(Numbers::Eight).ok_or_else(|| Error::format(codes.offset, "codes that stand for no number"))
    }

    fn mask(&self, name: &str) -> Result<Mask> {
        let mask = self.tensor(&mask_key(name))?;
        Mask::from_fn(&mask.info.shape, |index| mask.bytes.get(index) == Some(&1))
            .map_err(|error| error.in_tensor(name))
    }
}

/// A state's numbers in the file, which fit.
struct Checked<'a> {
    note: &'a StateNote,
    slots: Vec<Numbers<'a>>,
}

enum Numbers<'a> {
    /// As the slot keeps them, little-endian.
    Plain(&'a [u8]),
    Eight(Block8),
}

impl Checked<'_> {
    fn write(self, state: &mut State) {
        let (steps, slots, scalars) = state.parts_mut();
        *steps = self.note.steps;
        scalars.iter_mut().zip(&self.note.scalars).for_each(|(scalar, (_, Number(value)))| *scalar = *value);
        for (values, numbers) in slots.zip(self.slots) {
            match (values, numbers) {
                (values, Numbers::Eight(block)) => *values = SlotValues::Eight(block),
                (SlotValues::Full(Values::F32(values)), Numbers::Plain(bytes)) => {
                    copy(values, bytes, f32::from_le_bytes)
                }
                (SlotValues::Full(Values::F64(values)), Numbers::Plain(bytes)) => {
                    copy(values, bytes, f64::from_le_bytes)
                }
                (SlotValues::Bf16(values), Numbers::Plain(bytes)) => copy(values, bytes, bf16::from_le_bytes),
                (SlotValues::Eight(_), Numbers::Plain(_)) => debug_assert!(false, "forms were compared"),
            }
        }
    }
}

fn copy<T, const N: usize>(values: &mut [T], bytes: &[u8], from: impl Fn([u8; N]) -> T) {
    values.iter_mut().zip(bytes.as_chunks::<N>().0).for_each(|(x, bytes)| *x = from(*bytes));
}

/// The tensors of a slot of some form: the endings of their names, and their types.
fn layout(form: &str) -> Option<&'static [(&'static str, ElementType)]> {
    Some(match form {
        "f32" => &[("", ElementType::F32)],
        "f64" => &[("", ElementType::F64)],
        "bf16" => &[("", ElementType::Bf16)],
        "signed 8-bit blocks" | "shifted 8-bit blocks" | "non-negative 8-bit blocks" => {
            &[(".codes", ElementType::U8), (".exponents", ElementType::U8)]
        }
        _ => return None,
    })
}

fn mask_key(name: &str) -> String {
    format!("{name}.mask")
}

fn names(scalars: &[(String, Number)]) -> Vec<&str> {
    scalars.iter().map(|(name, _)| &**name).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, saved: T, here: T) -> Result<()> {
    if saved == here {
        return Ok(());
    }
    Err(Error::state(format!("{what}: the checkpoint has {saved:?}, here is {here:?}")))
}

fn missing(name: &str) -> Error {
    Error::state("not in the checkpoint").in_tensor(name)
}

/// Something is wrong in the header.
fn malformed(reason: impl Into<String>) -> Error {
    Error::format(0, reason)
}
