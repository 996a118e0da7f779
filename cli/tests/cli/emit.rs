//! `emit` and `explain`.

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
