//! The crate's one error type. A candidate that fails is not an error: it is counted in the report.

use qtune_cache::CacheError;
use qtune_formats::FormatError;
use qtune_ir::dequant::DequantError;
use qtune_ir::tile::TileError;
use thiserror::Error;

/// Why a search could not go on.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The problem's format does not exist.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// No schedule computes the problem, or one cannot be derived.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// The format's expression or a term cannot be handled.
    #[error(transparent)]
    Dequant(#[from] DequantError),
    /// A log that is replayed is of another GPU.
    #[error("the log was written for {found}, not for {wanted}; name its GPU with --gpu")]
    OtherArch {
        /// Fingerprint of the log's arch.
        found: String,
        /// The arch that was asked for.
        wanted: String,
    },
    /// The cache or the trial log cannot be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
