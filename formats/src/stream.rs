//! Codes as a stream of bits in 32-bit words.

/// Code `index` of a stream of `bits`-bit codes that fills words from the lowest bit.
pub(crate) fn code(bits: u8, index: usize, word: impl Fn(usize) -> u32) -> u8 {
    let first = usize::from(bits) * index;
    let (at, shift) = (first / 32, first % 32);
    let mut value = word(at) >> shift;
    if shift + usize::from(bits) > 32 {
        value |= word(at + 1) << (32 - shift);
    }
    (value & ((1 << bits) - 1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_fill_words_from_the_lowest_bit() {
        for (bits, words) in
            [(4u8, vec![0x7654_3210u32]), (3, vec![0x88fa_c688, 0xc688_fac6, 0xfac6_88fa])]
        {
            for index in 0..words.len() * 32 / usize::from(bits) {
                let found = code(bits, index, |at| words[at]);
                assert_eq!(usize::from(found), index % 8, "{bits} bits, code {index}");
            }
        }
    }
}
