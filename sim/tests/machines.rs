//! The interpreter as compiled for the CPU's vector extensions and for any CPU: same bits.

mod support;

use qtune_sim::{Access, Arg, Memory, RunOptions};
use support::{at, bytes, floats, input, kernel, launch, ptx, Random};

/// Input registers `%r10` to `%r19`, output registers `%r40` to `%r43`.
const INPUTS: usize = 10;
const OUTPUTS: usize = 4;

/// Instructions on which vector code and scalar code could differ.
const BODIES: [&str; 16] = [
    "fma.rn.f16x2 %r40, %r10, %r11, %r12;",
    "fma.rn.bf16x2 %r40, %r10, %r11, %r12;",
    "add.f16x2 %r40, %r10, %r11; sub.f16x2 %r41, %r10, %r11; mul.f16x2 %r42, %r10, %r11;",
    "mov.b32 %f1, %r10; mov.b32 %f2, %r11; mov.b32 %f3, %r12; fma.rn.f32 %f4, %f1, %f2, %f3;\n\
     mov.b32 %r40, %f4;",
    "mov.b32 %f1, %r10; mov.b32 %f2, %r11; add.f32 %f4, %f1, %f2; mov.b32 %r40, %f4;\n\
     mul.f32 %f5, %f1, %f2; mov.b32 %r41, %f5; sub.f32 %f6, %f1, %f2; mov.b32 %r42, %f6;",
    "mov.b32 {%rs1, %rs2}, %r10; cvt.f32.f16 %f1, %rs1; mov.b32 %r40, %f1;",
    "mov.b32 %f1, %r10; cvt.rn.f16.f32 %rs1, %f1; mov.b32 %r40, {%rs1, %rs1};",
    "mov.b32 %f1, %r10; mov.b32 %f2, %r11; cvt.rn.f16x2.f32 %r40, %f1, %f2;\n\
     cvt.rn.bf16x2.f32 %r41, %f1, %f2;",
    "lop3.b32 %r40, %r10, %r11, %r12, 0xEA; lop3.b32 %r41, %r10, %r11, %r12, 0x3B;",
    "and.b32 %r1, %r11, 63; shl.b32 %r40, %r10, %r1; shr.u32 %r41, %r10, %r1; shr.s32 %r42, %r10, %r1;",
    "mad.lo.u32 %r40, %r10, %r11, %r12; mul.wide.s32 %rd5, %r10, %r11; mov.b64 {%r41, %r42}, %rd5;",
    "min.s32 %r40, %r10, %r11; max.u32 %r41, %r10, %r11; setp.lt.s32 %p1, %r10, %r11;\n\
     selp.b32 %r42, %r12, %r13, %p1;",
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4},\n\
     {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f5, %f6, %f7, %f8};",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4},\n\
     {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f5, %f6, %f7, %f8};",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4},\n\
     {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f5, %f6, %f7, %f8};",
    "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r40, %r41},\n\
     {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r16, %r17};",
];

/// Any bits: NaNs, infinities and subnormals of every format among them.
fn any_bits(random: &mut Random) -> u32 {
    let high = random.next() & 0xFFFF;
    match random.next() % 8 {
        0 => [0, 0x7F80_0000, 0x7FC0_0001, 0x8000_0000, 0xFF80_0000][random.next() as usize % 5],
        1 => [0x7C00_0001, 0xFC00_7C00, 0x0001_8001, 0x7E01_3C00][random.next() as usize % 4],
        2 => high,
        _ => high << 16 | random.next() & 0xFFFF,
    }
}

/// What one warp stores after `body`, with inputs in which the accumulators are moderate.
fn outcome(body: &str, seed: u64, portable: bool) -> Vec<u8> {
    let load: String =
        (0..INPUTS).map(|i| format!("ld.global.u32 %r{}, [%rd3+{}];\n", 10 + i, 128 * i)).collect();
    let store: String = (0..OUTPUTS)
        .map(|i| format!("st.global.u32 [%rd3+{}], %r{};\n", 4096 + 128 * i, 40 + i))
        .collect();
    let floats = body.contains("{%f1,");
    let before = if floats {
        "mov.b32 %f5, %r16; mov.b32 %f6, %r17; mov.b32 %f7, %r18; mov.b32 %f8, %r19;"
    } else {
        "mov.u32 %r40, 0; mov.u32 %r41, 0; mov.u32 %r42, 0; mov.u32 %r43, 0;"
    };
    let after = if floats {
        "mov.b32 %r40, %f1; mov.b32 %r41, %f2; mov.b32 %r42, %f3; mov.b32 %r43, %f4;"
    } else {
        ""
    };
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n\
         {load}{before}\n{body}\n{after}\n{store}"
    ));
    let mut random = Random::new(seed);
    let inputs: Vec<u32> = (0..INPUTS * 32).map(|_| any_bits(&mut random)).collect();
    let mut memory = Memory::new();
    let p = memory.alloc("p", 8192, Access::ReadWrite).unwrap();
    memory.write(p, 0, &bytes(&inputs, u32::to_le_bytes)).unwrap();
    let options = RunOptions { portable, ..RunOptions::default() };
    let report =
        launch(&text, ([1, 1, 1], [32, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap();
    assert!(report.findings.is_empty(), "{body}: {:?}", report.findings);
    memory.read(p, 4096, 128 * OUTPUTS).unwrap()
}

#[test]
fn instructions_give_the_same_bits_on_both_machines() {
    for body in BODIES {
        for seed in 0..20 {
            let (fast, portable) = (outcome(body, seed, false), outcome(body, seed, true));
            assert_eq!(fast, portable, "{body} with seed {seed}");
        }
    }
}

#[test]
fn a_kernel_gives_the_same_outputs_counters_and_findings_on_both_machines() {
    let (m, n, k) = (16usize, 64usize, 64usize);
    let run = |portable: bool| {
        let mut random = Random::new(9);
        let mut memory = Memory::new();
        let mut halves = |count: usize| -> Vec<u8> {
            let bits: Vec<u16> = (0..count).map(|_| any_bits(&mut random) as u16).collect();
            bytes(&bits, u16::to_le_bytes)
        };
        // Too few rows of B: the last columns read out of bounds.
        let (a, b) = (halves(m * k), halves((n - 1) * k));
        let (a, b) = (input(&mut memory, "a", &a), input(&mut memory, "b", &b));
        let c = memory.alloc("c", m * n * 4, Access::ReadWrite).unwrap();
        let sizes = [m, n, k].map(|size| Arg::I32(size as i32));
        let args: Vec<Arg> = [at(a), at(b), at(c)].into_iter().chain(sizes).collect();
        let options = RunOptions { portable, ..RunOptions::default() };
        let shape = ([1, 1, 1], [128, 1, 1], 3 * 2 * 64 * 64);
        let report = launch(&ptx("mma", "sm80"), shape, args, &mut memory, &options).unwrap();
        let bits: Vec<u32> = floats(&memory, c).into_iter().map(f32::to_bits).collect();
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        (bits, report.counters, findings)
    };
    let (fast, portable) = (run(false), run(true));
    assert_eq!(fast, portable);
    assert!(!fast.2.is_empty());
}
