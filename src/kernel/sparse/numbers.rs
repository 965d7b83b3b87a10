//! The stored elements as `f32`, some at a time.

use super::TILE;
use crate::{
    element::AnySlice,
    kernel::{
        grid::Levels,
        isa::{Isa, Kernel},
        pack::packed_len,
        rows::{Decoder, Layout},
    },
};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::ops::Range;

/// Stored elements.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    Any(AnySlice<'a, f32>),
    /// Codes of one row.
    Codes {
        layout: Layout,
        levels: Levels<'a>,
        packed: &'a [u8],
    },
}

/// Up to [`TILE`] neighbouring elements at a time; those that are not kept as `f32` are decoded into it, each once where they are
/// taken in order.
pub(super) struct Window<'a> {
    source: Source<'a>,
    room: [f32; 2 * TILE],
}

#[expect(clippy::large_enum_variant, reason = "on the stack, once for many rows")]
enum Source<'a> {
    Real(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    Codes(Codes<'a>),
}

struct Codes<'a> {
    isa: Isa,
    decoder: Decoder<'a, f32>,
    packed: &'a [u8],
    layout: Layout,
    /// The tiles in the room: the first of them, and behind the last.
    tiles: Range<usize>,
}

impl<'a> Window<'a> {
    pub(super) fn new(numbers: Numbers<'a>, isa: Isa) -> Self {
        let source = match numbers {
            Numbers::Any(AnySlice::Real(values)) => Source::Real(values),
            Numbers::Any(AnySlice::F16(values)) => Source::F16(values),
            Numbers::Any(AnySlice::Bf16(values)) => Source::Bf16(values),
            Numbers::Codes { layout, levels, packed } => {
                Source::Codes(Codes { isa, decoder: Decoder::new(levels, layout), packed, layout, tiles: 0..0 })
            }
        };
        Self { source, room: [0.0; 2 * TILE] }
    }

    #[inline(always)]
    pub(super) fn take(&mut self, range: Range<usize>) -> &[f32] {
        match self.source {
            Source::Real(values) => &values[range],
            _ => self.decoded(range),
        }
    }

    /// Apart, so that there is one copy of it and not one in each kernel; what takes long in it is compiled for `isa`.
    #[inline(never)]
    fn decoded(&mut self, range: Range<usize>) -> &[f32] {
        let Self { source, room } = self;
        match source {
            Source::Real(values) => &values[range],
            Source::F16(values) => {
                let room = &mut room[..range.len()];
                values[range].convert_to_f32_slice(room);
                room
            }
            Source::Bf16(values) => {
                let room = &mut room[..range.len()];
                room.iter_mut().zip(&values[range]).for_each(|(wide, narrow)| *wide = narrow.to_f32());
                room
            }
            Source::Codes(codes) => {
                codes.fill(&range, room);
                let start = codes.tiles.start * TILE;
                &room[range.start - start..range.end - start]
            }
        }
    }
}

impl Codes<'_> {
    /// Decodes what is missing.
    fn fill(&mut self, range: &Range<usize>, room: &mut [f32; 2 * TILE]) {
        let (first, end) = (range.start / TILE, range.end.div_ceil(TILE));
        let (low, high) = room.split_at_mut(TILE);
        if first + 1 == self.tiles.end && first > self.tiles.start {
            low.copy_from_slice(high);
            self.tiles.start = first;
        } else if first != self.tiles.start {
            self.tiles = first..first;
        }
        for tile in self.tiles.end..end {
            let width = self.layout.width(tile);
            let bits = self.layout.bits;
            let packed = &self.packed[packed_len(tile * TILE, bits)..][..packed_len(width, bits)];
            let room = if tile == self.tiles.start { &mut *low } else { &mut *high };
            self.isa.run(Decode { decoder: &mut self.decoder, tile, packed, out: &mut room[..width] });
            self.tiles.end = tile + 1;
        }
    }
}

/// One tile.
struct Decode<'d, 'a> {
    decoder: &'d mut Decoder<'a, f32>,
    tile: usize,
    packed: &'d [u8],
    out: &'d mut [f32],
}

impl Kernel for Decode<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.decoder.decode(self.tile, self.packed, self.out);
    }
}
