//! The element-wise update rule, and the kernel that runs one over a tensor.

use super::{
    any::{BLOCK, Buffer},
    bits::Bits,
    grad::GradRef,
    isa::{Isa, Kernel},
    parallel::{Work, execute},
    random::Stream,
    slot::SlotMut,
};
use crate::element::{AnySliceMut, Real};
use std::ops::Range;

/// The scalar maths of an element-wise optimizer with `N` numbers of state for each parameter.
///
/// A rule is made for one step: what depends on the step alone (`lr / (1 - beta^t)`) is computed
/// when the rule is built, in `f64`, and narrowed once. [`update`](Rule::update) is compiled for each
/// instruction set and run in chunks, serially or by rayon, over any [`Element`](crate::Element) type, under a mask and with state
/// in any form; the text of `update` alone decides the bits. Mark it `#[inline(always)]`, and keep `mul_add` out.
pub trait Rule<R: Real, const N: usize>: Copy + Send + Sync {
    /// The new parameter and state from the old parameter, its gradient and its state.
    fn update(&self, param: R, grad: R, state: [R; N]) -> (R, [R; N]);
}

/// A slot that follows the parameter: `slot += share * (param - slot)` after the step.
#[derive(Debug)]
pub(crate) struct Follow<'a, R> {
    pub(crate) slot: &'a mut [R],
    pub(crate) share: R,
    /// The slot is first set to the parameter as it is before the step.
    pub(crate) start: bool,
    /// The parameter then becomes what the slot is.
    pub(crate) pull: bool,
}

/// One step's streams of memory, all of one length. They are read and written once, a block at a time.
///
/// Where `keep` is given and its bit is 0, the parameter and what follows it become 0 and its state the slot's initial value.
#[derive(Debug)]
pub(crate) struct Pass<'a, R: Real, const N: usize> {
    pub(crate) param: AnySliceMut<'a, R>,
    pub(crate) grad: GradRef<'a, R>,
    pub(crate) state: [SlotMut<'a, R>; N],
    pub(crate) keep: Option<(Bits<'a>, [R; N])>,
    /// Rounds a parameter of 16 bits stochastically.
    pub(crate) rounding: Option<Stream>,
    /// Rounds state of 16 or 8 bits.
    pub(crate) dither: Stream,
    pub(crate) follow: [Option<Follow<'a, R>>; 2],
    /// The new parameter once more, rounded to nearest.
    pub(crate) copy: Option<AnySliceMut<'a, R>>,
}

/// One step of `rule`.
pub(crate) fn step<R: Real, Q: Rule<R, N>, const N: usize>(rule: &Q, pass: Pass<'_, R, N>) {
    execute(StepWork { rule, pass, first: 0 });
}

struct StepWork<'a, R: Real, Q, const N: usize> {
    rule: &'a Q,
    pass: Pass<'a, R, N>,
    /// The index of the first element in the whole tensor.
    first: u64,
}

impl<R: Real, Q: Rule<R, N>, const N: usize> Work for StepWork<'_, R, Q, N> {
    type Output = ();

    fn len(&self) -> usize {
        self.pass.param.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { rule, pass, first } = self;
        let (left, right) = pass.split_at(mid);
        (Self { rule, pass: left, first }, Self { rule, pass: right, first: first + mid as u64 })
    }

    fn run(self, isa: Isa) {
        let Self { rule, mut pass, first } = self;
        let plain = pass.keep.is_none() && pass.follow.iter().all(Option::is_none) && pass.copy.is_none();
        if let (true, AnySliceMut::Real(param), Some(grad)) = (plain, &mut pass.param, pass.grad.as_real()) {
            let mut state = pass.state.each_mut().map(SlotMut::as_real);
            if state.iter().all(Option::is_some) {
                let state = state.each_mut().map(|slot| slot.take().unwrap_or_default());
                return isa.run(Plain { rule, param, grad, state });
            }
        }
        isa.run(Blocks { rule, pass, first });
    }

    fn combine((): (), (): ()) {}
}

