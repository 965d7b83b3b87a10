//! Models at random: the slim one gives the masked one's outputs.

use crate::interpreter::{Array, Model, Op, Weights, arrays, views};
use lapidary::slim::{Activation, Binary, Cell, Importance, Keep, Plan, Slim, Topology};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Numbers by a rule, so that a seed says all.
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From -1 to 1.
    pub(crate) fn number(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A model in the making: what each value's shape is.
pub(crate) struct Maker {
    pub(crate) model: Model,
    pub(crate) shapes: Vec<Vec<usize>>,
    pub(crate) dice: Dice,
}

impl Maker {
    pub(crate) fn new(seed: u64, input: &[usize], axis: usize) -> Self {
        let mut model = Model::default();
        model.add("x", Op::Input(input.to_vec(), axis), &[]);
        Self { model, shapes: vec![input.to_vec()], dice: Dice(seed) }
    }

    pub(crate) fn put(&mut self, op: Op, inputs: &[usize], shape: Vec<usize>) -> usize {
        let name = format!("n{}", self.shapes.len());
        self.shapes.push(shape);
        self.model.add(&name, op, inputs)
    }

    pub(crate) fn tensor(&mut self, tensor: &str, shape: &[usize]) {
        let name = format!("n{}", self.shapes.len());
        let dice = &mut self.dice;
        self.model.tensor(&name, tensor, shape, || dice.number());
    }

    pub(crate) fn conv(
        &mut self,
        x: usize,
        outputs: usize,
        kernel: usize,
        padding: usize,
        groups: usize,
        bias: bool,
    ) -> usize {
        let shape = self.shapes[x].clone();
        self.tensor("weight", &[outputs, shape[0] / groups, kernel, kernel]);
        if bias {
            self.tensor("bias", &[outputs]);
        }
        let spatial = |n: usize| n + 2 * padding + 1 - kernel;
        let op = Op::Conv { stride: 1, padding, groups, bias, transposed: false, whole: false };
        self.put(op, &[x], vec![outputs, spatial(shape[1]), spatial(shape[2])])
    }

    /// Two groups of a convolution of points.
    pub(crate) fn grouped(&mut self, x: usize, outputs: usize, whole: bool) -> usize {
        let shape = self.shapes[x].clone();
        self.tensor("weight", &[outputs, shape[0] / 2, 1, 1]);
        self.tensor("bias", &[outputs]);
        let op = Op::Conv { stride: 1, padding: 0, groups: 2, bias: true, transposed: false, whole };
        self.put(op, &[x], vec![outputs, shape[1], shape[2]])
    }

    pub(crate) fn transposed(
        &mut self,
        x: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> usize {
        let shape = self.shapes[x].clone();
        self.tensor("weight", &[shape[0], outputs / groups, kernel, kernel]);
        self.tensor("bias", &[outputs]);
        let spatial = |n: usize| (n - 1) * stride + kernel;
        let op = Op::Conv { stride, padding: 0, groups, bias: true, transposed: true, whole: false };
        self.put(op, &[x], vec![outputs, spatial(shape[1]), spatial(shape[2])])
    }

    pub(crate) fn dense(&mut self, x: usize, outputs: usize, bias: bool) -> usize {
        let mut shape = self.shapes[x].clone();
        let inputs = shape.pop().unwrap();
        shape.push(outputs);
        let inputs_first = self.dice.below(2) == 0;
        self.tensor("weight", &if inputs_first { [inputs, outputs] } else { [outputs, inputs] });
        if bias {
            self.tensor("bias", &[outputs]);
        }
        self.put(Op::Dense { bias, inputs_first }, &[x], shape)
    }

    /// Makes the weights of some outputs of a dense layer 0.
    pub(crate) fn silence(&mut self, node: usize, outputs: &[usize]) {
        let inputs_first = matches!(self.model.nodes[node].1, Op::Dense { inputs_first: true, .. });
        let w = self.model.weights.get_mut(&format!("n{node}.weight")).unwrap();
        let width = w.shape[1];
        for (i, x) in w.data.iter_mut().enumerate() {
            let output = if inputs_first { i % width } else { i / width };
            *x *= f64::from(!outputs.contains(&output));
        }
    }

    pub(crate) fn act(&mut self, x: usize) -> usize {
        let all = [
            Activation::Relu,
            Activation::Tanh,
            Activation::Sigmoid,
            Activation::Silu,
            Activation::LeakyRelu(0.1),
            Activation::Affine { scale: 0.5, shift: 0.25 },
        ];
        let op = Op::Act(all[self.dice.below(all.len())]);
        self.same(op, x)
    }

    pub(crate) fn same(&mut self, op: Op, x: usize) -> usize {
        let shape = self.shapes[x].clone();
        self.put(op, &[x], shape)
    }

    pub(crate) fn batch_norm(&mut self, x: usize) -> usize {
        let channels = [self.shapes[x][0]];
        ["weight", "bias", "running_mean"].into_iter().for_each(|tensor| self.tensor(tensor, &channels));
        let (name, dice) = (format!("n{}", self.shapes.len()), &mut self.dice);
        self.model.tensor(&name, "running_var", &channels, || 1.5 + dice.number());
        self.same(Op::BatchNorm, x)
    }

    pub(crate) fn group_norm(&mut self, x: usize, groups: usize) -> usize {
        let channels = [self.shapes[x][0]];
        ["weight", "bias"].into_iter().for_each(|tensor| self.tensor(tensor, &channels));
        self.same(Op::GroupNorm(groups), x)
    }

    pub(crate) fn rms_norm(&mut self, x: usize) -> usize {
        let width = [*self.shapes[x].last().unwrap()];
        self.tensor("weight", &width);
        self.same(Op::RmsNorm, x)
    }

    /// A slope for each index of the first axis.
    pub(crate) fn slopes(&mut self, x: usize) -> usize {
        let slopes = [self.shapes[x][0]];
        self.tensor("weight", &slopes);
        self.same(Op::PRelu, x)
    }

    /// Of 5 units.
    pub(crate) fn recurrent(&mut self, x: usize, cell: Cell, biases: bool) -> usize {
        let [steps, width] = self.shapes[x][..] else { unreachable!() };
        self.tensor("weight_ih", &[cell.gates() * 5, width]);
        self.tensor("weight_hh", &[cell.gates() * 5, 5]);
        if biases {
            ["bias_ih", "bias_hh"].into_iter().for_each(|bias| self.tensor(bias, &[cell.gates() * 5]));
        }
        self.put(Op::Recurrent(cell, biases), &[x], vec![steps, 5])
    }

    pub(crate) fn shuffle(&mut self, x: usize, groups: usize) -> usize {
        let [c, h, w] = self.shapes[x][..] else { unreachable!() };
        let split = vec![groups, c / groups, h, w];
        let y = self.put(Op::Reshape(split, None), &[x], vec![groups, c / groups, h, w]);
        let y = self.put(Op::Transpose(vec![1, 0, 2, 3]), &[y], vec![c / groups, groups, h, w]);
        self.put(Op::Reshape(vec![c, h, w], None), &[y], vec![c, h, w])
    }

    /// Like `x`: another of its shape, made of it.
    fn branch(&mut self, x: usize) -> usize {
        let channels = self.shapes[x][0];
        let bias = self.dice.below(2) == 0;
        let y = self.conv(x, channels, 3, 1, 1, bias);
        if self.dice.below(2) == 0 { self.batch_norm(y) } else { self.act(y) }
    }
}

/// Images: convolutions and all that goes with them.
fn images(seed: u64, steps: usize) -> Model {
    let mut m = Maker::new(seed, &[2, 5, 5], 0);
    let mut x = m.conv(0, 4, 3, 1, 1, true);
    for _ in 0..steps {
        let [c, h, w] = m.shapes[x][..] else { unreachable!() };
        x = match m.dice.below(16) {
            0 => m.conv(x, 6, 1, 0, 1, true),
            1 if h > 2 => m.conv(x, 4, 3, 0, 1, false),
            2 => m.conv(x, 4, 3, 1, 1, false),
            3 if c % 2 == 0 => {
                let whole = m.dice.below(2) == 0;
                m.grouped(x, 4, whole)
            }
            4 => {
                let double = 1 + m.dice.below(2);
                m.conv(x, c * double, 3, 1, c, true)
            }
            5 if h < 6 => {
                let groups = if c % 2 == 0 { 1 + m.dice.below(2) } else { 1 };
                m.transposed(x, 4, 2, 2, groups)
            }
            6 | 7 => m.batch_norm(x),
            8 if c % 2 == 0 => m.group_norm(x, c / 2),
            9 => m.act(x),
            10 => {
                let y = m.branch(x);
                m.put(Op::Binary(Binary::Add), &[x, y], vec![c, h, w])
            }
            11 => {
                // A gate of each channel by their means.
                let g = m.put(Op::Global, &[x], vec![c, 1, 1]);
                let g = m.conv(g, 2, 1, 0, 1, true);
                let g = m.act(g);
                let g = m.conv(g, c, 1, 0, 1, true);
                let g = m.same(Op::Act(Activation::Sigmoid), g);
                m.put(Op::Binary(Binary::Mul), &[x, g], vec![c, h, w])
            }
            12 if c < 12 => {
                let y = m.branch(x);
                m.put(Op::Concat(0), &[x, y], vec![2 * c, h, w])
            }
            13 if c > 1 => {
                // The halves change places, one of them changed.
                let cut = 1 + m.dice.below(c - 1);
                let a = m.put(Op::Slice(0, 0..cut), &[x], vec![cut, h, w]);
                let b = m.put(Op::Slice(0, cut..c), &[x], vec![c - cut, h, w]);
                let b = m.branch(b);
                m.put(Op::Concat(0), &[b, a], vec![c, h, w])
            }
            14 if c % 2 == 0 => m.shuffle(x, 2),
            15 if h >= 4 && w >= 4 => {
                let op = if m.dice.below(2) == 0 { Op::MaxPool(2) } else { Op::AveragePool(2, 0) };
                m.put(op, &[x], vec![c, h / 2, w / 2])
            }
            _ => m.slopes(x),
        };
    }
    let all = m.shapes[x].iter().product();
    x = m.put(Op::Flat, &[x], vec![all]);
    x = m.dense(x, 5, true);
    x = m.act(x);
    m.dense(x, 3, false);
    m.model
}

/// How many kinds of steps [`sequences`] knows.
const KINDS: usize = 14;

/// Sequences: dense layers, norms, attention, recurrent cells; of the first so many kinds of steps.
fn sequences(seed: u64, steps: usize, kinds: usize) -> Model {
    let mut m = Maker::new(seed, &[4], 0);
    m.tensor("weight", &[7, 6]);
    let mut x = m.put(Op::Embedding, &[0], vec![4, 6]);
    m.tensor("weight", &[4, 6]);
    let positions = m.put(Op::Parameter(1), &[], vec![4, 6]);
    x = m.put(Op::Binary(Binary::Add), &[x, positions], vec![4, 6]);
    for _ in 0..steps {
        let width = m.shapes[x][1];
        let bias = m.dice.below(2) == 0;
        x = match m.dice.below(kinds) {
            0 => m.dense(x, 6, bias),
            1 => m.act(x),
            2 => m.rms_norm(x),
            3 => {
                // Two queries' heads for each of the keys'.
                let (heads, keys) = if m.dice.below(2) == 0 { (4, 2) } else { (3, 3) };
                let y = if bias { m.rms_norm(x) } else { x };
                let [q, k, v] =
                    [(heads, 3), (keys, 3), (keys, 2)].map(|(heads, width)| m.dense(y, heads * width, bias));
                let y = m.put(Op::Attention(heads, keys), &[q, k, v], vec![4, heads * 2]);
                let y = m.dense(y, width, bias);
                m.put(Op::Binary(Binary::Add), &[x, y], vec![4, width])
            }
            4 => {
                let kind = m.dice.below(3);
                m.recurrent(x, [Cell::Lstm, Cell::Gru, Cell::Rnn][kind], bias)
            }
            5 => {
                // A gated layer of one product.
                let y = m.dense(x, 8, bias);
                let a = m.put(Op::Slice(1, 0..4), &[y], vec![4, 4]);
                let b = m.put(Op::Slice(1, 4..8), &[y], vec![4, 4]);
                let b = m.act(b);
                let y = m.put(Op::Binary(Binary::Mul), &[a, b], vec![4, 4]);
                let y = m.dense(y, width, bias);
                m.put(Op::Binary(Binary::Add), &[x, y], vec![4, width])
            }
            6 if width < 14 => {
                let y = m.dense(x, 3, bias);
                m.put(Op::Concat(1), &[x, y], vec![4, width + 3])
            }
            7 => {
                // Backwards through another order of axes.
                let y = m.put(Op::Transpose(vec![1, 0]), &[x], vec![width, 4]);
                let y = if bias { m.act(y) } else { m.dense(y, 4, false) };
                m.put(Op::Transpose(vec![1, 0]), &[y], vec![4, width])
            }
            9 => {
                // A norm of steps, of what has no bias to take constants.
                let y = if bias { m.dense(x, 4, false) } else { m.recurrent(x, Cell::Lstm, false) };
                m.batch_norm(y)
            }
            10 => {
                // A slope a step, and what reads no more than a constant before it.
                let y = m.dense(x, 2, true);
                m.silence(y, &[0]);
                let y = m.slopes(y);
                let y = m.dense(y, 5, bias);
                m.model.weights.get_mut(&format!("n{y}.weight")).unwrap().data.iter_mut().for_each(|w| {
                    *w = w.max(0.0);
                });
                y
            }
            11 => {
                // Norms and slopes of channels, through another order of axes.
                let y = m.dense(x, 5, bias);
                let y = m.put(Op::Transpose(vec![1, 0]), &[y], vec![5, 4]);
                let y = m.batch_norm(y);
                let y = m.slopes(y);
                m.put(Op::Transpose(vec![1, 0]), &[y], vec![4, 5])
            }
            12 => {
                // There and back by the same weights, from constants or not.
                let h = m.dense(x, width, true);
                let silent: Vec<usize> = if m.dice.below(2) == 0 { (0..width).collect() } else { vec![0] };
                m.silence(h, &silent);
                let y = m.dense(h, 5, bias);
                let Op::Dense { inputs_first, .. } = m.model.nodes[y].1 else { unreachable!() };
                let weight = format!("n{y}.weight");
                let y = if m.dice.below(2) == 0 { m.act(y) } else { y };
                let y = m.put(Op::Tied { weight, inputs_first: !inputs_first }, &[y], vec![4, width]);
                let y = m.dense(y, width, bias);
                m.put(Op::Binary(Binary::Add), &[x, y], vec![4, width])
            }
            13 => {
                // Steps mixed channel by channel.
                let y = m.dense(x, 5, false);
                let y = m.put(Op::Transpose(vec![1, 0]), &[y], vec![5, 4]);
                let y = m.dense(y, 4, false);
                m.put(Op::Transpose(vec![1, 0]), &[y], vec![4, 5])
            }
            _ => {
                // Heads of 2, taken apart and put together.
                let y = m.dense(x, 6, bias);
                let along = 1 + m.dice.below(2);
                let y = m.put(Op::Reshape(vec![4, 3, 2], Some(along)), &[y], vec![4, 3, 2]);
                let y = m.act(y);
                m.put(Op::Reshape(vec![4, 6], None), &[y], vec![4, 6])
            }
        };
    }
    m.dense(x, 2, true);
    m.model
}

/// Inputs for a model: indices where they are looked up.
pub(crate) fn feed(model: &Model, dice: &mut Dice) -> BTreeMap<String, Array> {
    let (name, op, _) = &model.nodes[0];
    let Op::Input(shape, _) = op else { unreachable!() };
    let looked_up = matches!(model.nodes[1].1, Op::Embedding);
    let number = |dice: &mut Dice| if looked_up { dice.below(7) as f64 } else { dice.number() };
    let data = (0..shape.iter().product()).map(|_| number(dice)).collect();
    BTreeMap::from([(name.clone(), Array::new(shape, data))])
}

pub(crate) fn near(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= tolerance * scale, "{x} {y} of {scale}");
    }
}

