//! Model files: what is written is read, and whatever is read is refused or whole.
#![cfg(feature = "safetensors")]

use flate2::read::GzDecoder;
use lapidary::{
    ErrorKind, Granularity, Grid, QTensor, Quantizer, QuantizerExt, Scales, TensorRef, Values,
    format::{
        file::{self, ElementType, TensorFile, TensorInfo},
        safetensors::{self, Convention, Form, Parts, Quantized, SafeTensors},
    },
    half::{bf16, f16},
    quant::{Affine, KMeans, MinMax, Symmetric},
};
use proptest::prelude::*;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    fs,
    io::Read,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

thread_local! {
    /// Bytes that this thread has of the allocator, less those it had at the start, and the most of them since.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// Counts bytes.
struct Counting;

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let now = held.get().0 + bytes;
        held.set((now, held.get().1.max(now)));
    });
}

// SAFETY: every call is the system allocator's; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `work` had of the allocator at one time.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HELD.set((0, 0));
    let result = work();
    (result, HELD.get().1.unsigned_abs())
}

/// What reading may take: that many times the file, and a bit for messages.
fn allowed(len: usize) -> usize {
    32 * len + 4096
}

/// A new name for a file of the system's folder for such.
fn new_path() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("lapidary-files-{}-{count}.safetensors", std::process::id()))
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}.safetensors.gz", env!("CARGO_MANIFEST_DIR"));
    let mut file = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut file).unwrap();
    file
}

