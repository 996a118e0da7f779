//! A checkpoint: its quantized layers, its other tensors, and decoding one layer.

mod foreign;
mod layers;
mod natural;

use crate::config::QuantConfig;
use crate::error::FormatError;
use crate::linear::QuantizedLinear;
use crate::name::FormatName;
use crate::plain::PlainWeight;
use crate::registry::{made_on_load, row_of, FormatRow, LayerHeader};
use crate::source;
use crate::suggest::did_you_mean;
use crate::tensors::TensorTable;
use qtune_ir::Group;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// An opened checkpoint. Headers are read and checked; tensor data is mapped, and read when a
/// layer is loaded.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    table: TensorTable,
    layers: Vec<Layer>,
    plain: Vec<PlainTensor>,
}

/// A quantized linear layer.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Module path: `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Format name: `awq-g128`.
    pub format: String,
    /// Name of the packing inside the format: `gemm`.
    pub layout: &'static str,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Grouping along k.
    #[serde(skip)]
    pub group: Group,
    /// Elements of k per quant group.
    pub group_size: usize,
    /// Whether the layer has a bias.
    pub has_bias: bool,
    /// Its tensors as stored.
    pub tensors: Vec<StoredTensor>,
    #[serde(skip)]
    row: &'static FormatRow,
    #[serde(skip)]
    header: LayerHeader,
}

/// Where one tensor of a layer is stored.
#[derive(Clone, Debug, Serialize)]
pub struct StoredTensor {
    /// Full name.
    pub name: String,
    /// Name of the file that holds it.
    pub file: String,
    /// Element type as the file names it.
    pub dtype: String,
    /// Dimensions as stored.
    pub shape: Vec<usize>,
    /// Size in bytes.
    pub bytes: usize,
}

/// A tensor that belongs to no quantized layer: embeddings, norms, unquantized weights.
pub type PlainTensor = StoredTensor;

/// Layers that need the same kernels.
#[derive(Clone, Debug, Serialize)]
pub struct WeightShape {
    /// Format name.
    pub format: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Whether the layers have a bias.
    pub has_bias: bool,
    /// Module paths of the layers, in the checkpoint's order.
    pub layers: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder, a safetensors file or an index, and checks every quantized layer's tensors
    /// against each other.
    ///
    /// # Errors
    ///
    /// For anything that is damaged, contradictory or in a format that is not read; the message
    /// names file, tensor and remedy.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, FormatError> {
        let path = path.as_ref();
        let (table, folder) = source::open(path)?;
        let config = QuantConfig::find(&folder)?;
        let (layers, plain) = layers::find(&table, config.as_ref())?;
        Ok(Checkpoint { path: path.into(), table, layers, plain })
    }

    /// The path it was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold its tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.table.paths()
    }

    /// Quantized linear layers; numbers in their paths count up.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// All other tensors.
    pub fn plain_tensors(&self) -> &[PlainTensor] {
        &self.plain
    }

    /// The quantized layer at a module path.
    pub fn layer(&self, path: &str) -> Result<&Layer, FormatError> {
        self.layers.iter().find(|layer| layer.path == path).ok_or_else(|| self.no_such_layer(path))
    }

    /// Decodes the layer at a module path.
    ///
    /// # Errors
    ///
    /// If there is no such quantized layer, or its values are impossible (a NaN or negative scale).
    pub fn load_layer(&self, path: &str) -> Result<QuantizedLinear, FormatError> {
        let layer = self.layer(path)?;
        (layer.row.load)(&self.table.module(&layer.path), &layer.header)
    }

    /// Quantizes the plain layer at a module path to `format`, as the format's library does when it
    /// loads one. `progress` is told the rows that are done, and how many there are.
    ///
    /// # Errors
    ///
    /// If there is no such plain layer, or the format is none that is made on load.
    pub fn quantize_layer(
        &self,
        path: &str,
        format: &str,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<QuantizedLinear, FormatError> {
        let name: FormatName = format.parse()?;
        let row = row_of(&name)?;
        row.spec(&name)?;
        let quantize = row.quantize.ok_or_else(|| FormatError::UnknownFormat {
            name: format.into(),
            problem: "it needs calibration, so layers are read in it, not made".into(),
            known: made_on_load(),
        })?;
        if !self.plain.iter().any(|tensor| tensor.name == format!("{path}.weight")) {
            return Err(self.layer(path).map_or_else(|error| error, |layer| self.quantized(layer)));
        }
        quantize(&PlainWeight::of(&self.table.module(path))?, &name, progress)
    }

    fn quantized(&self, layer: &Layer) -> FormatError {
        FormatError::NoSuchLayer {
            path: self.path.clone(),
            layer: layer.path.clone(),
            problem: format!("is already quantized ({})", layer.format),
            remedy: "name a layer that is not, or leave the format out".into(),
        }
    }

    /// The distinct weight shapes, in the order in which the layers first have them.
    pub fn weight_shapes(&self) -> Vec<WeightShape> {
        let mut shapes: Vec<WeightShape> = Vec::new();
        for layer in &self.layers {
            let same = |shape: &&mut WeightShape| {
                (shape.n, shape.k, shape.has_bias) == (layer.n, layer.k, layer.has_bias)
                    && shape.format == layer.format
            };
            if let Some(shape) = shapes.iter_mut().find(same) {
                shape.layers.push(layer.path.clone());
                continue;
            }
            shapes.push(WeightShape {
                format: layer.format.clone(),
                n: layer.n,
                k: layer.k,
                has_bias: layer.has_bias,
                layers: vec![layer.path.clone()],
            });
        }
        shapes
    }

    fn no_such_layer(&self, path: &str) -> FormatError {
        let plain = self.plain.iter().find(|tensor| {
            tensor.name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest == ".weight")
        });
        let part = self.layers.iter().find(|layer| layer.tensors.iter().any(|t| t.name == path));
        let (problem, remedy) = if let Some(tensor) = plain {
            let problem = format!("is not quantized ({} {:?})", tensor.dtype, tensor.shape);
            (problem, "name a quantized layer".into())
        } else if let Some(layer) = part {
            let problem = "is one part of a quantized layer".into();
            (problem, format!("name the layer, `{}`", crate::error::shown(&layer.path)))
        } else {
            let known = self.layers.iter().map(|layer| layer.path.as_str());
            let problem = format!("is not in the checkpoint{}", did_you_mean(path, known));
            (problem, "`qtune inspect` lists the layers".into())
        };
        FormatError::NoSuchLayer { path: self.path.clone(), layer: path.into(), problem, remedy }
    }
}
