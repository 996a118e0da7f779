//! The name of a format stands in its own file and its registry row, nowhere else in the code:
//! whoever adds one changes no other file.

use crate::tidy::rust_files;
use qtune_formats::FORMATS;
use qtune_tests::root;
use std::path::{Path, PathBuf};

/// Files that may name formats: the registry with its list of rows, the crate's list of modules,
/// GGUF's numbering of block types, and the list of other libraries' layers that are not read.
const LISTS: [&str; 4] = [
    "formats/src/registry.rs",
    "formats/src/lib.rs",
    "formats/src/gguf/types.rs",
    "formats/src/checkpoint/foreign.rs",
];

/// The code of a file: without its unit tests and comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().enumerate();
    lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or(line)))
}

/// Whether `line` has `name` as a word, whatever its case.
fn names(line: &str, name: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        !inside(before.chars().next_back()) && !inside(after.chars().next())
    })
}

/// A line without the families whose names contain that of another.
fn without_longer(line: &str, family: &str) -> String {
    let longer = FORMATS.iter().map(|row| row.family).filter(|other| *other != family);
    let longer = longer.filter(|other| other.contains(family));
    longer.fold(line.to_string(), |line, other| line.replace(other, ""))
}

/// The file or folder of `formats/src` that defines a family: what says `family: "..."`, or gives it
/// to a generic row.
fn home(family: &str, files: &[(PathBuf, String)]) -> PathBuf {
    let definitions =
        [format!("family: \"{family}\""), format!("FAMILY: &'static str = \"{family}\"")];
    let defines = |(path, text): &&(PathBuf, String)| {
        path.starts_with("formats/src") && definitions.iter().any(|line| text.contains(line))
    };
    let (path, _) = files.iter().find(defines).unwrap_or_else(|| panic!("{family} has no file"));
    path.components().take(3).collect()
}

/// Every source file of the crates, by its path in the repository; not those of `xtask`, which measures
/// the formats that have targets.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    rust_files(&root(), &mut found);
    let of_crate = |path: &Path| {
        let in_source = path.components().nth(1).is_some_and(|part| part.as_os_str() == "src");
        let in_tests = path.components().any(|part| part.as_os_str() == "tests");
        in_source && !in_tests && !path.starts_with("xtask") && !path.ends_with("tests.rs")
    };
    let read = |path: PathBuf| {
        let shown = path.strip_prefix(root()).unwrap_or(&path).to_path_buf();
        of_crate(&shown).then(|| (shown, std::fs::read_to_string(&path).expect("UTF-8")))
    };
    found.into_iter().filter_map(read).collect()
}

#[test]
fn the_name_of_a_format_stands_in_its_own_file_alone() {
    let sources = sources();
    assert!(sources.len() > 50, "the walk found {} files", sources.len());
    let mut faults = Vec::new();
    for row in FORMATS {
        let home = home(row.family, &sources);
        for (path, text) in &sources {
            if path.starts_with(&home) || LISTS.iter().any(|list| path.ends_with(list)) {
                continue;
            }
            let named = |line: &str| names(&without_longer(line, row.family), row.family);
            for (at, line) in code(text).filter(|(_, line)| named(line)) {
                faults.push(format!("{}:{at}: {}: {line}", path.display(), row.family));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_name_is_found_as_a_word_in_any_case() {
    assert!(names("if crate::q9_x::fits()", "q9_x") && names("\"Q9_X rows\"", "q9_x"));
    assert!(!names("seq9_x", "q9_x") && !names("q9_xs", "q9_x"));
}
