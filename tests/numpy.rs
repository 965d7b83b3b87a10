//! NumPy's files: its own, ours, and broken ones.
#![cfg(feature = "numpy")]

use lapidary::{
    ErrorKind, Result,
    format::{
        file::{self, Bytes, ElementType, TensorFile, TensorInfo},
        numpy::{self, NumpyFile},
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/model_files");

fn fixture(name: &str) -> Bytes {
    fs::read(Path::new(FIXTURES).join(name)).unwrap().into()
}

fn expected() -> serde_json::Value {
    serde_json::from_slice::<serde_json::Value>(&fixture("expected.json")).unwrap()["arrays"].take()
}

fn hex(text: &serde_json::Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn temporary(extension: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("lapidary-numpy-{}-{count}.{extension}", std::process::id()))
}

/// The bytes of an `.npz` file of these tensors.
fn saved(tensors: &[(TensorInfo, Bytes)]) -> Vec<u8> {
    let path = temporary("npz");
    numpy::save_npz(&path, tensors.iter().cloned().map(Ok)).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

/// The bytes of an `.npy` file.
fn one(tensor: &TensorInfo, bytes: &[u8]) -> Vec<u8> {
    let path = temporary("npy");
    let file = numpy::layout(tensor).unwrap().create(&path).unwrap();
    file.write(0, 0, bytes).unwrap();
    file.finish().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

fn npy(text: &str, elements: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\0", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), elements].concat()
}

fn zipped(method: CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn arrays_of_numpy_are_read_in_logical_order() {
    let expected = expected();
    let expected = expected.as_object().unwrap();
    for (name, extra) in [("arrays.npz", 0), ("deflated.npz", 1)] {
        let file = file::open(Path::new(FIXTURES).join(name)).unwrap();
        assert_eq!((file.format(), file.tensors().len()), ("npz", expected.len() + extra));
        for (name, expected) in expected {
            let index = file.find(name).unwrap();
            let shape: Vec<_> = file.tensors()[index].shape.iter().map(|&n| serde_json::Value::from(n)).collect();
            assert_eq!(&shape, expected["shape"].as_array().unwrap(), "{name}");
            assert_eq!(file.data(index).unwrap(), hex(&expected["bytes"]), "{name}");
        }
    }
    let file = file::open(Path::new(FIXTURES).join("deflated.npz")).unwrap();
    assert_eq!(file.to_f32(file.find("zeros").unwrap()).unwrap(), [0.0; 5000]);
    let file = file::open(Path::new(FIXTURES).join("fortran.npy")).unwrap();
    assert_eq!((file.format(), &*file.tensors()[0].name), ("npy", "fortran"));
    assert_eq!(file.tensors()[0].element, ElementType::I16);
    assert_eq!(file.data(0).unwrap(), hex(&expected["big_fortran"]["bytes"]));
    assert_eq!(NumpyFile::from_bytes(fixture("fortran.npy")).unwrap().tensors()[0].name, "arr_0");
}

#[test]
fn what_lies_right_is_a_view() {
    let bytes = fixture("arrays.npz");
    let within = bytes.as_ptr_range();
    let file = NumpyFile::from_bytes(bytes).unwrap();
    let views = (0..file.tensors().len()).filter(|&index| {
        let data = file.data(index).unwrap();
        !data.is_empty() && within.contains(&data.as_ptr())
    });
    // All but the big-endian ones of more than a byte, Fortran's, and the empty one.
    assert_eq!(views.count(), 16 - 7);
}

#[test]
fn headers_are_those_of_numpy() {
    let numpy = fixture("arrays.npz");
    let file = NumpyFile::from_bytes(numpy.clone()).unwrap();
    let mut same = 0;
    for (index, info) in file.tensors().iter().enumerate() {
        let ours = one(info, &file.data(index).unwrap());
        let found = numpy.windows(ours.len()).any(|window| window == ours);
        let converted = ["big_single", "big_fortran", "fortran", "complex", "u4", "u8"].contains(&&*info.name);
        assert_eq!(found, !converted, "{}", info.name);
        same += usize::from(found);
    }
    assert_eq!(same, 10);
}

#[test]
fn other_elements_are_named_errors() {
    for descr in ["'<V2'", "'|O'", "'|S3'", "'<U4'", "'<M8[ns]'", "[('a', '<f4'), ('b', '<i4')]"] {
        let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n");
        let error = NumpyFile::from_bytes(npy(&text, &[0; 4]).into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument, "{error}");
        assert!(error.to_string().contains("dtype is"), "{error}");
        let member = npy(&text, &[0; 4]);
        let archive = zipped(CompressionMethod::Deflated, &[("odd.npy", &member)]);
        assert_eq!(NumpyFile::from_bytes(archive.into()).unwrap_err().tensor(), Some("odd"));
    }
    let bf16 = TensorInfo { name: "b".into(), element: ElementType::Bf16, shape: vec![1] };
    assert_eq!(numpy::layout(&bf16).unwrap_err().kind(), ErrorKind::Argument);
}

#[test]
fn claims_beyond_the_bytes_are_errors_before_memory_is_asked_for() {
    let text = "{'descr': '<f4', 'fortran_order': True, 'shape': (1073741824, 1073741824), }\n";
    let member = npy(text, &[0; 64]);
    let error = NumpyFile::from_bytes(member.clone().into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format, "{error}");
    let overflow = text.replace("1073741824)", "1073741824, 1073741824, 1073741824)");
    assert_eq!(NumpyFile::from_bytes(npy(&overflow, &[]).into()).unwrap_err().kind(), ErrorKind::Argument);
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let error = NumpyFile::from_bytes(zipped(method, &[("huge.npy", &member)]).into()).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Format, Some("huge")));
    }
}

/// The place of the lengths in the only entry of a zip's directory.
fn directory_lengths(zip: &[u8]) -> usize {
    zip.windows(4).position(|window| window == b"PK\x01\x02").unwrap() + 20
}

#[test]
fn a_zip_bomb_is_an_error() {
    let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000,), }\n";
    let member = npy(text, &[0; 100_000]);
    let mut bomb = zipped(CompressionMethod::Deflated, &[("bomb.npy", &member)]);
    // It claims what header and shape need.
    let at = directory_lengths(&bomb) + 4;
    let claimed = 4_000_000_000u32 + 10 + text.len() as u32;
    bomb[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
    let error = NumpyFile::from_bytes(bomb.into()).unwrap_err();
    assert!(error.to_string().contains("deflate cannot make"), "{error}");

    // What inflates to more, or less, than it claims.
    for (claimed, shape) in [(1000, "(1000,)"), (150_000, "(150000,)")] {
        let text = text.replace("(4000000000,)", shape);
        let member = npy(&text, &[0; 100_000]);
        let mut lying = zipped(CompressionMethod::Deflated, &[("lying.npy", &member)]);
        let at = directory_lengths(&lying) + 4;
        lying[at..at + 4].copy_from_slice(&(claimed + 10 + text.len() as u32).to_le_bytes());
        let error = NumpyFile::from_bytes(lying.into()).and_then(|file| file.data(0)).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Format, Some("lying")), "{error}");
    }
}

