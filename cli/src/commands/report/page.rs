//! The page: what it says, in order.

use super::data::{Report, Tried, Winner};
use super::html::{Table, Text};
use super::{reproduce, roofline};
use std::collections::BTreeMap;

/// Colours by role, for light and dark; a layout of one column that fits any width.
const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(report: &Report) -> String {
    let sections = [
        ("Every trial", roofline::figure(report)),
        ("Winners", winners(report)),
        ("Against the baselines", baselines(report)),
        ("Failures by cause", failures(report)),
        ("Made with", environment(report)),
        ("To reproduce", reproduce::section(report)),
    ];
    let mut body = head(report);
    for (title, section) in sections {
        body.push_str(&format!("<section>\n<h2>{title}</h2>\n{section}</section>\n"));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>qtune report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         </main>\n</body>\n</html>\n"
    )
}

fn head(report: &Report) -> String {
    let trials: usize = report.problems.iter().map(|tried| tried.trials.len()).sum();
    let winners = report.problems.iter().filter(|tried| tried.winner.is_some()).count();
    let failures: usize = report.failures.values().sum();
    let tile = |count: usize, what: &str| format!("<div><b>{count}</b>{what}</div>");
    format!(
        "<h1>qtune report</h1>\n<p>Read from <code>{}</code>.</p>\n<div class=\"tiles\">{}{}{}{}</div>\n",
        Text(&report.source),
        tile(report.problems.len(), "problems"),
        tile(winners, "winners"),
        tile(trials, "right kernels"),
        tile(failures, "left out"),
    )
}

/// Problems that have a winner, with it.
pub fn won(report: &Report) -> impl Iterator<Item = (&Tried, &Winner)> {
    report.problems.iter().filter_map(|tried| Some((tried, tried.winner.as_ref()?)))
}

/// Text that is typed.
pub fn code(text: impl std::fmt::Display) -> String {
    format!("<code>{}</code>", Text(text))
}

/// What a problem is called: its matrix, and its token bucket.
fn shape(tried: &Tried) -> (String, String) {
    match &tried.parsed {
        Some((problem, _)) => {
            let end = problem.suffixes().replace('+', " + ");
            let name = format!("{} {} x {}{end}", problem.format, problem.n, problem.k);
            (Text(name).to_string(), problem.m.to_string())
        }
        None => (code(&tried.key), "?".into()),
    }
}

fn winners(report: &Report) -> String {
    let mut table = Table::new(&[
        ("matrix", false),
        ("M up to", true),
        ("us", true),
        ("evidence", false),
        ("GB/s", true),
        ("roof", true),
        ("loads alone, us", true),
        ("error / bound", true),
        ("machines", true),
    ]);
    for (tried, winner) in won(report) {
        let (matrix, m) = shape(tried);
        let speed = tried.bytes().map(|bytes| format!("{:.0}", bytes / winner.us / 1e3));
        let roof = winner.roof_share.map(|share| format!("{:.0} %", 100.0 * share));
        table.row([
            matrix,
            m,
            format!("{:.2}", winner.us),
            tried.evidence(winner).into(),
            speed.unwrap_or_default(),
            roof.unwrap_or_default(),
            winner.load_only_us.map(|us| format!("{us:.2}")).unwrap_or_default(),
            format!("{:.3}", winner.error_over_bound),
            winner.machines.to_string(),
        ]);
        table.below(code(&winner.schedule));
    }
    table.to_string()
}

/// The untuned kernel, and what one would do without kernels for the format.
fn baselines(report: &Report) -> String {
    let mut table = Table::new(&[
        ("matrix", false),
        ("M up to", true),
        ("untuned us", true),
        ("gain", false),
        ("dequantized first us", true),
        ("gain", false),
    ]);
    let mut known = false;
    for (tried, winner) in won(report) {
        let (untuned, dense) = (winner.default_us, tried.dequantized_first_us(winner));
        if untuned.or(dense).is_none() {
            continue;
        }
        known = true;
        let (matrix, m) = shape(tried);
        let us = |time: Option<f64>| time.map(|us| format!("{us:.2}")).unwrap_or_default();
        let gain = |time: Option<f64>| time.map(|us| bar(us / winner.us)).unwrap_or_default();
        table.row([matrix, m, us(untuned), gain(untuned), us(dense), gain(dense)]);
    }
    match known {
        true => table.to_string(),
        false => {
            "<p>No other kernel than the untuned one won, or its time is not known here.</p>\n"
                .into()
        }
    }
}

/// How many times as fast: a bar of the whole width is four times.
fn bar(gain: f64) -> String {
    let width = (25.0 * gain).clamp(0.0, 100.0);
    format!(
        "<span><span class=\"bar\"><i style=\"width:{width:.0}%\"></i></span> {gain:.2} times as fast</span>"
    )
}

fn failures(report: &Report) -> String {
    if report.failures.is_empty() {
        return "<p>Nothing was left out.</p>\n".into();
    }
    let mut causes: Vec<(&String, &usize)> = report.failures.iter().collect();
    causes.sort_by_key(|(cause, count)| (std::cmp::Reverse(**count), *cause));
    let mut table = Table::new(&[("kernels", true), ("cause", false)]);
    for (cause, count) in causes {
        table.row([count.to_string(), Text(cause).to_string()]);
    }
    table.to_string()
}

fn environment(report: &Report) -> String {
    let mut table =
        Table::new(&[("machine", false), ("device", false), ("qtune", false), ("NVRTC", false)]);
    for maker in &report.makers {
        table.row(maker.iter().map(|part| Text(part).to_string()));
    }
    let mut archs: BTreeMap<&str, usize> = BTreeMap::new();
    for tried in &report.problems {
        *archs.entry(&tried.arch).or_default() += 1;
    }
    let gpus: Vec<String> = archs
        .into_iter()
        .map(|(arch, count)| {
            let name = report.archs.get(arch).map_or("a GPU without a name here", |a| &a.name);
            format!("<li>{} ({}): {count} problem(s)</li>", code(arch), Text(name))
        })
        .collect();
    let makers = if report.makers.is_empty() { String::new() } else { table.to_string() };
    format!("{makers}<ul>\n{}\n</ul>\n", gpus.join("\n"))
}
