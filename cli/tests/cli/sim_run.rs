//! `sim run`: kernels of any origin on the simulator.

use crate::support::Qtune;
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// c[i] = a[i] + b[i] for i < n, all f32.
const VECTOR_ADD: &str = "\
.version 8.0
.target sm_80
.address_size 64
.visible .entry vector_add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
    .reg .pred %p<2>; .reg .b32 %r<6>; .reg .f32 %f<4>; .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    ld.param.u64 %rd3, [c];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    mul.wide.u32 %rd4, %r5, 4;
    add.s64 %rd5, %rd1, %rd4;
    add.s64 %rd6, %rd2, %rd4;
    add.s64 %rd7, %rd3, %rd4;
    ld.global.f32 %f1, [%rd5];
    ld.global.f32 %f2, [%rd6];
    add.f32 %f3, %f1, %f2;
    st.global.f32 [%rd7], %f3;
DONE:
    ret;
}
";

/// Elements of the vectors: not a multiple of the block.
const N: usize = 200;

/// A folder with a kernel, its launch file and its arrays.
struct Case {
    folder: TempDir,
    launch: Value,
}

/// The bytes of a one-dimensional npy file.
fn npy(stored: &str, elements: usize, data: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '{stored}', 'fortran_order': False, 'shape': ({elements},), }}");
    header += &" ".repeat(117 - header.len());
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    npy("<f4", data.len() / 4, &data)
}

impl Case {
    /// The vector addition as it should be.
    fn new() -> Case {
        let case = Case {
            folder: tempfile::tempdir().unwrap(),
            launch: json!({
                "entry": "vector_add", "grid": [2, 1, 1], "block": [128, 1, 1],
                "cluster": [1, 1, 1], "dynamic_shared_bytes": 0,
                "args": [
                    {"buffer": "a.npy", "mode": "in"},
                    {"buffer": "b.npy", "mode": "in", "dtype": "fp32"},
                    {"buffer": "c.npy", "mode": "out", "expected": "sum.npy", "write": "out.npy"},
                    {"u32": N},
                ],
            }),
        };
        case.file("kernel.ptx", VECTOR_ADD.as_bytes());
        case.file("a.npy", &floats((0..N).map(|i| i as f32)));
        case.file("b.npy", &floats((0..N).map(|i| 0.5 * i as f32)));
        case.file("c.npy", &floats((0..N).map(|_| f32::NAN)));
        case.file("sum.npy", &floats((0..N).map(|i| 1.5 * i as f32)));
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn args(&self, extra: &[&str]) -> Vec<String> {
        self.file("launch.json", self.launch.to_string().as_bytes());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (kernel, launch) = (text(&self.path("kernel.ptx")), text(&self.path("launch.json")));
        let mut args = vec!["sim".into(), "run".into(), kernel, "--launch".into(), launch];
        args.extend(extra.iter().map(|arg| arg.to_string()));
        args
    }

    /// Runs with `--json`; returns the exit code and the verdict.
    fn verdict(&self, extra: &[&str]) -> (i32, Value) {
        let args = self.args(&[extra, &["--json"]].concat());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let run = Qtune::new().run(&args);
        let verdict = serde_json::from_str(&run.stdout);
        (run.code, verdict.unwrap_or_else(|_| panic!("{}{}", run.stdout, run.stderr)))
    }

    /// The run must fail with one line on stderr, and write nothing.
    fn fails(&self, extra: &[&str], code: i32, parts: &[&str]) {
        let args = self.args(extra);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Qtune::new().fails(&args, code, parts);
        assert!(!self.path("out.npy").exists(), "{parts:?}: an output was written");
    }
}

#[test]
fn a_right_kernel_passes_under_every_schedule_and_order_and_its_output_is_written() {
    let case = Case::new();
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["passed"]), (0, &json!(true)), "{verdict}");
    assert_eq!(verdict["schedules"], json!(["lazy", "eager"]));
    assert_eq!([&verdict["blocks_run"], &verdict["blocks_total"]], [2, 2]);
    assert_eq!(verdict["findings"], json!([]));
    assert_eq!(
        verdict["comparisons"],
        json!([{"arg": 2, "buffer": "c.npy", "error": 0.0, "tolerance": 0.0, "elements": N,
                "unwritten": 0, "passed": true}])
    );
    // Seven warps of which the last has eight lanes within the bound.
    let counters = &verdict["counters"];
    assert_eq!(counters["classes"]["stg"], json!({"warp_instructions": 7, "lanes": N}));
    assert_eq!(counters["buffers"][0]["buffer"], "a.npy");
    assert_eq!(counters["buffers"][0]["loads"]["sectors"], N / 8);
    assert_eq!(fs::read(case.path("out.npy")).unwrap(), fs::read(case.path("sum.npy")).unwrap());
    for extra in [
        &["--schedule", "lazy", "--order", "reversed"][..],
        &["--schedule", "eager", "--order", "7", "--gpu", "rtx4090"],
    ] {
        assert_eq!(case.verdict(extra).0, 0, "{extra:?}");
    }
}

