//! Convolutions, products with matrices, and tables.

use super::{
    graph::{axis, input, integer, number, operator, sizes, text},
    lower::{Lower, Lowered, Patch, Place, Site, Window, output},
};
use crate::{
    format::onnx::proto::NodeProto,
    slim::{Conv, Dense, Embedding, Reshape, Slice},
};

impl Lower<'_> {
    pub(super) fn conv(&mut self, index: usize, node: &NodeProto, transposed: bool) -> Lowered {
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let name = input(node, 1).ok_or("without its weights")?;
        let shape = self.constant(name).ok_or_else(|| format!("`{name}` is no constant of 32-bit numbers"))?.shape;
        let x = self.unbatched(&out, x)?;
        let given = self.layout(x).0;
        let window = window(node, given.get(1..).unwrap_or_default(), shape.get(2..).unwrap_or_default(), transposed)?;
        let weight = self.tensor(index, 1, &shape)?;
        let mut conv = if transposed {
            if !sizes(node, "output_shape").ok_or("of a size below 0")?.is_empty() {
                return Err("padded to a shape".into());
            }
            Conv::transposed(&weight, &sizes(node, "output_padding").ok_or("of a size below 0")?)
        } else {
            Conv::new(&weight)
        };
        let padding = [&window.begins[..], &window.ends].concat();
        conv = conv.with_stride(&window.strides).with_padding(&padding).with_dilation(&window.dilations);
        conv = conv.with_groups(window.groups);
        let outputs = if transposed { shape.get(1).map(|n| n * window.groups) } else { shape.first().copied() };
        let bias = match input(node, 2) {
            Some(_) => Some(self.tensor(index, 2, &[outputs.unwrap_or(0)])?),
            None => None,
        };
        if let Some(bias) = &bias {
            conv = conv.with_bias(bias);
        }
        let name = self.part(&out);
        let x = self.add(&name, conv, &[x])?;
        let place = Place::Input { node: index, input: 2 };
        self.patches.push(Patch::Bias { from: name.clone(), place });
        self.patches.push(Patch::Number { node: index, from: name.clone(), number: "groups", attribute: "group" });
        let x = self.batched(&out, x)?;
        self.set(&out, x)?;
        if !transposed && window.groups == 1 {
            let input = input(node, 0).unwrap_or_default().to_string();
            let (output, window) = (out, Some(window));
            self.sites.push(Site { from: name, input, output, weight, bias, window, inputs_first: false });
        }
        Ok(())
    }

    pub(super) fn gemm(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let plain = number(node, "alpha", 1.0) == 1.0 && number(node, "beta", 1.0) == 1.0;
        if !plain || integer(node, "transA", 0) != 0 {
            return Err("scaled, or of a transposed input".into());
        }
        let has_bias = input(node, 2).is_some();
        let row = |name| self.constant(name).is_some_and(|of| of.shape.last() == Some(&of.values.len()));
        if input(node, 2).is_some_and(|name| !row(name)) {
            return Err("what it adds is not a constant for each output".into());
        }
        let out = output(node)?.to_string();
        let bias = has_bias.then_some((index, 2));
        self.dense(index, node, &out, integer(node, "transB", 0) == 0, bias, Place::Input { node: index, input: 2 })
    }

    pub(super) fn matmul(&mut self, index: usize, node: &NodeProto) -> Lowered {
        if input(node, 1).is_none_or(|name| self.constant(name).is_none()) {
            return Err("no input of it is a constant on the right side".into());
        }
        let product = output(node)?.to_string();
        let Some((add, at)) = self.added(&product) else {
            return self.dense(index, node, &product, true, None, Place::Sum { node: index });
        };
        let out = output(&self.read.graph.node[add])?.to_string();
        self.dense(index, node, &out, true, Some((add, at)), Place::Input { node: add, input: at })?;
        self.aliases.insert(product, out);
        self.merged.insert(add);
        Ok(())
    }

    /// The node that adds a constant to each output of a product, and nothing else reads the product.
    fn added(&self, product: &str) -> Option<(usize, usize)> {
        let add = self.read.only_reader(product)?;
        let node = &self.read.graph.node[add];
        let at = node.input.iter().position(|name| name != product)?;
        let constant = self.constant(&node.input[at])?;
        let shape = self.shapes.shape(product)?;
        let last = *shape.last()?;
        let row = constant.shape.last() == Some(&last) && constant.values.len() == last;
        let finite = constant.values.iter().all(|x| x.is_finite());
        (operator(node) == "Add" && node.input.len() == 2 && row && finite && constant.shape.len() <= shape.len())
            .then_some((add, at))
    }

    fn dense(
        &mut self,
        index: usize,
        node: &NodeProto,
        out: &str,
        inputs_first: bool,
        bias: Option<(usize, usize)>,
        place: Place,
    ) -> Lowered {
        let x = self.data(node)?;
        let name = input(node, 1).ok_or("without its weights")?;
        let shape = self.constant(name).ok_or_else(|| format!("`{name}` is no constant of 32-bit numbers"))?.shape;
        let [first, second] = shape[..] else { return Err("its weights are no matrix".into()) };
        let outputs = if inputs_first { second } else { first };
        let x = self.on_last(out, x)?;
        let weight = self.tensor(index, 1, &shape)?;
        let bias = match bias {
            Some((node, at)) => Some(self.tensor(node, at, &[outputs])?),
            None => None,
        };
        let mut dense = Dense::new(&weight);
        if inputs_first {
            dense = dense.with_inputs_first();
        }
        if let Some(bias) = &bias {
            dense = dense.with_bias(bias);
        }
        let (given, channels) = self.layout(x);
        let x = self.add(out, dense, &[x])?;
        self.set(out, x)?;
        self.patches.push(Patch::Bias { from: out.into(), place });
        // Where other channels pass by, it mixes none of them.
        if channels == Some(given.len() - 1) {
            let input = input(node, 0).unwrap_or_default().to_string();
            let (from, output) = (out.to_string(), out.to_string());
            self.sites.push(Site { from, input, output, weight, bias, window: None, inputs_first });
        }
        Ok(())
    }

    /// A lookup in a table, or one index of an axis.
    pub(super) fn gather(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let out = output(node)?.to_string();
        let (from, at) = (input(node, 0).ok_or("without data")?, input(node, 1).ok_or("without indices")?);
        let along = integer(node, "axis", 0);
        if let Some(table) = self.constant(from) {
            if along != 0 || table.shape.len() != 2 {
                return Err("no rows of a matrix".into());
            }
            let name = at.to_string();
            let indices = self.value(&name)?;
            let table = self.tensor(index, 0, &table.shape)?;
            let expected = self.shape(&out)?;
            let rows = self.add_part(&out, Embedding::new(table), &[indices])?;
            let rows = self.add(&out, Reshape::new(&expected).along(expected.len() - 1), &[rows])?;
            return self.set(&out, rows);
        }
        let x = self.data(node)?;
        let (shape, channels) = self.layout(x);
        let along = axis(along, shape.len()).ok_or("of an axis that there is not")?;
        let one = self.integers(at).filter(|list| list.len() == 1).ok_or("of more than one constant index")?;
        let one = axis(one[0], shape[along]).ok_or("of an index that there is not")?;
        if channels == Some(along) {
            return Err("takes one of its channels".into());
        }
        let row = self.add_part(&out, Slice::new(along, one..one + 1), &[x])?;
        let expected = self.shape(&out)?;
        let channels = channels.ok_or("of unknown channels")?;
        let gone = usize::from(expected.len() < shape.len() && channels > along);
        let row = self.add(&out, Reshape::new(&expected).along(channels - gone), &[row])?;
        self.set(&out, row)
    }

    /// With its channels on the last axis; where they stay anyway, those of the last axis do too.
    pub(super) fn on_last(&mut self, of: &str, x: crate::slim::Value) -> Lowered<crate::slim::Value> {
        let (shape, axis) = self.layout(x);
        let last = shape.len().saturating_sub(1);
        if axis != Some(last) && self.builder.is_frozen(x) {
            return self.add_part(of, crate::slim::Opaque::new(&shape, last), &[x]);
        }
        Ok(x)
    }
}

