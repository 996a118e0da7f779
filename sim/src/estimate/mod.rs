//! A static estimate of a kernel's time, for ranking candidates and catching regressions.
//!
//! The time is built from terms, each the time that one resource would take alone:
//!
//! ```text
//! time = launch + fill + norm(issue, int, imad, fp32, half2, bf162, convert, sfu, shuffle, tensor,
//!                             shared, warp, l2, dram, latency) + tail + fix-up
//! ```
//!
//! - Pipes: work of the busiest SM (`ceil(blocks / SMs)` blocks, the quantisation over SMs) over
//!   the pipe's rate. With fewer than four warps on an SM only that many sub-cores work.
//! - `dram`: all bytes at sustained bandwidth. `latency`: Little's law, bytes outstanding on all
//!   SMs per loaded DRAM latency. `l2`: 64 bytes per clock of each working SM.
//! - `warp`: stall cycles of one warp, times the rounds that blocks take turns in.
//! - `norm` is the p-norm with p = [`OVERLAP_EXPONENT`]: resources overlap, but imperfectly, so two
//!   terms of equal size cost 19 % more than one. What it adds to the largest term is shown as the
//!   term `overlap`.
//! - `tail`: the last, partial wave of blocks cannot draw bandwidth faster than its own loads in
//!   flight allow.
//!
//! Expect to be within 30 % at best; the order of candidates is what it is for. Every term grows
//! with its own input, and the time with every term.

mod machine;
mod occupancy;
#[cfg(test)]
mod tests;
mod workload;

pub use machine::{Machine, Rates};
pub use occupancy::{occupancy, BlockShape, Limit, Occupancy, SmLimits};
pub use workload::{BlockWork, Packed, SplitK, Workload};

use occupancy::SUB_CORES;
use serde::Serialize;

/// Exponent of the norm that joins overlapping terms.
pub const OVERLAP_EXPONENT: i32 = 4;
/// One dependent round trip through L2 between blocks, in microseconds: about 700 cycles for an
/// atomic and the read that follows it.
const L2_ROUND_TRIP_US: f64 = 0.4;

/// One part of the estimated time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Term {
    /// Its resource.
    pub name: &'static str,
    /// Microseconds.
    pub us: f64,
    /// How it came about, for people.
    pub detail: String,
}

/// An estimate with its reasons.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Microseconds from launch to completion.
    pub time_us: f64,
    /// The overlapping terms, the largest first, then the terms that add: `overlap`, `launch`,
    /// `fill`, `tail`, `fix-up`. Terms of less than a nanosecond are left out.
    pub terms: Vec<Term>,
    /// Name of the largest overlapping term.
    pub bound: &'static str,
    /// Resident blocks.
    pub occupancy: Occupancy,
}

/// Why there is no estimate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EstimateError {
    /// A block needs more than one SM has.
    #[error("a thread block does not fit on an SM, which runs out of {}", limit.describe())]
    DoesNotFit {
        /// What it needs too much of.
        limit: Limit,
    },
    /// A count, size or rate is negative, not finite, or zero where time is divided by it.
    #[error("{what} is {value}, which no kernel or GPU has")]
    BadInput {
        /// Which.
        what: &'static str,
        /// Its value.
        value: f64,
    },
}

/// How a grid spreads over the GPU.
struct Spread {
    /// Blocks of the busiest SM, over the whole launch.
    blocks_of_busiest: f64,
    /// Blocks resident at once on the busiest SM.
    resident: f64,
    /// Blocks resident at once on the whole GPU.
    resident_in_all: f64,
    /// SMs with any block.
    active_sms: f64,
    /// Share of an SM's sub-cores that have a warp.
    sub_core_share: f64,
}

impl Spread {
    fn new(machine: &Machine, load: &Workload, occupancy: &Occupancy) -> Spread {
        let sms = f64::from(machine.sm_count);
        let blocks_of_busiest = (load.blocks / sms).ceil();
        let resident = blocks_of_busiest.min(f64::from(occupancy.blocks_per_sm));
        let warps = resident * f64::from(load.shape.warps());
        Spread {
            blocks_of_busiest,
            resident,
            resident_in_all: load.blocks.min(sms * f64::from(occupancy.blocks_per_sm)),
            active_sms: load.blocks.min(sms),
            sub_core_share: (warps / f64::from(SUB_CORES)).min(1.0),
        }
    }
}

