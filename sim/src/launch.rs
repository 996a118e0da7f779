//! Launching: arguments, limits, choice of blocks, and their distribution over threads.

use std::collections::BTreeSet;
use std::sync::Arc;

use rayon::prelude::*;

use crate::address;
use crate::block::{coordinates, RunContext, Tally};
use crate::device_memory::DeviceMemory;
use crate::error::SimError;
#[cfg(target_arch = "x86_64")]
use crate::exec::machine::Avx2;
use crate::limits::Limits;
use crate::memory::{BufferId, Memory};
use crate::module::Module;
use crate::program::{Op, Program};
use crate::report::{report, Report};
use crate::residency::Residents;
use crate::tensor_map::{TensorMapError, TensorMapSpec};
use crate::worker::Worker;

/// A kernel argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// Device address of a buffer plus a byte offset.
    Buffer {
        /// The buffer.
        id: BufferId,
        /// Bytes from its start.
        offset: u64,
    },
    /// Unsigned 32-bit value.
    U32(u32),
    /// Signed 32-bit value.
    I32(i32),
    /// Unsigned 64-bit value.
    U64(u64),
    /// Signed 64-bit value.
    I64(i64),
    /// 32-bit float.
    F32(f32),
    /// A by-value structure.
    Bytes(Vec<u8>),
    /// A tensor map, for a parameter of 128 bytes.
    TensorMap(TensorMapSpec),
}

impl Arg {
    fn bytes(&self) -> Result<Vec<u8>, TensorMapError> {
        Ok(match self {
            Arg::Buffer { id, offset } => {
                address::buffer(id.index()).wrapping_add(*offset).to_le_bytes().to_vec()
            }
            Arg::U32(v) => v.to_le_bytes().to_vec(),
            Arg::I32(v) => v.to_le_bytes().to_vec(),
            Arg::U64(v) => v.to_le_bytes().to_vec(),
            Arg::I64(v) => v.to_le_bytes().to_vec(),
            Arg::F32(v) => v.to_le_bytes().to_vec(),
            Arg::Bytes(v) => v.clone(),
            Arg::TensorMap(spec) => spec.encode(address::buffer(spec.buffer.index()))?.to_vec(),
        })
    }
}

/// Shape and arguments of a launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Thread blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads per block along x, y, z.
    pub block: [u32; 3],
    /// Blocks per cluster along x, y, z; `[1, 1, 1]` takes the shape that the kernel declares
    /// (`.reqnctapercluster`), and without one launches no clusters.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared_bytes: u32,
    /// One argument per kernel parameter, of the parameter's size.
    pub args: Vec<Arg>,
}

/// When asynchronous copies land.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AsyncSchedule {
    /// At the wait that covers them: finds waits that are missing or too lax.
    #[default]
    Lazy,
    /// At issue: finds stages that are overwritten while still being read.
    Eager,
}

/// Order in which the warps of a block take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WarpOrder {
    /// Warp 0 first.
    #[default]
    Forward,
    /// Last warp first.
    Reversed,
    /// A new random order each round, from this seed.
    Seeded(u64),
}

/// Blocks that belong together with a block, by linear index.
pub type Partners = Arc<dyn Fn(u32) -> Vec<u32> + Send + Sync>;

/// Which thread blocks to run. Linear index: x fastest, then y, then z.
#[derive(Clone, Default)]
pub enum Blocks {
    /// The whole grid.
    #[default]
    All,
    /// These, in this order; of a cluster, all its blocks.
    List(Vec<u32>),
    /// A seeded sample. First and last block and the edges of each grid axis are always in it, and
    /// with every block its partners (for example the other blocks of a split-K group).
    Sample {
        /// Blocks to draw besides the fixed ones.
        count: usize,
        /// Seed of the draw.
        seed: u64,
        /// Partners of a block, itself included or not.
        partners: Option<Partners>,
    },
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Blocks::All => write!(f, "All"),
            Blocks::List(list) => write!(f, "List({list:?})"),
            Blocks::Sample { count, seed, partners } => {
                write!(f, "Sample({count}, seed {seed}, partners {})", partners.is_some())
            }
        }
    }
}

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// When asynchronous copies land.
    pub schedule: AsyncSchedule,
    /// Order of warps.
    pub warp_order: WarpOrder,
    /// Blocks to run.
    pub blocks: Blocks,
    /// Worker threads; 0 takes rayon's default.
    pub threads: usize,
    /// Most warp instructions of one thread block; beyond it the run ends with an error.
    pub instruction_limit: u64,
    /// Race and definedness checks; bounds, alignment and barriers are always checked.
    pub checks: bool,
    /// Limits of the device.
    pub limits: Limits,
    /// Registers per thread of the compiled kernel, where known; without it `.maxnreg` counts.
    pub registers: Option<u32>,
    /// Most findings in the report.
    pub max_findings: usize,
    /// Leave vector extensions of the CPU unused. Results are the same; this is slower.
    pub portable: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            schedule: AsyncSchedule::default(),
            warp_order: WarpOrder::default(),
            blocks: Blocks::default(),
            threads: 0,
            instruction_limit: 1 << 32,
            checks: true,
            limits: Limits::default(),
            registers: None,
            max_findings: 100,
            portable: false,
        }
    }
}

