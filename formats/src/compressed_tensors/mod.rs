//! compressed-tensors: integer codes of 3, 4 or 8 bits with one scale per quant group, output
//! channel or tensor, as llm-compressor writes them.
//!
//! A signed code `c` is stored as `c + 2^(bits-1)`, so that a symmetric layer has that zero-point
//! everywhere. Two packings:
//!
//! - `pack-quantized` (W4A16, W8A16): `weight_packed` int32 `[N, K*bits/32]`, codes along K from the
//!   lowest bit. Releases up to 0.15 start a new word rather than let a code cross words, which
//!   shows in the width of 3-bit tensors.
//! - `int-quantized` (W8A8): `weight` int8 `[N, K]`. Symmetric layers whose configuration asks for
//!   activations that are quantized per token are `-a8` ones, those with an `input_scale` `[1]` for all
//!   tokens `-a8-static`; others are served with 16-bit activations, layers with an `input_zero_point` other than 0
//!   among them.
//!
//! Scales have the type of the model; bf16 ones make a format of their own (`-bf16`) whose kernels
//! keep them as f32, which holds them exactly. Weights are `(q - z) * s` rounded to that type once. So
//! does the library, but for 8-bit codes with zero-points and bf16 scales, where it rounds the
//! difference first: there a weight may differ from its by that rounding.

mod decode;
mod layout;
mod scheme;

pub(crate) use scheme::refuse_transforms;

use crate::name::Modifier;
use crate::registry::{FormatRow, GroupNames, Variant};
use qtune_ir::ParamType;

/// One width of codes.
trait Width {
    /// The first word of its names.
    const FAMILY: &'static str;
    /// Bits per code.
    const BITS: u8;
    /// One line about it.
    const DOC: &'static str;
    /// The spellings of its names.
    const NAMES: &'static str;
    /// Some names.
    const EXAMPLES: &'static [&'static str];
    /// The value of a weight whose zero-point is `2^(bits-1)`.
    const SYMMETRIC: &'static str;
    /// The parameters of a layer with zero-points: scale as f16, as f32.
    const ZEROS: [&'static [(&'static str, ParamType)]; 2];
}

struct Int3;

impl Width for Int3 {
    const FAMILY: &'static str = "int3";
    const BITS: u8 = 3;
    const DOC: &'static str = "compressed-tensors, 3-bit integers (W3A16)";
    const NAMES: &'static str = "int3-g<SIZE> | int3-ch, + -asym, -actorder, -bf16";
    const EXAMPLES: &'static [&'static str] = &["int3-g128", "int3-g128-bf16"];
    const SYMMETRIC: &'static str = "(* (- q 4) s)";
    const ZEROS: [&'static [(&'static str, ParamType)]; 2] = [
        &[("s", ParamType::F16), ("z", ParamType::Code(3))],
        &[("s", ParamType::F32), ("z", ParamType::Code(3))],
    ];
}

struct Int4;

impl Width for Int4 {
    const FAMILY: &'static str = "int4";
    const BITS: u8 = 4;
    const DOC: &'static str = "compressed-tensors, 4-bit integers (W4A16)";
    const NAMES: &'static str = "int4-g<SIZE> | int4-ch, + -asym, -actorder, -bf16";
    const EXAMPLES: &'static [&'static str] =
        &["int4-g128", "int4-g64-asym", "int4-g128-bf16", "int4-ch-bf16"];
    const SYMMETRIC: &'static str = "(* (- q 8) s)";
    const ZEROS: [&'static [(&'static str, ParamType)]; 2] = [
        &[("s", ParamType::F16), ("z", ParamType::Code(4))],
        &[("s", ParamType::F32), ("z", ParamType::Code(4))],
    ];
}

struct Int8;

impl Width for Int8 {
    const FAMILY: &'static str = "int8";
    const BITS: u8 = 8;
    const DOC: &'static str = "compressed-tensors, 8-bit integers (W8A16; W8A8 with -a8)";
    const NAMES: &'static str =
        "int8-g<SIZE> | int8-ch, + -asym, -actorder, -bf16, -a8 or -a8-static per channel";
    const EXAMPLES: &'static [&'static str] =
        &["int8-ch", "int8-g128", "int8-ch-bf16", "int8-ch-a8", "int8-ch-a8-static"];
    const SYMMETRIC: &'static str = "(* (- q 128) s)";
    const ZEROS: [&'static [(&'static str, ParamType)]; 2] = [
        &[("s", ParamType::F16), ("z", ParamType::Code(8))],
        &[("s", ParamType::F32), ("z", ParamType::Code(8))],
    ];
}

use Modifier::{ActOrder, Asym, Bf16Scales, EightBitActivations, StaticActivations};

/// The constant slices that a row of `W` refers to.
struct Row<W>(std::marker::PhantomData<W>);