#[test]
fn a_directory_that_claims_more_members_than_fit_is_an_error() {
    for (files, size, start) in [(1u64 << 30, 1u64 << 36, 1u64 << 31), (1 << 30, 1 << 36, 0), (50, 1 << 36, 104)] {
        let mut bytes = [&b"PK\x03\x04"[..], &[0; 100]].concat();
        let directory_end = bytes.len() as u64;
        bytes.extend([b"PK\x06\x06", &44u64.to_le_bytes()[..], &[45, 0, 45, 0], &[0; 8]].concat());
        bytes.extend([files, files, size, start].iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend([b"PK\x06\x07\0\0\0\0", &directory_end.to_le_bytes()[..], &1u32.to_le_bytes()].concat());
        bytes.extend([&b"PK\x05\x06\0\0\0\0"[..], &[0xff; 12], &[0; 2]].concat());
        let error = NumpyFile::from_bytes(bytes.into()).unwrap_err();
        assert!(error.to_string().contains("number of files"), "{error}");
    }
}

#[test]
fn a_byte_that_changed_is_noticed() {
    // Behind the name are 20 bytes of lengths; then, where nothing is deflated, 128 of header.
    for (name, element) in [("arrays.npz", 20 + 128 + 7), ("deflated.npz", 20 + 90)] {
        let file = NumpyFile::from_bytes(fixture(name)).unwrap();
        let index = file.tensors().iter().position(|tensor| tensor.name == "single").unwrap();
        let mut bytes = fixture(name).to_vec();
        let at = bytes.windows(10).position(|window| window == b"single.npy").unwrap();
        bytes[at + 10 + element] ^= 1;
        let error = NumpyFile::from_bytes(bytes.into()).and_then(|file| file.data(index)).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Format, Some("single")), "{error}");
    }
}

#[test]
fn archives_that_are_not_of_arrays_are_refused_or_empty() {
    let text = zipped(CompressionMethod::Stored, &[("readme.txt", b"hello")]);
    assert!(NumpyFile::from_bytes(text.into()).unwrap().tensors().is_empty());
    let wrong = zipped(CompressionMethod::Stored, &[("wrong.npy", b"hello")]);
    assert_eq!(NumpyFile::from_bytes(wrong.into()).unwrap_err().tensor(), Some("wrong"));
    assert!(NumpyFile::from_bytes(Bytes::new()).is_err());
    assert!(NumpyFile::from_bytes(Bytes::from_static(b"PK\x03\x04")).is_err());
}

