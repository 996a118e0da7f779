//! The quant group of an AWQ layer: what the configuration says against what the shapes show.

use super::layout::{Layout, Parts};
use super::PER_WORD;
use crate::config::QuantConfig;
use crate::error::{shown, FormatError};
use crate::tensors::{TensorRef, EXPORT_AGAIN};
use qtune_ir::Group;

const CORRECT_CONFIG: &str = "correct group_size in the configuration";

/// What the configuration says about all layers; nothing where there is none.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) layout: Option<Layout>,
    pub(super) group: Option<Group>,
    /// The file it comes from, for messages.
    origin: String,
}

impl Settings {
    pub(super) fn read(config: Option<&QuantConfig>) -> Result<Settings, FormatError> {
        let Some(config) = config else {
            return Ok(Settings::default());
        };
        if config.method()?.is_some_and(|method| method != "awq") {
            // The tensors are AWQ's, so the configuration belongs to something else.
            return Ok(Settings::default());
        }
        if let Some(bits) = config.integer(&["bits", "w_bit"])?.filter(|bits| *bits != 4) {
            let problem = format!("asks for {bits}-bit AWQ, but AWQ files hold 4-bit codes");
            return Err(config.error(problem, "set bits to 4 if the tensors are AWQ's"));
        }
        if config.boolean(&["zero_point"])? == Some(false) {
            let problem = "describes AWQ without zero-points, which only Marlin-packed files are";
            return Err(config.error(problem, "use the checkpoint before it was packed for Marlin"));
        }
        Ok(Settings {
            layout: configured_layout(config)?,
            group: config.group_size()?,
            origin: shown(&config.path().display().to_string()),
        })
    }
}

fn configured_layout(config: &QuantConfig) -> Result<Option<Layout>, FormatError> {
    match config.text(&["version"])?.as_deref() {
        None => Ok(None),
        // The last three are runtimes that read gemm files.
        Some("gemm" | "exllama" | "exllamav2" | "ipex") => Ok(Some(Layout::Gemm)),
        Some("gemv") => Ok(Some(Layout::Gemv)),
        Some("gemv_fast" | "llm-awq") => Ok(Some(Layout::GemvFast)),
        Some(other) => {
            let problem = format!("has AWQ version `{}`", shown(other));
            Err(config.error(problem, "convert the checkpoint to gemm, gemv or gemv_fast"))
        }
    }
}

/// The group of a layer with these tensors and `k` (which fits 32 bits) input features.
pub(super) fn group(
    layout: Layout,
    parts: &Parts<'_>,
    k: usize,
    settings: &Settings,
) -> Result<Group, FormatError> {
    if let Some(Group::Size(size)) = settings.group {
        if k % size as usize != 0 {
            let origin = &settings.origin;
            let problem = format!("has K = {k}, which groups of {size} ({origin}) do not divide");
            return Err(parts.qweight.error(problem, CORRECT_CONFIG));
        }
    }
    match layout {
        Layout::Gemm => gemm_group(&parts.scales, k, settings),
        Layout::Gemv => padded_group(&parts.scales, 1, k, settings),
        Layout::GemvFast => padded_group(&parts.scales, 0, k, settings),
    }
}

/// Elements of k in one group.
fn size_of(group: Group, k: usize) -> usize {
    match group {
        Group::Size(size) => size as usize,
        Group::Channel | Group::Rows(_) => k,
    }
}

/// `gemm`: K over the rows of the scales, which the configuration must confirm.
fn gemm_group(scales: &TensorRef<'_>, k: usize, settings: &Settings) -> Result<Group, FormatError> {
    let groups = scales.shape[0];
    let Some(group) = settings.group else {
        if groups == 0 || k % groups != 0 {
            let problem = format!("has {groups} rows, which do not divide K = {k}");
            return Err(scales.error(problem, EXPORT_AGAIN));
        }
        return Ok(if groups == 1 { Group::Channel } else { Group::Size((k / groups) as u32) });
    };
    let size = size_of(group, k);
    if k / size == groups {
        return Ok(group);
    }
    let (expected, origin) = (k / size, &settings.origin);
    let problem =
        format!("has {groups} rows where K = {k} in groups of {size} ({origin}) needs {expected}");
    Err(scales.error(problem, CORRECT_CONFIG))
}

/// `gemv` and `gemv_fast`: axis `axis` of the scales is padded to 8 Z entries, so the size comes
/// from the configuration; without one, it is the usual size for which the packer allocates just
/// that many.
fn padded_group(
    scales: &TensorRef<'_>,
    axis: usize,
    k: usize,
    settings: &Settings,
) -> Result<Group, FormatError> {
    let padded = scales.shape[axis];
    let agrees = |size: usize| {
        let groups = k / size;
        let allocated = packer_words(groups, size).map(|words| words * PER_WORD);
        k % size == 0 && allocated.map_or(groups <= padded, |allocated| allocated == padded)
    };
    let Some(group) = settings.group else {
        let problem = format!("has {padded} padded groups, which fit no usual size for K = {k}");
        return [128, 64, 32]
            .into_iter()
            .find(|size| agrees(*size))
            .map(|size| Group::Size(size as u32))
            .ok_or_else(|| scales.error(problem, "state group_size in config.json"));
    };
    let size = size_of(group, k);
    if agrees(size) {
        return Ok(group);
    }
    let origin = &settings.origin;
    let problem = format!(
        "has {padded} padded groups, which K = {k} in groups of {size} ({origin}) does not"
    );
    Err(scales.error(problem, CORRECT_CONFIG))
}

/// The zero-point words Z that the packers allocate for `groups` groups, where the library has a
/// rule (AutoAWQ's `calculate_zeros_width`): `ceil(groups / 8)` rounded up to a multiple of 1 for
/// groups of 128 and more, 2 for 64, 4 for 32.
fn packer_words(groups: usize, size: usize) -> Option<usize> {
    let multiple = match size {
        128.. => 1,
        64 => 2,
        32 => 4,
        _ => return None,
    };
    Some(groups.div_ceil(PER_WORD).next_multiple_of(multiple))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_follows_the_packer_s_rule() {
        assert_eq!(packer_words(40, 128), Some(5));
        assert_eq!(packer_words(5, 64), Some(2));
        assert_eq!(packer_words(33, 32), Some(8));
        assert_eq!(packer_words(4, 16), None);
    }
}
