//! Floats of 4 and 8 bits with a small float as scale for every 16 or 32 weights: the OCP Microscaling
//! formats (Specification 1.0), and NVFP4.
//!
//! The same codes and scales come in containers of several libraries, which a row tells apart by their
//! tensors:
//!
//! - compressed-tensors: `weight_packed` uint8 `[N, K/2]`, the even column in the low nibble, or `weight`
//!   F8_E4M3 `[N, K]`; `weight_scale` `[N, K/32]` or `[N, K/16]`;
//! - gpt-oss: `*_blocks` uint8 `[E, rows, K/32, 16]` and `*_scales`, the experts stacked;
//! - ModelOpt: as compressed-tensors, but for names;
//! - GGUF: blocks of both, see [`crate::blocks`].
//!
//! A weight is its code's number times its scale, computed in f32 and rounded to bf16, except in GGUF
//! files, whose weights are f32.

mod mxfp4;
mod mxfp8;
mod nvfp4;
mod packed;

pub(crate) use mxfp4::MXFP4;
pub(crate) use mxfp8::MXFP8;
pub(crate) use nvfp4::NVFP4;

use crate::blocks::nibbles;

/// Twice the values of e2m1 (OCP Microscaling Formats 1.0, section 5.3.3): bit 3 is the sign. Whole
/// numbers, because scales can take up the factor.
#[rustfmt::skip]
static E2M1_CODEBOOK: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0,
    -0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

/// The values themselves, for scales whose bits are those of the file.
#[rustfmt::skip]
static E2M1_VALUES: [f32; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0,
    -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// Writes the codes of a run of nibbles of GGUF, the low ones first. A zero has no sign there.
fn unsigned_zeros(packed: &[u8], run: usize, codes: &mut [u8]) {
    const NEGATIVE_ZERO: u8 = 8;
    nibbles(packed, run, codes);
    codes.iter_mut().filter(|code| **code == NEGATIVE_ZERO).for_each(|code| *code = 0);
}

/// Weights that share a power of two.
const SIZE: u32 = 32;
