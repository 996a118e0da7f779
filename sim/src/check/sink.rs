//! Collects findings of one worker, deduplicated by kind and instruction, and merges workers.

use std::collections::HashMap;

use super::finding::{Finding, FindingKind};

/// Findings of one worker thread.
#[derive(Debug, Default)]
pub(crate) struct FindingSink {
    by_place: HashMap<(FindingKind, u32), Finding>,
}

impl FindingSink {
    /// Records a finding; `make` is called only for the first at its place, or for one in an
    /// earlier block, so that the report does not depend on the order in which blocks run.
    pub(crate) fn record(
        &mut self,
        kind: FindingKind,
        ptx_line: u32,
        block: u32,
        make: impl FnOnce() -> Finding,
    ) {
        match self.by_place.get_mut(&(kind, ptx_line)) {
            Some(known) => {
                let count = known.count + 1;
                if block < known.block {
                    *known = make();
                }
                known.count = count;
            }
            None => {
                self.by_place.insert((kind, ptx_line), make());
            }
        }
    }

    /// Takes over the findings of another worker.
    pub(crate) fn merge(&mut self, other: FindingSink) {
        for (place, finding) in other.by_place {
            let count = finding.count;
            match self.by_place.get_mut(&place) {
                Some(known) => {
                    let total = known.count + count;
                    if finding.block < known.block {
                        *known = finding;
                    }
                    known.count = total;
                }
                None => {
                    self.by_place.insert(place, finding);
                }
            }
        }
    }

    /// Findings by PTX line, at most `limit`.
    pub(crate) fn into_sorted(self, limit: usize) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.by_place.into_values().collect();
        findings.sort_by_key(|f| (f.ptx_line, f.kind));
        findings.truncate(limit);
        findings
    }
}
