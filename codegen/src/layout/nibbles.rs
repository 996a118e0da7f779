//! Packing codes of 4 bits by the run: the lanes that share rows, as many bytes in as out. Words are
//! put together by arithmetic on whole words, which compilers turn into vector instructions.

use qtune_ir::dequant::CodeOrder;
use qtune_ir::{order_nibbles, transpose_bytes};

/// The even nibbles of eight bytes.
const LOW_NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// Pieces of one row: consecutive codes, in the order of the layout word by word.
pub(super) fn row_run(codes: &[u8], order: CodeOrder, packed: &mut [u8]) {
    if order == CodeOrder::Sequential {
        return packed.copy_from_slice(codes);
    }
    let rotation = order.rotation();
    for (place, word) in packed.chunks_exact_mut(4).zip(codes.chunks_exact(4)) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let word = order_nibbles(word, CodeOrder::Split).rotate_left(rotation);
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// The pieces of four lanes that have fragments of the rows `first` and `second`: 32 bytes of each, 64
/// packed. Lane `t` has a word for each k16, of the bytes `t` and `t + 4` of both rows.
pub(super) fn fragment_run(first: &[u8], second: &[u8], order: CodeOrder, packed: &mut [u8]) {
    let rotation = order.rotation();
    for (octet, (first, second)) in first.chunks_exact(8).zip(second.chunks_exact(8)).enumerate() {
        let (first, second) = (eight(first), eight(second));
        let bytes = match order {
            CodeOrder::Sequential | CodeOrder::Vectors => {
                [first as u32, second as u32, (first >> 32) as u32, (second >> 32) as u32]
            }
            // A byte of the result has a nibble of either row: even columns first, then odd ones.
            CodeOrder::Split | CodeOrder::Raised => {
                let even = first & LOW_NIBBLES | (second & LOW_NIBBLES) << 4;
                let odd = first >> 4 & LOW_NIBBLES | second & !LOW_NIBBLES;
                [even as u32, (even >> 32) as u32, odd as u32, (odd >> 32) as u32]
            }
        };
        for (lane, word) in transpose_bytes(bytes).into_iter().enumerate() {
            let at = 16 * lane + 4 * octet;
            packed[at..at + 4].copy_from_slice(&word.rotate_left(rotation).to_le_bytes());
        }
    }
}

fn eight(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[index]))
}
