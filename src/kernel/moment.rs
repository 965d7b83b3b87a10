//! Sums of products of columns: what the second moment of a layer's inputs is made of.

use super::{
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};

/// A tile of sums that stays in registers.
const ROWS: usize = 4;
const COLS: usize = 8;

/// Numbers from one sample to the next where samples have `cols`: whole tiles.
pub(crate) fn stride(cols: usize) -> usize {
    cols.next_multiple_of(COLS)
}

/// `S[i][j] = S[i][j] + x[i] * x[j]` for each sample `x` in turn and all `j >= i`; entries below the diagonal may
/// change too, and mean nothing.
///
/// `sums` has `cols²` entries, `samples` as many rows of [`stride`] numbers as there are samples, 0 beyond `cols`. An
/// entry adds the samples in their order, so how they are shared out among calls does not change a bit.
pub(crate) fn add_products(sums: &mut [f64], cols: usize, samples: &[f64]) {
    execute(Products { sums, first: 0, cols, samples });
}

struct Products<'a> {
    sums: &'a mut [f64],
    /// The row of the first of `sums`.
    first: usize,
    cols: usize,
    samples: &'a [f64],
}

impl Work for Products<'_> {
    type Output = ();

    fn len(&self) -> usize {
        self.sums.len() / self.cols.max(1)
    }

    fn chunk(&self) -> usize {
        4 * ROWS
    }

    fn elements(&self) -> usize {
        // A product costs a fraction of what a kernel does to an element.
        (self.sums.len() / 16).saturating_mul(self.samples.len() / stride(self.cols).max(1))
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { sums, first, cols, samples } = self;
        let (sums, right) = sums.split_at_mut(mid * cols);
        (Self { sums, first, cols, samples }, Self { sums: right, first: first + mid, cols, samples })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { sums, first, cols, samples } = self;
        let stride = stride(cols);
        for (block, sums) in sums.chunks_mut(ROWS * cols).enumerate() {
            let row = first + block * ROWS;
            for col in (row / COLS * COLS..cols).step_by(COLS) {
                let width = COLS.min(cols - col);
                let mut tile = [[0.0; COLS]; ROWS];
                for (tile, sums) in tile.iter_mut().zip(sums.chunks_exact(cols)) {
                    tile[..width].copy_from_slice(&sums[col..col + width]);
                }
                for sample in samples.chunks_exact(stride) {
                    let (left, right) = (&sample[row..row + ROWS], &sample[col..col + COLS]);
                    for (tile, &a) in tile.iter_mut().zip(left) {
                        for (sum, &b) in tile.iter_mut().zip(right) {
                            *sum += a * b;
                        }
                    }
                }
                for (tile, sums) in tile.iter().zip(sums.chunks_exact_mut(cols)) {
                    sums[col..col + width].copy_from_slice(&tile[..width]);
                }
            }
        }
    }
}

/// Vectors taken at a time, side by side.
const LANES: usize = 8;

/// `e H eᵀ` of each row `e` of `vectors`, with the symmetric `H` whose upper triangle `sums` holds.
///
/// ```text
/// Σ_i e[i] * (H[i][i] * e[i] + 2 Σ_{j > i} H[i][j] * e[j])
/// ```
pub(crate) fn quadratic(sums: &[f64], cols: usize, vectors: &[f64], out: &mut [f64]) {
    execute(Quadratic { sums, cols, vectors, out });
}

struct Quadratic<'a> {
    sums: &'a [f64],
    cols: usize,
    vectors: &'a [f64],
    out: &'a mut [f64],
}

