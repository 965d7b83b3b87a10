//! Checks of hyper-parameters, and their narrowing.

use crate::{
    element::Real,
    error::{Error, Result},
};

/// A value of at least 0 that every element type's arithmetic can hold.
pub(super) fn non_negative(name: &'static str, value: f64) -> Result<f64> {
    if (0.0..=f64::from(f32::MAX)).contains(&value) {
        Ok(value)
    } else {
        Err(Error::argument(name, format!("{value:?}"), "from 0 to 3.4e38"))
    }
}

/// A decay rate: at least 0 and less than 1.
pub(super) fn decay_rate(name: &'static str, value: f64) -> Result<f64> {
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err(Error::argument(name, format!("{value:?}"), "at least 0 and less than 1"))
    }
}

/// `1 - beta^t`
pub(super) fn bias_correction(beta: f64, count: u64) -> f64 {
    1.0 - libm::pow(beta, count as f64)
}

/// A scalar of a step, formed in `f64` and narrowed once.
pub(super) fn narrow<R: Real>(value: f64) -> R {
    R::from_f64(value)
}

/// `-1` where a gradient is to be followed upwards, else `1`: multiplying by it is exact.
pub(super) fn sign<R: Real>(maximize: bool) -> R {
    if maximize { -R::one() } else { R::one() }
}

/// Getter and setter of the field `learning_rate`.
macro_rules! learning_rate {
    ($optimizer:ty) => {
        impl crate::LearningRate for $optimizer {
            fn learning_rate(&self) -> f64 {
                self.learning_rate
            }

            fn set_learning_rate(&mut self, learning_rate: f64) -> crate::Result<()> {
                self.learning_rate = crate::optim::hyper::non_negative("learning_rate", learning_rate)?;
                Ok(())
            }
        }
    };
}
pub(super) use learning_rate;

/// Getters of hyper-parameters: the name and type of each, the field it is in, and its doc.
macro_rules! getters {
    ($($name:ident: $type:ty = $($field:ident).+, $doc:literal;)*) => {$(
        #[doc = $doc]
        #[must_use]
        pub fn $name(&self) -> $type {
            self.$($field).+
        }
    )*};
}
pub(super) use getters;
