//! The grammar of format names, parsed here and nowhere else.
//!
//! ```text
//! name     = family { "-" part }
//! family   = word { "-" word }          awq, nf4, fp8-e4m3, w8a8-int8, q4_k
//! part     = "w" bits                   bits per code, when not the family's usual width
//!          | "g" size | "b" size | "ch" one scale per quant group | flat block | output channel
//!          | modifier                   fast, asym, actorder, dq, bf16, axis0, a8, static, e8p
//!          | books "x" bits             codebooks whose vectors are added, and the width of their codes
//! ```
//!
//! Parts may come in any order and are printed in the order above, so two spellings of one format
//! have one printed name. Which families, widths and modifiers exist is the registry's business:
//! see [`crate::resolve`].

use crate::error::{shown, FormatError};
use qtune_ir::Group;
use std::fmt;
use std::str::FromStr;

/// How a format's name says that weights share scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// `-g128`: consecutive weights along k of one output row, or weights of as many rows.
    Size(u32),
    /// `-b64`: consecutive weights of the flattened matrix, possibly across rows.
    Block(u32),
    /// `-ch`: all weights of one output channel.
    Channel,
}

impl From<Group> for Grouping {
    fn from(group: Group) -> Grouping {
        match group {
            Group::Size(size) | Group::Rows(size) => Grouping::Size(size),
            Group::Channel => Grouping::Channel,
        }
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grouping::Size(size) => write!(f, "g{size}"),
            Grouping::Block(size) => write!(f, "b{size}"),
            Grouping::Channel => f.write_str("ch"),
        }
    }
}

/// A variation of a family that changes what the stored values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modifier {
    /// `fast`: zero-points stored already multiplied by their scale (AutoAWQ's `gemv_fast`).
    Fast,
    /// `asym`: with zero-points, in a family that is usually symmetric.
    Asym,
    /// `actorder`: quant groups assigned to columns by an index.
    ActOrder,
    /// `dq`: the scales themselves are quantized.
    DoubleQuant,
    /// `bf16`: bf16 scales, in a family whose scales are usually f16.
    Bf16Scales,
    /// `axis0`: the groups lie across output features, with a row of parameters for as many of them.
    AcrossRows,
    /// `a8`: multiplied by activations that are quantized to 8 bits, per token.
    EightBitActivations,
    /// `static`: by the scale that a layer brings, not one of each token.
    StaticActivations,
    /// `e8p`: codes name points of a lattice, of weights between rotations.
    Lattice,
    /// `2x8`: codes name vectors, an entry of so many codebooks by so many bits each.
    Codebooks(u8, u8),
}

impl Modifier {
    const WORDS: [(&'static str, Modifier); 9] = [
        ("fast", Modifier::Fast),
        ("asym", Modifier::Asym),
        ("actorder", Modifier::ActOrder),
        ("dq", Modifier::DoubleQuant),
        ("bf16", Modifier::Bf16Scales),
        ("axis0", Modifier::AcrossRows),
        ("a8", Modifier::EightBitActivations),
        ("static", Modifier::StaticActivations),
        ("e8p", Modifier::Lattice),
    ];

    /// Whether it says how activations are multiplied, not what weights are.
    pub fn is_of_activations(self) -> bool {
        matches!(self, Modifier::EightBitActivations | Modifier::StaticActivations)
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Modifier::Codebooks(books, bits) = self {
            return write!(f, "{books}x{bits}");
        }
        let word = Modifier::WORDS.iter().find(|(_, m)| m == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

/// A format name taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FormatName {
    /// The registry family: `awq`.
    pub family: String,
    /// Bits per code, where the name says so.
    pub bits: Option<u8>,
    /// Grouping, where the name says so.
    pub grouping: Option<Grouping>,
    /// Modifiers in their printed order, each at most once.
    pub modifiers: Vec<Modifier>,
}

/// What one part after the family says.
enum Part {
    Bits(u8),
    Grouping(Grouping),
    Modifier(Modifier),
}

impl fmt::Display for FormatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.family)?;
        if let Some(bits) = self.bits {
            write!(f, "-w{bits}")?;
        }
        if let Some(grouping) = self.grouping {
            write!(f, "-{grouping}")?;
        }
        self.modifiers.iter().try_for_each(|modifier| write!(f, "-{modifier}"))
    }
}

impl FromStr for FormatName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = |problem: String| FormatError::UnknownFormat {
            name: text.into(),
            problem,
            known: crate::registry::known_names(),
        };
        let lower = text.to_ascii_lowercase();
        let mut name =
            FormatName { family: String::new(), bits: None, grouping: None, modifiers: vec![] };
        let mut parts_begun = false;
        for (index, token) in lower.split('-').enumerate() {
            let part = if index == 0 { None } else { part(token).map_err(bad)? };
            match part {
                None if parts_begun || !is_word(token) => {
                    return Err(bad(format!("`{}` is no part of a format name", shown(token))));
                }
                None if index == 0 => name.family = token.into(),
                None => name.family = format!("{}-{token}", name.family),
                Some(part) => {
                    parts_begun = true;
                    name.add(part).map_err(|what| bad(format!("{what} is given twice")))?;
                }
            }
        }
        name.modifiers.sort();
        Ok(name)
    }
}

