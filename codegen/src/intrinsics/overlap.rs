//! Rows by which a kernel overlaps with those before and after it.

use super::Arg::Global;
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
];

/// The wait for the kernel ahead.
pub const WAIT_AHEAD: &str = "wait_ahead";
