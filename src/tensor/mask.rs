//! Which elements of a tensor survive: one bit each.

use super::view::{Dims, TensorMut, TensorRef, checked_volume, filled};
use crate::{
    element::Element,
    error::{Error, Result},
    kernel::bits::{self, Bits, WORD},
};

/// A bit for each element of a tensor, in logical order: 1 keeps it, 0 prunes it.
///
/// Applying a mask *selects*: a pruned element becomes 0, also where it was NaN or infinite.
///
/// ```
/// use lapidary::Mask;
/// let mut weights = vec![0.5f32, f32::NAN, 2.0];
/// let mask = Mask::from_fn(&[3], |i| i != 1)?;
/// mask.apply(&mut weights)?;
/// assert_eq!(weights, [0.5, 0.0, 2.0]);
/// assert_eq!((mask.kept(), mask.density()), (2, 2.0 / 3.0));
/// # Ok::<(), lapidary::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mask {
    /// Bits beyond the last element are 0.
    words: Vec<u64>,
    dims: Dims,
    len: usize,
}

impl Mask {
    /// A mask of the given shape that keeps everything.
    ///
    /// # Errors
    /// [`Argument`](crate::ErrorKind::Argument) when memory does not hold a bit for each element.
    pub fn keep_all(shape: &[usize]) -> Result<Self> {
        let len = checked_volume(shape)?;
        let mut words = filled(len.div_ceil(WORD), u64::MAX)?;
        if let Some(last) = words.last_mut()
            && len % WORD != 0
        {
            *last = (1 << (len % WORD)) - 1;
        }
        Ok(Self { words, dims: shape.into(), len })
    }

    /// A mask that keeps the elements at whose logical index `keep` is true.
    ///
    /// # Errors
    /// As [`keep_all`](Mask::keep_all).
    pub fn from_fn(shape: &[usize], mut keep: impl FnMut(usize) -> bool) -> Result<Self> {
        let mut mask = Self::keep_all(shape)?;
        for index in 0..mask.len {
            if !keep(index) {
                mask.words[index / WORD] &= !(1 << (index % WORD));
            }
        }
        Ok(mask)
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.dims
    }

