//! Each kind of node by itself: what goes, what is held, and why.

use crate::{
    interpreter::{Array, Op, arrays, views},
    random::{Dice, Maker, check, feed, near},
};
use lapidary::{
    ErrorKind, TensorRef,
    slim::{
        Activation, Attention, Binary, Cell, Conv, Dense, Importance, Input, Keep, LatencyTable, LayerNorm, Opaque,
        Parameter, Plan, Pool, Recurrent, Scoring, Topology, block_influence,
    },
};
use std::collections::BTreeMap;

/// Slims a model whose parts all go but one of each group, and gives how many channels went.
fn all_but_one(m: &Maker) -> usize {
    let topology = m.model.topology();
    check(&m.model, &topology, &m.model.weights, &Keep::ratio(0.0).unwrap(), &mut Dice(7)).1
}

fn names(topology: &Topology) -> Vec<(&str, usize, Option<&str>)> {
    topology.groups().iter().map(|group| (group.name.as_str(), group.size, group.frozen.as_deref())).collect()
}

#[test]
fn operators_on_two_values_have_their_channels_in_common() {
    for binary in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min, Binary::Div] {
        let mut m = Maker::new(3, &[4], 0);
        let a = m.dense(0, 5, true);
        let b = m.dense(0, 5, true);
        let c = m.put(Op::Binary(binary), &[a, b], vec![5]);
        m.dense(c, 2, true);
        assert_eq!(all_but_one(&m), 4, "{binary:?}");
        let topology = m.model.topology();
        let members: Vec<_> = topology.group("n1").unwrap().members.iter().map(|m| m.tensor.as_str()).collect();
        assert_eq!(members, ["n1.bias", "n1.weight", "n2.bias", "n2.weight", "n4.weight"]);
    }
}

#[test]
fn values_beside_each_other_along_another_axis_have_their_channels_in_common() {
    let mut m = Maker::new(5, &[3, 4], 1);
    let a = m.dense(0, 5, true);
    let b = m.dense(0, 5, false);
    let c = m.put(Op::Concat(0), &[a, b], vec![6, 5]);
    m.dense(c, 2, true);
    // The constants of the two differ: with biases on one side only, nothing can go exactly.
    assert_eq!(all_but_one(&m), 0);
    m.model.weights.get_mut("n1.bias").unwrap().data.fill(0.0);
    assert_eq!(all_but_one(&m), 4);
}

#[test]
fn strides_and_kinds_of_groups_do_not_matter() {
    for (groups, transposed, whole) in
        [(1, false, false), (2, false, false), (2, false, true), (2, true, true), (4, true, false)]
    {
        let mut m = Maker::new(11, &[2, 7, 7], 0);
        let x = m.conv(0, 4, 1, 0, 1, true);
        m.tensor("weight", &if transposed { [4, 8 / groups, 3, 3] } else { [8, 4 / groups, 3, 3] });
        m.tensor("bias", &[8]);
        let op = Op::Conv { stride: 2, padding: 0, groups, bias: true, transposed, whole };
        let n = if transposed { 15 } else { 3 };
        let x = m.put(op, &[x], vec![8, n, n]);
        let x = m.batch_norm(x);
        m.conv(x, 2, 1, 0, 1, true);
        // What goes into a transposed kernel must be 0.
        if transposed {
            m.model.weights.get_mut("n1.bias").unwrap().data.fill(0.0);
        }
        let went = all_but_one(&m);
        let expected = match (groups, whole) {
            (1, _) => 3 + 7,
            (2, false) => 1 + 3,
            (groups, _) => groups - 1,
        };
        assert_eq!(went, expected, "{groups} {transposed} {whole}");
    }
}

