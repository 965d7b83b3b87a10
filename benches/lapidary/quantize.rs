//! Quantization: `quantize/{bits}/{what}/{n}` and `dequantize/…`, min-max where nothing else is named.

use crate::{LENGTHS, measure, numbers};
use criterion::Criterion;
use lapidary::{
    Quantizer, QuantizerExt, TensorMut, TensorRef,
    quant::{Affine, MinMax, Symmetric},
};

const COLUMNS: usize = 1024;

pub(crate) fn all(c: &mut Criterion) {
    for bits in [8, 4, 2] {
        let minmax = MinMax::new(bits).unwrap();
        let (affine, symmetric) = (Affine::new(bits).unwrap(), Symmetric::new(bits).unwrap());
        let quantizers: [(&str, &dyn Quantizer<f32>); 7] = [
            ("tensor", &minmax),
            ("channel", &minmax.per_channel(0)),
            ("channel_last", &minmax.per_channel(1)),
            ("group32", &minmax.per_group(32).unwrap()),
            ("affine_tensor", &affine),
            ("symmetric_channel", &symmetric.per_channel(0)),
            ("symmetric_group32", &symmetric.per_group(32).unwrap()),
        ];
        for (name, quantizer) in quantizers {
            for n in LENGTHS {
                let values = numbers(n);
                let shape = [n / COLUMNS, COLUMNS];
                let mut q = quantizer.quantize(TensorRef::new(&values, &shape).unwrap()).unwrap();
                let written = q.byte_size();
                // Per tensor the range also tells whether all is finite; else that is a read of its own. Then the codes.
                let reads = if name.ends_with("tensor") { 2 } else { 3 };
                let quantize = || quantizer.quantize_into(TensorRef::new(&values, &shape).unwrap(), &mut q).unwrap();
                measure(c, &format!("quantize/{bits}/{name}"), n, 4 * n * reads + written, quantize);

                let mut back = vec![0f32; n];
                let dequantize = || q.dequantize_into(TensorMut::new(&mut back, &shape).unwrap()).unwrap();
                measure(c, &format!("dequantize/{bits}/{name}"), n, 4 * n + written, dequantize);
            }
        }
    }
}
