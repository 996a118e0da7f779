//! Comparisons and predicates (PTX ISA 9.7.6).

use std::cmp::Ordering;

use crate::harness::*;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.6", "9.7.8", "9.7.7"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    comparisons_follow_type_signedness_and_combination,
    floats_compare_ordered_and_unordered_in_every_format,
    set_gives_masks_or_ones,
];

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

type Comparison = (&'static str, fn(f64, f64) -> bool);

/// All comparisons of floats (PTX ISA 9.7.6.2): the `u` forms are true for NaN operands as well.
const COMPARISONS: &[Comparison] = &[
    ("eq", |a, b| a == b),
    ("ne", |a, b| a.partial_cmp(&b).is_some_and(Ordering::is_ne)),
    ("lt", |a, b| a < b),
    ("le", |a, b| a <= b),
    ("gt", |a, b| a > b),
    ("ge", |a, b| a >= b),
    ("equ", |a, b| a == b || a.is_nan() || b.is_nan()),
    ("neu", |a, b| a != b),
    ("ltu", |a, b| a.partial_cmp(&b).is_none_or(Ordering::is_lt)),
    ("leu", |a, b| a.partial_cmp(&b).is_none_or(Ordering::is_le)),
    ("gtu", |a, b| a.partial_cmp(&b).is_none_or(Ordering::is_gt)),
    ("geu", |a, b| a.partial_cmp(&b).is_none_or(Ordering::is_ge)),
    ("num", |a, b| !a.is_nan() && !b.is_nan()),
    ("nan", |a, b| a.is_nan() || b.is_nan()),
];

/// Pairs of values with equal ones and NaN on either side.
fn operands() -> [Lanes; 2] {
    let values = [1.0f32, -2.0, f32::NAN, 0.0, -0.0, f32::INFINITY, 0.5, 8.0];
    let a = std::array::from_fn(|l| values[l % 8].to_bits());
    let b = std::array::from_fn(|l| values[(l + l / 8) % 8].to_bits());
    [a, b]
}

#[test]
fn floats_compare_ordered_and_unordered_in_every_format() {
    let [a, b] = operands();
    let value = |bits: u32| f64::from(f32::from_bits(bits));
    let load = "mov.b32 %f1, %r2; mov.b32 %f2, %r3; cvt.f64.f32 %fd1, %f1; cvt.f64.f32 %fd2, %f2;
                cvt.rn.f16.f32 %rs1, %f1; cvt.rn.f16.f32 %rs2, %f2;
                cvt.rn.bf16x2.f32 %r7, %f2, %f1; cvt.rn.bf16x2.f32 %r8, %f1, %f2;";
    for (name, holds) in COMPARISONS {
        let expected: Lanes = std::array::from_fn(|l| u32::from(holds(value(a[l]), value(b[l]))));
        for (ty, operands) in [
            ("f32", "%f1, %f2"),
            ("ftz.f32", "%f1, %f2"),
            ("f64", "%fd1, %fd2"),
            ("f16", "%rs1, %rs2"),
        ] {
            let body = format!("{load} setp.{name}.{ty} %p1, {operands}; selp.u32 %r5, 1, 0, %p1;");
            assert_eq!(run(&body, [&a, &b, &a])[0], expected, "{body}");
        }
        let body = format!(
            "{load} setp.{name}.bf16x2 %p1|%p2, %r7, %r8; selp.u32 %r5, 1, 0, %p1; selp.u32 %r6, 1, 0, %p2;"
        );
        let swapped = std::array::from_fn(|l| u32::from(holds(value(b[l]), value(a[l]))));
        assert_eq!(run(&body, [&a, &b, &a]), [expected, swapped], "{body}");
    }
}

#[test]
fn set_gives_masks_or_ones() {
    let [a, b] = operands();
    let value = |bits: u32| f64::from(f32::from_bits(bits));
    let load = "mov.b32 %f1, %r2; mov.b32 %f2, %r3; cvt.f64.f32 %fd1, %f1; cvt.f64.f32 %fd2, %f2;
                cvt.rn.f16x2.f32 %r7, %f2, %f1; cvt.rn.f16x2.f32 %r8, %f1, %f2;
                cvt.rn.bf16x2.f32 %r9, %f2, %f1; cvt.rn.bf16x2.f32 %r10, %f1, %f2;";
    for (name, holds) in COMPARISONS {
        let of = |l: usize| [holds(value(a[l]), value(b[l])), holds(value(b[l]), value(a[l]))];
        let choose =
            |yes: u32| -> Lanes { std::array::from_fn(|l| if of(l)[0] { yes } else { 0 }) };
        let pair = |low: u32, high: u32| -> Lanes {
            std::array::from_fn(|l| {
                let [first, second] = of(l);
                (if first { low } else { 0 }) | if second { high } else { 0 }
            })
        };
        for (instruction, expected) in [
            (format!("set.{name}.u32.f32 %r5, %f1, %f2;"), choose(u32::MAX)),
            (format!("set.{name}.f32.f64 %f3, %fd1, %fd2; mov.b32 %r5, %f3;"), choose(0x3F80_0000)),
            (format!("set.{name}.u32.f16x2 %r5, %r7, %r8;"), pair(0xFFFF, 0xFFFF_0000)),
            (format!("set.{name}.f16x2.f16x2 %r5, %r7, %r8;"), pair(0x3C00, 0x3C00_0000)),
            (format!("set.{name}.u32.bf16x2 %r5, %r9, %r10;"), pair(0xFFFF, 0xFFFF_0000)),
            (format!("set.{name}.bf16x2.bf16x2 %r5, %r9, %r10;"), pair(0x3F80, 0x3F80_0000)),
        ] {
            assert_eq!(
                run(&format!("{load} {instruction}"), [&a, &b, &a])[0],
                expected,
                "{instruction}"
            );
        }
    }
}
