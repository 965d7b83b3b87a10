//! Rounding in training, as operations of candle's graph.

use super::{
    Scalar,
    scalar::by_dtype,
    tensor::{logical, view},
};
use crate::{
    error::{Error, Result},
    quant::{FakeQuantize, Lsq},
    tensor::{QTensor, TensorMut, TensorRef, view::filled},
};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Shape, Tensor, backend::BackendStorage};
use std::{borrow::Cow, sync::Arc};

/// Rounds a tensor to levels, with the straight-through gradient: [`FakeQuantize`] in candle's graph, bit for bit.
///
/// The gradient goes through where a value is within the levels, and is 0 outside of them. Fit the levels as often as they are to follow
/// the weights; each call's are those of its backward pass.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use lapidary::{QuantizerExt, backend::candle::{fake_quantize, view}, quant::{FakeQuantize, Symmetric}};
/// let symmetric = Symmetric::new(3)?;
/// let w = Var::new(&[-1.4f32, 0.0, 0.4, 0.74, 1.1], &Device::Cpu)?;
/// let levels = symmetric.quantize(&[0.75f32; 5])?; // the scale is 0.25; in training, of `&view::<f32>(&w)?`
/// let y = fake_quantize(&w, FakeQuantize::from(symmetric), levels)?;
/// assert_eq!(y.to_vec1::<f32>()?, [-0.75, 0.0, 0.5, 0.75, 0.75]);
/// let grads = y.sum_all()?.backward()?;
/// let grad = grads.get(&w).expect("y depends on w");
/// assert_eq!(grad.to_vec1::<f32>()?, [0.0, 1.0, 1.0, 1.0, 0.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// As [`FakeQuantize::forward`], wrapped; for a tensor of another element type as [`view`]; candle's own on another device than the CPU.
pub fn fake_quantize(
    values: &Tensor,
    scheme: FakeQuantize,
    levels: impl Into<Arc<QTensor>>,
) -> candle_core::Result<Tensor> {
    values.apply_op1(Rounding { scheme, levels: levels.into() })
}

/// Rounds a tensor to levels whose scales are trained: [`Lsq`] in candle's graph, bit for bit, with the gradients of both.
///
/// `scales` has one axis and a scale for each group; it is of `f32`, or of `f64` for values of `f64`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use lapidary::{backend::candle::{VarParams, edit, lsq, view}, optim::Adam, quant::Lsq};
/// let w = Tensor::new(&[-1.0f32, -0.4, 0.1, 0.9], &Device::Cpu)?;
/// let scheme = Lsq::new(2)?;
/// let scales = Var::new(scheme.initial_scales(&view::<f32>(&w)?)?, &Device::Cpu)?;
/// let mut trained = VarParams::<f32>::default();
/// let group = trained.group(Adam::new(1e-2)?);
/// trained.add("w.scale", &scales, group)?;
/// for _ in 0..300 {
///     let loss = lsq(&w, &scales, scheme)?.sub(&w)?.sqr()?.sum_all()?;
///     trained.step(&loss.backward()?)?;
///     edit::<f32, _>(&scales, |mut scales| Ok(scales.as_mut_slice().iter_mut().for_each(|s| *s = s.max(1e-6))))?;
/// }
/// let q = scheme.quantize(&view::<f32>(&w)?, view::<f32>(&scales)?.as_slice())?;
/// assert_eq!(q.signed_codes(), [-2, -1, 0, 1]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// As [`Lsq::forward`], wrapped; for a tensor of another element type as [`view`]; candle's own on another device than the CPU.
pub fn lsq(values: &Tensor, scales: &Tensor, scheme: Lsq) -> candle_core::Result<Tensor> {
    values.apply_op2(scales, Learned(scheme))
}

struct Rounding {
    scheme: FakeQuantize,
    levels: Arc<QTensor>,
}

impl CustomOp1 for Rounding {
    fn name(&self) -> &'static str {
        "lapidary-fake-quantize"
    }

    fn cpu_fwd(&self, values: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let rounded = by_dtype!(values.dtype(), rounded(self, values, layout))?;
        Ok((rounded, layout.shape().clone()))
    }

    fn bwd(&self, values: &Tensor, _: &Tensor, upstream: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(by_dtype!(values.dtype(), through(self, values, upstream))?))
    }
}

fn rounded<T: Scalar>(op: &Rounding, values: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
    let values = logical::<T>(values, layout)?;
    let mut out = filled(values.len(), T::default())?;
    let shape = layout.dims();
    op.scheme.forward(TensorRef::new(&values, shape)?, &op.levels, TensorMut::new(&mut out, shape)?)?;
    Ok(T::to_cpu_storage_owned(out))
}

fn through<T: Scalar>(op: &Rounding, values: &Tensor, upstream: &Tensor) -> Result<Tensor> {
    let mut out = filled(values.elem_count(), T::default())?;
    let gradient = TensorMut::new(&mut out, values.dims())?;
    op.scheme.backward(&view::<T>(values)?, &op.levels, &view::<T>(upstream)?, gradient)?;
    Ok(Tensor::from_vec(out, values.shape(), &Device::Cpu)?)
}

struct Learned(Lsq);

impl CustomOp2 for Learned {
    fn name(&self) -> &'static str {
        "lapidary-lsq"
    }

    fn cpu_fwd(
        &self,
        values: &CpuStorage,
        layout: &Layout,
        scales: &CpuStorage,
        scales_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let rounded = by_dtype!(values.dtype(), learned(self.0, (values, layout), (scales, scales_layout)))?;
        Ok((rounded, layout.shape().clone()))
    }

    fn bwd(
        &self,
        values: &Tensor,
        scales: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [values, scales] = by_dtype!(values.dtype(), both(self.0, values, scales, upstream))?;
        Ok((Some(values), Some(scales)))
    }
}

type Stored<'a> = (&'a CpuStorage, &'a Layout);

fn learned<T: Scalar<Real: Scalar>>(scheme: Lsq, values: Stored<'_>, scales: Stored<'_>) -> Result<CpuStorage> {
    let (shape, values, scales) = (values.1.dims(), logical::<T>(values.0, values.1)?, scales_of::<T>(scales)?);
    let mut out = filled(values.len(), T::default())?;
    scheme.forward(TensorRef::new(&values, shape)?, &scales, TensorMut::new(&mut out, shape)?)?;
    Ok(T::to_cpu_storage_owned(out))
}

fn scales_of<'a, T: Scalar<Real: Scalar>>((scales, layout): Stored<'a>) -> Result<Cow<'a, [T::Real]>> {
    if let [_] = layout.dims() {
        return logical(scales, layout);
    }
    Err(Error::argument("shape of the scales", format!("{:?}", layout.dims()), "of one axis"))
}

fn both<T: Scalar<Real: Scalar>>(
    scheme: Lsq,
    values: &Tensor,
    scales: &Tensor,
    upstream: &Tensor,
) -> Result<[Tensor; 2]> {
    let mut gradient = filled(values.elem_count(), T::default())?;
    let mut scale_gradient = filled(scales.elem_count(), <T::Real as Default>::default())?;
    scheme.backward(
        &view::<T>(values)?,
        view::<T::Real>(scales)?.as_slice(),
        &view::<T>(upstream)?,
        TensorMut::new(&mut gradient, values.dims())?,
        &mut scale_gradient,
    )?;
    let gradient = Tensor::from_vec(gradient, values.shape(), &Device::Cpu)?;
    Ok([gradient, Tensor::from_vec(scale_gradient, scales.shape(), &Device::Cpu)?])
}
