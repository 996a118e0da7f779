//! Packing a layer's weights into a kernel's layout, on the device.

use crate::{Packer, RuntimeError};
use qtune_codegen::Layout;
use qtune_device::{Access, Buffer, Device};
use qtune_formats::{QuantizedLinear, Rotation};
use qtune_ir::Problem;
use rayon::prelude::*;

/// Blocks that each thread packs before they are uploaded: enough to keep all of them busy, few enough
/// that what is packed in host memory stays a small part of the layer.
const BLOCKS_PER_THREAD: usize = 2;
/// Kernels load 16 bytes at a time, so no buffer is smaller.
const BUFFER_BYTES_MIN: usize = 16;

/// The read-only operands of a layer in one layout.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Identifies the layout: kernels with the same id read the same buffers.
    pub layout_id: String,
    pub weights: Buffer,
    pub params: Buffer,
}

/// Packs and uploads the codes and group parameters of `layer`. `progress` is told the row tiles
/// that are done and how many there are.
pub(crate) fn pack(
    device: &dyn Device,
    layer: &QuantizedLinear,
    layout: &Layout,
    progress: &dyn Fn(u32, u32),
) -> Result<Packed, RuntimeError> {
    let read_only =
        |name, bytes: usize| device.alloc(name, bytes.max(BUFFER_BYTES_MIN), Access::ReadOnly);
    let weights = read_only("weights", layout.weight_bytes())?;
    let params = read_only("params", layout.param_bytes())?;
    let packer = Packer::new(layer, layout);
    let mut scratch = vec![Vec::new(); BLOCKS_PER_THREAD * rayon::current_num_threads()];
    let blocks: Vec<u32> = (0..packer.blocks()).collect();
    for batch in blocks.chunks(scratch.len()) {
        let packed = scratch.par_iter_mut().zip(batch);
        let packed: Vec<_> = packed.map(|(scratch, block)| packer.pack(*block, scratch)).collect();
        for (block, tiles) in batch.iter().zip(packed) {
            for (tile, packed) in packer.tiles(*block).zip(tiles) {
                let codes = tile as usize * layout.tile_weight_bytes();
                device.upload(&weights, codes, &packed.weights)?;
                device.upload(&params, layout.param_offset(tile), &packed.params)?;
            }
            progress(packer.tiles(*block).end, layout.tiles());
        }
    }
    Ok(Packed { layout_id: layout.id(), weights, params })
}

/// The bias of a layer in the output's element type; without one, a buffer that is never read.
pub(crate) fn bias(
    device: &dyn Device,
    layer: &QuantizedLinear,
    problem: &Problem,
) -> Result<Buffer, RuntimeError> {
    let values: Vec<f32> = layer.bias.iter().flatten().copied().collect();
    let bytes = problem.out.encode(&values);
    let buffer = device.alloc("bias", bytes.len().max(BUFFER_BYTES_MIN), Access::ReadOnly)?;
    device.upload(&buffer, 0, &bytes)?;
    Ok(buffer)
}

/// The numbers that a layer brings for kernels; without any, a buffer that is never read.
pub(crate) fn table(device: &dyn Device, layer: &QuantizedLinear) -> Result<Buffer, RuntimeError> {
    let bytes = layer.table();
    let buffer = device.alloc("table", bytes.len().max(BUFFER_BYTES_MIN), Access::ReadOnly)?;
    device.upload(&buffer, 0, &bytes)?;
    Ok(buffer)
}

/// Factors of the input and output features of a layer between rotations; of another, buffers that are
/// never read.
pub(crate) fn factors(
    device: &dyn Device,
    layer: &QuantizedLinear,
) -> Result<[Buffer; 2], RuntimeError> {
    let rotation = layer.codes.vectors().and_then(|vectors| vectors.rotation());
    let [inputs, outputs] = rotation.map(Rotation::bytes).unwrap_or_default();
    let upload = |name, bytes: Vec<u8>| -> Result<Buffer, RuntimeError> {
        let buffer = device.alloc(name, bytes.len().max(BUFFER_BYTES_MIN), Access::ReadOnly)?;
        device.upload(&buffer, 0, &bytes)?;
        Ok(buffer)
    };
    Ok([upload("input factors", inputs)?, upload("output factors", outputs)?])
}

/// The column of each input feature, for kernels of a layer with act-order; of another, a buffer that
/// is never read.
pub(crate) fn places(
    device: &dyn Device,
    layer: &QuantizedLinear,
    path: &str,
) -> Result<Buffer, RuntimeError> {
    let places = qtune_formats::places(layer.k_order.as_deref().unwrap_or_default());
    let places = places.map_err(|reason| RuntimeError::Order { layer: path.into(), reason })?;
    let bytes: Vec<u8> = places.into_iter().flat_map(u16::to_le_bytes).collect();
    let buffer = device.alloc("places", bytes.len().max(BUFFER_BYTES_MIN), Access::ReadOnly)?;
    device.upload(&buffer, 0, &bytes)?;
    Ok(buffer)
}
