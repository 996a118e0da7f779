//! GPUs as one typed value that every part of the compiler asks: limits, rates, and which
//! instructions exist. Passes never compare compute capabilities themselves.
//!
//! Sources: CUDA C++ Programming Guide, "Compute Capabilities" (limits per SM) and "Arithmetic
//! Instructions" (rates); vendor data sheets (clocks, bandwidth, peak rates).

use std::fmt;

/// One GPU: what it can execute and how fast.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Arch {
    /// Name in qtune's command line, such as `h200`.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (u8, u8),
    /// Feature suffix of the compile target: `a`, or empty.
    pub suffix: String,
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Sustained SM clock in GHz.
    pub clock_ghz: f64,
    /// Nominal DRAM bandwidth in GB/s.
    pub dram_gb_per_s: f64,
    /// L2 capacity in bytes.
    pub l2_bytes: u64,
    /// L2 to SM bandwidth in bytes per clock and SM.
    pub l2_bytes_per_clock: f64,
    /// Multiply-accumulates per clock and SM that `mma.sync` with f32 accumulation reaches.
    pub mma_macs_per_clock: f64,
    /// Limits of one SM.
    pub sm: SmLimits,
    /// Warp instructions per clock and SM, by pipe.
    pub rates: Rates,
    /// Whether cuBLASLt can be called where kernels run: a device that opened it says so, nothing else
    /// does. No part of [`Arch::fingerprint`]: what needs it is refused by [`crate::Schedule::check`]
    /// where it is missing, and everything else is the same with and without it.
    #[serde(default)]
    pub library: bool,
}

/// Per-SM limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SmLimits {
    /// Shared memory in bytes.
    pub shared_bytes: u32,
    /// Shared memory that one thread block may have (opt-in maximum), in bytes.
    pub shared_per_block: u32,
    /// Resident warps.
    pub warps: u32,
    /// Resident thread blocks.
    pub blocks: u32,
    /// 32-bit registers.
    pub registers: u32,
}

/// Warp instructions per clock and SM.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rates {
    /// Scheduler slots.
    pub issue: f64,
    /// Integer add, logic, shift, byte permute.
    pub int: f64,
    /// f32 fused multiply-add.
    pub fp32: f64,
    /// Packed f16 arithmetic.
    pub half2: f64,
    /// Packed bf16 arithmetic.
    pub bf162: f64,
    /// Integer to float and float to float conversions.
    pub convert: f64,
}

/// Multiply-accumulates per clock and SM of `wgmma` with 16-bit operands: N/2 cycles for each
/// m64nNk16.
pub const WGMMA_MACS_PER_CLOCK: f64 = 2048.0;

/// Shared memory that the system takes from every thread block, in bytes.
pub const SHARED_RESERVE: u32 = 1024;

/// An unknown GPU name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown GPU `{name}`; known: {}", known.join(", "))]
pub struct UnknownGpu {
    /// The name given.
    pub name: String,
    /// The names that exist.
    pub known: Vec<&'static str>,
}

/// One row per GPU: name, capability, suffix, SMs, GHz, GB/s, L2 MiB, mma MAC/clk/SM.
type Row = (&'static str, (u8, u8), &'static str, u32, f64, f64, u64, f64);

/// Peak rates are dense f16 with f32 accumulation. On Hopper `mma.sync` reaches about 62 % of the
/// 2048 MAC/clk/SM of `wgmma`; on sm_100 the legacy path is far below `tcgen05` and taken as equal
/// to Hopper's.
const TABLE: &[Row] = &[
    ("a100", (8, 0), "", 108, 1.41, 2039.0, 40, 1024.0),
    ("a10", (8, 6), "", 72, 1.695, 600.0, 6, 512.0),
    ("rtx3090", (8, 6), "", 82, 1.695, 936.0, 6, 256.0),
    ("l4", (8, 9), "", 58, 2.04, 300.0, 48, 512.0),
    ("l40s", (8, 9), "", 142, 2.52, 864.0, 96, 512.0),
    ("rtx4090", (8, 9), "", 128, 2.52, 1008.0, 72, 256.0),
    ("h100", (9, 0), "a", 132, 1.83, 3350.0, 50, 1270.0),
    ("h100-pcie", (9, 0), "a", 114, 1.62, 2039.0, 50, 1270.0),
    ("h200", (9, 0), "a", 132, 1.83, 4800.0, 50, 1270.0),
    ("b200", (10, 0), "a", 148, 1.86, 7700.0, 126, 1270.0),
    ("rtx5090", (12, 0), "", 170, 2.41, 1792.0, 96, 256.0),
    ("rtx-pro-6000", (12, 0), "", 188, 2.62, 1792.0, 128, 512.0),
];

impl Arch {
    /// The GPU called `name`, in any case.
    ///
    /// # Errors
    /// [`UnknownGpu`] lists the names that exist.
    pub fn named(name: &str) -> Result<Arch, UnknownGpu> {
        let wanted = name.to_ascii_lowercase();
        let row = TABLE.iter().find(|row| row.0 == wanted);
        row.map(Arch::from_row)
            .ok_or_else(|| UnknownGpu { name: name.into(), known: Arch::names().collect() })
    }

