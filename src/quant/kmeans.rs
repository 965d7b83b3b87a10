//! The k-means quantizer: the levels that leave the least squared error.

use super::{
    cluster,
    spec::{Spec, encode_checked, granularity, levels_config},
};
use crate::{
    element::Element,
    error::Result,
    kernel::{
        isa::Isa,
        nearest,
        parallel::{GRAIN, Work, execute},
        rows::Layout,
    },
    tensor::{Grid, QTensor, TensorRef, Values, qtensor::check_finite, view::filled},
    traits::Quantizer,
};
use num_traits::Zero;
use std::cmp::Ordering;

/// Quantizes to shared weights, a codebook of `2^b` numbers, chosen so that the squared error is least: k-means, as in Deep Compression
/// (Han, Mao & Dally 2016, [arXiv:1510.00149](https://arxiv.org/abs/1510.00149)).
///
/// ```text
/// levels = argmin  sum over x of  min over q of  (x - level[q])^2
/// q  = the index of the level nearest to x
/// x' = level[q]
/// ```
///
/// The minimum is the exact one (rounding to the type of the levels aside) for a group of up to 65,536 different numbers, and
/// up to `2^20 / 2^b`: 4,096 at 8 bits. It is found by dynamic programming over the sorted numbers (Wang & Song 2011,
/// Ckmeans.1d.dp), so there is no start to choose. A group of more is first cut into as many bins, by count and by width: the
/// exact minimum over whole bins is where Lloyd's iteration over the numbers themselves begins, which goes on until the error falls no more (at most
/// 1,000 rounds). Either way the error is never more than that of even steps between minimum and maximum,
/// [`MinMax`](super::MinMax), in sums of `f64`. A group of no more different numbers than levels is exact; the last level is then repeated.
///
/// Values are compared with the middle `a / 2 + b / 2` of two levels, in `f64`; a tie goes to the even index. Levels ascend. They are
/// kept in `f32` (`f64` for `f64` tensors): a codebook costs `4 * 2^b` bytes, so groups want to be large.
///
/// There is no [certificate](super::Certify). Between two levels a number is at most half their distance off, but the outer levels are means
/// and not ends: of `n` numbers that share one, `n - 1` may lie on one side of it and the last `n - 1` times as far on the other, and with
/// `zero` an outer level is none of what has its code. What is stored are the levels and the codes, which are the same for many tensors with
/// such a number, near and far. [`QTensor::error`] measures.
///
/// [`fit`](Quantizer::fit) sorts a copy of each group, and **allocates**; [`encode`](Quantizer::encode) does not.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `bits` | – | 1 to 8 | bits of a code |
/// | `zero` | off | | 0 is one of the levels, for pruned weights: the others are fitted to the numbers that are not 0, not always to the minimum |
/// | granularity | the tensor | [`per_channel`](KMeans::per_channel), [`per_group`](KMeans::per_group), [`per_block`](KMeans::per_block) | what shares a codebook |
///
/// ```
/// use lapidary::{QuantizerExt, quant::KMeans};
/// let weights = vec![-1.0f32, -1.1, 0.0, 0.5, 0.4, 3.0];
/// let q = KMeans::new(2)?.quantize(&weights)?;
/// assert_eq!(q.codes(), [0, 0, 1, 2, 2, 3]);
/// assert_eq!(q.dequantize::<f32>(), [-1.05, -1.05, 0.0, 0.45, 0.45, 3.0]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KMeans {
    spec: Spec,
    zero: bool,
}

impl KMeans {
    /// A quantizer to `bits` bits, one codebook for the whole tensor.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `bits` is not in 1..=8.
    pub fn new(bits: u8) -> Result<Self> {
        Ok(Self { spec: Spec::new(bits, matches!(bits, 1..=8), "1 to 8")?, zero: false })
    }

    /// Makes 0 one of the levels, so that pruned weights stay 0.
    #[must_use]
    pub fn with_zero(self) -> Self {
        Self { zero: true, ..self }
    }

