//! Mixed bits: how each of many tensors is kept, within a budget for all.

use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    kernel::knapsack::{Pick, Solution, solve},
    tensor::{Granularity, TensorRef},
    traits::{Quantizer, QuantizerExt},
};
use std::fmt;

/// One way to keep a tensor, and what it costs.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Choice {
    /// What to call it in a report: `4-bit, groups of 32`.
    pub label: String,
    /// Bytes it takes.
    pub bytes: usize,
    /// The error it makes, at least 0; those of all tensors add up.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub error: f64,
}

/// A named tensor and the ways to keep it.
///
/// What the error is, is the caller's to choose, as long as those of different tensors can be added: the sum of squared
/// differences, weighted by how much the loss or the output minds them ([`measured`](Candidate::measured)); or what the loss itself
/// grows by when this tensor alone is replaced ([`calibrated`](Candidate::calibrated)).
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    name: String,
    choices: Vec<Choice>,
}

impl Candidate {
    /// A tensor with the ways to keep it.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) without a choice, [`Argument`](crate::ErrorKind::Argument) for an error that is negative or not
    /// finite, and for more than 2^53 bytes.
    pub fn new(name: impl Into<String>, mut choices: Vec<Choice>) -> Result<Self> {
        let name = name.into();
        if choices.is_empty() {
            return Err(Error::empty("choices").in_tensor(&name));
        }
        if let Some(choice) = choices.iter().find(|choice| choice.bytes as u64 > EXACT) {
            return Err(Error::argument("bytes", choice.bytes, "at most 2^53").in_tensor(&name));
        }
        match choices.iter().find(|choice| !(choice.error >= 0.0 && choice.error.is_finite())) {
            Some(choice) => Err(Error::argument("error", choice.error, "finite and at least 0").in_tensor(&name)),
            None => {
                // A negative zero is ordered below zero.
                choices.iter_mut().for_each(|choice| choice.error += 0.0);
                Ok(Self { name, choices })
            }
        }
    }

    /// A tensor with a choice for each of the quantizers, in order. The error is `sensitivity * Σ (x - x')²`: a sensitivity
    /// is the mean square of the inputs that meet the weights, or the diagonal of a Hessian; 1 weighs all tensors alike.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a sensitivity that is negative or not finite; those of
    /// [`quantize`](QuantizerExt::quantize), and of [`new`](Candidate::new).
    pub fn measured<T: Element>(
        name: impl Into<String>,
        values: TensorRef<'_, T>,
        quantizers: &[&dyn Quantizer<T>],
        sensitivity: f64,
    ) -> Result<Self> {
        let name = name.into();
        if !(sensitivity >= 0.0 && sensitivity.is_finite()) {
            return Err(Error::argument("sensitivity", sensitivity, "finite and at least 0").in_tensor(&name));
        }
        let choose = |quantizer: &&dyn Quantizer<T>| {
            let q = quantizer.quantize(TensorRef::from(&values))?;
            let error = q.error(TensorRef::from(&values))?.mse * q.len() as f64 * sensitivity;
            Ok(Choice { label: label(q.bits(), q.granularity()), bytes: q.byte_size(), error })
        };
        let choices = quantizers.iter().map(choose).collect::<Result<Vec<_>>>();
        Self::new(&*name, choices.map_err(|error| error.in_tensor(&name))?)
    }

    /// A tensor with a choice for each of the quantizers, in order. `loss` tells, from the decoded values, how much worse the model is
    /// with them in place of the tensor; what is below 0 counts as 0.
    ///
    /// # Errors
    /// Those of [`quantize`](QuantizerExt::quantize), of `loss`, and of [`new`](Candidate::new).
    pub fn calibrated<T: Element>(
        name: impl Into<String>,
        values: TensorRef<'_, T>,
        quantizers: &[&dyn Quantizer<T>],
        mut loss: impl FnMut(&[T]) -> Result<f64>,
    ) -> Result<Self> {
        let name = name.into();
        let choose = |quantizer: &&dyn Quantizer<T>| {
            let q = quantizer.quantize(TensorRef::from(&values))?;
            let error = loss(&q.dequantize::<T>())?;
            // A NaN stays one, and is refused.
            let error = if error < 0.0 { 0.0 } else { error };
            Ok(Choice { label: label(q.bits(), q.granularity()), bytes: q.byte_size(), error })
        };
        let choices = quantizers.iter().map(choose).collect::<Result<Vec<_>>>();
        Self::new(&*name, choices.map_err(|error| error.in_tensor(&name))?)
    }

