//! Products of matrices of stored blocks.

use super::{
    Lane, Sums, TILE, Window,
    columns::{Columns, Index},
    lane::{LANES, contiguous, finish},
};

/// Rows of a block, and columns, at most: a [`Window`] holds a block.
pub(crate) const MAX_SIDE: usize = 32;

/// Blocks of `height` rows and `width` columns, and where those of each row of blocks begin.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) offsets: &'a [u32],
    pub(super) columns: Columns<'a>,
}

impl Blocks<'_> {
    #[inline(always)]
    pub(super) fn product<L: Lane>(self, window: &mut Window<'_>, x: &[L], out: &mut [L]) {
        match (self.height, self.width) {
            (16, 1) if L::WIDTH == 1 => self.run(window, x, out, Tall::<L, 16>::default()),
            (4, 4) if L::WIDTH == 1 => self.run(window, x, out, Square::default()),
            (_, 1) => self.run(window, x, out, Narrow::<L, 1, 8>::default()),
            (_, 4) => self.run(window, x, out, Narrow::<L, 4, 2>::default()),
            _ => self.run(window, x, out, Other::default()),
        }
    }

    #[inline(always)]
    fn run<L: Lane, W: Way<L>>(self, window: &mut Window<'_>, x: &[L], out: &mut [L], zero: W) {
        let size = self.height * self.width;
        // Tiles begin at the first sum, where blocks are small enough.
        let each = (TILE / size / LANES * LANES).max(1);
        let mut room = [0u32; TILE];
        for (out, ends) in out.chunks_mut(self.height).zip(self.offsets.windows(2)) {
            let (mut sums, first, end) = (zero, ends[0] as usize, ends[1] as usize);
            for start in (first..end).step_by(each) {
                let tile = start..end.min(start + each);
                let w = window.take(tile.start * size..tile.end * size);
                let columns = &mut room[..tile.len()];
                self.columns.load(tile, columns);
                sums.add(self, start - first, w, columns, x);
            }
            for (row, out) in out.iter_mut().enumerate() {
                *out = finish(sums.row(row));
            }
        }
    }
}

