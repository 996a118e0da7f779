//! All launches with one token count, and the judgement on them.

use crate::bench::{Bench, Launched, Mode, Workspace, UNWRITTEN};
use crate::compare::{self, Worst, RATIO_MAX};
use crate::epilogue::Finish;
use crate::inputs::{Activations, Pattern};
use crate::random;
use crate::reference::Reference;
use crate::rotation::Turns;
use crate::rounding::Rounding;
use crate::sample::{self, Completed, Sample};
use crate::{CaseResult, Effort, VerifyError};
use qtune_codegen::Kernel;
use qtune_device::{AsyncSchedule, LaunchOutcome};
use qtune_ir::Problem;
use std::collections::BTreeMap;

/// Launches that read weights back at small sizes, at most; beyond that columns are sampled.
const READ_BACK_LAUNCHES: u32 = 512;
/// Columns that are read back at least: quick, full.
const COLUMNS: [usize; 2] = [8, 24];

/// What every case of a request shares.
pub(crate) struct Setting<'a> {
    pub kernel: &'a Kernel,
    pub bench: Bench<'a>,
    /// Row tiles to check, ascending.
    pub row_tiles: Vec<u32>,
    /// By row tile: of those to check, and of those that the same blocks read.
    pub references: BTreeMap<u32, Reference>,
    pub rounding: Rounding,
    pub finish: Finish,
    /// How the kernel multiplies activations.
    pub activations: qtune_ir::Activations,
    /// The scale of their codes, where the layer brings it.
    pub given_scale: Option<f32>,
    /// The layer's rotations, of a kernel that has steps for them.
    pub turns: Option<Turns>,
    pub effort: Effort,
    pub seed: u64,
}

impl Setting<'_> {
    /// What products hold before a launch with `tokens` tokens; a few bytes for a kernel without rotations.
    fn before(&self, tokens: u32) -> Vec<u8> {
        self.turns.as_ref().map_or_else(|| vec![0; 16], |turns| turns.before(self.seed, tokens))
    }
}

/// A case's result and what its first launch counted.
pub(crate) struct CaseRun {
    pub result: CaseResult,
    pub findings: Vec<String>,
    pub first: LaunchOutcome,
    /// What the first launch completed.
    pub completed: Completed,
    pub share: f64,
}

/// The launches of one case as they go by.
struct Judge<'a> {
    setting: &'a Setting<'a>,
    space: Workspace,
    /// What products hold before a launch.
    before: Vec<u8>,
    sample: Sample,
    worst: Worst,
    findings: Vec<String>,
    first: Option<LaunchOutcome>,
}

/// Runs and judges every launch with `tokens` tokens. `bucket` marks the case with the most
/// tokens, which gets the most patterns.
pub(crate) fn run(
    setting: &Setting<'_>,
    tokens: u32,
    bucket: bool,
) -> Result<CaseRun, VerifyError> {
    let sample = sample::sample(setting.kernel, &row_tiles(setting, bucket), tokens, setting.seed);
    let before = setting.before(tokens);
    let mut judge = Judge {
        setting,
        space: setting.bench.workspace(tokens, &sample, &setting.finish, &before)?,
        before,
        sample,
        worst: Worst::default(),
        findings: Vec::new(),
        first: None,
    };
    let tokens = tokens as usize;
    for (nth, patterns) in
        patterns(setting, tokens, bucket, judge.sample.share == 1.0).chunks(tokens).enumerate()
    {
        judge.check(patterns.to_vec(), nth == 0 && bucket)?;
    }
    Ok(judge.finish(tokens as u32))
}

/// One launch with `tokens` tokens, for what the simulator counts in it, and how much of the output it
/// completes.
pub(crate) fn count(
    setting: &Setting<'_>,
    tokens: u32,
) -> Result<(LaunchOutcome, Completed), VerifyError> {
    let sample = sample::sample(setting.kernel, &row_tiles(setting, true), tokens, setting.seed);
    let before = setting.before(tokens);
    let space = setting.bench.workspace(tokens, &sample, &setting.finish, &before)?;
    let problem = &setting.kernel.problem;
    let patterns = vec![Pattern::Normal; tokens as usize];
    let x = Activations::new(patterns, setting.seed, problem.k, problem.act);
    let x = x.quantized(setting.activations, setting.given_scale);
    setting.bench.feed(&space, &x)?;
    let launched = setting.bench.launch(&space, &sample, &before, Mode::default())?;
    Ok((launched.outcome, sample.completed()))
}

/// Row tiles that a case runs. What other token counts than the bucket's may break shows in any
/// row tile; the last may be ragged, and a cluster runs whole.
fn row_tiles(setting: &Setting<'_>, bucket: bool) -> Vec<u32> {
    let mut tiles = setting.row_tiles.clone();
    if !bucket && tiles.len() < setting.kernel.layout.tiles() as usize {
        tiles.drain(..tiles.len() - setting.kernel.schedule.multicast() as usize);
    }
    tiles
}

