//! `mma.sync` of every shape and format against the dense product, with the fragment layouts of PTX
//! ISA 9.7.14.5.

use crate::support::formats::*;
use crate::support::registers::{run, run_on};
use crate::support::{f16, Random};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.14"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    every_shape_multiplies_like_the_dense_product,
    one_element_of_a_row_or_column_is_found_at_every_k,
    integer_sums_wrap_or_saturate,
    subnormal_inputs_are_not_flushed,
    block_scales_come_from_the_named_bytes_and_lanes,
    double_precision_products_follow_their_fragments,
];

/// A product of `rows` x `k` by `k` x 8.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    k: usize,
    a: Format,
    b: Format,
    /// Accumulator type.
    accumulator: &'static str,
    /// What stands between `aligned` and the shape.
    kind: &'static str,
}

/// Shapes with operands of one format.
fn shapes() -> Vec<Shape> {
    let plain = |rows, k, a, b, accumulator| Shape { rows, k, a, b, accumulator, kind: "" };
    let mut all = Vec::new();
    for k in [8, 16] {
        all.push(plain(16, k, F16, F16, "f32"));
        all.push(plain(16, k, F16, F16, "f16"));
        all.push(plain(16, k, BF16, BF16, "f32"));
        all.push(plain(16, k / 2, TF32, TF32, "f32"));
    }
    for (a, b) in [(S8, S8), (S8, U8), (U8, S8), (U8, U8)] {
        all.extend([(8, 16), (16, 16), (16, 32)].map(|(rows, k)| plain(rows, k, a, b, "s32")));
    }
    for (a, b) in [(S4, S4), (S4, U4), (U4, S4), (U4, U4)] {
        all.extend([(8, 32), (16, 32), (16, 64)].map(|(rows, k)| plain(rows, k, a, b, "s32")));
    }
    for accumulator in ["f32", "f16"] {
        for (a, b) in [(E4M3, E4M3), (E4M3, E5M2), (E5M2, E4M3), (E5M2, E5M2)] {
            all.extend([16, 32].map(|k| plain(16, k, a, b, accumulator)));
        }
        let small = [E4M3, E5M2, E3M2, E2M3, E2M1];
        for (a, b) in small.iter().flat_map(|&a| small.map(|b| (a, b))) {
            all.push(Shape { kind: ".kind::f8f6f4", ..plain(16, 32, a, b, accumulator) });
        }
    }
    all
}

/// Operands and accumulators as dense matrices.
struct Matrices {
    a: Vec<Vec<f32>>,
    /// By column.
    b: Vec<Vec<f32>>,
    c: Vec<[f32; 8]>,
}

impl Matrices {
    fn random(shape: Shape, seed: u64) -> Matrices {
        let mut random = Random::new(seed);
        let mut lines = |format: Format, count: usize| -> Vec<Vec<f32>> {
            let mut line = || (0..shape.k).map(|_| format.integer(random.next())).collect();
            (0..count).map(|_| line()).collect()
        };
        let (a, b) = (lines(shape.a, shape.rows), lines(shape.b, 8));
        let c = (0..shape.rows).map(|row| std::array::from_fn(|n| row as f32 - 3.0 * n as f32));
        Matrices { a, b, c: c.collect() }
    }

    fn expected(&self, row: usize, column: usize) -> f32 {
        let products = self.a[row].iter().zip(&self.b[column]).map(|(a, b)| a * b);
        self.c[row][column] + products.sum::<f32>()
    }
}

impl Shape {
    /// Registers of eight rows of A, and of B.
    fn registers(self) -> usize {
        (self.k / self.a.per_register() / 4).max(1)
    }

    /// Packs rows into registers: by k, then by half of the rows.
    fn fragments(self, format: Format, lines: &[Vec<f32>]) -> Vec<[u32; 32]> {
        let per = format.per_register();
        let mut registers = Vec::new();
        for r in 0..self.registers() {
            for half in 0..lines.len() / 8 {
                registers.push(std::array::from_fn(|lane| {
                    let (g, t) = (lane / 4, lane % 4);
                    (0..per).fold(0, |word, i| {
                        let value = lines[g + 8 * half][per * t + i + 4 * per * r];
                        word | format.code(value) << (format.bits * i)
                    })
                }));
            }
        }
        registers
    }

