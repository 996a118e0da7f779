//! Each term against arithmetic done by hand, and monotonicity of the whole.

use super::*;
use crate::sass::{Class, Counts};

/// Compute capability 9.0.
pub(super) const HOPPER_SM: SmLimits = SmLimits {
    registers: 65_536,
    registers_per_thread: 255,
    shared_bytes: 228 << 10,
    shared_bytes_per_block: 227 << 10,
    warps: 64,
    blocks: 32,
    threads_per_block: 1024,
};

/// An H200 whose clock is 1 GHz, so that cycles are thousandths of a microsecond.
fn machine() -> Machine {
    Machine {
        sm_count: 132,
        clock_ghz: 1.0,
        dram_gb_per_s: 4800.0,
        l2_bytes_per_clock: Machine::L2_BYTES_PER_CLOCK,
        shared_wavefronts_per_clock: 1.0,
        tensor_macs_per_clock: 1024.0,
        limits: HOPPER_SM,
        rates: Rates::of_sm(90),
        dram_latency_ns: Machine::DRAM_LATENCY_NS,
        launch_us: Machine::LAUNCH_US,
    }
}

/// A memory-bound kernel: 33 MB of weights, one block an SM.
fn load() -> Workload {
    Workload {
        blocks: 132.0,
        shape: BlockShape { threads: 256, registers: 128, shared_bytes: 100 << 10 },
        work: BlockWork { instructions: 10_000.0, int: 4_000.0, ..BlockWork::default() },
        dram_bytes: 33e6,
        l2_bytes: 34e6,
        bytes_in_flight: 40_960.0,
        dependent_loads: 1.0,
        split_k: None,
    }
}

fn time(machine: &Machine, load: &Workload) -> f64 {
    estimate(machine, load).expect("estimates").time_us
}