/// Not random, but as good.
fn mixed(seed: u64, i: usize) -> u64 {
    let x = (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
}

/// How many groups share levels.
fn groups(shape: &[usize], granularity: Granularity) -> usize {
    let len: usize = shape.iter().product();
    match granularity {
        Granularity::Channel { axis } => shape[axis],
        Granularity::Group { size } => {
            let cols = shape.last().copied().unwrap_or(1);
            len / cols * cols.div_ceil(size)
        }
        Granularity::Block { axis, size } => len / shape[axis] * shape[axis].div_ceil(size),
        _ => 1,
    }
}

/// A quantized tensor of any codes and any levels.
fn quantized(shape: &[usize], bits: u8, granularity: Granularity, kind: usize, seed: u64) -> QTensor {
    let (groups, mask) = (groups(shape, granularity), ((1u32 << bits) - 1) as u16);
    // From subnormals to the largest number, above 0.
    let float = |i: usize| f32::from_bits(1 + (mixed(seed, i + 7000) % 0x7f7f_ffff) as u32);
    let floats = |n: usize| Values::F32((0..n).map(float).collect());
    let scale = match kind / 8 {
        0 => floats(groups).into(),
        1 => Values::F64((0..groups).map(|i| f64::from(float(i)) * 1.1).collect()).into(),
        2 => Scales::F16((0..groups).map(|i| f16::from_bits(1 + (mixed(seed, i) % 0x7bff) as u16)).collect()),
        _ => Scales::E8m0((0..groups).map(|i| (mixed(seed, i) % 255) as u8).collect()),
    };
    let zeros = (0..groups).map(|i| mixed(seed, i + 3000) as u16 & mask).collect();
    let grid = match kind % 8 {
        0..=2 => Grid::Affine { scale, zero_point: None },
        3 | 4 => Grid::Affine { scale, zero_point: Some(zeros) },
        _ if bits == 16 => Grid::Affine { scale, zero_point: Some(zeros) },
        5 => Grid::MinMax { min: Values::F32((0..groups).map(|i| -float(i + 9)).collect()), max: floats(groups) },
        6 => Grid::Codebook { levels: floats(groups << bits) },
        _ => Grid::Scaled { levels: floats(1 << bits), scale },
    };
    let codes: Vec<u16> = (0..shape.iter().product()).map(|i| mixed(seed, i) as u16 & mask).collect();
    QTensor::from_codes(shape, bits, granularity, grid, &codes).unwrap()
}

/// The rows of a quantized tensor from one to another, made anew of their codes and levels.
fn rows(q: &QTensor, from: usize, to: usize) -> QTensor {
    let shape = [&[to - from], &q.shape()[1..]].concat();
    let row: usize = q.shape()[1..].iter().product();
    let (before, all) = match q.granularity() {
        Granularity::Block { axis: 0, size } => (from / size * row, to.div_ceil(size) * row),
        Granularity::Tensor => (0, 1),
        Granularity::Channel { axis } if axis > 0 => (0, q.shape()[axis]),
        granularity => {
            let each = groups(q.shape(), granularity) / q.shape()[0];
            (from * each, to * each)
        }
    };
    fn cut(values: &Values, from: usize, to: usize) -> Values {
        match values {
            Values::F32(values) => Values::F32(values[from..to].to_vec()),
            Values::F64(values) => Values::F64(values[from..to].to_vec()),
            _ => unreachable!(),
        }
    }
    let scales = |scales: &Scales| match scales {
        Scales::Full(values) => cut(values, before, all).into(),
        Scales::F16(values) => Scales::F16(values[before..all].to_vec()),
        Scales::E8m0(values) => Scales::E8m0(values[before..all].to_vec()),
        _ => unreachable!(),
    };
    let grid = match q.grid() {
        Grid::MinMax { min, max } => Grid::MinMax { min: cut(min, before, all), max: cut(max, before, all) },
        Grid::Affine { scale, zero_point } => Grid::Affine {
            scale: scales(scale),
            zero_point: zero_point.as_ref().map(|zeros| zeros[before..all].to_vec()),
        },
        Grid::Codebook { levels } => Grid::Codebook { levels: cut(levels, before << q.bits(), all << q.bits()) },
        Grid::Scaled { levels, scale } => Grid::Scaled { levels: levels.clone(), scale: scales(scale) },
        _ => unreachable!(),
    };
    QTensor::from_codes(&shape, q.bits(), q.granularity(), grid, &q.codes()[from * row..to * row]).unwrap()
}

/// Writes quantized tensors among others, each whole, or the last rows first; gives the file.
fn written(tensors: &[(Convention, &str, &QTensor)], step: Option<usize>) -> PathBuf {
    let all: Vec<_> = tensors
        .iter()
        .map(|(convention, name, q)| Parts::new(*convention, name, q.shape(), Form::of(q)).unwrap())
        .collect();
    let mut infos = vec![TensorInfo { name: "bias".into(), element: ElementType::F32, shape: vec![1] }];
    infos.extend(all.iter().flat_map(|parts| parts.tensors().to_vec()));
    let metadata = all.iter().filter_map(Parts::metadata).collect();
    let path = new_path();
    let file = safetensors::layout(&infos, &metadata).unwrap().create(&path).unwrap();
    file.write(0, 0, &1f32.to_le_bytes()).unwrap();
    let mut first = 1;
    for (parts, (_, _, q)) in all.iter().zip(tensors) {
        let write = |q: &QTensor, row: usize| {
            for part in parts.encode(q, row).unwrap() {
                file.write(first + part.index, part.offset, &part.bytes).unwrap();
            }
        };
        match step.filter(|_| q.shape().len() > 1) {
            None => write(q, 0),
            Some(step) => {
                let starts: Vec<_> = (0..q.shape()[0]).step_by(step).collect();
                starts.iter().rev().for_each(|&at| write(&rows(q, at, (at + step).min(q.shape()[0])), at));
            }
        }
        first += parts.tensors().len();
    }
    file.finish().unwrap();
    path
}

fn granularities(shape: &[usize], axis: usize, size: usize) -> Vec<Granularity> {
    let mut all = vec![Granularity::Tensor, Granularity::Group { size }];
    if axis < shape.len() {
        all.extend([Granularity::Channel { axis }, Granularity::Block { axis, size }]);
    }
    all
}

proptest! {
    #[test]
    fn any_quantized_tensor_comes_back(
        shape in prop::collection::vec(1usize..12, 0..4), axis in 0usize..3, size in 1usize..14, which in 0usize..4,
        bits in prop::sample::select(vec![1u8, 2, 3, 4, 5, 6, 7, 8, 16]), kind in 0usize..32, seed in any::<u64>(),
        step in 0usize..5,
    ) {
        let all = granularities(&shape, axis, size);
        let granularity = all[which % all.len()];
        let q = quantized(&shape, bits, granularity, kind, seed);
        let step = match granularity {
            Granularity::Block { axis: 0, size } => step * size,
            _ => step,
        };
        let path = written(&[(Convention::Lapidary, "a.weight", &q)], (step > 0).then_some(step));
        let file = file::open(&path).unwrap();
        let read = Quantized::of(&*file);
        prop_assert_eq!(read.names().collect::<Vec<_>>(), [("a.weight", Convention::Lapidary)]);
        prop_assert_eq!(read.read("a.weight").unwrap(), q);
        prop_assert_eq!(read.parts("a.weight").len() + 1, file.tensors().len());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn other_conventions_come_back_and_decode_by_their_own_formula(
        rows in 1usize..40, groups in 1usize..5, size in 1usize..20, four in any::<bool>(), kind in 0usize..5,
        width in 0usize..3, whole in any::<bool>(), seed in any::<u64>(), step in 0usize..3,
    ) {
        let cols = groups * size;
        let granularity = if groups == 1 { Granularity::Channel { axis: 0 } } else { Granularity::Group { size } };
        let bits = if four { 4 } else { 8 };
        let kind = width * 8 + kind;
        let packed = quantized(&[rows, cols], bits, granularity, kind, seed);
        let int = quantized(&[rows, cols], 8, if whole { Granularity::Tensor } else { granularity }, kind, seed);
        let channels = if whole { Granularity::Tensor } else { Granularity::Channel { axis: 0 } };
        let channel = quantized(&[rows, size, groups], 8, channels, width * 8, seed);
        let mut tensors = vec![(Convention::IntQuantized, "int", &int), (Convention::PerChannelInt8, "channel", &channel)];
        let fits = Parts::new(Convention::PackQuantized, "packed", packed.shape(), Form::of(&packed));
        prop_assert_eq!(fits.is_ok(), cols > 4);
        if cols > 4 {
            tensors.push((Convention::PackQuantized, "packed", &packed));
        }
        let path = written(&tensors, (step > 0).then_some(step * 8));
        let file = file::open(&path).unwrap();
        let read = Quantized::of(&*file);
        prop_assert_eq!(read.names().count(), tensors.len());
        for (convention, name, q) in &tensors {
            let back = read.read(name).unwrap();
            prop_assert_eq!(&back, *q);
            if width == 0 {
                let formula = by_formula(&*file, *convention, name, q.shape());
                let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                prop_assert_eq!(bits(back.dequantize()), bits(formula));
            }
        }
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn damage_is_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(), shorten in any::<bool>(), seed in 0u64..4,
    ) {
        let mut bytes = small_file(seed);
        // Mostly in the header, where it matters.
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
        for (place, byte) in changes {
            let at = place.index(if byte % 4 == 0 { bytes.len() } else { header });
            bytes[at] = if byte % 2 == 0 { byte } else { b"0123456789[]{},:\"ABFIU_"[usize::from(byte) % 23] };
        }
        if shorten {
            bytes.truncate(cut.index(bytes.len()));
        }
        let len = bytes.len();
        let (file, most) = peak(|| SafeTensors::decode(bytes));
        prop_assert!(most <= allowed(len), "{most} of {len}");
        let Ok(file) = file else { return Ok(()) };
        let stored: usize = (0..file.tensors().len()).map(|i| file.data(i).unwrap().len()).sum();
        prop_assert!(stored <= len);
        let (read, most) = peak(|| Quantized::of(&file));
        prop_assert!(most <= allowed(len), "{most} of {len}");
        for (name, _) in read.names() {
            let (q, most) = peak(|| read.read(name));
            prop_assert!(most <= allowed(len), "{most} of {len}");
            if let Ok(q) = q {
                prop_assert!(q.dequantize::<f32>().len() <= 8 * len);
            }
        }
    }
}

#[test]
fn claims_that_memory_must_not_follow() {
    let note = |text: &str| {
        let note = serde_json::json!({"__metadata__": {"lapidary.quantized.a": text}});
        format!("{note}{}", " ".repeat(8))
    };
    let mut files = vec![];
    for text in [
        "",
        "{}",
        r#"{"bits":8,"shape":[1099511627776,1048576],"granularity":"tensor","grid":"symmetric"}"#,
        r#"{"bits":8,"shape":[18446744073709551615,3],"granularity":"tensor","grid":"symmetric"}"#,
        r#"{"bits":8,"shape":[4294967296],"granularity":{"group":{"size":1}},"grid":"codebook"}"#,
        r#"{"bits":8,"shape":[2],"granularity":{"group":{"size":0}},"grid":"affine"}"#,
        r#"{"bits":8,"shape":[2],"granularity":{"block":{"axis":7,"size":1}},"grid":"affine"}"#,
        r#"{"bits":9,"shape":[2],"granularity":"tensor","grid":"symmetric"}"#,
        r#"{"bits":8,"shape":[0],"granularity":"tensor","grid":"symmetric"}"#,
    ] {
        files.push((note(text), vec![]));
        // Levels are there, codes are not.
        let mut header: serde_json::Value = serde_json::from_str(&note(text)).unwrap();
        for (at, name) in ["a.scales", "a.levels", "a.zero_points"].into_iter().enumerate() {
            let dtype = if at < 2 { "F32" } else { "U8" };
            let to = [4, 8, 9][at];
            header[name] = serde_json::json!({"dtype": dtype, "shape": [1], "data_offsets": [4 * at, to]});
        }
        files.push((header.to_string(), vec![1; 9]));
    }
    for shape in [[i64::MAX, i64::MAX], [-1, 8], [1 << 40, 8], [0, 8], [1, 1 << 40]] {
        let header = r#"{"a_shape":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},
            "a_packed":{"dtype":"I32","shape":[1,1],"data_offsets":[16,20]},
            "a_scale":{"dtype":"F32","shape":[1,1],"data_offsets":[20,24]},
            "a_zero_point":{"dtype":"I32","shape":[1,1],"data_offsets":[24,28]}}"#;
        files.push((header.into(), [&shape.map(i64::to_le_bytes).concat()[..], &[1; 12]].concat()));
    }
    for (header, data) in files {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        let len = bytes.len();
        let file = SafeTensors::decode(bytes).unwrap();
        let read = Quantized::of(&file);
        let (error, most) = peak(|| read.read("a").unwrap_err());
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Format, Some("a")), "{header}");
        assert!(most <= allowed(len), "{most} of {len}");
        assert_eq!(read.read("b").unwrap_err().kind(), ErrorKind::Argument);
    }
}

