//! Verifying a layer of a checkpoint as it is served: loaded, packed, its winners looked up in the
//! cache, launched.

use super::report::Case;
use super::Args;
use crate::exit::usage;
use crate::{output, quantize};
use qtune_cache::{CacheError, Store};
use qtune_codegen::CodegenError;
use qtune_formats::{Checkpoint, QuantizedLinear};
use qtune_ir::Schedule;
use qtune_runtime::{Choice, LinearLayer, LoadOptions, Origin, Runtime, RuntimeError, ServedLayer};
use qtune_verify::{verify, VerifyRequest, WeightSource};
use std::path::Path;

/// Verifies each token count of `args` on the layer called `tensor`.
pub fn cases(args: &Args, path: &Path, tensor: &str) -> anyhow::Result<Vec<Case>> {
    let tokens = args.tokens()?;
    let checkpoint = Checkpoint::open(path)?;
    // Before a device or a compiler is looked for: a wrong name is the more likely mistake.
    let weights = weights(args, &checkpoint, tensor)?;
    let arch = args.gpu.arch()?;
    let spec = args.act_bits.served(weights.spec.clone(), &arch)?;
    let weights = QuantizedLinear { spec, ..weights };
    let device = args.device.open(&arch)?;
    let runtime = Runtime::open(device, args.fetch.open()?, store(args)?);
    let given: Option<Schedule> = args.schedule.as_deref().map(str::parse).transpose()?;
    let options = LoadOptions {
        choice: match (&given, args.family) {
            (Some(schedule), _) => Choice::Schedule(schedule),
            (None, Some(family)) => Choice::Family(family),
            (None, None) => Choice::Best,
        },
        out: args.types.out(),
        epilogue: args.epilogue.epilogue(),
        tokens: &tokens,
        ..LoadOptions::new(args.types.act())
    };
    let layer = LinearLayer::of(&runtime, &weights, tensor, &options);
    let layer = layer.map_err(|error| refusal(error, &options.choice))?;
    let lookups = runtime.lookups();
    let found = match options.choice {
        Choice::Best => {
            format!("; {} kernel(s) from the cache, {} by default", lookups.hits, lookups.misses)
        }
        Choice::Family(_) | Choice::Schedule(_) => String::new(),
    };
    output::note(format_args!(
        "{tensor}: {} {}x{}{found}",
        weights.spec.name, weights.n, weights.k
    ));
    tokens.into_iter().map(|m| case(args, &runtime, &layer, &weights, m)).collect()
}

/// A schedule that is not legal is the user's mistake where the user chose it.
fn refusal(error: RuntimeError, choice: &Choice<'_>) -> anyhow::Error {
    match (&error, choice) {
        (RuntimeError::NoSchedule { problem, source }, Choice::Family(family)) => {
            let name = family.name();
            usage(format!("no schedule of family {name} is legal for {problem}: {source}"))
        }
        (RuntimeError::NoSchedule { problem, source }, Choice::Schedule(_)) => {
            usage(format!("--schedule is not legal for {problem}: {source}"))
        }
        (RuntimeError::Codegen { problem, source, .. }, Choice::Schedule(_))
            if !matches!(source, CodegenError::Generator(_)) =>
        {
            usage(format!("--schedule is not legal for {problem}: {source}"))
        }
        _ => error.into(),
    }
}

/// The layer called `tensor`, with the one it gates if there is one.
fn weights(args: &Args, checkpoint: &Checkpoint, tensor: &str) -> anyhow::Result<QuantizedLinear> {
    let layer = |tensor| quantize::layer(checkpoint, tensor, args.format.as_deref());
    match &args.up_tensor {
        Some(up) => Ok(layer(tensor)?.interleave(&layer(up)?)?),
        None if args.epilogue.silu_mul => {
            Err(usage("--silu-mul gates another layer of the checkpoint: name it by --up-tensor"))
        }
        None => Ok(layer(tensor)?),
    }
}

/// `weights` are decoded apart from those that the runtime packed.
fn case(
    args: &Args,
    runtime: &Runtime,
    layer: &LinearLayer<'_>,
    weights: &QuantizedLinear,
    m: u32,
) -> anyhow::Result<Case> {
    let (loaded, origin) = layer.kernel(m)?;
    // Beyond the last bucket its kernel runs with more tokens than its key says.
    let mut image = loaded.image().clone();
    image.kernel.problem.m = image.kernel.problem.m.max(m);
    let request = VerifyRequest {
        weights: WeightSource::Real(weights),
        tokens: vec![m],
        sample_tiles: Some(args.sample_blocks),
        ..VerifyRequest::new(&image, &weights.spec, args.seed)
    };
    let verdict = verify(&request, &ServedLayer::new(runtime.device(), layer))?;
    let origin = match origin {
        Origin::Cache => "cache",
        Origin::Default => "default",
        Origin::Given => "given",
    };
    Ok(Case::new(m, &image, origin, verdict))
}

/// The cache, if there is one and no other process has it open.
fn store(args: &Args) -> anyhow::Result<Option<Box<dyn Store>>> {
    match args.cache.open_existing() {
        Ok(store) => Ok(store.map(|store| Box::new(store) as Box<dyn Store>)),
        Err(error @ CacheError::Locked { .. }) => {
            output::warning(format_args!("{error}; the default schedules serve"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
