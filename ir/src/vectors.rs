//! Codes that name vectors: eight consecutive weights of a row have one code of 16 bits.
//!
//! Everything that counts, permutes or stores codes sees eight codes of two bits, the lowest bits of the
//! vector's code first. Only what looks a vector up puts them together.

/// Weights of a vector.
pub const VECTOR_WEIGHTS: usize = 8;
/// Bits of a vector's code.
const CODE_BITS: u32 = 16;
/// Bits of a weight's share of it.
pub const VECTOR_SHARE_BITS: u8 = (CODE_BITS as usize / VECTOR_WEIGHTS) as u8;

/// How a vector's code names the entries of codebooks whose sum the vector is. Every layer brings its own
/// codebooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct VectorCodes {
    books: u8,
    bits: u8,
    rotated: bool,
}

impl VectorCodes {
    /// `books` codebooks of 2^`bits` vectors: one of up to 16 bits, or two of up to 8, each of which has a
    /// byte of the code. `None` for others.
    pub const fn new(books: u8, bits: u8) -> Option<VectorCodes> {
        match (books, bits) {
            (1, 1..=16) | (2, 1..=8) => Some(VectorCodes { books, bits, rotated: false }),
            _ => None,
        }
    }

    /// The same codes of weights that lie between rotations of the inputs and of the outputs.
    pub const fn rotated(self) -> VectorCodes {
        VectorCodes { rotated: true, ..self }
    }

    /// Whether the weights lie between rotations.
    pub fn is_rotated(self) -> bool {
        self.rotated
    }

    /// Codebooks that are added.
    pub fn books(self) -> u32 {
        self.books.into()
    }

    /// Vectors of one codebook.
    pub fn entries(self) -> u32 {
        1 << self.bits
    }

    /// Bits from the part of a code that names the entry of one codebook to the next one's.
    pub fn part_bits(self) -> u32 {
        CODE_BITS / self.books()
    }

    /// Numbers in all codebooks.
    pub fn values(self) -> usize {
        (self.books() * self.entries()) as usize * VECTOR_WEIGHTS
    }

    /// The entries that a code names, counted through all codebooks. Bits beyond a part's width say
    /// nothing.
    pub fn named(self, code: u16) -> impl Iterator<Item = usize> {
        (0..self.books()).map(move |book| {
            let part = u32::from(code) >> (book * self.part_bits()) & (self.entries() - 1);
            (book * self.entries() + part) as usize
        })
    }

    /// The bits of a code that say something.
    pub fn mask(self) -> u16 {
        let part = self.entries() - 1;
        (0..self.books()).fold(0, |mask, book| mask | part << (book * self.part_bits())) as u16
    }
}

/// The code of a vector, from its weights' shares.
pub fn vector_code(shares: &[u8]) -> u16 {
    let bits = usize::from(VECTOR_SHARE_BITS);
    shares.iter().enumerate().fold(0, |code, (at, share)| code | u16::from(*share) << (bits * at))
}

/// The inverse of [`vector_code`].
pub fn vector_shares(code: u16) -> [u8; VECTOR_WEIGHTS] {
    let (bits, mask) = (usize::from(VECTOR_SHARE_BITS), (1 << VECTOR_SHARE_BITS) - 1);
    std::array::from_fn(|at| (code >> (bits * at) & mask) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_apart_and_together() {
        for code in [0, 1, 0x8001, 0x1234, 0xffff] {
            assert_eq!(vector_code(&vector_shares(code)), code);
        }
        assert_eq!(vector_shares(0b11_01), [1, 3, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_byte_names_an_entry_of_each_of_two_codebooks() {
        let named = |books, bits, code| -> Vec<usize> {
            VectorCodes::new(books, bits).unwrap().named(code).collect()
        };
        assert_eq!(named(2, 8, 0x0503), [3, 256 + 5]);
        assert_eq!(named(2, 4, 0xf5f3), [3, 16 + 5], "bits beyond the width say nothing");
        assert_eq!(named(1, 16, 0x0503), [0x0503]);
        assert_eq!(VectorCodes::new(2, 4).unwrap().mask(), 0x0f0f);
        assert!(VectorCodes::new(2, 9).is_none() && VectorCodes::new(3, 4).is_none());
    }
}
