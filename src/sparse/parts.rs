//! Sparse matrices from the parts that others keep them in, and back.

use super::{
    Kept, Sparse,
    build::{check_sides, check_stored},
    form::{List, Positions, pair_column},
};
use crate::{
    error::{Error, Result},
    kernel::sparse::two_of_four_slots,
    tensor::{Mask, view::checked_volume},
};

/// Where the elements of a [`Sparse`] matrix are, as its form has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Parts {
    /// Everywhere.
    Dense,
    /// Compressed sparse rows.
    Csr {
        /// Where the elements of each row begin, and where the last end: 0 first.
        offsets: Vec<u32>,
        /// The column of each element, ascending in a row.
        columns: Vec<u32>,
    },
    /// Blocks, row after row of them; the elements of a block lie row after row. Of those beyond the edge of the matrix nothing
    /// counts: numbers there become 0.
    Blocks {
        /// Rows of a block.
        height: usize,
        /// Columns of a block.
        width: usize,
        /// Where the blocks of each row of blocks begin, and where the last end: 0 first.
        offsets: Vec<u32>,
        /// Which column of blocks each is in, ascending in a row.
        columns: Vec<u32>,
    },
    /// A bit for each element.
    Bitmask(Mask),
    /// Two of four.
    TwoOfFour {
        /// Two bits for each element, its place in its group of four: the first in the lowest bits; ascending in a group; each row
        /// begins on a byte, and bits after its last element are 0.
        indices: Vec<u8>,
    },
}

impl Sparse {
    /// A matrix from its parts.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when a list has another length than the shape and the others imply;
    /// [`Argument`](crate::ErrorKind::Argument) for offsets that do not begin at 0 or descend, columns that do not ascend or are beyond the
    /// edge, sides of blocks that are not 1 to 32, a shape of 2⁶⁴ elements.
    pub fn from_parts(shape: [usize; 2], parts: Parts, kept: impl Into<Kept>) -> Result<Self> {
        let (mut kept, [rows, cols]) = (kept.into(), shape);
        let volume = checked_volume(&shape)?;
        let positions = match parts {
            Parts::Dense => {
                kept.check(volume)?;
                Positions::Dense
            }
            Parts::Csr { offsets, columns } => {
                check_lists(&offsets, &columns, rows, cols)?;
                kept.check(columns.len())?;
                Positions::Csr { offsets, columns: List::new(columns, cols) }
            }
            Parts::Blocks { height, width, offsets, columns } => {
                check_sides(height, width)?;
                let across = cols.div_ceil(width);
                check_lists(&offsets, &columns, rows.div_ceil(height), across)?;
                kept.check(columns.len().saturating_mul(height * width))?;
                Positions::Blocks { height, width, offsets, columns: List::new(columns, across) }
            }
            Parts::Bitmask(mask) => {
                mask.check(&shape)?;
                return Self::from_mask(&mask, kept, super::Form::Bitmask);
            }
            Parts::TwoOfFour { indices } => {
                check_pairs(&indices, rows, cols)?;
                kept.check(rows * two_of_four_slots(cols))?;
                Positions::TwoOfFour { indices }
            }
        };
        check_stored(kept.len())?;
        match &mut kept {
            Kept::F32(values) => positions.clear_outside(shape, values),
            Kept::F16(values) => positions.clear_outside(shape, values),
            Kept::Bf16(values) => positions.clear_outside(shape, values),
            Kept::Quantized(_) => {}
        }
        Ok(Self { rows, cols, positions, kept, scale: None })
    }

    /// Where the elements are; what they are is [`kept`](Sparse::kept).
    #[must_use]
    pub fn parts(&self) -> Parts {
        match &self.positions {
            Positions::Dense => Parts::Dense,
            Positions::Csr { offsets, columns } => {
                Parts::Csr { offsets: offsets.clone(), columns: columns.view().iter().collect() }
            }
            Positions::Blocks { height, width, offsets, columns } => Parts::Blocks {
                height: *height,
                width: *width,
                offsets: offsets.clone(),
                columns: columns.view().iter().collect(),
            },
            Positions::Bitmask { mask, .. } => Parts::Bitmask(mask.clone()),
            Positions::TwoOfFour { indices } => Parts::TwoOfFour { indices: indices.clone() },
        }
    }
}

fn check_lists(offsets: &[u32], columns: &[u32], rows: usize, cols: usize) -> Result<()> {
    if rows.checked_add(1) != Some(offsets.len()) {
        return Err(Error::shape("offsets", &[rows.saturating_add(1)], &[offsets.len()]));
    }
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    if first != 0 {
        return Err(Error::argument("first offset", first, "0"));
    }
    if let Some(row) = offsets.windows(2).position(|ends| ends[0] > ends[1]) {
        return Err(Error::argument("offset", format!("lower after row {row}"), "at least the one before"));
    }
    if last as usize != columns.len() {
        return Err(Error::shape("columns", &[last as usize], &[columns.len()]));
    }
    for (row, ends) in offsets.windows(2).enumerate() {
        let columns = &columns[ends[0] as usize..ends[1] as usize];
        if let Some(column) = columns.iter().find(|&&column| column as usize >= cols) {
            return Err(Error::argument("column", format!("{column} in row {row} of {cols}"), "inside the matrix"));
        }
        if let Some(pair) = columns.windows(2).find(|pair| pair[0] >= pair[1]) {
            let found = format!("{} after {} in row {row}", pair[1], pair[0]);
            return Err(Error::argument("column", found, "above the one before"));
        }
    }
    Ok(())
}

fn check_pairs(indices: &[u8], rows: usize, cols: usize) -> Result<()> {
    let slots = two_of_four_slots(cols);
    let bytes = slots.div_ceil(4);
    if rows.checked_mul(bytes) != Some(indices.len()) {
        return Err(Error::shape("indices", &[rows.saturating_mul(bytes)], &[indices.len()]));
    }
    // Rows without a column may be any number.
    let rows = if slots == 0 { 0 } else { rows };
    for row in 0..rows {
        let column = |slot| pair_column(indices, slots, row, slot);
        let outside =
            (0..slots).find(|&slot| column(slot) >= cols || slot % 2 == 1 && column(slot - 1) >= column(slot));
        if let Some(slot) = outside {
            let found = format!("column {} in row {row}", column(slot));
            return Err(Error::argument("index", found, "above the one before and inside the matrix"));
        }
        let rest = indices[row * bytes..][..bytes].last().map_or(0, |last| last >> (slots % 4 * 2));
        if !slots.is_multiple_of(4) && rest != 0 {
            return Err(Error::argument("bits after the last index", format!("{rest} in row {row}"), "0"));
        }
    }
    Ok(())
}
