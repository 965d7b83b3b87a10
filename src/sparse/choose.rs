//! Which form is the smallest, or the fastest, for a matrix.

use super::{Form, Kept, Sparse, Workspace};
use crate::{
    error::{Error, Result},
    tensor::{
        TensorMut, TensorRef,
        view::{checked_volume, filled},
    },
    traits::Quantizer,
};
use std::{fmt, time::Instant};

/// What a form is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Aim {
    /// The fewest bytes; of as many, the fastest.
    Smallest,
    /// The shortest time of a product; of the same, the smallest.
    Fastest,
}

/// Builds a matrix in every form it fits and keeps the best.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `aim` | – | [`Aim`] | what is best |
/// | `batch` | 1 | at least 1 | vectors that are multiplied at a time |
/// | `quantizer` | none | any | elements become codes by [`Sparse::quantize`] |
/// | `measured` | no | – | times are measured, else they are the model's |
///
/// The model is arithmetic on counts, the same on every machine: nanoseconds a stored element, row or byte, as they were measured on one core (see
/// `docs/benchmarks.md`). Its times tell forms apart; a measurement tells them on this machine, and may tell otherwise each time.
///
/// The forms are dense, compressed rows, blocks of 4 × 4, 16 × 1 and 1 × 16, bitmask and two of four. Where whole rows or columns are zero,
/// [`Choice::slimmed`] says what a dense matrix without them would take: that is no form of this matrix, but of a
/// [slimmed](crate::slim) layer.
///
/// ```
/// use lapidary::{sparse::{Aim, Chooser, Form, Sparse}, TensorRef};
/// let weights: Vec<f32> = (0..64 * 64).map(|i| if i % 10 == 0 { 1.0 } else { 0.0 }).collect();
/// let sparse = Sparse::new(TensorRef::new(&weights, &[64, 64])?, Form::Csr)?;
/// let choice = Chooser::new(Aim::Smallest).choose(&sparse)?;
/// assert_eq!(choice.sparse.form(), Form::Bitmask);
/// println!("{choice}");
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Chooser<'a> {
    aim: Aim,
    batch: usize,
    quantizer: Option<&'a dyn Quantizer<f32>>,
    measured: bool,
}

/// A form that the matrix fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The form.
    pub form: Form,
    /// Elements stored.
    pub stored: usize,
    /// Bytes it takes.
    pub bytes: usize,
    /// Seconds of a product of the whole batch, measured or by the model.
    pub seconds: f64,
}

/// A dense matrix without the rows and columns that are zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slimmed {
    /// Rows and columns that are left.
    pub shape: [usize; 2],
    /// Bytes it takes.
    pub bytes: usize,
    /// Seconds of a product of the whole batch, measured or by the model.
    pub seconds: f64,
}

/// The best form, and the others.
#[derive(Debug)]
#[must_use]
pub struct Choice {
    /// The matrix in the best form.
    pub sparse: Sparse,
    /// What slimming would make of it; `None` where no row and no column is zero, or all are.
    pub slimmed: Option<Slimmed>,
    /// All forms it fits, the best first.
    pub candidates: Vec<Candidate>,
    /// The forms it does not fit, and why.
    pub refused: Vec<(Form, Error)>,
    aim: Aim,
    batch: usize,
    measured: bool,
}

