//! A plain interpreter of models, in `f64`: what slimming is held to. It shares nothing with the crate's rules.

use lapidary::{
    TensorRef,
    slim::{
        Activation, Attention, BatchNorm, Binary, Builder, Cell, Concat, Conv, Dense, Embedding, GroupNorm, Input,
        LayerNorm, Node, PRelu, Parameter, Pool, Recurrent, Reshape, RmsNorm, Slice, Topology, Transpose, Value,
    },
};
use std::{collections::BTreeMap, ops::Range};

/// The numbers of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f64>,
}

impl Array {
    pub(crate) fn new(shape: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{shape:?}");
        Self { shape: shape.to_vec(), data }
    }

    pub(crate) fn view(&self) -> TensorRef<'_, f64> {
        TensorRef::new(&self.data, &self.shape).unwrap()
    }

    fn tabulate(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Self {
        let count = shape.iter().product();
        Self::new(shape, (0..count).map(|flat| f(&unravel(shape, flat))).collect())
    }

    fn at(&self, index: &[usize]) -> f64 {
        self.data[index.iter().zip(&self.shape).fold(0, |flat, (i, n)| flat * n + i)]
    }
}

fn unravel(shape: &[usize], mut flat: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, n) in index.iter_mut().zip(shape).rev() {
        (*i, flat) = (flat % n, flat / n);
    }
    index
}

/// A node of a model under test. Its tensors are `NAME.weight` and so on.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Input(Vec<usize>, usize),
    Dense {
        bias: bool,
        inputs_first: bool,
    },
    /// A dense layer without a bias, by a tensor of another node.
    Tied {
        weight: String,
        inputs_first: bool,
    },
    Conv {
        stride: usize,
        padding: usize,
        groups: usize,
        bias: bool,
        transposed: bool,
        whole: bool,
    },
    BatchNorm,
    GroupNorm(usize),
    LayerNorm,
    RmsNorm,
    Act(Activation),
    PRelu,
    Binary(Binary),
    Concat(usize),
    Slice(usize, Range<usize>),
    Transpose(Vec<usize>),
    Reshape(Vec<usize>, Option<usize>),
    Flat,
    MaxPool(usize),
    AveragePool(usize, usize),
    Global,
    Embedding,
    Parameter(usize),
    Recurrent(Cell, bool),
    Attention(usize, usize),
}

pub(crate) const EPS: f64 = 1e-3;

pub(crate) type Weights = BTreeMap<String, Array>;

/// A model: its nodes, and its tensors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) nodes: Vec<(String, Op, Vec<usize>)>,
    pub(crate) weights: Weights,
}

pub(crate) fn views(weights: &Weights) -> BTreeMap<&str, TensorRef<'_, f64>> {
    weights.iter().map(|(name, w)| (name.as_str(), w.view())).collect()
}

pub(crate) fn arrays<K: AsRef<str>>(weights: &BTreeMap<K, TensorRef<'_, f64>>) -> Weights {
    let array = |w: &TensorRef<'_, f64>| Array::new(w.shape(), w.as_slice().to_vec());
    weights.iter().map(|(name, w)| (name.as_ref().to_owned(), array(w))).collect()
}

impl Model {
    pub(crate) fn add(&mut self, name: &str, op: Op, inputs: &[usize]) -> usize {
        self.nodes.push((name.to_owned(), op, inputs.to_vec()));
        self.nodes.len() - 1
    }

    /// Adds a tensor of a node.
    pub(crate) fn tensor(&mut self, node: &str, tensor: &str, shape: &[usize], f: impl FnMut() -> f64) {
        let count = shape.iter().product();
        let data = std::iter::repeat_with(f).take(count).collect();
        self.weights.insert(format!("{node}.{tensor}"), Array::new(shape, data));
    }

    pub(crate) fn builder(&self) -> (Builder, Vec<Value>) {
        let mut builder = Topology::builder(self.weights.iter().map(|(name, w)| (name, &w.shape))).unwrap();
        let mut values: Vec<Value> = Vec::new();
        for (name, op, inputs) in &self.nodes {
            let inputs: Vec<Value> = inputs.iter().map(|&i| values[i]).collect();
            values.push(builder.add(name, node(name, op), inputs).unwrap());
        }
        (builder, values)
    }

