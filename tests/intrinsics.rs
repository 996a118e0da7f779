//! The intrinsic table's meanings against the emitted text, executed by the simulator: two authors
//! of the same row.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use qtune_codegen::intrinsics::{all, Arg, Intrinsic, Meaning};
use qtune_codegen::kir::{self, load, var, Body, Buffer, Expr, Parameter, Program, Space, Type};
use qtune_sim::{Access, Arg as Value, Launch, Limits, Memory, Module, RunOptions};
use qtune_tests::nvrtc;

/// Threads of the test launch, one set of operands each.
const THREADS: u32 = 256;

fn buffer(name: &str, space: Space) -> Parameter {
    Parameter::Buffer(Buffer { name: name.into(), space, element: Type::U32 })
}

/// `out[thread] = row(in[3 * thread], ...)`, operands and result as bits.
fn kernel(row: &'static Intrinsic) -> Program {
    let mut body = Body::new();
    let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
    let operand = |(index, arg): (usize, &Arg)| {
        let bits = load("operands", thread.clone() * 3u32 + index as u32);
        match arg {
            Arg::In(Type::F32) => kir::call("bits_f32", [bits]),
            Arg::In(Type::I32) => bits.cast(Type::I32),
            _ => bits,
        }
    };
    let args: Vec<Expr> = row.args.iter().enumerate().map(operand).collect();
    let value = kir::call(row.name, args);
    let (element, value) = match row.result {
        Some(Type::U16) => (Type::U32, value.cast(Type::U32)),
        Some(ty) => (ty, value),
        None => unreachable!("pure rows have results"),
    };
    body.store("out", thread, value);
    let out = Buffer { name: "out".into(), space: Space::GlobalWrite, element };
    Program {
        header: vec![],
        name: "apply".into(),
        threads: THREADS,
        resident: None,
        cluster: [1; 3],
        parameters: vec![buffer("operands", Space::GlobalRead), Parameter::Buffer(out)],
        constants: vec![],
        shared: vec![],
        shared_bytes: 0,
        shared_align: 16,
        body: body.finish(),
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}

fn is_nan(row: &Intrinsic, bits: u32) -> bool {
    let half = |bits: u32, exponent: u32, mantissa: u32| {
        bits & exponent == exponent && bits & mantissa != 0
    };
    match (row.result, row.name.contains("bf")) {
        (Some(Type::F32), _) => f32::from_bits(bits).is_nan(),
        (_, true) => half(bits, 0x7f80, 0x7f) || half(bits >> 16, 0x7f80, 0x7f),
        (_, false) => half(bits, 0x7c00, 0x3ff) || half(bits >> 16, 0x7c00, 0x3ff),
    }
}

/// Runs the row's emitted text on `operands`, three words per thread.
fn execute(ptx: &str, operands: &[u32]) -> Vec<u32> {
    let module = Module::parse(ptx).expect("PTX that the simulator decodes");
    let mut memory = Memory::new();
    let bytes: Vec<u8> = operands.iter().flat_map(|word| word.to_le_bytes()).collect();
    let input = memory.alloc("operands", bytes.len(), Access::ReadOnly).expect("a buffer");
    let output = memory.alloc("out", THREADS as usize * 4, Access::ReadWrite).expect("a buffer");
    memory.write(input, 0, &bytes).expect("inside the buffer");
    let launch = Launch {
        grid: [1, 1, 1],
        block: [THREADS, 1, 1],
        cluster: [1, 1, 1],
        dynamic_shared_bytes: 0,
        args: [input, output].map(|id| Value::Buffer { id, offset: 0 }).to_vec(),
    };
    let options = RunOptions { limits: Limits::for_sm(90), ..RunOptions::default() };
    let report = qtune_sim::run(&module, "apply", &launch, &mut memory, &options);
    let report = report.expect("a launch that ends");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    words(&memory.read(output, 0, THREADS as usize * 4).expect("inside the buffer"))
}

#[test]
fn every_pure_row_means_what_its_text_computes() {
    let Some(nvrtc) = nvrtc() else { return };
    let mut runner = TestRunner::deterministic();
    for row in all() {
        let Meaning::Pure(meaning) = row.meaning else { continue };
        let program = kernel(row);
        kir::verify(&program, (9, 0)).unwrap_or_else(|error| panic!("{}: {error}", row.name));
        let source = kir::write(std::slice::from_ref(&program));
        let compiled = nvrtc.compile(&source, row.name, "sm_90a", &[]);
        let ptx = compiled.unwrap_or_else(|error| panic!("{}: {error}", row.name)).ptx;
        let draw = prop::collection::vec(any::<u32>(), THREADS as usize * 3);
        let operands = draw.new_tree(&mut runner).expect("a draw").current();
        let found = execute(&ptx, &operands);
        for (thread, found) in found.into_iter().enumerate() {
            let args = &operands[3 * thread..3 * thread + row.args.len()];
            let wanted = meaning(args);
            let same = wanted == found || is_nan(row, wanted) && is_nan(row, found);
            assert!(same, "{}({args:08x?}) = {found:08x}, meant {wanted:08x}", row.name);
        }
    }
}
