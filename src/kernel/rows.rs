//! Quantizing and dequantizing a tensor of rows: codes in packed rows, levels in groups.

use super::{
    affine,
    grid::{Even, Few, Level, Levels, Listed, MAX_LEVELS, Numbers, Scaled},
    isa::{Isa, Kernel},
    pack::{pack, packed_len, unpack},
    parallel::{GRAIN, Work, execute},
    scan::{LANES, fold},
};
use crate::element::Element;
use std::ops::Range;

/// Columns worked on at a time; whole bytes at every width.
pub(super) const TILE: usize = 1024;

/// Which elements share levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Groups {
    /// All of them.
    Whole,
    /// Those of a row: `row / repeat % count`.
    Rows { repeat: usize, count: usize },
    /// Those of a column in `size` rows that are `repeat` apart, of `length` such rows; the last of them may be fewer.
    Columns { repeat: usize, length: usize, size: usize },
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

    /// The group of the first column of a row, where each column has its own.
    #[inline(always)]
    pub(crate) fn first_column(&self, row: usize) -> usize {
        let Groups::Columns { repeat, length, size } = self.groups else { return 0 };
        let (outer, along, inner) = (row / repeat / length, row / repeat % length, row % repeat);
        ((outer * length.div_ceil(size) + along / size) * repeat + inner) * self.cols
    }

    /// Where the elements of a group are, where each column has its own: the first, how many, and from one to the next.
    #[inline(always)]
    pub(crate) fn column(&self, group: usize) -> (usize, usize, usize) {
        let Groups::Columns { repeat, length, size } = self.groups else { return (0, 0, 0) };
        let (blocks, block) = (length.div_ceil(size), group / self.cols / repeat);
        let (outer, along, inner) = (block / blocks, block % blocks * size, group / self.cols % repeat);
        let first = ((outer * length + along) * repeat + inner) * self.cols + group % self.cols;
        (first, size.min(length - along), repeat * self.cols)
    }

    /// The columns from that of a group on whose groups follow, `most` at the most: they have the same rows.
    #[inline(always)]
    pub(crate) fn columns_from(&self, group: usize, most: usize) -> usize {
        (self.cols - group % self.cols).min(most)
    }

    /// Each run of the columns `cols` of a row that shares a group, and the group; the range is relative to the first of `cols`.
    #[inline(always)]
    pub(crate) fn runs(&self, row: usize, cols: Range<usize>) -> Runs {
        let whole = cols.len().max(1);
        let (group, size) = match self.groups {
            Groups::Whole => (0, whole),
            Groups::Rows { repeat, count } => (row / repeat % count, whole),
            Groups::Columns { .. } => (self.first_column(row) + cols.start, 1),
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
pub(crate) struct Runs {
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
pub(crate) trait Cut: Send + Sized {
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
    /// As in [`Work`].
    const BACKWARD: bool = false;
    fn run(self, layout: Layout, tiles: Range<usize>, values: V, bytes: B) -> Self::Output;
    fn combine(left: Self::Output, right: Self::Output) -> Self::Output;
}

impl<V: Cut, B: Cut, O: Operation<V, B>> Work for Tiles<V, B, O> {
    type Output = O::Output;
    const BACKWARD: bool = O::BACKWARD;

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

/// What codes are worked on as: bytes, or pairs of them where a code has 16 bits.
pub(crate) trait Word: Copy + Default + Into<u16> {
    fn of(code: u16) -> Self;
    fn pack(codes: &[Self], bits: u32, bytes: &mut [u8]);
    fn unpack(bytes: &[u8], bits: u32, codes: &mut [Self]);
}

impl Word for u8 {
    #[inline(always)]
    fn of(code: u16) -> Self {
        code as u8
    }

    #[inline(always)]
    fn pack(codes: &[u8], bits: u32, bytes: &mut [u8]) {
        pack(codes, bits, bytes);
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], bits: u32, codes: &mut [u8]) {
        unpack(bytes, bits, codes);
    }
}

impl Word for u16 {
    #[inline(always)]
    fn of(code: u16) -> Self {
        code
    }

    #[inline(always)]
    fn pack(codes: &[u16], _: u32, bytes: &mut [u8]) {
        bytes.as_chunks_mut::<2>().0.iter_mut().zip(codes).for_each(|(bytes, code)| *bytes = code.to_le_bytes());
    }

    #[inline(always)]
    fn unpack(bytes: &[u8], _: u32, codes: &mut [u16]) {
        codes.iter_mut().zip(bytes.as_chunks::<2>().0).for_each(|(code, bytes)| *code = u16::from_le_bytes(*bytes));
    }
}

/// From a value to a code, for one group.
pub(crate) trait Code<T>: Copy {
    fn code(&self, x: T) -> u16;
}

/// From values to codes, for all groups of a tensor.
pub(crate) trait Codes<T: Copy>: Copy + Send + Sync {
    type Code: Code<T>;
    fn of(&self, group: usize) -> Self::Code;

    /// Codes of values of which each is in a group of its own, the first in `first`.
    #[inline(always)]
    fn columns<W: Word>(&self, first: usize, values: &[T], codes: &mut [W]) {
        for (i, (code, &x)) in codes.iter_mut().zip(values).enumerate() {
            *code = W::of(self.of(first + i).code(x));
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
    // The range of the values was found just before.
    const BACKWARD: bool = true;

    #[inline(always)]
    fn run(self, layout: Layout, tiles: Range<usize>, values: &[T], bytes: &mut [u8]) {
        match layout.bits {
            16 => self.encode::<T, u16>(layout, tiles, values, bytes),
            _ => self.encode::<T, u8>(layout, tiles, values, bytes),
        }
    }

    fn combine((): (), (): ()) {}
}

impl<C> Encode<C> {
    #[inline(always)]
    fn encode<T: Element, W: Word>(self, layout: Layout, tiles: Range<usize>, mut values: &[T], mut bytes: &mut [u8])
    where
        C: Codes<T>,
    {
        let mut codes = [W::default(); TILE];
        for (row, col) in tiles.map(|tile| layout.place(tile)) {
            let width = TILE.min(layout.cols - col);
            let (tile, values_rest) = values.split_at(width);
            let (packed, bytes_rest) = bytes.split_at_mut(packed_len(width, layout.bits));
            if let Groups::Columns { .. } = layout.groups {
                self.codes.columns(layout.first_column(row) + col, tile, &mut codes[..width]);
            } else {
                for (run, group) in layout.runs(row, col..col + width) {
                    let group = self.codes.of(group);
                    for (code, &x) in codes[run.clone()].iter_mut().zip(&tile[run]) {
                        *code = W::of(group.code(x));
                    }
                }
            }
            W::pack(&codes[..width], layout.bits, packed);
            (values, bytes) = (values_rest, bytes_rest);
        }
    }
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

/// The same in every so many columns.
struct DistanceLanes {
    max: [f64; LANES],
    squares: [f64; LANES],
}

impl DistanceLanes {
    /// Up to [`LANES`] elements.
    #[inline(always)]
    fn add<T: Element>(&mut self, originals: &[T], decoded: &[T], scale: f64) {
        for (((x, y), max), squares) in originals.iter().zip(decoded).zip(&mut self.max).zip(&mut self.squares) {
            let error = (x.to_f64() - y.to_f64()).abs();
            *max = if error > *max { error } else { *max };
            let scaled = error * scale;
            *squares += scaled * scaled;
        }
    }
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
        let mut sum = DistanceLanes { max: [0.0; LANES], squares: [0.0; LANES] };
        let mut decoder = Decoder::new(self.levels, layout);
        let mut decoded = [T::default(); TILE];
        for tile in tiles {
            let width = layout.width(tile);
            let (packed, bytes_rest) = bytes.split_at(packed_len(width, layout.bits));
            let (originals, values_rest) = values.split_at(width);
            decoder.decode(tile, packed, &mut decoded[..width]);
            let ((blocks, tail), (decoded, decoded_tail)) =
                (originals.as_chunks::<LANES>(), decoded[..width].as_chunks::<LANES>());
            for (block, decoded) in blocks.iter().zip(decoded) {
                sum.add(block, decoded, self.scale);
            }
            sum.add(tail, decoded_tail, self.scale);
            (values, bytes) = (values_rest, bytes_rest);
        }
        Distance { max: fold(sum.max, f64::max), squares: fold(sum.squares, |a, b| a + b) }
    }

    fn combine(a: Distance, b: Distance) -> Distance {
        Distance { max: a.max.max(b.max), squares: a.squares + b.squares }
    }
}

/// Decodes tile by tile; keeps the table of the last group.
pub(super) struct Decoder<'a, T> {
    levels: Levels<'a>,
    layout: Layout,
    table: [T; MAX_LEVELS],
    group: Option<usize>,
}

impl<'a, T: Element> Decoder<'a, T> {
    #[inline(always)]
    pub(super) fn new(levels: Levels<'a>, layout: Layout) -> Self {
        Self { levels, layout, table: [T::default(); MAX_LEVELS], group: None }
    }

    /// The values of one tile.
    #[inline(always)]
    pub(super) fn decode(&mut self, tile: usize, packed: &[u8], out: &mut [T]) {
        match (self.levels, self.layout.bits) {
            (Levels::Affine { scales, zeros }, 16) => self.affine::<u16>(scales, zeros, tile, packed, out),
            (Levels::Affine { scales, zeros }, _) => self.affine::<u8>(scales, zeros, tile, packed, out),
            (Levels::Few(levels), _) => self.few(levels, tile, packed, out),
        }
    }

    #[inline(always)]
    fn affine<W: Word>(&self, scales: Numbers<'_>, zeros: Option<&[u16]>, tile: usize, packed: &[u8], out: &mut [T]) {
        let Layout { bits, groups, .. } = self.layout;
        let (row, col) = self.layout.place(tile);
        let mut room = [W::default(); TILE];
        let codes = &mut room[..out.len()];
        W::unpack(packed, bits, codes);
        if let Groups::Columns { .. } = groups {
            let first = self.layout.first_column(row) + col;
            return affine::columns(scales, zeros, bits, first, codes, out);
        }
        for (run, group) in self.layout.runs(row, col..col + out.len()) {
            affine::levels(scales, group, affine::zero(zeros, group, bits), &codes[run.clone()], &mut out[run]);
        }
    }

    #[inline(always)]
    fn few(&mut self, levels: Few<'_>, tile: usize, packed: &[u8], out: &mut [T]) {
        let Layout { bits, .. } = self.layout;
        let (row, col) = self.layout.place(tile);
        let mut room = [0; TILE];
        let codes = &mut room[..out.len()];
        unpack(packed, bits, codes);
        for (run, group) in self.layout.runs(row, col..col + out.len()) {
            let (codes, out) = (&codes[run.clone()], &mut out[run]);
            match levels {
                Few::Even { min, max } => {
                    self.look_up(group, codes, out, Even::new(min.get(group), max.get(group), bits));
                }
                Few::Table(all) => self.look_up(group, codes, out, Listed { all, first: group << bits }),
                Few::Scaled { table, scales } => {
                    self.look_up(group, codes, out, Scaled { table, scale: scales.get(group) });
                }
            }
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
