//! The element-wise update rule, and the kernel that runs one over a tensor.

use super::{
    any::{BLOCK, Buffer},
    bits::Bits,
    grad::GradRef,
    isa::{Isa, Kernel},
    parallel::{Work, execute},
    random::{Random, Stream},
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
        let plain = pass.follow.iter().all(Option::is_none) && pass.copy.is_none();
        if let (true, AnySliceMut::Real(param), Some(grad)) = (plain, &mut pass.param, pass.grad.as_real()) {
            let mut state = pass.state.each_mut().map(SlotMut::as_real);
            if state.iter().all(Option::is_some) {
                let state = state.each_mut().map(|slot| slot.take().unwrap_or_default());
                return in_place(rule, param, grad, state, pass.keep, isa);
            }
        }
        staged(rule, pass, first, isa);
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

/// Runs the rule straight over elements that all are `R`.
fn in_place<R: Real, Q: Rule<R, N>, const N: usize>(
    rule: &Q,
    param: &mut [R],
    grad: &[R],
    mut state: [&mut [R]; N],
    keep: Option<(Bits<'_>, [R; N])>,
    isa: Isa,
) {
    let Some((bits, initial)) = keep else {
        return isa.run(Each { rule, param, grad, state, keep: None });
    };
    let mut lanes = Buffer::new();
    for at in (0..param.len()).step_by(BLOCK) {
        let range = at..param.len().min(at + BLOCK);
        let keep = Some((bits.lanes(range.clone(), lanes.get(0), isa), initial));
        let (param, grad) = (&mut param[range.clone()], &grad[range.clone()]);
        let state = state.each_mut().map(|slot| &mut slot[range.clone()]);
        isa.run(Each { rule, param, grad, state, keep });
    }
}

/// The rule over elements that all are `R`; where a lane is 0, the parameter becomes 0 and the state its initial value.
struct Each<'a, R, Q, const N: usize> {
    rule: &'a Q,
    param: &'a mut [R],
    grad: &'a [R],
    state: [&'a mut [R]; N],
    keep: Option<(&'a [u32], [R; N])>,
}

impl<R: Real, Q: Rule<R, N>, const N: usize> Kernel for Each<'_, R, Q, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { param, grad, state, keep, .. } = self;
        // A copy on the stack: what is read in the loop cannot alias what is written.
        let rule = *self.rule;
        match (keep, param.len()) {
            // A loop of known length leaves no few elements over.
            (None, BLOCK) => dense(rule, param, grad, state, BLOCK),
            (None, n) => dense(rule, param, grad, state, n),
            (Some((lanes, initial)), BLOCK) => masked(rule, param, grad, state, lanes, initial, BLOCK),
            (Some((lanes, initial)), n) => masked(rule, param, grad, state, lanes, initial, n),
        }
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

/// Selects, never multiplies.
#[inline(always)]
fn masked<R: Real, Q: Rule<R, N>, const N: usize>(
    rule: Q,
    param: &mut [R],
    grad: &[R],
    state: [&mut [R]; N],
    lanes: &[u32],
    initial: [R; N],
    n: usize,
) {
    let (param, grad, lanes) = (&mut param[..n], &grad[..n], &lanes[..n]);
    let state = state.map(|slot| &mut slot[..n]);
    for i in 0..n {
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
/// is a kernel of its own: a small loop that the compiler makes vectors of.
fn staged<R: Real, Q: Rule<R, N>, const N: usize>(rule: &Q, mut pass: Pass<'_, R, N>, first: u64, isa: Isa) {
    let mut buffers = Buffers {
        param: Buffer::new(),
        grad: Buffer::new(),
        state: [const { Buffer::new() }; N],
        lanes: Buffer::new(),
        dither: Buffer::new(),
        rounding: Buffer::new(),
    };
    let len = pass.param.len();
    if pass.state.iter_mut().any(|slot| slot.as_real().is_none()) {
        pass.dither.fill(&mut buffers.dither.get(0)[..len.min(BLOCK)], isa);
    }
    if let Some(rounding) = pass.rounding {
        rounding.fill(&mut buffers.rounding.get(0)[..len.min(BLOCK)], isa);
    }
    for at in (0..len).step_by(BLOCK) {
        block(rule, &mut pass, at..len.min(at + BLOCK), first + at as u64, &mut buffers, isa);
    }
}

struct Buffers<R, const N: usize> {
    param: Buffer<R>,
    grad: Buffer<R>,
    state: [Buffer<R>; N],
    lanes: Buffer<u32>,
    dither: Buffer<u32>,
    rounding: Buffer<u32>,
}

/// All that happens to the elements of one block. `first` is the index of its first one in the whole tensor.
fn block<R: Real, Q: Rule<R, N>, const N: usize>(
    rule: &Q,
    pass: &mut Pass<'_, R, N>,
    range: Range<usize>,
    first: u64,
    buffers: &mut Buffers<R, N>,
    isa: Isa,
) {
    let n = range.len();
    let keep = match pass.keep {
        Some((bits, initial)) => Some((bits.lanes(range.clone(), buffers.lanes.get(0), isa), initial)),
        None => None,
    };
    let param = pass.param.load(range.clone(), &mut buffers.param, isa);
    for follow in pass.follow.iter_mut().flatten().filter(|follow| follow.start) {
        follow.slot[range.clone()].copy_from_slice(param);
    }
    let grad = pass.grad.load(range.clone(), &mut buffers.grad, isa);
    let mut places = buffers.state.iter_mut();
    let state = pass.state.each_mut().map(|slot| match places.next() {
        Some(buffer) => slot.load(range.clone(), buffer, isa),
        None => &mut [],
    });
    isa.run(Each { rule, param, grad, state, keep });
    drop(places);

    let mut turn = 0;
    for (slot, buffer) in pass.state.iter_mut().zip(&mut buffers.state) {
        if slot.as_real().is_none() {
            let random = Random { table: buffers.dither.get(0), offset: pass.dither.offset(first), turn };
            slot.store(range.clone(), buffer.get(R::zero()), random, isa);
            turn += 1;
        }
    }
    let random = match pass.rounding {
        Some(stream) => Some(Random { table: buffers.rounding.get(0), offset: stream.offset(first), turn: 0 }),
        None => None,
    };
    let narrow = !matches!(pass.param, AnySliceMut::Real(_));
    if narrow {
        pass.param.store(range.clone(), &buffers.param.get(R::zero())[..n], random, isa);
    }

    if pass.follow.iter().all(Option::is_none) && pass.copy.is_none() {
        return;
    }
    // The new parameter, as it is stored.
    let param = pass.param.load(range.clone(), &mut buffers.param, isa);
    let mut pulled = false;
    for follow in pass.follow.iter_mut().flatten() {
        let slot = &mut follow.slot[range.clone()];
        isa.run(Following { param, slot, share: follow.share, pull: follow.pull, keep: keep.map(|(lanes, _)| lanes) });
        pulled |= follow.pull;
    }
    if let Some(copy) = &mut pass.copy {
        copy.store(range.clone(), param, None, isa);
    }
    if pulled && narrow {
        pass.param.store(range.clone(), &buffers.param.get(R::zero())[..n], random, isa);
    }
}

/// A slot follows the parameter.
struct Following<'a, R> {
    param: &'a mut [R],
    slot: &'a mut [R],
    share: R,
    pull: bool,
    keep: Option<&'a [u32]>,
}

impl<R: Real> Kernel for Following<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { param, slot, share, pull, keep } = self;
        for (p, s) in param.iter_mut().zip(&mut *slot) {
            *s = *s + share * (*p - *s);
        }
        if let Some(lanes) = keep {
            for (s, &lane) in slot.iter_mut().zip(lanes) {
                *s = if lane != 0 { *s } else { R::zero() };
            }
        }
        if pull {
            param.copy_from_slice(slot);
        }
    }
}
