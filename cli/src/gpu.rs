//! `--gpu` and `--device`: what kernels are made for, and where they run.

use crate::output;
use anyhow::Context;
use qtune_device::{CudaDevice, Device, DeviceChoice, DeviceError, Opened};
use qtune_ir::Arch;

/// The GPU that is assumed where none is named and none is there.
const ASSUMED: &str = "h200";

/// Which GPU kernels are made for.
#[derive(Clone, Debug, clap::Args)]
pub struct GpuArgs {
    /// GPU: h200, h100, a100, l40s, rtx4090, b200, ...; auto asks the driver [default: this
    /// machine's GPU, or h200 where there is none]
    #[arg(long, value_name = "NAME")]
    pub gpu: Option<String>,
}

impl GpuArgs {
    /// The GPU as a value. `auto` is the first GPU of this machine and an error without one.
    pub fn arch(&self) -> anyhow::Result<Arch> {
        match self.gpu.as_deref() {
            Some(name) if name.eq_ignore_ascii_case("auto") => Ok(this_machine()
                .context("--gpu auto needs a GPU in this machine; name one, as in --gpu h200")?),
            Some(name) => Ok(Arch::named(name)?),
            None => this_machine().or_else(|_| {
                output::note(format_args!("no GPU here and no --gpu: assuming {ASSUMED}"));
                Ok(Arch::named(ASSUMED)?)
            }),
        }
    }
}

fn this_machine() -> Result<Arch, DeviceError> {
    Ok(CudaDevice::open(0)?.arch().clone())
}

/// Where kernels run.
#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArgs {
    /// Where kernels run: auto, cuda:INDEX or sim; `tune` also replays a trial log, replay:LOG
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
}

impl DeviceArgs {
    /// The choice, before anything is opened.
    pub fn choice(&self) -> Result<DeviceChoice, DeviceError> {
        self.device.parse()
    }

    /// Opens the device for kernels of `arch`.
    pub fn open(&self, arch: &Arch) -> anyhow::Result<Box<dyn Device>> {
        Ok(open(self.choice()?, arch)?)
    }
}

/// Opens a device for kernels of `arch`. Says on stderr where `auto` fell back on the simulator.
pub fn open(choice: DeviceChoice, arch: &Arch) -> Result<Box<dyn Device>, DeviceError> {
    let Opened { device, notice } = qtune_device::open(choice, arch)?;
    if let Some(notice) = notice {
        output::note(notice);
    }
    Ok(device)
}
