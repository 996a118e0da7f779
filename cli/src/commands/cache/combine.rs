//! `cache merge|export|import`: what several machines found, in one place.

use crate::cache_dir::CacheArgs;
use crate::exit::{usage, Exit};
use crate::output;
use crate::paths::same;
use anyhow::Context;
use qtune_cache::{holds_store, MergeReport, SledStore, Store};
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

/// Adds what is in `sources` to the cache, one after the other. All of them are opened, and files
/// read to their end, before anything is added. A source that is named twice is added once.
pub fn merge(cache: &CacheArgs, sources: &[PathBuf], json: bool) -> anyhow::Result<Exit> {
    let own = cache.dir()?;
    let mut opened: Vec<(&PathBuf, Box<dyn Store>)> = Vec::new();
    for source in sources {
        if same(source, &own) {
            let path = source.display();
            return Err(usage(format!(
                "{path} is the cache itself: name another one by --cache, or leave {path} out"
            )));
        }
        if let Some((other, _)) = opened.iter().find(|(other, _)| same(other, source)) {
            let (path, other) = (source.display(), other.display());
            output::note(format_args!("{path}: the same as {other}, left out"));
            continue;
        }
        opened.push((source, open(source)?));
    }
    let store = cache.open()?;
    let mut reports = Vec::new();
    for (source, from) in &opened {
        let report = qtune_cache::merge(&store, from.as_ref())
            .with_context(|| format!("while merging {}", source.display()))?;
        tell(source, &report);
        reports.push(json!({ "source": source.display().to_string(), "report": report }));
    }
    let winners = store.winners()?.len();
    match json {
        true => output::json(&json!({ "sources": reports, "winners": winners }))?,
        false => output::result(format_args!("{winners} winner(s) in {}", own.display()))?,
    }
    Ok(Exit::Success)
}

/// A cache folder or an export.
fn open(source: &Path) -> anyhow::Result<Box<dyn Store>> {
    if !source.is_dir() {
        return load(source);
    }
    if !holds_store(source) {
        let path = source.display();
        return Err(usage(format!("{path} holds no cache; name a cache folder or an export")));
    }
    let args = CacheArgs { dir: Some(source.to_path_buf()) };
    let opened = args.open_existing()?.context("the cache went away while it was opened")?;
    Ok(Box::new(opened))
}

/// What is in an export.
fn load(file: &Path) -> anyhow::Result<Box<dyn Store>> {
    let place = || format!("{}", file.display());
    let input = File::open(file).with_context(place)?;
    let (store, _) = qtune_cache::import(&mut BufReader::new(input)).with_context(place)?;
    Ok(Box::new(store))
}

fn tell(source: &Path, report: &MergeReport) {
    output::note(format_args!(
        "{}: {} new, {} better, {} as before; {} contribution(s) and {} poisoned schedule(s) added",
        source.display(),
        report.new,
        report.changed,
        report.kept,
        report.contributions,
        report.poisoned
    ));
    if report.without_code > 0 {
        output::warning(format_args!(
            "{}: {} winner(s) left out, their code is lost",
            source.display(),
            report.without_code
        ));
    }
    for conflict in &report.conflicts {
        output::warning(format_args!(
            "{} and {} have different code for {} `{}`, though generator and compiler are the same; \
             tune it again with --fresh",
            conflict.hosts[0], conflict.hosts[1], conflict.problem, conflict.schedule
        ));
    }
}

/// Writes everything to one file.
pub fn export(store: &SledStore, out: &Path, json: bool) -> anyhow::Result<Exit> {
    let summary = output::file_with(out, |file| {
        let summary = qtune_cache::export(store, &mut BufWriter::new(file))?;
        Ok(summary)
    })?;
    match json {
        true => {
            let path = out.display().to_string();
            output::json(&json!({ "path": path, "summary": summary }))?;
        }
        false => output::result(format_args!(
            "{} winner(s) and {} poisoned schedule(s) in {}",
            summary.winners,
            summary.poisoned,
            out.display()
        ))?,
    }
    Ok(Exit::Success)
}

/// Adds what is in an export.
pub fn import(cache: &CacheArgs, file: &Path, json: bool) -> anyhow::Result<Exit> {
    if file.is_dir() {
        let path = file.display();
        return Err(usage(format!("{path} is a folder; `qtune cache merge` takes cache folders")));
    }
    merge(cache, &[file.to_path_buf()], json)
}
