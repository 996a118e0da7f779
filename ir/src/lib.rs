//! The bottom of qtune: what a quantized matmul *is* and how it may be computed.
//!
//! - [`Problem`] says what a kernel is for; [`WeightSpec`] what one stored weight means.
//! - [`Schedule`] says how the problem is computed; it prints on one line and parses back.
//! - [`Arch`] is what every part of the compiler asks about a GPU.
//! - [`dequant`] holds the dequantization algebra: a small language, its interpreter, and the
//!   e-graph that finds the ways to compute a quant group's share of a dot product.
//! - [`tile`] holds the tiling and tensorization e-graph, whose extracted nests become schedules.
//!
//! ```
//! use qtune_ir::{Arch, Problem};
//! let arch = Arch::named("h200").unwrap();
//! let problem: Problem = "w4a16.awq-g128.f16-f16.n5120.k5120.m16".parse().unwrap();
//! assert_eq!(problem.at(&arch), "w4a16.awq-g128.f16-f16.n5120.k5120.m16@sm90a.132");
//! ```

mod activations;
pub mod arch;
pub mod dequant;
mod dtype;
mod epilogue;
mod packing;
mod problem;
mod schedule;
pub mod tile;
mod vectorised;
mod vectors;
mod weights;

pub use activations::{
    ActivationScales, Activations, QuantizedToken, ACTIVATION_GROUP, LEAST_LARGEST, STATIC_SCALES,
};
pub use arch::Arch;
pub use dtype::DType;
pub use epilogue::Epilogue;
pub use packing::{
    order_nibbles, transpose_bytes, CodePacking, Place, Plane, OCTET_CODES, PIECE_CODES,
    PIECE_OCTETS,
};
pub use problem::{Problem, ProblemError};
pub use schedule::{
    integer_columns, pairs_of_k, sorted_slice, Accumulate, DenseGemm, DequantSchedule, Family,
    GemvSchedule, LibraryGemm, MmaSchedule, Mover, Overlap, Paired, Producer, Raster, Rejected,
    Schedule, ScheduleError, Shares, Sharing, Sorting, Split, Structure, WeightCache,
    WgmmaSchedule, FOLDED_SUMS, GROUP_ROWS, MAP_COPIES, MOST_OPERANDS, PAIR_CODES,
    PRODUCER_REGISTERS, ROW_LANES,
};
pub use vectors::{vector_code, vector_shares, VectorCodes, VECTOR_SHARE_BITS, VECTOR_WEIGHTS};
pub use weights::{
    Codebook, Group, NestedMap, Param, ParamType, WeightSpec, NESTED_CODES, NESTED_GROUPS,
    NESTED_NUMBERS,
};
