//! Quantizing and dequantizing a tensor of rows: codes in packed rows, levels in groups.

use super::{
    grid::{Levels, MAX_LEVELS},
    isa::{Isa, Kernel},
    pack::{pack, packed_len, unpack},
    parallel::{GRAIN, Work, execute},
    scan,
};
use crate::element::{Element, Real};
use num_traits::Float;
use std::ops::Range;

/// Columns worked on at a time; whole bytes at every width.
const TILE: usize = 1024;

/// Which elements share levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Groups {
    /// All of them.
    Whole,
    /// Those of a row: `row / repeat % count`.
    Rows { repeat: usize, count: usize },
    /// Those of a column.
    Columns,
    /// `size` neighbours in a row; the last of a row may be shorter.
    Blocks { size: usize },
}

/// How a tensor lies: rows of `cols` elements, their codes packed, each row from a byte on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Layout {
    pub(crate) cols: usize,
    pub(crate) bits: u32,
    pub(crate) groups: Groups,
}

impl Layout {
    pub(crate) fn row_bytes(&self) -> usize {
        packed_len(self.cols, self.bits)
    }

    fn tiles_per_row(&self) -> usize {
        self.cols.div_ceil(TILE)
    }

    /// The row and first column of a tile.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize) {
        (tile / self.tiles_per_row(), tile % self.tiles_per_row() * TILE)
    }

    fn first_element(&self, tile: usize) -> usize {
        let (row, col) = self.place(tile);
        row * self.cols + col
    }

    fn first_byte(&self, tile: usize) -> usize {
        let (row, col) = self.place(tile);
        row * self.row_bytes() + packed_len(col, self.bits)
    }

    /// Calls `visit` with each run of the columns `cols` of a row that shares a group; the range is
    /// relative to the first of `cols`.
    #[inline(always)]
    fn runs(&self, row: usize, cols: Range<usize>, mut visit: impl FnMut(Range<usize>, usize)) {
        match self.groups {
            Groups::Whole => visit(0..cols.len(), 0),
            Groups::Rows { repeat, count } => visit(0..cols.len(), row / repeat % count),
            Groups::Columns => cols.clone().for_each(|col| visit(col - cols.start..col - cols.start + 1, col)),
            Groups::Blocks { size } => {
                let first = row * self.cols.div_ceil(size);
                let mut col = cols.start;
                while col < cols.end {
                    let end = cols.end.min((col / size + 1) * size);
                    visit(col - cols.start..end - cols.start, first + col / size);
                    col = end;
                }
            }
        }
    }
}

/// Some tiles of a tensor: the elements and the bytes of their codes, each to read or to write.
struct Tiles<V, B, O> {
    layout: Layout,
    tiles: Range<usize>,
    values: V,
    bytes: B,
    op: O,
}

/// A slice, shared or not.
trait Cut: Send + Sized {
    fn cut(self, mid: usize) -> (Self, Self);
    fn count(&self) -> usize;
}

impl<T: Sync> Cut for &[T] {
    fn cut(self, mid: usize) -> (Self, Self) {
        self.split_at(mid)
    }
    fn count(&self) -> usize {
        self.len()
    }
}

impl<T: Send> Cut for &mut [T] {
    fn cut(self, mid: usize) -> (Self, Self) {
        self.split_at_mut(mid)
    }
    fn count(&self) -> usize {
        self.len()
    }
}

/// What is done with tiles, and what of it adds up.
trait Operation<V, B>: Copy + Send + Sync {
    type Output: Send;
    fn run(self, layout: Layout, tiles: Range<usize>, values: V, bytes: B) -> Self::Output;
    fn combine(left: Self::Output, right: Self::Output) -> Self::Output;
}

impl<V: Cut, B: Cut, O: Operation<V, B>> Work for Tiles<V, B, O> {
    type Output = O::Output;

    fn len(&self) -> usize {
        self.tiles.len()
    }

    fn chunk(&self) -> usize {
        (GRAIN / self.layout.cols.clamp(1, TILE)).max(1)
    }

