//! All launches with one token count, and the judgement on them.

use crate::bench::{Bench, Launched, Mode, Workspace};
use crate::compare::{self, Worst, RATIO_MAX};
use crate::inputs::{Activations, Pattern};
use crate::random;
use crate::reference::Reference;
use crate::rounding::Rounding;
use crate::sample::{self, Sample};
use crate::{CaseResult, Effort, VerifyError};
use qtune_codegen::Kernel;
use qtune_device::{AsyncSchedule, LaunchOutcome};
use std::collections::BTreeMap;

/// Launches that read weights back at small sizes, at most; beyond that columns are sampled.
const READ_BACK_LAUNCHES: u32 = 512;

/// What every case of a request shares.
pub(crate) struct Setting<'a> {
    pub kernel: &'a Kernel,
    pub bench: Bench<'a>,
    /// By row tile.
    pub references: BTreeMap<u32, Reference>,
    pub rounding: Rounding,
    pub effort: Effort,
    pub seed: u64,
}

/// A case's result and what its first launch counted.
pub(crate) struct CaseRun {
    pub result: CaseResult,
    pub findings: Vec<String>,
    pub first: LaunchOutcome,
    /// Output tiles that the first launch completed.
    pub output_tiles: usize,
    pub share: f64,
}

/// The launches of one case as they go by.
struct Judge<'a> {
    setting: &'a Setting<'a>,
    space: Workspace,
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
    let row_tiles: Vec<u32> = setting.references.keys().copied().collect();
    let sample = sample::sample(setting.kernel, &row_tiles, tokens, setting.seed);
    let mut judge = Judge {
        setting,
        space: setting.bench.workspace(tokens)?,
        sample,
        worst: Worst::default(),
        findings: Vec::new(),
        first: None,
    };
    let full = setting.effort == Effort::Full;
    judge.check(tokens, Pattern::Normal, bucket || full)?;
    if bucket || full {
        for columns in read_back(setting, tokens, judge.sample.share == 1.0) {
            judge.check(tokens, Pattern::OneHot { columns }, false)?;
        }
    }
    if full {
        for pattern in [Pattern::Constant, Pattern::Large, Pattern::Tiny] {
            judge.check(tokens, pattern, bucket)?;
        }
    }
    Ok(judge.finish(tokens))
}

/// Columns of W to read back, one per token and launch: every one where the whole launch is small,
/// else the edges and a seeded sample.
fn read_back(setting: &Setting<'_>, tokens: u32, whole: bool) -> Vec<Vec<u32>> {
    let k = setting.kernel.problem.k;
    let full = setting.effort == Effort::Full;
    if full && whole && k.div_ceil(tokens) <= READ_BACK_LAUNCHES {
        let launch = |first: u32| (first..first + tokens).map(|c| c.min(k - 1)).collect();
        return (0..k).step_by(tokens as usize).map(launch).collect();
    }
    let wanted = if full { 32 } else { 8 };
    let count = tokens.max(wanted).next_multiple_of(tokens);
    let seeded = (0..).map(|i| (random::at(setting.seed, i, tokens) % u64::from(k)) as u32);
    let columns: Vec<u32> = [k - 1, 0].into_iter().chain(seeded).take(count as usize).collect();
    columns.chunks(tokens as usize).map(<[u32]>::to_vec).collect()
}

impl Judge<'_> {
    /// One pattern: a launch, and if `twice` another one under the opposite schedule, which must
    /// give the same bits.
    fn check(&mut self, tokens: u32, pattern: Pattern, twice: bool) -> Result<(), VerifyError> {
        let setting = self.setting;
        let problem = &setting.kernel.problem;
        let x = Activations::new(pattern, setting.seed, tokens, problem.k, problem.act);
        let buffer = setting.bench.activations(&x)?;
        let launch = |judge: &Self, mode| {
            setting.bench.launch(&judge.space, &buffer, &judge.sample, mode)
        };
        let mode = Mode::default();
        let launched = launch(self, mode)?;
        self.judge(&x, &launched, mode);
        if twice {
            let again = launch(self, Mode::opposite())?;
            if again.output != launched.output {
                self.fail(&x, "two launches with the same inputs differ".into());
            }
            self.defects(&x, &again, Mode::opposite());
        }
        self.first.get_or_insert(launched.outcome);
        Ok(())
    }

    fn judge(&mut self, x: &Activations, launched: &Launched, mode: Mode) {
        self.defects(x, launched, mode);
        let setting = self.setting;
        let (problem, tile_rows) = (&setting.kernel.problem, setting.kernel.layout.tile_rows());
        for tile in &self.sample.tiles {
            let Some(reference) = setting.references.get(&tile.row_tile) else { continue };
            let expected = reference.expected(x, tile.tokens(), &setting.rounding);
            let rows = tile.rows(tile_rows, problem.n);
            let mut worst =
                compare::tile(&launched.output, problem, rows, tile.tokens(), &expected);
            worst.detail = worst.detail.map(|line| format!("{}: {line}", x.pattern.name()));
            self.worst.merge(worst);
        }
        if launched.outcome.blocks_run < launched.outcome.blocks_total {
            let tiles = &self.sample.tiles;
            let stray = compare::stray_write(&launched.output, problem, tiles, tile_rows);
            if let Some(line) = stray {
                self.fail(x, line);
            }
        }
    }

    /// What the device and the guard bands have to say.
    fn defects(&mut self, x: &Activations, launched: &Launched, mode: Mode) {
        let how = match mode.schedule {
            AsyncSchedule::Lazy => "lazy copies",
            AsyncSchedule::Eager => "eager copies",
        };
        for line in launched.outcome.findings.iter().chain(&launched.damage) {
            self.fail(x, format!("{line} ({how})"));
        }
    }

    fn fail(&mut self, x: &Activations, line: String) {
        let line = format!("{}: {line}", x.pattern.name());
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
            output_tiles: self.sample.tiles.len(),
            share: self.sample.share,
        }
    }
}
