//! `--gpu` and `--device`: what kernels are made for, and where they run.

use anyhow::Context;
use qtune_device::{CudaDevice, Device, DeviceChoice, Opened};
use qtune_ir::Arch;

/// Which GPU kernels are made for.
#[derive(Clone, Debug, clap::Args)]
pub struct GpuArgs {
    /// GPU: h200, h100, a100, l40s, rtx4090, b200, ...; auto asks the driver
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub gpu: String,
}

impl GpuArgs {
    /// The GPU as a value. `auto` is the first GPU of this machine.
    pub fn arch(&self) -> anyhow::Result<Arch> {
        if self.gpu.eq_ignore_ascii_case("auto") {
            let device = CudaDevice::open(0)
                .context("--gpu auto needs a GPU in this machine; name one, as in --gpu h200")?;
            return Ok(device.arch().clone());
        }
        Ok(Arch::named(&self.gpu)?)
    }
}

/// Where kernels run.
#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArgs {
    /// Where kernels run: auto, cuda:INDEX or sim
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
}

impl DeviceArgs {
    /// Opens the device for kernels of `arch`. Says on stderr where `auto` fell back on the
    /// simulator.
    pub fn open(&self, arch: &Arch) -> anyhow::Result<Box<dyn Device>> {
        let choice: DeviceChoice = self.device.parse()?;
        let Opened { device, notice } = qtune_device::open(choice, arch)?;
        if let Some(notice) = notice {
            crate::output::note(notice);
        }
        Ok(device)
    }
}
