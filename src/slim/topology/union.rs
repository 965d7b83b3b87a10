//! Which channels must stay or go together: disjoint sets.

use crate::{error::Result, tensor::view::filled};
use std::collections::BTreeMap;

/// A channel of some value or tensor.
pub(crate) type Atom = usize;

/// Disjoint sets of channels; a set may be frozen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Union {
    parents: Vec<Atom>,
    /// Why a set, known by its root, may not go.
    frozen: BTreeMap<Atom, String>,
}

impl Union {
    /// So many new channels, each on its own.
    pub(crate) fn fresh(&mut self, count: usize) -> Result<Vec<Atom>> {
        let mut atoms = filled(count, self.parents.len())?;
        atoms.iter_mut().enumerate().for_each(|(i, atom)| *atom += i);
        self.parents.extend(&atoms);
        Ok(atoms)
    }

    pub(crate) fn len(&self) -> usize {
        self.parents.len()
    }

    /// The least channel of the set.
    pub(crate) fn root(&mut self, mut atom: Atom) -> Atom {
        while self.parents[atom] != atom {
            self.parents[atom] = self.parents[self.parents[atom]];
            atom = self.parents[atom];
        }
        atom
    }

    pub(crate) fn unite(&mut self, a: Atom, b: Atom) {
        let (a, b) = (self.root(a), self.root(b));
        let (root, other) = (a.min(b), a.max(b));
        if root != other {
            self.parents[other] = root;
            if let Some(reason) = self.frozen.remove(&other) {
                self.frozen.entry(root).or_insert(reason);
            }
        }
    }

    /// Unites what stands at equal places.
    pub(crate) fn unite_all(&mut self, a: &[Atom], b: &[Atom]) {
        a.iter().zip(b).for_each(|(&a, &b)| self.unite(a, b));
    }

    /// Forbids that the sets of these channels go. An earlier reason stays.
    pub(crate) fn freeze(&mut self, atoms: &[Atom], reason: &str) {
        for &atom in atoms {
            let root = self.root(atom);
            self.frozen.entry(root).or_insert_with(|| reason.to_owned());
        }
    }

    /// Why the set of a root may not go.
    pub(crate) fn frozen(&self, root: Atom) -> Option<&str> {
        self.frozen.get(&root).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_are_those_of_a_search_through_all_pairs(pairs in prop::collection::vec((0usize..20, 0usize..20), 0..20), frozen in 0usize..20) {
            let mut union = Union::default();
            let atoms = union.fresh(20).unwrap();
            union.freeze(&[frozen], "why");
            pairs.iter().for_each(|&(a, b)| union.unite(a, b));
            let mut least: Vec<usize> = atoms.clone();
            for _ in 0..20 {
                for &(a, b) in &pairs {
                    let min = least[a].min(least[b]);
                    (least[a], least[b]) = (min, min);
                }
            }
            for atom in atoms {
                prop_assert_eq!(union.root(atom), least[atom]);
                let root = union.root(atom);
                prop_assert_eq!(union.frozen(root).is_some(), least[atom] == least[frozen]);
            }
        }
    }
}
