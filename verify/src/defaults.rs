//! The schedule that is used where nothing has been tuned.
//!
//! A short ladder from the shape that suits most problems down to the one that asks for least. The
//! first rung that is legal wins, so that every problem that any rung can serve has a schedule.

mod ladder;
mod modelled;
mod term;

pub use term::for_any_scale;

use ladder::{ladder, slab_rows, wgmma_rungs, GEMV_TILE};
use modelled::{beside_sorting, modelled_us, with_even_parts};
use qtune_ir::tile::registers;
use qtune_ir::{
    Arch, DType, DenseGemm, DequantSchedule, Family, LibraryGemm, Problem, Rejected, Schedule,
    WeightSpec,
};
use term::{with_term, Terms};

/// Fewest tokens for which a warpgroup's multiply is preferred to a warp's.
const WGMMA_TOKENS: u32 = 64;

/// Fewest tokens for which weights are dequantized ahead where warps multiply: from there on the
/// cost model has the multiplications of floats make up for it.
const DEQUANT_TOKENS: u32 = 4096;

/// Most tokens for which CUDA cores are preferred to tensor cores where they have packed FMAs: from the second on,
/// products alone cost them half an instruction per weight.
const GEMV_TOKENS: u32 = 1;

/// Most tokens for which vectors that codes name are multiplied as they are looked up: tensor cores take a step
/// that looks up every weight first.
const VECTOR_GEMV_TOKENS: u32 = 2;

/// Most registers of an `mma` thread, by estimate, with which no default was seen to spill.
const ROOMY_REGISTERS: u32 = 240;

/// A lower rung is taken rather than a term that costs more than this many times the cheapest, for
/// which the shape may lack shared memory.
const TERM_COST: f64 = 1.5;

/// A legal schedule for `problem` on `arch`: `gemv` for one token in f16, `gemv` or `mma` for two, `wgmma` for
/// many where the GPU has it and the grid fills it, `dequant` for thousands where it has not, else `mma`; `gemv` or
/// `dequant` for codes that name vectors; another family where the preferred one is not legal.
///
/// # Errors
/// [`Rejected`] with the reason of the first rung if no rung of any family is legal.
pub fn default_schedule(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let vectors = spec.codebook.vectors().is_some();
    let order = match problem.m {
        0..=VECTOR_GEMV_TOKENS if vectors => [Family::Gemv, Family::Dequant].as_slice(),
        _ if vectors => &[Family::Dequant, Family::Gemv],
        // A ring brings the parameters that rows share once for all rows of a block, `gemv` for those of a warp.
        0..=GEMV_TOKENS if spec.group.rows() > 1 => &[Family::Mma, Family::Gemv],
        0..=GEMV_TOKENS if problem.act == DType::F16 => &[Family::Gemv, Family::Mma],
        0..=GEMV_TILE => return of_few_tokens(problem, spec, arch),
        WGMMA_TOKENS.. if arch.has_wgmma() => &[Family::Wgmma, Family::Mma, Family::Gemv],
        DEQUANT_TOKENS.. => &[Family::Dequant, Family::Mma, Family::Gemv],
        _ => &[Family::Mma, Family::Gemv],
    };
    let rungs = order.iter().flat_map(|family| ladder(*family, problem, spec, arch));
    first_legal(rungs, problem, spec, arch)
}

/// For a tile of `gemv`: CUDA cores take more instructions per weight than tensor cores; but their blocks have less to
/// do before and after the weights, and sort activations while the first ones are on their way. The less as the cost
/// model has it. The operands of two levels are most of those instructions, which tensor cores share among tokens.
fn of_few_tokens(problem: &Problem, spec: &WeightSpec, arch: &Arch) -> Result<Schedule, Rejected> {
    let of_family = |family| default_of_family(family, problem, spec, arch);
    let us = |schedule: &Schedule| modelled_us(schedule, problem, spec, arch);
    match (of_family(Family::Gemv), of_family(Family::Mma)) {
        (Ok(gemv), Ok(mma)) => {
            let in_gemv = !spec.has_two_levels() && us(&gemv) <= us(&mma);
            Ok(if in_gemv { gemv } else { mma })
        }
        (gemv, mma) => gemv.or(mma),
    }
}

