//! The optimizers' trait of candle-nn.

use super::{Scalar, VarParams};
use crate::{optim::Params, traits::Optimizer};
use candle_core::{Result, Var, backprop::GradStore};

/// In a loop over any `candle_nn::Optimizer`: one line changes.
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_nn::Optimizer;
/// use lapidary::{backend::candle::VarParams, optim::AdamW};
/// let var = Var::new(&[1.0f32, -2.0], &Device::Cpu)?;
/// let mut optimizer = VarParams::<f32>::new(vec![var.clone()], Box::new(AdamW::new(0.1)?))?;
/// for _ in 0..200 {
///     optimizer.backward_step(&var.sqr()?.sum_all()?)?;
/// }
/// optimizer.set_learning_rate(0.5 * optimizer.learning_rate());
/// assert!(var.to_vec1::<f32>()?[0].abs() < 0.01);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// The parameters are named `"0"`, `"1"`, … as they are listed. `VarMap::all_vars` lists them in an order that changes from run to
/// run: for checkpoints, [`VarParams::of`]. Variables of integers are left out, as candle-nn does. The learning rate is that of the
/// first group, `NaN` without any, and is set for all of them; one that an optimizer refuses changes none, and is the error of the next
/// step.
impl<T: Scalar> candle_nn::Optimizer for VarParams<T> {
    type Config = Box<dyn Optimizer<T>>;

    fn new(vars: Vec<Var>, config: Self::Config) -> Result<Self> {
        let mut params = Self::default();
        let group = params.group(config);
        for (place, var) in vars.iter().filter(|var| var.dtype().is_float()).enumerate() {
            params.add(&place.to_string(), var, group)?;
        }
        Ok(params)
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        Ok(VarParams::step(self, grads)?)
    }

    fn learning_rate(&self) -> f64 {
        self.params().learning_rates().next().unwrap_or(f64::NAN)
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        let set = |params: &mut Params<T>| {
            let groups = params.learning_rates().count();
            params.set_learning_rates(&vec![learning_rate; groups])
        };
        self.refused = set(self.params_mut()).err();
    }
}
