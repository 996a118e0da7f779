//! Tiling and tensorization: an e-graph over loop nests that finds the shapes of kernels.
//!
//! - [`Nest`] is a loop nest: a value that prints, parses, is verified ([`verify()`]) and
//!   executed ([`run`]).
//! - Rewrites ([`rule_names`]) split the naive nest, bind it to blocks, warps and lanes, tensorize,
//!   stage, pipeline and split it over K; equal nests visit the same points.
//! - [`schedule`] and [`nest()`] translate between nests and [`Schedule`](crate::Schedule)s.
//! - [`sketches`] returns the k best different legal schedules under the cost model of
//!   [`estimate`], [`explain`] how a schedule is derived.
//!
//! ```
//! use qtune_ir::tile::{self, Nest};
//! use qtune_ir::{Problem, Schedule};
//! let problem: Problem = "w4a16.awq-g128.f16-f16.n5120.k5120.m16".parse().unwrap();
//! let text = "(for m 16 block (for m 16 reg (for n 5120 block (for n 64 warp (for k 5120 serial \
//!             (ring 4 (for k 128 unroll (for k 64 reg (mma16816)))))))))";
//! let nest: Nest = text.parse().unwrap();
//! let schedule = tile::schedule(&nest, &problem).unwrap();
//! assert_eq!(schedule.to_string(), "mma tile=16x64x128 warps=4x1 stages=4 split=1 pad=16 \
//!                                   raster=rows dequant=");
//! ```

mod ahead;
pub mod cost;
mod extract;
mod factors;
mod interpret;
mod language;
mod lower;
mod nest;
pub mod occupancy;
mod rules;
mod search;
mod space;
mod verify;
mod work;

pub use cost::{compulsory_bytes, estimate, Estimate, Term};
pub use interpret::run;
pub use lower::{extents, nest, schedule};
pub use nest::{Axis, Binding, Extents, Layer, Leaf, Loop, Nest, NestError};
pub use occupancy::{bytes_in_flight_per_sm, registers, resident_blocks};
pub use rules::rule_names;
pub use search::{
    explain, sketches, Dequant, DequantChoice, Derivation, Options, Search, Sketch, Step, TileError,
};
pub use space::{Choice, FamilySpace, Space};
pub use verify::{verify, Facts};

#[cfg(test)]
pub(crate) mod tests;