    granularity!();

    fn encode_finite<T: Element>(&self, values: &[T], q: &mut QTensor) {
        let (layout, grid, packed) = q.parts_mut();
        if let Grid::Codebook { levels } = grid
            && let Some(levels) = levels.as_slice::<T::Real>()
        {
            nearest::encode_codebooks(layout, values, levels, packed);
        }
    }

    fn check<T: Element>(&self, shape: &[usize], q: &QTensor) -> Result<()> {
        let ascend = |levels: &[T::Real]| levels.chunks_exact(1 << self.bits()).all(<[_]>::is_sorted);
        let fits = match q.grid() {
            Grid::Codebook { levels } => levels.as_slice::<T::Real>().is_some_and(ascend),
            _ => false,
        };
        self.spec.check::<T>(shape, q, fits, "codebooks that ascend")
    }
}

levels_config! {
    KMeans(bits: u8 = |it| it.bits()) => Self::new(bits),
    zero: bool => |it, _| it.with_zero(),
}

impl<T: Element> Quantizer<T> for KMeans {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        QTensor::laid_out(shape, self.bits(), self.granularity(), |groups| {
            Ok(Grid::Codebook { levels: Values::filled::<T::Real>(groups.saturating_mul(1 << self.bits()), 0.0)? })
        })
    }

    /// Fits the codebooks. Allocates.
    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.check::<T>(values.shape(), q)?;
        let values = values.as_slice();
        check_finite("tensor", values)?;
        let (layout, grid, _) = q.parts_mut();
        let Grid::Codebook { levels } = grid else { return Ok(()) };
        let Some(levels) = levels.as_mut_slice::<T::Real>() else { return Ok(()) };
        let mut fitted = filled(levels.len(), T::Real::zero())?;
        let total = levels.len() >> layout.bits;
        execute(Fit { layout, values, zero: self.zero, first: 0, total, levels: &mut fitted })?;
        levels.copy_from_slice(&fitted);
        Ok(())
    }

    encode_checked!();
}

/// The codebooks of some groups.
struct Fit<'a, T: Element> {
    layout: Layout,
    values: &'a [T],
    zero: bool,
    first: usize,
    /// Groups of the tensor.
    total: usize,
    levels: &'a mut [T::Real],
}

impl<T: Element> Work for Fit<'_, T> {
    type Output = Result<()>;

    fn len(&self) -> usize {
        self.levels.len() >> self.layout.bits
    }

    fn chunk(&self) -> usize {
        // A number costs far more here than where it is only read.
        (GRAIN / 16 / self.size()).max(1)
    }

    fn elements(&self) -> usize {
        // A group is not cut: one of them alone is no work for two.
        self.size() * self.len().saturating_mul(16)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { layout, values, zero, first, total, levels } = self;
        let (levels, right) = levels.split_at_mut(mid << layout.bits);
        (
            Self { layout, values, zero, first, total, levels },
            Self { layout, values, zero, first: first + mid, total, levels: right },
        )
    }

    fn run(self, _: Isa) -> Result<()> {
        let mut sorted: Vec<T::Real> = Vec::new();
        for (i, levels) in self.levels.chunks_exact_mut(1 << self.layout.bits).enumerate() {
            let members = self.layout.members(self.first + i, self.values.len());
            let numbers = || members.clone().flat_map(|run| &self.values[run]).map(|x| x.to_real());
            let kept = |x: &T::Real| !(self.zero && x.is_zero());
            let count = numbers().filter(kept).count();
            if sorted.len() < count {
                sorted = filled(count, T::Real::zero())?;
            }
            let sorted = &mut sorted[..count];
            sorted.iter_mut().zip(numbers().filter(kept)).for_each(|(place, x)| *place = x);
            sorted.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
            cluster::levels(sorted, self.zero, levels)?;
        }
        Ok(())
    }

    fn combine(left: Result<()>, right: Result<()>) -> Result<()> {
        left.and(right)
    }
}

