//! Whether a layer's tensors agree, and where a weight's code and parameters are.

use crate::error::FormatError;
use crate::name::{FormatName, Grouping, Modifier};
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::Group;

/// The tensors of a layer and what they say of themselves.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) codes: TensorRef<'a>,
    pub(super) scale: TensorRef<'a>,
    pub(super) zero: TensorRef<'a>,
    pub(super) bias: Option<TensorRef<'a>>,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) bits: u8,
    /// The matrix of groups.
    pub(super) groups: Groups,
}

/// The regrouped matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    /// Rows, before they are packed.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Whether a group is a row of it.
    pub(super) in_rows: bool,
}

impl Groups {
    /// The group of a weight, by its place in the flattened matrix.
    pub(super) fn of(self, at: usize) -> usize {
        if self.in_rows {
            at / self.columns
        } else {
            at % self.columns
        }
    }

    /// Which weights of a layer of `k` columns surely share a group: those of as many rows where each row of
    /// the regrouped matrix is rows of the layer. Sizes divide the weights of a layer, which has less than 2^32
    /// columns and rows.
    fn group(self, k: usize) -> Group {
        if self.in_rows {
            return match greatest_divisor(k, self.columns) {
                run if run == k => Group::Channel,
                run => Group::Size(run as u32),
            };
        }
        match self.columns % k {
            0 => Group::Rows(self.rows as u32),
            _ => Group::Size(1),
        }
    }
}

/// The greatest common divisor.
fn greatest_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => greatest_divisor(b, a % b),
    }
}

/// How many codes an element has, and how wide it is in bytes; nothing for widths that are not read.
pub(super) fn packing(bits: u8) -> Option<(usize, usize)> {
    match bits {
        2 | 4 | 8 => Some((8 / usize::from(bits), 1)),
        3 => Some((10, 4)),
        _ => None,
    }
}

impl<'a> Parts<'a> {
    pub(super) fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let require = |suffix| module.require(suffix, "W_q");
        let (codes, scale, zero) = (require("W_q")?, require("scale")?, require("zero")?);
        for flag in ["quant_scale", "quant_zero"] {
            let Some(flag) = module.get(flag) else { continue };
            if flag.bytes.iter().any(|byte| *byte != 0) {
                let problem =
                    "says that the parameters are quantized themselves, as old releases did";
                return Err(flag.error(problem, "export the checkpoint with hqq 0.2 or later"));
            }
        }
        let [n, k] = require("shape")?.sizes()?;
        codes.check_size(n, k)?;
        let width = require("nbits")?;
        let bits = width.integer()?;
        let known = u8::try_from(bits).ok().filter(|bits| packing(*bits).is_some());
        let bits = known.ok_or_else(|| {
            width.error(format!("asks for {bits} bits"), "quantize the model to 2, 3, 4 or 8 bits")
        })?;
        let groups = groups(module, &scale, n, k)?;
        let parts = Parts { codes, scale, zero, bias: module.get("bias"), n, k, bits, groups };
        parts.check()?;
        Ok(parts)
    }

    /// Checks types and sizes of the tensors.
    fn check(&self) -> Result<(), FormatError> {
        let Parts { codes, scale, zero, groups, .. } = *self;
        if zero.stored != scale.stored || zero.shape != scale.shape {
            let (has, shape) = (zero.stored, zero.shape);
            let problem = format!("is {has} {shape:?}, unlike the scales");
            return Err(zero.error(problem, EXPORT_AGAIN));
        }
        // `bits` has been checked to be of a packing.
        let (parts, bytes) = packing(self.bits).unwrap_or((1, 1));
        let rows = groups.rows.div_ceil(parts);
        let wanted = rows.checked_mul(groups.columns).and_then(|count| count.checked_mul(bytes));
        let even = self.bits == 3 || groups.rows % parts == 0;
        if !even || wanted != Some(codes.bytes.len()) {
            let (rows, columns) = (groups.rows, groups.columns);
            let problem = format!(
                "has {} bytes, which hold no {rows} x {columns} codes of {} bits",
                codes.bytes.len(),
                self.bits
            );
            return Err(codes.error(problem, EXPORT_AGAIN));
        }
        self.bias.map_or(Ok(()), |bias| bias.check_bias(self.n))
    }
}

/// The matrix of groups, of which there are as many as scales, all of 16 bits.
fn groups(
    module: &Module<'_>,
    scale: &TensorRef<'_>,
    n: usize,
    k: usize,
) -> Result<Groups, FormatError> {
    if scale.stored != ElementType::F16 && scale.stored != ElementType::Bf16 {
        let problem = format!("is {}, not F16 or BF16", scale.stored);
        return Err(scale.error(problem, "quantize with a 16-bit compute_dtype"));
    }
    let axis = module.get("axis").map_or(Ok(1), |axis| axis.integer())?;
    let count = scale.bytes.len() / 2;
    let size = n.checked_mul(k).filter(|weights| count > 0 && weights % count == 0);
    let Some(size) = size.map(|weights| weights / count) else {
        let problem = format!("holds {count} scales, which do not divide {n} x {k} weights");
        return Err(scale.error(problem, EXPORT_AGAIN));
    };
    if let Some(stated) = module.get("group_size").map(|size| size.integer()).transpose()? {
        if usize::try_from(stated).ok() != Some(size) {
            let problem =
                format!("holds {count} scales, not one per {stated} of {n} x {k} weights");
            return Err(scale.error(problem, EXPORT_AGAIN));
        }
    }
    match axis {
        0 => Ok(Groups { rows: size, columns: count, in_rows: false }),
        1 => Ok(Groups { rows: count, columns: size, in_rows: true }),
        _ => Err(module
            .require("axis", "W_q")?
            .error(format!("is {axis}, not 0 or 1"), EXPORT_AGAIN)),
    }
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(module: &Module<'_>, family: &str) -> Result<LayerHeader, FormatError> {
    let parts = Parts::of(module)?;
    let (n, k) = (parts.n, parts.k);
    let group = parts.groups.group(k);
    let is_bf16 = parts.scale.stored == ElementType::Bf16;
    let modifiers = [
        is_bf16.then_some(Modifier::Bf16Scales),
        matches!(group, Group::Rows(_)).then_some(Modifier::AcrossRows),
    ];
    let name = FormatName {
        family: family.into(),
        bits: Some(parts.bits),
        grouping: Some(Grouping::from(group)),
        modifiers: modifiers.into_iter().flatten().collect(),
    };
    let layout = if parts.groups.in_rows { "axis 1" } else { "axis 0" };
    Ok(LayerHeader { name, layout, n, k, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_rows_are_cut_where_rows_of_the_layer_end() {
        let groups = Groups { rows: 9, columns: 64, in_rows: true };
        assert_eq!(
            [128, 96, 64].map(|k| groups.group(k)),
            [Group::Size(64), Group::Size(32), Group::Channel]
        );
        assert_eq!((groups.of(63), groups.of(64)), (0, 1));
        let across = Groups { rows: 64, columns: 9, in_rows: false };
        assert_eq!((across.group(128), across.of(8), across.of(9)), (Group::Size(1), 8, 0));
        assert_eq!([across.group(9), across.group(3)], [Group::Rows(64), Group::Rows(64)]);
    }
}
