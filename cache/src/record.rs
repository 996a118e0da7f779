//! What the cache remembers, as the rest of qtune sees it.

use std::time::Duration;

use qtune_ir::{Arch, Problem};
use serde::{Deserialize, Serialize};

use crate::blob::Digest;
use crate::error::CacheError;

/// Longest part of a key in bytes. Problem keys take about 60, whole arch fingerprints a few
/// hundred.
const KEY_PART_BYTES_MAX: usize = 2048;

/// Separates the parts of a key in the store; no part may hold it.
const SEPARATOR: u8 = 0;

/// What a winner is the answer to. All of it must match: a winner under another fingerprint was
/// made by another generator or compiler and is stale.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WinnerKey {
    /// Problem key, such as `w4a16.awq-g128.f16-f16.n27648.k5120.m16`.
    pub problem: String,
    /// Arch, such as `sm90a.132`, or a whole arch fingerprint for measured winners.
    pub arch: String,
    /// BLAKE3 (hex) of generator, format spec and compiler version, made by the caller.
    pub fingerprint: String,
}

/// What the fingerprints of replayed trial logs begin with.
const REPLAY: &str = "replay-";

impl WinnerKey {
    /// The key of `problem` on `arch`. The whole arch counts: GPUs of the same feature level and SM
    /// count still differ in bandwidth and clocks.
    pub fn of(problem: &Problem, arch: &Arch, fingerprint: String) -> WinnerKey {
        WinnerKey { problem: problem.to_string(), arch: arch.fingerprint(), fingerprint }
    }

    /// The same for what was found by replaying a trial log. No generator or compiler has such a
    /// fingerprint, so that it is never served as a kernel, and never takes one's place.
    #[must_use]
    pub fn of_replay(self) -> WinnerKey {
        WinnerKey { fingerprint: format!("{REPLAY}{}", self.fingerprint), ..self }
    }

    /// Whether it is the key of something that was found by replaying a trial log.
    pub fn is_replay(&self) -> bool {
        is_replay(&self.fingerprint)
    }

    /// The key in the store: problem, arch and fingerprint, each ended by a zero byte except the
    /// last, so that all fingerprints of one problem and arch lie side by side.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, CacheError> {
        check_part("fingerprint", &self.fingerprint)?;
        let mut bytes = key_prefix(&self.problem, &self.arch)?;
        bytes.extend_from_slice(self.fingerprint.as_bytes());
        Ok(bytes)
    }
}

/// Whether a fingerprint is of a replayed trial log.
pub(crate) fn is_replay(fingerprint: &str) -> bool {
    fingerprint.starts_with(REPLAY)
}

/// What all keys of one problem and arch begin with.
pub(crate) fn key_prefix(problem: &str, arch: &str) -> Result<Vec<u8>, CacheError> {
    check_part("problem", problem)?;
    check_part("arch", arch)?;
    let mut bytes = Vec::with_capacity(problem.len() + arch.len() + 2 + 64);
    for part in [problem, arch] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(SEPARATOR);
    }
    Ok(bytes)
}

/// Refuses parts of a key that would make keys ambiguous or unprintable.
pub(crate) fn check_part(field: &'static str, part: &str) -> Result<(), CacheError> {
    let bad = |reason: String| Err(CacheError::BadKey { field, reason });
    if part.is_empty() {
        return bad("is empty".into());
    }
    if part.len() > KEY_PART_BYTES_MAX {
        return bad(format!("has {} bytes, the limit is {KEY_PART_BYTES_MAX}", part.len()));
    }
    if part.chars().any(char::is_control) {
        return bad(format!("{part:?} has a control character in it"));
    }
    Ok(())
}

/// Where a time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Computed by the cost model; verified in the simulator.
    Modelled,
    /// Measured on a GPU.
    Timed,
}

/// How far the search went that found a winner, in the order in which more was tried.
///
/// Schema version 4 stored whether the search was cut short, in the byte that is now the variant: the
/// first two variants are what it knew, so that its records are read as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// To its end, with an effort that nobody wrote down. It counts as less than any effort.
    Unrecorded,
    /// It was stopped before it had tried all that it wanted to.
    CutShort,
    /// To its end, with a few candidates for each problem.
    Quick,
    /// To its end, with what a first tuning takes.
    Normal,
    /// To its end, with several times as many.
    Full,
}