/// Of every convention, in few bytes.
fn small_file(seed: u64) -> Vec<u8> {
    let affine = quantized(&[4, 8], 4, Granularity::Group { size: 4 }, 3, seed);
    let tensors = [
        quantized(&[3, 5], 3, Granularity::Channel { axis: 1 }, 6, seed),
        quantized(&[4, 3], 8, Granularity::Channel { axis: 0 }, 3, seed),
        quantized(&[2, 3], 8, Granularity::Channel { axis: 0 }, 0, seed),
    ];
    let path = written(
        &[
            (Convention::Lapidary, "l", &tensors[0]),
            (Convention::IntQuantized, "i", &tensors[1]),
            (Convention::PerChannelInt8, "c", &tensors[2]),
            (Convention::PackQuantized, "p", &affine),
        ],
        None,
    );
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

/// `(q - zero) * scale`, of a file's own tensors, by the definition of its convention.
fn by_formula(file: &dyn TensorFile, convention: Convention, name: &str, shape: &[usize]) -> Vec<f32> {
    let bytes = |ending: &str| {
        let index = file.find(&format!("{name}{ending}"));
        index.map(|index| (file.tensors()[index].shape.clone(), file.data(index).unwrap()))
    };
    let ints = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect::<Vec<_>>();
    let (rows, cols) = (shape[0], shape[1..].iter().product::<usize>());
    let dot = if convention == Convention::PerChannelInt8 { ".scale" } else { "_scale" };
    let (scale_shape, scales) = bytes(dot).unwrap();
    let scales: Vec<f32> = scales.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let groups = if scale_shape.len() == 2 { scale_shape[1] } else { 1 };
    let shared = |row: usize| if scale_shape == [1] { 0 } else { row };
    let group = |row: usize, col: usize| shared(row) * groups + col / (cols / groups);
    let places: Vec<_> = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))).collect();
    let steps: Vec<i32> = if convention == Convention::PackQuantized {
        let (packed, words) = bytes("_packed").unwrap();
        let (words, zeros) = (ints(&words), bytes("_zero_point").map(|(_, zeros)| ints(&zeros)));
        let bits = if packed[1] == cols.div_ceil(8) { 4 } else { 8 };
        let per = 32 / bits;
        let field = |word: u32, at: usize| (word >> (at % per * bits) & ((1 << bits) - 1)) as i32 - (1 << (bits - 1));
        let code = |row: usize, col: usize| field(words[row * packed[1] + col / per], col);
        let word = |row: usize, col: usize| row / per * groups + col / (cols / groups);
        let zero = |row, col| zeros.as_ref().map_or(0, |zeros| field(zeros[word(row, col)], row));
        places.iter().map(|&(row, col)| code(row, col) - zero(row, col)).collect()
    } else {
        let ending = if convention == Convention::PerChannelInt8 { ".qweight" } else { "" };
        let (codes, zeros) = (bytes(ending).unwrap().1, bytes("_zero_point"));
        let zero = |group: usize| zeros.as_ref().map_or(0, |(_, zeros)| zeros[group].cast_signed().into());
        let code = |row: usize, col: usize| i32::from(codes[row * cols + col].cast_signed());
        places.iter().map(|&(row, col)| code(row, col) - zero(group(row, col))).collect()
    };
    let value = |(&(row, col), &steps): (&(usize, usize), &i32)| steps as f32 * scales[group(row, col)];
    places.iter().zip(&steps).map(value).map(|x| x.clamp(-f32::MAX, f32::MAX)).collect()
}

