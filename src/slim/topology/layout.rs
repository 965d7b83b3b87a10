//! What a value of the model looks like: its axes, and which of them has the channels.

use super::union::Atom;

/// The shape of a value for one sample, and its channels.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) shape: Vec<usize>,
    pub(crate) channels: Option<Channels>,
}

/// The axis whose indices can go, and the channel at each of them. Several may be one.
#[derive(Debug, Clone)]
pub(crate) struct Channels {
    pub(crate) axis: usize,
    pub(crate) atoms: Vec<Atom>,
}

impl Layout {
    pub(crate) fn new(shape: Vec<usize>, axis: usize, atoms: Vec<Atom>) -> Self {
        debug_assert_eq!(shape.get(axis), Some(&atoms.len()));
        Self { shape, channels: Some(Channels { axis, atoms }) }
    }

    /// The channels along an axis, where that is where they are.
    pub(crate) fn along(&self, axis: usize) -> Option<&[Atom]> {
        self.channels.as_ref().filter(|channels| channels.axis == axis).map(|channels| &channels.atoms[..])
    }

    /// All channels, wherever they are.
    pub(crate) fn atoms(&self) -> &[Atom] {
        self.channels.as_ref().map_or(&[], |channels| &channels.atoms)
    }

    /// The axis of the channels.
    pub(crate) fn axis(&self) -> Option<usize> {
        self.channels.as_ref().map(|channels| channels.axis)
    }

    /// How many channels there are; of the last axis where nobody knows.
    pub(crate) fn width(&self) -> usize {
        self.axis().and_then(|axis| self.shape.get(axis)).or(self.shape.last()).copied().unwrap_or(1)
    }

    /// How many elements lie beside an axis.
    pub(crate) fn positions(&self, axis: usize) -> usize {
        self.shape.iter().enumerate().filter(|&(i, _)| i != axis).map(|(_, &n)| n).product()
    }
}