#[test]
fn a_file_is_saved_whole_or_not_at_all() {
    let info = |name: &str| TensorInfo { name: name.into(), element: ElementType::U8, shape: vec![2] };
    let bytes = || Bytes::from_static(&[1, 2]);
    let path = temporary("npz");
    let refused = |tensors: Vec<Result<(TensorInfo, Bytes)>>| {
        let error = numpy::save_npz(&path, tensors).unwrap_err();
        assert!(!path.exists());
        error
    };
    assert_eq!(refused(vec![Ok((info("a"), bytes())), Ok((info("a"), bytes()))]).kind(), ErrorKind::Argument);
    assert_eq!(refused(vec![Ok((info("a"), Bytes::new()))]).kind(), ErrorKind::Shape);
    assert_eq!(refused(vec![Ok((info("a\0b"), bytes()))]).kind(), ErrorKind::Argument);
    assert_eq!(refused(vec![Ok((info(&"n".repeat(65_532)), bytes()))]).kind(), ErrorKind::Argument);
    assert_eq!(refused(vec![Ok((info("a"), bytes())), Err(lapidary::Error::empty("it"))]).kind(), ErrorKind::Empty);
    let missing = numpy::save_npz(path.join("none/x.npz"), [Ok((info("a"), bytes()))]);
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn names_are_kept() {
    let long = "n".repeat(1000);
    let names = ["a/b", "../up", "/root", "back\\slash", "dot.npy", "größe", "", "a", "A", " ", &long];
    let tensors = names.iter().map(|name| {
        let info = TensorInfo { name: (*name).into(), element: ElementType::U8, shape: vec![] };
        (info, Bytes::from_static(&[7]))
    });
    let tensors = tensors.collect::<Vec<_>>();
    let file = NumpyFile::from_bytes(saved(&tensors).into()).unwrap();
    let found: Vec<_> = file.tensors().iter().map(|tensor| &*tensor.name).collect();
    assert_eq!(found, names);
}

fn element() -> impl Strategy<Value = ElementType> {
    select(vec![
        ElementType::F16,
        ElementType::F32,
        ElementType::F64,
        ElementType::C64,
        ElementType::C128,
        ElementType::I8,
        ElementType::I16,
        ElementType::I32,
        ElementType::I64,
        ElementType::U8,
        ElementType::U16,
        ElementType::U32,
        ElementType::U64,
        ElementType::Bool,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read(tensors in vec((element(), vec(0usize..5, 0..5), any::<u8>()), 0..6)) {
        let tensors = tensors.into_iter().enumerate().map(|(i, (element, shape, seed))| {
            let info = TensorInfo { name: format!("layer.{i}"), element, shape };
            let bytes = (0..info.byte_len().unwrap()).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed));
            let bytes = bytes.collect::<Vec<_>>();
            (info, Bytes::from(bytes))
        });
        let tensors = tensors.collect::<Vec<_>>();
        let bytes = saved(&tensors);
        prop_assert_eq!(&bytes, &saved(&tensors));
        let file = NumpyFile::from_bytes(bytes.into()).unwrap();
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (index, (info, data)) in tensors.iter().enumerate() {
            prop_assert_eq!(&file.tensors()[index], info);
            prop_assert_eq!(&file.data(index).unwrap(), data);
            let file = NumpyFile::from_bytes(one(info, data).into()).unwrap();
            prop_assert_eq!(&file.tensors()[0].shape, &info.shape);
            prop_assert_eq!(&file.data(0).unwrap(), data);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    #[test]
    fn a_broken_file_is_an_error_or_another_file(
        name in select(vec!["arrays.npz", "deflated.npz", "fortran.npy"]),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        wide in proptest::option::of((any::<prop::sample::Index>(), select(vec![u32::MAX, 1 << 31, 1 << 20, 0]))),
        end in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        directory in any::<bool>(),
    ) {
        let mut bytes = fixture(name).to_vec();
        // Where the zip says what is where, or anywhere.
        let start = bytes.windows(4).position(|window| window == b"PK\x01\x02").filter(|_| directory).unwrap_or(0);
        let len = bytes.len() - start;
        for (at, byte) in changes {
            bytes[start + at.index(len)] = byte;
        }
        if let Some((at, number)) = wide {
            let at = start + at.index(len - 4);
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(file) = NumpyFile::from_bytes(bytes.into()) {
            for (index, info) in file.tensors().iter().enumerate() {
                if let Ok(data) = file.data(index) {
                    prop_assert_eq!(data.len(), info.byte_len().unwrap());
                }
                let _ = (&file as &dyn TensorFile).to_f32(index);
            }
        }
    }
}
