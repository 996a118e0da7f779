//! Text that is not a kernel: an error with its line, never a panic, never a skipped instruction.

mod support;

use qtune_sim::{covered_instructions, Module, SimError};
use support::{kernel, ptx, Random};

fn decode_error(body: &str) -> (u32, String) {
    match Module::parse(&kernel(body)) {
        Err(error @ (SimError::Decode { line, .. } | SimError::Parse { line, .. })) => {
            (line, error.to_string())
        }
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn unknown_opcodes_modifiers_and_operands_are_rejected_with_their_line() {
    for (body, part) in [
        ("frobnicate.s32 %r1, %r2;", "opcode `frobnicate`"),
        ("add.s32.sat %r1, %r2, %r3;", ".s32"),
        ("add.sat.u32 %r1, %r2, %r3;", ".s32 only"),
        ("ld.global.L1::magic.u32 %r1, [%rd1];", "L1::magic"),
        ("mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 %r1, %r2, %r3, %r4;", ".row"),
        ("add.s32 %r1, %r2;", "2 operands"),
        ("add.s32 %r1, %r2, %rd1;", "64-bit register"),
        ("add.s32 %r1, %r2, %nope;", "%nope"),
        ("add.s32 %r1, %r2, %r64;", "%r64"),
        ("add.s32 %r1, %r2, 0x100000000;", "does not fit 32 bits"),
        ("bra NOWHERE;", "label `NOWHERE`"),
        ("mov.u32 %r1, undeclared;", "`undeclared` is not declared"),
        ("ld.global.v4.u32 {%r1,%r2}, [%rd1];", "2 elements, expected 4"),
        ("cp.async.cg.shared.global [%r1], [%rd1], 8;", "copies"),
        ("call foo;", "does not define the function `foo`"),
        ("brkpt;", "opcode `brkpt`"),
        ("setp.lt.s32 %r1, %r2, %r3;", "predicate register"),
        ("cvt.s32.f32 %r1, %f1;", "needs .rni"),
        ("lop3.b32 %r1, %r2, %r3, %r4, 256;", "outside"),
        (".magic 5;", "unknown directive"),
        ("atom.global.u32 %r1, [%rd1], %r2;", "names its operation"),
        ("brx.idx %r1, nowhere;", "no `.branchtargets` `nowhere`"),
        ("t: .branchtargets NOWHERE;", "label `NOWHERE`"),
        (".branchtargets NOWHERE;", "unknown directive"),
        (".reg .b128 %q; atom.global.add.b128 %q, [%rd1], %q;", ".add"),
        (".reg .b128 %q; mov.b128 %q, %rd1;", "128 are needed"),
    ] {
        let (line, text) = decode_error(body);
        assert_eq!(line, 9, "{text}");
        assert!(text.contains(part), "{body}: {text}");
    }
}

#[test]
fn labels_and_registers_resolve_by_innermost_scope() {
    let inner = "{ .reg .b32 t; mov.u32 t, 1; L: setp.eq.u32 %p1, t, 2; @%p1 bra L; }";
    assert!(Module::parse(&kernel(&format!("{inner}\n{inner}\nbra L; L:"))).is_ok());
    assert!(Module::parse(&kernel(&format!("{inner} mov.u32 t, 2;"))).is_err());
    assert!(Module::parse(&kernel(&format!("{inner} bra L;"))).is_err());
    assert!(Module::parse(&kernel("L: L: bra L;")).is_err());
}

#[test]
fn truncated_text_is_an_error_at_every_length() {
    let text = ptx("gemv", "sm80");
    let end = text.trim_end().len();
    for length in (0..end).step_by(7) {
        if let Ok(module) = Module::parse(&text[..length]) {
            assert_eq!(module.entries().count(), 0, "cut at {length}");
        }
    }
}

#[test]
fn damaged_text_never_panics() {
    let mut random = Random::new(11);
    for name in ["gemv", "mma", "splitk"] {
        let text = ptx(name, "sm120").into_bytes();
        for _ in 0..300 {
            let mut damaged = text.clone();
            for _ in 0..1 + random.next() % 3 {
                let at = random.next() as usize % damaged.len();
                match random.next() % 3 {
                    0 => damaged[at] = b" ;{}[]<>%.,0+-@!|_x\n"[random.next() as usize % 20],
                    1 => {
                        damaged.remove(at);
                    }
                    _ => damaged.insert(at, b"{[.;9"[random.next() as usize % 5]),
                }
            }
            // Either outcome is fine; the kernel may still be valid after the damage.
            let _ = Module::parse(&String::from_utf8_lossy(&damaged));
        }
    }
}

#[test]
fn absurd_declarations_are_refused() {
    for module in [
        ".shared .b8 x[99999999999];",
        ".global .u32 x[4294967295];",
        ".global .b8 x[2] = {1, 2, 3};",
        ".global .align 3 .b8 x[4];",
        ".entry k(.param .b8 p[40000]) { ret; }",
        ".address_size 32",
        ".func f() { ret;",
    ] {
        assert!(Module::parse(module).is_err(), "{module}");
    }
    let deep = format!(".entry k() {{ {}", "{".repeat(100_000));
    assert!(Module::parse(&deep).is_err());
    let many = ".entry k() { .reg .b32 %r<4000000000>; mov.u32 %r3999999999, 1; ret; }";
    assert!(Module::parse(many).is_ok());
}

#[test]
fn the_covered_list_names_what_the_fixtures_use() {
    let covered = covered_instructions();
    for opcode in ["ld ", "st ", "mma ", "ldmatrix ", "cp <async>", "shfl ", "bar ", "lop3 "] {
        assert!(covered.iter().any(|c| c.form.starts_with(opcode)), "{opcode}");
    }
    for name in ["gemv", "mma", "splitk"] {
        for target in support::TARGETS {
            let module = Module::parse(&ptx(name, target)).unwrap();
            let entry = module.entries().next().unwrap();
            assert!(module.instruction_count(entry).unwrap() > 50);
            assert_eq!(module.target(), target.replace("sm", "sm_"));
        }
    }
}
