//! Named parameters in groups, stepped by one call.

use super::{Norm, Outcome, StepOptions, Update};
use crate::{
    element::Element,
    error::{Error, ErrorKind, Result},
    kernel::{parallel, random::fmix64},
    tensor::{Mask, State, TensorMut, TensorRef, any::HalfMut, view::checked_volume},
    traits::{Optimizer, Step},
};

/// Parameters by name, each in a group with an optimizer of its own, each with its own state and count of steps.
///
/// One call of [`step`](Params::step) moves all, in parallel across many small parameters as well as inside large ones, and
/// moves none when one of them is refused. It does not allocate.
///
/// ```
/// use lapidary::optim::{AdamW, Params, Update};
/// let (mut w, mut b) = (vec![1.0f32; 6], vec![1.0f32; 2]);
/// let mut params = Params::new();
/// let decayed = params.group(AdamW::new(1e-3)?.with_weight_decay(0.1)?);
/// let plain = params.group(AdamW::new(1e-3)?.with_weight_decay(0.0)?);
/// // No decay on biases and norms:
/// params.add_all([("fc.weight", &[2, 3][..]), ("fc.bias", &[2])], |_, shape| if shape.len() < 2 { plain } else { decayed })?;
/// let (gw, gb) = (vec![0.1f32; 6], vec![0.1f32; 2]);
/// params.step(&mut [Update::shaped(&mut w, &gw, &[2, 3])?, Update::new(&mut b, &gb)])?;
/// params.set_learning_rate(decayed, 5e-4)?;
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Params<T: Element> {
    groups: Vec<Box<dyn Optimizer<T>>>,
    params: Vec<Param>,
    check_finite: bool,
    seed: Option<u64>,
}

/// A group of a [`Params`]: what [`Params::group`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId(usize);

#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) group: usize,
    pub(crate) state: State,
    pub(crate) mask: Option<Mask>,
    pub(crate) frozen: bool,
}

impl<T: Element> Params<T> {
    /// No groups, no parameters.
    #[must_use]
    pub fn new() -> Self {
        Self { groups: Vec::new(), params: Vec::new(), check_finite: false, seed: None }
    }

    /// Refuses a step when a gradient holds a NaN or an infinity: one more read of all gradients, 4 bytes of the 32 that Adam
    /// then moves for an `f32`. It costs nothing beside a [norm](StepOptions::clip_norm) or a [scaler](StepOptions::scaler),
    /// which read the gradients anyway.
    #[must_use]
    pub fn check_finite(self) -> Self {
        Self { check_finite: true, ..self }
    }

    /// Rounds parameters of 16 bits as [`Step::stochastic_rounding`], each by a seed of its own.
    #[must_use]
    pub fn stochastic_rounding(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Adds a group of parameters that share an optimizer and its hyper-parameters.
    pub fn group(&mut self, optimizer: impl Optimizer<T> + 'static) -> GroupId {
        self.groups.push(Box::new(optimizer));
        GroupId(self.groups.len() - 1)
    }

    /// Adds a parameter, with fresh state; also during training.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the name is taken, the group is another's, or the group's
    /// optimizer has no step for such a shape; and when memory does not hold the state.
    pub fn add(&mut self, name: &str, shape: &[usize], group: GroupId) -> Result<()> {
        if self.find(name).is_ok() {
            return Err(Error::argument("parameter name", format!("{name:?}"), "unique"));
        }
        let optimizer = self.optimizer(group)?;
        let state = optimizer.supports(shape).and_then(|()| {
            checked_volume(shape)?;
            State::new::<T::Real>(shape, optimizer.schema(shape))
        });
        let state = state.map_err(|error| error.in_tensor(name))?;
        self.params.push(Param { name: name.into(), group: group.0, state, mask: None, frozen: false });
        Ok(())
    }

    /// Adds parameters, each to the group that `choose` names by name and shape.
    ///
    /// # Errors
    /// As [`add`](Params::add), for the first that is refused; those before it are added.
    pub fn add_all<'n>(
        &mut self,
        params: impl IntoIterator<Item = (&'n str, &'n [usize])>,
        mut choose: impl FnMut(&str, &[usize]) -> GroupId,
    ) -> Result<()> {
        params.into_iter().try_for_each(|(name, shape)| {
            let group = choose(name, shape);
            self.add(name, shape, group)
        })
    }

    /// Stops or resumes that a parameter moves. Its state waits.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown name.
    pub fn freeze(&mut self, name: &str, frozen: bool) -> Result<()> {
        let at = self.find(name)?;
        self.params[at].frozen = frozen;
        Ok(())
    }