#[test]
fn a_constant_into_zero_padding_is_held_or_approximated_and_measured() {
    let mut m = Maker::new(13, &[2, 6, 6], 0);
    let x = m.conv(0, 6, 3, 1, 1, true);
    let x = m.same(Op::Act(Activation::Relu), x);
    m.conv(x, 3, 3, 1, 1, true);
    // After the ReLU the constants of the first three are 0.
    m.model.weights.get_mut("n1.bias").unwrap().data = vec![-0.5, -0.25, 0.0, 0.25, 0.5, 0.75];
    let (topology, weights) = (m.model.topology(), views(&m.model.weights));
    let importance = Importance::of(&topology, &weights).unwrap();
    let plan = Plan::new(&topology, &weights, &importance, &Keep::ratio(0.0).unwrap()).unwrap();
    assert_eq!(plan.kept("n1"), Some(&[3, 4, 5][..]));
    let group = plan.groups().iter().find(|group| group.name == "n1").unwrap();
    assert_eq!((group.requested, group.held.len(), group.held[0].0), (0, 3, 3));
    assert!(group.held[0].1.contains("zero-padded convolution `n3`"), "{}", group.held[0].1);
    let slim = plan.apply(&weights).unwrap();
    assert!(slim.report.to_string().contains("3 held"), "{}", slim.report);

    let keep = Keep::ratio(0.0).unwrap().with_approximation();
    let plan = Plan::new(&topology, &weights, &importance, &keep).unwrap();
    let mut slim = plan.apply(&weights).unwrap();
    let masked = plan.masked(&weights).unwrap();
    let inputs = feed(&m.model, &mut Dice(1));
    let difference = plan
        .measure(&lapidary::slim::views(&masked), &mut slim, |topology, weights| {
            Ok(m.model.run(topology, &arrays(weights), &inputs))
        })
        .unwrap();
    assert!(difference.largest > 1e-3 && difference.relative < 2.0, "{difference:?}");
    assert_eq!(slim.report.difference, Some(difference));
    // Away from the border it is exact.
    let [before, after] =
        [(&topology, arrays(&lapidary::slim::views(&masked))), (&slim.topology, arrays(&slim.weights()))]
            .map(|(topology, weights)| m.model.run(topology, &weights, &inputs));
    for (i, (a, b)) in before.iter().zip(&after).enumerate() {
        let inside = (1..5).contains(&(i / 6 % 6)) && (1..5).contains(&(i % 6));
        assert!(!inside || (a - b).abs() < 1e-12, "{i} {a} {b}");
    }
}

#[test]
fn averages_that_count_zeros_hold_constants() {
    let mut m = Maker::new(17, &[2, 6, 6], 0);
    let x = m.conv(0, 3, 1, 0, 1, true);
    let x = m.put(Op::AveragePool(2, 1), &[x], vec![3, 4, 4]);
    m.conv(x, 2, 1, 0, 1, true);
    assert_eq!(all_but_one(&m), 0);
    m.model.weights.get_mut("n1.bias").unwrap().data.fill(0.0);
    assert_eq!(all_but_one(&m), 2);
}

#[test]
fn a_layer_norm_holds_its_axis_unless_approximated() {
    let mut m = Maker::new(19, &[3, 4], 1);
    let x = m.dense(0, 6, true);
    ["weight", "bias"].into_iter().for_each(|tensor| m.tensor(tensor, &[6]));
    let x = m.same(Op::LayerNorm, x);
    let x = m.dense(x, 5, true);
    m.dense(x, 2, true);
    assert_eq!(all_but_one(&m), 4, "only the layer after it");
    let (topology, weights) = (m.model.topology(), views(&m.model.weights));
    let importance = Importance::of(&topology, &weights).unwrap();
    let keep = Keep::ratio(0.5).unwrap();
    let held = Plan::new(&topology, &weights, &importance, &keep).unwrap();
    assert!(held.groups()[1].held[0].1.contains("layer norm `n2`"), "{:?}", held.groups()[1].held);
    let plan = Plan::new(&topology, &weights, &importance, &keep.with_approximation()).unwrap();
    let mut slim = plan.apply(&weights).unwrap();
    assert_eq!(slim.tensors["n2.weight"].shape(), [3]);
    let inputs = feed(&m.model, &mut Dice(1));
    assert!(
        plan.measure(&weights, &mut slim, |topology, weights| Ok(m.model.run(topology, &arrays(weights), &inputs)))
            .unwrap()
            .largest
            > 0.0
    );
    assert!(!slim.report.is_exact());
}

