//! What the cost model decides of a rung that has its term: parts of K, and how it meets the step that sorts
//! activations.

use qtune_ir::dequant::{CostModel, Variant};
use qtune_ir::tile::{estimate, Estimate};
use qtune_ir::{
    Arch, Family, GemvSchedule, Overlap, Problem, Producer, Schedule, Sorting, Split, WeightSpec,
    WgmmaSchedule,
};

/// Times that count as the same when parts of K are chosen.
const EVEN: f64 = 1.01;

/// Bytes of loads in flight per SM that bring a large matrix from DRAM at its speed.
const IN_FLIGHT: u64 = 40 << 10;

/// At most as many parts of K as the rung has, so many that the cost model has the least time: one block more than
/// the GPU holds at once takes as long as a second wave of them. Of parts within a hundredth of that the fewest; never
/// fewer bytes in flight than [`IN_FLIGHT`], if the rung has as many.
pub(super) fn with_even_parts(
    schedule: Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Schedule {
    let parts = schedule.split().per_tile();
    if schedule.family() != Family::Mma || parts == 1 {
        return schedule;
    }
    let others = (1..parts).map(|fewer| {
        schedule.with_split(match schedule.split() {
            Split::Cluster(_) if fewer > 1 => Split::Cluster(fewer),
            _ => Split::Blocks(fewer),
        })
    });
    let all: Vec<(Schedule, Estimate)> = others
        .chain([schedule.clone()])
        .filter(|s| s.check(problem, spec, arch).is_ok())
        .filter_map(|s| modelled(&s, problem, spec, arch).map(|estimate| (s, estimate)))
        .collect();
    let enough = all.last().map_or(0, |(_, e)| e.bytes_in_flight_per_sm.min(IN_FLIGHT));
    let sound = || all.iter().filter(|(_, e)| e.bytes_in_flight_per_sm >= enough);
    let least = sound().map(|(_, e)| e.time_us).fold(f64::INFINITY, f64::min);
    let first = sound().find(|(_, e)| e.time_us <= least * EVEN);
    first.map_or(schedule, |(s, _)| s.clone())
}

/// Where a step sorts the activations and the GPU lets them overlap, what multiplies asks for its weights
/// meanwhile: most of the step's time is that of a launch. Where blocks could sort as they stage, or could leave the
/// step room on their SMs, the cost model decides which is less.
pub(super) fn beside_sorting(
    schedule: Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Schedule {
    let ahead = match &schedule {
        Schedule::Gemv(s) if schedule.sorting(spec) == Sorting::Prologue => {
            Schedule::Gemv(GemvSchedule { sorted_ahead: true, ..s.clone() })
        }
        _ => schedule.clone(),
    };
    if ahead.sorting(spec) != Sorting::Step {
        return schedule;
    }
    let overlapped = |schedule: Schedule| {
        let early = schedule.with_overlap(Overlap { pdl: true, ..Overlap::NONE });
        early.check(problem, spec, arch).is_ok().then_some(early)
    };
    let inside = schedule.sorting(spec) == Sorting::Prologue;
    let ahead = overlapped(ahead.clone()).unwrap_or(ahead);
    let roomy = leaving_registers(&schedule).and_then(overlapped);
    let all = inside.then_some(schedule).into_iter().chain([ahead]).chain(roomy);
    let us = |schedule: &Schedule| modelled_us(schedule, problem, spec, arch);
    all.min_by(|a, b| us(a).total_cmp(&us(b))).expect("one at least")
}

/// The same multiplication by blocks that leave registers of their SM to others: of those whose producer gives its
/// registers away, no thread of another kernel can have any.
fn leaving_registers(schedule: &Schedule) -> Option<Schedule> {
    let Schedule::Wgmma(s) = schedule else { return None };
    Some(Schedule::Wgmma(WgmmaSchedule { producer: Producer::Warp, ..s.clone() }))
}

/// The time that the cost model has for a schedule with its term, in us; infinite where the term is none of
/// its family's.
pub(super) fn modelled_us(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> f64 {
    modelled(schedule, problem, spec, arch).map_or(f64::INFINITY, |estimate| estimate.time_us)
}

/// What the cost model says of a schedule with its term; none where the term is none of its family's.
fn modelled(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Option<Estimate> {
    let (context, params) = (schedule.context(problem, spec), schedule.cost_params(problem, spec));
    let model = CostModel::new(&context, &params, arch);
    let term = schedule.dequant().parse().ok()?;
    let variant = Variant::of(term, &context, &model).ok()?;
    Some(estimate(problem, spec, arch, schedule, variant.cost))
}