impl<R: Real, const N: usize> Pass<'_, R, N> {
    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { param, grad, state, keep, rounding, dither, follow, copy } = self;
        let (param, param_right) = param.split_at(mid);
        let (grad, grad_right) = grad.split_at(mid);
        let (state, state_right) = unzip(state.map(|slot| slot.split_at(mid)));
        let (keep, keep_right) = keep
            .map(|(bits, initial)| {
                let (left, right) = bits.split_at(mid);
                ((left, initial), (right, initial))
            })
            .unzip();
        let (follow, follow_right) = unzip(follow.map(|follow| follow.map(|follow| follow.split_at(mid)).unzip()));
        let (copy, copy_right) = copy.map(|copy| copy.split_at(mid)).unzip();
        (
            Self { param, grad, state, keep, rounding, dither, follow, copy },
            Self {
                param: param_right,
                grad: grad_right,
                state: state_right,
                keep: keep_right,
                rounding,
                dither,
                follow: follow_right,
                copy: copy_right,
            },
        )
    }
}

impl<R> Follow<'_, R> {
    fn split_at(self, mid: usize) -> (Self, Self)
    where
        R: Copy,
    {
        let Self { slot, share, start, pull } = self;
        let (slot, right) = slot.split_at_mut(mid);
        (Self { slot, share, start, pull }, Self { slot: right, share, start, pull })
    }
}

/// The first and the second of each pair.
fn unzip<T: Default, const N: usize>(pairs: [(T, T); N]) -> ([T; N], [T; N]) {
    let mut right = std::array::from_fn(|_| T::default());
    let mut places = right.iter_mut();
    let left = pairs.map(|(left, right)| {
        if let Some(place) = places.next() {
            *place = right;
        }
        left
    });
    (left, right)
}

/// The rule straight over elements that all are `R`.
struct Plain<'a, R, Q, const N: usize> {
    rule: &'a Q,
    param: &'a mut [R],
    grad: &'a [R],
    state: [&'a mut [R]; N],
}

impl<R: Real, Q: Rule<R, N>, const N: usize> Kernel for Plain<'_, R, Q, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let n = self.param.len();
        // A copy of the rule on the stack: what is read in the loop cannot alias what is written.
        dense(*self.rule, self.param, self.grad, self.state, n);
    }
}

#[inline(always)]
fn dense<R: Real, Q: Rule<R, N>, const N: usize>(rule: Q, param: &mut [R], grad: &[R], state: [&mut [R]; N], n: usize) {
    let (param, grad) = (&mut param[..n], &grad[..n]);
    let state = state.map(|slot| &mut slot[..n]);
    for i in 0..n {
        let old = state.each_ref().map(|slot| slot[i]);
        let (new_param, new) = rule.update(param[i], grad[i], old);
        param[i] = new_param;
        for k in 0..N {
            state[k][i] = new[k];
        }
    }
}

/// Where a lane is 0, the parameter becomes 0 and the state its initial value. Selects, never multiplies.
#[inline(always)]
fn masked<R: Real, Q: Rule<R, N>, const N: usize>(
    rule: Q,
    param: &mut [R; BLOCK],
    grad: &[R; BLOCK],
    state: [&mut [R; BLOCK]; N],
    lanes: &[u32; BLOCK],
    initial: [R; N],
) {
    for i in 0..BLOCK {
        let keep = lanes[i] != 0;
        let old = state.each_ref().map(|slot| slot[i]);
        let (new_param, new) = rule.update(param[i], grad[i], old);
        param[i] = if keep { new_param } else { R::zero() };
        for k in 0..N {
            state[k][i] = if keep { new[k] } else { initial[k] };
        }
    }
}

/// Runs the rule block by block: what is not `R` is widened into the first-level cache, worked on and narrowed again. Each stage
/// is a small loop of known length, of which the compiler makes vectors; what lies beyond the end of the last block is computed
/// but not stored.
struct Blocks<'r, 'a, R: Real, Q, const N: usize> {
    rule: &'r Q,
    pass: Pass<'a, R, N>,
    first: u64,
}

/// What the blocks are worked on in.
struct Room<'a, R, const N: usize> {
    param: Buffer<R>,
    grad: Buffer<R>,
    state: [Staged<'a, R>; N],
    follow: Buffer<R>,
    lanes: Buffer<u32>,
    rounding: Buffer<u32>,
}

/// A slot, where its numbers are worked on, and the random bits that round them.
struct Staged<'a, R> {
    slot: SlotMut<'a, R>,
    numbers: Buffer<R>,
    dither: Buffer<u32>,
}

