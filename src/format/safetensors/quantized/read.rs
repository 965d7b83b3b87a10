//! Reading: which tensors of a file are quantized, and what they were.

use super::{
    Convention, Form, Parts, Role,
    form::{GridForm, scales, values},
};
use crate::{
    error::{Error, Result},
    format::file::{Bytes, ElementType, TensorFile, TensorInfo},
    kernel::pack::packed_len,
    tensor::{Granularity, Grid, QTensor, Scales, Values},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Before a tensor's name, its key in the metadata.
const KEY: &str = "lapidary.quantized.";
/// Groups by index, which compressed-tensors may have beside the codes.
const GROUP_INDEX: &str = "_g_idx";

/// What the metadata says of a quantized tensor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    bits: u8,
    shape: Vec<usize>,
    granularity: Sharing,
    grid: Kind,
}

/// A [`Granularity`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sharing {
    Tensor,
    Channel { axis: usize },
    Group { size: usize },
    Block { axis: usize, size: usize },
}

/// The kind of a [`Grid`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    MinMax,
    /// Affine, without zero points.
    Symmetric,
    Affine,
    Codebook,
    Scaled,
}

impl Note {
    /// Key and value of the metadata.
    pub(super) fn entry(name: &str, shape: &[usize], form: Form) -> (String, String) {
        let granularity = match form.granularity {
            Granularity::Tensor => Sharing::Tensor,
            Granularity::Channel { axis } => Sharing::Channel { axis },
            Granularity::Group { size } => Sharing::Group { size },
            Granularity::Block { axis, size } => Sharing::Block { axis, size },
        };
        let grid = match form.grid {
            GridForm::MinMax { .. } => Kind::MinMax,
            GridForm::Affine { zero_points: false, .. } => Kind::Symmetric,
            GridForm::Affine { .. } => Kind::Affine,
            GridForm::Codebook { .. } => Kind::Codebook,
            GridForm::Scaled { .. } => Kind::Scaled,
        };
        let note = serde_json::json!(Self { bits: form.bits, shape: shape.into(), granularity, grid });
        (format!("{KEY}{name}"), note.to_string())
    }

    fn granularity(&self) -> Granularity {
        match self.granularity {
            Sharing::Tensor => Granularity::Tensor,
            Sharing::Channel { axis } => Granularity::Channel { axis },
            Sharing::Group { size } => Granularity::Group { size },
            Sharing::Block { axis, size } => Granularity::Block { axis, size },
        }
    }
}

/// The quantized tensors of a file, of every [`Convention`].
pub struct Quantized<'a> {
    file: &'a dyn TensorFile,
    by_name: BTreeMap<&'a str, usize>,
    notes: BTreeMap<String, String>,
    found: BTreeMap<String, Convention>,
}

impl<'a> Quantized<'a> {
    /// Finds them by the names of tensors and the metadata. Whether their parts fit shows where they are [read](Self::read).
    #[must_use]
    pub fn of(file: &'a dyn TensorFile) -> Self {
        let by_name: BTreeMap<_, _> = file.tensors().iter().enumerate().map(|(i, info)| (&*info.name, i)).collect();
        let notes: BTreeMap<_, _> = file
            .metadata()
            .into_iter()
            .filter_map(|(key, note)| Some((key.strip_prefix(KEY)?.to_string(), note)))
            .collect();
        let mut found: BTreeMap<_, _> = notes.keys().map(|name| (name.clone(), Convention::Lapidary)).collect();
        let has = |name: &str, ending: &str| by_name.contains_key(&*format!("{name}{ending}"));
        for tensor in file.tensors() {
            let of = |convention: Convention, role| {
                tensor.name.strip_suffix(convention.ending(role)).map(|name| (name, convention))
            };
            let byte = tensor.element == ElementType::I8;
            let packed = of(Convention::PackQuantized, Role::Words);
            let found_here = packed.filter(|(name, _)| has(name, "_scale") && has(name, "_shape")).or_else(|| {
                let fits = |&(name, convention): &(&str, Convention)| has(name, convention.ending(Role::Scales));
                [Convention::IntQuantized, Convention::PerChannelInt8]
                    .into_iter()
                    .filter(|_| byte)
                    .filter_map(|convention| of(convention, Role::Signed))
                    .find(fits)
            });
            if let Some((name, convention)) = found_here {
                found.entry(name.into()).or_insert(convention);
            }
        }
        Self { file, by_name, notes, found }
    }

