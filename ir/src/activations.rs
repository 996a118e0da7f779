//! How activations are multiplied: as the 16-bit floats they are, or as codes of 8 bits that a kernel
//! makes of them first, with a scale for each token or one that the layer brings.
//!
//! # What a kernel computes
//!
//! Of the activations `x` of one token, in f32 with the rounding of IEEE 754 (nearest even) in each
//! step:
//!
//! 1. `largest = max(|x[0]|, .., |x[K-1]|, 2^-100)`: the least one makes all quotients finite and the
//!    codes of a token of zeros 0;
//! 2. `scale = largest / top` and `inverse = top / largest`, with `top` 127 or 448;
//! 3. `code[k] = round(x[k] * inverse)`, to the nearest integer from -128 to 127 or to the nearest e4m3
//!    up to 448, ties to even.
//!
//! Where the layer brings the scale (a static one, of calibration), there is no first step, and `inverse = 1 /
//! scale`: codes of activations that calibration did not see saturate in the third.
//!
//! Where each [`ACTIVATION_GROUP`] activations have a scale, the steps are those of each such group, and the
//! product of a row is the sum over groups of `sum(w[k] * code[k]) * (s * scale)`, with the scale `s` of the row's
//! quant group.
//!
//! The product of a row is then `sum(w[k] * code[k]) * (s * scale)` with the row's scale `s`. Checkpoints
//! whose activations are quantized per token are calibrated for this rule up to the choice of `top`
//! (127.5 in some libraries). The least code, -128, comes up with static scales alone.

use crate::dequant::e4m3_nearest;
use std::fmt;
use std::ops::RangeInclusive;

/// How activations are multiplied.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// As floats of 16 bits, with dequantized weights.
    #[default]
    Floats,
    /// As integers of 8 bits, by weights that are integers of 8 bits.
    Integers(ActivationScales),
    /// As e4m3 floats, by weights that are such floats.
    E4m3(ActivationScales),
}

/// What shares the scale of codes of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationScales {
    /// The activations of a token: a kernel finds their scale.
    Token,
    /// [`ACTIVATION_GROUP`] activations of a token, those that meet a quant group: a kernel finds their scale.
    Group,
    /// All that a layer ever gets: it brings their scale (static quantization).
    Layer,
}

/// Activations of a token that share a scale of [`ActivationScales::Group`] (DeepSeek-V3 technical report,
/// arXiv 2412.19437, section 3.3.2: tiles of 1 by 128).
pub const ACTIVATION_GROUP: u32 = 128;

/// Scales that a layer may bring: neither they nor what one of them divides leave the normal numbers.
pub const STATIC_SCALES: RangeInclusive<f32> = LEAST_LARGEST..=1.0 / LEAST_LARGEST;

/// What the largest activation of a token is taken for at least.
pub const LEAST_LARGEST: f32 = 1.0 / (1u128 << 100) as f32;

/// A token's codes.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedToken {
    /// What a code of 1 is worth.
    pub scale: f32,
    /// The codes as bytes: two's complement, or e4m3.
    pub codes: Vec<u8>,
}

impl Activations {
    /// How activations are quantized for weights of this expression, where its codes can be multiplied
    /// as they are.
    pub fn for_weight(expr: &str, scales: ActivationScales) -> Option<Activations> {
        let quantized = [Activations::Integers(scales), Activations::E4m3(scales)];
        quantized.into_iter().find(|scheme| scheme.weight() == Some(expr))
    }

    /// Whether they become codes.
    pub fn are_quantized(self) -> bool {
        self != Activations::Floats
    }

    /// Whether they become integers.
    pub fn are_integers(self) -> bool {
        matches!(self, Activations::Integers(_))
    }

    /// Whether they become floats of 8 bits.
    pub fn are_float8(self) -> bool {
        matches!(self, Activations::E4m3(_))
    }

    /// Whether each [`ACTIVATION_GROUP`] of them have a scale.
    pub fn are_grouped(self) -> bool {
        use ActivationScales::Group;
        matches!(self, Activations::Integers(Group) | Activations::E4m3(Group))
    }

    /// Whether the layer brings the scale of their codes.
    pub fn are_static(self) -> bool {
        use ActivationScales::Layer;
        matches!(self, Activations::Integers(Layer) | Activations::E4m3(Layer))
    }

    /// Bits in which they are multiplied.
    pub fn bits(self) -> u8 {
        match self {
            Activations::Floats => 16,
            Activations::Integers(_) | Activations::E4m3(_) => 8,
        }
    }

    /// The value that the largest activation of a token becomes; floats stay what they are.
    pub fn top(self) -> f32 {
        match self {
            Activations::Floats => 1.0,
            Activations::Integers(_) => 127.0,
            Activations::E4m3(_) => 448.0,
        }
    }

