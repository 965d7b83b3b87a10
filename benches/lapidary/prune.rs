//! Pruning: `prune/{threshold,magnitude,apply}/{n}`.

use crate::{LENGTHS, numbers};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use lapidary::{
    Mask, Pruner, PrunerExt,
    prune::{Magnitude, Threshold},
};

pub(crate) fn all(c: &mut Criterion) {
    let pruners: [(&str, Box<dyn Pruner<f32>>, usize); 2] = [
        // Looked at once for NaN, once for the test.
        ("threshold", Box::new(Threshold::new(0.1).unwrap()), 2),
        // Once for NaN, three times for the histogram of each digit, once for the mask.
        ("magnitude", Box::new(Magnitude::sparsity(0.9).unwrap()), 5),
    ];
    for (name, pruner, passes) in pruners {
        let mut group = c.benchmark_group(format!("prune/{name}"));
        for n in LENGTHS {
            let values = numbers(n);
            let all = Mask::keep_all(&[n]).unwrap();
            group.throughput(Throughput::Bytes((4 * n * passes) as u64));
            group.bench_function(BenchmarkId::from_parameter(n), |b| {
                let prune = |mut mask: Mask| pruner.refine((&values).into(), &mut mask).unwrap();
                b.iter_batched(|| all.clone(), prune, BatchSize::LargeInput);
            });
        }
    }
    let mut group = c.benchmark_group("prune/apply");
    for n in LENGTHS {
        let mut values = numbers(n);
        let mask = Magnitude::sparsity(0.5).unwrap().mask(&values).unwrap();
        group.throughput(Throughput::Bytes((8 * n + n / 8) as u64));
        group.bench_function(BenchmarkId::from_parameter(n), |b| b.iter(|| mask.apply(&mut values).unwrap()));
    }
}
