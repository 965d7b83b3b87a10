//! Dense layers that compute with packed weights.

mod weights;

use crate::{
    error::{Error, Result},
    kernel::dot::{
        ROWS,
        inputs::{self, Spread},
        panel::{Vectors, products},
    },
    tensor::{
        QTensor, TensorMut, TensorRef,
        qtensor::{check_finite, check_product},
    },
};
use weights::Weights;

/// A dense layer `y = activation(W x + b)` whose weights stay in few bits.
///
/// ```text
/// segment  = the columns that share levels: a group, or the whole row, cut where it is longer than 1,024 (a group into equal parts)
/// s        = max |x| / 127 over the segment, n = round(x / s)                               Inputs::Int8
/// y[i]     = Σ_segments (Σ_j code[i][j] * n[j] - zero[i] * Σ_j n[j]) * scale[i] * s          affine
/// y[i]     = Σ_segments (Σ_j code[i][j] * n[j]) * step[i] * s + min[i] * (Σ_j n[j]) * s      min-max
///                                                                                           Inputs::F32
/// y[i]     = Σ_segments (Σ_j (code[i][j] - zero[i]) * x[j]) * scale[i]                       affine
/// y[i]     = Σ_segments Σ_j (code[i][j] * step[i] + min[i]) * x[j]                           min-max
/// y[i]     = Σ_segments (Σ_j level[code[i][j]] * x[j]) * scale[i]                            listed levels, also for Int8
/// y[i]     = activation(y[i] + b[i])
/// ```
///
/// The inner sums of `Int8` are exact integers, and segments are added in order in `f32`, so that every instruction set and number of
/// threads gives the same bits; so do the sums of `F32`, column by column in a segment. Weights are laid out anew once, sixteen rows beside one
/// another, in 2, 4 or 8 bits; AVX-512 VNNI, AVX2 and plain code multiply them four columns at a time. Listed levels are looked up
/// one by one, which takes several times as long.
///
/// | name | default | purpose |
/// |---|---|---|
/// | bias | none | one number an output |
/// | [`Activation`] | identity | what the outputs go through |
/// | [`Inputs`] | `Int8` | how inputs meet the codes |
///
/// ```
/// use lapidary::{QuantizerExt, TensorRef, quant::{Linear, Symmetric, Workspace}};
/// let weights: Vec<f32> = (0..64 * 96).map(|i| (i as f32 * 0.37).sin()).collect();
/// let q = Symmetric::new(4)?.per_group(32)?.quantize(TensorRef::new(&weights, &[64, 96])?)?;
/// let layer = Linear::new(&q)?;
/// let (x, mut y) = (vec![0.5f32; 96], vec![0f32; 64]);
/// layer.forward(&x, &mut y, &mut Workspace::default())?;
/// let want: f32 = weights[..96].iter().map(|w| w * 0.5).sum();
/// assert!((y[0] - want).abs() < 0.2);
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    weights: Weights,
    bias: Option<Vec<f32>>,
    activation: Activation,
    inputs: Inputs,
}

/// How inputs meet the codes of a [`Linear`] layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Inputs {
    /// Rounded to 8 bits on the fly, with a scale for each segment: fastest. Where levels are listed, as [`F32`](Inputs::F32).
    #[default]
    Int8,
    /// As they are: no error but that of the weights.
    F32,
}

/// What the outputs of a [`Linear`] layer go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activation {
    /// `y`
    #[default]
    Identity,
    /// `max(y, 0)`
    Relu,
    /// `y / 2 * (1 + erf(y / sqrt 2))`
    Gelu,
    /// `y / (1 + exp(-y))`
    Silu,
}

impl Activation {
    fn apply(self, y: &mut [f32]) {
        match self {
            Self::Identity => {}
            Self::Relu => y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y }),
            Self::Gelu => y.iter_mut().for_each(|y| {
                let x = limited(*y);
                *y = x * 0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2));
            }),
            Self::Silu => y.iter_mut().for_each(|y| {
                let x = limited(*y);
                *y = x / (1.0 + libm::expf(-x));
            }),
        }
    }
}

/// Not so low that 0 meets infinity: the activations are 0 there.
fn limited(y: f32) -> f32 {
    if y < -1e4 { -1e4 } else { y }
}

