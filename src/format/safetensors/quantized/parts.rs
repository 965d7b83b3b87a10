//! Writing: the tensors that hold a quantized one, known before it is, and filled some rows at a time.

use super::{
    Convention, Form, Role,
    form::{GridForm, scale_bytes, value_bytes},
    read::Note,
};
use crate::{
    error::{Error, Result},
    format::file::{ElementType, TensorInfo},
    kernel::pack::packed_len,
    tensor::{Granularity, Grid, QTensor},
};
use std::borrow::Cow;

/// The tensors of a file that hold a quantized one.
///
/// They are known from a shape and a [`Form`], so that a [`layout`](crate::format::safetensors::layout) can be made of them; then
/// [`encode`](Self::encode) gives their bytes, of all rows or of some, in any order.
///
/// ```
/// use lapidary::{QuantizerExt, TensorRef, quant::Symmetric};
/// use lapidary::format::{file, safetensors::{self, Convention, Form, Parts, Quantized}};
/// # let path = std::env::temp_dir().join(format!("lapidary-parts-{}.safetensors", std::process::id()));
/// let weights: Vec<f32> = (0..64 * 32).map(|i| (i as f32).sin()).collect();
/// let quantizer = Symmetric::new(4)?.per_group(16)?;
/// let form = Form::of(&lapidary::Quantizer::<f32>::layout(&quantizer, &[1, 32])?);
/// let parts = Parts::new(Convention::PackQuantized, "layer.weight", &[64, 32], form)?;
/// let file = safetensors::layout(parts.tensors(), &parts.metadata().into_iter().collect())?.create(&path)?;
/// for (i, rows) in weights.chunks(16 * 32).enumerate() {
///     let q = quantizer.quantize(TensorRef::new(rows, &[16, 32])?)?;
///     for part in parts.encode(&q, i * 16)? {
///         file.write(part.index, part.offset, &part.bytes)?;
///     }
/// }
/// file.finish()?;
/// let file = file::open(&path)?;
/// let q = Quantized::of(&*file).read("layer.weight")?;
/// assert_eq!(q, quantizer.quantize(TensorRef::new(&weights, &[64, 32])?)?);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Parts {
    convention: Convention,
    name: String,
    shape: Vec<usize>,
    form: Form,
    tensors: Vec<TensorInfo>,
    /// What each of the tensors holds, and how many rows share its first index; `None` where all rows share it.
    roles: Vec<(Role, Option<usize>)>,
}

/// Some bytes of one of the tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part<'a> {
    /// The place of the tensor in [`Parts::tensors`].
    pub index: usize,
    /// Where in the tensor they begin, in bytes.
    pub offset: u64,
    /// The bytes.
    pub bytes: Cow<'a, [u8]>,
}

impl Parts {
    /// The tensors that hold a quantized tensor `name` of a shape and a form.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for what the convention does not have: its bits, its granularity, its levels, its shape;
    /// as [`QTensor::new`] for what no quantized tensor has.
    pub fn new(convention: Convention, name: &str, shape: &[usize], form: Form) -> Result<Self> {
        let parts = || {
            convention.check(shape, form)?;
            Self::unchecked(convention, name, shape, form)
        };
        parts().map_err(|error| error.in_tensor(name))
    }

