//! `LSTM`, `GRU` and `RNN`: each direction a node of its own.

use super::{
    graph::{Numbers, input, integer, operator, text},
    lower::{Direction, Lower, Lowered, Patch},
};
use crate::{
    compress::onnx::nodes::attribute,
    format::onnx::{self, proto::NodeProto},
    slim::{Cell, Concat, Recurrent, Reshape, Slice},
};

impl Lower<'_> {
    pub(super) fn recurrent(&mut self, index: usize, node: &NodeProto) -> Lowered {
        let cell = match operator(node) {
            "LSTM" => Cell::Lstm,
            "GRU" => Cell::Gru,
            _ => Cell::Rnn,
        };
        if integer(node, "layout", 0) != 0 || input(node, 7).is_some() {
            return Err("with the batch first, or with peepholes".into());
        }
        // Other functions need not be 0 at 0; clipping and coupled gates are as they are.
        if attribute(node, "activations").is_some() {
            return Err("with functions of its own".into());
        }
        let zero = |name: Option<&str>| name.is_none_or(|name| self.is_zero(name));
        let states = if cell == Cell::Lstm { [input(node, 5), input(node, 6)] } else { [input(node, 5), None] };
        if !states.into_iter().all(zero) {
            return Err("starts from a state that is not 0".into());
        }
        let x = self.data(node)?;
        let shape = self.layout(x).0;
        let &[steps, 1, inputs] = &shape[..] else { return Err("its batch cannot be one".into()) };
        let given = |at: usize| -> Lowered<Numbers> {
            let name = input(node, at).ok_or("without its weights")?;
            self.constant(name).ok_or_else(|| format!("`{name}` is no constant of 32-bit numbers"))
        };
        let (w, r) = (given(1)?, given(2)?);
        let b = if input(node, 3).is_some() { Some(given(3)?) } else { None };
        let (&[directions, rows, _], &[_, _, units]) = (&w.shape[..], &r.shape[..]) else {
            return Err("its weights are not of three axes".into());
        };
        let fits = w.shape == [directions, rows, inputs]
            && r.shape == [directions, rows, units]
            && rows == cell.gates() * units
            && b.as_ref().is_none_or(|b| b.shape == [directions, 2 * rows])
            && directions == if text(node, "direction") == "bidirectional" { 2 } else { 1 };
        if !fits {
            return Err("its weights do not fit one another".into());
        }
        let called = node.output.iter().find(|name| !name.is_empty()).ok_or("without an output")?.clone();
        let x = self.add_part(&called, Reshape::new(&[steps, inputs]).along(1), &[x])?;
        let mut parts = Vec::new();
        let mut outputs = Vec::new();
        for direction in 0..directions {
            let base = format!("{called}@{direction}");
            let of = |numbers: &Numbers, shape: [usize; 2]| {
                let size = shape[0] * shape[1];
                let values = numbers.values[direction * size..(direction + 1) * size].to_vec();
                Numbers { shape: shape.to_vec(), values }
            };
            let (input, hidden) = (format!("{base}.w"), format!("{base}.r"));
            self.declare(&input, of(&w, [rows, inputs]), None)?;
            self.declare(&hidden, of(&r, [rows, units]), None)?;
            let mut layer = Recurrent::new(cell, &input, &hidden);
            let mut biases = None;
            if let Some(b) = &b {
                let values = &b.values[direction * 2 * rows..(direction + 1) * 2 * rows];
                let names = [format!("{base}.wb"), format!("{base}.rb")];
                for (name, values) in names.iter().zip(values.chunks(rows)) {
                    self.declare(name, Numbers { shape: vec![rows], values: values.to_vec() }, None)?;
                }
                layer = layer.with_biases(&names[0], &names[1]);
                biases = Some(names);
            }
            let name = self.part(&called);
            let y = self.add(&name, layer, &[x])?;
            parts.push(Direction { node: name, input, hidden, biases });
            outputs.push(y);
        }
        let reversed = |direction: usize| direction == 1 || text(node, "direction") == "reverse";
        // What nobody reads would be taken for an output of the model.
        let read = |name: &&String| self.read.readers.contains_key(name.as_str()) || self.read.is_output(name);
        let names: Vec<Option<String>> = (0..3).map(|at| node.output.get(at).filter(read).cloned()).collect();
        if let Some(all) = names[0].clone() {
            let mut sides = Vec::new();
            for &y in &outputs {
                sides.push(self.add_part(&all, Reshape::new(&[steps, 1, 1, units]).along(3), &[y])?);
            }
            let value = self.add(&all, Concat::new(1), &sides)?;
            self.set(&all, value)?;
        }
        // The last state, and what an LSTM carries beside it: of a unit that is gone, 0 too.
        for last in names[1..].iter().flatten() {
            let mut sides = Vec::new();
            for (direction, &y) in outputs.iter().enumerate() {
                let at = if reversed(direction) { 0 } else { steps - 1 };
                let y = self.add_part(last, Slice::new(0, at..at + 1), &[y])?;
                sides.push(self.add_part(last, Reshape::new(&[1, 1, units]).along(2), &[y])?);
            }
            let value = self.add(last, Concat::new(0), &sides)?;
            self.set(last, value)?;
        }
        self.patches.push(Patch::Recurrent { node: index, directions: parts });
        Ok(())
    }

    /// Whether a value is 0 whatever the inputs are.
    fn is_zero(&self, name: &str) -> bool {
        let mut name = name;
        // A way back can have no more nodes than there are.
        for _ in 0..=self.read.graph.node.len() {
            if let Some(numbers) = self.constant(name) {
                return numbers.values.iter().all(|&x| x == 0.0);
            }
            let mut makers = self.read.graph.node.iter().filter(|node| node.output.iter().any(|output| output == name));
            let Some(node) = makers.next() else { return false };
            match operator(node) {
                "ConstantOfShape" => {
                    return attribute(node, "value").and_then(|value| value.t.as_ref()).is_none_or(|tensor| {
                        let info = onnx::tensor_info(String::new(), tensor).ok().flatten();
                        let bytes = info.and_then(|info| onnx::tensor_bytes(tensor, &info).ok());
                        bytes.is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0))
                    });
                }
                "Slice" | "Expand" | "Identity" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Gather"
                | "Tile" => match input(node, 0) {
                    Some(input) => name = input,
                    None => return false,
                },
                _ => return false,
            }
        }
        false
    }
}