#[test]
fn rows_that_are_not_whole_are_refused() {
    let affine = quantized(&[20, 16], 4, Granularity::Group { size: 8 }, 3, 1);
    let parts = Parts::new(Convention::PackQuantized, "w", &[20, 16], Form::of(&affine)).unwrap();
    let kind = |from, to, at| parts.encode(&rows(&affine, from, to), at).map_err(|error| error.kind()).map(|_| ());
    assert_eq!((kind(0, 8, 0), kind(16, 20, 16), kind(8, 20, 8)), (Ok(()), Ok(()), Ok(())));
    // Eight zero points lie in one word.
    assert_eq!((kind(0, 4, 0), kind(4, 12, 4)), (Err(ErrorKind::Argument), Err(ErrorKind::Argument)));
    assert_eq!((kind(0, 8, 16), kind(0, 8, usize::MAX)), (Err(ErrorKind::Argument), Err(ErrorKind::Argument)));
    let other = quantized(&[8, 8], 4, Granularity::Group { size: 8 }, 3, 1);
    assert_eq!(parts.encode(&other, 0).unwrap_err().kind(), ErrorKind::Shape);
    let symmetric = quantized(&[8, 16], 4, Granularity::Group { size: 8 }, 0, 1);
    let error = parts.encode(&symmetric, 0).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Argument, Some("w")));
}

