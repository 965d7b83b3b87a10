//! How a node's rule ties channels together while it is added.

use super::{
    builder::Builder,
    group::Role,
    layout::Layout,
    tensor::Axis,
    union::{Atom, Union},
};
use crate::error::{Error, Result};

/// A node that is being added.
pub(crate) struct Link<'a> {
    pub(super) builder: &'a mut Builder,
    pub(super) node: &'a str,
    pub(super) inputs: &'a [Layout],
    /// What was known of the axes that it ties: tensor, axis and that.
    pub(super) before: Vec<(usize, usize, Axis)>,
}

impl<'a> Link<'a> {
    pub(crate) fn inputs(&self) -> &'a [Layout] {
        self.inputs
    }

    /// The only input.
    ///
    /// # Errors
    /// When there is not just one.
    pub(crate) fn input(&self) -> Result<&'a Layout> {
        match self.inputs {
            [input] => Ok(input),
            inputs => Err(Error::argument("number of inputs", inputs.len(), "1")),
        }
    }

    /// The shape of a tensor of the model.
    pub(crate) fn shape(&self, tensor: &str) -> Result<Vec<usize>> {
        let known = self.builder.find(tensor).map(|index| self.builder.tensors[index].shape.clone());
        known.ok_or_else(|| Error::argument("tensor", "not declared", "one of the model's").in_tensor(tensor))
    }

    /// The shape of a tensor that must be a list of `len`.
    pub(crate) fn vector(&self, tensor: &str, len: usize) -> Result<()> {
        let shape = self.shape(tensor)?;
        if shape == [len] { Ok(()) } else { Err(Error::shape("tensor", &[len], &shape).in_tensor(tensor)) }
    }

    pub(crate) fn fresh(&mut self, count: usize) -> Result<Vec<Atom>> {
        self.builder.union.fresh(count)
    }

    /// New channels that cannot go.
    pub(crate) fn fresh_frozen(&mut self, count: usize, reason: &str) -> Result<Vec<Atom>> {
        let atoms = self.fresh(count)?;
        self.freeze(&atoms, reason);
        Ok(atoms)
    }

    pub(crate) fn union(&mut self) -> &mut Union {
        &mut self.builder.union
    }

    pub(crate) fn unite(&mut self, a: &[Atom], b: &[Atom]) {
        self.builder.union.unite_all(a, b);
    }

    /// Makes one of all these.
    pub(crate) fn merge(&mut self, atoms: &[Atom]) {
        atoms.windows(2).for_each(|pair| self.builder.union.unite(pair[0], pair[1]));
    }

    pub(crate) fn freeze(&mut self, atoms: &[Atom], reason: &str) {
        let reason = format!("{reason} `{}`", self.node);
        self.builder.union.freeze(atoms, &reason);
    }

    /// Says that the indices of a tensor's axis are these channels.
    pub(crate) fn axis(&mut self, tensor: &str, axis: usize, atoms: &[Atom], role: Role) -> Result<()> {
        let shape = self.shape(tensor)?;
        let index = self.builder.find(tensor).unwrap_or_default();
        if shape.get(axis) != Some(&atoms.len()) {
            let mut expected = shape.clone();
            expected.resize(expected.len().max(axis + 1), 1);
            expected[axis] = atoms.len();
            return Err(Error::shape("tensor", &expected, &shape).in_tensor(tensor));
        }
        let entry = &mut self.builder.tensors[index].axes[axis];
        self.before.push((index, axis, entry.clone()));
        if !entry.roles.contains(&role) {
            entry.roles.push(role);
        }
        match entry.atoms.clone() {
            Some(known) => self.builder.union.unite_all(&known, atoms),
            None => entry.atoms = Some(atoms.to_vec()),
        }
        Ok(())
    }
}
