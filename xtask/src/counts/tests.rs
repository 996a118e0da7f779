use super::cases::Case;
use super::*;
use std::collections::BTreeMap;

/// Of each GPU, format and number of tokens one row is measured anew; this many rows lie between those
/// of neighbouring groups. The whole table takes too long for every day.
const STRIDE: usize = 5;

fn table() -> Vec<Row> {
    sweep::read(TABLE).unwrap()
}

fn row(line: &str) -> Row {
    line.parse().unwrap()
}

#[test]
fn rows_print_and_parse_back() {
    let line = "h200 awq-g128 5120x5120 m64,wgmma,1.695,1,1,1.023,135168,1,0,0";
    assert_eq!(row(line).line(), line);
    for text in ["h200 awq-g128 5120x5120,wgmma,1", "h200 awq-g128 5120x5120 m64,wgmma,1", ""] {
        assert!(text.parse::<Row>().is_err(), "{text}");
    }
}

#[test]
fn what_got_worse_is_refused_and_only_within_its_limit_blessed() {
    let with = |instructions: &str, spilled: &str| {
        let head = "h200 awq-g128 5120x5120 m64,wgmma";
        row(&format!("{head},{instructions},1,1,1.023,135168,1,{spilled},0"))
    };
    let before = with("1.6", "0");
    assert_eq!(judge(&with("1.5", "0"), Some(&before), false), [""; 0]);
    assert_eq!(judge(&with("1.65", "0"), Some(&before), false).len(), 1);
    assert_eq!(judge(&with("1.65", "0"), Some(&before), true), [""; 0]);
    assert_eq!(judge(&with("1.75", "0"), Some(&before), true).len(), 1);
    assert_eq!(judge(&with("1.5", "8"), Some(&before), true).len(), 1);
    // Past its limit already: it may only improve.
    let past = with("1.8", "0");
    assert_eq!(judge(&with("1.75", "0"), Some(&past), false), [""; 0]);
    assert_eq!(judge(&with("1.85", "0"), Some(&past), true).len(), 1);
}

#[test]
fn short_k_is_blessed_as_far_as_the_limits_of_longer_k() {
    let with = |instructions: &str| {
        row(&format!("h200 q4_k 3584x3584 m1,gemv,{instructions},1,1,1.028,65536,0,0,0"))
    };
    assert_eq!(judge(&with("2.4"), Some(&with("2.2")), true), [""; 0]);
    assert_eq!(judge(&with("2.4"), Some(&with("2.2")), false).len(), 1);
    assert_eq!(judge(&with("2.7"), Some(&with("2.2")), true).len(), 1);
}

#[test]
fn the_table_has_cases_in_order_and_each_once() {
    let rows: Vec<Case> = table().into_iter().map(|row| row.case).collect();
    let known: Vec<Case> = cases::all().into_iter().filter(|case| rows.contains(case)).collect();
    assert_eq!(rows, known);
    assert!(!rows.is_empty());
}

#[test]
fn a_sample_of_the_table_is_not_worse_today() {
    let Ok(nvrtc) = Nvrtc::open(&OpenOptions::default()) else {
        assert!(std::env::var_os("QTUNE_REQUIRE_NVRTC").is_none(), "NVRTC is missing");
        println!("skipped: no NVRTC");
        return;
    };
    let mut groups: BTreeMap<(String, String, u32), Vec<Row>> = BTreeMap::new();
    for row in table() {
        let key = (row.case.gpu.clone(), row.case.format.clone(), row.case.m);
        groups.entry(key).or_default().push(row);
    }
    for (nth, rows) in groups.values().enumerate() {
        // Another shape for each group, the same ones every time.
        let before = &rows[nth * STRIDE % rows.len()];
        let now = measure::measure(&nvrtc, &before.case).unwrap();
        assert_eq!(judge(&now, Some(before), false), [""; 0]);
    }
}