    /// One more way to keep it, behind the others.
    ///
    /// # Errors
    /// As [`new`](Candidate::new).
    pub fn with_choice(mut self, choice: Choice) -> Result<Self> {
        self.choices.push(choice);
        Self::new(self.name, self.choices)
    }

    /// The tensor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ways to keep it.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }
}

config! {
    Candidate(name: String, choices: Vec<Choice>) => Self::new(name, choices),
}

/// Up to here whole numbers are exact in `f64`.
const EXACT: u64 = 1 << 53;

fn label(bits: u8, granularity: Granularity) -> String {
    match granularity {
        Granularity::Tensor => format!("{bits}-bit"),
        Granularity::Channel { axis } => format!("{bits}-bit, channels of axis {axis}"),
        Granularity::Group { size } => format!("{bits}-bit, groups of {size}"),
        Granularity::Block { axis, size } => format!("{bits}-bit, blocks of {size} along axis {axis}"),
    }
}

/// What is limited; the other of the two is made as small as can be.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Budget {
    /// At most so many bytes; the least error.
    Bytes(usize),
    /// At most so much error; the fewest bytes.
    Error(
        #[cfg_attr(
            feature = "serde",
            serde(serialize_with = "crate::config::open::serialize", deserialize_with = "error")
        )]
        f64,
    ),
}

#[cfg(feature = "serde")]
fn error<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    crate::config::checked(from, |crate::config::open::Number(error)| match error >= 0.0 {
        true => Ok(error),
        false => Err(Error::argument("budget of error", error, "at least 0")),
    })
}

/// Chooses for each tensor one of its ways, so that all together keep within the budget at the least cost.
///
/// This is the multiple-choice knapsack problem. It is solved by dynamic programming over the tensors, which keeps partial choices that no
/// other beats in both bytes and error, and drops those that the linear relaxation of the rest shows cannot beat the best
/// known (Pisinger 1995, *A minimal algorithm for the multiple-choice knapsack problem*). The result is optimal to a part in 10^9, and
/// [`Allocation::is_optimal`] says so; where more than 200,000 partial choices compete at once, the least promising are
/// dropped, and [`Allocation::bound`] says how far from optimal the result is at most. The same on every machine. Memory is that
/// of the choices, and of partial choices at most 1.6 MB a tensor to find the way back, 8 MB a choice of the tensor in turn.
///
/// ```
/// use lapidary::{Quantizer, TensorRef, quant::{Budget, Candidate, Symmetric, allocate}};
/// let (a, b): (Vec<f32>, Vec<f32>) = (0..64).map(|i| ((i as f32).sin(), (i as f32).cos() * 0.01)).unzip();
/// let schemes = [2, 4, 8].map(|bits| Symmetric::new(bits).unwrap());
/// let schemes = schemes.each_ref().map(|scheme| scheme as &dyn Quantizer<f32>);
/// let tensors = [
///     Candidate::measured("a", TensorRef::from(&a), &schemes, 1.0)?,
///     Candidate::measured("b", TensorRef::from(&b), &schemes, 1.0)?,
/// ];
/// let plan = allocate(&tensors, Budget::Bytes(100))?;
/// assert_eq!(plan.choices(), [2, 0]); // 8 bits where it matters, 2 where it does not
/// assert!(plan.bytes() <= 100 && plan.is_optimal());
/// println!("{plan}");
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// [`Empty`](crate::ErrorKind::Empty) without a tensor; [`Argument`](crate::ErrorKind::Argument) when no choices keep within the budget (it
/// names the least there is), the budget is not a number, or the largest errors together are infinite.
pub fn allocate(tensors: &[Candidate], budget: Budget) -> Result<Allocation> {
    if tensors.is_empty() {
        return Err(Error::empty("tensors to allocate"));
    }
    let largest = |tensor: &Candidate| tensor.choices.iter().map(|choice| choice.error).fold(0.0, f64::max);
    let worst: f64 = tensors.iter().map(largest).sum();
    if !worst.is_finite() {
        return Err(Error::argument("sum of the largest errors", worst, "finite"));
    }
    let picks = |pick: fn(&Choice) -> Pick| -> Vec<Vec<Pick>> {
        tensors.iter().map(|tensor| tensor.choices.iter().map(pick).collect()).collect()
    };
    let (what, limit, items) = match budget {
        Budget::Bytes(bytes) => {
            let pick = |choice: &Choice| Pick { weight: choice.bytes as f64, value: choice.error };
            ("budget of bytes", (bytes as u64).min(EXACT) as f64, picks(pick))
        }
        Budget::Error(error) => {
            let pick = |choice: &Choice| Pick { weight: choice.error, value: choice.bytes as f64 };
            // Sums in another order than the caller's may be a few roundings larger.
            let slack = 1.0 + 2.0 * f64::EPSILON * tensors.len() as f64;
            ("budget of error", if error * slack > worst * slack { worst * slack } else { error * slack }, picks(pick))
        }
    };
    let solution = solve(&items, limit).map_err(|least| {
        Error::argument(what, format!("{limit} where the least is {least}"), "one that some choices keep")
    })?;
    Ok(Allocation::new(tensors, budget, solution))
}

