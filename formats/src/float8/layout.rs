//! Whether a layer's tensors agree, and which weights a scale belongs to.

use crate::activations;
use crate::compressed_tensors::refuse_transforms;
use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::name::{FormatName, Grouping};
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::Group;

/// The tensors of a layer.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) weight: TensorRef<'a>,
    pub(super) scale: TensorRef<'a>,
    pub(super) bias: Option<TensorRef<'a>>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// The weights of one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Rows.
    pub(super) rows: usize,
    /// Weights of a row.
    pub(super) group: Group,
}

/// The block size of the checkpoints that do not state one.
const USUAL: [usize; 2] = [128, 128];

/// The tensor of scales.
fn scale<'a>(module: &Module<'a>) -> Option<TensorRef<'a>> {
    let found = module.get("weight_scale_inv").or_else(|| module.get("weight_scale"));
    found.filter(|scale| scale.is_float() || scale.stored == ElementType::F8E8M0)
}

/// See [`crate::FormatRow::claims`].
pub(super) fn claims(module: &Module<'_>) -> bool {
    let is_float8 = |weight: TensorRef<'_>| weight.stored == ElementType::F8E4M3;
    module.get("weight").is_some_and(is_float8) && scale(module).is_some()
}

impl<'a> Parts<'a> {
    /// The tensors of a module that the format claims.
    pub(super) fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let weight = module.require("weight", "weight_scale")?;
        let [n, k] = weight.matrix(ElementType::F8E4M3)?;
        weight.check_size(n, k)?;
        let scale = match scale(module) {
            Some(scale) => scale,
            None => module.require("weight_scale", "weight")?,
        };
        Ok(Parts { weight, scale, bias: module.get("bias"), n, k })
    }

    /// What a scale belongs to, from the shape of their tensor and what the configuration states.
    pub(super) fn block(&self, config: Option<&QuantConfig>) -> Result<Block, FormatError> {
        let (n, k) = (self.n, self.k);
        let [rows, groups] = match *self.scale.shape {
            [] | [1] | [1, 1] => return Ok(Block { rows: n, group: Group::Channel }),
            [rows] | [rows, 1] if rows == n => return Ok(Block { rows: 1, group: Group::Channel }),
            [rows, groups] if rows > 0 && groups > 0 => [rows, groups],
            ref shape => {
                let problem = format!("is {shape:?}, not scales of {n} x {k} weights");
                return Err(self.scale.error(problem, EXPORT_AGAIN));
            }
        };
        let fits = |size: &[usize; 2]| [n.div_ceil(size[0]), k.div_ceil(size[1])] == [rows, groups];
        let even = || {
            let width = (k % groups == 0).then(|| k / groups)?;
            Some([rows_of_scale(n, rows, width)?, width])
        };
        let size = stated(config).chain([USUAL]).find(fits).or_else(even);
        let [height, width] = size.ok_or_else(|| {
            let problem =
                format!("has {rows} x {groups} scales, in which {n} x {k} weights do not fall");
            self.scale.error(problem, "state weight_block_size in the configuration")
        })?;
        if rows_of_scale(n, rows, width) != Some(height) {
            let problem =
                format!("is for blocks of {height} x {width} weights, which are not read");
            return Err(self.scale.error(problem, "use a checkpoint with square blocks"));
        }
        // Sizes fit 32 bits as the weight's and those of the configuration do.
        Ok(Block { rows: height, group: Group::Size(width as u32) })
    }
}

/// How many of `n` rows of weights share one of `rows` rows of scales, in blocks so wide: all, one, as
/// many as the block is wide, or else equally many. What holds of a layer without its configuration.
pub(super) fn rows_of_scale(n: usize, rows: usize, width: usize) -> Option<usize> {
    match rows {
        1 => Some(n),
        _ if rows == n => Some(1),
        _ if n.div_ceil(width) == rows => Some(width),
        _ => (n % rows == 0).then(|| n / rows),
    }
}

/// The block sizes that a configuration states.
fn stated(config: Option<&QuantConfig>) -> impl Iterator<Item = [usize; 2]> + '_ {
    let groups = config.into_iter().flat_map(|config| config.children("config_groups"));
    let of_group = groups.filter_map(|group| group.get("weights")?.get("block_structure"));
    let plain = config.and_then(|config| config.value("weight_block_size"));
    plain.into_iter().chain(of_group).filter_map(|size| {
        let number = |at: usize| u32::try_from(size.get(at)?.as_u64()?).ok().filter(|n| *n > 0);
        Some([number(0)? as usize, number(1)? as usize])
    })
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
    family: &str,
) -> Result<LayerHeader, FormatError> {
    config.map_or(Ok(()), refuse_transforms)?;
    let parts = Parts::of(module)?;
    let block = parts.block(config)?;
    parts.bias.map_or(Ok(()), |bias| bias.check_bias(parts.n))?;
    let mut name = FormatName {
        family: family.into(),
        bits: None,
        grouping: Some(Grouping::from(block.group)),
        modifiers: Vec::new(),
    };
    name.modifiers.extend(activations::modifiers(module, config, ("float", block.group))?);
    Ok(LayerHeader {
        name,
        layout: layout(block.rows, parts.n),
        n: parts.n,
        k: parts.k,
        group: block.group,
    })
}

/// What scales of so many of `n` rows are called.
fn layout(rows: usize, n: usize) -> &'static str {
    match rows {
        1 => "a scale per row",
        _ if rows == n => "a scale per tensor",
        _ => "a scale per block",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_blocks_are_square_before_they_are_even() {
        assert_eq!(rows_of_scale(192, 2, 128), Some(128));
        assert_eq!(rows_of_scale(192, 2, 64), Some(96));
        assert_eq!(rows_of_scale(192, 192, 128), Some(1));
        assert_eq!(rows_of_scale(192, 1, 128), Some(192));
        assert_eq!(rows_of_scale(192, 5, 128), None);
    }
}
