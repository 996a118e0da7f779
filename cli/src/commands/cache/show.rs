//! `cache ls|show|verify`: what is there, and whether it is sound.

use crate::cache_dir::winner_table;
use crate::exit::{usage, Exit};
use crate::output;
use qtune_cache::{Extent, SledStore, Store, WinnerRecord};
use serde_json::json;

/// Lists the winners.
pub fn list(store: &SledStore, json: bool) -> anyhow::Result<Exit> {
    let winners = store.winners()?;
    match json {
        true => output::json(&json!({ "winners": winners }))?,
        false => output::result(winner_table(&winners))?,
    }
    Ok(Exit::Success)
}

/// Shows the winners whose keys are, or begin with, `problem`.
pub fn show(store: &SledStore, problem: &str, json: bool) -> anyhow::Result<Exit> {
    let mut winners = store.winners()?;
    // A whole key is also the beginning of the key with a bias.
    match winners.iter().any(|record| record.key.problem == problem) {
        true => winners.retain(|record| record.key.problem == problem),
        false => winners.retain(|record| record.key.problem.starts_with(problem)),
    }
    if winners.is_empty() {
        return Err(usage(format!("no winner for `{problem}`; `qtune cache ls` lists them")));
    }
    let mut contributions = Vec::new();
    for record in &winners {
        contributions.push(store.contributions(&record.key)?);
    }
    match json {
        true => {
            let contributions = contributions.concat();
            output::json(&json!({ "winners": winners, "contributions": contributions }))?;
        }
        false => winners.iter().zip(&contributions).try_for_each(|(record, all)| {
            let lines: Vec<String> = all.iter().map(contribution).collect();
            output::result(format_args!("{}\n{}", described(record), lines.join("\n")))
        })?,
    }
    Ok(Exit::Success)
}

/// What one machine found, for people.
fn contribution(record: &WinnerRecord) -> String {
    let WinnerRecord { winner, .. } = record;
    let provenance = &winner.provenance;
    format!(
        "  found        {:.2} us in {} sample(s) ({}) by {} on {}, qtune {}, {}: {}",
        winner.time_us,
        winner.samples_us.len(),
        crate::cache_dir::evidence(winner.evidence),
        provenance.host,
        provenance.device,
        provenance.qtune_version,
        provenance.compiler_version,
        winner.schedule
    )
}

/// One winner for people.
fn described(WinnerRecord { key, winner, blobs }: &WinnerRecord) -> String {
    let list = |items: &[String]| items.join(", ");
    let terms: Vec<String> =
        winner.cost_terms.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    let counts = &winner.counts;
    [
        format!("{}@{}", key.problem, key.arch),
        format!("  schedule     {}", winner.schedule),
        format!(
            "  time         {:.2} us ({}), {:.0} % of the roof{}",
            winner.time_us,
            crate::cache_dir::evidence(winner.evidence),
            winner.roof_share * 100.0,
            match winner.load_only_us {
                Some(us) => format!("; loads alone {us:.2} us"),
                None => String::new(),
            }
        ),
        format!(
            "  search       {}",
            match winner.extent {
                Extent::CutShort => "cut short; the next `qtune tune` goes on".into(),
                effort => format!("whole, effort {}", effort.name()),
            }
        ),
        format!(
            "  verified     {}, error over bound {:.3}; {}",
            if winner.verified { "yes" } else { "no" },
            winner.error_over_bound,
            winner.verification.cases
        ),
        format!(
            "  counts       {:.2} lane-instructions per weight, {} registers, {} spill bytes, {} \
             shared bytes, {} bytes in flight per SM",
            counts.lane_instructions_per_weight,
            counts.registers,
            counts.spill_bytes,
            counts.shared_bytes,
            counts.bytes_in_flight_per_sm
        ),
        format!("  cost         {}", list(&terms)),
        format!("  rules        {}", list(&winner.derivation)),
        format!("  beat         {} other(s)", winner.beat.len()),
        format!("  fingerprint  {}", key.fingerprint),
        format!("  cubin        {}", blobs.cubin),
    ]
    .join("\n")
}

/// Reads and checks everything. `replaced` says that the whole store had to make room for a fresh one.
pub fn verify(store: &SledStore, replaced: bool, json: bool) -> anyhow::Result<Exit> {
    let report = store.verify()?;
    let sound = report.damaged.is_empty() && !replaced;
    if json {
        output::json(&json!({ "sound": sound, "replaced": replaced, "report": report }))?;
    } else {
        output::result(format_args!(
            "{} winner(s), {} poisoned, {} blob(s) of {} bytes, {} unused, {} damaged now, {} before",
            report.winners,
            report.poisoned,
            report.blobs,
            report.blob_bytes,
            report.unused_blobs,
            report.damaged.len(),
            report.damaged_before
        ))?;
        for record in &report.damaged {
            output::warning(format_args!("{} {}: {}", record.table, record.key, record.reason));
        }
    }
    Ok(if sound { Exit::Success } else { Exit::Damaged })
}