/// How each tensor is to be kept, and what that costs. Prints as a table, what hurts most first.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Allocation {
    choices: Vec<usize>,
    chosen: Vec<Chosen>,
    bytes: usize,
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    error: f64,
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    bound: f64,
    optimal: bool,
}

/// What one tensor got.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Chosen {
    /// The tensor's name.
    pub name: String,
    /// How it is kept.
    pub choice: Choice,
    /// Its part of the whole error, from 0 to 1.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub share: f64,
    /// The way that would lower its error most for each further byte, where there is one.
    pub better: Option<Choice>,
}

impl Allocation {
    fn new(tensors: &[Candidate], budget: Budget, solution: Solution) -> Self {
        let Solution { picks, value, bound, exact } = solution;
        let chosen = tensors.iter().zip(&picks).map(|(tensor, &pick)| &tensor.choices[pick]);
        let (bytes, error) = chosen
            .fold((0usize, 0.0), |(bytes, error), choice| (bytes.saturating_add(choice.bytes), error + choice.error));
        let gain = |choice: &Choice, than: &Choice| (than.error - choice.error) / (choice.bytes - than.bytes) as f64;
        let chosen = tensors.iter().zip(&picks).map(|(tensor, &pick)| {
            let choice = &tensor.choices[pick];
            let better = tensor.choices.iter().filter(|c| c.bytes > choice.bytes && c.error < choice.error);
            let better = better.max_by(|a, b| gain(a, choice).total_cmp(&gain(b, choice)));
            Chosen {
                name: tensor.name.clone(),
                choice: choice.clone(),
                share: if error > 0.0 { choice.error / error } else { 0.0 },
                better: better.cloned(),
            }
        });
        let chosen = chosen.collect();
        let (error, bytes) = match budget {
            Budget::Bytes(_) => (value, bytes),
            // Another order of summation may round beyond it.
            Budget::Error(limit) => (error.min(limit + 0.0), value as usize),
        };
        Self { choices: picks, chosen, bytes, error, bound, optimal: exact }
    }

    /// The index of each tensor's choice, in the order they were given.
    #[must_use]
    pub fn choices(&self) -> &[usize] {
        &self.choices
    }

