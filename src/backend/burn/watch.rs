//! What a caller sees and changes of optimizers that burn owns.

use super::masks::Masks;
use crate::{
    error::{Error, Result},
    tensor::Mask,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A handle on optimizers that were given to burn: their error, their copies, their masks.
///
/// burn's optimizers cannot fail, so a refused step is kept here. From then on no parameter moves any more until the error is
/// taken: ask after each step.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    error: Option<Error>,
    copies: Copies,
    /// Shapes of the parameters that have a name.
    shapes: BTreeMap<String, Vec<usize>>,
    masks: BTreeMap<String, Arc<Mask>>,
}

/// What steps were done, and what they copied beside the arithmetic, counted in tensors.
///
/// On `flex` a step works in the parameter's own memory and reads the gradient where it is: both counts of copies stay 0, unless
/// something else shares the parameter's elements (a clone of the module, [`Weights`](super::Weights)), or a gradient lies in
/// another order than the logical one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copies {
    /// Steps of one parameter.
    pub steps: u64,
    /// Of these, by burn's own tensor operations.
    pub by_operations: u64,
    /// Parameters in host memory that were copied first.
    pub parameters: u64,
    /// Gradients in host memory that were copied first.
    pub gradients: u64,
    /// Parameters and gradients read from a device into host memory; parameters go back. State that moves with its parameter is
    /// not counted: it moves once.
    pub from_device: u64,
}

impl Watch {
    /// Nothing watched yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of the first step that was refused since this was last asked. Steps go on from here.
    pub fn take_error(&self) -> Option<Error> {
        self.shared().error.take()
    }

    /// As [`take_error`](Watch::take_error), for `?`.
    ///
    /// # Errors
    /// The error that was kept.
    pub fn check(&self) -> Result<()> {
        self.take_error().map_or(Ok(()), Err)
    }

    /// What was done and copied so far.
    #[must_use]
    pub fn copies(&self) -> Copies {
        self.shared().copies
    }

    /// Keeps pruned weights at 0 and their state at its initial value from the next step on, instead of the masks before.
    /// The weights are not changed before that: [`Masks::apply`] does.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a name that no watched parameter has: those that
    /// [`for_module`](super::Adapter::for_module) found; [`Shape`](crate::ErrorKind::Shape) for a mask of another shape. The masks
    /// before stay then.
    pub fn set_masks(&self, masks: &Masks) -> Result<()> {
        let mut shared = self.shared();
        for (name, mask) in masks.iter() {
            let shape = shared.shapes.get(name).ok_or_else(|| super::unknown(name))?;
            mask.check(shape).map_err(|error| error.in_tensor(name))?;
        }
        shared.masks = masks.shared().clone();
        Ok(())
    }

    pub(super) fn add(&self, names: &[(String, Vec<usize>)]) {
        self.shared().shapes.extend(names.iter().cloned());
    }

    pub(super) fn has_error(&self) -> bool {
        self.shared().error.is_some()
    }

    pub(super) fn keep(&self, error: Error) {
        self.shared().error.get_or_insert(error);
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Copies)) {
        add(&mut self.shared().copies);
    }

    /// The mask of a parameter.
    ///
    /// # Errors
    /// When there are masks, but no name that says which.
    pub(super) fn mask(&self, name: Option<&str>) -> Result<Option<Arc<Mask>>> {
        let shared = self.shared();
        match name {
            Some(name) => Ok(shared.masks.get(name).cloned()),
            None if shared.masks.is_empty() => Ok(None),
            None => Err(Error::argument("parameter", "without a name, under masks", "one that `for_module` found")),
        }
    }
}
