//! GPTQ's stored zero-points, and the ways in which libraries wrote them.

use crate::qweight::UNIT;
use crate::stream;
use crate::tensors::word;
use rayon::prelude::*;

/// What a stored zero-point means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Convention {
    /// The zero-point minus one. GPTQModel subtracted the ones from whole words, so that a zero
    /// borrows from its neighbour; adding them to whole words undoes that, and the per-code
    /// subtraction of AutoGPTQ as well, which has no borrows. (AutoGPTQ's packer destroyed words
    /// with a zero in them; nothing restores those.) 3-bit ones are per code.
    #[default]
    V1,
    /// As `V1`, but 3-bit ones are whole words too, with constants that are no ones per code.
    V1OldThree,
    /// The zero-point itself.
    V2,
}

/// What GPTQModel before 7.0 subtracted from each three words of 3-bit zero-points.
const OLD_THREE: [u32; 3] = [0x2492_4924, 0x9249_2492, 0x4924_9249];

/// Words of a unit of the widest zero-points.
const WIDEST: usize = 8;

impl Convention {
    const ALL: [Convention; 3] = [Convention::V1, Convention::V1OldThree, Convention::V2];

    /// Its name as a packing of the format.
    pub(super) fn name(self) -> &'static str {
        match self {
            Convention::V1 => "gptq",
            Convention::V1OldThree => "gptq_old_3bit",
            Convention::V2 => "gptq_v2",
        }
    }

    /// The convention of an inspected layer's packing.
    pub(super) fn named(name: &str) -> Option<Convention> {
        Convention::ALL.into_iter().find(|convention| convention.name() == name)
    }

    /// The convention as far as it matters for this width.
    pub(super) fn at(self, bits: u8) -> Convention {
        match self {
            Convention::V1OldThree if bits != 3 => Convention::V1,
            other => other,
        }
    }

    /// What was subtracted from word `at` of a row.
    fn subtracted(self, bits: u8, at: usize) -> u32 {
        match (self, bits) {
            (Convention::V2, _) | (Convention::V1, 3) => 0,
            (Convention::V1OldThree, 3) => OLD_THREE[at % 3],
            // A one in each code.
            _ => u32::MAX / ((1 << bits) - 1),
        }
    }

    /// The zero-point that a code of restored words means.
    fn zero(self, bits: u8, code: u8) -> u8 {
        match (self, bits) {
            (Convention::V1, 3) => (code + 1) & 7,
            _ => code,
        }
    }

    /// The bytes of a unit of zero-points that are all in the middle of the range.
    fn symmetric_unit(self, bits: u8) -> Vec<u8> {
        let middle = 1u128 << (bits - 1);
        let stored = if (self, bits) == (Convention::V1, 3) { middle - 1 } else { middle };
        // The codes of three words, which is as often as patterns repeat.
        let all = (0..96 / bits).fold(0, |all, at| all | stored << (at * bits));
        let word = |at: usize| {
            let word = (all >> (32 * (at % 3))) as u32;
            word.wrapping_sub(self.subtracted(bits, at)).to_le_bytes()
        };
        (0..usize::from(bits)).flat_map(word).collect()
    }
}

/// Zero-points `[N, groups]` of a tensor `[groups, N*bits/32]`.
pub(super) fn decode(stored: &[u8], convention: Convention, bits: u8, n: usize) -> Vec<u8> {
    let words = n / UNIT * usize::from(bits);
    let groups = stored.len() / 4 / words;
    let mut zeros = vec![0; n * groups];
    zeros.par_chunks_mut(UNIT * groups).enumerate().for_each(|(unit, rows)| {
        let first = unit * usize::from(bits);
        for group in 0..groups {
            let mut restored = [0; WIDEST];
            for (at, restored) in restored[..usize::from(bits)].iter_mut().enumerate() {
                let stored = word(stored, group * words + first + at);
                *restored = stored.wrapping_add(convention.subtracted(bits, first + at));
            }
            for (row, zero) in rows[group..].iter_mut().step_by(groups).enumerate() {
                *zero = convention.zero(bits, stream::code(bits, row, |at| restored[at]));
            }
        }
    });
    zeros
}

