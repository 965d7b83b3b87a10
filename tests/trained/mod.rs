//! A trained network, LeNet-300-100 on the embedded digits, and its data: what tests of quantizers and pruners measure on.

use flate2::read::GzDecoder;
use lapidary::{Calibration, TensorRef};
use std::io::Read;

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Layer {
    pub(crate) fn outputs(&self) -> usize {
        self.bias.len()
    }

    pub(crate) fn inputs(&self) -> usize {
        self.weight.len() / self.outputs()
    }

    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.outputs(), self.inputs()]
    }

    pub(crate) fn tensor(&self) -> TensorRef<'_, f32> {
        TensorRef::new(&self.weight, &self.shape()).unwrap()
    }

    pub(crate) fn run(&self, x: &[f32]) -> Vec<f32> {
        let sum = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        let one = |x| self.weight.chunks_exact(self.inputs()).zip(&self.bias).map(move |(w, b)| sum(w, x) + b);
        x.chunks_exact(self.inputs()).flat_map(one).collect()
    }
}

pub(crate) fn network() -> [Layer; 3] {
    let bytes = unpacked(include_bytes!("../../examples/data/digits_mlp.f32.gz"));
    let mut numbers = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
    let layers = [[300, 64], [100, 300], [10, 100]].map(|[outputs, inputs]| Layer {
        weight: numbers.by_ref().take(outputs * inputs).collect(),
        bias: numbers.by_ref().take(outputs).collect(),
    });
    assert_eq!(numbers.next(), None);
    layers
}

pub(crate) struct Digits {
    pub(crate) x: Vec<f32>,
    pub(crate) y: Vec<u8>,
}

/// Rows to calibrate with, and others to test with.
pub(crate) fn digits() -> (Digits, Digits) {
    let bytes = unpacked(include_bytes!("../../examples/data/digits_1797x65_u8.bin.gz"));
    let some = |test: bool| {
        let rows = bytes.chunks_exact(65).enumerate().filter(move |(i, _)| (i % 4 == 3) == test).map(|(_, row)| row);
        let x = rows.clone().flat_map(|row| row[..64].iter().map(|&p| f32::from(p) / 16.0)).collect();
        Digits { x, y: rows.map(|row| row[64]).collect() }
    };
    (some(false), some(true))
}

fn relu(mut x: Vec<f32>) -> Vec<f32> {
    x.iter_mut().for_each(|x| *x = x.max(0.0));
    x
}

/// The inputs of each layer, and the outputs of the last; `between` changes the inputs.
pub(crate) fn inputs(layers: &[Layer], x: &[f32], between: impl Fn(usize, Vec<f32>) -> Vec<f32>) -> Vec<Vec<f32>> {
    let mut all = vec![between(0, x.to_vec())];
    for (i, layer) in layers.iter().enumerate() {
        let y = layer.run(&all[i]);
        all.push(if i + 1 < layers.len() { between(i + 1, relu(y)) } else { y });
    }
    all
}

pub(crate) fn right(logits: &[f32], y: &[u8]) -> usize {
    let best = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    logits.chunks_exact(10).zip(y).filter(|(row, y)| best(row) == usize::from(**y)).count()
}

pub(crate) fn plain(_: usize, x: Vec<f32>) -> Vec<f32> {
    x
}

pub(crate) fn accuracy(layers: &[Layer], test: &Digits) -> usize {
    right(inputs(layers, &test.x, plain).last().unwrap(), &test.y)
}

pub(crate) fn calibrations(layers: &[Layer], x: &[f32]) -> Vec<Calibration> {
    let of = |(layer, x): (&Layer, Vec<f32>)| {
        let mut calibration = Calibration::new(layer.inputs()).unwrap();
        for batch in x.chunks(100 * layer.inputs()) {
            let shape = [batch.len() / layer.inputs(), layer.inputs()];
            calibration.add(TensorRef::new(batch, &shape).unwrap()).unwrap();
        }
        calibration
    };
    layers.iter().zip(inputs(layers, x, plain)).map(of).collect()
}
