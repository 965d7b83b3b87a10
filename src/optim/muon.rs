//! Muon.

use super::{
    hyper::{learning_rate, non_negative, numbers, positive},
    scalar::{Average, narrow},
};
use crate::{
    config::config,
    element::{Element, Real},
    error::{Error, Result},
    kernel::rule::Rule,
    linalg::{Matrix, add_product},
    tensor::Schema,
    traits::{OpenStep, Optimizer, Step},
};

/// How the rate depends on a matrix's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum RateScale {
    /// `sqrt(max(1, rows / cols))`
    #[default]
    Original,
    /// `0.2 * sqrt(max(rows, cols))`: updates as large as AdamW's, whose rates and decays can be kept.
    #[cfg_attr(feature = "serde", serde(rename = "match_adamw"))]
    MatchAdamW,
}

/// Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982), as PyTorch's `Muon` has it: the momentum of a matrix, made
/// orthogonal. For parameters of two axes; biases, norms and embeddings are left to another optimizer.
///
/// At each step, for a matrix `p` with gradient `G`:
///
/// ```text
/// B  = momentum * B + (1 - momentum) * G
/// X  = (1 - momentum) * G + momentum * B       nesterov; else B
/// X  = X / max(‖X‖, eps)
/// X  = a X + (b (X Xᵀ) + c (X Xᵀ)²) X          5 times: Newton–Schulz
/// p  = p * (1 - learning_rate * weight_decay)
/// p  = p - learning_rate * scale(rows, cols) * X
/// ```
///
/// The iteration is computed in `f32` for every element type (PyTorch: `bf16`), on the shorter side. It rests on a matrix library:
/// the same bits on any number of threads, not on any instruction set. Under a mask pruned gradients count as 0 and the update is
/// masked.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1e-3) | `>= 0` | the step's length |
/// | `momentum` | 0.95 | `0 <= momentum < 1` | decay rate of the momentum |
/// | `weight_decay` | 0.1 | `>= 0` | decoupled |
/// | `eps` | 1e-7 | `> 0` | the smallest norm divided by |
/// | `nesterov` | on | | looks one step ahead |
/// | `steps` | 5 | 0 to 99 | of the iteration |
/// | `coefficients` | 3.4445, -4.775, 2.0315 | finite | `a`, `b`, `c` |
/// | `rate_scale` | [`RateScale::Original`] | | how the rate depends on the shape |
///
/// Needs the feature `linalg`.
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, TensorMut, TensorRef, optim::Muon};
/// let muon = Muon::new(0.1)?.with_weight_decay(0.0)?;
/// let (mut weights, gradient) = ([0.0f32; 4], [5.0, 0.0, 0.0, 0.1]);
/// let gradient = TensorRef::new(&gradient, &[2, 2])?;
/// let mut state = muon.init(&gradient)?;
/// muon.step(Step::new(TensorMut::new(&mut weights, &[2, 2])?, &gradient, &mut state))?;
/// // Both directions move about as far, though one gradient is 50 times larger.
/// assert!((-0.13..-0.05).contains(&weights[0]) && (-0.13..-0.05).contains(&weights[3]));
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Muon {
    learning_rate: f64,
    momentum: f64,
    weight_decay: f64,
    eps: f64,
    nesterov: bool,
    steps: usize,
    coefficients: [f64; 3],
    scale: RateScale,
}

impl Muon {
    /// Muon at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            momentum: 0.95,
            weight_decay: 0.1,
            eps: 1e-7,
            nesterov: true,
            steps: 5,
            coefficients: [3.4445, -4.775, 2.0315],
            scale: RateScale::Original,
        })
    }

    numbers! {
        with_momentum, momentum: decay_rate, "the decay rate of the momentum";
        with_weight_decay, weight_decay: non_negative, "the decoupled weight decay";
    }

    /// Sets the smallest norm divided by.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not above 0 in `f32`.
    pub fn with_eps(self, eps: f64) -> Result<Self> {
        positive("eps", f64::from(eps as f32))?;
        Ok(Self { eps, ..self })
    }

    /// Takes the momentum as it is, without looking a step ahead.
    #[must_use]
    pub fn without_nesterov(self) -> Self {
        Self { nesterov: false, ..self }
    }

    /// Sets the steps and the coefficients of the iteration.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for 100 steps or more, or a coefficient that is not finite.
    pub fn with_iteration(self, steps: usize, coefficients: [f64; 3]) -> Result<Self> {
        if steps >= 100 {
            return Err(Error::argument("steps", steps, "less than 100"));
        }
        if let Some(c) = coefficients.iter().find(|c| !c.is_finite()) {
            return Err(Error::argument("coefficient", c, "finite"));
        }
        Ok(Self { steps, coefficients, ..self })
    }

    /// Sets how the rate depends on the matrix's shape.
    #[must_use]
    pub fn with_rate_scale(self, scale: RateScale) -> Self {
        Self { scale, ..self }
    }

    /// Returns the smallest norm divided by.
    #[must_use]
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Whether it looks one step ahead.
    #[must_use]
    pub fn nesterov(&self) -> bool {
        self.nesterov
    }

    /// Returns the steps and the coefficients of the iteration.
    #[must_use]
    pub fn iteration(&self) -> (usize, [f64; 3]) {
        (self.steps, self.coefficients)
    }

    /// Returns how the rate depends on the matrix's shape.
    #[must_use]
    pub fn rate_scale(&self) -> RateScale {
        self.scale
    }
}

