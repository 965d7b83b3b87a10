//! Learning rates as a function of the steps taken.

#[cfg(feature = "serde")]
mod written;

use super::hyper::{non_negative, positive};
use crate::error::{Error, Result};
use std::f64::consts::PI;

/// A learning rate for each step: a pure function of the number of steps taken, so that a resumed run needs to remember
/// nothing else. PyTorch's schedulers of the same names give the same rates.
///
/// With `r` the base rate and `k` the steps taken (0 before the first):
///
/// | constructor | rate |
/// |---|---|
/// | [`constant`](Schedule::constant) | `r` |
/// | [`step`](Schedule::step) | `r * gamma^floor(k / size)` |
/// | [`multi_step`](Schedule::multi_step) | `r * gamma^(milestones not above k)` |
/// | [`exponential`](Schedule::exponential) | `r * gamma^k` |
/// | [`linear`](Schedule::linear) | `r * (start + (end - start) * min(k, total) / total)` |
/// | [`polynomial`](Schedule::polynomial) | `r * (1 - min(k, total) / total)^power` |
/// | [`cosine`](Schedule::cosine) | `least + (r - least) * (1 + cos(pi * k / period)) / 2` |
/// | [`warm_restarts`](Schedule::warm_restarts) | the cosine's fall, begun anew after each cycle (Loshchilov & Hutter 2017, arXiv:1608.03983) |
/// | [`one_cycle`](Schedule::one_cycle) | up by a cosine to `r` and down again (Smith & Topin 2018, arXiv:1708.07120) |
/// | [`inverse_sqrt`](Schedule::inverse_sqrt) | `r * sqrt(scale / max(k, scale))` |
/// | [`then`](Schedule::then) | this one for some steps, then another from its beginning |
/// | [`with_warm_up`](Schedule::with_warm_up) | a linear rise, then this one from its beginning |
///
/// ```
/// use lapidary::{LearningRate, optim::{AdamW, Schedule}};
/// let schedule = Schedule::cosine(1e-3, 1000, 0.0)?.with_warm_up(100, 0.1)?;
/// let mut adamw = AdamW::new(schedule.rate(0))?;
/// for step in 0..1100 {
///     adamw.set_learning_rate(schedule.rate(step))?;
///     // adamw.step(…)
/// }
/// assert!(schedule.rate(0) == 1e-4 && schedule.rate(100) == 1e-3 && schedule.rate(1100) < 1e-9);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "written::Written", try_from = "written::Written"))]
pub struct Schedule {
    base: f64,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Constant,
    Step { size: u64, gamma: f64 },
    MultiStep { milestones: Vec<u64>, gamma: f64 },
    Exponential { gamma: f64 },
    Linear { start: f64, end: f64, total: u64 },
    Polynomial { total: u64, power: f64 },
    Cosine { period: u64, least: f64 },
    WarmRestarts { first: u64, growth: u64, least: f64 },
    OneCycle { total: u64, rise: f64, divisor: f64, final_divisor: f64 },
    InverseSqrt { scale: u64 },
    Then { first: Box<Schedule>, until: u64, next: Box<Schedule> },
}

impl Schedule {
    fn new(rate: f64, shape: Shape) -> Result<Self> {
        Ok(Self { base: non_negative("rate", rate)?, shape })
    }

    /// Always the same rate.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when the rate is not in 0 ..= 3.4e38, as in all of these.
    pub fn constant(rate: f64) -> Result<Self> {
        Self::new(rate, Shape::Constant)
    }

    /// Times `gamma` after each `size` steps.
    ///
    /// # Errors
    /// Also when `size` is 0 or `gamma` is not in 0 ..= 3.4e38.
    pub fn step(rate: f64, size: u64, gamma: f64) -> Result<Self> {
        Self::new(rate, Shape::Step { size: at_least_one("size", size)?, gamma: non_negative("gamma", gamma)? })
    }

    /// Times `gamma` at each of some steps.
    ///
    /// # Errors
    /// Also when `gamma` is not in 0 ..= 3.4e38.
    pub fn multi_step(rate: f64, milestones: &[u64], gamma: f64) -> Result<Self> {
        Self::new(rate, Shape::MultiStep { milestones: milestones.into(), gamma: non_negative("gamma", gamma)? })
    }

