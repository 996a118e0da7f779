//! What the cache answers: the winners that it has under the keys of this search.

use crate::bed::TestBed;
use crate::report::WinnerReport;
use crate::request::{Task, TuneRequest};
use crate::terms::{dequant_cost, is_exact};
use qtune_cache::{CacheError, Evidence, Kernel, Store, Winner, WinnerKey};
use qtune_ir::{Arch, Schedule};

/// The cache as one search uses it.
#[derive(Clone, Copy)]
pub(crate) struct Answers<'a> {
    pub request: &'a TuneRequest,
    pub bed: &'a dyn TestBed,
    pub store: &'a dyn Store,
}

impl Answers<'_> {
    /// The key of a task's winner.
    pub fn key(&self, task: &Task) -> WinnerKey {
        let fingerprint = qtune_codegen::fingerprint(&task.spec, &self.bed.fingerprint());
        let key = WinnerKey::of(&task.problem, &self.request.arch, fingerprint);
        if self.bed.replays() {
            key.of_replay()
        } else {
            key
        }
    }

    /// The stored winner that may be served for a task, if its code is there.
    pub fn stored(&self, task: &Task) -> Result<Option<Winner>, CacheError> {
        let Some(record) = self.store.get(&self.key(task))? else { return Ok(None) };
        let good = self.serves(task, &record.winner) && self.store.kernel(&record)?.is_some();
        Ok(good.then_some(record.winner))
    }

    /// The stored winner that makes a search unnecessary: where nothing may be tuned any will do, else a
    /// search must have gone as far as the request wants it to.
    pub fn final_one(&self, task: &Task) -> Result<Option<Winner>, CacheError> {
        let Some(winner) = self.stored(task)? else { return Ok(None) };
        let settled = self.request.cache_only || self.searched(task)?;
        Ok(settled.then_some(winner))
    }

    /// Whether somebody searched for a task's winner with the effort of the request, on this machine or
    /// on one whose cache was merged. Beside a measured time a model's is of no use, whatever its effort.
    fn searched(&self, task: &Task) -> Result<bool, CacheError> {
        let wanted = self.request.effort.extent();
        let models = self.bed.evidence() == Evidence::Modelled;
        let enough = |winner: &Winner| match winner.evidence {
            Evidence::Timed => models || winner.extent >= wanted,
            Evidence::Modelled => models && winner.extent >= wanted,
        };
        let found = self.store.contributions(&self.key(task))?;
        Ok(found.iter().any(|record| enough(&record.winner)))
    }

    /// Where a search begins that is to go on from what one of less effort found: its winner and, if
    /// that was measured, those that came near it.
    ///
    /// A winner of a search that was cut short is no beginning, nor is any for a request that is `fresh`:
    /// the search finds then what it would have found alone.
    pub fn earlier(&self, task: &Task) -> Result<Vec<Schedule>, CacheError> {
        let wanted = self.request.effort.extent();
        let less = |winner: &Winner| winner.extent.is_whole() && winner.extent < wanted;
        let winner = self.stored(task)?.filter(|winner| !self.request.fresh && less(winner));
        Ok(winner.map_or_else(Vec::new, |winner| near(&winner)))
    }

    /// Stores a winner and says which one is served now. What a whole search found never makes room for
    /// what one found that was cut short, nor does anything faster.
    pub fn keep(
        &self,
        task: &Task,
        winner: Winner,
        kernel: &Kernel,
    ) -> Result<(Winner, bool), CacheError> {
        if !winner.extent.is_whole() {
            let better = |old: &Winner| old.extent.is_whole() || old.time_us <= winner.time_us;
            if let Some(old) = self.stored(task)?.filter(better) {
                return Ok((old, false));
            }
        }
        self.store.put(&self.key(task), &winner, kernel)?;
        Ok((winner, true))
    }

    /// A stored winner as part of a report.
    pub fn report(&self, task: &Task, winner: &Winner) -> WinnerReport {
        let default = default_text(task, &self.request.arch);
        let kept = default.is_some_and(|default| default == winner.schedule);
        WinnerReport::of(&task.name, &task.problem, winner, kept, true)
    }

    /// Whether a stored winner answers this request. A time that was measured is never replaced by a
    /// model's, the other way round it is; a request for exact weights takes no others,
    /// and one for a device without a library none that needs it.
    fn serves(&self, task: &Task, winner: &Winner) -> bool {
        let timed = self.bed.evidence() == Evidence::Timed;
        let outdated = timed && winner.evidence == Evidence::Modelled;
        let Ok(schedule) = winner.schedule.parse::<Schedule>() else { return false };
        let (Task { problem, spec, .. }, arch) = (task, &self.request.arch);
        let exact = || dequant_cost(problem, spec, arch, &schedule);
        !outdated
            && schedule.check(problem, spec, arch).is_ok()
            && (!self.request.exact || exact().is_ok_and(|term| is_exact(&term)))
    }
}

/// Schedules that a winner was measured against and that lie behind it, at most.
const RUNNERS_UP: usize = 3;

/// A winner's schedule, and those that came next where times were measured. What is wrong lost in front
/// of it or has a model's time; should one be among them, it is verified like any other.
fn near(winner: &Winner) -> Vec<Schedule> {
    let timed = winner.evidence == Evidence::Timed;
    let behind = winner.beat.iter().filter(|lost| timed && lost.time_us >= winner.time_us);
    let texts = behind.map(|lost| &lost.schedule).take(RUNNERS_UP);
    std::iter::once(&winner.schedule).chain(texts).filter_map(|text| text.parse().ok()).collect()
}

fn default_text(task: &Task, arch: &Arch) -> Option<String> {
    let schedule = qtune_verify::default_schedule(&task.problem, &task.spec, arch).ok()?;
    Some(schedule.to_string())
}
