//! The norm of what a function makes of each parameter and its state, without storing it.

use super::{
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::Element;

/// Elements of a piece: fixed, since it decides the order of the sums.
const CHUNK: usize = 4096;
const LANES: usize = 16;

/// The sum of `f(param, state)²` over all elements, in `f64`.
pub(crate) fn sum_of_squares<T: Element, F, const N: usize>(param: &[T], state: [&[T::Real]; N], f: F) -> f64
where
    F: Fn(T::Real, [T::Real; N]) -> T::Real + Copy + Send + Sync,
{
    execute(Squares { param, state, f })
}

struct Squares<'a, T: Element, F, const N: usize> {
    param: &'a [T],
    state: [&'a [T::Real]; N],
    f: F,
}

impl<T: Element, F, const N: usize> Work for Squares<'_, T, F, N>
where
    F: Fn(T::Real, [T::Real; N]) -> T::Real + Copy + Send + Sync,
{
    type Output = f64;

    fn len(&self) -> usize {
        self.param.len()
    }

    fn chunk(&self) -> usize {
        CHUNK
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (param, param_right) = self.param.split_at(mid);
        let (state, state_right) = (self.state.map(|slot| &slot[..mid]), self.state.map(|slot| &slot[mid..]));
        (Self { param, state, f: self.f }, Self { param: param_right, state: state_right, f: self.f })
    }

    fn run(self, isa: Isa) -> f64 {
        isa.run(self)
    }

    fn combine(left: f64, right: f64) -> f64 {
        left + right
    }
}

impl<T: Element, F, const N: usize> Kernel for Squares<'_, T, F, N>
where
    F: Fn(T::Real, [T::Real; N]) -> T::Real + Copy,
{
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut lanes = [0.0; LANES];
        let state = self.state.map(|slot| &slot[..self.param.len()]);
        for (i, x) in self.param.iter().enumerate() {
            let y = (self.f)(x.to_real(), state.map(|slot| slot[i])).to_f64();
            lanes[i % LANES] += y * y;
        }
        lanes.into_iter().fold(0.0, |a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_near_a_plain_sum() {
        let x: Vec<f32> = (0..100_000).map(|i| (i as f32).sin()).collect();
        let s: Vec<f32> = x.iter().map(|x| x * 2.0).collect();
        let want: f64 = x.iter().map(|&x| f64::from(3.0 * x).powi(2)).sum();
        let got = sum_of_squares(&x, [&s], |x, [s]| x + s);
        assert!((got - want).abs() < 1e-6 * want);
    }
}