/// Slims by random scores; the slim model must give the masked one's outputs. How many channels went.
pub(crate) fn check(
    model: &Model,
    topology: &Topology,
    weights: &Weights,
    keep: &Keep,
    dice: &mut Dice,
) -> (Slim<f64>, usize) {
    let importance = scores(topology, dice);
    let (plan, slim) = check_plan(model, topology, weights, &importance, keep, dice);
    (slim, went(&plan))
}

fn scores(topology: &Topology, dice: &mut Dice) -> Importance {
    let scores = topology.groups().iter().map(|group| (0..group.size).map(|_| dice.number().abs()).collect());
    Importance::new(topology, scores.collect()).unwrap()
}

fn went(plan: &Plan) -> usize {
    plan.groups().iter().map(|group| group.size - group.kept.len()).sum()
}

fn check_plan(
    model: &Model,
    topology: &Topology,
    weights: &Weights,
    importance: &Importance,
    keep: &Keep,
    dice: &mut Dice,
) -> (Plan, Slim<f64>) {
    let views = views(weights);
    let plan = Plan::new(topology, &views, importance, keep).unwrap();
    let slim = plan.apply(&views).unwrap();
    let masked = plan.masked(&views).unwrap();
    let inputs = feed(model, dice);
    let before = model.run(topology, &arrays(&lapidary::slim::views(&masked)), &inputs);
    let after = model.run(&slim.topology, &arrays(&slim.weights()), &inputs);
    near(&before, &after, 1e-9);
    let params: usize = slim.tensors.values().map(|tensor| tensor.values().len()).sum();
    assert_eq!((params, slim.topology.params()), (slim.report.params_after, params));
    assert!(slim.report.macs_after <= slim.report.macs_before);
    // Over the masked weights nothing more changes, and the report knows.
    let again = plan.apply(&lapidary::slim::views(&masked)).unwrap();
    assert!(again.report.is_exact(), "{}", again.report);
    let again = model.run(&again.topology, &arrays(&again.weights()), &inputs);
    near(&before, &again, 1e-9);
    if slim.report.is_exact() {
        near(&model.run(topology, weights, &inputs), &after, 1e-9);
    }
    (plan, slim)
}

