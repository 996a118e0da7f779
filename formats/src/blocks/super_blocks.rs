//! The formats of 256 weights to a block, with scales of two levels.
//!
//! `d` scales the integer scales `i` of the quant groups; in formats with minima, `e` scales the
//! integer minima `j`: a weight is `(d*i)*q - e*j`. Where there are no minima, codes and integer
//! scales are signed and stored with an offset, which the expression takes away.

use super::{half, nibbles, row, Block, BlockCodes};
use crate::nibbles::pack_runs_of_32;
use crate::registry::{FormatRow, Variant};
use qtune_ir::ParamType;

/// The registry rows.
pub(crate) static Q2_K: FormatRow = row::<TwoBit>();
pub(crate) static Q3_K: FormatRow = row::<ThreeBit>();
pub(crate) static Q4_K: FormatRow = row::<FourBit>();
pub(crate) static Q5_K: FormatRow = row::<FiveBit>();
pub(crate) static Q6_K: FormatRow = row::<SixBit>();

/// The scale of scales, for this many groups of a block.
const fn scale(groups: u8) -> (&'static str, ParamType) {
    ("d", ParamType::Shared(groups))
}

/// The scale of minima.
const fn minimum_scale(groups: u8) -> (&'static str, ParamType) {
    ("e", ParamType::Shared(groups))
}

/// Codes without offset, groups with a minimum.
const fn with_minima(bits: u8, params: &'static [(&'static str, ParamType)]) -> Variant {
    let expr = "(- (* q (* d i)) (* e j))";
    Variant { bits, modifiers: &[], params, expr, codebook: &[] }
}

/// Unpacks 2-bit fields: per 32 bytes, the lowest of all, then the next.
fn pairs(packed: &[u8], codes: &mut [u8]) {
    for (codes, packed) in codes.chunks_exact_mut(128).zip(packed.chunks_exact(32)) {
        for (shift, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(packed) {
                *code = byte >> (2 * shift) & 3;
            }
        }
    }
}

struct TwoBit;

impl Block for TwoBit {
    const FAMILY: &'static str = "q2_k";
    const TYPE: &'static str = "Q2_K";
    const DOC: &'static str = "GGUF Q2_K, 2-bit codes, 4-bit scales and minima per 16";
    const PACKING: &'static str =
        "GGUF blocks of 84 bytes: 16 scales and minima, 256 codes, their scales f16";
    const GROUP: u32 = 16;
    const VARIANT: Variant = with_minima(
        2,
        &[scale(16), ("i", ParamType::Code(4)), minimum_scale(16), ("j", ParamType::Code(4))],
    );
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        pairs(&block[16..80], codes);
    });

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        let each = groups.iter_mut().zip(block);
        match index {
            0 => groups.fill(half(block, 80)),
            1 => each.for_each(|(scale, both)| *scale = u32::from(both & 15)),
            2 => groups.fill(half(block, 82)),
            _ => each.for_each(|(minimum, both)| *minimum = u32::from(both >> 4)),
        }
    }
}

struct ThreeBit;

impl Block for ThreeBit {
    const FAMILY: &'static str = "q3_k";
    const TYPE: &'static str = "Q3_K";
    const DOC: &'static str = "GGUF Q3_K, 3-bit symmetric codes, 6-bit scales per 16";
    const PACKING: &'static str =
        "GGUF blocks of 110 bytes: high bits, low bits of 256 codes, 16 scales, their scale f16";
    const GROUP: u32 = 16;
    const VARIANT: Variant = Variant {
        bits: 3,
        modifiers: &[],
        params: &[scale(16), ("i", ParamType::Code(6))],
        expr: "(* (- q 4) (* d (- i 32)))",
        codebook: &[],
    };
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        pairs(&block[32..96], codes);
        for (bit, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, high) in codes.iter_mut().zip(block) {
                *code |= (high >> bit & 1) << 2;
            }
        }
    });

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        if index == 0 {
            return groups.fill(half(block, 108));
        }
        for (group, scale) in groups.iter_mut().enumerate() {
            let low = block[96 + group % 8] >> (4 * (group / 8)) & 15;
            let high = block[104 + group % 4] >> (2 * (group / 4)) & 3;
            *scale = u32::from(low | high << 4);
        }
    }
}

