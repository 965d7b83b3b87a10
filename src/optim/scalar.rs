//! Scalars of a step, and the pieces of maths that several rules share.

use crate::element::Real;
use std::cell::Cell;

/// A scalar of a step, formed in `f64` and narrowed once.
pub(super) fn narrow<R: Real>(value: f64) -> R {
    R::from_f64(value)
}

/// `1 - beta^t`
pub(super) fn bias_correction(beta: f64, count: u64) -> f64 {
    1.0 - power(beta, count)
}

/// `beta^t`. All parameters of a group ask for the same few powers, and one takes as long as the step of a hundred elements:
/// each thread keeps its last ones.
fn power(beta: f64, count: u64) -> f64 {
    thread_local! {
        static LAST: Cell<[(f64, u64, f64); 4]> = const { Cell::new([(1.0, 0, 1.0); 4]) };
    }
    let last = LAST.get();
    if let Some((.., power)) = last.iter().find(|(b, t, _)| *b == beta && *t == count) {
        return *power;
    }
    let power = libm::pow(beta, count as f64);
    LAST.set([(beta, count, power), last[0], last[1], last[2]]);
    power
}

/// The gradient a rule works with: negated to climb, plus the L2 penalty's.
#[derive(Clone, Copy)]
pub(super) struct Gradient<R> {
    sign: R,
    decay: R,
}

impl<R: Real> Gradient<R> {
    pub(super) fn new(maximize: bool, weight_decay: f64) -> Self {
        // Multiplying by -1 is exact.
        Self { sign: if maximize { -R::one() } else { R::one() }, decay: narrow(weight_decay) }
    }

    /// `g = -g` to climb, then `g + decay * p`; a decay of 0 adds nothing, also where `p` is infinite.
    #[inline(always)]
    pub(super) fn of(&self, param: R, grad: R) -> R {
        let grad = self.sign * grad;
        if self.decay == R::zero() { grad } else { grad + self.decay * param }
    }
}

/// An exponential moving average, moved as an interpolation that does not cancel.
#[derive(Clone, Copy)]
pub(super) struct Average<R> {
    keep: R,
    rest: R,
    slow: bool,
}

impl<R: Real> Average<R> {
    pub(super) fn new(beta: f64) -> Self {
        Self { keep: narrow(beta), rest: narrow(1.0 - beta), slow: 1.0 - beta < 0.5 }
    }

    /// `beta * mean + (1 - beta) * x`
    #[inline(always)]
    pub(super) fn next(&self, mean: R, x: R) -> R {
        let step = x - mean;
        if self.slow { mean + self.rest * step } else { x - step * self.keep }
    }
}

/// An exponential moving average of squares.
#[derive(Clone, Copy)]
pub(super) struct Squares<R> {
    keep: R,
    rest: R,
}

impl<R: Real> Squares<R> {
    pub(super) fn new(beta: f64) -> Self {
        Self { keep: narrow(beta), rest: narrow(1.0 - beta) }
    }

    /// `beta * square + (1 - beta) * x * x`
    #[inline(always)]
    pub(super) fn next(&self, square: R, x: R) -> R {
        self.keep * square + self.rest * x * x
    }
}
