//! Mutated kernels and launches: whatever the text, an error or a report, never a panic, a hang or
//! more memory than the limits allow.
//!
//! The short run is part of the tests. The long one is asked for by
//! `QTUNE_FUZZ_SECONDS=600 cargo test -p qtune-sim --release --test fuzz -- --ignored`; a seed that
//! fails is repeated by `QTUNE_FUZZ_SEED`.

mod support;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::{Duration, Instant};

use qtune_sim::{
    run, Access, Arg, AsyncSchedule, BufferId, Launch, Memory, Module, RunOptions, WarpOrder,
};
use support::{kernel, Random};

/// Fixtures that mutations start from.
fn corpus() -> Vec<String> {
    let folder = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("fixtures")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "ptx"))
        .collect();
    paths.sort();
    let mut texts: Vec<String> =
        paths.iter().map(|path| std::fs::read_to_string(path).expect("a fixture")).collect();
    texts.push(kernel("bar.sync 0;"));
    texts
}

/// Pieces that mutations insert: instructions and declarations at the edge of what is allowed.
const PIECES: [&str; 38] = [
    "bar.sync 15, 32;",
    "bar.warp.sync 0;",
    "@%p1 bra $L__BB0_1;",
    "exit;",
    "trap;",
    ".shared .align 16 .b8 huge[2147483647];",
    ".local .align 8 .b8 deep[1073741824];",
    ".reg .b64 %many<4294967295>;",
    ".reg .b32 %few<65535>;",
    "{ { { {",
    "} }",
    "shfl.sync.idx.b32 %r1, %r2, 99, 31, 0;",
    "ld.global.v8.f32 {%f1,%f2,%f3,%f4,%f5,%f6,%f7,%f8}, [%rd1];",
    "st.shared.v4.u32 [-16], {%r1,%r2,%r3,%r4};",
    "atom.global.add.u32 %r1, [0xffffffffffffffff], 1;",
    "cp.async.cg.shared.global [%r1], [%rd1], 16;",
    "mbarrier.init.shared.b64 [%r1], 0;",
    "mbarrier.try_wait.parity.shared.b64 %p1, [%r1], 1;",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1], 4294967280, [%r2];",
    "barrier.cluster.arrive.aligned;",
    "wgmma.wait_group.sync.aligned 0;",
    "setmaxnreg.inc.sync.aligned.u32 256;",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r2,%r3,%r4}, [%r5];",
    "div.s32 %r1, %r2, 0;",
    "ts: .branchtargets $L__BB0_1, $L__BB0_2; brx.idx %r1, ts;",
    ".reg .b128 %q<9>; mov.b128 %q1, {%rd1, %rd2}; ld.global.b128 %q2, [%rd1];",
    ".reg .b128 %z; atom.shared.cas.b128 %z, [%r1], %z, %z;",
    "vabsdiff4.u32.s32.u32.add %r1, %r2, %r3, %r4;",
    "mbarrier.arrive.shared.b64 _, [%r1];",
    ".reg.b32 %close; call.uni __assertfail, ();",
    "@%p1 mbarrier.try_wait.parity.shared.b64 %p2, [%r1], 0;",
    "@%p1 ld.acquire.gpu.global.u32 %r1, [%rd1];",
    "@%p1 fence.acq_rel.gpu;",
    "@%p1 bar.warp.sync 0x0000ff0f;",
    "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r1], 48;",
    "cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;",
    "vset4.s32.u32.ge.add %r1, %r2.b3021, %r3, %r4;",
    "@%p1 st.global.b128 [%rd1], %q1;",
];
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "31",
    "32",
    "255",
    "65536",
    "2147483647",
    "4294967295",
    "-2147483648",
    "9223372036854775807",
    "18446744073709551615",
];

