//! The multiple-choice knapsack problem: one pick of each item, weights limited, values as small as can be.

/// Partial choices kept at once.
const STATES: usize = 200_000;
/// What is better by less than this part does not count.
const PART: f64 = 1e-9;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pick {
    pub(crate) weight: f64,
    pub(crate) value: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Solution {
    /// The index of each item's pick.
    pub(crate) picks: Vec<usize>,
    /// The sum of their values.
    pub(crate) value: f64,
    /// No solution has less.
    pub(crate) bound: f64,
    /// Whether the value is the least, to a part in 10^9.
    pub(crate) exact: bool,
}

/// The picks of least value whose weights are at most `limit` together; the least weight there is, when that is more.
/// Weights and values are finite and not negative.
///
/// Memory: the picks a few times over; partial choices, while an item is added at most [`STATES`] for each of its picks;
/// and a [`Link`] for each of those kept after an item, to find the way back: at most 1.6 MB an item.
pub(crate) fn solve(items: &[Vec<Pick>], limit: f64) -> Result<Solution, f64> {
    let mut order: Vec<Item> = items.iter().enumerate().map(|(index, picks)| Item::new(index, picks)).collect();
    // Coarse items first: the later fill what they leave.
    order.sort_by(|a, b| b.span().total_cmp(&a.span()).then(a.index.cmp(&b.index)));
    let least: f64 = order.iter().map(|item| item.front[0].1.weight).sum();
    if limit.is_nan() || least > limit {
        return Err(least);
    }
    let mut rest = Relaxation::new(&order);
    let mut best = greedy(&order, &rest, limit);
    let mut best_value = best.iter().zip(&order).map(|(&at, item)| item.front[at].1.value).sum::<f64>();

    let mut states = vec![State { weight: 0.0, value: 0.0, link: Link { parent: 0, at: 0 }, bound: 0.0 }];
    // Of the states after each item, no more than the way back needs.
    let mut links: Vec<Vec<Link>> = Vec::with_capacity(order.len());
    let (mut bound, mut exact) = (f64::INFINITY, true);
    for (stage, item) in order.iter().enumerate() {
        rest.narrow(&order, stage + 1);
        let before = std::mem::take(&mut states);
        for (parent, state) in before.iter().enumerate() {
            for (at, &(_, pick)) in item.front.iter().enumerate() {
                let (weight, value) = (state.weight + pick.weight, state.value + pick.value);
                let Some(least) = rest.value(limit - weight) else { break };
                if value + least < best_value * (1.0 - PART) {
                    let link = Link { parent: parent as u32, at: at as u32 };
                    states.push(State { weight, value, link, bound: value + least });
                }
            }
        }
        states.sort_by(|a, b| a.weight.total_cmp(&b.weight).then(a.value.total_cmp(&b.value)));
        let mut lowest = f64::INFINITY;
        states.retain(|state| {
            let keep = state.value < lowest;
            lowest = lowest.min(state.value);
            keep
        });
        if states.len() > STATES {
            exact = false;
            states.sort_by(|a, b| a.bound.total_cmp(&b.bound).then(a.weight.total_cmp(&b.weight)));
            bound = bound.min(states[STATES].bound);
            states.truncate(STATES);
        }
        links.push(states.iter().map(|state| state.link).collect());
    }
    // What is left beats the greedy choice.
    if let Some(state) = states.iter().min_by(|a, b| a.value.total_cmp(&b.value)) {
        best_value = state.value;
        let mut link = state.link;
        for stage in (0..order.len()).rev() {
            best[stage] = link.at as usize;
            if stage > 0 {
                link = links[stage - 1][link.parent as usize];
            }
        }
    }
    let mut picks = vec![0; items.len()];
    for (item, at) in order.iter().zip(best) {
        picks[item.index] = item.front[at].0;
    }
    Ok(Solution { picks, value: best_value, bound: bound.min(best_value), exact })
}

/// Picks of the items so far.
#[derive(Debug, Clone, Copy)]
struct State {
    weight: f64,
    value: f64,
    link: Link,
    /// No completion has less value.
    bound: f64,
}

/// The state before the last item, and where on its front the pick is. There are no more than [`STATES`] of the one; choices of a tensor
/// that 32 bits do not number would not fit memory.
#[derive(Debug, Clone, Copy)]
struct Link {
    parent: u32,
    at: u32,
}

/// An item's picks that no other beats: heavier ones have less value.
struct Item {
    index: usize,
    /// Each with its index among all picks.
    front: Vec<(usize, Pick)>,
}

impl Item {
    fn new(index: usize, picks: &[Pick]) -> Self {
        let mut front: Vec<(usize, Pick)> = picks.iter().copied().enumerate().collect();
        front.sort_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight).then(a.value.total_cmp(&b.value)));
        let mut lowest = f64::INFINITY;
        front.retain(|(_, pick)| {
            let keep = pick.value < lowest;
            lowest = lowest.min(pick.value);
            keep
        });
        Self { index, front }
    }

    fn span(&self) -> f64 {
        self.front[self.front.len() - 1].1.weight - self.front[0].1.weight
    }

    /// The places on the front that its lower convex hull goes through.
    fn hull(&self) -> Vec<usize> {
        let mut hull: Vec<usize> = Vec::new();
        for at in 0..self.front.len() {
            while let [.., a, b] = hull[..] {
                if self.step(0, a, b).gain() > self.step(0, b, at).gain() {
                    break;
                }
                hull.pop();
            }
            hull.push(at);
        }
        hull
    }

    fn step(&self, item: usize, from: usize, to: usize) -> Step {
        let (a, b) = (self.front[from].1, self.front[to].1);
        Step { item, to, weight: b.weight - a.weight, value: a.value - b.value }
    }
}

