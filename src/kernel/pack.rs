//! Codes of 1 to 8 bits as a stream of bits, the first code in the lowest bits.
//!
//! Eight codes of `b` bits are `b` bytes, read as one little-endian number; 4-bit codes come low
//! nibble first.

/// Codes that begin and end on a byte, whatever their width.
pub(crate) const OCTET: usize = 8;

/// Bytes that `len` codes take.
pub(crate) const fn packed_len(len: usize, bits: u32) -> usize {
    // Eight codes at a time: `len * bits` could overflow.
    len / OCTET * bits as usize + (len % OCTET * bits as usize).div_ceil(8)
}

/// Packs `codes` into `bytes`, which has [`packed_len`] bytes. Bits beyond the last code are 0.
#[inline(always)]
pub(crate) fn pack(codes: &[u8], bits: u32, bytes: &mut [u8]) {
    match bits {
        1 => pack_octets::<1>(codes, bytes),
        2 => pack_octets::<2>(codes, bytes),
        3 => pack_octets::<3>(codes, bytes),
        4 => pack_octets::<4>(codes, bytes),
        5 => pack_octets::<5>(codes, bytes),
        6 => pack_octets::<6>(codes, bytes),
        7 => pack_octets::<7>(codes, bytes),
        _ => bytes.copy_from_slice(codes),
    }
}

/// Unpacks as many codes as `codes` holds.
#[inline(always)]
pub(crate) fn unpack(bytes: &[u8], bits: u32, codes: &mut [u8]) {
    match bits {
        1 => unpack_octets::<1>(bytes, codes),
        2 => unpack_octets::<2>(bytes, codes),
        3 => unpack_octets::<3>(bytes, codes),
        4 => unpack_octets::<4>(bytes, codes),
        5 => unpack_octets::<5>(bytes, codes),
        6 => unpack_octets::<6>(bytes, codes),
        7 => unpack_octets::<7>(bytes, codes),
        _ => codes.copy_from_slice(&bytes[..codes.len()]),
    }
}

#[inline(always)]
fn pack_octets<const BITS: usize>(codes: &[u8], bytes: &mut [u8]) {
    let (octets, tail) = codes.as_chunks::<OCTET>();
    let (whole, rest) = bytes.split_at_mut(octets.len() * BITS);
    for (octet, bytes) in octets.iter().zip(whole.as_chunks_mut::<BITS>().0) {
        bytes.copy_from_slice(&word(octet, BITS).to_le_bytes()[..BITS]);
    }
    rest.copy_from_slice(&word(tail, BITS).to_le_bytes()[..rest.len()]);
}

#[inline(always)]
fn word(codes: &[u8], bits: usize) -> u64 {
    codes.iter().enumerate().fold(0, |word, (i, &code)| word | u64::from(code) << (i * bits))
}

#[inline(always)]
fn unpack_octets<const BITS: usize>(bytes: &[u8], codes: &mut [u8]) {
    let (octets, tail) = codes.as_chunks_mut::<OCTET>();
    let (whole, rest) = bytes.split_at(octets.len() * BITS);
    for (bytes, octet) in whole.as_chunks::<BITS>().0.iter().zip(octets) {
        codes_of::<BITS>(bytes, octet);
    }
    codes_of::<BITS>(&rest[..packed_len(tail.len(), BITS as u32)], tail);
}

#[inline(always)]
fn codes_of<const BITS: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let word = u64::from_le_bytes(word);
    for (i, code) in codes.iter_mut().enumerate() {
        *code = (word >> (i * BITS)) as u8 & ((1 << BITS) - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_code_is_in_the_lowest_bits() {
        let mut bytes = [0; 2];
        pack(&[0x1, 0x2, 0x3], 4, &mut bytes);
        assert_eq!(bytes, [0x21, 0x03]);
        pack(&[1, 0, 0, 0, 0, 0, 0, 0, 1], 1, &mut bytes);
        assert_eq!(bytes, [1, 1]);
        let mut bytes = [0; 3];
        pack(&[1, 2, 3, 4, 5, 6, 7, 0], 3, &mut bytes);
        let want = 0o07654321u32;
        assert_eq!(bytes, want.to_le_bytes()[..3]);
    }

    proptest! {
        #[test]
        fn unpacks_what_was_packed(bits in 1u32..=8, codes in prop::collection::vec(any::<u8>(), 0..100)) {
            let codes: Vec<u8> = codes.iter().map(|c| (u32::from(*c) & ((1 << bits) - 1)) as u8).collect();
            let mut bytes = vec![0xff; packed_len(codes.len(), bits)];
            pack(&codes, bits, &mut bytes);
            prop_assert_eq!(bytes.len(), (codes.len() * bits as usize).div_ceil(8));
            for (i, &code) in codes.iter().enumerate() {
                let bit = |k: usize| bytes[(i * bits as usize + k) / 8] >> ((i * bits as usize + k) % 8) & 1;
                let read = (0..bits as usize).fold(0, |acc, k| acc | bit(k) << k);
                prop_assert_eq!(read, code);
            }
            let mut back = vec![0xff; codes.len()];
            unpack(&bytes, bits, &mut back);
            prop_assert_eq!(back, codes);
        }
    }
}
