//! A loaded layer as a device, for the verifier.
//!
//! The verifier packs weights itself and launches with its own arguments. Behind this device a
//! launch takes from those only what a caller of the runtime brings, the activations, the output
//! and the token count; weights, bias, workspace, kernel and grid are the layer's own. So a wrong
//! packing, a wrong bucket or a workspace that is too small fails verification.

use crate::{Batch, LinearLayer, RuntimeError};
use qtune_codegen::Argument;
use qtune_device::{
    Access, ArgValue, Buffer, Device, DeviceError, Evidence, KernelImage, LaunchArgs,
    LaunchOutcome, LoadedKernel, Timing, TimingPlan,
};
use qtune_ir::Arch;
use std::fmt;

/// A layer behind the interface of a device.
pub struct ServedLayer<'a> {
    device: &'a dyn Device,
    layer: &'a LinearLayer<'a>,
}

impl fmt::Debug for ServedLayer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServedLayer({:?})", self.layer)
    }
}

impl<'a> ServedLayer<'a> {
    /// Launches of any kernel become launches of `layer`.
    pub fn new(device: &'a dyn Device, layer: &'a LinearLayer<'a>) -> ServedLayer<'a> {
        ServedLayer { device, layer }
    }
}

impl Device for ServedLayer<'_> {
    fn arch(&self) -> &Arch {
        self.device.arch()
    }

    fn describe(&self) -> String {
        format!("{} on {}", self.layer.path(), self.device.describe())
    }

    fn evidence(&self) -> Evidence {
        self.device.evidence()
    }

    fn load(&self, image: &KernelImage) -> Result<LoadedKernel, DeviceError> {
        self.device.load(image)
    }

    fn alloc(&self, name: &str, bytes: usize, access: Access) -> Result<Buffer, DeviceError> {
        self.device.alloc(name, bytes, access)
    }

    fn upload(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.device.upload(buffer, offset, bytes)
    }

    fn download(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u8>, DeviceError> {
        self.device.download(buffer, offset, len)
    }

    fn launch(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchOutcome, DeviceError> {
        let entry = &kernel.image().kernel.main().name;
        let fail = |reason: String| DeviceError::Launch { entry: entry.clone(), reason };
        let entries = &kernel.image().kernel.entries;
        let value = |wanted: Argument| {
            let mut pairs = launch.grids.iter().flat_map(|grid| {
                let arguments = &entries[grid.entry].arguments;
                arguments.iter().zip(&grid.args)
            });
            pairs.find(|(argument, _)| **argument == wanted).map(|(_, value)| *value)
        };
        let buffer = |wanted: Argument| match value(wanted) {
            Some(ArgValue::Buffer(buffer, offset) | ArgValue::TensorMap(buffer, offset, _)) => {
                Ok((buffer, offset))
            }
            _ => Err(fail(format!("no buffer for {wanted:?}"))),
        };
        let Some(ArgValue::U32(tokens)) = value(Argument::Tokens) else {
            return Err(fail("no token count".into()));
        };
        let steps = match buffer(Argument::Products) {
            Ok(products) => {
                Some([buffer(Argument::Prepared).or(buffer(Argument::PreparedMap))?, products])
            }
            Err(_) => None,
        };
        let batch = Batch {
            steps,
            tokens,
            activations: buffer(Argument::Activations).or(buffer(Argument::ActivationMap))?,
            residual: buffer(Argument::Residual).ok(),
            next: None,
            output: buffer(Argument::Output)?,
            blocks: &launch.grids.iter().map(|grid| grid.blocks.clone()).collect::<Vec<_>>(),
            schedule: launch.schedule,
            order: launch.order,
        };
        self.layer.launch(&batch).map_err(|error| match error {
            RuntimeError::Device(error) => error,
            other => fail(other.to_string()),
        })
    }

    fn time(
        &self,
        kernel: &LoadedKernel,
        launches: &[LaunchArgs<'_>],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        self.device.time(kernel, launches, plan)
    }

    fn time_chain(
        &self,
        chain: &[(&LoadedKernel, LaunchArgs<'_>)],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        self.device.time_chain(chain, plan)
    }
}
