//! The whole: cached problems answered, the others proposed and compiled on some threads while
//! the calling thread verifies, stores and logs.

use crate::candidate::Candidate;
use crate::compiler::Compiler;
use crate::finalist::{compile_all, Compiled};
use crate::judge::{Judge, Judgement};
use crate::ladder::{Climb, Ladder};
use crate::log::{Log, Poison};
use crate::progress::{Progress, Tally};
use crate::record::record;
use crate::report::{Failures, Stopped, TuneReport, WinnerReport};
use crate::request::{Task, TuneRequest};
use crate::terms::{dequant_cost, is_exact, Terms};
use crate::SearchError;
use qtune_cache::trial_log::TrialLog;
use qtune_cache::{Evidence, Store, Winner, WinnerKey};
use qtune_device::Device;
use qtune_ir::tile::DequantChoice;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Mutex;
use std::time::Instant;

/// Problems that may wait, compiled, for the verifier.
const WAITING: usize = 2;
/// Threads that propose and compile, at most; compiles themselves spread over all cores.
const PREPARERS_MAX: usize = 8;

/// Tunes every problem of the request.
///
/// Winners are verified and stored one by one, so an interruption (`cancel`) or the end of the
/// budget loses only the problem under way. What the cache has under the same key is taken from
/// there, unless the request is `fresh`.
///
/// # Errors
/// [`SearchError::Format`] for an unknown format, [`SearchError::Cache`] if the cache or the trial
/// log cannot be read or written. A problem for which every candidate fails is no error: it is in
/// [`TuneReport::without`].
pub fn tune(
    request: &TuneRequest,
    device: &dyn Device,
    compiler: &dyn Compiler,
    store: &dyn Store,
    trials: &mut TrialLog,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<TuneReport, SearchError> {
    let tasks = request.tasks()?;
    let trial_log = trials.path().to_path_buf();
    let fingerprint = compiler.fingerprint();
    let header = tasks.first().map(|t| qtune_codegen::fingerprint(&t.spec, &fingerprint));
    let evidence = match device.evidence() {
        qtune_device::Evidence::Modelled => Evidence::Modelled,
        qtune_device::Evidence::Timed => Evidence::Timed,
    };
    let header = header.unwrap_or_default();
    let (log, poison) = Log::begin(trials, store, request, &tasks, &header, evidence)?;
    progress.begin(tasks.len());
    let mut search = Search {
        request,
        device,
        compiler,
        store,
        progress,
        clock: Clock::start(request, cancel),
        terms: Terms::new(&request.arch, request.exact),
        fingerprint,
        evidence,
        poison,
        winners: vec![None; tasks.len()],
        without: Vec::new(),
        failures: Failures::new(),
        log,
        tasks: &tasks,
    };
    search.answer_from_cache()?;
    let stopped = search.run()?;
    let winners: Vec<WinnerReport> = search.winners.into_iter().flatten().collect();
    search.log.end(winners.len(), stopped != Stopped::Complete)?;
    Ok(TuneReport {
        winners,
        without: search.without,
        failures: search.failures,
        stopped,
        limits: request.effort.limits(),
        trial_log,
    })
}

/// Says when to stop.
#[derive(Clone, Copy)]
struct Clock<'a> {
    deadline: Option<Instant>,
    cancel: &'a AtomicBool,
}

impl<'a> Clock<'a> {
    fn start(request: &TuneRequest, cancel: &'a AtomicBool) -> Clock<'a> {
        // A budget beyond what an instant can hold is no limit.
        let deadline = request.budget.and_then(|budget| Instant::now().checked_add(budget));
        Clock { deadline, cancel }
    }

    fn stopped(&self) -> Option<Stopped> {
        if self.cancel.load(Ordering::Relaxed) {
            return Some(Stopped::Interrupted);
        }
        let ended = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        ended.then_some(Stopped::BudgetEnded)
    }
}

/// A search under way.
struct Search<'a> {
    request: &'a TuneRequest,
    device: &'a dyn Device,
    compiler: &'a dyn Compiler,
    store: &'a dyn Store,
    progress: &'a dyn Progress,
    clock: Clock<'a>,
    terms: Terms,
    /// The compiler's.
    fingerprint: String,
    evidence: Evidence,
    poison: Poison,
    /// In the order of `tasks`.
    winners: Vec<Option<WinnerReport>>,
    without: Vec<(String, String)>,
    failures: Failures,
    log: Log<'a>,
    tasks: &'a [Task],
}

/// A problem whose candidates are compiled.
struct Prepared {
    index: usize,
    climb: Climb,
    compiled: Vec<Compiled>,
    default: Option<String>,
    tally: Tally,
}

