//! What was measured: `docs/benchmarks.md` from the files that `bench/simulator.sh` and
//! `bench/gpu.sh` leave in `bench/results`.

use anyhow::{Context, Result};
use qtune_ir::Problem;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The results of one run of `bench/gpu.sh`; a section that did not run leaves [`Value::Null`].
struct GpuRun {
    /// Name of its folder.
    name: String,
    summary: Value,
    doctor: Value,
    tune: Value,
    peers: Value,
}

/// Tables of everything in `bench/results`, GPUs first.
pub fn tables() -> Result<String> {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/results");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&results)
        .with_context(|| results.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("summary.json").is_file())
        .collect();
    folders.sort();
    let mut text = String::from("\n## GPUs\n\n");
    if folders.is_empty() {
        text += "None: no results of a GPU are in this repository yet, so nothing here says how fast a \
                 kernel is.\n`bench/gpu.sh OUT_DIR`, run on a machine with a GPU, leaves what \
                 belongs in `bench/results/<gpu>/`.\n";
    }
    for folder in &folders {
        let name = folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
        let file = |file: &str| read(&folder.join(file));
        let run = GpuRun {
            name,
            summary: file("summary.json")?,
            doctor: file("doctor.json")?,
            tune: file("tune.json")?,
            peers: file("peers.json")?,
        };
        text += &run.describe();
    }
    text += &simulator(&read(&results.join("simulator.json"))?);
    Ok(text + "\n")
}

/// A file's JSON; null if there is none, or if its section was stopped before it wrote any.
fn read(path: &Path) -> Result<Value> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => {
            serde_json::from_str(&text).with_context(|| path.display().to_string())
        }
        _ => Ok(Value::Null),
    }
}

/// A text, or a number as text; "unknown" for what is missing.
fn told(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "unknown".into(),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or_else(|| "-".into(), |number| format!("{number:.digits$}"))
}

impl GpuRun {
    fn describe(&self) -> String {
        let GpuRun { name, summary, .. } = self;
        let mut text = format!("### `{name}`\n\n");
        let finding = |id: &str| {
            let mut findings = items(&self.doctor["findings"]).iter();
            findings.find(|f| f["id"] == id).map_or("unknown".into(), |f| told(&f["message"]))
        };
        let clocks = |when: &str| {
            let state = &summary[when];
            format!(
                "SM {} of {} MHz, memory {} MHz, {} W",
                told(&state["sm_mhz"]),
                told(&state["max_sm_mhz"]),
                told(&state["memory_mhz"]),
                told(&state["watts"])
            )
        };
        let facts = [
            ("date", told(&summary["date"])),
            ("GPU", finding("gpu.found")),
            (
                "driver",
                format!("{}, {}", told(&summary["before"]["driver"]), finding("driver.found")),
            ),
            ("qtune", finding("qtune.version")),
            ("clocks before", clocks("before")),
            ("clocks after", clocks("after")),
        ];
        for (what, fact) in facts {
            let _ = writeln!(text, "- {what}: {fact}");
        }
        for section in items(&summary["sections"]).iter().filter(|s| s["exit"] != 0) {
            let (what, code) = (told(&section["section"]), told(&section["exit"]));
            let _ = writeln!(text, "- the section `{what}` did not pass: exit code {code}");
        }
        text + &self.winners() + &self.compared() + "\n"
    }

    /// The tuned kernels, by shape and bucket.
    fn winners(&self) -> String {
        let winners = items(&self.tune["winners"]);
        if winners.is_empty() {
            return "\nNothing was tuned.\n".into();
        }
        let mut text = String::from(
            "\n| shape | N x K | tokens | family | us | default us | of the roof | times | verified |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for winner in winners {
            let (size, tokens) = size_of(winner).map_or_else(
                || (told(&winner["problem"]), "-".into()),
                |(n, k, m)| (format!("{n} x {k}"), m.to_string()),
            );
            let share = winner["roof_share"].as_f64().unwrap_or_default() * 100.0;
            let _ = writeln!(
                text,
                "| {} | {size} | {tokens} | {} | {} | {} | {share:.0} % | {} | {} |",
                told(&winner["shape"]),
                told(&winner["family"]),
                number(&winner["time_us"], 2),
                number(&winner["default_us"], 2),
                told(&winner["evidence"]),
                if winner["verified"] == true { "yes" } else { "NO" },
            );
        }
        text
    }

    /// Other kernels beside the tuned one of the same size.
    fn compared(&self) -> String {
        let peers = items(&self.peers["results"]);
        if peers.is_empty() {
            return "\nNo other kernels were timed.\n".into();
        }
        let mut text = String::from(
            "\n| peer | N x K | tokens | us | qtune us | qtune is faster by |\n|---|---|---|---|---|---|\n",
        );
        for peer in peers {
            let [n, k, m] = ["n", "k", "m"].map(|side| peer[side].as_u64().unwrap_or_default());
            let same = |winner: &&Value| {
                size_of(winner) == Some((n, k, m)) && winner["evidence"] == "timed"
            };
            let own = items(&self.tune["winners"]).iter().find(same).map(|w| &w["time_us"]);
            let own = own.unwrap_or(&Value::Null);
            let (name, us) = (told(&peer["peer"]), number(&peer["time_us"], 2));
            let us = peer["error"].as_str().map_or(us, |error| format!("failed: {error}"));
            let factor = peer["time_us"].as_f64().zip(own.as_f64());
            let factor = factor.map_or("-".into(), |(peer, own)| format!("{:.2} x", peer / own));
            let own = number(own, 2);
            let _ = writeln!(text, "| {name} | {n} x {k} | {m} | {us} | {own} | {factor} |");
        }
        text
    }
}

