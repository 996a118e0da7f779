//! Which problems `tune` is asked for.

use super::Args;
use crate::exit::usage;
use crate::problem::{self, ElementArgs, EpilogueArgs};
use qtune_formats::presets::{self, PresetMatrix};
use qtune_formats::{resolve, Checkpoint};
use qtune_ir::{Problem, WeightSpec};
use qtune_search::Shape;
use std::path::Path;

/// One weight matrix, before token counts.
struct Matrix {
    name: String,
    spec: WeightSpec,
    n: u64,
    k: u64,
    end: EpilogueArgs,
    /// Multiplications with it for one decoded token.
    calls: u32,
}

/// The problems of the command line: every matrix with every token count, in order.
pub fn of(args: &Args) -> anyhow::Result<Vec<Shape>> {
    let matrices = match (&args.model, &args.format) {
        (Some(path), _) => of_model(args, path)?,
        (None, Some(format)) => of_format(args, &resolve(format)?)?,
        (None, None) => return Err(usage("--format or --model is needed")),
    };
    let buckets = buckets(&args.m)?;
    let mut shapes = Vec::new();
    for matrix in &matrices {
        for m in &buckets {
            shapes.push(matrix.shape(*m, args.types)?);
        }
    }
    Ok(shapes)
}

/// The token counts as buckets, ascending, each once. Beyond the last bucket its kernel serves.
fn buckets(tokens: &[u64]) -> anyhow::Result<Vec<u64>> {
    let mut buckets = Vec::new();
    for m in tokens {
        Problem::check_sizes(1, 1, *m)?;
        buckets.push(u64::from(qtune_runtime::bucket(*m as u32)));
    }
    buckets.sort_unstable();
    buckets.dedup();
    if buckets.is_empty() {
        return Err(usage("--m names no token count"));
    }
    Ok(buckets)
}

/// A checkpoint's distinct weight shapes, with their own formats and biases, and the epilogue of the
/// command line.
fn of_model(args: &Args, path: &Path) -> anyhow::Result<Vec<Matrix>> {
    let arch = args.gpu.arch()?;
    let checkpoint = Checkpoint::open(path)?;
    let shapes = checkpoint.weight_shapes();
    if shapes.is_empty() {
        anyhow::bail!("{}: no quantized layers; `qtune inspect` lists its tensors", path.display());
    }
    let matrix = |shape: qtune_formats::WeightShape| {
        Ok(Matrix {
            name: short_name(&shape.layers),
            spec: args.act_bits.served(resolve(&shape.format)?, &arch)?,
            n: shape.n as u64,
            k: shape.k as u64,
            end: EpilogueArgs { bias: shape.has_bias, ..args.epilogue },
            calls: u32::try_from(shape.layers.len()).unwrap_or(u32::MAX),
        })
    };
    shapes.into_iter().map(matrix).collect()
}

/// The last word of the first layer's path, such as `q_proj`.
fn short_name(layers: &[String]) -> String {
    let first = layers.first().map_or("", String::as_str);
    first.rsplit('.').next().unwrap_or(first).into()
}

/// Shapes of the command line or of a preset, all with the epilogue of the command line.
fn of_format(args: &Args, spec: &WeightSpec) -> anyhow::Result<Vec<Matrix>> {
    let end = args.epilogue;
    let matrix = |name, n, k, end, calls| Matrix { name, spec: spec.clone(), n, k, end, calls };
    if !args.shape.is_empty() {
        let shapes = args.shape.iter().map(|(n, k)| matrix(format!("{n}x{k}"), *n, *k, end, 1));
        return Ok(shapes.collect());
    }
    if spec.act_order && args.tp > 1 {
        return Err(usage(format!(
            "--tp {}: `o` and `down` are cut along K, and a part of the columns of {} has parts of all \
             quant groups, in no order that kernels take; name what is cut along N by --shape",
            args.tp, spec.name
        )));
    }
    let matrices = presets::preset(&args.preset)?.shard(args.tp)?.matrices();
    let end = |m: &PresetMatrix| match args.fused {
        true => EpilogueArgs::of(m.bias, m.epilogue),
        false => end,
    };
    let named =
        |m: PresetMatrix| matrix(m.name.into(), m.n.into(), m.k.into(), end(&m), m.calls_per_token);
    Ok(matrices.map(named).into())
}

impl Matrix {
    fn shape(&self, m: u64, types: ElementArgs) -> anyhow::Result<Shape> {
        let problem = problem::problem(&self.spec, self.n, self.k, m, types, self.end)?;
        Ok(Shape { name: self.name.clone(), problem, calls: self.calls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_become_buckets_once_each() {
        assert_eq!(buckets(&[7, 8, 1, 200, 64, 9000]).unwrap(), [1, 8, 64, 256, 1024]);
        assert!(buckets(&[0]).is_err() && buckets(&[1 << 20]).is_err());
    }
}
