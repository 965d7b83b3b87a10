//! Optimizer state in fewer bits.

use super::hyper::inner_learning_rate;
use crate::{
    config::config,
    element::Element,
    error::{Error, Result},
    tensor::{Precision, Schema, State, TensorMut, TensorRef},
    traits::{Optimizer, Step},
};

/// An optimizer whose state is kept in 8 or 16 bits: each block of 256 numbers is widened in the first-level cache, moved,
/// and rounded again; the whole is never expanded.
///
/// | constructor | bytes a number | how |
/// |---|---|---|
/// | [`eight_bit`](Compact::eight_bit) | 1.004 | 8-bit floating point relative to the block's largest ([`Block8`](crate::Block8)) |
/// | [`bf16`](Compact::bf16) | 2 | |
///
/// Both round stochastically: a second moment of `beta2 = 0.999` moves by a thousandth, which is less than half a step of either form,
/// so that rounding to nearest would stop it. The bits depend on the step and the index alone: results are the same on any
/// number of threads and in a resumed run.
///
/// The published scheme (Dettmers et al. 2022, arXiv:2110.02861) has blocks of 2048 (later 256) too, a table of 256 values that
/// covers seven decades, finer near the largest, and rounds to nearest (`docs/benchmarks.md` has the losses of both). The maps here
/// are small floats, which need shifts where the other needs a table and a search. What a step divides by a root has 3 mantissa
/// bits: over nine decades of the second moment (4.5 of the first) each number is within 1/8 of itself, and a second moment
/// above 0 is never rounded to 0. What is a step as it is (momentum, Lion's moment) has 4, and even steps near 0
/// ([`BlockMap`](crate::BlockMap)). What is smaller than a map reaches is 0, or for a second moment
/// its smallest value, as if the gradient had been larger. A NaN or infinity in a block's state takes the others of the block with it.
///
/// Optimizers: [`Sgd`](super::Sgd) with momentum, [`Adagrad`](super::Adagrad), [`Adam`](super::Adam), [`AdamW`](super::AdamW),
/// [`Adamax`](super::Adamax), [`Adadelta`](super::Adadelta), [`Lion`](super::Lion), [`NAdam`](super::NAdam), [`RAdam`](super::RAdam),
/// [`RmsProp`](super::RmsProp) (not centered). Others are refused by [`supports`](Optimizer::supports).
///
/// ```
/// use lapidary::{Optimizer, OptimizerExt, Step, optim::{AdamW, Compact}};
/// let adamw = Compact::eight_bit(AdamW::new(1e-3)?);
/// let mut weights = vec![1.0f32; 100_000];
/// let mut state = adamw.init(&weights)?;
/// adamw.step(Step::new(&mut weights, &vec![0.5; 100_000], &mut state))?;
/// assert!(state.byte_size() < 201_000); // where f32 takes 800,000
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compact<O> {
    optimizer: O,
    precision: Precision,
}

impl<O> Compact<O> {
    /// State in 8-bit blocks.
    pub fn eight_bit(optimizer: O) -> Self {
        Self { optimizer, precision: Precision::Eight }
    }

    /// State in `bf16`.
    pub fn bf16(optimizer: O) -> Self {
        Self { optimizer, precision: Precision::Bf16 }
    }

    /// The optimizer within.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// What the state is kept in.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

inner_learning_rate!(Compact);

config! {
    Compact<O>(optimizer: O, precision: Precision) => match precision {
        Precision::Full => Err(Error::argument("precision", "full", "bf16 or eight_bit")),
        _ => Ok(Self { optimizer, precision }),
    },
}

impl<T: Element, O: Optimizer<T>> Optimizer<T> for Compact<O> {
    fn schema(&self, shape: &[usize]) -> Schema {
        self.optimizer.schema(shape).with_precision(self.precision)
    }

    fn supports(&self, shape: &[usize]) -> Result<()> {
        let schema = self.optimizer.schema(shape);
        if !schema.compressible() {
            let found = format!("{} of {} slots", schema.algorithm(), schema.slots().count());
            return Err(Error::argument("optimizer", found, "one that has state which can be kept in fewer bits"));
        }
        self.optimizer.supports(shape)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        self.optimizer.step(step)
    }

    fn evaluate(&self, param: TensorRef<'_, T>, state: &State, out: TensorMut<'_, T>) -> Result<()> {
        self.optimizer.evaluate(param, state, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Mask, OptimizerExt, SlotValues,
        optim::{Adafactor, Adagrad, Adam, Lamb, Sgd},
    };

    #[test]
    fn state_takes_two_bytes_a_parameter_and_steps_are_near() {
        let (adam, n) = (Adam::new(0.1).unwrap(), 100_003);
        let eight = Compact::eight_bit(adam);
        let gradient: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * 1e-3).collect();
        let (mut p, mut q) = (vec![1f32; n], vec![1f32; n]);
        let (mut small, mut full) = (eight.init(&p).unwrap(), adam.init(&q).unwrap());
        for _ in 0..3 {
            eight.step(Step::new(&mut p, &gradient, &mut small)).unwrap();
            adam.step(Step::new(&mut q, &gradient, &mut full)).unwrap();
        }
        assert!(small.byte_size() as f64 <= 2.1 * n as f64, "{}", small.byte_size());
        let far = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).fold(0.0, f32::max);
        assert!(far > 0.0 && far < 0.1, "{far}"); // three steps of 0.1, each within an eighth or so
    }

    #[test]
    fn a_mask_holds_and_so_do_initial_values() {
        let eight = Compact::eight_bit(Adagrad::new(0.1).unwrap().with_initial_accumulator(0.125).unwrap());
        let mask = Mask::from_fn(&[600], |i| i % 2 == 0).unwrap();
        let mut p = vec![1f64; 600];
        let mut state = eight.init(&p).unwrap();
        eight.step(Step::new(&mut p, &[0.5; 600], &mut state).mask(&mask)).unwrap();
        assert!(p.iter().enumerate().all(|(i, p)| (*p == 0.0) == (i % 2 == 1)));
        assert_eq!(state.slots()[0].values().get(1), Some(0.125));
        assert!(matches!(state.slots()[0].values(), SlotValues::Eight(_)));
    }

    #[test]
    fn what_has_no_state_to_keep_so_is_refused() {
        let refused = |optimizer: &dyn Optimizer<f32>| optimizer.supports(&[2, 2]).is_err();
        assert!(refused(&Compact::eight_bit(Sgd::new(0.1).unwrap())));
        assert!(refused(&Compact::bf16(Adafactor::new(0.1).unwrap())));
        assert!(refused(&Compact::eight_bit(Lamb::new(0.1).unwrap())));
        let lamb = Compact::eight_bit(Lamb::new(0.1).unwrap());
        assert!(lamb.init(&[1f32; 4]).is_err());
    }
}
