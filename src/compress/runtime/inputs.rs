//! What models run on.

use super::Runtime;
#[cfg(feature = "serde")]
use crate::config::names::Names;
use crate::{
    config::config,
    error::{Error, Result},
    format::{
        file::{self, ElementType, TensorFile, TensorInfo},
        onnx::{
            element_type,
            proto::{Size, TypeValue, ValueInfoProto},
        },
    },
    kernel::random::fmix64,
    tensor::view::checked_volume,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Numbers for an input of a model, in the order of the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    pub(in crate::compress) shape: Vec<usize>,
    pub(in crate::compress) data: Data,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::compress) enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
}

macro_rules! constructors {
    ($($name:ident $variant:ident $type:ty, $what:literal;)*) => {
        impl Feed {
            $(
                #[doc = concat!($what, ".\n\n# Errors\n[`Shape`](crate::ErrorKind::Shape) where they are not as many as `shape` says.")]
                pub fn $name(shape: &[usize], values: Vec<$type>) -> Result<Self> {
                    if checked_volume(shape)? != values.len() {
                        return Err(Error::shape("values of an input", shape, &[values.len()]));
                    }
                    Ok(Self { shape: shape.into(), data: Data::$variant(values) })
                }
            )*

            fn element(&self) -> ElementType {
                match self.data {
                    $(Data::$variant(_) => ElementType::$variant,)*
                }
            }
        }
    };
}

constructors! {
    f32 F32 f32, "Floating-point numbers";
    i64 I64 i64, "Integers of 64 bits, which have to be those of 32 for the runtime";
    i32 I32 i32, "Integers of 32 bits";
    u8 U8 u8, "Bytes";
    bool Bool bool, "Truth values";
}

/// What models run on, and how large they may be.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `seed` | – | any | random inputs: others by another |
/// | `batch` | 1 | 1 and more | random inputs: sizes that the model leaves open |
/// | `sizes` | none | 1 and more | random inputs: such sizes by their names |
/// | `integers` | 2 | 1 and more | random inputs: integers are below this, from 0 |
/// | `samples` | 1 | 1 and more | random inputs: how many there are |
/// | `runtime` | [`Runtime::Rten`] | | what runs the models |
/// | `limit` | 2³¹ | any | bytes of a model, with its weights as `f32`, and of a sample |
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Inputs {
    given: Option<Vec<Vec<(String, Feed)>>>,
    /// Of a file: which sample each is of is known by the inputs' names.
    stored: Option<Vec<(String, Feed)>>,
    seed: u64,
    samples: usize,
    batch: usize,
    integers: i32,
    sizes: BTreeMap<String, usize>,
    pub(in crate::compress) runtime: Runtime,
    pub(in crate::compress) limit: u64,
}

config! {
    Inputs(seed: u64) => Self::random(seed),
    samples: usize => |it, samples| match samples {
        0 => Err(Error::argument("samples", 0, "at least 1")),
        _ => Ok(it.with_samples(samples)),
    },
    batch: usize => |it, batch| it.with_batch(batch).checked(),
    integers: i32 => |it, end| it.with_integers_below(end).checked(),
    sizes: Names<usize> = |it| Names(it.sizes.clone()) => |it, Names(sizes)| Self { sizes, ..it }.checked(),
    runtime: Runtime => Self::with_runtime,
    limit: u64 => Self::with_limit,
    ; check: |it| match it.given.is_some() || it.stored.is_some() {
        false => Ok(()),
        true => Err(Error::argument("inputs", "samples", "random ones, to be written")),
    }
}

impl Inputs {
    /// Random ones of the types and shapes that the model says: floating-point numbers from 0 to 1, small integers, and `true`.
    pub fn random(seed: u64) -> Self {
        let (runtime, sizes) = (Runtime::default(), BTreeMap::new());
        Self { given: None, stored: None, seed, samples: 1, batch: 1, integers: 2, sizes, runtime, limit: 1 << 31 }
    }

