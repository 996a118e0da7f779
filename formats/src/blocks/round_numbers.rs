//! The formats of 32 weights to a block: a scale, in some a minimum, and 4, 5 or 8 bits per code.

use super::{half, nibbles, row, Block, BlockCodes};
use crate::nibbles::pack_runs_of_16;
use crate::registry::{FormatRow, Variant};
use qtune_ir::ParamType;

/// The registry rows.
pub(crate) static Q4_0: FormatRow = row::<FourBit>();
pub(crate) static Q4_1: FormatRow = row::<FourBitMin>();
pub(crate) static Q5_0: FormatRow = row::<FiveBit>();
pub(crate) static Q5_1: FormatRow = row::<FiveBitMin>();
pub(crate) static Q8_0: FormatRow = row::<EightBit>();

/// Weights of a block, all of which share their parameters.
const SIZE: u32 = 32;
/// Bytes of a block's low nibbles and high nibbles.
const NIBBLES: usize = 16;
const SCALE: (&str, ParamType) = ("s", ParamType::F16);
const MINIMUM: (&str, ParamType) = ("m", ParamType::F16);

const fn symmetric(bits: u8, expr: &'static str) -> Variant {
    Variant { bits, modifiers: &[], params: &[SCALE], expr, codebook: &[] }
}

const fn with_minimum(bits: u8) -> Variant {
    let params = &[SCALE, MINIMUM];
    Variant { bits, modifiers: &[], params, expr: "(+ (* q s) m)", codebook: &[] }
}

/// Ors bit 4 of each code, from the 32 bits at the start of `high`.
fn fifth_bits(high: &[u8], codes: &mut [u8]) {
    for (index, code) in codes.iter_mut().enumerate() {
        *code |= (high[index / 8] >> (index % 8) & 1) << 4;
    }
}

struct FourBit;

impl Block for FourBit {
    const FAMILY: &'static str = "q4_0";
    const TYPE: &'static str = "Q4_0";
    const DOC: &'static str = "GGUF Q4_0, 4-bit symmetric codes with a scale per 32";
    const PACKING: &'static str = "GGUF blocks of 18 bytes: scale f16, 32 nibbles";
    const GROUP: u32 = SIZE;
    const VARIANT: Variant = symmetric(4, "(* (- q 8) s)");
    const CODES: BlockCodes = BlockCodes::Runs { first: 2, pack: pack_runs_of_16 };

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        groups.fill(half(block, 2 * index));
    }
}

struct FourBitMin;

impl Block for FourBitMin {
    const FAMILY: &'static str = "q4_1";
    const TYPE: &'static str = "Q4_1";
    const DOC: &'static str = "GGUF Q4_1, 4-bit codes with a scale and a minimum per 32";
    const PACKING: &'static str = "GGUF blocks of 20 bytes: scale and minimum f16, 32 nibbles";
    const GROUP: u32 = SIZE;
    const VARIANT: Variant = with_minimum(4);
    const CODES: BlockCodes = BlockCodes::Runs { first: 4, pack: pack_runs_of_16 };

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        groups.fill(half(block, 2 * index));
    }
}

struct FiveBit;

impl Block for FiveBit {
    const FAMILY: &'static str = "q5_0";
    const TYPE: &'static str = "Q5_0";
    const DOC: &'static str = "GGUF Q5_0, 5-bit symmetric codes with a scale per 32";
    const PACKING: &'static str = "GGUF blocks of 22 bytes: scale f16, 32 fifth bits, 32 nibbles";
    const GROUP: u32 = SIZE;
    const VARIANT: Variant = symmetric(5, "(* (- q 16) s)");
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        nibbles(&block[6..], NIBBLES, codes);
        fifth_bits(&block[2..], codes);
    });

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        groups.fill(half(block, 2 * index));
    }
}

struct FiveBitMin;

impl Block for FiveBitMin {
    const FAMILY: &'static str = "q5_1";
    const TYPE: &'static str = "Q5_1";
    const DOC: &'static str = "GGUF Q5_1, 5-bit codes with a scale and a minimum per 32";
    const PACKING: &'static str =
        "GGUF blocks of 24 bytes: scale and minimum f16, 32 fifth bits, 32 nibbles";
    const GROUP: u32 = SIZE;
    const VARIANT: Variant = with_minimum(5);
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        nibbles(&block[8..], NIBBLES, codes);
        fifth_bits(&block[4..], codes);
    });

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        groups.fill(half(block, 2 * index));
    }
}

struct EightBit;

impl Block for EightBit {
    const FAMILY: &'static str = "q8_0";
    const TYPE: &'static str = "Q8_0";
    const DOC: &'static str = "GGUF Q8_0, 8-bit symmetric codes with a scale per 32";
    const PACKING: &'static str = "GGUF blocks of 34 bytes: scale f16, 32 signed bytes";
    const GROUP: u32 = SIZE;
    const VARIANT: Variant = symmetric(8, "(* (- q 128) s)");
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        for (code, signed) in codes.iter_mut().zip(&block[2..]) {
            *code = signed ^ 0x80;
        }
    });

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        groups.fill(half(block, 2 * index));
    }
}
