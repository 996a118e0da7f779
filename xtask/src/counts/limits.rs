//! The limits that the counts of a default schedule are held to: on an H200, and of other GPUs that nothing spills
//! and loads are in flight.

use super::cases::{Case, GPU};
use qtune_ir::Family;
use std::fmt;

/// A limit on one count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Name of the count.
    pub count: &'static str,
    /// The value.
    pub value: f64,
    /// Whether it is the most, else the least.
    pub most: bool,
}

impl Limit {
    /// Whether a value keeps the limit.
    pub fn holds(&self, value: f64) -> bool {
        match self.most {
            true => value <= self.value,
            false => value >= self.value,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.most { "at most" } else { "at least" }, self.value)
    }
}

/// What holds up to a number of tokens, by that number.
type ByTokens = &'static [(u32, f64)];

/// Lane-instructions per weight at most: by format, then family, then tokens up to a number. Marlin's own
/// build takes 2.45 at 16 tokens and 3.36 at 64 (symmetric, groups of 128, machine code of its main
/// loop).
#[rustfmt::skip]
const INSTRUCTIONS: &[(&str, Family, ByTokens)] = &[
    ("gptq-g128", Family::Gemv, &[(1, 2.0), (4, 2.5)]),
    ("gptq-g128", Family::Mma, &[(8, 1.3), (16, 1.5), (64, 2.5)]),
    ("gptq-g128", Family::Wgmma, &[(64, 1.6), (256, 1.8)]),
    ("awq-g128", Family::Gemv, &[(1, 2.1), (4, 2.6)]),
    ("awq-g128", Family::Mma, &[(8, 1.4), (16, 1.6), (64, 2.6)]),
    ("awq-g128", Family::Wgmma, &[(64, 1.7), (256, 1.9)]),
    ("q4_k", Family::Gemv, &[(1, 2.6), (4, 3.1)]),
    ("q4_k", Family::Mma, &[(8, 2.0), (16, 2.2), (64, 3.2)]),
    ("q4_k", Family::Wgmma, &[(64, 2.2), (256, 2.4)]),
    ("nf4-b64", Family::Gemv, &[(1, 2.8), (4, 3.3)]),
    ("nf4-b64", Family::Mma, &[(8, 2.3), (16, 2.5), (64, 3.5)]),
    ("nf4-b64", Family::Wgmma, &[(64, 2.4), (256, 2.6)]),
];

/// Least K for which the limits on instructions are meant.
const LEAST_K: u32 = 4096;
/// Bytes of packed weights from which a matrix must keep many loads in flight, and how many. The design
/// asks it of 8 MB; the presets' next smaller shape keeps it, too.
const LARGE_MATRIX: u64 = 7 << 20;
const IN_FLIGHT: f64 = 40.0 * 1024.0;
/// Tokens from which tensor cores must be what binds.
const TENSOR_TOKENS: u32 = 256;

/// What a case may be blessed up to: short K, of which no instructions are asked, up to what longer K keeps.
pub fn of_blessing(case: &Case, family: Family) -> Vec<Limit> {
    of(&Case { k: case.k.max(LEAST_K), ..case.clone() }, family)
}

/// The limits of a case whose default schedule is of `family`.
pub fn of(case: &Case, family: Family) -> Vec<Limit> {
    let most = |count, value| Limit { count, value, most: true };
    let least = |count, value| Limit { count, value, most: false };
    let mut limits = vec![most("spill_bytes", 0.0), most("serialized", 0.0)];
    if u64::from(case.n) * u64::from(case.k) / 2 >= LARGE_MATRIX {
        limits.push(least("in_flight", IN_FLIGHT));
    }
    if case.gpu != GPU {
        return limits;
    }
    limits.extend([most("wavefronts", 1.02), most("sectors", 1.0), most("weight_bytes", 1.03)]);
    if family == Family::Wgmma && case.m >= TENSOR_TOKENS {
        limits.push(least("tensor_share", 0.85));
    }
    let row = INSTRUCTIONS.iter().find(|row| row.0 == case.format && row.1 == family);
    let bucket = row.and_then(|row| row.2.iter().find(|(tokens, _)| case.m <= *tokens));
    if let Some((_, value)) = bucket.filter(|_| case.k >= LEAST_K) {
        limits.push(most("instructions", *value));
    }
    limits
}