    /// Keeps a parameter's pruned weights at 0 from the next step on; `None` sets it free.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown name, [`Shape`](crate::ErrorKind::Shape) for a mask of
    /// another shape.
    pub fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        let at = self.find(name)?;
        if let Some(mask) = &mask {
            mask.check(self.params[at].state.shape()).map_err(|error| error.in_tensor(name))?;
        }
        self.params[at].mask = mask;
        Ok(())
    }

    /// The learning rate of a group.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for another's group.
    pub fn learning_rate(&self, group: GroupId) -> Result<f64> {
        Ok(self.optimizer(group)?.learning_rate())
    }

    /// Changes the learning rate of a group from the next step on.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for another's group, or a rate outside the optimizer's range.
    pub fn set_learning_rate(&mut self, group: GroupId, learning_rate: f64) -> Result<()> {
        self.optimizer(group)?;
        self.groups[group.0].set_learning_rate(learning_rate)
    }

    /// The names of the parameters, in the order they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(|param| param.name.as_str())
    }

    /// A parameter's state.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown name.
    pub fn state(&self, name: &str) -> Result<&State> {
        Ok(&self.params[self.find(name)?].state)
    }

    /// A parameter's state, to put numbers back.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown name.
    pub fn state_mut(&mut self, name: &str) -> Result<&mut State> {
        let at = self.find(name)?;
        Ok(&mut self.params[at].state)
    }

    /// All parameters' names and states, in the order they were added.
    pub fn states(&self) -> impl Iterator<Item = (&str, &State)> {
        self.params.iter().map(|param| (param.name.as_str(), &param.state))
    }

    /// Moves all parameters, one update each, in the order they were added. Frozen and skipped ones stay. Everything is
    /// checked first: an error names the parameter and leaves all of them, and all state, as they were.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many updates as parameters, or one has another shape;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) when [`check_finite`](Params::check_finite) finds one.
    pub fn step(&mut self, updates: &mut [Update<'_, T>]) -> Result<()> {
        self.step_with(updates, StepOptions::new()).map(|_| ())
    }

    /// As [`step`](Params::step), with what is to be done to all gradients as they are read.
    ///
    /// # Errors
    /// As [`step`](Params::step); with a [norm](StepOptions::clip_norm) also
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinity, but with a [scaler](StepOptions::scaler) the step is skipped then.
    pub fn step_with(&mut self, updates: &mut [Update<'_, T>], options: StepOptions<'_>) -> Result<Outcome> {
        if updates.len() != self.params.len() {
            return Err(Error::shape("list of updates", &[self.params.len()], &[updates.len()]));
        }
        for (param, update) in self.params.iter().zip(&*updates) {
            check(param, update).map_err(|error| error.in_tensor(&param.name))?;
        }
        let StepOptions { batches, max_norm, limit, scaler } = options;
        let scale = scaler.as_ref().map_or(1.0, |scaler| scaler.scale()) * f64::from(batches);
        let mut factor = 1.0 / scale;
        let mut outcome = Outcome { skipped: false, norm: None };
        if max_norm.is_some() || scaler.is_some() || self.check_finite {
            let (_, kind) = max_norm.unwrap_or_default();
            match norm(&self.params, updates, kind) {
                Ok(norm) => outcome.norm = Some(norm / scale),
                Err(error) => match scaler {
                    Some(scaler) if error.kind() == ErrorKind::NonFinite => {
                        scaler.update(true);
                        return Ok(Outcome { skipped: true, ..outcome });
                    }
                    _ => return Err(error),
                },
            }
        }
        if let (Some((max_norm, _)), Some(norm)) = (max_norm, outcome.norm) {
            factor *= (max_norm / (norm + 1e-6)).min(1.0);
        }
        run(&self.groups, &mut self.params, updates, Common { factor, limit, seed: self.seed, first: 0 })?;
        if let Some(scaler) = scaler {
            scaler.update(false);
        }
        Ok(outcome)
    }

    /// The parameter to evaluate the model with, in `out`: `param` itself, unless its optimizer averages.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for an unknown name; as [`Optimizer::evaluate`].
    pub fn evaluate<'a>(
        &self,
        name: &str,
        param: impl Into<TensorRef<'a, T>>,
        out: impl Into<TensorMut<'a, T>>,
    ) -> Result<()> {
        let Param { group, state, .. } = &self.params[self.find(name)?];
        self.groups[*group].evaluate(param.into(), state, out.into()).map_err(|error| error.in_tensor(name))
    }

    #[cfg(feature = "safetensors")]
    pub(crate) fn params(&self) -> &[Param] {
        &self.params
    }

    #[cfg(feature = "safetensors")]
    pub(crate) fn params_mut(&mut self) -> &mut [Param] {
        &mut self.params
    }

    /// The learning rates of the groups, in order.
    #[cfg(any(feature = "safetensors", feature = "candle"))]
    pub(crate) fn learning_rates(&self) -> impl Iterator<Item = f64> {
        self.groups.iter().map(|optimizer| optimizer.learning_rate())
    }

    /// Changes the learning rates of all groups, or, when one is refused, of none.
    #[cfg(any(feature = "safetensors", feature = "candle"))]
    pub(crate) fn set_learning_rates(&mut self, rates: &[f64]) -> Result<()> {
        let before: Vec<_> = self.learning_rates().collect();
        let mut set = |rates: &[f64]| {
            self.groups.iter_mut().zip(rates).try_for_each(|(optimizer, &rate)| optimizer.set_learning_rate(rate))
        };
        set(rates).inspect_err(|_| _ = set(&before))
    }

    fn optimizer(&self, group: GroupId) -> Result<&dyn Optimizer<T>> {
        let known = self.groups.get(group.0).map(|optimizer| &**optimizer);
        known.ok_or_else(|| Error::argument("group", format!("{group:?}"), "one of these parameters'"))
    }

    fn find(&self, name: &str) -> Result<usize> {
        let known = self.params.iter().position(|param| param.name == name);
        known.ok_or_else(|| Error::argument("parameter", format!("{name:?}"), "one that was added"))
    }
}

