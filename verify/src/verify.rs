//! The entry point: a request, and the verdict on it.

use crate::bench::Bench;
use crate::case::{self, Setting};
use crate::codes::{Decoder, Meaning};
use crate::counts::{self, Counts, Sampled};
use crate::epilogue::Finish;
use crate::reference::Reference;
use crate::rotation::Turns;
use crate::sample;
use crate::weights::{WeightSource, Weights};
use crate::VerifyError;
use qtune_codegen::Kernel;
use qtune_device::{Device, KernelImage, LaunchOutcome, SimDevice};
use qtune_ir::{Arch, WeightSpec};
use std::collections::{BTreeMap, BTreeSet};

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Before timing: bell-shaped activations under two schedules, and a few columns of weights
    /// read back.
    Quick,
    /// Before a kernel is stored: also constant, large and tiny activations, and more columns;
    /// every column where the launch is small.
    Full,
}

/// What to verify.
#[derive(Clone, Debug)]
pub struct VerifyRequest<'a> {
    /// The compiled kernel; its problem's `m` is the bucket.
    pub image: &'a KernelImage,
    /// The format.
    pub spec: &'a WeightSpec,
    /// The weights.
    pub weights: WeightSource<'a>,
    /// Token counts to launch with, each from 1 to the bucket.
    pub tokens: Vec<u32>,
    /// How much is checked.
    pub effort: Effort,
    /// Row tiles that are run of a matrix that is not small; `None` takes as many as cost little.
    pub sample_tiles: Option<usize>,
    /// Decides activations, columns and sampled blocks.
    pub seed: u64,
}

impl<'a> VerifyRequest<'a> {
    /// A request with seeded weights: the bucket's M and its edges, a sample of large matrices.
    pub fn new(image: &'a KernelImage, spec: &'a WeightSpec, seed: u64) -> VerifyRequest<'a> {
        VerifyRequest {
            image,
            spec,
            weights: WeightSource::Synthetic { seed },
            tokens: edge_tokens(image.kernel.problem.m),
            effort: Effort::Full,
            sample_tiles: None,
            seed,
        }
    }
}

/// The bucket's M, one less, and 1.
fn edge_tokens(bucket: u32) -> Vec<u32> {
    let mut tokens = vec![bucket, bucket - 1, 1];
    tokens.retain(|&m| m > 0);
    tokens.dedup();
    tokens
}

/// The verdict on the launches with one token count.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CaseResult {
    /// Tokens of the launches.
    pub m: u32,
    /// Whether every output is within its bound and nothing else was found.
    pub passed: bool,
    /// The largest error over its bound, at most 1e9.
    pub error_over_bound: f64,
    /// Output elements compared.
    pub outputs_checked: u64,
    /// The first thing that is wrong.
    pub detail: Option<String>,
}

/// The verdict on a kernel.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// One per token count, in the order of the request.
    pub cases: Vec<CaseResult>,
    /// Whether every case passed.
    pub passed: bool,
    /// The largest of the cases.
    pub error_over_bound: f64,
    /// What the kernel costs. Memory counts come from the first case's first launch.
    pub counts: Counts,
    /// Everything that the simulator and the guard bands saw, one line each.
    pub findings: Vec<String>,
    /// Thread blocks run over those in the grid, of the first case.
    pub share_of_blocks_run: f64,
}

/// Verifies a kernel.
///
/// # Errors
/// [`VerifyError`] if it cannot be verified at all; a kernel that is wrong is a [`Verdict`] that
/// did not pass.
pub fn verify(request: &VerifyRequest<'_>, device: &dyn Device) -> Result<Verdict, VerifyError> {
    check_tokens(request)?;
    let weights = Weights::new(request.weights, request.spec, &request.image.kernel.problem)?;
    let setting = setting(request, device, &weights)?;
    let most = request.tokens.iter().max().copied().unwrap_or(0);
    let mut runs = Vec::new();
    for &tokens in &request.tokens {
        runs.push(case::run(&setting, tokens, tokens == most)?);
    }
    if runs[0].first.counters.is_none() {
        // A GPU counts nothing: the simulator runs the same blocks for that.
        let simulator = SimDevice::new(device.arch());
        let bench = Bench::new(&simulator, request.image, &weights, &setting.references)?;
        let setting = Setting { bench, ..setting };
        (runs[0].first, runs[0].completed) = case::count(&setting, request.tokens[0])?;
    }
    Ok(verdict(request, device, runs))
}

