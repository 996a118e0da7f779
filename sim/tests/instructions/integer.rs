//! Integer arithmetic, logic and shifts (PTX ISA 9.7.1, 9.7.2, 9.7.8).

use crate::harness::*;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.1", "9.7.2", "9.7.8", "9.7.6", "9.7.9.7", "9.7.18", "9.7.9.2"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    integer_arithmetic_agrees_with_rust,
    every_lop3_table_is_its_truth_table,
    wide_integers_agree_with_rust,
    carries_pass_through_the_flag_of_each_lane,
    products_of_24_bits_take_the_lower_three_bytes,
    bytes_and_halves_of_a_word_are_combined_part_by_part,
    bytes_are_picked_by_every_mode_of_prmt,
    halves_of_a_word_are_added_and_compared,
    the_leading_bit_is_found_in_every_width,
    logic_works_on_predicates_and_every_width,
];

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
    // The flag of a subtraction is the adder's carry: 1 where nothing is borrowed.
    let [_, kept] = run("sub.cc.u32 %r5, %r2, %r3; addc.u32 %r6, 0, 0;", [&a, &b, &c]);
    assert_eq!(kept, std::array::from_fn(|l| u32::from(a[l] >= b[l])));
    let body = "mad.lo.cc.u32 %r5, %r2, %r3, %r4; madc.hi.u32 %r6, %r2, %r3, %r4;";
    let [low, high] = run(body, [&a, &b, &c]);
    for l in 0..32 {
        let product = u64::from(a[l]) * u64::from(b[l]);
        let sum = product.wrapping_add(whole(c[l], c[l]));
        assert_eq!(whole(high[l], low[l]), sum, "lane {l}");
    }
}

#[test]
fn products_of_24_bits_take_the_lower_three_bytes() {
    let (a, b, c) = (integers(21), integers(22), integers(23));
    let signed = |x: u32| i64::from((x << 8) as i32 >> 8);
    let unsigned = |x: u32| i64::from(x & 0xFF_FFFF);
    type Reference<'a> = &'a dyn Fn(i64) -> u32;
    let low: Reference = &|product| product as u32;
    let high: Reference = &|product| (product >> 16) as u32;
    for (part, take) in [("lo", low), ("hi", high)] {
        for (ty, widen) in [("s32", &signed as &dyn Fn(u32) -> i64), ("u32", &unsigned)] {
            let body =
                format!("mul24.{part}.{ty} %r5, %r2, %r3; mad24.{part}.{ty} %r6, %r2, %r3, %r4;");
            let product = |l: usize| take(widen(a[l]) * widen(b[l]));
            let [found, sum] = run(&body, [&a, &b, &c]);
            assert_eq!(found, std::array::from_fn(product), "{body}");
            assert_eq!(sum, std::array::from_fn(|l| product(l).wrapping_add(c[l])), "{body}");
        }
    }
}

/// A SIMD video instruction written down part by part after its pseudocode.
fn combined(op: &str, parts: u32, types: [&str; 3], mode: &str, [a, b, c]: [u32; 3]) -> u32 {
    let bits = 32 / parts;
    let value = |word: u32, part: u32, ty: &str| {
        let raw = i64::from(word >> (part * bits)) & ((1 << bits) - 1);
        if ty == "s32" && raw >> (bits - 1) == 1 {
            raw - (1 << bits)
        } else {
            raw
        }
    };
    let mut words = 0u32;
    let mut sum = c;
    for part in 0..parts {
        let (x, y) = (value(a, part, types[1]), value(b, part, types[2]));
        let mut t = match op {
            "vadd" => x + y,
            "vsub" => x - y,
            "vavrg" if x + y >= 0 => (x + y + 1) >> 1,
            "vavrg" => (x + y) >> 1,
            "vabsdiff" => (x - y).abs(),
            "vmin" => x.min(y),
            _ => x.max(y),
        };
        if mode == ".sat" {
            let (least, most) = match types[0] {
                "s32" => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
                _ => (0, (1 << bits) - 1),
            };
            t = t.clamp(least, most);
        }
        sum = sum.wrapping_add(t as u32);
        words |= (t as u32 & (((1u64 << bits) - 1) as u32)) << (part * bits);
    }
    if mode == ".add" {
        sum
    } else {
        words
    }
}

