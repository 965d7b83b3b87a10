//! Bias correction.

use crate::{
    element::Element,
    error::{Error, Result},
    linalg::Calibration,
    tensor::{TensorMut, TensorRef, qtensor::check_finite, view::filled},
};

/// Corrects a bias for weights that were replaced (Nagel et al. 2019, arXiv:1906.04721, section 4.2), so that the
/// outputs keep their means over the samples of a calibration:
///
/// ```text
/// b = b - (Q - W) E[x]                                    in f64, inputs in their order, narrowed once
/// ```
///
/// `weight` and `replaced` (decoded: [`QTensor::dequantize`](crate::QTensor::dequantize)) are of shape
/// `[outputs, inputs]`; a layer without a bias gets one, from zeros. A calibration
/// [without `H`](Calibration::without_hessian) is enough.
///
/// ```
/// use lapidary::{Calibration, TensorRef, quant::correct_bias};
/// let mut calibration = Calibration::without_hessian(2)?;
/// calibration.add(TensorRef::new(&[1.0f32, 0.0, 3.0, 2.0], &[2, 2])?)?;
/// let (weight, replaced) = ([0.7f32, 0.3], [0.5f32, 0.5]);
/// let mut bias = [1.0f32];
/// correct_bias(&mut bias, TensorRef::new(&weight, &[1, 2])?, TensorRef::new(&replaced, &[1, 2])?, &calibration)?;
/// assert_eq!(bias, [1.2]); // 0.2 too low for a mean input of 2, 0.2 too high for one of 1
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// [`Shape`](crate::ErrorKind::Shape) when shapes do not fit together; [`Argument`](crate::ErrorKind::Argument) unless
/// the weights have two axes; [`Empty`](crate::ErrorKind::Empty) where no sample was added;
/// [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an infinity, also in what the bias would become. It is then
/// as it was.
pub fn correct_bias<'a, 'b, 'c, T: Element>(
    bias: impl Into<TensorMut<'a, T>>,
    weight: impl Into<TensorRef<'b, T>>,
    replaced: impl Into<TensorRef<'c, T>>,
    calibration: &Calibration,
) -> Result<()> {
    let (mut bias, weight, replaced) = (bias.into(), weight.into(), replaced.into());
    let [outputs, inputs] = *weight.shape() else {
        return Err(Error::argument("weights", format!("of shape {:?}", weight.shape()), "of two axes"));
    };
    if weight.shape() != replaced.shape() {
        return Err(Error::shape("replaced weights", weight.shape(), replaced.shape()));
    }
    if bias.shape() != [outputs] {
        return Err(Error::shape("bias", &[outputs], bias.shape()));
    }
    calibration.check(inputs)?;
    check_finite("weights", weight.as_slice())?;
    check_finite("replaced weights", replaced.as_slice())?;
    let mean = calibration.mean();
    let mut corrected = filled(outputs, T::default())?;
    let rows = weight.as_slice().chunks_exact(inputs).zip(replaced.as_slice().chunks_exact(inputs));
    for ((corrected, b), (weight, replaced)) in corrected.iter_mut().zip(bias.as_slice()).zip(rows) {
        let terms = weight.iter().zip(replaced).zip(&mean);
        let moved = terms.fold(0.0, |sum, ((w, q), x)| sum + (q.to_f64() - w.to_f64()) * x);
        *corrected = T::from_f64(b.to_f64() - moved);
    }
    check_finite("corrected bias", &corrected)?;
    bias.as_mut_slice().copy_from_slice(&corrected);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_output_stays() {
        let x: Vec<f64> = (0..40).map(|i| f64::from(i * 13 % 29) - 7.0).collect();
        let mut calibration = Calibration::without_hessian(4).unwrap();
        calibration.add(TensorRef::new(&x, &[10, 4]).unwrap()).unwrap();
        let w: Vec<f64> = (0..12).map(|i| f64::from(i * 5 % 11) * 0.37 - 1.0).collect();
        let q: Vec<f64> = w.iter().map(|w| w.round()).collect();
        let mut bias = vec![0.5, -1.0, 2.0];
        let mean = |w: &[f64], b: &[f64], row: usize| -> f64 {
            x.chunks_exact(4).map(|x| b[row] + (0..4).map(|j| w[row * 4 + j] * x[j]).sum::<f64>()).sum::<f64>() / 10.0
        };
        let want: Vec<f64> = (0..3).map(|row| mean(&w, &bias, row)).collect();
        let shape = [3, 4];
        let (weight, replaced) = (TensorRef::new(&w, &shape).unwrap(), TensorRef::new(&q, &shape).unwrap());
        correct_bias(&mut bias, &weight, &replaced, &calibration).unwrap();
        for (row, want) in want.iter().enumerate() {
            assert!((mean(&q, &bias, row) - want).abs() < 1e-12);
        }
        let before = bias.clone();
        assert!(correct_bias(&mut bias[..2], &weight, &replaced, &calibration).is_err());
        let empty = Calibration::without_hessian(4).unwrap();
        assert!(correct_bias(&mut bias, &weight, &replaced, &empty).is_err());
        bias[1] = f64::INFINITY;
        assert!(correct_bias(&mut bias, &weight, &replaced, &calibration).is_err());
        assert_eq!((bias[0], bias[2]), (before[0], before[2]));
    }
}
