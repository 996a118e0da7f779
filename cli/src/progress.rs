//! Progress of a search: a bar with ETA and the best so far on a terminal, a line every few seconds
//! elsewhere. No colours, so NO_COLOR needs no care.

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use qtune_ir::Problem;
use qtune_search::{Best, Progress, Tally, WinnerReport};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Tells people on stderr how far a search is.
#[derive(Debug)]
pub struct Reporter {
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    started: Instant,
    told: Instant,
    problems: usize,
    done: usize,
    /// Problems that the cache answered: they say nothing about the time that the rest takes.
    cached: usize,
    under_way: BTreeMap<usize, UnderWay>,
}

/// A problem that is being worked on.
#[derive(Clone, Debug, Default)]
struct UnderWay {
    name: String,
    tally: Tally,
    best: Option<(f64, f64)>,
}

impl Reporter {
    /// A reporter for this process's stderr.
    pub fn new() -> Reporter {
        let terminal = std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {wide_msg}");
        let bar = style.ok().filter(|_| terminal).map(|style| {
            let bar = ProgressBar::new(0).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        let state = State {
            started: now,
            told: now,
            problems: 0,
            done: 0,
            cached: 0,
            under_way: BTreeMap::new(),
        };
        Reporter { bar, state: Mutex::new(state) }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => output::note(text),
        }
    }

    /// Shows the state where there is a bar, or tells it once in a while.
    fn show(&self, state: &mut State) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(state.problems as u64);
                bar.set_position(state.done as u64);
                bar.set_message(state.text());
            }
            None if state.told.elapsed() >= LINE_EVERY => {
                state.told = Instant::now();
                output::note(format_args!("[{}/{}] {}", state.done, state.problems, state.text()));
            }
            None => {}
        }
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut UnderWay)) {
        let mut state = self.lock();
        change(state.under_way.entry(index).or_default());
        self.show(&mut state);
    }
}

impl State {
    /// ETA, and the problem that was begun last.
    fn text(&self) -> String {
        let mut parts = vec![self.eta()];
        if let Some(problem) = self.under_way.values().next_back() {
            let best = problem.best.map_or_else(String::new, |(time_us, roof)| {
                format!(" best {time_us:.2} us ({:.0} % of the roof)", roof * 100.0)
            });
            parts.push(format!("{}{best}", problem.name));
            let Tally { proposed, compiled, rejected, verified, .. } = problem.tally;
            parts.push(format!(
                "{proposed} ranked, {compiled} compiled, {rejected} rejected, {verified} verified"
            ));
        }
        parts.join(", ")
    }

    fn eta(&self) -> String {
        let searched = self.done - self.cached;
        if searched == 0 {
            return "ETA -".into();
        }
        let each = self.started.elapsed().as_secs_f64() / searched as f64;
        let left = (each * (self.problems - self.done) as f64).round() as u64;
        match left {
            0..60 => format!("ETA {left} s"),
            _ => format!("ETA {} min {:02} s", left / 60, left % 60),
        }
    }
}

impl Progress for Reporter {
    fn begin(&self, problems: usize) {
        let mut state = self.lock();
        state.problems = problems;
        self.show(&mut state);
    }

    fn problem_started(&self, index: usize, name: &str, problem: &Problem) {
        self.update(index, |at| at.name = format!("{name} m{}", problem.m));
    }

    fn candidate(&self, index: usize, tally: &Tally) {
        self.update(index, |at| at.tally = *tally);
    }

    fn best(&self, index: usize, best: &Best<'_>) {
        self.update(index, |at| at.best = Some((best.time_us, best.roof_share)));
    }

    fn problem_done(&self, index: usize, winner: &WinnerReport) {
        let mut state = self.lock();
        let name =
            state.under_way.remove(&index).map_or_else(|| winner.shape.clone(), |at| at.name);
        state.done += 1;
        state.cached += usize::from(winner.from_cache);
        if !winner.from_cache {
            let gain = winner.default_us.map_or_else(String::new, |default| {
                format!(", {:.2}x the default schedule", default / winner.time_us)
            });
            self.line(&format!(
                "[{}/{}] {name}: {:.2} us ({:.0} % of the roof{gain}) {}",
                state.done,
                state.problems,
                winner.time_us,
                winner.roof_share * 100.0,
                winner.schedule
            ));
        }
        self.show(&mut state);
    }

    fn note(&self, text: &str) {
        self.line(text);
    }
}
