//! Conversions to and from the small number formats, exhaustively, against decoders and a nearest
//! search written from the formats' definitions (PTX ISA 5.2.3 and 9.7.9.21).

use crate::support::registers::map;
use crate::support::Random;
use half::{bf16, f16};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.9.21"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    every_pair_of_codes_widens_to_its_values,
    f32_pairs_narrow_to_the_nearest_codes,
    every_f16_narrows_to_the_nearest_fp8_code,
    scales_are_the_powers_of_two_next_to_a_value,
    satfinite_clamps_to_the_largest_number_and_relu_to_zero,
    bytes_are_packed_lowest_first,
    integers_saturate_and_round_in_every_mode,
];

/// A format by its definition: name, bits, exponent bits, mantissa bits, codes that are numbers.
#[derive(Clone, Copy)]
struct Small {
    name: &'static str,
    exponent: u32,
    mantissa: u32,
    /// Largest code without a sign that is a number.
    largest: u32,
    /// Code of NaN, if there is one.
    nan: Option<u32>,
}

const E4M3: Small =
    Small { name: "e4m3x2", exponent: 4, mantissa: 3, largest: 0x7E, nan: Some(0x7F) };
const E5M2: Small =
    Small { name: "e5m2x2", exponent: 5, mantissa: 2, largest: 0x7B, nan: Some(0x7F) };
const E3M2: Small = Small { name: "e3m2x2", exponent: 3, mantissa: 2, largest: 0x1F, nan: None };
const E2M3: Small = Small { name: "e2m3x2", exponent: 2, mantissa: 3, largest: 0x1F, nan: None };
const E2M1: Small = Small { name: "e2m1x2", exponent: 2, mantissa: 1, largest: 0x07, nan: None };
const ALL: [Small; 5] = [E4M3, E5M2, E3M2, E2M3, E2M1];

impl Small {
    fn sign(self) -> u32 {
        1 << (self.exponent + self.mantissa)
    }

    /// Bits between the two elements of a pair.
    fn stride(self) -> u32 {
        if self.name == "e2m1x2" {
            4
        } else {
            8
        }
    }

    /// Value of a code; infinity only in e5m2.
    fn value(self, code: u32) -> f64 {
        let magnitude = code & (self.sign() - 1);
        let sign = if code & self.sign() != 0 { -1.0 } else { 1.0 };
        if magnitude > self.largest {
            let infinite = self.name == "e5m2x2" && magnitude == 0x7C;
            return if infinite { sign * f64::INFINITY } else { f64::NAN };
        }
        let bias = (1 << (self.exponent - 1)) - 1;
        let fraction = f64::from(magnitude & ((1 << self.mantissa) - 1));
        let fraction = fraction / f64::from(1 << self.mantissa);
        match (magnitude >> self.mantissa) as i32 {
            0 => sign * fraction * 2f64.powi(1 - bias),
            e => sign * (1.0 + fraction) * 2f64.powi(e - bias),
        }
    }

    /// The nearest number's code, the even one of two, saturating.
    fn nearest(self, value: f64) -> u32 {
        if value.is_nan() {
            return self.nan.unwrap_or(self.largest);
        }
        let magnitude = value.abs().min(self.value(self.largest));
        let distance = |code: u32| (self.value(code) - magnitude).abs();
        let best = (0..=self.largest)
            .min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a % 2).cmp(&(b % 2))));
        best.unwrap_or(0) | if value.is_sign_negative() { self.sign() } else { 0 }
    }
}

/// Bits of an f16; all NaN are the one that PTX gives.
fn half_bits(value: f64) -> u32 {
    if value.is_nan() {
        0x7FFF
    } else {
        u32::from(f16::from_f64(value).to_bits())
    }
}

#[test]
fn every_pair_of_codes_widens_to_its_values() {
    let brain_bits = |value: f64| match value.is_nan() {
        true => 0x7FFF,
        false => u32::from(half::bf16::from_f64(value).to_bits()),
    };
    let kinds = [("f16x2", half_bits as fn(f64) -> u32), ("bf16x2", brain_bits)];
    for (format, (to, bits), relu) in ALL.into_iter().flat_map(|format| {
        let each = kinds.into_iter().flat_map(|kind| [(kind, ""), (kind, ".relu")]);
        each.map(move |(kind, relu)| (format, kind, relu))
    }) {
        let stride = format.stride();
        // 6-bit codes leave two bits of each byte without meaning.
        let code_mask = 2 * format.sign() - 1;
        let pairs: Vec<u32> = (0..1u32 << (2 * stride)).collect();
        let body = if stride == 4 {
            format!("cvt.u8.u32 %b1, %r10; cvt.rn{relu}.{to}.{} %r40, %b1;", format.name)
        } else {
            format!("cvt.u16.u32 %rs1, %r10; cvt.rn{relu}.{to}.{} %r40, %rs1;", format.name)
        };
        let found = map(&body, &pairs, &[]);
        let one = |code: u32| {
            let value = format.value(code & code_mask);
            bits(if relu.is_empty() || value.is_nan() { value } else { value.max(0.0) })
        };
        for (&pair, &halves) in pairs.iter().zip(&found) {
            let mut expected = one(pair >> stride) << 16 | one(pair);
            if !relu.is_empty() {
                // The sign of a clamped zero is not specified.
                expected &= if expected & 0x7FFF == 0 { 0xFFFF_7FFF } else { u32::MAX };
            }
            assert_eq!(halves, expected, "{to} {} {pair:#x}", format.name);
        }
    }
}

