//! Elements of candle's tensors, lent: to read, and those of a variable to change.

use super::{
    Scalar,
    scalar::{name, wrong_type},
    strided::{self, too_short},
};
use crate::{
    error::{Error, Result},
    optim::Locked,
    tensor::{QTensor, TensorMut, TensorRef},
};
use candle_core::{
    CpuStorage, CudaStorage, Device, InplaceOp1, Layout, MetalStorage, Storage, StorageRef, Tensor, Var,
    backend::BackendStorage,
};
use std::{borrow::Cow, cell::Cell, marker::PhantomData, ops::Range};

/// A tensor's elements in logical order: borrowed where they lie so, else a copy. See [`view`].
///
/// While one that borrows lives, candle's lock on the storage is held for reading, and whoever changes the tensor in place waits: drop it
/// before a step or an [`edit`] of that tensor on the same thread, which would wait for ever.
pub struct View<'a, T: Scalar> {
    elements: Elements<'a, T>,
    shape: &'a [usize],
}

enum Elements<'a, T> {
    Lent { storage: StorageRef<'a>, range: Range<usize> },
    Copied(Vec<T>),
}

/// A tensor on the CPU as quantizers, pruners and files of this crate read it. Transposed and broadcast ones are copied.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lapidary::{QuantizerExt, backend::candle::view, quant::MinMax};
/// let weights = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.0]], &Device::Cpu)?;
/// let q = MinMax::new(8)?.quantize(&view::<f32>(&weights)?)?;
/// assert_eq!(q.shape(), [2, 2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for a tensor of another element type, or on another device: it is never copied
/// from there by itself.
pub fn view<T: Scalar>(tensor: &Tensor) -> Result<View<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let copied = match logical::<T>(cpu(&storage)?, layout)? {
        Cow::Owned(copy) => Some(copy),
        Cow::Borrowed(_) => None,
    };
    let elements = match (copied, layout.contiguous_offsets()) {
        (None, Some((start, end))) => Elements::Lent { range: start..end, storage },
        (copy, _) => Elements::Copied(copy.unwrap_or_default()),
    };
    Ok(View { elements, shape: tensor.dims() })
}

impl<T: Scalar> View<'_, T> {
    /// The elements in logical order.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match &self.elements {
            Elements::Copied(elements) => elements,
            Elements::Lent { storage, range } => {
                let elements = cpu(storage).and_then(elements).ok().and_then(|elements| elements.get(range.clone()));
                elements.unwrap_or_default() // checked when the view was made
            }
        }
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.shape
    }

    /// Whether the elements are those of the tensor, not a copy.
    #[must_use]
    pub fn is_borrowed(&self) -> bool {
        matches!(self.elements, Elements::Lent { .. })
    }
}

impl<T: Scalar> std::fmt::Debug for View<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("elements", &self.as_slice()).field("shape", &self.shape).finish()
    }
}

impl<'v, T: Scalar> From<&'v View<'_, T>> for TensorRef<'v, T> {
    fn from(view: &'v View<'_, T>) -> Self {
        Self::from_parts(view.as_slice().into(), view.shape.into())
    }
}

/// Changes a variable on the CPU where it lies: applies a mask, puts decoded values back, takes a step.
///
/// The variable's lock is held meanwhile, so `change` must not read it, or a tensor that shares its storage, by candle.
///
/// ```
/// use candle_core::{Device, Var};
/// use lapidary::{PrunerExt, backend::candle::{edit, view}, prune::Magnitude};
/// let weights = Var::new(&[0.5f32, -0.01, 0.02, -1.0], &Device::Cpu)?;
/// let mask = Magnitude::sparsity(0.5)?.mask(&view::<f32>(&weights)?)?;
/// edit::<f32, _>(&weights, |w| mask.apply(w))?;
/// assert_eq!(weights.to_vec1::<f32>()?, [0.5, 0.0, 0.0, -1.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for a variable of another element type, on another device, or whose elements do
/// not lie in logical order; and what `change` gives.
pub fn edit<T: Scalar, R>(var: &Var, change: impl FnOnce(TensorMut<'_, T>) -> Result<R>) -> Result<R> {
    if var.elem_count() == 0 {
        // candle takes some of these for tensors that overlap.
        check_var::<T>(var)?;
        return change(TensorMut::new(&mut [], var.dims())?);
    }
    let edit = Edit { change: Cell::new(Some(change)), result: Cell::new(None), element: PhantomData };
    var.inplace_op1(&edit)?;
    edit.result.take().unwrap_or_else(|| Err(Error::runtime("candle", "an in-place operation was not run")))
}

/// candle's way to a storage to change takes `&self`, so what changes it, and what comes of that, lies in cells.
struct Edit<T, F, R> {
    change: Cell<Option<F>>,
    result: Cell<Option<Result<R>>>,
    element: PhantomData<T>,
}

impl<T: Scalar, R, F: FnOnce(TensorMut<'_, T>) -> Result<R>> InplaceOp1 for Edit<T, F, R> {
    fn name(&self) -> &'static str {
        "lapidary-edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let changed =
            lend(storage, layout).and_then(|tensor| self.change.take().map(|change| change(tensor)).transpose());
        self.result.set(changed.transpose());
        Ok(())
    }

    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout) -> candle_core::Result<()> {
        self.result.set(Some(Err(elsewhere("CUDA"))));
        Ok(())
    }

    fn metal_fwd(&self, _: &mut MetalStorage, _: &Layout) -> candle_core::Result<()> {
        self.result.set(Some(Err(elsewhere("Metal"))));
        Ok(())
    }
}

