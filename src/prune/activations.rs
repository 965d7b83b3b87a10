//! What channels of activations were like.

use super::inner;
use crate::{
    element::Element,
    error::{Error, Result},
    tensor::{TensorRef, qtensor::check_finite, view::filled},
};

/// Statistics of each channel of a layer's outputs, gathered batch by batch, to prune [`Channels`](super::Channels) by.
///
/// ```text
/// mean_abs = Σ |a| / n
/// alive    = the share of a that is not 0       1 - APoZ (Hu et al. 2016, arXiv:1607.03250)
/// variance = Σ (a - mean)² / n                  a channel that never changes is a bias
/// ```
///
/// In `f64`, in the order of the samples: batches do not change a bit.
///
/// ```
/// use lapidary::{TensorRef, prune::{Activations, Channels, Select}};
/// let mut activations = Activations::new(1, 2)?;
/// // Two samples, two channels of three pixels each.
/// let a = [0.0f32, 0.0, 1.0, 2.0, 2.0, 2.0, 0.0, 3.0, 0.0, 2.0, 2.0, 2.0];
/// activations.add(TensorRef::new(&a, &[2, 2, 3])?)?;
/// assert_eq!(activations.alive(), [1.0 / 3.0, 1.0]);
/// assert_eq!(activations.variance()[1], 0.0);
/// let channels = Channels::new(0, activations.variance());
/// # let _ = channels;
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Activations {
    axis: usize,
    channels: Vec<Channel>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Channel {
    count: u64,
    alive: u64,
    sum_abs: f64,
    mean: f64,
    /// `Σ (a - mean)²`, kept up by each number (Welford 1962): squares of the numbers would cancel.
    squares: f64,
}

impl Activations {
    /// Nothing seen yet of so many channels, which lie along an axis: 1 where batches come first.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for no channel.
    pub fn new(axis: usize, channels: usize) -> Result<Self> {
        if channels == 0 {
            return Err(Error::argument("channels", channels, "at least 1"));
        }
        Ok(Self { axis, channels: filled(channels, Channel::default())? })
    }

    /// Adds a batch of activations.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when it has not the axis, or numbers of `f64` are beyond 1e150;
    /// [`Shape`](crate::ErrorKind::Shape) when that has another length; [`NonFinite`](crate::ErrorKind::NonFinite) for
    /// a NaN or an infinity. Nothing has changed then.
    pub fn add<'a, T: Element>(&mut self, batch: impl Into<TensorRef<'a, T>>) -> Result<()> {
        const LARGEST: f64 = 1e150;
        let batch = batch.into();
        let shape = batch.shape();
        let Some(&channels) = shape.get(self.axis) else {
            let found = format!("{} of shape {shape:?}", self.axis);
            return Err(Error::argument("axis", found, "one of the activations'"));
        };
        if channels != self.channels.len() {
            return Err(Error::shape("channels", &[self.channels.len()], &[channels]));
        }
        check_finite("activations", batch.as_slice())?;
        if batch.as_slice().iter().any(|a| a.to_f64().abs() > LARGEST) {
            return Err(Error::argument("activations", "beyond 1e150", "small enough for finite sums of squares"));
        }
        let inner = inner(shape, self.axis);
        for (i, run) in batch.as_slice().chunks_exact(inner.max(1)).enumerate() {
            let channel = &mut self.channels[i % channels];
            for a in run.iter().map(|a| a.to_f64()) {
                channel.count += 1;
                channel.alive += u64::from(a != 0.0);
                channel.sum_abs += a.abs();
                let from = a - channel.mean;
                channel.mean += from / channel.count as f64;
                channel.squares += from * (a - channel.mean);
            }
        }
        Ok(())
    }

    /// The mean magnitude of each channel; 0 where nothing was added.
    #[must_use]
    pub fn mean_abs(&self) -> Vec<f64> {
        self.each(|channel| channel.sum_abs)
    }

    /// The share of each channel's numbers that is not 0; 0 where nothing was added.
    #[must_use]
    pub fn alive(&self) -> Vec<f64> {
        self.each(|channel| channel.alive as f64)
    }

    /// The variance of each channel, over the number of its numbers; 0 where nothing was added.
    #[must_use]
    pub fn variance(&self) -> Vec<f64> {
        self.each(|channel| channel.squares)
    }

    fn each(&self, of: impl Fn(&Channel) -> f64) -> Vec<f64> {
        self.channels.iter().map(|channel| of(channel) / channel.count.max(1) as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn are_what_plain_loops_find_in_any_batches() {
        let a: Vec<f32> =
            (0..4 * 3 * 5).map(|i| ((i * 31 % 17) as f32 - 8.0).max(0.0) + 1000.0 * (i / 5 % 3) as f32).collect();
        let mut whole = Activations::new(1, 3).unwrap();
        whole.add(TensorRef::new(&a, &[4, 3, 5]).unwrap()).unwrap();
        let mut parts = Activations::new(1, 3).unwrap();
        for sample in a.chunks(15) {
            parts.add(TensorRef::new(sample, &[1, 3, 5]).unwrap()).unwrap();
        }
        assert_eq!(whole, parts);
        for channel in 0..3 {
            let own: Vec<f64> = (0..60).filter(|i| i / 5 % 3 == channel).map(|i| a[i].into()).collect();
            let mean = own.iter().sum::<f64>() / 20.0;
            let variance = own.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / 20.0;
            assert!((whole.variance()[channel] / variance - 1.0).abs() < 1e-12);
            assert_eq!(whole.mean_abs()[channel], own.iter().sum::<f64>() / 20.0);
            assert_eq!(whole.alive()[channel], own.iter().filter(|&&a| a != 0.0).count() as f64 / 20.0);
        }
    }

    #[test]
    fn refuses_what_it_cannot_add_and_stays() {
        let mut activations = Activations::new(1, 2).unwrap();
        assert_eq!((activations.variance(), activations.alive()), (vec![0.0; 2], vec![0.0; 2]));
        let before = activations.clone();
        assert_eq!(activations.add(&[1f32; 2]).unwrap_err().kind(), ErrorKind::Argument);
        let add = |activations: &mut Activations, a: &[f64], shape: &[usize]| {
            activations.add(TensorRef::new(a, shape).unwrap()).unwrap_err()
        };
        assert_eq!(add(&mut activations, &[1.0; 3], &[1, 3]).kind(), ErrorKind::Shape);
        assert_eq!(add(&mut activations, &[1.0, f64::NAN], &[1, 2]).index(), Some(1));
        assert_eq!(add(&mut activations, &[1.0, 1e200], &[1, 2]).kind(), ErrorKind::Argument);
        activations.add(TensorRef::<f32>::new(&[], &[0, 2]).unwrap()).unwrap();
        activations.add(TensorRef::<f32>::new(&[], &[3, 2, 0]).unwrap()).unwrap();
        assert_eq!(activations, before);
        assert!(Activations::new(0, 0).is_err());
    }
}