/// A place in the text that is a character boundary.
fn place(random: &mut Random, text: &str) -> usize {
    let at = random.next() as usize % (text.len() + 1);
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// One change of a text: of a byte, a number, a word, or of whole lines.
fn mutate(random: &mut Random, text: &mut String) {
    match random.next() % 9 {
        0 => {
            let at = place(random, text);
            let byte = char::from(32 + (random.next() % 95) as u8);
            text.insert(at, byte);
        }
        1 => {
            let at = place(random, text);
            text.truncate(at.max(text.len() * 3 / 4));
        }
        2 | 3 => replace_word(random, text, |c| c.is_ascii_digit(), &NUMBERS),
        4 => {
            let other = any_word(random, text);
            replace_word(
                random,
                text,
                |c| c.is_ascii_alphanumeric() || "._%$".contains(c),
                &[&other],
            );
        }
        5 => {
            let at = line_start(random, text);
            let piece = PIECES[random.next() as usize % PIECES.len()];
            text.insert_str(at, &format!("{piece}\n"));
        }
        kind => change_lines(random, text, kind),
    }
}

/// Drops, doubles or moves a line.
fn change_lines(random: &mut Random, text: &mut String, kind: u32) {
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.len() < 2 {
        return;
    }
    let at = random.next() as usize % lines.len();
    let (line, other) = (lines[at], random.next() as usize % lines.len());
    match kind {
        6 => drop(lines.remove(at)),
        7 => lines.insert(other, line),
        _ => lines.swap(at, other),
    }
    *text = lines.join("\n");
}

fn line_start(random: &mut Random, text: &str) -> usize {
    let at = place(random, text);
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn any_word(random: &mut Random, text: &str) -> String {
    let at = place(random, text);
    text[at..].split_whitespace().next().unwrap_or("x").to_owned()
}

/// Replaces the first word of such characters behind a random place.
fn replace_word(
    random: &mut Random,
    text: &mut String,
    belongs: impl Fn(char) -> bool,
    choices: &[&str],
) {
    let from = place(random, text);
    let Some(start) = text[from..].find(&belongs).map(|at| from + at) else { return };
    let length = text[start..].find(|c| !belongs(c)).unwrap_or(text.len() - start);
    text.replace_range(start..start + length, choices[random.next() as usize % choices.len()]);
}

/// An argument for a parameter of 4 or 8 bytes, usually of the right size.
fn argument(random: &mut Random, buffers: &[BufferId]) -> Arg {
    match random.next() % 8 {
        0..=4 => {
            let id = buffers[random.next() as usize % buffers.len()];
            Arg::Buffer { id, offset: u64::from(random.next() % 64 == 0) * 4 }
        }
        5 | 6 => Arg::I32(random.next() as i32 % 2048),
        _ => Arg::U64(u64::from(random.next())),
    }
}

/// Parses and runs one text with a random launch under small limits.
fn execute(random: &mut Random, text: &str) {
    let Ok(module) = Module::parse(text) else { return };
    let Some(entry) = module.entries().next().map(str::to_owned) else { return };
    let mut memory = Memory::new();
    let buffers: Vec<BufferId> = (0..4)
        .map(|number| {
            let access = if number < 2 { Access::ReadOnly } else { Access::ReadWrite };
            let id = memory.alloc("buffer", 1 << (8 + 4 * number), access).expect("a buffer");
            memory.write(id, 0, &vec![number as u8; memory.size(id)]).expect("inside");
            id
        })
        .collect();
    let sizes = [1, 2, 3, 32, 64, 100, 128, 1024, 4096];
    let size = |random: &mut Random, most: usize| sizes[random.next() as usize % most];
    let options = RunOptions {
        schedule: if random.next() % 2 == 0 { AsyncSchedule::Lazy } else { AsyncSchedule::Eager },
        warp_order: WarpOrder::Seeded(u64::from(random.next())),
        threads: 1 + random.next() as usize % 2,
        instruction_limit: 20_000,
        ..RunOptions::default()
    };
    let counts = text.matches(".param .u64").count() + text.matches(".param .u32").count();
    let mut args: Vec<Arg> = text
        .match_indices(".param .u")
        .map(|(at, _)| match text[at + 9..].starts_with("64") {
            true => argument(random, &buffers),
            false => Arg::I32(random.next() as i32 % 512),
        })
        .collect();
    args.truncate(counts.saturating_sub(usize::from(random.next() % 16 == 0)));
    let launch = Launch {
        grid: [size(random, 3), size(random, 2), size(random, 3)],
        block: [size(random, sizes.len()), size(random, 2), 1],
        cluster: [if random.next() % 8 == 0 { 2 } else { 1 }, 1, 1],
        dynamic_shared_bytes: [0, 4240, 25_344, 65_536][random.next() as usize % 4],
        args,
    };
    if let Ok(report) = run(&module, &entry, &launch, &mut memory, &options) {
        assert!(report.findings.len() <= options.max_findings);
    }
}

/// One case from a seed: some mutations of a fixture, run.
fn case(corpus: &[String], seed: u64) {
    let mut random = Random::new(seed);
    random.next();
    let mut text = corpus[random.next() as usize % corpus.len()].clone();
    for _ in 0..random.next() % 4 {
        mutate(&mut random, &mut text);
    }
    execute(&mut random, &text);
}

/// Runs seeds until the time is up; fails with those that panicked or took too long.
fn fuzz(first: u64, duration: Duration, most: u64) {
    let corpus = corpus();
    let start = Instant::now();
    let mut failed = Vec::new();
    let mut seed = first;
    while start.elapsed() < duration && seed - first < most {
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&corpus, seed)));
        if outcome.is_err() {
            failed.push(format!("seed {seed} panicked"));
        } else if begun.elapsed() > Duration::from_secs(20) {
            failed.push(format!("seed {seed} took {:?}", begun.elapsed()));
        }
        seed += 1;
    }
    println!("{} cases in {:?}", seed - first, start.elapsed());
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn mutated_kernels_neither_panic_nor_hang() {
    fuzz(1, Duration::from_secs(600), 400);
}

#[test]
#[ignore = "runs for minutes: QTUNE_FUZZ_SECONDS, QTUNE_FUZZ_SEED"]
fn mutated_kernels_neither_panic_nor_hang_for_long() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("QTUNE_FUZZ_SEED");
    let seconds = number("QTUNE_FUZZ_SECONDS").unwrap_or(600);
    fuzz(seed.unwrap_or(1_000_000), Duration::from_secs(seconds), seed.map_or(u64::MAX, |_| 1));
}