#[test]
fn people_read_the_verdict_on_stderr() {
    let case = Case::new();
    let args = case.args(&[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let run = Qtune::new().run(&args);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    for part in ["argument 2 (c.npy): passed", "a.npy: loads 7 request(s)", "2 of 2", "passed"] {
        assert!(run.stderr.contains(part), "`{part}` is not in: {}", run.stderr);
    }
}

#[test]
fn a_wrong_output_fails_unless_the_tolerance_allows_it() {
    let mut case = Case::new();
    case.file("sum.npy", &floats((0..N).map(|i| 1.5 * 1.01 * i as f32)));
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["passed"]), (4, &json!(false)));
    assert_eq!(verdict["findings"], json!([]));
    let error = verdict["comparisons"][0]["error"].as_f64().unwrap();
    assert!((error - 0.01 / 1.01).abs() < 1e-6, "{error}");
    case.launch["args"][2]["relative_tolerance"] = json!(0.02);
    assert_eq!(case.verdict(&[]).0, 0);
}

#[test]
fn an_access_past_the_end_is_a_finding_with_its_line_and_buffer() {
    let mut case = Case::new();
    case.launch["args"][3] = json!({"u32": N + 1});
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["passed"]), (4, &json!(false)));
    let line = 1 + VECTOR_ADD.lines().position(|line| line.contains("ld.global.f32 %f1")).unwrap();
    let finding = &verdict["findings"][0];
    assert_eq!(finding["kind"], "out_of_bounds");
    assert_eq!(finding["ptx_line"], line);
    assert_eq!(finding["buffer"], "a.npy");
    assert_eq!(finding["schedules"], json!(["lazy", "eager"]));
}

#[test]
fn modes_decide_what_the_kernel_may_do_and_what_it_must() {
    let mut case = Case::new();
    case.launch["args"][3] = json!({"u32": N - 1});
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["comparisons"][0]["unwritten"]), (4, &json!(1)));

    // The same element of an `inout` buffer keeps what it had.
    case.launch["args"][2]["mode"] = json!("inout");
    case.file("c.npy", &floats((0..N).map(|i| 1.5 * i as f32)));
    assert_eq!(case.verdict(&[]).0, 0);

    case.launch["args"][2] = json!({"buffer": "c.npy", "mode": "in"});
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["findings"][0]["kind"]), (4, &json!("read_only_write")));

    let mut case = Case::new();
    case.launch["args"][0]["mode"] = json!("out");
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["findings"][0]["kind"]), (4, &json!("uninitialised_memory")));
}

#[test]
fn an_output_needs_no_file_where_shape_and_type_are_given() {
    let mut case = Case::new();
    fs::remove_file(case.path("c.npy")).unwrap();
    case.launch["args"][2]["shape"] = json!([N]);
    case.launch["args"][2]["dtype"] = json!("fp32");
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["comparisons"][0]["elements"]), (0, &json!(N)), "{verdict}");
    assert_eq!(fs::read(case.path("out.npy")).unwrap(), fs::read(case.path("sum.npy")).unwrap());
    fs::remove_file(case.path("out.npy")).unwrap();
    for (shape, part) in [
        (json!([N, 2]), "[200, 2]"),
        (json!([0]), "no elements"),
        (json!([1u64 << 62]), "overflows"),
        (json!([1u64 << 40]), "the most is"),
    ] {
        case.launch["args"][2]["shape"] = shape;
        case.fails(&[], 1, &["`args[2]`", part]);
    }
}