impl Work for Quadratic<'_> {
    type Output = ();

    fn len(&self) -> usize {
        self.out.len()
    }

    fn chunk(&self) -> usize {
        4 * LANES
    }

    fn elements(&self) -> usize {
        self.vectors.len().saturating_mul(self.cols) / 16
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { sums, cols, vectors, out } = self;
        let (vectors, vectors_right) = vectors.split_at(mid * cols);
        let (out, out_right) = out.split_at_mut(mid);
        (Self { sums, cols, vectors, out }, Self { sums, cols, vectors: vectors_right, out: out_right })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl Kernel for Quadratic<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { sums, cols, vectors, out } = self;
        let mut lanes = vec![[0.0; LANES]; cols];
        for (vectors, out) in vectors.chunks(LANES * cols).zip(out.chunks_mut(LANES)) {
            for (lane, vector) in vectors.chunks_exact(cols).enumerate() {
                for (lanes, &x) in lanes.iter_mut().zip(vector) {
                    lanes[lane] = x;
                }
            }
            let mut total = [0.0; LANES];
            for (block, sums) in sums.chunks(ROWS * cols).enumerate() {
                let row = block * ROWS;
                let rows = ROWS.min(cols - row);
                let mut tile = [[0.0; LANES]; ROWS];
                // The triangle on the diagonal, then what is to the right of it.
                for (i, (tile, sums)) in tile.iter_mut().zip(sums.chunks_exact(cols)).enumerate() {
                    for col in row + i + 1..row + rows {
                        add(tile, sums[col], &lanes[col]);
                    }
                }
                if rows == ROWS {
                    let (a, rest) = sums.split_at(cols);
                    let (b, rest) = rest.split_at(cols);
                    let (c, d) = rest.split_at(cols);
                    for (col, lanes) in lanes.iter().enumerate().skip(row + ROWS) {
                        for (tile, h) in tile.iter_mut().zip([a[col], b[col], c[col], d[col]]) {
                            add(tile, h, lanes);
                        }
                    }
                }
                for (i, (tile, sums)) in tile.iter().zip(sums.chunks_exact(cols)).enumerate() {
                    let h = sums[row + i];
                    for ((total, &right), &x) in total.iter_mut().zip(tile).zip(&lanes[row + i]) {
                        *total += x * (h * x + 2.0 * right);
                    }
                }
            }
            out.copy_from_slice(&total[..out.len()]);
        }
    }
}

#[inline(always)]
fn add(sums: &mut [f64; LANES], factor: f64, values: &[f64; LANES]) {
    for (sum, &x) in sums.iter_mut().zip(values) {
        *sum += factor * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 % 1013) as f64 - 506.0) / 64.0).collect()
    }

    #[test]
    fn products_and_forms_are_those_of_plain_loops() {
        for cols in [1, 3, 4, 5, 8, 9, 31, 70] {
            for count in [1, 2, 19] {
                let x = numbers(count * cols);
                let stride = stride(cols);
                let mut samples = vec![0.0; count * stride];
                for (to, from) in samples.chunks_exact_mut(stride).zip(x.chunks_exact(cols)) {
                    to[..cols].copy_from_slice(from);
                }
                // All sums are exact: multiples of 2^-12.
                let (mut once, mut twice) = (vec![0.0; cols * cols], vec![0.0; cols * cols]);
                add_products(&mut once, cols, &samples);
                samples.chunks_exact(stride).for_each(|sample| add_products(&mut twice, cols, sample));
                let h = |i: usize, j: usize| x.chunks_exact(cols).map(|x| x[i] * x[j]).sum::<f64>();
                for i in 0..cols {
                    for j in i..cols {
                        assert_eq!((once[i * cols + j], twice[i * cols + j]), (h(i, j), h(i, j)), "{cols} {i} {j}");
                    }
                }
                let vectors = numbers(11 * cols);
                let mut out = vec![f64::NAN; 11];
                quadratic(&once, cols, &vectors, &mut out);
                for (out, e) in out.iter().zip(vectors.chunks_exact(cols)) {
                    let want: f64 =
                        x.chunks_exact(cols).map(|x| x.iter().zip(e).map(|(x, e)| x * e).sum::<f64>().powi(2)).sum();
                    assert!((out - want).abs() <= 1e-9 * want.max(1.0), "{cols} {count}: {out} {want}");
                }
            }
        }
    }
}
