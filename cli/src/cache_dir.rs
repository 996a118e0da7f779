//! `--cache`: opening the cache, and telling what was found there.

use crate::output;
use crate::table::{Align, Table};
use anyhow::bail;
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

    /// As [`CacheArgs::open_existing`]; also whether it had to make room for a fresh one. A folder
    /// that cannot be written is read through a private copy.
    pub fn open_existing_report(&self) -> Result<Option<(SledStore, bool)>, CacheError> {
        let dir = self.dir()?;
        if !qtune_cache::holds_store(&dir) {
            return Ok(None);
        }
        match self.open_report() {
            Err(CacheError::Folder { cause, .. }) if cannot_be_written(cause.kind()) => {
                output::note(format_args!("{}: {cause}; reading a copy", dir.display()));
                SledStore::open_copy(&dir).map(|(store, _)| Some((store, false)))
            }
            opened => opened.map(Some),
        }
    }

    /// As [`CacheArgs::open_existing_report`], for commands that cannot do without a store.
    pub fn open_required(&self) -> anyhow::Result<(SledStore, bool)> {
        match self.open_existing_report()? {
            Some(opened) => Ok(opened),
            None => {
                let dir = self.dir()?;
                bail!("cache folder {} holds no cache; `qtune tune` makes one", dir.display())
            }
        }
    }
}

/// Whether an error says that the folder can only be read: it is somebody else's, or its disk is full.
fn cannot_be_written(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind as K;
    matches!(kind, K::PermissionDenied | K::ReadOnlyFilesystem | K::StorageFull | K::QuotaExceeded)
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
            if key.is_replay() { "replayed" } else { evidence(winner.evidence) }.into(),
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
