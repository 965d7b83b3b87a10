//! A quantized matrix laid out for products: sixteen rows beside one another.

use crate::{
    error::{Error, Result},
    kernel::dot::{
        CHUNK, ROWS,
        panel::{self, MAX_SEGMENT, Panels, Shape},
    },
    tensor::{Granularity, Grid, QTensor, view::filled},
};

/// Columns of a segment where groups are longer: one large input spoils the rounding of so many.
const SEGMENT: usize = 1024;

/// The columns that share a scale of the inputs: a group, or a part of it that divides it.
fn segment_of(group: usize, cols: usize) -> usize {
    if group == cols {
        return group.min(SEGMENT);
    }
    (SEGMENT / 4..=SEGMENT).rev().find(|&segment| group.is_multiple_of(segment)).unwrap_or(group)
}

/// The codes and levels of a matrix, in panels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weights {
    pub(super) shape: Shape,
    codes: Vec<[u8; CHUNK]>,
    scales: Vec<[f32; ROWS]>,
    levels: Levels,
}

/// What codes stand for before the scale: as [`panel::Levels`] has it.
#[derive(Debug, Clone, PartialEq)]
enum Levels {
    Zero(u8),
    Zeros(Vec<[u8; ROWS]>),
    Offsets(Vec<[f32; ROWS]>),
    Table(Vec<f32>),
    Tables(Vec<[f32; ROWS]>, usize),
}

impl Weights {
    /// Lays out `q`; the errors are those of [`Linear::new`](super::Linear::new).
    pub(super) fn new(q: &QTensor) -> Result<Self> {
        let &[rows, cols] = q.shape() else {
            return Err(Error::argument("weights", format!("{:?}", q.shape()), "a matrix of [outputs, inputs]"));
        };
        if q.bits() > 8 {
            return Err(Error::argument("bits", q.bits(), "1 to 8"));
        }
        let (group, groups_of) = match q.granularity() {
            Granularity::Tensor => (cols, Row::All),
            Granularity::Channel { axis: 0 } => (cols, Row::One),
            Granularity::Group { size } | Granularity::Block { axis: 1, size } => (size.min(cols), Row::Groups),
            other => return Err(Error::argument("granularity", format!("{other:?}"), "of rows or their neighbours")),
        };
        let segment = segment_of(group, cols);
        if segment > MAX_SEGMENT {
            return Err(Error::argument("group size", group, "at most 32,768, or the whole row"));
        }
        let bits = u32::from(q.bits()).next_power_of_two().max(2);
        let shape = Shape { rows, cols, bits, segment };
        let (chunks, segments) = (shape.all_chunks(), shape.segments());
        let mut weights = Self {
            shape,
            codes: filled(shape.panels() * chunks, [0; CHUNK])?,
            scales: filled(shape.panels() * segments, [0.0; ROWS])?,
            levels: Levels::of(q, shape.panels() * segments)?,
        };
        for (row, row_codes) in q.codes().chunks_exact(cols).enumerate() {
            let (panel, lane) = (row / ROWS, row % ROWS);
            for segment in 0..segments {
                let group = match groups_of {
                    Row::All => 0,
                    Row::One => row,
                    Row::Groups => row * cols.div_ceil(group) + segment * shape.segment / group,
                };
                weights.set_levels(q, group, panel * segments + segment, lane)?;
                let chunks = &mut weights.codes[panel * chunks..][shape.chunks(segment)];
                let units = row_codes[shape.columns(segment)].chunks(shape.unit());
                for (chunk, unit) in chunks.iter_mut().zip(units) {
                    for (i, &code) in unit.iter().enumerate() {
                        chunk[4 * lane + i % 4] |= (code as u8) << (i / 4 * bits as usize);
                    }
                }
            }
        }
        Ok(weights)
    }

