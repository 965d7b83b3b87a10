//! The residual network slimmed to two fifths of its parameters, and trained on.

use crate::{
    random::Dice,
    rescnn::{Net, Tensors, epoch, is_trained, owned, read, topology, trained_params, views},
};
use flate2::read::GzDecoder;
use lapidary::{
    State,
    slim::{Importance, Keep, Plan, views as borrowed},
};
use std::{collections::BTreeMap, io::Read};

/// Images from 0 to 1 with their labels: those to learn from, and the held-out ones, every fourth.
fn rows() -> [Vec<(Vec<f32>, usize)>; 2] {
    let mut bytes = Vec::new();
    GzDecoder::new(&include_bytes!("../../examples/data/digits_1797x65_u8.bin.gz")[..])
        .read_to_end(&mut bytes)
        .unwrap();
    let row = |row: &[u8]| (row[..64].iter().map(|&p| f32::from(p) / 16.0).collect(), usize::from(row[64]));
    let part = |held: bool| {
        let rows = bytes.chunks(65).enumerate().filter(|(i, _)| (i % 4 == 3) == held);
        rows.map(|(_, bytes)| row(bytes)).collect()
    };
    [part(false), part(true)]
}

fn network() -> Tensors {
    read(include_bytes!("../fixtures/digits_rescnn.safetensors"))
}

/// All logits of some rows.
fn logits(tensors: &BTreeMap<&str, lapidary::TensorRef<'_, f32>>, rows: &[(Vec<f32>, usize)]) -> Vec<f64> {
    rows.iter().flat_map(|(x, _)| Net(tensors).run(x, None)).map(f64::from).collect()
}

#[test]
fn gradients_are_those_of_differences() {
    let mut net = network();
    let [train, _] = rows();
    let (x, label) = &train[5];
    let mut grads: Tensors = net.iter().map(|(n, (s, v))| (n.clone(), (s.clone(), vec![0.0; v.len()]))).collect();
    // Another label than the right one, so that there is something to learn.
    let label = (label + 1) % 10;
    Net(&views(&net)).run(x, Some((label, 1.0, &mut grads)));
    let loss = |net: &Tensors| {
        let z = Net(&views(net)).run(x, None);
        let all: f64 = z.iter().map(|&z| f64::from(z).exp()).sum();
        all.ln() - f64::from(z[label])
    };
    for name in net.keys().filter(|name| is_trained(name)).cloned().collect::<Vec<_>>() {
        let at = (0..net[&name].1.len()).max_by(|&i, &j| grads[&name].1[i].abs().total_cmp(&grads[&name].1[j].abs()));
        let (at, h) = (at.unwrap(), 2e-3);
        let mut near = |by: f32| {
            net.get_mut(&name).unwrap().1[at] += by;
            let loss = loss(&net);
            net.get_mut(&name).unwrap().1[at] -= by;
            loss
        };
        let (found, expected) = (f64::from(grads[&name].1[at]), (near(h) - near(-h)) / f64::from(2.0 * h));
        assert!((found - expected).abs() < 0.05 * expected.abs() + 1e-2, "{name}: {found} {expected}");
    }
}

#[test]
fn what_folds_exactly_changes_no_more_than_rounding() {
    let net = network();
    let (topology, weights) = (topology(&net), views(&net));
    let [_, test] = rows();
    assert_eq!(Net(&weights).right(&test), 443);
    assert_eq!(trained_params(&net), 28_410);
    // One group for each residual stream, one inside each block.
    let sizes: Vec<_> = topology.groups().iter().map(|group| (group.name.as_str(), group.size)).collect();
    assert_eq!(sizes, [("x", 1), ("conv0", 16), ("b1.conv1", 16), ("down", 32), ("b2.conv1", 32), ("fc", 10)]);
    let importance = Importance::of(&topology, &weights).unwrap();
    let plan = Plan::new(&topology, &weights, &importance, &Keep::ratio(0.5).unwrap()).unwrap();
    let slim = plan.apply(&weights).unwrap();
    println!("{}", slim.report);
    assert!(slim.report.made.is_empty() && slim.report.params_after < slim.report.params_before);
    let masked = owned(&plan.masked(&weights).unwrap());
    let slim = owned(&slim.tensors);
    for (a, b) in logits(&views(&masked), &test).iter().zip(logits(&views(&slim), &test)) {
        assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{a} {b}");
    }
}

#[test]
fn three_fifths_go_for_at_most_a_point_of_accuracy() {
    let mut net = network();
    let [train, test] = rows();
    let right = Net(&views(&net)).right(&test);
    let (all, trained) = (topology(&net).params(), trained_params(&net));
    let mut states: BTreeMap<String, State> = BTreeMap::new();
    let mut dice = Dice(1);
    let mut order: Vec<usize> = (0..train.len()).collect();
    let mut train_for = |net: &mut Tensors, states: &mut BTreeMap<String, State>, epochs: usize, rate: f64| {
        for i in 0..epochs {
            (1..order.len()).rev().for_each(|i| order.swap(i, dice.below(i + 1)));
            let rate = rate * 0.5 * (1.0 + (std::f64::consts::PI * i as f64 / epochs as f64).cos());
            epoch(net, states, &train, &order, rate);
        }
    };
    // The optimizer has state when it comes to cutting.
    train_for(&mut net, &mut states, 1, 1e-4);
    for (share, epochs) in [(0.62, 1), (0.385, 5)] {
        let (topology, weights) = (topology(&net), views(&net));
        let importance = Importance::of(&topology, &weights).unwrap();
        let keep = Keep::params((share * all as f64) as usize).with_approximation();
        let plan = Plan::new(&topology, &weights, &importance, &keep).unwrap();
        let mut slim = plan.apply(&weights).unwrap();
        let masked = plan.masked(&weights).unwrap();
        let run = plan.measure(&borrowed(&masked), &mut slim, |_, tensors| {
            let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.into())).collect();
            Ok(logits(&tensors, &test[..50]))
        });
        assert!(run.unwrap().relative.is_finite());
        println!("{}", slim.report);
        let cut = |(name, state): (&String, &State)| (name.clone(), plan.cut_state(name, state, &slim).unwrap());
        states = states.iter().map(cut).collect();
        assert!(states.iter().all(|(name, state)| state.shape() == slim.tensors[name].shape() && state.steps() > 0));
        net = owned(&slim.tensors);
        println!("right before training: {} of {}", Net(&views(&net)).right(&test), test.len());
        train_for(&mut net, &mut states, epochs, 2e-3);
    }
    let (after, params) = (Net(&views(&net)).right(&test), trained_params(&net));
    println!("{params} of {trained} parameters, {after} right for {right} of {}", test.len());
    assert!(10 * params <= 4 * trained, "{params} of {trained}");
    assert!(100 * (right - after.min(right)) <= test.len(), "{after} for {right}");
}
