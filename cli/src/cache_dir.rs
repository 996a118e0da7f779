//! `--cache`: opening the cache, and telling what was found there.

use crate::output;
use crate::table::{Align, Table};
use qtune_cache::{CacheError, Evidence, SledStore, WinnerRecord};
use std::path::PathBuf;

/// Where winners are kept.
#[derive(Clone, Debug, clap::Args)]
pub struct CacheArgs {
    /// Cache folder [default: $QTUNE_CACHE, $XDG_CACHE_HOME/qtune or ~/.cache/qtune]
    #[arg(long = "cache", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl CacheArgs {
    /// The cache folder.
    pub fn dir(&self) -> Result<PathBuf, CacheError> {
        self.dir.clone().map_or_else(qtune_cache::default_dir, Ok)
    }

    /// Opens the store, creating it where it is missing. Says on stderr if a damaged one had to
    /// make room.
    pub fn open(&self) -> Result<SledStore, CacheError> {
        self.open_report().map(|(store, _)| store)
    }

    /// As [`CacheArgs::open`]; also whether a damaged or foreign store had to make room.
    fn open_report(&self) -> Result<(SledStore, bool), CacheError> {
        let (store, report) = SledStore::open(&self.dir()?)?;
        if let Some(aside) = &report.set_aside {
            output::warning(aside);
        }
        Ok((store, report.set_aside.is_some()))
    }

    /// Opens the store if there is one, for commands that only read.
    pub fn open_existing(&self) -> Result<Option<SledStore>, CacheError> {
        Ok(self.open_existing_report()?.map(|(store, _)| store))
    }

    /// As [`CacheArgs::open_existing`]; also whether it had to make room for a fresh one.
    pub fn open_existing_report(&self) -> Result<Option<(SledStore, bool)>, CacheError> {
        match self.dir()?.join("winners").is_dir() {
            true => self.open_report().map(Some),
            false => Ok(None),
        }
    }
}

/// Winners for people, in the store's order.
pub fn winner_table(winners: &[WinnerRecord]) -> Table {
    let mut table = Table::new(&[
        ("problem", Align::Left),
        ("arch", Align::Left),
        ("us", Align::Right),
        ("roof", Align::Right),
        ("evidence", Align::Left),
        ("error/bound", Align::Right),
        ("schedule", Align::Left),
    ]);
    for WinnerRecord { key, winner, .. } in winners {
        table.row([
            key.problem.clone(),
            key.arch.clone(),
            format!("{:.2}", winner.time_us),
            format!("{:.0} %", winner.roof_share * 100.0),
            evidence(winner.evidence).into(),
            format!("{:.3}", winner.error_over_bound),
            winner.schedule.clone(),
        ]);
    }
    table
}

/// Where a time comes from, in the word that records use.
pub fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Modelled => "modelled",
        Evidence::Timed => "timed",
    }
}
