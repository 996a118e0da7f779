//! Clusters: distributed shared memory, the barrier of the cluster, ranks and launch checks.

use qtune_sim::{Blocks, FindingKind, RunOptions};

use crate::support::kernel;
use crate::support::schedules::{caught, clean, kinds, words as launch, Shape};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.13", "9.7.9"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    values_travel_between_blocks_in_both_directions_without_findings,
    generic_addresses_reach_other_blocks_and_tell_their_rank,
    remote_atomics_of_all_blocks_add_up,
    special_registers_describe_the_place_in_the_cluster,
    accesses_without_the_barrier_of_the_cluster_are_races,
    memory_of_blocks_that_have_not_started_or_may_have_exited_is_out_of_reach,
    ranks_and_offsets_outside_the_cluster_are_found,
    misuse_of_the_cluster_barrier_is_named,
    a_block_that_waits_for_one_that_does_not_come_is_a_deadlock_with_its_place,
    launches_that_do_not_fit_the_cluster_are_refused,
    a_chosen_block_runs_with_its_whole_cluster,
];

/// Address of this thread's word of the output into `%rd9`, its thread and rank into `%r1`, `%r2`.
const PREAMBLE: &str = "mov.u32 %r1, %tid.x; mov.u32 %r2, %cluster_ctarank;
    mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mad.lo.u32 %r5, %r3, %r4, %r1;
    mul.wide.u32 %rd8, %r5, 4; add.u64 %rd9, %rd1, %rd8;
    shl.b32 %r6, %r1, 2; mov.u32 %r7, buffer; add.u32 %r8, %r7, %r6;
    mov.u32 %r9, %cluster_nctarank;";

const SYNC: &str = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;";

/// Each thread gives its global number plus 1000 to the same thread of the next block.
fn pass_on(first: &str, store: &str, second: &str, load: &str, last: &str) -> String {
    kernel(&format!(
        ".shared .align 16 .b8 buffer[1024];
        {PREAMBLE}
        add.u32 %r10, %r2, 1; rem.u32 %r10, %r10, %r9;
        mapa.shared::cluster.u32 %r11, %r8, %r10;
        add.u32 %r12, %r5, 1000;
        {first}
        {store}
        {second}
        {load}
        st.global.u32 [%rd9], %r13;
        {last}"
    ))
}

fn pushing() -> String {
    pass_on(SYNC, "st.shared::cluster.u32 [%r11], %r12;", SYNC, "ld.shared.u32 %r13, [%r8];", "")
}

fn pulling() -> String {
    pass_on("", "st.shared.u32 [%r8], %r12;", SYNC, "ld.shared::cluster.u32 %r13, [%r11];", SYNC)
}

const RING: Shape = ([8, 1, 1], 64, [4, 1, 1]);

/// Global number of the thread `shift` blocks on in the cluster.
fn neighbour(thread: u32, shift: u32) -> u32 {
    let (block, lane) = (thread / 64, thread % 64);
    (block / 4 * 4 + (block + shift) % 4) * 64 + lane
}

#[test]
fn values_travel_between_blocks_in_both_directions_without_findings() {
    for (text, shift) in [(pushing(), 3), (pulling(), 1)] {
        let expected: Vec<u32> = (0..512).map(|t| 1000 + neighbour(t, shift)).collect();
        assert_eq!(clean(&text, RING, 512), expected);
    }
}

#[test]
fn generic_addresses_reach_other_blocks_and_tell_their_rank() {
    let text = kernel(&format!(
        ".shared .align 16 .b8 buffer[1024];
        {PREAMBLE}
        cvt.u64.u32 %rd2, %r8; cvta.shared.u64 %rd3, %rd2;
        xor.b32 %r10, %r2, 1;
        mapa.u64 %rd4, %rd3, %r10;
        isspacep.shared::cta %p1, %rd4; isspacep.shared::cluster %p2, %rd4;
        getctarank.u64 %r11, %rd4; getctarank.u64 %r14, %rd3;
        selp.u32 %r12, 100, 0, %p1; selp.u32 %r13, 10, 0, %p2;
        add.u32 %r12, %r12, %r13; add.u32 %r12, %r12, %r11; mad.lo.u32 %r12, %r14, 1000, %r12;
        {SYNC}
        st.u32 [%rd4], %r12;
        {SYNC}
        ld.u32 %r13, [%rd3]; st.global.u32 [%rd9], %r13;"
    ));
    let words = clean(&text, ([2, 1, 1], 32, [2, 1, 1]), 64);
    // Stored by the other block: its target's rank, 10 for the cluster's window, its own rank.
    assert_eq!((words[0], words[63]), (1010, 11));
}

