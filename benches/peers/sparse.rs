//! The cases of sparse matrices.

use crate::{
    Port, Result,
    quant::{mix, numbers, sum},
};
use lapidary::{
    Mask, TensorMut, TensorRef,
    quant::Symmetric,
    sparse::{Form, Sparse, Workspace},
};
use std::{
    hint::black_box,
    io::{BufRead, Write},
};

impl<R: BufRead, W: Write> Port<R, W> {
    /// A square matrix in a form, a tenth of whose elements (or blocks) are kept, and so many vectors at a time; `4` after the form: of 4-bit codes
    /// with a scale a row. Answers its bytes; at the end the first outputs of the first vector.
    pub(crate) fn sparse(&mut self, form: &str, batch: usize, size: usize) -> Result {
        let (form, codes) = form.strip_suffix("-codes").map_or((form, false), |form| (form, true));
        let (form, height, width) = match form {
            "csr" => (Form::Csr, 1, 1),
            "bitmask" => (Form::Bitmask, 1, 1),
            "dense" => (Form::Dense, 1, 1),
            "pairs" => (Form::TwoOfFour, 1, 1),
            _ => {
                let (height, width) = form.split_once('x').ok_or_else(|| format!("no form {form:?}"))?;
                let (height, width) = (height.parse()?, width.parse()?);
                (Form::Blocks { height, width }, height, width)
            }
        };
        let mask = Mask::from_fn(&[size, size], |i| {
            let (row, column) = (i / size, i % size);
            let block = row / height * size.div_ceil(width) + column / width;
            match form {
                Form::TwoOfFour => (column + row) % 4 < 2,
                _ => mix(block as u64 + (6 << 40)).is_multiple_of(10),
            }
        })?;
        let weights = numbers(size * size, 1);
        let plain = Sparse::from_dense(TensorRef::new(&weights, &[size, size])?, &mask, form)?;
        let sparse = if codes { plain.quantize_rows(&Symmetric::new(4)?)? } else { plain };
        let (x, mut y) = (numbers(batch * size, 2), vec![0f32; batch * size]);
        let mut workspace = Workspace::default();
        self.answer([sparse.byte_size()])?;
        let bytes = vec![1u64; sparse.byte_size() / 8];
        self.turns(
            || {
                let (x, y) = (TensorRef::new(&x, &[batch, size])?, TensorMut::new(&mut y, &[batch, size])?);
                Ok(sparse.multiply_into(x, y, &mut workspace)?)
            },
            || {
                black_box(sum(&bytes, rayon::current_num_threads()));
                Ok(())
            },
        )?;
        self.answer(&y[..16])
    }
}
