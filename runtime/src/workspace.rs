//! Device memory that kernels need between thread blocks (split K) and between grids (slabs, sorted
//! or quantized activations, products that are rotated).

use crate::RuntimeError;
use qtune_codegen::Kernel;
use qtune_device::{Access, Buffer, Device};

/// Partial sums, counters, a slab and prepared activations, grown to the largest launch so far and shared
/// by all kernels of a layer: every launch leaves the counters at zero and may find any partial sums.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub partials: Buffer,
    pub counters: Buffer,
    /// Dequantized weights of one slab.
    pub slab: Buffer,
    /// Activations in the order of a layer's columns, their codes or rotated.
    pub prepared: Buffer,
    /// The scales of tokens whose activations are codes.
    pub token_scales: Buffer,
    /// Products before they are rotated.
    pub products: Buffer,
}

/// How many they are.
const BUFFERS: usize = 6;
/// Smallest buffer: a kernel without split K takes none of them, but every layer has them.
const BYTES_MIN: usize = 16;

impl Workspace {
    /// A workspace for kernels without split K.
    pub fn empty(device: &dyn Device) -> Result<Workspace, RuntimeError> {
        Workspace::of_bytes(device, [0; BUFFERS])
    }

    /// A workspace for launches of `kernel` with `tokens` tokens.
    pub fn new(
        device: &dyn Device,
        kernel: &Kernel,
        tokens: u32,
    ) -> Result<Workspace, RuntimeError> {
        Workspace::of_bytes(device, bytes(kernel, tokens))
    }

    fn of_bytes(device: &dyn Device, bytes: [usize; BUFFERS]) -> Result<Workspace, RuntimeError> {
        let [partials, counters, slab, prepared, token_scales, products] = bytes;
        let zeroed = |name, bytes: usize| -> Result<Buffer, RuntimeError> {
            let bytes = bytes.max(BYTES_MIN);
            let buffer = device.alloc(name, bytes, Access::ReadWrite)?;
            device.upload(&buffer, 0, &vec![0; bytes])?;
            Ok(buffer)
        };
        Ok(Workspace {
            partials: zeroed("partials", partials)?,
            counters: zeroed("counters", counters)?,
            slab: zeroed("slab", slab)?,
            prepared: zeroed("prepared", prepared)?,
            token_scales: zeroed("token_scales", token_scales)?,
            products: zeroed("products", products)?,
        })
    }

    /// Whether it is large enough for launches of `kernel` with `tokens` tokens.
    pub fn holds(&self, kernel: &Kernel, tokens: u32) -> bool {
        let own = [&self.partials, &self.counters, &self.slab];
        let steps = [&self.prepared, &self.token_scales, &self.products];
        let own = own.into_iter().chain(steps).map(Buffer::bytes);
        bytes(kernel, tokens).iter().zip(own).all(|(needs, has)| *needs <= has)
    }
}

/// Bytes of partial sums, counters, slab, prepared activations, their scales and products that a launch needs.
fn bytes(kernel: &Kernel, tokens: u32) -> [usize; BUFFERS] {
    [
        kernel.partials_bytes(tokens),
        kernel.counter_bytes(tokens),
        kernel.slab_bytes(),
        kernel.prepared_bytes(tokens),
        kernel.token_scale_bytes(tokens),
        kernel.product_bytes(tokens),
    ]
}
