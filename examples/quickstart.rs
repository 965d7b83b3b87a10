//! A first meeting: gradient descent, 8-bit quantization and pruning of a (100, 1) array of normal numbers.

use lapidary::{
    PrunerExt, QuantizerExt, Result,
    optim::{Sgd, Stop, minimize},
    prune::Magnitude,
    quant::MinMax,
};
use ndarray::Array2;
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};

fn main() -> Result<()> {
    let mut rng = StdRng::seed_from_u64(0);
    let weights: Array2<f32> = Array2::from_shape_simple_fn((100, 1), || StandardNormal.sample(&mut rng));

    // Gradient descent on the sum of squares: theta -= 0.01 * 2 * theta, 1,000 times.
    let mut theta = weights.clone();
    let end = minimize(&Sgd::new(0.01)?, &mut theta, Stop::after(1000), |theta, gradient| {
        gradient.iter_mut().zip(theta).for_each(|(g, x)| *g = 2.0 * x);
        theta.iter().map(|x| f64::from(x * x)).sum()
    })?;
    println!("descent: {} steps, loss {:.3e}, gradient norm {:.3e}", end.iterations, end.loss, end.gradient_norm);

    // Eight bits. Codes go up to 255: as `i8` they would wrap.
    let q = MinMax::new(8)?.quantize(&weights)?;
    let error = q.error(&weights)?;
    let largest = q.codes().into_iter().max().unwrap_or_default();
    println!("8 bits: {} bytes instead of {}, codes up to {largest}", q.byte_size(), weights.len() * 4);
    println!("        largest error {:.4}, signal to noise {:.1} dB", error.max_abs, error.sqnr_db);

    // Pruning: only what is larger than 0.01 stays.
    let mut pruned = weights.clone();
    let mask = Magnitude::threshold(0.01)?.mask(&pruned)?;
    mask.apply(&mut pruned)?;
    println!("pruned at 0.01: {} of {} kept, density {:.2}", mask.kept(), mask.len(), mask.density());
    Ok(())
}
