//! Operators that move channels, or leave them where they are: other shapes, parts, pools.

use super::{
    graph::{Numbers, axis, input, integer, operator, sizes, text},
    linear::window,
    lower::{Lower, Lowered, Patch, WHERE, output},
};
use crate::{
    compress::onnx::nodes::attribute,
    format::onnx::proto::NodeProto,
    slim::{Concat, Parameter, Pool, Reshape, Slice, Transpose, Value},
};

impl Lower<'_> {
    pub(super) fn reshape(&mut self, index: usize, node: &NodeProto) -> Lowered {
        if integer(node, "allowzero", 0) != 0 {
            return Err("with sizes of 0".into());
        }
        if self.read.opset < WHERE && input(node, 1).is_some_and(|name| !self.read.is_constant(name)) {
            return Err("to a shape that is computed, by old operators".into());
        }
        let x = self.data(node)?;
        let expected = self.shape(output(node)?)?;
        self.simple(node, &[x], Reshape::new(&expected))?;
        if input(node, 1).is_some() {
            self.patches.push(Patch::Sizes { node: index, input: 1 });
        }
        Ok(())
    }

    pub(super) fn flatten(&mut self, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let expected = self.shape(output(node)?)?;
        self.simple(node, &[x], Reshape::new(&expected))
    }

    /// Axes of length 1 more or fewer.
    pub(super) fn squeeze(&mut self, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let ((from, channels), to) = (self.layout(x), self.shape(&out)?);
        let list = match input(node, 1) {
            Some(name) => self.integers(name).ok_or("its axes are no constants")?,
            None => attribute(node, "axes").map(|a| a.ints.clone()).unwrap_or_default(),
        };
        if list.is_empty() {
            return Err("its axes are not given".into());
        }
        let removes = operator(node) == "Squeeze";
        let rank = if removes { from.len() } else { from.len() + list.len() };
        let axes: Option<Vec<usize>> = list.iter().map(|&at| axis(at, rank)).collect();
        let axes = axes.ok_or("of axes that there are not")?;
        let Some(channels) = channels else { return self.simple(node, &[x], Reshape::new(&to)) };
        let along = if removes {
            if axes.contains(&channels) {
                return Err("takes the axis of its channels away".into());
            }
            channels - axes.iter().filter(|&&axis| axis < channels).count()
        } else {
            let mut old = (0..rank).filter(|axis| !axes.contains(axis));
            old.nth(channels).ok_or("of axes twice")?
        };
        self.simple(node, &[x], Reshape::new(&to).along(along.min(to.len() - 1)))
    }

    pub(super) fn transpose(&mut self, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let order = sizes(node, "perm").ok_or("of axes below 0")?;
        let order = if order.is_empty() { (0..self.layout(x).0.len()).rev().collect() } else { order };
        self.simple(node, &[x], Transpose::new(&order))
    }

    pub(super) fn concat(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let rank = self.shape(output(node)?)?.len();
        let along = axis(integer(node, "axis", i64::MAX), rank).ok_or("of an axis that there is not")?;
        let names = node.input.clone();
        let data = names.iter().find(|name| self.constant(name).is_none()).ok_or("of constants")?.clone();
        let first = self.value(&data)?;
        let mut inputs: Vec<Value> = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let constant = self.constant(name).is_some();
            inputs.push(if constant { self.operand(index, at, first, rank)? } else { self.value(name)? });
        }
        self.simple(node, &inputs, Concat::new(along))
    }

    pub(super) fn split(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let (shape, channels) = self.layout(x);
        let along = axis(integer(node, "axis", 0), shape.len()).ok_or("of an axis that there is not")?;
        let mut start = 0;
        let mut parts = Vec::new();
        for name in &node.output {
            let length = *self.shape(name)?.get(along).ok_or("of parts of fewer axes")?;
            parts.push((name, start..start + length));
            start += length;
        }
        if start != shape[along] {
            return Err("into parts that are not the whole".into());
        }
        for (name, range) in parts {
            let part = self.add(name, Slice::new(along, range), &[x])?;
            self.set(name, part)?;
        }
        if channels == Some(along) {
            self.patches.push(Patch::Split { node: index, axis: along });
        }
        Ok(())
    }

    pub(super) fn slice(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let mut x = self.data(node)?;
        let out = output(node)?.to_string();
        let (shape, channels) = self.layout(x);
        let list = |at: usize, name: &str| match input(node, at) {
            Some(input) => self.integers(input),
            None => attribute(node, name).map(|a| a.ints.clone()),
        };
        let (Some(starts), Some(ends)) = (list(1, "starts"), list(2, "ends")) else {
            return Err("its bounds depend on the inputs".into());
        };
        let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.iter().any(|&step| step != 1) {
            return Err("in steps, or of bounds that do not fit one another".into());
        }
        let constant = |at: usize| input(node, at).is_none_or(|name| self.read.is_constant(name));
        // What is written down again has to be known where the slim model is made.
        let known = constant(3)
            && constant(4)
            && (constant(1) && constant(2) || starts.len() == 1 && list(3, "axes").is_some());
        let mut ranges = Vec::new();
        for ((start, end), along) in starts.iter().zip(&ends).zip(axes) {
            let along = axis(along, shape.len()).ok_or("of an axis that there is not")?;
            ranges.push((along, bounds(*start, shape[along])..bounds(*end, shape[along])));
        }
        if !known && ranges.iter().any(|(along, _)| channels == Some(*along)) {
            return Err("its axes, or one of its bounds, are computed".into());
        }
        let last = ranges.len().checked_sub(1).ok_or("of no axis")?;
        for (at, (along, range)) in ranges.into_iter().enumerate() {
            let name = if at == last { out.clone() } else { self.part(&out) };
            x = self.add(&name, Slice::new(along, range), &[x])?;
            if channels == Some(along) {
                self.patches.push(Patch::Slice { node: index, axis: along, from: name });
            }
        }
        self.set(&out, x)
    }

    /// Zeros before and after, on other axes than that of the channels.
    pub(super) fn pad(&mut self, node: &NodeProto) -> Lowered {
        let mut x = self.data(node)?;
        let out = output(node)?.to_string();
        let (shape, channels) = self.layout(x);
        let channels = channels.ok_or("of unknown channels")?;
        let value = input(node, 2).map(|name| self.constant(name).map(|numbers| numbers.values));
        let zero = value.is_none_or(|value| value.is_some_and(|values| values == [0.0]));
        let pads = input(node, 1).and_then(|name| self.integers(name)).ok_or("its lengths are no constants")?;
        if !matches!(text(node, "mode"), "" | "constant") || !zero || input(node, 3).is_some() {
            return Err("not with zeros".into());
        }
        if pads.len() != 2 * shape.len() || pads[channels] != 0 || pads[channels + shape.len()] != 0 {
            return Err("adds channels, or is not of all axes".into());
        }
        let mut done = 0;
        let count = pads.iter().filter(|&&pad| pad != 0).count();
        for along in 0..shape.len() {
            for (length, before) in [(pads[along], true), (pads[along + shape.len()], false)] {
                if length == 0 {
                    continue;
                }
                let mut zeros = self.layout(x).0;
                zeros[along] = usize::try_from(length).map_err(|_| "takes away")?;
                let values = zeros.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
                let values = vec![0.0; values.filter(|&n| n < 1 << 28).ok_or("too large")?];
                let tensor = self.part(&out);
                self.declare(&tensor, Numbers { shape: zeros, values }, None)?;
                let zeros = self.add_part(&out, Parameter::new(tensor, channels), &[])?;
                done += 1;
                let name = if done == count { out.clone() } else { self.part(&out) };
                let both = if before { [zeros, x] } else { [x, zeros] };
                x = self.add(&name, Concat::new(along), &both)?;
            }
        }
        if count == 0 {
            return self.chain(node, x, &[crate::slim::Activation::Identity]);
        }
        self.set(&out, x)
    }

    pub(super) fn pool(&mut self, node: &NodeProto) -> Lowered {
        if node.output.len() > 1 {
            return Err("gives indices too".into());
        }
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let to = self.shape(&out)?;
        let x = self.unbatched(&out, x)?;
        let kernel = sizes(node, "kernel_shape").ok_or("of a size below 0")?;
        let lengths = self.layout(x).0.get(1..).unwrap_or_default().to_vec();
        let window = window(node, &lengths, &kernel, false)?;
        let padded = window.begins.iter().chain(&window.ends).any(|&n| n > 0) || integer(node, "ceil_mode", 0) != 0;
        // A constant stays that constant, but for zeros that count.
        let counted = operator(node) == "AveragePool" && integer(node, "count_include_pad", 0) != 0 && padded;
        let pool = if counted {
            let padding = [&window.begins[..], &window.ends].concat();
            Pool::average(&kernel).with_stride(&window.strides).with_padding(&padding)
        } else {
            Pool::resize(to.get(2..).unwrap_or_default())
        };
        let x = self.add_part(&out, pool, &[x])?;
        let x = self.batched(&out, x)?;
        self.set(&out, x)
    }

    pub(super) fn global_pool(&mut self, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let x = self.unbatched(&out, x)?;
        let x = self.add_part(&out, Pool::global(), &[x])?;
        let x = self.batched(&out, x)?;
        self.set(&out, x)
    }

    /// A mean, or the largest, over axes without channels.
    pub(super) fn reduce(&mut self, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let (shape, channels) = self.layout(x);
        let channels = channels.ok_or("of unknown channels")?;
        let list = match input(node, 1) {
            Some(name) => self.integers(name).ok_or("its axes are no constants")?,
            None => attribute(node, "axes").map(|a| a.ints.clone()).unwrap_or_default(),
        };
        let axes: Option<Vec<usize>> = list.iter().map(|&at| axis(at, shape.len())).collect();
        let axes = axes.filter(|axes| !axes.is_empty()).ok_or("over all axes")?;
        if axes.contains(&channels) {
            return Err("goes over the channels".into());
        }
        let others = (0..shape.len()).filter(|axis| *axis != channels && !axes.contains(axis));
        if others.clone().any(|axis| shape[axis] != 1) {
            return Err("leaves more axes than that of the channels".into());
        }
        let order: Vec<usize> = std::iter::once(channels).chain((0..shape.len()).filter(|&a| a != channels)).collect();
        let x = self.add_part(&out, Transpose::new(&order), &[x])?;
        let x = self.add_part(&out, Pool::global(), &[x])?;
        let to = self.shape(&out)?;
        let kept = integer(node, "keepdims", 1) != 0;
        let before = axes.iter().filter(|&&axis| axis < channels).count();
        let along = if kept { channels } else { channels - before };
        let x = self.add(&out, Reshape::new(&to).along(along), &[x])?;
        self.set(&out, x)
    }

    pub(super) fn resize(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let x = self.data(node)?;
        let out = output(node)?.to_string();
        let (from, to) = (self.layout(x).0, self.shape(&out)?);
        let cropped = text(node, "coordinate_transformation_mode") == "tf_crop_and_resize";
        let axes = attribute(node, "axes").is_some();
        if cropped || axes || from.get(..2) != to.get(..2) || to.len() < 3 {
            return Err("not of the axes after the channels'".into());
        }
        let x = self.unbatched(&out, x)?;
        let x = self.add_part(&out, Pool::resize(&to[2..]), &[x])?;
        let x = self.batched(&out, x)?;
        self.set(&out, x)?;
        if input(node, 3).is_some() {
            self.patches.push(Patch::Sizes { node: index, input: 3 });
        }
        Ok(())
    }
}

/// A bound of a slice, counted from the end where it is below 0.
fn bounds(at: i64, length: usize) -> usize {
    let length = length as i64;
    let at = if at < 0 { at.saturating_add(length) } else { at };
    at.clamp(0, length) as usize
}