impl fmt::Display for Choice {
    /// Why, in a sentence, and a line for each form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (aim, times) = match (self.aim, self.measured) {
            (Aim::Smallest, _) => ("smallest", "by bytes"),
            (Aim::Fastest, false) => ("fastest", "by the model's times"),
            (Aim::Fastest, true) => ("fastest", "by measured times"),
        };
        let vectors = if self.batch == 1 { "vector" } else { "vectors" };
        write!(f, "{:?} is the {aim} for {} {vectors}, {times}", self.sparse.form(), self.batch)?;
        if let [best, next, ..] = &self.candidates[..] {
            let ratio = match self.aim {
                Aim::Smallest => next.bytes as f64 / best.bytes as f64,
                Aim::Fastest => next.seconds / best.seconds,
            };
            write!(f, ": {ratio:.2} times better than {:?}", next.form)?;
        }
        for Candidate { form, stored, bytes, seconds } in &self.candidates {
            write!(f, "\n{form:?}: {stored} elements, {bytes} bytes, {:.1} µs", seconds * 1e6)?;
        }
        if let Some(Slimmed { shape: [rows, cols], bytes, seconds }) = self.slimmed {
            write!(f, "\nslimmed to {rows} x {cols}: {bytes} bytes, {:.1} µs", seconds * 1e6)?;
            let better = |best: &Candidate| match self.aim {
                Aim::Smallest => bytes < best.bytes,
                Aim::Fastest => seconds < best.seconds,
            };
            if self.candidates.first().is_some_and(better) {
                write!(f, ", better than any form")?;
            }
        }
        self.refused.iter().try_for_each(|(form, error)| write!(f, "\n{form:?}: {error}"))
    }
}

const FORMS: [Form; 7] = [
    Form::Csr,
    Form::Blocks { height: 16, width: 1 },
    Form::Blocks { height: 4, width: 4 },
    Form::Blocks { height: 1, width: 16 },
    Form::Bitmask,
    Form::TwoOfFour,
    Form::Dense,
];

impl<'a> Chooser<'a> {
    /// One vector at a time, numbers as they are, the model's times.
    pub fn new(aim: Aim) -> Self {
        Self { aim, batch: 1, quantizer: None, measured: false }
    }

    /// How many vectors are multiplied at a time.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) for 0.
    pub fn with_batch(self, batch: usize) -> Result<Self> {
        if batch == 0 { Err(Error::argument("batch", batch, "at least 1")) } else { Ok(Self { batch, ..self }) }
    }

    /// Elements become codes.
    pub fn with_quantizer(self, quantizer: &'a dyn Quantizer<f32>) -> Self {
        Self { quantizer: Some(quantizer), ..self }
    }

    /// Times are measured: the best of five products.
    pub fn with_measurement(self) -> Self {
        Self { measured: true, ..self }
    }

    /// The matrix in the best form.
    ///
    /// # Errors
    /// As [`Sparse::quantize`], and [`Argument`](crate::ErrorKind::Argument) where memory does not hold the matrix.
    pub fn choose(&self, matrix: &Sparse) -> Result<Choice> {
        let (mut best, mut candidates, mut refused) = (None, Vec::<Candidate>::new(), Vec::new());
        for form in FORMS {
            let sparse = match matrix.to_form(form) {
                Ok(sparse) => sparse,
                Err(error) => {
                    refused.push((form, error));
                    continue;
                }
            };
            let (sparse, seconds) = self.timed(sparse)?;
            let candidate = Candidate { form, stored: sparse.stored(), bytes: sparse.byte_size(), seconds };
            let place = candidates.partition_point(|other| !self.better(&candidate, other));
            candidates.insert(place, candidate);
            if place == 0 {
                best = Some(sparse);
            }
        }
        let Self { aim, batch, measured, .. } = *self;
        match (best, refused.pop()) {
            (Some(sparse), last) => {
                refused.extend(last);
                let slimmed = self.slimmed(matrix)?;
                Ok(Choice { sparse, slimmed, candidates, refused, aim, batch, measured })
            }
            (None, Some((_, error))) => Err(error),
            (None, None) => Err(Error::empty("list of forms")),
        }
    }

    /// The matrix as it is to be kept, and its time.
    fn timed(&self, sparse: Sparse) -> Result<(Sparse, f64)> {
        let sparse = match self.quantizer {
            Some(quantizer) => sparse.quantize(quantizer)?,
            None => sparse,
        };
        let seconds = if self.measured { measure(&sparse, self.batch)? } else { model(&sparse, self.batch) };
        Ok((sparse, seconds))
    }