impl<T: Element> Fit<'_, T> {
    /// Elements of a group, about.
    fn size(&self) -> usize {
        (self.values.len() / self.total.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, QuantizerExt, quant::MinMax};

    #[test]
    fn each_granularity_has_codebooks_of_its_own() {
        let shape = [3, 4, 5];
        let x: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 61) * 0.1 - 1.0).collect();
        let tensor = TensorRef::new(&x, &shape).unwrap();
        type GroupOf = fn(usize) -> usize;
        let kmeans = KMeans::new(2).unwrap();
        let cases: [(KMeans, GroupOf); 6] = [
            (kmeans, |_| 0),
            (kmeans.per_channel(0), |i| i / 20),
            (kmeans.per_channel(1), |i| i / 5 % 4),
            (kmeans.per_channel(2), |i| i % 5),
            (kmeans.per_group(3).unwrap(), |i| i / 5 * 2 + i % 5 / 3),
            (kmeans.per_block(1, 3).unwrap(), |i| (i / 20 * 2 + i / 5 % 4 / 3) * 5 + i % 5),
        ];
        for (kmeans, group) in cases {
            let q = kmeans.quantize(&tensor).unwrap();
            let Grid::Codebook { levels } = q.grid() else { panic!() };
            let groups = (0..60).map(group).max().unwrap() + 1;
            assert_eq!(levels.len(), groups * 4);
            let codes = q.codes();
            for g in 0..groups {
                let members: Vec<usize> = (0..60).filter(|&i| group(i) == g).collect();
                let alone: Vec<f64> = members.iter().map(|&i| x[i]).collect();
                let alone = KMeans::new(2).unwrap().quantize(&alone).unwrap();
                let Grid::Codebook { levels: want } = alone.grid() else { panic!() };
                assert!((0..4).all(|i| levels.get(g * 4 + i) == want.get(i)), "{kmeans:?} {g}");
                assert!(members.iter().map(|&i| codes[i]).eq(alone.codes()));
            }
        }
    }

    #[test]
    fn zero_stays_where_it_is_asked_for() {
        let x: Vec<f32> = (0..1000).map(|i| if i % 3 == 0 { 0.0 } else { (i as f32).sin() + 0.3 }).collect();
        let q = KMeans::new(3).unwrap().with_zero().quantize(&x).unwrap();
        let back: Vec<f32> = q.dequantize();
        assert!(x.iter().zip(&back).all(|(x, y)| *x != 0.0 || y.to_bits() == 0));
        assert!(q.error(&x).unwrap().mse < MinMax::new(3).unwrap().quantize(&x).unwrap().error(&x).unwrap().mse);
        let q = KMeans::new(1).unwrap().with_zero().quantize(&[-0.0f32, 0.0]).unwrap();
        assert_eq!(q.dequantize::<f32>(), [0.0, 0.0]);
    }

    #[test]
    fn what_cannot_be_quantized_is_refused_and_nothing_moves() {
        let kmeans = KMeans::new(1).unwrap();
        let mut q = kmeans.quantize(&[-3e38f32, 3e38]).unwrap();
        assert_eq!(q.dequantize::<f32>(), [-3e38, 3e38]);
        let before = q.clone();
        let error = kmeans.quantize_into((&[1.0, f32::NAN]).into(), &mut q).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        assert!(kmeans.encode((&[f32::INFINITY, 0.0]).into(), &mut q).is_err());
        assert!(kmeans.encode((&[1.0f64; 2]).into(), &mut q).is_err());
        assert!(KMeans::new(2).unwrap().encode((&[1.0f32; 2]).into(), &mut q).is_err());
        assert_eq!(q, before);
        q.set_grid(Grid::Codebook { levels: Values::F32(vec![2.0, 1.0]) }).unwrap();
        assert_eq!(kmeans.encode((&[1.0f32; 2]).into(), &mut q).unwrap_err().kind(), ErrorKind::Argument);
        assert!(KMeans::new(0).is_err() && KMeans::new(9).is_err());
    }
}