/// Output features, input features and tokens of a winner.
fn size_of(winner: &Value) -> Option<(u64, u64, u64)> {
    let problem: Problem = winner["problem"].as_str()?.parse().ok()?;
    Some((u64::from(problem.n), u64::from(problem.k), u64::from(problem.m)))
}

/// Speed of the simulator, with what it is held to.
fn simulator(results: &Value) -> String {
    let mut text = String::from("\n## Simulator\n\n");
    let kernels = items(&results["kernels"]);
    if kernels.is_empty() {
        return text + "Not measured yet: `bench/simulator.sh` does.\n";
    }
    let _ = writeln!(
        text,
        "Measured on {} on a CPU ({}) by `{}`, with all checks on unless said otherwise. Not the speed of a \
         kernel on a GPU.\n",
        told(&results["date"]),
        told(&results["cpu"]),
        told(&results["command"])
    );
    text += "| kernel | G multiply-accumulates/s, one thread | two threads | without checks | peak memory over \
             buffers | targets |\n|---|---|---|---|---|---|\n";
    for kernel in kernels {
        let speed = &kernel["giga_macs_per_second"];
        let missed: Vec<String> = kernel["targets"].as_object().map_or_else(Vec::new, |targets| {
            let missed = targets.iter().filter(|(_, target)| target["met"] != true);
            missed.map(|(name, _)| name.replace('_', " ")).collect()
        });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            told(&kernel["kernel"]),
            number(&speed["one_thread"], 2),
            number(&speed["two_threads"], 2),
            number(&speed["no_checks"], 2),
            number(&kernel["peak_bytes_over_buffers"], 2),
            if missed.is_empty() { "met".into() } else { format!("missed: {}", missed.join(", ")) },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(tune: Value, peers: Value) -> String {
        let state = json!({ "driver": "580.1", "sm_mhz": "1980", "max_sm_mhz": "1980" });
        let summary = json!({
            "date": "2026-01-02T03:04:05Z",
            "before": state,
            "sections": [{ "section": "doctor", "exit": 0 }, { "section": "tune", "exit": 124 }],
        });
        let doctor = json!({ "findings": [{ "id": "gpu.found", "message": "cuda:0 is a GPU" }] });
        GpuRun { name: "h200".into(), summary, doctor, tune, peers }.describe()
    }

    #[test]
    fn a_run_shows_its_conditions_and_what_did_not_pass() {
        let text = run(Value::Null, Value::Null);
        for part in [
            "- date: 2026-01-02T03:04:05Z",
            "- GPU: cuda:0 is a GPU",
            "- driver: 580.1",
            "- clocks before: SM 1980 of 1980 MHz",
            "- clocks after: SM unknown",
            "- the section `tune` did not pass: exit code 124",
            "Nothing was tuned.",
            "No other kernels were timed.",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("`doctor` did not pass"), "{text}");
    }

    #[test]
    fn peers_stand_beside_the_timed_winner_of_their_size() {
        let winner = |m: u32, evidence: &str| {
            json!({
                "shape": "o", "problem": format!("w4a16.awq-g128.f16-f16.n5120.k5120.m{m}"),
                "family": "gemv", "time_us": 5.0, "default_us": null, "roof_share": 0.8,
                "evidence": evidence, "verified": true,
            })
        };
        let tune = json!({ "winners": [winner(1, "timed"), winner(2, "modelled")] });
        let peer = |m: u32| json!({ "peer": "p", "n": 5120, "k": 5120, "m": m, "time_us": 12.5 });
        let broken = json!({ "peer": "q", "n": 1, "k": 1, "m": 1, "error": "no kernel" });
        let text = run(tune, json!({ "results": [peer(1), peer(2), broken] }));
        assert!(text.contains("| o | 5120 x 5120 | 1 | gemv | 5.00 | - | 80 % | timed | yes |"));
        assert!(text.contains("| p | 5120 x 5120 | 1 | 12.50 | 5.00 | 2.50 x |"), "{text}");
        // A modelled time is compared with nothing.
        assert!(text.contains("| p | 5120 x 5120 | 2 | 12.50 | - | - |"), "{text}");
        assert!(text.contains("| q | 1 x 1 | 1 | failed: no kernel | - | - |"), "{text}");
    }

    #[test]
    fn a_missed_target_of_the_simulator_is_named() {
        let kernel = json!({
            "kernel": "gemv", "giga_macs_per_second": { "one_thread": 0.1 },
            "targets": { "one_thread": { "met": false }, "peak_bytes_over_buffers": { "met": true } },
        });
        let text = simulator(&json!({ "date": "2026-01-02", "kernels": [kernel] }));
        assert!(text.contains("| gemv | 0.10 | - | - | - | missed: one thread |"), "{text}");
        assert!(simulator(&Value::Null).contains("Not measured yet"));
    }
}
