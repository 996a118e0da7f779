//! What tables ask of a kernel: the order of codes in a word, and shared memory.

use super::context::RAISED;
use super::{Op, Term};

/// The order of the eight codes of a 32-bit word. A pair is two codes that one packed 16-bit
/// operation handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeOrder {
    /// Pair `j` has its first code at bit `4j`, its second at bit `16 + 4j`: one mask isolates both
    /// in the halves where their numbers are computed.
    Split,
    /// The same three bits higher, around the end of the word: one rotation by eight bits brings the
    /// upper pairs to the place of the lower ones.
    Raised,
    /// Code `i` is at bit `4i`, so that a pair is a byte, which selects an entry of a table. Codes of a
    /// byte are in order likewise, so that a pair is two neighbours, which one instruction converts.
    Sequential,
    /// Code `i` is at bit `2i` of a half word, two bits each: together they are the code of a vector
    /// ([`crate::VectorCodes`]).
    Vectors,
}

const WORD_BITS: u32 = 32;
/// Bits by which [`CodeOrder::Raised`] rotates a word up.
const RAISED_BITS: u32 = (RAISED as u32).ilog2();

impl CodeOrder {
    /// The order that an operator of a term wants; `None` for those that do not read codes.
    pub(super) fn of(op: &Op, term: &Term) -> Option<CodeOrder> {
        match op {
            Op::Real(i) | Op::Magic(i) | Op::Subnormal(i) => match term.node(*i) {
                Op::Raised(_) => Some(CodeOrder::Raised),
                _ => Some(CodeOrder::Split),
            },
            Op::At(_) | Op::Narrow(_) | Op::Wide(_) => Some(CodeOrder::Split),
            Op::Raised(_) => Some(CodeOrder::Raised),
            Op::Pair(_) | Op::Page(_) | Op::Permuted(_) | Op::Short(_) | Op::Converted(_) => {
                Some(CodeOrder::Sequential)
            }
            Op::Vector(_) => Some(CodeOrder::Vectors),
            _ => None,
        }
    }

    /// The order in which a schedule's term wants its codes. Text that is no term converts none.
    pub fn of_term(text: &str) -> CodeOrder {
        let wanted = |term: Term| term.nodes().iter().find_map(|op| CodeOrder::of(op, &term));
        text.parse().ok().and_then(wanted).unwrap_or(CodeOrder::Split)
    }

    /// Bits by which words of this order are rotated up against the one that they are a rotation of.
    pub fn rotation(self) -> u32 {
        match self {
            CodeOrder::Raised => RAISED_BITS,
            CodeOrder::Split | CodeOrder::Sequential | CodeOrder::Vectors => 0,
        }
    }

    /// Bit offset of a code: pair 0 to 3, half 0 or 1. A code that reaches the end of the word goes on
    /// at bit 0.
    pub fn shift(self, pair: u32, half: u32) -> u32 {
        match self {
            CodeOrder::Split => 4 * pair + 16 * half,
            CodeOrder::Raised => (4 * pair + 16 * half + RAISED_BITS) % WORD_BITS,
            CodeOrder::Sequential => 8 * pair + 4 * half,
            CodeOrder::Vectors => 4 * pair + 2 * half,
        }
    }

    /// The inverse of [`CodeOrder::shift`]: pair and half.
    pub fn place(self, shift: u32) -> (u32, u32) {
        match self {
            CodeOrder::Split => (shift % 16 / 4, shift / 16),
            CodeOrder::Raised => {
                CodeOrder::Split.place((shift + WORD_BITS - RAISED_BITS) % WORD_BITS)
            }
            CodeOrder::Sequential => (shift / 8, shift % 8 / 4),
            CodeOrder::Vectors => (shift / 4, shift % 4 / 2),
        }
    }
}

/// A table of all pairs of codes in shared memory, one copy per bank: lane `l` reads word
/// `pitch_words * byte + l`, so that no two lanes ever want the same bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairTable {
    /// Words from one entry's copies to the next's.
    pub pitch_words: u32,
}

/// Entries of a table of pairs of 4-bit codes.
const ENTRIES: u32 = 256;
/// Copies of an entry: one per bank.
const COPIES: u32 = 32;

impl PairTable {
    /// `pair`: entries follow each other. An address is a shift and a `lop3`.
    pub const DENSE: PairTable = PairTable { pitch_words: COPIES };
    /// `page`: entries lie 256 bytes apart, so that a byte of codes is a byte of the address, which
    /// one `prmt` puts there. Half of the memory is never touched.
    pub const PAGED: PairTable = PairTable { pitch_words: 2 * COPIES };

    /// The table that an operator reads, if any.
    pub fn of(op: &Op) -> Option<PairTable> {
        match op {
            Op::Pair(_) => Some(PairTable::DENSE),
            Op::Page(_) => Some(PairTable::PAGED),
            _ => None,
        }
    }

    /// The table that a schedule's term reads, if any. Looks for the operators without parsing:
    /// the search asks this of every candidate.
    pub fn of_term(text: &str) -> Option<PairTable> {
        let has = |operator: &str| text.contains(operator);
        match (has("(pair "), has("(page ")) {
            (true, _) => Some(PairTable::DENSE),
            (_, true) => Some(PairTable::PAGED),
            _ => None,
        }
    }

    /// Bytes of shared memory, up to the end of the last entry.
    pub fn bytes(self) -> u32 {
        4 * (self.pitch_words * (ENTRIES - 1) + COPIES)
    }

    /// 16-byte stores that fill it, over all threads of a block.
    pub fn fill_stores(self) -> u32 {
        ENTRIES * COPIES / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_inverse_of_shifts() {
        for order in [CodeOrder::Split, CodeOrder::Raised, CodeOrder::Sequential] {
            let mut shifts = Vec::new();
            for (pair, half) in (0..4).flat_map(|pair| [(pair, 0), (pair, 1)]) {
                let shift = order.shift(pair, half);
                assert_eq!(order.place(shift), (pair, half));
                shifts.push(shift);
            }
            shifts.sort_unstable();
            let rotation = order.rotation();
            assert_eq!(shifts, [0, 4, 8, 12, 16, 20, 24, 28].map(|shift| shift + rotation));
        }
    }

    #[test]
    fn terms_say_what_they_need() {
        let cases = [
            ("(* s (sum (* (pair q) x)))", CodeOrder::Sequential, Some(PairTable::DENSE)),
            ("(* s (sum (* (page q) x)))", CodeOrder::Sequential, Some(PairTable::PAGED)),
            ("(* s (sum (* (prmt q) x)))", CodeOrder::Sequential, None),
            ("(* s (sum (* (vector q) x)))", CodeOrder::Vectors, None),
            ("(* s (sum (* (magic q) x)))", CodeOrder::Split, None),
            ("(* s (sum (* (subn (raise q)) x)))", CodeOrder::Raised, None),
            ("", CodeOrder::Split, None),
        ];
        for (text, order, table) in cases {
            assert_eq!((CodeOrder::of_term(text), PairTable::of_term(text)), (order, table));
        }
    }
}