#[test]
fn what_is_unknown_freezes_what_it_touches_and_is_named() {
    let shapes: [(&str, &[usize]); 4] = [("a", &[5, 4]), ("u", &[3]), ("b", &[6, 7]), ("c", &[2, 6])];
    let mut model = Topology::builder(shapes).unwrap();
    let x = model.add("x", Input::new(&[4], 0), []).unwrap();
    let x = model.add("a", Dense::new("a"), [x]).unwrap();
    let x = model.add("odd", Opaque::new(&[7], 0).with_tensors(["u"]), [x]).unwrap();
    let x = model.add("b", Dense::new("b"), [x]).unwrap();
    model.add("c", Dense::new("c"), [x]).unwrap();
    let topology = model.build().unwrap();
    assert_eq!(
        names(&topology),
        [
            ("x", 4, Some("input of the model `x`")),
            ("a", 5, Some("read by the unknown operator `odd`")),
            ("u", 3, Some("of the unknown operator `odd`")),
            ("odd", 7, Some("made by the unknown operator `odd`")),
            ("b", 6, None),
            ("c", 2, Some("output of the model: `c`")),
        ]
    );
}

#[test]
fn inputs_may_go_when_freed_and_replaced_by_their_means() {
    let mut m = Maker::new(23, &[6], 0);
    let x = m.dense(0, 4, true);
    let x = m.act(x);
    m.dense(x, 2, true);
    let (mut builder, weights) =
        (Topology::builder(m.model.weights.iter().map(|(n, w)| (n, &w.shape))).unwrap(), views(&m.model.weights));
    let first_is_transposed = m.model.weights["n1.weight"].shape == [6, 4];
    let dense = |name: &str, transposed: bool| {
        let dense = Dense::new(format!("{name}.weight")).with_bias(format!("{name}.bias"));
        if transposed { dense.with_inputs_first() } else { dense }
    };
    let x = builder.add("x", Input::new(&[6], 0).freed(), []).unwrap();
    let x = builder.add("n1", dense("n1", first_is_transposed), [x]).unwrap();
    let Op::Act(activation) = m.model.nodes[2].1 else { unreachable!() };
    let x = builder.add("n2", activation, [x]).unwrap();
    builder.add("n3", dense("n3", m.model.weights["n3.weight"].shape == [4, 2]), [x]).unwrap();
    let topology = builder.build().unwrap();
    let importance = Importance::of(&topology, &weights).unwrap();
    let means = vec![0.5, -1.0, 0.25, 0.0, 2.0, 1.0];
    let keep = Keep::widths([("x", 2)]).with_replacement("x", means.clone());
    let plan = Plan::new(&topology, &weights, &importance, &keep).unwrap();
    let slim = plan.apply(&weights).unwrap();
    let kept = plan.kept("x").unwrap();
    assert_eq!((kept.len(), slim.topology.shape("x")), (2, Some(&[2][..])));
    let mut dice = Dice(3);
    let full: Vec<f64> = (0..6).map(|i| if kept.contains(&i) { dice.number() } else { means[i] }).collect();
    let few = kept.iter().map(|&i| full[i]).collect();
    let feed = |data: Vec<f64>| BTreeMap::from([("x".to_owned(), Array::new(&[data.len()], data))]);
    let before = m.model.run(&topology, &m.model.weights, &feed(full));
    near(&before, &m.model.run(&slim.topology, &arrays(&slim.weights()), &feed(few)), 1e-12);
    let wrong = Keep::widths([("x", 2)]).with_replacement("x", vec![0.0; 5]);
    assert_eq!(Plan::new(&topology, &weights, &importance, &wrong).unwrap_err().kind(), ErrorKind::Shape);
}

