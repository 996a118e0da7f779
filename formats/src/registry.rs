//! The format registry: one row per format.
//!
//! Adding a format is one file with its [`FormatRow`] and one line in [`FORMATS`]; names, the
//! command line, checkpoint detection and the compiler pick it up from here.

use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::linear::QuantizedLinear;
use crate::name::{FormatName, Grouping, Modifier};
use crate::plain::PlainWeight;
use crate::suggest::did_you_mean;
use crate::tensors::Module;
use qtune_ir::{
    ActivationScales, Activations, Codebook, Group, Param, ParamType, VectorCodes, WeightSpec,
    ACTIVATION_GROUP,
};

/// Every format that this version reads.
pub static FORMATS: &[&FormatRow] = &[
    &crate::awq::ROW,
    &crate::gptq::ROW,
    &crate::bitsandbytes::NF4_ROW,
    &crate::bitsandbytes::FP4_ROW,
    &crate::bitsandbytes::BYTES_ROW,
    &crate::compressed_tensors::INT4,
    &crate::compressed_tensors::INT8,
    &crate::compressed_tensors::INT3,
    &crate::microscaling::MXFP8,
    &crate::float8::ROW,
    &crate::microscaling::MXFP4,
    &crate::microscaling::NVFP4,
    &crate::hqq::ROW,
    &crate::torchao::ROW,
    &crate::aqlm::ROW,
    &crate::aqlm::OTHERS,
    &crate::quip::ROW,
    &crate::blocks::Q4_0,
    &crate::blocks::Q4_1,
    &crate::blocks::Q5_0,
    &crate::blocks::Q5_1,
    &crate::blocks::Q8_0,
    &crate::blocks::Q2_K,
    &crate::blocks::Q3_K,
    &crate::blocks::Q4_K,
    &crate::blocks::Q5_K,
    &crate::blocks::Q6_K,
    &crate::blocks::IQ4_NL,
    &crate::blocks::IQ4_XS,
];

/// One format: what its names, its values and its bytes mean.
#[derive(Debug)]
pub struct FormatRow {
    /// First word of its names.
    pub family: &'static str,
    /// One line for people who choose a format.
    pub doc: &'static str,
    /// The paper and the library that define it.
    pub source: &'static str,
    /// How codes and group parameters are packed in a file.
    pub packing: &'static str,
    /// The spellings its names may have, for help and messages.
    pub names: &'static str,
    /// Some names that resolve; the first is the usual one.
    pub examples: &'static [&'static str],
    /// How its names say which weights share their parameters.
    pub groups: GroupNames,
    /// The value of one weight, per width and set of modifiers; the first row's width is the
    /// one that names leave out.
    pub variants: &'static [Variant],
    /// Tensor suffixes of which one is enough to suspect a layer in this format: what follows the
    /// module's path and a point, or the path itself where they start
    /// with `_` or a point.
    pub anchors: &'static [&'static str],
    /// All tensor suffixes that belong to such a layer.
    pub companions: &'static [&'static str],
    /// Whether a module with an anchor, which no row before this one claimed, is in this format. The
    /// tensors decide; the configuration only where they leave it open.
    pub claims: fn(&Module<'_>, Option<&QuantConfig>) -> Result<bool, FormatError>,
    /// Checks a claimed module's tensors against each other and the configuration, reading only
    /// data that the format's name depends on (GPTQ's column index).
    pub inspect: fn(&Module<'_>, Option<&QuantConfig>) -> Result<LayerHeader, FormatError>,
    /// Decodes a module that `inspect` accepted, checking the values.
    pub load: fn(&Module<'_>, &LayerHeader) -> Result<QuantizedLinear, FormatError>,
    /// Quantizes a plain layer as the format's library does on load, for formats that need no
    /// calibration.
    pub quantize: Option<Quantize>,
}

/// How the names of a format say which weights share their parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupNames {
    /// `-g<SIZE>`, weights of a row, or `-ch`, all of them.
    Rows,
    /// `-b<SIZE>`, weights of the flattened matrix.
    Blocks,
    /// `-b<SIZE>` with the only size that there is.
    Block(u32),
    /// Not at all: there is only this size, of weights of a row.
    Implied(u32),
    /// Not at all: all weights of a row share them.
    WholeRow,
}

impl GroupNames {
    /// The quant group that a name says in this way; what is wrong with another.
    fn group(self, grouping: Option<Grouping>, row: &FormatRow) -> Result<Group, String> {
        let family = row.family;
        match (self, grouping) {
            (GroupNames::Rows, Some(Grouping::Size(size)))
            | (GroupNames::Blocks, Some(Grouping::Block(size)))
            | (GroupNames::Implied(size), None) => Ok(Group::Size(size)),
            (GroupNames::Block(only), Some(Grouping::Block(size))) if size == only => {
                Ok(Group::Size(size))
            }
            (GroupNames::Rows, Some(Grouping::Channel)) | (GroupNames::WholeRow, None) => {
                Ok(Group::Channel)
            }
            (GroupNames::Rows, Some(Grouping::Block(size))) => {
                Err(format!("{family} groups are written -g{size}"))
            }
            (GroupNames::Blocks, Some(Grouping::Size(size))) => {
                Err(format!("{family} blocks are written -b{size}"))
            }
            (GroupNames::Blocks, Some(Grouping::Channel)) => {
                Err(format!("{family} has blocks, not channels"))
            }
            (GroupNames::Block(_) | GroupNames::Implied(_) | GroupNames::WholeRow, _) => {
                Err(format!("{family} has groups of one size, and is written {}", row.names))
            }
            (GroupNames::Rows | GroupNames::Blocks, None) => {
                Err(format!("the group size is missing, as in {}", row.names))
            }
        }
    }

    /// What a name says where there is one size only.
    pub(crate) fn printed(self) -> Option<Grouping> {
        match self {
            GroupNames::Block(size) => Some(Grouping::Block(size)),
            GroupNames::Implied(_)
            | GroupNames::WholeRow
            | GroupNames::Rows
            | GroupNames::Blocks => None,
        }
    }
}

/// Makes a layer of the named format; told the rows that are done, and how many there are.
pub type Quantize = fn(
    &PlainWeight<'_>,
    &FormatName,
    &(dyn Fn(usize, usize) + Sync),
) -> Result<QuantizedLinear, FormatError>;

/// What one weight is worth in one variation of a format.
#[derive(Debug)]
pub struct Variant {
    /// Bits per code.
    pub bits: u8,
    /// The modifiers in the name that select it, sorted.
    pub modifiers: &'static [Modifier],
    /// Group parameters: symbol and stored type.
    pub params: &'static [(&'static str, ParamType)],
    /// The weight as an expression of the code `q` and the parameters.
    pub expr: &'static str,
    /// The values that `lookup` in the expression reads, by code; empty if it looks nothing up.
    pub codebook: &'static [f32],
}

