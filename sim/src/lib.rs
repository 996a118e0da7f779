//! Executes NVRTC's PTX on the CPU, checks it and counts what it does.
//!
//! A [`Module`] is decoded from PTX text, device buffers live in [`Memory`], and [`run`] executes
//! a [`Launch`]: warps in lockstep with divergence, shared memory, barriers, `cp.async`, matrix
//! instructions, clusters with distributed shared memory, mbarriers, bulk and tensor copies
//! ([`TensorMapSpec`]); thread blocks in parallel. The [`Report`] holds [`Finding`]s
//! (out-of-bounds and uninitialised accesses, races between barriers, deadlocks, ...) and
//! [`Counters`] (instructions by class, global sectors, shared-memory wavefronts). The crate knows
//! PTX and nothing of what a kernel computes.
//!
//! Beside execution stands what can be told without it: [`cubin`] reads registers, stack and
//! parameters, [`sass`] classifies machine code and finds its loops.
//!
//! ```
//! use qtune_sim::{run, Access, Arg, Launch, Memory, Module, RunOptions};
//!
//! let module = Module::parse(
//!     ".version 8.0 .target sm_80 .address_size 64
//!      .visible .entry double(.param .u64 p) {
//!          .reg .b32 %r<4>; .reg .b64 %rd<4>;
//!          ld.param.u64 %rd1, [p];
//!          mov.u32 %r1, %tid.x;
//!          mul.wide.u32 %rd2, %r1, 4;
//!          add.s64 %rd3, %rd1, %rd2;
//!          ld.global.u32 %r2, [%rd3];
//!          add.s32 %r3, %r2, %r2;
//!          st.global.u32 [%rd3], %r3;
//!          ret;
//!      }",
//! )?;
//! let mut memory = Memory::new();
//! let x = memory.alloc("x", 128, Access::ReadWrite)?;
//! memory.write(x, 0, &[1; 128])?;
//! let launch = Launch {
//!     grid: [1, 1, 1],
//!     block: [32, 1, 1],
//!     cluster: [1, 1, 1],
//!     dynamic_shared_bytes: 0,
//!     args: vec![Arg::Buffer { id: x, offset: 0 }],
//! };
//! let report = run(&module, "double", &launch, &mut memory, &RunOptions::default())?;
//! assert!(report.findings.is_empty());
//! assert_eq!(report.counters.global_loads.sectors, 4);
//! assert_eq!(memory.read(x, 0, 128)?, [2; 128]);
//! # Ok::<(), qtune_sim::SimError>(())
//! ```

mod address;
mod block;
mod buffer_range;
mod cfg;
mod check;
mod cluster;
mod counters;
pub mod cubin;
mod dataflow;
mod decode;
mod device_memory;
mod error;
mod exec;
mod launch;
mod limits;
mod mbarrier;
mod memory;
mod module;
mod op;
mod program;
mod ptx;
mod report;
mod request;
mod residency;
pub mod sass;
mod shared;
mod state;
mod tensor_map;
mod worker;

pub use check::{Finding, FindingKind};
pub use counters::{
    BufferCounters, Class, ClassCount, Counters, GlobalTraffic, LineCounters, SharedTraffic,
};
pub use decode::table::{covered_instructions, CoveredInstruction};
pub use error::SimError;
pub use launch::{run, Arg, AsyncSchedule, Blocks, Launch, Partners, RunOptions, WarpOrder};
pub use limits::Limits;
pub use memory::{Access, BufferId, Memory};
pub use module::Module;
pub use report::Report;
pub use tensor_map::{OutOfBoundsFill, Swizzle, TensorMapError, TensorMapSpec, TensorType};
