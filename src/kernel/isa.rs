//! Which instruction set runs a kernel: found at run time, and it can be forced to a lesser one.

#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected;
use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that this processor has: holding one is the proof.
///
/// A kernel's text is compiled once for each set; the results are the same bits. The best set
/// found is used unless a lesser one is forced, by [`Isa::force`] or by the environment variable
/// `LAPIDARY_ISA` (`baseline`, `avx2` or `avx512`, read once; a name that is unknown or not available here
/// is ignored in favour of the best).
///
/// ```
/// use lapidary::Isa;
/// for isa in Isa::available() {
///     isa.force(); // every kernel from here on, in the whole process
///     assert_eq!(Isa::current(), isa);
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
enum Level {
    Baseline = 1,
    #[cfg(target_arch = "x86_64")]
    Avx2 = 2,
    #[cfg(target_arch = "x86_64")]
    Avx512 = 3,
}

/// 0: not chosen yet; else the number of a [`Level`] that was found to exist.
static CURRENT: AtomicU8 = AtomicU8::new(0);

impl Isa {
    /// What the crate was compiled for (SSE2 on x86-64): there on every processor.
    pub const BASELINE: Self = Self(Level::Baseline);

    /// AVX2 (with BMI1, BMI2 and POPCNT, which came with it), where the processor has it.
    #[must_use]
    pub fn avx2() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
        {
            return Some(Self(Level::Avx2));
        }
        None
    }

    /// AVX-512 (F, BW, CD, DQ and VL: what all but the first processors with it have), where the processor has it.
    #[must_use]
    pub fn avx512() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if Self::avx2().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            return Some(Self(Level::Avx512));
        }
        None
    }

    /// All that this processor has, the best last.
    pub fn available() -> impl Iterator<Item = Self> {
        [Some(Self::BASELINE), Self::avx2(), Self::avx512()].into_iter().flatten()
    }

    /// The one in use.
    #[must_use]
    pub fn current() -> Self {
        match CURRENT.load(Ordering::Relaxed) {
            1 => Self::BASELINE,
            #[cfg(target_arch = "x86_64")]
            2 => Self(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            3 => Self(Level::Avx512),
            _ => {
                let wanted = std::env::var("LAPIDARY_ISA").ok();
                let best = Self::available().last().unwrap_or(Self::BASELINE);
                let chosen = Self::available().find(|isa| wanted.as_deref() == Some(isa.name())).unwrap_or(best);
                chosen.force();
                chosen
            }
        }
    }

    /// Makes every kernel in this process use this set from now on.
    pub fn force(self) {
        CURRENT.store(self.0 as u8, Ordering::Relaxed);
    }

    /// `baseline`, `avx2` or `avx512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Runs a kernel's body compiled for this set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Baseline => kernel.run(),
            // SAFETY: an `Isa` at `Avx2` comes from `Isa::avx2`, which found the features of
            // `run_avx2` on this processor, or from `CURRENT`, which holds what such a value stored.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above, with `Isa::avx512` and the features of `run_avx512`.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { run_avx512(kernel) },
        }
    }
}

/// The body of a kernel. `run` and all that it calls in its loop is `#[inline(always)]`, so that it
/// takes the instruction set of whoever calls it.
pub(crate) trait Kernel {
    type Output;
    fn run(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_always_there_and_names_are_told_apart() {
        let names: Vec<_> = Isa::available().map(Isa::name).collect();
        assert_eq!(names[0], "baseline");
        assert!(Isa::available().is_sorted());
        assert!(Isa::available().any(|isa| isa == Isa::current()));
    }
}
