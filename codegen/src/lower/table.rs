//! Codebooks: tables of a lookup's values, in registers or in shared memory.
//!
//! A table in registers is two planes of 16 bytes, the low and the high bytes of every value. `prmt`
//! picks four of eight bytes at once, so a plane takes one for each half of the table and one that
//! chooses between the halves by the codes' upper bits. A table in shared memory holds the values of
//! every pair of codes, filled from the one in registers when the kernel starts.

use crate::kir::{call, hex, int, var, Body, Buffer, Expr, Space, Type};
use qtune_ir::dequant::{CodeOrder, Op, PairTable};

/// The values of a lookup by code, as bits of the compute type.
pub(super) struct Entries([u16; 16]);

/// Codes that one set of selectors serves: the lower half of its bits.
const GROUP: usize = 4;

impl Entries {
    pub fn new(bits: [u16; 16]) -> Entries {
        Entries(bits)
    }

    /// The bytes from bit `shift` of eight entries, as the two operands of a `prmt`.
    fn plane(&self, shift: u32, half: usize) -> [Expr; 2] {
        let byte = |code: usize| u32::from(self.0[code] >> shift & 0xff);
        let word = |first: usize| (0..4).fold(0, |word, i| word | byte(first + i) << (8 * i));
        [hex(word(8 * half)), hex(word(8 * half + 4))]
    }

    /// Whether every value has zeros there.
    fn is_zero(&self, shift: u32) -> bool {
        self.0.iter().all(|bits| bits >> shift & 0xff == 0)
    }

    /// The bytes from bit `shift` of the values of four codes: one half of the table by the codes'
    /// lower three bits, then the half that their upper bits name.
    fn bytes(&self, body: &mut Body, name: &str, shift: u32, by: &Selectors) -> Expr {
        if self.is_zero(shift) {
            return hex(0);
        }
        let half = |half: usize| {
            let [low, high] = self.plane(shift, half);
            call("permute", [low, high, by.entry.clone()])
        };
        let lower = body.bind(format!("{name}_lower"), Type::U32, half(0));
        let upper = body.bind(format!("{name}_upper"), Type::U32, half(1));
        body.bind(name, Type::U32, call("permute", [lower, upper, by.half.clone()]))
    }

    /// Two pairs of values, of four codes.
    fn group(&self, body: &mut Body, name: &str, by: &Selectors) -> [Expr; 2] {
        let low = self.bytes(body, &format!("{name}_low"), 0, by);
        let high = self.bytes(body, &format!("{name}_high"), 8, by);
        // Bytes of both planes in turn: of codes 0 and 1, of codes 2 and 3.
        [0x5140, 0x7362].map(|turns| call("permute", [low.clone(), high.clone(), hex(turns)]))
    }

    /// The four pairs of values of a word's eight codes.
    pub fn permuted(&self, body: &mut Body, name: &str, word: &Expr) -> [Expr; 4] {
        let all = Selectors::of(body, name, word);
        let upper = all.upper(body, name);
        let [a, b] = self.group(body, &format!("{name}_0"), &all);
        let [c, d] = self.group(body, &format!("{name}_1"), &upper);
        [a, b, c, d]
    }
}

/// Selectors of `prmt` for the codes in the lower half of a word; the upper half is ignored.
struct Selectors {
    /// The entry within a half of the table: the lower three bits of each code.
    entry: Expr,
    /// For byte `i` of the result, byte `i` of the first operand or of the second: the upper bit of
    /// each code, moved to where it adds four.
    half: Expr,
}

impl Selectors {
    fn of(body: &mut Body, name: &str, word: &Expr) -> Selectors {
        let entry = word.clone() & hex(0x7777_7777);
        let halves = [word.clone() >> 1u32, hex(0x4444_4444), hex(0x3210_3210)];
        Selectors {
            entry: body.bind(format!("{name}_entry"), Type::U32, entry),
            half: body.bind(format!("{name}_half"), Type::U32, call("and_or", halves)),
        }
    }

