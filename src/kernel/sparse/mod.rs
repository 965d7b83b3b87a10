//! Sparse matrices times vectors: one formula, whatever the positions are kept as.
//!
//! ```text
//! w[0], w[1], ...     the stored elements of row i, by ascending columns c[0], c[1], ...
//! p[l]  = 0 + w[l] x[c[l]] + w[l+8] x[c[l+8]] + ...      for l = 0 .. 8, from left to right
//! y[i]  = ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]))
//! y[i] *= scale[i]                                       where rows have scales
//! ```
//!
//! Rows do not depend on one another, so that threads do not change the bits, and each operation is rounded, so that instruction sets
//! do not. Inputs are looked up one by one, with checked indices: on the processors this was measured on that is faster than the
//! gather instructions of AVX2 and AVX-512.

mod blocks;
mod columns;
mod lane;
mod numbers;

pub(crate) use blocks::MAX_SIDE;
pub(crate) use columns::Columns;
pub(crate) use lane::{Eight, LANES};
pub(crate) use numbers::Numbers;

use super::{
    isa::{Isa, Kernel},
    parallel::{GRAIN, Work, execute},
    rows::TILE,
};
use columns::{Index, next_bits};
use lane::{Lane, Sums, contiguous, finish, gathered, picked};
use numbers::Window;
use std::ops::Range;

/// Where the stored elements are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Positions<'a> {
    /// Everywhere.
    Dense,
    /// Row `i` has the columns from `offsets[i]` to `offsets[i + 1]`.
    Csr { offsets: &'a [u32], columns: Columns<'a> },
    /// As [`Csr`](Positions::Csr), of blocks; each is stored whole, row after row.
    Blocks { height: usize, width: usize, offsets: &'a [u32], columns: Columns<'a> },
    /// A bit for each element; row `i` has the stored elements from `offsets[i]` on.
    Bits { offsets: &'a [u32], words: &'a [u64] },
    /// Two of four neighbours: which, in two bits each.
    TwoOfFour { indices: &'a [u8] },
}

/// A matrix. Its makers keep to these sizes and orders; a wrong one would be a panic.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) positions: Positions<'a>,
    pub(crate) numbers: Numbers<'a>,
    pub(crate) scale: Option<&'a [f32]>,
}

/// Stored elements of a row that is two of four: one where a last group has but one column.
pub(crate) fn two_of_four_slots(cols: usize) -> usize {
    cols / 4 * 2 + (cols % 4).min(2)
}

impl Matrix<'_> {
    /// Rows that are worked on together.
    fn unit(&self) -> usize {
        match self.positions {
            Positions::Blocks { height, .. } => height,
            _ => 1,
        }
    }

    /// Stored elements of some units.
    fn stored(&self, units: Range<usize>) -> usize {
        match self.positions {
            Positions::Dense => units.len() * self.cols,
            Positions::Csr { offsets, .. } | Positions::Bits { offsets, .. } => span(offsets, units).len(),
            Positions::Blocks { height, width, offsets, .. } => span(offsets, units).len() * height * width,
            Positions::TwoOfFour { .. } => units.len() * two_of_four_slots(self.cols),
        }
    }
}

/// From the offset of the first of `units` to that behind the last.
#[inline(always)]
fn span(offsets: &[u32], units: Range<usize>) -> Range<usize> {
    offsets[units.start] as usize..offsets[units.end] as usize
}

/// `out = A x`: `x` has a lane for each column, `out` for each row.
pub(crate) fn product<L: Lane>(matrix: Matrix<'_>, x: &[L], out: &mut [L]) {
    debug_assert_eq!((x.len(), out.len()), (matrix.cols, matrix.rows));
    let units = 0..matrix.rows.div_ceil(matrix.unit());
    execute(Product { matrix, x, out, units });
}

struct Product<'a, L> {
    matrix: Matrix<'a>,
    x: &'a [L],
    /// Of the rows of `units`.
    out: &'a mut [L],
    units: Range<usize>,
}

impl<L: Lane> Work for Product<'_, L> {
    type Output = ();

    fn len(&self) -> usize {
        self.units.len()
    }

    fn chunk(&self) -> usize {
        let each = self.matrix.stored(self.units.clone()) / self.units.len().max(1) * L::WIDTH;
        (GRAIN / each.max(1)).max(1)
    }

    fn elements(&self) -> usize {
        // A row costs about as much as sixteen elements, by itself.
        (self.matrix.stored(self.units.clone()) + 16 * self.out.len()).saturating_mul(L::WIDTH)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { matrix, x, out, units } = self;
        let (out, out_right) = out.split_at_mut(mid * matrix.unit());
        let mid = units.start + mid;
        (Self { matrix, x, out, units: units.start..mid }, Self { matrix, x, out: out_right, units: mid..units.end })
    }

    fn run(self, isa: Isa) {
        let window = &mut Window::new(self.matrix.numbers, isa);
        let isa = match self.matrix.positions {
            // One input at a time is not faster by wider vectors, of which the compiler makes less here.
            Positions::Csr { .. } if L::WIDTH == 1 => Isa::BASELINE,
            _ => isa,
        };
        isa.run(Rows { product: self, window });
    }

    fn combine((): (), (): ()) {}
}

