//! Which channels must stay or go together: disjoint sets.

use crate::{error::Result, tensor::view::filled};
use std::{collections::BTreeMap, sync::Arc};

/// A channel of some value or tensor.
pub(crate) type Atom = usize;

/// Disjoint sets of channels; a set may be frozen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Union {
    parents: Vec<Atom>,
    /// Why a set, known by its root, may not go.
    frozen: BTreeMap<Atom, Arc<str>>,
    /// What has changed since the last mark, where one was set.
    journal: Option<Journal>,
}

/// What to put back, the last first.
#[derive(Debug, Clone, Default)]
struct Journal {
    len: usize,
    parents: Vec<(Atom, Atom)>,
    frozen: Vec<(Atom, Option<Arc<str>>)>,
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

    /// From here on all changes can be [undone](Union::undo), until [committed](Union::commit).
    pub(super) fn mark(&mut self) {
        self.journal = Some(Journal { len: self.parents.len(), ..Journal::default() });
    }

    /// Keeps what has changed since the mark.
    pub(super) fn commit(&mut self) {
        self.journal = None;
    }

    /// As it was at the mark.
    pub(super) fn undo(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        for (atom, parent) in journal.parents.into_iter().rev() {
            self.parents[atom] = parent;
        }
        self.parents.truncate(journal.len);
        for (root, reason) in journal.frozen.into_iter().rev() {
            match reason {
                Some(reason) => self.frozen.insert(root, reason),
                None => self.frozen.remove(&root),
            };
        }
    }

    fn set_parent(&mut self, atom: Atom, parent: Atom) {
        let before = std::mem::replace(&mut self.parents[atom], parent);
        if let Some(journal) = &mut self.journal {
            journal.parents.push((atom, before));
        }
    }

    fn set_frozen(&mut self, root: Atom, reason: Option<Arc<str>>) {
        let before = match reason {
            Some(reason) => self.frozen.insert(root, reason),
            None => self.frozen.remove(&root),
        };
        if let Some(journal) = &mut self.journal {
            journal.frozen.push((root, before));
        }
    }

    /// The least channel of the set.
    pub(crate) fn root(&mut self, mut atom: Atom) -> Atom {
        while self.parents[atom] != atom {
            let (parent, above) = (self.parents[atom], self.parents[self.parents[atom]]);
            if above != parent {
                self.set_parent(atom, above);
            }
            atom = above;
        }
        atom
    }

    pub(crate) fn unite(&mut self, a: Atom, b: Atom) {
        let (a, b) = (self.root(a), self.root(b));
        let (root, other) = (a.min(b), a.max(b));
        if root != other {
            self.set_parent(other, root);
            if let Some(reason) = self.frozen.get(&other).cloned() {
                self.set_frozen(other, None);
                if !self.frozen.contains_key(&root) {
                    self.set_frozen(root, Some(reason));
                }
            }
        }
    }

    /// Unites what stands at equal places.
    pub(crate) fn unite_all(&mut self, a: &[Atom], b: &[Atom]) {
        a.iter().zip(b).for_each(|(&a, &b)| self.unite(a, b));
    }

    /// Forbids that the sets of these channels go. An earlier reason stays.
    pub(crate) fn freeze(&mut self, atoms: &[Atom], reason: &str) {
        let reason: Arc<str> = reason.into();
        for &atom in atoms {
            let root = self.root(atom);
            if !self.frozen.contains_key(&root) {
                self.set_frozen(root, Some(Arc::clone(&reason)));
            }
        }
    }

    /// Why the set of a root may not go.
    pub(crate) fn frozen(&self, root: Atom) -> Option<&str> {
        self.frozen.get(&root).map(|reason| &**reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_undone_never_was(
            before in prop::collection::vec((0usize..20, 0usize..20), 0..20),
            after in prop::collection::vec((0usize..30, 0usize..30), 0..30),
            frozen in prop::collection::vec(0usize..30, 4),
        ) {
            let mut union = Union::default();
            union.fresh(20).unwrap();
            before.iter().for_each(|&(a, b)| union.unite(a, b));
            union.freeze(&[frozen[0] % 20, frozen[1] % 20], "before");
            let mut kept = union.clone();
            union.mark();
            union.fresh(10).unwrap();
            for (i, &(a, b)) in after.iter().enumerate() {
                union.unite(a, b);
                if i == 2 {
                    union.freeze(&frozen, "after");
                }
            }
            union.undo();
            prop_assert_eq!((&union.parents, &union.frozen), (&kept.parents, &kept.frozen));
            // What is committed stays.
            union.mark();
            after.iter().for_each(|&(a, b)| union.unite(a % 20, b % 20));
            union.commit();
            union.undo();
            after.iter().for_each(|&(a, b)| kept.unite(a % 20, b % 20));
            prop_assert!((0..20).all(|atom| union.root(atom) == kept.root(atom)));
        }

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