#[test]
fn what_a_convention_does_not_have_is_refused() {
    let refused = |convention, q: &QTensor| {
        let error = Parts::new(convention, "w", q.shape(), Form::of(q)).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Argument, Some("w")), "{error}");
    };
    let matrix: Vec<f32> = (0..60).map(|i| i as f32 - 20.0).collect();
    let of = |quantizer: &dyn Quantizer<f32>, shape: &[usize]| {
        let values = TensorRef::new(&matrix, shape).unwrap();
        let mut q = quantizer.layout(shape).unwrap();
        quantizer.quantize_into(values, &mut q).unwrap();
        q
    };
    let symmetric = Symmetric::new(8).unwrap();
    refused(Convention::PackQuantized, &of(&symmetric, &[6, 10]));
    refused(Convention::PackQuantized, &of(&symmetric.per_channel(1), &[6, 10]));
    refused(Convention::PackQuantized, &of(&symmetric.per_group(4).unwrap(), &[6, 10]));
    refused(Convention::PackQuantized, &of(&symmetric.per_channel(0), &[6, 5, 2]));
    refused(Convention::PackQuantized, &of(&symmetric.per_channel(0), &[15, 4]));
    refused(Convention::PackQuantized, &of(&Symmetric::new(3).unwrap().per_channel(0), &[6, 10]));
    refused(Convention::IntQuantized, &of(&Symmetric::new(4).unwrap(), &[6, 10]));
    refused(Convention::IntQuantized, &of(&MinMax::new(8).unwrap(), &[6, 10]));
    refused(Convention::PerChannelInt8, &of(&Affine::new(8).unwrap().per_channel(0), &[6, 10]));
    refused(Convention::PerChannelInt8, &of(&symmetric.per_channel(0), &[60]));
    refused(Convention::PerChannelInt8, &of(&symmetric.per_group(5).unwrap(), &[6, 10]));
    refused(Convention::IntQuantized, &KMeans::new(2).unwrap().quantize(&matrix).unwrap());
}