impl<W: Width> Row<W> {
    /// Codes of 8 bits can be multiplied as they are.
    const VARIANTS: &'static [Variant] = match W::BITS {
        8 => Self::EIGHT_BIT,
        // The last four.
        _ => Self::EIGHT_BIT.split_at(Self::EIGHT_BIT.len() - 4).0,
    };

    const EIGHT_BIT: &'static [Variant] = &[
        Self::symmetric(&[]),
        Self::symmetric(&[ActOrder]),
        Self::symmetric(&[Bf16Scales]),
        Self::symmetric(&[ActOrder, Bf16Scales]),
        Self::with_zeros(&[Asym]),
        Self::with_zeros(&[Asym, ActOrder]),
        Self::with_zeros(&[Asym, Bf16Scales]),
        Self::with_zeros(&[Asym, ActOrder, Bf16Scales]),
        Self::symmetric(&[EightBitActivations]),
        Self::symmetric(&[Bf16Scales, EightBitActivations]),
        Self::symmetric(&[EightBitActivations, StaticActivations]),
        Self::symmetric(&[Bf16Scales, EightBitActivations, StaticActivations]),
    ];

    const fn symmetric(modifiers: &'static [Modifier]) -> Variant {
        let params: &'static [_] = match modifiers {
            [.., Bf16Scales] | [Bf16Scales, EightBitActivations, ..] => &[("s", ParamType::F32)],
            _ => &[("s", ParamType::F16)],
        };
        Variant { bits: W::BITS, modifiers, params, expr: W::SYMMETRIC, codebook: &[] }
    }

    const fn with_zeros(modifiers: &'static [Modifier]) -> Variant {
        let params = match modifiers {
            [.., Bf16Scales] => W::ZEROS[1],
            _ => W::ZEROS[0],
        };
        Variant { bits: W::BITS, modifiers, params, expr: "(* (- q z) s)", codebook: &[] }
    }
}

const fn row<W: Width>() -> FormatRow {
    FormatRow {
        family: W::FAMILY,
        doc: W::DOC,
        source: "compressed-tensors 0.11 and 0.20, PackedQuantizationCompressor and IntQuantizationCompressor",
        packing: "int32 [N, K*bits/32], offset binary along K; zero-points along N; int8 [N, K] for W8A8",
        names: W::NAMES,
        examples: W::EXAMPLES,
        groups: GroupNames::Rows,
        variants: Row::<W>::VARIANTS,
        anchors: &["weight_packed", "weight_scale"],
        companions: &[
            "weight",
            "weight_packed",
            "weight_shape",
            "weight_scale",
            "weight_zero_point",
            "weight_g_idx",
            "input_scale",
            "input_zero_point",
            "bias",
        ],
        claims: |module, config| Ok(layout::width(module, config)? == Some(W::BITS)),
        inspect: |module, config| layout::inspect(module, config, W::FAMILY),
        load: decode::load,
        quantize: None,
    }
}

/// 3-bit codes.
pub(crate) static INT3: FormatRow = row::<Int3>();
/// 4-bit codes.
pub(crate) static INT4: FormatRow = row::<Int4>();
/// 8-bit codes.
pub(crate) static INT8: FormatRow = row::<Int8>();

/// The widths that have a row.
const WIDTHS: [u8; 3] = [4, 8, 3];

/// How codes lie in int32 words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// One stream of bits.
    Stream,
    /// As many whole codes as fit into a word.
    Whole,
}

impl Packing {
    /// Words of `count` codes.
    fn words(self, bits: u8, count: usize) -> Option<usize> {
        match self {
            Packing::Stream => Some(count.checked_mul(bits.into())?.div_ceil(32)),
            Packing::Whole => Some(count.div_ceil(32 / usize::from(bits))),
        }
    }

    /// Code `index`.
    fn code(self, bits: u8, index: usize, word: impl Fn(usize) -> u32) -> u8 {
        match self {
            Packing::Stream => crate::stream::code(bits, index, word),
            Packing::Whole => {
                let per_word = 32 / usize::from(bits);
                let shift = usize::from(bits) * (index % per_word);
                (word(index / per_word) >> shift & ((1 << bits) - 1)) as u8
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_codes_leave_the_top_bits_of_a_word_alone() {
        let words = [0x3fff_ffff, 0b101];
        let code = |index| Packing::Whole.code(3, index, |at| words[at]);
        assert_eq!((code(0), code(9), code(10), code(11)), (7, 7, 5, 0));
        assert_eq!(Packing::Whole.words(3, 256), Some(26));
        assert_eq!(Packing::Stream.words(3, 256), Some(24));
    }

    #[test]
    fn signed_codes_read_as_offset_binary() {
        let code = |index| Packing::Stream.code(4, index, |_| 0x7654_3210);
        assert!((0..8).all(|index| usize::from(code(index)) == index));
    }
}
