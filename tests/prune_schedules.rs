//! Pruning during training: schedules, exchanged weights, rewinding, and masks that hold whatever the optimizer.

use lapidary::{
    Element, Mask, Optimizer, OptimizerExt, Pruner, PrunerExt, Step, TensorMut, TensorRef,
    half::{bf16, f16},
    optim::{
        Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Compact, Ema, Lamb, Lion, Lookahead, NAdam, Params, RAdam,
        RmsProp, ScheduleFree, Sgd, Update,
    },
    prune::{Magnitude, Random, Rewind, RigL, Scores, Select, SparsitySchedule},
};
use proptest::prelude::*;

fn round(x: f64) -> usize {
    x.round_ties_even() as usize
}

/// Whether what one mask keeps another keeps too.
fn within(inner: &Mask, outer: &Mask) -> bool {
    inner.words().iter().zip(outer.words()).all(|(inner, outer)| inner & !outer == 0)
}

fn any_schedule() -> impl Strategy<Value = SparsitySchedule> {
    let shares = prop_oneof![0.0..=1.0f64, Just(0.0), Just(0.5), Just(1.0)];
    let initial = prop_oneof![2 => Just(0.0), 1 => 0.0..=1.0f64];
    (shares, initial, 0u64..20, 0u64..60, 1u64..12, 0.2..6.0f64, 0..5).prop_map(
        |(sparsity, initial, begin, length, every, power, kind)| {
            let steps = begin..=begin + length;
            match kind {
                0 => SparsitySchedule::one_shot(sparsity, begin),
                1 => SparsitySchedule::linear(sparsity, steps, every),
                2 => SparsitySchedule::cubic(sparsity, steps, every),
                3 => SparsitySchedule::polynomial(sparsity, steps, every, power),
                _ => SparsitySchedule::iterative(sparsity, begin, every, length / every + 1),
            }
            .unwrap()
            .with_initial(initial * sparsity)
            .unwrap()
        },
    )
}