    fn slimmed(&self, matrix: &Sparse) -> Result<Option<Slimmed>> {
        let [rows, cols] = matrix.shape();
        let values = matrix.kept.to_vec::<f32>();
        let (mut row_places, mut col_places) = (filled(rows, None)?, filled(cols, None)?);
        matrix.each(|slot, index| {
            if values[slot] != 0.0 {
                (row_places[index / cols], col_places[index % cols]) = (Some(0), Some(0));
            }
        });
        let number = |places: &mut [Option<usize>]| {
            let kept = places.iter_mut().flatten();
            kept.enumerate().map(|(number, place)| *place = number).count()
        };
        let shape = [number(&mut row_places), number(&mut col_places)];
        if shape == [rows, cols] || shape.contains(&0) {
            return Ok(None);
        }
        let mut dense = filled(checked_volume(&shape)?, 0f32)?;
        matrix.each(|slot, index| {
            if let (Some(row), Some(col)) = (row_places[index / cols], col_places[index % cols]) {
                let scale = matrix.scale.as_ref().map_or(1.0, |scale| scale[index / cols]);
                dense[row * shape[1] + col] = values[slot] * scale;
            }
        });
        let (slim, seconds) = self.timed(Sparse::new(TensorRef::new(&dense, &shape)?, Form::Dense)?)?;
        Ok(Some(Slimmed { shape, bytes: slim.byte_size(), seconds }))
    }

    fn better(&self, a: &Candidate, b: &Candidate) -> bool {
        let (bytes, seconds) = (a.bytes.cmp(&b.bytes), a.seconds.total_cmp(&b.seconds));
        match self.aim {
            Aim::Smallest => bytes.then(seconds).is_lt(),
            Aim::Fastest => seconds.then(bytes).is_lt(),
        }
    }
}

/// Seconds of a product, the best of five.
fn measure(sparse: &Sparse, batch: usize) -> Result<f64> {
    let [rows, cols] = sparse.shape();
    let len = |each: usize| {
        batch.checked_mul(each).ok_or_else(|| Error::argument("batch", batch, "such that memory holds the vectors"))
    };
    let (x, mut y) = (filled(len(cols)?, 1f32)?, filled(len(rows)?, 0f32)?);
    let mut workspace = Workspace::default();
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let clock = Instant::now();
        let y = TensorMut::new(&mut y, &[batch, rows])?;
        sparse.multiply_into(TensorRef::new(&x, &[batch, cols])?, y, &mut workspace)?;
        best = best.min(clock.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Nanoseconds of a stored element, for one vector and for eight at a time.
fn nanoseconds(form: Form) -> (f64, f64) {
    match form {
        Form::Dense => (0.11, 0.57),
        Form::Csr => (0.33, 0.64),
        Form::Blocks { height: 16, width: 1 } => (0.12, 0.72),
        Form::Blocks { height: 4, width: 4 } => (0.23, 1.00),
        Form::Blocks { width: 16, .. } => (0.32, 0.88),
        Form::Blocks { .. } => (0.50, 1.10),
        Form::Bitmask => (0.95, 1.50),
        Form::TwoOfFour => (0.38, 0.74),
    }
}

/// Seconds of a product, by counts alone.
fn model(sparse: &Sparse, batch: usize) -> f64 {
    let (one, eight) = nanoseconds(sparse.form());
    let decode = match sparse.kept() {
        Kept::F32(_) => 0.0,
        Kept::F16(_) => 0.1,
        Kept::Bf16(_) => 0.05,
        Kept::Quantized(_) => 0.2,
    };
    let [rows, cols] = sparse.shape();
    let stored = sparse.stored() as f64;
    // A bitmask is searched whole, whatever is stored.
    let search = if sparse.form() == Form::Bitmask { 0.04 * rows as f64 * cols as f64 } else { 0.0 };
    // The form's own bytes once a pass, at 20 GB/s: what a large matrix waits for.
    let pass =
        |each: f64| (stored * (each + decode) + search).max(sparse.byte_size() as f64 / 20.0) + 5.0 * rows as f64;
    let (eights, rest) = (batch / 8, batch % 8);
    let singles = if rest < super::product::FEW { rest } else { 0 };
    let eights = eights + usize::from(singles < rest);
    let layout = 8.0 * (rows + cols) as f64;
    1e-9 * (singles as f64 * pass(one) + eights as f64 * (pass(eight) + layout))
}
