//! Compiles a default schedule and counts it.

use super::cases::Case;
use super::row::Row;
use anyhow::Result;
use qtune_codegen::nvrtc::Nvrtc;
use qtune_device::KernelImage;
use qtune_ir::{Arch, DType, Problem};
use qtune_verify::{counted, default_schedule, iteration, VerifyRequest};

/// Decides the sampled thread blocks.
const SEED: u64 = 1;

/// The counts of a case.
///
/// # Errors
/// It has no default schedule, does not compile, or the simulator found a fault.
pub fn measure(nvrtc: &Nvrtc, case: &Case) -> Result<Row> {
    let spec = qtune_formats::resolve(&case.format)?;
    let problem = Problem::of(&spec, [DType::F16; 2], [case.n, case.k, case.m]);
    let arch = Arch::named(&case.gpu)?;
    let schedule = default_schedule(&problem, &spec, &arch)?;
    let kernel = qtune_codegen::generate(&problem, &spec, &schedule, &arch)?;
    let image = KernelImage::compile(nvrtc, kernel, &arch)?;
    let request = VerifyRequest {
        tokens: vec![case.m],
        sample_tiles: Some(1),
        ..VerifyRequest::new(&image, &spec, SEED)
    };
    let (counts, launch) = counted(&request, &arch)?;
    let serialized = image.log.contains("serializ");
    let tensor_share = iteration(&image, &spec, &arch, &launch).map_or(0.0, |i| i.tensor_share());
    let values = [
        counts.lane_instructions_per_weight,
        counts.shared_wavefronts_over_ideal,
        counts.global_sectors_over_ideal,
        counts.weight_bytes_over_compulsory,
        counts.bytes_in_flight_per_sm as f64,
        tensor_share,
        f64::from(counts.spill_bytes),
        f64::from(u8::from(serialized)),
    ];
    Ok(Row { case: case.clone(), family: schedule.family(), values })
}
