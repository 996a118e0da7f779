//! Against real code: the fixtures are the kernels beside them, compiled by NVRTC 13.0.88 (and one
//! by 12.9.86), with expectations read off `nvdisasm -c -hex`.

use super::{Class, Flow, Program};
use crate::cubin::Cubin;

/// The only kernel of a fixture, decoded.
fn program(cubin: &[u8]) -> Program {
    let cubin = Cubin::parse(cubin).expect("a cubin");
    Program::decode(&cubin.kernels[0].text, cubin.sm).expect("code")
}

macro_rules! fixture {
    ($name:literal) => {
        program(include_bytes!(concat!("fixtures/", $name, ".cubin")))
    };
}

/// `lo` and `hi` words of instructions as a text section.
fn text(words: &[(u64, u64)]) -> Vec<u8> {
    words.iter().flat_map(|&(lo, hi)| [lo.to_le_bytes(), hi.to_le_bytes()].concat()).collect()
}

/// Instructions as `nvdisasm -hex` printed them for sm_90.
const EXIT: (u64, u64) = (0x0000_0000_0000_794d, 0x000f_ea00_0380_0000);
const SELF_BRANCH: (u64, u64) = (0xffff_fffc_00fc_7947, 0x000f_c000_0383_ffff);
const NOP: (u64, u64) = (0x0000_0000_0000_7918, 0x000f_c000_0000_0000);

#[test]
fn three_nested_loops_are_found_with_their_own_instructions() {
    let program = fixture!("gemv.sm_90a");
    let [outer, group, inner] = &program.loops[..] else { panic!("{:?}", program.loops) };
    assert_eq!((outer.depth, group.depth, inner.depth), (0, 1, 2));
    assert_eq!((outer.parent, group.parent, inner.parent), (None, Some(0), Some(1)));
    // From the listing: 4 packed pairs a word and no more, one 16-byte load, one branch back.
    assert_eq!((inner.start, inner.end, inner.back_edges.as_slice()), (0x240, 0x380, &[0x370][..]));
    assert_eq!((inner.counts, inner.own.total()), (inner.own, 20));
    assert_eq!(inner.own.get(Class::Half2), 8);
    assert_eq!(inner.own.get(Class::GlobalLoad), 1);
    assert_eq!(outer.own.get(Class::Shuffle), 5);
    assert_eq!(outer.counts.total(), outer.own.total() + group.own.total() + inner.own.total());
    assert_eq!(program.main_loop(), Some(2));
    let loads: Vec<_> = program
        .loop_instructions(2)
        .filter(|i| i.class == Class::GlobalLoad)
        .map(|i| (i.name, i.bytes_per_lane))
        .collect();
    assert_eq!(loads, [("LDG", Some(16))]);
}

#[test]
fn instructions_in_loops_multiply_through_the_nest() {
    let program = fixture!("gemv.sm_90a");
    let own: Vec<f64> = program.loops.iter().map(|l| f64::from(l.own.total())).collect();
    let executed = program.executed_in_loops(&[1.0, 10.0, 8.0]);
    assert_eq!(executed, own[0] + 10.0 * own[1] + 80.0 * own[2]);
    assert_eq!(program.executed_in_loops(&[0.0, 10.0, 8.0]), 0.0);
}

#[test]
fn both_generations_of_branches_and_both_abis_give_the_same_nest() {
    for program in [fixture!("gemv.sm_80"), fixture!("gemv_cuda12.sm_90a"), fixture!("gemv.sm_120")]
    {
        let depths: Vec<_> = program.loops.iter().map(|l| (l.depth, l.parent)).collect();
        assert_eq!(depths, [(0, None), (1, Some(0)), (2, Some(1))]);
        assert_eq!(program.loops[2].own.get(Class::Half2), 8);
        assert_eq!(program.counts().get(Class::Other), 0);
    }
}

#[test]
fn the_tensor_loop_of_every_generation_is_counted_by_class() {
    for program in [fixture!("mma.sm_80"), fixture!("mma.sm_90a"), fixture!("mma.sm_120")] {
        let main = &program.loops[program.main_loop().expect("a main loop")];
        assert_eq!(main.own.get(Class::Tensor), 16);
        assert_eq!(main.own.get(Class::Half2), 16);
        assert_eq!(main.own.get(Class::MatrixLoad), 4);
        assert_eq!(main.own.get(Class::AsyncCopy), 2);
        assert_eq!(main.own.get(Class::GlobalLoad), 2);
        assert!(main.own_stall_cycles >= main.own.total(), "{main:?}");
    }
}

