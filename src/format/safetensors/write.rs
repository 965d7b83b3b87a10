//! Headers, and files whose tensors are written in any order.

use super::{LENGTH, MAX_HEADER, NOTES, element::dtype, twice, whole_bytes};
use crate::{
    error::{Error, Result},
    format::file::{Layout, TensorInfo},
};
use safetensors::{Dtype, tensor::TensorInfo as Entry};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{cmp::Reverse, collections::BTreeMap};

/// Where everything of a file of these tensors and this metadata will be, before they are there.
///
/// In the file, the widest types come first, so that each tensor is aligned, and then tensors are by their names; the same tensors have
/// the same bytes, whatever their order here. [`Writer::write`](crate::format::file::Writer::write) counts them as they are here.
///
/// ```
/// use lapidary::format::{file::{ElementType, TensorInfo}, safetensors};
/// # let path = std::env::temp_dir().join(format!("lapidary-doc-{}.safetensors", std::process::id()));
/// let info = |name: &str, element, shape: &[usize]| TensorInfo { name: name.into(), element, shape: shape.into() };
/// let tensors = [info("mask", ElementType::Bool, &[3]), info("weight", ElementType::F32, &[2])];
/// let file = safetensors::layout(&tensors, &[("format".into(), "pt".into())].into())?.create(&path)?;
/// file.write(1, 4, &2f32.to_le_bytes())?;
/// file.write(0, 0, &[1, 0, 1])?;
/// file.write(1, 0, &1f32.to_le_bytes())?;
/// file.finish()?;
/// let read = lapidary::format::file::open(&path)?;
/// assert_eq!(read.to_f32(read.find("weight").unwrap())?, [1.0, 2.0]);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), lapidary::Error>(())
/// ```
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for two tensors of one name, a name that is the metadata's, a type that the format does not
/// have, elements of less than a byte that do not fill their last byte, and a header of more than 100 MB.
pub fn layout(tensors: &[TensorInfo], metadata: &BTreeMap<String, String>) -> Result<Layout> {
    let mut entries = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        let dtype = dtype(tensor.element).map_err(|error| error.in_tensor(&tensor.name))?;
        let whole = || {
            let found = format!("{} of {:?}", tensor.element, tensor.shape);
            Error::argument("tensor", found, "of whole bytes, fewer than 2^64").in_tensor(&tensor.name)
        };
        let len = whole_bytes(tensor).ok_or_else(whole)?;
        entries.push((index, Named { name: &tensor.name, dtype, shape: &tensor.shape, len }));
    }
    entries.sort_by_key(|(_, entry)| (Reverse(entry.dtype), entry.name));
    let sorted: Vec<_> = entries.iter().map(|(_, entry)| *entry).collect();
    let header = header(&sorted, metadata)?;
    let order: Vec<_> = entries.iter().map(|(index, _)| *index).collect();
    let tensors: Vec<_> = order.iter().filter_map(|&index| tensors.get(index).cloned()).collect();
    // Types go from wide to narrow: side by side, each is aligned.
    let mut layout = Layout::in_order(header, &tensors, 1)?;
    let mut places: Vec<_> = order.into_iter().zip(layout.places).collect();
    places.sort_unstable_by_key(|(index, _)| *index);
    layout.places = places.into_iter().map(|(_, place)| place).collect();
    Ok(layout)
}

/// A tensor of a header.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    /// In bytes.
    pub(super) len: usize,
}