/// Estimates one launch.
///
/// # Errors
/// [`EstimateError::DoesNotFit`] if a block cannot be resident, [`EstimateError::BadInput`] for
/// impossible numbers.
pub fn estimate(machine: &Machine, load: &Workload) -> Result<Estimate, EstimateError> {
    check(machine, load)?;
    let occupancy = occupancy(&machine.limits, &load.shape);
    if occupancy.blocks_per_sm == 0 {
        return Err(EstimateError::DoesNotFit { limit: occupancy.limit });
    }
    let spread = Spread::new(machine, load, &occupancy);
    let mut terms = pipe_terms(machine, load, &spread);
    terms.extend(memory_terms(machine, load, &spread));
    terms.sort_by(|a, b| b.us.total_cmp(&a.us));
    let bound = terms[0].name;
    let largest = terms[0].us;
    terms.push(Term {
        name: "overlap",
        us: norm(&terms) - largest,
        detail: "resources overlap imperfectly".to_owned(),
    });
    terms.extend(added_terms(machine, load, &spread));
    // The norm is the largest term plus `overlap`; the other overlapping terms hide behind it.
    let hidden: f64 =
        terms.iter().take_while(|term| term.name != "overlap").skip(1).map(|term| term.us).sum();
    let time_us = terms.iter().map(|term| term.us).sum::<f64>() - hidden;
    terms.retain(|term| term.us >= 1e-3);
    Ok(Estimate { time_us, terms, bound, occupancy })
}

fn norm(terms: &[Term]) -> f64 {
    let largest = terms.iter().map(|term| term.us).fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    let sum: f64 = terms.iter().map(|term| (term.us / largest).powi(OVERLAP_EXPONENT)).sum();
    largest * sum.powf(1.0 / f64::from(OVERLAP_EXPONENT))
}

fn pipe_terms(machine: &Machine, load: &Workload, spread: &Spread) -> Vec<Term> {
    let (work, rates) = (&load.work, &machine.rates);
    let blocks = spread.blocks_of_busiest;
    let term = |name, what: &str, amount: f64, per_clock: f64| {
        let cycles = blocks * amount / per_clock;
        let detail = format!(
            "{amount:.0} {what} a block, {blocks:.0} blocks on the busiest SM, {per_clock:.2} \
             a clock"
        );
        Term { name, us: cycles / machine.cycles_per_us(), detail }
    };
    let pipe = |name, amount, rate: f64| {
        term(name, "warp instructions", amount, rate * spread.sub_core_share)
    };
    let rounds = (blocks / spread.resident).ceil();
    vec![
        pipe("issue", work.instructions, rates.issue),
        pipe("int", work.int, rates.int),
        pipe("imad", work.imad, rates.imad),
        pipe("fp32", work.fp32, rates.fp32),
        pipe("half2", work.half2, rates.half2),
        pipe("bf162", work.bf162, rates.bf162),
        pipe("convert", work.convert, rates.convert),
        pipe("sfu", work.sfu, rates.sfu),
        // The shuffle network and shared memory belong to the SM, not to a sub-core.
        term("shuffle", "shuffles", work.shuffle, rates.shuffle),
        term(
            "tensor",
            "multiply-accumulates",
            work.tensor_macs,
            machine.tensor_macs_per_clock * spread.sub_core_share,
        ),
        term("shared", "wavefronts", work.shared_wavefronts, machine.shared_wavefronts_per_clock),
        Term {
            name: "warp",
            us: rounds * work.warp_stall_cycles / machine.cycles_per_us(),
            detail: format!(
                "{:.0} stall cycles of one warp, {rounds:.0} rounds of resident blocks",
                work.warp_stall_cycles
            ),
        },
    ]
}

fn memory_terms(machine: &Machine, load: &Workload, spread: &Spread) -> [Term; 3] {
    let dram = machine.dram_bytes_per_us();
    let l2 = machine.l2_bytes_per_clock * machine.cycles_per_us() * spread.active_sms;
    let in_flight = load.bytes_in_flight * spread.resident_in_all;
    let latency_us = machine.dram_latency_ns / 1e3;
    let latency =
        if load.dram_bytes > 0.0 { load.dram_bytes * latency_us / in_flight } else { 0.0 };
    [
        Term {
            name: "dram",
            us: load.dram_bytes / dram,
            detail: format!("{:.3} MB at {:.2} TB/s", load.dram_bytes / 1e6, dram / 1e6),
        },
        Term {
            name: "l2",
            us: load.l2_bytes / l2,
            detail: format!(
                "{:.3} MB into {:.0} SMs at {:.0} bytes a clock",
                load.l2_bytes / 1e6,
                spread.active_sms,
                machine.l2_bytes_per_clock
            ),
        },
        Term {
            name: "latency",
            us: latency,
            detail: format!(
                "{:.1} KB in flight on each of {:.0} SMs, {:.0} ns a load",
                in_flight / spread.active_sms / 1024.0,
                spread.active_sms,
                machine.dram_latency_ns
            ),
        },
    ]
}