struct Rows<'w, 'a, L> {
    product: Product<'a, L>,
    window: &'w mut Window<'a>,
}

impl<L: Lane> Kernel for Rows<'_, '_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { product: Product { matrix, x, out, units }, window } = self;
        let Matrix { cols, positions, scale, .. } = matrix;
        let first = units.start;
        match positions {
            Positions::Dense => dense(cols, first, window, x, out),
            Positions::Csr { offsets, columns: Columns::U16(columns) } => {
                csr(&offsets[first..], columns, window, x, out);
            }
            Positions::Csr { offsets, columns: Columns::U32(columns) } => {
                csr(&offsets[first..], columns, window, x, out);
            }
            Positions::Blocks { height, width, offsets, columns } => {
                blocks::Blocks { height, width, offsets: &offsets[first..], columns }.product(window, x, out);
            }
            Positions::Bits { offsets, words } => {
                bits(cols, first, &offsets[first..], words, window, x, out);
            }
            Positions::TwoOfFour { indices } => {
                pairs(cols, first, indices, window, x, out);
            }
        }
        if let Some(scale) = scale {
            let scale = &scale[first * matrix.unit()..];
            out.iter_mut().zip(scale).for_each(|(out, &scale)| *out = out.scaled(scale));
        }
    }
}

/// A range in pieces that a [`Window`] holds; each but the last has a whole number of [`LANES`].
#[inline(always)]
fn tiles(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(TILE).map(move |start| start..end.min(start + TILE))
}

#[inline(always)]
fn dense<L: Lane>(cols: usize, first: usize, window: &mut Window<'_>, x: &[L], out: &mut [L]) {
    for (i, out) in out.iter_mut().enumerate() {
        let (mut sums, start) = (Sums::default(), (first + i) * cols);
        for tile in tiles(start..start + cols) {
            let x = &x[tile.start - start..tile.end - start];
            contiguous(&mut sums, window.take(tile), x);
        }
        *out = finish(sums);
    }
}

#[inline(always)]
fn csr<L: Lane, I: Index>(offsets: &[u32], columns: &[I], window: &mut Window<'_>, x: &[L], out: &mut [L]) {
    for (out, ends) in out.iter_mut().zip(offsets.windows(2)) {
        let mut sums = Sums::default();
        for tile in tiles(ends[0] as usize..ends[1] as usize) {
            let columns = &columns[tile.clone()];
            gathered(&mut sums, window.take(tile), columns, x);
        }
        *out = finish(sums);
    }
}

#[inline(always)]
fn bits<L: Lane>(
    cols: usize,
    first: usize,
    offsets: &[u32],
    words: &[u64],
    window: &mut Window<'_>,
    x: &[L],
    out: &mut [L],
) {
    let mut columns = [0u32; TILE + u64::BITS as usize];
    for ((i, out), ends) in out.iter_mut().enumerate().zip(offsets.windows(2)) {
        let (mut sums, mut at) = (Sums::default(), ends[0] as usize);
        let mut place = (first + i) * cols..(first + i + 1) * cols;
        let row = place.start;
        while !place.is_empty() {
            // As many words as surely fit: `found` is a whole number of lanes, or the row is at its end.
            let found = next_bits(words, &mut place, row, &mut columns);
            gathered(&mut sums, window.take(at..at + found), &columns[..found], x);
            at += found;
        }
        *out = finish(sums);
    }
}

#[inline(always)]
fn pairs<L: Lane>(cols: usize, first: usize, indices: &[u8], window: &mut Window<'_>, x: &[L], out: &mut [L]) {
    let slots = two_of_four_slots(cols);
    let bytes = slots.div_ceil(4);
    for (i, out) in out.iter_mut().enumerate() {
        let (mut sums, start) = (Sums::default(), (first + i) * slots);
        let indices = &indices[(first + i) * bytes..][..bytes];
        for tile in tiles(start..start + slots) {
            let own = tile.start - start;
            picked(&mut sums, window.take(tile), &indices[own / 4..], &x[2 * own..]);
        }
        *out = finish(sums);
    }
}