#[test]
fn bytes_and_halves_of_a_word_are_combined_part_by_part() {
    let (a, b, c) = (integers(24), integers(25), integers(26));
    for op in ["vadd", "vsub", "vavrg", "vabsdiff", "vmin", "vmax"] {
        for parts in [2, 4] {
            for types in [["u32"; 3], ["s32"; 3], ["s32", "u32", "s32"], ["u32", "s32", "s32"]] {
                for mode in ["", ".sat", ".add"] {
                    let opcode = format!("{op}{parts}.{}{mode}", types.join("."));
                    let found = run(&format!("{opcode} %r5, %r2, %r3, %r4;"), [&a, &b, &c])[0];
                    let expected = std::array::from_fn(|l| {
                        combined(op, parts, types, mode, [a[l], b[l], c[l]])
                    });
                    assert_eq!(found, expected, "{opcode}");
                }
            }
        }
    }
}

#[test]
fn bytes_are_picked_by_every_mode_of_prmt() {
    let (a, b, c) = (integers(27), integers(28), integers(29));
    // PTX ISA 9.7.9.7, the table of modes: for c = 0 to 3, the bytes from the highest down.
    let modes: [(&str, [u32; 4]); 6] = [
        ("f4e", [0x3210, 0x4321, 0x5432, 0x6543]),
        ("b4e", [0x5670, 0x6701, 0x7012, 0x0123]),
        ("rc8", [0x0000, 0x1111, 0x2222, 0x3333]),
        ("ecl", [0x3210, 0x3211, 0x3222, 0x3333]),
        ("ecr", [0x0000, 0x1110, 0x2210, 0x3210]),
        ("rc16", [0x1010, 0x3232, 0x1010, 0x3232]),
    ];
    let pick = |a: u32, b: u32, selector: u32| {
        let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
        u32::from_le_bytes(std::array::from_fn(|i| bytes[(selector >> (4 * i) & 7) as usize]))
    };
    for (mode, selectors) in modes {
        let found = run(&format!("prmt.b32.{mode} %r5, %r2, %r3, %r4;"), [&a, &b, &c])[0];
        let expected = std::array::from_fn(|l| pick(a[l], b[l], selectors[c[l] as usize & 3]));
        assert_eq!(found, expected, "{mode}");
    }
}

#[test]
fn halves_of_a_word_are_added_and_compared() {
    let (a, b) = (integers(30), integers(31));
    type Reference = fn(u16, u16) -> u16;
    let table: &[(&str, Reference)] = &[
        ("add.u16x2", u16::wrapping_add),
        ("add.s16x2", u16::wrapping_add),
        ("min.u16x2", |a, b| a.min(b)),
        ("min.s16x2", |a, b| (a as i16).min(b as i16) as u16),
        ("max.u16x2", |a, b| a.max(b)),
        ("max.s16x2", |a, b| (a as i16).max(b as i16) as u16),
    ];
    for (opcode, reference) in table {
        let found = run(&format!("{opcode} %r5, %r2, %r3;"), [&a, &b, &a])[0];
        let half = |l: usize, shift: u32| {
            u32::from(reference((a[l] >> shift) as u16, (b[l] >> shift) as u16)) << shift
        };
        assert_eq!(found, std::array::from_fn(|l| half(l, 0) | half(l, 16)), "{opcode}");
    }
}

