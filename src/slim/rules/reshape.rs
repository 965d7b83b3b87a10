//! The same elements in another shape: flattening, heads, the shuffling of channels.

use super::{At, Constants, Cut, Node, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Atom, Layout, Link, Union},
    tensor::view::filled,
};
use std::ops::Range;

/// The same elements, in order, in another shape.
///
/// Where axes are put together, each channel has all the indices that come of it: a flattened image's channel has as many as
/// it has pixels. Where the channels' axis is split, one of the new axes is that of the channels, and what has one index along it goes
/// together: the one that leaves most to go, or that [asked for](Reshape::along).
#[derive(Debug, Clone)]
pub struct Reshape {
    /// A vector of all elements, if none.
    shape: Option<Vec<usize>>,
    along: Option<usize>,
}

impl Reshape {
    /// To this shape of one sample.
    #[must_use]
    pub fn new(shape: &[usize]) -> Self {
        Self { shape: Some(shape.to_vec()), along: None }
    }

    /// To a vector.
    #[must_use]
    pub fn flat() -> Self {
        Self { shape: None, along: None }
    }

    /// The channels are to be on this axis of the new shape.
    #[must_use]
    pub fn along(self, axis: usize) -> Self {
        Self { along: Some(axis), ..self }
    }
}

/// Axes of the input and axes of the output that hold the same indices.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    from: Range<usize>,
    to: Range<usize>,
}

/// The finest blocks, in order; `None` where the shapes have not as many elements. No length is 0.
fn blocks(from: &[usize], to: &[usize]) -> Option<Vec<Block>> {
    let (mut i, mut j) = (0, 0);
    let mut blocks: Vec<Block> = Vec::new();
    while i < from.len() && j < to.len() {
        let start = (i, j);
        let (mut a, mut b) = (from[i], to[j]);
        (i, j) = (i + 1, j + 1);
        while a != b {
            if a < b {
                a = a.checked_mul(*from.get(i)?)?;
                i += 1;
            } else {
                b = b.checked_mul(*to.get(j)?)?;
                j += 1;
            }
        }
        blocks.push(Block { from: start.0..i, to: start.1..j });
    }
    // What is left is of length 1.
    if from[i..].iter().chain(&to[j..]).any(|&n| n != 1) {
        return None;
    }
    match blocks.last_mut() {
        Some(last) => (last.from.end, last.to.end) = (from.len(), to.len()),
        None => blocks.push(Block { from: 0..from.len(), to: 0..to.len() }),
    }
    Some(blocks)
}

/// The index along an axis of a shape, of the element that is so far from the first.
fn index(shape: &[usize], axis: usize, flat: usize) -> usize {
    let inner: usize = shape[axis + 1..].iter().product();
    flat / inner % shape[axis]
}

/// How many sets of channels could go if `axis` of `to` were theirs.
fn freedom(
    link: &mut Link<'_>,
    atoms: &[Atom],
    channel: impl Fn(usize) -> usize,
    to: &[usize],
    axis: usize,
) -> Result<usize> {
    let mut union = Union::default();
    let local = union.fresh(atoms.len())?;
    let mut roots: Vec<(Atom, usize)> = atoms.iter().map(|&atom| link.union().root(atom)).zip(local).collect();
    roots.sort_unstable();
    for pair in roots.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        union.unite(pair[0].1, pair[1].1);
    }
    let mut first = filled(to[axis], usize::MAX)?;
    for flat in 0..to.iter().product() {
        let first = &mut first[index(to, axis, flat)];
        if *first == usize::MAX {
            *first = channel(flat);
        }
        union.unite(*first, channel(flat));
    }
    Ok((0..atoms.len()).filter(|&i| union.root(i) == i).count())
}

impl Reshape {
    fn target(&self, input: &Layout) -> Vec<usize> {
        self.shape.clone().unwrap_or_else(|| vec![input.shape.iter().product()])
    }
}

