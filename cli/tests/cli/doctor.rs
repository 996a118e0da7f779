//! `doctor`.

use crate::support::{ended, Qtune};

#[test]
fn every_finding_has_an_id_a_severity_and_a_remedy() {
    let run = Qtune::new().run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    for finding in findings {
        for field in ["id", "severity", "message", "remedy"] {
            let text = finding[field].as_str().unwrap_or_default();
            assert!(!text.is_empty() && !text.contains('\n'), "{field} of {finding}");
        }
    }
    for id in ["qtune.version", "driver.found", "nvrtc.found", "cache.folder", "python.pip"] {
        assert!(findings.iter().any(|finding| finding["id"] == id), "{id}");
    }
    assert_eq!(run.code == 0, report["healthy"] == true);
}

#[test]
fn a_cache_folder_that_cannot_be_written_is_an_error_with_its_remedy() {
    let qtune = Qtune::new();
    let run = ended(qtune.command(&["doctor", "--cache", "/proc/qtune"]).output().unwrap());
    assert_eq!(run.code, 1, "{}", run.stderr);
    let line = run.stdout.lines().find(|line| line.contains("/proc/qtune")).unwrap();
    assert!(line.starts_with("error") && line.contains("cannot be written"), "{line}");
}
