//! Winners to store.

use qtune_cache::{
    Beaten, Counts, Evidence, Extent, Kernel, Provenance, Verification, Winner, WinnerKey,
};

/// A key whose parts follow from `n`.
pub fn key(n: u32) -> WinnerKey {
    WinnerKey {
        problem: format!("w4a16.awq-g128.f16-f16.n{n}.k5120.m16"),
        arch: "sm90a.132".into(),
        fingerprint: "f0".repeat(32),
    }
}

/// A winner that says it takes `time_us`.
pub fn winner(time_us: f64) -> Winner {
    Winner {
        schedule: format!("mma block=128x16x64 stages=4 t={time_us}"),
        family: "mma".into(),
        evidence: Evidence::Modelled,
        time_us,
        samples_us: Vec::new(),
        roof_share: 0.87,
        load_only_us: None,
        verified: true,
        error_over_bound: 0.25,
        extent: Extent::Normal,
        verification: Verification { seeds: vec![1, 2], cases: "m 1,16: 4 passed".into() },
        counts: Counts { registers: 96, ..Counts::default() },
        cost_terms: vec![("dram".into(), time_us * 0.9)],
        beat: vec![Beaten {
            schedule: "gemv".into(),
            time_us: time_us + 1.0,
            reason: "more instructions".into(),
        }],
        derivation: vec!["fma-of-minus-zero-scale".into()],
        provenance: Provenance::default(),
    }
}

/// Code that is the same for everyone plus some that follows from `n`, large enough for several
/// rows.
pub fn kernel(n: u32) -> Kernel {
    Kernel {
        source: "// the same source\n".repeat(400),
        ptx: format!("// ptx of {n}\n").repeat(9000),
        cubin: (0..50_000u32).map(|i| (i.wrapping_mul(n | 1) >> 3) as u8).collect(),
    }
}