    /// Their names, and how each is kept.
    pub fn names(&self) -> impl Iterator<Item = (&str, Convention)> {
        self.found.iter().map(|(name, convention)| (&**name, *convention))
    }

    /// The tensors of the file that hold the quantized tensor of this name, by their places there: none, where it is none.
    #[must_use]
    pub fn parts(&self, name: &str) -> Vec<usize> {
        let Some(convention) = self.found.get(name) else { return vec![] };
        let endings = convention.roles().iter().map(|role| convention.ending(*role));
        let index = matches!(convention, Convention::PackQuantized | Convention::IntQuantized).then_some(GROUP_INDEX);
        endings.chain(index).filter_map(|ending| self.by_name.get(&*format!("{name}{ending}")).copied()).collect()
    }

    /// The quantized tensor of this name. Scales of `bf16` become `f32`.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for a name that is none of theirs, [`Format`](crate::ErrorKind::Format) for parts that
    /// are missing or do not fit each other, as [`QTensor::new`] and [`TensorFile::data`] else.
    pub fn read(&self, name: &str) -> Result<QTensor> {
        let read = || {
            let convention = self.found.get(name);
            let needed = "one of the file's quantized tensors";
            let &convention = convention.ok_or_else(|| Error::argument("name", format!("{name:?}"), needed))?;
            let (shape, form) = match convention {
                Convention::Lapidary => self.noted(name)?,
                Convention::PackQuantized => self.packed(name)?,
                Convention::IntQuantized | Convention::PerChannelInt8 => self.signed(name, convention)?,
            };
            let parts = Parts::new(convention, name, &shape, form).map_err(|error| malformed(error.to_string()))?;
            self.decode(&parts)
        };
        read().map_err(|error| error.in_tensor(name))
    }

    fn part(&self, name: &str, ending: &str) -> Result<(usize, &'a TensorInfo)> {
        let name = format!("{name}{ending}");
        let found = self.by_name.get(&*name).and_then(|&index| Some((index, self.file.tensors().get(index)?)));
        found.ok_or_else(|| malformed(format!("no tensor {name:?}")))
    }

    fn has(&self, name: &str, ending: &str) -> bool {
        self.by_name.contains_key(&*format!("{name}{ending}"))
    }

    /// Shape and form as the metadata has them; the types of numbers are the tensors'.
    fn noted(&self, name: &str) -> Result<(Vec<usize>, Form)> {
        let note = self.notes.get(name).map_or("", |note| note);
        let note: Note = serde_json::from_str(note).map_err(|error| malformed(format!("metadata: {error}")))?;
        let element = |role| Ok::<_, Error>(self.part(name, Convention::Lapidary.ending(role))?.1.element);
        let grid = match note.grid {
            Kind::MinMax => GridForm::MinMax { ends: element(Role::Minima)? },
            Kind::Symmetric => GridForm::Affine { scale: element(Role::Scales)?, zero_points: false },
            Kind::Affine => GridForm::Affine { scale: element(Role::Scales)?, zero_points: true },
            Kind::Codebook => GridForm::Codebook { levels: element(Role::Levels)? },
            Kind::Scaled => GridForm::Scaled { levels: element(Role::Levels)?, scale: element(Role::Scales)? },
        };
        let form = Form { bits: note.bits, granularity: note.granularity(), grid };
        Ok((note.shape, form))
    }

