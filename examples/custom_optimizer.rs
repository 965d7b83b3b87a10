//! An optimizer of one's own, outside the crate: Lion (Chen et al. 2023, arXiv:2302.06675).
//!
//! The update is written once, as a [`Rule`] over one element. Instruction sets, threads, masks, low precision and the
//! checks come from the crate.

use lapidary::{
    Element, Error, LearningRate, Mask, Optimizer, OptimizerExt, Real, Result, Rule, Schema, Step, half::bf16,
};

/// `p = p - rate * sign(beta1 * m + (1 - beta1) * g)`, then `m = beta2 * m + (1 - beta2) * g`.
#[derive(Debug, Clone, Copy)]
struct Lion {
    learning_rate: f64,
    betas: (f64, f64),
}

impl LearningRate for Lion {
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        if !(0.0..1e6).contains(&learning_rate) {
            return Err(Error::argument("learning_rate", learning_rate, "from 0 to 1e6"));
        }
        self.learning_rate = learning_rate;
        Ok(())
    }
}

impl<T: Element> Optimizer<T> for Lion {
    fn schema(&self, shape: &[usize]) -> Schema {
        Schema::new("Lion").velocity("exp_avg", shape, 0.0)
    }

    fn step(&self, step: Step<'_, T>) -> Result<()> {
        let narrow = <T::Real as Element>::from_f64;
        let (beta1, beta2) = self.betas;
        step.elementwise(["exp_avg"], |_count| LionRule {
            rate: narrow(self.learning_rate),
            fast: (narrow(beta1), narrow(1.0 - beta1)),
            slow: (narrow(beta2), narrow(1.0 - beta2)),
        })
    }
}

#[derive(Clone, Copy)]
struct LionRule<R> {
    rate: R,
    fast: (R, R),
    slow: (R, R),
}

impl<R: Real> Rule<R, 1> for LionRule<R> {
    #[inline(always)]
    fn update(&self, param: R, grad: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let direction = self.fast.0 * m + self.fast.1 * grad;
        let sign = if direction == R::zero() { R::zero() } else { direction.signum() };
        (param - self.rate * sign, [self.slow.0 * m + self.slow.1 * grad])
    }
}

fn main() -> Result<()> {
    let lion = Lion { learning_rate: 0.01, betas: (0.9, 0.99) };
    let target: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.1).sin()).collect();
    let loss = |x: &[f32]| -> f32 { x.iter().zip(&target).map(|(x, t)| (x - t).powi(2)).sum() };

    // Beside a crate's own optimizer in one list: the trait is dyn-safe.
    let all: Vec<Box<dyn Optimizer<f32>>> = vec![Box::new(lion), Box::new(lapidary::optim::Adam::new(0.01)?)];
    for optimizer in all {
        let mut x = vec![0f32; 1000];
        let mut state = optimizer.init(&x)?;
        for _ in 0..200 {
            let gradient: Vec<f32> = x.iter().zip(&target).map(|(x, t)| 2.0 * (x - t)).collect();
            optimizer.step(Step::new(&mut x, &gradient, &mut state))?;
        }
        println!("{optimizer:?}\n  loss {:.4} -> {:.6}", loss(&[0.0; 1000]), loss(&x));
        assert!(loss(&x) < 0.05 * loss(&[0.0; 1000]));
    }

    // The same rule on bf16 weights, under a mask.
    let mut x = vec![bf16::ONE; 8];
    let mask = Mask::from_fn(&[8], |i| i % 2 == 0)?;
    let mut state = lion.init(&x)?;
    lion.step(Step::new(&mut x, &[bf16::ONE; 8], &mut state).mask(&mask))?;
    println!("bf16 under a mask: {x:?}");
    Ok(())
}
