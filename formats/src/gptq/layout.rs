//! Whether a GPTQ layer's tensors agree, and what they say about it.

use super::settings::Settings;
use super::zeros;
use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::name::{FormatName, Grouping, Modifier};
use crate::order;
use crate::qweight::{width, UNIT};
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::Group;

const CORRECT_CONFIG: &str = "correct the configuration";

/// The tensors of a layer.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) qweight: TensorRef<'a>,
    pub(super) qzeros: TensorRef<'a>,
    pub(super) scales: TensorRef<'a>,
    pub(super) g_idx: Option<TensorRef<'a>>,
    pub(super) bias: Option<TensorRef<'a>>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let anchor = if module.get("qweight").is_some() { "qweight" } else { "qzeros" };
        let beside = if module.get(anchor).is_some() { anchor } else { "g_idx" };
        Ok(Parts {
            qweight: module.require("qweight", beside)?,
            qzeros: module.require("qzeros", beside)?,
            scales: module.require("scales", beside)?,
            g_idx: module.get("g_idx"),
            bias: module.get("bias"),
        })
    }
}

/// See [`crate::FormatRow::claims`]. Other packings under these names have been claimed before.
pub(super) fn claims(module: &Module<'_>) -> bool {
    ["qweight", "qzeros", "g_idx"].iter().any(|suffix| module.get(suffix).is_some())
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
) -> Result<LayerHeader, FormatError> {
    let settings = Settings::read(config)?;
    let parts = Parts::of(module)?;
    let (bits, n, k) = dims(&parts, &settings)?;
    check_companions(&parts, n, k)?;
    let group = group(&parts, k, &settings)?;
    let mut modifiers = Vec::new();
    let is_symmetric = match settings.sym {
        Some(false) => false,
        Some(true) if !settings.overridden => true,
        _ => zeros::are_symmetric(parts.qzeros.bytes, bits),
    };
    if !is_symmetric {
        modifiers.push(Modifier::Asym);
    }
    let name = FormatName {
        family: "gptq".into(),
        bits: Some(bits),
        grouping: Some(Grouping::from(group)),
        modifiers,
    };
    let layout = settings.zeros.at(bits).name();
    let mut header = LayerHeader { name, layout, n, k, group };
    if k_order(&parts, &header)?.is_some() {
        header.name.modifiers.push(Modifier::ActOrder);
    }
    Ok(header)
}

/// The order of a layer's columns, where it has one: see [`order::k_order`].
pub(super) fn k_order(
    parts: &Parts<'_>,
    header: &LayerHeader,
) -> Result<Option<Vec<u32>>, FormatError> {
    let Some(g_idx) = &parts.g_idx else {
        return Ok(None);
    };
    let size = match header.group {
        Group::Size(size) => size as usize,
        Group::Channel | Group::Rows(_) => header.k,
    };
    order::k_order(g_idx, header.groups(), size)
}

/// Bits, N and K from qweight [K*bits/32, N] and qzeros [R, N*bits/32].
fn dims(parts: &Parts<'_>, settings: &Settings) -> Result<(u8, usize, usize), FormatError> {
    let [rows, n] = parts.qweight.matrix(ElementType::I32)?;
    let [_, words] = parts.qzeros.matrix(ElementType::I32)?;
    if n == 0 || n % UNIT != 0 {
        let problem = format!("gives the layer N = {n}, which is no multiple of {UNIT}");
        return Err(parts.qweight.error(problem, EXPORT_AGAIN));
    }
    let Some(bits) = width(words, n) else {
        let problem =
            format!("has {words} columns, which hold N = {n} zero-points of no width GPTQ has");
        return Err(parts.qzeros.error(problem, EXPORT_AGAIN));
    };
    if let Some(configured) = settings.binding().0.filter(|configured| *configured != bits) {
        let origin = &settings.origin;
        let problem = format!("holds {bits}-bit zero-points, not {configured}-bit ({origin})");
        return Err(parts.qzeros.error(problem, CORRECT_CONFIG));
    }
    let k = (rows / usize::from(bits)).saturating_mul(UNIT);
    if rows == 0 || rows % usize::from(bits) != 0 {
        let problem = format!("has {rows} rows, which hold no multiple of {UNIT} {bits}-bit codes");
        return Err(parts.qweight.error(problem, EXPORT_AGAIN));
    }
    if u32::try_from(n).is_err() || u32::try_from(k).is_err() {
        return Err(parts.qweight.error("has a dimension that is too large", EXPORT_AGAIN));
    }
    Ok((bits, n, k))
}

/// Checks types and shapes of the tensors beside the codes.
fn check_companions(parts: &Parts<'_>, n: usize, k: usize) -> Result<(), FormatError> {
    let groups = parts.qzeros.shape[0];
    let because = "a scale per quant group and output feature";
    parts.scales.expect(ElementType::F16, &[groups, n], because)?;
    if let Some(g_idx) = &parts.g_idx {
        g_idx.expect(ElementType::I32, &[k], "a quant group per input feature")?;
    }
    if let Some(bias) = &parts.bias {
        bias.expect(ElementType::F16, &[n], "one value per output feature")?;
    }
    Ok(())
}

/// The quant group, which rows of the scales, `g_idx` and the configuration must agree on.
fn group(parts: &Parts<'_>, k: usize, settings: &Settings) -> Result<Group, FormatError> {
    let groups = parts.scales.shape[0];
    let rows_of = |group| match group {
        Group::Size(size) => k.div_ceil(size as usize),
        Group::Channel | Group::Rows(_) => 1,
    };
    let group = match settings.binding().1 {
        Some(group) => group,
        None => shown_group(parts, k, groups)?,
    };
    let expected = rows_of(group);
    if expected != groups {
        let origin = &settings.origin;
        let shown = match group {
            Group::Size(size) => format!("groups of {size}"),
            Group::Channel | Group::Rows(_) => "one group".into(),
        };
        let problem = format!("has {groups} rows where K = {k} in {shown} needs {expected}");
        let problem = if origin.is_empty() { problem } else { format!("{problem} ({origin})") };
        return Err(parts.scales.error(problem, CORRECT_CONFIG));
    }
    // A group that K does not fill is the whole channel.
    Ok(match group {
        Group::Size(size) if size as usize > k => Group::Channel,
        group => group,
    })
}

/// The group that the tensors alone show: `g_idx` fills group 0 first; without it, groups are even.
fn shown_group(parts: &Parts<'_>, k: usize, groups: usize) -> Result<Group, FormatError> {
    if groups == 1 {
        return Ok(Group::Channel);
    }
    if groups == 0 {
        return Err(parts.scales.error("has no rows", EXPORT_AGAIN));
    }
    let size = match &parts.g_idx {
        Some(g_idx) => order::group_of(g_idx, groups)?.iter().filter(|group| **group == 0).count(),
        None if k % groups == 0 => k / groups,
        None => 0,
    };
    if size == 0 {
        let problem = format!("has {groups} rows, which do not divide K = {k}");
        return Err(parts.scales.error(problem, "state group_size in quantize_config.json"));
    }
    Ok(Group::Size(size as u32))
}
