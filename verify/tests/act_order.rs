//! Act-order layers against layers whose columns are in the order of the features, as the cost model has the
//! default schedules of both.

use qtune_formats::presets::PRESETS;
use qtune_ir::dequant::{CostModel, Variant};
use qtune_ir::tile::estimate;
use qtune_ir::{Arch, Problem};
use qtune_verify::default_schedule;

/// Modelled time of the default schedule of a 4-bit `format`, with all steps of its launch, in us.
fn modelled_us(format: &str, (n, k): (u32, u32), m: u32) -> f64 {
    let problem: Problem = format!("w4a16.{format}.f16-f16.n{n}.k{k}.m{m}").parse().unwrap();
    let spec = qtune_formats::resolve(format).unwrap();
    let arch = Arch::named("h200").unwrap();
    let schedule = default_schedule(&problem, &spec, &arch).unwrap();
    let context = schedule.context(&problem, &spec);
    let model = CostModel::new(&context, &schedule.cost_params(&problem, &spec), &arch);
    let term = Variant::of(schedule.dequant().parse().unwrap(), &context, &model).unwrap();
    estimate(&problem, &spec, &arch, &schedule, term.cost).time_us
}

/// How many times the time of plain layers act-order layers take.
fn over_plain(shape: (u32, u32), m: u32) -> f64 {
    modelled_us("gptq-g128-actorder", shape, m) / modelled_us("gptq-g128", shape, m)
}

#[test]
fn one_token_of_every_matrix_takes_at_most_a_twentieth_longer() {
    for matrix in PRESETS.iter().flat_map(|preset| preset.matrices()) {
        let over = over_plain((matrix.n, matrix.k), 1);
        assert!(over <= 1.05, "{} x {}: {over:.3}", matrix.n, matrix.k);
    }
}
