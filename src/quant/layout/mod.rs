//! Quantized tensors as the bytes that other tools keep. Files themselves are not read or written here.
//!
//! | layout | of | to and from [`QTensor`] |
//! |---|---|---|
//! | [`OnnxLinear`] | ONNX's integer tensors of 2 to 16 bits, for `DequantizeLinear` | exact |
//! | [`MatMulNBits`] | ONNX Runtime's operator | exact; with zero points in `f32` within 2 ulp |
//! | [`GgmlType`] | the blocks of GGUF files | to one exact; from one exact where the levels are the same, else measured |
//!
//! [`OrtRoundToNearest`] quantizes as ONNX Runtime does, and [`GgmlType::encode`] as llama.cpp does, where its format
//! says how. What that can have cost is [certified](crate::quant::Certificate) from what is stored.

mod gguf;
mod matmul_nbits;
mod onnx;
mod ort;

pub use gguf::{Converted, Encoded, GgmlType};
pub use matmul_nbits::{MatMulNBits, ZeroPoints};
pub use onnx::{OnnxLinear, OnnxType};
pub use ort::OrtRoundToNearest;

use crate::{kernel::rows::Groups, tensor::QTensor};

/// The group of each run of `size` neighbours along the last axis, row after row; `None` where a run lies in several
/// groups.
fn groups_of_runs(q: &QTensor, size: usize) -> Option<Vec<usize>> {
    let layout = q.layout();
    let (cols, rows) = (layout.cols, q.len() / layout.cols);
    let runs = cols.div_ceil(size);
    let mut groups = Vec::with_capacity(rows * runs);
    for row in 0..rows {
        match layout.groups {
            Groups::Whole => groups.resize(groups.len() + runs, 0),
            Groups::Rows { repeat, count } => groups.resize(groups.len() + runs, row / repeat % count),
            Groups::Blocks { size: group } if group.is_multiple_of(size) || group >= cols => {
                let (first, together) = (row * cols.div_ceil(group), group.div_ceil(size));
                groups.extend((0..runs).map(|run| first + run / together));
            }
            _ => return None,
        }
    }
    Some(groups)
}