    /// Accumulator registers of a dense matrix.
    fn accumulators(self, value: impl Fn(usize, usize) -> f32) -> Vec<[u32; 32]> {
        let halves = 0..self.rows / 8;
        let at =
            |half: usize, lane: usize, odd: usize| value(lane / 4 + 8 * half, 2 * (lane % 4) + odd);
        let pair = |half: usize, lane: usize| -> u32 {
            u32::from(f16(at(half, lane, 0))) | u32::from(f16(at(half, lane, 1))) << 16
        };
        match self.accumulator {
            "f16" => halves.map(|half| std::array::from_fn(|lane| pair(half, lane))).collect(),
            "s32" => halves
                .flat_map(|half| [0, 1].map(|odd| (half, odd)))
                .map(|(half, odd)| std::array::from_fn(|lane| at(half, lane, odd) as i32 as u32))
                .collect(),
            _ => halves
                .flat_map(|half| [0, 1].map(|odd| (half, odd)))
                .map(|(half, odd)| std::array::from_fn(|lane| at(half, lane, odd).to_bits()))
                .collect(),
        }
    }

    fn opcode(self) -> String {
        let Shape { rows, k, a, b, accumulator: c, kind } = self;
        // The kind stands before the shape or behind the layouts; both are in use.
        let (early, late) = if a.name == b.name { ("", kind) } else { (kind, "") };
        let types = format!("{c}.{}.{}.{c}", a.name, b.name);
        format!("mma.sync.aligned{early}.m{rows}n8k{k}.row.col{late}.{types}")
    }

    fn check(self, m: &Matrices) {
        self.check_with(&self.opcode(), "", m);
    }

    /// Runs an instruction with more operands after the usual ones.
    fn check_with(self, opcode: &str, more: &str, m: &Matrices) {
        let a = self.fragments(self.a, &m.a);
        let b = self.fragments(self.b, &m.b);
        let c = self.accumulators(|row, column| m.c[row][column]);
        let counts = [a.len(), b.len(), c.len()];
        let list = |from: usize, count: usize| -> String {
            (from..from + count).map(|r| format!("%r{r}")).collect::<Vec<_>>().join(", ")
        };
        let (first_b, first_c) = (10 + counts[0], 10 + counts[0] + counts[1]);
        let body = format!(
            "{opcode} {{{}}}, {{{}}}, {{{}}}, {{{}}}{more};",
            list(40, counts[2]),
            list(10, counts[0]),
            list(first_b, counts[1]),
            list(first_c, counts[2])
        );
        let inputs: Vec<[u32; 32]> = a.into_iter().chain(b).chain(c).collect();
        let target = if self.kind.is_empty() { "sm_90a" } else { "sm_120a" };
        let found = run_on(target, &body, &inputs, counts[2]);
        assert_eq!(found, self.accumulators(|row, column| m.expected(row, column)), "{body}");
    }
}

#[test]
fn every_shape_multiplies_like_the_dense_product() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        shape.check(&Matrices::random(shape, seed as u64));
    }
}

#[test]
fn one_element_of_a_row_or_column_is_found_at_every_k() {
    for shape in shapes() {
        for shift in 0..shape.k {
            // Rows do not meet each other, so each may have its element at another k.
            let mut m = Matrices::random(shape, shift as u64);
            for (row, values) in m.a.iter_mut().enumerate() {
                values.fill(0.0);
                values[(5 * row + shift) % shape.k] = 2.0;
            }
            shape.check(&m);
            let mut m = Matrices::random(shape, shift as u64);
            for (column, values) in m.b.iter_mut().enumerate() {
                values.fill(0.0);
                values[(3 * column + shift) % shape.k] = 2.0;
            }
            shape.check(&m);
        }
    }
}

