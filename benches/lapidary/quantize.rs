//! Min-max quantization: `quantize/{bits}/{granularity}/{n}` and `dequantize/…`.

use crate::{LENGTHS, numbers};
use criterion::{BenchmarkId, Criterion, Throughput};
use lapidary::{Quantizer, QuantizerExt, TensorMut, TensorRef, quant::MinMax};

const COLUMNS: usize = 1024;

pub(crate) fn all(c: &mut Criterion) {
    for bits in [8, 4, 2] {
        let minmax = MinMax::new(bits).unwrap();
        let granularities =
            [("tensor", minmax), ("channel", minmax.per_channel(0)), ("group32", minmax.per_group(32).unwrap())];
        for (name, quantizer) in granularities {
            for n in LENGTHS {
                let values = numbers(n);
                let shape = [n / COLUMNS, COLUMNS];
                let mut q = quantizer.quantize(TensorRef::new(&values, &shape).unwrap()).unwrap();
                let written = q.byte_size();

                let mut group = c.benchmark_group(format!("quantize/{bits}/{name}"));
                // Read once for the range and once for the codes.
                group.throughput(Throughput::Bytes((8 * n + written) as u64));
                group.bench_function(BenchmarkId::from_parameter(n), |b| {
                    b.iter(|| quantizer.quantize_into(TensorRef::new(&values, &shape).unwrap(), &mut q).unwrap());
                });
                group.finish();

                let mut back = vec![0f32; n];
                let mut group = c.benchmark_group(format!("dequantize/{bits}/{name}"));
                group.throughput(Throughput::Bytes((4 * n + written) as u64));
                group.bench_function(BenchmarkId::from_parameter(n), |b| {
                    b.iter(|| q.dequantize_into(TensorMut::new(&mut back, &shape).unwrap()).unwrap());
                });
                group.finish();
            }
        }
    }
}
