//! Mixed bits: for each weight one of its ways, so that all together keep within a budget.

use crate::{
    error::{Error, Result},
    quant::{self, Candidate, Choice, allocate},
};

/// What is limited when the bits of each weight are chosen; the other of size and error is made as small as can be, by
/// [`allocate`]. Errors are sums of squares of the differences, all weights alike.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Budget {
    /// The output, with the file of its weights, is at most so many bytes.
    File(u64),
    /// What holds the weights in the report is at most so many bytes, those that stay as they are among them.
    Weights(u64),
    /// The error of all weights that may be changed is at most this share of their size: `‖w - w'‖ / ‖w‖`, of 2-norms. What is
    /// pruned is part of it.
    Error(#[cfg_attr(feature = "serde", serde(deserialize_with = "error"))] f64),
}

#[cfg(feature = "serde")]
fn error<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    crate::config::checked(from, |error| Budget::Error(error).check().map(|_| error))
}

impl Budget {
    pub(super) fn check(self) -> Result<Self> {
        match self {
            Self::Error(error) if !(error >= 0.0 && error.is_finite()) => {
                Err(Error::argument("budget of error", error, "finite and at least 0"))
            }
            other => Ok(other),
        }
    }
}

/// A way to keep a weight, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Offer {
    pub(super) bytes: u64,
    /// The sum of the squares of its errors.
    pub(super) noise: f64,
}

/// A weight and its ways.
#[derive(Debug, Clone)]
pub(super) struct Offers {
    pub(super) name: String,
    /// The sum of the squares of its elements.
    pub(super) signal: f64,
    pub(super) ways: Vec<Offer>,
}

/// What a budget is kept of: an output for a way of each weight, and its length.
type Build<'a, R> = &'a mut dyn FnMut(&[usize]) -> Result<(R, u64)>;

/// Tries of other limits where the length of the file is not the sum of its weights'.
const TRIES: usize = 12;

/// Chooses a way for each weight. `others` are the bytes of weights that have but one.
pub(super) fn choose<R>(weights: &[Offers], others: u64, budget: Budget, build: Build<'_, R>) -> Result<R> {
    let smallest =
        |weight: &Offers| (0..weight.ways.len()).min_by_key(|&way| weight.ways.get(way).map(|way| way.bytes));
    let least: Vec<usize> = weights.iter().map(|weight| smallest(weight).unwrap_or(0)).collect();
    let least_bytes: u64 = sum(weights, &least);
    if weights.is_empty() {
        let (built, len) = build(&[])?;
        return match budget {
            Budget::File(limit) if len > limit => Err(Error::budget(FILE, limit, len)),
            Budget::Weights(limit) if others > limit => Err(Error::budget(WEIGHTS, limit, others)),
            _ => Ok(built),
        };
    }
    let candidates = weights.iter().map(Offers::candidate).collect::<Result<Vec<_>>>()?;
    let pick = |limit: quant::Budget| allocate(&candidates, limit).map(|found| found.choices().to_vec());
    match budget {
        Budget::Error(relative) => {
            let signal: f64 = weights.iter().map(|weight| weight.signal).sum();
            let noise = |weight: &Offers| weight.ways.iter().map(|way| way.noise).fold(f64::INFINITY, f64::min);
            let (limit, least): (f64, f64) = (relative * relative * signal, weights.iter().map(noise).sum());
            if least > limit {
                return Err(Error::budget(ERROR, relative, (least / signal).sqrt()));
            }
            build(&pick(quant::Budget::Error(limit))?).map(|(built, _)| built)
        }
        Budget::Weights(limit) => match limit.checked_sub(others).filter(|&limit| limit >= least_bytes) {
            Some(limit) => build(&pick(quant::Budget::Bytes(size(limit)))?).map(|(built, _)| built),
            None => Err(Error::budget(WEIGHTS, limit, least_bytes.saturating_add(others))),
        },
        Budget::File(limit) => {
            let (built, len) = build(&least)?;
            if len > limit {
                return Err(Error::budget(FILE, limit, len));
            }
            let noise = |picks: &[usize]| -> f64 {
                weights.iter().zip(picks).filter_map(|(weight, &way)| weight.ways.get(way)).map(|way| way.noise).sum()
            };
            // What else is in the file depends a little on the ways: names, sizes, padding.
            let (mut best, mut best_noise) = (built, noise(&least));
            let mut bytes = least_bytes.saturating_add(limit - len);
            let (mut tried, mut over) = (vec![least], false);
            for _ in 0..TRIES {
                let Ok(picks) = pick(quant::Budget::Bytes(size(bytes))) else { break };
                if tried.contains(&picks) {
                    break;
                }
                let ((built, len), own) = (build(&picks)?, sum(weights, &picks));
                bytes = match len.checked_sub(limit).filter(|&excess| excess > 0) {
                    Some(excess) => own.min(bytes).saturating_sub(excess),
                    None if over && noise(&picks) < best_noise => {
                        best = built;
                        break;
                    }
                    None => {
                        if noise(&picks) < best_noise {
                            (best, best_noise) = (built, noise(&picks));
                        }
                        bytes.max(own).saturating_add(limit - len)
                    }
                };
                over |= len > limit;
                tried.push(picks);
            }
            Ok(best)
        }
    }
}

