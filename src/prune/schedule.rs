//! Sparsity as a function of the steps taken.

use super::select::{Select, check_share};
use crate::{
    config::config,
    error::{Error, Result},
};
use std::ops::RangeInclusive;

/// When to prune during training, and how far: a pure function of the number of the step, so that a resumed run needs
/// to remember nothing but its masks.
///
/// With `b` and `e` the first and the last step at which it prunes (`begin`, `end`), `s` the sparsity in the end (`sparsity`), `s0` the
/// [`initial`](SparsitySchedule::with_initial) one, 0 by default:
///
/// | constructor | prunes at | sparsity then |
/// |---|---|---|
/// | [`one_shot`](SparsitySchedule::one_shot) | `b` | `s` |
/// | [`linear`](SparsitySchedule::linear) | `b, b + every, ..` and `e` | `s + (s0 - s) * (1 - (step - b) / (e - b))` |
/// | [`cubic`](SparsitySchedule::cubic) | as that | `s + (s0 - s) * (1 - (step - b) / (e - b))^3` (Zhu & Gupta 2017, arXiv:1710.01878) |
/// | [`polynomial`](SparsitySchedule::polynomial) | as that | the same with any power, as `PolynomialDecay` of TF-MOT |
/// | [`iterative`](SparsitySchedule::iterative) | `b, b + every, ..`, `n` times | `1 - (1 - s0) * ((1 - s) / (1 - s0))^(j / n)` after the `j`-th: each takes the same share of what is left |
///
/// [`at`](SparsitySchedule::at) gives the [selection](Select::overall) of a step that prunes. It counts from all
/// elements, so that roundings do not add up and the last pruning ends at `round(s * n)` exactly; a pruning that was
/// left out is made up for by the next. Elements never come back: what also moves them is [`RigL`](super::RigL).
///
/// ```
/// use lapidary::{Mask, Optimizer, OptimizerExt, Pruner, Step, optim::Sgd, prune::{Magnitude, SparsitySchedule}};
/// let (sgd, schedule) = (Sgd::new(0.1)?, SparsitySchedule::cubic(0.9, 10..=50, 10)?);
/// let mut weights: Vec<f32> = (1..=100).map(|i| i as f32).collect();
/// let (mut state, mut mask) = (sgd.init(&weights)?, Mask::keep_all(&[100])?);
/// for step in 0..60 {
///     if let Some(select) = schedule.at(step) {
///         select.by(Magnitude).refine((&weights).into(), &mut mask)?;
///     }
///     let gradient = weights.clone();
///     sgd.step(Step::new(&mut weights, &gradient, &mut state).mask(&mask))?;
/// }
/// assert_eq!(mask.kept(), 10);
/// assert_eq!(weights.iter().filter(|&&w| w != 0.0).count(), 10);
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// Many tensors as one, with the refinements of a selection:
///
/// ```
/// use lapidary::{Mask, prune::{Scores, SparsitySchedule}};
/// let schedule = SparsitySchedule::iterative(0.75, 0, 1, 2)?;
/// let (a, b) = ([0.1f32, 3.0, 0.2, 4.0], [2.0f32, 0.05, 1.0, 0.3]);
/// let mut masks = [Mask::keep_all(&[4])?, Mask::keep_all(&[4])?];
/// for (step, left) in [(0, 4), (1, 2)] {
///     if let Some(select) = schedule.at(step) {
///         select.with_min_kept(1).refine(&[Scores::magnitude(&a), Scores::magnitude(&b)], &mut masks)?;
///     }
///     assert_eq!(masks[0].kept() + masks[1].kept(), left);
/// }
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparsitySchedule {
    initial: f64,
    last: f64,
    begin: u64,
    end: u64,
    every: u64,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
enum Shape {
    Polynomial { power: f64 },
    Geometric { prunings: u64 },
}

impl SparsitySchedule {
    fn new(sparsity: f64, steps: RangeInclusive<u64>, every: u64, shape: Shape) -> Result<Self> {
        let (begin, end) = steps.into_inner();
        if begin > end {
            return Err(Error::argument("steps", format!("{begin}..={end}"), "at least one"));
        }
        if every == 0 {
            return Err(Error::argument("every", every, "at least 1"));
        }
        Ok(Self { initial: 0.0, last: check_share(sparsity)?, begin, end, every, shape })
    }

    /// Once, at a step.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the sparsity is not in 0..=1, as in all of these.
    pub fn one_shot(sparsity: f64, step: u64) -> Result<Self> {
        Self::linear(sparsity, step..=step, 1)
    }

    /// By about the same number each time.
    ///
    /// # Errors
    /// Also when there is no step, or `every` is 0.
    pub fn linear(sparsity: f64, steps: RangeInclusive<u64>, every: u64) -> Result<Self> {
        Self::polynomial(sparsity, steps, every, 1.0)
    }

    /// Fast while much is redundant, slowly towards the end: automated gradual pruning.
    ///
    /// # Errors
    /// Also when there is no step, or `every` is 0.
    pub fn cubic(sparsity: f64, steps: RangeInclusive<u64>, every: u64) -> Result<Self> {
        Self::polynomial(sparsity, steps, every, 3.0)
    }

    /// As [`cubic`](SparsitySchedule::cubic) with another power: the larger, the more goes early.
    ///
    /// # Errors
    /// Also when there is no step, `every` is 0, or the power is not positive and finite.
    pub fn polynomial(sparsity: f64, steps: RangeInclusive<u64>, every: u64, power: f64) -> Result<Self> {
        if !(power > 0.0 && power.is_finite()) {
            return Err(Error::argument("power", power, "above 0, and finite"));
        }
        Self::new(sparsity, steps, every, Shape::Polynomial { power })
    }

    /// `prunings` times from the step `begin` on, each an equal share of what is left, as lottery tickets are found
    /// (Frankle & Carbin 2019, arXiv:1803.03635). With a sparsity of 1 the first takes all.
    ///
    /// # Errors
    /// Also when `every` or `prunings` is 0, or the last step is beyond 2^64.
    pub fn iterative(sparsity: f64, begin: u64, every: u64, prunings: u64) -> Result<Self> {
        let Some(rest) = prunings.checked_sub(1) else {
            return Err(Error::argument("prunings", prunings, "at least 1"));
        };
        let end = rest.checked_mul(every).and_then(|steps| steps.checked_add(begin));
        let end = end.ok_or_else(|| Error::argument("prunings", prunings, "few enough to end before step 2^64"))?;
        Self::new(sparsity, begin..=end, every, Shape::Geometric { prunings })
    }

    /// What is pruned before the first step counts in: the schedule rises from this sparsity.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless it is from 0 to the sparsity in the end.
    pub fn with_initial(self, sparsity: f64) -> Result<Self> {
        if (0.0..=self.last).contains(&sparsity) {
            // A negative zero is a share of nothing too.
            return Ok(Self { initial: sparsity + 0.0, ..self });
        }
        Err(Error::argument("initial sparsity", sparsity, "from 0 to the one in the end"))
    }

    /// Whether a step, counted from 0, prunes.
    #[must_use]
    pub fn is_due(&self, step: u64) -> bool {
        let within = (self.begin..=self.end).contains(&step);
        within && ((step - self.begin).is_multiple_of(self.every) || step == self.end)
    }

    /// What a step prunes to: all tensors that are handed to it together, or each by itself. `None` where it does not.
    #[must_use]
    pub fn at(&self, step: u64) -> Option<Select> {
        if self.is_due(step) { Select::overall(self.sparsity(step)).ok() } else { None }
    }

    /// The sparsity after a step: that of the last one up to it that prunes.
    #[must_use]
    pub fn sparsity(&self, step: u64) -> f64 {
        let &Self { initial, last, begin, end, every, shape } = self;
        if step < begin {
            return initial;
        }
        if step >= end {
            return last;
        }
        let times = (step - begin) / every;
        let sparsity = match shape {
            Shape::Polynomial { .. } if times == 0 => initial,
            Shape::Polynomial { power } => {
                let left = 1.0 - (times * every) as f64 / (end - begin) as f64;
                last + (initial - last) * libm::pow(left, power)
            }
            // Nothing is left to take a share of.
            Shape::Geometric { .. } if initial == 1.0 => initial,
            Shape::Geometric { prunings } => {
                let left = (1.0 - last) / (1.0 - initial);
                1.0 - (1.0 - initial) * libm::pow(left, (times + 1) as f64 / prunings as f64)
            }
        };
        // Roundings do not lead out of it.
        sparsity.clamp(initial, last)
    }

    /// The step of the last pruning: from there on masks do not change.
    #[must_use]
    pub fn last_step(&self) -> u64 {
        self.end
    }
}

config! {
    SparsitySchedule(sparsity: f64 = |it| it.last, begin: u64, end: u64, every: u64, shape: Shape) => match shape {
        Shape::Polynomial { power } => Self::polynomial(sparsity, begin..=end, every, power),
        Shape::Geometric { prunings } => match Self::iterative(sparsity, begin, every, prunings)? {
            it if it.end == end => Ok(it),
            _ => Err(Error::argument("end", end, "the step of the last pruning")),
        },
    },
    initial: f64 => Self::with_initial,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(schedule: SparsitySchedule, steps: std::ops::Range<u64>) -> Vec<Option<f64>> {
        steps.map(|step| schedule.is_due(step).then(|| schedule.sparsity(step))).collect()
    }

    #[test]
    fn each_prunes_when_and_as_far_as_its_formula_says() {
        let one_shot = SparsitySchedule::one_shot(0.7, 3).unwrap();
        assert_eq!(at(one_shot, 2..5), [None, Some(0.7), None]);
        let linear = SparsitySchedule::linear(0.8, 2..=6, 2).unwrap().with_initial(0.4).unwrap();
        assert_eq!(at(linear, 1..8), [None, Some(0.4), None, Some(0.6000000000000001), None, Some(0.8), None]);
        // The last step prunes also where it is no multiple.
        let cubic = SparsitySchedule::cubic(0.5, 10..=20, 4).unwrap();
        let want = [10, 14, 18, 20].map(|step| 0.5 - 0.5 * (1.0 - (step - 10) as f64 / 10.0f64).powi(3));
        let got: Vec<f64> = at(cubic, 0..30).into_iter().flatten().collect();
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-15) && got.len() == 4, "{got:?}");
        assert_eq!((cubic.sparsity(9), cubic.sparsity(17), cubic.last_step()), (0.0, cubic.sparsity(14), 20));
        let halves = SparsitySchedule::iterative(0.875, 5, 10, 3).unwrap();
        assert_eq!(at(halves, 5..26).into_iter().flatten().collect::<Vec<_>>(), [0.5, 0.75, 0.875]);
        let rest = SparsitySchedule::iterative(0.75, 0, 1, 2).unwrap().with_initial(0.0).unwrap();
        assert_eq!(at(rest, 0..3), [Some(0.5), Some(0.75), None]);
        let none = SparsitySchedule::iterative(1.0, 0, 1, 3).unwrap().with_initial(1.0).unwrap();
        assert_eq!(at(none, 0..3), [Some(1.0); 3]);
    }

    #[test]
    fn extremes_stay_in_range() {
        let all = SparsitySchedule::polynomial(1.0, 0..=u64::MAX, 1, 1e-3).unwrap();
        assert_eq!((all.sparsity(0), all.sparsity(u64::MAX)), (0.0, 1.0));
        assert!((0.0..=1.0).contains(&all.sparsity(u64::MAX - 1)));
        let late = SparsitySchedule::one_shot(0.5, u64::MAX).unwrap();
        assert!(late.at(u64::MAX).is_some() && late.at(u64::MAX - 1).is_none());
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(SparsitySchedule::one_shot(1.1, 0).is_err() && SparsitySchedule::one_shot(f64::NAN, 0).is_err());
        let empty = SparsitySchedule::cubic(0.5, RangeInclusive::new(2, 1), 1);
        assert!(empty.is_err() && SparsitySchedule::cubic(0.5, 1..=2, 0).is_err());
        assert!(SparsitySchedule::polynomial(0.5, 1..=2, 1, 0.0).is_err());
        assert!(SparsitySchedule::polynomial(0.5, 1..=2, 1, f64::INFINITY).is_err());
        assert!(
            SparsitySchedule::iterative(0.5, 0, 1, 0).is_err() && SparsitySchedule::iterative(0.5, 0, 0, 1).is_err()
        );
        assert!(SparsitySchedule::iterative(0.5, 2, u64::MAX, 2).is_err());
        let half = SparsitySchedule::one_shot(0.5, 0).unwrap();
        assert!(half.with_initial(0.6).is_err() && half.with_initial(-0.1).is_err());
    }
}
