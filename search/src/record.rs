//! What is stored of a winner.

use crate::explain::derivation;
use crate::judge::{Judgement, Lost, Won};
use crate::report::DEFAULT_LOST;
use crate::request::{Task, TuneRequest};
use qtune_cache::{Beaten, Counts, Extent, Kernel, Provenance, Verification, Winner};
use qtune_verify::Verdict;
use std::time::{SystemTime, UNIX_EPOCH};

/// Losers that are remembered with a winner, the default schedule not counted.
const BEATEN_KEPT: usize = 8;
/// Longest reason that is remembered, in characters.
const REASON_CHARS: usize = 300;

/// The record of a winner and its code.
pub(crate) fn record(
    task: &Task,
    won: &Won,
    judgement: &Judgement,
    request: &TuneRequest,
    (compiler, device): (&str, &str),
) -> (Winner, Kernel) {
    let candidate = &won.finalist.candidate;
    let estimate = &candidate.estimate;
    let winner = Winner {
        schedule: candidate.text.clone(),
        family: candidate.schedule.family().name().into(),
        evidence: won.evidence,
        time_us: won.time_us,
        samples_us: won.samples_us.clone(),
        // Neither can be beaten: the longer of the two is the roof.
        roof_share: estimate.roof_us.max(judgement.load_only_us.unwrap_or(0.0)) / won.time_us,
        load_only_us: judgement.load_only_us,
        verified: won.verdict.passed,
        error_over_bound: won.verdict.error_over_bound,
        extent: if judgement.cut_short { Extent::CutShort } else { request.effort.extent() },
        verification: verification(&won.verdict, request.seed),
        counts: counts(&won.verdict.counts),
        cost_terms: estimate.terms.iter().map(|t| (t.name.to_owned(), t.us)).collect(),
        beat: beaten(&judgement.lost),
        derivation: derivation(&task.problem, &task.spec, &candidate.schedule),
        provenance: provenance(compiler, device),
    };
    let image = &won.finalist.image;
    let kernel = Kernel {
        source: image.kernel.source.clone(),
        ptx: image.ptx.clone(),
        cubin: image.cubin.clone(),
    };
    (winner, kernel)
}

fn verification(verdict: &Verdict, seed: u64) -> Verification {
    let cases: Vec<String> = verdict
        .cases
        .iter()
        .map(|case| format!("m {}: {} outputs", case.m, case.outputs_checked))
        .collect();
    let share = 100.0 * verdict.share_of_blocks_run;
    let cases = format!("full check, {}, {share:.1} % of thread blocks", cases.join(", "));
    Verification { seeds: vec![seed], cases }
}

fn counts(counts: &qtune_verify::Counts) -> Counts {
    Counts {
        lane_instructions_per_weight: counts.lane_instructions_per_weight,
        shared_wavefronts_over_ideal: counts.shared_wavefronts_over_ideal,
        global_sectors_over_ideal: counts.global_sectors_over_ideal,
        weight_bytes_over_compulsory: counts.weight_bytes_over_compulsory,
        bytes_in_flight_per_sm: counts.bytes_in_flight_per_sm,
        registers: counts.registers,
        spill_bytes: counts.spill_bytes,
        shared_bytes: counts.shared_bytes.into(),
    }
}

/// The best losers, and the default schedule wherever it ended.
fn beaten(lost: &[Lost]) -> Vec<Beaten> {
    let kept = lost
        .iter()
        .enumerate()
        .filter(|(rank, lost)| *rank < BEATEN_KEPT || lost.reason.starts_with(DEFAULT_LOST));
    let beaten = |(_, lost): (usize, &Lost)| Beaten {
        schedule: lost.text.clone(),
        time_us: lost.time_us,
        reason: lost.reason.chars().take(REASON_CHARS).collect(),
    };
    kept.map(beaten).collect()
}

fn provenance(compiler: &str, device: &str) -> Provenance {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Provenance {
        host: host.trim().to_owned(),
        device: device.into(),
        created_unix_seconds: now.map_or(0, |elapsed| elapsed.as_secs()),
        qtune_version: env!("CARGO_PKG_VERSION").into(),
        compiler_version: compiler.into(),
    }
}
