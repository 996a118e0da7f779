//! Fixtures and data shared by the integration tests.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod formats;
pub mod recorder;
pub mod registers;
pub mod schedules;
pub mod warpgroup;

use qtune_sim::{run, Access, Arg, BufferId, Launch, Memory, Report, RunOptions, SimError};

/// Every PTX fixture by kernel name and target.
pub const TARGETS: [&str; 3] = ["sm80", "sm90a", "sm120"];

/// Text of a PTX fixture.
pub fn ptx(name: &str, target: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}.{target}.ptx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A small deterministic generator of 32-bit values.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// A multiple of 1/64 in [-1, 1): sums of a few thousand products are exact in f32.
    pub fn small(&mut self) -> f32 {
        (self.next() % 128) as f32 / 64.0 - 1.0
    }
}

/// Bits of an f16.
pub fn f16(value: f32) -> u16 {
    half::f16::from_f32(value).to_bits()
}

/// Little-endian bytes of a slice.
pub fn bytes<T: Copy, const N: usize>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| to(v)).collect()
}

/// Allocates a read-only buffer with contents.
pub fn input(memory: &mut Memory, name: &str, contents: &[u8]) -> BufferId {
    let id = memory.alloc(name, contents.len(), Access::ReadOnly).unwrap();
    memory.write(id, 0, contents).unwrap();
    id
}

/// Reads a buffer as f32.
pub fn floats(memory: &Memory, id: BufferId) -> Vec<f32> {
    let bytes = memory.read(id, 0, memory.size(id)).unwrap();
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

/// A buffer argument.
pub fn at(id: BufferId) -> Arg {
    Arg::Buffer { id, offset: 0 }
}

/// Launches the first kernel of a PTX text.
pub fn launch(
    text: &str,
    (grid, block, dynamic_shared_bytes): ([u32; 3], [u32; 3], u32),
    args: Vec<Arg>,
    memory: &mut Memory,
    options: &RunOptions,
) -> Result<Report, SimError> {
    let module = recorder::parse(text)?;
    let entry = module.entries().next().expect("a kernel").to_owned();
    let launch = Launch { grid, block, cluster: [1, 1, 1], dynamic_shared_bytes, args };
    run(&module, &entry, &launch, memory, options)
}

/// Wraps instructions into a kernel with one pointer parameter `p` (in `%rd1`) and registers
/// `%r %rd %rs %f %p` of 64 each.
pub fn kernel(body: &str) -> String {
    // No target has everything: block scales and small floats of `mma` are those of sm_120a.
    let target = if body.contains("kind::") { "sm_120a" } else { "sm_100a" };
    format!(
        ".version 8.7\n.target {target}\n.address_size 64\n\
         .visible .entry k(.param .u64 p)\n{{\n\
         .reg .pred %p<64>; .reg .b16 %rs<64>; .reg .b32 %r<64>; .reg .f32 %f<64>;\n\
         .reg .b64 %rd<64>; .reg .f64 %fd<64>;\n\
         ld.param.u64 %rd1, [p];\n{body}\nret;\n}}\n"
    )
}
