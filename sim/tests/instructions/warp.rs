//! Exchange between lanes (PTX ISA 9.7.9.6, 9.7.13).

use crate::harness::*;

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.9.6", "9.7.13"];
/// All tests of the file.
pub const TESTS: &[fn()] =
    &[shuffles_votes_matches_and_reductions_exchange_lanes, bits_of_all_lanes_are_combined];

#[test]
fn shuffles_votes_matches_and_reductions_exchange_lanes() {
    let a = integers(9);
    let lanes: Lanes = std::array::from_fn(|l| l as u32);
    let shuffled = |body: &str| run(body, [&a, &lanes, &a]);
    assert_eq!(
        shuffled("shfl.sync.bfly.b32 %r5, %r2, 3, 31, -1;")[0],
        std::array::from_fn(|l| a[l ^ 3])
    );
    assert_eq!(shuffled("shfl.sync.idx.b32 %r5, %r2, 5, 31, 0xffffffff;")[0], [a[5]; 32]);
    let [value, inside] =
        shuffled("shfl.sync.down.b32 %r5|%p1, %r2, 4, 31, -1; selp.u32 %r6, 1, 0, %p1;");
    assert_eq!(value, std::array::from_fn(|l| if l + 4 < 32 { a[l + 4] } else { a[l] }));
    assert_eq!(inside, std::array::from_fn(|l| u32::from(l + 4 < 32)));
    assert_eq!(
        shuffled("shfl.sync.up.b32 %r5, %r2, 1, 0, -1;")[0],
        std::array::from_fn(|l| a[l.max(1) - 1])
    );
    let odd = "and.b32 %r7, %r3, 1; setp.eq.u32 %p1, %r7, 1;";
    assert_eq!(
        shuffled(&format!("{odd} vote.sync.ballot.b32 %r5, %p1, -1;"))[0],
        [0xAAAA_AAAA; 32]
    );
    assert_eq!(
        shuffled(&format!("{odd} vote.sync.any.pred %p2, %p1, -1; selp.u32 %r5, 1, 0, %p2;"))[0],
        [1; 32]
    );
    assert_eq!(
        shuffled(&format!("{odd} vote.sync.all.pred %p2, !%p1, -1; selp.u32 %r5, 1, 0, %p2;"))[0],
        [0; 32]
    );
    assert_eq!(
        shuffled(&format!("{odd} match.any.sync.b32 %r5, %r7, -1;"))[0],
        std::array::from_fn(|l| 0x5555_5555 << (l % 2))
    );
    assert_eq!(shuffled("redux.sync.add.u32 %r5, %r3, -1;")[0], [496; 32]);
    assert_eq!(
        shuffled("redux.sync.min.s32 %r5, %r2, -1;")[0],
        [a.iter().map(|&v| v as i32).min().unwrap() as u32; 32]
    );
    assert_eq!(
        shuffled("elect.sync %r5|%p1, -1; selp.u32 %r6, 1, 0, %p1;")[1],
        std::array::from_fn(|l| u32::from(l == 0))
    );
    assert_eq!(
        shuffled("activemask.b32 %r5; mov.u32 %r6, %lanemask_lt;"),
        [[u32::MAX; 32], std::array::from_fn(|l| (1 << l) - 1)]
    );
}

#[test]
fn bits_of_all_lanes_are_combined() {
    let a = integers(70);
    for (op, combine) in [
        ("and", (|a, b| a & b) as fn(u32, u32) -> u32),
        ("or", |a, b| a | b),
        ("xor", |a, b| a ^ b),
    ] {
        let found = run(&format!("redux.sync.{op}.b32 %r5, %r2, -1;"), [&a, &a, &a])[0];
        assert_eq!(found, [a.into_iter().reduce(combine).unwrap(); 32], "{op}");
    }
}
