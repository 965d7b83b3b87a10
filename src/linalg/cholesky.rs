//! The Cholesky factor of the inverse of a damped Hessian, as GPTQ and SparseGPT sweep by it.

use super::calibration::Moment;
use crate::{
    error::{Error, Result},
    tensor::view::filled,
};
use faer::{
    MatMut, MatRef, Par,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch},
        triangular_inverse::invert_lower_triangular,
    },
};

/// Damping grows so much from one try to the next, from at least `LEAST`.
const GROWTH: f64 = 10.0;
const LEAST: f64 = 1e-6;
const TRIES: u32 = 6;

/// The upper triangular `U` with `(H + damping * mean(diag H) * I)⁻¹ = Uᵀ U`, but for a factor that all of it has.
pub(crate) struct InverseFactor {
    /// `U[i][j]` is at `j * inputs + i`, for `i <= j`.
    pub(crate) values: Vec<f64>,
    /// What it took.
    pub(crate) damping: f64,
}

/// The factor for inputs taken in an `order`. Inputs that were always 0 have 1 on the diagonal, and the mean is over
/// the others.
///
/// With the order reversed, `H = V Vᵀ` for an upper triangular `V`, and `U = V⁻¹`: one factor and one triangular
/// inverse, where the inverse of `H` would lose digits.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) when `H` has no factor even with ten times more damping a few times over.
pub(crate) fn inverse_factor(moment: Moment<'_>, order: &[usize], damping: f64) -> Result<InverseFactor> {
    let size = order.len();
    let live = moment.diagonal().filter(|&h| h > 0.0);
    let count = live.clone().count().max(1) as f64;
    let mean = match live.map(|h| h / count).sum::<f64>() {
        0.0 => 1.0,
        mean => mean,
    };
    let mut matrix = filled(size.saturating_mul(size), 0.0)?;
    let mut inverse = filled(matrix.len(), 0.0)?;
    let scratch = cholesky_in_place_scratch::<f64>(size, Par::Seq, Default::default());
    let no_memory = |_| Error::argument("inputs", size, "few enough for a factor in memory");
    let mut memory = MemBuffer::try_new(scratch).map_err(no_memory)?;
    let mut damping = damping;
    for _ in 0..TRIES {
        // Columns of the lower triangle, in reversed order.
        for (col, column) in matrix.chunks_exact_mut(size).enumerate() {
            for (row, entry) in column.iter_mut().enumerate().skip(col) {
                let (i, j) = (order[size - 1 - row], order[size - 1 - col]);
                let h = moment.at(i, j);
                *entry = match row == col {
                    true if h > 0.0 => h / mean + damping,
                    true => 1.0 + damping,
                    false => h / mean,
                };
            }
        }
        let lower = MatMut::from_column_major_slice_mut(&mut matrix, size, size);
        let factor =
            cholesky_in_place(lower, Default::default(), Par::Seq, MemStack::new(&mut memory), Default::default());
        if factor.is_ok() {
            let lower = MatRef::from_column_major_slice(&matrix, size, size);
            let out = MatMut::from_column_major_slice_mut(&mut inverse, size, size);
            invert_lower_triangular(out, lower, Par::Seq);
            if inverse.iter().all(|u| u.is_finite()) && inverse.iter().step_by(size + 1).all(|&u| u > 0.0) {
                inverse.reverse();
                return Ok(InverseFactor { values: inverse, damping });
            }
        }
        damping = (damping * GROWTH).max(LEAST);
    }
    Err(Error::argument("Hessian", format!("not positive definite with damping of {damping:e}"), "so"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Calibration, TensorRef};

    fn calibration(rows: usize, cols: usize) -> Calibration {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.3
        };
        let x: Vec<f32> = (0..rows * cols).map(|i| if i % cols == 2 { 0.0 } else { next() }).collect();
        let mut calibration = Calibration::new(cols).unwrap();
        calibration.add(TensorRef::new(&x, &[rows, cols]).unwrap()).unwrap();
        calibration
    }

    #[test]
    fn the_factor_times_its_transpose_is_the_inverse() {
        let n = 37;
        for (rows, damping) in [(200, 0.01), (5, 0.01), (200, 0.0)] {
            let calibration = calibration(rows, n);
            let moment = calibration.moment().unwrap();
            let order: Vec<usize> = (0..n).map(|i| i * 10 % n).collect();
            let factor = inverse_factor(moment, &order, damping).unwrap();
            assert_eq!(factor.damping, damping);
            let u = |i: usize, j: usize| if i <= j { factor.values[j * n + i] } else { 0.0 };
            let mean = moment.diagonal().sum::<f64>() / (n - 1) as f64;
            let h = |i: usize, j: usize| match (order[i], order[j]) {
                (2, 2) => 1.0 + damping,
                (a, b) => moment.at(a, b) / mean + if a == b { damping } else { 0.0 },
            };
            for i in 0..n {
                for j in 0..n {
                    // U H Uᵀ = 1
                    let product: f64 = (0..n).map(|a| u(i, a) * (0..n).map(|b| h(a, b) * u(j, b)).sum::<f64>()).sum();
                    assert!((product - f64::from(i == j)).abs() < 1e-9, "{rows} {i} {j}: {product}");
                }
            }
        }
    }

    #[test]
    fn a_singular_hessian_gets_damping_and_a_dead_one_is_the_identity() {
        let mut calibration = Calibration::new(3).unwrap();
        calibration.add(&[0.0f32; 3]).unwrap();
        let factor = inverse_factor(calibration.moment().unwrap(), &[0, 1, 2], 0.0).unwrap();
        assert_eq!(factor.values, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        calibration.add(&[1.0f32, 1.0, 1.0]).unwrap();
        let factor = inverse_factor(calibration.moment().unwrap(), &[0, 1, 2], 0.0).unwrap();
        assert!(factor.damping > 0.0 && factor.damping < 1e-3, "{}", factor.damping);
    }
}