    fn elements(&self) -> usize {
        self.values.count()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { layout, tiles, values, bytes, op } = self;
        let mid = tiles.start + mid;
        let (values, values_right) = values.cut(layout.first_element(mid) - layout.first_element(tiles.start));
        let (bytes, bytes_right) = bytes.cut(layout.first_byte(mid) - layout.first_byte(tiles.start));
        (
            Self { layout, tiles: tiles.start..mid, values, bytes, op },
            Self { layout, tiles: mid..tiles.end, values: values_right, bytes: bytes_right, op },
        )
    }

    fn run(self, isa: Isa) -> O::Output {
        isa.run(self)
    }

    fn combine(left: O::Output, right: O::Output) -> O::Output {
        O::combine(left, right)
    }
}

impl<V, B, O: Operation<V, B>> Kernel for Tiles<V, B, O> {
    type Output = O::Output;

    #[inline(always)]
    fn run(self) -> O::Output {
        self.op.run(self.layout, self.tiles, self.values, self.bytes)
    }
}

fn over<V: Cut, B: Cut, O: Operation<V, B>>(layout: Layout, values: V, bytes: B, op: O) -> O::Output {
    let rows = values.count() / layout.cols.max(1);
    execute(Tiles { layout, tiles: 0..rows * layout.tiles_per_row(), values, bytes, op })
}

/// From a value to a code, for one group.
pub(crate) trait Code<T>: Copy {
    fn code(&self, x: T) -> u8;
}

/// From values to codes, for all groups of a tensor.
pub(crate) trait Codes<T>: Copy + Send + Sync {
    type Code: Code<T>;
    fn of(&self, group: usize) -> Self::Code;
}

/// The codes of `values`, packed.
pub(crate) fn encode<T: Element>(layout: Layout, values: &[T], codes: impl Codes<T>, bytes: &mut [u8]) {
    over(layout, values, bytes, Encode { codes });
}

#[derive(Clone, Copy)]
struct Encode<C> {
    codes: C,
}

impl<T: Element, C: Codes<T>> Operation<&[T], &mut [u8]> for Encode<C> {
    type Output = ();

    #[inline(always)]
    fn run(self, layout: Layout, tiles: Range<usize>, mut values: &[T], mut bytes: &mut [u8]) {
        let mut codes = [0; TILE];
        for (row, col) in tiles.map(|tile| layout.place(tile)) {
            let width = TILE.min(layout.cols - col);
            let (tile, values_rest) = values.split_at(width);
            let (packed, bytes_rest) = bytes.split_at_mut(packed_len(width, layout.bits));
            layout.runs(row, col..col + width, |run, group| {
                let group = self.codes.of(group);
                for (code, &x) in codes[run.clone()].iter_mut().zip(&tile[run]) {
                    *code = group.code(x);
                }
            });
            pack(&codes[..width], layout.bits, packed);
            (values, bytes) = (values_rest, bytes_rest);
        }
    }

    fn combine((): (), (): ()) {}
}

/// The values of the codes in `bytes`.
pub(crate) fn decode<T: Element>(layout: Layout, levels: Levels<'_>, bytes: &[u8], values: &mut [T]) {
    over(layout, values, bytes, Decode { levels });
}

#[derive(Clone, Copy)]
struct Decode<'a> {
    levels: Levels<'a>,
}

impl<T: Element> Operation<&mut [T], &[u8]> for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, layout: Layout, tiles: Range<usize>, mut values: &mut [T], bytes: &[u8]) {
        Decoder::new(self.levels, layout).for_each(tiles, bytes, |decoded| {
            let (tile, rest) = std::mem::take(&mut values).split_at_mut(decoded.len());
            tile.copy_from_slice(decoded);
            values = rest;
        });
    }

    fn combine((): (), (): ()) {}
}

/// How far decoded values are from the originals.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Distance {
    /// The largest `|x - x'|`.
    pub(crate) max: f64,
    /// The sum of `(scale * (x - x'))²`.
    pub(crate) squares: f64,
}

/// Compares `values` with what the codes in `bytes` decode to, as `T`.
pub(crate) fn compare<T: Element>(
    layout: Layout,
    levels: Levels<'_>,
    bytes: &[u8],
    values: &[T],
    scale: f64,
) -> Distance {
    over(layout, values, bytes, Compare { levels, scale })
}

