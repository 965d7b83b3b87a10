//! A learning rate that falls when the loss no longer does.

use super::hyper::{count, non_negative};
use crate::{
    config::config,
    error::{Error, Result},
    traits::Resume,
};

/// Reduces a learning rate on a plateau, as PyTorch's `ReduceLROnPlateau` does: unlike a [`Schedule`](super::Schedule) it depends on the
/// losses seen, so it has a state, which a [checkpoint](crate::format) keeps.
///
/// For each loss observed, with the best one so far `b` (infinite at first):
///
/// ```text
/// better  = loss < b * (1 - threshold)          relative;  loss < b - threshold    absolute
/// better: b = loss, bad = 0                      else bad = bad + 1
/// cooling > 0: cooling = cooling - 1, bad = 0
/// bad > patience: rate = max(rate * factor, least) where that is less by more than eps; cooling = cooldown, bad = 0
/// ```
///
/// To watch something that should rise, pass its negative with an absolute threshold.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `rate` | – | `>= 0` | the one to begin with |
/// | `factor` | 0.1 | `0 <= factor < 1` | by how much the rate falls |
/// | `patience` | 10 | | losses that may be no better |
/// | `threshold` | 1e-4 | `>= 0` | what counts as better |
/// | `absolute` | off | | the threshold is a difference, not a share |
/// | `cooldown` | 0 | | losses after a fall that do not count |
/// | `least` | 0 | `>= 0` | the rate falls no further |
/// | `eps` | 1e-8 | `>= 0` | a fall that is no more is left out |
///
/// ```
/// use lapidary::{LearningRate, optim::{Plateau, Sgd}};
/// let mut sgd = Sgd::new(0.1)?;
/// let mut plateau = Plateau::new(sgd.learning_rate())?.with_patience(2);
/// for loss in [1.0, 0.5, 0.5, 0.5, 0.5] {
///     sgd.set_learning_rate(plateau.observe(loss))?;
/// }
/// assert!((sgd.learning_rate() - 0.01).abs() < 1e-12);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plateau {
    rate: f64,
    factor: f64,
    patience: u64,
    threshold: f64,
    absolute: bool,
    cooldown: u64,
    least: f64,
    eps: f64,
    best: f64,
    bad: u64,
    cooling: u64,
}

impl Plateau {
    /// A rate to begin with.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn new(rate: f64) -> Result<Self> {
        Ok(Self {
            rate: non_negative("rate", rate)?,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            absolute: false,
            cooldown: 0,
            least: 0.0,
            eps: 1e-8,
            best: f64::INFINITY,
            bad: 0,
            cooling: 0,
        })
    }

    /// Sets by how much the rate falls.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in `0 <= factor < 1`.
    pub fn with_factor(self, factor: f64) -> Result<Self> {
        if non_negative("factor", factor)? >= 1.0 {
            return Err(Error::argument("factor", factor, "less than 1"));
        }
        Ok(Self { factor, ..self })
    }

    /// Sets how many losses may be no better.
    #[must_use]
    pub fn with_patience(self, patience: u64) -> Self {
        Self { patience, ..self }
    }

    /// A loss counts as better when it is less by this share of the best one.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_relative_threshold(self, threshold: f64) -> Result<Self> {
        Ok(Self { threshold: non_negative("threshold", threshold)?, absolute: false, ..self })
    }

    /// A loss counts as better when it is less by this.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_absolute_threshold(self, threshold: f64) -> Result<Self> {
        Ok(Self { threshold: non_negative("threshold", threshold)?, absolute: true, ..self })
    }

    /// Sets how many losses after a fall do not count.
    #[must_use]
    pub fn with_cooldown(self, cooldown: u64) -> Self {
        Self { cooldown, ..self }
    }

    /// Sets the rate below which it does not fall.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_least(self, least: f64) -> Result<Self> {
        Ok(Self { least: non_negative("least", least)?, ..self })
    }

    /// Sets the fall that is left out.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it is not in 0 ..= 3.4e38.
    pub fn with_eps(self, eps: f64) -> Result<Self> {
        Ok(Self { eps: non_negative("eps", eps)?, ..self })
    }

    /// The rate of the next step.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The best loss so far; infinite before the first.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.best
    }

    /// Sees a loss, and gives the rate of the next step. A NaN is no better than any other.
    pub fn observe(&mut self, loss: f64) -> f64 {
        let bound = if self.absolute { self.best - self.threshold } else { self.best * (1.0 - self.threshold) };
        if loss < bound {
            self.best = loss;
            self.bad = 0;
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            self.cooling -= 1;
            self.bad = 0;
        }
        if self.bad > self.patience {
            let rate = (self.rate * self.factor).max(self.least);
            if self.rate - rate > self.eps {
                self.rate = rate;
            }
            self.cooling = self.cooldown;
            self.bad = 0;
        }
        self.rate
    }
}

config! {
    Plateau(rate: f64) => Self::new(rate),
    factor: f64 => Self::with_factor,
    patience: u64 => Self::with_patience,
    absolute: bool => |it, _| it.with_absolute_threshold(it.threshold),
    threshold: f64 => |it, threshold| match it.absolute {
        true => it.with_absolute_threshold(threshold),
        false => it.with_relative_threshold(threshold),
    },
    cooldown: u64 => Self::with_cooldown,
    least: f64 => Self::with_least,
    eps: f64 => Self::with_eps,
}

impl Resume for Plateau {
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        vec![("rate", self.rate), ("best", self.best), ("bad", self.bad as f64), ("cooling", self.cooling as f64)]
    }

    fn resume(&mut self, number: &dyn Fn(&str) -> Result<f64>) -> Result<()> {
        let (rate, best) = (non_negative("rate", number("rate")?)?, number("best")?);
        if best.is_nan() {
            return Err(Error::argument("best", "NaN", "a loss"));
        }
        let (bad, cooling) = (count("bad", number("bad")?)?, count("cooling", number("cooling")?)?);
        *self = Self { rate, best, bad, cooling, ..*self };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_where_it_was() {
        let new = || Plateau::new(1.0).unwrap().with_patience(1).with_cooldown(2).with_factor(0.5).unwrap();
        let losses = [5.0, 4.0, 4.0, f64::NAN, 4.0, 4.0, 4.0, 4.0, 3.0];
        let mut whole = new();
        losses.iter().for_each(|&loss| _ = whole.observe(loss));
        for cut in 0..losses.len() {
            let mut first = new();
            losses[..cut].iter().for_each(|&loss| _ = first.observe(loss));
            let numbers = first.numbers();
            let mut second = new();
            second.resume(&|name| Ok(numbers.iter().find(|(n, _)| *n == name).unwrap().1)).unwrap();
            losses[cut..].iter().for_each(|&loss| _ = second.observe(loss));
            assert_eq!(second, whole);
        }
        assert_eq!((whole.rate(), whole.best()), (0.25, 3.0));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let plateau = Plateau::new(0.1).unwrap();
        assert!(Plateau::new(-1.0).is_err() && plateau.with_factor(1.0).is_err() && plateau.with_eps(-1.0).is_err());
        assert!(plateau.with_least(f64::NAN).is_err() && plateau.with_absolute_threshold(-1.0).is_err());
        assert!(Plateau::new(0.1).unwrap().resume(&|_| Ok(f64::NAN)).is_err());
    }
}
