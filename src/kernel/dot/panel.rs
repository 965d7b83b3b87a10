//! Rows of packed codes times vectors of small integers, or of `f32`.
//!
//! Sixteen rows make a panel. A row's columns are cut into segments of one scale; a segment's codes lie in chunks of four bytes
//! a row, padded with code 0 to whole chunks: field `s` of byte `j` is the code of column `4 s + j` of the chunk. Padding meets
//! inputs of 0.
//!
//! ```text
//! y[row] = Σ_segments (Σ code * x - zero * Σ x) * (scale[row] * scale of x)
//! ```
//!
//! The inner sums are exact integers; segments are added in order, in `f32`. With `f32` inputs the inner sum is
//! `Σ (code - zero) * x`, column by column.

use super::{CHUNK, Dot, ROWS, WithDot, with_dot};
use crate::kernel::{
    isa::{Isa, Kernel},
    parallel::{GRAIN, Work, execute},
};
use std::ops::Range;

/// Columns of a segment at most: beyond it an `i32` may not hold a sum.
pub(crate) const MAX_SEGMENT: usize = 1 << 15;

/// How a matrix lies in panels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) bits: u32,
    /// Columns of a segment; the last may have fewer.
    pub(crate) segment: usize,
}

impl Shape {
    /// Codes of a row in a chunk.
    pub(crate) fn unit(&self) -> usize {
        32 / self.bits as usize
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    pub(crate) fn segments(&self) -> usize {
        self.cols.div_ceil(self.segment)
    }

    /// The columns of a segment.
    #[inline(always)]
    pub(crate) fn columns(&self, segment: usize) -> Range<usize> {
        segment * self.segment..self.cols.min((segment + 1) * self.segment)
    }

    /// The chunks of a segment, counted from the first of a panel.
    #[inline(always)]
    pub(crate) fn chunks(&self, segment: usize) -> Range<usize> {
        let start = segment * self.segment.div_ceil(self.unit());
        start..start + self.columns(segment).len().div_ceil(self.unit())
    }

    /// The chunks of a panel.
    pub(crate) fn all_chunks(&self) -> usize {
        self.chunks(self.segments() - 1).end
    }
}

/// Weights, in panels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) shape: Shape,
    pub(crate) codes: &'a [[u8; CHUNK]],
    /// One for each segment of a panel.
    pub(crate) scales: &'a [[f32; ROWS]],
    pub(crate) zeros: &'a [[u8; ROWS]],
}

/// Vectors, one after another, each laid out as a row of the weights.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vectors<'a> {
    /// Four small integers a word, as many words as a chunk has fields; a scale and the sum of the integers for each segment.
    Small { words: &'a [i32], scales: &'a [f32], sums: &'a [i32] },
    /// Four numbers for each word.
    Float(&'a [[f32; 4]]),
}

/// Products of all rows and `batch` vectors: for each panel, for each vector, the rows' results.
pub(crate) fn products(panels: Panels<'_>, vectors: Vectors<'_>, batch: usize, out: &mut [[f32; ROWS]]) {
    execute(Products { panels, vectors, batch, out });
}

struct Products<'a> {
    panels: Panels<'a>,
    vectors: Vectors<'a>,
    batch: usize,
    out: &'a mut [[f32; ROWS]],
}

impl Work for Products<'_> {
    type Output = ();

    fn len(&self) -> usize {
        self.out.len() / self.batch.max(1)
    }

    fn chunk(&self) -> usize {
        (GRAIN / (ROWS * self.panels.shape.cols).max(1)).max(1)
    }

    fn elements(&self) -> usize {
        // A product costs about as much as a quarter of an element elsewhere.
        self.len() * ROWS * self.panels.shape.cols / 4 * self.batch
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { panels: Panels { shape, codes, scales, zeros }, vectors, batch, out } = self;
        let (codes, codes_right) = codes.split_at(mid * shape.all_chunks());
        let (scales, scales_right) = scales.split_at(mid * shape.segments());
        let (zeros, zeros_right) = zeros.split_at(mid * shape.segments());
        let (out, out_right) = out.split_at_mut(mid * batch);
        let right = Panels { shape, codes: codes_right, scales: scales_right, zeros: zeros_right };
        (
            Self { panels: Panels { shape, codes, scales, zeros }, vectors, batch, out },
            Self { panels: right, vectors, batch, out: out_right },
        )
    }

    fn run(self, isa: Isa) {
        match self.vectors {
            Vectors::Small { .. } => with_dot(isa, self),
            Vectors::Float(_) => isa.run(self),
        }
    }

    fn combine((): (), (): ()) {}
}

