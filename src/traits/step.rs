//! One step's material, and what an optimizer does with it.

use crate::{
    element::{AnySliceMut, Element, Real},
    error::{Error, Result},
    kernel::{
        grad::GradRef,
        random::{Rounding, Stream},
        reduce,
        rule::{self, Follow, Pass, Rule},
        slot::SlotMut,
    },
    tensor::{
        Mask, State, TensorMut, TensorRef,
        any::{AnyRef, HalfMut},
        state::OpenState,
    },
};
use half::{bf16, f16};
use num_traits::Float;

/// One step's material: the parameter, its gradient and its state; and what else is to be done in the same pass.
///
/// Everything asked for is done to a block of elements while it is in the first-level cache, so that memory is read and
/// written once: the gradient is multiplied by a factor, then limited, the optimizer's rule runs, a mask selects, a
/// parameter of 16 bits is rounded, averages follow, and a 16-bit copy is written. (An optimizer whose update is not
/// element-wise takes the passes it needs, and one more for averages and the copy.)
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::Sgd};
/// let sgd = Sgd::new(0.1)?;
/// let (mut weights, gradient) = (vec![1.0f32, 2.0], vec![1.0, -1.0]);
/// let mut state = sgd.init(&weights)?;
/// sgd.step(Step::new(&mut weights, &gradient, &mut state))?;
/// assert_eq!(weights, [0.9, 2.1]);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// `f32` master weights, of which the model sees a `bf16` copy:
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, half::bf16, optim::AdamW};
/// let adamw = AdamW::new(1e-3)?;
/// let mut weights = vec![bf16::ONE; 4];
/// let mut master: Vec<f32> = weights.iter().map(|w| w.to_f32()).collect();
/// let mut state = adamw.init(&master)?;
/// for _ in 0..5 {
///     let gradient = weights.clone(); // bf16, as the model computes it
///     adamw.step(Step::mixed(&mut master, &gradient, &mut state).copy_to_bf16(&mut weights))?;
/// }
/// assert!(weights[0] < bf16::ONE); // five steps of 0.001, of which bf16 alone would see none
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "hand it to an optimizer's `step`"]
pub struct Step<'a, T: Element> {
    param: TensorMut<'a, T>,
    grad: AnyRef<'a, T::Real>,
    state: &'a mut State,
    mask: Option<&'a Mask>,
    check_finite: bool,
    factor: f64,
    limit: f64,
    seed: Option<u64>,
    follow: [Option<Following>; 2],
    copy: Option<HalfMut<'a>>,
}

/// A slot that follows the parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Following {
    pub(crate) slot: &'static str,
    /// The slot moves to the parameter by this share of the distance.
    pub(crate) share: f64,
    /// The slot is first set to the parameter as it is before the step.
    pub(crate) start: bool,
    /// The parameter then becomes what the slot is.
    pub(crate) pull: bool,
}

impl<'a, T: Element> Step<'a, T> {
    /// A step of `param` by `grad`, which has the same shape.
    pub fn new(param: impl Into<TensorMut<'a, T>>, grad: impl Into<TensorRef<'a, T>>, state: &'a mut State) -> Self {
        Self::mixed(param, grad, state)
    }

    /// As [`new`](Step::new), by a gradient of another type: `f32`, `f16` or `bf16` for a parameter of any of these.
    pub fn mixed<G: Element<Real = T::Real>>(
        param: impl Into<TensorMut<'a, T>>,
        grad: impl Into<TensorRef<'a, G>>,
        state: &'a mut State,
    ) -> Self {
        Self::of(param.into(), AnyRef::new(grad.into()), state)
    }

    pub(crate) fn of(param: TensorMut<'a, T>, grad: AnyRef<'a, T::Real>, state: &'a mut State) -> Self {
        Self {
            param,
            grad,
            state,
            mask: None,
            check_finite: false,
            factor: 1.0,
            limit: f64::INFINITY,
            seed: None,
            follow: [None, None],
            copy: None,
        }
    }

