//! Maintenance tasks: `cargo run --release -p xtask -- docs [--check]` writes (or checks) the generated
//! parts of the documentation; `counts` measures the table of [`counts`] first, `matrix` verifies the
//! cases of [`matrix`]; `spills` looks for default schedules that spill registers.

mod benchmarks;
mod counts;
mod matrix;
mod spills;
mod sweep;

use anyhow::{bail, Context, Result};
use qtune_ir::{Arch, DType, Family, Problem};
use qtune_verify::default_of_family;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// A part of a document that is generated from the code.
struct Part {
    /// File, from the root of the repository.
    file: &'static str,
    /// Name in the markers around the part.
    name: &'static str,
    text: fn() -> Result<String>,
}

const PARTS: [Part; 5] = [
    Part { file: "README.md", name: "formats", text: formats_table },
    Part { file: "docs/simulator.md", name: "instructions", text: instruction_list },
    Part { file: "docs/counts.md", name: "counts", text: counts::summary },
    Part { file: "docs/verification.md", name: "matrix", text: matrix::summary },
    Part { file: "docs/benchmarks.md", name: "benchmarks", text: benchmarks::tables },
];
const END: &str = "<!-- end of generated part -->";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["docs"] => PARTS.iter().try_for_each(|part| docs(part, false)),
        ["docs", "--check"] => PARTS.iter().try_for_each(|part| docs(part, true)),
        ["counts", ref words @ ..] => {
            counts::run(words)?;
            PARTS.iter().try_for_each(|part| docs(part, false))
        }
        ["matrix", ref words @ ..] => {
            matrix::run(words)?;
            PARTS.iter().try_for_each(|part| docs(part, false))
        }
        ["spills", ref words @ ..] => spills::run(words),
        _ => bail!(
            "usage: cargo run -p xtask -- docs [--check] | counts [--bless] [WORD...] | \
             matrix [--again] [WORD...] | spills [WORD...]"
        ),
    }
}

/// Replaces a generated part, or fails where it is out of date.
fn docs(part: &Part, check: bool) -> Result<()> {
    let Part { file, name, text } = part;
    let begin = format!("<!-- generated: {name}, by `cargo run -p xtask -- docs` -->");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let old = std::fs::read_to_string(&path).context(*file)?;
    let none = || format!("{file} has no generated part `{name}`");
    let (head, rest) = old.split_once(&begin).with_context(none)?;
    let (_, tail) = rest.split_once(END).with_context(none)?;
    let fresh = format!("{head}{begin}\n{}{END}{tail}", text()?);
    if fresh == old {
        return Ok(());
    }
    if check {
        bail!("{file} is out of date; run `cargo run -p xtask -- docs`");
    }
    std::fs::write(&path, fresh).context(*file)
}

/// Why formats have no kernel: by reason the formats, and the families of each that give it.
type Refusals = BTreeMap<String, BTreeMap<&'static str, Vec<Family>>>;

/// The kernel families that have a schedule for formats of a row, with the GPUs of those that not
/// every GPU has and the formats of the row that they refuse.
fn families(row: &qtune_formats::FormatRow, refusals: &mut Refusals) -> Result<String> {
    let mut told = Vec::new();
    for family in Family::ALL {
        let gpus: Vec<&str> = match family {
            Family::Wgmma => {
                let has = |name: &&str| Arch::named(name).is_ok_and(|arch| arch.has_wgmma());
                Arch::names().filter(has).collect()
            }
            _ => Vec::new(),
        };
        let arch = Arch::named(gpus.first().unwrap_or(&"h200"))?;
        let mut refused = Vec::new();
        for format in row.examples {
            let spec = qtune_formats::resolve(format)?;
            let problem = Problem::of(&spec, [DType::F16; 2], TABLE_SIZES);
            if let Err(why) = default_of_family(family, &problem, &spec, &arch) {
                refused.push(format!("`{format}`"));
                let formats = refusals.entry(why.reason).or_default();
                formats.entry(format).or_default().push(family);
            }
        }
        if refused.len() == row.examples.len() {
            continue;
        }
        let mut limits = Vec::new();
        limits.extend((!gpus.is_empty()).then(|| gpus.join(", ")));
        limits.extend((!refused.is_empty()).then(|| format!("not {}", refused.join(", "))));
        told.push(match limits.is_empty() {
            true => format!("`{}`", family.name()),
            false => format!("`{}` ({})", family.name(), limits.join("; ")),
        });
    }
    Ok(if told.is_empty() { "none: decoded only".into() } else { told.join(", ") })
}

/// N, K and M for which the table asks families for a schedule: all of them take any number of tokens.
const TABLE_SIZES: [u32; 3] = [16384, 4096, 16];

/// Formats by GPU: which kernel families exist.
fn formats_table() -> Result<String> {
    let mut table =
        String::from("| format | packings read | kernel families | GPUs |\n|---|---|---|---|\n");
    let gpus: Vec<&str> = Arch::names().collect();
    let mut refusals = Refusals::new();
    for row in qtune_formats::FORMATS {
        let names: Vec<String> = row.examples.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} |",
            names.join(", "),
            row.packing.lines().next().unwrap_or_default(),
            families(row, &mut refusals)?,
            gpus.join(", ")
        );
    }
    Ok(table + &reasons(&refusals))
}

/// A list of what has no kernel, with the reason that `qtune verify --family` gives.
fn reasons(refusals: &Refusals) -> String {
    let mut text = String::from("\nWithout a kernel:\n\n");
    for (reason, refused) in refusals {
        let name = |(format, families): (&&str, &Vec<Family>)| {
            let names: Vec<String> =
                families.iter().map(|family| format!("`{}`", family.name())).collect();
            match families.len() == Family::ALL.len() {
                true => format!("`{format}`"),
                false => format!("`{format}` in {}", names.join(", ")),
            }
        };
        let refused: Vec<String> = refused.iter().map(name).collect();
        let _ = writeln!(text, "- {}: {reason}", refused.join(", "));
    }
    text
}

/// Instruction forms that the simulator decodes, by counter class.
fn instruction_list() -> Result<String> {
    let mut classes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for instruction in qtune_sim::covered_instructions() {
        classes.entry(instruction.class).or_default().push(instruction);
    }
    let mut text = String::new();
    for (class, mut instructions) in classes {
        instructions.sort_by(|a, b| a.form.cmp(&b.form));
        let _ = writeln!(text, "\n### `{}`\n\n| form | PTX ISA |\n|---|---|", class.name());
        for instruction in instructions {
            let form = instruction.form.replace('|', "\\|");
            let _ = writeln!(text, "| `{form}` | {} |", instruction.section);
        }
    }
    Ok(text + "\n")
}