/// A way to keep and add the sums of a row of blocks.
trait Way<L: Lane>: Copy {
    /// Adds some blocks after the first `done`; `w` has their elements.
    fn add(&mut self, blocks: Blocks<'_>, done: usize, w: &[f32], columns: &[u32], x: &[L]);
    fn row(&self, row: usize) -> Sums<L>;
}

/// The inputs of a block: fewer than it is wide at the edge of the matrix.
#[inline(always)]
fn inputs<L>(x: &[L], column: u32, width: usize) -> &[L] {
    let x = &x[column.at() * width..];
    &x[..width.min(x.len())]
}

/// One column: a sum for each row and each of eight blocks, the rows beside one another.
#[derive(Clone, Copy)]
struct Tall<L, const HEIGHT: usize>([[L; HEIGHT]; LANES]);

impl<L: Lane, const HEIGHT: usize> Default for Tall<L, HEIGHT> {
    #[inline(always)]
    fn default() -> Self {
        Self([[L::default(); HEIGHT]; LANES])
    }
}

impl<L: Lane, const HEIGHT: usize> Way<L> for Tall<L, HEIGHT> {
    #[inline(always)]
    fn add(&mut self, _: Blocks<'_>, _: usize, w: &[f32], columns: &[u32], x: &[L]) {
        let (w, _) = w.as_chunks::<HEIGHT>();
        for (w, columns) in w.chunks(LANES).zip(columns.chunks(LANES)) {
            for ((sums, w), column) in self.0.iter_mut().zip(w).zip(columns) {
                let x = x[column.at()];
                for (sum, &w) in sums.iter_mut().zip(w) {
                    *sum = sum.plus_product(w, x);
                }
            }
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> Sums<L> {
        self.0.map(|sums| sums[row])
    }
}

/// Four columns and four rows: all products of a block beside one another, even and odd blocks apart.
#[derive(Clone, Copy, Default)]
struct Square<L>([[L; 16]; 2]);

impl<L: Lane> Way<L> for Square<L> {
    #[inline(always)]
    fn add(&mut self, _: Blocks<'_>, _: usize, w: &[f32], columns: &[u32], x: &[L]) {
        let (w, _) = w.as_chunks::<16>();
        for (w, columns) in w.chunks(2).zip(columns.chunks(2)) {
            for ((sums, w), &column) in self.0.iter_mut().zip(w).zip(columns) {
                let x = inputs(x, column, 4);
                if let Ok(x) = <&[L; 4]>::try_from(x) {
                    for (i, (sum, &w)) in sums.iter_mut().zip(w).enumerate() {
                        *sum = sum.plus_product(w, x[i % 4]);
                    }
                } else {
                    for (sums, w) in sums.as_chunks_mut::<4>().0.iter_mut().zip(w.as_chunks::<4>().0) {
                        for ((sum, &w), &x) in sums.iter_mut().zip(w).zip(x) {
                            *sum = sum.plus_product(w, x);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> Sums<L> {
        let mut sums = Sums::default();
        let (even, odd) = sums.split_at_mut(LANES / 2);
        even.copy_from_slice(&self.0[0][4 * row..4 * row + 4]);
        odd.copy_from_slice(&self.0[1][4 * row..4 * row + 4]);
        sums
    }
}

/// `EACH` blocks of `WIDTH` columns make up the sums of a row, which stay in registers.
#[derive(Clone, Copy)]
struct Narrow<L, const WIDTH: usize, const EACH: usize>([Sums<L>; MAX_SIDE]);

impl<L: Lane, const WIDTH: usize, const EACH: usize> Default for Narrow<L, WIDTH, EACH> {
    #[inline(always)]
    fn default() -> Self {
        Self([Sums::default(); MAX_SIDE])
    }
}

impl<L: Lane, const WIDTH: usize, const EACH: usize> Way<L> for Narrow<L, WIDTH, EACH> {
    #[inline(always)]
    fn add(&mut self, blocks: Blocks<'_>, _: usize, w: &[f32], columns: &[u32], x: &[L]) {
        let size = blocks.height * WIDTH;
        let (groups, rest) = columns.as_chunks::<EACH>();
        let (w, w_rest) = w.split_at(groups.len() * EACH * size);
        for (row, sums) in self.0[..blocks.height].iter_mut().enumerate() {
            let mut own = *sums;
            for (w, columns) in w.chunks_exact(EACH * size).zip(groups) {
                for ((own, w), &column) in
                    own.as_chunks_mut::<WIDTH>().0.iter_mut().zip(w.chunks_exact(size)).zip(columns)
                {
                    add(own, &w[row * WIDTH..], inputs(x, column, WIDTH));
                }
            }
            let rest = w_rest.chunks_exact(size).zip(rest);
            for (own, (w, &column)) in own.as_chunks_mut::<WIDTH>().0.iter_mut().zip(rest) {
                add(own, &w[row * WIDTH..], inputs(x, column, WIDTH));
            }
            *sums = own;
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> Sums<L> {
        self.0[row]
    }
}

#[inline(always)]
fn add<L: Lane, const WIDTH: usize>(sums: &mut [L; WIDTH], w: &[f32], x: &[L]) {
    if let (Some(w), Ok(x)) = (w.first_chunk::<WIDTH>(), <&[L; WIDTH]>::try_from(x)) {
        for ((sum, &w), &x) in sums.iter_mut().zip(w).zip(x) {
            *sum = sum.plus_product(w, x);
        }
    } else {
        for ((sum, &w), &x) in sums.iter_mut().zip(w).zip(x) {
            *sum = sum.plus_product(w, x);
        }
    }
}

/// Any size, row after row of each block.
#[derive(Clone, Copy)]
struct Other<L>([Sums<L>; MAX_SIDE]);

impl<L: Lane> Default for Other<L> {
    #[inline(always)]
    fn default() -> Self {
        Self([Sums::default(); MAX_SIDE])
    }
}

impl<L: Lane> Way<L> for Other<L> {
    #[inline(always)]
    fn add(&mut self, blocks: Blocks<'_>, done: usize, w: &[f32], columns: &[u32], x: &[L]) {
        let Blocks { height, width, .. } = blocks;
        for (row, sums) in self.0[..height].iter_mut().enumerate() {
            let mut own = *sums;
            let blocks = w.chunks_exact(height * width).zip(columns);
            if width.is_multiple_of(LANES) {
                for (w, &column) in blocks {
                    let x = inputs(x, column, width);
                    contiguous(&mut own, &w[row * width..][..x.len()], x);
                }
            } else {
                for (block, (w, &column)) in blocks.enumerate() {
                    let first = (done + block) * width;
                    for (j, (&w, &x)) in w[row * width..].iter().zip(inputs(x, column, width)).enumerate() {
                        let sum = &mut own[(first + j) % LANES];
                        *sum = sum.plus_product(w, x);
                    }
                }
            }
            *sums = own;
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> Sums<L> {
        self.0[row]
    }
}
