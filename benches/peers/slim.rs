//! The networks of slimming: their topologies, what is joined in them, and what is left of them.

use crate::{Port, Result};
use lapidary::{
    Element, TensorRef,
    slim::{
        Activation, Attention, BatchNorm, Binary, Builder, Cell, Concat, Conv, Dense, GroupNorm, Importance, Input,
        Keep, LayerNorm, Parameter, Plan, Pool, Recurrent, Reshape, Slice, Slim, Tensor, Topology, Transpose, Value,
        views,
    },
};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    io::{BufRead, Write},
    path::Path,
};

type Shapes = BTreeMap<String, Vec<usize>>;
type Tensors<T> = BTreeMap<String, (Vec<usize>, Vec<T>)>;

/// Larger models are not looked at channel by channel.
const SMALL: usize = 100_000;

impl<R: BufRead, W: Write> Port<R, W> {
    /// A network, whose weights lie in a folder, of every group of which so much is to stay. Puts what is joined
    /// there, the slim and the masked tensors, exact and approximate; answers numbers before, after exact slimming,
    /// and after approximate. A step is all of it, from the shapes to the slim tensors, in `f32`; `close` answers
    /// how many numbers it left.
    pub(crate) fn slim(&mut self, line: &str) -> Result {
        let [net, ratio, folder] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            return Err(format!("{line:?} instead of `NET RATIO FOLDER`").into());
        };
        let (keep, folder) = (Keep::ratio(ratio.parse()?)?, Path::new(folder));
        let tensors = read(&fs::read(folder.join("weights.safetensors"))?)?;
        let narrow = |tensor: &(Vec<usize>, Vec<f64>)| (tensor.0.clone(), tensor.1.iter().map(|&x| x as f32).collect());
        let single: Tensors<f32> = tensors.iter().map(|(name, tensor)| (name.clone(), narrow(tensor))).collect();
        let shapes: Shapes = tensors.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect();
        let (weights, singles) = (borrowed(&tensors)?, borrowed(&single)?);
        let topology = build(net, &shapes)?;
        let importance = Importance::of(&topology, &weights)?;
        let mut told = json!({ "groups": groups(&topology, &weights)? });
        let mut params = vec![topology.params()];
        let approximate = keep.clone().with_approximation();
        for (kind, keep) in [("exact", &keep), ("approximate", &approximate)] {
            let plan = Plan::new(&topology, &weights, &importance, keep)?;
            let slim = plan.apply(&weights)?;
            fs::write(folder.join(format!("{kind}.safetensors")), write(&slim.tensors)?)?;
            fs::write(folder.join(format!("{kind}-masked.safetensors")), write(&plan.masked(&weights)?)?)?;
            params.push(slim.topology.params());
            told[kind] = after(&plan, &slim);
        }
        fs::write(folder.join("ours.json"), serde_json::to_vec(&told)?)?;
        self.answer(&params)?;
        let work = || -> Result<Slim<f32>> {
            let topology = build(net, &shapes)?;
            let importance = Importance::of(&topology, &singles)?;
            Ok(Plan::new(&topology, &singles, &importance, &approximate)?.apply(&singles)?)
        };
        let mut left = 0;
        self.turns(
            || {
                left = black_box(work()?).report.params_after;
                Ok(())
            },
            || Err("no loop beside this case".into()),
        )?;
        self.answer([left])
    }
}

fn borrowed<T: Element>(tensors: &Tensors<T>) -> Result<BTreeMap<&str, TensorRef<'_, T>>> {
    tensors.iter().map(|(name, (shape, data))| Ok((name.as_str(), TensorRef::new(data, shape)?))).collect()
}

