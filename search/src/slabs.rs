//! Dequantizing first, as a baseline that is worth its name.
//!
//! The default schedule's slab is what L2 keeps. Where rows are long that is a few row tiles, which leave
//! most of the GPU idle; then it is better to dequantize more rows at once, through DRAM if need be.

use crate::request::Task;
use qtune_ir::{Arch, DequantSchedule, Family, Schedule};
use qtune_verify::{default_of_family, default_with_library};

/// The default schedules that dequantize first, multiplying themselves and by a library where there is
/// one, with their slabs and with larger ones up to all rows.
pub(crate) fn of_defaults(task: &Task, arch: &Arch) -> Vec<Schedule> {
    let (problem, spec) = (&task.problem, &task.spec);
    let own = default_of_family(Family::Dequant, problem, spec, arch);
    let library = default_with_library(problem, spec, arch);
    let mut schedules = Vec::new();
    for default in [own, library].into_iter().flatten() {
        if let Schedule::Dequant(default) = default {
            schedules.extend(with_larger_slabs(&default, problem.n));
        }
    }
    schedules
}

/// A schedule for `n` rows with its slab, twice as many rows and so on, and all.
fn with_larger_slabs(schedule: &DequantSchedule, n: u32) -> Vec<Schedule> {
    let whole = n.next_multiple_of(schedule.gemm.tile().0).max(schedule.slab);
    let larger = |slab: &u32| slab.checked_mul(2).filter(|slab| *slab < whole);
    let mut slabs: Vec<u32> = std::iter::successors(Some(schedule.slab), larger).collect();
    slabs.push(whole);
    slabs.dedup();
    let with = |slab| Schedule::Dequant(DequantSchedule { slab, ..schedule.clone() });
    slabs.into_iter().map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warm::candidate;

    #[test]
    fn where_rows_are_long_more_of_them_are_dequantized_at_once() {
        let arch = Arch::named("h200").unwrap();
        let task = Task {
            name: "down".into(),
            problem: "w4a16.awq-g128.f16-f16.n5120.k27648.m1024".parse().unwrap(),
            spec: qtune_formats::resolve("awq-g128").unwrap(),
            calls: 1,
        };
        let schedules = of_defaults(&task, &arch);
        let us = |s: &Schedule| candidate(&task, &arch, s).unwrap().estimate.time_us;
        let slab = |s: &Schedule| match s {
            Schedule::Dequant(s) => s.slab,
            other => panic!("{other}"),
        };
        assert_eq!(
            schedules.iter().map(slab).collect::<Vec<_>>(),
            [256, 512, 1024, 2048, 4096, 5120]
        );
        let best = schedules.iter().map(us).fold(f64::INFINITY, f64::min);
        assert!(best < us(&schedules[0]) / 3.0, "{best} us, {} us", us(&schedules[0]));
    }
}
