//! A function of each element, in place.

use super::{
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::Element;

/// `x = f(x)` for all of `values`.
pub(crate) fn map<T: Element>(values: &mut [T], f: impl Fn(T::Real) -> T::Real + Copy + Send + Sync) {
    execute(Map { values, f });
}

struct Map<'a, T, F> {
    values: &'a mut [T],
    f: F,
}

impl<T: Element, F: Fn(T::Real) -> T::Real + Copy + Send + Sync> Work for Map<'_, T, F> {
    type Output = ();

    fn len(&self) -> usize {
        self.values.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (values, values_right) = self.values.split_at_mut(mid);
        (Self { values, f: self.f }, Self { values: values_right, f: self.f })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<T: Element, F: Fn(T::Real) -> T::Real + Copy> Kernel for Map<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.values {
            *x = T::from_real((self.f)(x.to_real()));
        }
    }
}