/// The window of a convolution or a pool over axes of these lengths.
pub(super) fn window(node: &NodeProto, lengths: &[usize], kernel: &[usize], transposed: bool) -> Lowered<Window> {
    let list = |name: &str, default: usize, count: usize| {
        let list = sizes(node, name).ok_or_else(|| format!("of {name} below 0"))?;
        match list.len() {
            0 => Ok(vec![default; count]),
            len if len == count => Ok(list),
            _ => Err(format!("not of as many {name} as it has axes")),
        }
    };
    let rank = lengths.len();
    let (strides, dilations) = (list("strides", 1, rank)?, list("dilations", 1, rank)?);
    let groups = usize::try_from(integer(node, "group", 1)).map_err(|_| "of groups below 0")?;
    let pads = list("pads", 0, 2 * rank)?;
    let (mut begins, mut ends) = (pads[..rank].to_vec(), pads[rank..].to_vec());
    match text(node, "auto_pad") {
        "" | "NOTSET" => {}
        "VALID" => (begins, ends) = (vec![0; rank], vec![0; rank]),
        same @ ("SAME_UPPER" | "SAME_LOWER") if !transposed && kernel.len() == rank => {
            for i in 0..rank {
                let reach = kernel[i].saturating_sub(1).saturating_mul(dilations[i]).saturating_add(1);
                let steps = lengths[i].div_ceil(strides[i].max(1)).saturating_sub(1);
                let total = steps.saturating_mul(strides[i]).saturating_add(reach).saturating_sub(lengths[i]);
                let (less, more) = (total / 2, total - total / 2);
                (begins[i], ends[i]) = if same == "SAME_UPPER" { (less, more) } else { (more, less) };
            }
        }
        other => return Err(format!("padded by {other}")),
    }
    Ok(Window { strides, begins, ends, dilations, groups, kernel: kernel.to_vec() })
}
