//! What a run counts: instructions by class, global sectors, shared-memory wavefronts.
//!
//! Definitions, each exact for a given PTX text and launch:
//! - a *request* is one warp instruction that touches the memory with at least one lane;
//! - *sectors* are the distinct 32-byte pieces a request touches; their ideal is the number of
//!   distinct bytes divided by 32, rounded up;
//! - *wavefronts*: a shared request is split into parts of 32 lanes (up to 4 bytes each), 16 lanes
//!   (8 bytes) or 8 lanes (16 bytes); a part takes as many passes as the fullest of the 32 banks
//!   holds distinct 4-byte words. The ideal is one per part with an active lane.

use serde::Serialize;

/// Kind of an instruction, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Integer, logic, comparison, selection.
    Int,
    /// Moves, conversions, address casts.
    MovCvt,
    /// f32 and f64 arithmetic.
    Fp32,
    /// f16 and bf16 arithmetic, scalar or packed.
    Half2,
    /// Global and generic loads.
    Ldg,
    /// Global and generic stores.
    Stg,
    /// Shared loads.
    Lds,
    /// Shared stores, `stmatrix`.
    Sts,
    /// `cp.async` with its commits and waits.
    CpAsync,
    /// `ldmatrix`.
    Ldmatrix,
    /// `mma.sync`.
    Mma,
    /// `wgmma` with its fences, commits and waits.
    Wgmma,
    /// Lane exchange: shuffles, votes, `movmatrix`.
    Shfl,
    /// Barriers and fences.
    Barrier,
    /// `mbarrier` instructions.
    Mbarrier,
    /// Bulk and tensor copies with their commits and waits.
    BulkCopy,
    /// Branches, returns, traps.
    Branch,
    /// Atomics and reductions in memory.
    Atomic,
    /// Parameter, constant and local accesses, prefetches, sleeps.
    Other,
}

impl Class {
    /// All classes, in declaration order: `ALL[c as usize] == c`.
    pub const ALL: [Class; 19] = [
        Class::Int,
        Class::MovCvt,
        Class::Fp32,
        Class::Half2,
        Class::Ldg,
        Class::Stg,
        Class::Lds,
        Class::Sts,
        Class::CpAsync,
        Class::Ldmatrix,
        Class::Mma,
        Class::Wgmma,
        Class::Shfl,
        Class::Barrier,
        Class::Mbarrier,
        Class::BulkCopy,
        Class::Branch,
        Class::Atomic,
        Class::Other,
    ];

    /// Name as printed in reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Int => "int",
            Class::MovCvt => "mov_cvt",
            Class::Fp32 => "fp32",
            Class::Half2 => "half2",
            Class::Ldg => "ldg",
            Class::Stg => "stg",
            Class::Lds => "lds",
            Class::Sts => "sts",
            Class::CpAsync => "cp_async",
            Class::Ldmatrix => "ldmatrix",
            Class::Mma => "mma",
            Class::Wgmma => "wgmma",
            Class::Shfl => "shfl",
            Class::Barrier => "barrier",
            Class::Mbarrier => "mbarrier",
            Class::BulkCopy => "bulk_copy",
            Class::Branch => "branch",
            Class::Atomic => "atomic",
            Class::Other => "other",
        }
    }
}

/// Executions of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ClassCount {
    /// Warp instructions issued.
    pub warp_instructions: u64,
    /// Sum over them of the lanes that executed.
    pub lanes: u64,
}

/// Traffic to global memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct GlobalTraffic {
    /// Warp requests.
    pub requests: u64,
    /// Distinct 32-byte sectors, summed over requests.
    pub sectors: u64,
    /// Fewest sectors that could hold the distinct bytes of each request.
    pub ideal_sectors: u64,
    /// Bytes asked for by all lanes, broadcasts counted once per lane; zero-filled bytes of
    /// `cp.async` are not read and not counted.
    pub bytes: u64,
}

/// Traffic to shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SharedTraffic {
    /// Warp requests.
    pub requests: u64,
    /// Passes through the banks.
    pub wavefronts: u64,
    /// Passes without bank conflicts.
    pub ideal_wavefronts: u64,
}

/// Traffic to one device buffer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BufferCounters {
    /// Name given at allocation.
    pub buffer: String,
    /// Loads, `cp.async` sources included.
    pub loads: GlobalTraffic,
    /// Stores.
    pub stores: GlobalTraffic,
    /// Atomics and reductions.
    pub atomics: GlobalTraffic,
    /// Distinct 32-byte sectors touched by the whole run.
    pub footprint_sectors: u64,
}

/// Everything counted in a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Executions by class, indexed by `Class as usize`.
    pub classes: [ClassCount; 19],
    /// Loads from all global buffers.
    pub global_loads: GlobalTraffic,
    /// Stores to all global buffers.
    pub global_stores: GlobalTraffic,
    /// Atomics on all global buffers.
    pub global_atomics: GlobalTraffic,
    /// The same by buffer, in allocation order; buffers without traffic are left out.
    pub buffers: Vec<BufferCounters>,
    /// Shared loads and `ldmatrix`.
    pub shared_loads: SharedTraffic,
    /// Shared stores, `stmatrix` and the shared side of `cp.async`.
    pub shared_stores: SharedTraffic,
    /// Branches whose lanes went both ways.
    pub divergent_branches: u64,
    /// Barrier instructions of the thread block executed by warps.
    pub barriers: u64,
    /// Waits for mbarriers that returned false, by warps.
    pub failed_waits: u64,
    /// Bytes that bulk and tensor copies moved in or out of shared memory, those outside a tensor
    /// and every destination of a multicast included.
    pub bulk_bytes: u64,
}

