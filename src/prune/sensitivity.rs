//! What pruning each tensor costs, and how much of each to prune.

use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    kernel::knapsack::{Pick, Solution, solve},
    tensor::{Mask, TensorRef},
    traits::{Pruner, PrunerExt},
};
use std::fmt;

/// How a model's error grows as each of its tensors is pruned while the others stay whole (the sensitivity scan of Han
/// et al. 2015, arXiv:1506.02626). Prints as a table.
///
/// The error is whatever the caller's evaluation gives for a mask: a loss over some samples, the share of wrong
/// answers. Take samples that neither train nor test the model.
///
/// ```
/// use lapidary::prune::{Magnitude, Sensitivity};
/// let (a, b) = ([3.0f32, -2.0, 1.0, 4.0], [0.1f32, 0.2, -0.3, 0.1]);
/// // A model whose error is the square of all that is taken from it.
/// let error = |weights: &[f32], mask: &lapidary::Mask| {
///     let gone = |i: &usize| mask.get(*i) == Some(false);
///     (0..weights.len()).filter(gone).map(|i| f64::from(weights[i]).powi(2)).sum::<f64>()
/// };
/// let mut sensitivity = Sensitivity::new(&[0.0, 0.25, 0.5, 0.75])?;
/// sensitivity.measure("a", &a, Magnitude::sparsity, |mask| Ok(error(&a, mask)))?;
/// sensitivity.measure("b", &b, Magnitude::sparsity, |mask| Ok(error(&b, mask)))?;
/// assert_eq!(sensitivity.curves()[0].points[2].error, 5.0);
/// println!("{sensitivity}");
/// // 5 of the 8 weights: all of `a`, where they matter.
/// let plan = sensitivity.allocate(5)?;
/// assert_eq!((plan.sparsity("a"), plan.sparsity("b")), (Some(0.0), Some(0.75)));
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    ladder: Vec<f64>,
    curves: Vec<SensitivityCurve>,
}

/// The error by the sparsity of one tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SensitivityCurve {
    /// The tensor's name.
    pub name: String,
    /// How many elements it has.
    pub elements: usize,
    /// A point for each rung of the ladder.
    pub points: Vec<SensitivityPoint>,
}

/// One rung of the ladder for one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SensitivityPoint {
    /// The sparsity of the ladder.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub sparsity: f64,
    /// How many elements the mask kept.
    pub kept: usize,
    /// The model's error then.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    pub error: f64,
}

impl Sensitivity {
    /// Nothing measured yet, on a ladder of sparsities. One that begins at 0 measures from the whole model.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) without a rung; [`Argument`](crate::ErrorKind::Argument) unless they are in
    /// 0..=1 and each is above the one before.
    pub fn new(ladder: &[f64]) -> Result<Self> {
        if ladder.is_empty() {
            return Err(Error::empty("ladder of sparsities"));
        }
        let mut above = -1.0;
        for &sparsity in ladder {
            if !(sparsity > above && (0.0..=1.0).contains(&sparsity)) {
                return Err(Error::argument(
                    "ladder of sparsities",
                    sparsity,
                    "from 0 to 1, each above the one before",
                ));
            }
            above = sparsity;
        }
        Ok(Self { ladder: ladder.to_vec(), curves: Vec::new() })
    }