learning_rate!(Muon);

config! {
    Muon(learning_rate: f64) => Self::new(learning_rate),
    momentum: f64 => Self::with_momentum,
    weight_decay: f64 => Self::with_weight_decay,
    eps: f64 => Self::with_eps,
    nesterov: bool => |it, _| it.without_nesterov(),
    steps: usize => |it, steps| it.with_iteration(steps, it.coefficients),
    coefficients: [f64; 3] => |it, coefficients| it.with_iteration(it.steps, coefficients),
    rate_scale: RateScale = |it| it.scale => Self::with_rate_scale,
}

const SLOT: &str = "momentum_buffer";

impl<T: Element> Optimizer<T> for Muon {
    fn schema(&self, shape: &[usize]) -> Schema {
        let schema = Schema::new("Muon").slot(SLOT, shape, 0.0);
        match *shape {
            [rows, cols] => {
                let short = rows.min(cols);
                schema.scratch(2 * (rows.saturating_mul(cols).saturating_add(short.saturating_mul(short))))
            }
            _ => schema,
        }
    }

    fn supports(&self, shape: &[usize]) -> Result<()> {
        if shape.len() == 2 {
            return Ok(());
        }
        Err(Error::argument("parameter", format!("of shape {shape:?}"), "a matrix, for Muon"))
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        Optimizer::<T>::supports(self, step.shape())?;
        step.open([SLOT], [], |open| self.update(open))
    }
}

impl Muon {
    fn update<T: Element>(&self, mut open: OpenStep<'_, T, 1, 0>) {
        open.update(&Buffer { mean: Average::new(self.momentum) });
        let OpenStep { param, grad, slots: [buffer], scratch, mask, shape, rounding, .. } = open;
        let (rows, cols) = (shape[0], shape[1]);
        if param.is_empty() {
            return;
        }
        let (momentum, rest) = (narrow::<T::Real>(self.momentum), narrow::<T::Real>(1.0 - self.momentum));
        let kept = |i: usize| mask.is_none_or(|mask| mask.get(i) == Some(true));
        let direction = |i: usize| {
            let ahead = self.nesterov && kept(i);
            let x = if ahead { rest * grad.at(i) + momentum * buffer[i] } else { buffer[i] };
            x.to_f64()
        };
        let (short, long, turned) = (rows.min(cols), rows.max(cols), rows > cols);
        let (x, scratch) = scratch.split_at_mut(short * long);
        // The element of the parameter that stands at a place of `x`, whose rows are the shorter side.
        let place = |i: usize| if turned { i % long * cols + i / long } else { i };
        let norm = (0..x.len()).map(|i| direction(i).powi(2)).sum::<f64>().sqrt().max(self.eps);
        x.iter_mut().enumerate().for_each(|(i, x)| *x = (direction(place(i)) / norm) as f32);
        self.orthogonalise(x, scratch, short, long);
        let ratio = match self.scale {
            RateScale::Original => (rows as f64 / cols as f64).max(1.0).sqrt(),
            RateScale::MatchAdamW => 0.2 * (long as f64).sqrt(),
        };
        let rate: T::Real = narrow(self.learning_rate * ratio);
        let shrink: T::Real = narrow(1.0 - self.learning_rate * self.weight_decay);
        for (i, &x) in x.iter().enumerate() {
            let i = place(i);
            let moved = shrink * param[i].to_real() - rate * T::Real::from_f64(x.into());
            param[i] = if kept(i) { rounding.round(moved, i) } else { T::default() };
        }
    }

