//! The contracts that this crate's optimizers, quantizers and pruners keep, open to other crates'.

mod step;

use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{Mask, QTensor, Schema, State, TensorMut, TensorRef},
};
use std::fmt::Debug;

pub(crate) use step::Following;
pub use step::{OpenStep, Step};

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
    /// [`Argument`](crate::ErrorKind::Argument) when there is [no step](Optimizer::supports) for such a shape, or memory does not
    /// hold a slot.
    fn init<'a>(&self, param: impl Into<TensorRef<'a, T>>) -> Result<State> {
        let param = param.into();
        self.supports(param.shape())?;
        State::new::<T::Real>(param.shape(), self.schema(param.shape()))
    }
}

impl<T: Element, O: Optimizer<T> + ?Sized> OptimizerExt<T> for O {}

/// Something beside tensors that a run needs to go on as if it had not stopped: a loss's scale, a rate that watches the loss.
/// A [checkpoint](crate::format) keeps its numbers by name.
pub trait Resume {
    /// All that changes from step to step.
    fn numbers(&self) -> Vec<(&'static str, f64)>;

    /// Puts back what [`numbers`](Resume::numbers) gave: `number` tells each by name.
    ///
    /// # Errors
    /// That of `number`; [`Argument`](crate::ErrorKind::Argument) for a number that is out of range. Nothing has changed then.
    fn resume(&mut self, number: &dyn Fn(&str) -> Result<f64>) -> Result<()>;
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

/// Says how much each element of a tensor matters. One that needs more than the values (gradients, inputs) holds or borrows it,
/// and is then a tensor's own.
pub trait Criterion<T: Element>: Debug + Send + Sync {
    /// Writes how much each element matters, in logical order: the lowest go first.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when `scores` has not as many elements as `values`, or what the criterion holds is of
    /// another shape.
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()>;

    /// Whether the scores are the magnitudes of the values: a selection then reads them where they are.
    fn is_magnitude(&self) -> bool {
        false
    }
}

impl<T: Element, C: Criterion<T> + ?Sized> Criterion<T> for &C {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        (**self).score(values, scores)
    }

    fn is_magnitude(&self) -> bool {
        (**self).is_magnitude()
    }
}

impl<T: Element, C: Criterion<T> + ?Sized> Criterion<T> for Box<C> {
    fn score(&self, values: TensorRef<'_, T>, scores: &mut [f64]) -> Result<()> {
        (**self).score(values, scores)
    }

    fn is_magnitude(&self) -> bool {
        (**self).is_magnitude()
    }
}

/// Says which elements of a tensor survive. This crate's select by the scores of a [`Criterion`].
pub trait Pruner<T: Element>: Debug + Send + Sync {
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