#[derive(Clone, Copy)]
struct Compare<'a> {
    levels: Levels<'a>,
    scale: f64,
}

impl<T: Element> Operation<&[T], &[u8]> for Compare<'_> {
    type Output = Distance;

    #[inline(always)]
    fn run(self, layout: Layout, tiles: Range<usize>, mut values: &[T], bytes: &[u8]) -> Distance {
        let mut sum = Distance::default();
        Decoder::new(self.levels, layout).for_each(tiles, bytes, |decoded: &[T]| {
            let (tile, rest) = values.split_at(decoded.len());
            for (x, y) in tile.iter().zip(decoded) {
                let error = (x.to_f64() - y.to_f64()).abs();
                sum.max = if error > sum.max { error } else { sum.max };
                let scaled = error * self.scale;
                sum.squares += scaled * scaled;
            }
            values = rest;
        });
        sum
    }

    fn combine(a: Distance, b: Distance) -> Distance {
        Distance { max: a.max.max(b.max), squares: a.squares + b.squares }
    }
}

/// Decodes tile by tile; keeps the table of the last group.
struct Decoder<'a, T> {
    levels: Levels<'a>,
    layout: Layout,
    table: [T; MAX_LEVELS],
    group: Option<usize>,
}

impl<'a, T: Element> Decoder<'a, T> {
    #[inline(always)]
    fn new(levels: Levels<'a>, layout: Layout) -> Self {
        Self { levels, layout, table: [T::default(); MAX_LEVELS], group: None }
    }

    #[inline(always)]
    fn for_each(&mut self, tiles: Range<usize>, mut bytes: &[u8], mut tile: impl FnMut(&[T])) {
        let layout = self.layout;
        let (mut codes, mut decoded) = ([0; TILE], [T::default(); TILE]);
        for (row, col) in tiles.map(|tile| layout.place(tile)) {
            let width = TILE.min(layout.cols - col);
            let (packed, rest) = bytes.split_at(packed_len(width, layout.bits));
            unpack(packed, layout.bits, &mut codes[..width]);
            layout.runs(row, col..col + width, |run, group| {
                self.decode_run(group, &codes[run.clone()], &mut decoded[run]);
            });
            tile(&decoded[..width]);
            bytes = rest;
        }
    }

    /// A table pays where a run is longer than it; both ways give the same bits.
    #[inline(always)]
    fn decode_run(&mut self, group: usize, codes: &[u8], out: &mut [T]) {
        let bits = self.layout.bits;
        if codes.len() < 1 << bits && self.group != Some(group) {
            for (x, &code) in out.iter_mut().zip(codes) {
                *x = self.levels.level(group, code, bits);
            }
            return;
        }
        if self.group != Some(group) {
            self.levels.table(group, bits, &mut self.table);
            self.group = Some(group);
        }
        for (x, &code) in out.iter_mut().zip(codes) {
            *x = self.table[usize::from(code)];
        }
    }
}

/// Takes the smallest and the largest value of each group.
pub(crate) trait Ranges<R>: Send + Sized {
    /// Groups.
    fn len(&self) -> usize;
    fn split_at(self, mid: usize) -> (Self, Self);
    fn put(&mut self, group: usize, min: R, max: R);
}

/// Keeps them as they are.
pub(crate) struct Ends<'a, R> {
    pub(crate) min: &'a mut [R],
    pub(crate) max: &'a mut [R],
}

impl<R: Real> Ranges<R> for Ends<'_, R> {
    fn len(&self) -> usize {
        self.min.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (min, min_right) = self.min.split_at_mut(mid);
        let (max, max_right) = self.max.split_at_mut(mid);
        (Self { min, max }, Self { min: min_right, max: max_right })
    }

    #[inline(always)]
    fn put(&mut self, group: usize, min: R, max: R) {
        (self.min[group], self.max[group]) = (min, max);
    }
}

