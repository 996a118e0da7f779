//! Everything that can be wrong with what users bring: one line, the right exit code, nothing
//! half-written.

use crate::support::{copy_of, ended, failed, golden, Qtune};
use std::fs;
use std::path::Path;

/// Asserts that `dequantize` on the checkpoint fails with `parts`, and writes nothing.
fn dequantize_fails(path: &Path, tensor: &str, parts: &[&str]) {
    let qtune = Qtune::new();
    let out = qtune.cache.path().join("out");
    fs::create_dir(&out).unwrap();
    let file = out.join("w.safetensors");
    let args =
        ["dequantize", path.to_str().unwrap(), "--tensor", tensor, "--out", file.to_str().unwrap()];
    qtune.fails(&args, 1, parts);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "something was left behind");
}

const LAYER: &str = "model.layers.0.self_attn.k_proj";

/// Replaces text in the header of a checkpoint's file by text of the same length.
fn edit_header(folder: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect("text to edit");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_truncated_file_names_the_file_and_the_remedy() {
    for length in [0, 7, 8, 60] {
        let folder = copy_of("gemv_g128");
        let path = folder.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..length]).unwrap();
        dequantize_fails(folder.path(), LAYER, &["model.safetensors", "download or export it"]);
    }
}

#[test]
fn a_file_whose_header_lies_names_the_file() {
    let folder = copy_of("gemv_g128");
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 16]).unwrap();
    dequantize_fails(folder.path(), LAYER, &["model.safetensors"]);
    let mut long = bytes;
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, long).unwrap();
    dequantize_fails(folder.path(), LAYER, &["model.safetensors"]);
}

#[test]
fn shapes_that_disagree_name_file_and_tensor() {
    let folder = copy_of("gemv_g128");
    edit_header(folder.path(), "[64,32]", "[32,64]");
    dequantize_fails(folder.path(), LAYER, &["model.safetensors", "tensor `model.layers.0"]);
}