/// Runs a kernel of a module on device memory.
///
/// # Errors
/// Launches that the device would refuse, and endless loops. Defects that a device would not
/// notice are findings of the report.
pub fn run(
    module: &Module,
    entry: &str,
    launch: &Launch,
    memory: &mut Memory,
    options: &RunOptions,
) -> Result<Report, SimError> {
    let program = module.program(entry)?;
    let total = check_launch(program, launch, options)?;
    let cluster = cluster_shape(program, launch, &options.limits)?;
    let parameters = parameters(program, launch)?;
    let blocks = choose_blocks(program, &options.blocks, launch.grid, total)?;
    let units = clusters_of(blocks, launch.grid, cluster);
    let context = RunContext {
        program,
        memory: DeviceMemory::new(memory, program)?,
        grid: launch.grid,
        block: launch.block,
        cluster,
        dynamic_shared_bytes: launch.dynamic_shared_bytes,
        parameters,
        options,
        #[cfg(target_arch = "x86_64")]
        avx2: if options.portable { None } else { Avx2::detect() },
    };
    let tally = run_units(&context, &units, options.threads)?;
    Ok(report(&context, tally, u64::from(total)))
}

fn refuse<T>(program: &Program, reason: String) -> Result<T, SimError> {
    Err(SimError::Launch { kernel: program.name.clone(), reason })
}

/// Checks the launch against the device and the kernel; returns the number of thread blocks.
fn check_launch(program: &Program, launch: &Launch, options: &RunOptions) -> Result<u32, SimError> {
    let limits = &options.limits;
    for axis in 0..3 {
        let (grid, block) = (launch.grid[axis], launch.block[axis]);
        let name = ["x", "y", "z"][axis];
        if grid == 0 || grid > limits.grid_axes[axis] {
            let most = limits.grid_axes[axis];
            return refuse(program, format!("grid {name} is {grid}, allowed are 1 to {most}"));
        }
        if block == 0 || block > limits.block_axes[axis] {
            let most = limits.block_axes[axis];
            return refuse(program, format!("block {name} is {block}, allowed are 1 to {most}"));
        }
    }
    check_threads(program, launch, limits)?;
    check_registers(program, launch, options)?;
    let shared = u64::from(program.dynamic_shared_offset) + u64::from(launch.dynamic_shared_bytes);
    if shared > u64::from(limits.shared_per_block) {
        let (most, name) = (limits.shared_per_block, &limits.name);
        return refuse(program, format!("{shared} shared bytes, {name} has {most} per block"));
    }
    if program.static_shared_bytes > limits.static_shared_per_block {
        let (bytes, most) = (program.static_shared_bytes, limits.static_shared_per_block);
        return refuse(program, format!("{bytes} static shared bytes, allowed are {most}"));
    }
    let total: u64 = launch.grid.iter().map(|&g| u64::from(g)).product();
    match u32::try_from(total) {
        Ok(total) => Ok(total),
        Err(_) => refuse(program, format!("{total} thread blocks, more than 2^32 - 1")),
    }
}

fn check_threads(program: &Program, launch: &Launch, limits: &Limits) -> Result<(), SimError> {
    let threads: u64 = launch.block.iter().map(|&b| u64::from(b)).product();
    if threads > u64::from(limits.threads_per_block) {
        let most = limits.threads_per_block;
        return refuse(program, format!("{threads} threads per block, allowed are {most}"));
    }
    if let Some(most) = program.max_threads {
        let most: u64 = most.iter().map(|&m| u64::from(m)).product();
        if threads > most {
            return refuse(program, format!("{threads} threads per block, .maxntid is {most}"));
        }
    }
    match program.required_threads {
        Some(required) if required != launch.block => {
            refuse(program, format!("block {:?}, .reqntid is {required:?}", launch.block))
        }
        _ => Ok(()),
    }
}

