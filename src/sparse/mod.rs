//! Matrices that keep only what pruning left, and compute with it.
//!
//! A [`Sparse`] matrix has one of several [`Form`]s: how it says where its elements are. What they are is [`Kept`]: 32- or 16-bit numbers
//! or codes of a [`QTensor`](crate::QTensor). Every form multiplies by the same formula; [`Chooser`] finds the smallest or the fastest.
//!
//! | [`Form`] | bytes beside the elements | for |
//! |---|---|---|
//! | `Dense` | none | few zeros |
//! | `Csr` | 2 an element (4 beyond 65,536 columns), 4 a row | many zeros anywhere; speed |
//! | `Blocks` | 2 a block (4), 4 a row of blocks | zeros in blocks |
//! | `Bitmask` | 1/8 an element of the shape, 4 a row | few bytes, as elements of few bits have them |
//! | `TwoOfFour` | 1/4 an element | two of four neighbours kept |
//!
//! ```
//! use lapidary::{sparse::{Form, Sparse, Workspace}, TensorRef};
//! let weights = [0.5f32, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 2.0];
//! let sparse = Sparse::new(TensorRef::new(&weights, &[2, 4])?, Form::Csr)?;
//! assert_eq!((sparse.stored(), sparse.to_dense::<f32>()?), (3, weights.to_vec()));
//! let mut y = [0f32; 2];
//! sparse.multiply_into(&[1.0, 1.0, 1.0, 10.0], &mut y, &mut Workspace::default())?;
//! assert_eq!(y, [-9.5, 20.0]);
//! # Ok::<(), lapidary::Error>(())
//! ```

mod build;
mod choose;
mod form;
mod kept;
mod parts;
mod product;

pub use choose::{Aim, Candidate, Choice, Chooser, Slimmed};
pub use form::Form;
pub use kept::Kept;
pub use parts::Parts;
pub use product::Workspace;

use crate::{
    element::Element,
    error::{Error, Result},
    kernel::sparse::two_of_four_slots,
    tensor::{Mask, qtensor::check_finite, view::filled},
    traits::{Quantizer, QuantizerExt},
};
use form::Positions;

/// A matrix `[outputs, inputs]` of which only some elements are stored.
///
/// ```text
/// w[0], w[1], ...   the stored elements of row i as f32, by ascending columns c[0], c[1], ...
/// p[l] = 0 + w[l] x[c[l]] + w[l+8] x[c[l+8]] + ...                       l = 0 .. 8, from left to right
/// y[i] = ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]))
/// y[i] = y[i] * scale[i]                                                 where rows have scales
/// ```
///
/// in `f32`, each operation rounded: the same bits on any number of threads and any instruction set, for one vector or many, and in any
/// form that stores the same elements. (A form that stores zeros between them counts these too: its sums may differ in rounding.)
///
/// **Zeros.** [`new`](Sparse::new) drops zeros of either sign, so that `-0.0` comes back as `0.0`. Of what a mask keeps
/// ([`from_mask`](Sparse::from_mask)) every bit is stored and comes back, zeros and their signs too.
/// NaN and infinities are stored as they are, and products of their rows follow IEEE 754.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    rows: usize,
    cols: usize,
    positions: Positions,
    kept: Kept,
    scale: Option<Vec<f32>>,
}

impl Sparse {
    /// Outputs and inputs.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// How it says where its elements are.
    #[must_use]
    pub fn form(&self) -> Form {
        self.positions.form()
    }