#[test]
fn remote_atomics_of_all_blocks_add_up() {
    let text = kernel(&format!(
        ".shared .align 16 .b8 buffer[1024];
        {PREAMBLE}
        st.shared.u32 [%r8], %r1;
        {SYNC}
        mov.u32 %r10, 0; mapa.shared::cluster.u32 %r11, %r8, %r10;
        red.relaxed.cluster.shared::cluster.add.u32 [%r11], %r2;
        atom.relaxed.cluster.shared::cluster.add.u32 %r12, [%r11], 1;
        {SYNC}
        ld.shared.u32 %r13, [%r8]; st.global.u32 [%rd9], %r13;"
    ));
    let expected: Vec<u32> = (0..32).map(|t| t + 3 + 3).chain((0..64).map(|t| t % 32)).collect();
    assert_eq!(clean(&text, ([3, 1, 1], 32, [3, 1, 1]), 96), expected);
}

#[test]
fn special_registers_describe_the_place_in_the_cluster() {
    // Word of block b: its number and the value of one register.
    let read = |register: &str| {
        let text = kernel(&format!(
            "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %nctaid.x;
            mad.lo.u32 %r4, %r2, %r3, %r1; mul.wide.u32 %rd2, %r4, 4; add.u64 %rd3, %rd1, %rd2;
            mov.u32 %r5, {register}; st.global.u32 [%rd3], %r5;"
        ));
        launch(&text, ([4, 4, 1], 1, [2, 4, 1]), 16, &RunOptions::default()).unwrap().0
    };
    assert_eq!(read("%cluster_ctarank")[..8], [0, 1, 0, 1, 2, 3, 2, 3]);
    assert_eq!(read("%cluster_ctaid.x")[..4], [0, 1, 0, 1]);
    assert_eq!(read("%cluster_ctaid.y")[8..12], [2, 2, 2, 2]);
    assert_eq!(read("%clusterid.x")[..4], [0, 0, 1, 1]);
    assert_eq!(read("%clusterid.y"), [0; 16]);
    assert_eq!((read("%nclusterid.x")[0], read("%nclusterid.y")[0]), (2, 1));
    assert_eq!((read("%cluster_nctaid.x")[0], read("%cluster_nctaid.y")[0]), (2, 4));
    assert_eq!(read("%cluster_nctarank")[0], 8);
}

#[test]
fn accesses_without_the_barrier_of_the_cluster_are_races() {
    let load = "ld.shared::cluster.u32 %r13, [%r11];";
    let started = pass_on(SYNC, "st.shared.u32 [%r8], %r12;", "", load, SYNC);
    let relaxed = "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;";
    let unordered = pass_on(SYNC, "st.shared.u32 [%r8], %r12;", relaxed, load, SYNC);
    for text in [&started, &unordered] {
        caught(text, RING, 512, FindingKind::SharedRace);
    }
}

#[test]
fn memory_of_blocks_that_have_not_started_or_may_have_exited_is_out_of_reach() {
    let store = "st.shared::cluster.u32 [%r11], %r12;";
    let early = pass_on("", store, SYNC, "ld.shared.u32 %r13, [%r8];", "");
    let load = "ld.shared::cluster.u32 %r13, [%r11];";
    let late = pass_on("", "st.shared.u32 [%r8], %r12;", SYNC, load, "");
    for text in [&early, &late] {
        caught(text, RING, 512, FindingKind::ClusterLifetime);
    }
}

#[test]
fn ranks_and_offsets_outside_the_cluster_are_found() {
    let beyond = pushing().replace("rem.u32 %r10, %r10, %r9;", "add.u32 %r10, %r10, 4;");
    let (_, report) = launch(&beyond, RING, 512, &RunOptions::default()).unwrap();
    assert!(kinds(&report).contains(&FindingKind::InvalidOperand));
    let offset = pushing().replace("[%r11], %r12", "[%r11+1024], %r12");
    let (_, report) = launch(&offset, RING, 512, &RunOptions::default()).unwrap();
    assert!(kinds(&report).contains(&FindingKind::OutOfBounds));
}

