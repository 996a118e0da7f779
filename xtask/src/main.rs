//! Maintenance tasks: `cargo run -p xtask -- docs [--check]` writes (or checks) the generated
//! parts of the documentation.

use anyhow::{bail, Context, Result};
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- generated: formats, by `cargo run -p xtask -- docs` -->";
const END: &str = "<!-- end of generated part -->";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["docs"] => docs(false),
        ["docs", "--check"] => docs(true),
        _ => bail!("usage: cargo run -p xtask -- docs [--check]"),
    }
}

/// Replaces the generated part of README.md, or fails where it is out of date.
fn docs(check: bool) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).context("README.md")?;
    let (head, rest) = text.split_once(BEGIN).context("README.md has no generated part")?;
    let (_, tail) = rest.split_once(END).context("README.md's generated part has no end")?;
    let fresh = format!("{head}{BEGIN}\n{}{END}{tail}", formats_table());
    if fresh == text {
        return Ok(());
    }
    if check {
        bail!("README.md is out of date; run `cargo run -p xtask -- docs`");
    }
    std::fs::write(&path, fresh).context("README.md")
}

/// The kernel families, with the GPUs of those that not every GPU has.
fn families() -> String {
    let family = |family: qtune_ir::Family| match family {
        qtune_ir::Family::Gemv | qtune_ir::Family::Mma => format!("`{}`", family.name()),
        qtune_ir::Family::Wgmma => {
            let has = |name: &&str| qtune_ir::Arch::named(name).is_ok_and(|arch| arch.has_wgmma());
            let gpus: Vec<&str> = qtune_ir::Arch::names().filter(has).collect();
            format!("`{}` ({})", family.name(), gpus.join(", "))
        }
    };
    qtune_ir::Family::ALL.map(family).join(", ")
}

/// Formats by GPU: which kernel families exist.
fn formats_table() -> String {
    let mut table =
        String::from("| format | packings read | kernel families | GPUs |\n|---|---|---|---|\n");
    let gpus: Vec<&str> = qtune_ir::Arch::names().collect();
    for row in qtune_formats::FORMATS {
        let names: Vec<String> = row.examples.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} |",
            names.join(", "),
            row.packing.lines().next().unwrap_or_default(),
            families(),
            gpus.join(", ")
        );
    }
    table
}
