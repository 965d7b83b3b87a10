//! What is done element by element.

use super::{At, Constants, Cut, Node, Rule, Source};
use crate::{
    error::{Error, Result},
    slim::topology::{Layout, Link, Role},
};

/// A function of each element. As a node, it makes another constant of a constant channel.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// Nothing: also what dropout is when a model is used.
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` where it is positive, else the slope times it.
    LeakyRelu(f64),
    /// `x` where it is positive, else `alpha (exp(x) - 1)`.
    Elu(f64),
    /// `tanh(x)`
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x * Φ(x)`, with the normal distribution's `Φ`.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / π) (x + 0.044715 x³)))`
    GeluTanh,
    /// `x / (1 + exp(-x))`
    Silu,
    /// `min(max(x / 6 + 1/2, 0), 1)`
    HardSigmoid,
    /// `x` times [`HardSigmoid`](Activation::HardSigmoid).
    HardSwish,
    /// `ln(1 + exp(x))`
    Softplus,
    /// `min(max(x, low), high)`
    Clip {
        /// The least value.
        low: f64,
        /// The largest value.
        high: f64,
    },
    /// The error function.
    Erf,
    /// `exp(x)`
    Exp,
    /// `x` to a power: 1/2 is the square root, -1 the reciprocal. No number where it is none.
    Power(f64),
    /// `scale * x + shift`
    Affine {
        /// The factor.
        scale: f64,
        /// What is added.
        shift: f64,
    },
}

impl Activation {
    /// The function's value, in `f64`.
    #[must_use]
    pub fn at(self, x: f64) -> f64 {
        let hard_sigmoid = (x / 6.0 + 0.5).clamp(0.0, 1.0);
        match self {
            Self::Identity => x,
            Self::Relu => x.max(0.0),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::LeakyRelu(slope) => {
                if x > 0.0 {
                    x
                } else {
                    slope * x
                }
            }
            Self::Elu(alpha) => {
                if x > 0.0 {
                    x
                } else {
                    alpha * libm::expm1(x)
                }
            }
            Self::Tanh => libm::tanh(x),
            Self::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
            Self::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + libm::tanh(inner))
            }
            Self::Silu => x / (1.0 + libm::exp(-x)),
            Self::HardSigmoid => hard_sigmoid,
            Self::HardSwish => x * hard_sigmoid,
            Self::Softplus => x.max(0.0) + libm::log1p(libm::exp(-x.abs())),
            Self::Clip { low, high } => x.max(low).min(high),
            Self::Erf => libm::erf(x),
            Self::Exp => libm::exp(x),
            Self::Power(exponent) => libm::pow(x, exponent),
            Self::Affine { scale, shift } => scale * x + shift,
        }
    }
}

impl Rule for Activation {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let (Self::LeakyRelu(number) | Self::Elu(number)) = self else { return Ok(link.input()?.clone()) };
        if !number.is_finite() {
            return Err(Error::argument("slope", number, "finite"));
        }
        Ok(link.input()?.clone())
    }

    fn constants(&self, _: At<'_>, _: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        inputs[0].map(|x| self.at(x))
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

/// `x` where it is positive, else a slope times it: one slope a channel of the first axis, or one for all.
#[derive(Debug, Clone)]
pub struct PRelu {
    slope: String,
}

impl PRelu {
    /// By the name of its slopes.
    #[must_use]
    pub fn new(slope: impl Into<String>) -> Self {
        Self { slope: slope.into() }
    }
}

impl Rule for PRelu {
    fn link(&self, link: &mut Link<'_>) -> Result<Layout> {
        let input = link.input()?;
        if link.shape(&self.slope)? != [1] {
            let count = input.shape.first().copied().unwrap_or(1);
            link.vector(&self.slope, count)?;
            match input.along(0) {
                Some(atoms) => link.axis(&self.slope, 0, atoms, Role::Shifts)?,
                None => link.freeze(input.atoms(), "on another axis than that of"),
            }
        }
        Ok(input.clone())
    }

    fn tensors(&self) -> Vec<&str> {
        vec![&self.slope]
    }

    fn constants(&self, at: At<'_>, weights: &dyn Source, inputs: &[Constants], _: bool) -> Constants {
        let slopes = at.values(weights, &self.slope);
        if slopes.len() > 1 && at.input(0).axis() != Some(0) {
            return Constants::unknown(at.output());
        }
        let given = inputs[0].per_channel(at.input(0));
        let at_slope = |(i, c): (usize, Option<f64>)| {
            let slope = slopes.get(if slopes.len() == 1 { 0 } else { i })?;
            Some(Activation::LeakyRelu(*slope).at(c?))
        };
        Constants::new(at.output(), given.into_iter().enumerate().map(at_slope).collect())
    }

    fn slim(&self, cut: Cut<'_>) -> Node {
        cut.same()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_their_values() {
        let near = |f: Activation, x: f64, y: f64| assert!((f.at(x) - y).abs() < 1e-12, "{f:?} {}", f.at(x));
        near(Activation::Relu6, 7.0, 6.0);
        near(Activation::LeakyRelu(0.1), -2.0, -0.2);
        near(Activation::Elu(2.0), -1.0, 2.0 * ((-1f64).exp() - 1.0));
        near(Activation::Gelu, 1.0, 0.841_344_746_068_542_9);
        near(Activation::GeluTanh, 1.0, 0.841_191_990_608_302_7);
        near(Activation::Silu, 1.0, 1.0 / (1.0 + (-1f64).exp()));
        near(Activation::HardSwish, 1.0, 2.0 / 3.0);
        near(Activation::HardSwish, -4.0, 0.0);
        near(Activation::Softplus, 0.0, 2f64.ln());
        near(Activation::Softplus, 800.0, 800.0);
        near(Activation::Clip { low: -1.0, high: 2.0 }, 3.0, 2.0);
        near(Activation::Erf, 1.0, 0.842_700_792_949_714_9);
        near(Activation::Power(0.5), 2.0, 2f64.sqrt());
        near(Activation::Affine { scale: 2.0, shift: 1.0 }, 3.0, 7.0);
    }
}
