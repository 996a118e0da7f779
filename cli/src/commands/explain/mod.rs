//! `qtune explain`: how a schedule follows from the mathematics, what it costs, what it beat.
//!
//! Two models tell what it costs: the analytic one that the search prunes with, and beside it what
//! the compiled kernel takes ([`machine_code`]), line by line with `--counts` ([`counts`]).

mod counts;
mod machine_code;

use crate::cache_dir::{evidence, CacheArgs};
use crate::exit::Exit;
use crate::gpu::GpuArgs;
use crate::output;
use crate::problem::{self, ProblemArgs};
use crate::ranking;
use crate::toolchain::FetchArgs;
use machine_code::Compiled;
use qtune_cache::trial_log;
use qtune_cache::{Store, Winner};
use qtune_ir::{Arch, Problem, Schedule, WeightSpec};
use qtune_runtime::winner_key;
use qtune_search::{Explanation, Ranking};
use serde_json::{json, Value};
use std::fmt::Write;
use std::path::PathBuf;

/// Options of `explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gpu: GpuArgs,
    #[command(flatten)]
    problem: ProblemArgs,
    /// Explain this schedule [default: the winner in the cache, or the untuned schedule]
    #[arg(long, conflicts_with = "dir")]
    schedule: Option<String>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Print the kernel's source with the simulator's counters beside each line instead
    #[arg(long)]
    counts: bool,
    /// Row tiles of the simulated launch, edges and split-K partners included [default: as many as
    /// cost little]
    #[arg(long, value_name = "N")]
    sample_blocks: Option<usize>,
    /// Trial log of a search: print how well the cost model ranked what a device timed
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is explained, and where it came from.
struct Subject {
    schedule: Schedule,
    origin: &'static str,
    winner: Option<Winner>,
}

/// Prints the derivations and costs of one schedule.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let arch = args.gpu.arch()?;
    let (problem, spec) = args.problem.resolve()?;
    let subject = subject(args, &problem, &spec, &arch)?;
    let compiled = compiled(args, (&problem, &spec, &arch), &subject.schedule)?;
    if let (true, false, Some(compiled)) = (args.counts, args.json, &compiled) {
        output::result(counts::text(compiled))?;
        return Ok(Exit::Success);
    }
    let explained = Explained {
        explanation: qtune_search::explain(&problem, &spec, &arch, &subject.schedule)?,
        compiled,
        rankings: rankings(args, &problem)?,
        subject,
    };
    match args.json {
        true => output::json(&as_json(args, &problem, &arch, &explained))?,
        false => output::result(as_text(&problem, &arch, &explained)?.trim_end())?,
    }
    Ok(Exit::Success)
}

/// Everything there is to tell.
struct Explained {
    subject: Subject,
    explanation: Explanation,
    /// `None` where there is no compiler.
    compiled: Option<Compiled>,
    /// Of the trial log, if one was named.
    rankings: Option<Vec<Ranking>>,
}

/// The compiled kernel. Without a compiler the explanation goes on without it; `--counts` cannot.
fn compiled(
    args: &Args,
    (problem, spec, arch): (&Problem, &WeightSpec, &Arch),
    schedule: &Schedule,
) -> anyhow::Result<Option<Compiled>> {
    let nvrtc = match args.fetch.open() {
        Ok(nvrtc) => nvrtc,
        Err(error) if args.counts => return Err(error.into()),
        Err(error) => {
            output::note(format_args!("no machine code without a compiler: {error}"));
            return Ok(None);
        }
    };
    Compiled::new(&nvrtc, (problem, spec, arch), schedule, args.sample_blocks).map(Some)
}

/// The ranking of this problem in the named trial log.
fn rankings(args: &Args, problem: &Problem) -> anyhow::Result<Option<Vec<Ranking>>> {
    let Some(path) = &args.log else { return Ok(None) };
    let key = problem.to_string();
    let all = qtune_search::rankings(&trial_log::read(path)?);
    Ok(Some(all.into_iter().filter(|ranking| ranking.problem == key).collect()))
}

