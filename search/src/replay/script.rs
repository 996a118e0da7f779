//! What is known of each schedule.

use crate::statistics::median;
use qtune_cache::trial_log::{Outcome, TrialEvent};
use std::collections::BTreeMap;

/// What becomes of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It compiles and is right.
    Fine,
    /// It does not compile, or is not worth a launch.
    Unfit(String),
    /// It computes something wrong.
    Wrong(String),
    /// It takes its process down.
    Lost(String),
}

/// One schedule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// What becomes of it.
    pub fate: Fate,
    /// Its time in microseconds.
    pub us: f64,
    /// A share of samples that take so many times as long: another mode.
    pub second_mode: Option<(f64, f64)>,
    /// Its time between the kernels of other matrices, if it is another one there; a log does not know.
    pub in_step_us: Option<f64>,
}

/// All schedules of a log, by problem and text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    entries: BTreeMap<String, BTreeMap<String, Entry>>,
}

impl Script {
    /// What a log says. Of several results the worst counts, and the median of the times.
    pub fn of_log(events: &[TrialEvent]) -> Script {
        let mut script = Script::default();
        let mut times: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        let mut open: BTreeMap<(&str, &str), bool> = BTreeMap::new();
        for event in events {
            match event {
                TrialEvent::Launch { problem, schedule } => {
                    open.insert((problem, schedule), true);
                }
                TrialEvent::Result { problem, schedule, outcome, time_us, .. } => {
                    open.insert((problem, schedule), false);
                    let fate = match outcome {
                        Outcome::Ok => Fate::Fine,
                        Outcome::Rejected { reason } => Fate::Unfit(reason.clone()),
                        Outcome::Failed { reason } => Fate::Wrong(reason.clone()),
                    };
                    let own = times.entry((problem, schedule)).or_default();
                    own.extend(time_us.iter().filter(|us| **us > 0.0));
                    let entry =
                        Entry { fate, us: median(own), second_mode: None, in_step_us: None };
                    script.worsen(problem, schedule, entry);
                }
                TrialEvent::Start(_)
                | TrialEvent::Proposed { .. }
                | TrialEvent::Compiled { .. }
                | TrialEvent::Timed { .. }
                | TrialEvent::Winner { .. }
                | TrialEvent::End { .. } => {}
            }
        }
        for ((problem, schedule), _) in open.into_iter().filter(|(_, open)| *open) {
            let fate = Fate::Lost("the search never came back from it".into());
            script.worsen(
                problem,
                schedule,
                Entry { fate, us: 0.0, second_mode: None, in_step_us: None },
            );
        }
        script
    }

    /// Adds an entry; a fate that is not fine stays.
    fn worsen(&mut self, problem: &str, schedule: &str, new: Entry) {
        let old = self.entry(problem, schedule).map(|entry| entry.fate.clone());
        let fate = old.filter(|fate| *fate != Fate::Fine && new.fate == Fate::Fine);
        let fate = fate.unwrap_or_else(|| new.fate.clone());
        self.insert(problem, schedule, Entry { fate, ..new });
    }

    /// Sets an entry.
    pub fn insert(&mut self, problem: &str, schedule: &str, entry: Entry) {
        self.entries.entry(problem.into()).or_default().insert(schedule.into(), entry);
    }

    /// The entry of a schedule.
    pub fn entry(&self, problem: &str, schedule: &str) -> Option<&Entry> {
        self.entries.get(problem)?.get(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_cache::Evidence;

    fn result(schedule: &str, outcome: Outcome, time_us: f64) -> TrialEvent {
        TrialEvent::Result {
            problem: "p".into(),
            schedule: schedule.into(),
            outcome,
            time_us: Some(time_us),
            evidence: Evidence::Timed,
        }
    }

    #[test]
    fn the_worst_result_and_the_median_time_count() {
        let failed = Outcome::Failed { reason: "wrong".into() };
        let launch =
            |schedule: &str| TrialEvent::Launch { problem: "p".into(), schedule: schedule.into() };
        let script = Script::of_log(&[
            launch("a"),
            result("a", Outcome::Ok, 3.0),
            result("a", Outcome::Ok, 5.0),
            result("b", failed.clone(), 1.0),
            result("b", Outcome::Ok, 1.0),
            launch("c"),
            result("d", Outcome::Rejected { reason: "spills".into() }, 2.0),
        ]);
        let entry = |schedule: &str| script.entry("p", schedule).unwrap();
        assert_eq!((&entry("a").fate, entry("a").us), (&Fate::Fine, 4.0));
        assert_eq!(entry("b").fate, Fate::Wrong("wrong".into()));
        assert!(matches!(entry("c").fate, Fate::Lost(_)));
        assert_eq!(entry("d").fate, Fate::Unfit("spills".into()));
        assert!(script.entry("q", "a").is_none());
    }
}