impl Counters {
    /// Adds what a later launch on the same memory counted. Sectors that both touched count twice
    /// in the footprint.
    pub fn add(&mut self, later: &Counters) {
        for (sum, class) in self.classes.iter_mut().zip(later.classes) {
            sum.add(class);
        }
        self.global_loads.add(later.global_loads);
        self.global_stores.add(later.global_stores);
        self.global_atomics.add(later.global_atomics);
        for buffer in &later.buffers {
            match self.buffers.iter_mut().find(|own| own.buffer == buffer.buffer) {
                Some(own) => own.add(buffer),
                None => self.buffers.push(buffer.clone()),
            }
        }
        self.shared_loads.add(later.shared_loads);
        self.shared_stores.add(later.shared_stores);
        self.divergent_branches += later.divergent_branches;
        self.barriers += later.barriers;
        self.failed_waits += later.failed_waits;
        self.bulk_bytes += later.bulk_bytes;
    }

    /// Executions of one class.
    pub fn class(&self, class: Class) -> ClassCount {
        self.classes[class as usize]
    }

    /// Counters of a buffer by name.
    pub fn buffer(&self, name: &str) -> Option<&BufferCounters> {
        self.buffers.iter().find(|b| b.buffer == name)
    }

    /// All warp instructions.
    pub fn warp_instructions(&self) -> u64 {
        self.classes.iter().map(|c| c.warp_instructions).sum()
    }

    /// All lane instructions.
    pub fn lane_instructions(&self) -> u64 {
        self.classes.iter().map(|c| c.lanes).sum()
    }

    /// Shared loads and stores together.
    pub fn shared(&self) -> SharedTraffic {
        let mut sum = self.shared_loads;
        sum.add(self.shared_stores);
        sum
    }
}

impl BufferCounters {
    fn add(&mut self, later: &BufferCounters) {
        self.loads.add(later.loads);
        self.stores.add(later.stores);
        self.atomics.add(later.atomics);
        self.footprint_sectors += later.footprint_sectors;
    }
}

impl ClassCount {
    /// Adds another count.
    pub fn add(&mut self, other: ClassCount) {
        self.warp_instructions += other.warp_instructions;
        self.lanes += other.lanes;
    }
}

impl GlobalTraffic {
    /// Adds another count.
    pub fn add(&mut self, other: GlobalTraffic) {
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.bytes += other.bytes;
    }
}

impl SharedTraffic {
    /// Adds another count.
    pub fn add(&mut self, other: SharedTraffic) {
        self.requests += other.requests;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
    }
}

/// Counts of the instructions generated from one source line (`-lineinfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineCounters {
    /// Source file as named in the PTX.
    pub file: String,
    /// Source line.
    pub line: u32,
    /// Executions of the line's instructions.
    pub executed: ClassCount,
    /// Their global traffic.
    pub global: GlobalTraffic,
    /// Their shared traffic.
    pub shared: SharedTraffic,
    /// Branches among them whose lanes went both ways.
    pub divergent: u64,
}

impl LineCounters {
    /// Adds the counts of the same line in a later launch.
    pub fn add(&mut self, later: &LineCounters) {
        self.executed.add(later.executed);
        self.global.add(later.global);
        self.shared.add(later.shared);
        self.divergent += later.divergent;
    }
}

/// What is counted per instruction while a block runs; everything else is summed up from it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PcCounters {
    pub executed: ClassCount,
    pub global: GlobalTraffic,
    pub shared: SharedTraffic,
    pub divergent: u64,
    pub failed_waits: u64,
    pub bulk_bytes: u64,
}

impl PcCounters {
    pub(crate) fn add(&mut self, other: &PcCounters) {
        self.executed.add(other.executed);
        self.global.add(other.global);
        self.shared.add(other.shared);
        self.divergent += other.divergent;
        self.failed_waits += other.failed_waits;
        self.bulk_bytes += other.bulk_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::{BufferCounters, Class, Counters, GlobalTraffic};

    #[test]
    fn counts_of_two_launches_add_up_by_buffer() {
        let launch = |buffer: &str, sectors| Counters {
            buffers: vec![BufferCounters {
                buffer: buffer.into(),
                loads: GlobalTraffic { sectors, ..GlobalTraffic::default() },
                ..BufferCounters::default()
            }],
            barriers: 1,
            ..Counters::default()
        };
        let mut sum = launch("x", 3);
        sum.add(&launch("y", 5));
        sum.add(&launch("x", 7));
        let sectors = |name: &str| sum.buffer(name).map(|b| b.loads.sectors);
        assert_eq!((sectors("x"), sectors("y"), sum.barriers), (Some(10), Some(5), 3));
    }

    #[test]
    fn classes_are_listed_in_index_order_with_distinct_names() {
        let mut names = std::collections::HashSet::new();
        for (index, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
            assert!(names.insert(class.name()));
        }
    }
}
