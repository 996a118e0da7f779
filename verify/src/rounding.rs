//! How much rounding a schedule's arithmetic may add: the units of the error bound.
//!
//! The bound itself is put together in [`crate::reference`]; `docs/verification.md` derives it.

use crate::epilogue::Approximate;
use qtune_ir::dequant::{Engine, HALF2_CHAIN};
use qtune_ir::{Activations, DType, Problem, Schedule, WeightSpec, ACTIVATION_GROUP, PAIR_CODES};

/// Truncation unit of one tensor-core addition. Products are exact; the addends of one instruction
/// are aligned to the largest and cut off, with at least one bit more than f32 has on sm_80 and
/// later (Fasi et al., "Numerical behavior of NVIDIA tensor cores", PeerJ CS 330, 2021; Khattak
/// and Mikaitis, arXiv 2512.07004). One bit of that is kept as a margin for later chips.
const TENSOR_UNIT: f64 = 1.0 / (1 << 23) as f64;
/// The same of a multiply of 8-bit floats: Ada and Hopper keep 13 to 14 bits of an accumulator of such
/// products (Khattak and Mikaitis, arXiv 2512.07004; DeepSeek-V3 technical report, arXiv 2412.19437,
/// section 3.3.2). Where the GPU has no such multiply but converts to f16 first, it is better.
const FLOAT8_UNIT: f64 = 1.0 / (1 << 13) as f64;
/// Unit roundoff of f32.
pub(crate) const F32_UNIT: f64 = 1.0 / (1 << 24) as f64;
/// Unit roundoff of f16.
const F16_UNIT: f64 = 1.0 / (1 << 11) as f64;
/// Largest error of an f16 result that is subnormal.
const F16_TINY: f64 = 1.0 / (1u64 << 25) as f64;
/// k of one `mma.m16n8k16`.
const MMA_K: u32 = 16;
/// Partial sums of an output element that a library adds in f32, at most: warps that share its k. Sums of
/// thread blocks are none of them, see `device/src/cuda/library.rs`.
const LIBRARY_SLICES: u32 = 16;
/// Products of one `gemv` lane and step.
const LANE_K: u32 = 32;

/// Additions of f32 that stand for one of two halves by a tensor core: a cut for either, and three as for any
/// of its instructions, of two units each.
const FOLD_ADDITIONS: u32 = 2 * (2 + 3);

/// How products are added up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sums {
    /// By an engine that floats are multiplied with.
    Of(Engine),
    /// In integers of 32 bits.
    Exact,
    /// By tensor cores that multiply 8-bit floats.
    Float8,
}

/// The rounding of one schedule, by class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rounding {
    sums: Sums,
    /// Most products in one chain of accumulation.
    chain: u32,
    /// f32 additions that a finished chain passes through on its way to the output.
    additions: u32,
}

/// Most thread blocks whose partial sums of a tile are added.
fn partners(schedule: &Schedule, problem: &Problem) -> u32 {
    match schedule.shares(problem, 1) {
        Some(shares) => shares.most_partners(),
        None => schedule.split().per_tile(),
    }
}

impl Rounding {
    /// The rounding of a schedule whose dequantization term has `sums` sums; `direct` terms are
    /// one sum that nothing is done to, which tensor cores accumulate across quant groups.
    pub fn new(
        schedule: &Schedule,
        spec: &WeightSpec,
        problem: &Problem,
        sums: u32,
        direct: bool,
    ) -> Rounding {
        if let Some(pairs) = schedule.in_pairs(problem, spec) {
            return Rounding::of_codes(&pairs.schedule, &pairs.problem, spec.activations);
        }
        let k = problem.k;
        let engine = schedule.engine();
        let (chain, additions) = match schedule {
            Schedule::Mma(s) => {
                let warp = s.padded_k(k) / s.warps_k;
                let chain = if direct { warp } else { s.segment_k(spec, k).max(1) };
                // Every warp adds up its segments, then warps and splits are added.
                let segments = warp.div_ceil(chain) * sums;
                (chain, segments + s.warps_k + partners(schedule, problem))
            }
            Schedule::Wgmma(s) => {
                let row = s.padded_k(k);
                // Sums that nothing scales before the end of K run from its start.
                let whole = direct || spec.group.size(k) >= k;
                let chain = if whole { row } else { s.segment_k(spec, k) };
                (chain, row.div_ceil(chain) * sums + partners(schedule, problem))
            }
            Schedule::Dequant(s) => {
                // Weights are rounded as the term says, which its own classes hold; the
                // multiplication's are floats already, in one group.
                let dense = WeightSpec::dense();
                if let Some(gemm) = s.multiplication() {
                    return Rounding::new(&gemm, &dense, problem, sums, direct);
                }
                // What order a library adds in is not known: warps of a block may share K, nothing
                // else does.
                (s.padded_k(k), LIBRARY_SLICES)
            }
            Schedule::Gemv(s) => {
                let steps = s.padded_k(k) / s.step_k();
                let chain = if engine == Engine::Half2 { HALF2_CHAIN } else { LANE_K };
                let halves = if s.folds(spec, k) { FOLD_ADDITIONS } else { 2 };
                // Two halves of a chain, the lane's steps, then lanes, warps and splits.
                let lanes = s.lanes.ilog2() + s.warps_k + s.split.per_tile();
                (chain, halves + steps * sums + lanes)
            }
        };
        Rounding { sums: Sums::Of(engine), chain, additions }
    }

