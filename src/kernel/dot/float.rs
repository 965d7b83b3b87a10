//! Rows of packed codes times vectors of `f32`.
//!
//! ```text
//! y[row] = Σ_segments (Σ (code - zero) * x) * scale[row]
//! y[row] = Σ_segments Σ (code * scale[row] + offset[row]) * x
//! y[row] = Σ_segments (Σ listed[code] * x) * scale[row]
//! ```
//!
//! Inner sums go column by column; all are in `f32`.

use super::{
    CHUNK, ROWS,
    panel::{Levels, Panels, Products, Vectors},
};
use crate::kernel::isa::Kernel;

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
        let Panels { shape, codes, scales, levels } = self.panels;
        let (chunks, segments) = (shape.all_chunks(), shape.segments());
        let x = x.as_chunks::<FIELDS>().0;
        let panels =
            codes.chunks_exact(chunks).zip(scales.chunks_exact(segments)).zip(self.out.chunks_exact_mut(self.batch));
        for (panel, ((codes, scales), out)) in panels.enumerate() {
            for (out, x) in out.iter_mut().zip(x.chunks_exact(chunks)) {
                let mut total = [0f32; ROWS];
                let each = shape.segment_chunks();
                for (segment, ((codes, x), scales)) in codes.chunks(each).zip(x.chunks(each)).zip(scales).enumerate() {
                    let own = panel * segments + segment;
                    let (mut sums, mut zeros) = ([0f32; ROWS], [0f32; ROWS]);
                    match levels {
                        Levels::Zero(zero) => {
                            zeros.fill(zero.into());
                            add_steps::<BITS, FIELDS, false>(&mut sums, codes, x, &zeros, scales);
                        }
                        Levels::Zeros(all) => {
                            zeros.iter_mut().zip(all[own]).for_each(|(own, zero)| *own = zero.into());
                            add_steps::<BITS, FIELDS, false>(&mut sums, codes, x, &zeros, scales);
                        }
                        Levels::Offsets(all) => add_steps::<BITS, FIELDS, true>(&mut sums, codes, x, &all[own], scales),
                        Levels::Table(table) => add_listed::<BITS, FIELDS>(&mut sums, codes, x, Lookup::One(table)),
                        Levels::Tables(all, count) => {
                            let own = &all[own * count..][..count];
                            add_listed::<BITS, FIELDS>(&mut sums, codes, x, Lookup::Each(own));
                        }
                    }
                    if let Levels::Offsets(_) = levels {
                        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
                    } else {
                        total.iter_mut().zip(sums).zip(scales).for_each(|((total, sum), scale)| *total += sum * scale);
                    }
                }
                *out = total;
            }
        }
    }
}

/// `sums[r] += Σ (code - zero) * x` over the columns of a segment, in order; or `Σ (code * scale + zero) * x`.
#[inline(always)]
fn add_steps<const BITS: u32, const FIELDS: usize, const OFFSET: bool>(
    sums: &mut [f32; ROWS],
    codes: &[[u8; CHUNK]],
    x: &[[[f32; 4]; FIELDS]],
    zeros: &[f32; ROWS],
    scales: &[f32; ROWS],
) {
    for (codes, x) in codes.iter().zip(x) {
        let lanes = lanes(codes);
        for (field, x) in x.iter().enumerate() {
            for (j, x) in x.iter().enumerate() {
                let shift = 8 * j as u32 + field as u32 * BITS;
                for (((sum, lane), zero), scale) in sums.iter_mut().zip(lanes).zip(zeros).zip(scales) {
                    // Through a signed number: there is an instruction for it everywhere.
                    let code = (lane >> shift & (0xff >> (8 - BITS))).cast_signed() as f32;
                    *sum += if OFFSET { code * scale + zero } else { code - zero } * x;
                }
            }
        }
    }
}

/// Listed levels.
#[derive(Clone, Copy)]
enum Lookup<'a> {
    One(&'a [f32]),
    /// A row has a lane.
    Each(&'a [[f32; ROWS]]),
}

/// `sums[r] += Σ level[code] * x` over the columns of a segment, in order. The padding's code 0 is in every list.
#[inline(always)]
fn add_listed<const BITS: u32, const FIELDS: usize>(
    sums: &mut [f32; ROWS],
    codes: &[[u8; CHUNK]],
    x: &[[[f32; 4]; FIELDS]],
    lookup: Lookup<'_>,
) {
    for (codes, x) in codes.iter().zip(x) {
        let lanes = lanes(codes);
        for (field, x) in x.iter().enumerate() {
            for (j, x) in x.iter().enumerate() {
                let shift = 8 * j as u32 + field as u32 * BITS;
                for (r, (sum, lane)) in sums.iter_mut().zip(lanes).enumerate() {
                    let code = (lane >> shift & (0xff >> (8 - BITS))) as usize;
                    *sum += x * match lookup {
                        Lookup::One(table) => table[code],
                        Lookup::Each(tables) => tables[code][r],
                    };
                }
            }
        }
    }
}

/// The four bytes of each row.
#[inline(always)]
fn lanes(codes: &[u8; CHUNK]) -> [u32; ROWS] {
    let mut lanes = [0; ROWS];
    for (lane, bytes) in lanes.iter_mut().zip(codes.as_chunks::<4>().0) {
        *lane = u32::from_le_bytes(*bytes);
    }
    lanes
}