    /// Every known GPU name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.0)
    }

    fn from_row(row: &Row) -> Arch {
        let &(name, capability, suffix, sm_count, clock_ghz, dram_gb_per_s, l2_mib, macs) = row;
        Arch {
            name: name.into(),
            capability,
            suffix: suffix.into(),
            sm_count,
            clock_ghz,
            dram_gb_per_s,
            l2_bytes: l2_mib << 20,
            l2_bytes_per_clock: 64.0,
            mma_macs_per_clock: macs,
            sm: SmLimits::of(capability),
            rates: Rates::of(capability),
            library: false,
        }
    }

    /// A device that is not in the table: limits and rates by compute capability, the rest as the
    /// driver reports it. `name` is free text and never looked up.
    pub fn from_driver(
        name: &str,
        capability: (u8, u8),
        sm_count: u32,
        clock_ghz: f64,
        dram_gb_per_s: f64,
        l2_bytes: u64,
    ) -> Arch {
        let like = TABLE.iter().find(|row| row.1 == capability);
        let like = like.or_else(|| TABLE.iter().rev().find(|row| row.1 .0 <= capability.0));
        let like = Arch::from_row(like.unwrap_or(&TABLE[0]));
        let suffix = if matches!(capability, (9, 0) | (10, 0)) { "a" } else { "" };
        Arch {
            name: name.into(),
            capability,
            suffix: suffix.into(),
            sm_count,
            clock_ghz,
            dram_gb_per_s,
            l2_bytes,
            sm: SmLimits::of(capability),
            rates: Rates::of(capability),
            ..like
        }
    }

    /// The compile target, such as `sm_90a`.
    pub fn target(&self) -> String {
        format!("sm_{}{}{}", self.capability.0, self.capability.1, self.suffix)
    }

    /// The part of a problem key that names the arch: feature level and SM count, `sm90a.132`.
    pub fn key(&self) -> String {
        format!("sm{}{}{}.{}", self.capability.0, self.capability.1, self.suffix, self.sm_count)
    }

    /// Everything that decides a kernel's speed, for cache keys: two GPUs with the same
    /// [`Arch::key`] may still differ in bandwidth or clocks.
    pub fn fingerprint(&self) -> String {
        format!(
            "{}.{:.0}MHz.{:.0}GBs.L2-{}M",
            self.key(),
            self.clock_ghz * 1000.0,
            self.dram_gb_per_s,
            self.l2_bytes >> 20
        )
    }

    /// Whether an instruction converts pairs of 8-bit floats to f16 (PTX ISA 9.7.9, `cvt` from `e4m3x2`).
    pub fn converts_float8(&self) -> bool {
        self.capability >= (8, 9)
    }

    /// Whether tensor cores multiply 8-bit floats (PTX ISA, `mma` with `.e4m3`).
    pub fn multiplies_float8(&self) -> bool {
        self.capability >= (8, 9)
    }

    /// Whether a warp's multiply of 8-bit floats is an instruction of its own: on data-center GPUs since
    /// sm_90 it is made of conversions to f16 and two multiplies of those, as their machine code shows.
    pub fn has_float8_mma(&self) -> bool {
        self.multiplies_float8() && !matches!(self.capability.0, 9 | 10)
    }

    /// Whether warpgroups can multiply (`wgmma`): sm_90a alone has it.
    pub fn has_wgmma(&self) -> bool {
        self.capability == (9, 0) && self.suffix == "a"
    }

    /// Multiply-accumulates per clock and SM that the fastest 16-bit tensor instruction reaches.
    #[must_use]
    pub fn peak_macs_per_clock(&self) -> f64 {
        let wgmma = if self.has_wgmma() { WGMMA_MACS_PER_CLOCK } else { 0.0 };
        self.mma_macs_per_clock.max(wgmma)
    }

    /// Whether thread blocks can form clusters that see each other's shared memory.
    pub fn has_clusters(&self) -> bool {
        self.capability.0 >= 9
    }

    /// Whether one instruction copies or asks for many bytes (PTX ISA, `cp.async.bulk`).
    pub fn has_bulk_copies(&self) -> bool {
        self.capability.0 >= 9
    }

    /// Whether kernels may use programmatic dependent launch (`griddepcontrol`).
    pub fn has_dependent_launch(&self) -> bool {
        self.capability.0 >= 9
    }
}

impl SmLimits {
    fn of(capability: (u8, u8)) -> SmLimits {
        let (shared_kib, per_block_kib, warps, blocks) = match capability {
            (8, 0) => (164, 163, 64, 32),
            (8, 6) => (100, 99, 48, 16),
            (8, _) => (100, 99, 48, 24),
            (9 | 10, _) => (228, 227, 64, 32),
            _ => (100, 99, 48, 24),
        };
        SmLimits {
            shared_bytes: shared_kib << 10,
            shared_per_block: per_block_kib << 10,
            warps,
            blocks,
            registers: 65536,
        }
    }
}

impl Rates {
    fn of(capability: (u8, u8)) -> Rates {
        let (fp32, half2, bf162) = match capability {
            (8, 0) => (2.0, 4.0, 2.0),
            (8, _) | (12, _) => (4.0, 2.0, 2.0),
            _ => (4.0, 4.0, 4.0),
        };
        Rates { issue: 4.0, int: 2.0, fp32, half2, bf162, convert: 2.0 }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {} SMs)", self.name, self.target(), self.sm_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_row_resolves_by_its_own_name_and_has_positive_rates() {
        for name in Arch::names() {
            let arch = Arch::named(&name.to_uppercase()).unwrap();
            assert_eq!(arch.name, name);
            assert!(arch.dram_gb_per_s > 0.0 && arch.mma_macs_per_clock > 0.0);
            assert!(arch.sm.shared_per_block < arch.sm.shared_bytes);
        }
    }

    #[test]
    fn h100_and_h200_share_a_key_but_not_a_fingerprint() {
        let (a, b) = (Arch::named("h100").unwrap(), Arch::named("h200").unwrap());
        assert_eq!(a.key(), b.key());
        assert_ne!(a.fingerprint(), b.fingerprint());
    }

    #[test]
    fn unknown_names_list_what_exists() {
        let message = Arch::named("h2000").unwrap_err().to_string();
        assert!(message.contains("h2000") && message.contains("rtx4090"));
    }
}
