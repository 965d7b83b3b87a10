//! Dense layers, one after another, described by the caller.

use super::{
    importance::Importance,
    report::{LayerReport, SlimReport},
    topology::{Member, Role, Topology},
};
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{
        TensorRef,
        qtensor::check_finite,
        view::{Dims, volume},
    },
};

/// The name of the group of a chain's inputs.
pub const INPUTS: &str = "inputs";

/// What a layer does with its sums, element by element.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `tanh(x)`
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x * Φ(x)`, with the normal distribution's `Φ`.
    Gelu,
    /// `x / (1 + exp(-x))`
    Silu,
}

impl Activation {
    /// The function's value, in `f64`.
    #[must_use]
    pub fn at(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            Self::Relu => x.max(0.0),
            Self::Tanh => libm::tanh(x),
            Self::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
            Self::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::Silu => x / (1.0 + libm::exp(-x)),
        }
    }
}

/// A dense layer: `y = activation(W x + b)`, with `W` of shape (outputs, inputs).
#[derive(Debug, Clone, PartialEq)]
pub struct Dense<T> {
    name: String,
    inputs: usize,
    outputs: usize,
    weight: Vec<T>,
    bias: Option<Vec<T>>,
    activation: Activation,
}

impl<T: Element> Dense<T> {
    /// A layer from its weights, of shape (outputs, inputs), and its bias.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless the weights have two axes;
    /// [`Shape`](crate::ErrorKind::Shape) unless the bias has as many elements as there are outputs; [`Empty`](crate::ErrorKind::Empty) for a layer without inputs or outputs;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity. The error names the layer.
    pub fn new<'a>(
        name: impl Into<String>,
        weight: impl Into<TensorRef<'a, T>>,
        bias: Option<&[T]>,
        activation: Activation,
    ) -> Result<Self> {
        let (name, weight) = (name.into(), weight.into());
        let [outputs, inputs] = *weight.shape() else {
            let found = format!("of shape {:?}", weight.shape());
            return Err(Error::argument("layer's weight", found, "of shape (outputs, inputs)").in_tensor(&name));
        };
        let layer = Self {
            inputs,
            outputs,
            weight: weight.as_slice().to_vec(),
            bias: bias.map(<[T]>::to_vec),
            activation,
            name,
        };
        layer.check().map_err(|error| error.in_tensor(&layer.name))?;
        Ok(layer)
    }

    fn check(&self) -> Result<()> {
        if self.weight.is_empty() {
            return Err(Error::empty("layer"));
        }
        check_finite("weights", &self.weight)?;
        match &self.bias {
            Some(bias) if bias.len() != self.outputs => Err(Error::shape("bias", &[self.outputs], &[bias.len()])),
            Some(bias) => check_finite("bias", bias),
            None => Ok(()),
        }
    }

    /// The layer's name. Its tensors are `NAME.weight` and `NAME.bias`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length of the vectors it takes.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of the vectors it gives.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights, in logical order.
    #[must_use]
    pub fn weight(&self) -> &[T] {
        &self.weight
    }

    /// The weights as a tensor of shape (outputs, inputs).
    #[must_use]
    pub fn weight_tensor(&self) -> TensorRef<'_, T> {
        TensorRef::from_parts(std::borrow::Cow::Borrowed(&self.weight), Dims::from_slice(&[self.outputs, self.inputs]))
    }

    /// The bias, if there is one.
    #[must_use]
    pub fn bias(&self) -> Option<&[T]> {
        self.bias.as_deref()
    }

    /// What follows the sums.
    #[must_use]
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// How many numbers it has.
    #[must_use]
    pub fn params(&self) -> usize {
        self.weight.len() + self.bias.as_ref().map_or(0, Vec::len)
    }

    /// A layer of these tensors with this one's name and activation.
    pub(super) fn with(&self, inputs: usize, outputs: usize, weight: Vec<T>, bias: Option<Vec<T>>) -> Self {
        debug_assert_eq!(volume(&[inputs, outputs]), Some(weight.len()));
        Self { name: self.name.clone(), inputs, outputs, weight, bias, activation: self.activation }
    }

    /// How far the layer is from doing nothing: `‖(W - I, b)‖ / sqrt(width)`; infinite where it cannot
    /// do nothing, its widths being unequal or its activation changing what comes in.
    fn importance(&self, before: Option<Activation>) -> f64 {
        let harmless = match self.activation {
            Activation::Identity => true,
            Activation::Relu => before == Some(Activation::Relu),
            _ => false,
        };
        if self.inputs != self.outputs || !harmless {
            return f64::INFINITY;
        }
        let weights = self.weight.iter().enumerate().map(|(i, w)| {
            let diagonal = i / self.inputs == i % self.inputs;
            w.to_f64() - f64::from(u8::from(diagonal))
        });
        let biases = self.bias.iter().flatten().map(|b| b.to_f64());
        let squares: f64 = weights.chain(biases).map(|x| x * x).sum();
        (squares / self.inputs as f64).sqrt()
    }
}

/// Dense layers, one after another. [`topology`](Chain::topology), [`importance`](Chain::importance), a
/// [`Plan`](super::Plan), [`slim`](Chain::slim): then it is smaller.
///
/// ```
/// use lapidary::{TensorRef, slim::{Activation, Chain, Dense, Keep, Plan}};
/// // Unit 1 of the hidden layer has no incoming weights: it is the constant relu(0.5).
/// let (w1, b1) = ([1.0f32, 2.0, 0.0, 0.0, -1.0, 1.0], [0.0f32, 0.5, 0.25]);
/// let w2 = [1.0f32, 4.0, 2.0];
/// let chain = Chain::new(vec![
///     Dense::new("fc1", TensorRef::new(&w1, &[3, 2])?, Some(&b1), Activation::Relu)?,
///     Dense::new("fc2", TensorRef::new(&w2, &[1, 3])?, None, Activation::Identity)?,
/// ])?;
/// let plan = Plan::new(&chain.topology()?, &chain.importance()?, Keep::Above(0.0))?;
/// let (slim, report) = chain.slim(&plan)?;
/// assert_eq!(slim.layers()[1].weight(), [1.0, 2.0]);
/// assert_eq!(slim.layers()[1].bias(), Some(&[2.0][..])); // 4 * relu(0.5), folded
/// assert_eq!((report.params_before, report.params_after), (12, 9));
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Chain<T> {
    layers: Vec<Dense<T>>,
}