#[test]
fn a_bias_is_made_where_none_is_and_a_mean_moves_where_there_is_one() {
    for norm in [false, true] {
        let mut m = Maker::new(29, &[3, 4, 4], 0);
        let x = m.conv(0, 4, 1, 0, 1, true);
        let x = m.conv(x, 3, 1, 0, 1, false);
        let x = if norm { m.batch_norm(x) } else { x };
        m.conv(x, 2, 1, 0, 1, true);
        let topology = m.model.topology();
        let keep = Keep::ratio(0.5).unwrap();
        let (slim, _) = check(&m.model, &topology, &m.model.weights, &keep, &mut Dice(1));
        assert_eq!(slim.report.made, if norm { vec![] } else { vec!["n2.bias".to_owned()] });
    }
}

#[test]
fn weights_that_are_used_twice_are_folded_for_each_user() {
    // A table that also reads the result, and a layer with a bias that two values go through.
    let shapes: [(&str, &[usize]); 5] = [("table", &[7, 6]), ("w", &[5, 6]), ("b", &[5]), ("v", &[6, 5]), ("c", &[6])];
    let mut model = Topology::builder(shapes).unwrap();
    let ids = model.add("ids", Input::new(&[4], 0), []).unwrap();
    let x = model.add("x", lapidary::slim::Embedding::new("table"), [ids]).unwrap();
    let a = model.add("a", Dense::new("w").with_bias("b"), [x]).unwrap();
    let a = model.add("p", Dense::new("v").with_bias("c"), [a]).unwrap();
    let y = model.add("y", Activation::Sigmoid, [a]).unwrap();
    let b = model.add("b", Dense::new("w").with_bias("b"), [y]).unwrap();
    let b = model.add("q", Dense::new("v"), [b]).unwrap();
    let z = model.add("z", Binary::Add, [x, y, b]).unwrap();
    model.add("logits", Dense::new("table"), [z]).unwrap();
    let topology = model.build().unwrap();
    assert_eq!(topology.groups().iter().map(|group| group.size).collect::<Vec<_>>(), [4, 6, 5, 7]);
    let mut dice = Dice(41);
    let data = shapes.map(|(name, shape)| {
        (name.to_owned(), Array::new(shape, (0..shape.iter().product()).map(|_| dice.number()).collect()))
    });
    let weights: BTreeMap<String, Array> = data.into_iter().collect();
    let weights = views(&weights);
    let importance = Importance::of(&topology, &weights).unwrap();
    let plan = Plan::new(&topology, &weights, &importance, &Keep::ratio(0.5).unwrap()).unwrap();
    let (masked, slim) = (plan.masked(&weights).unwrap(), plan.apply(&weights).unwrap());
    // The constants of the two users differ: each has a bias of its own now.
    assert_eq!(slim.report.made, ["b.bias", "q.bias"]);
    let dense = |x: &[f64], w: &[f64], b: Option<&[f64]>| -> Vec<f64> {
        let rows = w.chunks(x.len()).enumerate();
        rows.map(|(o, row)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b.map_or(0.0, |b| b[o])).collect()
    };
    let run = |tensors: &BTreeMap<String, lapidary::slim::Tensor<f64>>| -> Vec<f64> {
        let get = |name: &str| tensors.get(name).map(|tensor| tensor.values());
        let width = tensors["table"].shape()[1];
        let x = &tensors["table"].values()[2 * width..3 * width];
        let bias = |made: &str, own: &str| get(made).or(get(own));
        let a = dense(x, get("w").unwrap(), bias("a.bias", "b"));
        let y: Vec<f64> =
            dense(&a, get("v").unwrap(), bias("p.bias", "c")).into_iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        let b = dense(&dense(&y, get("w").unwrap(), bias("b.bias", "b")), get("v").unwrap(), get("q.bias"));
        let z: Vec<f64> = x.iter().zip(y).zip(b).map(|((x, y), b)| x + y + b).collect();
        dense(&z, get("table").unwrap(), get("logits.bias"))
    };
    near(&run(&masked), &run(&slim.tensors), 1e-12);
}

