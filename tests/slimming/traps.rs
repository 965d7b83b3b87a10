//! Mistakes that slimming is known for.

use crate::{
    interpreter::{Op, arrays, views},
    random::{Dice, Maker, check, feed, near},
};
use lapidary::slim::{Activation, Importance, Keep, Plan, Topology};

/// Three dense layers of these widths.
fn chain(widths: [usize; 2]) -> Maker {
    let mut m = Maker::new(1, &[4], 0);
    let x = m.dense(0, widths[0], true);
    let x = m.same(Op::Act(Activation::Relu), x);
    let x = m.dense(x, widths[1], true);
    let x = m.same(Op::Act(Activation::Sigmoid), x);
    m.dense(x, 2, true);
    m
}

/// What stays of the two hidden layers, by equal scores.
fn kept(m: &Maker, keep: &Keep) -> [Vec<usize>; 2] {
    let (topology, weights) = (m.model.topology(), views(&m.model.weights));
    let ones = topology.groups().iter().map(|group| vec![1.0; group.size]).collect();
    let importance = Importance::new(&topology, ones).unwrap();
    let plan = Plan::new(&topology, &weights, &importance, keep).unwrap();
    ["n1", "n3"].map(|group| plan.kept(group).unwrap().to_vec())
}

#[test]
fn nine_tenths_of_ten_are_nine() {
    // 1 - 0.9 is a little less than a tenth.
    assert_eq!(kept(&chain([10, 10]), &Keep::ratio(1.0 - 0.9).unwrap()), [[0], [0]]);
    assert_eq!(kept(&chain([10, 10]), &Keep::ratio(0.1).unwrap()), [[0], [0]]);
    assert_eq!(kept(&chain([10, 10]), &Keep::ratio(0.9).unwrap())[0].len(), 9);
}

#[test]
fn ties_prune_no_more_than_asked_and_keep_the_lower_index() {
    assert_eq!(kept(&chain([6, 4]), &Keep::ratio(0.5).unwrap()), [vec![0, 1, 2], vec![0, 1]]);
    let m = chain([6, 6]);
    let topology = m.model.topology();
    let [a, b] = kept(&m, &Keep::params(topology.params() - 1));
    // One unit is enough, the last.
    assert_eq!((a.len(), b), (6, vec![0, 1, 2, 3, 4]));
}

#[test]
fn a_threshold_for_all_empties_no_layer_and_the_report_says_what_it_asked_for() {
    let m = chain([6, 4]);
    let (topology, weights) = (m.model.topology(), views(&m.model.weights));
    let scores = topology.groups().iter().map(|group| (1..=group.size).map(|i| i as f64).collect()).collect();
    let importance = Importance::new(&topology, scores).unwrap();
    let plan = Plan::new(&topology, &weights, &importance, &Keep::above(100.0).unwrap()).unwrap();
    assert_eq!((plan.kept("n1"), plan.kept("n3")), (Some(&[5][..]), Some(&[3][..])));
    let report = plan.apply(&weights).unwrap().report;
    let hidden = report.groups.iter().filter(|group| group.frozen.is_none());
    assert_eq!(hidden.map(|group| (group.requested, group.after)).collect::<Vec<_>>(), [(0, 1), (0, 1)]);
    assert_eq!(kept(&m, &Keep::above(0.0).unwrap().with_minimum(9).unwrap())[1].len(), 4);
    assert_eq!(kept(&m, &Keep::ratio(0.0).unwrap().with_minimum(3).unwrap()).map(|kept| kept.len()), [3, 3]);
}

#[test]
fn odd_widths_are_rounded_to_even_and_up_to_multiples() {
    let lengths = |widths, keep: &Keep| kept(&chain(widths), keep).map(|kept| kept.len());
    let half = Keep::ratio(0.5).unwrap();
    assert_eq!(lengths([7, 5], &half), [4, 2]);
    assert_eq!(lengths([7, 21], &half.clone().with_multiple(8).unwrap()), [7, 16]);
    assert_eq!(lengths([9, 3], &half.with_multiple(2).unwrap()), [4, 2]);
    assert!(Keep::ratio(0.5).unwrap().with_multiple(0).is_err() && Keep::ratio(1.1).is_err());
    assert!(Keep::above(f64::NAN).is_err() && Keep::ratio(f64::NAN).is_err());
}

