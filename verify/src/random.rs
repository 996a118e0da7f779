//! Seeded random numbers by position: the value at an index never depends on which others were
//! asked for, so a sample of a matrix is the same matrix.

/// SplitMix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014): a bijection whose outputs pass statistical tests for consecutive inputs.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 random bits for a seed and a position in a matrix.
pub(crate) fn at(seed: u64, row: u32, column: u32) -> u64 {
    mix(mix(seed) ^ (u64::from(row) << 32 | u64::from(column)))
}

/// Uniform in `[0, 1)` from the high bits.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Close to a standard normal: the sum of four uniform 16-bit numbers, scaled to variance 1. A
/// tenth of the price of an exact normal, and the checks only need a bell of known width.
pub(crate) fn bell(bits: u64) -> f32 {
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
    // Four uniforms on [0, 65535]: mean 2 * 65535, variance 4 * 65536^2 / 12.
    (sum as f32 - 131_070.0) * (1.732_050_8 / 65_536.0)
}

/// A seeded order of `0..count` (Fisher and Yates; Durstenfeld, CACM 7(7), 1964), rising within each
/// `group`: as a loader sorts columns by quant group.
pub fn permutation(seed: u64, count: u32, group: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last as usize, (at(seed, last, 0) % u64::from(last + 1)) as usize);
    }
    order.chunks_mut(group as usize).for_each(|group| group.sort_unstable());
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_has_mean_zero_and_variance_one() {
        let values: Vec<f64> = (0..40_000).map(|i| f64::from(bell(at(7, i, 3)))).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn permutations_hold_everything_once_in_seeded_order() {
        let order = permutation(3, 500, 20);
        assert_ne!(order, permutation(4, 500, 20));
        assert!(order.chunks(20).all(|group| group.is_sorted()));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..500) && order[0] != 0);
    }

    #[test]
    fn rows_columns_and_seeds_all_matter() {
        let values = [at(1, 2, 3), at(1, 3, 2), at(2, 2, 3), at(1, 2, 4)];
        let distinct: std::collections::BTreeSet<_> = values.iter().collect();
        assert_eq!(distinct.len(), values.len());
    }
}