/// The eight 6-bit scales (`minimum` false) or minima that Q4_K and Q5_K keep in 12 bytes: those of the
/// first four groups in the low bits of four bytes, of which the high bits belong to the last four.
#[inline(always)]
fn six_bits(packed: &[u8], minimum: bool) -> [u8; 8] {
    let word = |at: usize| {
        let bytes = &packed[4 * at..4 * at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    let (own, low) = (word(usize::from(minimum)), word(2) >> (4 * u8::from(minimum)));
    let first = own & 0x3f3f_3f3f;
    let last = low & 0x0f0f_0f0f | own >> 2 & 0x3030_3030;
    (u64::from(first) | u64::from(last) << 32).to_le_bytes()
}

/// A parameter of Q4_K and Q5_K: both scales, then the 12 bytes.
#[inline(always)]
fn six_bit_param(block: &[u8], index: usize, groups: &mut [u32]) {
    if index % 2 == 0 {
        return groups.fill(half(block, index));
    }
    let values = six_bits(&block[4..16], index == 3);
    groups.iter_mut().zip(values).for_each(|(group, value)| *group = value.into());
}

const SIX_BIT_PARAMS: &[(&str, ParamType)] =
    &[scale(8), ("i", ParamType::Code(6)), minimum_scale(8), ("j", ParamType::Code(6))];

struct FourBit;

impl Block for FourBit {
    const FAMILY: &'static str = "q4_k";
    const TYPE: &'static str = "Q4_K";
    const DOC: &'static str = "GGUF Q4_K, 4-bit codes, 6-bit scales and minima per 32";
    const PACKING: &'static str =
        "GGUF blocks of 144 bytes: two f16, 8 scales and minima, 256 nibbles";
    const GROUP: u32 = 32;
    const VARIANT: Variant = with_minima(4, SIX_BIT_PARAMS);
    const CODES: BlockCodes = BlockCodes::Runs { first: 16, pack: pack_runs_of_32 };

    #[inline(always)]
    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        six_bit_param(block, index, groups);
    }
}

struct FiveBit;

impl Block for FiveBit {
    const FAMILY: &'static str = "q5_k";
    const TYPE: &'static str = "Q5_K";
    const DOC: &'static str = "GGUF Q5_K, 5-bit codes, 6-bit scales and minima per 32";
    const PACKING: &'static str =
        "GGUF blocks of 176 bytes: two f16, 8 scales and minima, 256 high bits, 256 nibbles";
    const GROUP: u32 = 32;
    const VARIANT: Variant = with_minima(5, SIX_BIT_PARAMS);
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        nibbles(&block[48..], 32, codes);
        for (bit, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, high) in codes.iter_mut().zip(&block[16..]) {
                *code |= (high >> bit & 1) << 4;
            }
        }
    });

    #[inline(always)]
    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        six_bit_param(block, index, groups);
    }
}

struct SixBit;

impl Block for SixBit {
    const FAMILY: &'static str = "q6_k";
    const TYPE: &'static str = "Q6_K";
    const DOC: &'static str = "GGUF Q6_K, 6-bit symmetric codes, 8-bit scales per 16";
    const PACKING: &'static str =
        "GGUF blocks of 210 bytes: low nibbles, high bits of 256 codes, 16 scales, their scale f16";
    const GROUP: u32 = 16;
    const VARIANT: Variant = Variant {
        bits: 6,
        modifiers: &[],
        params: &[scale(16), ("i", ParamType::Code(8))],
        expr: "(* (- q 32) (* d (- i 128)))",
        codebook: &[],
    };
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        pairs(&block[128..192], codes);
        let mut low = [0; 256];
        nibbles(&block[..128], 64, &mut low);
        for (code, low) in codes.iter_mut().zip(low) {
            *code = *code << 4 | low;
        }
    });

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        if index == 0 {
            return groups.fill(half(block, 208));
        }
        for (scale, signed) in groups.iter_mut().zip(&block[192..]) {
            // The offset is taken away in the expression.
            *scale = u32::from(signed ^ 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bit_scales_and_minima_unpack_from_twelve_bytes() {
        let packed = [0x01, 0x82, 0xc3, 0xc4, 0x88, 0x89, 0xca, 0xcb, 0x15, 0xc5, 0xc7, 0xef];
        assert_eq!(six_bits(&packed, false), [1, 2, 3, 4, 5, 37, 55, 63]);
        assert_eq!(six_bits(&packed, true), [8, 9, 10, 11, 33, 44, 60, 62]);
    }

    #[test]
    fn three_bit_codes_have_sixteen_scales_of_six_bits() {
        let mut block = [0; 110];
        block[96..108].copy_from_slice(&[
            0xf0, 0x01, 0xe2, 0xff, 0x50, 0x5f, 0x50, 0x51, 0x24, 0x74, 0xb8, 0xf8,
        ]);
        let mut scales = [0; 16];
        ThreeBit::param(&block, 1, &mut scales);
        assert_eq!(scales, [0, 1, 2, 15, 16, 31, 32, 33, 47, 48, 62, 63, 5, 21, 37, 53]);
    }
}