/// The header of these tensors, in the order of the file, filled up to a multiple of 8 bytes.
///
/// # Errors
/// [`Argument`](crate::ErrorKind::Argument) for two tensors of one name, a name that is the metadata's, and a header of more than 100 MB,
/// or a file beyond 64 bits.
pub(super) fn header(tensors: &[Named<'_>], metadata: &impl Notes) -> Result<Vec<u8>> {
    let mut names: Vec<_> = tensors.iter().map(|tensor| tensor.name).chain([NOTES]).collect();
    names.sort_unstable();
    if let Some(name) = twice(&names) {
        return Err(Error::argument("tensor name", format!("{name:?}"), "unique"));
    }
    let mut out = vec![0; LENGTH];
    let mut serializer = serde_json::Serializer::new(&mut out);
    let written = serializer.serialize_map(None).and_then(|mut map| {
        if !metadata.none() {
            map.serialize_entry(NOTES, metadata)?;
        }
        let mut offset = 0usize;
        for tensor in tensors {
            let beyond = || serde::ser::Error::custom("tensors of 2^64 bytes and more");
            let end = offset.checked_add(tensor.len).ok_or_else(beyond)?;
            let entry = Entry { dtype: tensor.dtype, shape: tensor.shape.into(), data_offsets: (offset, end) };
            map.serialize_entry(tensor.name, &entry)?;
            offset = end;
        }
        map.end()
    });
    written.map_err(|error| Error::argument("header", error, "one of a file of less than 2^64 bytes"))?;
    out.resize(out.len().next_multiple_of(LENGTH), b' ');
    let length = out.len() - LENGTH;
    if length > MAX_HEADER {
        return Err(Error::argument("length of the header", length, "at most 100,000,000 bytes"));
    }
    out.iter_mut().zip((length as u64).to_le_bytes()).for_each(|(out, byte)| *out = byte);
    Ok(out)
}

/// Texts by their keys.
pub(super) trait Notes: Serialize {
    fn none(&self) -> bool;
}

impl<K: Serialize, V: Serialize> Notes for BTreeMap<K, V> {
    fn none(&self) -> bool {
        self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        format::{
            file::{ElementType, TensorFile},
            safetensors::SafeTensors,
        },
    };
    use safetensors::tensor::{TensorView, serialize};

    fn info(name: &str, element: ElementType, shape: &[usize]) -> TensorInfo {
        TensorInfo { name: name.into(), element, shape: shape.into() }
    }

    #[test]
    fn any_order_gives_the_bytes_of_the_reference() {
        let tensors = [
            (info("z", ElementType::U8, &[3]), Dtype::U8, vec![1, 2, 3]),
            (info("b \"\\\u{e4}", ElementType::F32, &[1, 2]), Dtype::F32, vec![4; 8]),
            (info("a", ElementType::F32, &[]), Dtype::F32, vec![5; 4]),
            (info("", ElementType::F64, &[0, 7]), Dtype::F64, vec![]),
            (info("f", ElementType::F4E2M1, &[2]), Dtype::F4, vec![6]),
            (info("g", ElementType::F6E3M2, &[4]), Dtype::F6_E3M2, vec![7; 3]),
        ];
        let views = tensors
            .iter()
            .map(|(info, dtype, bytes)| (&info.name, TensorView::new(*dtype, info.shape.clone(), bytes).unwrap()));
        let expected = serialize(views, Some([("format".to_string(), "pt".to_string())].into())).unwrap();
        let path = std::env::temp_dir().join(format!("lapidary-safetensors-{}", std::process::id()));
        for turn in 0..tensors.len() {
            let turned: Vec<_> = (0..tensors.len()).map(|i| &tensors[(i + turn) % tensors.len()]).collect();
            let infos: Vec<_> = turned.iter().map(|tensor| tensor.0.clone()).collect();
            let layout = layout(&infos, &[("format".into(), "pt".into())].into()).unwrap();
            assert_eq!(layout.byte_len(), expected.len() as u64);
            let file = layout.create(&path).unwrap();
            for (index, (.., bytes)) in turned.iter().enumerate() {
                bytes.iter().enumerate().for_each(|(at, byte)| file.write(index, at as u64, &[*byte]).unwrap());
            }
            file.finish().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), expected);
        }
        let read = SafeTensors::open(&path).unwrap();
        assert_eq!(read.tensors()[1], tensors[2].0);
        std::fs::remove_file(path).unwrap();
        assert_eq!(&read.data(2).unwrap()[..], [4; 8]);
    }

    #[test]
    fn what_the_format_does_not_have_is_refused() {
        let kind = |tensors: &[TensorInfo]| layout(tensors, &BTreeMap::new()).unwrap_err().kind();
        let u8 = |name| info(name, ElementType::U8, &[1]);
        for tensors in [
            vec![u8("a"), u8("b"), u8("a")],
            vec![u8("__metadata__")],
            vec![info("a", ElementType::I4, &[2])],
            vec![info("a", ElementType::Text, &[])],
            vec![info("a", ElementType::F4E2M1, &[3])],
            vec![info("a", ElementType::U8, &[usize::MAX]), u8("b")],
            vec![info("a", ElementType::F64, &[usize::MAX / 2, 2])],
            vec![u8(&"x".repeat(100_000_001))],
        ] {
            assert_eq!(kind(&tensors), ErrorKind::Argument);
        }
        let empty = layout(&[], &BTreeMap::new()).unwrap();
        assert_eq!(&empty.fixed[0].1[..], [8, 0, 0, 0, 0, 0, 0, 0, b'{', b'}', b' ', b' ', b' ', b' ', b' ', b' ']);
    }
}
