//! Which AWQ packing a layer has, and whether its tensors' shapes agree.

use super::group::{group, Settings};
use super::PER_WORD;
use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::name::{FormatName, Grouping, Modifier};
use crate::qweight::is_packed_along_k;
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};

/// The packings of AutoAWQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Gemm,
    Gemv,
    GemvFast,
}

impl Layout {
    const ALL: [Layout; 3] = [Layout::Gemm, Layout::Gemv, Layout::GemvFast];

    /// AutoAWQ's name of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Layout::Gemm => "gemm",
            Layout::Gemv => "gemv",
            Layout::GemvFast => "gemv_fast",
        }
    }

    /// The layout that an inspected layer has.
    pub(super) fn of(header: &LayerHeader) -> Option<Layout> {
        Layout::ALL.into_iter().find(|layout| layout.name() == header.layout)
    }
}

/// The tensors every packing has.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) qweight: TensorRef<'a>,
    /// Packed zero-points, or in `gemv_fast` scaled zero-points in f16.
    pub(super) qzeros: TensorRef<'a>,
    pub(super) scales: TensorRef<'a>,
    pub(super) bias: Option<TensorRef<'a>>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        // llm-awq calls the zero-points of the `gemv_fast` packing `scaled_zeros`.
        let zeros = module.get("qzeros").or_else(|| module.get("scaled_zeros"));
        Ok(Parts {
            qweight: module.require("qweight", "qzeros")?,
            qzeros: zeros.map_or_else(|| module.require("qzeros", "qweight"), Ok)?,
            scales: module.require("scales", "qweight")?,
            bias: module.get("bias"),
        })
    }

    /// The packing that types and shapes show. Where they show none, the tensors disagree, and
    /// the configured packing is the one the error is about.
    fn layout(&self, configured: Option<Layout>) -> Layout {
        if self.qweight.stored == ElementType::I16 {
            return Layout::GemvFast;
        }
        match (self.fits_gemm(), self.fits_gemv()) {
            (true, false) => Layout::Gemm,
            (false, true) => Layout::Gemv,
            _ => configured.unwrap_or(Layout::Gemm),
        }
    }

    /// Rows and columns of qweight, qzeros and scales, if all are matrices.
    fn matrices(&self) -> Option<[[usize; 2]; 3]> {
        let matrix = |tensor: TensorRef<'_>| <[usize; 2]>::try_from(tensor.shape).ok();
        Some([matrix(self.qweight)?, matrix(self.qzeros)?, matrix(self.scales)?])
    }

    fn fits_gemm(&self) -> bool {
        self.matrices().is_some_and(|[[_, words], [groups, zero_words], [scale_rows, n]]| {
            words == zero_words && groups == scale_rows && words.checked_mul(PER_WORD) == Some(n)
        })
    }

    fn fits_gemv(&self) -> bool {
        self.matrices().is_some_and(|[[n, _], [zero_rows, words], [scale_rows, padded]]| {
            n == zero_rows && n == scale_rows && words.checked_mul(PER_WORD) == Some(padded)
        })
    }
}

