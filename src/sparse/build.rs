//! From dense tensors and masks to sparse matrices, and from one form to another.

use super::{
    Form, Sparse,
    form::{List, Positions, pair_column},
    kept::{ABSENT, Kept},
};
use crate::{
    element::{AnySlice, Element},
    error::{Error, Result},
    kernel::sparse::{MAX_SIDE, two_of_four_slots},
    tensor::{Mask, TensorRef, view::filled},
};

impl Sparse {
    /// The elements of a matrix that are not 0, in a form. Zeros of either sign leave; elements stay in their type.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless `dense` has two axes and the form fits it: sides of blocks are 1 to 32, and
    /// [`TwoOfFour`](Form::TwoOfFour) takes no group with more than two elements; or when there are 2³² - 1 elements to be stored, or
    /// memory does not hold them.
    pub fn new<'a, T: Element<Real = f32>>(dense: impl Into<TensorRef<'a, T>>, form: Form) -> Result<Self> {
        let dense = dense.into();
        let values = dense.as_slice();
        let mask = Mask::from_fn(dense.shape(), |i| values[i] != T::default())?;
        Self::from_dense(dense, &mask, form)
    }

    /// The elements of a matrix that a mask keeps, in a form; among them are zeros too.
    ///
    /// # Errors
    /// As [`new`](Sparse::new), and [`Shape`](crate::ErrorKind::Shape) when the shapes differ.
    pub fn from_dense<'a, T: Element<Real = f32>>(
        dense: impl Into<TensorRef<'a, T>>,
        mask: &Mask,
        form: Form,
    ) -> Result<Self> {
        let kept = mask.gather(dense)?;
        let kept = match T::any(&kept) {
            AnySlice::Real(values) => Kept::F32(values.into()),
            AnySlice::F16(values) => Kept::F16(values.into()),
            AnySlice::Bf16(values) => Kept::Bf16(values.into()),
        };
        Self::from_mask(mask, kept, form)
    }

    /// The matrix of the elements that a mask keeps, given in logical order ([`Mask::gather`]). Codes are taken by
    /// [`Csr`](Form::Csr) and [`Bitmask`](Form::Bitmask), and by another form if it stores just them and in that order.
    ///
    /// # Errors
    /// As [`new`](Sparse::new); [`Shape`](crate::ErrorKind::Shape) when there are not as many elements as the mask keeps.
    pub fn from_mask(mask: &Mask, kept: impl Into<Kept>, form: Form) -> Result<Self> {
        let kept = kept.into();
        let &[rows, cols] = mask.shape() else {
            return Err(Error::argument("matrix", format!("{:?}", mask.shape()), "of two axes: [outputs, inputs]"));
        };
        kept.check(mask.kept())?;
        check_stored(kept.len())?;
        let ranks = Ranks::new(mask);
        let (positions, kept) = match form {
            Form::Dense => {
                let stored = (0..mask.len()).map(|i| ranks.of(i));
                (Positions::Dense, kept.pick(&collect(stored)?)?)
            }
            Form::Csr => {
                let columns = mask.indices().map(|i| (i % cols) as u32).collect();
                (Positions::Csr { offsets: ranks.rows(rows, cols)?, columns: List::new(columns, cols) }, kept)
            }
            Form::Bitmask => (Positions::Bitmask { mask: mask.clone(), offsets: ranks.rows(rows, cols)? }, kept),
            Form::Blocks { height, width } => {
                check_sides(height, width)?;
                let (offsets, columns) = occupied(mask, rows, cols, height, width)?;
                let stored = columns.len().saturating_mul(height * width);
                check_stored(stored)?;
                let mut places = filled(stored, ABSENT)?;
                let mut blocks = places.chunks_exact_mut(height * width);
                for (row, ends) in offsets.windows(2).enumerate() {
                    for (&column, places) in columns[ends[0] as usize..ends[1] as usize].iter().zip(&mut blocks) {
                        for (i, place) in places.iter_mut().enumerate() {
                            let (row, column) = (row * height + i / width, column as usize * width + i % width);
                            if row < rows && column < cols {
                                *place = ranks.of(row * cols + column);
                            }
                        }
                    }
                }
                let columns = List::new(columns, cols.div_ceil(width));
                (Positions::Blocks { height, width, offsets, columns }, kept.pick(&places)?)
            }
            Form::TwoOfFour => {
                let indices = pairs(mask, rows, cols)?;
                let slots = two_of_four_slots(cols);
                let stored = (0..rows * slots).map(|slot| {
                    let (row, slot) = (slot / slots, slot % slots);
                    ranks.of(row * cols + pair_column(&indices, slots, row, slot))
                });
                let kept = kept.pick(&collect(stored)?)?;
                (Positions::TwoOfFour { indices }, kept)
            }
        };
        Ok(Self { rows, cols, positions, kept, scale: None })
    }

    /// The same matrix in another form. From [`Csr`](Form::Csr) and [`Bitmask`](Form::Bitmask) every stored element stays; of the
    /// other forms, which store zeros between, zeros leave.
    ///
    /// # Errors
    /// As [`from_mask`](Sparse::from_mask).
    pub fn to_form(&self, form: Form) -> Result<Self> {
        if form == self.form() {
            return Ok(self.clone());
        }
        let (mask, kept) = match &self.positions {
            Positions::Csr { .. } => (self.mask()?, self.kept.clone()),
            Positions::Bitmask { mask, .. } => (mask.clone(), self.kept.clone()),
            _ => {
                let values = self.kept.to_vec::<f32>();
                let (mut mask, mut places) = (Mask::from_fn(&self.shape(), |_| false)?, Vec::new());
                self.each(|slot, index| {
                    if values[slot] != 0.0 {
                        mask.keep(index);
                        places.push((index, slot as u32));
                    }
                });
                places.sort_unstable();
                (mask, self.kept.clone().pick(&places.iter().map(|place| place.1).collect::<Vec<_>>())?)
            }
        };
        Ok(Self { scale: self.scale.clone(), ..Self::from_mask(&mask, kept, form)? })
    }
}

