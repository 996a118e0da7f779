//! Semantics of the instructions, one by one, on tiny hand-written PTX against scalar code written
//! from the manual. Each file names its sections of the PTX ISA; [`coverage`] holds them together
//! with the decode table.

// Lanes index several arrays at once.
#![allow(clippy::needless_range_loop)]

mod bulk;
mod cluster;
mod compare;
mod control;
mod convert;
mod coverage;
mod float;
mod half;
mod harness;
mod integer;
mod matrix;
mod mbarrier;
mod memory;
mod mma;
mod rare;
mod small_formats;
#[path = "../support/mod.rs"]
mod support;
mod tensor;
mod warp;
mod wgmma;