/// See [`crate::FormatRow::claims`].
pub(super) fn claims(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
) -> Result<bool, FormatError> {
    if module.get("g_idx").is_some() {
        return Ok(false);
    }
    if let Ok(parts) = Parts::of(module) {
        if parts.fits_gemm() || parts.fits_gemv() || parts.qweight.stored == ElementType::I16 {
            return Ok(true);
        }
        if is_packed_along_k(module) {
            return Ok(false);
        }
    }
    // Broken either way: whose names they are decides what the error compares.
    let method = config.map_or(Ok(None), QuantConfig::method)?;
    Ok(method.is_none_or(|method| method == "awq"))
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(
    module: &Module<'_>,
    config: Option<&QuantConfig>,
) -> Result<LayerHeader, FormatError> {
    let settings = Settings::read(config)?;
    let parts = Parts::of(module)?;
    let layout = parts.layout(settings.layout);
    let (n, k) = match layout {
        Layout::Gemm => gemm_dims(&parts)?,
        Layout::Gemv => gemv_dims(&parts)?,
        Layout::GemvFast => gemv_fast_dims(&parts)?,
    };
    for (axis, size) in [("N", n), ("K", k)] {
        if size == 0 || u32::try_from(size).is_err() {
            let problem = format!("gives the layer {axis} = {size}");
            return Err(parts.qweight.error(problem, EXPORT_AGAIN));
        }
    }
    if let Some(bias) = &parts.bias {
        bias.expect(ElementType::F16, &[n], "one value per output feature")?;
    }
    let group = group(layout, &parts, k, &settings)?;
    let grouping = Grouping::from(group);
    let modifiers = if layout == Layout::GemvFast { vec![Modifier::Fast] } else { vec![] };
    let name = FormatName { family: "awq".into(), bits: None, grouping: Some(grouping), modifiers };
    Ok(LayerHeader { name, layout: layout.name(), n, k, group })
}

/// The codes in `words` words, unless a shape beside a zero makes that absurd.
fn codes_in(words: usize, tensor: &TensorRef<'_>) -> Result<usize, FormatError> {
    words
        .checked_mul(PER_WORD)
        .ok_or_else(|| tensor.error("has a dimension that is too large", EXPORT_AGAIN))
}

/// `gemm`: qweight [K, N/8], qzeros [K/G, N/8], scales [K/G, N]. Returns (N, K).
fn gemm_dims(parts: &Parts<'_>) -> Result<(usize, usize), FormatError> {
    let [k, words] = parts.qweight.matrix(ElementType::I32)?;
    let [groups, n] = parts.scales.matrix(ElementType::F16)?;
    let held = codes_in(words, &parts.qweight)?;
    if held != n {
        let problem = format!("holds {held} columns where the scales have {n}");
        // The packer allocates N/32 * 4 words, rounded down.
        let dropped = held < n && n % 32 != 0;
        let remedy = if dropped {
            "AutoAWQ's packer drops columns when N is not a multiple of 32: quantize the model \
             again with this layer padded or in modules_to_not_convert"
        } else {
            EXPORT_AGAIN
        };
        return Err(parts.qweight.error(problem, remedy));
    }
    let because = "a zero-point per group and column, eight to a word";
    parts.qzeros.expect(ElementType::I32, &[groups, words], because)?;
    Ok((n, k))
}

/// `gemv`: qweight [N, K/8], qzeros [N, Z], scales [N, 8 Z]. Returns (N, K).
fn gemv_dims(parts: &Parts<'_>) -> Result<(usize, usize), FormatError> {
    let [n, words] = parts.qweight.matrix(ElementType::I32)?;
    let [zero_rows, zero_words] = parts.qzeros.matrix(ElementType::I32)?;
    if zero_rows != n {
        let problem = format!("has {zero_rows} rows where qweight has {n}");
        return Err(parts.qzeros.error(problem, EXPORT_AGAIN));
    }
    let padded = codes_in(zero_words, &parts.qzeros)?;
    let because = "a row per output feature, a column per zero-point";
    parts.scales.expect(ElementType::F16, &[n, padded], because)?;
    Ok((n, codes_in(words, &parts.qweight)?))
}

/// `gemv_fast`: qweight I16 [N/4, K], scales and qzeros F16 [8 Z, N]. Returns (N, K).
fn gemv_fast_dims(parts: &Parts<'_>) -> Result<(usize, usize), FormatError> {
    let [quads, k] = parts.qweight.matrix(ElementType::I16)?;
    let [padded, n] = parts.scales.matrix(ElementType::F16)?;
    if quads.checked_mul(4) != Some(n) {
        let problem = format!("has {quads} rows of 4 output features where the scales have {n}");
        return Err(parts.qweight.error(problem, EXPORT_AGAIN));
    }
    if k % 64 != 0 {
        let problem = format!("has K = {k}, but this packing interleaves blocks of 64 columns");
        return Err(parts.qweight.error(problem, EXPORT_AGAIN));
    }
    parts.qzeros.expect(ElementType::F16, &[padded, n], "the shape of the scales")?;
    Ok((n, k))
}
