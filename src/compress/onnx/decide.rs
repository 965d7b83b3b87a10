//! What each weight of a model becomes, where that is not told by the recipe alone.

use super::{
    activations,
    rewrite::{Item, Picks, Rewritten, rewrite},
    ways::{How, sparse_bytes},
};
use crate::{
    compress::{
        budget::choose,
        copy,
        encode::encode,
        prepare::Prepared,
        pruning::{Weight, Weights},
        recipe::Recipe,
        report::Report,
        run::{Stage, Watch, Watched, each},
        source::{CHUNK, Source},
    },
    error::Result,
    format::onnx::proto::ModelProto,
};

/// A model as it will be.
pub(super) struct Decided<'a, F> {
    pub(super) prepared: Prepared<'a>,
    pub(super) items: Vec<Item>,
    pub(super) report: Report,
    pub(super) files: F,
    /// The squares of the weights that a budget leaves as they are.
    pub(super) left: f64,
}

/// Decides by measuring, and lays the model out in files.
pub(super) fn decide<'a, F: Length>(
    model: ModelProto,
    recipe: &'a Recipe,
    external: bool,
    watch: Watch<'_>,
    files: impl Fn(&ModelProto) -> Result<F>,
) -> Result<Decided<'a, F>> {
    let floats = recipe.activations.is_some().then(|| model.clone());
    let finish = |mut rewritten: Rewritten, prepared: Prepared<'a>, left: f64| {
        activations::apply(&mut rewritten, recipe, floats.clone())?;
        let Rewritten { model, items, report, .. } = rewritten;
        Ok(Decided { prepared, items, report, files: files(&model)?, left })
    };
    if recipe.pruning.is_none() && recipe.budget.is_none() {
        let prepared = Prepared::new(recipe, &Weights { list: &[], source: &|_| Ok(Source::empty()) }, watch)?;
        return finish(rewrite(model, recipe, Picks::First)?, prepared, 0.0);
    }
    let Rewritten { surveyed, report, .. } = rewrite(model.clone(), recipe, Picks::Survey)?;
    let others = report.tensors.iter().map(|tensor| tensor.bytes_before).sum();
    let list: Vec<Weight> = surveyed
        .iter()
        .map(|of| Weight { name: of.name.clone(), bytes: of.source.bytes.len() as u64, axis: of.axis })
        .collect();
    let read = |index: usize| Ok(surveyed.get(index).map_or_else(Source::empty, |of| of.source.clone()));
    let weights = Weights { list: &list, source: &read };
    let prepared = Prepared::new(recipe, &weights, watch)?;

    let mut ways: Vec<_> = surveyed.iter().map(|of| of.ways.clone()).collect();
    if recipe.pruning.as_ref().is_some_and(|pruning| pruning.sparse) && !external {
        let watched = Watched::new(watch, Stage::Select, list.iter().map(|weight| weight.bytes).sum());
        let all: Vec<usize> = (0..list.len()).collect();
        let counts = each(&all, |&index| {
            let Some((weight, of)) = list.get(index).zip(surveyed.get(index)) else { return Ok(0) };
            let count = prepared.pruned(index, weight.axis, of.source.clone()).and_then(|source| copy::count(&source));
            watched.add(&weight.name, weight.bytes)?;
            count.map_err(|error| error.in_tensor(&weight.name))
        })?;
        for ((ways, of), count) in ways.iter_mut().zip(&surveyed).zip(counts) {
            let bytes = sparse_bytes(of.source.element, count);
            // The first is what there is without a budget.
            let first = ways.first().map_or(0, |way| way.1);
            if bytes < of.source.bytes.len() as u64 && (recipe.budget.is_some() || bytes <= first) {
                ways.insert(0, (How::Sparse { count }, bytes, None));
            }
        }
    }
    let picked = |picks: &[usize]| -> Vec<How> {
        ways.iter().zip(picks).filter_map(|(ways, &way)| ways.get(way)).map(|way| way.0).collect()
    };
    let Some(budget) = recipe.budget else {
        let first = picked(&vec![0; ways.len()]);
        return finish(rewrite(model, recipe, Picks::Chosen(&first))?, prepared, 0.0);
    };
    let bytes: Vec<Vec<u64>> = ways.iter().map(|ways| ways.iter().map(|way| way.1).collect()).collect();
    let offers = prepared.offers(&weights, &bytes, watch, |index, source, way| {
        let way = ways.get(index).and_then(|ways| ways.get(way));
        match way {
            Some((How::Codes(kept), _, Some(scheme))) => {
                let source = Source {
                    transposed: kept.multiplied && list.get(index).is_some_and(|of| of.axis == 0),
                    ..source.clone()
                };
                encode(&source, *scheme, CHUNK, &mut |_, _| Ok(()))
            }
            _ => copy::dense(source, &mut |_| Ok(()), &|_| Ok(())),
        }
    })?;
    let (picks, Rewritten { items, report, .. }, files) = choose(&offers, others, budget, &mut |picks| {
        let rewritten = rewrite(model.clone(), recipe, Picks::Chosen(&picked(picks)))?;
        let files = files(&rewritten.model)?;
        let len = files.byte_len();
        Ok(((picks.to_vec(), rewritten, files), len))
    })?;
    let stays = picked(&picks).into_iter().zip(&offers).filter(|(how, _)| *how == How::Stay);
    let left = stays.map(|(_, offer)| offer.signal).sum();
    Ok(Decided { prepared, items, report, files, left })
}

/// What has a length in bytes.
pub(super) trait Length {
    fn byte_len(&self) -> u64;
}