impl Extent {
    /// Whether the search came to its end.
    pub fn is_whole(self) -> bool {
        self != Extent::CutShort
    }

    /// The word that records use.
    pub fn name(self) -> &'static str {
        match self {
            Extent::Unrecorded => "unrecorded",
            Extent::CutShort => "cut_short",
            Extent::Quick => "quick",
            Extent::Normal => "normal",
            Extent::Full => "full",
        }
    }
}

/// How a winner was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Seeds of the random inputs.
    pub seeds: Vec<u64>,
    /// The cases in words, such as `m 1,7,16 x random,one-hot,ragged: 9 passed`.
    pub cases: String,
}

/// The counts that decide a kernel's speed; `docs/` defines each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// SASS instructions of all lanes in weight loops over weights consumed.
    pub lane_instructions_per_weight: f64,
    /// Shared-memory wavefronts over the fewest possible.
    pub shared_wavefronts_over_ideal: f64,
    /// Global sectors requested over the fewest possible.
    pub global_sectors_over_ideal: f64,
    /// Weight bytes requested over the packed weight bytes.
    pub weight_bytes_over_compulsory: f64,
    /// Bytes of loads outstanding per SM in the steady state.
    pub bytes_in_flight_per_sm: u64,
    /// Registers per thread.
    pub registers: u32,
    /// Local memory per thread used by spills, in bytes.
    pub spill_bytes: u32,
    /// Shared memory per thread block, static and dynamic, in bytes.
    pub shared_bytes: u64,
}

/// A candidate the winner was preferred to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beaten {
    /// Its schedule.
    pub schedule: String,
    /// Its time in microseconds, by the winner's kind of evidence.
    pub time_us: f64,
    /// Why it lost, in words.
    pub reason: String,
}

/// Who made a winner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name of the machine.
    pub host: String,
    /// The device that verified and timed it, in words.
    pub device: String,
    /// Seconds since 1970.
    pub created_unix_seconds: u64,
    /// Version of qtune.
    pub qtune_version: String,
    /// Version of NVRTC.
    pub compiler_version: String,
}

/// The best kernel found for a key, with the evidence for it. Its code is a [`Kernel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// The schedule on one line; with the problem it gives the CUDA text byte for byte.
    pub schedule: String,
    /// `gemv`, `mma`, `wgmma` or `dequant`.
    pub family: String,
    /// Where `time_us` comes from.
    pub evidence: Evidence,
    /// Time of one launch in microseconds.
    pub time_us: f64,
    /// The samples that `time_us` is the median of, in the order taken; empty for a model's time.
    pub samples_us: Vec<f64>,
    /// Share of the roof reached, 0 to 1.
    pub roof_share: f64,
    /// Measured time in microseconds of the load-only twin, which reads the same packed bytes in the
    /// same thread blocks and computes nothing; `None` for a model's time.
    pub load_only_us: Option<f64>,
    /// Whether the full check passed; a winner is stored only if it did.
    pub verified: bool,
    /// Largest measured error over its bound; a winner is stored only if it is at most 1.
    pub error_over_bound: f64,
    /// How far the search went. A winner of any extent is as right as any other, but may be slower
    /// than what a search finds that goes further.
    pub extent: Extent,
    /// How it was verified.
    pub verification: Verification,
    /// What the cost model and the targets look at.
    pub counts: Counts,
    /// Terms of the cost model: name and value, in the model's order.
    pub cost_terms: Vec<(String, f64)>,
    /// The candidates it beat, best first.
    pub beat: Vec<Beaten>,
    /// Names of the rewrite rules that led to it, in order.
    pub derivation: Vec<String>,
    /// Who made it.
    pub provenance: Provenance,
}

impl Winner {
    /// Refuses a winner without evidence that it is right.
    pub(crate) fn check_evidence(&self, problem: &str) -> Result<(), CacheError> {
        let refuse =
            |reason: String| Err(CacheError::Unverified { problem: problem.to_string(), reason });
        if !self.verified {
            return refuse("it was not verified".into());
        }
        if !(0.0..=1.0).contains(&self.error_over_bound) {
            return refuse(format!("its error over the bound is {}", self.error_over_bound));
        }
        Ok(())
    }
}

/// The code of a winner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// CUDA C++ text.
    pub source: String,
    /// PTX text.
    pub ptx: String,
    /// Machine code for the arch.
    pub cubin: Vec<u8>,
}