fn added_terms(machine: &Machine, load: &Workload, spread: &Spread) -> [Term; 4] {
    let fill = load.dependent_loads * machine.dram_latency_ns / 1e3;
    let split = load.split_k.unwrap_or_default();
    let l2 = machine.l2_bytes_per_clock * machine.cycles_per_us() * spread.active_sms;
    let (tail, tail_detail) = tail(machine, load, spread);
    [
        Term {
            name: "launch",
            us: machine.launch_us,
            detail: "start and drain of the grid".to_owned(),
        },
        Term {
            name: "fill",
            us: fill,
            detail: format!("{:.0} dependent loads before the main loop", load.dependent_loads),
        },
        Term { name: "tail", us: tail, detail: tail_detail },
        Term {
            name: "fix-up",
            us: 2.0 * split.partial_bytes / l2 + split.round_trips * L2_ROUND_TRIP_US,
            detail: format!(
                "{:.3} MB of partial sums written and read, {:.0} round trips",
                split.partial_bytes / 1e6,
                split.round_trips
            ),
        },
    ]
}

/// Time that the last, partial wave needs beyond its share of the bandwidth.
fn tail(machine: &Machine, load: &Workload, spread: &Spread) -> (f64, String) {
    let waves = load.blocks / spread.resident_in_all;
    let partial = waves.fract();
    if load.dram_bytes <= 0.0 || waves <= 1.0 || partial == 0.0 {
        return (0.0, "no partial wave".to_owned());
    }
    let block_bytes = load.dram_bytes / load.blocks;
    let alone = block_bytes / load.bytes_in_flight * machine.dram_latency_ns / 1e3;
    let share = partial * spread.resident_in_all * block_bytes / machine.dram_bytes_per_us();
    let detail =
        format!("{waves:.2} waves; one block alone takes {alone:.2} us, its wave {share:.2} us");
    ((alone - share).max(0.0), detail)
}

fn check(machine: &Machine, load: &Workload) -> Result<(), EstimateError> {
    let work = &load.work;
    let split = load.split_k.unwrap_or_default();
    let at_least_zero = [
        ("the instruction count", work.instructions),
        ("the int count", work.int),
        ("the imad count", work.imad),
        ("the fp32 count", work.fp32),
        ("the half2 count", work.half2),
        ("the bf162 count", work.bf162),
        ("the convert count", work.convert),
        ("the sfu count", work.sfu),
        ("the shuffle count", work.shuffle),
        ("the tensor work", work.tensor_macs),
        ("the wavefront count", work.shared_wavefronts),
        ("the stall count", work.warp_stall_cycles),
        ("the DRAM traffic", load.dram_bytes),
        ("the L2 traffic", load.l2_bytes),
        ("the number of dependent loads", load.dependent_loads),
        ("the partial sums", split.partial_bytes),
        ("the number of round trips", split.round_trips),
        ("the DRAM latency", machine.dram_latency_ns),
        ("the launch overhead", machine.launch_us),
    ];
    let rates = &machine.rates;
    let above_zero = [
        ("the number of blocks", load.blocks),
        // Without DRAM traffic nothing needs to be in flight.
        ("the bytes in flight", if load.dram_bytes > 0.0 { load.bytes_in_flight } else { 1.0 }),
        ("the number of SMs", f64::from(machine.sm_count)),
        ("the clock", machine.clock_ghz),
        ("the DRAM bandwidth", machine.dram_gb_per_s),
        ("the L2 bandwidth", machine.l2_bytes_per_clock),
        ("the shared-memory rate", machine.shared_wavefronts_per_clock),
        ("the tensor rate", machine.tensor_macs_per_clock),
        ("the issue rate", rates.issue),
        ("the int rate", rates.int),
        ("the imad rate", rates.imad),
        ("the fp32 rate", rates.fp32),
        ("the half2 rate", rates.half2),
        ("the bf162 rate", rates.bf162),
        ("the convert rate", rates.convert),
        ("the sfu rate", rates.sfu),
        ("the shuffle rate", rates.shuffle),
    ];
    let bad = at_least_zero
        .into_iter()
        .find(|&(_, v)| !v.is_finite() || v < 0.0)
        .or_else(|| above_zero.into_iter().find(|&(_, v)| !v.is_finite() || v <= 0.0));
    bad.map_or(Ok(()), |(what, value)| Err(EstimateError::BadInput { what, value }))
}
