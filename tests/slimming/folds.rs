//! Where constants go: to the right channels, by the right weights, or nowhere.

use crate::{
    interpreter::{Array, Model, Op, arrays, views},
    random::{Dice, Maker, feed, near},
};
use lapidary::{
    Optimizer, OptimizerExt, State, Step,
    optim::{Ema, Lookahead, ScheduleFree, Sgd},
    slim::{
        Activation, BatchNorm, Cell, Dense, Importance, Input, Keep, Normalize, Plan, Slim, Topology,
        views as tensor_views,
    },
};
use std::collections::BTreeMap;

/// A plan by the scores of groups; one without scores stays whole above a half.
fn plan(model: &Model, scores: &[(&str, &[f64])], keep: &Keep) -> Plan {
    let (topology, weights) = (model.topology(), views(&model.weights));
    let of = |name: &str, size| {
        let given = scores.iter().find(|(known, _)| *known == name);
        given.map_or(vec![1.0; size], |(_, scores)| scores.to_vec())
    };
    let scores = topology.groups().iter().map(|group| of(&group.name, group.size)).collect();
    let importance = Importance::normalized(&topology, scores, Normalize::None).unwrap();
    Plan::new(&topology, &weights, &importance, keep).unwrap()
}

/// The slim model, which must give the masked one's outputs; and where its report says so, the original's.
fn slimmed(model: &Model, scores: &[(&str, &[f64])], keep: &Keep) -> Slim<f64> {
    let (topology, weights, plan) = (model.topology(), views(&model.weights), plan(model, scores, keep));
    let slim = plan.apply(&weights).unwrap();
    let inputs = feed(model, &mut Dice(3));
    let after = model.run(&slim.topology, &arrays(&slim.weights()), &inputs);
    let masked = plan.masked(&weights).unwrap();
    near(&model.run(&topology, &arrays(&tensor_views(&masked)), &inputs), &after, 1e-12);
    if slim.report.is_exact() {
        near(&model.run(&topology, &model.weights, &inputs), &after, 1e-12);
    }
    slim
}

fn above_half() -> Keep {
    Keep::above(0.5).unwrap()
}

fn set(m: &mut Maker, tensor: &str, data: &[f64]) {
    let array = m.model.weights.get_mut(tensor).unwrap();
    *array = Array::new(&array.shape, data.to_vec());
}

/// A layer without a bias before a norm of steps.
#[test]
fn a_norm_over_another_axis_takes_no_constants() {
    for recurrent in [false, true] {
        let mut m = Maker::new(43, &[2, 2], 1);
        let x = m.dense(0, 4, true);
        let x = m.same(Op::Act(Activation::Sigmoid), x);
        let x = if recurrent {
            m.tensor("weight_ih", &[12, 4]);
            m.tensor("weight_hh", &[12, 3]);
            m.put(Op::Recurrent(Cell::Lstm, false), &[x], vec![2, 3])
        } else {
            m.dense(x, 3, false)
        };
        m.batch_norm(x);
        m.silence(1, &[0, 1]);
        let slim = slimmed(&m.model, &[("n1", &[0.0, 0.0, 1.0, 1.0])], &above_half());
        assert!(slim.report.is_exact(), "{}", slim.report);
        assert_eq!(
            (slim.topology.shape("n1"), &slim.report.made[..]),
            (Some(&[2, 2][..]), &["n3.bias".to_owned()][..])
        );
    }
}

/// Weights that make the channels they read are masked with them, unless those are constants.
#[test]
fn constants_through_tied_weights_are_folded() {
    for silent in [&[][..], &[0], &[0, 1]] {
        let mut m = Maker::new(47, &[2], 0);
        let h = m.dense(0, 2, true);
        let y = m.dense(h, 3, true);
        let Op::Dense { inputs_first, .. } = m.model.nodes[y].1 else { unreachable!() };
        let back = Op::Tied { weight: "n2.weight".to_owned(), inputs_first: !inputs_first };
        let z = m.put(back, &[y], vec![2]);
        let y = m.same(Op::Act(Activation::Tanh), y);
        let x = m.put(Op::Concat(0), &[z, y], vec![5]);
        m.dense(x, 2, true);
        m.silence(h, silent);
        for (units, hidden) in [([1.0, 1.0], [0.0, 1.0, 0.0]), ([0.0, 1.0], [1.0; 3]), ([0.0, 1.0], [0.0, 0.0, 1.0])] {
            let slim = slimmed(&m.model, &[("n1", &units), ("n2", &hidden)], &above_half());
            assert!(silent.len() < 2 || slim.report.is_exact(), "{}", slim.report);
        }
    }
}

