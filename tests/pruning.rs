//! Pruners: what a stable sort, written plainly, would keep; and the traps of shares, ties, floors and budgets.

use lapidary::{
    Calibration, Criterion, Element, ErrorKind, Isa, Mask, Pruner, PrunerExt, Result, TensorRef,
    half::{bf16, f16},
    prune::{Activations, Channels, Magnitude, Movement, Random, Scores, Select, Snip, Taylor, Wanda},
};
use proptest::prelude::*;

/// Any number but NaN, of all sizes, many of them equal.
fn numbers(most: usize) -> impl Strategy<Value = Vec<f32>> {
    let any = prop_oneof![
        4 => prop::num::f32::NORMAL,
        2 => prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
        1 => prop::sample::select(vec![f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN]),
        8 => (-3i8..=3).prop_map(|x| f32::from(x) / 2.0),
    ];
    prop::collection::vec(any, 0..most)
}

fn mask_of(shape: &[usize], keep: &[bool]) -> Mask {
    Mask::from_fn(shape, |i| keep[i % keep.len()]).unwrap()
}

/// Of some elements the kept ones, the first to go first: the lowest, of equal ones the last.
fn order(scores: &[f64], kept: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut order: Vec<usize> = kept.collect();
    order.reverse();
    order.sort_by(|&i, &j| scores[i].partial_cmp(&scores[j]).unwrap());
    order
}

fn round(x: f64) -> usize {
    x.round_ties_even() as usize
}

fn wide<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.to_f64()).collect()
}

/// The kept elements after the first `go` of an order have gone.
fn without(mask: &Mask, order: &[usize], go: usize) -> Vec<usize> {
    mask.indices().filter(|i| !order[..go].contains(i)).collect()
}

fn kept(mask: &Mask) -> Vec<usize> {
    mask.indices().collect()
}