impl FormatName {
    /// Adds one part; what it is called if the name already has one.
    fn add(&mut self, part: Part) -> Result<(), &'static str> {
        match part {
            Part::Bits(bits) => match self.bits.replace(bits) {
                Some(_) => Err("the width"),
                None => Ok(()),
            },
            Part::Grouping(grouping) => match self.grouping.replace(grouping) {
                Some(_) => Err("the grouping"),
                None => Ok(()),
            },
            Part::Modifier(modifier) if self.modifiers.contains(&modifier) => Err("a modifier"),
            Part::Modifier(modifier) => {
                self.modifiers.push(modifier);
                Ok(())
            }
        }
    }
}

/// Whether a token can be part of a family: `q4_k`, `e4m3`.
fn is_word(token: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    token.starts_with(|c: char| c.is_ascii_lowercase()) && token.chars().all(allowed)
}

/// The part a token spells; `None` if it is not one, an error if its number is impossible.
fn part(token: &str) -> Result<Option<Part>, String> {
    if token == "ch" {
        return Ok(Some(Part::Grouping(Grouping::Channel)));
    }
    if let Some((_, modifier)) = Modifier::WORDS.iter().find(|(word, _)| *word == token) {
        return Ok(Some(Part::Modifier(*modifier)));
    }
    if let Some((books, bits)) = token.split_once('x') {
        if let (Ok(books), Ok(bits)) = (books.parse(), bits.parse()) {
            return Ok(Some(Part::Modifier(Modifier::Codebooks(books, bits))));
        }
    }
    let mut letters = token.chars();
    let (letter, digits) = (letters.next(), letters.as_str());
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let (Some(letter @ ('w' | 'g' | 'b')), true) = (letter, is_number) else {
        return Ok(None);
    };
    let bad = |what: &str| format!("`{}` is not a {what}", shown(token));
    if letter == 'w' {
        let bits = digits.parse().ok().filter(|bits| (1..=16).contains(bits));
        return bits.map(|bits| Some(Part::Bits(bits))).ok_or_else(|| bad("width of 1 to 16 bits"));
    }
    let size = digits.parse().ok().filter(|size| *size > 0).ok_or_else(|| bad("group size"))?;
    let grouping = if letter == 'g' { Grouping::Size(size) } else { Grouping::Block(size) };
    Ok(Some(Part::Grouping(grouping)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> FormatName {
        text.parse().unwrap()
    }

    #[test]
    fn every_name_of_the_design_prints_as_it_was_written() {
        for text in [
            "awq-g128",
            "awq-g128-fast",
            "awq-ch",
            "gptq-g128",
            "gptq-w8-g64-asym",
            "gptq-g128-actorder",
            "nf4-b64",
            "nf4-b64-dq",
            "int8-ch",
            "q4_0",
            "q6_k",
            "fp8-e4m3-ch",
            "w8a8-int8-ch",
            "mxfp4-b32",
            "int8-ch-bf16-a8",
            "int8-ch-bf16-a8-static",
            "torchao-int4-g128",
            "hqq-w2-g64-bf16-axis0",
            "vq-2x8",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
    }

    #[test]
    fn families_may_hold_hyphens_and_parts_follow_them() {
        let name = parsed("w8a8-int8-ch");
        assert_eq!((name.family.as_str(), name.bits), ("w8a8-int8", None));
        assert_eq!(name.grouping, Some(Grouping::Channel));
    }

    #[test]
    fn spelling_variants_have_one_printed_name() {
        assert_eq!(parsed("AWQ-Fast-G0128").to_string(), "awq-g128-fast");
        assert_eq!(parsed("gptq-asym-g64-w8").to_string(), "gptq-w8-g64-asym");
    }

    #[test]
    fn impossible_parts_are_named_in_the_error() {
        let message = |text: &str| text.parse::<FormatName>().unwrap_err().to_string();
        assert!(message("awq-g0").contains("`g0` is not a group size"));
        assert!(message("awq-g99999999999").contains("group size"));
        assert!(message("awq-w0-g64").contains("`w0`"));
        assert!(message("awq-g64-zzz").contains("`zzz`"));
        assert!(message("awq-g64-g32").contains("the grouping is given twice"));
        assert!(message("").contains("``"));
        assert!(message("awq--g64").contains("``"));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_names_round_trip(text in "[a-z0-9_-]{0,24}|.{0,24}") {
            if let Ok(name) = text.parse::<FormatName>() {
                prop_assert_eq!(&name, &name.to_string().parse::<FormatName>().unwrap());
            }
        }
    }
}
