//! From the words of a lane's piece to the octets that arithmetic uses: planes of bits brought into
//! the fields of their codes. [`CodePacking`] says where they lie; 4- and 8-bit codes lie there
//! already.

use crate::kir::{hex, int, select, Body, Expr, Type};
use qtune_ir::CodePacking;

/// Eight codes, each in a field of 4 or 8 bits: see [`CodePacking::field`]. Or eight floats, a word
/// for each pair: weights that nothing is left to do for, or the numbers of vectors.
pub(super) struct Octet {
    pub packing: CodePacking,
    words: Vec<Expr>,
}

/// Two bits in every nibble, and the others.
const LOW_PAIRS: u32 = 0x3333_3333;
/// The lower nibble of every byte.
const LOW_NIBBLES: u32 = 0x0f0f_0f0f;

impl Octet {
    /// Octet `index` of the piece whose words `word` gives.
    pub fn load(
        packing: CodePacking,
        body: &mut Body,
        index: &Expr,
        word: impl Fn(Expr) -> Expr,
    ) -> Octet {
        let words = match packing.bits() {
            2 => vec![body.bind("word", Type::U32, shared(&word, 0, 2, index))],
            3 => vec![three(body, index, word)],
            4 => vec![body.bind("word", Type::U32, word(index.clone()))],
            5 | 6 => bytes(packing, body, index, word),
            _ => {
                let count = packing.octet_words();
                let value = |nth: u32| word(index.clone() * count + nth);
                (0..count)
                    .map(|nth| body.bind(format!("word{nth}"), Type::U32, value(nth)))
                    .collect()
            }
        };
        Octet { packing, words }
    }

    /// The numbers of vectors, pair by pair.
    pub fn of_vectors(packing: CodePacking, pairs: [Expr; 4]) -> Octet {
        Octet { packing, words: pairs.into() }
    }

    /// The word that holds the codes of a pair.
    pub fn word(&self, pair: usize) -> &Expr {
        &self.words[pair % self.words.len()]
    }

    /// The pairs of floats that nothing is left to do for.
    pub fn floats(&self) -> Option<[Expr; 4]> {
        match &self.words[..] {
            [a, b, c, d] if self.packing == CodePacking::FLOATS => {
                Some([a, b, c, d].map(Expr::clone))
            }
            _ => None,
        }
    }

    /// The only word of codes in 4-bit fields.
    pub fn nibbles(&self) -> &Expr {
        &self.words[0]
    }
}

/// The word of a plane of `width` bits from `first` on, with the octet's bits lowest in each nibble.
fn shared(word: &impl Fn(Expr) -> Expr, first: u32, width: u32, octet: &Expr) -> Expr {
    let sharing = 4 / width;
    let of_word = match sharing {
        4 => int(first),
        _ => octet.clone() / sharing + first,
    };
    word(of_word) >> (octet.clone() % sharing * width)
}

/// Two bits and one. Single bits go up by two; those of octets 2 and 3 are there or above.
fn three(body: &mut Body, octet: &Expr, word: impl Fn(Expr) -> Expr) -> Expr {
    let low = body.bind("low_bits", Type::U32, shared(&word, 0, 2, octet));
    let single = word(int(2));
    let moved = select(octet.clone().less(2u32), single.clone() << 2u32, single);
    let high = body.bind("high_bit", Type::U32, moved >> (octet.clone() % 2u32));
    // One bit select: what is left in the upper bit of a nibble is masked with the code.
    let merged = (low & hex(LOW_PAIRS)) | (high & hex(!LOW_PAIRS));
    body.bind("word", Type::U32, merged)
}

/// Four bits, and one or two above them: nibbles 0 and 2 of each half word go to the first word's
/// bytes, 1 and 3 to the second's.
fn bytes(
    packing: CodePacking,
    body: &mut Body,
    octet: &Expr,
    word: impl Fn(Expr) -> Expr,
) -> Vec<Expr> {
    let width = packing.bits() - 4;
    let low = body.bind("low_bits", Type::U32, word(octet.clone()));
    let high = body.bind("high_bits", Type::U32, shared(&word, 4, width, octet));
    let mask = hex(((1 << width) - 1) * 0x1010_1010);
    let first = (low.clone() & hex(LOW_NIBBLES)) | ((high.clone() << 4u32) & mask.clone());
    let second = ((low >> 4u32) & hex(LOW_NIBBLES)) | (high & mask);
    vec![body.bind("word0", Type::U32, first), body.bind("word1", Type::U32, second)]
}