/// A share, a count and a threshold, by size and by the numbers, of one tensor.
fn as_a_sort_would<T: Element>(values: &[T], keep: &[bool], share: f64) -> Result<(), TestCaseError> {
    let mask = mask_of(&[values.len()], keep);
    let sizes: Vec<f64> = values.iter().map(|x| x.to_f64().abs()).collect();
    let go = round(share * mask.kept() as f64);
    for (scores, by_size) in [(sizes, true), (wide(values), false)] {
        let order = order(&scores, mask.indices());
        let refined = |select: Select| {
            let mut refined = mask.clone();
            let given = if by_size { Scores::magnitude(values) } else { Scores::new(values) };
            select.refine(&[given], std::slice::from_mut(&mut refined)).unwrap();
            kept(&refined)
        };
        let want = without(&mask, &order, go);
        prop_assert_eq!(&refined(Select::sparsity(share).unwrap()), &want);
        prop_assert_eq!(&refined(Select::count(go)), &want);
        prop_assert_eq!(&refined(Select::budget((mask.kept() - go) as u64)), &want);
        let floor = mask.kept() / 2;
        prop_assert_eq!(
            refined(Select::count(go).with_min_kept(floor)),
            without(&mask, &order, go.min(mask.kept() - floor))
        );
        if let Some(&i) = order.get(go) {
            let above: Vec<usize> = mask.indices().filter(|&j| scores[j] > scores[i]).collect();
            let select = Select::above(scores[i]).unwrap();
            prop_assert_eq!(&refined(select), &above);
            let want = if above.len() >= floor { above } else { without(&mask, &order, mask.kept() - floor) };
            prop_assert_eq!(refined(select.with_min_kept(floor)), want);
        }
        if by_size {
            let mut refined = mask.clone();
            Magnitude::sparsity(share).unwrap().refine(values.into(), &mut refined).unwrap();
            prop_assert_eq!(kept(&refined), want);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn keeps_what_a_stable_sort_would(
        values in numbers(300),
        keep in prop::collection::vec(any::<bool>(), 1..90),
        share in prop_oneof![0.0..=1.0f64, Just(0.0), Just(0.5), Just(1.0)],
    ) {
        as_a_sort_would(&values, &keep, share)?;
        as_a_sort_would(&values.iter().map(|&x| f64::from(x) * 1e270).collect::<Vec<_>>(), &keep, share)?;
        as_a_sort_would(&values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>(), &keep, share)?;
        as_a_sort_would(&values.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>(), &keep, share)?;
    }

    #[test]
    fn many_tensors_are_pruned_as_one(
        values in numbers(300),
        keep in prop::collection::vec(any::<bool>(), 1..90),
        share in 0.0..=1.0f64,
        cuts in prop::array::uniform2(0usize..300),
        floor in 0usize..40,
    ) {
        let mut cuts = cuts.map(|cut| cut.min(values.len()));
        cuts.sort_unstable();
        let parts = [&values[..cuts[0]], &values[cuts[0]..cuts[1]], &values[cuts[1]..]];
        let firsts = [0, cuts[0], cuts[1]];
        let whole = mask_of(&[values.len()], &keep);
        let masks = || [0, 1, 2].map(|t| {
            Mask::from_fn(&[parts[t].len()], |i| whole.get(firsts[t] + i) == Some(true)).unwrap()
        });
        let together = |masks: &[Mask; 3]| -> Vec<usize> {
            (0..3).flat_map(|t| masks[t].indices().map(move |i| firsts[t] + i)).collect()
        };
        let order = order(&wide(&values).iter().map(|x| x.abs()).collect::<Vec<_>>(), whole.indices());
        let go = round(share * whole.kept() as f64);

        let mut refined = masks();
        let tensors = parts.map(|part| part.into());
        Magnitude::sparsity(share).unwrap().refine_global(&tensors, &mut refined).unwrap();
        prop_assert_eq!(together(&refined), without(&whole, &order, go));

        // With a floor: in order, but for those that would leave too few in their tensor.
        let mut refined = masks();
        let mut left = refined.clone().map(|mask| mask.kept());
        let mut gone = Vec::new();
        for &i in &order {
            let t = firsts.iter().rposition(|&first| first <= i).unwrap();
            if gone.len() < go && left[t] > floor {
                left[t] -= 1;
                gone.push(i);
            }
        }
        let select = Select::sparsity(share).unwrap().with_min_kept(floor);
        select.refine(&parts.map(Scores::magnitude), &mut refined).unwrap();
        let n = gone.len();
        prop_assert_eq!(together(&refined), without(&whole, &gone, n));
    }

    #[test]
    fn a_budget_takes_the_fewest_that_meet_it(
        values in numbers(200),
        keep in prop::collection::vec(any::<bool>(), 1..90),
        costs in prop::array::uniform2(1u64..50),
        share in 0.0..=1.0f64,
        cut in 0usize..200,
    ) {
        let cut = cut.min(values.len());
        let whole = mask_of(&[values.len()], &keep);
        let cost = |i: usize| costs[usize::from(i >= cut)];
        let total: u64 = whole.indices().map(cost).sum();
        let budget = (total as f64 * share) as u64;
        let order = order(&wide(&values), whole.indices());
        let (mut left, mut go) = (total, 0);
        while left > budget {
            left -= cost(order[go]);
            go += 1;
        }
        let (a, b) = values.split_at(cut);
        let mut masks = [
            Mask::from_fn(&[cut], |i| whole.get(i) == Some(true)).unwrap(),
            Mask::from_fn(&[b.len()], |i| whole.get(cut + i) == Some(true)).unwrap(),
        ];
        let scores = [Scores::new(a).with_cost(costs[0]), Scores::new(b).with_cost(costs[1])];
        Select::budget(budget).refine(&scores, &mut masks).unwrap();
        let got: Vec<usize> = masks[0].indices().chain(masks[1].indices().map(|i| cut + i)).collect();
        prop_assert_eq!(got, without(&whole, &order, go));
    }

    #[test]
    fn rows_and_blocks_of_rows_are_each_a_sort_of_their_own(
        values in numbers(600),
        keep in prop::collection::vec(any::<bool>(), 1..90),
        cols in 1usize..70,
        share in 0.0..=1.0f64,
        of in 1usize..20,
        part in 0.0..=1.0f64,
        floor in 0usize..8,
    ) {
        let rows = values.len() / cols;
        let values = &values[..rows * cols];
        let scores = wide(values);
        let mask = mask_of(&[rows, cols], &keep);
        let refined = |select: Select| {
            let mut refined = mask.clone();
            select.refine(&[Scores::new(values)], std::slice::from_mut(&mut refined)).unwrap();
            kept(&refined)
        };
        // In groups of neighbours, how many of those there stay.
        let plain = |size: usize, floor: usize, stay: &dyn Fn(&[usize], usize) -> usize| -> Vec<usize> {
            let groups = (0..rows).flat_map(|row| (0..cols).step_by(size).map(move |col| (row, col)));
            let mut all = Vec::new();
            for (row, col) in groups {
                let range = row * cols + col..row * cols + cols.min(col + size);
                let length = range.len();
                let there: Vec<usize> = range.filter(|&i| mask.get(i) == Some(true)).collect();
                let order = order(&scores, there.iter().copied());
                let go = there.len().saturating_sub(stay(&there, length).max(floor));
                all.extend(there.into_iter().filter(|i| !order[..go].contains(i)));
            }
            all
        };
        let keep = ((part * of as f64) as usize).clamp(1, of);
        let got = refined(Select::n_of_m(keep, of).unwrap());
        prop_assert_eq!(got, plain(of, 0, &|_, length| (keep * length).div_ceil(of)));
        let got = refined(Select::sparsity(share).unwrap().per_row().with_min_kept(floor));
        prop_assert_eq!(got, plain(cols, floor, &|there, _| there.len() - round(share * there.len() as f64)));
        let got = refined(Select::above(0.5).unwrap().per_row().with_min_kept(floor));
        prop_assert_eq!(got, plain(cols, floor, &|there, _| there.iter().filter(|&&i| scores[i] > 0.5).count()));
        let least = (0..rows).map(|row| (0..cols).filter(|col| mask.get(row * cols + col) == Some(true)).count()).min();
        let count = least.unwrap_or(0) / 2;
        let got = refined(Select::count(count).per_row().with_min_kept(floor));
        prop_assert_eq!(got, plain(cols, floor, &|there, _| there.len() - count));
    }

    #[test]
    fn units_go_whole(
        values in prop::collection::vec(-4i8..=4, 0..400),
        keep in prop::collection::vec(any::<bool>(), 1..90),
        (height, width) in (1usize..9, 1usize..9),
        (block_rows, block_cols) in (1usize..5, 1usize..5),
        share in 0.0..=1.0f64,
        form in 0..4,
    ) {
        // Small integers: all sums are exact.
        let matrices = values.len() / (height * width);
        let shape = [matrices, height, width];
        let values: Vec<f32> = values[..matrices * height * width].iter().map(|&x| x.into()).collect();
        let mask = mask_of(&shape, &keep);
        let (down, across) = (height.div_ceil(block_rows), width.div_ceil(block_cols));
        let unit = |i: usize| {
            let (matrix, row, col) = (i / width / height, i / width % height, i % width);
            match form {
                3 => (matrix * down + row / block_rows) * across + col / block_cols,
                axis => [matrix, row, col][axis as usize],
            }
        };
        let units = if form == 3 { matrices * down * across } else { shape[form as usize] };
        let mut squares = vec![0.0; units];
        let mut there = vec![false; units];
        for i in mask.indices() {
            squares[unit(i)] += f64::from(values[i]).powi(2);
            there[unit(i)] = true;
        }
        let order = order(&squares, (0..units).filter(|&unit| there[unit]));
        let go = round(share * order.len() as f64);
        let want: Vec<usize> = mask.indices().filter(|&i| !order[..go].contains(&unit(i))).collect();
        let select = Select::sparsity(share).unwrap();
        let select = match form {
            3 => select.in_blocks(block_rows, block_cols).unwrap(),
            axis => select.along(axis as usize),
        };
        let mut refined = mask.clone();
        let tensor = TensorRef::new(&values, &shape).unwrap();
        select.with_norm(2.0).unwrap().by(Magnitude).refine(tensor, &mut refined).unwrap();
        prop_assert_eq!(kept(&refined), want);
    }

    #[test]
    fn what_was_pruned_is_not_looked_at_and_an_error_changes_nothing(
        values in prop::collection::vec(-2.0..2.0f32, 1..300),
        at in any::<prop::sample::Index>(),
        share in 0.0..=1.0f64,
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, -f32::NAN]),
    ) {
        let at = at.index(values.len());
        let mut spoilt = values.clone();
        spoilt[at] = bad;
        let before = Mask::from_fn(&[values.len()], |i| i != at).unwrap();
        let all = Mask::keep_all(&[values.len()]).unwrap();
        let share = Select::sparsity(share).unwrap();
        let (blocks, thirds) = (share.in_blocks(1, 2).unwrap(), Select::n_of_m(1, 3).unwrap());
        for select in [share, share.per_row(), share.with_min_kept(3), blocks, thirds] {
            let (mut mask, mut want) = (before.clone(), before.clone());
            select.by(Magnitude).refine((&spoilt).into(), &mut mask).unwrap();
            select.by(Magnitude).refine((&values).into(), &mut want).unwrap();
            prop_assert_eq!(mask, want);
            if bad.is_nan() {
                let mut mask = all.clone();
                let error = select.by(Magnitude).refine((&spoilt).into(), &mut mask).unwrap_err();
                prop_assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(at)));
                prop_assert_eq!(&mask, &all);
            }
        }
    }
}

