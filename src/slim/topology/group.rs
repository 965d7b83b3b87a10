//! Groups: channels that are alike, each of which stays or goes in all tensors that have it.

use super::{builder::Entry, tensor::Shape, union::Union};
use std::collections::BTreeMap;

/// What a tensor does with the channels along one of its axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Role {
    /// Its slices compute the channels: the rows of a dense layer's weights. A masked model has 0 in them.
    Produces,
    /// Its elements shift or scale the channels: a bias, batch normalization.
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
    /// What the tensor does with the channels; of tied weights more than one thing.
    pub roles: Vec<Role>,
    /// How many indices one channel of the group has there: 4 gates of a unit, 16 pixels of a flattened channel.
    pub indices: usize,
}

/// Channels of one kind. Each stays or goes on its own, in all members at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// The name of the first node whose output has them.
    pub name: String,
    /// How many channels there are; of attention, heads.
    pub size: usize,
    /// The axes they index.
    pub members: Vec<Member>,
    /// Why none may go, where that is so.
    pub frozen: Option<String>,
}

/// Where a channel is: in which group, and which of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: usize,
    pub(crate) at: usize,
}

/// Where sets of channels occur: in a value's channels or along a tensor's axis, and how often.
type Signature = (Vec<(usize, usize)>, Vec<(usize, usize, usize)>, Option<String>);

/// The groups, in the order of their first channel, and the place of each channel.
pub(super) fn collect(union: &mut Union, nodes: &[Entry], tensors: &[Shape]) -> (Vec<Group>, Vec<Place>) {
    let roots: Vec<usize> = (0..union.len()).map(|atom| union.root(atom)).collect();
    let mut signatures: Vec<Signature> = vec![Signature::default(); roots.len()];
    for (value, node) in nodes.iter().enumerate() {
        each_count(&roots, node.layout.atoms(), |root, count| signatures[root].0.push((value, count)));
    }
    for (index, tensor) in tensors.iter().enumerate() {
        for (axis, entry) in tensor.axes.iter().enumerate() {
            let atoms = entry.atoms.as_deref().unwrap_or_default();
            each_count(&roots, atoms, |root, count| signatures[root].1.push((index, axis, count)));
        }
    }
    // Sets that occur alike are of one group.
    let mut known: BTreeMap<Signature, usize> = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut places = vec![Place { group: 0, at: 0 }; roots.len()];
    for (root, mut signature) in signatures.into_iter().enumerate().filter(|(atom, _)| roots[*atom] == *atom) {
        signature.2 = union.frozen(root).map(str::to_owned);
        let index = match known.get(&signature) {
            Some(&index) => index,
            None => {
                groups.push(group(&signature, nodes, tensors, &groups));
                known.insert(signature, groups.len() - 1);
                groups.len() - 1
            }
        };
        places[root] = Place { group: index, at: groups[index].size };
        groups[index].size += 1;
    }
    for atom in 0..roots.len() {
        places[atom] = places[roots[atom]];
    }
    (groups, places)
}

fn group((values, axes, frozen): &Signature, nodes: &[Entry], tensors: &[Shape], others: &[Group]) -> Group {
    let member = |&(tensor, axis, indices): &(usize, usize, usize)| {
        let Shape { name, axes, .. } = &tensors[tensor];
        Member { tensor: name.clone(), axis, roles: axes[axis].roles.clone(), indices }
    };
    let members: Vec<_> = axes.iter().map(member).collect();
    let node = values.first().map(|&(value, _)| nodes[value].name.as_str());
    let base = node.or(members.first().map(|member| member.tensor.as_str())).unwrap_or("unused");
    let taken = |name: &str| others.iter().any(|group| group.name == name);
    let numbered = (2..).map(|i| format!("{base}.{i}"));
    let name = std::iter::once(base.to_owned()).chain(numbered).find(|name| !taken(name));
    Group { name: name.unwrap_or_default(), size: 0, members, frozen: frozen.clone() }
}

/// How often each set occurs in a list of channels, of those that do.
fn each_count(roots: &[usize], atoms: &[usize], mut found: impl FnMut(usize, usize)) {
    let mut sets: Vec<usize> = atoms.iter().map(|&atom| roots[atom]).collect();
    // Mostly they are in order.
    sets.sort_unstable();
    sets.chunk_by(|a, b| a == b).for_each(|alike| found(alike[0], alike.len()));
}