/// The default schedule of one family.
///
/// # Errors
/// [`Rejected`] with the reason of the first rung if no rung is legal.
pub fn default_of_family(
    family: Family,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let mut rungs = ladder(family, problem, spec, arch);
    if family == Family::Wgmma {
        // Asked for, it also serves grids that do not fill the GPU.
        rungs.extend(wgmma_rungs(problem, spec, arch));
    }
    first_legal(rungs.into_iter(), problem, spec, arch)
}

/// The default schedule of [`Family::Dequant`] with cuBLASLt as what multiplies.
///
/// # Errors
/// [`Rejected`] where `arch` is not one of a device that has the library, or the problem is none for it.
pub fn default_with_library(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let gemm = DenseGemm::Library(LibraryGemm { dequant: String::new() });
    let slab = slab_rows(&gemm, problem, arch);
    let rung = Schedule::Dequant(DequantSchedule { slab, gemm });
    first_legal([rung].into_iter(), problem, spec, arch)
}

fn first_legal(
    ladder: impl Iterator<Item = Schedule>,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> Result<Schedule, Rejected> {
    let mut first: Option<Rejected> = None;
    let ladder: Vec<Schedule> = ladder.collect();
    for most in [TERM_COST, f64::INFINITY] {
        let terms = Terms { most, any_scale: false };
        let mut crowded = None;
        for rung in &ladder {
            let legal = rung.check(problem, spec, arch);
            let complete = legal.and_then(|()| with_term(rung, problem, spec, arch, terms));
            // The term decides whether accumulators fit registers.
            match complete.and_then(|s| s.check(problem, spec, arch).map(|()| s)) {
                Ok(s) if is_crowded(&s, problem, spec) => crowded = crowded.or(Some(s)),
                Ok(schedule) => {
                    let even = with_even_parts(schedule, problem, spec, arch);
                    return Ok(beside_sorting(even, problem, spec, arch));
                }
                Err(reason) => first = first.or(Some(reason)),
            }
        }
        if let Some(schedule) = crowded {
            return Ok(beside_sorting(schedule, problem, spec, arch));
        }
    }
    Err(first.unwrap_or(Rejected { reason: "the ladder of default schedules is empty".into() }))
}

/// Whether the sums of `mma` leave the compiler so few registers that it may spill.
fn is_crowded(schedule: &Schedule, problem: &Problem, spec: &WeightSpec) -> bool {
    let is_mma = schedule.family() == Family::Mma;
    is_mma && registers(problem, spec, schedule) > ROOMY_REGISTERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::Split;

    fn default(key: &str, gpu: &str) -> Result<Schedule, Rejected> {
        let problem: Problem = key.parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let arch = Arch::named(gpu).unwrap();
        let schedule = default_schedule(&problem, &spec, &arch)?;
        schedule.check(&problem, &spec, &arch)?;
        Ok(schedule)
    }

    #[test]
    fn scales_that_have_codes_are_made_in_the_kernel_where_bytes_bound_it() {
        let made = |m: u32, end: &str| {
            let key = format!("w4a16.nf4-b64-dq.f16-f16.n8192.k8192.m{m}{end}");
            default(&key, "h200").unwrap().dequant().contains("(nested s c n)")
        };
        assert!(made(1, "") && made(16, ""));
        assert!(!made(64, ""), "lookups of codes and of their scales meet in shared memory");
        assert!(!made(512, ""), "arithmetic bounds it");
        assert!(!made(1, "+silu_mul"), "gate and up have maps of their own");
    }

    #[test]
    fn every_group_size_dtype_and_bucket_has_a_legal_default() {
        for group in ["g32", "g64", "g128", "ch"] {
            for act in ["f16", "bf16"] {
                for (n, k) in [(5120, 27648), (96, 128), (40, 1152), (64, 352)] {
                    if group != "ch" && k % group[1..].parse::<u32>().unwrap() != 0 {
                        continue;
                    }
                    for m in [1, 2, 3, 16, 33, 200] {
                        let key = format!("w4a16.awq-{group}.{act}-{act}.n{n}.k{k}.m{m}");
                        for gpu in ["h200", "rtx4090"] {
                            default(&key, gpu).unwrap_or_else(|e| panic!("{key} on {gpu}: {e}"));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn codes_of_8_bits_have_a_default_wherever_they_are_multiplied() {
        for (format, gpus) in [
            ("int8-ch-a8", ["h200", "a100", "rtx4090"].as_slice()),
            ("fp8-e4m3-ch-a8", &["h200", "rtx4090", "rtx5090"]),
            ("fp8-e4m3-g128-a8", &["h200", "rtx4090", "rtx5090"]),
        ] {
            for (n, k) in [(5120, 27648), (96, 128), (40, 1160), (64, 8)] {
                for m in [1, 2, 3, 16, 33, 200, 1024] {
                    let key = format!("w8a8.{format}.bf16-bf16.n{n}.k{k}.m{m}");
                    for gpu in gpus {
                        let schedule = default(&key, gpu);
                        schedule.unwrap_or_else(|e| panic!("{key} on {gpu}: {e}"));
                    }
                }
            }
        }
        let refused = default("w8a8.fp8-e4m3-ch-a8.f16-f16.n64.k64.m16", "a100").unwrap_err();
        assert!(refused.reason.contains("8.9"), "{refused}");
        for format in ["int8-ch-a8", "fp8-e4m3-ch-a8", "fp8-e4m3-g128-a8"] {
            for m in [256, 257, 1024] {
                let key = format!("w8a8.{format}.f16-f16.n10240.k8192.m{m}");
                let prompt = default(&key, "h200").unwrap();
                assert!(matches!(prompt, Schedule::Wgmma(_)), "{key}: {prompt}");
            }
        }
    }

    #[test]
    fn a_schedule_for_any_scale_does_not_raise_codes() {
        let problem: Problem = "w4a16.awq-g128.f16-f16.n27648.k5120.m128".parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let arch = Arch::named("h200").unwrap();
        let schedule = default_schedule(&problem, &spec, &arch).unwrap();
        assert!(schedule.dequant().contains("(raise q)"), "{schedule}");
        let wide = for_any_scale(&schedule, &problem, &spec, &arch).unwrap();
        assert!(!wide.dequant().contains("raise"), "{wide}");
        assert!(!wide.dequant().contains("(sum x)"), "sums of many tokens cost more: {wide}");
        wide.check(&problem, &spec, &arch).unwrap();
    }

    #[test]
    fn few_tokens_take_cuda_cores_and_small_grids_split_k() {
        let one = default("w4a16.awq-g128.f16-f16.n5120.k5120.m1", "h200").unwrap();
        assert!(matches!(one, Schedule::Gemv(_)), "{one}");
        let many = default("w4a16.awq-g128.f16-f16.n5120.k5120.m16", "h200").unwrap();
        assert!(matches!(&many, Schedule::Mma(s) if s.split.per_tile() > 1), "{many}");
        let wide = default("w4a16.awq-g128.f16-f16.n110592.k5120.m16", "h200").unwrap();
        assert!(matches!(&wide, Schedule::Mma(s) if s.split == Split::NONE), "{wide}");
    }

    #[test]
    fn wide_tiles_have_stages_that_divide_k_and_warps_that_hide_latency() {
        let tile = |n: u32, k: u32, m: u32| {
            let schedule = default(&format!("w4a16.awq-g128.f16-f16.n{n}.k{k}.m{m}"), "h200");
            let Schedule::Mma(mma) = schedule.unwrap() else { panic!("mma for {n} x {k}, {m}") };
            (mma.block_n, mma.block_k, mma.warps_n * mma.warps_k)
        };
        assert_eq!(tile(10240, 8192, 8), (128, 512, 4));
        assert_eq!(tile(8192, 5376, 8), (128, 256, 2), "512 does not divide K");
        assert_eq!(tile(8192, 29568, 8), (128, 512, 4), "nor does 256");
        assert_eq!(tile(8192, 29568, 16), (256, 128, 2), "256 does not divide K");
        assert_eq!(tile(4096, 4096, 16), (256, 128, 2), "wider stages leave SMs idle");
        assert_eq!(tile(4608, 3584, 8), (128, 256, 4), "108 blocks of two warps are too few");
    }

    #[test]
    fn warpgroups_multiply_though_some_sms_stay_idle() {
        let prompt = default("w4a16.awq-g128.f16-f16.n10240.k8192.m256", "h200").unwrap();
        assert!(matches!(prompt, Schedule::Wgmma(_)), "{prompt}");
        let tiny = default("w4a16.awq-g128.f16-f16.n256.k1024.m64", "h200").unwrap();
        assert!(matches!(tiny, Schedule::Mma(_)), "{tiny}");
    }

    #[test]
    fn rows_that_a_full_warp_would_pad_take_fewer_lanes() {
        for (k, lanes) in [(5120, 32), (29568, 32), (3584, 16), (18944, 16), (5376, 8), (11008, 8)]
        {
            let schedule = default(&format!("w4a16.awq-g128.f16-f16.n5376.k{k}.m1"), "h200");
            let Schedule::Gemv(gemv) = schedule.unwrap() else { panic!("gemv for K = {k}") };
            assert_eq!(gemv.lanes, lanes, "K = {k}");
            assert!(200 * (gemv.padded_k(k) - k) <= k, "K = {k}");
        }
    }

    #[test]
    fn thousands_of_tokens_are_worth_dequantizing_ahead_where_warps_multiply() {
        let of = |gpu: &str, m: u32| {
            let key = format!("w4a16.awq-g128.f16-f16.n5120.k5120.m{m}");
            default(&key, gpu).unwrap().family()
        };
        assert_eq!([of("a100", 4096), of("a100", 512)], [Family::Dequant, Family::Mma]);
        assert_eq!(of("h200", 4096), Family::Wgmma);
    }

    #[test]
    fn slabs_are_legal_for_every_format_and_gpu() {
        for format in ["awq-g32", "awq-g128", "awq-ch", "nf4-b64"] {
            for (n, k, m) in [(5120, 5120, 4096), (96, 1152, 257), (512, 1024, 768)] {
                let key = format!("w4a16.{format}.bf16-bf16.n{n}.k{k}.m{m}");
                let problem: Problem = key.parse().unwrap();
                let spec = qtune_formats::resolve(&problem.format).unwrap();
                for gpu in ["h200", "a100", "rtx4090"] {
                    let arch = Arch::named(gpu).unwrap();
                    let found = default_of_family(Family::Dequant, &problem, &spec, &arch);
                    let schedule = found.unwrap_or_else(|e| panic!("{key} on {gpu}: {e}"));
                    schedule.check(&problem, &spec, &arch).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_tensor_cores_multiply_can_be_dequantized_ahead() {
        let arch = Arch::named("h200").unwrap();
        for format in qtune_formats::FORMATS.iter().flat_map(|row| row.examples) {
            let spec = qtune_formats::resolve(format).unwrap();
            // Floats take activations of 16 bits.
            if spec.activations.bits() != 16 {
                continue;
            }
            let key = format!("w{}a16.{format}.f16-f16.n512.k1024.m64", spec.bits);
            let problem: Problem = key.parse().unwrap();
            let of = |family| default_of_family(family, &problem, &spec, &arch);
            if of(Family::Mma).is_ok() {
                let schedule = of(Family::Dequant).unwrap_or_else(|e| panic!("{key}: {e}"));
                assert!(schedule.dequant().starts_with("(sum"), "{schedule}");
            }
        }
    }

    #[test]
    fn a_k_that_no_kernel_reads_is_rejected_with_the_reason() {
        let error = default("w4a16.awq-ch.f16-f16.n64.k100.m1", "h200").unwrap_err();
        assert!(error.reason.contains("100"), "{error}");
    }
}
