//! HQQ: the place of evenly spaced levels, found without data.

use crate::{
    element::{Element, Real},
    error::{Error, Result},
    kernel::{
        grid::{Even, Level},
        isa::Isa,
        parallel::{Work, execute},
        rows::{Code, Layout},
    },
    quant::{MinMax, spec::levels_config},
    tensor::{Granularity, QTensor, TensorRef},
    traits::Quantizer,
};

/// Half-quadratic quantization (Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models"):
/// the levels of [`MinMax`], moved together to where the errors of a group have the least `p`-norm, which forgives the
/// few large ones.
///
/// In units of a step, with `u = x / step` of each of a group's `n` elements:
///
/// ```text
/// step = (max - min) / (2^b - 1);  zero = -min / step
/// for each iteration:
///     q = round(u + zero)                                 half to even, from 0 to 2^b - 1
///     r = u - (q - zero)
///     e = sign(r) * max(|r| - |r|^(p - 1) / beta, 0)      what of an error is forgiven
///     zero = Σ (q - (u - e)) / n
///     beta = beta * growth
/// min = -zero * step;  max = (2^b - 1 - zero) * step      in f64, narrowed once
/// ```
///
/// Of the start and all iterations the one with the least `Σ |x - x'|^p` stays, measured group by group with the levels
/// as they are stored: none is worse than min-max. The zero point is a real number, so neither 0 nor the ends of the
/// range have to be levels; the form of the result is that of min-max. Unlike the published program, which measures
/// errors in the units of the weights, the result does not depend on these units.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | – | 1 to 8 | bits of a code |
/// | `p` | 0.7 | above 0, at most 1 | of the norm |
/// | `beta` | 10 | above 0 | how little is forgiven at first |
/// | `growth` | 1.01 | at least 1 | of `beta`, each iteration |
/// | `iterations` | 20 | at least 1 | |
/// | granularity | the tensor | [`per_channel`](Hqq::per_channel), [`per_group`](Hqq::per_group), [`per_block`](Hqq::per_block) | what shares levels |
///
/// ```
/// use lapidary::{QuantizerExt, quant::{Hqq, MinMax}};
/// let weights = [-4.0f32, -0.1, 0.1, 0.0, 0.02, -0.05, 0.07, 3.0]; // two far out
/// let near = |q: lapidary::QTensor| q.dequantize::<f32>()[3].abs();
/// assert!(near(Hqq::new(2)?.quantize(&weights)?) < 0.15);
/// assert!(near(MinMax::new(2)?.quantize(&weights)?) > 0.5);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hqq {
    levels: MinMax,
    search: Search,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Search {
    p: f64,
    beta: f64,
    growth: f64,
    iterations: u32,
}

impl Hqq {
    /// A quantizer to `bits` bits, one set of levels for the whole tensor.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `bits` is not in 1..=8.
    pub fn new(bits: u8) -> Result<Self> {
        let search = Search { p: 0.7, beta: 10.0, growth: 1.01, iterations: 20 };
        Ok(Self { levels: MinMax::new(bits)?, search })
    }

    /// Levels for each index along `axis`, counted from 0.
    #[must_use]
    pub fn per_channel(self, axis: usize) -> Self {
        Self { levels: self.levels.per_channel(axis), ..self }
    }

    /// Levels for each `size` neighbours along the last axis.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `size` is 0.
    pub fn per_group(self, size: usize) -> Result<Self> {
        Ok(Self { levels: self.levels.per_group(size)?, ..self })
    }

    /// Levels for each `size` neighbours along `axis`, counted from 0.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `size` is 0.
    pub fn per_block(self, axis: usize, size: usize) -> Result<Self> {
        Ok(Self { levels: self.levels.per_block(axis, size)?, ..self })
    }

    /// The `p` of the norm.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless it is above 0 and at most 1.
    pub fn with_norm(mut self, p: f64) -> Result<Self> {
        self.search.p = checked("p", p, p > 0.0 && p <= 1.0, "above 0 and at most 1")?;
        Ok(self)
    }

    /// How little of an error is forgiven at first, and how that grows from one iteration to the next.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless `beta` is above 0, `growth` at least 1 and both are finite.
    pub fn with_beta(mut self, beta: f64, growth: f64) -> Result<Self> {
        self.search.beta = checked("beta", beta, beta > 0.0 && beta.is_finite(), "above 0")?;
        self.search.growth = checked("growth", growth, growth >= 1.0 && growth.is_finite(), "at least 1")?;
        Ok(self)
    }

    /// How often the levels are moved.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for never.
    pub fn with_iterations(mut self, iterations: u32) -> Result<Self> {
        self.search.iterations = iterations;
        if iterations == 0 { Err(Error::argument("iterations", iterations, "at least 1")) } else { Ok(self) }
    }

