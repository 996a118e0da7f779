//! One warp with three words per lane as input and two as output.

use qtune_sim::{Access, Memory, RunOptions};

use crate::support::{at, bytes, f16, kernel, launch, Random};

pub type Lanes = [u32; 32];

/// Bytes of the test buffer.
const BUFFER: usize = 8192;
/// Where results start.
const RESULTS: usize = 4096;

/// Runs `body` on one warp with inputs `a`, `b`, `c` in `%r2 %r3 %r4`, and with `%r1` the lane;
/// returns the values that `body` leaves in `%r5 %r6`.
pub fn run(body: &str, inputs: [&Lanes; 3]) -> [Lanes; 2] {
    run_block(body, inputs, 32, 0)
}

pub fn run_block(body: &str, inputs: [&Lanes; 3], threads: u32, shared: u32) -> [Lanes; 2] {
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n\
         ld.global.u32 %r2, [%rd3]; ld.global.u32 %r3, [%rd3+128];\n\
         ld.global.u32 %r4, [%rd3+256]; mov.u32 %r5, 0; mov.u32 %r6, 0;\n\
         {body}\n\
         st.global.u32 [%rd3+4096], %r5; st.global.u32 [%rd3+6144], %r6;"
    ));
    let mut memory = Memory::new();
    let p = memory.alloc("p", BUFFER, Access::ReadWrite).unwrap();
    memory.write(p, 0, &vec![0; BUFFER]).unwrap();
    for (i, values) in inputs.iter().enumerate() {
        memory.write(p, 128 * i, &bytes(*values, u32::to_le_bytes)).unwrap();
    }
    let shape = ([1, 1, 1], [threads, 1, 1], shared);
    let report = launch(&text, shape, vec![at(p)], &mut memory, &RunOptions::default())
        .unwrap_or_else(|error| panic!("{body}: {error}"));
    assert!(report.findings.is_empty(), "{body}: {:#?}", report.findings);
    [RESULTS, RESULTS + 2048].map(|offset| {
        let bytes = memory.read(p, offset, 128).unwrap();
        std::array::from_fn(|l| u32::from_le_bytes(bytes[4 * l..4 * l + 4].try_into().unwrap()))
    })
}

/// Random bits with a few special values first.
pub fn bits(seed: u64, special: &[u32]) -> Lanes {
    let mut random = Random::new(seed);
    std::array::from_fn(|lane| match special.get(lane) {
        Some(&value) => value,
        None => random.next() << 1 ^ random.next(),
    })
}

pub fn integers(seed: u64) -> Lanes {
    bits(seed, &[0, 1, u32::MAX, 0x8000_0000, 0x7FFF_FFFF, 0xFFFF, 0x8000, 31, 32])
}

pub fn floats(seed: u64) -> Lanes {
    let mut random = Random::new(seed);
    let special = [0.0, -0.0, 1.0, -1.5, f32::INFINITY, f32::MIN_POSITIVE / 4.0, 3e38, f32::NAN];
    std::array::from_fn(|l| match special.get(l) {
        Some(value) => value.to_bits(),
        None => (random.small() * 1e3).to_bits(),
    })
}

/// Equal as f32, any NaN matching any other.
pub fn assert_floats(found: &Lanes, expected: impl Fn(usize) -> f32, what: &str) {
    for (lane, &bits) in found.iter().enumerate() {
        let (found, expected) = (f32::from_bits(bits), expected(lane));
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{what}, lane {lane}: {found:e}, expected {expected:e}");
    }
}

/// Pairs of f16 of moderate size, so that f64 arithmetic is exact.
pub fn halves(seed: u64) -> Lanes {
    let mut random = Random::new(seed);
    std::array::from_fn(|_| {
        u32::from(f16(random.small() * 30.0)) | u32::from(f16(random.small() * 0.01)) << 16
    })
}