/// f32 around every f16 and every rounding decision of the small formats.
fn interesting() -> Vec<u32> {
    let mut all = Vec::new();
    for format in ALL {
        let values: Vec<f64> = (0..=format.largest).map(|code| format.value(code)).collect();
        for pair in values.windows(2) {
            let middle = ((pair[0] + pair[1]) / 2.0) as f32;
            let beside = [middle.to_bits() - 1, middle.to_bits() + 1].map(f32::from_bits);
            all.extend([pair[0] as f32, beside[0], middle, beside[1]]);
        }
    }
    all.extend([f32::MAX, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-45, 500.0, 60_000.0]);
    all.iter().flat_map(|value| [value.to_bits(), (-value).to_bits()]).collect()
}

#[test]
fn f32_pairs_narrow_to_the_nearest_codes() {
    let first = interesting();
    let mut random = Random::new(5);
    let second: Vec<u32> =
        first.iter().map(|_| first[random.next() as usize % first.len()]).collect();
    for format in ALL {
        for relu in ["", ".relu"] {
            let convert = format!("cvt.rn.satfinite{relu}.{}.f32", format.name);
            let body = if format.stride() == 4 {
                format!("{convert} %b1, %f1, %f2; cvt.u32.u8 %r40, %b1;")
            } else {
                format!("{convert} %rs1, %f1, %f2; cvt.u32.u16 %r40, %rs1;")
            };
            let one = |bits: u32| {
                let value = f64::from(f32::from_bits(bits));
                let clamp = !relu.is_empty() && value.is_sign_negative() && !value.is_nan();
                format.nearest(if clamp { 0.0 } else { value })
            };
            for (at, &found) in map(&body, &first, &second).iter().enumerate() {
                let expected = one(first[at]) << format.stride() | one(second[at]);
                let inputs = [first[at], second[at]].map(f32::from_bits);
                assert_eq!(found, expected, "{convert} {inputs:?}");
            }
        }
    }
}

#[test]
fn every_f16_narrows_to_the_nearest_fp8_code() {
    let pairs: Vec<u32> =
        (0..=u16::MAX).map(|bits| u32::from(bits) << 16 | u32::from(!bits)).collect();
    for format in [E4M3, E5M2] {
        let body =
            format!("cvt.rn.satfinite.{}.f16x2 %rs1, %r10; cvt.u32.u16 %r40, %rs1;", format.name);
        let one = |bits: u32| format.nearest(f16::from_bits(bits as u16).to_f64());
        for (&pair, &found) in pairs.iter().zip(&map(&body, &pairs, &[])) {
            assert_eq!(found, one(pair >> 16) << 8 | one(pair), "{} {pair:#x}", format.name);
        }
    }
}

#[test]
fn scales_are_the_powers_of_two_next_to_a_value() {
    let codes: Vec<u32> = (0..=u16::MAX).map(u32::from).collect();
    let widened = map("cvt.u16.u32 %rs1, %r10; cvt.rn.bf16x2.ue8m0x2 %r40, %rs1;", &codes, &[]);
    let value = |code: u32| match code & 0xFF {
        0xFF => 0x7FFF,
        code => u32::from(bf16::from_f64(2f64.powi(code as i32 - 127)).to_bits()),
    };
    for (&pair, &found) in codes.iter().zip(&widened) {
        assert_eq!(found, value(pair >> 8) << 16 | value(pair));
    }
    // Every positive finite bf16 lies between the power below and the one above.
    let halves: Vec<u32> = (1..0x7F80).map(|bits| bits << 16 | 0x3F80).collect();
    for (rounding, up) in [("rz", false), ("rp", true)] {
        let body =
            format!("cvt.{rounding}.satfinite.ue8m0x2.bf16x2 %rs1, %r10; cvt.u32.u16 %r40, %rs1;");
        for (&pair, &found) in halves.iter().zip(&map(&body, &halves, &[])) {
            let exact = f64::from(bf16::from_bits((pair >> 16) as u16).to_f32()).log2();
            let exponent = if up { exact.ceil() } else { exact.floor() };
            let expected = (exponent as i32 + 127).clamp(0, 254) as u32;
            assert_eq!(found, expected << 8 | 127, "{rounding} {pair:#x}");
        }
        let body = format!("cvt.{rounding}.ue8m0x2.f32 %rs1, %f1, %f2; cvt.u32.u16 %r40, %rs1;");
        let inputs = [3.0f32, f32::NAN, f32::MAX, 2f32.powi(-127)].map(f32::to_bits);
        let expected = if up { [129, 255, 255, 0] } else { [128, 255, 254, 0] };
        let found = map(&body, &inputs, &[1f32.to_bits(); 4]);
        assert_eq!(found, expected.map(|code: u32| code << 8 | 127));
    }
}