    /// `X = a X + (b A + c A²) X` with `A = X Xᵀ`, so many times; `x` is `short` × `long`.
    fn orthogonalise(&self, x: &mut [f32], scratch: &mut [f32], short: usize, long: usize) {
        let [a, b, c] = self.coefficients.map(|c| c as f32);
        let (next, scratch) = scratch.split_at_mut(short * long);
        let (gram, poly) = scratch.split_at_mut(short * short);
        for _ in 0..self.steps {
            let matrix = Matrix::new(x, short, long);
            gram.fill(0.0);
            add_product(gram, 1.0, matrix, matrix.transposed());
            poly.iter_mut().zip(&*gram).for_each(|(p, g)| *p = b * g);
            let square = Matrix::new(gram, short, short);
            add_product(poly, c, square, square);
            next.iter_mut().zip(&*x).for_each(|(n, x)| *n = a * x);
            add_product(next, 1.0, Matrix::new(poly, short, short), matrix);
            x.copy_from_slice(next);
        }
    }
}

/// Moves the momentum; the parameter stays.
#[derive(Clone, Copy)]
struct Buffer<R> {
    mean: Average<R>,
}

impl<R: Real> Rule<R, 1> for Buffer<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [buffer]: [R; 1]) -> (R, [R; 1]) {
        (param, [self.mean.next(buffer, grad)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mask, OptimizerExt, State, TensorMut, TensorRef};

    fn first_step(shape: [usize; 2], grad: &[f64], mask: Option<&Mask>) -> Vec<f64> {
        let muon = Muon::new(1.0).unwrap().with_weight_decay(0.0).unwrap();
        let grad = TensorRef::new(grad, &shape).unwrap();
        let mut p = vec![0.0; grad.len()];
        let mut state = muon.init(&grad).unwrap();
        let step = Step::new(TensorMut::new(&mut p, &shape).unwrap(), &grad, &mut state);
        muon.step(if let Some(mask) = mask { step.mask(mask) } else { step }).unwrap();
        p
    }

    #[test]
    fn a_transposed_gradient_gives_the_transposed_step() {
        let grad: Vec<f64> = (0..6).map(|i| f64::from(i * i) - 7.0).collect();
        let turned: Vec<f64> = (0..6).map(|i| grad[i % 2 * 3 + i / 2]).collect();
        let (wide, tall) = (first_step([2, 3], &grad, None), first_step([3, 2], &turned, None));
        for i in 0..6 {
            // The taller one's rate is larger by sqrt(3 / 2).
            assert!((tall[i] - wide[i % 2 * 3 + i / 2] * 1.5f64.sqrt()).abs() < 1e-5);
        }
    }

    #[test]
    fn rounding_by_chance_takes_a_neighbour() {
        let muon = Muon::new(1e-3).unwrap();
        let grad: Vec<half::bf16> = (0..60).map(|i| half::bf16::from_f32((i * i % 37) as f32 - 18.0)).collect();
        let run = |by_chance: bool| {
            let mut p = vec![half::bf16::from_f32(0.75); 60];
            let mut state = muon.init(TensorRef::new(&p, &[10, 6]).unwrap()).unwrap();
            let param = TensorMut::new(&mut p, &[10, 6]).unwrap();
            let step = Step::new(param, TensorRef::new(&grad, &[10, 6]).unwrap(), &mut state);
            muon.step(if by_chance { step.stochastic_rounding(5) } else { step }).unwrap();
            p
        };
        let (nearest, by_chance) = (run(false), run(true));
        assert!(nearest != by_chance);
        for (a, b) in nearest.iter().zip(by_chance) {
            assert!(a.to_bits().abs_diff(b.to_bits()) <= 1, "{a} {b}");
        }
    }

    #[test]
    fn the_update_is_nearly_orthogonal() {
        let grad: Vec<f64> = (0..40).map(|i| ((i * i * 37 % 41) as f64 - 20.0) * 0.1).collect();
        let x = first_step([4, 10], &grad, None);
        for i in 0..4 {
            let norm: f64 = x[10 * i..10 * i + 10].iter().map(|x| x * x).sum();
            assert!((0.4..1.6).contains(&norm), "{norm}");
        }
    }

    #[test]
    fn masks_and_odd_shapes() {
        let mask = Mask::from_fn(&[2, 2], |i| i != 3).unwrap();
        let p = first_step([2, 2], &[1.0, 2.0, 3.0, f64::NAN], Some(&mask));
        assert!(p[3] == 0.0 && p[..3].iter().all(|p| p.is_finite() && *p != 0.0));
        assert_eq!(first_step([0, 3], &[], None), [0.0; 0]);
        assert_eq!(first_step([2, 1], &[0.0, 0.0], None), [0.0, 0.0]);
        let muon = Muon::new(0.1).unwrap();
        let mut vector = [1f32; 3];
        assert!(muon.init(&vector).is_err());
        let mut state = State::new::<f32>(&[3], Optimizer::<f32>::schema(&muon, &[3])).unwrap();
        assert!(muon.step(Step::new(&mut vector, &[1.0; 3], &mut state)).is_err());
        assert!(muon.with_iteration(100, [1.0; 3]).is_err() && muon.with_eps(0.0).is_err());
    }
}
