//! The kernels that are measured, with their launches. What buffers hold does not matter for speed.

use qtune_sim::{
    Access, Arg, BufferId, Launch, Memory, Module, OutOfBoundsFill, SimError, Swizzle,
    TensorMapSpec, TensorType,
};

/// Least speed of the families on one thread with all checks, in multiply-accumulates per second.
const GEMV: f64 = 0.15e9;
const MMA: f64 = 2.5e9;

/// PTX text of a fixture.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../tests/fixtures/", $name, ".sm90a.ptx"))
    };
}

/// A kernel with everything it needs to run.
pub struct Kernel {
    pub name: &'static str,
    pub module: Module,
    pub entry: String,
    pub launch: Launch,
    pub memory: Memory,
    pub multiply_accumulates: u64,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
    /// Multiply-accumulates per second that one thread shall reach with all checks.
    pub target: f64,
}

/// How a kernel is launched, and what is asked of the simulator.
struct Shape {
    grid: [u32; 3],
    threads: u32,
    dynamic_shared_bytes: u32,
    /// M, N and K.
    size: [usize; 3],
    target: f64,
}

/// Buffers and arguments as they are collected.
#[derive(Default)]
struct Arguments {
    memory: Memory,
    args: Vec<Arg>,
    bytes: usize,
}

impl Arguments {
    fn alloc(&mut self, name: &str, bytes: usize, access: Access) -> Result<BufferId, SimError> {
        self.bytes += bytes;
        self.memory.alloc(name, bytes, access)
    }

    fn buffer(&mut self, name: &str, bytes: usize, access: Access) -> Result<BufferId, SimError> {
        let id = self.alloc(name, bytes, access)?;
        self.args.push(Arg::Buffer { id, offset: 0 });
        Ok(id)
    }

    /// A read-only buffer of ordinary values.
    fn input(&mut self, name: &str, bytes: usize) -> Result<(), SimError> {
        let id = self.buffer(name, bytes, Access::ReadOnly)?;
        self.memory.write(id, 0, &vec![0x2C; bytes])
    }

    /// A read-only f16 matrix that the kernel copies in boxes of 64 columns and all its rows.
    fn tensor_map(&mut self, name: &str, [columns, rows]: [usize; 2]) -> Result<(), SimError> {
        let bytes = columns * rows * 2;
        let id = self.alloc(name, bytes, Access::ReadOnly)?;
        self.memory.write(id, 0, &vec![0x2C; bytes])?;
        self.args.push(Arg::TensorMap(TensorMapSpec {
            buffer: id,
            offset: 0,
            dtype: TensorType::F16,
            dims: vec![columns as u64, rows as u64],
            strides_bytes: vec![columns as u64 * 2],
            box_dims: vec![64, rows as u32],
            element_strides: vec![1, 1],
            swizzle: Swizzle::B128,
            fill: OutOfBoundsFill::Zero,
        }));
        Ok(())
    }

    /// A buffer that the kernel writes before it reads.
    fn output(&mut self, name: &str, bytes: usize) -> Result<(), SimError> {
        self.buffer(name, bytes, Access::ReadWrite).map(drop)
    }

    /// A buffer of zeros that the kernel reads and writes.
    fn zeros(&mut self, name: &str, bytes: usize) -> Result<(), SimError> {
        let id = self.buffer(name, bytes, Access::ReadWrite)?;
        self.memory.write(id, 0, &vec![0; bytes])
    }

    fn sizes(&mut self, sizes: &[usize]) {
        self.args.extend(sizes.iter().map(|&size| Arg::I32(size as i32)));
    }

    /// The kernel of `text` with these arguments.
    fn kernel(self, name: &'static str, text: &str, shape: Shape) -> Result<Kernel, SimError> {
        let module = Module::parse(text)?;
        let entry = module.entries().next().unwrap_or_default().to_owned();
        let Shape { grid, threads, dynamic_shared_bytes, size, target } = shape;
        let (block, cluster) = ([threads, 1, 1], [1, 1, 1]);
        let launch = Launch { grid, block, cluster, dynamic_shared_bytes, args: self.args };
        Ok(Kernel {
            name,
            module,
            entry,
            launch,
            memory: self.memory,
            multiply_accumulates: size.iter().product::<usize>() as u64,
            buffer_bytes: self.bytes,
            target,
        })
    }
}