#[test]
fn a_share_is_not_lost_to_floating_point() {
    // 1 - 0.9 is below 0.1, so that 10 * (1 - 0.9) is below 1.
    let ten: Vec<f32> = (0..10).map(|i| i as f32).collect();
    assert_eq!(Magnitude::sparsity(0.9).unwrap().mask(&ten).unwrap().kept(), 1);
    for n in 1..200usize {
        let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
        for tenths in 0..=10usize {
            // In integers; a half is decided by the product in `f64`, as PyTorch has it.
            let (whole, rest) = (tenths * n / 10, tenths * n % 10);
            let mask = Magnitude::sparsity(tenths as f64 / 10.0).unwrap().mask(&values).unwrap();
            let go = n - mask.kept();
            assert!(go == whole + usize::from(rest > 5) || rest == 5 && go == whole + 1, "{tenths} tenths of {n}");
            assert!(mask.indices().eq(go..n));
        }
    }
    // The count of a long tensor too: a third of it is not a third of an f32.
    let long = vec![1f32; 30_000_001];
    assert_eq!(Magnitude::sparsity(1.0 / 3.0).unwrap().mask(&long).unwrap().kept(), 20_000_001);
}

#[test]
fn ties_never_take_more_than_was_asked() {
    for n in [1usize, 63, 64, 65, 1000, 70_001] {
        for value in [0.0f32, -0.0, 1e-45, 1.0] {
            // Both signs of zero are one number.
            let values: Vec<f32> = (0..n).map(|i| if i % 3 == 0 { -value } else { value }).collect();
            for go in [0, 1, n / 2, n - 1, n] {
                let by_size = Magnitude::count(go).mask(&values).unwrap();
                assert!(by_size.indices().eq(0..n - go), "{n} {go} of {value}");
                let rows = Select::count(go).per_row().by(Magnitude).mask(&values).unwrap();
                assert_eq!(rows, by_size);
                if value == 0.0 {
                    let mut by_number = [Mask::keep_all(&[n]).unwrap()];
                    Select::count(go).refine(&[Scores::new(&values)], &mut by_number).unwrap();
                    assert_eq!(by_number[0], by_size);
                }
            }
        }
    }
    assert!(Magnitude::threshold(0.0).unwrap().mask(&[0.0f32, -0.0, 1e-45]).unwrap().indices().eq([2]));
}

