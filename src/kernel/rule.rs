//! The element-wise update rule, and the kernel that runs one over a tensor.

use super::{
    bits::Bits,
    isa::{Isa, Kernel},
    parallel::{Work, execute},
};
use crate::element::{Element, Real};

/// The scalar maths of an element-wise optimizer with `N` numbers of state for each parameter.
///
/// A rule is made for one step: what depends on the step alone (`lr / (1 - beta^t)`) is computed
/// when the rule is built, in `f64`, and narrowed once. [`update`](Rule::update) is compiled for each
/// instruction set and run in chunks, serially or by rayon, over any [`Element`] type and under a mask;
/// the text of `update` alone decides the bits. Mark it `#[inline(always)]`, and keep `mul_add` out.
pub trait Rule<R: Real, const N: usize>: Copy + Send + Sync {
    /// The new parameter and state from the old parameter, its gradient and its state.
    fn update(&self, param: R, grad: R, state: [R; N]) -> (R, [R; N]);
}

/// One step over equally long slices. Where `keep` is given and its bit is 0, the parameter
/// becomes 0 and its state the slot's `initial` value.
pub(crate) fn step<T: Element, Q: Rule<T::Real, N>, const N: usize>(
    rule: &Q,
    param: &mut [T],
    grad: &[T],
    state: [&mut [T::Real]; N],
    keep: Option<(Bits<'_>, [T::Real; N])>,
) {
    execute(StepWork { rule, param, grad, state, keep });
}

struct StepWork<'a, T: Element, Q, const N: usize> {
    rule: &'a Q,
    param: &'a mut [T],
    grad: &'a [T],
    state: [&'a mut [T::Real]; N],
    keep: Option<(Bits<'a>, [T::Real; N])>,
}

impl<T: Element, Q: Rule<T::Real, N>, const N: usize> Work for StepWork<'_, T, Q, N> {
    type Output = ();

    fn len(&self) -> usize {
        self.param.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (param, param_right) = self.param.split_at_mut(mid);
        let (grad, grad_right) = self.grad.split_at(mid);
        let mut state_right = std::array::from_fn(|_| Default::default());
        let mut slots = state_right.iter_mut();
        let state = self.state.map(|slot| {
            let (left, right) = slot.split_at_mut(mid);
            if let Some(place) = slots.next() {
                *place = right;
            }
            left
        });
        let (keep, keep_right) = match self.keep {
            Some((bits, initial)) => {
                let (left, right) = bits.split_at(mid);
                (Some((left, initial)), Some((right, initial)))
            }
            None => (None, None),
        };
        (
            Self { rule: self.rule, param, grad, state, keep },
            Self { rule: self.rule, param: param_right, grad: grad_right, state: state_right, keep: keep_right },
        )
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl<T: Element, Q: Rule<T::Real, N>, const N: usize> Kernel for StepWork<'_, T, Q, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // A copy on the stack: what is read in the loop cannot alias what is written.
        let rule = *self.rule;
        let Some((bits, initial)) = self.keep else {
            return dense(rule, self.param, self.grad, self.state);
        };
        let mut state = self.state;
        for (word, range) in bits.words() {
            let param = &mut self.param[range.clone()];
            let grad = &self.grad[range.clone()];
            let state = state.each_mut().map(|slot| &mut slot[range.clone()]);
            masked(rule, param, grad, state, word, initial);
        }
    }
}

#[inline(always)]
fn dense<T: Element, Q: Rule<T::Real, N>, const N: usize>(
    rule: Q,
    param: &mut [T],
    grad: &[T],
    state: [&mut [T::Real]; N],
) {
    let grad = &grad[..param.len()];
    let state = state.map(|slot| &mut slot[..param.len()]);
    for i in 0..param.len() {
        let old = state.each_ref().map(|slot| slot[i]);
        let (new_param, new) = rule.update(param[i].to_real(), grad[i].to_real(), old);
        param[i] = T::from_real(new_param);
        for k in 0..N {
            state[k][i] = new[k];
        }
    }
}

/// Up to 64 elements whose survival is told by the bits of `word`. Selects, never multiplies.
#[inline(always)]
fn masked<T: Element, Q: Rule<T::Real, N>, const N: usize>(
    rule: Q,
    param: &mut [T],
    grad: &[T],
    state: [&mut [T::Real]; N],
    word: u64,
    initial: [T::Real; N],
) {
    if word == u64::MAX {
        return dense(rule, param, grad, state);
    }
    for i in 0..param.len() {
        let keep = word >> i & 1 == 1;
        let old = state.each_ref().map(|slot| slot[i]);
        let (new_param, new) = rule.update(param[i].to_real(), grad[i].to_real(), old);
        param[i] = if keep { T::from_real(new_param) } else { T::default() };
        for k in 0..N {
            state[k][i] = if keep { new[k] } else { initial[k] };
        }
    }
}
