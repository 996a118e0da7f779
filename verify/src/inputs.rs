//! Activations that show different mistakes.

use crate::random;
use half::{bf16, f16};
use qtune_ir::{DType, QuantizedToken, ACTIVATION_GROUP};

/// What the activations of one token look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Bell-shaped, variance 1: what models feed.
    Normal,
    /// All ones: every weight counts with the same sign, so a lost or doubled part shows.
    Constant,
    /// Standard deviation 256: overflows accumulators that are too narrow.
    Large,
    /// Around 2^-12: loses accumulators that underflow.
    Tiny,
    /// All zeros: a token that has no largest activation.
    Zero,
    /// 1 at one column, else 0: reads that column of the weights back.
    OneHot(u32),
}

impl Pattern {
    /// A word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Normal => "normal",
            Pattern::Constant => "constant",
            Pattern::Large => "large",
            Pattern::Tiny => "tiny",
            Pattern::Zero => "zero",
            Pattern::OneHot(_) => "one-hot",
        }
    }

    fn value(self, seed: u64, token: u32, column: u32) -> f32 {
        let bell = || random::bell(random::at(seed, token, column));
        match self {
            Pattern::Normal => bell(),
            Pattern::Constant => 1.0,
            Pattern::Large => 256.0 * bell(),
            Pattern::Tiny => bell() / 4096.0,
            Pattern::Zero => 0.0,
            Pattern::OneHot(hot) => (hot == column).into(),
        }
    }
}

/// Activations `[M, K]`, exact values of their element type.
#[derive(Clone, Debug)]
pub(crate) struct Activations {
    /// What each token looks like.
    pub patterns: Vec<Pattern>,
    /// Row-major values.
    values: Vec<f32>,
    /// What kernels multiply instead, where they make codes of the values: values of the codes, and
    /// the scale of each token.
    codes: Option<(Vec<f32>, Vec<f32>)>,
    k: usize,
}

impl Activations {
    /// Activations by pattern, rounded to `dtype`.
    pub fn new(patterns: Vec<Pattern>, seed: u64, k: u32, dtype: DType) -> Activations {
        let mut values = Vec::with_capacity(patterns.len() * k as usize);
        for (token, pattern) in (0..).zip(&patterns) {
            values.extend((0..k).map(|c| round(dtype, pattern.value(seed, token, c))));
        }
        Activations { patterns, values, codes: None, k: k as usize }
    }

    /// As many activations as `patterns` say, from the bytes that a kernel reads. Nothing is known of how they
    /// look.
    pub fn stored(tokens: usize, bytes: &[u8], k: u32, dtype: DType) -> Activations {
        let values = (0..tokens * k as usize).map(|at| decode(bytes, at, dtype) as f32).collect();
        Activations { patterns: vec![Pattern::Normal; tokens], values, codes: None, k: k as usize }
    }

    /// The same as a kernel multiplies them; `given` is the scale where the layer brings it.
    pub fn quantized(self, scheme: qtune_ir::Activations, given: Option<f32>) -> Activations {
        if !scheme.are_quantized() {
            return self;
        }
        if scheme.are_grouped() {
            return self.quantized_by_group(scheme);
        }
        let tokens = self.values.chunks(self.k).map(|values| scheme.quantize(values, given));
        let tokens: Vec<QuantizedToken> = tokens.collect();
        let codes = tokens.iter().flat_map(|token| &token.codes);
        let values = codes.map(|code| scheme.value(*code)).collect();
        let scales = tokens.iter().map(|token| token.scale).collect();
        Activations { codes: Some((values, scales)), ..self }
    }

    /// The values of codes times the scales of their groups: units would not be those of tokens.
    fn quantized_by_group(self, scheme: qtune_ir::Activations) -> Activations {
        let tokens = self.values.chunks(self.k);
        let groups = tokens.flat_map(|token| token.chunks(ACTIVATION_GROUP as usize));
        let values = groups.flat_map(|group| {
            let QuantizedToken { scale, codes } = scheme.quantize(group, None);
            codes.into_iter().map(move |code| scheme.value(code) * scale)
        });
        let codes = Some((values.collect(), vec![1.0; self.patterns.len()]));
        Activations { codes, ..self }
    }

    /// What is multiplied for one token: its activations, or the values of their codes.
    pub fn token(&self, token: u32) -> &[f32] {
        let values = self.codes.as_ref().map_or(&self.values, |(codes, _)| codes);
        &values[token as usize * self.k..][..self.k]
    }

    /// What a 1 of [`Activations::token`] is worth.
    pub fn unit(&self, token: u32) -> f64 {
        self.codes.as_ref().map_or(1.0, |(_, scales)| scales[token as usize].into())
    }

    /// The pattern of one token.
    pub fn pattern(&self, token: u32) -> Pattern {
        self.patterns[token as usize]
    }

    /// The bytes a kernel reads.
    pub fn encode(&self, dtype: DType) -> Vec<u8> {
        dtype.encode(&self.values)
    }
}

fn round(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::Bf16 => bf16::from_f32(value).to_f32(),
        DType::F32 => value,
    }
}

/// Element `index` of little-endian elements of `dtype`.
pub(crate) fn decode(bytes: &[u8], index: usize, dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f64(),
        DType::Bf16 => bf16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f64(),
        DType::F32 => {
            let at = 4 * index;
            f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_activations_are_the_values_that_the_reference_uses() {
        for dtype in [DType::F16, DType::Bf16, DType::F32] {
            let patterns = vec![Pattern::Normal, Pattern::Large, Pattern::Tiny];
            let x = Activations::new(patterns, 5, 24, dtype);
            let bytes = x.encode(dtype);
            for token in 0..3 {
                for (k, value) in x.token(token).iter().enumerate() {
                    let stored = decode(&bytes, token as usize * 24 + k, dtype);
                    assert_eq!(stored, f64::from(*value));
                }
            }
        }
    }

    #[test]
    fn one_hot_tokens_have_a_single_one() {
        let x = Activations::new(vec![Pattern::OneHot(3), Pattern::OneHot(0)], 0, 8, DType::F16);
        assert_eq!(x.token(0), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(x.token(1)[0], 1.0);
    }
}
