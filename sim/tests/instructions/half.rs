//! Half precision (PTX ISA 9.7.4).

use crate::harness::*;
use crate::support::Random;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.4"];
/// All tests of the file.
pub const TESTS: &[fn()] =
    &[packed_halves_round_once, signs_extremes_and_approximations_work_on_both_halves];

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

/// One element of a pair as f32, by format.
fn element(bf16: bool, word: u32, shift: u32) -> f32 {
    let bits = (word >> shift) as u16;
    match bf16 {
        true => ::half::bf16::from_bits(bits).to_f32(),
        false => ::half::f16::from_bits(bits).to_f32(),
    }
}

#[test]
fn signs_extremes_and_approximations_work_on_both_halves() {
    for bf16 in [false, true] {
        let (ty, nan, quiet) =
            if bf16 { ("bf16x2", 0x7FC0, 0x7FFF) } else { ("f16x2", 0x7E00, 0x7FFF) };
        let narrow = |value: f32| match bf16 {
            true => ::half::bf16::from_f32(value).to_bits(),
            false => ::half::f16::from_f32(value).to_bits(),
        };
        let mut random = Random::new(50);
        let mut pairs = || -> Lanes {
            std::array::from_fn(|_| {
                u32::from(narrow(random.small() * 2.0)) | u32::from(narrow(random.small())) << 16
            })
        };
        let (mut a, b) = (pairs(), pairs());
        a[3] = nan | nan << 16;
        type Reference = fn(f32, f32) -> f32;
        let exact: &[(&str, Reference)] = &[
            ("neg.TY %r5, %r2;", |a, _| -a),
            ("abs.TY %r5, %r2;", |a, _| a.abs()),
            ("min.TY %r5, %r2, %r3;", f32::min),
            ("max.TY %r5, %r2, %r3;", f32::max),
            ("min.NaN.TY %r5, %r2, %r3;", |a, b| if a.is_nan() { a } else { a.min(b) }),
            ("max.NaN.TY %r5, %r2, %r3;", |a, b| if a.is_nan() { a } else { a.max(b) }),
            ("add.rn.TY %r5, %r2, %r3;", |a, b| a + b),
        ];
        let close: &[(&str, Reference)] = &[
            ("tanh.approx.TY %r5, %r2;", |a, _| a.tanh()),
            (
                if bf16 { "ex2.approx.ftz.TY %r5, %r2;" } else { "ex2.approx.TY %r5, %r2;" },
                |a, _| a.exp2(),
            ),
        ];
        for (body, reference) in exact.iter().chain(close) {
            let body = body.replace("TY", ty);
            let approximate = body.contains("approx");
            let found = run(&body, [&a, &b, &a])[0];
            for (l, shift) in (0..32).flat_map(|l| [(l, 0), (l, 16)]) {
                let bits = found[l] >> shift & 0xFFFF;
                let value = element(bf16, found[l], shift);
                let expected = reference(element(bf16, a[l], shift), element(bf16, b[l], shift));
                let good = match expected.is_nan() {
                    true => value.is_nan() && (bits & 0x7FFF == quiet || bits & 0x7FFF == nan),
                    false if approximate => (value - expected).abs() <= expected.abs() / 100.0,
                    false => bits == u32::from(narrow(expected)),
                };
                assert!(good, "{body}, lane {l}: {value} instead of {expected}");
            }
        }
    }
}