/// The input weights of a recurrent layer, which a dense layer shares the other way.
#[test]
fn a_recurrent_layer_does_not_fold_what_its_tied_weights_mask() {
    let mut m = Maker::new(53, &[3, 2], 1);
    let h = m.dense(0, 4, true);
    m.tensor("weight_ih", &[5, 4]);
    m.tensor("weight_hh", &[5, 5]);
    ["bias_ih", "bias_hh"].into_iter().for_each(|bias| m.tensor(bias, &[5]));
    let y = m.put(Op::Recurrent(Cell::Rnn, true), &[h], vec![3, 5]);
    let z = m.put(Op::Tied { weight: "n2.weight_ih".to_owned(), inputs_first: true }, &[y], vec![3, 4]);
    let x = m.put(Op::Concat(1), &[z, h], vec![3, 8]);
    m.dense(x, 2, true);
    let slim = slimmed(&m.model, &[("n1", &[0.0, 1.0, 0.0, 1.0])], &above_half());
    assert_eq!(slim.topology.shape("n1"), Some(&[3, 2][..]));
}

/// One slope a step: what is the same at all steps before is not so after.
#[test]
fn slopes_along_another_axis_make_no_constants() {
    let mut m = Maker::new(59, &[3, 4], 1);
    let x = m.dense(0, 2, true);
    m.tensor("weight", &[3]);
    let x = m.same(Op::PRelu, x);
    let x = m.dense(x, 3, true);
    let x = m.same(Op::Act(Activation::Tanh), x);
    m.dense(x, 2, true);
    m.silence(1, &[0]);
    set(&mut m, "n1.bias", &[-1.0, 0.5]);
    set(&mut m, "n2.weight", &[0.0, 10.0, 100.0]);
    // The first unit reads the constant only.
    let weight = if m.model.weights["n3.weight"].shape == [2, 3] {
        [0.5, 0.25, -0.5, 0.0, 1.0, 0.75]
    } else {
        [0.5, 0.0, 0.25, 1.0, -0.5, 0.75]
    };
    set(&mut m, "n3.weight", &weight);
    let slim = slimmed(&m.model, &[("n3", &[0.0, 1.0, 1.0])], &above_half());
    assert!(!slim.report.is_exact(), "{}", slim.report);
    // One slope for all does.
    m.model.weights.insert("n2.weight".to_owned(), Array::new(&[1], vec![10.0]));
    let slim = slimmed(&m.model, &[("n3", &[0.0, 1.0, 1.0])], &above_half());
    assert!(slim.report.is_exact(), "{}", slim.report);
}

/// What is known of an index of two axes counts more than a replacement of the channels of one.
#[test]
fn a_replacement_behind_a_reshape_leaves_constants_as_they_are() {
    let mut m = Maker::new(67, &[4], 0);
    let x = m.dense(0, 6, true);
    let x = m.put(Op::Reshape(vec![2, 3], Some(1)), &[x], vec![2, 3]);
    m.dense(x, 2, false);
    m.silence(1, &[0, 3]);
    set(&mut m, "n1.bias", &[3.0, 1.0, 0.5, 3.0, -1.0, 0.25]);
    let keep = above_half().with_replacement("n2", vec![100.0; 3]);
    let slim = slimmed(&m.model, &[("n1", &[0.0, 1.0, 1.0])], &keep);
    assert!(slim.report.is_exact() && slim.topology.shape("n2") == Some(&[2, 2]), "{}", slim.report);
    // What is no constant is taken for the replacement.
    let slim = plan(&m.model, &[("n1", &[1.0, 0.0, 1.0])], &keep).apply(&views(&m.model.weights)).unwrap();
    let w = &m.model.weights["n3.weight"];
    let weight = |o: usize| if w.shape == [3, 2] { w.data[2 + o] } else { w.data[3 * o + 1] };
    assert_eq!(slim.tensors["n3.bias"].values(), [100.0 * weight(0), 100.0 * weight(1)]);
}

/// A variance of 0 without an epsilon makes no number of a constant.
#[test]
fn what_is_no_number_is_no_constant() {
    for (scale, mean) in [(2.0, 0.25), (2.0, 0.5), (0.0, 0.25)] {
        let data = BTreeMap::from([
            ("w", Array::new(&[2, 2], vec![0.0, 0.0, 1.0, 1.0])),
            ("b", Array::new(&[2], vec![0.5, 0.5])),
            ("mean", Array::new(&[2], vec![mean; 2])),
            ("variance", Array::new(&[2], vec![0.0, 1.0])),
            ("scale", Array::new(&[2], vec![scale, 1.0])),
            ("shift", Array::new(&[2], vec![1.0; 2])),
            ("v", Array::new(&[1, 2], vec![1.0, 2.0])),
        ]);
        let weights: BTreeMap<&str, _> = data.iter().map(|(name, w)| (*name, w.view())).collect();
        let mut model = Topology::builder(weights.iter().map(|(name, w)| (*name, w.shape()))).unwrap();
        let x = model.add("x", Input::new(&[2], 0), []).unwrap();
        let x = model.add("h", Dense::new("w").with_bias("b"), [x]).unwrap();
        let norm = BatchNorm::new("mean", "variance", 0.0).with_affine("scale", "shift");
        let x = model.add("norm", norm, [x]).unwrap();
        model.add("y", Dense::new("v"), [x]).unwrap();
        let topology = model.build().unwrap();
        let importance = Importance::new(&topology, vec![vec![1.0; 2], vec![0.0, 1.0], vec![1.0]]).unwrap();
        let plan = Plan::new(&topology, &weights, &importance, &Keep::ratio(0.5).unwrap()).unwrap();
        assert_eq!((plan.kept("h"), plan.groups()[1].held.len()), (Some(&[0][..]), 1), "{scale} {mean}");
        let _ = plan.apply(&weights).unwrap();
    }
}

