//! Elements into logical order, little-endian.

use super::header::Header;
use crate::{
    error::Result,
    format::file::{Bytes, ElementType},
    tensor::view::filled,
};

/// The elements that `bytes` are by `header`: a view, where they lie so. `bytes` are as many as there are elements.
pub(super) fn logical(header: &Header, bytes: Bytes) -> Result<Bytes> {
    let size = header.element.bits().unwrap_or(8) / 8;
    // Parts of complex numbers are turned one by one.
    let unit = match header.element {
        ElementType::C64 | ElementType::C128 => size / 2,
        _ => size,
    };
    let (turned, transposed) = (header.big_endian && unit > 1, header.is_transposed());
    if !turned && !transposed {
        return Ok(bytes);
    }
    let mut out = filled(bytes.len(), 0)?;
    match size {
        _ if !transposed => out.copy_from_slice(&bytes),
        1 => transpose::<1>(&header.shape, &bytes, &mut out),
        2 => transpose::<2>(&header.shape, &bytes, &mut out),
        4 => transpose::<4>(&header.shape, &bytes, &mut out),
        8 => transpose::<8>(&header.shape, &bytes, &mut out),
        _ => transpose::<16>(&header.shape, &bytes, &mut out),
    }
    if turned {
        out.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
    }
    Ok(out.into())
}

/// Elements of `N` bytes, the first axis innermost, to those with the last axis innermost.
fn transpose<const N: usize>(shape: &[usize], bytes: &[u8], out: &mut [u8]) {
    let (from, to) = (bytes.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
    let Some((&row, outer)) = shape.split_last() else { return };
    if row == 0 {
        return;
    }
    // The distance of neighbours along the last axis.
    let stride = outer.iter().product::<usize>();
    let mut place = vec![0usize; outer.len()];
    for to in to.chunks_exact_mut(row) {
        let (mut start, mut distance) = (0, 1);
        for (&at, &size) in place.iter().zip(outer) {
            start += at * distance;
            distance *= size;
        }
        let row = from.get(start..).unwrap_or_default().iter().step_by(stride.max(1));
        to.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
        for (at, &size) in place.iter_mut().zip(outer).rev() {
            *at += 1;
            if *at < size {
                break;
            }
            *at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(element: ElementType, big_endian: bool, fortran: bool, shape: &[usize]) -> Header {
        Header { element, big_endian, fortran, shape: shape.into(), len: 0 }
    }

    #[test]
    fn the_first_axis_innermost_becomes_the_last_innermost() {
        let shape = [2, 3, 4];
        let bytes: Vec<u8> = (0..24).collect();
        let out = logical(&header(ElementType::U8, false, true, &shape), bytes.into()).unwrap();
        let mut expected = Vec::new();
        for i in 0..2u8 {
            for j in 0..3 {
                expected.extend((0..4).map(|k| i + 2 * j + 6 * k));
            }
        }
        assert_eq!(out, expected);
        let wide: Bytes = (0..24).flat_map(|i: u16| (i * 1000).to_be_bytes()).collect::<Vec<_>>().into();
        let out = logical(&header(ElementType::U16, true, true, &shape), wide).unwrap();
        let expected: Vec<_> = expected.iter().flat_map(|&i| (u16::from(i) * 1000).to_le_bytes()).collect();
        assert_eq!(out, expected);
        for shape in [&[0, 3][..], &[3, 0], &[2, 0, 2]] {
            assert!(logical(&header(ElementType::F32, true, true, shape), Bytes::new()).unwrap().is_empty());
        }
    }

    #[test]
    fn complex_numbers_are_turned_by_their_parts() {
        let bytes: Bytes = [1.5f32.to_be_bytes(), (-2.0f32).to_be_bytes()].concat().into();
        let out = logical(&header(ElementType::C64, true, false, &[1]), bytes).unwrap();
        assert_eq!(out, [1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat());
    }

    #[test]
    fn what_lies_right_is_not_copied() {
        let bytes: Bytes = vec![0; 8].into();
        for (element, big, fortran, shape) in [
            (ElementType::F32, false, false, &[1, 2][..]),
            (ElementType::F32, false, true, &[1, 2, 1]),
            (ElementType::I8, true, false, &[8]),
        ] {
            let out = logical(&header(element, big, fortran, shape), bytes.clone()).unwrap();
            assert_eq!(out.as_ptr(), bytes.as_ptr());
        }
    }
}
