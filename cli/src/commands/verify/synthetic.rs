//! Verifying a problem with seeded weights.

use super::report::Case;
use super::Args;
use crate::exit::usage;
use crate::{output, problem};
use anyhow::Context;
use qtune_cache::Store;
use qtune_codegen::nvrtc::Nvrtc;
use qtune_device::{Device, KernelImage};
use qtune_ir::{Problem, Schedule, WeightSpec};
use qtune_runtime::winner_key;
use qtune_verify::{verify, VerifyRequest};
use std::collections::BTreeMap;

/// Verifies each token count of `args`.
pub fn cases(args: &Args) -> anyhow::Result<Vec<Case>> {
    let arch = args.gpu.arch()?;
    let (Some(format), Some(n), Some(k)) = (&args.format, args.n, args.k) else {
        return Err(usage("--format, --n and --k, or --checkpoint and --tensor, are needed"));
    };
    let spec = qtune_formats::resolve(format)?;
    let tokens = args.tokens()?;
    let problem = |m: &u32| problem::problem(&spec, n, k, (*m).into(), args.types, args.epilogue);
    let problems: Vec<Problem> = tokens.iter().map(problem).collect::<Result<_, _>>()?;
    let device = args.device.open(&arch)?;
    let nvrtc = args.fetch.open()?;
    let chooser = Chooser::new(args, &spec, device.as_ref(), &nvrtc)?;
    let mut images: BTreeMap<String, KernelImage> = BTreeMap::new();
    let mut cases = Vec::new();
    for (m, problem) in tokens.into_iter().zip(problems) {
        let (schedule, origin) = chooser.choose(&problem)?;
        let key = format!("{problem} {schedule}");
        if !images.contains_key(&key) {
            let image = compile(&problem, &spec, &schedule, device.as_ref(), &nvrtc)?;
            images.insert(key.clone(), image);
        }
        let image = &images[&key];
        let request = VerifyRequest {
            tokens: vec![m],
            sample_tiles: Some(args.sample_blocks),
            ..VerifyRequest::new(image, &spec, args.seed)
        };
        cases.push(Case::new(m, image, origin, verify(&request, device.as_ref())?));
    }
    Ok(cases)
}

fn compile(
    problem: &Problem,
    spec: &WeightSpec,
    schedule: &Schedule,
    device: &dyn Device,
    nvrtc: &Nvrtc,
) -> anyhow::Result<KernelImage> {
    let arch = device.arch();
    output::note(format_args!("{}: {schedule}", problem.at(arch)));
    let kernel = qtune_codegen::generate(problem, spec, schedule, arch)
        .with_context(|| format!("{} with `{schedule}`", problem.at(arch)))?;
    Ok(KernelImage::compile(nvrtc, kernel, arch)?)
}

/// Chooses the schedule for a problem.
struct Chooser<'a> {
    args: &'a Args,
    spec: &'a WeightSpec,
    device: &'a dyn Device,
    nvrtc: &'a Nvrtc,
    given: Option<Schedule>,
    store: Option<Box<dyn Store>>,
}

impl<'a> Chooser<'a> {
    /// The cache is looked at only where it was named: a check of the generator must not depend
    /// on what was tuned before.
    fn new(
        args: &'a Args,
        spec: &'a WeightSpec,
        device: &'a dyn Device,
        nvrtc: &'a Nvrtc,
    ) -> anyhow::Result<Chooser<'a>> {
        let given = args.schedule.as_deref().map(str::parse).transpose()?;
        let store: Option<Box<dyn Store>> = match args.cache.dir {
            Some(_) if given.is_none() => Some(Box::new(args.cache.open()?)),
            _ => None,
        };
        Ok(Chooser { args, spec, device, nvrtc, given, store })
    }

    /// The schedule and where it comes from.
    fn choose(&self, problem: &Problem) -> anyhow::Result<(Schedule, &'static str)> {
        let arch = self.device.arch();
        if let Some(schedule) = &self.given {
            problem::check_schedule(schedule, problem, self.spec, arch)?;
            return Ok((schedule.clone(), "given"));
        }
        if let Some(store) = &self.store {
            let key = winner_key(problem, self.spec, arch, self.nvrtc.fingerprint());
            if let Some(record) = store.get(&key)? {
                return Ok((record.winner.schedule.parse()?, "cache"));
            }
        }
        let schedule = match self.args.library {
            true => problem::with_library(problem, self.spec, arch)?,
            false => problem::untuned(problem, self.spec, arch, self.args.family)?,
        };
        Ok((schedule, "default"))
    }
}