#[test]
fn a_sample_of_the_blocks_is_compared_where_it_wrote() {
    let mut case = Case::new();
    case.launch["grid"] = json!([25, 1, 1]);
    case.launch["block"] = json!([8, 1, 1]);
    let (code, verdict) = case.verdict(&["--sample-blocks", "0"]);
    assert_eq!(
        (code, &verdict["blocks_run"], &verdict["blocks_total"]),
        (0, &json!(2), &json!(25))
    );
    assert_eq!(verdict["comparisons"][0]["elements"], 16);
    let (_, verdict) = case.verdict(&["--sample-blocks", "0", "--partners", "x"]);
    assert_eq!(verdict["blocks_run"], 25);
}

#[test]
fn a_kernel_that_reads_a_copy_too_early_differs_between_schedules() {
    let case = Case::new();
    // The copy is never waited for: lazily it has not landed when it is read.
    let body = "\
    .shared .align 16 .b8 tile[16];
    .reg .b32 %r<3>; .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [c];
    mov.u32 %r1, tile;
    cp.async.ca.shared.global [%r1], [%rd1], 4;
    cp.async.commit_group;
    ld.shared.u32 %r2, [%r1];
    st.global.u32 [%rd2], %r2;
    ret;
}
";
    let head = VECTOR_ADD.split_once("{\n").unwrap().0;
    case.file("kernel.ptx", format!("{head}{{\n{body}").as_bytes());
    case.file("a.npy", &floats((0..N).map(|_| 3.0)));
    let mut case = case;
    case.launch["grid"] = json!([1, 1, 1]);
    case.launch["block"] = json!([1, 1, 1]);
    case.launch["args"][2] = json!({"buffer": "c.npy", "mode": "out"});
    let (code, verdict) = case.verdict(&[]);
    assert_eq!(code, 4);
    assert_eq!(
        verdict["schedule_differences"],
        json!([{"arg": 2, "buffer": "c.npy", "elements": 1}])
    );
    assert_eq!(case.verdict(&["--schedule", "eager"]).1["schedule_differences"], json!([]));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let case = Case::new();
    case.file("kernel.ptx", VECTOR_ADD.replace("mad.lo.s32", "mad.low.s32").as_bytes());
    let line = 1 + VECTOR_ADD.lines().position(|line| line.contains("mad.lo")).unwrap();
    case.fails(&[], 1, &["kernel.ptx", &format!("PTX line {line}:"), "mad.low"]);

    let case = Case::new();
    fs::remove_file(case.path("b.npy")).unwrap();
    case.fails(&[], 1, &["launch.json", "`args[1]`", "cannot read", "b.npy"]);

    let case = Case::new();
    case.file("a.npy", &fs::read(case.path("a.npy")).unwrap()[..500]);
    case.fails(&[], 1, &["`args[0]`", "a.npy", "promises 800 bytes of data and 372 follow"]);

    let case = Case::new();
    case.file("sum.npy", &floats((0..N + 1).map(|_| 0.0)));
    case.fails(&[], 1, &["`args[2]`", "sum.npy", "[201]", "[200]"]);
}

