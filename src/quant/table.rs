//! The table quantizer: levels that somebody listed, times a scale.

use super::{
    affine::fit_scales,
    certificate::{Certificate, Certify, certify_listed},
    spec::{Spec, encode_checked, granularity, levels_config},
    symmetric::Magnitude,
};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::nearest,
    tensor::{Granularity, Grid, QTensor, TensorRef, Values, qtensor::check_finite, view::filled},
    traits::Quantizer,
};

/// The levels of 4-bit NormalFloat: quantiles of the normal distribution between -1 and 1, 0 among them. As published in
/// appendix E of the paper and in bitsandbytes.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Quantizes to the nearest of listed levels, the same for all groups but for a scale.
///
/// ```text
/// scale = max |x| / max |level|                    in f64, narrowed once; at least the smallest normal number
/// q  = the index of the level nearest to x / scale
/// x' = level[q] * scale                            in f64, narrowed once, at most the largest number
/// ```
///
/// The division is one in the arithmetic of the values. It is compared, exactly, with the middle `a / 2 + b / 2` of two levels,
/// formed in `f64`; a tie goes to the level with the even index. So no level is nearer to `x` than `x'` by more than
/// 1 ulp(max |x|) (2 ulp in `f64`). Codes are indices of the list. Where it has not `2^b` levels, the last stands for the codes
/// beyond it too, which do not occur.
///
/// [`Table::nf4`] is NF4 of QLoRA (Dettmers et al. 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314), appendix E): the levels
/// are quantiles of the normal distribution, in groups of 64. Codes are those of bitsandbytes, which packs the first of
/// two into the high nibble; here it is the low one.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `levels` | – | 2 to 256, finite, ascending | what codes stand for, where the scale is 1 |
/// | granularity | the tensor; [`nf4`](Table::nf4): groups of 64 | [`per_channel`](Table::per_channel), [`per_group`](Table::per_group), [`per_block`](Table::per_block) | what shares a scale |
///
/// A scale is kept in `f32` (`f64` for `f64` tensors).
///
/// ```
/// use lapidary::{QuantizerExt, quant::Table};
/// let weights = vec![-2.0f32, 0.1, 1.2, 0.0];
/// let ternary = Table::new(&[-1.0, 0.0, 1.0])?;
/// let q = ternary.quantize(&weights)?;
/// assert_eq!((q.bits(), q.codes()), (2, vec![0, 1, 2, 1]));
/// assert_eq!(q.dequantize::<f32>(), [-2.0, 0.0, 2.0, 0.0]);
/// assert_eq!(Table::nf4().quantize(&weights)?.codes(), [0, 8, 13, 7]);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    levels: Vec<f32>,
    spec: Spec,
}

impl Table {
    /// A quantizer to these levels, one scale for the whole tensor; codes have as few bits as number them.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when there are less than 2 levels or more than 256, or one is not above the one before it;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) when one is not finite.
    pub fn new(levels: &[f32]) -> Result<Self> {
        check_finite("levels", levels)?;
        if !(2..=256).contains(&levels.len()) {
            return Err(Error::argument("number of levels", levels.len(), "2 to 256"));
        }
        if let Some(i) = (1..levels.len()).find(|&i| levels[i] <= levels[i - 1]) {
            return Err(Error::argument("level", format!("{:?} at index {i}", levels[i]), "above the one before it"));
        }
        let bits = levels.len().next_power_of_two().trailing_zeros() as u8;
        Ok(Self { levels: levels.into(), spec: Spec { bits, granularity: Granularity::Tensor } })
    }

    /// 4-bit NormalFloat, in groups of 64 along the last axis.
    #[must_use]
    pub fn nf4() -> Self {
        let granularity = Granularity::Group { size: 64 };
        Self { levels: NF4.into(), spec: Spec { bits: 4, granularity } }
    }

    /// The levels, where the scale is 1.
    #[must_use]
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    granularity!();

    fn check<T: Element>(&self, shape: &[usize], q: &QTensor) -> Result<()> {
        let fits = match q.grid() {
            Grid::Scaled { levels, scale } => scale.as_slice::<T::Real>().is_some() && self.lists(levels),
            _ => false,
        };
        self.spec.check::<T>(shape, q, fits, "scales of its levels")
    }

    /// The largest magnitude of the levels.
    fn largest(&self) -> f32 {
        self.levels.iter().fold(0f32, |largest, level| largest.max(level.abs()))
    }

    /// Whether these are its levels, and the last one for the codes that do not occur.
    fn lists(&self, levels: &Values) -> bool {
        let own = self.levels.iter().chain(self.levels.last().into_iter().cycle());
        levels.as_slice::<f32>().is_some_and(|levels| levels.iter().zip(own).all(|(a, b)| a == b))
    }

    /// Sets the codes of finite values.
    fn encode_finite<T: Element>(&self, values: &[T], q: &mut QTensor) {
        let (layout, grid, packed) = q.parts_mut();
        if let Grid::Scaled { scale, .. } = grid {
            nearest::encode(layout, values, &self.levels, scale.numbers(), packed);
        }
    }
}

levels_config! {
    Table(levels: Vec<f32>) => Self::new(&levels),
}

impl<T: Element> Quantizer<T> for Table {
    fn layout(&self, shape: &[usize]) -> Result<QTensor> {
        QTensor::laid_out(shape, self.bits(), self.granularity(), |groups| {
            let mut levels = filled(1 << self.bits(), self.levels.last().copied().unwrap_or(0.0))?;
            levels.iter_mut().zip(&self.levels).for_each(|(level, own)| *level = *own);
            Ok(Grid::Scaled { levels: Values::F32(levels), scale: Values::filled::<T::Real>(groups, 1.0)?.into() })
        })
    }