fn check<T: Element>(param: &Param, update: &Update<'_, T>) -> Result<()> {
    let shape = param.state.shape();
    if update.param.shape() != shape {
        return Err(Error::shape("parameter", shape, update.param.shape()));
    }
    if let Some(grad) = update.grad.as_ref().filter(|grad| grad.shape() != shape) {
        return Err(Error::shape("gradient", shape, grad.shape()));
    }
    match update.copy.as_ref().filter(|copy| copy.shape() != shape) {
        Some(copy) => Err(Error::shape("16-bit copy", shape, copy.shape())),
        None => Ok(()),
    }
}

/// The norm of all gradients that count: halves of the list on two threads while there is much to do. Where it is cut does not
/// depend on the threads.
fn norm<T: Element>(params: &[Param], updates: &[Update<'_, T>], kind: Norm) -> Result<f64> {
    if params.len() > 1 {
        let mid = params.len() / 2;
        let ((left, right), (left_updates, right_updates)) = (params.split_at(mid), updates.split_at(mid));
        let halves = (|| norm(left, left_updates, kind), || norm(right, right_updates, kind));
        let pays = parallel::pays(elements(updates));
        let (a, b) = if pays { parallel::join(halves.0, halves.1) } else { (halves.0(), halves.1()) };
        return Ok(kind.of_both(a?, b?));
    }
    let one = params.iter().zip(updates).find_map(|(param, update)| {
        let grad = update.grad.as_ref().filter(|_| !param.frozen)?;
        Some(kind.of_any(grad.as_slice()).map_err(|error| error.in_tensor(&param.name)))
    });
    one.unwrap_or(Ok(0.0))
}

fn elements<T: Element>(updates: &[Update<'_, T>]) -> usize {
    updates.iter().map(|update| update.param.len()).sum()
}

/// What all parameters of a step have in common.
#[derive(Clone, Copy)]
struct Common {
    factor: f64,
    limit: f64,
    seed: Option<u64>,
    /// The place of the first parameter in the whole list.
    first: u64,
}

/// Steps checked updates: halves of the list on two threads while there is much to do, then one after another.
fn run<T: Element>(
    groups: &[Box<dyn Optimizer<T>>],
    params: &mut [Param],
    updates: &mut [Update<'_, T>],
    common: Common,
) -> Result<()> {
    if params.len() > 1 && parallel::pays(elements(updates)) {
        let mid = params.len() / 2;
        let (left, right) = params.split_at_mut(mid);
        let (left_updates, right_updates) = updates.split_at_mut(mid);
        let right_common = Common { first: common.first + mid as u64, ..common };
        let (a, b) = parallel::join(
            || run(groups, left, left_updates, common),
            || run(groups, right, right_updates, right_common),
        );
        return a.and(b);
    }
    for (place, (param, update)) in (common.first..).zip(params.iter_mut().zip(updates)) {
        let Update { param: values, grad, copy } = update;
        let Some(grad) = grad.as_ref().filter(|_| !param.frozen) else { continue };
        let (state, mask, optimizer) = (&mut param.state, param.mask.as_ref(), &groups[param.group]);
        let moved = values.with(&mut |values| {
            let mut step = Step::of(values, grad.reborrow(), state)
                .scale_gradient(common.factor)
                .clip_value(common.limit)
                .copy_to(copy.as_mut().map(HalfMut::reborrow));
            if let Some(mask) = mask {
                step = step.mask(mask);
            }
            if let Some(seed) = common.seed {
                step = step.stochastic_rounding(fmix64(seed.wrapping_add(place)));
            }
            optimizer.step(step)
        });
        moved.map_err(|error| error.in_tensor(&param.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind, OptimizerExt,
        optim::{Adam, Sgd},
    };

    fn two() -> (Params<f32>, GroupId) {
        let mut params = Params::new().check_finite();
        let group = params.group(Adam::new(0.1).unwrap());
        params.add_all([("a", &[2][..]), ("b", &[3])], |_, _| group).unwrap();
        (params, group)
    }

    #[test]
    fn steps_are_those_of_each_alone_and_counts_are_each_ones_own() {
        let (mut params, _) = two();
        let (mut a, mut b) = ([1f32, 2.0], [1f32; 3]);
        let grads = ([0.5f32, -1.0], [1f32, 2.0, 3.0]);
        params.step(&mut [Update::new(&mut a, &grads.0), Update::skipped(&mut b)]).unwrap();
        params.step(&mut [Update::new(&mut a, &grads.0), Update::new(&mut b, &grads.1)]).unwrap();
        params.freeze("a", true).unwrap();
        let frozen = a;
        params.step(&mut [Update::new(&mut a, &grads.0), Update::new(&mut b, &grads.1)]).unwrap();
        assert_eq!((a, params.state("a").unwrap().steps(), params.state("b").unwrap().steps()), (frozen, 2, 2));
        let adam = Adam::new(0.1).unwrap();
        let mut alone = [1f32; 3];
        let mut state = adam.init(&alone).unwrap();
        (0..2).for_each(|_| adam.step(Step::new(&mut alone, &grads.1, &mut state)).unwrap());
        assert_eq!(b, alone);
    }

    #[test]
    fn a_nan_in_the_last_gradient_moves_nothing_anywhere() {
        let (mut params, group) = two();
        let (mut a, mut b) = ([1f32, 2.0], [1f32; 3]);
        let before = format!("{params:?}");
        let bad = [0.0, 0.0, f32::NAN];
        let error = params.step(&mut [Update::new(&mut a, &[1.0; 2]), Update::new(&mut b, &bad)]).unwrap_err();
        assert_eq!((error.kind(), error.tensor(), error.index()), (ErrorKind::NonFinite, Some("b"), Some(2)));
        assert!(params.step(&mut [Update::new(&mut a, &[1.0; 2])]).is_err());
        assert!(params.step(&mut [Update::new(&mut a, &[1.0; 3]), Update::new(&mut b, &[1.0; 3])]).is_err());
        assert_eq!((a, b, format!("{params:?}")), ([1.0, 2.0], [1.0; 3], before));
        assert!(params.add("a", &[1], group).is_err() && params.freeze("c", true).is_err());
        assert!(params.add("c", &[1], GroupId(7)).is_err() && params.set_learning_rate(group, -1.0).is_err());
        assert!(params.set_mask("a", Some(Mask::keep_all(&[3]).unwrap())).is_err());
    }

    #[test]
    fn groups_have_their_own_optimizer_and_masks_hold() {
        let mut params = Params::new();
        let slow = params.group(Sgd::new(0.5).unwrap());
        let fast = params.group(Sgd::new(1.0).unwrap());
        params.add("slow", &[2], slow).unwrap();
        params.add("fast", &[2], fast).unwrap();
        params.set_mask("fast", Some(Mask::from_fn(&[2], |i| i == 0).unwrap())).unwrap();
        let (mut s, mut f) = ([0f64; 2], [4f64; 2]);
        params.step(&mut [Update::new(&mut s, &[1.0; 2]), Update::new(&mut f, &[1.0; 2])]).unwrap();
        assert_eq!((s, f), ([-0.5; 2], [3.0, 0.0]));
        params.set_learning_rate(slow, 2.0).unwrap();
        assert_eq!((params.learning_rate(slow).unwrap(), params.learning_rate(fast).unwrap()), (2.0, 1.0));
        let mut out = [0f64; 2];
        params.evaluate("slow", &s, &mut out).unwrap();
        assert_eq!(out, s);
    }

    #[test]
    fn many_small_ones_in_parallel_are_the_serial_run() {
        let count = 500;
        let grad: Vec<f32> = (0..300).map(|i| (i as f32).sin()).collect();
        let run = || {
            let mut params = Params::new();
            let group = params.group(Adam::new(0.1).unwrap());
            (0..count).for_each(|i| params.add(&format!("p{i}"), &[300], group).unwrap());
            let mut data = vec![vec![1f32; 300]; count];
            let mut updates: Vec<_> = data.iter_mut().map(|p| Update::new(p, &grad)).collect();
            params.step(&mut updates).unwrap();
            drop(updates);
            data
        };
        let want = run();
        #[cfg(feature = "rayon")]
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(run), want);
        }
        assert_eq!(run(), want);
    }
}
