//! Which channels of each group matter, by weights and by what values were like.

use super::{
    Ranking,
    activations::Stats,
    lower::{Lowering, Site},
};
use crate::{error::Result, slim::Importance};
use std::collections::BTreeMap;

/// What a channel's magnitude adds to its score: of those that never moved, the ones that cannot leave first.
const TIE: f64 = 1e-9;
/// Channels of a value that moments are gathered of.
#[cfg(feature = "linalg")]
pub(super) const MOST: usize = 1024;

/// A layer that reads the channels of a group.
struct Reader<'a> {
    /// For each channel that it reads, its place in the group.
    places: Vec<usize>,
    /// The weights of each of these.
    columns: Vec<Vec<f64>>,
    /// Of these channels.
    indices: Vec<usize>,
    stats: &'a Stats,
    /// `‖W (x - mean)‖²`, of all channels of the layer, where they are taken for independent.
    energy: f64,
}

/// Scores of all channels.
///
/// # Errors
/// As [`Importance::of`].
pub(super) fn importance(lowering: &Lowering, stats: &BTreeMap<String, Stats>, ranking: Ranking) -> Result<Importance> {
    let magnitude = Importance::of(&lowering.topology, &lowering.weights()?)?;
    if ranking == Ranking::Magnitude {
        return Ok(magnitude);
    }
    let groups = lowering.topology.groups();
    let mut readers: Vec<Vec<Reader<'_>>> = groups.iter().map(|_| Vec::new()).collect();
    for site in &lowering.sites {
        for (group, reader) in of_site(lowering, site, stats) {
            readers[group].push(reader);
        }
    }
    let score = |(group, readers): (usize, &Vec<Reader<'_>>)| {
        if readers.is_empty() || groups[group].frozen.is_some() {
            return magnitude.scores()[group].clone();
        }
        let least: Vec<f64> = magnitude.scores()[group].iter().map(|score| score * TIE).collect();
        #[cfg(feature = "linalg")]
        if ranking == Ranking::Reconstruction
            && let Some(scores) = reconstruction::scores(readers, &least)
        {
            return scores;
        }
        variance(least, readers)
    };
    Importance::new(&lowering.topology, readers.iter().enumerate().map(score).collect())
}

/// What each channel's variance adds to the outputs of its readers.
fn variance(mut scores: Vec<f64>, readers: &[Reader<'_>]) -> Vec<f64> {
    for reader in readers {
        for ((&place, column), &index) in reader.places.iter().zip(&reader.columns).zip(&reader.indices) {
            let variance = reader.stats.variance.get(index).copied().unwrap_or(0.0);
            scores[place] += squares(column) * variance / reader.energy;
        }
    }
    scores
}

fn squares(values: &[f64]) -> f64 {
    values.iter().map(|w| w * w).sum()
}

/// The groups that a layer reads.
fn of_site<'a>(lowering: &Lowering, site: &Site, stats: &'a BTreeMap<String, Stats>) -> Vec<(usize, Reader<'a>)> {
    let (Some((_, places)), Some(stats), Some(weight)) =
        (lowering.topology.channels(&site.input), stats.get(&site.input), lowering.tensors.get(&site.weight))
    else {
        return Vec::new();
    };
    let columns = columns(site, &weight.numbers.shape, &weight.numbers.values);
    if columns.len() != places.len() || stats.variance.len() != places.len() {
        return Vec::new();
    }
    let energy: f64 = columns.iter().zip(&stats.variance).map(|(column, variance)| squares(column) * variance).sum();
    let mut all: BTreeMap<usize, Reader<'a>> = BTreeMap::new();
    for (index, (place, column)) in places.iter().zip(columns).enumerate() {
        let reader = all.entry(place.group).or_insert_with(|| Reader {
            places: Vec::new(),
            columns: Vec::new(),
            indices: Vec::new(),
            stats,
            energy: if energy > 0.0 { energy } else { 1.0 },
        });
        reader.places.push(place.at);
        reader.columns.push(column);
        reader.indices.push(index);
    }
    all.into_iter().collect()
}

