//! How codes of any width fill 32-bit words.
//!
//! A lane always has 32 codes at a time, a *piece*: as many words as a code has bits. Eight codes
//! that one step of the arithmetic uses together are an *octet*, four pairs. Kernels compute with
//! octets whose codes have a field each: 4 bits, one word, up to that width; 8 bits, two words,
//! above it. A width that fills its fields is stored so. Others are stored as *planes*, the low bits
//! of all codes apart from the high bits: 3 bits are a plane of two bits and one of a single bit,
//! 6 bits one of four and one of two. Planes of several octets share words, each a few bits higher
//! than the one before it, so that a shift and a mask bring them into their fields.
//!
//! | bits | planes | words of a piece, per load | fields |
//! |---|---|---|---|
//! | 2 | 2 | 2 | 4 bits |
//! | 3 | 2 + 1 | 1 + 1 + 1 | 4 bits |
//! | 4 | 4 | 4 | 4 bits |
//! | 5 | 4 + 1 | 1 + 1 + 1 + 1 + 1 | 8 bits |
//! | 6 | 4 + 2 | 2 + 2 + 2 | 8 bits |
//! | 8 | 8 | 4 + 4 | 8 bits |
//!
//! Weights that are dequantized already keep to the same order, as 16-bit floats: a piece is four
//! loads of four words, each of them the four pairs of an octet.

use crate::dequant::CodeOrder;

/// Codes of one lane's piece.
pub const PIECE_CODES: u32 = 32;
/// Octets of a piece.
pub const PIECE_OCTETS: usize = 4;
/// Codes of an octet: pair `j`, half `h` is code `2j + h`.
pub const OCTET_CODES: usize = 8;

/// How pieces of one code width are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodePacking {
    bits: u32,
}

/// Some bits of every code of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// The first of its words in the piece; it has as many as `width`.
    pub first_word: u32,
    /// Bits of each code in it: 1, 2, 4 or 8.
    pub width: u32,
    /// The lowest of them in the code.
    pub low: u32,
}

/// Where the bits of a plane of one code lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Word of the piece.
    pub word: u32,
    /// Bit offset of the lowest bit. What reaches the end of the word goes on at bit 0.
    pub shift: u32,
}

impl CodePacking {
    /// The packing of 16-bit floats: what kernels leave behind that dequantize ahead. No code is ever
    /// stored so.
    pub const FLOATS: CodePacking = CodePacking { bits: 16 };

    /// The packing of codes of `bits` bits, `None` if kernels do not read that width.
    pub fn of(bits: u8) -> Option<CodePacking> {
        matches!(bits, 2 | 3 | 4 | 5 | 6 | 8).then_some(CodePacking { bits: bits.into() })
    }

    /// Bits per code.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// 32-bit words of a piece.
    pub fn words(self) -> u32 {
        self.bits
    }

    /// Words that one load brings: the widest power of two, up to 16 bytes, that divides a piece.
    pub fn load_words(self) -> u32 {
        1 << self.bits.trailing_zeros().min(2)
    }

    /// Loads that bring a piece.
    pub fn loads(self) -> u32 {
        self.words() / self.load_words()
    }

    /// Bits of the field that a code has in an octet.
    pub fn field_bits(self) -> u32 {
        self.bits.next_power_of_two().max(4)
    }

    /// Words of an octet.
    pub fn octet_words(self) -> u32 {
        self.field_bits() * OCTET_CODES as u32 / 32
    }

    /// The largest code.
    pub fn code_mask(self) -> u32 {
        (1 << self.bits) - 1
    }

    /// Word of an octet and bit offset in it of the field of a pair's half. In 4-bit fields the order
    /// decides; in 8-bit fields pairs 0 and 2 lie in the first word, 1 and 3 in the second, which is
    /// where the nibbles of a word of all four come apart, or in order.
    pub fn field(self, pair: u32, half: u32, order: CodeOrder) -> Place {
        match self.field_bits() {
            4 => Place { word: 0, shift: order.shift(pair, half) },
            _ if order == CodeOrder::Sequential => {
                Place { word: pair / 2, shift: pair % 2 * 16 + 8 * half }
            }
            _ => Place { word: pair % 2, shift: pair / 2 * 8 + 16 * half },
        }
    }

