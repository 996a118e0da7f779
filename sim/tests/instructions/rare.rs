//! Instructions that few kernels use, against scalar code after the PTX ISA's own pseudocode.

use crate::support::registers::{map, run_on};
use crate::support::Random;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.1", "9.7.3", "9.7.6", "9.7.13"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    bit_masks_and_extensions_follow_their_pseudocode,
    the_nth_set_bit_is_found_in_both_directions,
    testp_tells_what_kind_of_number_it_is,
    directed_roundings_take_the_neighbour_on_their_side,
    redux_finds_extremes_of_f32_over_the_warp,
];

/// Random words with small ones in between.
fn words(seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..2048)
        .map(|at| match at % 4 {
            0 => random.next() % 40,
            1 => random.next() | 0x8000_0000,
            _ => random.next(),
        })
        .collect()
}

/// PTX ISA 9.7.1.24.
fn bmsk(a: u32, b: u32, clamp: bool) -> u32 {
    let mut mask0 = !0u32 << (a & 31);
    let sum = (a & 31) + (b & 31);
    let mut overflow = sum >= 32;
    if clamp && a >= 32 {
        mask0 = 0;
    }
    overflow |= clamp && (a >= 32 || b >= 32);
    let mask1 = if overflow { 0 } else { !0u32 << sum };
    mask0 & !mask1
}

/// PTX ISA 9.7.1.23.
fn szext(a: u32, b: u32, clamp: bool, signed: bool) -> u32 {
    let bits = b & 31;
    let too_large = b >= 32 && clamp;
    let mask = if too_large { 0 } else { !0u32 << bits };
    let sign = bits != 0 && !too_large && signed && a >> (bits - 1) & 1 == 1;
    a & !mask | if sign { mask } else { 0 }
}

/// PTX ISA 9.7.1.18.
fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    if offset == 0 {
        return if mask >> base & 1 == 1 { base } else { !0 };
    }
    let (mut position, mut count) = (base as i32, offset.abs() - 1);
    while (0..32).contains(&position) {
        if mask >> position & 1 == 1 {
            if count == 0 {
                return position as u32;
            }
            count -= 1;
        }
        position += offset.signum();
    }
    !0
}