#[test]
fn launches_that_make_no_sense_are_refused_with_the_field() {
    let edited = |edit: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut case = Case::new();
        edit(&mut case.launch);
        case.fails(&[], 1, parts);
    };
    edited(&|l| l["args"][2]["expcted"] = json!("x"), &["`args[2].expcted`", "unknown field"]);
    edited(&|l| l["gird"] = json!([1, 1, 1]), &["launch.json", "`gird`", "unknown field"]);
    edited(&|l| l["args"][3]["u32"] = json!("many"), &["`args[3].u32`", "many"]);
    edited(&|l| l["args"] = json!([{"u32": 1}]), &["1 arguments for 4 parameters"]);
    edited(&|l| l["args"][3] = json!({"u64": 1}), &["argument 3 has 8 bytes, not 4"]);
    edited(&|l| l["block"] = json!([2048, 1, 1]), &["block x is 2048"]);
    edited(&|l| l["grid"] = json!([0, 1, 1]), &["grid x is 0"]);
    edited(&|l| l["dynamic_shared_bytes"] = json!(1 << 20), &["sm_80", "per block"]);
    edited(&|l| l["entry"] = json!("other"), &["`other`", "vector_add"]);
    edited(
        &|l| l["cluster"] = json!([2, 1, 1]),
        &["cluster [2, 1, 1]", "sm_80 allows 1 to 1 blocks"],
    );
    edited(
        &|l| l["args"][0] = json!({"tensor_map": {"buffer": "a.npy"}}),
        &["`args[0].tensor_map`", "missing field `dtype`"],
    );
    edited(&|l| l["args"][2]["write"] = json!("no/out.npy"), &["cannot write", "no/out.npy"]);
    edited(&|l| l["args"][2]["write"] = json!("sum.npy"), &["sum.npy", "another file"]);
    edited(&|l| l["args"][2]["dtype"] = json!("bf16"), &["bf16 is stored as u2"]);
}

#[test]
fn endless_loops_end_and_impossible_options_are_usage_errors() {
    let case = Case::new();
    case.file("kernel.ptx", VECTOR_ADD.replace("    ret;", "    bra DONE;").as_bytes());
    case.fails(&["--instruction-limit", "1000"], 1, &["exceeded 1000 warp instructions"]);
    let case = Case::new();
    case.fails(&["--order", "sideways"], 2, &["sideways", "forward, reversed or a number"]);
    case.fails(&["--gpu", "h2000"], 2, &["h2000"]);
    case.file("kernel.ptx", VECTOR_ADD.replace("sm_80", "sm_90a").as_bytes());
    case.fails(&["--gpu", "a100"], 2, &["sm_90a", "does not run on a100"]);
}

#[test]
fn tensor_maps_of_a_launch_file_reach_the_kernel() {
    let mut case = Case::new();
    let kernel = "../sim/tests/fixtures/transpose.sm90a.ptx";
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(kernel)).unwrap();
    case.file("kernel.ptx", &text);
    let (rows, columns) = (64, 96);
    case.file("a.npy", &floats((0..rows * columns).map(|i| i as f32)));
    case.file("c.npy", &floats((0..rows * columns).map(|_| 0.0)));
    let turned = |i: usize| (i % rows * columns + i / rows) as f32;
    case.file("sum.npy", &floats((0..rows * columns).map(turned)));
    let map = |buffer: &str, dims: [usize; 2], swizzle: &str| {
        json!({"buffer": buffer, "dtype": "fp32", "dims": dims, "box": [32, 32],
               "swizzle": swizzle})
    };
    let output = map("c.npy", [rows, columns], "none");
    case.launch = json!({
        "grid": [rows / 32, 1, 1], "block": [160, 1, 1],
        "args": [
            {"tensor_map": map("a.npy", [columns, rows], "128B")},
            {"tensor_map": output, "mode": "out", "expected": "sum.npy"},
            {"i32": columns / 32},
        ],
    });
    let (code, verdict) = case.verdict(&[]);
    assert_eq!((code, &verdict["passed"]), (0, &json!(true)), "{verdict}");
    assert_eq!(verdict["comparisons"][0]["elements"], rows * columns);
    assert_eq!(verdict["counters"]["bulk_bytes"], 2 * 4 * rows * columns);
    // A stride that the driver refuses is an error of the argument, before anything runs.
    case.launch["args"][0]["tensor_map"]["strides_bytes"] = json!([100]);
    case.fails(&[], 1, &["`args[0]`", "`tensor_map`", "stride 1 is 100 bytes"]);
}
