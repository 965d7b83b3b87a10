//! An upper bound of a quantization's error, from what is stored alone.

#[cfg(feature = "serde")]
use crate::config::open::Number;
use crate::{
    config::config,
    element::{DType, Element},
    error::Result,
    kernel::scan,
    tensor::{Grid, QTensor},
    traits::Quantizer,
};

/// Quantizers that round to the nearest level, so that the error is bounded by the levels.
///
/// Blocks of other tools are no [`QTensor`]: [`OrtRoundToNearest::certificate`](super::layout::OrtRoundToNearest::certificate) and
/// [`GgmlType::certificate`](super::layout::GgmlType::certificate) are theirs. [`KMeans`](super::KMeans) has none, since its outer levels
/// are not the ends of the range but means: a number can lie far beyond, and nothing that is stored says how far. Schemes that look at
/// inputs choose codes that are not the nearest. [`QTensor::error`] measures, where the original is at hand.
pub trait Certify<T: Element>: Quantizer<T> {
    /// How far the tensor that `q` was [quantized](crate::QuantizerExt::quantize) from, by this quantizer, can be from what `q`
    /// decodes to as `T`. Only `q` is read. It says nothing about codes of other values than the levels were fitted to, or that
    /// something else chose.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when `q` was laid out by another quantizer or for another element type.
    fn certificate(&self, q: &QTensor) -> Result<Certificate>;
}

/// An upper bound of the error of a quantized tensor: of each element, and of the product with any vector.
///
/// ```text
/// |x - x'| <= b = step of the group * reach of the code + ulps * ulp(largest magnitude of the group)
/// ‖row of (W - W') · x‖ <= sqrt(sum of b²) * ‖x‖₂,    ‖(W - W') x‖₂ <= sqrt(sum of all b²) * ‖x‖₂
/// ```
///
/// The reach is 1/2 where codes are evenly spaced, the distance to the middle between two levels where they are not; ulps are
/// those of the element type, 1, or 2 of `f64` and of 16 bits. The first inequality is nearly met by some elements of any tensor. The others are
/// Cauchy's: met by an `x` that points along the error, and for others larger than the error by about `sqrt(3 * columns)`
/// (`docs/benchmarks.md` has medians).
///
/// The layouts of other tools round in their own ways; each says what `b` is.
///
/// A matrix `W` has a row for each index along the first axis; a tensor of one axis is one row.
///
/// ```
/// use lapidary::{QuantizerExt, TensorRef, quant::{Certify, Symmetric}};
/// let weights: Vec<f32> = (0..32).map(|i| (i as f32).sin()).collect();
/// let weights = TensorRef::new(&weights, &[4, 8])?;
/// let symmetric = Symmetric::new(8)?.per_channel(0);
/// let q = symmetric.quantize(&weights)?;
/// let certificate = Certify::<f32>::certificate(&symmetric, &q)?;
/// assert!(q.error(&weights)?.max_abs <= certificate.max_abs() && certificate.max_abs() < 0.004);
/// let x = [0.5f32; 8]; // ‖x‖ = sqrt(2)
/// assert!(q.product_error(&weights, &x)? <= certificate.product(2f64.sqrt()));
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Certificate {
    groups: Vec<f64>,
    outputs: Vec<f64>,
}

impl Certificate {
    /// A bound of `|x - x'|` for every element.
    #[must_use]
    pub fn max_abs(&self) -> f64 {
        self.groups.iter().copied().fold(0.0, f64::max)
    }

    /// A bound of `|x - x'|` for the elements of each group.
    #[must_use]
    pub fn groups(&self) -> &[f64] {
        &self.groups
    }

    /// A bound of `|(W - W') x|` in each output, for any `x` of `‖x‖₂ = 1`.
    #[must_use]
    pub fn outputs(&self) -> &[f64] {
        &self.outputs
    }

    /// A bound of `‖(W - W') x‖₂` for any `x` of that 2-norm.
    #[must_use]
    pub fn product(&self, x_norm: f64) -> f64 {
        if x_norm == 0.0 { 0.0 } else { norm(&self.outputs) * x_norm }
    }
}