/// The number of kept elements before an element.
struct Ranks<'a> {
    mask: &'a Mask,
    words: Vec<u32>,
}

impl<'a> Ranks<'a> {
    /// The mask keeps fewer than 2³² - 1.
    fn new(mask: &'a Mask) -> Self {
        let mut before = 0;
        let mut next = |word: &u64| {
            before += word.count_ones();
            before
        };
        Self { mask, words: std::iter::once(0).chain(mask.words().iter().map(&mut next)).collect() }
    }

    fn before(&self, index: usize) -> u32 {
        let word = self.mask.words().get(index / 64).copied().unwrap_or(0);
        self.words[index / 64] + (word & ((1 << (index % 64)) - 1)).count_ones()
    }

    /// The place of an element among those kept.
    fn of(&self, index: usize) -> u32 {
        if self.mask.get(index) == Some(true) { self.before(index) } else { ABSENT }
    }

    /// The place of the first of each row, and of the end.
    fn rows(&self, rows: usize, cols: usize) -> Result<Vec<u32>> {
        let mut offsets = no_offsets(rows)?;
        offsets.iter_mut().enumerate().for_each(|(row, offset)| *offset = self.before(row * cols));
        Ok(offsets)
    }
}

/// As many offsets as rows need, 0 each.
fn no_offsets(rows: usize) -> Result<Vec<u32>> {
    match rows.checked_add(1) {
        Some(offsets) => filled(offsets, 0),
        None => Err(Error::argument("rows", rows, "such that memory holds their offsets")),
    }
}

fn collect(places: impl ExactSizeIterator<Item = u32>) -> Result<Vec<u32>> {
    check_stored(places.len())?;
    let mut all = filled(places.len(), ABSENT)?;
    all.iter_mut().zip(places).for_each(|(to, from)| *to = from);
    Ok(all)
}

pub(super) fn check_stored(stored: usize) -> Result<()> {
    if stored < ABSENT as usize {
        Ok(())
    } else {
        Err(Error::argument("stored elements", stored, "less than 2^32 - 1"))
    }
}

pub(super) fn check_sides(height: usize, width: usize) -> Result<()> {
    match [height, width].into_iter().find(|side| !(1..=MAX_SIDE).contains(side)) {
        Some(side) => Err(Error::argument("side of blocks", side, "1 to 32")),
        None => Ok(()),
    }
}

/// The blocks in which a mask keeps something: where those of each row of blocks begin, and their columns.
fn occupied(mask: &Mask, rows: usize, cols: usize, height: usize, width: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut offsets, mut columns) = (no_offsets(rows.div_ceil(height))?, Vec::new());
    let mut seen = filled(if mask.is_empty() { 0 } else { cols.div_ceil(width) }, false)?;
    let mut indices = mask.indices().peekable();
    for (row, offset) in offsets.iter_mut().skip(1).enumerate() {
        while let Some(index) = indices.next_if(|&index| index / cols / height == row) {
            seen[index % cols / width] = true;
        }
        for (column, seen) in seen.iter_mut().enumerate() {
            if std::mem::take(seen) {
                columns.push(column as u32);
            }
        }
        *offset = columns.len() as u32;
    }
    Ok((offsets, columns))
}

/// Which two of each four; where fewer are kept, the first of the others come with them.
fn pairs(mask: &Mask, rows: usize, cols: usize) -> Result<Vec<u8>> {
    let slots = two_of_four_slots(cols);
    let bytes = slots.div_ceil(4);
    let mut indices = filled(rows * bytes, 0u8)?;
    // Rows without a column have nothing to visit, however many they are.
    let rows = if cols == 0 { 0 } else { rows };
    for row in 0..rows {
        for (group, first) in (0..cols).step_by(4).enumerate() {
            let width = (cols - first).min(4);
            let kept = |j: usize| mask.get(row * cols + first + j) == Some(true);
            let mut chosen = (0..width).fold(0u8, |bits, j| bits | u8::from(kept(j)) << j);
            let most = width.min(2) as u32;
            if chosen.count_ones() > most {
                let found = format!("{} in row {row} from column {first}", chosen.count_ones());
                return Err(Error::argument("elements kept of four", found, "at most two"));
            }
            while chosen.count_ones() < most {
                chosen |= 1 << chosen.trailing_ones();
            }
            for slot in 2 * group..2 * group + most as usize {
                indices[row * bytes + slot / 4] |= (chosen.trailing_zeros() as u8) << (slot % 4 * 2);
                chosen &= chosen - 1;
            }
        }
    }
    Ok(indices)
}
