//! The cases of quantization: dense layers with packed weights, and tensors on their way to codes and back.

use crate::{Port, Result};
use lapidary::{
    Quantizer, QuantizerExt, TensorMut, TensorRef,
    quant::{Affine, FakeQuantize, Linear, Symmetric, Workspace},
};
use std::{
    hint::black_box,
    io::{BufRead, Write},
};

/// Elements of a row of the tensors that are quantized.
const COLUMNS: usize = 4096;
/// Elements of a group of the weights of few bits.
const GROUP: usize = 32;

/// The finalizer of SplitMix64.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The same numbers on both sides: about normal, a sum of four even ones by [`mix`].
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let even = |bits: u64| (bits & 0xffff) as f32 / 65536.0 - 0.5;
    (0..count as u64).map(|i| mix(i + (seed << 40))).map(|x| (0..4).map(|k| even(x >> (16 * k))).sum()).collect()
}

impl<R: BufRead, W: Write> Port<R, W> {
    /// A square layer of so many bits, and so many vectors at a time. Answers its bytes; at the end all outputs of the first vector.
    pub(crate) fn layer(&mut self, bits: u8, batch: usize, size: usize) -> Result {
        let weights = numbers(size * size, 1);
        let weights = TensorRef::new(&weights, &[size, size])?;
        let symmetric = Symmetric::new(bits)?;
        let scheme = if bits == 8 { symmetric.per_channel(0) } else { symmetric.per_group(GROUP)? };
        let layer = Linear::new(&scheme.quantize(weights)?)?;
        let (x, mut y) = (numbers(batch * size, 2), vec![0f32; batch * size]);
        let mut workspace = Workspace::default();
        self.answer([layer.byte_size()])?;
        let bytes = vec![1u64; layer.byte_size() / 8];
        self.turns(
            || {
                let (x, y) = (TensorRef::new(&x, &[batch, size])?, TensorMut::new(&mut y, &[batch, size])?);
                Ok(layer.forward(x, y, &mut workspace)?)
            },
            || {
                black_box(sum(&bytes, rayon::current_num_threads()));
                Ok(())
            },
        )?;
        self.answer(&y[..size])
    }

    /// A tensor to 8 bits, or back. Answers the bytes that are read and written; at the end the first results.
    pub(crate) fn codes(&mut self, case: &str, length: usize) -> Result {
        let x = numbers(length, 3);
        let shape = [length / COLUMNS, COLUMNS];
        let x = TensorRef::new(&x[..shape[0] * COLUMNS], &shape)?;
        let affine = Affine::new(8)?;
        let scheme = if case == "channel8" { affine.per_channel(0) } else { affine };
        let mut q = scheme.quantize(TensorRef::from(&x))?;
        let mut out = vec![0f32; x.as_slice().len()];
        // The range is a pass of its own.
        let passes = match case {
            "quantize8" | "channel8" => 4.0 + 4.0 + 1.0,
            "fake8" => 4.0 + 4.0,
            _ => 1.0 + 4.0,
        };
        let bytes = passes * x.as_slice().len() as f64;
        self.answer([bytes])?;
        let (from, mut to) = (vec![1u8; (bytes / 2.0) as usize], vec![0u8; (bytes / 2.0) as usize]);
        let fake = FakeQuantize::from(scheme);
        let levels = q.clone();
        self.turns(
            || {
                match case {
                    "quantize8" | "channel8" => scheme.quantize_into(TensorRef::from(&x), &mut q)?,
                    "fake8" => fake.forward(TensorRef::from(&x), &levels, TensorMut::new(&mut out, &shape)?)?,
                    _ => q.dequantize_into(TensorMut::new(&mut out, &shape)?)?,
                }
                Ok(())
            },
            || {
                copy(&from, &mut to, rayon::current_num_threads());
                Ok(())
            },
        )?;
        match case {
            "quantize8" | "channel8" => self.answer(&q.dequantize::<f32>()[..16]),
            _ => self.answer(&out[..16]),
        }
    }
}

/// Reads all.
pub(crate) fn sum(words: &[u64], threads: usize) -> u64 {
    if threads < 2 {
        return words.iter().fold(0, |sum, word| sum.wrapping_add(*word));
    }
    let (left, right) = words.split_at(words.len() / 2);
    let (left, right) = rayon::join(|| sum(left, threads / 2), || sum(right, threads / 2));
    left.wrapping_add(right)
}

fn copy(from: &[u8], to: &mut [u8], threads: usize) {
    if threads < 2 {
        return to.copy_from_slice(from);
    }
    let ((left, right), (to_left, to_right)) = (from.split_at(from.len() / 2), to.split_at_mut(from.len() / 2));
    rayon::join(|| copy(left, to_left, threads / 2), || copy(right, to_right, threads / 2));
}