proptest! {
    /// Each pruning reaches its sparsity of all elements exactly, whatever was pruned before; masks only shrink.
    #[test]
    fn schedules_reach_their_sparsity_exactly(
        schedule in any_schedule(),
        values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 1..200),
        left_out in prop::collection::vec(any::<bool>(), 100),
        cut in any::<prop::sample::Index>(),
    ) {
        let n = values.len();
        let (a, b) = values.split_at(cut.index(n));
        let mut one = Mask::keep_all(&[n]).unwrap();
        let mut two = [a, b].map(|part| Mask::keep_all(&[part.len()]).unwrap());
        let (mut before, mut prunings) = (0.0, 0);
        for step in 0..100u64 {
            let sparsity = schedule.sparsity(step);
            prop_assert!(sparsity >= before, "{} after {}", sparsity, before);
            prop_assert!(sparsity == before || schedule.is_due(step) || step == 0);
            before = sparsity;
            prop_assert_eq!(schedule.at(step).is_some(), schedule.is_due(step));
            let Some(select) = schedule.at(step) else { continue };
            prunings += 1;
            if step != schedule.last_step() && left_out[step as usize] {
                continue;
            }
            let was = one.clone();
            select.by(Magnitude).refine((&values).into(), &mut one).unwrap();
            prop_assert!(within(&one, &was));
            prop_assert_eq!(n - one.kept(), round(sparsity * n as f64));
            // Two tensors as one lose the same elements.
            select.refine(&[Scores::magnitude(a), Scores::magnitude(b)], &mut two).unwrap();
            let joined = two[0].indices().chain(two[1].indices().map(|i| a.len() + i));
            prop_assert!(joined.eq(one.indices()));
            // At once or by and by, the smallest go.
            let at_once = Select::sparsity(sparsity).unwrap().by(Magnitude);
            let mut direct = Mask::keep_all(&[n]).unwrap();
            at_once.refine((&values).into(), &mut direct).unwrap();
            prop_assert_eq!(&direct, &one);
        }
        prop_assert!(prunings > 0 && before == schedule.sparsity(u64::MAX));
        prop_assert_eq!(n - one.kept(), round(before * n as f64));
    }

    /// An overall share counts what went before in, for rows, units and floors as well.
    #[test]
    fn an_overall_share_counts_what_went_before(
        [rows, cols] in [1usize..9, 1usize..9],
        keep in prop::collection::vec(prop::bool::weighted(0.7), 81),
        values in prop::collection::vec(-1.0f32..1.0, 81),
        share in 0.0..=1.0f64,
        floor in 0usize..10,
    ) {
        let n = rows * cols;
        let weights = TensorRef::new(&values[..n], &[rows, cols]).unwrap();
        let start = Mask::from_fn(&[rows, cols], |i| keep[i]).unwrap();
        let refined = |select: Select| {
            let mut mask = start.clone();
            select.by(Magnitude).refine(TensorRef::from(&weights), &mut mask).unwrap();
            mask
        };
        let select = Select::overall(share).unwrap();
        let there = start.kept();
        prop_assert_eq!(refined(select).kept(), there.min(n - round(share * n as f64)));
        prop_assert_eq!(
            refined(select.with_min_kept(floor)).kept(),
            there.min((n - round(share * n as f64)).max(floor))
        );
        let in_row = |mask: &Mask, row: usize| mask.indices().filter(|i| i / cols == row).count();
        let (by_rows, whole_rows) = (refined(select.per_row()), refined(select.along(0)));
        let mut rows_left = 0;
        for row in 0..rows {
            let there = in_row(&start, row);
            prop_assert_eq!(in_row(&by_rows, row), there.min(cols - round(share * cols as f64)));
            prop_assert!([0, there].contains(&in_row(&whole_rows, row)));
            rows_left += usize::from(in_row(&whole_rows, row) > 0);
        }
        let rows_there = (0..rows).filter(|&row| in_row(&start, row) > 0).count();
        prop_assert_eq!(rows_left, rows_there.min(rows - round(share * rows as f64)));
    }

    /// Against plain sorts.
    #[test]
    fn rigl_exchanges_what_two_sorts_would(
        keep in prop::collection::vec(any::<bool>(), 1..200),
        weights in prop::collection::vec(prop_oneof![-3i8..=3].prop_map(|x| f32::from(x) / 2.0), 200),
        gradient in prop::collection::vec(prop_oneof![prop::num::f32::NORMAL, (-2i8..=2).prop_map(f32::from)], 200),
        step in 1u64..100,
        fraction in 0.0..=1.0f64,
    ) {
        let n = keep.len();
        let mask = Mask::from_fn(&[n], |i| keep[i]).unwrap();
        let rigl = RigL::new(100).unwrap().with_every(1).unwrap().with_fraction(fraction).unwrap();
        let share = fraction / 2.0 * (1.0 + (std::f64::consts::PI * step as f64 / 100.0).cos());
        prop_assert!((rigl.fraction(step) - share).abs() < 1e-12);
        let k = round(rigl.fraction(step) * mask.kept() as f64).min(n - mask.kept());
        let (mut lowest, mut steepest): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| keep[i]);
        lowest.reverse();
        lowest.sort_by(|&i, &j| weights[i].abs().total_cmp(&weights[j].abs()));
        steepest.sort_by(|&i, &j| gradient[j].abs().total_cmp(&gradient[i].abs()));
        let (dropped, grown) = (&lowest[..k], &steepest[..k]);
        let (mut got, mut moved) = (mask.clone(), weights[..n].to_vec());
        let count = rigl.update(step, &mut moved, &gradient[..n], &mut got).unwrap();
        prop_assert_eq!((count, got.kept()), (k, mask.kept()));
        for i in 0..n {
            let stays = keep[i] && !dropped.contains(&i);
            prop_assert_eq!(got.get(i), Some(stays || grown.contains(&i)));
            let want = if stays { weights[i] } else { 0.0 };
            prop_assert_eq!(moved[i].to_bits(), want.to_bits());
        }
    }
}

fn numbers<T: Element>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    (0..n).map(|_| T::from_f64(next())).collect()
}

/// Every optimizer, those that wrap another over rules of each kind.
fn optimizers<T: Element>() -> Vec<Box<dyn Optimizer<T>>> {
    let adam = Adam::new(0.01).unwrap();
    let lookahead = |inner| Lookahead::new(inner, 2, 0.5).unwrap();
    let list: Vec<Box<dyn Optimizer<T>>> = vec![
        Box::new(Sgd::new(0.1).unwrap().with_weight_decay(0.1).unwrap().with_nesterov(0.9).unwrap()),
        Box::new(Adagrad::new(0.1).unwrap().with_initial_accumulator(0.5).unwrap()),
        Box::new(adam.with_weight_decay(0.1).unwrap().with_amsgrad()),
        Box::new(AdamW::new(0.01).unwrap()),
        Box::new(Adadelta::new(1.0).unwrap()),
        Box::new(Adafactor::new(0.01).unwrap()),
        Box::new(Adamax::new(0.01).unwrap()),
        Box::new(Lamb::new(0.01).unwrap()),
        Box::new(Lion::new(0.01).unwrap()),
        Box::new(NAdam::new(0.01).unwrap()),
        Box::new(RAdam::new(0.01).unwrap()),
        Box::new(RmsProp::new(0.01).unwrap().with_centered().with_momentum(0.9).unwrap()),
        Box::new(ScheduleFree::new(0.1).unwrap()),
        Box::new(Compact::eight_bit(adam)),
        Box::new(Compact::bf16(Lion::new(0.01).unwrap())),
        Box::new(Ema::new(Lamb::new(0.01).unwrap(), 0.9).unwrap()),
        Box::new(Ema::new(lookahead(Compact::eight_bit(adam)), 0.9).unwrap()),
        #[cfg(feature = "linalg")]
        Box::new(lapidary::optim::Muon::new(0.02).unwrap()),
    ];
    list
}

