//! What a cache folder or a trial log says, by problem.

use crate::cache_dir::{evidence, CacheArgs};
use crate::exit::usage;
use crate::output;
use qtune_cache::trial_log::{self, Outcome, RunHeader, TrialEvent};
use qtune_cache::{trials_dir, Evidence, Store, WinnerRecord};
use qtune_ir::{Arch, Family, Problem, WeightSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Everything that the page shows.
#[derive(Debug, Default)]
pub struct Report {
    /// Where it was read from.
    pub source: String,
    /// By matrix, the fewest tokens first.
    pub problems: Vec<Tried>,
    /// Trials that did not end with a right kernel, by cause; `#` stands for a number.
    pub failures: BTreeMap<String, usize>,
    /// What the searches were asked for.
    pub runs: Vec<RunHeader>,
    /// Machines, devices and versions that made the winners.
    pub makers: BTreeSet<[String; 4]>,
    /// GPUs that the problems were tuned for, as far as their names are known.
    pub archs: BTreeMap<String, Arch>,
}

/// One problem on one GPU.
#[derive(Debug)]
pub struct Tried {
    /// Problem key.
    pub key: String,
    /// Fingerprint of the GPU.
    pub arch: String,
    /// Whether its times are those of a replayed trial log.
    pub replayed: bool,
    /// The problem and its format, if this qtune knows them.
    pub parsed: Option<(Problem, WeightSpec)>,
    /// Everything that was measured or modelled and right, each schedule once.
    pub trials: BTreeMap<String, Trial>,
    /// What won.
    pub winner: Option<Winner>,
}

/// One schedule that is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its time in microseconds.
    pub us: f64,
    /// Where the time comes from.
    pub evidence: Evidence,
}

/// What won.
#[derive(Clone, Debug, PartialEq)]
pub struct Winner {
    /// The schedule.
    pub schedule: String,
    /// Its time in microseconds.
    pub us: f64,
    /// Where the time comes from.
    pub evidence: Evidence,
    /// Largest error over its bound.
    pub error_over_bound: f64,
    /// Share of the roof; unknown to a trial log.
    pub roof_share: Option<f64>,
    /// Measured time of the load-only twin; unknown to a trial log.
    pub load_only_us: Option<f64>,
    /// Time of the default schedule, where it lost.
    pub default_us: Option<f64>,
    /// Machines that contributed.
    pub machines: usize,
}

/// Times in microseconds that can be a kernel's: from less than a clock to a day. Logs come from anywhere,
/// and what lies outside would squeeze everything else into a corner of the figure.
const POSSIBLE_US: RangeInclusive<f64> = 1e-4..=1e11;

/// Problem key, fingerprint of the GPU, and whether a trial log was replayed: what such a search finds
/// says nothing about the cache's kernels.
type Place = (String, String, bool);

impl Report {
    /// Reads a cache folder with the logs in it, or a log.
    pub fn read(source: &Path) -> anyhow::Result<Report> {
        let mut reader = Reader::default();
        if source.is_dir() {
            let cache = CacheArgs { dir: Some(source.to_path_buf()) };
            let Some(store) = cache.open_existing()? else {
                let path = source.display();
                return Err(usage(format!("{path} holds no cache; name a cache or a trial log")));
            };
            for log in reads(source) {
                match trial_log::read(&log) {
                    Ok(events) => reader.log(&events),
                    // The winners do not depend on it.
                    Err(error) => output::warning(format_args!("left out: {error}")),
                }
            }
            // Of what several generators or compilers found the newest is shown.
            let mut records = store.winners()?;
            records.sort_by_key(|record| record.winner.provenance.created_unix_seconds);
            for record in records {
                let machines = store.contributions(&record.key)?.len();
                reader.winner(record, machines);
            }
        } else {
            let events = trial_log::read(source)?;
            if events.is_empty() {
                let path = source.display();
                return Err(usage(format!("{path} holds no search; name a cache or a trial log")));
            }
            reader.log(&events);
        }
        Ok(reader.finish(source))
    }
}

/// The trial logs that a page of `source` is made of: itself, or those of a cache in order of their names.
pub fn reads(source: &Path) -> Vec<PathBuf> {
    if !source.is_dir() {
        return vec![source.to_path_buf()];
    }
    let entries = std::fs::read_dir(trials_dir(source)).into_iter().flatten().flatten();
    let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    logs.sort();
    logs
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    report: Report,
    problems: BTreeMap<Place, Tried>,
    /// The GPU of the run that is being read.
    arch: String,
    /// Whether that run replays another log.
    replayed: bool,
}

impl Reader {
    fn problem(&mut self, key: &str, arch: &str, replayed: bool) -> &mut Tried {
        let place = (key.to_owned(), arch.to_owned(), replayed);
        self.problems.entry(place).or_insert_with(|| Tried {
            key: key.into(),
            arch: arch.into(),
            replayed,
            parsed: key.parse().ok().and_then(|problem: Problem| {
                let spec = qtune_formats::resolve(&problem.format).ok()?;
                Some((problem, spec))
            }),
            trials: BTreeMap::new(),
            winner: None,
        })
    }

