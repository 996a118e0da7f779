//! LLM.int8: bytes with the absolute maximum of every row (Dettmers et al., "LLM.int8(): 8-bit Matrix
//! Multiplication for Transformers at Scale", NeurIPS 2022).
//!
//! The library also quantizes activations while it runs, but for columns with outliers, whose weights it
//! dequantizes. Here all activations stay in 16 bits, so that no column needs that.

use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::{FormatName, Grouping};
use crate::registry::{FormatRow, GroupNames, LayerHeader, Variant};
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, VALUE_REMEDY};
use qtune_ir::{Group, ParamType};

/// The registry row.
pub(crate) static BYTES_ROW: FormatRow = FormatRow {
    family: "bnb8",
    doc: "8-bit weights of bitsandbytes (load_in_8bit) with an absmax per output channel",
    source: "Dettmers et al., 8-bit Matrix Multiplication at Scale, NeurIPS 2022 (arXiv 2208.07339); bitsandbytes 0.50",
    packing: "signed bytes [N, K]; SCB f32 [N]",
    names: "bnb8-ch",
    examples: &["bnb8-ch"],
    groups: GroupNames::Rows,
    // 1/127 as the f32 that the library multiplies by.
    variants: &[Variant {
        bits: 8,
        modifiers: &[],
        params: &[("s", ParamType::F32)],
        expr: "(* (* (- q 128) s) 0.007874015718698502)",
        codebook: &[],
    }],
    anchors: &["SCB"],
    companions: &["weight", "SCB", "weight_format", "bias"],
    claims: |_, _| Ok(true),
    inspect: |module, _| {
        let Parts { n, k, .. } = Parts::of(module)?;
        let grouping = Some(Grouping::Channel);
        let family = BYTES_ROW.family.into();
        let name = FormatName { family, bits: None, grouping, modifiers: Vec::new() };
        Ok(LayerHeader { name, layout: "rows", n, k, group: Group::Channel })
    },
    load,
    quantize: None,
};

/// The tensors of a layer.
struct Parts<'a> {
    weight: TensorRef<'a>,
    maxima: TensorRef<'a>,
    bias: Option<TensorRef<'a>>,
    n: usize,
    k: usize,
}

impl<'a> Parts<'a> {
    fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let (weight, maxima) = (module.require("weight", "SCB")?, module.require("SCB", "weight")?);
        let [n, k] = weight.matrix(ElementType::I8)?;
        weight.check_size(n, k)?;
        maxima.expect(ElementType::F32, &[n], "an absolute maximum per output feature")?;
        let tiled = |order: &TensorRef<'_>| order.bytes.iter().any(|byte| *byte != 0);
        if let Some(order) = module.get("weight_format").filter(tiled) {
            let problem = "says that the weight is in tiles of one GPU generation, not in rows";
            return Err(order.error(problem, "save the model with a current bitsandbytes"));
        }
        let bias = module.get("bias");
        bias.map_or(Ok(()), |bias| bias.check_bias(n))?;
        Ok(Parts { weight, maxima, bias, n, k })
    }
}

/// Turns a signed byte into offset binary.
const SIGN: u8 = 0x80;

/// See [`FormatRow::load`].
fn load(module: &Module<'_>, header: &LayerHeader) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let spec = BYTES_ROW.spec(&header.name)?;
    let maxima = parts.maxima.floats();
    if let Some(n) = maxima.iter().position(|value| !value.is_finite() || *value < 0.0) {
        let problem = format!("holds {} for output feature {n}", maxima[n]);
        return Err(parts.maxima.error(problem, VALUE_REMEDY));
    }
    let weight = parts.weight.keep();
    let codes = Codes::stored([parts.n, parts.k], 8, move |first, rows, stride| {
        let stored = &weight[first * stride..];
        rows.iter_mut().zip(stored).for_each(|(code, stored)| *code = stored ^ SIGN);
    });
    let named = spec.params.iter().zip([ParamValues::F32(maxima)]);
    Ok(QuantizedLinear {
        params: named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect(),
        codes,
        spec,
        n: parts.n,
        k: parts.k,
        bias: parts.bias.map(|bias| bias.bias(parts.n)).transpose()?,
        rounding: Rounding::F32Steps,
        k_order: None,
        input_scale: None,
    })
}