/// The groups; of small models also at which indices of which axes each channel is: what goes when only it does.
fn groups(topology: &Topology, weights: &BTreeMap<&str, TensorRef<'_, f64>>) -> Result<Json> {
    let mut all = Vec::new();
    for (index, group) in topology.groups().iter().enumerate() {
        let mut channels = Vec::new();
        let seen = group.frozen.is_none() && group.size > 1 && topology.params() <= SMALL;
        for channel in (0..group.size).filter(|_| seen) {
            let score = |(g, group): (usize, &lapidary::slim::Group)| {
                (0..group.size).map(|c| f64::from(u8::from((g, c) != (index, channel)))).collect()
            };
            let scores = topology.groups().iter().enumerate().map(score).collect();
            let keep = Keep::widths([(group.name.as_str(), group.size - 1)]).with_approximation();
            let plan = Plan::new(topology, weights, &Importance::new(topology, scores)?, &keep)?;
            let mut places = Vec::new();
            for member in &group.members {
                let kept = plan.indices(&member.tensor, member.axis)?;
                let length = weights[member.tensor.as_str()].shape()[member.axis];
                let gone: Vec<usize> = (0..length).filter(|i| kept.binary_search(i).is_err()).collect();
                places.push(json!([member.tensor, member.axis, gone]));
            }
            channels.push(places);
        }
        let member = |member: &lapidary::slim::Member| json!([member.tensor, member.axis, member.indices]);
        let members: Vec<Json> = group.members.iter().map(member).collect();
        all.push(json!({
            "name": group.name, "size": group.size, "frozen": group.frozen, "members": members, "channels": channels,
        }));
    }
    Ok(Json::Array(all))
}

/// Numbers of nodes, biases that were made, and channels that were held.
fn after(plan: &Plan, slim: &Slim<f64>) -> Json {
    let mut numbers = BTreeMap::new();
    let nodes = slim.tensors.keys().filter_map(|name| name.strip_suffix(".weight").or(name.strip_suffix(".bias")));
    for node in nodes.chain(["attention", "first", "second"]) {
        for what in ["groups", "heads", "key_heads", "start", "end"] {
            if let Some(number) = slim.topology.number(node, what) {
                numbers.insert(format!("{node}.{what}"), number);
            }
        }
    }
    let held = |group: &lapidary::slim::GroupPlan| {
        (!group.held.is_empty()).then(|| json!([group.name, group.size, group.held.len(), group.held[0].1]))
    };
    let widths = |group: &lapidary::slim::GroupPlan| json!([group.name, group.size, group.kept.len()]);
    json!({
        "numbers": numbers,
        "made": slim.report.made,
        "held": plan.groups().iter().filter_map(held).collect::<Vec<_>>(),
        "widths": plan.groups().iter().map(widths).collect::<Vec<_>>(),
    })
}

/// A model in the making. A node has the name of its tensors, others are numbered.
struct Net<'a> {
    model: Builder,
    shapes: &'a Shapes,
    others: usize,
}

