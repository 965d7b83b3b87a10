//! L2 norms of channels over the tensors that make or read them, without overflow.

use super::{
    tensor::Bound,
    topology::{Graph, Role},
};
use crate::{
    element::Element,
    kernel::isa::{Isa, Kernel},
};

/// Elements that are taken together.
const RUN: usize = 64;

/// What is known of some magnitudes: `squares` is the sum of their squares over that of the largest, so that none overflows or vanishes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Norm {
    pub(super) largest: f64,
    pub(super) squares: f64,
}

impl Norm {
    /// With one more: `squares + (x / largest)²`, or, of a new largest, `squares (largest / x)² + 1`.
    #[inline(always)]
    pub(super) fn with(self, x: f64) -> Self {
        let Self { largest, squares } = self;
        let (low, high) = if x > largest { (largest, x) } else { (x, largest) };
        let ratio = if high > 0.0 { low / high } else { 0.0 };
        let squares = if x > largest { squares * ratio * ratio + 1.0 } else { squares + ratio * ratio };
        Self { largest: high, squares }
    }

    pub(super) fn value(self) -> f64 {
        (self.largest * self.squares.sqrt()).min(f64::MAX)
    }

    /// With one after another, as [`with`](Norm::with) takes them.
    #[inline(always)]
    fn with_all<T: Element>(mut self, values: &[T]) -> Self {
        let (runs, rest) = values.as_chunks();
        for run in runs {
            self = self.with_run(run);
        }
        for x in rest {
            self = self.with(magnitude(*x));
        }
        self
    }

    /// Where none is a new largest, the quotients do not wait for one another.
    #[inline(always)]
    fn with_run<T: Element>(mut self, run: &[T; RUN]) -> Self {
        let (mut magnitudes, mut below) = ([0.0; RUN], true);
        for i in 0..RUN {
            magnitudes[i] = magnitude(run[i]);
            below &= magnitudes[i] <= self.largest;
        }
        if below && self.largest > 0.0 {
            for x in &mut magnitudes {
                let ratio = *x / self.largest;
                *x = ratio * ratio;
            }
            for x in magnitudes {
                self.squares += x;
            }
            return self;
        }
        for x in magnitudes {
            self = self.with(x);
        }
        self
    }
}

#[inline(always)]
fn magnitude<T: Element>(x: T) -> f64 {
    x.to_f64().abs()
}

/// The norm of each channel of each group over all tensors that have a role for it.
pub(super) fn norms<T: Element>(graph: &Graph, bound: &Bound<'_, T>, role: Role) -> Vec<Vec<f64>> {
    let mut starts = Vec::new();
    let count = graph.groups.iter().fold(0, |start, group| {
        starts.push(start);
        start + group.size
    });
    let mut norms = Norms { largest: vec![0.0; count], squares: vec![0.0; count] };
    for (shape, tensor) in graph.tensors.iter().zip(&bound.0) {
        for (axis, entry) in shape.axes.iter().enumerate().filter(|(_, axis)| axis.roles.contains(&role)) {
            let Some(atoms) = &entry.atoms else { continue };
            let place = |&atom: &usize| starts[graph.places[atom].group] + graph.places[atom].at;
            let channels: Vec<usize> = atoms.iter().map(place).collect();
            let inner: usize = shape.shape[axis + 1..].iter().product();
            Isa::current().run(Take { norms: &mut norms, channels: &channels, inner, values: tensor.as_slice() });
        }
    }
    let norm = |i: usize| Norm { largest: norms.largest[i], squares: norms.squares[i] }.value();
    starts.iter().zip(&graph.groups).map(|(&start, group)| (start..start + group.size).map(norm).collect()).collect()
}

/// Of many channels: a list each, so that they are vectors.
struct Norms {
    largest: Vec<f64>,
    squares: Vec<f64>,
}