    /// Sets the levels of a row's segment, `lane` of entry `at`, to those of a group.
    fn set_levels(&mut self, q: &QTensor, group: usize, at: usize, lane: usize) -> Result<()> {
        let number = |what, found: f64, valid: fn(f32) -> bool, needed| match found as f32 {
            narrow if narrow.is_finite() && valid(narrow) => Ok(narrow),
            _ => Err(Error::argument(what, format!("{found:?} in group {group}"), needed)),
        };
        let positive = |found| number("scale", found, |scale| scale > 0.0, "an f32 above 0");
        let any = |what, found| number(what, found, |_| true, "a finite f32");
        self.scales[at][lane] = match q.grid() {
            Grid::Affine { scale, .. } | Grid::Scaled { scale, .. } => positive(scale.get(group).unwrap_or_default())?,
            Grid::MinMax { min, max } => {
                let (min, max) = (min.get(group).unwrap_or_default(), max.get(group).unwrap_or_default());
                let top = f64::from((1u32 << q.bits()) - 1);
                any("distance of levels", max / top - min / top)?
            }
            Grid::Codebook { .. } => 1.0,
        };
        match (&mut self.levels, q.grid()) {
            (Levels::Zeros(zeros), Grid::Affine { zero_point: Some(from), .. }) => zeros[at][lane] = from[group] as u8,
            (Levels::Offsets(offsets), Grid::MinMax { min, .. }) => {
                offsets[at][lane] = any("smallest level", min.get(group).unwrap_or_default())?;
            }
            (Levels::Tables(tables, count), Grid::Codebook { levels }) => {
                for (i, level) in tables[at * *count..][..*count].iter_mut().enumerate() {
                    level[lane] = any("level", levels.get(group * *count + i).unwrap_or_default())?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether levels are listed, so that inputs meet them as they are.
    pub(super) fn is_listed(&self) -> bool {
        matches!(self.levels, Levels::Table(_) | Levels::Tables(..))
    }

    pub(super) fn panels(&self) -> Panels<'_> {
        let levels = match &self.levels {
            Levels::Zero(zero) => panel::Levels::Zero(*zero),
            Levels::Zeros(zeros) => panel::Levels::Zeros(zeros),
            Levels::Offsets(offsets) => panel::Levels::Offsets(offsets),
            Levels::Table(table) => panel::Levels::Table(table),
            Levels::Tables(tables, count) => panel::Levels::Tables(tables, *count),
        };
        Panels { shape: self.shape, codes: &self.codes, scales: &self.scales, levels }
    }

    pub(super) fn byte_size(&self) -> usize {
        let levels = match &self.levels {
            Levels::Zero(_) => 0,
            Levels::Zeros(zeros) => size_of_val(&zeros[..]),
            Levels::Offsets(numbers) | Levels::Tables(numbers, _) => size_of_val(&numbers[..]),
            Levels::Table(table) => size_of_val(&table[..]),
        };
        size_of_val(&self.codes[..]) + size_of_val(&self.scales[..]) + levels
    }
}

impl Levels {
    /// Room for the levels of so many segments of panels; a table that all share is filled already.
    fn of(q: &QTensor, segments: usize) -> Result<Self> {
        let count = 1 << q.bits();
        let table = |levels: &crate::tensor::Values| {
            let level = |i| levels.get(i).map(|level: f64| level as f32).filter(|level| level.is_finite());
            let table: Option<Vec<f32>> = (0..count).map(level).collect();
            table.ok_or_else(|| Error::argument("levels", "beyond the largest f32", "finite f32"))
        };
        Ok(match q.grid() {
            Grid::Affine { zero_point: None, .. } => Self::Zero(1 << (q.bits() - 1)),
            Grid::Affine { zero_point: Some(_), .. } => Self::Zeros(filled(segments, [0; ROWS])?),
            Grid::MinMax { .. } => Self::Offsets(filled(segments, [0.0; ROWS])?),
            Grid::Scaled { levels, .. } => Self::Table(table(levels)?),
            Grid::Codebook { levels } if q.groups() == 1 => Self::Table(table(levels)?),
            Grid::Codebook { .. } => Self::Tables(filled(segments * count, [0.0; ROWS])?, count),
        })
    }
}

/// The levels of a row.
#[derive(Clone, Copy)]
enum Row {
    /// Those of all rows.
    All,
    One,
    Groups,
}
