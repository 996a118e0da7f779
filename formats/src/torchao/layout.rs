//! Whether a layer's tensors agree, with each other and with what the file says of the layer.

use crate::error::FormatError;
use crate::name::{FormatName, Grouping};
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::Group;

/// The tensors of a layer.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) codes: TensorRef<'a>,
    pub(super) params: Params<'a>,
    pub(super) bias: Option<TensorRef<'a>>,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Output features with padding.
    pub(super) padded_n: usize,
    pub(super) group: usize,
}

/// Scales and offsets, `[K/g, N]`.
#[derive(Clone, Copy)]
pub(super) enum Params<'a> {
    /// Of a plain layer.
    Apart { scale: TensorRef<'a>, zero: TensorRef<'a> },
    /// Of one in tiles, by turns.
    Joint(TensorRef<'a>),
}

/// Output features of a tile, and input features of those that lie in one word's reach.
pub(super) const TILE_N: usize = 8;
pub(super) const TILE_K: usize = 128;
/// Lanes, and words of each, of a tile.
pub(super) const TILE: [usize; 2] = [32, 4];

/// What the names of the parts start with.
const STYLES: [&str; 2] = ["weight:", "._weight_"];

/// The tensor of codes, and what its name starts with.
fn codes<'a>(module: &Module<'a>) -> Option<(TensorRef<'a>, &'static str)> {
    STYLES.iter().find_map(|style| Some((module.get(&format!("{style}qdata"))?, *style)))
}

/// See [`crate::FormatRow::claims`]. Other classes of the library also keep `qdata`.
pub(super) fn claims(module: &Module<'_>) -> bool {
    codes(module).is_some_and(|(codes, style)| {
        let has = |part: &str| module.get(&format!("{style}{part}")).is_some();
        match codes.stored == ElementType::I32 {
            true => has("scale_and_zero"),
            false => has("zero_point") && codes.shape.len() == 2,
        }
    })
}

impl<'a> Parts<'a> {
    pub(super) fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let Some((codes, style)) = codes(module) else {
            return Err(module.require("weight:qdata", "bias").err().unwrap_or_else(|| {
                FormatError::NoSuchLayer {
                    path: module.path.into(),
                    layer: module.path.into(),
                    problem: "has no codes".into(),
                    remedy: EXPORT_AGAIN.into(),
                }
            }));
        };
        let part = |name: &str| module.require(&format!("{style}{name}"), &format!("{style}qdata"));
        let parts = match codes.stored == ElementType::I32 {
            true => Parts::tiles(module, codes, part("scale_and_zero")?)?,
            false => Parts::plain(module, codes, part("scale")?, part("zero_point")?)?,
        };
        parts.bias.map_or(Ok(()), |bias| bias.check_bias(parts.n))?;
        Ok(parts)
    }

    fn plain(
        module: &Module<'a>,
        codes: TensorRef<'a>,
        scale: TensorRef<'a>,
        zero: TensorRef<'a>,
    ) -> Result<Parts<'a>, FormatError> {
        let bytes = codes.stored == ElementType::I8 || codes.stored == ElementType::U8;
        let &[n, half] = codes.shape else {
            return Err(codes.error(format!("is {:?}, no matrix", codes.shape), EXPORT_AGAIN));
        };
        let k = half.saturating_mul(2);
        codes.check_size(n, k)?;
        if !bytes {
            return Err(codes.error(format!("is {}, not bytes", codes.stored), EXPORT_AGAIN));
        }
        let group = group(&scale, k, n, &[])?;
        if !scale.is_float() || zero.stored != scale.stored || zero.shape != scale.shape {
            let (has, shape) = (zero.stored, zero.shape);
            let problem =
                format!("is {has} {shape:?} beside scales {} {:?}", scale.stored, scale.shape);
            return Err(zero.error(problem, EXPORT_AGAIN));
        }
        let params = Params::Apart { scale, zero };
        Ok(Parts { codes, params, bias: module.get("bias"), n, k, padded_n: n, group })
    }

    fn tiles(
        module: &Module<'a>,
        codes: TensorRef<'a>,
        joint: TensorRef<'a>,
    ) -> Result<Parts<'a>, FormatError> {
        let &[tiles_n, tiles_k, lanes, words] = codes.shape else {
            return Err(codes.error(format!("is {:?}, not in tiles", codes.shape), EXPORT_AGAIN));
        };
        if [lanes, words] != TILE {
            let problem = format!("has tiles of {lanes} x {words} words, not of 32 x 4");
            return Err(codes.error(problem, "quantize with inner_k_tiles 8"));
        }
        let (padded_n, padded_k) = (tiles_n.saturating_mul(TILE_N), tiles_k.saturating_mul(TILE_K));
        codes.check_size(padded_n, padded_k)?;
        let [n, k] = logical_shape(module, &codes)?;
        codes.check_size(n, k)?;
        if n > padded_n || k > padded_k {
            let problem =
                format!("holds {padded_n} x {padded_k} codes, and the file says {n} x {k}");
            return Err(codes.error(problem, EXPORT_AGAIN));
        }
        let group = group(&joint, padded_k, padded_n, &[2])?;
        if !joint.is_float() {
            return Err(joint.error(format!("is {}, no float", joint.stored), EXPORT_AGAIN));
        }
        let params = Params::Joint(joint);
        Ok(Parts { codes, params, bias: module.get("bias"), n, k, padded_n, group })
    }
}

/// Weights of a group, of which a tensor `[K/g, N, ...]` has a row each.
fn group(
    tensor: &TensorRef<'_>,
    k: usize,
    n: usize,
    inner: &[usize],
) -> Result<usize, FormatError> {
    match tensor.shape {
        [groups, rows, rest @ ..]
            if *rows == n && rest == inner && *groups > 0 && k % groups == 0 =>
        {
            Ok(k / groups)
        }
        shape => {
            let problem = format!("is {shape:?}, not for groups of {k} columns of N = {n}");
            Err(tensor.error(problem, EXPORT_AGAIN))
        }
    }
}

/// The shape without padding, which only the file's metadata has.
fn logical_shape(module: &Module<'_>, codes: &TensorRef<'_>) -> Result<[usize; 2], FormatError> {
    let note = module.note("weight").and_then(|note| serde_json::from_str(note).ok());
    let size = |at: usize| -> Option<usize> {
        let note: &serde_json::Value = note.as_ref()?;
        usize::try_from(note.pointer(&format!("/_data/shape/{at}"))?.as_u64()?).ok()
    };
    match (size(0), size(1)) {
        (Some(n), Some(k)) => Ok([n, k]),
        _ => {
            let problem = "is padded, and the file's metadata does not state the layer's shape";
            Err(codes.error(problem, "export the checkpoint again with its metadata"))
        }
    }
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(module: &Module<'_>, family: &str) -> Result<LayerHeader, FormatError> {
    let parts = Parts::of(module)?;
    let (n, k) = (parts.n, parts.k);
    // Groups are no wider than the padded row, which fits 32 bits.
    let group = match parts.group >= k {
        true => Group::Channel,
        false => Group::Size(parts.group as u32),
    };
    let grouping = Some(Grouping::from(group));
    let name = FormatName { family: family.into(), bits: None, grouping, modifiers: Vec::new() };
    let layout = match parts.params {
        Params::Apart { .. } => "plain",
        Params::Joint(_) => "tile packed",
    };
    Ok(LayerHeader { name, layout, n, k, group })
}