/// Where a winner's code is: digests of blobs, each stored once however many winners share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRefs {
    /// Digest of [`Kernel::source`].
    pub source: Digest,
    /// Digest of [`Kernel::ptx`].
    pub ptx: Digest,
    /// Digest of [`Kernel::cubin`].
    pub cubin: Digest,
}

impl BlobRefs {
    /// The digests of `kernel`'s parts.
    pub fn of(kernel: &Kernel) -> Self {
        Self {
            source: Digest::of(kernel.source.as_bytes()),
            ptx: Digest::of(kernel.ptx.as_bytes()),
            cubin: Digest::of(&kernel.cubin),
        }
    }
}

/// A winner as it is stored. The key is part of the record, so that a record found under a key
/// that is not its own is recognised as damage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WinnerRecord {
    /// What it is the answer to.
    pub key: WinnerKey,
    /// The winner.
    pub winner: Winner,
    /// Its code.
    pub blobs: BlobRefs,
}

/// A schedule that crashed, hung or never came back and must not be launched again, or whose compile
/// took too long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Poisoned {
    /// Problem key.
    pub problem: String,
    /// Arch it was launched on.
    pub arch: String,
    /// The schedule.
    pub schedule: String,
    /// What happened, in words.
    pub reason: String,
    /// Seconds within which it did not compile: it may be tried again where compiles may take longer.
    /// `None` for what must never be tried again.
    pub compile_limit_s: Option<u64>,
}

impl Poisoned {
    /// Whether the schedule is out where a compile may take `limit`; `None` is no limit at all.
    pub fn holds_for(&self, limit: Option<Duration>) -> bool {
        match (self.compile_limit_s, limit) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(failed), Some(limit)) => limit <= Duration::from_secs(failed),
        }
    }

    /// Whether this entry keeps a schedule out for longer than `other`, of the same schedule: for ever
    /// before any limit, then the longer limit, then the reason that sorts first. A total order, so
    /// that the order in which entries meet does not show.
    pub(crate) fn outlasts(&self, other: &Poisoned) -> bool {
        let limit = |entry: &Poisoned| entry.compile_limit_s.unwrap_or(u64::MAX);
        (limit(self), &other.reason) > (limit(other), &self.reason)
    }

    /// The key in the store.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, CacheError> {
        check_part("schedule", &self.schedule)?;
        let mut bytes = key_prefix(&self.problem, &self.arch)?;
        bytes.extend_from_slice(self.schedule.as_bytes());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compile_that_took_too_long_is_out_until_it_may_take_longer() {
        let entry = |compile_limit_s| Poisoned {
            problem: "p".into(),
            arch: "a".into(),
            schedule: "s".into(),
            reason: "r".into(),
            compile_limit_s,
        };
        let limits = [Some(30), Some(60), Some(61), None].map(|s| s.map(Duration::from_secs));
        let held = |entry: Poisoned| limits.map(|limit| entry.holds_for(limit));
        assert_eq!(held(entry(Some(60))), [true, true, false, false]);
        assert_eq!(held(entry(None)), [true; 4]);
        assert!(
            entry(None).outlasts(&entry(Some(60))) && entry(Some(60)).outlasts(&entry(Some(30)))
        );
        assert!(!entry(Some(60)).outlasts(&entry(Some(60))));
    }

    #[test]
    fn parts_of_a_key_cannot_run_into_each_other() {
        let key = |problem: &str, arch: &str| WinnerKey {
            problem: problem.into(),
            arch: arch.into(),
            fingerprint: "f".into(),
        };
        let ab_c = key("ab", "c").to_bytes().unwrap();
        let a_bc = key("a", "bc").to_bytes().unwrap();
        assert_ne!(ab_c, a_bc);
        assert!(ab_c.starts_with(&key_prefix("ab", "c").unwrap()));
        assert!(!ab_c.starts_with(&key_prefix("a", "b").unwrap()));
    }

    #[test]
    fn empty_long_and_unprintable_parts_are_refused_by_name() {
        for part in ["", "a\0b", "a\nb", &"x".repeat(KEY_PART_BYTES_MAX + 1)] {
            let key = WinnerKey { problem: "p".into(), arch: part.into(), fingerprint: "f".into() };
            let message = key.to_bytes().unwrap_err().to_string();
            assert!(message.starts_with("cache key: arch"), "{message}");
            assert!(!message.contains('\0') && !message.contains('\n'), "{message:?}");
        }
    }
}
