//! The crate's one error type. A kernel that is wrong is a [`crate::Verdict`], not an error.

use qtune_device::DeviceError;
use thiserror::Error;

/// Why a kernel could not be verified at all.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The weights given are not those of the problem.
    #[error("wrong weights: {reason}")]
    Weights {
        /// Both shapes.
        reason: String,
    },
    /// A token count that the problem does not have.
    #[error("M = {tokens} is outside 1..={bucket}, the bucket of {problem}")]
    Tokens {
        /// The token count asked for.
        tokens: u32,
        /// The largest one.
        bucket: u32,
        /// The problem key.
        problem: String,
    },
    /// The schedule's dequantization term has no meaning for the format.
    #[error("dequantization term `{term}`: {reason}")]
    Term {
        /// The term's text.
        term: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The device refused or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
