//! The tensors of a model, as far as slimming knows them: names, shapes, and the channels along each axis.

use super::{group::Role, union::Atom};

/// A declared tensor.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) axes: Vec<Axis>,
}

/// What is known of an axis of a tensor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Axis {
    /// The channel at each index; `None` where no index can go.
    pub(crate) atoms: Option<Vec<Atom>>,
    pub(crate) roles: Vec<Role>,
}

impl Shape {
    pub(crate) fn new(name: String, shape: &[usize]) -> Self {
        Self { name, axes: vec![Axis::default(); shape.len()], shape: shape.to_vec() }
    }
}