    fn log(&mut self, events: &[TrialEvent]) {
        for event in events {
            match event {
                TrialEvent::Start(header) => {
                    self.arch = header.arch.clone();
                    self.replayed = header.is_replay();
                    self.report.runs.push(header.clone());
                }
                TrialEvent::Result { problem, schedule, outcome, time_us, evidence } => {
                    match outcome {
                        Outcome::Ok => self.trial(problem, schedule, *time_us, *evidence),
                        Outcome::Rejected { reason } | Outcome::Failed { reason } => {
                            let cause = without_numbers(reason);
                            *self.report.failures.entry(cause).or_default() += 1;
                        }
                    }
                }
                TrialEvent::Winner { problem, schedule, time_us, evidence, error_over_bound }
                    if POSSIBLE_US.contains(time_us) =>
                {
                    self.current(problem).winner = Some(Winner {
                        schedule: schedule.clone(),
                        us: *time_us,
                        evidence: *evidence,
                        error_over_bound: *error_over_bound,
                        roof_share: None,
                        load_only_us: None,
                        default_us: None,
                        machines: 1,
                    });
                    self.trial(problem, schedule, Some(*time_us), *evidence);
                }
                TrialEvent::Winner { .. }
                | TrialEvent::Proposed { .. }
                | TrialEvent::Compiled { .. }
                | TrialEvent::Launch { .. }
                | TrialEvent::Timed { .. }
                | TrialEvent::End { .. } => {}
            }
        }
    }

    fn trial(&mut self, problem: &str, schedule: &str, us: Option<f64>, evidence: Evidence) {
        let Some(us) = us.filter(|us| POSSIBLE_US.contains(us)) else { return };
        self.current(problem).trials.insert(schedule.into(), Trial { us, evidence });
    }

    /// A problem of the run that is being read.
    fn current(&mut self, key: &str) -> &mut Tried {
        let arch = self.arch.clone();
        self.problem(key, &arch, self.replayed)
    }

    /// A stored winner knows more than the log of it.
    fn winner(&mut self, record: WinnerRecord, machines: usize) {
        let WinnerRecord { key, winner, .. } = record;
        let made = &winner.provenance;
        let maker = [&made.host, &made.device, &made.qtune_version, &made.compiler_version];
        self.report.makers.insert(maker.map(String::clone));
        let default = winner.beat.iter().find(|b| b.reason.starts_with(qtune_search::DEFAULT_LOST));
        let problem = self.problem(&key.problem, &key.arch, key.is_replay());
        let trial = |us| Trial { us, evidence: winner.evidence };
        for beaten in winner.beat.iter().filter(|b| POSSIBLE_US.contains(&b.time_us)) {
            // Of what was found wrong only a modelled time is known, and it is no trial.
            if !beaten.reason.contains(": ") {
                let us = beaten.time_us;
                problem.trials.entry(beaten.schedule.clone()).or_insert_with(|| trial(us));
            }
        }
        problem.trials.insert(winner.schedule.clone(), trial(winner.time_us));
        problem.winner = Some(Winner {
            schedule: winner.schedule.clone(),
            us: winner.time_us,
            evidence: winner.evidence,
            error_over_bound: winner.error_over_bound,
            roof_share: Some(winner.roof_share),
            load_only_us: winner.load_only_us,
            default_us: default.map(|b| b.time_us),
            machines,
        });
    }

    fn finish(mut self, source: &Path) -> Report {
        self.report.source = source.display().to_string();
        let known: Vec<Arch> = Arch::names().filter_map(|name| Arch::named(name).ok()).collect();
        for tried in self.problems.values() {
            if let Some(arch) = known.iter().find(|arch| arch.fingerprint() == tried.arch) {
                self.report.archs.insert(tried.arch.clone(), arch.clone());
            }
        }
        self.report.problems = self.problems.into_values().collect();
        self.report.problems.sort_by_cached_key(Tried::place);
        self.report
    }
}

/// The first line of a reason as a cause that can be counted: numbers become `#`.
fn without_numbers(reason: &str) -> String {
    let mut cause = String::new();
    for c in reason.lines().next().unwrap_or_default().chars() {
        match c {
            c if !c.is_ascii_digit() => cause.push(c),
            _ if cause.ends_with('#') => {}
            _ => cause.push('#'),
        }
    }
    cause
}

impl Tried {
    /// Where a reader looks for it: GPU, format, matrix, tokens as a number. What this qtune does
    /// not know comes first.
    fn place(&self) -> impl Ord {
        let parsed = self.parsed.as_ref().map(|(p, _)| (p.format.to_string(), p.n, p.k, p.m));
        (self.arch.clone(), self.replayed, parsed, self.key.clone())
    }

    /// Where the winner's time comes from, in a word.
    pub fn evidence(&self, winner: &Winner) -> &'static str {
        if self.replayed {
            "replayed"
        } else {
            evidence(winner.evidence)
        }
    }

    /// The least time of a kernel that dequantizes all weights first, by evidence like the winner's.
    pub fn dequantized_first_us(&self, winner: &Winner) -> Option<f64> {
        let alike = |(schedule, trial): &(&String, &Trial)| {
            family(schedule) == Family::Dequant.name() && trial.evidence == winner.evidence
        };
        let times = self.trials.iter().filter(alike).map(|(_, trial)| trial.us);
        times.min_by(f64::total_cmp)
    }

    /// Multiply-adds, in floating-point operations.
    pub fn operations(&self) -> Option<f64> {
        let (problem, _) = self.parsed.as_ref()?;
        Some(2.0 * f64::from(problem.m) * f64::from(problem.n) * f64::from(problem.k))
    }

    /// Bytes that must move at least: weights with their parameters, activations, outputs.
    pub fn bytes(&self) -> Option<f64> {
        let (problem, spec) = self.parsed.as_ref()?;
        Some(qtune_ir::tile::compulsory_bytes(problem, spec) as f64)
    }
}

/// The family of a schedule: its first word.
pub fn family(schedule: &str) -> &str {
    schedule.split_whitespace().next().unwrap_or("other")
}
