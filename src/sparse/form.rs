//! How a sparse matrix says where its elements are.

use crate::{kernel::sparse as kernel, tensor::Mask};

/// How a [`Sparse`](super::Sparse) matrix says where its elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// All elements are stored.
    Dense,
    /// The column of each stored element, row after row: compressed sparse rows.
    Csr,
    /// As [`Csr`](Form::Csr), of blocks that are stored whole if one of their elements is; those at the edge are filled up with zeros.
    Blocks {
        /// Rows of a block, 1 to 32.
        height: usize,
        /// Columns of a block, 1 to 32.
        width: usize,
    },
    /// A bit for each element of the shape.
    Bitmask,
    /// Two of each four neighbours in a row, as sparse tensor cores have it, and two bits for each to say which. Where fewer are kept, zeros fill
    /// up. A last group of one column has one element, a longer one two.
    TwoOfFour,
}

/// Where the stored elements are.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Positions {
    Dense,
    Csr { offsets: Vec<u32>, columns: List },
    Blocks { height: usize, width: usize, offsets: Vec<u32>, columns: List },
    Bitmask { mask: Mask, offsets: Vec<u32> },
    TwoOfFour { indices: Vec<u8> },
}

/// Columns of elements or blocks.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum List {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl List {
    /// `columns` are below `count`.
    pub(super) fn new(columns: Vec<u32>, count: usize) -> Self {
        if count <= 1 << 16 {
            Self::U16(columns.into_iter().map(|column| column as u16).collect())
        } else {
            Self::U32(columns)
        }
    }

    pub(super) fn view(&self) -> kernel::Columns<'_> {
        match self {
            Self::U16(columns) => kernel::Columns::U16(columns),
            Self::U32(columns) => kernel::Columns::U32(columns),
        }
    }

    fn byte_size(&self) -> usize {
        match self {
            Self::U16(columns) => size_of_val(&**columns),
            Self::U32(columns) => size_of_val(&**columns),
        }
    }
}

impl Positions {
    pub(super) fn form(&self) -> Form {
        match *self {
            Self::Dense => Form::Dense,
            Self::Csr { .. } => Form::Csr,
            Self::Blocks { height, width, .. } => Form::Blocks { height, width },
            Self::Bitmask { .. } => Form::Bitmask,
            Self::TwoOfFour { .. } => Form::TwoOfFour,
        }
    }

    pub(super) fn byte_size(&self) -> usize {
        match self {
            Self::Dense => 0,
            Self::Csr { offsets, columns } | Self::Blocks { offsets, columns, .. } => {
                size_of_val(&**offsets) + columns.byte_size()
            }
            Self::Bitmask { mask, offsets } => size_of_val(&**offsets) + size_of_val(mask.words()),
            Self::TwoOfFour { indices } => indices.len(),
        }
    }

    /// Sets what blocks store beyond the edge of the matrix to 0.
    pub(super) fn clear_outside<T: Copy + Default>(&self, [rows, cols]: [usize; 2], stored: &mut [T]) {
        let Self::Blocks { height, width, offsets, columns } = self else { return };
        let mut blocks = stored.chunks_exact_mut(height * width).zip(columns.view().iter());
        for (row, ends) in offsets.windows(2).enumerate() {
            for (block, column) in blocks.by_ref().take((ends[1] - ends[0]) as usize) {
                let inside = [rows - row * height, cols - column as usize * width];
                for (i, row) in block.chunks_exact_mut(*width).enumerate() {
                    let from = if i < inside[0] { inside[1].min(*width) } else { 0 };
                    row[from..].fill(T::default());
                }
            }
        }
    }

    pub(super) fn view(&self) -> kernel::Positions<'_> {
        match self {
            Self::Dense => kernel::Positions::Dense,
            Self::Csr { offsets, columns } => kernel::Positions::Csr { offsets, columns: columns.view() },
            Self::Blocks { height, width, offsets, columns } => {
                kernel::Positions::Blocks { height: *height, width: *width, offsets, columns: columns.view() }
            }
            Self::Bitmask { mask, offsets } => kernel::Positions::Bits { offsets, words: mask.words() },
            Self::TwoOfFour { indices } => kernel::Positions::TwoOfFour { indices },
        }
    }
}

/// The column of an element of a matrix that is two of four; each row has `slots` of them and begins on a byte.
pub(super) fn pair_column(indices: &[u8], slots: usize, row: usize, slot: usize) -> usize {
    slot / 2 * 4 + usize::from(indices[row * slots.div_ceil(4) + slot / 4] >> (slot % 4 * 2) & 3)
}