/// Makes room for `each` a vector.
fn resize<T: Clone>(room: &mut Vec<T>, batch: usize, each: usize, value: T) -> Result<()> {
    let len = batch.checked_mul(each).filter(|&len| room.try_reserve(len.saturating_sub(room.len())).is_ok());
    let needed = "as many as memory holds in a workspace";
    room.resize(len.ok_or_else(|| Error::argument("vectors", batch, needed))?, value);
    Ok(())
}

/// Memory that [`Linear::forward`] works in, of any layer. It grows to what the largest call needs; then nothing is allocated.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    words: Vec<i32>,
    floats: Vec<[f32; 4]>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    outputs: Vec<[f32; ROWS]>,
}

impl Linear {
    /// A layer of the weights `q`, of shape `[outputs, inputs]`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) unless `q` has two axes, at most 8 bits, and levels for all, each row, or each group of
    /// up to 32,768 neighbours of a row; or when a scale is no `f32` above 0, or a level no finite one.
    pub fn new(q: &QTensor) -> Result<Self> {
        let weights = Weights::new(q)?;
        Ok(Self { weights, bias: None, activation: Activation::default(), inputs: Inputs::default() })
    }

    /// Adds a number to each output.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when there is not one for each output, [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an
    /// infinity.
    pub fn with_bias(mut self, bias: &[f32]) -> Result<Self> {
        if bias.len() != self.weights.shape.rows {
            return Err(Error::shape("bias", &[self.weights.shape.rows], &[bias.len()]));
        }
        check_finite("bias", bias)?;
        self.bias = Some(bias.into());
        Ok(self)
    }

    /// What the outputs go through.
    #[must_use]
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// How inputs meet the codes.
    #[must_use]
    pub fn with_inputs(self, inputs: Inputs) -> Self {
        Self { inputs, ..self }
    }