    /// The rounding of products of codes that are multiplied as they are, of a schedule over pairs of
    /// them.
    fn of_codes(schedule: &Schedule, problem: &Problem, activations: Activations) -> Rounding {
        // One sum runs from the first stage of a block to its last, as one of floats does.
        let spec = WeightSpec::dense();
        let whole = Rounding::new(schedule, &spec, problem, 1, true);
        let stage = match schedule {
            Schedule::Mma(s) => s.warp_k(),
            Schedule::Wgmma(s) => s.block_k,
            // No codes are multiplied there.
            Schedule::Gemv(_) | Schedule::Dequant(_) => whole.chain,
        };
        // The sum of a quant group is scaled before others are added to it.
        let stage = match activations.are_grouped() {
            true => stage.min(ACTIVATION_GROUP / PAIR_CODES),
            false => stage,
        };
        let (sums, chain, stages) = match activations.sums_by_stage() {
            true => (Sums::Float8, stage.min(whole.chain), whole.chain.div_ceil(stage)),
            false => (Sums::Exact, whole.chain, 0),
        };
        // A sum becomes an f32; two scales are multiplied, and the sum by both. Where they are those of groups, the
        // sum is one already, and the third is the reference's own: it has f32 products of codes and scales.
        let additions = whole.additions + stages + 3;
        Rounding { sums, chain: chain * PAIR_CODES, additions }
    }

    /// Relative error of accumulation, over the sum of absolute products, when at most `products`
    /// of a token's activations are not zero: adding zero is exact.
    pub fn accumulation(&self, products: u32) -> f64 {
        let chain = self.chain.min(products);
        // One cut per product, and per instruction one for the accumulator and one when the result is
        // normalized, which is at most two units.
        let cuts = |k| f64::from(chain + 3 * self.chain.div_ceil(k).min(products));
        let within = match self.sums {
            Sums::Of(Engine::Mma) => cuts(MMA_K) * TENSOR_UNIT,
            Sums::Of(Engine::Half2) => f64::from(chain) * F16_UNIT,
            Sums::Of(Engine::F32) => f64::from(chain) * F32_UNIT,
            Sums::Exact => 0.0,
            Sums::Float8 => cuts(PAIR_CODES * MMA_K) * FLOAT8_UNIT,
        };
        let after = f64::from(self.additions) * F32_UNIT;
        within + after + within * after
    }

    /// Absolute error per product: what f16 accumulators lose below their normal range.
    pub fn underflow(&self) -> f64 {
        match self.sums {
            Sums::Of(Engine::Half2) => F16_TINY,
            _ => 0.0,
        }
    }
}

/// Error of rounding a result to the output type.
pub(crate) fn output(out: DType, result: Approximate) -> f64 {
    out.unit_roundoff() * (result.value.abs() + result.error) + out.tiny_roundoff()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounding(schedule: &str) -> Rounding {
        let problem = "w4a16.awq-g128.f16-f16.n64.k4096.m1".parse().unwrap();
        let spec = qtune_formats::resolve("awq-g128").unwrap();
        Rounding::new(&schedule.parse().unwrap(), &spec, &problem, 1, false)
    }

    const GEMV: &str = "gemv tokens=1 rows=2 lanes=32 warps=4x1 unroll=2 split=1 x=shared \
                        acc=half2 cache=stream dequant=q";

    #[test]
    fn narrower_accumulators_get_a_wider_bound() {
        let half2 = rounding(GEMV).accumulation(4096);
        let f32 = rounding(&GEMV.replace("half2", "f32")).accumulation(4096);
        let mma =
            rounding("mma tile=16x64x256 warps=1x4 stages=4 split=2 pad=16 raster=rows dequant=q");
        assert!(half2 > 100.0 * f32);
        assert!(mma.accumulation(4096) > f32 && mma.accumulation(4096) < 1e-4);
        assert_eq!(mma.underflow(), 0.0);
        assert_eq!(rounding(GEMV).underflow(), 2f64.powi(-25));
    }

    #[test]
    fn a_single_product_is_rounded_once() {
        let one = rounding(GEMV).accumulation(1);
        assert!(one < 1.1 * F16_UNIT, "{one}");
    }

    #[test]
    fn the_output_bound_holds_the_rounding_of_its_type() {
        for value in [1.0, 0.3, 1e-7, 1234.567] {
            let rounded = DType::F16.round(value);
            let bound = output(DType::F16, Approximate { value, error: 0.0 });
            assert!((rounded - value).abs() <= bound, "{value}");
        }
    }
}
