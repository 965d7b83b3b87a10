//! The contracts that this crate's optimizers, quantizers and pruners keep, open to other crates'.

use crate::{
    element::Element,
    error::{Error, Result},
    kernel::{
        reduce,
        rule::{self, Rule},
    },
    tensor::{Mask, QTensor, Schema, State, TensorMut, TensorRef, qtensor::check_finite, state::OpenState},
};
use std::fmt::Debug;

/// What every optimizer has, whatever the type of the parameters: a learning rate, which a schedule may change.
pub trait LearningRate {
    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64;

    /// Changes the learning rate from the next step on.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38; the old one stays.
    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()>;
}

/// An update rule with its hyper-parameters. It holds no state: one optimizer serves any number of
/// parameters, each with its own [`State`].
///
/// An optimizer whose update is element-wise implements [`step`](Optimizer::step) by
/// [`Step::elementwise`]; any other by [`Step::open`].
pub trait Optimizer<T: Element>: LearningRate + Debug + Send + Sync {
    /// What it remembers of a parameter of this shape.
    fn schema(&self, shape: &[usize]) -> Schema;

    /// Whether there is a step for parameters of this shape.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when there is none, and why.
    fn supports(&self, _shape: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Moves one parameter by its gradient. Everything is checked first; an error leaves parameter
    /// and state as they were. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when gradient, state or mask have another shape than the parameter;
    /// [`State`](crate::ErrorKind::State) when the state is another optimizer's;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) when [`Step::check_finite`] was asked and finds one.
    fn step(&self, step: Step<'_, T>) -> Result<()>;

    /// The parameter to evaluate the model with, in `out`: `param` itself, unless the optimizer averages.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; [`State`](crate::ErrorKind::State) when the state is
    /// another optimizer's.
    fn evaluate(&self, param: TensorRef<'_, T>, _state: &State, mut out: TensorMut<'_, T>) -> Result<()> {
        if param.shape() != out.shape() {
            return Err(Error::shape("tensor to write to", param.shape(), out.shape()));
        }
        out.as_mut_slice().copy_from_slice(param.as_slice());
        Ok(())
    }
}

impl<O: LearningRate + ?Sized> LearningRate for Box<O> {
    fn learning_rate(&self) -> f64 {
        (**self).learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        (**self).set_learning_rate(learning_rate)
    }
}

impl<T: Element, O: Optimizer<T> + ?Sized> Optimizer<T> for Box<O> {
    fn schema(&self, shape: &[usize]) -> Schema {
        (**self).schema(shape)
    }

    fn supports(&self, shape: &[usize]) -> Result<()> {
        (**self).supports(shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        (**self).step(step)
    }

    fn evaluate(&self, param: TensorRef<'_, T>, state: &State, out: TensorMut<'_, T>) -> Result<()> {
        (**self).evaluate(param, state, out)
    }
}

/// What can be asked of every [`Optimizer`].
pub trait OptimizerExt<T: Element>: Optimizer<T> {
    /// Fresh state for a parameter of the shape of `param`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold a slot.
    fn init<'a>(&self, param: impl Into<TensorRef<'a, T>>) -> Result<State> {
        let param = param.into();
        State::new::<T::Real>(param.shape(), self.schema(param.shape()))
    }
}

impl<T: Element, O: Optimizer<T> + ?Sized> OptimizerExt<T> for O {}

/// One step's material: the parameter, its gradient and its state; a mask and a finite check if wanted.
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
#[derive(Debug)]
#[must_use = "hand it to an optimizer's `step`"]
pub struct Step<'a, T: Element> {
    param: TensorMut<'a, T>,
    grad: TensorRef<'a, T>,
    state: &'a mut State,
    mask: Option<&'a Mask>,
    check_finite: bool,
}

impl<'a, T: Element> Step<'a, T> {
    /// A step of `param` by `grad`, which has the same shape.
    pub fn new(param: impl Into<TensorMut<'a, T>>, grad: impl Into<TensorRef<'a, T>>, state: &'a mut State) -> Self {
        Self { param: param.into(), grad: grad.into(), state, mask: None, check_finite: false }
    }

    /// Keeps pruned weights at 0 and their state at its initial value.
    pub fn mask(mut self, mask: &'a Mask) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Refuses a gradient that holds a NaN or an infinity, also where a mask prunes: one more read of it.
    pub fn check_finite(mut self) -> Self {
        self.check_finite = true;
        self
    }

    /// The parameter's shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.param.shape()
    }

    /// For implementers: checks everything, counts the step and runs an element-wise rule with the
    /// state slots `slots`. `rule` is given the number of this step, from 1.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
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
    /// As [`Optimizer::step`].
    pub fn elementwise_with<Q: Rule<T::Real, N>, const N: usize, const M: usize>(
        mut self,
        slots: [&str; N],
        scalars: [&str; M],
        rule: impl FnOnce(u64, &mut [f64; M]) -> Q,
    ) -> Result<()> {
        let shape = self.param.shape();
        let other = self.state.slots().iter().find(|slot| slot.shape() != self.state.shape());
        if let (Some(slot), true) = (other, self.state.shape() == shape) {
            let reason = format!("slot {:?} has shape {:?}, expected {shape:?}", slot.name(), slot.shape());
            return Err(Error::state(reason));
        }
        let OpenStep { count, param, grad, slots, initial, scalars, mask, .. } = self.open(slots, scalars)?;
        rule::step(&rule(count, scalars), param, grad, slots, mask.map(|mask| (mask.bits(), initial)));
        Ok(())
    }

