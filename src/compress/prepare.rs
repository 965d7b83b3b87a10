//! What has to be known of the weights before they are written: which become zero, and what each way to keep one costs.

use super::{
    budget::{Offer, Offers},
    look::{Cost, Look},
    pruning::{Selected, Weights},
    recipe::Recipe,
    run::{Stage, Watch, Watched, each},
    source::Source,
};
use crate::error::Result;

/// Weights whose zeros are selected.
pub(super) struct Prepared<'a> {
    recipe: &'a Recipe,
    selected: Vec<Selected>,
}

impl<'a> Prepared<'a> {
    /// Selects the zeros, where the recipe prunes.
    pub(super) fn new(recipe: &'a Recipe, weights: &Weights<'_>, watch: Watch<'_>) -> Result<Self> {
        let selected = match &recipe.pruning {
            None => Vec::new(),
            Some(pruning) => {
                let bytes = weights.list.iter().map(|weight| weight.bytes).sum::<u64>();
                let watched = Watched::new(watch, Stage::Select, bytes * pruning.passes());
                pruning.select(weights, &watched)?
            }
        };
        Ok(Self { recipe, selected })
    }

    /// The weight at `index`, whose sums go over `axis`, with its zeros.
    pub(super) fn pruned(&self, index: usize, axis: usize, source: Source) -> Result<Source> {
        let zeros = match (&self.recipe.pruning, self.selected.get(index)) {
            (Some(pruning), Some(selected)) => Some(pruning.zeros(&source, axis, selected)?),
            _ => None,
        };
        Ok(Source { zeros, ..source })
    }

    /// The same, to be written and looked at.
    pub(super) fn looked_at(&self, index: usize, axis: usize, source: Source) -> Result<Source> {
        let (zeros, histogram) = self.recipe.looks();
        let source = self.pruned(index, axis, source)?;
        let range = if histogram { source.range()? } else { None };
        Ok(Source { look: Look { zeros, range }, ..source })
    }

    /// What the ways of each weight cost: `measure` is given a weight, its source and the number of a way. `ways` are the bytes of each.
    pub(super) fn offers(
        &self,
        weights: &Weights<'_>,
        ways: &[Vec<u64>],
        watch: Watch<'_>,
        measure: impl Fn(usize, &Source, usize) -> Result<Cost> + Send + Sync,
    ) -> Result<Vec<Offers>> {
        let jobs: Vec<_> =
            ways.iter().enumerate().flat_map(|(i, ways)| (0..ways.len()).map(move |way| (i, way))).collect();
        let bytes = |&(i, _): &(usize, usize)| weights.list.get(i).map_or(0, |weight| weight.bytes);
        let watched = Watched::new(watch, Stage::Measure, jobs.iter().map(bytes).sum());
        let costs = each(&jobs, |&(i, way)| {
            let Some(weight) = weights.list.get(i) else { return Ok(Cost::default()) };
            let run = || {
                let source = self.pruned(i, weight.axis, (weights.source)(i)?)?;
                measure(i, &source, way)
            };
            let cost = run().map_err(|error| error.in_tensor(&weight.name))?;
            watched.add(&weight.name, weight.bytes)?;
            Ok(cost)
        })?;
        let mut costs = costs.into_iter();
        let mut offers = Vec::with_capacity(ways.len());
        for (weight, ways) in weights.list.iter().zip(ways) {
            let mut own = Offers { name: weight.name.clone(), signal: 0.0, ways: Vec::with_capacity(ways.len()) };
            for (&bytes, cost) in ways.iter().zip(&mut costs) {
                own.signal = own.signal.max(cost.signal);
                own.ways.push(Offer { bytes, noise: cost.noise });
            }
            offers.push(own);
        }
        Ok(offers)
    }
}