/// Slims by a rule of some kind, which must be kept.
fn check_rule(model: &Model, topology: &Topology, share: f64, dice: &mut Dice) -> Slim<f64> {
    let (importance, kind) = (scores(topology, dice), dice.below(7));
    let mut slimmed = |keep: &Keep| check_plan(model, topology, &model.weights, &importance, keep, dice);
    let ratio = |share: f64| Keep::ratio(share).unwrap();
    let part = |least: usize, all: usize| least + (share * (all - least) as f64) as usize;
    // Biases that are made do not count.
    let given = |slim: &Slim<f64>| {
        let made = slim.report.made.iter().map(|name| slim.tensors[name].values().len());
        slim.report.params_after - made.sum::<usize>()
    };
    match kind {
        0 => {
            let (plan, slim) = slimmed(&Keep::above(2.0 * share).unwrap());
            for (group, scores) in plan.groups().iter().zip(importance.scores()) {
                let above = (0..group.size).filter(|&i| scores[i] > 2.0 * share);
                assert!(above.into_iter().all(|i| group.kept.contains(&i)), "{group:?} of {scores:?}");
            }
            slim
        }
        1 => {
            let budget = part(given(&slimmed(&ratio(0.0)).1), topology.params());
            let (_, slim) = slimmed(&Keep::params(budget));
            assert!(given(&slim) <= budget, "{budget} {}", slim.report);
            slim
        }
        2 | 3 => {
            let budget = part(slimmed(&ratio(0.0)).1.report.macs_after, topology.macs());
            let (_, slim) = slimmed(&Keep::macs(budget));
            assert!(slim.report.macs_after <= budget, "{budget} {}", slim.report);
            slim
        }
        4 => {
            let free = topology.groups().iter().filter(|group| group.frozen.is_none());
            slimmed(&Keep::widths(free.map(|group| (&group.name[..], (share * group.size as f64) as usize)))).1
        }
        5 => {
            let (plan, slim) = slimmed(&ratio(share).with_multiple(2).unwrap().with_minimum(2).unwrap());
            let fits = |width: usize, all: usize| width == all || width >= 2 && width.is_multiple_of(2);
            assert!(plan.groups().iter().all(|group| fits(group.kept.len(), group.size)), "{}", slim.report);
            slim
        }
        _ => slimmed(&ratio(share)).1,
    }
}