    /// For implementers of updates that are not element-wise: checks everything, counts the step
    /// and gives what to work on. The update itself must not fail any more.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn open<const N: usize, const M: usize>(
        &mut self,
        slots: [&str; N],
        scalars: [&str; M],
    ) -> Result<OpenStep<'_, T, N, M>> {
        let shape = self.param.shape();
        if self.grad.shape() != shape {
            return Err(Error::shape("gradient", shape, self.grad.shape()));
        }
        if let Some(mask) = self.mask {
            mask.check(shape)?;
        }
        if self.check_finite {
            check_finite("gradient", self.grad.as_slice())?;
        }
        let OpenState { steps, slots, scalars, scratch } = self.state.open(shape, slots, scalars)?;
        *steps += 1;
        let initial = slots.each_ref().map(|slot| slot.initial);
        let slots = slots.map(|slot| slot.values);
        let (shape, param) = self.param.parts_mut();
        Ok(OpenStep {
            count: *steps,
            shape,
            param,
            grad: self.grad.as_slice(),
            slots,
            initial,
            scalars,
            scratch,
            mask: self.mask,
        })
    }
}

/// The slices of a checked [`Step`], in logical order. Parameter and gradient are equally long; a slot
/// is as long as the [`Schema`] says.
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
    pub grad: &'a [T],
    /// The state, a slice a slot.
    pub slots: [&'a mut [T::Real]; N],
    /// Each slot's initial value, which pruned elements hold.
    pub initial: [T::Real; N],
    /// The state's scalars.
    pub scalars: &'a mut [f64; M],
    /// Room to work in, as much as the [`Schema`] asked for.
    pub scratch: &'a mut [f32],
    /// What survives; the rest must be 0 afterwards.
    pub mask: Option<&'a Mask>,
}

impl<T: Element, const N: usize, const M: usize> OpenStep<'_, T, N, M> {
    /// Runs an element-wise rule over the parameter and its slots, which all have its shape; under the mask, if there
    /// is one. In parallel where that pays.
    ///
    /// # Panics
    /// When a slot has another length than the parameter.
    pub fn update<Q: Rule<T::Real, N>>(&mut self, rule: &Q) {
        let slots = self.slots.each_mut().map(|slot| &mut **slot);
        rule::step(rule, self.param, self.grad, slots, self.mask.map(|mask| (mask.bits(), self.initial)));
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

/// Turns numbers into codes of few bits and back.
pub trait Quantizer<T: Element>: Debug + Send + Sync {
    /// A tensor of the given shape with this quantizer's layout, its codes and levels yet to be filled.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) for a shape without elements,
    /// [`Argument`](crate::ErrorKind::Argument) for one that has not the axis the quantizer works along.
    fn layout(&self, shape: &[usize]) -> Result<QTensor>;

    /// Fits the levels in `q` to `values`; the codes stay. This crate's do not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when `q` was laid out for another shape,
    /// [`Argument`](crate::ErrorKind::Argument) when by another quantizer or for another element type,
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or infinity. `q` is then as it was.
    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()>;

    /// Sets the codes in `q` to those of its levels nearest to `values`; the levels stay. This crate's do not allocate.
    ///
    /// # Errors
    /// As [`fit`](Quantizer::fit).
    fn encode(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()>;

    /// [`fit`](Quantizer::fit), then [`encode`](Quantizer::encode). This crate's do not allocate.
    ///
    /// # Errors
    /// As [`fit`](Quantizer::fit).
    fn quantize_into(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.fit(TensorRef::from(&values), q)?;
        self.encode(values, q)
    }

    /// The values of the codes in `q`. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ.
    fn decode(&self, q: &QTensor, values: TensorMut<'_, T>) -> Result<()> {
        q.dequantize_into(values)
    }
}

/// What can be asked of every [`Quantizer`].
pub trait QuantizerExt<T: Element>: Quantizer<T> {
    /// A new quantized tensor of `values`.
    ///
    /// # Errors
    /// As [`Quantizer::layout`] and [`Quantizer::fit`].
    fn quantize<'a>(&self, values: impl Into<TensorRef<'a, T>>) -> Result<QTensor> {
        let values = values.into();
        let mut q = self.layout(values.shape())?;
        self.quantize_into(values, &mut q)?;
        Ok(q)
    }
}

impl<T: Element, Q: Quantizer<T> + ?Sized> QuantizerExt<T> for Q {}

/// Says what of a tensor matters, and what survives.
pub trait Pruner<T: Element>: Debug + Send + Sync {
    /// How much each element matters, in logical order: the lowest go first.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when `scores` has not as many elements as `values`.
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [T::Real]) -> Result<()>;

    /// Prunes further: of the elements `mask` keeps, those that do not survive are dropped from it.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ; [`NonFinite`](crate::ErrorKind::NonFinite)
    /// when the score of a kept element is NaN. `mask` is then as it was.
    fn refine(&self, values: TensorRef<'_, T>, mask: &mut Mask) -> Result<()>;
}

/// What can be asked of every [`Pruner`].
pub trait PrunerExt<T: Element>: Pruner<T> {
    /// The mask of what survives of `values`.
    ///
    /// # Errors
    /// As [`Pruner::refine`].
    fn mask<'a>(&self, values: impl Into<TensorRef<'a, T>>) -> Result<Mask> {
        let values = values.into();
        let mut mask = Mask::keep_all(values.shape())?;
        self.refine(values, &mut mask)?;
        Ok(mask)
    }
}

impl<T: Element, P: Pruner<T> + ?Sized> PrunerExt<T> for P {}