/// Pruned weights are 0, and so is what evaluates the model; slots of the parameter's shape hold their initial value.
fn holds<T: Element>(optimizer: &dyn Optimizer<T>, weights: &[T], state: &lapidary::State, mask: &Mask) {
    let what = format!("{optimizer:?} {:?}", T::DTYPE);
    let mut averages = vec![T::from_f64(1.0); weights.len()];
    let out = TensorMut::new(&mut averages, mask.shape()).unwrap();
    optimizer.evaluate(TensorRef::new(weights, mask.shape()).unwrap(), state, out).unwrap();
    for i in (0..mask.len()).filter(|&i| mask.get(i) == Some(false)) {
        assert_eq!((weights[i].to_f64().to_bits(), averages[i].to_f64()), (0, 0.0), "{what} {i}");
        for slot in state.slots().iter().filter(|slot| slot.shape() == mask.shape()) {
            assert_eq!(slot.values().get(i), Some(slot.initial()), "{what} {} {i}", slot.name());
        }
    }
}

fn masks_hold<T: Element>() {
    // Rows and columns that cross blocks of the kernels and words of the mask.
    for shape in [&[1100][..], &[7, 131]] {
        let n = shape.iter().product();
        let mask = Mask::from_fn(shape, |i| i % 3 != 1 || i / 64 % 5 == 0).unwrap();
        for by_chance in [None, Some(5)] {
            for optimizer in optimizers::<T>() {
                let optimizer = &*optimizer;
                if optimizer.supports(shape).is_err() {
                    continue;
                }
                let mut weights = numbers::<T>(n, 1);
                let mut state = optimizer.init(TensorRef::new(&weights, shape).unwrap()).unwrap();
                for seed in 2..7 {
                    let mut gradient = numbers::<T>(n, seed);
                    // Trained without the mask first, so that there is state to put back.
                    let mask = (seed > 3).then_some(&mask);
                    if mask.is_some() {
                        gradient[64] = T::from_f64(f64::NAN);
                        gradient[67] = T::from_f64(f64::INFINITY);
                    }
                    let before = weights.clone();
                    let (w, g) =
                        (TensorMut::new(&mut weights, shape).unwrap(), TensorRef::new(&gradient, shape).unwrap());
                    let mut step = Step::new(w, g, &mut state);
                    if let Some(mask) = mask {
                        step = step.mask(mask);
                    }
                    if let Some(seed) = by_chance {
                        step = step.stochastic_rounding(seed);
                    }
                    optimizer.step(step).unwrap();
                    if let Some(mask) = mask {
                        holds(optimizer, &weights, &state, mask);
                        assert!(mask.indices().all(|i| weights[i].to_f64().is_finite()), "{optimizer:?}");
                        let moved = mask.indices().filter(|&i| weights[i] != before[i]).count();
                        assert!(moved > 0, "{optimizer:?} {:?}", T::DTYPE);
                    }
                }
            }
        }
    }
}

#[test]
fn masks_hold_for_every_optimizer() {
    masks_hold::<f32>();
    masks_hold::<f64>();
    masks_hold::<f16>();
    masks_hold::<bf16>();
}

