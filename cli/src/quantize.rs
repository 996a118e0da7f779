//! The layer that a command is about: as it is stored, or quantized on load.

use indicatif::{ProgressBar, ProgressStyle};
use qtune_formats::{Checkpoint, QuantizedLinear};

/// The layer at `path`. With a format it must be one that is not quantized yet.
pub fn layer(
    checkpoint: &Checkpoint,
    path: &str,
    format: Option<&str>,
) -> anyhow::Result<QuantizedLinear> {
    let Some(format) = format else { return Ok(checkpoint.load_layer(path)?) };
    // Draws only on a terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} rows  ETA {eta}") {
        bar.set_style(style);
    }
    let made = checkpoint.quantize_layer(path, format, &|done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    Ok(made?)
}