    /// Measures one tensor: for each rung the pruner of that sparsity makes a mask of its values, and `evaluate` gives
    /// the model's error under it. Which pruner is free: `Magnitude::sparsity`, or `|s|
    /// Ok(Select::sparsity(s)?.along(0).by(..))`.
    ///
    /// # Errors
    /// Those of the pruner and of `evaluate`; [`Argument`](crate::ErrorKind::Argument) for a name measured before;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for an error that is no finite number, with the rung as index. All
    /// name the tensor; nothing has been added then.
    pub fn measure<'a, T: Element, P: Pruner<T>>(
        &mut self,
        name: &str,
        values: impl Into<TensorRef<'a, T>>,
        pruner: impl Fn(f64) -> Result<P>,
        evaluate: impl FnMut(&Mask) -> Result<f64>,
    ) -> Result<()> {
        let curve = self.curve(name, &values.into(), pruner, evaluate).map_err(|error| error.in_tensor(name))?;
        self.curves.push(curve);
        Ok(())
    }

    fn curve<T: Element, P: Pruner<T>>(
        &self,
        name: &str,
        values: &TensorRef<'_, T>,
        pruner: impl Fn(f64) -> Result<P>,
        mut evaluate: impl FnMut(&Mask) -> Result<f64>,
    ) -> Result<SensitivityCurve> {
        if self.curves.iter().any(|curve| curve.name == name) {
            return Err(Error::argument("name", name, "one that was not measured before"));
        }
        let mut points = Vec::with_capacity(self.ladder.len());
        for (rung, &sparsity) in self.ladder.iter().enumerate() {
            let mask = pruner(sparsity)?.mask(values)?;
            let error = evaluate(&mask)?;
            if !error.is_finite() {
                return Err(Error::non_finite("error by sparsity", rung, error));
            }
            points.push(SensitivityPoint { sparsity, kept: mask.kept(), error });
        }
        Ok(SensitivityCurve { name: name.into(), elements: values.len(), points })
    }

    /// What was measured, in that order.
    #[must_use]
    pub fn curves(&self) -> &[SensitivityCurve] {
        &self.curves
    }

    /// Chooses a rung for each tensor so that no more than `kept` elements stay and the errors grow the least, all
    /// together.
    ///
    /// ```text
    /// minimise    Σ (error of the rung chosen - error of the lowest rung)    over the tensors
    /// subject to  Σ (elements kept at the rung chosen) <= kept
    /// ```
    ///
    /// Errors of tensors pruned together are taken to add up, which holds the better the less is pruned: measure the
    /// result. The choice itself is optimal to a part in 10^9 (a multiple-choice knapsack problem, by dynamic
    /// programming over partial choices that no other beats); where more than 200,000 of them compete,
    /// [`bound`](SparsityPlan::bound) says how far off it can be. The same on every machine.
    ///
    /// # Errors
    /// [`Empty`](crate::ErrorKind::Empty) when nothing was measured; [`Argument`](crate::ErrorKind::Argument) when more
    /// must stay at the sparsest rungs (it says how much), or the errors together are infinite.
    pub fn allocate(&self, kept: usize) -> Result<SparsityPlan> {
        if self.curves.is_empty() {
            return Err(Error::empty("tensors measured"));
        }
        // From the least error of each: no value is negative.
        let least =
            |curve: &SensitivityCurve| curve.points.iter().map(|point| point.error).fold(f64::INFINITY, f64::min);
        let picks = |curve: &SensitivityCurve| -> Vec<Pick> {
            let least = least(curve);
            curve.points.iter().map(|point| Pick { weight: point.kept as f64, value: point.error - least }).collect()
        };
        let items: Vec<Vec<Pick>> = self.curves.iter().map(picks).collect();
        let largest = |picks: &Vec<Pick>| picks.iter().map(|pick| pick.value).fold(0.0, f64::max);
        let worst: f64 = items.iter().map(largest).sum();
        if !worst.is_finite() {
            return Err(Error::argument("sum of the largest errors", worst, "finite"));
        }
        let Solution { picks, value, bound, exact } = solve(&items, kept as f64).map_err(|least| {
            Error::argument("elements kept", format!("{kept} where the least is {least}"), "what some sparsities keep")
        })?;
        let first = |curve: &SensitivityCurve| curve.points.first().map_or(0.0, |point| point.error);
        let base: f64 = self.curves.iter().map(|curve| first(curve) - least(curve)).sum();
        let chosen = self.curves.iter().zip(&picks);
        let chosen: Vec<Chosen> = chosen
            .filter_map(|(curve, &pick)| {
                let point = *curve.points.get(pick)?;
                let (name, elements) = (curve.name.clone(), curve.elements);
                Some(Chosen { name, elements, rise: point.error - first(curve), point })
            })
            .collect();
        let rise = chosen.iter().map(|chosen| chosen.rise).sum();
        let bound = if bound < value { (bound - base).min(rise) } else { rise };
        Ok(SparsityPlan { chosen, rise, bound, optimal: exact })
    }
}

impl fmt::Display for Sensitivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = name_width(self.curves.iter().map(|curve| curve.name.as_str()));
        write!(f, "{:width$} {:>12}", "tensor", "elements")?;
        for sparsity in &self.ladder {
            write!(f, " {:>10.1} %", 100.0 * sparsity)?;
        }
        for SensitivityCurve { name, elements, points } in &self.curves {
            write!(f, "\n{name:width$} {elements:>12}")?;
            for point in points {
                write!(f, " {:>12.4e}", point.error)?;
            }
        }
        Ok(())
    }
}

fn name_width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).max("tensor".len())
}

