//! GPTQ: codes fitted column by column against the Hessian; 2, 3, 4 or 8 bits.
//!
//! Paper: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers", ICLR 2023. The bytes are those of AutoGPTQ and GPTQModel: codes packed along K,
//! zero-points along N, both as a stream that fills 32-bit words from the lowest bit (3-bit codes
//! cross words).
//!
//! - Symmetric layers have the zero-point `2^(bits-1)` everywhere, so it is part of the expression
//!   and the stored zero-points are only checked. Others are called `-asym`.
//! - What a stored zero-point means depends on who wrote it: see `zeros`.
//! - Layers that were packed for Marlin's kernel have other tensors: see `marlin`.
//! - With act-order (`desc_act`), `g_idx` assigns columns to quant groups in the order in which they
//!   were quantized. The decoded layer has its columns sorted by group and says so in
//!   [`crate::QuantizedLinear::k_order`]. Whether a layer is so is read off `g_idx`, never off the
//!   configuration.

mod decode;
mod layout;
mod marlin;
mod settings;
mod zeros;

use crate::name::Modifier;
use crate::registry::{FormatRow, GroupNames, Variant};
use qtune_ir::ParamType;

const SCALE: (&str, ParamType) = ("s", ParamType::F16);

/// A layer with zero-points.
const fn asymmetric(bits: u8, modifiers: &'static [Modifier]) -> Variant {
    let params: &'static [_] = match bits {
        2 => &[SCALE, ("z", ParamType::Code(2))],
        3 => &[SCALE, ("z", ParamType::Code(3))],
        4 => &[SCALE, ("z", ParamType::Code(4))],
        _ => &[SCALE, ("z", ParamType::Code(8))],
    };
    Variant { bits, modifiers, params, expr: "(* (- q z) s)", codebook: &[] }
}

/// A layer whose zero-points are all `2^(bits-1)`.
const fn symmetric(bits: u8, modifiers: &'static [Modifier]) -> Variant {
    let expr = match bits {
        2 => "(* (- q 2) s)",
        3 => "(* (- q 4) s)",
        4 => "(* (- q 8) s)",
        _ => "(* (- q 128) s)",
    };
    Variant { bits, modifiers, params: &[SCALE], expr, codebook: &[] }
}

const ACT_ORDER: &[Modifier] = &[Modifier::ActOrder];
const ASYM: &[Modifier] = &[Modifier::Asym];
const ASYM_ACT_ORDER: &[Modifier] = &[Modifier::Asym, Modifier::ActOrder];

/// The registry row.
pub(crate) static ROW: FormatRow = FormatRow {
    family: "gptq",
    doc: "GPTQ, 2-, 3-, 4- or 8-bit codes, symmetric or with zero-points (AutoGPTQ, GPTQModel)",
    source: "Frantar et al., GPTQ, ICLR 2023 (arXiv 2210.17323); AutoGPTQ 0.7, GPTQModel 2.2",
    packing: "int32 [K*bits/32, N], natural order along K; zero-points v1 (minus one) and v2; \
              Marlin's tiles, int32 [K/16, 2N]",
    names: "gptq[-w2|-w3|-w8]-g<SIZE> | gptq-ch, + -asym with zero-points, + -actorder",
    examples: &[
        "gptq-g128",
        "gptq-g64",
        "gptq-g32",
        "gptq-ch",
        "gptq-g128-asym",
        "gptq-g128-actorder",
        "gptq-w2-g64",
        "gptq-w3-g128",
        "gptq-w8-g128",
        "gptq-w8-ch-asym",
    ],
    groups: GroupNames::Rows,
    variants: &[
        symmetric(4, &[]),
        symmetric(4, ACT_ORDER),
        asymmetric(4, ASYM),
        asymmetric(4, ASYM_ACT_ORDER),
        symmetric(2, &[]),
        symmetric(2, ACT_ORDER),
        asymmetric(2, ASYM),
        asymmetric(2, ASYM_ACT_ORDER),
        symmetric(3, &[]),
        symmetric(3, ACT_ORDER),
        asymmetric(3, ASYM),
        asymmetric(3, ASYM_ACT_ORDER),
        symmetric(8, &[]),
        symmetric(8, ACT_ORDER),
        asymmetric(8, ASYM),
        asymmetric(8, ASYM_ACT_ORDER),
    ],
    anchors: &["qweight", "qzeros", "g_idx", "B"],
    companions: &["qweight", "qzeros", "scales", "g_idx", "bias", "B", "s", "workspace"],
    claims: |module, _| Ok(layout::claims(module) || marlin::claims(module)),
    inspect: |module, config| match marlin::claims(module) {
        true => marlin::inspect(module, config),
        false => layout::inspect(module, config),
    },
    load: |module, header| match header.layout {
        marlin::LAYOUT => marlin::load(module, header),
        _ => decode::load(module, header),
    },
    quantize: None,
};

#[cfg(test)]
mod tests {
    #[test]
    fn every_width_resolves_with_and_without_zero_points_and_act_order() {
        for bits in ["", "-w2", "-w3", "-w8"] {
            for (modifiers, params) in [("", 1), ("-asym", 2), ("-actorder", 1)] {
                let name = format!("gptq{bits}-g64{modifiers}");
                let spec = crate::resolve(&name).unwrap();
                assert_eq!((spec.name, spec.params.len()), (name, params));
            }
        }
        assert!(crate::resolve("gptq-w5-g64").unwrap_err().to_string().contains("no such width"));
    }
}
