//! Matrix instructions against dense references with the fragment layouts of PTX ISA 9.7.14.

// Lanes index several arrays at once.
#![allow(clippy::needless_range_loop)]

mod support;

use qtune_sim::{Access, Memory, RunOptions};
use support::{at, bytes, f16, kernel, launch, Random};

/// Runs one warp on `inputs` registers per lane in `%r10...` and returns `outputs` registers from
/// `%r40...`, each as 32 lanes.
fn run(body: &str, inputs: &[[u32; 32]], outputs: usize) -> Vec<[u32; 32]> {
    let load: String = (0..inputs.len())
        .map(|i| format!("ld.global.u32 %r{}, [%rd3+{}];\n", 10 + i, 128 * i))
        .collect();
    let store: String = (0..outputs)
        .map(|i| format!("st.global.u32 [%rd3+{}], %r{};\n", 4096 + 128 * i, 40 + i))
        .collect();
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n{load}{body}\n{store}"
    ));
    let mut memory = Memory::new();
    let p = memory.alloc("p", 8192, Access::ReadWrite).unwrap();
    for (i, values) in inputs.iter().enumerate() {
        memory.write(p, 128 * i, &bytes(values, u32::to_le_bytes)).unwrap();
    }
    let shape = ([1, 1, 1], [32, 1, 1], 2048);
    let report = launch(&text, shape, vec![at(p)], &mut memory, &RunOptions::default()).unwrap();
    assert!(report.findings.is_empty(), "{body}: {:#?}", report.findings);
    let word = |at: usize| u32::from_le_bytes(memory.read(p, at, 4).unwrap().try_into().unwrap());
    (0..outputs).map(|i| std::array::from_fn(|l| word(4096 + 128 * i + 4 * l))).collect()
}

/// Packs elements given by `value(row_or_column, k)` into operand registers: `rows` row halves,
/// `halves` k halves, `per` elements of 32 / per bits each.
fn operand(
    rows: usize,
    halves: usize,
    per: usize,
    value: &dyn Fn(usize, usize) -> u32,
) -> Vec<[u32; 32]> {
    let bits = 32 / per;
    let mut registers = Vec::new();
    for half in 0..halves {
        for row_half in 0..rows {
            registers.push(std::array::from_fn(|lane| {
                let (g, t) = (lane / 4, lane % 4);
                (0..per).fold(0u32, |word, i| {
                    let k = per * t + i + 4 * per * half;
                    word | value(g + 8 * row_half, k) << (bits * i)
                })
            }));
        }
    }
    registers
}

/// Register holding C or D (row, column), and the lane.
fn place(row: usize, column: usize) -> (usize, usize) {
    (2 * (row / 8) + column % 2, 4 * (row % 8) + column / 2)
}

/// Runs an mma with f32 accumulators on small exact values and compares every element.
fn check_f32(ptx_type: &str, k: usize, per: usize, encode: fn(f32) -> u32) {
    let mut random = Random::new(k as u64);
    let a: Vec<f32> = (0..16 * k).map(|_| random.small()).collect();
    let b: Vec<f32> = (0..8 * k).map(|_| random.small()).collect();
    let c: Vec<f32> = (0..128).map(|_| random.small()).collect();
    let halves = k / (4 * per);
    let mut inputs = operand(2, halves, per, &|row, x| encode(a[row * k + x]));
    inputs.extend(operand(1, halves, per, &|column, x| encode(b[column * k + x])));
    let first_c = 10 + inputs.len();
    let mut registers = [[0u32; 32]; 4];
    for at in 0..128 {
        let (register, lane) = place(at / 8, at % 8);
        registers[register][lane] = c[at].to_bits();
    }
    inputs.extend(registers);
    let names = |from: usize, count: usize, letter: char| -> String {
        (from..from + count).map(|r| format!("%{letter}{r}")).collect::<Vec<_>>().join(", ")
    };
    let body = format!(
        "mma.sync.aligned.m16n8k{k}.row.col.f32.{ptx_type}.{ptx_type}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};",
        names(40, 4, 'r'),
        names(10, 2 * halves, 'r'),
        names(10 + 2 * halves, halves, 'r'),
        names(first_c, 4, 'r'),
    );
    let out = run(&body, &inputs, 4);
    for at in 0..128 {
        let (row, column) = (at / 8, at % 8);
        let sum: f32 = (0..k).map(|x| a[row * k + x] * b[column * k + x]).sum();
        let (register, lane) = place(row, column);
        assert_eq!(f32::from_bits(out[register][lane]), sum + c[at], "{body} ({row}, {column})");
    }
}

