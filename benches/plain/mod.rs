//! Loops over the same streams of memory as a step has, with hardly any arithmetic: what memory gives.

use lapidary::Isa;

/// Elements that share a word of a mask.
const WORD: usize = 64;
const TILE: usize = 1024;

/// What a step of so many rewritten arrays moves: reads the gradient, rewrites parameter and state in place, and, where `mask` and
/// `copy` are not empty, reads a bit and writes 16 bits of the first array for each element.
pub(crate) struct Streams<'a, const N: usize> {
    pub(crate) read: &'a [f32],
    pub(crate) arrays: [&'a mut [f32]; N],
    pub(crate) mask: &'a [u64],
    pub(crate) copy: &'a mut [u16],
}

/// Goes over all streams once, in AVX2 where the processor has it.
pub(crate) fn run<const N: usize>(streams: Streams<'_, N>, threads: usize) {
    if threads > 1 {
        let (left, right) = halves(streams);
        rayon::join(|| run(left, threads / 2), || run(right, threads - threads / 2));
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if Isa::avx2().is_some() {
        // SAFETY: the processor has AVX2: `Isa::avx2` found it.
        return unsafe { rewrite_avx2(streams) };
    }
    rewrite(streams);
}

fn halves<const N: usize>(streams: Streams<'_, N>) -> (Streams<'_, N>, Streams<'_, N>) {
    let Streams { read, arrays, mask, copy } = streams;
    let words = read.len() / 2 / WORD;
    let mid = words * WORD;
    let mut rest: [&mut [f32]; N] = std::array::from_fn(|_| Default::default());
    let mut places = rest.iter_mut();
    let arrays = arrays.map(|array| {
        let (left, right) = array.split_at_mut(mid);
        *places.next().unwrap() = right;
        left
    });
    let (read, read_rest) = read.split_at(mid);
    let (mask, mask_rest) = mask.split_at(words.min(mask.len()));
    let (copy, copy_rest) = copy.split_at_mut(mid.min(copy.len()));
    (Streams { read, arrays, mask, copy }, Streams { read: read_rest, arrays: rest, mask: mask_rest, copy: copy_rest })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn rewrite_avx2<const N: usize>(streams: Streams<'_, N>) {
    rewrite(streams);
}

#[inline(always)]
fn rewrite<const N: usize>(streams: Streams<'_, N>) {
    let Streams { read, mut arrays, mask, copy } = streams;
    for array in &arrays {
        assert_eq!(array.len(), read.len());
    }
    if mask.is_empty() && copy.is_empty() {
        for i in 0..read.len() {
            for array in &mut arrays {
                array[i] = array[i] * 0.5 + read[i];
            }
        }
        return;
    }
    assert_eq!((mask.len(), copy.len()), (read.len().div_ceil(WORD), read.len()));
    // Tiles of the first-level cache.
    for ((words, copy), first) in mask.chunks(TILE / WORD).zip(copy.chunks_mut(TILE)).zip((0..).step_by(TILE)) {
        let share = if words.iter().fold(0, |any, word| any | word) == 0 { 0.25 } else { 0.5 };
        let range = first..first + copy.len();
        for array in &mut arrays {
            scale_add(&mut array[range.clone()], share, &read[range.clone()]);
        }
        narrow(&arrays[0][range], copy);
    }
}

// What is borrowed by an argument is known not to overlap.

#[inline(always)]
fn scale_add(array: &mut [f32], share: f32, read: &[f32]) {
    for (x, r) in array.iter_mut().zip(read) {
        *x = *x * share + r;
    }
}

#[inline(always)]
fn narrow(array: &[f32], copy: &mut [u16]) {
    for (half, x) in copy.iter_mut().zip(array) {
        *half = (x.to_bits() >> 16) as u16;
    }
}
