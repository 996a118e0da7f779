//! The kernels that defects are planted into: their PTX, launches and data.

use super::support::{at, bytes, f16, input, launch, ptx, Random};
use qtune_sim::{
    Access, Arg, BufferId, Memory, OutOfBoundsFill, Report, RunOptions, SimError, Swizzle,
    TensorMapSpec, TensorType,
};

/// A kernel of a family of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// Hand-written 4-bit matrix times vector: streaming loads, warp shuffles.
    Gemv,
    /// Hand-written tensor-core product: a ring of `cp.async` stages, `ldmatrix`.
    Mma,
    /// Column sums with K split over blocks; the last block to arrive adds up.
    SplitK,
    /// Row sums in stream-K manner: flags with release and acquire, a lock.
    StreamK,
    /// Prefix sums with decoupled look-back; exchange within warps; local memory.
    Scan,
    /// Tiles handed from warp to warp at named barriers and transposed lane by lane.
    Exchange,
    /// A ring of stages filled by bulk copies, with mbarriers both ways.
    Pipeline,
    /// Tiles fetched and stored through tensor maps, transposed in between.
    Tiles,
    /// Two blocks of a cluster read and write each other's shared memory.
    Cluster,
    /// Four blocks of a cluster send each other words and raise mbarriers.
    Gather,
    /// `wgmma` with weights decoded in registers.
    Wgmma,
    /// `wgmma` with both operands in shared memory, one batch in flight.
    Warpgroup,
    /// The generator's matrix times vector with staged activations and split K.
    GeneratedGemv,
    /// The generator's tensor-core product with a ring of stages, K over warps and split K.
    GeneratedMma,
    /// The generator's `wgmma`: one warp keeps a ring of stages full by bulk and tensor copies.
    GeneratedWgmma,
    /// The same with two consumer warpgroups and a whole warpgroup as producer.
    GeneratedGroup,
}

use Kernel::*;

impl Kernel {
    pub const ALL: [Kernel; 16] = [
        Gemv,
        Mma,
        SplitK,
        StreamK,
        Scan,
        Exchange,
        Pipeline,
        Tiles,
        Cluster,
        Gather,
        Wgmma,
        Warpgroup,
        GeneratedGemv,
        GeneratedMma,
        GeneratedWgmma,
        GeneratedGroup,
    ];

    /// Targets that the kernel is compiled for.
    pub fn targets(self) -> &'static [&'static str] {
        match self {
            Pipeline | Tiles | Cluster | Gather | Wgmma | Warpgroup | GeneratedWgmma
            | GeneratedGroup => &["sm90a"],
            _ => &super::support::TARGETS,
        }
    }

    /// PTX of the kernel for the target that edits are written for.
    pub fn ptx(self) -> String {
        ptx(self.file(), self.targets()[0])
    }

    /// Name of the fixture.
    pub fn file(self) -> &'static str {
        match self {
            Gemv => "gemv",
            Mma => "mma",
            SplitK => "splitk",
            StreamK => "streamk",
            Scan => "scan",
            Exchange => "exchange",
            Pipeline => "pipeline",
            Tiles => "tiles",
            Cluster => "cluster",
            Gather => "gather",
            Wgmma => "wgmma",
            Warpgroup => "warpgroup",
            GeneratedGemv => "generated_gemv",
            GeneratedMma => "generated_mma",
            GeneratedWgmma => "generated_wgmma",
            GeneratedGroup => "generated_producer_group",
        }
    }

    /// Runs a text of the kernel on small shapes with ragged edges.
    pub fn run(self, text: &str, options: &RunOptions) -> Result<Report, SimError> {
        let mut data = Data { memory: Memory::new(), random: Random::new(11), args: Vec::new() };
        let shape = match self {
            Gemv => data.gemv(),
            Mma => data.mma(),
            SplitK => data.split_k(),
            StreamK => data.stream_k(),
            Scan => data.scan(),
            Exchange => data.exchange(),
            Pipeline => data.pipeline(),
            Tiles => data.tiles(),
            Cluster => data.cluster(),
            Gather => data.gather(),
            Wgmma => data.wgmma(),
            Warpgroup => data.warpgroup(),
            GeneratedGemv => data.generated_gemv(),
            GeneratedMma => data.generated_mma(),
            GeneratedWgmma => data.generated_wgmma(128, 160, 25632),
            GeneratedGroup => data.generated_wgmma(256, 384, 43040),
        };
        launch(text, shape, data.args, &mut data.memory, options)
    }
}