/// Every block needs its registers at once. What the kernel declares bounds what ptxas gives it from
/// above, and beyond the most a thread can have it says nothing; only kernels whose warps exchange
/// registers start with all of it (PTX ISA 9.7.19.5, 11.4.1).
fn check_registers(
    program: &Program,
    launch: &Launch,
    options: &RunOptions,
) -> Result<(), SimError> {
    let limits = &options.limits;
    let exchanges = || program.code.iter().any(|i| matches!(i.op, Op::SetMaxRegisters { .. }));
    let declared = program.max_registers.filter(|_| exchanges());
    let declared = declared.map(|declared| declared.min(limits.registers_per_thread));
    let Some(registers) = options.registers.or(declared) else { return Ok(()) };
    if registers > limits.registers_per_thread {
        let most = limits.registers_per_thread;
        return refuse(program, format!("{registers} registers per thread, allowed are {most}"));
    }
    let threads = launch.block.iter().product();
    if limits.blocks_per_sm(threads, 0, Some(registers)) == 0 {
        let most = limits.registers_per_sm;
        let reason = format!("{threads} threads of {registers} registers, an SM has {most}");
        return refuse(program, reason);
    }
    Ok(())
}

/// Blocks of a cluster along each axis: what the launch asks for, or else what the kernel declares.
fn cluster_shape(
    program: &Program,
    launch: &Launch,
    limits: &Limits,
) -> Result<[u32; 3], SimError> {
    let cluster = match program.required_cluster {
        Some(required) if launch.cluster == [1, 1, 1] => required,
        Some(required) if required != launch.cluster => {
            let asked = launch.cluster;
            let reason = format!("cluster {asked:?}, .reqnctapercluster is {required:?}");
            return refuse(program, reason);
        }
        _ => launch.cluster,
    };
    let blocks: u64 = cluster.iter().map(|&c| u64::from(c)).product();
    let most = program.max_cluster_rank.unwrap_or(u32::MAX).min(limits.blocks_per_cluster);
    if blocks == 0 || blocks > u64::from(most) {
        let name = &limits.name;
        return refuse(program, format!("cluster {cluster:?}: {name} allows 1 to {most} blocks"));
    }
    if program.explicit_cluster && program.required_cluster.is_none() && blocks == 1 {
        return refuse(program, ".explicitcluster, but the launch names no cluster".to_owned());
    }
    match (0..3).find(|&axis| launch.grid[axis] % cluster[axis] != 0) {
        Some(_) => {
            let grid = launch.grid;
            refuse(program, format!("grid {grid:?} is not a multiple of cluster {cluster:?}"))
        }
        None => Ok(cluster),
    }
}

/// The parameter space: each argument at its parameter's offset.
fn parameters(program: &Program, launch: &Launch) -> Result<Vec<u8>, SimError> {
    if launch.args.len() != program.parameters.len() {
        let (given, wanted) = (launch.args.len(), program.parameters.len());
        let sizes: Vec<u32> = program.parameters.iter().map(|&(_, size)| size).collect();
        let reason = format!("{given} arguments for {wanted} parameters of {sizes:?} bytes");
        return refuse(program, reason);
    }
    let mut bytes = vec![0; program.parameter_bytes as usize];
    for (index, (arg, &(offset, size))) in launch.args.iter().zip(&program.parameters).enumerate() {
        let value = match arg.bytes() {
            Ok(value) => value,
            Err(error) => return refuse(program, format!("argument {index}: {error}")),
        };
        if value.len() != size as usize {
            let given = value.len();
            return refuse(program, format!("argument {index} has {given} bytes, not {size}"));
        }
        bytes[offset as usize..][..value.len()].copy_from_slice(&value);
    }
    Ok(bytes)
}

/// The blocks, or the clusters, to run, in order.
enum Chosen {
    /// Number 0 to this one, exclusive.
    All(u32),
    These(Vec<u32>),
}

impl Chosen {
    fn len(&self) -> usize {
        match self {
            Chosen::All(total) => *total as usize,
            Chosen::These(list) => list.len(),
        }
    }

    fn get(&self, position: usize) -> u32 {
        match self {
            Chosen::All(_) => position as u32,
            Chosen::These(list) => list[position],
        }
    }
}

fn choose_blocks(
    program: &Program,
    blocks: &Blocks,
    grid: [u32; 3],
    total: u32,
) -> Result<Chosen, SimError> {
    match blocks {
        Blocks::All => Ok(Chosen::All(total)),
        Blocks::List(list) => match list.iter().find(|&&block| block >= total) {
            Some(block) => refuse(program, format!("block {block} is outside the grid of {total}")),
            None => Ok(Chosen::These(list.clone())),
        },
        Blocks::Sample { count, seed, partners } => {
            Ok(Chosen::These(sample(grid, total, *count, *seed, partners.as_ref())))
        }
    }
}