impl Net<'_> {
    fn has(&self, tensor: &str) -> bool {
        self.shapes.contains_key(tensor)
    }

    fn put(&mut self, node: impl Into<lapidary::slim::Node>, inputs: &[Value]) -> Result<Value> {
        self.others += 1;
        Ok(self.model.add(format!("n{}", self.others), node, inputs)?)
    }

    fn input(&mut self, shape: &[usize], axis: usize) -> Result<Value> {
        Ok(self.model.add("x", Input::new(shape, axis), [])?)
    }

    fn conv(&mut self, name: &str, x: Value, stride: usize, padding: usize, groups: usize) -> Result<Value> {
        let conv = Conv::new(format!("{name}.weight"));
        let conv = conv.with_stride(&[stride]).with_padding(&[padding]).with_groups(groups);
        let bias = format!("{name}.bias");
        Ok(self.model.add(name, if self.has(&bias) { conv.with_bias(bias) } else { conv }, [x])?)
    }

    fn dense(&mut self, name: &str, x: Value) -> Result<Value> {
        let (dense, bias) = (Dense::new(format!("{name}.weight")), format!("{name}.bias"));
        Ok(self.model.add(name, if self.has(&bias) { dense.with_bias(bias) } else { dense }, [x])?)
    }

    fn bn(&mut self, name: &str, x: Value) -> Result<Value> {
        let [w, b, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(|t| format!("{name}.{t}"));
        Ok(self.model.add(name, BatchNorm::new(mean, variance, 1e-5).with_affine(w, b), [x])?)
    }

    fn ln(&mut self, name: &str, x: Value) -> Result<Value> {
        let norm = LayerNorm::new(1e-5).with_affine(format!("{name}.weight"), format!("{name}.bias"));
        Ok(self.model.add(name, norm, [x])?)
    }

    fn relu(&mut self, x: Value) -> Result<Value> {
        self.put(Activation::Relu, &[x])
    }

    /// A convolution, batch normalization and ReLU.
    fn unit(&mut self, [conv, bn]: [&str; 2], x: Value, stride: usize, padding: usize) -> Result<Value> {
        let x = self.conv(conv, x, stride, padding, 1)?;
        let x = self.bn(bn, x)?;
        self.relu(x)
    }

    /// The mean of each channel, and a dense layer.
    fn head(&mut self, x: Value) -> Result<Value> {
        let x = self.put(Pool::global(), &[x])?;
        let x = self.put(Reshape::flat(), &[x])?;
        self.dense("head", x)
    }

    /// The shuffle of two groups of so many channels in all, of 8 x 8 pixels.
    fn shuffle(&mut self, x: Value, channels: usize) -> Result<Value> {
        let x = self.put(Reshape::new(&[2, channels / 2, 8, 8]), &[x])?;
        let x = self.put(Transpose::new(&[1, 0, 2, 3]), &[x])?;
        self.put(Reshape::new(&[channels, 8, 8]), &[x])
    }

    fn transformer(&mut self, heads: usize, key_heads: usize) -> Result<Value> {
        let x = self.input(&[6, 16], 1)?;
        let x = self.dense("embed", x)?;
        let y = self.ln("ln1", x)?;
        let [q, k, v] = ["q", "k", "v"].map(|name| self.dense(name, y));
        let attention = Attention::new(heads).with_key_heads(key_heads);
        let y = self.model.add("attention", attention, [q?, k?, v?])?;
        let y = self.dense("o", y)?;
        let x = self.put(Binary::Add, &[x, y])?;
        let x = self.feed_forward("ln2", x)?;
        let x = self.ln("ln3", x)?;
        self.dense("head", x)
    }

    /// Up, down and the sum, of what a norm gives, if there is one.
    fn feed_forward(&mut self, norm: &str, x: Value) -> Result<Value> {
        let y = if norm.is_empty() { x } else { self.ln(norm, x)? };
        let y = self.dense("up", y)?;
        let y = self.put(Activation::Gelu, &[y])?;
        let y = self.dense("down", y)?;
        self.put(Binary::Add, &[x, y])
    }

    /// ResNet-50, for images of 32 x 32.
    fn resnet50(&mut self) -> Result<Value> {
        let x = self.input(&[3, 32, 32], 0)?;
        let x = self.unit(["stem", "stem_bn"], x, 2, 3)?;
        let mut x = self.put(Pool::max(&[3]).with_stride(&[2]).with_padding(&[1]), &[x])?;
        for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
            for block in 0..blocks {
                let at = |name: &str| format!("s{stage}.{block}.{name}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let y = self.unit([&at("c1"), &at("b1")], x, 1, 0)?;
                let y = self.unit([&at("c2"), &at("b2")], y, stride, 1)?;
                let y = self.conv(&at("c3"), y, 1, 0, 1)?;
                let y = self.bn(&at("b3"), y)?;
                if block == 0 {
                    x = self.conv(&at("down"), x, stride, 0, 1)?;
                    x = self.bn(&at("down_bn"), x)?;
                }
                x = self.put(Binary::Add, &[x, y])?;
                x = self.relu(x)?;
            }
        }
        self.head(x)
    }
}

