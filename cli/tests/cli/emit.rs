//! `emit` and `ir`.

use crate::support::{has_compiler, Qtune};

const PROBLEM: [&str; 8] = ["--gpu", "h200", "--format", "awq-g128", "--n", "64", "--k", "256"];

#[test]
fn cuda_text_names_problem_and_schedule_and_is_the_same_every_time() {
    let qtune = Qtune::new();
    let emit = [&["emit"], &PROBLEM[..], &["--m", "16"]].concat();
    let text = qtune.ok(&emit);
    assert!(text.contains("w4a16.awq-g128.f16-f16.n64.k256.m16@sm90a.132"), "{text}");
    assert!(text.contains("extern \"C\" __global__"), "{text}");
    assert_eq!(text, qtune.ok(&emit));
}

#[test]
fn epilogues_and_launch_options_are_in_the_text_and_in_the_key() {
    let qtune = Qtune::new();
    let emit = |more: &[&str]| qtune.ok(&[&["emit"], &PROBLEM[..], &["--m", "16"], more].concat());
    let gated = emit(&["--bias", "--silu-mul"]);
    assert!(gated.contains("m16+bias+silu_mul@") && gated.contains("silu(gate"), "{gated}");
    let residual = emit(&["--residual"]);
    assert!(residual.contains("m16+residual@") && residual.contains("&residual["), "{residual}");
    let schedule = "mma tile=16x32x128 warps=2x1 stages=3 split=1 pad=16 raster=rows pdl=on \
                    prefetch=on dequant=(sum (* (* (- (real q) z) s) x))";
    let chained = emit(&["--schedule", schedule]);
    assert!(chained.contains("wait_ahead();") && chained.contains("next_lines"), "{chained}");
    let both = [&["emit"], &PROBLEM[..], &["--residual", "--silu-mul"]].concat();
    qtune.fails(&both, 2, &["--residual", "--silu-mul"]);
    let odd = ["emit", "--gpu", "h200", "--format", "awq-g128", "--n", "33", "--k", "128"];
    qtune.fails(&[&odd[..], &["--silu-mul"]].concat(), 2, &["N = 33 is odd"]);
    let old = ["emit", "--gpu", "a100", "--format", "awq-g128", "--n", "64", "--k", "256"];
    let old = [&old[..], &["--m", "16", "--schedule", schedule]].concat();
    qtune.fails(&old, 2, &["pdl needs compute capability 9.0"]);
}

#[test]
fn compiled_forms_come_out_whole() {
    if !has_compiler() {
        return;
    }
    let qtune = Qtune::new();
    let what = |what| [&["emit"], &PROBLEM[..], &["--what", what]].concat();
    assert!(qtune.ok(&what("ptx")).contains(".target sm_90a"));
    let stats = qtune.ok(&what("sass-stats"));
    assert!(stats.contains("registers ") && stats.contains("(main): instructions="), "{stats}");
    let file = qtune.cache.path().join("k.cubin");
    let out = [&what("cubin")[..], &["--out", file.to_str().unwrap()]].concat();
    assert_eq!(qtune.ok(&out), "");
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x7fELF"));
}

#[test]
fn a_schedule_s_nest_prints_and_verifies_against_its_problem_alone() {
    let qtune = Qtune::new();
    let nest = qtune.ok(&[&["ir", "cat"], &PROBLEM[..], &["--m", "16"]].concat());
    let layers =
        qtune.ok(&[&["ir", "verify", nest.trim()], &PROBLEM[2..], &["--m", "16"]].concat());
    assert!(layers.contains("mma16816") && layers.contains("block"), "{layers}");
    let other = ["--format", "awq-g128", "--n", "32", "--k", "256", "--m", "16"];
    qtune.fails(
        &[&["ir", "verify", nest.trim()], &other[..]].concat(),
        1,
        &["covers 64 of 32 along n"],
    );
    qtune.fails(&[&["ir", "verify", "(for"], &PROBLEM[2..]].concat(), 2, &["not a nest"]);
}

#[test]
fn both_rule_tables_and_the_variants_of_a_format_are_shown() {
    let qtune = Qtune::new();
    let rules = qtune.ok(&["ir", "rules"]);
    assert!(rules.lines().filter(|line| line.starts_with("tile ")).count() >= 8, "{rules}");
    assert!(rules.lines().filter(|line| line.starts_with("dequant ")).count() >= 6, "{rules}");
    let terms = qtune.ok(&["ir", "dequant", "--gpu", "h200", "--format", "awq-g128"]);
    assert!(terms.lines().count() >= 3 && terms.contains("(sum"), "{terms}");
}
