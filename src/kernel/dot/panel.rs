//! Rows of packed codes times vectors of small integers, or of `f32`.
//!
//! Sixteen rows make a panel. A row's columns are cut into segments of one scale; a segment's codes lie in chunks of four bytes
//! a row, padded with code 0 to whole chunks: field `s` of byte `j` is the code of column `4 s + j` of the chunk. Padding meets
//! inputs of 0.
//!
//! ```text
//! y[row] = Σ_segments (Σ code * x - zero * Σ x) * scale[row] * scale of x       where 0 is a level
//! y[row] = Σ_segments Σ code * x * scale[row] * scale of x + offset[row] * Σ x * scale of x
//! ```
//!
//! The inner sums are exact integers; segments are added in order, in `f32`. `float` has the products with `f32` inputs.

use super::{CHUNK, Dot, ROWS, WithDot, with_dot};
use crate::kernel::{
    isa::Isa,
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

    /// The chunks of each segment but the last, which may have fewer.
    #[inline(always)]
    pub(crate) fn segment_chunks(&self) -> usize {
        self.segment.div_ceil(self.unit())
    }

    /// The chunks of a segment, counted from the first of a panel.
    #[inline(always)]
    pub(crate) fn chunks(&self, segment: usize) -> Range<usize> {
        let start = segment * self.segment_chunks();
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
    pub(crate) levels: Levels<'a>,
}

/// What codes stand for, before the scale. What differs has an entry for each segment of a panel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Levels<'a> {
    /// Steps from a code, the same everywhere.
    Zero(u8),
    /// Steps from a code.
    Zeros(&'a [[u8; ROWS]]),
    /// Steps, scaled, from the value of code 0.
    Offsets(&'a [[f32; ROWS]]),
    /// Any numbers, the same everywhere. With `f32` inputs only.
    Table(&'a [f32]),
    /// Any numbers, so many for each segment. With `f32` inputs only.
    Tables(&'a [[f32; ROWS]], usize),
}

impl Levels<'_> {
    /// Cut before a segment of a panel.
    fn split_at(self, mid: usize) -> (Self, Self) {
        match self {
            Self::Zero(_) | Self::Table(_) => (self, self),
            Self::Zeros(zeros) => {
                let (zeros, right) = zeros.split_at(mid);
                (Levels::Zeros(zeros), Levels::Zeros(right))
            }
            Self::Offsets(offsets) => {
                let (offsets, right) = offsets.split_at(mid);
                (Levels::Offsets(offsets), Levels::Offsets(right))
            }
            Self::Tables(levels, count) => {
                let (levels, right) = levels.split_at(mid * count);
                (Levels::Tables(levels, count), Levels::Tables(right, count))
            }
        }
    }

    /// Takes from sums of codes what is owed to the zero.
    #[inline(always)]
    fn taken_from<D: Dot>(self, sums: D::Sums, segment: usize, sum: i32) -> D::Sums {
        match self {
            Self::Zero(zero) => D::minus_all(sums, i32::from(zero) * sum),
            Self::Zeros(zeros) => D::minus(sums, &zeros[segment], sum),
            _ => sums,
        }
    }

    /// Adds what is owed to the value of code 0.
    #[inline(always)]
    fn added_to(self, total: &mut [f32; ROWS], segment: usize, sum: i32, scale: f32) {
        if let Self::Offsets(offsets) = self {
            for (total, offset) in total.iter_mut().zip(&offsets[segment]) {
                *total += offset * sum as f32 * scale;
            }
        }
    }
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

pub(super) struct Products<'a> {
    pub(super) panels: Panels<'a>,
    pub(super) vectors: Vectors<'a>,
    pub(super) batch: usize,
    pub(super) out: &'a mut [[f32; ROWS]],
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
        (self.len() * ROWS * self.panels.shape.cols / 4).saturating_mul(self.batch)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { panels: Panels { shape, codes, scales, levels }, vectors, batch, out } = self;
        let (codes, codes_right) = codes.split_at(mid * shape.all_chunks());
        let (scales, scales_right) = scales.split_at(mid * shape.segments());
        let (levels, levels_right) = levels.split_at(mid * shape.segments());
        let (out, out_right) = out.split_at_mut(mid * batch);
        let right = Panels { shape, codes: codes_right, scales: scales_right, levels: levels_right };
        (
            Self { panels: Panels { shape, codes, scales, levels }, vectors, batch, out },
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
            // So many chunks have the 32 columns that groups mostly are of.
            2 => self.small::<D, 2, 4, 2>(),
            4 => self.small::<D, 4, 2, 4>(),
            _ => self.small::<D, 8, 1, 8>(),
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn small<D: Dot, const BITS: u32, const FIELDS: usize, const GROUP: usize>(self) {
        let Vectors::Small { words, scales, sums } = self.vectors else { return };
        let Panels { shape, codes, scales: row_scales, levels } = self.panels;
        let (chunks, segments) = (shape.all_chunks(), shape.segments());
        let words = words.as_chunks::<FIELDS>().0;
        let inputs = Integers { words, scales, sums };
        for (panel, out) in self.out.chunks_exact_mut(self.batch).enumerate() {
            let own = |each: usize| panel * each..(panel + 1) * each;
            let levels = levels.split_at(panel * segments).1;
            let (codes, after) = codes[panel * chunks..].split_at(chunks);
            let panel = Panel { shape, codes, after, row_scales: &row_scales[own(segments)], levels };
            match out {
                [out] => panel.one::<D, BITS, FIELDS, GROUP>(inputs, out),
                out => panel.many::<D, BITS, FIELDS>(inputs, out),
            }
        }
    }
}

/// Vectors of small integers, as many words as a chunk has fields together.
#[derive(Clone, Copy)]
struct Integers<'a, const FIELDS: usize> {
    words: &'a [[i32; FIELDS]],
    scales: &'a [f32],
    sums: &'a [i32],
}

/// One panel.
#[derive(Clone, Copy)]
struct Panel<'a> {
    shape: Shape,
    codes: &'a [[u8; CHUNK]],
    /// Of the panels that follow.
    after: &'a [[u8; CHUNK]],
    row_scales: &'a [[f32; ROWS]],
    levels: Levels<'a>,
}

impl Panel<'_> {
    /// Times one vector.
    #[inline(always)]
    fn one<D: Dot, const BITS: u32, const FIELDS: usize, const GROUP: usize>(
        self,
        inputs: Integers<'_, FIELDS>,
        out: &mut [f32; ROWS],
    ) {
        let words = inputs.words;
        let inputs = inputs.scales.iter().zip(inputs.sums);
        let each = self.shape.segment_chunks();
        let mut total = [0.0; ROWS];
        if let ((codes, []), (words, [])) = (self.codes.as_chunks::<GROUP>(), words.as_chunks::<GROUP>())
            && each == GROUP
        {
            // The compiler makes better code of segments whose length it knows.
            for (segment, ((codes, words), input)) in codes.iter().zip(words).zip(inputs).enumerate() {
                let sums = segment_sums::<D, BITS, FIELDS>(codes, words);
                self.add_segment::<D>(sums, segment, input, &mut total);
            }
        } else {
            for (segment, ((codes, words), input)) in
                self.codes.chunks(each).zip(words.chunks(each)).zip(inputs).enumerate()
            {
                let sums = segment_sums::<D, BITS, FIELDS>(codes, words);
                self.add_segment::<D>(sums, segment, input, &mut total);
            }
        }
        *out = total;
    }

    /// Adds the sums of a segment, scaled, to a total; `input` is the scale of the vector's and the sum of its integers.
    #[inline(always)]
    fn add_segment<D: Dot>(self, sums: D::Sums, segment: usize, (&scale, &sum): (&f32, &i32), total: &mut [f32; ROWS]) {
        let sums = self.levels.taken_from::<D>(sums, segment, sum);
        D::finish(sums, &self.row_scales[segment], scale, total);
        self.levels.added_to(total, segment, sum, scale);
    }

    /// Times many vectors, some columns of all of them at a time: their codes stay in the first-level cache.
    #[inline(always)]
    fn many<D: Dot, const BITS: u32, const FIELDS: usize>(self, inputs: Integers<'_, FIELDS>, out: &mut [[f32; ROWS]]) {
        out.fill([0.0; ROWS]);
        let (segments, each) = (self.row_scales.len(), (SPAN / self.shape.segment).max(1));
        for first in (0..segments).step_by(each) {
            let span = first..segments.min(first + each);
            let mut at = 0;
            while at < out.len() {
                at += match out.len() - at {
                    // Of short segments the ends cost more than the codes that eight share.
                    8.. if D::WIDE && each == 1 => self.some::<D, BITS, FIELDS, 8>(inputs, span.clone(), at, out),
                    4.. => self.some::<D, BITS, FIELDS, 4>(inputs, span.clone(), at, out),
                    2.. => self.some::<D, BITS, FIELDS, 2>(inputs, span.clone(), at, out),
                    _ => self.some::<D, BITS, FIELDS, 1>(inputs, span.clone(), at, out),
                };
            }
        }
    }

    /// Some segments and `B` vectors: each code is read once for all of them. Gives `B`.
    #[inline(always)]
    fn some<D: Dot, const BITS: u32, const FIELDS: usize, const B: usize>(
        self,
        inputs: Integers<'_, FIELDS>,
        span: Range<usize>,
        at: usize,
        out: &mut [[f32; ROWS]],
    ) -> usize {
        let (chunks, segments) = (self.codes.len(), self.row_scales.len());
        // While the second vectors are multiplied, what the first ones will wait for.
        let end = self.shape.chunks(span.end - 1).end;
        let mut next = match self.codes.get(end..) {
            _ if at != B => &[],
            Some(next) if !next.is_empty() => next,
            _ => self.after,
        };
        let mut totals = [[0.0; ROWS]; B];
        totals.copy_from_slice(&out[at..at + B]);
        for segment in span {
            let range = self.shape.chunks(segment);
            let codes = &self.codes[range.clone()];
            let mut words = [&inputs.words[..0]; B];
            for (b, words) in words.iter_mut().enumerate() {
                *words = &inputs.words[(at + b) * chunks..][range.clone()];
            }
            let mut sums = [D::zero(); B];
            for (i, codes) in codes.iter().enumerate() {
                let bytes = D::load(codes);
                if let Some((chunk, rest)) = next.split_first() {
                    D::prefetch(chunk);
                    next = rest;
                }
                for field in 0..FIELDS {
                    let codes = D::field::<BITS>(bytes, field as u32 * BITS);
                    for (sums, words) in sums.iter_mut().zip(&words) {
                        *sums = D::add::<BITS>(*sums, codes, D::word::<BITS>(words[i][field]));
                    }
                }
            }
            for (b, (sums, total)) in sums.into_iter().zip(&mut totals).enumerate() {
                let place = (at + b) * segments + segment;
                self.add_segment::<D>(sums, segment, (&inputs.scales[place], &inputs.sums[place]), total);
            }
        }
        out[at..at + B].copy_from_slice(&totals);
        B
    }
}

/// Columns whose codes are multiplied by all vectors before the next ones.
const SPAN: usize = 1024;

/// Sums that do not wait for one another; each is of one field.
const PARTS: usize = 4;

/// Sums of the products of a segment. Those of neighbouring chunks and fields do not wait for one another.
#[inline(always)]
fn segment_sums<D: Dot, const BITS: u32, const FIELDS: usize>(
    codes: &[[u8; CHUNK]],
    words: &[[i32; FIELDS]],
) -> D::Sums {
    let mut parts = [D::zero(); PARTS];
    let (wholes, rest) = codes.as_chunks::<PARTS>();
    let (word_wholes, word_rest) = words.as_chunks::<PARTS>();
    for (codes, words) in wholes.iter().zip(word_wholes) {
        for (i, (codes, words)) in codes.iter().zip(words).enumerate() {
            fields::<D, BITS, FIELDS>(&mut parts, i, codes, words);
        }
    }
    for (i, (codes, words)) in rest.iter().zip(word_rest).enumerate() {
        fields::<D, BITS, FIELDS>(&mut parts, i, codes, words);
    }
    // First those of a field, so that each is unscaled once.
    let (own, more) = parts.split_at_mut(FIELDS);
    for more in more.chunks_exact(FIELDS) {
        own.iter_mut().zip(more).for_each(|(own, more)| *own = D::plus(*own, *more));
    }
    let mut all = own[0];
    for (field, own) in own.iter().enumerate().skip(1) {
        all = D::plus(all, D::unscale(*own, field as u32 * BITS));
    }
    all
}

/// Adds all fields of a chunk, which is the `index`th of some.
#[inline(always)]
fn fields<D: Dot, const BITS: u32, const FIELDS: usize>(
    parts: &mut [D::Sums; PARTS],
    index: usize,
    codes: &[u8; CHUNK],
    words: &[i32; FIELDS],
) {
    let codes = D::load(codes);
    for (field, &word) in words.iter().enumerate() {
        let part = &mut parts[(index * FIELDS + field) % PARTS];
        let codes = D::scaled_field::<BITS>(codes, field as u32 * BITS);
        *part = D::add::<BITS>(*part, codes, D::word::<BITS>(word));
    }
}
