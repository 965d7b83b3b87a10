//! Work cut in halves at fixed places, run by the caller's rayon pool or by one thread.
//!
//! Where a piece is cut depends on its length alone, and partial results are combined in the shape
//! of that tree. So a sum has the same bits on one thread, on sixteen, and without rayon.

use super::isa::Isa;

/// Pieces up to this many elements stay on one thread: below it, handing over costs more than it wins.
pub(crate) const GRAIN: usize = 1 << 15;

/// Something that can be cut in two and run.
pub(crate) trait Work: Sized + Send {
    /// What a piece gives; `()` where it writes its result in place.
    type Output: Send;

    /// Whether the last pieces are done first: what was read just before, from first to last, is then still in the cache.
    const BACKWARD: bool = false;

    /// Items it can be cut between: elements, rows, groups.
    fn len(&self) -> usize;

    /// Items that one call of [`run`](Work::run) takes at most. Cuts fall on multiples of it.
    fn chunk(&self) -> usize {
        GRAIN
    }

    /// Elements of all items together; decides whether a second thread is worth it.
    fn elements(&self) -> usize {
        self.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self);
    fn run(self, isa: Isa) -> Self::Output;
    fn combine(left: Self::Output, right: Self::Output) -> Self::Output;
}

/// Runs all of `work`, on the instruction set in use.
pub(crate) fn execute<W: Work>(work: W) -> W::Output {
    let parallel = pays(work.elements());
    run(work, Isa::current(), parallel)
}

/// Whether a second thread pays for so many elements, and there is one.
pub(crate) fn pays(elements: usize) -> bool {
    elements > 2 * GRAIN && threads() > 1
}

fn run<W: Work>(work: W, isa: Isa, parallel: bool) -> W::Output {
    let (len, chunk) = (work.len(), work.chunk());
    if len <= chunk {
        return work.run(isa);
    }
    let parallel = parallel && work.elements() > GRAIN;
    let mid = len.div_ceil(chunk).div_ceil(2) * chunk;
    let (left, right) = work.split_at(mid);
    let (left, right) = (|| run(left, isa, parallel), || run(right, isa, parallel));
    let (left, right) = match (parallel, W::BACKWARD) {
        (true, false) => join(left, right),
        (false, false) => in_turn(left, right),
        (true, true) => swap(join(right, left)),
        (false, true) => swap(in_turn(right, left)),
    };
    W::combine(left, right)
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

pub(crate) fn in_turn<A, B>(a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
    (a(), b())
}

#[cfg(feature = "rayon")]
use rayon::current_num_threads as threads;
#[cfg(feature = "rayon")]
pub(crate) use rayon::join;

#[cfg(not(feature = "rayon"))]
fn threads() -> usize {
    1
}

#[cfg(not(feature = "rayon"))]
pub(crate) use in_turn as join;

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds f32 numbers: the result depends on the order, so it shows the tree.
    struct Sum<'a>(&'a [f32]);

    impl Work for Sum<'_> {
        type Output = f32;
        fn len(&self) -> usize {
            self.0.len()
        }
        fn chunk(&self) -> usize {
            1000
        }
        fn split_at(self, mid: usize) -> (Self, Self) {
            let (a, b) = self.0.split_at(mid);
            (Self(a), Self(b))
        }
        fn run(self, _: Isa) -> f32 {
            self.0.iter().sum()
        }
        fn combine(left: f32, right: f32) -> f32 {
            left + right
        }
    }

    #[test]
    fn the_tree_does_not_depend_on_threads() {
        for n in [0, 1, 999, 1000, 1001, 65_537, 300_007] {
            let numbers: Vec<f32> = (0..n).map(|i| 1.0 / (i + 1) as f32).collect();
            let want = run(Sum(&numbers), Isa::BASELINE, false);
            assert_eq!(run(Sum(&numbers), Isa::BASELINE, true).to_bits(), want.to_bits());
            assert_eq!(execute(Sum(&numbers)).to_bits(), want.to_bits());
        }
    }
}
