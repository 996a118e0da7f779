//! Tests of the trial log.

use super::*;

fn launch(schedule: &str) -> TrialEvent {
    TrialEvent::Launch { problem: "p".into(), schedule: schedule.into() }
}

fn result(schedule: &str, outcome: Outcome) -> TrialEvent {
    TrialEvent::Result {
        problem: "p".into(),
        schedule: schedule.into(),
        time_us: (outcome == Outcome::Ok).then_some(0.1 + 0.2),
        outcome,
        evidence: Evidence::Modelled,
    }
}

/// One event of every kind.
fn all_events() -> Vec<TrialEvent> {
    vec![
        TrialEvent::Start(RunHeader {
            problems: vec!["p".into()],
            limits: vec![("nodes".into(), "10000".into())],
            seed: u64::MAX,
            ..RunHeader::default()
        }),
        TrialEvent::Proposed {
            problem: "p".into(),
            schedule: "s \"quoted\"\n".into(),
            rung: 2,
            predicted_us: 1e-7 / 3.0,
        },
        launch("s"),
        TrialEvent::Timed {
            problem: "p".into(),
            schedule: "s".into(),
            samples_us: vec![0.1 + 0.2, 0.25],
            discarded: 1,
            clock_mhz: Some(1980),
            power_mw: None,
        },
        result("s", Outcome::Ok),
        result("t", Outcome::Rejected { reason: "spills".into() }),
        result("u", Outcome::Failed { reason: "hung".into() }),
        TrialEvent::Winner {
            problem: "p".into(),
            schedule: "s".into(),
            time_us: 5.0,
            evidence: Evidence::Timed,
            error_over_bound: 0.5,
        },
        TrialEvent::End { winners: 1, interrupted: false },
    ]
}

fn log_with(events: &[TrialEvent]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trials").join("run.jsonl");
    let mut log = TrialLog::append_to(&path).unwrap();
    events.iter().for_each(|event| log.append(event).unwrap());
    (dir, path)
}

#[test]
fn every_event_comes_back_and_takes_one_line() {
    let (_dir, path) = log_with(&all_events());
    assert_eq!(read(&path).unwrap(), all_events());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), all_events().len());
    assert!(text.starts_with(r#"{"event":"start","problems":["p"]"#), "{text}");
    assert!(text.contains(r#""outcome":{"status":"rejected","reason":"spills"}"#), "{text}");
}

#[test]
fn a_file_that_is_no_log_is_not_continued_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for text in
        ["a line\nand a half", "no line", "{\"weight\":{}}", "\0\0\0\n", "{\"event\":\"no\"}\n"]
    {
        fs::write(&path, text).unwrap();
        let error = TrialLog::append_to(&path).unwrap_err();
        assert!(matches!(error, CacheError::NoTrialLog(_)), "{text}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn one_search_at_a_time_appends_to_a_log() {
    let (_dir, path) = log_with(&[launch("s")]);
    let first = TrialLog::append_to(&path).unwrap();
    let error = TrialLog::append_to(&path).unwrap_err();
    assert!(matches!(error, CacheError::TrialLogLocked(_)), "{error}");
    assert_eq!(read(&path).unwrap(), [launch("s")], "it may be read meanwhile");
    drop(first);
    TrialLog::append_to(&path).unwrap();
}

#[test]
fn a_log_cut_at_any_byte_reads_as_the_events_that_were_whole() {
    let (_dir, path) = log_with(&all_events());
    let whole = fs::read(&path).unwrap();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let events = read(&path).unwrap();
        let newlines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
        // An event whose newline alone is missing is whole.
        let complete = newlines + usize::from(whole.get(length) == Some(&b'\n'));
        assert_eq!(events, all_events()[..complete], "cut at {length}");

        let mut log = TrialLog::append_to(&path).unwrap();
        log.append(&launch("after")).unwrap();
        let mut expected = events;
        expected.push(launch("after"));
        assert_eq!(read(&path).unwrap(), expected, "appended after a cut at {length}");
    }
}

#[test]
fn a_bad_line_in_the_middle_is_named_with_its_number() {
    let (_dir, path) = log_with(&[launch("a")]);
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"event\":\"lunch\"}\n");
    fs::write(&path, text).unwrap();
    let message = read(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}:2: ", path.display())), "{message}");
    assert!(message.contains("lunch") && !message.contains('\n'), "{message}");
}

#[test]
fn an_endless_line_is_refused_without_reading_it_all() {
    let (_dir, path) = log_with(&[]);
    fs::write(&path, vec![b'x'; 3 * LINE_BYTES_MAX]).unwrap();
    assert!(matches!(read(&path), Err(CacheError::TrialLogLine { line: 1, .. })));
}

#[test]
fn a_launch_without_a_result_is_poison_until_a_result_comes() {
    let mut events = vec![launch("a"), result("a", Outcome::Ok), launch("b"), launch("c")];
    let pair = |schedule: &str| ("p".to_string(), schedule.to_string());
    assert_eq!(poison(&events), BTreeSet::from([pair("b"), pair("c")]));
    events.push(result("b", Outcome::Failed { reason: "interrupted".into() }));
    assert_eq!(poison(&events), BTreeSet::from([pair("c")]));
}

#[test]
fn a_number_that_json_cannot_hold_is_refused_and_nothing_is_written() {
    let (_dir, path) = log_with(&[launch("a")]);
    let mut log = TrialLog::append_to(&path).unwrap();
    let bad = TrialEvent::Proposed {
        problem: "p".into(),
        schedule: "s".into(),
        rung: 1,
        predicted_us: f64::NAN,
    };
    assert!(matches!(log.append_all(&[launch("b"), bad]), Err(CacheError::BadEvent(_))));
    assert_eq!(read(&path).unwrap(), [launch("a")]);
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let message = TrialLog::append_to(&file.join("run.jsonl")).unwrap_err().to_string();
    assert!(message.contains("run.jsonl") && !message.contains('\n'), "{message}");
    let missing = read(&dir.path().join("none.jsonl")).unwrap_err().to_string();
    assert!(missing.contains("none.jsonl") && missing.contains("check its name"), "{missing}");
}