    /// Whether the element at a logical index is kept; `None` past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<bool> {
        (index < self.len).then(|| self.words[index / WORD] >> (index % WORD) & 1 == 1)
    }

    /// How many elements are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The share of elements kept, 0 to 1; 1 for an empty tensor.
    #[must_use]
    pub fn density(&self) -> f64 {
        if self.len == 0 { 1.0 } else { self.kept() as f64 / self.len as f64 }
    }

    /// The share of elements pruned, 0 to 1; 0 for an empty tensor.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        1.0 - self.density()
    }

    /// The logical indices of the kept elements, ascending.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| SetBits(word).map(move |bit| i * WORD + bit))
    }

    /// The bits, 64 elements a word, the first element in the lowest bit.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Keeps only what `other` keeps too.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ.
    pub fn and(&mut self, other: &Self) -> Result<()> {
        self.check(&other.dims)?;
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
        Ok(())
    }

    /// Keeps also what `other` keeps.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ.
    pub fn or(&mut self, other: &Self) -> Result<()> {
        self.check(&other.dims)?;
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
        Ok(())
    }

    /// Sets the pruned elements of a tensor to 0. Does not allocate.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ.
    pub fn apply<'a, T: Element>(&self, values: impl Into<TensorMut<'a, T>>) -> Result<()> {
        let mut values = values.into();
        self.check(values.shape())?;
        bits::select(values.as_mut_slice(), self.bits());
        Ok(())
    }

    /// The kept elements of a tensor, in logical order.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when the shapes differ.
    pub fn gather<'a, T: Element>(&self, values: impl Into<TensorRef<'a, T>>) -> Result<Vec<T>> {
        let values = values.into();
        self.check(values.shape())?;
        Ok(self.indices().map(|i| values.as_slice()[i]).collect())
    }

    /// The inverse of [`gather`](Mask::gather): `kept` in its places, 0 elsewhere.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) when `kept` has not as many elements as the mask keeps, or
    /// `values` has another shape.
    pub fn scatter<'a, T: Element>(&self, kept: &[T], values: impl Into<TensorMut<'a, T>>) -> Result<()> {
        let mut values = values.into();
        self.check(values.shape())?;
        if kept.len() != self.kept() {
            return Err(Error::shape("kept elements", &[self.kept()], &[kept.len()]));
        }
        let values = values.as_mut_slice();
        values.fill(T::default());
        self.indices().zip(kept).for_each(|(i, &x)| values[i] = x);
        Ok(())
    }

    /// Drops what `other`, of the same shape, keeps.
    pub(crate) fn remove(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    pub(crate) fn bits(&self) -> Bits<'_> {
        Bits::new(&self.words, self.len)
    }

    /// Drops the kept elements that fail `test`. `values` has this mask's length.
    pub(crate) fn refine<T: Element>(&mut self, values: &[T], test: impl Fn(T) -> bool + Copy + Send + Sync) {
        debug_assert_eq!(values.len(), self.len);
        bits::refine(&mut self.words, values, test);
    }

    pub(crate) fn keep(&mut self, index: usize) {
        self.words[index / WORD] |= 1 << (index % WORD);
    }

    pub(crate) fn prune(&mut self, index: usize) {
        self.words[index / WORD] &= !(1 << (index % WORD));
    }

    /// An error unless `shape` is this mask's.
    pub(crate) fn check(&self, shape: &[usize]) -> Result<()> {
        if shape == self.shape() { Ok(()) } else { Err(Error::shape("mask", shape, &self.dims)) }
    }
}

/// The positions of the 1 bits of a word, ascending.
struct SetBits(u64);

impl Iterator for SetBits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_list_of_bools(a in prop::collection::vec(any::<bool>(), 0..300), seed in any::<u64>()) {
            let b: Vec<bool> = (0..a.len()).map(|i| seed.rotate_left(i as u32 * 7) & 4 == 0).collect();
            let mask = |bools: &[bool]| Mask::from_fn(&[bools.len()], |i| bools[i]).unwrap();
            let (mut and, mut or) = (mask(&a), mask(&a));
            and.and(&mask(&b)).unwrap();
            or.or(&mask(&b)).unwrap();
            for i in 0..a.len() {
                prop_assert_eq!(and.get(i), Some(a[i] && b[i]));
                prop_assert_eq!(or.get(i), Some(a[i] || b[i]));
            }
            prop_assert_eq!(and.get(a.len()), None);
            prop_assert_eq!(or.kept(), or.indices().count());
            let values: Vec<f32> = (1..=a.len()).map(|i| i as f32).collect();
            let mut back = vec![f32::NAN; a.len()];
            or.scatter(&or.gather(&values).unwrap(), &mut back).unwrap();
            let mut applied = values;
            or.apply(&mut applied).unwrap();
            prop_assert_eq!(applied, back);
        }
    }

    #[test]
    fn shapes_must_agree() {
        let mask = Mask::keep_all(&[2, 3]).unwrap();
        let mut six = vec![1f32; 6];
        assert!(mask.apply(&mut six).is_err());
        assert!(mask.apply(TensorMut::new(&mut six, &[2, 3]).unwrap()).is_ok());
        assert!(mask.gather(&six).is_err() && mask.scatter(&[1.0], &mut six).is_err());
        assert!(mask.clone().and(&Mask::keep_all(&[6]).unwrap()).is_err());
        assert!(Mask::keep_all(&[usize::MAX, 2]).is_err() && Mask::keep_all(&[usize::MAX]).is_err());
        assert_eq!(Mask::keep_all(&[0]).unwrap().density(), 1.0);
    }
}