/// What a thread that prepares problems needs; shared by all of them.
struct Preparer<'a> {
    request: &'a TuneRequest,
    compiler: &'a dyn Compiler,
    progress: &'a dyn Progress,
    clock: Clock<'a>,
    terms: &'a Terms,
    poison: &'a Poison,
    tasks: &'a [Task],
    /// Indices of the problems to prepare.
    pending: &'a [usize],
    next: AtomicUsize,
    /// Set when nobody takes what is prepared any more.
    abandoned: AtomicBool,
}

impl Search<'_> {
    fn key(&self, task: &Task) -> WinnerKey {
        let fingerprint = qtune_codegen::fingerprint(&task.spec, &self.fingerprint);
        WinnerKey::of(&task.problem, &self.request.arch, fingerprint)
    }

    fn answer_from_cache(&mut self) -> Result<(), SearchError> {
        if self.request.fresh {
            return Ok(());
        }
        for (index, task) in self.tasks.iter().enumerate() {
            let arch = &self.request.arch;
            let key = self.key(task);
            let Some(record) = self.store.get(&key)? else { continue };
            if !self.serves(task, &record.winner) || self.store.kernel(&record)?.is_none() {
                continue;
            }
            let kept = default_text(task, arch).is_some_and(|d| d == record.winner.schedule);
            let report = WinnerReport::of(&task.name, &task.problem, &record.winner, kept, true);
            self.progress.problem_done(index, &report);
            self.winners[index] = Some(report);
        }
        Ok(())
    }

    /// Whether a stored winner answers this request. A time that was measured is never replaced by a
    /// model's, the other way round it is; a request for exact weights takes no others.
    fn serves(&self, task: &Task, winner: &Winner) -> bool {
        let outdated = self.evidence == Evidence::Timed && winner.evidence == Evidence::Modelled;
        let exact = || {
            let schedule = winner.schedule.parse().ok()?;
            let arch = &self.request.arch;
            dequant_cost(&task.problem, &task.spec, arch, &schedule).ok()
        };
        !outdated && (!self.request.exact || exact().is_some_and(|term| is_exact(&term)))
    }

    /// Prepares and judges all problems that have no winner yet.
    fn run(&mut self) -> Result<Stopped, SearchError> {
        let pending: Vec<usize> =
            (0..self.tasks.len()).filter(|index| self.winners[*index].is_none()).collect();
        if pending.is_empty() {
            return Ok(Stopped::Complete);
        }
        let terms = std::mem::replace(&mut self.terms, Terms::new(&self.request.arch, false));
        let poison = std::mem::take(&mut self.poison);
        let preparer = Preparer {
            request: self.request,
            compiler: self.compiler,
            progress: self.progress,
            clock: self.clock,
            terms: &terms,
            poison: &poison,
            tasks: self.tasks,
            pending: &pending,
            next: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let preparers = (cores / 2).clamp(1, PREPARERS_MAX).min(pending.len());
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(WAITING);
            for _ in 0..preparers {
                let (sender, preparer) = (sender.clone(), &preparer);
                scope.spawn(move || preparer.work(&sender));
            }
            drop(sender);
            let result = self.settle_all(&receiver);
            preparer.abandoned.store(true, Ordering::Relaxed);
            drop(receiver);
            result
        })
    }

    /// Judges what the preparers send until they are done or it is time to stop.
    fn settle_all(
        &mut self,
        receiver: &Receiver<Result<Prepared, (usize, SearchError)>>,
    ) -> Result<Stopped, SearchError> {
        for prepared in receiver {
            match prepared {
                Ok(prepared) => self.settle(prepared)?,
                Err((index, error)) => self.give_up(index, error.to_string()),
            }
            if let Some(stopped) = self.clock.stopped() {
                let done = self.winners.iter().flatten().count() + self.without.len();
                let all = done == self.tasks.len();
                return Ok(if all { Stopped::Complete } else { stopped });
            }
        }
        Ok(self.clock.stopped().unwrap_or(Stopped::Complete))
    }

    fn give_up(&mut self, index: usize, reason: String) {
        let task = &self.tasks[index];
        self.progress.note(&format!("{}: no kernel for {}: {reason}", task.name, task.problem));
        self.without.push((task.problem.to_string(), reason));
    }

    /// Judges one problem and stores its winner.
    fn settle(&mut self, prepared: Prepared) -> Result<(), SearchError> {
        let Prepared { index, climb, compiled, default, tally } = prepared;
        let task = &self.tasks[index];
        self.log.proposed(task, &climb)?;
        for (cause, count) in climb.rejected {
            *self.failures.entry(cause).or_default() += count;
        }
        let clock = self.clock;
        let judge = Judge {
            index,
            task,
            device: self.device,
            store: self.store,
            limits: self.request.effort.limits(),
            seed: self.request.seed,
            progress: self.progress,
            go_on: &|| clock.stopped().is_none(),
            default: default.as_deref(),
        };
        let judgement = judge.judge(compiled, tally, &mut self.log)?;
        for (cause, count) in &judgement.failures {
            *self.failures.entry(cause.clone()).or_default() += count;
        }
        self.store_winner(index, &judgement, default.as_deref())
    }

    fn store_winner(
        &mut self,
        index: usize,
        judgement: &Judgement,
        default: Option<&str>,
    ) -> Result<(), SearchError> {
        let task = &self.tasks[index];
        let Some(won) = &judgement.won else {
            if self.clock.stopped().is_none() {
                let reasons: Vec<String> =
                    judgement.failures.iter().map(|(why, n)| format!("{why} ({n})")).collect();
                self.give_up(index, format!("every candidate failed: {}", reasons.join("; ")));
            }
            return Ok(());
        };
        let device = self.device.describe();
        let made_by = (self.fingerprint.as_str(), device.as_str());
        let (winner, kernel) = record(task, won, judgement, self.request.seed, made_by);
        let key = self.key(task);
        self.store.put(&key, &winner, &kernel)?;
        self.log.winner(task, &winner)?;
        let kept = default == Some(winner.schedule.as_str());
        let report = WinnerReport::of(&task.name, &task.problem, &winner, kept, false);
        self.progress.problem_done(index, &report);
        self.winners[index] = Some(report);
        Ok(())
    }
}