/// Grid, block and dynamic shared bytes.
type Shape = ([u32; 3], [u32; 3], u32);

/// Arguments in the making.
struct Data {
    memory: Memory,
    random: Random,
    args: Vec<Arg>,
}

impl Data {
    /// A read-only buffer of small f16 values.
    fn halves(&mut self, name: &str, count: usize) {
        let values: Vec<f32> = (0..count).map(|_| self.random.small()).collect();
        self.input(name, &bytes(&values, |x| f16(x).to_le_bytes()));
    }

    /// A read-only buffer of small f32 values.
    fn floats(&mut self, name: &str, count: usize) {
        let values: Vec<f32> = (0..count).map(|_| self.random.small()).collect();
        self.input(name, &bytes(&values, f32::to_le_bytes));
    }

    /// A read-only buffer of arbitrary words.
    fn words(&mut self, name: &str, count: usize) {
        let values: Vec<u32> = (0..count).map(|_| self.random.next()).collect();
        self.input(name, &bytes(&values, u32::to_le_bytes));
    }

    fn input(&mut self, name: &str, contents: &[u8]) {
        let id = input(&mut self.memory, name, contents);
        self.args.push(at(id));
    }

    /// An undefined buffer to write to.
    fn output(&mut self, name: &str, size: usize) -> BufferId {
        let id = self.memory.alloc(name, size, Access::ReadWrite).expect("a buffer");
        self.args.push(at(id));
        id
    }

    /// A buffer of zeros to write to.
    fn zeros(&mut self, name: &str, size: usize) {
        let id = self.output(name, size);
        self.memory.write(id, 0, &vec![0; size]).expect("inside the buffer");
    }

    fn integers(&mut self, values: &[i32]) {
        self.args.extend(values.iter().map(|&value| Arg::I32(value)));
    }

    fn gemv(&mut self) -> Shape {
        let (n, k) = (10, 1024);
        self.words("weights", n * k / 8);
        self.halves("scales", n * k / 128);
        self.halves("x", k);
        self.output("y", n * 4);
        self.integers(&[n as i32, k as i32]);
        ([3, 1, 1], [128, 1, 1], 0)
    }

    fn mma(&mut self) -> Shape {
        let (m, n, k) = (60, 128, 256);
        self.halves("a", m * k);
        self.halves("b", n * k);
        self.output("c", m * n * 4);
        self.integers(&[m as i32, n as i32, k as i32]);
        ([2, 1, 1], [128, 1, 1], 3 * 2 * 64 * 64)
    }

    fn split_k(&mut self) -> Shape {
        let (n, k, splits) = (100, 90, 5);
        self.floats("a", n * k);
        self.output("workspace", n * splits * 4);
        self.zeros("arrivals", 8);
        self.output("out", n * 4);
        self.integers(&[n as i32, k as i32]);
        ([2, splits as u32, 1], [64, 1, 1], 0)
    }

    fn stream_k(&mut self) -> Shape {
        // Seven rows of three chunks over five blocks.
        let (rows, chunks, blocks) = (7, 3, 5);
        self.floats("a", rows * chunks * 64);
        self.output("partials", blocks * 4);
        self.zeros("flags", blocks * 4);
        self.output("out", rows * 4);
        self.zeros("total", 4);
        self.zeros("lock", 4);
        self.integers(&[rows as i32, chunks as i32]);
        ([blocks as u32, 1, 1], [64, 1, 1], 0)
    }

    fn scan(&mut self) -> Shape {
        let blocks = 4;
        self.words("values", blocks * 64);
        self.output("prefix", blocks * 4);
        self.zeros("flags", blocks * 4);
        self.output("out", blocks * 64 * 4);
        self.zeros("histogram", 4);
        self.zeros("lock", 4);
        ([blocks as u32, 1, 1], [64, 1, 1], 0)
    }

    fn exchange(&mut self) -> Shape {
        let tiles = 3;
        let values: Vec<f32> = (0..tiles * 1024).map(|_| self.random.small() + 2.0).collect();
        self.input("in", &bytes(&values, f32::to_le_bytes));
        self.output("out", tiles * 1024 * 4);
        self.integers(&[tiles as i32]);
        ([2, 1, 1], [64, 1, 1], 0)
    }

    fn pipeline(&mut self) -> Shape {
        let (blocks, chunks) = (2, 5);
        self.floats("in", blocks * chunks * 256);
        self.output("out", blocks * 256 * 4);
        self.integers(&[chunks as i32]);
        ([blocks as u32, 1, 1], [96, 1, 1], 0)
    }