/// The same by `Params`, whose mask comes in mid-training and shrinks on a schedule.
fn masks_hold_in_groups<T: Element>() {
    let shape = [7, 131];
    let schedule = SparsitySchedule::cubic(0.9, 2..=6, 2).unwrap();
    let mut params = Params::<T>::new();
    let names: Vec<String> = optimizers::<T>().iter().map(|optimizer| format!("{optimizer:?}")).collect();
    for (name, optimizer) in names.iter().zip(optimizers::<T>()) {
        let group = params.group(optimizer);
        params.add(name, &shape, group).unwrap();
    }
    let mut weights: Vec<Vec<T>> = (0..names.len()).map(|i| numbers(917, i as u64)).collect();
    let mut masks: Vec<Mask> = names.iter().map(|_| Mask::keep_all(&shape).unwrap()).collect();
    for step in 0..9 {
        if let Some(select) = schedule.at(step) {
            let scores: Vec<_> = weights.iter().map(|weights| Scores::magnitude(weights)).collect();
            select.with_min_kept(10).refine(&scores, &mut masks).unwrap();
            for (name, mask) in names.iter().zip(&masks) {
                params.set_mask(name, Some(mask.clone())).unwrap();
            }
        }
        let gradients: Vec<Vec<T>> = (0..names.len()).map(|i| numbers(917, 100 * step + i as u64)).collect();
        let updates = weights.iter_mut().zip(&gradients);
        let mut updates: Vec<_> = updates.map(|(w, g)| Update::shaped(w, g, &shape).unwrap()).collect();
        params.step(&mut updates).unwrap();
        drop(updates);
        for (((name, optimizer), weights), mask) in names.iter().zip(optimizers::<T>()).zip(&weights).zip(&masks) {
            holds(&*optimizer, weights, params.state(name).unwrap(), mask);
        }
    }
    let (all, kept) = (917 * names.len(), masks.iter().map(Mask::kept).sum::<usize>());
    assert_eq!(all - kept, round(0.9 * all as f64));
}

#[test]
fn masks_hold_in_groups_on_a_schedule() {
    masks_hold_in_groups::<f32>();
    masks_hold_in_groups::<f64>();
    masks_hold_in_groups::<f16>();
    masks_hold_in_groups::<bf16>();
}

/// What RigL grows starts at 0, with the state of a weight that was never trained, whatever it held before it was
/// dropped.
#[test]
fn grown_weights_start_anew() {
    let rigl = RigL::new(40).unwrap().with_every(2).unwrap();
    for optimizer in optimizers::<f32>() {
        let shape = [20, 30];
        let mut weights = numbers::<f32>(600, 1);
        let mut mask =
            Select::sparsity(0.8).unwrap().by(Random::new(3)).mask(TensorRef::new(&weights, &shape).unwrap()).unwrap();
        let mut ever = mask.clone();
        let mut state = optimizer.init(TensorRef::new(&weights, &shape).unwrap()).unwrap();
        let (mut exchanged, mut again) = (0, 0);
        for step in 0..40 {
            let gradient = numbers::<f32>(600, 50 + step);
            let gradient = TensorRef::new(&gradient, &shape).unwrap();
            let before = mask.clone();
            exchanged +=
                rigl.update(step, TensorMut::new(&mut weights, &shape).unwrap(), &gradient, &mut mask).unwrap();
            assert_eq!(mask.kept(), 120);
            for i in mask.indices().filter(|&i| before.get(i) == Some(false)) {
                again += usize::from(ever.get(i) == Some(true));
                assert_eq!(weights[i], 0.0);
                for slot in state.slots().iter().filter(|slot| slot.shape() == shape) {
                    assert_eq!(slot.values().get(i), Some(slot.initial()), "{optimizer:?}");
                }
            }
            ever.or(&mask).unwrap();
            let w = TensorMut::new(&mut weights, &shape).unwrap();
            optimizer.step(Step::new(w, gradient, &mut state).mask(&mask)).unwrap();
            holds(&*optimizer, &weights, &state, &mask);
        }
        assert!(exchanged > 100 && again > 0, "{exchanged} {again}");
    }
}

/// The lottery ticket's loop: train, prune what is left, put back, train anew.
#[test]
fn lottery_tickets_begin_where_they_began() {
    let n = 300;
    let start = numbers::<bf16>(n, 4);
    let early = Rewind::new(&start).unwrap();
    let (adamw, schedule) = (AdamW::new(0.01).unwrap(), SparsitySchedule::iterative(0.973, 0, 1, 4).unwrap());
    let (mut weights, mut mask) = (start.clone(), Mask::keep_all(&[n]).unwrap());
    for (round, kept) in [(0, 122), (1, 49), (2, 20), (3, 8)] {
        let mut state = adamw.init(&weights).unwrap();
        for seed in 0..3 {
            let gradient = numbers::<bf16>(n, 100 + seed);
            adamw.step(Step::new(&mut weights, &gradient, &mut state).mask(&mask)).unwrap();
        }
        let trained = weights.clone();
        schedule.at(round).unwrap().by(Magnitude).refine((&weights).into(), &mut mask).unwrap();
        early.restore(&mask, &mut weights).unwrap();
        assert_eq!(mask.kept(), kept);
        assert!(mask.indices().any(|i| trained[i] != start[i]));
        for i in 0..n {
            assert_eq!(weights[i], if mask.get(i) == Some(true) { start[i] } else { bf16::ZERO });
        }
    }
}
