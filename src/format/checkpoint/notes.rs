//! What a checkpoint says beside its tensors, as JSON.

use crate::{
    element::Element,
    optim::Params,
    tensor::{Slot, State},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::collections::BTreeMap;

/// The notes of a whole checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notes {
    /// Of each group; `None` when there is no `Params`.
    pub(super) learning_rates: Option<Vec<Number>>,
    /// By name.
    pub(super) states: BTreeMap<String, StateNote>,
    /// What was resumable, by name: its numbers, by name.
    pub(super) objects: BTreeMap<String, BTreeMap<String, Number>>,
    /// The caller's.
    pub(super) numbers: BTreeMap<String, Number>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateNote {
    pub(super) algorithm: String,
    pub(super) steps: u64,
    /// The parameter's.
    pub(super) shape: Vec<usize>,
    /// Name and form of each, in order.
    pub(super) slots: Vec<(String, String)>,
    /// In order.
    pub(super) scalars: Vec<(String, Number)>,
    /// Of a parameter of the `Params`.
    pub(super) param: Option<ParamNote>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamNote {
    pub(super) group: usize,
    pub(super) frozen: bool,
    pub(super) masked: bool,
}

impl StateNote {
    pub(super) fn of(state: &State, param: Option<ParamNote>) -> Self {
        let slot = |slot: &Slot| (slot.name().to_string(), slot.values().form().to_string());
        Self {
            algorithm: state.algorithm().into(),
            steps: state.steps(),
            shape: state.shape().into(),
            slots: state.slots().iter().map(slot).collect(),
            scalars: state.scalars().map(|(name, value)| (name.to_string(), Number(value))).collect(),
            param,
        }
    }
}

pub(super) fn learning_rates<T: Element>(params: &Params<T>) -> Vec<Number> {
    params.learning_rates().map(Number).collect()
}

/// A number as the shortest text that is read as the same bits: JSON has no infinity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number(pub(super) f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom(format!("{text:?} is not a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_keep_their_bits(x in prop::num::f64::ANY) {
            let back: Number = serde_json::from_str(&serde_json::to_string(&Number(x)).unwrap()).unwrap();
            prop_assert!(back.0.to_bits() == x.to_bits() || back.0.is_nan() && x.is_nan());
        }
    }
}
