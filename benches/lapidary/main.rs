//! One criterion harness, a module a family. Each benchmark reports the bytes it has to move, beside `copy` of as many bytes.
//!
//! `cargo bench --bench lapidary`, or a part: `cargo bench --bench lapidary -- step/adam`.

mod prune;
mod quantize;
mod step;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

/// In cache, and far beyond it.
const LENGTHS: [usize; 2] = [1 << 16, 1 << 24];

/// Numbers like weights: about -1..1, none special.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| next() + next() - next() - next()).collect()
}

/// A plain copy that reads half of `bytes` and writes the other half: the yardstick.
fn copy(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy");
    for n in LENGTHS {
        let (from, mut to) = (numbers(n), vec![0f32; n]);
        group.throughput(Throughput::Bytes(8 * n as u64));
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            b.iter(|| to.copy_from_slice(black_box(&from)));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = copy, step::all, quantize::all, prune::all
}
criterion_main!(benches);