#[test]
fn the_leading_bit_is_found_in_every_width() {
    let a = integers(32);
    // Negative numbers are searched for their leading zero (PTX ISA 9.7.1.16).
    let leading = |value: u64, bits: u32, signed: bool| -> u32 {
        let negative = signed && value >> (bits - 1) & 1 == 1;
        let value = if negative { !value & (u64::MAX >> (64 - bits)) } else { value };
        63u32.checked_sub(value.leading_zeros()).unwrap_or(u32::MAX)
    };
    for (ty, bits, signed) in
        [("u32", 32, false), ("s32", 32, true), ("u64", 64, false), ("s64", 64, true)]
    {
        let source = if bits == 64 { "%rd4" } else { "%r2" };
        let body = format!(
            "mov.b64 %rd4, {{%r2, %r2}}; bfind.{ty} %r5, {source}; bfind.shiftamt.{ty} %r6, {source};"
        );
        let [found, shift] = run(&body, [&a, &a, &a]);
        let value = |l: usize| {
            if bits == 64 {
                u64::from(a[l]) << 32 | u64::from(a[l])
            } else {
                a[l].into()
            }
        };
        let expected: Lanes = std::array::from_fn(|l| leading(value(l), bits, signed));
        assert_eq!(found, expected, "{ty}");
        let amount = |place: u32| if place == u32::MAX { place } else { bits - 1 - place };
        assert_eq!(shift, expected.map(amount), "{ty}");
    }
}

#[test]
fn logic_works_on_predicates_and_every_width() {
    let (a, b) = (integers(33), integers(34));
    let predicates = "and.b32 %r7, %r2, 1; setp.ne.u32 %p1, %r7, 0; and.b32 %r7, %r3, 1; setp.ne.u32 %p2, %r7, 0;";
    type Reference = fn(bool, bool) -> bool;
    let table: &[(&str, Reference)] = &[
        ("and.pred %p3, %p1, %p2;", |p, q| p & q),
        ("or.pred %p3, %p1, %p2;", |p, q| p | q),
        ("xor.pred %p3, %p1, %p2;", |p, q| p ^ q),
        ("not.pred %p3, %p1;", |p, _| !p),
        ("mov.pred %p3, %p2;", |_, q| q),
    ];
    for (body, reference) in table {
        let found = run(&format!("{predicates} {body} selp.u32 %r5, 1, 0, %p3;"), [&a, &b, &a])[0];
        let expected = |l: usize| u32::from(reference(a[l] & 1 == 1, b[l] & 1 == 1));
        assert_eq!(found, std::array::from_fn(expected), "{body}");
    }
    for (opcode, reference) in [
        ("and", (|a, b| a & b) as fn(u32, u32) -> u32),
        ("or", |a, b| a | b),
        ("xor", |a, b| a ^ b),
    ] {
        let expected: Lanes = std::array::from_fn(|l| reference(a[l], b[l]));
        let body = format!(
            "{opcode}.b32 %r5, %r2, %r3; mov.b64 %rd4, {{%r2, %r3}}; mov.b64 %rd5, {{%r3, %r2}};
             {opcode}.b64 %rd6, %rd4, %rd5; mov.b64 {{%r7, %r6}}, %rd6; sub.u32 %r7, %r7, %r5; add.u32 %r6, %r6, %r7;"
        );
        assert_eq!(run(&body, [&a, &b, &a]), [expected; 2], "{opcode}");
        let body = format!(
            "cvt.u16.u32 %rs1, %r2; cvt.u16.u32 %rs2, %r3; {opcode}.b16 %rs3, %rs1, %rs2; cvt.u32.u16 %r5, %rs3;"
        );
        assert_eq!(run(&body, [&a, &b, &a])[0], expected.map(|word| word & 0xFFFF), "{opcode}");
    }
    let found = run("prmt.b32 %r5, %r2, %r3, 0x7381;", [&a, &b, &a])[0];
    // Selector 8 replicates the sign of byte 0.
    let expected = |l: usize| {
        let sign = if a[l] >> 7 & 1 == 1 { 0xFF } else { 0 };
        u32::from_le_bytes([(a[l] >> 8) as u8, sign, (a[l] >> 24) as u8, (b[l] >> 24) as u8])
    };
    assert_eq!(found, std::array::from_fn(expected));
}
