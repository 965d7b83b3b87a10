//! faer's side of `benches/peers/run-sparse`: products of compressed rows, and of compressed columns, on one thread. The lines it is told are
//! those of `benches/peers`.

use faer::{
    Accum, Mat, Par,
    sparse::{SparseColMat, SparseRowMat, Triplet, linalg::matmul::sparse_dense_matmul},
};
use std::{
    io::{Write, stdin, stdout},
    time::Instant,
};

fn answer(text: impl std::fmt::Display) {
    println!("{text}");
    stdout().flush().expect("somebody reads");
}

/// The numbers of the other sides.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn number(i: usize, seed: u64) -> f32 {
    let x = mix(i as u64 + (seed << 40));
    (0..4).map(|k| (x >> (16 * k) & 0xffff) as f32 / 65536.0 - 0.5).sum()
}

fn main() {
    answer("faer");
    let mut lines = stdin().lines();
    while let Some(line) = lines.next().map(|line| line.expect("a line")) {
        let words: Vec<&str> = line.split(' ').collect();
        let [batch, size] = [2, 3].map(|i| words[i].parse::<usize>().expect("a number"));
        let kept = (0..size * size).filter(|&i| mix(i as u64 + (6 << 40)) % 10 == 0);
        let triplets: Vec<_> =
            kept.map(|i| Triplet::new((i / size) as u32, (i % size) as u32, number(i, 1))).collect();
        let rows = SparseRowMat::<u32, f32>::try_new_from_triplets(size, size, &triplets).expect("a matrix");
        let columns = SparseColMat::<u32, f32>::try_new_from_triplets(size, size, &triplets).expect("a matrix");
        let x = Mat::from_fn(size, batch, |i, j| number(j * size + i, 2));
        let mut y = Mat::zeros(size, batch);
        answer(triplets.len() * 8);
        for line in lines.by_ref() {
            let line = line.expect("a line");
            let Some(count) = line.strip_prefix("step ") else { break };
            let mut seconds = Vec::new();
            for _ in 0..count.parse().expect("a number") {
                let clock = Instant::now();
                if words[1] == "csr" {
                    sparse_dense_matmul(y.as_mut(), Accum::Replace, rows.as_ref(), x.as_ref(), 1.0, Par::Seq);
                } else {
                    sparse_dense_matmul(y.as_mut(), Accum::Replace, columns.as_ref(), x.as_ref(), 1.0, Par::Seq);
                }
                seconds.push(clock.elapsed().as_secs_f64().to_string());
            }
            answer(seconds.join(" "));
        }
        let shown: Vec<_> = (0..16).map(|i| y[(i, 0)].to_string()).collect();
        answer(shown.join(" "));
    }
}
