//! `tune` from the plan to the cached winner, and what `verify`, `explain` and `cache` say of it.

use crate::support::{copy_of, ended, failed, golden, has_compiler, Qtune};
use fs2::FileExt;
use serde_json::Value;
use std::fs::{self, File};

const SMALL: [&str; 11] = [
    "tune", "--gpu", "h200", "--device", "sim", "--format", "awq-g128", "--shape", "64x256", "--m",
    "1,16",
];

fn small<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], extra].concat()
}

/// The JSON object that ends a run's stdout.
fn report(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn winners_are_verified_stored_and_served_from_the_cache() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let first = report(&qtune.ok(&small(&["--json"])));
    let winners = first["winners"].as_array().unwrap();
    assert_eq!(winners.len(), 2);
    for winner in winners {
        assert_eq!((&winner["verified"], &winner["evidence"]), (&true.into(), &"modelled".into()));
        assert!(winner["time_us"].as_f64().unwrap() > 0.0);
        assert!(winner["error_over_bound"].as_f64().unwrap() <= 1.0);
        assert_eq!(winner["from_cache"], false);
        for field in ["problem", "schedule"] {
            assert!(!winner[field].as_str().unwrap().is_empty());
        }
    }
    let again = report(&qtune.ok(&small(&["--json"])));
    for (winner, before) in again["winners"].as_array().unwrap().iter().zip(winners) {
        assert_eq!(winner["schedule"], before["schedule"]);
        assert_eq!(winner["from_cache"], true);
    }
    assert!(qtune.ok(&small(&[])).contains("yes"), "the table is the result without --json");
    look_around(&qtune, &winners[1]);
}

/// What the other commands say of a stored winner for 16 tokens.
fn look_around(qtune: &Qtune, winner: &Value) {
    let problem = ["--gpu", "h200", "--format", "awq-g128", "--n", "64", "--k", "256", "--m", "16"];
    let explained = qtune.json(&[&["explain"], &problem[..], &["--json"]].concat());
    assert_eq!(explained["origin"], "cache");
    assert_eq!(explained["schedule"], winner["schedule"]);
    assert!(!explained["tiling"]["steps"].as_array().unwrap().is_empty());
    assert!(explained["dequantization"].as_array().unwrap().iter().any(|s| s["rule"] != ""));
    let text = qtune.ok(&[&["explain"], &problem[..]].concat());
    assert!(text.contains("it beat") && text.contains("modelled time"), "{text}");

    let cache = qtune.cache.path().join("cache");
    let verified = [&["verify"], &problem[..], &["--cache", cache.to_str().unwrap(), "--json"]];
    let verified = qtune.json(&verified.concat());
    assert_eq!(verified["cases"][0]["origin"], "cache");
    assert_eq!(verified["cases"][0]["schedule"], winner["schedule"]);

    let listed = qtune.json(&["cache", "ls", "--json"]);
    assert_eq!(listed["winners"].as_array().unwrap().len(), 2);
    let key = winner["problem"].as_str().unwrap();
    assert!(qtune.ok(&["cache", "show", key]).contains(" sample(s) (modelled) by "));
    assert_eq!(qtune.json(&["cache", "verify", "--json"])["sound"], true);
    qtune.fails(&["cache", "show", "w8a8"], 2, &["w8a8", "qtune cache ls"]);

    let inspected = qtune.json(&["inspect", cache.to_str().unwrap(), "--json"]);
    assert_eq!(inspected["kind"], "cache");
    let log = cache.join("trials/sm90a.132.jsonl");
    let inspected = qtune.json(&["inspect", log.to_str().unwrap(), "--json"]);
    assert_eq!(inspected["problems"].as_array().unwrap().len(), 2);
    assert_eq!(inspected["ended"], true);
}

#[test]
fn a_model_s_shapes_are_tuned_and_its_layers_then_run_from_the_cache() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let folder = golden("gemm_g64_bias");
    let path = folder.to_str().unwrap();
    let tune = ["tune", "--gpu", "h200", "--device", "sim", "--model", path, "--m", "1,8"];
    let tuned = report(&qtune.ok(&[&tune[..], &["--effort", "quick", "--json"]].concat()));
    let problem = &tuned["winners"][0]["problem"];
    assert_eq!(problem, "w4a16.awq-g64.f16-f16.n96.k192.m1+bias");
    let verify = ["verify", "--gpu", "h200", "--checkpoint", path, "--tensor"];
    let layer = ["model.layers.0.self_attn.q_proj", "--m", "1,7,16", "--json"];
    let cases = qtune.json(&[&verify[..], &layer].concat());
    let origins: Vec<&str> = cases["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["origin"].as_str().unwrap())
        .collect();
    assert_eq!(origins, ["cache", "cache", "default"]);
    assert_eq!(cases["passed"], true);
}