/// Whether all words are those of a symmetric layer in one convention. Which one does not matter,
/// and is not always the configured one: some GPTQModel files say v1 and hold v2.
pub(super) fn are_symmetric(stored: &[u8], bits: u8) -> bool {
    Convention::ALL.into_iter().any(|convention| {
        let unit = convention.symmetric_unit(bits);
        stored.par_chunks_exact(unit.len()).all(|words| words == unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_zero_that_borrowed_from_its_neighbour_is_restored() {
        let zeros = decode(&bytes(&[0x7777_773f; 4]), Convention::V1, 4, UNIT);
        assert_eq!(zeros, [0, 5, 8, 8, 8, 8, 8, 8].repeat(4));
    }

    #[test]
    fn symmetric_words_of_every_writer_are_known() {
        for (bits, words) in [
            (2, [0x5555_5555; 3]),
            (4, [0x7777_7777; 3]),
            (8, [0x7f7f_7f7f; 3]),
            (2, [0xaaaa_aaaa; 3]),
            (4, [0x8888_8888; 3]),
            (8, [0x8080_8080; 3]),
            (3, [0x2492_4924, 0x4924_9249, 0x9249_2492]),
            (3, [0xdb6d_b6db, 0xb6db_6db6, 0x6db6_db6d]),
            (3, [0x0000_0000, 0xb6db_6db7, 0x4924_9249]),
        ] {
            let unit = &words.repeat(8)[..usize::from(bits) * 3];
            assert!(are_symmetric(&bytes(unit), bits), "{words:x?}");
            let mut other = unit.to_vec();
            other[0] ^= 1;
            assert!(!are_symmetric(&bytes(&other), bits), "{words:x?}");
        }
    }

    /// The words of 32 zero-points, as GPTQModel packs them before it subtracts anything.
    fn packed(zeros: &[u8], bits: u8) -> Vec<u32> {
        let mut words = vec![0u32; usize::from(bits)];
        for (n, zero) in zeros.iter().enumerate() {
            for bit in 0..usize::from(bits) {
                let at = n * usize::from(bits) + bit;
                words[at / 32] |= u32::from(zero >> bit & 1) << (at % 32);
            }
        }
        words
    }

    proptest! {
        #[test]
        fn every_writer_s_subtraction_is_undone(
            bits in prop::sample::select(vec![2u8, 3, 4, 8]),
            zeros in prop::collection::vec(any::<u8>(), 32),
        ) {
            let zeros: Vec<u8> = zeros.iter().map(|zero| zero & (0xff >> (8 - bits))).collect();
            let per_code: Vec<u8> =
                zeros.iter().map(|zero| zero.wrapping_sub(1) & (0xff >> (8 - bits))).collect();
            let constant = |at: usize| match bits {
                2 => 0x5555_5555,
                3 => OLD_THREE[at],
                4 => 0x1111_1111,
                _ => 0x0101_0101u32,
            };
            let plain = packed(&zeros, bits);
            let whole_word: Vec<u32> =
                plain.iter().enumerate().map(|(i, w)| w.wrapping_sub(constant(i))).collect();
            let mut written = vec![(Convention::V2, plain), (Convention::V1OldThree, whole_word)];
            // Per code, only 3-bit zeros of 0 can be told from the top of the range.
            if bits == 3 || !zeros.contains(&0) {
                written.push((Convention::V1, packed(&per_code, bits)));
            }
            for (convention, words) in written {
                let decoded = decode(&bytes(&words), convention, bits, 32);
                prop_assert_eq!(&decoded, &zeros, "{:?}", convention);
            }
        }
    }
}