    /// The selectors of the codes in the upper half.
    fn upper(&self, body: &mut Body, name: &str) -> Selectors {
        let mut down = |part: &str, of: &Expr| {
            body.bind(format!("{name}_upper_{part}"), Type::U32, of.clone() >> (4 * GROUP as u32))
        };
        Selectors { entry: down("entry", &self.entry), half: down("half", &self.half) }
    }
}

/// A table of pairs in shared memory from a byte offset.
pub(super) struct SharedTable {
    pub table: PairTable,
    pub offset: u32,
    pub entries: Entries,
}

/// The lane's copy within an entry, as a byte offset.
const LANE_BYTES: &str = "lane_bytes";

impl SharedTable {
    /// The views of it: words to read, 16-byte pieces to fill.
    pub fn views(&self) -> [Buffer; 2] {
        let space = Space::Shared { offset: self.offset };
        [("table", Type::U32), ("table_pieces", Type::U32x4)].map(|(name, element)| Buffer {
            name: name.into(),
            space,
            element,
        })
    }

    /// Fills the table by all threads of the block. The values are there after the next barrier.
    pub fn fill(&self, body: &mut Body, threads: u32) {
        body.section("fill the table: for every pair of codes their values, a copy for each lane");
        let lane_bytes = var("lane").cast(Type::U32) * hex(4);
        body.bind(LANE_BYTES, Type::U32, lane_bytes);
        let copies = 8u32;
        body.range("piece", var("thread"), self.table.fill_stores(), threads, |body, piece| {
            let codes = (piece.clone() / copies).cast(Type::U32);
            let codes = body.bind("codes", Type::U32, codes);
            let by = Selectors::of(body, "fill", &codes);
            let [values, _] = self.entries.group(body, "fill", &by);
            let values = body.bind("values", Type::U32, values);
            let place = piece.clone() / copies * (self.table.pitch_words / 4) + piece % copies;
            let value = call("pack_u32x4", std::array::from_fn::<_, 4, _>(|_| values.clone()));
            body.store("table_pieces", place, value);
        });
    }
}

/// The four pairs of values of a word's eight codes, from a table in shared memory.
pub(super) fn looked_up(table: PairTable, word: &Expr) -> [Expr; 4] {
    std::array::from_fn(|pair| {
        let offset = match table {
            PairTable::DENSE => dense_offset(table, pair as u32, word),
            // The lane's offset is below 256 and the pair's byte goes above it; the rest is zero.
            _ => {
                let bytes = hex(0x5504 | (pair as u32) << 4);
                call("permute", [word.clone(), var(LANE_BYTES), bytes])
            }
        };
        call("table_word", [Expr::address("table", int(0)), offset])
    })
}

/// The pair's byte times the pitch, and the lane's offset, which fits below.
fn dense_offset(table: PairTable, pair: u32, word: &Expr) -> Expr {
    let pitch_shift = (4 * table.pitch_words).trailing_zeros();
    let from = CodeOrder::Sequential.shift(pair, 0);
    let moved = match from.checked_sub(pitch_shift) {
        Some(down) => word.clone() >> down,
        None => word.clone() << (pitch_shift - from),
    };
    call("and_or", [moved, hex(0xff << pitch_shift), var(LANE_BYTES)])
}

/// Whether an operator reads a codebook.
pub(super) fn is_lookup(op: &Op) -> bool {
    matches!(op, Op::Pair(_) | Op::Page(_) | Op::Permuted(_) | Op::Short(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_the_bytes_of_eight_entries_in_order() {
        let entries = Entries::new(std::array::from_fn(|code| 0x4000 + 0x0101 * code as u16));
        assert_eq!(entries.plane(0, 0), [hex(0x0302_0100), hex(0x0706_0504)]);
        assert_eq!(entries.plane(8, 1), [hex(0x4b4a_4948), hex(0x4f4e_4d4c)]);
    }

    #[test]
    fn offsets_of_dense_tables_are_the_byte_times_the_pitch() {
        let shown = |pair| match dense_offset(PairTable::DENSE, pair, &var("word")) {
            Expr::Call("and_or", args) => args[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(0), var("word") << 7u32);
        assert_eq!(shown(1), var("word") >> 1u32);
        assert_eq!(shown(3), var("word") >> 17u32);
    }
}
