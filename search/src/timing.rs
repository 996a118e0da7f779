//! Operands for timing a kernel: their values do not matter, their sizes and places do.

use qtune_codegen::{Argument, Kernel};
use qtune_device::{
    Access, Buffer, Device, DeviceError, LaunchArgs, LoadedKernel, Timing, TimingPlan,
};

/// Copies of the weights at most: enough for matrices that are far smaller than L2.
const COPIES_MAX: usize = 32;
/// Copies take this many times the L2 cache together, so that each launch finds it cold.
const COLD_FACTOR: u64 = 2;

/// A loaded kernel with operands, ready to be timed.
pub(crate) struct Stopwatch<'a> {
    device: &'a dyn Device,
    kernel: LoadedKernel,
    /// Weights and group parameters, several copies.
    copies: Vec<(Buffer, Buffer)>,
    table: Buffer,
    activations: Buffer,
    bias: Buffer,
    residual: Buffer,
    output: Buffer,
    partials: Buffer,
    counters: Buffer,
    slab: Buffer,
    /// A random order of the columns.
    places: Buffer,
    prepared: Buffer,
    token_scales: Buffer,
    factors: [Buffer; 2],
    products: Buffer,
}

/// Bytes that are harmless whatever they are read as: every f16 and bf16 made of them is a normal
/// number below one, and all codes but a few occur.
fn harmless(bytes: usize) -> Vec<u8> {
    any(bytes).into_iter().map(|byte| 0x28 + (byte >> 4)).collect()
}

/// Any bytes.
fn any(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

impl<'a> Stopwatch<'a> {
    /// Loads the kernel and uploads its operands.
    ///
    /// # Errors
    /// As [`Device::load`] and [`Device::alloc`].
    pub fn new(
        device: &'a dyn Device,
        image: &qtune_device::KernelImage,
    ) -> Result<Stopwatch<'a>, DeviceError> {
        let kernel = &image.kernel;
        let (problem, layout) = (&kernel.problem, &kernel.layout);
        let filled = |name, bytes: Vec<u8>| -> Result<Buffer, DeviceError> {
            let buffer = device.alloc(name, bytes.len().max(16), Access::ReadOnly)?;
            device.upload(&buffer, 0, &bytes)?;
            Ok(buffer)
        };
        let read_only = |name, bytes| filled(name, harmless(bytes));
        // Which vectors are looked up decides what caches can keep of them: all, if all occur.
        let codes = if layout.has_vectors() { any } else { harmless };
        let zeroed = |name, bytes: usize| -> Result<Buffer, DeviceError> {
            let buffer = device.alloc(name, bytes.max(16), Access::ReadWrite)?;
            device.upload(&buffer, 0, &vec![0; bytes])?;
            Ok(buffer)
        };
        let copies = copies(layout.weight_bytes(), device.arch().l2_bytes);
        let copies = (0..copies).map(|_| {
            let weights = filled("weights", codes(layout.weight_bytes()))?;
            Ok((weights, read_only("params", layout.param_bytes())?))
        });
        let (m, n, k) = (problem.m as usize, problem.n as usize, problem.k as usize);
        let output = m * (problem.columns() * problem.out.bytes()) as usize;
        Ok(Stopwatch {
            device,
            kernel: device.load(image)?,
            copies: copies.collect::<Result<_, DeviceError>>()?,
            table: read_only("table", layout.table_bytes())?,
            activations: read_only("activations", m * k * problem.act.bytes() as usize)?,
            bias: read_only("bias", n * problem.out.bytes() as usize)?,
            residual: read_only("residual", output)?,
            output: zeroed("output", output)?,
            partials: zeroed("partials", kernel.partials_bytes(problem.m))?,
            counters: zeroed("counters", kernel.counter_bytes(problem.m))?,
            slab: zeroed("slab", kernel.slab_bytes())?,
            places: places(device, kernel)?,
            prepared: zeroed("prepared", kernel.prepared_bytes(problem.m))?,
            token_scales: zeroed("token_scales", kernel.token_scale_bytes(problem.m))?,
            factors: [read_only("input factors", 2 * k)?, read_only("output factors", 2 * n)?],
            products: zeroed("products", kernel.product_bytes(problem.m))?,
        })
    }

    fn kernel(&self) -> &Kernel {
        &self.kernel.image().kernel
    }

    /// Times the kernel at the bucket's token count; `None` if the device measures nothing.
    ///
    /// # Errors
    /// As [`Device::time`].
    pub fn time_launches(&self, plan: &TimingPlan) -> Result<Option<Timing>, DeviceError> {
        let launches: Vec<LaunchArgs<'_>> =
            (0..self.copies.len()).map(|copy| self.launch(copy).1).collect();
        self.device.time(&self.kernel, &launches, plan)
    }

    /// The kernel and a launch of it at the bucket's token count, on one of the copies of the weights;
    /// numbers beyond the last begin again.
    pub fn launch(&self, copy: usize) -> (&LoadedKernel, LaunchArgs<'_>) {
        let kernel = self.kernel();
        let (weights, params) = &self.copies[copy % self.copies.len()];
        let launch = LaunchArgs::new(kernel, kernel.problem.m, |argument| match argument {
            Argument::Weights => (weights, 0),
            Argument::Params => (params, 0),
            Argument::Table => (&self.table, 0),
            Argument::Bias => (&self.bias, 0),
            Argument::Output => (&self.output, 0),
            Argument::Partials => (&self.partials, 0),
            Argument::Counters => (&self.counters, 0),
            Argument::Slab => (&self.slab, 0),
            Argument::Places => (&self.places, 0),
            Argument::Prepared | Argument::PreparedMap => (&self.prepared, 0),
            Argument::TokenScales => (&self.token_scales, 0),
            Argument::InputFactors => (&self.factors[0], 0),
            Argument::OutputFactors => (&self.factors[1], 0),
            Argument::Products => (&self.products, 0),
            Argument::Residual => (&self.residual, 0),
            Argument::Activations
            | Argument::ActivationMap
            | Argument::Tokens
            | Argument::FirstTile
            | Argument::Next
            | Argument::NextLines => (&self.activations, 0),
        });
        (&self.kernel, launch)
    }

    /// Bytes of weights that a launch reads.
    pub fn weight_bytes(&self) -> usize {
        self.kernel().layout.weight_bytes()
    }
}

