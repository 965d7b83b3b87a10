//! Where channels come from and where nobody knows: inputs, tables, unknown operators.

use super::{At, Constants, Cut, Node, Reads, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link, Role},
};

/// An input of the model. Its channels stay, unless [freed](Input::freed).
#[derive(Debug, Clone)]
pub struct Input {
    shape: Vec<usize>,
    axis: usize,
    free: bool,
}

impl Input {
    /// Of this shape for one sample, with the channels on an axis.
    #[must_use]
    pub fn new(shape: &[usize], axis: usize) -> Self {
        Self { shape: shape.to_vec(), axis, free: false }
    }

    /// Its channels may go too: the caller will feed the kept ones.
    #[must_use]
    pub fn freed(self) -> Self {
        Self { free: true, ..self }
    }
}

impl Rule for Input {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        if !link.inputs().is_empty() {
            return Err(Error::argument("number of inputs", link.inputs().len(), "0"));
        }
        channels(link, &self.shape, self.axis, (!self.free).then_some("input of the model"))
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, _: &[Constants], masked: bool) -> Constants {
        // What is not fed is taken for 0.
        Constants::all(at.output(), masked.then_some(0.0))
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        Self { shape: cut.output_shape(), ..self.clone() }.into()
    }
}

/// New channels on an axis of a shape.
fn channels(link: &mut Link<'_>, shape: &[usize], axis: usize, frozen: Option<&str>) -> Result<Layout> {
    let Some(&count) = shape.get(axis) else {
        return Err(Error::argument("axis", axis, "one of the shape's"));
    };
    let atoms = match frozen {
        Some(reason) => link.fresh_frozen(count, reason)?,
        None => link.fresh(count)?,
    };
    Ok(Layout::new(shape.to_vec(), axis, atoms))
}

/// An operator of which nothing is known: all that it reads stays, and all that it gives.
#[derive(Debug, Clone)]
pub struct Opaque {
    shape: Vec<usize>,
    axis: usize,
    tensors: Vec<String>,
}

impl Opaque {
    /// With an output of this shape for one sample, with the channels on an axis.
    #[must_use]
    pub fn new(shape: &[usize], axis: usize) -> Self {
        Self { shape: shape.to_vec(), axis, tensors: Vec::new() }
    }

    /// That uses tensors, all of whose elements stay.
    #[must_use]
    pub fn with_tensors<N: Into<String>>(self, tensors: impl IntoIterator<Item = N>) -> Self {
        Self { tensors: tensors.into_iter().map(Into::into).collect(), ..self }
    }
}

impl Rule for Opaque {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        for input in link.inputs() {
            link.freeze(input.atoms(), "read by the unknown operator");
        }
        for tensor in &self.tensors {
            for (axis, &len) in link.shape(tensor)?.iter().enumerate() {
                let atoms = link.fresh_frozen(len, "of the unknown operator")?;
                link.axis(tensor, axis, &atoms, Role::Shifts)?;
            }
        }
        channels(link, &self.shape, self.axis, Some("made by the unknown operator"))
    }

    fn tensors(&self) -> Vec<&str> {
        self.tensors.iter().map(String::as_str).collect()
    }

    fn constants(&self, at: At<'_>, _: &dyn Source, _: &[Constants], _: bool) -> Constants {
        Constants::unknown(at.output())
    }

    fn reads(&self, at: At<'_>, _: &dyn Source, input: usize) -> Vec<Reads> {
        let reason = format!("read by the unknown operator `{}`", at.name());
        vec![Reads::Never(reason); at.input(input).atoms().len()]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

/// A table of vectors, of shape (entries, channels), looked up by each element of its input.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: String,
}

impl Embedding {
    /// By the name of its table.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        Self { table: table.into() }
    }
}

impl Rule for Embedding {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let input = link.input()?;
        link.freeze(input.atoms(), "indices read by");
        let shape = link.shape(&self.table)?;
        let [_, width] = shape[..] else {
            let found = format!("of shape {shape:?}");
            return Err(Error::argument("table", found, "of shape (entries, channels)").in_tensor(&self.table));
        };
        let atoms = link.fresh(width)?;
        link.axis(&self.table, 1, &atoms, Role::Produces)?;
        Ok(Layout::new([&input.shape[..], &[width]].concat(), input.shape.len(), atoms))
    }

    fn tensors(&self) -> Vec<&str> {
        vec![&self.table]
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, _: &[Constants], masked: bool) -> Constants {
        columns(at, weights, &self.table, 1, masked)
    }

    fn reads(&self, at: At<'_>, _: &dyn Source, _: usize) -> Vec<Reads> {
        vec![Reads::Never(format!("indices read by `{}`", at.name())); at.input(0).atoms().len()]
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

/// A tensor as a value: learned positions, a token that stands for a class.
#[derive(Debug, Clone)]
pub struct Parameter {
    tensor: String,
    axis: usize,
}

impl Parameter {
    /// By its name, with the channels on an axis.
    #[must_use]
    pub fn new(tensor: impl Into<String>, axis: usize) -> Self {
        Self { tensor: tensor.into(), axis }
    }
}

impl Rule for Parameter {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        if !link.inputs().is_empty() {
            return Err(Error::argument("number of inputs", link.inputs().len(), "0"));
        }
        let shape = link.shape(&self.tensor)?;
        let layout = channels(link, &shape, self.axis, None)?;
        link.axis(&self.tensor, self.axis, layout.atoms(), Role::Produces)?;
        Ok(layout)
    }

    fn tensors(&self) -> Vec<&str> {
        vec![&self.tensor]
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, _: &[Constants], masked: bool) -> Constants {
        columns(at, weights, &self.tensor, self.axis, masked)
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

/// 0 where all elements at an index of an axis are, or are to be.
fn columns(at: At<'_>, weights: &dyn Source, tensor: &str, axis: usize, masked: bool) -> Constants {
    let shape = at.shape(tensor);
    if masked {
        return Constants::all(at.output(), Some(0.0));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let mut zeros = vec![Some(0.0); shape[axis]];
    for (i, value) in at.values(weights, tensor).into_iter().enumerate() {
        if value != 0.0 {
            zeros[i / inner % shape[axis]] = None;
        }
    }
    Constants::new(at.output(), zeros)
}
