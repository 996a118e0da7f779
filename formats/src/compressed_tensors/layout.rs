//! Whether a layer's tensors agree, and what they say about it.

use super::scheme::Scheme;
use super::{Packing, WIDTHS};
use crate::activations;
use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::name::{FormatName, Grouping, Modifier};
use crate::order;
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::Group;

/// The tensors of a layer.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) weight: Weight<'a>,
    pub(super) scale: TensorRef<'a>,
    pub(super) zeros: Option<TensorRef<'a>>,
    pub(super) g_idx: Option<TensorRef<'a>>,
    pub(super) bias: Option<TensorRef<'a>>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// The codes.
#[derive(Clone, Copy)]
pub(super) enum Weight<'a> {
    /// In int32 words.
    Packed(TensorRef<'a>),
    /// One int8 each.
    Bytes(TensorRef<'a>),
}

impl<'a> Parts<'a> {
    /// The tensors of a module that [`is_integer`].
    pub(super) fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let (weight, [n, k]) = match module.get("weight_packed") {
            Some(packed) => {
                let shape = module.require("weight_shape", "weight_packed")?;
                (Weight::Packed(packed), shape.sizes()?)
            }
            None => {
                let weight = module.require("weight", "weight_scale")?;
                (Weight::Bytes(weight), weight.matrix(ElementType::I8)?)
            }
        };
        let codes = weight.tensor();
        codes.check_size(n, k)?;
        Ok(Parts {
            weight,
            scale: module.require("weight_scale", "weight_packed")?,
            zeros: module.get("weight_zero_point"),
            g_idx: module.get("weight_g_idx").filter(assigns_groups),
            bias: module.get("bias"),
            n,
            k,
        })
    }

    /// Scales of a row: quant groups, or 1.
    pub(super) fn groups(&self) -> Result<usize, FormatError> {
        match self.scale.shape {
            [] | [1] => Ok(1),
            [rows, groups] if (*rows == self.n || *rows == 1) && (1..=self.k).contains(groups) => {
                Ok(*groups)
            }
            shape => {
                let problem =
                    format!("is {shape:?} where N = {} rows of scales are needed", self.n);
                Err(self.scale.error(problem, EXPORT_AGAIN))
            }
        }
    }
}

impl<'a> Weight<'a> {
    /// The tensor that holds them.
    pub(super) fn tensor(&self) -> &TensorRef<'a> {
        match self {
            Weight::Packed(tensor) | Weight::Bytes(tensor) => tensor,
        }
    }
}

/// Whether a `weight_g_idx` says anything: -1 everywhere stands for columns in order.
fn assigns_groups(g_idx: &TensorRef<'_>) -> bool {
    g_idx.bytes.iter().any(|byte| *byte != 0xff)
}

/// Bits per code of a module that holds integers of a width with a row; `None` for other modules.
pub(super) fn width(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
) -> Result<Option<u8>, FormatError> {
    let is = |suffix, element| module.get(suffix).is_some_and(|t| t.stored == element);
    if is("weight_packed", ElementType::I32) {
        let parts = Parts::of(module)?;
        return Ok(packing(&parts, config)?.map(|(bits, _)| bits));
    }
    let bytes = is("weight", ElementType::I8) && module.get("weight_scale").is_some();
    Ok(bytes.then_some(8))
}

/// Width and packing at which K codes fill the words of a row. A configuration with one width
/// settles what a short row leaves open.
fn packing(
    parts: &Parts<'_>,
    config: Option<&QuantConfig>,
) -> Result<Option<(u8, Packing)>, FormatError> {
    let scheme = Scheme::read(config)?;
    let packed = parts.weight.tensor();
    let [_, words] = packed.matrix(ElementType::I32)?;
    let said = |bits: &u8| scheme.widths.is_empty() || scheme.widths.contains(&(*bits).into());
    let fits = |packing: Packing| {
        let mut widths = WIDTHS.into_iter().filter(said);
        let bits = widths.find(|bits| packing.words(*bits, parts.k) == Some(words))?;
        Some((bits, packing))
    };
    Ok(fits(Packing::Stream).or_else(|| fits(Packing::Whole)))
}

/// The names of the packings.
const PACKED: &str = "pack-quantized";
const PACKED_WHOLE: &str = "pack-quantized, whole codes per word";
const BYTES: &str = "int-quantized";

