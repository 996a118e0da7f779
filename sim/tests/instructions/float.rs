//! Floating-point arithmetic (PTX ISA 9.7.3, 9.7.5).

use crate::harness::*;
use crate::support::Random;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.3", "9.7.5"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    single_precision_agrees_with_rust,
    double_precision_and_packed_singles_agree_with_rust,
    extremes_by_magnitude_and_of_three_values_agree_with_rust,
    f32_sums_take_half_precision_operands_exactly,
    gross_approximations_use_the_upper_half_of_a_double_only,
    directed_roundings_and_flushed_comparisons_follow_their_modifiers,
    approximations_are_close_in_single_precision,
    double_precision_agrees_with_rust,
    pairs_of_singles_are_subtracted_and_multiplied,
    f32_sums_take_brain_floats_too,
];

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

#[test]
fn approximations_are_close_in_single_precision() {
    let mut random = Random::new(40);
    // In [-pi, pi] and [1/16, 16], where the manual bounds the errors absolutely.
    let angles: Lanes = std::array::from_fn(|_| (random.small() * std::f32::consts::PI).to_bits());
    let positive: Lanes = std::array::from_fn(|_| (random.small() * 4.0).exp2().to_bits());
    type Reference = fn(f64) -> f64;
    let table: &[(&str, &Lanes, Reference, f64)] = &[
        ("sin.approx.f32", &angles, f64::sin, 2e-6),
        ("cos.approx.ftz.f32", &angles, f64::cos, 2e-6),
        ("lg2.approx.f32", &positive, f64::log2, 2e-6),
        ("ex2.approx.ftz.f32", &angles, f64::exp2, 2e-6),
        ("tanh.approx.f32", &angles, f64::tanh, 2e-3),
        ("rsqrt.approx.ftz.f32", &positive, |x| 1.0 / x.sqrt(), 2e-6),
        ("rcp.approx.f32", &positive, |x| 1.0 / x, 4e-6),
        ("sqrt.approx.f32", &positive, f64::sqrt, 2e-6),
    ];
    for (opcode, inputs, reference, allowed) in table {
        let body = format!("mov.b32 %f1, %r2; {opcode} %f2, %f1; mov.b32 %r5, %f2;");
        let found = run(&body, [inputs, inputs, inputs])[0];
        for l in 0..32 {
            let exact = reference(f64::from(f32::from_bits(inputs[l])));
            let error = (f64::from(f32::from_bits(found[l])) - exact).abs();
            assert!(error <= allowed * exact.abs().max(1.0), "{opcode}, lane {l}: {error:e}");
        }
    }
}

#[test]
fn double_precision_agrees_with_rust() {
    let (a, b) = (floats(41), floats(42));
    let b: Lanes = std::array::from_fn(|l| b[(l + 5) % 32]);
    type Reference = fn(f64, f64) -> f64;
    let table: &[(&str, Reference)] = &[
        ("add.rn.f64 %fd3, %fd1, %fd2;", |a, b| a + b),
        ("sub.f64 %fd3, %fd1, %fd2;", |a, b| a - b),
        ("mul.f64 %fd3, %fd1, %fd2;", |a, b| a * b),
        ("mad.rn.f64 %fd3, %fd1, %fd2, %fd1;", |a, b| a.mul_add(b, a)),
        ("div.rn.f64 %fd3, %fd1, %fd2;", |a, b| a / b),
        ("abs.f64 %fd3, %fd1;", |a, _| a.abs()),
        ("neg.f64 %fd3, %fd1;", |a, _| -a),
        ("min.f64 %fd3, %fd1, %fd2;", |a, b| a.min(b)),
        ("max.f64 %fd3, %fd1, %fd2;", |a, b| a.max(b)),
        ("rcp.rn.f64 %fd3, %fd1;", |a, _| 1.0 / a),
        ("sqrt.rn.f64 %fd3, %fd1;", |a, _| a.sqrt()),
    ];
    let operands =
        "mov.b32 %f1, %r2; mov.b32 %f2, %r3; cvt.f64.f32 %fd1, %f1; cvt.f64.f32 %fd2, %f2;
                    mov.f64 %fd4, 0d3FF3333333333333; mul.f64 %fd1, %fd1, %fd4;";
    for (body, reference) in table {
        let body = format!("{operands} {body} mov.b64 %rd4, %fd3; mov.b64 {{%r5, %r6}}, %rd4;");
        let [low, high] = run(&body, [&a, &b, &a]);
        for l in 0..32 {
            let wide = |bits: u32| f64::from(f32::from_bits(bits));
            let expected = reference(wide(a[l]) * 1.2, wide(b[l]));
            let found = f64::from_bits(u64::from(high[l]) << 32 | u64::from(low[l]));
            let zeros = found == 0.0 && expected == 0.0;
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same || zeros, "{body}, lane {l}: {found:e} instead of {expected:e}");
        }
    }
    let body = format!("{operands} abs.f64 %fd1, %fd1; rsqrt.approx.f64 %fd3, %fd1; cvt.rn.f32.f64 %f3, %fd3; mov.b32 %r5, %f3;");
    let found = run(&body, [&a, &b, &a])[0];
    for l in (0..32).filter(|&l| f32::from_bits(a[l]).is_normal()) {
        let exact = 1.0 / (f64::from(f32::from_bits(a[l])) * 1.2).abs().sqrt();
        assert!((f64::from(f32::from_bits(found[l])) / exact - 1.0).abs() < 1e-6, "lane {l}");
    }
    let single =
        "mov.b32 %f1, %r2; mov.b32 %f2, %r3; mad.rn.f32 %f4, %f1, %f2, %f1; mov.b32 %r5, %f4;";
    let found = run(single, [&a, &b, &a])[0];
    let value = |values: &Lanes, l: usize| f32::from_bits(values[l]);
    assert_floats(&found, |l| value(&a, l).mul_add(value(&b, l), value(&a, l)), single);
}

#[test]
fn pairs_of_singles_are_subtracted_and_multiplied() {
    let (a, b) = (floats(43), floats(44));
    for (opcode, reference) in [
        ("add", (|a, b| a + b) as fn(f32, f32) -> f32),
        ("sub", |a, b| a - b),
        ("mul", |a, b| a * b),
    ] {
        let body = format!(
            "mov.b64 %rd4, {{%r2, %r3}}; mov.b64 %rd5, {{%r3, %r2}}; {opcode}.rn.f32x2 %rd6, %rd4, %rd5;
             mov.b64 {{%r5, %r6}}, %rd6;"
        );
        let [low, high] = run(&body, [&a, &b, &a]);
        let value = |values: &Lanes, l: usize| f32::from_bits(values[l]);
        assert_floats(&low, |l| reference(value(&a, l), value(&b, l)), opcode);
        assert_floats(&high, |l| reference(value(&b, l), value(&a, l)), opcode);
    }
}

#[test]
fn f32_sums_take_brain_floats_too() {
    let (a, c) = (floats(45), floats(46));
    let brain = |l: usize| f32::from_bits(a[l] & 0xFFFF_0000);
    let body = "shr.u32 %r7, %r2, 16; cvt.u16.u32 %rs1, %r7; mov.b32 %f1, %r3;
                add.f32.bf16 %f2, %rs1, %f1; mov.b32 %r5, %f2;";
    let found = run(body, [&a, &c, &a])[0];
    assert_floats(&found, |l| brain(l) + f32::from_bits(c[l]), body);
}