config! {
    Certificate(groups: Vec<Number> = |it| numbers(&it.groups), outputs: Vec<Number> = |it| numbers(&it.outputs)) => {
        let bounds = |numbers: Vec<Number>| match numbers.iter().find(|bound| bound.0.is_nan() || bound.0 < 0.0) {
            Some(bound) => Err(crate::Error::argument("bound", bound.0, "at least 0")),
            None => Ok(numbers.into_iter().map(|bound| bound.0).collect()),
        };
        Ok(Self { groups: bounds(groups)?, outputs: bounds(outputs)? })
    },
}

#[cfg(feature = "serde")]
fn numbers(bounds: &[f64]) -> Vec<Number> {
    bounds.iter().copied().map(Number).collect()
}

/// The levels of one group as an error sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    /// What reaches are measured in.
    pub(super) step: f64,
    /// No value of the group was larger.
    pub(super) largest: f64,
}

/// How far values can be from their level, in steps.
pub(super) enum Reach<F> {
    /// Half of one, whatever the code: levels are evenly spaced.
    Half,
    Of(F),
}

/// Half a step for every code.
pub(super) const HALF: Reach<fn(u16) -> f64> = Reach::Half;

/// The certificate of a tensor of `T`, whose codes each stand for values within their reach.
pub(super) fn certify<T: Element>(
    q: &QTensor,
    steps: impl Fn(usize) -> Steps,
    reach: Reach<impl Fn(u16) -> f64>,
) -> Certificate {
    let layout = q.layout();
    let ulps = if T::DTYPE == DType::F64 || q.bits() == 16 { 2.0 } else { 1.0 };
    // Rounding of this very sum must not make it smaller than it is.
    let bound = |step: f64, reach: f64, slack: f64| (step * reach + slack) * (1.0 + 2.0 * f64::EPSILON);
    let slack = |largest: f64| ulps * ulp::<T>(largest.min(T::LARGEST));
    let group_bound = |group| {
        let Steps { step, largest } = steps(group);
        bound(step, 0.5, slack(largest))
    };
    let (mut groups, codes) = match reach {
        Reach::Half => ((0..q.groups()).map(group_bound).collect(), Vec::new()),
        Reach::Of(_) => (vec![0.0; q.groups()], q.codes()),
    };
    let (mut bounds, mut row_norms) = (Vec::new(), Vec::new());
    for row in 0..q.len() / layout.cols {
        bounds.clear();
        for (run, group) in layout.runs(row, 0..layout.cols) {
            let Reach::Of(reach) = &reach else {
                // The norm of as many bounds.
                bounds.push(groups[group] * (run.len() as f64).sqrt());
                continue;
            };
            let Steps { step, largest } = steps(group);
            let slack = slack(largest);
            bounds.extend(codes[row * layout.cols..][run.clone()].iter().map(|&code| bound(step, reach(code), slack)));
            groups[group] = bounds[bounds.len() - run.len()..].iter().copied().fold(groups[group], f64::max);
        }
        row_norms.push(norm(&bounds));
    }
    Certificate { groups, outputs: outputs(q.shape(), &row_norms) }
}

/// The certificate of a tensor whose rows lie in blocks of `size` neighbours, the last of a row perhaps shorter. `bound` sets those of the
/// elements of each block, one after another.
pub(super) fn certify_blocks(shape: &[usize], size: usize, mut bound: impl FnMut(usize, &mut [f64])) -> Certificate {
    let cols = shape.last().copied().unwrap_or(1);
    let mut groups: Vec<f64> = Vec::new();
    let mut bounds = vec![0.0; cols];
    let row = |_| {
        for block in bounds.chunks_mut(size) {
            bound(groups.len(), block);
            groups.push(block.iter().copied().fold(0.0, f64::max));
        }
        norm(&bounds)
    };
    let row_norms: Vec<f64> = (0..shape.iter().product::<usize>() / cols).map(row).collect();
    Certificate { groups, outputs: outputs(shape, &row_norms) }
}

/// Of each index along the first axis, from those of the rows.
fn outputs(shape: &[usize], row_norms: &[f64]) -> Vec<f64> {
    let outputs = if shape.len() < 2 { 1 } else { shape[0] };
    row_norms.chunks(row_norms.len() / outputs).map(norm).collect()
}

/// The 2-norm, rounded up rather than down.
fn norm(numbers: &[f64]) -> f64 {
    let rounding = f64::EPSILON * (numbers.len() as f64 + 4.0);
    scan::norm(numbers).map_or(f64::INFINITY, |norm| norm * (1.0 + rounding))
}

