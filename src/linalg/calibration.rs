//! What a layer's inputs were like: means, magnitudes and the second moment, gathered batch by batch.

use crate::{
    element::Element,
    error::{Error, Result},
    kernel::moment::{add_products, quadratic, stride},
    tensor::{
        TensorRef,
        qtensor::check_finite,
        view::{checked_volume, filled},
    },
};

/// Samples widened at a time.
const SAMPLES: usize = 64;

/// What is known of the inputs `x` of a layer `y = W x + b`, gathered from samples of them.
///
/// ```text
/// mean[j]     = Σ x[j] / n
/// mean_abs[j] = Σ |x[j]| / n
/// max_abs[j]  = max |x[j]|
/// norms[j]    = sqrt(Σ x[j]²)
/// H[i][j]     = 2 / n Σ x[i] x[j]                 the Hessian of the squared error of an output, by its weights
/// ```
///
/// All in `f64`, each sum in the order of the samples: however they are cut into batches, and on any number of threads
/// and instruction set, the bits are the same. Memory is that of `H`, `8 inputs²` bytes, and does not grow with the
/// samples.
///
/// ```
/// use lapidary::{Calibration, TensorRef};
/// let mut calibration = Calibration::new(2)?;
/// calibration.add(TensorRef::new(&[1.0f32, 2.0, 3.0, -4.0], &[2, 2])?)?;
/// assert_eq!(calibration.mean(), [2.0, -1.0]);
/// assert_eq!(calibration.max_abs(), [3.0, 4.0]);
/// assert_eq!(calibration.hessian(), Some(vec![10.0, -10.0, -10.0, 20.0]));
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    inputs: usize,
    samples: usize,
    sum: Vec<f64>,
    sum_abs: Vec<f64>,
    sum_squares: Vec<f64>,
    max_abs: Vec<f64>,
    /// `Σ x xᵀ`, the upper triangle of a whole matrix.
    products: Option<Vec<f64>>,
}

impl Calibration {
    /// Nothing known yet of so many inputs.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for no input, and when memory does not hold `inputs²` numbers.
    pub fn new(inputs: usize) -> Result<Self> {
        let products = filled(checked_volume(&[inputs, inputs])?, 0.0)?;
        Ok(Self { products: Some(products), ..Self::without_hessian(inputs)? })
    }

    /// The same without `H`: enough for [`SmoothQuant`](crate::quant::SmoothQuant),
    /// [`correct_bias`](crate::quant::correct_bias) and [`Wanda`](crate::prune::Wanda), and memory for a few numbers an
    /// input.
    ///
    /// # Errors
    /// As [`new`](Calibration::new).
    pub fn without_hessian(inputs: usize) -> Result<Self> {
        if inputs == 0 {
            return Err(Error::argument("inputs", inputs, "at least 1"));
        }
        let zeros = filled(inputs, 0.0)?;
        let [sum, sum_abs, sum_squares] = [(); 3].map(|()| zeros.clone());
        Ok(Self { inputs, samples: 0, sum, sum_abs, sum_squares, max_abs: zeros, products: None })
    }

