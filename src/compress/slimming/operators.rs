//! What each operator of ONNX is to slimming: by name, and those that work element by element or normalize.

use super::{
    graph::{input, integer, number, operator, text},
    lower::{Lower, Lowered, Patch, output},
};
use crate::{
    format::onnx::proto::NodeProto,
    slim::{Activation, BatchNorm, Binary, GroupNorm, PRelu},
};

impl Lower<'_> {
    /// Adds a node. An `Err` says why it is not understood; what was added of it stays frozen.
    pub(super) fn node(&mut self, index: usize, node: &NodeProto) -> Lowered {
        match operator(node) {
            "Conv" => self.conv(index, node, false),
            "ConvTranspose" => self.conv(index, node, true),
            "Gemm" => self.gemm(index, node),
            "MatMul" => self.matmul(index, node),
            "Gather" => self.gather(index, node),
            "BatchNormalization" => self.batch_norm(index, node),
            "InstanceNormalization" | "GroupNormalization" => self.group_norm(index, node),
            "LayerNormalization" => Err("its mean and variance are those of all channels together".into()),
            "Softmax" | "LogSoftmax" => Err("its sum goes over an axis".into()),
            "PRelu" => self.prelu(index, node),
            "Add" => self.binary(index, node, Binary::Add),
            "Sub" => self.binary(index, node, Binary::Sub),
            "Mul" => self.binary(index, node, Binary::Mul),
            "Div" => self.binary(index, node, Binary::Div),
            "Max" => self.binary(index, node, Binary::Max),
            "Min" => self.binary(index, node, Binary::Min),
            "Sum" => self.binary(index, node, Binary::Add),
            "Pow" => self.power(node),
            "Concat" => self.concat(index, node),
            "Split" => self.split(index, node),
            "Slice" => self.slice(index, node),
            "Pad" => self.pad(node),
            "Reshape" => self.reshape(index, node),
            "Flatten" => self.flatten(node),
            "Squeeze" | "Unsqueeze" => self.squeeze(node),
            "Transpose" => self.transpose(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node),
            "ReduceMean" | "ReduceMax" | "ReduceMin" => self.reduce(node),
            "Resize" | "Upsample" => self.resize(index, node),
            "LSTM" | "GRU" | "RNN" => self.recurrent(index, node),
            name => match functions(self, node, name)? {
                Some(functions) => {
                    let x = self.data(node)?;
                    self.chain(node, x, &functions)
                }
                None => Err("not an operator that slimming knows".into()),
            },
        }
    }

    /// A constant of one element.
    fn scalar(&self, name: &str) -> Option<f64> {
        let numbers = self.constant(name)?;
        let [value] = numbers.values[..] else { return None };
        Some(f64::from(value)).filter(|value| value.is_finite())
    }

    fn binary(&mut self, index: usize, node: &NodeProto, of: Binary) -> Lowered {
        let names: Vec<String> = node.input.clone();
        let [first, second] = &names[..] else { return Err("not of two inputs".into()) };
        let constants = [self.constant(first).is_some(), self.constant(second).is_some()];
        if constants == [true, true] {
            return Err("of constants".into());
        }
        let (at, data) = if constants[0] { (0, second) } else { (1, first) };
        if constants[0] || constants[1] {
            let x = self.value(data)?;
            if let Some(c) = self.scalar(&names[at]) {
                let affine = |scale: f64, shift: f64| Activation::Affine { scale, shift };
                let functions = match (of, at) {
                    (Binary::Add, _) => vec![affine(1.0, c)],
                    (Binary::Sub, 1) => vec![affine(1.0, -c)],
                    (Binary::Sub, _) => vec![affine(-1.0, c)],
                    (Binary::Mul, _) => vec![affine(c, 0.0)],
                    (Binary::Div, 1) if c != 0.0 => vec![affine(1.0 / c, 0.0)],
                    (Binary::Div, 0) => vec![Activation::Power(-1.0), affine(c, 0.0)],
                    (Binary::Max, _) => vec![Activation::Clip { low: c, high: f64::INFINITY }],
                    (Binary::Min, _) => vec![Activation::Clip { low: f64::NEG_INFINITY, high: c }],
                    _ => return Err("divides by 0".into()),
                };
                return self.chain(node, x, &functions);
            }
            let rank = self.shape(output(node)?)?.len();
            let constant = self.operand(index, at, x, rank)?;
            let both = if at == 0 { [constant, x] } else { [x, constant] };
            return self.simple(node, &both, of);
        }
        let both = [self.value(first)?, self.value(second)?];
        self.simple(node, &both, of)
    }

    fn power(&mut self, node: &NodeProto) -> Lowered {
        let exponent = input(node, 1).and_then(|name| self.scalar(name)).ok_or("its exponent is not one number")?;
        let x = self.data(node)?;
        self.chain(node, x, &[Activation::Power(exponent)])
    }

    fn prelu(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let slope = input(node, 1).and_then(|name| self.constant(name)).ok_or("its slope is no constant")?;
        let (out, channels) = (output(node)?.to_string(), slope.values.len());
        if channels == 1 {
            let slope = self.tensor(index, 1, &[1])?;
            return self.simple(node, &[x], PRelu::new(slope));
        }
        let x = self.unbatched(&out, x)?;
        let (shape, _) = self.layout(x);
        let from_end = slope.shape.len().checked_sub(shape.len());
        let along_channels = from_end.is_some_and(|at| slope.shape.get(at) == Some(&channels));
        if shape.first() != Some(&channels) || !along_channels {
            return Err("its slope is not of its channels".into());
        }
        let slope = self.tensor(index, 1, &[channels])?;
        let x = self.add_part(&out, PRelu::new(slope), &[x])?;
        let x = self.batched(&out, x)?;
        self.set(&out, x)
    }

    fn batch_norm(&mut self, index: usize, node: &NodeProto) -> Lowered {
        if integer(node, "training_mode", 0) != 0 || integer(node, "spatial", 1) != 1 || node.output.len() > 1 {
            return Err("as it is trained".into());
        }
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let x = self.unbatched(&out, x)?;
        let channels = [self.layout(x).0.first().copied().unwrap_or(0)];
        let tensors = (1..5).map(|input| self.tensor(index, input, &channels)).collect::<Lowered<Vec<_>>>()?;
        let [scale, bias, mean, variance] = &tensors[..] else { return Err("without its weights".into()) };
        let norm = BatchNorm::new(mean, variance, number(node, "epsilon", 1e-5)).with_affine(scale, bias);
        let x = self.add_part(&out, norm, &[x])?;
        let x = self.batched(&out, x)?;
        self.set(&out, x)
    }

    fn group_norm(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let x = self.unbatched(&out, x)?;
        let channels = self.layout(x).0.first().copied().unwrap_or(0);
        let grouped = operator(node) == "GroupNormalization";
        let groups = if grouped { integer(node, "num_groups", 0) } else { channels as i64 };
        let groups = usize::try_from(groups).map_err(|_| "without a number of groups")?;
        let (scale, bias) = (self.tensor(index, 1, &[channels])?, self.tensor(index, 2, &[channels])?);
        let norm = GroupNorm::new(groups, number(node, "epsilon", 1e-5)).with_affine(scale, bias);
        let name = self.part(&out);
        let x = self.add(&name, norm, &[x])?;
        if grouped {
            self.patches.push(Patch::Number { node: index, from: name, number: "groups", attribute: "num_groups" });
        }
        let x = self.batched(&out, x)?;
        self.set(&out, x)
    }
}

