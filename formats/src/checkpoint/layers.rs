//! Finding the quantized layers among a checkpoint's tensors.

use super::{foreign, natural, Layer, PlainTensor, StoredTensor};
use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::registry::{FormatRow, FORMATS};
use crate::tensors::{continues_path, TensorRef, TensorTable};
use std::collections::BTreeSet;

/// Splits the tensors into quantized layers, each checked by its format, and plain tensors.
pub(super) fn find(
    table: &TensorTable,
    config: Option<&QuantConfig>,
) -> Result<(Vec<Layer>, Vec<PlainTensor>), FormatError> {
    let mut layers = Vec::new();
    let mut taken = BTreeSet::new();
    let mut claimed = BTreeSet::new();
    for row in FORMATS {
        for path in candidates(row, table) {
            if !claimed.contains(path) && (row.claims)(&table.module(path), config)? {
                claimed.insert(path);
                let layer = inspect(row, path, table, config)?;
                taken.extend(layer.tensors.iter().map(|tensor| tensor.name.clone()));
                layers.push(layer);
            }
        }
    }
    let mut plain = Vec::new();
    for name in table.names().filter(|name| !taken.contains(*name)) {
        if let Some(tensor) = table.get(name) {
            foreign::refuse(&tensor)?;
            plain.push(stored(&tensor));
        }
    }
    layers.sort_by(|a, b| natural::compare(&a.path, &b.path));
    plain.sort_by(|a, b| natural::compare(&a.name, &b.name));
    Ok((layers, plain))
}

/// Paths of the modules that hold an anchor of the format.
fn candidates<'a>(row: &FormatRow, table: &'a TensorTable) -> BTreeSet<&'a str> {
    let module_of = |name: &'a str| {
        row.anchors.iter().find_map(|anchor| {
            let before = name.strip_suffix(anchor)?;
            if continues_path(anchor) {
                Some(before)
            } else {
                before.strip_suffix('.')
            }
        })
    };
    table.names().filter_map(module_of).collect()
}

/// Checks one claimed module.
fn inspect(
    row: &'static FormatRow,
    path: &str,
    table: &TensorTable,
    config: Option<&QuantConfig>,
) -> Result<Layer, FormatError> {
    let module = table.module(path);
    let header = (row.inspect)(&module, config)?;
    let spec = row.spec(&header.name)?;
    let tensors = row.companions.iter().filter_map(|suffix| module.get(suffix));
    let tensors: Vec<StoredTensor> = tensors.map(|tensor| stored(&tensor)).collect();
    Ok(Layer {
        path: path.into(),
        format: spec.name,
        layout: header.layout,
        n: header.n,
        k: header.k,
        group: header.group,
        group_size: header.k.div_ceil(header.groups()),
        has_bias: tensors.iter().any(|tensor| tensor.name.ends_with("bias")),
        tensors,
        row,
        header,
    })
}

fn stored(tensor: &TensorRef<'_>) -> StoredTensor {
    let file = tensor.path.file_name().unwrap_or_default();
    StoredTensor {
        name: tensor.name.into(),
        file: file.to_string_lossy().into_owned(),
        dtype: tensor.stored.to_string(),
        shape: tensor.shape.to_vec(),
        bytes: tensor.bytes.len(),
    }
}