impl Rule for Reshape {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let input = link.input()?;
        let shape = self.target(input);
        let wrong = || Error::shape("new shape", &input.shape, &shape);
        if shape.contains(&0) {
            return Err(wrong());
        }
        let blocks = blocks(&input.shape, &shape).ok_or_else(wrong)?;
        let Some(channels) = &input.channels else { return Ok(Layout { shape, channels: None }) };
        let block = blocks.iter().find(|block| block.from.contains(&channels.axis)).ok_or_else(wrong)?;
        let (from, to) = (&input.shape[block.from.clone()], &shape[block.to.clone()]);
        // An axis of length 1 may fall into any block.
        let single = input.shape[channels.axis] == 1;
        let lone = |along: &usize| shape.get(*along).is_some_and(|&n| n == 1 || single);
        if let Some(along) = self.along.filter(|along| lone(along) && !block.to.contains(along)) {
            link.merge(&channels.atoms);
            let atoms = vec![channels.atoms[0]; shape[along]];
            return Ok(Layout::new(shape, along, atoms));
        }
        let axis = channels.axis - block.from.start;
        let channel = |flat: usize| index(from, axis, flat);
        let mut best: Option<(usize, usize)> = None;
        for new in 0..to.len() {
            let asked = self.along.is_none_or(|axis| axis == block.to.start + new);
            if asked && (to.len() == 1 || to[new] > 1 || self.along.is_some()) {
                let free = if to.len() == 1 { 1 } else { freedom(link, &channels.atoms, channel, to, new)? };
                best = best.filter(|(most, _)| *most >= free).or(Some((free, new)));
            }
        }
        if best.is_none()
            && let Some(axis) = self.along
        {
            return Err(Error::argument("axis of the channels", axis, "one that comes of theirs"));
        }
        let new = best.map_or(0, |(_, new)| new);
        let mut atoms = filled(*to.get(new).ok_or_else(wrong)?, usize::MAX)?;
        for flat in 0..to.iter().product() {
            let (place, atom) = (index(to, new, flat), channels.atoms[channel(flat)]);
            if atoms[place] == usize::MAX {
                atoms[place] = atom;
            }
            link.union().unite(atoms[place], atom);
        }
        Ok(Layout::new(shape.clone(), block.to.start + new, atoms))
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let (input, output) = (at.input(0), at.output());
        let Some(blocks) = blocks(&input.shape, &output.shape).filter(|_| output.axis().is_some()) else {
            return Constants::unknown(output);
        };
        let varies = |block: &&Block| inputs[0].axes.iter().any(|axis| block.from.contains(axis));
        let blocks: Vec<&Block> = blocks.iter().filter(varies).collect();
        let mut axes: Vec<usize> = blocks.iter().flat_map(|block| block.to.clone()).collect();
        axes.extend(output.axis().filter(|axis| !axes.contains(axis)));
        Constants::tabulate(output, axes.clone(), |place| {
            inputs[0].get(|axis| {
                let Some(block) = blocks.iter().find(|block| block.from.contains(&axis)) else { return 0 };
                let mut at = axes.iter().zip(place).filter(|(axis, _)| block.to.contains(axis));
                let flat = at.by_ref().fold(0, |flat, (&axis, &i)| flat * output.shape[axis] + i);
                index(&input.shape[block.from.clone()], axis - block.from.start, flat)
            })
        })
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        let along = cut.at.output().axis().filter(|_| self.shape.is_some());
        Self { shape: self.shape.as_ref().map(|_| cut.output_shape()), along }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fall_into_their_finest_blocks() {
        let ranges = |from: &[usize], to: &[usize]| {
            let pair = |block: Block| (block.from.start, block.from.end, block.to.start, block.to.end);
            blocks(from, to).map(|blocks| blocks.into_iter().map(pair).collect::<Vec<_>>())
        };
        assert_eq!(ranges(&[6, 4, 4], &[96]), Some(vec![(0, 3, 0, 1)]));
        assert_eq!(ranges(&[6, 5], &[2, 3, 5]), Some(vec![(0, 1, 0, 2), (1, 2, 2, 3)]));
        assert_eq!(ranges(&[32, 1, 1], &[32]), Some(vec![(0, 3, 0, 1)]));
        assert_eq!(ranges(&[8], &[1, 8, 1]), Some(vec![(0, 1, 0, 3)]));
        assert_eq!(ranges(&[4, 6], &[6, 4]), Some(vec![(0, 2, 0, 2)]));
        assert_eq!(ranges(&[], &[1]), Some(vec![(0, 0, 0, 1)]));
        assert_eq!((ranges(&[4], &[5]), ranges(&[4, 2], &[4])), (None, None));
    }
}