#[test]
fn floating_products_agree_with_the_dense_product() {
    check_f32("f16", 16, 2, |v| u32::from(f16(v)));
    check_f32("f16", 8, 2, |v| u32::from(f16(v)));
    check_f32("bf16", 16, 2, |v| u32::from(half::bf16::from_f32(v).to_bits()));
    check_f32("bf16", 8, 2, |v| u32::from(half::bf16::from_f32(v).to_bits()));
    check_f32("tf32", 8, 1, f32::to_bits);
    check_f32("tf32", 4, 1, f32::to_bits);
}

#[test]
fn f16_accumulators_hold_two_columns_per_register() {
    // A = row + 1 in column 0, B = column + 1 in row 0: D = (row + 1) (column + 1).
    let one_k =
        |index: usize, x: usize| if x == 0 { u32::from(f16(index as f32 + 1.0)) } else { 0 };
    let mut inputs = operand(2, 2, 2, &one_k);
    inputs.extend(operand(1, 2, 2, &one_k));
    inputs.extend([[u32::from(f16(0.5)); 32]; 2]);
    let body = "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r40, %r41}, \
                {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r16, %r17};";
    let out = run(body, &inputs, 2);
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for half in 0..2 {
            let row = (g + 8 * half + 1) as f32;
            let low = f16(row * (2 * t + 1) as f32 + 0.5);
            let high = f16(row * (2 * t + 2) as f32);
            assert_eq!(out[half][lane], u32::from(low) | u32::from(high) << 16);
        }
    }
}

#[test]
fn subnormal_f16_inputs_are_not_flushed() {
    let smallest = |_: usize, x: usize| u32::from(x == 0);
    let one = |_: usize, x: usize| if x == 0 { u32::from(f16(1.0)) } else { 0 };
    let mut inputs = operand(2, 2, 2, &smallest);
    inputs.extend(operand(1, 2, 2, &one));
    inputs.extend([[0; 32]; 4]);
    let body = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r40, %r41, %r42, %r43}, \
                {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r16, %r17, %r18, %r19};";
    let out = run(body, &inputs, 4);
    assert!(out.iter().flatten().all(|&bits| f32::from_bits(bits) == 2f32.powi(-24)));
}

#[test]
fn integer_products_are_exact_with_all_sign_combinations() {
    for (k, a_type, b_type) in
        [(32, "s8", "s8"), (32, "u8", "s8"), (16, "s8", "u8"), (16, "u8", "u8")]
    {
        let mut random = Random::new(17);
        let a: Vec<u8> = (0..16 * k).map(|_| random.next() as u8).collect();
        let b: Vec<u8> = (0..8 * k).map(|_| random.next() as u8).collect();
        let halves = k / 16;
        let mut inputs = operand(2, halves, 4, &|row, x| u32::from(a[row * k + x]));
        inputs.extend(operand(1, halves, 4, &|column, x| u32::from(b[column * k + x])));
        inputs.extend([[(-7i32) as u32; 32]; 4]);
        let list = |from: usize, count: usize| -> String {
            (from..from + count).map(|r| format!("%r{r}")).collect::<Vec<_>>().join(", ")
        };
        let body = format!(
            "mma.sync.aligned.m16n8k{k}.row.col.s32.{a_type}.{b_type}.s32 {{{}}}, {{{}}}, {{{}}}, {{{}}};",
            list(40, 4),
            list(10, 2 * halves),
            list(10 + 2 * halves, halves),
            list(10 + 3 * halves, 4)
        );
        let out = run(&body, &inputs, 4);
        let value =
            |byte: u8, ty: &str| if ty == "s8" { i32::from(byte as i8) } else { i32::from(byte) };
        for at in 0..128 {
            let (row, column) = (at / 8, at % 8);
            let dot = |x: usize| value(a[row * k + x], a_type) * value(b[column * k + x], b_type);
            let (register, lane) = place(row, column);
            assert_eq!(out[register][lane] as i32, (0..k).map(dot).sum::<i32>() - 7, "{body}");
        }
    }
}