    /// These: for each sample the inputs by their names.
    pub fn given(samples: impl IntoIterator<Item = Vec<(String, Feed)>>) -> Self {
        Self { given: Some(samples.into_iter().collect()), ..Self::random(0) }
    }

    /// Those in a file of tensors, such as NumPy's `.npz`: a tensor for each input, called as it is; of several samples the tensors of
    /// each, with its number after a point (`x.0`, `x.1`). Floating-point numbers become those of 32 bits.
    ///
    /// # Errors
    /// As [`file::open`] and [`TensorFile::data`](crate::format::file::TensorFile::data); [`Argument`](crate::ErrorKind::Argument) for
    /// elements that are no input's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let read = file::open(path)?;
        let feed = |(index, info): (usize, &TensorInfo)| {
            let feed = stored(&*read, index).map_err(|error| error.in_tensor(&info.name))?;
            Ok((info.name.clone(), feed))
        };
        let feeds = read.tensors().iter().enumerate().map(feed).collect::<Result<_>>()?;
        Ok(Self { stored: Some(feeds), ..Self::random(0) })
    }

    /// Sizes that the model leaves open are this.
    pub fn with_batch(self, size: usize) -> Self {
        Self { batch: size, ..self }
    }

    /// Sizes that the model calls so are this.
    pub fn with_size(mut self, name: impl Into<String>, size: usize) -> Self {
        self.sizes.insert(name.into(), size);
        self
    }

    /// Random integers are below this: the number of known words, say.
    pub fn with_integers_below(self, end: i32) -> Self {
        Self { integers: end, ..self }
    }

    /// So many random samples.
    pub fn with_samples(self, count: usize) -> Self {
        Self { samples: count, ..self }
    }

    /// What runs the models.
    pub fn with_runtime(self, runtime: Runtime) -> Self {
        Self { runtime, ..self }
    }

    /// Models of more bytes, decoded, are refused.
    pub fn with_limit(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }

    /// The samples, each with all inputs of the model.
    pub(in crate::compress) fn samples(&self, specs: &[Spec]) -> Result<Vec<Vec<(String, Feed)>>> {
        let samples = match &self.given {
            Some(samples) => samples.clone(),
            None if self.stored.is_some() => numbered(self.stored.iter().flatten(), specs),
            None => (0..self.samples).map(|sample| self.sample(sample, specs)).collect::<Result<_>>()?,
        };
        if samples.is_empty() {
            return Err(Error::empty("list of samples"));
        }
        samples.iter().try_for_each(|sample| check(specs, sample))?;
        Ok(samples)
    }

    /// Itself, where random samples can be made so.
    #[cfg(feature = "serde")]
    fn checked(self) -> Result<Self> {
        self.check().map(|()| self)
    }

    fn check(&self) -> Result<()> {
        if self.integers < 1 {
            return Err(Error::argument("end of the integers", self.integers, "at least 1"));
        }
        match self.batch == 0 || self.sizes.values().any(|&size| size == 0) {
            true => Err(Error::argument("size of an input", 0, "at least 1")),
            false => Ok(()),
        }
    }

    fn sample(&self, sample: usize, specs: &[Spec]) -> Result<Vec<(String, Feed)>> {
        self.check()?;
        let feed = |(i, spec): (usize, &Spec)| {
            let key = fmix64(self.seed ^ fmix64(((sample as u64) << 32) ^ (i as u64 + 1)));
            Ok((spec.name.clone(), self.feed(spec, key).map_err(|error| error.in_tensor(&spec.name))?))
        };
        specs.iter().enumerate().map(feed).collect()
    }

    fn feed(&self, spec: &Spec, key: u64) -> Result<Feed> {
        let open = || Error::argument("shape of an input", "left open by the model", "given, by inputs of your own");
        let shape: Vec<_> = spec.sizes.as_ref().ok_or_else(open)?.iter().map(|size| self.size(size)).collect();
        let count = checked_volume(&shape)?;
        if count as u64 > self.limit / 8 {
            return Err(Error::argument("shape of an input", format!("{shape:?}"), "within the limit"));
        }
        let bits = (0..count as u64).map(|i| fmix64(key.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        let whole = |bits: u64| ((bits >> 32) * self.integers as u64) >> 32;
        match spec.element {
            // 24 bits of a number from 0 to 1, which f32 has exactly.
            Some(ElementType::F32) => Feed::f32(&shape, bits.map(|bits| (bits >> 40) as f32 / 16_777_216.0).collect()),
            Some(ElementType::I64) => Feed::i64(&shape, bits.map(|bits| whole(bits) as i64).collect()),
            Some(ElementType::I32) => Feed::i32(&shape, bits.map(|bits| whole(bits) as i32).collect()),
            Some(ElementType::U8) => Feed::u8(&shape, bits.map(|bits| whole(bits).min(255) as u8).collect()),
            Some(ElementType::Bool) => Feed::bool(&shape, vec![true; count]),
            other => Err(spec.refused(other)),
        }
    }

    fn size(&self, size: &Dim) -> usize {
        match size {
            Dim::Fixed(size) => *size,
            Dim::Open(name) => self.sizes.get(name).copied().unwrap_or(self.batch),
        }
    }
}

/// The samples of a file: a name that no input has ends with the number of its sample.
fn numbered<'a>(feeds: impl Iterator<Item = &'a (String, Feed)>, specs: &[Spec]) -> Vec<Vec<(String, Feed)>> {
    let mut samples: BTreeMap<Option<usize>, Vec<(String, Feed)>> = BTreeMap::new();
    for (name, feed) in feeds {
        let split = name.rsplit_once('.').filter(|_| !specs.iter().any(|spec| spec.name == *name));
        let numbered = split.and_then(|(name, number)| Some((name, number.parse().ok()?)));
        let (name, number) = numbered.map_or((&**name, None), |(name, number)| (name, Some(number)));
        samples.entry(number).or_default().push((name.into(), feed.clone()));
    }
    samples.into_values().collect()
}