/// Keeps the scale, and the code of 0 where it differs from group to group, that `fit` makes of them.
pub(crate) struct Scales<'a, R, F> {
    pub(crate) scales: &'a mut [R],
    pub(crate) zeros: Option<&'a mut [u8]>,
    pub(crate) fit: F,
}

impl<R: Real, F: Fn(R, R) -> (R, u8) + Copy + Send> Ranges<R> for Scales<'_, R, F> {
    fn len(&self) -> usize {
        self.scales.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { scales, zeros, fit } = self;
        let (scales, scales_right) = scales.split_at_mut(mid);
        let (zeros, zeros_right) = zeros.map(|zeros| zeros.split_at_mut(mid)).unzip();
        (Self { scales, zeros, fit }, Self { scales: scales_right, zeros: zeros_right, fit })
    }

    #[inline(always)]
    fn put(&mut self, group: usize, min: R, max: R) {
        let (scale, zero) = (self.fit)(min, max);
        self.scales[group] = scale;
        if let Some(zeros) = &mut self.zeros {
            zeros[group] = zero;
        }
    }
}

/// Finds the range of each group; `values` are finite.
pub(crate) fn ranges<T: Element>(layout: Layout, values: &[T], to: impl Ranges<T::Real>) {
    execute(Scan { layout, values, first: 0, total: to.len(), to });
}

struct Scan<'a, T, S> {
    layout: Layout,
    values: &'a [T],
    first: usize,
    total: usize,
    to: S,
}

impl<T: Element, S: Ranges<T::Real>> Work for Scan<'_, T, S> {
    type Output = ();

    fn len(&self) -> usize {
        self.to.len()
    }

    fn chunk(&self) -> usize {
        let size = self.values.len() / self.total.max(1);
        // Columns are read across rows: at least a few cache lines of them.
        let least = if self.layout.groups == Groups::Columns { COLUMNS } else { 1 };
        (GRAIN / size.max(1)).max(least)
    }

    fn elements(&self) -> usize {
        self.values.len() / self.total.max(1) * self.to.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { layout, values, first, total, to } = self;
        let (to, right) = to.split_at(mid);
        (Self { layout, values, first, total, to }, Self { layout, values, first: first + mid, total, to: right })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

/// Columns whose ranges are found at a time.
const COLUMNS: usize = 64;

impl<T: Element, S: Ranges<T::Real>> Kernel for Scan<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { layout, values, first, total, mut to } = self;
        let groups = first..first + to.len();
        let cols = layout.cols;
        match layout.groups {
            Groups::Whole => {
                let (min, max) = scan::range_of_run(values);
                to.put(0, min, max);
            }
            Groups::Blocks { size } => {
                let per_row = cols.div_ceil(size);
                for group in groups {
                    let (row, col) = (group / per_row, group % per_row * size);
                    let end = cols.min(col.saturating_add(size));
                    let (min, max) = scan::range_of_run(&values[row * cols + col..row * cols + end]);
                    to.put(group - first, min, max);
                }
            }
            Groups::Rows { repeat, .. } => {
                let run = repeat * cols;
                for group in groups {
                    let (mut low, mut high) = scan::range_of_run(&values[group * run..(group + 1) * run]);
                    for again in values.chunks_exact(run).skip(group + total).step_by(total) {
                        let (l, h) = scan::range_of_run(again);
                        (low, high) = (if l < low { l } else { low }, if h > high { h } else { high });
                    }
                    to.put(group - first, low, high);
                }
            }
            Groups::Columns => {
                for start in groups.clone().step_by(COLUMNS) {
                    let columns = start..groups.end.min(start + COLUMNS);
                    let (mut min, mut max) = ([T::Real::infinity(); COLUMNS], [T::Real::neg_infinity(); COLUMNS]);
                    for row in values.chunks_exact(cols) {
                        for ((x, min), max) in row[columns.clone()].iter().zip(&mut min).zip(&mut max) {
                            let x = x.to_real();
                            *min = if x < *min { x } else { *min };
                            *max = if x > *max { x } else { *max };
                        }
                    }
                    for column in columns {
                        to.put(column - first, min[column - start], max[column - start]);
                    }
                }
            }
        }
    }
}