    pub(crate) fn topology(&self) -> Topology {
        self.builder().0.build().unwrap()
    }

    /// The outputs that nobody reads, one after another, of the model as `topology` says it is.
    pub(crate) fn run(&self, topology: &Topology, weights: &Weights, inputs: &BTreeMap<String, Array>) -> Vec<f64> {
        let mut values: Vec<Array> = Vec::new();
        for (name, op, from) in &self.nodes {
            let given: Vec<&Array> = from.iter().map(|&i| &values[i]).collect();
            let value = match op {
                Op::Input(..) => inputs[name].clone(),
                op => run(name, op, &given, weights, topology),
            };
            assert_eq!(Some(&value.shape[..]), topology.shape(name), "{name}");
            values.push(value);
        }
        let read = |i: usize| self.nodes.iter().any(|(_, _, from)| from.contains(&i));
        (0..values.len()).filter(|&i| !read(i)).flat_map(|i| values[i].data.clone()).collect()
    }
}

fn node(name: &str, op: &Op) -> Node {
    let tensor = |tensor: &str| format!("{name}.{tensor}");
    match op {
        Op::Input(shape, axis) => Input::new(shape, *axis).into(),
        Op::Dense { bias, inputs_first } => {
            let dense = Dense::new(tensor("weight"));
            let dense = if *bias { dense.with_bias(tensor("bias")) } else { dense };
            if *inputs_first { dense.with_inputs_first().into() } else { dense.into() }
        }
        Op::Tied { weight, inputs_first } => {
            let dense = Dense::new(weight);
            if *inputs_first { dense.with_inputs_first().into() } else { dense.into() }
        }
        Op::Conv { stride, padding, groups, bias, transposed, whole } => {
            let conv = if *transposed { Conv::transposed(tensor("weight"), &[]) } else { Conv::new(tensor("weight")) };
            let conv = conv.with_stride(&[*stride]).with_padding(&[*padding]).with_groups(*groups);
            let conv = if *bias { conv.with_bias(tensor("bias")) } else { conv };
            if *whole { conv.with_whole_groups().into() } else { conv.into() }
        }
        Op::BatchNorm => BatchNorm::new(tensor("running_mean"), tensor("running_var"), EPS)
            .with_affine(tensor("weight"), tensor("bias"))
            .into(),
        Op::GroupNorm(groups) => GroupNorm::new(*groups, EPS).with_affine(tensor("weight"), tensor("bias")).into(),
        Op::LayerNorm => LayerNorm::new(EPS).with_affine(tensor("weight"), tensor("bias")).into(),
        Op::RmsNorm => RmsNorm::new(tensor("weight"), EPS).into(),
        Op::Act(activation) => (*activation).into(),
        Op::PRelu => PRelu::new(tensor("weight")).into(),
        Op::Binary(binary) => (*binary).into(),
        Op::Concat(axis) => Concat::new(*axis).into(),
        Op::Slice(axis, range) => Slice::new(*axis, range.clone()).into(),
        Op::Transpose(order) => Transpose::new(order).into(),
        Op::Reshape(shape, None) => Reshape::new(shape).into(),
        Op::Reshape(shape, Some(along)) => Reshape::new(shape).along(*along).into(),
        Op::Flat => Reshape::flat().into(),
        Op::MaxPool(kernel) => Pool::max(&[*kernel]).into(),
        Op::AveragePool(kernel, padding) => Pool::average(&[*kernel]).with_padding(&[*padding]).into(),
        Op::Global => Pool::global().into(),
        Op::Embedding => Embedding::new(tensor("weight")).into(),
        Op::Parameter(axis) => Parameter::new(tensor("weight"), *axis).into(),
        Op::Recurrent(cell, biases) => {
            let recurrent = Recurrent::new(*cell, tensor("weight_ih"), tensor("weight_hh"));
            if *biases { recurrent.with_biases(tensor("bias_ih"), tensor("bias_hh")).into() } else { recurrent.into() }
        }
        Op::Attention(heads, key_heads) => Attention::new(*heads).with_key_heads(*key_heads).into(),
    }
}