    /// The planes, from the lowest bits up.
    pub fn planes(self) -> impl Iterator<Item = Plane> {
        let widths: &[u32] = match self.bits {
            2 => &[2],
            3 => &[2, 1],
            4 => &[4],
            5 => &[4, 1],
            6 => &[4, 2],
            _ => &[8],
        };
        widths.iter().scan(0, |low, &width| {
            let plane = Plane { first_word: *low, width, low: *low };
            *low += width;
            Some(plane)
        })
    }

    /// Where a plane has its bits of the code at `pair` and `half` of an octet.
    pub fn place(self, plane: Plane, octet: u32, pair: u32, half: u32, order: CodeOrder) -> Place {
        let word = |index: u32| plane.first_word + index;
        match plane.width {
            8 => {
                let field = self.field(pair, half, order);
                Place { word: word(2 * octet + field.word), shift: field.shift }
            }
            4 => Place { word: word(octet), shift: order.shift(pair, half) },
            width => {
                let sharing = 4 / width;
                // A vector's code is a half word by itself, others share nibbles.
                let apart = if order == CodeOrder::Vectors { 16 } else { width };
                let shift = order.shift(pair, half) + octet % sharing * apart;
                Place { word: word(octet / sharing), shift }
            }
        }
    }

    /// The words of a piece, from its codes by octet; the first [`CodePacking::words`] count.
    pub fn pack(self, octets: &[[u8; OCTET_CODES]; PIECE_OCTETS], order: CodeOrder) -> [u32; 8] {
        let mut words = [0; 8];
        for plane in self.planes() {
            let mask = (1u32 << plane.width) - 1;
            for (octet, codes) in (0..).zip(octets) {
                for (index, code) in (0..).zip(codes) {
                    let place = self.place(plane, octet, index / 2, index % 2, order);
                    let bits = u32::from(*code) >> plane.low & mask;
                    words[place.word as usize] |= bits.rotate_left(place.shift);
                }
            }
        }
        words
    }

    /// [`CodePacking::pack`] for codes of up to 4 bits, those of an octet in the nibbles of a word, in
    /// their order from the lowest up.
    #[inline]
    pub fn pack_nibbles(self, octets: [u32; PIECE_OCTETS], order: CodeOrder) -> [u32; 8] {
        let fields = octets.map(|word| order_nibbles(word, order));
        let mut words = [0; 8];
        if self.bits == 4 {
            words[..PIECE_OCTETS].copy_from_slice(&fields);
            return words;
        }
        for plane in self.planes() {
            let mask = ((1 << plane.width) - 1) * 0x1111_1111;
            let sharing = 4 / plane.width;
            for (octet, field) in (0..).zip(fields) {
                let bits = (field >> plane.low & mask) << (octet % sharing * plane.width);
                words[(plane.first_word + octet / sharing) as usize] |= bits;
            }
        }
        words
    }
}

/// A word of eight codes of 4 bits, code `i` in nibble `i`, in another order.
#[inline(always)]
pub fn order_nibbles(word: u32, order: CodeOrder) -> u32 {
    match order {
        CodeOrder::Split | CodeOrder::Raised => split_nibbles(word).rotate_left(order.rotation()),
        CodeOrder::Sequential | CodeOrder::Vectors => word,
    }
}

/// Word `i` of the result has byte `i` of each word, in their order from the lowest up.
#[inline(always)]
pub fn transpose_bytes([a, b, c, d]: [u32; 4]) -> [u32; 4] {
    const EVEN: u32 = 0x00ff_00ff;
    let bytes = |low: u32, high: u32| {
        let change = (low >> 8 ^ high) & EVEN;
        (low ^ change << 8, high ^ change)
    };
    let halves = |low: u32, high: u32| {
        let change = (low >> 16 ^ high) & 0xffff;
        (low ^ change << 16, high ^ change)
    };
    let ((a, b), (c, d)) = (bytes(a, b), bytes(c, d));
    let ((a, c), (b, d)) = (halves(a, c), halves(b, d));
    [a, b, c, d]
}