/// The topology of a network, as `slim.py` has it in PyTorch.
fn build(name: &str, shapes: &Shapes) -> Result<Topology> {
    let mut m = Net { model: Topology::builder(shapes)?, shapes, others: 0 };
    let output = match name {
        "mlp" => {
            let x = m.input(&[16], 0)?;
            let x = m.dense("f1", x)?;
            let x = m.relu(x)?;
            let x = m.dense("f2", x)?;
            let x = m.relu(x)?;
            m.dense("head", x)?
        }
        "lenet" => {
            let mut x = m.input(&[1, 28, 28], 0)?;
            for (conv, padding) in [("c1", 2), ("c2", 0)] {
                x = m.conv(conv, x, 1, padding, 1)?;
                x = m.relu(x)?;
                x = m.put(Pool::max(&[2]), &[x])?;
            }
            x = m.put(Reshape::flat(), &[x])?;
            for dense in ["f1", "f2"] {
                x = m.dense(dense, x)?;
                x = m.relu(x)?;
            }
            m.dense("head", x)?
        }
        "rescnn" => {
            let mut x = m.input(&[1, 8, 8], 0)?;
            for (first, bn, block, stride) in [("conv0", "bn0", "b1", 1), ("down", "bnd", "b2", 2)] {
                x = m.unit([first, bn], x, stride, 1)?;
                let y = m.unit([&format!("{block}.conv1"), &format!("{block}.bn1")], x, 1, 1)?;
                let y = m.conv(&format!("{block}.conv2"), y, 1, 1, 1)?;
                let y = m.bn(&format!("{block}.bn2"), y)?;
                x = m.put(Binary::Add, &[x, y])?;
                x = m.relu(x)?;
            }
            m.head(x)?
        }
        "mobile" => {
            let x = m.input(&[3, 16, 16], 0)?;
            let x = m.conv("stem", x, 2, 1, 1)?;
            let x = m.bn("stem_bn", x)?;
            let mut x = m.put(Activation::Relu6, &[x])?;
            for (block, width) in [("m1", 48), ("m2", 48)] {
                let at = |name: &str| format!("{block}.{name}");
                let y = m.conv(&at("expand"), x, 1, 0, 1)?;
                let y = m.bn(&at("bn1"), y)?;
                let y = m.put(Activation::Relu6, &[y])?;
                let y = m.conv(&at("depthwise"), y, 1, 1, width)?;
                let y = m.bn(&at("bn2"), y)?;
                let y = m.put(Activation::Relu6, &[y])?;
                let y = m.conv(&at("project"), y, 1, 0, 1)?;
                let y = m.bn(&at("bn3"), y)?;
                x = if block == "m1" { m.put(Binary::Add, &[x, y])? } else { y };
            }
            m.head(x)?
        }
        "densenet" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let mut x = m.conv("stem", x, 1, 1, 1)?;
            for layer in ["d1", "d2"] {
                let y = m.bn(&format!("{layer}.bn"), x)?;
                let y = m.relu(y)?;
                let y = m.conv(&format!("{layer}.conv"), y, 1, 1, 1)?;
                x = m.put(Concat::new(0), &[x, y])?;
            }
            let x = m.bn("bn", x)?;
            let x = m.relu(x)?;
            let x = m.conv("transition", x, 1, 0, 1)?;
            let x = m.relu(x)?;
            m.head(x)?
        }
        "nested" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let [a, b, c] = ["a", "b", "c"].map(|name| m.conv(name, x, 1, 0, 1));
            let (a, b, c) = (a?, b?, c?);
            let ab = m.put(Concat::new(0), &[a, b])?;
            let abc = m.put(Concat::new(0), &[ab, c])?;
            let cab = m.put(Concat::new(0), &[c, ab])?;
            let x = m.put(Concat::new(0), &[abc, cab])?;
            let x = m.relu(x)?;
            let x = m.conv("mix", x, 1, 0, 1)?;
            m.head(x)?
        }
        "shuffle" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.conv("stem", x, 1, 0, 1)?;
            let y = m.conv("g1", x, 1, 0, 2)?;
            let y = m.bn("bn1", y)?;
            let y = m.relu(y)?;
            let y = m.shuffle(y, 12)?;
            let y = m.conv("depthwise", y, 1, 1, 12)?;
            let y = m.bn("bn2", y)?;
            let y = m.conv("g2", y, 1, 0, 2)?;
            let y = m.bn("bn3", y)?;
            let x = m.put(Concat::new(0), &[x, y])?;
            let x = m.relu(x)?;
            m.head(x)?
        }
        "shuffle2" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.unit(["stem", "stem_bn"], x, 1, 1)?;
            let a = m.model.add("first", Slice::new(0, 0..8), [x])?;
            let b = m.model.add("second", Slice::new(0, 8..16), [x])?;
            let b = m.unit(["c1", "bn1"], b, 1, 0)?;
            let b = m.conv("depthwise", b, 1, 1, 8)?;
            let b = m.bn("bn2", b)?;
            let b = m.unit(["c2", "bn3"], b, 1, 0)?;
            let x = m.put(Concat::new(0), &[a, b])?;
            let x = m.shuffle(x, 16)?;
            let x = m.unit(["last", "last_bn"], x, 1, 0)?;
            m.head(x)?
        }
        "grouped" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.unit(["stem", "stem_bn"], x, 1, 0)?;
            let x = m.conv("wide", x, 1, 1, 4)?;
            let x = m.bn("bn", x)?;
            let x = m.relu(x)?;
            m.head(x)?
        }
        "unet" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.unit(["stem", "stem_bn"], x, 1, 1)?;
            let y = m.unit(["down", "down_bn"], x, 2, 1)?;
            let up = Conv::transposed("up.weight", &[]).with_stride(&[2]).with_bias("up.bias");
            let y = m.model.add("up", up, [y])?;
            let y = m.put(Concat::new(0), &[x, y])?;
            let y = m.relu(y)?;
            m.conv("head", y, 1, 0, 1)?
        }
        "squeeze" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.unit(["stem", "stem_bn"], x, 1, 1)?;
            let y = m.put(Pool::global(), &[x])?;
            let y = m.conv("less", y, 1, 0, 1)?;
            let y = m.relu(y)?;
            let y = m.conv("more", y, 1, 0, 1)?;
            let y = m.put(Activation::Sigmoid, &[y])?;
            let x = m.put(Binary::Mul, &[x, y])?;
            let x = m.unit(["last", "last_bn"], x, 1, 0)?;
            m.head(x)?
        }
        "groupnorm" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.conv("stem", x, 1, 1, 1)?;
            let norm = GroupNorm::new(4, 1e-5).with_affine("norm.weight", "norm.bias");
            let x = m.model.add("norm", norm, [x])?;
            let x = m.relu(x)?;
            let x = m.conv("last", x, 1, 0, 1)?;
            m.head(x)?
        }
        "transformer" => m.transformer(4, 4)?,
        "gqa" => m.transformer(8, 2)?,
        "vision" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.conv("patch", x, 4, 0, 1)?;
            let x = m.put(Reshape::new(&[32, 4]), &[x])?;
            let x = m.put(Transpose::new(&[1, 0]), &[x])?;
            let position = m.put(Parameter::new("position", 2), &[])?;
            let position = m.put(Reshape::new(&[4, 32]), &[position])?;
            let x = m.put(Binary::Add, &[x, position])?;
            let y = m.ln("ln1", x)?;
            let y = m.dense("qkv", y)?;
            let [q, k, v] = [0, 32, 64].map(|start| m.put(Slice::new(1, start..start + 32), &[y]));
            let y = m.model.add("attention", Attention::new(4), [q?, k?, v?])?;
            let y = m.dense("o", y)?;
            let x = m.put(Binary::Add, &[x, y])?;
            let x = m.feed_forward("ln2", x)?;
            let x = m.ln("ln3", x)?;
            let x = m.put(Transpose::new(&[1, 0]), &[x])?;
            m.head(x)?
        }
        "mixer" => {
            let x = m.input(&[6, 16], 1)?;
            let x = m.dense("embed", x)?;
            let y = m.put(Transpose::new(&[1, 0]), &[x])?;
            let y = m.dense("step1", y)?;
            let y = m.put(Activation::Gelu, &[y])?;
            let y = m.dense("step2", y)?;
            let y = m.put(Transpose::new(&[1, 0]), &[y])?;
            let x = m.put(Binary::Add, &[x, y])?;
            let x = m.feed_forward("", x)?;
            m.dense("head", x)?
        }
        "pixel" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.conv("stem", x, 1, 1, 1)?;
            let x = m.put(Reshape::new(&[6, 2, 2, 8, 8]), &[x])?;
            let x = m.put(Transpose::new(&[0, 3, 1, 4, 2]), &[x])?;
            let x = m.put(Reshape::new(&[6, 16, 16]), &[x])?;
            let x = m.relu(x)?;
            let x = m.conv("mix", x, 1, 0, 1)?;
            let x = m.relu(x)?;
            m.conv("head", x, 1, 0, 1)?
        }
        "multiplier" => {
            let x = m.input(&[3, 8, 8], 0)?;
            let x = m.conv("stem", x, 1, 0, 1)?;
            let x = m.relu(x)?;
            let x = m.conv("depthwise", x, 1, 1, 8)?;
            let x = m.relu(x)?;
            let x = m.conv("last", x, 1, 0, 1)?;
            m.head(x)?
        }
        "input" => {
            let x = m.input(&[4, 8, 8], 0)?;
            let y = m.conv("a", x, 1, 0, 1)?;
            let y = m.put(Binary::Add, &[x, y])?;
            let y = m.relu(y)?;
            let z = m.conv("b", x, 1, 0, 1)?;
            let z = m.relu(z)?;
            let x = m.put(Concat::new(0), &[y, z])?;
            let x = m.conv("c", x, 1, 0, 1)?;
            m.head(x)?
        }
        "lstm" => {
            let x = m.input(&[6, 8], 1)?;
            let x = m.dense("embed", x)?;
            let [ih, hh, bias_ih, bias_hh] =
                ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|t| format!("lstm.{t}_l0"));
            let x = m.model.add("lstm", Recurrent::new(Cell::Lstm, ih, hh).with_biases(bias_ih, bias_hh), [x])?;
            m.dense("head", x)?
        }
        "resnet50" => m.resnet50()?,
        _ => return Err(format!("no network {name:?}").into()),
    };
    m.model.output(output)?;
    Ok(m.model.build()?)
}

