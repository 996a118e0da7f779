//! `report`: the page of a log and of a cache.

use crate::support::Qtune;
use qtune_cache::trial_log::{Outcome, RunHeader, TrialEvent, TrialLog};
use qtune_cache::Evidence;
use std::fs;
use std::path::Path;

const PROBLEM: &str = "w4a16.awq-g128.f16-f16.n5120.k5120.m16";

/// A log of a search in which one schedule has markup for a name.
pub fn log(path: &Path) {
    let arch = qtune_ir::Arch::named("h200").unwrap().fingerprint();
    let result = |schedule: &str, outcome, us| TrialEvent::Result {
        problem: PROBLEM.into(),
        schedule: schedule.into(),
        outcome,
        time_us: Some(us),
        evidence: Evidence::Timed,
    };
    let failed = |reason: &str| Outcome::Failed { reason: reason.into() };
    let mut log = TrialLog::append_to(path).unwrap();
    log.append_all(&[
        TrialEvent::Start(RunHeader {
            problems: vec![PROBLEM.into()],
            arch,
            seed: 7,
            ..RunHeader::default()
        }),
        result("mma tile=16x128", Outcome::Ok, 9.0),
        result("gemv rows=1", Outcome::Ok, 12.5),
        result("wgmma <b>bold</b>", Outcome::Ok, 10.0),
        result("dequant slab=8", Outcome::Ok, 27.0),
        result("mma tile=8x8", failed("output 17 is wrong"), 1.0),
        result("mma tile=8x16", failed("output 4711 is wrong"), 1.0),
        TrialEvent::Winner {
            problem: PROBLEM.into(),
            schedule: "mma tile=16x128".into(),
            time_us: 9.0,
            evidence: Evidence::Timed,
            error_over_bound: 0.25,
        },
        TrialEvent::End { winners: 1, interrupted: false },
    ])
    .unwrap();
}

/// What must hold of any page: it stands alone, and every element that is opened is closed.
fn stands_alone(page: &str) {
    for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    for element in ["section", "table", "tr", "td", "svg", "div", "span", "code", "p", "ul", "li"] {
        let open = page.matches(&format!("<{element}>")).count()
            + page.matches(&format!("<{element} ")).count();
        assert_eq!(open, page.matches(&format!("</{element}>")).count(), "{element}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
}

#[test]
fn a_log_becomes_one_page_that_stands_alone() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    log(Path::new(&at("trials.jsonl")));
    let told = qtune.json(&["report", &at("trials.jsonl"), "--out", &at("page.html"), "--json"]);
    assert_eq!(
        (&told["problems"], &told["winners"], &told["trials"]),
        (&1.into(), &1.into(), &4.into())
    );
    let page = fs::read_to_string(at("page.html")).unwrap();
    stands_alone(&page);
    assert_eq!(page.matches("<circle class=\"mma won\"").count(), 1);
    assert!(page.contains("wgmma &lt;b&gt;bold&lt;/b&gt;") && !page.contains("<b>bold"));
    assert!(page.contains("output # is wrong") && page.contains(">2<"));
    assert!(page.contains("class=\"roof\"") && page.contains("seed 7"));
    assert!(page.contains("qtune verify --gpu h200 --format awq-g128 --n 5120 --k 5120 --m 16"));
    assert!(page.contains(
        "qtune tune --gpu h200 --format awq-g128 --shape 5120x5120 --m 16 --act f16 --out-type f16 --seed 7"
    ));
    let dense = "<td class=\"number\" data-name=\"dequantized first us\">27.00</td>";
    assert!(page.contains(dense) && page.contains("3.00 times as fast"), "{page}");
}

#[test]
fn a_page_never_takes_the_place_of_what_it_is_made_of() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir_all(at("cache/trials")).unwrap();
    for name in ["trials.jsonl", "cache/trials/a.jsonl"] {
        log(Path::new(&at(name)));
    }
    let text = fs::read_to_string(at("trials.jsonl")).unwrap();
    for (source, out) in [("trials.jsonl", "./trials.jsonl"), ("cache", "cache/trials/a.jsonl")] {
        qtune.fails(&["report", &at(source), "--out", &at(out)], 2, &["what the page is made of"]);
        assert_eq!(fs::read_to_string(at(out)).unwrap(), text);
    }
}

#[test]
fn times_that_no_kernel_takes_are_no_trials() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    log(Path::new(&at("trials.jsonl")));
    let mut trials = TrialLog::append_to(Path::new(&at("trials.jsonl"))).unwrap();
    for us in [5e-324, 1e-9, -1.0, 0.0, 1e30, 1e308] {
        let (problem, schedule) = (PROBLEM.into(), format!("mma tile=16x128 {us:e}"));
        let (evidence, time_us) = (Evidence::Timed, Some(us));
        let outcome = Outcome::Ok;
        let result = TrialEvent::Result { problem, schedule, outcome, time_us, evidence };
        let (problem, schedule) = (PROBLEM.into(), "mma".into());
        let won =
            TrialEvent::Winner { problem, schedule, time_us: us, evidence, error_over_bound: 0.5 };
        trials.append_all(&[result, won]).unwrap();
    }
    let told = qtune.json(&["report", &at("trials.jsonl"), "--out", &at("page.html"), "--json"]);
    assert_eq!((&told["winners"], &told["trials"]), (&1.into(), &4.into()));
    let page = fs::read_to_string(at("page.html")).unwrap();
    stands_alone(&page);
    assert!(page.contains(">9.00<") && page.len() < 100_000, "{}", page.len());
}

#[test]
fn a_damaged_log_does_not_keep_a_cache_from_its_page() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    drop(qtune_cache::SledStore::open(Path::new(&at("cache"))).unwrap());
    log(Path::new(&at("cache/trials/a.jsonl")));
    fs::write(at("cache/trials/b.jsonl"), "garbage\n").unwrap();
    let run = qtune.run(&["report", &at("cache"), "--out", &at("page.html")]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("b.jsonl:1") && run.stderr.contains("left out"), "{}", run.stderr);
    assert!(run.stdout.contains("1 winner(s), 4 trial(s)"), "{}", run.stdout);
}

#[test]
fn what_is_neither_cache_nor_log_is_said_to_be_so() {
    let qtune = Qtune::new();
    let at = |name: &str| qtune.cache.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("text"), "not a log\n").unwrap();
    fs::write(at("nothing"), "").unwrap();
    qtune.fails(&["report", &at("empty"), "--out", &at("p")], 2, &["holds no cache"]);
    qtune.fails(&["report", &at("nothing"), "--out", &at("p")], 2, &["holds no search"]);
    qtune.fails(&["report", &at("text"), "--out", &at("p")], 1, &["text:1", "not a trial event"]);
    qtune.fails(&["report", &at("nowhere"), "--out", &at("p")], 1, &["nowhere"]);
    assert!(!Path::new(&at("p")).exists());
}
