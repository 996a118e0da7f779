//! Worker processes: this program again, with its hidden subcommand.

use crate::gpu;
use anyhow::Context;
use qtune_codegen::nvrtc::Nvrtc;
use qtune_device::{Device, DeviceChoice, Evidence};
use qtune_ir::Arch;
use qtune_search::{CompilePool, IsolatedDevice, WorkerCommand};
use std::ffi::OsString;
use std::time::Duration;

/// Longest time for one request to a GPU: loading, copying, launching or timing a kernel.
const DEVICE_LIMIT: Duration = Duration::from_secs(60);

fn command(
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
) -> anyhow::Result<WorkerCommand> {
    let program = std::env::current_exe().context("cannot find this program to start workers")?;
    let arguments = [vec!["worker".into()], arguments].concat();
    Ok(WorkerCommand { program, arguments, environment, limit })
}

/// The compiler, in as many processes as there are compiles at a time, each of which may take `limit`.
pub fn compilers(nvrtc: &Nvrtc, limit: Duration) -> anyhow::Result<CompilePool> {
    let environment = vec![("QTUNE_NVRTC".into(), nvrtc.path().into())];
    let command = command(vec!["--compile".into()], environment, limit)?;
    Ok(CompilePool::new(command, nvrtc.fingerprint().to_owned()))
}

/// A device for kernels of `arch`. A GPU is driven from a process of its own; the simulator, which
/// no kernel can take down, stays in this one.
pub fn device(choice: DeviceChoice, arch: &Arch) -> anyhow::Result<Box<dyn Device>> {
    let device = gpu::open(choice, arch)?;
    if device.evidence() == Evidence::Modelled {
        return Ok(device);
    }
    // Its context is of no use here, and would take memory from the one that is.
    drop(device);
    let arch = serde_json::to_string(arch).context("the arch has no JSON form")?;
    let arguments =
        vec!["--device".into(), choice.to_string().into(), "--arch".into(), arch.into()];
    let command = command(arguments, Vec::new(), DEVICE_LIMIT)?;
    Ok(Box::new(IsolatedDevice::start(command)?))
}
