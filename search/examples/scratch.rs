//! scratch
use qtune_device::*;
use qtune_ir::*;
use qtune_search::*;
use std::sync::atomic::AtomicBool;
struct P(std::time::Instant);
impl Progress for P {
    fn problem_started(&self, i: usize, n: &str, p: &Problem) {
        println!("{:6.1} start {i} {n} {p}", self.0.elapsed().as_secs_f64());
    }
    fn problem_done(&self, i: usize, w: &WinnerReport) {
        println!(
            "{:6.1} done {i} {} {:.2} us roof {:.2} default {:?} err {:.2}",
            self.0.elapsed().as_secs_f64(),
            w.schedule,
            w.time_us,
            w.roof_share,
            w.default_us,
            w.error_over_bound
        );
    }
    fn note(&self, t: &str) {
        println!("NOTE {t}");
    }
}
fn main() {
    let arch = Arch::named("h200").unwrap();
    let ms: Vec<u32> = std::env::args()
        .nth(1)
        .unwrap_or("1,16".into())
        .split(',')
        .map(|m| m.parse().unwrap())
        .collect();
    let act = std::env::args().nth(2).unwrap_or("f16".into());
    let mut shapes = vec![];
    for mat in qtune_formats::presets::preset("qwen2.5-32b").unwrap().matrices() {
        for m in &ms {
            shapes.push(Shape {
                name: mat.name.into(),
                problem: format!("w4a16.awq-g128.{act}-{act}.n{}.k{}.m{m}", mat.n, mat.k)
                    .parse()
                    .unwrap(),
            });
        }
    }
    if ms == [99] {
        shapes.clear();
        for (f, a, n, k, m) in [
            ("awq-g32", "bf16", 1, 32, 1),
            ("awq-g128", "f16", 40, 128, 3),
            ("awq-g64", "bf16", 96, 1152, 64),
            ("awq-ch", "f16", 64, 352, 200),
            ("awq-g128", "f16", 152064, 128, 8),
            ("awq-ch", "bf16", 7, 8, 5),
            ("awq-g128", "f16", 128, 131072, 33),
        ] {
            shapes.push(Shape {
                name: "odd".into(),
                problem: format!("w4a16.{f}.{a}-{a}.n{n}.k{k}.m{m}+bias").parse().unwrap(),
            });
        }
    }
    let nvrtc = qtune_codegen::nvrtc::Nvrtc::open(&Default::default()).unwrap();
    let device = SimDevice::new(&arch);
    let store = qtune_cache::MemoryStore::default();
    let path = std::path::PathBuf::from("/tmp/search-scratch/trials.jsonl");
    let _ = std::fs::remove_file(&path);
    let mut log = qtune_cache::trial_log::TrialLog::append_to(&path).unwrap();
    let r = tune(
        &TuneRequest::new(arch, shapes),
        &device,
        &nvrtc,
        &store,
        &mut log,
        &P(std::time::Instant::now()),
        &AtomicBool::new(false),
    )
    .unwrap();
    println!("{:#?}", r.failures);
    use qtune_cache::Store;
    let ws = store.winners().unwrap();
    for w in &ws {
        println!(
            "{} {:?} {}\n   {}\n   {:?}",
            w.key.problem,
            w.winner.counts,
            w.winner.verification.cases,
            w.winner.derivation.join(" "),
            w.winner
                .cost_terms
                .iter()
                .map(|(n, v)| format!("{n}={v:.2}"))
                .collect::<Vec<_>>()
                .join(" ")
        );
        for b in &w.winner.beat {
            println!("      {:.2} {} {}", b.time_us, b.schedule, b.reason);
        }
    }
    println!("{:#?}", rule_usage(ws.iter().map(|w| w.winner.derivation.as_slice())));
}
