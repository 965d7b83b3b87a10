//! `n` of each `m` neighbours along an axis.

use super::{key, scores, zeros::MAGNITUDE};
use crate::{
    compress::source::{CHUNK, Source},
    error::{Error, Result},
    tensor::{Mask, view::checked_volume},
    traits::Criterion,
};

/// The mask that keeps `keep` of each `of` neighbours along an axis: the highest scores, of equal ones the lower index.
pub(super) fn mask(
    source: &Source,
    axis: usize,
    keep: usize,
    of: usize,
    criterion: Option<&dyn Criterion<f32>>,
) -> Result<Mask> {
    let shape = &source.shape;
    let mut mask = Mask::keep_all(shape)?;
    if let Some(criterion) = criterion {
        let keys: Vec<u64> = scores(criterion, source)?.into_iter().map(key).collect();
        select(shape, axis, keep, of, &keys, |index| mask.prune(index));
        return Ok(mask);
    }
    let width = checked_volume(shape.get(1..).unwrap_or_default())?.max(1);
    let rows = (CHUNK / 2 / width).max(1);
    // Blocks of the first axis are not cut.
    let unit = of.min(shape.first().copied().unwrap_or(1)).max(1);
    let rows = if axis == 0 { rows.max(unit).next_multiple_of(unit) } else { rows };
    let mut keys = Vec::new();
    source.chunks(rows.saturating_mul(width), &mut |first, values| {
        keys.clear();
        for (i, x) in values.iter().enumerate() {
            let bits = x.to_bits() & MAGNITUDE;
            if bits >= f32::INFINITY.to_bits() {
                return Err(Error::non_finite("tensor", first + i, (*x).into()));
            }
            keys.push(u64::from(bits));
        }
        let mut part = shape.clone();
        if let Some(rows) = part.first_mut() {
            *rows = values.len() / width;
        }
        select(&part, axis, keep, of, &keys, |index| mask.prune(first + index));
        Ok(())
    })?;
    Ok(mask)
}

/// Calls `drop` with the index of each element that its block does not keep.
fn select(shape: &[usize], axis: usize, keep: usize, of: usize, keys: &[u64], mut drop: impl FnMut(usize)) {
    let len = shape.get(axis).copied().unwrap_or(1);
    let inner = shape.iter().skip(axis + 1).product::<usize>();
    let mut block: Vec<(u64, usize)> = Vec::with_capacity(of.min(len));
    for outer in (0..keys.len()).step_by((len * inner).max(1)) {
        for start in (0..len).step_by(of) {
            let size = of.min(len - start);
            let keep = (keep as u128 * size as u128).div_ceil(of as u128) as usize;
            for i in 0..inner {
                let index = |k: usize| outer + (start + k) * inner + i;
                block.clear();
                block.extend((0..size).filter_map(|k| Some((*keys.get(index(k))?, k))));
                block.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
                block.iter().skip(keep).for_each(|&(_, k)| drop(index(k)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::file::ElementType,
        prune::{Magnitude, Select},
        tensor::TensorRef,
        traits::PrunerExt,
    };

    fn source(values: &[f32], shape: &[usize]) -> Source {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Source::new(bytes.into(), ElementType::F32, shape.to_vec())
    }

    #[test]
    fn along_the_last_axis_it_is_the_selection_of_that_name() {
        // Many ties, and rows that are no multiple.
        let values: Vec<f32> = (0..7 * 13).map(|i| ((i * 37 % 11) as f32 - 5.0) * 0.5).collect();
        for (keep, of) in [(2, 4), (1, 3), (4, 4), (1, 32), (5, usize::MAX), (usize::MAX, usize::MAX)] {
            let own = mask(&source(&values, &[7, 13]), 1, keep, of, None).unwrap();
            let tensor = TensorRef::new(&values, &[7, 13]).unwrap();
            assert_eq!(own, Select::n_of_m(keep, of).unwrap().by(Magnitude).mask(tensor).unwrap());
            assert_eq!(own, mask(&source(&values, &[7, 13]), 1, keep, of, Some(&Magnitude)).unwrap());
        }
    }

    #[test]
    fn along_another_axis_it_is_that_of_the_transposed() {
        let values: Vec<f32> = (0..24).map(|i| (i * 7 % 24) as f32 - 11.5).collect();
        let across: Vec<f32> = (0..24).map(|i| values[i % 6 * 4 + i / 6]).collect();
        let down = mask(&source(&values, &[6, 4]), 0, 1, 3, None).unwrap();
        let right = mask(&source(&across, &[4, 6]), 1, 1, 3, None).unwrap();
        (0..24).for_each(|i| assert_eq!(down.get(i % 6 * 4 + i / 6), right.get(i)));
        assert_eq!(down.kept(), 8);
    }
}
