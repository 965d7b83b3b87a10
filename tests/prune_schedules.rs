//! Pruning during training: schedules, exchanged weights, rewinding, and masks that hold whatever the optimizer.

use lapidary::{
    Element, Mask, Optimizer, OptimizerExt, Pruner, Step, TensorMut, TensorRef,
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
            select.by(Magnitude).refine(weights, &mut mask).unwrap();
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