/// The weights of each input.
fn columns(site: &Site, shape: &[usize], values: &[f32]) -> Vec<Vec<f64>> {
    let wide = |x: &f32| f64::from(*x);
    if site.inputs_first {
        return values.chunks(shape[1]).map(|row| row.iter().map(wide).collect()).collect();
    }
    let taps: usize = shape[2..].iter().product();
    let mut columns = vec![Vec::new(); shape[1]];
    for (run, taps) in values.chunks(taps).enumerate() {
        columns[run % shape[1]].extend(taps.iter().map(wide));
    }
    columns
}

#[cfg(feature = "linalg")]
mod reconstruction {
    use super::{Reader, squares};
    use crate::linalg::inverse_factor;

    /// Of the mean square of a channel.
    const DAMPING: f64 = 1e-4;
    /// Numbers that elimination touches at most.
    const WORK: usize = 1 << 34;

    /// A layer in the course of elimination.
    struct Work {
        /// By the place in the group: the index here.
        at: Vec<Option<usize>>,
        columns: Vec<Vec<f64>>,
        /// The inverse of the channels' second moments about their means.
        inverse: Vec<f64>,
        /// Channels, and the 1.
        width: usize,
        energy: f64,
    }

    /// Scores by the order of elimination; `None` where a channel has several indices, or there is too much of it.
    pub(super) fn scores(readers: &[Reader<'_>], least: &[f64]) -> Option<Vec<f64>> {
        let size = least.len();
        let mut works = Vec::new();
        for reader in readers {
            works.push(Work::new(size, reader)?);
        }
        let each = |work: &Work| work.width * (work.width + work.columns.first().map_or(0, Vec::len));
        if works.iter().map(each).sum::<usize>().saturating_mul(size) > WORK {
            return None;
        }
        let mut scores = vec![0.0; size];
        let mut left: Vec<usize> = (0..size).collect();
        let mut highest = 0.0f64;
        while !left.is_empty() {
            let cost = |place: usize| works.iter().map(|work| work.cost(place)).sum::<f64>() + least[place];
            let costs: Vec<f64> = left.iter().map(|&place| cost(place)).collect();
            let first = (0..left.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]).then(b.cmp(&a)))?;
            // A channel is not worth less than those that went before it.
            highest = highest.max(costs[first]).min(f64::MAX);
            let place = left.remove(first);
            scores[place] = highest * (1.0 + 1e-9 * (size - left.len()) as f64);
            works.iter_mut().for_each(|work| work.eliminate(place));
        }
        Some(scores)
    }

    impl Work {
        fn new(size: usize, reader: &Reader<'_>) -> Option<Self> {
            let mut at = vec![None; size];
            for (index, &place) in reader.places.iter().enumerate() {
                if at[place].replace(index).is_some() {
                    return None;
                }
            }
            let moments = reader.stats.moments.as_ref()?;
            let moment = moments.moment().ok()?;
            // The 1 is the last.
            let order: Vec<usize> = reader.indices.iter().copied().chain([moments.inputs() - 1]).collect();
            let width = order.len();
            let factor = inverse_factor(moment, &order, DAMPING).ok()?;
            let mut inverse = vec![0.0; width * width];
            for a in 0..width {
                for b in 0..=a {
                    let (a_column, b_column) = (&factor.values[a * width..], &factor.values[b * width..]);
                    let sum: f64 = a_column.iter().zip(b_column).take(b + 1).map(|(x, y)| x * y).sum();
                    (inverse[a * width + b], inverse[b * width + a]) = (sum, sum);
                }
            }
            Some(Self { at, columns: reader.columns.clone(), inverse, width, energy: reader.energy })
        }

        fn cost(&self, place: usize) -> f64 {
            let Some(c) = self.at[place] else { return 0.0 };
            squares(&self.columns[c]) / self.inverse[c * self.width + c] / self.energy
        }

        /// The others take over what they can of a channel.
        fn eliminate(&mut self, place: usize) {
            let Some(c) = self.at[place].take() else { return };
            let width = self.width;
            let row: Vec<f64> = self.inverse[c * width..(c + 1) * width].to_vec();
            let gone = std::mem::take(&mut self.columns[c]);
            for &other in self.at.iter().flatten() {
                let share = row[other] / row[c];
                self.columns[other].iter_mut().zip(&gone).for_each(|(w, gone)| *w -= share * gone);
            }
            for (i, line) in self.inverse.chunks_exact_mut(width).enumerate() {
                let share = row[i] / row[c];
                line.iter_mut().zip(&row).for_each(|(x, y)| *x -= share * y);
            }
        }
    }
}