/// From one place of an item's hull to the next: so much more weight, so much less value.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The item's place in the order.
    item: usize,
    to: usize,
    weight: f64,
    value: f64,
}

impl Step {
    fn gain(&self) -> f64 {
        self.value / self.weight
    }
}

/// The linear relaxation of some items: steps of their hulls, the best first, the last of them in part.
struct Relaxation {
    /// Of the lightest picks.
    weight: f64,
    value: f64,
    steps: Vec<Step>,
    /// Weights and values of the first steps together, from none on.
    sums: Vec<(f64, f64)>,
}

impl Relaxation {
    fn new(items: &[Item]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for (i, item) in items.iter().enumerate() {
            steps.extend(item.hull().windows(2).map(|pair| item.step(i, pair[0], pair[1])));
        }
        // Steady: the steps of one item stay in order.
        steps.sort_by(|a, b| b.gain().total_cmp(&a.gain()));
        let sums = Vec::with_capacity(steps.len() + 1);
        let mut all = Self { weight: 0.0, value: 0.0, steps, sums };
        all.narrow(items, 0);
        all
    }

    /// Goes on to the relaxation of the items from `first` on: their steps are in order already.
    fn narrow(&mut self, items: &[Item], first: usize) {
        self.steps.retain(|step| step.item >= first);
        self.sums.clear();
        let (mut weight, mut value) = (0.0, 0.0);
        self.sums.push((weight, value));
        for step in &self.steps {
            (weight, value) = (weight + step.weight, value + step.value);
            self.sums.push((weight, value));
        }
        let rest = &items[first..];
        self.weight = rest.iter().map(|item| item.front[0].1.weight).sum();
        self.value = rest.iter().map(|item| item.front[0].1.value).sum();
    }

    /// The least value of any picks, whole or in part, within a limit; `None` when there are none.
    fn value(&self, limit: f64) -> Option<f64> {
        let room = limit - self.weight;
        if room.is_nan() || room < 0.0 {
            return None;
        }
        let whole = self.sums.partition_point(|&(weight, _)| weight <= room) - 1;
        let (weight, value) = self.sums[whole];
        let part =
            self.steps.get(whole).map_or(0.0, |step| if room > weight { (room - weight) * step.gain() } else { 0.0 });
        Some(self.value - value - part)
    }
}