#[test]
fn out_of_line_retries_of_a_barrier_wait_do_not_make_loops_of_what_lies_between() {
    let program = fixture!("hopper.sm_90a");
    let retries: Vec<_> = program.loops.iter().filter(|l| l.own.total() == 2).collect();
    assert_eq!(retries.len(), 5, "a try_wait and a branch each");
    for retry in retries {
        assert_eq!(retry.end - retry.start, 32);
        assert_eq!(retry.depth, 1);
    }
    // The main loop and its remainder do not overlap, although code of both lies behind both.
    let outer: Vec<_> = program.loops.iter().filter(|l| l.depth == 0).collect();
    assert_eq!(outer.len(), 2);
    assert!(!outer[0].contains(outer[1].header) && !outer[1].contains(outer[0].header));
    assert_eq!(outer[0].body.len(), 2, "the retries lie apart from the rest");
}

#[test]
fn warpgroup_and_spill_instructions_have_classes_of_their_own() {
    let wgmma = fixture!("wgmma.sm_90a");
    assert_eq!(wgmma.counts().get(Class::TensorGroup), 5);
    let spill = fixture!("spill.sm_90a");
    let counts = spill.counts();
    assert_eq!((counts.get(Class::LocalLoad), counts.get(Class::LocalStore)), (147, 138));
    let main = spill.main_loop().expect("single precision counts as work");
    assert_eq!(spill.loops[main].own.get(Class::Fp32), 64);
}

#[test]
fn padding_behind_the_exit_is_neither_live_nor_a_loop() {
    let program = Program::decode(&text(&[EXIT, SELF_BRANCH, NOP, NOP]), 90).expect("code");
    assert_eq!(program.instructions[0].flow, Flow::Leave);
    assert_eq!(program.instructions[1].flow, Flow::Jump(0x10));
    assert_eq!((program.live().count(), program.loops.len()), (1, 0));
}

#[test]
fn work_around_no_ops_and_predicated_exits_fall_through() {
    let never_lds = (0x0000_0000_ff00_f984, 0x000f_e200_0000_0800); // @!PT LDS RZ, [RZ]
    let some_exit = (0x0000_0000_0000_094d, 0x000f_ea00_0380_0000); // @P0 EXIT
    let program = Program::decode(&text(&[never_lds, some_exit, NOP, EXIT]), 90).expect("code");
    assert!(program.instructions[0].is_workaround());
    assert_eq!(program.instructions[1].flow, Flow::LeaveSome);
    let live: Vec<_> = program.live().map(|i| i.name).collect();
    assert_eq!(live, ["EXIT", "NOP", "EXIT"]);
}

#[test]
fn unknown_instructions_are_counted_as_other() {
    let unknown = (0x0000_0000_0000_70fe, 0x000f_c000_0000_0000);
    let program = Program::decode(&text(&[unknown, EXIT]), 90).expect("code");
    assert_eq!(program.counts().get(Class::Other), 1);
}

#[test]
fn damaged_code_gives_errors_or_counts_but_no_panic() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = Cubin::parse(include_bytes!("fixtures/hopper.sm_90a.cubin")).expect("a cubin");
    for round in 0..2000 {
        let mut text = good.kernels[0].text.clone();
        for _ in 0..1 + round % 64 {
            let at = random() as usize % text.len();
            text[at] = random() as u8;
        }
        for sm in [80, 90, 120] {
            if let Ok(program) = Program::decode(&text, sm) {
                assert!(program.loops.iter().all(|l| l.counts.total() >= l.own.total()));
            }
        }
    }
    assert!(Program::decode(&[], 90).is_err());
    assert!(Program::decode(&[0; 15], 90).is_err());
    assert!(Program::decode(&[0; 16], 70).is_err());
}

#[test]
fn more_loops_than_compilers_make_are_an_error() {
    // Conditional branches to themselves: every one is a loop.
    let conditional_self = (0xffff_fffc_00fc_0947, 0x000f_c000_0383_ffff);
    let mut words = vec![conditional_self; 2000];
    words.push(EXIT);
    assert!(Program::decode(&text(&words), 90).is_err());
    let program = Program::decode(&text(&words[1000..]), 90).expect("few enough");
    assert_eq!(program.loops.len(), 1000);
}