#[test]
fn scales_are_kept_in_the_models_own_type() {
    let scales = [0.5f32, 1.015625, 3e-30].map(|x| bf16::from_f32(x).to_f32());
    let grid = Grid::Affine { scale: Values::F32(scales.to_vec()).into(), zero_point: None };
    let codes: Vec<u8> = (0..24).map(|i| i * 11).collect();
    let q = QTensor::from_codes(&[3, 8], 8, Granularity::Channel { axis: 0 }, grid, &codes).unwrap();
    let form = Form::of(&q).with_scales(ElementType::Bf16).unwrap();
    let parts = Parts::new(Convention::IntQuantized, "w", &[3, 8], form).unwrap();
    let path = new_path();
    let file = safetensors::layout(parts.tensors(), &BTreeMap::new()).unwrap().create(&path).unwrap();
    parts.encode(&q, 0).unwrap().iter().for_each(|p| file.write(p.index, p.offset, &p.bytes).unwrap());
    file.finish().unwrap();
    let file = file::open(&path).unwrap();
    assert_eq!(file.tensors()[0].element, ElementType::Bf16);
    let back = Quantized::of(&*file).read("w").unwrap();
    assert_eq!(back, q);
    // As the type itself multiplies: exactly, then rounded once.
    for (i, x) in back.dequantize::<bf16>().into_iter().enumerate() {
        assert_eq!(x, bf16::from_f64((f64::from(codes[i]) - 128.0) * f64::from(scales[i / 8])));
    }
    fs::remove_file(path).unwrap();
}