    /// Adds a batch of samples, of shape `[.., inputs]`.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the last axis is not as long as there are inputs;
    /// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity;
    /// [`Argument`](crate::ErrorKind::Argument) when squares of `f64` would overflow. Nothing has changed then.
    pub fn add<'a, T: Element>(&mut self, batch: impl Into<TensorRef<'a, T>>) -> Result<()> {
        let batch = batch.into();
        let last = batch.shape().last().copied().unwrap_or(1);
        if last != self.inputs {
            return Err(Error::shape("inputs", &[self.inputs], &[last]));
        }
        let values = batch.as_slice();
        check_finite("inputs", values)?;
        let largest = values.iter().fold(0.0, |largest: f64, x| largest.max(x.to_f64().abs()));
        let samples = self.check_size(values.len() / self.inputs, largest)?;
        let stride = stride(self.inputs);
        let mut wide = filled(stride.saturating_mul(SAMPLES.min(values.len() / self.inputs)), 0.0)?;
        for some in values.chunks(SAMPLES * self.inputs) {
            let wide = &mut wide[..some.len() / self.inputs * stride];
            for (wide, sample) in wide.chunks_exact_mut(stride).zip(some.chunks_exact(self.inputs)) {
                wide.iter_mut().zip(sample).for_each(|(wide, x)| *wide = x.to_f64());
                let sums = self.sum.iter_mut().zip(&mut self.sum_abs).zip(&mut self.sum_squares).zip(&mut self.max_abs);
                for ((((sum, sum_abs), sum_squares), max_abs), &x) in sums.zip(&*wide) {
                    *sum += x;
                    *sum_abs += x.abs();
                    *sum_squares += x * x;
                    *max_abs = max_abs.max(x.abs());
                }
            }
            if let Some(products) = &mut self.products {
                add_products(products, self.inputs, wide);
            }
        }
        self.samples = samples;
        Ok(())
    }

    /// Adds what another, of other samples of the same inputs, has gathered. Sums of sums: near those of all samples in
    /// turn, but not the same bits.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when it is of another number of inputs;
    /// [`Argument`](crate::ErrorKind::Argument) when one has `H` and the other not, or squares would overflow.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.inputs != other.inputs {
            return Err(Error::shape("inputs", &[self.inputs], &[other.inputs]));
        }
        if self.products.is_some() != other.products.is_some() {
            return Err(Error::argument("calibration", "without a Hessian", "with one where the other has it"));
        }
        let largest = other.max_abs.iter().copied().fold(0.0, f64::max);
        self.samples = self.check_size(other.samples, largest)?;
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.sum, &other.sum);
        add(&mut self.sum_abs, &other.sum_abs);
        add(&mut self.sum_squares, &other.sum_squares);
        self.max_abs.iter_mut().zip(&other.max_abs).for_each(|(to, &from)| *to = to.max(from));
        if let (Some(to), Some(from)) = (&mut self.products, &other.products) {
            add(to, from);
        }
        Ok(())
    }

    /// The number of samples with so many more, none beyond `largest` in size: an error where a sum of squares could
    /// overflow.
    fn check_size(&self, more: usize, largest: f64) -> Result<usize> {
        let samples = self.samples.saturating_add(more);
        let largest = self.max_abs.iter().copied().fold(largest, f64::max);
        if largest * largest * samples as f64 * 2.0 < f64::INFINITY {
            return Ok(samples);
        }
        Err(Error::argument("inputs", format!("as large as {largest:e}"), "small enough for finite sums of squares"))
    }

    /// How many inputs there are.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many samples were added.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The mean of each input; 0 where there is no sample.
    #[must_use]
    pub fn mean(&self) -> Vec<f64> {
        self.over_samples(&self.sum)
    }

    /// The mean magnitude of each input; 0 where there is no sample.
    #[must_use]
    pub fn mean_abs(&self) -> Vec<f64> {
        self.over_samples(&self.sum_abs)
    }

    /// The largest magnitude of each input.
    #[must_use]
    pub fn max_abs(&self) -> &[f64] {
        &self.max_abs
    }

    /// The L2 norm of each input over all samples.
    #[must_use]
    pub fn norms(&self) -> Vec<f64> {
        self.sum_squares.iter().map(|sum| sum.sqrt()).collect()
    }

    /// `H`, row after row; `None` where it is not gathered.
    #[must_use]
    pub fn hessian(&self) -> Option<Vec<f64>> {
        let (n, scale) = (self.inputs, 2.0 / self.samples.max(1) as f64);
        let products = self.products.as_ref()?;
        let place = |i: usize| (i / n).min(i % n) * n + (i / n).max(i % n);
        Some((0..products.len()).map(|i| products[place(i)] * scale).collect())
    }

    fn over_samples(&self, sums: &[f64]) -> Vec<f64> {
        sums.iter().map(|sum| sum / self.samples.max(1) as f64).collect()
    }

    /// An error unless there is a sample, of so many inputs.
    pub(crate) fn check(&self, inputs: usize) -> Result<()> {
        if inputs != self.inputs {
            return Err(Error::shape("calibration", &[inputs], &[self.inputs]));
        }
        if self.samples == 0 { Err(Error::empty("calibration")) } else { Ok(()) }
    }

    /// `Σ x xᵀ`.
    pub(crate) fn moment(&self) -> Result<Moment<'_>> {
        match &self.products {
            Some(products) => Ok(Moment { products, inputs: self.inputs }),
            None => Err(Error::argument("calibration", "without a Hessian", "with one")),
        }
    }
}

