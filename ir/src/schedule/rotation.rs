//! Weights between rotations: activations are rotated before the multiplication, products after it, by
//! functions of their own.
//!
//! A rotation is a Hadamard transform, made orthonormal, with a factor for every feature: before it for
//! inputs, after it for outputs. A thread block has a token's features in shared memory, as f32.

use super::{require, Overlap, Rejected};
use crate::{Arch, Epilogue, Problem, WeightSpec};

/// Fewest features of a rotation.
const LEAST: u32 = 8;

/// What rotations need of a problem.
pub(super) fn check(
    p: &Problem,
    spec: &WeightSpec,
    overlap: Overlap,
    arch: &Arch,
) -> Result<(), Rejected> {
    if !spec.is_rotated() {
        return Ok(());
    }
    for (axis, size) in [("N", p.n), ("K", p.k)] {
        require(size.is_power_of_two() && size >= LEAST, || {
            format!("{axis} = {size}; rotations are of powers of two from {LEAST} up")
        })?;
        let limit = arch.sm.shared_per_block / 4;
        require(size <= limit, || {
            format!("{axis} = {size}; a rotation has at most {limit} features in shared memory")
        })?;
    }
    require(p.act.bytes() == 2, || format!("{} activations; rotated ones have 16 bits", p.act))?;
    require(p.epilogue != Epilogue::SiluMul, || {
        "gate and up rows do not lie in pairs before their products are rotated".into()
    })?;
    require(overlap == Overlap::NONE, || {
        "pdl and prefetch: products are rotated behind the multiplication".into()
    })
}

#[cfg(test)]
mod tests {
    use crate::tile::tests::{awq, h200, problem};
    use crate::{Codebook, Epilogue, Group, Problem, Schedule, VectorCodes, WeightSpec};

    const GEMV: &str =
        "gemv tokens=1 rows=1 lanes=8 warps=1x4 unroll=1 split=1 x=shared acc=half2 \
                        cache=stream dequant=(sum x)";

    #[test]
    fn rotations_are_of_powers_of_two_and_leave_rows_apart() {
        let vectors = VectorCodes::new(1, 16).unwrap().rotated();
        let codebook = Codebook::of_vectors(vectors);
        let spec = WeightSpec { bits: 2, group: Group::Channel, codebook, ..awq() };
        let check = |problem: &Problem, words: &str| {
            let schedule: Schedule = GEMV.replace(" dequant", words).parse().unwrap();
            schedule.check(problem, &spec, &h200()).map_err(|refused| refused.reason)
        };
        let plain = " dequant";
        check(&problem(4096, 2048, 1), plain).unwrap();
        let reason = |problem: Problem, words: &str| check(&problem, words).unwrap_err();
        assert!(reason(problem(4096, 1088, 1), plain).starts_with("K = 1088; rotations"));
        assert!(reason(problem(96, 2048, 1), plain).starts_with("N = 96; rotations"));
        assert!(reason(problem(1 << 17, 2048, 1), plain).contains("in shared memory"));
        let gated = Problem { epilogue: Epilogue::SiluMul, ..problem(4096, 2048, 1) };
        assert!(reason(gated, plain).contains("in pairs"));
        assert!(reason(problem(4096, 2048, 1), " pdl=on dequant").contains("behind the mult"));
    }
}
