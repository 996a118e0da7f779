//! NVFP4: floats of 4 bits (e2m1) with an 8-bit float (e4m3) for every 16, and a number for the layer.

use super::packed::{scales, Parts};
use super::{unsigned_zeros, E2M1_VALUES};
use crate::blocks::{self, Block, BlockCodes};
use crate::error::FormatError;
use crate::linear::{ParamValues, QuantizedLinear};
use crate::registry::{FormatRow, GroupNames, LayerHeader, Variant};
use crate::safetensors::ElementType;
use crate::small_scales::{LayerNumber, SmallScales};
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use qtune_ir::ParamType;

/// Weights that share a scale.
const SIZE: u32 = 16;
/// Bytes of their codes.
const NIBBLES: usize = SIZE as usize / 2;
/// Scales of a block of GGUF.
const SCALES: usize = 4;
/// Of the tensors of numbers for a layer: that of compressed-tensors divides, the others multiply.
const DIVISOR: &str = "weight_global_scale";
const FACTOR: &str = "weight_scale_2";
const BLOCKS_FACTORS: [&str; 2] = ["scale", "weight.scale"];

/// The registry row: of GGUF's blocks, and of the other containers.
pub(crate) static NVFP4: FormatRow = FormatRow {
    source: "ggml 0.13; compressed-tensors 0.20, NVFP4PackedCompressor; ModelOpt, NVFP4QTensor",
    packing: "uint8 [N, K/2], even column low, scales e4m3 [N, K/16], weight_global_scale or \
              weight_scale_2; GGUF blocks of 36 bytes: 4 scales, 64 nibbles",
    anchors: &["weight", "weight_packed"],
    companions: &[
        "weight",
        "weight_packed",
        "weight_scale",
        DIVISOR,
        FACTOR,
        "input_scale",
        "input_global_scale",
        "scale",
        "weight.scale",
        "bias",
    ],
    claims: |module, config| Ok(container(module).is_some() || (BLOCKS.claims)(module, config)?),
    inspect: |module, config| match container(module) {
        None => (BLOCKS.inspect)(module, config),
        Some(container) => {
            let layout = container.layout();
            Ok(container.parts(module)?.header(BLOCKS.family, layout, (BLOCKS.groups, SIZE)))
        }
    },
    load: |module, header| match container(module) {
        None => load_blocks(module, header),
        Some(container) => {
            let parts = container.parts(module)?;
            let mut scales = parts.scales.bytes.to_vec();
            let mut codes = parts.nibbles();
            move_signs(&mut scales, codes.bytes_mut());
            let values = container.values(module, &parts, scales)?;
            parts.layer(header, codes, values)
        }
    },
    ..BLOCKS
};

const BLOCKS: FormatRow = blocks::row::<TwoScales>();

/// What a layer that is not in blocks of GGUF lies in, by the library that writes it.
#[derive(Clone, Copy)]
enum Container<'a> {
    CompressedTensors(TensorRef<'a>),
    ModelOpt(TensorRef<'a>),
}

/// The container of a module; `None` for modules that are something else.
fn container<'a>(module: &Module<'a>) -> Option<Container<'a>> {
    let bytes = |suffix| module.get(suffix).filter(|t| t.stored == ElementType::U8);
    module.get("weight_scale").filter(|scale| scale.stored == ElementType::F8E4M3)?;
    let packed = bytes("weight_packed").map(Container::CompressedTensors);
    packed.or_else(|| bytes("weight").map(Container::ModelOpt))
}

impl<'a> Container<'a> {
    fn layout(self) -> &'static str {
        match self {
            Container::CompressedTensors(_) => "nvfp4-pack-quantized",
            Container::ModelOpt(_) => "modelopt",
        }
    }

    fn parts(self, module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let (Container::CompressedTensors(codes) | Container::ModelOpt(codes)) = self;
        let scales = (scales(module, "weight_packed")?, SIZE);
        Parts::matrix(codes, ElementType::U8, 2, scales, module.get("bias"))
    }

    /// The scales `[N, groups]`, of these codes, times or over that of the layer.
    fn values(
        self,
        module: &Module<'a>,
        parts: &Parts<'a>,
        codes: Vec<u8>,
    ) -> Result<ParamValues, FormatError> {
        let (name, divides) = match self {
            Container::CompressedTensors(_) => (DIVISOR, true),
            Container::ModelOpt(_) => (FACTOR, false),
        };
        let of_layer = number(&module.require(name, "weight_scale")?)?;
        let number = match divides {
            true => LayerNumber::Divisor(of_layer),
            false => LayerNumber::Factor(of_layer),
        };
        let groups = parts.k / SIZE as usize;
        if let Some(at) = parts.scales.bytes.iter().position(|code| code & NAN == NAN) {
            let (n, group) = (at / groups, at % groups);
            let problem = format!("holds NaN for output feature {n}, quant group {group}");
            return Err(parts.scales.error(problem, VALUE_REMEDY));
        }
        Ok(ParamValues::Small(SmallScales::new(codes, groups, number)))
    }
}