/// Every kernel that is measured.
pub fn all() -> Result<Vec<Kernel>, SimError> {
    Ok(vec![
        gemv()?,
        mma()?,
        generated_gemv()?,
        generated_mma("generated mma m8", fixture!("qtune_mma_m8"), 8, ([64, 1, 4], 51_200))?,
        generated_mma("generated mma m16", fixture!("qtune_mma_m16"), 16, ([64, 1, 4], 67_584))?,
        generated_mma("generated mma m32", fixture!("qtune_mma_m32"), 32, ([32, 1, 8], 50_688))?,
        generated_mma("generated mma m64", fixture!("qtune_mma_m64"), 64, ([64, 1, 5], 82_944))?,
        generated_wgmma("generated wgmma m64", fixture!("qtune_wgmma_m64"), 64, 202_848)?,
        generated_wgmma("generated wgmma m128", fixture!("qtune_wgmma_m128"), 128, 200_768)?,
    ])
}

/// A product of a 4-bit matrix with a vector.
fn gemv() -> Result<Kernel, SimError> {
    let (n, k) = (1024, 4096);
    let mut arguments = Arguments::default();
    arguments.input("weights", n * k / 2)?;
    arguments.input("scales", n * k / 64)?;
    arguments.input("x", k * 2)?;
    arguments.output("y", n * 4)?;
    arguments.sizes(&[n, k]);
    let shape = Shape {
        grid: [n as u32 / 4, 1, 1],
        threads: 128,
        dynamic_shared_bytes: 0,
        size: [1, n, k],
        target: GEMV,
    };
    arguments.kernel("gemv", fixture!("gemv"), shape)
}

/// A product of two f16 matrices with `ldmatrix` and `mma`.
fn mma() -> Result<Kernel, SimError> {
    let (m, n, k) = (64, 1024, 2048);
    let mut arguments = Arguments::default();
    arguments.input("a", m * k * 2)?;
    arguments.input("b", n * k * 2)?;
    arguments.output("c", m * n * 4)?;
    arguments.sizes(&[m, n, k]);
    let shape = Shape {
        grid: [n as u32 / 64, 1, 1],
        threads: 128,
        dynamic_shared_bytes: 3 * 2 * 64 * 64,
        size: [m, n, k],
        target: MMA,
    };
    arguments.kernel("mma", fixture!("mma"), shape)
}

/// N and K of the generated kernels.
const SQUARE: usize = 4096;

/// The weights of a generated kernel: AWQ with quant groups of 128.
fn generated_weights() -> Result<Arguments, SimError> {
    let mut arguments = Arguments::default();
    arguments.input("weights", SQUARE * SQUARE / 2)?;
    arguments.input("params", SQUARE * SQUARE / 128 * 4)?;
    Ok(arguments)
}

/// The generator's default schedule for one token.
fn generated_gemv() -> Result<Kernel, SimError> {
    let mut arguments = generated_weights()?;
    arguments.input("activations", SQUARE * 2)?;
    arguments.output("output", SQUARE * 2)?;
    arguments.sizes(&[1]);
    let shape = Shape {
        grid: [1024, 1, 1],
        threads: 128,
        dynamic_shared_bytes: 8352,
        size: [1, SQUARE, SQUARE],
        target: GEMV,
    };
    arguments.kernel("generated gemv", fixture!("qtune_gemv"), shape)
}

/// The output of a kernel that splits K, and what its blocks share.
fn split_output(arguments: &mut Arguments, m: usize, splits: u32) -> Result<(), SimError> {
    arguments.output("output", m * SQUARE * 2)?;
    arguments.output("partials", splits as usize * m * SQUARE * 4)?;
    arguments.zeros("counters", SQUARE / 64 * 4)?;
    arguments.sizes(&[m]);
    Ok(())
}

/// A schedule of the `mma` family.
fn generated_mma(
    name: &'static str,
    text: &str,
    m: usize,
    (grid, dynamic_shared_bytes): ([u32; 3], u32),
) -> Result<Kernel, SimError> {
    let mut arguments = generated_weights()?;
    arguments.input("activations", m * SQUARE * 2)?;
    split_output(&mut arguments, m, grid[2])?;
    let size = [m, SQUARE, SQUARE];
    let shape = Shape { grid, threads: 128, dynamic_shared_bytes, size, target: MMA };
    arguments.kernel(name, text, shape)
}

/// A schedule of the `wgmma` family: tiles of 256 weight rows, K split in eight, two groups of
/// warps that multiply and one that copies.
fn generated_wgmma(
    name: &'static str,
    text: &str,
    m: usize,
    dynamic_shared_bytes: u32,
) -> Result<Kernel, SimError> {
    let mut arguments = generated_weights()?;
    arguments.tensor_map("activations", [SQUARE, m])?;
    let grid = [SQUARE as u32 / 256, 1, 8];
    split_output(&mut arguments, m, grid[2])?;
    let size = [m, SQUARE, SQUARE];
    let shape = Shape { grid, threads: 384, dynamic_shared_bytes, size, target: MMA };
    arguments.kernel(name, text, shape)
}