/// The tensors of a safetensors file of `f64`.
fn read(bytes: &[u8]) -> Result<Tensors<f64>> {
    let (length, rest) = bytes.split_first_chunk().ok_or("no header")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let (header, data) = rest.split_at_checked(length).ok_or("a short header")?;
    let header: BTreeMap<String, Json> = serde_json::from_slice(header)?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        if entry["dtype"] != "F64" {
            return Err(format!("{name} is of {}", entry["dtype"]).into());
        }
        let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone())?;
        let [start, end]: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone())?;
        let data = data.get(start..end).ok_or("short data")?;
        tensors.insert(name, (shape, data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()));
    }
    Ok(tensors)
}

fn write(tensors: &BTreeMap<String, Tensor<f64>>) -> Result<Vec<u8>> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, tensor) in views(tensors) {
        let start = data.len();
        tensor.as_slice().iter().for_each(|x| data.extend(x.to_le_bytes()));
        let entry = json!({ "dtype": "F64", "shape": tensor.shape(), "data_offsets": [start, data.len()] });
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header)?;
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
}

/// Weights of the network `mlp`, for a run of the bench as a test.
pub(crate) fn example(folder: &Path) -> Result {
    let shapes = [("f1", 10, 16), ("f2", 7, 10), ("head", 4, 7)];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, outputs, inputs) in shapes {
        let start = data.len();
        crate::quant::numbers(outputs * inputs, 1).iter().for_each(|x| data.extend(f64::from(*x).to_le_bytes()));
        let entry = json!({ "dtype": "F64", "shape": [outputs, inputs], "data_offsets": [start, data.len()] });
        header.insert(format!("{name}.weight"), entry);
    }
    let header = serde_json::to_vec(&header)?;
    fs::create_dir_all(folder)?;
    Ok(fs::write(
        folder.join("weights.safetensors"),
        [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat(),
    )?)
}