    /// Times `gamma` at each step.
    ///
    /// # Errors
    /// Also when `gamma` is not in 0 ..= 3.4e38.
    pub fn exponential(rate: f64, gamma: f64) -> Result<Self> {
        Self::new(rate, Shape::Exponential { gamma: non_negative("gamma", gamma)? })
    }

    /// From the share `start` of the rate to the share `end` in `total` steps, then `end`.
    ///
    /// # Errors
    /// Also when `total` is 0 or a share is not in 0 ..= 3.4e38.
    pub fn linear(rate: f64, start: f64, end: f64, total: u64) -> Result<Self> {
        let (start, end) = (non_negative("start", start)?, non_negative("end", end)?);
        Self::new(rate, Shape::Linear { start, end, total: at_least_one("total", total)? })
    }

    /// To 0 in `total` steps, by a power of what is left.
    ///
    /// # Errors
    /// Also when `total` is 0 or `power` is not in 0 ..= 3.4e38.
    pub fn polynomial(rate: f64, total: u64, power: f64) -> Result<Self> {
        Self::new(
            rate,
            Shape::Polynomial { total: at_least_one("total", total)?, power: non_negative("power", power)? },
        )
    }

    /// Down to `least` in `period` steps by half a cosine, and up again if it goes on.
    ///
    /// # Errors
    /// Also when `period` is 0 or `least` is not in 0 ..= 3.4e38.
    pub fn cosine(rate: f64, period: u64, least: f64) -> Result<Self> {
        let (period, least) = (at_least_one("period", period)?, non_negative("least", least)?);
        Self::new(rate, Shape::Cosine { period, least })
    }

    /// Down to `least` by half a cosine in `first` steps, again in `first * growth`, and so on.
    ///
    /// # Errors
    /// Also when `first` or `growth` is 0 or `least` is not in 0 ..= 3.4e38.
    pub fn warm_restarts(rate: f64, first: u64, growth: u64, least: f64) -> Result<Self> {
        let (first, growth) = (at_least_one("first", first)?, at_least_one("growth", growth)?);
        Self::new(rate, Shape::WarmRestarts { first, growth, least: non_negative("least", least)? })
    }

    /// Up to the rate in the share `rise` of `total` steps and down in the rest, by cosines; from `rate / divisor`, to that
    /// over `final_divisor` (PyTorch: 0.3, 25, 1e4). After `total` steps the last rate stays.
    ///
    /// # Errors
    /// Also when `total` is 0, `rise` is not in 0 ..= 1 or a divisor is not above 0.
    pub fn one_cycle(rate: f64, total: u64, rise: f64, divisor: f64, final_divisor: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&rise) {
            return Err(Error::argument("rise", rise, "from 0 to 1"));
        }
        let (divisor, final_divisor) = (positive("divisor", divisor)?, positive("final_divisor", final_divisor)?);
        Self::new(rate, Shape::OneCycle { total: at_least_one("total", total)?, rise, divisor, final_divisor })
    }

    /// The rate for `scale` steps, then falling by the inverse square root of the steps.
    ///
    /// # Errors
    /// Also when `scale` is 0.
    pub fn inverse_sqrt(rate: f64, scale: u64) -> Result<Self> {
        Self::new(rate, Shape::InverseSqrt { scale: at_least_one("scale", scale)? })
    }

    /// This one for `until` steps, then `next` from its beginning.
    #[must_use]
    pub fn then(self, until: u64, next: Self) -> Self {
        Self { base: self.base, shape: Shape::Then { first: Box::new(self), until, next: Box::new(next) } }
    }

    /// A linear rise in `steps` steps from the share `start` of this one's base rate, then this one from its beginning.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `steps` is 0 or `start` is not in 0 ..= 3.4e38.
    pub fn with_warm_up(self, steps: u64, start: f64) -> Result<Self> {
        Ok(Self::linear(self.base, start, 1.0, steps)?.then(steps, self))
    }

    /// The rate of the next step when `taken` steps were taken.
    #[must_use]
    pub fn rate(&self, taken: u64) -> f64 {
        let (base, k) = (self.base, taken as f64);
        match &self.shape {
            Shape::Constant => base,
            Shape::Step { size, gamma } => base * libm::pow(*gamma, (taken / size) as f64),
            Shape::MultiStep { milestones, gamma } => {
                base * libm::pow(*gamma, milestones.iter().filter(|&&milestone| milestone <= taken).count() as f64)
            }
            Shape::Exponential { gamma } => base * libm::pow(*gamma, k),
            Shape::Linear { start, end, total } => {
                base * (start + (end - start) * taken.min(*total) as f64 / *total as f64)
            }
            Shape::Polynomial { total, power } => {
                base * libm::pow(1.0 - taken.min(*total) as f64 / *total as f64, *power)
            }
            Shape::Cosine { period, least } => half_cosine(base, *least, k / *period as f64),
            Shape::WarmRestarts { first, growth, least } => {
                let (mut left, mut cycle) = (taken, *first);
                if *growth == 1 {
                    left %= cycle;
                }
                while left >= cycle {
                    left -= cycle;
                    cycle = cycle.saturating_mul(*growth);
                }
                half_cosine(base, *least, left as f64 / cycle as f64)
            }
            Shape::OneCycle { total, rise, divisor, final_divisor } => {
                let start = base / divisor;
                let end = start / final_divisor;
                let (last, top) = (*total as f64 - 1.0, rise * *total as f64 - 1.0);
                let k = k.min(last);
                // At a top of 0 steps or less there is no rise.
                if k <= top && top > 0.0 {
                    half_cosine(start, base, k / top)
                } else if last > top {
                    half_cosine(base, end, (k - top) / (last - top))
                } else {
                    end
                }
            }
            Shape::InverseSqrt { scale } => base * (*scale as f64 / taken.max(*scale) as f64).sqrt(),
            Shape::Then { first, until, next } => {
                if taken < *until {
                    first.rate(taken)
                } else {
                    next.rate(taken - until)
                }
            }
        }
    }
}

