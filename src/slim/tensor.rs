//! Named tensors, given and made.

use super::{rules::Source, topology::Graph};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{TensorRef, qtensor::check_finite, view::Dims},
};
use std::{
    borrow::{Borrow, Cow},
    collections::BTreeMap,
    ops::Range,
};

/// A tensor of its own: what slimming made.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<T>,
}

impl<T: Element> Tensor<T> {
    pub(super) fn new(shape: Vec<usize>, values: Vec<T>) -> Self {
        Self { shape, values }
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, in logical order.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The elements, without the shape.
    #[must_use]
    pub fn into_values(self) -> Vec<T> {
        self.values
    }

    /// To be read.
    #[must_use]
    pub fn view(&self) -> TensorRef<'_, T> {
        TensorRef::from_parts(Cow::Borrowed(&self.values), Dims::from_slice(&self.shape))
    }
}

/// Views of tensors by name, as slimming takes them.
#[must_use]
pub fn views<T: Element>(tensors: &BTreeMap<String, Tensor<T>>) -> BTreeMap<String, TensorRef<'_, T>> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.view())).collect()
}

/// The tensors of a model, in its order.
pub(super) struct Bound<'a, T: Element>(pub(super) Vec<&'a TensorRef<'a, T>>);

impl<'a, T: Element> Bound<'a, T> {
    /// # Errors
    /// When one is missing, of another shape, or not finite. Tensors that the model has not do not matter.
    pub(super) fn new<K: Borrow<str> + Ord>(graph: &Graph, weights: &'a BTreeMap<K, TensorRef<'a, T>>) -> Result<Self> {
        let find = |tensor: &super::topology::Shape| {
            let given = weights.get(tensor.name.as_str());
            let given = given.ok_or_else(|| Error::argument("tensor", "missing", "among those given"))?;
            if given.shape() != tensor.shape {
                return Err(Error::shape("tensor", &tensor.shape, given.shape()));
            }
            check_finite("tensor", given.as_slice())?;
            Ok(given)
        };
        let tensors = graph.tensors.iter().map(|tensor| find(tensor).map_err(|error| error.in_tensor(&tensor.name)));
        Ok(Self(tensors.collect::<Result<_>>()?))
    }
}

impl<T: Element> Source for Bound<'_, T> {
    fn read(&self, tensor: usize, range: Range<usize>, values: &mut Vec<f64>) {
        let run = self.0[tensor].as_slice().get(range).unwrap_or_default();
        values.extend(run.iter().map(|x| x.to_f64()));
    }

    fn is_zero(&self, tensor: usize, range: Range<usize>) -> bool {
        let run = self.0[tensor].as_slice().get(range).unwrap_or_default();
        run.iter().all(|x| x.to_f64() == 0.0)
    }

    fn values(&self, tensor: usize) -> Vec<f64> {
        let mut values = Vec::with_capacity(self.0[tensor].len());
        self.read(tensor, 0..self.0[tensor].len(), &mut values);
        values
    }
}