    /// Shape and form of `pack-quantized`: the words of a row tell the bits, the scales of a row the size of a group.
    fn packed(&self, name: &str) -> Result<(Vec<usize>, Form)> {
        let (index, info) = self.part(name, "_shape")?;
        let bytes = self.file.data(index)?;
        let sizes: Option<Vec<_>> = match (info.element, &info.shape[..]) {
            (ElementType::I64, [2]) => sizes(&bytes, i64::from_le_bytes),
            (ElementType::I32, [2]) => sizes(&bytes, i32::from_le_bytes),
            _ => None,
        };
        let Some(&[rows, cols]) = sizes.as_deref() else {
            return Err(malformed("a shape that is not two sizes"));
        };
        let words = self.part(name, "_packed")?.1.shape.get(1).copied();
        // Of up to four columns they are told apart nowhere; such a tensor is refused later.
        let bits = [4, 8].into_iter().find(|bits| Some(cols.div_ceil(32 / bits)) == words);
        let bits = bits.ok_or_else(|| malformed(format!("{words:?} words of {cols} codes of 4 or 8 bits")))?;
        let (granularity, scale) = self.sharing(name, &[rows, cols], false)?;
        let grid = GridForm::Affine { scale, zero_points: self.has(name, "_zero_point") };
        Ok((vec![rows, cols], Form { bits: bits as u8, granularity, grid }))
    }

    /// Shape and form of codes in `i8`.
    fn signed(&self, name: &str, convention: Convention) -> Result<(Vec<usize>, Form)> {
        let shape = self.part(name, convention.ending(Role::Signed))?.1.shape.clone();
        if convention == Convention::PerChannelInt8 {
            let scales = self.part(name, convention.ending(Role::Scales))?.1;
            let whole = scales.shape.is_empty() || scales.shape == [1];
            let granularity = if whole { Granularity::Tensor } else { Granularity::Channel { axis: 0 } };
            let grid = GridForm::Affine { scale: scales.element, zero_points: false };
            return Ok((shape, Form { bits: 8, granularity, grid }));
        }
        let (granularity, scale) = self.sharing(name, &shape, true)?;
        let grid = GridForm::Affine { scale, zero_points: self.has(name, "_zero_point") };
        Ok((shape, Form { bits: 8, granularity, grid }))
    }

    /// What shares a scale by compressed-tensors, and the type of scales.
    fn sharing(&self, name: &str, shape: &[usize], whole: bool) -> Result<(Granularity, ElementType)> {
        let scales = self.part(name, "_scale")?.1;
        let cols = shape.last().copied().unwrap_or(0);
        let granularity = match scales.shape[..] {
            [] | [1] if whole => Granularity::Tensor,
            [_, 1] => Granularity::Channel { axis: 0 },
            [_, groups] if groups > 0 && cols.is_multiple_of(groups) => Granularity::Group { size: cols / groups },
            _ => return Err(malformed(format!("scales of shape {:?} for {shape:?}", scales.shape))),
        };
        if self.has(name, GROUP_INDEX) {
            self.in_order(name, granularity)?;
        }
        Ok((granularity, scales.element))
    }

    /// An error where columns have groups of another order than their own. All -1 say nothing.
    fn in_order(&self, name: &str, granularity: Granularity) -> Result<()> {
        let (index, info) = self.part(name, GROUP_INDEX)?;
        let bytes = self.file.data(index)?;
        let group = |column: usize| match granularity {
            Granularity::Group { size } => column / size.max(1),
            _ => 0,
        };
        let mut columns = bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).enumerate();
        let unset = columns.clone().all(|(_, found)| found == -1);
        if info.element == ElementType::I32
            && (unset || columns.all(|(at, found)| usize::try_from(found) == Ok(group(at))))
        {
            return Ok(());
        }
        Err(malformed(format!("groups by the index {:?}, where only groups of neighbours are read", info.name)))
    }

    /// The quantized tensor that parts hold, where they are as they must be.
    fn decode(&self, parts: &Parts) -> Result<QTensor> {
        let mut held = Held::default();
        for (needed, role) in parts.roles() {
            if role == Role::Shape {
                continue;
            }
            let (index, found) = self.part(&needed.name, "")?;
            let one = needed.shape == [1] && found.shape.is_empty();
            if needed.element != found.element || !(one || needed.shape == found.shape) {
                let [found, due] = [found, needed].map(|tensor| format!("{} {:?}", tensor.element, tensor.shape));
                return Err(malformed(format!("{:?} is {found}, where {due} is needed", needed.name)));
            }
            held.take(role, found.element, &self.file.data(index)?, parts)?;
        }
        let Form { bits, granularity, grid } = parts.form();
        let missing = || malformed("missing levels");
        let grid = match grid {
            GridForm::MinMax { .. } => {
                Grid::MinMax { min: held.minima.ok_or_else(missing)?, max: held.maxima.ok_or_else(missing)? }
            }
            GridForm::Affine { .. } => Grid::Affine { scale: held.scales.ok_or_else(missing)?, zero_point: held.zeros },
            GridForm::Codebook { .. } => Grid::Codebook { levels: held.levels.ok_or_else(missing)? },
            GridForm::Scaled { .. } => {
                Grid::Scaled { levels: held.levels.ok_or_else(missing)?, scale: held.scales.ok_or_else(missing)? }
            }
        };
        QTensor::new(parts.shape(), bits, granularity, grid, held.codes)
    }
}

