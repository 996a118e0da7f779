//! What a candidate costs on this machine, step by step: ranked by the model, generated, compiled,
//! taken apart, verified. On a machine without a GPU this is what tuning time is made of.
//!
//! `cargo bench -p qtune-search` prints the figures, for one core.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_device::{KernelImage, SimDevice};
use qtune_ir::tile::estimate;
use qtune_ir::{Arch, Family, Problem, Schedule, WeightSpec};
use qtune_search::{plan, Effort, Shape, TuneRequest};
use qtune_verify::{default_of_family, instructions_per_weight, verify, VerifyRequest};

/// Each family with tokens that it is made for.
const FAMILIES: [(Family, u32); 4] =
    [(Family::Gemv, 1), (Family::Mma, 8), (Family::Wgmma, 64), (Family::Dequant, 1024)];

/// A kernel on its way.
struct Candidate<'a> {
    problem: Problem,
    spec: &'a WeightSpec,
    schedule: Schedule,
    arch: &'a Arch,
}

fn main() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    one.install(|| {
        let mut criterion = Criterion::default().configure_from_args().sample_size(10);
        let arch = Arch::named("h200").expect("a known GPU");
        let spec = qtune_formats::resolve("awq-g128").expect("a known format");
        let nvrtc = Nvrtc::open(&OpenOptions::default()).expect("NVRTC");
        for (family, tokens) in FAMILIES {
            let problem = format!("w4a16.{}.f16-f16.n27648.k5120.m{tokens}", spec.name);
            let problem: Problem = problem.parse().expect("a problem");
            let schedule = default_of_family(family, &problem, &spec, &arch).expect("a schedule");
            let candidate = Candidate { problem, spec: &spec, schedule, arch: &arch };
            let mut group = criterion.benchmark_group(family.name());
            candidate.measure(&mut group, &nvrtc);
            group.finish();
        }
        criterion.final_summary();
    });
}

impl Candidate<'_> {
    fn measure(&self, group: &mut BenchmarkGroup<'_, WallTime>, nvrtc: &Nvrtc) {
        let Candidate { problem, spec, schedule, arch } = self;
        let request = self.request();
        group.bench_function("climb the ladder (all candidates)", |b| b.iter(|| plan(&request)));
        group.bench_function("estimate", |b| {
            b.iter(|| estimate(problem, spec, arch, schedule, 1.0));
        });
        let generate = || {
            let kernel = qtune_codegen::generate(problem, spec, schedule, arch);
            kernel.expect("a legal schedule")
        };
        group.bench_function("generate", |b| b.iter(generate));
        let kernel = generate();
        let compile = || KernelImage::compile(nvrtc, kernel.clone(), arch).expect("it compiles");
        group.bench_function("compile", |b| b.iter(compile));
        let image = compile();
        group.bench_function("count instructions", |b| {
            b.iter(|| instructions_per_weight(&image, spec));
        });
        let device = SimDevice::new(arch);
        let request = VerifyRequest {
            tokens: vec![problem.m],
            sample_tiles: Some(1),
            ..VerifyRequest::new(&image, spec, 1)
        };
        group.bench_function("verify a row tile", |b| {
            b.iter(|| assert!(verify(&request, &device).expect("it runs").passed));
        });
    }

    /// A search for this problem alone.
    fn request(&self) -> TuneRequest {
        let shape = Shape { name: "gate_up".into(), problem: self.problem.clone(), calls: 1 };
        TuneRequest { effort: Effort::Normal, ..TuneRequest::new(self.arch.clone(), vec![shape]) }
    }
}