/// The elements of a layout, to change.
fn lend<'a, T: Scalar>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<TensorMut<'a, T>> {
    let (start, end) = contiguous(layout)?;
    let found = storage.dtype();
    let elements = T::storage_mut(storage).ok_or_else(|| wrong_type(found, name::<T>()))?;
    TensorMut::new(elements.get_mut(start..end).ok_or_else(too_short)?, layout.dims())
}

/// Whatever [`edit`] refuses.
pub(super) fn check_var<T: Scalar>(var: &Tensor) -> Result<()> {
    let (storage, layout) = var.storage_and_layout();
    let (start, end) = contiguous(layout)?;
    elements::<T>(cpu(&storage)?)?.get(start..end).ok_or_else(too_short)?;
    Ok(())
}

fn contiguous(layout: &Layout) -> Result<(usize, usize)> {
    let strides =
        || Error::argument("strides of a variable", format!("{:?}", layout.stride()), "those of logical order");
    layout.contiguous_offsets().ok_or_else(strides)
}

/// The storage of a tensor on the CPU.
pub(super) fn cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        Storage::Cuda(_) => Err(elsewhere("CUDA")),
        Storage::Metal(_) => Err(elsewhere("Metal")),
    }
}

fn elsewhere(device: &'static str) -> Error {
    Error::argument("device of a tensor", device, "the CPU: `to_device` copies it there")
}

/// The elements of a storage, those of all tensors that share it.
pub(super) fn elements<T: Scalar>(storage: &CpuStorage) -> Result<&[T]> {
    T::cpu_storage_as_slice(storage).map_err(|_| wrong_type(storage.dtype(), name::<T>()))
}

/// The elements of a layout in logical order.
pub(super) fn logical<'a, T: Scalar>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [T]>> {
    let elements = elements::<T>(storage)?;
    if let Some((start, end)) = layout.contiguous_offsets() {
        return Ok(elements.get(start..end).ok_or_else(too_short)?.into());
    }
    let mut copy = Vec::new();
    strided::append(elements, layout, &mut copy)?;
    Ok(copy.into())
}

impl<T: Scalar> Locked<T> for Var {
    fn shape(&self) -> &[usize] {
        self.dims()
    }

    fn len(&self) -> usize {
        self.elem_count()
    }

    fn with(&self, step: &mut dyn FnMut(TensorMut<'_, T>) -> Result<()>) -> Result<()> {
        edit(self, step)
    }
}

impl QTensor {
    /// The decoded values as a tensor of candle on the CPU. Needs the feature `candle`.
    ///
    /// ```
    /// use lapidary::{QuantizerExt, quant::Symmetric};
    /// let q = Symmetric::new(4)?.quantize(&[0.7f32, -0.31, 0.0])?;
    /// let back = q.to_candle::<f32>()?;
    /// assert_eq!(back.to_vec1::<f32>()?, q.dequantize::<f32>());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Runtime`](crate::ErrorKind::Runtime) when candle refuses it.
    pub fn to_candle<T: Scalar>(&self) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.dequantize::<T>(), self.shape(), &Device::Cpu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use candle_core::DType;

    #[test]
    fn other_devices_are_refused_by_name() {
        // What candle has in place of CUDA's storage when it is built without.
        let error = cpu(&Storage::Cuda(CudaStorage)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(error.to_string().contains("CUDA"), "{error}");
        let edit = Edit {
            change: Cell::new(Some(|_: TensorMut<'_, f32>| Ok(()))),
            result: Cell::new(None),
            element: PhantomData,
        };
        let layout = Layout::contiguous(2);
        edit.cuda_fwd(&mut CudaStorage, &layout).unwrap();
        assert_eq!(edit.result.take().unwrap().unwrap_err().to_string(), error.to_string());
        edit.metal_fwd(&mut MetalStorage, &layout).unwrap();
        assert!(edit.result.take().unwrap().unwrap_err().to_string().contains("Metal"));
    }

    #[test]
    fn what_is_not_in_logical_order_is_copied_to_read_and_refused_to_change() {
        let tensor = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
        let turned = tensor.t().unwrap();
        let copy = view::<f32>(&turned).unwrap();
        assert_eq!(
            (copy.as_slice(), copy.shape(), copy.is_borrowed()),
            (&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0][..], &[3, 2][..], false)
        );
        let row = tensor.narrow(0, 1, 1).unwrap();
        let lent = view::<f32>(&row).unwrap();
        assert_eq!((lent.as_slice(), lent.is_borrowed()), (&[3.0, 4.0, 5.0][..], true));
        let wide = tensor.narrow(1, 0, 1).unwrap().broadcast_as((2, 2)).unwrap();
        assert_eq!(view::<f32>(&wide).unwrap().as_slice(), [0.0, 0.0, 3.0, 3.0]);
        let error = check_var::<f32>(&turned).unwrap_err();
        assert!(error.to_string().contains("strides"), "{error}");
        assert_eq!(check_var::<f64>(&tensor).unwrap_err().to_string(), "element type is f32, must be f64");
        let whole = Tensor::zeros(2, DType::U8, &Device::Cpu).unwrap();
        assert_eq!(view::<f32>(&whole).unwrap_err().kind(), ErrorKind::Argument);
    }
}
