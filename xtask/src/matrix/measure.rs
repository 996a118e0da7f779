//! Verifies the default schedules of one case.

use super::cases::{Case, TOKENS};
use super::row::Outcome;
use anyhow::Result;
use qtune_codegen::nvrtc::Nvrtc;
use qtune_device::{KernelImage, SimDevice};
use qtune_ir::{Arch, Problem, Schedule, WeightSpec};
use qtune_runtime::bucket;
use qtune_verify::{default_of_family, verify, Verdict, VerifyRequest};
use std::collections::BTreeMap;

/// Decides weights and activations.
const SEED: u64 = 1;

/// Verifies the case with every token count, each in the kernel of its bucket.
///
/// # Errors
/// The case's names mean nothing.
pub fn measure(nvrtc: &Nvrtc, case: &Case) -> Result<Outcome> {
    let spec = qtune_formats::resolve(&case.format)?;
    let arch = Arch::named(&case.gpu)?;
    let mut worst = 0.0f64;
    for (bucket, tokens) in buckets() {
        let problem = case.problem(&spec, bucket);
        let schedule = match default_of_family(case.family, &problem, &spec, &arch) {
            Ok(schedule) => schedule,
            Err(refused) => return Ok(Outcome::Refused(refused.reason)),
        };
        let failed = |why: String| Outcome::Failed(format!("m {tokens:?}: {why} by {schedule}"));
        match check(nvrtc, &problem, &spec, &schedule, &arch, &tokens) {
            Ok(verdict) if verdict.passed && verdict.error_over_bound <= 1.0 => {
                worst = worst.max(verdict.error_over_bound);
            }
            Ok(verdict) => return Ok(failed(wrong(&verdict))),
            Err(error) => return Ok(failed(format!("{error:#}"))),
        }
    }
    Ok(Outcome::Passed(worst))
}

/// The token counts by the bucket that serves them.
fn buckets() -> BTreeMap<u32, Vec<u32>> {
    let mut all: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    TOKENS.into_iter().for_each(|tokens| all.entry(bucket(tokens)).or_default().push(tokens));
    all
}

fn check(
    nvrtc: &Nvrtc,
    problem: &Problem,
    spec: &WeightSpec,
    schedule: &Schedule,
    arch: &Arch,
    tokens: &[u32],
) -> Result<Verdict> {
    let kernel = qtune_codegen::generate(problem, spec, schedule, arch)?;
    let image = KernelImage::compile(nvrtc, kernel, arch)?;
    let request =
        VerifyRequest { tokens: tokens.to_vec(), ..VerifyRequest::new(&image, spec, SEED) };
    Ok(verify(&request, &SimDevice::new(arch))?)
}

/// The first thing that is wrong.
fn wrong(verdict: &Verdict) -> String {
    let details = verdict.cases.iter().filter_map(|case| case.detail.as_ref());
    let first = details.chain(&verdict.findings).next().cloned();
    first.unwrap_or_else(|| format!("error over bound {:.3}", verdict.error_over_bound))
}
