//! Products of codes of 8 bits: schedules of the tensor-core families over weights and activations that
//! are both multiplied as they are.
//!
//! A fragment of `m16n8k32` is one of `m16n8k16` whose elements are pairs of bytes (PTX ISA, "Matrix
//! Fragments for mma.m16n8k32" and "mma.m16n8k16"), and so it is with `wgmma`. Everything but the multiply
//! itself is therefore a main loop over weights as [`WeightSpec::dense`] has them, with half of K:
//! loads, `ldmatrix`, tensor copies, swizzles, shared memory. [`Schedule::in_pairs`] says it in those
//! terms.

use super::{require, MmaSchedule, Rejected, Schedule, WgmmaSchedule, CHUNK_K};
use crate::{Activations, Arch, DType, Group, Problem, WeightSpec, ACTIVATION_GROUP};

/// Codes of a pair.
pub const PAIR_CODES: u32 = 2;
/// Largest K: sums of products up to 128 * 127 stay within 32 bits.
const MOST_K: u32 = 1 << 17;
/// Codes of k to a row's padding: whole 16-byte pieces.
const PIECE_CODES: u32 = 16;

/// A schedule as the main loop over pairs sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    /// Half of K, in whole pieces of 16 bytes.
    pub problem: Problem,
    /// [`WeightSpec::pairs`].
    pub spec: WeightSpec,
    /// Half of the k tile; the term is the bare sum, unless sums of quant groups are scaled.
    pub schedule: Schedule,
}

/// K in pairs: rows of codes end with whole pieces of 16 bytes.
pub fn pairs_of_k(k: u32) -> u32 {
    k.next_multiple_of(PIECE_CODES) / PAIR_CODES
}

impl Schedule {
    /// The schedule over pairs of codes; `None` for weights that are dequantized, and for families that
    /// do not multiply codes.
    pub fn in_pairs(&self, problem: &Problem, spec: &WeightSpec) -> Option<Paired> {
        if !spec.activations.are_quantized() || spec.is_dense() {
            return None;
        }
        let dequant = match spec.activations.are_grouped() {
            true => spec.activations.term(),
            false => spec.activations.sum().to_string(),
        };
        let schedule = match self {
            Schedule::Mma(s) => {
                let block_k = s.block_k / PAIR_CODES;
                Schedule::Mma(MmaSchedule { block_k, dequant, ..s.clone() })
            }
            Schedule::Wgmma(s) => {
                let block_k = s.block_k / PAIR_CODES;
                Schedule::Wgmma(WgmmaSchedule { block_k, dequant, ..s.clone() })
            }
            Schedule::Gemv(_) | Schedule::Dequant(_) => return None,
        };
        let problem = Problem { k: pairs_of_k(problem.k), act: DType::F16, ..problem.clone() };
        Some(Paired { problem, spec: spec.pairs(), schedule })
    }
}

