//! The score that a share of all weights is below, exactly, in passes over the file.
//!
//! Scores are taken as integers that order as they do. A pass counts how many have each value of the 16 highest bits; the next looks at
//! those that have the value in which the searched one falls, and at the following 16 bits; and so on. Counts are integers, so their sums
//! do not depend on who adds them.

use super::{Pruning, Weights, key, scores, zeros::MAGNITUDE};
use crate::{
    compress::{
        run::{Watched, each},
        source::{CHUNK, Source},
    },
    error::{Error, Result},
    kernel::best::removed,
};
use std::sync::Mutex;

const DIGIT: u32 = 16;
/// Of 31 bits.
pub(super) const MAGNITUDE_PASSES: u64 = 2;
/// Of 64 bits.
pub(super) const SCORE_PASSES: u64 = 4;

/// What stays of a tensor: what scores higher than `bits`, and of those that score the same what is before index `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compress) struct Threshold {
    pub(super) bits: u64,
    pub(super) end: usize,
}

impl Threshold {
    /// All stays.
    pub(super) const NOTHING: Self = Self { bits: 0, end: usize::MAX };

    /// Whether a score stays.
    pub(super) fn keeps(self, index: usize, key: u64) -> bool {
        key > self.bits || (key == self.bits && index < self.end)
    }
}

/// Calls `visit` with the index and the key of each element, in order.
fn keys(pruning: &Pruning, source: &Source, mut visit: impl FnMut(usize, u64)) -> Result<()> {
    if let Some(criterion) = &pruning.criterion {
        scores(&**criterion, source)?.into_iter().enumerate().for_each(|(i, score)| visit(i, key(score)));
        return Ok(());
    }
    source.chunks(CHUNK / 2, &mut |first, values| {
        for (i, &x) in values.iter().enumerate() {
            let bits = x.to_bits() & MAGNITUDE;
            if bits >= f32::INFINITY.to_bits() {
                return Err(Error::non_finite("tensor", first + i, x.into()));
            }
            visit(first + i, bits.into());
        }
        Ok(())
    })
}

/// The thresholds below which a share of the weights of a group lies: one score for all, each with its own end.
pub(super) fn thresholds(
    pruning: &Pruning,
    share: f64,
    group: &[usize],
    weights: &Weights<'_>,
    watched: &Watched<'_>,
) -> Result<Vec<Threshold>> {
    let visit = |index: usize, visit: &mut dyn FnMut(&Source) -> Result<()>| {
        weights.named(index, (weights.source)(index).and_then(|source| visit(&source)))
    };
    let lengths = Mutex::new(0usize);
    let passes = if pruning.criterion.is_some() { SCORE_PASSES } else { MAGNITUDE_PASSES };
    let (mut prefix, mut go, mut ties) = (0u64, 0u64, 0u64);
    for pass in 0..passes {
        let shift = DIGIT * (passes - 1 - pass) as u32;
        let counts = Mutex::new(vec![0u64; 1 << DIGIT]);
        each(group, |&index| {
            let mut own = vec![0u32; 1 << DIGIT];
            let mut len = 0;
            let spill = |own: &mut [u32]| {
                let mut counts = counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                counts.iter_mut().zip(&mut *own).for_each(|(sum, own)| *sum += u64::from(std::mem::take(own)));
            };
            visit(index, &mut |source| {
                keys(pruning, source, |_, key| {
                    // The prefix of the first pass is that of all.
                    if pass == 0 || key >> (shift + DIGIT) == prefix {
                        own[(key >> shift) as usize & ((1 << DIGIT) - 1)] += 1;
                    }
                    len += 1;
                    // Before a count can overflow.
                    if len % (u32::MAX as usize) == 0 {
                        spill(&mut own);
                    }
                })
            })?;
            spill(&mut own);
            if pass == 0 {
                *lengths.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += len;
            }
            let weight = weights.list.get(index);
            weight.map_or(Ok(()), |weight| watched.add(&weight.name, weight.bytes))
        })?;
        if pass == 0 {
            let all = *lengths.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            go = removed(share, all) as u64;
            if go == 0 {
                (1..passes).try_for_each(|_| skip(group, weights, watched))?;
                return Ok(vec![Threshold::NOTHING; group.len()]);
            }
        }
        let counts = counts.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut below = 0;
        for (digit, count) in counts.into_iter().enumerate() {
            if below + count >= go {
                (prefix, ties) = (prefix << DIGIT | digit as u64, count);
                break;
            }
            below += count;
        }
        go -= below;
    }
    // Of `ties` equal scores, `go` go: the last.
    let mut stay = ties - go;
    if stay == 0 {
        return Ok(vec![Threshold { bits: prefix, end: 0 }; group.len()]);
    }
    let own = each(group, |&index| {
        let mut own = 0u64;
        visit(index, &mut |source| keys(pruning, source, |_, key| own += u64::from(key == prefix)))?;
        Ok(own)
    })?;
    let mut found = Vec::with_capacity(group.len());
    for (&index, own) in group.iter().zip(own) {
        let mut end = if own <= stay { usize::MAX } else { 0 };
        if stay > 0 && own > stay {
            let mut left = stay;
            visit(index, &mut |source| {
                keys(pruning, source, |i, key| {
                    if key == prefix && left > 0 {
                        left -= 1;
                        end = i + 1;
                    }
                })
            })?;
        }
        stay = stay.saturating_sub(own);
        found.push(Threshold { bits: prefix, end });
    }
    Ok(found)
}

/// Counts a pass that is not needed.
fn skip(group: &[usize], weights: &Weights<'_>, watched: &Watched<'_>) -> Result<()> {
    group
        .iter()
        .filter_map(|&index| weights.list.get(index))
        .try_for_each(|weight| watched.add(&weight.name, weight.bytes))
}
