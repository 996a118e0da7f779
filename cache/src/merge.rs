//! Merging stores: what several machines found, in one place.
//!
//! Winners under different keys lie side by side; for one key every machine's contribution is
//! kept with its provenance and raw samples, and `contribution.rs` says which is served. Poisoned
//! schedules are united: what took one machine down is not tried on another. Merging changes
//! nothing that is there but for the better; doing it twice, or in another order, gives the same.

use serde::Serialize;
use std::collections::BTreeMap;

use crate::error::CacheError;
use crate::record::{Poisoned, WinnerKey, WinnerRecord};
use crate::store::Store;

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MergeReport {
    /// Keys that had no winner.
    pub new: usize,
    /// Keys that had one, and now another is served.
    pub changed: usize,
    /// Keys for which the served winner stayed.
    pub kept: usize,
    /// Contributions added.
    pub contributions: usize,
    /// Poisoned schedules added.
    pub poisoned: usize,
    /// Winners of the source that were left out because their code is lost there.
    pub without_code: usize,
    /// Keys under which two machines have different code for the same schedule.
    pub conflicts: Vec<Conflict>,
}

/// Two machines that disagree about the code of a schedule. The generator, compiler and format are
/// the same, so the code should be: one of the machines is not what it says. Both contributions
/// are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Conflict {
    /// Problem key.
    pub problem: String,
    /// The schedule.
    pub schedule: String,
    /// The machines.
    pub hosts: [String; 2],
}

/// Adds everything in `from` to `into`.
///
/// # Errors
/// Those of either store; what was added before stays, and merging again goes on.
pub fn merge(into: &dyn Store, from: &dyn Store) -> Result<MergeReport, CacheError> {
    let keys: Vec<WinnerKey> = from.winners()?.into_iter().map(|record| record.key).collect();
    let mut report = copy(into, from, &keys)?;
    merge_poison(into, from, &mut report)?;
    Ok(report)
}

/// Adds what `from` has under `keys`.
pub(crate) fn copy(
    into: &dyn Store,
    from: &dyn Store,
    keys: &[WinnerKey],
) -> Result<MergeReport, CacheError> {
    let mut report = MergeReport::default();
    keys.iter().try_for_each(|key| merge_key(into, from, key, &mut report))?;
    Ok(report)
}

/// Merges all contributions under `key`.
fn merge_key(
    into: &dyn Store,
    from: &dyn Store,
    key: &WinnerKey,
    report: &mut MergeReport,
) -> Result<(), CacheError> {
    let before = into.contributions(key)?;
    let mut added = 0;
    for record in from.contributions(key)? {
        let Some(kernel) = from.kernel(&record)? else {
            report.without_code += 1;
            continue;
        };
        report.conflicts.extend(before.iter().filter_map(|old| conflict(old, &record)));
        added += usize::from(into.contribute(key, &record.winner, &kernel)?);
    }
    report.contributions += added;
    let after = into.contributions(key)?;
    match (before.first(), after.first()) {
        (None, Some(_)) => report.new += 1,
        (Some(old), Some(new)) if old != new => report.changed += 1,
        (Some(_), _) => report.kept += 1,
        (None, None) => {}
    }
    Ok(())
}

/// What is wrong with two records of one key, if anything.
fn conflict(old: &WinnerRecord, new: &WinnerRecord) -> Option<Conflict> {
    let same = old.winner.schedule == new.winner.schedule;
    (same && old.blobs.source != new.blobs.source).then(|| Conflict {
        problem: new.key.problem.clone(),
        schedule: new.winner.schedule.clone(),
        hosts: [&old.winner.provenance.host, &new.winner.provenance.host].map(String::clone),
    })
}

/// Unites the poisoned schedules; of two entries the one that keeps a schedule out for longer stays.
pub(crate) fn merge_poison(
    into: &dyn Store,
    from: &dyn Store,
    report: &mut MergeReport,
) -> Result<(), CacheError> {
    let place = |p: &Poisoned| (p.problem.clone(), p.arch.clone(), p.schedule.clone());
    let own: BTreeMap<_, _> = into.poison()?.into_iter().map(|p| (place(&p), p)).collect();
    for entry in from.poison()? {
        let known = own.get(&place(&entry));
        if known.is_none_or(|known| entry.outlasts(known)) {
            into.put_poison(&entry)?;
            report.poisoned += usize::from(known.is_none());
        }
    }
    Ok(())
}