    fn tiles(&mut self) -> Shape {
        // 50 rows and 100 columns: both in ragged tiles.
        let (rows, columns) = (52, 100);
        self.floats("in", rows * columns);
        self.output("out", rows * columns * 4);
        let buffers = std::mem::take(&mut self.args);
        for (buffer, [inner, outer]) in buffers.into_iter().zip([[columns, rows], [rows, columns]])
        {
            let Arg::Buffer { id, .. } = buffer else { unreachable!("both are buffers") };
            self.args.push(Arg::TensorMap(tensor_map(id, inner as u64, outer as u64)));
        }
        self.integers(&[columns.div_ceil(32) as i32]);
        ([rows.div_ceil(32) as u32, 1, 1], [64, 1, 1], 0)
    }

    fn cluster(&mut self) -> Shape {
        self.floats("in", 4 * 64);
        self.output("out", 4 * 64 * 4);
        self.output("totals", 2 * 4);
        ([4, 1, 1], [64, 1, 1], 0)
    }

    fn gather(&mut self) -> Shape {
        self.words("in", 8 * 64);
        self.output("out", 8 * 64 * 4);
        ([8, 1, 1], [64, 1, 1], 0)
    }

    fn wgmma(&mut self) -> Shape {
        let (m, n, k) = (64, 128, 192);
        self.words("weights", m * k / 8);
        self.halves("x", n * k);
        self.output("c", m * n * 4);
        self.integers(&[m as i32, k as i32]);
        ([1, 1, 1], [128, 1, 1], 2 * 128 * 128)
    }

    fn warpgroup(&mut self) -> Shape {
        let steps = 3;
        self.halves("a", 64 * steps * 64);
        self.halves("b", 16 * steps * 64);
        self.output("c", 64 * 16 * 4);
        self.integers(&[steps as i32]);
        ([1, 1, 1], [128, 1, 1], 0)
    }

    fn generated_gemv(&mut self) -> Shape {
        let (n, k) = (16, 4096);
        self.words("weights", n * k / 8);
        self.halves("params", n * k / 128 * 2);
        self.halves("x", k);
        self.output("out", n * 2);
        self.output("partials", n * 2 * 4);
        self.zeros("counters", n * 4);
        self.args.push(Arg::U32(1));
        ([16, 1, 2], [64, 1, 1], 4224 + 16)
    }

    fn generated_mma(&mut self) -> Shape {
        let (m, n, k) = (13, 64, 1024);
        self.words("weights", n * k / 8);
        self.halves("params", n * k / 128 * 2);
        self.halves("x", m * k);
        self.output("out", m * n * 2);
        self.output("partials", 2 * 1024 * 4);
        self.zeros("counters", 4);
        self.args.push(Arg::U32(m as u32));
        ([1, 1, 2], [64, 1, 1], 24576 + 3 * 256)
    }

    /// `n` rows in one tile, K in two splits of four steps each.
    fn generated_wgmma(&mut self, n: usize, threads: u32, shared: u32) -> Shape {
        let (m, k, tokens) = (13, 1024, 16);
        self.words("weights", n * k / 8);
        self.halves("params", n * k / 128 * 2);
        self.halves("x", m * k);
        let Some(Arg::Buffer { id, .. }) = self.args.pop() else { unreachable!("just pushed") };
        self.args.push(Arg::TensorMap(TensorMapSpec {
            dtype: TensorType::F16,
            strides_bytes: vec![k as u64 * 2],
            box_dims: vec![64, tokens],
            swizzle: Swizzle::B128,
            ..tensor_map(id, k as u64, m as u64)
        }));
        self.output("out", m * n * 2);
        self.output("partials", 2 * n * tokens as usize * 4);
        self.zeros("counters", 4);
        self.args.push(Arg::I32(m as i32));
        ([1, 1, 2], [threads, 1, 1], shared)
    }
}

/// Tiles of 32 x 32 floats of a dense tensor of two dimensions.
fn tensor_map(buffer: BufferId, inner: u64, outer: u64) -> TensorMapSpec {
    TensorMapSpec {
        buffer,
        offset: 0,
        dtype: TensorType::F32,
        dims: vec![inner, outer],
        strides_bytes: vec![inner * 4],
        box_dims: vec![32, 32],
        element_strides: vec![1, 1],
        swizzle: Swizzle::None,
        fill: OutOfBoundsFill::Zero,
    }
}