#[test]
fn integer_sums_wrap_or_saturate() {
    let shape = Shape { rows: 16, k: 16, a: U8, b: U8, accumulator: "s32", kind: "" };
    let full =
        Matrices { a: vec![vec![255.0; 16]; 16], b: vec![vec![255.0; 16]; 8], c: Vec::new() };
    let mut inputs = shape.fragments(U8, &full.a);
    inputs.extend(shape.fragments(U8, &full.b));
    inputs.extend([[i32::MAX as u32 - 7; 32]; 4]);
    let operands = "{%r40, %r41, %r42, %r43}, {%r10, %r11}, {%r12}, {%r13, %r14, %r15, %r16};";
    let opcode = |satfinite: &str| {
        format!("mma.sync.aligned.m16n8k16.row.col{satfinite}.s32.u8.u8.s32 {operands}")
    };
    let wrapped = (i32::MAX - 7).wrapping_add(16 * 255 * 255) as u32;
    assert_eq!(run(&opcode(""), &inputs, 4), [[wrapped; 32]; 4]);
    assert_eq!(run(&opcode(".satfinite"), &inputs, 4), [[i32::MAX as u32; 32]; 4]);
}

#[test]
fn subnormal_inputs_are_not_flushed() {
    let smallest = [[0x0001_0001u32; 32]; 4];
    let ones = [[u32::from(f16(1.0)) * 0x0001_0001; 32]; 2];
    let inputs: Vec<[u32; 32]> = smallest.into_iter().chain(ones).chain([[0; 32]; 4]).collect();
    let body = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r40, %r41, %r42, %r43}, \
                {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r16, %r17, %r18, %r19};";
    let sum = (16.0 * 2f32.powi(-24)).to_bits();
    assert_eq!(run(body, &inputs, 4), [[sum; 32]; 4]);
}

/// Scale of a row (or column) and block of K.
fn scale(line: usize, block: usize) -> f32 {
    2f32.powi((line * 3 + block * 5) as i32 % 7 - 3)
}

/// Code of a power of two: `ue8m0`, or `ue4m3` with its bias of 7.
fn scale_code(line: usize, block: usize, e4m3: bool) -> u32 {
    let exponent = (line * 3 + block * 5) as i32 % 7 - 3;
    if e4m3 {
        ((exponent + 7) as u32) << 3
    } else {
        (exponent + 127) as u32
    }
}

#[test]
fn block_scales_come_from_the_named_bytes_and_lanes() {
    let mx8 = Shape { rows: 16, k: 32, a: E4M3, b: E2M1, accumulator: "f32", kind: "" };
    let mx4 = Shape { k: 64, a: PACKED_E2M1, b: PACKED_E2M1, ..mx8 };
    for (shape, kind, blocks, ty) in [
        (mx8, "kind::mxf8f6f4.block_scale.scale_vec::1X", 1, "ue8m0"),
        (mx8, "kind::mxf8f6f4.block_scale", 1, "ue8m0"),
        (mx4, "kind::mxf4.block_scale.scale_vec::2X", 2, "ue8m0"),
        (mx4, "kind::mxf4nvf4.block_scale.scale_vec::2X", 2, "ue8m0"),
        (mx4, "kind::mxf4nvf4.block_scale.scale_vec::4X", 4, "ue4m3"),
    ] {
        for byte in (0..4).step_by(blocks) {
            for (a_thread, b_thread) in [(0, 0), (1, 3), (0, 2), (1, 1)] {
                check_scaled(shape, kind, (blocks, ty), byte, [a_thread, b_thread]);
            }
        }
    }
}