#[test]
fn a_missing_shard_is_named() {
    let folder = copy_of("gemv_g128");
    let index = folder.path().join("model.safetensors.index.json");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fs::write(&index, r#"{"weight_map":{"a":"model-00001-of-00002.safetensors"}}"#).unwrap();
    dequantize_fails(folder.path(), LAYER, &["model-00001-of-00002.safetensors", "missing"]);
}

#[test]
fn layers_that_are_not_there_are_named_with_the_nearest_one() {
    let parts = ["tensor `model.layers.0.self_attn.k_prog`", "did you mean", "qtune inspect"];
    dequantize_fails(&golden("gemv_g128"), "model.layers.0.self_attn.k_prog", &parts[..2]);
    let qtune = Qtune::new();
    let path = golden("gemv_g128");
    let args = ["verify", "--checkpoint", path.to_str().unwrap(), "--tensor", "nothing"];
    qtune.fails(&args, 1, &["tensor `nothing`", "qtune inspect"]);
}

#[test]
fn paths_that_are_not_there_are_named() {
    let qtune = Qtune::new();
    qtune.fails(&["inspect", "/nowhere/model"], 1, &["/nowhere/model", "check the path"]);
    qtune.fails(&["inspect", "/nowhere/log.jsonl"], 1, &["/nowhere/log.jsonl"]);
    let tune = ["tune", "--gpu", "h200", "--model", "/nowhere/model"];
    qtune.fails(&tune, 1, &["/nowhere/model", "check the path"]);
}

#[test]
fn unknown_names_are_usage_errors_that_list_what_exists() {
    let qtune = Qtune::new();
    let emit = |gpu, format| ["emit", "--gpu", gpu, "--format", format, "--n", "64", "--k", "128"];
    qtune.fails(&emit("h2000", "awq-g128"), 2, &["unknown GPU `h2000`", "rtx4090"]);
    qtune.fails(&emit("h200", "awk-g128"), 2, &["did you mean `awq-g128`", "known formats"]);
    let tune = |extra: [&'static str; 2]| {
        [&["tune", "--gpu", "h200", "--format", "awq-g128"], &extra[..]].concat()
    };
    qtune.fails(&tune(["--preset", "gpt-9"]), 2, &["unknown preset `gpt-9`", "qwen2.5-32b"]);
    qtune.fails(&tune(["--tp", "3"]), 2, &["qwen2.5-32b has 8 key/value heads, which 3 GPUs"]);
    qtune.fails(&tune(["--device", "tpu"]), 2, &["unknown device `tpu`", "sim"]);
    qtune.fails(&tune(["--act", "f8"]), 2, &["f8", "bf16"]);
    qtune.fails(&tune(["--budget", "soon"]), 2, &["`soon` is not a time"]);
    qtune.fails(&tune(["--effort", "heroic"]), 2, &["heroic", "quick"]);
    qtune.fails(&["frobnicate"], 2, &["frobnicate", "--help"]);
    qtune.fails(&["inspect"], 2, &["<PATH>"]);
}

#[test]
fn absurd_sizes_are_usage_errors_that_name_the_limit() {
    let qtune = Qtune::new();
    let verify = |n, k, m| {
        let sizes = ["--n", n, "--k", k, "--m", m];
        [&["verify", "--gpu", "h200", "--format", "awq-g128"], &sizes[..]].concat()
    };
    qtune.fails(&verify("0", "128", "1"), 2, &["N = 0 is outside 1..=1048576"]);
    qtune.fails(&verify("64", "4398046511104", "1"), 2, &["K = 4398046511104"]);
    qtune.fails(&verify("64", "128", "0"), 2, &["M = 0"]);
    qtune.fails(&verify("64", "128", "65537"), 2, &["M = 65537", "65536"]);
    qtune.fails(&verify("64", "99999999999999999999", "1"), 2, &["99999999999999999999"]);
    qtune.fails(&verify("64", "200", "1"), 2, &["K = 200", "128", "choose"]);
    let shape = ["tune", "--gpu", "h200", "--format", "awq-g128", "--shape", "0x128"];
    qtune.fails(&shape, 2, &["N = 0"]);
    let shape = ["tune", "--gpu", "h200", "--format", "awq-g128", "--shape", "wide"];
    qtune.fails(&shape, 2, &["`wide` is not NxK"]);
}

#[test]
fn schedules_that_are_not_schedules_or_not_legal_are_usage_errors() {
    let qtune = Qtune::new();
    let emit = |schedule| {
        let problem = ["emit", "--gpu", "h200", "--format", "awq-g128", "--n", "64", "--k", "128"];
        [&problem[..], &["--schedule", schedule]].concat()
    };
    qtune.fails(&emit("fast please"), 2, &["not a schedule"]);
    let huge = "mma tile=64x512x512 warps=1x1 stages=8 split=1 pad=16 raster=rows \
                dequant=(sum (* (* (- (real q) z) s) x))";
    qtune.fails(&emit(huge), 2, &["--schedule is not legal"]);
    let term = "mma tile=16x64x128 warps=1x2 stages=2 split=1 pad=16 raster=rows \
                dequant=(sum (* (frobnicate q) x))";
    qtune.fails(&emit(term), 2, &["--schedule is not legal", "frobnicate"]);
}

#[test]
fn a_gpu_that_is_not_there_is_exit_code_3() {
    let qtune = Qtune::new();
    let verify = ["verify", "--gpu", "h200", "--format", "awq-g128", "--n", "64", "--k", "128"];
    let run = qtune.run(&[&verify[..], &["--device", "cuda:99"]].concat());
    failed(&run, "cuda:99", 3, &["--device sim"]);
}

#[test]
fn a_cache_folder_that_cannot_be_used_stops_before_tuning_starts() {
    let qtune = Qtune::new();
    let file = qtune.cache.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    for dir in [file.to_str().unwrap(), "/proc/qtune"] {
        let tune = ["tune", "--gpu", "h200", "--format", "awq-g128", "--cache", dir];
        qtune.fails(&tune, 1, &["cache folder", dir, "--cache DIR"]);
    }
}

#[test]
fn a_missing_compiler_that_may_not_be_fetched_is_named_with_the_remedy() {
    let qtune = Qtune::new();
    let mut command = qtune.command(&["emit", "--gpu", "h200", "--format", "awq-g128"]);
    command.args(["--n", "64", "--k", "128", "--what", "ptx", "--no-fetch"]);
    // No toolkit, no Python, no data folder.
    for name in ["QTUNE_NVRTC", "CUDA_HOME", "CUDA_PATH", "PATH", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command.env("PATH", "/nowhere").env("QTUNE_DATA", qtune.cache.path().join("data"));
    let run = ended(command.output().unwrap());
    if run.code == 0 {
        println!("skipped: this machine has an NVRTC in its library path or a CUDA toolkit");
        return;
    }
    failed(&run, "--no-fetch", 1, &["NVRTC was not found", "--no-fetch", "pip install"]);
    assert!(!qtune.cache.path().join("data").exists());
}

#[test]
fn a_wrong_setting_for_the_compiler_is_never_replaced_silently() {
    let qtune = Qtune::new();
    let mut command = qtune.command(&["emit", "--gpu", "h200", "--format", "awq-g128"]);
    command.args(["--n", "64", "--k", "128", "--what", "ptx"]);
    command.env("QTUNE_NVRTC", "/nowhere/libnvrtc.so");
    let run = ended(command.output().unwrap());
    failed(&run, "QTUNE_NVRTC", 1, &["QTUNE_NVRTC=/nowhere/libnvrtc.so", "unset it"]);
}