/// By a rule, and again over the slim model, as in rounds.
fn check_twice(model: Model, share: f64, zeros: usize, seed: u64) {
    rounds(model, zeros, seed, |model, topology, dice| check_rule(model, topology, share, dice));
}

/// Of the weights, `zeros` eighths are 0 at first, so that channels are dead or unread.
fn rounds(mut model: Model, zeros: usize, seed: u64, round: impl Fn(&Model, &Topology, &mut Dice) -> Slim<f64>) {
    let topology = model.topology();
    let mut dice = Dice(seed);
    for (name, tensor) in &mut model.weights {
        let may = !name.contains("running");
        tensor.data.iter_mut().for_each(|w| *w = if may && dice.below(8) < zeros { 0.0 } else { *w });
    }
    let slim = round(&model, &topology, &mut dice);
    model.weights = arrays(&slim.weights());
    // Biases that were made are in the slim topology.
    let _ = round(&model, &slim.topology, &mut dice);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn images_keep_the_masked_outputs(seed in any::<u64>(), steps in 0usize..12, ratio in 0.0..1.0f64, zeros in 0usize..8) {
        check_twice(images(seed, steps), ratio, zeros.saturating_sub(3), seed ^ 1);
    }

    #[test]
    fn sequences_keep_the_masked_outputs(seed in any::<u64>(), steps in 0usize..10, ratio in 0.0..1.0f64, zeros in 0usize..8) {
        check_twice(sequences(seed, steps, KINDS), ratio, zeros.saturating_sub(1), seed ^ 1);
    }

    /// Away from the border each output of a transposed convolution sees as many taps as any other, where the stride divides
    /// the kernel.
    #[test]
    fn transposed_convolutions_are_approximated_as_they_act_away_from_the_border(
        seed in any::<u64>(), stride in 1usize..4, times in 1usize..4, groups in 1usize..3, ratio in 0.0..1.0f64,
    ) {
        let kernel = stride * times;
        let mut m = Maker::new(seed, &[2, 5, 5], 0);
        let x = m.conv(0, 4, 1, 0, 1, true);
        let x = m.act(x);
        m.transposed(x, 4, kernel, stride, groups);
        if stride > 1 {
            // Where taps differ, so do the outputs between two stops.
            let weight = m.model.weights.get_mut("n3.weight").unwrap();
            weight.data.chunks_mut(kernel * kernel).for_each(|taps| taps.fill(taps[0]));
        }
        let (topology, weights) = (m.model.topology(), views(&m.model.weights));
        let keep = Keep::ratio(ratio).unwrap().with_approximation();
        let plan = Plan::new(&topology, &weights, &scores(&topology, &mut m.dice), &keep).unwrap();
        let (slim, masked) = (plan.apply(&weights).unwrap(), plan.masked(&weights).unwrap());
        let inputs = feed(&m.model, &mut m.dice);
        let before = m.model.run(&topology, &arrays(&lapidary::slim::views(&masked)), &inputs);
        let after = m.model.run(&slim.topology, &arrays(&slim.weights()), &inputs);
        let n = 4 * stride + kernel;
        let inside = |at: usize| (kernel - 1..=4 * stride).contains(&at);
        let inside = |i: &usize| inside(i / n % n) && inside(i % n);
        let pick = |y: &[f64]| (0..y.len()).filter(inside).map(|i| y[i]).collect::<Vec<_>>();
        prop_assert!(pick(&before).len() >= 4);
        near(&pick(&before), &pick(&after), 1e-12);
    }
}

/// A channel that is a constant in one place and matters in another: what is made of it is no constant once it is masked.
#[test]
fn constants_made_of_what_is_masked_are_masked_too() {
    for (model, zeros, seed) in
        [(sequences(391, 4, 9), 6, 391), (images(8_364_328_616_599_364_497, 11), 3, 8_364_328_616_599_364_497)]
    {
        let keep = Keep::ratio(0.0).unwrap();
        rounds(model, zeros, seed ^ 1, |model, topology, dice| check(model, topology, &model.weights, &keep, dice).0);
    }
}

/// The tests above would pass if nothing ever went.
#[test]
fn much_goes_from_random_models() {
    let (mut went, mut all) = (0, 0);
    for seed in 0..100 {
        for model in [images(seed, 4), sequences(seed, 4, KINDS)] {
            let topology = model.topology();
            let free = topology.groups().iter().filter(|group| group.frozen.is_none());
            all += free.map(|group| group.size - 1).sum::<usize>();
            let keep = Keep::ratio(0.0).unwrap();
            went += check(&model, &topology, &model.weights, &keep, &mut Dice(seed)).1;
        }
    }
    println!("{went} of {all} channels went");
    assert!(2 * went > all, "{went} of {all}");
}