#[test]
fn satfinite_clamps_to_the_largest_number_and_relu_to_zero() {
    let inputs =
        [70_000.0f32, -1e9, f32::INFINITY, -2.0, 1.5, f32::NAN, f32::MAX].map(f32::to_bits);
    let table: [(&str, [u32; 7]); 6] = [
        (
            "cvt.rn.satfinite.f16.f32 %rs1, %f1;",
            [0x7BFF, 0xFBFF, 0x7BFF, 0xC000, 0x3E00, 0x7FFF, 0x7BFF],
        ),
        ("cvt.rn.f16.f32 %rs1, %f1;", [0x7C00, 0xFC00, 0x7C00, 0xC000, 0x3E00, 0x7FFF, 0x7C00]),
        ("cvt.rn.relu.f16.f32 %rs1, %f1;", [0x7C00, 0, 0x7C00, 0, 0x3E00, 0x7FFF, 0x7C00]),
        ("cvt.rz.f16.f32 %rs1, %f1;", [0x7BFF, 0xFBFF, 0x7C00, 0xC000, 0x3E00, 0x7FFF, 0x7BFF]),
        (
            "cvt.rn.satfinite.bf16.f32 %rs1, %f1;",
            [0x4789, 0xCE6E, 0x7F7F, 0xC000, 0x3FC0, 0x7FFF, 0x7F7F],
        ),
        (
            "cvt.rn.relu.satfinite.bf16.f32 %rs1, %f1;",
            [0x4789, 0, 0x7F7F, 0, 0x3FC0, 0x7FFF, 0x7F7F],
        ),
    ];
    for (convert, expected) in table {
        let found = map(&format!("{convert} cvt.u32.u16 %r40, %rs1;"), &inputs, &[]);
        assert_eq!(found, expected, "{convert}");
        // The packed form does the same to both of its halves.
        let packed = convert.replace("f16.f32 %rs1, %f1", "f16x2.f32 %r40, %f1, %f1");
        if !convert.contains("rz") {
            let both = expected.map(|half| half << 16 | half);
            assert_eq!(map(&packed, &inputs, &[]), both, "{packed}");
        }
    }
    let found = map("cvt.rn.satfinite.tf32.f32 %r40, %f1;", &inputs, &[]);
    assert_eq!([found[2], found[3], found[6]], [0x7F7F_E000, (-2f32).to_bits(), 0x7F7F_E000]);
    let found = map("cvt.rn.relu.tf32.f32 %r40, %f1;", &inputs, &[]);
    assert_eq!([found[2], found[3], found[4]], [0x7F80_0000, 0, 1.5f32.to_bits()]);
}

#[test]
fn bytes_are_packed_lowest_first() {
    let words = [0x0403_0201u32, 0xFFEE_DDCC];
    let body = "mov.b32 {%b1, %b2, %b3, %b4}, %r10; mov.b32 %r40, {%b4, %b3, %b2, %b1};";
    assert_eq!(map(body, &words, &[]), words.map(u32::swap_bytes));
    let body = "mov.b32 {%rs1, %rs2}, %r10; mov.b16 {%b1, %b2}, %rs1; mov.b16 %rs3, {%b2, %b1};\n\
                cvt.u32.u16 %r40, %rs3;";
    assert_eq!(map(body, &words, &[]), [0x0102, 0xCCDD]);
}

#[test]
fn integers_saturate_and_round_in_every_mode() {
    let inputs = [300u32, -5i32 as u32, 127, 0x8000_0000];
    let body = "cvt.sat.u8.s32 %b1, %r10; cvt.u32.u8 %r40, %b1;";
    assert_eq!(map(body, &inputs, &[]), [255, 0, 127, 0]);
    let body = "cvt.sat.s8.s32 %b1, %r10; cvt.s32.s8 %r40, %b1;";
    assert_eq!(map(body, &inputs, &[]), [127, -5i32 as u32, 127, -128i32 as u32]);
    // 2^54 + 1 lies between two f64; the low word of the difference to 2^54 tells which was taken.
    for (rounding, negative, expected) in
        [("rz", false, 0u32), ("rp", false, 4), ("rm", true, 4), ("rz", true, 0), ("rn", false, 0)]
    {
        let sign = if negative { "neg.s64 %rd5, %rd5;" } else { "" };
        let body = format!(
            "mov.b64 %rd5, 0x40000000000001; {sign} cvt.{rounding}.f64.s64 %fd1, %rd5; abs.f64 %fd1, %fd1;\n\
             cvt.rni.u64.f64 %rd6, %fd1; sub.s64 %rd6, %rd6, 0x40000000000000; cvt.u32.u64 %r40, %rd6;"
        );
        assert_eq!(map(&body, &[0], &[]), [expected], "{rounding} {negative}");
    }
}