/// A tensor of a file as an input.
fn stored(read: &dyn TensorFile, index: usize) -> Result<Feed> {
    fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
    }
    let info = file::at(read.tensors(), index)?;
    let data = || {
        let bytes = read.data(index)?;
        info.check_bytes(bytes.len()).map(|()| bytes)
    };
    match info.element {
        ElementType::I64 => Feed::i64(&info.shape, numbers(&data()?, i64::from_le_bytes)),
        ElementType::I32 => Feed::i32(&info.shape, numbers(&data()?, i32::from_le_bytes)),
        ElementType::U8 => Feed::u8(&info.shape, data()?.to_vec()),
        ElementType::Bool => Feed::bool(&info.shape, data()?.iter().map(|&byte| byte != 0).collect()),
        _ => Feed::f32(&info.shape, read.to_f32(index)?),
    }
}

/// An input of a model.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::compress) struct Spec {
    pub(in crate::compress) name: String,
    element: Option<ElementType>,
    sizes: Option<Vec<Dim>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Dim {
    Fixed(usize),
    /// By its name, which may be empty.
    Open(String),
}

impl Spec {
    pub(in crate::compress) fn new(value: &ValueInfoProto) -> Self {
        let name = value.name.clone().unwrap_or_default();
        let Some(TypeValue::Tensor(tensor)) = value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
            return Self { name, element: None, sizes: None };
        };
        let size = |size: &Option<Size>| match size {
            Some(Size::DimValue(size)) if *size > 0 => usize::try_from(*size).map_or(Dim::Open("".into()), Dim::Fixed),
            Some(Size::DimParam(name)) => Dim::Open(name.clone()),
            _ => Dim::Open(String::new()),
        };
        let sizes = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|dim| size(&dim.value)).collect());
        Self { name, element: tensor.elem_type.and_then(element_type), sizes }
    }

    /// For each axis, the name of a size that is left open, which may be empty.
    pub(in crate::compress) fn open(&self) -> Vec<Option<&str>> {
        fn name(dim: &Dim) -> Option<&str> {
            if let Dim::Open(name) = dim { Some(name) } else { None }
        }
        self.sizes.iter().flatten().map(name).collect()
    }

    fn refused(&self, element: Option<ElementType>) -> Error {
        let found = element.map_or("no tensor".into(), |element| element.to_string());
        Error::argument("type of an input", found, "f32, i64, i32, u8 or bool").in_tensor(&self.name)
    }
}