    /// Bits of a code.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.levels.bits()
    }

    /// What shares levels.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.levels.granularity()
    }
}

levels_config! {
    Hqq(bits: u8 = |it| it.bits()) => Self::new(bits),
    p: f64 = |it| it.search.p => Self::with_norm,
    beta: f64 = |it| it.search.beta => |it, beta| it.with_beta(beta, it.search.growth),
    growth: f64 = |it| it.search.growth => |it, growth| it.with_beta(it.search.beta, growth),
    iterations: u32 = |it| it.search.iterations => Self::with_iterations,
}

fn checked(name: &'static str, value: f64, holds: bool, allowed: &'static str) -> Result<f64> {
    if holds { Ok(value) } else { Err(Error::argument(name, value, allowed)) }
}

impl<T: Element> Quantizer<T> for Hqq {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        Quantizer::<T>::layout(&self.levels, shape)
    }

    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.levels.fit(TensorRef::from(&values), q)?;
        let (layout, grid, _) = q.parts_mut();
        if let Some((min, max)) = grid.min_max_mut::<T::Real>() {
            execute(Move { search: self.search, layout, values: values.as_slice(), first: 0, min, max });
        }
        Ok(())
    }

    fn encode(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.levels.encode(values, q)
    }
}

/// Moves the levels of some groups.
struct Move<'a, T: Element> {
    search: Search,
    layout: Layout,
    values: &'a [T],
    first: usize,
    min: &'a mut [T::Real],
    max: &'a mut [T::Real],
}

impl<T: Element> Work for Move<'_, T> {
    type Output = ();

    /// Groups.
    fn len(&self) -> usize {
        self.min.len()
    }

    fn chunk(&self) -> usize {
        1
    }

    fn elements(&self) -> usize {
        // Each is looked at again and again; at the end pieces are single groups.
        let size: usize = self.layout.members(self.first, self.values.len()).map(|run| run.len()).sum();
        size.saturating_mul(self.min.len()).saturating_mul(64)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { search, layout, values, first, min, max } = self;
        let (min, min_right) = min.split_at_mut(mid);
        let (max, max_right) = max.split_at_mut(mid);
        (
            Self { search, layout, values, first, min, max },
            Self { search, layout, values, first: first + mid, min: min_right, max: max_right },
        )
    }

    fn run(self, _: Isa) {
        let Self { search, layout, values, first, min, max } = self;
        for (group, (min, max)) in (first..).zip(min.iter_mut().zip(max)) {
            let runs = layout.members(group, values.len());
            let members = runs.flat_map(|run| &values[run]).map(|x| x.to_real());
            (*min, *max) = search.moved((*min, *max), layout.bits, members);
        }
    }

    fn combine((): (), (): ()) {}
}

impl Search {
    /// The ends of the best levels found for the members of a group, from those of its range.
    fn moved<R: Real>(self, (min, max): (R, R), bits: u32, members: impl Iterator<Item = R> + Clone) -> (R, R) {
        let top = f64::from((1u32 << bits) - 1);
        let step = max.to_f64() / top - min.to_f64() / top;
        // Not where there is one value, or levels as close as numbers are.
        if !(step >= f64::MIN_POSITIVE && step.is_finite()) {
            return (min, max);
        }
        let mut best = (min, max);
        let mut least = self.loss(best, bits, step, members.clone());
        let (mut zero, mut beta) = (-min.to_f64() / step, self.beta);
        for _ in 0..self.iterations {
            // |r| - |r|^(p - 1) / beta > 0
            let forgiven = libm::pow(beta, -1.0 / (2.0 - self.p));
            let (mut sum, mut count) = (0.0, 0.0);
            for x in members.clone() {
                let u = x.to_f64() / step;
                let q = (u + zero).round_ties_even().clamp(0.0, top);
                let r = u - (q - zero);
                let size = r.abs();
                let e = if size > forgiven { (size - libm::pow(size, self.p - 1.0) / beta).max(0.0) } else { 0.0 };
                sum += q - (u - e.copysign(r));
                count += 1.0;
            }
            zero = sum / count;
            beta *= self.growth;
            let ends = (R::from_f64(-zero * step), R::from_f64((top - zero) * step));
            if !(ends.0.finite() && ends.1.finite() && ends.0 < ends.1) {
                break;
            }
            let loss = self.loss(ends, bits, step, members.clone());
            if loss < least {
                (best, least) = (ends, loss);
            }
        }
        best
    }