#[test]
fn budgets_hold_and_tables_of_times_too() {
    let mut m = Maker::new(31, &[8], 0);
    let a = m.dense(0, 12, true);
    let a = m.act(a);
    let b = m.dense(a, 16, true);
    let b = m.act(b);
    m.dense(b, 4, true);
    let (topology, weights) = (m.model.topology(), views(&m.model.weights));
    let importance = Importance::of(&topology, &weights).unwrap();
    let plan = |keep: Keep| Plan::new(&topology, &weights, &importance, &keep);
    let slim = |keep| plan(keep).unwrap().apply(&weights).unwrap();
    let (params, macs) = (topology.params(), topology.macs());
    assert_eq!((params, macs), (8 * 12 + 12 + 12 * 16 + 16 + 16 * 4 + 4, 8 * 12 + 12 * 16 + 16 * 4));
    for part in [1, 2, 3] {
        let report = slim(Keep::params(params * part / 4)).report;
        assert!(report.params_after <= params * part / 4 && report.params_after + 40 > params * part / 4, "{report}");
        let report = slim(Keep::macs(macs * part / 4)).report;
        assert!(report.macs_after <= macs * part / 4 && report.macs_after + 40 > macs * part / 4, "{report}");
    }
    let report = slim(Keep::params(params / 2).with_multiple(4).unwrap()).report;
    assert!(report.params_after <= params / 2 && report.groups.iter().all(|group| group.after % 4 == 0), "{report}");
    assert_eq!(plan(Keep::params(10)).unwrap_err().kind(), ErrorKind::Argument);

    let mut table = LatencyTable::new();
    for width in [4, 8, 12, 16] {
        table = table.with("n3", 12, width, width as f64).unwrap();
    }
    let keep = Keep::latency(8.0, table.clone()).unwrap();
    let narrow = slim(keep);
    // The steps of the table are used to their full width.
    assert_eq!(narrow.topology.shape("n3"), Some(&[8][..]));
    let odd = table.with("nobody", 1, 1, 1.0).unwrap();
    assert_eq!(plan(Keep::latency(8.0, odd).unwrap()).unwrap_err().kind(), ErrorKind::Argument);
}

#[test]
fn blocks_go_whole() {
    let mut m = Maker::new(37, &[2, 6, 6], 0);
    let x = m.conv(0, 4, 1, 0, 1, true);
    let mut ends = vec![x];
    for _ in 0..2 {
        let from = ends[ends.len() - 1];
        let y = m.conv(from, 4, 3, 1, 1, true);
        let y = m.put(Op::Binary(Binary::Add), &[from, y], vec![4, 6, 6]);
        ends.push(m.same(Op::Act(Activation::Relu), y));
    }
    m.conv(ends[2], 2, 1, 0, 1, true);
    let (mut builder, values) = m.model.builder();
    builder.block("b1", values[ends[0]], values[ends[1]]).unwrap();
    builder.block("b2", values[ends[1]], values[ends[2]]).unwrap();
    assert!(builder.clone().block("b1", values[0], values[1]).is_err());
    assert!(builder.clone().block("back", values[ends[2]], values[ends[0]]).is_err());
    let topology = builder.build().unwrap();
    assert_eq!(topology.blocks().collect::<Vec<_>>(), ["b1", "b2"]);
    let weights = views(&m.model.weights);
    let sizes = Scoring::new().blocks(&topology, &weights, |_, w| Ok(w.as_slice().iter().map(|x| x.abs()).collect()));
    let sizes = sizes.unwrap();
    let norm = |name: &str| m.model.weights[name].data.iter().map(|x| x * x).sum::<f64>();
    assert!((sizes[0].1 - (norm("n2.weight") + norm("n2.bias")).sqrt()).abs() < 1e-12, "{sizes:?}");
    let slim = topology.without(&["b1"]).unwrap();
    assert_eq!(slim.blocks().collect::<Vec<_>>(), ["b2"]);
    assert_eq!(topology.params() - slim.params(), 4 * 4 * 9 + 4);
    assert!(slim.shape("n2").is_none() && slim.tensors().all(|(name, _)| name != "n2.weight"));
    assert!(topology.without(&["b3"]).is_err());
    // And what is left can be slimmed.
    let importance = Importance::of(&slim, &weights).unwrap();
    let keep = Keep::ratio(0.5).unwrap().with_approximation();
    let plan = Plan::new(&slim, &weights, &importance, &keep).unwrap();
    assert_eq!(plan.apply(&weights).unwrap().tensors["n5.weight"].shape(), [2, 2, 3, 3]);
    assert!(block_influence(&[1.0f64, 2.0], &[2.0, 4.0]).unwrap() < 1e-12);
}

