//! Instructions on tiny hand-written PTX against scalar references.

// Lanes index several arrays at once.
#![allow(clippy::needless_range_loop)]

mod support;

use qtune_sim::{Access, Memory, RunOptions};
use support::{at, bytes, f16, kernel, launch, Random};

type Lanes = [u32; 32];

/// Bytes of the test buffer.
const BUFFER: usize = 8192;
/// Where results start.
const RESULTS: usize = 4096;

/// Runs `body` on one warp with inputs `a`, `b`, `c` in `%r2 %r3 %r4`, and with `%r1` the lane;
/// returns the values that `body` leaves in `%r5 %r6`.
fn run(body: &str, inputs: [&Lanes; 3]) -> [Lanes; 2] {
    run_block(body, inputs, 32, 0)
}

fn run_block(body: &str, inputs: [&Lanes; 3], threads: u32, shared: u32) -> [Lanes; 2] {
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
fn bits(seed: u64, special: &[u32]) -> Lanes {
    let mut random = Random::new(seed);
    std::array::from_fn(|lane| match special.get(lane) {
        Some(&value) => value,
        None => random.next() << 1 ^ random.next(),
    })
}

fn integers(seed: u64) -> Lanes {
    bits(seed, &[0, 1, u32::MAX, 0x8000_0000, 0x7FFF_FFFF, 0xFFFF, 0x8000, 31, 32])
}

#[test]
fn extremes_by_magnitude_and_of_three_values_agree_with_rust() {
    let special = [0.0, -0.0, 1.5, -2.5, f32::NAN, f32::INFINITY, -3.0].map(f32::to_bits);
    let (a, b, c) = (bits(4, &special), bits(5, &[special[4], special[3]]), bits(6, &special[2..]));
    type Reference = fn(f32, f32, f32) -> f32;
    let table: &[(&str, Reference)] = &[
        ("max.f32 %r5, %r2, %r3, %r4;", |a, b, c| a.max(b).max(c)),
        ("min.NaN.f32 %r5, %r2, %r3, %r4;", |a, b, c| match [a, b, c].iter().any(|v| v.is_nan()) {
            true => f32::NAN,
            false => a.min(b).min(c),
        }),
        ("max.abs.f32 %r5, %r2, %r3, %r4;", |a, b, c| a.abs().max(b.abs()).max(c.abs())),
        ("min.xorsign.abs.f32 %r5, %r2, %r3;", |a, b, _| {
            let sign = if a.is_sign_negative() != b.is_sign_negative() { -1.0 } else { 1.0 };
            a.abs().min(b.abs()) * sign
        }),
    ];
    for (body, reference) in table {
        let found = run(body, [&a, &b, &c])[0];
        for l in 0..32 {
            let value = |bits| f32::from_bits(bits);
            let (found, expected) =
                (value(found[l]), reference(value(a[l]), value(b[l]), value(c[l])));
            assert!(
                found == expected || (found.is_nan() && expected.is_nan()),
                "{body} lane {l}: {found} instead of {expected}"
            );
        }
    }
}

#[test]
fn f32_sums_take_half_precision_operands_exactly() {
    let halves: Lanes =
        std::array::from_fn(|l| u32::from(half::f16::from_f32(l as f32 / 3.0).to_bits()));
    let b: Lanes =
        std::array::from_fn(|l| u32::from(half::f16::from_f32(7.0 - l as f32).to_bits()));
    let c: Lanes = std::array::from_fn(|l| (l as f32 * 0.1).to_bits());
    let wide = |bits: u32| half::f16::from_bits(bits as u16).to_f32();
    let registers = "cvt.u16.u32 %rs1, %r2; cvt.u16.u32 %rs2, %r3;";
    let found = run(&format!("{registers} sub.rn.f32.f16 %r5, %rs1, %r4;"), [&halves, &b, &c])[0];
    let expected: Lanes =
        std::array::from_fn(|l| (wide(halves[l]) - f32::from_bits(c[l])).to_bits());
    assert_eq!(found, expected);
    let body = format!("{registers} fma.rn.f32.f16 %r5, %rs1, %rs2, %r4;");
    let found = run(&body, [&halves, &b, &c])[0];
    let expected: Lanes = std::array::from_fn(|l| {
        wide(halves[l]).mul_add(wide(b[l]), f32::from_bits(c[l])).to_bits()
    });
    assert_eq!(found, expected);
}

#[test]
fn gross_approximations_use_the_upper_half_of_a_double_only() {
    let high: Lanes = std::array::from_fn(|l| ((l as f64 + 0.3).to_bits() >> 32) as u32);
    let value = |high: u32| f64::from_bits(u64::from(high) << 32);
    for (opcode, exact) in
        [("rcp", (|x| 1.0 / x) as fn(f64) -> f64), ("rsqrt", |x: f64| 1.0 / x.sqrt())]
    {
        let body = format!(
            "mov.b64 %rd4, {{%r3, %r2}}; mov.b64 %fd1, %rd4; {opcode}.approx.ftz.f64 %fd2, %fd1;\n\
             mov.b64 {{%r6, %r5}}, %fd2;"
        );
        // Whatever the lower half holds.
        let [found, low] = run(&body, [&high, &integers(9), &high]);
        assert_eq!(low, [0; 32]);
        for l in 0..32 {
            let (found, exact) = (value(found[l]), exact(value(high[l])));
            assert!((found / exact - 1.0).abs() < 2f64.powi(-20), "{opcode} {found} {exact}");
        }
    }
}

#[test]
fn carries_pass_through_the_flag_of_each_lane() {
    let (a, b, c) = (integers(1), integers(2), integers(3));
    let whole = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let body = "add.cc.u32 %r5, %r2, %r3; addc.u32 %r6, %r4, %r2;";
    let [low, high] = run(body, [&a, &b, &c]);
    for l in 0..32 {
        let sum = whole(c[l], a[l]).wrapping_add(whole(a[l], b[l]));
        assert_eq!(whole(high[l], low[l]), sum, "lane {l}");
    }
    let body = "sub.cc.u32 %r5, %r2, %r3; subc.u32 %r6, %r4, %r2;";
    let [low, high] = run(body, [&a, &b, &c]);
    for l in 0..32 {
        let difference = whole(c[l], a[l]).wrapping_sub(whole(a[l], b[l]));
        assert_eq!(whole(high[l], low[l]), difference, "lane {l}");
    }
    let body = "mad.lo.cc.u32 %r5, %r2, %r3, %r4; madc.hi.u32 %r6, %r2, %r3, %r4;";
    let [low, high] = run(body, [&a, &b, &c]);
    for l in 0..32 {
        let product = u64::from(a[l]) * u64::from(b[l]);
        let sum = product.wrapping_add(whole(c[l], c[l]));
        assert_eq!(whole(high[l], low[l]), sum, "lane {l}");
    }
}

#[test]
fn vector_atomics_return_and_change_every_element() {
    let body = "shl.b32 %r5, %r1, 4; cvt.u64.u32 %rd4, %r5; add.s64 %rd5, %rd1, %rd4;\n\
                mov.b32 %r7, 0f3F800000; mov.b32 %r8, 0f40000000;\n\
                atom.global.gpu.relaxed.add.v4.f32 {%r5, %r6, %r9, %r10}, [%rd5+1024], \
                {%r7, %r8, %r7, %r8};\n\
                ld.global.v4.u32 {%r11, %r5, %r6, %r12}, [%rd5+1024];";
    let [second, third] = run(body, [&[0; 32], &[0; 32], &[0; 32]]);
    assert_eq!(second, [2f32.to_bits(); 32]);
    assert_eq!(third, [1f32.to_bits(); 32]);
}

#[test]
fn four_bytes_pack_into_a_word_and_come_out_again() {
    let body = ".reg .b8 b<4>; mov.b32 {b0, b1, b2, b3}, %r2; cvt.s32.s8 %r5, b2;\n\
                mov.b32 %r6, {b3, b2, b1, b0};";
    let a = integers(1);
    let [third, swapped] = run(body, [&a, &a, &a]);
    assert_eq!(third, a.map(|a| (a >> 16) as u8 as i8 as i32 as u32));
    assert_eq!(swapped, a.map(u32::swap_bytes));
}

#[test]
fn integer_arithmetic_agrees_with_rust() {
    let (a, b, c) = (integers(1), integers(2), integers(3));
    let shift_amounts: Lanes = std::array::from_fn(|l| [0, 1, 5, 31, 32, 33, 255, 8][l % 8]);
    type Reference = fn(u32, u32, u32) -> u32;
    let table: &[(&str, Reference)] = &[
        ("add.s32 %r5, %r2, %r3;", |a, b, _| a.wrapping_add(b)),
        ("sub.s32 %r5, %r2, %r3;", |a, b, _| a.wrapping_sub(b)),
        ("mul.lo.s32 %r5, %r2, %r3;", |a, b, _| a.wrapping_mul(b)),
        ("mul.hi.u32 %r5, %r2, %r3;", |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        ("mul.hi.s32 %r5, %r2, %r3;", |a, b, _| {
            ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32
        }),
        ("mad.lo.s32 %r5, %r2, %r3, %r4;", |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("mad.hi.u32 %r5, %r2, %r3, %r4;", |a, b, c| {
            (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
        }),
        ("div.u32 %r5, %r2, %r3;", |a, b, _| a.checked_div(b).unwrap_or(u32::MAX)),
        ("rem.u32 %r5, %r2, %r3;", |a, b, _| a.checked_rem(b).unwrap_or(a)),
        ("min.s32 %r5, %r2, %r3;", |a, b, _| (a as i32).min(b as i32) as u32),
        ("max.u32 %r5, %r2, %r3;", |a, b, _| a.max(b)),
        ("sad.u32 %r5, %r2, %r3, %r4;", |a, b, c| a.abs_diff(b).wrapping_add(c)),
        ("abs.s32 %r5, %r2;", |a, _, _| (a as i32).wrapping_abs() as u32),
        ("neg.s32 %r5, %r2;", |a, _, _| a.wrapping_neg()),
        ("not.b32 %r5, %r2;", |a, _, _| !a),
        ("cnot.b32 %r5, %r2;", |a, _, _| u32::from(a == 0)),
        ("popc.b32 %r5, %r2;", |a, _, _| a.count_ones()),
        ("clz.b32 %r5, %r2;", |a, _, _| a.leading_zeros()),
        ("brev.b32 %r5, %r2;", |a, _, _| a.reverse_bits()),
        ("add.sat.s32 %r5, %r2, %r3;", |a, b, _| (a as i32).saturating_add(b as i32) as u32),
        ("lop3.b32 %r5, %r2, %r3, %r4, 0xE8;", |a, b, c| a & b | a & c | b & c),
        ("lop3.b32 %r5, %r2, %r3, %r4, 0xea;", |a, b, c| a & b | c),
        ("dp4a.s32.s32 %r5, %r2, %r3, %r4;", |a, b, c| {
            let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            let dot = pairs.map(|(x, y)| i32::from(x as i8) * i32::from(y as i8));
            c.wrapping_add(dot.sum::<i32>() as u32)
        }),
        ("dp2a.hi.s32.u32 %r5, %r2, %r3, %r4;", |a, b, c| {
            let low = i32::from(a as i16) * (b >> 16 & 255) as i32;
            let high = (a as i32 >> 16) * (b >> 24) as i32;
            c.wrapping_add((low + high) as u32)
        }),
        ("selp.b32 %r5, 7, %r3, 1;", |_, _, _| 7),
        ("slct.u32.s32 %r5, %r2, %r3, %r4;", |a, b, c| if c as i32 >= 0 { a } else { b }),
        ("mul.wide.s16 %r5, %rs1, %rs2;", |a, b, _| {
            (i32::from(a as i16) * i32::from(b as i16)) as u32
        }),
    ];
    for (body, reference) in table {
        let body = format!("cvt.u16.u32 %rs1, %r2; cvt.u16.u32 %rs2, %r3; {body}");
        let expected: Lanes = std::array::from_fn(|l| reference(a[l], b[l], c[l]));
        assert_eq!(run(&body, [&a, &b, &c])[0], expected, "{body}");
    }
    let shifts: &[(&str, Reference)] = &[
        ("shl.b32 %r5, %r2, %r3;", |a, n, _| a.checked_shl(n).unwrap_or(0)),
        ("shr.u32 %r5, %r2, %r3;", |a, n, _| a.checked_shr(n).unwrap_or(0)),
        ("shr.s32 %r5, %r2, %r3;", |a, n, _| (a as i32 >> n.min(31)) as u32),
        ("shf.l.wrap.b32 %r5, %r4, %r2, %r3;", |a, n, c| {
            ((u64::from(a) << 32 | u64::from(c)) << (n & 31) >> 32) as u32
        }),
        ("shf.r.clamp.b32 %r5, %r4, %r2, %r3;", |a, n, c| {
            ((u64::from(a) << 32 | u64::from(c)) >> n.min(32)) as u32
        }),
    ];
    for (body, reference) in shifts {
        let expected: Lanes = std::array::from_fn(|l| reference(a[l], shift_amounts[l], c[l]));
        assert_eq!(run(body, [&a, &shift_amounts, &c])[0], expected, "{body}");
    }
}

#[test]
fn every_lop3_table_is_its_truth_table() {
    // One lane per input combination: bit i of the result is bit (a<<2 | b<<1 | c) of the table.
    let (a, b, c) = ([0xF0; 32], [0xCC; 32], [0xAA; 32]);
    for table in [0x00, 0x01, 0x1B, 0x3C, 0x80, 0x96, 0xD8, 0xEA, 0xFE, 0xFF] {
        let out = run(
            &format!("lop3.b32 %r5, %r2, %r3, %r4, {table}; and.b32 %r5, %r5, 255;"),
            [&a, &b, &c],
        );
        assert_eq!(out[0], [table; 32]);
    }
}

#[test]
fn wide_integers_agree_with_rust() {
    let (a, b) = (integers(4), integers(5));
    let wide = |f: fn(u64, u64) -> u64| -> [Lanes; 2] {
        let at = |l: usize| f(u64::from(a[l]) << 32 | u64::from(b[l]), u64::from(b[l]) << 32 | 3);
        [std::array::from_fn(|l| at(l) as u32), std::array::from_fn(|l| (at(l) >> 32) as u32)]
    };
    type Reference = fn(u64, u64) -> u64;
    let table: &[(&str, Reference)] = &[
        ("add.s64 %rd6, %rd4, %rd5;", u64::wrapping_add),
        ("mul.lo.s64 %rd6, %rd4, %rd5;", u64::wrapping_mul),
        ("mul.hi.u64 %rd6, %rd4, %rd5;", |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        ("mad.lo.s64 %rd6, %rd4, %rd5, %rd4;", |a, b| a.wrapping_mul(b).wrapping_add(a)),
        ("min.s64 %rd6, %rd4, %rd5;", |a, b| (a as i64).min(b as i64) as u64),
        ("div.s64 %rd6, %rd4, %rd5;", |a, b| (a as i64).wrapping_div(b as i64) as u64),
        ("xor.b64 %rd6, %rd4, %rd5;", |a, b| a ^ b),
        ("shr.s64 %rd6, %rd4, 37;", |a, _| (a as i64 >> 37) as u64),
        ("shl.b64 %rd6, %rd4, 64;", |_, _| 0),
        ("not.b64 %rd6, %rd4;", |a, _| !a),
        ("bfi.b64 %rd6, %rd5, %rd4, 20, 40;", |a, b| {
            let mask = ((1u64 << 40) - 1) << 20;
            a & !mask | b << 20 & mask
        }),
        ("bfe.s64 %rd6, %rd4, 30, 12;", |a, _| ((a << 22) as i64 >> 52) as u64),
    ];
    for (body, reference) in table {
        let body = format!(
            "mov.b64 %rd4, {{%r3, %r2}}; mov.u32 %r7, 3; mov.b64 %rd5, {{%r7, %r3}}; {body} \
             mov.b64 {{%r5, %r6}}, %rd6;"
        );
        assert_eq!(run(&body, [&a, &b, &a]), wide(*reference), "{body}");
    }
}

#[test]
fn comparisons_follow_type_signedness_and_combination() {
    let (a, b) = (integers(6), integers(7));
    let b: Lanes = std::array::from_fn(|l| if l % 3 == 0 { a[l] } else { b[l] });
    let value = |body: &str| {
        run(&format!("{body}\nselp.u32 %r5, 1, 0, %p1; selp.u32 %r6, 1, 0, %p2;"), [&a, &b, &a])
    };
    let expect = |f: &dyn Fn(usize) -> bool| -> Lanes { std::array::from_fn(|l| u32::from(f(l))) };
    let [p, q] = value("setp.lt.s32 %p1|%p2, %r2, %r3;");
    assert_eq!(p, expect(&|l| (a[l] as i32) < b[l] as i32));
    assert_eq!(q, expect(&|l| (a[l] as i32) >= b[l] as i32));
    let [p, _] = value("setp.lo.u32 %p1|%p2, %r2, %r3;");
    assert_eq!(p, expect(&|l| a[l] < b[l]));
    let [p, q] = value("setp.ne.b32 %p2, %r2, %r3; setp.gt.and.u32 %p1, %r2, 100, !%p2;");
    assert_eq!(p, expect(&|l| a[l] > 100 && a[l] == b[l]));
    assert_eq!(q, expect(&|l| a[l] != b[l]));
    let [p, _] =
        value("setp.eq.s32 %p2, %r2, %r3; setp.ge.s32 %p3, %r2, 0; xor.pred %p1, %p2, %p3;");
    assert_eq!(p, expect(&|l| (a[l] == b[l]) ^ (a[l] as i32 >= 0)));
    let set = run(
        "set.le.u32.s32 %r5, %r2, %r3; set.eq.f32.u32 %f1, %r2, %r3; mov.b32 %r6, %f1;",
        [&a, &b, &a],
    );
    assert_eq!(
        set[0],
        std::array::from_fn(|l| if a[l] as i32 <= b[l] as i32 { u32::MAX } else { 0 })
    );
    assert_eq!(set[1], std::array::from_fn(|l| if a[l] == b[l] { 1f32.to_bits() } else { 0 }));
}

fn floats(seed: u64) -> Lanes {
    let mut random = Random::new(seed);
    let special = [0.0, -0.0, 1.0, -1.5, f32::INFINITY, f32::MIN_POSITIVE / 4.0, 3e38, f32::NAN];
    std::array::from_fn(|l| match special.get(l) {
        Some(value) => value.to_bits(),
        None => (random.small() * 1e3).to_bits(),
    })
}

/// Equal as f32, any NaN matching any other.
fn assert_floats(found: &Lanes, expected: impl Fn(usize) -> f32, what: &str) {
    for (lane, &bits) in found.iter().enumerate() {
        let (found, expected) = (f32::from_bits(bits), expected(lane));
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{what}, lane {lane}: {found:e}, expected {expected:e}");
    }
}

#[test]
fn single_precision_agrees_with_rust() {
    let (a, b, c) = (floats(1), floats(2), floats(3));
    let b: Lanes = std::array::from_fn(|l| b[(l + 3) % 32]);
    type Reference = fn(f32, f32, f32) -> f32;
    let table: &[(&str, Reference)] = &[
        ("add.f32 %f4, %f1, %f2;", |a, b, _| a + b),
        ("sub.rn.f32 %f4, %f1, %f2;", |a, b, _| a - b),
        ("mul.f32 %f4, %f1, %f2;", |a, b, _| a * b),
        ("fma.rn.f32 %f4, %f1, %f2, %f3;", f32::mul_add),
        ("div.rn.f32 %f4, %f1, %f2;", |a, b, _| a / b),
        ("rcp.rn.f32 %f4, %f1;", |a, _, _| 1.0 / a),
        ("sqrt.rn.f32 %f4, %f1;", |a, _, _| a.sqrt()),
        ("neg.f32 %f4, %f1;", |a, _, _| -a),
        ("abs.f32 %f4, %f1;", |a, _, _| a.abs()),
        ("min.f32 %f4, %f1, 0f3F800000;", |a, _, _| if a.is_nan() { 1.0 } else { a.min(1.0) }),
        ("max.NaN.f32 %f4, %f1, 0f3F800000;", |a, _, _| if a.is_nan() { a } else { a.max(1.0) }),
        (
            "mul.sat.f32 %f4, %f1, 0f3F000000;",
            |a, _, _| if a > 0.0 { (a * 0.5).min(1.0) } else { 0.0 },
        ),
        ("mul.ftz.f32 %f4, %f1, 0f3F800000;", |a, _, _| if a.is_subnormal() { 0.0 } else { a }),
        ("ex2.approx.f32 %f4, %f1;", |a, _, _| f64::from(a).exp2() as f32),
        ("rsqrt.approx.f32 %f4, %f1;", |a, _, _| (1.0 / f64::from(a).sqrt()) as f32),
        ("copysign.f32 %f4, %f1, %f2;", |a, b, _| b.copysign(a)),
    ];
    for (body, reference) in table {
        let body = format!(
            "mov.b32 %f1, %r2; mov.b32 %f2, %r3; mov.b32 %f3, %r4; {body} mov.b32 %r5, %f4;"
        );
        let found = run(&body, [&a, &b, &c])[0];
        let value = |values: &Lanes, l: usize| f32::from_bits(values[l]);
        assert_floats(&found, |l| reference(value(&a, l), value(&b, l), value(&c, l)), &body);
    }
}

#[test]
fn double_precision_and_packed_singles_agree_with_rust() {
    let (a, b) = (floats(4), floats(5));
    let body =
        "mov.b32 %f1, %r2; mov.b32 %f2, %r3; cvt.f64.f32 %fd1, %f1; cvt.f64.f32 %fd2, %f2;\n\
                fma.rn.f64 %fd3, %fd1, %fd2, %fd1; cvt.rn.f32.f64 %f3, %fd3; mov.b32 %r5, %f3;";
    let found = run(body, [&a, &b, &a])[0];
    let wide = |bits: u32| f64::from(f32::from_bits(bits));
    assert_floats(&found, |l| wide(a[l]).mul_add(wide(b[l]), wide(a[l])) as f32, "f64 fma");
    let body = "mov.b64 %rd4, {%r2, %r3}; mov.b64 %rd5, {%r3, %r4}; fma.rn.f32x2 %rd6, %rd4, %rd5, %rd4;\n\
                mov.b64 {%r5, %r6}, %rd6;";
    let found = run(body, [&a, &b, &a]);
    let at = |v: &Lanes, l: usize| f32::from_bits(v[l]);
    assert_floats(&found[0], |l| at(&a, l).mul_add(at(&b, l), at(&a, l)), "low");
    assert_floats(&found[1], |l| at(&b, l).mul_add(at(&a, l), at(&b, l)), "high");
}

/// Pairs of f16 of moderate size, so that f64 arithmetic is exact.
fn halves(seed: u64) -> Lanes {
    let mut random = Random::new(seed);
    std::array::from_fn(|_| {
        u32::from(f16(random.small() * 30.0)) | u32::from(f16(random.small() * 0.01)) << 16
    })
}

#[test]
fn packed_halves_round_once() {
    use half::{bf16, f16};
    let (a, b, c) = (halves(1), halves(2), halves(3));
    let packed = |f: &dyn Fn(f64, f64, f64) -> f64| -> Lanes {
        std::array::from_fn(|l| {
            let half = |shift: u32| {
                let [x, y, z] =
                    [a[l], b[l], c[l]].map(|v| f16::from_bits((v >> shift) as u16).to_f64());
                u32::from(f16::from_f64(f(x, y, z)).to_bits()) << shift
            };
            half(0) | half(16)
        })
    };
    assert_eq!(
        run("fma.rn.f16x2 %r5, %r2, %r3, %r4;", [&a, &b, &c])[0],
        packed(&|x, y, z| x * y + z)
    );
    assert_eq!(run("add.f16x2 %r5, %r2, %r3;", [&a, &b, &c])[0], packed(&|x, y, _| x + y));
    assert_eq!(run("sub.rn.f16x2 %r5, %r2, %r3;", [&a, &b, &c])[0], packed(&|x, y, _| x - y));
    assert_eq!(run("mul.f16x2 %r5, %r2, %r3;", [&a, &b, &c])[0], packed(&|x, y, _| x * y));
    assert_eq!(run("max.f16x2 %r5, %r2, %r3;", [&a, &b, &c])[0], packed(&|x, y, _| x.max(y)));
    assert_eq!(
        run("fma.rn.relu.f16x2 %r5, %r2, %r3, %r4;", [&a, &b, &c])[0],
        packed(&|x, y, z| (x * y + z).max(0.0))
    );
    let brain = |f: &dyn Fn(f64, f64, f64) -> f64| -> Lanes {
        std::array::from_fn(|l| {
            let half = |shift: u32| {
                let [x, y, z] =
                    [a[l], b[l], c[l]].map(|v| bf16::from_bits((v >> shift) as u16).to_f64());
                u32::from(bf16::from_f64(f(x, y, z)).to_bits()) << shift
            };
            half(0) | half(16)
        })
    };
    assert_eq!(
        run("fma.rn.bf16x2 %r5, %r2, %r3, %r4;", [&a, &b, &c])[0],
        brain(&|x, y, z| x * y + z)
    );
    assert_eq!(run("mul.bf16x2 %r5, %r2, %r3;", [&a, &b, &c])[0], brain(&|x, y, _| x * y));
    assert_eq!(run("sub.bf16x2 %r5, %r2, %r3;", [&a, &b, &c])[0], brain(&|x, y, _| x - y));
}

#[test]
fn conversions_between_formats_agree_with_the_half_crate_and_rust() {
    use half::{bf16, f16};
    let a = floats(7);
    let number = |l: usize| f32::from_bits(a[l]);
    let finite = |l: usize| !number(l).is_nan();
    let check = |body: &str, expected: &dyn Fn(usize) -> u32| {
        let body = format!("mov.b32 %f1, %r2; mov.b32 %f2, %r3; {body}");
        let found = run(&body, [&a, &a, &a])[0];
        for lane in (0..32).filter(|&l| finite(l)) {
            assert_eq!(found[lane], expected(lane), "{body}, lane {lane}: {}", number(lane));
        }
    };
    let f16_bits = |v: f32| u32::from(f16::from_f32(v).to_bits());
    let bf16_bits = |v: f32| u32::from(bf16::from_f32(v).to_bits());
    check("cvt.rn.f16.f32 %rs1, %f1; cvt.u32.u16 %r5, %rs1;", &|l| f16_bits(number(l)));
    check("cvt.rn.bf16.f32 %rs1, %f1; cvt.u32.u16 %r5, %rs1;", &|l| bf16_bits(number(l)));
    check("mul.f32 %f3, %f1, 0fBF000000; cvt.rn.f16x2.f32 %r5, %f1, %f3;", &|l| {
        f16_bits(number(l)) << 16 | f16_bits(number(l) * -0.5)
    });
    check("cvt.rzi.s32.f32 %r5, %f1;", &|l| number(l) as i32 as u32);
    check("cvt.rni.u32.f32 %r5, %f1;", &|l| number(l).round_ties_even() as u32);
    check("cvt.rmi.f32.f32 %f3, %f1; mov.b32 %r5, %f3;", &|l| number(l).floor().to_bits());
    check("cvt.rn.f32.s32 %f3, %r2; mov.b32 %r5, %f3;", &|l| (a[l] as i32 as f32).to_bits());
    check("cvt.rn.f32.u32 %f3, %r2; mov.b32 %r5, %f3;", &|l| (a[l] as f32).to_bits());
    check("cvt.u16.u32 %rs1, %r2; cvt.s32.s16 %r5, %rs1;", &|l| a[l] as i16 as i32 as u32);
    check("cvt.u32.u8 %r5, %r2;", &|l| a[l] & 255);
    check("cvt.u16.u32 %rs1, %r2; cvt.f32.f16 %f3, %rs1; mov.b32 %r5, %f3;", &|l| {
        let value = f16::from_bits(a[l] as u16).to_f32();
        if value.is_nan() {
            0x7FFF_FFFF
        } else {
            value.to_bits()
        }
    });
    check("cvt.s64.s32 %rd4, %r2; mov.b64 {%r6, %r5}, %rd4;", &|l| (a[l] as i32 >> 31) as u32);
}

#[test]
fn shuffles_votes_matches_and_reductions_exchange_lanes() {
    let a = integers(9);
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    let shuffled = |body: &str| run(body, [&a, &lanes, &a]);
    assert_eq!(
        shuffled("shfl.sync.bfly.b32 %r5, %r2, 3, 31, -1;")[0],
        std::array::from_fn(|l| a[l ^ 3])
    );
    assert_eq!(shuffled("shfl.sync.idx.b32 %r5, %r2, 5, 31, 0xffffffff;")[0], [a[5]; 32]);
    let [value, inside] =
        shuffled("shfl.sync.down.b32 %r5|%p1, %r2, 4, 31, -1; selp.u32 %r6, 1, 0, %p1;");
    assert_eq!(value, std::array::from_fn(|l| if l + 4 < 32 { a[l + 4] } else { a[l] }));
    assert_eq!(inside, std::array::from_fn(|l| u32::from(l + 4 < 32)));
    assert_eq!(
        shuffled("shfl.sync.up.b32 %r5, %r2, 1, 0, -1;")[0],
        std::array::from_fn(|l| a[l.max(1) - 1])
    );
    let odd = "and.b32 %r7, %r3, 1; setp.eq.u32 %p1, %r7, 1;";
    assert_eq!(
        shuffled(&format!("{odd} vote.sync.ballot.b32 %r5, %p1, -1;"))[0],
        [0xAAAA_AAAA; 32]
    );
    assert_eq!(
        shuffled(&format!("{odd} vote.sync.any.pred %p2, %p1, -1; selp.u32 %r5, 1, 0, %p2;"))[0],
        [1; 32]
    );
    assert_eq!(
        shuffled(&format!("{odd} vote.sync.all.pred %p2, !%p1, -1; selp.u32 %r5, 1, 0, %p2;"))[0],
        [0; 32]
    );
    assert_eq!(
        shuffled(&format!("{odd} match.any.sync.b32 %r5, %r7, -1;"))[0],
        std::array::from_fn(|l| 0x5555_5555 << (l % 2))
    );
    assert_eq!(shuffled("redux.sync.add.u32 %r5, %r3, -1;")[0], [496; 32]);
    assert_eq!(
        shuffled("redux.sync.min.s32 %r5, %r2, -1;")[0],
        [a.iter().map(|&v| v as i32).min().unwrap() as u32; 32]
    );
    assert_eq!(
        shuffled("elect.sync %r5|%p1, -1; selp.u32 %r6, 1, 0, %p1;")[1],
        std::array::from_fn(|l| u32::from(l == 0))
    );
    assert_eq!(
        shuffled("activemask.b32 %r5; mov.u32 %r6, %lanemask_lt;"),
        [[u32::MAX; 32], std::array::from_fn(|l| (1 << l) - 1)]
    );
}

#[test]
fn divergent_lanes_take_their_own_paths_and_meet_again() {
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    // Collatz steps: a loop that every lane leaves at its own time, with a nested branch.
    let body = "mov.u32 %r7, %r2; add.s32 %r7, %r7, 1;\n\
                T: setp.le.u32 %p1, %r7, 1;\n@%p1 bra D;\n\
                and.b32 %r8, %r7, 1; setp.eq.u32 %p2, %r8, 0;\n@%p2 bra E;\n\
                mad.lo.s32 %r7, %r7, 3, 1; bra.uni N;\nE: shr.u32 %r7, %r7, 1;\n\
                N: add.s32 %r5, %r5, 1; bra T;\nD: activemask.b32 %r6;";
    let steps = |start: u32| {
        let (mut value, mut count) = (start + 1, 0);
        while value > 1 {
            value = if value % 2 == 0 { value / 2 } else { 3 * value + 1 };
            count += 1;
        }
        count
    };
    let [counts, mask] = run(body, [&lanes, &lanes, &lanes]);
    assert_eq!(counts, std::array::from_fn(|l| steps(l as u32)));
    assert_eq!(mask, [u32::MAX; 32]);
}

#[test]
fn atomics_return_old_values_and_sum_up() {
    let ones = [1u32; 32];
    let body = "atom.global.add.u32 %r5, [%rd1+2048], %r2; ld.global.u32 %r6, [%rd1+2048];";
    let [old, total] = run(body, [&ones, &ones, &ones]);
    let mut sorted = old;
    sorted.sort_unstable();
    assert_eq!(sorted, std::array::from_fn(|l| l as u32));
    assert_eq!(total, [32; 32]);
    let body = "mov.u32 %r7, 0; st.shared.u32 [%r7], %r7; bar.sync 0; mov.b32 %f1, 0f3F000000;\n\
                red.shared.add.f32 [%r7], %f1; bar.sync 0; ld.shared.u32 %r5, [%r7];";
    assert_eq!(run_block(body, [&ones, &ones, &ones], 32, 64)[0], [16f32.to_bits(); 32]);
    let body = "atom.global.max.s32 %r7, [%rd1+2048], %r1; atom.global.cas.b32 %r8, [%rd1+2048], 31, 99;\n\
                atom.global.inc.u32 %r9, [%rd1+2052], 4; ld.global.u32 %r5, [%rd1+2048];\n\
                ld.global.u32 %r6, [%rd1+2052];";
    let [max, wrapped] = run(body, [&ones, &ones, &ones]);
    assert_eq!((max[0], wrapped[0]), (99, 32 % 5));
    let body = "mov.u32 %r7, 0x3C003800; red.global.add.noftz.f16x2 [%rd1+2048], %r7;\n\
                ld.global.u32 %r5, [%rd1+2048];";
    let expected = u32::from(f16(32.0)) << 16 | u32::from(f16(16.0));
    assert_eq!(run(body, [&ones, &ones, &ones])[0], [expected; 32]);
}

#[test]
fn loads_extend_and_stores_truncate() {
    let a = integers(10);
    let body = "ld.global.s8 %r5, [%rd3+1]; ld.global.u16 %rs1, [%rd3+2]; cvt.s32.s16 %r6, %rs1;";
    let [byte, half] = run(body, [&a, &a, &a]);
    assert_eq!(byte, std::array::from_fn(|l| (a[l] >> 8) as i8 as i32 as u32));
    assert_eq!(half, std::array::from_fn(|l| (a[l] >> 16) as i16 as i32 as u32));
    let body = "st.global.u8 [%rd3+2048], %r2; ld.global.u32 %r5, [%rd3+2048];\n\
                ld.global.s32 %rd4, [%rd3]; shr.s64 %rd4, %rd4, 32; cvt.u32.u64 %r6, %rd4;";
    let [byte, sign] = run(body, [&a, &a, &a]);
    assert_eq!(byte, a.map(|v| v & 255));
    assert_eq!(sign, a.map(|v| (v as i32 >> 31) as u32));
    let body = "shl.b32 %r7, %r1, 4; st.shared.v4.b32 [%r7], {%r2, %r3, %r4, %r1}; bar.warp.sync -1;\n\
                xor.b32 %r7, %r7, 16; ld.shared.v2.u32 {_, %r5}, [%r7+8]; ld.shared.b16 %rs1, [%r7];\n\
                cvt.u32.u16 %r6, %rs1;";
    let [lane, low] = run_block(body, [&a, &a, &a], 32, 512);
    assert_eq!(lane, std::array::from_fn(|l| l as u32 ^ 1));
    assert_eq!(low, std::array::from_fn(|l| a[l ^ 1] & 0xFFFF));
}

#[test]
fn generic_addresses_reach_every_space() {
    let a = integers(11);
    let body = ".shared .align 8 .b8 tile[256]; .local .align 8 .b8 depot[16];\n\
                mov.u64 %rd4, tile; cvta.shared.u64 %rd5, %rd4; add.s64 %rd5, %rd5, %rd2;\n\
                st.u32 [%rd5], %r2; ld.u32 %r5, [%rd5];\n\
                mov.u64 %rd6, depot; cvta.local.u64 %rd7, %rd6; st.u32 [%rd7+8], %r1;\n\
                ld.local.u32 %r7, [%rd6+8]; cvta.to.shared.u64 %rd8, %rd5; cvt.u32.u64 %r8, %rd8;\n\
                ld.shared.u32 %r9, [%r8]; sub.s32 %r9, %r9, %r2; add.s32 %r6, %r7, %r9;\n\
                isspacep.shared %p1, %rd5; @!%p1 trap; isspacep.global %p2, %rd1; @!%p2 trap;";
    let [shared, local] = run(body, [&a, &a, &a]);
    assert_eq!(shared, a);
    assert_eq!(local, std::array::from_fn(|l| l as u32));
}

#[test]
fn module_tables_in_constant_and_global_space_are_readable() {
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    let body = "and.b32 %r7, %r1, 3; mul.wide.u32 %rd4, %r7, 4; mov.u64 %rd5, table; add.s64 %rd5, %rd5, %rd4;\n\
                ld.const.f32 %f1, [%rd5]; cvt.rzi.u32.f32 %r5, %f1;\n\
                mov.u64 %rd6, words; add.s64 %rd6, %rd6, %rd4; ld.global.u32 %r6, [%rd6];";
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; {body} mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n\
         st.global.u32 [%rd3], %r5; st.global.u32 [%rd3+128], %r6;"
    ));
    let declared = ".const .align 4 .f32 table[4] = {0f3F800000, 0f40000000, 0f40400000, 0f40800000};\n\
                    .global .align 4 .b8 words[16] = {5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 255, 255, 255, 255};\n\
                    .visible .entry";
    let text = text.replace(".visible .entry", declared);
    let mut memory = Memory::new();
    let p = memory.alloc("p", 256, Access::ReadWrite).unwrap();
    let options = RunOptions::default();
    let report =
        launch(&text, ([1, 1, 1], [32, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let read = memory.read(p, 0, 256).unwrap();
    let word = |i: usize| u32::from_le_bytes(read[4 * i..4 * i + 4].try_into().unwrap());
    for lane in lanes {
        assert_eq!(word(lane as usize), lane % 4 + 1);
        assert_eq!(word(32 + lane as usize), [5, 6, 7, u32::MAX][lane as usize % 4]);
    }
}

#[test]
fn barrier_reductions_count_and_combine_predicates() {
    let text = kernel(
        "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 40; bar.red.popc.u32 %r2, 0, %p1;\n\
         barrier.cta.red.and.aligned.pred %p2, 0, %p1; bar.red.or.pred %p3, 0, 64, !%p1;\n\
         selp.u32 %r3, 1, 0, %p2; selp.u32 %r4, 2, 0, %p3; add.s32 %r3, %r3, %r4;\n\
         st.global.u32 [%rd1], %r2; st.global.u32 [%rd1+4], %r3;",
    );
    let mut memory = Memory::new();
    let p = memory.alloc("p", 8, Access::ReadWrite).unwrap();
    memory.write(p, 0, &[0; 8]).unwrap();
    let options = RunOptions::default();
    let report =
        launch(&text, ([1, 1, 1], [64, 1, 1], 0), vec![at(p)], &mut memory, &options).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(memory.read(p, 0, 8).unwrap(), [40, 0, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn directed_roundings_and_flushed_comparisons_follow_their_modifiers() {
    let (a, b) = ([1.0f32.to_bits(); 32], [2f32.powi(-30).to_bits(); 32]);
    let tiny = [1u32; 32];
    let rounded = |op: &str| {
        f32::from_bits(
            run(
                &format!(
                    "mov.b32 %f1, %r2; mov.b32 %f2, %r3; mov.b32 %f3, %r4; {op} mov.b32 %r5, %f4;"
                ),
                [&a, &b, &tiny],
            )[0][0],
        )
    };
    assert_eq!(rounded("add.rz.f32 %f4, %f1, %f2;"), 1.0);
    assert_eq!(rounded("add.rp.f32 %f4, %f1, %f2;"), 1.0f32.next_up());
    assert_eq!(rounded("sub.rm.f32 %f4, %f1, %f3;"), 1.0f32.next_down());
    assert_eq!(rounded("fma.rp.f32 %f4, %f2, %f3, %f1;"), 1.0f32.next_up());
    let flags = run(
        "mov.b32 %f1, %r4; setp.gt.ftz.f32 %p1, %f1, 0f00000000; setp.gt.f32 %p2, %f1, 0f00000000;\n\
         selp.u32 %r5, 1, 0, %p1; selp.u32 %r6, 1, 0, %p2;",
        [&a, &b, &tiny],
    );
    assert_eq!(flags, [[0; 32], [1; 32]]);
    let packed = run(
        "max.s16x2 %r5, 0xFFFF0001, 0x00028000; add.u16x2 %r6, 0xFFFF0001, 0x00010001;",
        [&a, &b, &tiny],
    );
    assert_eq!(packed, [[0x0002_0001; 32], [0x0000_0002; 32]]);
    let found = run("bfind.shiftamt.u32 %r5, 0x100; bfind.s32 %r6, -256;", [&a, &b, &tiny]);
    assert_eq!(found, [[23; 32], [7; 32]]);
}
