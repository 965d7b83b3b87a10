//! How long nodes take, by their widths: measured by the caller.

#[cfg(feature = "serde")]
use crate::config::names::Names;
use crate::{
    config::config,
    error::{Error, Result},
};
use std::collections::BTreeMap;

/// Times of nodes by how many channels they read and give. Between entries, a node takes as long as the fastest known one that is
/// at least as wide; nodes without entries take no time.
///
/// ```
/// use lapidary::slim::LatencyTable;
/// let table = LatencyTable::new().with("fc1", 64, 128, 0.9)?.with("fc1", 64, 64, 0.5)?;
/// assert_eq!((table.time("fc1", 64, 65), table.time("fc1", 10, 64)), (Some(0.9), Some(0.5)));
/// assert_eq!(table.time("fc1", 64, 129), None);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct LatencyTable {
    times: BTreeMap<String, Vec<(usize, usize, f64)>>,
}

config! {
    LatencyTable(times: Names<Vec<(usize, usize, f64)>> = |it| Names(it.times.clone())) => {
        let mut times = times.0.into_iter().flat_map(|(node, times)| times.into_iter().map(move |time| (node.clone(), time)));
        times.try_fold(Self::new(), |table, (node, (inputs, outputs, time))| table.with(node, inputs, outputs, time))
    },
}

impl LatencyTable {
    /// Without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds that a node that reads and gives so many channels takes so long, in any unit.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a time that is not finite or below 0.
    pub fn with(mut self, node: impl Into<String>, inputs: usize, outputs: usize, time: f64) -> Result<Self> {
        if !time.is_finite() || time < 0.0 {
            return Err(Error::argument("time", time, "finite and at least 0"));
        }
        self.times.entry(node.into()).or_default().push((inputs, outputs, time));
        Ok(self)
    }

    /// The time of a node that reads and gives so many channels; `None` where no entry is as wide.
    #[must_use]
    pub fn time(&self, node: &str, inputs: usize, outputs: usize) -> Option<f64> {
        let wide = self.times.get(node)?.iter().filter(|entry| entry.0 >= inputs && entry.1 >= outputs);
        wide.map(|entry| entry.2).reduce(f64::min)
    }

    /// The nodes that have entries.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.times.keys().map(String::as_str)
    }
}