    /// Bytes of the codes and levels as they are laid out.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.weights.byte_size()
    }

    /// The outputs of one vector, or of many: `x` has the shape `[inputs]` or `[.., inputs]`, `y` the same with outputs for inputs. Does
    /// not allocate once the workspace has grown.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes do not fit; [`NonFinite`](crate::ErrorKind::NonFinite) when an input is NaN or
    /// infinite, [`Argument`](crate::ErrorKind::Argument) where memory does not hold the workspace; `y` is then as it was. Outputs beyond
    /// the largest number become infinite, and so do those whose sum of codes times the weights' scale is (weights beyond 1e30);
    /// infinities of both signs add up to NaN.
    pub fn forward<'a, 'b>(
        &self,
        x: impl Into<TensorRef<'a, f32>>,
        y: impl Into<TensorMut<'b, f32>>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (x, mut y) = (x.into(), y.into());
        let shape = self.weights.shape;
        let (rows, cols) = (shape.rows, shape.cols);
        check_product([rows, cols], &x, &y)?;
        let batch = x.as_slice().len() / cols;
        if batch == 0 {
            return Ok(());
        }
        let Workspace { words, floats, scales, sums, outputs } = workspace;
        let (words_each, segments) = (shape.all_chunks() * shape.unit() / 4, shape.segments());
        let vectors = match self.inputs {
            Inputs::Int8 if !self.weights.is_listed() => {
                resize(words, batch, words_each, 0)?;
                resize(scales, batch, segments, 0.0)?;
                resize(sums, batch, segments, 0)?;
                inputs::to_integers(shape, x.as_slice(), Spread { words, scales, sums });
                Vectors::Small { words, scales, sums }
            }
            Inputs::Int8 | Inputs::F32 => {
                resize(floats, batch, words_each, [0.0; 4])?;
                inputs::spread(shape, x.as_slice(), floats);
                Vectors::Float(floats)
            }
        };
        resize(outputs, batch, shape.panels(), [0.0; ROWS])?;
        products(self.weights.panels(), vectors, batch, outputs);
        for (b, y) in y.as_mut_slice().chunks_exact_mut(rows).enumerate() {
            for (panel, y) in y.chunks_mut(ROWS).enumerate() {
                y.copy_from_slice(&outputs[panel * batch + b][..y.len()]);
            }
            if let Some(bias) = &self.bias {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
            self.activation.apply(y);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind, Granularity, Grid, QuantizerExt, Values,
        kernel::dot::panel::MAX_SEGMENT,
        quant::{Affine, KMeans, MinMax, Symmetric, Table},
    };

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * if i % 31 == 0 { 4.0 } else { 1.0 }).collect()
    }

    /// The formula, one output at a time.
    fn plain(q: &QTensor, x: &[f32], segment: usize, group: impl Fn(usize, usize) -> usize, exact: bool) -> Vec<f32> {
        let (rows, cols) = (q.shape()[0], q.shape()[1]);
        let (codes, top) = (q.codes(), f64::from((1u32 << q.bits()) - 1));
        let row = |row: usize| {
            let mut y = 0f32;
            for (s, x) in x.chunks(segment).enumerate() {
                let g = group(row, s);
                let codes = codes[row * cols + s * segment..].iter();
                let listed = |levels: &Values, from: usize, scale: f32| {
                    let levels = codes.clone().map(|&code| levels.get(from + usize::from(code)).unwrap() as f32);
                    levels.zip(x).fold(0f32, |sum, (level, x)| sum + level * x) * scale
                };
                let scale = (x.iter().fold(0f32, |a, x| a.max(x.abs())) / 127.0).max(f32::MIN_POSITIVE);
                let n = || x.iter().map(|x| (x / scale).round_ties_even() as i64);
                match q.grid() {
                    Grid::Affine { scale: scales, zero_point } => {
                        let w_scale = scales.get(g).unwrap() as f32;
                        let zero = i64::from(zero_point.as_ref().map_or(1 << (q.bits() - 1), |zeros| zeros[g]));
                        let steps = codes.map(|&code| i64::from(code) - zero);
                        y += if exact {
                            steps.zip(x).fold(0f32, |sum, (step, x)| sum + step as f32 * x) * w_scale
                        } else {
                            steps.zip(n()).map(|(step, n)| step * n).sum::<i64>() as f32 * w_scale * scale
                        };
                    }
                    Grid::MinMax { min, max } => {
                        let (min, max) = (min.get(g).unwrap(), max.get(g).unwrap());
                        let (step, min) = ((max / top - min / top) as f32, min as f32);
                        if exact {
                            y += codes.zip(x).fold(0f32, |sum, (&code, x)| sum + (f32::from(code) * step + min) * x);
                        } else {
                            let sum: i64 = codes.zip(n()).map(|(&code, n)| i64::from(code) * n).sum();
                            y += sum as f32 * step * scale;
                            y += min * n().sum::<i64>() as f32 * scale;
                        }
                    }
                    Grid::Codebook { levels } => y += listed(levels, g << q.bits(), 1.0),
                    Grid::Scaled { levels, scale } => y += listed(levels, 0, scale.get(g).unwrap() as f32),
                }
            }
            y
        };
        (0..rows).map(row).collect()
    }

    #[test]
    fn is_its_formula_whatever_the_shape() {
        for (rows, cols) in [(1, 1), (3, 5), (16, 32), (17, 33), (40, 100), (15, 259)] {
            let (w, x) = (numbers(rows * cols), numbers(cols * 11));
            let tensor = TensorRef::new(&w, &[rows, cols]).unwrap();
            for bits in [1, 2, 3, 4, 6, 8] {
                let (affine, symmetric) = (Affine::new(bits).unwrap(), Symmetric::new(bits.max(2)).unwrap());
                let (min_max, k_means) = (MinMax::new(bits).unwrap(), KMeans::new(bits).unwrap());
                let cases: Vec<(QTensor, usize)> = vec![
                    (affine.quantize(&tensor).unwrap(), cols),
                    (affine.per_channel(0).quantize(&tensor).unwrap(), cols),
                    (affine.per_group(7).unwrap().quantize(&tensor).unwrap(), 7),
                    (symmetric.full_range().per_group(32).unwrap().quantize(&tensor).unwrap(), 32),
                    (symmetric.per_block(1, 16).unwrap().quantize(&tensor).unwrap(), 16),
                    (min_max.quantize(&tensor).unwrap(), cols),
                    (min_max.per_group(9).unwrap().quantize(&tensor).unwrap(), 9),
                    (k_means.quantize(&tensor).unwrap(), cols),
                    (k_means.per_group(33).unwrap().quantize(&tensor).unwrap(), 33.min(cols)),
                    (Table::nf4().per_group(8).unwrap().quantize(&tensor).unwrap(), 8.min(cols)),
                ];
                for (q, segment) in cases {
                    let per_row = cols.div_ceil(segment);
                    let group = |row, s| match q.granularity() {
                        Granularity::Tensor => 0,
                        Granularity::Channel { .. } => row,
                        _ => row * per_row + s,
                    };
                    for inputs in [Inputs::Int8, Inputs::F32] {
                        let layer = Linear::new(&q).unwrap().with_inputs(inputs);
                        for batch in [1, 2, 3, 5, 11] {
                            let mut y = vec![f32::NAN; batch * rows];
                            let x = TensorRef::new(&x[..batch * cols], &[batch, cols]).unwrap();
                            let out = TensorMut::new(&mut y, &[batch, rows]).unwrap();
                            layer.forward(&x, out, &mut Workspace::default()).unwrap();
                            for (x, y) in x.as_slice().chunks_exact(cols).zip(y.chunks_exact(rows)) {
                                let want = plain(&q, x, segment, group, inputs == Inputs::F32);
                                assert_eq!(y, want, "{rows} {cols} {bits} {:?} {inputs:?}", q.granularity());
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn long_rows_and_groups_are_cut() {
        let (rows, cols) = (3, 2600);
        let (w, x) = (numbers(rows * cols), numbers(cols));
        for (group, segment) in [(cols, 1024), (1200, 600), (1031, 1031), (2048, 1024)] {
            let scheme = Affine::new(4).unwrap();
            let scheme = if group == cols { scheme.per_channel(0) } else { scheme.per_group(group).unwrap() };
            let q = scheme.quantize(TensorRef::new(&w, &[rows, cols]).unwrap()).unwrap();
            let group = |row: usize, s: usize| row * cols.div_ceil(group) + s * segment / group;
            for inputs in [Inputs::Int8, Inputs::F32] {
                let mut y = vec![f32::NAN; rows];
                let layer = Linear::new(&q).unwrap().with_inputs(inputs);
                layer.forward(&x, &mut y, &mut Workspace::default()).unwrap();
                assert_eq!(y, plain(&q, &x, segment, group, inputs == Inputs::F32), "{segment}");
            }
        }
    }

    #[test]
    fn bias_and_activation_come_last() {
        let q = Symmetric::new(8).unwrap().quantize(TensorRef::new(&[1.27f32, -1.27], &[2, 1]).unwrap()).unwrap();
        let forward = |layer: &Linear| {
            let mut y = [0f32; 2];
            layer.forward(&[1.0], &mut y, &mut Workspace::default()).unwrap();
            y
        };
        let layer = Linear::new(&q).unwrap().with_bias(&[0.73, -0.73]).unwrap();
        let near =
            |y: [f32; 2], want: [f32; 2]| assert!((0..2).all(|i| (y[i] - want[i]).abs() < 1e-6), "{y:?} {want:?}");
        near(forward(&layer), [2.0, -2.0]);
        near(forward(&layer.clone().with_activation(Activation::Relu)), [2.0, 0.0]);
        near(forward(&layer.clone().with_activation(Activation::Gelu)), [1.954_499_7, -0.045_500_264]);
        near(forward(&layer.with_activation(Activation::Silu)), [1.761_594_2, -0.238_405_84]);
    }

    #[test]
    fn long_rows_do_not_overflow() {
        let cols = 2 * MAX_SEGMENT + 5;
        let grid = Grid::Affine { scale: Values::F32(vec![1.0]).into(), zero_point: Some(vec![0]) };
        let q = QTensor::from_codes(&[1, cols], 8, Granularity::Tensor, grid, &vec![255u8; cols]).unwrap();
        let mut y = [0f32];
        Linear::new(&q).unwrap().forward(&vec![1.0f32; cols], &mut y, &mut Workspace::default()).unwrap();
        assert!((f64::from(y[0]) / (255.0 * cols as f64) - 1.0).abs() < 1e-6, "{y:?}");
        // The longest segment that is not cut, of a prime length; a longer one is refused.
        for (group, fits) in [(32_749, true), (32_771, false)] {
            let grid = Grid::Affine { scale: Values::F32(vec![1.0; 2]).into(), zero_point: Some(vec![0; 2]) };
            let codes = vec![255u8; 2 * group];
            let q = QTensor::from_codes(&[1, 2 * group], 8, Granularity::Group { size: group }, grid, &codes).unwrap();
            let layer = Linear::new(&q);
            assert_eq!(layer.is_ok(), fits);
            if let Ok(layer) = layer {
                layer.forward(&vec![1.0f32; 2 * group], &mut y, &mut Workspace::default()).unwrap();
                assert!((f64::from(y[0]) / (255.0 * 2.0 * group as f64) - 1.0).abs() < 1e-6, "{y:?}");
            }
        }
    }

    #[test]
    fn says_what_it_cannot_do() {
        let w = numbers(32);
        let tensor = TensorRef::new(&w, &[4, 8]).unwrap();
        let kind = |q: QTensor| Linear::new(&q).unwrap_err().kind();
        assert_eq!(kind(Symmetric::new(4).unwrap().quantize(&w).unwrap()), ErrorKind::Argument);
        assert_eq!(kind(Symmetric::new(16).unwrap().quantize(&tensor).unwrap()), ErrorKind::Argument);
        let apart = [f32::MAX, f32::MIN, 0.0, 0.0];
        let apart = MinMax::new(1).unwrap().quantize(TensorRef::new(&apart, &[2, 2]).unwrap()).unwrap();
        assert_eq!(kind(apart), ErrorKind::Argument);
        let beyond = Grid::Codebook { levels: Values::F64(vec![0.0, 1e60]) };
        assert_eq!(
            kind(QTensor::from_codes(&[1, 1], 1, Granularity::Tensor, beyond, &[1u8]).unwrap()),
            ErrorKind::Argument
        );
        assert_eq!(kind(Symmetric::new(4).unwrap().per_channel(1).quantize(&tensor).unwrap()), ErrorKind::Argument);
        let layer = Linear::new(&Symmetric::new(4).unwrap().quantize(&tensor).unwrap()).unwrap();
        assert!(layer.clone().with_bias(&[0.0; 3]).is_err() && layer.clone().with_bias(&[f32::NAN; 4]).is_err());
        let mut y = [7f32; 4];
        let forward = |x: &[f32], y: &mut [f32]| layer.forward(x, y, &mut Workspace::default());
        assert_eq!(forward(&[0.0; 7], &mut y).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(forward(&[0.0; 8], &mut y[..3]).unwrap_err().kind(), ErrorKind::Shape);
        let error = forward(&[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0], &mut y).unwrap_err();
        assert_eq!((error.index(), y), (Some(2), [7.0; 4]));
        let none = TensorRef::new(&[0f32; 0], &[0, 8]).unwrap();
        layer.forward(none, TensorMut::new(&mut [], &[0, 4]).unwrap(), &mut Workspace::default()).unwrap();
    }

    #[test]
    fn extreme_numbers_do_not_become_nan() {
        let forward = |weights: &[f32], x: &[f32], inputs, activation| {
            let shape = [weights.len() / x.len(), x.len()];
            let q = Symmetric::new(8).unwrap().quantize(TensorRef::new(weights, &shape).unwrap()).unwrap();
            let layer = Linear::new(&q).unwrap().with_inputs(inputs).with_activation(activation);
            let mut y = vec![0f32; shape[0]];
            layer.forward(x, &mut y, &mut Workspace::default()).unwrap();
            y
        };
        for inputs in [Inputs::Int8, Inputs::F32] {
            for activation in [Activation::Identity, Activation::Gelu, Activation::Silu] {
                let y = forward(&[-1e38, -1e38, 0.0, 0.0], &[1e38, 1e38], inputs, activation);
                assert_eq!(y, [if activation == Activation::Identity { f32::NEG_INFINITY } else { 0.0 }, 0.0]);
            }
            let y = forward(&[1e-21; 4096], &[1e-21; 4096], inputs, Activation::Identity);
            assert!((y[0] / 4.096e-39 - 1.0).abs() < 1e-3, "{y:?}");
        }
        let grid = Grid::Affine { scale: Values::F64(vec![1e-60]).into(), zero_point: None };
        let q = QTensor::from_codes(&[1, 1], 8, Granularity::Tensor, grid, &[255u8]).unwrap();
        assert_eq!(Linear::new(&q).unwrap_err().kind(), ErrorKind::Argument);
    }
}