    /// `Σ |(x - x') / step|^p`
    fn loss<R: Real>(self, (min, max): (R, R), bits: u32, step: f64, members: impl Iterator<Item = R>) -> f64 {
        let even = Even::new(min.to_f64(), max.to_f64(), bits);
        let errors = members.map(|x| {
            let level: R = even.level(even.code(x) as u8);
            libm::pow((x.to_f64() / step - level.to_f64() / step).abs(), self.p)
        });
        errors.fold(0.0, |sum, error| sum + error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Grid, QuantizerExt};
    use proptest::prelude::*;

    fn loss(values: &[f32], q: &QTensor) -> f64 {
        q.dequantize::<f32>().iter().zip(values).map(|(y, x)| (f64::from(*x) - f64::from(*y)).abs().powf(0.7)).sum()
    }

    fn weights(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 % 1013) as f32 / 506.0 - 1.0).powi(5)).collect()
    }

    #[test]
    fn every_granularity_moves_its_own_groups() {
        let x = weights(60);
        let shape = [3, 4, 5];
        let tensor = TensorRef::new(&x, &shape).unwrap();
        let hqq = Hqq::new(2).unwrap();
        type GroupOf = fn(usize) -> usize;
        let cases: [(Hqq, GroupOf); 7] = [
            (hqq, |_| 0),
            (hqq.per_channel(0), |i| i / 20),
            (hqq.per_channel(1), |i| i / 5 % 4),
            (hqq.per_channel(2), |i| i % 5),
            (hqq.per_group(3).unwrap(), |i| i / 5 * 2 + i % 5 / 3),
            (hqq.per_block(0, 2).unwrap(), |i| i / 40 * 20 + i % 20),
            (hqq.per_block(1, 3).unwrap(), |i| (i / 20 * 2 + i / 5 % 4 / 3) * 5 + i % 5),
        ];
        for (quantizer, group) in cases {
            let q = quantizer.quantize(&tensor).unwrap();
            let Grid::MinMax { min, max } = q.grid() else { panic!() };
            for g in 0..=group(59) {
                let members: Vec<f32> = (0..60).filter(|&i| group(i) == g).map(|i| x[i]).collect();
                let alone = hqq.quantize(&members).unwrap();
                let Grid::MinMax { min: low, max: high } = alone.grid() else { panic!() };
                assert_eq!((min.get(g), max.get(g)), (low.get(0), high.get(0)), "{quantizer:?} {g}");
            }
        }
    }

    #[test]
    fn units_do_not_matter_and_the_norm_falls() {
        let x = weights(256);
        let hqq = Hqq::new(3).unwrap().per_group(64).unwrap();
        let q = hqq.quantize(&x).unwrap();
        let plain = MinMax::new(3).unwrap().per_group(64).unwrap().quantize(&x).unwrap();
        assert!(loss(&x, &q) < 0.9 * loss(&x, &plain), "{} {}", loss(&x, &q), loss(&x, &plain));
        for scale in [0.125f32, 1024.0] {
            let scaled: Vec<f32> = x.iter().map(|x| x * scale).collect();
            assert_eq!(hqq.quantize(&scaled).unwrap().codes(), q.codes());
        }
    }

    #[test]
    fn hyper_parameters_are_checked() {
        let hqq = Hqq::new(4).unwrap();
        assert!(Hqq::new(0).is_err() && Hqq::new(9).is_err() && hqq.per_group(0).is_err());
        assert!(hqq.per_block(0, 0).is_err());
        assert!(hqq.with_norm(0.0).is_err() && hqq.with_norm(1.1).is_err() && hqq.with_norm(f64::NAN).is_err());
        assert!(
            hqq.with_beta(0.0, 1.0).is_err() && hqq.with_beta(1.0, 0.9).is_err() && hqq.with_iterations(0).is_err()
        );
        assert!(hqq.with_norm(1.0).is_ok() && hqq.with_beta(1.0, 1.0).is_ok() && hqq.with_iterations(1).is_ok());
    }

    fn any() -> impl Strategy<Value = f32> {
        prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO
    }

    proptest! {
        #[test]
        fn no_input_makes_it_worse_than_min_max(
            x in prop::collection::vec(any(), 1..80),
            near in prop::collection::vec(-1.0f32..1.0, 1..80),
            bits in 1u8..=8,
        ) {
            for x in [x, near] {
                let q = Hqq::new(bits).unwrap().per_group(16).unwrap().quantize(&x).unwrap();
                let plain = MinMax::new(bits).unwrap().per_group(16).unwrap().quantize(&x).unwrap();
                prop_assert!(q.dequantize::<f32>().iter().all(|x| x.is_finite()));
                for group in 0..x.len().div_ceil(16) {
                    let part = group * 16..x.len().min(group * 16 + 16);
                    let of = |q: &QTensor| -> f64 {
                        let y = &q.dequantize::<f32>()[part.clone()];
                        let errors = y.iter().zip(&x[part.clone()]).map(|(y, x)| f64::from(*x) - f64::from(*y));
                        errors.map(|error| error.abs().powf(0.7)).sum()
                    };
                    prop_assert!(of(&q) <= of(&plain) * (1.0 + 1e-9), "{} {}", of(&q), of(&plain));
                }
            }
        }
    }
}