/// A random order of the columns for a kernel that reads one: what it costs to move activations depends
/// on it.
fn places(device: &dyn Device, kernel: &Kernel) -> Result<Buffer, DeviceError> {
    let reads = kernel.entries.iter().any(|entry| entry.arguments.contains(&Argument::Places));
    let k = kernel.problem.k;
    let group = k.div_ceil(kernel.layout.groups());
    let order = qtune_verify::permutation(0, if reads { k } else { 0 }, group);
    // The schedule was legal, so the columns are not too many.
    let places = qtune_formats::places(&order).unwrap_or_default();
    let bytes: Vec<u8> = places.into_iter().flat_map(u16::to_le_bytes).collect();
    let buffer = device.alloc("places", bytes.len().max(16), Access::ReadOnly)?;
    device.upload(&buffer, 0, &bytes)?;
    Ok(buffer)
}

/// Copies of the weights that keep L2 cold.
fn copies(weight_bytes: usize, l2_bytes: u64) -> usize {
    let wanted = (COLD_FACTOR * l2_bytes).div_ceil(weight_bytes.max(1) as u64) + 1;
    (wanted as usize).clamp(1, COPIES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_exceed_the_cache_and_large_matrices_need_two() {
        let l2 = 50 << 20;
        assert_eq!(copies(200 << 20, l2), 2);
        assert!(copies(13 << 20, l2) * (13 << 20) > (2 * l2) as usize);
        assert_eq!(copies(100, l2), COPIES_MAX);
    }

    #[test]
    fn harmless_bytes_are_normal_halves_below_one() {
        for pair in harmless(4096).chunks(2) {
            let exponent = (pair[1] >> 2) & 31;
            assert!(pair[1] < 0x3c && exponent > 0 && exponent < 15);
        }
    }
}
