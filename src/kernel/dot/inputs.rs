//! Vectors laid out as the columns of a panel are: padded to whole chunks with 0.

use super::panel::Shape;
use crate::{
    element::Real,
    kernel::{
        isa::{Isa, Kernel},
        parallel::{GRAIN, Work, execute},
        scan,
    },
};

/// Small integers, four a word, with a scale and their sum for each segment of each vector.
pub(crate) struct Spread<'a> {
    pub(crate) words: &'a mut [i32],
    pub(crate) scales: &'a mut [f32],
    pub(crate) sums: &'a mut [i32],
}

/// `n = round(x / s)`, `s = max |x| / 127` over the segment, at least the smallest normal number; half to even. `x` are finite.
pub(crate) fn to_integers(shape: Shape, x: &[f32], to: Spread<'_>) {
    execute(ToIntegers { shape, x, to });
}

struct ToIntegers<'a> {
    shape: Shape,
    x: &'a [f32],
    to: Spread<'a>,
}

impl Work for ToIntegers<'_> {
    type Output = ();

    fn len(&self) -> usize {
        self.x.len() / self.shape.cols
    }

    fn chunk(&self) -> usize {
        (GRAIN / self.shape.cols).max(1)
    }

    fn elements(&self) -> usize {
        self.x.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { shape, x, to: Spread { words, scales, sums } } = self;
        let count = x.len() / shape.cols;
        let (each, segments) = (words.len() / count, shape.segments());
        let (x, x_right) = x.split_at(mid * shape.cols);
        let (words, words_right) = words.split_at_mut(mid * each);
        let (scales, scales_right) = scales.split_at_mut(mid * segments);
        let (sums, sums_right) = sums.split_at_mut(mid * segments);
        let right = Spread { words: words_right, scales: scales_right, sums: sums_right };
        (Self { shape, x, to: Spread { words, scales, sums } }, Self { shape, x: x_right, to: right })
    }

    fn run(self, isa: Isa) {
        isa.run(self);
    }

    fn combine((): (), (): ()) {}
}

impl Kernel for ToIntegers<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { shape, x, to: Spread { words, scales, sums } } = self;
        let each = shape.all_chunks() * shape.unit() / 4;
        let vectors = x.chunks_exact(shape.cols).zip(words.chunks_exact_mut(each));
        let segments = shape.segments();
        for ((x, words), (scales, sums)) in
            vectors.zip(scales.chunks_exact_mut(segments).zip(sums.chunks_exact_mut(segments)))
        {
            for (segment, (scale, sum)) in scales.iter_mut().zip(sums).enumerate() {
                let chunks = shape.chunks(segment);
                let words = &mut words[chunks.start * shape.unit() / 4..chunks.end * shape.unit() / 4];
                let x = &x[shape.columns(segment)];
                let (low, high) = scan::range_of_run(x);
                *scale = (scan::larger(-low, high) / 127.0).max(f32::MIN_POSITIVE);
                *sum = integers(x, *scale, words);
            }
        }
    }
}

/// Sets the words of a segment, and gives the sum of its integers.
#[inline(always)]
fn integers(x: &[f32], scale: f32, words: &mut [i32]) -> i32 {
    let mut sums = [0i32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    let (whole_words, words) = words.split_at_mut(whole.len() * LANES / 4);
    for (words, x) in whole_words.as_chunks_mut::<{ LANES / 4 }>().0.iter_mut().zip(whole) {
        *words = integer_words(x, scale, &mut sums);
    }
    if !words.is_empty() {
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let last = integer_words(&last, scale, &mut sums);
        let (own, padding) = words.split_at_mut(words.len().min(last.len()));
        own.copy_from_slice(&last[..own.len()]);
        padding.fill(0);
    }
    sums.iter().sum()
}

/// Inputs that are rounded together.
const LANES: usize = 16;

#[inline(always)]
fn integer_words(x: &[f32; LANES], scale: f32, sums: &mut [i32; LANES]) -> [i32; LANES / 4] {
    let (mut integers, mut bytes) = ([0; LANES], [0; LANES]);
    for (n, x) in integers.iter_mut().zip(x) {
        // At most 127: the scale is rounded, but not by so much.
        *n = (x / scale).nearest();
    }
    for ((sum, byte), n) in sums.iter_mut().zip(&mut bytes).zip(integers) {
        *sum += n;
        *byte = n as u8;
    }
    let mut words = [0; LANES / 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = i32::from_le_bytes(*bytes);
    }
    words
}

/// The numbers themselves, four for each word.
pub(crate) fn spread(shape: Shape, x: &[f32], to: &mut [[f32; 4]]) {
    let each = shape.all_chunks() * shape.unit() / 4;
    for (x, to) in x.chunks_exact(shape.cols).zip(to.chunks_exact_mut(each)) {
        for segment in 0..shape.segments() {
            let chunks = shape.chunks(segment);
            let to = to[chunks.start * shape.unit() / 4..chunks.end * shape.unit() / 4].as_flattened_mut();
            let x = &x[shape.columns(segment)];
            to[..x.len()].copy_from_slice(x);
            to[x.len()..].fill(0.0);
        }
    }
}
