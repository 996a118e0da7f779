//! Whether a layer's tensors agree with its state.

use super::state::State;
use super::Kind;
use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::name::{FormatName, Grouping, Modifier};
use crate::registry::LayerHeader;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, EXPORT_AGAIN};
use qtune_ir::{Group, NESTED_CODES, NESTED_GROUPS};

/// The tensors of a layer.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) weight: TensorRef<'a>,
    pub(super) absmax: TensorRef<'a>,
    pub(super) state: State,
    /// `nested_absmax` and `nested_quant_map`, where the state says that there are.
    pub(super) nested: Option<[TensorRef<'a>; 2]>,
    pub(super) bias: Option<TensorRef<'a>>,
}

/// See [`crate::FormatRow::claims`]. Modules that hold only a part of a layer go to the kind that
/// the configuration names, or to FP4, which is the library's default.
pub(super) fn claims(
    kind: &Kind,
    module: &Module<'_>,
    config: Option<&QuantConfig>,
) -> Result<bool, FormatError> {
    for known in [&super::NF4, &super::FP4] {
        if module.get(known.state_key).is_some() {
            return Ok(known.family == kind.family);
        }
    }
    let configured = config.map_or(Ok(None), |config| config.text(&["bnb_4bit_quant_type"]))?;
    let is_nf4 = configured.is_some_and(|configured| configured == super::NF4.family);
    Ok(is_nf4 == (kind.family == super::NF4.family))
}

/// See [`crate::FormatRow::inspect`].
pub(super) fn inspect(kind: &Kind, module: &Module<'_>) -> Result<LayerHeader, FormatError> {
    let parts = Parts::of(kind, module)?;
    let State { n, k, block, .. } = parts.state;
    let size = row_block(k, block);
    let nested =
        parts.state.nested.is_some_and(|nested| nested.block % NESTED_GROUPS as usize == 0);
    let modifiers = if nested { vec![Modifier::DoubleQuant] } else { Vec::new() };
    let name = FormatName {
        family: kind.family.into(),
        bits: None,
        grouping: Some(Grouping::Block(size)),
        modifiers,
    };
    let layout = if size as usize == block { "rows" } else { "across-rows" };
    Ok(LayerHeader { name, layout, n, k, group: Group::Size(size) })
}

/// The largest run of columns that never crosses a block of the flattened matrix: the block, where
/// rows are made of whole ones.
pub(super) fn row_block(k: usize, block: usize) -> u32 {
    // A block size is a power of two, so the greatest common divisor is the lower of the powers
    // of two in both.
    1 << k.trailing_zeros().min(block.trailing_zeros())
}

impl<'a> Parts<'a> {
    /// The tensors, checked against the state.
    pub(super) fn of(kind: &Kind, module: &Module<'a>) -> Result<Parts<'a>, FormatError> {
        let beside =
            [kind.state_key, "weight.absmax"].into_iter().find(|s| module.get(s).is_some());
        let beside = beside.unwrap_or("weight");
        let tensor = module.require(kind.state_key, beside)?;
        let state = State::read(kind, &tensor)?;
        let parts = Parts {
            weight: module.require("weight", beside)?,
            absmax: module.require("weight.absmax", beside)?,
            nested: nested(module, &state)?,
            state,
            bias: module.get("bias"),
        };
        parts.check_codes()?;
        parts.check_absmax()?;
        check_codebook(kind, &module.require("weight.quant_map", beside)?)?;
        Ok(parts)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        (self.state.n * self.state.k).div_ceil(self.state.block)
    }

    /// The codes may be stored as elements of any type; their bytes count.
    fn check_codes(&self) -> Result<(), FormatError> {
        let State { n, k, .. } = self.state;
        let needed = n.checked_mul(k).map(|weights| weights.div_ceil(2));
        if needed == Some(self.weight.bytes.len()) {
            return Ok(());
        }
        let held = self.weight.bytes.len();
        let problem = format!("has {held} bytes where {n} x {k} weights need half as many");
        Err(self.weight.error(problem, EXPORT_AGAIN))
    }

    fn check_absmax(&self) -> Result<(), FormatError> {
        let blocks = self.blocks();
        let because = "a value per block";
        match (self.state.nested, self.nested) {
            (Some(nested), Some([maxima, values])) => {
                self.absmax.expect(ElementType::U8, &[blocks], because)?;
                let outer = blocks.div_ceil(nested.block);
                maxima.expect(ElementType::F32, &[outer], "a value per block of blocks")?;
                values.expect(ElementType::F32, &[NESTED_CODES], "a value per code")
            }
            _ => self.absmax.expect(ElementType::F32, &[blocks], because),
        }?;
        self.bias.map_or(Ok(()), |bias| bias.check_bias(self.state.n))
    }
}

/// The tensors of double quantization, which are there if and only if the state says so.
fn nested<'a>(
    module: &Module<'a>,
    state: &State,
) -> Result<Option<[TensorRef<'a>; 2]>, FormatError> {
    let suffixes = ["weight.nested_absmax", "weight.nested_quant_map"];
    if state.nested.is_some() {
        let [maxima, values] = suffixes;
        return Ok(Some([module.require(maxima, "weight")?, module.require(values, "weight")?]));
    }
    match suffixes.into_iter().find_map(|suffix| module.get(suffix)) {
        None => Ok(None),
        Some(stray) => {
            let problem = "is there, but the layer's state says nothing of double quantization";
            Err(stray.error(problem, EXPORT_AGAIN))
        }
    }
}

/// The stored codebook must be the format's own, which is what kernels compute with.
fn check_codebook(kind: &Kind, stored: &TensorRef<'_>) -> Result<(), FormatError> {
    stored.expect(ElementType::F32, &[kind.codebook.len()], "a value per code")?;
    let differs = |code: &usize| f32::from_bits(stored.word(*code)) != kind.codebook[*code];
    match (0..kind.codebook.len()).find(differs) {
        None => Ok(()),
        Some(code) => {
            let (own, wanted) = (f32::from_bits(stored.word(code)), kind.codebook[code]);
            let problem =
                format!("gives code {code} the value {own}, not {wanted} as {} has", kind.family);
            Err(stored.error(problem, EXPORT_AGAIN))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_within_blocks_and_rows_are_powers_of_two() {
        let cases = [(128, 64, 64), (96, 64, 32), (64, 128, 64), (160, 64, 32), (7, 64, 1)];
        for (k, block, size) in cases {
            assert_eq!(row_block(k, block), size, "K = {k}, blocks of {block}");
        }
    }
}
