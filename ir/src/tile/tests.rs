//! Tests of the search as a whole: what each rule brings, and what the model prefers.

use super::*;
use crate::{Arch, Family, Group, Param, ParamType, Problem, Schedule, WeightSpec};

/// `awq-g128` as the format registry has it.
pub fn awq() -> WeightSpec {
    let param = |name: &str, dtype| Param { name: name.into(), dtype };
    WeightSpec {
        name: "awq-g128".into(),
        bits: 4,
        group: Group::Size(128),
        params: vec![param("s", ParamType::F16), param("z", ParamType::Code(4))],
        expr: "(* (- q z) s)".into(),
    }
}

fn problem(n: u32, k: u32, m: u32) -> Problem {
    format!("w4a16.awq-g128.f16-f16.n{n}.k{k}.m{m}").parse().unwrap()
}

fn h200() -> Arch {
    Arch::named("h200").unwrap()
}

fn dequant(_: &Schedule) -> Option<DequantChoice> {
    Some(DequantChoice { term: "(sum x)".into(), instructions_per_weight: 1.2 })
}

fn search(p: &Problem, options: &Options) -> Search {
    sketches(p, &awq(), &h200(), &dequant, options).unwrap()
}

#[test]
fn show() {
    for (n, k, m) in [(55296, 5120, 1), (5120, 5120, 1), (5120, 27648, 1), (7168,5120,4), (55296, 5120, 16), (5120, 5120, 16), (5120, 27648, 64),(55296, 5120, 64)] {
        let start = std::time::Instant::now();
        let s = search(&problem(n, k, m), &Options::default());
        println!("{n}x{k} m{m}: {:?} nodes {} classes {} considered {} {} rejected {:?}", start.elapsed(), s.nodes, s.classes, s.considered, s.stop_reason, s.rejected);
        for sketch in &s.sketches {
            println!("  {:.2} roof {:.2} {} if {} res {} reg {} | {}", sketch.estimate.time_us, sketch.estimate.roof_us, sketch.estimate.bound, sketch.estimate.bytes_in_flight_per_sm, sketch.estimate.resident_blocks, sketch.estimate.registers, sketch.schedule);
        }
        println!("{:?}", s.sketches[0].rules);
        for t in &s.sketches[0].estimate.terms { println!("   {} {:.2} {}", t.name, t.us, t.detail); }
    }
}