#[test]
fn a_floor_keeps_every_tensor_alive() {
    // All of the small one's weights are the smallest of all.
    let (small, large) = ([0.01f32, -0.02, 0.03], [1.0f32, 2.0, -3.0, 4.0, 5.0, 6.0]);
    let tensors = [Scores::magnitude(&small[..]), Scores::magnitude(&large[..])];
    let prune = |select: Select| -> Result<[Vec<usize>; 2]> {
        let mut masks = [Mask::keep_all(&[3])?, Mask::keep_all(&[6])?];
        let before = masks.clone();
        let outcome = select.refine(&tensors, &mut masks);
        if outcome.is_err() {
            assert_eq!(masks, before);
        }
        outcome.map(|()| masks.map(|mask| kept(&mask)))
    };
    let share = Select::sparsity(5.0 / 9.0).unwrap();
    assert_eq!(prune(share).unwrap(), [vec![], vec![2, 3, 4, 5]]);
    // As many go: from elsewhere.
    assert_eq!(prune(share.with_min_kept(1)).unwrap(), [vec![2], vec![3, 4, 5]]);
    assert_eq!(prune(Select::above(10.0).unwrap().with_min_kept(1)).unwrap(), [vec![2], vec![5]]);
    // Where that is not possible, the floor comes first.
    assert_eq!(prune(Select::sparsity(1.0).unwrap().with_min_kept(2)).unwrap(), [vec![1, 2], vec![4, 5]]);
    assert_eq!(prune(Select::count(9).with_min_kept(4)).unwrap(), [vec![0, 1, 2], vec![2, 3, 4, 5]]);
    assert_eq!(prune(Select::count(10).with_min_kept(4)).unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(prune(Select::budget(3).with_min_kept(1)).unwrap(), [vec![2], vec![4, 5]]);
    let error = prune(Select::budget(3).with_min_kept(2)).unwrap_err();
    assert_eq!(error.to_string(), "budget is 3 where 4 must stay, must be at least the cost of what must stay");
    // Of channels too: one filter of each layer.
    let filters = Select::sparsity(1.0).unwrap().along(0).with_min_kept(1);
    assert_eq!(prune(filters).unwrap(), [vec![2], vec![5]]);
}

#[test]
fn budgets_of_bytes_and_of_multiplications() {
    // A convolution whose 18 weights take part in 100 multiplications each, and a dense layer of 40 weights.
    let conv: Vec<f32> = (0..18).map(|i| (i + 1) as f32 / 18.0).collect();
    let dense: Vec<f32> = (0..40).map(|i| (i + 1) as f32 / 40.0).collect();
    let prune = |select: Select, costs: [u64; 2]| -> Result<[usize; 2]> {
        let mut masks = [Mask::keep_all(&[2, 1, 3, 3])?, Mask::keep_all(&[4, 10])?];
        let scores = [Scores::magnitude(&conv).with_cost(costs[0]), Scores::magnitude(&dense).with_cost(costs[1])];
        select.refine(&scores, &mut masks)?;
        Ok(masks.map(|mask| mask.kept()))
    };
    assert_eq!(prune(Select::budget(29), [1, 1]).unwrap(), [9, 20]);
    let [conv_kept, dense_kept] = prune(Select::budget(920), [100, 1]).unwrap();
    assert_eq!((conv_kept, dense_kept), (9, 20));
    assert_eq!(prune(Select::budget(u64::MAX), [100, 1]).unwrap(), [18, 40]);
    assert_eq!(prune(Select::budget(0), [100, 1]).unwrap(), [0, 0]);
    // Whole filters and outputs: 9 and 10 weights each.
    let whole = Select::budget(940).along(0).with_mean();
    assert_eq!(prune(whole, [100, 1]).unwrap(), [9, 30]);
    assert_eq!(prune(Select::budget(1), [u64::MAX / 2, 1]).unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(prune(Select::budget(1).along(0), [u64::MAX / 2, 1]).unwrap_err().kind(), ErrorKind::Argument);
    let error = Select::budget(1).per_row().by(Magnitude).mask(&conv).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
}

#[test]
fn large_units_do_not_win_by_their_size() {
    let (a, b) = (vec![1.0f32; 4], vec![0.5f32; 100]);
    let prune = |select: Select| {
        let mut masks = [Mask::keep_all(&[2, 2]).unwrap(), Mask::keep_all(&[2, 50]).unwrap()];
        select.refine(&[Scores::magnitude(&a), Scores::magnitude(&b)], &mut masks).unwrap();
        masks.map(|mask| mask.kept())
    };
    let two = Select::count(2).along(0);
    assert_eq!(prune(two), [0, 100]);
    assert_eq!(prune(two.with_mean()), [4, 0]);
    assert_eq!(prune(two.with_norm(2.0).unwrap().with_mean()), [4, 0]);
    assert_eq!(prune(two.with_norm(f64::INFINITY).unwrap()), [4, 0]);
}

/// Below 1 the root of a sum goes beyond any number, or below.
#[test]
fn norms_of_any_power_tell_units_apart() {
    let values: Vec<f64> = (0..32).map(|i| if i / 4 % 2 == 0 { 1.0 } else { 5.0 }).collect();
    let refined = |select: Select, scores: &[f64], keep: &dyn Fn(usize) -> bool| {
        let mut masks = [Mask::from_fn(&[8, 4], keep).unwrap()];
        select.along(0).refine(&[Scores::new(scores)], &mut masks).unwrap();
        masks[0].indices().filter(|i| i % 4 == 0).map(|i| i / 4).collect::<Vec<_>>()
    };
    let all = |_: usize| true;
    for p in [1e-6, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 1e300, f64::INFINITY] {
        for size in [1e-300, 1e-40, 1.0, 1e200] {
            let values: Vec<f64> = values.iter().map(|x| x * size).collect();
            let norm = Select::count(4).with_norm(p).unwrap();
            assert_eq!(refined(norm, &values, &all), [1, 3, 5, 7], "{p} {size:e}");
            assert_eq!(refined(norm.with_mean(), &values, &all), [1, 3, 5, 7], "{p} {size:e}");
        }
    }
    // One element of four kept in a row: their mean vanishes, and still they differ.
    let few = Select::count(4).with_norm(1e-3).unwrap().with_mean();
    assert_eq!(refined(few, &values, &|i| i % 4 == 0), [1, 3, 5, 7]);
    // A threshold is one of the norm: here 16 and 80.
    let above = |threshold| Select::above(threshold).unwrap().with_norm(0.5).unwrap();
    assert_eq!(refined(above(17.0), &values, &all), [1, 3, 5, 7]);
    assert_eq!(refined(above(15.0), &values, &all).len(), 8);
    assert_eq!(refined(above(81.0), &values, &all).len(), 0);
    assert_eq!(refined(above(0.0), &[0.0; 32], &all).len(), 0);
    assert_eq!(refined(above(-1.0), &[0.0; 32], &all).len(), 8);
    assert_eq!(Select::count(1).with_norm(1e-9).unwrap_err().kind(), ErrorKind::Argument);
}

#[test]
fn what_costs_nothing_stays() {
    let (free, dear) = ([0.1f32, 0.2, 9.0, 0.3], [5.0f32, 1.0, 2.0, 7.0]);
    let prune = |select: Select| {
        let mut masks = [Mask::keep_all(&[2, 2]).unwrap(), Mask::keep_all(&[2, 2]).unwrap()];
        let scores = [Scores::magnitude(&free[..]).with_cost(0), Scores::magnitude(&dear[..]).with_cost(3)];
        select.refine(&scores, &mut masks).unwrap();
        masks.map(|mask| kept(&mask))
    };
    assert_eq!(prune(Select::budget(6)), [vec![0, 1, 2, 3], vec![0, 3]]);
    assert_eq!(prune(Select::budget(0)), [vec![0, 1, 2, 3], vec![]]);
    assert_eq!(prune(Select::budget(6).with_min_kept(1)), [vec![0, 1, 2, 3], vec![0, 3]]);
    assert_eq!(prune(Select::budget(6).along(0)), [vec![0, 1, 2, 3], vec![2, 3]]);
    assert_eq!(prune(Select::budget(6).in_blocks(1, 1).unwrap()), [vec![0, 1, 2, 3], vec![0, 3]]);
    // A count is one of elements, whatever they cost.
    assert_eq!(prune(Select::count(4)), [vec![2], vec![0, 2, 3]]);
}

/// However long the other axes are: a 0 among them leaves no element.
#[test]
fn empty_tensors_of_long_axes_are_pruned() {
    for shape in [[usize::MAX, 2, 0], [0, usize::MAX, 2], [2, 0, usize::MAX]] {
        let none = || TensorRef::<f32>::new(&[], &shape).unwrap();
        for (axis, &length) in shape.iter().enumerate() {
            let mask = Select::count(0).along(axis).by(Magnitude).mask(none());
            // Units along an axis that memory does not hold are refused.
            match length {
                usize::MAX => assert_eq!(mask.unwrap_err().kind(), ErrorKind::Argument),
                _ => assert_eq!(mask.unwrap().kept(), 0),
            }
            if length == 2 {
                let mut activations = Activations::new(axis, length).unwrap();
                activations.add(none()).unwrap();
                assert_eq!(activations.mean_abs(), vec![0.0; length]);
                Channels::new(axis, vec![1.0; length]).score(none(), &mut []).unwrap();
            }
            if length == 0 {
                Channels::new(axis, []).score(none(), &mut []).unwrap();
            }
        }
        let blocks = Select::count(0).in_blocks(1, 1).unwrap().by(Magnitude).mask(none()).unwrap();
        assert_eq!(blocks.shape(), shape);
    }
}

#[test]
fn n_of_m_takes_no_floor() {
    let values = [1.0f32, 2.0, 9.0, 1.0, 5.0, 1.0, 1.0, 1.0, 0.5, 3.0, 2.0, 4.0, 7.0, 8.0, 6.0, 5.5];
    let two = Select::n_of_m(2, 4).unwrap();
    let mut mask = Mask::keep_all(&[16]).unwrap();
    let error = two.with_min_kept(3).by(Magnitude).refine((&values).into(), &mut mask).unwrap_err();
    assert_eq!((error.kind(), mask.kept()), (ErrorKind::Argument, 16));
    assert_eq!(error.to_string(), "floor is 3 beside 2 of 4, must be 0: n of m says what each block keeps");
    two.with_min_kept(3).with_min_kept(0).by(Magnitude).refine((&values).into(), &mut mask).unwrap();
    assert_eq!(mask.kept(), 8);
}

#[test]
fn two_of_four_in_blocks_and_again() {
    // Units of 2 by 1, of which one of each two neighbours stays.
    let values = [1.0f32, 2.0, 9.0, 1.0, 5.0, 1.0, 1.0, 1.0];
    let tensor = || TensorRef::new(&values, &[2, 4]).unwrap();
    let pruner = Select::n_of_m(1, 2).unwrap().in_blocks(2, 1).unwrap().by(Magnitude);
    let mut mask = pruner.mask(tensor()).unwrap();
    assert_eq!(kept(&mask), [0, 2, 4, 6]);
    let before = mask.clone();
    pruner.refine(tensor(), &mut mask).unwrap();
    assert_eq!(mask, before);
    assert!(Select::n_of_m(0, 4).is_err() && Select::n_of_m(5, 4).is_err());
    // A block as long as no row is.
    let long = Select::n_of_m(usize::MAX / 2, usize::MAX).unwrap().by(Magnitude).mask(tensor()).unwrap();
    assert_eq!(long.kept(), 4);
}

#[test]
fn every_criterion_goes_with_every_selection() {
    let (rows, cols) = (8, 12);
    let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
    let gradient: Vec<f32> = (0..rows * cols).map(|i| ((i * 53 % 97) as f32 - 48.0) / 9.0).collect();
    let weights = || TensorRef::new(&values, &[rows, cols]).unwrap();
    let gradient = || TensorRef::new(&gradient, &[rows, cols]).unwrap();
    let (mut taylor, mut movement) = (Taylor::new(&[rows, cols]).unwrap(), Movement::new(&[rows, cols]).unwrap());
    taylor.add(weights(), gradient()).unwrap();
    movement.add(weights(), gradient()).unwrap();
    let mut calibration = Calibration::new(cols).unwrap();
    calibration.add(gradient()).unwrap();
    let mut activations = Activations::new(1, rows).unwrap();
    activations.add(TensorRef::new(&values, &[cols, rows]).unwrap()).unwrap();
    let criteria: Vec<Box<dyn Criterion<f32>>> = vec![
        Box::new(Magnitude),
        Box::new(Random::new(3)),
        Box::new(Snip::new(gradient())),
        Box::new(taylor),
        Box::new(movement),
        Box::new(Wanda::new(&calibration).unwrap()),
        Box::new(Channels::new(0, activations.variance())),
        Box::new(Channels::new(0, activations.alive())),
        Box::new(Channels::new(0, activations.mean_abs())),
        Box::new(Channels::batch_norm(1, &values[..cols])),
    ];
    let half = Select::sparsity(0.5).unwrap();
    let selections = [
        (half, rows * cols / 2),
        (Select::count(96 - 7), 7),
        (half.per_row(), rows * cols / 2),
        (Select::n_of_m(2, 4).unwrap(), rows * cols / 2),
        (Select::n_of_m(3, 5).unwrap(), rows * (3 + 3 + 2)),
        (half.along(0), rows * cols / 2),
        (half.along(1).with_norm(3.0).unwrap(), rows * cols / 2),
        (Select::count(3).along(1), rows * (cols - 3)),
        (half.in_blocks(2, 3).unwrap().with_mean(), rows * cols / 2),
        (Select::n_of_m(2, 4).unwrap().in_blocks(4, 1).unwrap(), rows * cols / 2),
        (Select::budget(50), 50),
        (Select::sparsity(1.0).unwrap().with_min_kept(5), 5),
    ];
    let mut different = std::collections::BTreeSet::new();
    for criterion in &criteria {
        let mut scores = vec![f64::NAN; rows * cols];
        criterion.score(weights(), &mut scores).unwrap();
        assert!(scores.iter().all(|score| score.is_finite()), "{criterion:?}");
        for (select, want) in selections {
            let mask = select.by(criterion).mask(weights()).unwrap();
            assert_eq!(mask.kept(), want, "{criterion:?} {select:?}");
            // The scores alone say so.
            let mut again = [Mask::keep_all(&[rows, cols]).unwrap()];
            select.refine(&[Scores::new(&scores)], &mut again).unwrap();
            assert_eq!(again[0], mask);
            different.insert((format!("{select:?}"), mask.words().to_vec()));
        }
    }
    assert!(different.len() > 80, "{} masks", different.len());
}

#[test]
fn the_same_bits_on_any_instruction_set_and_number_of_threads() {
    let n = 300_000;
    let values: Vec<f32> = (0..n).map(|i| ((i as f32 * 0.37).sin() * 64.0).round() / 8.0).collect();
    let gradient: Vec<f32> = (0..n).map(|i| ((i as f32 * 0.11).cos() * 64.0).round() / 8.0).collect();
    let shape = [600, 500];
    let work = || {
        let half = Select::sparsity(0.37).unwrap();
        let selections = [
            half,
            half.per_row(),
            half.with_min_kept(200_000),
            Select::n_of_m(2, 4).unwrap(),
            Select::n_of_m(3, 7).unwrap(),
            half.along(1).with_norm(1.5).unwrap(),
            half.in_blocks(3, 7).unwrap(),
            Select::budget(12_345),
        ];
        let tensor = || TensorRef::new(&values, &shape).unwrap();
        let gradient = || TensorRef::new(&gradient, &shape).unwrap();
        let by_size = selections.map(|select| select.by(Magnitude).mask(tensor()).unwrap());
        let by_chance = selections.map(|select| select.by(Random::new(5)).mask(tensor()).unwrap());
        (by_size, by_chance, selections.map(|select| select.by(Snip::new(gradient())).mask(tensor()).unwrap()))
    };
    let want = work();
    for isa in Isa::available() {
        isa.force();
        for threads in [1, 2, 7] {
            let got = pool(threads, work);
            assert!(got == want, "{} with {threads} threads", isa.name());
        }
    }
}

#[cfg(feature = "rayon")]
fn pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[cfg(not(feature = "rayon"))]
fn pool<R>(_: usize, work: impl FnOnce() -> R) -> R {
    work()
}
