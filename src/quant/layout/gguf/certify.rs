//! Bounds of the errors of blocks, from the blocks alone.

use super::{GgmlType, blocks::half};
use crate::{
    error::{Error, Result},
    quant::certificate::{Certificate, certify_blocks, ulp},
};
use half::f16;

impl GgmlType {
    /// How far the tensor that `bytes` were [encoded](GgmlType::encode) from can be from what they [decode](GgmlType::decode) to. Only
    /// the blocks are read: it says nothing about blocks that something else chose. Groups are what shares a step, 32 elements (`Q6K`: 16).
    ///
    /// What is stored is `d`, and within `half = ulp16(d) / 2` of it lies the scale that codes were chosen by. With `n` the number of steps
    /// from the code of 0 (`Q4_1`, `Q5_1`: the code), `b` the bits of a code:
    ///
    /// ```text
    /// |x - x'| <= (|d| + half) * (1/2 + 2^(b-21)) + n * half           Q4_0, Q5_0, q = 2^b - 1: 1 in place of 1/2
    ///                          + ulp16(m) / 2 + ulp32(x') / 2          Q4_1, Q5_1
    /// ```
    ///
    /// `Q6K` rounds by the scales that it stores, so `|x - x'|` is at most half a step `|d * s|` but at the ends. Beyond these lie numbers
    /// up to the part's largest `A'`, and `s` was chosen as one of `round(A' / (n d))`:
    ///
    /// ```text
    /// A' <= 34 |d| (|s| + 1/2)  where |s| < 127;   A' <= 32 * 128 * (|d| + half)
    /// |x - x'| <= A' - 31 |d s| for the code 63, A' - 32 |d s| for the code 0;  A' where s = 0
    /// ```
    ///
    /// `Q4K` has no certificate: the line of each part is one of least squares, so the largest numbers can lie some steps beyond the last
    /// level, and how many is not stored. What could be proven of them is several times what they are in practice.
    ///
    /// ```
    /// use lapidary::quant::layout::GgmlType;
    /// let weights: Vec<f32> = (0..64).map(|i| (i as f32 * 0.3).sin()).collect();
    /// let encoded = GgmlType::Q8_0.encode(&weights)?;
    /// let certificate = GgmlType::Q8_0.certificate(&[64], &encoded.bytes)?;
    /// let error = GgmlType::Q8_0.to_qtensor(&[64], &encoded.bytes)?.error(&weights)?;
    /// assert!(error.max_abs <= certificate.max_abs() && certificate.max_abs() < 0.0045);
    /// # Ok::<(), lapidary::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`to_qtensor`](GgmlType::to_qtensor); [`Argument`](crate::ErrorKind::Argument) for `Q4K`.
    pub fn certificate(self, shape: &[usize], bytes: &[u8]) -> Result<Certificate> {
        if self == Self::Q4K {
            return Err(Error::argument("type", "Q4K", "one whose blocks bound their errors"));
        }
        let parts = self.read(shape, bytes)?;
        let (size, bits) = self.parts();
        Ok(certify_blocks(shape, size, |part, bounds| {
            let codes = &parts.codes[part * size..];
            if self == Self::Q6K {
                let block = &bytes[part / 16 * self.block_bytes()..];
                ends(half(block, 208).into(), block[192 + part % 16].cast_signed(), codes, bounds);
            } else {
                self.rounded(parts.steps[part], parts.lowest.get(part).copied(), (codes, bits), bounds);
            }
        }))
    }

    /// Sets the bounds of a part whose scale was rounded after its codes were chosen.
    fn rounded(self, step: f64, lowest: Option<f64>, (codes, bits): (&[u8], u8), bounds: &mut [f64]) {
        let (middle, top) = (f64::from(1u32 << (bits - 1)), f64::from((1u32 << bits) - 1));
        // Reciprocals, products and sums in `f32`: 8 roundings of a number up to 2^b are more than there are.
        let rounding = (top + 1.0) * 2f64.powi(-21);
        let off = ulp::<f16>(step.abs()) / 2.0;
        for (bound, &code) in bounds.iter_mut().zip(codes) {
            let code = f64::from(code);
            let (steps, reach) = match self {
                Self::Q4_0 | Self::Q5_0 if code == top => (code - middle, 1.0),
                Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => ((code - middle).abs(), 0.5),
                _ => (code, 0.5),
            };
            let sum = lowest.map_or(0.0, |m| ulp::<f16>(m.abs()) / 2.0 + ulp::<f32>((step * code + m).abs()) / 2.0);
            *bound = (step.abs() + off) * (reach + rounding) + steps * off + sum;
        }
    }
}

/// Sets the bounds of a part of `Q6K`.
fn ends(d: f64, scale: i8, codes: &[u8], bounds: &mut [f64]) {
    let (d, scale) = (d.abs(), f64::from(scale).abs());
    let (step, of_block) = (d * scale, 4096.0 * (d + ulp::<f16>(d) / 2.0));
    let largest = if scale < 127.0 { of_block.min(34.0 * d * (scale + 0.5)) } else { of_block };
    for (bound, &code) in bounds.iter_mut().zip(codes) {
        let beyond = match code {
            63 => largest - 31.0 * step,
            0 => largest - 32.0 * step,
            _ if step == 0.0 => largest,
            _ => 0.0,
        };
        // Those in `f64`.
        *bound = beyond.max(step / 2.0) * (1.0 + 2f64.powi(-40));
    }
}
