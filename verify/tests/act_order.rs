//! Act-order layers against layers whose columns are in the order of the features, as the cost model has the
//! default schedules of both.

use qtune_formats::presets::PRESETS;
use qtune_ir::dequant::{CostModel, Variant};
use qtune_ir::tile::estimate;
use qtune_ir::{Arch, Family, Problem};
use qtune_verify::{default_of_family, default_schedule};

/// Modelled time of the default schedule of a 4-bit `format`, of one family if it is named, with all steps of its
/// launch, in us.
fn modelled_us(format: &str, family: Option<Family>, (n, k): (u32, u32), m: u32) -> f64 {
    let problem: Problem = format!("w4a16.{format}.f16-f16.n{n}.k{k}.m{m}").parse().unwrap();
    let spec = qtune_formats::resolve(format).unwrap();
    let arch = Arch::named("h200").unwrap();
    let schedule = match family {
        None => default_schedule(&problem, &spec, &arch).unwrap(),
        Some(family) => default_of_family(family, &problem, &spec, &arch).unwrap(),
    };
    let context = schedule.context(&problem, &spec);
    let model = CostModel::new(&context, &schedule.cost_params(&problem, &spec), &arch);
    let term = Variant::of(schedule.dequant().parse().unwrap(), &context, &model).unwrap();
    estimate(&problem, &spec, &arch, &schedule, term.cost).time_us
}

/// Asserts that act-order layers of all matrices take at most so many times the time of plain layers.
fn assert_over_plain(family: Option<Family>, m: u32, most: f64) {
    for matrix in PRESETS.iter().flat_map(|preset| preset.matrices()) {
        let us = |format| modelled_us(format, family, (matrix.n, matrix.k), m);
        let over = us("gptq-g128-actorder") / us("gptq-g128");
        assert!(over <= most, "{family:?} of {} x {}, {m}: {over:.3}", matrix.n, matrix.k);
    }
}

#[test]
fn up_to_64_tokens_take_at_most_a_twentieth_longer_in_every_family() {
    for family in [None, Some(Family::Gemv), Some(Family::Mma), Some(Family::Wgmma)] {
        for m in [1, 2, 16, 33, 64] {
            assert_over_plain(family, m, 1.05);
        }
    }
}

/// Beside what `wgmma` takes for wide rows of many tokens, sorting them is not short.
#[test]
fn more_tokens_take_little_longer() {
    for m in [118, 257, 768] {
        assert_over_plain(Some(Family::Mma), m, 1.05);
        assert_over_plain(None, m, 1.07);
    }
}
