//! One criterion harness, a module a family. Each benchmark reports the bytes it has to move, and stands beside a plain copy
//! of as many bytes.
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

/// Measures `work`, which moves `bytes`, as `{group}/{n}`, and beside it a plain copy that moves as many (half of them read,
/// half written) as `{group}/copy/{n}`.
fn measure(c: &mut Criterion, group: &str, n: usize, bytes: usize, mut work: impl FnMut()) {
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(BenchmarkId::from_parameter(n), |b| b.iter(&mut work));
    let (from, mut to) = (vec![1u8; bytes / 2], vec![0u8; bytes / 2]);
    group.bench_function(BenchmarkId::new("copy", n), |b| b.iter(|| to.copy_from_slice(black_box(&from))));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = step::all, quantize::all, prune::all
}
criterion_main!(benches);
