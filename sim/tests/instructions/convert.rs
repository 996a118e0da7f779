//! Conversions between the common number formats (PTX ISA 9.7.9.21) and packing.

use crate::harness::*;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.9"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    conversions_between_formats_agree_with_the_half_crate_and_rust,
    four_bytes_pack_into_a_word_and_come_out_again,
    tf32_keeps_ten_bits_of_the_mantissa,
];

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
fn four_bytes_pack_into_a_word_and_come_out_again() {
    let body = ".reg .b8 b<4>; mov.b32 {b0, b1, b2, b3}, %r2; cvt.s32.s8 %r5, b2;\n\
                mov.b32 %r6, {b3, b2, b1, b0};";
    let a = integers(1);
    let [third, swapped] = run(body, [&a, &a, &a]);
    assert_eq!(third, a.map(|a| (a >> 16) as u8 as i8 as i32 as u32));
    assert_eq!(swapped, a.map(u32::swap_bytes));
}

#[test]
fn tf32_keeps_ten_bits_of_the_mantissa() {
    let a = floats(60);
    let found = run("mov.b32 %f1, %r2; cvt.rna.tf32.f32 %r5, %f1;", [&a, &a, &a])[0];
    for l in (0..32).filter(|&l| f32::from_bits(a[l]).is_finite()) {
        // Ties away from zero: half a unit is added to the magnitude.
        assert_eq!(found[l], (a[l] + 0x1000) & !0x1FFF, "lane {l}");
    }
}
