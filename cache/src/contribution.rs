//! What several machines found for one key, and which of it is served.
//!
//! A row of the winners table holds one contribution per machine and device. What is served is a
//! function of that set alone, so merging caches is commutative, associative and idempotent: the
//! order of merges, and merging twice, change nothing. The rules:
//!
//! 1. Of one machine and device the newest contribution counts: a machine may change its mind.
//! 2. A time that was measured beats one that was modelled.
//! 3. Contributions of the same schedule are one measurement; its time is the median over all
//!    their raw samples. So a lucky run on one machine does not outlive the others' unlucky ones.
//! 4. The smaller time wins, then the schedule's text.
//! 5. Of the contributions of the winning schedule the newest is served.
//!
//! Times are comparable because the key holds the whole arch: the same clocks, bandwidths and SM
//! count.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::blob::Digest;
use crate::codec::CodecError;
use crate::error::CacheError;
use crate::record::{BlobRefs, Evidence, Winner, WinnerKey, WinnerRecord};

/// What one machine found for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Contribution {
    /// The winner there.
    pub winner: Winner,
    /// Its code.
    pub blobs: BlobRefs,
}

/// A row of the winners table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WinnerRow {
    /// What it is the answer to; part of the row so that a misplaced one is recognised.
    pub key: WinnerKey,
    /// What the machines found, the served one first; never empty, in [`WinnerRow::settle`]'s
    /// order, so that equal sets are equal bytes.
    pub contributions: Vec<Contribution>,
}

impl WinnerRow {
    /// The row of one contribution.
    pub fn of(key: WinnerKey, contribution: Contribution) -> WinnerRow {
        WinnerRow { key, contributions: vec![contribution] }
    }

    /// The row of the records of one key, already in order; `None` without records.
    pub fn of_records(records: Vec<WinnerRecord>) -> Option<WinnerRow> {
        let key = records.first()?.key.clone();
        let contribution = |WinnerRecord { winner, blobs, .. }| Contribution { winner, blobs };
        Some(WinnerRow { key, contributions: records.into_iter().map(contribution).collect() })
    }

    /// Adds a contribution; `false` if that changes nothing.
    ///
    /// # Errors
    /// [`CodecError`] for a contribution that cannot be written.
    pub fn add(&mut self, new: Contribution) -> Result<bool, CodecError> {
        let before = self.contributions.clone();
        self.contributions.push(new);
        self.settle()?;
        Ok(self.contributions != before)
    }

    /// Replaces what the machine and device of `new` said before.
    ///
    /// # Errors
    /// As [`WinnerRow::add`].
    pub fn replace(&mut self, new: Contribution) -> Result<(), CodecError> {
        let own = origin(&new.winner);
        self.contributions.retain(|c| origin(&c.winner) != own);
        self.contributions.push(new);
        self.settle()
    }

    /// The contributions as records.
    pub fn records(&self) -> impl Iterator<Item = WinnerRecord> + '_ {
        self.contributions.iter().map(|c| WinnerRecord {
            key: self.key.clone(),
            winner: c.winner.clone(),
            blobs: c.blobs,
        })
    }

    /// Refuses a row in which anything is not verified, or nothing is.
    pub fn check(&self) -> Result<(), String> {
        if self.contributions.is_empty() {
            return Err("it holds no winner".into());
        }
        let checked =
            self.contributions.iter().try_for_each(|c| c.winner.check_evidence(&self.key.problem));
        checked.map_err(|error: CacheError| error.to_string())
    }

    /// Keeps the newest contribution of each machine and device, and orders them: the served first.
    fn settle(&mut self) -> Result<(), CodecError> {
        let mut newest: BTreeMap<(String, String), (Contribution, Digest)> = BTreeMap::new();
        for contribution in self.contributions.drain(..) {
            let digest = Digest::of(&crate::codec::payload(&contribution)?);
            let (host, device) = origin(&contribution.winner);
            let age = |c: &Contribution, d| (c.winner.provenance.created_unix_seconds, d);
            let slot = (host.to_owned(), device.to_owned());
            match newest.get(&slot) {
                Some((old, own)) if age(old, *own) >= age(&contribution, digest) => {}
                _ => drop(newest.insert(slot, (contribution, digest))),
            }
        }
        let mut all: Vec<(Contribution, Digest)> = newest.into_values().collect();
        let times = times_by_schedule(&all);
        all.sort_by(|(a, a_digest), (b, b_digest)| {
            let time = |c: &Contribution| times[&group(&c.winner)];
            rank(&a.winner)
                .cmp(&rank(&b.winner))
                .then_with(|| time(a).total_cmp(&time(b)))
                .then_with(|| newer_first(&a.winner, &b.winner))
                .then_with(|| a_digest.cmp(b_digest))
        });
        self.contributions = all.into_iter().map(|(contribution, _)| contribution).collect();
        Ok(())
    }
}

/// Who made a contribution: one machine may have several GPUs, and the simulator.
fn origin(winner: &Winner) -> (&str, &str) {
    (&winner.provenance.host, &winner.provenance.device)
}

/// Measured before modelled.
fn rank(winner: &Winner) -> u8 {
    match winner.evidence {
        Evidence::Timed => 0,
        Evidence::Modelled => 1,
    }
}

/// By schedule, then the newest first.
fn newer_first(a: &Winner, b: &Winner) -> Ordering {
    let key = |w: &Winner| Reverse(w.provenance.created_unix_seconds);
    a.schedule.cmp(&b.schedule).then_with(|| key(a).cmp(&key(b)))
}

/// What is one measurement: measured and modelled times of a schedule never mix.
fn group(winner: &Winner) -> (u8, String) {
    (rank(winner), winner.schedule.clone())
}

/// The median over all samples of each group.
fn times_by_schedule(all: &[(Contribution, Digest)]) -> BTreeMap<(u8, String), f64> {
    let mut samples: BTreeMap<(u8, String), Vec<f64>> = BTreeMap::new();
    for (Contribution { winner, .. }, _) in all {
        let own = samples.entry(group(winner)).or_default();
        match winner.samples_us.as_slice() {
            [] => own.push(winner.time_us),
            raw => own.extend(raw),
        }
    }
    samples.into_iter().map(|(group, own)| (group, median(own))).collect()
}

/// The middle value, or the mean of the two middle ones; `values` is not empty.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
#[path = "contribution_tests.rs"]
mod tests;
