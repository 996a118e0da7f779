//! What is in a checkpoint.

use super::{bytes, Report};
use crate::table::{Align, Table};
use qtune_formats::{Checkpoint, PlainTensor};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Opens the checkpoint and lists its layers.
pub fn report(path: &Path) -> anyhow::Result<Report> {
    let checkpoint = Checkpoint::open(path)?;
    let files: Vec<_> = checkpoint.files().map(|file| file.display().to_string()).collect();
    let json = json!({
        "kind": "checkpoint",
        "path": path.display().to_string(),
        "files": files,
        "layers": checkpoint.layers(),
        "weight_shapes": checkpoint.weight_shapes(),
        "plain_tensors": checkpoint.plain_tensors(),
    });
    Ok(Report { text: text(&checkpoint, files.len()), json })
}

fn text(checkpoint: &Checkpoint, files: usize) -> String {
    let layers = checkpoint.layers();
    let tensors = layers.iter().flat_map(|layer| &layer.tensors);
    let quantized: usize = tensors.map(|tensor| tensor.bytes).sum();
    let plain = checkpoint.plain_tensors();
    let plain_bytes: usize = plain.iter().map(|tensor| tensor.bytes).sum();
    format!(
        "checkpoint {}: {files} file(s), {} quantized layers ({}), {} other tensors ({}{})\n\n{}\n\n{}",
        checkpoint.path().display(),
        layers.len(),
        bytes(quantized as u64),
        plain.len(),
        bytes(plain_bytes as u64),
        types(plain),
        shapes(checkpoint),
        layer_table(checkpoint),
    )
}

/// The types of tensors that no layer has, and how many have each: `: 3 F32`.
fn types(plain: &[PlainTensor]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in plain {
        *counts.entry(&tensor.dtype).or_default() += 1;
    }
    let listed: Vec<String> =
        counts.into_iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    match listed.is_empty() {
        true => String::new(),
        false => format!(": {}", listed.join(", ")),
    }
}

fn shapes(checkpoint: &Checkpoint) -> Table {
    let mut table = Table::new(&[
        ("format", Align::Left),
        ("N", Align::Right),
        ("K", Align::Right),
        ("bias", Align::Left),
        ("activations", Align::Left),
        ("layers", Align::Right),
    ]);
    for shape in checkpoint.weight_shapes() {
        // The formats of layers are those of the registry.
        let asked = qtune_formats::resolve(&shape.format).map(|spec| spec.activations);
        table.row([
            shape.format,
            shape.n.to_string(),
            shape.k.to_string(),
            yes_no(shape.has_bias),
            asked.unwrap_or_default().to_string(),
            shape.layers.len().to_string(),
        ]);
    }
    table
}

fn layer_table(checkpoint: &Checkpoint) -> Table {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("format", Align::Left),
        ("layout", Align::Left),
        ("N", Align::Right),
        ("K", Align::Right),
        ("bias", Align::Left),
        ("bytes", Align::Right),
    ]);
    for layer in checkpoint.layers() {
        let size: usize = layer.tensors.iter().map(|tensor| tensor.bytes).sum();
        table.row([
            layer.path.clone(),
            layer.format.clone(),
            layer.layout.into(),
            layer.n.to_string(),
            layer.k.to_string(),
            yes_no(layer.has_bias),
            bytes(size as u64),
        ]);
    }
    table
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}
