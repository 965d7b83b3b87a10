//! What is said of a model to the bytes of a file.

use super::{
    MAGIC, MAX_DEPTH, VERSION, id_of,
    read::alignment,
    value::{ARRAY, Array, BOOL, STRING, Value, numbers},
};
use crate::{
    error::{Error, Result},
    format::file::{Layout, TensorInfo},
};
use std::collections::HashSet;

/// The longest key that the format allows.
const MAX_KEY: usize = 65_535;
/// The longest name that ggml reads.
const MAX_NAME: usize = 63;
/// The most axes that ggml reads.
const MAX_AXES: usize = 4;

/// A file of version 3 for these tensors, before their elements are there.
///
/// | parameter | range | purpose |
/// |---|---|---|
/// | `tensors` | names of up to 63 bytes, each once; up to 4 axes; types of GGUF | in this order |
/// | `metadata` | keys of up to 65,535 bytes, each once; arrays in arrays up to 8 deep | in this order; nothing is added to it |
///
/// Tensors begin at multiples of `general.alignment` of the metadata, a power of two in 32 bits, or of 32. Loaders ask for
/// `general.architecture` and what that needs.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) outside of these ranges, and as [`TensorInfo::byte_len`].
///
/// ```
/// use lapidary::format::{file::{ElementType, TensorFile, TensorInfo}, gguf::{self, Gguf, Value}};
///
/// let bias = TensorInfo { name: "bias".into(), element: ElementType::F32, shape: vec![2] };
/// let metadata = [("general.architecture".to_string(), Value::String("mlp".into()))];
/// let path = std::env::temp_dir().join(format!("lapidary-doc-{}.gguf", std::process::id()));
/// let file = gguf::layout(&[bias], &metadata)?.create(&path)?;
/// file.write(0, 0, &[1.0f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat())?;
/// file.finish()?;
///
/// let file = Gguf::open(&path)?;
/// assert_eq!(file.value("general.architecture"), Some(&Value::String("mlp".into())));
/// assert_eq!((&file as &dyn TensorFile).to_f32(0)?, [1.0, 2.0]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), lapidary::Error>(())
/// ```
pub fn layout(tensors: &[TensorInfo], metadata: &[(String, Value)]) -> Result<Layout> {
    let alignment = u64::from(alignment(metadata)?);
    let mut out = [MAGIC, &VERSION.to_le_bytes()].concat();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        if key.len() > MAX_KEY || !keys.insert(key) {
            return Err(Error::argument("key", format!("{key:?}"), "of up to 65,535 bytes, and not twice"));
        }
        string(&mut out, key);
        write_value(&mut out, value)?;
    }
    let mut names = HashSet::new();
    let mut offset = 0u64;
    for tensor in tensors {
        let named = |error: Error| error.in_tensor(&tensor.name);
        if tensor.name.len() > MAX_NAME || !names.insert(&tensor.name) {
            return Err(named(Error::argument("name", &tensor.name, "of up to 63 bytes, and not twice")));
        }
        let rank = tensor.shape.len();
        if rank > MAX_AXES {
            return Err(named(Error::argument("axes", rank, "at most 4")));
        }
        let id = id_of(tensor.element);
        let id = id.ok_or_else(|| named(Error::argument("element type", tensor.element, "one of GGUF")))?;
        string(&mut out, &tensor.name);
        out.extend((rank as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&size| out.extend((size as u64).to_le_bytes()));
        out.extend(id.to_le_bytes());
        out.extend(offset.to_le_bytes());
        // Beyond 2^64, the layout is refused.
        offset = offset.saturating_add(tensor.byte_len()? as u64);
        offset = offset.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    }
    let mut layout = Layout::in_order(out, tensors, alignment)?;
    // Loaders read the last tensor up to the next multiple.
    let len = layout.len.checked_next_multiple_of(alignment);
    layout.len = len.ok_or_else(|| Error::argument("length of the file", "2^64 bytes", "below 2^64"))?;
    Ok(layout)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    macro_rules! write {
        ($($id:literal $variant:ident $number:ident),*) => {
            match value {
                $(Value::$variant(value) => {
                    out.extend(u32::to_le_bytes($id));
                    out.extend($number::to_le_bytes(*value));
                })*
                Value::Bool(value) => {
                    out.extend(BOOL.to_le_bytes());
                    out.push(u8::from(*value));
                }
                Value::String(value) => {
                    out.extend(STRING.to_le_bytes());
                    string(out, value);
                }
                Value::Array(value) => {
                    out.extend(ARRAY.to_le_bytes());
                    write_array(out, value, 1)?;
                }
            }
        };
    }
    numbers!(write!());
    Ok(())
}

fn write_array(out: &mut Vec<u8>, array: &Array, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::argument("depth of arrays in arrays", depth, "at most 8"));
    }
    let begin = |out: &mut Vec<u8>, id: u32, len: usize| {
        out.extend(id.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    macro_rules! write {
        ($($id:literal $variant:ident $number:ident),*) => {
            match array {
                $(Array::$variant(values) => {
                    begin(out, $id, values.len());
                    values.iter().for_each(|value| out.extend($number::to_le_bytes(*value)));
                })*
                Array::Bool(values) => {
                    begin(out, BOOL, values.len());
                    out.extend(values.iter().copied().map(u8::from));
                }
                Array::String(values) => {
                    begin(out, STRING, values.len());
                    values.iter().for_each(|value| string(out, value));
                }
                Array::Array(values) => {
                    begin(out, ARRAY, values.len());
                    values.iter().try_for_each(|value| write_array(out, value, depth + 1))?;
                }
            }
        };
    }
    numbers!(write!());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::ALIGNMENT, *};
    use crate::format::file::{BlockType, ElementType};

    fn info(name: &str, element: ElementType, shape: &[usize]) -> TensorInfo {
        TensorInfo { name: name.into(), element, shape: shape.into() }
    }

    #[test]
    fn what_others_could_not_read_is_refused() {
        let refused = |tensors: &[TensorInfo], metadata: &[(String, Value)]| layout(tensors, metadata).unwrap_err();
        let ok = info("ok", ElementType::F32, &[1]);
        assert_eq!(refused(&[ok.clone(), ok.clone()], &[]).tensor(), Some("ok"));
        assert!(refused(&[info(&"n".repeat(64), ElementType::F32, &[1])], &[]).to_string().contains("63 bytes"));
        assert!(refused(&[info("t", ElementType::F32, &[1; 5])], &[]).to_string().contains("axes is 5"));
        assert!(refused(&[info("t", ElementType::Bool, &[1])], &[]).to_string().contains("bool"));
        let half = info("t", ElementType::Block(BlockType::Q4_0), &[32, 16]);
        assert!(refused(&[half], &[]).to_string().contains("row length is 16"));
        let pair = ("k".to_string(), Value::Bool(true));
        assert!(refused(&[], &[pair.clone(), pair]).to_string().contains("twice"));
        let mut deep = Array::U8(vec![]);
        for _ in 0..MAX_DEPTH {
            deep = Array::Array(vec![deep]);
        }
        assert!(refused(&[], &[("k".into(), Value::Array(deep))]).to_string().contains("depth"));
        for alignment in [Value::U32(0), Value::U32(24), Value::U64(32)] {
            assert!(refused(&[], &[(ALIGNMENT.into(), alignment)]).to_string().contains("power of two"));
        }
        let huge = info("huge", ElementType::I8, &[usize::MAX - 32]);
        assert!(layout(&[huge.clone(), ok], &[]).is_err());
        assert!(refused(&[huge], &[]).to_string().contains("length of the file"));
    }
}
