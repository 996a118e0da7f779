//! The crate's one error type: why a module could not be read, decoded or launched.

use thiserror::Error;

/// Why a kernel could not be simulated at all. Defects *of the kernel* found while it runs are
/// [`crate::Finding`]s in the report instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SimError {
    /// The text is not PTX of the shape that NVRTC writes.
    #[error("PTX line {line}: {message}")]
    Parse {
        /// Line of the PTX text, from 1.
        line: u32,
        /// What was expected and what stands there.
        message: String,
    },
    /// An instruction, modifier or operand form outside the decode table.
    ///
    /// Nothing is ever skipped: a modifier that is not understood could change the result.
    #[error("PTX line {line}: cannot decode `{instruction}`: {reason}")]
    Decode {
        /// Line of the PTX text, from 1.
        line: u32,
        /// The instruction's opcode with all its modifiers.
        instruction: String,
        /// Which part is not in the table.
        reason: String,
    },
    /// The module has no kernel of this name.
    #[error("kernel `{name}` is not in the module, which has: {available}")]
    UnknownEntry {
        /// Name asked for.
        name: String,
        /// Comma-separated names of the module's kernels.
        available: String,
    },
    /// Grid, block, shared memory or arguments that the device would refuse.
    #[error("cannot launch `{kernel}`: {reason}")]
    Launch {
        /// Name of the kernel.
        kernel: String,
        /// The limit that is exceeded, with both numbers.
        reason: String,
    },
    /// A host-side access outside a buffer, or a buffer that does not exist.
    #[error("device memory: {0}")]
    Memory(String),
    /// The kernel executed more instructions than the limit of the run allows.
    #[error(
        "kernel `{kernel}` exceeded {limit} warp instructions in block {block} (at PTX line \
         {ptx_line}); an endless loop, or raise `RunOptions::instruction_limit`"
    )]
    InstructionLimit {
        /// Name of the kernel.
        kernel: String,
        /// Linear index of the thread block.
        block: u32,
        /// The limit of the run, in warp instructions of one thread block.
        limit: u64,
        /// Where the block stood.
        ptx_line: u32,
    },
    /// The worker threads could not be started.
    #[error("cannot start simulator threads: {0}")]
    Threads(String),
}

impl SimError {
    pub(crate) fn parse(line: u32, message: impl Into<String>) -> Self {
        SimError::Parse { line, message: message.into() }
    }
}
