//! Writing a checkpoint.

use super::{
    FORMAT, VERSION, checksum,
    notes::{Notes, Number, ParamNote, StateNote, learning_rates},
};
use crate::{
    element::Element,
    error::{Error, Result},
    format::{
        safetensors::arrays::{self, Numbers, Tensors},
        write_atomically,
    },
    optim::Params,
    tensor::State,
    traits::Resume,
};
use std::{collections::BTreeMap, path::Path};

/// What is to be saved. States and masks are borrowed, and go to the file as they lie.
#[derive(Debug, Default)]
pub struct Checkpoint<'a> {
    tensors: Tensors<'a>,
    notes: Notes,
}

impl<'a> Checkpoint<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds named parameters: states, masks, which ones are frozen, and the learning rate of each group. The seed of
    /// [`stochastic_rounding`](Params::stochastic_rounding) and [`check_finite`](Params::check_finite) are the program's, as
    /// the optimizers are.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when there are some already, or a name is taken.
    pub fn with_params<T: Element>(mut self, params: &'a Params<T>) -> Result<Self> {
        if self.notes.learning_rates.is_some() {
            return Err(Error::argument("number of `Params`", 2, "at most 1"));
        }
        self.notes.learning_rates = Some(learning_rates(params));
        for param in params.params() {
            let note = ParamNote { group: param.group, frozen: param.frozen, masked: param.mask.is_some() };
            self.add(&param.name, &param.state, Some(note))?;
            if let Some(mask) = &param.mask {
                let name = format!("{}.mask", param.name);
                arrays::add(&mut self.tensors, name, mask.shape().into(), Numbers::Mask(mask))?;
            }
        }
        Ok(self)
    }

    /// Adds the state of a parameter that is in no [`Params`].
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when a name is taken.
    pub fn with_state(mut self, name: &str, state: &'a State) -> Result<Self> {
        self.add(name, state, None)?;
        Ok(self)
    }

    /// Adds the numbers of a [`Scaler`](crate::optim::Scaler), a [`Plateau`](crate::optim::Plateau), or what else can be resumed.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the name is taken by another of them.
    pub fn with_resume(mut self, name: &str, object: &impl Resume) -> Result<Self> {
        let numbers = object.numbers().into_iter().map(|(name, value)| (name.to_string(), Number(value)));
        put(&mut self.notes.objects, name, numbers.collect())?;
        Ok(self)
    }

    /// Adds a number of the program's own: the epoch, the place in the data. It is kept to the bit.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the name is taken by another number.
    pub fn with_number(mut self, name: &str, value: f64) -> Result<Self> {
        put(&mut self.notes.numbers, name, Number(value))?;
        Ok(self)
    }

    fn add(&mut self, name: &str, state: &'a State, param: Option<ParamNote>) -> Result<()> {
        put(&mut self.notes.states, name, StateNote::of(state, param))?;
        for slot in state.slots() {
            for (ending, shape, numbers) in Numbers::of(slot.values(), slot.shape()) {
                let name = format!("{name}.{}{ending}", slot.name());
                arrays::add(&mut self.tensors, name, shape, numbers)?;
            }
        }
        Ok(())
    }

    /// Writes the file: first beside it, synced, then renamed, so that there is never half a file.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when that fails, [`Argument`](crate::ErrorKind::Argument) when names and notes take more
    /// than 100 MB. The file is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let header = self.header()?;
        write_atomically(path.as_ref(), |file| arrays::write(file, &header, &self.tensors))
    }

    /// The file, as bytes.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when names and notes take more than 100 MB.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let written = arrays::write(&mut bytes, &self.header()?, &self.tensors);
        written.map_err(|error| Error::io(Path::new("memory"), error))?;
        Ok(bytes)
    }

    fn header(&self) -> Result<Vec<u8>> {
        let notes = serde_json::to_string(&self.notes)
            .map_err(|error| Error::argument("checkpoint", error, "one that JSON can say"))?;
        let sum = checksum(arrays::checksum(&self.tensors), &notes);
        let notes = [("format", FORMAT.into()), ("version", VERSION.into()), ("notes", notes), ("checksum", sum)];
        arrays::header(&self.tensors, &notes.into())
    }
}

fn put<V>(map: &mut BTreeMap<String, V>, name: &str, value: V) -> Result<()> {
    if map.contains_key(name) {
        return Err(Error::argument("name", format!("{name:?}"), "unique"));
    }
    map.insert(name.into(), value);
    Ok(())
}
