//! Handwritten digits: the embedded 8×8 ones, or the four MNIST-format idx files of a folder.

use flate2::read::GzDecoder;
use ndarray::{Array2, ArrayView2, Axis};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{
    error::Error,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

const DIGITS: &[u8] = include_bytes!("../data/digits_1797x65_u8.bin.gz");

/// Images, a row each with pixels scaled to 0..1, and their labels.
pub(crate) struct Split {
    pub(crate) x: Array2<f32>,
    pub(crate) y: Vec<u8>,
}

/// Training rows; validation rows, taken from the training part, for every choice; test rows, for the last line only.
pub(crate) struct Data {
    pub(crate) name: &'static str,
    pub(crate) train: Split,
    pub(crate) valid: Split,
    pub(crate) test: Split,
}

impl Data {
    /// The embedded digits: rows with `i % 4 == 3` test, a sixth of the others validate.
    pub(crate) fn digits() -> Result<Self, Box<dyn Error>> {
        let rows = gunzip(DIGITS)?;
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for (i, row) in rows.chunks_exact(65).enumerate() {
            if i % 4 == 3 { &mut test } else { &mut train }.extend_from_slice(row);
        }
        let split = |rows: &[u8]| {
            let x = rows.chunks_exact(65).flat_map(|row| &row[..64]).map(|&p| f32::from(p) / 16.0).collect();
            let y: Vec<u8> = rows.chunks_exact(65).map(|row| row[64]).collect();
            Ok::<_, Box<dyn Error>>(Split { x: Array2::from_shape_vec((y.len(), 64), x)?, y })
        };
        Ok(Self::divide("digits", split(&train)?, split(&test)?, 6))
    }

    /// The idx files of MNIST or of a data set in its format, gzipped or not; a twelfth of the training rows validate.
    pub(crate) fn mnist(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let split = |images: &str, labels: &str| {
            let (shape, pixels) = idx(dir, images)?;
            let (_, y) = idx(dir, labels)?;
            let x = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
            let width = shape[1..].iter().product();
            if y.len() != shape[0] || y.iter().any(|&label| label > 9) {
                return Err(format!("{labels}: {} labels from 0 to 9 expected", shape[0]).into());
            }
            Ok::<_, Box<dyn Error>>(Split { x: Array2::from_shape_vec((y.len(), width), x)?, y })
        };
        let train = split("train-images-idx3-ubyte", "train-labels-idx1-ubyte")?;
        let test = split("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")?;
        Ok(Self::divide("mnist", train, test, 12))
    }

    /// Validation rows are the last of a shuffle that is the same for every seed.
    fn divide(name: &'static str, rows: Split, test: Split, part: usize) -> Self {
        let mut order: Vec<usize> = (0..rows.y.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(12345));
        let (train, valid) = order.split_at(order.len() - order.len() / part);
        Self { name, train: rows.select(train), valid: rows.select(valid), test }
    }
}

impl Split {
    fn select(&self, rows: &[usize]) -> Self {
        Self { x: self.x.select(Axis(0), rows), y: rows.iter().map(|&i| self.y[i]).collect() }
    }

    /// The same rows, of each just these pixels.
    pub(crate) fn pixels(x: ArrayView2<'_, f32>, kept: &[usize]) -> Array2<f32> {
        x.select(Axis(1), kept)
    }
}

fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut out)?;
    Ok(out)
}

/// Sizes and bytes of an idx file of unsigned bytes.
fn idx(dir: &Path, name: &str) -> Result<(Vec<usize>, Vec<u8>), Box<dyn Error>> {
    let zipped: PathBuf = dir.join(format!("{name}.gz"));
    let plain = dir.join(name);
    let bytes = if plain.exists() {
        fs::read(&plain)?
    } else {
        gunzip(&fs::read(&zipped).map_err(|error| format!("{} (or .gz): {error}", plain.display()))?)?
    };
    let bad = || format!("{name}: not an idx file of unsigned bytes");
    let [0, 0, 8, rank, rest @ ..] = &bytes[..] else { return Err(bad().into()) };
    let (sizes, data) = rest.split_at_checked(usize::from(*rank) * 4).ok_or_else(bad)?;
    let sizes: Vec<usize> =
        sizes.chunks_exact(4).map(|n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]) as usize).collect();
    if sizes.is_empty() || sizes.iter().product::<usize>() != data.len() {
        return Err(bad().into());
    }
    Ok((sizes, data.to_vec()))
}