/// Whether a sample is what the model takes: each input once, of its type and shape, and one size for each name.
pub(in crate::compress) fn check(specs: &[Spec], sample: &[(String, Feed)]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, feed) in sample {
        let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
            return Err(Error::argument("input", format!("{name:?}"), "one of the model's"));
        };
        if !seen.insert(name) {
            return Err(Error::argument("input", "given twice", "given once").in_tensor(name));
        }
        if spec.element != Some(feed.element()) {
            let expected = spec.element.map_or("no tensor".into(), |element| element.to_string());
            let found = format!("{} where the model has {expected}", feed.element());
            return Err(Error::argument("type of an input", found, "the model's").in_tensor(name));
        }
        let Some(sizes) = &spec.sizes else { continue };
        let mut needed = feed.shape.clone();
        needed.resize(sizes.len(), 1);
        for (needed, size) in needed.iter_mut().zip(sizes) {
            match size {
                Dim::Fixed(size) => *needed = *size,
                Dim::Open(name) if name.is_empty() => {}
                Dim::Open(name) => *needed = *named.entry(name).or_insert(*needed),
            }
        }
        if needed != feed.shape {
            return Err(Error::shape("input", &needed, &feed.shape).in_tensor(name));
        }
    }
    match specs.iter().find(|spec| !seen.contains(&spec.name)) {
        Some(spec) => Err(Error::argument("input", "not given", "given, as the model needs it").in_tensor(&spec.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn spec(name: &str, element: ElementType, sizes: &[Dim]) -> Spec {
        Spec { name: name.into(), element: Some(element), sizes: Some(sizes.into()) }
    }

    #[test]
    fn random_ones_are_of_the_type_and_shape() {
        let open = |name: &str| Dim::Open(name.into());
        let specs = [
            spec("x", ElementType::F32, &[open("n"), open("seq"), Dim::Fixed(50)]),
            spec("ids", ElementType::I64, &[open("n"), open("seq")]),
            spec("mask", ElementType::Bool, &[open("")]),
        ];
        let inputs = Inputs::random(7).with_batch(2).with_size("seq", 5).with_integers_below(3).with_samples(2);
        let samples = inputs.samples(&specs).unwrap();
        assert_eq!(inputs.samples(&specs).unwrap(), samples);
        assert!(samples[0] != samples[1] && Inputs::random(8).with_batch(2).samples(&specs[..1]).is_ok());
        let [(_, x), (_, ids), (_, mask)] = &samples[0][..] else { panic!() };
        assert_eq!((x.shape.as_slice(), ids.shape.as_slice()), (&[2, 5, 50][..], &[2, 5][..]));
        let Data::F32(values) = &x.data else { panic!() };
        let mean = values.iter().sum::<f32>() / 500.0;
        assert!(values.iter().all(|x| (0.0..1.0).contains(x)) && (mean - 0.5).abs() < 0.05, "{mean}");
        let Data::I64(values) = &ids.data else { panic!() };
        assert!(values.iter().all(|x| (0..3).contains(x)) && values.iter().any(|&x| x > 0));
        assert_eq!(mask.data, Data::Bool(vec![true; 2]));
        assert!(inputs.clone().with_limit(3999).samples(&specs).is_err());
        assert!(inputs.clone().with_integers_below(0).samples(&specs).is_err());
        assert_eq!(inputs.with_samples(0).samples(&specs).unwrap_err().kind(), ErrorKind::Empty);
        let half = [spec("h", ElementType::F16, &[])];
        assert_eq!(Inputs::random(0).samples(&half).unwrap_err().tensor(), Some("h"));
    }
}