#[test]
fn a_dry_run_touches_nothing_and_names_every_problem() {
    let qtune = Qtune::new();
    let plan = qtune.json(&small(&["--dry-run", "--json"]));
    let problems = plan["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|p| !p["finalists"].as_array().unwrap().is_empty()));
    let mma = &problems[0]["space"]["mma"];
    let pruned = mma["pruned"].as_object().unwrap().values().map(|count| count.as_u64().unwrap());
    let legal = mma["legal"].as_u64().unwrap();
    assert_eq!(mma["considered"].as_u64(), Some(legal + pruned.sum::<u64>()), "{mma}");
    assert!(legal > 0 && mma["dimensions"]["stages"].as_array().unwrap().len() > 1, "{mma}");
    assert!(!qtune.cache.path().join("cache").exists());
    let preset = qtune.ok(&["tune", "--gpu", "h200", "--format", "awq-g128", "--dry-run"]);
    for shape in ["n7168.k5120", "n5120.k5120", "n55296.k5120", "n5120.k27648"] {
        assert!(preset.contains(shape) && !preset.contains("+bias"), "{shape}: {preset}");
    }
    assert!(preset.contains("wgmma: ") && preset.contains("pruned: "), "{preset}");
    assert!(preset.contains("n5120.k5120.m1024"), "{preset}");
    let shard = ["tune", "--gpu", "h200", "--format", "awq-g128", "--tp", "4", "--dry-run"];
    let shard = qtune.ok(&shard);
    for shape in ["n1792.k5120", "n5120.k1280", "n13824.k5120", "n5120.k6912"] {
        assert!(shard.contains(shape), "{shape}: {shard}");
    }
    let fused =
        ["tune", "--gpu", "h200", "--format", "awq-g128", "--m", "1", "--fused", "--dry-run"];
    let fused = qtune.ok(&[&fused[..], &["--out-type", "f32"]].concat());
    let m1 = ["n7168.k5120.m1+bias", "n5120.k5120.m1+residual", "n55296.k5120.m1+silu_mul"];
    for problem in m1 {
        assert!(fused.contains(&format!("f16-f32.{problem}")), "{problem}: {fused}");
    }
}

#[test]
fn shards_of_sorted_columns_are_refused_with_the_reason() {
    let sorted = ["tune", "--gpu", "h200", "--format", "gptq-g128-actorder", "--tp", "4"];
    Qtune::new().fails(&sorted, 2, &["--tp 4", "cut along K", "--shape"]);
}

#[test]
fn a_budget_that_ends_is_exit_code_6_with_what_is_there_by_then() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let run = qtune.run(&small(&["--budget", "1ms", "--json"]));
    assert_eq!(run.code, 6, "{}", run.stderr);
    assert_eq!(report(&run.stdout)["stopped"], "budget_ended");
    assert!(run.stderr.contains("to resume: "), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_is_there_and_is_exit_code_130() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let args = ["tune", "--gpu", "h200", "--device", "sim", "--format", "awq-g128", "--effort"];
    let mut command = qtune.command(&[&args[..], &["full", "--json"]].concat());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    // The trial log appears when the search begins, the handler right after it.
    let log = qtune.cache.path().join("cache/trials/sm90a.132.jsonl");
    let begun = || fs::metadata(&log).is_ok_and(|meta| meta.len() > 0);
    while !begun() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let run = ended(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert_eq!(report(&run.stdout)["stopped"], "interrupted");
    assert!(run.stderr.contains("to resume: "), "{}", run.stderr);
}

#[test]
fn a_cache_that_another_process_has_open_is_named() {
    let qtune = Qtune::new();
    let dir = qtune.cache.path().join("cache");
    fs::create_dir(&dir).unwrap();
    let lock = File::create(dir.join("winners.lock")).unwrap();
    lock.lock_exclusive().unwrap();
    qtune.fails(&small(&[]), 1, &["cache folder", "in use by", "--cache DIR"]);
}

#[test]
fn a_damaged_cache_is_set_aside_said_aloud_and_exit_code_5_for_cache_verify_alone() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    qtune.ok(&small(&["--effort", "quick"]));
    let database = qtune.cache.path().join("cache/winners/db");
    let damage = || {
        let mut bytes = fs::read(&database).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&database, bytes).unwrap();
    };
    damage();
    let run = qtune.run(&["cache", "verify"]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert!(run.stderr.contains("set aside"), "{}", run.stderr);
    qtune.ok(&small(&["--effort", "quick"]));
    damage();
    let run = qtune.run(&small(&["--effort", "quick"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("set aside"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_while_a_winner_is_stored_is_one_line_with_the_remedy() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    // A limit on file sizes stands in for a full disk: both fail a write in the middle. It is
    // reached after one or two of the seven winners.
    let script = format!(
        "trap '' XFSZ; ulimit -f 200; exec {} {},1,2,4,8,16,32,64 --effort quick",
        env!("CARGO_BIN_EXE_qtune"),
        SMALL.join(" ")
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).env("QTUNE_CACHE", qtune.cache.path().join("cache"));
    let run = ended(command.output().unwrap());
    failed(&run, "full disk", 1, &["cache folder", "free some space"]);
    let listed = qtune.json(&["cache", "ls", "--json"]);
    let kept = listed["winners"].as_array().unwrap().len();
    assert!((1..7).contains(&kept), "{kept} winners were stored before the disk was full");
    assert_eq!(qtune.json(&["cache", "verify", "--json"])["sound"], true);
}

#[test]
fn a_model_without_quantized_layers_is_said_to_have_none() {
    let qtune = Qtune::new();
    let folder = copy_of("gemv_g128");
    let path = folder.path().join("model.safetensors");
    let args = ["dequantize", path.to_str().unwrap(), "--tensor"];
    let plain = folder.path().join("plain.safetensors");
    let out = ["model.layers.0.self_attn.k_proj", "--out", plain.to_str().unwrap()];
    qtune.ok(&[&args[..], &out].concat());
    let tune = ["tune", "--gpu", "h200", "--model", plain.to_str().unwrap()];
    qtune.fails(&tune, 1, &["plain.safetensors", "no quantized layers"]);
}
