//! Constants of 32-bit floating-point numbers.

use crate::{
    error::Result,
    format::{
        file::ElementType,
        onnx::{self, Bytes, proto::TensorProto},
    },
};

/// The shape and the numbers of a tensor; `None` where they are of another type. Memory is asked for only what there are bytes for.
pub(in crate::compress) fn numbers(name: &str, tensor: &TensorProto) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
    let info = onnx::tensor_info(name.into(), tensor)?;
    let Some(info) = info.filter(|info| info.element == ElementType::F32) else { return Ok(None) };
    let bytes = onnx::tensor_bytes(tensor, &info)?;
    let mut values = vec![0.0; info.volume()?];
    info.element.to_f32(&bytes, &mut values)?;
    Ok(Some((info.shape, values)))
}

/// A tensor of these numbers.
///
/// # Errors
/// As [`onnx::tensor`].
pub(in crate::compress) fn tensor(name: &str, shape: &[usize], values: &[f32]) -> Result<TensorProto> {
    onnx::tensor(name, ElementType::F32, shape, bytes(values))
}

/// Numbers as a file has them.
pub(in crate::compress) fn bytes(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_without_bytes_ask_for_no_memory() {
        let claimed = TensorProto { dims: vec![1 << 60], data_type: Some(1), ..Default::default() };
        assert_eq!(numbers("w", &claimed).unwrap_err().tensor(), Some("w"));
        let there = tensor("w", &[2], &[1.0, -2.0]).unwrap();
        assert_eq!(numbers("w", &there).unwrap(), Some((vec![2], vec![1.0, -2.0])));
        assert_eq!(numbers("w", &TensorProto { data_type: Some(7), ..there }).unwrap(), None);
    }
}