fn subject(
    args: &Args,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> anyhow::Result<Subject> {
    if let Some(text) = &args.schedule {
        let schedule = text.parse()?;
        problem::check_schedule(&schedule, problem, spec, arch)?;
        return Ok(Subject { schedule, origin: "given", winner: None });
    }
    if let Some(winner) = stored(args, problem, spec, arch)? {
        let schedule = winner.schedule.parse()?;
        return Ok(Subject { schedule, origin: "cache", winner: Some(winner) });
    }
    output::note(format_args!(
        "no winner for {} in the cache: this is the untuned schedule",
        problem.at(arch)
    ));
    let schedule = problem::untuned(problem, spec, arch, None)?;
    Ok(Subject { schedule, origin: "default", winner: None })
}

/// The winner of this generator and compiler, if the cache has one.
fn stored(
    args: &Args,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> anyhow::Result<Option<Winner>> {
    let Some(store) = args.cache.open_existing()? else { return Ok(None) };
    let nvrtc = args.fetch.open()?;
    let found = store.get(&winner_key(problem, spec, arch, nvrtc.fingerprint()))?;
    Ok(found.map(|record| record.winner))
}

fn as_json(args: &Args, problem: &Problem, arch: &Arch, explained: &Explained) -> Value {
    let Explained { subject, explanation, compiled, rankings } = explained;
    let tiling: Vec<Value> = explanation
        .tiling
        .steps
        .iter()
        .map(|step| json!({ "rule": step.rule, "nest": step.nest.to_string() }))
        .collect();
    let dequant: Vec<Value> = explanation
        .dequant
        .steps
        .iter()
        .map(|step| json!({ "rule": step.rule, "term": step.term }))
        .collect();
    json!({
        "problem": problem.at(arch),
        "schedule": subject.schedule.to_string(),
        "origin": subject.origin,
        "tiling": { "start": explanation.tiling.start.to_string(), "steps": tiling },
        "dequantization": dequant,
        "rounding": explanation.rounding,
        "dequant_instructions_per_weight": explanation.dequant_cost,
        "estimate": explanation.estimate,
        "machine_code": compiled.as_ref().map(|compiled| &compiled.iteration),
        "counts": compiled.as_ref().filter(|_| args.counts).map(counts::json),
        "ranking": rankings,
        "winner": subject.winner,
    })
}

fn as_text(
    problem: &Problem,
    arch: &Arch,
    explained: &Explained,
) -> Result<String, std::fmt::Error> {
    let Explained { subject, explanation, compiled, rankings } = explained;
    let mut text = String::new();
    writeln!(text, "problem   {}", problem.at(arch))?;
    writeln!(text, "schedule  {}", subject.schedule)?;
    writeln!(text, "from      {}\n", subject.origin)?;
    write_tiling(&mut text, explanation)?;
    write_dequant(&mut text, explanation)?;
    write_cost(&mut text, explanation)?;
    if let Some(compiled) = compiled {
        machine_code::write(&mut text, compiled)?;
    }
    if let Some(rankings) = rankings {
        writeln!(text, "{}", ranking::text(rankings))?;
    }
    if let Some(winner) = &subject.winner {
        write_winner(&mut text, winner)?;
    }
    Ok(text)
}

fn write_tiling(text: &mut String, explanation: &Explanation) -> std::fmt::Result {
    writeln!(text, "tiling\n  {}", explanation.tiling.start)?;
    for step in &explanation.tiling.steps {
        writeln!(text, "  = {}   by {}", step.nest, step.rule)?;
    }
    writeln!(text)
}

fn write_dequant(text: &mut String, explanation: &Explanation) -> std::fmt::Result {
    writeln!(text, "dequantization")?;
    for step in &explanation.dequant.steps {
        match step.rule {
            "" => writeln!(text, "  {}", step.term)?,
            rule => writeln!(text, "  = {}   by {rule}", step.term)?,
        }
    }
    let rounding = match explanation.rounding.is_empty() {
        true => "exact".into(),
        false => explanation.rounding.join(", "),
    };
    let cost = explanation.dequant_cost;
    writeln!(text, "  rounding: {rounding}; {cost:.2} lane-instructions per weight\n")
}

fn write_cost(text: &mut String, explanation: &Explanation) -> std::fmt::Result {
    let estimate = &explanation.estimate;
    writeln!(
        text,
        "modelled time {:.2} us, roof {:.2} us, bound by {}",
        estimate.time_us, estimate.roof_us, estimate.bound
    )?;
    for term in &estimate.terms {
        let how = if term.adds { "adds" } else { "overlaps" };
        writeln!(text, "  {:<10} {:>9.3} us  {how:<8}  {}", term.name, term.us, term.detail)?;
    }
    writeln!(
        text,
        "  {} blocks, {} per SM, {} wave(s), {} bytes in flight per SM\n",
        estimate.blocks, estimate.resident_blocks, estimate.waves, estimate.bytes_in_flight_per_sm
    )
}

fn write_winner(text: &mut String, winner: &Winner) -> std::fmt::Result {
    writeln!(
        text,
        "stored winner: {:.2} us ({}), {:.0} % of the roof, error over bound {:.3}",
        winner.time_us,
        evidence(winner.evidence),
        winner.roof_share * 100.0,
        winner.error_over_bound
    )?;
    let terms: Vec<String> =
        winner.cost_terms.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    writeln!(text, "  stored cost terms: {}", terms.join(", "))?;
    writeln!(text, "  stored rules: {}", winner.derivation.join(", "))?;
    writeln!(text, "it beat")?;
    for beaten in &winner.beat {
        writeln!(text, "  {:>9.2} us  {}  ({})", beaten.time_us, beaten.schedule, beaten.reason)?;
    }
    Ok(())
}