/// The sum of `x xᵀ` over samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    products: &'a [f64],
    inputs: usize,
}

impl Moment<'_> {
    /// `Σ x[i] x[j]`
    #[cfg(feature = "linalg")]
    pub(crate) fn at(&self, i: usize, j: usize) -> f64 {
        self.products[i.min(j) * self.inputs + i.max(j)]
    }

    /// `Σ x[j]²` of each input.
    pub(crate) fn diagonal(&self) -> impl Iterator<Item = f64> + Clone + '_ {
        self.products.iter().step_by(self.inputs + 1).copied()
    }

    /// `Σ (e · x)²` of each row `e`.
    pub(crate) fn squares(&self, rows: &[f64]) -> Result<Vec<f64>> {
        let mut out = filled(rows.len() / self.inputs, 0.0)?;
        quadratic(self.products, self.inputs, rows, &mut out);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use half::f16;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_it_cannot_add_and_stays() {
        let mut c = Calibration::new(3).unwrap();
        c.add(&[1.0f32, 2.0, 3.0]).unwrap();
        let before = c.clone();
        let error = c.add(TensorRef::new(&[0.0f32, 0.0, 0.0, 1.0, f32::NAN, 0.0], &[2, 3]).unwrap()).unwrap_err();
        assert_eq!((error.kind(), error.index()), (ErrorKind::NonFinite, Some(4)));
        assert_eq!(c.add(&[1.0f32; 2]).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(c.add(&[1e160f64; 3]).unwrap_err().kind(), ErrorKind::Argument);
        assert!(c.merge(&Calibration::new(2).unwrap()).is_err());
        assert!(c.merge(&Calibration::without_hessian(3).unwrap()).is_err());
        assert_eq!(c, before);
        assert!(Calibration::new(0).is_err() && Calibration::new(usize::MAX).is_err());
        assert_eq!(Calibration::without_hessian(3).unwrap().hessian(), None);
        c.add(TensorRef::<f32>::new(&[], &[0, 3]).unwrap()).unwrap();
        assert_eq!(c, before);
    }

    #[test]
    fn sixteen_bits_are_widened_and_merged_sums_are_near() {
        let x: Vec<f32> = (0..70 * 9).map(|i| ((i * 31 % 97) as f32 - 40.0) / 8.0).collect();
        let half: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
        let (mut a, mut b) = (Calibration::new(9).unwrap(), Calibration::new(9).unwrap());
        a.add(TensorRef::new(&x, &[7, 10, 9]).unwrap()).unwrap();
        b.add(TensorRef::new(&half, &[70, 9]).unwrap()).unwrap();
        assert_eq!(a, b);
        let (mut left, mut right) = (Calibration::new(9).unwrap(), Calibration::new(9).unwrap());
        left.add(TensorRef::new(&x[..90], &[10, 9]).unwrap()).unwrap();
        right.add(TensorRef::new(&x[90..], &[60, 9]).unwrap()).unwrap();
        left.merge(&right).unwrap();
        // Eighths: all sums are exact.
        assert_eq!(left, a);
    }

    fn any() -> impl Strategy<Value = f32> {
        prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO
    }

    proptest! {
        #[test]
        fn batches_do_not_change_a_bit(
            x in prop::collection::vec(any(), 5..700),
            cut in 0usize..140,
        ) {
            let rows = x.len() / 5;
            let x = &x[..rows * 5];
            let cut = cut.min(rows) * 5;
            let mut whole = Calibration::new(5).unwrap();
            whole.add(TensorRef::new(x, &[rows, 5]).unwrap()).unwrap();
            let mut parts = Calibration::new(5).unwrap();
            parts.add(TensorRef::new(&x[..cut], &[cut / 5, 5]).unwrap()).unwrap();
            parts.add(TensorRef::new(&x[cut..], &[rows - cut / 5, 5]).unwrap()).unwrap();
            prop_assert_eq!(&whole, &parts);
            prop_assert!(whole.hessian().unwrap().iter().all(|h| h.is_finite()));
        }
    }
}