impl Preparer<'_> {
    fn go_on(&self) -> bool {
        self.clock.stopped().is_none() && !self.abandoned.load(Ordering::Relaxed)
    }

    /// Takes problems in order until none is left.
    fn work(&self, sender: &SyncSender<Result<Prepared, (usize, SearchError)>>) {
        while self.go_on() {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&index) = self.pending.get(turn) else { return };
            let prepared = self.prepare(index).map_err(|error| (index, error));
            if sender.send(prepared).is_err() {
                return;
            }
        }
    }

    /// Climbs the ladder for one problem and compiles its finalists and the default schedule.
    fn prepare(&self, index: usize) -> Result<Prepared, SearchError> {
        let task = &self.tasks[index];
        let arch = &self.request.arch;
        self.progress.problem_started(index, &task.name, &task.problem);
        let nothing = HashSet::new();
        let poisoned = self.poison.get(&task.problem.to_string()).unwrap_or(&nothing);
        let limits = self.request.effort.limits();
        let ladder = Ladder { task, arch, terms: self.terms, limits, poisoned };
        let mut climb = ladder.climb()?;
        let default = self.default_candidate(task).filter(|d| !poisoned.contains(&d.text));
        let mut candidates = std::mem::take(&mut climb.finalists);
        if let Some(default) = &default {
            if candidates.iter().all(|c| c.text != default.text) {
                candidates.push(default.clone());
            }
        }
        let tally = Mutex::new(Tally { proposed: climb.ranked, ..Tally::default() });
        let lock = || tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let done = |_: &Compiled| {
            let mut tally = lock();
            tally.compiled += 1;
            self.progress.candidate(index, &tally);
        };
        let go_on = || self.go_on();
        let compiled = compile_all(task, arch, self.compiler, candidates, &go_on, &done);
        let tally = *lock();
        Ok(Prepared { index, climb, compiled, default: default.map(|d| d.text), tally })
    }

    /// The default schedule, modelled; `None` if the problem has none, or if it rounds where the
    /// request wants exact weights.
    fn default_candidate(&self, task: &Task) -> Option<Candidate> {
        let arch = &self.request.arch;
        let Task { problem, spec, .. } = task;
        let schedule = qtune_verify::default_schedule(problem, spec, arch).ok()?;
        let allowed = self.terms.all(problem, spec, &schedule);
        if self.request.exact && allowed.iter().all(|c| c.term != schedule.dequant()) {
            return None;
        }
        let variant = dequant_cost(problem, spec, arch, &schedule).ok()?;
        let choice = DequantChoice {
            term: schedule.dequant().into(),
            instructions_per_weight: variant.cost,
        };
        Some(Candidate::new((problem, spec, arch), &schedule, &choice, 0))
    }
}

fn default_text(task: &Task, arch: &qtune_ir::Arch) -> Option<String> {
    let schedule = qtune_verify::default_schedule(&task.problem, &task.spec, arch).ok()?;
    Some(schedule.to_string())
}
