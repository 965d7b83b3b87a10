//! Checks of hyper-parameters, and the methods that set and tell them.

use super::Convention;
use crate::error::{Error, Result};

/// A value of at least 0 that every element type's arithmetic can hold.
pub(super) fn non_negative(name: &'static str, value: f64) -> Result<f64> {
    if (0.0..=f64::from(f32::MAX)).contains(&value) {
        // A zero has no sign.
        Ok(value + 0.0)
    } else {
        Err(Error::argument(name, format!("{value:?}"), "from 0 to 3.4e38"))
    }
}

/// A value above 0 that every element type's arithmetic can hold.
pub(super) fn positive(name: &'static str, value: f64) -> Result<f64> {
    if non_negative(name, value)? > 0.0 { Ok(value) } else { Err(Error::argument(name, value, "above 0")) }
}

/// A decay rate: at least 0 and less than 1.
pub(super) fn decay_rate(name: &'static str, value: f64) -> Result<f64> {
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err(Error::argument(name, format!("{value:?}"), "at least 0 and less than 1"))
    }
}

/// A count that was kept as a number.
pub(super) fn count(name: &'static str, value: f64) -> Result<u64> {
    match value as u64 {
        count if count as f64 == value && count <= 1 << 53 => Ok(count),
        _ => Err(Error::argument(name, format!("{value:?}"), "a count")),
    }
}

/// The error of an optimizer that does not know a convention.
pub(super) fn unsupported(convention: Convention, known: &'static str) -> Error {
    Error::argument("convention", format!("{convention:?}"), known)
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

/// Passes on to the field `optimizer` what is asked of the learning rate.
macro_rules! inner_learning_rate {
    ($wrapper:ident) => {
        impl<O: crate::LearningRate> crate::LearningRate for $wrapper<O> {
            fn learning_rate(&self) -> f64 {
                self.optimizer.learning_rate()
            }

            fn set_learning_rate(&mut self, learning_rate: f64) -> crate::Result<()> {
                self.optimizer.set_learning_rate(learning_rate)
            }
        }
    };
}
pub(super) use inner_learning_rate;

/// Numbers: for each the method that sets it, its field, its check, and what it is (a phrase that follows "Sets").
macro_rules! numbers {
    ($($with:ident, $name:ident: $check:ident, $what:literal;)*) => {$(
        #[doc = concat!("Sets ", $what, ".")]
        ///
        /// # Errors
        /// [`Argument`](crate::ErrorKind::Argument) when it is outside the range in the table.
        pub fn $with(mut self, $name: f64) -> crate::Result<Self> {
            self.$name = crate::optim::hyper::$check(stringify!($name), $name)?;
            Ok(self)
        }

        #[doc = concat!("Returns ", $what, ".")]
        #[must_use]
        pub fn $name(&self) -> f64 {
            self.$name
        }
    )*};
}
pub(super) use numbers;

/// Switches: for each the method that turns it on, its field, and what it does (a phrase).
macro_rules! switches {
    ($($with:ident, $name:ident, $what:literal;)*) => {$(
        #[doc = concat!("Turns on that it ", $what, ".")]
        #[must_use]
        pub fn $with(mut self) -> Self {
            self.$name = true;
            self
        }

        #[doc = concat!("Whether it ", $what, ".")]
        #[must_use]
        pub fn $name(&self) -> bool {
            self.$name
        }
    )*};
}
pub(super) use switches;

/// The decay rates of two moments, in the field `betas`.
macro_rules! betas {
    () => {
        /// Sets the decay rates of the two moments.
        ///
        /// # Errors
        /// [`Argument`](crate::ErrorKind::Argument) when one is not in `0 <= beta < 1`.
        pub fn with_betas(mut self, beta1: f64, beta2: f64) -> crate::Result<Self> {
            let check = crate::optim::hyper::decay_rate;
            self.betas = (check("beta1", beta1)?, check("beta2", beta2)?);
            Ok(self)
        }

        /// Returns the decay rates of the two moments.
        #[must_use]
        pub fn betas(&self) -> (f64, f64) {
            self.betas
        }
    };
}
pub(super) use betas;