#[test]
fn the_bias_of_a_dropped_unit_is_not_lost() {
    let mut m = chain([5, 4]);
    // Units 1 and 3 are dead but for their biases; and unit 2 of the next layer reads only those.
    let dead = |m: &mut Maker, name: &str, outputs: usize, zero: &dyn Fn(usize, usize) -> bool| {
        let w = m.model.weights.get_mut(name).unwrap();
        let inputs_first = w.shape[1] == outputs;
        let width = w.shape[1];
        for (i, x) in w.data.iter_mut().enumerate() {
            let (o, i) = if inputs_first { (i % width, i / width) } else { (i / width, i % width) };
            if zero(o, i) {
                *x = 0.0;
            }
        }
    };
    dead(&mut m, "n1.weight", 5, &|o, _| o == 1 || o == 3);
    dead(&mut m, "n3.weight", 4, &|o, i| o == 2 && i != 1 && i != 3);
    m.model.weights.get_mut("n1.bias").unwrap().data[1] = 0.75;
    let (topology, weights) = (m.model.topology(), views(&m.model.weights));
    let scores = vec![vec![1.0; 4], vec![1.0, 0.0, 1.0, 0.0, 1.0], vec![1.0, 1.0, 0.0, 1.0], vec![1.0; 2]];
    let importance = Importance::new(&topology, scores).unwrap();
    let plan = Plan::new(&topology, &weights, &importance, &Keep::above(0.5).unwrap()).unwrap();
    let slim = plan.apply(&weights).unwrap();
    assert_eq!(slim.topology.params(), 4 * 3 + 3 + 3 * 3 + 3 + 3 * 2 + 2);
    assert!(slim.report.is_exact(), "{}", slim.report);
    assert_eq!(slim.report.groups.iter().map(|group| group.constant).collect::<Vec<_>>(), [0, 2, 1, 0]);
    let inputs = feed(&m.model, &mut Dice(2));
    let before = m.model.run(&topology, &m.model.weights, &inputs);
    near(&before, &m.model.run(&slim.topology, &arrays(&slim.weights()), &inputs), 1e-13);
}

#[test]
fn lenet_is_cut_through_its_flattening() {
    let mut m = Maker::new(4, &[1, 28, 28], 0);
    let x = m.conv(0, 6, 5, 2, 1, true);
    let x = m.same(Op::Act(Activation::Tanh), x);
    let x = m.put(Op::AveragePool(2, 0), &[x], vec![6, 14, 14]);
    let x = m.conv(x, 16, 5, 0, 1, true);
    let x = m.same(Op::Act(Activation::Tanh), x);
    let x = m.put(Op::AveragePool(2, 0), &[x], vec![16, 5, 5]);
    let x = m.put(Op::Flat, &[x], vec![400]);
    let x = m.dense(x, 120, true);
    let x = m.same(Op::Act(Activation::Tanh), x);
    let x = m.dense(x, 84, true);
    let x = m.same(Op::Act(Activation::Tanh), x);
    m.dense(x, 10, true);
    let topology = m.model.topology();
    assert_eq!((topology.params(), topology.macs()), (61_706, 416_520));
    let sizes: Vec<_> = topology.groups().iter().map(|group| group.size).collect();
    assert_eq!(sizes, [1, 6, 16, 120, 84, 10]);
    let columns = topology.group("n4").unwrap().members.iter().find(|member| member.tensor == "n8.weight").unwrap();
    assert_eq!(columns.indices, 25);
    let (slim, went) = check(&m.model, &topology, &m.model.weights, &Keep::ratio(0.5).unwrap(), &mut Dice(5));
    assert_eq!(went, 3 + 8 + 60 + 42);
    let fc = slim.tensors["n8.weight"].shape();
    assert_eq!(fc.iter().product::<usize>(), 8 * 25 * 60);
}

/// A shuffle of 2 groups between grouped convolutions, whose outputs are put together with others, twice.
#[test]
fn shuffles_and_nested_concatenations_are_cut() {
    let mut m = Maker::new(6, &[2, 4, 4], 0);
    let x = m.conv(0, 12, 1, 0, 1, true);
    let x = m.batch_norm(x);
    let y = m.conv(x, 12, 1, 0, 2, true);
    let y = m.shuffle(y, 2);
    let y = m.conv(y, 12, 3, 1, 12, true);
    let y = m.conv(y, 6, 1, 0, 2, true);
    let y = m.put(Op::Concat(0), &[x, y], vec![18, 4, 4]);
    let z = m.conv(y, 5, 1, 0, 1, true);
    let y = m.put(Op::Concat(0), &[z, y], vec![23, 4, 4]);
    m.conv(y, 2, 1, 0, 1, true);
    let topology: Topology = m.model.topology();
    let free = |topology: &Topology| {
        topology.groups().iter().filter(|g| g.frozen.is_none()).map(|g| g.size).collect::<Vec<_>>()
    };
    // Of the first and the last grouped convolution the same place of both groups goes; shuffled between two, places j
    // and j + 3 of both.
    assert_eq!(free(&topology), [6, 3, 3, 5]);
    let (slim, went) = check(&m.model, &topology, &m.model.weights, &Keep::ratio(0.5).unwrap(), &mut Dice(8));
    assert_eq!(went, 3 + 1 + 1 + 3);
    assert_eq!(slim.topology.shape("n11"), Some(&[2 + 6 + 4, 4, 4][..]));
    assert_eq!(free(&slim.topology), [3, 2, 2, 2]);
}