    fn fit(&self, values: TensorRef<'_, T>, q: &mut QTensor) -> Result<()> {
        self.check::<T>(values.shape(), q)?;
        fit_scales(values.as_slice(), q, Magnitude { steps: self.largest().into() })
    }

    encode_checked!();
}

impl<T: Element> Certify<T> for Table {
    fn certificate(&self, q: &QTensor) -> Result<Certificate> {
        self.check::<T>(q.shape(), q)?;
        Ok(certify_listed::<T>(q, &self.levels, self.largest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, QuantizerExt};

    /// The number below which lies the fraction `p` of a normal distribution, by halving.
    fn quantile(p: f64) -> f64 {
        let (mut low, mut high) = (-10.0, 10.0);
        for _ in 0..100 {
            let x = (low + high) / 2.0;
            if libm::erfc(-x / 2f64.sqrt()) / 2.0 < p { low = x } else { high = x }
        }
        low
    }

    #[test]
    fn nf4_is_the_quantiles_it_is_defined_by() {
        // 8 negative levels, 0, and 7 positive ones, evenly spaced in probability up to the fraction `most`.
        let most = 0.967_708_3;
        let steps = |n: usize| (0..n).map(move |i| quantile(most + (0.5 - most) * i as f64 / n as f64));
        let largest = quantile(most);
        let negative = steps(7).map(|x| -x / largest);
        let positive = steps(8).map(|x| x / largest).collect::<Vec<_>>().into_iter().rev();
        let want: Vec<f64> = negative.chain([0.0]).chain(positive).collect();
        assert_eq!(want.len(), 16);
        for (got, want) in NF4.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} for {want}");
        }
        assert_eq!(Table::new(&NF4).unwrap().per_group(64).unwrap(), Table::nf4());
    }

    #[test]
    fn each_group_has_its_own_scale() {
        let x: Vec<f32> = (0..128).map(|i| NF4[i % 16] * if i < 64 { 3.0 } else { 1e-30 }).collect();
        let q = Table::nf4().quantize(&x).unwrap();
        assert!(q.codes().iter().enumerate().all(|(i, &code)| usize::from(code) == i % 16));
        assert_eq!(q.dequantize::<f32>(), x);
        assert_eq!(q.byte_size(), 64 + 16 * 4 + 2 * 4);
        let zeros = Table::nf4().quantize(&[0f32; 3]).unwrap();
        assert_eq!((zeros.codes(), zeros.dequantize::<f32>()), (vec![7; 3], vec![0.0; 3]));
    }

    #[test]
    fn given_scales_are_kept() {
        let table = Table::new(&[-2.0, 1.0, 3.0, 7.0, 9.0]).unwrap();
        let mut q = table.quantize(&[9.0f64; 4]).unwrap();
        let Grid::Scaled { levels, .. } = q.grid().clone() else { panic!() };
        q.set_grid(Grid::Scaled { levels, scale: Values::F64(vec![10.0]).into() }).unwrap();
        // The middles are -5, 20, 50 and 80; codes beyond 4 do not occur.
        table.encode((&[-5.0f64, 20.0, 50.0, 1e300]).into(), &mut q).unwrap();
        assert_eq!((q.bits(), q.codes()), (3, vec![0, 2, 2, 4]));
        assert_eq!(q.dequantize::<f64>(), [-20.0, 30.0, 30.0, 90.0]);
    }

    #[test]
    fn what_cannot_be_quantized_is_refused_and_nothing_moves() {
        let table = Table::new(&[-1e-30, 0.0, 1e-30]).unwrap();
        let mut q = table.quantize(&[1.0f32, 2.0]).unwrap();
        let before = q.clone();
        // The scale would be 1e60.
        assert_eq!(table.quantize_into((&[1e30f32, 0.0]).into(), &mut q).unwrap_err().kind(), ErrorKind::Argument);
        let error = table.quantize_into((&[1.0, f32::NAN]).into(), &mut q).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(1)));
        assert!(table.encode((&[1.0f64, 2.0]).into(), &mut q).is_err());
        assert!(Table::new(&[-1.0, 0.0, 1.0]).unwrap().encode((&[1.0f32, 2.0]).into(), &mut q).is_err());
        assert_eq!(q, before);
        assert!(Table::new(&[1.0]).is_err() && Table::new(&[0.0, 0.0]).is_err() && Table::new(&[0.0, -1.0]).is_err());
        let levels: Vec<f32> = (0..257).map(|i| i as f32).collect();
        assert!(Table::new(&levels).is_err() && Table::new(&levels[..256]).is_ok());
        assert_eq!(Table::new(&[0.0, f32::INFINITY]).unwrap_err().kind(), ErrorKind::NonFinite);
    }

    #[test]
    fn codes_beyond_the_list_are_certified_as_its_last_level() {
        let table = Table::new(&[-1.0, 0.0, 1.0]).unwrap();
        let grid =
            Grid::Scaled { levels: Values::F32(vec![-1.0, 0.0, 1.0, 1.0]), scale: Values::F32(vec![2.0]).into() };
        let q = QTensor::from_codes(&[1], 2, Granularity::Tensor, grid, &[3u8]).unwrap();
        let certificate = Certify::<f32>::certificate(&table, &q).unwrap();
        assert!((certificate.max_abs() - 1.0).abs() < 1e-6, "{certificate:?}");
    }
}
