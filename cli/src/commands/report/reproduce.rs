//! How to run the searches again, and how to check the winners.

use super::data::{family, Report};
use super::html::Text;
use super::page::{code, won};
use qtune_cache::trial_log::RunHeader;
use qtune_ir::{Arch, Problem};
use qtune_search::Effort;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The section of the page.
pub fn section(report: &Report) -> String {
    let mut text = String::from("<p>The searches:</p>\n<ul>\n");
    for run in &report.runs {
        let limits: Vec<String> =
            run.limits.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = writeln!(
            text,
            "<li>{} problem(s) on {}, seed {}, qtune {}, {}; fingerprint {}</li>",
            run.problems.len(),
            code(&run.arch),
            run.seed,
            Text(&run.qtune_version),
            Text(limits.join(", ")),
            code(&run.fingerprint)
        );
    }
    let mut commands: Vec<String> =
        report.runs.iter().flat_map(|run| searches(run, gpu(report, &run.arch))).collect();
    commands.dedup();
    let _ = writeln!(text, "</ul>\n<pre>{}</pre>", Text(commands.concat()));
    let _ = writeln!(text, "<p>To check a winner again:</p>\n<pre>{}</pre>", Text(checks(report)));
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    won(report).for_each(|(_, w)| *families.entry(family(&w.schedule)).or_default() += 1);
    let families: Vec<String> =
        families.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!("{text}<p>Winners by family: {}.</p>\n", Text(families.join(", ")))
}

fn gpu<'a>(report: &'a Report, arch: &str) -> &'a str {
    report.archs.get(arch).map_or("auto", |arch: &Arch| arch.name.as_str())
}

/// What a problem is besides its format and its sizes, as options.
fn options(problem: &Problem) -> String {
    let end = problem.suffixes().replace('+', " --").replace('_', "-");
    format!("--act {} --out-type {}{end}", problem.act, problem.out)
}

/// Commands that search for the same again: one for all matrices of a format that were tuned for the
/// same token counts.
fn searches(run: &RunHeader, gpu: &str) -> Vec<String> {
    let mut tokens: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    for problem in run.problems.iter().filter_map(|key| key.parse::<Problem>().ok()) {
        let shape = format!("{}x{}", problem.n, problem.k);
        let what = (problem.format.to_string(), options(&problem), shape);
        tokens.entry(what).or_default().push(problem.m.to_string());
    }
    let mut shapes: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    for ((format, options, shape), tokens) in tokens {
        shapes.entry((format, options, tokens.join(","))).or_default().push(shape);
    }
    let efforts = [("quick", Effort::Quick), ("normal", Effort::Normal), ("full", Effort::Full)];
    let effort = efforts.into_iter().find(|(_, effort)| effort.limits().named() == run.limits);
    let effort = effort.map(|(name, _)| format!(" --effort {name}")).unwrap_or_default();
    let device = if run.is_replay() { " --device replay:LOG" } else { "" };
    let command = |((format, options, tokens), shapes): ((String, String, String), Vec<String>)| {
        format!(
            "qtune tune --gpu {gpu}{device} --format {format} --shape {} --m {tokens} {options}{effort} \
             --seed {} --fresh\n",
            shapes.join(","),
            run.seed
        )
    };
    shapes.into_iter().map(command).collect()
}

/// A command for each winner.
fn checks(report: &Report) -> String {
    let mut text = String::new();
    for (tried, winner) in won(report) {
        let Some((problem, _)) = &tried.parsed else { continue };
        let _ = writeln!(
            text,
            "qtune verify --gpu {} --format {} --n {} --k {} --m {} {} --schedule '{}'",
            gpu(report, &tried.arch),
            problem.format,
            problem.n,
            problem.k,
            problem.m,
            options(problem),
            winner.schedule
        );
    }
    text
}
