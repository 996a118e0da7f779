//! `qtune dequantize CHECKPOINT --tensor NAME --out W.safetensors`.

use crate::exit::Exit;
use crate::{output, quantize};
use qtune_formats::safetensors::write_f32;
use qtune_formats::Checkpoint;
use std::path::PathBuf;

/// Options of `dequantize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint: a folder, a .safetensors file or an index
    checkpoint: PathBuf,
    /// Module path of the layer, such as model.layers.0.self_attn.q_proj
    #[arg(long, value_name = "NAME")]
    tensor: String,
    /// Quantize a layer that is not quantized to this format first, as bitsandbytes does on load
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// File to write: one f32 tensor `weight`, N x K
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the weights of one layer.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let layer = quantize::layer(&checkpoint, &args.tensor, args.format.as_deref())?;
    write_f32(&args.out, "weight", layer.n, layer.k, &layer.dequantize())?;
    output::note(format_args!(
        "{}: {} {}x{} as f32 in {}",
        args.tensor,
        layer.spec.name,
        layer.n,
        layer.k,
        args.out.display()
    ));
    Ok(Exit::Success)
}
