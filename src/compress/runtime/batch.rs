//! The same sample with other sizes where the model leaves them open.

use super::inputs::{Data, Feed, Spec};
use std::collections::BTreeMap;

/// The key of an open size: its name, or the input and the axis of one without.
type Key = (String, usize);

fn key(spec: &Spec, axis: usize, name: &str) -> Key {
    if name.is_empty() { (spec.name.clone(), axis) } else { (name.into(), usize::MAX) }
}

/// The open sizes of a sample, and whether each is one of a first axis: the batch, as a rule.
pub(in crate::compress) fn sizes(specs: &[Spec], sample: &[(String, Feed)]) -> BTreeMap<Key, (usize, bool)> {
    let mut all = BTreeMap::new();
    for spec in specs {
        let Some((_, feed)) = sample.iter().find(|(name, _)| *name == spec.name) else { continue };
        for (axis, (open, &size)) in spec.open().into_iter().zip(&feed.shape).enumerate() {
            if let Some(name) = open {
                let entry = all.entry(key(spec, axis, name)).or_insert((size, false));
                entry.1 |= axis == 0;
            }
        }
    }
    all
}

/// The sample with these sizes: its first indices along each such axis, again and again where there are not as many.
pub(in crate::compress) fn resized(
    specs: &[Spec],
    sample: &[(String, Feed)],
    sizes: &BTreeMap<Key, usize>,
) -> Vec<(String, Feed)> {
    let mut sample = sample.to_vec();
    for (name, feed) in &mut sample {
        let Some(spec) = specs.iter().find(|spec| spec.name == *name) else { continue };
        for (axis, open) in spec.open().into_iter().enumerate() {
            if let Some(&size) = open.and_then(|name| sizes.get(&key(spec, axis, name))) {
                feed.resize(axis, size);
            }
        }
    }
    sample
}

fn gathered<T: Copy>(values: &mut Vec<T>, size: usize, inner: usize, new: usize) {
    let Some(outers) = values.len().checked_div(size * inner) else { return };
    let row = |outer: usize, i: usize| (outer * size + i % size) * inner;
    let rows = (0..outers).flat_map(|outer| (0..new).map(move |i| row(outer, i)));
    *values = rows.flat_map(|start| values[start..start + inner].iter().copied()).collect();
}

impl Feed {
    fn resize(&mut self, axis: usize, new: usize) {
        let Some(&size) = self.shape.get(axis).filter(|&&size| size != new && size > 0) else { return };
        let inner = self.shape[axis + 1..].iter().product();
        match &mut self.data {
            Data::F32(values) => gathered(values, size, inner, new),
            Data::I64(values) => gathered(values, size, inner, new),
            Data::I32(values) => gathered(values, size, inner, new),
            Data::U8(values) => gathered(values, size, inner, new),
            Data::Bool(values) => gathered(values, size, inner, new),
        }
        self.shape[axis] = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_cut_and_repeated_along_an_axis() {
        let feed = || Feed::i32(&[2, 3], vec![1, 2, 3, 4, 5, 6]).unwrap();
        let resized = |axis: usize, size: usize| {
            let mut feed = feed();
            feed.resize(axis, size);
            (feed.shape, feed.data)
        };
        assert_eq!(resized(1, 2), (vec![2, 2], Data::I32(vec![1, 2, 4, 5])));
        assert_eq!(resized(0, 3), (vec![3, 3], Data::I32(vec![1, 2, 3, 4, 5, 6, 1, 2, 3])));
        assert_eq!(resized(0, 1), (vec![1, 3], Data::I32(vec![1, 2, 3])));
        assert_eq!(resized(2, 1), (vec![2, 3], Data::I32(vec![1, 2, 3, 4, 5, 6])));
    }
}