/// What the tokens of all launches of a case look like: a whole number of launches. Patterns share
/// launches, so that a token that leaks into another shows, and a check of many tokens costs
/// little more than one of few.
fn patterns(setting: &Setting<'_>, tokens: usize, bucket: bool, whole: bool) -> Vec<Pattern> {
    let k = setting.kernel.problem.k;
    let full = setting.effort == Effort::Full;
    let seeded = (0..).map(|i| (random::at(setting.seed, i, tokens as u32) % u64::from(k)) as u32);
    let mut columns = [k - 1, 0].into_iter().chain(seeded).map(Pattern::OneHot);
    let mut patterns = vec![Pattern::Normal];
    if full && bucket {
        patterns.extend([Pattern::Constant, Pattern::Large, Pattern::Tiny]);
        if setting.activations.are_quantized() {
            patterns.push(Pattern::Zero);
        }
        if whole && k.div_ceil(tokens as u32) <= READ_BACK_LAUNCHES {
            patterns.extend((0..k).map(Pattern::OneHot));
        }
    }
    let wanted = match (bucket, full) {
        (true, _) => COLUMNS[usize::from(full)],
        (false, true) => 1,
        (false, false) => 0,
    };
    patterns.extend(columns.by_ref().take(wanted));
    while patterns.len() % tokens != 0 {
        let dense = patterns.len() % 2 == 0;
        patterns.push(if dense {
            Pattern::Normal
        } else {
            columns.next().unwrap_or(Pattern::Normal)
        });
    }
    patterns
}

impl Judge<'_> {
    /// One launch, and if `twice` another one under the opposite schedule, which must give the
    /// same bits.
    fn check(&mut self, patterns: Vec<Pattern>, twice: bool) -> Result<(), VerifyError> {
        let setting = self.setting;
        let problem = &setting.kernel.problem;
        let x = Activations::new(patterns, setting.seed, problem.k, problem.act);
        let x = x.quantized(setting.activations, setting.given_scale);
        setting.bench.feed(&self.space, &x)?;
        let mode = Mode::default();
        let launched = setting.bench.launch(&self.space, &self.sample, &self.before, mode)?;
        self.judge(&x, &launched, mode);
        if twice {
            let mode = Mode::opposite();
            let again = setting.bench.launch(&self.space, &self.sample, &self.before, mode)?;
            if again.output != launched.output {
                self.fail("two launches with the same inputs differ".into());
            }
            self.defects(&again, mode);
        }
        self.first.get_or_insert(launched.outcome);
        Ok(())
    }

    fn judge(&mut self, x: &Activations, launched: &Launched, mode: Mode) {
        self.defects(launched, mode);
        let setting = self.setting;
        let Some(turns) = &setting.turns else {
            let before = vec![UNWRITTEN; launched.output.len()];
            let output = (&before[..], &launched.output[..]);
            return self.tiles(&setting.kernel.problem, x, output, &setting.finish, launched);
        };
        self.worst.merge(turns.inputs(x, &launched.turned));
        let (k, act) = (turns.product.k, turns.product.act);
        let turned = Activations::stored(x.patterns.len(), &launched.turned, k, act);
        let before = self.before.clone();
        let products = (&before[..], &launched.products[..]);
        let finish = Finish::new(&turns.product, setting.seed);
        self.tiles(&turns.product, &turned, products, &finish, launched);
        self.worst.merge(turns.outputs(&launched.products, &launched.output, &setting.finish));
    }

    /// Judges the sample's tiles of a product with `x`, which was `before` and is now.
    fn tiles(
        &mut self,
        problem: &Problem,
        x: &Activations,
        (before, output): (&[u8], &[u8]),
        finish: &Finish,
        launched: &Launched,
    ) {
        let setting = self.setting;
        let layout = &setting.kernel.layout;
        for tile in &self.sample.tiles {
            let Some(reference) = setting.references.get(&tile.row_tile) else { continue };
            let (columns, tokens) = (tile.columns(layout, problem), tile.tokens());
            let expected =
                reference.expected(x, tokens.clone(), &setting.rounding, finish, &columns);
            self.worst.merge(compare::tile(output, problem, x, &columns, tokens, &expected));
        }
        if launched.outcome.blocks_run < launched.outcome.blocks_total {
            let tiles = self.sample.tiles.iter();
            let tiles = tiles.map(|tile| (tile.columns(layout, problem), tile.tokens()));
            let stray = compare::stray_write((before, output), problem, tiles);
            stray.into_iter().for_each(|line| self.fail(line));
        }
    }

    /// What the device and the guard bands have to say.
    fn defects(&mut self, launched: &Launched, mode: Mode) {
        let how = match mode.schedule {
            AsyncSchedule::Lazy => "lazy copies",
            AsyncSchedule::Eager => "eager copies",
        };
        for line in launched.outcome.findings.iter().chain(&launched.damage) {
            self.fail(format!("{line} ({how})"));
        }
    }

    fn fail(&mut self, line: String) {
        if !self.findings.contains(&line) {
            self.findings.push(line);
        }
    }

    fn finish(self, tokens: u32) -> CaseRun {
        let wrong = self.worst.ratio > 1.0;
        let error_over_bound = self.worst.ratio.min(RATIO_MAX);
        let detail = self.findings.first().cloned().or(self.worst.detail);
        CaseRun {
            result: CaseResult {
                m: tokens,
                passed: !wrong && self.findings.is_empty(),
                error_over_bound,
                outputs_checked: self.worst.elements,
                detail,
            },
            findings: self.findings,
            first: self.first.unwrap_or_default(),
            completed: self.sample.completed(),
            share: self.sample.share,
        }
    }
}
