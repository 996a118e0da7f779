//! Activations that show different mistakes.

use crate::random;
use half::{bf16, f16};
use qtune_ir::DType;

/// What the activations of a launch look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Bell-shaped, variance 1: what models feed.
    Normal,
    /// All ones: every weight counts with the same sign, so a lost or doubled part shows.
    Constant,
    /// Standard deviation 256: overflows accumulators that are too narrow.
    Large,
    /// Around 2^-12: loses accumulators that underflow.
    Tiny,
    /// Token `t` is 1 at `columns[t]`, else 0: reads one column of weights back.
    OneHot {
        /// One column per token.
        columns: Vec<u32>,
    },
}

impl Pattern {
    /// A word for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Pattern::Normal => "normal",
            Pattern::Constant => "constant",
            Pattern::Large => "large",
            Pattern::Tiny => "tiny",
            Pattern::OneHot { .. } => "one-hot",
        }
    }

    /// Most activations of a token that are not zero.
    pub fn products(&self) -> u32 {
        match self {
            Pattern::OneHot { .. } => 1,
            _ => u32::MAX,
        }
    }

    fn value(&self, seed: u64, token: u32, column: u32) -> f32 {
        let bell = || random::bell(random::at(seed, token, column));
        match self {
            Pattern::Normal => bell(),
            Pattern::Constant => 1.0,
            Pattern::Large => 256.0 * bell(),
            Pattern::Tiny => bell() / 4096.0,
            Pattern::OneHot { columns } => (columns[token as usize] == column).into(),
        }
    }
}

/// Activations `[M, K]`, exact values of their element type.
#[derive(Clone, Debug)]
pub(crate) struct Activations {
    /// What they look like.
    pub pattern: Pattern,
    /// Row-major values.
    values: Vec<f32>,
    k: usize,
}

impl Activations {
    /// The activations of a pattern, rounded to `dtype`.
    pub fn new(pattern: Pattern, seed: u64, tokens: u32, k: u32, dtype: DType) -> Activations {
        let mut values = Vec::with_capacity(tokens as usize * k as usize);
        for token in 0..tokens {
            values.extend((0..k).map(|c| round(dtype, pattern.value(seed, token, c))));
        }
        Activations { pattern, values, k: k as usize }
    }

    /// The activations of one token.
    pub fn token(&self, token: u32) -> &[f32] {
        &self.values[token as usize * self.k..][..self.k]
    }

    /// The bytes a kernel reads.
    pub fn encode(&self, dtype: DType) -> Vec<u8> {
        encode(&self.values, dtype)
    }
}

fn round(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::Bf16 => bf16::from_f32(value).to_f32(),
        DType::F32 => value,
    }
}

/// `values` as little-endian elements of `dtype`.
pub(crate) fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
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
            for pattern in [Pattern::Normal, Pattern::Large, Pattern::Tiny] {
                let x = Activations::new(pattern, 5, 2, 24, dtype);
                let bytes = x.encode(dtype);
                for token in 0..2 {
                    for (k, value) in x.token(token).iter().enumerate() {
                        let stored = decode(&bytes, token as usize * 24 + k, dtype);
                        assert_eq!(stored, f64::from(*value));
                    }
                }
            }
        }
    }

    #[test]
    fn one_hot_tokens_have_a_single_one() {
        let x = Activations::new(Pattern::OneHot { columns: vec![3, 0] }, 0, 2, 8, DType::F16);
        assert_eq!(x.token(0), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(x.token(1)[0], 1.0);
    }
}