config! {
    Sensitivity(ladder: Vec<f64>) => Self::new(&ladder),
    curves: Vec<SensitivityCurve> => |it, curves| curves.into_iter().try_fold(it, Self::with_curve),
}

#[cfg(feature = "serde")]
impl Sensitivity {
    fn with_curve(mut self, curve: SensitivityCurve) -> Result<Self> {
        let refused = |name, value: String, allowed| Err(Error::argument(name, value, allowed).in_tensor(&curve.name));
        if self.curves.iter().any(|other| other.name == curve.name) {
            return refused("name", curve.name.clone(), "one that was not measured before");
        }
        if !curve.points.iter().map(|point| point.sparsity).eq(self.ladder.iter().copied()) {
            return refused("points", format!("{:?}", curve.points), "those of the ladder");
        }
        if let Some(point) = curve.points.iter().find(|point| !point.error.is_finite() || point.kept > curve.elements) {
            return refused("point", format!("{point:?}"), "of a finite error, and no more than all elements");
        }
        let all = self.curves.iter().try_fold(curve.elements, |sum, other| sum.checked_add(other.elements));
        if all.is_none() {
            return refused("number of elements", TOO_MANY.into(), FEWER);
        }
        self.curves.push(curve);
        Ok(self)
    }
}

#[cfg(feature = "serde")]
const TOO_MANY: &str = "2^64 or more";
#[cfg(feature = "serde")]
const FEWER: &str = "less, of all tensors";

/// A sparsity for each tensor, and what that costs: what [`Sensitivity::allocate`] chose. Prints as a table.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct SparsityPlan {
    chosen: Vec<Chosen>,
    rise: f64,
    bound: f64,
    optimal: bool,
}

#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Chosen {
    name: String,
    elements: usize,
    #[cfg_attr(feature = "serde", serde(with = "crate::config::open"))]
    rise: f64,
    point: SensitivityPoint,
}

impl SparsityPlan {
    /// The tensors and the points chosen, in the order measured.
    pub fn points(&self) -> impl Iterator<Item = (&str, SensitivityPoint)> {
        self.chosen.iter().map(|chosen| (chosen.name.as_str(), chosen.point))
    }

    /// The sparsity of a tensor; `None` for a name that was not measured.
    #[must_use]
    pub fn sparsity(&self, name: &str) -> Option<f64> {
        self.chosen.iter().find(|chosen| chosen.name == name).map(|chosen| chosen.point.sparsity)
    }

    /// How many elements stay in all.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.chosen.iter().map(|chosen| chosen.point.kept).sum()
    }

    /// How much the errors grow over those at the lowest rung, all together.
    #[must_use]
    pub fn rise(&self) -> f64 {
        self.rise
    }

    /// No choice within the budget has a smaller rise.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// Whether no choice within the budget is better, to a part in 10^9.
    #[must_use]
    pub fn is_optimal(&self) -> bool {
        self.optimal
    }
}

config! {
    SparsityPlan(chosen: Vec<Chosen>, rise: f64, bound: f64, optimal: bool) => {
        let sums = [|of: &Chosen| of.elements, |of: &Chosen| of.point.kept];
        let fits = |of: fn(&Chosen) -> usize| chosen.iter().map(of).try_fold(0usize, usize::checked_add).is_some();
        let measured = |of: &Chosen| [of.rise, of.point.error, of.point.sparsity].iter().all(|x| x.is_finite());
        match chosen.iter().find(|of| !measured(of)) {
            _ if !(rise.is_finite() && bound.is_finite()) => {
                Err(Error::argument("rise, bound", format!("{rise:?}, {bound:?}"), "finite"))
            }
            Some(of) => Err(Error::argument("choice", format!("{of:?}"), "of finite numbers").in_tensor(&of.name)),
            None if sums.into_iter().all(fits) => Ok(Self { chosen, rise, bound, optimal }),
            None => Err(Error::argument("number of elements", TOO_MANY, FEWER)),
        }
    },
}

