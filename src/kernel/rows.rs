//! Quantizing and dequantizing a tensor of rows: codes in packed rows, levels in groups.

use super::{
    affine,
    grid::{Even, Level, Levels, Listed, MAX_LEVELS},
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
    pub(super) fn place(&self, tile: usize) -> (usize, usize) {
        (tile / self.tiles_per_row(), tile % self.tiles_per_row() * TILE)
    }

    /// The columns of a tile.
    #[inline(always)]
    pub(super) fn width(&self, tile: usize) -> usize {
        TILE.min(self.cols - self.place(tile).1)
    }

    fn first_element(&self, tile: usize) -> usize {
        let (row, col) = self.place(tile);
        row * self.cols + col
    }

    fn first_byte(&self, tile: usize) -> usize {
        let (row, col) = self.place(tile);
        row * self.row_bytes() + packed_len(col, self.bits)
    }

    /// Each run of the columns `cols` of a row that shares a group, and the group; the range is relative to the first of `cols`.
    #[inline(always)]
    pub(super) fn runs(&self, row: usize, cols: Range<usize>) -> Runs {
        let whole = cols.len().max(1);
        let (group, size) = match self.groups {
            Groups::Whole => (0, whole),
            Groups::Rows { repeat, count } => (row / repeat % count, whole),
            Groups::Columns => (cols.start, 1),
            Groups::Blocks { size } => (row * self.cols.div_ceil(size) + cols.start / size, size),
        };
        let first = match self.groups {
            Groups::Blocks { size } => size - cols.start % size,
            _ => size,
        };
        Runs { at: 0, end: cols.len(), first, size, group }
    }
}

/// An iterator, and not a function that takes a closure: a closure may be compiled for another instruction set.
pub(super) struct Runs {
    at: usize,
    end: usize,
    /// Elements of the next run, if there are as many, and of those after it.
    first: usize,
    size: usize,
    group: usize,
}

