//! What values were like on the calibration inputs.

use crate::{
    compress::runtime::{Feed, Output, Session},
    error::Result,
    linalg::Calibration,
    tensor::TensorRef,
};
use std::collections::BTreeMap;

/// Of each channel of a value.
pub(super) struct Stats {
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
    /// Second moments of the channels and of a 1 beside them, where they were asked for.
    #[cfg_attr(not(feature = "linalg"), allow(dead_code, reason = "for a ranking of this feature"))]
    pub(super) moments: Option<Calibration>,
}

/// Runs a model on all samples, and gathers the values of these names and channel axes; moments where there are not more channels than
/// `most`.
///
/// # Errors
/// As [`Session::run`]; [`NonFinite`](crate::ErrorKind::NonFinite) for a value that is not finite, with its name.
pub(super) fn gather(
    session: &Session,
    samples: &[Vec<(String, Feed)>],
    values: &BTreeMap<String, usize>,
    most: usize,
) -> Result<BTreeMap<String, Stats>> {
    let names: Vec<String> = values.keys().cloned().collect();
    let mut all: BTreeMap<String, (Calibration, bool)> = BTreeMap::new();
    for sample in samples {
        for (name, output) in names.iter().zip(session.run(sample, &names)?) {
            let axis = values.get(name).copied().unwrap_or(0);
            let (channels, mut rows) = rows(&output, axis);
            let whole = channels <= most;
            if whole {
                rows = rows.chunks(channels.max(1)).flat_map(|row| row.iter().copied().chain([1.0])).collect();
            }
            let width = channels + usize::from(whole);
            let entry = match all.entry(name.clone()) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let made = if whole { Calibration::new(width) } else { Calibration::without_hessian(width) };
                    entry.insert((made?, whole))
                }
            };
            let batch = TensorRef::new(&rows, &[rows.len() / width.max(1), width])?;
            entry.0.add(batch).map_err(|error| error.in_tensor(name))?;
        }
    }
    let stats = |(name, (moments, whole)): (String, (Calibration, bool))| {
        let (samples, norms) = (moments.samples().max(1) as f64, moments.norms());
        let mut mean = moments.mean();
        let mut variance: Vec<f64> = norms.iter().map(|n| n * n / samples).collect();
        variance.iter_mut().zip(&mean).for_each(|(v, m)| *v = (*v - m * m).max(0.0));
        if whole {
            mean.pop();
            variance.pop();
        }
        (name, Stats { mean, variance, moments: Some(moments).filter(|_| whole) })
    };
    Ok(all.into_iter().map(stats).collect())
}

/// How many channels there are along an axis, and the value as rows of them.
pub(super) fn rows(output: &Output, axis: usize) -> (usize, Vec<f64>) {
    let channels = output.shape.get(axis).copied().unwrap_or(1);
    let inner: usize = output.shape.get(axis + 1..).unwrap_or_default().iter().product();
    if inner == 1 {
        return (channels, output.values.clone());
    }
    let mut rows = Vec::with_capacity(output.values.len());
    for block in output.values.chunks((channels * inner).max(1)) {
        for place in 0..inner {
            rows.extend(block.iter().skip(place).step_by(inner).copied());
        }
    }
    (channels, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_become_the_last_axis() {
        let output = Output { shape: vec![2, 2, 3], values: (0..12).map(f64::from).collect() };
        assert_eq!(rows(&output, 1).1, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
        assert_eq!(rows(&output, 2), (3, output.values.clone()));
        assert_eq!(rows(&output, 0).1[..4], [0.0, 6.0, 1.0, 7.0]);
    }
}