/// The packing that [`LayerHeader::layout`] names.
pub(super) fn packing_named(layout: &str) -> Packing {
    match layout {
        PACKED_WHOLE => Packing::Whole,
        _ => Packing::Stream,
    }
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
    family: &str,
) -> Result<LayerHeader, FormatError> {
    let parts = Parts::of(module)?;
    let (bits, layout) = match parts.weight {
        Weight::Bytes(_) => (8, BYTES),
        Weight::Packed(packed) => match packing(&parts, config)? {
            Some((bits, Packing::Stream)) => (bits, PACKED),
            Some((bits, Packing::Whole)) => (bits, PACKED_WHOLE),
            None => {
                let problem = format!("holds K = {} codes of no width that is read", parts.k);
                return Err(packed.error(problem, EXPORT_AGAIN));
            }
        },
    };
    let groups = parts.groups()?;
    check_companions(&parts, bits, groups, packing_named(layout))?;
    let group = group(&parts, groups, config)?;
    let mut name = FormatName {
        family: family.into(),
        bits: None,
        grouping: Some(Grouping::from(group)),
        modifiers: Vec::new(),
    };
    let modifiers = [
        (Modifier::Asym, parts.zeros.is_some()),
        (Modifier::ActOrder, k_order(&parts, groups, group)?.is_some()),
        (Modifier::Bf16Scales, parts.scale.stored == ElementType::Bf16),
    ];
    name.modifiers.extend(modifiers.into_iter().filter(|(_, has)| *has).map(|(m, _)| m));
    let as_they_are = layout == BYTES && parts.zeros.is_none() && group == Group::Channel;
    if as_they_are {
        name.modifiers.extend(activations::modifiers(module, config, ("int", group))?);
    }
    Ok(LayerHeader { name, layout, n: parts.n, k: parts.k, group })
}

/// Checks types and shapes of the tensors beside the scales.
fn check_companions(
    parts: &Parts<'_>,
    bits: u8,
    groups: usize,
    packing: Packing,
) -> Result<(), FormatError> {
    let Parts { n, k, scale, .. } = *parts;
    if scale.stored != ElementType::F16 && scale.stored != ElementType::Bf16 {
        let problem = format!("is {}, not F16 or BF16", scale.stored);
        return Err(scale.error(problem, "store the model in a 16-bit type"));
    }
    if let Weight::Packed(packed) = parts.weight {
        let words = packed.matrix(ElementType::I32)?[1];
        packed.expect(ElementType::I32, &[n, words], "a row of codes per output feature")?;
    }
    if let Some(zeros) = &parts.zeros {
        match parts.weight {
            Weight::Packed(_) => {
                let rows = packing.words(bits, n).unwrap_or(0);
                let because = "zero-points packed along N";
                zeros.expect(ElementType::I32, &[rows, groups], because)?;
            }
            Weight::Bytes(_) => {
                zeros.expect(ElementType::I8, scale.shape, "a zero-point per scale")?;
            }
        }
    }
    if let Some(g_idx) = &parts.g_idx {
        g_idx.expect(ElementType::I32, &[k], "a quant group per input feature")?;
    }
    parts.bias.map_or(Ok(()), |bias| bias.check_bias(n))
}

/// The quant group: the configuration's if it gives as many scales as there are, else even groups.
fn group(
    parts: &Parts<'_>,
    groups: usize,
    config: Option<&QuantConfig>,
) -> Result<Group, FormatError> {
    if groups == 1 {
        return Ok(Group::Channel);
    }
    let fits = |size: &u32| parts.k.div_ceil(*size as usize) == groups;
    let size = Scheme::read(config)?.group.filter(fits);
    let even = (parts.k % groups == 0).then(|| (parts.k / groups) as u32);
    size.or(even).map(Group::Size).ok_or_else(|| {
        let problem = format!("has {groups} columns, which do not divide K = {}", parts.k);
        parts.scale.error(problem, "state group_size in the configuration")
    })
}

/// The order of a layer's columns, where it has one: see [`order::k_order`].
pub(super) fn k_order(
    parts: &Parts<'_>,
    groups: usize,
    group: Group,
) -> Result<Option<Vec<u32>>, FormatError> {
    let Some(g_idx) = &parts.g_idx else { return Ok(None) };
    let size = match group {
        Group::Size(size) => size as usize,
        Group::Channel | Group::Rows(_) => parts.k,
    };
    order::k_order(g_idx, groups, size)
}
