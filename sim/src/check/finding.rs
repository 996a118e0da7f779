//! A defect of the kernel, with its place.

use std::fmt;

use serde::Serialize;

/// Kind of defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// An access outside its buffer or variable, or to an address that is not mapped.
    OutOfBounds,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// A store or atomic to a read-only buffer.
    ReadOnlyWrite,
    /// A register used before it was written.
    UninitialisedRegister,
    /// Shared memory read before it was written.
    UninitialisedShared,
    /// Global or local memory read before it was written.
    UninitialisedMemory,
    /// Two warps access the same shared bytes without a barrier between, at least one writing.
    SharedRace,
    /// Two lanes of a warp access the same shared or global bytes without `bar.warp.sync` or a barrier between,
    /// at least one writing. Lanes of one store that write the same value are no race.
    LaneRace,
    /// Two warps, of one or of different thread blocks, access the same global bytes without an order
    /// between, at least one writing and at least one not strong enough to be atomic for both. Warps
    /// of one block that write the same value are no race.
    GlobalRace,
    /// Data of an asynchronous copy used, or its target overwritten, before the copy was waited for.
    AsyncNotAwaited,
    /// Shared bytes overwritten while an asynchronous operation (a matrix product or a bulk store)
    /// is still reading them.
    AsyncRead,
    /// Shared bytes written by ordinary stores and then used by an asynchronous operation without a
    /// `fence.proxy.async` of the writer between.
    ProxyFence,
    /// An mbarrier used before its initialisation, initialised twice, accessed like data, or given
    /// more arrivals or bytes than it expects.
    MbarrierMisuse,
    /// Shared memory of another thread block of the cluster used before that block is known to have
    /// started, or while it may have exited.
    ClusterLifetime,
    /// A barrier or collective executed by part of a warp although all lanes must take part.
    BarrierDivergence,
    /// A barrier whose participants disagree on the number of threads, or an invalid one.
    BarrierMisuse,
    /// A lane exchange with a lane that does not take part.
    InactiveLane,
    /// No warp of a thread block can go on.
    Deadlock,
    /// The kernel executed `trap`.
    Trap,
    /// An operand value the instruction does not define (for example a copy size).
    InvalidOperand,
    /// A register of a pending `wgmma` touched before its wait, a missing `wgmma.fence`, or a batch
    /// that is not committed.
    WgmmaHazard,
    /// A matrix descriptor that does not describe an operand within shared memory.
    InvalidDescriptor,
    /// The four warps of a warpgroup do not execute the same warpgroup instructions.
    WarpgroupDivergence,
}

impl FindingKind {
    /// Name as printed.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::OutOfBounds => "out-of-bounds",
            FindingKind::Misaligned => "misaligned",
            FindingKind::ReadOnlyWrite => "read-only-write",
            FindingKind::UninitialisedRegister => "uninitialised-register",
            FindingKind::UninitialisedShared => "uninitialised-shared",
            FindingKind::UninitialisedMemory => "uninitialised-memory",
            FindingKind::SharedRace => "shared-race",
            FindingKind::LaneRace => "lane-race",
            FindingKind::GlobalRace => "global-race",
            FindingKind::AsyncNotAwaited => "async-not-awaited",
            FindingKind::AsyncRead => "async-read",
            FindingKind::ProxyFence => "proxy-fence",
            FindingKind::MbarrierMisuse => "mbarrier-misuse",
            FindingKind::ClusterLifetime => "cluster-lifetime",
            FindingKind::BarrierDivergence => "barrier-divergence",
            FindingKind::BarrierMisuse => "barrier-misuse",
            FindingKind::InactiveLane => "inactive-lane",
            FindingKind::Deadlock => "deadlock",
            FindingKind::Trap => "trap",
            FindingKind::InvalidOperand => "invalid-operand",
            FindingKind::WgmmaHazard => "wgmma-hazard",
            FindingKind::InvalidDescriptor => "invalid-descriptor",
            FindingKind::WarpgroupDivergence => "warpgroup-divergence",
        }
    }
}

/// One defect; repeated ones at the same instruction are counted in the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Kind of defect.
    pub kind: FindingKind,
    /// Kernel name.
    pub kernel: String,
    /// Line of the PTX text.
    pub ptx_line: u32,
    /// Line of the source, when the PTX was made with `-lineinfo`.
    pub source_line: Option<u32>,
    /// Linear index of the thread block.
    pub block: u32,
    /// Warp within the block.
    pub warp: u32,
    /// First lane concerned, if one lane can be named.
    pub lane: Option<u32>,
    /// Address within its state space (global: the generic address).
    pub address: Option<u64>,
    /// Name of the buffer concerned.
    pub buffer: Option<String>,
    /// What happened, in words.
    pub message: String,
    /// How often it happened at this instruction in the whole run.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (kernel {}", self.kind.name(), self.message, self.kernel)?;
        write!(f, ", PTX line {}", self.ptx_line)?;
        if let Some(line) = self.source_line {
            write!(f, ", source line {line}")?;
        }
        write!(f, ", block {}, warp {}", self.block, self.warp)?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        if let Some(buffer) = &self.buffer {
            write!(f, ", buffer {buffer}")?;
        }
        if let Some(address) = self.address {
            write!(f, ", address 0x{address:x}")?;
        }
        if self.count > 1 {
            write!(f, ", {} times", self.count)?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_prints_on_one_line_with_its_place() {
        let finding = Finding {
            kind: FindingKind::OutOfBounds,
            kernel: "gemv".into(),
            ptx_line: 12,
            source_line: Some(3),
            block: 4,
            warp: 1,
            lane: Some(31),
            address: Some(0x10),
            buffer: Some("weights".into()),
            message: "16-byte load past the end".into(),
            count: 2,
        };
        assert_eq!(
            finding.to_string(),
            "out-of-bounds: 16-byte load past the end (kernel gemv, PTX line 12, source line 3, \
             block 4, warp 1, lane 31, buffer weights, address 0x10, 2 times)"
        );
    }
}