/// Gives the sign of a scale to the codes of its group: kernels have scales without, as hardware has (PTX ISA,
/// "ue4m3"), and no library writes others.
fn move_signs(scales: &mut [u8], codes: &mut [u8]) {
    const SIGN: u8 = 0x80;
    const SIGNS: u8 = 0x88;
    for (scale, codes) in scales.iter_mut().zip(codes.chunks_exact_mut(NIBBLES)) {
        if *scale & SIGN != 0 {
            *scale ^= SIGN;
            codes.iter_mut().for_each(|pair| *pair ^= SIGNS);
        }
    }
}

/// The bits below the sign of the scales that are no numbers.
const NAN: u8 = 0x7f;

/// The only element of a tensor, which must be a positive number.
fn number(tensor: &TensorRef<'_>) -> Result<f32, FormatError> {
    let shape_fits = matches!(tensor.shape, [] | [1]);
    if !tensor.is_float() || !shape_fits {
        let problem = format!("is {} {:?}, not one float", tensor.stored, tensor.shape);
        return Err(tensor.error(problem, EXPORT_AGAIN));
    }
    let value = tensor.floats().first().copied().unwrap_or(f32::NAN);
    match value.is_normal() && value > 0.0 {
        true => Ok(value),
        false => Err(tensor.error(format!("holds {value}"), VALUE_REMEDY)),
    }
}

/// A layer in blocks of GGUF. Converters of other containers put the number of the layer beside it.
fn load_blocks(module: &Module<'_>, header: &LayerHeader) -> Result<QuantizedLinear, FormatError> {
    let mut layer = (BLOCKS.load)(module, header)?;
    let factor = BLOCKS_FACTORS.iter().find_map(|suffix| module.get(suffix));
    if let Some(factor) = factor {
        let factor = LayerNumber::Factor(number(&factor)?);
        for param in &mut layer.params {
            if let ParamValues::Small(scales) = param.values.clone() {
                param.values = ParamValues::Small(scales.with_number(factor));
            }
        }
    }
    Ok(layer)
}

struct TwoScales;

impl Block for TwoScales {
    const FAMILY: &'static str = "nvfp4";
    const TYPE: &'static str = "NVFP4";
    const DOC: &'static str = "NVFP4, e2m1 codes with an e4m3 scale per 16 and a number per layer";
    const PACKING: &'static str = "GGUF blocks of 36 bytes: 4 scales, 64 nibbles";
    const NAME: &'static str = "nvfp4-b16";
    const GROUP: u32 = SIZE;
    const GROUPS: GroupNames = GroupNames::Block(SIZE);
    const VARIANT: Variant = Variant {
        bits: 4,
        modifiers: &[],
        params: &[("s", ParamType::E4M3)],
        expr: "(* (lookup q) s)",
        codebook: &E2M1_VALUES,
    };
    const CODES: BlockCodes = BlockCodes::Each(|block, codes| {
        unsigned_zeros(&block[SCALES..], NIBBLES, codes);
    });

    /// Scales have no sign here, and what would be NaN is 0.
    fn param(block: &[u8], _: usize, groups: &mut [u32]) {
        for (scale, code) in groups.iter_mut().zip(block) {
            *scale = match code & NAN {
                NAN => 0,
                code => code.into(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_of_a_scale_goes_to_its_codes() {
        let (mut scales, mut codes) = ([0x38, 0xb8], [0x21; 2 * NIBBLES]);
        move_signs(&mut scales, &mut codes);
        assert_eq!((scales, codes[NIBBLES - 1], codes[NIBBLES]), ([0x38; 2], 0x21, 0xa9));
    }

    #[test]
    fn scales_of_blocks_have_no_sign_and_no_nan() {
        let scale = |code: u8| {
            let mut scales = [0; SCALES];
            TwoScales::param(&[0, code, 0, 0], 0, &mut scales);
            scales[1]
        };
        assert_eq!((scale(0x38), scale(0xb8)), (0x38, 0x38));
        assert_eq!((scale(0x7e), scale(0x7f), scale(0xff)), (0x7e, 0, 0));
    }
}