impl fmt::Display for SparsityPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = name_width(self.chosen.iter().map(|chosen| chosen.name.as_str()));
        writeln!(f, "{:width$} {:>12} {:>12} {:>10} {:>12}", "tensor", "elements", "kept", "sparsity", "rise")?;
        for Chosen { name, elements, rise, point } in &self.chosen {
            let (kept, sparsity) = (point.kept, 100.0 * point.sparsity);
            writeln!(f, "{name:width$} {elements:>12} {kept:>12} {sparsity:>8.1} % {rise:>12.4e}")?;
        }
        let elements: usize = self.chosen.iter().map(|chosen| chosen.elements).sum();
        let sparsity = 100.0 * (1.0 - self.kept() as f64 / elements.max(1) as f64);
        let proof = if self.optimal { "optimal".into() } else { format!("at best {:.4e}", self.bound) };
        write!(f, "{:width$} {elements:>12} {:>12} {sparsity:>8.1} % {:>12.4e}  {proof}", "all", self.kept(), self.rise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, prune::Magnitude};

    fn measured(errors: &[(&str, usize, [f64; 3])]) -> Sensitivity {
        let mut sensitivity = Sensitivity::new(&[0.0, 0.5, 0.75]).unwrap();
        for &(name, elements, errors) in errors {
            let mut errors = errors.into_iter();
            let evaluate = |_: &Mask| Ok(errors.next().unwrap());
            sensitivity.measure(name, &vec![1f32; elements], Magnitude::sparsity, evaluate).unwrap();
        }
        sensitivity
    }

    #[test]
    fn the_least_rise_within_the_budget_is_chosen() {
        // `b` has noise: a little pruned is better than none.
        let sensitivity =
            measured(&[("a", 8, [1.0, 2.0, 9.0]), ("b", 16, [1.0, 0.5, 1.25]), ("c", 4, [1.0, 1.5, 1.5])]);
        let choices = |kept| {
            let plan = sensitivity.allocate(kept).unwrap();
            assert!(plan.is_optimal() && plan.bound() == plan.rise() && plan.kept() <= kept);
            (plan.points().map(|(_, point)| point.sparsity).collect::<Vec<_>>(), plan.rise())
        };
        assert_eq!(choices(1000), (vec![0.0, 0.5, 0.0], -0.5));
        assert_eq!(choices(19), (vec![0.0, 0.5, 0.75], 0.0));
        assert_eq!(choices(16), (vec![0.0, 0.75, 0.0], 0.25));
        assert_eq!(choices(7), (vec![0.75, 0.75, 0.75], 8.75));
        let error = sensitivity.allocate(6).unwrap_err();
        assert!(error.to_string().contains("the least is 7"), "{error}");
    }

    #[test]
    fn prints_a_table() {
        let sensitivity = measured(&[("first.weight", 8, [1.0, 2.0, 9.0]), ("b", 16, [1.0, 0.5, 1.25])]);
        for text in [sensitivity.to_string(), sensitivity.allocate(10).unwrap().to_string()] {
            let lines: Vec<_> = text.lines().collect();
            assert!(lines[0].starts_with("tensor ") && lines[1].starts_with("first.weight "), "{text}");
            assert_eq!(lines[1].chars().count(), lines[2].chars().count(), "{text}");
        }
        let text = sensitivity.allocate(10).unwrap().to_string();
        assert!(text.ends_with("optimal"), "{text}");
    }

    #[test]
    fn errors_name_the_tensor_and_add_nothing() {
        let mut sensitivity = measured(&[("a", 8, [1.0, 2.0, 9.0])]);
        let before = sensitivity.clone();
        let mut measure = |name: &str, values: &[f32], error: f64| {
            sensitivity.measure(name, values, Magnitude::sparsity, |_| Ok(error)).unwrap_err()
        };
        let error = measure("b", &[1.0], f64::NAN);
        assert_eq!((error.kind(), error.index(), error.tensor()), (ErrorKind::NonFinite, Some(0), Some("b")));
        let error = measure("a", &[1.0], 1.0);
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Argument, Some("a")));
        assert_eq!(measure("c", &[f32::NAN], 1.0).tensor(), Some("c"));
        let failed = sensitivity.measure("d", &[1f32], Magnitude::sparsity, |_| Err(Error::empty("batch")));
        assert_eq!(failed.unwrap_err().tensor(), Some("d"));
        assert_eq!(sensitivity, before);
        assert!(Sensitivity::new(&[]).is_err() && Sensitivity::new(&[0.5, 0.5]).is_err());
        assert!(Sensitivity::new(&[-0.1]).is_err() && Sensitivity::new(&[f64::NAN]).is_err());
        assert!(Sensitivity::new(&[0.0, 1.1]).is_err() && Sensitivity::new(&[0.5]).unwrap().allocate(1).is_err());
        let huge = measured(&[("a", 4, [-f64::MAX, f64::MAX, 0.0])]);
        assert_eq!(huge.allocate(4).unwrap_err().kind(), ErrorKind::Argument);
    }
}