/// From `from` to `to` by half a cosine, at a place from 0 to 1.
fn half_cosine(from: f64, to: f64, place: f64) -> f64 {
    to + (from - to) * (1.0 + libm::cos(PI * place)) / 2.0
}

fn at_least_one(name: &'static str, value: u64) -> Result<u64> {
    if value == 0 { Err(Error::argument(name, value, "at least 1")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_begins_and_ends_where_it_says() {
        let check = |schedule: Schedule, rates: &[(u64, f64)]| {
            for &(k, rate) in rates {
                assert!((schedule.rate(k) - rate).abs() < 1e-12, "{schedule:?} {k}: {}", schedule.rate(k));
            }
        };
        check(Schedule::cosine(1.0, 10, 0.2).unwrap(), &[(0, 1.0), (5, 0.6), (10, 0.2), (20, 1.0)]);
        check(Schedule::warm_restarts(1.0, 2, 3, 0.0).unwrap(), &[(0, 1.0), (1, 0.5), (2, 1.0), (5, 0.5), (8, 1.0)]);
        check(Schedule::one_cycle(1.0, 10, 0.5, 4.0, 10.0).unwrap(), &[(0, 0.25), (4, 1.0), (9, 0.025), (99, 0.025)]);
        check(Schedule::inverse_sqrt(1.0, 4).unwrap(), &[(0, 1.0), (4, 1.0), (16, 0.5)]);
        let chain = Schedule::constant(1.0).unwrap().then(3, Schedule::exponential(4.0, 0.5).unwrap());
        check(chain.with_warm_up(2, 0.0).unwrap(), &[(0, 0.0), (1, 0.5), (2, 1.0), (4, 1.0), (5, 4.0), (6, 2.0)]);
        assert_eq!(Schedule::warm_restarts(1.0, 1, 1, 0.0).unwrap().rate(u64::MAX), 1.0);
        assert!(Schedule::one_cycle(1.0, 1, 1.0, 25.0, 1e4).unwrap().rate(0).is_finite());
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(Schedule::constant(-1.0).is_err() && Schedule::step(1.0, 0, 0.1).is_err());
        assert!(Schedule::linear(1.0, 0.0, 1.0, 0).is_err() && Schedule::cosine(1.0, 0, 0.0).is_err());
        assert!(Schedule::warm_restarts(1.0, 1, 0, 0.0).is_err() && Schedule::inverse_sqrt(1.0, 0).is_err());
        assert!(Schedule::one_cycle(1.0, 10, 1.1, 25.0, 1e4).is_err() && Schedule::exponential(1.0, f64::NAN).is_err());
    }
}