/// Runs a sample of a launch with the request's first token count in the simulator, once, for what
/// it counts: nothing is compared. Findings are in the outcome.
///
/// # Errors
/// As [`verify`].
pub fn profile(request: &VerifyRequest<'_>, arch: &Arch) -> Result<LaunchOutcome, VerifyError> {
    counted(request, arch).map(|(_, launch)| launch)
}

/// As [`profile`], with the counts of the launch.
///
/// # Errors
/// As [`verify`].
pub fn counted(
    request: &VerifyRequest<'_>,
    arch: &Arch,
) -> Result<(Counts, LaunchOutcome), VerifyError> {
    check_tokens(request)?;
    let weights = Weights::new(request.weights, request.spec, &request.image.kernel.problem)?;
    let simulator = SimDevice::new(arch);
    let setting = setting(request, &simulator, &weights)?;
    let tokens = request.tokens[0];
    let (launch, completed) = case::count(&setting, tokens)?;
    let sampled = Sampled { launch: &launch, tokens, completed };
    Ok((counts::count(request.image, request.spec, arch, &sampled), launch))
}

/// The kernel on a device with the row tiles of the request.
fn setting<'a>(
    request: &VerifyRequest<'a>,
    device: &'a dyn Device,
    weights: &Weights<'_>,
) -> Result<Setting<'a>, VerifyError> {
    let kernel = &request.image.kernel;
    let meaning = Meaning::new(&kernel.problem, request.spec, &kernel.schedule)?;
    let decoder = Decoder::new(&meaning)?;
    let row_tiles = sample::row_tiles(kernel, request.sample_tiles, request.seed);
    let launched = request.tokens.iter();
    let read: BTreeSet<u32> = launched
        .flat_map(|&tokens| sample::sample(kernel, &row_tiles, tokens, request.seed).read)
        .collect();
    let tile_rows = kernel.layout.tile_rows();
    let reference = |index: u32| {
        let tile = weights.row_tile(index, tile_rows);
        Ok((index, Reference::new(&decoder, weights, tile, &kernel.layout)?))
    };
    let references =
        read.into_iter().map(reference).collect::<Result<BTreeMap<_, _>, VerifyError>>()?;
    Ok(Setting {
        kernel,
        bench: Bench::new(device, request.image, weights, &references)?,
        row_tiles,
        references,
        rounding: meaning.rounding(&kernel.problem, &kernel.schedule)?,
        finish: Finish::new(&kernel.problem, request.seed),
        activations: request.spec.activations,
        given_scale: weights.activation_scale(),
        turns: turns(kernel, weights),
        effort: request.effort,
        seed: request.seed,
    })
}

/// What the steps of a kernel with rotations are checked by.
fn turns(kernel: &Kernel, weights: &Weights<'_>) -> Option<Turns> {
    let rotation = weights.vectors()?.rotation()?.clone();
    let problem = kernel.problem.clone();
    let bias = (0..problem.n).map(|n| weights.bias(n).into()).collect();
    Some(Turns { rotation, product: kernel.product(), problem, bias })
}

fn check_tokens(request: &VerifyRequest<'_>) -> Result<(), VerifyError> {
    let problem = &request.image.kernel.problem;
    let allowed = 1..=problem.m;
    let outside =
        |tokens| VerifyError::Tokens { tokens, bucket: problem.m, problem: problem.to_string() };
    match request.tokens.iter().find(|m| !allowed.contains(m)) {
        Some(&tokens) => Err(outside(tokens)),
        None if request.tokens.is_empty() => Err(outside(0)),
        None => Ok(()),
    }
}

fn verdict(request: &VerifyRequest<'_>, device: &dyn Device, runs: Vec<case::CaseRun>) -> Verdict {
    let first = &runs[0];
    let tokens = first.result.m;
    let sampled = Sampled { launch: &first.first, tokens, completed: first.completed };
    let counts = counts::count(request.image, request.spec, device.arch(), &sampled);
    let share_of_blocks_run = first.share;
    let mut findings: Vec<String> = Vec::new();
    for line in runs.iter().flat_map(|run| &run.findings) {
        if !findings.contains(line) {
            findings.push(line.clone());
        }
    }
    let cases: Vec<CaseResult> = runs.into_iter().map(|run| run.result).collect();
    Verdict {
        passed: cases.iter().all(|case| case.passed),
        error_over_bound: cases.iter().map(|case| case.error_over_bound).fold(0.0, f64::max),
        cases,
        counts,
        findings,
        share_of_blocks_run,
    }
}