/// The authors of `fracast` quantized its weights; here is the same file from the originals.
#[test]
fn fracasts_file_bit_for_bit() {
    let original = SafeTensors::decode(fixture("fracast/fracast0.f32")).unwrap();
    let published = SafeTensors::decode(fixture("fracast/fracast0.w8")).unwrap();
    let read = Quantized::of(&published);
    let (mut infos, mut bytes, mut codes) = (Vec::new(), Vec::new(), 0);
    for (index, info) in original.tensors().iter().enumerate() {
        let Some(convention) = read.names().find(|(name, _)| *name == info.name) else {
            infos.push(info.clone());
            bytes.push(original.data(index).unwrap().to_vec());
            continue;
        };
        assert_eq!(convention.1, Convention::PerChannelInt8);
        let values = (&original as &dyn TensorFile).to_f32(index).unwrap();
        let symmetric = Symmetric::new(8).unwrap();
        let symmetric = if info.shape.len() == 1 { symmetric } else { symmetric.per_channel(0) };
        let q = symmetric.quantize(TensorRef::new(&values, &info.shape).unwrap()).unwrap();
        assert_eq!(read.read(&info.name).unwrap(), q, "{}", info.name);
        let parts = Parts::new(Convention::PerChannelInt8, &info.name, &info.shape, Form::of(&q)).unwrap();
        infos.extend(parts.tensors().to_vec());
        bytes.extend(parts.encode(&q, 0).unwrap().into_iter().map(|part| part.bytes.into_owned()));
        codes += q.len();
    }
    assert_eq!((codes, read.names().count()), (79_872, 20));
    let path = new_path();
    let file = safetensors::layout(&infos, &published.metadata()).unwrap().create(&path).unwrap();
    bytes.iter().enumerate().for_each(|(index, bytes)| file.write(index, 0, bytes).unwrap());
    file.finish().unwrap();
    let ours = SafeTensors::open(&path).unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!((ours.tensors(), ours.metadata()), (published.tensors(), published.metadata()));
    for index in 0..infos.len() {
        assert_eq!(ours.data(index).unwrap(), published.data(index).unwrap(), "{}", ours.tensors()[index].name);
    }
}

/// Weights that compressed-tensors compressed: they decode to what it decodes them to, and are written as it writes them.
#[test]
fn compressed_tensors_bit_for_bit() {
    let path = format!("{}/tests/fixtures/packed_tensors.safetensors", env!("CARGO_MANIFEST_DIR"));
    let file = file::open(path).unwrap();
    let read = Quantized::of(&*file);
    let names: Vec<_> = read.names().collect();
    assert_eq!(names.len(), 7);
    for (name, convention) in names {
        let expected = if name.starts_with("int") { Convention::IntQuantized } else { Convention::PackQuantized };
        assert_eq!(convention, expected, "{name}");
        let q = read.read(name).unwrap();
        let decoded = file.find(&name.replace(".weight", ".decoded")).unwrap();
        let element = file.tensors()[decoded].element;
        let ours: Vec<u8> = match element {
            ElementType::F32 => q.dequantize::<f32>().into_iter().flat_map(f32::to_le_bytes).collect(),
            ElementType::F16 => q.dequantize::<f16>().into_iter().flat_map(f16::to_le_bytes).collect(),
            _ => q.dequantize::<bf16>().into_iter().flat_map(bf16::to_le_bytes).collect(),
        };
        assert_eq!(ours, file.data(decoded).unwrap(), "{name}");
        let form = Form::of(&q).with_scales(element).unwrap();
        let parts = Parts::new(convention, name, q.shape(), form).unwrap();
        assert_eq!(parts.tensors().len(), read.parts(name).len());
        for part in parts.encode(&q, 0).unwrap() {
            let theirs = file.find(&parts.tensors()[part.index].name).unwrap();
            assert_eq!(file.tensors()[theirs], parts.tensors()[part.index]);
            assert_eq!(file.data(theirs).unwrap(), part.bytes.into_owned(), "{name}");
        }
    }
}