/// The steps of all hulls, the best first, each where it still fits and the one before it did.
fn greedy(items: &[Item], all: &Relaxation, limit: f64) -> Vec<usize> {
    let mut at = vec![0; items.len()];
    let mut open = vec![true; items.len()];
    let mut weight = all.weight;
    for step in &all.steps {
        open[step.item] &= weight + step.weight <= limit;
        if open[step.item] {
            weight += step.weight;
            at[step.item] = step.to;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The least value of all combinations within the limit.
    fn brute(items: &[Vec<Pick>], limit: f64) -> Option<f64> {
        let Some((first, rest)) = items.split_first() else { return (limit >= 0.0).then_some(0.0) };
        let with = |pick: &Pick| brute(rest, limit - pick.weight).map(|value| value + pick.value);
        first.iter().filter_map(with).min_by(f64::total_cmp)
    }

    fn items() -> impl Strategy<Value = Vec<Vec<Pick>>> {
        let pick = (0u32..60, 0u32..60).prop_map(|(weight, value)| Pick { weight: weight.into(), value: value.into() });
        prop::collection::vec(prop::collection::vec(pick, 1..5), 1..7)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_rest_is_what_it_would_be_alone(items in items()) {
            let order: Vec<Item> = items.iter().enumerate().map(|(index, picks)| Item::new(index, picks)).collect();
            let mut rest = Relaxation::new(&order);
            for first in 0..=order.len() {
                rest.narrow(&order, first);
                let alone = Relaxation::new(&order[first..]);
                prop_assert_eq!((rest.weight, rest.value, &rest.sums), (alone.weight, alone.value, &alone.sums));
                let steps = |of: &Relaxation, first: usize| -> Vec<_> {
                    of.steps.iter().map(|step| (step.item - first, step.to, step.weight, step.value)).collect()
                };
                prop_assert_eq!(steps(&rest, first), steps(&alone, 0));
            }
        }

        #[test]
        fn finds_what_trying_all_finds(items in items(), limit in 0u32..250) {
            let limit = f64::from(limit);
            let want = brute(&items, limit);
            match solve(&items, limit) {
                Err(least) => prop_assert!(want.is_none() && least > limit),
                Ok(Solution { picks, value, bound, exact }) => {
                    let sum = |of: fn(&Pick) -> f64| picks.iter().zip(&items).map(|(&i, item)| of(&item[i])).sum::<f64>();
                    prop_assert!(sum(|pick| pick.weight) <= limit);
                    prop_assert_eq!(Some(sum(|pick| pick.value)), want);
                    prop_assert_eq!((Some(value), bound, exact), (want, value, true));
                }
            }
        }
    }

    /// Tensors as models have them: errors fall by 4 with each bit, sizes differ by thousands.
    #[test]
    fn hundreds_of_tensors_take_a_moment() {
        let mut random = 7u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 40) as f64 / (1u64 << 24) as f64
        };
        let items: Vec<Vec<Pick>> = (0..300)
            .map(|_| {
                let (size, hurt) = (10f64.powf(3.0 + 4.0 * next()).floor(), next().powi(4));
                let pick = |bits: u32, overhead: f64, gain: f64| Pick {
                    weight: (size * f64::from(bits) / 8.0 + size * overhead).floor(),
                    value: size * hurt * gain * 0.25f64.powi(bits as i32) * 100.0,
                };
                (2..=8).flat_map(|bits| [pick(bits, 0.001, 1.0), pick(bits, 0.06, 0.4 + 0.2 * next())]).collect()
            })
            .collect();
        let most: f64 = items.iter().map(|item| item.iter().map(|pick| pick.weight).fold(0.0, f64::max)).sum();
        for part in [0.3, 0.5, 0.7] {
            let solution = solve(&items, most * part).unwrap();
            assert!(solution.exact || solution.value <= solution.bound * 1.001, "{part}: {solution:?}");
        }
    }
}