    fn unchecked(convention: Convention, name: &str, shape: &[usize], form: Form) -> Result<Self> {
        let Form { bits, granularity, grid } = form;
        QTensor::sizes(shape, bits, granularity)?;
        let (&cols, rows) = shape.split_last().unwrap_or((&1, &[]));
        let groups = groups(shape, granularity);
        let unit = unit(shape, granularity);
        let by_row = (shape.len() > 1).then_some(1);
        let width = usize::from(bits);
        let first = shape.first().copied().unwrap_or(1);
        let mut parts =
            Self { convention, name: name.into(), shape: shape.into(), form, tensors: vec![], roles: vec![] };
        let with = |front: &[usize], last: usize| [front, &[last]].concat();
        match convention {
            Convention::Lapidary => {
                let bytes = if bits == 16 { cols.saturating_mul(2) } else { packed_len(cols, bits.into()) };
                parts.add(Role::Codes, ElementType::U8, with(rows, bytes), by_row);
                match grid {
                    GridForm::MinMax { ends } => {
                        parts.add(Role::Minima, ends, groups.clone(), unit);
                        parts.add(Role::Maxima, ends, groups, unit);
                    }
                    GridForm::Affine { scale, zero_points } => {
                        parts.add(Role::Scales, scale, groups.clone(), unit);
                        if zero_points {
                            let zeros = if bits == 16 { ElementType::U16 } else { ElementType::U8 };
                            parts.add(Role::Zeros, zeros, groups, unit);
                        }
                    }
                    GridForm::Codebook { levels } => {
                        // As many levels a group as there are codes, of at most 8 bits.
                        parts.add(Role::Levels, levels, with(&groups, 1usize << bits.min(16)), unit);
                    }
                    GridForm::Scaled { levels, scale } => {
                        parts.add(Role::Scales, scale, groups, unit);
                        parts.add(Role::Levels, levels, vec![1 << bits.min(16)], None);
                    }
                }
            }
            Convention::PackQuantized | Convention::IntQuantized | Convention::PerChannelInt8 => {
                let GridForm::Affine { scale, zero_points } = grid else { return Err(Error::empty("scales")) };
                let groups = match (convention, granularity) {
                    (_, Granularity::Tensor) => vec![1],
                    (Convention::PerChannelInt8, _) => [&[first][..], &vec![1; rows.len()]].concat(),
                    (_, Granularity::Group { size }) => vec![first, cols.div_ceil(size)],
                    _ => vec![first, 1],
                };
                match convention {
                    Convention::PackQuantized => {
                        let words = cols.div_ceil(32 / width);
                        parts.add(Role::Words, ElementType::I32, with(rows, words), by_row);
                    }
                    _ => parts.add(Role::Signed, ElementType::I8, shape.into(), by_row),
                }
                parts.add(Role::Scales, scale, groups.clone(), unit);
                match convention {
                    Convention::PackQuantized => {
                        if zero_points {
                            let per = 32 / width;
                            let packed = [&[first.div_ceil(per)], groups.get(1..).unwrap_or_default()].concat();
                            parts.add(Role::WordZeros, ElementType::I32, packed, Some(per));
                        }
                        parts.add(Role::Shape, ElementType::I64, vec![shape.len()], None);
                    }
                    _ if zero_points => parts.add(Role::SignedZeros, ElementType::I8, groups, unit),
                    _ => {}
                }
            }
        }
        parts.tensors.iter().try_for_each(|tensor| tensor.byte_len().map(drop))?;
        Ok(parts)
    }

    fn add(&mut self, role: Role, element: ElementType, shape: Vec<usize>, unit: Option<usize>) {
        let name = format!("{}{}", self.name, self.convention.ending(role));
        self.tensors.push(TensorInfo { name, element, shape });
        self.roles.push((role, unit));
    }

    /// The tensors, the codes first.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What the file's metadata is to say, a key and a value; only [`Convention::Lapidary`] needs it.
    #[must_use]
    pub fn metadata(&self) -> Option<(String, String)> {
        (self.convention == Convention::Lapidary).then(|| Note::entry(&self.name, &self.shape, self.form))
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The tensors, and what each of them holds.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&TensorInfo, Role)> {
        self.tensors.iter().zip(self.roles.iter().map(|(role, _)| *role))
    }

