//! The whole: cached problems answered, the others proposed and compiled on some threads while
//! the calling thread verifies, stores and logs.

use crate::answers::Answers;
use crate::bed::{DeviceBed, TestBed};
use crate::candidate::Candidate;
use crate::compiler::Compiler;
use crate::finalist::{compile_all, Compiled};
use crate::gain::by_gain;
use crate::in_step::{in_step, Standing};
use crate::judge::{Judge, Judgement};
use crate::ladder::{Climb, Ladder};
use crate::log::{Log, Poison};
use crate::progress::{Progress, Tally};
use crate::record::record;
use crate::replay::Replay;
use crate::report::{Failures, Stopped, TuneReport, WinnerReport};
use crate::request::{Task, TuneRequest};
use crate::slabs;
use crate::terms::Terms;
use crate::warm::{self, Known};
use crate::SearchError;
use qtune_cache::trial_log::TrialLog;
use qtune_cache::{Store, WinnerKey};
use qtune_device::Device;
use qtune_ir::Schedule;
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
    run(request, &DeviceBed { device, compiler }, store, trials, progress, cancel)
}

/// As [`tune`], on a trial log instead of a device.
///
/// # Errors
/// As [`tune`]; [`SearchError::OtherArch`] if the log is of another arch than the request.
pub fn tune_on_log(
    request: &TuneRequest,
    log: &Replay,
    store: &dyn Store,
    trials: &mut TrialLog,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<TuneReport, SearchError> {
    if log.arch() != request.arch.fingerprint() {
        let (found, wanted) = (log.arch().to_owned(), request.arch.to_string());
        return Err(SearchError::OtherArch { found, wanted });
    }
    run(request, log, store, trials, progress, cancel)
}

fn run(
    request: &TuneRequest,
    bed: &dyn TestBed,
    store: &dyn Store,
    trials: &mut TrialLog,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<TuneReport, SearchError> {
    let tasks = request.tasks()?;
    let trial_log = trials.path().to_path_buf();
    let answers = Answers { request, bed, store };
    let own: Vec<WinnerKey> = tasks.iter().map(|task| answers.key(task)).collect();
    let (log, poison) = Log::begin(trials, &answers, &tasks)?;
    progress.begin(tasks.len());
    let mut search = Search {
        request,
        bed,
        store,
        progress,
        clock: Clock::start(request, cancel),
        terms: Terms::new(&request.arch, request.exact),
        answers,
        poison,
        known: Known::of(store)?.without(&own),
        winners: vec![None; tasks.len()],
        without: Vec::new(),
        standings: Vec::new(),
        failures: Failures::new(),
        log,
        tasks: &tasks,
    };
    search.answer_from_cache()?;
    let stopped = search.run()?;
    search.answer_unfinished()?;
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
    bed: &'a dyn TestBed,
    store: &'a dyn Store,
    progress: &'a dyn Progress,
    clock: Clock<'a>,
    terms: Terms,
    answers: Answers<'a>,
    poison: Poison,
    known: Known,
    /// In the order of `tasks`.
    winners: Vec<Option<WinnerReport>>,
    without: Vec<(String, String)>,
    /// What was judged, where finalists are timed in step.
    standings: Vec<Standing>,
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
    bed: &'a dyn TestBed,
    progress: &'a dyn Progress,
    clock: Clock<'a>,
    terms: &'a Terms,
    poison: &'a Poison,
    known: &'a Known,
    /// Of each problem, what a search of less effort left to begin with.
    earlier: &'a [Vec<Schedule>],
    tasks: &'a [Task],
    /// Indices of the problems to prepare, in this order.
    pending: &'a [usize],
    next: AtomicUsize,
    /// Set when nobody takes what is prepared any more.
    abandoned: AtomicBool,
}

impl Search<'_> {
    fn answer_from_cache(&mut self) -> Result<(), SearchError> {
        if self.request.fresh || self.request.in_step {
            return Ok(());
        }
        for (index, task) in self.tasks.iter().enumerate() {
            let Some(winner) = self.answers.final_one(task)? else { continue };
            let report = self.answers.report(task, &winner);
            self.progress.problem_done(index, &report);
            self.winners[index] = Some(report);
        }
        Ok(())
    }

    /// Problems that the search did not come to: what one before it found, that was cut short as well.
    fn answer_unfinished(&mut self) -> Result<(), SearchError> {
        for (index, task) in self.tasks.iter().enumerate() {
            let key = task.problem.to_string();
            let open = self.winners[index].is_none() && self.without.iter().all(|w| w.0 != key);
            if let Some(winner) = open.then(|| self.answers.stored(task)).transpose()?.flatten() {
                self.winners[index] = Some(self.answers.report(task, &winner));
            }
        }
        Ok(())
    }

    /// Prepares and judges all problems that have no winner yet.
    fn run(&mut self) -> Result<Stopped, SearchError> {
        let pending: Vec<usize> =
            (0..self.tasks.len()).filter(|index| self.winners[*index].is_none()).collect();
        if pending.is_empty() {
            return Ok(Stopped::Complete);
        }
        if self.request.cache_only {
            pending.into_iter().for_each(|index| self.give_up(index, "not in the cache".into()));
            return Ok(Stopped::Complete);
        }
        let terms = std::mem::replace(&mut self.terms, Terms::new(&self.request.arch, false));
        let poison = std::mem::take(&mut self.poison);
        let known = std::mem::take(&mut self.known);
        let earlier = self.tasks.iter().map(|task| self.answers.earlier(task));
        let earlier = earlier.collect::<Result<Vec<_>, _>>()?;
        let pending = match self.request.budget {
            // Where the time may not suffice, it goes to what promises the most.
            Some(_) => by_gain(&pending, self.tasks, &self.request.arch),
            None => pending,
        };
        let preparer = Preparer {
            request: self.request,
            bed: self.bed,
            progress: self.progress,
            clock: self.clock,
            terms: &terms,
            poison: &poison,
            known: &known,
            earlier: &earlier,
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
            let stopped = result?;
            self.time_in_step()?;
            Ok(self.clock.stopped().filter(|_| self.request.in_step).unwrap_or(stopped))
        })
    }

    /// Judges what the preparers send until they are done or it is time to stop.
    fn settle_all(
        &mut self,
        receiver: &Receiver<Result<Prepared, (usize, SearchError)>>,
    ) -> Result<Stopped, SearchError> {
        let mut cut_short = false;
        for prepared in receiver {
            match prepared {
                Ok(prepared) => cut_short |= self.settle(prepared)?,
                Err((index, error)) => self.give_up(index, error.to_string()),
            }
            if let Some(stopped) = self.clock.stopped() {
                let done = self.winners.iter().flatten().count() + self.without.len();
                let all = done == self.tasks.len() && !cut_short;
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

    /// Judges one problem and stores its winner. Whether it was time to stop before all was tried.
    fn settle(&mut self, prepared: Prepared) -> Result<bool, SearchError> {
        let Prepared { index, climb, compiled, default, tally } = prepared;
        let task = &self.tasks[index];
        self.log.proposed(task, &climb)?;
        for (cause, count) in &climb.rejected {
            *self.failures.entry(cause.clone()).or_default() += count;
        }
        let clock = self.clock;
        let judge = Judge {
            index,
            task,
            arch: &self.request.arch,
            bed: self.bed,
            store: self.store,
            limits: self.request.effort.limits(),
            seed: self.request.seed,
            progress: self.progress,
            go_on: &|| clock.stopped().is_none(),
            default: default.as_deref(),
        };
        let mut judgement = judge.judge(compiled, &climb.ranked, tally, &mut self.log)?;
        judgement.cut_short = clock.stopped().is_some();
        for (cause, count) in &judgement.failures {
            *self.failures.entry(cause.clone()).or_default() += count;
        }
        self.store_winner(index, &judgement, default.as_deref())?;
        let cut_short = judgement.cut_short;
        if self.request.in_step {
            self.standings.push(Standing { index, judgement, default });
        }
        Ok(cut_short)
    }

    /// Times the finalists of all problems among each other's kernels, and stores those that win there.
    fn time_in_step(&mut self) -> Result<(), SearchError> {
        let mut standings = std::mem::take(&mut self.standings);
        if !standings.is_empty() && !self.bed.measures() {
            self.progress.note("nothing is timed in step: this device measures no times");
            return Ok(());
        }
        let clock = self.clock;
        let go_on = || clock.stopped().is_none();
        let where_to = (self.bed, self.tasks);
        let changed = in_step(where_to, &mut standings, &mut self.log, self.progress, &go_on)?;
        for standing in changed.into_iter().map(|at| &standings[at]) {
            self.store_winner(standing.index, &standing.judgement, standing.default.as_deref())?;
        }
        Ok(())
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
        let (compiler, device) = (self.bed.fingerprint(), self.bed.describe());
        let made_by = (compiler.as_str(), device.as_str());
        let (winner, kernel) = record(task, won, judgement, self.request, made_by);
        let (winner, new) = self.answers.keep(task, winner, &kernel)?;
        if new {
            self.log.winner(task, &winner)?;
        }
        let kept = default == Some(winner.schedule.as_str());
        let report = WinnerReport::of(&task.name, &task.problem, &winner, kept, !new);
        // Whose winner another one replaces in step is done already.
        if self.winners[index].is_none() {
            self.progress.problem_done(index, &report);
        }
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
        let limits = if self.bed.measures() { limits.before_measuring() } else { limits };
        let ladder = Ladder { task, arch, terms: self.terms, limits, poisoned };
        let mut climb = ladder.climb()?;
        let default = self.default_candidate(task).filter(|d| !poisoned.contains(&d.text));
        let earlier = self.earlier[index].iter().filter_map(|s| warm::candidate(task, arch, s));
        let neighbours = earlier.chain(self.known.candidates(task, arch));
        let neighbours = neighbours.filter(|c| self.allowed(task, &c.schedule));
        let mut candidates = std::mem::take(&mut climb.finalists);
        let dense = self.bed.measures().then(|| self.dequantize_first(task)).flatten();
        for extra in neighbours.chain(default.clone()).chain(dense) {
            if !poisoned.contains(&extra.text) && candidates.iter().all(|c| c.text != extra.text) {
                candidates.push(extra);
            }
        }
        let tally = Mutex::new(Tally { proposed: climb.ranked.len(), ..Tally::default() });
        let lock = || tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let done = |_: &Compiled| {
            let mut tally = lock();
            tally.compiled += 1;
            self.progress.candidate(index, &tally);
        };
        let go_on = || self.go_on();
        let compiled = compile_all(task, arch, self.bed, candidates, &go_on, &done);
        let tally = *lock();
        Ok(Prepared { index, climb, compiled, default: default.map(|d| d.text), tally })
    }

    /// The default schedule, modelled; `None` if the problem has none, or if it rounds where the
    /// request wants exact weights.
    fn default_candidate(&self, task: &Task) -> Option<Candidate> {
        let arch = &self.request.arch;
        let schedule = qtune_verify::default_schedule(&task.problem, &task.spec, arch).ok()?;
        if !self.allowed(task, &schedule) {
            return None;
        }
        warm::candidate(task, arch, &schedule)
    }

    /// What users would do without kernels for their format: dequantize, then multiply floats. Timed
    /// with every problem, so that nobody is served a quantized kernel that is slower.
    fn dequantize_first(&self, task: &Task) -> Option<Candidate> {
        let schedules = slabs::of_defaults(task, &self.request.arch);
        let allowed = schedules.into_iter().filter(|schedule| self.allowed(task, schedule));
        let candidates = allowed.filter_map(|s| warm::candidate(task, &self.request.arch, &s));
        candidates.min_by(|a, b| a.estimate.time_us.total_cmp(&b.estimate.time_us))
    }

    /// Whether a schedule that the ladder did not propose rounds as the request wants it.
    fn allowed(&self, task: &Task, schedule: &Schedule) -> bool {
        let terms = || self.terms.all(&task.problem, &task.spec, schedule);
        !self.request.exact || terms().iter().any(|c| c.term == schedule.dequant())
    }
}
