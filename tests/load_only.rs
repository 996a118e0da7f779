//! Load-only twins in the simulator: they read what their kernels read, once, and nothing else.

use qtune_codegen::{load_only, Argument};
use qtune_device::{Access, Buffer, Device, KernelImage, LaunchArgs, SimDevice};
use qtune_ir::{Arch, Problem, Schedule};
use qtune_tests::nvrtc;
use qtune_verify::default_schedule;

/// A schedule line's split of K set to `split`.
fn split(schedule: &Schedule, split: u32) -> Schedule {
    let text = schedule.to_string();
    let words = text.split(' ').map(|word| match word.starts_with("split=") {
        true => format!("split={split}"),
        false => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ").parse().expect("a schedule line")
}

/// Launches the twin of `schedule` and compares its traffic with the packed bytes.
fn reads_everything_once(key: &str, splits: u32, arch: &Arch) {
    let Some(nvrtc) = nvrtc() else { return };
    let problem: Problem = key.parse().expect("a problem key");
    let spec = qtune_formats::resolve(&problem.format).expect("a known format");
    let schedule = default_schedule(&problem, &spec, arch).expect("a default schedule");
    let schedule = split(&schedule, splits);
    let twin = load_only(&problem, &spec, &schedule, arch).expect("a twin");
    let image = KernelImage::compile(nvrtc, twin, arch).expect("a kernel that compiles");
    assert_eq!(image.resources.spill_bytes, 0, "{key}: {schedule}");

    let device = SimDevice::new(arch);
    let loaded = device.load(&image).expect("a kernel that loads");
    let kernel = &loaded.image().kernel;
    let filled = |name: &str, bytes: usize, access| -> Buffer {
        let buffer = device.alloc(name, bytes.max(16), access).expect("memory");
        let words: Vec<u8> = (0..bytes.max(16)).map(|at| at as u8).collect();
        device.upload(&buffer, 0, &words).expect("a range of the buffer");
        buffer
    };
    let weights = filled("weights", kernel.layout.weight_bytes(), Access::ReadOnly);
    let params = filled("params", kernel.layout.param_bytes(), Access::ReadOnly);
    let out = filled("out", 16, Access::ReadWrite);
    let launch = LaunchArgs::new(kernel, 1, |argument| match argument {
        Argument::Weights => (&weights, 0),
        Argument::Params => (&params, 0),
        Argument::Output => (&out, 0),
        other => panic!("a twin has no {other:?}"),
    });
    let outcome = device.launch(&loaded, &launch).expect("a launch");
    assert!(outcome.findings.is_empty(), "{key}: {schedule}: {:?}", outcome.findings);

    let counters = outcome.counters.expect("the simulator counts");
    let traffic = |name: &str| counters.buffer(name).expect("a buffer that is read").clone();
    let (read, entries) = (traffic("weights"), traffic("params"));
    assert_eq!(read.loads.bytes, kernel.layout.weight_bytes() as u64, "{key}: {schedule}");
    assert_eq!(read.footprint_sectors * 32, read.loads.bytes.next_multiple_of(32));
    assert_eq!(entries.loads.bytes, kernel.layout.param_bytes() as u64 / 16 * 16);
    assert_eq!(counters.buffer("out").map_or(0, |out| out.stores.requests), 0);
}

#[test]
fn twins_of_every_family_read_the_packed_bytes_once() {
    let arch = Arch::named("h200").expect("a table row");
    reads_everything_once("w4a16.awq-g128.f16-f16.n96.k1024.m1", 1, &arch);
    reads_everything_once("w4a16.awq-g128.f16-f16.n96.k12288.m1", 3, &arch);
    reads_everything_once("w4a16.gptq-g32.f16-f16.n100.k1024.m16", 2, &arch);
    reads_everything_once("w4a16.nf4-b64.bf16-f32.n130.k2048.m128", 1, &arch);
}