    /// The stored elements, in the order of the form: row after row, or block after block.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// How many elements are stored, zeros that the form asks for and those beyond the edge in blocks included.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.kept.len()
    }

    /// What each row is multiplied by, if anything.
    #[must_use]
    pub fn row_scales(&self) -> Option<&[f32]> {
        self.scale.as_deref()
    }

    /// Bytes of the elements, their positions and scales.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.kept.byte_size() + self.positions.byte_size() + self.scale.as_deref().map_or(0, size_of_val)
    }

    /// Which elements are stored.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold a bit for each element.
    pub fn mask(&self) -> Result<Mask> {
        let mut mask = Mask::from_fn(&self.shape(), |_| false)?;
        self.each(|_, index| mask.keep(index));
        Ok(mask)
    }

    /// All elements in logical order: those not stored are 0.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold them: a few stored elements may be of a shape of any size.
    pub fn to_dense<T: Element>(&self) -> Result<Vec<T>> {
        let mut dense = filled(self.rows * self.cols, T::default())?;
        match &self.scale {
            None => {
                let kept = self.kept.to_vec::<T>();
                self.each(|slot, index| dense[index] = kept[slot]);
            }
            Some(scale) => {
                let kept = self.kept.to_vec::<f32>();
                self.each(|slot, index| dense[index] = T::from_f64((kept[slot] * scale[index / self.cols]).into()));
            }
        }
        Ok(dense)
    }

    /// Multiplies each row by a number, after its sum: codes of a tensor whose rows had scales.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) unless there is one for each row, [`NonFinite`](crate::ErrorKind::NonFinite) for a NaN or an
    /// infinity.
    pub fn with_row_scales(self, scale: Vec<f32>) -> Result<Self> {
        if scale.len() != self.rows {
            return Err(Error::shape("row scales", &[self.rows], &[scale.len()]));
        }
        check_finite("row scales", &scale)?;
        Ok(Self { scale: Some(scale), ..self })
    }

    /// The same with its stored elements quantized, as a tensor of one axis: groups are of stored neighbours. Zeros that the form
    /// stores are quantized too, so that a form with many wants a grid that has 0. Nothing changes where nothing is stored.
    ///
    /// # Errors
    /// As [`QuantizerExt::quantize`]; [`Argument`](crate::ErrorKind::Argument) when the rows have scales.
    pub fn quantize(&self, quantizer: &dyn Quantizer<f32>) -> Result<Self> {
        self.check_plain()?;
        if self.kept.is_empty() {
            return Ok(self.clone());
        }
        let values = self.inside();
        let kept = Kept::Quantized(quantizer.quantize(&values)?);
        Ok(Self { kept, ..self.clone() })
    }

    /// The stored elements, 0 where they are beyond the edge: codes there may be any.
    fn inside(&self) -> Vec<f32> {
        let mut values = self.kept.to_vec::<f32>();
        self.positions.clear_outside(self.shape(), &mut values);
        values
    }

    /// As [`quantize`](Sparse::quantize), but each row is divided by its largest magnitude first, which becomes its
    /// [scale](Sparse::row_scales): with a scheme of one scale a tensor, that is a scale a row.
    ///
    /// # Errors
    /// As [`quantize`](Sparse::quantize), [`NonFinite`](crate::ErrorKind::NonFinite) for NaN or infinite elements, and
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold the scales.
    pub fn quantize_rows(&self, quantizer: &dyn Quantizer<f32>) -> Result<Self> {
        self.check_plain()?;
        let mut values = self.inside();
        check_finite("stored elements", &values)?;
        let mut scale = filled(self.rows, 0f32)?;
        self.each(|slot, index| {
            let scale = &mut scale[index / self.cols];
            *scale = scale.max(values[slot].abs());
        });
        // A subnormal one would divide coarsely.
        let divisor = |scale: f32| if scale < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { scale };
        scale.iter_mut().for_each(|scale| *scale = divisor(*scale));
        self.each(|slot, index| values[slot] /= scale[index / self.cols]);
        let plain = Self { kept: Kept::F32(values), ..self.clone() };
        plain.quantize(quantizer)?.with_row_scales(scale)
    }

    fn check_plain(&self) -> Result<()> {
        let needed = "without scales to be quantized";
        if self.scale.is_some() { Err(Error::argument("rows", "scaled", needed)) } else { Ok(()) }
    }

    /// Calls `visit` with the place of each stored element in `kept` and its logical index, but for those beyond the edge.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize)) {
        let (rows, cols) = (self.rows, self.cols);
        match &self.positions {
            Positions::Dense => (0..rows * cols).for_each(|i| visit(i, i)),
            Positions::Csr { offsets, columns } => {
                let mut columns = columns.view().iter();
                for (row, ends) in offsets.windows(2).enumerate() {
                    for (slot, column) in (ends[0]..ends[1]).zip(&mut columns) {
                        visit(slot as usize, row * cols + column as usize);
                    }
                }
            }
            Positions::Blocks { height, width, offsets, columns } => {
                let mut columns = columns.view().iter();
                for (row, ends) in offsets.windows(2).enumerate() {
                    for (block, column) in (ends[0]..ends[1]).zip(&mut columns) {
                        let (top, left) = (row * height, column as usize * width);
                        for (i, row) in (top..rows.min(top + height)).enumerate() {
                            for (j, column) in (left..cols.min(left + width)).enumerate() {
                                visit((block as usize * height + i) * width + j, row * cols + column);
                            }
                        }
                    }
                }
            }
            Positions::Bitmask { mask, .. } => mask.indices().enumerate().for_each(|(slot, index)| visit(slot, index)),
            Positions::TwoOfFour { indices } => {
                let slots = two_of_four_slots(cols);
                // Rows without a column may be any number.
                let rows = if slots == 0 { 0 } else { rows };
                for row in 0..rows {
                    for slot in 0..slots {
                        visit(row * slots + slot, row * cols + form::pair_column(indices, slots, row, slot));
                    }
                }
            }
        }
    }
}