    /// Keeps pruned weights at 0 and their state at its initial value (as near to it as fewer bits come).
    pub fn mask(mut self, mask: &'a Mask) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Refuses a gradient that holds a NaN or an infinity, also where a mask prunes: one more read of it.
    pub fn check_finite(mut self) -> Self {
        self.check_finite = true;
        self
    }

    /// Multiplies the gradient as it is read: by what undoes a loss's scale, divides by the number of batches added up, or
    /// shortens it to a norm. 1 by default.
    pub fn scale_gradient(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Limits each element of the gradient, after [scaling](Step::scale_gradient), to `-limit ..= limit`. A NaN stays one.
    /// Without limit by default.
    pub fn clip_value(mut self, limit: f64) -> Self {
        self.limit = limit;
        self
    }

    /// Rounds a parameter of 16 bits to one of its two neighbours by chance, the nearer one the more often, so that small
    /// updates do not vanish but arrive now and then. `f32` and `f64` are not rounded, nothing changes for them.
    ///
    /// The random bits depend on the seed, the number of the step and the element's index alone (`fmix32` of MurmurHash3 of
    /// index and key, frozen), so the result is the same on any number of threads and in a resumed run.
    pub fn stochastic_rounding(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Lets a slot that comes after the optimizer's own follow the parameter. Asked by the outermost first, whose slot is the last
    /// and follows last.
    pub(crate) fn follow(mut self, following: Following) -> Result<Self> {
        self.follow = match self.follow {
            [None, None] => [Some(following), None],
            [Some(outer), None] if outer.slot != following.slot => [Some(following), Some(outer)],
            _ => return Err(Error::argument("optimizer", following.slot, "averaged at most once in each way")),
        };
        Ok(self)
    }

    /// The parameter's shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.param.shape()
    }

    /// The number of this step for this parameter, from 1.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.state.steps() + 1
    }

    /// For implementers: checks everything, counts the step and runs an element-wise rule with the
    /// state slots `slots`. `rule` is given the number of this step, from 1.
    ///
    /// # Errors
    /// As [`Optimizer::step`](crate::Optimizer::step).
    pub fn elementwise<Q: Rule<T::Real, N>, const N: usize>(
        self,
        slots: [&str; N],
        rule: impl FnOnce(u64) -> Q,
    ) -> Result<()> {
        self.elementwise_with(slots, [], |count, []| rule(count))
    }

    /// As [`elementwise`](Step::elementwise), with scalars of the state, which `rule` reads and moves.
    ///
    /// # Errors
    /// As [`Optimizer::step`](crate::Optimizer::step).
    pub fn elementwise_with<Q: Rule<T::Real, N>, const N: usize, const M: usize>(
        mut self,
        slots: [&str; N],
        scalars: [&str; M],
        rule: impl FnOnce(u64, &mut [f64; M]) -> Q,
    ) -> Result<()> {
        self.check()?;
        let (factor, limit) = (T::Real::from_f64(self.factor), T::Real::from_f64(self.limit));
        let follow = self.follow;
        let names = follow.map(|follow| follow.map(|follow| follow.slot));
        let OpenState { steps, slots, scalars, followers, .. } =
            self.state.open(self.param.shape(), slots, true, scalars, names)?;
        *steps += 1;
        let rule = rule(*steps, scalars);
        let initial = slots.each_ref().map(|slot| slot.initial);
        let pass = Pass {
            param: T::any_mut(self.param.as_mut_slice()),
            grad: GradRef::new(self.grad.as_slice(), factor, limit),
            state: slots.map(|slot| slot.values),
            keep: self.mask.map(|mask| (mask.bits(), initial)),
            rounding: self.seed.map(|seed| Stream::new(seed, *steps)),
            dither: Stream::new(DITHER, *steps),
            follow: followers_of(follow, followers, self.mask),
            copy: self.copy.as_mut().map(HalfMut::as_mut_slice),
        };
        rule::step(&rule, pass);
        Ok(())
    }

    /// For implementers of updates that are not element-wise: checks everything, counts the step, gives `update` what to work
    /// on, and does what else was asked for. The update itself must not fail any more.
    ///
    /// # Errors
    /// As [`Optimizer::step`](crate::Optimizer::step).
    pub fn open<const N: usize, const M: usize>(
        mut self,
        slots: [&str; N],
        scalars: [&str; M],
        update: impl FnOnce(OpenStep<'_, T, N, M>),
    ) -> Result<()> {
        self.check()?;
        let (factor, limit) = (T::Real::from_f64(self.factor), T::Real::from_f64(self.limit));
        let names = self.follow.map(|follow| follow.map(|follow| follow.slot));
        let OpenState { steps, slots, scalars, scratch, mut followers } =
            self.state.open(self.param.shape(), slots, false, scalars, names)?;
        let initial = slots.each_ref().map(|slot| slot.initial);
        let mut full = slots.map(|slot| slot.values.into_real());
        if full.iter().any(Option::is_none) {
            return Err(Error::state("is in fewer bits, which this optimizer's update does not read"));
        }
        *steps += 1;
        let count = *steps;
        let slots = full.each_mut().map(|slot| slot.take().unwrap_or_default());
        // What has to be kept of the parameter before it moves.
        let start =
            self.follow.map(|follow| follow.filter(|f| f.start).map(|f| Following { share: 0.0, pull: false, ..f }));
        stay(&mut self.param, &self.grad, self.mask, start, &mut followers, None);
        let rounding = Rounding(self.seed.map(|seed| Stream::new(seed, count)));
        let (shape, param) = self.param.parts_mut();
        let grad = GradRef::new(self.grad.as_slice(), factor, limit);
        update(OpenStep { count, shape, param, grad, slots, initial, scalars, scratch, mask: self.mask, rounding });
        let follow = self.follow.map(|follow| follow.map(|f| Following { start: false, ..f }));
        stay(&mut self.param, &self.grad, self.mask, follow, &mut followers, self.copy.as_mut());
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let shape = self.param.shape();
        if self.grad.shape() != shape {
            return Err(Error::shape("gradient", shape, self.grad.shape()));
        }
        if let Some(mask) = self.mask {
            mask.check(shape)?;
        }
        if let Some(copy) = self.copy.as_ref().filter(|copy| copy.shape() != shape) {
            return Err(Error::shape("16-bit copy", shape, copy.shape()));
        }
        if !T::Real::from_f64(self.factor).is_finite() {
            return Err(Error::argument("gradient's factor", format!("{:?}", self.factor), "finite"));
        }
        if self.limit.is_nan() || self.limit < 0.0 {
            return Err(Error::argument("limit", format!("{:?}", self.limit), "at least 0"));
        }
        if self.check_finite { self.grad.check_finite("gradient") } else { Ok(()) }
    }
}

impl<'a, T: Element<Real = f32>> Step<'a, T> {
    /// Writes the new parameter to `copy` too, rounded to nearest: what a model of 16 bits computes with.
    pub fn copy_to_bf16(self, copy: impl Into<TensorMut<'a, bf16>>) -> Self {
        self.copy_to(Some(copy.into().into()))
    }

    /// As [`copy_to_bf16`](Step::copy_to_bf16), in `f16`.
    pub fn copy_to_f16(self, copy: impl Into<TensorMut<'a, f16>>) -> Self {
        self.copy_to(Some(copy.into().into()))
    }
}

impl<'a, T: Element> Step<'a, T> {
    pub(crate) fn copy_to(mut self, copy: Option<HalfMut<'a>>) -> Self {
        self.copy = copy;
        self
    }
}

/// The seed by which state of few bits is rounded.
const DITHER: u64 = 0x6c61_7069_6461_7279;

/// The slots that have something to do in this step: under a mask all, which prunes them too.
fn followers_of<'a, R: Real>(
    follow: [Option<Following>; 2],
    slots: [Option<&'a mut [R]>; 2],
    mask: Option<&Mask>,
) -> [Option<Follow<'a, R>>; 2] {
    let mut slots = slots.into_iter();
    follow.map(|follow| {
        let slot = slots.next().flatten();
        let Following { share, start, pull, .. } =
            follow.filter(|f| f.share != 0.0 || f.start || f.pull || mask.is_some())?;
        Some(Follow { slot: slot?, share: R::from_f64(share), start, pull })
    })
}

/// A pass in which the parameter stays, for what follows it and its copy.
fn stay<T: Element>(
    param: &mut TensorMut<'_, T>,
    grad: &AnyRef<'_, T::Real>,
    mask: Option<&Mask>,
    follow: [Option<Following>; 2],
    slots: &mut [Option<&mut [T::Real]>; 2],
    copy: Option<&mut HalfMut<'_>>,
) {
    let follow = followers_of(follow, slots.each_mut().map(|slot| slot.as_deref_mut()), mask);
    if follow.iter().all(Option::is_none) && copy.is_none() {
        return;
    }
    let pass = Pass {
        param: T::any_mut(param.as_mut_slice()),
        grad: GradRef::plain(grad.as_slice()),
        state: [],
        keep: mask.map(|mask| (mask.bits(), [])),
        rounding: None,
        dither: Stream::new(DITHER, 0),
        follow,
        copy: copy.map(HalfMut::as_mut_slice),
    };
    rule::step(&Stay, pass);
}

/// The parameter stays.
#[derive(Clone, Copy)]
struct Stay;

impl<R: Real> Rule<R, 0> for Stay {
    #[inline(always)]
    fn update(&self, param: R, _: R, []: [R; 0]) -> (R, [R; 0]) {
        (param, [])
    }
}

/// The slices of a checked [`Step`], in logical order. Parameter and gradient are equally long; a slot
/// is as long as the [`Schema`](crate::Schema) says.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenStep<'a, T: Element, const N: usize, const M: usize> {
    /// The number of this step for this parameter, from 1.
    pub count: u64,
    /// The parameter's shape.
    pub shape: &'a [usize],
    /// The parameter.
    pub param: &'a mut [T],
    /// Its gradient.
    pub grad: GradRef<'a, T::Real>,
    /// The state, a slice a slot.
    pub slots: [&'a mut [T::Real]; N],
    /// Each slot's initial value, which pruned elements hold.
    pub initial: [T::Real; N],
    /// The state's scalars.
    pub scalars: &'a mut [f64; M],
    /// Room to work in, as much as the [`Schema`](crate::Schema) asked for.
    pub scratch: &'a mut [f32],
    /// What survives; the rest must be 0 afterwards.
    pub mask: Option<&'a Mask>,
    /// How the new parameter is to be rounded.
    pub rounding: Rounding,
}

impl<T: Element, const N: usize, const M: usize> OpenStep<'_, T, N, M> {
    /// Runs an element-wise rule over the parameter and its slots, which all have its shape; under the mask, if there
    /// is one. In parallel where that pays.
    ///
    /// # Panics
    /// When a slot has another length than the parameter.
    pub fn update<Q: Rule<T::Real, N>>(&mut self, rule: &Q) {
        let pass = Pass {
            param: T::any_mut(self.param),
            grad: self.grad,
            state: self.slots.each_mut().map(|slot| SlotMut::Any(AnySliceMut::Real(slot))),
            keep: self.mask.map(|mask| (mask.bits(), self.initial)),
            rounding: self.rounding.0,
            dither: Stream::new(DITHER, self.count),
            follow: [None, None],
            copy: None,
        };
        rule::step(rule, pass);
    }

    /// The L2 norm of what `f` makes of each parameter and its slots, in `f64`, without storing it. The same bits on any
    /// number of threads.
    ///
    /// # Panics
    /// When a slot has another length than the parameter.
    pub fn norm(&self, f: impl Fn(T::Real, [T::Real; N]) -> T::Real + Copy + Send + Sync) -> f64 {
        reduce::sum_of_squares(self.param, self.slots.each_ref().map(|slot| &**slot), f).sqrt()
    }
}