fn check_scaled(
    shape: Shape,
    kind: &str,
    (blocks, ty): (usize, &str),
    byte: usize,
    [a_thread, b_thread]: [usize; 2],
) {
    let e4m3 = ty == "ue4m3";
    let codes = |line: usize| -> u32 {
        (0..blocks).fold(0, |word, i| word | scale_code(line, i, e4m3) << (8 * (byte + i)))
    };
    // Rows g and g + 8 of A in neighbouring lanes, column g of B in one; elsewhere a wrong scale.
    let mut a_scales = [0x7070_7070u32; 32];
    let mut b_scales = a_scales;
    for g in 0..8 {
        a_scales[4 * g + 2 * a_thread] = codes(g);
        a_scales[4 * g + 2 * a_thread + 1] = codes(g + 8);
        b_scales[4 * g + b_thread] = codes(g);
    }
    let plain = Matrices::random(shape, byte as u64);
    let scaled = |lines: &[Vec<f32>]| -> Vec<Vec<f32>> {
        let value = |line: usize, k: usize| lines[line][k] * scale(line, k * blocks / shape.k);
        (0..lines.len()).map(|line| (0..shape.k).map(|k| value(line, k)).collect()).collect()
    };
    let expected = Matrices { a: scaled(&plain.a), b: scaled(&plain.b), c: plain.c.clone() };
    let mut inputs = shape.fragments(shape.a, &plain.a);
    inputs.extend(shape.fragments(shape.b, &plain.b));
    inputs.extend(shape.accumulators(|row, column| plain.c[row][column]));
    inputs.extend([a_scales, b_scales]);
    let (early, late) = match a_thread {
        0 => (format!(".{kind}"), String::new()),
        _ => (String::new(), format!(".{kind}")),
    };
    let opcode = format!(
        "mma.sync.aligned{early}.m16n8k{}.row.col{late}.f32.{}.{}.f32.{ty}",
        shape.k, shape.a.name, shape.b.name
    );
    let body = format!(
        "mov.u16 %rs1, {byte}; mov.u16 %rs2, {a_thread}; mov.u16 %rs3, {b_thread};\n\
         {opcode} {{%r40, %r41, %r42, %r43}}, {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, \
         {{%r16, %r17, %r18, %r19}}, %r20, {{%rs1, %rs2}}, %r21, {{%rs1, %rs3}};"
    );
    let found = run_on("sm_120a", &body, &inputs, 4);
    assert_eq!(found, shape.accumulators(|row, column| expected.expected(row, column)), "{body}");
}

#[test]
fn double_precision_products_follow_their_fragments() {
    for (rows, k) in [(8, 4), (16, 4), (16, 8), (16, 16)] {
        let (halves, steps) = (rows / 8, k / 4);
        let a = |row: usize, x: usize| (row * 31 + x * 7) % 17;
        let b = |column: usize, x: usize| (column * 13 + x * 5) % 11;
        // Values in the low registers of pairs; whole numbers, converted in the kernel.
        let mut inputs: Vec<[u32; 32]> = Vec::new();
        for r in 0..steps * halves {
            let (half, step) = (r % halves, r / halves);
            inputs.push(std::array::from_fn(|l| a(l / 4 + 8 * half, l % 4 + 4 * step) as u32));
        }
        for step in 0..steps {
            inputs.push(std::array::from_fn(|l| b(l / 4, l % 4 + 4 * step) as u32));
        }
        let convert: String =
            (0..inputs.len()).map(|i| format!("cvt.rn.f64.u32 %fd{i}, %r{};\n", 10 + i)).collect();
        let list = |from: usize, count: usize| -> String {
            (from..from + count).map(|r| format!("%fd{r}")).collect::<Vec<_>>().join(", ")
        };
        let accumulators: String = (0..2 * halves)
            .map(|i| format!("mov.f64 %fd{}, 0d3FF0000000000000;\n", 20 + i))
            .collect();
        let back: String = (0..2 * halves)
            .map(|i| format!("cvt.rni.u32.f64 %r{}, %fd{};\n", 40 + i, 30 + i))
            .collect();
        let body = format!(
            "{convert}{accumulators}mma.sync.aligned.m{rows}n8k{k}.row.col.f64.f64.f64.f64 {{{}}}, {{{}}}, {{{}}}, {{{}}};\n{back}",
            list(30, 2 * halves),
            list(0, steps * halves),
            list(steps * halves, steps),
            list(20, 2 * halves)
        );
        let found = run(&body, &inputs, 2 * halves);
        for (register, lanes) in found.iter().enumerate() {
            for (lane, &value) in lanes.iter().enumerate() {
                let (row, column) = (lane / 4 + 8 * (register / 2), 2 * (lane % 4) + register % 2);
                let sum: usize = (0..k).map(|x| a(row, x) * b(column, x)).sum();
                assert_eq!(value as usize, sum + 1, "m{rows} k{k} ({row}, {column})");
            }
        }
    }
}