impl WithDot for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self) {
        match self.panels.shape.bits {
            2 => self.small::<D, 2, 4>(),
            4 => self.small::<D, 4, 2>(),
            _ => self.small::<D, 8, 1>(),
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn small<D: Dot, const BITS: u32, const FIELDS: usize>(self) {
        let Vectors::Small { words, scales, sums } = self.vectors else { return };
        let Panels { shape, codes, scales: row_scales, zeros } = self.panels;
        let (chunks, segments) = (shape.all_chunks(), shape.segments());
        let words = words.as_chunks::<FIELDS>().0;
        let panels =
            codes.chunks_exact(chunks).zip(row_scales.chunks_exact(segments)).zip(zeros.chunks_exact(segments));
        for (((codes, row_scales), zeros), out) in panels.zip(self.out.chunks_exact_mut(self.batch)) {
            let mut at = 0;
            while at < out.len() {
                let tile = Tile { shape, codes, row_scales, zeros, words, scales, sums, at };
                at += match out.len() - at {
                    1 => tile.run_one::<D, BITS, FIELDS>(&mut out[at]),
                    2..=3 => tile.run::<D, BITS, FIELDS, 2>(&mut out[at..]),
                    4..=7 => tile.run::<D, BITS, FIELDS, 4>(&mut out[at..]),
                    _ => tile.run::<D, BITS, FIELDS, 8>(&mut out[at..]),
                };
            }
        }
    }
}

/// One panel and the vectors from `at` on.
struct Tile<'a, const FIELDS: usize> {
    shape: Shape,
    codes: &'a [[u8; CHUNK]],
    row_scales: &'a [[f32; ROWS]],
    zeros: &'a [[u8; ROWS]],
    words: &'a [[i32; FIELDS]],
    scales: &'a [f32],
    sums: &'a [i32],
    at: usize,
}

impl<const FIELDS: usize> Tile<'_, FIELDS> {
    /// One vector: sums of every fourth chunk do not wait for one another.
    #[inline(always)]
    fn run_one<D: Dot, const BITS: u32, const F: usize>(&self, out: &mut [f32; ROWS]) -> usize {
        let (chunks, segments) = (self.codes.len(), self.row_scales.len());
        let words = &self.words[self.at * chunks..][..chunks];
        let (scales, sums) = (&self.scales[self.at * segments..], &self.sums[self.at * segments..]);
        let mut total = [0.0; ROWS];
        for segment in 0..segments {
            let range = self.shape.chunks(segment);
            let (codes, words) = (&self.codes[range.clone()], &words[range]);
            let mut parts = [D::zero(); 4];
            let (fours, rest) = codes.as_chunks::<4>();
            let (word_fours, word_rest) = words.as_chunks::<4>();
            for (codes, words) in fours.iter().zip(word_fours) {
                for ((part, codes), words) in parts.iter_mut().zip(codes).zip(words) {
                    *part = fields::<D, BITS, FIELDS>(*part, codes, words);
                }
            }
            for (codes, words) in rest.iter().zip(word_rest) {
                parts[0] = fields::<D, BITS, FIELDS>(parts[0], codes, words);
            }
            let all = D::plus(D::plus(parts[0], parts[1]), D::plus(parts[2], parts[3]));
            let (zeros, row_scales) = (&self.zeros[segment], &self.row_scales[segment]);
            D::finish(all, zeros, sums[segment], row_scales, scales[segment], &mut total);
        }
        *out = total;
        1
    }

    /// `B` vectors: each code is read once for all.
    #[inline(always)]
    fn run<D: Dot, const BITS: u32, const F: usize, const B: usize>(&self, out: &mut [[f32; ROWS]]) -> usize {
        let (chunks, segments) = (self.codes.len(), self.row_scales.len());
        let mut totals = [[0.0; ROWS]; B];
        for segment in 0..segments {
            let range = self.shape.chunks(segment);
            let codes = &self.codes[range.clone()];
            let mut words = [&self.words[..0]; B];
            for (b, words) in words.iter_mut().enumerate() {
                *words = &self.words[(self.at + b) * chunks + range.start..][..codes.len()];
            }
            let mut all = [D::zero(); B];
            for (i, codes) in codes.iter().enumerate() {
                let codes = D::load(codes);
                for field in 0..FIELDS {
                    let codes = D::field::<BITS>(codes, field as u32 * BITS);
                    for (all, words) in all.iter_mut().zip(&words) {
                        *all = D::add::<BITS>(*all, codes, words[i][field]);
                    }
                }
            }
            let (zeros, row_scales) = (&self.zeros[segment], &self.row_scales[segment]);
            for (b, (all, total)) in all.into_iter().zip(&mut totals).enumerate() {
                let at = (self.at + b) * segments + segment;
                D::finish(all, zeros, self.sums[at], row_scales, self.scales[at], total);
            }
        }
        out[..B].copy_from_slice(&totals);
        B
    }
}