/// Tensors that only a block reads, wherever their nodes were added, and of several blocks that go together.
#[test]
fn what_only_a_block_reads_goes_with_it() {
    let shapes: [(&str, &[usize]); 5] = [("p", &[4]), ("q", &[4]), ("r", &[4]), ("w", &[4, 4]), ("v", &[2, 4])];
    let mut model = Topology::builder(shapes).unwrap();
    let p = model.add("p", Parameter::new("p", 0), []).unwrap();
    let p = model.add("relu", Activation::Relu, [p]).unwrap();
    let r = model.add("r", Parameter::new("r", 0), []).unwrap();
    let x = model.add("x", Input::new(&[4], 0), []).unwrap();
    let h = model.add("h", Dense::new("w"), [x]).unwrap();
    let q = model.add("q", Parameter::new("q", 0), []).unwrap();
    let a = model.add("a", Binary::Add, [h, p, q, r]).unwrap();
    let b = model.add("b", Binary::Mul, [a, r]).unwrap();
    let y = model.add("y", Binary::Add, [b, q]).unwrap();
    model.add("v", Dense::new("v"), [y]).unwrap();
    model.block("a", h, a).unwrap();
    model.block("b", a, b).unwrap();
    let topology = model.build().unwrap();
    let left = |blocks: &[&str]| {
        let left = topology.without(blocks).unwrap();
        assert!(
            left.groups()
                .iter()
                .all(|group| !["p", "relu", "r"].contains(&group.name.as_str()) || group.frozen.is_none()),
            "{blocks:?} {:?}",
            left.groups()
        );
        left.tensors().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(left(&[]), ["p", "q", "r", "w", "v"]);
    assert_eq!(left(&["a"]), ["q", "r", "w", "v"]);
    assert_eq!(left(&["b"]), ["p", "q", "r", "w", "v"]);
    assert_eq!(left(&["a", "b"]), ["q", "w", "v"]);
    let weights = [4, 4, 4, 16, 8].map(|n| vec![1.0f64; n]);
    let weights: BTreeMap<_, _> =
        shapes.iter().zip(&weights).map(|((name, shape), w)| (*name, TensorRef::new(w, shape).unwrap())).collect();
    let sizes = Scoring::new().blocks(&topology, &weights, |_, w| Ok(vec![1.0; w.len()])).unwrap();
    assert_eq!(sizes, [("a".to_owned(), 2.0), ("b".to_owned(), 0.0)]);
}

#[test]
fn counts_of_multiplications_stop_at_the_largest_number() {
    let mut model = Topology::builder([] as [(&str, [usize; 1]); 0]).unwrap();
    let x = model.add("x", Input::new(&[1 << 40, 4], 1), []).unwrap();
    model.add("y", Attention::new(2), [x, x, x]).unwrap();
    assert_eq!(model.build().unwrap().macs(), usize::MAX);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_model_as_it_was() {
    let shapes: [(&str, &[usize]); 5] =
        [("w", &[4, 3]), ("k", &[4, 3, 3, 3]), ("g", &[4]), ("b", &[4]), ("h", &[4, 4])];
    let mut model = Topology::builder(shapes).unwrap();
    let x = model.add("x", Input::new(&[3], 0), []).unwrap();
    let image = model.add("image", Input::new(&[3, 8, 8], 0), []).unwrap();
    let kind = |result: lapidary::Result<_>| result.map(|_: lapidary::slim::Value| ()).unwrap_err().kind();
    assert_eq!(kind(model.add("x", Activation::Relu, [x])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Activation::Relu, [])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Dense::new("none"), [x])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Dense::new("g"), [x])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Dense::new("w").with_inputs_first(), [x])), ErrorKind::Shape);
    assert_eq!(kind(model.add("a", Dense::new("w").with_bias("w"), [x])), ErrorKind::Shape);
    assert_eq!(kind(model.add("a", Conv::new("k"), [x])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Conv::new("k").with_groups(3), [image])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Conv::new("k").with_groups(2), [image])), ErrorKind::Shape);
    assert_eq!(kind(model.add("a", Conv::new("k").with_stride(&[0]), [image])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Pool::max(&[9]), [image])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", LayerNorm::new(-1.0), [x])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Binary::Add, [x, image])), ErrorKind::Shape);
    let steps = model.add("steps", Input::new(&[5, 3], 1), []).unwrap();
    let biases = |bias: &str| Recurrent::new(Cell::Rnn, "w", "h").with_biases(bias, "g");
    assert_eq!(kind(model.add("a", biases("w"), [steps])), ErrorKind::Shape);
    assert_eq!(kind(model.clone().add("a", biases("none"), [steps])), ErrorKind::Argument);
    assert!(model.clone().add("a", biases("b"), [steps]).is_ok());
    assert_eq!(kind(model.add("a", Input::new(&[usize::MAX, 2], 1), [])), ErrorKind::Argument);
    assert_eq!(kind(model.add("a", Input::new(&[usize::MAX], 0), [])), ErrorKind::Argument);
    let x = model.add("a", Dense::new("w").with_bias("b"), [x]).unwrap();
    assert_eq!(kind(model.add("c", Dense::new("w"), [x])), ErrorKind::Shape);
    assert!(Topology::builder([("w", [1usize]), ("w", [1])]).is_err() && Topology::builder([("w", [0usize])]).is_err());
    assert!(Topology::builder(shapes).unwrap().build().is_err());
    let topology = model.build().unwrap();
    assert_eq!(names(&topology).iter().map(|group| group.0).collect::<Vec<_>>(), ["x", "image", "steps", "a"]);

    let (w, g) = (Array::new(&[4, 3], vec![f64::NAN; 12]), Array::new(&[4], vec![0.0; 4]));
    let (k, h) = (Array::new(&[4, 3, 3, 3], vec![1.0; 108]), Array::new(&[4, 4], vec![0.0; 16]));
    let weights = |w: &Array| {
        let named =
            [("w", w), ("k", &k), ("g", &g), ("b", &g), ("h", &h)].map(|(name, w)| (name.to_owned(), w.clone()));
        BTreeMap::from(named)
    };
    let error = |weights: &_| Importance::of(&topology, &views(weights)).unwrap_err();
    assert_eq!((error(&weights(&w)).kind(), error(&weights(&w)).tensor()), (ErrorKind::NonFinite, Some("w")));
    assert_eq!(error(&weights(&g)).kind(), ErrorKind::Shape);
    let mut few = weights(&g);
    few.remove("w");
    assert_eq!((error(&few).kind(), error(&few).tensor()), (ErrorKind::Argument, Some("w")));
}
