//! Rows by which a kernel overlaps with those before and after it.

use super::Arg::{Constant, Global};
use super::Intrinsic;
use super::Meaning::Effect;

/// The rows, in the order in which they are emitted.
pub const ROWS: &[Intrinsic] = &[
    Intrinsic {
        name: WAIT_AHEAD,
        args: &[],
        result: None,
        capability: (9, 0),
        source: "PTX ISA, griddepcontrol.wait",
        meaning: Effect("waits until the kernel ahead has ended and its writes are seen"),
        text: "void wait_ahead() { asm volatile(\"griddepcontrol.wait;\" ::: \"memory\"); }",
    },
    Intrinsic {
        name: "start_next",
        args: &[],
        result: None,
        capability: (9, 0),
        source: "PTX ISA, griddepcontrol.launch_dependents",
        meaning: Effect("lets the next kernel start once every block has come here or ended"),
        text: "void start_next() { asm volatile(\"griddepcontrol.launch_dependents;\" ::: \"memory\"); }",
    },
    Intrinsic {
        name: "prefetch_l2",
        args: &[Global],
        result: None,
        capability: (8, 0),
        source: "PTX ISA, prefetch.global.L2",
        meaning: Effect("asks L2 for the line of an address"),
        text: "void prefetch_l2(const void* p) { asm volatile(\"prefetch.global.L2 [%0];\" :: \"l\"(p)); }",
    },
    Intrinsic {
        name: "prefetch_l2_bytes",
        args: &[Global, Constant],
        result: None,
        capability: (9, 0),
        source: "PTX ISA, cp.async.bulk.prefetch.L2.global",
        meaning: Effect("asks L2 for so many bytes behind an address, a multiple of 16"),
        text: "void prefetch_l2_bytes(const void* p, unsigned bytes) {
  asm volatile(\"cp.async.bulk.prefetch.L2.global [%0], %1;\" :: \"l\"(p), \"r\"(bytes));
}",
    },
];

/// The wait for the kernel ahead.
pub const WAIT_AHEAD: &str = "wait_ahead";