/// Why a tensor stays that a budget lets be.
pub(super) const BUDGET: &str = "the budget has room for it";
const FILE: &str = "bytes of the file";
const WEIGHTS: &str = "bytes of the weights";
const ERROR: &str = "relative error";

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn sum(weights: &[Offers], picks: &[usize]) -> u64 {
    weights.iter().zip(picks).filter_map(|(weight, &way)| weight.ways.get(way)).map(|way| way.bytes).sum()
}

impl Offers {
    fn candidate(&self) -> Result<Candidate> {
        let choice = |way: &Offer| Choice { label: String::new(), bytes: size(way.bytes), error: way.noise };
        Candidate::new(&*self.name, self.ways.iter().map(choice).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn weights() -> Vec<Offers> {
        let offers = |name: &str, ways: &[(u64, f64)]| Offers {
            name: name.into(),
            signal: 100.0,
            ways: ways.iter().map(|&(bytes, noise)| Offer { bytes, noise }).collect(),
        };
        vec![offers("a", &[(10, 9.0), (20, 2.0), (40, 0.0)]), offers("b", &[(5, 4.0), (25, 3.5), (50, 0.0)])]
    }

    /// A file of 100 bytes and what each way adds beside its own.
    fn built(picks: &[usize], extra: [u64; 3]) -> (Vec<usize>, u64) {
        let own = sum(&weights(), picks);
        (picks.to_vec(), 100 + own + picks.iter().map(|&way| extra[way]).sum::<u64>())
    }

    #[test]
    fn files_keep_their_budgets() {
        for extra in [[0, 0, 0], [7, 7, 0], [0, 3, 9]] {
            let mut last = f64::INFINITY;
            for limit in 115 + 2 * extra[0]..=220 {
                let picks = choose(&weights(), 0, Budget::File(limit), &mut |picks| Ok(built(picks, extra))).unwrap();
                assert!(built(&picks, extra).1 <= limit, "{limit}: {picks:?}");
                let noise: f64 = weights().iter().zip(&picks).map(|(weight, &way)| weight.ways[way].noise).sum();
                if extra == [0; 3] {
                    assert!(noise <= last);
                    last = noise;
                }
            }
            let error = choose(&weights(), 0, Budget::File(114), &mut |picks| Ok(built(picks, extra))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Budget);
            assert!(error.to_string().contains(&format!("the least is {}", 115 + 2 * extra[0])), "{error}");
        }
    }

    #[test]
    fn weights_and_errors_keep_theirs() {
        let choose = |budget| choose(&weights(), 3, budget, &mut |picks| Ok((picks.to_vec(), 0)));
        assert_eq!(choose(Budget::Weights(48)).unwrap(), [2, 0]);
        assert!(choose(Budget::Weights(17)).unwrap_err().to_string().contains("the least is 18"));
        // 6 of 200.
        assert_eq!(choose(Budget::Error(0.1733)).unwrap(), [1, 0]);
        assert_eq!(choose(Budget::Error(0.0)).unwrap(), [2, 2]);
        assert!(Budget::Error(-1.0).check().is_err() && Budget::Error(f64::NAN).check().is_err());
    }
}
