//! What reviewers would otherwise repeat.

use qtune_tests::root;
use std::path::{Path, PathBuf};

/// Lines of one file; longer ones have more than one subject.
const FILE_LINES_MAX: usize = 900;
/// Lines of one function.
const FUNCTION_LINES_MAX: usize = 90;

pub(crate) fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Functions by their first line, with their length: from the `fn` line to the closing brace at
/// the same indentation.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let starts = |line: &str| {
        let line = line.trim_start();
        let body = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        let body = body.trim_start_matches("pub(super) ").trim_start_matches("const ");
        body.trim_start_matches("unsafe ").starts_with("fn ")
    };
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| starts(line)) {
        // A declaration without a body, as in a trait.
        let ends = |line: &&&str| line.trim_end().ends_with(['{', ';', '}']);
        if lines[at..].iter().find(ends).is_some_and(|line| line.trim_end().ends_with(';')) {
            continue;
        }
        let closing = |other: &&str| other.trim_end() == format!("{}}}", " ".repeat(indent(line)));
        let length = lines[at..].iter().position(closing);
        found.push((at + 1, length.map_or(1, |length| length + 1)));
    }
    found
}

#[test]
fn files_and_functions_keep_one_subject() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 50, "the walk found {} files", files.len());
    let mut faults = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        if text.lines().count() > FILE_LINES_MAX {
            faults.push(format!("{shown}: more than {FILE_LINES_MAX} lines"));
        }
        for (at, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX {
                faults.push(format!("{shown}:{at}: a function of {length} lines"));
            }
        }
        let marks =
            ["dbg!(", "todo!(", "unimplemented!(", concat!("TO", "DO"), concat!("FIX", "ME")];
        for (at, line) in text.lines().enumerate() {
            let quoted = shown.ends_with("tests/tidy.rs");
            if !quoted && marks.iter().any(|mark| line.contains(mark)) {
                faults.push(format!("{shown}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
