//! Tensors as ONNX keeps them: raw bytes, typed fields, or a place in another file.

use super::{
    Bytes, data_type, element_type,
    proto::{StringStringEntryProto, TensorProto},
};
use crate::{
    error::{Error, Result},
    format::file::{ElementType, TensorInfo},
};

/// `TensorProto.DataLocation.EXTERNAL`.
pub(super) const EXTERNAL: i32 = 1;
/// What a tensor's elements that are still to come are marked by: no file's key.
const PENDING: &str = "\0pending";

/// A tensor with its elements.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for a type that ONNX does not have or sizes beyond it, [`Shape`](crate::ErrorKind::Shape) where
/// `raw` are not the bytes of so many elements.
pub fn tensor(name: &str, element: ElementType, shape: &[usize], raw: Bytes) -> Result<TensorProto> {
    let info = TensorInfo { name: name.into(), element, shape: shape.into() };
    info.check_bytes(raw.len())?;
    Ok(TensorProto { raw_data: Some(raw), ..empty(&info)? })
}

/// A tensor whose elements are written later, to the place `number` of the file.
///
/// # Errors
/// As [`tensor`].
pub fn pending(name: &str, element: ElementType, shape: &[usize], number: usize) -> Result<TensorProto> {
    let info = TensorInfo { name: name.into(), element, shape: shape.into() };
    let mark = StringStringEntryProto { key: Some(PENDING.into()), value: Some(number.to_string()) };
    info.byte_len()?;
    Ok(TensorProto { external_data: vec![mark], ..empty(&info)? })
}

/// The number of a pending tensor.
pub(crate) fn pending_number(tensor: &TensorProto) -> Option<usize> {
    let mark = tensor.external_data.first()?;
    if mark.key.as_deref() == Some(PENDING) { mark.value.as_deref()?.parse().ok() } else { None }
}

fn empty(info: &TensorInfo) -> Result<TensorProto> {
    let refused = || Error::argument("element type", info.element, "one of ONNX's").in_tensor(&info.name);
    let beyond = |_| Error::argument("shape", format!("{:?}", info.shape), "of sizes below 2^63").in_tensor(&info.name);
    Ok(TensorProto {
        dims: info.shape.iter().map(|&size| size.try_into()).collect::<Result<_, _>>().map_err(beyond)?,
        data_type: Some(data_type(info.element).filter(|_| info.element.bits().is_some()).ok_or_else(refused)?),
        name: Some(info.name.clone()),
        ..Default::default()
    })
}

pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(EXTERNAL)
}

/// What a tensor of this name is; `None` for texts, which are not numbers.
pub(crate) fn info(name: String, tensor: &TensorProto) -> Result<Option<TensorInfo>> {
    let number = tensor.data_type.unwrap_or(0);
    let unknown = || Error::format(0, format!("element type {number} is not known")).in_tensor(&name);
    let element = element_type(number).ok_or_else(unknown)?;
    if element == ElementType::Text {
        return Ok(None);
    }
    let size =
        |&size: &i64| usize::try_from(size).map_err(|_| Error::format(0, format!("a size of {size}")).in_tensor(&name));
    let shape = tensor.dims.iter().map(size).collect::<Result<_>>()?;
    let info = TensorInfo { name, element, shape };
    info.byte_len()?;
    Ok(Some(info))
}

/// The elements of a tensor that has them: a view of raw ones, else those of the typed field, as raw ones would be. An error where they are
/// not as many as type and shape say.
pub(crate) fn bytes(tensor: &TensorProto, info: &TensorInfo) -> Result<Bytes> {
    use ElementType::*;
    fn all<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Bytes {
        values.iter().flat_map(|&value| bytes(value)).collect::<Vec<u8>>().into()
    }
    let bytes = match (&tensor.raw_data, info.element) {
        (Some(raw), _) => raw.clone(),
        (None, F32 | C64) => all(&tensor.float_data, f32::to_le_bytes),
        (None, F64 | C128) => all(&tensor.double_data, f64::to_le_bytes),
        (None, I64) => all(&tensor.int64_data, i64::to_le_bytes),
        (None, U64) => all(&tensor.uint64_data, u64::to_le_bytes),
        (None, U32) => all(&tensor.uint64_data, |value| (value as u32).to_le_bytes()),
        (None, I32) => all(&tensor.int32_data, i32::to_le_bytes),
        (None, I16 | U16 | F16 | Bf16) => all(&tensor.int32_data, |value| (value as u16).to_le_bytes()),
        // Smaller ones lie side by side in the lowest byte.
        (None, _) => all(&tensor.int32_data, |value| [value as u8]),
    };
    info.check_bytes(bytes.len()).map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_fields_are_as_raw_ones() {
        let of = |element, shape: &[usize], tensor: TensorProto| {
            let tensor = TensorProto { data_type: data_type(element), ..tensor };
            let info = TensorInfo { name: String::new(), element, shape: shape.into() };
            bytes(&tensor, &info).unwrap().to_vec()
        };
        let ints = |values: &[i32]| TensorProto { int32_data: values.into(), ..Default::default() };
        assert_eq!(of(ElementType::F16, &[2], ints(&[0x3c00, 0xc000])), [0, 0x3c, 0, 0xc0]);
        assert_eq!(of(ElementType::I8, &[2], ints(&[-1, 2])), [255, 2]);
        assert_eq!(of(ElementType::U4, &[3], ints(&[0x21, 0x03])), [0x21, 3]);
        assert_eq!(of(ElementType::Bool, &[2], ints(&[1, 0])), [1, 0]);
        let floats = TensorProto { float_data: vec![1.0], ..Default::default() };
        assert_eq!(of(ElementType::F32, &[], floats), 1f32.to_le_bytes());
        let wide = TensorProto { uint64_data: vec![7], ..Default::default() };
        assert_eq!(of(ElementType::U32, &[1], wide.clone()), 7u32.to_le_bytes());
        assert_eq!(of(ElementType::U64, &[1], wide), 7u64.to_le_bytes());
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        assert!(tensor("a", ElementType::F32, &[2], Bytes::from_static(&[0; 7])).is_err());
        assert!(tensor("a", ElementType::Text, &[0], Bytes::new()).is_err());
        assert!(pending("a", ElementType::F32, &[usize::MAX, 2], 0).is_err());
        let bad = TensorProto { data_type: Some(77), ..Default::default() };
        assert!(info("a".into(), &bad).is_err());
        let bad = TensorProto { data_type: Some(1), dims: vec![-1], ..Default::default() };
        assert!(info("a".into(), &bad).is_err());
        let text = TensorProto { data_type: Some(8), ..Default::default() };
        assert_eq!(info("a".into(), &text).unwrap(), None);
    }
}