    /// The bytes of `q`, which is the whole tensor or its rows (along the first axis) from `first_row` on. What all rows share, such as
    /// one scale of a whole tensor, comes with the first row alone: such levels are to be fitted before.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when `q` has other rows; [`Argument`](crate::ErrorKind::Argument) when it has another form, its
    /// rows go beyond the last, are only some of those that share levels or a word of packed zero points, or a scale is no number of the
    /// type it is to be stored in.
    pub fn encode<'a>(&self, q: &'a QTensor, first_row: usize) -> Result<Vec<Part<'a>>> {
        self.parts_of(q, first_row).map_err(|error| error.in_tensor(&self.name))
    }

    fn parts_of<'a>(&self, q: &'a QTensor, first_row: usize) -> Result<Vec<Part<'a>>> {
        let (total, rows) = match (&self.shape[..], q.shape()) {
            ([total, tail @ ..], [rows, same @ ..]) if tail == same && !tail.is_empty() => (*total, *rows),
            (shape, other) if shape == other => (1, 1),
            (shape, other) => return Err(Error::shape("rows to encode", shape, other)),
        };
        let end = first_row.checked_add(rows).filter(|&end| end <= total);
        let end =
            end.ok_or_else(|| Error::argument("first row", first_row, "such that all rows are within the tensor"))?;
        self.form.check(q)?;
        let mut parts = Vec::with_capacity(self.tensors.len());
        for (index, (tensor, (role, unit))) in self.tensors.iter().zip(&self.roles).enumerate() {
            let offset = match unit {
                None if first_row > 0 => continue,
                None => 0,
                Some(unit) => {
                    if !first_row.is_multiple_of(*unit) || !(rows.is_multiple_of(*unit) || end == total) {
                        let found =
                            format!("{first_row}..{end}, of which {unit} share an element of {:?}", tensor.name);
                        return Err(Error::argument("rows to encode", found, "all that share one"));
                    }
                    (tensor.byte_len()? / total.div_ceil(*unit) * (first_row / unit)) as u64
                }
            };
            parts.push(Part { index, offset, bytes: self.bytes(q, *role)? });
        }
        Ok(parts)
    }

    fn bytes<'a>(&self, q: &'a QTensor, role: Role) -> Result<Cow<'a, [u8]>> {
        let absent = || Error::empty("part of a quantized tensor");
        let cols = q.shape().last().copied().unwrap_or(1);
        let bytes = match (role, q.grid(), self.form.grid) {
            (Role::Codes, ..) => return Ok(Cow::Borrowed(q.packed())),
            (Role::Words, ..) => words(q, cols),
            (Role::Signed, ..) => q.packed().iter().map(|code| code ^ 0x80).collect(),
            (Role::Shape, ..) => self.shape.iter().flat_map(|&n| (n as u64).to_le_bytes()).collect(),
            (
                Role::Scales,
                Grid::Affine { scale, .. } | Grid::Scaled { scale, .. },
                GridForm::Affine { scale: element, .. } | GridForm::Scaled { scale: element, .. },
            ) => scale_bytes(scale, element)?,
            (Role::Zeros | Role::SignedZeros | Role::WordZeros, Grid::Affine { zero_point: Some(zeros), .. }, _) => {
                match role {
                    Role::Zeros if q.bits() == 16 => zeros.iter().flat_map(|zero| zero.to_le_bytes()).collect(),
                    Role::Zeros => zeros.iter().map(|&zero| zero as u8).collect(),
                    Role::SignedZeros => zeros.iter().map(|&zero| zero as u8 ^ 0x80).collect(),
                    _ => word_zeros(zeros, q.shape().first().copied().unwrap_or(1), q.bits()),
                }
            }
            (Role::Minima, Grid::MinMax { min, .. }, _) => value_bytes(min)?,
            (Role::Maxima, Grid::MinMax { max, .. }, _) => value_bytes(max)?,
            (Role::Levels, Grid::Codebook { levels } | Grid::Scaled { levels, .. }, _) => value_bytes(levels)?,
            _ => return Err(absent()),
        };
        Ok(Cow::Owned(bytes))
    }
}

/// The shape of a list of one entry a group.
fn groups(shape: &[usize], granularity: Granularity) -> Vec<usize> {
    let along = |axis: usize, size: usize| {
        let length = |(at, &n): (usize, &usize)| if at == axis { n.div_ceil(size) } else { n };
        shape.iter().enumerate().map(length).collect()
    };
    match granularity {
        Granularity::Tensor => vec![1],
        Granularity::Channel { axis } => shape.get(axis).copied().into_iter().collect(),
        Granularity::Group { size } => along(shape.len().saturating_sub(1), size),
        Granularity::Block { axis, size } => along(axis, size),
    }
}

/// How many rows share the groups of one index along the first axis of their list; `None` where all do.
fn unit(shape: &[usize], granularity: Granularity) -> Option<usize> {
    match granularity {
        _ if shape.len() < 2 => None,
        Granularity::Tensor => None,
        Granularity::Channel { axis } => (axis == 0).then_some(1),
        Granularity::Block { axis: 0, size } => Some(size),
        Granularity::Group { .. } | Granularity::Block { .. } => Some(1),
    }
}

/// Packed rows, each filled up to 32-bit words by zeros.
fn words(q: &QTensor, cols: usize) -> Vec<u8> {
    let row = packed_len(cols, q.bits().into());
    let used = cols % 8 * usize::from(q.bits()) % 8;
    let mut bytes = Vec::with_capacity(q.packed().len() / row * row.next_multiple_of(4));
    for row in q.packed().chunks_exact(row) {
        bytes.extend_from_slice(row);
        // Bits beyond the last code may be anything in a quantized tensor.
        if let Some(last) = bytes.last_mut().filter(|_| used > 0) {
            *last &= (1u8 << used) - 1;
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Zero points, those of rows one below the other in one word.
fn word_zeros(zeros: &[u16], rows: usize, bits: u8) -> Vec<u8> {
    let groups = zeros.len() / rows.max(1);
    let per = 32 / usize::from(bits);
    let mut bytes = Vec::with_capacity(zeros.len().div_ceil(per) * 4);
    for rows in zeros.chunks(per * groups) {
        for group in 0..groups {
            let column = rows.iter().skip(group).step_by(groups);
            let word =
                column.enumerate().fold(0u32, |word, (i, &zero)| word | u32::from(zero) << (i * usize::from(bits)));
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes
}