    /// The weight of a format whose codes can be multiplied as they are, as its expression has it;
    /// `None` where weights are dequantized.
    pub fn weight(self) -> Option<&'static str> {
        match self {
            Activations::Floats => None,
            Activations::Integers(_) => Some("(* (- q 128) s)"),
            Activations::E4m3(_) => Some("(* (e4m3 q) s)"),
        }
    }

    /// The sum that tensor cores compute of codes as they are, as a dequantization term; empty where
    /// weights are dequantized.
    pub fn sum(self) -> &'static str {
        match self {
            Activations::Floats => "",
            Activations::Integers(_) => "(sum (* (- (real q) 128) x))",
            Activations::E4m3(_) => "(sum (* (e4m3 q) x))",
        }
    }

    /// The only dequantization term of codes that are multiplied as they are: [`Activations::sum`]
    /// with the row's scale.
    pub fn term(self) -> String {
        format!("(* s {})", self.sum())
    }

    /// Whether the sums of each stage are added to totals in f32: tensor cores keep 13 to 14 bits of sums
    /// of 8-bit floats (DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3.2).
    pub fn sums_by_stage(self) -> bool {
        self.are_float8()
    }

    /// What turns a weight's stored code into the byte that is multiplied, by exclusive or: integers are
    /// stored with an offset of 128.
    pub fn code_flip(self) -> u8 {
        match self {
            Activations::Integers(_) => 0x80,
            Activations::Floats | Activations::E4m3(_) => 0,
        }
    }

    /// The code of an activation that is already divided by its scale.
    fn code(self, quotient: f32) -> u8 {
        match self {
            Activations::E4m3(_) => e4m3_nearest(quotient),
            // The cast is exact and saturates.
            Activations::Floats | Activations::Integers(_) => {
                quotient.round_ties_even() as i8 as u8
            }
        }
    }

    /// What a code stands for, without its scale.
    pub fn value(self, code: u8) -> f32 {
        match self {
            Activations::E4m3(_) => crate::dequant::e4m3(code) as f32,
            Activations::Floats | Activations::Integers(_) => f32::from(code as i8),
        }
    }

    /// The codes of a token's activations, by the very steps of a kernel: see the module's
    /// documentation. `given` is the scale where the layer brings it.
    pub fn quantize(self, activations: &[f32], given: Option<f32>) -> QuantizedToken {
        let (scale, inverse) = match given {
            Some(scale) => (scale, 1.0 / scale),
            None => {
                let largest = activations.iter().fold(LEAST_LARGEST, |most, x| most.max(x.abs()));
                (largest / self.top(), self.top() / largest)
            }
        };
        let codes = activations.iter().map(|x| self.code(x * inverse)).collect();
        QuantizedToken { scale, codes }
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Activations::Floats => return f.write_str("16-bit floats"),
            Activations::Integers(_) => "8-bit integers",
            Activations::E4m3(_) => "e4m3",
        };
        if self.are_grouped() {
            return write!(f, "{kind} per token and {ACTIVATION_GROUP} features");
        }
        let scales = if self.are_static() { "by the layer's scale" } else { "per token" };
        write!(f, "{kind} {scales}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUANTIZED: [Activations; 2] = [
        Activations::Integers(ActivationScales::Token),
        Activations::E4m3(ActivationScales::Token),
    ];

    #[test]
    fn the_largest_activation_becomes_the_largest_code() {
        for scheme in QUANTIZED {
            for largest in [1.0f32, 0.3, 65504.0, 6e-8, 3e38] {
                let token = scheme.quantize(&[largest, -largest, 0.0], None);
                let values = token.codes.iter().map(|code| scheme.value(*code));
                assert_eq!(values.collect::<Vec<_>>(), [scheme.top(), -scheme.top(), 0.0]);
                let back = f64::from(scheme.top()) * f64::from(token.scale);
                assert!((back / f64::from(largest) - 1.0).abs() < 1e-7, "{scheme} {largest}");
            }
        }
    }

    #[test]
    fn a_token_of_zeros_has_codes_of_zero_and_a_finite_scale() {
        for scheme in QUANTIZED {
            let token = scheme.quantize(&[0.0; 4], None);
            assert!(token.codes == [0; 4] && token.scale > 0.0 && token.scale.is_normal());
        }
    }

    #[test]
    fn codes_are_the_nearest_and_ties_go_to_even_ones() {
        let of = |x: f32| QUANTIZED[0].quantize(&[127.0, x], None).codes[1] as i8;
        assert_eq!([2.5, 3.5, -2.5, 2.51, -126.6].map(of), [2, 4, -2, 3, -127]);
    }

    #[test]
    fn activations_past_a_scale_that_is_given_saturate() {
        for scheme in QUANTIZED {
            let token = scheme.quantize(&[1e30, 0.5, -1e30], Some(0.25));
            let values = token.codes.iter().map(|code| scheme.value(*code));
            let least = if scheme.are_integers() { -128.0 } else { -448.0 };
            assert_eq!(values.collect::<Vec<_>>(), [scheme.top(), 2.0, least]);
            assert_eq!(token.scale, 0.25);
            for scale in [*STATIC_SCALES.start(), *STATIC_SCALES.end()] {
                assert!(scale.is_normal() && (1.0 / scale).is_normal());
            }
        }
    }

    #[test]
    fn terms_of_codes_as_they_are_parse() {
        for scheme in QUANTIZED {
            let term: crate::dequant::Term = scheme.term().parse().unwrap();
            assert!(term.runs_on().is_none() && crate::dequant::runs_on(scheme.sum()));
            assert_eq!(term.to_string(), scheme.term());
        }
    }
}