/// Even nibbles to the lower half word, odd ones to the upper: [`CodeOrder::Split`]. The inner nibbles of
/// each half word change places, then the inner bytes of the word.
#[inline(always)]
fn split_nibbles(word: u32) -> u32 {
    let change = (word ^ word >> 4) & 0x00f0_00f0;
    let word = word ^ change ^ change << 4;
    let change = (word ^ word >> 8) & 0x0000_ff00;
    word ^ change ^ change << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [u8; 6] = [2, 3, 4, 5, 6, 8];

    fn packings() -> impl Iterator<Item = CodePacking> {
        WIDTHS.into_iter().filter_map(CodePacking::of)
    }

    #[test]
    fn every_bit_of_a_piece_belongs_to_one_code() {
        for (packing, order) in packings()
            .flat_map(|packing| [CodeOrder::Split, CodeOrder::Sequential].map(|o| (packing, o)))
        {
            let mut taken = [0u32; 8];
            for plane in packing.planes() {
                for code in 0..PIECE_CODES {
                    let (octet, index) = (code / 8, code % 8);
                    let place = packing.place(plane, octet, index / 2, index % 2, order);
                    let bits = ((1 << plane.width) - 1) << place.shift;
                    assert_eq!(taken[place.word as usize] & bits, 0, "{packing:?} {place:?}");
                    taken[place.word as usize] |= bits;
                }
            }
            let full = taken.iter().take_while(|word| **word == u32::MAX).count();
            assert_eq!(full as u32, packing.words(), "{packing:?}");
        }
    }

    #[test]
    fn nibbles_are_packed_as_codes_are() {
        for (packing, order) in packings()
            .filter(|packing| packing.bits() <= 4)
            .flat_map(|packing| [CodeOrder::Split, CodeOrder::Sequential].map(|o| (packing, o)))
        {
            let code = |octet: usize, index: usize| {
                (octet * 5 + index * 3 + 1) as u8 & packing.code_mask() as u8
            };
            let octets = std::array::from_fn(|o| std::array::from_fn(|index| code(o, index)));
            let nibbles = octets.map(|codes: [u8; OCTET_CODES]| {
                (0..).zip(codes).fold(0, |word, (i, code)| word | u32::from(code) << (4 * i))
            });
            assert_eq!(packing.pack_nibbles(nibbles, order), packing.pack(&octets, order));
        }
    }

    #[test]
    fn bytes_change_places_with_words() {
        let words = [0x0302_0100, 0x1312_1110, 0x2322_2120, 0x3332_3130];
        let turned = [0x3020_1000, 0x3121_1101, 0x3222_1202, 0x3323_1303];
        assert_eq!(transpose_bytes(words), turned);
        assert_eq!(transpose_bytes(turned), words);
    }

    #[test]
    fn loads_bring_whole_pieces() {
        for packing in packings().chain([CodePacking::FLOATS]) {
            assert_eq!(packing.loads() * packing.load_words(), packing.words());
        }
        assert_eq!(CodePacking::of(7), None);
    }

    #[test]
    fn widths_that_fill_their_fields_are_stored_as_they_are_used() {
        let codes = [[1, 2, 3, 4, 5, 6, 7, 8]; PIECE_OCTETS];
        let pack = |bits| CodePacking::of(bits).unwrap().pack(&codes, CodeOrder::Split);
        assert_eq!(pack(4)[..2], [0x8642_7531; 2]);
        assert_eq!(pack(8)[..2], [0x0602_0501, 0x0804_0703]);
        let bytes = CodePacking::of(8).unwrap().pack(&codes, CodeOrder::Sequential);
        assert_eq!(bytes[..2], [0x0403_0201, 0x0807_0605]);
    }
}
