//! Device functions, which are put in place of their calls.

mod support;

use qtune_sim::{Access, FindingKind, Memory, Module, RunOptions};
use support::{at, launch};

/// A module of `functions` with a kernel that stores `%r9` of every thread after `body`.
fn module(functions: &str, body: &str) -> String {
    format!(
        ".version 8.7\n.target sm_80\n.address_size 64\n{functions}\n\
         .visible .entry k(.param .u64 p)\n{{\n.reg .pred %p<9>; .reg .b32 %r<10>; .reg .b64 %rd<4>;\n\
         ld.param.u64 %rd1, [p]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4;\n\
         add.s64 %rd3, %rd1, %rd2;\n{body}\nst.global.u32 [%rd3], %r9; ret;\n}}\n"
    )
}

/// What each of 32 threads stored; there must be no finding.
fn run(functions: &str, body: &str) -> Vec<u32> {
    let mut memory = Memory::new();
    let p = memory.alloc("p", 128, Access::ReadWrite).unwrap();
    let text = module(functions, body);
    let shape = ([1, 1, 1], [32, 1, 1], 0);
    let report = launch(&text, shape, vec![at(p)], &mut memory, &RunOptions::default()).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let bytes = memory.read(p, 0, 128).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn call(function: &str, argument: &str, result: &str) -> String {
    format!(
        "{{ .param .b32 param0; .param .b32 retval0; st.param.b32 [param0], {argument};\n\
         call.uni (retval0), {function}, (param0); ld.param.b32 {result}, [retval0]; }}"
    )
}

const DOUBLE_OR_SEVEN: &str = ".func (.param .b32 result) pick(.param .b32 x)
{
    .reg .pred %p<2>; .reg .b32 %r<3>;
    ld.param.b32 %r1, [x];
    setp.lt.u32 %p1, %r1, 16;
    @%p1 bra SMALL;
    mov.u32 %r2, 7;
    st.param.b32 [result], %r2;
    ret;
SMALL:
    add.u32 %r2, %r1, %r1;
    st.param.b32 [result], %r2;
    ret;
}";

#[test]
fn a_function_returns_to_its_call_from_every_exit() {
    let picked = |x: u32| if x < 16 { 2 * x } else { 7 };
    let expected: Vec<u32> = (0..32).map(picked).collect();
    assert_eq!(run(DOUBLE_OR_SEVEN, &call("pick", "%r1", "%r9")), expected);
    let twice = call("pick", "%r1", "%r2") + "\n" + &call("pick", "%r2", "%r9");
    let expected: Vec<u32> = (0..32).map(|x| picked(picked(x))).collect();
    assert_eq!(run(DOUBLE_OR_SEVEN, &twice), expected);
}

#[test]
fn names_of_a_function_do_not_hide_those_of_its_caller() {
    // The outer function passes its own `param0` on and declares another one for the inner call.
    let outer = ".func (.param .b32 result) outer(.param .b32 param0)
{
    .reg .b32 %r<4>;
    ld.param.b32 %r1, [param0];
    { .param .b32 param0; .param .b32 retval0; add.u32 %r2, %r1, 1;
      st.param.b32 [param0], %r2;
      call.uni (retval0), pick, (param0);
      ld.param.b32 %r3, [retval0]; }
    ld.param.b32 %r1, [param0];
    sub.u32 %r3, %r3, %r1;
    st.param.b32 [result], %r3;
    ret;
}";
    let found = run(&format!("{DOUBLE_OR_SEVEN}\n{outer}"), &call("outer", "%r1", "%r9"));
    let picked = |x: u32| if x < 16 { 2 * x } else { 7 };
    let expected: Vec<u32> = (0..32).map(|x: u32| picked(x + 1).wrapping_sub(x)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_failed_assertion_traps_and_printf_is_refused_with_a_remedy() {
    let fail = ".extern .func __assertfail (.param .b64 m, .param .b32 l);";
    let body = "setp.lt.u32 %p1, %r1, 32; @%p1 bra GOOD;
        { .param .b64 m; .param .b32 l; st.param.b64 [m], 0; st.param.b32 [l], 7; call.uni __assertfail, (m, l); }
        GOOD: mov.u32 %r9, 3;";
    assert_eq!(run(fail, body), [3; 32]);
    let text = module(fail, &body.replace("32; @", "9; @"));
    let mut memory = Memory::new();
    let p = memory.alloc("p", 128, Access::ReadWrite).unwrap();
    let shape = ([1, 1, 1], [32, 1, 1], 0);
    let report = launch(&text, shape, vec![at(p)], &mut memory, &RunOptions::default()).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::Trap);
    let error = Module::parse(&module("", "call vprintf;")).unwrap_err().to_string();
    assert!(error.contains("take printf out"), "{error}");
}

#[test]
fn calls_that_cannot_be_followed_are_refused_with_their_line() {
    let recursive = DOUBLE_OR_SEVEN.replace(
        "mov.u32 %r2, 7;",
        "{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r1; call (b), pick, (a); }",
    );
    let many: String = (0..20)
        .map(|i| {
            let inner =
                if i == 0 { String::new() } else { format!("call f{}; call f{};", i - 1, i - 1) };
            format!(".func f{i}() {{ {inner} ret; }}\n")
        })
        .collect();
    for (functions, body, reason) in [
        ("", call("pick", "%r1", "%r9"), "does not define the function `pick`"),
        (DOUBLE_OR_SEVEN, "call pick, (p);".to_owned(), "0 parameters in the call, 1 declared"),
        (&recursive, call("pick", "%r1", "%r9"), "recursion"),
        (&many, "call f19;".to_owned(), "calls after inlining"),
        (DOUBLE_OR_SEVEN, "mov.u64 %rd1, 0; call %rd1, (p), proto;".to_owned(), "pointer"),
    ] {
        let error = Module::parse(&module(functions, &body)).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("line"), "{error}");
    }
}
