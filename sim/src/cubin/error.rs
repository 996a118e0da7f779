//! What a malformed cubin is reported as.

/// Why a cubin or its machine code cannot be read. Cubins may come from a cache or a bundle, so
/// none of these is a bug: the file is damaged, foreign or of a later format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CubinError {
    /// Not a 64-bit little-endian ELF file for NVIDIA GPUs.
    #[error("not a cubin: {reason}")]
    NotACubin {
        /// What differs from a cubin.
        reason: &'static str,
    },
    /// A table or string lies outside the file.
    #[error("damaged cubin: {what} at byte {offset:#x} does not lie in the file of {len} bytes")]
    OutOfFile {
        /// What was being read.
        what: &'static str,
        /// Where it was expected, in bytes from the start of the file.
        offset: u64,
        /// Length of the file in bytes.
        len: u64,
    },
    /// A field has a value that no compiler writes.
    #[error("damaged cubin: {what} is {value:#x}")]
    BadValue {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A kernel lacks something that every kernel has.
    #[error("damaged cubin: kernel {kernel} has no {what}")]
    Missing {
        /// The kernel's name.
        kernel: String,
        /// The section or attribute.
        what: &'static str,
    },
    /// Machine code that is no whole number of 16-byte instructions, or longer than a kernel can
    /// be.
    #[error(
        "machine code of {len} bytes is not a whole number of 16-byte instructions up to 1 MiB"
    )]
    TextLength {
        /// Its length in bytes.
        len: usize,
    },
    /// Machine code of a GPU generation with another encoding.
    #[error("machine code for sm_{sm} has another encoding; sm_75 and later are understood")]
    UnknownEncoding {
        /// Compute capability, for example 60.
        sm: u32,
    },
}
