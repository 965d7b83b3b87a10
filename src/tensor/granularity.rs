//! Which elements share levels.

use crate::config::config;
#[cfg(feature = "serde")]
use crate::error::Error;

/// Which elements of a tensor share one set of levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Granularity {
    /// All of them.
    Tensor,
    /// Those with the same index along `axis`: a row of a dense layer's weights, an output channel.
    Channel {
        /// The axis, from 0.
        axis: usize,
    },
    /// `size` neighbours along the last axis. The last group of a row may be shorter and has its own levels.
    Group {
        /// Elements of a group, at least 1.
        size: usize,
    },
    /// `size` neighbours along `axis`, as ONNX has it; the last of them may be fewer. Along the last axis that is
    /// [`Group`](Granularity::Group). Groups have the tensor's shape, but along `axis` its length divided by `size`, rounded up.
    Block {
        /// The axis, from 0.
        axis: usize,
        /// Elements of a group, at least 1.
        size: usize,
    },
}

config! {
    Granularity() => Self::Tensor,
    axis: Option<usize> = Self::axis => |it, axis| axis.map_or(it, |axis| Self::Channel { axis }),
    group_size: Option<usize> = Self::group_size => |it, size| match (it.axis(), size) {
        (_, None) => Ok(it),
        (_, Some(0)) => Err(Error::argument("group size", 0, "at least 1")),
        (Some(axis), Some(size)) => Ok(Self::Block { axis, size }),
        (None, Some(size)) => Ok(Self::Group { size }),
    },
}

#[cfg(feature = "serde")]
impl Granularity {
    pub(crate) fn axis(&self) -> Option<usize> {
        match *self {
            Self::Channel { axis } | Self::Block { axis, .. } => Some(axis),
            Self::Tensor | Self::Group { .. } => None,
        }
    }

    pub(crate) fn group_size(&self) -> Option<usize> {
        match *self {
            Self::Group { size } | Self::Block { size, .. } => Some(size),
            Self::Tensor | Self::Channel { .. } => None,
        }
    }
}
