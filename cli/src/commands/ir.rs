//! `qtune ir`: looking at the two intermediate representations and their rules.

use crate::exit::{usage, Exit};
use crate::gpu::GpuArgs;
use crate::output;
use crate::problem::{self, ActArgs, ProblemArgs};
use crate::table::{Align, Table};
use clap::Subcommand;
use qtune_ir::dequant::{self, Context, CostParams, Engine};
use qtune_ir::tile::{self, Nest};

/// Options of `ir`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the loop nest of a schedule
    Cat {
        #[command(flatten)]
        gpu: GpuArgs,
        #[command(flatten)]
        problem: ProblemArgs,
        /// Schedule on one line [default: the untuned schedule]
        #[arg(long)]
        schedule: Option<String>,
    },
    /// Check a loop nest against a problem and print what each layer covers
    Verify {
        /// The nest as `cat` prints it
        nest: String,
        #[command(flatten)]
        problem: ProblemArgs,
    },
    /// Print the ways to compute a quant group's dot product, cheapest first
    Dequant {
        #[command(flatten)]
        gpu: GpuArgs,
        /// Format of the weights, such as awq-g128
        #[arg(long, value_name = "NAME")]
        format: String,
        #[command(flatten)]
        act: ActArgs,
        /// What consumes the weights: mma, half2 or f32
        #[arg(long, value_parser = engine, default_value = "mma")]
        engine: Engine,
        /// Tokens of a thread block
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
        tokens: u32,
    },
    /// List the rewrite rules of both e-graphs
    Rules,
}

/// Runs a subcommand.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Cat { gpu, problem, schedule } => cat(gpu, problem, schedule.as_deref())?,
        Command::Verify { nest, problem } => verify(nest, problem)?,
        Command::Dequant { gpu, format, act, engine, tokens } => {
            output::result(variants(gpu, format, *act, *engine, *tokens)?)?;
        }
        Command::Rules => rules()?,
    }
    Ok(Exit::Success)
}

fn cat(gpu: &GpuArgs, problem: &ProblemArgs, schedule: Option<&str>) -> anyhow::Result<()> {
    let arch = gpu.arch()?;
    let (problem, spec) = problem.resolve()?;
    let schedule = match schedule {
        Some(text) => text.parse()?,
        None => problem::untuned(&problem, &spec, &arch, None)?,
    };
    output::result(tile::nest(&schedule, &problem)?)
}

fn verify(text: &str, problem: &ProblemArgs) -> anyhow::Result<()> {
    let (problem, _) = problem.resolve()?;
    let nest: Nest = text.parse().map_err(|error| usage(format!("{error}")))?;
    let facts = tile::verify(&nest, tile::extents(&problem))?;
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("steps", Align::Right),
        ("m", Align::Right),
        ("n", Align::Right),
        ("k", Align::Right),
    ]);
    for ((layer, steps), [m, n, k]) in nest.layers.iter().zip(&facts.steps).zip(&facts.body) {
        let layer = layer.to_string().trim_start_matches('(').to_owned();
        table.row([layer, steps.to_string(), m.to_string(), n.to_string(), k.to_string()]);
    }
    let [m, n, k] = nest.leaf.extents().map(|extent| extent.to_string());
    table.row([nest.leaf.to_string(), String::new(), m, n, k]);
    output::result(table)
}

fn variants(
    gpu: &GpuArgs,
    format: &str,
    act: ActArgs,
    engine: Engine,
    tokens: u32,
) -> anyhow::Result<Table> {
    let arch = gpu.arch()?;
    let spec = qtune_formats::resolve(format)?;
    // A group of the format's own size; per-channel scales amortise over any K, this one is usual.
    let group = spec.group.size(4096);
    let params = CostParams { group, segment: group, tokens, row_tiles: 1, row_lanes: 1 };
    let context = Context { act: act.act, engine, spec };
    let search = dequant::variants(&context, &params, &arch, &dequant::Options::default())?;
    let mut table = Table::new(&[
        ("instr/weight", Align::Right),
        ("rounding", Align::Left),
        ("term", Align::Left),
    ]);
    for variant in &search.variants {
        let rounding = variant.rounding.names().join(",");
        table.row([format!("{:.3}", variant.cost), rounding, variant.term.to_string()]);
    }
    output::note(format_args!(
        "{} nodes, {} classes, {}; {} legal terms are beaten in both cost and rounding",
        search.nodes,
        search.classes,
        search.stop_reason,
        search.beaten.len()
    ));
    Ok(table)
}

fn rules() -> anyhow::Result<()> {
    let tiling = tile::rule_names().into_iter().map(|name| ("tile", name));
    let algebra = dequant::rule_names().into_iter().map(|name| ("dequant", name));
    let mut table = Table::new(&[("e-graph", Align::Left), ("rule", Align::Left)]);
    for (graph, name) in tiling.chain(algebra) {
        table.row([graph.into(), name.into()]);
    }
    output::result(table)
}

/// Parses `--engine`.
fn engine(text: &str) -> Result<Engine, String> {
    let engines = [Engine::Mma, Engine::Half2, Engine::F32];
    let found = engines.into_iter().find(|engine| engine.to_string() == text);
    found.ok_or_else(|| format!("unknown engine `{text}`; known: mma, half2, f32"))
}