impl<R: Real, Q: Rule<R, N>, const N: usize> Kernel for Blocks<'_, '_, R, Q, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rule, mut pass, first } = self;
        let mut room = Room {
            param: Buffer::new(),
            grad: Buffer::new(),
            state: pass.state.each_mut().map(|slot| Staged {
                slot: std::mem::take(slot),
                numbers: Buffer::new(),
                dither: Buffer::new(),
            }),
            follow: Buffer::new(),
            lanes: Buffer::new(),
            rounding: Buffer::new(),
        };
        for (turn, Staged { slot, dither, .. }) in room.state.iter_mut().enumerate() {
            if slot.as_real().is_none() {
                pass.dither.fill(turn, dither.get(0));
            }
        }
        if let Some(rounding) = pass.rounding {
            rounding.fill(0, room.rounding.get(0));
        }
        let len = pass.param.len();
        for at in (0..len).step_by(BLOCK) {
            block(*rule, &mut pass, at..len.min(at + BLOCK), first + at as u64, &mut room);
        }
    }
}

/// All that happens to the elements of one block. `first` is the index of its first one in the whole tensor.
#[inline(always)]
fn block<R: Real, Q: Rule<R, N>, const N: usize>(
    rule: Q,
    pass: &mut Pass<'_, R, N>,
    range: Range<usize>,
    first: u64,
    room: &mut Room<'_, R, N>,
) {
    let kept = match pass.keep {
        Some((bits, initial)) => Some((bits.lanes(range.clone(), room.lanes.get(0)), initial)),
        None => None,
    };
    let grad = pass.grad.load(range.clone(), &mut room.grad);
    let moves = !pass.param.in_place(&range);
    if moves {
        pass.param.as_any().load(range.clone(), room.param.get(R::zero()));
    }
    let param = pass.param.place(range.clone(), &mut room.param);
    for follow in pass.follow.iter_mut().flatten() {
        if follow.start {
            follow.slot[range.clone()].copy_from_slice(&param[..range.len()]);
        }
    }
    for Staged { slot, numbers, .. } in &mut room.state {
        if !slot.in_place(&range) {
            slot.load(range.clone(), numbers.get(R::zero()));
        }
    }
    let state = room.state.each_mut().map(|Staged { slot, numbers, .. }| slot.place(range.clone(), numbers));
    match kept {
        None => dense(rule, param, grad, state.map(|slot| &mut slot[..]), BLOCK),
        Some((lanes, initial)) => masked(rule, param, grad, state, lanes, initial),
    }

    for (turn, Staged { slot, numbers, dither }) in room.state.iter_mut().enumerate() {
        if !slot.in_place(&range) {
            let random = pass.dither.bits(turn, first, dither.get(0));
            slot.store(range.clone(), numbers.get(R::zero()), random);
        }
    }
    let random = match pass.rounding {
        Some(stream) => Some(stream.bits(0, first, room.rounding.get(0))),
        None => None,
    };
    if moves {
        pass.param.store(range.clone(), room.param.get(R::zero()), random);
    }
    if pass.follow.iter().all(Option::is_none) && pass.copy.is_none() {
        return;
    }
    if moves {
        // As it is stored.
        pass.param.as_any().load(range.clone(), room.param.get(R::zero()));
    }
    let param = pass.param.place(range.clone(), &mut room.param);
    let mut pulled = false;
    for follow in pass.follow.iter_mut().flatten() {
        let mut slot = AnySliceMut::Real(&mut *follow.slot);
        let moves = !slot.in_place(&range);
        if moves {
            slot.as_any().load(range.clone(), room.follow.get(R::zero()));
        }
        let numbers = slot.place(range.clone(), &mut room.follow);
        following(param, numbers, follow.share, kept.map(|(lanes, _)| lanes));
        if follow.pull {
            *param = *numbers;
            pulled = true;
        }
        if moves {
            slot.store(range.clone(), room.follow.get(R::zero()), None);
        }
    }
    if let Some(copy) = &mut pass.copy {
        copy.store(range.clone(), param, None);
    }
    if pulled && moves {
        pass.param.store(range, room.param.get(R::zero()), random);
    }
}

/// The slot follows the parameter. By a share of 0 it stays where it is, whatever the parameter holds.
#[inline(always)]
fn following<R: Real>(param: &[R; BLOCK], slot: &mut [R; BLOCK], share: R, lanes: Option<&[u32; BLOCK]>) {
    if share != R::zero() {
        for i in 0..BLOCK {
            slot[i] = slot[i] + share * (param[i] - slot[i]);
        }
    }
    if let Some(lanes) = lanes {
        for i in 0..BLOCK {
            slot[i] = if lanes[i] != 0 { slot[i] } else { R::zero() };
        }
    }
}
