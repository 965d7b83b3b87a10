//! Adafactor.

use super::{
    hyper::{learning_rate, non_negative, numbers, switches},
    scalar::narrow,
};
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    kernel::{
        bits,
        factored::{Divisors, Gradients, apply, average_columns, average_rows, update_squares},
        random::Rounding,
        scan,
    },
    tensor::{Mask, Schema},
    traits::{OpenStep, Optimizer, Step},
};

/// Adafactor (Shazeer & Stern 2018, arXiv:1804.04235), as PyTorch's `Adafactor` has it: of a matrix of second moments only
/// the means of the rows and columns are kept, R + C numbers for R × C parameters.
///
/// At step `t`, for a parameter `p` with gradient `G` of two or more axes (the last two are factored, each matrix alone):
///
/// ```text
/// G     = -G                                                    maximize
/// rest  = t^beta2_decay
/// rate  = max(eps2, rms(p)) * min(learning_rate, 1 / sqrt(t))
/// p     = p * (1 - learning_rate * weight_decay)
/// R     = R + rest * (mean over columns of G² - R)
/// C     = C + rest * (mean over rows of G² - C)
/// U     = G / sqrt(max(R * C / max(mean(R), eps1), eps1²))
/// p     = p - rate / max(1, rms(U) / d) * U
/// ```
///
/// A vector keeps all of its second moments, `V`, in the place of `R * C / mean(R)`.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `learning_rate` | – (PyTorch: 1e-2) | `>= 0` | the largest relative step |
/// | `beta2_decay` | -0.8 | `<= 0` | how the averages slow down |
/// | `eps1` | the element type's epsilon | `> 0` | keeps the divisor from 0 |
/// | `eps2` | 1e-3 | `>= 0` | the smallest size a parameter is taken for |
/// | `d` | 1 | `> 0` | clips the update's root mean square |
/// | `weight_decay` | 0 | `>= 0` | decoupled |
/// | `maximize` | off | | climbs |
///
/// Under a mask pruned gradients count as 0 in the means; those of a vector, an element each, stay at 0.
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, TensorMut, TensorRef, optim::Adafactor};
/// let adafactor = Adafactor::new(0.01)?;
/// let (mut weights, gradient) = (vec![1.0f32; 12], vec![0.5f32; 12]);
/// let mut state = adafactor.init(TensorRef::new(&weights, &[3, 4])?)?;
/// assert_eq!(state.byte_size(), 4 * (3 + 4));
/// let gradient = TensorRef::new(&gradient, &[3, 4])?;
/// adafactor.step(Step::new(TensorMut::new(&mut weights, &[3, 4])?, gradient, &mut state))?;
/// assert!((weights[0] - 0.99).abs() < 1e-6);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adafactor {
    learning_rate: f64,
    beta2_decay: f64,
    eps1: Option<f64>,
    eps2: f64,
    d: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Adafactor {
    /// Adafactor at a rate, everything else at its default.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38.
    pub fn new(learning_rate: f64) -> Result<Self> {
        Ok(Self {
            learning_rate: non_negative("learning_rate", learning_rate)?,
            beta2_decay: -0.8,
            eps1: None,
            eps2: 1e-3,
            d: 1.0,
            weight_decay: 0.0,
            maximize: false,
        })
    }

    /// Sets how the averages slow down.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is above 0 or not finite.
    pub fn with_beta2_decay(self, beta2_decay: f64) -> Result<Self> {
        if beta2_decay <= 0.0 && beta2_decay.is_finite() {
            return Ok(Self { beta2_decay, ..self });
        }
        Err(Error::argument("beta2_decay", format!("{beta2_decay:?}"), "finite and at most 0"))
    }

    /// Sets what keeps the divisor from 0.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when its square is not above 0 in `f32`, or it is not finite.
    pub fn with_eps1(self, eps1: f64) -> Result<Self> {
        if (1e-19..=1e19).contains(&eps1) {
            return Ok(Self { eps1: Some(eps1), ..self });
        }
        Err(Error::argument("eps1", format!("{eps1:?}"), "from 1e-19 to 1e19"))
    }

    numbers! {
        with_eps2, eps2: non_negative, "the smallest size a parameter is taken for";
        with_d, d: positive, "where the update's root mean square is clipped";
        with_weight_decay, weight_decay: non_negative, "the decoupled weight decay";
    }

    switches! {
        with_maximize, maximize, "climbs instead of descending";
    }

    /// Returns how the averages slow down.
    #[must_use]
    pub fn beta2_decay(&self) -> f64 {
        self.beta2_decay
    }

    /// Returns what keeps the divisor from 0; `None` for the element type's epsilon.
    #[must_use]
    pub fn eps1(&self) -> Option<f64> {
        self.eps1
    }
}

