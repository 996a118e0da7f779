//! `verify`, on synthetic weights and through the runtime.

use crate::support::{golden, has_compiler, Qtune, GOLDEN};
use serde_json::Value;

/// The fields of a case's counts, as they are documented.
const COUNTS: [&str; 8] = [
    "lane_instructions_per_weight",
    "shared_wavefronts_over_ideal",
    "global_sectors_over_ideal",
    "weight_bytes_over_compulsory",
    "bytes_in_flight_per_sm",
    "registers",
    "spill_bytes",
    "shared_bytes",
];

fn assert_passed(cases: &Value, tokens: &[u32]) {
    let cases = cases["cases"].as_array().unwrap();
    let found: Vec<u64> = cases.iter().map(|case| case["m"].as_u64().unwrap()).collect();
    assert_eq!(found, tokens.iter().map(|m| u64::from(*m)).collect::<Vec<_>>());
    for case in cases {
        assert_eq!(case["passed"], true, "{case}");
        assert!(case["error_over_bound"].as_f64().is_some_and(|ratio| ratio <= 1.0), "{case}");
        assert!(["gemv", "mma"].contains(&case["family"].as_str().unwrap()), "{case}");
        for field in COUNTS {
            assert!(case["counts"][field].is_number(), "{field} of {case}");
        }
    }
}

#[test]
fn a_problem_is_verified_for_every_token_count_with_its_counts() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let problem = ["verify", "--gpu", "h200", "--format", "awq-g128", "--n", "64", "--k", "256"];
    let run = |extra: &[&str]| qtune.json(&[&problem[..], extra, &["--json"]].concat());
    assert_passed(&run(&["--m", "1,3,16,65"]), &[1, 3, 16, 65]);
    assert_passed(&run(&["--m", "5", "--act", "bf16", "--bias"]), &[5]);
    let mma = run(&["--m", "1", "--family", "mma"]);
    assert_passed(&mma, &[1]);
    assert_eq!(mma["cases"][0]["family"], "mma");
    assert!(!qtune.cache.path().join("cache").exists(), "verify has no business in the cache");
}

#[test]
fn every_golden_layer_passes_as_the_runtime_serves_it() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    for (case, layer) in GOLDEN {
        let path = golden(case);
        let args = ["verify", "--gpu", "h200", "--checkpoint", path.to_str().unwrap()];
        let args = [&args[..], &["--tensor", layer, "--m", "1,7,16,33", "--json"]].concat();
        let cases = qtune.json(&args);
        assert_passed(&cases, &[1, 7, 16, 33]);
        assert!(cases["cases"].as_array().unwrap().iter().all(|c| c["origin"] == "default"));
    }
}

#[test]
fn a_layer_is_served_by_the_family_or_schedule_that_was_named() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let (case, layer) = GOLDEN[0];
    let path = golden(case);
    let served = ["verify", "--gpu", "h200", "--checkpoint", path.to_str().unwrap()];
    let served = [&served[..], &["--tensor", layer, "--m", "16", "--json"]].concat();
    let family = qtune.json(&[&served[..], &["--family", "gemv"]].concat());
    assert_passed(&family, &[16]);
    let case = &family["cases"][0];
    assert_eq!((&case["family"], &case["origin"]), (&"gemv".into(), &"default".into()));
    let schedule = case["schedule"].as_str().unwrap();
    let given = qtune.json(&[&served[..], &["--schedule", schedule]].concat());
    assert_passed(&given, &[16]);
    assert_eq!(given["cases"][0]["origin"], "given");
    let illegal = schedule.replace("tokens=2", "tokens=5");
    qtune.fails(&[&served[..], &["--schedule", &illegal]].concat(), 2, &["tokens"]);
}

#[test]
fn layers_pass_with_the_epilogue_and_output_that_a_model_gives_them() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let (case, layer) = GOLDEN[1];
    let path = golden(case);
    let served = ["verify", "--gpu", "h200", "--checkpoint", path.to_str().unwrap()];
    let run = |extra: &[&str]| {
        qtune.json(&[&served[..], &["--tensor", layer, "--m", "1,17", "--json"], extra].concat())
    };
    assert_passed(&run(&["--residual", "--out-type", "f32"]), &[1, 17]);
    assert_passed(&run(&["--silu-mul", "--up-tensor", layer, "--act", "bf16"]), &[1, 17]);
    let alone = [&served[..], &["--tensor", layer, "--silu-mul"]].concat();
    qtune.fails(&alone, 2, &["--up-tensor"]);
}

#[test]
fn a_schedule_that_computes_something_else_is_exit_code_4_with_the_output_that_is_wrong() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    // Without its zero-point.
    let schedule = "mma tile=16x64x256 warps=1x4 stages=4 split=1 pad=16 raster=rows \
                    dequant=(sum (* (* (real q) s) x))";
    let problem = ["verify", "--gpu", "h200", "--format", "awq-g128", "--n", "64", "--k", "256"];
    let args = [&problem[..], &["--m", "16", "--schedule", schedule, "--json"]].concat();
    let run = qtune.run(&args);
    assert_eq!(run.code, 4, "{}", run.stderr);
    let cases: Value = serde_json::from_str(&run.stdout).unwrap();
    let case = &cases["cases"][0];
    assert_eq!((&case["passed"], &cases["passed"]), (&false.into(), &false.into()));
    assert!(case["error_over_bound"].as_f64().unwrap() > 1.0, "{case}");
    assert!(run.stderr.contains("m 16: FAILED"), "{}", run.stderr);
}

#[test]
fn a_checkpoint_says_how_activations_are_multiplied_unless_the_command_line_does() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let layer = "model.layers.0.mlp.up_proj";
    let args = |gpu, case: &str, extra: &[&str]| -> Vec<String> {
        let path = golden("..").join("compressed_tensors").join(case);
        let path = path.to_str().unwrap();
        let args = ["verify", "--gpu", gpu, "--checkpoint", path, "--tensor", layer, "--m", "3"];
        args.iter().chain(extra).map(|arg| arg.to_string()).collect()
    };
    for (gpu, case, extra, widths) in [
        ("h200", "int8_w8a8_channel", &[][..], "w8a8."),
        ("h200", "int8_w8a8_channel", &["--act-bits", "16"], "w8a16."),
        ("h200", "fp8_tensor_static", &["--act-bits", "8"], "w8a8."),
        ("a100", "fp8_channel_dynamic", &[], "w8a16."),
    ] {
        let args = args(gpu, case, &[extra, &["--json"]].concat());
        let cases = qtune.json(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_passed(&cases, &[3]);
        assert!(cases["cases"][0]["problem"].as_str().unwrap().starts_with(widths), "{cases}");
    }
    let refused = |gpu, case, exit, reason| {
        let args = args(gpu, case, &["--act-bits", "8"]);
        qtune.fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), exit, &[reason]);
    };
    refused("a100", "fp8_channel_dynamic", 1, "e4m3 need compute capability 8.9");
    refused("h200", "w4a16_sym_channel", 2, "no such width or modifier");
}