impl Variant {
    /// What the expression looks up.
    fn codebook(&self) -> Codebook {
        let vectors = self.modifiers.iter().find_map(|modifier| match *modifier {
            Modifier::Codebooks(books, bits) => VectorCodes::new(books, bits),
            Modifier::Lattice => VectorCodes::new(1, 16).map(VectorCodes::rotated),
            _ => None,
        });
        vectors.map_or_else(|| Codebook::new(self.codebook), Codebook::of_vectors)
    }
}

/// What the shapes of a quantized layer's tensors say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerHeader {
    /// The format's name: `awq-g128`.
    pub name: FormatName,
    /// The name of the packing inside the format: `gemm`.
    pub layout: &'static str,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Which weights share parameters.
    pub group: Group,
}

impl LayerHeader {
    /// Quant groups per output row.
    pub fn groups(&self) -> usize {
        match self.group {
            Group::Size(size) => self.k.div_ceil(size as usize),
            Group::Channel => 1,
            Group::Rows(_) => self.k,
        }
    }
}

impl FormatRow {
    /// The specification of this row's format `name`, which must be of this family.
    pub fn spec(&self, name: &FormatName) -> Result<WeightSpec, FormatError> {
        let bad = |problem: String| FormatError::UnknownFormat {
            name: name.to_string(),
            problem,
            known: known_names(),
        };
        let default_bits = self.variants.first().map_or(0, |variant| variant.bits);
        let bits = name.bits.unwrap_or(default_bits);
        let group = match self.groups.group(name.grouping, self).map_err(bad)? {
            Group::Size(size) if name.modifiers.contains(&Modifier::AcrossRows) => {
                Group::Rows(size)
            }
            group => group,
        };
        let fits = |variant: &&Variant| variant.bits == bits && variant.modifiers == name.modifiers;
        let variant = self.variants.iter().find(fits).ok_or_else(|| {
            bad(format!("{} has no such width or modifier: {}", self.family, self.names))
        })?;
        let printed =
            FormatName { bits: (bits != default_bits).then_some(bits), ..name.clone() }.to_string();
        let param =
            |(name, dtype): &(&str, ParamType)| Param { name: (*name).into(), dtype: *dtype };
        let activations = match name.modifiers.contains(&Modifier::EightBitActivations) {
            true => {
                let scales = match (name.modifiers.contains(&Modifier::StaticActivations), group) {
                    (true, _) => ActivationScales::Layer,
                    (false, Group::Channel) => ActivationScales::Token,
                    (false, Group::Size(_) | Group::Rows(_)) => ActivationScales::Group,
                };
                Activations::for_weight(variant.expr, scales).unwrap_or_default()
            }
            false => Activations::Floats,
        };
        let fits = match activations.are_grouped() {
            true => activations.are_float8() && group == Group::Size(ACTIVATION_GROUP),
            false => !activations.are_quantized() || group == Group::Channel,
        };
        if !fits {
            let floats = format!("or of {ACTIVATION_GROUP} 8-bit floats: -g{ACTIVATION_GROUP}");
            return Err(bad(format!("-a8 takes one scale for each channel, -ch, {floats}")));
        }
        Ok(WeightSpec {
            name: printed,
            bits,
            group,
            params: variant.params.iter().map(param).collect(),
            expr: variant.expr.into(),
            codebook: variant.codebook(),
            act_order: variant.modifiers.contains(&Modifier::ActOrder),
            activations,
        })
    }
}