impl Iterator for Runs {
    type Item = (Range<usize>, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.end {
            return None;
        }
        let run = self.at..self.end.min(self.at.saturating_add(self.first));
        let group = self.group;
        (self.at, self.first, self.group) = (run.end, self.size, group + 1);
        Some((run, group))
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

/// A slice, shared or not; several of the same length; or nothing.
pub(super) trait Cut: Send + Sized {
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
pub(super) trait Operation<V, B>: Copy + Send + Sync {
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

pub(super) fn over<V: Cut, B: Cut, O: Operation<V, B>>(layout: Layout, values: V, bytes: B, op: O) -> O::Output {
    let rows = values.count() / layout.cols.max(1);
    execute(Tiles { layout, tiles: 0..rows * layout.tiles_per_row(), values, bytes, op })
}

/// From a value to a code, for one group.
pub(crate) trait Code<T>: Copy {
    fn code(&self, x: T) -> u8;
}

/// From values to codes, for all groups of a tensor.
pub(crate) trait Codes<T: Copy>: Copy + Send + Sync {
    type Code: Code<T>;
    fn of(&self, group: usize) -> Self::Code;

    /// Codes of values of which each is in a group of its own, the first in `first`.
    #[inline(always)]
    fn columns(&self, first: usize, values: &[T], codes: &mut [u8]) {
        for (i, (code, &x)) in codes.iter_mut().zip(values).enumerate() {
            *code = self.of(first + i).code(x);
        }
    }
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
            if layout.groups == Groups::Columns {
                self.codes.columns(col, tile, &mut codes[..width]);
            } else {
                for (run, group) in layout.runs(row, col..col + width) {
                    let group = self.codes.of(group);
                    for (code, &x) in codes[run.clone()].iter_mut().zip(&tile[run]) {
                        *code = group.code(x);
                    }
                }
            }
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
    fn run(self, layout: Layout, tiles: Range<usize>, mut values: &mut [T], mut bytes: &[u8]) {
        let mut decoder = Decoder::new(self.levels, layout);
        for tile in tiles {
            let width = layout.width(tile);
            let (packed, bytes_rest) = bytes.split_at(packed_len(width, layout.bits));
            let (out, values_rest) = values.split_at_mut(width);
            decoder.decode(tile, packed, out);
            (values, bytes) = (values_rest, bytes_rest);
        }
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
    fn run(self, layout: Layout, tiles: Range<usize>, mut values: &[T], mut bytes: &[u8]) -> Distance {
        let mut sum = Distance::default();
        let mut decoder = Decoder::new(self.levels, layout);
        let mut decoded = [T::default(); TILE];
        for tile in tiles {
            let width = layout.width(tile);
            let (packed, bytes_rest) = bytes.split_at(packed_len(width, layout.bits));
            let (originals, values_rest) = values.split_at(width);
            decoder.decode(tile, packed, &mut decoded[..width]);
            for (x, y) in originals.iter().zip(&decoded) {
                let error = (x.to_f64() - y.to_f64()).abs();
                sum.max = if error > sum.max { error } else { sum.max };
                let scaled = error * self.scale;
                sum.squares += scaled * scaled;
            }
            (values, bytes) = (values_rest, bytes_rest);
        }
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

    /// The values of one tile.
    #[inline(always)]
    fn decode(&mut self, tile: usize, packed: &[u8], out: &mut [T]) {
        let layout = self.layout;
        let (row, col) = layout.place(tile);
        let mut room = [0; TILE];
        let codes = &mut room[..out.len()];
        unpack(packed, layout.bits, codes);
        if let (Groups::Columns, Levels::Affine { scales, zeros }) = (layout.groups, self.levels) {
            return affine::columns(scales, zeros, layout.bits, col, codes, out);
        }
        for (run, group) in layout.runs(row, col..col + out.len()) {
            self.decode_run(group, &codes[run.clone()], &mut out[run]);
        }
    }

    #[inline(always)]
    fn decode_run(&mut self, group: usize, codes: &[u8], out: &mut [T]) {
        let bits = self.layout.bits;
        match self.levels {
            Levels::Affine { scales, zeros } => {
                affine::levels(scales, group, affine::zero(zeros, group, bits), codes, out);
            }
            Levels::Even { min, max } => {
                self.look_up(group, codes, out, Even::new(min.get(group), max.get(group), bits));
            }
            Levels::Table(all) => self.look_up(group, codes, out, Listed { all, first: group << bits }),
        }
    }

    /// A table pays where a run is longer than it; both ways give the same bits.
    #[inline(always)]
    fn look_up(&mut self, group: usize, codes: &[u8], out: &mut [T], levels: impl Level) {
        let known = self.group == Some(group);
        if codes.len() < 1 << self.layout.bits && !known {
            for (x, &code) in out.iter_mut().zip(codes) {
                *x = levels.level(code);
            }
            return;
        }
        if !known {
            for (code, entry) in self.table[..1 << self.layout.bits].iter_mut().enumerate() {
                *entry = levels.level(code as u8);
            }
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
    /// Those of the groups from `first` on.
    fn put(&mut self, first: usize, min: &[R], max: &[R]);
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
    fn put(&mut self, first: usize, min: &[R], max: &[R]) {
        self.min[first..first + min.len()].copy_from_slice(min);
        self.max[first..first + max.len()].copy_from_slice(max);
    }
}

/// What a scheme makes of a group's range.
pub(crate) trait Fit: Copy + Send {
    fn scale<R: Real>(&self, min: R, max: R) -> R;
    /// The code of 0.
    fn zero<R: Real>(&self, min: R, scale: R) -> u8;
}

/// Keeps the scale, and the code of 0 where it differs from group to group, that `fit` makes of them.
pub(crate) struct Scales<'a, R, F> {
    pub(crate) scales: &'a mut [R],
    pub(crate) zeros: Option<&'a mut [u8]>,
    pub(crate) fit: F,
}

impl<R: Real, F: Fit> Ranges<R> for Scales<'_, R, F> {
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
    fn put(&mut self, first: usize, min: &[R], max: &[R]) {
        let groups = first..first + min.len();
        for ((scale, &min), &max) in self.scales[groups.clone()].iter_mut().zip(min).zip(max) {
            *scale = self.fit.scale(min, max);
        }
        if let Some(zeros) = &mut self.zeros {
            for ((zero, &scale), &min) in zeros[groups.clone()].iter_mut().zip(&self.scales[groups]).zip(min) {
                *zero = self.fit.zero(min, scale);
            }
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
        let least = if self.layout.groups == Groups::Columns { BATCH } else { 1 };
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

/// Groups whose ranges are found at a time.
const BATCH: usize = 64;

impl<T: Element, S: Ranges<T::Real>> Kernel for Scan<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { layout, values, first, total, mut to } = self;
        let groups = first..first + to.len();
        let cols = layout.cols;
        for start in groups.clone().step_by(BATCH) {
            let some = start..groups.end.min(start + BATCH);
            let (mut min, mut max) = ([T::Real::infinity(); BATCH], [T::Real::neg_infinity(); BATCH]);
            match layout.groups {
                Groups::Whole => (min[0], max[0]) = scan::range_of_run(values),
                Groups::Blocks { size } => {
                    let per_row = cols.div_ceil(size);
                    for ((group, min), max) in some.clone().zip(&mut min).zip(&mut max) {
                        let (row, col) = (group / per_row, group % per_row * size);
                        let end = cols.min(col.saturating_add(size));
                        (*min, *max) = scan::range_of_run(&values[row * cols + col..row * cols + end]);
                    }
                }
                Groups::Rows { repeat, .. } => {
                    let run = repeat * cols;
                    for ((group, min), max) in some.clone().zip(&mut min).zip(&mut max) {
                        for run in values.chunks_exact(run).skip(group).step_by(total) {
                            let (low, high) = scan::range_of_run(run);
                            (*min, *max) = (scan::smaller(*min, low), scan::larger(*max, high));
                        }
                    }
                }
                Groups::Columns => {
                    for row in values.chunks_exact(cols) {
                        for ((x, min), max) in row[some.clone()].iter().zip(&mut min).zip(&mut max) {
                            let x = x.to_real();
                            (*min, *max) = (scan::smaller(*min, x), scan::larger(*max, x));
                        }
                    }
                }
            }
            to.put(start - first, &min[..some.len()], &max[..some.len()]);
        }
    }
}