/// Runs of `inner` elements are of these channels, in turn.
struct Take<'a, T> {
    norms: &'a mut Norms,
    channels: &'a [usize],
    inner: usize,
    values: &'a [T],
}

impl<T: Element> Kernel for Take<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { norms: Norms { largest, squares }, channels, inner, values } = self;
        let in_order = channels.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let first = channels.first().copied().unwrap_or_default();
        for block in values.chunks(inner * channels.len()) {
            if in_order && inner < RUN {
                // Short runs of many channels: one element of each at a time. A 0 more changes nothing.
                let all = first..first + channels.len();
                let norms = largest[all.clone()].chunks_mut(RUN).zip(squares[all].chunks_mut(RUN));
                for ((largest, squares), runs) in norms.zip(block.chunks(inner * RUN)) {
                    for at in 0..inner {
                        let mut magnitudes = [0.0; RUN];
                        for (x, run) in magnitudes.iter_mut().zip(runs.chunks_exact(inner)) {
                            *x = magnitude(run[at]);
                        }
                        for ((largest, squares), x) in largest.iter_mut().zip(squares.iter_mut()).zip(magnitudes) {
                            let norm = Norm { largest: *largest, squares: *squares }.with(x);
                            (*largest, *squares) = (norm.largest, norm.squares);
                        }
                    }
                }
                continue;
            }
            for (&channel, run) in channels.iter().zip(block.chunks(inner)) {
                let norm = Norm { largest: largest[channel], squares: squares[channel] }.with_all(run);
                (largest[channel], squares[channel]) = (norm.largest, norm.squares);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn taken_together_they_are_what_they_are_one_by_one(
            values in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..300),
            zeros in 0usize..200,
        ) {
            let values: Vec<f32> = vec![0.0; zeros].into_iter().chain(values).collect();
            let start = Norm::default().with(1e30);
            for start in [Norm::default(), start] {
                let expected = values.iter().fold(start, |norm, x| norm.with(magnitude(*x)));
                let found = start.with_all(&values);
                prop_assert_eq!(found.largest.to_bits(), expected.largest.to_bits());
                prop_assert_eq!(found.squares.to_bits(), expected.squares.to_bits());
            }
            let exact = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let found = Norm::default().with_all(&values).value();
            prop_assert!((found - exact).abs() <= 1e-13 * exact, "{} {}", found, exact);
        }

        #[test]
        fn each_channel_has_the_norm_of_its_elements_in_their_order(
            (count, inner, blocks) in (1usize..140, 1usize..80, 1usize..4),
            (in_order, scale, seed) in (any::<bool>(), -40i32..38, any::<u32>()),
        ) {
            // 3 and 140 have no divisor in common: a permutation.
            let channels: Vec<usize> = (0..count).map(|i| if in_order { 2 + i } else { i * 3 % 140 }).collect();
            let number = |i: usize| (seed.wrapping_add(i as u32).wrapping_mul(0x9e37_79b9) >> 20) as f32 - 2048.0;
            let values: Vec<f32> = (0..count * inner * blocks).map(|i| number(i) * 10f32.powi(scale) / 2048.0).collect();
            let mut norms = Norms { largest: vec![0.0; 145], squares: vec![0.0; 145] };
            let mut expected = vec![Norm::default(); 145];
            for isa in Isa::available() {
                isa.run(Take { norms: &mut norms, channels: &channels, inner, values: &values });
                for (run, values) in values.chunks(inner).enumerate() {
                    let norm = &mut expected[channels[run % count]];
                    *norm = values.iter().fold(*norm, |norm, x| norm.with(magnitude(*x)));
                }
                for (expected, (largest, squares)) in expected.iter().zip(norms.largest.iter().zip(&norms.squares)) {
                    prop_assert_eq!(largest.to_bits(), expected.largest.to_bits());
                    prop_assert_eq!(squares.to_bits(), expected.squares.to_bits());
                }
            }
        }
    }
}