impl<T: Element> Chain<T> {
    /// A chain of layers, in order.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) without layers; [`Shape`](crate::ErrorKind::Shape) when a layer does not take
    /// what the one before gives; [`Argument`](crate::ErrorKind::Argument) when two have one name, or one is called
    /// [`INPUTS`].
    pub fn new(layers: Vec<Dense<T>>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::empty("chain of layers"));
        }
        for (i, layer) in layers.iter().enumerate() {
            if layer.name == INPUTS || layers[..i].iter().any(|other| other.name == layer.name) {
                return Err(Error::argument("layer name", format!("{:?}", layer.name), "unique, and not \"inputs\""));
            }
        }
        for pair in layers.windows(2) {
            if pair[0].outputs != pair[1].inputs {
                let error =
                    Error::shape("layer", &[pair[1].outputs, pair[0].outputs], &[pair[1].outputs, pair[1].inputs]);
                return Err(error.in_tensor(&pair[1].name));
            }
        }
        Ok(Self { layers })
    }

    /// The layers, in order.
    #[must_use]
    pub fn layers(&self) -> &[Dense<T>] {
        &self.layers
    }

    /// How many numbers all layers have.
    #[must_use]
    pub fn params(&self) -> usize {
        self.layers.iter().map(Dense::params).sum()
    }

    /// The outputs for one input, computed in `f64` and rounded once a layer.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there are not as many inputs as the first layer takes.
    pub fn forward(&self, inputs: &[T]) -> Result<Vec<T>> {
        if inputs.len() != self.layers[0].inputs {
            return Err(Error::shape("inputs", &[self.layers[0].inputs], &[inputs.len()]));
        }
        let pass = |x: Vec<T>, layer: &Dense<T>| {
            let output = |(i, row): (usize, &[T])| {
                let bias = layer.bias.as_ref().map_or(0.0, |bias| bias[i].to_f64());
                let sum: f64 = row.iter().zip(&x).map(|(w, x)| w.to_f64() * x.to_f64()).sum();
                T::from_f64(layer.activation.at(bias + sum))
            };
            layer.weight.chunks_exact(layer.inputs).enumerate().map(output).collect()
        };
        Ok(self.layers.iter().fold(inputs.to_vec(), pass))
    }

    /// Multiplications of one pass for one input.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.layers.iter().map(|layer| layer.weight.len()).sum()
    }

    /// The groups of channels: the inputs ([`INPUTS`], frozen), then the outputs of each layer by its
    /// name, the last frozen.
    ///
    /// # Errors
    /// None in a chain that [`new`](Chain::new) made.
    pub fn topology(&self) -> Result<Topology> {
        let weight = |layer: &Dense<T>| format!("{}.weight", layer.name);
        let first = &self.layers[0];
        let mut topology =
            Topology::new().group(INPUTS, first.inputs, vec![Member::new(weight(first), 1, Role::Consumes)])?;
        for (i, layer) in self.layers.iter().enumerate() {
            let mut members = vec![Member::new(weight(layer), 0, Role::Produces)];
            if layer.bias.is_some() {
                members.push(Member::new(format!("{}.bias", layer.name), 0, Role::Shifts));
            }
            if let Some(next) = self.layers.get(i + 1) {
                members.push(Member::new(weight(next), 1, Role::Consumes));
            }
            topology = topology.group(&layer.name, layer.outputs, members)?;
        }
        let last = &self.layers[self.layers.len() - 1];
        topology.freeze(INPUTS, "inputs of the model")?.freeze(&last.name, "outputs of the model")
    }

    /// The importance of each unit by its incoming and outgoing weights: [`Importance::of`] this chain.
    ///
    /// # Errors
    /// None in a chain that [`new`](Chain::new) made.
    pub fn importance(&self) -> Result<Importance> {
        let names: Vec<_> = self.layers.iter().map(|layer| format!("{}.weight", layer.name)).collect();
        let tensors = names.iter().zip(&self.layers).map(|(name, layer)| Ok((name.as_str(), layer.weight_tensor())));
        Importance::of(&self.topology()?, &tensors.collect::<Result<Vec<_>>>()?)
    }

    /// How much each layer matters: `‖(W - I, b)‖ / sqrt(width)`, its distance from doing nothing; infinite for one whose
    /// widths are unequal, or whose activation would change what comes in (a ReLU after a ReLU would not).
    #[must_use]
    pub fn layer_importance(&self) -> Vec<f64> {
        let mut before = None;
        let layers = self.layers.iter();
        layers.map(|layer| layer.importance(before.replace(layer.activation))).collect()
    }

    /// The chain without the layers whose [importance](Chain::layer_importance) is not above a threshold. One layer always
    /// stays. At 0, only layers that do nothing go, and nothing changes.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a NaN threshold.
    pub fn drop_layers(&self, threshold: f64) -> Result<(Self, SlimReport)> {
        if threshold.is_nan() {
            return Err(Error::argument("threshold", threshold, "a number"));
        }
        let (mut stay, mut layers) = (Vec::new(), Vec::new());
        for (i, (layer, importance)) in self.layers.iter().zip(self.layer_importance()).enumerate() {
            let only_one = stay.is_empty() && i + 1 == self.layers.len();
            let dropped = importance.is_finite() && importance <= threshold && !only_one;
            layers.push(LayerReport { name: layer.name.clone(), importance, dropped });
            if !dropped {
                stay.push(layer.clone());
            }
        }
        let slim = Self { layers: stay };
        let report = SlimReport::new(self, &slim, layers, Vec::new());
        Ok((slim, report))
    }

    pub(super) fn from_layers(layers: Vec<Dense<T>>) -> Self {
        Self { layers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn dense(
        name: &str,
        shape: [usize; 2],
        weight: &[f64],
        bias: Option<&[f64]>,
        activation: Activation,
    ) -> Dense<f64> {
        Dense::new(name, TensorRef::new(weight, &shape).unwrap(), bias, activation).unwrap()
    }

    #[test]
    fn layers_that_do_nothing_can_go() {
        let eye = [1.0, 0.0, 0.0, 1.0];
        let near = [1.0, 0.0, 0.1, 1.0];
        let wide = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let chain = Chain::new(vec![
            dense("a", [2, 3], &wide, None, Activation::Relu),
            dense("b", [2, 2], &eye, Some(&[0.0, 0.0]), Activation::Relu),
            dense("c", [2, 2], &near, None, Activation::Identity),
            dense("d", [2, 2], &eye, None, Activation::Relu), // after Identity, it may change something
        ])
        .unwrap();
        let importance = chain.layer_importance();
        assert_eq!((importance[0], importance[1], importance[3]), (f64::INFINITY, 0.0, f64::INFINITY));
        assert!((importance[2] - 0.1 / 2f64.sqrt()).abs() < 1e-12);
        let names = |(slim, report): (Chain<f64>, SlimReport)| {
            assert_eq!((report.params_before, report.params_after), (chain.params(), slim.params()));
            let gone = report.layers.iter().filter(|layer| layer.dropped).map(|layer| layer.name.as_str());
            (slim.layers().len(), gone.collect::<Vec<_>>().join(" "))
        };
        assert!(chain.drop_layers(0.0).unwrap().1.is_exact() && !chain.drop_layers(0.1).unwrap().1.is_exact());
        assert_eq!(names(chain.drop_layers(0.0).unwrap()), (3, "b".into()));
        assert_eq!(names(chain.drop_layers(0.1).unwrap()), (2, "b c".into()));
        assert_eq!(names(chain.drop_layers(f64::INFINITY).unwrap()), (2, "b c".into()));
        assert_eq!(names(chain.drop_layers(-1.0).unwrap()), (4, String::new()));
        assert!(chain.drop_layers(f64::NAN).is_err());
        let only = Chain::new(vec![dense("e", [2, 2], &eye, None, Activation::Identity)]).unwrap();
        assert_eq!(only.drop_layers(1.0).unwrap().0, only);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let new = |weight: &[f64], shape: &[usize], bias: Option<&[f64]>| {
            Dense::new("fc", TensorRef::new(weight, shape).unwrap(), bias, Activation::Relu).map_err(|e| e.kind())
        };
        assert_eq!(new(&[1.0, 2.0], &[2], None).unwrap_err(), ErrorKind::Argument);
        assert_eq!(new(&[1.0, 2.0], &[2, 1], Some(&[1.0])).unwrap_err(), ErrorKind::Shape);
        assert_eq!(new(&[1.0, f64::NAN], &[2, 1], None).unwrap_err(), ErrorKind::NonFinite);
        assert_eq!(new(&[1.0], &[1, 1], Some(&[f64::INFINITY])).unwrap_err(), ErrorKind::NonFinite);
        assert_eq!(new(&[], &[0, 3], None).unwrap_err(), ErrorKind::Empty);
        let layer = |name| dense(name, [1, 2], &[1.0, 2.0], None, Activation::Tanh);
        assert_eq!(Chain::new(vec![layer("a"), layer("b")]).unwrap_err().kind(), ErrorKind::Shape);
        assert!(Chain::<f64>::new(vec![]).is_err());
        let square = |name| dense(name, [1, 1], &[1.0], None, Activation::Sigmoid);
        assert_eq!(Chain::new(vec![square("a"), square("a")]).unwrap_err().kind(), ErrorKind::Argument);
        assert!(Chain::new(vec![square("inputs")]).is_err());
    }
}
