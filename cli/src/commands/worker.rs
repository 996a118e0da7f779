//! `qtune worker`, hidden: the process in which `tune` compiles or drives a GPU.

use crate::exit::{usage, Exit};
use crate::toolchain::FetchArgs;
use anyhow::Context;
use qtune_device::{Device, DeviceChoice};
use qtune_ir::Arch;
use qtune_search::{serve, CompileText};

/// Options of `worker`; see [`crate::workers`] for who gives them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Compile what is sent; the compiler is the one that QTUNE_NVRTC names
    #[arg(long)]
    compile: bool,
    /// Drive this device
    #[arg(long, requires = "arch")]
    device: Option<String>,
    /// The arch that kernels are made for, as JSON
    #[arg(long)]
    arch: Option<String>,
}

/// Serves requests from stdin until it ends.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let nvrtc = match args.compile {
        true => Some(FetchArgs { no_fetch: true }.open()?),
        false => None,
    };
    let compile = nvrtc.as_ref().map(|nvrtc| {
        |source: &str, name: &str, target: &str| nvrtc.compile(source, name, target, &[])
    });
    let device = device(args)?;
    let compile = compile.as_ref().map(|compile| compile as &CompileText<'_>);
    serve(compile, device.as_deref()).context("the parent does not read any more")?;
    Ok(Exit::Success)
}

fn device(args: &Args) -> anyhow::Result<Option<Box<dyn Device>>> {
    let Some((device, arch)) = args.device.as_ref().zip(args.arch.as_ref()) else {
        return Ok(None);
    };
    let choice: DeviceChoice = device.parse()?;
    let arch: Arch = serde_json::from_str(arch).map_err(|error| usage(error.to_string()))?;
    Ok(Some(qtune_device::open(choice, &arch)?.device))
}
