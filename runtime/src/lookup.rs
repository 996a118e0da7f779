//! Which kernel serves a token count, and under which key a winner is stored.

use qtune_cache::WinnerKey;
use qtune_ir::{Arch, Problem, WeightSpec};

/// Token counts that kernels are tuned for. A kernel serves every count down to the next smaller
/// one; beyond the last, its kernel runs with more token tiles.
pub const BUCKETS: [u32; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// The bucket whose kernel serves `tokens` tokens.
pub fn bucket(tokens: u32) -> u32 {
    let last = BUCKETS[BUCKETS.len() - 1];
    BUCKETS.into_iter().find(|bucket| *bucket >= tokens).unwrap_or(last)
}

/// The key under which the winner for `problem` is stored. `compiler` is NVRTC's fingerprint.
pub fn winner_key(problem: &Problem, spec: &WeightSpec, arch: &Arch, compiler: &str) -> WinnerKey {
    WinnerKey::of(problem, arch, qtune_codegen::fingerprint(spec, compiler))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_count_has_the_smallest_bucket_that_holds_it() {
        assert_eq!([1, 2, 3, 9, 33, 64].map(bucket), [1, 2, 4, 16, 64, 64]);
        assert_eq!([65, 129, 1024].map(bucket), [128, 256, 1024]);
        assert_eq!([1025, 4096, 65536].map(bucket), [1024; 3]);
    }
}