#[test]
fn ldmatrix_distributes_rows_and_columns() {
    // Row r of matrix i holds elements 100 i + 8 r + column as 16-bit integers.
    let rows = "shr.u32 %r2, %r1, 3; mul.lo.s32 %r2, %r2, 100; and.b32 %r3, %r1, 7; shl.b32 %r3, %r3, 3;\n\
                add.s32 %r2, %r2, %r3; mad.lo.s32 %r2, %r2, 0x10001, 0x10000; shl.b32 %r4, %r1, 4;\n\
                add.s32 %r5, %r2, 0x20002; add.s32 %r6, %r2, 0x40004; add.s32 %r7, %r2, 0x60006;\n\
                st.shared.v4.b32 [%r4], {%r2, %r5, %r6, %r7}; bar.sync 0;";
    let element =
        |matrix: usize, row: usize, column: usize| (100 * matrix + 8 * row + column) as u32;
    for (suffix, transposed) in [("", false), (".trans", true)] {
        let body = format!(
            "{rows} ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{%r40, %r41, %r42, %r43}}, [%r4];"
        );
        let out = run(&body, &[], 4);
        for (matrix, register) in out.iter().enumerate() {
            for (lane, &word) in register.iter().enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                let (low, high) = if transposed {
                    (element(matrix, 2 * t, g), element(matrix, 2 * t + 1, g))
                } else {
                    (element(matrix, g, 2 * t), element(matrix, g, 2 * t + 1))
                };
                assert_eq!(word, low | high << 16, "matrix {matrix} lane {lane} {suffix}");
            }
        }
        let body = format!(
            "{rows} ldmatrix.sync.aligned.m8n8.x2{suffix}.shared::cta.b16 {{%r40, %r41}}, [%r4];"
        );
        assert_eq!(run(&body, &[], 2), out[..2]);
    }
}

#[test]
fn stmatrix_is_the_inverse_of_ldmatrix_and_movmatrix_transposes() {
    let mut random = Random::new(2);
    let inputs: Vec<[u32; 32]> = (0..4).map(|_| std::array::from_fn(|_| random.next())).collect();
    for suffix in ["", ".trans"] {
        let body = format!(
            "shl.b32 %r4, %r1, 4; stmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 [%r4], {{%r10, %r11, %r12, %r13}};\n\
             bar.sync 0; ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{%r40, %r41, %r42, %r43}}, [%r4];"
        );
        assert_eq!(run(&body, &inputs, 4), inputs);
    }
    let body = "shl.b32 %r4, %r1, 4; stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r4], {%r10};\n\
                bar.sync 0; ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r40}, [%r4];\n\
                movmatrix.sync.aligned.m8n8.trans.b16 %r41, %r10;";
    let out = run(body, &inputs, 2);
    assert_eq!(out[0], out[1]);
    assert_ne!(out[0], inputs[0]);
}

#[test]
fn asynchronous_copies_fill_zero_and_obey_their_predicates() {
    let data: [u32; 32] = std::array::from_fn(|l| 0x0101_0101 * (l as u32 + 1));
    let inputs = [data; 4];
    // Lanes 0..8 copy 16 bytes of which 16, 0, 4, 3, ... come from memory.
    let body = "setp.lt.u32 %p1, %r1, 8; shl.b32 %r2, %r1, 4; cvt.u64.u32 %rd4, %r2; add.s64 %rd5, %rd1, %rd4;\n\
                and.b32 %r3, %r1, 3; setp.eq.u32 %p2, %r3, 0; setp.eq.u32 %p3, %r3, 2; mov.u32 %r4, 0;\n\
                @%p2 mov.u32 %r4, 16;\n@%p3 mov.u32 %r4, 3;\n\
                @%p1 cp.async.ca.shared.global.L2::128B [%r2], [%rd5], 16, %r4;\n\
                add.s32 %r5, %r2, 512; setp.gt.u32 %p4, %r1, 3;\n\
                @%p1 cp.async.ca.shared.global [%r5], [%rd5], 8, %p4;\n\
                cp.async.commit_group; cp.async.wait_group 0; bar.sync 0; mov.u32 %r40, 0; mov.u32 %r41, 0;\n\
                @%p1 ld.shared.u32 %r40, [%r2];\n@%p1 ld.shared.u32 %r41, [%r5+4];";
    let out = run(body, &inputs, 2);
    for lane in 0..8usize {
        let word = data[4 * lane];
        let expected = [word, 0, word & 0xFF_FFFF, 0][lane % 4];
        assert_eq!(out[0][lane], expected, "lane {lane}");
        let expected = if lane > 3 { 0 } else { data[4 * lane + 1] };
        assert_eq!(out[1][lane], expected, "lane {lane}");
    }
}