learning_rate!(Adafactor);

config! {
    Adafactor(learning_rate: f64) => Self::new(learning_rate),
    beta2_decay: f64 => Self::with_beta2_decay,
    eps1: Option<f64> => |it, eps1| eps1.map_or(Ok(it), |eps1| it.with_eps1(eps1)),
    eps2: f64 => Self::with_eps2,
    d: f64 => Self::with_d,
    weight_decay: f64 => Self::with_weight_decay,
    maximize: bool => |it, _| it.with_maximize(),
}

const ROWS: &str = "row_var";
const COLS: &str = "col_var";
const FULL: &str = "variance";

impl<T: Element> Optimizer<T> for Adafactor {
    fn schema(&self, shape: &[usize]) -> Schema {
        match shape {
            [batch @ .., rows, cols] => {
                let with = |n: usize| [batch, &[n]].concat();
                Schema::new("Adafactor").slot(ROWS, &with(*rows), 0.0).slot(COLS, &with(*cols), 0.0)
            }
            _ => Schema::new("Adafactor").slot(FULL, shape, 0.0),
        }
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        if step.shape().len() < 2 {
            step.open([FULL], [], |open| {
                // A vector is a matrix of one row; its column means are the squares themselves.
                let OpenStep { count, param, grad, slots: [full], mask, rounding, .. } = open;
                let grads =
                    Gradients { values: grad, rows: 1, cols: param.len(), keep: mask.map(Mask::words), offset: 0 };
                let rates = self.rates::<T>(count, param, rounding);
                self.matrices(param, grads, None, full, rates);
                if let Some(mask) = mask {
                    bits::select(full, mask.bits());
                }
            })
        } else {
            step.open([ROWS, COLS], [], |open| {
                let OpenStep { count, shape, param, grad, slots: [rows, columns], mask, rounding, .. } = open;
                let cols = shape[shape.len() - 1];
                let keep = mask.map(Mask::words);
                let grads =
                    Gradients { values: grad, rows: param.len().checked_div(cols).unwrap_or(0), cols, keep, offset: 0 };
                let rates = self.rates::<T>(count, param, rounding);
                self.matrices(param, grads, Some(rows), columns, rates);
            })
        }
    }
}

/// What a step's scalars are, and how its result is rounded.
struct Rates {
    rest: f64,
    rate: f64,
    eps1: f64,
    rounding: Rounding,
}

impl Adafactor {
    fn rates<T: Element>(&self, count: u64, param: &[T], rounding: Rounding) -> Rates {
        let count = count as f64;
        // A NaN parameter makes the step NaN, as the reference does.
        let norm = scan::norm(param).unwrap_or(f64::NAN);
        let size = norm / (param.len() as f64).sqrt();
        let size = if size < self.eps2 { self.eps2 } else { size };
        Rates {
            rest: libm::pow(count, self.beta2_decay),
            rate: size * self.learning_rate.min(1.0 / count.sqrt()),
            eps1: self.eps1.unwrap_or(epsilon::<T>()),
            rounding,
        }
    }

    /// One step of all matrices in `grads`, one below the other. `rows` is `None` for a vector.
    fn matrices<T: Element>(
        &self,
        param: &mut [T],
        grads: Gradients<'_, T::Real>,
        mut rows: Option<&mut [T::Real]>,
        columns: &mut [T::Real],
        Rates { rest, rate, eps1, rounding }: Rates,
    ) {
        let cols = grads.cols;
        if param.is_empty() {
            return;
        }
        let size = param.len() / (columns.len() / cols);
        let one = [T::Real::from_f64(1.0)];
        let matrix = |i: usize| {
            let values = grads.values.split_at(i * size).1.split_at(size).0;
            Gradients { values, rows: size / cols, offset: i * size, ..grads }
        };
        let count = size / cols;
        for (i, columns) in columns.chunks_exact_mut(cols).enumerate() {
            average_columns(matrix(i), columns, rest);
            if let Some(rows) = &mut rows {
                average_rows(matrix(i), &mut rows[i * count..(i + 1) * count], rest);
            }
        }
        let (rows, columns) = (rows.as_deref(), &*columns);
        let divisors = |i: usize| {
            let rows = rows.map_or(&one[..], |rows| &rows[i * count..(i + 1) * count]);
            let mean = rows.iter().map(|r| r.to_f64()).sum::<f64>() / rows.len() as f64;
            Divisors {
                rows,
                cols: &columns[i * cols..(i + 1) * cols],
                scale: narrow(if mean < eps1 { eps1 } else { mean }),
                floor: narrow(eps1 * eps1),
            }
        };
        let matrices = param.len() / size;
        let squares: f64 = (0..matrices).map(|i| update_squares(matrix(i), divisors(i))).sum();
        let clip = (squares.sqrt() / ((param.len() as f64).sqrt() * self.d)).max(1.0);
        let rate = if self.maximize { -rate / clip } else { rate / clip };
        let shrink = narrow(1.0 - self.learning_rate * self.weight_decay);
        for (i, param) in param.chunks_exact_mut(size).enumerate() {
            apply(param, matrix(i), divisors(i), shrink, narrow(rate), rounding);
        }
    }
}

