//! Work on many tensors, in parallel, that can be watched and stopped.

use crate::{
    error::{Error, Result},
    format::file::TensorFile,
};
use std::{
    fmt,
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// An error where an output is one of the files of the input, whose tensors are views of them until the last is written.
pub(super) fn check_paths(input: &Path, read: &dyn TensorFile, outputs: &[&Path]) -> Result<()> {
    let whole = |path: &Path| path.canonicalize().ok();
    let files: Vec<_> = read.files().iter().map(|path| whole(path)).chain([whole(input)]).flatten().collect();
    let taken = outputs.iter().find(|output| whole(output).is_some_and(|output| files.contains(&output)));
    match taken {
        Some(output) => Err(Error::argument("output", output.display(), "another file than those of the input")),
        None => Ok(()),
    }
}

/// What is being done to a file; each goes through the weights for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The model is slimmed; how far that is is not known: `done` and `total` are 0.
    Slim,
    /// Which weights are to become zero is searched.
    Select,
    /// What each way to keep a weight costs is measured.
    Measure,
    /// The output is written.
    Write,
}

impl fmt::Display for Stage {
    /// A word: `select`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Slim => "slim",
            Self::Select => "select",
            Self::Measure => "measure",
            Self::Write => "write",
        })
    }
}

/// How far work on a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What is being done. The numbers are those of this stage.
    pub stage: Stage,
    /// The tensor that is worked on.
    pub tensor: &'a str,
    /// Bytes of weights that are done.
    pub done: u64,
    /// Bytes of weights in all, as often as they are read.
    pub total: u64,
}

/// Is called again and again, by any thread; [`Break`](ControlFlow::Break) stops the work, and nothing of it is left.
pub(super) type Watch<'a> = &'a (dyn Fn(Progress<'_>) -> ControlFlow<()> + Sync);

/// Counts what is done.
pub(super) struct Watched<'a> {
    watch: Watch<'a>,
    stage: Stage,
    done: AtomicU64,
    total: u64,
}

impl<'a> Watched<'a> {
    pub(super) fn new(watch: Watch<'a>, stage: Stage, total: u64) -> Self {
        Self { watch, stage, done: AtomicU64::new(0), total }
    }

    /// So many bytes more are done.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled) when the work is to stop.
    pub(super) fn add(&self, tensor: &str, bytes: u64) -> Result<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match (self.watch)(Progress { stage: self.stage, tensor, done, total: self.total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::cancelled().in_tensor(tensor)),
        }
    }
}

/// `work` on each item; results in their order, or one of the errors.
pub(super) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Send + Sync) -> Result<Vec<R>> {
    #[cfg(feature = "rayon")]
    {
        use rayon::prelude::*;
        items.par_iter().map(work).collect()
    }
    #[cfg(not(feature = "rayon"))]
    items.iter().map(work).collect()
}

/// Both, at the same time where there is a second thread.
#[cfg(feature = "onnx")]
pub(super) fn both<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    #[cfg(feature = "rayon")]
    {
        rayon::join(a, b)
    }
    #[cfg(not(feature = "rayon"))]
    (a(), b())
}
