//! Sums over the stored elements of a row, for one vector or for eight at a time.

use super::columns::Index;

/// Sums of a row that do not wait for one another, and vectors that go together.
pub(crate) const LANES: usize = 8;

/// What is added up: a number, or one of each of eight vectors.
pub(crate) trait Lane: Copy + Default + Send + Sync {
    /// How many numbers it is.
    const WIDTH: usize;

    /// `self + w * x`, each operation rounded.
    fn plus_product(self, w: f32, x: Self) -> Self;
    fn plus(self, other: Self) -> Self;
    fn scaled(self, scale: f32) -> Self;

    /// `sums[l] += w[l] * x[columns[l]]`
    fn gather<I: Index>(sums: &mut Sums<Self>, w: &[f32; LANES], columns: &[I; LANES], x: &[Self]);
}

/// The sums of a row, `p` in the formula.
pub(super) type Sums<L> = [L; LANES];

impl Lane for f32 {
    const WIDTH: usize = 1;

    #[inline(always)]
    fn plus_product(self, w: f32, x: f32) -> f32 {
        self + w * x
    }

    #[inline(always)]
    fn plus(self, other: f32) -> f32 {
        self + other
    }

    #[inline(always)]
    fn scaled(self, scale: f32) -> f32 {
        self * scale
    }

    #[inline(always)]
    fn gather<I: Index>(sums: &mut Sums<f32>, w: &[f32; LANES], columns: &[I; LANES], x: &[f32]) {
        // First all inputs, so that the rest is one vector's work.
        let mut found = [0.0; LANES];
        for (found, column) in found.iter_mut().zip(columns) {
            *found = x[column.at()];
        }
        for ((sum, w), x) in sums.iter_mut().zip(w).zip(found) {
            *sum += w * x;
        }
    }
}

/// A number of each of eight vectors.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
pub(crate) struct Eight(pub(crate) [f32; LANES]);

impl Lane for Eight {
    const WIDTH: usize = LANES;

    #[inline(always)]
    fn plus_product(mut self, w: f32, x: Self) -> Self {
        for (sum, x) in self.0.iter_mut().zip(x.0) {
            *sum += w * x;
        }
        self
    }

    #[inline(always)]
    fn plus(mut self, other: Self) -> Self {
        for (sum, other) in self.0.iter_mut().zip(other.0) {
            *sum += other;
        }
        self
    }

    #[inline(always)]
    fn scaled(mut self, scale: f32) -> Self {
        for sum in &mut self.0 {
            *sum *= scale;
        }
        self
    }

    #[inline(always)]
    fn gather<I: Index>(sums: &mut Sums<Self>, w: &[f32; LANES], columns: &[I; LANES], x: &[Self]) {
        for ((sum, &w), column) in sums.iter_mut().zip(w).zip(columns) {
            *sum = sum.plus_product(w, x[column.at()]);
        }
    }
}

/// Adds some elements of a row, the first of which goes to the first sum.
#[inline(always)]
pub(super) fn gathered<L: Lane, I: Index>(sums: &mut Sums<L>, w: &[f32], columns: &[I], x: &[L]) {
    let (w, w_rest) = w.as_chunks::<LANES>();
    let (columns, columns_rest) = columns.as_chunks::<LANES>();
    for (w, columns) in w.iter().zip(columns) {
        L::gather(sums, w, columns, x);
    }
    for ((sum, &w), column) in sums.iter_mut().zip(w_rest).zip(columns_rest) {
        *sum = sum.plus_product(w, x[column.at()]);
    }
}

/// As [`gathered`], of neighbouring columns.
#[inline(always)]
pub(super) fn contiguous<L: Lane>(sums: &mut Sums<L>, w: &[f32], x: &[L]) {
    let (w, w_rest) = w.as_chunks::<LANES>();
    let (x, x_rest) = x.as_chunks::<LANES>();
    for (w, x) in w.iter().zip(x) {
        for ((sum, &w), &x) in sums.iter_mut().zip(w).zip(x) {
            *sum = sum.plus_product(w, x);
        }
    }
    for ((sum, &w), &x) in sums.iter_mut().zip(w_rest).zip(x_rest) {
        *sum = sum.plus_product(w, x);
    }
}

/// As [`gathered`], of two of each four neighbours: two bits say which, four of them a byte.
#[inline(always)]
pub(super) fn picked<L: Lane>(sums: &mut Sums<L>, w: &[f32], indices: &[u8], x: &[L]) {
    let (eights, inputs) = (w.as_chunks::<LANES>().0, x.as_chunks::<{ 2 * LANES }>().0);
    for ((w, x), &[low, high]) in eights.iter().zip(inputs).zip(indices.as_chunks::<2>().0) {
        let mut found = [L::default(); LANES];
        for (i, found) in found.iter_mut().enumerate() {
            let byte = if i < LANES / 2 { low } else { high };
            *found = x[i / 2 * 4 + usize::from(byte >> (i % 4 * 2) & 3)];
        }
        for ((sum, &w), x) in sums.iter_mut().zip(w).zip(found) {
            *sum = sum.plus_product(w, x);
        }
    }
    // Two of the last columns can make up an eighth element of fewer than sixteen.
    let done = eights.len().min(inputs.len()) * LANES;
    for (i, (sum, &w)) in sums.iter_mut().zip(&w[done..]).enumerate() {
        let slot = done + i;
        *sum = sum.plus_product(w, x[slot / 2 * 4 + usize::from(indices[slot / 4] >> (slot % 4 * 2) & 3)]);
    }
}

/// The sum of all.
#[inline(always)]
pub(super) fn finish<L: Lane>(p: Sums<L>) -> L {
    p[0].plus(p[4]).plus(p[2].plus(p[6])).plus(p[1].plus(p[5]).plus(p[3].plus(p[7])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bits_pick_one_of_four() {
        let x: Vec<f32> = (0..28).map(|i| i as f32).collect();
        let indices = [0b11_00_10_01, 0b11_10_01_00, 0b11_00_10_01, 0b1101];
        let mut sums = Sums::default();
        picked(&mut sums, &[1.0; 14], &indices, &x);
        assert_eq!(sums, [1.0 + 17.0, 2.0 + 18.0, 4.0 + 20.0, 7.0 + 23.0, 8.0 + 25.0, 9.0 + 27.0, 14.0, 15.0]);
    }
}