/// What the format called `name` means. The error names the part that is wrong, lists the formats
/// that exist and suggests the nearest.
pub fn resolve(name: &str) -> Result<WeightSpec, FormatError> {
    let parsed: FormatName = name.parse()?;
    row_of(&parsed)?.spec(&parsed)
}

/// The row of the family of `parsed`.
pub(crate) fn row_of(parsed: &FormatName) -> Result<&'static FormatRow, FormatError> {
    FORMATS.iter().copied().find(|row| row.family == parsed.family).ok_or_else(|| {
        let examples = FORMATS.iter().flat_map(|row| row.examples.iter().copied());
        FormatError::UnknownFormat {
            name: parsed.to_string(),
            problem: format!(
                "there is no family `{}`{}",
                crate::error::shown(&parsed.family),
                did_you_mean(&parsed.to_string(), examples)
            ),
            known: known_names(),
        }
    })
}

/// The spellings of the formats that layers are made in on load, for messages.
pub(crate) fn made_on_load() -> String {
    let made = FORMATS.iter().filter(|row| row.quantize.is_some());
    made.map(|row| row.names).collect::<Vec<_>>().join(", ")
}

/// The spellings of all formats, for messages.
pub(crate) fn known_names() -> String {
    FORMATS.iter().map(|row| row.names).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::dequant::CodeTable;

    #[test]
    fn rows_are_complete_and_their_families_distinct() {
        for (index, row) in FORMATS.iter().enumerate() {
            assert!(FORMATS[..index].iter().all(|other| other.family != row.family));
            for text in [row.doc, row.source, row.packing, row.names] {
                assert!(!text.is_empty() && !text.contains('\n'), "{}: {text:?}", row.family);
            }
            assert!(!row.examples.is_empty() && !row.variants.is_empty());
            assert!(row.anchors.iter().all(|anchor| row.companions.contains(anchor)));
        }
    }

    #[test]
    fn examples_resolve_to_themselves() {
        for row in FORMATS {
            for example in row.examples {
                assert_eq!(resolve(example).unwrap().name, *example);
                assert!(example.starts_with(row.family));
            }
        }
    }

    #[test]
    fn every_expression_gives_different_codes_different_weights() {
        for example in FORMATS.iter().flat_map(|row| row.examples) {
            let spec = resolve(example).unwrap();
            if spec.codebook.vectors().is_some() {
                // What a code stands for is up to the layer.
                continue;
            }
            let mut weights = vec![0.0; 1 << spec.bits];
            CodeTable::new(&spec).unwrap().fill(&vec![2.0; spec.params.len()], &mut weights);
            assert_ne!(weights[0], weights[1], "{example} ignores the code");
        }
    }

    #[test]
    fn the_usual_width_is_left_out_of_the_name() {
        assert_eq!(resolve("AWQ-w4-g64").unwrap().name, "awq-g64");
    }

    #[test]
    fn activations_are_quantized_for_weights_that_can_be_multiplied_as_they_are() {
        let of = |name: &str| resolve(name).unwrap().activations;
        assert_eq!(of("int8-ch-a8"), Activations::Integers(ActivationScales::Token));
        assert_eq!(of("int8-ch-a8-static"), Activations::Integers(ActivationScales::Layer));
        assert_eq!(of("int8-ch-bf16"), Activations::Floats);
        assert_eq!(of("fp8-e4m3-ch-a8"), Activations::E4m3(ActivationScales::Token));
        for row in FORMATS {
            let quantized = |v: &&Variant| v.modifiers.contains(&Modifier::EightBitActivations);
            for variant in row.variants.iter().filter(quantized) {
                let scheme = Activations::for_weight(variant.expr, ActivationScales::Token);
                assert!(scheme.is_some(), "{}", variant.expr);
            }
        }
    }

    #[test]
    fn unknown_names_list_what_exists_and_suggest_the_nearest() {
        let message = |name: &str| resolve(name).unwrap_err().to_string();
        assert!(message("awk-g128").contains("did you mean `awq-g128`?"));
        assert!(message("exl3-g128").contains("known formats: awq-g<SIZE>"));
        assert!(message("awq-w3-g128").contains("no such width"));
        assert!(message("awq-g128-dq").contains("no such width or modifier"));
        assert!(message("awq-b64").contains("are written -g64"));
        assert!(message("int8-g128-a8").contains("one scale for each channel"));
        assert!(message("awq").contains("group size is missing"));
        assert!(message("q4_k-g64").contains("groups of one size, and is written q4_k"));
        assert!(message("mxfp4").contains("is written mxfp4-b32"));
    }
}
