//! The kernels that are measured, with their launches. What buffers hold does not matter for speed.

use qtune_sim::{Access, Arg, BufferId, Launch, Memory, Module, SimError};

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
}

/// Buffers and arguments as they are collected.
#[derive(Default)]
struct Arguments {
    memory: Memory,
    args: Vec<Arg>,
    bytes: usize,
}

impl Arguments {
    fn buffer(&mut self, name: &str, bytes: usize, access: Access) -> Result<BufferId, SimError> {
        let id = self.memory.alloc(name, bytes, access)?;
        self.args.push(Arg::Buffer { id, offset: 0 });
        self.bytes += bytes;
        Ok(id)
    }

    /// A read-only buffer of ordinary values.
    fn input(&mut self, name: &str, bytes: usize) -> Result<(), SimError> {
        let id = self.buffer(name, bytes, Access::ReadOnly)?;
        self.memory.write(id, 0, &vec![0x2C; bytes])
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

    /// The kernel of `text` with these arguments, in blocks of 128 threads.
    fn kernel(
        self,
        name: &'static str,
        text: &str,
        (grid, dynamic_shared_bytes): ([u32; 3], u32),
        [m, n, k]: [usize; 3],
    ) -> Result<Kernel, SimError> {
        let module = Module::parse(text)?;
        let entry = module.entries().next().unwrap_or_default().to_owned();
        let (block, cluster) = ([128, 1, 1], [1, 1, 1]);
        let launch = Launch { grid, block, cluster, dynamic_shared_bytes, args: self.args };
        Ok(Kernel {
            name,
            module,
            entry,
            launch,
            memory: self.memory,
            multiply_accumulates: (m * n * k) as u64,
            buffer_bytes: self.bytes,
        })
    }
}

/// Every kernel that is measured.
pub fn all() -> Result<Vec<Kernel>, SimError> {
    Ok(vec![gemv()?, mma()?, generated_gemv()?, generated_mma()?])
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
    let text = include_str!("../../tests/fixtures/gemv.sm90a.ptx");
    arguments.kernel("gemv", text, ([n as u32 / 4, 1, 1], 0), [1, n, k])
}

/// A product of two f16 matrices with `ldmatrix` and `mma`.
fn mma() -> Result<Kernel, SimError> {
    let (m, n, k) = (64, 1024, 2048);
    let mut arguments = Arguments::default();
    arguments.input("a", m * k * 2)?;
    arguments.input("b", n * k * 2)?;
    arguments.output("c", m * n * 4)?;
    arguments.sizes(&[m, n, k]);
    let text = include_str!("../../tests/fixtures/mma.sm90a.ptx");
    let shared = 3 * 2 * 64 * 64;
    arguments.kernel("mma", text, ([n as u32 / 64, 1, 1], shared), [m, n, k])
}

/// The first arguments of a generated kernel: AWQ weights with quant groups of 128.
fn generated([m, n, k]: [usize; 3]) -> Result<Arguments, SimError> {
    let mut arguments = Arguments::default();
    arguments.input("weights", n * k / 2)?;
    arguments.input("params", n * k / 128 * 4)?;
    arguments.input("activations", m * k * 2)?;
    arguments.output("output", m * n * 2)?;
    Ok(arguments)
}

/// The generator's default schedule for one token.
fn generated_gemv() -> Result<Kernel, SimError> {
    let shape = [1, 4096, 4096];
    let mut arguments = generated(shape)?;
    arguments.sizes(&shape[..1]);
    let text = include_str!("../../tests/fixtures/qtune_gemv.sm90a.ptx");
    arguments.kernel("generated gemv", text, ([1024, 1, 1], 8352), shape)
}

/// The generator's default schedule for 64 tokens: tiles of 64 x 64, K split in five.
fn generated_mma() -> Result<Kernel, SimError> {
    let shape @ [m, n, _] = [64, 4096, 4096];
    let mut arguments = generated(shape)?;
    arguments.output("partials", 5 * m * n * 4)?;
    arguments.zeros("counters", n / 64 * 4)?;
    arguments.sizes(&shape[..1]);
    let text = include_str!("../../tests/fixtures/qtune_mma.sm90a.ptx");
    arguments.kernel("generated mma", text, ([64, 1, 5], 82_944), shape)
}
