//! Sparse initializers as dense ones, which the runtime has.

use crate::{
    compress::onnx::nodes::inner_mut,
    error::{Error, Result},
    format::{
        file::ElementType,
        onnx::{self, proto::*},
    },
    tensor::view::{checked_volume, filled},
};

/// Makes the sparse initializers of a graph and those within it dense, which takes at most `limit` bytes. Returns how many.
pub(super) fn densify(graph: &mut GraphProto, limit: u64) -> Result<u64> {
    let mut bytes = 0;
    for inner in graph.node.iter_mut().flat_map(inner_mut) {
        bytes += densify(inner, limit - bytes)?;
    }
    for sparse in std::mem::take(&mut graph.sparse_initializer) {
        let name = sparse.values.as_ref().and_then(|values| values.name.clone()).unwrap_or_default();
        let tensor = dense(&name, &sparse, limit - bytes).map_err(|error| error.in_tensor(&name))?;
        bytes += tensor.raw_data.as_ref().map_or(0, |raw| raw.len() as u64);
        graph.initializer.push(tensor);
    }
    Ok(bytes)
}

fn dense(name: &str, sparse: &SparseTensorProto, limit: u64) -> Result<TensorProto> {
    let malformed = |reason: &str| Error::format(0, format!("a sparse initializer {reason}"));
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err(malformed("without values or indices"));
    };
    let dims = sparse.dims.iter().map(|&size| usize::try_from(size));
    let shape = dims.collect::<Result<Vec<_>, _>>().map_err(|_| malformed("of a negative size"))?;
    let of = |tensor| onnx::tensor_info(name.into(), tensor);
    let (Some(info), Some(places)) = (of(values)?, of(indices)?) else {
        return Err(malformed("of texts"));
    };
    let size = match info.element.bits() {
        Some(bits) if bits >= 8 && places.element == ElementType::I64 => bits / 8,
        _ => return Err(malformed("of numbers below a byte, or of indices that are no 64-bit integers")),
    };
    let bytes = checked_volume(&shape)?.checked_mul(size).filter(|&bytes| bytes as u64 <= limit);
    let bytes =
        bytes.ok_or_else(|| Error::argument("bytes of a dense tensor", format!("{shape:?}"), "within the limit"))?;
    let mut all = filled(bytes, 0u8)?;
    let (numbers, places) = (onnx::tensor_bytes(values, &info)?, (onnx::tensor_bytes(indices, &places)?, places.shape));
    // Of each number its place among all, or an index for each axis.
    let per = match &places.1[..] {
        [_] => 1,
        [_, axes] if *axes == shape.len() && *axes > 0 => *axes,
        _ => return Err(malformed("whose indices fit no shape")),
    };
    if places.1.first() != info.shape.first() || info.shape.len() != 1 {
        return Err(malformed("with not as many indices as values"));
    }
    let read = |bytes: &[u8; 8]| usize::try_from(i64::from_le_bytes(*bytes)).ok();
    for (number, at) in numbers.chunks_exact(size).zip(places.0.as_chunks().0.chunks_exact(per)) {
        let place = match at {
            [one] => read(one),
            many => many.iter().zip(&shape).try_fold(0, |place, (at, &size)| {
                let at = read(at).filter(|&at| at < size)?;
                Some(place * size + at)
            }),
        };
        let place = place.and_then(|place| place.checked_mul(size));
        let room = place.and_then(|place| all.get_mut(place..place.checked_add(size)?));
        room.ok_or_else(|| malformed("with an index beyond its sizes"))?.copy_from_slice(number);
    }
    onnx::tensor(name, info.element, &shape, all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse(shape: &[usize], indices: &[i64], axes: Option<usize>) -> SparseTensorProto {
        let raw: Vec<u8> = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
        let count = indices.len() / axes.unwrap_or(1);
        let places = axes.map_or(vec![count], |axes| vec![count, axes]);
        let values: Vec<u8> = (1..=count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        SparseTensorProto {
            values: Some(onnx::tensor("w", ElementType::F32, &[count], values.into()).unwrap()),
            indices: Some(onnx::tensor("", ElementType::I64, &places, raw.into()).unwrap()),
            dims: shape.iter().map(|&size| size as i64).collect(),
        }
    }

    fn values(sparse: SparseTensorProto) -> Result<Vec<f32>> {
        let mut graph = GraphProto { sparse_initializer: vec![sparse], ..Default::default() };
        densify(&mut graph, 1000)?;
        let raw = graph.initializer[0].raw_data.clone().unwrap();
        Ok(raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    #[test]
    fn both_kinds_of_indices_are_known() {
        assert_eq!(values(sparse(&[2, 3], &[1, 5], None)).unwrap(), [0.0, 1.0, 0.0, 0.0, 0.0, 2.0]);
        assert_eq!(values(sparse(&[2, 3], &[0, 1, 1, 2], Some(2))).unwrap(), [0.0, 1.0, 0.0, 0.0, 0.0, 2.0]);
        for bad in [sparse(&[2, 3], &[6], None), sparse(&[2, 3], &[-1], None), sparse(&[2, 3], &[0, 3], Some(2))] {
            assert_eq!(values(bad).unwrap_err().tensor(), Some("w"));
        }
        assert!(values(sparse(&[1000, 1000], &[0], None)).is_err());
    }
}
