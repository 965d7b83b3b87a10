//! The crate's one error type: what went wrong, in which tensor, at which place.

use std::fmt;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused. Inputs are checked before anything is written, so whatever was
/// passed for writing is as it was.
///
/// Match on [`kind`](Error::kind); the message (`Display`) names the tensor, the place and the reason.
pub struct Error {
    tensor: Option<Box<str>>,
    repr: Repr,
}

/// What kind of thing went wrong. More kinds may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A hyper-parameter or an option is outside its range.
    Argument,
    /// Two shapes or lengths that must agree do not.
    Shape,
    /// A NaN or an infinity where a finite number is needed; see [`Error::index`].
    NonFinite,
    /// An empty tensor where at least one element is needed.
    Empty,
    /// Optimizer state that does not belong to the optimizer or the parameter.
    State,
    /// Bytes that are not what their format says; see [`Error::index`] for the offset.
    Format,
    /// Reading or writing failed.
    Io,
    /// The library that runs a model refused it, or failed.
    Runtime,
    /// A budget that nothing keeps.
    Budget,
    /// The caller stopped the work.
    Cancelled,
}

#[derive(Debug, thiserror::Error)]
enum Repr {
    #[error("{name} is {value}, must be {allowed}")]
    Argument { name: &'static str, value: String, allowed: &'static str },
    #[error("{what} has shape {actual:?}, expected {expected:?}")]
    Shape { what: &'static str, expected: Box<[usize]>, actual: Box<[usize]> },
    #[error("{what} holds {value} at index {index}")]
    NonFinite { what: &'static str, index: usize, value: f64 },
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("optimizer state: {reason}")]
    State { reason: String },
    #[error("malformed data at byte {offset}: {reason}")]
    Format { offset: usize, reason: String },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{what}: {reason}")]
    Runtime { what: &'static str, reason: String },
    #[error("a budget of {limit} of {what} cannot be kept: the least is {least}")]
    Budget { what: &'static str, limit: String, least: String },
    #[error("stopped by the caller")]
    Cancelled,
}

impl Error {
    /// A hyper-parameter `name` of `value` outside what is `allowed` (a phrase that follows "must be").
    pub fn argument(name: &'static str, value: impl fmt::Display, allowed: &'static str) -> Self {
        Repr::Argument { name, value: value.to_string(), allowed }.into()
    }

    /// `what` (a noun: "gradient", "mask") has the shape `actual` where `expected` is needed.
    pub fn shape(what: &'static str, expected: &[usize], actual: &[usize]) -> Self {
        Repr::Shape { what, expected: expected.into(), actual: actual.into() }.into()
    }

    /// `what` holds the NaN or infinity `value` at the logical index `index`.
    pub fn non_finite(what: &'static str, index: usize, value: f64) -> Self {
        Repr::NonFinite { what, index, value }.into()
    }

    /// `what` has no element.
    pub fn empty(what: &'static str) -> Self {
        Repr::Empty { what }.into()
    }

    /// Optimizer state that does not fit, and why.
    pub fn state(reason: impl Into<String>) -> Self {
        Repr::State { reason: reason.into() }.into()
    }

    /// Bytes that break their format at `offset`, and how.
    pub fn format(offset: usize, reason: impl Into<String>) -> Self {
        Repr::Format { offset, reason: reason.into() }.into()
    }

    /// Reading or writing `path` failed.
    pub fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Repr::Io { path: path.display().to_string(), source }.into()
    }

    /// What was to be run, and what the library that runs it says.
    pub fn runtime(what: &'static str, reason: impl fmt::Display) -> Self {
        Repr::Runtime { what, reason: reason.to_string() }.into()
    }

    /// A budget of `limit` of `what` (a plural: "bytes of the file") where there is no less than `least`.
    pub fn budget(what: &'static str, limit: impl fmt::Display, least: impl fmt::Display) -> Self {
        Repr::Budget { what, limit: limit.to_string(), least: least.to_string() }.into()
    }

    /// The caller stopped the work.
    #[must_use]
    pub fn cancelled() -> Self {
        Repr::Cancelled.into()
    }

    /// The same error, naming the tensor (or layer, or group of channels) it happened in. The innermost name stays.
    #[must_use]
    pub fn in_tensor(mut self, name: &str) -> Self {
        self.tensor.get_or_insert_with(|| name.into());
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.repr {
            Repr::Argument { .. } => ErrorKind::Argument,
            Repr::Shape { .. } => ErrorKind::Shape,
            Repr::NonFinite { .. } => ErrorKind::NonFinite,
            Repr::Empty { .. } => ErrorKind::Empty,
            Repr::State { .. } => ErrorKind::State,
            Repr::Format { .. } => ErrorKind::Format,
            Repr::Io { .. } => ErrorKind::Io,
            Repr::Runtime { .. } => ErrorKind::Runtime,
            Repr::Budget { .. } => ErrorKind::Budget,
            Repr::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// The name of the tensor, layer or group it happened in, where one is known.
    #[must_use]
    pub fn tensor(&self) -> Option<&str> {
        self.tensor.as_deref()
    }

    /// The offending element's logical index ([`ErrorKind::NonFinite`]) or byte offset
    /// ([`ErrorKind::Format`]).
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        match self.repr {
            Repr::NonFinite { index, .. } => Some(index),
            Repr::Format { offset, .. } => Some(offset),
            _ => None,
        }
    }
}

impl From<Repr> for Error {
    fn from(repr: Repr) -> Self {
        Self { tensor: None, repr }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.tensor {
            write!(f, "{name:?}: ")?;
        }
        self.repr.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.repr {
            Repr::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_tensor_where_and_why() {
        let error = Error::non_finite("gradient", 7, f64::NAN).in_tensor("fc1.weight").in_tensor("outer");
        assert_eq!(error.to_string(), "\"fc1.weight\": gradient holds NaN at index 7");
        assert_eq!((error.kind(), error.index(), error.tensor()), (ErrorKind::NonFinite, Some(7), Some("fc1.weight")));
        assert_eq!(Error::argument("eps", -1.0, "at least 0").to_string(), "eps is -1, must be at least 0");
    }

    #[test]
    fn can_cross_threads() {
        fn assert<T: Send + Sync + 'static>() {}
        assert::<Error>();
    }
}
