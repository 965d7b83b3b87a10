//! Schedules as `serde` has them: the name of the method that makes one, with what it takes.

use super::{Schedule, Shape};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Written {
    Constant { rate: f64 },
    Step { rate: f64, size: u64, gamma: f64 },
    MultiStep { rate: f64, milestones: Vec<u64>, gamma: f64 },
    Exponential { rate: f64, gamma: f64 },
    Linear { rate: f64, start: f64, end: f64, total: u64 },
    Polynomial { rate: f64, total: u64, power: f64 },
    Cosine { rate: f64, period: u64, least: f64 },
    WarmRestarts { rate: f64, first: u64, growth: u64, least: f64 },
    OneCycle { rate: f64, total: u64, rise: f64, divisor: f64, final_divisor: f64 },
    InverseSqrt { rate: f64, scale: u64 },
    Then { first: Box<Schedule>, until: u64, next: Box<Schedule> },
}

impl TryFrom<Written> for Schedule {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        match written {
            Written::Constant { rate } => Self::constant(rate),
            Written::Step { rate, size, gamma } => Self::step(rate, size, gamma),
            Written::MultiStep { rate, milestones, gamma } => Self::multi_step(rate, &milestones, gamma),
            Written::Exponential { rate, gamma } => Self::exponential(rate, gamma),
            Written::Linear { rate, start, end, total } => Self::linear(rate, start, end, total),
            Written::Polynomial { rate, total, power } => Self::polynomial(rate, total, power),
            Written::Cosine { rate, period, least } => Self::cosine(rate, period, least),
            Written::WarmRestarts { rate, first, growth, least } => Self::warm_restarts(rate, first, growth, least),
            Written::OneCycle { rate, total, rise, divisor, final_divisor } => {
                Self::one_cycle(rate, total, rise, divisor, final_divisor)
            }
            Written::InverseSqrt { rate, scale } => Self::inverse_sqrt(rate, scale),
            Written::Then { first, until, next } => Ok(first.then(until, *next)),
        }
    }
}

impl From<Schedule> for Written {
    fn from(Schedule { base: rate, shape }: Schedule) -> Self {
        match shape {
            Shape::Constant => Self::Constant { rate },
            Shape::Step { size, gamma } => Self::Step { rate, size, gamma },
            Shape::MultiStep { milestones, gamma } => Self::MultiStep { rate, milestones, gamma },
            Shape::Exponential { gamma } => Self::Exponential { rate, gamma },
            Shape::Linear { start, end, total } => Self::Linear { rate, start, end, total },
            Shape::Polynomial { total, power } => Self::Polynomial { rate, total, power },
            Shape::Cosine { period, least } => Self::Cosine { rate, period, least },
            Shape::WarmRestarts { first, growth, least } => Self::WarmRestarts { rate, first, growth, least },
            Shape::OneCycle { total, rise, divisor, final_divisor } => {
                Self::OneCycle { rate, total, rise, divisor, final_divisor }
            }
            Shape::InverseSqrt { scale } => Self::InverseSqrt { rate, scale },
            Shape::Then { first, until, next } => Self::Then { first, until, next },
        }
    }
}