    /// Bytes of all.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The sum of all errors.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.error
    }

    /// No choices within the budget have less error than this (or, where the error is limited, fewer bytes).
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// Whether no choices within the budget are better, to a part in 10^9.
    #[must_use]
    pub fn is_optimal(&self) -> bool {
        self.optimal
    }

    /// What each tensor got, the largest part of the error first: the tensors that cost the accuracy.
    #[must_use]
    pub fn ranking(&self) -> Vec<&Chosen> {
        let mut all: Vec<_> = self.chosen.iter().collect();
        all.sort_by(|a, b| b.share.total_cmp(&a.share));
        all
    }
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.chosen.iter().map(|chosen| chosen.name.chars().count()).max().unwrap_or(0).max(6);
        writeln!(f, "{:width$} {:>12} {:>12} {:>7}  kept as; better", "tensor", "bytes", "error", "share")?;
        for Chosen { name, choice, share, better } in self.ranking() {
            let Choice { label, bytes, error } = choice;
            write!(f, "{name:width$} {bytes:>12} {error:>12.4e} {:>5.1} %  {label}", 100.0 * share)?;
            match better {
                Some(better) => {
                    // What was read from a file need not be more.
                    let more = better.bytes.saturating_sub(*bytes);
                    writeln!(f, "; {} (+{more} bytes, error {:.4e})", better.label, better.error)?
                }
                None => writeln!(f)?,
            }
        }
        let proof = if self.optimal { "optimal".into() } else { format!("at best {:.6e}", self.bound) };
        write!(f, "{:width$} {:>12} {:>12.4e} {:>5.1} %  {proof}", "all", self.bytes, self.error, 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, quant::Symmetric};

    fn choice(bytes: usize, error: f64) -> Choice {
        Choice { label: format!("{bytes} bytes"), bytes, error }
    }

    fn tensors() -> Vec<Candidate> {
        let new = |name: &str, choices| Candidate::new(name, choices).unwrap();
        vec![
            new("a", vec![choice(10, 9.0), choice(20, 2.0), choice(40, 1.0)]),
            new("b", vec![choice(5, 4.0), choice(50, 0.0), choice(25, 3.5)]),
        ]
    }

    #[test]
    fn either_side_is_limited() {
        let plan = allocate(&tensors(), Budget::Bytes(45)).unwrap();
        assert_eq!((plan.choices(), plan.bytes(), plan.error()), (&[2, 0][..], 45, 5.0));
        let plan = allocate(&tensors(), Budget::Bytes(70)).unwrap();
        assert_eq!((plan.choices(), plan.bytes(), plan.error(), plan.bound()), (&[1, 1][..], 70, 2.0, 2.0));
        let plan = allocate(&tensors(), Budget::Error(6.0)).unwrap();
        assert_eq!((plan.choices(), plan.bytes(), plan.error()), (&[1, 0][..], 25, 6.0));
        assert!(plan.is_optimal());
    }

    #[test]
    fn what_hurts_most_comes_first() {
        let plan = allocate(&tensors(), Budget::Bytes(25)).unwrap();
        let ranking = plan.ranking();
        assert_eq!(ranking.iter().map(|chosen| &*chosen.name).collect::<Vec<_>>(), ["b", "a"]);
        assert!((ranking[0].share - 4.0 / 6.0).abs() < 1e-15);
        assert_eq!(ranking[0].better.as_ref().unwrap().bytes, 50);
        let text = plan.to_string();
        assert!(text.lines().nth(1).unwrap().starts_with("b ") && text.ends_with("optimal"), "{text}");
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let error = allocate(&tensors(), Budget::Bytes(14)).unwrap_err();
        assert!(error.to_string().contains("the least is 15"), "{error}");
        assert!(
            allocate(&tensors(), Budget::Error(0.5)).is_err() && allocate(&tensors(), Budget::Error(f64::NAN)).is_err()
        );
        assert_eq!(allocate(&[], Budget::Bytes(1)).unwrap_err().kind(), ErrorKind::Empty);
        assert_eq!(Candidate::new("c", vec![]).unwrap_err().tensor(), Some("c"));
        assert!(Candidate::new("c", vec![choice(1, f64::NAN)]).is_err());
        let symmetric = Symmetric::new(4).unwrap();
        let measured = |x: &[f32]| Candidate::measured("c", TensorRef::from(x), &[&symmetric], 1.0);
        assert_eq!(measured(&[f32::NAN]).unwrap_err().tensor(), Some("c"));
        assert_eq!(measured(&[7.0, 1.0]).unwrap().choices()[0].error, 0.0);
    }

    #[test]
    fn sensitivities_are_checked_and_zeros_have_no_sign() {
        let symmetric = Symmetric::new(4).unwrap();
        let x = [7.0f32, 1.3];
        let measured = |sensitivity| Candidate::measured("c", TensorRef::from(&x), &[&symmetric], sensitivity);
        for bad in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -f64::MIN_POSITIVE] {
            let error = measured(bad).unwrap_err();
            assert_eq!((error.kind(), error.tensor()), (ErrorKind::Argument, Some("c")));
            assert!(error.to_string().contains("sensitivity"), "{error}");
        }
        // Finite, but not what it makes of the error.
        assert!(measured(f64::MAX).is_ok());
        let far = Candidate::measured("c", TensorRef::from(&[3e38f32, 2e37]), &[&symmetric], f64::MAX);
        assert!(far.unwrap_err().to_string().contains("error is inf"));
        for zero in [measured(-0.0), Candidate::new("c", vec![choice(1, -0.0)])] {
            assert_eq!(zero.unwrap().choices()[0].error.to_bits(), 0);
        }
        // The lighter of two without error, whatever the signs.
        let signs = Candidate::new("c", vec![choice(9, -0.0), choice(4, 0.0), choice(7, -0.0)]).unwrap();
        let plan = allocate(&[signs], Budget::Error(-0.0)).unwrap();
        assert_eq!((plan.choices(), plan.bytes(), plan.error().to_bits()), (&[1][..], 4, 0));
    }

    #[test]
    fn a_loss_tells_the_error() {
        let symmetric = Symmetric::new(4).unwrap();
        let loss = |decoded: &[f32]| Ok(f64::from(decoded[0]) - 10.0);
        let candidate = Candidate::calibrated("c", TensorRef::from(&[12.0f32]), &[&symmetric], loss).unwrap();
        assert_eq!(candidate.choices(), [Choice { label: "4-bit".into(), bytes: 5, error: 2.0 }]);
        let worse = Candidate::calibrated("c", TensorRef::from(&[7.0f32]), &[&symmetric], loss).unwrap();
        assert_eq!(worse.choices()[0].error, 0.0);
        let kept = worse.with_choice(choice(4, 0.0)).unwrap();
        assert_eq!(kept.choices().len(), 2);
    }

    #[test]
    fn budgets_that_are_sums_of_the_errors_are_met() {
        let tensor = |errors: [f64; 2]| {
            let choices =
                errors.iter().enumerate().map(|(i, &error)| choice(10 * (i + 1) * (errors[0] * 100.0) as usize, error));
            Candidate::new("t", choices.collect()).unwrap()
        };
        let tensors = [tensor([0.3, 0.03]), tensor([0.2, 0.01]), tensor([0.1, 0.02])];
        assert_eq!(allocate(&tensors, Budget::Error(0.3 + 0.2 + 0.1)).unwrap().choices(), [0, 0, 0]);
        for bytes in (600..1200).step_by(10) {
            let plan = allocate(&tensors, Budget::Bytes(bytes)).unwrap();
            assert_eq!(allocate(&tensors, Budget::Error(plan.error())).unwrap().bytes(), plan.bytes());
        }
        assert_eq!(allocate(&tensors, Budget::Error(f64::INFINITY)).unwrap().error(), 0.6);
        let huge = || Candidate::new("h", vec![choice(1, f64::MAX)]).unwrap();
        assert!(allocate(&[huge(), huge()], Budget::Error(f64::INFINITY)).is_err());
        assert!(Candidate::new("b", vec![choice((1 << 53) + 1, 0.0)]).is_err());
        let tiny = Candidate::new("s", vec![choice(1, 1e-320), choice(1_000_000, 0.0)]).unwrap();
        assert_eq!(allocate(&[tiny.clone(), tiny], Budget::Error(1e-320)).unwrap().bytes(), 1_000_001);
    }
}
