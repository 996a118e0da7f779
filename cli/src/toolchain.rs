//! `--no-fetch`: finding NVRTC, saying so when it has to be fetched.

use crate::output;
use qtune_codegen::nvrtc::{Nvrtc, NvrtcError, OpenOptions};
use qtune_device::CudaDevice;

/// Whether a missing compiler may be downloaded.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct FetchArgs {
    /// Never download NVRTC; fail where it is missing
    #[arg(long)]
    pub no_fetch: bool,
}

impl FetchArgs {
    /// Finds and loads NVRTC, or fetches it where that is allowed.
    pub fn open(self) -> Result<Nvrtc, NvrtcError> {
        Nvrtc::open(&OpenOptions {
            allow_fetch: !self.no_fetch,
            driver_cuda_major: driver_version().map(|(major, _)| major),
            notice: &|line| output::note(line),
        })
    }
}

/// CUDA version of the driver as (major, minor), where there is one with a GPU.
pub fn driver_version() -> Option<(u32, u32)> {
    CudaDevice::open(0).ok().map(|gpu| gpu.driver_version())
}
