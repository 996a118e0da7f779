//! MXFP4: floats of 4 bits (e2m1) with a power of two for every 32.

use super::packed::{is_exponents, scales, Parts};
use super::{unsigned_zeros, E2M1_CODEBOOK, SIZE};
use crate::blocks::{self, Block, BlockCodes};
use crate::error::FormatError;
use crate::registry::{FormatRow, GroupNames, Variant};
use crate::safetensors::ElementType;
use crate::tensors::{power_of_two, Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::ParamType;

/// Codes are doubled values, so scales are halved.
const BIAS: i32 = 128;
/// Bytes of the codes of a block.
const NIBBLES: usize = SIZE as usize / 2;

/// The registry row: of GGUF's blocks, and of the other containers.
pub(crate) static MXFP4: FormatRow = FormatRow {
    source:
        "OCP Microscaling Formats 1.0; ggml 0.13; compressed-tensors 0.20, MXFP4PackedCompressor; \
             transformers 4.57, integrations/mxfp4.py",
    packing:
        "GGUF blocks of 17 bytes: exponent e8m0, 32 nibbles; uint8 [N, K/2], even column low, \
              exponents [N, K/32]; gpt-oss blocks of stacked experts",
    anchors: &["weight", "weight_packed", "_blocks"],
    companions: &["weight", "weight_packed", "weight_scale", "bias", "_blocks", "_scales", "_bias"],
    claims: |module, config| Ok(container(module).is_some() || (BLOCKS.claims)(module, config)?),
    inspect: |module, config| match container(module) {
        None => (BLOCKS.inspect)(module, config),
        Some(container) => {
            let layout = container.layout();
            Ok(container.parts(module)?.header(BLOCKS.family, layout, (BLOCKS.groups, SIZE)))
        }
    },
    load: |module, header| match container(module) {
        None => (BLOCKS.load)(module, header),
        Some(container) => {
            let parts = container.parts(module)?;
            parts.layer(header, parts.nibbles(), parts.powers(BIAS)?)
        }
    },
    ..BLOCKS
};

const BLOCKS: FormatRow = blocks::row::<Microscaling>();

/// What a layer that is not in blocks of GGUF lies in.
#[derive(Clone, Copy)]
enum Container<'a> {
    /// `weight_packed`.
    Packed(TensorRef<'a>),
    /// `_blocks` of stacked experts.
    Experts(TensorRef<'a>),
}

/// The container of a module; `None` for modules that are something else.
fn container<'a>(module: &Module<'a>) -> Option<Container<'a>> {
    let bytes = |suffix| module.get(suffix).filter(|t| t.stored == ElementType::U8);
    if let Some(blocks) = bytes("_blocks") {
        return Some(Container::Experts(blocks));
    }
    module.get("weight_scale").filter(is_exponents)?;
    bytes("weight_packed").map(Container::Packed)
}

impl<'a> Container<'a> {
    fn layout(self) -> &'static str {
        match self {
            Container::Packed(_) => "mxfp4-pack-quantized",
            Container::Experts(_) => "experts",
        }
    }

    fn parts(self, module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        match self {
            Container::Packed(codes) => {
                let scales = (scales(module, "weight_packed")?, SIZE);
                Parts::matrix(codes, ElementType::U8, 2, scales, module.get("bias"))
            }
            Container::Experts(codes) => experts(module, codes),
        }
    }
}

/// Blocks `[E, rows, K/32, 16]` of the stacked matrices of experts.
fn experts<'a>(module: &Module<'a>, codes: TensorRef<'a>) -> Result<Parts<'a>, FormatError> {
    let [outer @ .., groups, NIBBLES] = codes.shape else {
        let problem = format!("is {:?}, not blocks of {NIBBLES} bytes", codes.shape);
        return Err(codes.error(problem, EXPORT_AGAIN));
    };
    let (n, k) = (
        outer.iter().fold(1, |n: usize, size| n.saturating_mul(*size)),
        groups.saturating_mul(SIZE as usize),
    );
    codes.check_size(n, k)?;
    let scales = module.require("_scales", "_blocks")?;
    let wanted = &codes.shape[..codes.shape.len() - 1];
    if !is_exponents(&scales) || scales.shape != wanted {
        let (has, shape) = (scales.stored, scales.shape);
        let problem = format!("is {has} {shape:?} where a byte per block is needed, {wanted:?}");
        return Err(scales.error(problem, EXPORT_AGAIN));
    }
    let bias = module.get("_bias");
    bias.map_or(Ok(()), |bias| bias.check_bias(n))?;
    Ok(Parts { codes, scales, bias, n, k })
}

struct Microscaling;

impl Block for Microscaling {
    const FAMILY: &'static str = "mxfp4";
    const TYPE: &'static str = "MXFP4";
    const DOC: &'static str = "MXFP4, e2m1 codes with a power of two per 32";
    const PACKING: &'static str = "GGUF blocks of 17 bytes: exponent e8m0, 32 nibbles";
    const NAME: &'static str = "mxfp4-b32";
    const GROUP: u32 = SIZE;
    const GROUPS: GroupNames = GroupNames::Block(SIZE);
    const VARIANT: Variant = Variant {
        bits: 4,
        modifiers: &[],
        params: &[("s", ParamType::E8M0)],
        expr: "(* (lookup q) s)",
        codebook: &E2M1_CODEBOOK,
    };
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        unsigned_zeros(&block[1..], NIBBLES, codes);
    });

    fn param(block: &[u8], _: usize, groups: &mut [u32]) {
        groups.fill(power_of_two(block[0], BIAS).to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_of_microscaling_are_powers_of_two_down_to_subnormals() {
        let scale = |exponent: u8| {
            let mut scale = [0];
            Microscaling::param(&[exponent], 0, &mut scale);
            f32::from_bits(scale[0])
        };
        for exponent in 0..=254u8 {
            let scale = scale(exponent);
            assert_eq!(f64::from(scale), 2f64.powi(i32::from(exponent) - BIAS));
        }
        assert!(scale(255).is_nan());
    }
}