/// All fields of a chunk.
#[inline(always)]
fn fields<D: Dot, const BITS: u32, const FIELDS: usize>(
    mut sums: D::Sums,
    codes: &[u8; CHUNK],
    words: &[i32; FIELDS],
) -> D::Sums {
    let codes = D::load(codes);
    for (field, &word) in words.iter().enumerate() {
        sums = D::add::<BITS>(sums, D::field::<BITS>(codes, field as u32 * BITS), word);
    }
    sums
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.panels.shape.bits {
            2 => self.float::<2, 4>(),
            4 => self.float::<4, 2>(),
            _ => self.float::<8, 1>(),
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn float<const BITS: u32, const FIELDS: usize>(self) {
        let Vectors::Float(x) = self.vectors else { return };
        let Panels { shape, codes, scales, zeros } = self.panels;
        let (chunks, segments) = (shape.all_chunks(), shape.segments());
        let x = x.as_chunks::<FIELDS>().0;
        let panels = codes.chunks_exact(chunks).zip(scales.chunks_exact(segments)).zip(zeros.chunks_exact(segments));
        for (((codes, scales), zeros), out) in panels.zip(self.out.chunks_exact_mut(self.batch)) {
            for (out, x) in out.iter_mut().zip(x.chunks_exact(chunks)) {
                let mut total = [0f32; ROWS];
                for segment in 0..segments {
                    let range = shape.chunks(segment);
                    let zeros = zeros[segment].map(f32::from);
                    let mut sums = [0f32; ROWS];
                    for (codes, x) in codes[range.clone()].iter().zip(&x[range]) {
                        add_float::<BITS, FIELDS>(&mut sums, codes, &zeros, x);
                    }
                    for ((total, sum), scale) in total.iter_mut().zip(sums).zip(&scales[segment]) {
                        *total += sum * scale;
                    }
                }
                *out = total;
            }
        }
    }
}

/// `sums[r] += Σ (code - zero) * x` over the columns of a chunk, in order.
#[inline(always)]
fn add_float<const BITS: u32, const FIELDS: usize>(
    sums: &mut [f32; ROWS],
    codes: &[u8; CHUNK],
    zeros: &[f32; ROWS],
    x: &[[f32; 4]; FIELDS],
) {
    let mut lanes = [0u32; ROWS];
    for (lane, bytes) in lanes.iter_mut().zip(codes.as_chunks::<4>().0) {
        *lane = u32::from_le_bytes(*bytes);
    }
    for (field, x) in x.iter().enumerate() {
        for (j, x) in x.iter().enumerate() {
            let shift = 8 * j as u32 + field as u32 * BITS;
            for ((sum, lane), zero) in sums.iter_mut().zip(lanes).zip(zeros) {
                // Through a signed number: there is an instruction for it everywhere.
                let code = (lane >> shift & (0xff >> (8 - BITS))).cast_signed() as f32;
                *sum += (code - zero) * x;
            }
        }
    }
}