/// The certificate of listed levels, in the order of their codes, whose values were at most `beyond` scales.
pub(super) fn certify_listed<T: Element>(q: &QTensor, levels: &[f32], beyond: f32) -> Certificate {
    let mut sorted: Vec<f64> = levels.iter().map(|&level| level.into()).collect();
    sorted.sort_by(f64::total_cmp);
    let beyond = f64::from(beyond);
    let reach = |&level: &f32| {
        let level = f64::from(level);
        let below =
            sorted.iter().rev().find(|&&other| other < level).map_or(level + beyond, |other| (level - other) / 2.0);
        let above = sorted.iter().find(|&&other| other > level).map_or(beyond - level, |other| (other - level) / 2.0);
        below.max(above)
    };
    let reaches: Vec<f64> = levels.iter().map(reach).collect();
    let steps = |group| {
        let Grid::Scaled { scale, .. } = q.grid() else { return Steps { step: 0.0, largest: 0.0 } };
        let step = scale.get(group).unwrap_or_default();
        // One ulp more: what is compared is a quotient, what comes back a product.
        Steps { step, largest: 2.0 * beyond * step }
    };
    // A list may be shorter than there are codes: its last level stands for the rest.
    let reach = |code: u16| reaches.get(usize::from(code)).or(reaches.last()).copied().unwrap_or_default();
    certify::<T>(q, steps, Reach::Of(reach))
}

/// The distance from a magnitude to the next larger number of the type.
pub(super) fn ulp<T: Element>(x: f64) -> f64 {
    let (digits, smallest) = match T::DTYPE {
        DType::F64 => (52, f64::from_bits(1)),
        DType::F32 => (23, 2f64.powi(-149)),
        DType::F16 => (10, 2f64.powi(-24)),
        DType::Bf16 => (7, 2f64.powi(-133)),
    };
    // The power of two below x, by its exponent bits.
    let power = f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000);
    (power * 0.5f64.powi(digits)).max(smallest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        QuantizerExt, TensorRef,
        quant::{Affine, MinMax, Symmetric},
    };
    use half::f16;

    #[test]
    fn bounds_by_hand() {
        let x = [-3.0f64, 0.4, 1.9, 4.0];
        let q = MinMax::new(3).unwrap().quantize(&x).unwrap();
        let certificate = Certify::<f64>::certificate(&MinMax::new(3).unwrap(), &q).unwrap();
        assert!((certificate.max_abs() - 0.5).abs() < 1e-14, "{certificate:?}");
        assert!((certificate.product(3.0) - 3.0).abs() < 1e-13, "{certificate:?}");
        // The largest code of the full range stands for a whole step.
        let full = Symmetric::new(2).unwrap().full_range();
        let q = full.quantize(&x).unwrap();
        let certificate = Certify::<f64>::certificate(&full, &q).unwrap();
        assert!((certificate.max_abs() - 2.0).abs() < 1e-14, "{certificate:?}");
        assert!((certificate.outputs()[0] - 10f64.sqrt()).abs() < 1e-13, "{certificate:?}");
    }

    #[test]
    fn outputs_are_the_first_axis() {
        let x: Vec<f32> = (0..24).map(|i| if i < 12 { 0.0 } else { i as f32 }).collect();
        let tensor = TensorRef::new(&x, &[2, 3, 4]).unwrap();
        let affine = Affine::new(4).unwrap().per_group(2).unwrap();
        let certificate = Certify::<f32>::certificate(&affine, &affine.quantize(&tensor).unwrap()).unwrap();
        assert_eq!((certificate.groups().len(), certificate.outputs().len()), (12, 2));
        assert!(certificate.outputs()[0] < 1e-30 && certificate.outputs()[1] > 1.0);
        assert!(Certify::<f64>::certificate(&affine, &affine.quantize(&tensor).unwrap()).is_err());
    }

    #[test]
    fn steps_of_each_type() {
        assert_eq!(
            (ulp::<f32>(1.0), ulp::<f32>(1.9), ulp::<f64>(4.0)),
            (2f64.powi(-23), 2f64.powi(-23), 2f64.powi(-50))
        );
        assert_eq!((ulp::<f16>(1e-9), ulp::<f32>(0.0)), (2f64.powi(-24), 2f64.powi(-149)));
    }
}
