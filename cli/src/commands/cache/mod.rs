//! `qtune cache`: looking after the cache.

mod combine;
mod gc;
mod show;

use crate::cache_dir::CacheArgs;
use crate::exit::Exit;
use clap::Subcommand;
use std::path::PathBuf;

/// Options of `cache`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Cache folder [default: $QTUNE_CACHE, $XDG_CACHE_HOME/qtune or ~/.cache/qtune]
    #[arg(long = "cache", value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the winners
    Ls,
    /// Show everything that is stored about one winner
    Show {
        /// Problem key, or the beginning of one
        problem: String,
    },
    /// Read and check every record; exit code 5 if some are damaged
    Verify,
    /// Add what other machines found: their cache folders, or files that `cache export` wrote
    Merge {
        /// Cache folders and exports
        #[arg(required = true, value_name = "PATH")]
        sources: Vec<PathBuf>,
    },
    /// Write everything in the cache to one file
    Export {
        /// The file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Add what is in a file that `cache export` wrote
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Drop winners that newer ones have superseded, and rewrite the rest in less space
    Gc(gc::Args),
}

/// Runs a subcommand on the store.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let cache = CacheArgs { dir: args.dir.clone() };
    let json = args.json;
    match &args.command {
        Command::Ls => show::list(&cache.open_required()?.0, json),
        Command::Show { problem } => show::show(&cache.open_required()?.0, problem, json),
        Command::Verify => {
            let (store, replaced) = cache.open_required()?;
            show::verify(&store, replaced, json)
        }
        Command::Merge { sources } => combine::merge(&cache, sources, json),
        Command::Export { out } => combine::export(&cache.open_required()?.0, out, json),
        Command::Import { file } => combine::import(&cache, file, json),
        Command::Gc(options) => {
            // Before the cache is opened for writing: a missing one is not made by cleaning it.
            drop(cache.open_required()?);
            gc::run(cache.open()?, options, json)
        }
    }
}