/// The functions that an operator of one input is.
fn functions(work: &Lower<'_>, node: &NodeProto, name: &str) -> Lowered<Option<Vec<Activation>>> {
    let bound = |index: usize, attribute: &str, none: f64| match input(node, index) {
        Some(name) => work.scalar(name).ok_or("its bounds are no constants"),
        None => Ok(number(node, attribute, none as f32)),
    };
    let affine = |scale: f64, shift: f64| Activation::Affine { scale, shift };
    Ok(Some(match name {
        "Identity" | "Dropout" => vec![Activation::Identity],
        // To 32 bits, of floating-point numbers: others are not tracked, or stay.
        "Cast" if integer(node, "to", 0) == 1 => vec![Activation::Identity],
        "Relu" => vec![Activation::Relu],
        "LeakyRelu" => vec![Activation::LeakyRelu(number(node, "alpha", 0.01))],
        "Elu" => vec![Activation::Elu(number(node, "alpha", 1.0))],
        "Tanh" => vec![Activation::Tanh],
        "Sigmoid" => vec![Activation::Sigmoid],
        "Gelu" if text(node, "approximate") == "tanh" => vec![Activation::GeluTanh],
        "Gelu" => vec![Activation::Gelu],
        "Swish" if number(node, "alpha", 1.0) == 1.0 => vec![Activation::Silu],
        "HardSwish" => vec![Activation::HardSwish],
        "HardSigmoid" => {
            let clip = Activation::Clip { low: 0.0, high: 1.0 };
            vec![affine(number(node, "alpha", 0.2), number(node, "beta", 0.5)), clip]
        }
        "Softplus" => vec![Activation::Softplus],
        "Erf" => vec![Activation::Erf],
        "Exp" => vec![Activation::Exp],
        "Neg" => vec![affine(-1.0, 0.0)],
        "Sqrt" => vec![Activation::Power(0.5)],
        "Reciprocal" => vec![Activation::Power(-1.0)],
        "Clip" => {
            let (low, high) = (bound(1, "min", f64::NEG_INFINITY)?, bound(2, "max", f64::INFINITY)?);
            vec![Activation::Clip { low, high }]
        }
        _ => return Ok(None),
    }))
}