#[test]
fn misuse_of_the_cluster_barrier_is_named() {
    let text = |body: &str| kernel(&format!("mov.u32 %r1, %tid.x; {body}"));
    let pair: Shape = ([2, 1, 1], 32, [2, 1, 1]);
    let found =
        |body: &str| kinds(&launch(&text(body), pair, 1, &RunOptions::default()).unwrap().1);
    let (arrive, wait) = ("barrier.cluster.arrive.aligned;", "barrier.cluster.wait.aligned;");
    assert_eq!(found(&format!("{arrive}{wait}{arrive}{wait}")), []);
    assert_eq!(found(&format!("{arrive}{arrive}{wait}")), [FindingKind::BarrierMisuse]);
    assert_eq!(found(wait), [FindingKind::BarrierMisuse]);
    let divergent = format!("setp.lt.u32 %p1, %r1, 16; @!%p1 bra D; {arrive} {wait} D:");
    assert!(found(&divergent).contains(&FindingKind::BarrierDivergence));
}

#[test]
fn a_block_that_waits_for_one_that_does_not_come_is_a_deadlock_with_its_place() {
    let text = kernel(
        "mov.u32 %r1, %cluster_ctarank; setp.eq.u32 %p1, %r1, 1; @%p1 bar.sync 1, 64;
         barrier.cluster.arrive; barrier.cluster.wait;",
    );
    let (_, report) = launch(&text, ([2, 1, 1], 64, [2, 1, 1]), 1, &RunOptions::default()).unwrap();
    assert_eq!(kinds(&report), []);
    let alone = text.replace("@%p1 bar.sync 1, 64;", "@%p1 bar.sync 1, 96;");
    let (_, report) =
        launch(&alone, ([2, 1, 1], 64, [2, 1, 1]), 1, &RunOptions::default()).unwrap();
    let deadlock = report.findings.iter().find(|f| f.kind == FindingKind::Deadlock).unwrap();
    assert!(deadlock.message.contains("warp 0 of rank 0 at the barrier of the cluster"));
    assert!(deadlock.message.contains("warp 1 of rank 1 at barrier 1"), "{}", deadlock.message);
}

#[test]
fn launches_that_do_not_fit_the_cluster_are_refused() {
    let refuse = |text: &str, grid: u32, cluster: u32| {
        let shape = ([grid, 1, 1], 32, [cluster, 1, 1]);
        launch(text, shape, 64, &RunOptions::default()).unwrap_err().to_string()
    };
    let plain = kernel("");
    assert!(refuse(&plain, 3, 2).contains("not a multiple of cluster [2, 1, 1]"));
    assert!(refuse(&plain, 32, 32).contains("allows 1 to 16 blocks"));
    let declared = plain.replace("p)\n{", "p) .reqnctapercluster 4\n{");
    assert!(refuse(&declared, 4, 2).contains(".reqnctapercluster is [4, 1, 1]"));
    let limited = plain.replace("p)\n{", "p) .maxclusterrank 2\n{");
    assert!(refuse(&limited, 4, 4).contains("allows 1 to 2 blocks"));
    let explicit = plain.replace("p)\n{", "p) .explicitcluster\n{");
    assert!(refuse(&explicit, 4, 1).contains(".explicitcluster"));
    // The declared shape is taken where the launch names none.
    let rank = "mov.u32 %r1, %cluster_nctarank; st.global.u32 [%rd1], %r1;";
    let text = kernel(rank).replace("p)\n{", "p) .explicitcluster .reqnctapercluster 4\n{");
    let (words, _) = launch(&text, ([4, 1, 1], 1, [1; 3]), 1, &RunOptions::default()).unwrap();
    assert_eq!(words, [4]);
}

#[test]
fn a_chosen_block_runs_with_its_whole_cluster() {
    let options = RunOptions { blocks: Blocks::List(vec![5]), ..RunOptions::default() };
    let (words, report) = launch(&pushing(), RING, 512, &options).unwrap();
    assert_eq!((report.blocks_run, report.blocks_total), (4, 8));
    assert_eq!((words[0], words[256]), (0, 1000 + neighbour(256, 3)));
}