/// What products of codes need, beside what the main loop over pairs does.
pub(super) fn check(
    schedule: &Schedule,
    p: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<(), Rejected> {
    let activations = spec.activations;
    require(p.act_bits == activations.bits(), || {
        format!("activations of {} bits; {} takes {activations}", p.act_bits, spec.name)
    })?;
    if !activations.are_quantized() {
        return Ok(());
    }
    let family = schedule.family().name();
    let Some(paired) = schedule.in_pairs(p, spec) else {
        let reason = format!("{family} multiplies no codes of 8 bits; tensor cores do");
        return Err(Rejected { reason });
    };
    let scales_fit = match activations.are_grouped() {
        true => spec.group == Group::Size(ACTIVATION_GROUP) && activations.sums_by_stage(),
        false => spec.group == Group::Channel,
    };
    require(activations.weight() == Some(&spec.expr) && scales_fit, || {
        let groups = format!("or of {ACTIVATION_GROUP} floats, with scales of activations alike");
        format!(
            "codes of {} are not multiplied as they are: one scale to a row, {groups}",
            spec.name
        )
    })?;
    require(p.act.bytes() == 2, || format!("{} activations are not quantized", p.act))?;
    require(!activations.are_float8() || arch.multiplies_float8(), || {
        format!("multiplies of e4m3 need compute capability 8.9, {} has less", arch.target())
    })?;
    require(p.k % 8 == 0 && p.k <= MOST_K, || {
        format!("K = {} is not a multiple of 8 activations up to {MOST_K}", p.k)
    })?;
    let term = schedule.dequant();
    require(term.is_empty() || term == activations.term(), || {
        format!("codes that are multiplied as they are have the term {}", activations.term())
    })?;
    check_tile(schedule, activations)?;
    paired.schedule.check(&paired.problem, &paired.spec, arch)
}

/// Whether a `wgmma` of integers has so many columns (PTX ISA, "Asynchronous Warpgroup Level Matrix
/// Shape": steps of 16 from 32 on).
pub fn integer_columns(columns: u32) -> bool {
    columns == 8 || columns == 24 || columns % 16 == 0
}

/// k tiles are whole chunks of pairs; those of `wgmma` two of them, as for floats.
fn check_tile(schedule: &Schedule, activations: Activations) -> Result<(), Rejected> {
    if let Schedule::Wgmma(WgmmaSchedule { block_m, .. }) = schedule {
        require(!activations.are_integers() || integer_columns(*block_m), || {
            format!("no wgmma of integers has {block_m} columns: 8, 24 or a multiple of 16")
        })?;
    }
    let (block_k, chunk) = match schedule {
        Schedule::Mma(s) => (s.block_k, PAIR_CODES * CHUNK_K * s.warps_k),
        Schedule::Wgmma(s) => (s.block_k, PAIR_CODES * CHUNK_K * 2),
        Schedule::Gemv(_) | Schedule::Dequant(_) => return Ok(()),
    };
    require(block_k % chunk == 0, || format!("k tile {block_k} is no multiple of {chunk} codes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tests::{awq, h200, problem};
    use crate::{ActivationScales, Param, ParamType};

    const MMA: &str = "mma tile=16x64x256 warps=1x2 stages=4 split=2 pad=16 raster=rows \
                       dequant=(* s (sum (* (- (real q) 128) x)))";

    fn int8() -> WeightSpec {
        WeightSpec {
            name: "eight".into(),
            bits: 8,
            group: Group::Channel,
            params: vec![Param { name: "s".into(), dtype: ParamType::F32 }],
            expr: "(* (- q 128) s)".into(),
            activations: Activations::Integers(ActivationScales::Token),
            ..awq()
        }
    }

    fn eight(k: u32) -> Problem {
        Problem { bits: 8, act_bits: 8, ..problem(5120, k, 16) }
    }

    fn refusal(text: &str, p: &Problem, spec: &WeightSpec, gpu: &str) -> String {
        let arch = Arch::named(gpu).unwrap();
        text.parse::<Schedule>().unwrap().check(p, spec, &arch).unwrap_err().reason
    }

    #[test]
    fn a_schedule_over_codes_is_one_over_half_as_many_pairs() {
        let schedule: Schedule = MMA.parse().unwrap();
        schedule.check(&eight(5120), &int8(), &h200()).unwrap();
        let paired = schedule.in_pairs(&eight(5112), &int8()).unwrap();
        assert_eq!((paired.problem.k, paired.schedule.tile()), (2560, (64, 16)));
        assert_eq!(paired.schedule.steps(paired.problem.k), schedule.steps(5112));
        assert!(
            paired.spec.is_dense() && paired.schedule.in_pairs(&eight(8), &paired.spec).is_none()
        );
        // Rows of activations are padded.
        assert_eq!(schedule.shared_bytes(&eight(5120), &int8()), 4 * (64 * 256 + 16 * 272));
    }

    #[test]
    fn what_codes_cannot_do_is_refused_with_its_reason() {
        let p = eight(5120);
        let gemv = "gemv tokens=1 rows=2 lanes=32 warps=4x2 unroll=2 split=1 x=shared acc=half2 \
                    cache=stream dequant=";
        assert!(refusal(gemv, &p, &int8(), "h200").contains("gemv multiplies no codes"));
        let short = MMA.replace("16x64x256", "16x64x128");
        assert!(refusal(&short, &p, &int8(), "h200").contains("k tile 128"));
        let inside = MMA.replace("(* s (sum (* (- (real q) 128) x)))", "(sum x)");
        assert!(refusal(&inside, &p, &int8(), "h200").contains("have the term"));
        assert!(refusal(MMA, &eight(1 << 18), &int8(), "h200").contains("up to 131072"));
        assert!(refusal(MMA, &problem(64, 512, 1), &int8(), "h200").contains("16 bits"));
        let groups = WeightSpec { group: Group::Size(128), ..int8() };
        assert!(refusal(MMA, &p, &groups, "h200").contains("one scale to a row"));
        let activations = Activations::E4m3(ActivationScales::Token);
        let float8 = WeightSpec { expr: "(* (e4m3 q) s)".into(), activations, ..int8() };
        assert!(refusal(MMA, &p, &float8, "a100").contains("8.9"));
    }
}
