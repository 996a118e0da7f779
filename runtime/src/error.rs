//! The crate's one error type.

use qtune_cache::CacheError;
use qtune_codegen::CodegenError;
use qtune_device::DeviceError;
use qtune_formats::FormatError;
use qtune_ir::{ProblemError, Rejected};
use thiserror::Error;

/// Why a layer could not be loaded or run.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The checkpoint is at fault.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The cache's disk is at fault; a damaged or missing winner is a miss, not an error.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The device refused or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Sizes that no kernel is made for.
    #[error("layer `{layer}`: {source}")]
    Size {
        /// Module path of the layer.
        layer: String,
        /// The size and its limit.
        source: ProblemError,
    },
    /// Columns of an act-order layer that are in no order.
    #[error("layer `{layer}`: {reason}; export the checkpoint again")]
    Order {
        /// Module path of the layer.
        layer: String,
        /// The columns that are at fault.
        reason: String,
    },
    /// No kernel family can compute the problem.
    #[error("no kernel for {problem}: {source}")]
    NoSchedule {
        /// The problem key.
        problem: String,
        /// Why not.
        source: Rejected,
    },
    /// A schedule that was asked for cannot be lowered.
    #[error("{problem} with `{schedule}`: {source}")]
    Codegen {
        /// The problem key.
        problem: String,
        /// The schedule.
        schedule: String,
        /// Why not.
        source: CodegenError,
    },
    /// Activations that do not fit the layer, or a token count for which it was not prepared.
    #[error("layer `{layer}`: {reason}")]
    Activations {
        /// Module path of the layer.
        layer: String,
        /// The numbers that disagree.
        reason: String,
    },
    /// The simulator found a defect in a kernel that was to serve: qtune is at fault.
    #[error("layer `{layer}`, {tokens} tokens: {finding}; please report this")]
    Defect {
        /// Module path of the layer.
        layer: String,
        /// Tokens of the launch.
        tokens: u32,
        /// What was found.
        finding: String,
    },
}
