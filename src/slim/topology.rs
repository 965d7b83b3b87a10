//! Which channels of which tensors belong together.

use crate::error::{Error, Result};

/// How a tensor takes part in a group of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Its slices compute the channels: the rows of a dense layer's weights.
    Produces,
    /// Its elements are added to the channels: a bias.
    Shifts,
    /// Its slices read the channels: the columns of the next layer's weights.
    Consumes,
}

/// An axis of a tensor, indexed by the channels of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The tensor's name.
    pub tensor: String,
    /// The axis, from 0.
    pub axis: usize,
    /// What the tensor does with the channels.
    pub role: Role,
}

impl Member {
    /// An axis of a tensor and what it does with the channels.
    #[must_use]
    pub fn new(tensor: impl Into<String>, axis: usize, role: Role) -> Self {
        Self { tensor: tensor.into(), axis, role }
    }
}

/// Channels that must stay or go together, in all tensors that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// A name for reports.
    pub name: String,
    /// How many channels there are.
    pub size: usize,
    /// The axes they index.
    pub members: Vec<Member>,
    /// Why none may go, where that is so.
    pub frozen: Option<String>,
}

/// The groups of channels of a model. A [`Chain`](super::Chain) gives its own; for any other model the
/// groups can be listed by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    groups: Vec<Group>,
}

impl Topology {
    /// A model without groups yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a group of `size` channels.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the size is 0, the name is taken, or an axis of a tensor is
    /// in a group already.
    pub fn group(mut self, name: impl Into<String>, size: usize, members: Vec<Member>) -> Result<Self> {
        let name = name.into();
        if size == 0 {
            return Err(Error::argument("group size", 0, "at least 1").in_tensor(&name));
        }
        if self.find(&name).is_some() {
            return Err(Error::argument("group name", name, "unique"));
        }
        for member in &members {
            if self.groups.iter().flat_map(|group| &group.members).any(|m| m.is_axis(&member.tensor, member.axis)) {
                return Err(Error::argument("axis", member.axis, "in one group only").in_tensor(&member.tensor));
            }
        }
        self.groups.push(Group { name, size, members, frozen: None });
        Ok(self)
    }

    /// Forbids that a channel of the group goes.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown group.
    pub fn freeze(mut self, group: &str, reason: impl Into<String>) -> Result<Self> {
        self.find_mut(group)?.frozen = Some(reason.into());
        Ok(self)
    }

    /// Allows that channels of a frozen group go: of a model's inputs, when the caller will feed just the kept ones.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown group.
    pub fn unfreeze(mut self, group: &str) -> Result<Self> {
        self.find_mut(group)?.frozen = None;
        Ok(self)
    }

    /// All groups.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.groups.iter().position(|group| group.name == name)
    }

    fn find_mut(&mut self, name: &str) -> Result<&mut Group> {
        let known = self.groups.iter_mut().find(|group| group.name == name);
        known.ok_or_else(|| Error::argument("group", format!("{name:?}"), "one of the topology's"))
    }
}

impl Member {
    pub(super) fn is_axis(&self, tensor: &str, axis: usize) -> bool {
        self.tensor == tensor && self.axis == axis
    }
}