/// The clusters that hold the chosen blocks, each once, in the order of their first block.
fn clusters_of(blocks: Chosen, grid: [u32; 3], cluster: [u32; 3]) -> Chosen {
    let size: u32 = cluster.iter().product();
    match blocks {
        blocks if size == 1 => blocks,
        Chosen::All(total) => Chosen::All(total / size),
        Chosen::These(list) => {
            let clusters: [u32; 3] = std::array::from_fn(|axis| grid[axis] / cluster[axis]);
            let of_block = |block: u32| {
                let at = coordinates(block, grid);
                let [x, y, z]: [u32; 3] = std::array::from_fn(|axis| at[axis] / cluster[axis]);
                x + clusters[0] * (y + clusters[1] * z)
            };
            let mut seen = BTreeSet::new();
            let numbers = list.into_iter().map(of_block);
            Chosen::These(numbers.filter(|&number| seen.insert(number)).collect())
        }
    }
}

/// First, last, both ends of each axis, `count` random ones, and all their partners, ascending.
fn sample(
    grid: [u32; 3],
    total: u32,
    count: usize,
    seed: u64,
    partners: Option<&Partners>,
) -> Vec<u32> {
    let linear = |[x, y, z]: [u32; 3]| x + grid[0] * (y + grid[1] * z);
    let mut chosen = BTreeSet::new();
    for corner in 0..8u32 {
        let at =
            std::array::from_fn(|axis| if corner >> axis & 1 == 1 { grid[axis] - 1 } else { 0 });
        chosen.insert(linear(at));
    }
    let mut state = seed;
    for _ in 0..count {
        chosen.insert(((u128::from(split_mix(&mut state)) * u128::from(total)) >> 64) as u32);
    }
    if let Some(partners) = partners {
        let drawn: Vec<u32> = chosen.iter().copied().collect();
        for block in drawn {
            chosen.extend(partners(block).into_iter().filter(|&b| b < total));
        }
    }
    chosen.into_iter().collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014): a small generator with full period.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Distributes clusters over threads; the first error stops the rest.
///
/// Workers draw from one queue, so that a block which waits for a later one always finds a worker
/// that gets to it.
fn run_units(context: &RunContext<'_>, units: &Chosen, threads: usize) -> Result<Tally, SimError> {
    let residents = &Residents::new(units.len(), resident_clusters(context));
    if threads == 1 || units.len() <= 1 {
        return drain(context, units, residents);
    }
    let parallel = || {
        let workers = rayon::current_num_threads().min(units.len());
        (0..workers).into_par_iter().map(|_| drain(context, units, residents)).try_reduce(
            || Tally::new(context),
            |mut a, b| {
                a.merge(b);
                Ok(a)
            },
        )
    };
    if threads == 0 {
        return parallel();
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| SimError::Threads(error.to_string()))?
        .install(parallel)
}

/// Clusters that fit the device at the same time.
fn resident_clusters(context: &RunContext<'_>) -> u32 {
    let limits = &context.options.limits;
    let registers = context.options.registers.or(context.program.max_registers);
    let per_sm = limits.blocks_per_sm(context.threads(), context.shared_bytes(), registers);
    (u64::from(per_sm) * u64::from(limits.sm_count) / u64::from(context.cluster_blocks())) as u32
}

/// Runs clusters until none is left to start.
fn drain(
    context: &RunContext<'_>,
    units: &Chosen,
    residents: &Residents,
) -> Result<Tally, SimError> {
    let mut worker = Worker::new(context, residents);
    match worker.run(|position| units.get(position)) {
        Ok(()) => Ok(worker.into_tally()),
        Err(error) => {
            residents.stop();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_holds_corners_draws_and_partners_within_the_grid() {
        let partners: Partners = Arc::new(|block| vec![block ^ 1, u32::MAX]);
        let blocks = sample([10, 4, 1], 40, 3, 7, Some(&partners));
        for corner in [0, 9, 30, 39] {
            assert!(blocks.contains(&corner) && blocks.contains(&(corner ^ 1)));
        }
        assert!(blocks.iter().all(|&b| b < 40) && blocks.is_sorted());
        assert_eq!(blocks, sample([10, 4, 1], 40, 3, 7, Some(&partners)));
    }

    #[test]
    fn chosen_blocks_become_their_clusters_in_order_and_once() {
        let chosen = Chosen::These(vec![13, 0, 7, 1]);
        match clusters_of(chosen, [4, 4, 1], [2, 2, 1]) {
            Chosen::These(list) => assert_eq!(list, [2, 0, 1]),
            Chosen::All(_) => panic!("a list stays a list"),
        }
        assert_eq!(clusters_of(Chosen::All(16), [4, 4, 1], [2, 2, 1]).len(), 4);
    }
}