fn run(name: &str, op: &Op, given: &[&Array], weights: &Weights, topology: &Topology) -> Array {
    let tensor = |tensor: &str| weights.get(&format!("{name}.{tensor}"));
    let number = |what: &str| topology.number(name, what).unwrap() as usize;
    let shape = || topology.shape(name).unwrap();
    let x = given.first().copied();
    match op {
        Op::Input(..) => unreachable!(),
        Op::Dense { inputs_first, .. } | Op::Tied { inputs_first, .. } => {
            let own = if let Op::Tied { weight, .. } = op { weights.get(weight) } else { tensor("weight") };
            let (x, w, bias) = (x.unwrap(), own.unwrap(), tensor("bias"));
            let (outputs, inputs) = if *inputs_first { (w.shape[1], w.shape[0]) } else { (w.shape[0], w.shape[1]) };
            let mut shape = x.shape.clone();
            *shape.last_mut().unwrap() = outputs;
            Array::tabulate(&shape, |index| {
                let mut from = index.to_vec();
                let o = from.pop().unwrap();
                let term = |i: usize| {
                    let at = [&from[..], &[i]].concat();
                    x.at(&at) * if *inputs_first { w.at(&[i, o]) } else { w.at(&[o, i]) }
                };
                (0..inputs).map(term).sum::<f64>() + bias.map_or(0.0, |bias| bias.data[o])
            })
        }
        Op::Conv { stride, padding, transposed: false, .. } => {
            let (x, w, bias) = (x.unwrap(), tensor("weight").unwrap(), tensor("bias"));
            let (group, out) = (w.shape[1], w.shape[0] / number("groups"));
            Array::tabulate(shape(), |index| {
                let mut sum = bias.map_or(0.0, |bias| bias.data[index[0]]);
                let taps = &w.shape[2..];
                for tap in (0..taps.iter().product()).map(|flat| unravel(taps, flat)) {
                    let at = |axis: usize| (index[axis + 1] * stride + tap[axis]).checked_sub(*padding);
                    let place: Option<Vec<usize>> =
                        (0..taps.len()).map(|axis| at(axis).filter(|&i| i < x.shape[axis + 1])).collect();
                    let Some(place) = place else { continue };
                    for i in 0..group {
                        let channel = index[0] / out * group + i;
                        sum += x.at(&[&[channel], &place[..]].concat()) * w.at(&[&[index[0], i], &tap[..]].concat());
                    }
                }
                sum
            })
        }
        Op::Conv { stride, padding, .. } => {
            let (x, w, bias) = (x.unwrap(), tensor("weight").unwrap(), tensor("bias"));
            let (out, inputs) = (w.shape[1], w.shape[0] / number("groups"));
            let mut y = Array::tabulate(shape(), |index| bias.map_or(0.0, |bias| bias.data[index[0]]));
            let taps = &w.shape[2..];
            for flat in 0..x.data.len() {
                let from = unravel(&x.shape, flat);
                for tap in (0..taps.iter().product()).map(|flat| unravel(taps, flat)) {
                    let to = |axis: usize| (from[axis + 1] * stride + tap[axis]).checked_sub(*padding);
                    let place: Option<Vec<usize>> =
                        (0..taps.len()).map(|axis| to(axis).filter(|&i| i < y.shape[axis + 1])).collect();
                    let Some(place) = place else { continue };
                    for o in 0..out {
                        let channel = from[0] / inputs * out + o;
                        let at = [&[channel], &place[..]].concat();
                        let flat = at.iter().zip(&y.shape).fold(0, |flat, (i, n)| flat * n + i);
                        y.data[flat] += x.at(&from) * w.at(&[&[from[0], o], &tap[..]].concat());
                    }
                }
            }
            y
        }
        Op::BatchNorm => {
            let [w, b, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(|t| &tensor(t).unwrap().data);
            let x = x.unwrap();
            Array::tabulate(&x.shape, |index| {
                let c = index[0];
                (x.at(index) - mean[c]) / (var[c] + EPS).sqrt() * w[c] + b[c]
            })
        }
        Op::GroupNorm(_) => {
            let x = x.unwrap();
            let size = x.data.len() / number("groups");
            normalized(x, size, |i| i / (x.data.len() / x.shape[0]), tensor("weight"), tensor("bias"))
        }
        Op::LayerNorm => {
            let x = x.unwrap();
            let width = *x.shape.last().unwrap();
            normalized(x, width, |i| i % width, tensor("weight"), tensor("bias"))
        }
        Op::RmsNorm => {
            let (x, w, eps) = (x.unwrap(), &tensor("weight").unwrap().data, topology.number(name, "eps").unwrap());
            let rows = x.data.chunks(w.len()).flat_map(|row| {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
                row.iter().zip(w).map(move |(x, w)| x / (mean + eps).sqrt() * w)
            });
            Array::new(&x.shape, rows.collect())
        }
        Op::Act(activation) => {
            Array::new(&x.unwrap().shape, x.unwrap().data.iter().map(|&x| activation.at(x)).collect())
        }
        Op::PRelu => {
            let (x, slope) = (x.unwrap(), &tensor("weight").unwrap().data);
            Array::tabulate(&x.shape, |index| {
                let x = x.at(index);
                if x > 0.0 { x } else { x * slope[index[0] % slope.len()] }
            })
        }
        Op::Binary(binary) => Array::tabulate(shape(), |index| {
            let at = |x: &Array| {
                let index = index[index.len() - x.shape.len()..].iter().zip(&x.shape);
                x.at(&index.map(|(&i, &n)| if n == 1 { 0 } else { i }).collect::<Vec<_>>())
            };
            let apply = |a: f64, b: f64| match binary {
                Binary::Add => a + b,
                Binary::Sub => a - b,
                Binary::Mul => a * b,
                Binary::Div => a / b,
                Binary::Max => a.max(b),
                _ => a.min(b),
            };
            given.iter().map(|x| at(x)).reduce(apply).unwrap()
        }),
        Op::Concat(axis) => Array::tabulate(shape(), |index| {
            let mut index = index.to_vec();
            for x in given {
                if index[*axis] < x.shape[*axis] {
                    return x.at(&index);
                }
                index[*axis] -= x.shape[*axis];
            }
            unreachable!()
        }),
        Op::Slice(axis, _) => Array::tabulate(shape(), |index| {
            let mut index = index.to_vec();
            index[*axis] += number("start");
            x.unwrap().at(&index)
        }),
        Op::Transpose(order) => Array::tabulate(shape(), |index| {
            let mut from = vec![0; order.len()];
            order.iter().zip(index).for_each(|(&axis, &i)| from[axis] = i);
            x.unwrap().at(&from)
        }),
        Op::Reshape(..) | Op::Flat => Array::new(shape(), x.unwrap().data.clone()),
        Op::MaxPool(kernel) => pooled(x.unwrap(), shape(), *kernel, 0, f64::NEG_INFINITY, f64::max, 1.0),
        Op::AveragePool(kernel, padding) => {
            let share = (*kernel as f64).powi(shape().len() as i32 - 1);
            pooled(x.unwrap(), shape(), *kernel, *padding, 0.0, |a, b| a + b, share)
        }
        Op::Global => {
            let x = x.unwrap();
            let size = x.data.len() / x.shape[0];
            Array::new(shape(), x.data.chunks(size).map(|c| c.iter().sum::<f64>() / size as f64).collect())
        }
        Op::Embedding => {
            let (ids, table) = (x.unwrap(), tensor("weight").unwrap());
            let rows = ids.data.iter().map(|&id| table.data[id as usize * table.shape[1]..][..table.shape[1]].to_vec());
            Array::new(shape(), rows.flatten().collect())
        }
        Op::Parameter(_) => tensor("weight").unwrap().clone(),
        Op::Recurrent(cell, _) => recurrent(*cell, x.unwrap(), &tensor),
        Op::Attention(..) => attention(given[0], given[1], given[2], number("heads"), number("key_heads")),
    }
}

fn normalized(
    x: &Array,
    size: usize,
    channel: impl Fn(usize) -> usize,
    weight: Option<&Array>,
    bias: Option<&Array>,
) -> Array {
    let mut y = x.clone();
    for (group, values) in y.data.chunks_mut(size).enumerate() {
        let mean = values.iter().sum::<f64>() / size as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
        for (i, x) in values.iter_mut().enumerate() {
            let c = channel(group * size + i);
            *x = (*x - mean) / (variance + EPS).sqrt() * weight.unwrap().data[c] + bias.unwrap().data[c];
        }
    }
    y
}

fn pooled(
    x: &Array,
    shape: &[usize],
    kernel: usize,
    padding: usize,
    start: f64,
    f: impl Fn(f64, f64) -> f64,
    share: f64,
) -> Array {
    let taps = vec![kernel; shape.len() - 1];
    Array::tabulate(shape, |index| {
        let mut value = start;
        for tap in (0..taps.iter().product()).map(|flat| unravel(&taps, flat)) {
            let at = |axis: usize| (index[axis + 1] * kernel + tap[axis]).checked_sub(padding);
            let place: Option<Vec<usize>> =
                (0..taps.len()).map(|axis| at(axis).filter(|&i| i < x.shape[axis + 1])).collect();
            if let Some(place) = place {
                value = f(value, x.at(&[&[index[0]], &place[..]].concat()));
            }
        }
        value / share
    })
}

fn recurrent<'a>(cell: Cell, x: &Array, tensor: &dyn Fn(&str) -> Option<&'a Array>) -> Array {
    let (w, u) = (tensor("weight_ih").unwrap(), tensor("weight_hh").unwrap());
    let units = u.shape[1];
    // A bias that folding made has this name.
    let b = tensor("bias_ih").or(tensor("bias"));
    let c = tensor("bias_hh");
    let mut h = vec![0.0; units];
    let mut memory = vec![0.0; units];
    let mut outputs = Vec::new();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for step in x.data.chunks(x.shape[1]) {
        let rows = |w: &Array, x: &[f64], b: Option<&Array>| -> Vec<f64> {
            let rows = w.data.chunks(w.shape[1]).enumerate();
            let row = |(i, row): (usize, &[f64])| {
                row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b.map_or(0.0, |b| b.data[i])
            };
            rows.map(row).collect()
        };
        let (a, r) = (rows(w, step, b), rows(u, &h, c));
        for j in 0..units {
            let gate = |k: usize| a[k * units + j] + r[k * units + j];
            h[j] = match cell {
                Cell::Lstm => {
                    memory[j] = sigmoid(gate(1)) * memory[j] + sigmoid(gate(0)) * gate(2).tanh();
                    sigmoid(gate(3)) * memory[j].tanh()
                }
                Cell::Gru => {
                    let n = (a[2 * units + j] + sigmoid(gate(0)) * r[2 * units + j]).tanh();
                    let z = sigmoid(gate(1));
                    (1.0 - z) * n + z * h[j]
                }
                _ => gate(0).tanh(),
            };
        }
        outputs.extend_from_slice(&h);
    }
    Array::new(&[x.shape[0], units], outputs)
}

fn attention(q: &Array, k: &Array, v: &Array, heads: usize, key_heads: usize) -> Array {
    let (width, value_width) = (q.shape[1] / heads, v.shape[1] / key_heads);
    Array::tabulate(&[q.shape[0], heads * value_width], |index| {
        let (step, head, e) = (index[0], index[1] / value_width, index[1] % value_width);
        let served = head / (heads / key_heads);
        let score = |key: usize| {
            let dot = |d: usize| q.at(&[step, head * width + d]) * k.at(&[key, served * width + d]);
            (0..width).map(dot).sum::<f64>() / (width as f64).sqrt()
        };
        let scores: Vec<f64> = (0..k.shape[0]).map(score).collect();
        let largest = scores.iter().fold(f64::MIN, |a, &b| a.max(b));
        let scores: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let all: f64 = scores.iter().sum();
        scores.iter().enumerate().map(|(key, s)| s / all * v.at(&[key, served * value_width + e])).sum()
    })
}