/// The distance from 1 to the next number of the type.
fn epsilon<T: Element>() -> f64 {
    use crate::element::DType;
    match T::DTYPE {
        DType::F64 => f64::EPSILON,
        DType::F32 => f32::EPSILON.into(),
        DType::F16 => half::f16::EPSILON.to_f64(),
        DType::Bf16 => half::bf16::EPSILON.to_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OptimizerExt, TensorMut, TensorRef};

    #[test]
    fn a_batch_of_matrices_steps_as_each_alone_but_for_the_clipping() {
        let adafactor = Adafactor::new(0.1).unwrap().with_d(1e6).unwrap().with_eps2(1e3).unwrap();
        let grad: Vec<f64> = (0..24).map(|i| f64::from(i * 7 % 11) - 5.0).collect();
        let mut both = vec![1.0; 24];
        let mut state = adafactor.init(TensorRef::new(&both, &[2, 3, 4]).unwrap()).unwrap();
        let step = |p: &mut [f64], g: &[f64], shape: &[usize], state: &mut _| {
            let p = TensorMut::new(p, shape).unwrap();
            adafactor.step(Step::new(p, TensorRef::new(g, shape).unwrap(), state)).unwrap();
        };
        step(&mut both, &grad, &[2, 3, 4], &mut state);
        for half in 0..2 {
            let mut alone = vec![1.0; 12];
            let mut state = adafactor.init(TensorRef::new(&alone, &[3, 4]).unwrap()).unwrap();
            step(&mut alone, &grad[12 * half..12 * half + 12], &[3, 4], &mut state);
            assert_eq!(alone, both[12 * half..12 * half + 12]);
        }
    }

    #[test]
    fn a_mask_hides_the_gradients_of_pruned_weights() {
        let adafactor = Adafactor::new(0.1).unwrap();
        let mask = Mask::from_fn(&[2, 3], |i| i != 4).unwrap();
        let run = |hidden: f32| {
            let grad = [1.0, 2.0, 3.0, 4.0, hidden, 6.0];
            let mut p = [1f32; 6];
            let mut state = adafactor.init(TensorRef::new(&p, &[2, 3]).unwrap()).unwrap();
            let param = TensorMut::new(&mut p, &[2, 3]).unwrap();
            adafactor.step(Step::new(param, TensorRef::new(&grad, &[2, 3]).unwrap(), &mut state).mask(&mask)).unwrap();
            (p, state)
        };
        let (p, state) = run(f32::NAN);
        assert_eq!(p[4], 0.0);
        assert_eq!((p, state), run(0.0));
    }

    #[test]
    fn small_updates_arrive_by_chance() {
        // A thousandth of 1 each step, where bf16 has no number between 1 - 1/256 and 1.
        let adafactor = Adafactor::new(1e-3).unwrap().with_weight_decay(0.0).unwrap();
        let run = |by_chance: bool| {
            let mut p = vec![half::bf16::ONE; 64 * 64];
            let grad = vec![half::bf16::ONE; 64 * 64];
            let mut state = adafactor.init(TensorRef::new(&p, &[64, 64]).unwrap()).unwrap();
            for _ in 0..20 {
                let param = TensorMut::new(&mut p, &[64, 64]).unwrap();
                let step = Step::new(param, TensorRef::new(&grad, &[64, 64]).unwrap(), &mut state);
                adafactor.step(if by_chance { step.stochastic_rounding(5) } else { step }).unwrap();
            }
            p.iter().map(|p| p.to_f64()).sum::<f64>() / p.len() as f64
        };
        assert_eq!(run(false), 1.0);
        assert!((run(true) - 0.98).abs() < 5e-4, "{}", run(true));
    }

    #[test]
    fn what_is_out_of_range_is_refused_and_empty_is_fine() {
        let adafactor = Adafactor::new(0.1).unwrap();
        assert!(adafactor.with_beta2_decay(0.1).is_err() && adafactor.with_eps1(0.0).is_err());
        assert!(adafactor.with_d(0.0).is_err());
        for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 3]] {
            let mut state = adafactor.init(TensorRef::<f32>::new(&[], shape).unwrap()).unwrap();
            let param = TensorMut::new(&mut [], shape).unwrap();
            adafactor.step(Step::<f32>::new(param, TensorRef::new(&[], shape).unwrap(), &mut state)).unwrap();
        }
    }
}
