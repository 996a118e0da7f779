//! The driver, the GPUs and the processor.

use super::finding::{Finding, Severity};
use crate::toolchain::driver_version;
use qtune_device::{CudaDevice, Device, DeviceError};

/// Driver, GPUs, processor.
pub fn findings() -> Vec<Finding> {
    let mut findings = gpus();
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    findings.push(Finding::ok("cpu.cores", format!("{cores} core(s) for simulation and packing")));
    findings
}

fn gpus() -> Vec<Finding> {
    let count = match CudaDevice::count() {
        Ok(count) => count,
        Err(error) => return vec![no_driver(&error)],
    };
    let version = driver_version().map_or_else(String::new, |(a, b)| format!(" of CUDA {a}.{b}"));
    let mut findings = vec![Finding::ok("driver.found", format!("NVIDIA driver{version}"))];
    if count == 0 {
        findings.push(Finding::new(
            Severity::Info,
            "gpu.found",
            "the driver shows no GPU",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES, or work with --device sim",
        ));
    }
    findings.extend((0..count).flat_map(gpu));
    findings
}

fn no_driver(error: &DeviceError) -> Finding {
    let reason = match error {
        DeviceError::NoDevice { reason } => reason.clone(),
        other => other.to_string(),
    };
    Finding::new(
        Severity::Info,
        "driver.found",
        format!("no GPU can be used: {reason}"),
        "install the NVIDIA driver to time kernels; without it --device sim verifies kernels \
         exactly and ranks them by the cost model",
    )
}

fn gpu(index: usize) -> Vec<Finding> {
    match CudaDevice::open(index) {
        Ok(device) => {
            let text =
                format!("cuda:{index} is {} ({})", device.describe(), device.arch().fingerprint());
            vec![Finding::ok("gpu.found", text), library(index, &device)]
        }
        Err(error) => vec![Finding::new(
            Severity::Warning,
            "gpu.found",
            format!("cuda:{index} cannot be opened: {error}"),
            "check nvidia-smi: another process may hold all of its memory",
        )],
    }
}

/// Whether slabs may be multiplied by cuBLASLt.
fn library(index: usize, device: &CudaDevice) -> Finding {
    match device.library_version() {
        Ok((major, minor)) => {
            Finding::ok("library.found", format!("cuda:{index} has cuBLASLt {major}.{minor}"))
        }
        Err(reason) => Finding::new(
            Severity::Info,
            "library.found",
            format!("cuda:{index}: {reason}"),
            "install cuBLAS where the loader finds libcublasLt to let `tune` also try gemm=library",
        ),
    }
}