/// What was read of a quantized tensor.
#[derive(Default)]
struct Held {
    codes: Vec<u8>,
    scales: Option<Scales>,
    zeros: Option<Vec<u16>>,
    minima: Option<Values>,
    maxima: Option<Values>,
    levels: Option<Values>,
}

impl Held {
    fn take(&mut self, role: Role, element: ElementType, bytes: &Bytes, parts: &Parts) -> Result<()> {
        let Form { bits, .. } = parts.form();
        match role {
            Role::Codes => self.codes = bytes.to_vec(),
            Role::Words => {
                let row = packed_len(parts.shape().last().copied().unwrap_or(1), bits.into());
                let rows = bytes.chunks_exact(row.next_multiple_of(4).max(4));
                self.codes = rows.flat_map(|words| words.get(..row).unwrap_or_default()).copied().collect();
            }
            Role::Signed => self.codes = bytes.iter().map(|code| code ^ 0x80).collect(),
            Role::Scales => self.scales = Some(scales(bytes, element)?),
            Role::Zeros if element == ElementType::U16 => {
                self.zeros = Some(bytes.as_chunks().0.iter().map(|zero| u16::from_le_bytes(*zero)).collect());
            }
            Role::Zeros => self.zeros = Some(bytes.iter().map(|&zero| zero.into()).collect()),
            Role::SignedZeros => self.zeros = Some(bytes.iter().map(|&zero| (zero ^ 0x80).into()).collect()),
            Role::WordZeros => {
                let rows = parts.shape().first().copied().unwrap_or(1);
                self.zeros = Some(word_zeros(bytes, rows, bits));
            }
            Role::Minima => self.minima = Some(values(bytes, element)?),
            Role::Maxima => self.maxima = Some(values(bytes, element)?),
            Role::Levels => self.levels = Some(values(bytes, element)?),
            Role::Shape => {}
        }
        Ok(())
    }
}

/// Zero points of rows, as many as there are, from words of those one below the other.
fn word_zeros(bytes: &[u8], rows: usize, bits: u8) -> Vec<u16> {
    let per = 32 / usize::from(bits.clamp(1, 32));
    let groups = bytes.len() / 4 / rows.div_ceil(per).max(1);
    let words = bytes.as_chunks().0;
    let mask = (1u32 << bits.min(16)) - 1;
    let mut zeros = Vec::with_capacity(bytes.len() / 4 * per);
    for (words, first) in words.chunks(groups.max(1)).zip((0..rows).step_by(per)) {
        for row in first..rows.min(first + per) {
            let shift = (row - first) * usize::from(bits);
            zeros.extend(words.iter().map(|word| (u32::from_le_bytes(*word) >> shift & mask) as u16));
        }
    }
    zeros
}

fn sizes<T: TryInto<usize>, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Option<Vec<usize>> {
    bytes.as_chunks().0.iter().map(|bytes| read(*bytes).try_into().ok()).collect()
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::format(0, reason)
}
