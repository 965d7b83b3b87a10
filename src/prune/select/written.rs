//! Selections as `serde` has them: an amount by the name of the method that makes a selection of it, and what else was asked.

use super::{Amount, Select, Units, whole};
use crate::{
    config::{config, open::Number},
    error::Result,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Kind {
    Sparsity(f64),
    Overall(f64),
    Count(usize),
    Above(Number),
    NOfM { keep: usize, of: usize },
    Budget(u64),
}

impl Kind {
    fn of(select: &Select) -> Self {
        match select.amount {
            Amount::Of { keep, of } => Self::NOfM { keep, of },
            Amount::Other(whole::Amount::Share(share)) => Self::Sparsity(share),
            Amount::Other(whole::Amount::Overall(share)) => Self::Overall(share),
            Amount::Other(whole::Amount::Count(count)) => Self::Count(count),
            Amount::Other(whole::Amount::Above(threshold)) => Self::Above(Number(threshold)),
            Amount::Other(whole::Amount::Cost(cost)) => Self::Budget(cost),
        }
    }

    fn select(self) -> Result<Select> {
        match self {
            Self::Sparsity(share) => Select::sparsity(share),
            Self::Overall(share) => Select::overall(share),
            Self::Count(count) => Ok(Select::count(count)),
            Self::Above(Number(threshold)) => Select::above(threshold),
            Self::NOfM { keep, of } => Select::n_of_m(keep, of),
            Self::Budget(cost) => Ok(Select::budget(cost)),
        }
    }
}

config! {
    Select(amount: Kind = Kind::of) => amount.select(),
    per_row: bool => |it, _| it.per_row(),
    units: Option<Units> => |it, units| match units {
        Some(Units::Slices { axis }) => Ok(it.along(axis)),
        Some(Units::Blocks { rows, cols }) => it.in_blocks(rows, cols),
        None => Ok(it),
    },
    norm: Option<Number> = |it| it.reduce.norm.map(Number) => |it, norm| norm.map_or(Ok(it), |norm| it.with_norm(norm.0)),
    mean: bool = |it| it.reduce.mean => |it, _| it.with_mean(),
    min_kept: usize => Self::with_min_kept,
}
