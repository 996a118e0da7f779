//! The 4-bit formats whose codes are looked up.

use super::{half, row, Block, BlockCodes};
use crate::nibbles::pack_runs_of_16;
use crate::registry::{FormatRow, Variant};
use qtune_ir::ParamType;

/// The registry rows.
pub(crate) static IQ4_NL: FormatRow = row::<Nonlinear>();
pub(crate) static IQ4_XS: FormatRow = row::<NonlinearSuper>();

/// Weights that share a scale.
const SIZE: u32 = 32;

/// ggml's `kvalues_iq4nl` over 128, a factor that the expressions put back: products with values
/// below 1 stay in f16's range as those of other formats do.
#[rustfmt::skip]
static IQ4_CODEBOOK: [f32; 16] = [
    -127.0 / 128.0, -104.0 / 128.0, -83.0 / 128.0, -65.0 / 128.0,
    -49.0 / 128.0, -35.0 / 128.0, -22.0 / 128.0, -10.0 / 128.0,
    1.0 / 128.0, 13.0 / 128.0, 25.0 / 128.0, 38.0 / 128.0,
    53.0 / 128.0, 69.0 / 128.0, 89.0 / 128.0, 113.0 / 128.0,
];

struct Nonlinear;

impl Block for Nonlinear {
    const FAMILY: &'static str = "iq4_nl";
    const TYPE: &'static str = "IQ4_NL";
    const DOC: &'static str = "GGUF IQ4_NL, 4-bit codes of a codebook with a scale per 32";
    const PACKING: &'static str = "GGUF blocks of 18 bytes: scale f16, 32 nibbles";
    const GROUP: u32 = SIZE;
    const VARIANT: Variant = Variant {
        bits: 4,
        modifiers: &[],
        params: &[("s", ParamType::F16)],
        expr: "(* (lookup q) (* 128 s))",
        codebook: &IQ4_CODEBOOK,
    };
    const CODES: BlockCodes = BlockCodes::Runs { first: 2, pack: pack_runs_of_16 };

    fn param(block: &[u8], _: usize, groups: &mut [u32]) {
        groups.fill(half(block, 0));
    }
}

struct NonlinearSuper;

impl Block for NonlinearSuper {
    const FAMILY: &'static str = "iq4_xs";
    const TYPE: &'static str = "IQ4_XS";
    const DOC: &'static str = "GGUF IQ4_XS, 4-bit codes of a codebook, 6-bit scales per 32";
    const PACKING: &'static str =
        "GGUF blocks of 136 bytes: scale f16, 8 scales of 6 bits, 256 nibbles";
    const GROUP: u32 = SIZE;
    const VARIANT: Variant = Variant {
        bits: 4,
        modifiers: &[],
        params: &[("d", ParamType::Shared(8)), ("i", ParamType::Code(6))],
        expr: "(* (lookup q) (* 128 (* d (- i 32))))",
        codebook: &IQ4_CODEBOOK,
    };
    const CODES: BlockCodes = BlockCodes::Runs { first: 8, pack: pack_runs_of_16 };

    fn param(block: &[u8], index: usize, groups: &mut [u32]) {
        if index == 0 {
            return groups.fill(half(block, 0));
        }
        let high = half(block, 2);
        for (group, value) in groups.iter_mut().enumerate() {
            let low = u32::from(block[4 + group / 2] >> (4 * (group % 2)) & 15);
            *value = low | (high >> (2 * group) & 3) << 4;
        }
    }
}
