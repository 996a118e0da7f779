//! Noise that repeats: every draw follows from the seed, the schedule and its count.

use super::script::Entry;
use std::collections::BTreeMap;

/// What disturbs measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Noise {
    /// Standard deviation of a sample, as a share of its time.
    pub relative: f64,
    /// Share by which the clock gets slower with each sample of a problem...
    pub drift: f64,
    /// ...but at most by this.
    pub drift_most: f64,
}

/// Samples drawn so far.
#[derive(Debug)]
pub(super) struct Draws {
    noise: Noise,
    seed: u64,
    /// Samples of each schedule, and of each problem under an empty schedule.
    counts: BTreeMap<(String, String), u64>,
}

impl Draws {
    pub fn new(noise: Noise, seed: u64) -> Draws {
        Draws { noise, seed, counts: BTreeMap::new() }
    }

    /// The next sample of a schedule, in microseconds.
    pub fn sample(&mut self, problem: &str, schedule: &str, entry: &Entry) -> f64 {
        let count = self.count(problem, schedule);
        let drifted = self.noise.drift * self.count(problem, "") as f64;
        let state = self.seed ^ hash(problem).rotate_left(17) ^ hash(schedule).rotate_left(31);
        let draw = |which: u64| uniform(state, 4 * count + which);
        // Box and Muller, 1958.
        let normal = (-2.0 * draw(0).ln()).sqrt() * (std::f64::consts::TAU * draw(1)).cos();
        let mode = match entry.second_mode {
            Some((share, factor)) if draw(2) < share => factor,
            _ => 1.0,
        };
        let clock = 1.0 + drifted.min(self.noise.drift_most);
        // No GPU is ever done in no time, however wild the noise.
        entry.us * mode * clock * (1.0 + self.noise.relative * normal).max(0.1)
    }

    /// How often this was asked before.
    fn count(&mut self, problem: &str, schedule: &str) -> u64 {
        let count = self.counts.entry((problem.into(), schedule.into())).or_default();
        *count += 1;
        *count - 1
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv).
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The `index`-th number of a stream, above 0 and at most 1: SplitMix64 (Steele, Lea and Flood,
/// 2014), which gives any element of its sequence at once.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON
}

#[cfg(test)]
mod tests {
    use super::super::script::Fate;
    use super::*;

    fn entry(second_mode: Option<(f64, f64)>) -> Entry {
        Entry { fate: Fate::Fine, us: 10.0, second_mode, in_step_us: None }
    }

    fn samples(noise: Noise, seed: u64, entry: &Entry) -> Vec<f64> {
        let mut draws = Draws::new(noise, seed);
        (0..2000).map(|_| draws.sample("p", "s", entry)).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_and_the_spread_is_what_was_asked_for() {
        let noise = Noise { relative: 0.05, ..Noise::default() };
        let drawn = samples(noise, 1, &entry(None));
        assert_eq!(drawn, samples(noise, 1, &entry(None)));
        assert_ne!(drawn, samples(noise, 2, &entry(None)));
        let mean = drawn.iter().sum::<f64>() / 2000.0;
        let variance = drawn.iter().map(|us| (us - mean) * (us - mean)).sum::<f64>() / 2000.0;
        assert!((mean - 10.0).abs() < 0.05 && (variance.sqrt() - 0.5).abs() < 0.03);
    }

    #[test]
    fn modes_and_drift_are_as_scripted() {
        let drawn = samples(Noise::default(), 1, &entry(Some((0.3, 2.0))));
        let slow = drawn.iter().filter(|us| **us > 15.0).count();
        assert!((500..700).contains(&slow), "{slow}");
        let noise = Noise { drift: 0.001, drift_most: 0.1, ..Noise::default() };
        let drifted = samples(noise, 1, &entry(None));
        assert!(drifted[50] > drifted[0] && (drifted[1999] - 11.0).abs() < 1e-9);
    }
}