/// The report of what a threshold asked for, and all above it though others are held.
#[test]
fn a_threshold_keeps_all_above_it_beside_what_is_held() {
    let mut m = Maker::new(71, &[2, 5, 5], 0);
    let x = m.conv(0, 4, 1, 0, 1, true);
    let x = m.same(Op::Act(Activation::Relu), x);
    m.conv(x, 2, 3, 1, 1, true);
    set(&mut m, "n1.bias", &[-0.5, -0.25, 0.5, 0.75]);
    let kept = |scores: &[f64; 4]| {
        let plan = plan(&m.model, &[("n1", scores)], &above_half());
        (plan.kept("n1").unwrap().to_vec(), plan.groups()[1].requested)
    };
    assert_eq!(kept(&[2.17, 1.74, 0.04, 0.04]), (vec![0, 1, 2, 3], 2));
    assert_eq!(kept(&[2.17, 0.1, 0.04, 3.0]), (vec![0, 2, 3], 2));
    assert_eq!(kept(&[0.0; 4]), (vec![2, 3], 0));
}

/// Mixing steps costs as much as there are channels to mix them of.
#[test]
fn a_budget_of_multiplications_counts_a_layer_along_another_axis() {
    let mut m = Maker::new(73, &[8, 2], 1);
    let x = m.dense(0, 16, false);
    let x = m.put(Op::Transpose(vec![1, 0]), &[x], vec![16, 8]);
    let x = m.dense(x, 2, false);
    let x = m.put(Op::Transpose(vec![1, 0]), &[x], vec![2, 16]);
    m.dense(x, 1, false);
    let channel = 8 * 2 + 8 * 2 + 2;
    assert_eq!(m.model.topology().macs(), 16 * channel);
    for width in [1, 5, 10, 15] {
        let slim = slimmed(&m.model, &[], &Keep::macs(channel * width + channel / 2));
        assert_eq!((slim.report.macs_after, slim.topology.shape("n1")), (channel * width, Some(&[8, width][..])));
    }
}

/// Slow weights and averages hold what the folded weights are, and do not pull them back.
#[test]
fn copies_of_weights_in_optimizer_state_are_folded_too() {
    let mut m = Maker::new(79, &[2], 0);
    let x = m.dense(0, 2, true);
    m.dense(x, 1, true);
    m.silence(1, &[0]);
    set(&mut m, "n1.bias", &[2.0, 0.5]);
    set(&mut m, "n2.weight", &[2.0, 1.0]);
    set(&mut m, "n2.bias", &[1.0]);
    let sgd = || Sgd::new(0.5).unwrap();
    let optimizers: [Box<dyn Optimizer<f64>>; 3] = [
        Box::new(Lookahead::new(sgd(), 2, 0.5).unwrap()),
        Box::new(Ema::new(sgd(), 0.5).unwrap()),
        Box::new(ScheduleFree::new(0.5).unwrap()),
    ];
    let plan = plan(&m.model, &[("n1", &[0.0, 1.0])], &above_half());
    for optimizer in optimizers {
        // Two steps without a gradient: the copies are what the weights are.
        let mut bias = vec![1.0];
        let mut state = optimizer.init(&bias).unwrap();
        let step = |bias: &mut Vec<f64>, state: &mut State| {
            optimizer.step(Step::new(bias, &[0.0], state)).unwrap();
        };
        step(&mut bias, &mut state);
        step(&mut bias, &mut state);
        let slim = plan.apply(&views(&m.model.weights)).unwrap();
        let mut bias = slim.tensors["n2.bias"].values().to_vec();
        assert_eq!(bias, [5.0]);
        let mut state = plan.cut_state("n2.bias", &state, &slim).unwrap();
        for _ in 0..2 {
            step(&mut bias, &mut state);
            let mut average = vec![0.0];
            optimizer.evaluate((&bias).into(), &state, (&mut average).into()).unwrap();
            assert!(
                (bias[0] - 5.0).abs() < 1e-12 && (average[0] - 5.0).abs() < 1e-12,
                "{bias:?} {average:?} {state:?}"
            );
        }
    }
}