fn term(machine: &Machine, load: &Workload, name: &str) -> f64 {
    let estimate = estimate(machine, load).expect("estimates");
    estimate.terms.iter().find(|term| term.name == name).map_or(0.0, |term| term.us)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn terms_equal_the_arithmetic_by_hand() {
    let (machine, load) = (machine(), load());
    assert!(close(term(&machine, &load, "dram"), 33e6 / (4800e3 * 0.9)));
    assert!(close(term(&machine, &load, "issue"), 10_000.0 / 4.0 / 1e3));
    assert!(close(term(&machine, &load, "int"), 4_000.0 / 2.0 / 1e3));
    assert!(close(term(&machine, &load, "l2"), 34e6 / (64.0 * 1e3 * 132.0)));
    assert!(close(term(&machine, &load, "latency"), 33e6 * 0.8 / (40_960.0 * 132.0)));
    assert!(close(term(&machine, &load, "fill"), 0.8));
    assert_eq!(estimate(&machine, &load).expect("estimates").bound, "dram");
}

#[test]
fn the_time_is_the_largest_overlapping_term_and_what_adds_to_it() {
    let found = estimate(&machine(), &load()).expect("estimates");
    let added = ["overlap", "launch", "fill", "tail", "fix-up"];
    let largest = found.terms[0].us;
    let sum: f64 = found.terms.iter().filter(|t| added.contains(&t.name)).map(|t| t.us).sum();
    assert!((found.time_us - (largest + sum)).abs() < 0.01, "{found:?}");
    assert!(found.terms[0].name == found.bound);
}

#[test]
fn two_equal_resources_cost_a_fifth_more_than_one() {
    let one = Term { name: "a", us: 10.0, detail: String::new() };
    let two = [one.clone(), Term { name: "b", ..one.clone() }];
    assert!(close(norm(&[one]), 10.0));
    assert!((norm(&two) / 10.0 - 1.19).abs() < 0.01);
}

/// Every input that can only cost: more of it never makes the kernel faster.
#[test]
fn more_work_is_never_faster() {
    let inputs: [fn(&mut Workload, f64); 16] = [
        |l, f| l.work.instructions *= f,
        |l, f| l.work.int *= f,
        |l, f| l.work.imad = 1e3 * f,
        |l, f| l.work.fp32 = 1e3 * f,
        |l, f| l.work.half2 = 1e3 * f,
        |l, f| l.work.bf162 = 1e3 * f,
        |l, f| l.work.convert = 1e3 * f,
        |l, f| l.work.sfu = 1e3 * f,
        |l, f| l.work.shuffle = 1e3 * f,
        |l, f| l.work.tensor_macs = 1e6 * f,
        |l, f| l.work.shared_wavefronts = 1e3 * f,
        |l, f| l.work.warp_stall_cycles = 1e3 * f,
        |l, f| l.dram_bytes *= f,
        |l, f| l.l2_bytes *= f,
        |l, f| l.dependent_loads *= f,
        |l, f| l.split_k = Some(SplitK { partial_bytes: 1e6 * f, round_trips: f }),
    ];
    for (i, input) in inputs.iter().enumerate() {
        let times: Vec<f64> = [1.0, 2.0, 10.0, 100.0]
            .iter()
            .map(|&factor| {
                let mut load = load();
                input(&mut load, factor);
                time(&machine(), &load)
            })
            .collect();
        assert!(times.windows(2).all(|t| t[1] > t[0]), "input {i}: {times:?}");
    }
}

#[test]
fn a_better_machine_is_never_slower() {
    let improvements: [fn(&mut Machine); 7] = [
        |m| m.clock_ghz *= 2.0,
        |m| m.dram_gb_per_s *= 2.0,
        |m| m.l2_bytes_per_clock *= 2.0,
        |m| m.rates.issue *= 2.0,
        |m| m.rates.int *= 2.0,
        |m| m.dram_latency_ns /= 2.0,
        |m| m.launch_us /= 2.0,
    ];
    for (i, improve) in improvements.iter().enumerate() {
        let mut better = machine();
        improve(&mut better);
        assert!(time(&better, &load()) < time(&machine(), &load()), "improvement {i}");
    }
}

#[test]
fn more_bytes_in_flight_help_until_bandwidth_is_the_limit() {
    let at = |bytes_in_flight: f64| time(&machine(), &Workload { bytes_in_flight, ..load() });
    assert!(at(8_192.0) > 1.5 * at(40_960.0), "latency-bound");
    let full = at(400_000.0);
    assert!(at(800_000.0) <= full && full - at(800_000.0) < 0.02 * full, "bandwidth-bound");
}

#[test]
fn too_few_blocks_leave_sms_idle() {
    // The same work in 32 fat blocks or 128 thin ones.
    let with = |blocks: f64| {
        let mut load = load();
        let share = 132.0 / blocks;
        load.blocks = blocks;
        load.work.instructions *= share;
        load.work.int *= share;
        time(&machine(), &load)
    };
    assert!(with(32.0) > 2.0 * with(128.0));
    // One block more than SMs makes one SM work twice.
    assert!(with(133.0) > with(132.0));
}

#[test]
fn a_partial_last_wave_shows_as_tail() {
    let with = |blocks: f64| term(&machine(), &Workload { blocks, ..load() }, "tail");
    assert_eq!(with(132.0), 0.0);
    assert_eq!(with(264.0 * 2.0), 0.0, "whole waves of two blocks an SM");
    assert!(with(300.0) > 0.0);
}

#[test]
fn few_warps_use_few_sub_cores() {
    let with = |threads: u32| {
        let mut load = load();
        load.shape = BlockShape { threads, ..load.shape };
        term(&machine(), &load, "issue")
    };
    assert!(close(with(32), 4.0 * with(128)));
    assert!(close(with(128), with(256)));
}

#[test]
fn counts_of_machine_code_land_in_their_pipes() {
    let mut counts = Counts::default();
    for (class, count) in [
        (Class::Alu, 5),
        (Class::Pack, 2),
        (Class::Half2, 3),
        (Class::Fp32, 1),
        (Class::Imad, 4),
        (Class::Tensor, 6),
    ] {
        (0..count).for_each(|_| counts.add_one(class));
    }
    let mut work = BlockWork::default();
    work.add_counts(&counts, 10.0, Packed::F16);
    work.add_counts(&counts, 1.0, Packed::Bf16);
    assert_eq!((work.instructions, work.int), (231.0, 77.0));
    assert_eq!((work.half2, work.bf162), (30.0, 3.0));
    assert_eq!((work.fp32, work.imad, work.tensor_macs), (11.0, 44.0, 0.0));
}

#[test]
fn impossible_inputs_are_named() {
    let text = |machine: Machine, load: Workload| {
        estimate(&machine, &load).expect_err("impossible").to_string()
    };
    let bad = Workload { dram_bytes: f64::NAN, ..load() };
    assert!(text(machine(), bad).contains("the DRAM traffic is NaN"));
    let bad = Workload { bytes_in_flight: 0.0, ..load() };
    assert!(text(machine(), bad).contains("the bytes in flight is 0"));
    let bad = Machine { clock_ghz: 0.0, ..machine() };
    assert!(text(bad, load()).contains("the clock is 0"));
    let mut big = load();
    big.shape.shared_bytes = 1 << 20;
    assert!(text(machine(), big).contains("runs out of shared memory"));
}