#[test]
fn bit_masks_and_extensions_follow_their_pseudocode() {
    let (a, b) = (words(1), words(3));
    let lanes = || a.iter().zip(&b);
    for clamp in [true, false] {
        let mode = if clamp { "clamp" } else { "wrap" };
        let found = map(&format!("bmsk.{mode}.b32 %r40, %r10, %r11;"), &a, &b);
        assert_eq!(found, lanes().map(|(&a, &b)| bmsk(a, b, clamp)).collect::<Vec<_>>());
        for signed in [true, false] {
            let ty = if signed { "s32" } else { "u32" };
            let found = map(&format!("szext.{mode}.{ty} %r40, %r10, %r11;"), &a, &b);
            assert_eq!(
                found,
                lanes().map(|(&a, &b)| szext(a, b, clamp, signed)).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn the_nth_set_bit_is_found_in_both_directions() {
    let (a, b) = (words(5), words(6));
    for offset in [-9, -1, 0, 1, 2, 30] {
        let body = format!("and.b32 %r11, %r11, 31; fns.b32 %r40, %r10, %r11, {offset};");
        let expected: Vec<u32> = a.iter().zip(&b).map(|(&a, &b)| fns(a, b & 31, offset)).collect();
        assert_eq!(map(&body, &a, &b), expected, "{offset}");
    }
}

#[test]
fn testp_tells_what_kind_of_number_it_is() {
    let values = [0.0f32, 1.0, -1e-40, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE];
    let bits = values.map(f32::to_bits);
    type Property = fn(f32) -> bool;
    let table: [(&str, Property); 6] = [
        ("finite", |x| x.is_finite()),
        ("infinite", |x| x.is_infinite()),
        ("number", |x| !x.is_nan()),
        ("notanumber", |x| x.is_nan()),
        ("normal", |x| x.is_normal()),
        ("subnormal", |x| x.is_subnormal()),
    ];
    for (name, property) in table {
        let single = format!("testp.{name}.f32 %p1, %f1; selp.u32 %r40, 1, 0, %p1;");
        assert_eq!(map(&single, &bits, &[]), values.map(|x| u32::from(property(x))), "{name}");
        // No f32 is subnormal in f64.
        let wide =
            format!("cvt.f64.f32 %fd1, %f1; testp.{name}.f64 %p1, %fd1; selp.u32 %r40, 1, 0, %p1;");
        let expected = values.map(|x| match name {
            "subnormal" => 0,
            "normal" => u32::from(x.is_normal() || x.is_subnormal()),
            _ => u32::from(property(x)),
        });
        assert_eq!(map(&wide, &bits, &[]), expected, "{name}.f64");
    }
}

#[test]
fn directed_roundings_take_the_neighbour_on_their_side() {
    // 1 / 3 and sqrt(3) have no exact result; the low word of f64 tells the neighbours apart.
    for (operation, down) in [
        ("div.{}.f32 %f3, %f1, %f2; mov.b32 %r40, %f3;", (1.0f64 / 3.0) as f32),
        ("rcp.{}.f32 %f3, %f2; mov.b32 %r40, %f3;", (1.0f64 / 3.0) as f32),
        ("sqrt.{}.f32 %f3, %f2; mov.b32 %r40, %f3;", 3f64.sqrt() as f32),
    ] {
        let exact = if operation.starts_with("sqrt") { 3f64.sqrt() } else { 1.0 / 3.0 };
        let below = if f64::from(down) > exact { down.next_down() } else { down };
        for (rounding, expected) in [("rm", below), ("rz", below), ("rp", below.next_up())] {
            let body = operation.replace("{}", rounding);
            let found = map(&body, &[1f32.to_bits()], &[3f32.to_bits()]);
            assert_eq!(found, [expected.to_bits()], "{body}");
        }
    }
    let third = (1.0f64 / 3.0).to_bits() as u32;
    for (rounding, expected) in [("rn", third), ("rm", third), ("rz", third), ("rp", third + 1)] {
        let body = format!(
            "cvt.f64.f32 %fd1, %f1; cvt.f64.f32 %fd2, %f2; div.{rounding}.f64 %fd3, %fd1, %fd2;\n\
             mov.b64 %rd5, %fd3; cvt.u32.u64 %r40, %rd5;"
        );
        assert_eq!(map(&body, &[1f32.to_bits()], &[3f32.to_bits()]), [expected], "{rounding}");
        let body = body.replace("div", "fma").replace("%fd1, %fd2;\n", "%fd3, %fd2, %fd1;\n");
        // Exact: whatever the rounding, 0 * 3 + 1 = 1.
        let body = format!("mov.f64 %fd3, 0d0000000000000000; {body}");
        assert_eq!(map(&body, &[1f32.to_bits()], &[3f32.to_bits()]), [0], "{body}");
    }
    // Packed: 1 + 2^-30 in both halves.
    let tiny = 2f32.powi(-30).to_bits();
    for (rounding, expected) in [("rn", 1.0f32), ("rz", 1.0), ("rp", 1f32.next_up())] {
        let body = format!(
            "mov.b64 %rd5, {{%r10, %r10}}; mov.b64 %rd6, {{%r11, %r11}};\n\
             add.{rounding}.f32x2 %rd7, %rd5, %rd6; mov.b64 {{%r41, %r40}}, %rd7;"
        );
        assert_eq!(map(&body, &[1f32.to_bits()], &[tiny]), [expected.to_bits()], "{rounding}");
    }
}

#[test]
fn redux_finds_extremes_of_f32_over_the_warp() {
    let mut random = Random::new(9);
    let mut values: [f32; 32] = std::array::from_fn(|_| random.small() * 100.0);
    let extreme =
        |values: &[f32; 32], f: fn(f32, f32) -> f32| values.iter().copied().fold(values[0], f);
    let found = |modifiers: &str, values: &[f32; 32]| {
        let body = format!("redux.sync.{modifiers}.f32 %r40, %r10, 0xffffffff;");
        let out = run_on("sm_100a", &body, &[values.map(f32::to_bits)], 1);
        assert!(out[0].iter().all(|&bits| bits == out[0][0]));
        f32::from_bits(out[0][0])
    };
    assert_eq!(found("min", &values), extreme(&values, f32::min));
    assert_eq!(found("max", &values), extreme(&values, f32::max));
    assert_eq!(found("max.abs", &values), extreme(&values.map(f32::abs), f32::max));
    values[7] = f32::NAN;
    assert_eq!(found("min", &values), extreme(&values, f32::min));
    assert!(found("max.NaN", &values).is_nan());
}
